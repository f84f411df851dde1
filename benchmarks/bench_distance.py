# SPDX-License-Identifier: Apache-2.0
"""Squared differences and distances: sosie, its peers and the machine's own limits, in one run.

Weighted SSD, distances of all pairs, nearest neighbours, and distances of paired rows. Everything
is measured as `benchmarks.bench_ssim` measures: a pinned process per contender, the C library's
allocator as it comes and one that keeps its memory, rounds in turn, ratios within a round, and no
time that counts before the result agrees with sosie's and with the float64 definition.

The floor of a case is the time for moving its bytes or for issuing its multiply-adds, with peaks
that are measured in every round; see `benchmarks.distance_cases`. Large matrices of distances are
also compared with a plain matrix product of the same sizes.

Run with `python -m benchmarks.bench_distance`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import command, costs, distance_costs
from benchmarks.distance_peers import FAMILY
from benchmarks.distance_report import DistanceResults
from benchmarks.machine import machine_record

__all__ = ["main"]

_COSTS = ["accuracy", "memory"]

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
    """Measure weighted SSD, distances and neighbours of sosie and its peers on this machine.

    Exit status 1 if a result of sosie's is wrong; a goal that is missed does not count as an error.
    """
    plan = command.make_plan(
        FAMILY, _COSTS, cases=cases, peers=peers, threads=threads, compiled=compiled, quick=quick
    )
    results = DistanceResults(machine_record(), plan.options)
    console = Console()
    with command.progress(console) as show:
        command.race_all(plan, results, show)
        _measure_costs(plan, results, show)
    raise typer.Exit(command.report(results, console, json_file, markdown_file, quick))


def _measure_costs(plan: command.Plan, results: DistanceResults, show: command.Show) -> None:
    if "accuracy" in plan.names:
        tell = command.labelled(show, "accuracy")
        results.accuracy = distance_costs.accuracy(plan.contenders, tell)
    if "memory" in plan.names:
        counts = (1000,) if plan.quick else distance_costs.MEMORY_COUNTS
        for threads in plan.threads:
            for count in counts:
                show(f"memory with {threads} threads: {count} vectors", 1.0)
                extra = costs.memory(FAMILY, distance_costs.search(count), threads)
                results.memory[(threads, count)] = extra


if __name__ == "__main__":
    sys.exit(app())
