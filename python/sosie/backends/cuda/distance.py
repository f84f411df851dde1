# SPDX-License-Identifier: Apache-2.0
"""Distances between sets of vectors on CUDA devices."""

from __future__ import annotations

import ctypes
import math
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sosie.arrays import CODES, Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype
from sosie.backends.cuda.launcher import launch
from sosie.backends.cuda.layout import CXX_TYPES, DTYPE_BYTES, element_strides

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cdist_backward", "cdist_forward", "knn_backward", "knn_forward", "pack_vectors"]

_METRICS = {"euclidean": 0, "sqeuclidean": 1, "cosine": 2}
_THREADS, _WARPS = 256, 8
#: Rows and columns of a tile of distances; rows and dimensions of one of gradients.
_TILE, _GRADIENT_TILE = 128, 64
#: Longest vectors whose differences take no longer than their products: storing the result does.
_SHORT = 32
#: Tiles from which a matrix product is worth its launches: half of a device's multiprocessors
#: compute as many directly meanwhile.
_PRODUCT_TILES = 64
#: Rows of a product, and bytes of it: it stays in the second-level cache until it was read.
_PRODUCT_ROWS, _PRODUCT_BYTES = 4096, 32 << 20
#: What float32 distances may be off, relatively; float64 ones as many units of roundoff.
_PROMISED = 2e-5
_UNITS = {"float32": 2.0**-24, "float64": 2.0**-53}
#: Warps that keep a device busy, and fewest columns of one, when rows are shared.
_SEARCH_WARPS, _SEARCH_COLUMNS = 8192, 512
#: Shared memory for the lists of a block's warps: what every kernel may have.
_LIST_BYTES = 48 << 10
#: Blocks that keep a device busy, and fewest partners of one, when gradients are shared.
_GRADIENT_BLOCKS, _GRADIENT_PARTNERS = 1024, 128


class _VectorSet(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch_stride", ctypes.c_longlong),
        ("row_stride", ctypes.c_longlong),
        ("step", ctypes.c_longlong),
        ("norms", ctypes.c_void_p),
        ("norm_stride", ctypes.c_longlong),
        ("dtype", ctypes.c_int),
    )


class _Problem(ctypes.Structure):
    _fields_ = (
        ("batch", ctypes.c_longlong),
        ("rows", ctypes.c_longlong),
        ("columns", ctypes.c_longlong),
        ("dims", ctypes.c_longlong),
        ("a", _VectorSet),
        ("b", _VectorSet),
        ("weights", ctypes.c_void_p),
        ("metric", ctypes.c_int),
    )


class _Norms(ctypes.Structure):
    _fields_ = (
        ("set", _VectorSet),
        ("batch", ctypes.c_longlong),
        ("rows", ctypes.c_longlong),
        ("dims", ctypes.c_longlong),
        ("weights", ctypes.c_void_p),
        ("norms", ctypes.c_void_p),
    )


class _Rows(ctypes.Structure):
    _fields_ = (
        ("set", _VectorSet),
        ("rows", ctypes.c_longlong),
        ("first_row", ctypes.c_longlong),
        ("dims", ctypes.c_longlong),
        ("weights", ctypes.c_void_p),
        ("metric", ctypes.c_int),
        ("centre", ctypes.c_void_p),
        ("centred", ctypes.c_void_p),
        ("squares", ctypes.c_void_p),
    )


class _Forward(ctypes.Structure):
    _fields_ = (
        ("problem", _Problem),
        ("first_row", ctypes.c_longlong),
        ("first_column", ctypes.c_longlong),
        ("rows", ctypes.c_longlong),
        ("columns", ctypes.c_longlong),
        ("distances", ctypes.c_void_p),
        ("batch_stride", ctypes.c_longlong),
        ("row_stride", ctypes.c_longlong),
        ("products", ctypes.c_void_p),
        ("squares_a", ctypes.c_void_p),
        ("squares_b", ctypes.c_void_p),
        ("near", ctypes.c_double),
    )


