# SPDX-License-Identifier: Apache-2.0
"""Every executor of the SSIM family against the float64 definition: values, maps, gradients.

The executors are the compiled kernels, once for each instruction set this machine runs, and the
Numba kernels. Public functions are tested through each of them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sosie
from executors import OPTIMISED, computing_by, one_thread
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


# --- Executors ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=OPTIMISED)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module of an executor, which public functions use too meanwhile, on one thread."""
    with one_thread(), computing_by(request.param) as module:
        yield module


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


# --- Values, maps and gradients -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "shape"), cases(CONVENTIONS, SHAPES))
def test_images(executor, name, shape, dtype) -> None:
    p = parameters_of(CONVENTIONS[name], shape)
    x, y = (image.astype(dtype) for image in images(shape))
    for kind in ("ssim", "cs"):
        check_all(executor, x, y, p, kind, expected_of(p, shape, kind), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("name", "shape"), cases({name: CONVENTIONS[name] for name in LARGE}, LARGE_SHAPES)
)
def test_images_of_several_tasks(executor, name, shape, dtype) -> None:
    p = parameters_of(CONVENTIONS[name], shape)
    x, y = (image.astype(dtype) for image in images(shape))
    check_all(executor, x, y, p, "ssim", expected_of(p, shape, "ssim"), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "shape"), cases(VOLUME_CONVENTIONS, VOLUME_SHAPES))
def test_volumes(executor, name, shape, dtype) -> None:
    p = parameters_of(VOLUME_CONVENTIONS[name], shape)
    x, y = (image.astype(dtype) for image in images(shape))
    for kind in ("ssim", "cs"):
        check_all(executor, x, y, p, kind, expected_of(p, shape, kind), TOLERANCE[dtype])


# --- Masks ----------------------------------------------------------------------------------------

MASKED = [
    "wang2004", "scikit-image", "gaussian-3", "uniform-15", "reflect-5", "replicate-17",
    "symmetric-5", "skewed-zero", "skewed-reflect", "even-stride", "stride-reflect", "crop",
    "sample", "clamp-value", "clamp-variance", "hollow",
]  # fmt: skip
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


def tolerance_under(mask: str | None, dtype: str) -> Tolerance:
    """Windows of one valid pixel have no variance but rounding, over C2: terms of 1e-4 each."""
    return TOLERANCE[dtype].times(10.0 if mask == "pixel" else 1.0)


@functools.lru_cache(maxsize=256)
def expected_under_mask(name: str, shape: tuple[int, ...], kind: str, mask: str) -> Expected:
    p = parameters_of(MASKABLE.get(name, VOLUME_CONVENTIONS.get(name, {})), shape)
    return define(*images(shape), p, kind, masks(shape)[mask])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mask", masks((1, 1, 4, 4)))
@pytest.mark.parametrize("name", MASKED)
def test_mask(executor, name, mask, dtype) -> None:
    shape = (2, 2, 39, 28)
    p = parameters_of(MASKABLE[name], shape)
    valid = masks(shape)[mask]
    x, y = (poisoned(image.astype(dtype), valid) for image in images(shape))
    for kind in ("ssim", "cs"):
        expected = expected_under_mask(name, shape, kind, mask)
        check_all(executor, x, y, p, kind, expected, tolerance_under(mask, dtype), valid)
        for gradient in executor.ssim_backward(
            x, y, p, expected.map_upstream, mask=valid, kind=kind, need_y=True
        ):
            assert not gradient[~np.broadcast_to(valid, shape)].any()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mask", masks((1, 1, 4, 4, 4)))
@pytest.mark.parametrize("name", ["valid", "reflect", "skewed", "even-stride"])
def test_mask_of_volumes(executor, name, mask, dtype) -> None:
    shape = (2, 1, 9, 12, 17)
    p = parameters_of(VOLUME_CONVENTIONS[name], shape)
    valid = masks(shape)[mask]
    x, y = (poisoned(image.astype(dtype), valid) for image in images(shape))
    expected = define(*images(shape), p, "ssim", valid)
    check_all(executor, x, y, p, "ssim", expected, tolerance_under(mask, dtype), valid)


# --- The loss in one pass -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mask", [None, "scattered", "hole", "pixel"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *[(name, (2, 3, 35, 42)) for name in ("wang2004", "fused-ssim", "scikit-image", "hollow")],
        ("stride-reflect", (1, 2, 34, 31)),
        ("reflect-5", (1, 1, 270, 24)),
        ("even-mixed", (1, 1, 9, 530)),
        ("replicate", (1, 2, 9, 10, 17)),
    ],
)
def test_loss(executor, name, shape, mask, dtype) -> None:
    changes = VOLUME_CONVENTIONS[name] if len(shape) == 5 else MASKABLE[name]
    p = parameters_of(changes, shape)
    x, y = (image.copy() for image in images(shape))
    y[..., ::3] = x[..., ::3]  # where the absolute difference has no slope
    valid = None if mask is None else masks(shape)[mask]
    weights = {"ssim_weight": 0.85, "l1_weight": 0.15}
    expected = reference.ssim_loss(x, y, p, mask=valid, **weights)
    positions = define(*images(shape), p, "ssim", valid).counted.sum(axis=tuple(range(2, x.ndim)))
    x, y = x.astype(dtype), y.astype(dtype)
    found = executor.ssim_loss(x, y, p, mask=valid, need_y=True, **weights)
    tolerance = tolerance_under(mask, dtype)
    for i in range(2):
        assert_close(found[i], expected[i], tolerance.mean_over(positions))
    each = np.ones(shape) / max(positions.min(), 1.0) / positions.size
    for i in range(2, 4):
        assert_gradient(found[i], expected[i], tolerance, each)


