# SPDX-License-Identifier: Apache-2.0
"""Distances of paired rows: Euclidean distance and cosine similarity along any axis."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from sosie.arrays import Array, adapter, check_alike, is_torch
from sosie.backends import executor
from sosie.backends._dtypes import compute_dtype

__all__ = ["cosine_similarity", "euclidean_distance"]


def euclidean_distance(x: Array, y: Array, *, axis: int = -1) -> Any:
    """Euclidean distance of every row of x to the row of y that it is paired with.

    Parameters
    ----------
    x, y : array
        NumPy arrays, torch tensors or CuPy arrays of equal dtype whose shapes broadcast: uint8,
        uint16, float16, bfloat16, float32 (computed in float32) or float64 (computed in float64).
        Any strides; nothing is copied, nor are broadcast arrays spread out. Torch tensors are
        differentiable, twice.
    axis : int
        The axis of the broadcast arrays along which a row lies.

    Returns
    -------
    scalar or array
        ``sqrt(sum (x - y)^2)``, in the broadcast shape without ``axis``: float32, or float64 for
        float64 arrays. 0 for rows without elements. The gradient at coinciding rows is 0.

    Raises
    ------
    TypeError
        Dtypes or libraries differ or are not supported.
    ValueError
        Shapes do not broadcast, or there is no such axis.

    See Also
    --------
    cosine_similarity

    Notes
    -----
    Elements are subtracted before they are squared, so that near rows keep their digits: the
    relative error stays below 1e-6 in float32, for rows of any length. NaN stays in its own row.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x = np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    >>> sosie.euclidean_distance(x, np.zeros(2))
    array([0.        , 5.        , 1.41421356])
    """
    if is_torch(x):
        _torch_operators()
    return _euclidean_distance(x, y, axis)


def cosine_similarity(
    x: Array, y: Array, *, axis: int = -1, eps: float = 1e-8, zero: str = "torch"
) -> Any:
    """Cosine of the angle between every row of x and the row of y that it is paired with.

    Parameters
    ----------
    x, y : array
        As for :func:`euclidean_distance`.
    axis : int
        The axis of the broadcast arrays along which a row lies.
    eps : float
        Least norm of a row, for ``zero="torch"``; at least 0.
    zero : {"torch", "scipy", "scikit-learn"}
        What a row of length 0 is divided by, for which there is no angle:

        - "torch": a norm below ``eps`` counts as ``eps``, so that the similarity is 0;
        - "scipy": its norm, so that the similarity is NaN;
        - "scikit-learn": 1, so that the similarity is 0; as there, this begins at 10 times the
          machine epsilon of the dtype that is computed in.

    Returns
    -------
    scalar or array
        ``sum x y / (|x| |y|)``, in [-1, 1], in the broadcast shape without ``axis``: float32, or
        float64 for float64 arrays.

    Raises
    ------
    TypeError
        Dtypes or libraries differ or are not supported.
    ValueError
        Shapes do not broadcast, there is no such axis, ``eps`` is negative or ``zero`` unknown.

    See Also
    --------
    euclidean_distance

    Notes
    -----
    A norm that counts as something else is a constant, for the gradient too. NaN stays in its own
    row.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    >>> y = np.array([2.0, 0.0])
    >>> sosie.cosine_similarity(x, y)
    array([1.        , 0.70710678, 0.        ])
    >>> sosie.cosine_similarity(x, y, zero="scipy")
    array([1.        , 0.70710678,        nan])
    """
    if is_torch(x):
        _torch_operators()
    return _cosine_similarity(x, y, axis, eps, zero)


def _torch_operators() -> Any:
    """The torch side, imported when the first tensor comes.

    The import also tells compilers to take the two functions below as they are.
    """
    from sosie.torch import paired as operators

    return operators


def _euclidean_distance(x: Array, y: Array, axis: int) -> Any:
    x, y, axis = _rows(x, y, axis)
    if is_torch(x):
        return _torch_operators().euclidean_distance(x, y, axis)
    return executor(x).euclidean_forward(x, y, axis)[()]


def _cosine_similarity(x: Array, y: Array, axis: int, eps: float, zero: str) -> Any:
    x, y, axis = _rows(x, y, axis)
    norms = _norms(eps, zero, compute_dtype(adapter(x).dtype(x)))
    if is_torch(x):
        return _torch_operators().cosine_similarity(x, y, axis, *norms)
    return executor(x).cosine_forward(x, y, axis, *norms)[0][()]


class Norms(NamedTuple):
    """What rows are divided by: a norm below `floor` counts as `replacement`."""

    floor: float
    replacement: float


def _norms(eps: float, zero: str, dtype: str) -> Norms:
    if not 0 <= eps < math.inf:
        raise ValueError(f"expected eps to be a finite number of at least 0, got {eps!r}")
    if zero == "torch":
        return Norms(eps, eps)
    if zero == "scipy":
        return Norms(0.0, 0.0)
    if zero == "scikit-learn":
        return Norms(10 * float(np.finfo(dtype).eps), 1.0)
    raise ValueError(f"expected zero out of 'torch', 'scipy', 'scikit-learn', got {zero!r}")


def _rows(x: Array, y: Array, axis: int) -> tuple[Array, Array, int]:
    """Views with equally many axes and rows of equal length, and the axis counted from the first.

    Broadcasting along the other axes is left to the executors.
    """
    check_alike(x, y)
    count = max(x.ndim, y.ndim)
    x, y = _with_axes(x, count), _with_axes(y, count)
    if any(
        own not in (other, 1) and other != 1 for own, other in zip(x.shape, y.shape, strict=True)
    ):
        raise ValueError(
            f"expected x and y of shapes that broadcast, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not -count <= axis < count:
        raise ValueError(f"expected an axis of arrays with {count} axes, got {axis}")
    axis %= count
    if x.shape[axis] != y.shape[axis]:
        length = x.shape[axis] if y.shape[axis] == 1 else y.shape[axis]
        x, y = _with_length(x, axis, length), _with_length(y, axis, length)
    return x, y, axis


def _with_axes(array: Array, count: int) -> Array:
    if array.ndim == count:
        return array
    return array.reshape((1,) * (count - array.ndim) + tuple(array.shape))


def _with_length(array: Array, axis: int, length: int) -> Array:
    shape = (*array.shape[:axis], length, *array.shape[axis + 1 :])
    return adapter(array).broadcast_to(array, shape)
