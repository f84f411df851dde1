# SPDX-License-Identifier: Apache-2.0
"""Structural similarity and its multi-scale form, as formulas, in float64 NumPy.

A window, its border rule, its crop and its stride are one linear map per spatial axis. Here that
map is a dense matrix ``A`` of shape (map size, image size), so that the local mean of an image
``X`` is ``A_h X A_w^T`` and its adjoint, which gradients need, is ``A_h^T G A_w``.

Arrays have the shape ``(batch, channels, *spatial)`` with two or three spatial axes. Images of any
real dtype are converted to float64. Formulas and names are those of :mod:`sosie.spec`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sosie.scales import combine_scales, plan_scales
from sosie.spec import SSIMParameters, SSIMSpec

__all__ = [
    "downsample_backward",
    "downsample_forward",
    "ms_ssim",
    "ms_ssim_gradient",
    "pooling_matrix",
    "ssim",
    "ssim_backward",
    "ssim_forward",
    "ssim_gradient",
    "ssim_loss",
    "window_matrix",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


# --- Linear maps of one axis ----------------------------------------------------------------------


def _source(position: int, size: int, border: str) -> int | None:
    """Index of the pixel that is seen at ``position``, which may lie outside; None sees a zero."""
    if 0 <= position < size:
        return position
    if border == "zero":
        return None
    if border == "replicate":
        return 0 if position < 0 else size - 1
    if border == "symmetric":  # ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
        folded = position % (2 * size)
        return folded if folded < size else 2 * size - 1 - folded
    if border == "reflect":  # ... 2 1 | 0 1 ... n-1 | n-2 n-3 ...
        folded = position % max(1, 2 * size - 2)
        return folded if folded < size else 2 * size - 2 - folded
    raise ValueError(f"expected a border rule, got {border!r}")


@lru_cache(maxsize=256)
def window_matrix(
    size: int, taps: tuple[float, ...], border: str, crop: tuple[int, int], stride: int
) -> Array:
    """Local weighted sum along one axis, as a matrix.

    Parameters
    ----------
    size : int
        Pixels along the axis.
    taps : tuple of float
        ``taps[k]`` weighs the pixel at ``p - origin + k``, ``origin = (len(taps) - 1) // 2``.
    border, crop, stride
        As in :class:`sosie.SSIMParameters`, ``crop`` for this axis.

    Returns
    -------
    ndarray of shape (map size, size), read-only

    Examples
    --------
    >>> window_matrix(3, (0.25, 0.5, 0.25), "replicate", (0, 0), 1)
    array([[0.75, 0.25, 0.  ],
           [0.25, 0.5 , 0.25],
           [0.  , 0.25, 0.75]])
    """
    origin = (len(taps) - 1) // 2
    positions = range(crop[0], size - crop[1], stride)
    matrix = np.zeros((len(positions), size))
    for row, position in enumerate(positions):
        for k, tap in enumerate(taps):
            source = _source(position - origin + k, size, border)
            if source is not None:
                matrix[row, source] += tap
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=256)
def pooling_matrix(size: int, factor: int, padding: tuple[int, int], border: str) -> Array:
    """Mean of boxes of ``factor`` pixels along one axis after padding, as a matrix.

    Parameters
    ----------
    size : int
        Pixels along the axis.
    factor : int
        Pixels in a box, and between boxes.
    padding : tuple of (int, int)
        Pixels added before and after. A box that does not fit at the end is dropped.
    border : {"zero", "replicate", "symmetric"}
        What they hold.

    Returns
    -------
    ndarray of shape (boxes, size), read-only

    Examples
    --------
    >>> pooling_matrix(3, 2, (0, 1), "symmetric")
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 1. ]])
    """
    matrix = np.zeros(((size + sum(padding)) // factor, size))
    for row in range(matrix.shape[0]):
        for k in range(factor):
            source = _source(row * factor + k - padding[0], size, border)
            if source is not None:
                matrix[row, source] += 1.0 / factor
    matrix.setflags(write=False)
    return matrix


def _product(matrices: Sequence[NDArray[Any]], values: NDArray[Any]) -> Array:
    """Each matrix times its axis of the last ``len(matrices)`` axes."""
    for axis, matrix in enumerate(matrices, start=values.ndim - len(matrices)):
        values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return values


def _apply(matrices: Sequence[Array], values: Array) -> Array:
    """The linear map of all spatial axes. NaN and Inf reach only the sums they are part of.

    In a dense product they would reach every sum of their plane, since 0 * NaN is NaN.
    """
    finite = np.isfinite(values)
    result = _product(matrices, np.where(finite, values, 0.0))
    if finite.all():
        return result
    reached = _product([(matrix != 0.0).astype(float) for matrix in matrices], ~finite) > 0.0
    return np.where(reached, np.nan, result)


# --- One scale ------------------------------------------------------------------------------------


class _Moments(NamedTuple):
    """Local statistics and what the map is made of, each of the map's shape."""

    mu_x: Array
    mu_y: Array
    a1: Array
    a2: Array
    b1: Array
    b2: Array
    passes_x: Mask  # where the variance of x was not clamped
    passes_y: Mask
    weight: Array  # F[mask], 1 without a mask and where it is 0
    defined: Mask  # where F[mask] > 0