@pytest.mark.parametrize("shape", [(1, 2, 40, 33), (1, 1, 9, 12, 17)])
def test_one_gradient_is_that_of_both(executor, shape) -> None:
    p = parameters_of({"window_size": 5, "border": "reflect"}, shape)
    x, y = images(shape)
    upstream = np.ones(shape[:2])
    loss = {"ssim_weight": 0.8, "l1_weight": 0.3}
    both = executor.ssim_backward(x, y, p, upstream, need_y=True)
    both_of_loss = executor.ssim_loss(x, y, p, need_y=True, **loss)
    for need_x, need_y in ((True, False), (False, True)):
        needs = {"need_x": need_x, "need_y": need_y}
        pairs = [
            (executor.ssim_backward(x, y, p, upstream, **needs), both),
            (executor.ssim_loss(x, y, p, **loss, **needs), both_of_loss),
        ]
        for found, expected in pairs:
            for one, other, needed in zip(found[-2:], expected[-2:], (need_x, need_y), strict=True):
                assert (one is not None) == needed
                if needed:
                    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-16)


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


def rounded(results: list[Array], dtype: str) -> list[np.ndarray]:
    """The float32 results with gradients rounded to a half."""
    if dtype == "bfloat16":
        halves = [torch.from_numpy(result).to(torch.bfloat16).float().numpy() for result in results]
    else:
        with np.errstate(over="ignore"):
            halves = [result.astype(dtype) for result in results]
    gradients = (2, 3, 4, 5, 8, 9)
    return [halves[i] if i in gradients else result for i, result in enumerate(results)]


def assert_same_bits(found: list[Array], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), other)


DTYPES = ["uint8", "uint16", "float16", "float32", "float64"]


@pytest.mark.parametrize(
    ("library", "dtype"),
    [*itertools.product(["numpy", "torch"], DTYPES), ("torch", "bfloat16")],
)
def test_dtypes_hold_the_same_pixels(executor, dtype, library) -> None:
    """Results are those of float32 (or float64) images of the same values, gradients rounded."""
    shape, peak = (2, 2, 37, 45), 65535.0 if dtype == "uint16" else 255.0
    p = SSIMSpec(window_size=7, border="reflect").resolve(shape[2:], peak)
    x, y = (np.rint(image * peak) for image in images(shape))
    if dtype == "bfloat16":
        x, y = (torch.from_numpy(image).to(torch.bfloat16).double().numpy() for image in (x, y))
    wide = "float64" if dtype == "float64" else "float32"
    expected = run_all(executor, x.astype(wide), y.astype(wide), p)
    if dtype in ("float16", "bfloat16"):
        expected = rounded(expected, dtype)
    if library == "numpy":
        found = run_all(executor, x.astype(dtype), y.astype(dtype), p)
    else:
        tensors = [torch.from_numpy(image).to(getattr(torch, dtype)) for image in (x, y)]
        found = run_all(executor, *tensors, p)
        assert all(isinstance(result, torch.Tensor) for result in found)
    of_gradients = dtype if "float" in dtype else "float32"
    dtypes = ["float64", wide, *[of_gradients] * 4, *["float64"] * 2, *[of_gradients] * 2]
    assert [str(result.dtype).removeprefix("torch.") for result in found] == dtypes
    if dtype == "bfloat16":
        found = [result.float() if result.dtype == torch.bfloat16 else result for result in found]
    assert_same_bits(found, expected)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_half_gradients_round_to_nearest_at_every_size(executor, scale) -> None:
    """Subnormal halves, normal ones, infinities beyond the largest."""
    shape = (1, 1, 24, 33)
    p = SSIMSpec(window_size=5, border="zero").resolve(shape[2:], 1.0)
    x, y = (image.astype(np.float16) for image in images(shape))
    upstream = scale * np.random.default_rng(0).standard_normal(shape)
    wide = executor.ssim_backward(x.astype(np.float32), y.astype(np.float32), p, upstream)[0]
    with np.errstate(over="ignore"):
        expected = wide.astype(np.float16)
    found = executor.ssim_backward(x, y, p, upstream)[0]
    assert (scale < 1e6) or np.isinf(expected).any()
    np.testing.assert_array_equal(found, expected)


# --- Strides --------------------------------------------------------------------------------------


def _surrounded(image: np.ndarray) -> np.ndarray:
    larger = np.full([size + 5 for size in image.shape], 7, image.dtype)
    inner = larger[tuple(slice(2, 2 + size) for size in image.shape)]
    inner[...] = image
    return inner


def _misaligned(image: np.ndarray) -> np.ndarray:
    memory = np.empty(image.nbytes + 1, np.uint8)[1:]
    shifted = np.frombuffer(memory, image.dtype).reshape(image.shape)
    shifted[...] = image
    return shifted


