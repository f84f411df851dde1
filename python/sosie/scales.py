# SPDX-License-Identifier: Apache-2.0
"""Multi-scale structural similarity: sizes, poolings and the combination of scales, as data.

The index of M scales is ``prod_{j<M} CS_j^{w_j} * S_M^{w_M}``, with ``CS_j`` the mean of the
contrast-structure map and ``S_M`` the mean of the similarity map of images halved ``j - 1`` times
(Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar
2003, equation 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sosie.spec import Pooling, SSIMParameters, SSIMSpec

__all__ = ["Scale", "combine_scales", "plan_scales"]


class Scale(NamedTuple):
    """One scale of the multi-scale index.

    Attributes
    ----------
    parameters : SSIMParameters
        The computation on the images of this scale.
    pooling : Pooling or None
        How they are then halved for the next scale; None at the last. The last scale contributes
        the mean similarity (kind "ssim"), the others the mean contrast-structure (kind "cs").
    """

    parameters: SSIMParameters
    pooling: Pooling | None


def plan_scales(
    spec: SSIMSpec, spatial_shape: Sequence[int], data_range: float | None = None
) -> tuple[Scale, ...]:
    """Computations of the multi-scale index for one image size, finest scale first.

    Parameters
    ----------
    spec : SSIMSpec
        Convention with ``scale_weights``. Its ``downsample`` does not apply.
    spatial_shape : sequence of int
        Sizes of the image's two or three spatial axes.
    data_range : float, optional
        Range of pixel values; None takes the convention's own.

    Returns
    -------
    tuple of Scale
        As many as ``spec.scale_weights``. Repeated calls return the same object.

    Raises
    ------
    ValueError
        The convention has no multi-scale index, or the image is smaller than the window at some
        scale, or what :meth:`SSIMSpec.resolve` raises.

    Examples
    --------
    >>> from sosie.spec import ssim_spec
    >>> scales = plan_scales(ssim_spec("wang2003"), (181, 200), 255)
    >>> [scale.pooling.padding for scale in scales if scale.pooling]
    [((0, 1), (0, 0)), ((0, 1), (0, 0)), ((0, 0), (0, 0)), ((0, 1), (0, 1))]
    """
    return _plan(spec, tuple(spatial_shape), data_range)


@lru_cache(maxsize=256)
def _plan(
    spec: SSIMSpec, spatial_shape: tuple[int, ...], data_range: float | None
) -> tuple[Scale, ...]:
    weights = _scale_weights(spec)
    coarsest = spec.replace(downsample=None)
    crop = spec.crop if spec.contrast_crop is None else spec.contrast_crop
    finer = coarsest.replace(crop=crop)
    shape = spatial_shape
    scales: list[Scale] = []
    for level in range(len(weights)):
        last = level == len(weights) - 1
        if level > 0:
            _check_level(shape, spatial_shape, scales[0].parameters, len(weights))
        parameters = (coarsest if last else finer).resolve(shape, data_range)
        if level == 0:
            _check_level(shape, spatial_shape, parameters, len(weights))
        pooling = None if last else _pooling(spec.pooling, shape)
        scales.append(Scale(parameters, pooling))
        shape = shape if pooling is None else pooling.shape(shape)
    return tuple(scales)


def combine_scales(values_per_scale: Sequence[Any], spec: SSIMSpec) -> Any:
    """Multi-scale index per image from each scale's mean per image and channel.

    It uses arithmetic operators only, so NumPy arrays and torch tensors (with their gradients) are
    combined alike. A rectified scale passes no gradient, and never an infinite one.

    Parameters
    ----------
    values_per_scale : sequence of array, each of shape (batch, channels)
        Contrast-structure means, finest first, and the similarity mean of the last scale.
    spec : SSIMSpec
        Convention with as many ``scale_weights``.

    Returns
    -------
    array of shape (batch,)
        In the dtype of the values. NaN stays in its own image.

    Raises
    ------
    ValueError
        The number of scales is not that of the convention's weights.
    """
    weights = _scale_weights(spec)
    if len(values_per_scale) != len(weights):
        raise ValueError(
            f"expected values of {len(weights)} scales, one per weight, got {len(values_per_scale)}"
        )
    product: Any = 1.0
    for value, weight in zip(values_per_scale, weights, strict=True):
        mean = value.mean(1) if spec.channel_order == "before" else value
        product = product * _powered(mean, weight, spec.rectify)
    return product if spec.channel_order == "before" else product.mean(1)


def _powered(value: Any, weight: float, rectify: str) -> Any:
    """``rectify(value) ** weight``."""
    if weight == 0.0:
        return value * 0.0 + 1.0
    if rectify == "simple":
        return ((value + 1.0) / 2.0) ** weight
    if rectify == "none":
        return value**weight
    # Raising 1 in place of what is not positive, and multiplying by 0 then, keeps the infinite
    # slope of v^weight at 0 out of the gradient; NaN > 0 is false, but NaN * 0 is NaN still.
    positive = value > 0.0
    return (value * positive + ~positive) ** weight * positive


def _scale_weights(spec: SSIMSpec) -> tuple[float, ...]:
    if spec.scale_weights is None:
        raise ValueError(
            "expected a convention with scale_weights, such as 'wang2003', or weights given by the "
            "call, got a convention without a multi-scale index"
        )
    return spec.scale_weights


def _check_level(
    shape: tuple[int, ...], full_shape: tuple[int, ...], parameters: SSIMParameters, levels: int
) -> None:
    """Raise where a window exceeds the image, whatever the border: every known library refuses."""
    sizes = tuple(len(window) for window in parameters.taps)
    if any(size < window for size, window in zip(shape, sizes, strict=True)):
        raise ValueError(
            f"expected images that are still {' x '.join(map(str, sizes))} pixels, the window's "
            f"size, when halved {levels - 1} times for {levels} scales, got spatial sizes "
            f"{full_shape}, which come to {shape}"
        )


def _pooling(rule: str, shape: tuple[int, ...]) -> Pooling:
    """How an image is halved. Axes of even size need no padding, with one exception."""
    odd = tuple(size % 2 for size in shape)
    if rule == "floor":
        return Pooling(2, ((0, 0),) * len(shape), "zero")
    if rule == "zero":  # avg_pool(padding=size % 2): the zero behind is in an incomplete box
        return Pooling(2, tuple((one, 0) for one in odd), "zero")
    if rule == "replicate":  # piq pads every axis as soon as one is odd
        return Pooling(2, ((max(odd), 0),) * len(shape), "replicate")
    return Pooling(2, tuple((0, one) for one in odd), "symmetric")
