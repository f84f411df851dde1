# SPDX-License-Identifier: Apache-2.0
"""``sosie info``: what this installation found and uses."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sosie.cli.terminal import fail, results
from sosie.config import configuration, show_config

__all__ = ["info"]


def info(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
) -> None:
    """Show what sosie found on this machine, and what it uses.

    Version, instruction sets, backends or why one is missing, threads, libraries.
    """
    try:
        if as_json:
            results.out(json.dumps(configuration(), indent=2), highlight=False)
        else:
            show_config()
    except (RuntimeError, ValueError) as error:  # an environment variable asks for the impossible
        fail(str(error))
