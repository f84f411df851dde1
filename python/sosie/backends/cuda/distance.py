# SPDX-License-Identifier: Apache-2.0
"""Distances between sets of vectors on CUDA devices."""

from __future__ import annotations

import ctypes
import math

from sosie.arrays import CODES, Adapter, Array
from sosie.backends._dtypes import gradient_dtype
from sosie.backends.cuda.distance_sets import (
    THREADS,
    WARPS,
    Packed,
    Part,
    Problem,
    Rowset,
    Sets,
)
from sosie.backends.cuda.launcher import launch
from sosie.backends.cuda.layout import CXX_TYPES, DTYPE_BYTES, element_strides

__all__ = ["cdist_backward", "cdist_forward", "knn_backward", "knn_forward", "pack_vectors"]

#: Warps that keep a device busy, and fewest columns of one, when rows are shared.
_SEARCH_WARPS, _SEARCH_COLUMNS = 8192, 512
#: Shared memory for the lists of a block's warps: what every kernel may have.
_LIST_BYTES = 48 << 10
#: Rows and dimensions of a tile of gradients.
_GRADIENT_TILE = 64
#: Blocks that keep a device busy, and fewest partners of one, when gradients are shared.
_GRADIENT_BLOCKS, _GRADIENT_PARTNERS = 1024, 128


