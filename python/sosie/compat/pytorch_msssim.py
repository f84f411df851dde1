# SPDX-License-Identifier: Apache-2.0
"""pytorch-msssim 1.0: ``ssim``, ``ms_ssim``, ``SSIM``, ``MS_SSIM``.

Covered are images and volumes, any window of odd size up to 33 whose channels are alike, all
options. Windows are single precision, as there, also for float64 images. Images of half precision
are computed in single precision, which the original does not do.

Traps that are kept: the data range is 255 unless given; axes of one pixel are dropped; an axis
shorter than the window is not filtered, with a warning; the least size of `ms_ssim` is that of five
scales, however many weights there are.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from sosie.compat._coverage import NotCovered
from sosie.compat._planes import convention, multi_scale, values
from sosie.compat._tensors import check_tensors, constants
from sosie.spec import WANG2003_WEIGHTS

__all__ = ["MS_SSIM", "SSIM", "ms_ssim", "ssim"]

DISTRIBUTION = "pytorch-msssim"
VERSIONS = ">=1.0,<1.1"
SEAMS = {
    "pytorch_msssim:ssim": "ssim",
    "pytorch_msssim:ms_ssim": "ms_ssim",
    "pytorch_msssim.ssim:ssim": "ssim",
    "pytorch_msssim.ssim:ms_ssim": "ms_ssim",
    "pytorch_msssim.ssim:_ssim": "_ssim",
}

_K = (0.01, 0.03)


def ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    K: tuple[float, float] | list[float] = _K,
    nonnegative_ssim: bool = False,
) -> Tensor:
    """Structural similarity, as ``pytorch_msssim.ssim``.

    Parameters
    ----------
    X, Y : Tensor, shape (N, C, H, W) or (N, C, D, H, W)
        Floating-point images, differentiable.
    data_range : float
        Difference between the largest and the smallest value a pixel can have.
    size_average : bool
        The mean over all images; else one value per image ``(N,)``.
    win_size, win_sigma : int, float
        Pixels along each side, and standard deviation, of the Gaussian window.
    win : Tensor, shape (C, 1, [1,] 1, size), optional
        A window for all axes, in place of the Gaussian.
    K : pair of float
        Constants K1 and K2.
    nonnegative_ssim : bool
        The mean over a channel is at least 0.

    Returns
    -------
    Tensor
        Of the dtype of X.

    Raises
    ------
    ValueError
        Shapes differ, or have other than 4 or 5 axes; the window's size is even.
    RuntimeError
        The window is for another number of channels.
    NotCovered
        Dtypes, devices or windows that sosie does not compute.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.pytorch_msssim import ssim
    >>> image = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    >>> round(float(ssim(image, 1 - image, data_range=1)), 4)
    0.1725
    """
    X, Y = _squeezed(X, Y)
    _check_axes(X)
    per_channel = _values(X, Y, data_range, _window(X, win_size, win_sigma, win), K, "ssim")
    if nonnegative_ssim:
        per_channel = torch.relu(per_channel)
    return per_channel.mean() if size_average else per_channel.mean(1)


def ms_ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    weights: list[float] | None = None,
    K: tuple[float, float] | list[float] = _K,
) -> Tensor:
    """Multi-scale structural similarity, as ``pytorch_msssim.ms_ssim``.

    Parameters
    ----------
    X, Y, data_range, size_average, win_size, win_sigma, win, K
        As for `ssim`.
    weights : list of float, optional
        Exponents of the scales, finest first; by default the five of Wang et al. 2003.

    Returns
    -------
    Tensor
        Of the dtype of X.

    Raises
    ------
    AssertionError
        Height or width is at most 16 times the window's size less 1.
    ValueError, RuntimeError, NotCovered
        As for `ssim`.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.pytorch_msssim import ms_ssim
    >>> image = torch.rand(1, 1, 161, 170)
    >>> round(float(ms_ssim(image, image, data_range=1)), 6)
    1.0
    """
    X, Y = _squeezed(X, Y)
    _check_axes(X)
    taps = _window(X, win_size, win_sigma, win)
    least = (len(taps) - 1) * 16
    if min(X.shape[-2:]) <= least:
        raise AssertionError(
            f"expected images larger than {least} pixels, for the 4 reductions of ms_ssim, "
            f"got {tuple(X.shape)}"
        )
    if any(size < len(taps) for size in X.shape[2:]):
        raise NotCovered(f"sosie filters every axis of ms_ssim, got shape {tuple(X.shape)}")
    spec = _convention((taps,), K)
    spec = convention(spec, scale_weights=tuple(WANG2003_WEIGHTS if weights is None else weights))
    check_tensors(X, Y)
    per_image = multi_scale(X, Y, spec, data_range).to(X.dtype)
    return per_image.mean() if size_average else per_image


class _Similarity(torch.nn.Module):
    """What both modules share. Their window follows from its size and standard deviation."""

    def __init__(
        self,
        data_range: float,
        size_average: bool,
        win_size: int,
        win_sigma: float,
        channel: int,
        spatial_dims: int,
        K: tuple[float, float] | list[float],
    ) -> None:
        super().__init__()
        self.win_size = win_size
        self.size_average = size_average
        self.data_range = data_range
        self.K = K
        self._win_sigma = win_sigma
        self._win_shape = (channel, *(1,) * spatial_dims, win_size)

    @property
    def win(self) -> Tensor:
        """The window, of shape ``(channel, 1, [1,] 1, win_size)``."""
        return _fspecial_gauss_1d(self.win_size, self._win_sigma).expand(self._win_shape)

    def _check_channels(self, X: Tensor) -> None:
        if X.ndim > 1 and X.shape[1] != self._win_shape[0]:
            raise RuntimeError(
                f"expected images with {self._win_shape[0]} channels, got {tuple(X.shape)}"
            )


class SSIM(_Similarity):
    """`ssim` as a module, with ``pytorch_msssim.SSIM``'s arguments.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.pytorch_msssim import SSIM
    >>> image = torch.rand(1, 3, 16, 16)
    >>> round(float(SSIM(data_range=1)(image, image)), 6)
    1.0
    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        K: tuple[float, float] | list[float] = _K,
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__(data_range, size_average, win_size, win_sigma, channel, spatial_dims, K)
        self.nonnegative_ssim = nonnegative_ssim

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Similarity of X and Y; see `ssim`."""
        self._check_channels(X)
        return ssim(
            X,
            Y,
            data_range=self.data_range,
            size_average=self.size_average,
            win_size=self.win_size,
            win_sigma=self._win_sigma,
            K=self.K,
            nonnegative_ssim=self.nonnegative_ssim,
        )


class MS_SSIM(_Similarity):
    """`ms_ssim` as a module, with ``pytorch_msssim.MS_SSIM``'s arguments.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.pytorch_msssim import MS_SSIM
    >>> image = torch.rand(1, 3, 161, 161)
    >>> round(float(MS_SSIM(data_range=1)(image, image)), 6)
    1.0
    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: list[float] | None = None,
        K: tuple[float, float] | list[float] = _K,
    ) -> None:
        super().__init__(data_range, size_average, win_size, win_sigma, channel, spatial_dims, K)
        self.weights = weights

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Similarity of X and Y; see `ms_ssim`."""
        self._check_channels(X)
        return ms_ssim(
            X,
            Y,
            data_range=self.data_range,
            size_average=self.size_average,
            win_size=self.win_size,
            win_sigma=self._win_sigma,
            weights=self.weights,
            K=self.K,
        )


def _ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float,
    win: Tensor,
    size_average: bool = True,  # noqa: ARG001
    K: tuple[float, float] | list[float] = _K,
) -> tuple[Tensor, Tensor]:
    """Mean similarity and contrast-structure of every plane, ``(N, C)`` each."""
    taps = _window(X, 0, 0.0, win)
    return _values(X, Y, data_range, taps, K, "ssim"), _values(X, Y, data_range, taps, K, "cs")


# --- Checks ---------------------------------------------------------------------------------------


def _squeezed(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Both images without spatial axes of one pixel."""
    if X.shape != Y.shape:
        raise ValueError(
            f"expected images of equal shape, got {tuple(X.shape)} and {tuple(Y.shape)}"
        )
    single = tuple(axis for axis in range(2, X.ndim) if X.shape[axis] == 1)
    return (X.squeeze(single), Y.squeeze(single)) if single else (X, Y)