def _matrices(spatial_shape: Sequence[int], parameters: SSIMParameters) -> list[Array]:
    return [
        window_matrix(size, taps, parameters.border, crop, parameters.stride)
        for size, taps, crop in zip(spatial_shape, parameters.taps, parameters.crop, strict=True)
    ]


def _images(
    x: ArrayLike, y: ArrayLike, axes: int, mask: ArrayLike | None
) -> tuple[Array, Array, Mask | None]:
    """Float64 copies of the images, 0 where the mask is False, and the mask in their shape."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"expected x and y of equal shape, got {x.shape} and {y.shape}")
    if x.ndim != axes + 2:
        raise ValueError(
            f"expected images of shape (batch, channels, *spatial) with {axes} spatial axes, got "
            f"{x.shape}"
        )
    if mask is None:
        return x, y, None
    valid = np.broadcast_to(np.asarray(mask, dtype=bool), x.shape)
    return np.where(valid, x, 0.0), np.where(valid, y, 0.0), valid


def _moments(x: Array, y: Array, mask: Mask | None, p: SSIMParameters) -> _Moments:
    matrices = _matrices(x.shape[2:], p)
    if mask is None:
        weight = np.ones((*x.shape[:2], *(matrix.shape[0] for matrix in matrices)))
        defined = np.ones(weight.shape, dtype=bool)
    else:
        weight = _apply(matrices, mask.astype(np.float64))
        defined = weight > 0.0
        weight = np.where(defined, weight, 1.0)

    mu_x = _apply(matrices, x) / weight
    mu_y = _apply(matrices, y) / weight
    var_x = p.covariance_scale * (_apply(matrices, x * x) / weight - mu_x * mu_x)
    var_y = p.covariance_scale * (_apply(matrices, y * y) / weight - mu_y * mu_y)
    cov = p.covariance_scale * (_apply(matrices, x * y) / weight - mu_x * mu_y)
    passes_x = passes_y = np.ones(defined.shape, dtype=bool)
    if p.clamp_variance:
        passes_x, passes_y = ~(var_x < 0.0), ~(var_y < 0.0)
        var_x, var_y = np.where(passes_x, var_x, 0.0), np.where(passes_y, var_y, 0.0)
    return _Moments(
        mu_x,
        mu_y,
        a1=2.0 * mu_x * mu_y + p.c1,
        a2=2.0 * cov + p.c2,
        b1=mu_x * mu_x + mu_y * mu_y + p.c1,
        b2=var_x + var_y + p.c2,
        passes_x=passes_x,
        passes_y=passes_y,
        weight=weight,
        defined=defined,
    )


def _similarity(m: _Moments, p: SSIMParameters, kind: str) -> Array:
    """The map before it is clamped."""
    if kind == "ssim":
        return m.a1 * m.a2 / (m.b1 * m.b2 + p.epsilon)
    if kind == "cs":
        return m.a2 / m.b2
    raise ValueError(f"expected kind to be 'ssim' or 'cs', got {kind!r}")


def _centres(mask: Mask | None, shape: tuple[int, ...], p: SSIMParameters) -> Mask:
    """Positions of the map that count in its mean: those whose centre pixel is valid."""
    valid = np.ones(shape, dtype=bool) if mask is None else mask
    spatial = tuple(
        slice(before, size - after, p.stride)
        for size, (before, after) in zip(shape[2:], p.crop, strict=True)
    )
    return valid[(slice(None), slice(None), *spatial)]


def _mean(values: Array, counted: Mask) -> Array:
    """Mean over the spatial axes of what is counted; NaN where nothing is. Shape (N, C)."""
    axes = tuple(range(2, values.ndim))
    total: Array = np.where(counted, values, 0.0).sum(axis=axes)
    count: Array = counted.sum(axis=axes).astype(np.float64)
    return total / count


def ssim_forward(
    x: ArrayLike,
    y: ArrayLike,
    parameters: SSIMParameters,
    *,
    mask: ArrayLike | None = None,
    kind: str = "ssim",
) -> tuple[Array, Array]:
    """Structural similarity of each channel of each image, and its map.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13(4), 2004, equation 13, with the additions of :class:`sosie.SSIMParameters`.

    Parameters
    ----------
    x, y : array_like of shape (batch, channels, *spatial)
        Images of equal shape, with values in a range of ``parameters.data_range``.
    parameters : SSIMParameters
        The convention, for this image size.
    mask : array_like of bool, broadcastable to the images' shape, optional
        True where a pixel is valid. Local means become ``E[f] = F[mask f] / F[mask]`` (normalised
        convolution), the map is 0 where no pixel under the window is valid, and only positions
        whose centre pixel is valid count in its mean.
    kind : {"ssim", "cs"}
        The similarity, or its contrast-structure factor.

    Returns
    -------
    values : ndarray of shape (batch, channels)
        Mean of the map; NaN where no position counts.
    map : ndarray of shape (batch, channels, *parameters.map_shape(spatial))

    Raises
    ------
    ValueError
        Shapes differ or do not have the number of axes of ``parameters``, or ``kind`` is unknown.

    Examples
    --------
    >>> from sosie.spec import ssim_spec
    >>> parameters = ssim_spec("wang2004").resolve((16, 16), data_range=1.0)
    >>> x = np.full((1, 1, 16, 16), 0.5)
    >>> values, _ = ssim_forward(x, x / 2, parameters)
    >>> round(float(values[0, 0]), 6)  # (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    0.800064
    """
    x, y, valid = _images(x, y, len(parameters.taps), mask)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        moments = _moments(x, y, valid, parameters)
        values = _similarity(moments, parameters, kind)
        if parameters.clamp_value is not None:
            values = np.clip(values, *parameters.clamp_value)
        values = np.where(moments.defined, values, 0.0)
        return _mean(values, _centres(valid, x.shape, parameters)), values


def ssim_backward(
    x: ArrayLike,
    y: ArrayLike,
    parameters: SSIMParameters,
    upstream: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    kind: str = "ssim",
) -> tuple[Array, Array]:
    """Gradient of a function of :func:`ssim_forward`'s results with respect to both images.

    With ``G = dL/dS``, the chain rule through ``E[x]``, ``E[x^2]`` and ``E[xy]`` is
    ``dL/dx = F^T[dL/dE[x]] + 2 x F^T[dL/dE[x^2]] + y F^T[dL/dE[xy]]``.

    Parameters
    ----------
    x, y, parameters, mask, kind
        As in :func:`ssim_forward`.
    upstream : array_like
        ``dL/dvalues`` of shape (batch, channels), or ``dL/dmap`` of the map's shape.

    Returns
    -------
    grad_x, grad_y : ndarray of the images' shape
        Exactly 0 where the mask is False, and where no position counts.

    Raises
    ------
    ValueError
        As :func:`ssim_forward`, or ``upstream`` has neither of the two shapes.
    """
    x, y, valid = _images(x, y, len(parameters.taps), mask)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        m = _moments(x, y, valid, parameters)
        g = _map_gradient(upstream, m, _centres(valid, x.shape, parameters))
        g_a1, g_a2, g_b1, g_b2 = _factor_gradients(m, parameters, kind, g)
        scale = parameters.covariance_scale
        g_xx = scale * g_b2 * m.passes_x  # dL/dE[x^2]
        g_yy = scale * g_b2 * m.passes_y
        g_xy = scale * 2.0 * g_a2  # dL/dE[xy]
        g_x = 2.0 * (g_a1 * m.mu_y + g_b1 * m.mu_x - g_xx * m.mu_x) - g_xy * m.mu_y  # dL/dE[x]
        g_y = 2.0 * (g_a1 * m.mu_x + g_b1 * m.mu_y - g_yy * m.mu_y) - g_xy * m.mu_x

        adjoint = [matrix.T for matrix in _matrices(x.shape[2:], parameters)]
        f_xy = _apply(adjoint, g_xy / m.weight)
        grad_x = _apply(adjoint, g_x / m.weight) + 2.0 * x * _apply(adjoint, g_xx / m.weight)
        grad_y = _apply(adjoint, g_y / m.weight) + 2.0 * y * _apply(adjoint, g_yy / m.weight)
        grad_x, grad_y = grad_x + y * f_xy, grad_y + x * f_xy
    if valid is None:
        return grad_x, grad_y
    return np.where(valid, grad_x, 0.0), np.where(valid, grad_y, 0.0)


def _map_gradient(upstream: ArrayLike, m: _Moments, counted: Mask) -> Array:
    """dL/dmap: what was given, or the gradient of the mean spread over the positions counted."""
    g = np.asarray(upstream, dtype=np.float64)
    if g.shape == counted.shape:
        return np.where(m.defined, g, 0.0)
    if g.shape != counted.shape[:2]:
        raise ValueError(
            f"expected upstream of shape {counted.shape[:2]} or {counted.shape}, got {g.shape}"
        )
    axes = tuple(range(2, counted.ndim))
    each = g.reshape(g.shape + (1,) * len(axes)) / counted.sum(axis=axes, keepdims=True)
    return np.where(counted & m.defined, each, 0.0)


def _factor_gradients(
    m: _Moments, p: SSIMParameters, kind: str, g: Array
) -> tuple[Array, Array, Array, Array]:
    """dL/dA1, dL/dA2, dL/dB1, dL/dB2 from dL/dmap."""
    similarity = _similarity(m, p, kind)
    if p.clamp_value is not None:
        low, high = p.clamp_value
        g = np.where((similarity < low) | (similarity > high), 0.0, g)
    if kind == "cs":
        zero = np.zeros_like(g)
        return zero, g / m.b2, zero, -g * similarity / m.b2
    denominator = m.b1 * m.b2 + p.epsilon
    g_den = -g * similarity / denominator
    return g * m.a2 / denominator, g * m.a1 / denominator, g_den * m.b2, g_den * m.b1


def ssim_loss(
    x: ArrayLike,
    y: ArrayLike,
    parameters: SSIMParameters,
    *,
    ssim_weight: float,
    l1_weight: float,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Similarity, mean absolute difference, and the gradient of a weighted sum of the two.

    ``L = mean over images and channels of ssim_weight * (1 - S) + l1_weight * mean |x - y|``

    Parameters
    ----------
    x, y, parameters, mask
        As in :func:`ssim_forward`.
    ssim_weight, l1_weight : float
        Weights of the two terms.

    Returns
    -------
    ssim_values, l1_values : ndarray of shape (batch, channels)
        The two terms' means, unweighted; the absolute difference's over valid pixels.
    grad_x, grad_y : ndarray of the images' shape
        Gradient of ``L``; that of ``|d|`` at 0 is 0.
    """
    ssim_values, _ = ssim_forward(x, y, parameters, mask=mask)
    upstream = np.full(ssim_values.shape, -ssim_weight / ssim_values.size)
    grad_x, grad_y = ssim_backward(x, y, parameters, upstream, mask=mask)

    x, y, valid = _images(x, y, len(parameters.taps), mask)
    counted = np.ones(x.shape, dtype=bool) if valid is None else valid
    with np.errstate(invalid="ignore", divide="ignore"):
        l1_values = _mean(np.abs(x - y), counted)
        count = counted.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        l1_gradient = l1_weight / ssim_values.size * np.sign(x - y) / count
    l1_gradient = np.where(counted, l1_gradient, 0.0)
    return ssim_values, l1_values, grad_x + l1_gradient, grad_y - l1_gradient


