# SPDX-License-Identifier: Apache-2.0
"""scikit-learn 1.9: pairwise distances, nearest neighbours by ``ArgKmin``.

Covered are dense arrays of real numbers, Euclidean (also squared) distances and cosine
similarities. Sparse matrices, other metrics and other options are handed to scikit-learn, where it
is installed. Input is checked as there: two axes, at least one row and column, finite values.

Norms that are given are not used: differences are taken before they are squared, so that near rows
are exact, where the original's expansion leaves few digits. float32 is computed in float32. Among
equally near neighbours the first comes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sosie.compat._coverage import NotCovered, falling_back, refused_is_not_covered
from sosie.distance import cdist, knn

__all__ = [
    "ArgKmin",
    "cosine_distances",
    "cosine_similarity",
    "euclidean_distances",
    "pairwise_distances_argmin_min",
]

DISTRIBUTION = "scikit-learn"
VERSIONS = ">=1.9,<1.10"
_PAIRWISE = "sklearn.metrics.pairwise"
SEAMS = {
    f"{_PAIRWISE}:_euclidean_distances": "_euclidean_distances",
    f"{_PAIRWISE}:cosine_distances": "cosine_distances",
    "sklearn.metrics._pairwise_distances_reduction._dispatcher:ArgKmin.compute": "_arg_k_min",
}

#: What they are called there, and here.
_METRICS = {"euclidean": "euclidean", "l2": "euclidean", "sqeuclidean": "sqeuclidean"}


@falling_back(_PAIRWISE)
def euclidean_distances(
    X: ArrayLike,
    Y: ArrayLike | None = None,
    *,
    Y_norm_squared: ArrayLike | None = None,
    squared: bool = False,
    X_norm_squared: ArrayLike | None = None,
) -> NDArray[Any]:
    """Euclidean distances of all rows, as ``sklearn.metrics.pairwise.euclidean_distances``.

    Parameters
    ----------
    X : array, shape (N, D)
    Y : array, shape (M, D), optional
        By default X.
    Y_norm_squared, X_norm_squared : array, optional
        Squared norms of the rows. Their shapes are checked; they are not used.
    squared : bool
        Leave out the root.

    Returns
    -------
    array, shape (N, M)
        float32 where both are; else float64.

    Raises
    ------
    ValueError
        Shapes do not fit, or values are not finite.

    Examples
    --------
    >>> from sosie.compat.sklearn import euclidean_distances
    >>> euclidean_distances([[0, 0], [3, 4]])
    array([[0., 5.],
           [5., 0.]])
    """
    a, b = _checked(X, Y)
    for name, norms, rows in (("X", X_norm_squared, a), ("Y", Y_norm_squared, b)):
        shapes = ((len(rows),), (len(rows), 1), (1, len(rows)))
        if norms is not None and np.shape(norms) not in shapes:
            raise ValueError(
                f"expected a norm for each of {len(rows)} rows of {name}, got {np.shape(norms)}"
            )
    return _euclidean_distances(a, b, squared=squared)


@falling_back(_PAIRWISE)
def cosine_similarity(
    X: ArrayLike,
    Y: ArrayLike | None = None,
    dense_output: bool = True,  # noqa: ARG001
) -> NDArray[Any]:
    """Cosine similarities of all rows, as ``sklearn.metrics.pairwise.cosine_similarity``.

    A matrix product, as there: sosie has nothing faster.

    Parameters
    ----------
    X : array, shape (N, D)
    Y : array, shape (M, D), optional
        By default X.
    dense_output : bool
        Of meaning for sparse matrices only.

    Returns
    -------
    array, shape (N, M)
        float32 where both are; else float64. 0 for a row of zeros.

    Raises
    ------
    ValueError
        Shapes do not fit, or values are not finite.

    Examples
    --------
    >>> from sosie.compat.sklearn import cosine_similarity
    >>> cosine_similarity([[1.0, 0.0], [0.0, 0.0]], [[3.0, 4.0]])
    array([[0.6],
           [0. ]])
    """
    a, b = _checked(X, Y)
    first = _directions(a)
    second = first if a is b else _directions(b)
    similarities: NDArray[Any] = first @ second.T
    return similarities


@falling_back(_PAIRWISE)
def cosine_distances(X: ArrayLike, Y: ArrayLike | None = None) -> NDArray[Any]:
    """One minus `cosine_similarity`, as ``sklearn.metrics.pairwise.cosine_distances``.

    The distances of X to itself have a diagonal of 0.

    Examples
    --------
    >>> from sosie.compat.sklearn import cosine_distances
    >>> cosine_distances([[1.0, 0.0]], [[3.0, 4.0]])
    array([[0.4]])
    """
    a, b = _checked(X, Y)
    least = 10 * np.finfo(a.dtype).eps
    for rows in (a,) if a is b else (a, b):
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        if (((norms < least) & (norms > 0)) | (norms == np.inf)).any():
            raise NotCovered("sosie takes no row for one without a direction, as is done there")
    with refused_is_not_covered():
        distances: NDArray[Any] = cdist(a, b, "cosine")
    if a is b:
        np.fill_diagonal(distances, 0)
    return distances


@falling_back(_PAIRWISE)
def pairwise_distances_argmin_min(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    axis: int = 1,
    metric: Any = "euclidean",
    metric_kwargs: dict[str, Any] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Nearest row of Y for every row of X, as in ``sklearn.metrics``.

    Parameters
    ----------
    X, Y : array, shape (N, D) and (M, D)
    axis : {1, 0}
        0: the nearest row of X for every row of Y.
    metric : {"euclidean", "l2", "sqeuclidean"}
        Others are not computed here.
    metric_kwargs : dict, optional
        ``squared``.

    Returns
    -------
    argmin : array of int, shape (N,)
    distances : array of float64, shape (N,)

    Raises
    ------
    ValueError
        Shapes do not fit, values are not finite, an option is unknown.

    Examples
    --------
    >>> from sosie.compat.sklearn import pairwise_distances_argmin_min
    >>> indices, distances = pairwise_distances_argmin_min([[0.0], [4.0]], [[1.0], [3.0]])
    >>> indices, distances
    (array([0, 1]), array([1., 1.]))
    """
    if axis not in (0, 1):
        raise NotCovered(f"sosie takes axis 0 and 1, got {axis!r}")
    options = dict(metric_kwargs or {})
    if metric == "euclidean" and options.pop("squared", False):
        metric = "sqeuclidean"
    a, b = _checked(X, Y)
    if axis == 0:
        a, b = b, a
    distances, indices = _arg_k_min(a, b, 1, metric, None, options, None, True)
    return indices[:, 0], distances[:, 0]


