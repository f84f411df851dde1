# SPDX-License-Identifier: Apache-2.0
"""Tiles of distances, of their gradients, and what keeps the nearest, as Numba kernels.

All is float64 and C-contiguous. Differences are taken before they are squared, so nothing cancels
but what the vectors have in common; sums go over blocks first, so that rounding does not grow with
their length. What runs fastest is neighbouring columns (distances) or dimensions (gradients), whose
sums are independent: loops become vectors without a change in the order of any sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie.backends.numba._tasks import compiled

__all__ = ["add_differences", "add_squares", "keep_nearest"]

#: Dimensions, or partners, that are summed up before the sum is added to the others: of 128 columns
#: they fit a second-level cache.
BLOCK = 256


@compiled
def add_squares(
    rows: NDArray[Any], panel: NDArray[Any], weights: NDArray[Any], out: NDArray[Any]
) -> None:
    """``out[i, j] = sum_k weights[k] (rows[i, k] - panel[k, j])^2``.

    The dimensions of ``rows`` (N, D) and ``panel`` (D, M) are a multiple of four, padded with
    zeros. Empty weights are all 1.
    """
    out[:] = 0.0
    total = np.empty(out.shape[1])
    for first in range(0, rows.shape[1], BLOCK):
        last = min(first + BLOCK, rows.shape[1])
        for i in range(rows.shape[0]):
            total[:] = 0.0
            for k in range(first, last, 4):
                a, b, c, d = rows[i, k], rows[i, k + 1], rows[i, k + 2], rows[i, k + 3]
                pa, pb, pc, pd = panel[k], panel[k + 1], panel[k + 2], panel[k + 3]
                if weights.size:
                    wa, wb, wc, wd = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
                    for j in range(total.size):
                        da, db, dc, dd = a - pa[j], b - pb[j], c - pc[j], d - pd[j]
                        total[j] += (wa * da * da + wb * db * db) + (wc * dc * dc + wd * dd * dd)
                else:
                    for j in range(total.size):
                        da, db, dc, dd = a - pa[j], b - pb[j], c - pc[j], d - pd[j]
                        total[j] += (da * da + db * db) + (dc * dc + dd * dd)
            for j in range(total.size):
                out[i, j] += total[j]


@compiled
def add_differences(
    rows: NDArray[Any], partners: NDArray[Any], factors: NDArray[Any], out: NDArray[Any]
) -> None:
    """``out[i] += sum_j factors[i, j] (rows[i] - partners[j])``, all of ``partners`` one block.

    Shapes: ``rows`` and ``out`` (N, D), ``partners`` (M, D), ``factors`` (N, M).
    """
    total = np.empty(rows.shape[1])
    fours = partners.shape[0] - partners.shape[0] % 4
    for i in range(rows.shape[0]):
        row = rows[i]
        total[:] = 0.0
        for j in range(0, fours, 4):
            fa, fb, fc, fd = factors[i, j], factors[i, j + 1], factors[i, j + 2], factors[i, j + 3]
            pa, pb, pc, pd = partners[j], partners[j + 1], partners[j + 2], partners[j + 3]
            for k in range(total.size):
                total[k] += (fa * (row[k] - pa[k]) + fb * (row[k] - pb[k])) + (
                    fc * (row[k] - pc[k]) + fd * (row[k] - pd[k])
                )
        for j in range(fours, partners.shape[0]):
            factor, partner = factors[i, j], partners[j]
            for k in range(total.size):
                total[k] += factor * (row[k] - partner[k])
        for k in range(total.size):
            out[i, k] += total[k]


@compiled
def keep_nearest(
    tile: NDArray[Any],  # (rows, columns) distances
    columns: int,  # how many columns of the tile are vectors of the database
    first: int,  # index of its first
    own: int,  # index of the vector that row 0 must not get, row 1 the next; negative: it may
    distances: NDArray[Any],  # (rows, k), ascending, the first `found` of them
    indices: NDArray[Any],
    found: NDArray[Any],  # (rows,)
) -> None:
    """Take a tile's distances into the lists of the nearest; later columns lose ties."""
    k = distances.shape[1]
    for i in range(tile.shape[0]):
        count = found[i]
        for j in range(columns):
            value = tile[i, j]
            if count == k and not value < distances[i, k - 1]:
                continue
            if np.isnan(value) or (own >= 0 and first + j == own + i):
                continue
            place = min(count, k - 1)
            while place > 0 and value < distances[i, place - 1]:
                distances[i, place] = distances[i, place - 1]
                indices[i, place] = indices[i, place - 1]
                place -= 1
            distances[i, place] = value
            indices[i, place] = first + j
            count = min(count + 1, k)
        found[i] = count
