# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found, as tables and as plain data: what all families have in common."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.race import Case, Entry, Race
from benchmarks.tables import Table

__all__ = [
    "DEFAULT",
    "NO_FAULT",
    "Column",
    "Goal",
    "Races",
    "Results",
    "any_entry",
    "counted",
    "difference",
    "floor_column",
    "found",
    "fraction_goal",
    "goal_column",
    "mebibytes",
    "number",
    "ratio_goal",
    "thread_count",
    "where",
]

NO_FAULT, DEFAULT = "no-fault", "default"

#: Races of one case with one number of threads, by allocator.
Races = Mapping[str, Race]


class Column(NamedTuple):
    """A column of the table of one case: its heading, and the text for a contender's name."""

    title: str
    text: Callable[[Races, str], str]


@dataclass
class Goal:
    """What sosie was meant to reach, and what it reached."""

    what: str
    wanted: str
    reached: str
    met: bool

    @property
    def row(self) -> tuple[str, str, str, str]:
        """For a table."""
        return self.what, self.wanted, self.reached, "yes" if self.met else "NO"


@dataclass
class Results(ABC):
    """Everything that was measured. A family adds what only it measures.

    Attributes
    ----------
    machine : dict
        The machine, as `benchmarks.machine.machine_record` gives it, and versions of libraries.
    options : dict
        What was asked for.
    races : list of Race
        One per case, number of threads and allocator.
    missing : dict of str to str
        Contenders that took no part, and why.
    """

    machine: dict[str, Any]
    options: dict[str, Any]
    races: list[Race] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    # --- What a family says

    def unit(self, case: Any) -> tuple[str, float]:  # noqa: ARG002, as families look at it
        """Unit of a case's times, and how many of it a second has."""
        return "ms", 1e3

    @abstractmethod
    def columns(self, case: Any) -> list[Column]:
        """Columns between the times and the memory of a case's table."""

    def more_tables(self) -> Iterator[Table]:
        """What was measured beside the races."""
        return iter(())

    @abstractmethod
    def race_goals(self, race: Race) -> Iterator[Goal]:
        """Goals for a race without page faults."""

    def more_goals(self) -> Iterator[Goal]:
        """Goals for what was measured beside the races."""
        return iter(())

    def more_plain(self) -> dict[str, Any]:
        """What was measured beside the races, for JSON."""
        return {}

    # --- As tables

    def tables(self) -> Iterator[Table]:
        """All of them, the summary of goals last."""
        yield self._machine_table()
        for races in self._by_case().values():
            yield self._race_table(races)
        yield from self.more_tables()
        goals = list(self.goals())
        if goals:
            table = Table("Goals", ["goal", "wanted", "reached", ""])
            table.rows = [goal.row for goal in goals]
            yield table

    @property
    def failures(self) -> list[str]:
        """Sentences about wrong results of sosie's own."""
        return [
            f"{race.case.name}, {thread_count(race.threads)}, {race.allocator}: {name}: "
            f"{entry.failure}"
            for race in self.races
            for name, entry in race.entries.items()
            if entry.contender.ours and entry.failure is not None
        ]

    def goals(self) -> Iterator[Goal]:
        """All goals that something was measured for."""
        for race in self.races:
            if race.allocator == NO_FAULT:
                yield from self.race_goals(race)
        yield from self.more_goals()

    def _by_case(self) -> dict[tuple[str, int], dict[str, Race]]:
        """Races by case and threads, then allocator; cases in the order they were run."""
        groups: dict[tuple[str, int], dict[str, Race]] = {}
        for race in sorted(self.races, key=lambda race: race.threads):
            groups.setdefault((race.case.name, race.threads), {})[race.allocator] = race
        order = list(dict.fromkeys(race.case.name for race in self.races))
        return dict(sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))

    def _machine_table(self) -> Table:
        table = Table("Machine", ["", ""], numbers=False)
        table.rows = [(key.replace("_", " "), _text(value)) for key, value in self.machine.items()]
        for threads in sorted({race.threads for race in self.races}):
            peaks = [each for race in self.races if race.threads == threads for each in race.peaks]
            if peaks:
                flops = [each.flops / 1e9 for each in peaks]
                read = [each.bandwidth / 1e9 for each in peaks]
                copy = [each.copy_bandwidth / 1e9 for each in peaks]
                table.rows.append((
                    f"peaks, {thread_count(threads)}",
                    f"{_spread(flops)} GFLOP/s of multiply-adds, {_spread(read)} GB/s read, "
                    f"{_spread(copy)} GB/s read and written by a copy "
                    "(median, lowest to highest)",
                ))  # fmt: skip
        table.notes = [f"{name} took no part: {reason}" for name, reason in self.missing.items()]
        return table

    def _race_table(self, races: dict[str, Race]) -> Table:
        """Both allocators of one case and number of threads, side by side."""
        any_race = next(iter(races.values()))
        case = any_race.case
        columns = [*_time_columns(*self.unit(case)), *self.columns(case), _memory_column()]
        title = f"{case.title}, {thread_count(any_race.threads)}"
        table = Table(title, ["", *(each.title for each in columns)])
        names = dict.fromkeys(name for race in races.values() for name in race.entries)
        table.rows = [[name, *(column.text(races, name) for column in columns)] for name in names]
        table.notes = _notes(races)
        return table

    # --- As plain data

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "machine": self.machine,
            "options": self.options,
            "missing": self.missing,
            "races": [_plain_race(race) for race in self.races],
            **self.more_plain(),
            "goals": [goal.__dict__ for goal in self.goals()],
        }


