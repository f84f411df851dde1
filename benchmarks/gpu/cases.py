# SPDX-License-Identifier: Apache-2.0
"""What is measured on a device, and beside whom.

A contender is called as its users call it. Its value has to agree with sosie's before it is timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.pairs import PairCase

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case(PairCase):
    """One task on images of one shape.

    Attributes
    ----------
    family : {"ssd", "ssim", "ms_ssim"}
        What is computed: its mean over all images, as a loss.
    shape : tuple of int
        ``(batch, channels, height, width)``.
    dtype : str
        Of both images.
    gradient : bool
        Whether the gradient of the first image is computed as well.
    bytes : float
        Least traffic with device memory per element of one image, in bytes.
    channels_last : bool
        Order of memory.
    """

    family: str
    shape: tuple[int, int, int, int]
    dtype: str = "float32"
    gradient: bool = False
    bytes: float = 8
    channels_last: bool = False

    @property
    def elements(self) -> int:
        """Of one image."""
        n, c, h, w = self.shape
        return n * c * h * w

    @property
    def tolerance(self) -> float:
        """Relative, of the loss: what SSIM lacks of 1, here some 0.01. The usual form, a difference
        of the moments of five images, is off by up to 1e-5 of 1 in float32, and torchmetrics looks
        at borders, that the others leave out: more of an image at each scale."""
        return {"ssd": super().tolerance, "ssim": 2e-2, "ms_ssim": 1e-1}[self.family]

    @property
    def operations(self) -> float:
        """Least float32 instructions per element, as docs/performance.md counts them."""
        forward, both = {"ssd": (2, 4), "ssim": (122, 265), "ms_ssim": (163, 354)}[self.family]
        return both if self.gradient else forward

    @property
    def name(self) -> str:
        """For tables."""
        size = "x".join(map(str, self.shape))
        last = ", channels last" if self.channels_last else ""
        task = "loss and gradient" if self.gradient else "forward"
        return f"{self.family} {size} {self.dtype}{last}, {task}"

    @property
    def bytes_of_input(self) -> int:
        """Two images."""
        return 2 * self.elements * (2 if self.dtype in ("float16", "bfloat16") else 4)

    def inputs(self, count: int, device: str = "cuda") -> list[Any]:
        """So many pairs of images."""
        import torch

        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        found = []
        for _ in range(count):
            x = torch.rand(self.shape, device=device)
            y = (x + 0.1 * torch.rand_like(x)).clamp(0, 1)
            dtype = getattr(torch, self.dtype)
            x, y = (image.to(dtype, memory_format=layout) for image in (x, y))
            found.append((x.requires_grad_(self.gradient), y))
        return found

    def functions(self) -> dict[str, Call]:
        """Functions ``(x, y) -> loss``, sosie's first; who is not installed is left out."""
        return _contenders(self)


Call = Callable[[Any, Any], Any]

_SHAPES = ((8, 3, 1080, 1920), (16, 3, 256, 256), (1, 3, 512, 512))
CASES = (
    *(Case("ssd", shape) for shape in _SHAPES),
    *(Case("ssd", shape, gradient=True, bytes=12) for shape in _SHAPES),
    Case("ssd", _SHAPES[0], "bfloat16", bytes=4),
    *(Case("ssim", shape) for shape in _SHAPES),
    *(Case("ssim", shape, gradient=True, bytes=12) for shape in _SHAPES),
    Case("ssim", _SHAPES[0], channels_last=True),
    Case("ssim", _SHAPES[0], "bfloat16", bytes=4),
    Case("ssim", _SHAPES[0], "float16", gradient=True, bytes=6),
    *(Case("ms_ssim", shape, bytes=13) for shape in _SHAPES[:2]),
    *(Case("ms_ssim", shape, gradient=True, bytes=30) for shape in _SHAPES[:2]),
)


