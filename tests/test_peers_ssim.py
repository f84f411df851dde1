# SPDX-License-Identifier: Apache-2.0
"""Each named convention gives its library's numbers, and its gradient where it has one.

Libraries that can be installed are called. The others (MATLAB's ssim_index.m, ssim.m and msssim.m,
TensorFlow, fused-ssim, MONAI, FFmpeg) are transcribed here from their published formulas, with
dense two-dimensional windows and the moments they filter, in float64; numbers that some of them
printed are stored beside.
"""

from __future__ import annotations

import functools
import importlib
import types
import warnings

import numpy as np
import pytest
from scipy import ndimage, signal

import sosie
from sosie.reference import ssim as reference
from sosie.spec import SSIMSpec, ssim_spec

torch = pytest.importorskip("torch")
functional = torch.nn.functional
skimage_data = pytest.importorskip("skimage.data")

pytestmark = pytest.mark.usefixtures("importable_piq")

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

# A peer that computes in float64 throughout. What differs is the order of summation: rounding of a
# local variance, 1e-16 of the squared range, over C2, 9e-4 of it; the mean over pixels is smaller.
EXACT = 1e-11
# A peer with float32 parts, such as exponents or windows of rounding that is not reproduced.
ROUNDED = 1e-6


# --- Who computes ---------------------------------------------------------------------------------


@pytest.fixture(params=["reference", *(["public"] if hasattr(sosie, "ssim") else [])])
def executor(request: pytest.FixtureRequest) -> str:
    """The float64 definition, and the public functions with the kernels they dispatch to."""
    return request.param


def values(executor: str, spec: SSIMSpec, x, y, data_range: float, *, scales=False) -> np.ndarray:
    """Single- or multi-scale index per image, of shape (batch,)."""
    if executor == "reference":
        function = reference.ms_ssim if scales else reference.ssim
        return function(x, y, spec, data_range)
    public = sosie.ms_ssim if scales else sosie.ssim
    return np.asarray(public(x, y, spec=spec, data_range=data_range, reduction="none"))


def gradients(executor: str, spec: SSIMSpec, x, y, data_range: float, *, scales=False):
    """Gradients of the sum over images of :func:`values` with respect to x and y."""
    if executor == "reference":
        function = reference.ms_ssim_gradient if scales else reference.ssim_gradient
        return function(x, y, spec, np.ones(len(x)), data_range)
    public = sosie.ms_ssim if scales else sosie.ssim
    return _torch_gradients(
        lambda a, b: public(a, b, spec=spec, data_range=data_range, reduction="none"), x, y
    )


def _torch_gradients(function, x, y) -> list[np.ndarray]:
    tensors = [torch.tensor(np.asarray(image, float), requires_grad=True) for image in (x, y)]
    function(*tensors).sum().backward()
    return [tensor.grad.numpy() for tensor in tensors]


# --- Images ---------------------------------------------------------------------------------------


