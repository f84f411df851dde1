# SPDX-License-Identifier: Apache-2.0
"""Operators of the distance family for torch tensors.

Sets of vectors are ``(B, N, D)`` and ``(B, M, D)``, any strides, of equal dtypes. Half precision
and integers are computed in float32; results are float64 for float64 sets, else float32. Everything
is differentiable in both sets, any number of times: first derivatives are kernels, higher ones are
composed of plain torch operations on a few rows at a time.

The functions here trust their arguments; `sosie.cdist` and `sosie.knn` check them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sosie.backends import executor
from sosie.backends._weights import check_dimension_weights
from sosie.torch._batching import map_into_batch, map_one_by_one
from sosie.torch._gradients import computed_dtype, fake_gradient, or_empty, pull_back_gradient
from sosie.torch._register import Operator, is_watched, register

__all__ = ["cdist", "is_watched", "knn", "stack", "weights_beside"]

#: Numbers in a temporary of a second derivative, unless one row needs more: 16 MB of float32.
_MOST_AT_A_TIME = 1 << 22


def cdist(a: Tensor, b: Tensor, metric: str, weights: Tensor | None = None) -> Tensor:
    """Distances of all pairs, shape ``(B, N, M)``.

    Parameters
    ----------
    a : Tensor, shape (B, N, D)
    b : Tensor, shape (B, M, D)
        Differentiable, both.
    metric : {"euclidean", "sqeuclidean", "cosine"}
    weights : Tensor of float64, shape (D,), optional
        Constants.
    """
    result: Tensor = _cdist(a, b, weights, metric)
    return result


def knn(
    queries: Tensor, database: Tensor, k: int, metric: str, exclude_self: bool = False
) -> tuple[Tensor, Tensor]:
    """Distances and indices of the nearest neighbours, both ``(N, k)``.

    Parameters
    ----------
    queries : Tensor, shape (N, D)
    database : Tensor, shape (M, D)
        Differentiable, both, through the distances.
    k : int
    metric : {"euclidean", "sqeuclidean", "cosine"}
    exclude_self : bool
        Query i does not get vector i.
    """
    distances, indices = _knn(queries, database, k, metric, exclude_self)
    return distances, indices


def stack(parts: list[Tensor]) -> Tensor:
    """Results of several calls along a new first axis."""
    return torch.stack(parts)


def weights_beside(weights: Any, a: Tensor) -> Tensor:
    """Weights of the dimensions as an operator takes them.

    Raises
    ------
    ValueError
        They are on another device, or require a gradient, which there is none of.
    """
    if not isinstance(weights, Tensor):
        vector = np.asarray(weights, np.float64)
        check_dimension_weights(vector)
        return torch.as_tensor(vector, device=a.device)
    if weights.device != a.device:
        raise ValueError(
            f"expected weights on the device of the vectors, got {weights.device} and {a.device}"
        )
    if weights.requires_grad:
        raise ValueError(
            "expected weights that require no gradient: distances are differentiable in the "
            "vectors alone; weights.detach() gives such weights"
        )
    return weights.to(torch.float64)


def _vector(weights: Tensor | None) -> Tensor | np.ndarray[Any, Any] | None:
    """Weights as an executor takes them, with their values checked if they are on the host.

    Elsewhere one that is not allowed makes distances NaN, as nobody waits for the device.
    """
    if weights is None or weights.is_cuda:
        return weights
    vector: np.ndarray[Any, Any] = weights.detach().numpy()
    check_dimension_weights(vector)
    return vector


# ---- sosie::cdist --------------------------------------------------------------------------------


def _cdist_kernel(a: Tensor, b: Tensor, weights: Tensor | None, metric: str) -> Tensor:
    result: Tensor = executor(a).cdist_forward(a, b, metric, weights=_vector(weights))
    return result


def _cdist_fake(a: Tensor, b: Tensor, _weights: Tensor | None, _metric: str) -> Tensor:
    return a.new_empty((a.shape[0], a.shape[1], b.shape[1]), dtype=computed_dtype(a))


def _save_sets_and_distances(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    a, b, weights, ctx.metric = inputs
    ctx.save_for_backward(a, b, weights, output)


def _cdist_derivative(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    a, b, weights, distances = ctx.saved_tensors
    need_a, need_b = ctx.needs_input_grad[:2]
    grad_a, grad_b = _cdist_backward(a, b, upstream, distances, weights, ctx.metric, need_a, need_b)
    return grad_a if need_a else None, grad_b if need_b else None, None, None


def _map_sets(weights_at: int) -> Callable[..., Any]:
    """Batching rule of an operator whose tensors start with axis B, but for the weights."""

    def rule(call: Callable[..., Any], info: Any, in_dims: Any, *arguments: Any) -> Any:
        if in_dims[weights_at] is not None:
            results, out_dims = map_one_by_one(_as_tuple(call), info, in_dims, *arguments)
            return (results, out_dims) if len(results) > 1 else (results[0], out_dims[0])

        def without_weights(*others: Any) -> Any:
            return call(*others[:weights_at], arguments[weights_at], *others[weights_at:])

        others = (*arguments[:weights_at], *arguments[weights_at + 1 :])
        dims = (*in_dims[:weights_at], *in_dims[weights_at + 1 :])
        return map_into_batch(without_weights, info, dims, *others)

    return rule


def _as_tuple(call: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    def several(*arguments: Any) -> tuple[Any, ...]:
        results = call(*arguments)
        return (results,) if isinstance(results, Tensor) else tuple(results)

    return several


_cdist = register(
    Operator(
        "cdist(Tensor a, Tensor b, Tensor? weights, str metric) -> Tensor",
        cpu=_cdist_kernel,
        cuda=_cdist_kernel,
        fake=_cdist_fake,
        setup_context=_save_sets_and_distances,
        backward=_cdist_derivative,
        vmap=_map_sets(weights_at=2),
    )
)


# ---- sosie::cdist_backward -----------------------------------------------------------------------


def _cdist_backward_kernel(
    a: Tensor,
    b: Tensor,
    upstream: Tensor,
    distances: Tensor,
    weights: Tensor | None,
    metric: str,
    need_a: bool,
    need_b: bool,
) -> tuple[Tensor, Tensor]:
    grad_a, grad_b = executor(a).cdist_backward(
        a, b, upstream, distances, metric, weights=_vector(weights), need_a=need_a, need_b=need_b
    )
    return or_empty(grad_a, a), or_empty(grad_b, b)


def _cdist_backward_fake(
    a: Tensor,
    b: Tensor,
    _upstream: Tensor,
    _distances: Tensor,
    _weights: Tensor | None,
    _metric: str,
    need_a: bool,
    need_b: bool,
) -> tuple[Tensor, Tensor]:
    return fake_gradient(a, need_a), fake_gradient(b, need_b)


def _save_sets_and_upstream(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    # The distances are a function of the sets: their derivative is in that of the sets.
    a, b, upstream, _, weights, ctx.metric, _, _ = inputs
    ctx.save_for_backward(a, b, upstream, weights)


def _cdist_second_derivative(
    ctx: Any, cotangent_a: Tensor, cotangent_b: Tensor
) -> tuple[Tensor | None, ...]:
    a, b, upstream, weights = ctx.saved_tensors
    cotangent_a, cotangent_b = _or_zeros(cotangent_a, a), _or_zeros(cotangent_b, b)

    def distances(a: Tensor, b: Tensor) -> Tensor:
        return _pair_distances(a[:, :, None], b[:, None], ctx.metric, weights)

    grads_a, grads_upstream = [], []
    grad_b = torch.zeros_like(b)
    for rows in _row_blocks(a.shape[1], b.numel()):
        grad_a, part_b, grad_upstream = pull_back_gradient(
            distances, a[:, rows], b, upstream[:, rows], cotangent_a[:, rows], cotangent_b
        )
        grads_a.append(grad_a)
        grads_upstream.append(grad_upstream)
        grad_b = grad_b + part_b
    return torch.cat(grads_a, 1), grad_b, torch.cat(grads_upstream, 1), *(None,) * 5


_cdist_backward = register(
    Operator(
        "cdist_backward(Tensor a, Tensor b, Tensor upstream, Tensor distances, Tensor? weights, "
        "str metric, bool need_a, bool need_b) -> (Tensor, Tensor)",
        cpu=_cdist_backward_kernel,
        cuda=_cdist_backward_kernel,
        fake=_cdist_backward_fake,
        setup_context=_save_sets_and_upstream,
        backward=_cdist_second_derivative,
        vmap=_map_sets(weights_at=4),
    )
)


# ---- sosie::knn ----------------------------------------------------------------------------------


def _knn_kernel(
    queries: Tensor, database: Tensor, k: int, metric: str, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    distances, indices = executor(queries).knn_forward(
        queries, database, k, metric, exclude_self=exclude_self
    )
    return distances, indices


def _knn_fake(
    queries: Tensor, _database: Tensor, k: int, _metric: str, _exclude_self: bool
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return (
        queries.new_empty(shape, dtype=computed_dtype(queries)),
        queries.new_empty(shape, dtype=torch.int64),
    )


def _save_neighbours(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    queries, database, _, ctx.metric, _ = inputs
    distances, indices = output
    ctx.mark_non_differentiable(indices)
    ctx.save_for_backward(queries, database, distances, indices)


def _knn_derivative(
    ctx: Any, upstream: Tensor, _indices: Tensor | None
) -> tuple[Tensor | None, ...]:
    queries, database, distances, indices = ctx.saved_tensors
    need_queries, need_database = ctx.needs_input_grad[:2]
    grad_queries, grad_database = _knn_backward(
        queries, database, upstream, distances, indices, ctx.metric, need_queries, need_database
    )
    return (
        grad_queries if need_queries else None,
        grad_database if need_database else None,
        *(None,) * 3,
    )


def _map_queries(
    call: Callable[..., Any],
    info: Any,
    in_dims: Any,
    queries: Tensor,
    database: Tensor,
    k: int,
    metric: str,
    exclude_self: bool,
) -> tuple[Any, Any]:
    """Queries of one database are one set; anything else is called once per element."""
    if in_dims[1] is not None or exclude_self:
        return map_one_by_one(call, info, in_dims, queries, database, k, metric, exclude_self)
    queries = queries.movedim(in_dims[0], 0)
    results = call(queries.flatten(0, 1), database, k, metric, exclude_self)
    return tuple(result.unflatten(0, queries.shape[:2]) for result in results), (0, 0)


_knn = register(
    Operator(
        "knn(Tensor queries, Tensor database, int k, str metric, bool exclude_self) "
        "-> (Tensor, Tensor)",
        cpu=_knn_kernel,
        cuda=_knn_kernel,
        fake=_knn_fake,
        setup_context=_save_neighbours,
        backward=_knn_derivative,
        vmap=_map_queries,
    )
)


# ---- sosie::knn_backward -------------------------------------------------------------------------


def _knn_backward_kernel(
    queries: Tensor,
    database: Tensor,
    upstream: Tensor,
    distances: Tensor,
    indices: Tensor,
    metric: str,
    need_queries: bool,
    need_database: bool,
) -> tuple[Tensor, Tensor]:
    grad_queries, grad_database = executor(queries).knn_backward(
        queries,
        database,
        upstream,
        distances,
        indices,
        metric,
        need_queries=need_queries,
        need_database=need_database,
    )
    return or_empty(grad_queries, queries), or_empty(grad_database, database)


def _knn_backward_fake(
    queries: Tensor,
    database: Tensor,
    _upstream: Tensor,
    _distances: Tensor,
    _indices: Tensor,
    _metric: str,
    need_queries: bool,
    need_database: bool,
) -> tuple[Tensor, Tensor]:
    return fake_gradient(queries, need_queries), fake_gradient(database, need_database)


def _save_neighbours_and_upstream(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    queries, database, upstream, _, indices, ctx.metric, _, _ = inputs
    ctx.save_for_backward(queries, database, upstream, indices)


def _knn_second_derivative(
    ctx: Any, cotangent_queries: Tensor, cotangent_database: Tensor
) -> tuple[Tensor | None, ...]:
    queries, database, upstream, indices = ctx.saved_tensors
    cotangent_queries = _or_zeros(cotangent_queries, queries)
    cotangent_database = _or_zeros(cotangent_database, database)
    grads_queries, grads_upstream = [], []
    grad_database = torch.zeros_like(database)
    for rows in _row_blocks(queries.shape[0], indices.shape[1] * queries.shape[1]):
        chosen = indices[rows]

        def distances(queries: Tensor, database: Tensor, chosen: Tensor = chosen) -> Tensor:
            return _pair_distances(queries[:, None], database[chosen], ctx.metric, None)

        grad_queries, part, grad_upstream = pull_back_gradient(
            distances, queries[rows], database, upstream[rows], cotangent_queries[rows],
            cotangent_database,
        )  # fmt: skip
        grads_queries.append(grad_queries)
        grads_upstream.append(grad_upstream)
        grad_database = grad_database + part
    return torch.cat(grads_queries), grad_database, torch.cat(grads_upstream), *(None,) * 5


_knn_backward = register(
    Operator(
        "knn_backward(Tensor queries, Tensor database, Tensor upstream, Tensor distances, "
        "Tensor indices, str metric, bool need_queries, bool need_database) -> (Tensor, Tensor)",
        cpu=_knn_backward_kernel,
        cuda=_knn_backward_kernel,
        fake=_knn_backward_fake,
        setup_context=_save_neighbours_and_upstream,
        backward=_knn_second_derivative,
        vmap=map_one_by_one,
    )
)


# ---- second derivatives --------------------------------------------------------------------------


def _or_zeros(cotangent: Tensor, x: Tensor) -> Tensor:
    """A gradient that was not asked for is a tensor of length 0, and so is its cotangent."""
    return cotangent if cotangent.ndim == x.ndim else torch.zeros_like(x)


def _row_blocks(rows: int, numbers_per_row: int) -> list[slice]:
    """Slices of the rows whose differences from all partners are no large temporary."""
    step = max(1, _MOST_AT_A_TIME // max(1, numbers_per_row))
    return [slice(start, start + step) for start in range(0, max(rows, 1), step)]


def _pair_distances(a: Tensor, b: Tensor, metric: str, weights: Tensor | None) -> Tensor:
    """Distances of vectors ``(..., D)`` that broadcast, in differentiable torch operations."""
    dtype = computed_dtype(a)
    a, b = a.to(dtype), b.to(dtype)
    w = 1.0 if weights is None else weights.to(dtype)
    if metric == "cosine":
        (a, zero_a), (b, zero_b) = _unit(a, w), _unit(b, w)
        distances = 0.5 * (w * (a - b) ** 2).sum(-1)
        return torch.where(zero_a | zero_b, 1.0, distances)
    squared = (w * (a - b) ** 2).sum(-1)
    if metric == "sqeuclidean":
        return squared
    # The root has no derivative at 0; neither branch may hold one that is infinite.
    zero = squared == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


def _unit(x: Tensor, w: Tensor | float) -> tuple[Tensor, Tensor]:
    """Vectors over their lengths, and which have none."""
    squared = (w * x**2).sum(-1, keepdim=True)
    zero = squared == 0
    return x / torch.where(zero, 1.0, squared).sqrt(), zero[..., 0]
