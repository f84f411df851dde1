# SPDX-License-Identifier: Apache-2.0
"""The SSD family on CUDA devices."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from sosie.arrays import CODES, Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype
from sosie.backends.cuda.launcher import launch
from sosie.backends.cuda.layout import (
    CXX_TYPES,
    DTYPE_BYTES,
    DTYPE_CODES,
    Axes,
    StridedArray,
    axes_of,
    check_axes,
    element_strides,
    merged_axes,
    strided_array,
    workspace,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ssd_backward", "ssd_forward", "ssd_loss", "ssd_loss_value"]

_THREADS, _PACKS = 256, 8
#: Samples of a weight that one thread of a block adds up.
_SAMPLES = 32


class _Forward(ctypes.Structure):
    _fields_ = (
        ("images", ctypes.c_longlong),
        ("axes", Axes),
        ("x", StridedArray),
        ("y", StridedArray),
        ("weight", StridedArray),
        ("pack", ctypes.c_int),
        ("allow_negative", ctypes.c_int),
        ("blocks", ctypes.c_uint),
        ("partials", ctypes.c_void_p),
        ("tickets", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("values_dtype", ctypes.c_int),
        ("mean", ctypes.c_int),
    )


class _Backward(ctypes.Structure):
    _fields_ = (
        ("forward", _Forward),
        ("upstream", ctypes.c_void_p),
        ("upstream_stride", ctypes.c_longlong),
        ("factor", ctypes.c_double),
        ("divisor", ctypes.c_void_p),
        ("grad_x", StridedArray),
        ("grad_y", StridedArray),
        ("grad_weight", StridedArray),
    )


class _WeightBackward(ctypes.Structure):
    _fields_ = (
        ("kept", Axes),
        ("summed", Axes),
        ("kept_x", StridedArray),
        ("kept_y", StridedArray),
        ("kept_weight", StridedArray),
        ("kept_upstream", StridedArray),
        ("summed_x", StridedArray),
        ("summed_y", StridedArray),
        ("summed_upstream", StridedArray),
        ("factor", ctypes.c_double),
        ("grad_weight", StridedArray),
        ("lanes", ctypes.c_int),
        ("splits", ctypes.c_int),
        ("partials", ctypes.c_void_p),
        ("tickets", ctypes.c_void_p),
    )


def ssd_forward(
    x: Array,
    y: Array,
    weight: Array | None = None,
    *,
    per_image: bool = False,
    allow_negative: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Sums of ``w (x - y)^2`` and of ``w`` for each image, float64 ``(N, 2)``.

    The weights have as many axes as the images, each of the same length or of length 1. A weight
    that is not finite, or negative though that is not allowed, makes the first sum NaN.
    """
    library = adapter(x)
    plan = _Plan(library, x, y, weight, per_image, {})
    sums = plan.forward(allow_negative)
    kernel = f"ssd_forward<{plan.type}, {plan.weighted}>"
    launch(library, x, kernel, plan.grid, _THREADS, plan.call, clear=plan.clear)
    return sums


