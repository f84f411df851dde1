# SPDX-License-Identifier: Apache-2.0
"""Distances between two sets of vectors: the matrix of all pairs, and nearest neighbours."""

from __future__ import annotations

import itertools
import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sosie.arrays import Array, adapter, check_alike, is_torch
from sosie.backends import executor, is_on_device
from sosie.backends._dtypes import compute_dtype
from sosie.backends._weights import check_dimension_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["KNNResult", "PackedVectors", "cdist", "knn", "pack"]

METRICS = ("euclidean", "sqeuclidean", "cosine")

#: Every query holds its neighbours in order while distances stream by; beyond this many the order
#: costs more than the distances, and sorting the matrix of distances serves better.
MOST_NEIGHBOURS = 1024


class KNNResult(NamedTuple):
    """Nearest neighbours of every query, nearest first.

    Attributes
    ----------
    distances : array of shape (N, k)
    indices : array of int64, shape (N, k)
    """

    distances: Any
    indices: Any


class PackedVectors:
    """A set of vectors, laid out once for many calls of :func:`cdist` and :func:`knn`.

    Made by :func:`pack`. It keeps a reference to the array, which must not be changed meanwhile.

    Attributes
    ----------
    vectors : array of shape (M, D)
        The set as it was given; for torch, without its history of gradients.
    metric : {"euclidean", "sqeuclidean", "cosine"}
        The metric it is laid out for.
    """

    def __init__(self, vectors: Array, metric: str) -> None:
        self.vectors = vectors
        self.metric = metric
        self._layouts: dict[str, Any] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Number of vectors and of dimensions, ``(M, D)``."""
        count, dimensions = self.vectors.shape
        return int(count), int(dimensions)

    @property
    def dtype(self) -> Any:
        """The array's dtype."""
        return self.vectors.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the layout that is in use; some executors use the array itself."""
        return int(self.layout().nbytes)

    def layout(self) -> Any:
        """What the executor in use made of the set."""
        module = executor(self.vectors)
        if module.__name__ not in self._layouts:
            self._layouts[module.__name__] = module.pack_vectors(self.vectors, self.metric)
        return self._layouts[module.__name__]

    def __repr__(self) -> str:
        return (
            f"PackedVectors(shape={self.shape}, dtype={self.dtype}, metric={self.metric!r}, "
            f"nbytes={self.nbytes})"
        )


def cdist(
    a: Array,
    b: Array | PackedVectors,
    metric: str = "euclidean",
    *,
    weights: Array | Sequence[float] | None = None,
) -> Any:
    """Distance of every vector of one set to every vector of another.

    Parameters
    ----------
    a : array of shape (..., N, D)
        NumPy array, torch tensor or CuPy array: uint8, uint16, float16, bfloat16, float32 (computed
        in float32) or float64 (computed in float64). Any strides.
    b : array of shape (..., M, D), or PackedVectors
        Of the same library and dtype. Leading axes broadcast, without a copy.
    metric : {"euclidean", "sqeuclidean", "cosine"}
        ``sqrt(sum_k w_k (a_k - b_k)^2)``, the same without the root, or one minus the cosine of the
        angle (with weights: by the inner product ``sum_k w_k a_k b_k``). A zero vector has the
        cosine 0, hence the distance 1, with every vector.
    weights : sequence of float or array of shape (D,), optional
        Weights of the dimensions, finite and not negative. Where they lie on a device nobody waits
        to look at them: one that is not allowed makes distances NaN.

    Returns
    -------
    array of shape (..., N, M)
        float64 for float64 sets, else float32. Differences are taken before anything is squared, so
        that near pairs are exact wherever the origin lies: equal vectors are exactly 0 apart, other
        distances have a relative error of some 1e-6 in float32, on CUDA devices below 2e-5. A
        vector with a NaN has the distance NaN to all. Torch tensors are differentiable in a and b,
        twice; where a Euclidean distance is 0 its gradient is 0, and so is that of a zero vector's
        cosine distance.

    Raises
    ------
    TypeError
        Libraries or dtypes differ or are not supported.
    ValueError
        Shapes do not fit, vectors have no dimensions, weights are negative or not finite, there is
        no such metric, or b was packed for another one.

    See Also
    --------
    knn : the nearest vectors, without the matrix.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> a = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> b = np.array([[3.0, 4.0], [2.0, 0.0]])
    >>> sosie.cdist(a, b)
    array([[5.        , 2.        ],
           [4.47213595, 1.        ]])
    >>> sosie.cdist(a, b, "sqeuclidean", weights=[1.0, 0.0])
    array([[9., 4.],
           [4., 1.]])
    """
    check_metric(metric)
    if is_torch(a):
        operators = _torch_operators()
        if isinstance(b, PackedVectors) and operators.is_watched(a):
            _check_packed(b, metric, weights)
            b = b.vectors
    if isinstance(b, PackedVectors):
        return _cdist_packed(a, b, metric, weights)
    return _cdist(a, b, metric, weights)


def knn(
    queries: Array,
    database: Array | PackedVectors,
    k: int,
    metric: str = "euclidean",
    *,
    exclude_self: bool = False,
) -> KNNResult:
    """Find the k nearest vectors of a database for every query; the matrix is never formed.

    Parameters
    ----------
    queries : array of shape (N, D)
        Libraries and dtypes as for :func:`cdist`.
    database : array of shape (M, D), or PackedVectors
        Of the same library and dtype.
    k : int
        From 1 to 1024, at most M.
    metric : {"euclidean", "sqeuclidean", "cosine"}
        As for :func:`cdist`.
    exclude_self : bool
        Query i does not get vector i of the database: for neighbours within one set, or of its
        first N vectors. Needs ``N <= M`` and ``k <= M - 1``.

    Returns
    -------
    distances : array of shape (N, k)
        Ascending. float64 for float64 sets, else float32. Torch tensors are differentiable, twice,
        in queries and database, through the neighbours that were chosen.
    indices : array of int64, shape (N, k)
        Equal distances have the lower index first. A vector with a NaN is no neighbour unless
        nothing else is left: such ones come last, in the order of their indices, with the
        distance NaN.

    Raises
    ------
    TypeError
        Libraries or dtypes differ or are not supported, or k is not a whole number.
    ValueError
        Shapes do not fit, vectors have no dimensions, k is out of range, there is no such metric,
        or the database was packed for another one.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> queries, database = np.array([[1.0], [3.0]]), np.array([[0.0], [2.0], [5.0]])
    >>> distances, indices = sosie.knn(queries, database, k=2)
    >>> distances
    array([[1., 1.],
           [1., 2.]])
    >>> indices
    array([[0, 1],
           [1, 2]])
    """
    check_metric(metric)
    if is_torch(queries):
        operators = _torch_operators()
        if isinstance(database, PackedVectors) and operators.is_watched(queries):
            _check_packed(database, metric, None)
            database = database.vectors
    if isinstance(database, PackedVectors):
        return KNNResult(*_knn_packed(queries, database, k, metric, exclude_self))
    return KNNResult(*_knn(queries, database, k, metric, exclude_self))


def pack(database: Array, metric: str = "euclidean") -> PackedVectors:
    """Lay a set of vectors out once, for many calls of :func:`cdist` and :func:`knn` with it.

    Parameters
    ----------
    database : array of shape (M, D)
        Libraries and dtypes as for :func:`cdist`. It must not be changed while the result is used.
        Gradients do not reach it through the result; those of the queries do.
    metric : {"euclidean", "sqeuclidean", "cosine"}
        The metric to use it with.

    Returns
    -------
    PackedVectors

    Raises
    ------
    TypeError
        The array is of no known library, or its dtype is not supported.
    ValueError
        It is not of shape (M, D) with D at least 1, or there is no such metric.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> database = np.arange(12, dtype=np.float32).reshape(4, 3)
    >>> packed = sosie.pack(database)
    >>> packed.shape
    (4, 3)
    >>> sosie.knn(database[:1], packed, k=2).indices
    array([[0, 1]])
    """
    check_metric(metric)
    check_alike(database, database)
    if database.ndim != 2 or database.shape[1] == 0:
        raise ValueError(
            "expected a database of shape (vectors, dimensions) with at least one dimension, "
            f"got {tuple(database.shape)}"
        )
    packed = PackedVectors(database.detach() if is_torch(database) else database, metric)
    packed.layout()
    return packed


def _torch_operators() -> Any:
    """The torch side, imported when the first tensor comes.

    The import also tells compilers to take `_cdist` and `_knn` as they are. They trace what calls
    them, and warn of a cache here.
    """
    from sosie.torch import distance as operators

    return operators


# --- All pairs ------------------------------------------------------------------------------------


def _cdist(a: Array, b: Array, metric: str, weights: Array | Sequence[float] | None) -> Any:
    batch = _checked_batch(a, b)
    weights = _checked_weights(weights, a)
    if is_torch(a):
        operators = _torch_operators()

        def compute(a: Array, b: Array) -> Array:
            return operators.cdist(a, b, metric, weights)
    else:

        def compute(a: Array, b: Array) -> Array:
            return executor(a).cdist_forward(a, b, metric, weights=weights)

    if all(size == 1 for size in b.shape[:-2]) and _is_one_axis(a, a.ndim - 1):
        # One set on the right: all vectors on the left are rows of one matrix.
        b = b.reshape(1, *b.shape[-2:])
        distances = compute(a.reshape(1, math.prod(a.shape[:-1]), a.shape[-1]), b)
        return distances.reshape(*batch, a.shape[-2], b.shape[-2])
    shape = (*batch, *a.shape[-2:])
    library = adapter(a)
    a = library.broadcast_to(a, shape)
    b = library.broadcast_to(b, (*batch, *b.shape[-2:]))
    return _over_batches(a, b, compute)


def _cdist_packed(
    a: Array, b: PackedVectors, metric: str, weights: Array | Sequence[float] | None
) -> Any:
    _check_packed(b, metric, weights)
    batch = _checked_batch(a, b.vectors)

    def compute(a: Array) -> Array:
        if not _is_one_axis(a, a.ndim - 1):
            return _stack(a, [compute(part) for part in a])
        rows = a.reshape(1, math.prod(a.shape[:-1]), a.shape[-1])
        distances = executor(a).cdist_forward(rows, b.layout(), metric)
        return distances.reshape(*a.shape[:-1], b.shape[0])

    return compute(a).reshape(*batch, a.shape[-2], b.shape[0])


def _over_batches(a: Array, b: Array, compute: Callable[[Array, Array], Array]) -> Array:
    """Distances of ``(*batch, N, D)`` and ``(*batch, M, D)`` by a function of one batch axis.

    Batch axes become one where both can be walked with one stride. Else, as with shapes
    ``(5, 1, N, D)`` and ``(1, 3, M, D)``, the first is taken apart: the sets are not copied.
    """
    batch = a.shape[:-2]
    if not (_is_one_axis(a, len(batch)) and _is_one_axis(b, len(batch))):
        parts = [_over_batches(a[i], b[i], compute) for i in range(batch[0])]
        return _stack(a, parts)
    count = math.prod(batch)
    distances = compute(
        a.reshape(count, *a.shape[-2:]),
        b.reshape(count, *b.shape[-2:]),
    )
    return distances.reshape(*batch, a.shape[-2], b.shape[-2])


def _stack(like: Array, parts: list[Array]) -> Array:
    if is_torch(like):
        return _torch_operators().stack(parts)
    return adapter(like).module.stack(parts)


def _is_one_axis(array: Array, count: int) -> bool:
    """Whether the first ``count`` axes can be walked with one stride."""
    sizes = array.shape[:count]
    if count < 2 or any(size == 0 for size in sizes):
        return True
    strides = (array.stride() if is_torch(array) else array.strides)[:count]
    axes = [axis for axis in zip(sizes, strides, strict=True) if axis[0] != 1]
    return all(
        outer_stride == size * stride
        for (_, outer_stride), (size, stride) in itertools.pairwise(axes)
    )


# --- Neighbours -----------------------------------------------------------------------------------


def _knn(
    queries: Array, database: Array, k: int, metric: str, exclude_self: bool
) -> tuple[Any, Any]:
    k = _checked_neighbours(queries, database, k, exclude_self)
    if is_torch(queries):
        distances, indices = _torch_operators().knn(queries, database, k, metric, exclude_self)
    else:
        distances, indices = executor(queries).knn_forward(
            queries, database, k, metric, exclude_self=exclude_self
        )
    return distances, indices


def _knn_packed(
    queries: Array, database: PackedVectors, k: int, metric: str, exclude_self: bool
) -> tuple[Any, Any]:
    _check_packed(database, metric, None)
    k = _checked_neighbours(queries, database.vectors, k, exclude_self)
    distances, indices = executor(queries).knn_forward(
        queries, database.layout(), k, metric, exclude_self=exclude_self
    )
    return distances, indices


# --- Checks ---------------------------------------------------------------------------------------


def check_metric(metric: str) -> None:
    """Raise ValueError unless there is such a metric."""
    if metric in METRICS:
        return
    from difflib import get_close_matches

    near = get_close_matches(str(metric).lower(), METRICS, n=2, cutoff=0.5)
    question = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(
        f"expected a metric out of {', '.join(map(repr, METRICS))}, got {metric!r}{question}"
    )


def _check_packed(
    packed: PackedVectors, metric: str, weights: Array | Sequence[float] | None
) -> None:
    if packed.metric != metric:
        raise ValueError(
            f"expected a set packed for the metric {metric!r}, got one for {packed.metric!r}"
        )
    if weights is not None:
        raise ValueError("expected no weights with packed vectors: they are packed without")


def _checked_batch(a: Array, b: Array) -> tuple[int, ...]:
    """Leading axes of the result."""
    check_alike(a, b, "a and b")
    shapes = f"got {tuple(a.shape)} and {tuple(b.shape)}"
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError(f"expected a and b of shapes (..., N, D) and (..., M, D), {shapes}")
    if a.shape[-1] != b.shape[-1] or a.shape[-1] == 0:
        raise ValueError(f"expected vectors of equally many dimensions, at least one, {shapes}")
    count = max(a.ndim, b.ndim) - 2
    batch_a = (1,) * (count + 2 - a.ndim) + tuple(a.shape[:-2])
    batch_b = (1,) * (count + 2 - b.ndim) + tuple(b.shape[:-2])
    batch = []
    for own, other in zip(batch_a, batch_b, strict=True):
        if own not in (other, 1) and other != 1:
            raise ValueError(f"expected leading axes of a and b that broadcast, {shapes}")
        batch.append(other if own == 1 else own)
    result = (*batch, a.shape[-2], b.shape[-2])
    if math.prod(result) * np.dtype(compute_dtype(adapter(a).dtype(a))).itemsize >= 2**63:
        raise ValueError(f"expected a result that memory can address, got shape {result}")
    return tuple(batch)


def _checked_weights(weights: Array | Sequence[float] | None, a: Array) -> Array | None:
    """Weights as float64 of a's library. The values of a tensor are checked where they are read."""
    if weights is None:
        return None
    vector: Array
    if is_torch(a):
        vector = _torch_operators().weights_beside(weights, a)
    elif is_torch(weights):
        raise TypeError("expected weights of the vectors' library, got a torch tensor")
    elif is_on_device(a):
        vector = _weights_on_device(weights, a)
    else:
        vector = np.asarray(weights, np.float64)
        check_dimension_weights(vector)
    if tuple(vector.shape) != (a.shape[-1],):
        raise ValueError(
            f"expected weights of shape ({a.shape[-1]},), one per dimension, "
            f"got {tuple(vector.shape)}"
        )
    return vector


