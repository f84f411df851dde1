# SPDX-License-Identifier: Apache-2.0
"""Small pictures of images that pass by in bands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["Reduction"]

Pixels = np.ndarray[Any, np.dtype[Any]]


class Reduction:
    """An 8-bit picture of an image, its pixels being means over boxes.

    Parameters
    ----------
    shape : tuple of int
        Of the image, (H, W) or (H, W, C), uint8 or uint16.
    longest_side : int
        The picture is no larger. Images that are no larger stay as they are.

    Examples
    --------
    >>> reduction = Reduction((4, 4), 2)
    >>> for rows in np.arange(16, dtype=np.uint8).reshape(4, 4):
    ...     reduction.add(rows[None])
    >>> reduction.picture().tolist()
    [[2, 4], [10, 12]]
    """

    def __init__(self, shape: tuple[int, ...], longest_side: int) -> None:
        # No side may vanish: an image of one row stays one of one row.
        factor = math.ceil(max(shape[:2]) / longest_side)
        self._box = tuple(min(factor, side) for side in shape[:2])
        self._rest: Pixels | None = None
        self._rows: list[Pixels] = []

    def add(self, rows: Pixels) -> None:
        """The next rows of the image, from the top."""
        tall, wide = self._box
        if self._rest is not None:
            rows = np.concatenate([self._rest, rows])
        whole = len(rows) // tall * tall
        self._rest = rows[whole:].copy()
        if not whole:
            return
        used = rows[:whole, : rows.shape[1] // wide * wide]
        boxes = used.reshape(whole // tall, tall, -1, wide, *rows.shape[2:])
        means = boxes.mean(axis=(1, 3), dtype=np.float32)
        self._rows.append(np.rint(means / (257 if rows.dtype == np.uint16 else 1)).astype(np.uint8))

    def picture(self) -> Pixels:
        """What has been added, reduced; rows that fill no box are left out."""
        return np.concatenate(self._rows)
