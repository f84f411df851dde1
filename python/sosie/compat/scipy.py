# SPDX-License-Identifier: Apache-2.0
"""SciPy: ``cdist`` of ``scipy.spatial.distance``, in double precision as there.

Covered are the metrics euclidean, sqeuclidean, cosine, by any of SciPy's names for them, and
minkowski with ``p=2``, with weights and with ``out``. All else, callables and the other metrics, is
handed to SciPy, where it is installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sosie.compat._coverage import NotCovered, falling_back, refused_is_not_covered
from sosie.distance import cdist as distances

__all__ = ["cdist"]

DISTRIBUTION = "scipy"
VERSIONS = ">=1.17,<1.19"
SEAMS = {"scipy.spatial.distance:cdist": "cdist"}

_ALIASES = {
    "euclidean": ("euclidean", "euclid", "eu", "e"),
    "sqeuclidean": ("sqeuclidean", "sqeuclid", "sqe"),
    "cosine": ("cosine", "cos"),
    "minkowski": ("minkowski", "mi", "m", "pnorm"),
}
_METRICS = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}


@falling_back("scipy.spatial.distance")
def cdist(
    XA: ArrayLike,
    XB: ArrayLike,
    metric: Any = "euclidean",
    *,
    out: NDArray[np.float64] | None = None,
    **kwargs: Any,
) -> NDArray[np.float64]:
    """Distances of all rows of two matrices, as ``scipy.spatial.distance.cdist``.

    Parameters
    ----------
    XA, XB : array, shape (N, D) and (M, D)
        Anything that becomes an array of real numbers.
    metric : str or callable
        See the module for what is computed here.
    out : array of float64, shape (N, M), optional
        Where the result goes; C-contiguous.
    **kwargs
        ``w``, weights of the dimensions; ``p`` of minkowski.

    Returns
    -------
    array of float64, shape (N, M)
        ``out``, if that is given. As there, a zero vector has the cosine distance NaN.

    Raises
    ------
    ValueError
        Shapes do not fit, a metric or an option is unknown.
    TypeError
        The metric is neither a name nor a callable.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.scipy import cdist
    >>> cdist([[0, 0], [1, 0]], [[3, 4]], "sqeuclidean")
    array([[25.],
           [20.]])
    """
    a, b = np.asarray(XA), np.asarray(XB)
    for name, matrix in (("XA", a), ("XB", b)):
        if matrix.ndim != 2:
            raise ValueError(f"expected {name} with 2 axes, got shape {matrix.shape}")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"expected equally many columns, got shapes {a.shape} and {b.shape}")
    name, weights = _metric(metric, kwargs)
    for matrix in (a, b):
        if matrix.dtype.kind not in "fiub" or 0 in matrix.shape:
            raise NotCovered(
                f"sosie computes matrices of real numbers, got {matrix.dtype} of {matrix.shape}"
            )
    if out is not None and not _is_result(out, (a.shape[0], b.shape[0])):
        raise NotCovered("sosie writes to a C-contiguous float64 array of the result's shape")
    a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
    if name == "cosine":
        _check_lengths(a, b, weights)
    with refused_is_not_covered():
        result: NDArray[np.float64] = distances(a, b, name, weights=weights)
    if name == "cosine":
        _mark_zero_vectors(result, a, b, weights)
    if out is None:
        return result
    out[...] = result
    return out


def _metric(metric: Any, options: dict[str, Any]) -> tuple[str, NDArray[Any] | None]:
    """sosie's name for a metric, and the weights."""
    name = _METRICS.get(metric.lower()) if isinstance(metric, str) else None
    if name is None:
        raise NotCovered(f"sosie computes the metrics {', '.join(_ALIASES)}, got {metric!r}")
    options = dict(options)
    weights = options.pop("w", None)
    if name == "minkowski" and options.pop("p", 2) == 2:
        name = "euclidean"
    if options or name == "minkowski":
        raise NotCovered(f"sosie takes w, and p = 2 for minkowski, got {metric!r}, {options}")
    if weights is not None:
        weights = np.asarray(weights)
        if weights.dtype.kind not in "fiub":
            raise NotCovered(f"sosie takes real weights, got {weights.dtype}")
    return name, weights


def _is_result(out: Any, shape: tuple[int, int]) -> bool:
    return (
        isinstance(out, np.ndarray)
        and out.shape == shape
        and out.dtype == np.float64
        and out.flags.c_contiguous
        and out.flags.writeable
    )


def _check_lengths(
    a: NDArray[np.float64], b: NDArray[np.float64], weights: NDArray[Any] | None
) -> None:
    """Leave vectors to SciPy whose squared length is out of double precision's range."""
    for vectors in (a, b):
        weighted = vectors if weights is None else vectors * weights
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", weighted, vectors)
        if np.isinf(squares).any() or (weighted[squares == 0] != 0).any():
            raise NotCovered("sosie computes no angles of vectors whose squares are 0 or infinite")


def _mark_zero_vectors(
    distances: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weights: NDArray[Any] | None,
) -> None:
    """Write NaN, 0 / 0, to distances of vectors without a direction."""
    counted = slice(None) if weights is None else weights > 0
    distances[~a[:, counted].any(axis=1), :] = np.nan
    distances[:, ~b[:, counted].any(axis=1)] = np.nan