def _read_only(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image.setflags(write=False)
    return image


def _with_gaps(image: np.ndarray) -> np.ndarray:
    spread = np.zeros((*image.shape[:-1], 2 * image.shape[-1]), image.dtype)
    spread[..., ::2] = image
    return spread[..., ::2]


# Each gives an array of the same values in other memory, or in the memory of some of them.
LAYOUTS = {
    "channels-last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1),
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2),
    "fortran": np.asfortranarray,
    "flipped": lambda a: np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
    "cropped": _surrounded,
    "gaps": _with_gaps,
    "one-image": lambda a: np.broadcast_to(a[:1], a.shape),
    "one-row": lambda a: np.broadcast_to(a[..., :1, :], a.shape),
    "one-column": lambda a: np.broadcast_to(a[..., :1], a.shape),
    "read-only": _read_only,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": _misaligned,
}


def memory_of(array: np.ndarray) -> str:
    """Checksum of all memory that an array is a view into."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 3, 33, 41), (2, 2, 7, 12, 19)], ids=["image", "volume"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(executor, layout, shape, dtype) -> None:
    """The same bits from any memory, which stays as it was."""
    p = SSIMSpec(window_size=5, border="symmetric").resolve(shape[2:], 255.0)
    views = [LAYOUTS[layout](np.rint(255 * image).astype(dtype)) for image in images(shape)]
    before = [memory_of(image) for image in views]
    packed = [np.array(image, image.dtype.newbyteorder("="), order="C") for image in views]
    found = run_all(executor, *views, p)
    assert_same_bits(found, run_all(executor, *packed, p))
    assert [memory_of(image) for image in views] == before
    if layout in ("channels-last", "transposed", "fortran"):
        assert np.argsort(found[2].strides).tolist() == np.argsort(views[0].strides).tolist()


TORCH_LAYOUTS = {
    "channels-last": lambda a: a.contiguous(memory_format=torch.channels_last),
    "transposed": lambda a: a.mT.contiguous().mT,
    "cropped": lambda a: torch.nn.functional.pad(a, (3, 2, 1, 4))[..., 1:-4, 3:-2],
    "gaps": lambda a: a.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda a: a[:1, :1].expand(a.shape),
    "requires-grad": lambda a: a.clone().requires_grad_(),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("layout", TORCH_LAYOUTS)
def test_strides_of_tensors(executor, layout, dtype) -> None:
    shape = (2, 3, 33, 41)
    p = SSIMSpec(window_size=5, border="symmetric").resolve(shape[2:], 1.0)
    tensors = [torch.from_numpy(image.copy()).to(getattr(torch, dtype)) for image in images(shape)]
    views = [TORCH_LAYOUTS[layout](tensor) for tensor in tensors]
    packed = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in views]
    found = run_all(executor, *views, p)
    for one, other in zip(found, run_all(executor, *packed, p), strict=True):
        assert torch.equal(one, other)
    for image, copy in zip(views, packed, strict=True):
        assert torch.equal(image, copy)
    if layout in ("channels-last", "transposed"):
        assert found[2].stride() == views[0].stride()


def test_strides_of_masks_and_upstreams(executor) -> None:
    shape = (2, 3, 33, 41)
    p = SSIMSpec(window_size=5, border="zero").resolve(shape[2:], 1.0)
    x, y = images(shape)
    for layout in ("channels-last", "transposed", "flipped", "cropped", "gaps", "one-row"):
        mask = LAYOUTS[layout](masks(shape)["scattered"])
        upstream = LAYOUTS[layout](np.random.default_rng(1).standard_normal(shape))
        np.testing.assert_array_equal(
            executor.ssim_backward(x, y, p, upstream, mask=mask)[0],
            executor.ssim_backward(x, y, p, upstream.copy("C"), mask=mask.copy("C"))[0],
        )


# --- Threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 1, 300, 70), (1, 1, 40, 1100), (2, 1, 20, 36, 40)])
def test_same_bits_for_any_number_of_threads(executor, shape, dtype) -> None:
    p = SSIMSpec(window_size=7, border="reflect").resolve(shape[2:], 1.0)
    x, y = (image.astype(dtype) for image in images(shape))
    mask = masks(shape)["scattered"]
    upstream = np.ones(shape[:2])
    weights = {"ssim_weight": 1.0, "l1_weight": 1.0}

    def results(threads: int) -> list[np.ndarray]:
        values, similarity_map = executor.ssim_forward(
            x, y, p, mask=mask, return_map=True, threads=threads
        )
        gradient = executor.ssim_backward(x, y, p, upstream, threads=threads)[0]
        padding = ((0, 1),) * (x.ndim - 2)
        reduced = executor.downsample_forward(x, 2, padding, "zero", threads=threads)
        loss = executor.ssim_loss(x, y, p, need_y=True, threads=threads, **weights)
        return [values, similarity_map, gradient, reduced, *loss]

    one = results(1)
    for threads in (2, 3, 5):
        assert_same_bits(results(threads), one)


# --- Reduction by boxes ---------------------------------------------------------------------------

POOLINGS = [
    (2, ((0, 0), (0, 0)), "zero"), (2, ((1, 0), (0, 0)), "zero"),
    (2, ((1, 0), (1, 0)), "replicate"), (2, ((0, 1), (0, 1)), "symmetric"),
    (3, ((1, 2), (2, 1)), "symmetric"), (4, ((1, 2), (1, 3)), "symmetric"),
    (5, ((0, 0), (0, 0)), "zero"), (7, ((3, 3), (3, 3)), "zero"),
    (3, ((4, 5), (6, 3)), "replicate"), (2, ((0, 1), (1, 1), (0, 0)), "zero"),
    (2, ((0, 1), (0, 1), (0, 1)), "symmetric"), (3, ((1, 1), (0, 2), (2, 0)), "replicate"),
]  # fmt: skip
POOLED_SHAPES = [
    (2, 3, 7, 8), (1, 2, 16, 33), (1, 1, 61, 31), (1, 1, 3, 1037),
    (2, 1, 7, 9, 12), (1, 2, 8, 17, 31),
]  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("pooling", "shape"),
    [
        (pooling, shape)
        for pooling, shape in itertools.product(POOLINGS, POOLED_SHAPES)
        if len(pooling[1]) == len(shape) - 2
    ],
)
def test_downsample_and_its_adjoint(executor, pooling, shape, dtype) -> None:
    x = images(shape)[0]
    # A mean of up to 7^2 or 3^3 numbers in [0, 1], in the order of their rows: a few roundings.
    tolerance = 8 * float(np.finfo(dtype).eps)
    expected = reference.downsample_forward(x, *pooling)
    found = executor.downsample_forward(x.astype(dtype), *pooling)
    assert found.dtype == dtype
    assert_close(found, expected, tolerance)

    upstream = np.random.default_rng(5).uniform(-1, 1, expected.shape).astype(dtype)
    expected = reference.downsample_backward(upstream, shape, *pooling)
    found = executor.downsample_backward(upstream, shape, *pooling)
    assert found.dtype == dtype
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("layout", ["channels-last", "transposed", "cropped", "gaps", "expanded"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "bfloat16"])
def test_downsample_of_other_dtypes_and_strides(executor, dtype, layout) -> None:
    shape = (2, 3, 17, 22)
    image = torch.from_numpy(np.rint(255 * images(shape)[0])).to(getattr(torch, dtype))
    view = TORCH_LAYOUTS[layout](image)
    pooling = (2, ((0, 1), (0, 0)), "symmetric")
    expected = executor.downsample_forward(view.float().contiguous(), *pooling)
    assert torch.equal(executor.downsample_forward(view, *pooling), expected)


# --- Multi-scale index, through the public functions ----------------------------------------------

MULTI_SCALE = SSIMSpec(window_size=5, sigma=1.0, scale_weights=(0.2, 0.3, 0.5))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 3, 41, 46), (2, 2, 44, 27), (2, 1, 21, 23, 26)])
@pytest.mark.parametrize("channel_order", ["before", "after"])
@pytest.mark.parametrize("rectify", ["none", "relu", "simple"])
@pytest.mark.parametrize("pooling", ["floor", "zero", "replicate", "symmetric"])
def test_ms_ssim(executor, pooling, rectify, channel_order, shape, dtype) -> None:  # noqa: ARG001
    spec = MULTI_SCALE.replace(pooling=pooling, rectify=rectify, channel_order=channel_order)
    x, y = (image.copy() for image in images(shape))
    y[1] = 1.0 - x[1]  # negative at every scale
    dims = len(shape) - 2
    options = {"spec": spec, "data_range": 1.0, "spatial_dims": dims, "reduction": "none"}
    expected = reference.ms_ssim(x, y, spec, 1.0)
    arrays = [image.astype(dtype) for image in (x, y)]
    # Powers of means: as exact as those, but for a value of 1e-2 or so, which they bend upwards.
    tolerance = 10 * TOLERANCE[dtype].mean
    with np.errstate(invalid="ignore"):
        assert_close(sosie.ms_ssim(*arrays, **options), expected, tolerance)

    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    values = sosie.ms_ssim(*tensors, **options)
    assert_close(values.detach(), expected, max(tolerance, 1e-7 if dtype == "float32" else 0.0))
    upstream = np.array([1.3, 0.0 if rectify == "none" else -0.7])  # NaN passes NaN
    values[np.nonzero(upstream)[0]].backward(torch.from_numpy(upstream[upstream != 0.0]).to(values))
    gradients = reference.ms_ssim_gradient(x[: len(values)], y, spec, upstream, 1.0)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        for one, other, u in zip(tensor.grad.numpy(), gradient, upstream, strict=True):
            if u != 0.0:
                each = np.full(one.shape, u / one.size)
                assert_gradient(one, other, TOLERANCE[dtype], each)


def test_weights_set_the_number_of_scales(executor) -> None:  # noqa: ARG001
    x, y = images((1, 1, 61, 80))
    spec = ssim_spec("wang2003").replace(scale_weights=(0.4, 0.6))
    found = sosie.ms_ssim(x, y, data_range=1.0, weights=[0.4, 0.6])
    assert_close(found, reference.ms_ssim(x, y, spec, 1.0)[0], 1e-12)


# --- Public functions: shapes and reductions ------------------------------------------------------


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dims", [2, 3])
def test_reductions_and_axes(executor, dims, library) -> None:  # noqa: ARG001
    shape = (3, 2, 14, 12, 13)[: 2 + dims]
    x, y = images(shape)
    expected, similarity_map = reference.ssim_forward(x, y, SSIMSpec().resolve(shape[2:], 1.0))
    own = (lambda a: a) if library == "numpy" else (lambda a: torch.from_numpy(np.array(a)))

    def call(x: np.ndarray, y: np.ndarray, **options: Any) -> Any:
        return sosie.ssim(own(x), own(y), data_range=1.0, spatial_dims=dims, **options)

    reductions = {
        "mean": expected.mean(), "none": expected.mean(1), "sum": expected.mean(1).sum(),
        "channel": expected,
    }  # fmt: skip
    for reduction, value in reductions.items():
        assert_close(call(x, y, reduction=reduction), value, 1e-12)
    plane = expected[0, 0]
    assert_close(call(x[0, 0], y[0, 0]), plane, 1e-12)
    assert_close(call(x[0], y[0]), expected[0].mean(), 1e-12)
    assert_close(call(x[0], y[0], reduction="none"), expected[:1].mean(1), 1e-12)
    for channel_axis in range(1, dims + 1):
        moved = [np.moveaxis(image[0], 0, channel_axis) for image in (x, y)]
        value, found = call(*moved, channel_axis=channel_axis, return_map=True)
        assert_close(value, expected[0].mean(), 1e-12)
        assert_close(found, np.moveaxis(similarity_map[0], 0, channel_axis), 1e-12)
    moved = [np.moveaxis(image, 1, -1) for image in (x, y)]
    value, found = call(*moved, channel_axis=-1, return_map=True, reduction="channel")
    assert_close(value, expected, 1e-12)
    assert_close(found, np.moveaxis(similarity_map, 1, -1), 1e-12)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_masks_of_every_shape(executor, library) -> None:  # noqa: ARG001
    shape = (2, 3, 24, 31)
    x, y = images(shape)
    own = (lambda a: a) if library == "numpy" else (lambda a: torch.from_numpy(np.array(a)))
    p = SSIMSpec().resolve(shape[2:], 1.0)
    full = masks(shape)["scattered"]
    for mask in (full[0, 0], full[:1, :1], full[:, :1], full[:1], full):
        expected, _ = reference.ssim_forward(x, y, p, mask=mask)
        options = {"mask": own(mask), "data_range": 1.0, "reduction": "channel"}
        assert_close(sosie.ssim(own(x), own(y), **options), expected, 1e-12)
    expected, _ = reference.ssim_forward(x, y, p, mask=full[:, :1])
    moved = [own(np.moveaxis(image, 1, -1)) for image in (x, y, full[:, :1])]
    value = sosie.ssim(*moved[:2], mask=moved[2], data_range=1.0, channel_axis=-1)
    assert_close(value, expected.mean(), 1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integer_images_need_no_range(executor, dtype) -> None:  # noqa: ARG001
    peak = np.iinfo(dtype).max
    x, y = (np.rint(peak * image).astype(dtype) for image in images((1, 1, 33, 37)))
    expected = reference.ssim(x, y, ssim_spec("wang2004"), float(peak))
    assert_close(sosie.ssim(x, y, reduction="none"), expected, TOLERANCE["float32"].mean)


@pytest.mark.parametrize("name", ["wang2004-downsample", "piq"])
def test_large_images_are_reduced_first(executor, name) -> None:  # noqa: ARG001
    shape = (1, 2, 391, 398)
    x, y = images(shape)
    spec = ssim_spec(name)
    expected = reference.ssim(x, y, spec, 1.0)
    assert spec.downsampling(shape[2:]).factor == 2
    assert_close(sosie.ssim(x, y, spec=spec, data_range=1.0, reduction="none"), expected, 1e-12)
    tensors = [torch.from_numpy(image.copy()).requires_grad_() for image in (x, y)]
    sosie.ssim(*tensors, spec=spec, data_range=1.0).backward()
    for tensor, gradient in zip(
        tensors, reference.ssim_gradient(x, y, spec, np.ones(1), 1.0), strict=True
    ):
        each = np.full(shape, 4.0 / x.size)
        assert_gradient(tensor.grad.numpy(), gradient, TOLERANCE["float64"], each)


# --- The promises of accuracy ---------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def photographs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Crops of photographs in [0, 1] beside damaged ones, float32."""
    data = pytest.importorskip("skimage.data")
    from scipy import ndimage

    gray = data.camera()[150:246, 180:270][None, None] / np.float32(255)
    bright = data.camera()[20:100, 330:426][None, None] / np.float32(255)  # sky
    color = np.moveaxis(data.astronaut()[10:106, 170:260], -1, 0)[None] / np.float32(255)
    generator = np.random.default_rng(11)
    pairs = {}
    for name, image in {"gray": gray, "sky": bright, "color": color}.items():
        noise = generator.standard_normal(image.shape).astype(np.float32)
        damaged = {
            "noise": np.clip(image + 0.05 * noise, 0, 1),
            "slight": np.clip(image + 0.002 * noise, 0, 1),
            "blur": ndimage.gaussian_filter(image, (0, 0, 1.2, 1.2)),
            "faded": np.float32(0.85) * image + np.float32(0.1),
            "coarse": np.rint(image * 15) / np.float32(15),
        }
        pairs |= {f"{name}-{how}": (image, other) for how, other in damaged.items()}
    return pairs


