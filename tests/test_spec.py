# SPDX-License-Identifier: Apache-2.0
"""Conventions as data: windows, crops, constants, encodings, plans of scales, and bad input."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sosie.spec
from sosie.scales import combine_scales, plan_scales
from sosie.spec import Pooling, SSIMParameters, SSIMSpec, list_specs, ssim_spec

SHAPES = [(97, 61), (200, 176), (512, 768), (33, 34, 35)]


# --- Windows --------------------------------------------------------------------------------------


def test_gaussian_taps_are_the_published_ones() -> None:
    # fspecial('gaussian', [1 11], 1.5) to eight decimals.
    published = [0.00102838, 0.00759876, 0.03600077, 0.10936069, 0.21300554, 0.26601172]
    taps = ssim_spec("wang2004").resolve((64, 64), 1.0).taps
    assert taps[0] == taps[1]
    np.testing.assert_allclose(taps[0][:6], published, rtol=0, atol=5e-9)
    assert taps[0] == taps[0][::-1]


@pytest.mark.parametrize("sigma", [0.5, 1.5, 2.0, (0.8, 3.1)])
@pytest.mark.parametrize("size", [3, 11, 33, (5, 13)])
def test_gaussian_taps_follow_the_formula_and_sum_to_one(sigma, size) -> None:
    parameters = SSIMSpec(sigma=sigma, window_size=size).resolve((64, 64), 1.0)
    sizes, sigmas = np.broadcast_to(size, 2), np.broadcast_to(sigma, 2)
    for taps, n, s in zip(parameters.taps, sizes, sigmas, strict=True):
        offsets = np.arange(n) - n // 2
        weights = np.exp(-(offsets**2) / (2 * s**2))
        # Two orders of summation of at most 33 positive numbers: relative error below 33 * 2^-53.
        np.testing.assert_allclose(taps, weights / weights.sum(), rtol=4e-15)
        assert abs(math.fsum(taps) - 1.0) < 4e-15


@pytest.mark.parametrize(("sigma", "size"), [(0.3, 3), (0.5, 5), (1.5, 11), (2.0, 15), (4.5, 33)])
def test_truncation_gives_scipys_radius(sigma, size) -> None:
    spec = SSIMSpec(window_size=None, truncate=3.5, sigma=sigma)
    assert len(spec.resolve((64, 64), 1.0).taps[0]) == size


def test_uniform_and_custom_windows() -> None:
    uniform = SSIMSpec(window="uniform", window_size=(7, 3)).resolve((20, 20), 1.0)
    assert uniform.taps == ((1 / 7,) * 7, (1 / 3,) * 3)
    one = SSIMSpec(window="custom", taps=[1, 2, 1]).resolve((20, 20, 20), 1.0)
    assert one.taps == ((1.0, 2.0, 1.0),) * 3
    each = SSIMSpec(window="custom", taps=np.array([[1.0, 2.0, 1.0], [0.0, 1.0, 0.0]]))
    assert each.resolve((20, 20), 1.0).taps == ((1.0, 2.0, 1.0), (0.0, 1.0, 0.0))


def test_images_are_centred_only_under_windows_that_sum_to_one() -> None:
    assert ssim_spec("wang2004").resolve((20, 20), 255).center == 127.5
    assert SSIMSpec(window="custom", taps=[0.25, 0.5, 0.25]).resolve((9, 9), 1.0).center == 0.5
    assert SSIMSpec(window="custom", taps=[1, 2, 1]).resolve((9, 9), 1.0).center == 0.0
    # A window that was normalised in float32 sums to 1 within 1e-7 only.
    rounded = np.float32([0.1, 0.8, 0.1]).astype(float) + 1e-8
    assert SSIMSpec(window="custom", taps=rounded).resolve((9, 9), 1.0).center == 0.0


def test_a_window_made_in_float32_is_what_float32_arithmetic_gives() -> None:
    parameters = ssim_spec("pytorch-msssim").resolve((64, 64), 1.0)
    offsets = np.arange(11, dtype=np.float32) - 5
    weights = np.exp(-(offsets**2) / np.float32(4.5))
    weights /= weights.sum()
    # numpy and torch may round exp and the sum's last bit otherwise, one ulp of at most 0.27.
    np.testing.assert_allclose(parameters.taps[0], weights, rtol=0, atol=2.0**-25)
    np.testing.assert_array_equal(parameters.taps[0], np.float32(parameters.taps[0]))
    assert 0 < abs(math.fsum(parameters.taps[0]) - 1.0) < 1e-7
    assert parameters.center == 0.0
    uniform = SSIMSpec(window="uniform", window_size=3, window_dtype="float32")
    assert uniform.resolve((9, 9), 1.0).taps[0] == (float(np.float32(1 / 3)),) * 3


# --- Borders, crops, map shapes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "border", "crop", "map_shape"),
    [
        ({}, "zero", (5, 5), (87, 51)),
        ({"crop": 2}, "zero", (7, 7), (83, 47)),
        ({"border": "zero"}, "zero", (0, 0), (97, 61)),
        ({"border": "reflect", "crop": 3}, "reflect", (3, 3), (91, 55)),
        ({"border": "reflect", "crop": 5}, "zero", (5, 5), (87, 51)),
        ({"border": "symmetric", "crop": "window"}, "zero", (5, 5), (87, 51)),
        ({"border": "replicate", "crop": 30}, "zero", (30, 30), (37, 1)),
        ({"window": "uniform", "window_size": 8}, "zero", (3, 4), (90, 54)),
        ({"window": "uniform", "window_size": 8, "stride": 4}, "zero", (3, 4), (23, 14)),
    ],
)
def test_border_and_crop(changes, border, crop, map_shape) -> None:
    parameters = SSIMSpec(**changes).resolve((97, 61), 1.0)
    assert parameters.border == border
    assert parameters.crop == (crop, crop)
    assert parameters.map_shape((97, 61)) == map_shape


@pytest.mark.parametrize("width", range(8, 45))
def test_ffmpeg_map_has_one_position_per_pair_of_whole_blocks(width) -> None:
    # vf_ssim sums 4 x 4 blocks and slides a window of 2 x 2 blocks over the width / 4 whole ones.
    parameters = ssim_spec("ffmpeg").resolve((16, width))
    assert parameters.map_shape((16, width)) == (3, width // 4 - 1)


# --- Constants ------------------------------------------------------------------------------------


def test_constants() -> None:
    wang = ssim_spec("wang2004").resolve((20, 20), 255)
    assert (wang.c1, wang.c2) == pytest.approx((6.5025, 58.5225), rel=1e-15)
    opencv = ssim_spec("opencv").resolve((20, 20))
    assert (opencv.c1, opencv.c2) == pytest.approx((6.5025, 58.5225), rel=1e-15)
    fused = ssim_spec("fused-ssim").resolve((20, 20))
    assert (fused.c1, fused.c2) == pytest.approx((1e-4, 9e-4), rel=1e-15)
    given = SSIMSpec(c1=1e-3, c2=2e-3).resolve((20, 20), 255)
    assert (given.c1, given.c2) == (1e-3, 2e-3)
    steps = SSIMSpec(k1=0.02, k2=0.4).resolve((20, 20), 2.0)
    assert (steps.c1, steps.c2) == pytest.approx((0.0016, 0.64), rel=1e-15)


def test_ffmpeg_constants_are_its_integers() -> None:
    # ssim_end1: c1 is added to products of two sums of 64 pixels, 64^2 times products of means;
    # c2 to 64 * (sum of products) - product of sums, 64 * 63 times a sample covariance.
    c1, c2 = int(0.01 * 0.01 * 255 * 255 * 64 + 0.5), int(0.03 * 0.03 * 255 * 255 * 64 * 63 + 0.5)
    assert (c1, c2) == (416, 235963)
    parameters = ssim_spec("ffmpeg").resolve((64, 64))
    assert parameters.c1 == c1 / 64**2
    assert parameters.c2 == c2 / (64 * 63)
    assert parameters.covariance_scale == 64 / 63
    # ssim_end1x, 10 bits.
    deep = ssim_spec("ffmpeg").resolve((64, 64), 1023)
    assert deep.c1 == int(0.01 * 0.01 * 1023 * 1023 * 64 + 0.5) / 64**2
    assert deep.c2 == int(0.03 * 0.03 * 1023 * 1023 * 64 * 63 + 0.5) / (64 * 63)
    # Images in [0, 1] get the number that the same image in 8 bits gets.
    unit = ssim_spec("ffmpeg").resolve((64, 64), 1.0)
    assert (unit.c1, unit.c2) == pytest.approx((c1 / 64**2 / 255**2, parameters.c2 / 255**2))


def test_sample_covariance_counts_the_window() -> None:
    assert ssim_spec("scikit-image").resolve((20, 20), 1.0).covariance_scale == 49 / 48
    assert ssim_spec("scikit-image").resolve((20, 20, 20), 1.0).covariance_scale == 343 / 342
    assert ssim_spec("scikit-image-gaussian").resolve((20, 20), 1.0).covariance_scale == 121 / 120


# --- Encoding, caches, imports --------------------------------------------------------------------


@pytest.mark.parametrize("name", list_specs())
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data_range", [1.0, 255, 0.1])
def test_encoding_is_exact(name, shape, data_range) -> None:
    parameters = ssim_spec(name).resolve(shape, data_range)
    decoded = SSIMParameters.decode(parameters.encode())
    assert decoded == parameters
    assert hash(decoded) == hash(parameters)
    assert decoded.encode() == parameters.encode()
    assert SSIMParameters.decode(parameters.encode()) is decoded


_FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    taps=st.lists(_FINITE, min_size=1, max_size=33).map(tuple),
    numbers=st.tuples(*[_FINITE] * 6),
    clamp_variance=st.booleans(),
    clamp_value=st.none() | st.tuples(_FINITE, _FINITE),
    crop=st.tuples(st.integers(0, 99), st.integers(0, 99)),
)
def test_encoding_is_exact_for_any_numbers(
    taps, numbers, clamp_variance, clamp_value, crop
) -> None:
    scale, c1, c2, epsilon, center, data_range = numbers
    parameters = SSIMParameters(
        taps=(taps, taps[::-1]),
        border="reflect",
        crop=(crop, crop[::-1]),
        stride=3,
        covariance_scale=scale,
        c1=c1,
        c2=c2,
        epsilon=epsilon,
        clamp_variance=clamp_variance,
        clamp_value=clamp_value,
        center=center,
        data_range=data_range,
    )
    assert SSIMParameters.decode(parameters.encode()) == parameters


def test_decode_refuses_other_text() -> None:
    with pytest.raises(ValueError, match="expected encoded SSIM parameters of 8 parts, got 1: 'a'"):
        SSIMParameters.decode("a")


def test_repeated_calls_return_the_same_object() -> None:
    spec = ssim_spec("wang2003")
    assert ssim_spec("wang2003") is spec
    assert spec.resolve((97, 61), 1.0) is spec.resolve([97, 61], 1.0)
    assert spec.replace(sigma=2.0) is spec.replace(sigma=2.0)
    assert spec.replace(scale_weights=[0.5, 0.5]) is spec.replace(scale_weights=(0.5, 0.5))
    assert spec.replace() is spec
    assert plan_scales(spec, (181, 200), 1.0) is plan_scales(spec, (181, 200), 1.0)


def test_values_survive_pickling() -> None:
    spec = ssim_spec("torchmetrics")
    parameters = spec.resolve((97, 61), 1.0)
    parameters.encode()
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert pickle.loads(pickle.dumps(parameters)) == parameters


def test_equal_specs_from_any_sequence_type() -> None:
    assert SSIMSpec(sigma=[1, 2], window_size=np.array([5, 7])) == SSIMSpec(
        sigma=(1.0, 2.0), window_size=(5, 7)
    )


def test_specs_need_no_array_library() -> None:
    # Loaded by path, since importing the package imports NumPy.
    program = (
        "import importlib.util as u, sys\n"
        f"s = u.spec_from_file_location('spec', {str(Path(sosie.spec.__file__))!r})\n"
        "m = sys.modules['spec'] = u.module_from_spec(s)\n"
        "s.loader.exec_module(m)\n"
        "m.ssim_spec('wang2004').resolve((20, 20), 1.0)\n"
        "print([name for name in ('numpy', 'torch', 'difflib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"window": "box"}, ValueError, "'gaussian', 'uniform', 'custom', got 'box'"),
        ({"window": ["gaussian"]}, ValueError, "expected window to be one of"),
        ({"border": "mirror"}, ValueError, "expected border to be one of .* got 'mirror'"),
        ({"window_size": 8}, ValueError, "expected window_size to be odd .* got 8"),
        ({"window_size": (11, 4)}, ValueError, "expected window_size to be odd .* got 4"),
        ({"window_size": -3}, ValueError, "expected window_size to be at least 1, got -3"),
        ({"window_size": 0}, ValueError, "expected window_size to be at least 1, got 0"),
        ({"window_size": 35}, ValueError, "window_size of at most 33 pixels, got 35"),
        ({"window_size": 11.0}, TypeError, "expected window_size to be an integer, got 11.0"),
        ({"window_size": "11"}, TypeError, "expected window_size to be an integer, got '11'"),
        ({"window_size": ()}, ValueError, "expected window_size to hold at least one value"),
        ({"window_size": None}, ValueError, "expected a window_size for window='gaussian'"),
        (
            {"window": "uniform", "window_size": 8, "border": "zero"},
            ValueError,
            "even only for a uniform window with border 'valid'",
        ),
        ({"truncate": 3.5}, ValueError, "expected truncate only with .* window_size=11"),
        (
            {"truncate": 3.5, "window_size": None, "sigma": 6.0},
            ValueError,
            "window_size of at most 33 pixels, got 43",
        ),
        ({"sigma": 0.0}, ValueError, "expected sigma to be positive, got 0.0"),
        ({"sigma": (1.5, -1.0)}, ValueError, "expected sigma to be positive, got -1.0"),
        ({"sigma": "wide"}, TypeError, "expected sigma to be a number, got 'wide'"),
        ({"sigma": math.nan}, ValueError, "expected sigma to be finite, got nan"),
        ({"k1": 0}, ValueError, "expected k1 to be positive, got 0"),
        ({"k2": -0.03}, ValueError, "expected k2 to be positive, got -0.03"),
        ({"k1": True}, TypeError, "expected k1 to be a number, got True"),
        ({"c1": 0.0}, ValueError, "expected c1 to be positive, got 0.0"),
        ({"epsilon": -1e-9}, ValueError, "expected epsilon to be at least 0, got -1e-09"),
        ({"data_range": 0}, ValueError, "expected data_range to be positive, got 0"),
        ({"stride": 0}, ValueError, "expected stride to be at least 1, got 0"),
        ({"crop": -1}, ValueError, "expected crop to be at least 0, got -1"),
        ({"crop": "all"}, ValueError, "expected crop to be 'window' or an integer, got 'all'"),
        ({"clamp_variance": 1}, TypeError, "expected clamp_variance to be True or False, got 1"),
        ({"clamp_value": (1, -1)}, ValueError, r"increasing pair of numbers, got \(1, -1\)"),
        ({"clamp_value": 1.0}, TypeError, "expected clamp_value to be a pair of numbers, got 1.0"),
        ({"taps": [1, 2, 1]}, ValueError, "expected taps with window='custom' and only then"),
        ({"window": "custom"}, ValueError, "expected taps with window='custom' and only then"),
        ({"window": "custom", "taps": [1, 1]}, ValueError, "expected taps to be odd, got 2"),
        ({"window": "custom", "taps": [1, -2, 1]}, ValueError, "taps with a positive sum"),
        (
            {"window": "custom", "taps": [0.5, 0.6, 0.5], "clamp_variance": True},
            ValueError,
            r"taps that sum to 1 with clamp_variance, .*, got a sum of 1\.6",
        ),
        ({"window": "custom", "taps": [1.0] * 35}, ValueError, "taps of at most 33 pixels, got 35"),
        ({"window": "custom", "taps": 3.0}, TypeError, "sequence of numbers, got 3.0"),
        ({"scale_weights": []}, ValueError, "scale_weights to hold at least one value"),
        ({"scale_weights": [0.5, -0.5]}, ValueError, "scale_weights to be at least 0, got -0.5"),
        ({"scale_weights": 0.5}, TypeError, "scale_weights to be a sequence of numbers, got 0.5"),
        ({"window_sise": 7}, TypeError, "no field 'window_sise'; did you mean 'window_size'"),
        ({"qqq": 7}, TypeError, "no field 'qqq'; expected one of 'window', 'window_size'"),
    ],
)
def test_bad_conventions_are_refused(changes, error, message) -> None:
    with pytest.raises(error, match=message):
        SSIMSpec().replace(**changes)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(
        ValueError, match="unknown SSIM spec 'skimage'; did you mean 'scikit-image'"
    ):
        ssim_spec("skimage")
    with pytest.raises(ValueError, match="did you mean 'tensorflow'"):
        ssim_spec("TensorFlow")
    with pytest.raises(ValueError, match=r"'zzz'; expected one of 'wang2004', .*'ffmpeg'"):
        ssim_spec("zzz")
    with pytest.raises(ValueError, match="unknown SSIM spec 7"):
        ssim_spec(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (10, 64), r"at least 11 pixels .* window of 11 x 11, got spatial sizes \(10, 64\)"),
        ({"crop": 2}, (14, 64), "at least 15 pixels"),
        ({"window": "uniform", "window_size": 8}, (64, 7), "at least 8 pixels .* 8 x 8"),
        ({"border": "zero", "crop": "window"}, (10, 64), "at least 11 pixels"),
        ({"border": "reflect"}, (5, 64), "larger than 5 pixels .* 'reflect'"),
        ({"border": "symmetric"}, (64, 4), "larger than 4 pixels .* 'symmetric'"),
        ({}, (0, 64), r"at least one pixel, got spatial sizes \(0, 64\)"),
        ({}, (64,), r"expected 2 or 3 spatial axes, got 1 of sizes \(64,\)"),
        ({}, (9, 9, 9, 9), "expected 2 or 3 spatial axes, got 4"),
        ({"window_size": (5, 7)}, (9, 9, 9), "window_size for each of the 3 spatial axes"),
        ({"sigma": (1.0, 2.0, 1.0)}, (64, 64), "sigma for each of the 2 spatial axes"),
        (
            {"window_size": 1, "covariance": "sample"},
            (64, 64),
            "window of more than one pixel for sample covariance",
        ),
        ({"downsample": "piq", "window_size": 33}, (64, 16), "at least 33 pixels"),
    ],
)
def test_images_that_do_not_fit_are_refused(changes, shape, message) -> None:
    with pytest.raises(ValueError, match=message):
        SSIMSpec(**changes).resolve(shape, 1.0)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (11, 11)),
        ({"border": "reflect"}, (6, 6)),
        ({"border": "symmetric"}, (5, 5)),
        ({"border": "zero"}, (1, 1)),
        ({"border": "replicate"}, (1, 1)),
    ],
)
def test_smallest_images(changes, shape) -> None:
    assert min(SSIMSpec(**changes).resolve(shape, 1.0).map_shape(shape)) >= 1


def test_missing_or_bad_data_range() -> None:
    with pytest.raises(ValueError, match=r"expected data_range, .*\(1\.0 for images in \[0, 1\]"):
        ssim_spec("wang2004").resolve((64, 64))
    with pytest.raises(ValueError, match="expected data_range to be positive, got -1"):
        ssim_spec("wang2004").resolve((64, 64), -1)
    with pytest.raises(ValueError, match="expected data_range to be finite, got inf"):
        ssim_spec("wang2004").resolve((64, 64), math.inf)
    assert ssim_spec("opencv").resolve((64, 64)).data_range == 255.0


# --- Reduction of large images --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("smallest", "wang", "piq"),
    [(256, 1, 1), (383, 1, 1), (384, 2, 2), (512, 2, 2), (639, 2, 2), (640, 3, 2), (1080, 4, 4)],
)
def test_downsampling_factor(smallest, wang, piq) -> None:
    # 640 / 256 = 2.5 tells MATLAB's round, half up, from Python's, half to even.
    for name, factor in (("wang2004-downsample", wang), ("piq", piq)):
        pooling = ssim_spec(name).downsampling((smallest, 1100))
        assert (1 if pooling is None else pooling.factor) == factor
    assert ssim_spec("wang2004").downsampling((smallest, 1100)) is None


@pytest.mark.parametrize("size", range(640, 652))
def test_wang_downsampling_keeps_a_box_around_every_factor_th_pixel(size) -> None:
    pooling = ssim_spec("wang2004-downsample").downsampling((640, size))
    assert pooling is not None
    assert pooling.border == "symmetric"
    assert pooling.padding[1][0] == 1  # the box of 3 pixels is centred on its second
    assert pooling.shape((640, size)) == (214, len(range(0, size, 3)))


def test_downsampled_images_must_hold_the_window() -> None:
    spec = ssim_spec("piq").replace(window_size=33)
    assert spec.resolve((800, 800), 1.0).taps[0] == spec.resolve((64, 64), 1.0).taps[0]


# --- Scales ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "paddings", "sizes"),
    [
        ("wang2003", [(0, 1), (0, 1), (0, 0), (0, 1)], [181, 91, 46, 23, 12]),
        ("tensorflow", [(0, 1), (0, 1), (0, 0), (0, 1)], [181, 91, 46, 23, 12]),
        ("pytorch-msssim", [(1, 0), (1, 0), (0, 0), (1, 0)], [181, 91, 46, 23, 12]),
        ("piq", [(1, 0), (1, 0), (1, 0), (1, 0)], [181, 91, 46, 23, 12]),
        ("torchmetrics", [(0, 0)] * 4, [181, 90, 45, 22, 11]),
        ("monai", [(0, 0)] * 4, [181, 90, 45, 22, 11]),
    ],
)
def test_plan_of_poolings(name, paddings, sizes) -> None:
    # 180 halves to 90, 45, 23 (22), 12 (11): its parities differ from 181's at the third scale,
    # where piq pads both axes because one is odd.
    scales = plan_scales(ssim_spec(name), (181, 180), 1.0)
    assert [scale.pooling.padding[0] for scale in scales if scale.pooling] == paddings
    assert scales[-1].pooling is None
    shape = (181, 180)
    for scale, size in zip(scales, sizes, strict=True):
        assert shape[0] == size
        assert scale.parameters.map_shape(shape)[0] >= 1
        shape = shape if scale.pooling is None else scale.pooling.shape(shape)


def test_torchmetrics_crops_contrast_structure_only() -> None:
    scales = plan_scales(ssim_spec("torchmetrics"), (176, 176), 1.0)
    assert [scale.parameters.crop[0] for scale in scales] == [(5, 5)] * 4 + [(0, 0)]
    assert [scale.parameters.border for scale in scales] == ["zero"] * 4 + ["reflect"]


def test_scales_ignore_downsampling() -> None:
    scales = plan_scales(ssim_spec("piq"), (512, 512), 1.0)
    assert scales[0].pooling == Pooling(2, ((0, 0), (0, 0)), "replicate")


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        *[(name, 161) for name in ("wang2003", "pytorch-msssim", "piq", "tensorflow")],
        *[(name, 176) for name in ("torchmetrics", "torchmetrics-1.4.1", "monai")],
    ],
)
def test_smallest_image_of_five_scales(name, smallest) -> None:
    spec = ssim_spec(name)
    assert len(plan_scales(spec, (smallest, smallest), 1.0)) == 5
    with pytest.raises(
        ValueError, match=rf"11 x 11 .* 5 scales, got spatial sizes \({smallest - 1}"
    ):
        plan_scales(spec, (smallest - 1, 400), 1.0)


def test_conventions_without_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a convention with scale_weights"):
        plan_scales(ssim_spec("opencv"), (200, 200), 1.0)
    assert len(plan_scales(ssim_spec("opencv").replace(scale_weights=[1.0, 1.0]), (50, 50))) == 2


def _rows(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float64)


def test_combination_orders() -> None:
    cs, s = _rows([0.9, 0.4], [0.5, 0.25]), _rows([0.8, 0.2], [0.36, 0.49])
    after = SSIMSpec(scale_weights=(0.3, 0.5))
    expected = (cs**0.3 * s**0.5).mean(axis=1)
    np.testing.assert_allclose(combine_scales([cs, s], after), expected, rtol=1e-15)
    before = after.replace(channel_order="before")
    expected = cs.mean(axis=1) ** 0.3 * s.mean(axis=1) ** 0.5
    np.testing.assert_allclose(combine_scales([cs, s], before), expected, rtol=1e-15)


def test_combination_rectifies() -> None:
    cs, s = _rows([-0.2], [0.3], [np.nan], [0.0]), _rows([0.8], [0.8], [0.8], [0.8])
    spec = SSIMSpec(scale_weights=(0.3, 0.5))
    relu = combine_scales([cs, s], spec)
    np.testing.assert_allclose(relu, [0.0, 0.3**0.3 * 0.8**0.5, np.nan, 0.0], rtol=1e-15)
    simple = combine_scales([cs, s], spec.replace(rectify="simple"))
    np.testing.assert_allclose(
        simple, np.array([0.4, 0.65, np.nan, 0.5]) ** 0.3 * 0.9**0.5, rtol=1e-15
    )
    with np.errstate(invalid="ignore"):
        none = combine_scales([cs, s], spec.replace(rectify="none"))
    np.testing.assert_allclose(none, [np.nan, 0.3**0.3 * 0.8**0.5, np.nan, 0.0], rtol=1e-15)


def test_a_scale_of_weight_zero_does_not_count() -> None:
    cs, s = _rows([-0.2], [0.3]), _rows([0.8], [0.5])
    combined = combine_scales([cs, s], SSIMSpec(scale_weights=(0.0, 1.0)))
    np.testing.assert_array_equal(combined, [0.8, 0.5])


def test_combination_counts_scales() -> None:
    with pytest.raises(ValueError, match="expected values of 2 scales, one per weight, got 1"):
        combine_scales([_rows([1.0])], SSIMSpec(scale_weights=(0.3, 0.5)))


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("rectify", ["relu", "simple"])
def test_combination_of_tensors_equals_that_of_arrays(order, rectify) -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(1)
    values = [generator.uniform(-0.2, 1.0, (4, 3)) for _ in range(3)]
    values[1][2] = 0.0
    spec = SSIMSpec(scale_weights=(0.2, 0.3, 0.5), channel_order=order, rectify=rectify)
    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    combined = combine_scales(tensors, spec)
    expected = combine_scales(values, spec)
    # Two libraries' pow, each within an ulp or two of the exact power.
    np.testing.assert_allclose(combined.detach().numpy(), expected, rtol=1e-14, atol=0)
    combined.sum().backward()
    for tensor in tensors:
        assert torch.isfinite(tensor.grad).all()
        if rectify == "relu" and order == "after":
            assert (tensor.grad[tensor <= 0] == 0).all()
