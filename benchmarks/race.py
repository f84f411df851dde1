# SPDX-License-Identifier: Apache-2.0
"""Contenders timed in turn, round by round, on a machine that others may use too.

Whatever slows the machine down for a while slows all contenders of that while down, so a ratio is
taken between two times measured one right after the other, and the median over the rounds is what
counts. In every round each peer is preceded or followed, in alternation, by sosie doing the very
same: the peer's images, its convention, its threads, its allocator.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.machine import Peaks
from benchmarks.ssim_cases import Case
from benchmarks.ssim_peers import CONTENDERS, Contender, Convention
from benchmarks.workers import Ended, Missing, Worker, WorkerError

__all__ = ["Budget", "Entry", "Race", "References", "Team"]

_MODULE = "benchmarks.ssim_peers"

#: A block of timed calls lasts this long, and has no more calls than this.
BLOCK_SECONDS, BLOCK_CALLS = 0.02, 1000

#: How far from the float64 reference sosie itself may be, and any gradient, relative to its norm.
OWN_VALUE_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = {True: 1e-4, False: 1e-3}


@dataclass(frozen=True)
class Budget:
    """How long to measure.

    Attributes
    ----------
    rounds : int
        Rounds of every contender that is fast enough.
    seconds : float
        Seconds for one contender at one case; slower ones do fewer rounds.
    least_rounds : int
        Rounds of the slowest.
    """

    rounds: int
    seconds: float
    least_rounds: int

    def rounds_of(self, seconds: float) -> int:
        """Rounds for calls that take ``seconds``."""
        affordable = int(self.seconds / max(seconds, 1e-9))
        return max(self.least_rounds, min(self.rounds, affordable))


class Team:
    """A worker per contender, with the same threads and allocator; those that are missing, and why.

    Parameters
    ----------
    names : sequence of str
        Contenders.
    threads : int
        Threads of each.
    allocator : str
        One of `machine.ALLOCATORS`.
    interpreters : mapping of str to str
        Interpreters of contenders that live in another environment.
    """

    def __init__(
        self, names: Sequence[str], threads: int, allocator: str, interpreters: Mapping[str, str]
    ) -> None:
        self.threads, self.allocator = threads, allocator
        self.missing: dict[str, str] = {}
        self.workers = {
            name: Worker(
                _MODULE,
                name,
                threads,
                allocator,
                **({"python": interpreters[name]} if name in interpreters else {}),
            )
            for name in names
        }
        for name, worker in list(self.workers.items()):
            try:
                worker.wait_until_ready()
            except Missing as error:
                self.drop(name, str(error))

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers.values():
            worker.close()

    def drop(self, name: str, reason: str) -> None:
        """Do without a contender from now on."""
        self.workers.pop(name).close()
        self.missing[name] = reason

    def drop_ended(self, reason: str) -> None:
        """Do without contenders whose process is no more."""
        for name in [name for name, worker in self.workers.items() if not worker.alive]:
            self.drop(name, reason)

    def forget(self) -> None:
        """Have every worker free the memory of the last case."""
        for name, worker in list(self.workers.items()):
            try:
                worker.ask("forget")
            except Ended as error:
                self.drop(name, str(error))

    @property
    def processes(self) -> list[int]:
        """Identifiers of the workers' processes."""
        return [worker.pid for worker in self.workers.values()]

    @property
    def versions(self) -> dict[str, str]:
        """Version of each library."""
        return {k: v for worker in self.workers.values() for k, v in worker.versions.items()}


class References:
    """float64 values and gradients, computed once for each case and convention."""

    def __init__(self, threads: int) -> None:
        self._worker = Worker(_MODULE, "reference", threads, "default")
        self._worker.wait_until_ready()
        self._folder = tempfile.TemporaryDirectory()
        self._known: dict[str, tuple[float, Path]] = {}

    def close(self) -> None:
        """End the process."""
        self._worker.close()
        self._folder.cleanup()

    def value(self, case: Case, convention: Convention) -> float:
        """The similarity."""
        return self._look_up(case, convention)[0]

    def gradient_error(self, case: Case, convention: Convention, path: Path) -> float:
        """Norm of the difference between the gradient in a file and the reference, relative."""
        reference = np.load(self._look_up(case, convention)[1])
        difference = np.load(path).astype(np.float64) - reference
        return float(np.linalg.norm(difference) / np.linalg.norm(reference))

    def _look_up(self, case: Case, convention: Convention) -> tuple[float, Path]:
        key = repr((case, sorted(convention.items())))
        if key not in self._known:
            path = Path(self._folder.name) / f"{len(self._known)}.npy"
            answer = self._worker.ask(
                "first", case=case.plain, convention=dict(convention), gradient_path=str(path)
            )
            self._worker.ask("forget")
            self._known[key] = answer["value"], path
        return self._known[key]


