# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the benchmark of squared differences and distances, called as its users do.

A contender says which kinds of cases it does, and with which arguments sosie computes the same: its
result has to agree with that, and sosie is timed against it doing the same. Two are no peers but
limits: plain matrix products of the same sizes, from which squared distances follow after the clock
has stopped.

Importing this module imports no contender.
"""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.distance_cases import CASES, NEIGHBOURS, Case, chosen, inputs
from benchmarks.machine import versions
from benchmarks.race import Budget, Convention, Family
from benchmarks.workers import Prepared

__all__ = ["CONTENDERS", "FAMILY", "Contender", "load"]

Array = NDArray[Any]
Goal = Callable[[Case], float | None]


class Job(NamedTuple):
    """What a contender is to do.

    Attributes
    ----------
    case : Case
    convention : mapping
        Arguments with which sosie does the same.
    threads : int
        Threads to use, for libraries that are told in every call.
    arrays : tuple
        What `benchmarks.distance_cases.inputs` gives, as arrays of the contender's library.
    """

    case: Case
    convention: Convention
    threads: int
    arrays: tuple[Any, ...]


#: Library and job to a function of nothing: what is timed.
Build = Callable[[Any, Job], Callable[[], Any]]


# --- Checks ---------------------------------------------------------------------------------------


def _checked(job: Job, result: Any) -> Array:
    """What is compared with the definition, float64.

    Of neighbours, their distances as they were returned, and those of the indices as they are.
    """
    if job.case.kind == "ssd":
        return np.array([float(result)])
    if not job.case.kind.startswith("knn"):
        return _float64(result, chosen(job.case, len(result)))
    distances, indices = result
    rows = chosen(job.case, len(distances))
    queries, database = (np.asarray(array, np.float64) for array in job.arrays)
    found = database[np.asarray(indices)[rows]] - queries[rows][:, None]
    true = (found * found).sum(-1)
    if job.convention["metric"] == "euclidean":
        true = np.sqrt(true)
    return np.concatenate([_float64(distances, rows), true], axis=1)


def _checked_product(job: Job, result: Any) -> Array:
    """Squared distances that follow from a product of matrices."""
    rows = chosen(job.case, len(result))
    a, b = (np.asarray(array, np.float64) for array in job.arrays)
    a = a[rows]
    squared: Array = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * _float64(result, rows)
    return squared


def _float64(result: Any, rows: NDArray[np.intp]) -> Array:
    """Some rows of an array of any library."""
    return np.asarray(result)[rows].astype(np.float64)


# --- Contenders -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """A library that computes squared differences or distances.

    Attributes
    ----------
    name : str
        What it is called on the command line and in tables.
    module : str
        What is imported.
    build : callable
        Makes the function that is called.
    conventions : mapping of str to mapping
        For each kind of case it does, the arguments with which sosie computes the same.
    arrays : {"numpy", "torch"}
        Whose arrays it takes. Those of torch are differentiable.
    forward, gradient : bool
        Whether it is called without gradient, and with it.
    product : bool
        Whether it is a matrix product alone, which takes part where vectors are long.
    compiled : bool
        Whether the function is compiled by torch.compile.
    ours : bool
        Whether this is sosie itself.
    value_tolerance : float
        How far its value may be from sosie's by the same convention, relatively.
    goal : callable
        How many times faster than this contender sosie is meant to be at a case; None where nothing
        was set.
    checked : callable
        Job and result to the distances, or whatever else is compared with the definition.
    """

    name: str
    module: str
    build: Build
    conventions: Mapping[str, Convention]
    arrays: str = "numpy"
    forward: bool = True
    gradient: bool = False
    product: bool = False
    compiled: bool = False
    ours: bool = False
    # Sums in float32 of up to 13 million terms; a mistake in a formula shows in the first digits.
    value_tolerance: float = 2e-5
    goal: Goal = field(default=lambda _: None)
    checked: Callable[[Job, Any], Array] = _checked

    def convention(self, case: Case) -> Convention | None:
        """Arguments with which sosie computes the same; None for a case that is not done."""
        if not (self.gradient if case.gradient else self.forward):
            return None
        if self.product and case.shape[-1] < _PRODUCT_DIMENSIONS:
            return None
        return self.conventions.get(case.kind)


class _Loaded:
    """A contender whose library is imported."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self._contender, self._threads = contender, threads
        if contender.arrays == "torch":
            importlib.import_module("torch").set_num_threads(threads)
        self._library = importlib.import_module(contender.module)
        if contender.module == "faiss":
            self._library.omp_set_num_threads(threads)
        self.versions = versions([contender.module])

    def prepare(self, case: dict[str, Any], convention: Convention) -> Prepared:
        """See `benchmarks.workers.Prepared`."""
        what = Case.from_plain(case)
        arrays: tuple[Any, ...] = inputs(what)
        if self._contender.arrays == "torch":
            torch: Any = importlib.import_module("torch")
            arrays = tuple(map(torch.from_numpy, arrays))
        job = Job(what, convention, self._threads, arrays)
        if self._contender.name == "reference":
            call = functools.partial(_reference, job)
            return Prepared(call, lambda pair: float(pair[0]), lambda pair: pair[1])
        if what.gradient:
            return _prepare_gradient(self._contender, self._library, job)
        checked = functools.partial(self._contender.checked, job)
        return Prepared(
            self._contender.build(self._library, job),
            lambda result: float(np.mean(checked(result))),
            checked,
            _without_gradients if self._contender.arrays == "torch" else bool,
        )


