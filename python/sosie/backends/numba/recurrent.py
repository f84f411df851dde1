# SPDX-License-Identifier: Apache-2.0
"""The recurrent family by Numba; see `sosie.backends.native.recurrent` for what it computes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie.arrays import Array, adapter
from sosie.backends._gates import (
    is_channels_last,
    lstm_peephole_backward,
    peephole_rows,
    rows_of,
)
from sosie.backends.numba import _recurrent_kernels as kernels
from sosie.backends.numba._tasks import run_tasks
from sosie.reference.recurrent import SLOPES

__all__ = [
    "gru_backward",
    "gru_forward",
    "gru_reset_backward",
    "gru_reset_forward",
    "gru_update_backward",
    "gru_update_forward",
    "lstm_backward",
    "lstm_forward",
    "lstm_peephole_backward",
]

#: Numbers of the state that one task treats.
_TASK_NUMBERS = 1 << 14


def lstm_forward(
    inputs: Array,
    recurrent: Array | None,
    cell: Array,
    peephole: Array | None,
    gates: Array | None,
    hidden: Array,
    new_cell: Array,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,
) -> None:
    """Write gates and new state of an LSTM."""
    step = _Step(hidden, threads)
    step.run(
        kernels.lstm_forward_rows,
        [step.given(array) for array in (inputs, recurrent, cell)]
        + [step.peephole(peephole)]
        + [step.written(array) for array in (gates, hidden, new_cell)],
        SLOPES.get(recurrent_activation, 0.0),
        activation == "hard_tanh",
    )


def lstm_backward(
    gates: Array,
    cell: Array,
    new_cell: Array,
    grad_hidden: Array | None,
    grad_recurrent: Array | None,
    peephole: Array | None,
    grad_cell: Array,
    grad_gates: Array,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,
) -> None:
    """Write the gradients of an LSTM's step."""
    step = _Step(cell, threads)
    step.run(
        kernels.lstm_backward_rows,
        [step.given(array) for array in (gates, cell, new_cell, grad_hidden, grad_recurrent)]
        + [step.peephole(peephole), step.written(grad_cell), step.written(grad_gates)],
        SLOPES.get(recurrent_activation, 0.0),
        activation == "hard_tanh",
    )


def gru_forward(
    inputs: Array,
    recurrent: Array,
    hidden: Array,
    gates: Array,
    candidate: Array | None,
    new_hidden: Array,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,
) -> None:
    """Write gates and new state of a GRU whose linear map comes before the reset."""
    step = _Step(hidden, threads)
    step.run(
        kernels.gru_forward_rows,
        [step.given(array) for array in (inputs, recurrent, hidden)]
        + [step.written(array) for array in (gates, candidate, new_hidden)],
        SLOPES.get(recurrent_activation, 0.0),
        activation == "hard_tanh",
    )


def gru_reset_forward(
    inputs: Array,
    recurrent: Array,
    hidden: Array,
    gates: Array,
    reset_hidden: Array,
    *,
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,
) -> None:
    """Write r and z, the first two thirds of ``gates``, and ``r . h``."""
    step = _Step(hidden, threads)
    step.run(
        kernels.gru_reset_forward_rows,
        [step.given(array) for array in (inputs, recurrent, hidden)]
        + [step.written(array) for array in (gates, reset_hidden)],
        SLOPES.get(recurrent_activation, 0.0),
    )


def gru_update_forward(
    inputs: Array,
    recurrent: Array,
    hidden: Array,
    gates: Array,
    new_hidden: Array,
    *,
    activation: str = "tanh",
    threads: int | None = None,
) -> None:
    """Write n, the last third of ``gates``, and the new state."""
    step = _Step(hidden, threads)
    step.run(
        kernels.gru_update_forward_rows,
        [step.given(array) for array in (inputs, recurrent, hidden)]
        + [step.written(array) for array in (gates, new_hidden)],
        activation == "hard_tanh",
    )


