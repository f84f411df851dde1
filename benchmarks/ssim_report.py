# SPDX-License-Identifier: Apache-2.0
"""What the SSIM benchmark found, as tables and as plain data."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks import report
from benchmarks.race import Race
from benchmarks.report import Column, Goal, Races, thread_count
from benchmarks.ssim_cases import Case
from benchmarks.ssim_costs import Flatness
from benchmarks.tables import Table

__all__ = ["SSIMResults"]

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
class SSIMResults(report.Results):
    """Everything that was measured.

    Attributes
    ----------
    flatness : list of Flatness
        One per number of threads.
    memory : dict of (threads, height, width) to int or None
        Extra bytes of a forward pass.
    imports : dict of str to list of float
        Seconds that each import takes after NumPy's.
    """

    flatness: list[Flatness] = field(default_factory=list)
    memory: dict[tuple[int, int, int], int | None] = field(default_factory=dict)
    imports: dict[str, list[float]] = field(default_factory=dict)

    # --- As tables

    def unit(self, case: Case) -> tuple[str, float]:
        """See the base."""
        return ("us", 1e6) if case.name == "small" else ("ms", 1e3)

    def columns(self, case: Case) -> list[Column]:
        """See the base."""
        return [
            *([Column("sosie loss faster, no-fault", _loss_times)] if case.gradient else []),
            report.goal_column(case),
            *([report.floor_column()] if case.has_floor else []),
            Column("value - float64", _value_error),
            *([Column("gradient error", _gradient_error)] if case.gradient else []),
        ]

    def more_tables(self) -> Iterator[Table]:
        """See the base."""
        if self.flatness:
            yield self._flatness_table()
        if self.memory:
            yield self._memory_table()
        if self.imports:
            yield self._import_table()

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
            table.rows.append((f"{width} x {height}", str(threads), report.mebibytes(extra)))
        return table

    def _import_table(self) -> Table:
        table = Table("After `import numpy`, in a fresh interpreter", ["", "ms", "least"])
        for statement, seconds in self.imports.items():
            table.rows.append(
                (statement, f"{statistics.median(seconds) * 1e3:.0f}", f"{min(seconds) * 1e3:.0f}")
            )
        return table

    # --- Goals

    def race_goals(self, race: Race) -> Iterator[Goal]:
        """See the base."""
        for name, entry in report.counted(race):
            least = _LEAST_FRACTIONS.get(race.case.name) if entry.contender.ours else None
            if race.threads == 1:
                yield from report.fraction_goal(race, name, entry, least)
            most = _MOST_SECONDS_SMALL.get(name) if race.case.name == "small" else None
            if most is not None:
                yield Goal(
                    f"{report.where(race)}: {name}, one call", f"at most {most * 1e6:.0f} us",
                    f"{entry.median * 1e6:.1f} us", entry.median <= most,
                )  # fmt: skip
            yield from report.ratio_goal(race, name, entry)

    def more_goals(self) -> Iterator[Goal]:
        """See the base."""
        for each in self.flatness:
            yield Goal(
                f"time per pixel at all sizes, {thread_count(each.threads)}: largest / smallest",
                f"at most {_MOST_SPREAD}", f"{each.spread:.2f}", each.spread <= _MOST_SPREAD,
            )  # fmt: skip
        for (threads, height, width), extra in self.memory.items():
            if extra is not None:
                yield Goal(
                    f"memory of a forward pass at {width} x {height}, {thread_count(threads)}",
                    f"below {report.mebibytes(_MOST_EXTRA_BYTES)} MiB",
                    f"{report.mebibytes(extra)} MiB", extra < _MOST_EXTRA_BYTES,
                )  # fmt: skip
        if "import sosie" in self.imports:
            seconds = statistics.median(self.imports["import sosie"])
            yield Goal(
                "import after NumPy's",
                f"at most {_MOST_IMPORT_SECONDS * 1e3:.0f} ms", f"{seconds * 1e3:.0f} ms",
                seconds <= _MOST_IMPORT_SECONDS,
            )  # fmt: skip

    # --- As plain data

    def more_plain(self) -> dict[str, Any]:
        """See the base."""
        return {
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
        }


def _loss_times(races: Races, name: str) -> str:
    """Ratio to the one-call loss, within the same rounds."""
    entry, loss = (report.found(races, report.NO_FAULT, each) for each in (name, "sosie loss"))
    if entry is None or loss is None or entry is loss:
        return ""
    # Slow contenders do the first rounds only.
    ratios = [a / b for a, b in zip(entry.seconds, loss.seconds, strict=False)]
    return f"{report.number(statistics.median(ratios))}x" if ratios else ""


def _value_error(races: Races, name: str) -> str:
    return report.difference(report.any_entry(races, name).error)


def _gradient_error(races: Races, name: str) -> str:
    return report.difference(report.any_entry(races, name).array_error)
