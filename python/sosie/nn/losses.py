# SPDX-License-Identifier: Apache-2.0
"""Losses for training: one minus a similarity.

Where a gradient is needed, `SSIMLoss` and `L1SSIMLoss` compute it together with the loss, in one
pass over the images that allocates nothing image-sized but the gradient itself; the backward pass
then only scales it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sosie.images import Layout, check_pair
from sosie.nn._autocast import of_one_dtype
from sosie.spec import SSIMSpec, ssim_spec
from sosie.ssim import ms_ssim, ssim
from sosie.torch import composite
from sosie.torch import ssim as operators

__all__ = ["L1SSIMLoss", "MSSSIMLoss", "SSIMLoss"]

_REDUCTIONS = ("mean", "sum", "none")


class _Options(NamedTuple):
    """How a loss is computed."""

    spec: SSIMSpec
    data_range: float | None
    reduction: str
    channel_axis: int | None
    spatial_dims: int
    ssim_weight: float
    l1_weight: float


class _SimilarityLoss(nn.Module):
    """Options that all losses share. There are no parameters and no buffers."""

    def __init__(self, options: _Options, given: dict[str, Any]) -> None:
        super().__init__()
        if options.reduction not in _REDUCTIONS:
            raise ValueError(
                f"expected a reduction out of {', '.join(map(repr, _REDUCTIONS))}, "
                f"got {options.reduction!r}"
            )
        # Text, because compilers take a string for a constant, but numbers for variables.
        self._options = json.dumps({**options._asdict(), "spec": asdict(options.spec)})
        self._representation = ", ".join(f"{name}={value!r}" for name, value in given.items())

    @property
    def spec(self) -> SSIMSpec:
        """The convention, with its overrides."""
        return _decoded(self._options).spec

    @property
    def data_range(self) -> float | None:
        """Difference between the largest and the smallest value a pixel can have."""
        return _decoded(self._options).data_range

    @property
    def reduction(self) -> str:
        """How the losses of the images become one."""
        return _decoded(self._options).reduction

    def extra_repr(self) -> str:
        """The options that were given, as they were given."""
        return self._representation


@lru_cache(maxsize=256)
def _decoded(options: str) -> _Options:
    fields = json.loads(options)
    return _Options(**{**fields, "spec": SSIMSpec(**fields["spec"])})


def _given(
    options: _Options, spec: str | SSIMSpec, spec_overrides: dict[str, Any]
) -> dict[str, Any]:
    """What distinguishes a loss from one with default options, for its representation."""
    given = {"data_range": options.data_range, "spec": spec, **spec_overrides}
    defaults = {"reduction": "mean", "channel_axis": None, "spatial_dims": 2}
    for name, default in defaults.items():
        if getattr(options, name) != default:
            given[name] = getattr(options, name)
    return given


def _convention(spec: str | SSIMSpec, overrides: dict[str, Any]) -> SSIMSpec:
    return (spec if isinstance(spec, SSIMSpec) else ssim_spec(spec)).replace(**overrides)


class SSIMLoss(_SimilarityLoss):
    """One minus the structural similarity of two batches of images.

    Parameters
    ----------
    data_range : float or None
        Difference between the largest and the smallest value a pixel can have: 1.0 for images in
        [0, 1]. None is possible where the convention fixes it.
    spec : str or SSIMSpec
        The convention: a name out of :func:`sosie.list_specs`, or a spec of your own.
    reduction : {"mean", "sum", "none"}
        Average over the images, sum over the images, or one loss per image ``(N,)``. Channels are
        always averaged.
    channel_axis : int, optional
        Axis of the channels, for example -1 for ``(N, H, W, C)``; by default ``(N, C, *spatial)``.
    spatial_dims : {2, 3}
        Spatial axes: images or volumes.
    **spec_overrides
        Fields of :class:`sosie.SSIMSpec` to change, for example ``sigma=2.0``.

    Raises
    ------
    ValueError
        A name is unknown or an option out of its range; when called, also where shapes differ or do
        not fit the window, or the data range is missing.
    TypeError
        When called, dtypes differ or are not supported. Under autocast two floating-point dtypes
        may differ: both images are then converted to the wider one.

    Notes
    -----
    Called as ``loss(x, y, mask=None)`` with tensors of equal shape, ``(N, C, *spatial)`` or without
    the axes N and C, of any dtype and strides that `sosie.ssim` takes. ``mask`` is True where a
    pixel is valid; invalid pixels may hold anything and get no gradient. The result is float32, or
    float64 for float64 images, and is differentiable in both images, any number of times.

    With "mean" and "sum" the gradient is computed along with the loss. That holds for conventions
    without downsampling and without ``nonnegative``; others compute it in the backward pass.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import SSIMLoss
    >>> loss = SSIMLoss(data_range=1.0)
    >>> image = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    >>> restored = torch.full_like(image, 0.5, requires_grad=True)
    >>> loss(restored, image).backward()
    >>> restored.grad.shape
    torch.Size([1, 3, 32, 32])
    >>> round(float(loss(image, image)), 6)
    0.0
    """

    def __init__(
        self,
        *,
        data_range: float | None,
        spec: str | SSIMSpec = "wang2004",
        reduction: str = "mean",
        channel_axis: int | None = None,
        spatial_dims: int = 2,
        **spec_overrides: Any,
    ) -> None:
        options = _Options(
            _convention(spec, spec_overrides),
            data_range,
            reduction,
            channel_axis,
            spatial_dims,
            ssim_weight=1.0,
            l1_weight=0.0,
        )
        super().__init__(options, _given(options, spec, spec_overrides))

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of ``x`` against ``y``; see the class."""
        return _mixed_loss(x, y, mask, self._options)


