# SPDX-License-Identifier: Apache-2.0
"""Distances on a device: what is measured beside whom, and what is predicted for an H100.

Predicted from counts alone: operations, bytes of memory and of the second-level cache. Nothing in
those tables was measured.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.costs import H100, Limits
from benchmarks.gpu.pairs import PairCase
from benchmarks.tables import Table

__all__ = ["CASES", "DistanceCase", "predicted_cases"]

Call = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class DistanceCase(PairCase):
    """One task on two sets of vectors.

    Attributes
    ----------
    task : {"paired", "cdist", "knn"}
        Distances of paired rows, of all pairs, or to the nearest.
    rows, columns, dims : int
        Sizes of the sets; for paired rows ``columns`` is 1.
    k : int
        Neighbours.
    gradient : bool
        Whether the gradient of the first set is computed as well.
    """

    task: str
    rows: int
    columns: int
    dims: int
    k: int = 0
    gradient: bool = False
    dtype: str = "float32"

    @property
    def elements(self) -> int:
        """Pairs, of vectors or of numbers of paired rows."""
        return self.rows * (self.dims if self.task == "paired" else self.columns)

    @property
    def bytes(self) -> float:
        """Least traffic with device memory per pair, in bytes."""
        if self.task == "paired":
            return 12 if self.gradient else 8
        sets = 4 * self.dims * (self.rows + self.columns) / self.elements
        results = {"cdist": 4, "knn": 12 * self.k / self.columns}[self.task]
        return sets + results * (3 if self.gradient else 1)

    @property
    def operations(self) -> float:
        """Least float32 instructions per pair: differences where they are taken, or a product."""
        if self.task == "paired":
            return 5 if self.gradient else 2
        dims = self.dims * (2 if self.dims <= 32 else 1)
        return dims + 2 + (2 * self.dims if self.gradient else 0)

    @property
    def tolerance(self) -> float:
        """Relative, of values. The product that torch and faiss take costs near pairs digits: of a
        squared distance d^2 some 2^-22 |a|^2, where in 3 dimensions |a|^2 / d^2 is 10^4."""
        return 1e-2 if self.task == "knn" and self.dims <= 32 else super().tolerance

    @property
    def name(self) -> str:
        """For tables."""
        sizes = (self.rows, self.dims) if self.task == "paired" else (
            self.rows, self.columns, self.dims)  # fmt: skip
        size = "x".join(map(str, sizes))
        neighbours = f" k={self.k}" if self.k else ""
        task = "and gradient" if self.gradient else "forward"
        return f"{self.task} {size}{neighbours} {self.dtype}, {task}"

    @property
    def bytes_of_input(self) -> int:
        """Of both sets."""
        return 4 * self.dims * (self.rows + self._others)

    @property
    def _others(self) -> int:
        return self.rows if self.task == "paired" else self.columns

    def inputs(self, count: int, device: str = "cuda") -> list[Any]:
        """So many pairs of sets of normally distributed numbers."""
        import torch

        def vectors(number: int) -> Any:
            return torch.randn(number, self.dims, device=device)

        return [
            (vectors(self.rows).requires_grad_(self.gradient), vectors(self._others))
            for _ in range(count)
        ]

    def functions(self) -> dict[str, Call]:
        """Functions ``(x, y) -> distances``, sosie's first; who is not installed is left out."""
        makers: dict[str, Callable[[DistanceCase], Call]] = {
            "paired": {"sosie": _sosie_paired, "torch": _torch_paired},
            "cdist": {"sosie": _sosie_cdist, "torch.cdist": _torch_cdist, "cuVS": _cuvs_cdist},
            "knn": {
                "sosie": _sosie_knn,
                "torch.cdist + topk": _torch_knn,
                "faiss": _faiss_knn,
                "cuVS": _cuvs_knn,
            },
        }[self.task]
        found = {}
        for name, make in makers.items():
            try:
                found[name] = make(self)
            except (ImportError, AttributeError):
                continue
        return found


CASES = (
    DistanceCase("paired", 1 << 20, 1, 128),
    DistanceCase("paired", 1 << 20, 1, 128, gradient=True),
    *(DistanceCase("cdist", 16384, 16384, dims) for dims in (3, 8, 16, 32, 128, 256, 512)),
    DistanceCase("cdist", 4096, 4096, 128, gradient=True),
    DistanceCase("knn", 100_000, 100_000, 3, k=10),
    DistanceCase("knn", 100_000, 100_000, 128, k=10),
    DistanceCase("knn", 10_000, 100_000, 128, k=100),
    DistanceCase("knn", 64, 1_000_000, 128, k=10),
)


def _sosie_paired(_: DistanceCase) -> Call:
    import sosie

    return sosie.euclidean_distance


def _torch_paired(_: DistanceCase) -> Call:
    import torch

    return lambda x, y: torch.linalg.vector_norm(x - y, dim=-1)


