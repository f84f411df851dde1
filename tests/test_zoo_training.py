# SPDX-License-Identifier: Apache-2.0
"""The training engine: exact resumption, several processes, checkpoints, and what goes wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from sosie.cli.app import app
from sosie.zoo import create_model
from sosie.zoo.data import (
    ImageCollection,
    TrainingSequence,
    centre_crop,
    free_photographs,
    open_collection,
    to_tensor,
)
from sosie.zoo.degradations import GaussianNoise
from sosie.zoo.files import InvalidFileError
from sosie.zoo.photographs import HELD_OUT
from sosie.zoo.repair_cnn import RepairCNN
from sosie.zoo.training import Settings, Trainer, train
from sosie.zoo.training.checkpoints import saved_checkpoints
from sosie.zoo.training.settings import learning_rate_factor

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images() -> ImageCollection:
    random = np.random.default_rng(0)
    smooth = np.linspace(0, 200, 40)[:, None, None] + np.linspace(0, 55, 36)[None, :, None]
    pixels = [
        np.clip(smooth + random.normal(0, 8, (40, 36, 1)), 0, 255).astype(np.uint8)
        for _ in range(12)
    ]
    return ImageCollection(pixels[:10], pixels[10:])


@pytest.fixture
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """For bits that are promised on the CPU."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def small_model() -> Any:
    torch.manual_seed(0)
    return create_model("repair_cnn", channels=1, depth=3, width=6, batch_norm=True)


def small_settings(**given: Any) -> Settings:
    usual = {
        "steps": 8, "batch": 4, "crop": 16, "checkpoint_every": 3, "validate_every": 4,
        "sample_every": 0, "ema": 0.9, "schedule": "cosine", "warm_up": 0.25, "clip": 1.0,
        "seed": 5,
    }  # fmt: skip
    return Settings.of(small_model(), **{**usual, **given})


def assert_same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


# ----------------------------------------------------------------------------------------- one step


