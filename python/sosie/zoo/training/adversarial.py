# SPDX-License-Identifier: Apache-2.0
"""Learning to generate: two networks, one of which learns to tell the other's images from real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import sosie
from sosie.zoo.data import ImageCollection
from sosie.zoo.gan_losses import discriminator_loss, generator_loss, gradient_penalty
from sosie.zoo.model import AdversarialPair, Model
from sosie.zoo.noise import Noise
from sosie.zoo.training.autoencoding import evenly_chosen, fitting
from sosie.zoo.training.objective import Judge, Objective, Pixels, Update

__all__ = ["Adversarial"]

#: Real and generated images to judge by; rows and columns that are shown.
_MOST, _SHOWN = 512, 8
_SEED = 2024


class Adversarial(Objective):
    """The discriminator learns in every step, the generator in every ``critic_steps``-th."""

    criterion, higher_is_better = "kernel_distance", False

    def __init__(self, model: AdversarialPair, critic_steps: int) -> None:
        self.model, self.critic_steps = model, critic_steps

    def networks(self) -> dict[str, nn.Module]:
        """See :meth:`Objective.networks`."""
        return {"generator": self.model.generator, "discriminator": self.model.discriminator}

    def step(
        self, batch: dict[str, Tensor], step: int, noise: Noise, update: Update
    ) -> dict[str, Tensor]:
        """See :meth:`Objective.step`.

        "loss" is the generator's, which need not fall: it is relative to the discriminator.
        """
        model, real = self.model, batch["images"]
        count, latent = len(real), model.config.latent
        with torch.no_grad():
            fake = model.generator(noise.normal(count, latent))
        real_scores, fake_scores = model.discriminator(real), model.discriminator(fake)
        loss = discriminator_loss(model.loss, real_scores, fake_scores)
        values = {"loss": generator_loss(model.loss, fake_scores.detach())}
        if model.loss == "wgan-gp":
            penalty = gradient_penalty(model.discriminator, real, fake, noise.uniform(count))
            values["penalty"] = penalty
            loss = loss + model.penalty * penalty
        values["discriminator"] = loss
        update("discriminator", loss)
        if (step + 1) % self.critic_steps == 0:
            scores = model.discriminator(model.generator(noise.normal(count, latent)))
            values["loss"] = generator_loss(model.loss, scores)
            update("generator", values["loss"])
        return values

    def judge(self, images: ImageCollection, device: torch.device) -> Judge:
        """See :meth:`Objective.judge`."""
        return _GeneratorJudge(images.validation, self.model, device)


class _GeneratorJudge(Judge):
    """Kernel distance between the pixels of generated and of real images."""

    def __init__(self, images: Sequence[Pixels], model: Model, device: torch.device) -> None:
        self._real = fitting(evenly_chosen(images, _MOST), model).flatten(1)
        self._device = device

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, float]:
        """See :meth:`Judge.measure`."""
        fake = model.sample(len(self._real), Noise(_SEED, device=self._device))
        distance = sosie.kernel_distance(self._real, fake.flatten(1).float().cpu())
        return {"kernel_distance": distance}

    @torch.no_grad()
    def grid(self, model: Any) -> Tensor:
        """Images of the same codes every time."""
        samples: Tensor = model.sample(_SHOWN**2, Noise(_SEED, device=self._device))
        return samples.reshape(_SHOWN, _SHOWN, *samples.shape[1:])
