# SPDX-License-Identifier: Apache-2.0
"""The command's tree: one function per command, each in a file of its own."""

from __future__ import annotations

from typing import Annotated

import typer

import sosie
from sosie.cli.compare import compare
from sosie.cli.demo import demo
from sosie.cli.evaluate import evaluate
from sosie.cli.export import export
from sosie.cli.generate import generate
from sosie.cli.info import info
from sosie.cli.repair import repair
from sosie.cli.train import train
from sosie.cli.weights import weights

__all__ = ["app"]

app = typer.Typer(
    name="sosie",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sosie {sosie.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """How alike are two images? And small networks that repair and generate them.

    Exit status: 0, all done; 1, something failed and was named; 2, the command was not understood.
    """


for _command in (compare, demo, evaluate, export, generate, info, repair, train, weights):
    app.command()(_command)
