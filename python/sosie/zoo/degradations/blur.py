# SPDX-License-Identifier: Apache-2.0
"""Blur: of a lens out of focus, nearly, and of a camera that moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sosie.zoo.degradations.base import Degradation, check_between, per_image, register

__all__ = ["GaussianBlur", "MotionBlur"]


@register("gaussian_blur")
@dataclass(frozen=True)
class GaussianBlur(Degradation):
    """Convolution with a Gaussian; images are mirrored at their border.

    Attributes
    ----------
    sigma : float
        Standard deviation in pixels; that of an image lies between half of it and all of it.
    """

    sigma: float = 2.0

    def __post_init__(self) -> None:
        check_between("a sigma", self.sigma, 0.1, 100.0)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        from kornia.filters import gaussian_blur2d

        sigma = per_image(len(images), self.sigma / 2, self.sigma, generator).reshape(-1, 1)
        size = _window(images, 2 * math.ceil(3 * self.sigma) + 1)
        return gaussian_blur2d(images, size, sigma.expand(-1, 2)), known


@register("motion_blur")
@dataclass(frozen=True)
class MotionBlur(Degradation):
    """Mean along a line, in a direction of its own for every image.

    Attributes
    ----------
    length : float
        Of the line, in pixels; rounded up to an odd number.
    """

    length: float = 9.0

    def __post_init__(self) -> None:
        check_between("a length", self.length, 1.0, 1000.0)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        from kornia.filters import motion_blur

        angle = per_image(len(images), 0.0, 180.0, generator).flatten()
        size = min(_window(images, 2 * math.ceil((self.length - 1) / 2) + 1))
        if size < 3:
            return images, known
        blurred = motion_blur(images, size, angle, torch.zeros(len(images)), mode="bilinear")
        return blurred, known


def _window(images: Tensor, size: int) -> tuple[int, int]:
    """Odd sides of a window that mirrored borders have room for."""
    height, width = images.shape[2:]
    return min(size, 2 * height - 1), min(size, 2 * width - 1)
