# SPDX-License-Identifier: Apache-2.0
"""The distance family by Numba's kernels.

NumPy reads blocks of vectors out of the sets, as float64, and writes results; so any dtype and
strides will do. Everything is computed in float64: this executor is for machines without compiled
kernels, and what it computes is then right at any offset, scale and length. Blocks depend on the
sizes alone, and each writes to places of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sosie.arrays import Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype
from sosie.backends.numba._distance_kernels import (
    BLOCK,
    add_differences,
    add_squares,
    keep_nearest,
)
from sosie.backends.numba._tasks import run_tasks

__all__ = ["cdist_backward", "cdist_forward", "knn_backward", "knn_forward", "pack_vectors"]

#: Columns of a tile of distances; all tiles are as wide, so that equal pairs go through equal sums.
_COLUMNS = 128
#: Rows for which a tile's columns are read once: reading them is then a small part.
_ROWS = 512
#: Rows of a block of gradients, for which all partners are read once.
_GRADIENT_ROWS = 64
#: Numbers that neighbours gathered from the database may be at a time, unless one query has more.
_GATHERED = 1 << 20


# --- The executor's functions ---------------------------------------------------------------------


def cdist_forward(
    a: Array,
    b: Array,
    metric: str,
    *,
    weights: NDArray[Any] | None = None,
    threads: int | None = None,
) -> Array:
    """Distances ``(B, N, M)`` of ``(B, N, D)`` and ``(B, M, D)``, or of what was packed."""
    library = adapter(a)
    rows, columns = _Vectors(library, a, metric, weights), _Vectors(library, b, metric, weights)
    shape = (rows.batch, rows.count, columns.count)
    result = library.empty(a, shape, compute_dtype(library.dtype(a)))
    target = library.to_numpy(result)

    def compute(task: tuple[int, slice, slice]) -> None:
        n, i, j = task
        with _quiet():
            tile = _distances(rows.read(n, i), columns.read(n, j), metric, rows.weights)
            target[n, i, j] = tile[:, : j.stop - j.start]

    tasks = [
        (n, i, j)
        for n in range(rows.batch)
        for i in _blocks(rows.count, _ROWS)
        for j in _blocks(columns.count, _COLUMNS)
    ]
    run_tasks(compute, tasks, library, threads)
    return result


def cdist_backward(
    a: Array,
    b: Array,
    upstream: Array,
    distances: Array,
    metric: str,
    *,
    weights: NDArray[Any] | None = None,
    need_a: bool = True,
    need_b: bool = True,
    threads: int | None = None,
) -> tuple[Array | None, Array | None]:
    """Gradients ``(B, N, D)`` and ``(B, M, D)``."""
    library = adapter(a)
    rows, columns = _Vectors(library, a, metric, weights), _Vectors(library, b, metric, weights)
    g, d = _numpy(library, upstream), _numpy(library, distances)
    grad_a = grad_b = None
    if need_a:
        grad_a = _set_gradient(rows, columns, g, d, threads)
    if need_b:
        grad_b = _set_gradient(columns, rows, g.transpose(0, 2, 1), d.transpose(0, 2, 1), threads)
    return grad_a, grad_b


def knn_forward(
    queries: Array,
    database: Array,
    k: int,
    metric: str,
    *,
    exclude_self: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array]:
    """Distances and indices ``(N, k)`` of the nearest of ``(M, D)``, or of what was packed."""
    library = adapter(queries)
    rows, columns = _Vectors(library, queries, metric), _Vectors(library, database, metric)
    nearest, indices = np.empty((rows.count, k)), np.empty((rows.count, k), np.int64)

    def compute(i: slice) -> None:
        own = i.start if exclude_self else -1
        found = np.zeros(i.stop - i.start, np.int64)
        with _quiet():
            block = rows.read(0, i)
            for j in _blocks(columns.count, _COLUMNS):
                tile = _distances(block, columns.read(0, j), metric, rows.weights)
                keep_nearest(tile, j.stop - j.start, j.start, own, nearest[i], indices[i], found)
        for row in np.flatnonzero(found < k):
            count, query = int(found[row]), i.start + int(row)
            nearest[query, count:] = np.nan
            taken = np.append(indices[query, :count], query if exclude_self else -1)
            # Of the first k + 1 indices at most count + 1 are taken.
            indices[query, count:] = np.setdiff1d(np.arange(k + 1), taken)[: k - count]

    run_tasks(compute, _blocks(rows.count, _ROWS), library, threads)
    result = library.empty(queries, nearest.shape, compute_dtype(library.dtype(queries)))
    with _quiet():
        library.to_numpy(result)[...] = nearest
    return result, library.from_numpy(indices, queries)


def knn_backward(
    queries: Array,
    database: Array,
    upstream: Array,
    distances: Array,
    indices: Array,
    metric: str,
    *,
    need_queries: bool = True,
    need_database: bool = True,
    threads: int | None = None,  # noqa: ARG001 - it takes a small part of what the search took
) -> tuple[Array | None, Array | None]:
    """Gradients ``(N, D)`` and ``(M, D)`` through the neighbours that were chosen."""
    library = adapter(queries)
    rows, columns = _Vectors(library, queries, metric), _Vectors(library, database, metric)
    g, d, chosen = (_numpy(library, array) for array in (upstream, distances, indices))
    grad_queries = _Gradient(rows) if need_queries else None
    grad_database = _Gradient(columns) if need_database else None
    sums = np.zeros((columns.count, rows.padded)) if need_database else np.empty((0, 0))
    along = np.zeros(columns.count)
    with _quiet():
        for i in _blocks(rows.count, max(1, _GATHERED // (chosen.shape[1] * rows.padded))):
            own, near = rows.read(0, i), columns.read(0, chosen[i].ravel())
            near_lengths = near.lengths.reshape(chosen[i].shape)
            factors = _factors(g[i], d[i], own.lengths[:, None], near_lengths, metric)
            parts = near.values.reshape(*chosen[i].shape, -1)
            parts = factors[:, :, None] * (own.values[:, None] - parts)
            shares = factors * d[i]
            if grad_queries is not None:
                grad_queries.write(0, i, own, parts.sum(1), shares.sum(1))
            if grad_database is not None:
                np.subtract.at(sums, chosen[i], parts)
                np.add.at(along, chosen[i], shares)
        if grad_database is not None:
            for j in _blocks(columns.count, _ROWS):
                grad_database.write(0, j, columns.read(0, j), sums[j], along[j])
    return (
        None if grad_queries is None else grad_queries.finish(),
        None if grad_database is None else grad_database.finish(),
    )


def pack_vectors(database: Array, metric: str) -> Array:  # noqa: ARG001
    """The array itself: tiles are read out of it as they are needed."""
    return database


# --- Vectors --------------------------------------------------------------------------------------


class _Block(NamedTuple):
    """Some vectors of a set, (N, D), contiguous, with zeros up to a multiple of four dimensions.

    For the cosine they are multiplied by the roots of the weights and divided by their lengths.
    """

    values: NDArray[np.float64]
    lengths: NDArray[np.float64]  # (N,); 1 for other metrics


class _Vectors:
    """A set of vectors, ``(B, N, D)`` or ``(N, D)`` with B = 1, as NumPy holds it."""

    def __init__(
        self, library: Adapter, array: Array, metric: str, weights: NDArray[Any] | None = None
    ) -> None:
        self.library, self.array, self.metric = library, array, metric
        values = _numpy(library, array)
        self.values = values if values.ndim == 3 else values[None]
        self.batch, self.count, self.dims = self.values.shape
        self.padded = -(-self.dims // 4) * 4
        self.roots: NDArray[Any] | None = None
        self.weights = np.empty(0)  # all are 1
        if weights is not None and metric == "cosine":
            self.roots = np.sqrt(weights)
        elif weights is not None:
            self.weights = np.zeros(self.padded)
            self.weights[: self.dims] = weights

    def read(self, n: int, which: Any) -> _Block:
        """Vectors of batch ``n`` by a slice or by their indices."""
        given = self.values[n, which]
        values = np.zeros((given.shape[0], self.padded))
        values[:, : self.dims] = given
        if self.metric != "cosine":
            return _Block(values, np.ones(values.shape[0]))
        if self.roots is not None:
            values[:, : self.dims] *= self.roots
        lengths = np.sqrt((values * values).sum(1))
        values /= np.where(lengths == 0.0, 1.0, lengths)[:, None]
        return _Block(values, lengths)


def _distances(
    rows: _Block, columns: _Block, metric: str, weights: NDArray[Any]
) -> NDArray[np.float64]:
    """Distances of all pairs, (N, _COLUMNS); columns beyond those given hold anything."""
    count, padded = columns.values.shape
    panel = np.zeros((padded, _COLUMNS))
    panel[:, :count] = columns.values.T
    tile = np.empty((rows.values.shape[0], _COLUMNS))
    add_squares(rows.values, panel, weights, tile)
    if metric == "euclidean":
        np.sqrt(tile, out=tile)
    elif metric == "cosine":
        tile *= 0.5
        tile[:, :count][_has_zero(rows.lengths[:, None], columns.lengths)] = 1.0
    return tile


def _has_zero(lengths: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether one of two vectors is zero, and the other holds no NaN."""
    zero: NDArray[np.bool_] = np.minimum(lengths, others) == 0.0
    return zero


