# SPDX-License-Identifier: Apache-2.0
"""Drop-ins of structural similarity agree with what they stand in for.

Installed libraries are called with the same arguments, over random shapes and options: results,
their dtypes and shapes, gradients for both images, and types of exceptions. fused-ssim, fussim and
TensorFlow are not installed: their formulas are transcribed here, with dense windows.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
functional = torch.nn.functional

from sosie.compat import (  # noqa: E402
    NotCovered,
    fused_ssim,
    fussim,
    kornia,
    monai,
    piq,
    pytorch_msssim,
    skimage,
    tensorflow,
    torchmetrics,
)

pytestmark = pytest.mark.usefixtures("importable_piq")

#: Two computations in float64 that differ in the order of their sums, and in float32 windows or
#: exponents where the peer has such: 1e-7 of a value, more of a map where it is flat.
VALUE, GRADIENT = 1e-6, 1e-6
#: In float32, a local variance is known to some 1e-7 of the squared range, and a value of a map is
#: off by that over C2, 9e-4 of it; peers are off by more. Means over these images are better. piq's
#: own multi-scale index in float32 is off by 2e-5, so that float64 is what ours is held against.
SINGLE_MAP, SINGLE = 1e-4, 1e-6


def peer(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def images(shape: tuple[int, ...], seed: int = 0, data_range: float = 1.0) -> list[Any]:
    """Two batches that have to do with each other, in float64, recording gradients."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    noise = torch.rand(shape, generator=generator, dtype=torch.float64)
    y = 0.6 * x + 0.4 * noise
    return [(image * data_range).requires_grad_() for image in (x, y)]


