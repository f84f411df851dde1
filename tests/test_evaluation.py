# SPDX-License-Identifier: Apache-2.0
"""Evaluation: the numbers of published protocols, images in any order, and what goes wrong."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import sosie
from sosie.cli.app import app
from sosie.generation import PRDC
from sosie.zoo import create_model, repair_image, save_model
from sosie.zoo.baselines import classical_repair, noise_deviation
from sosie.zoo.data import ImageCollection, open_collection, to_tensor
from sosie.zoo.degradations import parse_degradation
from sosie.zoo.evaluation import work
from sosie.zoo.evaluation.cases import find_cases
from sosie.zoo.evaluation.generation import GENERATED, REAL, Match, evaluate_generation
from sosie.zoo.evaluation.likelihood import evaluate_likelihood
from sosie.zoo.evaluation.repair import (
    RepairProtocol,
    evaluate_repair,
    parse_measures,
    versions_of,
)
from sosie.zoo.evaluation.work import Engine
from sosie.zoo.model import AdversarialPair
from sosie.zoo.photographs import load_photograph
from sosie.zoo.resize import resize_bicubic

pytestmark = pytest.mark.usefixtures("one_thread")

with_data = pytest.mark.skipif(
    "SOSIE_DATA" not in os.environ, reason="SOSIE_DATA does not name a folder with Set5"
)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four crops of photographs that no weights were trained on, one of them gray."""
    path = tmp_path_factory.mktemp("crops")
    for name in ("chelsea.png", "coffee.png"):
        pixels = load_photograph(name)
        Image.fromarray(pixels[100:196, 120:240]).save(path / name)
        Image.fromarray(pixels[60:120, 200:260]).save(path / f"small-{name}")
    Image.fromarray(load_photograph("coffee.png")[100:190, 150:260, 0]).save(path / "gray.png")
    return path


# ----------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize(("size", "after"), [((40, 57), (20, 19)), ((17, 20), (51, 40))])
def test_bicubic_is_that_of_torch_inside_an_image(
    size: tuple[int, int], after: tuple[int, int]
) -> None:
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = F.interpolate(images, after, mode="bicubic", antialias=True, align_corners=False)
    border = 6  # what the kernel's half-width of 2 pixels, 3 times as wide, can reach
    inside = np.s_[..., border:-border, border:-border]
    # Rounding of float64 in sums of some ten terms.
    torch.testing.assert_close(
        resize_bicubic(images, after)[inside], expected[inside], rtol=0, atol=1e-12
    )


def test_bicubic_at_the_border_goes_on_with_the_outermost_pixels() -> None:
    image = torch.rand(9, 12, dtype=torch.float64)
    padded = F.pad(image[None, None], (6, 6, 6, 6), mode="replicate")[0, 0]
    whole = resize_bicubic(padded, (7, 8))
    # Three pixels to one, and the padding is a multiple of three.
    torch.testing.assert_close(resize_bicubic(image, (3, 4)), whole[2:5, 2:6])


@with_data
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reduced_images_of_set5_come_out_bit_for_bit(scale: int) -> None:
    files = sorted((Path(os.environ["SOSIE_DATA"]) / f"superres/set5/x{scale}").glob("*_HR.png"))
    assert len(files) == 5
    for path in files:
        original, reduced = (
            torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
            for file in (path, path.with_name(path.name.replace("_HR", "_LR")))
        )
        rows = resize_bicubic(original.double(), (reduced.shape[1], original.shape[2]))
        rows = (rows + 0.5).floor().clamp(0, 255)
        both = (resize_bicubic(rows, tuple(reduced.shape[1:])) + 0.5).floor().clamp(0, 255)
        assert torch.equal(both.byte(), reduced)


