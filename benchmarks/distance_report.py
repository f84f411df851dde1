# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of distances found, as tables and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks import report
from benchmarks.distance_cases import NEIGHBOURS, Case
from benchmarks.distance_costs import ACCURACY_DATA, ACCURACY_DIMENSIONS, Accuracy, search
from benchmarks.distance_peers import CONTENDERS
from benchmarks.race import Race
from benchmarks.report import Column, Goal, Races, thread_count
from benchmarks.tables import Table

__all__ = ["DistanceResults"]

#: What sosie is meant to reach, apart from the ratios that `benchmarks.distance_peers` states.
_LEAST_FRACTIONS = {
    ("ssd-forward", "sosie"): 0.85,
    ("ssd-forward", "sosie torch"): 0.85,
    ("ssd-gradient", "sosie loss"): 0.85,  # the other form reads everything twice
    ("rows-euclidean", "sosie"): 0.85,
    ("rows-euclidean", "sosie torch"): 0.85,
    ("rows-cosine", "sosie"): 0.85,
    ("rows-cosine", "sosie torch"): 0.85,
}
_MOST_RELATIVE_ERROR = 5e-6
#: A search may hold its results, the database as the kernels want it, and this.
_MOST_EXTRA_BYTES = 8 << 20


@dataclass
class DistanceResults(report.Results):
    """Everything that was measured.

    Attributes
    ----------
    accuracy : Accuracy or None
        Of distances of all pairs.
    memory : dict of (threads, vectors) to int or None
        Extra bytes of a search for neighbours.
    """

    accuracy: Accuracy | None = None
    memory: dict[tuple[int, int], int | None] = field(default_factory=dict)

    # --- As tables

    def columns(self, case: Case) -> list[Column]:
        """See the base."""
        return [
            report.goal_column(case),
            *([report.floor_column()] if case.has_floor else []),
            Column("gradient error" if case.gradient else "error", _error),
        ]

    def more_tables(self) -> Iterator[Table]:
        """See the base."""
        if self.accuracy is not None:
            yield _accuracy_table(self.accuracy)
        if self.memory:
            yield self._memory_table()

    def _memory_table(self) -> Table:
        table = Table(
            f"The {NEIGHBOURS} nearest neighbours, NumPy: memory beyond both sets, at its peak",
            ["", "threads", "MiB", "MiB of the matrix that is not formed"],
        )
        for (threads, count), extra in self.memory.items():
            first, second, dimensions = search(count).shape
            row = f"{first} to {second} vectors of {dimensions}", str(threads)
            table.rows.append((*row, report.mebibytes(extra), report.mebibytes(4 * first * second)))
        return table

    # --- Goals

    def race_goals(self, race: Race) -> Iterator[Goal]:
        """See the base."""
        counted = dict(report.counted(race))
        products = [name for name in counted if CONTENDERS[name].product]
        # The goal is set beside the faster of them.
        slower = sorted(products, key=lambda name: counted[name].median)[1:]
        for name, entry in counted.items():
            least = _LEAST_FRACTIONS.get((race.case.name, name))
            yield from report.fraction_goal(race, name, entry, least)
            if name not in slower:
                yield from report.ratio_goal(race, name, entry)

    def more_goals(self) -> Iterator[Goal]:
        """See the base."""
        if self.accuracy is not None and "sosie" in self.accuracy.distances:
            error = max(self.accuracy.distances["sosie"].values())
            yield Goal(
                "relative error of distances", f"at most {_MOST_RELATIVE_ERROR:.0e}",
                f"{error:.1e}", error <= _MOST_RELATIVE_ERROR,
            )  # fmt: skip
        for (threads, count), extra in self.memory.items():
            if extra is not None:
                most = _most_memory(search(count))
                yield Goal(
                    f"memory of a search, {count} to {count} vectors, {thread_count(threads)}",
                    f"at most {report.mebibytes(most)} MiB",
                    f"{report.mebibytes(extra)} MiB", extra <= most,
                )  # fmt: skip

    # --- As plain data

    def more_plain(self) -> dict[str, Any]:
        """See the base."""
        accuracy = None
        if self.accuracy is not None:
            accuracy = {
                "distances": [
                    {"contender": name, "data": data, "dimensions": dimensions, "error": error}
                    for name, errors in self.accuracy.distances.items()
                    for (data, dimensions), error in errors.items()
                ],
                "gradients_of_near_pairs": self.accuracy.gradients,
            }
        memory = [
            {"threads": threads, "vectors": count, "extra_bytes": extra}
            for (threads, count), extra in self.memory.items()
        ]
        return {"accuracy": accuracy, "memory": memory}


def _most_memory(case: Case) -> int:
    """Bytes of results and of the database, whatever the number of pairs, and a little."""
    first, second, dimensions = case.shape
    return first * NEIGHBOURS * (4 + 8) + second * dimensions * 4 + _MOST_EXTRA_BYTES


def _error(races: Races, name: str) -> str:
    """Of what is checked in norm, relative."""
    return report.difference(report.any_entry(races, name).array_error)


def _accuracy_table(accuracy: Accuracy) -> Table:
    keys = [(data, size) for data in ACCURACY_DATA for size in ACCURACY_DIMENSIONS]
    table = Table(
        "Largest relative error of a Euclidean distance, 500 to 500 vectors, beside float64",
        ["", *(f"{ACCURACY_DATA[data]}, {size}" for data, size in keys)],
    )
    for name, errors in accuracy.distances.items():
        table.rows.append((name, *(report.difference(errors.get(key)) for key in keys)))
    table.notes = [
        "1000 + 0.01 normal: each vector has one in the other set that is 0.001 away.",
        *(
            f"gradients of such pairs, 64 dimensions: {name} is off by {error:.1e} (relative norm)"
            for name, error in accuracy.gradients.items()
        ),
    ]
    return table
