# SPDX-License-Identifier: Apache-2.0
"""Kernels for CUDA devices, for torch CUDA tensors and CuPy arrays.

Every function prepares the struct that a kernel takes, results and workspaces of the array's own
library, and launches on the array's device and that library's current stream. Nothing waits for the
device, so nothing is said of values: a weight that is not allowed makes its sum NaN.

These functions trust their arguments: the public ones checked shapes, dtypes and parameters.
"""

from __future__ import annotations

from typing import Any

from sosie.backends.cuda.distance import (
    cdist_backward,
    cdist_forward,
    knn_backward,
    knn_forward,
    pack_vectors,
)
from sosie.backends.cuda.paired import (
    cosine_backward,
    cosine_forward,
    euclidean_backward,
    euclidean_forward,
)
from sosie.backends.cuda.recurrent import (
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
from sosie.backends.cuda.ssd import ssd_backward, ssd_forward, ssd_loss, ssd_loss_value
from sosie.backends.cuda.ssim import (
    downsample_backward,
    downsample_forward,
    ssim_backward,
    ssim_forward,
    ssim_loss,
    ssim_with_gradient,
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
    "ssd_loss_value",
    "ssim_backward",
    "ssim_forward",
    "ssim_loss",
    "ssim_with_gradient",
]


def __getattr__(name: str) -> Any:
    from sosie.backends import reference  # which has all that there can be

    if name not in reference.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise NotImplementedError(
        f"there is no CUDA kernel for {name} yet: expected arrays in host memory (NumPy, torch CPU)"
    )
