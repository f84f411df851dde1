# SPDX-License-Identifier: Apache-2.0
"""generate, repair and export from the shell: files, pages, exit statuses, sentences."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from sosie.cli.app import app
from sosie.comparison.files import read_picture
from sosie.zoo import create_model, generate_images, repair_image, save_model
from sosie.zoo.inference.png import PNGWriter
from test_report import check_self_contained

pytestmark = pytest.mark.usefixtures("one_thread")

Pixels = np.ndarray[Any, np.dtype[Any]]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def trained(folder: Path, name: str, **config: Any) -> tuple[Any, Path]:
    """A model that does something, and the folder of its weights."""
    torch.manual_seed(0)
    model: Any = create_model(name, **config)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.xavier_normal_(layer.weight)
    save_model(model, folder / name / "model.safetensors")
    return model.eval(), folder / name


def picture(seed: int, shape: tuple[int, ...] = (40, 50, 3), dtype: Any = np.uint8) -> Pixels:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, shape, dtype=dtype)


def write_png(path: Path, pixels: Pixels) -> None:
    with path.open("wb") as file:
        writer = PNGWriter(file, pixels.shape, pixels.dtype)
        writer.write(pixels)
        writer.close()


@pytest.fixture
def cnn(tmp_path: Path) -> tuple[Any, Path]:
    return trained(tmp_path, "repair_cnn", depth=3, width=4)


# ------------------------------------------------------------------------------------------- repair


def test_photographs_and_what_cannot_be_repaired(tmp_path: Path, cnn: tuple[Any, Path]) -> None:
    model, weights = cnn
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    good: dict[str, Pixels] = {
        "colour.png": picture(1, (90, 70, 3)),
        "alpha.png": picture(2, (40, 50, 4)),
        "deep/sixteen.png": picture(3, (40, 50, 3), np.uint16),
        "gray.png": picture(4, (1, 3)),
    }
    for name, pixels in good.items():
        write_png(photos / name, pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(5)).save(photos / "turned.tif", exif=exif)
    good["turned.tif"] = np.rot90(picture(5), -1)
    (photos / "broken.png").write_text("no image")
    (photos / "notes.txt").write_text("no image, and no failure either")
    frames = [Image.fromarray(picture(seed)) for seed in (6, 7)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    for suffix in ("png", "bmp"):
        Image.fromarray(picture(8)).save(photos / f"twice.{suffix}")
    result = invoke(
        "repair", "repair_cnn", photos, tmp_path / "nowhere.png", "--weights", weights,
        "--out", tmp_path / "out", "--tile", 32, "--json",
    )  # fmt: skip
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert {image["name"] for image in record["images"]} == good.keys()
    for name, pixels in good.items():
        found = read_picture((tmp_path / "out" / name).with_suffix(".png")).pixels
        np.testing.assert_array_equal(found, repair_image(model, pixels, tile=32))
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            np.testing.assert_array_equal(found[..., 3], pixels[..., 3])
    image = next(each for each in record["images"] if each["name"] == "colour.png")
    change = repair_image(model, good["colour.png"], tile=32).astype(float) - good["colour.png"]
    assert image["change"] == pytest.approx(np.sqrt(np.mean(change**2)) / 255, rel=1e-6)
    failures = {failure["name"]: failure["reason"] for failure in record["failures"]}
    assert failures.keys() == {
        "broken.png", "moving.gif", "nowhere.png", "twice.png", "twice.bmp"
    }  # fmt: skip
    assert "no image that Pillow can read" in failures["broken.png"]
    assert "expected one frame, found 2" in failures["moving.gif"]
    assert "no such file" in failures["nowhere.png"]
    assert "several images would be written to" in failures["twice.bmp"]
    for name, reason in failures.items():
        assert f"{name}: {reason}" in result.stderr
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert len(check_self_contained(page).images) == 2 * len(good)
    assert "broken.png" in page
    left_over = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left_over == {"report.html", *(Path(name).with_suffix(".png").name for name in good)}


def test_masks_by_name_and_of_another_size(tmp_path: Path) -> None:
    model, weights = trained(tmp_path, "repair_rcnn", width=4, stages=1, blocks=1)
    masks = tmp_path / "masks"
    masks.mkdir()
    missing = picture(9, (40, 50)) < 80
    for name in ("a", "b", "c"):
        Image.fromarray(picture(1)).save(tmp_path / f"{name}.png")
    Image.fromarray(missing).save(masks / "a.bmp")
    Image.fromarray(missing[:, :-1]).save(masks / "b.png")
    images = [tmp_path / f"{name}.png" for name in ("a", "b", "c")]
    result = invoke(
        "repair", "repair_rcnn", *images, "--weights", weights, "--mask", masks,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert [image["missing"] for image in record["images"]] == [pytest.approx(missing.mean())]
    expected = repair_image(model, picture(1), missing)
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "a.png").pixels, expected)
    reasons = {failure["name"]: failure["reason"] for failure in record["failures"]}
    assert "the mask has 49 x 40 pixels, the image 50 x 40" in reasons["b.png"]
    assert "no mask of this name in" in reasons["c.png"]
    one = invoke(
        "repair", "repair_rcnn", *images, "--weights", weights, "--mask", masks / "a.bmp",
        "--out", tmp_path / "one",
    )  # fmt: skip
    assert one.exit_code == 0
    assert "% missing" in (tmp_path / "one" / "report.html").read_text("utf-8")
    kept = invoke(
        "repair", "repair_rcnn", images[0], "--weights", weights, "--mask", masks / "a.bmp",
        "--keep-known", "--out", tmp_path / "kept",
    )  # fmt: skip
    assert kept.exit_code == 0
    expected = repair_image(model, picture(1), missing, keep_known=True)
    np.testing.assert_array_equal(read_picture(tmp_path / "kept" / "a.png").pixels, expected)


def test_nothing_is_replaced_without_being_asked(tmp_path: Path, cnn: tuple[Any, Path]) -> None:
    _, weights = cnn
    for name in ("a", "b"):
        Image.fromarray(picture(1)).save(tmp_path / f"{name}.png")
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("precious")
    (out / "report.html").write_text("precious")
    command = ("repair", "repair_cnn", *images, "--weights", weights, "--out")
    result = invoke(*command, out)
    assert result.exit_code == 1
    assert f"a.png: {out / 'a.png'} exists; --overwrite replaces it" in result.stderr
    assert f"{out / 'report.html'} exists" in result.stderr
    assert (out / "a.png").read_text() == (out / "report.html").read_text() == "precious"
    assert read_picture(out / "b.png").size == "50 x 40"
    assert invoke(*command, out, "--overwrite").exit_code == 0
    assert read_picture(out / "a.png").size == "50 x 40"
    assert "repair_cnn" in (out / "report.html").read_text("utf-8")
    before = [path.read_bytes() for path in images]
    result = invoke(*command, tmp_path, "--overwrite")
    assert result.exit_code == 1
    assert "is an image to be repaired, and would be replaced" in result.stderr
    assert "nothing was written" in result.stderr
    assert [path.read_bytes() for path in images] == before


def test_results_and_masks_are_not_repaired(tmp_path: Path, cnn: tuple[Any, Path]) -> None:
    _, weights = cnn
    photos = tmp_path / "photos"
    masks = photos / "masks"
    masks.mkdir(parents=True)
    Image.fromarray(picture(1)).save(photos / "a.png")
    Image.fromarray(picture(2)[..., 0]).save(masks / "a.png")
    command = (
        "repair", "repair_cnn", photos, "--weights", weights, "--mask", masks,
        "--out", photos / "repaired", "--json", "--overwrite",
    )  # fmt: skip
    for _ in range(2):
        result = invoke(*command)
        assert result.exit_code == 0, result.stderr
        assert [image["name"] for image in json.loads(result.stdout)["images"]] == ["a.png"]


def test_a_folder_without_images_is_named_and_none_is_left(
    tmp_path: Path, cnn: tuple[Any, Path]
) -> None:
    _, weights = cnn
    (tmp_path / "empty").mkdir()
    out = tmp_path / "new" / "out"
    result = invoke("repair", "repair_cnn", tmp_path / "empty", "--weights", weights, "--out", out)
    assert result.exit_code == 1
    assert f"{tmp_path / 'empty'}: no image in this folder" in result.stderr
    assert "nothing was written" in result.stderr
    assert not out.exists()


def test_an_output_that_cannot_be_written(
    tmp_path: Path, cnn: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = cnn
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    Image.fromarray(picture(2)).save(tmp_path / "b.png")
    (tmp_path / "file").write_text("in the way")
    command = ("repair", "repair_cnn", tmp_path / "a.png", tmp_path / "b.png", "--weights", weights)
    result = invoke(*command, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "could not be made: Not a directory" in result.stderr

    write = PNGWriter.write
    written = []

    def full(writer: PNGWriter, rows: Pixels) -> None:
        written.append(len(rows))
        if len(written) == 1:
            raise OSError(28, "No space left on device")
        write(writer, rows)

    monkeypatch.setattr(PNGWriter, "write", full)
    result = invoke(*command, "--out", tmp_path / "out")
    assert result.exit_code == 1
    target = tmp_path / "out" / "a.png"
    assert f"a.png: {target} could not be written: No space left on device" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "report.html"]


def test_images_that_are_too_large_are_refused_by_what_they_say(
    tmp_path: Path, cnn: tuple[Any, Path]
) -> None:
    _, weights = cnn
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    result = invoke(
        "repair", "repair_cnn", tmp_path / "a.png", "--weights", weights, "--out", tmp_path / "out",
        "--most-megapixels", "0.001",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "50 x 40 are 0 megapixels, more than the limit of 0.001" in result.stderr


def test_100_megapixels_in_bounded_memory(tmp_path: Path, run_python: Callable[..., str]) -> None:
    """Gray: a byte a pixel, twice while it is read, and bands of some megabytes."""
    pixels = np.zeros((10_000, 10_000), np.uint8)
    pixels[::100] = 255
    Image.fromarray(pixels).save(tmp_path / "large.png", compress_level=1)
    del pixels
    code = f"""
