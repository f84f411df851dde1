# SPDX-License-Identifier: Apache-2.0
"""``sosie evaluate``: how well a model repairs or generates, measured as published results were."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sosie.cli.models import GENERATORS, REPAIRERS, SetOption, WeightsOption
from sosie.cli.terminal import DIRECTIONS, fail, messages, print_table, progress, results
from sosie.cli.train import parsed_options
from sosie.comparison.pairs import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sosie.report.evaluation import Subject
    from sosie.zoo.evaluation.generation import GenerationEvaluation
    from sosie.zoo.evaluation.likelihood import LikelihoodEvaluation
    from sosie.zoo.evaluation.repair import RepairEvaluation, RepairProtocol
    from sosie.zoo.evaluation.work import Engine
    from sosie.zoo.model import Model

__all__ = ["evaluate"]

#: In place of a model: what needs no training.
_CLASSICAL = "classical"


def _option(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=f"{REPAIRERS}; {GENERATORS}; or classical: repair that needs no training, alone.",
        ),
    ],
    *,
    weights: WeightsOption = "default",
    options: SetOption = None,
    data: Annotated[
        str,
        _option(
            "An image, a folder of images or a pattern such as 'set5/*_HR.png', all of which "
            "count; or a file or a name as of sosie train, of which those to judge by count.  "
            "[default: photographs to repair, else fashion-mnist-2000]"
        ),
    ] = "",
    degradation: Annotated[
        str,
        _option(
            "Repair: what is done to images, gaussian_noise:0.1,missing_pixels:0.5  "
            "[default: what the model's weights are for, or it is trained for]"
        ),
    ] = "",
    damaged: Annotated[
        Path | None, _option("Repair: damaged images, a folder or a pattern; with --truth.")
    ] = None,
    truth: Annotated[Path | None, _option("Repair: what they were.")] = None,
    mask: Annotated[
        Path | None,
        _option(
            "Repair: what is missing, in white: a file for all images, or a folder with a mask of "
            "the same name for each."
        ),
    ] = None,
    measures: Annotated[
        str, typer.Option(help="Repair: what is measured; ssim:scikit-image names a convention.")
    ] = "psnr,ssim,ms-ssim,mse",
    luminance: Annotated[
        bool | None,
        typer.Option(
            "--luminance/--colour",
            help="Repair: luminance alone.  [default: for super-resolution]",
            show_default=False,
        ),
    ] = None,
    border: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Repair: pixels at each side that do not count.  [default: 0, or the scale]",
            min=0,
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            metavar="N", help="Generation: images of each kind, if there are as many.", min=1
        ),
    ] = 5000,
    features: Annotated[
        str, _option("Generation: spaces of features, with commas.  [default: all that fit]")
    ] = "",
    neighbours: Annotated[
        int, typer.Option(metavar="N", help="Generation: to which neighbourhoods reach.", min=1)
    ] = 5,
    parzen: Annotated[
        bool, typer.Option(help="Generation: likelihood by Parzen's window, too.")
    ] = True,
    samples: Annotated[
        int,
        typer.Option(
            metavar="N", help="Autoencoders: codes of an image for its likelihood.", min=1
        ),
    ] = 500,
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything random.", min=0)] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, results.json and, of repair, results.csv.  "
            "[default: evaluation/MODEL]",
            show_default=False,
        ),
    ] = None,
    parquet: Annotated[
        Path | None,
        _option("Keep each image's results in this folder as they come, and go on from there."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Who works: local or ray. With ray, --parquet is needed.")
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images under work at a time.", min=1, show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as a JSON object.")
    ] = False,
) -> None:
    """Measure how well a model repairs or generates images.

    Repair: images are damaged, or damaged ones given; every measure against the truth stands beside
    that of doing nothing and of what is usual without training. Where images were reduced
    (--degradation downsample:2, or damaged files smaller than the truth), "doing nothing" is
    MATLAB's bicubic enlargement, luminance alone is measured, and without a border.

    Generation: precision, recall, density, coverage, kernel and Fréchet distance to real images in
    spaces of features, each beside what other real images get; for autoencoders with normal codes
    the bound on the likelihood and its importance-weighted estimate.

    An image that cannot be used is named with its reason; the others are evaluated all the same,
    and the exit status is 1.

    Example: sosie evaluate repair_cnn --data photos/ --degradation gaussian_noise:0.1
    """
    # torch takes a second or two to import: not before the arguments are known to be good.
    config = parsed_options(options or [])
    folder = output or Path("evaluation") / model
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise typer.BadParameter(f"expected --output to be a folder, got the file {parent}")
    if not os.access(parent, os.W_OK):
        raise typer.BadParameter(f"{printable(parent)} cannot be written to")
    from sosie.zoo.evaluation.work import Engine
    from sosie.zoo.model import AdversarialPair, Autoencoder, RepairModel
    from sosie.zoo.registry import create_model

    start = time.perf_counter()
    try:
        worker = Engine(engine, parquet, jobs)
        network = None if model == _CLASSICAL else create_model(model, weights=weights, **config)
        if network is None or isinstance(network, RepairModel):
            from sosie.zoo.evaluation.cases import find_cases
            from sosie.zoo.evaluation.repair import evaluate_repair

            if network is not None and not (degradation or damaged or mask):
                degradation = _learned(model, weights, network)
            cases = find_cases(
                data or ("" if truth else "photographs"), truth=truth, damaged=damaged, masks=mask
            )
            protocol = _protocol(
                model, weights, config, degradation, cases.rows, mask, measures, luminance,
                border, seed,
            )  # fmt: skip
            evaluation = _with_bar(
                "repairing",
                len(cases.rows),
                lambda done: evaluate_repair(cases, protocol, worker, done),
            )
            shown = data or (printable(truth) if truth else "photographs")
            subject = _subject(model, network, weights, shown, start)
            _write_repair(subject, evaluation, folder, as_json)
            return
        if not isinstance(network, AdversarialPair | Autoencoder):
            fail(f"{model} neither repairs nor generates images")
        if degradation or damaged or truth or mask:
            raise typer.BadParameter(
                f"--degradation, --damaged, --truth and --mask are for repair; {model} generates"
            )
        generated, likelihood = _generated(
            network, data or "fashion-mnist-2000", count, features, neighbours, parzen, samples,
            seed, worker,
        )  # fmt: skip
        subject = _subject(model, network, weights, data or "fashion-mnist-2000", start)
        _write_generation(subject, generated, likelihood, folder, as_json)
    except (TypeError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        where = f"{printable(error.filename)}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}")


def _learned(name: str, weights: str, network: Model) -> str:
    """The damage that a model is for: that of its weights, else its usual one."""
    from sosie.zoo.weights import find_weights

    shipped = find_weights(name, weights)
    if shipped is not None and shipped.degradation:
        return shipped.degradation
    return str(network.training_defaults().get("degradation", "gaussian_noise:0.1"))


def _protocol(
    model: str, weights: str, config: dict[str, Any], degradation: str, rows: list[dict[str, Any]],
    mask: Path | None, measures: str, luminance: bool | None, border: int | None, seed: int,
) -> RepairProtocol:  # fmt: skip
    from sosie.zoo.degradations import Downsample, parse_degradation
    from sosie.zoo.evaluation.repair import RepairProtocol, common_scale, parse_measures

    parse_measures(measures)
    row = rows[0]
    if row["damaged"] and degradation:
        raise ValueError("expected damaged images or a degradation, got both")
    if not (row["damaged"] or degradation or mask):
        raise ValueError(
            "expected a --degradation, a --mask, or --damaged images with their --truth"
        )
    damage = parse_degradation(degradation) if degradation else None
    scale = common_scale(rows)
    if isinstance(damage, Downsample) and damage.scale == int(damage.scale):
        scale = int(damage.scale)
    return RepairProtocol(
        model="" if model == _CLASSICAL else model,
        weights=weights,
        config=config,
        degradation=degradation,
        masked=mask is not None,
        scale=scale,
        luminance=scale > 1 if luminance is None else luminance,
        border=(scale if scale > 1 else 0) if border is None else border,
        measures=measures,
        seed=seed,
    )


def _generated(
    network: Model, data: str, count: int, features: str, neighbours: int, parzen: bool,
    samples: int, seed: int, worker: Engine,
) -> tuple[GenerationEvaluation, LikelihoodEvaluation | None]:  # fmt: skip
    from sosie.zoo.data import open_collection
    from sosie.zoo.evaluation.cases import find_cases
    from sosie.zoo.evaluation.generation import evaluate_generation
    from sosie.zoo.evaluation.likelihood import evaluate_likelihood
    from sosie.zoo.gaussian_autoencoder import GaussianAutoencoder
    from sosie.zoo.training.autoencoding import evenly_chosen

    spaces = [name.strip() for name in features.split(",") if name.strip()] or None
    tasks: dict[str, Any] = {}
    with progress() as bars:

        def watch(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note="")
            bars.update(tasks[stage], completed=done)

        generated = evaluate_generation(
            network, open_collection(data), count=count, spaces=spaces, neighbours=neighbours,
            parzen=parzen, seed=seed, watch=watch,
        )  # fmt: skip
    if not isinstance(network, GaussianAutoencoder) or not network.has_likelihood:
        return generated, None
    rows = evenly_chosen(find_cases(data).rows, count)
    likelihood = _with_bar(
        "likelihood",
        len(rows),
        lambda done: evaluate_likelihood(
            network, rows, samples=samples, seed=seed, engine=worker, on_done=done
        ),
    )
    return generated, likelihood


def _with_bar(stage: str, total: int, work: Callable[[Callable[[int], None]], Any]) -> Any:
    with progress() as bars:
        task = bars.add_task(stage, total=total, note="")
        return work(lambda done: bars.advance(task, done))


def _subject(model: str, network: Model | None, weights: str, data: str, start: float) -> Subject:
    from sosie.report.evaluation import Subject

    command = shlex.join(["sosie", *sys.argv[1:]])
    return Subject(model, network, weights, data, command, time.perf_counter() - start)


def _write_repair(
    subject: Subject, evaluation: RepairEvaluation, folder: Path, as_json: bool
) -> None:
    from sosie.report import evaluation as report

    if not evaluation.rows:
        name, reason = evaluation.failures[0]
        fail(f"no image could be evaluated; {name}: {reason}")
    record = report.repair_evaluation_json(subject, evaluation)
    _write(
        folder,
        {
            "results.json": json.dumps(record, indent=2, ensure_ascii=False) + "\n",
            "results.csv": report.repair_evaluation_csv(evaluation),
            "report.html": report.repair_evaluation_html(subject, evaluation),
        },
    )
    if as_json:
        results.out(json.dumps(record, indent=2), highlight=False)
    else:
        judges = evaluation.protocol.judges
        table = Table(header_style="bold", caption=DIRECTIONS, caption_justify="left")
        table.add_column(f"mean of {len(evaluation.rows)}", overflow="fold")
        for judge in judges:
            unit = f" ({judge.unit})" if judge.unit else ""
            arrow = "↑" if judge.higher_is_better else "↓"
            table.add_column(f"{judge.title}{unit} {arrow}", justify="right")
        for method in evaluation.methods:
            values = (judge.text(evaluation.mean(method, judge.name)) for judge in judges)
            style = "bold" if method == subject.name else None
            table.add_row(Text(method), *values, style=style)
        print_table(table)
    _name_failures(evaluation.failures)


def _write_generation(
    subject: Subject,
    evaluation: GenerationEvaluation,
    likelihood: LikelihoodEvaluation | None,
    folder: Path,
    as_json: bool,
) -> None:
    from sosie.report import evaluation as report

    record = report.generation_evaluation_json(subject, evaluation, likelihood)
    _write(
        folder,
        {
            "results.json": json.dumps(record, indent=2, ensure_ascii=False) + "\n",
            "report.html": report.generation_evaluation_html(subject, evaluation, likelihood),
        },
    )
    if as_json:
        results.out(json.dumps(record, indent=2), highlight=False)
    else:
        print_table(_matches(evaluation))
        for line in _likelihood_lines(evaluation, likelihood):
            results.print(line, highlight=False)
    for name, reason in evaluation.refused.items():
        messages.print(f"{name} is left out: {reason}", style="yellow", soft_wrap=True)
    _name_failures([] if likelihood is None else likelihood.failures)


def _matches(evaluation: GenerationEvaluation) -> Table:
    """A line for each space and measure, a column for the generated images and for others."""
    table = Table(header_style="bold", caption=DIRECTIONS, caption_justify="left")
    table.add_column("space")
    table.add_column(f"of {evaluation.count} images")
    for images in dict.fromkeys(match.images for match in evaluation.matches):
        table.add_column(images, justify="right")
    for space in dict.fromkeys(match.space for match in evaluation.matches):
        shown = [match.shown for match in evaluation.matches if match.space == space]
        for index, name in enumerate(shown[0]):
            arrow = "↓" if name.endswith("distance") else "↑"
            texts = (each[name][1] for each in shown)
            table.add_row("" if index else space, f"{name} {arrow}", *texts)
        table.add_section()
    return table


def _likelihood_lines(
    evaluation: GenerationEvaluation, likelihood: LikelihoodEvaluation | None
) -> list[str]:
    lines = [
        f"Parzen, window {each.sigma:.3f} around {each.images}: {each.log_likelihood.mean:.1f} ± "
        f"{each.log_likelihood.error:.1f} nats ↑"
        for each in evaluation.parzen
    ]
    if likelihood is not None:
        kind = "" if likelihood.is_density else "cross entropy of gray values, no density: "
        bound, nll = likelihood.negative_elbo, likelihood.nll
        lines.append(f"{kind}-ELBO {bound.mean:.2f} ± {bound.error:.2f} nats ↓")
        lines.append(
            f"{kind}-log p(x), {likelihood.samples} codes: {nll.mean:.2f} ± {nll.error:.2f} nats ↓"
        )
    return lines


def _write(folder: Path, texts: dict[str, str]) -> None:
    from sosie.report.page import write_atomically

    for name, text in texts.items():
        write_atomically(folder / name, text)
        path = printable(folder / name)
        messages.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def _name_failures(failures: list[tuple[str, str]]) -> None:
    for name, reason in failures:
        messages.print(
            f"{name}: {reason}", style="red", markup=False, highlight=False, soft_wrap=True
        )
    if failures:
        raise typer.Exit(1)