def parts(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def check_alike(ours: Any, theirs: Any, tolerance: float = VALUE) -> None:
    """Same kind, and for every part the same dtype, shape and numbers."""
    assert type(ours) is type(theirs)
    for own, other in zip(parts(ours), parts(theirs), strict=True):
        assert (own.dtype, own.shape) == (other.dtype, other.shape)
        scale = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(own, other, rtol=0, atol=tolerance * scale, equal_nan=True)


def check_gradients(ours: Any, theirs: Any, tensors: list[Any]) -> None:
    """Gradients of every part of two results, with the same upstream gradient."""
    for own, other in zip(parts(ours), parts(theirs), strict=True):
        upstream = torch.linspace(0.5, 1.5, other.numel(), dtype=other.dtype).reshape(other.shape)
        pairs = zip(
            torch.autograd.grad(own, tensors, upstream, retain_graph=True),
            torch.autograd.grad(other, tensors, upstream, retain_graph=True),
            strict=True,
        )
        for gradient, expected in pairs:
            scale = float(expected.abs().max())
            torch.testing.assert_close(gradient, expected, rtol=0, atol=GRADIENT * scale + 1e-15)


def check_call(ours: Callable[..., Any], theirs: Callable[..., Any], tensors: list[Any]) -> None:
    """Results and gradients in float64; results in float32."""
    result, expected = ours(*tensors), theirs(*tensors)
    check_alike(result, expected)
    check_gradients(result, expected, tensors)
    singles = [tensor.detach().float() for tensor in tensors]
    with torch.no_grad():
        result, kind = ours(*singles), theirs(*singles)
        expected = theirs(*(single.double() for single in singles))
    assert [part.dtype for part in parts(result)] == [part.dtype for part in parts(kind)]
    for own, other in zip(parts(result), parts(expected), strict=True):
        check_alike(own.double(), other, SINGLE_MAP if other.ndim > 2 else SINGLE)


def options(**strategies: Any) -> Any:
    """Some of the options, as keyword arguments."""
    return st.fixed_dictionaries({}, optional=strategies)


def some(*values: Any) -> Any:
    return st.sampled_from(values)


SEEDS = st.integers(0, 10)
SIDES = st.integers(23, 40)  # of images of one scale
WIDE = st.integers(176, 190)  # of images of five
PLANES = st.tuples(st.integers(1, 2), st.integers(1, 3))

sweep = settings(max_examples=12)
few = settings(max_examples=5)


# --- pytorch-msssim -------------------------------------------------------------------------------

MSSSIM_OPTIONS = {
    "size_average": st.booleans(),
    "win_size": some(5, 7, 11),
    "win_sigma": some(0.8, 1.5),
    "K": some((0.01, 0.03), [0.03, 0.1]),
}


@sweep
@given(
    PLANES, SIDES, SIDES, some(1.0, 255), SEEDS,
    options(nonnegative_ssim=st.booleans(), **MSSSIM_OPTIONS),
)  # fmt: skip
def test_pytorch_msssim(planes, height, width, data_range, seed, chosen) -> None:
    theirs = peer("pytorch_msssim")
    tensors = images((*planes, height, width), seed, data_range)
    check_call(
        lambda x, y: pytorch_msssim.ssim(x, y, data_range, **chosen),
        lambda x, y: theirs.ssim(x, y, data_range, **chosen),
        tensors,
    )


@few
@given(PLANES, st.integers(11, 14), st.integers(11, 14), SEEDS, options(**MSSSIM_OPTIONS))
def test_pytorch_msssim_of_volumes(planes, depth, width, seed, chosen) -> None:
    theirs = peer("pytorch_msssim")
    check_call(
        lambda x, y: pytorch_msssim.ssim(x, y, 1.0, **chosen),
        lambda x, y: theirs.ssim(x, y, 1.0, **chosen),
        images((*planes, depth, 12, width), seed),
    )


@few
@given(PLANES, WIDE, WIDE, SEEDS, options(weights=some([0.3, 0.7]), **MSSSIM_OPTIONS))
def test_pytorch_msssim_scales(planes, height, width, seed, chosen) -> None:
    theirs = peer("pytorch_msssim")
    check_call(
        lambda x, y: pytorch_msssim.ms_ssim(x, y, 1.0, **chosen),
        lambda x, y: theirs.ms_ssim(x, y, 1.0, **chosen),
        images((*planes, height, width), seed),
    )


@pytest.mark.filterwarnings("ignore:Skipping Gaussian Smoothing")
def test_pytorch_msssim_leaves_short_axes_unfiltered() -> None:
    theirs, tensors = peer("pytorch_msssim"), images((2, 2, 7, 1, 13, 14))
    with pytest.warns(UserWarning, match="axis 2"):
        result = pytorch_msssim.ssim(*tensors, data_range=1.0)
    check_alike(result, theirs.ssim(*tensors, data_range=1.0))


@pytest.mark.parametrize("name", ["SSIM", "MS_SSIM"])
def test_pytorch_msssim_modules(name) -> None:
    theirs, tensors = peer("pytorch_msssim"), images((1, 3, 170, 166))
    own, other = (getattr(module, name)(1.0, False, 9, 1.2) for module in (pytorch_msssim, theirs))
    torch.testing.assert_close(own.win, other.win)
    check_alike(own(*tensors), other(*tensors))
    assert own.state_dict() == other.state_dict()


def test_pytorch_msssim_by_the_function_inside() -> None:
    theirs, tensors = peer("pytorch_msssim"), images((2, 3, 20, 25))
    window = theirs.SSIM().win
    inside = theirs.ssim.__globals__["_ssim"]
    check_call(
        lambda x, y: pytorch_msssim._ssim(x, y, 1.0, window),
        lambda x, y: inside(x, y, 1.0, window),
        tensors,
    )
    uneven = window.clone()
    uneven[0] = uneven[0].flip(-1) * 2
    with pytest.raises(NotCovered, match="one constant window"):
        pytorch_msssim._ssim(*tensors, 1.0, uneven)


# --- torchmetrics ---------------------------------------------------------------------------------

SIMILARITY = "structural_similarity_index_measure"
MULTI_SCALE = f"multiscale_{SIMILARITY}"
METRICS_OPTIONS = {
    "sigma": some(1.5, (0.8, 1.1)),
    "reduction": some("elementwise_mean", "sum", "none", None),
    "data_range": some(1.0, (0.2, 0.7)),
    "k1": some(0.01, 0.05),
    "k2": some(0.03, 0.1),
}


@sweep
@given(
    PLANES, SIDES, SIDES, SEEDS,
    options(
        gaussian_kernel=st.booleans(), kernel_size=some(11, (5, 9)), **METRICS_OPTIONS,
    ).map(lambda chosen: {"data_range": 1.0, **chosen}),
    some({}, {"return_full_image": True}, {"return_contrast_sensitivity": True}),
)  # fmt: skip
def test_torchmetrics(planes, height, width, seed, chosen, more) -> None:
    theirs = peer("torchmetrics.functional.image")
    check_call(
        lambda x, y: getattr(torchmetrics, SIMILARITY)(x, y, **chosen, **more),
        lambda x, y: getattr(theirs, SIMILARITY)(x, y, **chosen, **more),
        images((*planes, height, width), seed),
    )


@few
@given(
    PLANES, WIDE, WIDE, SEEDS,
    options(betas=some((0.3, 0.7)), normalize=some("relu", "simple", None), **METRICS_OPTIONS),
)  # fmt: skip
def test_torchmetrics_scales(planes, height, width, seed, chosen) -> None:
    theirs = peer("torchmetrics.functional.image")
    chosen = {"data_range": 1.0, **chosen}
    check_call(
        lambda x, y: getattr(torchmetrics, MULTI_SCALE)(x, y, **chosen),
        lambda x, y: getattr(theirs, MULTI_SCALE)(x, y, **chosen),
        images((*planes, height, width), seed),
    )


@pytest.mark.parametrize("name", [SIMILARITY, MULTI_SCALE])
def test_torchmetrics_with_the_range_of_the_images(name) -> None:
    theirs, tensors = peer("torchmetrics.functional.image"), images((2, 2, 177, 180))
    with torch.no_grad():
        check_alike(getattr(torchmetrics, name)(*tensors), getattr(theirs, name)(*tensors))
    with pytest.raises(NotCovered, match="give a data_range"):
        getattr(torchmetrics, name)(*tensors)


def test_torchmetrics_of_volumes() -> None:
    theirs, tensors = peer("torchmetrics.functional.image"), images((1, 2, 12, 13, 14))
    check_call(
        lambda x, y: getattr(torchmetrics, SIMILARITY)(x, y, data_range=1.0),
        lambda x, y: getattr(theirs, SIMILARITY)(x, y, data_range=1.0),
        tensors,
    )
    with pytest.raises(NotCovered, match="one window"):
        getattr(torchmetrics, SIMILARITY)(*tensors, sigma=0.8, data_range=1.0)


@sweep
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4), SEEDS,
    some(1.0, (0.2, 0.7)), options(base=some(2.0), reduction=some("sum", "none")), st.data(),
)  # fmt: skip
def test_torchmetrics_signal_to_noise(shape, seed, data_range, chosen, data) -> None:
    theirs = peer("torchmetrics.functional.image")
    axes = st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape))
    dim = data.draw(st.none() | st.integers(0, len(shape) - 1) | axes.map(tuple))
    if dim is None:
        chosen.pop("reduction", None)
    check_call(
        lambda x, y: torchmetrics.peak_signal_noise_ratio(x, y, data_range, dim=dim, **chosen),
        lambda x, y: theirs.peak_signal_noise_ratio(x, y, data_range, dim=dim, **chosen),
        images(tuple(shape), seed),
    )


