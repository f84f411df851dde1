# SPDX-License-Identifier: Apache-2.0
"""Distances between two sets of vectors, nearest neighbours, and their gradients, in float64 NumPy.

With non-negative weights ``w`` (1 where none are given) and ``<x, y> = sum_k w_k x_k y_k``,
``|x|^2 = <x, x>``, the distance of two vectors is

===============  ==================================================================
``sqeuclidean``  ``|a - b|^2``
``euclidean``    ``|a - b|``
``cosine``       ``1 - <a, b> / (|a| |b|)``, and 1 where ``|a|`` or ``|b|`` is 0
===============  ==================================================================

The cosine distance is computed as ``|a/|a| - b/|b||^2 / 2``. That is the same number, and of nearly
parallel vectors it keeps the digits that a subtraction from 1 would take.

Sets are arrays ``(..., N, D)`` and ``(..., M, D)`` whose leading axes broadcast; any real dtype is
converted to float64. One vector of the first set is compared at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["cdist_backward", "cdist_forward", "knn_backward", "knn_forward"]

Array = NDArray[np.float64]


def cdist_forward(
    a: ArrayLike, b: ArrayLike, metric: str = "euclidean", *, weights: ArrayLike | None = None
) -> Array:
    """Distance of every vector of one set to every vector of another.

    Parameters
    ----------
    a : array_like of shape (..., N, D)
    b : array_like of shape (..., M, D)
    metric : {"euclidean", "sqeuclidean", "cosine"}
    weights : array_like of shape (D,), optional
        Non-negative weights of the dimensions.

    Returns
    -------
    ndarray of shape (..., N, M)
        NaN where one of the two vectors holds a NaN.

    Examples
    --------
    >>> cdist_forward([[0.0, 0.0], [1.0, 0.0]], [[3.0, 4.0], [2.0, 0.0]])
    array([[5.        , 2.        ],
           [4.47213595, 1.        ]])
    >>> cdist_forward([[0.0, 0.0], [1.0, 0.0]], [[3.0, 4.0], [2.0, 0.0]], "cosine")
    array([[1. , 1. ],
           [0.4, 0. ]])
    """
    a, b, w = _sets(a, b, weights)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    distances = np.empty((*batch, a.shape[-2], b.shape[-2]))
    for i in range(a.shape[-2]):
        distances[..., i, :] = _distance(a[..., i, None, :], b, metric, w)
    return distances


def cdist_backward(
    a: ArrayLike,
    b: ArrayLike,
    upstream: ArrayLike,
    metric: str = "euclidean",
    *,
    weights: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Gradient of ``sum(upstream * cdist_forward(a, b, metric))`` with respect to both sets.

    Parameters
    ----------
    a, b, metric, weights
        As in :func:`cdist_forward`.
    upstream : array_like of shape (..., N, M)

    Returns
    -------
    grad_a : ndarray of shape (..., N, D)
    grad_b : ndarray of shape (..., M, D)
        With all leading axes, also those that were broadcast. A Euclidean distance of 0 and a
        cosine distance of a zero vector have gradient 0.
    """
    a, b, w = _sets(a, b, weights)
    upstream = np.asarray(upstream, np.float64)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    grad_a = np.zeros((*batch, *a.shape[-2:]))
    grad_b = np.zeros((*batch, *b.shape[-2:]))
    for i in range(a.shape[-2]):
        own, g = a[..., i, None, :], upstream[..., i, :, None]
        grad_a[..., i, :] = (g * _slope(own, b, metric, w)).sum(-2)
        grad_b += g * _slope(b, own, metric, w)
    return grad_a, grad_b


