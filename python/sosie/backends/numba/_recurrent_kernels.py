# SPDX-License-Identifier: Apache-2.0
"""Gates of a range of rows of a convolutional LSTM or GRU, as Numba kernels.

Arrays are ``(rows, gates, length)`` of one dtype, float32 or float64; peepholes are ``(3, rows,
length)`` with rows that repeat. Arrays of no row are absent. ``slope`` is that of a hard sigmoid,
or 0 for the logistic function. The formulas are those of `sosie.reference.recurrent`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie.backends.numba._tasks import compiled

__all__ = [
    "gru_backward_rows",
    "gru_forward_rows",
    "gru_reset_backward_rows",
    "gru_reset_forward_rows",
    "gru_update_backward_rows",
    "gru_update_forward_rows",
    "lstm_backward_rows",
    "lstm_forward_rows",
]

Rows = NDArray[Any]


@compiled
def _gate(x: float, slope: float) -> float:
    if slope != 0.0:
        return min(max(slope * x + 0.5, 0.0), 1.0)
    e = math.exp(-abs(x))
    return (e if x < 0.0 else 1.0) / (1.0 + e)


@compiled
def _value(x: float, hard: bool) -> float:
    return min(max(x, -1.0), 1.0) if hard else math.tanh(x)


@compiled
def _gate_slope(y: float, slope: float) -> float:
    if slope != 0.0:
        return slope if 0.0 < y < 1.0 else 0.0
    return y * (1.0 - y)


@compiled
def _value_slope(y: float, hard: bool) -> float:
    if hard:
        return 1.0 if -1.0 < y < 1.0 else 0.0
    return 1.0 - y * y


@compiled
def _or_zero(rows: Rows, row: int, i: int) -> float:
    return np.float64(rows[row, 0, i]) if rows.shape[0] else 0.0


@compiled
def lstm_forward_rows(
    first: int, end: int, inputs: Rows, recurrent: Rows, cell: Rows, peephole: Rows, gates: Rows,
    hidden: Rows, new_cell: Rows, slope: float, hard: bool,
) -> None:  # fmt: skip
    """Gates and new state."""
    a = np.empty(4, np.float64)
    for row in range(first, end):
        for i in range(cell.shape[2]):
            for k in range(4):
                a[k] = inputs[row, k, i]
                if recurrent.shape[0]:
                    a[k] += recurrent[row, k, i]
            c = np.float64(cell[row, 0, i])
            p_row = row % peephole.shape[1] if peephole.shape[1] else -1
            if p_row >= 0:
                a[0] += peephole[0, p_row, i] * c
                a[1] += peephole[1, p_row, i] * c
            a[0], a[1], a[2] = _gate(a[0], slope), _gate(a[1], slope), _value(a[2], hard)
            new = a[1] * c + a[0] * a[2]
            if p_row >= 0:
                a[3] += peephole[2, p_row, i] * new
            a[3] = _gate(a[3], slope)
            new_cell[row, 0, i] = new
            hidden[row, 0, i] = a[3] * _value(new, hard)
            if gates.shape[0]:
                for k in range(4):
                    gates[row, k, i] = a[k]


@compiled
def lstm_backward_rows(
    first: int, end: int, gates: Rows, cell: Rows, new_cell: Rows, grad_hidden: Rows,
    grad_recurrent: Rows, peephole: Rows, grad_cell: Rows, grad_gates: Rows, slope: float,
    hard: bool,
) -> None:  # fmt: skip
    """Gradients before the activations; that of the new cell becomes that of the cell."""
    for row in range(first, end):
        for i in range(cell.shape[2]):
            gate_i, gate_f = np.float64(gates[row, 0, i]), np.float64(gates[row, 1, i])
            gate_g, gate_o = np.float64(gates[row, 2, i]), np.float64(gates[row, 3, i])
            t = _value(np.float64(new_cell[row, 0, i]), hard)
            dh = _or_zero(grad_hidden, row, i) + _or_zero(grad_recurrent, row, i)
            d_o = dh * t * _gate_slope(gate_o, slope)
            dc = np.float64(grad_cell[row, 0, i]) + dh * gate_o * _value_slope(t, hard)
            p_row = row % peephole.shape[1] if peephole.shape[1] else -1
            if p_row >= 0:
                dc += d_o * peephole[2, p_row, i]
            d_i = dc * gate_g * _gate_slope(gate_i, slope)
            d_f = dc * cell[row, 0, i] * _gate_slope(gate_f, slope)
            before = dc * gate_f
            if p_row >= 0:
                before += d_i * peephole[0, p_row, i] + d_f * peephole[1, p_row, i]
            grad_gates[row, 0, i] = d_i
            grad_gates[row, 1, i] = d_f
            grad_gates[row, 2, i] = dc * gate_i * _value_slope(gate_g, hard)
            grad_gates[row, 3, i] = d_o
            grad_cell[row, 0, i] = before


@compiled
def gru_forward_rows(
    first: int, end: int, inputs: Rows, recurrent: Rows, hidden: Rows, gates: Rows,
    candidate: Rows, new_hidden: Rows, slope: float, hard: bool,
) -> None:  # fmt: skip
    """Gates and new state; the linear map comes before the reset."""
    for row in range(first, end):
        for i in range(hidden.shape[2]):
            r = _gate(np.float64(inputs[row, 0, i]) + recurrent[row, 0, i], slope)
            z = _gate(np.float64(inputs[row, 1, i]) + recurrent[row, 1, i], slope)
            u = np.float64(recurrent[row, 2, i])
            n = _value(inputs[row, 2, i] + r * u, hard)
            new_hidden[row, 0, i] = (1.0 - z) * n + z * hidden[row, 0, i]
            gates[row, 0, i], gates[row, 1, i], gates[row, 2, i] = r, z, n
            if candidate.shape[0]:
                candidate[row, 0, i] = u


@compiled
def gru_reset_forward_rows(
    first: int, end: int, inputs: Rows, recurrent: Rows, hidden: Rows, gates: Rows,
    reset_hidden: Rows, slope: float,
) -> None:  # fmt: skip
    """r, z and r h."""
    for row in range(first, end):
        for i in range(hidden.shape[2]):
            for k in range(2):
                a = np.float64(inputs[row, k, i]) + recurrent[row, k, i]
                gates[row, k, i] = _gate(a, slope)
            reset_hidden[row, 0, i] = np.float64(gates[row, 0, i]) * hidden[row, 0, i]


@compiled
def gru_update_forward_rows(
    first: int, end: int, inputs: Rows, recurrent: Rows, hidden: Rows, gates: Rows,
    new_hidden: Rows, hard: bool,
) -> None:  # fmt: skip
    """n and the new state."""
    for row in range(first, end):
        for i in range(hidden.shape[2]):
            n = _value(np.float64(inputs[row, 2, i]) + recurrent[row, 0, i], hard)
            z = np.float64(gates[row, 1, i])
            gates[row, 2, i] = n
            new_hidden[row, 0, i] = (1.0 - z) * n + z * hidden[row, 0, i]


@compiled
def gru_backward_rows(
    first: int, end: int, gates: Rows, candidate: Rows, hidden: Rows, grad_hidden: Rows,
    grad_recurrent: Rows, carry: Rows, grad_inputs: Rows, grad_of_recurrent: Rows, slope: float,
    hard: bool,
) -> None:  # fmt: skip
    """Gradients before the activations; the linear map comes before the reset."""
    for row in range(first, end):
        for i in range(hidden.shape[2]):
            r, z = np.float64(gates[row, 0, i]), np.float64(gates[row, 1, i])
            n = np.float64(gates[row, 2, i])
            dh = _or_zero(grad_hidden, row, i) + _or_zero(grad_recurrent, row, i)
            dh += carry[row, 0, i]
            d_n = dh * (1.0 - z) * _value_slope(n, hard)
            d_z = dh * (hidden[row, 0, i] - n) * _gate_slope(z, slope)
            d_r = d_n * candidate[row, 0, i] * _gate_slope(r, slope)
            grad_inputs[row, 0, i] = grad_of_recurrent[row, 0, i] = d_r
            grad_inputs[row, 1, i] = grad_of_recurrent[row, 1, i] = d_z
            grad_inputs[row, 2, i] = d_n
            grad_of_recurrent[row, 2, i] = d_n * r
            carry[row, 0, i] = dh * z


@compiled
def gru_update_backward_rows(
    first: int, end: int, gates: Rows, hidden: Rows, grad_hidden: Rows, grad_recurrent: Rows,
    carry: Rows, grad_candidate: Rows, grad_gates: Rows, slope: float, hard: bool,
) -> None:  # fmt: skip
    """Gradients before the activations of n and z."""
    for row in range(first, end):
        for i in range(hidden.shape[2]):
            z, n = np.float64(gates[row, 1, i]), np.float64(gates[row, 2, i])
            dh = _or_zero(grad_hidden, row, i) + _or_zero(grad_recurrent, row, i)
            dh += carry[row, 0, i]
            grad_candidate[row, 0, i] = dh * (1.0 - z) * _value_slope(n, hard)
            grad_gates[row, 1, i] = dh * (hidden[row, 0, i] - n) * _gate_slope(z, slope)
            carry[row, 0, i] = dh * z


@compiled
def gru_reset_backward_rows(
    first: int, end: int, gates: Rows, hidden: Rows, grad_reset_hidden: Rows, carry: Rows,
    grad_gates: Rows, slope: float,
) -> None:  # fmt: skip
    """Gradient before the activation of r."""
    for row in range(first, end):
        for i in range(hidden.shape[2]):
            r, d = np.float64(gates[row, 0, i]), np.float64(grad_reset_hidden[row, 0, i])
            grad_gates[row, 0, i] = d * hidden[row, 0, i] * _gate_slope(r, slope)
            carry[row, 0, i] += d * r
