# SPDX-License-Identifier: Apache-2.0
"""Structural similarity of images, single-scale and multi-scale, in any known convention."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sosie.arrays import Array, is_torch
from sosie.backends import executor
from sosie.images import Layout, check_pair, default_data_range, per_plane
from sosie.scales import combine_scales, plan_scales
from sosie.spec import SSIMSpec, ssim_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sosie.spec import Pooling, SSIMParameters

__all__ = ["ms_ssim", "ssim"]


def ssim(
    x: Array,
    y: Array,
    *,
    data_range: float | None = None,
    spec: str | SSIMSpec = "wang2004",
    mask: Array | None = None,
    reduction: str = "mean",
    return_map: bool = False,
    channel_axis: int | None = None,
    spatial_dims: int = 2,
    **spec_overrides: Any,
) -> Any:
    """Structural similarity of two images, or of two batches image by image.

    Parameters
    ----------
    x, y : array of shape (*spatial), (C, *spatial) or (N, C, *spatial)
        NumPy arrays or torch tensors of equal shape and dtype: uint8, uint16, float16, bfloat16,
        float32 (computed in float32) or float64 (computed in float64). Any strides. Torch tensors
        are differentiable, twice.
    data_range : float, optional
        Difference between the largest and the smallest value a pixel can have. Needed for
        floating-point images unless the convention fixes it; 255 and 65535 for uint8 and uint16.
    spec : str or SSIMSpec
        The convention: a name out of :func:`list_specs`, or a spec of your own.
    mask : bool array of shape (*spatial), or broadcastable to x, optional
        True where a pixel is valid. Windows then count valid pixels only (normalised convolution,
        Knutsson and Westin 1993) and the mean is over windows centred at a valid pixel. Invalid
        pixels may hold anything, NaN included; their gradient is 0.
    reduction : {"mean", "none", "sum", "channel"}
        One number; one per image ``(N,)``; the sum of those; one per image and channel ``(N, C)``.
    return_map : bool
        Return the similarity map too.
    channel_axis : int, optional
        Axis of the channels, for example -1 for ``(H, W, C)`` and ``(N, H, W, C)``.
    spatial_dims : {2, 3}
        Spatial axes: images or volumes.
    **spec_overrides
        Fields of :class:`SSIMSpec` to change, for example ``sigma=2.0``.

    Returns
    -------
    value : scalar or array
        float64 for NumPy; float32 (float64 for float64 tensors) for torch. 1 for equal images.
    map : array
        Only with ``return_map``; in the layout of x, float32 or float64. Its size depends on the
        border rule; it is 0 where a window holds no valid pixel.

    Raises
    ------
    TypeError
        Dtypes or libraries differ or are not supported.
    ValueError
        Shapes differ or do not fit the window, the data range is missing, a name is unknown.

    Notes
    -----
    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004, equation 13. The float64 definition of every convention is
    :mod:`sosie.reference`.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
    >>> round(float(sosie.ssim(x, x[::-1], data_range=1.0)), 4)
    -0.0648
    >>> value, map = sosie.ssim(x, x, data_range=1.0, spec="scikit-image", return_map=True)
    >>> float(value), map.shape
    (1.0, (58, 58))
    """
    if is_torch(x):
        _torch_operators()
    return _ssim(
        x, y, data_range, spec, mask, reduction, return_map, channel_axis, spatial_dims,
        spec_overrides,
    )  # fmt: skip


def ms_ssim(
    x: Array,
    y: Array,
    *,
    data_range: float | None = None,
    spec: str | SSIMSpec = "wang2003",
    weights: Sequence[float] | None = None,
    reduction: str = "mean",
    channel_axis: int | None = None,
    spatial_dims: int = 2,
    **spec_overrides: Any,
) -> Any:
    """Multi-scale structural similarity of two images, or of two batches image by image.

    Parameters
    ----------
    x, y : array of shape (*spatial), (C, *spatial) or (N, C, *spatial)
        As for :func:`ssim`. Every side must still hold the window at the coarsest scale: 176 pixels
        for five scales of an 11-pixel window.
    data_range : float, optional
        As for :func:`ssim`.
    spec : str or SSIMSpec
        A convention with a multi-scale index.
    weights : sequence of float, optional
        Exponents of the scales, finest first; their number is the number of scales.
    reduction : {"mean", "none", "sum"}
        One number; one per image ``(N,)``; the sum of those.
    channel_axis, spatial_dims, **spec_overrides
        As for :func:`ssim`.

    Returns
    -------
    scalar or array of shape (N,)
        float64 for NumPy; float32 (float64 for float64 tensors) for torch, differentiable.

    Raises
    ------
    TypeError, ValueError
        As for :func:`ssim`; also an image too small for the number of scales.

    Notes
    -----
    Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment",
    Asilomar 2003, equation 7.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x = np.arange(200 * 200, dtype=np.uint8).reshape(200, 200)
    >>> float(sosie.ms_ssim(x, x))
    1.0
    """
    if is_torch(x):
        _torch_operators()
    return _ms_ssim(
        x, y, data_range, spec, weights, reduction, channel_axis, spatial_dims, spec_overrides
    )


@cache
def _torch_operators() -> Any:
    """The torch side, imported when the first tensor comes.

    The import also tells compilers to take the two functions below as they are.
    """
    from sosie.torch import ssim as operators

    return operators


def _ssim(
    x: Array,
    y: Array,
    data_range: float | None,
    spec: str | SSIMSpec,
    mask: Array | None,
    reduction: str,
    return_map: bool,
    channel_axis: int | None,
    spatial_dims: int,
    spec_overrides: dict[str, Any],
) -> Any:
    check_pair(x, y)
    layout = Layout(tuple(x.shape), spatial_dims, channel_axis)
    reduce = per_plane(reduction)
    convention = _convention(spec, spec_overrides)
    planes_x, planes_y = layout.planes(x), layout.planes(y)
    spatial = tuple(planes_x.shape[2:])
    parameters = _resolved(convention, x, spatial, data_range)
    planes_mask = None if mask is None else layout.mask(mask, x)
    pooling = None
    if convention.downsample is not None:
        pooling = convention.downsampling(tuple(map(int, spatial)))
    if pooling is not None:
        if mask is not None:
            raise ValueError(
                f"expected no mask with a convention that downsamples (here by {pooling.factor})"
            )
        planes_x, planes_y = _pool(planes_x, pooling), _pool(planes_y, pooling)
    values, similarity_map = _evaluate(
        planes_x, planes_y, parameters, planes_mask, "ssim", return_map
    )
    if convention.nonnegative == "channel":
        values = values.clip(0.0)
    value = reduce(values)
    return (value, layout.restore(similarity_map)) if return_map else value


def _ms_ssim(
    x: Array,
    y: Array,
    data_range: float | None,
    spec: str | SSIMSpec,
    weights: Sequence[float] | None,
    reduction: str,
    channel_axis: int | None,
    spatial_dims: int,
    spec_overrides: dict[str, Any],
) -> Any:
    check_pair(x, y)
    layout = Layout(tuple(x.shape), spatial_dims, channel_axis)
    if reduction == "channel":
        raise ValueError("expected a reduction out of 'mean', 'sum', 'none', got 'channel'")
    reduce = per_plane(reduction)
    if weights is not None:
        spec_overrides = spec_overrides | {"scale_weights": tuple(weights)}
    convention = _convention(spec, spec_overrides)
    planes_x, planes_y = layout.planes(x), layout.planes(y)
    scales = plan_scales(convention, tuple(map(int, planes_x.shape[2:])), _range(x, data_range))
    values = []
    for scale in scales:
        kind = "ssim" if scale.pooling is None else "cs"
        values.append(_evaluate(planes_x, planes_y, scale.parameters, None, kind, False)[0])
        if scale.pooling is not None:
            planes_x, planes_y = _pool(planes_x, scale.pooling), _pool(planes_y, scale.pooling)
    return reduce(combine_scales(values, convention)[:, None])


def _convention(spec: str | SSIMSpec, overrides: dict[str, Any]) -> SSIMSpec:
    convention = spec if isinstance(spec, SSIMSpec) else ssim_spec(spec)
    return convention.replace(**overrides) if overrides else convention


def _range(x: Array, data_range: float | None) -> float | None:
    """The caller's range, else the dtype's; None leaves it to the convention."""
    return default_data_range(x) if data_range is None else data_range


def _resolved(
    convention: SSIMSpec, x: Array, spatial: tuple[int, ...], data_range: float | None
) -> SSIMParameters:
    if is_torch(x):
        parameters: SSIMParameters = _torch_operators().resolved(
            convention, spatial, _range(x, data_range)
        )
        return parameters
    return convention.resolve(spatial, _range(x, data_range))


def _evaluate(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    mask: Array | None,
    kind: str,
    return_map: bool,
) -> tuple[Any, Any]:
    """Values ``(N, C)`` and, if wanted, the map."""
    if not is_torch(x):
        result: tuple[Any, Any] = executor(x).ssim_forward(
            x, y, parameters, mask=mask, kind=kind, return_map=return_map
        )
        return result
    operators = _torch_operators()
    values = operators.values(x, y, parameters, mask, kind)
    if not return_map:
        return values, None
    return values, operators.similarity_map(x, y, parameters, mask, kind)


def _pool(x: Array, pooling: Pooling) -> Array:
    if is_torch(x):
        return _torch_operators().downsample(x, *pooling)
    return executor(x).downsample_forward(x, *pooling)
