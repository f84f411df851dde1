# SPDX-License-Identifier: Apache-2.0
"""Convolutional LSTMs: sosie, its peers and the machine's own limits, in one run.

Everything is measured as `benchmarks.bench_ssim` measures: a pinned process per contender, the C
library's allocator as it comes and one that keeps its memory, rounds in turn, ratios within a
round, and no time that counts before states and gradients agree with sosie's and with the same
network in float64. The floor of a case is the multiply-adds of its convolutions
as sums of products; sosie's own need a quarter of them, and go below it.

Run with `python -m benchmarks.bench_recurrent`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import command, recurrent_costs
from benchmarks.machine import machine_record
from benchmarks.recurrent_peers import FAMILY
from benchmarks.recurrent_report import RecurrentResults

__all__ = ["main"]

_COSTS = ["memory", "gates"]

app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    cases: Annotated[str, typer.Option(help=command.list_of([*FAMILY.cases, *_COSTS]))] = "",
    peers: Annotated[str, typer.Option(help=command.list_of(command.names_of_peers(FAMILY)))] = "",
    threads: command.Threads = "1,2",
    compiled: command.Compiled = False,
    quick: command.Quick = False,
    json_file: command.Json = None,
    markdown_file: command.Markdown = None,
) -> None:
    """Measure convolutional LSTMs of sosie and its peers on this machine.

    Exit status 1 if a result of sosie's is wrong; a goal that is missed does not count as an error.
    """
    plan = command.make_plan(
        FAMILY, _COSTS, cases=cases, peers=peers, threads=threads, compiled=compiled, quick=quick
    )
    results = RecurrentResults(machine_record(), plan.options)
    console = Console()
    with command.progress(console) as show:
        command.race_all(plan, results, show)
        _measure_costs(plan, results, show)
    raise typer.Exit(command.report(results, console, json_file, markdown_file, quick))


def _measure_costs(plan: command.Plan, results: RecurrentResults, show: command.Show) -> None:
    for threads in plan.threads:
        if "memory" in plan.names and not plan.quick:
            for case in recurrent_costs.MEMORY_CASES:
                for name in recurrent_costs.MEMORY_NAMES:
                    show(f"memory of {name}, {case}, {threads} threads", 1.0)
                    extra = recurrent_costs.memory(name, case, threads)
                    results.memory[(threads, case, name)] = extra
        if "gates" in plan.names:
            tell = command.labelled(show, f"gates, {threads} threads")
            for name, found in recurrent_costs.gates(threads, tell).items():
                results.gates[(threads, name)] = found


if __name__ == "__main__":
    sys.exit(app())