class _Search(ctypes.Structure):
    _fields_ = (
        ("problem", Problem),
        ("first_row", ctypes.c_longlong),
        ("first_column", ctypes.c_longlong),
        ("rows", ctypes.c_longlong),
        ("columns", ctypes.c_longlong),
        ("values", ctypes.c_void_p),
        ("squares_a", ctypes.c_void_p),
        ("squares_b", ctypes.c_void_p),
        ("relative", ctypes.c_double),
        ("absolute", ctypes.c_double),
        ("k", ctypes.c_longlong),
        ("splits", ctypes.c_int),
        ("is_first", ctypes.c_int),
        ("exclude_self", ctypes.c_int),
        ("distances", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
    )


class _Merge(ctypes.Structure):
    _fields_ = (
        ("search", _Search),
        ("distances", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
    )


class _PairNumbers(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch_stride", ctypes.c_longlong),
        ("row_stride", ctypes.c_longlong),
        ("column_stride", ctypes.c_longlong),
        ("dtype", ctypes.c_int),
    )


class _Backward(ctypes.Structure):
    _fields_ = (
        ("problem", Problem),
        ("upstream", _PairNumbers),
        ("distances", _PairNumbers),
        ("splits", ctypes.c_int),
        ("share", ctypes.c_longlong),
        ("partials", ctypes.c_void_p),
    )


class _NeighbourBackward(ctypes.Structure):
    _fields_ = (
        ("problem", Problem),
        ("k", ctypes.c_longlong),
        ("indices", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("upstream", _PairNumbers),
        ("distances", _PairNumbers),
        ("sums", ctypes.c_void_p),
    )


class _Gradient(ctypes.Structure):
    _fields_ = (
        ("problem", Problem),
        ("partials", ctypes.c_void_p),
        ("splits", ctypes.c_int),
        ("gradient", ctypes.c_void_p),
        ("batch_stride", ctypes.c_longlong),
        ("row_stride", ctypes.c_longlong),
        ("step", ctypes.c_longlong),
        ("dtype", ctypes.c_int),
    )


def cdist_forward(
    a: Array,
    b: Array | Packed,
    metric: str,
    *,
    weights: Array | None = None,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Distances ``(B, N, M)`` of ``(B, N, D)`` and ``(B, M, D)``, or of what was packed."""
    sets = Sets(a, b, metric, weights)
    library, (batch, rows, columns, _) = sets.library, sets.shape
    distances = library.empty(sets.a, (batch, rows, columns), sets.dtype)
    if 0 in distances.shape:
        return distances
    if not sets.multiplies():
        tile = Part(0, rows, 0, columns)
        sets.distances(tile, library.address(distances), rows * columns, columns)
        return distances
    for n in range(batch):
        one = sets.of_batch(n)
        matrix = distances[n]
        for part, products, of_rows in one.products():
            place = matrix[part.row :, part.column :]
            one.finish(part, products, of_rows, library.address(place), columns)
    return distances


def cdist_backward(
    a: Array,
    b: Array,
    upstream: Array,
    distances: Array,
    metric: str,
    *,
    weights: Array | None = None,
    need_a: bool = True,
    need_b: bool = True,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients ``(B, N, D)`` and ``(B, M, D)``."""
    sets = Sets(a, b, metric, weights)
    library = sets.library
    numbers = [library.kernel_ready(each) for each in (upstream, distances)]
    numbers = [each if each.ndim == 3 else each[None] for each in numbers]
    order, swapped = (0, 1, 2), (0, 2, 1)
    return (
        _gradient(sets, [_numbers(library, each, order) for each in numbers]) if need_a else None,
        _gradient(sets.swapped(), [_numbers(library, each, swapped) for each in numbers])
        if need_b
        else None,
    )


def knn_forward(
    queries: Array,
    database: Array | Packed,
    k: int,
    metric: str,
    *,
    exclude_self: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array]:
    """Distances and indices ``(N, k)`` of the nearest of ``(M, D)``, or of what was packed."""
    sets = Sets(queries, database, metric, None)
    library, rows = sets.library, sets.shape[1]
    distances = library.empty(sets.a, (rows, k), sets.dtype)
    indices = library.empty(sets.a, (rows, k), "int64")
    if rows == 0:
        return distances, indices
    search = _Neighbours(sets, k, exclude_self)
    if sets.multiplies():
        for part, products, of_rows in sets.products():
            search.look(part, products, of_rows)
    else:
        # Roots would be taken of everything, and of what is found once more.
        squared = sets if metric == "cosine" else Sets(queries, database, "sqeuclidean", None)
        for part, values in squared.tiles():
            squared.distances(part, library.address(values), 0, part.columns)
            search.look(part, values, None)
    search.merge(distances, indices)
    return distances, indices


def knn_backward(
    queries: Array,
    database: Array,
    upstream: Array,
    distances: Array,
    indices: Array,
    metric: str,
    *,
    need_queries: bool = True,
    need_database: bool = True,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients ``(N, D)`` and ``(M, D)`` through the neighbours that were chosen."""
    sets = Sets(queries, database, metric, None)
    library = sets.library
    indices = library.contiguous(indices, "int64")
    numbers = [
        _numbers(library, library.kernel_ready(each)[None], (0, 1, 2))
        for each in (upstream, distances)
    ]
    grad_queries = grad_database = None
    if need_queries:
        grad_queries = _edge_gradient(sets, numbers, indices, None)[0]
    if need_database:
        edges = library.grouped(indices.reshape(-1), int(database.shape[0]))
        grad_database = _edge_gradient(sets.swapped(), numbers, indices, edges)[0]
    return grad_queries, grad_database


def pack_vectors(database: Array, metric: str) -> Packed:
    """The set, and what a matrix product with it needs."""
    return Sets(database, database, metric, None).packed()


class _Neighbours:
    """The search: lists of the nearest so far, which tiles of values are held against."""

    def __init__(self, sets: Sets, k: int, exclude_self: bool) -> None:
        self.sets, self.k, self.exclude_self = sets, k, exclude_self
        library, rows, (height, width) = sets.library, sets.shape[1], sets.tile_sizes()
        self.splits = max(1, min(_SEARCH_WARPS // height, width // max(_SEARCH_COLUMNS, 4 * k)))
        self.distances = library.empty(sets.a, (rows * self.splits * k,), sets.dtype)
        self.indices = library.empty(sets.a, (rows * self.splits * k,), "int64")
        bytes_of_list = k * (DTYPE_BYTES[sets.dtype] + 8)
        self.warps = max(1, min(WARPS, _LIST_BYTES // bytes_of_list))
        self.shared_bytes = self.warps * bytes_of_list

    def _call(self, part: Part) -> _Search:
        call = _Search(self.sets.call, part.row, part.column, part.rows, part.columns)
        call.k, call.splits, call.exclude_self = self.k, self.splits, self.exclude_self
        call.distances = self.sets.library.address(self.distances)
        call.indices = self.sets.library.address(self.indices)
        return call

    def look(self, part: Part, values: Array, of_rows: Rowset | None) -> None:
        """Take what is nearer in a part; values are products where their rows are given."""
        sets = self.sets
        call = self._call(part)
        call.values = sets.library.address(values)
        call.is_first = part.column == 0
        unit = sets.unit()
        # Sums of the dimensions, here by 32 lanes and there by one thread.
        call.relative = 4.0 * unit * (8.0 + math.sqrt(sets.shape[3]))
        if of_rows is not None:
            call.squares_a, call.squares_b = sets.squares(part, of_rows)
            call.absolute = 2.0 * sets.error()
        elif sets.metric == "cosine":
            call.absolute = 16.0 * unit  # of components of unit vectors
        self._launch("knn_search", part.rows * self.splits, call)

    def merge(self, distances: Array, indices: Array) -> None:
        """Lists of all shares to results ``(N, k)``."""
        _, rows, columns, _ = self.sets.shape
        address = self.sets.library.address
        call = _Merge(self._call(Part(0, rows, 0, columns)), address(distances), address(indices))
        self._launch("knn_merge", rows, call)

    def _launch(self, kernel: str, warps: int, call: ctypes.Structure) -> None:
        launch(
            self.sets.library, self.sets.a, f"{kernel}<{CXX_TYPES[self.sets.dtype]}>",
            math.ceil(warps / self.warps), 32 * self.warps, call, shared_bytes=self.shared_bytes,
        )  # fmt: skip


# --- Gradients ------------------------------------------------------------------------------------


def _gradient(sets: Sets, numbers: list[_PairNumbers]) -> Array:
    """Gradient of the first set, from the upstream gradient and the distances of all pairs."""
    batch, rows, columns, dims = sets.shape
    if batch * rows * dims == 0:
        return _finished(sets, None, 1)
    tiles = batch * math.ceil(rows / _GRADIENT_TILE) * math.ceil(dims / _GRADIENT_TILE)
    splits = max(1, min(_GRADIENT_BLOCKS // tiles, columns // (4 * _GRADIENT_PARTNERS)))
    share = max(1, math.ceil(columns / splits / _GRADIENT_PARTNERS)) * _GRADIENT_PARTNERS
    splits = max(1, math.ceil(columns / share))
    partials = sets.library.empty(sets.a, (batch, splits, rows, dims), "float64")
    call = _Backward(sets.call, *numbers, splits, share, sets.library.address(partials))
    # The cosine's is computed in double.
    compute = "double" if sets.metric == "cosine" else CXX_TYPES[sets.dtype]
    launch(sets.library, sets.a, f"cdist_backward<{compute}>", tiles * splits, THREADS, call)
    return _finished(sets, partials, splits)


def _edge_gradient(
    sets: Sets,
    numbers: list[_PairNumbers],
    indices: Array,
    edges: tuple[Array, Array] | None,
) -> Array:
    """Gradient of the first set through edges, which are grouped unless they are the rows' own."""
    _, rows, _, dims = sets.shape
    if rows == 0:
        return _finished(sets, None, 1)
    address = sets.library.address
    sums = sets.library.empty(sets.a, (1, 1, rows, dims), "float64")
    call = _NeighbourBackward(
        sets.call, indices.shape[1], address(indices),
        *((None, None) if edges is None else map(address, edges)), *numbers, address(sums),
    )  # fmt: skip
    launch(sets.library, sets.a, "knn_backward<double>", math.ceil(rows / WARPS), THREADS, call)
    return _finished(sets, sums, 1)


def _finished(sets: Sets, partials: Array | None, splits: int) -> Array:
    """Sums over partners to the gradient ``(B, N, D)`` of the first set."""
    library = sets.library
    gradient = library.empty_like(sets.a, gradient_dtype(library.dtype(sets.a)))
    if partials is None:
        return gradient
    call = _Gradient(
        sets.call, library.address(partials), splits, library.address(gradient),
        *element_strides(library, gradient), CODES[library.dtype(gradient)],
    )  # fmt: skip
    vectors = sets.shape[0] * sets.shape[1]
    launch(library, sets.a, "distance_gradient<double>", math.ceil(vectors / WARPS), THREADS, call)
    return gradient


# --- Arguments ------------------------------------------------------------------------------------


def _numbers(library: Adapter, array: Array, axes: tuple[int, int, int]) -> _PairNumbers:
    """Numbers per pair, of axes in the given order."""
    strides = element_strides(library, array)
    return _PairNumbers(
        library.address(array), *(strides[axis] for axis in axes), CODES[library.dtype(array)]
    )
