# SPDX-License-Identifier: Apache-2.0
"""Rain: drops that fall while the shutter is open."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sosie.zoo.degradations.base import Degradation, check_between, per_image, register

__all__ = ["RainStreaks"]


@register("rain_streaks")
@dataclass(frozen=True)
class RainStreaks(Degradation):
    """Bright lines, parallel within an image, of drops scattered at random.

    A drop lights the line that it falls along during the exposure, and lets the background through
    where it is already bright: light adds up as on a screen, ``1 - (1 - image) (1 - rain)``, in all
    channels alike. Garg and Nayar, "Vision and rain", IJCV 2007, describe how such streaks look.

    Attributes
    ----------
    share : float
        Expected part of the image that lies under streaks, to half their brightness.
    brightness : float
        Of the brightest streaks; others are down to half as bright.
    length : float
        Of a streak, in pixels; that of an image's streaks lies between half of it and all of it.
    width : float
        Of a streak, in pixels, where it is half as bright as in its middle.
    tilt : float
        Largest angle to the vertical, in degrees.
    """

    share: float = 0.2
    brightness: float = 0.7
    length: float = 16.0
    width: float = 1.5
    tilt: float = 30.0

    def __post_init__(self) -> None:
        check_between("a share", self.share, 0.0, 0.95)
        check_between("a brightness", self.brightness, 0.0, 1.0)
        check_between("a length", self.length, 1.0, 200.0)
        check_between("a width", self.width, 0.5, 50.0)
        check_between("a tilt", self.tilt, 0.0, 90.0)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        count, _, height, width = images.shape
        rain = self._rain(count, height, width, generator)
        return 1 - (1 - images) * (1 - rain), known

    def _rain(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Brightness of the streaks, shape (count, 1, height, width)."""
        length = per_image(count, self.length / 2, self.length, generator)
        angle = per_image(count, -self.tilt, self.tilt, generator) * (math.pi / 180)
        streaks = self._streaks(length, angle)
        radius = streaks.shape[-1] // 2
        # As if drawn at random places: the part that n streaks of area a leave free of an area A is
        # exp(-n a / A). Some begin outside of the image.
        area = (streaks >= 0.5).sum((1, 2, 3), keepdim=True)
        density = -math.log(1 - self.share) / area
        canvas = (count, 1, height + 2 * radius, width + 2 * radius)
        drops = (torch.rand(canvas, generator=generator) < density).float()
        drops *= self.brightness * (0.5 + 0.5 * torch.rand(canvas, generator=generator))
        rain = F.conv2d(drops.transpose(0, 1), streaks, groups=count).transpose(0, 1)
        return rain.clamp(max=1.0)

    def _streaks(self, length: Tensor, angle: Tensor) -> Tensor:
        """One streak for each image, of brightness 1, shape (count, 1, side, side)."""
        # Half as bright at half the width: exp(-(width / 2)^2 / (2 deviation^2)) = 1 / 2.
        deviation = self.width / math.sqrt(8 * math.log(2))
        radius = math.ceil(self.length / 2 + 2 * deviation)
        row = torch.arange(-radius, radius + 1.0).reshape(1, 1, -1, 1)
        column = row.transpose(2, 3)
        along = row * torch.cos(angle) + column * torch.sin(angle)
        across = column * torch.cos(angle) - row * torch.sin(angle)
        beyond = (along.abs() - length / 2).clamp(min=0.0)
        return torch.exp(-(across.square() + beyond.square()) / (2 * deviation**2))
