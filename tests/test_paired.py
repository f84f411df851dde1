# SPDX-License-Identifier: Apache-2.0
"""Paired rows by every executor against the float64 definition, and against peers' functions."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.spatial import distance as scipy_distance

import sosie
from executors import EXECUTORS, computing_by
from paired_cases import BROADCAST, GRADIENT, TOLERANCE, Rows, assert_near, name_of, noise
from sosie.paired import _norms
from sosie.reference import paired as reference

torch = pytest.importorskip("torch")

Array = Any


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module of an executor, which public functions use too meanwhile."""
    with computing_by(request.param) as module:
        yield module


# Vectors have 2 to 16 lanes; a row's sums are folded every 64 vectors; blocks of neighbouring rows
# have 512; rows of more than 65536 elements are cut.
ALONG = [Rows((3, n), (3, n), 1) for n in (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 257, 1029)]
ACROSS = [Rows((d, n), (d, n), 0) for d, n in ((1, 1), (3, 9), (4, 17), (5, 31), (9, 8), (2, 1031))]
INSIDE = [Rows((2, 3, 7, 9), (2, 3, 7, 9), 1), Rows((3, 5, 2), (3, 5, 2), 1)]
SINGLE = [Rows((n,), (n,), 0) for n in (1, 13, 200_003)]
LONG = [Rows((2, 140_001), (2, 140_001), 1), Rows((30_011, 18), (30_011, 18), 0)]
CASES = [*ALONG, *ACROSS, *INSIDE, *SINGLE, *LONG, *BROADCAST]


# --- Values and gradients against the definition --------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", CASES, ids=name_of)
def test_executor_equals_the_definition(executor: Any, rows: Rows, dtype: str) -> None:
    x, y = noise(rows.x, 0, dtype), noise(rows.y, 1, dtype)
    axis = rows.axis
    value = executor.euclidean_forward(x, y, axis)
    assert value.dtype == dtype
    np.testing.assert_allclose(
        value, reference.euclidean_forward(x, y, axis), rtol=TOLERANCE[dtype], atol=0
    )
    upstream = noise(value.shape, 2, dtype)
    expected = reference.euclidean_backward(x, y, upstream, axis)
    for actual, gradient in zip(
        executor.euclidean_backward(x, y, value, upstream, axis), expected, strict=True
    ):
        assert actual.dtype == dtype
        assert_near(actual, gradient, GRADIENT[dtype])

    norms = _norms(1e-8, "torch", dtype)
    results = executor.cosine_forward(x, y, axis, *norms, return_norms=True)
    for actual, number in zip(results, reference.cosine_forward(x, y, axis, *norms), strict=True):
        # |x y| <= |x| |y|: the error of a similarity is relative to 1.
        np.testing.assert_allclose(actual, number, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    expected = reference.cosine_backward(x, y, upstream, axis, *norms)
    # Numbers have no angle: their gradients are differences of equal terms, of this size.
    scale = float(1.0 / min(abs(x).min(), abs(y).min())) if x.shape[axis] == 1 else 0.0
    for actual, gradient in zip(
        executor.cosine_backward(x, y, *results, upstream, axis, *norms), expected, strict=True
    ):
        assert_near(actual, gradient, GRADIENT[dtype], scale)


@pytest.mark.parametrize("rows", [ALONG[6], ACROSS[3], BROADCAST[1], BROADCAST[5]], ids=name_of)
@pytest.mark.parametrize("needed", [(True, False), (False, True)])
def test_only_the_gradient_that_is_needed(
    executor: Any, rows: Rows, needed: tuple[bool, bool]
) -> None:
    x, y, axis = noise(rows.x, 0), noise(rows.y, 1), rows.axis
    value = executor.euclidean_forward(x, y, axis)
    upstream = noise(value.shape, 2)
    both = executor.euclidean_backward(x, y, value, upstream, axis)
    one = executor.euclidean_backward(
        x, y, value, upstream, axis, need_x=needed[0], need_y=needed[1]
    )
    for alone, beside, need in zip(one, both, needed, strict=True):
        assert np.array_equal(alone, beside) if need else alone is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
@pytest.mark.parametrize("rows", [ALONG[7], ALONG[-1], ACROSS[3], BROADCAST[3]], ids=name_of)
def test_narrow_dtypes(executor: Any, rows: Rows, dtype: str) -> None:
    x, y, axis = noise(rows.x, 0, dtype), noise(rows.y, 1, dtype), rows.axis
    value = executor.euclidean_forward(x, y, axis)
    assert value.dtype == np.float32
    expected = reference.euclidean_forward(x, y, axis)
    np.testing.assert_allclose(value, expected, rtol=TOLERANCE["float32"], atol=0)
    upstream = noise(value.shape, 2, "float32")
    gradients = executor.euclidean_backward(x, y, value, upstream, axis)
    for actual, gradient in zip(
        gradients, reference.euclidean_backward(x, y, upstream, axis), strict=True
    ):
        assert actual.dtype == ("float16" if dtype == "float16" else "float32")
        # A half has 11 digits.
        assert_near(actual, gradient, 2**-11 if dtype == "float16" else GRADIENT["float32"])


@pytest.mark.parametrize("shape", [(7, 40), (40, 7), (530, 9)])
def test_bfloat16(executor: Any, shape: tuple[int, ...]) -> None:
    x, y = (torch.from_numpy(noise(shape, seed)).bfloat16() for seed in (0, 1))
    value = executor.cosine_forward(x, y, 1, 0.0, 0.0)[0]
    expected = reference.cosine_forward(x.float().numpy(), y.float().numpy(), 1, 0.0, 0.0)[0]
    np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=TOLERANCE["float32"])


