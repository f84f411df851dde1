# SPDX-License-Identifier: Apache-2.0
"""Search of a template in images by weighted squared differences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sosie.arrays import Array, adapter
from sosie.backends import executor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["match_template_ssd"]

_DTYPES = ("uint8", "float32", "float64")
_METHODS = ("auto", "direct", "fft")

#: Terms of a sum that the direct method adds up in the time a transform takes for one sample and
#: one halving of the length: 10 to 17 on one core with AVX-512, for templates of 8 to 64 pixels a
#: side in an image of 1080 x 1920. Threads help the direct method alone.
_TERMS_PER_STEP = 16.0

#: By how much the rounding of a transform is allowed to be smaller than a value it is kept for.
_KEPT = 1e6


def match_template_ssd(
    image: Array,
    template: Array,
    weight: Array | None = None,
    mask: Array | None = None,
    *,
    method: str = "auto",
) -> Any:
    """Weighted sum of squared differences at every position of a template inside images.

    ``map[i, j] = sum of weight (image[i + r, j + s] - template[r, s])^2`` over the template's
    pixels and channels: 0 where the template is found, the smaller the better elsewhere.

    Parameters
    ----------
    image : array of shape (..., H, W), or (..., C, H, W) for a template with channels
        NumPy array or torch tensor: uint8, float32 or float64. Any strides.
    template : array of shape (h, w) or (C, h, w)
        Of the image's library and dtype, no larger than the image.
    weight : array that broadcasts to the template, optional
        At least 0 and finite, float32 or float64.
    mask : bool array that broadcasts to the template, optional
        True where a pixel of the template counts.
    method : {"auto", "direct", "fft"}
        "direct" takes the differences one by one, with the compiled kernels. "fft" expands the
        square and correlates by Fourier transforms in float64, which for large templates is
        faster; positions whose value is small against its rounding are then computed directly.
        "auto" takes the one with fewer operations.

    Returns
    -------
    array of shape (..., H - h + 1, W - w + 1)
        float32 for float32, float64 for uint8 and float64. An exact match is exactly 0, by either
        method; for uint8 without weights "direct" is exact everywhere. Methods agree within 1e-5 of
        each value for float32, and 2e-6 for float64. Not differentiable: tensors are taken as they
        are, without their graph.

    Raises
    ------
    TypeError
        Dtypes or libraries differ or are not supported.
    ValueError
        Shapes do not fit, the method is unknown, a weight is negative or not finite.

    Notes
    -----
    A pixel of weight 0 may hold anything in the image. NaN or infinity elsewhere reaches the
    positions that see it, and no others.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> image = np.arange(36, dtype=np.uint8).reshape(6, 6)
    >>> found = sosie.match_template_ssd(image, image[2:5, 1:4])
    >>> found.shape, float(found.min()), np.argwhere(found == 0).tolist()
    ((4, 4), 0.0, [[2, 1]])
    """
    search = _checked(image, template, weight, mask)
    if method not in _METHODS:
        raise ValueError(
            f"expected a method out of {', '.join(map(repr, _METHODS))}, got {method!r}"
        )
    if method == "auto":
        method = _cheaper(search)
    result = _direct(search) if method == "direct" else _by_transform(search)
    return result.reshape(*search.lead, *result.shape[1:])


class _Search(NamedTuple):
    images: Array  # (N, C, H, W)
    lead: tuple[int, ...]  # axes that N stands for
    template: NDArray[Any]  # (C, h, w)
    weights: NDArray[np.float64] | None  # (C, h, w); None: all are 1
    dtype: str  # of the map


def _checked(image: Array, template: Array, weight: Array | None, mask: Array | None) -> _Search:
    library = adapter(image)
    if adapter(template) is not library:
        raise TypeError(
            f"expected image and template of one array library, got {type(image)} and "
            f"{type(template)}"
        )
    if library.dtype(image) not in _DTYPES or template.dtype != image.dtype:
        raise TypeError(
            f"expected image and template of one dtype out of {', '.join(_DTYPES)}, got "
            f"{image.dtype} and {template.dtype}"
        )
    shape, own = tuple(image.shape), tuple(template.shape)
    axes = len(own)
    if axes not in (2, 3) or len(shape) < axes:
        raise ValueError(
            "expected a template (h, w) or (C, h, w) and an image with those axes at least, got "
            f"shapes {own} and {shape}"
        )
    if 0 in shape or 0 in own or shape[-axes:-2] != own[:-2]:
        raise ValueError(
            f"expected pixels, and as many channels as the image, got shapes {own} and {shape}"
        )
    if own[-2] > shape[-2] or own[-1] > shape[-1]:
        raise ValueError(
            f"expected a template no larger than the image {shape[-2:]}, got {own[-2:]}"
        )
    if library.name != "numpy":
        image = image.detach()
    channels = own[:-2] or (1,)
    values = library.to_numpy(template).reshape(*channels, *own[-2:])
    weights = _weights(library, weight, mask, own)
    return _Search(
        image.reshape(-1, *channels, *shape[-2:]),
        shape[:-axes],
        values,
        None if weights is None else weights.reshape(values.shape),
        "float32" if library.dtype(image) == "float32" else "float64",
    )


def _weights(
    library: Any, weight: Array | None, mask: Array | None, shape: tuple[int, ...]
) -> NDArray[np.float64] | None:
    """Weights times mask, of the template's shape."""
    result = None
    for name, factor, dtypes in (
        ("weight", weight, ("float32", "float64")), ("mask", mask, ("bool",))
    ):  # fmt: skip
        if factor is None:
            continue
        if adapter(factor) is not library or library.dtype(factor) not in dtypes:
            raise TypeError(
                f"expected a {name} of the image's library and of dtype {' or '.join(dtypes)}, "
                f"got {type(factor)} of {factor.dtype}"
            )
        values = library.to_numpy(factor).astype(np.float64)
        try:
            values = np.broadcast_to(values, shape)
        except ValueError:
            raise ValueError(
                f"expected a {name} that broadcasts to the template {shape}, got {values.shape}"
            ) from None
        if not np.isfinite(values).all() or values.min() < 0.0:
            bad = values[~(np.isfinite(values) & (values >= 0.0))][0]
            raise ValueError(f"expected finite weights of at least 0, got {bad}")
        result = values if result is None else result * values
    return result