def test_a_step_is_adams() -> None:
    model = small_model()
    reference = small_model()
    settings = small_settings(ema=None, clip=None, learning_rate=0.01, warm_up=0.5)
    trainer = Trainer(model, settings)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        clean = torch.rand(4, 1, 16, 16, generator=generator)
        batch = {"images": clean, "damaged": 0.5 * clean, "known": torch.ones(4, 1, 16, 16)}
        numbers = trainer.step(batch)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1) / 4
        optimizer.zero_grad()
        loss = trainer.objective.loss(reference(0.5 * clean), clean)  # type: ignore[attr-defined]
        loss.backward()
        optimizer.step()
        assert numbers["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert numbers["learning_rate"] == pytest.approx(0.01 * (step + 1) / 4)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        # Convolutions of channels_last images add in another order.
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_gradients_are_clipped_and_weights_averaged() -> None:
    settings = small_settings(clip=1e-3, ema=0.5)
    trainer = Trainer(small_model(), settings)
    clean = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = {"images": clean, "damaged": 0.5 * clean, "known": torch.ones(4, 1, 16, 16)}
    average = {name: each.clone() for name, each in trainer.model.state_dict().items()}
    for step in range(1, 14):
        norm = trainer.step(batch)["gradient_model"]
        clipped = torch.cat([each.grad.flatten() for each in trainer.parameters["model"]]).norm()
        assert norm > 1e-3
        assert clipped.item() == pytest.approx(1e-3, rel=1e-3)
        decay = min(0.5, step / (step + 9))
        for name, each in trainer.model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * each.detach()
    assert trainer.average is not None
    for name, each in trainer.average.named_parameters():
        torch.testing.assert_close(each, average[name])
    assert torch.equal(
        trainer.average.state_dict()["model.2.weight"].isnan(), torch.zeros(6, 6, 3, 3).bool()
    )
    assert int(trainer.average.state_dict()["model.3.num_batches_tracked"]) == 13


def test_schedules() -> None:
    step = Settings(steps=100, schedule="step")
    factors = [learning_rate_factor(step, number) for number in (0, 49, 50, 74, 75, 99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    constant = Settings(steps=10, warm_up=0.2)
    assert [learning_rate_factor(constant, n) for n in (0, 1, 2, 9)] == [0.5, 1, 1, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "expected steps of at least 1, got 0"),
        ({"learning_rate": 0}, "expected learning_rate above 0, got 0"),
        ({"schedule": "slow"}, "expected a schedule out of constant, cosine, step, got 'slow'"),
        ({"ema": 1.0}, "expected ema from 0 to below 1, got 1.0"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**given)


# --------------------------------------------------------------------------------------------- data


def test_sequence_depends_on_positions_alone(images: ImageCollection) -> None:
    def sequence(seed: int) -> TrainingSequence:
        return TrainingSequence(
            images.training, channels=1, crop=(16, 16), seed=seed, augment=True,
            degradation=GaussianNoise(0.1),
        )  # fmt: skip

    one, other = sequence(3), sequence(3)
    forward = [one[position] for position in range(25)]
    for position in (24, 3, 17):
        for name, each in forward[position].items():
            assert torch.equal(each, other[position][name])
    assert not torch.equal(sequence(4)[0]["damaged"], forward[0]["damaged"])
    assert not torch.equal(forward[0]["damaged"], forward[0]["images"])


def test_every_image_has_its_turn() -> None:
    pixels = [np.full((4, 4, 1), level, np.uint8) for level in range(7)]
    sequence = TrainingSequence(pixels, channels=3, crop=(4, 4), seed=0)
    orders = []
    for epoch in range(3):
        levels = [round(255 * sequence[7 * epoch + i]["images"][0, 0, 0].item()) for i in range(7)]
        assert sorted(levels) == list(range(7))
        orders.append(levels)
    assert orders[0] != orders[1]
    assert sequence[0]["images"].shape == (3, 4, 4)


def test_crops_are_parts_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sosie.zoo.data.sequence._LOG_GAMMA", 0.0)
    photograph = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    sequence = TrainingSequence([photograph], channels=3, crop=(16, 16), seed=0, augment=True)
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (16, 16), axis=(0, 1))
    # Sorted samples of a window do not change when it is turned or its channels are exchanged.
    signatures = {tuple(np.sort(windows[i, j].ravel())) for i in range(5) for j in range(15)}
    for position in range(8):
        levels = (sequence[position]["images"] * 255).round().byte().numpy()
        assert tuple(np.sort(levels.ravel())) in signatures


def test_pixels_become_tensors() -> None:
    colour = np.array([[[255, 0, 0], [0, 255, 0], [10, 20, 30]]], np.uint8)
    assert to_tensor(colour, 3)[:, 0, 2].tolist() == pytest.approx([10 / 255, 20 / 255, 30 / 255])
    gray = to_tensor(colour, 1)
    assert (255 * gray[0, 0]).tolist() == pytest.approx([76, 150, 18])
    assert torch.equal(to_tensor(colour[..., :1], 3)[2], to_tensor(colour[..., :1], 1)[0])
    assert centre_crop(np.arange(35).reshape(5, 7, 1).astype(np.uint8), (3, 9)).tolist() == (
        np.arange(35).reshape(5, 7, 1)[1:4].tolist()
    )


def test_free_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_photographs, "WALLPAPERS", tmp_path)
    with pytest.raises(FileNotFoundError, match="package lomiri-wallpapers"):
        open_collection("free-photographs")
    wallpapers = [name for name in free_photographs.CREDITS if "_by_" in name]
    for name in wallpapers:
        Image.fromarray(np.full((80, 120, 3), 50, np.uint8)).save(tmp_path / name)
    collection = open_collection("free-photographs")
    assert len(collection.training) == 2 * len(free_photographs.CREDITS)
    shapes = [image.shape for image in collection.training[-2:]]
    assert shapes == [(40, 60, 3), (20, 30, 3)]
    assert not set(free_photographs.CREDITS) & set(HELD_OUT)
    licences = {licence for licence, _ in free_photographs.CREDITS.values()}
    assert licences == {"public domain", "CC0-1.0", "CC-BY-4.0"}


def test_collections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = open_collection("digits")
    assert digits.common_shape() == (1, 8, 8)
    assert len(digits.training) + len(digits.validation) == 1797
    photographs = open_collection("photographs")
    assert photographs.weights is not None
    assert photographs.weights.sum() == pytest.approx(1)
    assert photographs.training[9].shape[0] == photographs.training[0].shape[0] // 2
    array = np.random.default_rng(0).integers(0, 256, (30, 6, 5), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", labels=np.arange(30), pictures=array)
    header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in array.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + array.tobytes())
    for name in ("a.npz", "train-images-idx3-ubyte"):
        opened = open_collection(tmp_path / name)
        assert (len(opened.training), len(opened.validation)) == (27, 3)
        np.testing.assert_array_equal(opened.training[9][..., 0], array[10])
        np.testing.assert_array_equal(opened.validation[0][..., 0], array[9])
    opened = open_collection(tmp_path / "a.npz")
    assert opened.validation_labels.tolist() == [9, 19, 29]
    assert opened.training_labels[9] == 10
    np.savez(
        tmp_path / "parts.npz", test_labels=np.arange(5), train_images=array[5:],
        train_labels=np.arange(25), test_images=array[:5],
    )  # fmt: skip
    parts = open_collection(tmp_path / "parts.npz")
    np.testing.assert_array_equal(np.stack(parts.training)[..., 0], array[5:])
    np.testing.assert_array_equal(np.stack(parts.validation)[..., 0], array[:5])
    assert parts.validation_labels.tolist() == list(range(5))
    assert parts.training_labels.tolist() == list(range(25))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + array.tobytes()[:-1])
    with pytest.raises(ValueError, match=r"899 samples for sizes \(30, 6, 5\)"):
        open_collection(tmp_path / "train-images-idx3-ubyte")
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"a\.npz is truncated or no NumPy file"):
        open_collection(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="no collection or path 'mnist'"):
        open_collection("mnist")
    monkeypatch.setattr("sosie.zoo.data.collections.FASHION_MNIST", tmp_path)
    with pytest.raises(FileNotFoundError, match="package dataset-fashion-mnist puts it there"):
        open_collection("fashion-mnist")


