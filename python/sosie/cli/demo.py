# SPDX-License-Identifier: Apache-2.0
"""``sosie demo``: train a small network, repair two photographs, show what came of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sosie.cli.terminal import (
    DIRECTIONS,
    fail,
    heading,
    make_folder,
    messages,
    print_table,
    progress,
    results,
)
from sosie.comparison.pairs import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from sosie.zoo.demonstration import Outcome, Settings

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option(help="The page to write.", dir_okay=False)] = Path(
        "demo/report.html"
    ),
    steps: Annotated[
        int,
        typer.Option(metavar="N", help="Training steps; the default takes about a minute.", min=1),
    ] = 2000,
    generator_steps: Annotated[
        int, typer.Option(metavar="N", help="Those of the generator.", min=1)
    ] = 600,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Train for about this long, in as many steps as this machine does.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of all random numbers.", min=0)] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as a JSON object, not as a table.")
    ] = False,
) -> None:
    """Train two small networks, and show in one page what they do.

    A recurrent network learns to repair photographs, through sosie's SSIM + L1 loss. The
    photographs are those in scikit-image's wheel; nothing is downloaded. Two of them the network
    never sees: these it repairs, and the page shows them damaged, repaired and as they were, with
    PSNR, SSIM and MSE next to two repairs without training. It also shows how long a training step
    took with sosie's loss and with the same loss composed of plain torch operations. A generator
    learns from 2,000 pictures of clothing that come with sosie; the page shows what it makes up,
    and how well that matches pictures it never saw.

    Equal seeds, steps and numbers of threads give equal images.
    """
    if seconds is not None and not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"expected a positive number of --seconds, got {seconds}")
    make_folder(output.parent)  # now, not after minutes of training
    if not os.access(output.parent, os.W_OK):
        fail(f"{printable(output.parent)} cannot be written to")
    # torch takes a second or two to import: not before the arguments are known to be good.
    from sosie.report.demonstration import demonstration_html, demonstration_json
    from sosie.report.page import write_atomically
    from sosie.zoo.demonstration import Settings

    outcome = _run(
        Settings(steps=steps, seconds=seconds, seed=seed, generator_steps=generator_steps)
    )
    try:
        write_atomically(output, demonstration_html(outcome))
    except OSError as error:
        fail(f"{printable(output)} could not be written: {error.strerror or error}")
    if as_json:
        results.out(json.dumps(demonstration_json(outcome), indent=2), highlight=False)
    else:
        _print_summary(outcome)
    messages.print(f"wrote {printable(output)}", markup=False, highlight=False, soft_wrap=True)


def _run(settings: Settings) -> Outcome:
    from sosie.zoo.demonstration import run

    tasks: dict[str, TaskID] = {}
    with progress() as bars:

        def watch(stage: str, done: int, total: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note="")
            bars.update(tasks[stage], completed=done, note=note)

        try:
            return run(settings, watch)
        except FileNotFoundError as error:
            fail(f"no photograph {error.filename}: expected it inside scikit-image's wheel")
        except FloatingPointError as error:
            fail(str(error))


def _print_summary(outcome: Outcome) -> None:
    from sosie.zoo.demonstration import JUDGES, NETWORK, PLAIN, SOSIE

    table = Table(header_style="bold", caption=DIRECTIONS, caption_justify="left")
    table.add_column("photograph")
    table.add_column("version")
    for measure in JUDGES:
        table.add_column(heading(measure), justify="right", no_wrap=True)
    for photograph in outcome.photographs:
        for row, repair in enumerate(photograph.repairs):
            table.add_row(
                photograph.name if row == 0 else "",
                repair.method,
                *(measure.text(repair.values[measure.name]) for measure in JUDGES),
                style="bold" if repair.method == NETWORK else None,
            )
        table.add_section()
    print_table(table)
    ours, plain = outcome.times[SOSIE], outcome.times[PLAIN]
    results.print(
        f"{outcome.steps} training steps in {outcome.training_seconds:.1f} s "
        f"on {outcome.threads} thread{'s' if outcome.threads != 1 else ''}.\n"
        f"A step takes {1e3 * ours.step:.1f} ms with sosie's loss, {1e3 * plain.step:.1f} ms with "
        f"the same loss of plain torch operations; "
        f"the loss itself {1e3 * ours.loss:.2f} and {1e3 * plain.loss:.2f} ms.",
        highlight=False,
        soft_wrap=True,
    )
    for match in outcome.generator.evaluation.matches:
        shares = ", ".join(f"{name} {value:.2f}" for name, value in match.prdc._asdict().items())
        results.print(
            f"{outcome.generator.model}, {match.images}: {shares}, Fréchet distance "
            f"{match.frechet_distance:.2f} in {match.space}.",
            highlight=False,
            soft_wrap=True,
        )
