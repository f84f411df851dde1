# SPDX-License-Identifier: Apache-2.0
"""Drop-ins compute on CUDA devices what there are kernels for, and say why if they do not.

The kernels run in the emulator, from tensors in host memory. Devices are those of torch's fake
tensors, which have one without a GPU: for them the whole way is gone but the launch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from emulator import Emulator, emulated, needs_emulator  # noqa: E402
from sosie.backends import cuda  # noqa: E402
from sosie.backends.cuda import launcher  # noqa: E402
from sosie.compat import (  # noqa: E402
    NotCovered,
    fused_ssim,
    kornia,
    monai,
    piq,
    pytorch_msssim,
    torch_functional,
    torchmetrics,
)

COMPUTED: dict[str, Callable[..., Any]] = {
    "fused_ssim": lambda x, y: fused_ssim.fused_ssim(x, y, padding="valid"),
    "pytorch_msssim": lambda x, y: pytorch_msssim.ssim(x, y, data_range=1.0),
    "scales": lambda x, y: pytorch_msssim.ms_ssim(x, y, 1.0, win_size=3, weights=[0.5, 0.5]),
    "piq": lambda x, y: piq.ssim(x, y, full=True)[1],
    "kornia": lambda x, y: kornia.ssim_loss(x, y, 7, reduction="sum"),
    "monai": monai.SSIMLoss(2),
    "torchmetrics": lambda x, y: torchmetrics.structural_similarity_index_measure(
        x, y, data_range=1.0, return_full_image=True
    )[1].sum(),
    "signal to noise": lambda x, y: torchmetrics.peak_signal_noise_ratio(x, y, 1.0, dim=(1, 2)),
    "mse_loss": torch_functional.mse_loss,
}


def _images() -> tuple[Any, Any]:
    x, y = torch.rand(2, 2, 3, 50, 47, generator=torch.Generator().manual_seed(0))
    return x, 0.6 * x + 0.4 * y


@needs_emulator
@pytest.mark.parametrize("case", COMPUTED)
def test_the_kernels_for_cuda_give_the_same(case: str) -> None:
    images = _images()
    x, y = (image.clone().requires_grad_() for image in images)
    with emulated() as emulator:
        value = COMPUTED[case](x, y).sum()
        (gradient,) = torch.autograd.grad(value, x)
    assert emulator.launched
    doubles = [image.double().requires_grad_() for image in images]
    expected = COMPUTED[case](*doubles).sum()
    (expected_gradient,) = torch.autograd.grad(expected, doubles[0])
    # float32, of sums of some thousand values at most
    torch.testing.assert_close(value.double(), expected.double(), rtol=1e-5, atol=1e-6)
    scale = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=1e-4 * scale)


#: Builds of torch without CUDA cannot slice fake tensors there: not all cases get through.
@pytest.mark.parametrize("case", ["fused_ssim", "pytorch_msssim", "piq", "kornia", "monai"])
def test_results_stay_on_the_device(case: str) -> None:
    pytorch_msssim._rounded_taps.cache_clear()  # as in a process whose first call this is
    with FakeTensorMode(), launcher.use_launcher(Emulator()):
        x, y = torch.rand(2, 2, 3, 180, 177, device="cuda")
        result = COMPUTED[case](x, y)
    assert (result.device.type, result.dtype) == ("cuda", torch.float32)


def test_what_is_missing_on_a_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> None:
        raise RuntimeError("nobody can launch here")

    with FakeTensorMode():
        x, y = torch.rand(2, 1, 3, 16, 16, device="cuda")
        elsewhere = torch.rand(1, 3, 16, 16)
        others = [name for name in cuda.__all__ if name != "cosine_forward"]
        monkeypatch.setattr(cuda, "__all__", others)
        with launcher.use_launcher(Emulator()):
            with pytest.raises(NotCovered, match=r"one device, got .* on cuda:0 and .* on cpu"):
                fused_ssim.fused_ssim(x, elsewhere)
            with pytest.raises(NotCovered, match="there is no CUDA kernel for cosine_forward yet"):
                torch_functional.cosine_similarity.__wrapped__(x, y)
        monkeypatch.setattr(launcher, "launcher", nobody)
        with pytest.raises(NotCovered, match=r"not compute on cuda:0: nobody can launch here"):
            fused_ssim.fused_ssim(x, y)
        other = torch.empty(1, 3, 16, 16, device="xpu")
        with pytest.raises(NotCovered, match="there are no kernels for it"):
            fused_ssim.fused_ssim(other, other)