@functools.lru_cache(maxsize=1024)
def expected_of_photograph(pair: str, p: SSIMParameters, kind: str) -> tuple[Any, ...]:
    x, y = photographs()[pair]
    gradients = reference.ssim_backward(x, y, p, np.ones(x.shape[:2]), kind=kind)
    return *reference.ssim_forward(x, y, p, kind=kind), gradients


@pytest.mark.parametrize("name", list_specs())
def test_float32_on_photographs(executor, name) -> None:
    # The tails of a Gaussian are small numbers, added with small errors. Of 49 equal weights every
    # addition rounds at the sum's own size: up to twice the error on whole photographs.
    maps = {"ssim": 6e-5 if name == "scikit-image" else TOLERANCE["float32"].map}
    # The factor lacks what brings the index down where it is worst, a luminance term below 1.
    maps["cs"] = max(5e-5, maps["ssim"])
    for pair, (x, y) in photographs().items():
        p = ssim_spec(name).resolve(x.shape[2:], 1.0)
        upstream = np.ones(x.shape[:2])
        for kind in ("ssim", "cs"):
            tolerance = TOLERANCE["float32"]._replace(map=maps[kind])
            values, similarity_map, gradients = expected_of_photograph(pair, p, kind)
            found = executor.ssim_forward(x, y, p, kind=kind, return_map=True)
            assert_close(found[0], values, tolerance.mean)
            assert_close(found[1], similarity_map, tolerance.map)
            found = executor.ssim_backward(x, y, p, upstream, kind=kind, need_y=True)
            for one, other in zip(found, gradients, strict=True):
                assert_gradient(one, other, tolerance, np.zeros(1))


