# SPDX-License-Identifier: Apache-2.0
"""Repair without training: what a network has to beat.

All take a damaged image ``(H, W, C)`` of floats in [0, 1], which of its pixels are known
``(H, W)``, and one or two numbers; and return the repaired image ``(H, W, C)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sosie.zoo import repair_unet

__all__ = ["non_local_means", "normalised_convolution"]

Image = np.ndarray[Any, np.dtype[np.float32]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def normalised_convolution(damaged: Image, known: Mask, sigma: float) -> Image:
    """Gaussian mean of the known pixels around each pixel (Knutsson and Westin, CVPR 1993).

    Parameters
    ----------
    sigma : float
        Standard deviation of the window, in pixels.

    Examples
    --------
    >>> damaged = np.full((8, 8, 1), 0.5, np.float32)
    >>> known = np.arange(64).reshape(8, 8) % 2 == 0
    >>> float(normalised_convolution(damaged, known, 1.0)[3, 3, 0])
    0.5
    """
    images = torch.from_numpy(np.ascontiguousarray(damaged.transpose(2, 0, 1)))[None]
    mask = torch.from_numpy(known.astype(np.float32))[None, None]
    filled = repair_unet.normalised_convolution(images, mask, (sigma,))[0, 0]
    return np.ascontiguousarray(filled.numpy().transpose(1, 2, 0))


def non_local_means(damaged: Image, known: Mask, sigma: float, strength: float) -> Image:
    """Non-local means (Buades, Coll, Morel, CVPR 2005) of a narrow normalised convolution.

    Parameters
    ----------
    sigma : float
        Standard deviation of the normalised convolution's window, in pixels.
    strength : float
        How different the patches may be that are averaged: scikit-image's ``h``.
    """
    from skimage.restoration import denoise_nl_means

    filled = np.clip(normalised_convolution(damaged, known, sigma), 0.0, 1.0)
    smoothed = denoise_nl_means(
        filled, patch_size=5, patch_distance=6, h=strength, fast_mode=True, channel_axis=-1
    )
    return np.asarray(smoothed, dtype=np.float32)
