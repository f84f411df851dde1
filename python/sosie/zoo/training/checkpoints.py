# SPDX-License-Identifier: Apache-2.0
"""The whole state of a training in a folder, written at once or not at all.

``step-00000500`` holds ``model.safetensors`` and ``model.json``, which :func:`create_model` reads,
and ``training.safetensors`` and ``training.json`` with the rest: optimizers, the weights that an
average was made of, the step, checksums. Random numbers and the place in the sequence of images are
functions of seed and step. A folder is filled under another name first, so that whatever kills the
process, folders called ``step-`` are whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from sosie.zoo.files import (
    InvalidFileError,
    digest,
    encoded,
    read_json,
    read_tensors,
    write_bytes,
    write_json,
)
from sosie.zoo.registry import description
from sosie.zoo.training.trainer import Trainer

__all__ = ["load_checkpoint", "load_latest", "save_checkpoint", "saved_checkpoints"]

_PREFIX, _PARTIAL = "step-", ".partial"
#: Settings that do not change what a step does, or only until when there are steps.
_FREE = {
    "steps", "workers", "checkpoint_every", "validate_every", "sample_every", "keep", "patience",
    "deterministic",
}  # fmt: skip


def saved_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    return sorted(folder.glob(f"{_PREFIX}*[0-9]"))


def save_checkpoint(trainer: Trainer, folder: Path, progress: dict[str, Any]) -> Path:
    """Write a checkpoint, and remove the oldest ones beyond ``keep``.

    Parameters
    ----------
    progress : dict
        Plain data that :func:`load_checkpoint` returns.

    Raises
    ------
    OSError
        It could not be written; the checkpoints before are still there.
    """
    path = folder / f"{_PREFIX}{trainer.step_number:08d}"
    partial = folder / f".{path.name}{_PARTIAL}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(trainer, partial, progress)
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
        _synchronise(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in saved_checkpoints(folder)[: -trainer.settings.keep]:
        shutil.rmtree(old)
    return path


def load_latest(
    trainer: Trainer, folder: Path, tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Load the last good checkpoint of a folder; None if there is no checkpoint at all.

    Parameters
    ----------
    tell : callable
        Given a sentence for every checkpoint that is refused.

    Raises
    ------
    InvalidFileError
        There are checkpoints, but none is good.
    ValueError
        The last good one belongs to another training.
    """
    for partial in folder.glob(f".{_PREFIX}*{_PARTIAL}"):
        shutil.rmtree(partial)
    paths = saved_checkpoints(folder)
    for path in reversed(paths):
        try:
            return load_checkpoint(trainer, path)
        except (InvalidFileError, OSError) as error:
            tell(f"checkpoint {path.name} is refused: {error}")
    if paths:
        raise InvalidFileError(f"none of the {len(paths)} checkpoints in {folder} can be used")
    return None


def load_checkpoint(trainer: Trainer, path: Path) -> dict[str, Any]:
    """Bring a trainer into the state that was saved; returns the saved progress.

    Everything is read and checked before anything is changed.

    Raises
    ------
    InvalidFileError
        A file is truncated, or not the one that was written.
    ValueError
        The checkpoint is that of another model or of a training with other settings.
    OSError
        A file cannot be read.
    """
    record = read_json(path / "training.json")
    if not isinstance(record, dict) or record.get("format") != 1:
        raise InvalidFileError(f"{path / 'training.json'} does not describe a training")
    _check_same(trainer, record, path)
    weights = read_tensors(path / "model.safetensors", record["digests"]["model"])
    rest = read_tensors(path / "training.safetensors", record["digests"]["training"])
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in rest.items():
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = tensor
    if trainer.average is not None:
        trainer.average.load_state_dict(weights)
        weights = parts["weights"]
    trainer.model.load_state_dict(weights)
    for name, optimizer in trainer.optimizers.items():
        _load_optimizer(optimizer, parts.get(name, {}))
    if trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(record["scaler"])
    trainer.step_number = record["step"]
    progress: dict[str, Any] = record["progress"]
    return progress


def _write(trainer: Trainer, folder: Path, progress: dict[str, Any]) -> None:
    model = encoded(trainer.best_model.state_dict())
    rest: dict[str, Tensor] = {}
    if trainer.average is not None:
        rest |= {f"weights/{key}": value for key, value in trainer.model.state_dict().items()}
    for name, optimizer in trainer.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            rest |= {f"{name}/{index}/{key}": value for key, value in state.items()}
    training = encoded(rest)
    scaler = trainer.accelerator.scaler
    write_bytes(folder / "model.safetensors", model)
    write_json(folder / "model.json", description(trainer.model))
    write_bytes(folder / "training.safetensors", training)
    write_json(
        folder / "training.json",
        {
            "format": 1,
            "step": trainer.step_number,
            **description(trainer.model),
            "settings": asdict(trainer.settings),
            "progress": progress,
            "scaler": None if scaler is None else scaler.state_dict(),
            "digests": {"model": digest(model), "training": digest(training)},
        },
    )


def _check_same(trainer: Trainer, record: dict[str, Any], path: Path) -> None:
    ours = {**description(trainer.model), **asdict(trainer.settings)}
    theirs = {**record, **record["settings"]}
    for name in ("model", "config", *asdict(trainer.settings)):
        if name not in _FREE and _plain(ours[name]) != _plain(theirs.get(name)):
            raise ValueError(
                f"{path} belongs to a training with {name} {theirs.get(name)!r}, "
                f"not {_plain(ours[name])!r}; train in another folder"
            )


def _plain(value: Any) -> Any:
    """As it is after a way through JSON."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _load_optimizer(optimizer: Any, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _synchronise(folder: Path) -> None:
    """Have the folder's new entry on the disk before old ones go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