@with_data
@pytest.mark.parametrize(
    ("scale", "psnr", "ssim"), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)]
)
def test_bicubic_on_set5_is_as_published(
    scale: int, psnr: float, ssim: float, tmp_path: Path
) -> None:
    images = Path(os.environ["SOSIE_DATA"]) / f"superres/set5/x{scale}/*_HR.png"
    result = run(
        "classical", "--data", images, "--degradation", f"downsample:{scale}", "--output", tmp_path,
        "--measures", "psnr,ssim", "--json",
    )  # fmt: skip
    means = json.loads(result.stdout)["means"]["bicubic"]
    # Every digit that is published.
    assert (round(means["psnr"], 2), round(means["ssim"], 4)) == (psnr, ssim)


# ---------------------------------------------------------------------------------------- baselines


@pytest.mark.parametrize(
    "damage",
    [
        "gaussian_noise:0.1", "poisson_noise:30", "salt_and_pepper_noise:0.1", "missing_pixels:0.5",
        "missing_blocks:0.2", "missing_strokes:0.1", "gaussian_blur:2", "downsample:2", "jpeg:10",
        "rain_streaks:0.3", "gaussian_noise:0.05,missing_pixels:0.5",
    ],
)  # fmt: skip
def test_what_is_usual_helps(damage: str) -> None:
    degradation = parse_degradation(damage)
    image = to_tensor(load_photograph("coffee.png")[100:196, 200:320], 3)[None]
    damaged, known = degradation(image, generator=torch.Generator().manual_seed(1))
    pixels = np.ascontiguousarray(damaged[0].permute(1, 2, 0).numpy())
    classical = classical_repair(degradation)
    assert classical is not None
    repaired = classical.repair(pixels, known[0, 0].numpy() > 0)
    assert repaired.shape == pixels.shape
    truth = image[0].permute(1, 2, 0).numpy()
    before, after = (
        sosie.psnr(np.clip(each, 0, 1), truth, data_range=1.0, channel_axis=-1)
        for each in (pixels, repaired)
    )
    assert after > before


def test_there_is_no_usual_answer_to_everything() -> None:
    assert classical_repair(parse_degradation("twist:30")) is None
    sometimes = classical_repair(parse_degradation("missing_pixels:0.5?"))
    assert sometimes.name == "biharmonic inpainting"
    assert classical_repair(None, masked=True).name == "biharmonic inpainting"
    assert classical_repair(None).name == "non-local means"
    two = classical_repair(parse_degradation("gaussian_noise,missing_pixels"))
    assert two.name == "biharmonic inpainting, then non-local means"
    once = classical_repair(parse_degradation("missing_strokes,missing_pixels"), masked=True)
    assert once.name == "biharmonic inpainting"
    assert noise_deviation(np.zeros((2, 5, 1), np.float32)) == 0


# ------------------------------------------------------------------------------------------- repair


