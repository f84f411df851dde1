# SPDX-License-Identifier: Apache-2.0
"""A generator and a discriminator of strided convolutions.

Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative
adversarial networks", ICLR 2016. The discriminator depends on the loss: batch normalisation with
``vanilla`` and ``lsgan``; spectral normalisation (Miyato et al., ICLR 2018) with ``hinge``; none
with ``wgan-gp``, whose penalty is on the gradient of each image alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from sosie.zoo.gan_losses import GAN_LOSSES
from sosie.zoo.gan_mlp import SymmetricToUnit, UnitToSymmetric
from sosie.zoo.model import AdversarialPair
from sosie.zoo.registry import register_model

__all__ = ["DCGAN", "DCGANConfig"]

#: Standard deviation of the initial weights; section 4 of the paper.
_INITIAL_DEVIATION = 0.02


@dataclass(frozen=True)
class DCGANConfig:
    """How a :class:`DCGAN` is built.

    Attributes
    ----------
    image_shape : tuple of int
        Channels, height and width; the sides are multiples of ``2 ** levels``.
    latent : int
        Normal numbers an image is made of.
    width : int
        Channels at half resolution; twice as many at each lower one.
    levels : int
        Halvings of the resolution.
    loss : {"vanilla", "lsgan", "hinge", "wgan-gp"}
        What both are trained on.
    penalty : float
        Weight of the gradient penalty of ``wgan-gp``.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    latent: int = 100
    width: int = 64
    levels: int = 2
    loss: str = "vanilla"
    penalty: float = 10.0

    def __post_init__(self) -> None:
        if self.loss not in GAN_LOSSES:
            raise ValueError(f"expected a loss out of {', '.join(GAN_LOSSES)}, got {self.loss!r}")
        if any(side % 2**self.levels for side in self.image_shape[1:]):
            raise ValueError(
                f"expected sides that are multiples of {2**self.levels} for {self.levels} levels, "
                f"got image_shape={self.image_shape}"
            )


@register_model("gan_dcgan")
class DCGAN(AdversarialPair):
    """Generative adversarial pair of convolutions; called with codes (N, latent).

    Examples
    --------
    >>> import torch
    >>> model = DCGAN(DCGANConfig(width=8, loss="hinge"))
    >>> images = model(torch.zeros(2, 100))
    >>> images.shape, model.discriminator(images).shape
    (torch.Size([2, 1, 28, 28]), torch.Size([2]))
    """

    Config = DCGANConfig

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__(config)
        self.loss, self.penalty = config.loss, config.penalty
        self.generator = _generator(config)
        self.discriminator = _discriminator(config)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.normal_(module.weight, std=_INITIAL_DEVIATION)
        if config.loss == "hinge":
            for layer in self.discriminator:
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    spectral_norm(layer)

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        if self.loss == "wgan-gp":
            # Gulrajani et al., algorithm 1.
            rates: dict[str, Any] = {"learning_rate": 1e-4, "betas": (0.0, 0.9), "critic_steps": 5}
        else:
            rates = {"learning_rate": 2e-4, "betas": (0.5, 0.999)}
        return {"batch": 64, **rates}


def _generator(config: DCGANConfig) -> nn.Sequential:
    channels, height, width = config.image_shape
    widths = [config.width * 2**level for level in reversed(range(config.levels))]
    lowest = (widths[0], height >> config.levels, width >> config.levels)
    layers: list[nn.Module] = [
        nn.Linear(config.latent, lowest[0] * lowest[1] * lowest[2], bias=False),
        nn.Unflatten(1, lowest),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    for before, after in pairwise(widths):
        layers += [
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    layers += [nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), SymmetricToUnit()]
    return nn.Sequential(*layers)


def _discriminator(config: DCGANConfig) -> nn.Sequential:
    channels, height, width = config.image_shape
    widths = [config.width * 2**level for level in range(config.levels)]
    is_normalised = config.loss in ("vanilla", "lsgan")
    layers: list[nn.Module] = [
        UnitToSymmetric(),
        nn.Conv2d(channels, widths[0], 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
    ]
    for before, after in pairwise(widths):
        layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=not is_normalised))
        layers += [nn.BatchNorm2d(after)] if is_normalised else []
        layers.append(nn.LeakyReLU(0.2))
    features = widths[-1] * (height >> config.levels) * (width >> config.levels)
    return nn.Sequential(*layers, nn.Flatten(1), nn.Linear(features, 1), nn.Flatten(0))
