# SPDX-License-Identifier: Apache-2.0
"""Paired rows on CUDA devices."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

from sosie.arrays import Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype
from sosie.backends.cuda.launcher import launch
from sosie.backends.cuda.layout import (
    CXX_TYPES,
    DTYPE_BYTES,
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

__all__ = ["cosine_backward", "cosine_forward", "euclidean_backward", "euclidean_forward"]

_THREADS = 256
#: Elements of a row that a thread works on, where there are so many.
_ELEMENTS = 16
#: Elements of a block's share of a row: a long row is cut into such.
_SPLIT = 1 << 16
#: Copies of an element that one thread of a block adds up.
_COPIES = 32


class _Cut(ctypes.Structure):
    _fields_ = (
        ("pairs", Axes),
        ("length", ctypes.c_longlong),
        ("pack", ctypes.c_int),
        ("rows", ctypes.c_int),
        ("along", ctypes.c_int),
        ("splits", ctypes.c_int),
        ("split", ctypes.c_longlong),
    )


class _Forward(ctypes.Structure):
    _fields_ = (
        ("cut", _Cut),
        ("x", StridedArray),
        ("y", StridedArray),
        ("value", StridedArray),
        ("norm_x", StridedArray),
        ("norm_y", StridedArray),
        ("cosine", ctypes.c_int),
        ("floor", ctypes.c_double),
        ("replacement", ctypes.c_double),
        ("partials", ctypes.c_void_p),
        ("tickets", ctypes.c_void_p),
    )


class _Backward(ctypes.Structure):
    _fields_ = (
        ("cut", _Cut),
        ("x", StridedArray),
        ("y", StridedArray),
        ("grad_x", StridedArray),
        ("grad_y", StridedArray),
        ("value", StridedArray),
        ("norm_x", StridedArray),
        ("norm_y", StridedArray),
        ("upstream", StridedArray),
        ("cosine", ctypes.c_int),
        ("floor", ctypes.c_double),
        ("replacement", ctypes.c_double),
    )


class _SharedBackward(ctypes.Structure):
    _fields_ = (
        ("kept", Axes),
        ("summed", Axes),
        ("of_kept", StridedArray * 6),
        ("of_summed", StridedArray * 6),
        ("cosine", ctypes.c_int),
        ("floor", ctypes.c_double),
        ("replacement", ctypes.c_double),
        ("gradient", StridedArray),
        ("lanes", ctypes.c_int),
        ("splits", ctypes.c_int),
        ("partials", ctypes.c_void_p),
        ("tickets", ctypes.c_void_p),
    )


def euclidean_forward(
    x: Array,
    y: Array,
    axis: int,
    *,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Distances of all pairs of rows along ``axis``."""
    return _forward(x, y, axis, None, False)[0]