def _contenders(case: Case) -> dict[str, Call]:
    makers = {
        "ssd": {"sosie": _sosie_mse, "torch": _torch_mse, "torch.compile": _compiled(_torch_mse)},
        "ssim": {
            "sosie": _sosie_ssim,
            "torch": _torch_ssim,
            "torch.compile": _compiled(_torch_ssim),
            "pytorch-msssim": _pytorch_msssim("ssim"),
            "torchmetrics": _torchmetrics("structural_similarity_index_measure"),
            "fused-ssim": _fused_ssim("fused_ssim"),
            "fussim": _fused_ssim("fussim"),
            "frame-analytics": _frame_analytics,
        },
        "ms_ssim": {
            "sosie": _sosie_ms_ssim,
            "pytorch-msssim": _pytorch_msssim("ms_ssim"),
            "torchmetrics": _torchmetrics("multiscale_structural_similarity_index_measure"),
        },
    }[case.family]
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make(case)
        except ImportError:
            continue
    return found


def _sosie_mse(_: Case) -> Call:
    from sosie.nn import WeightedSSDLoss

    return WeightedSSDLoss(reduction="mean")


def _torch_mse(_: Case) -> Call:
    from torch.nn import functional

    return lambda x, y: functional.mse_loss(x.float(), y.float())


def _sosie_ssim(_: Case) -> Call:
    from sosie.nn import SSIMLoss

    return SSIMLoss(data_range=1.0, spec="pytorch-msssim")


def _sosie_ms_ssim(_: Case) -> Call:
    from sosie.nn import MSSSIMLoss

    return MSSSIMLoss(data_range=1.0, spec="pytorch-msssim")


def _torch_ssim(case: Case) -> Call:
    """The formula as people write it: five filtered images."""
    import torch
    from torch.nn import functional

    channels = case.shape[1]
    device = "cuda" if torch.cuda.is_available() else "cpu"  # where tests call this
    distance = torch.arange(11, device=device) - 5.0
    taps = torch.exp(-(distance**2) / (2 * 1.5**2))
    taps = (taps / taps.sum()).expand(channels, 1, 11)

    def filtered(image: Any) -> Any:
        rows = functional.conv2d(image, taps[:, :, :, None], groups=channels)
        return functional.conv2d(rows, taps[:, :, None, :], groups=channels)

    def loss(x: Any, y: Any) -> Any:
        x, y = x.float(), y.float()
        c1, c2 = 0.01**2, 0.03**2
        mx, my = filtered(x), filtered(y)
        vx, vy = filtered(x * x) - mx * mx, filtered(y * y) - my * my
        cov = filtered(x * y) - mx * my
        top = (2 * mx * my + c1) * (2 * cov + c2)
        return 1 - (top / ((mx * mx + my * my + c1) * (vx + vy + c2))).mean()

    return loss


def _compiled(make: Callable[[Case], Call]) -> Callable[[Case], Call]:
    def compiled(case: Case) -> Call:
        import torch

        importlib.import_module("triton")
        # For this shape, and whatever was compiled before: beyond some shapes of one function
        # nothing would be compiled any more, without a word.
        torch.compiler.reset()
        return torch.compile(make(case), dynamic=False)

    return compiled


def _pytorch_msssim(name: str) -> Callable[[Case], Call]:
    def make(_: Case) -> Call:
        function = getattr(importlib.import_module("pytorch_msssim"), name)
        return lambda x, y: 1 - function(x.float(), y.float(), data_range=1.0)

    return make


def _torchmetrics(name: str) -> Callable[[Case], Call]:
    def make(_: Case) -> Call:
        function = getattr(importlib.import_module("torchmetrics.functional.image"), name)
        return lambda x, y: 1 - function(x.float(), y.float(), data_range=1.0)

    return make


def _fused_ssim(module: str) -> Callable[[Case], Call]:
    def make(_: Case) -> Call:
        function = importlib.import_module(module).fused_ssim
        return lambda x, y: 1 - function(x, y, padding="valid")

    return make


def _frame_analytics(_: Case) -> Call:
    function = importlib.import_module("frame_analytics").ssim
    return lambda x, y: 1 - function(x, y)
