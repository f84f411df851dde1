# SPDX-License-Identifier: Apache-2.0
"""Operators of the SSD family for torch tensors.

Images are of any shape, equal for both, of equal dtypes, with any strides; weights have as many
axes, each of the images' length or of length 1. Half precision and integer images are computed in
float32. Everything is differentiable in both images and the weights, any number of times: first
derivatives are kernels of one pass, higher ones are made of torch operations.

The functions here trust their arguments; `sosie.weighted_ssd` and its relatives check them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sosie.backends import executor
from sosie.torch._batching import map_one_by_one
from sosie.torch._gradients import computed_dtype, fake_gradient, or_empty
from sosie.torch._register import Operator, register

__all__ = ["computed_dtype", "loss", "sums", "weighted_mean"]


def sums(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    per_image: bool = False,
    allow_negative: bool = False,
) -> Tensor:
    """Sum of ``w (x - y)^2`` and sum of ``w`` of every image, float64, shape ``(N, 2)``.

    Parameters
    ----------
    x, y : Tensor
        Images of equal shape and dtype. Differentiable.
    weight : Tensor, optional
        Boolean or floating, with as many axes, of their lengths or of length 1. Differentiable.
    per_image : bool
        The first axis counts images; else all is one image.
    allow_negative : bool
        Whether weights may be below 0.
    """
    result: Tensor = _ssd(x, y, weight, per_image, allow_negative)
    return result


def weighted_mean(sums: Tensor) -> Tensor:
    """``S / W`` of sums ``(..., 2)``; 0, with a gradient of 0, where W is 0."""
    total, weight = sums[..., 0], sums[..., 1]
    empty = weight == 0.0
    return torch.where(empty, 0.0, total) / torch.where(empty, 1.0, weight)


def loss(
    x: Tensor, y: Tensor, weight: Tensor | None, mean: bool, allow_negative: bool = False
) -> Tensor:
    """Sum over everything, or mean under the weights, as a scalar tensor.

    Where a gradient of the images will be needed, and none of the weights, it is computed in the
    same pass, and the backward pass only scales it.
    """
    needs = _gradients_to_expect(x, y, weight)
    if x.dtype == torch.float16 and any(needs):
        # The gradient is rounded before the loss scale of mixed-precision training is known, and
        # 1 / (number of pixels) is below the smallest half.
        x, y = x.float(), y.float()
    if needs[2]:
        of_all = sums(x, y, weight, False, allow_negative)[0]
        value = weighted_mean(of_all) if mean else of_all[0]
        return value.to(computed_dtype(x))
    result: Tensor = _ssd_loss(x, y, weight, mean, allow_negative, needs[0], needs[1])[0]
    return result


def _gradients_to_expect(x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[bool, bool, bool]:
    floating = weight is not None and weight.is_floating_point()
    if torch._C._are_functorch_transforms_active():
        # Which transform differentiates which tensor shows only when it asks for the derivative.
        return x.is_floating_point(), y.is_floating_point(), floating
    enabled = torch.is_grad_enabled()
    return (
        enabled and x.requires_grad,
        enabled and y.requires_grad,
        enabled and weight is not None and weight.requires_grad,
    )


# ---- the same, composed of torch operations ------------------------------------------------------


def _difference(x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """``x - y``, but 0 where a pixel of weight 0 holds NaN or an infinity; and the weights."""
    dtype = computed_dtype(x)
    difference = x.to(dtype) - y.to(dtype)
    if weight is None:
        return difference, difference.new_ones(())
    weight = weight.to(dtype)
    return torch.where((weight == 0.0) & ~difference.isfinite(), 0.0, difference), weight


def _per_image(values: Tensor, like: Tensor, per_image: bool) -> Tensor:
    """Numbers ``(N,)`` so that they broadcast to the images."""
    return values.to(computed_dtype(like)).reshape(-1 if per_image else 1, *(1,) * (like.ndim - 1))


def _sum_images(values: Tensor, per_image: bool) -> Tensor:
    """Sums ``(N,)`` of values of the images' shape, in float64."""
    values = values.to(torch.float64)
    return values.flatten(1).sum(1) if per_image and values.ndim > 1 else (
        values if per_image else values.sum().reshape(1)
    )  # fmt: skip


# ---- sosie::ssd ----------------------------------------------------------------------------------


def _ssd_kernel(
    x: Tensor, y: Tensor, weight: Tensor | None, per_image: bool, allow_negative: bool
) -> Tensor:
    result: Tensor = executor(x).ssd_forward(
        x, y, weight, per_image=per_image, allow_negative=allow_negative
    )
    return result


