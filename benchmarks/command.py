# SPDX-License-Identifier: Apache-2.0
"""What the scripts share: options, the order of the races, progress, what comes out."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import machine
from benchmarks.race import Budget, Case, Family, Race, References, Team
from benchmarks.report import Results

__all__ = [
    "Compiled",
    "Json",
    "Markdown",
    "Plan",
    "Quick",
    "Show",
    "Threads",
    "labelled",
    "list_of",
    "make_plan",
    "names_of_peers",
    "progress",
    "race_all",
    "report",
]

_QUICK = dict.fromkeys(machine.ALLOCATORS, Budget(rounds=2, seconds=0.2, least_rounds=1))

#: Tells what is being done, and the fraction of everything that is done.
Show = Callable[[str, float], None]

# --- Options --------------------------------------------------------------------------------------

Threads = Annotated[str, typer.Option(help="Numbers of threads, separated by commas.")]
Compiled = Annotated[
    bool, typer.Option("--compiled", help="Peers under torch.compile too: minutes more.")
]
Quick = Annotated[
    bool,
    typer.Option("--quick", help="Little data, two rounds: whether it runs, not how fast."),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write all numbers.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the tables.")]


def list_of(names: list[str]) -> str:
    """Help for an option that takes some of them."""
    return f"Names separated by commas, out of: {', '.join(names)}."


def names_of_peers(family: Family) -> list[str]:
    """Contenders that are not sosie."""
    return [name for name, each in family.contenders.items() if not each.ours]


@dataclass(frozen=True)
class Plan:
    """What is to be measured: names of cases and of contenders, numbers of threads."""

    family: Family
    names: list[str]
    contenders: list[str]
    threads: list[int]
    quick: bool
    interpreters: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for, as plain data."""
        names = ("names", "contenders", "threads", "quick", "interpreters")
        return {name: getattr(self, name) for name in names}

    @property
    def budgets(self) -> Mapping[str, Budget]:
        """How long, for each allocator."""
        return _QUICK if self.quick else self.family.budgets

    @property
    def cases(self) -> list[Case]:
        """The cases in which contenders race."""
        cases = self.family.cases
        chosen = [cases[name] for name in self.names if name in cases]
        return [case.smaller() for case in chosen] if self.quick else chosen

    @property
    def racing(self) -> list[str]:
        """Contenders with something to do; sosie always, as it measures the machine too."""
        contenders, cases = self.family.contenders, self.cases
        return [
            name
            for name in self.contenders
            if name == "sosie"
            or any(contenders[name].convention(case) is not None for case in cases)
        ]


def make_plan(
    family: Family,
    more: list[str],
    *,
    cases: str,
    peers: str,
    threads: str,
    compiled: bool,
    quick: bool,
    interpreters: dict[str, str] | None = None,
) -> Plan:
    """What the options ask for.

    Parameters
    ----------
    family : Family
    more : list of str
        What can be asked for beside the family's cases.
    cases, peers, threads, compiled, quick
        Values of the options.
    interpreters : dict of str to str, optional
        Interpreters of contenders that live in another environment.

    Raises
    ------
    typer.BadParameter
        A name is unknown, or there are not as many cores.
    """
    return Plan(
        family=family,
        names=_chosen(cases, [*family.cases, *more], "case"),
        contenders=_contenders(family, peers, compiled),
        threads=[_thread_count(each) for each in threads.split(",")],
        quick=quick,
        interpreters=interpreters or {},
    )


def _chosen(text: str, known: list[str], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"unknown {what} {name!r}; expected one of {', '.join(known)}")
    return [name for name in known if name in names] if names else known


def _contenders(family: Family, peers: str, compiled: bool) -> list[str]:
    ours = [name for name, each in family.contenders.items() if each.ours and name != "reference"]
    chosen = _chosen(peers, names_of_peers(family), "peer")
    if not peers and not compiled:
        chosen = [name for name in chosen if not family.contenders[name].compiled]
    return ours + chosen


def _thread_count(text: str) -> int:
    try:
        return len(machine.cores(int(text)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


# --- Measuring ------------------------------------------------------------------------------------


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """Show on a terminal how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # Drawing takes time from what is measured: seldom.
    with Progress(*columns, console=console, refresh_per_second=1, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda text, done: bar.update(task, description=text, completed=done)


@contextmanager
def _compilation_cache() -> Iterator[None]:
    """What torch.compile produces is shared by the processes of a run, and by no two runs."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        yield
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]


def race_all(plan: Plan, results: Results, show: Show) -> None:
    """Race in every case that was asked for, with all numbers of threads and both allocators."""
    if not plan.cases:
        return
    settings = [(count, allocator) for count in plan.threads for allocator in machine.ALLOCATORS]
    with (
        _compilation_cache(),
        closing(References(plan.family, max(plan.threads))) as references,
    ):
        for at, (count, allocator) in enumerate(settings):
            label = f"{count} thread{'s' * (count > 1)}, {allocator}"
            tell = _within(show, label, at, len(settings))
            _race_team(plan, results, references, count, allocator, tell)


def _race_team(
    plan: Plan, results: Results, references: References, count: int, allocator: str, show: Show
) -> None:
    """All cases with one number of threads and one allocator."""
    cases = plan.cases
    show("importing", 0.0)
    team = Team(plan.family, plan.racing, count, allocator, plan.interpreters)
    with closing(team):
        results.machine.setdefault("libraries", {}).update(team.versions)
        for number, case in enumerate(cases):
            race = Race(case, team, references, plan.budgets[allocator])
            results.races.append(race)
            race.run(_within(show, case.name, number, len(cases)))
        results.missing.update(team.missing)


def _within(show: Show, label: str, part: int, parts: int) -> Show:
    """Progress of a part, as progress of the whole."""
    return lambda text, fraction: show(f"{label}: {text}", (part + fraction) / parts)


def labelled(show: Show, label: str) -> Callable[[str], None]:
    """Progress of what comes after the races."""
    return lambda text: show(f"{label}: {text}", 1.0)


# --- Reporting ------------------------------------------------------------------------------------


def report(
    results: Results,
    console: Console,
    json_file: Path | None,
    markdown_file: Path | None,
    quick: bool,
) -> int:
    """Print the tables, write the files; the exit status."""
    _record_sosie(results)
    tables = list(results.tables())
    printer = console if console.is_terminal else Console(width=200)
    for table in tables:
        printer.print(table.rich())
        printer.print()
    warning = "Little data and few rounds: these numbers say nothing about speed."
    if quick:
        printer.print(warning)
    if json_file is not None:
        json_file.write_text(json.dumps(results.plain(), indent=1) + "\n")
    if markdown_file is not None:
        parts = [f"{warning}\n"] if quick else []
        markdown_file.write_text("\n".join([*parts, *(table.markdown() for table in tables)]))
    for failure in results.failures:
        console.print(f"[bold red]wrong result[/] {failure}")
    return 1 if results.failures else 0


def _record_sosie(results: Results) -> None:
    """sosie's own version and instruction set."""
    from sosie.config import configuration

    found: dict[str, Any] = configuration()
    results.machine["sosie"] = f"{found['version']}, {found['instruction_sets']['used']} kernels"
