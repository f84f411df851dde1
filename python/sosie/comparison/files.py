# SPDX-License-Identifier: Apache-2.0
"""Image files as arrays, with nothing converted silently.

==========================  =========================================  =====================
in the file                 array                                      described as
==========================  =========================================  =====================
bilevel                     ``(H, W)`` uint8, 0 and 255                8-bit gray
gray, 8 or 16 bits          ``(H, W)`` uint8 or uint16                 8-bit or 16-bit gray
gray, floating point        ``(H, W)`` float32, any range              32-bit float gray
RGB, 8 or 16 bits           ``(H, W, 3)`` uint8 or uint16              8-bit or 16-bit RGB
palette                     its colours, ``(H, W, 3)`` uint8           8-bit RGB
any of these with alpha     one channel more, as stored                ... with alpha
==========================  =========================================  =====================

An alpha channel that is opaque everywhere is dropped: it says nothing. Any other alpha is a channel
like the rest, and colours are not multiplied by it. The orientation that cameras write into EXIF is
applied. Colour profiles are not: pixel values are compared as stored. Refused, with a sentence, are
files that hold several frames, CMYK, Lab and other colour spaces, and depths that Pillow can only
read in part.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "Picture",
    "UnreadableImageError",
    "decode",
    "is_image_name",
    "open_image",
    "read_picture",
    "refuse_several_frames",
    "refuse_what_would_be_lost",
]

#: Pillow's mode to the channels it holds; palettes and bilevel images are expanded before.
_CHANNELS = {
    "L": "gray",
    "LA": "gray with alpha",
    "RGB": "RGB",
    "RGBA": "RGB with alpha",
    "I;16": "gray",
    "F": "gray",
}
#: Rows that are copied at a time.
_BAND = 256
_DEPTHS = {"uint8": "8-bit", "uint16": "16-bit", "float32": "32-bit float"}


class UnreadableImageError(ValueError):
    """A file holds no image, or none that can be compared. The message is the reason."""


@dataclass(frozen=True)
class Picture:
    """An image as read from a file.

    Attributes
    ----------
    pixels : ndarray of shape (H, W) or (H, W, C)
        uint8, uint16 or float32.
    channels : str
        What the channels hold: "gray", "RGB", either of them "with alpha".
    """

    pixels: np.ndarray[Any, np.dtype[Any]]
    channels: str

    @property
    def size(self) -> str:
        """Width and height, as people write them."""
        height, width = self.pixels.shape[:2]
        return f"{width} x {height}"

    @property
    def description(self) -> str:
        """Depth and channels, for example "8-bit RGB"."""
        return f"{_DEPTHS[self.pixels.dtype.name]} {self.channels}"


def is_image_name(path: Path) -> bool:
    """Whether Pillow knows the file name's extension."""
    return path.suffix.lower() in Image.registered_extensions()


def read_picture(path: Path) -> Picture:
    """Read an image file.

    Raises
    ------
    UnreadableImageError
        It cannot be opened or decoded, or is of a kind that the module's table does not list.
    """
    with open_image(path) as image:
        refuse_several_frames(image)
        refuse_what_would_be_lost(image)
        picture = decode(image)
    return _without_opaque_alpha(picture)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file with Pillow; what goes wrong while it is open is a sentence.

    Raises
    ------
    UnreadableImageError
        It cannot be opened or decoded.
    """
    try:
        with Image.open(path) as image:
            yield image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("no image that Pillow can read") from None
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    except Exception as error:
        # Decoders meet broken files with SyntaxError, struct.error, zlib.error, EOFError ...
        raise UnreadableImageError(f"broken image: {error}") from error


def refuse_several_frames(image: Image.Image) -> None:
    """Refuse animations and files of several pages."""
    frames = getattr(image, "n_frames", 1)
    # What follows the first image of an MPO file, as cameras write them, is its preview or depth.
    if frames > 1 and image.format != "MPO":
        raise UnreadableImageError(f"expected one frame, found {frames}")


def refuse_what_would_be_lost(image: Image.Image) -> None:
    """Refuse colour spaces and depths that the module's table does not list."""
    if image.mode not in {*_CHANNELS, "1", "P", "PA", "I"} and not image.mode.startswith("I;16"):
        raise UnreadableImageError(
            f"expected gray, RGB or palette, with or without alpha, found {image.mode}"
        )
    if _is_deeper_than_its_mode(image) and not _has_two_byte_colours(image):
        raise UnreadableImageError(
            f"16-bit {_CHANNELS[image.mode]} of which Pillow reads 8 bits; "
            "16-bit colour is read from PNG files"
        )
    if image.mode == "I" and image.format != "PNG":
        raise UnreadableImageError("expected gray of 8 or 16 bits or floating point, found 32 bits")