@dataclass
class Entry:
    """One contender at one case: what it gave and how long it took.

    Attributes
    ----------
    seconds, least : list of float
        Median and least seconds of a call in each round.
    ratios : list of float
        Seconds over those of sosie doing the same right before or after, in each round.
    fractions : list of float
        Floor over seconds, with the peaks measured right before, in each round.
    error, gradient_error : float or None
        Value minus the float64 reference of the same convention; relative error of the gradient.
    extra_bytes : int or None
        Peak memory of the first call beyond what was in use.
    failure : str or None
        Why the times do not count.
    """

    contender: Contender
    convention: Convention
    value: float = float("nan")
    error: float | None = None
    gradient_error: float | None = None
    extra_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    fractions: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median(self) -> float:
        """Median seconds of a call."""
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> float | None:
        """How many times faster sosie is: median over rounds."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def fraction(self) -> float | None:
        """Reached fraction of the floor's speed: median over rounds."""
        return statistics.median(self.fractions) if self.fractions else None


class Race:
    """One case, with one team.

    Attributes
    ----------
    entries : dict of str to Entry
        By the contender's name.
    peaks : list of Peaks
        Of every round, for cases with a floor.
    foreign_load : float
        Fraction of the cores' time that went to other processes or to the host.
    """

    def __init__(self, case: Case, team: Team, references: References, budget: Budget) -> None:
        self.case, self.threads, self.allocator = case, team.threads, team.allocator
        self.entries: dict[str, Entry] = {}
        self.peaks: list[Peaks] = []
        self.foreign_load = 0.0
        self._team, self._references, self._budget = team, references, budget
        self._rounds: dict[str, int] = {}
        self._sosie_values: dict[tuple[str, str], float] = {}

    @property
    def best_peaks(self) -> Peaks | None:
        """The highest of all rounds."""
        if not self.peaks:
            return None
        return Peaks(max(p.flops for p in self.peaks), max(p.bandwidth for p in self.peaks))

    def run(self, progress: Callable[[str, float], None]) -> None:
        """Measure. ``progress`` is told what comes next, and the fraction that is done."""
        names = list(self._team.workers)
        for number, name in enumerate(names):
            convention = CONTENDERS[name].convention(self.case)
            if convention is not None:
                progress(f"{name}, first call", 0.5 * number / len(names))
                self._admit(Entry(CONTENDERS[name], convention))
        cores = machine.cores(self.threads)
        start, busy, own = time.perf_counter(), *self._usage(cores)
        for number in range(self._budget.rounds):
            self._round(number, progress)
        wall = (time.perf_counter() - start) * len(cores)
        busy_now, own_now = self._usage(cores)
        self.foreign_load = max(0.0, (busy_now - busy) - (own_now - own)) / wall
        self._team.forget()

    def _usage(self, cores: Sequence[int]) -> tuple[float, float]:
        return machine.busy_seconds(cores), machine.process_seconds(self._team.processes)

    # Asking

    def _ask(
        self,
        name: str,
        request: str,
        convention: Convention,
        case: Case | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        plain = (case or self.case).plain
        return self._team.workers[name].ask(
            request, case=plain, convention=dict(convention), **more
        )

    def _sample(self, name: str, convention: Convention) -> dict[str, Any]:
        return self._ask(name, "sample", convention, at_least=BLOCK_SECONDS, most_calls=BLOCK_CALLS)

    def _sosie_like(self, contender: Contender) -> str | None:
        """The form of sosie that a contender is compared with; None if it takes no part."""
        name = "sosie torch" if contender.arrays == "torch" or self.case.gradient else "sosie"
        there = name in self.entries and name in self._team.workers
        return name if there and name != contender.name else None

    # Before the rounds

    def _admit(self, entry: Entry) -> None:
        name = entry.contender.name
        self.entries[name] = entry
        try:
            self._first(entry)
            if entry.failure is None:
                self._warm_up(entry)
        except WorkerError as error:
            self._fail(entry, error)

    def _fail(self, entry: Entry, error: WorkerError) -> None:
        entry.failure = str(error)
        self._team.drop_ended(str(error))

    def _first(self, entry: Entry) -> None:
        """Call once, and check the value and the gradient."""
        if not entry.contender.compiled:
            # What a library does once belongs to no case.
            self._ask(entry.contender.name, "first", entry.convention, case=self.case.tiny)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gradient.npy"
            answer = self._ask(
                entry.contender.name, "first", entry.convention, gradient_path=str(path)
            )
            entry.value, entry.extra_bytes = answer["value"], answer["extra_bytes"]
            entry.error = entry.value - self._references.value(self.case, entry.convention)
            if path.exists():
                entry.gradient_error = self._references.gradient_error(
                    self.case, entry.convention, path
                )
        self._rounds[entry.contender.name] = self._budget.rounds_of(answer["seconds"])
        entry.failure = self._disagreement(entry)

    def _disagreement(self, entry: Entry) -> str | None:
        """Why the result is wrong, if it is: sosie beside the reference, a peer beside sosie."""
        contender, twin = entry.contender, self._sosie_like(entry.contender)
        tolerance = OWN_VALUE_TOLERANCE if contender.ours else contender.value_tolerance
        expected = self._references.value(self.case, entry.convention)
        if twin is not None:
            expected = self._sosie_value(twin, entry.convention)
        # `not` catches NaN too.
        if not abs(entry.value - expected) <= tolerance:
            return f"value {entry.value:.7f} is not sosie's {expected:.7f}"
        limit = GRADIENT_TOLERANCE[contender.ours]
        if entry.gradient_error is not None and not entry.gradient_error <= limit:
            return f"gradient is off by {entry.gradient_error:.1e}"
        return None

    def _sosie_value(self, name: str, convention: Convention) -> float:
        """Value of sosie by a convention, by which it is then ready to be timed."""
        key = name, repr(sorted(convention.items()))
        if key not in self._sosie_values:
            self._sosie_values[key] = self._ask(name, "first", convention)["value"]
        return self._sosie_values[key]

    def _warm_up(self, entry: Entry) -> None:
        """Call until the time is steady enough to plan the rounds."""
        name = entry.contender.name
        if entry.contender.compiled or self._rounds[name] > self._budget.least_rounds:
            seconds = self._sample(name, entry.convention)["median"]
            self._rounds[name] = self._budget.rounds_of(seconds)

    # Rounds

    def _round(self, number: int, progress: Callable[[str, float], None]) -> None:
        peaks = self._measure_peaks()
        for name, entry in self.entries.items():
            if entry.failure is not None or number >= self._rounds[name]:
                continue
            done = 0.5 + 0.5 * number / self._budget.rounds
            progress(f"{name}, round {number + 1} of {self._rounds[name]}", done)
            try:
                self._time(entry, number, peaks)
            except WorkerError as error:
                self._fail(entry, error)

    def _measure_peaks(self) -> Peaks | None:
        if not self.case.has_floor or "sosie" not in self._team.workers:
            return None
        self.peaks.append(Peaks(**self._team.workers["sosie"].ask("peaks")))
        return self.peaks[-1]

    def _time(self, entry: Entry, number: int, peaks: Peaks | None) -> None:
        name, convention = entry.contender.name, entry.convention
        twin = self._sosie_like(entry.contender)
        order = [name] if twin is None else [name, twin] if number % 2 else [twin, name]
        samples = {each: self._sample(each, convention) for each in order}
        seconds = samples[name]["median"]
        entry.seconds.append(seconds)
        entry.least.append(samples[name]["least"])
        if twin is not None:
            entry.ratios.append(seconds / samples[twin]["median"])
        if entry.contender.ours and peaks is not None:
            entry.fractions.append(self.case.floor(peaks) / seconds)
