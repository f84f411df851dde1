# SPDX-License-Identifier: Apache-2.0
"""The SSD family by Numba's kernels.

NumPy cuts pieces out of the images, in the computing dtype, and broadcasts the weights to them; so
any dtype and strides will do. Pieces depend on the shape alone and are added up in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sosie.arrays import Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype
from sosie.backends._weights import check_weights
from sosie.backends.numba._ssd_kernels import gradient_piece, sum_piece
from sosie.backends.numba._tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ssd_backward", "ssd_forward", "ssd_loss"]

#: Elements of a piece, about: its copies fit a second-level cache.
_PIECE = 1 << 15


def ssd_forward(
    x: Array,
    y: Array,
    weight: Array | None = None,
    *,
    per_image: bool = False,
    allow_negative: bool = False,
    threads: int | None = None,
) -> Array:
    """Sums of ``w (x - y)^2`` and of ``w`` for each image, float64 ``(N, 2)``."""
    pair = _Pair(x, y, weight, per_image)
    sums, lowest, odd = np.zeros((pair.shape[0], 2)), 0.0, 0.0
    found = run_tasks(
        lambda piece: sum_piece(*pair.read(piece)), pair.pieces, pair.library, threads
    )
    for piece, (of_squares, of_weights, smallest, not_finite) in zip(
        pair.pieces, found, strict=True
    ):
        sums[piece.image] += of_squares, of_weights
        lowest, odd = min(lowest, smallest), odd + not_finite
    check_weights(lowest, odd, allow_negative)
    return pair.library.from_numpy(sums, x)


def ssd_backward(
    x: Array,
    y: Array,
    weight: Array | None,
    upstream: Array,
    *,
    per_image: bool = False,
    need_x: bool = True,
    need_y: bool = False,
    need_weight: bool = False,
    threads: int | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients for x, y and the weights, from those of the sums, ``upstream`` ``(N, 2)``."""
    pair = _Pair(x, y, weight, per_image)
    library = pair.library
    given = library.to_numpy(upstream).astype(np.float64)
    by_x = np.empty(pair.shape, pair.dtype)

    def compute(piece: _Piece) -> NDArray[np.float64]:
        part_x, part_y, part_weight = pair.read(piece)
        part_by_x, by_weight = np.empty_like(part_x), np.empty(part_x.shape)
        of_sum, of_weights = given[piece.image]
        gradient_piece(part_x, part_y, part_weight, of_sum, of_weights, part_by_x, by_weight)
        target = by_x[piece.image, piece.rows]
        target[...] = part_by_x.reshape(target.shape)
        return _added_up(by_weight.reshape(target.shape), pair.weight.shape[1:])

    parts = run_tasks(compute, pair.pieces, library, threads)
    grad_weight = None
    if need_weight and weight is not None:
        of_weights = np.zeros(pair.weight.shape)
        for piece, part in zip(pair.pieces, parts, strict=True):
            of_image = of_weights[piece.image if len(of_weights) > 1 else 0]
            of_image[piece.rows if len(of_image) > 1 else slice(None)] += part
        grad_weight = _stored(library, of_weights, weight, library.dtype(weight))
    dtype = gradient_dtype(library.dtype(x))
    return (
        _stored(library, by_x, x, dtype) if need_x else None,
        _stored(library, -by_x, y, dtype) if need_y else None,
        grad_weight,
    )


def ssd_loss(
    x: Array,
    y: Array,
    weight: Array | None,
    *,
    mean: bool,
    allow_negative: bool = False,
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Sums over everything, float64 ``(1, 2)``, and the gradient of their loss.

    The loss is the sum, or with ``mean`` that over the sum of the weights.
    """
    sums = ssd_forward(x, y, weight, allow_negative=allow_negative, threads=threads)
    total = float(sums[0, 1])
    scale = 1.0 if not mean else 0.0 if total == 0.0 else 1.0 / total
    upstream = adapter(x).from_numpy(np.array([[scale, 0.0]]), x)
    grad_x, grad_y, _ = ssd_backward(
        x, y, weight, upstream, need_x=need_x, need_y=need_y, threads=threads
    )
    return sums, grad_x, grad_y


class _Piece(NamedTuple):
    """Some rows of one image."""

    image: int
    rows: slice


class _Pair:
    """Two images and their weights, as NumPy arrays of shape ``(N, rows, ...)``."""

    def __init__(self, x: Array, y: Array, weight: Array | None, per_image: bool) -> None:
        self.library = library = adapter(x)
        self.dtype = np.dtype(compute_dtype(library.dtype(x)))
        self.x, self.y, self.weight = (
            _with_rows(
                np.ones((1,) * x.ndim)
                if array is None
                else library.to_numpy(library.kernel_ready(array)),
                per_image,
            )
            for array in (x, y, weight)
        )
        self.shape = self.x.shape
        per_row = int(np.prod(self.shape[2:]))
        step = max(1, _PIECE // per_row)
        self.pieces = [
            _Piece(image, slice(first, min(first + step, self.shape[1])))
            for image in range(self.shape[0])
            for first in range(0, self.shape[1], step)
        ]

    def read(self, piece: _Piece) -> list[NDArray[Any]]:
        """The piece of both images and of the weights, in one dtype, in a row each."""
        weights = np.broadcast_to(self.weight, self.shape)
        return [
            np.ascontiguousarray(array[piece.image, piece.rows], self.dtype).reshape(-1)
            for array in (self.x, self.y, weights)
        ]


def _with_rows(array: NDArray[Any], per_image: bool) -> NDArray[Any]:
    if not per_image:
        array = array[None]
    return array[:, None] if array.ndim == 1 else array


def _added_up(values: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """Sums over the axes that weights of this shape lack; the first axis is part of theirs."""
    lacking = tuple(axis for axis, size in enumerate(shape) if size == 1)
    sums: NDArray[np.float64] = values.sum(axis=lacking, keepdims=True)
    return sums


def _stored(library: Adapter, values: NDArray[Any], like: Array, dtype: str) -> Array:
    out = library.empty_like(like, dtype)
    with np.errstate(over="ignore"):  # beyond float16 is infinite there
        out[...] = library.from_numpy(values.reshape(tuple(like.shape)), like)
    return out
