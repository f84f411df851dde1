# SPDX-License-Identifier: Apache-2.0
"""Conventions, images, what the definition says of them, and comparisons, for tests of SSIM."""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest

from sosie.reference import ssim as reference
from sosie.spec import SSIMParameters, SSIMSpec, list_specs, ssim_spec

torch = pytest.importorskip("torch")


Array = Any


class Tolerance(NamedTuple):
    """How far from the definition a result may be."""

    map: float  # at every position; |S| is at most 1
    mean: float
    gradient: float  # relative, in the L2 norm
    element: float  # of a gradient, relative to its largest element
    bias: float  # mean error relative to the mean magnitude

    def mean_over(self, positions: np.ndarray) -> float:
        """Errors of positions average out, if there are many."""
        return max(self.mean, self.map / math.sqrt(max(positions.min(), 1.0)))

    def times(self, factor: float) -> Tolerance:
        return Tolerance(*(factor * value for value in self))


TOLERANCE = {
    # A local variance is a difference of moments, wrong by a few 2^-53 of the squared range, and is
    # compared with C2, which is 9e-4 of it: 4e-13. The definition's own rounding is as large.
    "float64": Tolerance(map=1e-12, mean=1e-12, gradient=1e-12, element=1e-11, bias=1e-12),
    # The same with 2^-24: 2e-4, were it not for centring and the sum/difference form, which leave
    # the rounding of small numbers only. The promise is for natural images. Single elements of a
    # gradient can be sums that nearly cancel, hence their room; errors that all point the same way
    # would bend an optimiser's path, hence the bound on their mean.
    "float32": Tolerance(map=3e-5, mean=1e-6, gradient=1e-4, element=1e-3, bias=1e-5),
}

# A direction: cos(found, expected) > 1 - 1e-8, an angle of 1.4e-4.
COSINE = 1e-8


# --- Conventions, sizes and images ----------------------------------------------------------------


SKEWED = (0.05, 0.2, 0.4, 0.25, 0.1)
GAUSSIANS: dict[str, dict[str, Any]] = {
    f"gaussian-{size}": {"window_size": size, "sigma": size / 6} for size in (3, 5, 9, 13, 21, 33)
}
UNIFORMS: dict[str, dict[str, Any]] = {
    f"uniform-{size}": {"window": "uniform", "window_size": size} for size in (3, 4, 15, 33)
}
BORDERS: dict[str, dict[str, Any]] = {
    f"{border}-{size}": {"border": border, "window_size": size, "sigma": size / 5}
    for border, size in itertools.product(("zero", "reflect", "symmetric", "replicate"), (5, 17))
}
CONVENTIONS: dict[str, dict[str, Any]] = {
    **GAUSSIANS,
    **UNIFORMS,
    **BORDERS,
    "pixel": {"window": "uniform", "window_size": 1},
    "per-axis": {"window_size": (5, 9), "sigma": (0.8, 2.5), "border": "reflect"},
    "per-axis-valid": {"window_size": (11, 3), "sigma": (2.0, 0.7)},
    "skewed": {"window": "custom", "taps": SKEWED},
    "skewed-reflect": {"window": "custom", "taps": (SKEWED, (0.7, 0.1, 0.2)), "border": "reflect"},
    "skewed-zero": {"window": "custom", "taps": ((0.2, 0.3, 0.5), SKEWED), "border": "zero"},
    "unnormalised": {"window": "custom", "taps": (0.3, 0.4, 0.25), "border": "replicate"},
    "even-stride": {"window": "uniform", "window_size": 8, "stride": 4, "covariance": "sample"},
    "even-mixed": {"window": "uniform", "window_size": (4, 7), "stride": 3},
    "uniform-mirrored": {"window": "uniform", "window_size": 9, "border": "symmetric"},
    "stride-zero": {"window_size": 7, "border": "zero", "stride": 5},
    "stride-reflect": {"window_size": 5, "border": "reflect", "stride": 2},
    "crop": {"window_size": 9, "border": "replicate", "crop": 2},
    "crop-valid": {"window_size": 5, "crop": 1},
    "crop-window": {"window_size": 7, "border": "reflect", "crop": "window"},
    "sample": {"window_size": 7, "covariance": "sample"},
    "constants": {"window_size": 7, "k1": 0.05, "k2": 0.2, "epsilon": 1e-3},
    "explicit-constants": {"window_size": 7, "c1": 1e-3, "c2": 3e-3},
    "clamp-value": {"window_size": 5, "border": "zero", "clamp_value": (0.2, 0.6)},
    "clamp-variance": {"window_size": 5, "border": "reflect", "clamp_variance": True},
    **{name: {"name": name} for name in list_specs()},
}

