# SPDX-License-Identifier: Apache-2.0
"""A variational autoencoder of linear layers.

Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014: 784 -> 1024 -> 128 means and 128
log-variances, and 128 -> 1024 -> 784. What the decoder sees is a sample, ``mean + deviation *
noise``; without it the divergence would have no meaning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sosie.zoo.densities import bernoulli_nll, gaussian_kl, gaussian_nll
from sosie.zoo.model import Autoencoder
from sosie.zoo.noise import Noise
from sosie.zoo.registry import register_model

__all__ = ["VAEMLP", "VAEMLPConfig"]

_LIKELIHOODS = ("bernoulli", "gaussian")
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


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
        Hidden layers on either side. The networks of Burda, Grosse, Salakhutdinov (ICLR 2016) with
        one stochastic layer are ``layers=2, hidden=200, latent=50, activation="tanh"``.
    activation : {"relu", "tanh"}
        After each of them.
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
            raise ValueError(f"expected at least 1 layer, got {self.layers}")


@register_model("vae_mlp")
class VAEMLP(Autoencoder):
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
            nn.Flatten(1),
            *_hidden_layers(pixels, config),
            nn.Linear(config.hidden, 2 * config.latent),
        )
        self.decoder = nn.Sequential(
            *_hidden_layers(config.latent, config),
            nn.Linear(config.hidden, pixels),
            nn.Unflatten(1, config.image_shape),
        )

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {"batch": 128, "learning_rate": 1e-3}

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of the codes, each (N, latent)."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, codes: Tensor) -> Tensor:
        """Means of the pixels, in [0, 1]."""
        return torch.sigmoid(self.decoder(codes))

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions from the codes' means."""
        return self.decode(self.encode(images)[0])

    def terms(self, images: Tensor, noise: Noise, step: int) -> dict[str, Tensor]:
        """See :meth:`Autoencoder.terms`: "loss", "reconstruction", "kl"."""
        del step
        config = self.config
        if config.binarise:
            images = (noise.uniform(*images.shape) < images).float()
        mean, log_variance = self.encode(images)
        codes = mean + torch.exp(0.5 * log_variance) * noise.normal(*mean.shape)
        reconstruction = self._nll(codes, images).mean()
        kl = gaussian_kl(mean, log_variance).mean()
        loss = reconstruction + config.beta * kl
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def log_likelihood(self, images: Tensor, noise: Noise, samples: int = 500) -> Tensor:
        """Estimate of log p(x) by importance sampling, shape (N,).

        ``log 1/K sum_k p(x, z_k) / q(z_k | x)`` with K samples; Burda, Grosse, Salakhutdinov,
        "Importance weighted autoencoders", ICLR 2016. A lower bound on average, tight for many.
        """
        mean, log_variance = self.encode(images)
        log_weights = []
        for _ in range(samples):
            unit = noise.normal(*mean.shape)
            codes = mean + torch.exp(0.5 * log_variance) * unit
            # log p(z) - log q(z | x); the constants of the two Gaussians cancel.
            ratio = -0.5 * (codes.square() - unit.square() - log_variance).sum(1)
            log_weights.append(ratio - self._nll(codes, images))
        return torch.logsumexp(torch.stack(log_weights), 0) - math.log(samples)

    def sample(self, count: int, noise: Noise) -> Tensor:
        """Means of the pixels for codes from the prior."""
        return self.decode(noise.normal(count, self.config.latent))

    def _nll(self, codes: Tensor, images: Tensor) -> Tensor:
        logits = self.decoder(codes)
        if self.config.likelihood == "bernoulli":
            return bernoulli_nll(logits, images)
        return gaussian_nll(torch.sigmoid(logits), images, self.config.sigma)


def _hidden_layers(inputs: int, config: VAEMLPConfig) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in (inputs, *[config.hidden] * (config.layers - 1)):
        layers += [nn.Linear(width, config.hidden), _ACTIVATIONS[config.activation]()]
    return layers
