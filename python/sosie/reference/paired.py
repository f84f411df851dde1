# SPDX-License-Identifier: Apache-2.0
"""Distances of paired rows, as formulas, in float64 NumPy.

``x`` and ``y`` have the same number of axes, the same length along ``axis``, and otherwise shapes
that broadcast. A row is what lies along ``axis``; results have the other axes, broadcast. Gradients
have the shapes of ``x`` and ``y``: that of a broadcast array is the sum over its copies.

Arrays of any real dtype are converted to float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["cosine_backward", "cosine_forward", "euclidean_backward", "euclidean_forward"]

Array = NDArray[np.float64]


def euclidean_forward(x: ArrayLike, y: ArrayLike, axis: int) -> Array:
    """Euclidean distance of every pair of rows: ``sqrt(sum (x - y)^2)``.

    Examples
    --------
    >>> import numpy as np
    >>> euclidean_forward([[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0]], 1)
    array([5.        , 3.60555128])
    """
    difference = _float64(x) - _float64(y)
    return np.asarray(np.sqrt((difference * difference).sum(axis)))


def euclidean_backward(
    x: ArrayLike, y: ArrayLike, upstream: ArrayLike, axis: int
) -> tuple[Array, Array]:
    """Gradients of ``sum upstream * distance`` for x and y.

    At coinciding rows, where the distance has a tip and no gradient, it is 0: the mean of all
    directions.
    """
    x, y = _float64(x), _float64(y)
    distance = np.expand_dims(euclidean_forward(x, y, axis), axis)
    apart = distance != 0.0
    factor = np.expand_dims(_float64(upstream), axis) / np.where(apart, distance, 1.0)
    gradient = np.where(apart, factor, 0.0) * (x - y)
    return _summed(gradient, x.shape), _summed(-gradient, y.shape)


def cosine_forward(
    x: ArrayLike, y: ArrayLike, axis: int, floor: float, replacement: float
) -> tuple[Array, Array, Array]:
    """Cosine similarity of every pair of rows, ``sum x y / (|x|' |y|')``, and the norms |x|, |y|.

    ``n' = replacement if n < floor else n``: libraries differ in what a vector of length 0 is
    divided by, and in nothing else.

    Examples
    --------
    >>> import numpy as np
    >>> cosine_forward([[1.0, 0.0]], [[1.0, 1.0]], 1, 0.0, 0.0)[0]
    array([0.70710678])
    """
    x, y = _float64(x), _float64(y)
    norm_x, norm_y = (np.sqrt((each * each).sum(axis)) for each in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (x * y).sum(axis) / (
            _clamped(norm_x, floor, replacement) * _clamped(norm_y, floor, replacement)
        )
    # Rounding may lead beyond what a cosine can be.
    value = np.clip(value, -1.0, 1.0)
    return value, np.broadcast_to(norm_x, value.shape), np.broadcast_to(norm_y, value.shape)


def cosine_backward(
    x: ArrayLike,
    y: ArrayLike,
    upstream: ArrayLike,
    axis: int,
    floor: float,
    replacement: float,
) -> tuple[Array, Array]:
    """Gradients of ``sum upstream * similarity`` for x and y.

    Where a norm counts as `replacement` it is a constant, and nothing is subtracted for it.
    """
    x, y = _float64(x), _float64(y)
    value, norm_x, norm_y = (
        np.expand_dims(each, axis) for each in cosine_forward(x, y, axis, floor, replacement)
    )
    upstream = np.expand_dims(_float64(upstream), axis)

    def gradient(own: Array, other: Array, own_norm: Array, other_norm: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            direct = other / (
                _clamped(own_norm, floor, replacement) * _clamped(other_norm, floor, replacement)
            )
            by_norm = np.where(own_norm < floor, 0.0, value / own_norm**2) * own
        return _summed(upstream * (direct - by_norm), own.shape)

    return gradient(x, y, norm_x, norm_y), gradient(y, x, norm_y, norm_x)


def _float64(array: ArrayLike) -> Array:
    return np.asarray(array, np.float64)


def _clamped(norm: Array, floor: float, replacement: float) -> Array:
    return np.where(norm < floor, replacement, norm)


def _summed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which an array of `shape` was broadcast."""
    axes = tuple(
        axis
        for axis, (size, own) in enumerate(zip(gradient.shape, shape, strict=True))
        if own == 1 and size != 1
    )
    total: Any = gradient.sum(axes, keepdims=True)
    return np.asarray(total, np.float64)
