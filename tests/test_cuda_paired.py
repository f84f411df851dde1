# SPDX-License-Identifier: Apache-2.0
"""Paired rows by the CUDA kernels: on the emulator, and on devices if any.

Values are those of the float64 definition. The fixture `device` chooses what computes, all else is
the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sosie
from emulator import emulated, fetch, needs_emulator
from paired_cases import BROADCAST, GRADIENT, TOLERANCE, Rows, assert_near, name_of, noise
from sosie.backends import cuda
from sosie.paired import _norms
from sosie.reference import paired as reference

Array = Any

# Threads of a row: 1 below 32 elements, then a power of two up to 256, 32 across rows; packs of 4
# float32 elements; rows of more than 65536 are cut.
CASES = [
    Rows((1, 1), (1, 1), 1), Rows((3, 16), (3, 16), 1), Rows((300, 3), (300, 3), 1),
    Rows((9, 257), (9, 257), 1), Rows((5, 1028), (5, 1028), 1), Rows((4, 17), (4, 17), 0),
    Rows((1031, 70), (1031, 70), 0), Rows((2, 3, 70, 9), (2, 3, 70, 9), 2),
    Rows((2, 140_001), (2, 140_001), 1), Rows((66_000,), (66_000,), 0),
    *(case for case in BROADCAST if case.x != (1, 19, 300)),
]  # fmt: skip
SMALL = [CASES[2], CASES[4], CASES[6], BROADCAST[0]]
#: A gradient in half precision is rounded to it: half a last place.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def check(device: Any, rows: Rows, dtype: str) -> None:
    """Values and gradients of both kinds, by the definition."""
    x, y, axis = noise(rows.x, 0, dtype), noise(rows.y, 1, dtype), rows.axis
    given = device(x), device(y)
    compute = "float64" if dtype == "float64" else "float32"
    close = GRADIENT[compute] + ROUNDING.get(dtype, 0.0)
    value = cuda.euclidean_forward(*given, axis)
    expected = reference.euclidean_forward(x, y, axis)
    assert fetch(value).dtype == compute
    np.testing.assert_allclose(fetch(value), expected, rtol=TOLERANCE[compute], atol=0)
    upstream = noise(expected.shape, 2, compute)
    gradients = cuda.euclidean_backward(*given, value, device(upstream), axis)
    for actual, wanted in zip(
        gradients, reference.euclidean_backward(x, y, upstream, axis), strict=True
    ):
        assert_near(fetch(actual), wanted, close)

    norms = _norms(1e-8, "torch", compute)
    results = cuda.cosine_forward(*given, axis, *norms, return_norms=True)
    for actual, wanted in zip(results, reference.cosine_forward(x, y, axis, *norms), strict=True):
        # |x y| <= |x| |y|: the error of a similarity is relative to 1.
        np.testing.assert_allclose(
            fetch(actual), wanted, rtol=TOLERANCE[compute], atol=TOLERANCE[compute]
        )
    scale = float(1.0 / min(abs(x).min(), abs(y).min())) if x.shape[axis] == 1 else 0.0
    gradients = cuda.cosine_backward(*given, *results, device(upstream), axis, *norms)
    for actual, wanted in zip(
        gradients, reference.cosine_backward(x, y, upstream, axis, *norms), strict=True
    ):
        assert_near(fetch(actual), wanted, close, scale)


@pytest.mark.parametrize("rows", CASES, ids=name_of)
def test_rows(device: Any, rows: Rows) -> None:
    check(device, rows, "float32")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float64"])
@pytest.mark.parametrize("rows", SMALL, ids=name_of)
def test_dtypes(device: Any, rows: Rows, dtype: str) -> None:
    if dtype.startswith("uint"):
        x, y = noise(rows.x, 0, dtype) + 1, noise(rows.y, 1, dtype) + 1
        value = cuda.euclidean_forward(device(x), device(y), rows.axis)
        expected = reference.euclidean_forward(x, y, rows.axis)
        np.testing.assert_allclose(fetch(value), expected, rtol=TOLERANCE["float32"])
    else:
        check(device, rows, dtype)


@needs_emulator
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strides(axis: int) -> None:
    # x and y in different layouts, one of them backwards; torch has none such, so not on devices.
    x, y = noise((6, 40, 33), 0, "float32"), noise((6, 40, 33), 1, "float32")
    strided = np.ascontiguousarray(x[:, ::-1].transpose(2, 0, 1)).transpose(1, 2, 0)[:, ::-1]
    np.testing.assert_array_equal(strided, x)
    with emulated():
        value = cuda.euclidean_forward(strided, y, axis)
        gradients = cuda.euclidean_backward(strided, y, value, np.ones_like(value), axis)
    np.testing.assert_allclose(
        value, reference.euclidean_forward(x, y, axis), rtol=TOLERANCE["float32"]
    )
    expected = reference.euclidean_backward(x, y, np.ones_like(value), axis)
    for actual, wanted in zip(gradients, expected, strict=True):
        assert_near(actual, wanted, GRADIENT["float32"])


def test_rows_that_coincide_are_zero_or_hold_nan(device: Any) -> None:
    x = np.array([[1.0, 2.0], [0.0, 0.0], [np.nan, 1.0]], np.float32)
    y = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 1.0]], np.float32)
    value = cuda.euclidean_forward(device(x), device(y), 1)
    np.testing.assert_array_equal(fetch(value), [0.0, 5.0, np.nan])
    grad, _ = cuda.euclidean_backward(device(x), device(y), value, device(np.ones(3, "f4")), 1)
    np.testing.assert_array_equal(fetch(grad)[0], 0.0)
    for zero, expected in (("torch", 0.0), ("scipy", np.nan), ("scikit-learn", 0.0)):
        cosine = fetch(sosie.cosine_similarity(device(x), device(y), zero=zero))
        np.testing.assert_allclose(cosine, [1.0, expected, np.nan], rtol=1e-6)


def test_nothing_to_add_up(device: Any) -> None:
    x, y = (device(np.ones((3, 0), np.float32)) for _ in range(2))
    value = cuda.euclidean_forward(x, y, 1)
    np.testing.assert_array_equal(fetch(value), 0.0)
    gradients = cuda.euclidean_backward(x, y, value, value, 1)
    assert [tuple(gradient.shape) for gradient in gradients] == [(3, 0), (3, 0)]
    assert fetch(cuda.euclidean_forward(x, y, 0)).shape == (0,)


@needs_emulator
def test_torch_derivatives_go_through_the_kernels() -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 1, 3), (1, 2, 3))
    )
    with emulated() as emulator:
        assert torch.autograd.gradcheck(sosie.euclidean_distance, (x, y))
        assert torch.autograd.gradcheck(sosie.cosine_similarity, (x, y))
    assert "paired_shared_backward<double>" in emulator.launched


@needs_emulator
def test_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(7, 40, generator=generator).to(torch.bfloat16) for _ in range(2))
    x.requires_grad_()
    expected = torch.autograd.grad(sosie.euclidean_distance(x, y).sum(), x)[0]
    with emulated():
        actual = torch.autograd.grad(sosie.euclidean_distance(x, y).sum(), x)[0]
    # Both round once, to 8 bits.
    torch.testing.assert_close(actual, expected, rtol=2.0**-8, atol=0.0)
