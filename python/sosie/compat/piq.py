# SPDX-License-Identifier: Apache-2.0
"""piq 0.8: ``ssim``, ``multi_scale_ssim``, ``SSIMLoss``, ``MultiScaleSSIMLoss``.

Covered are images ``(N, C, H, W)`` with windows up to 33 pixels and all options; complex images,
with a last axis of 2, are not. The checks of values are the original's, AssertionErrors that Python
leaves out with ``-O``.

Traps that are kept: large images are reduced first (``downsample=True``); weights of scales that
are given are divided by their sum, those of the default are not, and `MultiScaleSSIMLoss` always
gives some.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.loss import _Loss

from sosie.compat._coverage import NotCovered
from sosie.compat._planes import convention, downsampled, multi_scale, values
from sosie.compat._tensors import check_tensors, constants
from sosie.spec import WANG2003_WEIGHTS

__all__ = ["MultiScaleSSIMLoss", "SSIMLoss", "multi_scale_ssim", "ssim"]

DISTRIBUTION = "piq"
VERSIONS = ">=0.8,<0.9"
SEAMS = {
    "piq:ssim": "ssim",
    "piq:multi_scale_ssim": "multi_scale_ssim",
    "piq.ssim:ssim": "ssim",
    "piq.ms_ssim:multi_scale_ssim": "multi_scale_ssim",
    "piq.ssim:_ssim_per_channel": "_ssim_per_channel",
    "piq.ms_ssim:_ssim_per_channel": "_ssim_per_channel",
}


def ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = 1.0,
    reduction: str = "mean",
    full: bool = False,
    downsample: bool = True,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor | list[Tensor]:
    """Structural similarity, as ``piq.ssim``.

    Parameters
    ----------
    x, y : Tensor, shape (N, C, H, W)
        Images of values in [0, data_range], differentiable. Integers are computed in float32.
    kernel_size, kernel_sigma : int, float
        Size, and standard deviation, of the Gaussian window.
    data_range : float
        Largest possible value.
    reduction : {"mean", "sum", "none"}
        Of the values of the images.
    full : bool
        Return the contrast-structure too.
    downsample : bool
        Reduce images with a smallest side of more than 384 pixels first.
    k1, k2 : float
        Constants of the index.

    Returns
    -------
    Tensor, or list of two

    Raises
    ------
    AssertionError
        Arguments are no tensors, of unequal shape or device, of other than 4 or 5 axes, or values
        lie outside the range; the window's size is even.
    ValueError
        The images are smaller than the window, or the reduction is unknown.
    NotCovered
        Complex images, and dtypes, devices and windows that sosie does not compute.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.piq import ssim
    >>> image = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    >>> round(float(ssim(image, 1 - image)), 4)
    0.1725
    """
    _check(x, y, kernel_size, data_range)
    x, y = _floating(x, y)
    spec = _gaussian(kernel_size, kernel_sigma, k1, k2)
    if downsample:
        x, y = (downsampled(image, spec) for image in (x, y))
    _check_extent(x, kernel_size)
    spec = convention(spec, downsample=None)
    index = _reduced(values(x, y, spec, data_range).to(x.dtype).mean(1), reduction)
    if not full:
        return index
    return [index, _reduced(values(x, y, spec, data_range, "cs").to(x.dtype).mean(1), reduction)]


def multi_scale_ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = 1.0,
    reduction: str = "mean",
    scale_weights: Tensor | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """Multi-scale structural similarity, as ``piq.multi_scale_ssim``.

    Parameters
    ----------
    x, y, kernel_size, kernel_sigma, data_range, reduction, k1, k2
        As for `ssim`.
    scale_weights : Tensor, shape (scales,), optional
        Exponents of the scales, finest first. They are divided by their sum.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        Images are too small for the number of scales; weights have several axes; as for `ssim`.
    AssertionError, NotCovered
        As for `ssim`.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.piq import multi_scale_ssim
    >>> image = torch.rand(1, 1, 161, 170)
    >>> round(float(multi_scale_ssim(image, image)), 6)
    1.0
    """
    _check(x, y, kernel_size, data_range)
    weights = _weights(scale_weights)
    x, y = _floating(x, y)
    least = (kernel_size - 1) * 2 ** (len(weights) - 1) + 1
    if min(x.shape[-2:]) < least:
        raise ValueError(f"expected images of at least {least} pixels a side, got {x.shape}")
    spec = _gaussian(kernel_size, kernel_sigma, k1, k2)
    spec = convention(spec, scale_weights=weights)
    dtype = x.dtype
    if scale_weights is not None:
        dtype = torch.promote_types(dtype, (scale_weights / 1).dtype)
    return _reduced(multi_scale(x, y, spec, data_range).to(dtype), reduction)


class SSIMLoss(_Loss):
    """One minus `ssim`, with ``piq.SSIMLoss``'s arguments.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.piq import SSIMLoss
    >>> image = torch.rand(1, 3, 16, 16)
    >>> round(float(SSIMLoss()(image, image)), 6)
    0.0
    """

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        downsample: bool = True,
        reduction: str = "mean",
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        _check_kernel(kernel_size)
        self.reduction = reduction
        self.kernel_size = kernel_size
        self.kernel_sigma = kernel_sigma
        self.k1 = k1
        self.k2 = k2
        self.downsample = downsample
        self.data_range = data_range

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss of x against y; see `ssim`."""
        score: Any = ssim(
            x,
            y,
            kernel_size=self.kernel_size,
            kernel_sigma=self.kernel_sigma,
            downsample=self.downsample,
            data_range=self.data_range,
            reduction=self.reduction,
            k1=self.k1,
            k2=self.k2,
        )
        loss: Tensor = 1.0 - score
        return loss


