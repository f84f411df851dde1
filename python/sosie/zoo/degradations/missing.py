# SPDX-License-Identifier: Apache-2.0
"""Pixels that are missing altogether, and known to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sosie.zoo.degradations.base import Degradation, check_between, per_image, register

__all__ = ["MissingBlocks", "MissingPixels", "MissingStrokes"]

#: No mask takes more attempts than this to reach its share.
_MOST_STROKES = 64


@register("missing_pixels")
@dataclass(frozen=True)
class MissingPixels(Degradation):
    """Single pixels, in all channels at once.

    Attributes
    ----------
    share : float
        Probability of each pixel to be missing.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        check_between("a share", self.share, 0.0, 1.0)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        kept = (torch.rand(known.shape, generator=generator) >= self.share).to(images.dtype)
        return images * kept, known * kept


@register("missing_blocks")
@dataclass(frozen=True)
class MissingBlocks(Degradation):
    """Rectangles, with sides between half of and all of a share of the image's.

    Attributes
    ----------
    share : float
        Longest side of a rectangle over the image's side.
    count : int
        Rectangles, which may overlap.
    """

    share: float = 0.4
    count: int = 1

    def __post_init__(self) -> None:
        check_between("a share", self.share, 0.0, 1.0)
        check_between("a count", self.count, 1, 1000)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        count, _, height, width = images.shape
        row = torch.arange(height).reshape(1, 1, -1, 1)
        column = torch.arange(width).reshape(1, 1, 1, -1)
        for _ in range(self.count):
            tall, wide = (
                (per_image(count, self.share / 2, self.share, generator) * side).round()
                for side in (height, width)
            )
            top = (per_image(count, 0, 1, generator) * (height - tall + 1)).floor()
            left = (per_image(count, 0, 1, generator) * (width - wide + 1)).floor()
            inside = (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)
            known = known * ~inside
        return images * known, known


@register("missing_strokes")
@dataclass(frozen=True)
class MissingStrokes(Degradation):
    """Strokes of a brush that turns as it goes.

    After the free-form masks of Yu et al., "Free-form image inpainting with gated convolution",
    ICCV 2019.

    Attributes
    ----------
    share : float
        Strokes are drawn until this part of the image is missing.
    thickness : float
        Of a stroke, over the shorter side of the image.
    """

    share: float = 0.25
    thickness: float = 0.06

    def __post_init__(self) -> None:
        check_between("a share", self.share, 0.0, 0.95)
        check_between("a thickness", self.thickness, 0.0, 1.0)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        height, width = images.shape[2:]
        kept = torch.stack([self._mask(height, width, generator) for _ in images]).unsqueeze(1)
        return images * kept, known * kept

    def _mask(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        known = torch.ones(height, width)
        for _ in range(_MOST_STROKES):
            if known.mean() <= 1 - self.share:
                break
            known[self._stroke(height, width, generator)] = 0
        return known

    def _stroke(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Pixels within half the thickness of a line of a few segments."""
        reach = max(height, width)
        row, column, angle = (
            torch.rand(3, generator=generator) * torch.tensor([height, width, 2 * math.pi])
        ).tolist()
        rows = torch.arange(height)[:, None] + 0.5
        columns = torch.arange(width)[None, :] + 0.5
        radius = max(0.75, self.thickness * min(height, width) / 2)
        stroke = torch.zeros(height, width, dtype=torch.bool)
        for turn, length in torch.rand(4, 2, generator=generator).tolist():
            angle += (turn - 0.5) * math.pi
            extent = reach * (0.05 + 0.2 * length)
            down, right = extent * math.sin(angle), extent * math.cos(angle)
            along = ((rows - row) * down + (columns - column) * right) / extent**2
            along = along.clamp(0.0, 1.0)
            distance = (rows - row - along * down).square() + (
                columns - column - along * right
            ).square()
            stroke |= distance <= radius**2
            row, column = row + down, column + right
        return stroke
