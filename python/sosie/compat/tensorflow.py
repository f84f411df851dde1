# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's ``tf.image.ssim`` and ``ssim_multiscale``, for NumPy arrays and torch tensors.

Images are ``(..., H, W, C)``, results ``(...)`` in float32, as there. Integers are compared in
their own range, floating-point images with ``max_val``, both with any number of leading axes.
torch tensors are differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import sosie
from sosie.arrays import Array, is_torch
from sosie.spec import WANG2003_WEIGHTS

__all__ = ["ssim", "ssim_multiscale"]

DISTRIBUTION = "tensorflow"
VERSIONS = ">=2.9,<3"


def ssim(
    img1: Array,
    img2: Array,
    max_val: float,
    filter_size: int = 11,
    filter_sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    return_index_map: bool = False,
) -> Any:
    """Structural similarity of images, as ``tf.image.ssim``.

    Parameters
    ----------
    img1, img2 : array, shape (..., H, W, C)
        Of equal shape and dtype.
    max_val : float
        Difference between the largest and the smallest possible value.
    filter_size, filter_sigma : int, float
        Size and standard deviation of the Gaussian window.
    k1, k2 : float
        Constants of the index.
    return_index_map : bool
        Return the map instead, averaged over the channels.

    Returns
    -------
    array of float32, shape (...), or (..., H', W') for the map

    Raises
    ------
    ValueError
        Shapes differ, have fewer than three axes, or are smaller than the window; an option is out
        of its range.
    TypeError
        Dtypes differ or are not supported.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.tensorflow import ssim
    >>> image = np.arange(3072, dtype=np.uint8).reshape(1, 32, 32, 3)
    >>> ssim(image, image, max_val=255)
    array([1.], dtype=float32)
    """
    batch, x, y = _batches(img1, img2)
    values = sosie.ssim(
        x, y, data_range=max_val, spec="tensorflow", channel_axis=-1, reduction="none",
        return_map=return_index_map, window_size=filter_size, sigma=filter_sigma, k1=k1, k2=k2,
    )  # fmt: skip
    if return_index_map:
        quality = values[1].mean(-1)
        return _single(quality.reshape(*batch, *quality.shape[1:]))
    return _single(values.reshape(batch))


def ssim_multiscale(
    img1: Array,
    img2: Array,
    max_val: float,
    power_factors: Sequence[float] = WANG2003_WEIGHTS,
    filter_size: int = 11,
    filter_sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Any:
    """Multi-scale structural similarity of images, as ``tf.image.ssim_multiscale``.

    Parameters
    ----------
    img1, img2, max_val, filter_size, filter_sigma, k1, k2
        As for `ssim`.
    power_factors : sequence of float
        Exponents of the scales, finest first.

    Returns
    -------
    array of float32, shape (...)

    Raises
    ------
    ValueError, TypeError
        As for `ssim`.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.tensorflow import ssim_multiscale
    >>> image = np.arange(180 * 180, dtype=np.uint8).reshape(180, 180, 1)
    >>> float(ssim_multiscale(image, image, max_val=255))
    1.0
    """
    batch, x, y = _batches(img1, img2)
    values = sosie.ms_ssim(
        x, y, data_range=max_val, spec="tensorflow", weights=power_factors, channel_axis=-1,
        reduction="none", window_size=filter_size, sigma=filter_sigma, k1=k1, k2=k2,
    )  # fmt: skip
    return _single(values.reshape(batch))


def _batches(img1: Array, img2: Array) -> tuple[tuple[int, ...], Array, Array]:
    """Shape of the result, and both as ``(N, H, W, C)``."""
    x, y = (image if is_torch(image) else np.asarray(image) for image in (img1, img2))
    if x.shape != y.shape or x.ndim < 3:
        raise ValueError(
            "expected images of equal shape (..., H, W, C), "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    batch = tuple(x.shape[:-3])
    x, y = (_known(image.reshape(math.prod(batch), *image.shape[-3:])) for image in (x, y))
    return batch, x, y


def _known(image: Array) -> Array:
    """The image, or a copy in float64 where it holds integers that kernels do not read."""
    if is_torch(image) or image.dtype.kind not in "iu" or image.dtype in (np.uint8, np.uint16):
        return image
    return image.astype(np.float64)


def _single(values: Any) -> Any:
    return values.float() if is_torch(values) else np.asarray(values, np.float32)[()]
