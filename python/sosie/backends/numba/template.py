# SPDX-License-Identifier: Apache-2.0
"""Template search by a Numba kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie.arrays import Array, adapter
from sosie.backends._dtypes import compute_dtype
from sosie.backends.numba._tasks import compiled, run_tasks

__all__ = ["template_search"]


@compiled
def _search_row(
    rows: NDArray[Any], template: NDArray[Any], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One row of the map, from the rows ``(C, h, W)`` that it sees; sums are float64."""
    columns = rows.shape[2] - template.shape[2] + 1
    out = np.zeros(columns)
    for c in range(template.shape[0]):
        for r in range(template.shape[1]):
            row = rows[c, r]
            for s in range(template.shape[2]):
                weight, value = weights[c, r, s], np.float64(template[c, r, s])
                if weight == 0.0:
                    continue
                for j in range(columns):
                    difference = row[s + j] - value
                    out[j] += weight * difference * difference
    return out


def template_search(
    images: Array,
    template: NDArray[Any],
    weights: NDArray[Any] | None,
    dtype: str,
    *,
    threads: int | None = None,
) -> Array:
    """Map ``(N, H - h + 1, W - w + 1)`` of images ``(N, C, H, W)``, in the given dtype.

    Template and weights are NumPy's, of shape ``(C, h, w)``.
    """
    library = adapter(images)
    pixels = library.to_numpy(library.kernel_ready(images))
    computed = compute_dtype(library.dtype(images))
    values = np.ascontiguousarray(template, computed)
    weighted = np.ones(template.shape) if weights is None else np.array(weights, np.float64)
    rows = pixels.shape[2] - template.shape[1] + 1

    def compute(place: tuple[int, int]) -> NDArray[np.float64]:
        n, i = place
        seen = np.ascontiguousarray(pixels[n, :, i : i + template.shape[1]], computed)
        found: NDArray[np.float64] = _search_row(seen, values, weighted)
        return found

    places = list(np.ndindex(pixels.shape[0], rows))
    found = np.array(run_tasks(compute, places, library, threads))
    result = found.reshape(pixels.shape[0], rows, -1).astype(dtype)
    return library.from_numpy(result, images)
