# SPDX-License-Identifier: Apache-2.0
"""Operators of the SSIM family for torch tensors.

Images are ``(N, C, *spatial)`` with two or three spatial axes, any strides, of equal shapes and
dtypes. Half precision and integer images are computed in float32; results are float64 for float64
images, else float32. Everything is differentiable in both images, any number of times: first
derivatives are fused kernels, higher ones go through `sosie.torch.composite`.

The functions here trust their arguments; `sosie.ssim` and its relatives check them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sosie.backends import executor
from sosie.spec import SSIMParameters, SSIMSpec
from sosie.torch import composite
from sosie.torch._batching import map_into_batch, map_one_by_one
from sosie.torch._gradients import (
    computed_dtype,
    fake_gradient,
    gradients_to_expect,
    or_empty,
    pull_back_gradient,
)
from sosie.torch._register import Operator, is_plainly_recorded, register

__all__ = ["downsample", "loss", "resolved", "similarity_map", "values"]

#: An image size that every window and crop fits.
_AMPLE = 1 << 16


def resolved(
    spec: SSIMSpec, spatial_shape: Sequence[int], data_range: float | None
) -> SSIMParameters:
    """Parameters of a convention, as from `SSIMSpec.resolve`, for symbolic sizes too.

    A compiler that traces for all image sizes at once has symbols in their place. The parameters of
    a convention that does not downsample are the same for all; only the checks need the sizes, and
    what they compare becomes a condition for using the compiled code.
    """
    if spec.downsample is not None or not any(
        isinstance(size, torch.SymInt) for size in spatial_shape
    ):
        return spec.resolve(tuple(map(int, spatial_shape)), data_range)
    parameters = spec.resolve((_AMPLE,) * len(spatial_shape), data_range)
    for size, window, (before, after) in zip(
        spatial_shape, parameters.taps, parameters.crop, strict=True
    ):
        if size < max(len(window), before + after + 1):
            raise ValueError(
                f"expected images of at least {max(len(window), before + after + 1)} pixels along "
                f"each axis, got spatial sizes {tuple(spatial_shape)}"
            )
    return parameters


def values(
    x: Tensor,
    y: Tensor,
    parameters: SSIMParameters,
    mask: Tensor | None = None,
    kind: str = "ssim",
) -> Tensor:
    """Mean structural similarity of every plane, shape ``(N, C)``.

    Parameters
    ----------
    x, y : Tensor, shape (N, C, *spatial)
        Images of equal shape and dtype. Differentiable.
    parameters : SSIMParameters
        The resolved convention.
    mask : Tensor of bool, broadcastable to (N, C, *spatial), optional
        True where a pixel is valid. Invalid pixels get no gradient.
    kind : {"ssim", "cs"}
        The whole index or its contrast-structure factor.
    """
    arguments = (x, y, mask, parameters.encode(), kind)
    result: Tensor
    # Half precision would round the gradient before it is scaled.
    if x.dtype in (torch.float32, torch.float64) and is_plainly_recorded(x, y, mask):
        recorded: Any = _ValuesWithGradient
        result = recorded.apply(*arguments)
    else:
        result = _ssim(*arguments)
    return result


def similarity_map(
    x: Tensor,
    y: Tensor,
    parameters: SSIMParameters,
    mask: Tensor | None = None,
    kind: str = "ssim",
) -> Tensor:
    """Structural similarity at every position, ``(N, C, *map)``; arguments as for `values`."""
    result: Tensor = _ssim_map(x, y, mask, parameters.encode(), kind)
    return result


def loss(
    x: Tensor,
    y: Tensor,
    parameters: SSIMParameters,
    mask: Tensor | None = None,
    ssim_weight: float = 1.0,
    l1_weight: float = 0.0,
) -> Tensor:
    """``ssim_weight * (1 - SSIM) + l1_weight * mean |x - y|``, averaged over images and channels.

    Where a gradient will be needed it is computed in the same pass over the images, and the
    backward pass only scales it. Arguments as for `values`; returns a scalar tensor.
    """
    need_x, need_y = gradients_to_expect(x, y)
    if x.dtype == torch.float16 and (need_x or need_y):
        # The gradient is rounded before the loss scale of mixed-precision training is known, and
        # 1 / (number of pixels) is below the smallest half.
        x, y = x.float(), y.float()
    encoded = parameters.encode()
    result: Tensor = _ssim_loss(x, y, mask, encoded, ssim_weight, l1_weight, need_x, need_y)[0]
    return result


def downsample(
    x: Tensor, factor: int, padding: Sequence[tuple[int, int]], border: str = "zero"
) -> Tensor:
    """Mean over boxes of ``factor`` pixels a side, after padding.

    Parameters
    ----------
    x : Tensor, shape (N, C, *spatial)
        Images. Differentiable.
    factor : int
        Side and stride of a box.
    padding : sequence of (int, int)
        Pixels added before and after each spatial axis.
    border : {"zero", "replicate", "symmetric"}
        What those pixels hold; zeros count in the mean. Incomplete boxes at the end are dropped.
    """
    flat = [margin for pair in padding for margin in pair]
    result: Tensor = _downsample(x, factor, flat, border)
    return result


# ---- sosie::ssim, sosie::ssim_map ----------------------------------------------------------------


def _ssim_kernel(x: Tensor, y: Tensor, mask: Tensor | None, parameters: str, kind: str) -> Tensor:
    result: Tensor
    result, _ = executor(x).ssim_forward(
        x, y, SSIMParameters.decode(parameters), mask=mask, kind=kind
    )
    return result.to(computed_dtype(x))


def _ssim_fake(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[:2], dtype=computed_dtype(x))


def _ssim_map_kernel(
    x: Tensor, y: Tensor, mask: Tensor | None, parameters: str, kind: str
) -> Tensor:
    result: Tensor
    _, result = executor(x).ssim_forward(
        x, y, SSIMParameters.decode(parameters), mask=mask, kind=kind, return_map=True
    )
    return result


def _ssim_map_fake(
    x: Tensor, _y: Tensor, _mask: Tensor | None, parameters: str, _kind: str
) -> Tensor:
    map_shape = SSIMParameters.decode(parameters).map_shape(x.shape[2:])
    return x.new_empty((*x.shape[:2], *map_shape), dtype=computed_dtype(x))


def _save_images(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, y, mask, ctx.parameters, ctx.kind = inputs
    ctx.save_for_backward(x, y, mask)


def _ssim_derivative(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    x, y, mask = ctx.saved_tensors
    need_x, need_y = ctx.needs_input_grad[:2]
    grad_x, grad_y = _ssim_backward(x, y, mask, upstream, ctx.parameters, ctx.kind, need_x, need_y)
    return grad_x if need_x else None, grad_y if need_y else None, None, None, None


_ssim = register(
    Operator(
        "ssim(Tensor x, Tensor y, Tensor? mask, str parameters, str kind) -> Tensor",
        cpu=_ssim_kernel,
        fake=_ssim_fake,
        setup_context=_save_images,
        backward=_ssim_derivative,
        vmap=map_into_batch,
        cuda=_ssim_kernel,
    )
)


class _ValuesWithGradient(torch.autograd.Function):
    """sosie::ssim for eager training: the gradient comes with the values, in one pass.

    The backward pass then scales it, where it would have computed everything again. It costs an
    image between the two passes, and is lost on a caller who records but never differentiates.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, mask: Tensor | None, parameters: str, kind: str
    ) -> Tensor:
        need_x, need_y = ctx.needs_input_grad[:2]
        result, grad_x, grad_y = executor(x).ssim_with_gradient(
            x, y, SSIMParameters.decode(parameters),
            mask=mask, kind=kind, need_x=need_x, need_y=need_y,
        )  # fmt: skip
        ctx.parameters, ctx.kind = parameters, kind
        ctx.save_for_backward(x, y, mask, grad_x, grad_y)
        values: Tensor = result.to(x.dtype)
        return values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        x, y, mask, *gradients = ctx.saved_tensors
        need_x, need_y = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # it will be differentiated again
            gradients = _ssim_backward(
                x, y, mask, upstream, ctx.parameters, ctx.kind, need_x, need_y
            )
        else:
            scale = upstream.reshape(*upstream.shape, *(1,) * (x.ndim - 2))
            gradients = [None if gradient is None else gradient * scale for gradient in gradients]
        grad_x, grad_y = gradients
        return grad_x if need_x else None, grad_y if need_y else None, None, None, None


