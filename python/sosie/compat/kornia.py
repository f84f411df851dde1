# SPDX-License-Identifier: Apache-2.0
"""kornia 0.9: maps and losses of structural similarity, for images and volumes.

``metrics`` and ``losses`` hold them by the original's modules: ``kornia.metrics.ssim``.

Covered are windows up to 33 pixels and all options but complex images. `MS_SSIMLoss` is the loss of
Zhao et al. with one Gaussian per scale at full resolution, as kornia computes it from 0.9 on;
standard deviations up to 8 fit.

A loss with the reduction "mean" or "sum" does not form the map: where it is out of [-1, 1] by
rounding, the original clamps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sosie.compat._coverage import NotCovered, error_of
from sosie.compat._planes import convention, similarity_map, values
from sosie.compat._tensors import check_tensors, constants
from sosie.spec import MAX_WINDOW_SIZE

__all__ = [
    "SSIM",
    "SSIM3D",
    "MS_SSIMLoss",
    "SSIM3DLoss",
    "SSIMLoss",
    "losses",
    "metrics",
    "ssim",
    "ssim3d",
    "ssim3d_loss",
    "ssim_loss",
]

DISTRIBUTION = "kornia"
VERSIONS = ">=0.9,<0.10"
SEAMS = {
    "kornia.metrics:ssim": "ssim",
    "kornia.metrics.ssim:ssim": "ssim",
    "kornia.metrics:ssim3d": "ssim3d",
    "kornia.metrics.ssim3d:ssim3d": "ssim3d",
    "kornia.losses:ssim_loss": "ssim_loss",
    "kornia.losses.ssim:ssim_loss": "ssim_loss",
    "kornia.losses:ssim3d_loss": "ssim3d_loss",
    "kornia.losses.ssim3d:ssim3d_loss": "ssim3d_loss",
    "kornia.losses.ms_ssim:MS_SSIMLoss._compute_loss": "_compute_loss",
}


def ssim(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    padding: str = "same",
) -> Tensor:
    """Map of the structural similarity, as ``kornia.metrics.ssim``.

    Parameters
    ----------
    img1, img2 : Tensor, shape (N, C, H, W)
        Images of any real dtypes, differentiable.
    window_size : int
        Size of the Gaussian window, whose standard deviation is 1.5; odd.
    max_val : float
        Difference between the largest and the smallest value a pixel can have. An int is refused.
    eps : float
        Added to the denominator.
    padding : {"same", "valid"}
        Mirror the images at their borders, or keep what lies inside.

    Returns
    -------
    Tensor, shape (N, C, H', W')
        Of the dtype that both promote to.

    Raises
    ------
    TypeError
        Images are no tensors, ``max_val`` is no float.
    ValueError
        Shapes differ or have other than 4 axes.
    kornia.core.exceptions.BaseError
        The padding is unknown; a ValueError where kornia is not installed.
    NotCovered
        Dtypes, devices or windows that sosie does not compute, and images smaller than the window.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.kornia import ssim
    >>> image = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    >>> quality = ssim(image, 1 - image, window_size=11)
    >>> quality.shape, round(float(quality.mean()), 4)
    (torch.Size([1, 3, 32, 32]), 0.1939)
    """
    _check_images(img1, img2, max_val)
    return _map(img1, img2, window_size, max_val, eps, padding)


def ssim3d(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    padding: str = "same",
) -> Tensor:
    """Map of the structural similarity of volumes, as ``kornia.metrics.ssim3d``.

    Parameters, results and errors are those of `ssim`, with shapes ``(N, C, D, H, W)``; wrong
    shapes and types are kornia's ``ShapeError``, ``TypeCheckError`` and ``BaseError``.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.kornia import ssim3d
    >>> volume = torch.rand(1, 1, 8, 9, 10)
    >>> ssim3d(volume, volume, window_size=5, padding="valid").shape
    torch.Size([1, 1, 4, 5, 6])
    """
    _check_volumes(img1, img2, max_val)
    return _map(img1, img2, window_size, max_val, eps, padding)


def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """Half of one minus the structural similarity, as ``kornia.losses.ssim_loss``.

    Parameters
    ----------
    img1, img2, window_size, max_val, eps, padding
        As for `ssim`.
    reduction : {"mean", "sum", "none"}
        Of the map.

    Returns
    -------
    Tensor
        A scalar, or the map of the loss.

    Raises
    ------
    NotImplementedError
        The reduction is unknown.
    TypeError, ValueError, kornia.core.exceptions.BaseError, NotCovered
        As for `ssim`.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.kornia import ssim_loss
    >>> image = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    >>> round(float(ssim_loss(image, 1 - image, window_size=11)), 4)
    0.4031
    """
    _check_images(img1, img2, max_val)
    return _loss(img1, img2, window_size, max_val, eps, reduction, padding)


def ssim3d_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """Half of one minus the structural similarity of volumes, as ``kornia.losses.ssim3d_loss``.

    Parameters, results and errors are those of `ssim_loss` and `ssim3d`.
    """
    _check_volumes(img1, img2, max_val)
    return _loss(img1, img2, window_size, max_val, eps, reduction, padding)


class _Similarity(nn.Module):
    """What `SSIM` and `SSIM3D` share."""

    def __init__(
        self, window_size: int, max_val: float = 1.0, eps: float = 1e-12, padding: str = "same"
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.max_val = max_val
        self.eps = eps
        self.padding = padding


class SSIM(_Similarity):
    """`ssim` as a module."""

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Map of both images; see `ssim`."""
        return ssim(img1, img2, self.window_size, self.max_val, self.eps, self.padding)


