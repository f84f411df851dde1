# SPDX-License-Identifier: Apache-2.0
"""Weights that come with sosie: as described, and as good as described."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import sosie
from sosie.cli.app import app
from sosie.zoo import Weights, create_model, list_weights, save_model
from sosie.zoo import weights as weights_module
from sosie.zoo.data import open_collection, to_tensor
from sosie.zoo.degradations import parse_degradation
from sosie.zoo.files import InvalidFileError, digest
from sosie.zoo.filling import normalised_convolution
from sosie.zoo.noise import Noise

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------ how they load


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weights]:
    """Weights of a small network as if they came with sosie."""
    torch.manual_seed(0)
    model = create_model("repair_cnn", channels=1, depth=2, width=3)
    save_model(model, tmp_path / "small.safetensors")
    entry = {
        "model": "repair_cnn",
        "variant": "small",
        "task": "nothing",
        "file": "small.safetensors",
        "sha256": digest((tmp_path / "small.safetensors").read_bytes()),
        "licence": "CC0-1.0",
        "data": [{"name": "none", "licence": "CC0-1.0", "attribution": "nobody"}],
        "degradation": "gaussian_noise:0.1",
        "metrics": {"psnr": 20.5},
        "command": "sosie train repair_cnn",
        "seconds": 1.5,
        "sosie": "0.1.0",
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"weights": [entry]}))
    monkeypatch.setattr(weights_module, "_FOLDER", tmp_path)
    weights_module._manifest.cache_clear()
    yield list_weights("repair_cnn")[0]
    weights_module._manifest.cache_clear()


@pytest.mark.parametrize("name", ["default", "small"])
def test_weights_load_by_name(shipped: Weights, name: str) -> None:
    torch.manual_seed(0)
    expected = create_model("repair_cnn", channels=1, depth=2, width=3)
    model = create_model("repair_cnn", weights=name)
    assert model.config == expected.config
    assert not model.training
    for key, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor)
    assert shipped.data[0].attribution == "nobody"


def test_names_and_paths_are_told_apart(shipped: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shipped.path.parent / "here"
    save_model(create_model("repair_cnn", depth=3, width=2), folder / "small" / "model.safetensors")
    monkeypatch.chdir(folder)
    assert create_model("repair_cnn", weights="small").config.depth == 2
    assert create_model("repair_cnn", weights="./small").config.depth == 3
    assert create_model("repair_cnn", weights=Path("small")).config.depth == 3


@pytest.mark.parametrize(
    ("model", "name", "error", "sentence"),
    [
        ("repair_cnn", "large", FileNotFoundError, "repair_cnn 'large'; .* weights: small$"),
        ("gan_mlp", "large", FileNotFoundError, "gan_mlp 'large'; .* weights: none$"),
        ("gan_mlp", "default", ValueError, "gan_mlp comes without weights; .*: repair_cnn$"),
    ],
)
def test_weights_that_are_not_there(
    shipped: Weights, model: str, name: str, error: type[Exception], sentence: str
) -> None:
    assert shipped.model == "repair_cnn"
    with pytest.raises(error, match=sentence):
        create_model(model, weights=name)


def test_a_file_that_was_changed_is_refused(shipped: Weights) -> None:
    content = bytearray(shipped.path.read_bytes())
    content[-1] ^= 1
    shipped.path.write_bytes(content)
    with pytest.raises(InvalidFileError, match=r"small\.safetensors is not as it was written"):
        create_model("repair_cnn", weights="default")


def test_they_are_listed(shipped: Weights) -> None:
    result = CliRunner().invoke(app, ["weights", "--json"])
    assert result.exit_code == 0
    (entry,) = json.loads(result.stdout)
    assert entry["sha256"] == shipped.sha256
    table = CliRunner().invoke(app, ["weights", "repair_cnn"])
    assert re.search(r"20\.5000 +psnr +\n", table.stdout)
    assert shipped.sha256 in table.stdout
    assert shipped.command in " ".join(table.stdout.split())
    everything = CliRunner().invoke(app, ["weights"])
    assert shipped.variant in everything.stdout
    none = CliRunner().invoke(app, ["weights", "vae_conv"])
    assert none.exit_code == 1
    assert "vae_conv comes without weights" in none.stderr
    unknown = CliRunner().invoke(app, ["weights", "repair_cn"])
    assert unknown.exit_code == 1
    assert "nearest: repair_cnn" in unknown.stderr


# ---------------------------------------------------------------------------------- what is shipped


@pytest.mark.parametrize("weights", list_weights(), ids=lambda each: f"{each.model}-{each.variant}")
def test_files_are_small_and_as_described(weights: Weights) -> None:
    content = weights.path.read_bytes()
    assert digest(content) == weights.sha256
    assert len(content) < 2_000_000
    assert weights.command.startswith(f"sosie train {weights.model} ")
    assert weights.metrics
    assert weights.seconds > 0
    assert all(each.licence and each.attribution for each in weights.data)
    model = create_model(weights.model, weights=weights.variant)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


# --------------------------------------------------------------------------- what they are good for

REPAIR = ("repair_cnn", "repair_rcnn")


def held_out_crops() -> list[Tensor]:
    """Two of each photograph that no weights were trained on."""
    images = open_collection("photographs").validation
    return [
        to_tensor(pixels[100:228, left : left + 128], 3)[None]
        for pixels in images
        for left in (40, 240)
    ]


def scores(repair: Any, damage: str) -> tuple[float, float]:
    """Mean PSNR and SSIM of damaged crops after repair."""
    values = []
    for index, original in enumerate(held_out_crops()):
        generator = torch.Generator().manual_seed(index)
        damaged, known = parse_degradation(damage)(original, generator=generator)
        with torch.inference_mode():
            repaired = repair(damaged, known).clamp(0.0, 1.0)
        psnr = sosie.psnr(repaired, original, data_range=1.0)
        values.append((float(psnr), float(sosie.ssim(repaired, original, data_range=1.0))))
    psnr, ssim = np.mean(values, axis=0).tolist()
    return psnr, ssim


def smoothed(damaged: Tensor, known: Tensor) -> Tensor:
    """What needs no training: the Gaussian mean of the known pixels around each."""
    return normalised_convolution(damaged, known, (1.0,))[:, 0]


def untouched(damaged: Tensor, _: Tensor) -> Tensor:
    """Nothing is done."""
    return damaged


@pytest.mark.parametrize("name", REPAIR)
@pytest.mark.parametrize(
    ("damage", "others"),
    [
        ("rain_streaks:0.2", [untouched, smoothed]),
        ("missing_strokes:0.1", [untouched, smoothed]),
        ("rain_streaks:0.2,gaussian_noise:0.05,missing_pixels:0.5", [untouched, smoothed]),
        # Where single pixels are missing and nothing else is wrong, means of neighbours are better:
        # docs/weights.md has the numbers.
        ("missing_pixels:0.5", [untouched]),
    ],
)
def test_photographs_are_repaired(name: str, damage: str, others: list[Any]) -> None:
    psnr, ssim = scores(create_model(name, weights="default"), damage)
    for other in others:
        other_psnr, other_ssim = scores(other, damage)
        assert psnr > other_psnr + 1
        assert ssim > other_ssim + 0.02


def test_the_repair_networks_compare() -> None:
    # docs/weights.md compares them as networks of one size.
    plain, recurrent = (create_model(name, weights="default") for name in REPAIR)
    counts = [sum(each.numel() for each in model.parameters()) for model in (plain, recurrent)]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


def fashion(part: str) -> Tensor:
    """Test images of Fashion-MNIST, which no weights were trained on; many, or few."""
    images = getattr(open_collection("fashion-mnist-2000"), part)
    return torch.stack([to_tensor(pixels, 1) for pixels in images])


def test_generated_images_are_like_real_ones() -> None:
    real = fashion("training")
    with torch.inference_mode():
        fake = create_model("gan_dcgan", weights="default").sample(1000, Noise(0))
    assert 0 <= fake.min() <= fake.max() <= 1
    assert fake.mean().item() == pytest.approx(real.mean().item(), abs=0.02)
    assert fake.std().item() == pytest.approx(real.std().item(), abs=0.02)


def test_no_class_is_missing_from_generated_images() -> None:
    # A fifth of an even share; the rarest class has 57 of 1000 in the long run.
    classifier = create_model("features_lenet", weights="default")
    with torch.inference_mode():
        fake = create_model("gan_dcgan", weights="default").sample(1000, Noise(0))
        counts = torch.bincount(classifier(fake).argmax(1), minlength=10)
    assert len(counts) == 10
    assert counts.min() >= 20


def test_codes_keep_what_images_show() -> None:
    # Images that were not trained on come back; what their mean image leaves is thrice as much.
    images = fashion("validation")
    model = create_model("vae_mlp", weights="default")
    with torch.inference_mode():
        returned = model.decode(model.encode(images)[0])
    assert returned.mean().item() == pytest.approx(images.mean().item(), abs=0.02)
    assert (returned - images).square().mean() < (images - images.mean(0)).square().mean() / 3
