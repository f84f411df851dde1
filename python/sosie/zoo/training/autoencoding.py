# SPDX-License-Identifier: Apache-2.0
"""Learning to encode: the bound on the likelihood, or what takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sosie.zoo.data import ImageCollection, centre_crop, to_tensor
from sosie.zoo.model import Autoencoder, Model
from sosie.zoo.noise import Noise
from sosie.zoo.training.objective import Judge, Objective, Pixels, Update

__all__ = ["Autoencoding", "evenly_chosen", "fitting"]

T = TypeVar("T")

#: Images to judge by, how many go through the network at a time, how many are shown.
_MOST, _BATCH, _SHOWN = 512, 128, 10
_SEED = 2024
#: Judged as after a training that is long over, whatever changes with time.
_LATE = 1 << 40


class Autoencoding(Objective):
    """The loss is the model's own."""

    criterion, higher_is_better = "loss", False

    def __init__(self, model: Autoencoder) -> None:
        self.model = model

    def networks(self) -> dict[str, nn.Module]:
        """See :meth:`Objective.networks`."""
        return {"model": self.model}

    def step(
        self, batch: dict[str, Tensor], step: int, noise: Noise, update: Update
    ) -> dict[str, Tensor]:
        """See :meth:`Objective.step`."""
        terms = self.model.terms(batch["images"], noise, step)
        update("model", terms["loss"])
        return terms

    def judge(self, images: ImageCollection, device: torch.device) -> Judge:
        """See :meth:`Objective.judge`."""
        return _AutoencoderJudge(images.validation, self.model, device)


class _AutoencoderJudge(Judge):
    """The terms of the loss, means over the images."""

    def __init__(self, images: Sequence[Pixels], model: Model, device: torch.device) -> None:
        self._images = fitting(evenly_chosen(images, _MOST), model).to(device)

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, float]:
        """See :meth:`Judge.measure`."""
        noise = Noise(_SEED, device=self._images.device)
        sums: dict[str, float] = {}
        for images in self._images.split(_BATCH):
            for name, value in model.terms(images, noise, _LATE).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(images)
        return {name: total / len(self._images) for name, total in sums.items()}

    @torch.no_grad()
    def grid(self, model: Any) -> Tensor:
        """Originals, reconstructions, and new images in two more rows."""
        originals = self._images[:_SHOWN]
        count = len(originals)
        samples = model.sample(2 * count, Noise(_SEED, device=originals.device))
        rows = [originals, model(originals), samples[:count], samples[count:]]
        return torch.stack(rows)


def evenly_chosen(images: Sequence[T], most: int) -> list[T]:
    """Some of many, from begin to end: files are often sorted by class.

    Examples
    --------
    >>> evenly_chosen(range(10), 4)
    [0, 2, 5, 7]
    """
    count = min(most, len(images))
    return [images[index * len(images) // count] for index in range(count)]


def fitting(images: Sequence[Pixels], model: Model) -> Tensor:
    """Images, their middle cut out where they are larger, as the model wants them: (N, C, H, W)."""
    channels, height, width = model.config.image_shape
    crops = [to_tensor(centre_crop(pixels, (height, width)), channels) for pixels in images]
    return torch.stack(crops)
