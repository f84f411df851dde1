# SPDX-License-Identifier: Apache-2.0
"""What the SSIM benchmark found, as tables and as plain data."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.costs import Flatness
from benchmarks.race import Entry, Race
from benchmarks.tables import Table

__all__ = ["Results"]

_NO_FAULT, _DEFAULT = "no-fault", "default"

#: What sosie is meant to reach, apart from the ratios that `benchmarks.ssim_peers` states.
_LEAST_FRACTIONS = {
    "forward-1080p": 0.5,
    "forward-batch": 0.5,
    "gradient-1080p": 0.45,
    "gradient-batch": 0.45,
}
_MOST_SECONDS_SMALL = {"sosie": 20e-6, "sosie torch": 40e-6}
_MOST_SPREAD = 1.2
_MOST_EXTRA_BYTES = 8 << 20
_MOST_IMPORT_SECONDS = 0.040


@dataclass
class Results:
    """Everything that was measured.

    Attributes
    ----------
    machine : dict
        The machine, as `benchmarks.machine.machine_record` gives it, and versions of libraries.
    options : dict
        What was asked for.
    races : list of Race
        One per case, number of threads and allocator.
    flatness : list of Flatness
        One per number of threads.
    memory : dict of (threads, height, width) to int or None
        Extra bytes of a forward pass.
    imports : dict of str to list of float
        Seconds that each import takes after NumPy's.
    missing : dict of str to str
        Contenders that took no part, and why.
    """

    machine: dict[str, Any]
    options: dict[str, Any]
    races: list[Race] = field(default_factory=list)
    flatness: list[Flatness] = field(default_factory=list)
    memory: dict[tuple[int, int, int], int | None] = field(default_factory=dict)
    imports: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    # --- As tables

    def tables(self) -> Iterator[Table]:
        """All of them, the summary of goals last."""
        yield self._machine_table()
        for races in self._by_case().values():
            yield _race_table(races)
        if self.flatness:
            yield self._flatness_table()
        if self.memory:
            yield self._memory_table()
        if self.imports:
            yield self._import_table()
        goals = list(self._goals())
        if goals:
            table = Table("Goals", ["goal", "wanted", "reached", ""])
            table.rows = [goal.row for goal in goals]
            yield table

    @property
    def failures(self) -> list[str]:
        """Sentences about wrong results of sosie's own."""
        return [
            f"{race.case.name}, {_threads(race.threads)}, {race.allocator}: {name}: {entry.failure}"
            for race in self.races
            for name, entry in race.entries.items()
            if entry.contender.ours and entry.failure is not None
        ]

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
                table.rows.append((
                    f"peaks, {_threads(threads)}",
                    f"{_spread(flops)} GFLOP/s of multiply-adds, {_spread(read)} GB/s read "
                    "(median, lowest to highest)",
                ))  # fmt: skip
        table.notes = [f"{name} took no part: {reason}" for name, reason in self.missing.items()]
        return table

    def _flatness_table(self) -> Table:
        sizes = list(self.flatness[0].seconds)
        table = Table(
            "SSIM, forward, gray float32 of NumPy: nanoseconds per pixel",
            ["threads", *(f"{width} x {height}" for height, width in sizes), "largest / smallest"],
        )
        for each in self.flatness:
            costs = [f"{statistics.median(each.seconds[size]) * 1e9:.2f}" for size in sizes]
            table.rows.append((str(each.threads), *costs, f"{each.spread:.2f}"))
        return table

    def _memory_table(self) -> Table:
        table = Table(
            "SSIM, forward, gray float32 of NumPy: memory beyond the images, at its peak",
            ["size", "threads", "MiB"],
        )
        for (threads, height, width), extra in self.memory.items():
            table.rows.append((f"{width} x {height}", str(threads), _mebibytes(extra)))
        return table

    def _import_table(self) -> Table:
        table = Table("After `import numpy`, in a fresh interpreter", ["", "ms", "least"])
        for statement, seconds in self.imports.items():
            table.rows.append(
                (statement, f"{statistics.median(seconds) * 1e3:.0f}", f"{min(seconds) * 1e3:.0f}")
            )
        return table

    # --- Goals

    def _goals(self) -> Iterator[_Goal]:
        for race in self.races:
            if race.allocator == _NO_FAULT:
                yield from _race_goals(race)
        for each in self.flatness:
            yield _Goal(
                f"time per pixel at all sizes, {_threads(each.threads)}: largest / smallest",
                f"at most {_MOST_SPREAD}", f"{each.spread:.2f}", each.spread <= _MOST_SPREAD,
            )  # fmt: skip
        for (threads, height, width), extra in self.memory.items():
            if extra is not None:
                yield _Goal(
                    f"memory of a forward pass at {width} x {height}, {_threads(threads)}",
                    f"below {_mebibytes(_MOST_EXTRA_BYTES)} MiB", f"{_mebibytes(extra)} MiB",
                    extra < _MOST_EXTRA_BYTES,
                )  # fmt: skip
        if "import sosie" in self.imports:
            seconds = statistics.median(self.imports["import sosie"])
            yield _Goal(
                "import after NumPy's",
                f"at most {_MOST_IMPORT_SECONDS * 1e3:.0f} ms", f"{seconds * 1e3:.0f} ms",
                seconds <= _MOST_IMPORT_SECONDS,
            )  # fmt: skip

    # --- As plain data

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "machine": self.machine,
            "options": self.options,
            "missing": self.missing,
            "races": [_plain_race(race) for race in self.races],
            "flatness": [
                {
                    "threads": each.threads,
                    "spread": each.spread,
                    "seconds_per_pixel": {
                        f"{width}x{height}": seconds
                        for (height, width), seconds in each.seconds.items()
                    },
                }
                for each in self.flatness
            ],
            "memory": [
                {"threads": threads, "height": height, "width": width, "extra_bytes": extra}
                for (threads, height, width), extra in self.memory.items()
            ],
            "imports": self.imports,
            "goals": [goal.__dict__ for goal in self._goals()],
        }


