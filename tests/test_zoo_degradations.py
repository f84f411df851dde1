# SPDX-License-Identifier: Apache-2.0
"""Degradations: seeded, on batches, and each as strong as it says."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sosie.zoo.degradations import (
    JPEG,
    Compose,
    Downsample,
    ElasticWarp,
    GaussianBlur,
    GaussianNoise,
    LensDistortion,
    MissingBlocks,
    MissingPixels,
    MissingStrokes,
    MotionBlur,
    PoissonNoise,
    RainStreaks,
    SaltAndPepperNoise,
    Sometimes,
    Twist,
    list_degradations,
    parse_degradation,
)
from sosie.zoo.photographs import load_photograph

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    pixels = load_photograph("chelsea.png")[100:164, 150:230].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


# ------------------------------------------------------------------------------------ what all have


@pytest.mark.parametrize("name", list_degradations())
@pytest.mark.parametrize("shape", [(3, 3, 33, 40), (2, 1, 28, 28), (1, 3, 8, 9)])
def test_all_of_them(name: str, shape: tuple[int, int, int, int]) -> None:
    images = torch.rand(shape, generator=seeded(5))
    before = images.clone()
    damage = parse_degradation(name)
    damaged, known = damage(images, generator=seeded())
    assert torch.equal(images, before)
    assert damaged.shape == images.shape
    assert damaged.dtype == images.dtype
    assert known.shape == (shape[0], 1, *shape[2:])
    assert set(known.unique().tolist()) <= {0.0, 1.0}
    assert 0 <= damaged.min() <= damaged.max() <= 1
    assert (damaged * (1 - known)).abs().max() == 0
    assert not torch.equal(damaged, images)
    again, known_again = damage(images, generator=seeded())
    assert torch.equal(damaged, again)
    assert torch.equal(known, known_again)
    if name != "downsample" and min(shape) > 8:
        other, known_other = damage(images, generator=seeded(1))
        assert not (torch.equal(damaged, other) and torch.equal(known, known_other))


def test_images_of_a_batch_are_damaged_differently() -> None:
    images = torch.rand(1, 1, 40, 40, generator=seeded()).expand(2, 1, 40, 40)
    for name in set(list_degradations()) - {"downsample"}:
        damaged, _ = parse_degradation(name)(images, generator=seeded(2))
        assert not torch.equal(damaged[0], damaged[1]), name


def test_text() -> None:
    damage = parse_degradation("gaussian_noise:0.05, missing_pixels:0.3")
    assert damage == Compose((GaussianNoise(0.05), MissingPixels(0.3)))
    with pytest.raises(ValueError, match="unknown degradation 'gausian_noise'; nearest: gaussian_"):
        parse_degradation("gausian_noise")
    with pytest.raises(ValueError, match=r"expected a number after jpeg:, got 'high'"):
        parse_degradation("jpeg:high")
    assert parse_degradation("gaussian_noise:0.05:0") == GaussianNoise(0.05, clip=False)
    assert parse_degradation("missing_blocks:0.2:3") == MissingBlocks(0.2, count=3)
    with pytest.raises(ValueError, match=r"at most 1 numbers \(quality\), got 'jpeg:30:1'"):
        parse_degradation("jpeg:30:1")
    with pytest.raises(ValueError, match=r"expected a share between 0 and 1, got 1\.5"):
        parse_degradation("missing_pixels:1.5")
    with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\), got shape \(3, 8, 8\)"):
        GaussianNoise()(torch.rand(3, 8, 8), generator=seeded())


def test_one_after_the_other() -> None:
    images = torch.rand(2, 3, 16, 16, generator=seeded(3))
    first, second = GaussianNoise(0.1), MissingBlocks(0.5)
    generator = seeded()
    noisy, known = first.apply(images, torch.ones(2, 1, 16, 16), generator)
    expected, known = second.apply(noisy, known, generator)
    damaged, known_too = Compose([first, second])(images, generator=seeded())
    assert torch.equal(damaged, expected.clamp(0, 1) * known)
    assert torch.equal(known, known_too)


def test_half_of_the_images_are_damaged_sometimes() -> None:
    assert parse_degradation("jpeg:30, missing_pixels:0.5?") == Compose(
        (JPEG(30.0), Sometimes(MissingPixels(0.5)))
    )
    images = torch.rand(200, 1, 8, 8, generator=seeded(3))
    damaged, known = parse_degradation("missing_pixels:0.5?")(images, generator=seeded())
    is_hit = (known == 0).flatten(1).any(1)
    # Five standard deviations of a binomial count.
    assert abs(is_hit.sum().item() - 100) < 5 * math.sqrt(200 / 4)
    assert torch.equal(damaged, images * known)
    assert not (known[is_hit] == 0).flatten(1).all(1).any()


# -------------------------------------------------------------------------------------------- noise


def test_gaussian_noise_has_its_deviation() -> None:
    images = torch.full((4, 3, 64, 64), 0.5)
    damaged, known = GaussianNoise(0.05)(images, generator=seeded())
    error = damaged - images
    assert (known == 1).all()
    # Five standard deviations of the mean and of the spread of so many samples.
    assert abs(error.mean().item()) < 5 * 0.05 / math.sqrt(error.numel())
    assert abs(error.std().item() - 0.05) < 5 * 0.05 / math.sqrt(2 * error.numel())
    raw, _ = GaussianNoise(1.0, clip=False)(images, generator=seeded())
    assert raw.min() < -1
    assert GaussianNoise(1.0)(images, generator=seeded())[0].min() == 0


def test_poisson_noise_grows_with_brightness() -> None:
    images = torch.tensor([0.1, 0.4]).reshape(2, 1, 1, 1).expand(2, 1, 128, 128)
    damaged, _ = PoissonNoise(peak=50)(images, generator=seeded())
    for brightness, sample in zip((0.1, 0.4), damaged, strict=True):
        count = sample.numel()
        # The variance of a Poisson variable is its mean, here of photons; it is estimated within
        # sqrt(2 / count) of itself, and somewhat worse where photons are few.
        variance = brightness / 50
        assert abs(sample.mean().item() - brightness) < 5 * math.sqrt(variance / count)
        assert abs(sample.var().item() / variance - 1) < 7 * math.sqrt(2 / count)


def test_salt_and_pepper_come_in_equal_parts() -> None:
    images = torch.full((2, 3, 128, 128), 0.5)
    damaged, known = SaltAndPepperNoise(0.2)(images, generator=seeded())
    assert (known == 1).all()
    count = 2 * 128 * 128
    for level in (0.0, 1.0):
        hit = (damaged == level).all(1)
        assert torch.equal(hit, (damaged == level).any(1))
        assert abs(hit.float().mean().item() - 0.1) < 5 * math.sqrt(0.1 * 0.9 / count)


# ------------------------------------------------------------------------------------------ missing


def test_missing_pixels_have_their_share() -> None:
    images = torch.ones(4, 3, 64, 64)
    damaged, known = MissingPixels(0.3)(images, generator=seeded())
    assert abs(known.mean().item() - 0.7) < 5 * math.sqrt(0.3 * 0.7 / known.numel())
    assert torch.equal(damaged, known.expand_as(damaged))


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_missing_blocks_are_rectangles(share: float) -> None:
    _, known = MissingBlocks(share)(torch.ones(8, 1, 31, 40), generator=seeded())
    for mask in known[:, 0]:
        rows, columns = (mask == 0).nonzero(as_tuple=True)
        tall, wide = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert len(rows) == tall * wide
        for side, extent in ((31, tall), (40, wide)):
            assert round(share / 2 * side) <= extent <= round(share * side)


def test_missing_strokes_reach_their_share_and_hardly_more() -> None:
    _, known = MissingStrokes(0.3, thickness=0.08)(torch.ones(6, 1, 48, 64), generator=seeded())
    missing = 1 - known.mean((1, 2, 3))
    assert (missing >= 0.3).all()
    # One stroke of four segments, each at most a quarter of 64 pixels long and 3.84 wide.
    assert (missing <= 0.3 + 4 * (16 + 3.84) * 3.84 / (48 * 64)).all()


# --------------------------------------------------------------------------------------------- rain


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_rain_has_its_share(share: float) -> None:
    damage = RainStreaks(share, brightness=1.0, length=12, width=2)
    damaged, known = damage(torch.zeros(32, 3, 64, 64), generator=seeded())
    assert (known == 1).all()
    assert torch.equal(damaged[:, :1].expand_as(damaged), damaged)
    # Streaks are half to fully bright; under the brightest third of a streak's profile lies what is
    # brighter than a half in any case, within its width what may be.
    covered = (damaged[:, 0] >= 0.5).float().mean().item()
    assert 0.4 * share < covered < 1.1 * share


def test_rain_adds_light_as_on_a_screen() -> None:
    black, gray = torch.zeros(2, 1, 40, 40), torch.full((2, 1, 40, 40), 0.25)
    rain, _ = RainStreaks(0.3)(black, generator=seeded(4))
    damaged, _ = RainStreaks(0.3)(gray, generator=seeded(4))
    torch.testing.assert_close(damaged, gray + rain * (1 - gray), rtol=0, atol=1e-6)
    white, _ = RainStreaks(0.9)(torch.ones(1, 3, 20, 20), generator=seeded())
    assert (white == 1).all()


@pytest.mark.parametrize("tilt", [0.0, 40.0])
def test_streaks_are_parallel_and_within_the_tilt(tilt: float) -> None:
    angles = []
    for seed in range(20):
        rain, _ = RainStreaks(0.05, tilt=tilt)(torch.zeros(1, 1, 96, 96), generator=seeded(seed))
        down, right = torch.gradient(rain[0, 0])
        # The structure tensor's angle: light changes least along the streaks.
        mean = [(a * b).mean().item() for a, b in ((down, down), (down, right), (right, right))]
        angles.append(-math.degrees(math.atan2(2 * mean[1], mean[2] - mean[0])) / 2)
    # What overlaps and ends within the image turns the tensor a little.
    assert max(map(abs, angles)) < tilt + 5
    if tilt:
        assert min(angles) < -tilt / 2 < tilt / 2 < max(angles)


# ------------------------------------------------------------------------------------- blur, detail


def test_gaussian_blur_is_that_of_scipy(photograph: Tensor) -> None:
    damaged, _ = GaussianBlur(1.5)(photograph, generator=seeded())
    sigma = 0.75 + 0.75 * torch.rand(1, generator=seeded()).item()
    for channel in range(3):
        # SciPy calls "mirror" what others call "reflect"; both windows are cut at five pixels.
        expected = gaussian_filter(
            photograph[0, channel].double().numpy(), sigma, mode="mirror", radius=5
        )
        np.testing.assert_allclose(damaged[0, channel].numpy(), expected, atol=1e-5)


def test_motion_blur_smears_a_point_along_a_line() -> None:
    images = torch.zeros(1, 1, 31, 31)
    images[..., 15, 15] = 1
    damaged, _ = MotionBlur(9)(images, generator=seeded(3))
    rows, columns = damaged[0, 0].nonzero(as_tuple=True)
    weights = damaged[0, 0][rows, columns]
    # Weights of the window sum to one; float32.
    assert weights.sum().item() == pytest.approx(1, abs=1e-4)
    covariance = np.cov(np.stack([rows, columns]), aweights=weights.numpy())
    across, along = np.sqrt(np.linalg.eigvalsh(covariance))
    # A line of 9 pixels has a deviation of sqrt((81 - 1) / 12) = 2.6 along itself.
    assert along > 2
    assert across < 0.7


def test_jpeg_is_pillows(photograph: Tensor) -> None:
    damaged, _ = JPEG(10)(photograph, generator=seeded())
    quality = round(10 + 5 * torch.rand(1, generator=seeded()).item())
    pixels = (photograph[0].permute(1, 2, 0) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    expected = np.asarray(Image.open(buffer))
    levels = (damaged[0].permute(1, 2, 0) * 255).round().byte().numpy()
    np.testing.assert_array_equal(levels, expected)


def test_downsampling_keeps_what_is_smooth(photograph: Tensor) -> None:
    column = torch.linspace(0.2, 0.8, 48).expand(1, 1, 48, 48).contiguous()
    smooth, _ = Downsample(2)(column, generator=seeded())
    # Away from the border, bicubic interpolation reproduces straight lines.
    torch.testing.assert_close(smooth[..., 8:-8, 8:-8], column[..., 8:-8, 8:-8], rtol=0, atol=1e-5)
    errors = [
        (Downsample(scale)(photograph, generator=seeded())[0] - photograph).square().mean().item()
        for scale in (1, 2, 4)
    ]
    assert errors[0] < 1e-10
    assert errors[0] < errors[1] < errors[2]


# ----------------------------------------------------------------------------------------- geometry


def test_lens_distortion_moves_pixels_as_browns_model_says() -> None:
    # Brightness is the column, so that a pixel tells where it came from.
    width = 64
    images = ((torch.arange(width) + 0.5) / width).expand(1, 1, width, width).contiguous()
    damaged, known = LensDistortion(0.2)(images, generator=seeded())
    k = 0.1 + 0.1 * torch.rand(1, generator=seeded()).item()
    y, x = torch.meshgrid(*[(torch.arange(width) + 0.5 - 32) / 32] * 2, indexing="ij")
    came_from = x * (1 + k * (x.square() + y.square()))
    inside = known[0, 0] > 0
    # Bilinear interpolation of a straight line, in float32.
    torch.testing.assert_close(
        damaged[0, 0][inside], (came_from[inside] + 1) / 2, rtol=0, atol=1e-5
    )
    assert known[0, 0, 0, 0] == 0  # a barrel's corners come from outside
    assert known[0, 0, 32, 32] == 1
    assert inside.float().mean() > 0.6


def test_twist_turns_the_centre_and_leaves_the_rim() -> None:
    image = torch.rand(1, 1, 65, 65, generator=seeded(1))
    damaged, known = Twist(60)(image, generator=seeded(3))
    y, x = torch.meshgrid(*[(torch.arange(65) + 0.5 - 32.5) / 32.5] * 2, indexing="ij")
    rim = (x.square() + y.square()) >= 1
    torch.testing.assert_close(damaged[0, 0][rim], image[0, 0][rim], rtol=0, atol=1e-4)
    assert (damaged - image).abs()[0, 0][~rim].mean() > 0.1
    assert known[0, 0, 1:-1, 1:-1].all()


def test_elastic_warp_moves_by_its_displacement() -> None:
    x = ((torch.arange(64) + 0.5) / 64).expand(64, 64)
    images = torch.stack([x, x.T, x])[None].contiguous()
    damaged, known = ElasticWarp(displacement=0.04)(images, generator=seeded())
    moved = (damaged - images)[0, :2][:, known[0, 0] > 0] * 2  # half the side is 1
    # What leaves the image is not seen, and the field is one of few independent numbers.
    assert 0.5 * 0.04 < moved.std().item() < 1.3 * 0.04
    smooth = (damaged - images)[0, 0, 20:44, 20:44]
    assert smooth.diff(dim=0).abs().max() < 0.01


def test_what_is_missing_moves_along() -> None:
    images = torch.ones(1, 1, 32, 32)
    damage = Compose([MissingBlocks(0.4), Twist(90)])
    damaged, known = damage(images, generator=seeded(1))
    assert 0 < (known == 0).sum() < 32 * 32 / 2
    # Weights of bilinear interpolation sum to one, in float32.
    torch.testing.assert_close(damaged, known, rtol=0, atol=1e-5)
