# SPDX-License-Identifier: Apache-2.0
"""How executors look at gates: as rows, see ``csrc/cpu/recurrent-call.hpp``."""

from __future__ import annotations

import math

from sosie.arrays import Array

__all__ = [
    "gradient_samples",
    "is_channels_last",
    "lstm_peephole_backward",
    "peephole_rows",
    "rows_of",
]


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


def gradient_samples(gradient: Array, cell: Array) -> tuple[int, int, int]:
    """How the gradient of peepholes ``(3, C, ...)`` is summed from cells ``(M, C, ...)``.

    Returns
    -------
    weights : int
        Numbers of each of the three. Where channels do not lie last they are those of a cell, even
        if the gradient has one per channel.
    length : int
        Of a run of them.
    samples : int
        Rows of so many numbers that the cells have.
    """
    rows, length = rows_of(cell)
    weights = peephole_rows(gradient, cell) * length
    return weights, length, rows * length // max(weights, 1)


def lstm_peephole_backward(
    grad_gates: Array, cell: Array, new_cell: Array, gradient: Array
) -> None:
    """Write the gradient of the peepholes from those of the gates of many steps.

    By operations of the array library, for host memory. See
    `sosie.reference.recurrent.lstm_peephole_backward`; ``gradient`` is ``(3, C, ...)`` with spatial
    axes of the cell's length or 1, and lies in memory as the peepholes do.
    """
    channels = cell.shape[1]
    axes = (0, *(axis for axis in range(2, cell.ndim) if gradient.shape[axis] == 1))
    for hole, (gate, state) in enumerate(((0, cell), (1, cell), (3, new_cell))):
        products = grad_gates[:, gate * channels : (gate + 1) * channels] * state
        gradient[hole] = products.sum(axes).reshape(gradient.shape[1:])
