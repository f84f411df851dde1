# SPDX-License-Identifier: Apache-2.0
"""How images lie in memory does not matter: dtypes and strides; nor does the number of threads."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from sosie.spec import SSIMSpec
from ssim_cases import DTYPES, TOLERANCE, TORCH_LAYOUTS, Array, images, masks, run_all

torch = pytest.importorskip("torch")


# --- Dtypes ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("library", "dtype"),
    [*itertools.product(["numpy", "torch"], DTYPES), ("torch", "bfloat16")],
)
def test_dtypes_hold_the_same_pixels(optimised, dtype, library) -> None:
    """Results are those of float32 (or float64) images of the same values, gradients rounded."""
    shape, peak = (2, 2, 37, 45), 65535.0 if dtype == "uint16" else 255.0
    p = SSIMSpec(window_size=7, border="reflect").resolve(shape[2:], peak)
    x, y = (np.rint(image * peak) for image in images(shape))
    if dtype == "bfloat16":
        x, y = (torch.from_numpy(image).to(torch.bfloat16).double().numpy() for image in (x, y))
    wide = "float64" if dtype == "float64" else "float32"
    expected = run_all(optimised, x.astype(wide), y.astype(wide), p)
    if dtype in ("float16", "bfloat16"):
        expected = rounded(expected, dtype)
    if library == "numpy":
        found = run_all(optimised, x.astype(dtype), y.astype(dtype), p)
    else:
        tensors = [torch.from_numpy(image).to(getattr(torch, dtype)) for image in (x, y)]
        found = run_all(optimised, *tensors, p)
        assert all(isinstance(result, torch.Tensor) for result in found)
    of_gradients = dtype if "float" in dtype else "float32"
    dtypes = ["float64", wide, *[of_gradients] * 4, *["float64"] * 2, *[of_gradients] * 2]
    assert [str(result.dtype).removeprefix("torch.") for result in found] == dtypes
    if dtype == "bfloat16":
        found = [result.float() if result.dtype == torch.bfloat16 else result for result in found]
    assert_same_bits(found, expected)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_half_gradients_round_to_nearest_at_every_size(optimised, scale) -> None:
    """Subnormal halves, normal ones, infinities beyond the largest."""
    shape = (1, 1, 24, 33)
    p = SSIMSpec(window_size=5, border="zero").resolve(shape[2:], 1.0)
    x, y = (image.astype(np.float16) for image in images(shape))
    upstream = scale * np.random.default_rng(0).standard_normal(shape)
    wide = optimised.ssim_backward(x.astype(np.float32), y.astype(np.float32), p, upstream)[0]
    with np.errstate(over="ignore"):
        expected = wide.astype(np.float16)
    found = optimised.ssim_backward(x, y, p, upstream)[0]
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
def test_strides(optimised, layout, shape, dtype) -> None:
    """The same bits from any memory, which stays as it was."""
    p = SSIMSpec(window_size=5, border="symmetric").resolve(shape[2:], 255.0)
    views = [LAYOUTS[layout](np.rint(255 * image).astype(dtype)) for image in images(shape)]
    before = [memory_of(image) for image in views]
    packed = [np.array(image, image.dtype.newbyteorder("="), order="C") for image in views]
    found = run_all(optimised, *views, p)
    assert_same_bits(found, run_all(optimised, *packed, p))
    assert [memory_of(image) for image in views] == before
    if layout in ("channels-last", "transposed", "fortran"):
        assert np.argsort(found[2].strides).tolist() == np.argsort(views[0].strides).tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("layout", TORCH_LAYOUTS)
def test_strides_of_tensors(optimised, layout, dtype) -> None:
    shape = (2, 3, 33, 41)
    p = SSIMSpec(window_size=5, border="symmetric").resolve(shape[2:], 1.0)
    tensors = [torch.from_numpy(image.copy()).to(getattr(torch, dtype)) for image in images(shape)]
    views = [TORCH_LAYOUTS[layout](tensor) for tensor in tensors]
    packed = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in views]
    found = run_all(optimised, *views, p)
    for one, other in zip(found, run_all(optimised, *packed, p), strict=True):
        assert torch.equal(one, other)
    for image, copy in zip(views, packed, strict=True):
        assert torch.equal(image, copy)
    if layout in ("channels-last", "transposed"):
        assert found[2].stride() == views[0].stride()


def test_strides_of_masks_and_upstreams(optimised) -> None:
    shape = (2, 3, 33, 41)
    p = SSIMSpec(window_size=5, border="zero").resolve(shape[2:], 1.0)
    x, y = images(shape)
    for layout in ("channels-last", "transposed", "flipped", "cropped", "gaps", "one-row"):
        mask = LAYOUTS[layout](masks(shape)["scattered"])
        upstream = LAYOUTS[layout](np.random.default_rng(1).standard_normal(shape))
        np.testing.assert_array_equal(
            optimised.ssim_backward(x, y, p, upstream, mask=mask)[0],
            optimised.ssim_backward(x, y, p, upstream.copy("C"), mask=mask.copy("C"))[0],
        )


# --- Threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 1, 300, 70), (1, 1, 40, 1100), (2, 1, 20, 36, 40)])
def test_same_bits_for_any_number_of_threads(optimised, shape, dtype) -> None:
    p = SSIMSpec(window_size=7, border="reflect").resolve(shape[2:], 1.0)
    x, y = (image.astype(dtype) for image in images(shape))
    mask = masks(shape)["scattered"]
    upstream = np.ones(shape[:2])
    weights = {"ssim_weight": 1.0, "l1_weight": 1.0}

    def results(threads: int) -> list[np.ndarray]:
        values, similarity_map = optimised.ssim_forward(
            x, y, p, mask=mask, return_map=True, threads=threads
        )
        gradient = optimised.ssim_backward(x, y, p, upstream, threads=threads)[0]
        padding = ((0, 1),) * (x.ndim - 2)
        reduced = optimised.downsample_forward(x, 2, padding, "zero", threads=threads)
        loss = optimised.ssim_loss(x, y, p, need_y=True, threads=threads, **weights)
        return [values, similarity_map, gradient, reduced, *loss]

    one = results(1)
    for threads in (2, 3, 5):
        assert_same_bits(results(threads), one)
