# SPDX-License-Identifier: Apache-2.0
"""fused-ssim: ``fused_ssim``, ``fused_ssim3d`` and ``FusedSSIMMap``, for training with splats.

The original is CUDA code that is compiled on installation; this computes wherever `sosie.ssim`
does. gsplat and others import ``fused_ssim`` by name: where it is not installed,
``sosie.patch("fused_ssim")`` puts this module in its place, and so does a file ``fused_ssim.py`` on
the path with the line ``from sosie.compat.fused_ssim import *``.

The window is the 11 x 11 Gaussian of standard deviation 1.5, the data range is 1, variances are at
least 0 and values lie in [-1, 1], as in the original from 2026 on. Only the first image gets a
gradient. Images may have any floating-point dtype.
"""

from __future__ import annotations

from torch import Tensor

from sosie.compat._planes import convention, similarity_map, values
from sosie.compat._tensors import check_tensors

__all__ = ["FusedSSIMMap", "allowed_padding", "fused_ssim", "fused_ssim3d"]

DISTRIBUTION = "fused-ssim"
VERSIONS = ">=1.0,<2"
#: Where the original is not installed, this module stands in for it.
STAND_IN = True
SEAMS = {"fused_ssim:fused_ssim": "fused_ssim", "fused_ssim:fused_ssim3d": "fused_ssim3d"}

allowed_padding = ["same", "valid"]

_C1, _C2 = 0.01**2, 0.03**2


def fused_ssim(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True) -> Tensor:
    """Mean structural similarity of two batches of images, as ``fused_ssim.fused_ssim``.

    Parameters
    ----------
    img1, img2 : Tensor, shape (N, C, H, W)
        Values in [0, 1]. Differentiable in the first.
    padding : {"same", "valid"}
        Surround the images with zeros, or keep what lies inside.
    train : bool
        Whether a gradient will be wanted.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    AssertionError
        The padding is unknown.
    NotCovered
        Dtypes, devices or shapes that sosie does not compute.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.fused_ssim import fused_ssim
    >>> image = torch.rand(1, 3, 16, 16)
    >>> round(float(fused_ssim(image, image)), 6)
    1.0
    """
    return _mean(img1, img2, padding, train, 2)


def fused_ssim3d(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True) -> Tensor:
    """Mean structural similarity of volumes ``(N, C, D, H, W)``; see `fused_ssim`.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.fused_ssim import fused_ssim3d
    >>> volume = torch.rand(1, 1, 12, 13, 14)
    >>> round(float(fused_ssim3d(volume, volume, padding="valid")), 6)
    1.0
    """
    return _mean(img1, img2, padding, train, 3)


class FusedSSIMMap:
    """The map that `fused_ssim` averages; called as the original's autograd function is."""

    @staticmethod
    def apply(
        C1: float,
        C2: float,
        img1: Tensor,
        img2: Tensor,
        padding: str = "same",
        train: bool = True,
        spatial_dims: int = 2,
    ) -> Tensor:
        """Map of the similarity, with constants of one's own.

        Parameters
        ----------
        C1, C2 : float
            Constants of the index, in squared units of the images.
        img1, img2, padding, train
            As for `fused_ssim`.
        spatial_dims : {2, 3}

        Returns
        -------
        Tensor, shape (N, C, *map)

        Raises
        ------
        AssertionError, NotCovered
            As for `fused_ssim`.

        Examples
        --------
        >>> import torch
        >>> from sosie.compat.fused_ssim import FusedSSIMMap
        >>> image = torch.rand(1, 3, 16, 16)
        >>> FusedSSIMMap.apply(1e-4, 9e-4, image, image, "valid").shape
        torch.Size([1, 3, 6, 6])
        """
        img1, img2 = _images(img1, img2, train, spatial_dims)
        return similarity_map(img1, img2, _convention(C1, C2, padding), 1.0).to(img1.dtype)


def _mean(img1: Tensor, img2: Tensor, padding: str, train: bool, spatial_dims: int) -> Tensor:
    img1, img2 = _images(img1, img2, train, spatial_dims)
    return values(img1, img2, _convention(_C1, _C2, padding), 1.0).mean().to(img1.dtype)


def _images(img1: Tensor, img2: Tensor, train: bool, spatial_dims: int) -> tuple[Tensor, Tensor]:
    """Both images, cut off from what has no gradient in the original."""
    for image in (img1, img2):
        if image.ndim != spatial_dims + 2:
            raise RuntimeError(
                f"expected images with a batch, a channel and {spatial_dims} spatial axes, "
                f"got {tuple(image.shape)}"
            )
    if img1.shape != img2.shape:
        raise RuntimeError(
            f"expected images of equal shape, got {tuple(img1.shape)} and {tuple(img2.shape)}"
        )
    check_tensors(img1, img2)
    return img1 if train else img1.detach(), img2.detach()


def _convention(C1: float, C2: float, padding: str) -> str:
    if padding not in allowed_padding:
        raise AssertionError(f"expected padding out of {allowed_padding}, got {padding!r}")
    return convention("fused-ssim" if padding == "same" else "fused-ssim-valid", c1=C1, c2=C2)
