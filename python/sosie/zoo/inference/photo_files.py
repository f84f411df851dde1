# SPDX-License-Identifier: Apache-2.0
"""Photographs in files, with what belongs to them, and masks of what is missing in them.

Pixels come upright, whatever orientation the camera wrote down, at their own depth, with their
alpha. Colour profile, EXIF data and resolution are kept beside them. What a PNG file cannot hold is
converted, and a note says so: colours of CMYK and other spaces, palettes, pixels of one bit.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from sosie.comparison.files import (
    UnreadableImageError,
    decode,
    is_image_name,
    open_image,
    refuse_several_frames,
    refuse_what_would_be_lost,
)
from sosie.comparison.pairs import printable

__all__ = ["Photo", "find_mask", "read_mask", "read_photo"]

Mask = np.ndarray[Any, np.dtype[np.bool_]]

#: Colour spaces that become RGB.
_CONVERTED = ("CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La")
_ORIENTATION = 0x0112
_KINDS = {"1": "bilevel", "P": "palette", "PA": "palette"}


@dataclass(frozen=True)
class Photo:
    """A photograph as read from a file.

    Attributes
    ----------
    pixels : ndarray of uint8 or uint16, shape (H, W) or (H, W, C)
        Gray or RGB, the last of 2 or 4 channels being alpha.
    kind : str
        Depth and channels: "16-bit RGB with alpha".
    notes : tuple of str
        What was converted, or left out.
    belongings : dict
        For :class:`PNGWriter`: colour profile, EXIF data, resolution.
    """

    pixels: np.ndarray[Any, np.dtype[Any]]
    kind: str
    notes: tuple[str, ...]
    belongings: dict[str, Any]


def read_photo(path: Path, most_pixels: int) -> Photo:
    """Read a photograph.

    Parameters
    ----------
    path : Path
    most_pixels : int
        Files that say they hold more are refused before they are decoded.

    Raises
    ------
    UnreadableImageError
        It cannot be opened or decoded, is too large, an animation, or of a kind that would lose
        something.
    """
    with _any_size(), open_image(path) as image:
        _check_size(image, most_pixels)
        refuse_several_frames(image)
        converted, notes = _converted(image)
        refuse_what_would_be_lost(converted)
        picture = decode(converted)
        if picture.pixels.dtype == np.float32:
            raise UnreadableImageError("expected 8 or 16 bits, found floating point")
        if "transparency" in image.info and not picture.channels.endswith("alpha"):
            notes.append("a transparent colour was left out")
        return Photo(
            picture.pixels, picture.description, tuple(notes), _belongings(image, converted)
        )


def find_mask(name: Path, folder: Path) -> tuple[Path | None, str]:
    """The mask of an image in a folder of masks, or why there is none.

    Parameters
    ----------
    name : Path
        Of the image, relative to where it was looked for; the mask's may have another extension.
    folder : Path
    """
    place = folder / name
    if place.is_file():
        return place, ""
    siblings = place.parent.iterdir() if place.parent.is_dir() else ()
    masks = [path for path in siblings if path.stem == name.stem and is_image_name(path)]
    if len(masks) == 1:
        return masks[0], ""
    how_many = f"{len(masks)} masks" if masks else "no mask"
    return None, f"{how_many} of this name in {printable(folder)}"


def read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    """Read which pixels are missing: those that are white, or at least half as bright.

    Parameters
    ----------
    path : Path
    shape : tuple of int
        Height and width it must have.

    Raises
    ------
    UnreadableImageError
        It cannot be read, or is of another size; the message names it.
    """
    try:
        return _read_mask(path, shape)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"mask {printable(path)}: {error}") from error


def _read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    with _any_size(), open_image(path) as image:
        refuse_several_frames(image)
        if image.width * image.height != shape[0] * shape[1]:  # before it is decoded
            raise _other_size(image.width, image.height, shape)
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            raise UnreadableImageError(f"expected a mask of gray levels, found {image.mode}")
        wide = image.mode == "I;16"
        picture = decode(image if wide else image.convert("L"))
    if picture.pixels.shape != shape:
        height, width = picture.pixels.shape[:2]
        raise _other_size(width, height, shape)
    missing: Mask = picture.pixels >= (1 << 15 if wide else 1 << 7)
    return missing


def _other_size(width: int, height: int, shape: tuple[int, int]) -> UnreadableImageError:
    return UnreadableImageError(
        f"the mask has {width} x {height} pixels, the image {shape[1]} x {shape[0]}"
    )


@contextmanager
def _any_size() -> Iterator[None]:
    """Without Pillow's limit, which warns from 89 megapixels on: `read_photo` has its own."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, most_pixels: int) -> None:
    count = image.width * image.height
    if count > most_pixels:
        raise UnreadableImageError(
            f"{image.width} x {image.height} are {count / 1e6:.0f} megapixels, "
            f"more than the limit of {most_pixels / 1e6:g}"
        )


def _converted(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The same in a mode that can be decoded, and what was done for it."""
    if image.mode in _CONVERTED:
        return _to_rgb(image)
    notes = []
    if image.mode in _KINDS:
        notes.append(f"{_KINDS[image.mode]}, written with 8 bits for each channel")
    elif image.mode in ("L", "RGB") and "transparency" in image.info:
        is_deep = any("16" in str(part[3]) for part in getattr(image, "tile", ()))
        if not is_deep:
            notes.append("a transparent colour, written as alpha")
            return image.convert("LA" if image.mode == "L" else "RGBA"), notes
    return image, notes


def _to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """By way of the image's colour profile, if it has one that can be used."""
    target = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGB")
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK" and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            by_profile = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # broken profiles are left out, and the note says that none was used
        else:
            if by_profile is not None:
                return by_profile, ["CMYK, written as sRGB by way of its colour profile"]
    return image.convert(target), [f"{image.mode}, written as {target}, without a colour profile"]


def _belongings(image: Image.Image, converted: Image.Image) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if image.mode not in _CONVERTED and image.info.get("icc_profile"):
        found["icc_profile"] = image.info["icc_profile"]
    exif = converted.getexif() if converted.info.get("exif") else image.getexif()
    # The "EXIF data" of a TIFF file are its own tags, which say where in that file samples lie.
    if exif and image.format != "TIFF":
        exif.pop(_ORIENTATION, None)
        content = exif.tobytes().removeprefix(b"Exif\0\0")
        if len(exif):
            found["exif"] = content
    dpi = image.info.get("dpi")
    if dpi and all(0 < number < 1e6 for number in dpi):
        found["dpi"] = tuple(float(number) for number in dpi)
    return found
