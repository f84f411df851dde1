# SPDX-License-Identifier: Apache-2.0
"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sosie.comparison.pairs import printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from sosie.comparison import Measure

__all__ = [
    "DIRECTIONS", "fail", "heading", "make_folder", "messages", "print_table", "progress",
    "results",
]  # fmt: skip

#: Tables and numbers.
results = Console()
#: Progress, warnings and errors.
messages = Console(stderr=True)

#: What the arrows of `heading` mean.
DIRECTIONS = "↑ higher is better, ↓ lower is better"


def heading(measure: Measure) -> str:
    """Title of a measure's column: name, unit, direction."""
    unit = f" ({measure.unit})" if measure.unit else ""
    return f"{measure.title}{unit} {'↑' if measure.higher_is_better else '↓'}"


def print_table(table: Table) -> None:
    """Print a table; no number is cut, even if that makes it wider than the terminal."""
    least = Measurement.get(results, results.options.update(max_width=1000), table).minimum
    if least > results.width:
        table.width = least
    results.print(table, crop=False)


def make_folder(folder: Path) -> bool:
    """Make a folder, and those that it lies in, or end; whether it was not there before."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        fail(f"{printable(folder)} could not be made: {error.strerror or error}")
    return True


def fail(sentence: str) -> NoReturn:
    """Say what went wrong and end with exit status 1."""
    messages.print(f"sosie: {sentence}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def progress() -> Progress:
    """Progress bars on standard error; invisible unless that is a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=messages,
        disable=not messages.is_terminal,
    )
