# SPDX-License-Identifier: Apache-2.0
"""Paired rows by the compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from sosie import _core
from sosie.arrays import Adapter, Argument, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype

__all__ = ["cosine_backward", "cosine_forward", "euclidean_backward", "euclidean_forward"]

_EUCLIDEAN, _COSINE = 0, 1


def euclidean_forward(x: Array, y: Array, axis: int, *, threads: int | None = None) -> Array:
    """Distances of all pairs of rows along ``axis``."""
    return _forward(_EUCLIDEAN, x, y, axis, 0.0, 0.0, False, threads)[0]


def euclidean_backward(
    x: Array,
    y: Array,
    value: Array,
    upstream: Array,
    axis: int,
    *,
    need_x: bool = True,
    need_y: bool = True,
    threads: int | None = None,
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``value`` is what the forward pass returned."""
    results = (value, None, None)
    return _backward(_EUCLIDEAN, x, y, results, upstream, axis, 0.0, 0.0, need_x, need_y, threads)


def cosine_forward(
    x: Array,
    y: Array,
    axis: int,
    floor: float,
    replacement: float,
    *,
    return_norms: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Similarities of all pairs of rows along ``axis`` and, if wanted, both rows' norms."""
    return _forward(_COSINE, x, y, axis, floor, replacement, return_norms, threads)


def cosine_backward(
    x: Array,
    y: Array,
    value: Array,
    norm_x: Array,
    norm_y: Array,
    upstream: Array,
    axis: int,
    floor: float,
    replacement: float,
    *,
    need_x: bool = True,
    need_y: bool = True,
    threads: int | None = None,
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``value`` and the norms are what the forward pass returned."""
    results = (value, norm_x, norm_y)
    return _backward(
        _COSINE, x, y, results, upstream, axis, floor, replacement, need_x, need_y, threads
    )


def _forward(
    kind: int,
    x: Array,
    y: Array,
    axis: int,
    floor: float,
    replacement: float,
    return_norms: bool,
    threads: int | None,
) -> tuple[Array, Array | None, Array | None]:
    library = adapter(x)
    x, y = library.kernel_ready(x), library.kernel_ready(y)
    shape = _broadcast(x, y)
    outer, dtype = shape[:axis] + shape[axis + 1 :], compute_dtype(library.dtype(x))
    value = library.empty(x, outer, dtype)
    norms = [library.empty(x, outer, dtype) if return_norms else None for _ in range(2)]
    _core.paired_forward(
        kind, shape, axis, _argument(library, x), _argument(library, y),
        _results_argument(library, value, axis),
        _results_argument(library, norms[0], axis), _results_argument(library, norms[1], axis),
        floor, replacement, library.threads() if threads is None else threads,
    )  # fmt: skip
    return value, norms[0], norms[1]


def _backward(
    kind: int,
    x: Array,
    y: Array,
    results: tuple[Array, Array | None, Array | None],
    upstream: Array,
    axis: int,
    floor: float,
    replacement: float,
    need_x: bool,
    need_y: bool,
    threads: int | None,
) -> tuple[Array | None, Array | None]:
    library = adapter(x)
    x, y = library.kernel_ready(x), library.kernel_ready(y)
    shape, dtype = _broadcast(x, y), library.dtype(x)
    gradients: list[Array | None] = [
        library.empty_like(array, gradient_dtype(dtype)) if needed else None
        for array, needed in ((x, need_x), (y, need_y))
    ]
    if 0 in shape:  # no pair: nothing to add up
        for gradient in gradients:
            if gradient is not None:
                gradient[...] = 0
        return gradients[0], gradients[1]
    if library.dtype(upstream) != compute_dtype(dtype):
        upstream = library.from_numpy(
            np.asarray(library.to_numpy(upstream), compute_dtype(dtype)), upstream
        )
    upstream = library.kernel_ready(upstream)
    _core.paired_backward(
        kind, shape, axis, _argument(library, x), _argument(library, y),
        _results_argument(library, results[0], axis),
        _results_argument(library, results[1], axis), _results_argument(library, results[2], axis),
        _results_argument(library, upstream, axis),
        _argument(library, gradients[0]), _argument(library, gradients[1]),
        floor, replacement, library.threads() if threads is None else threads,
    )  # fmt: skip
    return gradients[0], gradients[1]


def _broadcast(x: Array, y: Array) -> tuple[int, ...]:
    """The shape that both are broadcast to; public functions made sure that there is one."""
    return tuple(
        second if first == 1 else first for first, second in zip(x.shape, y.shape, strict=True)
    )


def _argument(library: Adapter, array: Array | None) -> tuple[tuple[int, ...], Argument] | None:
    return None if array is None else (tuple(array.shape), library.argument(array))


def _results_argument(
    library: Adapter, array: Array | None, axis: int
) -> tuple[tuple[int, ...], Argument] | None:
    """One number per pair, as an array with an axis of length 1 where the rows lie."""
    if array is None:
        return None
    address, code, strides, in_bytes = library.argument(array)
    shape: tuple[Any, ...] = tuple(array.shape)
    return (
        (*shape[:axis], 1, *shape[axis:]),
        (address, code, (*strides[:axis], 0, *strides[axis:]), in_bytes),
    )
