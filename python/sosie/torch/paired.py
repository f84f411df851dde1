# SPDX-License-Identifier: Apache-2.0
"""Operators of paired rows for torch tensors.

``x`` and ``y`` have the same number of axes, the same length along ``axis``, and otherwise shapes
that broadcast; any strides, equal dtypes. Results have the broadcast shape without ``axis``; they
are float64 for float64 tensors, else float32. Everything is differentiable in both tensors, any
number of times: first derivatives are kernels, higher ones go through the same formulas in plain
torch operations.

The functions here trust their arguments; `sosie.euclidean_distance` and `sosie.cosine_similarity`
check them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sosie.backends import executor
from sosie.torch._gradients import (
    computed_dtype,
    fake_gradient,
    gradients_to_expect,
    or_empty,
    pull_back_gradient,
)
from sosie.torch._register import Operator, register

__all__ = [
    "composed_cosine_similarity",
    "composed_euclidean_distance",
    "cosine_similarity",
    "euclidean_distance",
]


def euclidean_distance(x: Tensor, y: Tensor, axis: int) -> Tensor:
    """Distance of every pair of rows; ``axis`` counts from the first."""
    result: Tensor = _euclidean(x, y, axis - x.ndim)
    return result


def cosine_similarity(x: Tensor, y: Tensor, axis: int, floor: float, replacement: float) -> Tensor:
    """Similarity of every pair of rows; a norm below ``floor`` counts as ``replacement``."""
    norms = any(gradients_to_expect(x, y))
    result: Tensor = _cosine(x, y, axis - x.ndim, floor, replacement, norms)[0]
    return result


# ---- composed of plain torch operations ----------------------------------------------------------


def composed_euclidean_distance(x: Tensor, y: Tensor, axis: int) -> Tensor:
    """The definition, differentiable to any order; all derivatives at coinciding rows are 0."""
    difference = x.to(computed_dtype(x)) - y.to(computed_dtype(y))
    return _root((difference * difference).sum(axis))


def composed_cosine_similarity(
    x: Tensor, y: Tensor, axis: int, floor: float, replacement: float
) -> Tensor:
    """The definition, differentiable to any order."""
    x, y = x.to(computed_dtype(x)), y.to(computed_dtype(y))
    norm_x, norm_y = (
        torch.where(norm < floor, replacement, norm)
        for norm in (_root((x * x).sum(axis)), _root((y * y).sum(axis)))
    )
    return (x * y).sum(axis) / (norm_x * norm_y)


def _root(square: Tensor) -> Tensor:
    """Square root with derivative 0 at 0."""
    zero = square == 0.0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


# ---- sosie::euclidean_distance -------------------------------------------------------------------
# Axes are counted from the last one here, so that a batch in front changes nothing.


def _euclidean_kernel(x: Tensor, y: Tensor, axis: int) -> Tensor:
    result: Tensor = executor(x).euclidean_forward(x, y, axis + x.ndim)
    return result


def _euclidean_fake(x: Tensor, y: Tensor, axis: int) -> Tensor:
    return x.new_empty(_outer_shape(x, y, axis), dtype=computed_dtype(x))


def _save_rows_and_distance(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, y, ctx.axis = inputs
    ctx.save_for_backward(x, y, output)


def _euclidean_derivative(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    x, y, value = ctx.saved_tensors
    need_x, need_y = ctx.needs_input_grad[:2]
    grad_x, grad_y = _euclidean_backward(x, y, value, upstream, ctx.axis, need_x, need_y)
    return grad_x if need_x else None, grad_y if need_y else None, None


# ---- sosie::euclidean_distance_backward ----------------------------------------------------------


def _euclidean_backward_kernel(
    x: Tensor, y: Tensor, value: Tensor, upstream: Tensor, axis: int, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor]:
    grad_x, grad_y = executor(x).euclidean_backward(
        x, y, value, upstream, axis + x.ndim, need_x=need_x, need_y=need_y
    )
    return or_empty(grad_x, x), or_empty(grad_y, y)


def _euclidean_backward_fake(
    x: Tensor, y: Tensor, _value: Tensor, _upstream: Tensor, _axis: int, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor]:
    return fake_gradient(x, need_x), fake_gradient(y, need_y)


def _save_for_second_euclidean(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, y, _, upstream, ctx.axis, _, _ = inputs
    ctx.save_for_backward(x, y, upstream)


def _euclidean_second_derivative(
    ctx: Any, cotangent_x: Tensor, cotangent_y: Tensor
) -> tuple[Tensor | None, ...]:
    axis = ctx.axis

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return composed_euclidean_distance(x, y, axis)

    x, y, upstream = ctx.saved_tensors
    grad_x, grad_y, grad_upstream = pull_back_gradient(
        distance, x, y, upstream, cotangent_x, cotangent_y
    )
    return grad_x, grad_y, None, grad_upstream, None, None, None


# ---- sosie::cosine_similarity --------------------------------------------------------------------


def _cosine_kernel(
    x: Tensor, y: Tensor, axis: int, floor: float, replacement: float, norms: bool
) -> tuple[Tensor, Tensor, Tensor]:
    value, norm_x, norm_y = executor(x).cosine_forward(
        x, y, axis + x.ndim, floor, replacement, return_norms=norms
    )
    return value, or_empty(norm_x, value), or_empty(norm_y, value)


def _cosine_fake(
    x: Tensor, y: Tensor, axis: int, _floor: float, _replacement: float, norms: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape, dtype = _outer_shape(x, y, axis), computed_dtype(x)
    norm_x, norm_y = (x.new_empty(shape if norms else 0, dtype=dtype) for _ in range(2))
    return x.new_empty(shape, dtype=dtype), norm_x, norm_y


def _save_rows_and_similarity(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, y, ctx.axis, ctx.floor, ctx.replacement, ctx.norms = inputs
    value, norm_x, norm_y = output
    ctx.mark_non_differentiable(norm_x, norm_y)
    ctx.save_for_backward(x, y, value, norm_x, norm_y)


def _cosine_derivative(
    ctx: Any, upstream: Tensor, _norm_x: Tensor | None, _norm_y: Tensor | None
) -> tuple[Tensor | None, ...]:
    if not ctx.norms:
        raise RuntimeError(
            "sosie::cosine_similarity kept no norms for its derivative: expected norms to be True "
            "for inputs that require a gradient, got False"
        )
    x, y, value, norm_x, norm_y = ctx.saved_tensors
    need_x, need_y = ctx.needs_input_grad[:2]
    grad_x, grad_y = _cosine_backward(
        x, y, value, norm_x, norm_y, upstream,
        ctx.axis, ctx.floor, ctx.replacement, need_x, need_y,
    )  # fmt: skip
    return grad_x if need_x else None, grad_y if need_y else None, None, None, None, None


# ---- sosie::cosine_similarity_backward -----------------------------------------------------------


def _cosine_backward_kernel(
    x: Tensor,
    y: Tensor,
    value: Tensor,
    norm_x: Tensor,
    norm_y: Tensor,
    upstream: Tensor,
    axis: int,
    floor: float,
    replacement: float,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    grad_x, grad_y = executor(x).cosine_backward(
        x, y, value, norm_x, norm_y, upstream, axis + x.ndim, floor, replacement,
        need_x=need_x, need_y=need_y,
    )  # fmt: skip
    return or_empty(grad_x, x), or_empty(grad_y, y)


def _cosine_backward_fake(x: Tensor, y: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    need_x, need_y = arguments[-2:]
    return fake_gradient(x, need_x), fake_gradient(y, need_y)


def _save_for_second_cosine(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, y, _, _, _, upstream, ctx.axis, ctx.floor, ctx.replacement, _, _ = inputs
    ctx.save_for_backward(x, y, upstream)


def _cosine_second_derivative(
    ctx: Any, cotangent_x: Tensor, cotangent_y: Tensor
) -> tuple[Tensor | None, ...]:
    axis, floor, replacement = ctx.axis, ctx.floor, ctx.replacement

    def similarity(x: Tensor, y: Tensor) -> Tensor:
        return composed_cosine_similarity(x, y, axis, floor, replacement)

    x, y, upstream = ctx.saved_tensors
    grad_x, grad_y, grad_upstream = pull_back_gradient(
        similarity, x, y, upstream, cotangent_x, cotangent_y
    )
    return grad_x, grad_y, None, None, None, grad_upstream, *(None,) * 5


# ---- batching ------------------------------------------------------------------------------------


def _map_in_front(
    call: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], *arguments: Any
) -> tuple[Any, Any]:
    """Put the mapped axis in front, of every tensor: pairs do not mix.

    A tensor that is not mapped gets it as a real axis of stride 0, so that its gradient, which
    differs from element to element, has it too.
    """
    moved = [
        _in_front(argument, dim, info.batch_size) if isinstance(argument, Tensor) else argument
        for argument, dim in zip(arguments, in_dims, strict=True)
    ]
    results = call(*moved)
    if isinstance(results, Tensor):
        return results, 0
    # Tensors of length 0 in place of what was not asked for have no such axis.
    return results, tuple(0 if len(result) == info.batch_size else None for result in results)


def _in_front(tensor: Tensor, dim: int | None, batch_size: int) -> Tensor:
    if dim is None:
        return tensor.expand(batch_size, *tensor.shape)
    return tensor.movedim(dim, 0)


# ---- registration --------------------------------------------------------------------------------

_euclidean = register(
    Operator(
        "euclidean_distance(Tensor x, Tensor y, int axis) -> Tensor",
        cpu=_euclidean_kernel,
        cuda=_euclidean_kernel,
        fake=_euclidean_fake,
        setup_context=_save_rows_and_distance,
        backward=_euclidean_derivative,
        vmap=_map_in_front,
    )
)

_euclidean_backward = register(
    Operator(
        "euclidean_distance_backward(Tensor x, Tensor y, Tensor value, Tensor upstream, int axis, "
        "bool need_x, bool need_y) -> (Tensor, Tensor)",
        cpu=_euclidean_backward_kernel,
        cuda=_euclidean_backward_kernel,
        fake=_euclidean_backward_fake,
        setup_context=_save_for_second_euclidean,
        backward=_euclidean_second_derivative,
        vmap=_map_in_front,
    )
)

_cosine = register(
    Operator(
        "cosine_similarity(Tensor x, Tensor y, int axis, float floor, float replacement, "
        "bool norms) -> (Tensor, Tensor, Tensor)",
        cpu=_cosine_kernel,
        cuda=_cosine_kernel,
        fake=_cosine_fake,
        setup_context=_save_rows_and_similarity,
        backward=_cosine_derivative,
        vmap=_map_in_front,
    )
)

_cosine_backward = register(
    Operator(
        "cosine_similarity_backward(Tensor x, Tensor y, Tensor value, Tensor norm_x, "
        "Tensor norm_y, Tensor upstream, int axis, float floor, float replacement, bool need_x, "
        "bool need_y) -> (Tensor, Tensor)",
        cpu=_cosine_backward_kernel,
        cuda=_cosine_backward_kernel,
        fake=_cosine_backward_fake,
        setup_context=_save_for_second_cosine,
        backward=_cosine_second_derivative,
        vmap=_map_in_front,
    )
)


def _outer_shape(x: Tensor, y: Tensor, axis: int) -> list[Any]:
    shape = list(torch.broadcast_shapes(x.shape, y.shape))
    del shape[axis]
    return shape