# --- Gradients ------------------------------------------------------------------------------------
#
# With the factor f = dL/dd / d | 2 dL/dd | dL/dd of a pair (euclidean | sqeuclidean | cosine) the
# gradient of a vector x is w sum f (x - y); for the cosine, of unit vectors u and v, it is
# (sum f (u - v) - (sum f d) u) / |x|, times the roots of the weights that u and v hold as well.


def _factors(
    g: NDArray[Any], d: NDArray[Any], lengths: NDArray[Any], others: NDArray[Any], metric: str
) -> NDArray[np.float64]:
    g = g.astype(np.float64, order="C")
    if metric == "sqeuclidean":
        return 2.0 * g
    if metric == "euclidean":
        return np.where(d == 0.0, 0.0, g / np.where(d == 0.0, 1.0, d))
    return np.where(_has_zero(lengths, others), 0.0, g)


def _set_gradient(
    rows: _Vectors, partners: _Vectors, g: NDArray[Any], d: NDArray[Any], threads: int | None
) -> Array:
    """Gradient of the first set from dL/dd and d, (B, N, M)."""
    gradient = _Gradient(rows)

    def compute(task: tuple[int, slice]) -> None:
        n, i = task
        with _quiet():
            own = rows.read(n, i)
            sums, along = np.zeros(own.values.shape), np.zeros(own.values.shape[0])
            for j in _blocks(partners.count, BLOCK):
                near = partners.read(n, j)
                factors = _factors(
                    g[n, i, j], d[n, i, j], own.lengths[:, None], near.lengths, rows.metric
                )
                along += (factors * d[n, i, j]).sum(1)
                add_differences(own.values, near.values, factors, sums)
            gradient.write(n, i, own, sums, along)

    tasks = [(n, i) for n in range(rows.batch) for i in _blocks(rows.count, _GRADIENT_ROWS)]
    run_tasks(compute, tasks, rows.library, threads)
    return gradient.finish()


