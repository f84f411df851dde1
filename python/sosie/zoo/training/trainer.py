# SPDX-License-Identifier: Apache-2.0
"""A model, its optimizers and its average: everything that a training step changes."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn

from sosie.zoo.degradations import parse_degradation
from sosie.zoo.losses import parse_loss
from sosie.zoo.model import AdversarialPair, Autoencoder, Classifier, Model, RepairModel
from sosie.zoo.noise import Noise, derived_seed
from sosie.zoo.training.adversarial import Adversarial
from sosie.zoo.training.autoencoding import Autoencoding
from sosie.zoo.training.classifying import Classifying
from sosie.zoo.training.objective import Objective
from sosie.zoo.training.repairing import Repairing
from sosie.zoo.training.settings import Settings, learning_rate_factor

__all__ = ["Trainer", "objective_of"]

#: What a seed is for, where several are derived from one; the first few are those of the images.
_NOISE, _LIBRARIES = 10, 11


class Trainer:
    """Takes training steps.

    Parameters
    ----------
    model : Model
        Moved to the device, and to channels_last, which convolutions prefer; changed in place.
    settings : Settings
    objective : Objective, optional
        By default what suits the model and the settings.

    Attributes
    ----------
    step_number : int
        Steps done.
    average : Model or None
        Moving average of the weights.

    Notes
    -----
    Several processes take equal parts of a batch and average their gradients before any of them
    changes a weight. That is done here, in the open, rather than by a wrapper around the model:
    wrappers expect one backward pass after one forward pass of the whole model, and adversarial
    pairs and gradient penalties do neither.
    """

    def __init__(
        self, model: Model, settings: Settings, objective: Objective | None = None
    ) -> None:
        AcceleratorState._reset_state()  # otherwise the first training's precision is everybody's
        self.accelerator = Accelerator(mixed_precision=settings.mixed_precision)
        processes = self.accelerator.num_processes
        if settings.batch % processes:
            raise ValueError(
                f"expected a batch that {processes} processes can share, got {settings.batch}"
            )
        model.to(device=self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.train()
        if processes > 1:
            broadcast(list(model.state_dict().values()))
        self.model, self.settings = model, settings
        self.objective = objective_of(model, settings) if objective is None else objective
        self.parameters = {
            name: [each for each in network.parameters() if each.requires_grad]
            for name, network in self.objective.networks().items()
        }
        self.optimizers: dict[str, Any] = {
            name: self.accelerator.prepare(
                torch.optim.AdamW(
                    parameters,
                    lr=settings.learning_rate,
                    betas=settings.betas,
                    weight_decay=settings.weight_decay,
                )
            )
            for name, parameters in self.parameters.items()
        }
        self.average = None if settings.ema is None else copy.deepcopy(model).eval()
        self.step_number = 0

    @property
    def best_model(self) -> Model:
        """The average if there is one, else the model."""
        return self.model if self.average is None else self.average

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Learn from this process's part of a batch; returns the numbers of all processes.

        Raises
        ------
        FloatingPointError
            A loss or a gradient is not finite; the weights it would have spoiled are as they were.
        """
        settings, step = self.settings, self.step_number
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        # For what draws from generators that all share: dropout, for example.
        set_seed(derived_seed(settings.seed, _LIBRARIES, step, process) % 2**32)
        noise = Noise(
            derived_seed(settings.seed, _NOISE, step),
            device=self.accelerator.device,
            process=process,
            processes=processes,
        )
        rate = settings.learning_rate * learning_rate_factor(settings, step)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = {name: each.to(self.accelerator.device) for name, each in batch.items()}
        norms: dict[str, float] = {}

        def update(name: str, loss: Tensor) -> None:
            norms[name] = self._update(name, loss)

        with self.accelerator.autocast():
            values = self.objective.step(batch, step, noise, update)
        if self.average is not None:
            self._average_weights()
        self.step_number = step + 1
        numbers = {name: float(self._mean(value)) for name, value in values.items()}
        gradients = {f"gradient_{name}": norm for name, norm in norms.items()}
        return {**numbers, **gradients, "learning_rate": rate}

    def _update(self, name: str, loss: Tensor) -> float:
        """One step of a network's optimizer; returns the norm of the gradient."""
        value = float(self._mean(loss.detach()))
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value} at step {self.step_number + 1}")
        parameters, optimizer = self.parameters[name], self.optimizers[name]
        optimizer.zero_grad()
        with torch.autocast(loss.device.type, enabled=False):
            self.accelerator.backward(loss.float(), inputs=parameters)
        self._share_gradients(parameters)
        largest = self.settings.clip
        self.accelerator.unscale_gradients(optimizer)
        norm = float(nn.utils.clip_grad_norm_(parameters, largest or float("inf")))
        # Half precision overflows now and then; its gradient scaler leaves such steps out.
        if self.accelerator.scaler is None and not math.isfinite(norm):
            raise FloatingPointError(
                f"the gradient's norm became {norm} at step {self.step_number + 1}"
            )
        optimizer.step()
        return norm

    def _share_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over the processes, all in one message."""
        if self.accelerator.num_processes == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        shared = self.accelerator.reduce(flat, reduction="mean")
        parts = shared.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _mean(self, value: Tensor) -> Tensor:
        value = value.detach().float()
        if self.accelerator.num_processes == 1:
            return value
        mean: Tensor = self.accelerator.reduce(value.to(self.accelerator.device), reduction="mean")
        return mean

    @torch.no_grad()
    def _average_weights(self) -> None:
        """Move the average towards the weights; at first by larger parts, to forget the start."""
        steps = self.step_number + 1
        decay = min(float(self.settings.ema or 0.0), steps / (steps + 9))
        average: Any = self.average
        for averaged, current in zip(average.parameters(), self.model.parameters(), strict=True):
            averaged.lerp_(current, 1 - decay)
        for kept, buffer in zip(average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(buffer)


def objective_of(model: Model, settings: Settings) -> Objective:
    """What a model of this kind learns.

    Raises
    ------
    ValueError
        A loss or a degradation is unknown.
    TypeError
        The model is of no kind that there is.
    """
    if isinstance(model, RepairModel):
        return Repairing(model, parse_loss(settings.loss), parse_degradation(settings.degradation))
    if isinstance(model, Autoencoder):
        return Autoencoding(model)
    if isinstance(model, AdversarialPair):
        return Adversarial(model, settings.critic_steps)
    if isinstance(model, Classifier):
        return Classifying(model)
    raise TypeError(
        "expected a RepairModel, Autoencoder, AdversarialPair or Classifier, "
        f"got {type(model).__name__}"
    )
