# SPDX-License-Identifier: Apache-2.0
"""Every executor of the SSD family against the float64 definition, and the public functions.

The executors are the compiled kernels, once for each instruction set this machine runs, Numba's and
the definition itself. What `mse` and `psnr` give is compared with scikit-image and torchmetrics.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest

import sosie
from sosie.reference import ssd as reference

torch = pytest.importorskip("torch")

Array = Any

# float64: of the order of a hundred roundings where thousands of terms are added singly (Numba).
# float32: a difference, two products and up to 256 additions of a lane round to 2^-24, one after
# the other; sums are wider. A sum of terms of one sign keeps their relative error.
TOLERANCE = {"float64": 1e-11, "float32": 3e-6}


def noise(shape: tuple[int, ...], *key: Any, dtype: str = "float64") -> np.ndarray:
    """Numbers in [0, 1) that float32 holds exactly; integers over their whole range."""
    values = np.random.default_rng(zlib.crc32(repr((shape, key)).encode())).random(shape)
    if dtype.startswith("uint"):
        return (values * (np.iinfo(dtype).max + 1)).astype(dtype)
    return values.astype(np.float32).astype(dtype)


#: On both sides of vectors (4 to 16 lanes), of blocks (512 and 1024), and of a task (65536).
SHAPES: list[tuple[int, ...]] = [
    (1,), (7,), (8,), (9,), (31,), (1025,), (3, 17), (5, 1), (1, 513), (2, 3, 33), (4, 1, 1, 1),
    (2, 3, 15, 16), (3, 2, 64, 65), (1, 3, 151, 149), (2, 1, 3, 5, 7), (2, 1, 2, 1, 3, 2),
]  # fmt: skip


def weight_shapes(shape: tuple[int, ...]) -> dict[str, tuple[int, ...] | None]:
    """Shapes with as many axes that broadcast to images."""
    ones = (1,) * len(shape)
    return {
        "none": None,
        "full": shape,
        "pixel": ones[:-2] + shape[-2:],
        "row": ones[:-1] + shape[-1:],
        "column": shape[:-1] + ones[:1],
        "channel": tuple(size if axis == 1 else 1 for axis, size in enumerate(shape)),
        "image": shape[:1] + ones[1:],
        "image-pixel": tuple(1 if axis == 1 else size for axis, size in enumerate(shape)),
        "one": ones,
    }


def assert_close(found: Array, expected: Array, tolerance: float) -> None:
    found, expected = np.asarray(found, np.float64), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def check_all(
    executor: Any, x: Array, y: Array, weight: Array | None, tolerance: float, per_image: bool
) -> None:
    """Sums and all gradients."""
    images = [np.asarray(image, np.float64) for image in (x, y)]
    expected = reference.ssd_forward(*images, weight, per_image=per_image)
    upstream = np.random.default_rng(1).standard_normal(expected.shape)
    # Where the two terms of a weight's gradient cancel, their rounding is what is left.
    upstream = np.abs(upstream)
    gradients = reference.ssd_backward(*images, weight, upstream, per_image=per_image)
    assert_close(executor.ssd_forward(x, y, weight, per_image=per_image), expected, tolerance)
    found = executor.ssd_backward(
        x, y, weight, upstream, per_image=per_image,
        need_x=True, need_y=True, need_weight=weight is not None,
    )  # fmt: skip
    for one, other in zip(found, gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, tolerance)


# --- Sums and gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("weights", weight_shapes((1,)))
def test_sums_and_gradients(executor, weights, dtype) -> None:
    for shape in SHAPES:
        x, y = (noise(shape, seed, dtype=dtype) for seed in (0, 1))
        weight_shape = weight_shapes(shape)[weights]
        weight = None if weight_shape is None else noise(weight_shape, 2, dtype=dtype)
        for per_image in (False, True):
            check_all(executor, x, y, weight, TOLERANCE[dtype], per_image)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("weights", weight_shapes((1,)))
def test_loss(executor, weights, mean) -> None:
    shape = (2, 3, 33, 41)
    x, y = noise(shape, 0), noise(shape, 1)
    weight_shape = weight_shapes(shape)[weights]
    weight = None if weight_shape is None else noise(weight_shape, 2)
    sums = reference.ssd_forward(x, y, weight)
    upstream = [[1.0 / sums[0, 1] if mean else 1.0, 0.0]]
    expected = reference.ssd_backward(x, y, weight, upstream)
    found = executor.ssd_loss(x, y, weight, mean=mean, need_y=True)
    for one, other in zip(found, (sums, *expected[:2]), strict=True):
        assert_close(one, other, TOLERANCE["float64"])


def test_only_the_gradients_that_are_needed_are_computed(executor) -> None:
    x, y, weight = (noise((2, 3, 9, 17), seed) for seed in range(3))
    upstream = np.ones((1, 2))
    names = ("need_x", "need_y", "need_weight")
    everything = executor.ssd_backward(x, y, weight, upstream, **dict.fromkeys(names, True))
    for name in names:
        needs = dict.fromkeys(names, False) | {name: True}
        found = executor.ssd_backward(x, y, weight, upstream, **needs)
        for one, other, wanted in zip(found, everything, needs.values(), strict=True):
            assert (one is not None) == wanted
            if wanted:
                np.testing.assert_array_equal(one, other)


# --- Dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_dtype", ["bool", "float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_dtypes(executor, dtype, weight_dtype) -> None:
    shape = (2, 3, 17, 33)
    x, y = (noise(shape, seed, dtype=dtype) for seed in (0, 1))
    weight = noise(shape[2:], 2, dtype="float32")[None, None].astype(weight_dtype)
    if weight_dtype == "bool":
        weight = noise((1, 1, 17, 33), 3) > 0.5
    images = [image.astype(np.float64) for image in (x, y)]
    expected = reference.ssd_forward(*images, weight)
    # A float16 weight has 11 bits, all of which are used.
    assert_close(executor.ssd_forward(x, y, weight), expected, TOLERANCE["float32"])
    upstream = np.array([[0.5 / 65536.0, 0.25]])
    found = executor.ssd_backward(x, y, weight, upstream)[0]
    assert found.dtype == (dtype if dtype.startswith("float") else "float32")
    gradient = reference.ssd_backward(*images, weight, upstream)[0]
    # The smallest float16 of full precision is 6e-5; below it a step is 6e-8.
    tolerance = 2.0**-10 if dtype == "float16" else TOLERANCE["float32"]
    assert np.abs(found.astype(float) - gradient).max() <= (
        tolerance * np.abs(gradient).max() + (6e-8 if dtype == "float16" else 0.0)
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_sums_of_integers_are_exact(executor, dtype) -> None:
    x, y = (noise((3, 90, 91), seed, dtype=dtype) for seed in (0, 1))
    x[0], y[0] = np.iinfo(dtype).max, 0
    expected = int(((x.astype(np.int64) - y.astype(np.int64)) ** 2).sum())
    assert executor.ssd_forward(x, y)[0, 0] == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_tensors(executor, dtype) -> None:
    x, y, weight = (
        torch.from_numpy(noise((2, 3, 9, 18), seed)).to(getattr(torch, dtype)) for seed in range(3)
    )
    needs = {"need_x": True, "need_y": True, "need_weight": True}
    upstream = torch.ones(1, 2, dtype=torch.float64)
    found = executor.ssd_backward(x, y, weight, upstream, **needs)
    wide = [tensor.double().numpy() for tensor in (x, y, weight)]
    assert_close(executor.ssd_forward(x, y, weight), reference.ssd_forward(*wide), 3e-6)
    for one, other in zip(found, reference.ssd_backward(*wide, upstream.numpy()), strict=True):
        assert one.dtype == x.dtype
        # Rounded once to 11 or 8 bits.
        assert_close(one.double(), other, 2.0**-11 if dtype == "float16" else 2.0**-8)


# --- Strides --------------------------------------------------------------------------------------


def _misaligned(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    shifted = np.frombuffer(memory, array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


LAYOUTS = {
    "channels-last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1),
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2),
    "fortran": np.asfortranarray,
    "flipped": lambda a: np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
    "cropped": lambda a: np.pad(a, [(2, 3)] * a.ndim)[tuple(slice(2, 2 + n) for n in a.shape)],
    "gaps": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "one-image": lambda a: np.broadcast_to(a[:1], a.shape),
    "one-column": lambda a: np.broadcast_to(a[..., :1], a.shape),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": _misaligned,
}


@pytest.mark.parametrize("weights", ["none", "full", "pixel", "channel", "image-pixel"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(executor, layout, weights) -> None:
    shape = (2, 3, 37, 41)
    weight_shape = weight_shapes(shape)[weights]
    for of_x, of_y in ((layout, layout), (layout, "gaps"), ("cropped", layout)):
        x, y = LAYOUTS[of_x](noise(shape, 0)), LAYOUTS[of_y](noise(shape, 1))
        weight = None if weight_shape is None else LAYOUTS[layout](noise(weight_shape, 2))
        before = [None if a is None else a.copy() for a in (x, y, weight)]
        for per_image in (False, True):
            check_all(executor, x, y, weight, TOLERANCE["float64"], per_image)
        for array, copy in zip((x, y, weight), before, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_gradients_have_the_layout_of_their_images(executor) -> None:
    x = LAYOUTS["channels-last"](noise((2, 3, 8, 9), 0))
    gradient = executor.ssd_backward(x, x, None, np.ones((1, 2)))[0]
    assert gradient.strides == x.strides


# --- Threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["none", "full", "pixel", "channel", "image-pixel"])
def test_same_bits_for_any_number_of_threads(executor, weights) -> None:
    shape = (2, 3, 180, 301)
    x, y = (noise(shape, seed, dtype="float32") for seed in (0, 1))
    weight_shape = weight_shapes(shape)[weights]
    weight = None if weight_shape is None else noise(weight_shape, 2, dtype="float32")

    of_images = np.array([[0.5, 1.0], [2.0, 3.0]])

    def results(threads: int) -> list[Array]:
        needs = {"need_x": True, "need_y": True, "need_weight": True}
        sums = executor.ssd_forward(x, y, weight, threads=threads)
        return [
            sums,
            executor.ssd_forward(x, y, weight, per_image=True, threads=threads),
            *executor.ssd_backward(x, y, weight, sums, threads=threads, **needs),
            *executor.ssd_backward(
                x, y, weight, of_images, per_image=True, threads=threads, **needs
            ),
            *executor.ssd_loss(x, y, weight, mean=True, threads=threads),
        ]

    one = results(1)
    for threads in (2, 3, 5):
        for found, expected in zip(results(threads), one, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_gradients_larger_than_the_caches(executor) -> None:
    """Written past them, from memory that no vector is aligned with."""
    if executor.__name__.endswith("reference"):
        pytest.skip("the definition writes as NumPy does")
    size = 9_000_011
    x, y = (np.resize(noise((1009,), seed, dtype="float32"), size + 1)[1:] for seed in (0, 1))
    expected = 2.0 * (x - y)
    for give in (np.asarray, torch.from_numpy):
        upstream = give(np.ones((1, 2)))
        found = executor.ssd_backward(give(x), give(y), None, upstream, need_y=True)
        np.testing.assert_array_equal(found[0], expected)
        np.testing.assert_array_equal(found[1], -expected)


# --- Weights of 0, and those that are refused -----------------------------------------------------


@pytest.mark.parametrize("weight_dtype", ["bool", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weight_of_zero_takes_its_pixel_out(executor, bad, weight_dtype) -> None:
    shape = (2, 3, 9, 13)
    x, y = (noise(shape, seed, dtype="float32") for seed in (0, 1))
    weight = (noise(shape, 2) > 0.3).astype(weight_dtype)
    damaged = np.where(weight > 0, x, np.float32(bad))
    for per_image in (False, True):
        np.testing.assert_array_equal(
            executor.ssd_forward(damaged, y, weight, per_image=per_image),
            executor.ssd_forward(x, y, weight, per_image=per_image),
        )
    found = executor.ssd_backward(damaged, y, weight, np.ones((1, 2)), need_y=True)
    clean = executor.ssd_backward(x, y, weight, np.ones((1, 2)), need_y=True)
    for one, other in zip(found[:2], clean[:2], strict=True):
        np.testing.assert_array_equal(one, other)
        assert not one[weight == 0].any()


def test_nan_stays_in_its_own_image(executor) -> None:
    x, y = noise((3, 2, 9, 8), 0), noise((3, 2, 9, 8), 1)
    clean = executor.ssd_forward(x, y, per_image=True)
    x[1, 0, 3, 3] = np.nan
    found = executor.ssd_forward(x, y, per_image=True)
    assert np.isnan(found[1, 0])
    np.testing.assert_array_equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("position", [0, 5, 77, 1030, 65600])
def test_bad_weights_are_named(executor, position) -> None:
    x = noise((70000,), 0, dtype="float32")
    weight = np.ones(70000, np.float32)
    for value, message in ((np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (-0.25, r"-0\.25")):
        weight[position] = value
        with pytest.raises(ValueError, match=f"weights.*got {message}"):
            executor.ssd_forward(x, x, weight)
        with pytest.raises(ValueError, match=f"weights.*got {message}"):
            executor.ssd_loss(x, x, weight, mean=True)
        with pytest.raises(ValueError, match=f"weights.*got {message}"):
            executor.ssd_loss(x, x, weight, mean=False)
    weight[position] = -1.0
    found = executor.ssd_forward(x, 0 * x, weight, allow_negative=True)
    assert_close(found, reference.ssd_forward(x, 0 * x, weight), TOLERANCE["float32"])
    weight[position] = np.nan
    with pytest.raises(ValueError, match="got nan"):
        executor.ssd_forward(x, x, weight, allow_negative=True)


def test_weights_that_sum_to_zero_have_a_mean_of_zero(executor) -> None:  # noqa: ARG001
    x, y = noise((1, 2, 5, 6), 0), noise((1, 2, 5, 6), 1)
    nothing = np.zeros((5, 6), bool)
    assert sosie.weighted_ssd(x, y, nothing, reduction="mean") == 0.0
    assert sosie.mse(x, y, weight=nothing) == 0.0
    tensors = [torch.from_numpy(array) for array in (x, y)]
    weight = torch.zeros(5, 6, dtype=torch.float64, requires_grad=True)
    tensors[0].requires_grad_()
    for loss in (
        sosie.weighted_ssd(*tensors, weight, reduction="mean"),
        sosie.nn.WeightedSSDLoss()(*tensors, weight.detach()),
    ):
        assert loss == 0.0
        loss.backward()
        assert (tensors[0].grad == 0.0).all()
    assert (weight.grad == 0.0).all()


# --- The public functions -------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("weight_shape", [None, (2, 3, 7, 9), (7, 9), (3, 1, 1), (2, 1, 1, 1), ()])
def test_weighted_ssd(executor, weight_shape, reduction, library) -> None:  # noqa: ARG001
    x, y = noise((2, 3, 7, 9), 0), noise((2, 3, 7, 9), 1)
    weight = None if weight_shape is None else np.asarray(noise(weight_shape, 2))
    expected = reference.weighted_ssd(x, y, weight, reduction=reduction)
    arguments = [x, y, weight]
    if library == "torch":
        arguments = [None if a is None else torch.from_numpy(a) for a in arguments]
    found = sosie.weighted_ssd(*arguments, reduction=reduction)
    assert_close(found, expected, TOLERANCE["float64"])


def test_weights_may_be_numbers(executor) -> None:  # noqa: ARG001
    x, y = noise((4, 5), 0), noise((4, 5), 1)
    total = reference.weighted_ssd(x, y)
    assert_close(sosie.weighted_ssd(x, y, 0.5), 0.5 * total, 1e-14)
    assert_close(sosie.weighted_ssd(torch.from_numpy(x), torch.from_numpy(y), 2), 2 * total, 1e-14)
    assert_close(sosie.weighted_ssd(x, y, -1, allow_negative=True), -total, 1e-14)
    with pytest.raises(ValueError, match="got -1"):
        sosie.weighted_ssd(x, y, -1)


def test_axis_of_the_images(executor) -> None:  # noqa: ARG001
    x, y = noise((2, 5, 6, 3), 0), noise((2, 5, 6, 3), 1)
    weight = noise((5, 6, 1), 2)
    per_image = (weight * (x - y) ** 2).sum((1, 2, 3))
    none = {"reduction": "none"}
    assert_close(sosie.weighted_ssd(x, y, weight, channel_axis=-1, **none), per_image, 1e-13)
    images_second = (weight * (x - y) ** 2).sum((0, 2, 3))
    assert_close(sosie.weighted_ssd(x, y, weight, channel_axis=0, **none), images_second, 1e-13)
    whole = per_image.sum()[None]
    assert_close(sosie.weighted_ssd(x, y, weight, spatial_dims=3, **none), whole, 1e-13)
    assert_close(sosie.weighted_ssd(x[0], y[0], weight, **none), per_image[:1], 1e-13)


@pytest.mark.parametrize("channel_axis", [None, -1])
@pytest.mark.parametrize("crop", [0, 2])
@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
def test_mse(executor, reduction, crop, channel_axis) -> None:  # noqa: ARG001
    shape = (2, 3, 11, 13) if channel_axis is None else (2, 11, 13, 3)
    spatial = (2, 3) if channel_axis is None else (1, 2)
    x, y = noise(shape, 0), noise(shape, 1)
    for weight in (None, noise((11, 13, 1) if channel_axis else (11, 13), 2)):
        index: list[Any] = [slice(None)] * 4
        for axis in spatial:
            index[axis] = slice(crop, shape[axis] - crop)
        cut = [
            np.broadcast_to(1.0 if a is None else a, shape)[tuple(index)] for a in (x, y, weight)
        ]
        sums = reference.ssd_forward(*cut, per_image=reduction != "mean")
        means = reference.weighted_mean(sums)
        expected = {"mean": means[0], "none": means, "sum": means.sum()}[reduction]
        options = {"crop_border": crop, "channel_axis": channel_axis, "reduction": reduction}
        assert_close(sosie.mse(x, y, weight=weight, **options), expected, 1e-13)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_mse_and_psnr_equal_scikit_image(executor, dtype) -> None:  # noqa: ARG001
    metrics = pytest.importorskip("skimage.metrics")
    data_range = None if dtype.startswith("uint") else 1.0
    for shape in ((37, 41), (37, 41, 3)):
        x, y = (noise(shape, seed, dtype=dtype) for seed in (0, 1))
        axis = -1 if len(shape) == 3 else None
        expected = metrics.mean_squared_error(x, y)
        # Float32 rounding of squares here, and of their mean there.
        assert_close(sosie.mse(x, y, channel_axis=axis), expected, 1e-6)
        expected = metrics.peak_signal_noise_ratio(x, y, data_range=data_range)
        assert_close(sosie.psnr(x, y, data_range=data_range, channel_axis=axis), expected, 1e-6)


def test_psnr_equals_torchmetrics(executor) -> None:  # noqa: ARG001
    functional = pytest.importorskip("torchmetrics.functional.image")
    x, y = (torch.from_numpy(noise((4, 3, 20, 21), seed)) for seed in (0, 1))
    peer = functional.peak_signal_noise_ratio
    each = torch.stack([peer(a, b, data_range=1.0) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(sosie.psnr(x, y, data_range=1.0, reduction="none"), each)
    torch.testing.assert_close(sosie.psnr(x, y, data_range=1.0), each.mean())
    mean_of_all = peer(x, y, data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean")
    torch.testing.assert_close(sosie.psnr(x, y, data_range=1.0), mean_of_all)


def test_mse_loss_of_torch_is_the_weighted_mean(executor) -> None:  # noqa: ARG001
    x, y, weight = (torch.from_numpy(noise((2, 3, 8, 9), seed)) for seed in range(3))
    if "weight" not in torch.nn.functional.mse_loss.__annotations__:
        pytest.skip("this torch has no weights")
    for reduction in ("sum", "mean"):
        expected = torch.nn.functional.mse_loss(x, y, weight=weight, reduction=reduction)
        torch.testing.assert_close(sosie.weighted_ssd(x, y, weight, reduction=reduction), expected)


@pytest.mark.parametrize(("dtype", "peak"), [("uint8", 255.0), ("uint16", 65535.0), ("float64", 1)])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_psnr_of_the_luma(executor, library, dtype, peak) -> None:  # noqa: ARG001
    x, y = (noise((2, 3, 15, 14), seed, dtype=dtype) for seed in (0, 1))
    luma = [reference.luma(image, peak, 1)[..., 2:-2, 2:-2] for image in (x, y)]
    expected = reference.psnr(*luma, peak)
    if library == "torch":
        if dtype == "uint16":
            pytest.skip("torch has no arithmetic for uint16")
        x, y = torch.from_numpy(x), torch.from_numpy(y)
    options = {"data_range": peak, "y_channel": True, "crop_border": 2}
    found = sosie.psnr(x, y, reduction="none", **options)
    assert_close(found, expected, 1e-5 if library == "torch" else 1e-12)
    assert_close(sosie.psnr(x, y, reduction="sum", **options), expected.sum(), 1e-5)


def test_luma_is_that_of_the_standard() -> None:
    """Black, white and the primaries, in 8 bits (ITU-R BT.601-7, table 3)."""
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    found = np.rint(reference.luma(colours, 255.0, -1))
    np.testing.assert_array_equal(found, [16, 235, 81, 145, 41])


def test_equal_images(executor) -> None:  # noqa: ARG001
    x = noise((2, 3, 8, 9), 0, dtype="uint8")
    assert sosie.weighted_ssd(x, x) == 0.0
    assert sosie.mse(x, x) == 0.0
    assert sosie.psnr(x, x) == math.inf
    assert sosie.psnr(torch.from_numpy(x), torch.from_numpy(x)) == math.inf


# --- Bad input ------------------------------------------------------------------------------------

X = np.ones((1, 3, 8, 10), np.float32)
BAD_CALLS: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "shapes": ("weighted_ssd", {"y": X[..., :9]}, ValueError, r"8, 10\) and \(1, 3, 8, 9\)"),
    "dtypes": ("mse", {"y": X.astype(np.float64)}, TypeError, "float32 and float64"),
    "int64": ("mse", {"x": X.astype(int), "y": X.astype(int)}, TypeError, "int64"),
    "empty": ("weighted_ssd", {"x": X[:0], "y": X[:0]}, ValueError, r"\(0, 3, 8, 10\)"),
    "no-axis": ("weighted_ssd", {"x": np.array(X.sum()), "y": np.array(X.sum())},
                ValueError, r"shape \(\)"),
    "reduction": ("weighted_ssd", {"reduction": "median"}, ValueError, "'mean'.*'median'"),
    "spatial-dims": ("weighted_ssd", {"spatial_dims": 5}, ValueError, "got 5"),
    "weight-shape": ("weighted_ssd", {"weight": X[0, :2]}, ValueError, r"8, 10\).*\(2, 8, 10\)"),
    "weight-axes": ("mse", {"weight": X[None]}, ValueError, r"\(1, 1, 3, 8, 10\)"),
    "weight-dtype": ("mse", {"weight": X.astype(int)}, TypeError, "bool, float16.*int64"),
    "weight-library": ("mse", {"weight": torch.ones(8, 10)}, TypeError, "torch.Tensor"),
    "no-range": ("psnr", {}, ValueError, "data_range.*None"),
    "negative-range": ("psnr", {"data_range": -1.0}, ValueError, r"-1\.0"),
    "text-range": ("psnr", {"data_range": "255"}, TypeError, "'255'"),
    "crop": ("psnr", {"data_range": 1.0, "crop_border": 4}, ValueError, r"\(8, 10\), got 4"),
    "negative-crop": ("mse", {"crop_border": -1}, ValueError, "got -1"),
    "luma": ("psnr", {"x": X[:, :2], "y": X[:, :2], "data_range": 1.0, "y_channel": True},
             ValueError, r"3 channels.*got 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments_are_named(name) -> None:
    function, changes, error, message = BAD_CALLS[name]
    arguments = {"x": X, "y": X, **changes}
    with pytest.raises(error, match=message):
        getattr(sosie, function)(arguments.pop("x"), arguments.pop("y"), **arguments)
