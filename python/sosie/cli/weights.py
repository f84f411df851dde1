# SPDX-License-Identifier: Apache-2.0
"""``sosie weights``: the trained models that come with sosie."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from sosie.cli.terminal import fail, messages, print_table, results

if TYPE_CHECKING:
    from sosie.zoo.weights import Weights

__all__ = ["weights"]


def weights(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Of one model alone, and all about them.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """List the trained weights that come with sosie, or describe some.

    Of one model: what they were trained on, by which command, the checksum, and how good they were
    measured to be. The first of a model are its default.
    """
    from sosie.zoo.registry import model_class
    from sosie.zoo.weights import list_weights

    try:
        if model is not None:
            model_class(model)  # an unknown name is told from one without weights
        listed = list_weights(model)
    except (OSError, ValueError) as error:
        fail(str(error))
    if as_json:
        results.out(json.dumps([asdict(each) for each in listed], indent=2), highlight=False)
        return
    if not listed:
        fail(f"{model} comes without weights")
    if model is None:
        table = Table(header_style="bold")
        for title in ("model", "weights", "for", "licence"):
            table.add_column(title)
        for each in listed:
            table.add_row(each.model, each.variant, each.task, each.licence)
        print_table(table)
        return
    for each in listed:
        messages.print(f"{each.model}, {each.variant}", style="bold", highlight=False)
        print_table(_described(each))


def _described(weights: Weights) -> Table:
    """Name and text, line by line."""
    table = Table(show_header=False, box=box.SIMPLE, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("for", weights.task)
    table.add_row("licence", weights.licence)
    table.add_row("size", f"{weights.path.stat().st_size / 1000:.0f} kB")
    table.add_row("sha256", weights.sha256)
    table.add_row("trained", f"in {weights.seconds:.0f} s, by {weights.command}")
    sources = (f"{each.name} ({each.licence})" for each in weights.data)
    table.add_row("on", "\n".join(sources))
    table.add_section()
    for name, value in weights.metrics.items():
        table.add_row(Text(f"{value:.4f}", justify="right"), name)
    return table
