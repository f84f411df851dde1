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

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import costs, machine
from benchmarks.race import Budget, Race, References, Team
from benchmarks.ssim_cases import CASES, Case
from benchmarks.ssim_peers import CONTENDERS
from benchmarks.ssim_report import Results

__all__ = ["main"]

#: By allocator. Goals refer to the peers' best, so their default gets less of the time.
FULL = {
    "default": Budget(rounds=3, seconds=1.5, least_rounds=1),
    "no-fault": Budget(rounds=7, seconds=8.0, least_rounds=2),
}
QUICK = dict.fromkeys(machine.ALLOCATORS, Budget(rounds=2, seconds=0.2, least_rounds=1))

COSTS = ("flatness", "memory", "import")


@dataclass(frozen=True)
class Plan:
    """What is to be measured: names of cases and of contenders, numbers of threads."""

    names: list[str]
    contenders: list[str]
    threads: list[int]
    quick: bool
    interpreters: dict[str, str]

    @property
    def budgets(self) -> dict[str, Budget]:
        """How long, for each allocator."""
        return QUICK if self.quick else FULL

    @property
    def cases(self) -> list[Case]:
        """The cases in which contenders race."""
        chosen = [CASES[name] for name in self.names if name in CASES]
        return [case.smaller() for case in chosen] if self.quick else chosen

    @property
    def racing(self) -> list[str]:
        """Contenders with something to do; sosie always, as it measures the machine too."""
        return [
            name
            for name in self.contenders
            if name == "sosie" or any(CONTENDERS[name].convention(case) for case in self.cases)
        ]


app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    cases: Annotated[
        str, typer.Option(help=f"Names separated by commas, out of: {', '.join([*CASES, *COSTS])}.")
    ] = "",
    peers: Annotated[
        str,
        typer.Option(
            help="Names separated by commas, out of: "
            + ", ".join(name for name, each in CONTENDERS.items() if not each.ours)
            + "."
        ),
    ] = "",
    threads: Annotated[str, typer.Option(help="Numbers of threads, separated by commas.")] = "1,2",
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Peers under torch.compile too: minutes more.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Small images, two rounds: whether it runs, not how fast."),
    ] = False,
    tensorflow_python: Annotated[
        Path | None, typer.Option(help="Interpreter of an environment that has TensorFlow.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers.")] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables.")
    ] = None,
) -> None:
    """Measure SSIM and MS-SSIM of sosie and its peers on this machine.

    Exit status 1 if a result of sosie's is wrong; a goal that is missed does not count as an error.
    """
    plan = Plan(
        names=_chosen(cases, [*CASES, *COSTS], "case"),
        contenders=_contenders(peers, compiled),
        threads=[_thread_count(each) for each in threads.split(",")],
        quick=quick,
        interpreters={} if tensorflow_python is None else {"tensorflow": str(tensorflow_python)},
    )
    results = Results(machine.machine_record(), asdict(plan))
    console = Console()
    with _progress(console) as show, _compilation_cache():
        _race_all(plan, results, show)
        _measure_costs(plan, results, show)
    _record_sosie(results)
    _write(results, console, json_file, markdown_file, quick)
    for failure in results.failures:
        console.print(f"[bold red]wrong result[/] {failure}")
    raise typer.Exit(1 if results.failures else 0)


# --- Options --------------------------------------------------------------------------------------


def _chosen(text: str, known: list[str], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"unknown {what} {name!r}; expected one of {', '.join(known)}")
    return [name for name in known if name in names] if names else known


def _contenders(peers: str, compiled: bool) -> list[str]:
    ours = [name for name, each in CONTENDERS.items() if each.ours and name != "reference"]
    known = [name for name, each in CONTENDERS.items() if not each.ours]
    chosen = _chosen(peers, known, "peer")
    if not peers and not compiled:
        chosen = [name for name in chosen if not CONTENDERS[name].compiled]
    return ours + chosen


def _thread_count(text: str) -> int:
    try:
        return len(machine.cores(int(text)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


# --- Measuring ------------------------------------------------------------------------------------

Show = Callable[[str, float], None]


@contextmanager
def _progress(console: Console) -> Iterator[Show]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # Drawing takes time from what is measured: seldom.
    with Progress(*columns, console=console, refresh_per_second=1, transient=True) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda text, done: progress.update(task, description=text, completed=done)


@contextmanager
def _compilation_cache() -> Iterator[None]:
    """What torch.compile produces is shared by the processes of a run, and by no two runs."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        yield
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]


def _race_all(plan: Plan, results: Results, show: Show) -> None:
    cases = plan.cases
    if not cases:
        return
    settings = [(count, allocator) for count in plan.threads for allocator in machine.ALLOCATORS]
    with closing(References(max(plan.threads))) as references:
        for at, (count, allocator) in enumerate(settings):
            label = f"{count} thread{'s' * (count > 1)}, {allocator}"
            show(f"{label}: importing", at / len(settings))
            with closing(Team(plan.racing, count, allocator, plan.interpreters)) as team:
                results.machine.setdefault("libraries", {}).update(team.versions)
                for number, case in enumerate(cases):
                    race = Race(case, team, references, plan.budgets[allocator])
                    results.races.append(race)
                    done, share = at + number / len(cases), 1 / len(cases)
                    race.run(_within(show, f"{label}, {case.name}", done, share, len(settings)))
                results.missing.update(team.missing)


def _within(show: Show, label: str, done: float, share: float, total: int) -> Show:
    """Progress of a part, as progress of the whole."""
    return lambda text, fraction: show(f"{label}: {text}", (done + share * fraction) / total)


def _measure_costs(plan: Plan, results: Results, show: Show) -> None:
    largest = (1080, 1920) if plan.quick else (4320, 7680)
    rounds = plan.budgets["no-fault"].rounds
    for count in plan.threads:
        if "flatness" in plan.names:
            sizes = [size for size in costs.FLATNESS_SIZES if size <= largest]
            tell = _labelled(show, f"time per pixel with {count} threads")
            results.flatness.append(costs.flatness(sizes, count, rounds, tell))
        if "memory" in plan.names:
            for size in costs.MEMORY_SIZES:
                if size <= largest:
                    show(f"memory with {count} threads: {size[1]} x {size[0]}", 1.0)
                    results.memory[(count, *size)] = costs.memory(size, count)
    if "import" in plan.names:
        results.imports = costs.imports(costs.IMPORTS, rounds, _labelled(show, "import"))


def _labelled(show: Show, label: str) -> Callable[[str], None]:
    return lambda text: show(f"{label}: {text}", 1.0)


# --- Reporting ------------------------------------------------------------------------------------


def _record_sosie(results: Results) -> None:
    """sosie's own version and instruction set."""
    from sosie.config import configuration

    found: dict[str, Any] = configuration()
    results.machine["sosie"] = f"{found['version']}, {found['instruction_sets']['used']} kernels"


def _write(
    results: Results,
    console: Console,
    json_file: Path | None,
    markdown_file: Path | None,
    quick: bool,
) -> None:
    tables = list(results.tables())
    if not console.is_terminal:
        console = Console(width=200)
    for table in tables:
        console.print(table.rich())
        console.print()
    warning = "Small images and few rounds: these numbers say nothing about speed."
    if quick:
        console.print(warning)
    if json_file is not None:
        json_file.write_text(json.dumps(results.plain(), indent=1) + "\n")
    if markdown_file is not None:
        parts = [f"{warning}\n"] if quick else []
        markdown_file.write_text("\n".join([*parts, *(table.markdown() for table in tables)]))


if __name__ == "__main__":
    sys.exit(app())
