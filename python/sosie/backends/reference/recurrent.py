# SPDX-License-Identifier: Apache-2.0
"""The recurrent family by its float64 definition; see `sosie.backends.native.recurrent`."""

from __future__ import annotations

from typing import Any

import numpy as np

from sosie.arrays import Array, adapter
from sosie.reference import recurrent as definition

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
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write gates and new state of an LSTM."""
    arguments = _values(inputs, recurrent, cell, peephole)
    results = definition.lstm_forward(
        *arguments, activation=activation, recurrent_activation=recurrent_activation
    )
    for target, values in zip((gates, hidden, new_cell), results, strict=True):
        _write(target, values)


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
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write the gradients of an LSTM's step."""
    upstream = _total(grad_hidden, grad_recurrent)
    arguments = _values(gates, cell, new_cell, upstream, grad_cell, peephole)
    results = definition.lstm_backward(
        *arguments, activation=activation, recurrent_activation=recurrent_activation
    )
    for target, values in zip((grad_gates, grad_cell), results, strict=True):
        _write(target, values)


def lstm_peephole_backward(
    grad_gates: Array, cell: Array, new_cell: Array, gradient: Array
) -> None:
    """Write the gradient of the peepholes from those of the gates of many steps."""
    values = definition.lstm_peephole_backward(*_values(grad_gates, cell, new_cell))
    axes = tuple(axis for axis in range(2, gradient.ndim) if gradient.shape[axis] == 1)
    _write(gradient, values.sum(axes, keepdims=True))


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
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write gates and new state of a GRU whose linear map comes before the reset."""
    arguments = _values(inputs, recurrent, hidden)
    results = definition.gru_forward(
        *arguments, activation=activation, recurrent_activation=recurrent_activation
    )
    for target, values in zip((gates, new_hidden), results, strict=True):
        _write(target, values)
    _write(candidate, arguments[1][:, 2 * hidden.shape[1] :])


def gru_reset_forward(
    inputs: Array,
    recurrent: Array,
    hidden: Array,
    gates: Array,
    reset_hidden: Array,
    *,
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write r and z, the first two thirds of ``gates``, and ``r . h``."""
    arguments = _values(inputs, recurrent, hidden)
    both, reset = definition.gru_reset_forward(
        *arguments, recurrent_activation=recurrent_activation
    )
    _write(gates[:, : both.shape[1]], both)
    _write(reset_hidden, reset)


def gru_update_forward(
    inputs: Array,
    recurrent: Array,
    hidden: Array,
    gates: Array,
    new_hidden: Array,
    *,
    activation: str = "tanh",
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write n, the last third of ``gates``, and the new state."""
    channels = hidden.shape[1]
    update = gates[:, channels : 2 * channels]
    arguments = _values(inputs, recurrent, update, hidden)
    candidate, new = definition.gru_update_forward(*arguments, activation=activation)
    _write(gates[:, 2 * channels :], candidate)
    _write(new_hidden, new)


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
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write the gradients of a GRU's step whose linear map comes before the reset."""
    upstream = _total(grad_hidden, grad_recurrent, carry)
    arguments = _values(gates, candidate, hidden, upstream)
    results = definition.gru_backward(
        *arguments, activation=activation, recurrent_activation=recurrent_activation
    )
    for target, values in zip((grad_inputs, grad_of_recurrent, carry), results, strict=True):
        _write(target, values)


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
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write the gradient before n's activation, and in the second half of ``grad_gates`` z's."""
    upstream = _total(grad_hidden, grad_recurrent, carry)
    arguments = _values(gates, hidden, upstream)
    of_update, of_candidate, past = definition.gru_update_backward(
        *arguments, activation=activation, recurrent_activation=recurrent_activation
    )
    _write(grad_candidate, of_candidate)
    _write(grad_gates[:, hidden.shape[1] :], of_update)
    _write(carry, past)


def gru_reset_backward(
    gates: Array,
    hidden: Array,
    grad_reset_hidden: Array,
    carry: Array,
    grad_gates: Array,
    *,
    recurrent_activation: str = "sigmoid",
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write the gradient before r's activation, half of ``grad_gates``, and add to the carry."""
    channels = hidden.shape[1]
    arguments = _values(gates[:, :channels], hidden, grad_reset_hidden)
    of_reset, past = definition.gru_reset_backward(
        *arguments, recurrent_activation=recurrent_activation
    )
    _write(grad_gates[:, :channels], of_reset)
    _write(carry, _total(carry) + past)


def _values(*arrays: Array | None) -> Any:
    return [
        None if array is None else np.asarray(adapter(array).to_numpy(array), np.float64)
        for array in arrays
    ]


def _total(*arrays: Array | None) -> Any:
    """The sum of those that are there."""
    return sum((values for values in _values(*arrays) if values is not None), start=np.float64(0.0))


def _write(target: Array | None, values: Any) -> None:
    if target is not None:
        target[...] = adapter(target).from_numpy(values, target)
