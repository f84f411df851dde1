# SPDX-License-Identifier: Apache-2.0
"""scikit-image 0.25, 0.26: ``structural_similarity`` and the measures of squared differences.

``metrics`` holds them as ``skimage.metrics`` does. Images are NumPy arrays. What is not covered
goes to scikit-image itself, where it is installed: images with other than 2 or 3 axes (channels not
counted), windows above 33 pixels, a Gaussian with a window size of its own, constants of 0.

As there, half and single precision are computed in single precision and all else in double; results
have the original's types. The gradient of `structural_similarity` is the original's, equations 7
and 8 of Avanaki 2009: not the derivative of the number beside it, which leaves the border out and
normalises covariances.
"""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie.backends import executor
from sosie.compat._coverage import NotCovered, falling_back, refused_is_not_covered
from sosie.spec import SSIMSpec, ssim_spec
from sosie.ssd import weighted_ssd

__all__ = [
    "mean_squared_error",
    "metrics",
    "normalized_root_mse",
    "peak_signal_noise_ratio",
    "structural_similarity",
]

DISTRIBUTION = "scikit-image"
VERSIONS = ">=0.25,<0.27"
_SIMPLE = "skimage.metrics.simple_metrics"
SEAMS = {
    "skimage.metrics:structural_similarity": "structural_similarity",
    "skimage.metrics._structural_similarity:structural_similarity": "structural_similarity",
    "skimage.metrics:mean_squared_error": "mean_squared_error",
    f"{_SIMPLE}:mean_squared_error": "mean_squared_error",
    "skimage.metrics:normalized_root_mse": "normalized_root_mse",
    f"{_SIMPLE}:normalized_root_mse": "normalized_root_mse",
    "skimage.metrics:peak_signal_noise_ratio": "peak_signal_noise_ratio",
    f"{_SIMPLE}:peak_signal_noise_ratio": "peak_signal_noise_ratio",
}

Image = NDArray[Any]

# The original's Gaussian ends at 3.5 standard deviations.
_TRUNCATE = 3.5


@falling_back("skimage.metrics")
def structural_similarity(
    im1: Image,
    im2: Image,
    *,
    win_size: int | None = None,
    gradient: bool = False,
    data_range: float | None = None,
    channel_axis: int | None = None,
    gaussian_weights: bool = False,
    full: bool = False,
    **kwargs: Any,
) -> Any:
    """Structural similarity of two images, as ``skimage.metrics.structural_similarity``.

    Parameters
    ----------
    im1, im2 : array
        Images of equal shape.
    win_size : int, optional
        Side of the uniform window, 7 by default; odd.
    gradient : bool
        Return Avanaki's gradient with respect to im2 too.
    data_range : float, optional
        Difference between the largest and the smallest value a pixel can have. Needed for
        floating-point images; else that of the dtype.
    channel_axis : int, optional
        Axis of the channels, whose values are averaged.
    gaussian_weights : bool
        A Gaussian window.
    full : bool
        Return the map too.
    **kwargs
        ``use_sample_covariance`` (True), ``K1`` (0.01), ``K2`` (0.03), ``sigma`` (1.5).

    Returns
    -------
    value : numpy.float64
        float32 for channels of single precision.
    gradient : array of im1's shape
        Only with ``gradient``.
    map : array of im1's shape
        Only with ``full``.

    Raises
    ------
    ValueError
        Shapes differ, the window is even or exceeds the image, the data range is missing, a
        constant is negative.

    Warns
    -----
    UserWarning
        The data range is that of an integer dtype other than uint8, or dtypes differ.

    Notes
    -----
    Avanaki, "Exact global histogram specification optimized for structural similarity", Optical
    Review 16, 2009.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.skimage import structural_similarity
    >>> x = np.arange(256, dtype=np.uint8).reshape(16, 16)
    >>> round(float(structural_similarity(x, x[::-1])), 4)
    -0.7387
    """
    _check_shapes(im1, im2)
    options = _Options(im1, im2, win_size, data_range, channel_axis, gaussian_weights, kwargs)
    planes = [_planes(image, channel_axis, options.dtype) for image in (im1, im2)]
    value, maps, gradients = _similarity(planes[0], planes[1], options, full or gradient, gradient)
    per_channel = value[0].astype(options.dtype) if channel_axis is not None else value[0]
    results: list[Any] = [per_channel.mean() if channel_axis is not None else per_channel[0]]
    for wanted, array in ((gradient, gradients), (full, maps)):
        if wanted:
            results.append(_restored(array, channel_axis))
    return tuple(results) if len(results) > 1 else results[0]