class L1SSIMLoss(_SimilarityLoss):
    """A blend of one minus the structural similarity and the mean absolute error.

    ``alpha * (1 - SSIM(x, y)) + (1 - alpha) * mean |x - y|``

    Parameters
    ----------
    data_range : float or None
        As for :class:`SSIMLoss`. The absolute error is not divided by it.
    alpha : float
        Weight of the similarity term, from 0 to 1.
    spec, reduction, channel_axis, spatial_dims, **spec_overrides
        As for :class:`SSIMLoss`.

    Raises
    ------
    ValueError, TypeError
        As for :class:`SSIMLoss`.

    Notes
    -----
    Blend and default weight are those of Zhao, Gallo, Frosio, Kautz, "Loss functions for image
    restoration with neural networks", IEEE Transactions on Computational Imaging 3(1), 2017,
    section III. They blend a multi-scale similarity and weigh the absolute error with a Gaussian
    window; here the similarity has one scale and all pixels weigh the same. Gaussian splatting
    (Kerbl et al. 2023) uses ``alpha=0.2``.

    Call, mask, dtypes and derivatives are those of :class:`SSIMLoss`. With a mask the absolute
    error is averaged over the valid pixels of each channel.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import L1SSIMLoss
    >>> x, y = torch.full((1, 1, 16, 16), 0.5), torch.full((1, 1, 16, 16), 0.25)
    >>> round(float(L1SSIMLoss(data_range=1.0, alpha=0.0)(x, y)), 6)
    0.25
    """

    def __init__(
        self,
        *,
        data_range: float | None,
        alpha: float = 0.84,
        spec: str | SSIMSpec = "wang2004",
        reduction: str = "mean",
        channel_axis: int | None = None,
        spatial_dims: int = 2,
        **spec_overrides: Any,
    ) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"expected alpha between 0 and 1, got {alpha!r}")
        options = _Options(
            _convention(spec, spec_overrides),
            data_range,
            reduction,
            channel_axis,
            spatial_dims,
            ssim_weight=alpha,
            l1_weight=1.0 - alpha,
        )
        super().__init__(options, {"alpha": alpha, **_given(options, spec, spec_overrides)})

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of ``x`` against ``y``; see the class."""
        return _mixed_loss(x, y, mask, self._options)


class MSSSIMLoss(_SimilarityLoss):
    """One minus the multi-scale structural similarity of two batches of images.

    Parameters
    ----------
    data_range : float or None
        As for :class:`SSIMLoss`.
    spec : str or SSIMSpec
        A convention with a multi-scale index.
    weights : sequence of float, optional
        Exponents of the scales, finest first; their number is the number of scales.
    reduction, channel_axis, spatial_dims, **spec_overrides
        As for :class:`SSIMLoss`.

    Raises
    ------
    ValueError, TypeError
        As for :class:`SSIMLoss`; when called, also for images too small for the number of scales.

    Notes
    -----
    Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment",
    Asilomar 2003, equation 7. Called as ``loss(x, y)``; differentiable in both images, any number
    of times.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import MSSSIMLoss
    >>> image = torch.rand(2, 3, 96, 96)
    >>> round(float(MSSSIMLoss(data_range=1.0, weights=(0.2, 0.3, 0.5))(image, image)), 6)
    0.0
    """

    def __init__(
        self,
        *,
        data_range: float | None,
        spec: str | SSIMSpec = "wang2003",
        weights: Sequence[float] | None = None,
        reduction: str = "mean",
        channel_axis: int | None = None,
        spatial_dims: int = 2,
        **spec_overrides: Any,
    ) -> None:
        if weights is not None:
            spec_overrides["scale_weights"] = tuple(weights)
        options = _Options(
            _convention(spec, spec_overrides),
            data_range,
            reduction,
            channel_axis,
            spatial_dims,
            ssim_weight=1.0,
            l1_weight=0.0,
        )
        super().__init__(options, _given(options, spec, spec_overrides))
        if options.spec.scale_weights is None:
            raise ValueError(
                "expected weights, or a convention with a multi-scale index such as 'wang2003', "
                f"got spec={spec!r}"
            )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss of ``x`` against ``y``; see the class."""
        return _multi_scale_loss(x, y, self._options)


