# SPDX-License-Identifier: Apache-2.0
"""Pages, plots and pictures: self-contained, escaped, right to the pixel."""

from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from sosie.comparison import MEASURES, compare_pairs, match
from sosie.comparison.run import Options
from sosie.report.comparison import comparison_html
from sosie.report.page import render, write_atomically
from sosie.report.pictures import encode_heat_map, encode_picture, scale_floor, to_8_bit
from sosie.report.plots import distribution, loss_curve


class Page(HTMLParser):
    """What a page refers to, the names it gives out, and whether its tags match."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "path", "use", "circle"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.names: list[str] = []
        self.images: list[bytes] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.references.append(value or "")
            if name == "id":
                self.names.append(value or "")
            if tag == "img" and name == "src" and value:
                self.images.append(base64.b64decode(value.partition(",")[2]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def check_self_contained(text: str) -> Page:
    page = Page(text)
    assert page.open == []
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(http" not in text
    assert "@import" not in text
    assert len(page.names) == len(set(page.names))
    for image in page.images:
        Image.open(io.BytesIO(image)).verify()
    return page


@pytest.fixture
def compared(tmp_path: Path) -> Any:
    """Page of a comparison of some pairs whose names are markup, and of one that fails."""

    def compare(count: int) -> str:
        rng = np.random.default_rng(0)
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 200, (32, 24, 3), dtype=np.uint8)
            noise = rng.integers(0, 5 + 10 * index, pixels.shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "a" / f"<b>{index}&.png")
            Image.fromarray(pixels + noise).save(tmp_path / "b" / f"<b>{index}&.png")
        (tmp_path / "a" / "<i>broken.png").write_text("no image")
        (tmp_path / "b" / "<i>broken.png").write_text("no image")
        pairs, unmatched = match(tmp_path / "a", tmp_path / "b")
        options = Options(tuple(MEASURES[name] for name in ("ssim", "psnr", "mse")))
        comparison = compare_pairs(pairs, unmatched, options)
        return comparison_html(comparison, str(tmp_path / "a"), str(tmp_path / "b"))

    return compare


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_comparison_is_one_file_that_needs_no_other(compared: Any, count: int) -> None:
    text = compared(count)
    page = check_self_contained(text)
    assert len(page.images) == 3 * count  # both pictures and the map
    assert text.count('<svg class="plot"') == (1 if count == 1 else 3)


def test_names_are_escaped(compared: Any) -> None:
    text = compared(2)
    assert "<b>0&" not in text
    assert "<i>" not in text
    assert "&lt;b&gt;0&amp;.png" in text
    assert "&lt;i&gt;broken.png" in text


def test_headers_name_unit_and_direction(compared: Any) -> None:
    text = compared(2)
    header = text[text.index("<thead>") : text.index("</thead>")]
    for title, direction in (
        ("SSIM", "higher is better"),
        ("PSNR (dB)", "higher is better"),
        ("MSE (levels²)", "lower is better"),
    ):
        assert re.search(rf"{re.escape(title)}\s*</button><small>{direction}</small>", header)


def test_an_unset_variable_is_an_error() -> None:
    with pytest.raises(Exception, match="version"):
        render("page.html.j2", title="no version")


# ------------------------------------------------------------------------------------------- plots


def test_plots_take_their_colours_from_the_page() -> None:
    values = [0.1, 0.5, 0.7, np.inf, np.nan]
    plot = distribution(values, label="x & y", counted="pairs", mark=0.5, mark_label="mean")
    curve = loss_curve([1.0, 0.5, 0.25, 0.2])
    for svg in (plot, curve):
        check_self_contained(str(svg))
        assert "var(--accent)" in svg
        assert not re.search(r"#0[1-5]0[1-5]0[1-5]", svg)  # all stand-ins were replaced
        assert "<style" not in svg  # it would apply to the whole page
    assert "2 not finite" in plot
    assert "x &amp; y" in plot


def test_bars_have_the_height_of_the_counts() -> None:
    svg = str(distribution([0.0] * 3 + [1.0] * 6, label="x", counted="pairs"))
    bars = re.findall(r'<path d="([^"]*)"[^>]*fill: var\(--accent\)', svg)
    heights = []
    for bar in bars:
        y = [float(y) for _, y in re.findall(r"[ML] (\S+) (\S+)", bar)]
        heights.append(max(y) - min(y))
    heights = [height for height in heights if height > 0]
    assert len(heights) == 2
    # Coordinates are written with six digits after the point.
    assert heights[1] / heights[0] == pytest.approx(2.0, abs=1e-6)


def test_plots_leave_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)
    loss_curve([1.0, 0.5])
    assert dict(mpl.rcParams) == before


# ---------------------------------------------------------------------------------------- pictures


def test_heat_map_colours() -> None:
    similarity = np.array([[1.0, 0.5, 0.0, -0.3], [0.75, np.nan, 2.0, 0.25]])
    read = np.asarray(Image.open(io.BytesIO(encode_heat_map(similarity))).convert("RGB"))
    levels = np.array([[0, 128, 255, 255], [64, 255, 0, 191]])  # round(255 (1 - s)), clipped
    expected = np.rint(mpl.colormaps["inferno"](levels)[..., :3] * 255)
    # Colour maps may round where we do not.
    assert np.abs(read - expected).max() <= 1


def test_heat_map_scale_starts_at_the_floor() -> None:
    similarity = np.array([[1.0, 0.9, 0.8, 0.1]])
    image = Image.open(io.BytesIO(encode_heat_map(similarity, floor=0.8)))
    assert np.asarray(image).tolist() == [[0, 128, 255, 255]]


def test_heat_maps_are_reduced_by_averaging() -> None:
    similarity = np.tile([[1.0, 0.0], [0.0, 1.0]], (4, 4))
    image = Image.open(io.BytesIO(encode_heat_map(similarity, longest_side=4)))
    assert np.asarray(image).tolist() == [[128] * 4] * 4


def test_scale_floor_is_a_tenth_at_or_below_the_lowest() -> None:
    assert scale_floor([np.full((4, 4), 0.55)]) == pytest.approx(0.5)
    assert scale_floor([np.full((4, 4), -0.2)]) == 0.0
    assert scale_floor([np.full((4, 4), 1.0)]) == 0.9  # a scale without width would be none


def test_pictures_are_lossless_unless_reduced() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.open(io.BytesIO(encode_picture(pixels, longest_side=30)))
    assert image.format == "PNG"
    np.testing.assert_array_equal(np.asarray(image), pixels)
    image = Image.open(io.BytesIO(encode_picture(pixels, longest_side=15)))
    assert (image.format, image.size) == ("JPEG", (15, 10))


def test_transparent_pixels_are_gray() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (200, 100, 50, 255)
    image = np.asarray(Image.open(io.BytesIO(encode_picture(pixels))))
    assert image[0, 0].tolist() == [200, 100, 50]
    assert image[1, 1].tolist() == [128, 128, 128]


def test_any_range_to_8_bits() -> None:
    pixels = np.array([[0, 32768, 65535]], np.uint16)
    assert to_8_bit(pixels, 65535.0).tolist() == [[0, 128, 255]]
    values = np.array([[-1.0, 0.5, 3.0, np.nan]], np.float32)
    assert to_8_bit(values, 1.0).tolist() == [[0, 128, 255, 0]]


# ------------------------------------------------------------------------------------------- files


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "page.html"
    write_atomically(path, "old ∞\n")
    assert path.read_text("utf-8") == "old ∞\n"

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text("utf-8") == "old ∞\n"
    assert os.listdir(path.parent) == ["page.html"]  # noqa: PTH208


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    write_atomically(Path(os.devnull), "gone")
    assert not Path(os.devnull).is_file()