def test_folders_name_what_they_leave_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    for i in range(10):
        pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "deep" / f"{i:02d}.png")
    whole = (tmp_path / "deep" / "03.png").read_bytes()
    (tmp_path / "deep" / "03.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    Image.fromarray(random.integers(0, 256, (8, 30), dtype=np.uint8)).save(tmp_path / "low.png")
    images = open_collection(tmp_path)
    assert len(images) == 10
    assert [each.name for each in images.skipped] == ["deep/03.png", "empty.jpg"]
    fitting = images.at_least((16, 16))
    assert len(fitting) == 9
    assert fitting.skipped[-1].name == "low.png"
    assert fitting.skipped[-1].reason == "30 x 8, smaller than the crop of 16 x 16"
    with pytest.raises(ValueError, match=r"of at least 64 x 64 pixels, all \d+ are smaller"):
        images.at_least((64, 64))


def test_labels_go_with_their_images() -> None:
    pixels = [np.full((4 + i % 2, 4, 1), i, np.uint8) for i in range(8)]
    labels = np.arange(8)
    images = ImageCollection(
        pixels[:6], pixels[6:], training_labels=labels[:6], validation_labels=labels[6:]
    ).at_least((5, 4))
    assert images.training_labels.tolist() == [1, 3, 5]
    assert images.validation_labels.tolist() == [7]
    sequence = TrainingSequence(
        images.training, channels=1, crop=(5, 4), seed=0, labels=images.training_labels
    )
    items = [sequence[position] for position in range(6)]
    assert sorted(int(item["labels"]) for item in items) == [1, 1, 3, 3, 5, 5]
    for item in items:
        assert round(255 * float(item["images"][0, 0, 0])) == int(item["labels"])
    with pytest.raises(ValueError, match="got 2 labels for 3 images"):
        TrainingSequence(images.training, channels=1, crop=(4, 4), seed=0, labels=labels[:2])
    with pytest.raises(ValueError, match="learns from labels, which these images do not have"):
        train(
            create_model("features_lenet", image_shape=(1, 16, 16)),
            ImageCollection([np.zeros((16, 16, 1), np.uint8)] * 2, []),
        )


# ------------------------------------------------------------------------------ interrupted and not


@pytest.mark.usefixtures("cpu_only")
def test_interrupted_trainings_end_where_others_do(images: ImageCollection, tmp_path: Path) -> None:
    settings = small_settings()
    whole = train(small_model(), images, settings, output=tmp_path / "whole")

    class InterruptError(Exception):
        pass

    def interrupt(_: str, done: int, *__: object) -> None:
        if done == 5:
            raise InterruptError

    with pytest.raises(InterruptError):
        train(small_model(), images, settings, output=tmp_path / "parts", watch=interrupt)
    # What follows a kill -9: an unfinished checkpoint, a line that was not written to its end.
    unfinished = tmp_path / "parts" / "checkpoints" / ".step-00000006.partial"
    unfinished.mkdir()
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "lo')
    torch.manual_seed(77)  # and whatever else the new process did before
    model = create_model("repair_cnn", channels=1, depth=3, width=6, batch_norm=True)
    parts = train(model, images, settings, output=tmp_path / "parts")
    assert parts.resumed_from == 3
    assert not unfinished.exists()
    assert_same_weights(parts.model.state_dict(), whole.model.state_dict())
    assert parts.records == whole.records[3:]
    assert parts.measures == whole.measures
    assert parts.best == whole.best
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 8 + 2
    for name in ("model.safetensors", "best/model.safetensors"):
        assert_same_weights(
            load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        )
    # Nothing is left to do: the same again, at once.
    again = train(small_model(), images, settings, output=tmp_path / "parts")
    assert again.resumed_from == 8
    assert_same_weights(again.model.state_dict(), whole.model.state_dict())
    assert [path.name for path in saved_checkpoints(tmp_path / "parts" / "checkpoints")] == [
        "step-00000006",
        "step-00000008",
    ]


COMMON = [
    "--steps", "80", "--batch", "4", "--crop", "16", "--ema", "0.9", "--checkpoint-every", "2",
    "--validate-every", "15", "--sample-every", "0", "--seed", "3", "--deterministic", "--workers",
    "0",
]  # fmt: skip


def command(folder: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "sosie", "train", "gan_mlp", "--data", "digits", "--set", "hidden=32",
        "--set", "latent=8", "--output", str(folder), *COMMON, *more,
    ]  # fmt: skip


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_killed_trainings_end_where_others_do(tmp_path: Path) -> None:
    whole = run(command(tmp_path / "whole", "--json"))
    assert whole.returncode == 0, whole.stderr
    # Killed without warning, whatever it was doing, soon after two of its checkpoints.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    for enough in (2, 16):
        process = subprocess.Popen(
            command(tmp_path / "parts"),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < deadline:
            done = saved_checkpoints(tmp_path / "parts" / "checkpoints")
            if done and int(done[-1].name[-8:]) >= enough:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL, "it ended before it could be killed"
    last = run(command(tmp_path / "parts", "--json"))
    assert last.returncode == 0, last.stderr
    one, other = json.loads(whole.stdout), json.loads(last.stdout)
    assert other["resumed_from"] >= 16
    assert other["measures"] == one["measures"]
    newest = [saved_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "parts")]
    for file in ("model.safetensors", "training.safetensors"):
        assert_same_weights(*(load_file(path / file) for path in newest))
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]


