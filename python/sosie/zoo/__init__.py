# SPDX-License-Identifier: Apache-2.0
"""Small models that generate or repair images, trained with sosie's losses, judged by its measures.

>>> from sosie.zoo import create_model, list_models
>>> list_models("repair_*")
['repair_cnn', 'repair_rcnn', 'repair_unet']

`registry` knows models by name, and one file each holds them; `weights` those that are trained
already. `degradations` damages images, `data` finds some, `training` trains, `losses`, `gan_losses`
and `densities` are what is lowered. `demonstration` is what ``sosie demo`` shows. torch is imported
when one of the names here is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sosie.zoo.registry import create_model, list_models, register_model, save_model
    from sosie.zoo.weights import Weights, list_weights

__all__ = [
    "Weights",
    "create_model",
    "list_models",
    "list_weights",
    "register_model",
    "save_model",
]

_MODULES = {"Weights": "weights", "list_weights": "weights"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = _MODULES.get(name, "registry")
        return getattr(importlib.import_module(f"sosie.zoo.{module}"), name)
    raise AttributeError(f"module 'sosie.zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
