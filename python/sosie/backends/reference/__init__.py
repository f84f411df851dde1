# SPDX-License-Identifier: Apache-2.0
"""The float64 definitions of :mod:`sosie.reference` as an executor: slow, and right.

For machines with nothing better, and for seeing what a result should have been.
"""

from __future__ import annotations

from sosie.backends.reference.distance import (
    cdist_backward,
    cdist_forward,
    knn_backward,
    knn_forward,
    pack_vectors,
)
from sosie.backends.reference.ssim import (
    downsample_backward,
    downsample_forward,
    ssim_backward,
    ssim_forward,
    ssim_loss,
)

__all__ = [
    "cdist_backward",
    "cdist_forward",
    "downsample_backward",
    "downsample_forward",
    "knn_backward",
    "knn_forward",
    "pack_vectors",
    "ssim_backward",
    "ssim_forward",
    "ssim_loss",
]
