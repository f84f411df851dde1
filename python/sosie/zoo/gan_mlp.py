# SPDX-License-Identifier: Apache-2.0
"""A generator and a discriminator of linear layers.

Goodfellow et al., "Generative adversarial nets", NeurIPS 2014, with wider layers and without
maxout: 100 -> 1024 -> 1024 -> 784 against 784 -> 1024 -> 1024 -> 1. The generator is trained on the
non-saturating loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sosie.zoo.model import AdversarialPair
from sosie.zoo.registry import register_model

__all__ = ["GANMLP", "GANMLPConfig"]


@dataclass(frozen=True)
class GANMLPConfig:
    """How a :class:`GANMLP` is built.

    Attributes
    ----------
    image_shape : tuple of int
        Channels, height and width.
    latent : int
        Normal numbers an image is made of.
    hidden : int
        Width of the hidden layers of both networks.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    latent: int = 100
    hidden: int = 1024


@register_model("gan_mlp")
class GANMLP(AdversarialPair):
    """Generative adversarial pair of linear layers; called with codes (N, latent).

    Examples
    --------
    >>> import torch
    >>> model = GANMLP(GANMLPConfig(hidden=16))
    >>> model(torch.zeros(2, 100)).shape
    torch.Size([2, 1, 28, 28])
    """

    Config = GANMLPConfig

    def __init__(self, config: GANMLPConfig) -> None:
        super().__init__(config)
        self.loss = "vanilla"
        pixels = math.prod(config.image_shape)
        self.generator = nn.Sequential(
            nn.Linear(config.latent, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, pixels),
            SymmetricToUnit(),
            nn.Unflatten(1, config.image_shape),
        )
        self.discriminator = nn.Sequential(
            UnitToSymmetric(),
            nn.Flatten(1),
            nn.Linear(pixels, config.hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(config.hidden, config.hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(config.hidden, 1),
            nn.Flatten(0),
        )

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {
            "batch": 64,
            "learning_rate": 2e-4,
            "betas": (0.5, 0.999),
        }


class SymmetricToUnit(nn.Module):
    """Hyperbolic tangent, moved to [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return (x.tanh() + 1) / 2


class UnitToSymmetric(nn.Module):
    """[0, 1] to [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return 2 * x - 1