def _mixed_loss(x: Tensor, y: Tensor, mask: Tensor | None, encoded: str) -> Tensor:
    """``ssim_weight * (1 - SSIM) + l1_weight * L1``, by the fused operator where that is possible.

    Compilers do not trace this function but call it while they trace, because it looks up what the
    convention comes to; see `sosie.torch`.
    """
    options = _decoded(encoded)
    x, y = of_one_dtype(x, y)
    check_pair(x, y)
    layout = Layout(tuple(x.shape), options.spatial_dims, options.channel_axis)
    planes_x, planes_y = layout.planes(x), layout.planes(y)
    planes_mask = None if mask is None else layout.mask(mask, x)
    spec, ssim_weight, l1_weight = options.spec, options.ssim_weight, options.l1_weight
    if options.reduction != "none" and _is_fusible(spec, planes_x):
        parameters = operators.resolved(spec, planes_x.shape[2:], options.data_range)
        mean = operators.loss(planes_x, planes_y, parameters, planes_mask, ssim_weight, l1_weight)
        return mean if options.reduction == "mean" else mean * planes_x.shape[0]
    similarity: Tensor = ssim(
        x,
        y,
        data_range=options.data_range,
        spec=spec,
        mask=mask,
        reduction="none",
        channel_axis=options.channel_axis,
        spatial_dims=options.spatial_dims,
    )
    losses = ssim_weight * (1.0 - similarity)
    if l1_weight != 0.0:
        absolute_error = composite.absolute_error(planes_x, planes_y, planes_mask)
        losses = losses + l1_weight * absolute_error.mean(1)
    return _reduced(losses, options.reduction)


def _is_fusible(spec: SSIMSpec, planes: Tensor) -> bool:
    if spec.nonnegative != "none":
        return False
    return spec.downsample is None or spec.downsampling(tuple(map(int, planes.shape[2:]))) is None


def _multi_scale_loss(x: Tensor, y: Tensor, encoded: str) -> Tensor:
    """One minus the multi-scale index; not traced either."""
    options = _decoded(encoded)
    x, y = of_one_dtype(x, y)
    similarity: Tensor = ms_ssim(
        x,
        y,
        data_range=options.data_range,
        spec=options.spec,
        reduction="none",
        channel_axis=options.channel_axis,
        spatial_dims=options.spatial_dims,
    )
    return _reduced(1.0 - similarity, options.reduction)


torch.compiler.allow_in_graph((_mixed_loss, _multi_scale_loss))


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