@dataclass
class _Goal:
    what: str
    wanted: str
    reached: str
    met: bool

    @property
    def row(self) -> tuple[str, str, str, str]:
        return self.what, self.wanted, self.reached, "yes" if self.met else "NO"


def _race_goals(race: Race) -> Iterator[_Goal]:
    where = f"{race.case.name}, {_threads(race.threads)}"
    for name, entry in race.entries.items():
        if entry.failure is not None or not entry.seconds:
            continue
        least = _LEAST_FRACTIONS.get(race.case.name) if entry.contender.ours else None
        if least is not None and entry.fraction is not None and race.threads == 1:
            yield _Goal(
                f"{where}: {name}, speed beside the floor's", f"at least {least:.0%}",
                f"{entry.fraction:.0%}", entry.fraction >= least,
            )  # fmt: skip
        most = _MOST_SECONDS_SMALL.get(name) if race.case.name == "small" else None
        if most is not None:
            yield _Goal(
                f"{where}: {name}, one call", f"at most {most * 1e6:.0f} us",
                f"{entry.median * 1e6:.1f} us", entry.median <= most,
            )  # fmt: skip
        ratio, goal = entry.ratio, entry.contender.goal(race.case)
        if goal is not None and ratio is not None:
            yield _Goal(
                f"{where}: faster than {name}", f"at least {goal:g} times",
                f"{_number(ratio)} times", ratio >= goal,
            )  # fmt: skip


# --- One case -------------------------------------------------------------------------------------


def _race_table(races: dict[str, Race]) -> Table:
    """Both allocators of one case and number of threads, side by side."""
    any_race = next(iter(races.values()))
    case = any_race.case
    entries = {name: entry for race in races.values() for name, entry in race.entries.items()}
    unit, scale = ("us", 1e6) if case.name == "small" else ("ms", 1e3)
    loss = "sosie loss" if case.gradient else None
    columns = ["", f"{unit}, no-fault", f"{unit}, default", "sosie faster, no-fault", "default"]
    columns += ["sosie loss faster, no-fault"] if loss else []
    columns += ["goal"]
    columns += ["of floor's speed"] if case.has_floor else []
    columns += ["value - float64"]
    columns += ["gradient error"] if case.gradient else []
    columns += ["extra MiB, default"]
    table = Table(f"{case.title}, {_threads(any_race.threads)}", columns)
    for name, entry in entries.items():
        found = [_entry(races, allocator, name) for allocator in (_NO_FAULT, _DEFAULT)]
        goal = entry.contender.goal(case)
        row = [name, *(_seconds(each, scale) for each in found), *(_times(each) for each in found)]
        row += [_loss_times(races, name)] if loss else []
        row += [f"{goal:g}x" if goal else ""]
        row += [_fraction(found[0])] if case.has_floor else []
        row += [_difference(entry.error)]
        row += [_difference(entry.gradient_error)] if case.gradient else []
        row += [_mebibytes(found[1].extra_bytes if found[1] else None)]
        table.rows.append(row)
    table.notes = _notes(races)
    return table


