# SPDX-License-Identifier: Apache-2.0
"""Losses and recurrent layers as ``torch.nn`` modules.

torch is imported when one of them is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sosie.nn.losses import L1SSIMLoss, MSSSIMLoss, SSIMLoss
    from sosie.nn.recurrent import ConvGRU, ConvLSTM
    from sosie.nn.recurrent_cells import ConvGRUCell, ConvLSTMCell
    from sosie.nn.recurrent_convolution import (
        RecurrentConv1d,
        RecurrentConv2d,
        RecurrentConv3d,
    )
    from sosie.nn.rows import CosineLoss
    from sosie.nn.ssd import WeightedSSDLoss

__all__ = [
    "ConvGRU",
    "ConvGRUCell",
    "ConvLSTM",
    "ConvLSTMCell",
    "CosineLoss",
    "L1SSIMLoss",
    "MSSSIMLoss",
    "RecurrentConv1d",
    "RecurrentConv2d",
    "RecurrentConv3d",
    "SSIMLoss",
    "WeightedSSDLoss",
]

#: Where each module is.
_MODULES = {
    "ConvGRU": "recurrent",
    "ConvGRUCell": "recurrent_cells",
    "ConvLSTM": "recurrent",
    "ConvLSTMCell": "recurrent_cells",
    "CosineLoss": "rows",
    "L1SSIMLoss": "losses",
    "MSSSIMLoss": "losses",
    "RecurrentConv1d": "recurrent_convolution",
    "RecurrentConv2d": "recurrent_convolution",
    "RecurrentConv3d": "recurrent_convolution",
    "SSIMLoss": "losses",
    "WeightedSSDLoss": "ssd",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"sosie.nn.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'sosie.nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