def downsample_forward(
    x: ArrayLike, factor: int, padding: Sequence[tuple[int, int]], border: str
) -> Array:
    """Mean over boxes of ``factor`` pixels along each spatial axis, after padding.

    Parameters
    ----------
    x : array_like of shape (batch, channels, *spatial)
    factor, padding, border
        As in :class:`sosie.spec.Pooling`.

    Returns
    -------
    ndarray of shape (batch, channels, *boxes)

    Examples
    --------
    >>> downsample_forward(np.ones((1, 1, 3, 3)), 2, ((0, 1), (0, 1)), "zero")[0, 0]
    array([[1.  , 0.5 ],
           [0.5 , 0.25]])
    """
    x = np.asarray(x, dtype=np.float64)
    return _apply(_pooling_matrices(x.shape[2:], factor, padding, border), x)


def downsample_backward(
    grad: ArrayLike,
    input_shape: Sequence[int],
    factor: int,
    padding: Sequence[tuple[int, int]],
    border: str,
) -> Array:
    """Adjoint of :func:`downsample_forward`: gradient with respect to its input.

    Parameters
    ----------
    grad : array_like of shape (batch, channels, *boxes)
        Gradient with respect to its result.
    input_shape : sequence of int
        Shape of its input, ``(batch, channels, *spatial)``.
    factor, padding, border
        As given to it.

    Returns
    -------
    ndarray of shape ``input_shape``
    """
    matrices = _pooling_matrices(tuple(input_shape)[2:], factor, padding, border)
    return _apply([matrix.T for matrix in matrices], np.asarray(grad, dtype=np.float64))


