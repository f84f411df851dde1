# SPDX-License-Identifier: Apache-2.0
"""Paired rows by Numba's kernels.

NumPy makes views of shape ``(rows, length)`` out of arrays of any shape and strides, one for each
place along the leading axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sosie.arrays import Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype
from sosie.backends.numba._paired_kernels import add_gradients, differences, products
from sosie.backends.numba._tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cosine_backward", "cosine_forward", "euclidean_backward", "euclidean_forward"]

Numbers = NDArray[np.float64]

#: Pairs of elements of one task.
_TASK = 1 << 18


def euclidean_forward(x: Array, y: Array, axis: int, *, threads: int | None = None) -> Array:
    """Distances of all pairs of rows along ``axis``."""
    rows = _Rows(x, y, axis)
    sums = rows.sums(differences, (), threads)
    return rows.result(np.sqrt(sums))


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
    rows = _Rows(x, y, axis)
    distance, up = rows.numbers(value), rows.numbers(upstream)
    apart = distance != 0.0
    a = np.where(apart, -up / np.where(apart, distance, 1.0), 0.0)
    ones = np.ones_like(a)
    return rows.gradients(a, ones, ones, need_x, need_y, threads)


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
    rows = _Rows(x, y, axis)
    sums = rows.sums(products, (3,), threads)
    norm_x, norm_y = np.sqrt(sums[..., 1]), np.sqrt(sums[..., 2])
    with np.errstate(invalid="ignore", divide="ignore"):
        value = sums[..., 0] / (
            _clamped(norm_x, floor, replacement) * _clamped(norm_y, floor, replacement)
        )
    value = np.clip(value, -1.0, 1.0)
    if not return_norms:
        return rows.result(value), None, None
    return rows.result(value), rows.result(norm_x), rows.result(norm_y)


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
    rows = _Rows(x, y, axis)
    s, of_x, of_y, up = map(rows.numbers, (value, norm_x, norm_y, upstream))
    x_norm, y_norm = _clamped(of_x, floor, replacement), _clamped(of_y, floor, replacement)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = up / (x_norm * y_norm)
        t = np.where(of_x < floor, 0.0, s * y_norm / of_x)
        u = np.where(of_y < floor, 0.0, s * x_norm / of_y)
    return rows.gradients(a, t, u, need_x, need_y, threads)


def _clamped(norm: Numbers, floor: float, replacement: float) -> Numbers:
    return np.where(norm < floor, replacement, norm)


class _Rows:
    """Pairs of rows, whatever axes they came with."""

    def __init__(self, x: Array, y: Array, axis: int) -> None:
        self.library: Adapter = adapter(x)
        self.arrays = x, y
        self.axis = axis
        self.dtype = self.library.dtype(x)
        first, second = (self._rows_last(array) for array in (x, y))
        shape = np.broadcast_shapes(first.shape, second.shape)
        #: Axes of the results, and views with at least one axis of rows.
        self.outer = shape[:-1]
        self.shape = shape if len(shape) > 1 else (1, *shape)
        self.x, self.y = np.broadcast_to(first, self.shape), np.broadcast_to(second, self.shape)

    def _rows_last(self, array: Array) -> NDArray[Any]:
        values = self.library.to_numpy(self.library.kernel_ready(array))
        if values.dtype == np.float16:  # Numba has none on a CPU
            values = values.astype(np.float32)
        return np.moveaxis(values, self.axis, -1)

    def numbers(self, array: Array) -> Numbers:
        """One float64 number per pair."""
        values = np.asarray(self.library.to_numpy(array), np.float64)
        return values.reshape(self.shape[:-1])

    def result(self, values: NDArray[Any]) -> Array:
        """Numbers per pair in the library and dtype that the caller expects."""
        like = self.arrays[0]
        out = self.library.empty(like, self.outer, compute_dtype(self.dtype))
        out[...] = self.library.from_numpy(values.reshape(self.outer), like)
        return out

    def tasks(self) -> list[tuple[Any, ...]]:
        """Indices of blocks of rows, by the sizes alone."""
        step = max(1, _TASK // max(1, self.shape[-1]))
        return [
            (*lead, slice(begin, begin + step))
            for lead in np.ndindex(*self.shape[:-2])
            for begin in range(0, self.shape[-2], step)
        ]

    def sums(
        self, kernel: Callable[..., None], own: tuple[int, ...], threads: int | None
    ) -> Numbers:
        """What ``kernel`` adds up, float64 of shape ``(*outer, *own)``."""
        sums = np.empty(self.shape[:-1] + own)

        def compute(block: tuple[Any, ...]) -> None:
            kernel(self.x[block], self.y[block], sums[block])

        run_tasks(compute, self.tasks(), self.library, threads)
        return sums

    def gradients(
        self, a: Numbers, t: Numbers, u: Numbers, need_x: bool, need_y: bool, threads: int | None
    ) -> tuple[Array | None, Array | None]:
        """``a (y - t x)`` and ``a (x - u y)``, summed where an array was broadcast."""
        needed = need_x, need_y
        totals = [
            np.zeros(tuple(array.shape) if need else (1,) * array.ndim)
            for array, need in zip(self.arrays, needed, strict=True)
        ]
        # Where rows share one of a gradient, its views overlap, and tasks must take turns.
        views = [
            np.lib.stride_tricks.as_strided(
                moved, self.shape, np.broadcast_to(moved, self.shape).strides, writeable=True
            )
            for moved in (np.moveaxis(total, self.axis, -1) for total in totals)
        ]
        shared = any(
            need and total.size < np.prod(self.shape)
            for need, total in zip(needed, totals, strict=True)
        )

        def compute(block: tuple[Any, ...]) -> None:
            add_gradients(
                self.x[block], self.y[block], a[block], t[block], u[block],
                views[0][block], views[1][block], need_x, need_y,
            )  # fmt: skip

        run_tasks(compute, self.tasks(), self.library, 1 if shared else threads)
        grad_x, grad_y = (
            self._gradient(array, total) if need else None
            for array, total, need in zip(self.arrays, totals, needed, strict=True)
        )
        return grad_x, grad_y

    def _gradient(self, array: Array, total: Numbers) -> Array:
        out = self.library.empty_like(array, gradient_dtype(self.dtype))
        out[...] = self.library.from_numpy(total, array)
        return out