import resource
from pathlib import Path
from sosie.zoo.inference.repair import Tiling
from sosie.zoo.inference.repair_files import Job, Repaired, repair_files
from sosie.zoo.model import RepairModel
from sosie.zoo.repair_cnn import RepairCNNConfig

class Same(RepairModel):
    def forward(self, damaged, known=None):
        return damaged

path = Path({str(tmp_path)!r})
job = Job("large", path / "large.png", None, path / "out.png")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = Same(RepairCNNConfig(channels=1))
(outcome,) = repair_files(
    model, [job], Tiling(1024, 0), most_pixels=10**8, longest_side=800
)
assert isinstance(outcome, Repaired), outcome
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    assert float(run_python(code)) < 300
    with (tmp_path / "out.png").open("rb") as file:
        assert file.read(24)[16:] == struct.pack(">II", 10_000, 10_000)


# ----------------------------------------------------------------------------------------- generate


def test_images_in_a_folder_and_in_one_picture(tmp_path: Path) -> None:
    model, weights = trained(tmp_path, "gan_dcgan", width=4, latent=8)
    out = tmp_path / "out"
    command = ("generate", "gan_dcgan", "--weights", weights, "-n", 18, "--seed", 3)
    result = invoke(*command, "--out", out, "--json")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    images = generate_images(model, 18, seed=3)
    for number, (row, image) in enumerate(zip(record["images"], images, strict=True), 1):
        path = out / f"{number:04}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image[..., 0])
        assert row["brightness"] == pytest.approx(image.mean() / 255, rel=1e-5)
        others = np.delete(images, number - 1, 0).astype(float)
        nearest = np.sqrt(((others - image) ** 2).mean((1, 2, 3)).min()) / 255
        # The search is in float32.
        assert row["distance"] == pytest.approx(nearest, rel=1e-4)
    page = (out / "report.html").read_text("utf-8")
    assert len(check_self_contained(page).images) == 1
    assert 'alt="18 generated images in 4 rows of 5"' in page
    result = invoke(*command, "--out", out)
    assert result.exit_code == 1
    assert "0001.png and 18 more exist; --overwrite replaces them" in result.stderr
    assert invoke(*command, "--out", out, "--overwrite").exit_code == 0

    assert invoke(*command, "--out", tmp_path / "one" / "grid.png").exit_code == 0
    grid = np.asarray(Image.open(tmp_path / "one" / "grid.png"))
    scale = grid.shape[0] // (4 * 30 + 2)  # lines of two pixels, before small ones are enlarged
    small = grid[::scale, ::scale]
    assert small.shape == (4 * 30 + 2, 5 * 30 + 2)
    np.testing.assert_array_equal(small[32:60, 2:30], images[5, ..., 0])
    assert (small[92:120, 122:150] == 255).all()  # the last two places are empty


