# SPDX-License-Identifier: Apache-2.0
"""The compiled CPU kernels, for NumPy arrays and torch tensors in host memory.

These functions trust their arguments; the public ones have checked them.
"""

from __future__ import annotations

from sosie.backends.native.distance import (
    cdist_backward,
    cdist_forward,
    knn_backward,
    knn_forward,
    pack_vectors,
)
from sosie.backends.native.paired import (
    cosine_backward,
    cosine_forward,
    euclidean_backward,
    euclidean_forward,
)
from sosie.backends.native.recurrent import (
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
from sosie.backends.native.ssd import ssd_backward, ssd_forward, ssd_loss
from sosie.backends.native.ssim import (
    downsample_backward,
    downsample_forward,
    ssim_backward,
    ssim_forward,
    ssim_loss,
    ssim_with_gradient,
)
from sosie.backends.native.template import template_search
from sosie.backends.native.winograd import (
    winograd_add_gradient,
    winograd_forward,
    winograd_gradient,
    winograd_lstm_forward,
    winograd_pack,
    winograd_sums,
)

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
    "winograd_add_gradient",
    "winograd_forward",
    "winograd_gradient",
    "winograd_lstm_forward",
    "winograd_pack",
    "winograd_sums",
]