class SSIM3D(_Similarity):
    """`ssim3d` as a module."""

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Map of both volumes; see `ssim3d`."""
        return ssim3d(img1, img2, self.window_size, self.max_val, self.eps, self.padding)


class _SimilarityLoss(nn.Module):
    """What `SSIMLoss` and `SSIM3DLoss` share."""

    def __init__(
        self,
        window_size: int,
        max_val: float = 1.0,
        eps: float = 1e-12,
        reduction: str = "mean",
        padding: str = "same",
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.max_val = max_val
        self.eps = eps
        self.reduction = reduction
        self.padding = padding


class SSIMLoss(_SimilarityLoss):
    """`ssim_loss` as a module.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.kornia import SSIMLoss
    >>> image = torch.rand(1, 3, 16, 16)
    >>> round(float(SSIMLoss(5)(image, image)), 5)
    0.0
    """

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Loss of both images; see `ssim_loss`."""
        return ssim_loss(
            img1, img2, self.window_size, self.max_val, self.eps, self.reduction, self.padding
        )


class SSIM3DLoss(_SimilarityLoss):
    """`ssim3d_loss` as a module."""

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Loss of both volumes; see `ssim3d_loss`."""
        return ssim3d_loss(
            img1, img2, self.window_size, self.max_val, self.eps, self.reduction, self.padding
        )


class MS_SSIMLoss(nn.Module):
    """Multi-scale structural similarity and L1, as ``kornia.losses.MS_SSIMLoss``.

    ``compensation * (alpha * (1 - MS) + (1 - alpha) * G * |x - y| / data_range)``, where MS is a
    product over windows of all standard deviations, and G the window of the last one.

    Parameters
    ----------
    sigmas : sequence of float
        Standard deviations, the coarsest last; it sets the size of all windows.
    data_range : float
        Difference between the largest and the smallest value a pixel can have.
    K : pair of float
        Constants of the index.
    alpha, compensation : float
        Weight of the similarity, and of the whole.
    reduction : {"mean", "sum", "none"}
        Of the map ``(N, H, W)``.

    Raises
    ------
    TypeError, ValueError
        When called: images are no tensors, or of other than 4 axes.
    kornia.core.exceptions.ShapeError
        When called: shapes differ, but for one batch of 1.
    NotImplementedError
        When called: the reduction is unknown.
    NotCovered
        When called: dtypes or devices that sosie does not compute, windows above 33 pixels.

    Notes
    -----
    Zhao, Gallo, Frosio, Kautz, "Loss functions for image restoration with neural networks", IEEE
    Transactions on Computational Imaging 3(1), 2017.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.kornia import MS_SSIMLoss
    >>> image = torch.rand(1, 3, 40, 40)
    >>> round(float(MS_SSIMLoss()(image, image)), 4)
    0.0
    """

    def __init__(
        self,
        sigmas: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
        data_range: float = 1.0,
        K: tuple[float, float] = (0.01, 0.03),
        alpha: float = 0.025,
        compensation: float = 200.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.DR = data_range
        self.C1 = (K[0] * data_range) ** 2
        self.C2 = (K[1] * data_range) ** 2
        self.pad = int(2 * sigmas[-1])
        self.alpha = alpha
        self.compensation = compensation
        self.reduction = reduction
        self.num_scales = len(sigmas)
        self._taps = [_gaussian(2 * self.pad + 1, sigma) for sigma in sigmas]

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Loss of both images; see the class."""
        _check_tensors(img1, img2)
        if img1.ndim != 4 or img2.ndim != 4:
            raise ValueError(
                "expected images of shape (N, C, H, W), "
                f"got {tuple(img1.shape)} and {tuple(img2.shape)}"
            )
        batches = {img1.shape[0], img2.shape[0]} - {1}
        if img1.shape[1:] != img2.shape[1:] or len(batches) > 1:
            raise _error("ShapeError")(
                "expected images of equal shape, but for a batch of 1, "
                f"got {tuple(img1.shape)} and {tuple(img2.shape)}"
            )
        img1, img2, dtype = _promoted(img1, img2)
        return _multi_scale_loss(self, img1, img2, self._taps).to(dtype)


