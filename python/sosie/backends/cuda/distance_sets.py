# SPDX-License-Identifier: Apache-2.0
"""Two sets of vectors on a CUDA device, and the launches that every task on them shares."""

from __future__ import annotations

import ctypes
import math
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sosie.arrays import CODES, Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype
from sosie.backends.cuda.launcher import launch
from sosie.backends.cuda.layout import CXX_TYPES, DTYPE_BYTES, element_strides

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["THREADS", "WARPS", "Packed", "Part", "Problem", "Rowset", "Sets"]

_METRICS = {"euclidean": 0, "sqeuclidean": 1, "cosine": 2}
#: Of a block.
THREADS, WARPS = 256, 8
#: Rows and columns of a tile of distances.
_TILE = 128
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


class Problem(ctypes.Structure):
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
        ("problem", Problem),
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


@dataclass(frozen=True)
class Rowset:
    """Rows as a matrix product takes them, ``(N, D)``, their squares ``(N,)``, and the centre."""

    rows: Array
    squares: Array
    centre: Array | None


@dataclass(frozen=True)
class Packed:
    """A set ``(1, M, D)`` and what calls would find out about it every time."""

    vectors: Array
    norms: Array | None
    rowset: Rowset | None

    @property
    def nbytes(self) -> int:
        """Bytes beside the set itself."""
        arrays = [self.norms]
        if self.rowset is not None:
            arrays += [self.rowset.rows, self.rowset.squares, self.rowset.centre]
        return sum(int(array.nbytes) for array in arrays if array is not None)


@dataclass(frozen=True)
class Part:
    """A part of the matrix of distances."""

    row: int
    rows: int
    column: int
    columns: int


class Sets:
    """Two sets of vectors as the kernels take them, and the launches that all tasks share."""

    def __init__(self, a: Array, b: Array | Packed, metric: str, weights: Array | None) -> None:
        self.library = adapter(a)
        self.a = _batched(self.library, a)
        packed = b if isinstance(b, Packed) else None
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

    def of_batch(self, n: int) -> Sets:
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

    def packed(self) -> Packed:
        """The second set, and what calls find out about it."""
        _, _, columns, dims = self.shape
        rowset = self.rowset() if dims > _SHORT and columns > 0 else None
        return Packed(self.b, self.norms_b, rowset)

    def swapped(self) -> Sets:
        """The same with the sets' roles exchanged."""
        other = copy(self)
        other.a, other.b = self.b, self.a
        other.norms_a, other.norms_b = self.norms_b, self.norms_a
        other.shape = (self.shape[0], self.shape[2], self.shape[1], self.shape[3])
        other.call = other._problem()
        return other

    def _problem(self) -> Problem:
        return Problem(
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
        self._launch("distance_norms<double>", math.ceil(batch * rows / WARPS), call)
        return norms

    def _launch(self, kernel: str, blocks: int, call: ctypes.Structure) -> None:
        launch(self.library, self.a, kernel, blocks, THREADS, call)

    # --- directly ---------------------------------------------------------------------------------

    def multiplies(self) -> bool:
        """Whether distances come from matrix products."""
        _, rows, columns, dims = self.shape
        return dims > _SHORT and _tiles(Part(0, rows, 0, columns)) >= _PRODUCT_TILES

    def distances(self, part: Part, address: int, batch_stride: int, row_stride: int) -> None:
        """Distances of a part, computed directly, to where it begins."""
        call = self._forward(part, address, batch_stride, row_stride)
        self._launch(self._kernel("cdist_direct"), self.shape[0] * _tiles(part), call)

    def _forward(self, part: Part, address: int, batch_stride: int, row_stride: int) -> _Forward:
        return _Forward(
            self.call, part.row, part.column, part.rows, part.columns,
            address, batch_stride, row_stride,
        )  # fmt: skip

    def _kernel(self, name: str) -> str:
        weighted = self.weights is not None and self.metric != "cosine"
        return f"{name}<{CXX_TYPES[self.dtype]}, {'true' if weighted else 'false'}>"

    def tile_sizes(self) -> tuple[int, int]:
        """Rows and columns of the parts."""
        _, rows, columns, _ = self.shape
        height = max(1, min(rows, _PRODUCT_ROWS))
        width = _PRODUCT_BYTES // DTYPE_BYTES[self.dtype] // height
        return height, min(columns, max(width // _TILE, 1) * _TILE)

    def tiles(self) -> Iterator[tuple[Part, Array]]:
        """Parts of the matrix that fit the cache, and memory for each, used again for the next."""
        _, rows, columns, _ = self.shape
        height, width = self.tile_sizes()
        memory = self.library.empty(self.a, (height * width,), self.dtype)
        for row in range(0, rows, height):
            for column in range(0, columns, width):
                part = Part(row, min(height, rows - row), column, min(width, columns - column))
                yield part, memory[: part.rows * part.columns].reshape(part.rows, part.columns)

    # --- by matrix products -----------------------------------------------------------------------

    def rowset(self) -> Rowset:
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
    ) -> Rowset:
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
        self._launch(kernel, math.ceil(rows / WARPS), call)
        return Rowset(centred, squares, centre)

    def products(self) -> Iterator[tuple[Part, Array, Rowset]]:
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

    def unit(self) -> float:
        """Unit of roundoff of what is computed in."""
        return _UNITS[self.dtype]

    def _rounds_to_tf32(self) -> bool:
        return self.dtype == "float32" and self.library.product_uses_tf32()

    def error(self) -> float:
        """Bound of what a squared distance from products is off, in parts of the sum of squares.

        An addition rounds by half a unit in the last place, and the roundings of many grow as their
        root. TF32 rounds, or cuts, both factors to 10 bits.
        """
        if self._rounds_to_tf32():
            return 2.0**-9
        return self.unit() * (4.0 + 3.0 * math.sqrt(self.shape[3]))

    def near(self) -> float:
        """Part of the sum of squares below which pairs are computed again, to keep the promise.

        With TF32 far pairs have its error.
        """
        if self._rounds_to_tf32():
            return 0.5
        return self.error() / (_PROMISED * self.unit() / _UNITS["float32"])

    def squares(self, part: Part, of_rows: Rowset) -> tuple[int, int]:
        """Where the squares of a part's rows and columns begin."""
        of_columns = self.rowset().squares[part.column :]
        return self.library.address(of_rows.squares), self.library.address(of_columns)

    def finish(
        self, part: Part, products: Array, of_rows: Rowset, address: int, row_stride: int
    ) -> None:
        """Distances from products, to where the part begins."""
        call = self._forward(part, address, 0, row_stride)
        call.products = self.library.address(products)
        call.squares_a, call.squares_b = self.squares(part, of_rows)
        call.near = self.near()
        self._launch(self._kernel("cdist_finish"), _tiles(part), call)


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


def _tiles(part: Part) -> int:
    return math.ceil(part.rows / _TILE) * math.ceil(part.columns / _TILE)
