# SPDX-License-Identifier: Apache-2.0
"""MONAI 1.6: ``compute_ssim_and_cs`` and ``SSIMLoss``, for images and volumes.

Covered are Gaussian and uniform windows up to 33 pixels along each axis, and all options. As there,
everything is computed in float32 and results are float32. `SSIMLoss` does not form the maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from sosie.compat._coverage import NotCovered
from sosie.compat._planes import convention, per_axis, similarity_map, values
from sosie.compat._tensors import check_tensors

__all__ = ["SSIMLoss", "compute_ssim_and_cs"]

DISTRIBUTION = "monai"
VERSIONS = ">=1.6,<1.7"
SEAMS = {
    "monai.metrics.regression:compute_ssim_and_cs": "compute_ssim_and_cs",
    "monai.losses.ssim_loss:SSIMLoss.forward": "_loss",
}

_REDUCTIONS = ("none", "mean", "sum")


def compute_ssim_and_cs(
    y_pred: Tensor,
    y: Tensor,
    spatial_dims: int,
    kernel_size: Sequence[int],
    kernel_sigma: Sequence[float],
    data_range: float = 1.0,
    kernel_type: str = "gaussian",
    k1: float = 0.01,
    k2: float = 0.03,
) -> tuple[Tensor, Tensor]:
    """Maps of similarity and contrast-structure, as ``monai.metrics.regression`` has them.

    Parameters
    ----------
    y_pred, y : Tensor, shape (N, C, *spatial)
        Images of any real dtype, differentiable.
    spatial_dims : {2, 3}
    kernel_size, kernel_sigma : sequence
        Size of the window and standard deviation of the Gaussian, for each axis.
    data_range : float
        Difference between the largest and the smallest value a pixel can have.
    kernel_type : {"gaussian", "uniform"}
    k1, k2 : float
        Constants of the index.

    Returns
    -------
    tuple of Tensor, shape (N, C, *map)
        float32; of the positions whose window lies inside.

    Raises
    ------
    ValueError
        Shapes differ.
    NotCovered
        Dtypes, devices or windows that sosie does not compute.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.monai import compute_ssim_and_cs
    >>> image = torch.rand(1, 1, 16, 16)
    >>> quality, contrast = compute_ssim_and_cs(image, image, 2, (11, 11), (1.5, 1.5))
    >>> quality.shape, round(float(quality.mean()), 6)
    (torch.Size([1, 1, 6, 6]), 1.0)
    """
    if y.shape != y_pred.shape:
        raise ValueError(
            f"expected y_pred and y of equal shape, got {tuple(y_pred.shape)} and {tuple(y.shape)}"
        )
    spec = _convention(spatial_dims, kernel_size, kernel_sigma, kernel_type, k1, k2)
    y_pred, y = _singles(y_pred, y, spatial_dims)
    return (
        similarity_map(y_pred, y, spec, data_range),
        similarity_map(y_pred, y, spec, data_range, "cs"),
    )


class SSIMLoss(_Loss):
    """One minus the structural similarity, as ``monai.losses.SSIMLoss``.

    Parameters
    ----------
    spatial_dims : {2, 3}
    data_range : float
        Difference between the largest and the smallest value a pixel can have.
    kernel_type : {"gaussian", "uniform"}
    win_size, kernel_sigma : number or sequence
        Size of the window and standard deviation of the Gaussian, for all axes or for each.
    k1, k2 : float
        Constants of the index.
    reduction : {"mean", "sum", "none"}
        Over images; "none" gives ``(N, 1)``.

    Raises
    ------
    ValueError
        The reduction is unknown; when called, shapes differ or have a wrong number of axes.
    NotCovered
        When called, dtypes, devices or windows that sosie does not compute.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.monai import SSIMLoss
    >>> volume = torch.rand(1, 1, 12, 13, 14)
    >>> round(float(SSIMLoss(spatial_dims=3)(volume, volume)), 6)
    0.0
    """

    def __init__(
        self,
        spatial_dims: int,
        data_range: float = 1.0,
        kernel_type: str = "gaussian",
        win_size: int | Sequence[int] = 11,
        kernel_sigma: float | Sequence[float] = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        reduction: str = "mean",
    ) -> None:
        reduction = getattr(reduction, "value", reduction)  # MONAI has an enumeration for it
        if reduction not in _REDUCTIONS:
            raise ValueError(f"expected a reduction out of {_REDUCTIONS}, got {reduction!r}")
        super().__init__(reduction=reduction)
        self.spatial_dims = spatial_dims
        self.data_range = data_range
        self.kernel_type = kernel_type
        self.kernel_size = per_axis(win_size, spatial_dims)
        self.kernel_sigma = per_axis(kernel_sigma, spatial_dims)
        self.k1 = k1
        self.k2 = k2

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Loss of the input against the target; see the class."""
        return _loss(self, input, target)


def _loss(self: Any, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
    """The loss that a `SSIMLoss`, ours or MONAI's, computes."""
    if not isinstance(input, Tensor) or not isinstance(target, Tensor):
        raise ValueError(f"expected tensors, got {type(input)} and {type(target)}")
    if input.shape != target.shape or input.ndim != self.spatial_dims + 2:
        raise ValueError(
            f"expected images of equal shape with {self.spatial_dims} spatial axes, "
            f"got {tuple(input.shape)} and {tuple(target.shape)}"
        )
    spec = _convention(
        self.spatial_dims, self.kernel_size, self.kernel_sigma, self.kernel_type, self.k1, self.k2
    )
    singles = _singles(input, target, self.spatial_dims)
    loss = 1 - values(*singles, spec, self.data_range).mean(1, keepdim=True)
    if self.reduction == "none":
        return loss
    return loss.mean() if self.reduction == "mean" else loss.sum()


def _convention(
    spatial_dims: int,
    sizes: Sequence[int],
    sigmas: Sequence[float],
    kind: str,
    k1: float,
    k2: float,
) -> str:
    kind = getattr(kind, "value", kind)  # MONAI has an enumeration for it
    if kind not in ("gaussian", "uniform"):
        raise NotCovered(f"sosie computes kernel_type 'gaussian' and 'uniform', got {kind!r}")
    sizes, sigmas = tuple(sizes)[:spatial_dims], tuple(sigmas)[:spatial_dims]
    if {len(sizes), len(sigmas)} != {spatial_dims}:
        raise NotCovered(f"sosie takes a size and a sigma for each axis, got {sizes}, {sigmas}")
    sigma = sigmas if kind == "gaussian" else 1.0
    return convention("monai", window=kind, window_size=sizes, sigma=sigma, k1=k1, k2=k2)


def _singles(y_pred: Tensor, y: Tensor, spatial_dims: int) -> tuple[Tensor, Tensor]:
    """Both images in float32, as plain tensors."""
    for image in (y_pred, y):
        if not isinstance(image, Tensor) or image.is_complex():
            raise NotCovered(f"sosie computes tensors of real numbers here, got {type(image)}")
    if y_pred.ndim != spatial_dims + 2:
        raise NotCovered(f"sosie computes batches of images with channels, got {y_pred.ndim} axes")
    y_pred, y = (_plain(image).to(torch.float32) for image in (y_pred, y))
    check_tensors(y_pred, y)
    return y_pred, y


def _plain(image: Tensor) -> Tensor:
    """The tensor without MONAI's metadata, which the original drops too."""
    return image if type(image) is Tensor else image.as_subclass(Tensor)
