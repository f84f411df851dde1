# SPDX-License-Identifier: Apache-2.0
"""A variational autoencoder of linear layers.

Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014: 784 -> 1024 -> 128 means and 128
log-variances, and 128 -> 1024 -> 784. The smaller network of Burda, Grosse, Salakhutdinov,
"Importance weighted autoencoders", ICLR 2016, is ``hidden=200, layers=2, activation="tanh",
latent=50, binarise=True``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sosie.zoo.densities import bernoulli_nll, gaussian_nll
from sosie.zoo.gaussian_autoencoder import GaussianAutoencoder
from sosie.zoo.noise import Noise
from sosie.zoo.registry import register_model

__all__ = ["VAEMLP", "VAEMLPConfig"]

_LIKELIHOODS = ("bernoulli", "gaussian")
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


@dataclass(frozen=True)
class VAEMLPConfig:
    """How a :class:`VAEMLP` is built and trained.

    Attributes
    ----------
    image_shape : tuple of int
        Channels, height and width.
    hidden, latent : int
        Width of the hidden layers, numbers in a code.
    layers : int
        Hidden layers on the way to the codes, and as many on the way back.
    activation : {"relu", "tanh"}
        Of the hidden layers.
    likelihood : {"bernoulli", "gaussian"}
        Distribution of a pixel, given the code.
    sigma : float
        Standard deviation of the Gaussian likelihood.
    binarise : bool
        Draw the pixels of every image anew from Bernoulli distributions with its gray values as
        probabilities, whenever it is used ("dynamic binarisation"). Without it the Bernoulli
        likelihood of gray values is a cross entropy, but no density.
    beta : float
        Weight of the divergence (Higgins et al., ICLR 2017); 1 gives the bound on the likelihood.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    hidden: int = 1024
    latent: int = 128
    layers: int = 1
    activation: str = "relu"
    likelihood: str = "bernoulli"
    sigma: float = 0.1
    binarise: bool = False
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.likelihood not in _LIKELIHOODS:
            raise ValueError(
                f"expected a likelihood out of {', '.join(_LIKELIHOODS)}, got {self.likelihood!r}"
            )
        if self.activation not in _ACTIVATIONS:
            raise ValueError(
                f"expected an activation out of {', '.join(_ACTIVATIONS)}, got {self.activation!r}"
            )
        if self.layers < 1:
            raise ValueError(f"expected at least 1 hidden layer, got layers={self.layers}")


@register_model("vae_mlp")
class VAEMLP(GaussianAutoencoder):
    """Variational autoencoder of linear layers; called with images of ``image_shape``.

    Examples
    --------
    >>> model = VAEMLP(VAEMLPConfig(hidden=32, latent=4))
    >>> model(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """

    Config = VAEMLPConfig

    def __init__(self, config: VAEMLPConfig) -> None:
        super().__init__(config)
        pixels = math.prod(config.image_shape)
        self.encoder = nn.Sequential(
            nn.Flatten(1), *self._hidden(pixels), nn.Linear(config.hidden, 2 * config.latent)
        )
        self.decoder = nn.Sequential(
            *self._hidden(config.latent),
            nn.Linear(config.hidden, pixels),
            nn.Unflatten(1, config.image_shape),
        )

    def _hidden(self, inputs: int) -> list[nn.Module]:
        config = self.config
        layers: list[nn.Module] = []
        for before in [inputs, *[config.hidden] * (config.layers - 1)]:
            layers += [nn.Linear(before, config.hidden), _ACTIVATIONS[config.activation]()]
        return layers

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {"batch": 128, "learning_rate": 1e-3}

    def seen(self, images: Tensor, noise: Noise) -> Tensor:
        """See :meth:`GaussianAutoencoder.seen`."""
        if not self.config.binarise:
            return images
        return (noise.uniform(*images.shape) < images).to(images.dtype)

    @property
    def has_likelihood(self) -> bool:
        """See :attr:`GaussianAutoencoder.has_likelihood`."""
        return True

    @property
    def has_density(self) -> bool:
        """See :attr:`GaussianAutoencoder.has_density`."""
        return bool(self.config.likelihood == "gaussian" or self.config.binarise)

    def nll(self, codes: Tensor, images: Tensor) -> Tensor:
        """See :meth:`GaussianAutoencoder.nll`."""
        logits = self.decoder(codes)
        if self.config.likelihood == "bernoulli":
            return bernoulli_nll(logits, images)
        return gaussian_nll(torch.sigmoid(logits), images, self.config.sigma)