def _is_deeper_than_its_mode(image: Image.Image) -> bool:
    """Whether decoding would drop the low byte of 16-bit samples."""
    return image.mode in ("L", "LA", "RGB", "RGBA") and any(
        "16" in raw for raw in _raw_modes(image)
    )


def _has_two_byte_colours(image: Image.Image) -> bool:
    return image.format == "PNG" and _raw_modes(image) in (["RGB;16B"], ["RGBA;16B"])


def _raw_modes(image: Image.Image) -> list[str]:
    """How samples lie in the file, by Pillow's names, one per part of the file."""
    modes = []
    for part in getattr(image, "tile", ()):
        arguments = part[3]
        raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        modes.append(raw if isinstance(raw, str) else "")
    return modes


def decode(image: Image.Image) -> Picture:
    """Pixels of an open image, upright, alpha included, in memory of their own."""
    if _has_two_byte_colours(image):
        return Picture(_decode_two_byte_colours(image), _CHANNELS[image.mode])
    if image.mode in ("P", "PA"):
        has_alpha = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "I" or image.mode.startswith("I;16"):  # "I": 16-bit gray PNG, Pillow's old way
        return Picture(_copied(image, np.uint16), "gray")
    return Picture(_copied(image), _CHANNELS[image.mode])


def _copied(image: Image.Image, dtype: Any = None) -> np.ndarray[Any, np.dtype[Any]]:
    """Pixels of an image, a band at a time: of a whole one Pillow would make two copies more."""
    row = np.asarray(image.crop((0, 0, image.width, 1)))
    pixels = np.empty((image.height, *row.shape[1:]), row.dtype if dtype is None else dtype)
    for top in range(0, image.height, _BAND):
        bottom = min(top + _BAND, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _decode_two_byte_colours(image: Image.Image) -> np.ndarray[Any, np.dtype[Any]]:
    """16-bit RGB or RGBA samples of a PNG file.

    Pillow has no mode for them and keeps the byte that its decoder takes for the high one. Samples
    are big-endian in the file, so that decoding them as little-endian keeps the low bytes instead.
    """
    path: Any = image.filename  # type: ignore[attr-defined]
    halves = []
    for byte_order in ("16B", "16L"):
        with Image.open(path) as half:
            tiles: Any = half.tile
            half.tile = [part._replace(args=part.args.replace("16B", byte_order)) for part in tiles]
            ImageOps.exif_transpose(half, in_place=True)
            halves.append(_copied(half, np.uint16))
    high, low = halves
    high <<= 8
    high |= low
    return high


def _without_opaque_alpha(picture: Picture) -> Picture:
    if not picture.channels.endswith(" with alpha"):
        return picture
    opaque = np.iinfo(picture.pixels.dtype).max
    if not np.all(picture.pixels[..., -1] == opaque):
        return picture
    colours = picture.pixels[..., :-1]
    if colours.shape[-1] == 1:
        colours = colours[..., 0]
    return Picture(np.ascontiguousarray(colours), picture.channels.removesuffix(" with alpha"))