def load(name: str, threads: int) -> _Loaded:
    """Import a contender's library and limit its threads."""
    return _Loaded(CONTENDERS[name], threads)


# --- The definition -------------------------------------------------------------------------------


def _reference(job: Job) -> tuple[float, Array]:
    """Value, and what is checked, by the definition.

    Every checked number is computed, and no other: a whole matrix would take minutes.
    """
    case, kind = job.case, job.case.kind
    if kind == "ssd":
        return _reference_ssd(job)
    if not case.pairwise:
        return _reference_rows(job)
    distance = importlib.import_module("sosie.reference.distance")
    a, b, *upstream = job.arrays
    rows, metric = chosen(case, len(a)), job.convention["metric"]
    distances = distance.cdist_forward(a[rows], b, metric)
    if kind.startswith("knn"):
        nearest = np.sort(distances, axis=1)[:, :NEIGHBOURS]
        return float(nearest.mean()), np.concatenate([nearest, nearest], axis=1)
    if not case.gradient:
        return float(distances.mean()), distances
    columns = chosen(case, len(b))
    of_a = distance.cdist_backward(a[rows], b, upstream[0][rows], metric)[0]
    of_b = distance.cdist_backward(a, b[columns], upstream[0][:, columns], metric)[1]
    return float(distances.mean()), np.concatenate([of_a.ravel(), of_b.ravel()])


def _reference_ssd(job: Job) -> tuple[float, Array]:
    ssd = importlib.import_module("sosie.reference.ssd")
    total = float(ssd.ssd_forward(*job.arrays)[0, 0])
    if not job.case.gradient:
        return total, np.array([total])
    images = (array[chosen(job.case, len(array))] for array in job.arrays)
    return total, ssd.ssd_backward(*images, [[1.0, 0.0]])[0].ravel()


def _reference_rows(job: Job) -> tuple[float, Array]:
    paired = importlib.import_module("sosie.reference.paired")
    rows = chosen(job.case, len(job.arrays[0]))
    x, y = (array[rows] for array in job.arrays)
    if job.case.kind == "rows-euclidean":
        values = paired.euclidean_forward(x, y, 1)
        gradient = paired.euclidean_backward(x, y, np.ones(len(x)), 1)[0]
    else:
        # No row is of length 0: what such a one is divided by does not matter.
        values = paired.cosine_forward(x, y, 1, 0.0, 0.0)[0]
        gradient = paired.cosine_backward(x, y, np.ones(len(x)), 1, 0.0, 0.0)[0]
    return float(values.mean()), gradient.ravel() if job.case.gradient else values


