# SPDX-License-Identifier: Apache-2.0
"""What is promised of float32, of images that are nearly equal, and of NaN and infinities."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest

from sosie.reference import ssim as reference
from sosie.spec import SSIMParameters, SSIMSpec, list_specs, ssim_spec
from ssim_cases import (
    CONVENTIONS,
    TOLERANCE,
    assert_close,
    assert_gradient,
    convention,
    images,
    parameters_of,
    run_all,
)

torch = pytest.importorskip("torch")


# --- The promises of accuracy ---------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def photographs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Crops of photographs in [0, 1] beside damaged ones, float32."""
    data = pytest.importorskip("skimage.data")
    from scipy import ndimage

    gray = data.camera()[150:246, 180:270][None, None] / np.float32(255)
    bright = data.camera()[20:100, 330:426][None, None] / np.float32(255)  # sky
    color = np.moveaxis(data.astronaut()[10:106, 170:260], -1, 0)[None] / np.float32(255)
    generator = np.random.default_rng(11)
    pairs = {}
    for name, image in {"gray": gray, "sky": bright, "color": color}.items():
        noise = generator.standard_normal(image.shape).astype(np.float32)
        damaged = {
            "noise": np.clip(image + 0.05 * noise, 0, 1),
            "slight": np.clip(image + 0.002 * noise, 0, 1),
            "blur": ndimage.gaussian_filter(image, (0, 0, 1.2, 1.2)),
            "faded": np.float32(0.85) * image + np.float32(0.1),
            "coarse": np.rint(image * 15) / np.float32(15),
        }
        pairs |= {f"{name}-{how}": (image, other) for how, other in damaged.items()}
    return pairs


@functools.lru_cache(maxsize=1024)
def expected_of_photograph(pair: str, p: SSIMParameters, kind: str) -> tuple[Any, ...]:
    x, y = photographs()[pair]
    gradients = reference.ssim_backward(x, y, p, np.ones(x.shape[:2]), kind=kind)
    return *reference.ssim_forward(x, y, p, kind=kind), gradients


@pytest.mark.parametrize("name", list_specs())
def test_float32_on_photographs(optimised, name) -> None:
    # The tails of a Gaussian are small numbers, added with small errors. Of 49 equal weights every
    # addition rounds at the sum's own size: up to twice the error on whole photographs.
    maps = {"ssim": 6e-5 if name == "scikit-image" else TOLERANCE["float32"].map}
    # The factor lacks what brings the index down where it is worst, a luminance term below 1.
    maps["cs"] = max(5e-5, maps["ssim"])
    for pair, (x, y) in photographs().items():
        p = ssim_spec(name).resolve(x.shape[2:], 1.0)
        upstream = np.ones(x.shape[:2])
        for kind in ("ssim", "cs"):
            tolerance = TOLERANCE["float32"]._replace(map=maps[kind])
            values, similarity_map, gradients = expected_of_photograph(pair, p, kind)
            found = optimised.ssim_forward(x, y, p, kind=kind, return_map=True)
            assert_close(found[0], values, tolerance.mean)
            assert_close(found[1], similarity_map, tolerance.map)
            found = optimised.ssim_backward(x, y, p, upstream, kind=kind, need_y=True)
            for one, other in zip(found, gradients, strict=True):
                assert_gradient(one, other, tolerance, np.zeros(1))


# --- Where rounding shows most --------------------------------------------------------------------


NORMALISED = [
    *list_specs(), "gaussian-33", "uniform-15", "skewed", "replicate-17", "symmetric-5", "sample"
]  # fmt: skip


def _constant(value: float, like: np.ndarray) -> np.ndarray:
    return np.full(like.shape, value)