def test_torchmetrics_signal_to_noise_of_integers() -> None:
    theirs = peer("torchmetrics.functional.image")
    tensors = [(image.detach() * 255).byte() for image in images((2, 3, 8, 9))]
    arguments = (*tensors, 255.0)
    check_alike(
        torchmetrics.peak_signal_noise_ratio(*arguments), theirs.peak_signal_noise_ratio(*arguments)
    )
    with pytest.warns(UserWarning, match="no effect"):
        torchmetrics.peak_signal_noise_ratio(*arguments, reduction="sum")


CLASSES = {
    "similarity": ("StructuralSimilarityIndexMeasure", {"data_range": 1.0}),
    "each image": (
        "StructuralSimilarityIndexMeasure",
        {"data_range": 1.0, "reduction": None, "return_full_image": True},
    ),
    "scales": ("MultiScaleStructuralSimilarityIndexMeasure", {"data_range": 1.0}),
    "signal to noise": ("PeakSignalNoiseRatio", {"data_range": (0.1, 0.9)}),
    "along axes": ("PeakSignalNoiseRatio", {"data_range": 1.0, "dim": (1, 2, 3)}),
}


@pytest.mark.parametrize("case", CLASSES)
def test_torchmetrics_classes(case) -> None:
    theirs, (name, chosen) = peer("torchmetrics.image"), CLASSES[case]
    own, other = (getattr(module, name)(**chosen) for module in (torchmetrics, theirs))
    assert isinstance(own, peer("torchmetrics").Metric)
    batches = [images((count, 1, 177, 180), count) for count in (1, 3)]
    for x, y in batches:
        check_alike(own(x.detach(), y.detach()), other(x.detach(), y.detach()))
    own = pickle.loads(pickle.dumps(own))
    check_alike(own.compute(), other.compute())
    assert list(own._defaults) == list(other._defaults)


def test_torchmetrics_classes_are_missed_in_a_sentence(run_python) -> None:
    code = """
import sys
sys.modules["torchmetrics"] = None
from sosie.compat import torchmetrics
import torch
x = torch.rand(1, 1, 16, 16)
assert torchmetrics.structural_similarity_index_measure(x, x, data_range=1.0) == 1
torchmetrics.PeakSignalNoiseRatio
"""
    assert "expected torchmetrics >=" in run_python(code, expect_failure=True)


# --- piq ------------------------------------------------------------------------------------------

PIQ_OPTIONS = {
    "kernel_size": some(5, 9),
    "kernel_sigma": some(0.8, 2.0),
    "reduction": some("mean", "sum", "none"),
    "k1": some(0.05),
}


@sweep
@given(PLANES, SIDES, SIDES, some(1.0, 255), SEEDS, options(full=some(True), **PIQ_OPTIONS))
def test_piq(planes, height, width, data_range, seed, chosen) -> None:
    theirs = peer("piq")
    check_call(
        lambda x, y: piq.ssim(x, y, data_range=data_range, **chosen),
        lambda x, y: theirs.ssim(x, y, data_range=data_range, **chosen),
        images((*planes, height, width), seed, data_range),
    )


@pytest.mark.parametrize("downsample", [True, False])
def test_piq_of_a_large_image(downsample) -> None:
    theirs = peer("piq")
    check_call(
        lambda x, y: piq.ssim(x, y, downsample=downsample),
        lambda x, y: theirs.ssim(x, y, downsample=downsample),
        images((1, 1, 390, 401)),
    )


@few
@given(
    PLANES, WIDE, WIDE, SEEDS,
    options(scale_weights=some(torch.tensor([0.2, 0.3, 0.1])), **PIQ_OPTIONS),
)  # fmt: skip
def test_piq_scales(planes, height, width, seed, chosen) -> None:
    theirs = peer("piq")
    check_call(
        lambda x, y: piq.multi_scale_ssim(x, y, **chosen),
        lambda x, y: theirs.multi_scale_ssim(x, y, **chosen),
        images((*planes, height, width), seed),
    )


@pytest.mark.parametrize("name", ["SSIMLoss", "MultiScaleSSIMLoss"])
def test_piq_losses(name) -> None:
    own, other = (getattr(module, name)(k1=0.02) for module in (piq, peer("piq")))
    check_call(own, other, images((2, 3, 165, 170)))
    assert own.state_dict().keys() == other.state_dict().keys()


def test_piq_of_integers() -> None:
    tensors = [(image.detach() * 255).byte() for image in images((1, 3, 30, 31))]
    arguments = {"data_range": 255, "reduction": "none"}
    check_alike(piq.ssim(*tensors, **arguments), peer("piq").ssim(*tensors, **arguments), SINGLE)


def test_piq_by_the_function_inside() -> None:
    peer("piq")
    inside = peer("piq.ssim").ssim.__globals__["_ssim_per_channel"]
    kernel = peer("piq.functional").gaussian_filter(7, 1.5, dtype=torch.float64).repeat(2, 1, 1, 1)
    check_call(
        lambda x, y: piq._ssim_per_channel(x, y, kernel.to(x.dtype)),
        lambda x, y: inside(x, y, kernel.to(x.dtype)),
        images((1, 2, 15, 16)),
    )
    with pytest.raises(NotCovered, match="separable"):
        piq._ssim_per_channel(*images((1, 2, 15, 16)), kernel.double().triu())