# Lanes are 4 to 16 numbers wide, a block is 16 rows.
SHAPES = [
    (1, 1, 1, 1), (1, 1, 7, 8), (2, 1, 9, 15), (1, 3, 16, 17), (2, 2, 32, 31), (1, 1, 33, 37),
    (1, 2, 61, 80), (1, 1, 97, 5), (1, 1, 6, 101),
]  # fmt: skip
# Tasks are cut at 128 and 256 rows (Numba: 64) and near 512 columns, evenly.
LARGE_SHAPES = [(1, 1, 270, 24), (2, 1, 24, 1030), (1, 1, 131, 517)]
LARGE = ["wang2004", "scikit-image", "skewed-reflect", "zero-17", "even-stride", "stride-reflect"]

VOLUME_SHAPES = [
    (1, 1, 1, 1, 1), (2, 1, 5, 7, 9), (1, 2, 8, 9, 16), (1, 1, 17, 11, 33), (1, 1, 3, 40, 31),
    (1, 1, 18, 35, 131),
]  # fmt: skip
VOLUME_CONVENTIONS: dict[str, dict[str, Any]] = {
    "valid": {"window_size": 3, "sigma": 0.8},
    **{border: {"border": border, "window_size": 5} for border in ("zero", "reflect", "symmetric")},
    "replicate": {"border": "replicate", "window_size": 7, "sigma": 1.2},
    "per-axis": {"window_size": (5, 3, 7), "sigma": (0.9, 0.6, 1.5), "border": "replicate"},
    "flat-window": {"window_size": (1, 5, 5), "border": "symmetric"},
    "skewed": {
        "window": "custom",
        "taps": (SKEWED, (0.2, 0.3, 0.5), (0.7, 0.1, 0.2)),
        "border": "zero",
    },
    "uniform": {"window": "uniform", "window_size": 3, "covariance": "sample"},
    "even-stride": {"window": "uniform", "window_size": 4, "stride": 2},
    "stride-reflect": {"window_size": 3, "border": "reflect", "stride": 3},
    "crop": {"window_size": 5, "border": "reflect", "crop": 1},
    "kornia": {"name": "kornia"},
    "scikit-image": {"name": "scikit-image"},
}


def convention(changes: dict[str, Any]) -> SSIMSpec:
    """Spec of one of the tables' entries: a named one, or the default with changes."""
    return ssim_spec(changes["name"]) if "name" in changes else SSIMSpec(**changes)


def parameters_of(changes: dict[str, Any], shape: tuple[int, ...]) -> SSIMParameters:
    return convention(changes).resolve(shape[2:], 1.0)


def fits(changes: dict[str, Any], shape: tuple[int, ...]) -> bool:
    try:
        parameters_of(changes, shape)
    except ValueError:
        return False
    return True