def test_values_are_those_of_the_library(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("repair_cnn", channels=3, depth=3, width=4)
    save_model(model, tmp_path / "model.safetensors")
    protocol = RepairProtocol(
        model="repair_cnn",
        weights=str(tmp_path),
        degradation="missing_pixels:0.3",
        measures="psnr,ssim,ssim:scikit-image,ms-ssim,mse",
    )
    found = evaluate_repair(find_cases(str(folder)), protocol)
    assert found.methods == ("damaged", "biharmonic inpainting", "repair_cnn")
    assert [row["name"] for row in found.rows] == sorted(path.name for path in folder.iterdir())
    for row in found.rows:
        truth, versions = versions_of(row, protocol)
        expected = np.asarray(Image.open(folder / row["name"]))
        np.testing.assert_array_equal(truth.squeeze(), expected)
        damaged, _, repaired = (version.pixels for version in versions)
        known = damaged.max(axis=2) > 0
        share = 1 - known.mean()
        assert abs(share - 0.3) < 5 * math.sqrt(0.21 / known.size)
        np.testing.assert_array_equal(damaged[known], truth[known])
        # The library repairs what it is given; files have 8 bits, and so has what is measured.
        again = repair_image(model, damaged, ~known)
        assert np.abs(again.astype(int) - repaired).max() <= 1
        for version in versions:
            for name, value in version.values.items():
                assert row[f"{version.method}/{name}"] == pytest.approx(value, nan_ok=True)
            assert version.values["ssim:scikit-image"] == pytest.approx(
                float(sosie.ssim(version.pixels, truth, spec="scikit-image", channel_axis=-1))
            )
            # The coarsest scale of these images is smaller than the window.
            assert math.isnan(version.values["ms-ssim"])
    mean = np.mean([row["repair_cnn/psnr"] for row in found.rows])
    assert found.mean("repair_cnn", "psnr") == pytest.approx(mean)
    assert math.isnan(found.mean("repair_cnn", "ms-ssim"))


def test_an_image_does_not_depend_on_the_others(folder: Path) -> None:
    cases = find_cases(str(folder))
    protocol = RepairProtocol(degradation="gaussian_noise:0.1", measures="psnr")
    whole = evaluate_repair(cases, protocol).rows
    alone = evaluate_repair(find_cases(str(folder / "*.png")), protocol).rows
    assert [row["damaged/psnr"] for row in alone] != [row["damaged/psnr"] for row in whole]
    cases.rows.reverse()
    assert evaluate_repair(cases, protocol).rows == whole[::-1]
    other = evaluate_repair(cases, replace(protocol, seed=1)).rows
    assert other[0]["damaged/psnr"] != whole[-1]["damaged/psnr"]


def test_pairs_of_files_and_masks(folder: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in folder.iterdir():
        with Image.open(path) as image:
            size = image.size
        mask = Image.new("L", size if path.name != "gray.png" else (3, 3))
        mask.paste(255, (20, 20, 30, 30))
        mask.save(masks / f"{path.stem}.bmp")
    (masks / "chelsea.bmp").unlink()
    result = run(
        "classical", "--truth", folder, "--damaged", folder, "--mask", masks, "--measures", "psnr",
        "--output", tmp_path / "out", "--json",
    )  # fmt: skip
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert {each["name"]: each["reason"] for each in record["failures"]} == {
        "chelsea.png": f"no mask of this name in {masks}",
        "gray.png": f"mask {masks / 'gray.bmp'}: the mask has 3 x 3 pixels, the image 110 x 90",
    }
    assert "chelsea.png: no mask" in result.stderr
    assert len(record["images"]) == 3
    for values in record["images"].values():
        damaged, repaired = values.values()
        assert damaged["psnr"] < repaired["psnr"]
    lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert lines[0] == "name,method,psnr,error"
    assert len(lines) == 1 + 2 * 3 + 2


def test_a_pixel_is_missing_where_repair_says_so(folder: Path, tmp_path: Path) -> None:
    """Gray levels below one half, as compression leaves beside white, are no mask."""
    levels = np.zeros((96, 120), np.uint8)
    levels[:, ::3], levels[:, 1::3] = 255, 100
    Image.fromarray(levels).save(tmp_path / "mask.png")
    (row,) = find_cases(str(folder / "coffee.png"), masks=tmp_path / "mask.png").rows
    truth, (damaged, _) = versions_of(row, RepairProtocol(masked=True, measures="psnr"))
    np.testing.assert_array_equal(damaged.pixels, truth * (levels < 128)[..., None])
    with pytest.raises(FileNotFoundError, match="no folder of masks"):
        find_cases(str(folder), masks=tmp_path / "none")


def test_super_resolution_from_files(folder: Path, tmp_path: Path) -> None:
    for name in ("chelsea", "coffee"):
        image = Image.open(folder / f"{name}.png")
        image.save(tmp_path / f"{name}_HR.png")
        image.resize((60, 48), Image.Resampling.BICUBIC).save(tmp_path / f"{name}_LR.png")
    arguments = (
        "classical", "--truth", tmp_path / "*_HR.png", "--damaged", tmp_path / "*_LR.png",
        "--output", tmp_path / "out", "--measures", "psnr", "--json",
    )  # fmt: skip
    record = json.loads(run(*arguments).stdout)
    protocol = record["protocol"]
    assert (protocol["scale"], protocol["luminance"], protocol["border"]) == (2, True, 2)
    # By another implementation, which differs at the border and in rounding.
    for name in ("chelsea", "coffee"):
        small, large = (Image.open(tmp_path / f"{name}_{kind}.png") for kind in ("LR", "HR"))
        enlarged = small.resize((120, 96), Image.Resampling.BICUBIC)
        a, b = (
            np.asarray(each, np.float64) @ [65.481, 128.553, 24.966] / 255 + 16
            for each in (enlarged, large)
        )
        error = np.mean((a - b)[2:-2, 2:-2] ** 2)
        expected = 10 * math.log10(255**2 / error)
        assert record["images"][name]["bicubic"]["psnr"] == pytest.approx(expected, abs=0.1)
    assert run(*arguments, "--colour", "--border", 0).exit_code == 0
    Image.new("RGB", (50, 48)).save(tmp_path / "coffee_LR.png")
    failed = run(*arguments)
    assert failed.exit_code == 1
    assert "sizes differ: the truth has 120 x 96 pixels, the damaged image 50 x 48" in failed.stderr


def test_what_is_kept_is_not_computed_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, protocol = (
        find_cases(str(folder)),
        RepairProtocol(degradation="jpeg:20", measures="psnr"),
    )
    expected = evaluate_repair(cases, protocol).rows
    kept = Engine(folder=tmp_path / "kept")
    evaluate_repair(cases, protocol, kept)
    computed: list[Any] = []
    monkeypatch.setattr(work, "_numbers", lambda *_: computed.append(0))
    resumed = evaluate_repair(cases, protocol, kept).rows
    assert computed == []
    for row, other in zip(resumed, expected, strict=True):
        assert row["damaged/psnr"] == other["damaged/psnr"]
    with pytest.raises(ValueError, match=r"expected results with .* got results with"):
        evaluate_repair(cases, RepairProtocol(degradation="jpeg:30", measures="psnr"), kept)


@pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning")  # Ray's own
def test_ray_gives_the_same(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    cases = find_cases(str(folder))
    protocol = RepairProtocol(degradation="jpeg:20", measures="psnr,ssim")
    expected = evaluate_repair(cases, protocol).rows
    found = evaluate_repair(cases, protocol, Engine("ray", tmp_path / "kept", jobs=2)).rows
    for row, other in zip(found, expected, strict=True):
        assert {**other, "reason": None} == row


# --------------------------------------------------------------------------------------- likelihood


def test_likelihood_is_the_models(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = create_model("vae_mlp", hidden=8, latent=2, binarise=True)
    rows = find_cases("fashion-mnist-2000").rows[:6]
    found = evaluate_likelihood(model, rows, samples=300)
    assert found.is_density
    bound, likelihood = found.values["elbo"], found.values["log_likelihood"]
    assert (bound <= likelihood).all()
    assert found.nll.mean == pytest.approx(-likelihood.mean())
    assert found.nll.error == pytest.approx(likelihood.std(ddof=1) / math.sqrt(6))
    # The same images, in an other order and company; kept, and found again.
    again = evaluate_likelihood(model, rows[:3:-1], samples=300, engine=Engine(folder=tmp_path))
    # Products of matrices of one size, on one thread: equal bits.
    np.testing.assert_array_equal(again.values["log_likelihood"], likelihood[:3:-1])
    gray: Any = create_model("vae_mlp", hidden=8, latent=2)
    assert not evaluate_likelihood(gray, rows[:2], samples=2).is_density
    with pytest.raises(ValueError, match="needs the reconstruction bce or mse, got 'ssim'"):
        evaluate_likelihood(create_model("vae_conv", reconstruction="ssim"), rows)


def test_weights_of_codes_make_the_bound_and_the_likelihood() -> None:
    torch.manual_seed(0)
    model: Any = create_model("vae_mlp", image_shape=(1, 2, 2), hidden=4, latent=3, layers=2)
    images = (torch.rand(5, 1, 2, 2) > 0.5).float()

    class Given:
        """Noise that is known."""

        def __init__(self) -> None:
            self.generator = torch.Generator().manual_seed(3)

        def normal(self, *shape: int) -> Tensor:
            return torch.randn(shape, generator=self.generator)

    with torch.no_grad():
        weights = model.log_weights(images, Given(), 700)
        unit = torch.cat([Given().normal(5, 200, 3)], 1)
        mean, log_variance = model.encode(images)
        codes = mean[:, None] + (0.5 * log_variance).exp()[:, None] * unit
        q = torch.distributions.Normal(mean[:, None], (0.5 * log_variance).exp()[:, None])
        p = torch.distributions.Normal(0.0, 1.0)
        logits = model.decoder(codes.flatten(0, 1)).reshape(5, 200, 4)
        pixels = torch.distributions.Bernoulli(logits=logits).log_prob(images.reshape(5, 1, 4))
        expected = pixels.sum(2) + p.log_prob(codes).sum(2) - q.log_prob(codes).sum(2)
    assert weights.shape == (5, 700)
    assert weights.dtype == torch.float64
    # Sums of about ten terms in float32.
    torch.testing.assert_close(weights[:, :200], expected.double(), rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------- generation


class Copies(AdversarialPair):
    """A generator that knows some images by heart."""

    name = "copies"

    def __init__(self, images: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.images = images
        self.config = type("Config", (), {"image_shape": (1, 28, 28)})()

    def sample(self, count: int, noise: Any) -> Tensor:
        chosen = (noise.uniform(count, 1)[:, 0] * len(self.images)).long()
        return self.images[chosen]


@pytest.fixture(scope="module")
def fashion() -> ImageCollection:
    images = open_collection("fashion-mnist-2000")
    return ImageCollection(images.training[:900], images.training[900:1500])


@pytest.mark.parametrize("collapsed", [False, True])
def test_generators_are_told_apart(fashion: ImageCollection, collapsed: bool) -> None:
    images = torch.stack([to_tensor(pixels, 1) for pixels in fashion.training[:900]])
    model: Any = Copies(images[:3] if collapsed else images)
    found = evaluate_generation(model, fashion, count=600, parzen=False)
    assert found.count == 600
    assert [match.space for match in found.matches[::2]] == ["pixels", "pca-64", "lenet-fashion-v1"]
    for generated, real in zip(found.matches[::2], found.matches[1::2], strict=True):
        assert (generated.images, real.images) == (GENERATED, REAL)
        assert min(real.prdc) > 0.5
        if collapsed:
            assert generated.prdc.coverage < 0.1
            assert generated.prdc.recall < 0.1
            assert generated.frechet_distance > 3 * real.frechet_distance
        else:
            assert min(generated.prdc) > 0.5
            assert generated.frechet_distance < 2 * real.frechet_distance


def test_parzen_of_generated_and_of_real_images(fashion: ImageCollection) -> None:
    model: Any = create_model("gan_mlp", hidden=16, latent=4)
    found = evaluate_generation(model, fashion, count=120, spaces=["pixels"])
    generated, real = found.parzen
    assert (generated.images, real.images) == (GENERATED, REAL)
    # Untrained, its images are noise about middle gray.
    assert generated.log_likelihood.mean < real.log_likelihood.mean
    assert 0.1 <= real.sigma < 1
    digits = open_collection("digits")
    small: Any = create_model("gan_mlp", hidden=16, latent=4, image_shape=(1, 8, 8))
    found = evaluate_generation(small, digits, count=70, parzen=False)
    assert list(found.refused) == ["pca-64", "lenet-fashion-v1"]


# ----------------------------------------------------------------------------------------- commands


def test_a_generator_by_command(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(
        create_model("vae_mlp", hidden=16, latent=4, image_shape=(1, 8, 8)),
        tmp_path / "model.safetensors",
    )
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n')
    result = run(
        "vae_mlp", "--weights", tmp_path, "--data", "digits", "--count", 50, "--samples", 3,
        "--features", "pixels", "--output", tmp_path / "out", "--json", "--set", "binarise=true",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record == json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["likelihood"]["importance_weighted_nll"] <= record["likelihood"]["negative_elbo"]
    assert record["likelihood"]["is_density"]
    assert record["likelihood"]["images"] == 50
    assert set(record["spaces"]["pixels"]) == {GENERATED, REAL}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Training loss over 2 steps" in page


def test_no_number_of_a_generator_is_cut(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("vae_mlp", hidden=16, latent=4, image_shape=(1, 8, 8))
    save_model(model, tmp_path / "model.safetensors")
    result = CliRunner().invoke(
        app,
        ["evaluate", "vae_mlp", "--weights", str(tmp_path), "--data", "digits", "--count", "50",
         "--samples", "1", "--no-parzen", "--output", str(tmp_path / "out")],
        env={"COLUMNS": "80"},
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    for images in (GENERATED, REAL):
        found = record["spaces"]["pixels"][images]
        assert f"{found['coverage']:.3f}" in result.stdout
        assert f"{found['frechet_distance']:.2f}" in result.stdout
    refused = run("vae_mlp", "--weights", tmp_path, "--degradation", "jpeg")
    assert refused.exit_code == 2
    assert "are for repair; vae_mlp generates" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("distance", "text"), [(25.03, "25.0"), (0.00093912, "0.000939"), (250.4, "250"), (0.0, "0.00")]
)
def test_distances_have_three_digits(distance: float, text: str) -> None:
    match = Match("pixels", GENERATED, PRDC(1, 1, 1, 1), distance, 18.5791)
    assert match.shown["kernel distance"] == (distance, text)
    assert match.shown["Fréchet distance"] == (18.5791, "18.58")


def test_conventions_are_named() -> None:
    judges = parse_measures("ssim, ssim:kornia,mse,")
    assert [(judge.name, judge.spec) for judge in judges] == [
        ("ssim", "wang2004"), ("ssim:kornia", "kornia"), ("mse", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["repair_unnet"], "unknown model 'repair_unnet'; nearest: repair_unet"),
        (["repair_unet"], "repair_unet comes without weights"),
        (["repair_unet", "--weights", "none.safetensors"], "none.safetensors"),
        (["features_lenet"], "features_lenet neither repairs nor generates images"),
        (["classical"], "expected a --degradation"),
        (["classical", "--degradation", "rust"], "unknown degradation 'rust'"),
        (["classical", "--degradation", "jpeg", "--data", "nowhere"], "no collection or path"),
        (["classical", "--degradation", "jpeg", "--measures", "fid"], "got 'fid'"),
        (["classical", "--degradation", "jpeg", "--truth", "."], "expected both a folder"),
        (["classical", "--degradation", "jpeg", "--engine", "ray"], "ray needs a folder"),
        (["classical", "--degradation", "jpeg", "--engine", "dask"], "expected the engine"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_has_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    result = run(*arguments, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert not (tmp_path / "out").exists()


def test_broken_images_are_named_and_the_rest_is_done(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.png").write_bytes((folder / "chelsea.png").read_bytes()[:200])
    Image.new("CMYK", (40, 40)).save(images / "cmyk.jpg")
    Image.new("RGB", (1, 1)).save(images / "tiny.png")
    (images / "whole.png").write_bytes((folder / "coffee.png").read_bytes())
    options = ("--degradation", "gaussian_noise", "--data", images, "--measures", "psnr")
    result = run("classical", *options, "--output", tmp_path / "out")
    assert result.exit_code == 1
    for name, reason in (("broken.png", "image file is truncated"), ("cmyk.jpg", "expected gray")):
        assert f"{name}: {reason}" in result.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"whole.png", "tiny.png"} == set(record["images"])
    (images / "whole.png").unlink()
    (images / "tiny.png").unlink()
    nothing = run("classical", *options, "--output", tmp_path / "nothing")
    assert nothing.exit_code == 1
    assert "no image could be evaluated" in nothing.stderr
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "file").write_text("")
    assert run("classical", *options, "--output", tmp_path / "file").exit_code == 2
