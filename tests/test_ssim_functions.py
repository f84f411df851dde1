# SPDX-License-Identifier: Apache-2.0
"""Public functions of the SSIM family through every executor: scales, shapes, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import sosie
from sosie.reference import ssim as reference
from sosie.spec import SSIMSpec, ssim_spec
from ssim_cases import TOLERANCE, assert_close, assert_gradient, images, masks

torch = pytest.importorskip("torch")


# --- Multi-scale index, through the public functions ----------------------------------------------


MULTI_SCALE = SSIMSpec(window_size=5, sigma=1.0, scale_weights=(0.2, 0.3, 0.5))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 3, 41, 46), (2, 2, 44, 27), (2, 1, 21, 23, 26)])
@pytest.mark.parametrize("channel_order", ["before", "after"])
@pytest.mark.parametrize("rectify", ["none", "relu", "simple"])
@pytest.mark.parametrize("pooling", ["floor", "zero", "replicate", "symmetric"])
def test_ms_ssim(optimised, pooling, rectify, channel_order, shape, dtype) -> None:  # noqa: ARG001
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


def test_weights_set_the_number_of_scales(optimised) -> None:  # noqa: ARG001
    x, y = images((1, 1, 61, 80))
    spec = ssim_spec("wang2003").replace(scale_weights=(0.4, 0.6))
    found = sosie.ms_ssim(x, y, data_range=1.0, weights=[0.4, 0.6])
    assert_close(found, reference.ms_ssim(x, y, spec, 1.0)[0], 1e-12)


# --- Public functions: shapes and reductions ------------------------------------------------------


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dims", [2, 3])
def test_reductions_and_axes(optimised, dims, library) -> None:  # noqa: ARG001
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
def test_masks_of_every_shape(optimised, library) -> None:  # noqa: ARG001
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
def test_integer_images_need_no_range(optimised, dtype) -> None:  # noqa: ARG001
    peak = np.iinfo(dtype).max
    x, y = (np.rint(peak * image).astype(dtype) for image in images((1, 1, 33, 37)))
    expected = reference.ssim(x, y, ssim_spec("wang2004"), float(peak))
    assert_close(sosie.ssim(x, y, reduction="none"), expected, TOLERANCE["float32"].mean)


@pytest.mark.parametrize("name", ["wang2004-downsample", "piq"])
def test_large_images_are_reduced_first(optimised, name) -> None:  # noqa: ARG001
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
def test_bad_arguments_are_named(optimised, name) -> None:  # noqa: ARG001
    changes, error, message = BAD_CALLS[name]
    arguments = {"x": X, "y": X, "data_range": 1.0, **changes}
    dtype = arguments.pop("dtype", None)
    if dtype is not None:
        arguments["x"] = arguments["y"] = X.astype(dtype)
    with pytest.raises(error, match=message):
        sosie.ssim(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_bad_arguments_of_the_multi_scale_index_are_named(optimised) -> None:  # noqa: ARG001
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


def test_no_mask_where_images_are_reduced_first(optimised) -> None:  # noqa: ARG001
    image, mask = _image(400, 400), _image(400, 400, dtype="bool")
    with pytest.raises(ValueError, match="by 2"):
        sosie.ssim(image, image, data_range=1.0, spec="piq", mask=mask)