def cases(
    conventions: dict[str, dict[str, Any]], shapes: list[tuple[int, ...]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Every pair of a convention and a shape that its window fits."""
    return [
        (name, shape) for name in conventions for shape in shapes if fits(conventions[name], shape)
    ]


def seed_of(*key: Any) -> int:
    return zlib.crc32(repr(key).encode())


@functools.lru_cache(maxsize=64)
def images(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Waves with noise, and that with more noise: values in [0, 1] that float32 holds exactly."""
    generator = np.random.default_rng(seed_of(shape, seed))
    grid = np.meshgrid(*(np.arange(size) for size in shape[2:]), indexing="ij")
    waves = 0.5 + 0.3 * np.sin(sum(0.13 * (2 + axis) * line for axis, line in enumerate(grid)))
    x = np.clip(waves + 0.1 * generator.standard_normal(shape), 0.0, 1.0)
    y = np.clip(x + 0.1 * generator.standard_normal(shape), 0.0, 1.0)
    pair = x.astype(np.float32).astype(np.float64), y.astype(np.float32).astype(np.float64)
    for image in pair:
        image.setflags(write=False)
    return pair


class Expected(NamedTuple):
    """The definition's results, with upstream gradients to go with them."""

    values: np.ndarray
    map: np.ndarray
    upstream: np.ndarray  # of the values, (N, C)
    counted: np.ndarray  # 1 at the positions that their means are over
    gradients: tuple[np.ndarray, np.ndarray]
    map_upstream: np.ndarray
    map_gradients: tuple[np.ndarray, np.ndarray]


def define(
    x: np.ndarray, y: np.ndarray, p: SSIMParameters, kind: str, mask: np.ndarray | None = None
) -> Expected:
    generator = np.random.default_rng(seed_of(x.shape, kind))
    values, similarity_map = reference.ssim_forward(x, y, p, mask=mask, kind=kind)
    upstream = generator.standard_normal(values.shape)
    map_upstream = generator.standard_normal(similarity_map.shape)
    counted = np.ones(x.shape) if mask is None else np.broadcast_to(mask, x.shape).astype(float)
    centres = [
        slice(before, size - after, p.stride)
        for size, (before, after) in zip(x.shape[2:], p.crop, strict=True)
    ]
    counted = counted[(..., *centres)]
    if mask is not None:  # see `resolvable`
        map_upstream *= resolvable(mask, x.shape, p)
    return Expected(
        values,
        similarity_map,
        upstream,
        counted,
        reference.ssim_backward(x, y, p, upstream, mask=mask, kind=kind),
        map_upstream,
        reference.ssim_backward(x, y, p, map_upstream, mask=mask, kind=kind),
    )


@functools.lru_cache(maxsize=1024)
def expected_of(p: SSIMParameters, shape: tuple[int, ...], kind: str) -> Expected:
    return define(*images(shape), p, kind)


# --- Comparison -----------------------------------------------------------------------------------


def assert_close(found: Array, expected: np.ndarray, tolerance: float) -> None:
    found = np.asarray(found, np.float64)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    error = np.abs(found - expected)[~np.isnan(expected)]
    assert error.size == 0 or error.max() <= tolerance


def assert_gradient(
    found: Array, expected: np.ndarray, tolerance: Tolerance, upstream: np.ndarray
) -> None:
    """Size, elements, direction and bias of a gradient.

    Its terms are of the size of ``upstream``, dL/dmap, or larger. Where they cancel, as for a
    single pixel, rounding is a fraction of that.
    """
    found = np.asarray(found, np.float64)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    error, size = found - expected, np.linalg.norm(expected)
    assert np.linalg.norm(error) <= tolerance.gradient * max(size, np.linalg.norm(upstream))
    largest, mean = (max(f(np.abs(expected)), f(np.abs(upstream))) for f in (np.max, np.mean))
    assert np.abs(error).max() <= tolerance.element * largest
    if error.size >= 1000:  # a mean over few pixels is an element's rounding
        assert abs(error.mean()) <= tolerance.bias * mean
    if size > np.linalg.norm(upstream):
        assert (found * expected).sum() > (1.0 - COSINE) * np.linalg.norm(found) * size


def check_all(
    executor: Any,
    x: Array,
    y: Array,
    p: SSIMParameters,
    kind: str,
    expected: Expected,
    tolerance: Tolerance,
    mask: Array | None = None,
) -> None:
    """Values, map and both gradients under both kinds of upstream."""
    values, similarity_map = executor.ssim_forward(x, y, p, mask=mask, kind=kind, return_map=True)
    counted = expected.counted
    positions = counted.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    assert_close(values, expected.values, tolerance.mean_over(positions))
    if mask is not None:
        np.testing.assert_array_equal(similarity_map == 0.0, expected.map == 0.0)
        seen = resolvable(mask, x.shape, p)
        similarity_map = np.where(seen, similarity_map, expected.map)
    assert_close(similarity_map, expected.map, tolerance.map)
    each = counted / np.maximum(positions, 1.0) * expected.upstream.reshape(positions.shape)
    for upstream, per_position, gradients in (
        (expected.upstream, each, expected.gradients),
        (expected.map_upstream, expected.map_upstream, expected.map_gradients),
    ):
        found = executor.ssim_backward(x, y, p, upstream, mask=mask, kind=kind, need_y=True)
        for one, other in zip(found, gradients, strict=True):
            assert_gradient(one, other, tolerance, per_position)


# --- Masks ----------------------------------------------------------------------------------------


# A window that does not see its centre: positions that count, with nothing to see.
MASKABLE = CONVENTIONS | {"hollow": {"window": "custom", "taps": (0.5, 0.0, 0.5), "border": "zero"}}


def resolvable(mask: Array, shape: tuple[int, ...], p: SSIMParameters) -> np.ndarray:
    """Positions whose window holds no valid pixel, or more than 1e-5 of its weight in them.

    Where they hold less, what an executor subtracts to move a sum on weighs as much as the sum.
    """
    weight = np.broadcast_to(np.asarray(mask), shape).astype(np.float64)
    for axis, (size, taps, crop) in enumerate(zip(shape[2:], p.taps, p.crop, strict=True), 2):
        matrix = reference.window_matrix(size, taps, p.border, crop, p.stride)
        weight = np.moveaxis(np.tensordot(matrix, weight, (1, axis)), 0, axis)
    return (weight == 0.0) | (weight > 1e-5)


def masks(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Masks that broadcast to images of a shape: scattered, holes, nearly and wholly empty."""
    generator = np.random.default_rng(seed_of(shape))
    hole = np.ones((1, 1, *shape[2:]), dtype=bool)
    hole[(..., *(slice(size // 4, size // 4 + size // 2) for size in shape[2:]))] = False
    scattered = generator.random(shape) < 0.6
    each = generator.random((shape[0], 1, *shape[2:])) < 0.9
    each[0] = False
    each[(0, 0, *(size // 3 for size in shape[2:]))] = True
    empty = scattered.copy()
    empty[-1] = False
    return {"hole": hole, "scattered": scattered, "pixel": each, "empty": empty}


def poisoned(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Copy with NaN and infinities where the mask is False."""
    junk = np.resize(np.array([np.nan, np.inf, -np.inf], x.dtype), x.shape)
    return np.where(mask, x, junk)


# --- Dtypes ---------------------------------------------------------------------------------------


def run_all(executor: Any, x: Array, y: Array, p: SSIMParameters, mask: Any = None) -> list[Array]:
    """Every result an executor has for two images: values, maps, gradients, loss."""
    values, similarity_map = executor.ssim_forward(x, y, p, mask=mask, return_map=True)
    generator = np.random.default_rng(3)
    upstreams = [generator.standard_normal(tuple(like.shape)) for like in (values, similarity_map)]
    if not isinstance(x, np.ndarray):
        upstreams = [torch.from_numpy(upstream) for upstream in upstreams]
    results = [values, similarity_map]
    for upstream in upstreams:
        results += executor.ssim_backward(x, y, p, upstream, mask=mask, need_y=True)
    weights = {"ssim_weight": 0.7, "l1_weight": 0.3}
    results += executor.ssim_loss(x, y, p, mask=mask, need_y=True, **weights)
    return results


DTYPES = ["uint8", "uint16", "float16", "float32", "float64"]


# --- Strides --------------------------------------------------------------------------------------


TORCH_LAYOUTS = {
    "channels-last": lambda a: a.contiguous(memory_format=torch.channels_last),
    "transposed": lambda a: a.mT.contiguous().mT,
    "cropped": lambda a: torch.nn.functional.pad(a, (3, 2, 1, 4))[..., 1:-4, 3:-2],
    "gaps": lambda a: a.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda a: a[:1, :1].expand(a.shape),
    "requires-grad": lambda a: a.clone().requires_grad_(),
}