def test_ways_from_code_to_code(tmp_path: Path) -> None:
    _, weights = trained(tmp_path, "vae_mlp", hidden=8, latent=2)
    command = ("generate", "vae_mlp", "--weights", weights, "-n", 2, "--interpolate", 3)
    assert invoke(*command, "--out", tmp_path / "out").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == [f"000{way}-0{step}.png" for way in (1, 2) for step in (1, 2, 3)]
    assert "in 2 rows of 3" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_one_image_has_no_other_to_be_near(tmp_path: Path) -> None:
    _, weights = trained(tmp_path, "vae_mlp", hidden=8, latent=2)
    out = tmp_path / "x.png"
    command = ("generate", "vae_mlp", "--weights", weights, "-n", 1, "--out")
    result = invoke(*command, out)
    assert result.exit_code == 0
    again = invoke(*command, tmp_path / "y.png")
    assert f"{tmp_path / 'report.html'} exists; --overwrite replaces it\n" in again.stderr
    assert "nearest" not in (tmp_path / "report.html").read_text("utf-8")


def test_generated_images_that_cannot_be_written(tmp_path: Path) -> None:
    _, weights = trained(tmp_path, "vae_mlp", hidden=8, latent=2)
    (tmp_path / "file").write_text("in the way")
    result = invoke("generate", "vae_mlp", "--weights", weights, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "could not be made: Not a directory" in result.stderr
    out = tmp_path / "out"
    (out / "0002.png").mkdir(parents=True)
    result = invoke(
        "generate", "vae_mlp", "--weights", weights, "-n", 3, "--out", out, "--overwrite"
    )
    assert result.exit_code == 1
    assert "0002.png: could not be written: Is a directory" in result.stderr
    assert (out / "0003.png").is_file()
    assert (out / "report.html").is_file()


# ------------------------------------------------------------------------------- export, and models


def test_export(tmp_path: Path, cnn: tuple[Any, Path]) -> None:
    model, weights = cnn
    path = tmp_path / "model.pt2"
    command = ("export", "repair_cnn", "--weights", weights, "--to", path)
    result = invoke(*command, "--json")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert record["inputs"] == ["damaged", "known"]
    assert record["difference"] < 1e-6
    images, known = torch.rand(3, 3, 9, 17), torch.ones(3, 1, 9, 17)
    with torch.no_grad():
        found = torch.export.load(path).module()(images, known)
        # Roundings of float32.
        assert torch.allclose(found, model(images), atol=1e-6)
    result = invoke(*command)
    assert result.exit_code == 1
    assert "exists; --overwrite replaces it" in result.stderr
    result = invoke(*command, "--overwrite", "--part", "decoder")
    assert result.exit_code == 1
    assert "expected a part of repair_cnn out of repair, got 'decoder'" in result.stderr
    (tmp_path / "file").write_text("in the way")
    result = invoke("export", "repair_cnn", "--weights", weights, "--to", tmp_path / "file/x.pt2")
    assert result.exit_code == 1
    assert "x.pt2 could not be written: File exists" in result.stderr


def test_onnx_without_its_extra_is_a_sentence(
    tmp_path: Path, cnn: tuple[Any, Path], run_python: Callable[..., str]
) -> None:
    path = tmp_path / "x.onnx"
    code = f"""
import sys
sys.modules["onnxscript"] = None
sys.argv = ["sosie", "export", "repair_cnn", "--weights", {str(cnn[1])!r}, "--to", {str(path)!r}]
from sosie.cli import main
main()
"""
    said = run_python(code, expect_failure=True)
    assert "ONNX needs onnxscript: python -m pip install 'sosie[zoo,onnx]'" in said
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["repair", "repair_cn", "x.png"], 1, "unknown model 'repair_cn'; nearest: repair_cnn"),
        (["repair", "vae_mlp", "x.png"], 1, "vae_mlp does something else; expected one of repair_"),
        (["generate", "repair_cnn"], 1, "repair_cnn does something else; expected one of gan_"),
        (["repair", "repair_unet", "x.png", "--weights", "W"], 1, "weights of repair_cnn, not of"),
        (["export", "repair_cnn", "--weights", "W/no", "--to", "x.pt2"], 1, "W/no"),
        (["repair", "repair_cnn", "x.png", "--weights", "W", "--device", "abacus"], 1, "no device"),
        (["repair", "repair_cnn", "x.png", "--overlap", "200"], 2, "half a tile, 128, got 200"),
        (["repair", "repair_cnn", "x.png", "--tile", "7"], 2, "--tile"),
        (["repair", "repair_cnn", "x.png", "--mask", "W/no"], 2, "--mask"),
        (["repair", "repair_cnn", "x.png", "--keep-known"], 2, "expected --mask"),
        (["repair", "repair_cnn", "x.png", "--most-megapixels", "nan"], 2, "positive"),
        (["repair", "repair_cnn"], 2, "Missing argument"),
        (["generate", "vae_mlp", "-n", "0"], 2, "--count"),
        (["generate", "vae_mlp", "--interpolate", "1"], 2, "--interpolate"),
        (["generate", "vae_mlp", "--out", "x.jpg"], 2, "a folder, or to end in .png, got x.jpg"),
        (["export", "repair_cnn", "--to", "x.pth"], 2, "expected --to to end in .onnx or .pt2"),
    ],
)
def test_usage(
    tmp_path: Path, cnn: tuple[Any, Path], arguments: list[str], status: int, sentence: str
) -> None:
    result = invoke(*(argument.replace("W", str(cnn[1])) for argument in arguments))
    assert result.exit_code == status
    said = " ".join(result.stderr.replace("│", " ").split())
    assert sentence.replace("W", str(cnn[1])) in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repair_cnn"]