class _Search(ctypes.Structure):
    _fields_ = (
        ("problem", _Problem),
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
        ("problem", _Problem),
        ("upstream", _PairNumbers),
        ("distances", _PairNumbers),
        ("splits", ctypes.c_int),
        ("share", ctypes.c_longlong),
        ("partials", ctypes.c_void_p),
    )


class _NeighbourBackward(ctypes.Structure):
    _fields_ = (
        ("problem", _Problem),
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
        ("problem", _Problem),
        ("partials", ctypes.c_void_p),
        ("splits", ctypes.c_int),
        ("gradient", ctypes.c_void_p),
        ("batch_stride", ctypes.c_longlong),
        ("row_stride", ctypes.c_longlong),
        ("step", ctypes.c_longlong),
        ("dtype", ctypes.c_int),
    )


@dataclass(frozen=True)
class _Rowset:
    """Rows as a matrix product takes them, ``(N, D)``, their squares ``(N,)``, and the centre."""

    rows: Array
    squares: Array
    centre: Array | None


@dataclass(frozen=True)
class _Packed:
    """A set ``(1, M, D)`` and what calls would find out about it every time."""

    vectors: Array
    norms: Array | None
    rowset: _Rowset | None

    @property
    def nbytes(self) -> int:
        """Bytes beside the set itself."""
        arrays = [self.norms]
        if self.rowset is not None:
            arrays += [self.rowset.rows, self.rowset.squares, self.rowset.centre]
        return sum(int(array.nbytes) for array in arrays if array is not None)


