# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of squared differences and distances measures, and the least time it can take.

The floor of a case is the longer of two times, with this machine's measured peaks:

- moving its bytes, where they are too many for any cache: what is given is read once, results and
  gradients are written once, see `benchmarks.machine.Peaks.transfer`;
- for all pairs of vectors, issuing their arithmetic: a fused multiply-add, two operations, for each
  element of each pair, by whatever formula; gradients with respect to both sets take two more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import Peaks

__all__ = ["CASES", "NEIGHBOURS", "Case", "chosen", "inputs"]

NEIGHBOURS = 10

_ELEMENT = 4  # bytes: everything is float32
_NEIGHBOUR = 4 + 8  # bytes: a distance and an index

#: Bytes that may in part stay in a large processor's last cache from one call to the next, and then
#: come faster than memory is read. The matrix of 4000 x 4000 distances has more.
_MOST_CACHED = 60e6

_TITLES = {
    "ssd": "Weighted SSD, a weight for each element",
    "cdist": "Distances of all pairs",
    "knn": f"The {NEIGHBOURS} nearest neighbours",
    "knn-packed": f"The {NEIGHBOURS} nearest neighbours in a database laid out before",
    "rows-euclidean": "Euclidean distance of paired rows",
    "rows-cosine": "Cosine similarity of paired rows",
}


