# SPDX-License-Identifier: Apache-2.0
"""Weighted squared differences by the CUDA kernels: on the emulator, and on devices if any.

Values are those of the float64 reference. The fixture `device` chooses what computes, all else is
the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sosie
from emulator import emulated, fetch, needs_emulator
from sosie.backends import cuda, reference

Array = NDArray[Any]

#: A thread adds up at most 64 products in float32, the rest is float64: a few 2^-24.
FLOAT32 = 1e-6
TOLERANCE = {"float64": 1e-14}
#: Gradients are rounded to their dtype: half a last place.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 1e-14}


def images(dtype: str, shape: tuple[int, ...], seed: int = 0) -> tuple[Array, Array]:
    """Two images in [0, 1], or of all integers."""
    random = np.random.default_rng(seed)
    if dtype.startswith("uint"):
        high = np.iinfo(dtype).max
        return tuple(random.integers(0, high, shape, dtype, True) for _ in range(2))
    return tuple(random.random(shape).astype(dtype) for _ in range(2))


SHAPES = [(1, 1, 1, 1), (2, 3, 37, 41), (3, 2, 16, 64), (1, 5, 7, 1024)]
DTYPES = ["uint8", "uint16", "float16", "float32", "float64"]
#: Shapes of weights that broadcast to (N, C, H, W).
WEIGHTS: list[Callable[[tuple[int, ...]], tuple[int, ...] | None]] = [
    lambda _: None,
    lambda shape: shape,
    lambda shape: (1, 1, *shape[2:]),
    lambda shape: (shape[0], 1, 1, 1),
    lambda shape: (1, shape[1], 1, shape[3]),
]


def weights_of(shape: tuple[int, ...] | None, dtype: str = "float32") -> Array | None:
    """Weights, some of them 0."""
    if shape is None:
        return None
    random = np.random.default_rng(7)
    return np.where(random.random(shape) < 0.2, 0.0, random.random(shape)).astype(dtype)


@pytest.mark.parametrize("weight_shape", WEIGHTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums(device: Any, dtype: str, shape: tuple[int, ...], weight_shape: Any) -> None:
    x, y = images(dtype, shape)
    weight = weights_of(weight_shape(shape))
    given = None if weight is None else device(weight)
    for per_image in (False, True):
        actual = fetch(cuda.ssd_forward(device(x), device(y), given, per_image=per_image))
        expected = reference.ssd_forward(x, y, weight, per_image=per_image)
        np.testing.assert_allclose(actual, expected, rtol=TOLERANCE.get(dtype, FLOAT32))


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "every second column": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    "flipped": lambda x: np.ascontiguousarray(x[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
    "cropped": lambda x: np.pad(x, ((0, 0), (0, 0), (1, 2), (3, 1)))[:, :, 1:-2, 3:-1],
    "transposed": lambda x: np.ascontiguousarray(x.swapaxes(2, 3)).swapaxes(2, 3),
}


@needs_emulator
@pytest.mark.parametrize("weight_shape", WEIGHTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(layout: str, weight_shape: Any) -> None:
    # The two images in different layouts; torch has no negative strides, so not on devices.
    x, y = images("float32", (2, 3, 19, 32))
    weight = weights_of(weight_shape(x.shape))
    upstream = np.array([[1.5, -0.5], [-2.0, 1.0]])
    needs = {"need_x": True, "need_y": True, "need_weight": weight is not None}
    expected = reference.ssd_backward(x, y, weight, upstream, per_image=True, **needs)
    strided = LAYOUTS[layout](x)
    np.testing.assert_array_equal(strided, x)
    with emulated():
        sums = cuda.ssd_forward(strided, y, weight, per_image=True)
        actual = cuda.ssd_backward(strided, y, weight, upstream, per_image=True, **needs)
    np.testing.assert_allclose(
        sums, reference.ssd_forward(x, y, weight, per_image=True), rtol=FLOAT32
    )
    for got, wanted in zip(actual, expected, strict=True):
        if wanted is not None:
            np.testing.assert_allclose(got, wanted, rtol=FLOAT32, atol=1e-6)


@pytest.mark.parametrize("weight_shape", WEIGHTS)
@pytest.mark.parametrize("shape", SHAPES[1:3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(device: Any, dtype: str, shape: tuple[int, ...], weight_shape: Any) -> None:
    x, y = images(dtype, shape)
    weight = weights_of(weight_shape(shape), "float64" if dtype == "float64" else "float32")
    upstream = np.random.default_rng(3).standard_normal((shape[0], 2))
    needs = {"need_x": True, "need_y": True, "need_weight": weight is not None}
    actual = cuda.ssd_backward(
        device(x), device(y), None if weight is None else device(weight), device(upstream),
        per_image=True, **needs,
    )  # fmt: skip
    expected = reference.ssd_backward(x, y, weight, upstream, per_image=True, **needs)
    rounding = ROUNDING.get(dtype, FLOAT32)
    for got, wanted in zip(actual, expected, strict=True):
        if wanted is None:
            assert got is None
            continue
        largest = float(np.abs(wanted.astype(float)).max())
        np.testing.assert_allclose(
            fetch(got).astype(float), wanted.astype(float), rtol=2 * rounding,
            atol=FLOAT32 * largest if dtype != "float64" else 1e-14 * largest,
        )  # fmt: skip


@pytest.mark.parametrize("weight_shape", WEIGHTS)
@pytest.mark.parametrize("mean", [False, True])
def test_loss_with_gradient(device: Any, mean: bool, weight_shape: Any) -> None:
    x, y = images("float32", (2, 3, 37, 41))
    weight = weights_of(weight_shape(x.shape))
    given = None if weight is None else device(weight)
    value, grad_x, grad_y = cuda.ssd_loss_value(
        device(x), device(y), given, mean=mean, need_x=True, need_y=True
    )
    sums, of_x, of_y = reference.ssd_loss(x, y, weight, mean=mean, need_x=True, need_y=True)
    total, count = sums[0]
    np.testing.assert_allclose(fetch(value)[0], total / count if mean else total, rtol=FLOAT32)
    for got, wanted in ((grad_x, of_x), (grad_y, of_y)):
        np.testing.assert_allclose(fetch(got), wanted, rtol=FLOAT32, atol=1e-12)


def test_an_empty_mask_makes_a_mean_of_0(device: Any) -> None:
    x, y = images("float32", (1, 3, 9, 11))
    mask = device(np.zeros((9, 11), bool)[None, None])
    value, grad_x, _ = cuda.ssd_loss_value(device(x), device(y), mask, mean=True)
    assert fetch(value)[0] == 0.0
    assert not fetch(grad_x).any()


def test_a_weight_of_0_takes_nan_out(device: Any) -> None:
    x, y = images("float32", (1, 1, 9, 11))
    mask = np.ones(x.shape, bool)
    x[0, 0, 3, 4], mask[0, 0, 3, 4] = np.nan, False
    actual = fetch(cuda.ssd_forward(device(x), device(y), device(mask)))
    np.testing.assert_allclose(actual, reference.ssd_forward(x, y, mask), rtol=FLOAT32)


@pytest.mark.parametrize("odd", [-1.0, np.inf, np.nan])
def test_weights_that_are_not_allowed_make_the_sum_nan(device: Any, odd: float) -> None:
    x, y = images("float32", (1, 3, 9, 11))
    weight = np.ones((9, 11), np.float32)[None, None]
    weight[0, 0, 4, 4] = odd
    assert np.isnan(fetch(cuda.ssd_forward(device(x), device(y), device(weight)))[0, 0])
    if odd == -1.0:
        allowed = cuda.ssd_forward(device(x), device(y), device(weight), allow_negative=True)
        expected = reference.ssd_forward(x, y, weight, allow_negative=True)
        np.testing.assert_allclose(fetch(allowed), expected, rtol=FLOAT32)


def test_the_same_bits_in_every_order(device: Any) -> None:
    x, y = (device(image) for image in images("float32", (1, 3, 64, 90)))
    first = fetch(cuda.ssd_forward(x, y))
    for _ in range(3):
        np.testing.assert_array_equal(fetch(cuda.ssd_forward(x, y)), first)


# --- Public functions -----------------------------------------------------------------------------


def test_public_functions(device: Any) -> None:
    x, y = images("uint8", (2, 3, 20, 21))
    weight = weights_of((20, 21))
    assert weight is not None

    def values(place: Callable[[Array], Any]) -> list[Any]:
        return [
            sosie.mse(place(x), place(y), reduction="none"),
            sosie.mse(place(x), place(y), weight=place(weight), crop_border=2),
            sosie.psnr(place(x), place(y), reduction="none"),
            sosie.weighted_ssd(place(x), place(y), place(weight), reduction="mean"),
        ]

    actual = values(device)
    with sosie.use_backend("reference"):
        expected = values(lambda array: array)
    for got, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(fetch(got), wanted, rtol=FLOAT32)