class _Gradient:
    """The gradient of a set in its library, and its dtype if that has fractions."""

    def __init__(self, vectors: _Vectors) -> None:
        self.vectors = vectors
        library, dtype = vectors.library, vectors.library.dtype(vectors.array)
        self.result = library.empty_like(vectors.array, gradient_dtype(dtype))
        # bfloat16 alone has no NumPy dtype: its values are a copy, in float32.
        self.is_copy = dtype == "bfloat16"
        self.values = library.to_numpy(self.result)

    def write(
        self, n: int, which: slice, block: _Block, sums: NDArray[Any], along: NDArray[Any]
    ) -> None:
        """Store what sums of f (x - y) and of f d make, for some vectors of batch ``n``."""
        vectors = self.vectors
        if vectors.metric == "cosine":
            sums = sums - along[:, None] * block.values
            sums /= np.where(block.lengths == 0.0, 1.0, block.lengths)[:, None]
        values = sums[:, : vectors.dims]
        if vectors.roots is not None:
            values = values * vectors.roots
        elif vectors.weights.size:
            values = values * vectors.weights[: vectors.dims]
        batches = self.values if self.values.ndim == 3 else self.values[None]
        batches[n, which] = values

    def finish(self) -> Array:
        if self.is_copy:
            self.result[...] = self.vectors.library.from_numpy(self.values, self.result)
        return self.result


# --- Blocks and arrays ----------------------------------------------------------------------------


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _numpy(library: Adapter, array: Array) -> NDArray[Any]:
    return library.to_numpy(library.kernel_ready(array))


def _quiet() -> Any:
    """Infinity and NaN are results like others, and beyond the largest half lies infinity."""
    return np.errstate(invalid="ignore", over="ignore")
