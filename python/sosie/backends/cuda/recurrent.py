# SPDX-License-Identifier: Apache-2.0
"""The recurrent family on CUDA devices; see `sosie.backends.native.recurrent`."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

from sosie.arrays import Array, adapter
from sosie.backends._gates import gradient_samples, peephole_rows, rows_of
from sosie.backends.cuda.launcher import launch
from sosie.backends.cuda.layout import CXX_TYPES, DTYPE_BYTES
from sosie.reference.recurrent import SLOPES

if TYPE_CHECKING:
    from sosie.arrays import Adapter

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

#: Threads of a block, and neighbours that each takes, by the bytes of one.
_THREADS = 256
_PACKS = {2: 4, 4: 4, 8: 2}
#: Neighbouring peepholes of a block, and samples of one that a thread adds up.
_LANES, _SAMPLES = 32, 32


# --- The kernels' structs, see csrc/cuda/recurrent.cuh --------------------------------------------


class _Rows(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("slope", ctypes.c_double),
        ("pack", ctypes.c_int),
        ("hard_sigmoid", ctypes.c_int),
        ("hard_tanh", ctypes.c_int),
    )


def _call_type(*fields: str) -> Any:
    """A struct of addresses, and of sizes where a name says so, behind the shape."""

    class Call(ctypes.Structure):
        _fields_ = (
            ("shape", _Rows),
            *(
                (name, ctypes.c_longlong if name == "peephole_rows" else ctypes.c_void_p)
                for name in fields
            ),
        )

    return Call


_LSTMForward = _call_type(
    "inputs", "recurrent", "cell", "peephole", "peephole_rows", "gates", "hidden", "new_cell"
)
_LSTMBackward = _call_type(
    "gates", "cell", "new_cell", "grad_hidden", "grad_recurrent", "peephole", "peephole_rows",
    "grad_cell", "grad_gates",
)  # fmt: skip
_GRUForward = _call_type("inputs", "recurrent", "hidden", "gates", "candidate", "new_hidden")
_GRUBackward = _call_type(
    "gates", "candidate", "hidden", "grad_hidden", "grad_recurrent", "carry", "grad_inputs",
    "grad_recurrent_out",
)  # fmt: skip


class _PeepholeBackward(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("samples", ctypes.c_longlong),
        ("grad_gates", ctypes.c_void_p),
        ("cell", ctypes.c_void_p),
        ("new_cell", ctypes.c_void_p),
        ("splits", ctypes.c_int),
        ("partials", ctypes.c_void_p),
        ("tickets", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
    )


# --- Steps ----------------------------------------------------------------------------------------


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
    """Write gates and new state of an LSTM; ``new_cell`` may be ``cell``."""
    _launch(
        "lstm_forward", _LSTMForward, hidden, activation, recurrent_activation, inputs=inputs,
        recurrent=recurrent, cell=cell, peephole=peephole, gates=gates, hidden=hidden,
        new_cell=new_cell,
    )  # fmt: skip


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
    _launch(
        "lstm_backward", _LSTMBackward, cell, activation, recurrent_activation, gates=gates,
        cell=cell, new_cell=new_cell, grad_hidden=grad_hidden, grad_recurrent=grad_recurrent,
        peephole=peephole, grad_cell=grad_cell, grad_gates=grad_gates,
    )  # fmt: skip


def lstm_peephole_backward(
    grad_gates: Array, cell: Array, new_cell: Array, gradient: Array
) -> None:
    """Write the gradient of the peepholes from those of the gates of many steps."""
    library = adapter(cell)
    weights, length, samples = gradient_samples(gradient, cell)
    summed = weights != math.prod(gradient.shape[1:])
    target = gradient
    if summed:  # of each pixel first, where a channel's lie behind each other
        target = library.empty(gradient, (3, *cell.shape[1:]), library.dtype(gradient))
    groups = -(-weights // _LANES)
    splits = max(1, -(-samples // (_THREADS // _LANES * _SAMPLES)))
    numbers = 3 * _LANES * groups * splits
    workspace = library.empty(cell, (numbers + (groups + 1) // 2,), "float64")
    partials = library.argument(workspace)[0]
    call = _PeepholeBackward(
        weights, length, samples, *_addresses(library, grad_gates, cell, new_cell), splits,
        partials, partials + 8 * numbers, library.argument(target)[0],
    )  # fmt: skip
    if groups:
        kernel = f"lstm_peephole_backward<{CXX_TYPES[library.dtype(grad_gates)]}>"
        launch(library, cell, kernel, groups * splits, _THREADS, call,
               clear=(call.tickets, 4 * groups))  # fmt: skip
    if summed:
        axes = tuple(range(2, target.ndim))
        gradient[...] = target.sum(axes).reshape(gradient.shape)


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
    _launch(
        "gru_forward", _GRUForward, hidden, activation, recurrent_activation, inputs=inputs,
        recurrent=recurrent, hidden=hidden, gates=gates, candidate=candidate,
        new_hidden=new_hidden,
    )  # fmt: skip


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
    _launch(
        "gru_reset_forward", _GRUForward, hidden, "tanh", recurrent_activation, inputs=inputs,
        recurrent=recurrent, hidden=hidden, gates=gates, candidate=reset_hidden,
    )  # fmt: skip


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
    _launch(
        "gru_update_forward", _GRUForward, hidden, activation, "sigmoid", inputs=inputs,
        recurrent=recurrent, hidden=hidden, gates=gates, new_hidden=new_hidden,
    )  # fmt: skip


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
    _launch(
        "gru_backward", _GRUBackward, hidden, activation, recurrent_activation, gates=gates,
        candidate=candidate, hidden=hidden, grad_hidden=grad_hidden,
        grad_recurrent=grad_recurrent, carry=carry, grad_inputs=grad_inputs,
        grad_recurrent_out=grad_of_recurrent,
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
    threads: int | None = None,  # noqa: ARG001
) -> None:
    """Write the gradient before n's activation, and in the second half of ``grad_gates`` z's."""
    _launch(
        "gru_update_backward", _GRUBackward, hidden, activation, recurrent_activation,
        gates=gates, hidden=hidden, grad_hidden=grad_hidden, grad_recurrent=grad_recurrent,
        carry=carry, grad_inputs=grad_candidate, grad_recurrent_out=grad_gates,
    )  # fmt: skip


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
    _launch(
        "gru_reset_backward", _GRUBackward, hidden, "tanh", recurrent_activation, gates=gates,
        hidden=hidden, grad_recurrent=grad_reset_hidden, carry=carry,
        grad_recurrent_out=grad_gates,
    )  # fmt: skip


# --- Launches -------------------------------------------------------------------------------------


def _launch(
    kernel: str,
    call_type: Any,
    state: Array,
    activation: str,
    recurrent_activation: str,
    **arrays: Array | None,
) -> None:
    """Launch a kernel on a step's arrays; ``state`` is one of them, with one gate."""
    library = adapter(state)
    rows, length = rows_of(state)
    numbers = rows * length
    if numbers == 0:
        return
    given = {name: array for name, array in arrays.items() if array is not None}
    addresses = {name: library.argument(array)[0] for name, array in given.items()}
    dtypes = {name: library.dtype(array) for name, array in given.items()}
    # Gates are of the dtype of what goes into them; the cell may be wider.
    dtype = dtypes["inputs" if "inputs" in dtypes else "gates"]
    pack = _PACKS[DTYPE_BYTES[dtype]]
    if length % pack or any(
        address % (pack * DTYPE_BYTES[dtypes[name]]) for name, address in addresses.items()
    ):
        pack = 1
    slope = SLOPES.get(recurrent_activation, 0.0)
    hard = slope != 0.0, activation == "hard_tanh"
    call = call_type(_Rows(rows, length, slope, pack, *hard), **addresses)
    if "peephole" in arrays:
        call.peephole_rows = peephole_rows(arrays["peephole"], state)
    name = f"{kernel}<{CXX_TYPES[dtype]}, {'false' if any(hard) else 'true'}>"
    launch(library, state, name, -(-numbers // (pack * _THREADS)), _THREADS, call)


def _addresses(library: Adapter, *arrays: Array) -> list[int]:
    return [library.argument(array)[0] for array in arrays]
