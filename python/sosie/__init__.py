# SPDX-License-Identifier: Apache-2.0
"""Image similarity, exact and fast: SSIM in every known convention, weighted squared differences.

NumPy arrays and torch tensors alike; forward and backward; compiled kernels that need no framework.
Importing this package imports NumPy and nothing heavier.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sosie.backends import available_backends, use_backend
from sosie.config import show_config
from sosie.convolutions import use_convolutions
from sosie.distance import KNNResult, PackedVectors, cdist, knn, pack
from sosie.generation import (
    PRDC,
    FeatureMoments,
    FeatureSet,
    frechet_distance,
    kernel_distance,
    prdc,
)
from sosie.paired import cosine_similarity, euclidean_distance
from sosie.patching import patch
from sosie.spec import SSIMSpec, list_specs, ssim_spec
from sosie.ssd import mse, psnr, weighted_ssd
from sosie.ssim import ms_ssim, ssim
from sosie.template import match_template_ssd
from sosie.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from sosie import nn, reference

__version__ = "0.1.0"

__all__ = [
    "PRDC",
    "FeatureMoments",
    "FeatureSet",
    "KNNResult",
    "PackedVectors",
    "SSIMSpec",
    "__version__",
    "available_backends",
    "cdist",
    "cosine_similarity",
    "euclidean_distance",
    "frechet_distance",
    "get_num_threads",
    "kernel_distance",
    "knn",
    "list_specs",
    "match_template_ssd",
    "ms_ssim",
    "mse",
    "nn",
    "pack",
    "patch",
    "prdc",
    "psnr",
    "reference",
    "set_num_threads",
    "show_config",
    "ssim",
    "ssim_spec",
    "use_backend",
    "use_convolutions",
    "weighted_ssd",
]

_LAZY = {"nn", "reference"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"sosie.{name}")
    raise AttributeError(f"module 'sosie' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
