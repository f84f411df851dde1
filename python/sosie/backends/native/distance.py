# SPDX-License-Identifier: Apache-2.0
"""The distance family by the compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie import _core
from sosie.arrays import Adapter, Argument, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype

__all__ = ["cdist_backward", "cdist_forward", "knn_backward", "knn_forward", "pack_vectors"]

_METRICS = {"euclidean": 0, "sqeuclidean": 1, "cosine": 2}


@dataclass(frozen=True)
class _Packed:
    """A set laid out for the kernels, and the set itself, ``(1, M, D)``."""

    vectors: Array
    layout: _core.PackedSet

    @property
    def nbytes(self) -> int:
        """Bytes of the layout."""
        return self.layout.nbytes


def cdist_forward(
    a: Array,
    b: Array | _Packed,
    metric: str,
    *,
    weights: NDArray[Any] | None = None,
    threads: int | None = None,
) -> Array:
    """Distances ``(B, N, M)`` of ``(B, N, D)`` and ``(B, M, D)``, or of what was packed."""
    library = adapter(a)
    a, vectors, packed = _batched(library, a), *_right_hand_side(library, b)
    shape = _sizes(a, vectors)
    distances = library.empty(a, shape[:3], compute_dtype(library.dtype(a)))
    _core.distance_forward(
        shape, library.argument(a), library.argument(vectors), _METRICS[metric],
        _plain(weights), packed, library.argument(distances), _count(library, threads),
    )  # fmt: skip
    return distances


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
    a, b, upstream, distances = (_batched(library, each) for each in (a, b, upstream, distances))

    def gradient(own: Array, other: Array, swapped: bool) -> Array:
        result = library.empty_like(own, gradient_dtype(library.dtype(own)))
        of_upstream, of_distances = library.argument(upstream), library.argument(distances)
        if swapped:
            of_upstream, of_distances = _transposed(of_upstream), _transposed(of_distances)
        _core.distance_backward(
            _sizes(own, other), library.argument(own), library.argument(other), _METRICS[metric],
            _plain(weights), of_upstream, of_distances, library.argument(result),
            _count(library, threads),
        )  # fmt: skip
        return result

    return gradient(a, b, False) if need_a else None, gradient(b, a, True) if need_b else None


def knn_forward(
    queries: Array,
    database: Array | _Packed,
    k: int,
    metric: str,
    *,
    exclude_self: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array]:
    """Distances and indices ``(N, k)`` of the nearest of ``(M, D)``, or of what was packed."""
    library = adapter(queries)
    rows, vectors, packed = _batched(library, queries), *_right_hand_side(library, database)
    shape = _sizes(rows, vectors)
    distances = library.empty(queries, (shape[1], k), compute_dtype(library.dtype(queries)))
    indices = np.empty((shape[1], k), np.int64)
    _core.nearest_neighbours(
        shape, library.argument(rows), library.argument(vectors), _METRICS[metric], k,
        exclude_self, packed, library.argument(distances)[0], indices.ctypes.data,
        _count(library, threads),
    )  # fmt: skip
    return distances, library.from_numpy(indices, queries)


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
    threads: int | None = None,
) -> tuple[Array | None, Array | None]:
    """Gradients ``(N, D)`` and ``(M, D)`` through the neighbours that were chosen."""
    library = adapter(queries)
    chosen = np.asarray(library.to_numpy(indices), np.int64)
    count, k = chosen.shape
    factors = _factors(library.to_numpy(upstream), library.to_numpy(distances), metric).ravel()
    rows = np.repeat(np.arange(count), k)
    # Edges by the vector they belong to: those of a query lie together as they are.
    order = np.argsort(chosen, axis=None, kind="stable")

    def gradient(own: Array, other: Array, edges: Any, starts: Any, partners: Any) -> Array:
        own, other = _batched(library, own), _batched(library, other)
        result = library.empty_like(own, gradient_dtype(library.dtype(own)))
        offsets = np.concatenate(([0], np.cumsum(starts))).astype(np.int64)
        ordered = np.ascontiguousarray(factors[edges])
        partners = np.ascontiguousarray(partners[edges])
        _core.edges_backward(
            _sizes(own, other), library.argument(own), library.argument(other), _METRICS[metric],
            offsets.ctypes.data, partners.ctypes.data, ordered.ctypes.data,
            library.argument(result), _count(library, threads),
        )  # fmt: skip
        return result[0]

    grad_queries = grad_database = None
    if need_queries:
        each = np.full(count, k)
        grad_queries = gradient(queries, database, slice(None), each, chosen.ravel())
    if need_database:
        times = np.bincount(chosen.ravel(), minlength=database.shape[0])
        grad_database = gradient(database, queries, order, times, rows)
    return grad_queries, grad_database


def pack_vectors(database: Array, metric: str) -> _Packed:
    """Panels that the kernels read, for any number of calls."""
    library = adapter(database)
    vectors = _batched(library, database)
    shape = _sizes(vectors, vectors)
    layout = _core.pack_vectors(
        shape, library.argument(vectors), _METRICS[metric], library.threads()
    )
    return _Packed(vectors, layout)


def _batched(library: Adapter, array: Array) -> Array:
    """View of ``(B, N, D)``; one set has a batch of 1."""
    array = library.kernel_ready(array)
    return array if array.ndim == 3 else array[None]


def _right_hand_side(library: Adapter, b: Array | _Packed) -> tuple[Array, _core.PackedSet | None]:
    if isinstance(b, _Packed):
        return b.vectors, b.layout
    return _batched(library, b), None


def _sizes(a: Array, b: Array) -> list[int]:
    return [int(a.shape[0]), int(a.shape[1]), int(b.shape[1]), int(a.shape[2])]


def _transposed(argument: Argument) -> Argument:
    address, code, (batch, rows, columns), in_bytes = argument
    return address, code, (batch, columns, rows), in_bytes


def _factors(upstream: NDArray[Any], distances: NDArray[Any], metric: str) -> NDArray[Any]:
    """What a difference of two vectors is multiplied with, float64."""
    g, d = upstream.astype(np.float64), distances.astype(np.float64)
    if metric == "sqeuclidean":
        return 2.0 * g
    if metric == "cosine":
        return g
    zero = d == 0.0
    factors: NDArray[Any] = np.where(zero, 0.0, g / np.where(zero, 1.0, d))
    return factors


def _plain(weights: NDArray[Any] | None) -> list[float]:
    return [] if weights is None else weights.tolist()


def _count(library: Adapter, threads: int | None) -> int:
    return library.threads() if threads is None else threads
