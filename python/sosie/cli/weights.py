# SPDX-License-Identifier: Apache-2.0
"""``sosie weights``: the trained models that come with sosie."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from sosie.cli.terminal import fail, results

__all__ = ["weights"]


def weights(
    model: Annotated[str | None, typer.Argument(help="Of one model alone.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """List the weights that come with sosie: what for, under which licence, how good.

    The first of a model are its default. With --json also what they were trained on, by which
    command, and the checksums.
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
    table = Table(header_style="bold")
    for title in ("model", "weights", "task", "licence", "measured"):
        table.add_column(title)
    for each in listed:
        measured = "\n".join(f"{name} {value:g}" for name, value in each.metrics.items())
        table.add_row(each.model, each.variant, each.task, each.licence, measured)
    results.print(table)
