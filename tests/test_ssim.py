# SPDX-License-Identifier: Apache-2.0
"""Every executor of the SSIM family against the float64 definition: values, maps, gradients.

The executors are the compiled kernels, once for each instruction set this machine runs, and the
Numba kernels.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie.reference import ssim as reference
from sosie.spec import SSIMSpec
from ssim_cases import (
    CONVENTIONS,
    DTYPES,
    LARGE,
    LARGE_SHAPES,
    MASKABLE,
    SHAPES,
    TOLERANCE,
    TORCH_LAYOUTS,
    VOLUME_CONVENTIONS,
    VOLUME_SHAPES,
    Expected,
    Tolerance,
    assert_close,
    assert_gradient,
    cases,
    check_all,
    define,
    expected_of,
    images,
    masks,
    parameters_of,
    poisoned,
    run_all,
)

torch = pytest.importorskip("torch")


# --- Values, maps and gradients -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "shape"), cases(CONVENTIONS, SHAPES))
def test_images(optimised, name, shape, dtype) -> None:
    p = parameters_of(CONVENTIONS[name], shape)
    x, y = (image.astype(dtype) for image in images(shape))
    for kind in ("ssim", "cs"):
        check_all(optimised, x, y, p, kind, expected_of(p, shape, kind), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("name", "shape"), cases({name: CONVENTIONS[name] for name in LARGE}, LARGE_SHAPES)
)
def test_images_of_several_tasks(optimised, name, shape, dtype) -> None:
    p = parameters_of(CONVENTIONS[name], shape)
    x, y = (image.astype(dtype) for image in images(shape))
    check_all(optimised, x, y, p, "ssim", expected_of(p, shape, "ssim"), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "shape"), cases(VOLUME_CONVENTIONS, VOLUME_SHAPES))
def test_volumes(optimised, name, shape, dtype) -> None:
    p = parameters_of(VOLUME_CONVENTIONS[name], shape)
    x, y = (image.astype(dtype) for image in images(shape))
    for kind in ("ssim", "cs"):
        check_all(optimised, x, y, p, kind, expected_of(p, shape, kind), TOLERANCE[dtype])


# --- Masks ----------------------------------------------------------------------------------------


MASKED = [
    "wang2004", "scikit-image", "gaussian-3", "uniform-15", "reflect-5", "replicate-17",
    "symmetric-5", "skewed-zero", "skewed-reflect", "even-stride", "stride-reflect", "crop",
    "sample", "clamp-value", "clamp-variance", "hollow",
]  # fmt: skip


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
def test_mask(optimised, name, mask, dtype) -> None:
    shape = (2, 2, 39, 28)
    p = parameters_of(MASKABLE[name], shape)
    valid = masks(shape)[mask]
    x, y = (poisoned(image.astype(dtype), valid) for image in images(shape))
    for kind in ("ssim", "cs"):
        expected = expected_under_mask(name, shape, kind, mask)
        check_all(optimised, x, y, p, kind, expected, tolerance_under(mask, dtype), valid)
        for gradient in optimised.ssim_backward(
            x, y, p, expected.map_upstream, mask=valid, kind=kind, need_y=True
        ):
            assert not gradient[~np.broadcast_to(valid, shape)].any()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mask", masks((1, 1, 4, 4, 4)))
@pytest.mark.parametrize("name", ["valid", "reflect", "skewed", "even-stride"])
def test_mask_of_volumes(optimised, name, mask, dtype) -> None:
    shape = (2, 1, 9, 12, 17)
    p = parameters_of(VOLUME_CONVENTIONS[name], shape)
    valid = masks(shape)[mask]
    x, y = (poisoned(image.astype(dtype), valid) for image in images(shape))
    expected = define(*images(shape), p, "ssim", valid)
    check_all(optimised, x, y, p, "ssim", expected, tolerance_under(mask, dtype), valid)


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
def test_loss(optimised, name, shape, mask, dtype) -> None:
    changes = VOLUME_CONVENTIONS[name] if len(shape) == 5 else MASKABLE[name]
    p = parameters_of(changes, shape)
    x, y = (image.copy() for image in images(shape))
    y[..., ::3] = x[..., ::3]  # where the absolute difference has no slope
    valid = None if mask is None else masks(shape)[mask]
    weights = {"ssim_weight": 0.85, "l1_weight": 0.15}
    expected = reference.ssim_loss(x, y, p, mask=valid, **weights)
    positions = define(*images(shape), p, "ssim", valid).counted.sum(axis=tuple(range(2, x.ndim)))
    x, y = x.astype(dtype), y.astype(dtype)
    found = optimised.ssim_loss(x, y, p, mask=valid, need_y=True, **weights)
    tolerance = tolerance_under(mask, dtype)
    for i in range(2):
        assert_close(found[i], expected[i], tolerance.mean_over(positions))
    each = np.ones(shape) / max(positions.min(), 1.0) / positions.size
    for i in range(2, 4):
        assert_gradient(found[i], expected[i], tolerance, each)


@pytest.mark.parametrize("shape", [(1, 2, 40, 33), (1, 1, 9, 12, 17)])
def test_one_gradient_is_that_of_both(optimised, shape) -> None:
    p = parameters_of({"window_size": 5, "border": "reflect"}, shape)
    x, y = images(shape)
    upstream = np.ones(shape[:2])
    loss = {"ssim_weight": 0.8, "l1_weight": 0.3}
    both = optimised.ssim_backward(x, y, p, upstream, need_y=True)
    both_of_loss = optimised.ssim_loss(x, y, p, need_y=True, **loss)
    for need_x, need_y in ((True, False), (False, True)):
        needs = {"need_x": need_x, "need_y": need_y}
        pairs = [
            (optimised.ssim_backward(x, y, p, upstream, **needs), both),
            (optimised.ssim_loss(x, y, p, **loss, **needs), both_of_loss),
        ]
        for found, expected in pairs:
            for one, other, needed in zip(found[-2:], expected[-2:], (need_x, need_y), strict=True):
                assert (one is not None) == needed
                if needed:
                    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-16)


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
def test_downsample_and_its_adjoint(optimised, pooling, shape, dtype) -> None:
    x = images(shape)[0]
    # A mean of up to 7^2 or 3^3 numbers in [0, 1], in the order of their rows: a few roundings.
    tolerance = 8 * float(np.finfo(dtype).eps)
    expected = reference.downsample_forward(x, *pooling)
    found = optimised.downsample_forward(x.astype(dtype), *pooling)
    assert found.dtype == dtype
    assert_close(found, expected, tolerance)

    upstream = np.random.default_rng(5).uniform(-1, 1, expected.shape).astype(dtype)
    expected = reference.downsample_backward(upstream, shape, *pooling)
    found = optimised.downsample_backward(upstream, shape, *pooling)
    assert found.dtype == dtype
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("layout", ["channels-last", "transposed", "cropped", "gaps", "expanded"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "bfloat16"])
def test_downsample_of_other_dtypes_and_strides(optimised, dtype, layout) -> None:
    shape = (2, 3, 17, 22)
    image = torch.from_numpy(np.rint(255 * images(shape)[0])).to(getattr(torch, dtype))
    view = TORCH_LAYOUTS[layout](image)
    pooling = (2, ((0, 1), (0, 0)), "symmetric")
    expected = optimised.downsample_forward(view.float().contiguous(), *pooling)
    assert torch.equal(optimised.downsample_forward(view, *pooling), expected)


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
def test_random_problems(optimised, problem) -> None:
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
        optimised, x, y, p, kind, expected, TOLERANCE[dtype].times(10.0 if masked else 2.0), mask
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