class ArgKmin:
    """Nearest neighbours, as scikit-learn's internal class of this name finds them."""

    @staticmethod
    def valid_metrics() -> list[str]:
        """Names of the metrics that `compute` knows."""
        return sorted(_METRICS)

    @staticmethod
    def is_usable_for(X: Any, Y: Any, metric: Any) -> bool:
        """Whether `compute` computes for these: dense arrays of one dtype, and a metric it knows.

        Examples
        --------
        >>> import numpy as np
        >>> from sosie.compat.sklearn import ArgKmin
        >>> ArgKmin.is_usable_for(np.eye(3), np.eye(3), "manhattan")
        False
        """
        try:
            _check_dense(X, Y)
        except NotCovered:
            return False
        return isinstance(metric, str) and metric in _METRICS

    @staticmethod
    def compute(
        X: NDArray[Any],
        Y: NDArray[Any],
        k: int,
        metric: str = "euclidean",
        chunk_size: int | None = None,
        metric_kwargs: dict[str, Any] | None = None,
        strategy: str | None = None,
        return_distance: bool = False,
    ) -> Any:
        """Indices of the k nearest rows of Y for every row of X, nearest first.

        Parameters
        ----------
        X, Y : array of float32 or float64, shape (N, D) and (M, D)
        k : int
            At most 1024 and M.
        metric : {"euclidean", "l2", "sqeuclidean"}
        chunk_size, strategy
            How the original shares its work out; of no meaning here.
        metric_kwargs : dict, optional
            Norms, which are not used.
        return_distance : bool
            Return the distances too.

        Returns
        -------
        array of int, shape (N, k), or tuple of distances, float64, and indices

        Raises
        ------
        ValueError
            Dtypes differ or are none of the two.
        NotCovered
            Sparse matrices, other metrics, more neighbours.

        Examples
        --------
        >>> import numpy as np
        >>> from sosie.compat.sklearn import ArgKmin
        >>> ArgKmin.compute(np.array([[0.0]]), np.array([[5.0], [2.0], [3.0]]), k=2)
        array([[1, 2]])
        """
        if X.dtype != Y.dtype or X.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"expected arrays of float32 or of float64, got {X.dtype} and {Y.dtype}"
            )
        return _arg_k_min(X, Y, k, metric, chunk_size, metric_kwargs, strategy, return_distance)


