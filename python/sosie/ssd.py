# SPDX-License-Identifier: Apache-2.0
"""Weighted sum of squared differences, mean squared error, peak signal-to-noise ratio."""

from __future__ import annotations

import math
from functools import cache
from numbers import Real
from typing import Any

import numpy as np

from sosie.arrays import Array, adapter, is_torch
from sosie.backends import executor
from sosie.images import Layout, check_pair, default_data_range

__all__ = ["mse", "psnr", "weighted_ssd"]

_WEIGHT_DTYPES = ("bool", "float16", "bfloat16", "float32", "float64")
_REDUCTIONS = ("mean", "none", "sum")

# Red, green and blue in the luma of ITU-R BT.601 with 8-bit studio levels, 16 to 235.
_LUMA = (65.481, 128.553, 24.966)


def weighted_ssd(
    x: Array,
    y: Array,
    weight: Array | float | None = None,
    *,
    reduction: str = "sum",
    allow_negative: bool = False,
    spatial_dims: int = 2,
    channel_axis: int | None = None,
) -> Any:
    """Weighted sum of squared differences, ``sum of w (x - y)^2``, or its mean.

    Parameters
    ----------
    x, y : array of any shape with at least one axis
        NumPy arrays, torch tensors or CuPy arrays of equal shape and dtype: uint8, uint16, float16,
        bfloat16, float32 (computed in float32, sums in float64) or float64 (computed in float64).
        Any strides. Torch tensors are differentiable, any number of times.
    weight : number or array that broadcasts to x, optional
        By NumPy's rules: one per sample, per pixel ``(H, W)``, per channel ``(C, 1, 1)``, per image
        ``(N, 1, 1, 1)``; nothing is expanded in memory. Boolean (a mask), float16, bfloat16,
        float32 or float64; computed with in the images' computing dtype. Differentiable where it is
        a torch tensor; the gradient of a broadcast weight is the sum over its samples. A weight
        of 0 takes its sample out, whatever that holds, NaN included.
    reduction : {"sum", "mean", "none"}
        The sum over all samples; that divided by the sum of the broadcast weights; one sum per
        image ``(N,)``. Images lie along the first axis when there are two more axes than
        ``spatial_dims``; else all is one image.
    allow_negative : bool
        Accept weights below 0, with which the result is no longer a distance.
    spatial_dims : {2, 3}
        Spatial axes, which say for ``"none"`` whether there is an axis of images.
    channel_axis : int, optional
        Axis of the channels; it says which axis is that of the images, if not the first. Weights
        broadcast to x as it is.

    Returns
    -------
    scalar or array of shape (N,)
        float64 for NumPy and CuPy; float32 (float64 for float64 tensors) for torch. Where the
        weights sum to 0 the mean is 0 and so are its gradients: a batch whose mask is empty adds
        nothing to a loss, where 0 / 0 would put NaN into every parameter.

    Raises
    ------
    TypeError
        Dtypes or libraries differ or are not supported.
    ValueError
        Shapes differ or do not broadcast, an option is unknown, a weight is negative or not finite.
        On a CUDA device, for which nobody waits, such a weight makes its sum NaN instead.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x, y = np.array([[1.0, 5.0]]), np.array([[0.0, 2.0]])
    >>> float(sosie.weighted_ssd(x, y))
    10.0
    >>> float(sosie.weighted_ssd(x, y, np.array([1.0, 0.5])))
    5.5
    >>> float(sosie.weighted_ssd(x, y, np.array([True, False]), reduction="mean"))
    1.0
    """
    if is_torch(x):
        _torch_operators()
    return _weighted_ssd(x, y, weight, reduction, allow_negative, spatial_dims, channel_axis)