@pytest.mark.usefixtures("cpu_only")
def test_damaged_checkpoints_are_refused(images: ImageCollection, tmp_path: Path) -> None:
    settings = small_settings(keep=3)
    whole = train(small_model(), images, settings, output=tmp_path)
    checkpoints = tmp_path / "checkpoints"
    weights = checkpoints / "step-00000008" / "training.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    (checkpoints / "step-00000006" / "training.json").write_text('{"format": 1, "st')
    said: list[str] = []
    again = train(small_model(), images, settings, output=tmp_path, tell=said.append)
    assert again.resumed_from == 3
    assert_same_weights(again.model.state_dict(), whole.model.state_dict())
    assert len(said) == 2
    assert "checkpoint step-00000008 is refused: " in said[0]
    assert "training.safetensors is not as it was written" in said[0]
    assert "training.json is not JSON, or truncated" in said[1]
    for path in saved_checkpoints(checkpoints):
        (path / "model.safetensors").unlink()
    with pytest.raises(InvalidFileError, match=r"none of the 3 checkpoints in .* can be used"):
        train(small_model(), images, settings, output=tmp_path)


def test_foreign_checkpoints_are_refused(images: ImageCollection, tmp_path: Path) -> None:
    settings = small_settings(steps=1)
    train(small_model(), images, settings, output=tmp_path)
    with pytest.raises(ValueError, match=r"belongs to a training with config .*'width': 6"):
        train(create_model("repair_cnn", channels=1), images, settings, output=tmp_path)
    with pytest.raises(ValueError, match="belongs to a training with seed 5, not 6"):
        train(small_model(), images, small_settings(seed=6), output=tmp_path)
    fewer = ImageCollection(images.training[:5], images.validation)
    with pytest.raises(ValueError, match="belongs to a training on 10 images, not on 5"):
        train(small_model(), fewer, settings, output=tmp_path)
    # More steps are the same training.
    longer = train(small_model(), images, small_settings(steps=2), output=tmp_path)
    assert (longer.resumed_from, longer.steps) == (1, 2)
    other = train(
        small_model(), images, small_settings(steps=3), output=tmp_path / "other",
        resume=tmp_path / "checkpoints" / "step-00000002",
    )  # fmt: skip
    assert other.resumed_from == 2
    assert train(small_model(), images, settings, output=tmp_path, resume="never").steps == 1


