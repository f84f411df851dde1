# SPDX-License-Identifier: Apache-2.0
"""Learning to tell classes of images apart, for the features that come of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sosie.zoo.data import ImageCollection
from sosie.zoo.model import Classifier, Model
from sosie.zoo.noise import Noise
from sosie.zoo.training.autoencoding import fitting
from sosie.zoo.training.objective import Judge, Objective, Update

__all__ = ["Classifying"]

#: Images that go through the network at a time, and how many of a class are shown.
_BATCH, _SHOWN = 500, 8


class Classifying(Objective):
    """The loss is the cross entropy with the images' labels."""

    criterion, higher_is_better = "accuracy", True

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def networks(self) -> dict[str, nn.Module]:
        """See :meth:`Objective.networks`."""
        return {"model": self.model}

    def step(
        self, batch: dict[str, Tensor], step: int, noise: Noise, update: Update
    ) -> dict[str, Tensor]:
        """See :meth:`Objective.step`: "loss" and "accuracy"."""
        del step, noise
        logits = self.model(batch["images"])
        loss = F.cross_entropy(logits, batch["labels"])
        update("model", loss)
        accuracy = (logits.argmax(1) == batch["labels"]).float().mean()
        return {"loss": loss, "accuracy": accuracy}

    def judge(self, images: ImageCollection, device: torch.device) -> Judge:
        """See :meth:`Objective.judge`.

        Raises
        ------
        ValueError
            The images' classes are not known.
        """
        if images.training_labels is None or images.validation_labels is None:
            raise ValueError(
                f"{self.model.name} learns from labels, which these images do not have"
            )
        return _ClassifierJudge(images, self.model, device)


class _ClassifierJudge(Judge):
    """Share of the images whose class is found, and the cross entropy."""

    def __init__(self, images: ImageCollection, model: Model, device: torch.device) -> None:
        self._images = fitting(images.validation, model).to(device)
        labels = np.asarray(images.validation_labels)
        self._labels = torch.from_numpy(labels).to(device)

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, float]:
        """See :meth:`Judge.measure`."""
        logits = self._logits(model)
        accuracy = (logits.argmax(1) == self._labels).float().mean()
        return {"accuracy": float(accuracy), "loss": float(F.cross_entropy(logits, self._labels))}

    @torch.no_grad()
    def grid(self, model: Any) -> Tensor:
        """A row for each class: the first images that were taken for it."""
        logits = self._logits(model)
        chosen = logits.argmax(1)
        rows = self._images.new_zeros(logits.shape[1], _SHOWN, *self._images.shape[1:])
        for row, images in enumerate(rows):
            found = self._images[chosen == row][:_SHOWN]
            images[: len(found)] = found
        return rows

    def _logits(self, model: Any) -> Tensor:
        return torch.cat([model(images) for images in self._images.split(_BATCH)])
