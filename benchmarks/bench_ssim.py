# SPDX-License-Identifier: Apache-2.0
"""SSIM and MS-SSIM: sosie, its peers and the machine's own limits, measured in one run.

Every contender runs in a process of its own, pinned to as many cores as it may use threads, first
with the C library's allocator as it comes and then with one that keeps its memory ("no-fault", see
`benchmarks.machine.ALLOCATORS`). Times are medians over rounds in which sosie and the peer take
turns; "sosie faster" is the median over rounds of the ratio within a round. Before a peer's time
counts, its value and gradient are checked against sosie's by the same convention.

The floor of a case is the longer of two times, with peaks that are measured in every round: reading
the images (and writing the gradient) at the read bandwidth, and issuing the arithmetic at the
multiply-add peak. The arithmetic is, per pixel, 88 fused multiply-adds and 34 more float operations
forward, and 225 more for the backward pass, a slot each, where a slot is one lane of one
multiply-add instruction. Both images are read once forward, and twice forward and backward, which
also writes the gradient. See `benchmarks.ssim_cases`.

Run with `python -m benchmarks.bench_ssim`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import command, costs, ssim_costs
from benchmarks.machine import machine_record
from benchmarks.ssim_peers import FAMILY
from benchmarks.ssim_report import SSIMResults

__all__ = ["main"]

_COSTS = ["flatness", "memory", "import"]

app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    cases: Annotated[str, typer.Option(help=command.list_of([*FAMILY.cases, *_COSTS]))] = "",
    peers: Annotated[str, typer.Option(help=command.list_of(command.names_of_peers(FAMILY)))] = "",
    threads: command.Threads = "1,2",
    compiled: command.Compiled = False,
    quick: command.Quick = False,
    tensorflow_python: Annotated[
        Path | None, typer.Option(help="Interpreter of an environment that has TensorFlow.")
    ] = None,
    json_file: command.Json = None,
    markdown_file: command.Markdown = None,
) -> None:
    """Measure SSIM and MS-SSIM of sosie and its peers on this machine.

    Exit status 1 if a result of sosie's is wrong; a goal that is missed does not count as an error.
    """
    interpreters = {} if tensorflow_python is None else {"tensorflow": str(tensorflow_python)}
    plan = command.make_plan(
        FAMILY, _COSTS, cases=cases, peers=peers, threads=threads, compiled=compiled, quick=quick,
        interpreters=interpreters,
    )  # fmt: skip
    results = SSIMResults(machine_record(), plan.options)
    console = Console()
    with command.progress(console) as show:
        command.race_all(plan, results, show)
        _measure_costs(plan, results, show)
    raise typer.Exit(command.report(results, console, json_file, markdown_file, quick))


def _measure_costs(plan: command.Plan, results: SSIMResults, show: command.Show) -> None:
    largest = (1080, 1920) if plan.quick else (4320, 7680)
    rounds = plan.budgets["no-fault"].rounds
    for count in plan.threads:
        if "flatness" in plan.names:
            sizes = [size for size in ssim_costs.FLATNESS_SIZES if size <= largest]
            tell = command.labelled(show, f"time per pixel with {count} threads")
            results.flatness.append(ssim_costs.flatness(sizes, count, rounds, tell))
        if "memory" in plan.names:
            for size in ssim_costs.MEMORY_SIZES:
                if size <= largest:
                    show(f"memory with {count} threads: {size[1]} x {size[0]}", 1.0)
                    extra = costs.memory(FAMILY, ssim_costs.gray(size), count)
                    results.memory[(count, *size)] = extra
    if "import" in plan.names:
        tell = command.labelled(show, "import")
        results.imports = costs.imports(ssim_costs.IMPORTS, rounds, tell)


if __name__ == "__main__":
    sys.exit(app())
