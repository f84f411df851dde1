# SPDX-License-Identifier: Apache-2.0
"""What models of a kind have in common: what they are called with, and how they are trained.

Images are float tensors in [0, 1] of shape (N, C, H, W) everywhere; what a network likes better,
[-1, 1] for example, it makes inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

from torch import Tensor, nn

from sosie.zoo.noise import Noise

__all__ = ["AdversarialPair", "Autoencoder", "Classifier", "Model", "RepairModel"]


class Model(nn.Module):
    """A network that is built from a config dataclass and nothing else.

    Attributes
    ----------
    name : str
        Under which it is registered.
    Config : type
        Frozen dataclass with a default for every field.
    config : Config
        What this one was built from.
    """

    name: ClassVar[str] = ""
    Config: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def extra_repr(self) -> str:
        """The configuration."""
        return ", ".join(f"{name}={value!r}" for name, value in asdict(self.config).items())

    def training_defaults(self) -> dict[str, Any]:
        """Fields of :class:`sosie.zoo.training.Settings` that suit this model."""
        return {}

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Shape (C, H, W) of the images, or None if they may have any height and width."""
        shape: tuple[int, int, int] | None = getattr(self.config, "image_shape", None)
        return shape

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.config.channels if self.image_shape is None else self.image_shape[0])

    @property
    def least_side(self) -> int:
        """Images must have at least this many pixels along each side."""
        return 1


class RepairModel(Model, ABC):
    """Makes of damaged images what they may have been."""

    @abstractmethod
    def forward(self, damaged: Tensor, known: Tensor | None = None) -> Tensor:
        """Repair images.

        Parameters
        ----------
        damaged : Tensor, shape (N, C, H, W)
            0 where a pixel is missing.
        known : Tensor, shape (N, 1, H, W), optional
            1 where a pixel is known, 0 where it is missing; by default all are known.

        Returns
        -------
        Tensor, shape (N, C, H, W)
            Not clipped.
        """

    @property
    def reach(self) -> int | None:
        """How many pixels away the farthest damaged pixel lies that a repaired one depends on.

        None where that is not known.
        """
        return None

    @property
    def alignment(self) -> int:
        """Images that are shifted by multiples of this many pixels are repaired alike."""
        return 1

    def stages(self, damaged: Tensor, known: Tensor | None = None) -> list[Tensor]:
        """Every estimate on the way, the last one being the result; each is trained."""
        return [self(damaged, known)]


class Autoencoder(Model, ABC):
    """Encodes images, decodes codes, and is trained on how likely it makes the images."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions from the most likely codes, shape (N, C, H, W) in [0, 1]."""

    @abstractmethod
    def terms(self, images: Tensor, noise: Noise, step: int) -> dict[str, Tensor]:
        """Everything there is to know about the loss of a batch.

        Parameters
        ----------
        images : Tensor, shape (N, C, H, W)
        noise : Noise
            What to sample with.
        step : int
            Of the training, for what changes with time.

        Returns
        -------
        dict
            Scalars; "loss" is to be lowered, others tell what it is made of. Sums over pixels and
            codes, means over the batch.
        """

    @abstractmethod
    def sample(self, count: int, noise: Noise) -> Tensor:
        """New images, shape (count, C, H, W) in [0, 1]."""


class AdversarialPair(Model, ABC):
    """A generator and the discriminator that it is trained against.

    Attributes
    ----------
    generator, discriminator : Module
        From codes (N, latent) to images in [0, 1], and from these to scores (N,).
    loss : str
        One of :data:`sosie.zoo.gan_losses.GAN_LOSSES`.
    penalty : float
        Weight of the gradient penalty, if it is "wgan-gp".
    """

    generator: nn.Module
    discriminator: nn.Module
    loss: str
    penalty: float = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        """Images of codes (N, latent), shape (N, C, H, W) in [0, 1]."""
        images: Tensor = self.generator(codes)
        return images

    def sample(self, count: int, noise: Noise) -> Tensor:
        """New images, shape (count, C, H, W) in [0, 1]."""
        images: Tensor = self(noise.normal(count, self.config.latent))
        return images


class Classifier(Model, ABC):
    """Tells classes of images apart, and makes rows of numbers of them on the way."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """What the classes are told from, shape (N, D).

        Parameters
        ----------
        images : Tensor, shape (N, C, H, W)
        """

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the classes, shape (N, classes)."""
