# SPDX-License-Identifier: Apache-2.0
"""PNG files written some rows at a time, of 8 or 16 bits.

Pillow has no 16-bit colour, and needs an image whole. The format: W3C, "Portable Network Graphics
(PNG) Specification", third edition, 2025.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO, Any

import numpy as np

__all__ = ["PNGWriter"]

Rows = np.ndarray[Any, np.dtype[Any]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Channels to the format's number for what they mean: gray, gray and alpha, RGB, RGB and alpha.
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_METRES_PER_INCH = 0.0254


class PNGWriter:
    """Writes the rows of an image to a file.

    Parameters
    ----------
    file : binary file
        Open for writing.
    shape : tuple of int
        (H, W) or (H, W, C), with C from 1 to 4.
    dtype : {uint8, uint16}
    icc_profile, exif : bytes, optional
        Colour profile, and EXIF data without the "Exif" prefix that JPEG files have.
    dpi : tuple of float, optional
        Pixels per inch, across and down.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file, pixels = io.BytesIO(), np.arange(12, dtype=np.uint8).reshape(4, 3)
    >>> writer = PNGWriter(file, pixels.shape, pixels.dtype)
    >>> for rows in (pixels[:1], pixels[1:]):
    ...     writer.write(rows)
    >>> writer.close()
    >>> bool((np.asarray(Image.open(file)) == pixels).all())
    True
    """

    def __init__(
        self,
        file: IO[bytes],
        shape: tuple[int, ...],
        dtype: Any,
        *,
        icc_profile: bytes | None = None,
        exif: bytes | None = None,
        dpi: tuple[float, float] | None = None,
    ) -> None:
        self._file = file
        channels = shape[2] if len(shape) == 3 else 1
        size = np.dtype(dtype).itemsize
        self._pixel = size * channels
        self._before = np.zeros(shape[1] * self._pixel, np.uint8)
        self._deflate = zlib.compressobj()
        file.write(_SIGNATURE)
        kind = _COLOUR_TYPES[channels]
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], 8 * size, kind, 0, 0, 0))
        if icc_profile:
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile))
        if dpi:
            across, down = (round(number / _METRES_PER_INCH) for number in dpi)
            self._chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
        if exif:
            self._chunk(b"eXIf", exif)

    def write(self, rows: Rows) -> None:
        """Write some rows, in order from the top, shape (h, W) or (h, W, C)."""
        if rows.dtype == np.uint16:
            rows = rows.astype(">u2")
        samples = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
        above = np.concatenate([self._before[None], samples[:-1]])
        self._before = samples[-1].copy()
        self._data(self._deflate.compress(_filtered(samples, above, self._pixel).tobytes()))

    def close(self) -> None:
        """Write the end. The file stays open."""
        self._data(self._deflate.flush())
        self._chunk(b"IEND", b"")

    def _data(self, content: bytes) -> None:
        if content:
            self._chunk(b"IDAT", content)

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self._file.write(struct.pack(">I", len(content)) + kind + content)
        self._file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))


def _filtered(samples: Bytes, above: Bytes, pixel: int) -> Bytes:
    """Rows of bytes (h, n) with what is expected of them taken off, and how in front: (h, 1 + n).

    Of expecting nothing, the left, the upper neighbour, or Paeth's choice, the one that leaves the
    least, as section 12.7 of the specification advises.
    """
    left, above_left = (np.pad(each, ((0, 0), (pixel, 0)))[:, :-pixel] for each in (samples, above))
    candidates = {
        0: samples,
        1: samples - left,
        2: samples - above,
        4: samples - _paeth(left, above, above_left),
    }
    # Bytes as signed numbers: 255 is one less than nothing.
    sizes = [np.abs(each.view(np.int8).astype(np.int16)).sum(1) for each in candidates.values()]
    chosen = np.argmin(sizes, axis=0)
    result = np.empty((len(samples), 1 + samples.shape[1]), np.uint8)
    for index, (kind, rows) in enumerate(candidates.items()):
        result[chosen == index, 0] = kind
        result[chosen == index, 1:] = rows[chosen == index]
    return result


def _paeth(left: Bytes, above: Bytes, above_left: Bytes) -> Bytes:
    """Of three neighbours, the one nearest to left + above - above left."""
    a, b, c = (each.astype(np.int16) for each in (left, above, above_left))
    to_left, to_above, to_above_left = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    is_above = (to_above < to_left) & (to_above <= to_above_left)
    is_left = (to_left <= to_above) & (to_left <= to_above_left)
    return np.where(is_left, left, np.where(is_above, above, above_left))
