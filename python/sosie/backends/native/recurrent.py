# SPDX-License-Identifier: Apache-2.0
"""The recurrent family by the compiled kernels.

States are dense arrays ``(N, C, ...)``, contiguous or with the channels last, all of a call in one
order; arrays of gates have a multiple of C channels. Results are written into arrays of the caller,
of float16, bfloat16 or the dtype that is computed in; cell states are always of the latter.
"""

from __future__ import annotations

from sosie import _core
from sosie.arrays import CODES, Array, adapter
from sosie.backends._gates import lstm_peephole_backward, peephole_rows, rows_of
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

#: Codes of ``sosie::GRUPart``.
_WHOLE, _RESET, _UPDATE = range(3)


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
    """Write gates and new state of an LSTM; ``new_cell`` may be ``cell``.

    See `sosie.reference.recurrent.lstm_forward`. The peephole lies as the cell does, or has length
    1 along spatial axes where channels lie last.
    """
    _core.lstm_forward(
        _shape(hidden, activation, recurrent_activation),
        _addresses(inputs, recurrent, cell, peephole, gates, hidden, new_cell),
        peephole_rows(peephole, hidden),
        _threads(hidden, threads),
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
    """Write the gradients of an LSTM's step.

    That of the new state is the sum of ``grad_hidden`` and ``grad_recurrent``; ``grad_cell``, of
    the new cell state, is overwritten by that of the cell state before the step.
    """
    _core.lstm_backward(
        _shape(gates, activation, recurrent_activation, 4),
        _addresses(
            gates, cell, new_cell, grad_hidden, grad_recurrent, peephole, grad_cell, grad_gates
        ),
        peephole_rows(peephole, cell),
        _threads(gates, threads),
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
    """Write gates and new state of a GRU whose linear map comes before the reset.

    ``candidate`` becomes a copy of the last third of ``recurrent``.
    """
    _core.gru_forward(
        _shape(hidden, activation, recurrent_activation),
        _WHOLE,
        _addresses(inputs, recurrent, hidden, gates, candidate, new_hidden),
        _threads(hidden, threads),
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
    _core.gru_forward(
        _shape(hidden, "tanh", recurrent_activation),
        _RESET,
        _addresses(inputs, recurrent, hidden, gates, reset_hidden, None),
        _threads(hidden, threads),
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
    _core.gru_forward(
        _shape(hidden, activation, "sigmoid"),
        _UPDATE,
        _addresses(inputs, recurrent, hidden, gates, None, new_hidden),
        _threads(hidden, threads),
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
    """Write the gradients of a GRU's step whose linear map comes before the reset.

    That of the new state is the sum of ``grad_hidden``, ``grad_recurrent`` and ``carry``; the last
    is overwritten by what goes past the convolution to the state before the step.
    """
    _core.gru_backward(
        _shape(hidden, activation, recurrent_activation),
        _WHOLE,
        _addresses(
            gates, candidate, hidden, grad_hidden, grad_recurrent, carry, grad_inputs,
            grad_of_recurrent,
        ),
        _threads(hidden, threads),
    )  # fmt: skip


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
    """Write the gradient before n's activation, and in the second half of ``grad_gates`` z's.

    The gradient of the new state is made up as for `gru_backward`.
    """
    _core.gru_backward(
        _shape(hidden, activation, recurrent_activation),
        _UPDATE,
        _addresses(
            gates, None, hidden, grad_hidden, grad_recurrent, carry, grad_candidate, grad_gates
        ),
        _threads(hidden, threads),
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
    _core.gru_backward(
        _shape(hidden, "tanh", recurrent_activation),
        _RESET,
        _addresses(gates, None, hidden, None, grad_reset_hidden, carry, None, grad_gates),
        _threads(hidden, threads),
    )


def _shape(
    array: Array, activation: str, recurrent_activation: str, gates: int = 1
) -> tuple[int, int, int, float, bool]:
    rows, length = rows_of(array)
    dtype = CODES[adapter(array).dtype(array)]
    slope = SLOPES.get(recurrent_activation, 0.0)
    return rows, length // gates, dtype, slope, activation == "hard_tanh"


def _addresses(*arrays: Array | None) -> list[int]:
    return [0 if array is None else adapter(array).argument(array)[0] for array in arrays]


def _threads(array: Array, threads: int | None) -> int:
    return adapter(array).threads() if threads is None else threads
