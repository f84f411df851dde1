# SPDX-License-Identifier: Apache-2.0
"""Damage done to images on purpose.

A degradation is called with a batch and a source of randomness, and returns the damaged images and
which of their pixels are known:

>>> import torch
>>> from sosie.zoo.degradations import Compose, GaussianNoise, MissingPixels
>>> damage = Compose([GaussianNoise(0.1), MissingPixels(0.5)])
>>> images = torch.rand(2, 3, 32, 32)
>>> damaged, known = damage(images, generator=torch.Generator().manual_seed(0))
>>> damaged.shape, known.shape
(torch.Size([2, 3, 32, 32]), torch.Size([2, 1, 32, 32]))

`parse_degradation` makes them of text, ``gaussian_noise:0.1,missing_pixels:0.5``.
"""

from __future__ import annotations

from sosie.zoo.degradations.base import (
    Compose,
    Degradation,
    Sometimes,
    list_degradations,
    parse_degradation,
)
from sosie.zoo.degradations.blur import GaussianBlur, MotionBlur
from sosie.zoo.degradations.compression import JPEG, Downsample
from sosie.zoo.degradations.geometry import ElasticWarp, LensDistortion, Twist
from sosie.zoo.degradations.missing import MissingBlocks, MissingPixels, MissingStrokes
from sosie.zoo.degradations.noise import GaussianNoise, PoissonNoise, SaltAndPepperNoise
from sosie.zoo.degradations.weather import RainStreaks

__all__ = [
    "JPEG",
    "Compose",
    "Degradation",
    "Downsample",
    "ElasticWarp",
    "GaussianBlur",
    "GaussianNoise",
    "LensDistortion",
    "MissingBlocks",
    "MissingPixels",
    "MissingStrokes",
    "MotionBlur",
    "PoissonNoise",
    "RainStreaks",
    "SaltAndPepperNoise",
    "Sometimes",
    "Twist",
    "list_degradations",
    "parse_degradation",
]