# --- Gradients ------------------------------------------------------------------------------------


def _without_gradients() -> None:
    importlib.import_module("torch").set_grad_enabled(False)


def _prepare_gradient(contender: Contender, library: Any, job: Job) -> Prepared:
    """Forward and backward: gradients of both sets for all pairs, else of the first array."""
    torch: Any = importlib.import_module("torch")
    torch.set_grad_enabled(True)
    leaves = job.arrays[: 2 if job.case.kind == "cdist" else 1]
    for leaf in leaves:
        leaf.requires_grad_()
    forward = contender.build(library, job)
    upstream = job.arrays[2] if job.case.kind == "cdist" else None

    def step() -> Any:
        for leaf in leaves:
            leaf.grad = None
        result = forward()
        if result.ndim == 0 or upstream is not None:
            result.backward(upstream)
        else:
            result.sum().backward()
        return result.detach()

    def gradients(_: Any) -> Array:
        parts = [_float64(leaf.grad, chosen(job.case, len(leaf))) for leaf in leaves]
        return np.concatenate([part.ravel() for part in parts])

    return Prepared(
        step,
        lambda result: float(np.mean(contender.checked(job, result))),
        gradients,
        lambda: torch.set_grad_enabled(True),
    )


# --- sosie ----------------------------------------------------------------------------------------


def _sosie(sosie: Any, job: Job) -> Callable[[], Any]:
    kind, first, second = job.case.kind, job.arrays[0], job.arrays[1]
    if kind == "ssd":
        return lambda: sosie.weighted_ssd(*job.arrays)
    if kind == "rows-euclidean":
        return lambda: sosie.euclidean_distance(first, second)
    if kind == "rows-cosine":
        return lambda: sosie.cosine_similarity(first, second)
    metric = job.convention["metric"]
    if kind == "cdist":
        return lambda: sosie.cdist(first, second, metric)
    database = sosie.pack(second, metric) if kind == "knn-packed" else second
    return lambda: sosie.knn(first, database, NEIGHBOURS, metric)


def _sosie_loss(nn: Any, job: Job) -> Callable[[], Any]:
    loss = nn.WeightedSSDLoss(reduction="sum")
    return lambda: loss(*job.arrays)


# --- Peers ----------------------------------------------------------------------------------------


def _torch(torch: Any, job: Job) -> Callable[[], Any]:
    kind, first, second = job.case.kind, job.arrays[0], job.arrays[1]
    functional = torch.nn.functional
    if kind == "rows-euclidean":
        return lambda: functional.pairwise_distance(first, second)
    if kind == "rows-cosine":
        return lambda: functional.cosine_similarity(first, second)
    if kind == "cdist":
        return lambda: torch.cdist(first, second)
    return lambda: torch.cdist(first, second).topk(NEIGHBOURS, largest=False)


def _expression(x: Any, y: Any, w: Any) -> Any:
    """Weighted SSD, the way it is written by hand."""
    return (w * (x - y) ** 2).sum()


def _ssd_expression(_: types.ModuleType, job: Job) -> Callable[[], Any]:
    return functools.partial(_expression, *job.arrays)


def _torch_compiled(torch: Any, job: Job) -> Callable[[], Any]:
    return functools.partial(torch.compile(_expression), *job.arrays)


def _torch_mse_loss(torch: Any, job: Job) -> Callable[[], Any]:
    x, y, w = job.arrays
    return lambda: torch.nn.functional.mse_loss(x, y, reduction="sum", weight=w)


def _torch_product(torch: Any, job: Job) -> Callable[[], Any]:
    a, b = job.arrays
    return lambda: torch.mm(a, b.T)