class MultiScaleSSIMLoss(_Loss):
    """One minus `multi_scale_ssim`, with ``piq.MultiScaleSSIMLoss``'s arguments.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.piq import MultiScaleSSIMLoss
    >>> image = torch.rand(1, 3, 161, 161)
    >>> round(float(MultiScaleSSIMLoss()(image, image)), 6)
    0.0
    """

    scale_weights: Tensor

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        scale_weights: Tensor | None = None,
        reduction: str = "mean",
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        _check_kernel(kernel_size)
        self.reduction = reduction
        self.register_buffer(
            "scale_weights",
            torch.tensor(WANG2003_WEIGHTS) if scale_weights is None else scale_weights,
        )
        self.kernel_size = kernel_size
        self.kernel_sigma = kernel_sigma
        self.k1 = k1
        self.k2 = k2
        self.data_range = data_range

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss of x against y; see `multi_scale_ssim`."""
        return 1.0 - multi_scale_ssim(
            x,
            y,
            kernel_size=self.kernel_size,
            kernel_sigma=self.kernel_sigma,
            data_range=self.data_range,
            reduction=self.reduction,
            scale_weights=self.scale_weights,
            k1=self.k1,
            k2=self.k2,
        )


def _ssim_per_channel(
    x: Tensor,
    y: Tensor,
    kernel: Tensor,
    data_range: float = 1.0,  # noqa: ARG001
    k1: float = 0.01,
    k2: float = 0.03,
) -> tuple[Tensor, Tensor]:
    """Mean similarity and contrast-structure of every plane of images in [0, 1], ``(N, C)`` each.

    The original, too, has divided images by their range before.
    """
    _check_extent(x, kernel.shape[-1])
    check_tensors(x, y)
    taps = _taps(kernel)
    spec = convention(
        "piq", window="custom", taps=taps, window_size=None, downsample=None, k1=k1, k2=k2
    )
    index, contrast = (values(x, y, spec, 1.0, kind).to(x.dtype) for kind in ("ssim", "cs"))
    return index, contrast


# --- Checks ---------------------------------------------------------------------------------------


def _check_kernel(kernel_size: int) -> None:
    if kernel_size % 2 != 1:
        raise AssertionError(f"expected an odd kernel_size, got {kernel_size}")


def _check(x: Tensor, y: Tensor, kernel_size: int, data_range: float) -> None:
    """The original's assertions."""
    _check_kernel(kernel_size)
    if not __debug__:
        return
    for image in (x, y):
        if not isinstance(image, Tensor):
            raise AssertionError(f"expected tensors, got {type(image)}")
        if image.device != x.device or image.shape != x.shape or image.ndim not in (4, 5):
            raise AssertionError(
                f"expected images of equal shape (N, C, H, W) on one device, got {tuple(x.shape)} "
                f"on {x.device} and {tuple(image.shape)} on {image.device}"
            )
    if torch.compiler.is_compiling() or isinstance(x, FakeTensor):
        return  # there are no values yet
    for image in (x, y):
        low, high = (float(value) for value in image.detach().aminmax())
        if not (low >= 0 and high <= data_range):
            raise AssertionError(
                f"expected values from 0 to {data_range}, got values from {low} to {high}"
            )


def _floating(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim == 5:
        raise NotCovered(f"sosie computes no complex images, got shape {tuple(x.shape)}")
    x, y = (image if image.is_floating_point() else image.float() for image in (x, y))
    check_tensors(x, y)
    return x, y


def _check_extent(x: Tensor, kernel_size: int) -> None:
    if min(x.shape[-2:]) < kernel_size:
        raise ValueError(
            f"expected images of at least {kernel_size} pixels a side, got {tuple(x.shape)}"
        )


def _gaussian(kernel_size: int, kernel_sigma: float, k1: float, k2: float) -> str:
    return convention("piq", window_size=kernel_size, sigma=kernel_sigma, k1=k1, k2=k2)


def _weights(scale_weights: Tensor | None) -> tuple[float, ...]:
    if scale_weights is None:
        return WANG2003_WEIGHTS
    if scale_weights.requires_grad:
        raise NotCovered("sosie does not differentiate scale_weights")
    if scale_weights.shape[0] != scale_weights.numel():
        raise ValueError(f"expected a vector of weights, got shape {tuple(scale_weights.shape)}")
    return constants((scale_weights / scale_weights.sum()).flatten())


def _taps(kernel: Tensor) -> tuple[float, ...]:
    """The one-dimensional window whose outer product with itself is the kernel of all channels."""
    plane = kernel.detach()[0, 0].double()
    row = plane.sum(0) / plane.sum().sqrt()
    taps = constants(row)
    error = (torch.outer(row, row) - kernel.detach().double()).abs().max()
    # Each element was rounded for itself, in the images' precision.
    if kernel.requires_grad or error > 4 * torch.finfo(kernel.dtype).eps * plane.max():
        raise NotCovered("sosie computes with a separable window that all channels share")
    return taps


def _reduced(per_image: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return per_image
    if reduction == "mean":
        return per_image.mean(dim=0)
    if reduction == "sum":
        return per_image.sum(dim=0)
    raise ValueError(f"expected a reduction out of 'none', 'mean', 'sum', got {reduction!r}")
