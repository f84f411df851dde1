# SPDX-License-Identifier: Apache-2.0
"""A convolutional variational autoencoder whose reconstruction error can be chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sosie.nn import SSIMLoss, WeightedSSDLoss
from sosie.zoo.densities import bernoulli_nll, gaussian_nll
from sosie.zoo.gaussian_autoencoder import GaussianAutoencoder
from sosie.zoo.registry import register_model

__all__ = ["ConvolutionalVAE", "ConvolutionalVAEConfig", "local_precision"]

_RECONSTRUCTIONS = ("bce", "mse", "ssim", "wssd")
#: SSIM's C2 for images in [0, 1]: (0.03)^2.
_C2 = 0.03**2


@dataclass(frozen=True)
class ConvolutionalVAEConfig:
    """How a :class:`ConvolutionalVAE` is built and trained.

    Attributes
    ----------
    image_shape : tuple of int
        Channels, height and width; the sides are multiples of ``2 ** levels``.
    width : int
        Channels at half resolution; twice as many at each lower one.
    levels : int
        Halvings of the resolution.
    latent : int
        Numbers in a code.
    reconstruction : {"bce", "mse", "ssim", "wssd"}
        Cross entropy; Gaussian likelihood; one minus SSIM, times the number of samples of an image;
        squared error over ``2 sigma^2``, weighted by :func:`local_precision`.
    sigma : float
        Standard deviation for "mse" and "wssd".
    beta : float
        Weight of the divergence.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    width: int = 32
    levels: int = 2
    latent: int = 64
    reconstruction: str = "bce"
    sigma: float = 0.1
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.reconstruction not in _RECONSTRUCTIONS:
            raise ValueError(
                f"expected a reconstruction out of {', '.join(_RECONSTRUCTIONS)}, "
                f"got {self.reconstruction!r}"
            )
        if any(side % 2**self.levels for side in self.image_shape[1:]):
            raise ValueError(
                f"expected sides that are multiples of {2**self.levels} for {self.levels} levels, "
                f"got image_shape={self.image_shape}"
            )


@register_model("vae_conv")
class ConvolutionalVAE(GaussianAutoencoder):
    """Variational autoencoder of strided convolutions; called with images of ``image_shape``.

    Examples
    --------
    >>> model = ConvolutionalVAE(ConvolutionalVAEConfig(width=8, latent=4))
    >>> model(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """

    Config = ConvolutionalVAEConfig

    def __init__(self, config: ConvolutionalVAEConfig) -> None:
        super().__init__(config)
        channels, height, width = config.image_shape
        widths = [config.width * 2**level for level in range(config.levels)]
        lowest = (widths[-1], height >> config.levels, width >> config.levels)
        encoder: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            encoder += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.SiLU()]
        self.encoder = nn.Sequential(
            *encoder, nn.Flatten(1), nn.Linear(math.prod(lowest), 2 * config.latent)
        )
        decoder: list[nn.Module] = []
        for before, after in zip(widths[::-1], [*widths[-2::-1], channels], strict=True):
            decoder += [nn.SiLU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
        self.decoder = nn.Sequential(
            nn.Linear(config.latent, math.prod(lowest)), nn.Unflatten(1, lowest), *decoder
        )
        self._ssim = SSIMLoss(data_range=1.0)
        self._weighted_ssd = WeightedSSDLoss(reduction="sum")

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {"batch": 64, "learning_rate": 1e-3}

    @property
    def has_likelihood(self) -> bool:
        """See :attr:`GaussianAutoencoder.has_likelihood`."""
        return self.config.reconstruction in ("bce", "mse")

    @property
    def has_density(self) -> bool:
        """See :attr:`GaussianAutoencoder.has_density`."""
        return bool(self.config.reconstruction == "mse")

    def nll(self, codes: Tensor, images: Tensor) -> Tensor:
        """See :meth:`GaussianAutoencoder.nll`."""
        kind = self.config.reconstruction
        if kind == "bce":
            return bernoulli_nll(self.decoder(codes), images)
        if kind == "mse":
            return gaussian_nll(self.decode(codes), images, self.config.sigma)
        raise ValueError(f"a likelihood needs the reconstruction bce or mse, got {kind!r}")

    def reconstruction_error(self, codes: Tensor, images: Tensor) -> Tensor:
        """See :meth:`GaussianAutoencoder.reconstruction_error`."""
        kind = self.config.reconstruction
        if kind not in ("ssim", "wssd"):
            return super().reconstruction_error(codes, images)
        error: Tensor
        decoded = self.decode(codes)
        if kind == "ssim":
            error = self._ssim(decoded, images) * images[0].numel()
        else:
            error = self._weighted_ssd(decoded, images, local_precision(images))
            error = error / (2 * self.config.sigma**2 * images.shape[0])
        return error


def local_precision(images: Tensor) -> Tensor:
    """Weights that make of squared differences what SSIM makes of them where means agree.

    There, one minus SSIM is the mean squared error in a window over ``v_x + v_y + C2``, with the
    variances in that window. With the target's variance for both, and a 7 x 7 mean for the window,
    that is a weight per pixel, ``1 / (2 v + C2)``; it is scaled to a mean of 1 for each image.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W)
        In [0, 1].

    Returns
    -------
    Tensor, shape (N, C, H, W)

    Examples
    --------
    >>> weights = local_precision(torch.rand(2, 1, 16, 16))
    >>> bool((weights.mean((1, 2, 3)) - 1).abs().max() < 1e-5)
    True
    """

    def local_mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 7, stride=1, padding=3, count_include_pad=False)

    variance = (local_mean(images.square()) - local_mean(images).square()).clamp(min=0.0)
    weights = 1 / (2 * variance + _C2)
    return weights / weights.mean((1, 2, 3), keepdim=True)
