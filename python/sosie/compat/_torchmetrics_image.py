# SPDX-License-Identifier: Apache-2.0
"""The functions of images of `sosie.compat.torchmetrics`, and what its metrics' updates compute."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sosie.compat._coverage import NotCovered, refused_is_not_covered
from sosie.compat._planes import (
    combined,
    convention,
    multi_scale,
    per_axis,
    similarity_map,
    values,
)
from sosie.compat._tensors import check_tensors, constants
from sosie.spec import WANG2003_WEIGHTS
from sosie.ssd import weighted_ssd

__all__ = [
    "multiscale_structural_similarity_index_measure",
    "peak_signal_noise_ratio",
    "structural_similarity_index_measure",
]

_REDUCTIONS = ("elementwise_mean", "sum", "none", None)

#: A number; the two ends, to which images are then clamped; or None, the range of the images.
DataRange = float | tuple[float, float] | None


# --- Structural similarity ------------------------------------------------------------------------


def structural_similarity_index_measure(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: str | None = "elementwise_mean",
    data_range: DataRange = None,
    k1: float = 0.01,
    k2: float = 0.03,
    return_full_image: bool = False,
    return_contrast_sensitivity: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Structural similarity, as ``torchmetrics.functional.image`` has it.

    Parameters
    ----------
    preds, target : Tensor, shape (N, C, H, W) or (N, C, D, H, W)
        Floating-point images, differentiable. The target takes the dtype of the predictions.
    gaussian_kernel : bool
        A Gaussian window, of a size that follows from ``sigma``; else a uniform one.
    sigma : float or sequence of float
        Standard deviation of the Gaussian, for each axis.
    kernel_size : int or sequence of int
        Size of the uniform window, for each axis.
    reduction : {"elementwise_mean", "sum", "none", None}
        Of the values of the images.
    data_range : float, or pair of float, or None
        Difference between the largest and the smallest value; or both, to which images are clamped;
        or the range that the images have.
    k1, k2 : float
        Constants of the index.
    return_full_image, return_contrast_sensitivity : bool
        Return the map, or the contrast-structure of every image, too; not both.

    Returns
    -------
    Tensor, or tuple of two

    Raises
    ------
    ValueError
        Shapes, sizes or a reduction are wrong.
    RuntimeError
        Shapes differ.
    NotCovered
        Dtypes, devices, windows, or gradients of the data range, that sosie does not compute.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import structural_similarity_index_measure
    >>> image = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    >>> round(float(structural_similarity_index_measure(image, 1 - image, data_range=1.0)), 4)
    0.1939
    """
    preds, target = _ssim_check_inputs(preds, target)
    result = _ssim_update(
        preds, target, gaussian_kernel, sigma, kernel_size, data_range, k1, k2,
        return_full_image, return_contrast_sensitivity,
    )  # fmt: skip
    if isinstance(result, tuple):
        return _reduced(result[0], reduction), result[1]
    return _reduced(result, reduction)


def multiscale_structural_similarity_index_measure(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: str | None = "elementwise_mean",
    data_range: DataRange = None,
    k1: float = 0.01,
    k2: float = 0.03,
    betas: tuple[float, ...] = WANG2003_WEIGHTS,
    normalize: str | None = "relu",
) -> Tensor:
    """Multi-scale structural similarity, as ``torchmetrics.functional.image`` has it.

    Parameters
    ----------
    preds, target, gaussian_kernel, sigma, kernel_size, reduction, data_range, k1, k2
        As for `structural_similarity_index_measure`. With ``data_range=None`` every scale has the
        range of its own images.
    betas : tuple of float
        Exponents of the scales, finest first.
    normalize : {"relu", "simple", None}
        Means below 0 count as 0, or all are moved to [0, 1], or neither.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError, RuntimeError, NotCovered
        As for `structural_similarity_index_measure`; ValueError also for images that are too small.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import multiscale_structural_similarity_index_measure
    >>> image = torch.rand(1, 1, 180, 180)
    >>> value = multiscale_structural_similarity_index_measure(image, image, data_range=1.0)
    >>> round(float(value), 5)
    1.0
    """
    if not isinstance(betas, tuple) or not all(isinstance(beta, float) for beta in betas):
        raise ValueError(f"expected betas to be a tuple of floats, got {betas!r}")
    if normalize and normalize not in ("relu", "simple"):
        raise ValueError(f"expected normalize out of 'relu', 'simple', None, got {normalize!r}")
    preds, target = _ssim_check_inputs(preds, target)
    per_image = _multiscale_ssim_update(
        preds, target, gaussian_kernel, sigma, kernel_size, data_range, k1, k2, betas, normalize
    )
    return _reduced(per_image, reduction)


