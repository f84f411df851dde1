# SPDX-License-Identifier: Apache-2.0
"""The torch side of sosie: registered operators (``torch.ops.sosie.*``) and their derivatives.

Importing this package imports torch, registers the operators, and tells ``torch.compile`` to put
the public functions into its graphs as they are: their Python code checks arguments and resolves
conventions, which touches no tensor and is evaluated once per graph.
"""

from __future__ import annotations

import torch

from sosie.distance import _cdist, _knn
from sosie.paired import _cosine_similarity, _euclidean_distance
from sosie.ssd import _mse, _psnr, _weighted_ssd
from sosie.ssim import _ms_ssim, _ssim
from sosie.torch import composite, distance, paired, recurrent, ssd, ssim

__all__ = ["composite", "distance", "paired", "recurrent", "ssd", "ssim"]

torch.compiler.allow_in_graph(
    (
        _cdist,
        _cosine_similarity,
        _euclidean_distance,
        _knn,
        _ms_ssim,
        _mse,
        _psnr,
        _ssim,
        _weighted_ssd,
    )
)
