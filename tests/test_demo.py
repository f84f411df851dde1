# SPDX-License-Identifier: Apache-2.0
"""The demonstration and what it is made of: damage, baselines, network, training, page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import sosie
from sosie.cli.app import app
from sosie.zoo import baselines
from sosie.zoo.demonstration import (
    JUDGES,
    METHODS,
    NETWORK,
    NETWORK_CONFIG,
    PLAIN,
    SOSIE,
    Outcome,
    Settings,
    _steps_within,
    _time_steps,
    run,
)
from sosie.zoo.filling import mean_of_known, normalised_convolution
from sosie.zoo.photographs import HELD_OUT, TRAINING, load_photograph
from sosie.zoo.photographs import halved as halved_photograph
from sosie.zoo.registry import create_model
from sosie.zoo.training import Trainer


def network() -> Any:
    torch.manual_seed(0)
    return create_model("repair_rcnn", **NETWORK_CONFIG)


def known_pixels(shape: tuple[int, int], seed: int = 0, share: float = 0.4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 1, *shape, generator=generator) < share).float()


pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------- photographs


def test_photographs_are_there_and_none_is_on_both_sides() -> None:
    assert not set(TRAINING) & set(HELD_OUT)
    for name in TRAINING + HELD_OUT:
        photograph = load_photograph(name)
        assert photograph.dtype == np.uint8
        assert photograph.shape[2] == 3
        assert photograph.std() > 10  # a picture of something


def test_halving_takes_means_of_boxes() -> None:
    photograph = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    halved = halved_photograph(photograph)
    assert halved.shape == (2, 2, 3)
    assert halved[1, 1].tolist() == np.rint(photograph[2:4, 2:4].mean((0, 1))).tolist()


# --------------------------------------------------------------------------------------- baselines


def test_normalised_convolution_is_a_weighted_mean_of_known_pixels() -> None:
    sigma, shape = 1.3, (9, 13)
    known = known_pixels(shape)
    image = torch.rand(1, 2, *shape, generator=torch.Generator().manual_seed(1))
    result = normalised_convolution(image, known, (sigma,))[0, 0].double().numpy()
    radius = math.ceil(3 * sigma)
    for row in range(shape[0]):
        for column in range(shape[1]):
            weights = np.zeros(shape)
            for i in range(max(0, row - radius), min(shape[0], row + radius + 1)):
                for j in range(max(0, column - radius), min(shape[1], column + radius + 1)):
                    squared = (i - row) ** 2 + (j - column) ** 2
                    weights[i, j] = known[0, 0, i, j] * math.exp(-squared / (2 * sigma**2))
            expected = (weights * image[0].double().numpy()).sum((1, 2)) / weights.sum()
            # A few roundings of float32.
            np.testing.assert_allclose(result[:, row, column], expected, atol=1e-6)


def test_normalised_convolution_is_zero_where_nothing_is_known() -> None:
    known = torch.zeros(1, 1, 16, 16)
    known[..., 0, 0] = 1
    result = normalised_convolution(torch.ones(1, 1, 16, 16), known, (1.0,))[0, 0, 0]
    assert result[:4, :4].allclose(torch.ones(4, 4))
    assert (result[4:] == 0).all()
    assert (result[:, 4:] == 0).all()


def test_wide_windows_are_heard_where_narrow_ones_see_nothing() -> None:
    known = known_pixels((24, 24))
    known[..., :12] = 0
    image = torch.rand(1, 2, 24, 24, generator=torch.Generator().manual_seed(1))
    mean = mean_of_known(image, known, (1.0, 4.0))
    narrow, wide = normalised_convolution(image, known, (1.0, 4.0)).unbind(1)
    # Known pixels lie 3 or more columns from these: out of the narrow window.
    torch.testing.assert_close(mean[..., :9], wide[..., :9])
    # A third of the pixels are known, so the narrow window holds about 2 and the wide one 34.
    assert (mean[..., 14:] - narrow[..., 14:]).abs().max() < 34e-3
    assert (mean[..., 14:] - wide[..., 14:]).abs().max() > 0.2


def test_nothing_is_known_far_from_known_pixels() -> None:
    known = torch.zeros(1, 1, 16, 16)
    known[..., 0, 0] = 1
    mean = mean_of_known(torch.ones(1, 1, 16, 16), known, (0.5, 1.0))
    assert mean[..., :4, :4].allclose(torch.ones(4, 4))
    assert (mean[..., 4:, :] == 0).all()
    assert (mean[..., 4:] == 0).all()


def test_means_keep_their_digits_under_autocast() -> None:
    image, known = torch.rand(1, 3, 24, 24), known_pixels((24, 24))
    expected = mean_of_known(image, known, (1.0, 4.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mean_of_known(image, known, (1.0, 4.0)), expected)


def test_baselines_find_a_constant_image() -> None:
    known = known_pixels((20, 30))[0, 0].numpy() > 0
    damaged = np.where(known[..., None], np.float32(0.25), np.float32(0)).repeat(3, axis=2)
    for repaired in (
        baselines.normalised_convolution(damaged, known, 2.0),
        baselines.non_local_means(damaged, known, 2.0, 0.05),
    ):
        # Roundings of float32 in sums of up to 169 pixels.
        np.testing.assert_allclose(repaired, 0.25, atol=1e-5)


# ----------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("shape", [(16, 16), (17, 31), (8, 40)])
def test_unet_starts_from_the_mean_of_its_estimates(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = create_model("repair_unet", convolution="plain", keep_known=False)
    known = known_pixels(shape)
    image = torch.rand(1, 3, *shape)
    with torch.no_grad():
        repaired = model(image, known)
    expected = normalised_convolution(image, known, (1.0, 2.0)).mean(1)
    # The last layer's weights have a standard deviation of 1e-3, and sum some 300 features.
    assert (repaired - expected).abs().max() < 0.05


def test_recurrent_repair_starts_from_known_pixels_and_means() -> None:
    model = create_model("repair_rcnn", width=8, stages=2, blocks=1, fill=(1.0, 4.0))
    known, image = known_pixels((17, 31)), torch.rand(1, 3, 17, 31)
    image[(known == 0).expand_as(image)] = 0
    mean = mean_of_known(image, known, (1.0, 4.0))
    # An untrained network asks for half of the mean, and changes little.
    expected = torch.where(known > 0, (image + mean) / 2, mean)
    with torch.no_grad():
        # The last layer's weights have a standard deviation of 1e-3, and sum 72 features.
        assert (model(image, known) - expected).abs().max() < 0.03


# ----------------------------------------------------------------------------------- demonstration


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run(Settings(steps=3, seed=5, timed_rounds=2, generator_steps=3))


def test_values_are_those_of_the_library(outcome: Outcome) -> None:
    assert [photograph.name for photograph in outcome.photographs] == list(HELD_OUT)
    for photograph in outcome.photographs:
        np.testing.assert_array_equal(photograph.original, load_photograph(photograph.name))
        assert [repair.method for repair in photograph.repairs] == list(METHODS)
        for repair in photograph.repairs:
            difference = repair.pixels.astype(np.float64) - photograph.original
            error = float(np.mean(difference**2))
            assert repair.values == {
                "ssim": float(sosie.ssim(repair.pixels, photograph.original, channel_axis=-1)),
                # A rounding of float64, in sums of another order.
                "psnr": pytest.approx(10 * math.log10(255**2 / error), rel=1e-12),
                "mse": error,
            }


def test_every_repair_beats_doing_nothing(outcome: Outcome) -> None:
    # Even the network after three steps, since it starts from normalised convolutions.
    for method in METHODS[1:]:
        assert outcome.mean(method, "psnr") > outcome.mean(METHODS[0], "psnr") + 10
        assert outcome.mean(method, "ssim") > outcome.mean(METHODS[0], "ssim") + 0.3
        assert outcome.mean(method, "mse") < outcome.mean(METHODS[0], "mse") / 10


def test_training_and_times_are_told(outcome: Outcome) -> None:
    assert len(outcome.losses) == outcome.steps == 3
    assert all(0 < loss < 1 for loss in outcome.losses)
    assert outcome.times.keys() == {SOSIE, PLAIN}
    for times in outcome.times.values():
        assert 0 < times.loss < times.step


def test_both_losses_are_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    original_step = Trainer.step

    def step(self: Trainer, batch: dict[str, Tensor]) -> dict[str, float]:
        numbers = original_step(self, batch)
        seen.append(numbers["loss"])
        return numbers

    monkeypatch.setattr(Trainer, "step", step)
    _time_steps(network(), Settings(crop=32, batch=2, timed_rounds=1), lambda *_: None)
    ours, plain = seen[::2], seen[1::2]
    # The same weights at first; later, roundings of float32 grow from step to step.
    assert ours[0] == pytest.approx(plain[0], abs=1e-6)
    np.testing.assert_allclose(ours, plain, atol=1e-3)


def test_a_page_comes_of_it(outcome: Outcome, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("sosie.zoo.demonstration.run", lambda *_: outcome)
    path = tmp_path / "new" / "report.html"
    result = CliRunner().invoke(app, ["demo", "--output", str(path), "--json"])
    assert result.exit_code == 0
    numbers = json.loads(result.stdout)
    for photograph in outcome.photographs:
        for repair in photograph.repairs:
            assert numbers["photographs"][photograph.name][repair.method] == repair.values
    text = path.read_text("utf-8")
    for forbidden in ("http:", "https:", 'src="/', "@import"):
        assert forbidden not in text
    # Per photograph: four versions, their maps, and the original. Clothes, made up and real.
    assert text.count('src="data:image/png;base64,') == 2 * (4 + 4 + 1) + 2
    match = outcome.generator.evaluation.matches[0]
    assert numbers["generator"]["matches"][0]["prdc"] == match.prdc._asdict()
    assert f"{match.frechet_distance:.2f}" in text
    for judge in JUDGES:
        assert judge.text(outcome.mean(NETWORK, judge.name)) in text
    result = CliRunner().invoke(app, ["demo", "--output", str(path)])
    assert "sosie's loss" in result.stdout
    for photograph in outcome.photographs:
        assert photograph.name in result.stdout


def test_limited_time_decides_the_number_of_steps() -> None:
    model, settings = network(), Settings(crop=32, batch=1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert _steps_within(1e-9, model, settings) == 1
    # A step of this size takes between a tenth of a millisecond and ten seconds anywhere.
    assert 1 < _steps_within(20.0, model, settings) < 200_000
    # Trying must leave no trace.
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_failures_have_a_sentence_and_leave_no_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    monkeypatch.setattr("sosie.zoo.photographs._folder", lambda: tmp_path)
    result = CliRunner().invoke(app, ["demo", "--output", str(path), "--steps", "1"])
    assert result.exit_code == 1
    assert "astronaut.png" in result.stderr
    assert not path.exists()
    for arguments in (["--steps", "0"], ["--seconds", "0"], ["--seed", "-1"]):
        assert CliRunner().invoke(app, ["demo", *arguments]).exit_code == 2
    assert CliRunner().invoke(app, ["demo", "--output", str(tmp_path)]).exit_code == 2


def test_where_no_page_can_be_written_nothing_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[object] = []
    monkeypatch.setattr("sosie.zoo.demonstration.run", started.append)
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "file" / "report.html")])
    assert result.exit_code == 1
    assert "file could not be made: File exists" in result.stderr
    assert started == []