def _ssim_check_inputs(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if preds.dtype != target.dtype:
        target = target.to(preds.dtype)
    if preds.shape != target.shape:
        raise RuntimeError(
            f"expected preds and target of equal shape, got {tuple(preds.shape)} and "
            f"{tuple(target.shape)}"
        )
    if preds.ndim not in (4, 5):
        raise ValueError(
            f"expected images of shape (N, C, H, W) or (N, C, D, H, W), got {tuple(preds.shape)}"
        )
    return preds, target


def _ssim_update(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    data_range: DataRange = None,
    k1: float = 0.01,
    k2: float = 0.03,
    return_full_image: bool = False,
    return_contrast_sensitivity: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Values of the images ``(N,)``, and the map or their contrast-structure if wanted."""
    axes = preds.ndim - 2
    sizes, sigmas = per_axis(kernel_size, axes), per_axis(sigma, axes)
    _check_window(sizes, sigmas, axes)
    if return_full_image and return_contrast_sensitivity:
        raise ValueError("expected return_full_image or return_contrast_sensitivity, got both")
    check_tensors(preds, target)
    spec = _convention(gaussian_kernel, sigmas, sizes, k1, k2)
    preds, target, limits = _range(preds, target, data_range)
    dtype = preds.dtype
    if return_full_image:
        full = similarity_map(preds, target, spec, limits).to(dtype)
        return full.flatten(1).mean(1), full
    similarity = values(preds, target, spec, limits).mean(1).to(dtype)
    if not return_contrast_sensitivity:
        return similarity
    cropped = convention(spec, crop="window")
    return similarity, values(preds, target, cropped, limits, "cs").mean(1).to(dtype)


def _multiscale_ssim_update(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    data_range: DataRange = None,
    k1: float = 0.01,
    k2: float = 0.03,
    betas: tuple[float, ...] = WANG2003_WEIGHTS,
    normalize: str | None = None,
) -> Tensor:
    """Multi-scale values of the images ``(N,)``."""
    axes = preds.ndim - 2
    sizes, sigmas = per_axis(kernel_size, axes), per_axis(sigma, axes)
    _check_extent(preds, sizes, len(betas))
    _check_window(sizes, sigmas, axes)
    check_tensors(preds, target)
    spec = convention(
        _convention(gaussian_kernel, sigmas, sizes, k1, k2),
        scale_weights=betas,
        rectify=normalize or "none",
    )
    if data_range is None or isinstance(data_range, tuple):
        return _with_range_per_scale(preds, target, spec, len(betas), data_range).to(preds.dtype)
    return multi_scale(preds, target, spec, data_range).to(preds.dtype)


def _with_range_per_scale(
    preds: Tensor, target: Tensor, spec: str, scales: int, data_range: DataRange
) -> Tensor:
    """Multi-scale values where every scale is clamped for itself, or has a range of its own."""
    cropped = convention(spec, crop="window")
    pool = F.avg_pool2d if preds.ndim == 4 else F.avg_pool3d
    means = []
    for level in range(scales):
        x, y, limits = _range(preds, target, data_range)
        if level == scales - 1:
            means.append(values(x, y, spec, limits))
        else:
            means.append(values(x, y, cropped, limits, "cs"))
            preds, target = pool(preds, 2), pool(target, 2)
    return combined(means, spec)


def _check_window(sizes: tuple[int, ...], sigmas: tuple[float, ...], axes: int) -> None:
    for name, given in (("kernel_size", sizes), ("sigma", sigmas)):
        if len(given) != axes:
            raise ValueError(f"expected {name} for each of {axes} axes, got {given}")
    if any(size % 2 == 0 or size <= 0 for size in sizes):
        raise ValueError(f"expected kernel_size of odd positive numbers, got {sizes}")
    if any(each <= 0 for each in sigmas):
        raise ValueError(f"expected sigma of positive numbers, got {sigmas}")


def _check_extent(preds: Tensor, sizes: tuple[int, ...], scales: int) -> None:
    """Height and width, for which there is one rule by scales and one by the window."""
    height, width = preds.shape[-2:]
    if min(height, width) < 2**scales:
        raise ValueError(
            f"expected images of at least {2**scales} pixels for {scales} betas, "
            f"got {tuple(preds.shape)}"
        )
    divisor = max(1, scales - 1) ** 2
    for name, size, window in (("height", height, sizes[0]), ("width", width, sizes[1])):
        if size // divisor <= window - 1:
            raise ValueError(
                f"expected a {name} above {(window - 1) * divisor} for {scales} betas and a window "
                f"of {window}, got {tuple(preds.shape)}"
            )


def _convention(
    gaussian: bool, sigmas: tuple[float, ...], sizes: tuple[int, ...], k1: float, k2: float
) -> str:
    windows = tuple(2 * int(3.5 * sigma + 0.5) + 1 for sigma in sigmas) if gaussian else sizes
    if len(windows) == 3 and (len({*windows, *sizes}) > 1 or len(set(sigmas)) > 1):
        # There the padding of the depth follows from kernel_size, whatever the window is.
        raise NotCovered(
            "sosie computes volumes with one window, of kernel_size, for all axes, "
            f"got windows of {windows} and kernel_size {sizes}"
        )
    if min(windows) == 1:
        raise NotCovered("sosie computes windows of more than one pixel here")
    if gaussian:
        return convention("torchmetrics", sigma=sigmas, k1=k1, k2=k2)
    return convention(
        "torchmetrics", window="uniform", window_size=sizes, truncate=None, k1=k1, k2=k2
    )


def _range(preds: Tensor, target: Tensor, data_range: DataRange) -> tuple[Tensor, Tensor, float]:
    """Both images, clamped if the range has ends, and the range as a number."""
    if isinstance(data_range, tuple):
        low, high = data_range
        return preds.clamp(low, high), target.clamp(low, high), high - low
    if data_range is not None:
        return preds, target, float(data_range)
    if torch.is_grad_enabled() and (preds.requires_grad or target.requires_grad):
        raise NotCovered("sosie does not differentiate the range of the images; give a data_range")
    extents = [image.detach().amax() - image.detach().amin() for image in (preds, target)]
    return preds, target, max(constants(torch.stack(extents)))


def _reduced(per_image: Tensor, reduction: str | None) -> Tensor:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"expected a reduction out of {_REDUCTIONS}, got {reduction!r}")
    if reduction == "elementwise_mean":
        return per_image.mean()
    return per_image.sum() if reduction == "sum" else per_image


# --- Peak signal-to-noise ratio -------------------------------------------------------------------


def peak_signal_noise_ratio(
    preds: Tensor,
    target: Tensor,
    data_range: float | tuple[float, float],
    base: float = 10.0,
    reduction: str | None = "elementwise_mean",
    dim: int | tuple[int, ...] | None = None,
) -> Tensor:
    """Peak signal-to-noise ratio in decibels, as ``torchmetrics.functional.image`` has it.

    Parameters
    ----------
    preds, target : Tensor of equal shape
        Integers are computed in float32.
    data_range : float or pair of float
        Difference between the largest and the smallest value; or both, to which images are clamped.
    base : float
        Of the logarithm.
    reduction : {"elementwise_mean", "sum", "none", None}
        Of the ratios, where ``dim`` leaves several.
    dim : int or tuple of int, optional
        Axes that one ratio is taken over; all, by default.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        The reduction is unknown.
    NotCovered
        Dtypes or devices differ or are none that sosie computes, shapes differ.

    Warns
    -----
    UserWarning
        A reduction has no effect without ``dim``.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import peak_signal_noise_ratio
    >>> preds = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    >>> peak_signal_noise_ratio(preds, preds.flip(0, 1), data_range=3.0)
    tensor(2.5527)
    """
    if dim is None and reduction != "elementwise_mean":
        warnings.warn(f"the reduction {reduction!r} has no effect where dim is None", stacklevel=2)
    if isinstance(data_range, tuple):
        low, high = data_range
        preds, target, data_range = preds.clamp(low, high), target.clamp(low, high), high - low
    squares, count = _psnr_update(preds, target, dim)
    decibels = 10 / torch.log(torch.tensor(base))
    limits = torch.tensor(float(data_range))
    ratios = (2 * torch.log(limits) - torch.log(squares / count)) * decibels
    return _reduced(ratios, reduction)


def _psnr_update(
    preds: Tensor, target: Tensor, dim: int | tuple[int, ...] | None = None
) -> tuple[Tensor, Tensor]:
    """Sums of squared differences over the axes ``dim``, and how many are in each."""
    preds, target = (
        image if image.is_floating_point() else image.to(torch.float32) for image in (preds, target)
    )
    check_tensors(preds, target, kernel="ssd_forward")
    axes = (dim,) if isinstance(dim, int) else tuple(dim or range(preds.ndim))
    with refused_is_not_covered():
        squares = _squares(preds, target, tuple(axis % preds.ndim for axis in axes))
    count = torch.tensor(target.numel(), device=target.device)
    if dim is not None:
        count = (count // max(1, squares.numel())).expand_as(squares)
    return squares.to(preds.dtype), count


def _squares(x: Tensor, y: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sums of squared differences over some axes; the others stay."""
    if len(axes) == x.ndim:
        whole: Tensor = weighted_ssd(x, y)
        return whole
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    shape = [x.shape[axis] for axis in kept]
    # One image of a row of pixels for each sum.
    x, y = (image.permute(*kept, *axes).flatten(0, len(kept) - 1) for image in (x, y))
    x, y = (image.reshape(image.shape[0], 1, 1, -1) for image in (x, y))
    sums: Tensor = weighted_ssd(x, y, reduction="none")
    return sums.reshape(shape)
