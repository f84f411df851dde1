# SPDX-License-Identifier: Apache-2.0
"""Contenders timed in turn, round by round, on a machine that others may use too.

Whatever slows the machine down for a while slows all contenders of that while down, so a ratio is
taken between two times measured one right after the other, and the median over the rounds is what
counts. In every round each peer is preceded or followed, in alternation, by sosie doing the very
same: the peer's data, its convention, its threads, its allocator.

What is raced is a :class:`Family`'s business.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import machine
from benchmarks.machine import Peaks
from benchmarks.workers import Ended, Missing, Worker, WorkerError

__all__ = [
    "Budget",
    "Case",
    "Contender",
    "Convention",
    "Entry",
    "Family",
    "Race",
    "References",
    "Team",
]

#: A block of timed calls lasts this long, and has no more calls than this.
BLOCK_SECONDS, BLOCK_CALLS = 0.02, 1000

#: Arguments with which sosie computes what a contender computes.
Convention = Mapping[str, Any]


class Case(Protocol):
    """One thing to measure.

    Attributes
    ----------
    name, title : str
        What it is called on the command line; one line that says what is measured.
    gradient : bool
        Whether gradients are wanted, for which sosie needs tensors.
    plain : dict
        The case as plain data, from which a contender's process makes its data.
    tiny : Case
        The same with hardly any data.
    has_floor : bool
        Whether `floor` says something.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def gradient(self) -> bool: ...
    @property
    def plain(self) -> dict[str, Any]: ...
    @property
    def tiny(self) -> Case: ...
    @property
    def has_floor(self) -> bool: ...

    def floor(self, peaks: Peaks) -> float:
        """Least seconds it can take."""

    def smaller(self) -> Case:
        """The same with little data, to see whether everything runs."""


class Contender(Protocol):
    """Who takes part.

    Attributes
    ----------
    name : str
        What it is called on the command line and in tables.
    arrays : str
        Whose arrays it takes.
    compiled : bool
        Whether it is compiled by torch.compile.
    ours : bool
        Whether this is sosie itself.
    value_tolerance : float
        How far its value may be from sosie's by the same convention, relative to the value where
        that is above 1.
    """

    @property
    def name(self) -> str: ...
    @property
    def arrays(self) -> str: ...
    @property
    def compiled(self) -> bool: ...
    @property
    def ours(self) -> bool: ...
    @property
    def value_tolerance(self) -> float: ...

    def convention(self, case: Any) -> Convention | None:
        """Arguments with which sosie computes the same; None for a case that is not done."""

    def goal(self, case: Any) -> float | None:
        """How many times faster sosie is meant to be at a case; None where nothing was set."""


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


@dataclass(frozen=True)
class Family:
    """What a script measures.

    Attributes
    ----------
    module : str
        Module that `benchmarks.workers.Worker` loads the contenders from. One of them is
        "reference", the float64 definition.
    cases : mapping of str to Case
    contenders : mapping of str to Contender
        By their names.
    budgets : mapping of str to Budget
        By allocator.
    twin : callable
        Contender and case to the name of the form of sosie that the contender is compared with.
    own_value_tolerance : float
        How far from the reference sosie's value may be, relative to it where it is above 1.
    own_array_tolerance, array_tolerance : float
        Norm by which the array of a result (a gradient, distances) may be off the reference,
        relative to the reference's: sosie's, and the peers'.
    """

    module: str
    cases: Mapping[str, Case]
    contenders: Mapping[str, Contender]
    budgets: Mapping[str, Budget]
    twin: Callable[[Any, Any], str]
    own_value_tolerance: float = 1e-6
    own_array_tolerance: float = 1e-4
    array_tolerance: float = 1e-3


