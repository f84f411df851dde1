# SPDX-License-Identifier: Apache-2.0
"""The SSIM family by the CUDA kernels: on the emulator, and on devices if any.

The cases, the comparison and most tolerances are those of the other executors, in ssim_cases. On
the emulator threads and blocks take turns in two orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import sosie
from emulator import emulated, needs_emulator
from sosie.backends import cuda
from sosie.reference import ssim as reference
from ssim_cases import (
    CONVENTIONS,
    MASKABLE,
    TOLERANCE,
    VOLUME_CONVENTIONS,
    assert_close,
    assert_gradient,
    check_all,
    define,
    expected_of,
    images,
    masks,
    parameters_of,
    poisoned,
)


class Executor:
    """The CUDA executor for NumPy arrays: brings them to where kernels run, fetches results."""

    def __init__(self, bring: Callable[[Any], Any]) -> None:
        self.bring = bring

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(cuda, name)

        def call(*arguments: Any, **options: Any) -> Any:
            given = [self._brought(value) for value in arguments]
            results = function(*given, **{key: self._brought(v) for key, v in options.items()})
            return tuple(map(_fetch, results)) if isinstance(results, tuple) else _fetch(results)

        return call

    def _brought(self, value: Any) -> Any:
        return self.bring(value) if isinstance(value, np.ndarray) else value


def _fetch(result: Any) -> Any:
    if result is None or isinstance(result, np.ndarray):
        return result
    return result.cpu().numpy() if hasattr(result, "cpu") else result.get()


@pytest.fixture(
    params=[
        pytest.param("forward", marks=needs_emulator),
        pytest.param("reverse", marks=needs_emulator),
        pytest.param("torch", marks=pytest.mark.gpu),
        pytest.param("cupy", marks=pytest.mark.gpu),
    ]
)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param in ("forward", "reverse"):
        with emulated(request.param == "reverse"):
            yield Executor(lambda array: array)
    elif request.param == "torch":
        torch = pytest.importorskip("torch")
        yield Executor(lambda array: torch.from_numpy(array.copy()).cuda())
    else:
        yield Executor(pytest.importorskip("cupy").asarray)


# Strips are 256 columns wide at most (gradients: 192), tiles 32 x 32, batches of rows 8.
@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("wang2004", (1, 2, 33, 37), "float32"),
        ("wang2004", (1, 1, 61, 300), "float32"),
        ("fused-ssim", (1, 1, 9, 200), "float32"),
        ("torchmetrics", (1, 1, 24, 20), "float32"),
        ("scikit-image", (1, 1, 20, 29), "float32"),
        ("even-stride", (1, 1, 37, 41), "float32"),
        ("skewed-reflect", (1, 1, 17, 34), "float32"),
        ("replicate-17", (1, 1, 20, 21), "float32"),
        ("unnormalised", (1, 2, 9, 15), "float32"),
        ("clamp-value", (1, 1, 13, 15), "float32"),
        ("gaussian-33", (1, 1, 37, 35), "float64"),
        ("stride-reflect", (1, 1, 33, 37), "float64"),
        ("pixel", (1, 1, 1, 1), "float64"),
    ],
)
def test_images(executor, name, shape, dtype) -> None:
    p = parameters_of(CONVENTIONS[name], shape)
    x, y = (image.astype(dtype) for image in images(shape))
    for kind in ("ssim", "cs"):
        check_all(executor, x, y, p, kind, expected_of(p, shape, kind), TOLERANCE[dtype])


@needs_emulator
@pytest.mark.parametrize("stride", [1, 3, 16])
def test_the_largest_window_on_the_least_shared_memory(stride) -> None:
    """99 KiB, as devices for graphics have: of the largest window in double, and what lies between
    the results of a stride."""
    shape = (1, 1, 50, 66)
    p = parameters_of(CONVENTIONS["gaussian-33"] | {"stride": stride}, shape)
    x, y = images(shape)
    with emulated(shared_bytes=99 << 10):
        check_all(cuda, x, y, p, "ssim", expected_of(p, shape, "ssim"), TOLERANCE["float64"])


@pytest.mark.parametrize("name", ["skewed", "reflect", "flat-window", "even-stride"])
def test_volumes(executor, name) -> None:
    shape = (1, 2, 8, 9, 16)
    p = parameters_of(VOLUME_CONVENTIONS[name], shape)
    x, y = (image.astype(np.float32) for image in images(shape))
    check_all(executor, x, y, p, "ssim", expected_of(p, shape, "ssim"), TOLERANCE["float32"])


# Small windows of which a few pixels are left have the least accurate variances.
@pytest.mark.parametrize(
    ("name", "mask", "shape", "kind"),
    [
        ("wang2004", "hole", (2, 1, 25, 28), "ssim"),
        ("wang2004", "empty", (2, 1, 25, 28), "ssim"),
        ("stride-reflect", "hole", (2, 1, 25, 28), "ssim"),
        ("stride-reflect", "empty", (2, 1, 25, 28), "ssim"),
        ("gaussian-3", "scattered", (2, 2, 39, 28), "cs"),
    ],
)
def test_mask(executor, name, mask, shape, kind) -> None:
    p = parameters_of(MASKABLE[name], shape)
    valid = masks(shape)[mask]
    x, y = (poisoned(image.astype(np.float32), valid) for image in images(shape))
    expected = define(*images(shape), p, kind, valid)
    check_all(executor, x, y, p, kind, expected, TOLERANCE["float32"], valid)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
def test_loss(executor, needs, masked) -> None:
    shape = (2, 3, 19, 31)
    p = parameters_of(CONVENTIONS["wang2004"], shape)
    x, y = (image.astype(np.float32) for image in images(shape))
    y[..., ::3] = x[..., ::3]  # where the absolute difference has no slope
    valid = masks(shape)["hole"] if masked else None
    weights = {"ssim_weight": 0.85, "l1_weight": 0.15}
    expected = reference.ssim_loss(x, y, p, mask=valid, **weights)
    found = executor.ssim_loss(x, y, p, mask=valid, need_x=needs[0], need_y=needs[1], **weights)
    for i in range(2):
        assert_close(found[i], expected[i], 1e-5 if masked else 1e-6)
    each = np.full(shape, 1.0 / (9 * 21 * 6))
    for i, needed in zip((2, 3), needs, strict=True):
        assert (found[i] is not None) == needed
        if needed:
            assert_gradient(found[i], expected[i], TOLERANCE["float32"], each)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
@pytest.mark.parametrize("layout", ["channels last", "flipped"])
def test_dtypes_and_strides(executor, dtype, layout) -> None:
    """The same pixels in another dtype and order have the same float32 results."""
    shape, levels = (2, 3, 20, 23), 255 if dtype != "float16" else 1
    p = sosie.ssim_spec("wang2004").resolve(shape[2:], float(levels))
    narrow = [np.round(image * 255).astype(np.uint8) for image in images(shape)]
    pixels = [(image / (255 // levels)).astype(dtype) for image in narrow]
    expected = executor.ssim_forward(*(image.astype(np.float32) for image in pixels), p)
    if layout == "channels last":
        given = [np.ascontiguousarray(np.moveaxis(i, 1, -1)) for i in pixels]
        views = [np.moveaxis(image, -1, 1) for image in given]
    else:
        views = [np.ascontiguousarray(image[..., ::-1, ::-1])[..., ::-1, ::-1] for image in pixels]
    found = executor.ssim_forward(*views, p)
    np.testing.assert_array_equal(found[0], expected[0])
    gradient, _ = executor.ssim_backward(*views, p, np.ones(shape[:2]))
    wide, _ = executor.ssim_backward(
        *(image.astype(np.float32) for image in pixels), p, np.ones(shape[:2])
    )
    # Kernels for whole images and for any window add in another order; halves keep 11 bits.
    tolerance = 2.0**-10 if dtype == "float16" else 1e-4
    assert np.abs(gradient.astype(float) - wide).max() <= tolerance * np.abs(wide).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "padding", "border", "factor"),
    [
        ((2, 3, 17, 33), ((0, 1), (0, 1)), "symmetric", 2),
        ((1, 1, 20, 140), ((1, 0), (1, 1)), "replicate", 3),
        ((1, 2, 5, 6, 9), ((1, 0), (0, 0), (1, 0)), "zero", 2),
    ],
)
def test_boxes_and_their_adjoint(executor, shape, padding, border, factor, dtype) -> None:
    x = images(shape)[0].astype(dtype)
    expected = reference.downsample_forward(x, factor, padding, border)
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    found = executor.downsample_forward(x, factor, padding, border)
    assert found.dtype == dtype
    assert_close(found, expected, tolerance)
    grad = expected.astype(dtype)
    adjoint = reference.downsample_backward(grad, shape, factor, padding, border)
    assert_close(
        executor.downsample_backward(grad, shape, factor, padding, border), adjoint, tolerance
    )
