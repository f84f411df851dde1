# SPDX-License-Identifier: Apache-2.0
"""Repair without training: what a network has to beat.

All take a damaged image ``(H, W, C)`` of floats in [0, 1], which of its pixels are known
``(H, W)``, and a number or two; and return the repaired image ``(H, W, C)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from sosie.zoo import filling
from sosie.zoo.degradations import (
    JPEG,
    Compose,
    Degradation,
    Downsample,
    GaussianBlur,
    GaussianNoise,
    MissingBlocks,
    MissingPixels,
    MissingStrokes,
    PoissonNoise,
    RainStreaks,
    SaltAndPepperNoise,
)
from sosie.zoo.degradations.base import Sometimes

__all__ = ["Classical", "classical_repair", "non_local_means", "normalised_convolution"]

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
    filled = filling.normalised_convolution(images, mask, (sigma,))[0, 0]
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


# ------------------------------------------------------------------ the usual answer to each damage


class Classical(NamedTuple):
    """A repair without training.

    Attributes
    ----------
    name : str
        With its settings.
    repair : callable
        ``repair(damaged, known)``.
    """

    name: str
    repair: Callable[[Image, Mask], Image]


def classical_repair(degradation: Degradation | None, *, masked: bool = False) -> Classical | None:
    """What one would try first against a kind of damage, with settings that follow from it.

    Parameters
    ----------
    degradation : Degradation or None
        What was done to the images, if that is known: otherwise, noise. Of several, the last is
        undone first.
    masked : bool
        Whether it is known that pixels are missing, whatever else was done.

    Returns
    -------
    Classical or None
        None where there is nothing that is usual: against geometric distortion, for example.

    Examples
    --------
    >>> from sosie.zoo.degradations import parse_degradation
    >>> classical_repair(parse_degradation("gaussian_noise:0.1,missing_pixels")).name
    'biharmonic inpainting, then non-local means'
    """
    steps = [_INPAINTING] if masked else []
    if degradation is not None:
        done = degradation.steps if isinstance(degradation, Compose) else [degradation]
        found = [_against(step) for step in reversed(done)]
        # What is done for two kinds of damage at once is done once.
        steps = list(dict.fromkeys(step for step in [*steps, *found] if step is not None))
    elif not masked:
        steps = [_DENOISING]
    if not steps:
        return None
    if len(steps) == 1:
        return steps[0]
    return Classical(", then ".join(step.name for step in steps), partial(_in_turn, steps))


def _in_turn(steps: list[Classical], image: Image, known: Mask) -> Image:
    for step in steps:
        image = step.repair(image, known)
        if step.repair is biharmonic_inpainting:
            known = np.ones_like(known)
    return image


def _against(degradation: Degradation) -> Classical | None:
    match degradation:
        case MissingPixels() | MissingBlocks() | MissingStrokes():
            return _INPAINTING
        case GaussianNoise() | PoissonNoise():
            return _DENOISING
        case SaltAndPepperNoise():
            return Classical("median of 3 x 3", partial(median, window=(3, 3)))
        case GaussianBlur(sigma=sigma):
            # Every image's own lies between half of that and all of it.
            name = f"Wiener filter for a sigma of {0.75 * sigma:g}"
            return Classical(name, partial(wiener, sigma=0.75 * sigma))
        case Downsample(scale=scale):
            return Classical("unsharp masking", partial(unsharp_masking, radius=scale / 2))
        case RainStreaks():
            # They are narrow, and fall rather than drift.
            return Classical("median of 5 pixels in a row", partial(median, window=(1, 5)))
        case Sometimes(step=step):
            return _against(step)
        case JPEG():
            return Classical("total variation", total_variation)
    return None


def biharmonic_inpainting(damaged: Image, known: Mask) -> Image:
    """Smooth surface through the known pixels (Damelin and Hoang, 2018)."""
    from skimage.restoration import inpaint_biharmonic

    if known.all() or not known.any():
        return damaged
    filled = inpaint_biharmonic(damaged.astype(np.float64), ~known, channel_axis=-1)
    return np.asarray(filled, dtype=np.float32)


def denoising(damaged: Image, known: Mask) -> Image:
    """Non-local means for the noise that the image shows.

    The strength is 0.6 times the noise's deviation, which is estimated from second differences
    (Immerkær, "Fast noise variance estimation", 1996).
    """
    from skimage.restoration import denoise_nl_means

    del known
    sigma = noise_deviation(damaged)
    smoothed = denoise_nl_means(
        damaged, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, channel_axis=-1
    )
    # Of gray images it drops the axis.
    return np.asarray(smoothed, dtype=np.float32).reshape(damaged.shape)


def noise_deviation(image: Image) -> float:
    """Standard deviation of the noise of an image, mean over channels.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0.5, 0.1, (200, 200, 1)).astype(np.float32)
    >>> round(noise_deviation(noise), 2)
    0.1
    """
    if min(image.shape[:2]) < 3:
        return 0.0
    rows = image[2:] - 2 * image[1:-1] + image[:-2]
    differences = rows[:, 2:] - 2 * rows[:, 1:-1] + rows[:, :-2]
    # A combination of nine pixels whose squared factors sum to 36; |normal| has mean sqrt(2/pi).
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(differences).mean())


def median(damaged: Image, known: Mask, window: tuple[int, int]) -> Image:
    """Median of the pixels around each one."""
    from scipy.ndimage import median_filter

    del known
    return np.asarray(median_filter(damaged, (*window, 1), mode="nearest"), np.float32)


def wiener(damaged: Image, known: Mask, sigma: float) -> Image:
    """Wiener filter for a Gaussian blur, regularised by second differences."""
    from skimage.restoration import wiener as wiener_filter

    del known
    radius = int(np.ceil(3 * sigma))
    squares = np.arange(-radius, radius + 1) ** 2
    window = np.exp(-squares / (2 * sigma**2))
    kernel = np.outer(window, window) / window.sum() ** 2
    # The filter wraps around; what is mirrored at the border meets itself.
    padded = np.pad(damaged, [(radius, radius), (radius, radius), (0, 0)], mode="reflect")
    planes = [
        wiener_filter(padded[..., channel], kernel, 0.01) for channel in range(damaged.shape[2])
    ]
    sharp = np.stack(planes, axis=-1)[radius:-radius, radius:-radius]
    return np.asarray(sharp, np.float32)


def unsharp_masking(damaged: Image, known: Mask, radius: float) -> Image:
    """Half of what a Gaussian mean takes away, added."""
    from skimage.filters import unsharp_mask

    del known
    sharp = unsharp_mask(damaged, radius, amount=0.5, channel_axis=2)
    return np.asarray(sharp, np.float32)


def total_variation(damaged: Image, known: Mask) -> Image:
    """Smoothing that keeps edges (Chambolle, 2004), as weak as artefacts of compression are."""
    from skimage.restoration import denoise_tv_chambolle

    del known
    smoothed = denoise_tv_chambolle(damaged, weight=0.02, channel_axis=-1)
    return np.asarray(smoothed, np.float32)


_INPAINTING = Classical("biharmonic inpainting", biharmonic_inpainting)
_DENOISING = Classical("non-local means", denoising)
