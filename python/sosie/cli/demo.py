# SPDX-License-Identifier: Apache-2.0
"""``sosie demo``: a network is trained with sosie's loss and repairs photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sosie.cli.terminal import fail, messages, progress, results

if TYPE_CHECKING:
    from sosie.zoo.demonstration import Demonstration

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option(help="The page to write.", dir_okay=False)] = Path(
        "demo/report.html"
    ),
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = 1600,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as a JSON object, not as a table.")
    ] = False,
) -> None:
    """Train a small network to repair photographs, and show what it does to two it has not seen.

    Takes about a minute on two cores. The photographs are those in scikit-image; nothing is
    downloaded. Needs the extra "zoo".
    """
    from sosie.report.demonstration import demonstration_html
    from sosie.report.page import write_atomically
    from sosie.zoo.demonstration import run

    with progress() as bar:
        task = bar.add_task("training", total=steps, note="")

        def on_step(loss: float) -> None:
            bar.update(task, advance=1, note=f"loss {loss:.3f}")

        def on_stage(stage: str) -> None:
            bar.update(task, description=stage)

        try:
            demonstration = run(steps=steps, seed=seed, on_step=on_step, on_stage=on_stage)
        except (FileNotFoundError, FloatingPointError) as error:
            fail(str(error))
    try:
        write_atomically(output, demonstration_html(demonstration))
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror}")
    if as_json:
        results.out(json.dumps(_numbers(demonstration), indent=2), highlight=False)
    else:
        _print_summary(demonstration)
    messages.print(f"Wrote {output}", markup=False, highlight=False)


def _numbers(demonstration: Demonstration) -> dict[str, Any]:
    times = demonstration.times
    return {
        "seconds": demonstration.seconds,
        "losses": demonstration.losses,
        "photographs": {repair.name: repair.values for repair in demonstration.repairs},
        "milliseconds": {"step": times.step, "loss": times.loss},
    }


def _print_summary(demonstration: Demonstration) -> None:
    from sosie.zoo.demonstration import MEASURED

    table = Table(title="Against the original")
    table.add_column("photograph")
    table.add_column("version")
    for measure in MEASURED:
        unit = f" ({measure.unit})" if measure.unit else ""
        table.add_column(f"{measure.title}{unit}\n{measure.direction}", justify="right")
    for repair in demonstration.repairs:
        for number, (version, values) in enumerate(repair.values.items()):
            cells = (measure.text(values[measure.name]) for measure in MEASURED)
            table.add_row(repair.name if number == 0 else "", version, *cells)
        table.add_section()
    results.print(table)
    times = demonstration.times
    for title, taken in (("training step", times.step), ("loss and gradient", times.loss)):
        results.print(
            f"{title}: {taken['sosie']:.1f} ms with sosie, {taken['composed']:.1f} ms composed of "
            f"torch operations ({taken['composed'] / taken['sosie']:.1f} times)",
            highlight=False,
        )