@falling_back("skimage.metrics")
def mean_squared_error(image0: Image, image1: Image) -> np.float64:
    """Mean squared error, as ``skimage.metrics.mean_squared_error``.

    Parameters
    ----------
    image0, image1 : array of equal shape

    Returns
    -------
    numpy.float64

    Raises
    ------
    ValueError
        Shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.skimage import mean_squared_error
    >>> float(mean_squared_error(np.array([1, 2]), np.array([1, 4])))
    2.0
    """
    _check_shapes(image0, image1)
    image0, image1 = _as_floats(image0, image1)
    return _mean_squares(image0, image1)


@falling_back("skimage.metrics")
def normalized_root_mse(
    image_true: Image, image_test: Image, *, normalization: str = "euclidean"
) -> Any:
    """Normalised root of the mean squared error, as ``skimage.metrics.normalized_root_mse``.

    Parameters
    ----------
    image_true, image_test : array of equal shape
    normalization : {"euclidean", "min-max", "mean"}
        Divide by the root of the mean square, the range or the mean of the first image.

    Returns
    -------
    numpy.float64

    Raises
    ------
    ValueError
        Shapes differ, or the normalisation is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.skimage import normalized_root_mse
    >>> float(normalized_root_mse(np.array([3.0, 4.0]), np.array([3.0, 9.0])))
    1.0
    """
    _check_shapes(image_true, image_test)
    image_true, image_test = _as_floats(image_true, image_test)
    normalization = normalization.lower()
    divisor: Any
    if normalization == "euclidean":
        divisor = np.sqrt(_mean_squares(image_true, np.zeros((1,) * image_true.ndim)))
    elif normalization == "min-max":
        divisor = image_true.max() - image_true.min()
    elif normalization == "mean":
        divisor = image_true.mean()
    else:
        raise ValueError(
            f"expected a normalization out of 'euclidean', 'min-max', 'mean', got {normalization!r}"
        )
    return np.sqrt(_mean_squares(image_true, image_test)) / divisor


@falling_back("skimage.metrics")
def peak_signal_noise_ratio(
    image_true: Image, image_test: Image, *, data_range: float | None = None
) -> Any:
    """Peak signal-to-noise ratio in decibels, as ``skimage.metrics.peak_signal_noise_ratio``.

    Parameters
    ----------
    image_true, image_test : array of equal shape
    data_range : float, optional
        Difference between the largest and the smallest value; by default that of the dtype, its
        upper half where the first image has no negative value.

    Returns
    -------
    numpy.float64

    Raises
    ------
    ValueError
        Shapes differ, or values lie outside the dtype's default range.

    Warns
    -----
    UserWarning
        The data range is that of the first image's dtype, and dtypes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.skimage import peak_signal_noise_ratio
    >>> x = np.zeros((8, 8), np.uint8)
    >>> round(float(peak_signal_noise_ratio(x, x + np.uint8(16))), 3)
    24.048
    """
    _check_shapes(image_true, image_test)
    if data_range is None:
        data_range = _range_of_values(image_true, image_test)
    image_true, image_test = _as_floats(image_true, image_test)
    error = _mean_squares(image_true, image_test)
    return 10 * np.log10(float(data_range) ** 2 / error)


#: ``skimage.metrics``.
metrics = SimpleNamespace(
    mean_squared_error=mean_squared_error,
    normalized_root_mse=normalized_root_mse,
    peak_signal_noise_ratio=peak_signal_noise_ratio,
    structural_similarity=structural_similarity,
)