def _sosie_cdist(_: DistanceCase) -> Call:
    import sosie

    return sosie.cdist


def _torch_cdist(_: DistanceCase) -> Call:
    import torch

    return torch.cdist


def _cuvs_cdist(_: DistanceCase) -> Call:
    import torch

    function = importlib.import_module("cuvs.distance").pairwise_distance

    def call(x: Any, y: Any) -> Any:
        out = torch.empty(len(x), len(y), device="cuda")
        function(x.detach(), y, out=out, metric="euclidean")
        return out

    return call


def _sosie_knn(case: DistanceCase) -> Call:
    import sosie

    return lambda x, y: sosie.knn(x, y, case.k).distances


def _torch_knn(case: DistanceCase) -> Call:
    """In blocks of rows whose matrix takes 8 GB at most."""
    import torch

    rows = max(1, (2 << 30) // case.columns)

    def call(x: Any, y: Any) -> Any:
        blocks = (torch.cdist(part, y) for part in x.split(rows))
        return torch.cat([b.topk(case.k, dim=1, largest=False).values for b in blocks])

    return call


def _faiss_knn(case: DistanceCase) -> Call:
    faiss = importlib.import_module("faiss")
    importlib.import_module("faiss.contrib.torch_utils")
    resources = faiss.StandardGpuResources()
    return lambda x, y: faiss.knn_gpu(resources, x.detach(), y, case.k)[0].sqrt()


def _cuvs_knn(case: DistanceCase) -> Call:
    import torch

    brute_force = importlib.import_module("cuvs.neighbors.brute_force")

    def call(x: Any, y: Any) -> Any:
        index = brute_force.build(y, metric="sqeuclidean")
        distances, _ = brute_force.search(index, x.detach(), case.k)
        return torch.as_tensor(distances, device="cuda").sqrt()

    return call


# --- Predictions ----------------------------------------------------------------------------------

#: Reads from the second-level cache of an H100 per second, and what a library's float32 product
#: reaches of the multiply-adds that fit into all issue slots. Both are others' measurements.
_CACHE, _PRODUCT = 5.5e12, 0.9


def _picoseconds(case: DistanceCase, limits: Limits) -> tuple[float, float]:
    """Per pair: predicted time of sosie, and the floor that its target names."""
    slot, byte = 1e12 / limits.slots, 1e12 / limits.bytes
    if case.task == "paired":
        slots = 15 if case.gradient else 9
        floor = case.bytes * byte
        return max(slots * slot, floor), floor
    # Both sets are read, and written as the product takes them.
    prepared = 8 * case.dims * (case.rows + case.columns) / case.elements * byte
    product = case.dims * slot / _PRODUCT
    # Two operations a dimension, an eighth of an operation to fill shared memory and as much to
    # read it; root, two comparisons, addresses, store.
    direct = (2.25 * case.dims + 5.5) * slot
    store = 4 * byte
    if case.gradient:  # forward, backward: factors are read for each 64 dimensions
        backward = max((2.35 * case.dims) * slot, 8 * -(-case.dims // 64) * byte)
        return max(direct, store) + backward, 2 * product + store
    if case.task == "cdist":
        if case.dims <= 32:
            return max(direct, store), store
        return prepared + product + max(12 * slot, 4e12 / _CACHE, store), product
    # A value is read from the cache, and compared; a block of direct distances was written there.
    search = max(10 * slot, 4e12 / _CACHE)
    found = max(direct, 4e12 / _CACHE) if case.dims <= 32 else prepared + product
    # torch: the product with its sums as two more dimensions, clamped and rooted in place (16
    # bytes), and at least four passes of a radix selection.
    others = prepared + (case.dims + 2) * slot / _PRODUCT + (4 + 8 + 8 + 16) * byte
    return found + search, others


def predicted_cases(limits: Limits = H100) -> Table:
    """Times of the cases, and how they stand to what the target is held against."""
    table = Table(
        f"Distances: times predicted for an {limits.name} from counts",
        ("case", "ps per pair", "ms", "held against", "its ps", "ratio"),
        notes=[
            "Not measured. Ratio: for neighbours how many times faster than the other, for the "
            "rest what part of its speed.",
            f"Assumed: {_CACHE / 1e12:g} TB/s from the second-level cache, and a library's float32 "
            f"product at {100 * _PRODUCT:.0f} % of the multiply-adds that can be issued.",
        ],
        numbers=False,
    )
    names = {"paired": "memory", "knn": "torch.cdist + topk"}
    for case in CASES:
        own, floor = _picoseconds(case, limits)
        against = names.get(case.task, "storing" if case.dims <= 32 else "the product")
        if case.gradient and case.task == "cdist":
            against = "products forward and backward"
        table.rows.append((
            case.name, f"{own:.2f}", f"{1e-9 * own * case.elements:.3f}", against, f"{floor:.2f}",
            f"{floor / own:.2f}",
        ))  # fmt: skip
    return table