# Of what is damaged little or nothing: the name, and how the other image comes of it.
NEAR = {
    "itself": lambda x: x,
    "next-number": lambda x: np.nextafter(x.astype(np.float32), np.float32(2)).astype(float),
    "one-bit": lambda x: x + 2.0**-23,
    "offset": lambda x: x + 1e-4,
    "shift": lambda x: x + 0.1,
    "scale": lambda x: x * 1.001,
    "ripple": lambda x: x + 1e-5 * np.sin(np.arange(x.shape[-1])),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", NORMALISED)
def test_near_identical_images_never_exceed_one(optimised, name, dtype) -> None:
    """Without any clamp, on noise, photographs and constants."""
    shape = (1, 1, 40, 48)
    changes = CONVENTIONS[name] | ({"name": name} if name in list_specs() else {})
    p = parameters_of(changes, shape)
    waves = images(shape)[0]
    photograph = photographs()["gray-noise"][0][..., :40, :48].astype(float)
    levels = [_constant(value, waves) for value in (0.0, 0.2, 1 / 3, 0.5, 1.0)]
    for x, near in itertools.product([waves, photograph, *levels], NEAR.values()):
        pair = [image.astype(dtype) for image in (x, near(x))]
        values, similarity_map = optimised.ssim_forward(*pair, p, return_map=True)
        assert (similarity_map <= 1.0).all()  # False for NaN
        assert (values <= 1.0).all()
        for gradient in optimised.ssim_backward(*pair, p, np.ones((1, 1)), need_y=True):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", [name for name in NORMALISED if not name.startswith("kornia")])
def test_an_image_is_like_itself(optimised, name, dtype) -> None:
    """1, and no gradient; kornia's epsilon in the denominator takes a little."""
    shape = (1, 2, 40, 48)
    peak = 1.0 if "float" in dtype else float(np.iinfo(dtype).max)
    changes = CONVENTIONS[name] | ({"name": name} if name in list_specs() else {})
    p = convention(changes).resolve(shape[2:], peak)
    x = (peak * images(shape)[0]).astype(dtype)
    values, similarity_map = optimised.ssim_forward(x, x, p, return_map=True)
    # A division rounds once, and so does the mean.
    tolerance = float(np.finfo(similarity_map.dtype).eps)
    assert np.abs(similarity_map - 1.0).max() <= tolerance
    assert np.abs(values - 1.0).max() <= tolerance
    largest = max(np.abs(g).max() for g in optimised.ssim_backward(x, x, p, values, need_y=True))
    # dS/dx is at most about 1 / sqrt(C2), here per position of a mean over all.
    assert largest <= 1e-6 / math.sqrt(p.c2)


@pytest.mark.parametrize(("a", "b"), [*itertools.product((0.0, 0.25, 0.6, 1.0), repeat=2)])
@pytest.mark.parametrize("name", ["wang2004", "scikit-image", "kornia", "torchmetrics"])
def test_constant_images_compare_by_luminance_alone(optimised, name, a, b) -> None:
    shape = (1, 1, 24, 31)
    p = parameters_of({"name": name}, shape)
    expected = (2 * a * b + p.c1) * p.c2 / ((a * a + b * b + p.c1) * p.c2 + p.epsilon)
    for dtype in TOLERANCE:
        x, y = (np.full(shape, value, dtype) for value in (a, b))
        # Each variance is a few roundings of (a - b)^2 or (a + b - 1)^2 instead of 0, over C2.
        tolerance = float(np.finfo(dtype).eps) / p.c2
        assert_close(optimised.ssim_forward(x, y, p)[0], np.full((1, 1), expected), tolerance)


# --- NaN and infinities ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(3, 2, 33, 70), (2, 2, 9, 12, 17)])
def test_bad_pixels_stay_in_their_image(optimised, shape, bad, dtype) -> None:
    """Other planes keep every bit; in their own plane they reach the windows that hold them."""
    p = SSIMSpec(window_size=5, border="reflect").resolve(shape[2:], 1.0)
    x, y = (image.astype(dtype) for image in images(shape))
    good = run_all(optimised, x, y, p)
    place = tuple(size // 2 for size in shape[2:])
    x[(1, 0, *place)] = bad
    found = run_all(optimised, x, y, p)
    clean = np.ones(shape[:2], dtype=bool)
    clean[1, 0] = False
    for one, other in zip(found, good, strict=True):
        np.testing.assert_array_equal(one[clean], other[clean])
    for i in (0, 6, 7):  # the means; an infinite difference has an infinite mean
        assert not np.isfinite(found[i][1, 0])
    reached = np.zeros(shape[2:], dtype=bool)
    reached[tuple(slice(at - 2, at + 3) for at in place)] = True
    np.testing.assert_array_equal(np.isnan(found[1][1, 0]), reached)
    gradient = optimised.ssim_backward(x, y, p, np.ones(shape[:2]))[0]
    reached[tuple(slice(at - 4, at + 5) for at in place)] = True
    np.testing.assert_array_equal(np.isnan(gradient[1, 0]), reached)
