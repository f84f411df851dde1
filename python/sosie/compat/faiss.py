# SPDX-License-Identifier: Apache-2.0
"""faiss 1.15: ``knn`` and ``pairwise_distances`` of NumPy arrays, by squared Euclidean distance.

Other metrics, and more neighbours than there are vectors or than 1024, are handed to faiss, where
it is installed. Everything is float32, as there. Distances are exact for near pairs, where the
original's expansion leaves few digits; among equally near vectors the first comes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sosie import distance
from sosie.compat._coverage import NotCovered, falling_back, refused_is_not_covered

__all__ = ["METRIC_INNER_PRODUCT", "METRIC_L2", "knn", "pairwise_distances"]

DISTRIBUTION = "faiss-cpu"
VERSIONS = ">=1.15,<1.16"
SEAMS = {"faiss:knn": "knn", "faiss.extra_wrappers:knn": "knn"}

#: faiss's numbers for metrics.
METRIC_INNER_PRODUCT, METRIC_L2 = 0, 1

#: What is not nearer than this is no neighbour there.
_FARTHEST = np.finfo(np.float32).max


@falling_back("faiss")
def knn(
    xq: ArrayLike,
    xb: ArrayLike,
    k: int,
    metric: int = METRIC_L2,
    metric_arg: float = 0.0,  # noqa: ARG001
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Nearest vectors of a database for every query, as ``faiss.knn``.

    Parameters
    ----------
    xq, xb : array, shape (N, D) and (M, D)
        Queries and database; converted to float32.
    k : int
        How many neighbours.
    metric : int
        ``METRIC_L2``, squared Euclidean distance.
    metric_arg : float
        Of meaning for other metrics.

    Returns
    -------
    distances : array of float32, shape (N, k)
        Squared, ascending.
    indices : array of int64, shape (N, k)
        -1, with the largest distance there is, where nothing is at a finite distance.

    Raises
    ------
    AssertionError
        Vectors are of different lengths.
    ValueError
        An array has other than two axes.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.faiss import knn
    >>> distances, indices = knn(np.array([[1.0]]), np.array([[0.0], [3.0], [1.5]]), k=2)
    >>> distances, indices
    (array([[0.25, 1.  ]], dtype=float32), array([[2, 0]]))
    """
    queries, database = _vectors(xq, xb, metric)
    with refused_is_not_covered():
        distances, indices = distance.knn(queries, database, k, "sqeuclidean")
    missing = ~(distances < _FARTHEST)  # NaN among them
    distances[missing], indices[missing] = _FARTHEST, -1
    return distances, indices


@falling_back("faiss")
def pairwise_distances(
    xq: ArrayLike,
    xb: ArrayLike,
    metric: int = METRIC_L2,
    metric_arg: float = 0,  # noqa: ARG001
) -> NDArray[np.float32]:
    """Squared Euclidean distances of all vectors, as ``faiss.pairwise_distances``.

    It is no faster than faiss; `sosie.patch` leaves it alone.

    Parameters and errors are those of `knn`.

    Returns
    -------
    array of float32, shape (N, M)

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.faiss import pairwise_distances
    >>> pairwise_distances(np.array([[1.0]]), np.array([[0.0], [3.0]]))
    array([[1., 4.]], dtype=float32)
    """
    queries, database = _vectors(xq, xb, metric)
    with refused_is_not_covered():
        distances: NDArray[np.float32] = distance.cdist(queries, database, "sqeuclidean")
    return distances


def _vectors(xq: Any, xb: Any, metric: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both sets, checked."""
    if metric != METRIC_L2:
        raise NotCovered(f"sosie computes the metric METRIC_L2, got {metric!r}")
    queries, database = (np.asarray(vectors, np.float32) for vectors in (xq, xb))
    if queries.ndim != 2 or database.ndim != 2:
        raise ValueError(
            f"expected arrays of two axes, got shapes {queries.shape} and {database.shape}"
        )
    if queries.shape[1] != database.shape[1]:
        raise AssertionError(
            f"expected vectors of equal length, got shapes {queries.shape} and {database.shape}"
        )
    return queries, database
