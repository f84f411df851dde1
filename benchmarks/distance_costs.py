# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of distances measures beside races: accuracy; sizes for memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.distance_cases import Case
from benchmarks.distance_peers import CONTENDERS, FAMILY
from benchmarks.race import Convention
from benchmarks.workers import Missing, Worker, WorkerError

__all__ = [
    "ACCURACY_DATA",
    "ACCURACY_DIMENSIONS",
    "MEMORY_COUNTS",
    "Accuracy",
    "accuracy",
    "search",
]

#: Vectors in each of two sets whose neighbours are searched, to see what memory that takes.
MEMORY_COUNTS = (10_000, 20_000)
_MEMORY_DIMENSIONS = 64

#: Data of `benchmarks.distance_cases.Case`, and how tables call it.
ACCURACY_DATA = {"normal": "normal", "near": "1000 + 0.01 normal"}
ACCURACY_DIMENSIONS = (3, 16, 128, 784)
_ACCURACY_COUNT = 500
_GRADIENT_DIMENSIONS = 64


@dataclass
class Accuracy:
    """How far results are from the float64 definition on the same float32 vectors.

    Attributes
    ----------
    distances : dict of str to dict of (str, int) to float
        By contender, then by data and dimensions: largest relative error of a Euclidean distance
        among those of all pairs. Squared distances count by their roots.
    gradients : dict of str to float
        By contender: norm of the error of the gradients of near pairs, relative.
    """

    distances: dict[str, dict[tuple[str, int], float]] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)


def search(count: int) -> Case:
    """Neighbours of so many vectors among so many others."""
    return Case("memory", "knn", (count, count, _MEMORY_DIMENSIONS))


def accuracy(names: Sequence[str], progress: Callable[[str], None]) -> Accuracy:
    """Compare distances of all pairs of 500 vectors and 500, of each contender that is there."""
    cases = [_case(data, size) for data in ACCURACY_DATA for size in ACCURACY_DIMENSIONS]
    cases.append(_case("near", _GRADIENT_DIMENSIONS, gradient=True))
    found = Accuracy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array.npy"
        progress("by the definition")
        expected = _results("reference", cases, path)
        for name in names:
            # Matrix products are no distances, and tensors give sosie's the same ones.
            if not CONTENDERS[name].product and name != "reference":
                progress(name)
                for case, array in _results(name, cases, path).items():
                    _compare(found, name, case, array, expected[case])
    found.distances.pop("sosie torch", None)
    return found


def _case(data: str, dimensions: int, gradient: bool = False) -> Case:
    shape = (_ACCURACY_COUNT, _ACCURACY_COUNT, dimensions)
    return Case("accuracy", "cdist", shape, gradient, data, checked=_ACCURACY_COUNT)


def _results(name: str, cases: Sequence[Case], path: Path) -> dict[Case, NDArray[np.float64]]:
    """Euclidean distances, or gradients, of the cases that a contender does."""
    conventions = {case: CONTENDERS[name].convention(case) for case in cases}
    done = {case: convention for case, convention in conventions.items() if convention is not None}
    if not done:
        return {}
    worker = Worker(FAMILY.module, name, 1, "default")
    try:
        worker.wait_until_ready()
        return {case: _result(worker, case, convention, path) for case, convention in done.items()}
    except (Missing, WorkerError):  # the races' tables say why
        return {}
    finally:
        worker.close()


def _result(worker: Worker, case: Case, convention: Convention, path: Path) -> NDArray[np.float64]:
    worker.ask("first", case=case.plain, convention=dict(convention), array_path=str(path))
    array: NDArray[np.float64] = np.load(path).astype(np.float64)
    is_squared = convention["metric"] == "sqeuclidean"
    return np.sqrt(np.maximum(array, 0.0)) if is_squared else array


def _compare(
    found: Accuracy,
    name: str,
    case: Case,
    array: NDArray[np.float64],
    expected: NDArray[np.float64],
) -> None:
    if case.gradient:
        error = np.linalg.norm(array - expected) / np.linalg.norm(expected)
        found.gradients[name] = float(error)
    else:
        errors = np.abs(array - expected)[expected > 0] / expected[expected > 0]
        found.distances.setdefault(name, {})[(case.data, case.shape[-1])] = float(errors.max())