# --- Where rounding shows most --------------------------------------------------------------------

NORMALISED = [
    *list_specs(), "gaussian-33", "uniform-15", "skewed", "replicate-17", "symmetric-5", "sample"
]  # fmt: skip


def _constant(value: float, like: np.ndarray) -> np.ndarray:
    return np.full(like.shape, value)


# Of what is damaged little or nothing: the name, and how the other image comes of it.
NEAR = {
    "itself": lambda x: x,
    "next-number": lambda x: np.nextafter(x.astype(np.float32), np.float32(2)).astype(float),
    "one-bit": lambda x: x + 2.0**-23,
    "offset": lambda x: x + 1e-4,
    "shift": lambda x: x + 0.1,
    "scale": lambda x: x * 1.001,
    "ripple": lambda x: x + 1e-5 * np.sin(np.arange(x.shape[-1])),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", NORMALISED)
def test_near_identical_images_never_exceed_one(executor, name, dtype) -> None:
    """Without any clamp, on noise, photographs and constants."""
    shape = (1, 1, 40, 48)
    changes = CONVENTIONS[name] | ({"name": name} if name in list_specs() else {})
    p = parameters_of(changes, shape)
    waves = images(shape)[0]
    photograph = photographs()["gray-noise"][0][..., :40, :48].astype(float)
    levels = [_constant(value, waves) for value in (0.0, 0.2, 1 / 3, 0.5, 1.0)]
    for x, near in itertools.product([waves, photograph, *levels], NEAR.values()):
        pair = [image.astype(dtype) for image in (x, near(x))]
        values, similarity_map = executor.ssim_forward(*pair, p, return_map=True)
        assert (similarity_map <= 1.0).all()  # False for NaN
        assert (values <= 1.0).all()
        for gradient in executor.ssim_backward(*pair, p, np.ones((1, 1)), need_y=True):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", [name for name in NORMALISED if not name.startswith("kornia")])
def test_an_image_is_like_itself(executor, name, dtype) -> None:
    """1, and no gradient; kornia's epsilon in the denominator takes a little."""
    shape = (1, 2, 40, 48)
    peak = 1.0 if "float" in dtype else float(np.iinfo(dtype).max)
    changes = CONVENTIONS[name] | ({"name": name} if name in list_specs() else {})
    p = convention(changes).resolve(shape[2:], peak)
    x = (peak * images(shape)[0]).astype(dtype)
    values, similarity_map = executor.ssim_forward(x, x, p, return_map=True)
    # A division rounds once, and so does the mean.
    tolerance = float(np.finfo(similarity_map.dtype).eps)
    assert np.abs(similarity_map - 1.0).max() <= tolerance
    assert np.abs(values - 1.0).max() <= tolerance
    largest = max(np.abs(g).max() for g in executor.ssim_backward(x, x, p, values, need_y=True))
    # dS/dx is at most about 1 / sqrt(C2), here per position of a mean over all.
    assert largest <= 1e-6 / math.sqrt(p.c2)


@pytest.mark.parametrize(("a", "b"), [*itertools.product((0.0, 0.25, 0.6, 1.0), repeat=2)])
@pytest.mark.parametrize("name", ["wang2004", "scikit-image", "kornia", "torchmetrics"])
def test_constant_images_compare_by_luminance_alone(executor, name, a, b) -> None:
    shape = (1, 1, 24, 31)
    p = parameters_of({"name": name}, shape)
    expected = (2 * a * b + p.c1) * p.c2 / ((a * a + b * b + p.c1) * p.c2 + p.epsilon)
    for dtype in TOLERANCE:
        x, y = (np.full(shape, value, dtype) for value in (a, b))
        # Each variance is a few roundings of (a - b)^2 or (a + b - 1)^2 instead of 0, over C2.
        tolerance = float(np.finfo(dtype).eps) / p.c2
        assert_close(executor.ssim_forward(x, y, p)[0], np.full((1, 1), expected), tolerance)


# --- NaN and infinities ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(3, 2, 33, 70), (2, 2, 9, 12, 17)])
def test_bad_pixels_stay_in_their_image(executor, shape, bad, dtype) -> None:
    """Other planes keep every bit; in their own plane they reach the windows that hold them."""
    p = SSIMSpec(window_size=5, border="reflect").resolve(shape[2:], 1.0)
    x, y = (image.astype(dtype) for image in images(shape))
    good = run_all(executor, x, y, p)
    place = tuple(size // 2 for size in shape[2:])
    x[(1, 0, *place)] = bad
    found = run_all(executor, x, y, p)
    clean = np.ones(shape[:2], dtype=bool)
    clean[1, 0] = False
    for one, other in zip(found, good, strict=True):
        np.testing.assert_array_equal(one[clean], other[clean])
    for i in (0, 6, 7):  # the means; an infinite difference has an infinite mean
        assert not np.isfinite(found[i][1, 0])
    reached = np.zeros(shape[2:], dtype=bool)
    reached[tuple(slice(at - 2, at + 3) for at in place)] = True
    np.testing.assert_array_equal(np.isnan(found[1][1, 0]), reached)
    gradient = executor.ssim_backward(x, y, p, np.ones(shape[:2]))[0]
    reached[tuple(slice(at - 4, at + 5) for at in place)] = True
    np.testing.assert_array_equal(np.isnan(gradient[1, 0]), reached)


# --- Bad input ------------------------------------------------------------------------------------


def _image(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.ones(shape, dtype)


X = _image(1, 3, 32, 40)
BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "shapes": ({"y": X[..., :39]}, ValueError, r"\(1, 3, 32, 40\) and \(1, 3, 32, 39\)"),
    "dtypes": ({"y": X.astype(np.float64)}, TypeError, "float32 and float64"),
    "libraries": ({"y": torch.ones(1, 3, 32, 40)}, TypeError, "numpy.ndarray and torch.Tensor"),
    "list": ({"x": [[0.0]], "y": [[0.0]]}, TypeError, "builtins.list"),
    "complex": ({"dtype": "complex64"}, TypeError, "complex64"),
    "object": ({"dtype": "object"}, TypeError, "object"),
    "bool": ({"dtype": "bool"}, TypeError, "bool"),
    "int64": ({"dtype": "int64"}, TypeError, "int64"),
    "empty": ({"x": X[..., :0], "y": X[..., :0]}, ValueError, r"\(1, 3, 32, 0\)"),
    "no-images": ({"x": X[:0], "y": X[:0]}, ValueError, r"\(0, 3, 32, 40\)"),
    "one-axis": ({"x": X[0, 0, 0], "y": X[0, 0, 0]}, ValueError, r"\(40,\)"),
    "five-axes": ({"x": X[None], "y": X[None]}, ValueError, r"\(1, 1, 3, 32, 40\)"),
    "no-range": ({"data_range": None}, ValueError, "data_range.*None"),
    "negative-range": ({"data_range": -1.0}, ValueError, r"-1\.0"),
    "zero-range": ({"data_range": 0}, ValueError, "got 0"),
    "nan-range": ({"data_range": math.nan}, ValueError, "nan"),
    "text-range": ({"data_range": "255"}, TypeError, "'255'"),
    "unknown-spec": ({"spec": "scikit-imag"}, ValueError, "'scikit-imag'.*'scikit-image'"),
    "unknown-field": ({"sigmas": 2.0}, TypeError, "'sigmas'.*'sigma'"),
    "window-too-large": ({"window_size": 33}, ValueError, r"33 x 33.*\(32, 40\)"),
    "even-window": ({"window_size": 10}, ValueError, "10"),
    "negative-window": ({"window_size": -3}, ValueError, "-3"),
    "huge-window": ({"window_size": 35}, ValueError, "33.*35"),
    "negative-sigma": ({"sigma": -1.5}, ValueError, r"-1\.5"),
    "unknown-border": ({"border": "wrap"}, ValueError, "'wrap'"),
    "reflect-too-far": (
        {"x": X[..., :5], "y": X[..., :5], "border": "reflect"}, ValueError, r"\(32, 5\)"
    ),
    "reduction": ({"reduction": "median"}, ValueError, "'mean'.*'median'"),
    "spatial-dims": ({"spatial_dims": 4}, ValueError, "got 4"),
    "channel-axis": ({"channel_axis": 4}, ValueError, "4 axes, got 4"),
    "mask-dtype": ({"mask": X}, TypeError, "float32"),
    "mask-library": ({"mask": torch.ones(32, 40, dtype=torch.bool)}, TypeError, "torch.Tensor"),
    "mask-plane": ({"mask": _image(40, 32, dtype="bool")}, ValueError, r"\(32, 40\).*\(40, 32\)"),
    "mask-shape": ({"mask": _image(1, 2, 32, 40, dtype="bool")}, ValueError, r"\(1, 2, 32, 40\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments_are_named(executor, name) -> None:  # noqa: ARG001
    changes, error, message = BAD_CALLS[name]
    arguments = {"x": X, "y": X, "data_range": 1.0, **changes}
    dtype = arguments.pop("dtype", None)
    if dtype is not None:
        arguments["x"] = arguments["y"] = X.astype(dtype)
    with pytest.raises(error, match=message):
        sosie.ssim(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_bad_arguments_of_the_multi_scale_index_are_named(executor) -> None:  # noqa: ARG001
    large = _image(1, 1, 176, 180)
    with pytest.raises(ValueError, match=r"11 x 11.*\(160, 180\)"):
        sosie.ms_ssim(large[..., :160, :], large[..., :160, :], data_range=1.0)
    with pytest.raises(ValueError, match="scale_weights"):
        sosie.ms_ssim(large, large, data_range=1.0, spec="kornia")
    with pytest.raises(ValueError, match="'channel'"):
        sosie.ms_ssim(large, large, data_range=1.0, reduction="channel")
    with pytest.raises(ValueError, match=r"-0\.5"):
        sosie.ms_ssim(large, large, data_range=1.0, weights=[1.0, -0.5])
    with pytest.raises(ValueError, match="data_range"):
        sosie.ms_ssim(large, large)


def test_no_mask_where_images_are_reduced_first(executor) -> None:  # noqa: ARG001
    image, mask = _image(400, 400), _image(400, 400, dtype="bool")
    with pytest.raises(ValueError, match="by 2"):
        sosie.ssim(image, image, data_range=1.0, spec="piq", mask=mask)


# --- Anything else --------------------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn) -> tuple[SSIMSpec, tuple[int, ...], str, str, bool, int]:
    """A spec, a shape that it fits, a kind, a dtype, whether there is a mask, a seed."""
    dims = draw(st.sampled_from([2, 2, 3]))
    limit = 40 if dims == 2 else 14
    size = st.sampled_from([1, 3, 5, 7, 9, 11])
    border = draw(st.sampled_from(["valid", "zero", "reflect", "symmetric", "replicate"]))
    sizes = draw(st.tuples(*[size] * dims))
    crop = draw(st.sampled_from([0, 0, 1, 3, "window"]))
    seed = draw(st.integers(0, 2**31))
    window = draw(st.sampled_from(["gaussian", "uniform", "custom"]))
    changes: dict[str, Any] = {"window": window, "window_size": sizes}
    if window == "custom":
        weights = np.random.default_rng(seed)
        # Sums below 1: above it a variance can be negative, and the index has poles.
        changes["taps"] = [weights.uniform(0.1, 1.0, size) / size for size in sizes]
    else:
        changes["sigma"] = draw(st.floats(0.5, 4.0))
    least = [max(size, size // 2 + 1) + (2 * crop if crop != "window" else 0) for size in sizes]
    shape = tuple(draw(st.integers(low, max(low, limit))) for low in least)
    spec = SSIMSpec(
        **changes,
        border=border,
        crop=crop,
        stride=draw(st.sampled_from([1, 1, 2, 3])),
        covariance=draw(
            st.sampled_from(["population", "sample"] if max(sizes) > 1 else ["population"])
        ),
        epsilon=draw(st.sampled_from([0.0, 1e-6])),
        k2=draw(st.floats(0.02, 0.3)),
    )
    count, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["ssim", "cs"]))
    return (
        spec,
        (count, channels, *shape),
        kind,
        draw(st.sampled_from(list(TOLERANCE))),
        draw(st.booleans()),
        seed,
    )


@settings(max_examples=120, deadline=None, derandomize=True)
@given(problem=problems())
def test_random_problems(executor, problem) -> None:
    spec, shape, kind, dtype, masked, seed = problem
    p = spec.resolve(shape[2:], 1.0)
    generator = np.random.default_rng(seed)
    mask = generator.random(shape) < 0.7 if masked else None
    moves = [generator.permutation(np.arange(len(shape))) for _ in range(2)]
    x, y = (
        image.astype(dtype).transpose(move).copy().transpose(np.argsort(move))
        for image, move in zip(images(shape, seed % 1000), moves, strict=True)
    )
    expected = define(x.astype(float), y.astype(float), p, kind, mask)
    # Two pixels of a window under a mask have hardly a variance: see `tolerance_under`. Windows
    # here go down to three pixels, whose variances lose more digits than those that are in use.
    check_all(
        executor, x, y, p, kind, expected, TOLERANCE[dtype].times(10.0 if masked else 2.0), mask
    )


# --- Numba's own ----------------------------------------------------------------------------------


def test_numba_compiles_each_kernel_once_per_precision() -> None:
    """Whatever dtypes, strides, masks and dimensions come."""
    pytest.importorskip("numba")
    from sosie.backends import numba
    from sosie.backends.numba import _ssim_kernels

    mask = masks((2, 1, 16, 18))["hole"]
    for shape, dtype in itertools.product([(2, 1, 16, 18), (1, 2, 5, 16, 7)], DTYPES):
        p = SSIMSpec(window_size=5, border="zero").resolve(shape[2:], 255.0)
        x, y = (np.asfortranarray(np.rint(255 * image).astype(dtype)) for image in images(shape))
        run_all(numba, x, y, p, mask if len(shape) == 4 else None)
    assert len(_ssim_kernels.forward_tile.signatures) == 2
    assert len(_ssim_kernels.backward_tile.signatures) == 2


def test_numba_kernels_need_no_folder_to_be_kept_in(run_python) -> None:
    pytest.importorskip("numba")
    run_python(
        "from numba.core import caching\n"
        "caching.CompileResultCacheImpl._locator_classes = []\n"
        "import sosie.backends.numba\n"
        "from sosie.backends.numba._ssim_kernels import forward_tile\n"
        "assert forward_tile._cache.cache_path is None"
    )