def _numpy_product(_: types.ModuleType, job: Job) -> Callable[[], Any]:
    a, b = job.arrays
    return lambda: a @ b.T


def _numpy(numpy: types.ModuleType, job: Job) -> Callable[[], Any]:
    """The way it is written by hand."""
    if job.case.kind == "ssd":
        return _ssd_expression(numpy, job)
    a, b = job.arrays

    def distances() -> Array:
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * (a @ b.T)
        result: Array = np.sqrt(np.maximum(squared, 0.0))
        return result

    return distances


def _faiss(faiss: Any, job: Job) -> Callable[[], Any]:
    """All of its distances are squared."""
    first, second = job.arrays
    if job.case.kind == "cdist":
        return lambda: faiss.pairwise_distances(first, second)
    if job.case.kind == "knn":
        return lambda: faiss.knn(first, second, NEIGHBOURS)
    index = faiss.IndexFlatL2(second.shape[1])
    index.add(second)
    return lambda: index.search(first, NEIGHBOURS)


def _scikit_learn(_: types.ModuleType, job: Job) -> Callable[[], Any]:
    first, second = job.arrays
    if job.case.kind == "cdist":
        pairwise: Any = importlib.import_module("sklearn.metrics.pairwise")
        return lambda: pairwise.euclidean_distances(first, second)
    neighbors: Any = importlib.import_module("sklearn.neighbors")
    model = neighbors.NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(second)
    return lambda: model.kneighbors(first)


def _numkong(numkong: Any, job: Job) -> Callable[[], Any]:
    """Its distances are float64."""
    first, second = job.arrays
    if job.case.kind == "cdist":
        return lambda: numkong.cdist(first, second, "euclidean", threads=job.threads)
    if job.case.kind == "rows-euclidean":
        return lambda: numkong.euclidean(first, second)
    return lambda: numkong.angular(first, second)


def _simsimd(simsimd: Any, job: Job) -> Callable[[], Any]:
    first, second = job.arrays
    function = simsimd.euclidean if job.case.kind == "rows-euclidean" else simsimd.cosine
    return lambda: function(first, second)


def _checked_similarity(job: Job, result: Any) -> Array:
    """Where a library's cosine is the distance, one minus the similarity."""
    distances = _checked(job, np.asarray(result))
    return 1.0 - distances if job.case.kind == "rows-cosine" else distances


# --- Goals ----------------------------------------------------------------------------------------

#: Dimensions from which on sosie is compared with a plain matrix product.
_PRODUCT_DIMENSIONS = 128


def _peer_of_matrix(case: Case) -> float:
    """Beside the fastest way there is, whoever that be."""
    count, _, dimensions = case.shape
    return 1.0 if count >= 4000 and dimensions <= 32 else 0.9


def _goal_torch(case: Case) -> float | None:
    if case.kind.startswith("rows"):
        return 5.0 if case.gradient else None
    if case.kind == "knn":
        return 1.3
    if case.gradient:
        return 1.8 if case.shape[-1] <= 64 else 1.25
    return 3.0 if case.shape[-1] <= 16 else _peer_of_matrix(case)


def _goal_faiss(case: Case) -> float | None:
    if case.kind == "cdist":
        return _peer_of_matrix(case)
    return 1.3 if case.kind == "knn" and case.shape[-1] <= 128 else 1.0


def _goal_eager_ssd(case: Case) -> float | None:
    return 3.0 if case.gradient else 2.0


# --- All of them ----------------------------------------------------------------------------------

_SQUARED, _EUCLIDEAN, _NOTHING = (
    {"metric": "sqeuclidean"},
    {"metric": "euclidean"},
    dict[str, Any](),
)

#: What sosie does by itself.
_OURS: Mapping[str, Convention] = {
    "ssd": _NOTHING,
    "cdist": _EUCLIDEAN,
    "knn": _EUCLIDEAN,
    "knn-packed": _SQUARED,
    "rows-euclidean": _NOTHING,
    "rows-cosine": _NOTHING,
}
_ROWS: Mapping[str, Convention] = {"rows-euclidean": _NOTHING, "rows-cosine": _NOTHING}