def _cheaper(search: _Search) -> str:
    """The method with fewer operations."""
    _, channels, height, width = search.images.shape
    rows, columns = height - search.template.shape[1] + 1, width - search.template.shape[2] + 1
    terms = float(rows * columns) * search.template.size
    samples = float(height * width)
    # Two correlations per channel: transforms of the image and its square, the template and the
    # weights, and one back.
    steps = (4 * channels + 1) * samples * math.log2(samples)
    return "direct" if terms <= _TERMS_PER_STEP * steps else "fft"


def _direct(search: _Search) -> Array:
    return executor(search.images).template_search(
        search.images, search.template, search.weights, search.dtype
    )


def _by_transform(search: _Search) -> Array:
    library = adapter(search.images)
    pixels = library.to_numpy(search.images)
    maps = [_transformed(image, search, image_index) for image_index, image in enumerate(pixels)]
    return library.from_numpy(np.stack(maps).astype(search.dtype), search.images)


def _transformed(pixels: NDArray[Any], search: _Search, index: int) -> NDArray[np.float64]:
    """The map of one image ``(C, H, W)``.

    ``sum of w (I - T)^2 = sum of w I^2 - 2 sum of (w T) I + sum of w T^2``, of an image and a
    template that the template's mean was taken from, which makes all three small.
    """
    template = search.template.astype(np.float64)
    weights = np.ones(template.shape) if search.weights is None else search.weights
    total = weights.sum(axis=(1, 2), keepdims=True)
    center = (weights * template).sum(axis=(1, 2), keepdims=True) / np.where(total > 0, total, 1)
    image, template = pixels.astype(np.float64) - center, template - center
    finite = np.isfinite(image)
    image[~finite] = 0.0
    correlation, constant, rounding = _Correlation(image.shape[1:], template.shape[1:]), 0.0, 0.0
    for plane, values, weight in zip(image, template, weights, strict=True):
        square, weighted = plane * plane, weight * values
        correlation.add(square, weight)
        correlation.add(plane, -2.0 * weighted)
        constant += float((weighted * values).sum())
        rounding += _norm(weight) * _norm(square) + 2.0 * _norm(weighted) * _norm(plane)
    value = correlation.sum() + constant
    # The error of a transform grows with the logarithm of its length (Higham, "Accuracy and
    # Stability of Numerical Algorithms", 2nd edition, theorem 24.2).
    rounding *= np.finfo(np.float64).eps * math.log2(image[0].size + 1)
    again = value <= _KEPT * rounding
    if not finite.all():
        seen = _Correlation(image.shape[1:], template.shape[1:])
        for hole, own in zip(~finite, weights > 0.0, strict=True):
            seen.add(hole.astype(np.float64), own.astype(np.float64))
        again |= seen.sum() > 0.5  # counts, which transforms round by far less than a half
    _compute_again(value, again, search, index)
    return value


def _norm(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values * values).sum()))


class _Correlation:
    """Sum of correlations, ``sum of window[r, s] image[i + r, j + s]`` inside the image.

    It is added up in frequency space, so that one transform leads back.
    """

    def __init__(self, image_shape: tuple[int, ...], window_shape: tuple[int, ...]) -> None:
        self._inside = tuple(
            slice(size - own + 1) for size, own in zip(image_shape, window_shape, strict=True)
        )
        # What wraps around lands on positions that reach outside, which are cut off.
        self._transforms, self._lengths = _transforms(image_shape)
        self._spectrum: Any = 0.0

    def add(self, image: NDArray[np.float64], window: NDArray[np.float64]) -> None:
        """One more image and window."""
        forward = self._transforms.rfft2
        self._spectrum = self._spectrum + (
            forward(image, self._lengths) * forward(window, self._lengths).conj()
        )

    def sum(self) -> NDArray[np.float64]:
        """What was added, at every position of the window inside the image."""
        values: NDArray[np.float64] = self._transforms.irfft2(self._spectrum, self._lengths)
        return values[self._inside].copy()


def _transforms(shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """SciPy's Fourier transforms and lengths that suit them, else NumPy's, which are slower."""
    try:
        from scipy import fft
    except ImportError:
        return np.fft, shape
    return fft, tuple(fft.next_fast_len(size, real=True) for size in shape)


def _compute_again(
    value: NDArray[np.float64], again: NDArray[np.bool_], search: _Search, index: int
) -> None:
    """Replace values by those of the direct method, row by row between the first and the last."""
    height, width = search.template.shape[1:]
    for row in np.flatnonzero(again.any(axis=1)):
        columns = np.flatnonzero(again[row])
        first, last = int(columns[0]), int(columns[-1])
        part = search.images[index : index + 1, :, row : row + height, first : last + width]
        found = _direct(search._replace(images=part, dtype="float64"))
        library = adapter(search.images)
        value[row, first : last + 1] = library.to_numpy(found)[0, 0]