# ---------------------------------------------------------------------------------- what goes wrong


def test_diverging_trainings_stop(
    images: ImageCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model()
    forward = RepairCNN.forward
    calls = iter(range(1000))

    def spoiled(self: RepairCNN, damaged: Tensor, known: Tensor | None = None) -> Tensor:
        result = forward(self, damaged, known)
        return result * float("nan") if self.training and next(calls) == 4 else result

    monkeypatch.setattr(RepairCNN, "forward", spoiled)
    with pytest.raises(
        FloatingPointError,
        match=r"the loss became nan at step 5; the checkpoint of step 3 in .* is good",
    ):
        train(model, images, small_settings(), output=tmp_path)
    assert all(each.isfinite().all() for each in model.state_dict().values())
    assert [path.name for path in saved_checkpoints(tmp_path / "checkpoints")] == ["step-00000003"]
    monkeypatch.undo()
    assert train(small_model(), images, small_settings(), output=tmp_path).resumed_from == 3


def test_full_disks_lose_nothing(images: ImageCollection, tmp_path: Path) -> None:
    train(small_model(), images, small_settings(steps=3), output=tmp_path)
    checkpoints = tmp_path / "checkpoints"
    before = {path: path.read_bytes() for path in checkpoints.rglob("*.*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(len(content) for content in before.values())
    # The system refuses to write files as large as a checkpoint's from here on.
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            train(small_model(), images, small_settings(), output=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = {path: path.read_bytes() for path in checkpoints.rglob("*.*") if path.is_file()}
    assert after == before
    assert not list(checkpoints.glob(".*"))
    assert train(small_model(), images, small_settings(), output=tmp_path).resumed_from == 3


def test_images_that_are_too_small(images: ImageCollection) -> None:
    with pytest.raises(ValueError, match=r"images of at least 64 x 64 pixels, all 10 are smaller"):
        train(small_model(), images, small_settings(crop=64))
    unet = create_model("repair_unet", channels=1)
    with pytest.raises(ValueError, match="a crop of at least 8 pixels for repair_unet, got 4"):
        train(unet, images, small_settings(crop=4))


def test_no_progress_ends_a_training(images: ImageCollection) -> None:
    settings = small_settings(
        steps=1000, validate_every=1, patience=3, learning_rate=1e-12, checkpoint_every=0, ema=None,
        warm_up=0.0, schedule="constant",
    )  # fmt: skip
    result = train(small_model(), images, settings)
    assert result.stopped_early
    assert 4 <= result.steps < 50


# --------------------------------------------------------------------------- what a training leaves


def test_numbers_and_pictures(images: ImageCollection, tmp_path: Path) -> None:
    settings = small_settings(steps=4, sample_every=2)
    result = train(small_model(), images, settings, output=tmp_path, tensorboard=True)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    for line, numbers in zip(lines, result.records, strict=False):
        assert line == {"step": line["step"], **numbers}
    assert {name.removeprefix("validation_") for name in lines[-1]} == {"step", "psnr", "ssim"}
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "step-00000002.png",
        "step-00000004.png",
    ]
    grid = np.asarray(Image.open(tmp_path / "samples" / "step-00000004.png"))
    # Three rows of two images of 36 x 36, with gaps of 2 pixels, four times as large.
    assert grid.shape == ((3 * 38 + 2) * 4, (2 * 38 + 2) * 4)
    original = grid[8 + 2 * 152 : 8 + 2 * 152 + 144 : 4, 8 : 8 + 144 : 4]
    np.testing.assert_array_equal(original, images.validation[0][2:38, :, 0])
    assert list((tmp_path / "tensorboard").iterdir())
    again = create_model("repair_cnn", weights=tmp_path)
    assert_same_weights(again.state_dict(), result.model.state_dict())


def test_half_precision_on_the_cpu(images: ImageCollection) -> None:
    result = train(small_model(), images, small_settings(mixed_precision="bf16", steps=12))
    losses = [numbers["loss"] for numbers in result.records]
    assert losses[-1] < losses[0]
    assert next(iter(result.model.parameters())).dtype == torch.float32


# -------------------------------------------------------------------------------- several processes


#: Trains three models. Processes but the first begin with other weights, which must not matter.
BOTH = """
import os, sys, torch
from accelerate import PartialState
from sosie.zoo import create_model
from sosie.zoo.data import open_collection
from sosie.zoo.training import Settings, train

images = open_collection(sys.argv[1])
for name, config, given in (
    ("repair_cnn", dict(channels=1, width=6, depth=3), dict(crop=16, loss="l1:0.8,ssim:0.2")),
    ("gan_mlp", dict(image_shape=(1, 16, 16), hidden=16, latent=4), {}),
    ("vae_mlp", dict(image_shape=(1, 16, 16), hidden=16, latent=4, binarise=True), {}),
):
    torch.manual_seed(int(os.environ.get("RANK", 0)))
    model = create_model(name, **config)
    settings = Settings.of(model, steps=6, batch=8, checkpoint_every=0, sample_every=0, **given)
    train(model, images, settings, output=os.path.join(sys.argv[2], name))
PartialState().destroy_process_group()
"""


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "data.npy", random.integers(0, 256, (40, 16, 16), dtype=np.uint8))
    (tmp_path / "both.py").write_text(BOTH)
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, launcher in (("one", []), ("two", several)):
        arguments = [str(tmp_path / "both.py"), str(tmp_path / "data.npy"), str(tmp_path / name)]
        finished = run([sys.executable, *launcher, *arguments])
        assert finished.returncode == 0, finished.stderr
    for model in ("repair_cnn", "gan_mlp", "vae_mlp"):
        one, two = tmp_path / "one" / model, tmp_path / "two" / model
        weights = load_file(two / "model.safetensors")
        for name, tensor in load_file(one / "model.safetensors").items():
            # The gradients' sums are divided differently, and Adam divides small ones by their
            # size.
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=2e-5)
        logs = [
            [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            for run in (one, two)
        ]
        assert len(logs[0]) == 7
        for a, b in zip(*logs, strict=True):
            assert b == pytest.approx(a, rel=1e-3, abs=1e-4)


# ------------------------------------------------------------------------------------------ command


def test_command(tmp_path: Path) -> None:
    arguments = [
        "train", "vae_mlp", "--data", "digits", "--output", str(tmp_path), "--steps", "3",
        "--set", "hidden=16", "--set", "latent=2", "--sample-every", "0",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["model"] == "vae_mlp"
    assert outcome["steps"] == 3
    assert create_model("vae_mlp", weights=tmp_path).config.image_shape == (1, 8, 8)
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(again.stdout)["resumed_from"] == 3
    assert json.loads(again.stdout)["measures"] == outcome["measures"]
    table = CliRunner().invoke(app, [*arguments, "--resume", "never"])
    assert f"{outcome['measures']['loss']:.4f}" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["repair_unnet"], "unknown model 'repair_unnet'; nearest: repair_unet"),
        (["repair_cnn", "--data", "nowhere"], "no collection or path 'nowhere'"),
        (["repair_cnn", "--loss", "l3"], "unknown loss 'l3'"),
        (["repair_cnn", "--set", "deep=3"], "repair_cnn has no option 'deep'"),
        (["repair_cnn", "--crop", "5000"], "expected images of at least 5000 x 5000 pixels"),
        (["vae_mlp", "--schedule", "never"], "expected a schedule out of constant"),
        (["vae_mlp", "--weights", "nothing.safetensors"], "nothing.safetensors"),
    ],
)
def test_failures_have_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "run")]
    result = CliRunner().invoke(app, ["train", *arguments, *output])
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_options_have_a_form() -> None:
    result = CliRunner().invoke(app, ["train", "vae_mlp", "--set", "hidden"])
    assert result.exit_code == 2


def test_numbers_of_images_left_out_are_told(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    result = CliRunner().invoke(
        app,
        ["train", "repair_cnn", "--data", str(tmp_path), "--crop", "16", "--steps", "1",
         "--output", str(tmp_path / "run"), "--sample-every", "0"],
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "broken.png is left out: " in result.stderr
    assert "1 images are left out, 4 are used" in result.stderr
