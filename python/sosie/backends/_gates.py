# SPDX-License-Identifier: Apache-2.0
"""How executors look at gates: as rows, see ``csrc/cpu/recurrent-call.hpp``."""

from __future__ import annotations

import math

from sosie.arrays import Array

__all__ = ["is_channels_last", "peephole_rows", "rows_of"]


def is_channels_last(state: Array) -> bool:
    """Whether a dense array ``(N, C, ...)`` lies channel by channel, pixel after pixel.

    Where both orders are the same, the answer is that of contiguous arrays.
    """
    shape, strides = tuple(state.shape), _strides(state)
    if len(shape) < 3 or shape[1] == 1 or math.prod(shape[2:]) == 1:
        return False
    return strides[1] == 1


def _strides(array: Array) -> tuple[int, ...]:
    """In elements."""
    if callable(getattr(array, "stride", None)):
        return tuple(array.stride())
    return tuple(stride // array.itemsize for stride in array.strides)


def rows_of(state: Array) -> tuple[int, int]:
    """Rows of a dense array ``(N, C, ...)``, and the length of a run in each."""
    batch, channels, *spatial = state.shape
    pixels = math.prod(spatial)
    if is_channels_last(state):
        return batch * pixels, channels
    return batch, channels * pixels


def peephole_rows(peephole: Array | None, state: Array) -> int:
    """Rows of each of the three peepholes, which repeat along those of ``state``.

    They are ``(3, C, ...)`` of the state's shape and order in memory, or ``(3, C, 1, ...)`` where
    channels lie last.
    """
    if peephole is None or not is_channels_last(state):
        return 1
    return math.prod(peephole.shape[2:])