def _entry(races: dict[str, Race], allocator: str, name: str) -> Entry | None:
    return races[allocator].entries.get(name) if allocator in races else None


def _seconds(entry: Entry | None, scale: float) -> str:
    if entry is None or entry.failure is not None or not entry.seconds:
        return "-"
    return f"{_number(entry.median * scale)} ({_number(min(entry.least) * scale)})"


def _times(entry: Entry | None) -> str:
    if entry is None or entry.failure is not None or entry.ratio is None:
        return ""
    return f"{_number(entry.ratio)}x"


def _loss_times(races: dict[str, Race], name: str) -> str:
    """Ratio to the one-call loss, within the same rounds."""
    entry, loss = (_entry(races, _NO_FAULT, each) for each in (name, "sosie loss"))
    if entry is None or loss is None or entry is loss or entry.failure or loss.failure:
        return ""
    # Slow contenders do the first rounds only.
    ratios = [a / b for a, b in zip(entry.seconds, loss.seconds, strict=False)]
    return f"{_number(statistics.median(ratios))}x" if ratios else ""


def _fraction(entry: Entry | None) -> str:
    if entry is None or entry.failure is not None or entry.fraction is None:
        return ""
    return f"{entry.fraction:.0%}"


def _notes(races: dict[str, Race]) -> list[str]:
    notes = []
    for allocator, race in races.items():
        peaks = race.best_peaks
        if peaks is not None and allocator == _NO_FAULT:
            floors = [race.case.floor(each) * 1e3 for each in race.peaks]
            notes.append(
                f"floor {statistics.median(floors):.2f} ms at this case's median peaks, "
                f"{race.case.floor(peaks) * 1e3:.2f} ms at its highest "
                f"({peaks.flops / 1e9:.0f} GFLOP/s, {peaks.bandwidth / 1e9:.1f} GB/s)"
            )
        most = max((len(entry.seconds) for entry in race.entries.values()), default=0)
        fewer = [
            f"{name} {len(entry.seconds)}"
            for name, entry in race.entries.items()
            if 0 < len(entry.seconds) < most
        ]
        rounds = f"{most} round{'s' * (most != 1)}" + (
            f" (fewer: {', '.join(fewer)})" if fewer else ""
        )
        load = f"{race.foreign_load:.0%} of the cores' time went to others"
        notes.append(f"{allocator}: {rounds}; {load}")
        notes += [
            f"{allocator}: {name} not counted: {entry.failure}"
            for name, entry in race.entries.items()
            if entry.failure is not None
        ]
    return notes


def _plain_race(race: Race) -> dict[str, Any]:
    return {
        "case": race.case.plain,
        "threads": race.threads,
        "allocator": race.allocator,
        "foreign_load": race.foreign_load,
        "peaks": [peaks._asdict() for peaks in race.peaks],
        "entries": {name: _plain_entry(entry) for name, entry in race.entries.items()},
    }


def _plain_entry(entry: Entry) -> dict[str, Any]:
    return {
        "convention": dict(entry.convention),
        "value": entry.value,
        "error": entry.error,
        "gradient_error": entry.gradient_error,
        "extra_bytes": entry.extra_bytes,
        "seconds": entry.seconds,
        "least": entry.least,
        "ratios": entry.ratios,
        "fractions_of_floor": entry.fractions,
        "failure": entry.failure,
    }


# --- Numbers as text ------------------------------------------------------------------------------


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def _number(value: float) -> str:
    """Three digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _difference(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _mebibytes(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:.1f}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
