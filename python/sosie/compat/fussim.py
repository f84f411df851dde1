# SPDX-License-Identifier: Apache-2.0
"""fussim 0.3: ``fused_ssim`` with three window sizes, and pytorch-msssim's ``ssim`` and ``SSIM``.

The original needs a GPU; this computes wherever `sosie.ssim` does. The windows of 11 pixels agree.
For those of 7 and 9 pixels, fussim 0.3.15 has wrong weights: of 7 pixels they are those of the
standard deviation 1.0, of 9 pixels they sum to 0.54 instead of 1. The numbers here are those of the
Gaussian of standard deviation 1.5 that it says it has.

Only the first image gets a gradient. ``nonnegative_ssim`` raises every value of the map to 0, where
pytorch-msssim does so with the mean over a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sosie.compat._planes import convention, similarity_map, values
from sosie.compat._tensors import check_tensors

__all__ = ["SSIM", "SUPPORTED_WINDOW_SIZES", "FusedSSIMMap", "fused_ssim", "ssim"]

DISTRIBUTION = "fussim"
VERSIONS = ">=0.3,<0.4"
STAND_IN = True
SEAMS = {"fussim:fused_ssim": "fused_ssim", "fussim:ssim": "ssim"}

ALLOWED_PADDING = ("same", "valid")
#: Sides of the Gaussian window, in pixels.
SUPPORTED_WINDOW_SIZES = (7, 9, 11)

_K = (0.01, 0.03)


def fused_ssim(
    img1: Tensor,
    img2: Tensor,
    padding: str = "same",
    train: bool = True,
    window_size: int = 11,
) -> Tensor:
    """Mean structural similarity of images in [0, 1], as ``fussim.fused_ssim``.

    With windows of 7 and 9 pixels the original's numbers are wrong; see the module.

    Parameters
    ----------
    img1, img2 : Tensor, shape (N, C, H, W)
        Floating-point images. Differentiable in the first.
    padding : {"same", "valid"}
        Surround the images with zeros, or keep what lies inside.
    train : bool
        Whether a gradient will be wanted.
    window_size : {7, 9, 11}

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        Shapes differ, or padding or window size are unknown.
    NotCovered
        Dtypes or devices that sosie does not compute, images smaller than the window.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.fussim import fused_ssim
    >>> image = torch.rand(1, 3, 16, 16)
    >>> round(float(fused_ssim(image, image, window_size=7)), 6)
    1.0
    """
    _check(img1, img2, padding, window_size, "window_size")
    img1 = img1 if train else img1.detach()
    spec = _convention(padding, window_size)
    return values(img1, img2.detach(), spec, 1.0).mean().to(img1.dtype)


def ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    K: tuple[float, float] = _K,
    nonnegative_ssim: bool = False,
) -> Tensor:
    """Structural similarity of what lies inside the images, as ``fussim.ssim``.

    With windows of 7 and 9 pixels the original's numbers are wrong; see the module.

    Parameters
    ----------
    X, Y : Tensor, shape (N, C, H, W)
        Floating-point images. Differentiable in the first.
    data_range : float
        Difference between the largest and the smallest value a pixel can have.
    size_average : bool
        The mean over all images; else one value per image ``(N,)``.
    win_size : {7, 9, 11}
    win_sigma, win
        1.5 and None.
    K : pair of float
        Constants K1 and K2, between 0 and 1.
    nonnegative_ssim : bool
        Values of the map below 0 count as 0.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        Shapes differ, or an option has another value than these.
    NotCovered
        As for `fused_ssim`.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.fussim import ssim
    >>> image = torch.rand(2, 3, 16, 16)
    >>> ssim(image, image, data_range=1.0, size_average=False).shape
    torch.Size([2])
    """
    _check_options(win_size, win_sigma, K)
    if win is not None:
        raise ValueError("expected no window of one's own, got win")
    _check(X, Y, "valid", win_size, "win_size")
    spec = convention(_convention("valid", win_size), c1=None, c2=None, k1=K[0], k2=K[1])
    if nonnegative_ssim:
        quality = similarity_map(X, Y.detach(), spec, data_range).clamp(min=0)
        per_image = quality.mean(dim=(1, 2, 3))
    else:
        per_image = values(X, Y.detach(), spec, data_range).mean(1)
    per_image = per_image.to(X.dtype)
    return per_image.mean() if size_average else per_image


class SSIM(torch.nn.Module):
    """`ssim` as a module, with ``fussim.SSIM``'s arguments."""

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,  # noqa: ARG002
        spatial_dims: int = 2,
        K: tuple[float, float] = _K,
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__()
        _check_options(win_size, win_sigma, K)
        if spatial_dims != 2:
            raise ValueError(f"expected spatial_dims 2, got {spatial_dims}")
        self.data_range = data_range
        self.size_average = size_average
        self.win_size = win_size
        self.K = tuple(K)
        self.nonnegative_ssim = nonnegative_ssim

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Similarity of X and Y; see `ssim`."""
        K1, K2 = self.K
        return ssim(
            X,
            Y,
            data_range=self.data_range,
            size_average=self.size_average,
            win_size=self.win_size,
            K=(K1, K2),
            nonnegative_ssim=self.nonnegative_ssim,
        )


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
        window_size: int = 11,
    ) -> Tensor:
        """Map of the similarity ``(N, C, H', W')``, with constants of one's own."""
        _check(img1, img2, padding, window_size, "window_size")
        img1 = img1 if train else img1.detach()
        spec = convention(_convention(padding, window_size), c1=C1, c2=C2)
        return similarity_map(img1, img2.detach(), spec, 1.0).to(img1.dtype)


def _check(img1: Tensor, img2: Tensor, padding: str, window_size: int, name: str) -> None:
    if img1.shape != img2.shape or img1.ndim != 4:
        raise ValueError(
            "expected images of equal shape (N, C, H, W), "
            f"got {tuple(img1.shape)} and {tuple(img2.shape)}"
        )
    if padding not in ALLOWED_PADDING:
        raise ValueError(f"expected padding out of {ALLOWED_PADDING}, got {padding!r}")
    if window_size not in SUPPORTED_WINDOW_SIZES:
        raise ValueError(f"expected {name} out of {SUPPORTED_WINDOW_SIZES}, got {window_size!r}")
    check_tensors(img1, img2)


def _check_options(win_size: int, win_sigma: float, K: tuple[float, float]) -> None:
    if win_size not in SUPPORTED_WINDOW_SIZES:
        raise ValueError(f"expected win_size out of {SUPPORTED_WINDOW_SIZES}, got {win_size!r}")
    if win_sigma != 1.5:
        raise ValueError(f"expected win_sigma 1.5, got {win_sigma!r}")
    if not (isinstance(K, (tuple, list)) and len(K) == 2 and all(0 < k < 1 for k in K)):
        raise ValueError(f"expected two constants K between 0 and 1, got {K!r}")


def _convention(padding: str, window_size: int) -> str:
    name = "fused-ssim" if padding == "same" else "fused-ssim-valid"
    return convention(name, window_size=window_size)
