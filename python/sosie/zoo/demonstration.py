# SPDX-License-Identifier: Apache-2.0
"""The demonstration: train a small network through sosie's loss, and let it repair photographs.

The network, which repairs in stages and remembers, learns to remove noise and to fill in missing
pixels from the photographs in scikit-image's wheel, two of which it never sees; these it repairs,
and what comes out is measured against the originals, next to doing nothing and to repair without
training, whose settings are chosen on training photographs too. How long a training step takes is
measured with sosie's loss and with the same loss composed of plain torch operations. Beside it, a
generator is trained: `demonstration_generator`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sosie.comparison.measures import MEASURES
from sosie.nn import L1SSIMLoss
from sosie.torch import composite
from sosie.zoo import baselines, photographs
from sosie.zoo.data import open_collection
from sosie.zoo.degradations import Degradation, parse_degradation
from sosie.zoo.demonstration_generator import Generator, train_generator
from sosie.zoo.model import Model
from sosie.zoo.registry import create_model
from sosie.zoo.training import Settings as TrainingSettings
from sosie.zoo.training import Trainer, train
from sosie.zoo.training.repairing import Loss, Repairing
from sosie.zoo.training.run import batches, training_sequence

__all__ = ["NETWORK_CONFIG", "Outcome", "Repair", "Settings", "StepTimes", "run"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
#: Told what is going on: stage, steps done, steps in all, a remark.
Watcher = Callable[[str, int, int, str], None]

#: What is measured of every image, by the names of `sosie compare`.
JUDGES = tuple(MEASURES[name] for name in ("psnr", "ssim", "mse"))

#: A recurrent network that a laptop trains in a minute.
NETWORK_CONFIG: dict[str, Any] = {
    "width": 16, "stages": 3, "blocks": 1, "downscale": 2, "fill": (1.5, 4.0),
}  # fmt: skip

#: Settings of the baselines to choose from, by the mean SSIM on parts of training photographs.
_SIGMAS = (1.0, 1.5, 2.0, 2.5)
_MEANS = ((0.6, 0.05), (0.6, 0.07), (0.8, 0.05), (0.8, 0.07))
_TUNED_ON, _TUNED_SIDE = ("astronaut.png", "motorcycle_left.png", "rocket.jpg"), 160
#: Steps taken to learn how long one takes, when time is limited, and before times are taken.
_WARM_UP_STEPS = 5


@dataclass(frozen=True)
class Settings:
    """What the demonstration does.

    Attributes
    ----------
    steps : int
        Training steps.
    seconds : float or None
        If given, as many steps as are expected to fit in this time, measured on this machine; the
        outcome then depends on how fast it is.
    seed : int
        Of weights, crops and damage. Equal seeds and numbers of threads give equal images.
    crop, batch : int
        Side of the training crops in pixels, and how many make a step.
    alpha : float
        Weight of SSIM in the loss; the mean absolute error has the rest.
    noise, missing : float
        Standard deviation of the noise, for images in [0, 1], and probability of each pixel to be
        missing: what is done to images.
    timed_rounds : int
        Training steps timed with each loss.
    generator_steps : int
        Training steps of the generator.
    """

    steps: int = 2000
    seconds: float | None = None
    seed: int = 0
    crop: int = 64
    batch: int = 4
    alpha: float = 0.3
    noise: float = 0.1
    missing: float = 2 / 3
    timed_rounds: int = 25
    generator_steps: int = 600

    @property
    def degradation(self) -> Degradation:
        """What is done to images."""
        return parse_degradation(self._degradation)

    @property
    def _degradation(self) -> str:
        return f"gaussian_noise:{self.noise},missing_pixels:{self.missing}"

    def training(self, steps: int) -> TrainingSettings:
        """How the network is trained: Adam, and one cycle of the learning rate.

        Smith and Topin, "Super-convergence: very fast training of neural networks using large
        learning rates", 2019. Half as high a rate again gains nothing, three times is unstable. The
        gradients of single flat crops can be ten times the largest norm.
        """
        return TrainingSettings(
            steps=steps,
            batch=self.batch,
            crop=self.crop,
            degradation=self._degradation,
            loss=f"ssim:{self.alpha},l1:{1 - self.alpha}",
            learning_rate=1e-3,
            schedule="cosine",
            warm_up=0.1,
            clip=0.5,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Repair:
    """One version of a photograph, and how near it is to the original.

    Attributes
    ----------
    method : str
        What was done.
    pixels : ndarray of uint8, shape (H, W, 3)
    values : dict
        Measure name to value.
    """

    method: str
    pixels: Pixels
    values: dict[str, float]


@dataclass(frozen=True)
class Photograph:
    """A held-out photograph and what became of it: damaged, by each baseline, by the network."""

    name: str
    credit: str
    original: Pixels
    repairs: list[Repair]


@dataclass(frozen=True)
class StepTimes:
    """Medians over alternating training steps, in seconds.

    Attributes
    ----------
    step : float
        Whole step: forward, loss, backward, optimizer.
    loss : float
        The loss and its gradient alone, without the network.
    """

    step: float
    loss: float


@dataclass(frozen=True)
class Outcome:
    """Everything the demonstration found."""

    settings: Settings
    steps: int
    parameters: int
    threads: int
    losses: list[float]
    training_seconds: float
    photographs: list[Photograph]
    times: dict[str, StepTimes]
    generator: Generator

    def mean(self, method: str, measure: str) -> float:
        """One measure of one method, averaged over the held-out photographs."""
        values = [
            repair.values[measure]
            for photograph in self.photographs
            for repair in photograph.repairs
            if repair.method == method
        ]
        return float(np.mean(values))


#: Names of the versions of a photograph, from worst to best as one would hope.
DAMAGED, CONVOLVED, NON_LOCAL, NETWORK = METHODS = (
    "damaged",
    "normalised convolution",
    "non-local means",
    "network",
)
SOSIE, PLAIN = "sosie's loss", "the same loss of plain torch operations"


def run(settings: Settings, watch: Watcher = lambda *_: None) -> Outcome:
    """Train, repair, measure.

    Parameters
    ----------
    settings : Settings
        What to do.
    watch : callable
        Told about progress.

    Returns
    -------
    Outcome

    Raises
    ------
    FileNotFoundError
        The installed scikit-image lacks one of the photographs.
    FloatingPointError
        The loss is no longer finite.
    """
    torch.manual_seed(settings.seed)
    model = create_model("repair_rcnn", **NETWORK_CONFIG)
    steps = settings.steps
    if settings.seconds is not None:
        steps = _steps_within(settings.seconds, model, settings)
    trained = train(model, open_collection("photographs"), settings.training(steps), watch=watch)
    tools = {**_tuned_baselines(settings, watch), NETWORK: _network(model)}
    repaired = _repair_photographs(tools, settings, watch)
    return Outcome(
        settings=settings,
        steps=steps,
        parameters=sum(weight.numel() for weight in model.parameters()),
        threads=torch.get_num_threads(),
        losses=[numbers["loss"] for numbers in trained.records],
        training_seconds=trained.seconds,
        photographs=repaired,
        times=_time_steps(model, settings, watch),
        generator=train_generator(settings.generator_steps, settings.seed, watch),
    )


def _steps_within(seconds: float, model: Model, settings: Settings) -> int:
    """Training steps that fit in a time, by timing some of a copy of the model."""
    steps = 2 * _WARM_UP_STEPS
    trainer = Trainer(copy.deepcopy(model), settings.training(steps))
    loader = _batches(trainer)
    durations = [_seconds(lambda: trainer.step(next(loader))) for _ in range(steps)]
    return max(1, int(seconds / np.median(durations[_WARM_UP_STEPS:])))


def _batches(trainer: Trainer) -> Iterator[dict[str, Tensor]]:
    images = open_collection("photographs")
    return batches(training_sequence(trainer.model, images, trainer.settings), trainer)


# ------------------------------------------------------------------------------------------- repair

#: Repairs a damaged image (H, W, 3) of floats in [0, 1], given which pixels are known (H, W).
Tool = Callable[
    [np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.bool_]]],
    np.ndarray[Any, np.dtype[np.float32]],
]


def _network(model: nn.Module) -> Tool:
    def repair(damaged: Any, known: Any) -> Any:
        with torch.inference_mode():
            repaired = model(_to_tensor(damaged), torch.from_numpy(known).float()[None, None])
        return repaired[0].permute(1, 2, 0).numpy()

    return repair


def _tuned_baselines(settings: Settings, watch: Watcher) -> dict[str, Tool]:
    """Each baseline with the settings that suit parts of training photographs best."""

    def convolution(sigma: float) -> Tool:
        return lambda damaged, known: baselines.normalised_convolution(damaged, known, sigma)

    def means(sigma: float, strength: float) -> Tool:
        return lambda damaged, known: baselines.non_local_means(damaged, known, sigma, strength)

    candidates = {
        CONVOLVED: [convolution(sigma) for sigma in _SIGMAS],
        NON_LOCAL: [means(*setting) for setting in _MEANS],
    }
    parts = [_middle(photographs.load_photograph(name), _TUNED_SIDE) for name in _TUNED_ON]
    total = len(parts) * sum(map(len, candidates.values()))
    done = 0
    tuned = {}
    for method, tools in candidates.items():
        scores = []
        for tool in tools:
            values = []
            for part in parts:
                damaged, known = _damage(part, settings)
                values.append(_measure(_apply(tool, damaged, known), part)["ssim"])
                done += 1
                watch("tuning baselines", done, total, method)
            scores.append(np.mean(values))
        tuned[method] = tools[int(np.argmax(scores))]
    return tuned


def _repair_photographs(
    tools: dict[str, Tool], settings: Settings, watch: Watcher
) -> list[Photograph]:
    repaired = []
    total = len(photographs.CREDITS) * len(tools)
    done = 0
    for name, credit in photographs.CREDITS.items():
        original = photographs.load_photograph(name)
        damaged, known = _damage(original, settings)
        versions = {DAMAGED: damaged}
        for method, tool in tools.items():
            versions[method] = _apply(tool, damaged, known)
            done += 1
            watch("repairing", done, total, name)
        repairs = [
            Repair(method, pixels, _measure(pixels, original))
            for method, pixels in versions.items()
        ]
        repaired.append(Photograph(name, credit, original, repairs))
    return repaired


def _damage(
    original: Pixels, settings: Settings
) -> tuple[Pixels, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Damaged image, rounded to 8 bits like one from a file, and which pixels are known."""
    generator = torch.Generator().manual_seed(settings.seed + 1)  # unlike any damage in training
    damaged, known = settings.degradation(_to_tensor(_to_unit(original)), generator=generator)
    return _to_8_bit(damaged[0].permute(1, 2, 0).numpy()), known[0, 0].numpy() > 0