#: kornia's modules of the same names.
metrics = SimpleNamespace(ssim=ssim, ssim3d=ssim3d, SSIM=SSIM, SSIM3D=SSIM3D)
losses = SimpleNamespace(
    ssim_loss=ssim_loss,
    ssim3d_loss=ssim3d_loss,
    SSIMLoss=SSIMLoss,
    SSIM3DLoss=SSIM3DLoss,
    MS_SSIMLoss=MS_SSIMLoss,
)


# --- Computation ----------------------------------------------------------------------------------


def _map(
    img1: Tensor, img2: Tensor, window_size: int, max_val: float, eps: float, padding: str
) -> Tensor:
    spec = _convention(window_size, eps, padding)
    img1, img2, dtype = _promoted(img1, img2)
    return similarity_map(img1, img2, spec, max_val).to(dtype)


def _loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float,
    eps: float,
    reduction: str,
    padding: str,
) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise NotImplementedError(
            f"expected a reduction out of 'mean', 'sum', 'none', got {reduction!r}"
        )
    if reduction == "none":
        quality = _map(img1, img2, window_size, max_val, eps, padding)
        return ((1.0 - quality) / 2).clamp(0, 1)
    spec = _convention(window_size, eps, padding)
    img1, img2, dtype = _promoted(img1, img2)
    loss = (1.0 - values(img1, img2, spec, max_val).mean()) / 2
    if reduction == "sum":
        margin = 2 * (window_size // 2) if str(padding).lower() == "valid" else 0
        positions = img1.shape[:2].numel()
        for size in img1.shape[2:]:
            positions *= size - margin
        loss = loss * positions
    return loss.clamp(min=0).to(dtype)


def _compute_loss(self: Any, img1: Tensor, img2: Tensor, g_masks: Tensor) -> Tensor:
    """Loss of kornia's own `MS_SSIMLoss`, for images and masks of one dtype."""
    return _multi_scale_loss(self, img1, img2, _scales(self, g_masks))


def _multi_scale_loss(
    self: MS_SSIMLoss, img1: Tensor, img2: Tensor, taps: Sequence[tuple[float, ...]]
) -> Tensor:
    """Loss of images of one dtype, with one window per scale, finest first."""
    if len(taps[-1]) > MAX_WINDOW_SIZE:
        raise NotCovered(
            f"sosie computes windows up to {MAX_WINDOW_SIZE} pixels, got {len(taps[-1])}"
        )
    if img1.shape[0] != img2.shape[0]:
        img1, img2 = torch.broadcast_tensors(img1, img2)
    check_tensors(img1, img2)
    product: Any = 1.0
    for scale, window in enumerate(taps):
        spec = convention(
            "wang2004",
            window="custom", taps=(window,), border="zero", c1=self.C1, c2=self.C2,
        )  # fmt: skip
        # The coarsest scale has luminance, too.
        kind = "ssim" if scale == len(taps) - 1 else "cs"
        product = product * similarity_map(img1, img2, spec, self.DR, kind)
    dissimilarity = 1 - product.mean(dim=1)
    absolute = _filtered((img1 - img2).abs().mean(dim=1, keepdim=True), taps[-1])[:, 0]
    loss = self.alpha * dissimilarity + (1 - self.alpha) * absolute / self.DR
    loss = self.compensation * loss
    if self.reduction not in ("mean", "sum", "none"):
        raise NotImplementedError(
            f"expected a reduction out of 'mean', 'sum', 'none', got {self.reduction!r}"
        )
    reduced: Tensor = {"none": lambda: loss, "mean": loss.mean, "sum": loss.sum}[self.reduction]()
    return reduced


def _scales(loss: Any, g_masks: Tensor) -> list[tuple[float, ...]]:
    """One-dimensional windows of all scales, finest first, from their outer products."""
    planes = g_masks.detach()[: loss.num_scales, 0].double()
    return [constants(plane.sum(0) / plane.sum().sqrt()) for plane in planes]


def _filtered(planes: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Planes ``(N, 1, H, W)`` under a window, with zeros around them."""
    window = torch.tensor(taps, dtype=planes.dtype, device=planes.device)
    radius = len(taps) // 2
    with torch.autocast(planes.device.type, enabled=False):
        rows = F.conv2d(planes, window.view(1, 1, -1, 1), padding=(radius, 0))
        filtered: Tensor = F.conv2d(rows, window.view(1, 1, 1, -1), padding=(0, radius))
    return filtered


def _gaussian(size: int, sigma: float) -> tuple[float, ...]:
    """A window in single precision, as kornia has it."""
    offsets = torch.arange(size) - size // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    return constants(weights / weights.sum())


def _convention(window_size: int, eps: float, padding: str) -> str:
    name = str(padding).lower()
    if name not in ("same", "valid"):
        raise _error("BaseError")(f"expected padding out of 'same', 'valid', got {padding!r}")
    if not isinstance(window_size, int):
        raise NotCovered(f"sosie takes one window_size for all axes, got {window_size!r}")
    spec = "kornia" if name == "same" else "kornia-valid"
    return convention(spec, window_size=window_size, epsilon=eps)


# --- Checks ---------------------------------------------------------------------------------------


def _check_tensors(img1: Tensor, img2: Tensor) -> None:
    for image in (img1, img2):
        if not isinstance(image, Tensor):
            raise TypeError(f"expected tensors, got {type(image)}")


def _check_range(max_val: float) -> None:
    if not isinstance(max_val, float):
        raise TypeError(f"expected max_val to be a float, got {max_val!r}")


def _check_images(img1: Tensor, img2: Tensor, max_val: float) -> None:
    _check_tensors(img1, img2)
    _check_range(max_val)
    if img1.ndim != 4 or img1.shape != img2.shape:
        raise ValueError(
            "expected images of equal shape (N, C, H, W), "
            f"got {tuple(img1.shape)} and {tuple(img2.shape)}"
        )


def _check_volumes(img1: Tensor, img2: Tensor, max_val: float) -> None:
    for image in (img1, img2):
        if not isinstance(image, Tensor):
            raise _error("TypeCheckError", TypeError)(f"expected tensors, got {type(image)}")
        if image.ndim != 5:
            raise _error("ShapeError")(
                f"expected volumes of shape (N, C, D, H, W), got {tuple(image.shape)}"
            )
    if img1.shape != img2.shape:
        raise _error("BaseError")(
            f"expected volumes of equal shape, got {tuple(img1.shape)} and {tuple(img2.shape)}"
        )
    _check_range(max_val)


def _promoted(img1: Tensor, img2: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Both images in the dtype that is computed in, and the dtype of the result."""
    img1, img2 = (
        image if image.is_floating_point() or image.is_complex() else image.float()
        for image in (img1, img2)
    )
    dtype = torch.promote_types(img1.dtype, img2.dtype)
    computed = torch.promote_types(dtype, torch.float32)
    img1, img2 = img1.to(computed), img2.to(computed)
    check_tensors(img1, img2)
    return img1, img2, dtype


def _error(name: str, otherwise: type[Exception] = ValueError) -> type[Exception]:
    return error_of("kornia.core.exceptions", name, otherwise)
