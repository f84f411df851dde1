# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of recurrent layers found, as tables and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import report
from benchmarks.race import Race
from benchmarks.recurrent_cases import CASES, Case
from benchmarks.recurrent_costs import Gates
from benchmarks.report import Column, Goal, thread_count
from benchmarks.tables import Table

__all__ = ["RecurrentResults"]

_LEAST_FRACTION_OF_BANDWIDTH = 0.85
#: Of the memory that ConvLSTM_pytorch takes.
_MOST_MEMORY = 2 / 3


@dataclass
class RecurrentResults(report.Results):
    """Everything that was measured.

    Attributes
    ----------
    memory : dict of (threads, case, contender) to int or None
        Extra bytes of a step of training.
    gates : dict of (threads, name) to Gates
    """

    memory: dict[tuple[int, str, str], int | None] = field(default_factory=dict)
    gates: dict[tuple[int, str], Gates] = field(default_factory=dict)

    # --- As tables

    def columns(self, case: Case) -> list[Column]:
        """See the base."""
        return [
            report.goal_column(case),
            *([report.floor_column()] if case.has_floor else []),
            Column(
                "gradient error" if case.gradient else "error",
                lambda races, name: report.difference(report.any_entry(races, name).array_error),
            ),
        ]

    def more_tables(self) -> Iterator[Table]:
        """See the base."""
        if self.memory:
            table = Table(
                "A step of training: memory beyond images and weights, at its peak",
                ["", "threads", "contender", "MiB"],
            )
            for (threads, case, name), extra in self.memory.items():
                row = CASES[case].title, str(threads), name
                table.rows.append((*row, report.mebibytes(extra)))
            yield table
        if self.gates:
            table = Table(
                "Gates of one ConvLSTM step alone, larger case, channels last",
                ["", "threads", "ms", "fraction of the bandwidth limit"],
            )
            for (threads, name), each in self.gates.items():
                row = name, str(threads), f"{each.seconds * 1e3:.2f}"
                table.rows.append((*row, f"{each.floor / each.seconds:.2f}"))
            yield table

    # --- Goals

    def race_goals(self, race: Race) -> Iterator[Goal]:
        """See the base."""
        for name, entry in report.counted(race):
            yield from report.ratio_goal(race, name, entry)

    def more_goals(self) -> Iterator[Goal]:
        """See the base."""
        for (threads, case, name), extra in self.memory.items():
            loop = self.memory.get((threads, case, "ConvLSTM_pytorch"))
            if name == "sosie" and extra is not None and loop is not None:
                yield Goal(
                    f"memory of {case}, {thread_count(threads)}",
                    f"at most {_MOST_MEMORY:.2f} of ConvLSTM_pytorch",
                    f"{extra / loop:.2f}", extra <= _MOST_MEMORY * loop,
                )  # fmt: skip
        for (threads, name), each in self.gates.items():
            fraction = each.floor / each.seconds
            yield Goal(
                f"gates {name}, {thread_count(threads)}",
                f"at least {_LEAST_FRACTION_OF_BANDWIDTH:.2f} of the bandwidth limit",
                f"{fraction:.2f}", fraction >= _LEAST_FRACTION_OF_BANDWIDTH,
            )  # fmt: skip

    # --- As plain data

    def more_plain(self) -> dict[str, Any]:
        """See the base."""
        memory = [
            {"threads": threads, "case": case, "contender": name, "extra_bytes": extra}
            for (threads, case, name), extra in self.memory.items()
        ]
        gates = [
            {"threads": threads, "name": name, **asdict(each)}
            for (threads, name), each in self.gates.items()
        ]
        return {"memory": memory, "gates": gates}
