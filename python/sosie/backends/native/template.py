# SPDX-License-Identifier: Apache-2.0
"""Template search by the compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie import _core
from sosie.arrays import Array, adapter
from sosie.backends._dtypes import compute_dtype

__all__ = ["template_search"]


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
    images = library.kernel_ready(images)
    shape, window = tuple(images.shape), template.shape[1:]
    computed = compute_dtype(library.dtype(images))
    values = np.ascontiguousarray(template, computed)
    weighted = None if weights is None else np.ascontiguousarray(weights, computed)
    map_shape = (shape[0], shape[2] - window[0] + 1, shape[3] - window[1] + 1)
    result = library.empty(images, map_shape, dtype)
    address, code, strides, in_bytes = library.argument(result)
    _core.template_search(
        shape,
        window,
        library.argument(images),
        _core.address(values),
        0 if weighted is None else _core.address(weighted),
        (address, code, (strides[0], 0, *strides[1:]), in_bytes),
        library.threads() if threads is None else threads,
    )
    return result