def _ssd_fake(
    x: Tensor, _y: Tensor, _weight: Tensor | None, per_image: bool, _allow_negative: bool
) -> Tensor:
    return x.new_empty((x.shape[0] if per_image else 1, 2), dtype=torch.float64)


def _save_images(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, y, weight, ctx.per_image, _ = inputs
    ctx.save_for_backward(x, y, weight)


def _ssd_derivative(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    x, y, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    gradients = _ssd_backward(x, y, weight, upstream, ctx.per_image, *needs)
    return *(g if need else None for g, need in zip(gradients, needs, strict=True)), None, None


def _map_sums(
    call: Callable[..., Any],
    info: Any,
    in_dims: tuple[int | None, ...],
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    per_image: bool,
    allow_negative: bool,
) -> tuple[Any, Any]:
    """The mapped axis becomes the images', or is folded into it."""
    size = info.batch_size
    x, y = _in_front(x, in_dims[0], size), _in_front(y, in_dims[1], size)
    if weight is not None:
        weight = _in_front(weight, in_dims[2], 1)
    if not per_image:
        return call(x, y, weight, True, allow_negative).unsqueeze(1), 0
    if weight is not None and (weight.shape[0] != 1 or weight.shape[1] != 1):
        weight = weight.expand(size, x.shape[1], *weight.shape[2:])
    folded = (None if tensor is None else tensor.flatten(0, 1) for tensor in (x, y, weight))
    return call(*folded, True, allow_negative).unflatten(0, (size, -1)), 0


def _in_front(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The mapped axis first; where there is none, a new one of the given size."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


_ssd = register(
    Operator(
        "ssd(Tensor x, Tensor y, Tensor? weight, bool per_image, bool allow_negative) -> Tensor",
        cpu=_ssd_kernel,
        fake=_ssd_fake,
        setup_context=_save_images,
        backward=_ssd_derivative,
        vmap=_map_sums,
        cuda=_ssd_kernel,
    )
)


# ---- sosie::ssd_backward -------------------------------------------------------------------------


def _ssd_backward_kernel(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    upstream: Tensor,  # (N, 2): of the sums
    per_image: bool,
    need_x: bool,
    need_y: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = executor(x).ssd_backward(
        x,
        y,
        weight,
        upstream,
        per_image=per_image,
        need_x=need_x,
        need_y=need_y,
        need_weight=need_weight,
    )
    grad_x, grad_y, grad_weight = (or_empty(gradient, x) for gradient in gradients)
    return grad_x, grad_y, grad_weight


def _ssd_backward_fake(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    _upstream: Tensor,
    _per_image: bool,
    need_x: bool,
    need_y: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        fake_gradient(x, need_x),
        fake_gradient(y, need_y),
        x.new_empty(0) if weight is None else fake_gradient(weight, need_weight),
    )


def _save_images_and_upstream(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, y, weight, upstream, ctx.per_image, *ctx.needs = inputs
    ctx.save_for_backward(x, y, weight, upstream)


def _ssd_second_derivative(
    ctx: Any, cotangent_x: Tensor, cotangent_y: Tensor, cotangent_weight: Tensor
) -> tuple[Tensor | None, ...]:
    """The transposed derivative of ``2 a w d``, ``-2 a w d`` and ``a d^2 + b``.

    Cotangents of gradients that were not asked for are left out.
    """
    x, y, weight, upstream = ctx.saved_tensors
    per_image = ctx.per_image
    d, w = _difference(x, y, weight)
    a = _per_image(upstream[:, 0], x, per_image)
    of_x, of_y, of_weight = (
        cotangent.to(d.dtype) if need else d.new_zeros(())
        for cotangent, need in zip(
            (cotangent_x, cotangent_y, cotangent_weight), ctx.needs, strict=True
        )
    )
    c = of_x - of_y
    by_d = 2.0 * a * (w * c + d * of_weight)
    by_sum = _sum_images((2.0 * w * d * c + d * d * of_weight).expand(x.shape), per_image)
    by_weights = _sum_images(of_weight.expand(x.shape), per_image)
    by_w = None
    if weight is not None and weight.is_floating_point():
        by_w = (2.0 * a * d * c).expand(x.shape).sum_to_size(weight.shape).to(weight.dtype)
    grad_upstream = torch.stack([by_sum, by_weights], dim=1).to(upstream.dtype)
    by_d = by_d.expand(x.shape)
    return by_d.to(x.dtype), (-by_d).to(y.dtype), by_w, grad_upstream, *(None,) * 4


_ssd_backward = register(
    Operator(
        "ssd_backward(Tensor x, Tensor y, Tensor? weight, Tensor upstream, bool per_image, "
        "bool need_x, bool need_y, bool need_weight) -> (Tensor, Tensor, Tensor)",
        cpu=_ssd_backward_kernel,
        fake=_ssd_backward_fake,
        setup_context=_save_images_and_upstream,
        backward=_ssd_second_derivative,
        vmap=map_one_by_one,
        cuda=_ssd_backward_kernel,
    )
)


# ---- sosie::ssd_loss -----------------------------------------------------------------------------


def _ssd_loss_cpu(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    mean: bool,
    allow_negative: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = grad_y = None
    if need_x or need_y:
        of_all, grad_x, grad_y = executor(x).ssd_loss(
            x,
            y,
            weight,
            mean=mean,
            allow_negative=allow_negative,
            need_x=need_x,
            need_y=need_y,
        )
    else:
        of_all = executor(x).ssd_forward(x, y, weight, allow_negative=allow_negative)
    total, weights = of_all[0].tolist()
    value = total if not mean else total / weights if weights != 0.0 else 0.0
    result = torch.tensor(value, dtype=computed_dtype(x))
    return result, or_empty(grad_x, x), or_empty(grad_y, y)


def _ssd_loss_cuda(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    mean: bool,
    allow_negative: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, but the host never learns the value."""
    value, grad_x, grad_y = executor(x).ssd_loss_value(
        x, y, weight, mean=mean, allow_negative=allow_negative, need_x=need_x, need_y=need_y
    )
    return value.reshape(()), or_empty(grad_x, x), or_empty(grad_y, y)


def _ssd_loss_fake(
    x: Tensor,
    y: Tensor,
    _weight: Tensor | None,
    _mean: bool,
    _allow_negative: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    result = x.new_empty((), dtype=computed_dtype(x))
    return result, fake_gradient(x, need_x), fake_gradient(y, need_y)


def _save_images_and_gradients(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, y, weight, ctx.mean, _, ctx.has_x, ctx.has_y = inputs
    _, grad_x, grad_y = output
    ctx.mark_non_differentiable(grad_x, grad_y)
    # Else zeros of the images' size would be made for what arrives in place of their gradients.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, weight, grad_x, grad_y)


def _ssd_loss_derivative(
    ctx: Any, upstream: Tensor | None, _grad_x: Tensor | None, _grad_y: Tensor | None
) -> tuple[Tensor | None, ...]:
    if upstream is None:  # nobody used the loss
        return (None,) * 7
    x, y, weight, grad_x, grad_y = ctx.saved_tensors
    need_x, need_y, need_weight = ctx.needs_input_grad[:3]
    if need_weight or (need_x and not ctx.has_x) or (need_y and not ctx.has_y):
        raise RuntimeError(
            "sosie::ssd_loss kept no gradient to scale: expected need_x and need_y to be set for "
            f"images that require one, and weights that require none, got {ctx.has_x} and "
            f"{ctx.has_y} where ({need_x}, {need_y}, {need_weight}) are required"
        )
    if torch.is_grad_enabled():  # it will be differentiated again: by the operators that can be
        of_all = torch.stack([upstream, torch.zeros_like(upstream)]).reshape(1, 2)
        if ctx.mean:
            of_all = of_all / _weight_sum(x, weight)
        gradients = _ssd_backward(x, y, weight, of_all, False, need_x, need_y, False)
        grad_x, grad_y = gradients[:2]
    elif not _is_plain_one(upstream):
        grad_x, grad_y = (grad * upstream.to(grad.dtype) for grad in (grad_x, grad_y))
    return grad_x if need_x else None, grad_y if need_y else None, *(None,) * 5


def _weight_sum(x: Tensor, weight: Tensor | None) -> Any:
    """Sum of the weights over the images; infinite where it is 0, as nothing is divided by it."""
    if weight is None:
        return float(x.numel())
    total = weight.to(torch.float64).sum() * (x.numel() / weight.numel())
    return torch.where(total == 0.0, torch.inf, total)


def _is_plain_one(upstream: Tensor) -> bool:
    """Whether the upstream gradient is known, here and now, to be 1: ``loss.backward()`` on a CPU.

    Then the gradient of the forward pass is handed on as it is, which saves a pass over the image.
    """
    if type(upstream) is not Tensor or upstream.device.type != "cpu":
        return False
    try:
        return upstream.item() == 1.0
    except RuntimeError:  # it stands for a whole batch of upstream gradients
        return False


_ssd_loss = register(
    Operator(
        "ssd_loss(Tensor x, Tensor y, Tensor? weight, bool mean, bool allow_negative, "
        "bool need_x, bool need_y) -> (Tensor, Tensor, Tensor)",
        cpu=_ssd_loss_cpu,
        fake=_ssd_loss_fake,
        setup_context=_save_images_and_gradients,
        backward=_ssd_loss_derivative,
        vmap=map_one_by_one,
        cuda=_ssd_loss_cuda,
    )
)
