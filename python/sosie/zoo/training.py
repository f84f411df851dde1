# SPDX-License-Identifier: Apache-2.0
"""Training of a repairing network on crops of photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["CropSampler", "Damage", "Loss", "Trainer"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Damage = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

#: Peak learning rate, and the share of the steps in which it is reached. Half as much again gains
#: nothing, three times as much is unstable.
_LEARNING_RATE, _WARM_UP = 1e-3, 0.1
#: Largest norm of the gradient of all weights together; single flat crops can exceed it tenfold.
_GRADIENT_NORM = 0.5
#: Channels are raised to powers between e^-0.25 and e^0.25.
_LOG_GAMMA = 0.25


class CropSampler:
    """Random square crops: mirrored, transposed, recoloured.

    Parameters
    ----------
    photographs : sequence of ndarray of uint8, shape (H, W, 3)
        Half-size copies of those large enough are added. A photograph is drawn with a probability
        in proportion to the root of its area, gray ones a third as often.
    crop : int
        Side of a crop, in pixels.
    batch : int
        Crops drawn at a time.
    seed : int
        Of the random numbers.
    """

    def __init__(self, photographs: Sequence[Pixels], *, crop: int, batch: int, seed: int) -> None:
        self.crop, self.batch = crop, batch
        self._random = np.random.default_rng(seed)
        halves = (_halved(photograph) for photograph in photographs)
        self._photographs = [
            photograph
            for photograph in (*photographs, *halves)
            if min(photograph.shape[:2]) >= crop
        ]
        weights = np.array([_weight(photograph) for photograph in self._photographs])
        self._probabilities = weights / weights.sum()

    def draw(self) -> Tensor:
        """One batch, float32 in [0, 1], shape (batch, 3, crop, crop)."""
        crops = np.stack([self._crop() for _ in range(self.batch)])
        images = torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32)) / 255.0
        # Few photographs have few saturated colours: a power per channel makes more.
        powers = np.exp(self._random.uniform(-_LOG_GAMMA, _LOG_GAMMA, (self.batch, 3, 1, 1)))
        return images ** torch.from_numpy(powers.astype(np.float32))

    def _crop(self) -> Pixels:
        random = self._random
        photograph = self._photographs[random.choice(len(self._photographs), p=self._probabilities)]
        top = random.integers(photograph.shape[0] - self.crop + 1)
        left = random.integers(photograph.shape[1] - self.crop + 1)
        crop = photograph[top : top + self.crop, left : left + self.crop]
        crop = crop[:: random.choice((-1, 1)), :: random.choice((-1, 1))]
        if random.random() < 0.5:
            crop = crop.transpose(1, 0, 2)
        return crop[..., random.permutation(3)]


def _halved(photograph: Pixels) -> Pixels:
    """Mean over boxes of 2 x 2 pixels."""
    height, width = (size // 2 for size in photograph.shape[:2])
    boxes = photograph[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    halved: Pixels = np.rint(boxes.mean(axis=(1, 3))).astype(np.uint8)
    return halved


def _weight(photograph: Pixels) -> float:
    is_gray = np.ptp(photograph, axis=2).max() == 0
    return float(np.sqrt(photograph[..., 0].size)) * (1 / 3 if is_gray else 1.0)


class Trainer:
    """A model, its optimizer and its schedule: Adam and one cycle of the learning rate.

    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", 2019. The model is moved to channels_last, which convolutions on CPUs prefer.

    Parameters
    ----------
    model : Module
        Called as ``model(damaged, known)``.
    loss : callable
        ``loss(prediction, target)``, a scalar.
    damage : callable
        ``damage(images, generator)``, the damaged images and which pixels are known.
    steps : int
        Length of the schedule.
    seed : int
        Of the damage.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, damage: Damage, *, steps: int, seed: int
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss, self.damage = loss, damage
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, _LEARNING_RATE, total_steps=max(steps, 2), pct_start=_WARM_UP
        )

    def step(self, images: Tensor) -> float:
        """Learn from one batch of undamaged images; returns its loss."""
        damaged, known = self.damage(images, self._generator)
        self._optimizer.zero_grad()
        loss = self.loss(self.model(damaged, known), images)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self._schedule.step()
        return loss.item()
