# SPDX-License-Identifier: Apache-2.0
"""CuPy's ``cdist`` of ``cupyx.scipy.spatial.distance``, without cuVS.

Covered are the metrics euclidean, sqeuclidean, cosine and minkowski with ``p=2``, in float32 and
float64; other dtypes are converted to float32, as there. Arrays may be of any library that
`sosie.cdist` computes.
"""

from __future__ import annotations

from typing import Any

from sosie.arrays import Array
from sosie.compat._coverage import NotCovered, refused_is_not_covered
from sosie.compat.scipy import _METRICS
from sosie.distance import cdist as distances

__all__ = ["cdist"]

DISTRIBUTION = "cupy"
VERSIONS = ">=13,<15"
SEAMS = {"cupyx.scipy.spatial.distance:cdist": "cdist"}

#: Metrics that the original has beyond these.
_OTHERS = (
    "canberra", "chebyshev", "cityblock", "correlation", "hamming", "hellinger", "jensenshannon",
    "kl_divergence", "matching", "russellrao",
)  # fmt: skip


def cdist(
    XA: Array, XB: Array, metric: str = "euclidean", out: Array | None = None, **kwargs: Any
) -> Array:
    """Distances of all rows of two matrices, as ``cupyx.scipy.spatial.distance.cdist``.

    Parameters
    ----------
    XA, XB : array, shape (N, D) and (M, D)
        Of one library.
    metric : str
        See the module.
    out : array, shape (N, M), optional
        Where the result goes.
    **kwargs
        ``p`` of minkowski.

    Returns
    -------
    array, shape (N, M)
        float32 or float64, as XA; ``out``, if that is given. A zero vector has the cosine
        distance 1.

    Raises
    ------
    ValueError
        Shapes do not fit, or the metric is unknown.
    TypeError
        The metric is no string.
    NotCovered
        Another metric of the original, or an array that `sosie.cdist` does not compute.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.cupyx import cdist
    >>> cdist(np.zeros((1, 2)), np.array([[3.0, 4.0]]))
    array([[5.]])
    """
    if not isinstance(metric, str):
        raise TypeError(f"expected metric to be a string, got {metric!r}")
    for name, matrix in (("XA", XA), ("XB", XB)):
        if matrix.ndim != 2:
            raise ValueError(f"expected {name} with 2 axes, got shape {tuple(matrix.shape)}")
    if XA.shape[1] != XB.shape[1]:
        raise ValueError(
            f"expected equally many columns, got shapes {tuple(XA.shape)} and {tuple(XB.shape)}"
        )
    name = _METRICS.get(metric.lower(), metric.lower())
    if name == "minkowski" and kwargs.get("p", 2) == 2:
        name = "euclidean"
    if name in (*_OTHERS, "minkowski"):
        raise NotCovered(f"sosie computes euclidean, sqeuclidean and cosine, got {metric!r}")
    if name not in ("euclidean", "sqeuclidean", "cosine"):
        raise ValueError(f"expected a metric that cupyx knows, got {metric!r}")
    with refused_is_not_covered():
        result = distances(_floating(XA), _floating(XB), name)
    if out is None:
        return result
    if tuple(out.shape) != tuple(result.shape):
        raise ValueError(f"expected out of shape {tuple(result.shape)}, got {tuple(out.shape)}")
    out[...] = result
    return out


def _floating(matrix: Array) -> Array:
    return (
        matrix if str(matrix.dtype).endswith(("float32", "float64")) else matrix.astype("float32")
    )
