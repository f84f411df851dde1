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
from sosie.backends.reference.paired import (
    cosine_backward,
    cosine_forward,
    euclidean_backward,
    euclidean_forward,
)
from sosie.backends.reference.recurrent import (
    gru_backward,
    gru_forward,
    gru_reset_backward,
    gru_reset_forward,
    gru_update_backward,
    gru_update_forward,
    lstm_backward,
    lstm_forward,
    lstm_peephole_backward,
)
from sosie.backends.reference.ssd import ssd_backward, ssd_forward, ssd_loss
from sosie.backends.reference.ssim import (
    downsample_backward,
    downsample_forward,
    ssim_backward,
    ssim_forward,
    ssim_loss,
    ssim_with_gradient,
)
from sosie.backends.reference.template import template_search

__all__ = [
    "cdist_backward",
    "cdist_forward",
    "cosine_backward",
    "cosine_forward",
    "downsample_backward",
    "downsample_forward",
    "euclidean_backward",
    "euclidean_forward",
    "gru_backward",
    "gru_forward",
    "gru_reset_backward",
    "gru_reset_forward",
    "gru_update_backward",
    "gru_update_forward",
    "knn_backward",
    "knn_forward",
    "lstm_backward",
    "lstm_forward",
    "lstm_peephole_backward",
    "pack_vectors",
    "ssd_backward",
    "ssd_forward",
    "ssd_loss",
    "ssim_backward",
    "ssim_forward",
    "ssim_loss",
    "ssim_with_gradient",
    "template_search",
]