def strided(values: Array) -> Array:
    spread = np.zeros(tuple(2 * size for size in values.shape), values.dtype)
    spread[(slice(None, None, 2),) * values.ndim] = values
    return spread[(slice(None, None, 2),) * values.ndim]


LAYOUTS = {
    "columns first": np.asfortranarray,
    "strided": strided,
    "flipped": lambda values: np.ascontiguousarray(np.flip(values)),
    "swapped bytes": lambda values: values.astype(values.dtype.newbyteorder()),
    "read-only": lambda values: np.broadcast_to(values, values.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_strides(executor: Any, layout: str, axis: int) -> None:
    x, y = noise((9, 17, 34), 0, "float32"), noise((9, 17, 34), 1, "float32")
    other = LAYOUTS[layout](x)
    if layout == "flipped":
        other = np.flip(other)
    before = other.copy()
    value = executor.euclidean_forward(other, y, axis)
    expected = reference.euclidean_forward(x, y, axis)
    np.testing.assert_allclose(value, expected, rtol=TOLERANCE["float32"], atol=0)
    upstream = noise(value.shape, 2, "float32")
    gradients = executor.euclidean_backward(other, y, value, upstream, axis)
    for actual, gradient in zip(
        gradients, reference.euclidean_backward(x, y, upstream, axis), strict=True
    ):
        assert_near(actual, gradient, GRADIENT["float32"])
    assert np.array_equal(other, before)


# --- Numbers that need care -----------------------------------------------------------------------


@pytest.mark.parametrize("length", [100, 10_007, 1_000_003])
def test_error_does_not_grow_with_the_length(executor: Any, length: int) -> None:
    # All terms of one sign and alike: nothing averages out but rounding.
    x = (1000.0 + noise((1, length), 0)).astype(np.float32)
    y = (1000.1 + noise((1, length), 1)).astype(np.float32)
    value = executor.euclidean_forward(x, y, 1)
    np.testing.assert_allclose(value, reference.euclidean_forward(x, y, 1), rtol=1e-6, atol=0)
    value = executor.cosine_forward(x, y, 1, 0.0, 0.0)[0]
    expected = reference.cosine_forward(x, y, 1, 0.0, 0.0)[0]
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=0)


def test_near_rows_keep_their_digits(executor: Any) -> None:
    x = noise((50, 40), 0, "float32")
    y = x + 1e-4 * noise((50, 40), 1, "float32")
    value = executor.euclidean_forward(x, y, 1)
    np.testing.assert_allclose(value, reference.euclidean_forward(x, y, 1), rtol=1e-6, atol=0)
    upstream = np.ones(50, np.float32)
    expected = reference.euclidean_backward(x, y, upstream, 1)
    for actual, gradient in zip(
        executor.euclidean_backward(x, y, value, upstream, 1), expected, strict=True
    ):
        assert_near(actual, gradient, GRADIENT["float32"])


def test_coinciding_rows(executor: Any) -> None:
    x = noise((6, 20), 0, "float32")
    y = x.copy()
    y[3] += 1.0
    value = executor.euclidean_forward(x, y, 1)
    assert np.array_equal(value == 0.0, np.arange(6) != 3)
    gradients = executor.euclidean_backward(x, y, value, np.ones(6, np.float32), 1)
    for gradient in gradients:
        assert (gradient[np.arange(6) != 3] == 0.0).all()
        assert (gradient[3] != 0.0).all()
    assert (executor.cosine_forward(x, x, 1, 0.0, 0.0)[0] == 1.0).all()


@pytest.mark.parametrize("shape", [(9, 20), (20, 9)], ids=["along", "across"])
@pytest.mark.parametrize("zero", ["torch", "scipy", "scikit-learn"])
def test_zero_rows(executor: Any, zero: str, shape: tuple[int, int]) -> None:
    axis = shape.index(20)
    x, y = noise(shape, 0), noise(shape, 1)
    np.moveaxis(x, axis, -1)[2] = 0.0
    np.moveaxis(y, axis, -1)[5] = 1e-9
    norms = _norms(1e-8, zero, "float64")
    results = executor.cosine_forward(x, y, axis, *norms, return_norms=True)
    expected = reference.cosine_forward(x, y, axis, *norms)
    np.testing.assert_allclose(results[0], expected[0], rtol=0, atol=1e-14)
    assert np.isnan(results[0][2]) if zero == "scipy" else results[0][2] == 0.0
    upstream = noise((9,), 2)
    for actual, gradient in zip(
        executor.cosine_backward(x, y, *results, upstream, axis, *norms),
        reference.cosine_backward(x, y, upstream, axis, *norms),
        strict=True,
    ):
        # Row by row: those that are divided by 1e-8 are larger than the others by as much.
        for row in range(9):
            assert_near(
                np.moveaxis(actual, axis, -1)[row], np.moveaxis(gradient, axis, -1)[row], 1e-12
            )


@pytest.mark.parametrize("shape", [(9, 20), (20, 9)], ids=["along", "across"])
def test_nan_stays_in_its_row(executor: Any, shape: tuple[int, int]) -> None:
    axis = shape.index(20)
    x, y = noise(shape, 0, "float32"), noise(shape, 1, "float32")
    upstream = noise((9,), 2, "float32")

    def everything() -> list[Array]:
        norms = _norms(1e-8, "torch", "float32")
        distance = executor.euclidean_forward(x, y, axis)
        cosine = executor.cosine_forward(x, y, axis, *norms, return_norms=True)
        gradients = [
            *executor.euclidean_backward(x, y, distance, upstream, axis),
            *executor.cosine_backward(x, y, *cosine, upstream, axis, *norms),
        ]
        return [distance, cosine[0], *(np.moveaxis(g, axis, 1) for g in gradients)]

    clean = everything()
    np.moveaxis(x, axis, -1)[4, 7] = np.nan
    others = np.arange(9) != 4
    for before, after in zip(clean, everything(), strict=True):
        assert np.array_equal(before[others], after[others])
        assert np.isnan(after[4]).any()


@pytest.mark.parametrize("rows", [Rows((0, 5), (1, 5), 1), Rows((3, 0), (3, 0), 1)], ids=name_of)
def test_nothing_to_add_up(executor: Any, rows: Rows) -> None:
    x, y = np.ones(rows.x, np.float32), np.ones(rows.y, np.float32)
    value = executor.euclidean_forward(x, y, 1)
    assert np.array_equal(value, np.zeros(rows.x[:1]))
    for gradient, array in zip(
        executor.euclidean_backward(x, y, value, value, 1), (x, y), strict=True
    ):
        assert np.array_equal(gradient, np.zeros(array.shape))


@pytest.mark.parametrize("rows", [*LONG, SINGLE[-1], *BROADCAST], ids=name_of)
def test_bits_do_not_depend_on_the_number_of_threads(executor: Any, rows: Rows) -> None:
    x, y, axis = noise(rows.x, 0, "float32"), noise(rows.y, 1, "float32"), rows.axis
    seen = set()
    for threads in (1, 2, 3):
        value = executor.euclidean_forward(x, y, axis, threads=threads)
        gradients = executor.euclidean_backward(x, y, value, value, axis, threads=threads)
        seen.add(b"".join(array.tobytes() for array in (value, *gradients)))
    assert len(seen) == 1


# --- Public functions, and peers ------------------------------------------------------------------


def test_scipy() -> None:
    x, y = noise((6, 11), 0), noise((6, 11), 1)
    x[2] = 0.0
    expected = [scipy_distance.euclidean(*pair) for pair in zip(x, y, strict=True)]
    np.testing.assert_allclose(sosie.euclidean_distance(x, y), expected, rtol=1e-14)
    with np.errstate(invalid="ignore"):
        expected = [1 - scipy_distance.cosine(*pair) for pair in zip(x, y, strict=True)]
    actual = sosie.cosine_similarity(x, y, zero="scipy")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)
    assert np.isnan(actual[2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scikit_learn(dtype: str) -> None:
    def normalize(x: Array) -> Array:
        norms = np.sqrt(np.einsum("ij,ij->i", x, x))
        norms[norms < 10 * np.finfo(norms.dtype).eps] = 1.0
        return x / norms[:, None]

    x, y = noise((6, 11), 0, dtype), noise((6, 11), 1, dtype)
    x[2], x[3] = 0.0, 1e-17
    expected = np.diag(normalize(x) @ normalize(y).T)
    actual = sosie.cosine_similarity(x, y, zero="scikit-learn")
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("shape", "axis"), [((5, 7), 1), ((5, 7), 0), ((2, 3, 5, 6), 1)])
def test_torch_functions(shape: tuple[int, ...], axis: int) -> None:
    x, y = noise(shape, 0), noise(shape, 1)
    np.moveaxis(x, axis, -1)[1] = 0.0
    expected = torch.nn.functional.cosine_similarity(
        torch.from_numpy(x), torch.from_numpy(y), dim=axis, eps=0.25
    )
    actual = sosie.cosine_similarity(x, y, axis=axis, eps=0.25)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)
    expected = torch.linalg.vector_norm(torch.from_numpy(x - y), dim=axis)
    np.testing.assert_allclose(sosie.euclidean_distance(x, y, axis=axis), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "axis"),
    [
        ((4, 5), (5,), -1), ((5,), (4, 5), 0), ((4, 5), (), 1), ((3, 1, 5), (4, 1), 2),
        ((3, 1, 5), (4, 1), -2), ((6,), (6,), -1),
    ],
)  # fmt: skip
def test_shapes_broadcast_as_in_numpy(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...], axis: int
) -> None:
    x, y = noise(x_shape, 0), np.asarray(noise(y_shape, 1))
    wide = np.broadcast_arrays(x, y)
    distance = sosie.euclidean_distance(x, y, axis=axis)
    np.testing.assert_allclose(distance, np.linalg.norm(wide[0] - wide[1], axis=axis), rtol=1e-13)
    cosine = sosie.cosine_similarity(x, y, axis=axis)
    expected = (wide[0] * wide[1]).sum(axis) / np.prod(
        [np.linalg.norm(each, axis=axis) for each in wide], axis=0
    )
    np.testing.assert_allclose(cosine, expected, rtol=0, atol=1e-14)
    assert np.shape(distance) == np.shape(cosine) == np.shape(expected)


