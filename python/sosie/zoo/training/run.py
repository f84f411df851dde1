# SPDX-License-Identifier: Apache-2.0
"""A training from its first step, or from where it was interrupted, to its last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sosie.zoo.data import ImageCollection, TrainingSequence
from sosie.zoo.degradations import parse_degradation
from sosie.zoo.model import Classifier, Model, RepairModel
from sosie.zoo.registry import save_model
from sosie.zoo.training.checkpoints import load_checkpoint, load_latest, save_checkpoint
from sosie.zoo.training.objective import Judge
from sosie.zoo.training.records import Records
from sosie.zoo.training.settings import Settings
from sosie.zoo.training.trainer import Trainer

__all__ = ["Result", "batches", "train", "training_sequence"]

#: Images left out that are named; all are counted.
_NAMED = 20
#: Told what is going on: stage, steps done, steps in all, a remark.
Watcher = Callable[[str, int, int, str], None]


@dataclass
class Result:
    """What came of a training.

    Attributes
    ----------
    model : Model
        Trained; the average of the weights if there is one. In evaluation mode.
    steps : int
        Steps in all.
    resumed_from : int
        The step it went on from; 0 if it was new.
    records : list of dict
        Numbers of every step that was taken in this call.
    measures : dict
        Of the last validation.
    best : dict
        Of the best validation, with its "step".
    stopped_early : bool
        Validations brought nothing better any more.
    seconds : float
        Of all steps in this call, validations and files included.
    """

    model: Model
    steps: int
    resumed_from: int = 0
    records: list[dict[str, float]] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    stopped_early: bool = False
    seconds: float = 0.0


def train(
    model: Model,
    images: ImageCollection,
    settings: Settings | None = None,
    *,
    output: str | Path | None = None,
    resume: str | Path = "auto",
    tensorboard: bool = False,
    watch: Watcher = lambda *_: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Train a model.

    Parameters
    ----------
    model : Model
        Its weights are where the training starts; they are changed in place.
    images : ImageCollection
        What to train on and what to judge by.
    settings : Settings, optional
        By default ``Settings.of(model)``.
    output : path, optional
        Folder for checkpoints, the best and the last weights, pictures and numbers. Without it
        nothing is written.
    resume : {"auto", "never"} or path
        Go on from the last good checkpoint in ``output``; start anew; go on from this checkpoint.
        The result is that of an uninterrupted training, on the CPU bit for bit.
    tensorboard : bool
        Write for TensorBoard, too.
    watch : callable
        Told about progress: stage, steps done, steps in all, a remark.
    tell : callable
        Given sentences about what is out of the ordinary.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        Settings, images, model and checkpoint do not fit.
    FloatingPointError
        The loss or a gradient is not finite. The last checkpoint is still there.
    OSError
        Something cannot be written.
    """
    settings = Settings.of(model) if settings is None else settings
    if settings.deterministic:
        torch.use_deterministic_algorithms(True)
    images = images.at_least(_crop(model, settings))
    trainer = Trainer(model, settings)
    is_main = trainer.accelerator.is_main_process
    if not is_main:  # one process speaks for all
        watch, tell = (lambda *_: None), (lambda _: None)
    _tell_skipped(images, tell)
    folder = None if output is None else Path(output)
    progress = _resumed(trainer, folder, resume, tell)
    seen = len(images.training)
    if progress.get("images", seen) != seen:
        raise ValueError(
            f"the checkpoint belongs to a training on {progress['images']} images, not on {seen}; "
            "train in another folder"
        )
    result = Result(trainer.best_model, trainer.step_number, resumed_from=trainer.step_number)
    result.measures, result.best = progress.get("measures", {}), progress.get("best", {})
    records = None
    if folder is not None and is_main:
        records = Records(folder, trainer.step_number, tensorboard)
    run = _Run(trainer, result, progress, folder, records)
    run.images = seen
    run.judge = trainer.objective.judge(images, trainer.accelerator.device)
    start = time.perf_counter()
    try:
        for batch in batches(training_sequence(model, images, settings), trainer):
            if run.has_stopped():
                break
            run.take(trainer.step(batch))
            watch("training", result.steps, settings.steps, f"loss {run.recent_loss():.4f}")
        run.finish()
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}; {run.what_is_left()}") from error
    finally:
        if records is not None:
            records.close()
    result.seconds = time.perf_counter() - start
    result.model.eval()
    return result


def batches(sequence: TrainingSequence, trainer: Trainer) -> Iterator[dict[str, Tensor]]:
    """This process's parts of the batches that are left, beginning with the next step's."""
    batch, accelerator = trainer.settings.batch, trainer.accelerator
    own = batch // accelerator.num_processes
    starts = (
        step * batch + accelerator.process_index * own
        for step in range(trainer.step_number, trainer.settings.steps)
    )
    loader: DataLoader[dict[str, Tensor]] = DataLoader(
        sequence,
        batch_sampler=(list(range(start, start + own)) for start in starts),
        num_workers=trainer.settings.workers,
    )
    return iter(loader)


