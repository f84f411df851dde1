# SPDX-License-Identifier: Apache-2.0
"""What it is that a kind of model learns: one step of it, and how it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sosie.zoo.data import ImageCollection
from sosie.zoo.noise import Noise

__all__ = ["Judge", "Objective", "Pixels", "Update"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
#: Lowers a loss by the weights of one network, by name.
Update = Callable[[str, Tensor], None]


class Objective(ABC):
    """What a model is trained for.

    Attributes
    ----------
    criterion : str
        The measure that decides what is better.
    higher_is_better : bool
    """

    criterion: str
    higher_is_better: bool

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The parts that have an optimizer each."""

    @abstractmethod
    def step(
        self, batch: dict[str, Tensor], step: int, noise: Noise, update: Update
    ) -> dict[str, Tensor]:
        """Learn from one batch, and tell the numbers; "loss" is among them.

        Parameters
        ----------
        batch : dict
            Of :class:`sosie.zoo.data.TrainingSequence`.
        step : int
            Counted from 0.
        noise : Noise
            Random numbers of this step.
        update : callable
            To be called with the name of a network and the loss that its weights are to lower.
        """

    @abstractmethod
    def judge(self, images: ImageCollection, device: torch.device) -> Judge:
        """Prepare for judging by a collection, always with the same random numbers."""


class Judge(ABC):
    """Measures a model, on the same images with the same noise every time."""

    @abstractmethod
    def measure(self, model: Any) -> dict[str, float]:
        """Every measure by name, the objective's criterion among them."""

    @abstractmethod
    def grid(self, model: Any) -> Tensor:
        """Images side by side, shape (rows, columns, C, H, W) in [0, 1]."""
