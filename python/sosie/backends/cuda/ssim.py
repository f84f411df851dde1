# SPDX-License-Identifier: Apache-2.0
"""The SSIM family on CUDA devices."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sosie.arrays import Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype
from sosie.backends._ssim_plan import SSIMPlan, ssim_plan
from sosie.backends.cuda.launcher import launch, launcher
from sosie.backends.cuda.layout import CXX_TYPES, element_strides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sosie.spec import SSIMParameters

__all__ = [
    "downsample_backward",
    "downsample_forward",
    "ssim_backward",
    "ssim_forward",
    "ssim_loss",
    "ssim_with_gradient",
]

_LARGEST_WINDOW = 33
_BORDERS = {"zero": 0, "reflect": 1, "symmetric": 2, "replicate": 3}
_KINDS = {"ssim": 0, "cs": 1}
#: Sums that every tile leaves.
_SUMS = 4

#: Rows between two barriers of the streaming kernels, and columns that their shared rows have more.
_ROWS, _PADDING = 8, 8
#: Windows that the streaming kernels are compiled for, and how many of their blocks a
#: multiprocessor holds; the same of their gradients.
_STREAMED = (7, 11)
_STREAMED_BLOCKS = 2
_STREAMED_GRADIENT = 11
#: Threads of a block of the gradient's kernel, for one gradient and for both.
_GRADIENT_THREADS = (192, 128)
#: Tiles (width, height) of the general kernels, in order of preference. What one result sees of the
#: largest window, in double, fits every device.
_TILES = ((32, 32), (32, 16), (32, 8), (16, 8), (8, 8), (4, 4), (2, 2), (1, 1))
#: What the kernels' own variables take of a block's shared memory, at most.
_OWN_BYTES = 1 << 10
#: Shared memory that every device gives to several blocks at a time, without that.
_SHARED_BYTES = (48 << 10) - _OWN_BYTES
#: Beyond what coordinates of 32 bits reach, less what tiles and windows go beyond an image.
_MOST_COORDINATES = 2**31 - 2**11
#: Rows of a mask that one block counts.
_COUNTED_ROWS = 64
#: Sides of a block of the kernels for boxes, and columns that it goes through.
_BOX_LANES, _BOX_ROWS, _BOX_COLUMNS = 32, 8, 128


# --- The kernels' structs, see csrc/cuda/ssim-call.cuh and downsample.cuh -------------------------


class _Strided(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("strides", ctypes.c_longlong * 5),
        ("dtype", ctypes.c_int),
    )


def _call_type(real: Any) -> type[ctypes.Structure]:
    class Window(ctypes.Structure):
        _fields_ = (
            ("taps", real * _LARGEST_WINDOW),
            ("size", ctypes.c_int),
            ("origin", ctypes.c_int),
            ("crop_before", ctypes.c_int),
            ("crop_after", ctypes.c_int),
        )

    class Call(ctypes.Structure):
        _fields_ = (
            ("shape", ctypes.c_longlong * 5),
            *((name, _Strided) for name in ("x", "y", "mask", "map", "upstream")),
            ("grad_x", _Strided),
            ("grad_y", _Strided),
            *((name, ctypes.c_void_p) for name in ("values", "l1", "partials", "tickets")),
            ("counts", ctypes.c_void_p),
            ("coefficients", ctypes.c_void_p),
            *((name, ctypes.c_double) for name in ("positions", "pixels")),
            ("upstream_factor", ctypes.c_double),
            ("l1_factor", ctypes.c_double),
            ("windows", Window * 3),
            *((name, ctypes.c_int) for name in ("border", "kind", "stride")),
            ("upstream_is_map", ctypes.c_int),
            ("both", ctypes.c_int),
            *((name, ctypes.c_int) for name in ("clamp_variance", "clamp_value", "unbalanced")),
            ("tile_width", ctypes.c_int),
            ("tile_height", ctypes.c_int),
            ("tiles_across", ctypes.c_int),
            ("tiles_down", ctypes.c_int),
            *((name, real) for name in ("scale", "twice_center", "c1", "c2", "epsilon")),
            *((name, real) for name in ("covariance", "deficit", "excess", "lowest", "highest")),
            ("least_weight", real),
        )

    return Call


_CALLS = {"float32": _call_type(ctypes.c_float), "float64": _call_type(ctypes.c_double)}


class _Downsample(ctypes.Structure):
    _fields_ = (
        ("shape", ctypes.c_longlong * 5),
        ("reduced_shape", ctypes.c_longlong * 5),
        ("full", _Strided),
        ("reduced", _Strided),
        ("padding", ctypes.c_longlong * 3),
        ("padded", ctypes.c_longlong * 3),
        ("factors", ctypes.c_int * 3),
        ("border", ctypes.c_int),
    )


def _five(sizes: Sequence[int], missing: int) -> tuple[int, ...]:
    """Sizes or strides with an axis for the depth, that images lack."""
    return tuple(sizes) if len(sizes) == 5 else (*sizes[:2], missing, *sizes[2:])


def _check_coordinates(shape: Sequence[int]) -> None:
    """Raise unless 32-bit coordinates suffice for ``(N, C, depth, height, width)``."""
    planes, rows = shape[0] * shape[1], shape[2] * shape[3]
    if max(planes, rows, shape[4]) >= _MOST_COORDINATES:
        raise ValueError(
            f"expected images with fewer than {_MOST_COORDINATES} planes, rows of a plane and "
            f"columns on CUDA devices, got {planes}, {rows} and {shape[4]} in shape {tuple(shape)}"
        )


def _strided(library: Adapter, array: Array) -> _Strided:
    address, code, _, _ = library.argument(array)
    strides = _five(element_strides(library, array), 0)
    return _Strided(address, (ctypes.c_longlong * 5)(*strides), code)


@lru_cache(maxsize=256)
def _prototype(parameters: SSIMParameters, dtype: str, masked: bool, kind: str) -> bytes:
    """A call in which all is filled in that comes from the convention."""
    plan = ssim_plan(parameters, dtype, masked)
    constants = plan.constants
    call: Any = _CALLS[dtype]()
    for axis, window in enumerate(call.windows):
        taps = plan.taps[axis]
        window.taps[: len(taps)] = [float(tap) for tap in taps]
        window.size, window.origin = len(taps), plan.before[axis]
        window.crop_before, window.crop_after = plan.crop[axis]
    call.border, call.kind, call.stride = _BORDERS[plan.border], _KINDS[kind], plan.stride
    call.clamp_variance = parameters.clamp_variance
    call.clamp_value = parameters.clamp_value is not None
    for name in ("scale", "twice_center", "c1", "c2", "epsilon", "covariance", "lowest", "highest"):
        setattr(call, name, getattr(constants, name))
    # Rounding leaves a sum that misses 1; see csrc/cuda/ssim-formula.cuh.
    rounded = math.prod(math.fsum(float(tap) for tap in taps) for taps in plan.taps)
    call.deficit = 0.0 if abs(constants.deficit) < 1e-14 else constants.deficit
    call.excess = 0.0 if masked or abs(1.0 - 1.0 / rounded) < 1e-9 else 1.0 - 1.0 / rounded
    call.unbalanced = call.deficit != 0.0 or call.excess != 0.0
    smallest = (min(float(tap) for tap in taps if tap > 0.0) for taps in plan.taps)
    call.least_weight = 0.5 * math.prod(smallest)
    return bytes(call)


# --- How results are cut into tiles ---------------------------------------------------------------


class _Tiles(NamedTuple):
    """Tiles of a slice of results, the threads that compute one, and their shared memory."""

    width: int
    height: int
    across: int
    down: int
    threads: int
    shared_bytes: int


def _divide_up(a: int, b: int) -> int:
    return -(-a // b)


@lru_cache(maxsize=1024)
def _strip_height(rows: int, strips: int, places: int, overhead: int) -> int:
    """Rows of a tile for the least time: whole waves of blocks, few rows that are begun above."""
    heights = range(_ROWS, _divide_up(min(rows, 512), _ROWS) * _ROWS + 1, _ROWS)

    def time(height: int) -> int:
        return _divide_up(strips * _divide_up(rows, height), places) * (height + overhead)

    return min(reversed(heights), key=time)


def _strips(
    rows: int, columns: int, planes: int, *, threads: int, reach: int, overhead: int,
    row_bytes: int, places: int,
) -> _Tiles:  # fmt: skip
    """Strips of the streaming kernels, whose windows reach so far beyond a strip in all.

    As many as the widest blocks need, then no wider than that takes.
    """
    wanted = _divide_up(columns, _divide_up(columns, threads - reach))
    threads = _divide_up(wanted + reach, 32) * 32
    width = threads - reach
    across = _divide_up(columns, width)
    height = _strip_height(rows, across * planes, places, overhead)
    shared = (threads + _PADDING) * row_bytes
    return _Tiles(width, height, across, _divide_up(rows, height), threads, shared)


def _general_tiles(
    rows: int, columns: int, sizes: Sequence[int], step: int, planes: int, taps: bool,
    dtype: str, limit: int,
) -> _Tiles:  # fmt: skip
    """Tiles of the general kernels: the largest that leave room for other blocks, or that fit."""

    def memory(width: int, height: int) -> int:
        seen_rows = (height - 1) * step + sizes[1]
        seen_columns = (width - 1) * step + sizes[2]
        numbers = planes * seen_rows * ((seen_columns | 1) + ((width + 3) | 1))
        if taps:
            numbers += (width + 3) * sizes[2] + (height + 3) * sizes[1] + sizes[0]
        return numbers * (8 if dtype == "float64" else 4)

    fitting = [tile for tile in _TILES if memory(*tile) <= limit]
    width, height = next((tile for tile in fitting if memory(*tile) <= _SHARED_BYTES), fitting[0])
    return _Tiles(
        width, height, _divide_up(columns, width), _divide_up(rows, height),
        256 if width * height >= 512 else 128, memory(width, height),
    )  # fmt: skip


# --- Calls ----------------------------------------------------------------------------------------


class _Problem:
    """Two images, a mask and a convention, as the kernels' struct; and their launches."""

    def __init__(
        self,
        x: Array,
        y: Array,
        parameters: SSIMParameters,
        mask: Array | None,
        kind: str,
    ) -> None:
        self.library = library = adapter(x)
        self.x, self.y = library.kernel_ready(x), library.kernel_ready(y)
        self.dtype = library.dtype(x)
        self.computed = compute_dtype(self.dtype)
        self.given_shape = tuple(x.shape)
        self.shape = _five(self.given_shape, 1)
        _check_coordinates(self.shape)
        self.planes = self.shape[0] * self.shape[1]
        self.parameters = parameters
        self.plan: SSIMPlan = ssim_plan(parameters, self.computed, mask is not None)
        self.map_shape = parameters.map_shape(self.given_shape[2:])
        self.map_sides = _five((1, 1, *self.map_shape), 1)[2:]
        self.sizes = tuple(len(taps) for taps in self.plan.taps)
        self.kept: list[Array] = [self.x, self.y]  # until the last launch
        call: Any = _CALLS[self.computed].from_buffer_copy(
            _prototype(parameters, self.computed, mask is not None, kind)
        )
        call.shape[:] = self.shape
        call.x, call.y = _strided(library, self.x), _strided(library, self.y)
        call.positions, call.pixels = math.prod(self.map_shape), math.prod(self.shape[2:])
        self.call = call
        self.masked = mask is not None
        if mask is not None:
            self._count(library.as_mask(mask, self.given_shape))

    @property
    def is_streamed(self) -> bool:
        """Whether a kernel for images and this size of window has been compiled."""
        depth, height, width = self.sizes
        return (
            not self.masked
            and self.dtype != "float64"
            and self.shape[2] == depth == 1
            and height == width
            and height in _STREAMED
            and self.plan.stride == 1
        )

    @property
    def has_streamed_gradient(self) -> bool:
        """The same of the gradient's kernel, which knows no pixels that are seen twice."""
        unseen = all(
            low >= before and high >= after
            for (low, high), before, after in zip(
                self.plan.crop, self.plan.before, self.plan.after, strict=True
            )
        )
        return (
            self.is_streamed
            and self.sizes[2] == _STREAMED_GRADIENT
            and self.dtype not in ("uint8", "uint16")
            and (self.plan.border == "zero" or unseen)
        )

    def _places(self, blocks: int) -> int:
        device, _ = self.library.device(self.x)
        return launcher().multiprocessors(device) * blocks

    def _most_shared_bytes(self) -> int:
        device, _ = self.library.device(self.x)
        return launcher().most_shared_bytes(device) - _OWN_BYTES

    def _count(self, mask: Array) -> None:
        counts = self.library.empty(self.x, (self.planes, 2), "float64")
        self.kept += [mask, counts]
        self.call.mask = _strided(self.library, mask)
        self.call.counts = self.library.argument(counts)[0]
        rows = self.shape[2] * self.shape[3]
        down = _divide_up(rows, _COUNTED_ROWS)
        tiles = _Tiles(self.shape[4], _COUNTED_ROWS, 1, down, 256, 0)
        self.run(f"ssim_count<{CXX_TYPES[self.computed]}>", tiles, 1)

    def run(self, kernel: str, tiles: _Tiles, slices: int) -> None:
        """Launch a kernel on all tiles of so many slices of each plane."""
        if self.planes == 0:
            return
        library, call = self.library, self.call
        per_plane = slices * tiles.across * tiles.down
        sums = self.planes * per_plane * _SUMS
        workspace = library.empty(self.x, (sums + _divide_up(self.planes, 2),), "float64")
        call.partials = library.argument(workspace)[0]
        call.tickets = call.partials + 8 * sums
        call.tile_width, call.tile_height = tiles.width, tiles.height
        call.tiles_across, call.tiles_down = tiles.across, tiles.down
        launch(
            library, self.x, kernel, self.planes * per_plane, tiles.threads, call,
            shared_bytes=tiles.shared_bytes, clear=(call.tickets, 4 * self.planes),
        )  # fmt: skip

    def evaluate(self) -> None:
        """Launch what makes the values, the map and the coefficients that the call asks for."""
        _, rows, columns = self.map_sides
        if self.is_streamed and not self.call.coefficients:
            window = self.sizes[2]
            tiles = _strips(
                rows, columns, self.planes, threads=256, reach=window - 1,
                overhead=_divide_up(window - 1, 8), row_bytes=_ROWS * 4 * 4,
                places=self._places(_STREAMED_BLOCKS),
            )  # fmt: skip
            self.run(f"ssim_forward<{CXX_TYPES[self.dtype]}, {window}>", tiles, 1)
            return
        tiles = _general_tiles(
            rows, columns, self.sizes, self.plan.stride, 4 + self.masked, False, self.computed,
            self._most_shared_bytes(),
        )  # fmt: skip
        kernel = f"ssim_general_forward<{CXX_TYPES[self.computed]}, {_cxx(self.masked)}>"
        self.run(kernel, tiles, self.map_sides[0])

    def differentiate(self) -> None:
        """Launch what makes the gradients that the call asks for, values and |x - y|."""
        both = bool(self.call.both)
        _, rows, columns = self.shape[2:]
        planes = 4 if both else 3
        if self.has_streamed_gradient:
            reach = 2 * (_STREAMED_GRADIENT - 1)
            row_bytes = _ROWS * 4 * (4 + planes)
            threads = min(
                _GRADIENT_THREADS[both],
                (self._most_shared_bytes() // row_bytes - _PADDING) // 32 * 32,
            )
            tiles = _strips(
                rows, columns, self.planes, threads=threads, reach=reach,
                overhead=_STREAMED_GRADIENT, row_bytes=row_bytes,
                places=self._places(_STREAMED_BLOCKS),
            )  # fmt: skip
            kernel = f"ssim_backward<{CXX_TYPES[self.dtype]}, {_STREAMED_GRADIENT}, {_cxx(both)}>"
            self.run(kernel, tiles, 1)
            return
        positions = math.prod(self.map_sides)
        coefficients = self.library.empty(
            self.x, (self.planes * planes * positions,), self.computed
        )
        self.call.coefficients = self.library.argument(coefficients)[0]
        self.evaluate()
        tiles = _general_tiles(
            rows, columns, self.sizes, 1, planes, True, self.computed, self._most_shared_bytes()
        )
        kernel = f"ssim_general_gradient<{CXX_TYPES[self.computed]}, {_cxx(both)}>"
        self.run(kernel, tiles, self.shape[2])


def _cxx(value: bool) -> str:
    return "true" if value else "false"


def ssim_forward(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    return_map: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array | None]:
    """Mean of the map per plane, float64 ``(N, C)``, and the map if wanted."""
    problem = _Problem(x, y, parameters, mask, kind)
    library, shape = problem.library, problem.given_shape
    values = library.empty(x, shape[:2], "float64")
    problem.call.values = library.argument(values)[0]
    similarity_map = None
    if return_map:
        similarity_map = library.empty(x, shape[:2] + problem.map_shape, problem.computed)
        problem.call.map = _strided(library, similarity_map)
    problem.evaluate()
    return values, similarity_map


def ssim_backward(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    upstream: Array,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``upstream`` belongs to the values ``(N, C)`` or to the map."""
    given = adapter(x).kernel_ready(upstream)
    _, _, grad_x, grad_y = _gradients(
        x, y, parameters, mask, kind, need_x, need_y, upstream=given, values=False
    )
    return grad_x, grad_y


def ssim_with_gradient(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array | None, Array | None]:
    """Values ``(N, C)`` as of :func:`ssim_forward`, and the gradient of each for its planes."""
    values, _, grad_x, grad_y = _gradients(x, y, parameters, mask, kind, need_x, need_y)
    return values, grad_x, grad_y


def ssim_loss(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    ssim_weight: float,
    l1_weight: float,
    mask: Array | None = None,
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array, Array | None, Array | None]:
    """SSIM and mean |x - y| per plane, and the gradient of their weighted loss, in one pass.

    The loss is ``mean over planes of ssim_weight * (1 - ssim) + l1_weight * l1``.
    """
    planes = max(x.shape[0] * x.shape[1], 1)
    return _gradients(
        x, y, parameters, mask, "ssim", need_x, need_y,
        factor=-ssim_weight / planes, l1_factor=l1_weight / planes,
    )  # fmt: skip


def _gradients(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    mask: Array | None,
    kind: str,
    need_x: bool,
    need_y: bool,
    *,
    upstream: Array | None = None,
    factor: float = 1.0,
    l1_factor: float = 0.0,
    values: bool = True,
) -> tuple[Array, Array, Array | None, Array | None]:
    # The kernels give the first image's gradient, or both: for y's alone they trade places.
    first, second = (x, y) if need_x else (y, x)
    problem = _Problem(first, second, parameters, mask, kind)
    library, call = problem.library, problem.call
    dtype = gradient_dtype(problem.dtype)
    grad_x = library.empty_like(x, dtype) if need_x else None
    grad_y = library.empty_like(y, dtype) if need_y else None
    outputs = [gradient for gradient in (grad_x, grad_y) if gradient is not None]
    call.grad_x, call.both = _strided(library, outputs[0]), len(outputs) == 2
    if call.both:
        call.grad_y = _strided(library, outputs[1])
    call.upstream_factor, call.l1_factor = factor, l1_factor
    if upstream is not None:
        call.upstream_is_map = upstream.ndim > 2
        call.upstream = (
            _strided(library, upstream)
            if call.upstream_is_map
            else _plane_numbers(library, upstream)
        )
    means = [None, None]
    if values:
        means = [library.empty(x, x.shape[:2], "float64") for _ in range(2)]
        call.values, call.l1 = (library.argument(mean)[0] for mean in means)
    problem.differentiate()
    return means[0], means[1], grad_x, grad_y


def _plane_numbers(library: Adapter, numbers: Array) -> _Strided:
    """One number per plane ``(N, C)``, whatever the position."""
    address, code, _, _ = library.argument(numbers)
    strides = (*element_strides(library, numbers), 0, 0, 0)
    return _Strided(address, (ctypes.c_longlong * 5)(*strides), code)


# --- Boxes ----------------------------------------------------------------------------------------


def downsample_forward(
    x: Array,
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    *,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Means over ``factor``-sided boxes of the padded image."""
    library = adapter(x)
    x = library.kernel_ready(x)
    shape = tuple(x.shape)
    _check_coordinates(_five(shape, 1))
    reduced_shape = shape[:2] + tuple(
        (size + before + after) // factor
        for size, (before, after) in zip(shape[2:], padding, strict=True)
    )
    reduced = library.empty(x, reduced_shape, compute_dtype(library.dtype(x)))
    _downsample("downsample_forward", x, reduced, factor, padding, border, reduced)
    return reduced


def downsample_backward(
    grad: Array,
    input_shape: Sequence[int],
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    *,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Adjoint of :func:`downsample_forward`."""
    library = adapter(grad)
    grad = library.kernel_ready(grad)
    _check_coordinates(_five(tuple(input_shape), 1))
    full = library.empty(grad, tuple(input_shape), library.dtype(grad))
    _downsample("downsample_backward", full, grad, factor, padding, border, full)
    return full


def _downsample(
    kernel: str,
    full: Array,
    reduced: Array,
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    result: Array,
) -> None:
    library = adapter(full)
    call = _Downsample(border=_BORDERS[border])
    call.full, call.reduced = _strided(library, full), _strided(library, reduced)
    call.shape[:] = _five(tuple(full.shape), 1)
    call.reduced_shape[:] = _five(tuple(reduced.shape), 1)
    missing = 3 - len(padding)
    pads = [(0, 0)] * missing + [tuple(pad) for pad in padding]
    call.padding[:] = [before for before, _ in pads]
    call.padded[:] = [
        size + before + after for size, (before, after) in zip(call.shape[2:], pads, strict=True)
    ]
    call.factors[:] = [1] * missing + [factor] * len(padding)
    *outer, columns = _five(tuple(result.shape), 1)
    blocks = _divide_up(math.prod(outer), _BOX_ROWS) * _divide_up(columns, _BOX_COLUMNS)
    if blocks:
        real = CXX_TYPES[compute_dtype(library.dtype(full))]
        launch(library, full, f"{kernel}<{real}>", blocks, (_BOX_LANES, _BOX_ROWS, 1), call)
