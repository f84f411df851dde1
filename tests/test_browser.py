# SPDX-License-Identifier: Apache-2.0
"""Pages as a person sees them: opened in Chromium, dragged, sorted, and read on a phone.

Needs Debian's package ``chromium``, or another Chromium, and Playwright, which drives it. No
browser is downloaded, and no page is served: they are files.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sosie.cli.app import app
from sosie.comparison import MEASURES, compare_pairs, match
from sosie.comparison.run import Options
from sosie.report.comparison import comparison_html
from sosie.report.demonstration import demonstration_html
from sosie.report.evaluation import Subject, generation_evaluation_html, repair_evaluation_html
from sosie.zoo import create_model, save_model
from sosie.zoo.data import open_collection
from sosie.zoo.demonstration import METHODS, PLAIN, SOSIE, Outcome, Photograph, Repair, StepTimes
from sosie.zoo.demonstration import Settings as DemonstrationSettings
from sosie.zoo.demonstration_generator import train_generator
from sosie.zoo.evaluation.cases import find_cases
from sosie.zoo.evaluation.generation import evaluate_generation
from sosie.zoo.evaluation.likelihood import evaluate_likelihood
from sosie.zoo.evaluation.repair import RepairProtocol, evaluate_repair

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
_MISSING = [
    what
    for what, is_there in (
        ("Chromium (package chromium)", CHROMIUM is not None),
        ("Playwright (pip install playwright)", importlib.util.find_spec("playwright") is not None),
    )
    if not is_there
]
if _MISSING and os.environ.get("REQUIRE_BROWSER"):
    raise RuntimeError(f"REQUIRE_BROWSER is set, and missing is: {' and '.join(_MISSING)}")
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"missing: {' and '.join(_MISSING)}"),
    pytest.mark.usefixtures("one_thread"),
]

#: Narrow among the phones in use, in CSS pixels, and the smallest text on it.
PHONE, SMALLEST_TEXT = {"width": 360, "height": 740}, 12.0


# -------------------------------------------------------------------------------------------- pages


def comparison(folder: Path) -> str:
    _write_images(folder / "a", 0)
    _write_images(folder / "b", 20)
    (folder / "b" / "c.png").write_text("no image")
    pairs, unmatched = match(folder / "a", folder / "b")
    options = Options(tuple(MEASURES[name] for name in ("ssim", "psnr", "mse")))
    found = compare_pairs(pairs, unmatched, options)
    return comparison_html(found, str(folder / "a"), str(folder / "b"))


def demonstration(folder: Path) -> str:
    _write_images(folder, 0)
    photographs = []
    for number, path in enumerate(sorted(folder.glob("*.png"))[:2]):
        original = np.asarray(Image.open(path))
        repairs = [
            Repair(method, original // 2 + 20 * index, {"psnr": 20.0, "ssim": 0.5, "mse": 90.0})
            for index, method in enumerate(METHODS)
        ]
        photographs.append(Photograph(f"photo{number}.png", "A photo, by me", original, repairs))
    times = StepTimes(step=0.02, loss=0.01)
    outcome = Outcome(
        settings=DemonstrationSettings(),
        steps=90,
        parameters=1234,
        threads=1,
        losses=[1 / step for step in range(1, 91)],
        training_seconds=3.0,
        photographs=photographs,
        times={SOSIE: times, PLAIN: times},
        generator=train_generator(steps=2, seed=0),
    )
    return demonstration_html(outcome)


def repair_evaluation(folder: Path) -> str:
    _write_images(folder, 0)
    (folder / "broken.png").write_text("no image")
    protocol = RepairProtocol(degradation="gaussian_noise:0.1", measures="psnr,ssim,ms-ssim,mse")
    found = evaluate_repair(find_cases(str(folder)), protocol)
    return repair_evaluation_html(_subject("classical", None, folder), found)


def generation_evaluation(folder: Path) -> str:
    _write_log(folder)
    model: Any = create_model("vae_mlp", hidden=16, latent=4)
    found = evaluate_generation(model, open_collection("fashion-mnist-2000"), count=80)
    rows = find_cases("fashion-mnist-2000").rows[:5]
    return generation_evaluation_html(
        _subject("vae_mlp", model, folder), found, evaluate_likelihood(model, rows, samples=2)
    )


def repair(folder: Path) -> str:
    _write_images(folder / "photos", 0)
    for name, size in (("flat", (300, 2)), ("narrow", (1, 300)), ("one", (1, 1))):
        Image.new("RGB", size, "teal").save(folder / "photos" / f"{name}.png")
    (folder / "photos" / "broken.png").write_text("no image")
    save_model(create_model("repair_cnn", depth=2, width=2), folder / "model.safetensors")
    out = folder / "out"
    _run("repair", "repair_cnn", "--weights", folder, folder / "photos", "--out", out)
    return (out / "report.html").read_text("utf-8")


def generation(folder: Path) -> str:
    save_model(create_model("vae_mlp", hidden=16, latent=4), folder / "model.safetensors")
    _run("generate", "vae_mlp", "--weights", folder, "-n", 6, "--out", folder / "out")
    return (folder / "out" / "report.html").read_text("utf-8")


def _run(*arguments: object) -> None:
    CliRunner().invoke(app, [*map(str, arguments)])


#: Every kind of page; made in an empty folder.
PAGES: dict[str, Callable[[Path], str]] = {
    "comparison": comparison,
    "demonstration": demonstration,
    "generation": generation,
    "repair": repair,
    "repair evaluation": repair_evaluation,
    "generation evaluation": generation_evaluation,
}


def _write_images(folder: Path, noise: int) -> None:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(noise)
    for index, name in enumerate(("a", "b", "c", "a-very-long-name-" * 8)):
        rows, columns = np.mgrid[: 60 + 10 * index, : 90 - 10 * index]
        pixels = np.stack([rows, columns, rows + columns], axis=-1) + 40 * index
        pixels = pixels + random.integers(0, noise * (1 + index) + 1, pixels.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")


def _write_log(folder: Path) -> None:
    lines = [f'{{"step": {step}, "loss": {100 / step}, "kl": 3}}' for step in range(1, 60)]
    lines += [f'{{"step": {step}, "validation_loss": {100 / step}}}' for step in (20, 40)]
    (folder / "log.jsonl").write_text("\n".join([*lines, '{"step": 6']))


def _subject(name: str, model: Any, folder: Path) -> Subject:
    return Subject(name, model, str(folder), "some images", f"sosie evaluate {name}", 1.0)


# ------------------------------------------------------------------------------------------ browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Within a container there is no sandbox; what is opened is our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=PAGES)
def written(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(PAGES[request.param](folder), encoding="utf-8")
    return path


@pytest.fixture
def opened(chromium: Any, written: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end, nothing was asked for but the page, and nothing went wrong."""
    requests: list[str] = []
    errors: list[str] = []
    contexts = []

    def open_page(**options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(written.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert {url for url in requests if not url.startswith("data:")} == {written.as_uri()}


def test_pictures_load_and_say_what_they_are(opened: Callable[..., Any]) -> None:
    page = opened()
    images = page.eval_on_selector_all(
        "img", "all => all.map(one => [one.complete, one.naturalWidth, one.alt.trim()])"
    )
    assert images
    for complete, width, text in images:
        assert complete
        assert width > 0
        assert text
    plots = page.eval_on_selector_all("svg.plot", "all => all.map(one => one.ariaLabel)")
    assert all(plots)  # a page of repaired photographs has none


def test_sliders_move(opened: Callable[..., Any]) -> None:
    page = opened()
    sliders = page.locator(".slider")
    if sliders.count() == 0:
        assert page.locator("img.pixels").count() > 0  # a page of images with nothing to compare
        return
    slider = sliders.first
    left, handle, range_input = (slider.locator(part) for part in ("img.left", ".handle", "input"))
    slider.evaluate("one => one.scrollIntoView({block: 'start', behavior: 'instant'})")

    def cut() -> float:
        """Where the handle is, as a share of the width."""
        box, whole = handle.bounding_box(), slider.bounding_box()
        return float((box["x"] + box["width"] / 2 - whole["x"]) / whole["width"])

    assert cut() == pytest.approx(0.5, abs=0.02)
    clipped = left.evaluate("one => getComputedStyle(one).clipPath")
    box = slider.bounding_box()
    y = box["y"] + 0.1 * box["height"]
    page.mouse.move(box["x"] + 0.5 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], y, steps=4)
    page.mouse.up()
    assert cut() == pytest.approx(0.2, abs=0.05)
    assert left.evaluate("one => getComputedStyle(one).clipPath") != clipped
    before = cut()
    range_input.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert cut() == pytest.approx(before + 0.05, abs=0.01)


@pytest.mark.parametrize("width", [PHONE["width"], 1280])
def test_pictures_fit_the_window(opened: Callable[..., Any], width: int) -> None:
    page = opened(viewport={"width": width, "height": 740})
    for slider in page.locator(".slider").all():
        box = slider.bounding_box()
        assert 44 <= box["height"] <= 0.9 * 740
        assert 200 <= box["width"] <= width
        sizes = slider.locator("img").evaluate_all(
            "all => all.map(one => [one.clientWidth, one.clientHeight])"
        )
        # Both lie exactly over each other, or the border would show different places.
        assert sizes[0] == sizes[1] == [round(box["width"]), round(box["height"])]


@pytest.mark.parametrize("width", [PHONE["width"], 1280])
def test_labels_of_plots_do_not_touch(opened: Callable[..., Any], width: int) -> None:
    page = opened(viewport={"width": width, "height": 740})
    for plot in page.locator("svg.plot").all():
        boxes = plot.locator("text").evaluate_all(
            """all => all.map(one => one.getBoundingClientRect())
                          .map(box => [box.left, box.right, box.top, box.bottom])"""
        )
        assert len(boxes) > 4
        for index, (left, right, top, bottom) in enumerate(boxes):
            assert 7 < min(right - left, bottom - top) < 30 or right - left < 7 < bottom - top
            for other in boxes[:index]:
                is_beside = right < other[0] or other[1] < left
                is_above = bottom - 2 < other[2] or other[3] - 2 < top  # rows of text have air
                assert is_beside or is_above


def test_versions_can_be_chosen(opened: Callable[..., Any]) -> None:
    page = opened()
    for choices in page.locator(".choices").all():
        slider = page.locator(f"#{choices.get_attribute('data-slider')}")
        for side in ("left", "right"):
            for label in choices.locator(f"fieldset[data-side={side}] label").all():
                label.click()
                version = label.locator("input").get_attribute("value")
                shown = slider.locator(f"img.{side}")
                assert shown.get_attribute("src") == page.locator(f"#{version}").get_attribute(
                    "src"
                )
                name = label.inner_text().strip()
                assert shown.get_attribute("alt") == name
                assert slider.locator(f".label.{side[0]}").inner_text() == name


def test_tables_sort(opened: Callable[..., Any]) -> None:
    page = opened()
    for table in page.locator("table.sortable").all():
        for column, header in enumerate(table.locator("thead th").all()):
            for direction in ("ascending", "descending"):
                while header.get_attribute("aria-sort") != direction:
                    header.locator("button").click()
                values = table.locator("tbody tr").evaluate_all(
                    """(rows, column) => rows.map(row => {
                        const cell = row.cells[column];
                        return cell.dataset.value ?? cell.textContent.trim();
                    })""",
                    column,
                )
                assert len(values) > 1
                try:
                    keys: list[Any] = [float(value) for value in values]
                except ValueError:
                    keys = [value.casefold() for value in values]
                assert keys == sorted(keys, reverse=direction == "descending")
            assert table.locator("thead th[aria-sort]").count() == 1


def test_light_and_dark(opened: Callable[..., Any]) -> None:
    page = opened(color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.locator("button.theme").click()
    dark = page.evaluate(paper)
    assert light != dark
    assert opened(color_scheme="dark").evaluate(paper) == dark


def test_readable_on_a_phone(opened: Callable[..., Any]) -> None:
    page = opened(viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True)
    # What is wider than the screen moves within a box of its own.
    outside = page.evaluate(
        """width => [...document.querySelectorAll("main *, .top *, .foot *")].filter(one => {
            const box = one.getBoundingClientRect();
            return box.width > 1 && box.right > width + 1 && !one.closest(".scroll, .strip");
        }).map(one => one.outerHTML.slice(0, 200))""",
        PHONE["width"],
    )
    assert outside == []
    captions = page.locator("caption").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert all(right <= PHONE["width"] for right in captions)
    tracks = page.locator(".track").evaluate_all(
        "all => all.map(one => [one.scrollWidth - one.clientWidth, one.clientHeight])"
    )
    assert all(beyond <= 0 and height < 30 for beyond, height in tracks)  # one line each
    assert page.evaluate("innerWidth") == PHONE["width"]  # phones zoom out for what is wider
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    small = page.evaluate(
        """smallest => [...document.querySelectorAll("main *, .top *, .foot *")].filter(one =>
            !one.closest("svg") &&
            [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()) &&
            parseFloat(getComputedStyle(one).fontSize) < smallest
        ).map(one => one.outerHTML.slice(0, 200))""",
        SMALLEST_TEXT,
    )
    assert small == []