_ssim_map = register(
    Operator(
        "ssim_map(Tensor x, Tensor y, Tensor? mask, str parameters, str kind) -> Tensor",
        cpu=_ssim_map_kernel,
        fake=_ssim_map_fake,
        setup_context=_save_images,
        backward=_ssim_derivative,
        vmap=map_into_batch,
        cuda=_ssim_map_kernel,
    )
)


# ---- sosie::ssim_backward ------------------------------------------------------------------------


def _ssim_backward_kernel(
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    upstream: Tensor,  # (N, C): of the values; (N, C, *map): of the map
    parameters: str,
    kind: str,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    grad_x, grad_y = executor(x).ssim_backward(
        x,
        y,
        SSIMParameters.decode(parameters),
        upstream,
        mask=mask,
        kind=kind,
        need_x=need_x,
        need_y=need_y,
    )
    return or_empty(grad_x, x), or_empty(grad_y, y)


def _ssim_backward_fake(
    x: Tensor,
    y: Tensor,
    _mask: Tensor | None,
    _upstream: Tensor,
    _parameters: str,
    _kind: str,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    return fake_gradient(x, need_x), fake_gradient(y, need_y)


def _save_images_and_upstream(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, y, mask, upstream, ctx.parameters, ctx.kind, _, _ = inputs
    ctx.save_for_backward(x, y, mask, upstream)


def _ssim_second_derivative(
    ctx: Any, cotangent_x: Tensor, cotangent_y: Tensor
) -> tuple[Tensor | None, ...]:
    x, y, mask, upstream = ctx.saved_tensors
    parameters = SSIMParameters.decode(ctx.parameters)
    function = composite.ssim_map if upstream.ndim == x.ndim else composite.ssim

    def similarity(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y, parameters, mask, ctx.kind)

    grad_x, grad_y, grad_upstream = pull_back_gradient(
        similarity, x, y, upstream, cotangent_x, cotangent_y
    )
    return grad_x, grad_y, None, grad_upstream, None, None, None, None


_ssim_backward = register(
    Operator(
        "ssim_backward(Tensor x, Tensor y, Tensor? mask, Tensor upstream, str parameters, "
        "str kind, bool need_x, bool need_y) -> (Tensor, Tensor)",
        cpu=_ssim_backward_kernel,
        fake=_ssim_backward_fake,
        setup_context=_save_images_and_upstream,
        backward=_ssim_second_derivative,
        vmap=map_into_batch,
        cuda=_ssim_backward_kernel,
    )
)


# ---- sosie::ssim_loss ----------------------------------------------------------------------------


def _ssim_loss_cpu(
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    parameters: str,
    ssim_weight: float,
    l1_weight: float,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    similarity, absolute_error, grad_x, grad_y = _loss_parts(
        x, y, mask, parameters, ssim_weight, l1_weight, need_x, need_y
    )
    value = ssim_weight * (1.0 - similarity.mean().item())
    if absolute_error is not None:
        value += l1_weight * absolute_error.mean().item()
    result = torch.tensor(value, dtype=computed_dtype(x))
    return result, or_empty(grad_x, x), or_empty(grad_y, y)


def _ssim_loss_cuda(
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    parameters: str,
    ssim_weight: float,
    l1_weight: float,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, but the host never learns the value."""
    similarity, absolute_error, grad_x, grad_y = _loss_parts(
        x, y, mask, parameters, ssim_weight, l1_weight, need_x, need_y
    )
    value = ssim_weight * (1.0 - similarity.mean())
    if absolute_error is not None:
        value = value + l1_weight * absolute_error.mean()
    return value.to(computed_dtype(x)), or_empty(grad_x, x), or_empty(grad_y, y)


def _loss_parts(
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    parameters: str,
    ssim_weight: float,
    l1_weight: float,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Similarity and absolute error of each plane, the latter if it counts, and gradients."""
    decoded = SSIMParameters.decode(parameters)
    if not need_x and not need_y:
        similarity, _ = executor(x).ssim_forward(x, y, decoded, mask=mask)
        return (
            similarity,
            composite.absolute_error(x, y, mask) if l1_weight != 0.0 else None,
            None,
            None,
        )
    similarity, absolute_error, grad_x, grad_y = executor(x).ssim_loss(
        x,
        y,
        decoded,
        ssim_weight=ssim_weight,
        l1_weight=l1_weight,
        mask=mask,
        need_x=need_x,
        need_y=need_y,
    )
    return similarity, absolute_error if l1_weight != 0.0 else None, grad_x, grad_y


def _ssim_loss_fake(
    x: Tensor,
    y: Tensor,
    _mask: Tensor | None,
    _parameters: str,
    _ssim_weight: float,
    _l1_weight: float,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    result = x.new_empty((), dtype=computed_dtype(x))
    return result, fake_gradient(x, need_x), fake_gradient(y, need_y)


def _save_images_and_gradients(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, y, mask, ctx.parameters, ctx.ssim_weight, ctx.l1_weight, ctx.has_x, ctx.has_y = inputs
    _, grad_x, grad_y = output
    ctx.mark_non_differentiable(grad_x, grad_y)
    ctx.set_materialize_grads(False)  # no zeros for what is not differentiable
    ctx.save_for_backward(x, y, mask, grad_x, grad_y)


def _ssim_loss_derivative(
    ctx: Any,
    upstream: Tensor | None,
    _grad_x: Tensor | None,
    _grad_y: Tensor | None,
) -> tuple[Tensor | None, ...]:
    if upstream is None:  # zeros are not made for results that nobody used
        return (None,) * 8
    x, y, mask, grad_x, grad_y = ctx.saved_tensors
    need_x, need_y = ctx.needs_input_grad[:2]
    if (need_x and not ctx.has_x) or (need_y and not ctx.has_y):
        raise RuntimeError(
            "sosie::ssim_loss kept no gradient to scale: expected need_x and need_y to be set for "
            f"inputs that require one ({need_x}, {need_y}), got ({ctx.has_x}, {ctx.has_y})"
        )
    if not _is_plain_one(upstream):
        grad_x, grad_y = _ssim_loss_backward(
            x, y, mask, upstream, grad_x, grad_y, ctx.parameters, ctx.ssim_weight, ctx.l1_weight
        )
    return grad_x if need_x else None, grad_y if need_y else None, *(None,) * 6


def _is_plain_one(upstream: Tensor) -> bool:
    """Whether the upstream gradient is known, here and now, to be 1: ``loss.backward()`` on a CPU.

    Then the gradient of the forward pass is handed on as it is, which saves a pass over the image.
    """
    if torch.is_grad_enabled() or type(upstream) is not Tensor or upstream.device.type != "cpu":
        return False
    try:
        return upstream.item() == 1.0
    except RuntimeError:  # it stands for a whole batch of upstream gradients
        return False


_ssim_loss = register(
    Operator(
        "ssim_loss(Tensor x, Tensor y, Tensor? mask, str parameters, float ssim_weight, "
        "float l1_weight, bool need_x, bool need_y) -> (Tensor, Tensor, Tensor)",
        cpu=_ssim_loss_cpu,
        fake=_ssim_loss_fake,
        setup_context=_save_images_and_gradients,
        backward=_ssim_loss_derivative,
        vmap=map_one_by_one,
        cuda=_ssim_loss_cuda,
    )
)


# ---- sosie::ssim_loss_backward -------------------------------------------------------------------


def _scale_gradients(
    _x: Tensor,
    _y: Tensor,
    _mask: Tensor | None,
    upstream: Tensor,  # scalar
    grad_x: Tensor,
    grad_y: Tensor,
    *_: Any,  # these and the images are here for the derivative of this operator
) -> tuple[Tensor, Tensor]:
    return grad_x * upstream, grad_y * upstream


def _save_all_for_scaling(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, y, mask, upstream, _, _, ctx.parameters, ctx.ssim_weight, ctx.l1_weight = inputs
    ctx.save_for_backward(x, y, mask, upstream)


def _loss_second_derivative(
    ctx: Any, cotangent_x: Tensor, cotangent_y: Tensor
) -> tuple[Tensor | None, ...]:
    x, y, mask, upstream = ctx.saved_tensors
    parameters = SSIMParameters.decode(ctx.parameters)

    def composed_loss(x: Tensor, y: Tensor) -> Tensor:
        return composite.ssim_loss(x, y, parameters, mask, ctx.ssim_weight, ctx.l1_weight)

    grad_x, grad_y, grad_upstream = pull_back_gradient(
        composed_loss, x, y, upstream, cotangent_x, cotangent_y
    )
    return grad_x, grad_y, None, grad_upstream, *(None,) * 5


_ssim_loss_backward = register(
    Operator(
        "ssim_loss_backward(Tensor x, Tensor y, Tensor? mask, Tensor upstream, Tensor grad_x, "
        "Tensor grad_y, str parameters, float ssim_weight, float l1_weight) -> (Tensor, Tensor)",
        cpu=_scale_gradients,
        fake=_scale_gradients,
        setup_context=_save_all_for_scaling,
        backward=_loss_second_derivative,
        vmap=map_one_by_one,
        cuda=_scale_gradients,
    )
)


# ---- sosie::downsample, sosie::downsample_backward -----------------------------------------------


def _pairs(padding: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(padding[::2], padding[1::2], strict=True))


def _downsample_kernel(x: Tensor, factor: int, padding: list[int], border: str) -> Tensor:
    result: Tensor = executor(x).downsample_forward(x, factor, _pairs(padding), border)
    return result


def _downsample_fake(x: Tensor, factor: int, padding: list[int], _border: str) -> Tensor:
    spatial = (
        (size + before + after) // factor
        for size, (before, after) in zip(x.shape[2:], _pairs(padding), strict=True)
    )
    return x.new_empty((*x.shape[:2], *spatial), dtype=computed_dtype(x))


def _save_downsampling(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, ctx.factor, ctx.padding, ctx.border = inputs
    ctx.input_shape, ctx.input_dtype = x.shape, x.dtype


def _downsample_derivative(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    grad = _downsample_backward(
        upstream, list(ctx.input_shape), ctx.factor, ctx.padding, ctx.border
    )
    return grad.to(ctx.input_dtype), None, None, None


def _downsample_backward_kernel(
    grad: Tensor, input_shape: list[int], factor: int, padding: list[int], border: str
) -> Tensor:
    result: Tensor = executor(grad).downsample_backward(
        grad, tuple(input_shape), factor, _pairs(padding), border
    )
    return result


def _downsample_backward_fake(grad: Tensor, input_shape: list[int], *_: Any) -> Tensor:
    return grad.new_empty(input_shape)


def _save_adjoint_downsampling(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    _, _, ctx.factor, ctx.padding, ctx.border = inputs


def _map_adjoint_downsampling(
    call: Callable[..., Any], info: Any, in_dims: Any, grad: Tensor, input_shape: Any, *rest: Any
) -> tuple[Any, Any]:
    count, *others = input_shape
    return map_into_batch(call, info, in_dims, grad, [info.batch_size * count, *others], *rest)


def _downsample_second_derivative(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    # Downsampling is linear: the derivative of its adjoint is itself.
    return _downsample(cotangent, ctx.factor, ctx.padding, ctx.border), None, None, None, None


_downsample = register(
    Operator(
        "downsample(Tensor x, int factor, int[] padding, str border) -> Tensor",
        cpu=_downsample_kernel,
        fake=_downsample_fake,
        setup_context=_save_downsampling,
        backward=_downsample_derivative,
        vmap=map_into_batch,
        cuda=_downsample_kernel,
    )
)

_downsample_backward = register(
    Operator(
        "downsample_backward(Tensor grad, SymInt[] input_shape, int factor, int[] padding, "
        "str border) -> Tensor",
        cpu=_downsample_backward_kernel,
        fake=_downsample_backward_fake,
        setup_context=_save_adjoint_downsampling,
        backward=_downsample_second_derivative,
        vmap=_map_adjoint_downsampling,
        cuda=_downsample_backward_kernel,
    )
)
