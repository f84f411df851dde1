# SPDX-License-Identifier: Apache-2.0
"""What variational autoencoders have in common whose codes are normal, each number on its own.

``q(z | x) = N(mean(x), diag(variance(x)))`` and ``p(z) = N(0, 1)``: Kingma and Welling,
"Auto-encoding variational Bayes", ICLR 2014. What the decoder sees in training is a sample,
``mean + deviation * noise``; without it the divergence would have no meaning.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from sosie.zoo.densities import gaussian_kl
from sosie.zoo.model import Autoencoder
from sosie.zoo.noise import Noise

__all__ = ["GaussianAutoencoder"]

#: Codes that are decoded at a time where there are many of each image.
_CODES = 1000


class GaussianAutoencoder(Autoencoder):
    """Encoder, decoder, and what follows from them.

    Attributes
    ----------
    encoder : Module
        From images to means and log-variances of the codes, one after the other, (N, 2 latent).
    decoder : Module
        From codes (N, latent) to log-odds of the pixels, or what else has the sigmoid for its mean.
    """

    encoder: nn.Module
    decoder: nn.Module

    @abstractmethod
    def nll(self, codes: Tensor, images: Tensor) -> Tensor:
        """``-log p(images | codes)`` in nats, shape (N,).

        Raises
        ------
        ValueError
            What the model is trained on is no likelihood.
        """

    @property
    @abstractmethod
    def has_likelihood(self) -> bool:
        """Whether :meth:`nll` is defined."""

    @property
    @abstractmethod
    def has_density(self) -> bool:
        """Whether it is a likelihood of what the model sees: Bernoulli's of gray values is none."""

    def reconstruction_error(self, codes: Tensor, images: Tensor) -> Tensor:
        """What is lowered beside the divergence, the mean over the batch."""
        return self.nll(codes, images).mean()

    def seen(self, images: Tensor, noise: Noise) -> Tensor:
        """What the model takes for an image: the image, unless it draws its pixels anew."""
        del noise
        return images

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
        images = self.seen(images, noise)
        mean, log_variance = self.encode(images)
        codes = mean + torch.exp(0.5 * log_variance) * noise.normal(*mean.shape)
        reconstruction = self.reconstruction_error(codes, images)
        kl = gaussian_kl(mean, log_variance).mean()
        loss = reconstruction + self.config.beta * kl
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def log_weights(self, images: Tensor, noise: Noise, samples: int) -> Tensor:
        """``log p(x, z) / q(z | x)`` for some codes of each image, float64, shape (N, samples).

        Their mean over the codes is the evidence lower bound.

        Raises
        ------
        ValueError
            See :meth:`nll`.
        """
        mean, log_variance = (each[:, None] for each in self.encode(images))
        parts = []
        most = max(1, _CODES // len(images))
        for start in range(0, samples, most):
            count = min(most, samples - start)
            unit = noise.normal(len(images), count, mean.shape[-1])
            codes = mean + torch.exp(0.5 * log_variance) * unit
            # log p(z) - log q(z | x); the constants of the two Gaussians cancel.
            ratio = -0.5 * (codes.square() - unit.square() - log_variance).sum(-1)
            repeated = images[:, None].expand(-1, count, *images.shape[1:])
            nll = self.nll(codes.flatten(0, 1), repeated.flatten(0, 1)).view(-1, count)
            parts.append((ratio - nll).double())
        return torch.cat(parts, 1)

    def log_likelihood(self, images: Tensor, noise: Noise, samples: int = 500) -> Tensor:
        """Estimate of log p(x) by importance sampling, float64, shape (N,).

        ``log 1/K sum_k p(x, z_k) / q(z_k | x)`` with K samples; Burda, Grosse, Salakhutdinov,
        "Importance weighted autoencoders", ICLR 2016. A lower bound on average, tight for many.

        Raises
        ------
        ValueError
            See :meth:`nll`.
        """
        return torch.logsumexp(self.log_weights(images, noise, samples), 1) - math.log(samples)

    def sample(self, count: int, noise: Noise) -> Tensor:
        """Means of the pixels for codes from the prior."""
        return self.decode(noise.normal(count, self.config.latent))
