# SPDX-License-Identifier: Apache-2.0
"""Arrays as the structs of the kernels have them."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from sosie.arrays import CODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sosie.arrays import Adapter, Array

__all__ = [
    "CXX_TYPES",
    "DTYPE_BYTES",
    "DTYPE_CODES",
    "Axes",
    "StridedArray",
    "axes_of",
    "check_axes",
    "element_strides",
    "merged_axes",
    "strided_array",
    "workspace",
]

#: Storage types of the kernels.
CXX_TYPES = {
    "bool": "unsigned char",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "float16": "half",
    "bfloat16": "bfloat16",
    "float32": "float",
    "float64": "double",
}
DTYPE_BYTES = {"bool": 1, "uint8": 1, "uint16": 2, "float16": 2, "bfloat16": 2, "float32": 4,
               "float64": 8}  # fmt: skip
#: Codes of ``sosie::DTypeCode``.
DTYPE_CODES = CODES | {"bool": CODES["uint8"]}

_MOST_AXES = 8


class Axes(ctypes.Structure):
    """``sosie::Axes``."""

    _fields_ = (
        ("count", ctypes.c_longlong),
        ("lengths", ctypes.c_longlong * _MOST_AXES),
        ("axes", ctypes.c_int),
    )


class StridedArray(ctypes.Structure):
    """``sosie::StridedArray``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("step", ctypes.c_longlong),
        ("strides", ctypes.c_longlong * _MOST_AXES),
        ("dtype", ctypes.c_int),
    )


def axes_of(lengths: Sequence[int]) -> Axes:
    """Axes of these lengths, outermost first."""
    return Axes(math.prod(lengths), (ctypes.c_longlong * _MOST_AXES)(*lengths), len(lengths))


def strided_array(
    library: Adapter, array: Array, step: int, strides: Sequence[int]
) -> StridedArray:
    """An array with the strides, in elements, of axes that it shares with others."""
    return StridedArray(
        library.argument(array)[0],
        step,
        (ctypes.c_longlong * _MOST_AXES)(*strides),
        DTYPE_CODES[library.dtype(array)],
    )


def check_axes(axes: int, shape: Sequence[int]) -> None:
    """Raise ValueError unless the kernels can walk so many axes."""
    if axes > _MOST_AXES:
        raise ValueError(
            f"expected arrays that at most {_MOST_AXES} strides walk, got {axes} for shape "
            f"{tuple(shape)}"
        )


def workspace(library: Adapter, like: Array, numbers: int, tickets: int) -> tuple[Array, int, int]:
    """Memory for float64 numbers and tickets of 4 bytes: the array, and where both begin."""
    memory = library.empty(like, (numbers + (tickets + 1) // 2,), "float64")
    address = library.argument(memory)[0]
    return memory, address, address + 8 * numbers


def element_strides(library: Adapter, array: Array) -> tuple[int, ...]:
    """Strides that count elements."""
    _, _, strides, in_bytes = library.argument(array)
    if not in_bytes:
        return tuple(strides)
    size = DTYPE_BYTES[library.dtype(array)]
    return tuple(stride // size for stride in strides)


def merged_axes(
    shape: Sequence[int], strides: Sequence[Sequence[int]], *, reorder: bool = True
) -> tuple[list[int], list[list[int]]]:
    """Fewest axes that walk the same elements of several arrays, in an order that all share.

    Parameters
    ----------
    shape : sequence of int
        Common shape.
    strides : sequence of strides, in elements
        One per array; 0 along broadcast axes.
    reorder : bool
        Whether the order of the elements is free: then the largest strides are outermost.

    Returns
    -------
    lengths : list of int
        At least one axis.
    merged : list of list of int
        Strides per array.

    Examples
    --------
    >>> merged_axes((2, 3, 4, 5), [(60, 20, 5, 1), (20, 0, 5, 1)])
    ([2, 3, 20], [[60, 20, 1], [20, 0, 1]])
    """
    axes = [axis for axis, length in enumerate(shape) if length > 1]
    if reorder:
        axes.sort(key=lambda axis: tuple(-abs(s[axis]) for s in strides))
    lengths: list[int] = []
    merged: list[list[int]] = [[] for _ in strides]
    for axis in axes:
        length = shape[axis]
        if lengths and all(m[-1] == length * s[axis] for m, s in zip(merged, strides, strict=True)):
            lengths[-1] *= length
            for m, s in zip(merged, strides, strict=True):
                m[-1] = s[axis]
        else:
            lengths.append(length)
            for m, s in zip(merged, strides, strict=True):
                m.append(s[axis])
    return (lengths, merged) if lengths else ([1], [[1] for _ in strides])
