# SPDX-License-Identifier: Apache-2.0
"""SSIM composed of plain torch operations: the literal definition, differentiable to any order.

Three readers use it: the operators, for second derivatives (their first ones are fused kernels);
the benchmarks and the demo, as "the same loss composed of plain torch ops"; and anyone who wants
the formula in torch. It runs on every device, under ``torch.func`` and under ``torch.compile``, and
holds about a dozen image-sized temporaries where the fused kernels hold none.

Shapes: images are ``(N, C, *spatial)``, maps ``(N, C, *map)``, values ``(N, C)``. Half precision
and integer images are computed in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from sosie.spec import SSIMParameters

__all__ = ["absolute_error", "mean_over_map", "ssim", "ssim_loss", "ssim_map"]


def ssim(
    x: Tensor,
    y: Tensor,
    parameters: SSIMParameters,
    mask: Tensor | None = None,
    kind: str = "ssim",
) -> Tensor:
    """Mean structural similarity of every plane.

    Parameters
    ----------
    x, y : Tensor, shape (N, C, *spatial)
        Images of equal shape, any real dtype. Differentiable in both, to any order.
    parameters : SSIMParameters
        The resolved convention: window, border, crop, constants.
    mask : Tensor of bool, broadcastable to (N, C, *spatial), optional
        True where a pixel is valid; windows then average over valid pixels only.
    kind : {"ssim", "cs"}
        The whole index, or its contrast-structure factor (for MS-SSIM).

    Returns
    -------
    Tensor, shape (N, C)
        float64 for float64 images, else float32. NaN for a plane without a valid pixel.
    """
    return mean_over_map(ssim_map(x, y, parameters, mask, kind), parameters, mask, x.shape[2:])


def ssim_map(
    x: Tensor,
    y: Tensor,
    parameters: SSIMParameters,
    mask: Tensor | None = None,
    kind: str = "ssim",
) -> Tensor:
    """Structural similarity at every position; arguments as for `ssim`, shape ``(N, C, *map)``."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    center = parameters.center
    x, y = x.to(dtype) - center, y.to(dtype) - center
    if mask is None:
        x, y = (_windowed_samples(image, -center, parameters) for image in (x, y))
        weights = None
    else:
        mask = _with_all_axes(mask, x.shape[2:])
        # Chosen, not multiplied: an invalid pixel may hold NaN, and 0 * NaN is NaN.
        x, y = (
            _windowed_samples(torch.where(mask, image, 0.0), 0.0, parameters) for image in (x, y)
        )
        weights = _filtered(_windowed_samples(mask.to(dtype), 0.0, parameters), parameters)
    moments = _moments(x, y, weights, parameters)
    result = _index(*moments, parameters, kind)
    if parameters.clamp_value is not None:
        result = result.clamp(*parameters.clamp_value)
    return result if weights is None else torch.where(weights > 0, result, 0.0)


def mean_over_map(
    ssim_map: Tensor,
    parameters: SSIMParameters,
    mask: Tensor | None,
    spatial_shape: tuple[int, ...],
) -> Tensor:
    """Average a map ``(N, C, *map)`` over the positions whose centre pixel is valid: ``(N, C)``.

    ``spatial_shape`` is the shape of the images the map was made from, which a mask broadcasts to.
    """
    axes = tuple(range(2, ssim_map.ndim))
    if mask is None:
        return ssim_map.mean(dim=axes)
    mask = _with_all_axes(mask, spatial_shape)
    for axis, (before, after) in zip(axes, parameters.crop, strict=True):
        mask = mask.narrow(axis, before, mask.shape[axis] - before - after)
        mask = mask[(slice(None),) * axis + (slice(None, None, parameters.stride),)]
    # No valid position: 0 / 0, the NaN that is wanted.
    return torch.where(mask, ssim_map, 0.0).sum(dim=axes) / mask.sum(dim=axes)


def ssim_loss(
    x: Tensor,
    y: Tensor,
    parameters: SSIMParameters,
    mask: Tensor | None = None,
    ssim_weight: float = 1.0,
    l1_weight: float = 0.0,
) -> Tensor:
    """``ssim_weight * (1 - SSIM) + l1_weight * mean |x - y|``, averaged over images and channels.

    Arguments as for `ssim`; L1 is averaged over the valid pixels of each plane. A scalar tensor.
    """
    loss = ssim_weight * (1.0 - ssim(x, y, parameters, mask))
    if l1_weight != 0.0:
        loss = loss + l1_weight * absolute_error(x, y, mask)
    return loss.mean()


