# SPDX-License-Identifier: Apache-2.0
"""The distance family by its float64 definition."""

from __future__ import annotations

from typing import Any

import numpy as np

from sosie.arrays import Adapter, Array, adapter
from sosie.backends.reference._results import give_back, gradient
from sosie.reference import distance as definition

__all__ = ["cdist_backward", "cdist_forward", "knn_backward", "knn_forward", "pack_vectors"]


def cdist_forward(
    a: Array,
    b: Array,
    metric: str,
    *,
    weights: Array | None = None,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Distances ``(B, N, M)`` of ``(B, N, D)`` and ``(B, M, D)``, or of what was packed."""
    library = adapter(a)
    distances = definition.cdist_forward(
        _numpy(library, a), _numpy(library, b), metric, weights=weights
    )
    return give_back(library, distances, a)


def cdist_backward(
    a: Array,
    b: Array,
    upstream: Array,
    distances: Array,  # noqa: ARG001
    metric: str,
    *,
    weights: Array | None = None,
    need_a: bool = True,
    need_b: bool = True,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients ``(B, N, D)`` and ``(B, M, D)``."""
    library = adapter(a)
    grad_a, grad_b = definition.cdist_backward(
        _numpy(library, a), _numpy(library, b), _numpy(library, upstream), metric,
        weights=weights,
    )  # fmt: skip
    return gradient(library, grad_a, a, need_a), gradient(library, grad_b, b, need_b)


def knn_forward(
    queries: Array,
    database: Array,
    k: int,
    metric: str,
    *,
    exclude_self: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array]:
    """Distances and indices ``(N, k)`` of the nearest of ``(M, D)``, or of what was packed."""
    library = adapter(queries)
    distances, indices = definition.knn_forward(
        _numpy(library, queries), _numpy(library, database), k, metric, exclude_self=exclude_self
    )
    return give_back(library, distances, queries), library.from_numpy(indices, queries)


def knn_backward(
    queries: Array,
    database: Array,
    upstream: Array,
    distances: Array,  # noqa: ARG001
    indices: Array,
    metric: str,
    *,
    need_queries: bool = True,
    need_database: bool = True,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients ``(N, D)`` and ``(M, D)`` through the neighbours that were chosen."""
    library = adapter(queries)
    grad_queries, grad_database = definition.knn_backward(
        _numpy(library, queries), _numpy(library, database), _numpy(library, upstream),
        library.to_numpy(indices), metric,
    )  # fmt: skip
    return (
        gradient(library, grad_queries, queries, need_queries),
        gradient(library, grad_database, database, need_database),
    )


def pack_vectors(database: Array, metric: str) -> Array:  # noqa: ARG001
    """The array itself: nothing is gained by another layout here."""
    return database


def _numpy(library: Adapter, array: Array) -> np.ndarray[Any, Any]:
    return library.to_numpy(library.kernel_ready(array))
