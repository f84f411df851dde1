# SPDX-License-Identifier: Apache-2.0
"""Detail that was thrown away: by JPEG, by fewer pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sosie.zoo.degradations.base import Degradation, check_between, per_image, register
from sosie.zoo.resize import resize_bicubic

__all__ = ["JPEG", "Downsample"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@register("jpeg")
@dataclass(frozen=True)
class JPEG(Degradation):
    """Written to a JPEG file and read again, by the codec that Pillow has.

    Attributes
    ----------
    quality : float
        From 1 to 95; that of an image lies between it and 1.5 times it.
    """

    quality: float = 20.0

    def __post_init__(self) -> None:
        check_between("a quality", self.quality, 1, 95)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`. Images have 1 or 3 channels."""
        highest = min(95.0, 1.5 * self.quality)
        qualities = per_image(len(images), self.quality, highest, generator).round().int()
        levels = (images.clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy()
        damaged = [
            _through_file(pixels, quality)
            for pixels, quality in zip(levels, qualities.flatten().tolist(), strict=True)
        ]
        decoded = torch.from_numpy(np.stack(damaged)).movedim(-1, 1)
        return decoded.to(images.dtype) / 255, known


def _through_file(pixels: Pixels, quality: int) -> Pixels:
    """(H, W, C) of 8 bits, as it comes out of a JPEG file."""
    buffer = io.BytesIO()
    is_gray = pixels.shape[-1] == 1
    Image.fromarray(pixels[..., 0] if is_gray else pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        decoded = np.asarray(image)
    return decoded[..., None] if is_gray else decoded


@register("downsample")
@dataclass(frozen=True)
class Downsample(Degradation):
    """Reduced and enlarged again, both bicubic: what super-resolution has to undo.

    Attributes
    ----------
    scale : float
        By which the sides are divided.
    """

    scale: float = 2.0

    def __post_init__(self) -> None:
        check_between("a scale", self.scale, 1.0, 64.0)

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`. Not random."""
        del generator
        size = images.shape[2:]
        height, width = (max(1, round(side / self.scale)) for side in size)
        reduced = resize_bicubic(images, (height, width)).clamp(0.0, 1.0)
        return resize_bicubic(reduced, (size[0], size[1])), known