def mse(
    x: Array,
    y: Array,
    *,
    weight: Array | float | None = None,
    reduction: str = "mean",
    crop_border: int = 0,
    channel_axis: int | None = None,
    spatial_dims: int = 2,
) -> Any:
    """Mean squared error of images, under weights if there are any.

    Parameters
    ----------
    x, y : array of shape (*spatial), (C, *spatial) or (N, C, *spatial)
        As for :func:`weighted_ssd`. Sums of integers are exact.
    weight : number or array that broadcasts to x, optional
        As for :func:`weighted_ssd`: the result is ``sum of w (x - y)^2 / sum of w``, 0 where the
        weights sum to 0.
    reduction : {"mean", "none", "sum"}
        The mean over all samples of all images; one per image ``(N,)``; the sum of those.
    crop_border : int
        Pixels left out along every side.
    channel_axis : int, optional
        Axis of the channels, for example -1 for ``(H, W, C)`` and ``(N, H, W, C)``.
    spatial_dims : {2, 3}
        Spatial axes: images or volumes.

    Returns
    -------
    scalar or array of shape (N,)
        In squared units of the images; float64 for NumPy, float32 (float64 for float64 tensors) for
        torch, differentiable in images and weights.

    Raises
    ------
    TypeError, ValueError
        As for :func:`weighted_ssd`; also a border that leaves nothing.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x = np.zeros((4, 4), np.uint8)
    >>> y = x.copy()
    >>> y[0, 0] = 200
    >>> float(sosie.mse(x, y)), float(sosie.mse(x, y, crop_border=1))
    (2500.0, 0.0)
    """
    if is_torch(x):
        _torch_operators()
    return _mse(x, y, weight, reduction, crop_border, channel_axis, spatial_dims)


def psnr(
    x: Array,
    y: Array,
    *,
    data_range: float | None = None,
    reduction: str = "mean",
    crop_border: int = 0,
    y_channel: bool = False,
    channel_axis: int | None = None,
    spatial_dims: int = 2,
) -> Any:
    """Peak signal-to-noise ratio, ``10 log10(data_range^2 / mean squared error)``, in decibels.

    Parameters
    ----------
    x, y : array of shape (*spatial), (C, *spatial) or (N, C, *spatial)
        As for :func:`mse`.
    data_range : float, optional
        Difference between the largest and the smallest value a pixel can have. Needed for
        floating-point images; 255 and 65535 for uint8 and uint16.
    reduction : {"mean", "none", "sum"}
        The mean over the images of their ratios; one per image ``(N,)``; the sum of those.
    crop_border : int
        Pixels left out along every side, as super-resolution papers do.
    y_channel : bool
        Compare the luma of RGB images: Y of ITU-R BT.601 in studio levels, as MATLAB's
        ``rgb2ycbcr`` has it, ``(65.481 R + 128.553 G + 24.966 B + 16 data_range) / 255`` in units
        of the images. It is not rounded, also where the images hold integers.
    channel_axis, spatial_dims
        As for :func:`mse`.

    Returns
    -------
    scalar or array of shape (N,)
        Infinite for equal images (for which a gradient does not exist: it is NaN). float64 for
        NumPy, float32 (float64 for float64 tensors) for torch, differentiable.

    Raises
    ------
    TypeError, ValueError
        As for :func:`mse`; also a missing data range, and a luma of other than three channels.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x = np.zeros((8, 8), np.uint8)
    >>> round(float(sosie.psnr(x, x + np.uint8(16))), 3)
    24.048
    >>> float(sosie.psnr(x, x))
    inf
    """
    if is_torch(x):
        _torch_operators()
    return _psnr(x, y, data_range, reduction, crop_border, y_channel, channel_axis, spatial_dims)


@cache
def _torch_operators() -> Any:
    """The torch side, imported when the first tensor comes.

    The import also tells compilers to take the three functions below as they are.
    """
    from sosie.torch import ssd as operators

    return operators