def knn_forward(
    queries: ArrayLike,
    database: ArrayLike,
    k: int,
    metric: str = "euclidean",
    *,
    exclude_self: bool = False,
) -> tuple[Array, NDArray[np.int64]]:
    """Distances and indices of the k nearest vectors of a database.

    Parameters
    ----------
    queries : array_like of shape (N, D)
    database : array_like of shape (M, D)
    k : int
        At most M, or M - 1 with ``exclude_self``.
    metric : {"euclidean", "sqeuclidean", "cosine"}
    exclude_self : bool
        Query i does not get vector i of the database.

    Returns
    -------
    distances : ndarray of shape (N, k)
        Ascending, NaN last.
    indices : ndarray of int64, shape (N, k)
        Equal distances, and those that are NaN, in the order of their indices.

    Examples
    --------
    >>> knn_forward([[1.0], [3.0]], [[0.0], [2.0], [5.0]], 2)
    (array([[1., 1.],
           [1., 2.]]), array([[0, 1],
           [1, 2]]))
    """
    distances = cdist_forward(queries, database, metric)
    order = np.argsort(distances, axis=1, kind="stable")
    if exclude_self:
        others = order != np.arange(order.shape[0])[:, None]
        order = order[others].reshape(order.shape[0], order.shape[1] - 1)
    indices = order[:, :k].astype(np.int64)
    return np.take_along_axis(distances, indices, axis=1), indices


def knn_backward(
    queries: ArrayLike,
    database: ArrayLike,
    upstream: ArrayLike,
    indices: NDArray[np.int64],
    metric: str = "euclidean",
) -> tuple[Array, Array]:
    """Gradient of ``sum(upstream * distances)`` of the neighbours that were chosen.

    Parameters
    ----------
    queries, database, metric
        As in :func:`knn_forward`.
    upstream : array_like of shape (N, k)
    indices : ndarray of int64, shape (N, k)

    Returns
    -------
    grad_queries : ndarray of shape (N, D)
    grad_database : ndarray of shape (M, D)
    """
    queries, database, w = _sets(queries, database, None)
    upstream = np.asarray(upstream, np.float64)
    grad_queries, grad_database = np.zeros(queries.shape), np.zeros(database.shape)
    for i, chosen in enumerate(indices):
        own, near, g = queries[i], database[chosen], upstream[i, :, None]
        grad_queries[i] = (g * _slope(own, near, metric, w)).sum(0)
        np.add.at(grad_database, chosen, g * _slope(near, own, metric, w))
    return grad_queries, grad_database


def _sets(a: ArrayLike, b: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    w = np.ones(a.shape[-1]) if weights is None else np.asarray(weights, np.float64)
    return a, b, w


def _unit(x: Array, w: Array) -> tuple[Array, Array]:
    """Vectors over their lengths, zero vectors as they are, and the lengths ``(..., 1)``."""
    length = np.sqrt((w * x * x).sum(-1, keepdims=True))
    return x / np.where(length == 0.0, 1.0, length), length


def _distance(a: Array, b: Array, metric: str, w: Array) -> Array:
    """Distances of vectors ``(..., D)`` that broadcast."""
    with np.errstate(invalid="ignore", over="ignore"):
        if metric != "cosine":
            difference = a - b
            squared: Array = (w * difference * difference).sum(-1)
            return squared if metric == "sqeuclidean" else np.sqrt(squared)
        (unit_a, length_a), (unit_b, length_b) = _unit(a, w), _unit(b, w)
        difference = unit_a - unit_b
        distance: Any = 0.5 * (w * difference * difference).sum(-1)
        has_zero = np.minimum(length_a, length_b)[..., 0] == 0.0  # NaN stays NaN
        return np.where(has_zero, 1.0, distance)


def _slope(x: Array, y: Array, metric: str, w: Array) -> Array:
    """Gradient of their distance with respect to ``x``, of vectors ``(..., D)`` that broadcast."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = _distance(x, y, metric, w)[..., None]
        if metric == "sqeuclidean":
            return 2.0 * w * (x - y)
        if metric == "euclidean":
            return np.where(distance == 0.0, 0.0, w * (x - y) / np.where(distance, distance, 1.0))
        # With u = x / |x|: the gradient of -<u, v> is (<u, v> u - v) / |x|.
        (unit_x, length_x), (unit_y, length_y) = _unit(x, w), _unit(y, w)
        has_zero = np.minimum(length_x, length_y) == 0.0
        direction = (unit_x - unit_y) - distance * unit_x
        return np.where(has_zero, 0.0, w * direction / np.where(has_zero, 1.0, length_x))
