# SPDX-License-Identifier: Apache-2.0
"""The SSIM family by the compiled kernels."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sosie import _core
from sosie.arrays import Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sosie.spec import SSIMParameters

__all__ = [
    "downsample_backward",
    "downsample_forward",
    "ssim_backward",
    "ssim_forward",
    "ssim_loss",
    "ssim_with_gradient",
]

_BORDERS = {"zero": 0, "reflect": 1, "symmetric": 2, "replicate": 3}
_KINDS = {"ssim": 0, "cs": 1}


@lru_cache(maxsize=256)
def _plan(parameters: SSIMParameters, kind: str) -> _core.SSIMPlan:
    p = parameters
    return _core.SSIMPlan(
        taps=[list(window) for window in p.taps],
        border=_BORDERS[p.border],
        crop=list(p.crop),
        stride=p.stride,
        covariance_scale=p.covariance_scale,
        c1=p.c1,
        c2=p.c2,
        epsilon=p.epsilon,
        clamp_variance=p.clamp_variance,
        clamp_value=p.clamp_value,
        data_range=p.data_range,
        kind=_KINDS[kind],
    )


def ssim_forward(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    return_map: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array | None]:
    """Mean of the map per plane, float64 ``(N, C)``, and the map if wanted."""
    library = adapter(x)
    x, y = library.kernel_ready(x), library.kernel_ready(y)
    shape = tuple(x.shape)
    values = library.empty(x, shape[:2], "float64")
    similarity_map = None
    if return_map:
        map_shape = shape[:2] + parameters.map_shape(shape[2:])
        similarity_map = library.empty(x, map_shape, compute_dtype(library.dtype(x)))
    if mask is not None:
        mask = library.as_mask(mask, shape)
    argument = library.argument
    _plan(parameters, kind).forward(
        shape,
        argument(x),
        argument(y),
        None if mask is None else argument(mask),
        None if similarity_map is None else argument(similarity_map),
        argument(values)[0],
        library.threads() if threads is None else threads,
    )
    return values, similarity_map


def ssim_backward(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    upstream: Array,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``upstream`` belongs to the values ``(N, C)`` or to the map."""
    library = adapter(x)
    shape = tuple(x.shape)
    is_map = upstream.ndim > 2
    upstream = library.to_numpy(upstream)
    if not is_map:
        upstream = upstream.astype(np.float64) / _positions(library, shape, parameters, mask)
    _, _, grad_x, grad_y = _gradients(
        library, x, y, parameters, kind, upstream, is_map, mask, None, need_x, need_y, threads
    )
    return grad_x, grad_y


