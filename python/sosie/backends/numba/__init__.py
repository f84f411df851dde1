# SPDX-License-Identifier: Apache-2.0
"""Kernels compiled at run time by Numba, for machines without a compiler.

Results have the same bits for any number of threads. Threads are Python's, running kernels that
release the GIL: unlike Numba's own they bear a fork and concurrent callers.

These functions trust their arguments: the public ones checked shapes, dtypes and parameters.
"""

from __future__ import annotations

from sosie.backends.numba.distance import (
    cdist_backward,
    cdist_forward,
    knn_backward,
    knn_forward,
    pack_vectors,
)
from sosie.backends.numba.paired import (
    cosine_backward,
    cosine_forward,
    euclidean_backward,
    euclidean_forward,
)
from sosie.backends.numba.recurrent import (
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
from sosie.backends.numba.ssd import ssd_backward, ssd_forward, ssd_loss
from sosie.backends.numba.ssim import (
    downsample_backward,
    downsample_forward,
    ssim_backward,
    ssim_forward,
    ssim_loss,
    ssim_with_gradient,
)
from sosie.backends.numba.template import template_search

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
