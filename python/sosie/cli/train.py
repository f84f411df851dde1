# SPDX-License-Identifier: Apache-2.0
"""``sosie train``: a model of the zoo, from its first step or from where it was interrupted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sosie.cli.models import GENERATORS, REPAIRERS, SetOption
from sosie.cli.terminal import fail, messages, print_table, progress, results
from sosie.comparison.pairs import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from sosie.zoo.data import ImageCollection
    from sosie.zoo.model import Model
    from sosie.zoo.training import Result, Settings

__all__ = ["parsed_options", "train"]


def _option(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


def train(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help=f"{GENERATORS}; {REPAIRERS}; or features_lenet, a classifier."
        ),
    ],
    *,
    data: Annotated[
        str,
        typer.Option(
            help="A folder of images, an idx, npz or npy file, or one of: photographs, "
            "free-photographs, fashion-mnist, fashion-mnist-2000, digits.  "
            "[default: photographs to repair, else fashion-mnist-2000]",
            show_default=False,
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for weights, checkpoints, pictures and numbers.  [default: runs/MODEL]",
            show_default=False,
            file_okay=False,
        ),
    ] = None,
    options: SetOption = None,
    weights: Annotated[
        str | None, _option("To start from: a file, a run's folder, or a name: default.")
    ] = None,
    steps: Annotated[int | None, _option("In all, those before a resumption included.")] = None,
    batch: Annotated[int | None, _option("Images in a step, over all processes.")] = None,
    crop: Annotated[int | None, _option("Side of the crops that repair is learned from.")] = None,
    degradation: Annotated[
        str | None, _option("What to repair: gaussian_noise:0.1,missing_pixels:0.5")
    ] = None,
    loss: Annotated[str | None, _option("Of repair: l1:0.84,ssim:0.16")] = None,
    learning_rate: Annotated[float | None, _option("Of Adam.")] = None,
    weight_decay: Annotated[float | None, _option("Of AdamW.")] = None,
    schedule: Annotated[str | None, _option("constant, cosine or step.")] = None,
    warm_up: Annotated[float | None, _option("Share of the steps with a rising rate.")] = None,
    clip: Annotated[float | None, _option("Largest norm of a gradient.")] = None,
    ema: Annotated[float | None, _option("Decay of a moving average of the weights.")] = None,
    patience: Annotated[int | None, _option("Stop after so many fruitless validations.")] = None,
    checkpoint_every: Annotated[int | None, _option("Steps between checkpoints.")] = None,
    validate_every: Annotated[int | None, _option("Steps between validations.")] = None,
    sample_every: Annotated[int | None, _option("Steps between pictures.")] = None,
    keep: Annotated[int | None, _option("Checkpoints to keep.")] = None,
    seed: Annotated[int | None, _option("Of everything random.")] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic", help="Refuse what differs between runs.", show_default=False
        ),
    ] = None,
    mixed_precision: Annotated[str | None, _option("no, fp16 or bf16.")] = None,
    workers: Annotated[int | None, _option("Processes that prepare images.")] = None,
    resume: Annotated[
        str, typer.Option(help="auto: from the last good checkpoint; never; or a checkpoint.")
    ] = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write for TensorBoard, too.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as a JSON object.")
    ] = False,
) -> None:
    """Train a model of the zoo to generate or to repair images.

    The folder of a training holds checkpoints, the weights at the end (model.safetensors) and where
    they were best (best/model.safetensors), each with its configuration beside it, pictures every
    so many steps, and log.jsonl with every number. Run again, it goes on from the last good
    checkpoint, and ends where it would have without the interruption, on the CPU bit for bit.

    Several processes share a batch: torchrun --nproc-per-node 2 -m sosie train MODEL ...

    What is not given depends on the model.

    Example: sosie train repair_cnn --data photos/ --degradation gaussian_noise:0.1
    """
    given = {
        name: value
        for name, value in locals().items()
        if value is not None
        and name not in ("model", "data", "output", "options", "weights", "resume", "tensorboard")
        and name != "as_json"
    }
    network, settings, images = _prepared(
        model, data, weights, parsed_options(options or []), given
    )
    folder = output or Path("runs") / model
    try:
        outcome = _run(network, images, settings, folder, resume, tensorboard)
        _report(outcome, settings, folder, as_json)
    finally:
        _leave_the_others()


def parsed_options(options: list[str]) -> dict[str, Any]:
    """NAME=VALUE, where a value is JSON, numbers with commas between them, or else text."""
    config: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected --set NAME=VALUE, got {option!r}")
        for candidate in (text, f"[{text}]"):
            try:
                config[name.strip()] = json.loads(candidate)
                break
            except ValueError:
                config[name.strip()] = text
    return config


def _prepared(
    name: str, data: str, weights: str | None, config: dict[str, Any], given: dict[str, Any]
) -> tuple[Model, Settings, ImageCollection]:
    """Model, settings and images; refuses what does not fit before anything is trained."""
    from accelerate.utils import set_seed

    from sosie.zoo.data import open_collection
    from sosie.zoo.model import RepairModel
    from sosie.zoo.registry import create_model, model_class
    from sosie.zoo.training import Settings

    try:
        cls = model_class(name)
        is_repair = issubclass(cls, RepairModel)
        images = open_collection(data or ("photographs" if is_repair else "fashion-mnist-2000"))
        shape = images.common_shape()
        if weights is None and not is_repair and shape is not None:
            config.setdefault("image_shape", shape)
        set_seed(given.get("seed", 0))
        network = create_model(name, weights=weights, **config)
        settings = Settings.of(network, **given)
    except (OSError, TypeError, ValueError) as error:
        fail(str(error))
    return network, settings, images


def _run(
    network: Model,
    images: ImageCollection,
    settings: Settings,
    folder: Path,
    resume: str,
    tensorboard: bool,
) -> Result:
    from sosie.zoo import training

    tasks: dict[str, TaskID] = {}
    with progress() as bars:

        def watch(stage: str, done: int, total: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note="")
            bars.update(tasks[stage], completed=done, note=note)

        try:
            return training.train(
                network,
                images,
                settings,
                output=folder,
                resume=resume,
                tensorboard=tensorboard,
                watch=watch,
                tell=_say,
            )
        except OSError as error:
            where = error.filename or folder
            fail(f"{where} could not be written or read: {error.strerror or error}")
        except (FloatingPointError, TypeError, ValueError) as error:
            fail(str(error))


def _say(sentence: str) -> None:
    messages.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _report(outcome: Result, settings: Settings, folder: Path, as_json: bool) -> None:
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    if as_json:
        record = {
            "model": outcome.model.name,
            "steps": outcome.steps,
            "resumed_from": outcome.resumed_from,
            "stopped_early": outcome.stopped_early,
            "seconds": outcome.seconds,
            "measures": outcome.measures,
            "best": outcome.best,
            "settings": asdict(settings),
        }
        results.out(json.dumps(record, indent=2), highlight=False)
    else:
        table = Table(header_style="bold")
        for title in ("", f"step {outcome.steps}", f"best, step {outcome.best['step']:g}"):
            table.add_column(title, justify="right" if title else "left")
        for name, value in outcome.measures.items():
            table.add_row(name, f"{value:.4f}", f"{outcome.best[name]:.4f}")
        print_table(table)
    messages.print(f"wrote {printable(folder)}", markup=False, highlight=False, soft_wrap=True)


def _leave_the_others() -> None:
    """Processes that trained together part; without this, some would abort as they end."""
    from accelerate import PartialState

    PartialState().destroy_process_group()
