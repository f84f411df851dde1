# SPDX-License-Identifier: Apache-2.0
"""A training step with sosie's loss and with those of its peers.

The step is one of `repair_cnn` on a batch of colour crops, with the loss 0.84 (1 - SSIM) + 0.16 L1:
forward, loss, backward, optimizer. Only the SSIM differs. In every round, the contenders take one
step each, in turn, and their loss and its gradient are timed alone on the same images. Times are
medians over the rounds; a loss's share is the median over rounds of its time over that of the whole
step. sosie's loss has to agree with the others within what their conventions differ by.

Run with `python -m benchmarks.bench_training`.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import machine_record
from benchmarks.ssim_peers import stand_in_for_torchvision
from sosie.zoo import create_model
from sosie.zoo.degradations import GaussianNoise
from sosie.zoo.losses import parse_loss
from sosie.zoo.training import Settings, Trainer
from sosie.zoo.training.repairing import Loss, Repairing

__all__ = ["main"]

_ALPHA = 0.84
_WARM_UP = 2
#: Peers treat the border differently, which moves the mean over 256 x 256 pixels less than this.
_AGREEMENT = 0.02
#: Share of a step that sosie's losses may take.
_GOAL = 0.05

app = typer.Typer(add_completion=False)


def _blend(similarity: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return _ALPHA * (1 - similarity(x, y)) + (1 - _ALPHA) * torch.nn.functional.l1_loss(x, y)

    return loss


def _losses() -> dict[str, Loss]:
    """sosie's and those of the peers that are installed."""
    losses: dict[str, Loss] = {"sosie": parse_loss(f"ssim:{_ALPHA},l1:{1 - _ALPHA}")}
    for name, make in _PEERS.items():
        try:
            losses[name] = _blend(make())
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return losses


def _pytorch_msssim() -> Callable[[Tensor, Tensor], Tensor]:
    from pytorch_msssim import ssim

    return lambda x, y: ssim(x, y, data_range=1.0)


def _kornia() -> Callable[[Tensor, Tensor], Tensor]:
    from kornia.metrics import ssim

    return lambda x, y: ssim(x, y, window_size=11).mean()


def _piq() -> Callable[[Tensor, Tensor], Tensor]:
    stand_in_for_torchvision()
    from piq import ssim

    # It refuses values outside of [0, 1], which restored images have.
    return lambda x, y: ssim(x.clamp(0, 1), y, data_range=1.0, downsample=False)


def _torchmetrics() -> Callable[[Tensor, Tensor], Tensor]:
    from torchmetrics.functional.image import structural_similarity_index_measure

    return lambda x, y: structural_similarity_index_measure(x, y, data_range=1.0)


#: piq last: others look at what stands in for torchvision, and stumble.
_PEERS = {
    "pytorch-msssim": _pytorch_msssim,
    "kornia": _kornia,
    "torchmetrics": _torchmetrics,
    "piq": _piq,
}


@app.command()
def main(
    *,
    size: Annotated[int, typer.Option(help="Side of the crops.")] = 256,
    batch: Annotated[int, typer.Option(help="Crops in a step.")] = 2,
    depth: Annotated[int, typer.Option(help="Convolutions of the network.")] = 7,
    width: Annotated[int, typer.Option(help="Channels between them.")] = 32,
    rounds: Annotated[int, typer.Option(help="Steps of each contender.")] = 15,
    threads: Annotated[int, typer.Option(help="Threads.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers.")] = None,
) -> None:
    """Time a training step and its loss; exit status 1 if losses disagree."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model: Any = create_model("repair_cnn", depth=depth, width=width)
    losses = _losses()
    trainers = {}
    for name, loss in losses.items():
        pupil = copy.deepcopy(model)
        settings = Settings.of(pupil, batch=batch, crop=size)
        trainers[name] = Trainer(pupil, settings, Repairing(pupil, loss, GaussianNoise()))
    images = _images(batch, size)
    damaged, known = GaussianNoise()(images, generator=torch.Generator().manual_seed(1))
    data = {"images": images, "damaged": damaged, "known": known}
    with torch.no_grad():
        prediction = model(damaged)
    values = {name: loss(prediction, images).item() for name, loss in losses.items()}
    steps: dict[str, list[float]] = {name: [] for name in losses}
    alone: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(_WARM_UP + rounds):
        for name, trainer in trainers.items():
            steps[name].append(_seconds(lambda each=trainer: each.step(data)))
            alone[name].append(
                _seconds(lambda each=losses[name]: _gradient(each, prediction, images))
            )
    record = {
        name: {
            "loss": values[name],
            "step_ms": 1e3 * float(np.median(steps[name][_WARM_UP:])),
            "loss_ms": 1e3 * float(np.median(alone[name][_WARM_UP:])),
            "share": float(np.median(np.divide(alone[name], steps[name])[_WARM_UP:])),
        }
        for name in losses
    }
    _print(record, f"{batch} x 3 x {size} x {size}, {depth} layers of {width}, {threads} threads")
    if json_file is not None:
        everything = {"machine": machine_record(), "contenders": record}
        json_file.write_text(json.dumps(everything, indent=2, default=str), encoding="utf-8")
    wrong = [name for name, value in values.items() if abs(value - values["sosie"]) > _AGREEMENT]
    if wrong:
        print(f"losses disagree: {', '.join(wrong)}", file=sys.stderr)
    raise typer.Exit(1 if wrong else 0)


def _images(batch: int, size: int) -> Tensor:
    """Smooth random images in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, max(2, size // 8), max(2, size // 8), generator=generator)
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")


def _gradient(loss: Loss, prediction: Tensor, target: Tensor) -> None:
    loss(prediction.requires_grad_(), target).backward()
    prediction.grad = None


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _print(record: dict[str, dict[str, float]], title: str) -> None:
    table = Table(title=title, caption=f"goal: sosie's share below {_GOAL:.0%}")
    table.add_column("loss of")
    for heading in ("step (ms)", "loss (ms)", "share of the step", "step, sosie faster"):
        table.add_column(heading, justify="right")
    for name, row in record.items():
        table.add_row(
            name,
            f"{row['step_ms']:.1f}",
            f"{row['loss_ms']:.2f}",
            f"{row['share']:.1%}",
            f"{row['step_ms'] / record['sosie']['step_ms']:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(app())