# --- Goals of a race ------------------------------------------------------------------------------


def counted(race: Race) -> Iterator[tuple[str, Entry]]:
    """Contenders whose times count."""
    for name, entry in race.entries.items():
        if entry.failure is None and entry.seconds:
            yield name, entry


def where(race: Race) -> str:
    """Case and threads."""
    return f"{race.case.name}, {thread_count(race.threads)}"


def ratio_goal(race: Race, name: str, entry: Entry) -> Iterator[Goal]:
    """How many times faster than a contender, if something was set."""
    ratio, goal = entry.ratio, entry.contender.goal(race.case)
    if goal is not None and ratio is not None:
        yield Goal(
            f"{where(race)}: faster than {name}", f"at least {goal:g} times",
            f"{number(ratio)} times", ratio >= goal,
        )  # fmt: skip


def fraction_goal(race: Race, name: str, entry: Entry, least: float | None) -> Iterator[Goal]:
    """Speed beside that of the floor, if something was set."""
    if least is not None and entry.fraction is not None:
        yield Goal(
            f"{where(race)}: {name}, speed beside the floor's", f"at least {least:.0%}",
            f"{entry.fraction:.0%}", entry.fraction >= least,
        )  # fmt: skip


# --- The table of a case --------------------------------------------------------------------------


def found(races: Races, allocator: str, name: str) -> Entry | None:
    """What a contender did with an allocator, if its times count."""
    entry = races[allocator].entries.get(name) if allocator in races else None
    return None if entry is None or entry.failure is not None else entry


def any_entry(races: Races, name: str) -> Entry:
    """What a contender did with the last allocator it took part with."""
    return [race.entries[name] for race in races.values() if name in race.entries][-1]


def _time_columns(unit: str, scale: float) -> Iterator[Column]:
    for allocator in (NO_FAULT, DEFAULT):
        yield Column(f"{unit}, {allocator}", _seconds(allocator, scale))
    yield Column("sosie faster, no-fault", _times(NO_FAULT))
    yield Column("default", _times(DEFAULT))


def _seconds(allocator: str, scale: float) -> Callable[[Races, str], str]:
    def text(races: Races, name: str) -> str:
        entry = found(races, allocator, name)
        if entry is None or not entry.seconds:
            return "-"
        return f"{number(entry.median * scale)} ({number(min(entry.least) * scale)})"

    return text


