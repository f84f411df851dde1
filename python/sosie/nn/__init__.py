# SPDX-License-Identifier: Apache-2.0
"""Similarity as ``torch.nn`` modules. torch is imported when one of them is first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sosie.nn.losses import L1SSIMLoss, MSSSIMLoss, SSIMLoss
    from sosie.nn.rows import CosineLoss
    from sosie.nn.ssd import WeightedSSDLoss

__all__ = ["CosineLoss", "L1SSIMLoss", "MSSSIMLoss", "SSIMLoss", "WeightedSSDLoss"]

#: Where each module is.
_MODULES = {
    "CosineLoss": "rows",
    "L1SSIMLoss": "losses",
    "MSSSIMLoss": "losses",
    "SSIMLoss": "losses",
    "WeightedSSDLoss": "ssd",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"sosie.nn.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'sosie.nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