def _weights_on_device(weights: Array | Sequence[float], a: Array) -> Array:
    """Weights beside CuPy arrays. Those that lie there are not looked at: that would be to wait."""
    library = adapter(a)
    if isinstance(weights, type(a)):
        if weights.device != a.device:
            raise ValueError(
                "expected weights on the device of the vectors, "
                f"got {weights.device} and {a.device}"
            )
        return library.contiguous(weights, "float64")
    vector = np.asarray(weights, np.float64)
    check_dimension_weights(vector)
    return library.from_numpy(vector, a)


def _checked_neighbours(queries: Array, database: Array, k: int, exclude_self: bool) -> int:
    """The number of neighbours, after all checks."""
    check_alike(queries, database, "queries and database")
    shapes = f"got {tuple(queries.shape)} and {tuple(database.shape)}"
    if queries.ndim != 2 or database.ndim != 2:
        raise ValueError(f"expected queries and database of shapes (N, D) and (M, D), {shapes}")
    if queries.shape[1] != database.shape[1] or queries.shape[1] == 0:
        raise ValueError(f"expected vectors of equally many dimensions, at least one, {shapes}")
    if exclude_self and queries.shape[0] > database.shape[0]:
        raise ValueError(
            "expected no more queries than vectors in the database with exclude_self: "
            f"query i is vector i; {shapes}"
        )
    try:
        k = operator.index(k)
    except TypeError:
        raise TypeError(f"expected k to be a whole number, got {k!r}") from None
    available = database.shape[0] - bool(exclude_self)
    if not 1 <= k <= min(available, MOST_NEIGHBOURS):
        raise ValueError(
            f"expected k from 1 to {MOST_NEIGHBOURS} and at most the {available} vectors "
            f"{'other than the query itself' if exclude_self else 'of the database'}, got {k}"
        )
    return k
