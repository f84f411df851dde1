# SPDX-License-Identifier: Apache-2.0
"""Weighted sum of squared differences, its mean, and the measures made of it, in float64 NumPy.

With ``d = x - y`` and weights ``w`` that broadcast to the images, for each image

    S = sum of w d^2        W = sum of w        mean = S / W, or 0 where W is 0

    dS/dx = 2 w d    dS/dy = -2 w d    dS/dw = d^2    dW/dw = 1

summed over the pixels that share a weight. A weight of 0 takes its pixel out: where the difference
there is not finite it counts as 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "luma",
    "psnr",
    "ssd_backward",
    "ssd_forward",
    "weighted_mean",
    "weighted_ssd",
]

Array = NDArray[np.float64]

#: Red, green and blue in the luma of ITU-R BT.601 with 8-bit studio levels, 16 to 235.
LUMA = (65.481, 128.553, 24.966)


def _difference(x: ArrayLike, y: ArrayLike, weight: ArrayLike | None) -> tuple[Array, Array]:
    """``d`` and ``w``, both of the images' shape."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = np.asarray(x, np.float64) - np.asarray(y, np.float64)
    weights = np.asarray(1.0 if weight is None else weight, np.float64)
    weights = np.broadcast_to(weights, difference.shape)
    left_out = (weights == 0.0) & ~np.isfinite(difference)
    return np.where(left_out, 0.0, difference), weights


def ssd_forward(
    x: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None, *, per_image: bool = False
) -> Array:
    """S and W of each image.

    Parameters
    ----------
    x, y : array
        Images of equal shape.
    weight : array, optional
        Weights that broadcast to them; none: all are 1.
    per_image : bool
        The first axis counts images; else all is one image.

    Returns
    -------
    ndarray of shape (N, 2)

    Examples
    --------
    >>> ssd_forward([1.0, 5.0], [0.0, 2.0], [1.0, 0.5])
    array([[5.5, 1.5]])
    """
    difference, weights = _difference(x, y, weight)
    images = difference.shape[0] if per_image else 1
    terms = [weights * difference * difference, weights]
    return np.stack([term.reshape(images, -1).sum(1) for term in terms], axis=1)


def ssd_backward(
    x: ArrayLike,
    y: ArrayLike,
    weight: ArrayLike | None,
    upstream: ArrayLike,
    *,
    per_image: bool = False,
) -> tuple[Array, Array, Array | None]:
    """Gradients for x, y and the weights, from ``upstream`` ``(N, 2)``, those of S and W.

    The gradient of the weights has their shape; without weights it is None.

    Examples
    --------
    >>> grad_x, grad_y, grad_weight = ssd_backward([1.0, 5.0], [0.0, 2.0], 0.5, [[1.0, 10.0]])
    >>> grad_x, grad_y, float(grad_weight)
    (array([1., 3.]), array([-1., -3.]), 30.0)
    """
    difference, weights = _difference(x, y, weight)
    of_sum, of_weight = np.moveaxis(np.asarray(upstream, np.float64), 1, 0)
    axes = (-1,) + (1,) * (difference.ndim - 1)
    if not per_image:
        axes = (1,) * difference.ndim
    of_sum, of_weight = of_sum.reshape(axes), of_weight.reshape(axes)
    grad_x = 2.0 * of_sum * weights * difference
    if weight is None:
        return grad_x, -grad_x, None
    shared = of_sum * difference * difference + of_weight
    return grad_x, -grad_x, _sum_to(shared, np.shape(weight))


def _sum_to(values: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of broadcasting from ``shape``."""
    added = values.ndim - len(shape)
    repeated = [
        added + axis for axis, size in enumerate(shape) if size == 1 != values.shape[added + axis]
    ]
    summed: Array = values.sum(axis=(*range(added), *repeated), keepdims=True)
    return summed.reshape(shape)


def weighted_mean(sums: Array) -> Array:
    """S / W of sums ``(..., 2)``, and 0 where W is 0.

    Examples
    --------
    >>> weighted_mean(np.array([[6.0, 2.0], [0.0, 0.0]]))
    array([3., 0.])
    """
    total, weight = sums[..., 0], sums[..., 1]
    return np.where(weight == 0.0, 0.0, total / np.where(weight == 0.0, 1.0, weight))


def weighted_ssd(
    x: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None, *, reduction: str = "sum"
) -> Any:
    """The sum over all pixels, their weighted mean, or (``"none"``) the sum of each image.

    For ``"none"`` the first axis counts the images.

    Examples
    --------
    >>> float(weighted_ssd([1.0, 5.0], [0.0, 2.0], [1.0, 0.5], reduction="sum"))
    5.5
    """
    if reduction == "none":
        return ssd_forward(x, y, weight, per_image=True)[:, 0]
    sums = ssd_forward(x, y, weight)[0]
    return sums[0] if reduction == "sum" else weighted_mean(sums)


def luma(image: ArrayLike, data_range: float, axis: int) -> Array:
    """Y of RGB images, ITU-R BT.601 in studio levels, in units of the image, unrounded.

    Black is 16/255 of the data range and white 235/255.

    Examples
    --------
    >>> luma(np.array([[0.0, 0.0, 0.0], [255.0, 255.0, 255.0]]), 255.0, -1)
    array([ 16., 235.])
    """
    channels = np.moveaxis(np.asarray(image, np.float64), axis, -1)
    result: Array = (channels @ np.array(LUMA) + 16.0 * data_range) / 255.0
    return result


def psnr(x: ArrayLike, y: ArrayLike, data_range: float) -> Array:
    """``10 log10(data_range^2 / mean squared error)`` of each image ``(N, ...)``, in decibels.

    Equal images have an infinite one.

    Examples
    --------
    >>> psnr([[0.0, 0.0], [1.0, 1.0]], [[0.1, 0.1], [1.0, 1.0]], 1.0)
    array([20., inf])
    """
    with np.errstate(divide="ignore"):
        result: Array = 10.0 * np.log10(
            data_range**2 / weighted_mean(ssd_forward(x, y, per_image=True))
        )
    return result