class Team:
    """A worker per contender, with the same threads and allocator; those that are missing, and why.

    Parameters
    ----------
    family : Family
        What they do.
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
        self,
        family: Family,
        names: Sequence[str],
        threads: int,
        allocator: str,
        interpreters: Mapping[str, str],
    ) -> None:
        self.family = family
        self.threads, self.allocator = threads, allocator
        self.missing: dict[str, str] = {}
        self.workers = {
            name: Worker(
                family.module,
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
    """float64 values and arrays, computed once for each case and convention."""

    def __init__(self, family: Family, threads: int) -> None:
        self._worker = Worker(family.module, "reference", threads, "default")
        self._worker.wait_until_ready()
        self._folder = tempfile.TemporaryDirectory()
        self._known: dict[str, tuple[float, Path]] = {}

    def close(self) -> None:
        """End the process."""
        self._worker.close()
        self._folder.cleanup()

    def value(self, case: Case, convention: Convention) -> float:
        """The number that stands for the result."""
        return self._look_up(case, convention)[0]

    def array_error(self, case: Case, convention: Convention, path: Path) -> float:
        """Norm of the difference between the array in a file and the reference, relative."""
        reference = np.load(self._look_up(case, convention)[1])
        difference = np.load(path).astype(np.float64) - reference
        return float(np.linalg.norm(difference) / np.linalg.norm(reference))

    def _look_up(self, case: Case, convention: Convention) -> tuple[float, Path]:
        key = repr((case, sorted(convention.items())))
        if key not in self._known:
            path = Path(self._folder.name) / f"{len(self._known)}.npy"
            answer = self._worker.ask(
                "first", case=case.plain, convention=dict(convention), array_path=str(path)
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
    error, array_error : float or None
        Value minus the float64 reference of the same convention; relative error of the array, that
        is of the gradient where there is one.
    extra_bytes : int or None
        Peak memory of the first call beyond what was in use.
    failure : str or None
        Why the times do not count.
    """

    contender: Contender
    convention: Convention
    value: float = float("nan")
    error: float | None = None
    array_error: float | None = None
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
        return Peaks(*(max(each) for each in zip(*self.peaks, strict=True)))

    def run(self, progress: Callable[[str, float], None]) -> None:
        """Measure. ``progress`` is told what comes next, and the fraction that is done."""
        names = list(self._team.workers)
        for number, name in enumerate(names):
            contender = self._team.family.contenders[name]
            convention = contender.convention(self.case)
            if convention is not None:
                progress(f"{name}, first call", 0.5 * number / len(names))
                self._admit(Entry(contender, convention))
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
        name = self._team.family.twin(contender, self.case)
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
        """Call once, and check the value and the array."""
        if not entry.contender.compiled:
            # What a library does once belongs to no case.
            self._ask(entry.contender.name, "first", entry.convention, case=self.case.tiny)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "array.npy"
            answer = self._ask(
                entry.contender.name, "first", entry.convention, array_path=str(path)
            )
            entry.value, entry.extra_bytes = answer["value"], answer["extra_bytes"]
            entry.error = entry.value - self._references.value(self.case, entry.convention)
            if path.exists():
                entry.array_error = self._references.array_error(self.case, entry.convention, path)
        self._rounds[entry.contender.name] = self._budget.rounds_of(answer["seconds"])
        entry.failure = self._disagreement(entry)

    def _disagreement(self, entry: Entry) -> str | None:
        """Why the result is wrong, if it is: sosie beside the reference, a peer beside sosie."""
        contender, twin = entry.contender, self._sosie_like(entry.contender)
        family = self._team.family
        tolerance = family.own_value_tolerance if contender.ours else contender.value_tolerance
        expected = self._references.value(self.case, entry.convention)
        if twin is not None:
            expected = self._sosie_value(twin, entry.convention)
        # `not` catches NaN too.
        if not abs(entry.value - expected) <= tolerance * max(1.0, abs(expected)):
            return f"value {entry.value:.7f} is not sosie's {expected:.7f}"
        limit = family.own_array_tolerance if contender.ours else family.array_tolerance
        if entry.array_error is not None and not entry.array_error <= limit:
            what = "gradient is" if self.case.gradient else "distances are"
            return f"{what} off by {entry.array_error:.1e}"
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
