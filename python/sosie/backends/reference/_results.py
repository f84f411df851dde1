# SPDX-License-Identifier: Apache-2.0
"""Float64 results in the library and the dtype that the caller expects."""

from __future__ import annotations

import numpy as np

from sosie.arrays import Adapter, Array
from sosie.backends._dtypes import compute_dtype, gradient_dtype

__all__ = ["give_back", "gradient"]


def give_back(library: Adapter, values: Array, like: Array, dtype: str | None = None) -> Array:
    """Float64 values in the library of ``like`` and its computing (or the given) dtype."""
    out = library.empty(like, values.shape, dtype or compute_dtype(library.dtype(like)))
    out[...] = library.from_numpy(np.asarray(values, np.float64), like)
    return out


def gradient(library: Adapter, values: Array, array: Array, needed: bool) -> Array | None:
    """The gradient of ``array`` in its library, or None where none was asked for."""
    if not needed:
        return None
    out = library.empty_like(array, gradient_dtype(library.dtype(array)))
    out[...] = library.from_numpy(values, array)
    return out
