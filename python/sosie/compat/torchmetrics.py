# SPDX-License-Identifier: Apache-2.0
"""torchmetrics 1.x: SSIM, MS-SSIM, PSNR and pairwise distances, as functions and metrics.

Functions need no torchmetrics. The metric classes do: each is the original's class with another
``update``, so that states, their reduction over processes, ``plot`` and the place in Lightning are
the original's.

Covered of SSIM are images and volumes with windows up to 33 pixels; of volumes, windows of one size
for all axes. A data range taken from the images (``data_range=None``) is covered where no gradient
is recorded: the range would have one too. Pairwise functions are covered for floating-point rows.

Numbers are those from 1.4.2 on, which averages the whole map. Two things differ on purpose: equal
rows are 0 apart with gradient 0, where the original's root may be NaN and its gradient is; and half
precision is computed in single precision.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sosie.compat._torchmetrics_image import (
    _multiscale_ssim_update,  # noqa: F401 - named in SEAMS
    _psnr_update,  # noqa: F401 - named in SEAMS
    _ssim_update,  # noqa: F401 - named in SEAMS
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from sosie.compat._torchmetrics_pairwise import (
    _pairwise_euclidean_distance_update,  # noqa: F401 - named in SEAMS
    _pairwise_minkowski_distance_update,  # noqa: F401 - named in SEAMS
    pairwise_cosine_similarity,
    pairwise_euclidean_distance,
    pairwise_linear_similarity,
    pairwise_manhattan_distance,
    pairwise_minkowski_distance,
)

if TYPE_CHECKING:
    from sosie.compat._torchmetrics_classes import (
        MultiScaleStructuralSimilarityIndexMeasure,
        PeakSignalNoiseRatio,
        StructuralSimilarityIndexMeasure,
    )

__all__ = [
    "MultiScaleStructuralSimilarityIndexMeasure",
    "PeakSignalNoiseRatio",
    "StructuralSimilarityIndexMeasure",
    "multiscale_structural_similarity_index_measure",
    "pairwise_cosine_similarity",
    "pairwise_euclidean_distance",
    "pairwise_linear_similarity",
    "pairwise_manhattan_distance",
    "pairwise_minkowski_distance",
    "peak_signal_noise_ratio",
    "structural_similarity_index_measure",
]

DISTRIBUTION = "torchmetrics"
VERSIONS = ">=1.4.2,<1.10"
_PAIRWISE = "torchmetrics.functional.pairwise"
SEAMS = {
    "torchmetrics.functional.image.ssim:_ssim_update": "_ssim_update",
    "torchmetrics.image.ssim:_ssim_update": "_ssim_update",
    "torchmetrics.functional.image.ssim:_multiscale_ssim_update": "_multiscale_ssim_update",
    "torchmetrics.image.ssim:_multiscale_ssim_update": "_multiscale_ssim_update",
    "torchmetrics.functional.image.psnr:_psnr_update": "_psnr_update",
    "torchmetrics.image.psnr:_psnr_update": "_psnr_update",
    f"{_PAIRWISE}.euclidean:_pairwise_euclidean_distance_update": (
        "_pairwise_euclidean_distance_update"
    ),
    f"{_PAIRWISE}.minkowski:_pairwise_minkowski_distance_update": (
        "_pairwise_minkowski_distance_update"
    ),
}

_CLASSES = (
    "MultiScaleStructuralSimilarityIndexMeasure",
    "PeakSignalNoiseRatio",
    "StructuralSimilarityIndexMeasure",
)


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("sosie.compat._torchmetrics_classes"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "torchmetrics":
            raise
        raise ImportError(
            f"{name} is a torchmetrics.Metric: expected torchmetrics {VERSIONS} to be installed"
        ) from None
