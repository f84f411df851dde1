# SPDX-License-Identifier: Apache-2.0
"""Bicubic resizing with MATLAB's numbers, in which super-resolution is measured.

Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981, with
a = -1/2. Where an image becomes smaller, the kernel is as much wider, against aliasing. Beyond its
border an image goes on with its outermost pixels. The reduced images of published test sets come
out of this, bit for bit, if they are rounded to 8 bits after each axis; later versions of MATLAB
mirror images at the border. torch's and Pillow's kernels are the same inside an image; at the
border they leave out what is beyond.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["resize_bicubic"]


def resize_bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as MATLAB's ``imresize(image, size, "bicubic")`` does.

    Parameters
    ----------
    images : Tensor, shape (..., H, W)
        Floating point.
    size : tuple of int
        Height and width to come.

    Returns
    -------
    Tensor, shape (..., *size)
        Not clipped: kernels overshoot at edges.

    Examples
    --------
    >>> resize_bicubic(torch.arange(4.0).reshape(1, 4), (1, 2))
    tensor([[0.5195, 2.4805]])
    """
    for axis, length in zip((-2, -1), size, strict=True):
        if images.shape[axis] != length:
            images = _resized(images, axis, length)
    return images


def _resized(images: Tensor, axis: int, length: int) -> Tensor:
    places, weights = _taps(images.shape[axis], length)
    shape = [1] * images.ndim
    shape[axis] = length
    total = torch.zeros(())
    for place, weight in zip(places, weights, strict=True):
        column = weight.to(images).reshape(shape)
        total = total + images.index_select(axis, place.to(images.device)) * column
    return total


@lru_cache(maxsize=64)
def _taps(before: int, after: int) -> tuple[Tensor, Tensor]:
    """Which pixels each pixel to come is made of, and how much of them: both (taps, after)."""
    scale = after / before
    stretch = max(1.0, 1 / scale)
    # Pixels are squares with their centres at halves.
    centre = (torch.arange(after, dtype=torch.float64) + 0.5) / scale - 0.5
    taps = int(4 * stretch) + 2
    first = torch.floor(centre - 2 * stretch).long()
    places = first + torch.arange(taps)[:, None]
    weights = _cubic((centre - places) / stretch)
    weights /= weights.sum(0)
    return places.clamp(0, before - 1), weights


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
