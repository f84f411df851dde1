# SPDX-License-Identifier: Apache-2.0
"""Template search, every executor and both methods against the float64 definition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import sosie
from executors import EXECUTORS, computing_by
from sosie.reference import template as reference

torch = pytest.importorskip("torch")

# Relative to the largest value. float64: rounding of up to a thousand additions. float32: of at
# most 256 additions in a row, which are of one sign, before sums are widened.
TOLERANCE = {"uint8": 1e-5, "float32": 1e-5, "float64": 1e-13}

#: Images and templates on both sides of vectors (4 to 16 lanes), blocks (16 to 64 positions), tasks
#: (16 rows) and runs (256 terms).
CASES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 1), (1, 1)), ((5, 5), (5, 5)), ((17, 33), (3, 5)), ((16, 64), (1, 1)), ((15, 65), (4, 2)),
    ((2, 130), (2, 3)), ((40, 7), (17, 7)), ((1, 700), (1, 300)), ((3, 18, 31), (3, 2, 15)),
    ((2, 3, 19, 21), (3, 4, 4)), ((2, 2, 9, 34), (3, 3)),
]  # fmt: skip


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[str]:
    """The executor that public functions use meanwhile."""
    with computing_by(request.param):
        yield request.param.partition("-")[0]


def noise(shape: tuple[int, ...], seed: int, dtype: str) -> np.ndarray:
    values = np.random.default_rng([seed, *shape]).random(shape)
    return (256 * values if dtype == "uint8" else values).astype(dtype)


def expected_map(
    image: np.ndarray, template: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    channels = template.shape[:-2] or (1,)
    values = template.reshape(*channels, *template.shape[-2:])
    result = reference.template_search(
        image.reshape(-1, *channels, *image.shape[-2:]),
        values,
        None if weights is None else np.broadcast_to(weights, template.shape).reshape(values.shape),
    )
    return result.reshape(*image.shape[: image.ndim - template.ndim], *result.shape[1:])


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    error = np.abs(found - expected)[~np.isnan(expected)]
    assert error.max(initial=0.0) <= tolerance * np.nanmax(np.abs(expected), initial=0.0)


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize(("shape", "own"), CASES)
def test_equals_the_definition(executor, shape, own, method, dtype) -> None:  # noqa: ARG001
    image, template = noise(shape, 0, dtype), noise(own, 1, dtype)
    weight = np.random.default_rng(2).random(own)
    mask = np.random.default_rng(3).random(own[-2:]) > 0.3
    for chosen in ({}, {"weight": weight}, {"mask": mask}, {"weight": weight, "mask": mask}):
        factors = [np.asarray(factor, np.float64) for factor in chosen.values()]
        weights = np.prod(np.broadcast_arrays(*factors), axis=0) if factors else None
        found = sosie.match_template_ssd(image, template, **chosen, method=method)
        assert found.dtype == ("float32" if dtype == "float32" else "float64")
        tolerance = max(TOLERANCE[dtype], 2e-7 if dtype == "float32" else 1e-12)
        assert_close(found, expected_map(image, template, weights), tolerance)


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_exact_match_is_exactly_zero(executor, dtype, method) -> None:  # noqa: ARG001
    image = noise((3, 60, 70), 0, dtype)
    template = image[:, 11:30, 24:50].copy()
    weight = np.random.default_rng(2).random(template.shape)
    for chosen in ({}, {"weight": weight}):
        found = sosie.match_template_ssd(image, template, **chosen, method=method)
        assert found[11, 24] == 0.0
        assert np.count_nonzero(found) == found.size - 1
        assert (found >= 0.0).all()


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_constant_images_match_everywhere(executor, value, method) -> None:  # noqa: ARG001
    for dtype in TOLERANCE:
        image = np.full((40, 50), value, dtype)
        assert not sosie.match_template_ssd(image, image[:9, :7], method=method).any()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_methods_agree_on_every_value(executor, dtype, scale) -> None:  # noqa: ARG001
    """Also on small ones: a template with a little noise, on a background that is far from it."""
    generator = np.random.default_rng(0)
    image = 100.0 + scale * generator.random((80, 90))
    template = image[20:52, 30:62] + 1e-5 * scale * generator.standard_normal((32, 32))
    image, template = image.astype(dtype), template.astype(dtype)
    direct, fft = (
        sosie.match_template_ssd(image, template, method=method) for method in ("direct", "fft")
    )
    # What the docstring promises, of each value.
    tolerance = 1e-5 if dtype == "float32" else 2e-6
    assert (np.abs(direct - fft) <= tolerance * direct).all()


def test_sums_of_bytes_are_exact(executor) -> None:  # noqa: ARG001
    image, template = noise((30, 700), 0, "uint8"), noise((7, 401), 1, "uint8")
    image[0], template[0] = 255, 0
    found = sosie.match_template_ssd(image, template, method="direct")
    np.testing.assert_array_equal(found, expected_map(image, template))


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_pixels_reach_the_positions_that_see_them(executor, bad, method) -> None:  # noqa: ARG001
    image, template = noise((30, 40), 0, "float64"), noise((5, 7), 1, "float64")
    clean = sosie.match_template_ssd(image, template, method=method)
    image[12, 20] = bad
    found = sosie.match_template_ssd(image, template, method=method)
    seen = np.zeros(found.shape, bool)
    seen[8:13, 14:21] = True
    assert not np.isfinite(found[seen]).any()
    assert_close(found[~seen], clean[~seen], 1e-12)
    # Where the mask has a hole over it, it is not seen.
    mask = np.ones((5, 7), bool)
    mask[2, 3] = False
    found = sosie.match_template_ssd(image, template, mask=mask, method=method)
    assert np.isfinite(found[10, 17])
    assert np.count_nonzero(~np.isfinite(found)) == 34


# --- Layouts, threads, tensors --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["direct", "fft"])
def test_strides_and_tensors(executor, method) -> None:  # noqa: ARG001
    image, template = noise((2, 3, 20, 45), 0, "float32"), noise((3, 6, 5), 1, "float32")
    weight, mask = noise((6, 5), 2, "float32"), np.random.default_rng(0).random((6, 5)) > 0.2
    expected = sosie.match_template_ssd(image, template, weight, mask, method=method)
    views = [
        np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 1, -1)), -1, 1),
        np.ascontiguousarray(image[..., ::-1, ::-1])[..., ::-1, ::-1],
        np.repeat(image, 2, -1)[..., ::2],
    ]
    for view in views:
        before = view.copy()
        found = sosie.match_template_ssd(view, np.asfortranarray(template), weight, mask,
                                         method=method)  # fmt: skip
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(view, before)
    tensors = [torch.from_numpy(array) for array in (image, template, weight, mask)]
    tensors[0].requires_grad_()
    found = sosie.match_template_ssd(*tensors, method=method)
    assert isinstance(found, torch.Tensor)
    assert not found.requires_grad
    np.testing.assert_array_equal(found.numpy(), expected)


def test_same_bits_for_any_number_of_threads(executor) -> None:  # noqa: ARG001
    images, template = noise((2, 1, 70, 50), 0, "float32"), noise((1, 5, 6), 1, "float32")
    search = sosie.backends.executor(images).template_search
    one = search(images, template, None, "float32", threads=1)
    for threads in (2, 3, 5):
        np.testing.assert_array_equal(
            search(images, template, None, "float32", threads=threads), one
        )


def test_the_cheaper_method_is_chosen(executor, monkeypatch) -> None:  # noqa: ARG001
    from sosie import template as module

    chosen: list[str] = []

    def instead_of(name: str) -> Any:
        def note(_search: Any) -> np.ndarray:
            chosen.append(name)
            return np.zeros((1, 1, 1))

        return note

    for name in ("_direct", "_by_transform"):
        monkeypatch.setattr(module, name, instead_of(name))
    image = noise((512, 512), 0, "uint8")
    sosie.match_template_ssd(image, image[:8, :8])
    sosie.match_template_ssd(image, image[:200, :200])
    assert chosen == ["_direct", "_by_transform"]


def test_transforms_without_scipy(run_python) -> None:
    printed = run_python(
        "import sys\n"
        "sys.modules['scipy'] = None\n"
        "import numpy as np, sosie\n"
        "image = np.random.default_rng(0).random((31, 37))\n"
        "found = sosie.match_template_ssd(image, image[3:12, 5:17], method='fft')\n"
        "other = sosie.match_template_ssd(image, image[3:12, 5:17], method='direct')\n"
        "print(found[3, 5] == 0.0, np.allclose(found, other, rtol=1e-6))"
    )
    assert printed.split() == ["True", "True"]


# --- Bad input ------------------------------------------------------------------------------------

IMAGE, TEMPLATE = np.ones((3, 9, 8), np.float32), np.ones((3, 2, 2), np.float32)
BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "dtypes": ({"template": TEMPLATE.astype(float)}, TypeError, "float32 and float64"),
    "int64": ({"image": IMAGE.astype(int), "template": TEMPLATE.astype(int)}, TypeError, "int64"),
    "libraries": ({"template": torch.ones(3, 2, 2)}, TypeError, "torch.Tensor"),
    "axes": ({"template": TEMPLATE[None]}, ValueError, r"\(1, 3, 2, 2\)"),
    "channels": ({"template": TEMPLATE[:2]}, ValueError, r"\(2, 2, 2\) and \(3, 9, 8\)"),
    "empty": ({"template": TEMPLATE[:, :0]}, ValueError, r"\(3, 0, 2\)"),
    "size": ({"template": np.ones((3, 9, 9), np.float32)}, ValueError, r"\(9, 8\), got \(9, 9\)"),
    "weight-dtype": ({"weight": TEMPLATE.astype(int)}, TypeError, "float32 or float64.*int64"),
    "weight-shape": ({"weight": TEMPLATE[:, :, :0]}, ValueError, r"\(3, 2, 2\), got \(3, 2, 0\)"),
    "weight-sign": ({"weight": -TEMPLATE}, ValueError, r"-1\.0"),
    "weight-nan": ({"weight": TEMPLATE * np.nan}, ValueError, "nan"),
    "mask": ({"mask": TEMPLATE}, TypeError, "bool.*float32"),
    "method": ({"method": "fast"}, ValueError, "'auto'.*'fast'"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments_are_named(name) -> None:
    changes, error, message = BAD_CALLS[name]
    with pytest.raises(error, match=message):
        sosie.match_template_ssd(**{"image": IMAGE, "template": TEMPLATE, **changes})
