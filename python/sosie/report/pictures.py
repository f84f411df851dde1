# SPDX-License-Identifier: Apache-2.0
"""Images and similarity maps as PNG or JPEG files for a page."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

__all__ = ["COLOUR_SCALE_STOPS", "encode_heat_map", "encode_picture", "scale_floor", "to_8_bit"]

Pixels = np.ndarray[Any, np.dtype[Any]]

#: matplotlib's colour scale of the heat maps: dark where images agree, bright where they differ.
_COLOUR_SCALE = "inferno"
#: Shown behind transparent pixels.
_BACKDROP = (128, 128, 128)


def to_8_bit(pixels: Pixels, data_range: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pixels from 0 to ``data_range`` as uint8 from 0 to 255, clipped, NaN as 0."""
    if pixels.dtype == np.uint8 and data_range == 255:
        return pixels
    levels = np.nan_to_num(pixels.astype(np.float64)) * (255.0 / data_range)
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def encode_picture(
    pixels: np.ndarray[Any, np.dtype[np.uint8]], longest_side: int | None = None
) -> bytes:
    """Image file of an 8-bit image, lossless at full size.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W) or (H, W, C)
        C is 2 (gray, alpha), 3 or 4. Transparency is blended with gray.
    longest_side : int, optional
        Larger images are reduced to this many pixels and stored as JPEG.

    Returns
    -------
    bytes
        A PNG or a JPEG file.
    """
    picture = Image.fromarray(pixels)
    if picture.mode in ("LA", "RGBA"):
        picture = picture.convert("RGBA")
        backdrop = Image.new("RGBA", picture.size, (*_BACKDROP, 255))
        picture = Image.alpha_composite(backdrop, picture).convert("RGB")
    if longest_side is None or max(picture.size) <= longest_side:
        return _file(picture, format="PNG")
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return _file(picture, format="JPEG", quality=90, subsampling=0)


def encode_heat_map(
    similarity: Pixels, floor: float = 0.0, longest_side: int | None = None
) -> bytes:
    """Colour a similarity map: dark at 1, brighter the lower, brightest at ``floor`` and below.

    Parameters
    ----------
    similarity : ndarray, shape (H, W)
        A map, already averaged over channels.
    floor : float
        Lower end of the colour scale, below 1.
    longest_side : int, optional
        Larger maps are reduced to this many pixels.

    Returns
    -------
    bytes
        A PNG file with a palette of 256 colours.
    """
    picture = Image.fromarray(np.ascontiguousarray(similarity, dtype=np.float32))
    if longest_side is not None:
        picture.thumbnail((longest_side, longest_side), Image.Resampling.BOX, reducing_gap=None)
    difference = (1.0 - np.nan_to_num(np.asarray(picture))) / (1.0 - floor)
    coloured = Image.fromarray(np.rint(np.clip(difference, 0, 1) * 255).astype(np.uint8))
    coloured.putpalette(_palette())
    return _file(coloured, format="PNG")


def scale_floor(similarity_maps: list[Pixels]) -> float:
    """Lower end of a colour scale for some maps: their lowest half percent, a multiple of 0.1.

    Examples
    --------
    >>> scale_floor([np.full((8, 8), 0.98), np.full((8, 8), 0.75)])
    0.7
    """
    lowest = min(float(np.nanquantile(similarity, 0.005)) for similarity in similarity_maps)
    return float(np.clip(np.floor(lowest * 10) / 10, 0.0, 0.9))


@cache
def _palette() -> bytes:
    colours = colormaps[_COLOUR_SCALE](np.arange(256), bytes=True)[:, :3]
    return np.ascontiguousarray(colours, dtype=np.uint8).tobytes()


def _colour_scale_stops() -> str:
    colours = np.frombuffer(_palette(), np.uint8).reshape(256, 3)[::-17]
    return ", ".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours)


#: The colour scale from ``floor`` to 1 as the stops of a CSS gradient.
COLOUR_SCALE_STOPS = _colour_scale_stops()


def _file(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()
