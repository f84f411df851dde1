# SPDX-License-Identifier: Apache-2.0
"""How well models do, measured as published results were.

`repair` measures repaired images against the truth, beside doing nothing and what one would try
without training. `generation` compares generated images with real ones, and `likelihood` says how
likely an autoencoder finds real ones. `work` does such things image by image, on threads or on a
Ray cluster, and keeps what is finished. `denoising` is one number of one protocol.
"""

from __future__ import annotations

from sosie.zoo.evaluation.denoising import denoising_psnr

__all__ = ["denoising_psnr"]