def _pooling_matrices(
    spatial_shape: Sequence[int], factor: int, padding: Sequence[tuple[int, int]], border: str
) -> list[Array]:
    return [
        pooling_matrix(size, factor, (before, after), border)
        for size, (before, after) in zip(spatial_shape, padding, strict=True)
    ]


# --- Conventions ----------------------------------------------------------------------------------


def ssim(x: ArrayLike, y: ArrayLike, spec: SSIMSpec, data_range: float | None = None) -> Array:
    """Structural similarity of each image under a convention.

    Parameters
    ----------
    x, y : array_like of shape (batch, channels, *spatial)
    spec : SSIMSpec
        The convention, with its reduction of large images and its rule for negative means.
    data_range : float, optional
        Range of pixel values; None takes the convention's own.

    Returns
    -------
    ndarray of shape (batch,)
        Mean over the channels.

    Examples
    --------
    >>> from sosie.spec import ssim_spec
    >>> x = np.random.default_rng(0).random((1, 3, 32, 40))
    >>> ssim(x, 1 - x, ssim_spec("wang2004"), data_range=1.0).round(6)
    array([-0.972292])
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    parameters = spec.resolve(x.shape[2:], data_range)
    pooling = spec.downsampling(x.shape[2:])
    if pooling is not None:
        x, y = downsample_forward(x, *pooling), downsample_forward(y, *pooling)
    values, _ = ssim_forward(x, y, parameters)
    if spec.nonnegative == "channel":
        values = np.maximum(values, 0.0)
    mean: Array = values.mean(axis=1)
    return mean


def ssim_gradient(
    x: ArrayLike,
    y: ArrayLike,
    spec: SSIMSpec,
    upstream: ArrayLike,
    data_range: float | None = None,
) -> tuple[Array, Array]:
    """Gradient of ``sum(upstream * ssim(x, y, spec))`` with respect to both images.

    Parameters
    ----------
    x, y, spec, data_range
        As in :func:`ssim`.
    upstream : array_like of shape (batch,)

    Returns
    -------
    grad_x, grad_y : ndarray of the images' shape
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    parameters = spec.resolve(x.shape[2:], data_range)
    pooling = spec.downsampling(x.shape[2:])
    small_x, small_y = x, y
    if pooling is not None:
        small_x, small_y = downsample_forward(x, *pooling), downsample_forward(y, *pooling)
    values, _ = ssim_forward(small_x, small_y, parameters)
    each = np.asarray(upstream, dtype=np.float64)[:, None] / x.shape[1]
    each = np.broadcast_to(each, values.shape)
    if spec.nonnegative == "channel":
        each = np.where(values > 0.0, each, 0.0)
    gradients = ssim_backward(small_x, small_y, parameters, each)
    if pooling is None:
        return gradients
    grad_x, grad_y = gradients
    return downsample_backward(grad_x, x.shape, *pooling), downsample_backward(
        grad_y, y.shape, *pooling
    )