@dataclass(frozen=True)
class Case:
    """One thing to measure, on float32.

    Attributes
    ----------
    name : str
        What it is called on the command line.
    kind : {"ssd", "cdist", "knn", "knn-packed", "rows-euclidean", "rows-cosine"}
        What is computed.
    shape : tuple of int
        For "ssd" that of the images, for paired rows ``(rows, elements)``, else
        ``(vectors, vectors of the other set, dimensions)``.
    gradient : bool
        Whether gradients are wanted: of both sets for "cdist", else of the first array.
    data : {"normal", "near"}
        Standard normal vectors, or 1000 + 0.01 times such, where each vector of the second set is
        one of the first but for one dimension, in which it is 0.001 away.
    checked : int
        Vectors, rows or images whose results are compared with the definition, spread evenly.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    gradient: bool = False
    data: str = "normal"
    checked: int = 16

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Case:
        """The case whose `plain` this is."""
        return cls(**{**plain, "shape": tuple(plain["shape"])})

    @property
    def plain(self) -> dict[str, Any]:
        """The case as plain data."""
        return asdict(self)

    @property
    def pairwise(self) -> bool:
        """Whether it is about all pairs of two sets of vectors."""
        return self.kind in ("cdist", "knn", "knn-packed")

    @property
    def title(self) -> str:
        """One line that says what is measured."""
        task = ", forward + backward" if self.gradient else ""
        size = "x".join(map(str, self.shape))
        if self.pairwise:
            first, second, dimensions = self.shape
            size = f"{first} to {second} vectors of {dimensions}"
        return f"{_TITLES[self.kind]}{task}, {size} float32"

    @property
    def has_floor(self) -> bool:
        """Whether `floor` says something: a small case is mostly overhead."""
        return self._operations > 1e8 or self._is_beyond_caches

    def floor(self, peaks: Peaks) -> float:
        """Least seconds the case can take, where it `has_floor`."""
        issued = self._operations / peaks.flops
        if not self._is_beyond_caches:
            return issued
        return max(issued, peaks.transfer(self._read, self._written))

    @property
    def _is_beyond_caches(self) -> bool:
        return self._read + self._written > _MOST_CACHED

    @property
    def _read(self) -> int:
        """Bytes of what is given."""
        if self.pairwise:
            first, second, dimensions = self.shape
            upstream = first * second if self.gradient else 0
            return ((first + second) * dimensions + upstream) * _ELEMENT
        arrays = 3 if self.kind == "ssd" else 2
        return arrays * int(np.prod(self.shape)) * _ELEMENT

    @property
    def _written(self) -> int:
        """Bytes of results and gradients."""
        if not self.pairwise:
            results = self.shape[0] if self.kind.startswith("rows") else 0
            gradients = int(np.prod(self.shape)) if self.gradient else 0
            return (results + gradients) * _ELEMENT
        first, second, dimensions = self.shape
        if self.kind != "cdist":
            return first * NEIGHBOURS * _NEIGHBOUR
        gradients = (first + second) * dimensions if self.gradient else 0
        return (first * second + gradients) * _ELEMENT

    @property
    def _operations(self) -> float:
        """Floating-point operations that count; those of a single pass hide behind its reads."""
        if not self.pairwise:
            return 0.0
        return 2.0 * float(np.prod(self.shape)) * (3 if self.gradient else 1)

    def smaller(self) -> Case:
        """The same with little data, to see whether everything runs."""
        if self.pairwise:
            first, second, dimensions = self.shape
            return replace(self, shape=(min(first, 200), min(second, 300), dimensions))
        return replace(self, shape=(min(self.shape[0], 8), *self.shape[1:]))

    @property
    def tiny(self) -> Case:
        """The same with hardly any data."""
        if self.pairwise:
            return replace(self, shape=(4 * NEIGHBOURS, 4 * NEIGHBOURS, self.shape[-1]))
        return replace(self, shape=tuple(min(size, 8) for size in self.shape))


_DATABASE = (100_000, 128)
_ROWS = (65536, 512)
_SSD = (64, 3, 256, 256)


def _all_cases() -> list[Case]:
    cases = [Case("ssd-forward", "ssd", _SSD), Case("ssd-gradient", "ssd", _SSD, gradient=True)]
    cases += [
        Case(f"cdist-{count}-{dimensions}", "cdist", (count, count, dimensions))
        for count in (1000, 4000)
        for dimensions in (3, 16, 64, 128, 784, 2048)
    ]
    cases += [
        Case(f"cdist-gradient-{dimensions}", "cdist", (2000, 2000, dimensions), gradient=True)
        for dimensions in (64, 784)
    ]
    cases += [Case(f"knn-{size}", "knn", (10_000, 10_000, size)) for size in (128, 784)]
    cases += [Case(f"knn-few-{count}", "knn-packed", (count, *_DATABASE)) for count in (1, 8, 100)]
    for measure in ("euclidean", "cosine"):
        kind = f"rows-{measure}"
        cases.append(Case(kind, kind, _ROWS))
        cases.append(Case(f"rows-gradient-{measure}", kind, _ROWS, gradient=True))
    return cases


CASES = {case.name: case for case in _all_cases()}


def inputs(case: Case) -> tuple[NDArray[np.float32], ...]:
    """Arrays of a case, the same in every process.

    For "ssd" two batches of images and weights in [0, 1), for paired rows two matrices, all of
    uniform numbers; else two sets of vectors and, where gradients are wanted, what distances are
    weighted with, of shape ``(vectors, vectors of the other set)``.
    """
    generator = np.random.default_rng(0)
    if not case.pairwise:
        count = 3 if case.kind == "ssd" else 2
        arrays = [generator.random(case.shape, dtype=np.float32) for _ in range(count)]
        if case.kind == "rows-cosine":  # angles on both sides of a right one
            arrays = [array - np.float32(0.5) for array in arrays]
        return tuple(arrays)
    first, second, dimensions = case.shape
    a = generator.standard_normal((first, dimensions), dtype=np.float32)
    b = generator.standard_normal((second, dimensions), dtype=np.float32)
    if case.data == "near":
        a = np.float32(1000.0) + np.float32(0.01) * a
        rows = np.arange(second)
        b = a[rows % first]
        b[rows, rows % dimensions] += np.float32(1e-3)
    if not case.gradient:
        return a, b
    return a, b, generator.standard_normal((first, second), dtype=np.float32)


def chosen(case: Case, count: int) -> NDArray[np.intp]:
    """Which of so many results are checked."""
    return np.linspace(0, count - 1, min(count, case.checked)).astype(np.intp)
