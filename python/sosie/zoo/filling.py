# SPDX-License-Identifier: Apache-2.0
"""Means of known pixels, for pixels that are missing: normalised convolutions.

Knutsson and Westin, "Normalized and differential convolution", CVPR 1993. Nothing is learned here;
networks that repair start from these, and are measured beside them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["mean_of_known", "normalised_convolution"]

#: What a wider window counts beside the next narrower one.
_WIDER = 1e-3


def normalised_convolution(damaged: Tensor, known: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Gaussian mean of the known pixels around every pixel, for several windows.

    Windows reach three standard deviations; where they hold no known pixel the result is 0.

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
    return torch.stack([_mean(_window_sums(damaged, known, sigma)) for sigma in sigmas], 1)


def mean_of_known(damaged: Tensor, known: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Mean of the known pixels around every pixel, by a window with a long tail.

    The window is a sum of Gaussians. Each counts a thousandth of the next narrower one, so that
    the wide ones are heard only where the narrow ones see nothing. Where none sees anything the
    result is 0.

    Parameters
    ----------
    damaged, known
        As for :func:`normalised_convolution`.
    sigmas : tuple of float
        Standard deviations, in pixels, the narrowest first.

    Returns
    -------
    Tensor, shape (N, C, H, W)

    Examples
    --------
    >>> known = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]).reshape(1, 1, 1, 7)
    >>> ramp = torch.linspace(0, 0.6, 7).reshape(1, 1, 1, 7)
    >>> mean_of_known(ramp, known, (0.5, 2.0)).round(decimals=2)
    tensor([[[[0.0000, 0.0000, 0.1300, 0.3700, 0.5000, 0.5000, 0.5000]]]])
    """
    sums = torch.zeros((), dtype=damaged.dtype, device=damaged.device)
    for order, sigma in enumerate(sigmas):
        sums = sums + _WIDER**order * _window_sums(damaged, known, sigma)
    return _mean(sums)


def _window_sums(damaged: Tensor, known: Tensor, sigma: float) -> Tensor:
    """Gaussian sums of known pixels and, in a last channel, of how many there are."""
    # A mean of few far pixels needs more digits than half precision has.
    with torch.autocast(damaged.device.type, enabled=False):
        samples = torch.cat([damaged * known, known], 1)
        height, width = samples.shape[2:]
        # As two products with banded matrices: for the crops that networks are trained on,
        # several times faster than convolutions of one channel.
        rows = _window_matrix(height, sigma).to(samples)
        return rows @ (samples @ _window_matrix(width, sigma).to(samples))


def _mean(sums: Tensor) -> Tensor:
    weight = sums[:, -1:]
    return torch.where(weight > 0, sums[:, :-1] / weight, 0.0)


def _window_matrix(size: int, sigma: float) -> Tensor:
    """Symmetric (size, size) matrix that sums each position's neighbours with a Gaussian."""
    position = torch.arange(size)
    distance = (position[:, None] - position[None, :]).float()
    radius = math.ceil(3.0 * sigma)
    return torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= radius)