# --- kornia ---------------------------------------------------------------------------------------

KORNIA_OPTIONS = {
    "max_val": some(1.0, 2.0),
    "eps": some(1e-12, 0.1),
    "padding": some("same", "valid", "VALID"),
}


@sweep
@given(PLANES, SIDES, SIDES, some(3, 7, 11), SEEDS, options(**KORNIA_OPTIONS))
def test_kornia(planes, height, width, size, seed, chosen) -> None:
    theirs, tensors = peer("kornia"), images((*planes, height, width), seed)
    check_call(
        lambda x, y: kornia.metrics.ssim(x, y, size, **chosen),
        lambda x, y: theirs.metrics.ssim(x, y, size, **chosen),
        tensors,
    )
    for reduction in ("mean", "sum", "none"):
        check_call(
            lambda x, y, r=reduction: kornia.losses.ssim_loss(x, y, size, reduction=r, **chosen),
            lambda x, y, r=reduction: theirs.losses.ssim_loss(x, y, size, reduction=r, **chosen),
            tensors,
        )


@few
@given(st.integers(12, 15), st.integers(12, 15), some(5, 11), SEEDS, options(**KORNIA_OPTIONS))
def test_kornia_volumes(height, width, size, seed, chosen) -> None:
    theirs, tensors = peer("kornia"), images((2, 1, 12, height, width), seed)
    check_call(
        lambda x, y: kornia.metrics.ssim3d(x, y, size, **chosen),
        lambda x, y: theirs.metrics.ssim3d(x, y, size, **chosen),
        tensors,
    )
    check_call(
        lambda x, y: kornia.losses.ssim3d_loss(x, y, size, **chosen),
        lambda x, y: theirs.losses.ssim3d_loss(x, y, size, **chosen),
        tensors,
    )


@few
@given(
    SIDES, SIDES, SEEDS,
    options(
        sigmas=some((0.5, 1.5)), data_range=some(2.0), K=some((0.02, 0.05)), alpha=some(0.5),
        reduction=some("none", "sum"),
    ),
)  # fmt: skip
def test_kornia_scales(height, width, seed, chosen) -> None:
    own, other = (module.losses.MS_SSIMLoss(**chosen) for module in (kornia, peer("kornia")))
    tensors = images((2, 3, height, width), seed)
    result, expected = own(*tensors), other(*tensors)
    check_alike(result, expected)
    check_gradients(result, expected, tensors)
    masks = other._g_masks.double().repeat(3, 1, 1, 1)
    check_alike(kornia._compute_loss(other, *tensors, masks), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the original broadcasts
        expected = other(tensors[0], tensors[1][:1])
    check_alike(own(tensors[0], tensors[1][:1]), expected)


@pytest.mark.parametrize(
    "dtypes", [("float32", "float16"), ("uint8", "uint8"), ("int64", "float64")]
)
def test_kornia_promotes(dtypes) -> None:
    tensors = [
        (image.detach() * 255).to(getattr(torch, dtype))
        for image, dtype in zip(images((1, 2, 20, 21)), dtypes, strict=True)
    ]
    own, other = (
        module.metrics.ssim(*tensors, 11, max_val=255.0) for module in (kornia, peer("kornia"))
    )
    check_alike(own, other, SINGLE_MAP)


# --- MONAI ----------------------------------------------------------------------------------------


def window_of(axes: int) -> Any:
    return options(
        kernel_type=some("gaussian", "uniform"), data_range=some(2.0), k1=some(0.05)
    ).flatmap(
        lambda chosen: st.tuples(
            st.just(chosen),
            st.tuples(*[some(3, 5, 9)] * axes),
            st.tuples(*[some(0.8, 1.5)] * axes),
        )
    )


def check_singles(ours: Any, theirs: Any, tensors: list[Any]) -> None:
    """Results and gradients where the original computes in float32 whatever it is given."""
    check_alike(ours, theirs, SINGLE_MAP)
    for own, other in zip(parts(ours), parts(theirs), strict=True):
        pairs = zip(
            torch.autograd.grad(own.sum(), tensors, retain_graph=True),
            torch.autograd.grad(other.sum(), tensors, retain_graph=True),
            strict=True,
        )
        for gradient, expected in pairs:  # of float32 sums over a window, in both
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-4 * expected.abs().max())


CASES_OF_MONAI = st.integers(2, 3).flatmap(lambda axes: st.tuples(st.just(axes), window_of(axes)))


@sweep
@given(CASES_OF_MONAI, SEEDS, some("float32", "float64", "float16"))
def test_monai(case, seed, dtype) -> None:
    axes, (chosen, sizes, sigmas) = case
    theirs = peer("monai.metrics.regression")
    tensors = [
        image.detach().to(getattr(torch, dtype)).requires_grad_()
        for image in images((2, 2, *(20, 13, 14)[-axes:]), seed)
    ]
    own, other = (
        function(*tensors, axes, sizes, sigmas, **chosen)
        for function in (monai.compute_ssim_and_cs, theirs.compute_ssim_and_cs)
    )
    if dtype == "float16":  # whose gradients both round
        check_alike(own, other, SINGLE_MAP)
    else:
        check_singles(own, other, tensors)


