# SPDX-License-Identifier: Apache-2.0
"""Weights of other libraries' convolutional LSTMs, as state dicts of `sosie.nn.ConvLSTMCell`.

Nothing but the arrays is needed, of NumPy or torch; the other library need not be installed.
Options that are no weights have to be given to the cell: see each function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["from_convlstm_pytorch", "from_flax", "from_gate_order", "from_keras", "reorder_gates"]

#: The order of gates here, which is torch's.
GATES = "ifgo"


def reorder_gates(weight: Any, order: str) -> Tensor:
    """A weight or bias whose first axis holds gates, with the gates in the order i, f, g, o.

    Parameters
    ----------
    weight : array of shape (4 C, ...)
    order : str
        The order in which they are: a permutation of "ifgo", where "c" may stand for "g".

    Raises
    ------
    ValueError
        The order is none, or the first axis cannot be cut into four.

    Examples
    --------
    >>> reorder_gates(np.array([1.0, 2.0, 3.0, 4.0]), "ifog")
    tensor([1., 2., 4., 3.], dtype=torch.float64)
    """
    named = order.replace("c", "g")
    if sorted(named) != sorted(GATES):
        raise ValueError(f"expected an order of the gates {GATES}, got {order!r}")
    tensor = torch.as_tensor(weight if isinstance(weight, Tensor) else np.asarray(weight)).detach()
    if tensor.ndim == 0 or tensor.shape[0] % 4:
        raise ValueError(f"expected an array of shape (4 C, ...), got {tuple(tensor.shape)}")
    parts = dict(zip(named, tensor.chunk(4), strict=True))
    return torch.cat([parts[gate] for gate in GATES])


def from_gate_order(
    weight_ih: Any, weight_hh: Any, bias: Any | None = None, *, order: str = GATES
) -> dict[str, Tensor]:
    """Weights in torch's layout ``(4 C, C_in, ...)``, with the gates in any order.

    Examples
    --------
    >>> from sosie.nn import ConvLSTMCell
    >>> cell = ConvLSTMCell(1, 2, kernel_size=3)
    >>> weights = from_gate_order(np.zeros((8, 1, 3, 3)), np.zeros((8, 2, 3, 3)), order="ifog")
    >>> cell.load_state_dict(weights, strict=False)
    _IncompatibleKeys(missing_keys=['bias'], unexpected_keys=[])
    """
    found = {
        "weight_ih": reorder_gates(weight_ih, order),
        "weight_hh": reorder_gates(weight_hh, order),
    }
    if bias is not None:
        found["bias"] = reorder_gates(bias, order)
    return found


def from_keras(weights: Sequence[Any]) -> dict[str, Tensor]:
    """What ``get_weights()`` of Keras' ``ConvLSTM1D``, ``ConvLSTM2D`` or ``ConvLSTM3D`` gives.

    Keras' default ``padding="valid"`` is the cell's too; its "same" is the cell's "same_upper". Its
    strides and ``dilation_rate`` are the cell's stride and dilation. Channels come first here.

    Parameters
    ----------
    weights : sequence of array
        Kernel ``(..., C_in, 4 C)``, recurrent kernel ``(..., C, 4 C)`` and bias, if there is one.

    Examples
    --------
    >>> weights = [np.zeros((3, 3, 1, 8)), np.zeros((3, 3, 2, 8)), np.zeros(8)]
    >>> from_keras(weights)["weight_ih"].shape
    torch.Size([8, 1, 3, 3])
    """
    kernel, recurrent_kernel, *bias = weights
    return from_gate_order(
        _channels_first(kernel), _channels_first(recurrent_kernel), *bias, order="ifco"
    )


def from_flax(params: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """The parameters of ``flax.linen.ConvLSTMCell``: ``{"ih": ..., "hh": ...}``.

    Its padding "SAME" is the cell's "same_upper". It has two biases, which add up, and adds 1 to
    the forget gate, which goes into the bias here.

    Examples
    --------
    >>> one = {"kernel": np.zeros((3, 3, 1, 4)), "bias": np.zeros(4)}
    >>> from_flax({"ih": one, "hh": one})["bias"]
    tensor([0., 1., 0., 0.], dtype=torch.float64)
    """
    ih, hh = params["ih"], params["hh"]
    bias = np.zeros(np.shape(ih["kernel"])[-1], np.asarray(ih["kernel"]).dtype)
    bias = bias + sum(np.asarray(part["bias"]) for part in (ih, hh) if "bias" in part)
    found = from_gate_order(
        _channels_first(ih["kernel"]), _channels_first(hh["kernel"]), bias, order="igfo"
    )
    channels = found["bias"].shape[0] // 4
    found["bias"][channels : 2 * channels] += 1.0
    return found


def from_convlstm_pytorch(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a ``ConvLSTM`` of ndrplz/ConvLSTM_pytorch, for a `sosie.nn.ConvLSTM`.

    All its layers have to have the same number of channels. `sosie.compat.convlstm_pytorch` takes
    such a state dict as it is.

    Examples
    --------
    >>> theirs = {"cell_list.0.conv.weight": torch.zeros(8, 1 + 2, 3, 3)}
    >>> sorted(from_convlstm_pytorch(theirs))
    ['cells.0.weight_hh', 'cells.0.weight_ih']
    """
    found: dict[str, Tensor] = {}
    for name, weight in state_dict.items():
        layer = name.removeprefix("cell_list.").partition(".")[0]
        if name.endswith("conv.bias"):
            found[f"cells.{layer}.bias"] = reorder_gates(weight, "ifog")
        elif name.endswith("conv.weight"):
            ordered = reorder_gates(weight, "ifog")
            channels = ordered.shape[0] // 4
            found[f"cells.{layer}.weight_ih"] = ordered[:, :-channels]
            found[f"cells.{layer}.weight_hh"] = ordered[:, -channels:]
        else:
            raise ValueError(f"expected weights cell_list.N.conv.weight or bias, got {name!r}")
    return found


def _channels_first(kernel: Any) -> np.ndarray[Any, Any]:
    """``(..., C_in, K)`` as ``(K, C_in, ...)``."""
    array = np.asarray(kernel)
    return np.ascontiguousarray(
        array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
    )