def ms_ssim(x: ArrayLike, y: ArrayLike, spec: SSIMSpec, data_range: float | None = None) -> Array:
    """Multi-scale structural similarity of each image under a convention.

    Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment",
    Asilomar 2003, equation 7.

    Parameters
    ----------
    x, y : array_like of shape (batch, channels, *spatial)
    spec : SSIMSpec
        A convention with ``scale_weights``.
    data_range : float, optional
        Range of pixel values; None takes the convention's own.

    Returns
    -------
    ndarray of shape (batch,)

    Examples
    --------
    >>> from sosie.spec import ssim_spec
    >>> x = np.random.default_rng(0).random((1, 1, 176, 180))
    >>> ms_ssim(x, x, ssim_spec("wang2003"), data_range=1.0)
    array([1.])
    """
    values = [level.values for level in _levels(x, y, spec, data_range)]
    with np.errstate(invalid="ignore"):  # NaN from a negative mean that is not rectified
        return np.asarray(combine_scales(values, spec))


def ms_ssim_gradient(
    x: ArrayLike,
    y: ArrayLike,
    spec: SSIMSpec,
    upstream: ArrayLike,
    data_range: float | None = None,
) -> tuple[Array, Array]:
    """Gradient of ``sum(upstream * ms_ssim(x, y, spec))`` with respect to both images.

    Parameters
    ----------
    x, y, spec, data_range
        As in :func:`ms_ssim`.
    upstream : array_like of shape (batch,)

    Returns
    -------
    grad_x, grad_y : ndarray of the images' shape
    """
    levels = _levels(x, y, spec, data_range)
    upstreams = _combination_gradient([level.values for level in levels], spec, upstream)
    grad_x = grad_y = np.zeros(())
    for level, each in zip(reversed(levels), reversed(upstreams), strict=True):
        own_x, own_y = ssim_backward(level.x, level.y, level.parameters, each, kind=level.kind)
        if level.pooling is not None:  # grad_x, grad_y are those of the next, coarser level
            own_x = own_x + downsample_backward(grad_x, level.x.shape, *level.pooling)
            own_y = own_y + downsample_backward(grad_y, level.y.shape, *level.pooling)
        grad_x, grad_y = own_x, own_y
    return grad_x, grad_y