def euclidean_backward(
    x: Array,
    y: Array,
    value: Array,
    upstream: Array,
    axis: int,
    *,
    need_x: bool = True,
    need_y: bool = True,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``value`` is what the forward pass returned."""
    return _backward(x, y, (value, None, None), upstream, axis, None, (need_x, need_y))


def cosine_forward(
    x: Array,
    y: Array,
    axis: int,
    floor: float,
    replacement: float,
    *,
    return_norms: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array | None, Array | None]:
    """Similarities of all pairs of rows along ``axis`` and, if wanted, both rows' norms."""
    return _forward(x, y, axis, (floor, replacement), return_norms)


def cosine_backward(
    x: Array,
    y: Array,
    value: Array,
    norm_x: Array,
    norm_y: Array,
    upstream: Array,
    axis: int,
    floor: float,
    replacement: float,
    *,
    need_x: bool = True,
    need_y: bool = True,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``value`` and the norms are what the forward pass returned."""
    results = (value, norm_x, norm_y)
    return _backward(x, y, results, upstream, axis, (floor, replacement), (need_x, need_y))


def _forward(
    x: Array, y: Array, axis: int, norms: tuple[float, float] | None, return_norms: bool
) -> tuple[Array, Array | None, Array | None]:
    library = adapter(x)
    x, y = library.kernel_ready(x), library.kernel_ready(y)
    shape, dtype = np.broadcast_shapes(x.shape, y.shape), library.dtype(x)
    outer = shape[:axis] + shape[axis + 1 :]
    value = library.empty(x, outer, compute_dtype(dtype))
    kept = [
        library.empty(x, outer, compute_dtype(dtype)) if return_norms else None for _ in range(2)
    ]
    if 0 in outer:
        return value, kept[0], kept[1]
    results = {"value": value, "norm_x": kept[0], "norm_y": kept[1]}
    cut, arrays, groups = _plan(library, shape, axis, {"x": x, "y": y}, results)
    numbers = groups * cut.splits * 3 * cut.rows if cut.splits > 1 else 0
    memory, partials, tickets = workspace(library, x, numbers, groups if numbers else 0)
    call = _Forward(
        cut, *arrays.values(), norms is not None, *(norms or (0.0, 0.0)), partials, tickets
    )
    launch(
        library, x, f"paired_forward<{CXX_TYPES[dtype]}>", groups * cut.splits, _THREADS, call,
        clear=(tickets, 4 * groups) if numbers else (0, 0),
    )  # fmt: skip
    del memory  # alive until here: freed memory is reused in the order of the stream
    return value, kept[0], kept[1]


def _backward(
    x: Array,
    y: Array,
    results: tuple[Array, Array | None, Array | None],
    upstream: Array,
    axis: int,
    norms: tuple[float, float] | None,
    needs: tuple[bool, bool],
) -> tuple[Array | None, Array | None]:
    library = adapter(x)
    x, y = library.kernel_ready(x), library.kernel_ready(y)
    shape, dtype = np.broadcast_shapes(x.shape, y.shape), library.dtype(x)
    if library.dtype(upstream) != compute_dtype(dtype):
        upstream = library.contiguous(upstream, compute_dtype(dtype))
    upstream = library.kernel_ready(upstream)
    gradients: dict[str, Array | None] = {}
    for name, array, needed in (("x", x, needs[0]), ("y", y, needs[1])):
        gradients[name] = library.empty_like(array, gradient_dtype(dtype)) if needed else None
    if 0 in shape:  # no pair: nothing to add up
        for gradient in gradients.values():
            if gradient is not None:
                gradient[...] = 0
        return gradients["x"], gradients["y"]
    numbers = dict(zip(("value", "norm_x", "norm_y"), results, strict=True))
    numbers["upstream"] = upstream
    plain = {
        f"grad_{name}": gradients[name] if tuple(array.shape) == shape else None
        for name, array in (("x", x), ("y", y))
    }
    settings = (norms is not None, *(norms or (0.0, 0.0)))
    if any(gradient is not None for gradient in plain.values()):
        cut, arrays, groups = _plan(library, shape, axis, {"x": x, "y": y} | plain, numbers)
        call = _Backward(cut, *arrays.values(), *settings)
        kernel = f"paired_backward<{CXX_TYPES[dtype]}>"
        launch(library, x, kernel, groups * cut.splits, _THREADS, call)
    for name, own, other in (("x", x, y), ("y", y, x)):
        if gradients[name] is not None and plain[f"grad_{name}"] is None:
            of_pairs = (numbers["value"], *_in_order(numbers, name), upstream)
            gradients[name] = _shared_gradient(library, shape, axis, own, other, of_pairs, settings)
    return gradients["x"], gradients["y"]


def _in_order(numbers: dict[str, Array | None], name: str) -> tuple[Array | None, Array | None]:
    """Norms of the array of that name, and of the other one."""
    norms = numbers["norm_x"], numbers["norm_y"]
    return norms if name == "x" else norms[::-1]


def _plan(
    library: Adapter,
    shape: tuple[int, ...],
    axis: int,
    rows: dict[str, Array | None],
    numbers: dict[str, Array | None],
) -> tuple[_Cut, dict[str, StridedArray], int]:
    """How rows are cut among blocks, arrays as the kernels take them, and groups of rows."""
    given = {name: array for name, array in (rows | numbers).items() if array is not None}
    strides = {
        name: _strides(library, array, shape, axis, name in rows) for name, array in given.items()
    }
    outer = [size for at, size in enumerate(shape) if at != axis]
    lengths, merged = merged_axes(
        outer, [[s for at, s in enumerate(own) if at != axis] for own in strides.values()],
        reorder=False,
    )  # fmt: skip
    check_axes(len(lengths), shape)
    arrays = {name: StridedArray() for name in rows | numbers}
    for name, outer_strides in zip(given, merged, strict=True):
        arrays[name] = strided_array(library, given[name], strides[name][axis], outer_strides)
    operands = {name: arrays[name] for name in rows if name in given}
    pack = _pack_size(library, {name: given[name] for name in operands}, operands, shape[axis])
    pairs = axes_of(lengths)
    cut = _cut(pairs, shape[axis], pack, all(array.step == 1 for array in operands.values()))
    return cut, arrays, math.ceil(pairs.count / cut.rows)


def _strides(
    library: Adapter, array: Array, shape: tuple[int, ...], axis: int, has_rows: bool
) -> tuple[int, ...]:
    """Strides along all axes of ``shape``, of an array of rows or of one with a number per pair."""
    if has_rows:
        return element_strides(library, library.broadcast_to(array, shape))
    outer = element_strides(library, array)
    return (*outer[:axis], 0, *outer[axis:])


def _cut(pairs: Axes, length: int, pack: int, dense: bool) -> _Cut:
    wanted = max(1, min(length // _ELEMENTS, _THREADS))
    if not dense:  # lanes across rows, as many as read neighbours together
        wanted = min(wanted, _THREADS // min(32, 1 << (pairs.count - 1).bit_length()))
    slots = 1 << (max(1, wanted).bit_length() - 1)
    splits = max(1, math.ceil(length / _SPLIT))
    split = math.ceil(math.ceil(length / splits) / pack) * pack
    return _Cut(pairs, length, pack, _THREADS // slots, dense, splits, split)


def _pack_size(
    library: Adapter, arrays: dict[str, Array], described: dict[str, StridedArray], length: int
) -> int:
    """Elements of rows that every thread can read and write with one instruction, or 1."""
    itemsize = DTYPE_BYTES[library.dtype(arrays["x"])]
    size = 8 if itemsize == 1 else 16 // itemsize
    for name, array in described.items():
        own = DTYPE_BYTES[library.dtype(arrays[name])]
        aligned = (array.data or 0) % min(16, size * own) == 0
        if array.step != 1 or not aligned or any(stride % size for stride in array.strides):
            return 1
    return size if length % size == 0 else 1


def _shared_gradient(
    library: Adapter,
    shape: tuple[int, ...],
    axis: int,
    own: Array,
    other: Array,
    numbers: Sequence[Array | None],
    settings: tuple[bool, float, float],
) -> Array:
    """Gradient of an array that was broadcast: the sum over its copies.

    Numbers per pair are values, norms of both arrays, and the upstream gradient.
    """
    arrays = [own, other, *numbers]
    strides = [
        (0,) * len(shape) if array is None else _strides(library, array, shape, axis, i < 2)
        for i, array in enumerate(arrays)
    ]
    kept = [at for at, size in enumerate(own.shape) if size > 1]
    summed = [at for at, size in enumerate(shape) if at not in kept]

    def described(axes: Sequence[int], reorder: bool) -> tuple[Axes, list[StridedArray]]:
        lengths, merged = merged_axes(
            [shape[at] for at in axes], [[s[at] for at in axes] for s in strides], reorder=reorder
        )
        check_axes(len(lengths), shape)
        return axes_of(lengths), [
            StridedArray() if array is None else strided_array(library, array, 0, m)
            for array, m in zip(arrays, merged, strict=True)
        ]

    kept_axes, of_kept = described(kept, False)
    summed_axes, of_summed = described(summed, True)
    lanes = 32 if kept_axes.count >= 32 else 1
    splits = math.ceil(summed_axes.count / (_THREADS // lanes * _COPIES))
    groups = math.ceil(kept_axes.count / lanes)
    dtype = library.dtype(own)
    gradient = library.empty(own, tuple(own.shape), gradient_dtype(dtype))
    memory, partials, tickets = workspace(library, own, groups * splits * lanes, groups)
    call = _SharedBackward(
        kept_axes, summed_axes, (StridedArray * 6)(*of_kept), (StridedArray * 6)(*of_summed),
        *settings, strided_array(library, gradient, 0, ()), lanes, splits, partials, tickets,
    )  # fmt: skip
    kernel = f"paired_shared_backward<{CXX_TYPES[dtype]}>"
    launch(library, own, kernel, groups * splits, _THREADS, call, clear=(tickets, 4 * groups))
    del memory  # alive until here: freed memory is reused in the order of the stream
    return gradient