def _noisy(image: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(image.shape)
    return np.clip(np.rint(image + sigma * noise), 0, 255)


def _camera(height: int, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Gray, 8-bit values: sky, coat and tripod, so flat, textured and sharp parts."""
    x = skimage_data.camera()[60 : 60 + height, 150 : 150 + width].astype(float)
    return x[None, None], _noisy(x, 12.0, seed=1)[None, None], 255.0


def _astronaut(height: int, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Colour in [0, 1]; blurred, and noisy."""
    x = skimage_data.astronaut()[20 : 20 + height, 150 : 150 + width].astype(float)
    y = _noisy(ndimage.uniform_filter(x, (3, 3, 1)), 4.0, seed=2)
    x, y = (np.moveaxis(image, -1, 0)[None] / 255.0 for image in (x, y))
    return x, y, 1.0


def _random(height: int, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    generator = np.random.default_rng(3)
    x = generator.random((2, 3, height, width))
    return x, np.clip(x + 0.3 * generator.standard_normal(x.shape), 0.0, 1.0), 1.0


IMAGES = {"camera": _camera, "astronaut": _astronaut, "random": _random}
SIZES = [(97, 61), (46, 83)]
MS_SIZES = [(177, 182)]  # halved with and without odd sizes on either axis


# --- Installed libraries --------------------------------------------------------------------------


def _import(name: str) -> types.ModuleType:
    """A peer, whatever it warns of while it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def _pytorch_msssim(x, y, data_range, **options):
    module = _import("pytorch_msssim")
    return module.ssim(x, y, data_range=data_range, size_average=False, **options)


def _pytorch_msssim_scales(x, y, data_range, **options):
    module = _import("pytorch_msssim")
    return module.ms_ssim(x, y, data_range=data_range, size_average=False, **options)


def _torchmetrics(x, y, data_range, **options):
    module = _import("torchmetrics.functional.image")
    return module.structural_similarity_index_measure(
        x, y, data_range=data_range, reduction="none", **options
    )


def _torchmetrics_scales(x, y, data_range, **options):
    module = _import("torchmetrics.functional.image")
    return module.multiscale_structural_similarity_index_measure(
        x, y, data_range=data_range, reduction="none", **options
    )


def _torchmetrics_cropped(x, y, data_range):
    """The mean that torchmetrics returned before 1.4.2, from today's map."""
    module = _import("torchmetrics.functional.image")
    _, full = module.structural_similarity_index_measure(
        x, y, data_range=data_range, reduction="none", return_full_image=True
    )
    return full[..., 5:-5, 5:-5].mean((1, 2, 3))


def _torchmetrics_cropped_scales(x, y, data_range):
    module = importlib.import_module("torchmetrics.functional.image")
    product = 1.0
    for level, weight in enumerate(WEIGHTS):
        value = _torchmetrics_cropped(x, y, data_range)
        if level < len(WEIGHTS) - 1:
            _, value = module.structural_similarity_index_measure(
                x, y, data_range=data_range, reduction="none", return_contrast_sensitivity=True
            )
        product = product * torch.relu(value) ** weight
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    return product


def _piq(x, y, data_range, **options):
    return _import("piq").ssim(x, y, data_range=data_range, reduction="none", **options)


def _piq_scales(x, y, data_range, **options):
    return _import("piq").multi_scale_ssim(x, y, data_range=data_range, reduction="none", **options)


def _kornia(x, y, data_range, **options):
    module = _import("kornia.metrics")
    options = {"window_size": 11, **options}
    return module.ssim(x, y, max_val=float(data_range), **options).mean((1, 2, 3))


def _kornia_valid(x, y, data_range):
    return _kornia(x, y, data_range, padding="valid")


def _scikit_image(x, y, data_range, **options) -> np.ndarray:
    module = _import("skimage.metrics")
    return np.array(
        [
            module.structural_similarity(a, b, data_range=data_range, channel_axis=0, **options)
            for a, b in zip(x, y, strict=True)
        ]
    )


def _scikit_image_gaussian(x, y, data_range) -> np.ndarray:
    return _scikit_image(x, y, data_range, gaussian_weights=True)


# --- Transcriptions -------------------------------------------------------------------------------


def _gaussian_window(size: int = 11, sigma: float = 1.5) -> np.ndarray:
    """MATLAB's fspecial('gaussian', size, sigma)."""
    axis = np.arange(size) - (size - 1) / 2
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * sigma**2))
    return window / window.sum()


def _torch_filter(image, padding: int = 0):
    channels = image.shape[1]
    window = torch.tensor(_gaussian_window()).expand(channels, 1, 11, 11)
    return functional.conv2d(image, window, padding=padding, groups=channels)


def _tensorflow_maps(x, y, data_range):
    """_ssim_helper of tf.image: luminance and contrast-structure from four filtered images."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean0, mean1 = _torch_filter(x), _torch_filter(y)
    num0, den0 = mean0 * mean1 * 2.0, mean0**2 + mean1**2
    luminance = (num0 + c1) / (den0 + c1)
    num1, den1 = _torch_filter(x * y) * 2.0, _torch_filter(x**2 + y**2)
    return luminance, (num1 - num0 + c2) / (den1 - den0 + c2)


def _tensorflow(x, y, data_range):
    luminance, contrast = _tensorflow_maps(x, y, data_range)
    return (luminance * contrast).mean((2, 3)).mean(1)


def _tensorflow_scales(x, y, data_range):
    factors = []
    for level in range(len(WEIGHTS)):
        if level > 0:
            # tf.pad(mode="SYMMETRIC") by the remainder at the end repeats the last row and column.
            pad = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
            x, y = (
                functional.avg_pool2d(functional.pad(image, pad, mode="replicate"), 2)
                for image in (x, y)
            )
        luminance, contrast = _tensorflow_maps(x, y, data_range)
        factors.append(torch.relu(contrast.mean((2, 3))))
    factors[-1] = torch.relu((luminance * contrast).mean((2, 3)))
    stacked = torch.stack(factors, dim=-1)
    return (stacked ** torch.tensor(WEIGHTS, dtype=x.dtype)).prod(dim=-1).mean(1)


def _monai_maps(x, y, data_range):
    """compute_ssim_and_cs of monai.metrics.regression."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mu_x, mu_y = _torch_filter(x), _torch_filter(y)
    sigma_x = _torch_filter(x * x) - mu_x * mu_x
    sigma_y = _torch_filter(y * y) - mu_y * mu_y
    sigma_xy = _torch_filter(x * y) - mu_x * mu_y
    contrast = (2 * sigma_xy + c2) / (sigma_x + sigma_y + c2)
    return (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1) * contrast, contrast


def _monai(x, y, data_range):
    similarity, _ = _monai_maps(x, y, data_range)
    return similarity.flatten(1).mean(1)


def _monai_scales(x, y, data_range):
    factors = []
    for _ in WEIGHTS:
        similarity, contrast = _monai_maps(x, y, data_range)
        factors.append(torch.relu(contrast.flatten(1).mean(1)))
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    factors[-1] = torch.relu(similarity.flatten(1).mean(1))
    exponents = torch.tensor(WEIGHTS, dtype=x.dtype)[:, None]
    return (torch.stack(factors) ** exponents).prod(dim=0)


def _fused_ssim(x, y, data_range):
    """fusedssimCUDA: zero padding, variances clamped below, the map clamped to [-1, 1]."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mu1, mu2 = _torch_filter(x, 5), _torch_filter(y, 5)
    sigma1 = torch.clamp(_torch_filter(x * x, 5) - mu1 * mu1, min=0.0)
    sigma2 = torch.clamp(_torch_filter(y * y, 5) - mu2 * mu2, min=0.0)
    sigma12 = _torch_filter(x * y, 5) - mu1 * mu2
    a, b = mu1 * mu1 + mu2 * mu2 + c1, sigma1 + sigma2 + c2
    c, d = 2 * mu1 * mu2 + c1, 2 * sigma12 + c2
    return torch.clamp(c * d / (a * b), -1.0, 1.0)


def _fused_ssim_same(x, y, data_range):
    return _fused_ssim(x, y, data_range).mean((1, 2, 3))


def _fused_ssim_valid(x, y, data_range):
    return _fused_ssim(x, y, data_range)[..., 5:-5, 5:-5].mean((1, 2, 3))


def _per_plane(function):
    """A function of two planes, applied to each channel and averaged over the channels."""

    def apply(x, y, data_range) -> np.ndarray:
        planes = [
            [function(x[i, j], y[i, j], data_range) for j in range(x.shape[1])]
            for i in range(len(x))
        ]
        return np.mean(planes, axis=1)

    return apply


def _ssim_index(x, y, data_range) -> tuple[float, float]:
    """ssim_index.m, and the mean contrast-structure that msssim.m takes from it."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def filter2(image: np.ndarray) -> np.ndarray:
        return signal.correlate2d(image, _gaussian_window(), mode="valid")

    mu1, mu2 = filter2(x), filter2(y)
    sigma1, sigma2 = filter2(x * x) - mu1 * mu1, filter2(y * y) - mu2 * mu2
    sigma12 = filter2(x * y) - mu1 * mu2
    contrast = (2 * sigma12 + c2) / (sigma1 + sigma2 + c2)
    similarity = (2 * mu1 * mu2 + c1) / (mu1**2 + mu2**2 + c1) * contrast
    return similarity.mean(), contrast.mean()


def _imfilter_boxes(image: np.ndarray, f: int) -> np.ndarray:
    """imfilter(image, ones(f)/f^2, 'symmetric', 'same'), then (1:f:end, 1:f:end).

    MATLAB centres a filter of f taps on its tap floor((f + 1) / 2), counted from 1.
    """
    before = (f + 1) // 2 - 1
    padded = np.pad(image, (before, f - 1 - before), mode="symmetric")
    same = signal.correlate2d(padded, np.full((f, f), 1 / f**2), mode="valid")
    return same[::f, ::f]


@_per_plane
def _wang2004(x, y, data_range) -> float:
    return _ssim_index(x, y, data_range)[0]


@_per_plane
def _wang2004_downsample(x, y, data_range) -> float:
    f = max(1, int(np.floor(min(x.shape) / 256 + 0.5)))  # MATLAB's round
    return _ssim_index(_imfilter_boxes(x, f), _imfilter_boxes(y, f), data_range)[0]


@_per_plane
def _wang2003(x, y, data_range) -> float:
    product = 1.0
    for weight in WEIGHTS:
        similarity, contrast = _ssim_index(x, y, data_range)
        product *= contrast**weight
        x, y = _imfilter_boxes(x, 2), _imfilter_boxes(y, 2)
    return product / contrast**weight * similarity**weight


@_per_plane
def _opencv(x, y, data_range) -> float:
    """QualitySSIM's formula; scipy's 'mirror' is OpenCV's BORDER_REFLECT_101."""

    def blur(image: np.ndarray) -> np.ndarray:
        return ndimage.correlate(image, _gaussian_window(), mode="mirror")

    c1, c2 = 6.5025 * (data_range / 255) ** 2, 58.5225 * (data_range / 255) ** 2
    mu1, mu2 = blur(x), blur(y)
    sigma1, sigma2 = blur(x * x) - mu1 * mu1, blur(y * y) - mu2 * mu2
    t3 = (2 * mu1 * mu2 + c1) * (2 * (blur(x * y) - mu1 * mu2) + c2)
    return np.mean(t3 / ((mu1 * mu1 + mu2 * mu2 + c1) * (sigma1 + sigma2 + c2)))


@_per_plane
def _ffmpeg(x, y, data_range) -> float:
    """vf_ssim.c: ssim_4x4xn sums blocks, ssim_end1 combines the integer sums of 2 x 2 blocks."""
    x, y = (np.rint(image * (255 / data_range)).astype(np.int64) for image in (x, y))
    height, width = (size // 4 for size in x.shape)
    x, y = (image[: 4 * height, : 4 * width] for image in (x, y))
    sums = [
        image.reshape(height, 4, width, 4).sum(axis=(1, 3))
        for image in (x, y, x * x + y * y, x * y)
    ]
    s1, s2, ss, s12 = (s[:-1, :-1] + s[:-1, 1:] + s[1:, :-1] + s[1:, 1:] for s in sums)
    c1, c2 = int(0.01 * 0.01 * 255 * 255 * 64 + 0.5), int(0.03 * 0.03 * 255 * 255 * 64 * 63 + 0.5)
    variances, covariance = ss * 64 - s1 * s1 - s2 * s2, s12 * 64 - s1 * s2
    numerator = (2.0 * s1 * s2 + c1) * (2.0 * covariance + c2)
    return np.mean(numerator / ((s1 * s1 + s2 * s2 + c1) * (variances + float(c2))))


# --- Values and gradients -------------------------------------------------------------------------

TORCH_PEERS = {
    "pytorch-msssim": (_pytorch_msssim, EXACT),
    "torchmetrics": (_torchmetrics, EXACT),
    "torchmetrics-1.4.1": (_torchmetrics_cropped, EXACT),
    "piq": (_piq, EXACT),
    "kornia": (_kornia, EXACT),
    "kornia-valid": (_kornia_valid, EXACT),
    "tensorflow": (_tensorflow, EXACT),
    "monai": (_monai, EXACT),
    "fused-ssim": (_fused_ssim_same, EXACT),
    "fused-ssim-valid": (_fused_ssim_valid, EXACT),
}
NUMPY_PEERS = {
    "wang2004": _wang2004,
    "scikit-image": _scikit_image,
    "scikit-image-gaussian": _scikit_image_gaussian,
    "opencv": _opencv,
    "ffmpeg": _ffmpeg,
}
MS_PEERS = {
    "pytorch-msssim": (_pytorch_msssim_scales, EXACT),
    "torchmetrics": (_torchmetrics_scales, ROUNDED),  # exponents in float32
    "torchmetrics-1.4.1": (_torchmetrics_cropped_scales, EXACT),
    "piq": (_piq_scales, EXACT),
    "tensorflow": (_tensorflow_scales, EXACT),
    "monai": (_monai_scales, EXACT),
}


def _tensors(*images: np.ndarray) -> list:
    return [torch.tensor(image, dtype=torch.float64) for image in images]


# Once for all executors.
@functools.cache
def _expected(peer, images: str, size: tuple[int, int]) -> np.ndarray:
    x, y, data_range = IMAGES[images](*size)
    return peer(*_tensors(x, y), data_range).numpy()


@functools.cache
def _expected_gradients(peer, images: str, size: tuple[int, int]) -> list[np.ndarray]:
    x, y, data_range = IMAGES[images](*size)
    return _torch_gradients(lambda a, b: peer(a, b, data_range), x, y)


def _check(actual, expected, tolerance: float) -> None:
    expected = np.asarray(expected)
    assert (np.abs(expected) < 0.99).all(), "the images are too alike to tell conventions apart"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def _check_gradients(actual, expected, tolerance: float) -> None:
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("name", TORCH_PEERS)
def test_torch_peer(executor, name, images, size) -> None:
    x, y, data_range = IMAGES[images](*size)
    peer, tolerance = TORCH_PEERS[name]
    expected = _expected(peer, images, size)
    _check(values(executor, ssim_spec(name), x, y, data_range), expected, tolerance)


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("name", TORCH_PEERS)
def test_gradient_of_torch_peer(executor, name, images) -> None:
    x, y, data_range = IMAGES[images](37, 45)
    peer, tolerance = TORCH_PEERS[name]
    expected = _expected_gradients(peer, images, (37, 45))
    actual = gradients(executor, ssim_spec(name), x, y, data_range)
    # Gradients divide by C2 once more than values do.
    _check_gradients(actual, expected, 100 * tolerance)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("name", NUMPY_PEERS)
def test_numpy_peer(executor, name, images, size) -> None:
    x, y, data_range = IMAGES[images](*size)
    if name == "ffmpeg":  # which knows integers only
        x, y = np.rint(x * (255 / data_range)), np.rint(y * (255 / data_range))
        data_range = 255.0
    expected = NUMPY_PEERS[name](x, y, data_range)
    _check(values(executor, ssim_spec(name), x, y, data_range), expected, EXACT)


@pytest.mark.parametrize("images", ["camera", "astronaut"])
def test_opencv(executor, images) -> None:
    cv2 = _import("cv2")
    if not hasattr(cv2, "quality"):
        pytest.skip("this build of OpenCV has no quality module")
    x, y, data_range = IMAGES[images](97, 61)
    x, y = (np.rint(image * (255 / data_range)).astype(np.uint8) for image in (x, y))
    last = [np.ascontiguousarray(np.moveaxis(image[0], 0, -1)) for image in (x, y)]
    per_channel, _ = cv2.quality.QualitySSIM_compute(*last)
    expected = [np.mean(per_channel[: x.shape[1]])]
    # OpenCV filters squares of 8-bit values in float32, 65025 * 2^-24 = 4e-3 against C2 = 58.
    _check(values(executor, ssim_spec("opencv"), x, y, 255.0), expected, 1e-5)


# Numbers that programs printed which are not installed for the tests, for the images above: FFmpeg
# 9.0.2 (-lavfi ssim, of the first channel as 8-bit gray), TensorFlow 2.21.0 (tf.image.ssim,
# tf.image.ssim_multiscale) and MONAI 1.6.1 (SSIMMetric, MultiScaleSSIMMetric). FFmpeg prints six
# decimals. The other two compute in float32, so they cancel variances of 1e-4 in squares of 1: 1e-6
# on random images, up to 4e-5 on photographs with flat, bright parts.
STORED = [
    ("ffmpeg", "camera", (97, 61), False, [0.657731], 6e-7),
    ("ffmpeg", "camera", (46, 83), False, [0.662087], 6e-7),
    ("ffmpeg", "astronaut", (97, 61), False, [0.888587], 6e-7),
    ("ffmpeg", "astronaut", (46, 83), False, [0.830436], 6e-7),
    ("ffmpeg", "random", (97, 61), False, [0.690181], 6e-7),
    ("ffmpeg", "random", (46, 83), False, [0.691170], 6e-7),
    ("tensorflow", "camera", (97, 61), False, [0.6273132562637329], 4e-5),
    ("tensorflow", "camera", (177, 182), True, [0.9436123371124268], 4e-5),
    ("tensorflow", "astronaut", (97, 61), False, [0.8409060835838318], 4e-5),
    ("tensorflow", "astronaut", (177, 182), True, [0.980082094669342], 4e-5),
    ("tensorflow", "random", (97, 61), False, [0.6765946745872498, 0.6896108984947205], 1e-6),
    ("tensorflow", "random", (177, 182), True, [0.7250847816467285, 0.7286100387573242], 5e-6),
    ("monai", "camera", (97, 61), False, [0.6273139715194702], 4e-5),
    ("monai", "camera", (177, 182), True, [0.9439242482185364], 4e-5),
    ("monai", "astronaut", (97, 61), False, [0.8409121632575989], 4e-5),
    ("monai", "astronaut", (177, 182), True, [0.9800800681114197], 4e-5),
    ("monai", "random", (97, 61), False, [0.6765950322151184, 0.6896110773086548], 1e-6),
    ("monai", "random", (177, 182), True, [0.7244361639022827, 0.7292419075965881], 5e-6),
]


@pytest.mark.parametrize("case", STORED, ids=str)
def test_stored_numbers(executor, case) -> None:
    name, images, size, scales, stored, tolerance = case
    x, y, data_range = IMAGES[images](*size)
    if name == "ffmpeg":
        x, y = (np.rint(image[:1, :1] * (255 / data_range)) for image in (x, y))
        data_range = 255.0
    actual = values(executor, ssim_spec(name), x, y, data_range, scales=scales)
    _check(actual, stored, tolerance)


# --- Reduction of large images --------------------------------------------------------------------


@pytest.mark.parametrize("size", [(385, 390), (401, 512)])
def test_downsampling(executor, size) -> None:
    x, y, data_range = _camera_of_any_size(*size)
    expected = _piq(*_tensors(x, y), data_range)
    _check(values(executor, ssim_spec("piq"), x, y, data_range), expected, EXACT)
    expected = _wang2004_downsample(x, y, data_range)
    spec = ssim_spec("wang2004-downsample")
    _check(values(executor, spec, x, y, data_range), expected, EXACT)


def test_downsampling_by_three(executor) -> None:
    # 641 pixels: MATLAB and piq both reduce by 3; the third box of an axis needs a mirrored pixel.
    x, y, data_range = _camera_of_any_size(641, 700)
    expected = _piq(*_tensors(x, y), data_range)
    _check(values(executor, ssim_spec("piq"), x, y, data_range), expected, EXACT)
    expected = _wang2004_downsample(x, y, data_range)
    spec = ssim_spec("wang2004-downsample")
    _check(values(executor, spec, x, y, data_range), expected, EXACT)


def _camera_of_any_size(height: int, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    camera = skimage_data.camera().astype(float)
    x = np.tile(camera, (2, 2))[:height, :width]
    return x[None, None], _noisy(x, 40.0, seed=4)[None, None], 255.0


def test_gradient_through_downsampling(executor) -> None:
    x, y, data_range = _camera_of_any_size(385, 390)
    expected = _torch_gradients(lambda a, b: _piq(a, b, data_range), x, y)
    actual = gradients(executor, ssim_spec("piq"), x, y, data_range)
    _check_gradients(actual, expected, 100 * EXACT)


# --- Several scales -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", MS_SIZES)
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("name", MS_PEERS)
def test_several_scales(executor, name, images, size) -> None:
    x, y, data_range = IMAGES[images](*size)
    peer, tolerance = MS_PEERS[name]
    expected = _expected(peer, images, size)
    _check(values(executor, ssim_spec(name), x, y, data_range, scales=True), expected, tolerance)


@pytest.mark.parametrize("images", IMAGES)
def test_several_scales_of_matlab(executor, images) -> None:
    x, y, data_range = IMAGES[images](177, 182)
    expected = _wang2003(x, y, data_range)
    actual = values(executor, ssim_spec("wang2003"), x, y, data_range, scales=True)
    _check(actual, expected, EXACT)


@pytest.mark.parametrize("images", ["astronaut", "random"])
@pytest.mark.parametrize("name", MS_PEERS)
def test_gradient_of_several_scales(executor, name, images) -> None:
    x, y, data_range = IMAGES[images](177, 182)
    peer, tolerance = MS_PEERS[name]
    expected = _expected_gradients(peer, images, (177, 182))
    actual = gradients(executor, ssim_spec(name), x, y, data_range, scales=True)
    _check_gradients(actual, expected, 100 * tolerance)


# --- Options and volumes --------------------------------------------------------------------------

OPTIONS = {
    "pytorch-msssim window": (
        "pytorch-msssim",
        {"window_size": 7, "sigma": 0.9, "k1": 0.02, "k2": 0.1},
        _pytorch_msssim,
        {"win_size": 7, "win_sigma": 0.9, "K": (0.02, 0.1)},
        ROUNDED,
    ),
    "torchmetrics sigma": (
        "torchmetrics",
        {"sigma": (2.0, 0.7)},
        _torchmetrics,
        {"sigma": (2.0, 0.7)},
        EXACT,
    ),
    "torchmetrics uniform": (
        "torchmetrics",
        {"window": "uniform", "window_size": (9, 5), "truncate": None},
        _torchmetrics,
        {"gaussian_kernel": False, "kernel_size": (9, 5)},
        EXACT,
    ),
    "piq window": (
        "piq",
        {"window_size": 9, "sigma": 2.0, "k1": 0.05},
        _piq,
        {"kernel_size": 9, "kernel_sigma": 2.0, "k1": 0.05},
        EXACT,
    ),
    "kornia window": ("kornia", {"window_size": 5}, _kornia, {"window_size": 5}, EXACT),
    "kornia epsilon": ("kornia", {"epsilon": 0.1}, _kornia, {"eps": 0.1}, EXACT),
    "scikit-image window": (
        "scikit-image",
        {"window_size": 11, "covariance": "population", "k1": 0.02},
        _scikit_image,
        {"win_size": 11, "use_sample_covariance": False, "K1": 0.02},
        EXACT,
    ),
    "scikit-image sigma": (
        "scikit-image-gaussian",
        {"sigma": 2.0},
        _scikit_image,
        {"gaussian_weights": True, "sigma": 2.0},
        EXACT,
    ),
    "scikit-image as wang2004": (
        "wang2004",
        {},
        _scikit_image,
        {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
        EXACT,
    ),
}


@pytest.mark.parametrize("images", ["camera", "random"])
@pytest.mark.parametrize("case", OPTIONS)
def test_options(executor, case, images) -> None:
    name, changes, peer, options, tolerance = OPTIONS[case]
    x, y, data_range = IMAGES[images](41, 52)
    arguments = (x, y) if peer is _scikit_image else _tensors(x, y)
    expected = peer(*arguments, data_range, **options)
    actual = values(executor, ssim_spec(name).replace(**changes), x, y, data_range)
    _check(actual, expected, tolerance)


@pytest.mark.parametrize("rectify", ["relu", "simple"])
def test_options_of_several_scales(executor, rectify) -> None:
    x, y, data_range = _random(97, 101)
    changes = {"scale_weights": (0.2, 0.3, 0.5), "sigma": 1.0, "rectify": rectify}
    options = {"betas": (0.2, 0.3, 0.5), "sigma": 1.0, "normalize": rectify}
    expected = _torchmetrics_scales(*_tensors(x, y), data_range, **options)
    spec = ssim_spec("torchmetrics").replace(**changes)
    _check(values(executor, spec, x, y, data_range, scales=True), expected, ROUNDED)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_option_nonnegative(executor, nonnegative) -> None:
    x, y, data_range = _random(40, 41)
    y[0, 1] = 1.0 - x[0, 1]
    expected = _pytorch_msssim(*_tensors(x, y), data_range, nonnegative_ssim=nonnegative)
    spec = ssim_spec("pytorch-msssim").replace(nonnegative="channel" if nonnegative else "none")
    _check(values(executor, spec, x, y, data_range), expected, ROUNDED)


def _volumes() -> tuple[np.ndarray, np.ndarray, float]:
    generator = np.random.default_rng(5)
    x = generator.random((2, 2, 13, 16, 15))
    return x, np.clip(x + 0.3 * generator.standard_normal(x.shape), 0.0, 1.0), 1.0


@pytest.mark.parametrize("name", ["pytorch-msssim", "torchmetrics"])
def test_volumes(name) -> None:
    x, y, data_range = _volumes()
    peer, tolerance = TORCH_PEERS[name]
    expected = peer(*_tensors(x, y), data_range)
    _check(reference.ssim(x, y, ssim_spec(name), data_range), expected, tolerance)
    expected = _torch_gradients(lambda a, b: peer(a, b, data_range), x, y)
    actual = reference.ssim_gradient(x, y, ssim_spec(name), np.ones(2), data_range)
    _check_gradients(actual, expected, 100 * tolerance)


def test_volumes_of_scikit_image() -> None:
    x, y, data_range = _volumes()
    expected = _scikit_image(x, y, data_range)
    _check(reference.ssim(x, y, ssim_spec("scikit-image"), data_range), expected, EXACT)


def test_volumes_of_kornia() -> None:
    x, y, data_range = _volumes()
    module = _import("kornia.metrics")
    expected = module.ssim3d(*_tensors(x, y), 5, max_val=data_range).mean((1, 2, 3, 4))
    spec = ssim_spec("kornia").replace(window_size=5)
    _check(reference.ssim(x, y, spec, data_range), expected, EXACT)