_ALL = (
    Contender("sosie", "sosie", _sosie, _OURS, ours=True),
    Contender("sosie torch", "sosie", _sosie, _OURS, arrays="torch", gradient=True, ours=True),
    Contender(
        "sosie loss",
        "sosie.nn",
        _sosie_loss,
        {"ssd": _NOTHING},
        arrays="torch",
        forward=False,
        gradient=True,
        ours=True,
    ),
    Contender("reference", "sosie", _sosie, _OURS, gradient=True, ours=True),
    Contender(
        "torch",
        "torch",
        _torch,
        {"cdist": _EUCLIDEAN, "knn": _EUCLIDEAN, **_ROWS},
        arrays="torch",
        gradient=True,
        goal=_goal_torch,
    ),
    Contender(
        "torch expression",
        "torch",
        _ssd_expression,
        {"ssd": _NOTHING},
        arrays="torch",
        gradient=True,
        goal=_goal_eager_ssd,
    ),
    Contender(
        "torch mse_loss",
        "torch",
        _torch_mse_loss,
        {"ssd": _NOTHING},
        arrays="torch",
        gradient=True,
        goal=_goal_eager_ssd,
    ),
    Contender(
        "torch compiled",
        "torch",
        _torch_compiled,
        {"ssd": _NOTHING},
        arrays="torch",
        gradient=True,
        compiled=True,
        goal=lambda _: 1.0,
    ),
    Contender(
        "faiss",
        "faiss",
        _faiss,
        {"cdist": _SQUARED, "knn": _SQUARED, "knn-packed": _SQUARED},
        goal=_goal_faiss,
    ),
    Contender(
        "scikit-learn",
        "sklearn",
        _scikit_learn,
        {"cdist": _EUCLIDEAN, "knn": _EUCLIDEAN},
        goal=lambda _: 2.0,
    ),
    Contender(
        "numkong",
        "numkong",
        _numkong,
        {"cdist": _EUCLIDEAN, **_ROWS},
        goal=lambda case: 2.0 if case.kind == "cdist" else None,
        checked=_checked_similarity,
    ),
    Contender("simsimd", "simsimd", _simsimd, _ROWS, checked=_checked_similarity),
    Contender(
        "numpy",
        "numpy",
        _numpy,
        {"ssd": _NOTHING, "cdist": _EUCLIDEAN},
        goal=lambda case: _peer_of_matrix(case) if case.kind == "cdist" else None,
    ),
    Contender(
        "numpy product",
        "numpy",
        _numpy_product,
        {"cdist": _SQUARED},
        product=True,
        goal=lambda _: 0.8,
        checked=_checked_product,
    ),
    Contender(
        "torch product",
        "torch",
        _torch_product,
        {"cdist": _SQUARED},
        arrays="torch",
        product=True,
        goal=lambda _: 0.8,
        checked=_checked_product,
    ),
)

#: Every contender by its name.
CONTENDERS = {contender.name: contender for contender in _ALL}


def _twin(contender: Contender, case: Case) -> str:
    """The loss where there is one: it is what a training loop calls."""
    if case.gradient:
        return "sosie loss" if case.kind == "ssd" else "sosie torch"
    return "sosie torch" if contender.arrays == "torch" else "sosie"


FAMILY = Family(
    "benchmarks.distance_peers",
    CASES,
    CONTENDERS,
    # The largest matrices take a second, and there are many cases. Goals refer to the peers' best,
    # so their default gets less of the time.
    {
        "default": Budget(rounds=1, seconds=0.0, least_rounds=1),
        "no-fault": Budget(rounds=5, seconds=0.5, least_rounds=2),
    },
    _twin,
    own_array_tolerance=1e-5,
)