def ssd_backward(
    x: Array,
    y: Array,
    weight: Array | None,
    upstream: Array,
    *,
    per_image: bool = False,
    need_x: bool = True,
    need_y: bool = False,
    need_weight: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients for x, y and the weights, from those of the sums, ``upstream`` ``(N, 2)``."""
    library = adapter(x)
    upstream = library.contiguous(upstream, "float64")
    gradients, _ = _gradients(
        library, x, y, weight, per_image, (need_x, need_y, need_weight), upstream=upstream
    )
    return gradients


def ssd_loss(
    x: Array,
    y: Array,
    weight: Array | None,
    *,
    mean: bool,
    allow_negative: bool = False,
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array | None, Array | None]:
    """Sums over everything, float64 ``(1, 2)``, and the gradient of their loss in the same pass.

    The loss is the sum, or with ``mean`` that over the sum of the weights. The gradient of a mean
    needs that sum first: weights are then read twice.
    """
    sums, _, grad_x, grad_y = _loss(x, y, weight, mean, allow_negative, need_x, need_y)
    return sums, grad_x, grad_y


def ssd_loss_value(
    x: Array,
    y: Array,
    weight: Array | None,
    *,
    mean: bool,
    allow_negative: bool = False,
    need_x: bool = True,
    need_y: bool = False,
) -> tuple[Array, Array | None, Array | None]:
    """As :func:`ssd_loss`, but the loss itself ``(1,)``, in the dtype that is computed in."""
    _, value, grad_x, grad_y = _loss(x, y, weight, mean, allow_negative, need_x, need_y)
    return value, grad_x, grad_y


def _loss(
    x: Array,
    y: Array,
    weight: Array | None,
    mean: bool,
    allow_negative: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Array, Array, Array | None, Array | None]:
    library = adapter(x)
    value = library.empty(x, (1,), compute_dtype(library.dtype(x)))
    factor, divisor = 1.0, None
    if mean and weight is None:
        factor = 1.0 / math.prod(x.shape)
    elif mean and weight is not None:
        # Their sum as they are, times how often each is used; it stays on the device.
        own = ssd_forward(weight, weight, weight, allow_negative=allow_negative)
        factor = math.prod(weight.shape) / math.prod(x.shape)
        divisor = library.argument(own)[0] + DTYPE_BYTES["float64"]
    (grad_x, grad_y, _), sums = _gradients(
        library, x, y, weight, False, (need_x, need_y, False), factor=factor, divisor=divisor,
        allow_negative=allow_negative, value=value, mean=mean,
    )  # fmt: skip
    return sums, value, grad_x, grad_y


class _Plan:
    """One pass over the images: the struct of the kernel, its workspace, how many blocks."""

    def __init__(
        self,
        library: Adapter,
        x: Array,
        y: Array,
        weight: Array | None,
        per_image: bool,
        gradients: dict[str, Array],
    ) -> None:
        self.library, self.like = library, x
        shape = tuple(x.shape)
        arrays = {"x": x, "y": y} | gradients
        if weight is not None:
            arrays["weight"] = library.broadcast_to(weight, shape)
        strides = {name: element_strides(library, array) for name, array in arrays.items()}
        first = 1 if per_image else 0
        self.lengths, merged = merged_axes(shape[first:], [s[first:] for s in strides.values()])
        check_axes(len(self.lengths), shape)
        self.images = shape[0] if per_image else 1
        self.weighted = "true" if weight is not None else "false"
        self.type = CXX_TYPES[library.dtype(x)]
        self.arrays = {
            name: strided_array(library, arrays[name], strides[name][0] if per_image else 0, m)
            for name, m in zip(arrays, merged, strict=True)
        }
        self.pack = self._pack_size()
        count = math.prod(self.lengths)
        self.blocks = max(1, math.ceil(count / self.pack / (_THREADS * _PACKS)))
        self.grid = self.images * self.blocks

    def forward(
        self, allow_negative: bool, value: Array | None = None, mean: bool = False
    ) -> Array:
        """Fill ``call`` and ``clear``; return the sums ``(N, 2)`` that the kernel writes."""
        library = self.library
        sums = library.empty(self.like, (self.images, 2), "float64")
        self.workspace, partials, tickets = workspace(
            library, self.like, 2 * self.grid, self.images
        )
        self.clear = (tickets, 4 * self.images)
        self.call = _Forward(
            self.images,
            axes_of(self.lengths),
            self.arrays["x"],
            self.arrays["y"],
            self.arrays.get("weight", StridedArray()),
            self.pack,
            allow_negative,
            self.blocks,
            partials,
            tickets,
            library.argument(sums)[0],
            None if value is None else library.argument(value)[0],
            0 if value is None else DTYPE_CODES[library.dtype(value)],
            mean,
        )
        return sums

    def _pack_size(self) -> int:
        """Elements that every thread can read and write with one instruction, or 1."""
        dtype = self.library.dtype(self.like)
        size = 8 if DTYPE_BYTES[dtype] == 1 else 16 // DTYPE_BYTES[dtype]
        if self.lengths[-1] % size:
            return 1
        inner = len(self.lengths) - 1
        for name, array in self.arrays.items():
            is_weight = name.endswith("weight")
            if array.strides[inner] != 1 and not (is_weight and array.strides[inner] == 0):
                return 1
            if name == "grad_weight":
                continue  # written one by one
            itemsize = next(DTYPE_BYTES[d] for d, code in CODES.items() if code == array.dtype)
            if (array.data or 0) % min(16, size * itemsize) or any(
                stride % size for stride in (array.step, *array.strides[:inner])
            ):
                return 1
        return size


def _gradients(
    library: Adapter,
    x: Array,
    y: Array,
    weight: Array | None,
    per_image: bool,
    needs: tuple[bool, bool, bool],
    *,
    upstream: Array | None = None,
    factor: float = 1.0,
    divisor: int | None = None,
    allow_negative: bool = True,
    value: Array | None = None,
    mean: bool = False,
) -> tuple[tuple[Array | None, Array | None, Array | None], Array]:
    dtype = gradient_dtype(library.dtype(x))
    gradients = {}
    if needs[0]:
        gradients["grad_x"] = library.empty_like(x, dtype)
    if needs[1]:
        gradients["grad_y"] = library.empty_like(y, dtype)
    weight_is_full = weight is not None and tuple(weight.shape) == tuple(x.shape)
    if needs[2] and weight_is_full:
        gradients["grad_weight"] = library.empty_like(weight, library.dtype(weight))
    plan = _Plan(library, x, y, weight, per_image, gradients)
    sums = plan.forward(allow_negative, value, mean)
    call = _Backward(
        plan.call,
        None if upstream is None else library.argument(upstream)[0],
        2 if per_image else 0,
        factor,
        divisor,
        *(plan.arrays.get(name, StridedArray()) for name in ("grad_x", "grad_y", "grad_weight")),
    )
    if gradients or value is not None:
        kernel = f"ssd_backward<{plan.type}, {plan.weighted}>"
        launch(library, x, kernel, plan.grid, _THREADS, call, clear=plan.clear)
    grad_weight = gradients.get("grad_weight")
    if needs[2] and weight is not None and not weight_is_full:
        grad_weight = _summed_weight_gradient(library, x, y, weight, upstream, per_image)
    return (gradients.get("grad_x"), gradients.get("grad_y"), grad_weight), sums


def _summed_weight_gradient(
    library: Adapter, x: Array, y: Array, weight: Array, upstream: Array, per_image: bool
) -> Array:
    """Gradient of weights that several samples share."""
    shape = tuple(x.shape)
    strides = {
        "x": element_strides(library, x),
        "y": element_strides(library, y),
        "weight": element_strides(library, weight),
        "upstream": (2 if per_image else 0, *(0,) * (len(shape) - 1)),
    }
    arrays = {"x": x, "y": y, "weight": weight, "upstream": upstream}
    kept = [axis for axis, length in enumerate(weight.shape) if length > 1]
    summed = [axis for axis in range(len(shape)) if axis not in kept]

    def described(
        axes: Sequence[int], names: Sequence[str], reorder: bool
    ) -> tuple[Axes, list[StridedArray]]:
        lengths, merged = merged_axes(
            [shape[axis] for axis in axes],
            [[strides[name][axis] for axis in axes] for name in names],
            reorder=reorder,
        )
        check_axes(len(lengths), shape)
        described = [
            strided_array(library, arrays[name], 0, m)
            for name, m in zip(names, merged, strict=True)
        ]
        return axes_of(lengths), described

    kept_axes, kept_arrays = described(kept, ("x", "y", "weight", "upstream"), False)
    summed_axes, summed_arrays = described(summed, ("x", "y", "upstream"), True)
    neighbours = kept_arrays[0].strides[kept_axes.axes - 1] == 1
    lanes = 32 if kept_axes.count >= 32 and (neighbours or summed_axes.count < _THREADS) else 1
    splits = math.ceil(summed_axes.count / (_THREADS // lanes * _SAMPLES))
    groups = math.ceil(kept_axes.count / lanes)
    gradient = library.empty(weight, tuple(weight.shape), library.dtype(weight))
    memory, partials, tickets = workspace(library, x, groups * splits * lanes, groups)
    call = _WeightBackward(
        kept_axes, summed_axes, *kept_arrays, *summed_arrays, 1.0,
        strided_array(library, gradient, 0, ()), lanes, splits, partials, tickets,
    )  # fmt: skip
    kernel = f"ssd_weight_backward<{CXX_TYPES[library.dtype(x)]}>"
    launch(library, x, kernel, groups * splits, _THREADS, call, clear=(tickets, 4 * groups))
    del memory  # alive until here: freed memory is reused in the order of the stream
    return gradient
