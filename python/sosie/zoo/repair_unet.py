# SPDX-License-Identifier: Apache-2.0
"""A small U-Net of gated, partial or plain convolutions that fills in missing pixels.

It starts from two estimates that need no learning: normalised convolutions (Knutsson and Westin
1993) with a narrow window, which keeps detail and noise, and a wide one, which loses both. At every
pixel the network mixes them, and adds a correction. What it sees and what it corrects is brightness
and two colour differences rather than red, green and blue, because noise is as strong in all three
but images live mostly in the first.

Gated convolutions (Yu et al., "Free-form image inpainting with gated convolution", ICCV 2019) learn
what to let through; partial ones (Liu et al., "Image inpainting for irregular holes using partial
convolutions", ECCV 2018) take means over what is known, and what they reach becomes known; plain
ones are the cheapest, and as good where known pixels are never far.

The body works at half, quarter and eighth resolution, on pixels folded into channels (Shi et al.,
"Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
network", CVPR 2016), in the shape of a U-Net (Ronneberger et al., MICCAI 2015) of residual blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sosie.zoo.filling import normalised_convolution
from sosie.zoo.model import RepairModel
from sosie.zoo.registry import register_model

__all__ = ["RepairUNet", "RepairUNetConfig"]

_CONVOLUTIONS = ("gated", "partial", "plain")

#: Standard deviations of the windows of the estimates, in pixels.
_SIGMAS = (1.0, 2.0)
#: Pixels along one side that are folded into channels.
_FOLD = 2
#: Brings inputs, whose standard deviation is near a half, to about one.
_INPUT_SCALE = 2.0


@dataclass(frozen=True)
class RepairUNetConfig:
    """How a :class:`RepairUNet` is built.

    Attributes
    ----------
    channels : {1, 3}
        Gray or RGB.
    widths : tuple of int
        Channels at half, quarter and eighth resolution.
    convolution : {"gated", "partial", "plain"}
        See the module.
    keep_known : bool
        Return known pixels as they are: right for inpainting, wrong where they are noisy.
    """

    channels: int = 3
    widths: tuple[int, int, int] = (32, 48, 64)
    convolution: str = "gated"
    keep_known: bool = True

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"expected 1 or 3 channels, got {self.channels}")
        if self.convolution not in _CONVOLUTIONS:
            raise ValueError(
                f"expected a convolution out of {', '.join(_CONVOLUTIONS)}, "
                f"got {self.convolution!r}"
            )


@register_model("repair_unet")
class RepairUNet(RepairModel):
    """U-Net that repairs images; called with ``(damaged, known=None)``.

    What ``damaged`` holds where a pixel is missing does not matter, if it is finite. Any height and
    width.

    Examples
    --------
    >>> model = RepairUNet(RepairUNetConfig())
    >>> repaired = model(torch.rand(1, 3, 37, 50), torch.ones(1, 1, 37, 50))
    >>> tuple(repaired.shape)
    (1, 3, 37, 50)
    """

    Config = RepairUNetConfig

    to_opponent: Tensor

    def __init__(self, config: RepairUNetConfig) -> None:
        super().__init__(config)
        half, quarter, eighth = config.widths
        channels, kind = config.channels, config.convolution
        # Estimates, damaged pixels, which are known.
        seen = channels * len(_SIGMAS) + channels + 1
        made = channels + len(_SIGMAS)  # correction, shares in the mixture
        fold = _FOLD**2
        self.enter = MaskedConv2d(kind, seen * fold, half, 3, padding=1)
        self.encode_half = ResidualBlock(kind, half)
        self.to_quarter = MaskedConv2d(kind, half, quarter, 2, stride=2)
        self.encode_quarter = ResidualBlock(kind, quarter)
        self.to_eighth = MaskedConv2d(kind, quarter, eighth, 2, stride=2)
        self.bottom = ResidualBlock(kind, eighth)
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.decode_quarter = ResidualBlock(kind, quarter)
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.decode_half = ResidualBlock(kind, half)
        self.leave = nn.Conv2d(half, made * fold, 3, padding=1, bias=False)
        # Untrained, it returns the mean of the estimates, nearly.
        nn.init.normal_(self.leave.weight, std=1e-3)
        opponent = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
        opponent = opponent[:channels, :channels]
        opponent /= opponent.norm(dim=1, keepdim=True)
        self.register_buffer("to_opponent", opponent, persistent=False)

    @property
    def reach(self) -> int:
        """See :attr:`RepairModel.reach`."""
        # From a repaired pixel back: to the edge of its cell of 2 pixels, 3 such cells; to the edge
        # of a cell of 4, 2 of these; to the edge of a cell of 8, 2 of these; back up the encoder 2
        # cells of 4 and 3 of 2, and the wider window of the estimates.
        edges, cells = 1 + 2 + 4, 3 * 2 + 2 * 4 + 2 * 8 + 2 * 4 + 3 * 2
        return edges + cells + math.ceil(3 * max(_SIGMAS))

    @property
    def alignment(self) -> int:
        """See :attr:`RepairModel.alignment`: the cells of the lowest resolution."""
        return 4 * _FOLD

    @property
    def least_side(self) -> int:
        """Sides must have a pixel at eighth resolution."""
        return 4 * _FOLD

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {
            "degradation": "missing_strokes:0.25",
            "loss": "l1:0.7,ssim:0.3",
        }

    def forward(self, damaged: Tensor, known: Tensor | None = None) -> Tensor:
        """See :meth:`RepairModel.forward`."""
        if known is None:
            known = torch.ones_like(damaged[:, :1])
        channels = self.config.channels
        estimates = normalised_convolution(damaged, known, _SIGMAS)
        output = self._body(*self._inputs(damaged, known, estimates))
        output = F.pixel_shuffle(output, _FOLD)[..., : damaged.shape[2], : damaged.shape[3]]
        shares = output[:, channels:].softmax(1)
        mixture = (shares.unsqueeze(2) * estimates).sum(1)
        repaired = mixture + _mix_channels(self.to_opponent.T, output[:, :channels])
        return torch.where(known > 0, damaged, repaired) if self.config.keep_known else repaired

    def _inputs(self, damaged: Tensor, known: Tensor, estimates: Tensor) -> tuple[Tensor, Tensor]:
        """Everything that is known about each pixel, folded, in channels_last order; and where."""
        centred = torch.cat([estimates, damaged.unsqueeze(1) * known.unsqueeze(1)], 1) - 0.5
        centred[:, -1] *= known
        opponent = _mix_channels(self.to_opponent, centred.flatten(0, 1)).unflatten(
            0, centred.shape[:2]
        )
        inputs = _INPUT_SCALE * torch.cat([opponent.flatten(1, 2), known - 0.5], 1)
        return _folded(inputs), _folded(known).amax(1, keepdim=True)

    def _body(self, inputs: Tensor, known: Tensor) -> Tensor:
        half, known_half = self.encode_half(*self.enter(inputs, known))
        quarter, known_quarter = self.encode_quarter(*self.to_quarter(half, known_half))
        eighth, known_eighth = self.bottom(*self.to_eighth(quarter, known_quarter))
        quarter, known_quarter = self.decode_quarter(
            quarter + self.from_eighth(eighth), _joined(known_quarter, known_eighth)
        )
        half, _ = self.decode_half(
            half + self.from_quarter(quarter), _joined(known_half, known_quarter)
        )
        output: Tensor = self.leave(half)
        return output


class MaskedConv2d(nn.Module):
    """Gated, partial or plain convolution: ``(x, known)`` to the same of the output.

    ``known`` has the shape (N, 1, H, W); only partial convolutions look at it and change it.

    Parameters
    ----------
    kind : {"gated", "partial", "plain"}
    inputs, outputs, size, stride, padding : int
        Channels before and after, side of the window, its step, zeros around the input.
    """

    def __init__(
        self, kind: str, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.kind = kind
        gates = 2 if kind == "gated" else 1
        self.layer = nn.Conv2d(inputs, gates * outputs, size, stride=stride, padding=padding)

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Output (N, outputs, H', W'), and where it is known (N, 1, H', W')."""
        if self.kind == "partial":
            return self._partial(x, known)
        output: Tensor = self.layer(x)
        if self.kind == "gated":
            features, gate = output.chunk(2, dim=1)
            output = features * gate.sigmoid()
        return output, known

    def _partial(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        layer = self.layer
        window = torch.ones_like(layer.weight[:1, :1])
        count = F.conv2d(known, window, stride=layer.stride, padding=layer.padding)
        sums = F.conv2d(x * known, layer.weight, stride=layer.stride, padding=layer.padding)
        is_known = (count > 0).to(x.dtype)
        scale = window.numel() / count.clamp(min=1)
        output = (sums * scale + layer.bias[:, None, None]) * is_known  # type: ignore[index]
        return output, is_known


class ResidualBlock(nn.Module):
    """Two convolutions around a rectifier, added to what goes in (He et al., CVPR 2016)."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.first = MaskedConv2d(kind, width, width, 3, padding=1)
        self.second = MaskedConv2d(kind, width, width, 3, padding=1)

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Same shape as ``x``, and where it is known."""
        inner, known = self.first(x, known)
        update, known = self.second(F.relu(inner), known)
        return x + update, known


def _folded(images: Tensor) -> Tensor:
    """Blocks of pixels as channels, after filling up to whole ones at every resolution."""
    multiple = 4 * _FOLD  # two halvings after the folding
    height, width = images.shape[2:]
    images = F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    return F.pixel_unshuffle(images, _FOLD).contiguous(memory_format=torch.channels_last)


def _joined(fine: Tensor, coarse: Tensor) -> Tensor:
    """Where either of two masks knows something; the second has half the resolution."""
    if fine.shape == coarse.shape:  # not partial: masks are passed on and not looked at
        return fine
    return torch.maximum(fine, F.interpolate(coarse, scale_factor=2.0))


def _mix_channels(matrix: Tensor, images: Tensor) -> Tensor:
    """Multiply the channel vector of every pixel of (N, 3, H, W) by a (3, 3) matrix."""
    return torch.einsum("ij,njhw->nihw", matrix, images)
