# SPDX-License-Identifier: Apache-2.0
"""Autoencoders whose codes are grids of symbols.

``vq``: van den Oord, Vinyals, Kavukcuoglu, "Neural discrete representation learning", NeurIPS 2017.
Every cell takes the nearest vector of a codebook, and the gradient passes straight through. All
vectors have length 1 (Yu et al., "Vector-quantized image modeling with improved VQGAN", ICLR 2022):
an encoder cannot run away from its codebook then, and more symbols stay in use.

``gumbel``: the first stage of Ramesh et al., "Zero-shot text-to-image generation", ICML 2021. Every
cell has a categorical distribution, relaxed by Gumbel noise and a temperature that falls (Jang et
al., ICLR 2017); pixels are logit-Laplace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sosie
from sosie.zoo.densities import (
    categorical_kl_to_uniform,
    from_open_interval,
    logit_laplace_nll,
    to_open_interval,
)
from sosie.zoo.model import Autoencoder
from sosie.zoo.noise import Noise
from sosie.zoo.registry import register_model

__all__ = ["DiscreteVAE", "DiscreteVAEConfig", "nearest_codes", "straight_through"]

_QUANTIZERS = ("vq", "gumbel")
_LAST_TEMPERATURE = 1 / 16


@dataclass(frozen=True)
class DiscreteVAEConfig:
    """How a :class:`DiscreteVAE` is built and trained.

    Attributes
    ----------
    image_shape : tuple of int
        Channels, height and width; the sides are multiples of ``2 ** levels``.
    quantizer : {"vq", "gumbel"}
        See the module.
    codes : int
        Symbols to choose from.
    dimensions : int
        Length of a symbol's vector.
    width : int
        Channels of the hidden layers.
    levels : int
        Halvings of the resolution on the way to the grid of symbols.
    commitment : float
        ``vq``: weight of the encoder's distance from the chosen vectors.
    sigma : float
        ``vq``: standard deviation of the pixels; the reconstruction error is the squared error
        over ``2 sigma^2``.
    beta : float
        ``gumbel``: weight of the divergence from uniform symbols, reached after ``annealing / 30``
        steps. Ramesh et al. take 6.6 for photographs.
    annealing : int
        ``gumbel``: steps in which the temperature falls from 1 to 1/16, along a cosine.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    quantizer: str = "vq"
    codes: int = 128
    dimensions: int = 32
    width: int = 64
    levels: int = 2
    commitment: float = 0.25
    sigma: float = 0.1
    beta: float = 1.0
    annealing: int = 15_000

    def __post_init__(self) -> None:
        if self.quantizer not in _QUANTIZERS:
            raise ValueError(
                f"expected a quantizer out of {', '.join(_QUANTIZERS)}, got {self.quantizer!r}"
            )
        if any(side % 2**self.levels for side in self.image_shape[1:]):
            raise ValueError(
                f"expected sides that are multiples of {2**self.levels} for {self.levels} levels, "
                f"got image_shape={self.image_shape}"
            )