class _Run:
    """What happens between the steps."""

    judge: Judge
    images: int

    def __init__(
        self,
        trainer: Trainer,
        result: Result,
        progress: dict[str, Any],
        folder: Path | None,
        records: Records | None,
    ) -> None:
        self.trainer, self.result, self.folder, self.records = trainer, result, folder, records
        self.fruitless: int = progress.get("fruitless", 0)
        self.judged_at = self.shown_at = self.saved_at = trainer.step_number if progress else -1

    def take(self, numbers: dict[str, float]) -> None:
        """Record a step, and do what is due after it."""
        step, settings = self.trainer.step_number, self.trainer.settings
        self.result.steps = step
        self.result.records.append(numbers)
        if self.records is not None:
            self.records.write(step, numbers)
        if settings.validate_every and step % settings.validate_every == 0:
            self._judge()
        if settings.sample_every and step % settings.sample_every == 0:
            self._show()
        if settings.checkpoint_every and step % settings.checkpoint_every == 0:
            self._save()

    def finish(self) -> None:
        """Do at the end what the last step did not."""
        step = self.trainer.step_number
        if self.judged_at != step:
            self._judge()
        if self.shown_at != step:
            self._show()
        if self.saved_at != step:
            self._save()
        if self.folder is not None and self.trainer.accelerator.is_main_process:
            save_model(self.result.model, self.folder / "model.safetensors")
        self.trainer.accelerator.wait_for_everyone()

    def has_stopped(self) -> bool:
        """Whether validations have brought nothing better for too long."""
        patience = self.trainer.settings.patience
        self.result.stopped_early = patience is not None and self.fruitless >= patience
        return self.result.stopped_early

    def recent_loss(self) -> float:
        """Mean loss of the last fifty steps."""
        losses = [numbers["loss"] for numbers in self.result.records[-50:]]
        return sum(losses) / len(losses)

    def what_is_left(self) -> str:
        """A phrase about the last checkpoint."""
        if self.saved_at > 0 and self.folder is not None:
            return f"the checkpoint of step {self.saved_at} in {self.folder} is good"
        return "there is no checkpoint yet"

    def _judge(self) -> None:
        """Validate on every process, so that all know whether to stop."""
        trainer, result, objective = self.trainer, self.result, self.trainer.objective
        self.judged_at = trainer.step_number
        with _evaluating(result.model):
            result.measures = self.judge.measure(result.model)
        if self.records is not None:
            named = {f"validation_{name}": value for name, value in result.measures.items()}
            self.records.write(trainer.step_number, named)
        value, best = result.measures[objective.criterion], result.best.get(objective.criterion)
        if best is not None and not (value > best if objective.higher_is_better else value < best):
            self.fruitless += 1
            return
        self.fruitless = 0
        result.best = {**result.measures, "step": trainer.step_number}
        if self.folder is not None and trainer.accelerator.is_main_process:
            save_model(result.model, self.folder / "best" / "model.safetensors")

    def _show(self) -> None:
        self.shown_at = self.trainer.step_number
        if self.records is not None:
            with _evaluating(self.result.model):
                self.records.show(self.shown_at, self.judge.grid(self.result.model))

    def _save(self) -> None:
        if self.folder is not None and self.trainer.accelerator.is_main_process:
            progress = {
                "images": self.images,
                "measures": self.result.measures,
                "best": self.result.best,
                "fruitless": self.fruitless,
            }
            save_checkpoint(self.trainer, self.folder / "checkpoints", progress)
        self.trainer.accelerator.wait_for_everyone()
        self.saved_at = self.trainer.step_number


class _evaluating:
    """Context in which a model is in evaluation mode; after it, it is as it was."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.was_training = self.model.training
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.was_training)


def _tell_skipped(images: ImageCollection, tell: Callable[[str], None]) -> None:
    for skipped in images.skipped[:_NAMED]:
        tell(f"{skipped.name} is left out: {skipped.reason}")
    if images.skipped:
        tell(f"{len(images.skipped)} images are left out, {len(images)} are used")


def _resumed(
    trainer: Trainer, folder: Path | None, resume: str | Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    if resume == "never":
        return {}
    if resume != "auto":
        return load_checkpoint(trainer, Path(resume))
    if folder is None:
        return {}
    return load_latest(trainer, folder / "checkpoints", tell) or {}


def _crop(model: Model, settings: Settings) -> tuple[int, int]:
    """Height and width of what is learned from."""
    if model.image_shape is not None:
        return model.image_shape[1:]
    if settings.crop < model.least_side:
        raise ValueError(
            f"expected a crop of at least {model.least_side} pixels for {model.name}, "
            f"got {settings.crop}"
        )
    return settings.crop, settings.crop


def training_sequence(
    model: Model, images: ImageCollection, settings: Settings
) -> TrainingSequence:
    """What a model of its kind sees of a collection."""
    is_repair = isinstance(model, RepairModel)
    return TrainingSequence(
        images.training,
        channels=model.channels,
        crop=_crop(model, settings),
        seed=settings.seed,
        weights=images.weights,
        augment=is_repair,
        degradation=parse_degradation(settings.degradation) if is_repair else None,
        labels=images.training_labels if isinstance(model, Classifier) else None,
    )