class _Level(NamedTuple):
    """Images of one scale and their means."""

    x: Array
    y: Array
    parameters: SSIMParameters
    pooling: Any  # Pooling or None, of the images to the next level
    kind: str
    values: Array


def _levels(x: ArrayLike, y: ArrayLike, spec: SSIMSpec, data_range: float | None) -> list[_Level]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    levels = []
    for parameters, pooling in plan_scales(spec, x.shape[2:], data_range):
        kind = "ssim" if pooling is None else "cs"
        values, _ = ssim_forward(x, y, parameters, kind=kind)
        levels.append(_Level(x, y, parameters, pooling, kind, values))
        if pooling is not None:
            x, y = downsample_forward(x, *pooling), downsample_forward(y, *pooling)
    return levels


def _combination_gradient(
    values: Sequence[Array], spec: SSIMSpec, upstream: ArrayLike
) -> list[Array]:
    """Gradient of ``sum(upstream * combine_scales(values, spec))``, each of shape (N, C)."""
    weights = spec.scale_weights or ()
    channels = values[0].shape[1]
    if spec.channel_order == "before":
        means = [np.repeat(value.mean(axis=1, keepdims=True), channels, axis=1) for value in values]
    else:
        means = list(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        factors, slopes = zip(
            *(
                _power_and_slope(mean, weight, spec.rectify)
                for mean, weight in zip(means, weights, strict=True)
            ),
            strict=True,
        )
    each = np.asarray(upstream, dtype=np.float64)[:, None] / channels
    gradients = []
    for j, slope in enumerate(slopes):
        others = np.prod([factor for i, factor in enumerate(factors) if i != j], axis=0)
        gradients.append(each * slope * others)
    return gradients


def _power_and_slope(value: Array, weight: float, rectify: str) -> tuple[Array, Array]:
    """``rectify(v)^w`` and its derivative; a rectified value has slope 0."""
    if rectify == "simple":
        base = (value + 1.0) / 2.0
        return base**weight, weight * base ** (weight - 1.0) / 2.0
    if rectify == "none":
        return value**weight, weight * value ** (weight - 1.0)
    clipped = ~(value > 0.0) & ~np.isnan(value)
    base = np.where(clipped, 1.0, value)
    power = np.where(clipped, 0.0**weight, base**weight)
    return power, np.where(clipped, 0.0, weight * base ** (weight - 1.0))