def _weighted_ssd(
    x: Array,
    y: Array,
    weight: Array | float | None,
    reduction: str,
    allow_negative: bool,
    spatial_dims: int,
    channel_axis: int | None,
) -> Any:
    check_pair(x, y)
    _check_reduction(reduction)
    check_elements(x)
    if spatial_dims not in (2, 3):
        raise ValueError(f"expected spatial_dims 2 or 3, got {spatial_dims!r}")
    weights = broadcastable_weight(weight, x)
    per_image = reduction == "none" and x.ndim == spatial_dims + 2
    if per_image and channel_axis is not None:
        layout = Layout(tuple(x.shape), spatial_dims, channel_axis)
        x, y = layout.planes(x), layout.planes(y)
        weights = None if weights is None else layout.planes(weights)
    sums = _sums(x, y, weights, per_image, allow_negative)
    if reduction == "none":
        return _in_dtype_of_result(sums[:, 0], x)
    value = _weighted_mean(sums[0]) if reduction == "mean" else sums[0, 0]
    return _in_dtype_of_result(value, x)


def _mse(
    x: Array,
    y: Array,
    weight: Array | float | None,
    reduction: str,
    crop_border: int,
    channel_axis: int | None,
    spatial_dims: int,
) -> Any:
    check_pair(x, y)
    _check_reduction(reduction)
    layout = Layout(tuple(x.shape), spatial_dims, channel_axis)
    inside = _inside(layout.planes(x).shape, crop_border)
    planes_x, planes_y = layout.planes(x)[inside], layout.planes(y)[inside]
    planes_weight = broadcastable_weight(weight, x)
    if planes_weight is not None:
        planes_weight = layout.planes(planes_weight)
        sizes = planes_weight.shape
        planes_weight = planes_weight[
            tuple(cut if size > 1 else slice(1) for cut, size in zip(inside, sizes, strict=True))
        ]
    means = _weighted_mean(_sums(planes_x, planes_y, planes_weight, reduction != "mean", False))
    value = means if reduction == "none" else means[0] if reduction == "mean" else means.sum()
    return _in_dtype_of_result(value, x)


def _psnr(
    x: Array,
    y: Array,
    data_range: float | None,
    reduction: str,
    crop_border: int,
    y_channel: bool,
    channel_axis: int | None,
    spatial_dims: int,
) -> Any:
    check_pair(x, y)
    _check_reduction(reduction)
    peak = _peak(x, data_range)
    layout = Layout(tuple(x.shape), spatial_dims, channel_axis)
    inside = _inside(layout.planes(x).shape, crop_border)
    planes_x, planes_y = layout.planes(x)[inside], layout.planes(y)[inside]
    if y_channel:
        planes_x, planes_y = (_luma(planes, peak) for planes in (planes_x, planes_y))
    errors = _weighted_mean(_sums(planes_x, planes_y, None, True, False))
    if is_torch(x):
        ratios = 10.0 * (peak**2 / errors).log10()
    else:
        with np.errstate(divide="ignore"):
            ratios = 10.0 * adapter(errors).module.log10(peak**2 / errors)
    reduced = {"none": lambda: ratios, "mean": ratios.mean, "sum": ratios.sum}[reduction]()
    return _in_dtype_of_result(reduced, x)


def _peak(x: Array, data_range: float | None) -> float:
    """The caller's range, else the dtype's."""
    if data_range is None:
        data_range = default_data_range(x)
        if data_range is None:
            raise ValueError(
                f"expected a data_range for images of dtype {x.dtype} (1.0 for images in [0, 1]), "
                "got None"
            )
    if not isinstance(data_range, Real):
        raise TypeError(f"expected data_range to be a number, got {data_range!r}")
    if not 0.0 < data_range < math.inf:
        raise ValueError(f"expected a finite data_range above 0, got {data_range!r}")
    return float(data_range)


