# SPDX-License-Identifier: Apache-2.0
"""``sosie export``: a trained model as ONNX or as a program of ``torch.export``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sosie.cli.models import (
    GENERATORS,
    REPAIRERS,
    JSONOption,
    OverwriteOption,
    WeightsOption,
    open_model,
    wrote,
)
from sosie.cli.terminal import fail, print_table, results
from sosie.comparison.pairs import printable

__all__ = ["export"]


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{GENERATORS}; {REPAIRERS}.")],
    *,
    to: Annotated[Path, typer.Option(help="File to write: .onnx or .pt2.", dir_okay=False)],
    weights: WeightsOption = "default",
    part: Annotated[
        str | None,
        typer.Option(
            help="generator or discriminator, decoder or encoder, repair.  "
            "[default: what makes images]",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JSONOption = False,
) -> None:
    """Write a trained model as ONNX or as a torch.export program.

    The file runs without sosie; what it computes is checked before it is written. Batches may have
    any size; images too, where the model takes any. ONNX needs the extra "onnx".

    Example: sosie export repair_cnn --to repair.onnx
    """
    if to.suffix not in (".onnx", ".pt2"):
        raise typer.BadParameter(f"expected --to to end in .onnx or .pt2, got {to}")
    if to.exists() and not overwrite:
        fail(f"{printable(to)} exists; --overwrite replaces it")
    from sosie.zoo.inference.export import export_model
    from sosie.zoo.model import Model

    network = open_model(model, weights, (Model,))
    try:
        exported = export_model(network, to, part)
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", "onnxscript"):
            raise
        fail(f"ONNX needs {error.name}: python -m pip install 'sosie[zoo,onnx]'")
    except OSError as error:
        fail(f"{printable(to)} could not be written: {error.strerror or error}")
    except ValueError as error:
        fail(str(error))
    record = {**asdict(exported), "path": printable(to), "model": model}
    if as_json:
        results.out(json.dumps(record, indent=2), highlight=False)
    else:
        table = Table(show_header=False)
        for name in ("model", "part", "inputs", "outputs", "difference", "checked_by"):
            value = record[name]
            text = ", ".join(value) if isinstance(value, tuple) else f"{value}"
            table.add_row(name.replace("_", " "), f"{value:.2g}" if name == "difference" else text)
        if exported.alignment > 1:
            table.add_row("sides", f"multiples of {exported.alignment}")
        print_table(table)
    wrote(to)