def gru_backward(
    gates: Array,
    candidate: Array,
    hidden: Array,
    grad_hidden: Array | None,
    grad_recurrent: Array | None,
    carry: Array,
    grad_inputs: Array,
    grad_of_recurrent: Array,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,
) -> None:
    """Write the gradients of a GRU's step whose linear map comes before the reset."""
    step = _Step(hidden, threads)
    step.run(
        kernels.gru_backward_rows,
        [step.given(array) for array in (gates, candidate, hidden, grad_hidden, grad_recurrent)]
        + [step.written(array) for array in (carry, grad_inputs, grad_of_recurrent)],
        SLOPES.get(recurrent_activation, 0.0),
        activation == "hard_tanh",
    )


def gru_update_backward(
    gates: Array,
    hidden: Array,
    grad_hidden: Array | None,
    grad_recurrent: Array | None,
    carry: Array,
    grad_candidate: Array,
    grad_gates: Array,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,
) -> None:
    """Write the gradient before n's activation, and in the second half of ``grad_gates`` z's."""
    step = _Step(hidden, threads)
    step.run(
        kernels.gru_update_backward_rows,
        [step.given(array) for array in (gates, hidden, grad_hidden, grad_recurrent)]
        + [step.written(array) for array in (carry, grad_candidate, grad_gates)],
        SLOPES.get(recurrent_activation, 0.0),
        activation == "hard_tanh",
    )


def gru_reset_backward(
    gates: Array,
    hidden: Array,
    grad_reset_hidden: Array,
    carry: Array,
    grad_gates: Array,
    *,
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,
) -> None:
    """Write the gradient before r's activation, half of ``grad_gates``, and add to the carry."""
    step = _Step(hidden, threads)
    step.run(
        kernels.gru_reset_backward_rows,
        [step.given(array) for array in (gates, hidden, grad_reset_hidden)]
        + [step.written(array) for array in (carry, grad_gates)],
        SLOPES.get(recurrent_activation, 0.0),
    )


class _Step:
    """Arrays as rows, and what has to be copied back where their dtype is none of Numba's."""

    def __init__(self, state: Array, threads: int | None) -> None:
        self._state, self._threads = state, threads
        self._library = adapter(state)
        self._channels_last = is_channels_last(state)
        self._computed = np.float64 if self._library.dtype(state) == "float64" else np.float32
        self._copies: list[tuple[Array, NDArray[Any]]] = []

    def given(self, array: Array | None) -> NDArray[Any]:
        """The array as ``(rows, gates, length)``."""
        if array is None:
            return np.empty((0, 0, 0), self._computed)
        return self._rows(self._values(array))

    def written(self, array: Array | None) -> NDArray[Any]:
        """The same for an array that a kernel writes to."""
        if array is None:
            return np.empty((0, 0, 0), self._computed)
        values = self._values(array)
        if not np.shares_memory(values, self._library.to_numpy(array)):
            self._copies.append((array, values))
        return self._rows(values)

    def peephole(self, peephole: Array | None) -> NDArray[Any]:
        """Peepholes as ``(3, rows, length)``."""
        length = rows_of(self._state)[1]
        if peephole is None:
            return np.empty((3, 0, length), self._computed)
        values = self._values(peephole)
        rows = peephole_rows(peephole, self._state)
        if self._channels_last:
            values = np.moveaxis(values, 1, -1)
        return np.ascontiguousarray(values.reshape(3, rows, length))

    def run(self, kernel: Callable[..., None], arrays: list[NDArray[Any]], *options: Any) -> None:
        """Call a kernel on all rows, some at a time."""
        rows, length = rows_of(self._state)
        size = max(1, _TASK_NUMBERS // length)
        ranges = [(first, min(first + size, rows)) for first in range(0, rows, size)]
        run_tasks(
            lambda each: kernel(*each, *arrays, *options), ranges, self._library, self._threads
        )
        for array, values in self._copies:
            array[...] = self._library.from_numpy(values, array)

    def _values(self, array: Array) -> NDArray[Any]:
        return self._library.to_numpy(array).astype(self._computed, order="K", copy=False)

    def _rows(self, values: NDArray[Any]) -> NDArray[Any]:
        rows, length = rows_of(self._state)
        if self._channels_last:
            values = np.moveaxis(values, 1, -1)
        return values.reshape(rows, -1, length)