def _inside(shape: Any, crop_border: int) -> tuple[slice, ...]:
    """Index of what a border of so many pixels leaves of planes ``(N, C, *spatial)``."""
    if crop_border != int(crop_border) or crop_border < 0:
        raise ValueError(f"expected a crop_border of 0 pixels or more, got {crop_border!r}")
    border = int(crop_border)
    if any(size <= 2 * border for size in shape[2:]):
        raise ValueError(
            f"expected a crop_border that leaves a pixel of images of {tuple(shape[2:])}, "
            f"got {crop_border!r}"
        )
    return slice(None), slice(None), *(slice(border, size - border) for size in shape[2:])


def _luma(planes: Array, data_range: float) -> Array:
    """Y of RGB planes ``(N, 3, *spatial)``, ``(N, 1, *spatial)``, in units of the images."""
    if planes.shape[1] != 3:
        raise ValueError(f"expected 3 channels (RGB) for y_channel, got {planes.shape[1]}")
    if is_torch(planes):
        planes = planes.to(_torch_operators().computed_dtype(planes))
    else:
        planes = planes.astype(np.float64)
    red, green, blue = (factor / 255.0 * planes[:, i : i + 1] for i, factor in enumerate(_LUMA))
    return red + green + blue + 16.0 / 255.0 * data_range


def _check_reduction(reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(
            f"expected a reduction out of {', '.join(map(repr, _REDUCTIONS))}, got {reduction!r}"
        )


def _sums(x: Array, y: Array, weight: Array | None, per_image: bool, allow_negative: bool) -> Any:
    """Sum of ``w (x - y)^2`` and sum of ``w`` of every image, float64 ``(N, 2)``."""
    if is_torch(x):
        return _torch_operators().sums(x, y, weight, per_image, allow_negative)
    return executor(x).ssd_forward(x, y, weight, per_image=per_image, allow_negative=allow_negative)


def _weighted_mean(sums: Any) -> Any:
    """``S / W`` of sums ``(..., 2)``; 0 where W is 0."""
    if is_torch(sums):
        return _torch_operators().weighted_mean(sums)
    where = adapter(sums).module.where
    empty = sums[..., 1] == 0.0
    return where(empty, 0.0, sums[..., 0]) / where(empty, 1.0, sums[..., 1])


def _in_dtype_of_result(value: Any, x: Array) -> Any:
    return value.to(_torch_operators().computed_dtype(x)) if is_torch(x) else value


def check_elements(x: Array) -> None:
    """Raise ValueError unless there are an axis and an element."""
    if x.ndim == 0 or 0 in x.shape:
        raise ValueError(
            f"expected arrays with an axis and at least one element, got shape {tuple(x.shape)}"
        )


def broadcastable_weight(weight: Array | float | None, x: Array) -> Array | None:
    """The weights with as many axes as ``x``, each of its length or of length 1.

    Raises
    ------
    TypeError
        They are of another library or of a dtype that weights cannot have.
    ValueError
        They do not broadcast to the images.
    """
    if weight is None:
        return None
    library = adapter(x)
    array: Array = weight
    if isinstance(weight, Real):
        array = library.from_numpy(np.asarray(weight, np.float64), x)
    if adapter(array) is not library:
        raise TypeError(
            f"expected weights of the images' library, got {type(array)} beside {type(x)}"
        )
    if library.dtype(array) not in _WEIGHT_DTYPES:
        raise TypeError(f"expected weights of dtype {', '.join(_WEIGHT_DTYPES)}, got {array.dtype}")
    if library.name != "numpy" and array.device != x.device:
        raise ValueError(f"expected weights on {x.device} like the images, got {array.device}")
    shape, missing = tuple(array.shape), x.ndim - array.ndim
    if missing < 0 or any(
        size not in (1, full) for size, full in zip(shape, x.shape[missing:], strict=True)
    ):
        raise ValueError(
            f"expected weights that broadcast to the images' shape {tuple(x.shape)}, got {shape}"
        )
    return array[(None,) * missing] if missing else array
