# SPDX-License-Identifier: Apache-2.0
"""Measuring as published results were measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import sosie
from sosie.zoo.data import to_tensor
from sosie.zoo.degradations import GaussianNoise
from sosie.zoo.noise import derived_seed

__all__ = ["denoising_psnr"]


def denoising_psnr(
    model: Any,
    images: Sequence[np.ndarray[Any, np.dtype[np.uint8]]],
    deviation: float,
    seed: int = 0,
) -> float:
    """Mean PSNR of denoised images, in decibels.

    As in Zhang et al., "Beyond a Gaussian denoiser", TIP 2017: the noise is neither clipped nor
    rounded, what comes out is rounded to 8 bits, and PSNR is averaged over the images.

    Parameters
    ----------
    model : RepairModel
        On the CPU.
    images : sequence of ndarray of uint8, shape (H, W, C)
    deviation : float
        Standard deviation of the noise, for images in [0, 1].
    seed : int
        Of the noise.

    Examples
    --------
    A model that does nothing leaves the noise, up to what rounding clips:

    >>> from sosie.zoo import create_model
    >>> model = create_model("repair_cnn", channels=1, depth=2, width=1)
    >>> images = [np.full((64, 64, 1), 128, np.uint8)]
    >>> round(denoising_psnr(model, images, deviation=25 / 255))
    20
    """
    noise = GaussianNoise(deviation, clip=False)
    values = []
    for index, pixels in enumerate(images):
        original = to_tensor(pixels, model.channels)[None]
        generator = torch.Generator().manual_seed(derived_seed(seed, index))
        damaged, known = noise(original, generator=generator)
        with torch.inference_mode():
            repaired = (255 * model(damaged, known)).round().clamp(0, 255).byte()
        values.append(float(sosie.psnr(repaired, (255 * original).round().byte())))
    return float(np.mean(values))
