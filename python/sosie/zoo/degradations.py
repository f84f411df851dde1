# SPDX-License-Identifier: Apache-2.0
"""Damage done to images on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NoiseAndHoles"]


@dataclass(frozen=True)
class NoiseAndHoles:
    """Gaussian noise everywhere, and pixels that are missing altogether.

    Attributes
    ----------
    noise : float
        Standard deviation, for images in [0, 1]. Noisy values are clipped to [0, 1].
    missing : float
        Probability of each pixel to be missing, in all channels at once.
    """

    noise: float = 0.1
    missing: float = 2 / 3

    def __call__(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Damage images.

        Parameters
        ----------
        images : Tensor, shape (N, C, H, W)
            In [0, 1].
        generator : torch.Generator
            Source of randomness.

        Returns
        -------
        damaged : Tensor, shape (N, C, H, W)
            0 where a pixel is missing.
        known : Tensor, shape (N, 1, H, W)
            1 where a pixel is known, 0 where it is missing.

        Examples
        --------
        >>> generator = torch.Generator().manual_seed(0)
        >>> damage = NoiseAndHoles(noise=0.0, missing=0.25)
        >>> damaged, known = damage(torch.ones(1, 3, 64, 64), generator)
        >>> bool((damaged == known).all())
        True
        """
        batch, _, height, width = images.shape
        known = (torch.rand(batch, 1, height, width, generator=generator) >= self.missing).float()
        noise = self.noise * torch.randn(images.shape, generator=generator)
        return (images + noise).clamp(0.0, 1.0) * known, known
