# SPDX-License-Identifier: Apache-2.0
"""The float64 definition of structural similarity, against cases that have closed forms, against
explicit loops over windows, and its gradients against finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sosie.reference.ssim import (
    downsample_backward,
    downsample_forward,
    ms_ssim,
    ms_ssim_gradient,
    pooling_matrix,
    ssim,
    ssim_backward,
    ssim_forward,
    ssim_gradient,
    ssim_loss,
    window_matrix,
)
from sosie.spec import SSIMParameters, SSIMSpec, list_specs, ssim_spec

NUMPY_PAD = {"zero": "constant", "reflect": "reflect", "symmetric": "symmetric"} | {
    "replicate": "edge"
}
CUSTOM = {"window": "custom", "taps": [[0.1, 0.2, 0.4, 0.2, 0.3], [0.5, 0.2, 0.1]]}

# Rounding of a local variance, a few 2^-53, over C2 = 9e-4.
MAP_TOLERANCE = 1e-12

# Every knob at least once; small windows so that loops and finite differences stay cheap.
CONVENTIONS = {
    "valid": {"window_size": 5},
    "zero": {"window_size": 5, "border": "zero"},
    "reflect": {"window_size": 7, "border": "reflect"},
    "symmetric": {"window_size": (5, 7), "border": "symmetric", "sigma": (0.8, 2.0)},
    "replicate": {"window_size": 5, "border": "replicate"},
    "crop": {"window_size": 7, "border": "reflect", "crop": 2},
    "sample": {"window": "uniform", "window_size": 3, "covariance": "sample"},
    "even-stride": {"window": "uniform", "window_size": 4, "stride": 2},
    "reflect-stride": {"window_size": 3, "border": "reflect", "stride": 3},
    "epsilon": {"window_size": 5, "epsilon": 0.05},
    "custom": {**CUSTOM, "border": "reflect"},
    "clamp-value": {"window_size": 3, "clamp_value": (0.2, 0.5)},
    "clamp-variance": {
        "window": "custom",
        "taps": [-0.1, 0.9, 0.2],
        "clamp_variance": True,
        "c1": 0.1,
        "c2": 0.5,
    },
}


# A window with negative weights, as the last convention has, defines no normalised convolution.
MASKABLE = [name for name in CONVENTIONS if name != "clamp-variance"]


def _pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.random(shape)
    return x, np.clip(x + 0.4 * generator.standard_normal(shape), 0.0, 1.0)


def _brute_force_map(
    x: np.ndarray, y: np.ndarray, p: SSIMParameters, kind: str, mask: np.ndarray | None = None
) -> np.ndarray:
    """Map of one plane by a loop over positions and the weighted pixels of each window."""
    sizes = [len(taps) for taps in p.taps]
    pads = [((n - 1) // 2, n - 1 - (n - 1) // 2) for n in sizes]
    window = p.taps[0]
    for taps in p.taps[1:]:
        window = np.multiply.outer(window, taps)
    valid = np.ones(x.shape, dtype=bool) if mask is None else mask
    padded = [np.where(valid, x, 0.0), np.where(valid, y, 0.0), valid.astype(float)]
    padded = [np.pad(image, pads, mode=NUMPY_PAD[p.border]) for image in padded]
    ranges = [
        range(before, size - after, p.stride)
        for size, (before, after) in zip(x.shape, p.crop, strict=True)
    ]
    result = np.zeros([len(positions) for positions in ranges])
    for index, position in zip(np.ndindex(*result.shape), itertools.product(*ranges), strict=True):
        at = tuple(slice(start, start + n) for start, n in zip(position, sizes, strict=True))
        a, b, weights = padded[0][at], padded[1][at], window
        if mask is not None:
            weights = window * padded[2][at]
        total = 1.0 if mask is None else weights.sum()
        if total <= 0.0:
            continue
        mu_a, mu_b = (weights * a).sum() / total, (weights * b).sum() / total
        var_a = p.covariance_scale * ((weights * a * a).sum() / total - mu_a**2)
        var_b = p.covariance_scale * ((weights * b * b).sum() / total - mu_b**2)
        cov = p.covariance_scale * ((weights * a * b).sum() / total - mu_a * mu_b)
        if p.clamp_variance:
            var_a, var_b = max(var_a, 0.0), max(var_b, 0.0)
        similarity = (2 * cov + p.c2) / (var_a + var_b + p.c2)
        if kind == "ssim":
            numerator = (2 * mu_a * mu_b + p.c1) * (2 * cov + p.c2)
            denominator = (mu_a**2 + mu_b**2 + p.c1) * (var_a + var_b + p.c2)
            similarity = numerator / (denominator + p.epsilon)
        if p.clamp_value is not None:
            similarity = min(max(similarity, p.clamp_value[0]), p.clamp_value[1])
        result[index] = similarity
    return result


# --- Matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("border", NUMPY_PAD)
@pytest.mark.parametrize("size", [4, 5, 9])
@pytest.mark.parametrize(
    "taps", [(1.0, 2.0, 4.0), (1.0, 2.0, 4.0, 8.0, 16.0), (1.0, 2.0, 4.0, 8.0)]
)
@pytest.mark.parametrize(("crop", "stride"), [((0, 0), 1), ((1, 2), 1), ((0, 1), 2)])
def test_window_matrix_is_correlation_of_the_padded_line(border, size, taps, crop, stride) -> None:
    line = np.random.default_rng(size).random(size)
    origin = (len(taps) - 1) // 2
    padded = np.pad(line, (origin, len(taps) - 1 - origin), mode=NUMPY_PAD[border])
    expected = np.correlate(padded, taps, mode="valid")[crop[0] : size - crop[1] : stride]
    matrix = window_matrix(size, taps, border, crop, stride)
    np.testing.assert_allclose(matrix @ line, expected, rtol=1e-14)


@pytest.mark.parametrize("border", ["zero", "replicate", "symmetric"])
@pytest.mark.parametrize("size", [6, 7, 11])
@pytest.mark.parametrize(
    ("factor", "padding"), [(2, (0, 0)), (2, (1, 0)), (2, (0, 1)), (3, (1, 2))]
)
def test_pooling_matrix_is_mean_of_boxes_of_the_padded_line(border, size, factor, padding) -> None:
    line = np.random.default_rng(size).random(size)
    padded = np.pad(line, padding, mode=NUMPY_PAD[border])
    boxes = len(padded) // factor
    expected = padded[: boxes * factor].reshape(boxes, factor).mean(axis=1)
    matrix = pooling_matrix(size, factor, padding, border)
    np.testing.assert_allclose(matrix @ line, expected, rtol=1e-14)


@pytest.mark.parametrize("shape", [(2, 3, 7, 10), (1, 2, 5, 6, 7)])
def test_downsampling_and_its_adjoint(shape) -> None:
    generator = np.random.default_rng(0)
    x = generator.random(shape)
    padding = ((1, 0), (0, 1), (1, 1))[: len(shape) - 2]
    small = downsample_forward(x, 2, padding, "replicate")
    padded = np.pad(x, ((0, 0), (0, 0), *padding), mode="edge")
    for axis in range(2, x.ndim):
        boxes = padded.shape[axis] // 2
        even, odd = (np.arange(boxes) * 2 + k for k in (0, 1))
        padded = (np.take(padded, even, axis) + np.take(padded, odd, axis)) / 2
    np.testing.assert_allclose(small, padded, rtol=1e-14)
    grad = generator.random(small.shape)
    adjoint = downsample_backward(grad, shape, 2, padding, "replicate")
    assert np.vdot(small, grad) == pytest.approx(np.vdot(x, adjoint), rel=1e-13)


# --- Maps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ssim", "cs"])
@pytest.mark.parametrize("shape", [(9, 11), (12, 8)])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_map_equals_brute_force(name, shape, kind) -> None:
    x, y = _pair((2, 2, *shape))
    parameters = SSIMSpec(**CONVENTIONS[name]).resolve(shape, 1.0)
    values, similarity = ssim_forward(x, y, parameters, kind=kind)
    assert similarity.shape == (2, 2, *parameters.map_shape(shape))
    for plane in np.ndindex(2, 2):
        expected = _brute_force_map(x[plane], y[plane], parameters, kind)
        np.testing.assert_allclose(similarity[plane], expected, rtol=0, atol=MAP_TOLERANCE)
        assert values[plane] == pytest.approx(expected.mean(), abs=MAP_TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [
        {"window_size": (3, 5, 3)},
        {"border": "reflect"} | {"window_size": 5, "sigma": (0.5, 1.0, 2.0)},
        {"window": "uniform", "window_size": 3, "stride": 2},
    ],
)
def test_volume_equals_brute_force(changes) -> None:
    shape = (5, 7, 6)
    x, y = _pair((1, 2, *shape))
    parameters = SSIMSpec(**changes).resolve(shape, 1.0)
    _, similarity = ssim_forward(x, y, parameters)
    for plane in np.ndindex(1, 2):
        expected = _brute_force_map(x[plane], y[plane], parameters, "ssim")
        np.testing.assert_allclose(similarity[plane], expected, rtol=0, atol=MAP_TOLERANCE)


@pytest.mark.parametrize("name", list_specs())
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.0, 1.0), (0.3, 0.7), (1.0, 1.0)])
def test_constant_images(name, a, b) -> None:
    spec = ssim_spec(name).replace(window_dtype="float64")  # a window that sums to 1
    x, y = np.full((1, 1, 24, 32), a), np.full((1, 1, 24, 32), b)
    parameters = spec.resolve((24, 32), 1.0)
    if parameters.border == "zero" and parameters.crop[0] == (0, 0):
        x, y = x[..., 5:-5, 5:-5], y[..., 5:-5, 5:-5]  # edges see the black outside
        parameters = spec.replace(border="valid").resolve((14, 22), 1.0)
    _, similarity = ssim_forward(x, y, parameters)
    c1, c2 = parameters.c1, parameters.c2
    expected = (2 * a * b + c1) * c2 / ((a * a + b * b + c1) * c2 + parameters.epsilon)
    # Variances of constants are 0 within rounding, 1e-16, against c2 = 9e-4.
    np.testing.assert_allclose(similarity, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list_specs())
def test_identity_and_symmetry(name) -> None:
    spec = ssim_spec(name)
    x, y = _pair((2, 2, 26, 31))
    # kornia's epsilon of 1e-12 in a denominator of at least C1 C2 = 9e-8.
    np.testing.assert_allclose(
        ssim(x, x, spec, 1.0), 1.0, rtol=0, atol=2e-5 * spec.epsilon / 1e-12 + 1e-15
    )
    np.testing.assert_allclose(ssim(x, y, spec, 1.0), ssim(y, x, spec, 1.0), rtol=1e-14)
    assert (ssim(x, y, spec, 1.0) < 0.9).all()


@pytest.mark.parametrize("name", list_specs())
def test_scaling_images_and_range_changes_nothing(name) -> None:
    spec = ssim_spec(name).replace(epsilon=0.0)
    x, y = _pair((1, 1, 26, 31))
    once, scaled = ssim(x, y, spec, 1.0), ssim(4 * x, 4 * y, spec, 4.0)
    np.testing.assert_allclose(once, scaled, rtol=1e-13)


def test_scikit_images_own_test_number() -> None:
    # tests/metrics/test_structural_similarity.py of scikit-image: camera with noise of sigma 20.
    data = pytest.importorskip("skimage.data")
    camera = data.camera()
    noise = np.random.RandomState(5).randn(*camera.shape)
    noisy = np.clip(camera + 20.0 * noise, 0, 255).astype(np.uint8)
    value = ssim(camera[None, None], noisy[None, None], ssim_spec("scikit-image"), 255)
    # scikit-image sums windows by a running mean, which accumulates rounding along a line.
    assert value[0] == pytest.approx(0.3674518327910367, abs=1e-12)


def test_bad_arguments() -> None:
    parameters = ssim_spec("wang2004").resolve((16, 16), 1.0)
    x = np.zeros((1, 1, 16, 16))
    with pytest.raises(ValueError, match=r"equal shape, got \(1, 1, 16, 16\) and \(1, 1, 16, 15\)"):
        ssim_forward(x, x[..., 1:], parameters)
    with pytest.raises(ValueError, match=r"2 spatial axes, got \(1, 16, 16\)"):
        ssim_forward(x[0], x[0], parameters)
    with pytest.raises(ValueError, match="expected kind to be 'ssim' or 'cs', got 'l'"):
        ssim_forward(x, x, parameters, kind="l")
    with pytest.raises(
        ValueError, match=r"upstream of shape \(1, 1\) or \(1, 1, 6, 6\), got \(2,\)"
    ):
        ssim_backward(x, x, parameters, np.ones(2))


# --- NaN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_reaches_only_the_windows_that_hold_it(bad) -> None:
    x, y = _pair((2, 2, 16, 17))
    parameters = SSIMSpec(window_size=5, border="reflect").resolve((16, 17), 1.0)
    clean, clean_map = ssim_forward(x, y, parameters)
    x[1, 0, 8, 9] = bad
    values, similarity = ssim_forward(x, y, parameters)
    touched = np.zeros(similarity.shape, dtype=bool)
    touched[1, 0, 6:11, 7:12] = True
    np.testing.assert_array_equal(np.isnan(similarity), touched)
    np.testing.assert_array_equal(similarity[~touched], clean_map[~touched])
    np.testing.assert_array_equal(np.isnan(values), [[False, False], [True, False]])
    grad_x, grad_y = ssim_backward(x, y, parameters, np.ones((2, 2)))
    touched[1, 0, 4:13, 5:14] = True
    np.testing.assert_array_equal(np.isnan(grad_x), touched)
    np.testing.assert_array_equal(np.isnan(grad_y), touched)
    assert np.isfinite(clean).all()


# --- Masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ssim", "cs"])
@pytest.mark.parametrize("name", MASKABLE)
def test_masked_map_equals_brute_force(name, kind) -> None:
    shape = (11, 12)
    x, y = _pair((1, 2, *shape))
    mask = np.random.default_rng(3).random((1, 2, *shape)) > 0.4
    mask[0, 0, :7, :8] = False  # windows without a valid pixel
    x[~mask], y[~mask] = np.nan, np.inf
    parameters = SSIMSpec(**CONVENTIONS[name]).resolve(shape, 1.0)
    values, similarity = ssim_forward(x, y, parameters, mask=mask, kind=kind)
    centres = tuple(
        slice(before, size - after, parameters.stride)
        for size, (before, after) in zip(shape, parameters.crop, strict=True)
    )
    for plane in np.ndindex(1, 2):
        expected = _brute_force_map(x[plane], y[plane], parameters, kind, mask[plane])
        np.testing.assert_allclose(similarity[plane], expected, rtol=0, atol=MAP_TOLERANCE)
        counted = expected[mask[plane][centres]]
        assert values[plane] == pytest.approx(counted.mean(), abs=MAP_TOLERANCE)


def test_a_mask_without_a_hole_changes_nothing_inside() -> None:
    x, y = _pair((1, 2, 16, 17))
    parameters = ssim_spec("wang2004").resolve((16, 17), 1.0)
    plain, masked = (ssim_forward(x, y, parameters, mask=m)[0] for m in (None, np.bool_(True)))
    np.testing.assert_allclose(plain, masked, rtol=1e-14)


def test_an_image_without_a_valid_pixel_is_nan_and_has_no_gradient() -> None:
    x, y = _pair((2, 1, 16, 17))
    mask = np.array([True, False]).reshape(2, 1, 1, 1)
    parameters = ssim_spec("wang2004").resolve((16, 17), 1.0)
    values, similarity = ssim_forward(x, y, parameters, mask=mask)
    assert np.isfinite(values[0])
    assert np.isnan(values[1])
    np.testing.assert_array_equal(similarity[1], 0.0)
    for gradient in ssim_backward(x, y, parameters, np.ones((2, 1)), mask=mask):
        assert (gradient[0] != 0.0).any()
        np.testing.assert_array_equal(gradient[1], 0.0)


def test_pixels_outside_the_mask_do_not_matter_and_get_no_gradient() -> None:
    x, y = _pair((1, 1, 16, 17))
    mask = np.random.default_rng(4).random((16, 17)) > 0.3
    parameters = SSIMSpec(window_size=5, border="symmetric").resolve((16, 17), 1.0)
    upstream = np.ones((1, 1))
    expected = ssim_forward(x, y, parameters, mask=mask)[0]
    gradients = ssim_backward(x, y, parameters, upstream, mask=mask)
    x[0, 0, ~mask], y[0, 0, ~mask] = np.inf, np.nan
    np.testing.assert_array_equal(ssim_forward(x, y, parameters, mask=mask)[0], expected)
    for gradient, other in zip(
        gradients, ssim_backward(x, y, parameters, upstream, mask=mask), strict=True
    ):
        np.testing.assert_array_equal(gradient, other)
        np.testing.assert_array_equal(gradient[0, 0, ~mask], 0.0)


# --- Gradients ------------------------------------------------------------------------------------


def _finite_differences(function, x: np.ndarray, y: np.ndarray, which: int) -> np.ndarray:
    """Central differences with respect to every pixel of one of the images.

    ``function`` maps batches of images to one number each, so that all differences of the one image
    given take two calls.
    """
    step = 1e-5
    steps = step * np.eye(x.size).reshape(x.size, *x.shape[1:])
    dx, dy = (steps, 0.0) if which == 0 else (0.0, steps)
    x, y = (np.repeat(image, image.size, axis=0) for image in (x, y))
    return (function(x + dx, y + dy) - function(x - dx, y - dy)) / (2 * step)


def _check_gradients(function, gradients, x: np.ndarray, y: np.ndarray) -> None:
    for which, gradient in enumerate(gradients):
        expected = _finite_differences(function, x, y, which).reshape(x.shape)
        # Truncation, step^2 times a third derivative of up to 1e3 here, and rounding, 1e-16 / step.
        tolerance = 2e-7 * np.abs(expected).max() + 1e-9
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance)


def _sum(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).sum(axis=1)


@pytest.mark.parametrize("per", ["plane", "map"])
@pytest.mark.parametrize("kind", ["ssim", "cs"])
@pytest.mark.parametrize(
    ("name", "masked"),
    [*[(name, False) for name in CONVENTIONS], *[(name, True) for name in MASKABLE]],
)
def test_gradient_equals_finite_differences(name, masked, kind, per) -> None:
    shape = (7, 8)
    x, y = _pair((1, 2, *shape), seed=5)
    parameters = SSIMSpec(**CONVENTIONS[name]).resolve(shape, 1.0)
    generator = np.random.default_rng(6)
    mask = generator.random((1, 1, *shape)) > 0.35 if masked else None
    which = 0 if per == "plane" else 1
    upstream = generator.standard_normal(ssim_forward(x, y, parameters)[which].shape)

    def function(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _sum(upstream * ssim_forward(x, y, parameters, mask=mask, kind=kind)[which])

    gradients = ssim_backward(x, y, parameters, upstream, mask=mask, kind=kind)
    assert max(np.abs(gradient).max() for gradient in gradients) > 1e-3
    _check_gradients(function, gradients, x, y)


def test_clamps_are_active_in_the_tests_above() -> None:
    x, y = _pair((1, 2, 7, 8), seed=5)
    clamped = SSIMSpec(**CONVENTIONS["clamp-value"])
    _, similarity = ssim_forward(x, y, clamped.resolve((7, 8), 1.0))
    for limit in (0.2, 0.5):
        assert 0.05 < (similarity == limit).mean() < 0.8
    variance = SSIMSpec(**CONVENTIONS["clamp-variance"])
    _, with_clamp = ssim_forward(x, y, variance.resolve((7, 8), 1.0))
    _, without = ssim_forward(x, y, variance.replace(clamp_variance=False).resolve((7, 8), 1.0))
    assert 0.05 < (with_clamp != without).mean() < 1.0


def test_gradient_of_a_volume_equals_finite_differences() -> None:
    shape = (4, 5, 4)
    x, y = _pair((1, 1, *shape), seed=7)
    spec = SSIMSpec(window_size=(3, 5, 3), border="reflect", covariance="sample")
    parameters = spec.resolve(shape, 1.0)
    upstream = np.random.default_rng(8).standard_normal((1, 1, *shape))
    gradients = ssim_backward(x, y, parameters, upstream)

    def function(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _sum(upstream * ssim_forward(x, y, parameters)[1])

    _check_gradients(function, gradients, x, y)


def test_gradient_of_one_position_between_constants_is_the_window() -> None:
    a, b = 0.3, 0.6
    parameters = ssim_spec("wang2004").resolve((15, 15), 1.0)
    x, y = np.full((1, 1, 15, 15), a), np.full((1, 1, 15, 15), b)
    upstream = np.zeros((1, 1, 5, 5))
    upstream[0, 0, 2, 2] = 1.0
    grad_x, grad_y = ssim_backward(x, y, parameters, upstream)
    window = np.zeros((15, 15))
    window[2:13, 2:13] = np.outer(*parameters.taps)
    # The variance terms vanish, since x = E[x] everywhere; what is left is the slope of
    # (2ab + C1) / (a^2 + b^2 + C1).
    c1 = parameters.c1
    squares, product = a * a + b * b + c1, 2 * a * b + c1
    slope_a = 2 * b / squares - product * 2 * a / squares**2
    slope_b = 2 * a / squares - product * 2 * b / squares**2
    np.testing.assert_allclose(grad_x[0, 0], slope_a * window, rtol=0, atol=1e-12)
    np.testing.assert_allclose(grad_y[0, 0], slope_b * window, rtol=0, atol=1e-12)


def test_gradient_of_identical_images_is_zero() -> None:
    x, _ = _pair((1, 1, 16, 16))
    parameters = ssim_spec("wang2004").resolve((16, 16), 1.0)
    for gradient in ssim_backward(x, x, parameters, np.ones((1, 1))):
        np.testing.assert_allclose(gradient, 0.0, rtol=0, atol=1e-15)  # 1 is the maximum


@pytest.mark.parametrize("nonnegative", ["none", "channel"])
def test_gradient_of_a_convention_equals_finite_differences(nonnegative) -> None:
    x, y = _pair((1, 2, 8, 9), seed=9)
    y[:, 1] = 1.0 - x[:, 1]  # a channel of negative mean
    spec = SSIMSpec(window_size=5, nonnegative=nonnegative)
    values = ssim(x, y, spec, 1.0)
    gradients = ssim_gradient(x, y, spec, [-2.0], 1.0)
    _check_gradients(lambda x, y: -2.0 * ssim(x, y, spec, 1.0), gradients, x, y)
    assert (gradients[0][:, 1] == 0.0).all() == (nonnegative == "channel")
    per_channel = [ssim(x[:, c, None], y[:, c, None], SSIMSpec(window_size=5), 1.0) for c in (0, 1)]
    floor = 0.0 if nonnegative == "channel" else -np.inf
    np.testing.assert_allclose(values, np.maximum(per_channel, floor).mean(axis=0), rtol=1e-13)


def test_gradient_through_downsampling_equals_finite_differences() -> None:
    # The smallest image that is reduced has 384 pixels a side: differences in random directions.
    generator = np.random.default_rng(10)
    for name in ("wang2004-downsample", "piq"):
        x, y = _pair((1, 1, 385, 390), seed=11)
        gradients = ssim_gradient(x, y, ssim_spec(name), [1.0], 1.0)
        direction = generator.standard_normal((2, *x.shape))
        step = 1e-4
        above = ssim(x + step * direction[0], y + step * direction[1], ssim_spec(name), 1.0)
        below = ssim(x - step * direction[0], y - step * direction[1], ssim_spec(name), 1.0)
        expected = float(above[0] - below[0]) / (2 * step)
        assert np.vdot(gradients, direction) == pytest.approx(expected, rel=1e-6)


# --- Loss and several scales ----------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_loss_and_its_gradient(masked) -> None:
    x, y = _pair((1, 2, 8, 9), seed=12)
    x[0, 0, 3, 3] = y[0, 0, 3, 3]
    mask = np.random.default_rng(13).random((1, 1, 8, 9)) > 0.3 if masked else None
    weights = {"ssim_weight": 0.8, "l1_weight": 0.3}
    parameters = SSIMSpec(window_size=5, border="reflect").resolve((8, 9), 1.0)
    ssim_values, l1_values, *gradients = ssim_loss(x, y, parameters, mask=mask, **weights)
    np.testing.assert_array_equal(ssim_values, ssim_forward(x, y, parameters, mask=mask)[0])
    counted = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    for plane in np.ndindex(1, 2):
        difference = np.abs(x - y)[plane][counted[plane]]
        assert l1_values[plane] == pytest.approx(difference.mean(), rel=1e-14)

    def function(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        s, absolute, *_ = ssim_loss(x, y, parameters, mask=mask, **weights)
        return np.mean(0.8 * (1 - s) + 0.3 * absolute, axis=1)

    # At x = y the slope of |x - y| is 0 by definition, which is what central differences give too.
    _check_gradients(function, gradients, x, y)


MULTI_SCALE = [name for name in list_specs() if ssim_spec(name).scale_weights is not None]


@pytest.mark.parametrize("rectify", ["relu", "simple"])
@pytest.mark.parametrize("name", MULTI_SCALE)
def test_gradient_of_several_scales_equals_finite_differences(name, rectify) -> None:
    spec = ssim_spec(name).replace(
        window_size=3, truncate=None, sigma=0.8, scale_weights=(0.3, 0.3, 0.4), rectify=rectify
    )
    x, y = _pair((1, 2, 13, 14), seed=14)
    y = 0.7 * x + 0.3 * y  # keeps the means of all scales positive
    gradients = ms_ssim_gradient(x, y, spec, [-2.0], 1.0)
    _check_gradients(lambda x, y: -2.0 * ms_ssim(x, y, spec, 1.0), gradients, x, y)


def test_loss_and_gradients_of_a_batch_are_those_of_its_images() -> None:
    x, y = _pair((3, 2, 13, 14), seed=16)
    y = 0.7 * x + 0.3 * y
    several = ssim_spec("piq").replace(window_size=3, scale_weights=(0.3, 0.3, 0.4))
    single = ssim_spec("kornia")
    upstream = np.array([1.0, -2.0, 0.5])
    parameters = single.resolve((13, 14), 1.0)
    loss = ssim_loss(x, y, parameters, ssim_weight=0.8, l1_weight=0.3)
    batch = [
        *ms_ssim_gradient(x, y, several, upstream, 1.0),
        *ssim_gradient(x, y, single, upstream, 1.0),
        *(3.0 * gradient for gradient in loss[2:]),
    ]
    for n in range(3):
        one, other, up = x[n, None], y[n, None], upstream[n, None]
        loss = ssim_loss(one, other, parameters, ssim_weight=0.8, l1_weight=0.3)
        alone = [
            *ms_ssim_gradient(one, other, several, up, 1.0),
            *ssim_gradient(one, other, single, up, 1.0),
            *loss[2:],
        ]
        for gradient, expected in zip(batch, alone, strict=True):
            np.testing.assert_allclose(gradient[n], expected[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", MULTI_SCALE)
def test_identical_and_opposite_images_of_several_scales(name) -> None:
    x, _ = _pair((1, 2, 176, 177))
    spec = ssim_spec(name)
    np.testing.assert_allclose(ms_ssim(x, x, spec, 1.0), 1.0, rtol=1e-14)
    # Contrast-structure of x and 1 - x is negative: rectified to 0, without a gradient.
    np.testing.assert_array_equal(ms_ssim(x, 1 - x, spec, 1.0), 0.0)
    for gradient in ms_ssim_gradient(x, 1 - x, spec, [1.0], 1.0):
        np.testing.assert_array_equal(gradient, 0.0)


def test_one_scale_of_weight_one_is_the_single_scale_index() -> None:
    x, y = _pair((2, 3, 20, 21), seed=15)
    spec = ssim_spec("wang2004")
    single = ssim(x, 0.5 * x + 0.5 * y, spec, 1.0)
    several = ms_ssim(x, 0.5 * x + 0.5 * y, spec.replace(scale_weights=[1.0]), 1.0)
    np.testing.assert_allclose(single, several, rtol=1e-14)