@register_model("vae_discrete")
class DiscreteVAE(Autoencoder):
    """Autoencoder with a grid of symbols; called with images of ``image_shape``.

    Examples
    --------
    >>> model = DiscreteVAE(DiscreteVAEConfig(width=8, codes=16))
    >>> images = torch.rand(2, 1, 28, 28)
    >>> model.symbols(images).shape, model(images).shape
    (torch.Size([2, 7, 7]), torch.Size([2, 1, 28, 28]))
    """

    Config = DiscreteVAEConfig

    def __init__(self, config: DiscreteVAEConfig) -> None:
        super().__init__(config)
        channels = config.image_shape[0]
        is_vq = config.quantizer == "vq"
        self.encoder = _encoder(config, config.dimensions if is_vq else config.codes)
        self.codebook = nn.Embedding(config.codes, config.dimensions)
        self.decoder = _decoder(config, channels if is_vq else 2 * channels)

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {"batch": 64, "learning_rate": 1e-3}

    def symbols(self, images: Tensor) -> Tensor:
        """Most likely symbols, int64, shape (N, H / 2^levels, W / 2^levels)."""
        encoded = self.encoder(images)
        if self.config.quantizer == "vq":
            return nearest_codes(F.normalize(encoded), self._vectors())
        symbols: Tensor = encoded.argmax(1)
        return symbols

    def decode(self, symbols: Tensor) -> Tensor:
        """Images in [0, 1] of grids of symbols (N, h, w)."""
        return self._pixels(self.decoder(F.embedding(symbols, self._vectors()).movedim(-1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions from the most likely symbols."""
        return self.decode(self.symbols(images))

    def terms(self, images: Tensor, noise: Noise, step: int) -> dict[str, Tensor]:
        """See :meth:`Autoencoder.terms`.

        "loss" and "reconstruction"; with ``vq`` "codebook" and "commitment", with ``gumbel`` "kl"
        and "temperature"; and "perplexity", the number of symbols that are in use, in effect.
        """
        if self.config.quantizer == "vq":
            return self._vq_terms(images)
        return self._gumbel_terms(images, noise, step)

    def sample(self, count: int, noise: Noise) -> Tensor:
        """Images of symbols that are drawn uniformly: there is no model of their order."""
        config = self.config
        _, height, width = config.image_shape
        shape = (count, height >> config.levels, width >> config.levels)
        return self.decode((noise.uniform(*shape) * config.codes).long())

    def temperature(self, step: int) -> float:
        """Of the relaxation, after so many steps: from 1 to 1/16 along half a cosine."""
        progress = min(1.0, step / self.config.annealing)
        return _LAST_TEMPERATURE + (1 - _LAST_TEMPERATURE) * (1 + math.cos(math.pi * progress)) / 2

    def _vq_terms(self, images: Tensor) -> dict[str, Tensor]:
        config = self.config
        encoded, vectors = F.normalize(self.encoder(images)), self._vectors()
        symbols = nearest_codes(encoded, vectors)
        chosen = F.embedding(symbols, vectors).movedim(-1, 1)
        decoded = self._pixels(self.decoder(straight_through(encoded, chosen)))
        count = images.shape[0]
        reconstruction = (decoded - images).square().sum() / (2 * config.sigma**2 * count)
        codebook = (chosen - encoded.detach()).square().sum() / count
        commitment = (encoded - chosen.detach()).square().sum() / count
        return {
            "loss": reconstruction + codebook + config.commitment * commitment,
            "reconstruction": reconstruction,
            "codebook": codebook,
            "commitment": commitment,
            "perplexity": _perplexity(symbols, config.codes),
        }

    def _gumbel_terms(self, images: Tensor, noise: Noise, step: int) -> dict[str, Tensor]:
        config = self.config
        logits = self.encoder(images)
        uniform = noise.uniform(*logits.shape).clamp(min=torch.finfo(torch.float32).tiny)
        temperature = self.temperature(step)
        relaxed = F.softmax((logits - (-uniform.log()).log()) / temperature, dim=1)
        mixed = torch.einsum("nkhw,kd->ndhw", relaxed, self._vectors())
        mean, log_scale = self.decoder(mixed).chunk(2, dim=1)
        reconstruction = logit_laplace_nll(mean, log_scale, to_open_interval(images)).mean()
        kl = categorical_kl_to_uniform(logits).mean()
        beta = config.beta * min(1.0, 30 * step / config.annealing)
        return {
            "loss": reconstruction + beta * kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "temperature": torch.tensor(temperature),
            "perplexity": _perplexity(logits.argmax(1), config.codes),
        }

    def _vectors(self) -> Tensor:
        """Vectors of the symbols, shape (codes, dimensions)."""
        weight: Tensor = self.codebook.weight
        return F.normalize(weight) if self.config.quantizer == "vq" else weight

    def _pixels(self, decoded: Tensor) -> Tensor:
        if self.config.quantizer == "vq":
            return torch.sigmoid(decoded)
        return from_open_interval(torch.sigmoid(decoded.chunk(2, dim=1)[0]))


def nearest_codes(encoded: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest vector of a codebook for every cell.

    Parameters
    ----------
    encoded : Tensor, shape (N, D, H, W)
    codebook : Tensor, shape (K, D)

    Returns
    -------
    Tensor of int64, shape (N, H, W)
    """
    cells = encoded.detach().movedim(1, -1)
    found = sosie.knn(cells.flatten(0, 2).float(), codebook.detach().float(), 1)
    symbols: Tensor = found.indices.reshape(cells.shape[:-1])
    return symbols


def straight_through(encoded: Tensor, chosen: Tensor) -> Tensor:
    """``chosen`` going forward; going back, the gradient passes to ``encoded`` as it is."""
    return encoded + (chosen - encoded).detach()


def _perplexity(symbols: Tensor, codes: int) -> Tensor:
    """Exponential of the entropy of the symbols' frequencies: from 1 to ``codes``."""
    shares = torch.bincount(symbols.flatten(), minlength=codes) / symbols.numel()
    return torch.exp(-torch.special.xlogy(shares, shares).sum())


def _encoder(config: DiscreteVAEConfig, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = config.image_shape[0]
    for _ in range(config.levels):
        layers += [nn.Conv2d(before, config.width, 4, stride=2, padding=1), nn.ReLU()]
        before = config.width
    return nn.Sequential(
        *layers,
        nn.Conv2d(config.width, config.width, 3, padding=1),
        ResidualBlock(config.width),
        nn.ReLU(),
        nn.Conv2d(config.width, outputs, 1),
    )


def _decoder(config: DiscreteVAEConfig, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for level in reversed(range(config.levels)):
        after = config.width if level else outputs
        layers += [nn.ReLU(), nn.ConvTranspose2d(config.width, after, 4, stride=2, padding=1)]
    return nn.Sequential(
        nn.Conv2d(config.dimensions, config.width, 3, padding=1),
        ResidualBlock(config.width),
        *layers,
    )


class ResidualBlock(nn.Module):
    """Rectifier, 3 x 3, rectifier, 1 x 1, added to what goes in; section 4.1 of van den Oord."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        update: Tensor = self.layers(x)
        return x + update
