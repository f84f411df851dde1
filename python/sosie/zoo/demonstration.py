# SPDX-License-Identifier: Apache-2.0
"""The demonstration: train on photographs, repair others, and measure what came of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sosie.comparison.measures import MEASURES
from sosie.nn import L1SSIMLoss
from sosie.spec import ssim_spec
from sosie.torch import composite
from sosie.zoo.baselines import masked_median, normalised_convolution
from sosie.zoo.degradations import NoiseAndHoles
from sosie.zoo.photographs import HELD_OUT, TRAINING, load_photograph
from sosie.zoo.repair_unet import RepairUNet
from sosie.zoo.training import CropSampler, Trainer

__all__ = ["MEASURED", "Demonstration", "Repair", "StepTimes", "run"]

#: What the repairs are judged by.
MEASURED = tuple(MEASURES[name] for name in ("psnr", "ssim", "mse"))

#: Crops of a training step: many small ones see more of few photographs than few large ones.
_CROP, _BATCH = 64, 4
#: Weight of the similarity in the loss; the rest is the absolute error's.
_ALPHA = 0.84
#: Crops of the steps that are timed, of a size that networks are usually trained on.
_TIMED_CROP, _TIMED_BATCH, _TIMED_ROUNDS = 128, 8, 7

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Repair:
    """One photograph that the network has not seen.

    Attributes
    ----------
    name : str
        File name of the photograph.
    original : ndarray of uint8, shape (H, W, 3)
    versions : dict of str to ndarray of uint8
        The damaged photograph ("damaged"), what methods without training make of it, and what the
        network does ("repaired").
    values : dict of str to dict of str to float
        For each version each measure of `MEASURED` by name, against the original.
    """

    name: str
    original: Pixels
    versions: dict[str, Pixels]
    values: dict[str, dict[str, float]]


@dataclass(frozen=True)
class StepTimes:
    """Median milliseconds of whole training steps, and of the loss and its gradient alone.

    Attributes
    ----------
    step, loss : dict of str to float
        With sosie's loss ("sosie"), and the same loss composed of torch operations ("composed").
    batch, crop : int
        Images per step and their side in pixels.
    threads : int
    """

    step: dict[str, float]
    loss: dict[str, float]
    batch: int
    crop: int
    threads: int


@dataclass(frozen=True)
class Demonstration:
    """Everything that was seen."""

    losses: list[float]
    seconds: float
    repairs: list[Repair]
    times: StepTimes
    damage: NoiseAndHoles
    parameters: int
    seed: int


def run(
    *,
    steps: int,
    seed: int,
    on_step: Callable[[float], None] = lambda _loss: None,
    on_stage: Callable[[str], None] = lambda _stage: None,
) -> Demonstration:
    """Train, repair and measure.

    Parameters
    ----------
    steps : int
        Training steps.
    seed : int
        Of everything random. Equal seeds and numbers of threads give equal results.
    on_step : callable
        Called with the loss after every training step.
    on_stage : callable
        Called with what comes next.

    Returns
    -------
    Demonstration

    Raises
    ------
    FloatingPointError
        The loss is no longer finite.
    """
    torch.manual_seed(seed)
    photographs = [load_photograph(name) for name in TRAINING]
    damage = NoiseAndHoles()
    model = RepairUNet()
    loss = L1SSIMLoss(data_range=1.0, alpha=_ALPHA)
    trainer = Trainer(model, loss, damage, steps=steps, seed=seed)
    sampler = CropSampler(photographs, crop=_CROP, batch=_BATCH, seed=seed)
    losses: list[float] = []
    on_stage("training")
    begin = time.perf_counter()
    for step in range(steps):
        losses.append(trainer.step(sampler.draw()))
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss became {losses[-1]} at step {step + 1}")
        on_step(losses[-1])
    seconds = time.perf_counter() - begin
    on_stage("repairing")
    repairs = [_repair(model, damage, name, seed + 1 + i) for i, name in enumerate(HELD_OUT)]
    on_stage("timing")
    times = _time_steps(model, loss, damage, photographs, seed)
    count = sum(weights.numel() for weights in model.parameters())
    return Demonstration(losses, seconds, repairs, times, damage, count, seed)


def _repair(model: nn.Module, damage: NoiseAndHoles, name: str, seed: int) -> Repair:
    original = load_photograph(name)
    image = torch.from_numpy(original.transpose(2, 0, 1).copy())[None] / 255.0
    damaged, known = damage(image, torch.Generator().manual_seed(seed))
    damaged = (damaged * 255.0).round() / 255.0  # as a file would hold it
    with torch.no_grad():
        repaired = model(damaged, known)
    pixels = damaged[0].numpy().transpose(1, 2, 0)
    mask = known[0, 0].numpy() > 0
    versions = {
        "damaged": _to_8_bit(pixels),
        "median of the known pixels": _to_8_bit(masked_median(pixels, mask, 5)),
        "normalised convolution": _to_8_bit(_best_convolution(original, pixels, mask)),
        "repaired": _to_8_bit(repaired[0].numpy().transpose(1, 2, 0)),
    }
    values = {
        version: {
            measure.name: measure.compute(picture, original, 255.0, measure.default_spec)
            for measure in MEASURED
        }
        for version, picture in versions.items()
    }
    return Repair(name, original, versions, values)


def _best_convolution(original: Pixels, damaged: Any, known: Any) -> Any:
    """The window is chosen with the original in hand: the most that this method can do."""
    candidates = [normalised_convolution(damaged, known, sigma) for sigma in (1.0, 1.5, 2.0, 2.5)]
    similarity = MEASURES["ssim"]

    def quality(picture: Any) -> float:
        return similarity.compute(_to_8_bit(picture), original, 255.0, similarity.default_spec)

    return max(candidates, key=quality)


def _to_8_bit(image: Any) -> Pixels:
    return np.ascontiguousarray(np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8))


def _composed_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of the training, of plain torch operations."""
    parameters = ssim_spec("wang2004").resolve(tuple(prediction.shape[2:]), 1.0)
    return composite.ssim_loss(prediction, target, parameters, None, _ALPHA, 1.0 - _ALPHA)


def _time_steps(
    model: nn.Module, loss: Loss, damage: NoiseAndHoles, photographs: list[Pixels], seed: int
) -> StepTimes:
    """Both losses in turn, on copies of the network; the first round warms up, uncounted."""
    sampler = CropSampler(photographs, crop=_TIMED_CROP, batch=_TIMED_BATCH, seed=seed)
    images = sampler.draw()
    losses = {"sosie": loss, "composed": _composed_loss}
    trainers = {
        name: Trainer(copy.deepcopy(model), one, damage, steps=_TIMED_ROUNDS + 1, seed=seed)
        for name, one in losses.items()
    }
    step_times: dict[str, list[float]] = {name: [] for name in losses}
    loss_times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(_TIMED_ROUNDS + 1):
        for name, one in losses.items():
            step_times[name].append(_milliseconds(partial(trainers[name].step, images)))
            prediction = (images * 0.9).requires_grad_()
            loss_times[name].append(_milliseconds(partial(_differentiate, one, prediction, images)))
    return StepTimes(
        {name: median(times[1:]) for name, times in step_times.items()},
        {name: median(times[1:]) for name, times in loss_times.items()},
        _TIMED_BATCH,
        _TIMED_CROP,
        torch.get_num_threads(),
    )


def _differentiate(loss: Loss, prediction: Tensor, target: Tensor) -> None:
    loss(prediction, target).backward()


def _milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)
