# SPDX-License-Identifier: Apache-2.0
"""Noise: every pixel is a little off, or some are entirely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sosie.zoo.degradations.base import Degradation, check_between, register

__all__ = ["GaussianNoise", "PoissonNoise", "SaltAndPepperNoise"]


@register("gaussian_noise")
@dataclass(frozen=True)
class GaussianNoise(Degradation):
    """Normal noise, in all channels independently.

    Attributes
    ----------
    deviation : float
        Standard deviation, for images in [0, 1].
    clip : bool
        Clip noisy values to [0, 1], as files do. Published results on denoising are without.
    """

    deviation: float = 0.1
    clip: bool = True

    def __post_init__(self) -> None:
        check_between("a deviation", self.deviation, 0.0, 10.0)

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.__call__`; not in [0, 1] without ``clip``."""
        if self.clip:
            return super().__call__(images, generator=generator)
        return self.apply(images, torch.ones_like(images[:, :1]), generator)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        noisy = images + self.deviation * torch.randn(images.shape, generator=generator)
        return (noisy.clamp(0.0, 1.0) if self.clip else noisy), known


@register("poisson_noise")
@dataclass(frozen=True)
class PoissonNoise(Degradation):
    """Photon noise: the variance is in proportion to the brightness.

    Attributes
    ----------
    peak : float
        Photons at brightness 1. The fewer, the noisier.
    """

    peak: float = 30.0

    def __post_init__(self) -> None:
        check_between("a peak", self.peak, 1e-3, 1e9)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        photons = torch.poisson(self.peak * images.clamp(min=0.0), generator=generator)
        return photons / self.peak, known


@register("salt_and_pepper_noise")
@dataclass(frozen=True)
class SaltAndPepperNoise(Degradation):
    """Some pixels are black or white, in all channels at once; which ones is not known.

    Attributes
    ----------
    share : float
        Probability of a pixel to be hit; half of those are black.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        check_between("a share", self.share, 0.0, 1.0)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        lot = torch.rand(known.shape, generator=generator)
        noisy = torch.where(lot < self.share, (lot < self.share / 2).to(images.dtype), images)
        return noisy, known