# --- Structural similarity ------------------------------------------------------------------------


class _Options:
    """What the arguments of `structural_similarity` come to, checked as the original does."""

    def __init__(
        self,
        im1: Image,
        im2: Image,
        win_size: int | None,
        data_range: float | None,
        channel_axis: int | None,
        gaussian_weights: bool,
        more: dict[str, Any],
    ) -> None:
        more = dict(more)
        k1, k2, sigma = more.pop("K1", 0.01), more.pop("K2", 0.03), more.pop("sigma", 1.5)
        sample = more.pop("use_sample_covariance", True)
        for name, number in (("K1", k1), ("K2", k2), ("sigma", sigma)):
            if number < 0:
                raise ValueError(f"expected {name} of at least 0, got {number!r}")
        if gaussian_weights and win_size is not None:
            raise NotCovered("sosie takes no win_size together with gaussian_weights")
        size = 7 if win_size is None else win_size
        if gaussian_weights:
            size = 2 * int(_TRUNCATE * sigma + 0.5) + 1
        shape = list(im1.shape)
        if channel_axis is not None:
            shape.pop(channel_axis)
        _check_window(tuple(shape), size)
        self.data_range = _range_of_dtype(im1, im2) if data_range is None else float(data_range)
        self.dtype = _float_type(im1.dtype)
        self.size = size
        self.sample = bool(sample)
        # n / (n - 1), in which the original's gradient differs from a derivative.
        self.covariance_scale = size ** len(shape) / (size ** len(shape) - 1) if sample else 1.0
        if len(shape) not in (2, 3):
            raise NotCovered(f"sosie computes images with 2 or 3 spatial axes, got {tuple(shape)}")
        window: dict[str, Any] = {"window": "uniform", "window_size": size}
        if gaussian_weights:
            window = {"window_size": None, "sigma": sigma, "truncate": _TRUNCATE}
        with refused_is_not_covered():
            self.spec: SSIMSpec = ssim_spec("wang2004").replace(
                **window,
                border="symmetric",
                crop=0,
                covariance="sample" if sample else "population",
                k1=k1,
                k2=k2,
            )


def _check_window(shape: tuple[int, ...], size: int) -> None:
    if any(side < size for side in shape):
        raise ValueError(
            f"expected images of at least the window's size, {size} pixels along every axis, or a "
            f"channel_axis for colours, got {shape}"
        )
    if size % 2 != 1:
        raise ValueError(f"expected an odd win_size, got {size}")


def _similarity(
    x: Image, y: Image, options: _Options, wants_map: bool, wants_gradient: bool
) -> tuple[Image, Image | None, Image | None]:
    """Values ``(1, C)``, and map and gradient of planes ``(1, C, *spatial)``."""
    run = executor(x)
    spatial = x.shape[2:]
    margin = (options.size - 1) // 2
    with refused_is_not_covered():
        inside = options.spec.replace(crop="window").resolve(spatial, options.data_range)
        whole = options.spec.resolve(spatial, options.data_range)
    if not wants_map:
        values, _ = run.ssim_forward(x, y, inside)
        return values, None, None
    _, quality = run.ssim_forward(x, y, whole, return_map=True)
    cropped = quality[(..., *(slice(margin, side - margin) for side in spatial))]
    values = cropped.mean(axis=tuple(range(2, x.ndim)), dtype=np.float64)
    if not wants_gradient:
        return values, quality, None
    return values, quality, _gradient(x, y, quality, whole, options.covariance_scale)


