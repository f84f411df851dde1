# SPDX-License-Identifier: Apache-2.0
"""The shell: numbers, files, exit statuses, sentences."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import sosie
from sosie.cli.app import app
from sosie.comparison.files import UnreadableImageError, read_picture
from sosie.zoo.model import AdversarialPair, Autoencoder, RepairModel
from sosie.zoo.registry import list_models, model_class

Pixels = np.ndarray[Any, np.dtype[Any]]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def picture(seed: int, shape: tuple[int, ...] = (40, 50, 3), dtype: Any = np.uint8) -> Pixels:
    """Smooth random image: neighbours resemble each other, as in photographs."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = np.cumsum(np.cumsum(noise, axis=0), axis=1)
    unit = (smooth - smooth.min()) / np.ptp(smooth)
    return np.asarray(np.rint(unit * np.iinfo(dtype).max), dtype=dtype)


def disturbed(pixels: Pixels, seed: int) -> Pixels:
    top = np.iinfo(pixels.dtype).max
    noise = np.random.default_rng(seed).normal(0, 0.05 * top, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, top).astype(pixels.dtype)


def write_png_16(path: Path, pixels: Pixels) -> None:
    """A PNG of 16-bit samples, which Pillow writes for gray only. Rows are filtered by "sub"."""
    height, width = pixels.shape[:2]
    colour_type = {1: 0, 3: 2, 4: 6}[pixels.shape[2]]
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = rows.copy()
    step = 2 * pixels.shape[2]
    filtered[:, step:] -= rows[:, :-step]
    data = b"".join(b"\x01" + row.tobytes() for row in filtered)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )


def mean_squared_error(x: Pixels, y: Pixels) -> float:
    return float(np.mean((x.astype(np.float64) - y.astype(np.float64)) ** 2))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two comparable pairs, one of them one folder down and by extension, and five that fail."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        (folder / "deep").mkdir(parents=True)
    Image.fromarray(picture(1)).save(a / "colour.png")
    Image.fromarray(disturbed(picture(1), 2)).save(b / "colour.png")
    Image.fromarray(picture(3, (40, 50))).save(a / "deep" / "gray.png")
    Image.fromarray(disturbed(picture(3, (40, 50)), 4)).save(b / "deep" / "gray.tif")
    Image.fromarray(picture(5)).save(a / "size.png")
    Image.fromarray(picture(5, (40, 51, 3))).save(b / "size.png")
    Image.fromarray(picture(6)).save(a / "mode.png")
    Image.fromarray(picture(6, (40, 50))).save(b / "mode.png")
    Image.fromarray(picture(7)).save(a / "alone.png")
    Image.fromarray(picture(8)).save(a / "broken [1].png")
    (b / "broken [1].png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    Image.fromarray(picture(9)).save(a / "cut.png")
    (b / "cut.png").write_bytes((a / "cut.png").read_bytes()[:3000])
    (a / "notes.txt").write_text("no image, and no failure either")
    return a, b


REASONS = {
    "alone.png": "no partner in",
    "broken [1].png": "no image that Pillow can read",
    "cut.png": "truncated",
    "mode.png": "kinds of image differ: 8-bit RGB and 8-bit gray",
    "size.png": "sizes differ: 50 x 40 and 51 x 40 pixels",
}


# ----------------------------------------------------------------------------------- whole command


COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str) -> None:
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "--set <" not in result.stdout
    listed = result.stdout.partition("Commands:")[2]
    assert "..." not in listed  # a first sentence that is too long for a line
    assert all(f"  {name} " in listed for name in COMMANDS if not command)


def test_help_names_every_model() -> None:
    classes = {name: model_class(name) for name in list_models()}
    repairs = {name for name, cls in classes.items() if issubclass(cls, RepairModel)}
    generates = {
        name for name, cls in classes.items() if issubclass(cls, AdversarialPair | Autoencoder)
    }
    for command, expected in {
        "repair": repairs,
        "generate": generates,
        "evaluate": repairs | generates,
        "export": repairs | generates,
        "train": classes.keys(),
    }.items():
        said = invoke(command, "--help").stdout.partition("Arguments:")[2].partition("Options:")[0]
        assert {name for name in classes if re.search(rf"\b{name}\b", said)} == expected