def cdist_forward(
    a: Array,
    b: Array | _Packed,
    metric: str,
    *,
    weights: Array | None = None,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Distances ``(B, N, M)`` of ``(B, N, D)`` and ``(B, M, D)``, or of what was packed."""
    sets = _Sets(a, b, metric, weights)
    library, (batch, rows, columns, _) = sets.library, sets.shape
    distances = library.empty(sets.a, (batch, rows, columns), sets.dtype)
    if 0 in distances.shape:
        return distances
    if not sets.multiplies():
        tile = _Part(0, rows, 0, columns)
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
    sets = _Sets(a, b, metric, weights)
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
    database: Array | _Packed,
    k: int,
    metric: str,
    *,
    exclude_self: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array]:
    """Distances and indices ``(N, k)`` of the nearest of ``(M, D)``, or of what was packed."""
    sets = _Sets(queries, database, metric, None)
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
        squared = sets if metric == "cosine" else _Sets(queries, database, "sqeuclidean", None)
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
    sets = _Sets(queries, database, metric, None)
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


def pack_vectors(database: Array, metric: str) -> _Packed:
    """The set, and what a matrix product with it needs."""
    library = adapter(database)
    sets = _Sets(database, database, metric, None)
    rowset = sets.rowset() if sets.shape[3] > _SHORT and sets.shape[2] > 0 else None
    vectors = _batched(library, database)
    return _Packed(vectors, sets.norms_b, rowset)


@dataclass(frozen=True)
class _Part:
    """A part of the matrix of distances."""

    row: int
    rows: int
    column: int
    columns: int


class _Sets:
    """Two sets of vectors as the kernels take them, and the launches that all tasks share."""

    def __init__(self, a: Array, b: Array | _Packed, metric: str, weights: Array | None) -> None:
        self.library = adapter(a)
        self.a = _batched(self.library, a)
        packed = b if isinstance(b, _Packed) else None
        self.b = packed.vectors if packed is not None else _batched(self.library, b)
        self.metric = metric
        self.weights = _weights(self.library, weights, self.a)
        self.dtype = compute_dtype(self.library.dtype(self.a))
        self.shape = tuple(
            int(n) for n in (self.a.shape[0], self.a.shape[1], self.b.shape[1], self.a.shape[2])
        )
        self.norms_a = self._norms(self.a)
        self.norms_b = packed.norms if packed is not None else self._norms(self.b)
        self._rowset = packed.rowset if packed is not None else None
        self.call = self._problem()

    def of_batch(self, n: int) -> _Sets:
        """The sets of one element of the batch; what a broadcast set became is kept."""
        one = copy(self)
        one.a, one.b, one.shape = self.a[n : n + 1], self.b[n : n + 1], (1, *self.shape[1:])
        one.norms_a, one.norms_b = (
            norms if norms is None or norms.shape[0] == 1 else norms[n : n + 1]
            for norms in (self.norms_a, self.norms_b)
        )
        if element_strides(self.library, self.b)[0] == 0 or self.shape[0] == 1:
            self.rowset()
        one._rowset = self._rowset
        one.call = one._problem()
        return one

    def swapped(self) -> _Sets:
        """The same with the sets' roles exchanged."""
        other = copy(self)
        other.a, other.b = self.b, self.a
        other.norms_a, other.norms_b = self.norms_b, self.norms_a
        other.shape = (self.shape[0], self.shape[2], self.shape[1], self.shape[3])
        other.call = other._problem()
        return other

    def _problem(self) -> _Problem:
        return _Problem(
            *self.shape,
            self._vector_set(self.a, self.norms_a),
            self._vector_set(self.b, self.norms_b),
            None if self.weights is None else self.library.address(self.weights),
            _METRICS[self.metric],
        )

    def _vector_set(self, array: Array, norms: Array | None) -> _VectorSet:
        strides = element_strides(self.library, array)
        address, stride = None, 0
        if norms is not None:
            address, stride = self.library.address(norms), norms.shape[1]
            stride = 0 if norms.shape[0] == 1 else stride
        return _VectorSet(
            self.library.address(array), *strides, address, stride,
            CODES[self.library.dtype(array)],
        )  # fmt: skip

    def _norms(self, array: Array) -> Array | None:
        """Lengths ``(B, N)``, of a broadcast set ``(1, N)``; for the cosine alone."""
        if self.metric != "cosine":
            return None
        batch, rows, dims = (int(n) for n in array.shape)
        if batch > 1 and element_strides(self.library, array)[0] == 0:
            batch = 1
        norms = self.library.empty(array, (batch, rows), "float64")
        if batch * rows == 0:
            return norms
        call = _Norms(
            self._vector_set(array, None), batch, rows, dims,
            None if self.weights is None else self.library.address(self.weights),
            self.library.address(norms),
        )  # fmt: skip
        self._launch("distance_norms<double>", math.ceil(batch * rows / _WARPS), call)
        return norms

    def _launch(self, kernel: str, blocks: int, call: ctypes.Structure) -> None:
        launch(self.library, self.a, kernel, blocks, _THREADS, call)

    # --- directly ---------------------------------------------------------------------------------

    def multiplies(self) -> bool:
        """Whether distances come from matrix products."""
        _, rows, columns, dims = self.shape
        return dims > _SHORT and _tiles(_Part(0, rows, 0, columns)) >= _PRODUCT_TILES

    def distances(self, part: _Part, address: int, batch_stride: int, row_stride: int) -> None:
        """Distances of a part, computed directly, to where it begins."""
        call = self._forward(part, address, batch_stride, row_stride)
        self._launch(self._kernel("cdist_direct"), self.shape[0] * _tiles(part), call)

    def _forward(self, part: _Part, address: int, batch_stride: int, row_stride: int) -> _Forward:
        return _Forward(
            self.call, part.row, part.column, part.rows, part.columns,
            address, batch_stride, row_stride,
        )  # fmt: skip

    def _kernel(self, name: str) -> str:
        weighted = self.weights is not None and self.metric != "cosine"
        return f"{name}<{CXX_TYPES[self.dtype]}, {'true' if weighted else 'false'}>"

    def tiles(self) -> Iterator[tuple[_Part, Array]]:
        """Parts of the matrix that fit the cache, and memory for each, used again for the next."""
        _, rows, columns, _ = self.shape
        height = min(rows, _PRODUCT_ROWS)
        width = max(1, _PRODUCT_BYTES // DTYPE_BYTES[self.dtype] // height)
        width = min(columns, max(width // _TILE, 1) * _TILE)
        memory = self.library.empty(self.a, (height * width,), self.dtype)
        for row in range(0, rows, height):
            for column in range(0, columns, width):
                part = _Part(row, min(height, rows - row), column, min(width, columns - column))
                yield part, memory[: part.rows * part.columns].reshape(part.rows, part.columns)

    # --- by matrix products -----------------------------------------------------------------------

    def rowset(self) -> _Rowset:
        """The second set for matrix products, made once."""
        if self._rowset is None:
            centre = None
            rows, dims = self.shape[2:]
            if self.metric != "cosine":
                centre = self.library.empty(self.b, (dims,), "float64")
                call = _Rows(
                    self._vector_set(self.b, None), rows, 0, dims,
                    centre=self.library.address(centre),
                )  # fmt: skip
                kernel = f"distance_centre<{CXX_TYPES[self.dtype]}>"
                self._launch(kernel, math.ceil(dims / 32), call)
            self._rowset = self._rows(self.b, self.norms_b, 0, rows, centre)
        return self._rowset

    def _rows(
        self, array: Array, norms: Array | None, first: int, rows: int, centre: Array | None
    ) -> _Rowset:
        address = self.library.address
        dims = self.shape[3]
        centred = self.library.empty(array, (rows, dims), self.dtype)
        squares = self.library.empty(array, (rows,), self.dtype)
        call = _Rows(
            self._vector_set(array, norms), rows, first, dims,
            None if self.weights is None else address(self.weights), _METRICS[self.metric],
            None if centre is None else address(centre), address(centred), address(squares),
        )  # fmt: skip
        kernel = f"distance_rows<{CXX_TYPES[self.dtype]}>"
        self._launch(kernel, math.ceil(rows / _WARPS), call)
        return _Rowset(centred, squares, centre)

    def products(self) -> Iterator[tuple[_Part, Array, _Rowset]]:
        """Products of centred rows, part by part, and the rows of the first set that they are of.

        The memory of a part is used again for the next one.
        """
        others = self.rowset()
        own = others  # of the first part, in a moment
        for part, memory in self.tiles():
            if part.column == 0:
                own = self._rows(self.a, self.norms_a, part.row, part.rows, others.centre)
            columns = others.rows[part.column : part.column + part.columns]
            self.library.product(own.rows, columns, memory)
            yield part, memory, own

    def _rounds_to_tf32(self) -> bool:
        return self.dtype == "float32" and self.library.product_uses_tf32()

    def error(self) -> float:
        """Bound of what a squared distance from products is off, in parts of the sum of squares.

        An addition rounds by half a unit in the last place, and the roundings of many grow as their
        root. TF32 rounds, or cuts, both factors to 10 bits.
        """
        if self._rounds_to_tf32():
            return 2.0**-9
        return _UNITS[self.dtype] * (4.0 + 3.0 * math.sqrt(self.shape[3]))

    def near(self) -> float:
        """Part of the sum of squares below which pairs are computed again, to keep the promise.

        With TF32 far pairs have its error.
        """
        if self._rounds_to_tf32():
            return 0.5
        return self.error() / (_PROMISED * _UNITS[self.dtype] / _UNITS["float32"])

    def squares(self, part: _Part, of_rows: _Rowset) -> tuple[int, int]:
        """Where the squares of a part's rows and columns begin."""
        of_columns = self.rowset().squares[part.column :]
        return self.library.address(of_rows.squares), self.library.address(of_columns)

    def finish(
        self, part: _Part, products: Array, of_rows: _Rowset, address: int, row_stride: int
    ) -> None:
        """Distances from products, to where the part begins."""
        call = self._forward(part, address, 0, row_stride)
        call.products = self.library.address(products)
        call.squares_a, call.squares_b = self.squares(part, of_rows)
        call.near = self.near()
        self._launch(self._kernel("cdist_finish"), _tiles(part), call)


class _Neighbours:
    """The search: lists of the nearest so far, which tiles of values are held against."""

    def __init__(self, sets: _Sets, k: int, exclude_self: bool) -> None:
        self.sets, self.k, self.exclude_self = sets, k, exclude_self
        library, (_, rows, columns, _) = sets.library, sets.shape
        height = min(rows, _PRODUCT_ROWS)
        width = min(columns, _PRODUCT_BYTES // DTYPE_BYTES[sets.dtype] // height)
        self.splits = max(1, min(_SEARCH_WARPS // height, width // max(_SEARCH_COLUMNS, 4 * k)))
        self.distances = library.empty(sets.a, (rows * self.splits * k,), sets.dtype)
        self.indices = library.empty(sets.a, (rows * self.splits * k,), "int64")
        bytes_of_list = k * (DTYPE_BYTES[sets.dtype] + 8)
        self.warps = max(1, min(_WARPS, _LIST_BYTES // bytes_of_list))
        self.shared_bytes = self.warps * bytes_of_list

    def _call(self, part: _Part) -> _Search:
        call = _Search(self.sets.call, part.row, part.column, part.rows, part.columns)
        call.k, call.splits, call.exclude_self = self.k, self.splits, self.exclude_self
        call.distances = self.sets.library.address(self.distances)
        call.indices = self.sets.library.address(self.indices)
        return call

    def look(self, part: _Part, values: Array, of_rows: _Rowset | None) -> None:
        """Take what is nearer in a part; values are products where their rows are given."""
        sets = self.sets
        call = self._call(part)
        call.values = sets.library.address(values)
        call.is_first = part.column == 0
        unit = _UNITS[sets.dtype]
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
        call = _Merge(self._call(_Part(0, rows, 0, columns)), address(distances), address(indices))
        self._launch("knn_merge", rows, call)

    def _launch(self, kernel: str, warps: int, call: ctypes.Structure) -> None:
        launch(
            self.sets.library, self.sets.a, f"{kernel}<{CXX_TYPES[self.sets.dtype]}>",
            math.ceil(warps / self.warps), 32 * self.warps, call, shared_bytes=self.shared_bytes,
        )  # fmt: skip


# --- Gradients ------------------------------------------------------------------------------------


def _gradient(sets: _Sets, numbers: list[_PairNumbers]) -> Array:
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
    launch(sets.library, sets.a, f"cdist_backward<{compute}>", tiles * splits, _THREADS, call)
    return _finished(sets, partials, splits)


def _edge_gradient(
    sets: _Sets,
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
    launch(sets.library, sets.a, "knn_backward<double>", math.ceil(rows / _WARPS), _THREADS, call)
    return _finished(sets, sums, 1)


def _finished(sets: _Sets, partials: Array | None, splits: int) -> Array:
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
    launch(
        library, sets.a, "distance_gradient<double>", math.ceil(vectors / _WARPS), _THREADS, call
    )
    return gradient


# --- Arguments ------------------------------------------------------------------------------------


def _batched(library: Adapter, array: Array) -> Array:
    """View of ``(B, N, D)``; one set has a batch of 1."""
    array = library.kernel_ready(array)
    return array if array.ndim == 3 else array[None]


def _weights(library: Adapter, weights: Array | None, like: Array) -> Array | None:
    if weights is None:
        return None
    if adapter(weights) is not library:
        weights = library.from_numpy(weights, like)
    return library.contiguous(weights, "float64")


def _numbers(library: Adapter, array: Array, axes: tuple[int, int, int]) -> _PairNumbers:
    """Numbers per pair, of axes in the given order."""
    strides = element_strides(library, array)
    return _PairNumbers(
        library.address(array), *(strides[axis] for axis in axes), CODES[library.dtype(array)]
    )


def _tiles(part: _Part) -> int:
    return math.ceil(part.rows / _TILE) * math.ceil(part.columns / _TILE)