def absolute_error(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference of every plane over its valid pixels, shape ``(N, C)``."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    axes = tuple(range(2, x.ndim))
    if mask is None:
        return (x.to(dtype) - y.to(dtype)).abs().mean(dim=axes)
    mask = _with_all_axes(mask, x.shape[2:])
    x, y = (torch.where(mask, image.to(dtype), 0.0) for image in (x, y))
    return (x - y).abs().sum(dim=axes) / mask.sum(dim=axes)


def _with_all_axes(mask: Tensor, spatial_shape: tuple[int, ...]) -> Tensor:
    """Expand the mask over the spatial axes; axes N and C keep length 1 where they may."""
    shape = torch.broadcast_shapes(mask.shape, (1, 1, *spatial_shape))
    return mask.expand(shape)


def _windowed_samples(planes: Tensor, outside: float, parameters: SSIMParameters) -> Tensor:
    """Extend or cut each spatial axis to the samples that the windows of the cropped map cover."""
    margins = [
        ((len(taps) - 1) // 2 - before, len(taps) // 2 - after)
        for taps, (before, after) in zip(parameters.taps, parameters.crop, strict=True)
    ]
    if parameters.border == "zero" or all(max(margin) <= 0 for margin in margins):
        # F.pad counts axes from the last one, and cuts where a margin is negative.
        flat = [margin for pair in reversed(margins) for margin in pair]
        return F.pad(planes, flat, value=outside)
    for axis, (before, after) in enumerate(margins, start=2):
        size = planes.shape[axis]
        positions = torch.arange(-before, size + after, device=planes.device)
        planes = planes.index_select(axis, _border_index(positions, size, parameters.border))
    return planes


def _border_index(positions: Tensor, size: int, border: str) -> Tensor:
    """Index of the pixel seen at each (possibly outside) position of an axis of length ``size``."""
    if border == "replicate":
        return positions.clamp(0, size - 1)
    if border == "symmetric":  # ... c b a | a b c ... | c b a
        positions = positions.remainder(2 * size)
        return torch.minimum(positions, 2 * size - 1 - positions)
    # "reflect": ... c b | a b c ... | b a; an axis of one pixel repeats it
    period = max(2 * (size - 1), 1)
    positions = positions.remainder(period)
    return torch.minimum(positions, period - positions) if size > 1 else positions


def _filtered(planes: Tensor, parameters: SSIMParameters) -> Tensor:
    """Correlate every plane with the separable window, at every ``stride``-th position."""
    spatial_dims = len(parameters.taps)
    convolution = F.conv2d if spatial_dims == 2 else F.conv3d
    lead = planes.shape[:2]
    planes = planes.flatten(0, 1).unsqueeze(1)  # (N*C, 1, *spatial)
    # Autocast would round images to half precision, and variances are differences of near equals.
    with torch.autocast(planes.device.type, enabled=False):
        for axis, taps in enumerate(parameters.taps):
            shape, stride = [1] * spatial_dims, [1] * spatial_dims
            shape[axis], stride[axis] = len(taps), parameters.stride
            window = torch.tensor(taps, dtype=planes.dtype, device=planes.device)
            planes = convolution(planes, window.view(1, 1, *shape), stride=stride)
    return planes.reshape(*lead, *planes.shape[2:])


def _moments(
    x: Tensor, y: Tensor, weights: Tensor | None, parameters: SSIMParameters
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Local means of both (centred) images, their variances and their covariance."""
    sums = _filtered(torch.cat((x, y, x * x, y * y, x * y)), parameters)
    mean_x, mean_y, square_x, square_y, product = (
        plane if weights is None else plane / torch.where(weights > 0, weights, 1.0)
        for plane in sums.chunk(5)
    )
    scale = parameters.covariance_scale
    variance_x = scale * (square_x - mean_x * mean_x)
    variance_y = scale * (square_y - mean_y * mean_y)
    if parameters.clamp_variance:
        variance_x, variance_y = variance_x.clamp(min=0.0), variance_y.clamp(min=0.0)
    covariance = scale * (product - mean_x * mean_y)
    return mean_x, mean_y, variance_x, variance_y, covariance


def _index(
    mean_x: Tensor,
    mean_y: Tensor,
    variance_x: Tensor,
    variance_y: Tensor,
    covariance: Tensor,
    parameters: SSIMParameters,
    kind: str,
) -> Tensor:
    """Equation 13 of Wang et al. 2004, or its contrast-structure factor, from the local moments."""
    structure = 2.0 * covariance + parameters.c2
    contrast = variance_x + variance_y + parameters.c2
    if kind == "cs":
        return structure / contrast
    mean_x, mean_y = mean_x + parameters.center, mean_y + parameters.center
    luminance = 2.0 * mean_x * mean_y + parameters.c1
    energy = mean_x * mean_x + mean_y * mean_y + parameters.c1
    return luminance * structure / (energy * contrast + parameters.epsilon)