def _apply(tool: Tool, damaged: Pixels, known: np.ndarray[Any, np.dtype[np.bool_]]) -> Pixels:
    return _to_8_bit(tool(_to_unit(damaged), known))


def _measure(pixels: Pixels, original: Pixels) -> dict[str, float]:
    return {
        measure.name: measure.compute(pixels, original, 255.0, measure.default_spec)
        for measure in JUDGES
    }


def _middle(photograph: Pixels, side: int) -> Pixels:
    top, left = ((size - side) // 2 for size in photograph.shape[:2])
    return np.ascontiguousarray(photograph[top : top + side, left : left + side])


def _to_unit(pixels: Pixels) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[0, 255] to [0, 1]."""
    return pixels.astype(np.float32) / 255.0


def _to_tensor(image: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    """(H, W, 3) to (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def _to_8_bit(image: np.ndarray[Any, np.dtype[np.float32]]) -> Pixels:
    pixels: Pixels = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    return pixels


# -------------------------------------------------------------------------------------------- times


def _time_steps(model: Model, settings: Settings, watch: Watcher) -> dict[str, StepTimes]:
    """Training steps of copies of the model on one batch, the two losses taking turns."""
    fused = L1SSIMLoss(data_range=1.0, alpha=settings.alpha)

    def plain(prediction: Tensor, target: Tensor) -> Tensor:
        parameters = fused.spec.resolve(tuple(target.shape[2:]), fused.data_range)
        return composite.ssim_loss(
            prediction,
            target,
            parameters,
            ssim_weight=settings.alpha,
            l1_weight=1.0 - settings.alpha,
        )

    losses: dict[str, Loss] = {SOSIE: fused, PLAIN: plain}
    rounds = _WARM_UP_STEPS + settings.timed_rounds
    trainers = {}
    for name, loss in losses.items():
        pupil: Any = copy.deepcopy(model)
        objective = Repairing(pupil, loss, settings.degradation)
        trainers[name] = Trainer(pupil, settings.training(rounds), objective)
    batch = next(_batches(trainers[SOSIE]))
    with torch.no_grad():
        prediction = model(batch["damaged"], batch["known"])
    steps: dict[str, list[float]] = {name: [] for name in losses}
    alone: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(rounds):
        for name, trainer in trainers.items():
            steps[name].append(_seconds(partial(trainer.step, batch)))
            alone[name].append(
                _seconds(partial(_gradient, losses[name], prediction, batch["images"]))
            )
        watch("timing steps", turn + 1, rounds, "")
    return {
        name: StepTimes(
            step=float(np.median(steps[name][_WARM_UP_STEPS:])),
            loss=float(np.median(alone[name][_WARM_UP_STEPS:])),
        )
        for name in losses
    }


def _gradient(loss: Loss, prediction: Tensor, target: Tensor) -> None:
    """The loss and its gradient, without a network."""
    loss(prediction.requires_grad_(), target).backward()
    prediction.grad = None


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