@sweep
@given(CASES_OF_MONAI, SEEDS, some("mean", "sum", "none"))
def test_monai_loss(case, seed, reduction) -> None:
    axes, (chosen, sizes, sigmas) = case
    arguments = {"win_size": sizes, "kernel_sigma": sigmas, "reduction": reduction, **chosen}
    own, other = (module.SSIMLoss(axes, **arguments) for module in (monai, peer("monai.losses")))
    tensors = images((2, 2, *(20, 13, 14)[-axes:]), seed)
    check_singles(own(*tensors), other(*tensors), tensors)
    check_alike(monai._loss(other, *tensors), other(*tensors), SINGLE_MAP)


# --- scikit-image ---------------------------------------------------------------------------------


def numpy_images(shape: tuple[int, ...], dtype: str, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.random(shape)
    y = 0.6 * x + 0.4 * generator.random(shape)
    scale = 1 if np.dtype(dtype).kind == "f" else 255
    return [(image * scale).astype(dtype) for image in (x, y)]


def check_arrays(ours: Any, theirs: Any, tolerance: float) -> None:
    """Same kind, and for every part the same type, shape and numbers, relative to the largest."""
    assert type(ours) is type(theirs)
    for own, other in zip(parts(ours), parts(theirs), strict=True):
        assert (type(own), own.dtype, own.shape) == (type(other), other.dtype, other.shape)
        scale = max(float(np.abs(other).max()), np.finfo(float).tiny)
        np.testing.assert_allclose(own, other, rtol=0, atol=tolerance * scale)


@settings(max_examples=30)
@given(
    some((17, 22), (18, 3, 21), (9, 10, 12)), some("uint8", "int16", "float32", "float64"), SEEDS,
    options(gradient=some(True), full=some(True)),
    options(use_sample_covariance=st.booleans(), K1=some(0.05), K2=some(0.1)),
    some({}, {"win_size": 5}, {"gaussian_weights": True, "sigma": 0.7}),
)  # fmt: skip
def test_scikit_image(shape, dtype, seed, outputs, chosen, window) -> None:
    theirs = peer("skimage.metrics")
    more = {"data_range": 1.0} if dtype.startswith("float") else {"data_range": 255}
    if 3 in shape:
        more["channel_axis"] = shape.index(3)
    arguments = {**outputs, **chosen, **window, **more}
    pair = numpy_images(shape, dtype, seed)
    own, other = (
        module.structural_similarity(*pair, **arguments) for module in (skimage.metrics, theirs)
    )
    is_map = "full" in outputs
    single = dtype == "float32"
    check_arrays(own, other, (SINGLE_MAP if is_map else 1e-5) if single else VALUE)


@settings(max_examples=20)
@given(some((7,), (5, 6), (2, 3, 4, 5)), some("uint8", "int32", "float32", "float64"), SEEDS)
def test_scikit_image_of_squared_differences(shape, dtype, seed) -> None:
    theirs, pair = peer("skimage.metrics"), numpy_images(shape, dtype, seed)
    calls = [("mean_squared_error", {}), ("peak_signal_noise_ratio", {"data_range": 255})]
    calls += [
        ("normalized_root_mse", {"normalization": n}) for n in ("Euclidean", "min-max", "mean")
    ]
    for name, chosen in calls:
        own, other = (getattr(module, name)(*pair, **chosen) for module in (skimage, theirs))
        check_arrays(own, other, VALUE)


@pytest.mark.parametrize("dtypes", [("int16", "int16"), ("uint8", "int16"), ("bool", "bool")])
def test_scikit_image_guesses_the_range(dtypes) -> None:
    theirs = peer("skimage.metrics")
    pair = [
        (image > 0.4 if dtype == "bool" else image * 255).astype(dtype)
        for image, dtype in zip(numpy_images((20, 21), "float64", 0), dtypes, strict=True)
    ]
    for name in ("structural_similarity", "peak_signal_noise_ratio"):
        with warnings.catch_warnings(record=True) as own_warnings:
            warnings.simplefilter("always")
            own = getattr(skimage, name)(*pair)
        with warnings.catch_warnings(record=True) as their_warnings:
            warnings.simplefilter("always")
            other = getattr(theirs, name)(*pair)
        check_arrays(own, other, VALUE)
        assert len(own_warnings) == len(their_warnings)
        assert all(each.filename == __file__ for each in own_warnings)


def test_scikit_image_computes_the_rest() -> None:
    theirs, pair = peer("skimage.metrics"), numpy_images((60, 61), "uint8", 0)
    own, other = (m.structural_similarity(*pair, win_size=41) for m in (skimage, theirs))
    assert own == other
    line = numpy_images((60,), "uint8", 0)
    assert skimage.structural_similarity(*line) == theirs.structural_similarity(*line)


# --- Half precision -------------------------------------------------------------------------------

HALVES = {
    "pytorch_msssim": lambda module, x, y: module.ssim(x, y, data_range=1.0),
    "torchmetrics": lambda module, x, y: getattr(module, SIMILARITY)(x, y, data_range=1.0),
    "piq": lambda module, x, y: module.ssim(x, y),
    "kornia": lambda module, x, y: module.losses.ssim_loss(x, y, 7),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", HALVES)
def test_half_precision_is_that_of_the_images(case, dtype) -> None:
    """What the library gives for the same images in float64, rounded once."""
    theirs = peer("torchmetrics.functional.image" if case == "torchmetrics" else case)
    halves = [image.detach().to(dtype).requires_grad_() for image in images((2, 3, 24, 25))]
    doubles = [image.detach().double().requires_grad_() for image in halves]
    own, other = HALVES[case](OURS[case], *halves), HALVES[case](theirs, *doubles)
    assert own.dtype == dtype
    precision = torch.finfo(dtype).eps
    torch.testing.assert_close(own.double(), other, rtol=precision, atol=1e-6)
    pairs = zip(torch.autograd.grad(own, halves), torch.autograd.grad(other, doubles), strict=True)
    for gradient, expected in pairs:
        # Rounded itself, after the upstream gradient of a mean has been.
        tolerance = 4 * precision * float(expected.abs().max())
        torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=tolerance)


def test_half_precision_of_scales_is_promoted_as_there() -> None:
    """By the tensor that holds their weights, where it is of single precision."""
    x, y = (image.detach().half() for image in images((1, 2, 100, 90)))
    weights = torch.tensor([0.4, 0.6])
    window = {"kernel_size": 3}
    scales = {"sigma": 0.5, "betas": (0.4, 0.6), "data_range": 1.0}
    for module, name, chosen in (
        ("piq", "multi_scale_ssim", window),
        ("piq", "multi_scale_ssim", {**window, "scale_weights": weights}),
        ("piq", "multi_scale_ssim", {**window, "scale_weights": weights.double()}),
        ("torchmetrics.functional.image", MULTI_SCALE, {**window, **scales}),
    ):
        own = getattr(OURS[module.partition(".")[0]], name)(x, y, **chosen)
        other = getattr(peer(module), name)(x, y, **chosen)
        # The original computes in half precision.
        assert (own.dtype, float(own)) == (other.dtype, pytest.approx(float(other), abs=0.01))


# --- Who is not installed -------------------------------------------------------------------------


def dense_gaussian(size: int, dims: int = 2) -> Any:
    axis = torch.exp(-((torch.arange(size, dtype=torch.float64) - size // 2) ** 2) / (2 * 1.5**2))
    window = axis
    for _ in range(dims - 1):
        window = window[..., None] * axis
    return window / window.sum()


def splat_map(x: Any, y: Any, size: int, c1: float, c2: float) -> Any:
    """Map of fused-ssim's kernels: zeros outside, variances of at least 0, values in [-1, 1]."""
    dims, channels = x.ndim - 2, x.shape[1]
    window = dense_gaussian(size, dims).expand(channels, 1, *(size,) * dims)
    convolution = functional.conv2d if dims == 2 else functional.conv3d

    def blur(image: Any) -> Any:
        return convolution(image, window, padding=size // 2, groups=channels)

    mu1, mu2 = blur(x), blur(y)
    var1, var2 = (blur(a * a) - m * m for a, m in ((x, mu1), (y, mu2)))
    var1, var2, cov = var1.clamp(min=0), var2.clamp(min=0), blur(x * y) - mu1 * mu2
    numerator = (2 * mu1 * mu2 + c1) * (2 * cov + c2)
    return (numerator / ((mu1**2 + mu2**2 + c1) * (var1 + var2 + c2))).clamp(-1, 1)


def inside(quality: Any, size: int) -> Any:
    margin = slice(size // 2, -(size // 2))
    return quality[(..., *(margin,) * (quality.ndim - 2))]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(2, 3, 24, 25), (1, 2, 12, 13, 14)])
def test_fused_ssim(shape, padding) -> None:
    x, y = images(shape)
    function = fused_ssim.fused_ssim if len(shape) == 4 else fused_ssim.fused_ssim3d
    quality = splat_map(x, y, 11, 0.01**2, 0.03**2)
    quality = quality if padding == "same" else inside(quality, 11)
    result = function(x, y, padding)
    check_alike(result, quality.mean())
    check_gradients(result, quality.mean(), [x])
    assert torch.autograd.grad(function(x, y, padding), y, allow_unused=True) == (None,)
    assert not function(x, y, padding, train=False).requires_grad
    own = fused_ssim.FusedSSIMMap.apply(1e-4, 9e-4, x, y, padding, True, len(shape) - 2)
    check_alike(own, quality)
    check_gradients(own, quality, [x])


def test_fused_ssim_is_found_by_name(run_python) -> None:
    code = """
import sys, torch, sosie.compat.fused_ssim
sys.modules["fused_ssim"] = sosie.compat.fused_ssim
from fused_ssim import fused_ssim, fused_ssim3d, FusedSSIMMap
x = torch.rand(1, 3, 16, 16)
print(float(fused_ssim(x, x, padding="valid")))
"""
    assert float(run_python(code)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [7, 9, 11])
def test_fussim(size) -> None:
    """The Gaussian of sigma 1.5, for all three sizes."""
    x, y = images((2, 3, 24, 25))
    quality = splat_map(x, y, size, 0.01**2, 0.03**2)
    check_alike(fussim.fused_ssim(x, y, window_size=size), quality.mean())
    check_alike(fussim.fused_ssim(x, y, "valid", True, size), inside(quality, size).mean())
    check_alike(fussim.FusedSSIMMap.apply(1e-4, 9e-4, x, y, "same", True, size), quality)
    x, y = images((2, 3, 24, 25), data_range=255)
    y = 255 - y  # partly below 0
    quality = inside(splat_map(x, y, size, (0.02 * 255) ** 2, (0.03 * 255) ** 2), size)
    chosen = {"win_size": size, "K": (0.02, 0.03), "size_average": False}
    own = fussim.ssim(x, y, **chosen)
    check_alike(own, quality.mean((1, 2, 3)))
    check_gradients(own, quality.mean((1, 2, 3)), [x])
    own = fussim.SSIM(win_size=size, K=(0.02, 0.03), nonnegative_ssim=True)(x, y)
    check_alike(own, quality.clamp(min=0).mean())


def tensorflow_maps(x: Any, y: Any, max_val: float) -> tuple[Any, Any]:
    """Similarity and contrast-structure of images (..., H, W, C), by tf.image's four filters."""
    x, y = (image.movedim(-1, -3).flatten(0, -4) for image in (x, y))
    channels = x.shape[1]
    window = dense_gaussian(11).expand(channels, 1, 11, 11)

    def reduce(image: Any) -> Any:
        return functional.conv2d(image, window, groups=channels)

    c1, c2 = (0.01 * max_val) ** 2, (0.03 * max_val) ** 2
    mean0, mean1 = reduce(x), reduce(y)
    product, squares = mean0 * mean1 * 2, mean0**2 + mean1**2
    contrast = (reduce(x * y) * 2 - product + c2) / (reduce(x**2 + y**2) - squares + c2)
    return (product + c1) / (squares + c1) * contrast, contrast


@pytest.mark.parametrize("lead", [(2, 2), ()])
def test_tensorflow(lead) -> None:
    x, y = (image.detach() for image in images((*lead, 24, 25, 3)))
    quality, _ = tensorflow_maps(x[None], y[None], 1.0)
    expected = quality.mean((1, 2, 3)).reshape(lead)
    own = tensorflow.ssim(x.numpy(), y.numpy(), 1.0)
    assert (own.dtype, own.shape) == (np.float32, lead)
    np.testing.assert_allclose(own, expected, rtol=0, atol=VALUE)
    torch.testing.assert_close(tensorflow.ssim(x, y, 1.0).double(), expected, rtol=0, atol=VALUE)
    own = tensorflow.ssim(x.numpy(), y.numpy(), 1.0, return_index_map=True)
    np.testing.assert_allclose(
        own, quality.mean(1).reshape(*lead, *quality.shape[2:]), rtol=0, atol=VALUE
    )


def test_tensorflow_of_integers_and_scales() -> None:
    x, y = ((image.detach() * 255).to(torch.uint8) for image in images((2, 180, 181, 1)))
    quality, _ = tensorflow_maps(x.double(), y.double(), 255)
    own = tensorflow.ssim(x.numpy(), y.numpy(), 255)
    np.testing.assert_allclose(own, quality.mean((1, 2, 3)), rtol=0, atol=SINGLE)
    product: Any = 1.0
    a, b = x.double(), y.double()
    for level, weight in enumerate((0.4, 0.6)):
        quality, contrast = tensorflow_maps(a, b, 255)
        product = product * (quality if level else contrast).mean((2, 3)).relu() ** weight
        a, b = (_halved(image) for image in (a, b))
    own = tensorflow.ssim_multiscale(x.numpy(), y.numpy(), 255, power_factors=(0.4, 0.6))
    np.testing.assert_allclose(own, product.mean(1), rtol=0, atol=SINGLE)
    wide = [image.numpy().astype(np.int32) for image in (x, y)]
    np.testing.assert_allclose(
        tensorflow.ssim(*wide, 255), tensorflow.ssim(x.numpy(), y.numpy(), 255), rtol=0, atol=SINGLE
    )


def _halved(image: Any) -> Any:
    """tf.image: symmetric padding at the end, then means of 2 x 2."""
    planes = image.movedim(-1, 1)
    pad = (0, planes.shape[3] % 2, 0, planes.shape[2] % 2)
    return functional.avg_pool2d(functional.pad(planes, pad, mode="replicate"), 2).movedim(1, -1)


# --- Bad input ------------------------------------------------------------------------------------

A, B = torch.rand(1, 3, 20, 20), torch.rand(1, 3, 20, 20)
PAIR = (np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8))

WRONG = {
    "pytorch_msssim shapes": ("pytorch_msssim", "ssim", (A, B[..., 1:]), {}),
    "pytorch_msssim axes": ("pytorch_msssim", "ssim", (A[0], B[0]), {}),
    "pytorch_msssim even window": ("pytorch_msssim", "ssim", (A, B), {"win_size": 8}),
    "pytorch_msssim dtypes": ("pytorch_msssim", "ssim", (A, B.double()), {}),
    "pytorch_msssim window's channels": (
        "pytorch_msssim", "ssim", (A, B), {"win": torch.ones(2, 1, 1, 5)},
    ),
    "pytorch_msssim small": ("pytorch_msssim", "ms_ssim", (A, B), {}),
    "torchmetrics shapes": ("torchmetrics", SIMILARITY, (A, B[:, :2]), {}),
    "torchmetrics axes": ("torchmetrics", SIMILARITY, (A[0], B[0]), {}),
    "torchmetrics sigma": ("torchmetrics", SIMILARITY, (A, B), {"sigma": -1.0}),
    "torchmetrics axes of sigma": ("torchmetrics", SIMILARITY, (A, B), {"sigma": (1.0,) * 3}),
    "torchmetrics size": ("torchmetrics", SIMILARITY, (A, B), {"kernel_size": 4}),
    "torchmetrics reduction": (
        "torchmetrics", SIMILARITY, (A, B), {"reduction": "max", "data_range": 1.0},
    ),
    "torchmetrics both": (
        "torchmetrics", SIMILARITY, (A, B),
        {"return_full_image": True, "return_contrast_sensitivity": True},
    ),
    "torchmetrics axis": (
        "torchmetrics", "peak_signal_noise_ratio", (A, B), {"data_range": 1.0, "dim": 9},
    ),
    "torchmetrics betas": ("torchmetrics", MULTI_SCALE, (A, B), {"betas": [0.5]}),
    "torchmetrics normalize": ("torchmetrics", MULTI_SCALE, (A, B), {"normalize": "abs"}),
    "torchmetrics small": ("torchmetrics", MULTI_SCALE, (A, B), {}),
    "piq shapes": ("piq", "ssim", (A, B[..., 1:]), {}),
    "piq values": ("piq", "ssim", (A + 1, B), {}),
    "piq not a number": ("piq", "ssim", (A / 0 * 0, B), {}),
    "piq even window": ("piq", "ssim", (A, B), {"kernel_size": 4}),
    "piq small": ("piq", "ssim", (A[..., :5], B[..., :5]), {}),
    "piq small for the scales": ("piq", "multi_scale_ssim", (A, B), {}),
    "piq reduction": ("piq", "ssim", (A, B), {"reduction": "max"}),
    "piq weights": (
        "piq", "multi_scale_ssim", (A, B), {"scale_weights": torch.ones(2, 2), "kernel_size": 3},
    ),
    "piq no tensor": ("piq", "ssim", (A.numpy(), B.numpy()), {}),
    "kornia no tensor": ("kornia.metrics", "ssim", (A.numpy(), B, 5), {}),
    "kornia range": ("kornia.metrics", "ssim", (A, B, 5, 1), {}),
    "kornia shapes": ("kornia.metrics", "ssim", (A, B[:, :2], 5), {}),
    "kornia padding": ("kornia.metrics", "ssim", (A, B, 5), {"padding": "full"}),
    "kornia reduction": ("kornia.losses", "ssim_loss", (A, B, 5), {"reduction": "max"}),
    "kornia small": ("kornia.metrics", "ssim", (A[..., :3], B[..., :3], 11), {}),
    "kornia volume's axes": ("kornia.metrics", "ssim3d", (A, B, 5), {}),
    "kornia volume's shapes": (
        "kornia.metrics", "ssim3d", (A[None], A[None, ..., 1:], 3), {},
    ),
    "monai shapes": (
        "monai.metrics.regression", "compute_ssim_and_cs", (A, B[:, :2], 2, (5, 5), (1.5, 1.5)), {},
    ),
    "skimage shapes": ("skimage.metrics", "structural_similarity", (PAIR[0], PAIR[0][1:]), {}),
    "skimage even window": ("skimage.metrics", "structural_similarity", PAIR, {"win_size": 4}),
    "skimage no window": ("skimage.metrics", "structural_similarity", PAIR, {"win_size": 0}),
    "skimage large window": ("skimage.metrics", "structural_similarity", PAIR, {"win_size": 11}),
    "skimage constant": ("skimage.metrics", "structural_similarity", PAIR, {"K1": -1}),
    "skimage range": (
        "skimage.metrics", "structural_similarity", [image / 1.0 for image in PAIR], {},
    ),
    "skimage complex": ("skimage.metrics", "mean_squared_error", [p * 1j for p in PAIR], {}),
    "skimage values": (
        "skimage.metrics", "peak_signal_noise_ratio", [image + 7.0 for image in PAIR], {},
    ),
    "skimage normalization": (
        "skimage.metrics", "normalized_root_mse", PAIR, {"normalization": "max"},
    ),
}  # fmt: skip
OURS = {
    "pytorch_msssim": pytorch_msssim,
    "torchmetrics": torchmetrics,
    "piq": piq,
    "kornia": kornia,
    "monai": monai,
    "skimage": skimage,
}


@pytest.mark.parametrize("case", WRONG)
def test_exceptions_are_of_the_same_type(case) -> None:
    module, name, arguments, chosen = WRONG[case]
    own = getattr(OURS[module.partition(".")[0]], name)
    module = "torchmetrics.functional.image" if module == "torchmetrics" else module
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        getattr(peer(module), name)(*arguments, **chosen)
    with pytest.raises(theirs.type) as ours:
        own(*arguments, **chosen)
    assert str(ours.value) not in ("", str(theirs.value))


NOT_COVERED = {
    "window": lambda: pytorch_msssim.ssim(A.repeat(1, 1, 2, 2), B.repeat(1, 1, 2, 2), win_size=35),
    "integers": lambda: pytorch_msssim.ssim(A.byte(), B.byte()),
    "constant": lambda: torchmetrics.structural_similarity_index_measure(
        A, B, data_range=1.0, k1=0.0
    ),
    "complex": lambda: piq.ssim(torch.rand(1, 1, 20, 20, 2), torch.rand(1, 1, 20, 20, 2)),
    "arrays": lambda: torchmetrics.structural_similarity_index_measure(
        A.numpy(), B.numpy(), data_range=1.0
    ),
    "several windows": lambda: kornia.ssim(A, B, (5, 5)),
    "no size for an axis": lambda: monai.compute_ssim_and_cs(A, B, 2, (5,), (1.5,)),
    "wide": lambda: kornia.MS_SSIMLoss(sigmas=(1.0, 9.0))(A, B),
    "sparse": lambda: fused_ssim.fused_ssim(A.to_sparse(), B.to_sparse()),
}


@pytest.mark.parametrize("case", NOT_COVERED)
def test_what_is_not_covered_is_said(case) -> None:
    with pytest.raises(NotCovered, match="sosie"):
        NOT_COVERED[case]()


COMPILED = {
    "function": lambda x, y: pytorch_msssim.ssim(x, y, data_range=1.0),
    "loss": piq.SSIMLoss(),
    "map": lambda x, y: kornia.ssim(x, y, 11).mean(),
}


@pytest.mark.parametrize("case", COMPILED)
def test_compiled_as_one_graph(case) -> None:
    torch._dynamo.reset()
    function, (x, y) = COMPILED[case], images((1, 2, 20, 21))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    check_gradients(compiled(x, y), function(x, y), [x])
