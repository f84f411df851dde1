# SPDX-License-Identifier: Apache-2.0
"""Image similarity, exact and fast: SSIM and MS-SSIM in every known convention.

NumPy arrays and torch tensors alike; forward and backward; compiled kernels that need no framework.
Importing this package imports NumPy and nothing heavier.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sosie.backends import available_backends, use_backend
from sosie.config import show_config
from sosie.distance import KNNResult, PackedVectors, cdist, knn, pack
from sosie.spec import SSIMSpec, list_specs, ssim_spec
from sosie.ssim import ms_ssim, ssim
from sosie.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from sosie import nn, reference

__version__ = "0.1.0"

__all__ = [
    "KNNResult",
    "PackedVectors",
    "SSIMSpec",
    "__version__",
    "available_backends",
    "cdist",
    "get_num_threads",
    "knn",
    "list_specs",
    "ms_ssim",
    "nn",
    "pack",
    "reference",
    "set_num_threads",
    "show_config",
    "ssim",
    "ssim_spec",
    "use_backend",
]

_LAZY = {"nn", "reference"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"sosie.{name}")
    raise AttributeError(f"module 'sosie' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