def ssim_with_gradient(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Values ``(N, C)`` as of :func:`ssim_forward`, and the gradient of each for its planes."""
    library = adapter(x)
    shape = tuple(x.shape)
    upstream = np.broadcast_to(1.0 / _positions(library, shape, parameters, mask), shape[:2])
    values, _, grad_x, grad_y = _gradients(
        library, x, y, parameters, kind, upstream, False, mask, None, need_x, need_y, threads
    )
    return values, grad_x, grad_y


def ssim_loss(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    ssim_weight: float,
    l1_weight: float,
    mask: Array | None = None,
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array, Array | None, Array | None]:
    """SSIM and mean |x - y| per plane, and the gradient of their weighted loss, in one pass.

    The loss is ``mean over planes of ssim_weight * (1 - ssim) + l1_weight * l1``.
    """
    library = adapter(x)
    shape = tuple(x.shape)
    planes = max(shape[0] * shape[1], 1)
    positions = _positions(library, shape, parameters, mask)
    upstream = np.broadcast_to(-ssim_weight / planes / positions, shape[:2])
    l1_weights = np.empty(shape[:2])
    l1_weights[...] = l1_weight / planes / _pixels(library, shape, mask)
    return _gradients(
        library, x, y, parameters, "ssim", upstream, False, mask, l1_weights,
        need_x, need_y, threads,
    )  # fmt: skip


def _gradients(
    library: Adapter,
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    kind: str,
    upstream: np.ndarray[Any, Any],
    is_map: bool,
    mask: Array | None,
    l1_weights: np.ndarray[Any, Any] | None,
    need_x: bool,
    need_y: bool,
    threads: int | None,
) -> tuple[Array, Array, Array | None, Array | None]:
    x, y = library.kernel_ready(x), library.kernel_ready(y)
    shape = tuple(x.shape)
    dtype = library.dtype(x)
    values = library.empty(x, shape[:2], "float64")
    l1 = library.empty(x, shape[:2], "float64")
    grad_x = library.empty_like(x, gradient_dtype(dtype)) if need_x else None
    grad_y = library.empty_like(y, gradient_dtype(dtype)) if need_y else None
    upstream = np.asarray(upstream, compute_dtype(dtype))
    if not is_map:
        upstream = upstream.reshape(upstream.shape + (1,) * (len(shape) - 2))
    argument = library.argument
    # The kernel gives the first image's gradient, or both: for y's alone they trade places.
    first, second = (x, y) if need_x else (y, x)
    outputs = (grad_x, grad_y) if need_x else (grad_y, None)
    address, code, strides, in_bytes = _NUMPY_ARGUMENT(upstream)
    if not is_map:
        strides = strides[:2] + (0,) * (len(shape) - 2)
    mask_argument = None if mask is None else argument(library.as_mask(mask, shape))
    _plan(parameters, kind).backward(
        shape,
        argument(first),
        argument(second),
        mask_argument,
        (address, code, strides, in_bytes),
        is_map,
        argument(outputs[0]),
        None if outputs[1] is None else argument(outputs[1]),
        0 if l1_weights is None else _NUMPY_ARGUMENT(l1_weights)[0],
        argument(values)[0],
        argument(l1)[0],
        library.threads() if threads is None else threads,
    )
    return values, l1, grad_x, grad_y


_NUMPY_ARGUMENT = adapter(np.empty(0)).argument


def _positions(
    library: Adapter, shape: tuple[int, ...], parameters: SSIMParameters, mask: Array | None
) -> Any:
    """How many positions each plane's mean is over: a number, or ``(N, C)`` under a mask."""
    if mask is None:
        return max(float(np.prod(parameters.map_shape(shape[2:]), dtype=float)), 1.0)
    centres: Any = (
        slice(None),
        slice(None),
        *(
            slice(before, size - after, parameters.stride)
            for size, (before, after) in zip(shape[2:], parameters.crop, strict=True)
        ),
    )
    return _count(library.to_numpy(library.as_mask(mask, shape))[centres])


def _pixels(library: Adapter, shape: tuple[int, ...], mask: Array | None) -> Any:
    """How many valid pixels each plane has: a number, or ``(N, C)`` under a mask."""
    if mask is None:
        return max(float(np.prod(shape[2:], dtype=float)), 1.0)
    return _count(library.to_numpy(library.as_mask(mask, shape)))


def _count(mask: np.ndarray[Any, Any]) -> Any:
    counts = mask.sum(axis=tuple(range(2, mask.ndim)), dtype=np.float64)
    return np.maximum(counts, 1.0)


def _padding(padding: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(int(before), int(after)) for before, after in padding]


def downsample_forward(
    x: Array,
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    *,
    threads: int | None = None,
) -> Array:
    """Means over ``factor``-sided boxes of the padded image."""
    library = adapter(x)
    x = library.kernel_ready(x)
    shape = tuple(x.shape)
    pads = _padding(padding)
    reduced_shape = shape[:2] + tuple(
        (size + before + after) // factor
        for size, (before, after) in zip(shape[2:], pads, strict=True)
    )
    reduced = library.empty(x, reduced_shape, compute_dtype(library.dtype(x)))
    _core.downsample_forward(
        shape, reduced_shape, factor, pads, _BORDERS[border],
        library.argument(x), library.argument(reduced),
        library.threads() if threads is None else threads,
    )  # fmt: skip
    return reduced


def downsample_backward(
    grad: Array,
    input_shape: Sequence[int],
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    *,
    threads: int | None = None,
) -> Array:
    """Adjoint of :func:`downsample_forward`."""
    library = adapter(grad)
    grad = library.kernel_ready(grad)
    full = library.empty(grad, input_shape, library.dtype(grad))
    _core.downsample_backward(
        tuple(input_shape), tuple(grad.shape), factor, _padding(padding), _BORDERS[border],
        library.argument(full), library.argument(grad),
        library.threads() if threads is None else threads,
    )  # fmt: skip
    return full
