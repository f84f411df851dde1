# SPDX-License-Identifier: Apache-2.0
"""Weights that come with sosie: as described, and as good as described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sosie.cli.app import app
from sosie.zoo import Weights, create_model, list_weights, save_model
from sosie.zoo import weights as weights_module
from sosie.zoo.files import InvalidFileError, digest

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
    assert "psnr 20.5" in table.stdout
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
