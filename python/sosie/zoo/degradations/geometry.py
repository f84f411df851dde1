# SPDX-License-Identifier: Apache-2.0
"""Geometric distortion: pixels are where they do not belong.

Every pixel of the damaged image is looked up, bilinearly, at another place of the original. Pixels
that come from outside, or from where something is missing, are missing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sosie.zoo.degradations.base import Degradation, check_between, per_image, register

__all__ = ["ElasticWarp", "LensDistortion", "Twist"]


class _Distortion(Degradation):
    """Looks pixels up where `places` says."""

    @abstractmethod
    def places(self, x: Tensor, y: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Where the pixels of ``count`` images come from.

        Parameters
        ----------
        x, y : Tensor, shape (H, W)
            Places of the pixels, in units in which half the shorter side is 1, from the centre.

        Returns
        -------
        Tensor, shape (count, 2, H, W)
            x and y of the same kind.
        """

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        count, _, height, width = images.shape
        half = min(height, width) / 2
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5 - height / 2) / half,
            (torch.arange(width) + 0.5 - width / 2) / half,
            indexing="ij",
        )
        # grid_sample wants -1 and 1 at the outer borders.
        size = torch.tensor([width / 2 / half, height / 2 / half]).reshape(1, 2, 1, 1)
        grid = (self.places(x, y, count, generator) / size).movedim(1, -1).to(images.dtype)
        warped = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        weight = F.grid_sample(known, grid, padding_mode="zeros", align_corners=False)
        # A pixel is known if all that it was made of is, up to rounding of the weights.
        is_known = (weight > 1 - 1e-4).to(images.dtype)
        return warped * is_known, is_known


@register("lens_distortion")
@dataclass(frozen=True)
class LensDistortion(_Distortion):
    """Radial distortion of a lens, the first term of Brown's model: barrel or pincushion.

    A pixel at distance r from the centre comes from ``r (1 + k r^2)``; Brown, "Close-range camera
    calibration", 1971.

    Attributes
    ----------
    strength : float
        Largest k, at half the shorter side: positive makes barrels of squares. That of an image
        lies between half of it and all of it.
    """

    strength: float = 0.2

    def __post_init__(self) -> None:
        check_between("a strength", self.strength, -0.3, 2.0)

    def places(self, x: Tensor, y: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """See :class:`_Distortion`."""
        k = per_image(count, self.strength / 2, self.strength, generator)
        return torch.stack([x, y])[None] * (1 + k * (x.square() + y.square()))


@register("twist")
@dataclass(frozen=True)
class Twist(_Distortion):
    """Turned about the centre, less and less towards the rim, where nothing moves.

    Attributes
    ----------
    angle : float
        Of the centre, in degrees; that of an image lies between it and its opposite.
    """

    angle: float = 45.0

    def __post_init__(self) -> None:
        check_between("an angle", self.angle, 0.0, 360.0)

    def places(self, x: Tensor, y: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """See :class:`_Distortion`."""
        largest = math.radians(self.angle)
        fall = (1 - (x.square() + y.square()).sqrt()).clamp(min=0.0)
        turn = per_image(count, -largest, largest, generator) * fall
        cosine, sine = turn.cos(), turn.sin()
        return torch.cat([cosine * x - sine * y, sine * x + cosine * y], 1)


@register("elastic_warp")
@dataclass(frozen=True)
class ElasticWarp(_Distortion):
    """Smooth random displacements (Simard, Steinkraus, Platt, ICDAR 2003).

    Attributes
    ----------
    displacement : float
        Standard deviation of how far pixels move, as a share of half the shorter side.
    smoothness : float
        Standard deviation of the window that makes them smooth, in the same unit.
    """

    displacement: float = 0.03
    smoothness: float = 0.15

    def __post_init__(self) -> None:
        check_between("a displacement", self.displacement, 0.0, 1.0)
        check_between("a smoothness", self.smoothness, 0.01, 1.0)

    def places(self, x: Tensor, y: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """See :class:`_Distortion`."""
        from kornia.filters import gaussian_blur2d

        height, width = x.shape
        sigma = max(self.smoothness * min(height, width) / 2, 0.5)
        radius = min(math.ceil(3 * sigma), height - 1, width - 1)
        field = torch.randn(count, 2, height, width, generator=generator)
        smooth = gaussian_blur2d(field, (2 * radius + 1, 2 * radius + 1), (sigma, sigma))
        deviation = smooth.std((1, 2, 3), keepdim=True).clamp(min=1e-12)
        return torch.stack([x, y]) + self.displacement * smooth / deviation
