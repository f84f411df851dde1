# SPDX-License-Identifier: Apache-2.0
"""Arrays as the structs of the kernels have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sosie.arrays import Adapter, Array

__all__ = ["CXX_TYPES", "DTYPE_BYTES", "element_strides", "merged_axes"]

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