def _times(allocator: str) -> Callable[[Races, str], str]:
    def text(races: Races, name: str) -> str:
        entry = found(races, allocator, name)
        return "" if entry is None or entry.ratio is None else f"{number(entry.ratio)}x"

    return text


def goal_column(case: Case) -> Column:
    """How many times faster sosie is meant to be."""

    def text(races: Races, name: str) -> str:
        goal = any_entry(races, name).contender.goal(case)
        return f"{goal:g}x" if goal else ""

    return Column("goal", text)


def floor_column() -> Column:
    """Speed beside that of the floor."""

    def text(races: Races, name: str) -> str:
        entry = found(races, NO_FAULT, name)
        return "" if entry is None or entry.fraction is None else f"{entry.fraction:.0%}"

    return Column("of floor's speed", text)


def _memory_column() -> Column:
    def text(races: Races, name: str) -> str:
        entry = races[DEFAULT].entries.get(name) if DEFAULT in races else None
        return mebibytes(entry.extra_bytes if entry else None)

    return Column("extra MiB, default", text)


def _notes(races: Races) -> list[str]:
    notes = []
    for allocator, race in races.items():
        peaks = race.best_peaks
        if peaks is not None and allocator == NO_FAULT:
            floors = [race.case.floor(each) * 1e3 for each in race.peaks]
            notes.append(
                f"floor {number(statistics.median(floors))} ms at this case's median peaks, "
                f"{number(race.case.floor(peaks) * 1e3)} ms at its highest "
                f"({peaks.flops / 1e9:.0f} GFLOP/s, {peaks.bandwidth / 1e9:.1f} GB/s)"
            )
        notes.append(f"{allocator}: {_rounds(race)}; {race.foreign_load:.0%} of the cores' time "
                     "went to others")  # fmt: skip
        notes += [
            f"{allocator}: {name} not counted: {entry.failure}"
            for name, entry in race.entries.items()
            if entry.failure is not None
        ]
    return notes


def _rounds(race: Race) -> str:
    most = max((len(entry.seconds) for entry in race.entries.values()), default=0)
    fewer = [
        f"{name} {len(entry.seconds)}"
        for name, entry in race.entries.items()
        if 0 < len(entry.seconds) < most
    ]
    rounds = f"{most} round{'s' * (most != 1)}"
    return f"{rounds} (fewer: {', '.join(fewer)})" if fewer else rounds


def _plain_race(race: Race) -> dict[str, Any]:
    return {
        "case": race.case.plain,
        "threads": race.threads,
        "allocator": race.allocator,
        "foreign_load": race.foreign_load,
        "peaks": [peaks._asdict() for peaks in race.peaks],
        "entries": {name: _plain_entry(race, entry) for name, entry in race.entries.items()},
    }


def _plain_entry(race: Race, entry: Entry) -> dict[str, Any]:
    return {
        "convention": dict(entry.convention),
        "value": entry.value,
        "error": entry.error,
        "gradient_error": entry.array_error if race.case.gradient else None,
        "distances_error": None if race.case.gradient else entry.array_error,
        "extra_bytes": entry.extra_bytes,
        "seconds": entry.seconds,
        "least": entry.least,
        "ratios": entry.ratios,
        "fractions_of_floor": entry.fractions,
        "failure": entry.failure,
    }


# --- Numbers as text ------------------------------------------------------------------------------


def thread_count(threads: int) -> str:
    """ "1 thread", "2 threads"."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def number(value: float) -> str:
    """Three digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def difference(value: float | None) -> str:
    """A small number, if there is one."""
    return "" if value is None else f"{value:.1e}"


def mebibytes(value: int | None) -> str:
    """Bytes as MiB, if they are known."""
    return "" if value is None else f"{value / 2**20:.1f}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
