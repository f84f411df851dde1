# SPDX-License-Identifier: Apache-2.0
"""A small U-Net that fills in missing pixels and removes noise.

It starts from two estimates that need no learning: normalised convolutions (Knutsson and Westin
1993) with a narrow window, which keeps detail and noise, and a wide one, which loses both. At every
pixel the network mixes them, and adds a correction. What it sees and what it corrects is brightness
and two colour differences rather than red, green and blue, because noise is as strong in all three
but images live mostly in the first.

The body works at half, quarter and eighth resolution, on pixels folded into channels (Shi et al.,
"Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
network", CVPR 2016), in the shape of a U-Net (Ronneberger et al., MICCAI 2015) of residual blocks.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["RepairUNet", "normalised_convolution"]

#: Standard deviations of the windows of the estimates, in pixels.
_SIGMAS = (1.0, 2.0)
#: Pixels along one side that are folded into channels.
_FOLD = 2
#: Brings inputs, whose standard deviation is near a half, to about one.
_INPUT_SCALE = 2.0


class RepairUNet(nn.Module):
    """Network that repairs RGB images.

    Parameters
    ----------
    widths : tuple of int
        Channels at half, quarter and eighth resolution.

    Notes
    -----
    Called as ``model(damaged, known)`` with ``damaged`` of shape (N, 3, H, W) in [0, 1] and
    ``known`` of shape (N, 1, H, W), 1 where a pixel is known and 0 where it is missing; what
    ``damaged`` holds there does not matter, if it is finite. Any H and W. Returns (N, 3, H, W), not
    clipped.

    Examples
    --------
    >>> model = RepairUNet()
    >>> repaired = model(torch.rand(1, 3, 37, 50), torch.ones(1, 1, 37, 50))
    >>> tuple(repaired.shape)
    (1, 3, 37, 50)
    """

    to_opponent: Tensor

    def __init__(self, widths: tuple[int, int, int] = (32, 48, 64)) -> None:
        super().__init__()
        half, quarter, eighth = widths
        seen = 3 * len(_SIGMAS) + 3 + 1  # estimates, damaged pixels, which are known
        made = 3 + len(_SIGMAS)  # correction, shares in the mixture
        fold = _FOLD**2
        self.enter = nn.Conv2d(seen * fold, half, 3, padding=1)
        self.encode_half = ResidualBlock(half)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.encode_quarter = ResidualBlock(quarter)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.bottom = ResidualBlock(eighth)
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.decode_quarter = ResidualBlock(quarter)
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.decode_half = ResidualBlock(half)
        self.leave = nn.Conv2d(half, made * fold, 3, padding=1, bias=False)
        # Untrained, it returns the mean of the estimates, nearly.
        nn.init.normal_(self.leave.weight, std=1e-3)
        opponent = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
        opponent /= opponent.norm(dim=1, keepdim=True)
        self.register_buffer("to_opponent", opponent, persistent=False)

    def forward(self, damaged: Tensor, known: Tensor) -> Tensor:
        """Repaired images; see the class."""
        estimates = normalised_convolution(damaged, known, _SIGMAS)
        output = self._body(self._inputs(damaged, known, estimates))
        output = F.pixel_shuffle(output, _FOLD)[..., : damaged.shape[2], : damaged.shape[3]]
        shares = output[:, 3:].softmax(1)
        mixture = (shares.unsqueeze(2) * estimates).sum(1)
        return mixture + _mix_channels(self.to_opponent.T, output[:, :3])

    def _inputs(self, damaged: Tensor, known: Tensor, estimates: Tensor) -> Tensor:
        """Everything that is known about each pixel, folded, in channels_last order."""
        centred = torch.cat([estimates, damaged.unsqueeze(1) * known.unsqueeze(1)], 1) - 0.5
        centred[:, -1] *= known
        opponent = _mix_channels(self.to_opponent, centred.flatten(0, 1)).unflatten(
            0, centred.shape[:2]
        )
        inputs = _INPUT_SCALE * torch.cat([opponent.flatten(1, 2), known - 0.5], 1)
        multiple = 4 * _FOLD  # two halvings after the folding
        height, width = inputs.shape[2:]
        inputs = F.pad(inputs, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        return F.pixel_unshuffle(inputs, _FOLD).contiguous(memory_format=torch.channels_last)

    def _body(self, inputs: Tensor) -> Tensor:
        half = self.encode_half(self.enter(inputs))
        quarter = self.encode_quarter(self.to_quarter(half))
        eighth = self.bottom(self.to_eighth(quarter))
        quarter = self.decode_quarter(quarter + self.from_eighth(eighth))
        half = self.decode_half(half + self.from_quarter(quarter))
        output: Tensor = self.leave(half)
        return output


class ResidualBlock(nn.Module):
    """Two convolutions around a rectifier, added to what goes in (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        update: Tensor = self.second(F.relu(self.first(x)))
        return x + update


def normalised_convolution(damaged: Tensor, known: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Gaussian mean of the known pixels around every pixel, for several windows.

    Knutsson and Westin, "Normalized and differential convolution", CVPR 1993. Windows reach three
    standard deviations; where they hold no known pixel the result is 0.

    Parameters
    ----------
    damaged : Tensor, shape (N, C, H, W)
        Missing pixels may hold any finite value.
    known : Tensor, shape (N, 1, H, W)
        1 where a pixel is known, 0 where it is missing.
    sigmas : tuple of float
        Standard deviations of the windows, in pixels.

    Returns
    -------
    Tensor, shape (N, len(sigmas), C, H, W)

    Examples
    --------
    >>> known = (torch.arange(64).reshape(1, 1, 8, 8) % 3 == 0).float()
    >>> filled = normalised_convolution(0.25 * known, known, (1.0,))
    >>> bool((filled - 0.25).abs().max() < 1e-6)
    True
    """
    samples = torch.cat([damaged * known, known], 1)
    height, width = samples.shape[2:]
    estimates = []
    for sigma in sigmas:
        # As two products with banded matrices: for the crops that networks are trained on, several
        # times faster than convolutions of one channel.
        sums = _window_matrix(height, sigma) @ (samples @ _window_matrix(width, sigma))
        weight = sums[:, -1:]
        estimates.append(torch.where(weight > 0, sums[:, :-1] / weight, 0.0))
    return torch.stack(estimates, 1)


def _window_matrix(size: int, sigma: float) -> Tensor:
    """Symmetric (size, size) matrix that sums each position's neighbours with a Gaussian."""
    position = torch.arange(size)
    distance = (position[:, None] - position[None, :]).float()
    radius = math.ceil(3.0 * sigma)
    return torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= radius)


def _mix_channels(matrix: Tensor, images: Tensor) -> Tensor:
    """Multiply the channel vector of every pixel of (N, 3, H, W) by a (3, 3) matrix."""
    return torch.einsum("ij,njhw->nihw", matrix, images)