def _gradient(x: Image, y: Image, quality: Image, parameters: Any, scale: float) -> Image:
    """Avanaki's gradient with respect to y of the mean over the whole map.

    It is a derivative in which (co)variances do not carry the factor ``n / (n - 1)`` that the map
    was computed with. Variances enter the map by the contrast-structure alone, with the luminance
    as its factor. So their part of the derivative is one more backward pass, and what is too much
    of it is taken away. Under mirrored borders a symmetric filter is its own adjoint, so that the
    filters of the original and those of the derivative agree at the borders.
    """
    run = executor(x)
    count = math.prod(x.shape[2:])
    upstream = np.full_like(quality, 1.0 / count)
    _, gradient = run.ssim_backward(x, y, parameters, upstream, need_x=False, need_y=True)
    if scale != 1.0:
        _, contrast = run.ssim_forward(x, y, parameters, kind="cs", return_map=True)
        luminance = quality / np.where(contrast == 0, 1, contrast)
        _, by_variance = run.ssim_backward(
            x, y, parameters, luminance / count, kind="cs", need_x=False, need_y=True
        )
        gradient = gradient - (1 - 1 / scale) * by_variance
    result: Image = gradient
    return result


def _planes(image: Image, channel_axis: int | None, dtype: np.dtype[Any]) -> Image:
    """The image as ``(1, C, *spatial)``."""
    image = np.asarray(image).astype(dtype, copy=False)
    if channel_axis is None:
        return image[None, None]
    return np.moveaxis(image, channel_axis, 0)[None]


def _restored(planes: Image | None, channel_axis: int | None) -> Any:
    """A result ``(1, C, *spatial)`` with the image's axes."""
    array: Any = planes
    return array[0, 0] if channel_axis is None else np.moveaxis(array[0], 0, channel_axis)


# --- Ranges and types -----------------------------------------------------------------------------


def _check_shapes(first: Image, second: Image) -> None:
    if first.shape != second.shape:
        raise ValueError(f"expected images of equal shape, got {first.shape} and {second.shape}")


def _float_type(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that the original computes in."""
    if any(dtype.kind == "c" for dtype in dtypes):
        raise ValueError(f"expected real images, got {', '.join(map(str, dtypes))}")
    promoted = np.result_type(*(dtype if dtype.kind == "f" else np.float64 for dtype in dtypes))
    return np.dtype(np.float32 if promoted in (np.float16, np.float32) else np.float64)


def _as_floats(first: Image, second: Image) -> tuple[Image, Image]:
    dtype = _float_type(first.dtype, second.dtype)
    return np.asarray(first, dtype), np.asarray(second, dtype)


def _mean_squares(first: Image, second: Image) -> np.float64:
    with refused_is_not_covered():
        return np.float64(
            weighted_ssd(first, np.broadcast_to(second, first.shape), reduction="mean")
        )


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Least and largest value that an image of a dtype holds by scikit-image's convention."""
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind == "f":
        return -1.0, 1.0
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    raise NotCovered(f"sosie knows no range of images of dtype {dtype}")


def _range_of_dtype(im1: Image, im2: Image) -> float:
    if im1.dtype.kind == "f" or im2.dtype.kind == "f":
        raise ValueError(
            "expected data_range for floating-point images, the difference between the largest and "
            "the smallest value a pixel can have, got None"
        )
    if im1.dtype != im2.dtype:
        warnings.warn(
            "Inputs have mismatched dtypes. Setting data_range based on im1.dtype: "
            f"{im1.dtype}, beside {im2.dtype}.",
            stacklevel=5,
        )
    low, high = _limits(im1.dtype)
    if im1.dtype.kind in "iu" and im1.dtype != np.uint8:
        warnings.warn(
            f"Setting data_range based on im1.dtype. data_range = {high - low:.0f}; "
            "state it if pixels have another.",
            stacklevel=5,
        )
    return high - low


def _range_of_values(image_true: Image, image_test: Image) -> float:
    if image_true.dtype != image_test.dtype:
        warnings.warn(
            "Inputs have mismatched dtype.  Setting data_range based on image_true: "
            f"{image_true.dtype}, beside {image_test.dtype}.",
            stacklevel=4,
        )
    low, high = _limits(image_true.dtype)
    least, largest = np.min(image_true), np.max(image_true)
    if largest > high or least < low:
        raise ValueError(
            f"expected values from {low} to {high} for {image_true.dtype} without a data_range, "
            f"got values from {least} to {largest}"
        )
    return high if least >= 0 else high - low
