# SPDX-License-Identifier: Apache-2.0
"""The SSIM family by Numba's kernels.

NumPy cuts tiles out of the images, in the computing dtype and with what the border shows around
them, and puts results back; so any dtype and strides will do, and the kernels see plain tiles.
Tiles depend on the image's size alone and their sums are added in order.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sosie.arrays import Adapter, Array, adapter
from sosie.backends._dtypes import compute_dtype, gradient_dtype
from sosie.backends._ssim_plan import SSIMPlan, ssim_plan
from sosie.backends.numba._ssim_kernels import backward_tile, forward_tile
from sosie.backends.numba._tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sosie.spec import SSIMParameters

__all__ = [
    "downsample_backward",
    "downsample_forward",
    "ssim_backward",
    "ssim_forward",
    "ssim_loss",
    "ssim_with_gradient",
]

Result = TypeVar("Result")

#: Begin and end along each of the three spatial axes.
Box = tuple[tuple[int, int], ...]

#: Sides of a tile of an image and of a volume: its planes fit a second-level cache, and what its
#: windows reach around it is a small part of it.
_IMAGE_TILE = (1, 64, 512)
_VOLUME_TILE = (16, 32, 128)


# --- The executor's functions ---------------------------------------------------------------------


def ssim_forward(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    return_map: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array | None]:
    """Mean of the map per plane, float64 ``(N, C)``, and the map if wanted."""
    pair = _Pair(x, y, parameters, mask)
    plan, stride = pair.plan, parameters.stride
    map_shape = pair.shape[:2] + parameters.map_shape(tuple(x.shape)[2:])
    similarity_map = pair.library.empty(x, map_shape, plan.dtype.name) if return_map else None
    target = None if similarity_map is None else _volumes(pair.library.to_numpy(similarity_map))

    def compute(tile: _Tile) -> float:
        reach = tuple(
            (low + begin * stride - before, low + (end - 1) * stride + after + 1)
            for (begin, end), (low, _), before, after in zip(
                tile.box, plan.crop, plan.before, plan.after, strict=True
            )
        )
        part_x, part_y, valid = pair.read(tile.n, tile.c, reach)
        values = np.empty(_sides(tile.box), plan.dtype)
        forward_tile(part_x, part_y, valid, plan.taps, plan.constants, kind == "cs", stride, values)
        if target is not None:
            target[tile.index] = values
        if valid.size:
            centres = tuple(
                slice(before, before + side * stride, stride)
                for before, side in zip(plan.before, values.shape, strict=True)
            )
            values = values[valid[centres] > 0]
        return float(values.sum(dtype=np.float64))

    tiles = _tiles(_volume_shape(map_shape))
    sums = _plane_sums(tiles, pair.run(compute, tiles, threads), pair.shape)
    values = _mean(sums, pair.positions())
    return pair.library.from_numpy(values, x), similarity_map


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
    threads: int | None = None,
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``upstream`` belongs to the values ``(N, C)`` or to the map."""
    pair = _Pair(x, y, parameters, mask)
    given = pair.library.to_numpy(upstream)
    if given.ndim == 2:
        given = given.astype(np.float64) / np.maximum(pair.positions(), 1.0)
    l1_weights = np.zeros(pair.shape[:2])
    _, _, grad_x, grad_y = _gradients(pair, kind, given, l1_weights, need_x, need_y, threads)
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
    threads: int | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Values ``(N, C)`` as of :func:`ssim_forward`, and the gradient of each for its planes."""
    pair = _Pair(x, y, parameters, mask)
    positions = pair.positions()
    sums, _, grad_x, grad_y = _gradients(
        pair, kind, 1.0 / np.maximum(positions, 1.0), np.zeros(pair.shape[:2]),
        need_x, need_y, threads,
    )  # fmt: skip
    return pair.library.from_numpy(_mean(sums, positions), x), grad_x, grad_y


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
    threads: int | None = None,
) -> tuple[Array, Array, Array | None, Array | None]:
    """SSIM and mean |x - y| per plane, and the gradient of their weighted loss, in one pass.

    The loss is ``mean over planes of ssim_weight * (1 - ssim) + l1_weight * l1``.
    """
    pair = _Pair(x, y, parameters, mask)
    planes = max(pair.shape[0] * pair.shape[1], 1)
    positions, pixels = pair.positions(), pair.pixels()
    upstream = -ssim_weight / planes / np.maximum(positions, 1.0)
    l1_weights = l1_weight / planes / np.maximum(pixels, 1.0)
    ssim_sums, l1_sums, grad_x, grad_y = _gradients(
        pair, "ssim", upstream, l1_weights, need_x, need_y, threads
    )
    give_back = pair.library.from_numpy
    return (
        give_back(_mean(ssim_sums, positions), x),
        give_back(_mean(l1_sums, pixels), x),
        grad_x,
        grad_y,
    )


def downsample_forward(
    x: Array,
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    *,
    threads: int | None = None,
) -> Array:
    """Means over ``factor``-sided boxes of the padded image."""
    library = adapter(x)
    image = _volumes(library.to_numpy(library.kernel_ready(x)))
    boxes = _Boxes(x.shape, factor, padding, border)
    dtype = compute_dtype(library.dtype(x))
    reduced = library.empty(x, boxes.reduced_shape, dtype)
    target = _volumes(library.to_numpy(reduced))

    def compute(tile: _Tile) -> None:
        padded = _read(image[tile.n, tile.c], boxes.pixels(tile.box), border, dtype)
        total = np.zeros(_sides(tile.box), dtype)
        for pixels in boxes.members(padded, total.shape):
            total += pixels
        target[tile.index] = total * total.dtype.type(boxes.weight)

    run_tasks(compute, _tiles(_volume_shape(boxes.reduced_shape)), library, threads)
    return reduced


def downsample_backward(
    grad: Array,
    input_shape: Sequence[int],
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    *,
    threads: int | None = None,
) -> Array:
    """Adjoint of :func:`downsample_forward`."""
    library = adapter(grad)
    reduced = _volumes(library.to_numpy(library.kernel_ready(grad)))
    boxes = _Boxes(input_shape, factor, padding, border)
    full = library.empty(grad, tuple(input_shape), library.dtype(grad))
    target = _volumes(library.to_numpy(full))

    def compute(plane: tuple[int, int]) -> None:
        padded = np.zeros(boxes.padded_shape, reduced.dtype)
        share = reduced[plane] * reduced.dtype.type(boxes.weight)
        for pixels in boxes.members(padded, share.shape):
            pixels[...] = share
        target[plane] = boxes.fold(padded)

    run_tasks(compute, list(np.ndindex(*reduced.shape[:2])), library, threads)
    return full


# --- Images and tiles -----------------------------------------------------------------------------


class _Tile(NamedTuple):
    """Part of one plane."""

    n: int
    c: int
    box: Box

    @property
    def index(self) -> Any:
        """Where it lies in an array ``(N, C, D, H, W)``."""
        return (self.n, self.c, *(slice(begin, end) for begin, end in self.box))


class _Pair:
    """Two images and their mask, as NumPy arrays of shape ``(N, C, D, H, W)``."""

    def __init__(self, x: Array, y: Array, parameters: SSIMParameters, mask: Array | None) -> None:
        self.library = library = adapter(x)
        self.given = (x, y)
        self.plan = ssim_plan(parameters, compute_dtype(library.dtype(x)), mask is not None)
        self.x, self.y = (
            _volumes(library.to_numpy(library.kernel_ready(image))) for image in (x, y)
        )
        self.shape = self.x.shape
        self.mask: NDArray[Any] | None = None
        if mask is not None:
            self.mask = _volumes(library.to_numpy(library.as_mask(mask, tuple(x.shape))))

    def run(
        self, compute: Callable[[_Tile], Result], tiles: list[_Tile], threads: int | None
    ) -> list[Result]:
        """The tiles' results, in order."""
        return run_tasks(compute, tiles, self.library, threads)

    def read(self, n: int, c: int, box: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Both images and the mask (empty: there is none) in a box that may reach outside."""
        border, dtype = self.plan.border, self.plan.dtype
        mask = np.empty((0, 0, 0), dtype)
        if self.mask is not None:
            mask = _read(self.mask[n, c], box, border, dtype)
        return (
            _read(self.x[n, c], box, border, dtype),
            _read(self.y[n, c], box, border, dtype),
            mask,
        )

    def whole_map(self) -> tuple[slice, ...]:
        """The pixels at which the map has its positions."""
        box = tuple((0, size) for size in self.shape[2:])
        return self.plan.places(self.plan.positions(box, self.shape[2:]), (0, 0, 0))

    def positions(self) -> NDArray[np.float64]:
        """How many positions each plane's mean is over, ``(N, C)``."""
        return self._count((..., *self.whole_map()))

    def pixels(self) -> NDArray[np.float64]:
        """How many valid pixels each plane has, ``(N, C)``."""
        return self._count(...)

    def _count(self, part: Any) -> NDArray[np.float64]:
        if self.mask is None:
            sides = np.broadcast_to(np.True_, self.shape)[part].shape[2:]
            return np.full(self.shape[:2], float(np.prod(sides, dtype=np.float64)))
        valid: NDArray[np.intp] = np.count_nonzero(self.mask[part], axis=(2, 3, 4))
        return valid.astype(np.float64)


def _gradients(
    pair: _Pair,
    kind: str,
    upstream: NDArray[Any],
    l1_weights: NDArray[Any],
    need_x: bool,
    need_y: bool,
    threads: int | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Array | None, Array | None]:
    """Sums of the map and of ``|x - y|`` per plane, and the gradients.

    ``upstream`` is the gradient of each position of a plane's map, ``(N, C)``, or the map's.
    """
    plan = pair.plan
    targets = [
        _Gradient(pair.library, image) if needed else None
        for image, needed in zip(pair.given, (need_x, need_y), strict=True)
    ]
    if upstream.ndim > 2:
        upstream = _volumes(upstream)

    def compute(tile: _Tile) -> tuple[float, float]:
        sides = _sides(tile.box)
        reach = _grown(tile.box, plan.after, plan.before)  # the windows that see the tile
        part_x, part_y, valid = pair.read(tile.n, tile.c, _grown(reach, plan.before, plan.after))
        given, inside = _upstream(pair, upstream, tile, reach)
        l1_weight = plan.dtype.type(l1_weights[tile.n, tile.c])
        values = np.empty_like(given)
        grad_x, grad_y = np.empty(sides, plan.dtype), np.empty(sides, plan.dtype)
        l1 = backward_tile(
            part_x, part_y, valid, plan.taps, _folds(plan, tile.box, pair.shape[2:]),
            plan.constants, kind == "cs", given, inside, l1_weight, values, grad_x, grad_y,
        )  # fmt: skip
        for target, gradient in zip(targets, (grad_x, grad_y), strict=True):
            if target is not None:
                target.write(tile, gradient)
        own = tuple(slice(n, n + side) for n, side in zip(plan.after, sides, strict=True))
        return float(values[own][inside[own] > 0].sum(dtype=np.float64)), float(l1)

    tiles = _tiles(pair.shape)
    sums = np.array(pair.run(compute, tiles, threads)).reshape(-1, 2)
    grad_x, grad_y = (None if target is None else target.finish() for target in targets)
    return (
        _plane_sums(tiles, sums[:, 0], pair.shape),
        _plane_sums(tiles, sums[:, 1], pair.shape),
        grad_x,
        grad_y,
    )


class _Gradient:
    """The gradient of an image in its library, its dtype if that has fractions, and its strides."""

    def __init__(self, library: Adapter, image: Array) -> None:
        dtype = library.dtype(image)
        self.library = library
        self.result = library.empty_like(image, gradient_dtype(dtype))
        # bfloat16 alone has no NumPy dtype: its values are a copy, in float32.
        self.is_copy = dtype == "bfloat16"
        self.values = library.to_numpy(self.result)
        self.volumes = _volumes(self.values)

    def write(self, tile: _Tile, values: NDArray[Any]) -> None:
        with np.errstate(over="ignore"):  # beyond the largest half lies infinity
            self.volumes[tile.index] = values

    def finish(self) -> Array:
        if self.is_copy:
            self.result[...] = self.library.from_numpy(self.values, self.result)
        return self.result


def _upstream(
    pair: _Pair, upstream: NDArray[Any], tile: _Tile, reach: Box
) -> tuple[NDArray[Any], NDArray[Any]]:
    """dL/dmap at every pixel of a box, and 1 where the map has a position that counts."""
    plan, plane, sides = pair.plan, (tile.n, tile.c), _sides(reach)
    given, inside = np.zeros(sides, plan.dtype), np.zeros(sides, np.uint8)
    indices = plan.positions(reach, pair.shape[2:])
    places = plan.places(indices, [begin for begin, _ in reach])
    if upstream.ndim > 2:
        given[places] = upstream[plane][tuple(slice(i.start, i.stop) for i in indices)]
        inside[places] = 1
    else:
        given[places] = upstream[plane]
        centres = plan.places(indices, (0, 0, 0))
        inside[places] = 1 if pair.mask is None else pair.mask[plane][centres]
    return given, inside


# --- Borders --------------------------------------------------------------------------------------


def _sources(positions: NDArray[np.int64], size: int, border: str) -> NDArray[np.int64]:
    """Index of the pixel that is seen at each position, which may lie outside; -1 sees a zero."""
    if border == "zero":
        return np.where((positions < 0) | (positions >= size), -1, positions)
    if border == "replicate":
        return np.clip(positions, 0, size - 1)
    period, last = (2 * size, 2 * size - 1) if border == "symmetric" else (2 * size - 2,) * 2
    folded = positions % max(period, 1)
    return np.where(folded < size, folded, last - folded)


def _read(plane: NDArray[Any], box: Box, border: str, dtype: Any) -> NDArray[Any]:
    """Copy of a box of a plane ``(D, H, W)``, with what the border shows outside."""
    inner, outside = [], []
    for axis, ((begin, end), size) in enumerate(zip(box, plane.shape, strict=True)):
        if begin >= 0 and end <= size:
            inner.append(slice(begin, end))
            continue
        sources = _sources(np.arange(begin, end), size, border)
        seen = np.maximum(sources, 0)
        first = int(seen.min())
        inner.append(slice(first, int(seen.max()) + 1))
        outside.append((axis, seen - first, sources < 0))
    part = plane[tuple(inner)]
    for axis, sources, _ in outside:
        part = part.take(sources, axis)
    tile = np.array(part, dtype, order="C")
    for axis, _, zeros in outside:
        np.moveaxis(tile, axis, 0)[zeros] = 0
    return tile


@lru_cache(maxsize=256)
def _axis_folds(
    window: tuple[float, ...], size: int, border: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The adjoint of a border: pixels, positions whose window sees them outside, weights."""
    before, after = (len(window) - 1) // 2, len(window) // 2
    outside = np.r_[-before:0, size : size + after]
    folds = [
        (pixel, position, window[place - position + before])
        for place, pixel in zip(outside, _sources(outside, size, border), strict=True)
        for position in range(max(place - after, 0), min(place + before + 1, size))
        if pixel >= 0
    ]
    pixels, positions, weights = zip(*folds, strict=True) if folds else ((), (), ())
    return (
        np.array(pixels, np.int64), np.array(positions, np.int64), np.array(weights, np.float64)
    )  # fmt: skip


def _folds(plan: SSIMPlan, box: Box, shape: Sequence[int]) -> Any:
    """Folds of each axis at the pixels of a tile, in the coordinates of the tile."""
    folds = []
    for (begin, end), window, after, size in zip(box, plan.windows, plan.after, shape, strict=True):
        pixels, positions, weights = _axis_folds(window, size, plan.border)
        here = (pixels >= begin) & (pixels < end)
        folds.append(
            (
                pixels[here] - begin,
                positions[here] - (begin - after),
                weights[here].astype(plan.dtype),
            )
        )
    return tuple(folds)


# --- Boxes of the reduction -----------------------------------------------------------------------


class _Boxes:
    """Boxes of ``factor`` pixels a side that tile the padded image, with three spatial axes."""

    def __init__(
        self, shape: Sequence[int], factor: int, padding: Sequence[Sequence[int]], border: str
    ) -> None:
        missing = 5 - len(shape)
        pads = ((0, 0),) * missing + tuple((int(before), int(after)) for before, after in padding)
        self.border = border
        self.shape = _volume_shape(tuple(shape))[2:]
        self.factors = (1,) * missing + (factor,) * (3 - missing)
        self.before = tuple(before for before, _ in pads)
        self.padded_shape = tuple(
            size + before + after for size, (before, after) in zip(self.shape, pads, strict=True)
        )
        self.boxes = tuple(
            size // n for size, n in zip(self.padded_shape, self.factors, strict=True)
        )
        self.reduced_shape = (*shape[:2], *self.boxes[missing:])
        self.weight = 1.0 / float(np.prod(self.factors))

    def pixels(self, box: Box) -> Box:
        """Where boxes [begin, end) have their pixels in the image."""
        return tuple(
            (begin * n - before, end * n - before)
            for (begin, end), n, before in zip(box, self.factors, self.before, strict=True)
        )

    def members(self, padded: NDArray[Any], boxes: Sequence[int]) -> list[NDArray[Any]]:
        """Views of the first pixel of each box, of the second, and so on."""
        return [
            padded[
                tuple(
                    slice(start, start + count * n, n)
                    for start, count, n in zip(offset, boxes, self.factors, strict=True)
                )
            ]
            for offset in itertools.product(*(range(n) for n in self.factors))
        ]

    def fold(self, padded: NDArray[Any]) -> NDArray[Any]:
        """The adjoint of padding."""
        for axis, (size, before) in enumerate(zip(self.shape, self.before, strict=True)):
            lines = np.moveaxis(padded, axis, 0)
            places = np.arange(lines.shape[0])
            sources = _sources(places - before, size, self.border)
            inner = lines[before : before + size]
            for place, source in zip(places, sources, strict=True):
                if source >= 0 and not before <= place < before + size:
                    inner[source] += lines[place]
            padded = np.moveaxis(inner, 0, axis)
        return padded


# --- Shapes, tasks and sums -----------------------------------------------------------------------


def _volume_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``(N, C, D, H, W)``: an image is a volume of depth 1."""
    return shape if len(shape) == 5 else (*shape[:2], 1, *shape[2:])


def _volumes(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.ndim == 5 else array[:, :, None]


def _sides(box: Box) -> tuple[int, ...]:
    return tuple(end - begin for begin, end in box)


def _grown(box: Box, before: Sequence[int], after: Sequence[int]) -> Box:
    return tuple(
        (begin - low, end + high)
        for (begin, end), low, high in zip(box, before, after, strict=True)
    )


def _tiles(shape: Sequence[int]) -> list[_Tile]:
    """Tiles of all planes of ``(N, C, D, H, W)``, as equal as they can be, plane after plane."""
    sides = _IMAGE_TILE if shape[2] == 1 else _VOLUME_TILE
    cuts = []
    for size, side in zip(shape[2:], sides, strict=True):
        pieces = -(-size // side)
        cuts.append([(size * i // pieces, size * (i + 1) // pieces) for i in range(pieces)])
    boxes = list(itertools.product(*cuts))
    return [_Tile(n, c, box) for n, c in np.ndindex(*shape[:2]) for box in boxes]


def _plane_sums(
    tiles: Sequence[_Tile], sums: Sequence[float] | NDArray[np.float64], shape: Sequence[int]
) -> NDArray[np.float64]:
    totals = np.zeros(tuple(shape[:2]))
    for tile, value in zip(tiles, sums, strict=True):
        totals[tile.n, tile.c] += value
    return totals


def _mean(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over counts; NaN where nothing counts."""
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means
