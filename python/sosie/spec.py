# SPDX-License-Identifier: Apache-2.0
"""Conventions of the structural similarity index, as data.

"SSIM" is many different numbers: libraries disagree on the window, on what happens at the border,
on sample or population covariance, on clamps and constants. A :class:`SSIMSpec` states one
convention; :func:`ssim_spec` returns those of known implementations by name. Executors know nothing
of names: they take the :class:`SSIMParameters` that :meth:`SSIMSpec.resolve` makes for one image
size and one data range.

Notation, with ``E[f]`` the mean of ``f`` under the window (Wang et al., "Image quality assessment:
from error visibility to structural similarity", IEEE TIP 13(4), 2004, equations 6 to 13)::

    mu_x = E[x]      var_x = scale * (E[x^2] - mu_x^2)      cov = scale * (E[xy] - mu_x mu_y)
    A1 = 2 mu_x mu_y + C1            A2 = 2 cov + C2
    B1 = mu_x^2 + mu_y^2 + C1        B2 = var_x + var_y + C2
    S = A1 A2 / (B1 B2 + epsilon)    contrast-structure = A2 / B2
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

__all__ = [
    "MAX_WINDOW_SIZE",
    "Pooling",
    "SSIMParameters",
    "SSIMSpec",
    "list_specs",
    "ssim_spec",
]

#: Largest window the kernels are built for, in pixels along one axis.
MAX_WINDOW_SIZE = 33

#: Exponents of the five scales, finest first (Wang, Simoncelli, Bovik, "Multi-scale structural
#: similarity for image quality assessment", Asilomar 2003, section 3.2).
WANG2003_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "window": ("gaussian", "uniform", "custom"),
    "window_dtype": ("float64", "float32"),
    "border": ("valid", "zero", "reflect", "symmetric", "replicate"),
    "covariance": ("population", "sample"),
    "nonnegative": ("none", "channel"),
    "downsample": (None, "wang2004", "piq"),
    "pooling": ("floor", "zero", "replicate", "symmetric"),
    "rectify": ("none", "relu", "simple"),
    "channel_order": ("before", "after"),
}


class Pooling(NamedTuple):
    """Reduction of an image by the mean of ``factor x factor`` (``x factor``) boxes.

    Attributes
    ----------
    factor : int
        Side and stride of a box, in pixels.
    padding : tuple of (int, int)
        Pixels added before and after each spatial axis first.
    border : {"zero", "replicate", "symmetric"}
        What those pixels hold. Zeros count in the mean.
    """

    factor: int
    padding: tuple[tuple[int, int], ...]
    border: str

    def shape(self, spatial_shape: Sequence[int]) -> tuple[int, ...]:
        """Spatial shape of the reduced image; incomplete boxes at the end are dropped."""
        return tuple(
            (size + before + after) // self.factor
            for size, (before, after) in zip(spatial_shape, self.padding, strict=True)
        )


@dataclass(frozen=True)
class SSIMParameters:
    """One structural similarity computation, in numbers. This is what every executor takes.

    Instances are made by :meth:`SSIMSpec.resolve` and are hashable.

    Attributes
    ----------
    taps : tuple of tuple of float
        One window per spatial axis. ``taps[axis][k]`` weighs the pixel at ``p - origin + k`` in the
        window centred at position ``p``, with ``origin = (len(taps[axis]) - 1) // 2``.
    border : {"zero", "reflect", "symmetric", "replicate"}
        What the image is surrounded by (``numpy.pad`` names; "replicate" is its "edge").
    crop : tuple of (int, int)
        Positions dropped from the start and the end of each axis of the same-size map.
    stride : int
        Every ``stride``-th position of the cropped map is kept, along every axis.
    covariance_scale : float
        1 for population covariance, ``n / (n - 1)`` for sample covariance of ``n`` pixels.
    c1, c2 : float
        Stabilising constants ``C1`` and ``C2``, in squared pixel units.
    epsilon : float
        Added to the denominator ``B1 * B2``.
    clamp_variance : bool
        Variances below 0, which rounding can cause, become 0 and pass no gradient.
    clamp_value : tuple of (float, float) or None
        Range the map is clamped to; values outside pass no gradient.
    center : float
        Value subtracted from both images before filtering: half the data range, which keeps float32
        exact where it matters, or 0 when a window does not sum to 1.
    data_range : float
        Difference between the largest and the smallest value a pixel can have.
    """

    taps: tuple[tuple[float, ...], ...]
    border: str
    crop: tuple[tuple[int, int], ...]
    stride: int
    covariance_scale: float
    c1: float
    c2: float
    epsilon: float
    clamp_variance: bool
    clamp_value: tuple[float, float] | None
    center: float
    data_range: float

    def map_shape(self, spatial_shape: Sequence[int]) -> tuple[int, ...]:
        """Spatial shape of the similarity map of an image of shape ``spatial_shape``."""
        return tuple(
            (size - before - after + self.stride - 1) // self.stride
            for size, (before, after) in zip(spatial_shape, self.crop, strict=True)
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoded", self._encode())

    def encode(self) -> str:
        """Canonical text that :meth:`decode` turns back into equal parameters, bit for bit."""
        text: str = self.__dict__["_encoded"]
        return text

    def _encode(self) -> str:
        numbers = (self.covariance_scale, self.c1, self.c2, self.epsilon)
        return "|".join(
            (
                ";".join(_hex(window) for window in self.taps),
                self.border,
                ";".join(f"{before},{after}" for before, after in self.crop),
                str(self.stride),
                _hex(numbers),
                str(int(self.clamp_variance)),
                "" if self.clamp_value is None else _hex(self.clamp_value),
                _hex((self.center, self.data_range)),
            )
        )

    @staticmethod
    def decode(text: str) -> SSIMParameters:
        """Parameters from the text of :meth:`encode`. Repeated calls cost one look-up."""
        return _decode(text)


def _hex(numbers: Iterable[float]) -> str:
    return ",".join(float(number).hex() for number in numbers)


def _unhex(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(number) for number in text.split(","))


@lru_cache(maxsize=1024)
def _decode(text: str) -> SSIMParameters:
    parts = text.split("|")
    if len(parts) != 8:
        raise ValueError(f"expected encoded SSIM parameters of 8 parts, got {len(parts)}: {text!r}")
    taps, border, crop, stride, numbers, clamp_variance, clamp_value, ranges = parts
    covariance_scale, c1, c2, epsilon = _unhex(numbers)
    center, data_range = _unhex(ranges)
    return SSIMParameters(
        taps=tuple(_unhex(window) for window in taps.split(";")),
        border=border,
        crop=tuple(_crop_pair(pair) for pair in crop.split(";")),
        stride=int(stride),
        covariance_scale=covariance_scale,
        c1=c1,
        c2=c2,
        epsilon=epsilon,
        clamp_variance=clamp_variance == "1",
        clamp_value=_range_pair(clamp_value) if clamp_value else None,
        center=center,
        data_range=data_range,
    )


def _crop_pair(text: str) -> tuple[int, int]:
    before, after = text.split(",")
    return int(before), int(after)


def _range_pair(text: str) -> tuple[float, float]:
    low, high = _unhex(text)
    return low, high


@dataclass(frozen=True)
class SSIMSpec:
    """One convention of the structural similarity index.

    The default is the convention of Wang et al. (2004). Every value is checked on construction.

    Parameters
    ----------
    window : {"gaussian", "uniform", "custom"}
        Shape of the window. It is separable: an outer product of one window per axis.
    window_size : int or tuple of int or None
        Pixels per axis (one value serves all axes): odd, at most 33. Even sizes are possible for a
        uniform window with border "valid". None when ``truncate`` or ``taps`` gives the size.
    sigma : float or tuple of float
        Standard deviation of the Gaussian per axis, in pixels.
    truncate : float, optional
        The Gaussian's radius is ``int(truncate * sigma + 0.5)``, SciPy's rule. Needs
        ``window_size=None``.
    taps : sequence of float, or sequence of sequences of float, optional
        The weights of a "custom" window: one window for all axes, or one per axis. They need not
        sum to 1.
    window_dtype : {"float64", "float32"}
        Precision in which the weights of a Gaussian or uniform window are computed. In float32 they
        sum to 1 only within 1e-7, which moves the index by up to 1e-5 in flat, bright regions.
    border : {"valid", "zero", "reflect", "symmetric", "replicate"}
        "valid" keeps only positions whose window lies inside the image. The others keep all
        positions and surround the image with zeros, or with itself mirrored about the border pixel
        (reflect: ``numpy.pad`` "reflect", SciPy "mirror"), or about the border pixel's edge
        (symmetric: ``numpy.pad`` "symmetric", SciPy "reflect"), or with copies of the border pixel.
    crop : int or "window"
        Positions dropped from every side of the map; "window" drops those whose window leaves the
        image.
    stride : int
        Every ``stride``-th position along each axis is kept.
    covariance : {"population", "sample"}
        Whether variances of ``n`` window pixels are multiplied by ``n / (n - 1)``.
    k1, k2 : float
        ``C1 = (k1 * data_range)^2`` and ``C2 = (k2 * data_range)^2``.
    c1, c2 : float, optional
        ``C1`` and ``C2`` themselves, in place of the above.
    integer_constants : bool
        Constants rounded as in integer arithmetic on window sums (x264, FFmpeg).
    epsilon : float
        Added to the denominator of the index.
    clamp_variance : bool
        Set negative variances, which come from rounding, to 0. Not with taps that do not sum to 1:
        there they may be negative without any rounding.
    clamp_value : tuple of (float, float), optional
        Clamp the map to this range.
    nonnegative : {"none", "channel"}
        "channel": the mean of the map over one channel is at least 0.
    data_range : float, optional
        Range of pixel values that the convention fixes. A call that names its own range scales the
        constants accordingly.
    downsample : {None, "wang2004", "piq"}
        Reduce large images first, by ``max(1, round(smallest_side / 256))``: with symmetric borders
        as ``ssim.m`` does, or without borders as piq does. Single-scale index only.
    scale_weights : sequence of float, optional
        Exponents of the multi-scale index, finest scale first. None: no multi-scale convention.
    pooling : {"floor", "zero", "replicate", "symmetric"}
        How images of odd size are halved between scales: drop the last pixel, pad a zero in front,
        repeat the first pixel on all axes if any is odd, or repeat the last pixel.
    rectify : {"none", "relu", "simple"}
        What is done to a scale's mean before it is raised to a power: nothing (a negative mean then
        gives NaN), ``max(v, 0)``, or ``(v + 1) / 2``.
    channel_order : {"before", "after"}
        Whether channels are averaged before or after the product over scales.
    contrast_crop : int or "window", optional
        ``crop`` for the scales that use the contrast-structure map; None means ``crop``.

    Raises
    ------
    ValueError
        A value is out of its range, or two of them contradict each other.
    TypeError
        A value is of the wrong type, or no such field exists (:meth:`replace`).

    Examples
    --------
    >>> spec = SSIMSpec(sigma=2.0).replace(border="reflect")
    >>> spec.resolve((480, 640), 1.0).map_shape((480, 640))
    (480, 640)
    """

    window: str = "gaussian"
    window_size: int | tuple[int, ...] | None = 11
    sigma: float | tuple[float, ...] = 1.5
    truncate: float | None = None
    taps: tuple[tuple[float, ...], ...] | None = None
    window_dtype: str = "float64"
    border: str = "valid"
    crop: int | str = 0
    stride: int = 1
    covariance: str = "population"
    k1: float = 0.01
    k2: float = 0.03
    c1: float | None = None
    c2: float | None = None
    integer_constants: bool = False
    epsilon: float = 0.0
    clamp_variance: bool = False
    clamp_value: tuple[float, float] | None = None
    nonnegative: str = "none"
    data_range: float | None = None
    downsample: str | None = None
    scale_weights: tuple[float, ...] | None = None
    pooling: str = "symmetric"
    rectify: str = "relu"
    channel_order: str = "after"
    contrast_crop: int | str | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name, normalise in _NORMALISE.items():
            object.__setattr__(self, name, normalise(name, getattr(self, name)))
        _check_window(self)

    def replace(self, **changes: object) -> SSIMSpec:
        """Copy with some fields changed. Repeated equal calls return the same object.

        Raises
        ------
        TypeError
            A name is not a field; the nearest one is suggested.
        """
        if not changes:
            return self
        return _replace(self, tuple((name, _hashable(value)) for name, value in changes.items()))

    def resolve(
        self, spatial_shape: Sequence[int], data_range: float | None = None
    ) -> SSIMParameters:
        """Parameters of this convention for one image size and data range.

        Parameters
        ----------
        spatial_shape : sequence of int
            Sizes of the image's two or three spatial axes, before any :meth:`downsampling`.
        data_range : float, optional
            Difference between the largest and the smallest possible pixel value. None takes the
            convention's own, if it fixes one.

        Returns
        -------
        SSIMParameters
            They hold for the image after :meth:`downsampling`.

        Raises
        ------
        ValueError
            The image is empty or smaller than the window or the border rule allows, the number of
            axes does not fit the window, or the data range is missing or not positive.
        """
        return _resolve(self, tuple(spatial_shape), data_range)

    def downsampling(self, spatial_shape: Sequence[int]) -> Pooling | None:
        """How an image of this shape is reduced before the index is taken; None if it is not."""
        return None if self.downsample is None else _downsampling(self, tuple(spatial_shape))


def ssim_spec(name: str) -> SSIMSpec:
    """Convention of a known implementation.

    Parameters
    ----------
    name : str
        One of :func:`list_specs`.

    Raises
    ------
    ValueError
        No such name; the nearest ones are suggested.

    Examples
    --------
    >>> ssim_spec("scikit-image").window
    'uniform'
    """
    try:
        return _named(name)
    except (KeyError, TypeError):
        hint = _suggestion(str(name), _CONVENTIONS)
        raise ValueError(f"unknown SSIM spec {name!r}{hint}") from None


def list_specs() -> list[str]:
    """Names that :func:`ssim_spec` knows.

    Examples
    --------
    >>> "wang2004" in list_specs()
    True
    """
    return list(_CONVENTIONS)


# --- Checks ---------------------------------------------------------------------------------------


def _suggestion(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    known = list(known)
    near = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if near:
        return "; did you mean " + " or ".join(repr(match) for match in near) + "?"
    return "; expected one of " + ", ".join(repr(match) for match in known)


def _check_choice(name: str, value: object, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"expected {name} to be one of {expected}, got {value!r}")


def _float(name: str, value: object) -> float:
    if isinstance(value, (str, bytes, bool)):
        raise TypeError(f"expected {name} to be a number, got {value!r}")
    try:
        number = float(cast("float", value))
    except TypeError:
        raise TypeError(f"expected {name} to be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"expected {name} to be finite, got {value!r}")
    return number


def _positive(name: str, value: object) -> float:
    number = _float(name, value)
    if number <= 0.0:
        raise ValueError(f"expected {name} to be positive, got {value!r}")
    return number


def _not_negative(name: str, value: object) -> float:
    number = _float(name, value)
    if number < 0.0:
        raise ValueError(f"expected {name} to be at least 0, got {value!r}")
    return number


def _integer(name: str, value: object, at_least: int) -> int:
    try:
        number = operator.index(cast("int", value))
    except TypeError:
        raise TypeError(f"expected {name} to be an integer, got {value!r}") from None
    if number < at_least:
        raise ValueError(f"expected {name} to be at least {at_least}, got {value!r}")
    return number


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected {name} to be True or False, got {value!r}")
    return value


def _is_sequence(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


def _sequence(name: str, value: object) -> tuple[Any, ...]:
    values = tuple(cast("Iterable[Any]", value))
    if not values:
        raise ValueError(f"expected {name} to hold at least one value, got {value!r}")
    return values


def _window_size(name: str, value: object) -> int | tuple[int, ...] | None:
    if value is None:
        return None
    if _is_sequence(value):
        return tuple(_integer(name, size, 1) for size in _sequence(name, value))
    return _integer(name, value, 1)


def _sigma(name: str, value: object) -> float | tuple[float, ...]:
    if _is_sequence(value):
        return tuple(_positive(name, sigma) for sigma in _sequence(name, value))
    return _positive(name, value)


def _taps(name: str, value: object) -> tuple[tuple[float, ...], ...] | None:
    if value is None:
        return None
    if not _is_sequence(value):
        raise TypeError(f"expected {name} to be a sequence of numbers, got {value!r}")
    windows = _sequence(name, value)
    if not _is_sequence(windows[0]):
        windows = (windows,)
    return tuple(tuple(_float(name, tap) for tap in _sequence(name, window)) for window in windows)


def _clamp_value(name: str, value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    if not _is_sequence(value):
        raise TypeError(f"expected {name} to be a pair of numbers, got {value!r}")
    limits = tuple(_float(name, limit) for limit in _sequence(name, value))
    if len(limits) != 2 or limits[0] >= limits[1]:
        raise ValueError(f"expected {name} to be an increasing pair of numbers, got {value!r}")
    return limits


def _crop(name: str, value: object) -> int | str:
    if isinstance(value, str):
        if value != "window":
            raise ValueError(f"expected {name} to be 'window' or an integer, got {value!r}")
        return value
    return _integer(name, value, 0)


def _scale_weights(name: str, value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not _is_sequence(value):
        raise TypeError(f"expected {name} to be a sequence of numbers, got {value!r}")
    return tuple(_not_negative(name, weight) for weight in _sequence(name, value))


_NORMALISE: dict[str, Any] = {
    "window_size": _window_size,
    "sigma": _sigma,
    "truncate": lambda name, value: None if value is None else _positive(name, value),
    "taps": _taps,
    "crop": _crop,
    "stride": lambda name, value: _integer(name, value, 1),
    "k1": _positive,
    "k2": _positive,
    "c1": lambda name, value: None if value is None else _positive(name, value),
    "c2": lambda name, value: None if value is None else _positive(name, value),
    "integer_constants": _boolean,
    "epsilon": _not_negative,
    "clamp_variance": _boolean,
    "clamp_value": _clamp_value,
    "data_range": lambda name, value: None if value is None else _positive(name, value),
    "scale_weights": _scale_weights,
    "contrast_crop": lambda name, value: None if value is None else _crop(name, value),
}


def _check_window(spec: SSIMSpec) -> None:
    """Raise unless the fields that describe the window agree with each other."""
    if (spec.window == "custom") != (spec.taps is not None):
        raise ValueError(
            f"expected taps with window='custom' and only then, got window={spec.window!r} and "
            f"taps={spec.taps!r}"
        )
    if spec.taps is not None:
        for window in spec.taps:
            if sum(window) <= 0.0:
                raise ValueError(f"expected taps with a positive sum, got {window!r}")
            _check_size("taps", len(window), even=False)
            # What rounding to half precision, the coarsest that windows come in, makes of a sum.
            if spec.clamp_variance and abs(math.fsum(window) - 1.0) > 1e-3:
                raise ValueError(
                    "expected taps that sum to 1 with clamp_variance, since variances under others "
                    f"may be negative, got a sum of {math.fsum(window)}"
                )
        return
    if spec.truncate is not None and (spec.window != "gaussian" or spec.window_size is not None):
        raise ValueError(
            "expected truncate only with window='gaussian' and window_size=None, got "
            f"truncate={spec.truncate}, window={spec.window!r}, window_size={spec.window_size}"
        )
    if spec.truncate is None and spec.window_size is None:
        raise ValueError(f"expected a window_size for window={spec.window!r}, got None")
    even = spec.window == "uniform" and spec.border == "valid"
    for axis in range(max(_axes(spec.window_size), _axes(spec.sigma))):
        _check_size("window_size", _size(spec, axis), even=even)


def _check_size(name: str, size: int, *, even: bool) -> None:
    if size > MAX_WINDOW_SIZE:
        raise ValueError(f"expected {name} of at most {MAX_WINDOW_SIZE} pixels, got {size}")
    if size % 2 == 0 and not even:
        hint = "" if name == "taps" else " (even only for a uniform window with border 'valid')"
        raise ValueError(f"expected {name} to be odd{hint}, got {size}")


def _axes(value: object) -> int:
    return len(value) if isinstance(value, tuple) else 1


# --- Resolution -----------------------------------------------------------------------------------


def _hashable(value: object) -> object:
    """Nested tuple of any nested sequence, so that it can be a cache key."""
    if _is_sequence(value):
        return tuple(_hashable(item) for item in cast("Iterable[object]", value))
    return value


@lru_cache(maxsize=256, typed=True)
def _replace(spec: SSIMSpec, changes: tuple[tuple[str, Any], ...]) -> SSIMSpec:
    values = {field.name: getattr(spec, field.name) for field in fields(spec)}
    for name, value in changes:
        if name not in values:
            raise TypeError(f"SSIMSpec has no field {name!r}{_suggestion(name, values)}")
        values[name] = value
    return SSIMSpec(**values)


@lru_cache(maxsize=1024)
def _resolve(
    spec: SSIMSpec, spatial_shape: tuple[int, ...], data_range: float | None
) -> SSIMParameters:
    shape = _checked_shape(spec, spatial_shape)
    pooling = spec.downsampling(shape)
    if pooling is not None:
        shape = pooling.shape(shape)
    value_range = _checked_range(spec, data_range)
    taps = tuple(_window(spec, axis) for axis in range(len(shape)))
    sizes = tuple(len(window) for window in taps)
    border, crop = _border_and_crop(spec.border, spec.crop, sizes)
    _check_extent(shape, sizes, border, crop)
    count = math.prod(sizes)
    c1, c2 = _constants(spec, value_range, count)
    # Subtracting a constant from the image before filtering and adding it back after is exact only
    # under windows that sum to 1 (to rounding, 33 additions of relative error 2^-53).
    normalised = all(abs(math.fsum(window) - 1.0) <= 33 * 2.0**-53 for window in taps)
    return SSIMParameters(
        taps=taps,
        border=border,
        crop=crop,
        stride=spec.stride,
        covariance_scale=_covariance_scale(spec, count),
        c1=c1,
        c2=c2,
        epsilon=spec.epsilon,
        clamp_variance=spec.clamp_variance,
        clamp_value=spec.clamp_value,
        center=value_range / 2.0 if normalised else 0.0,
        data_range=value_range,
    )


def _checked_shape(spec: SSIMSpec, spatial_shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(operator.index(size) for size in spatial_shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"expected 2 or 3 spatial axes, got {len(shape)} of sizes {shape}")
    if min(shape) < 1:
        raise ValueError(f"expected images of at least one pixel, got spatial sizes {shape}")
    for name in ("window_size", "sigma", "taps"):
        value = getattr(spec, name)
        if _axes(value) not in (1, len(shape)):
            raise ValueError(
                f"expected {name} for each of the {len(shape)} spatial axes, got {value!r}"
            )
    return shape


def _checked_range(spec: SSIMSpec, data_range: float | None) -> float:
    if data_range is not None:
        return _positive("data_range", data_range)
    if spec.data_range is None:
        raise ValueError(
            "expected data_range, the difference between the largest and the smallest value a "
            "pixel can have (1.0 for images in [0, 1], 255 for 8-bit values), got None"
        )
    return spec.data_range


def _axis_value(value: Any, axis: int) -> Any:
    if isinstance(value, tuple):
        return value[axis] if len(value) > 1 else value[0]
    return value


def _size(spec: SSIMSpec, axis: int) -> int:
    """Window size along an axis, by the size or by the truncation rule."""
    if spec.truncate is not None:
        return 2 * int(spec.truncate * _axis_value(spec.sigma, axis) + 0.5) + 1
    return int(_axis_value(spec.window_size, axis))


def _window(spec: SSIMSpec, axis: int) -> tuple[float, ...]:
    if spec.taps is not None:
        return cast("tuple[float, ...]", _axis_value(spec.taps, axis))
    size = _size(spec, axis)
    rounded = _float32 if spec.window_dtype == "float32" else float
    if spec.window == "uniform":
        return (rounded(1.0 / size),) * size
    sigma = _axis_value(spec.sigma, axis)
    exponents = [-((k - size // 2) ** 2) / rounded(2.0 * sigma**2) for k in range(size)]
    weights = [rounded(math.exp(rounded(exponent))) for exponent in exponents]
    total = rounded(math.fsum(weights))
    return tuple(rounded(weight / total) for weight in weights)


def _float32(value: float) -> float:
    """The nearest single-precision number."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _border_and_crop(
    border: str, crop: int | str, sizes: tuple[int, ...]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Border and crop as the executors take them: "valid" is a crop by the window's extent."""
    inside = tuple(((size - 1) // 2, size - 1 - (size - 1) // 2) for size in sizes)
    if border == "valid":
        extra = 0 if crop == "window" else int(crop)
        return "zero", tuple((before + extra, after + extra) for before, after in inside)
    if crop == "window":
        return "zero", inside
    margin = int(crop)
    if all(margin >= max(pair) for pair in inside):
        border = "zero"  # no window reaches outside, so the border rule cannot matter
    return border, ((margin, margin),) * len(sizes)


def _check_extent(
    shape: tuple[int, ...],
    sizes: tuple[int, ...],
    border: str,
    crop: tuple[tuple[int, int], ...],
) -> None:
    """Raise unless every axis leaves a position in the map and the border can be mirrored."""
    for size, window, (before, after) in zip(shape, sizes, crop, strict=True):
        if size <= before + after:
            raise ValueError(
                f"expected images of at least {before + after + 1} pixels along each axis for a "
                f"window of {' x '.join(map(str, sizes))}, got spatial sizes {shape}"
            )
        radius = window // 2
        # Mirroring about the border pixel has size - 1 pixels to show, about its edge size pixels.
        available = {"reflect": size - 1, "symmetric": size}.get(border, radius)
        if radius > available:
            raise ValueError(
                f"expected images larger than {radius - (border == 'symmetric')} pixels along each "
                f"axis for border {border!r} and a window of {' x '.join(map(str, sizes))}, got "
                f"spatial sizes {shape}"
            )


def _covariance_scale(spec: SSIMSpec, count: int) -> float:
    if spec.covariance == "population":
        return 1.0
    if count == 1:
        raise ValueError("expected a window of more than one pixel for sample covariance, got one")
    return count / (count - 1)


def _constants(spec: SSIMSpec, data_range: float, count: int) -> tuple[float, float]:
    if spec.integer_constants:
        c1, c2 = _integer_constants(spec, data_range, count)
    else:
        c1, c2 = (spec.k1 * data_range) ** 2, (spec.k2 * data_range) ** 2
    return (c1 if spec.c1 is None else spec.c1), (c2 if spec.c2 is None else spec.c2)


def _integer_constants(spec: SSIMSpec, data_range: float, count: int) -> tuple[float, float]:
    """Constants of an index that is computed from integer window sums, as x264 and FFmpeg do.

    With ``n`` pixels per window and sums in place of means, they add
    ``int(k1^2 L^2 n + 0.5)`` to products of two sums, which are ``n^2`` times products of means,
    and ``int(k2^2 L^2 n (n - 1) + 0.5)`` to ``n^2`` times population, that is ``n (n - 1)`` times
    sample covariances. (So their C1 is ``n`` times smaller than the paper's.)
    """
    # Integer constants mean something for integer pixels only; other ranges are rescaled 8 bits.
    peak = data_range if data_range >= 255.0 else 255.0
    pairs = count * (count - 1) if spec.covariance == "sample" else count * count
    c1 = int(spec.k1 * spec.k1 * peak * peak * count + 0.5) / (count * count)
    c2 = int(spec.k2 * spec.k2 * peak * peak * count * (count - 1) + 0.5) / pairs
    return c1 * (data_range / peak) ** 2, c2 * (data_range / peak) ** 2


@lru_cache(maxsize=1024)
def _downsampling(spec: SSIMSpec, spatial_shape: tuple[int, ...]) -> Pooling | None:
    smallest = min(spatial_shape, default=0)
    if spec.downsample == "piq":
        factor = max(1, round(smallest / 256))  # halves go to the even neighbour
        padding: tuple[tuple[int, int], ...] = ((0, 0),) * len(spatial_shape)
        border = "zero"
    else:
        factor = max(1, math.floor(smallest / 256 + 0.5))  # MATLAB's round: halves go up
        # imfilter(..., 'symmetric', 'same') centres the box on pixel (factor - 1) // 2 of it, and
        # 1:factor:end keeps the box around every factor-th pixel: boxes tile the padded image.
        before = (factor - 1) // 2
        padding = tuple(
            (before, max(0, -(-size // factor) * factor - size - before)) for size in spatial_shape
        )
        border = "symmetric"
    return None if factor == 1 else Pooling(factor, padding, border)


# --- Named conventions ----------------------------------------------------------------------------

# Where an implementation computes its window in the precision of the images, or knows no images but
# float32, the window here is the exact one.
_MULTI_SCALE: dict[str, Any] = {"scale_weights": WANG2003_WEIGHTS}
_SCIPY_GAUSSIAN: dict[str, Any] = {"window_size": None, "truncate": 3.5}
_SCIKIT_IMAGE: dict[str, Any] = {"border": "symmetric", "crop": "window", "covariance": "sample"}
_TORCHMETRICS: dict[str, Any] = {
    **_SCIPY_GAUSSIAN,
    **_MULTI_SCALE,
    "border": "reflect",
    "clamp_variance": True,
    "pooling": "floor",
    "channel_order": "before",
}
_FUSED_SSIM: dict[str, Any] = {
    "clamp_variance": True,
    "clamp_value": (-1.0, 1.0),
    "data_range": 1.0,
}

# Fields of each convention that differ from those of SSIMSpec().
_CONVENTIONS: dict[str, dict[str, Any]] = {
    # Z. Wang's ssim_index.m (2003): 11 x 11 Gaussian of sigma 1.5, filter2(..., 'valid').
    "wang2004": {},
    # Z. Wang's ssim.m (2009): the same after reducing images of a smallest side above 383 pixels.
    "wang2004-downsample": {"downsample": "wang2004"},
    # Z. Wang's msssim.m: five scales of the same index, halved by imfilter(ones(2)/4, 'symmetric')
    # and 1:2:end. A negative mean, complex to the power of a fraction in MATLAB, counts as 0 here.
    "wang2003": {**_MULTI_SCALE},
    # skimage.metrics.structural_similarity (0.26): 7 x 7 mean, sample covariance, averaged where
    # the window lies inside the image.
    "scikit-image": {**_SCIKIT_IMAGE, "window": "uniform", "window_size": 7},
    # The same with gaussian_weights=True and nothing else: scipy.ndimage's truncation, still sample
    # covariance. With use_sample_covariance=False it is "wang2004".
    "scikit-image-gaussian": {**_SCIKIT_IMAGE, **_SCIPY_GAUSSIAN},
    # pytorch_msssim (1.0.0) ssim, ms_ssim: the window is made in float32 even for float64 images;
    # avg_pool2d(padding=size % 2) counts its zeros.
    "pytorch-msssim": {**_MULTI_SCALE, "pooling": "zero", "window_dtype": "float32"},
    # torchmetrics >= 1.4.2: torch 'reflect' padding and no crop, except for the contrast-structure
    # maps of the multi-scale index.
    "torchmetrics": {**_TORCHMETRICS, "contrast_crop": "window"},
    # torchmetrics < 1.4.2: both maps cropped.
    "torchmetrics-1.4.1": {**_TORCHMETRICS, "crop": "window"},
    # piq (0.8.0) ssim with its default downsample=True, multi_scale_ssim.
    "piq": {**_MULTI_SCALE, "downsample": "piq", "pooling": "replicate"},
    # kornia.metrics.ssim (0.9) with window_size=11: padding="same" mirrors, "valid" crops.
    "kornia": {"border": "reflect", "epsilon": 1e-12},
    "kornia-valid": {"epsilon": 1e-12},
    # tf.image.ssim, tf.image.ssim_multiscale (2.x): tf.pad(mode="SYMMETRIC") on the far sides.
    "tensorflow": {**_MULTI_SCALE},
    # cv2.quality.QualitySSIM: GaussianBlur with its default border, constants of 8-bit images.
    "opencv": {"border": "reflect", "data_range": 255.0},
    # fused_ssim(padding="same" | "valid"): zeros outside, constants of images in [0, 1].
    "fused-ssim": {**_FUSED_SSIM, "border": "zero"},
    "fused-ssim-valid": {**_FUSED_SSIM},
    # monai.metrics SSIMMetric, MultiScaleSSIMMetric (1.x).
    "monai": {**_MULTI_SCALE, "pooling": "floor", "channel_order": "before"},
    # FFmpeg's vf_ssim and x264's --ssim: 8 x 8 boxes every 4 pixels, integer sums.
    "ffmpeg": {
        "window": "uniform",
        "window_size": 8,
        "stride": 4,
        "covariance": "sample",
        "integer_constants": True,
        "data_range": 255.0,
    },
}


@cache
def _named(name: str) -> SSIMSpec:
    return SSIMSpec(**_CONVENTIONS[name])