ROWS = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ROWS, ROWS[:, :3]), ValueError, r"shapes that broadcast, got \(3, 4\) and \(3, 3\)"),
        ((ROWS, ROWS.astype(np.float64)), TypeError, "equal dtype, got float32 and float64"),
        ((ROWS, torch.zeros(3, 4)), TypeError, "one array library"),
        ((ROWS.astype(np.int32),) * 2, TypeError, "dtype uint8, .*, got int32"),
        (([1.0], [2.0]), TypeError, "torch tensors or CuPy arrays, got builtins.list"),
    ],
)
@pytest.mark.parametrize("function", [sosie.euclidean_distance, sosie.cosine_similarity])
def test_what_is_refused(function: Any, arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        function(*arguments)


@pytest.mark.parametrize("axis", [2, -3])
def test_axes_that_are_missing_are_refused(axis: int) -> None:
    with pytest.raises(ValueError, match=f"arrays with 2 axes, got {axis}"):
        sosie.euclidean_distance(ROWS, ROWS, axis=axis)
    with pytest.raises(ValueError, match="arrays with 0 axes, got -1"):
        sosie.euclidean_distance(ROWS[0, 0, ...], ROWS[0, 0, ...])


def test_options_that_are_refused() -> None:
    with pytest.raises(ValueError, match="eps to be a finite number of at least 0, got -1"):
        sosie.cosine_similarity(ROWS, ROWS, eps=-1)
    with pytest.raises(ValueError, match=r"zero out of 'torch', .*, got 'none'"):
        sosie.cosine_similarity(ROWS, ROWS, zero="none")


@pytest.mark.skipif(importlib.util.find_spec("sosie._core") is None, reason="no compiled kernels")
def test_too_many_axes_are_refused() -> None:
    shape = (2, 1) * 5
    x, y = np.zeros((*shape, 3)), np.zeros((*shape[::-1], 3))
    with (
        sosie.use_backend("native"),
        pytest.raises(ValueError, match=r"at most 8 axes .*, got 10"),
    ):
        sosie.euclidean_distance(x, y)