# --- Computation ----------------------------------------------------------------------------------


def _euclidean_distances(
    X: NDArray[Any],
    Y: NDArray[Any],
    X_norm_squared: NDArray[Any] | None = None,  # noqa: ARG001
    Y_norm_squared: NDArray[Any] | None = None,  # noqa: ARG001
    squared: bool = False,
) -> NDArray[Any]:
    """Distances of checked arrays."""
    _check_dense(X, Y)
    with refused_is_not_covered():
        distances: NDArray[Any] = cdist(X, Y, "sqeuclidean" if squared else "euclidean")
    return distances


def _directions(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows over their lengths; those of next to none stay as they are."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    norms[norms < 10 * np.finfo(rows.dtype).eps] = 1
    directions: NDArray[Any] = rows / norms[:, None]
    return directions


def _arg_k_min(
    X: NDArray[Any],
    Y: NDArray[Any],
    k: int,
    metric: str = "euclidean",
    chunk_size: int | None = None,  # noqa: ARG001
    metric_kwargs: dict[str, Any] | None = None,
    strategy: str | None = None,  # noqa: ARG001
    return_distance: bool = False,
) -> Any:
    """Indices, or distances and indices, of the nearest rows."""
    name = _METRICS.get(metric) if isinstance(metric, str) else None
    if name is None or set(metric_kwargs or ()) - {"X_norm_squared", "Y_norm_squared"}:
        raise NotCovered(
            f"sosie computes Euclidean distances here, got {metric!r} with {metric_kwargs}"
        )
    _check_dense(X, Y)
    with refused_is_not_covered():
        distances, indices = knn(X, Y, k, name)
    indices = indices.astype(np.intp, copy=False)
    return (distances.astype(np.float64, copy=False), indices) if return_distance else indices


# --- Checks ---------------------------------------------------------------------------------------


def _checked(X: Any, Y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as float arrays of one dtype; the same one where Y is X or None."""
    a = _real_array(X, "X")
    b = a if Y is None or Y is X else _real_array(Y, "Y")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"expected equally many columns, got shapes {a.shape} and {b.shape}")
    dtype = np.float32 if a.dtype == b.dtype == np.float32 else np.float64
    first = _finite(a, dtype, "X")
    return first, first if b is a else _finite(b, dtype, "Y")


def _real_array(X: Any, name: str) -> NDArray[Any]:
    if hasattr(X, "toarray") or hasattr(X, "dask"):
        raise NotCovered(f"sosie computes dense arrays, got {type(X)}")
    array = np.asarray(X)
    if array.dtype.kind == "c":
        raise ValueError(f"expected real numbers in {name}, got {array.dtype}")
    if array.dtype.kind not in "fiub":
        raise NotCovered(f"sosie computes arrays of real numbers, got {array.dtype}")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"expected {name} with 2 axes and at least one row and column, got {array.shape}"
        )
    return array


def _finite(array: NDArray[Any], dtype: Any, name: str) -> NDArray[Any]:
    array = array.astype(dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()  # a sum costs no array of its own
    if not np.isfinite(total) and not np.isfinite(array).all():
        raise ValueError(f"expected finite values in {name}, got NaN or infinity")
    return array


def _check_dense(X: Any, Y: Any) -> None:
    for array in (X, Y):
        if not isinstance(array, np.ndarray):
            raise NotCovered(f"sosie computes dense NumPy arrays, got {type(array)}")
    if X.dtype != Y.dtype or X.dtype not in (np.float32, np.float64):
        raise NotCovered(
            f"sosie computes arrays of float32 or of float64 here, got {X.dtype} and {Y.dtype}"
        )