def test_no_number_is_cut_where_the_terminal_is_narrow(tmp_path: Path) -> None:
    for name, pixels in (("a", picture(1)), ("b", disturbed(picture(1), 2))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    command = ("compare", tmp_path / "a.png", tmp_path / "b.png", "--measures", "psnr,ssd,cosine")
    narrow, wide = (
        CliRunner().invoke(app, [*map(str, command)], env={"COLUMNS": columns})
        for columns in ("30", "200")
    )
    numbers = re.findall(r"\d+\.\d+", wide.stdout.replace(str(tmp_path), ""))
    assert len(numbers) == 3
    assert all(number in narrow.stdout for number in numbers)
    assert "…" not in narrow.stdout


def test_version() -> None:
    assert invoke("--version").stdout == f"sosie {sosie.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["compare"], ["info", "--nonsense"]])
def test_what_is_not_understood_has_status_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_a_missing_library_is_named_in_one_sentence(run_python: Callable[..., str]) -> None:
    code = """
import sys
sys.modules["rich"] = None
sys.argv = ["sosie", "info"]
from sosie.cli import main
main()
"""
    said = run_python(code, expect_failure=True)
    assert "needs rich" in said
    assert "pip install 'sosie[zoo]'" in said
    assert "Traceback" not in said


def test_info_says_what_the_library_says() -> None:
    found = json.loads(invoke("info", "--json").stdout)
    assert found["version"] == sosie.__version__
    assert found["backends"] == sosie.available_backends()
    assert f"sosie {sosie.__version__}" in invoke("info").stdout


def test_info_names_a_backend_that_is_not_there(run_python: Callable[..., str]) -> None:
    code = 'import sys; sys.argv = ["sosie", "info"]; from sosie.cli import main; main()'
    said = run_python(code, expect_failure=True, SOSIE_BACKEND="abacus")
    assert "abacus" in said
    assert "Traceback" not in said


# -------------------------------------------------------------------------------- compare: numbers


def test_values_are_those_of_the_library(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = folders
    result = invoke(
        "compare", a, b, "--measures", "ssim,psnr,mse", "--json", tmp_path / "out.json",
        "--csv", tmp_path / "out.csv",
    )  # fmt: skip
    assert result.exit_code == 1
    document = json.loads((tmp_path / "out.json").read_text("utf-8"))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {}
    for name, seed, shape in (("colour.png", 1, (40, 50, 3)), ("deep/gray.png", 3, (40, 50))):
        x, y = picture(seed, shape), disturbed(picture(seed, shape), seed + 1)
        error = mean_squared_error(x, y)
        axis = -1 if x.ndim == 3 else None
        expected[name] = {
            "ssim": float(sosie.ssim(x, y, channel_axis=axis)),
            "psnr": float(sosie.psnr(x, y, channel_axis=axis)),
            "mse": error,
        }
    # Written with all their digits: equal, not close.
    assert {pair["name"]: pair["values"] for pair in document["pairs"]} == expected
    assert {
        row["name"]: {measure: float(row[measure]) for measure in ("ssim", "psnr", "mse")}
        for row in rows
        if not row["error"]
    } == expected
    for measure in ("ssim", "psnr", "mse"):
        values = [pair[measure] for pair in expected.values()]
        assert document["summary"][measure] == {
            "mean": np.mean(values),
            "median": np.median(values),
            "minimum": min(values),
            "maximum": max(values),
        }


def test_ms_ssim_and_another_convention(tmp_path: Path) -> None:
    x = picture(1, (180, 190))
    y = disturbed(x, 2)
    Image.fromarray(x).save(tmp_path / "x.png")
    Image.fromarray(y).save(tmp_path / "y.png")
    result = invoke(
        "compare", tmp_path / "x.png", tmp_path / "y.png", "--json", "-",
        "--measures", "ms-ssim,ssim", "--spec", "torchmetrics",
    )  # fmt: skip
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["pairs"][0]["values"] == {
        "ms-ssim": float(sosie.ms_ssim(x, y, spec="torchmetrics")),
        "ssim": float(sosie.ssim(x, y, spec="torchmetrics")),
    }
    assert [measure["spec"] for measure in document["measures"]] == ["torchmetrics"] * 2


def test_distances_of_whole_images(tmp_path: Path) -> None:
    x = picture(1, (64, 90, 3))
    y = disturbed(x, 2)
    Image.fromarray(x).save(tmp_path / "x.png")
    Image.fromarray(y).save(tmp_path / "y.png")
    result = invoke(
        "compare", tmp_path / "x.png", tmp_path / "y.png", "--json", "-", "--measures",
        "euclidean,cosine,ssd", "--html", tmp_path / "page.html",
    )  # fmt: skip
    assert result.exit_code == 0
    values = json.loads(result.stdout)["pairs"][0]["values"]
    a, b = x.astype(float).ravel(), y.astype(float).ravel()
    # Results are float32, sums are not.
    assert values == pytest.approx(
        {
            "euclidean": np.linalg.norm(a - b),
            "cosine": a @ b / (np.linalg.norm(a) * np.linalg.norm(b)),
            "ssd": ((a - b) ** 2).sum(),
        },
        rel=1e-6,
    )
    page = (tmp_path / "page.html").read_text("utf-8")
    for title in ("Euclidean distance", "Cosine similarity", "SSD"):
        assert title in page


def test_equal_images_have_infinite_psnr_and_json_has_no_infinity(tmp_path: Path) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "x.png")
    arguments = ("compare", tmp_path / "x.png", tmp_path / "x.png")
    values = json.loads(invoke(*arguments, "--json", "-").stdout)["pairs"][0]["values"]
    assert values == {"ssim": 1.0, "psnr": None, "mse": 0.0}
    row = next(csv.DictReader(io.StringIO(invoke(*arguments, "--csv", "-").stdout)))
    assert (row["ssim"], row["psnr"], row["mse"]) == ("1.0", "inf", "0.0")
    assert "∞" in invoke(*arguments).stdout


def test_numbers_do_not_depend_on_jobs(folders: tuple[Path, Path]) -> None:
    threads = sosie.get_num_threads()
    outputs = {
        invoke("compare", *folders, "--csv", "-", "--jobs", jobs).stdout for jobs in (1, 2, 7)
    }
    assert len(outputs) == 1
    assert sosie.get_num_threads() == threads


# ------------------------------------------------------------------------------- compare: failures


def test_failures_are_named_and_the_others_are_compared(folders: tuple[Path, Path]) -> None:
    result = invoke("compare", *folders, "--json", "-")
    assert result.exit_code == 1
    failures = {
        failure["name"]: failure["reason"] for failure in json.loads(result.stdout)["failures"]
    }
    assert failures.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert reason in failures[name]
        assert f"{name}: " in result.stderr


def test_nothing_is_written_when_nothing_was_compared(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no image")
    Image.fromarray(picture(1)).save(tmp_path / "y.png")
    before = sorted(tmp_path.iterdir())
    result = invoke(
        "compare", tmp_path / "x.png", tmp_path / "y.png", "--csv", tmp_path / "out.csv",
        "--json", tmp_path / "out.json", "--html", tmp_path / "out.html",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "no image that Pillow can read" in result.stderr
    assert "nothing was written" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--measures", "ssim,beauty"], "got beauty"),
        (["--measures", ","], "got none"),
        (["--spec", "scikit-imag"], "scikit-image"),
        (["--measures", "ms-ssim", "--spec", "scikit-image"], "no multi-scale index"),
        (["--data-range", "0"], "positive"),
        (["--data-range", "nan"], "positive"),
        (["--jobs", "0"], "jobs"),
        (["--html", "-"], "--html"),
        (["--csv", "-", "--json", "-"], "different file"),
        (["--csv", "."], "folder"),
    ],
)
def test_usage(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "x.png")
    result = invoke("compare", tmp_path / "x.png", tmp_path / "x.png", *arguments)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


def test_a_folder_and_a_file_and_what_is_not_there(folders: tuple[Path, Path]) -> None:
    a, _ = folders
    assert invoke("compare", a, a / "colour.png").exit_code == 2
    result = invoke("compare", a, a / "nowhere")
    assert result.exit_code == 2
    assert "no such file or folder" in result.stderr


def test_images_smaller_than_the_window_are_failures(tmp_path: Path) -> None:
    Image.fromarray(picture(1, (8, 9))).save(tmp_path / "x.png")
    result = invoke("compare", tmp_path / "x.png", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "11" in result.stderr  # the window's size


def test_an_output_that_cannot_be_written_is_a_failure(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = invoke("compare", *folders, "--csv", tmp_path / "file" / "out.csv")
    assert result.exit_code == 1
    assert "could not be written" in result.stderr


def test_names_that_are_equal_but_for_the_extension_must_be_unique(tmp_path: Path) -> None:
    for path in ("a/x.png", "b/x.tif", "b/x.bmp"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(1)).save(tmp_path / path)
    result = invoke("compare", tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 1
    assert "1 and 2 files of this name" in result.stderr


# ------------------------------------------------------------------------------------- image files


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_files_are_read_whole(tmp_path: Path, channels: int) -> None:
    pixels = picture(1, (30, 20, channels), np.uint16)
    write_png_16(tmp_path / "x.png", pixels)
    read = read_picture(tmp_path / "x.png")
    assert read.pixels.dtype == np.uint16
    np.testing.assert_array_equal(read.pixels, pixels[..., 0] if channels == 1 else pixels)
    kinds = {1: "16-bit gray", 3: "16-bit RGB", 4: "16-bit RGB with alpha"}
    assert read.description == kinds[channels]


def test_16_bit_images_have_a_range_of_65535(tmp_path: Path) -> None:
    x = picture(1, (30, 40, 3), np.uint16)
    y = disturbed(x, 2)
    write_png_16(tmp_path / "x.png", x)
    write_png_16(tmp_path / "y.png", y)
    result = invoke("compare", tmp_path / "x.png", tmp_path / "y.png", "--json", "-")
    values = json.loads(result.stdout)["pairs"][0]["values"]
    assert values["ssim"] == float(sosie.ssim(x, y, channel_axis=-1))
    assert values["psnr"] == 10 * math.log10(65535**2 / mean_squared_error(x, y))


def test_palette_bilevel_and_alpha(tmp_path: Path) -> None:
    colours = picture(1, (16, 16, 3)) // 64 * 64
    Image.fromarray(colours).quantize(64).save(tmp_path / "palette.png")
    expected = np.asarray(Image.open(tmp_path / "palette.png").convert("RGB"))
    read = read_picture(tmp_path / "palette.png")
    assert read.description == "8-bit RGB"
    np.testing.assert_array_equal(read.pixels, expected)

    bits = picture(2, (16, 16)) > 128
    Image.fromarray(bits).save(tmp_path / "bits.png")
    read = read_picture(tmp_path / "bits.png")
    assert read.description == "8-bit gray"
    np.testing.assert_array_equal(read.pixels, np.where(bits, 255, 0))

    alpha = picture(3, (16, 16))
    Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "alpha.png")
    read = read_picture(tmp_path / "alpha.png")
    assert read.description == "8-bit RGB with alpha"
    np.testing.assert_array_equal(read.pixels, np.dstack([colours, alpha]))

    opaque = np.full((16, 16), 255, np.uint8)
    bands = [Image.fromarray(band) for band in (alpha, opaque)]
    Image.merge("LA", bands).save(tmp_path / "opaque.png")
    read = read_picture(tmp_path / "opaque.png")
    assert read.description == "8-bit gray"
    np.testing.assert_array_equal(read.pixels, alpha)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    pixels = picture(1, (16, 24))
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn clockwise is needed
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        read_picture(tmp_path / "turned.png").pixels, np.rot90(pixels, -1)
    )


def test_floating_point_images_need_a_range(tmp_path: Path) -> None:
    x = picture(1, (30, 40)).astype(np.float32) / 255
    y = disturbed(picture(1, (30, 40)), 2).astype(np.float32) / 255
    Image.fromarray(x).save(tmp_path / "x.tif")
    Image.fromarray(y).save(tmp_path / "y.tif")
    arguments = ("compare", tmp_path / "x.tif", tmp_path / "y.tif", "--json", "-")
    assert "data range" in invoke(*arguments).stderr
    result = invoke(*arguments, "--data-range", "1")
    values = json.loads(result.stdout)["pairs"][0]["values"]
    assert values["ssim"] == float(sosie.ssim(x, y, data_range=1.0))


def test_what_would_be_read_in_part_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(seed, (16, 16))) for seed in (1, 2)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImageError, match="expected one frame, found 2"):
        read_picture(tmp_path / "moving.gif")
    Image.new("CMYK", (16, 16)).save(tmp_path / "print.tif")
    with pytest.raises(UnreadableImageError, match="found CMYK"):
        read_picture(tmp_path / "print.tif")
    Image.fromarray(picture(1, (16, 16)).astype(np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(UnreadableImageError, match="found 32 bits"):
        read_picture(tmp_path / "wide.tif")
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_picture(tmp_path / "nowhere.png")