def _check_axes(X: Tensor) -> None:
    if X.ndim not in (4, 5):
        raise ValueError(f"expected images with 4 or 5 axes, got shape {tuple(X.shape)}")


def _window(X: Tensor, win_size: int, win_sigma: float, win: Tensor | None) -> tuple[float, ...]:
    """Weights of the window along one axis, in the images' precision."""
    size = win_size if win is None else win.shape[-1]
    if size % 2 != 1:
        raise ValueError(f"expected a window of odd size, got {size}")
    if win is None:
        return _gaussian_taps(size, win_sigma, X.dtype)
    if any(length != 1 for length in win.shape[1:-1]):
        raise AssertionError(f"expected a window of shape (C, 1, ..., size), got {win.shape}")
    if win.shape[0] != X.shape[1]:
        raise RuntimeError(f"expected a window for {X.shape[1]} channels, got {tuple(win.shape)}")
    rows = [constants(row) for row in win.detach().to(X.dtype).reshape(-1, size)]
    if win.requires_grad or any(row != rows[0] for row in rows):
        raise NotCovered("sosie computes with one constant window for all channels")
    return rows[0]


def _gaussian_taps(size: int, sigma: float, dtype: torch.dtype) -> tuple[float, ...]:
    return _rounded_taps(size, sigma, dtype)


@lru_cache(maxsize=64)
def _rounded_taps(size: int, sigma: float, dtype: torch.dtype) -> tuple[float, ...]:
    with unset_fake_temporarily():  # a tensor without numbers has no list of them
        return tuple(_fspecial_gauss_1d(size, sigma).to(dtype).flatten().tolist())


def _fspecial_gauss_1d(size: int, sigma: float) -> Tensor:
    """Gaussian window in single precision, shape ``(1, 1, size)``."""
    offsets = torch.arange(size, dtype=torch.float32) - size // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    return (weights / weights.sum()).reshape(1, 1, size)


def _convention(taps: tuple[tuple[float, ...], ...], K: tuple[float, float] | list[float]) -> str:
    K1, K2 = K
    return convention("pytorch-msssim", window="custom", taps=taps, k1=K1, k2=K2)


def _values(
    X: Tensor,
    Y: Tensor,
    data_range: float,
    taps: tuple[float, ...],
    K: tuple[float, float] | list[float],
    kind: str,
) -> Tensor:
    """Mean of every plane; axes that are shorter than the window are not filtered."""
    check_tensors(X, Y)
    per_axis = [taps] * (X.ndim - 2)
    for axis, size in enumerate(X.shape[2:]):
        if size < len(taps):
            warnings.warn(
                f"axis {axis + 2} of images of shape {tuple(X.shape)} is not filtered: it is "
                f"shorter than the window of {len(taps)}",
                stacklevel=3,
            )
            per_axis[axis] = (1.0,)
    return values(X, Y, _convention(tuple(per_axis), K), data_range, kind).to(X.dtype)


torch.compiler.assume_constant_result(_gaussian_taps)
