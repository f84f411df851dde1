# SPDX-License-Identifier: Apache-2.0
"""``sosie generate``: new images of a trained model, as files or as one picture."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sosie.cli.models import (
    GENERATORS,
    DeviceOption,
    JSONOption,
    OverwriteOption,
    WeightsOption,
    open_model,
    say_failures,
    wrote,
)
from sosie.cli.terminal import fail, make_folder, print_table, progress, results
from sosie.comparison.pairs import printable

if TYPE_CHECKING:
    from sosie.zoo.model import Model

__all__ = ["generate"]


def generate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{GENERATORS}.")],
    *,
    weights: WeightsOption = "default",
    count: Annotated[
        int,
        typer.Option(
            "-n", "--count", metavar="N", help="Images, or ways from code to code.", min=1
        ),
    ] = 64,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Equal seeds give equal images.", min=0)
    ] = 0,
    interpolate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images along each way from one random code to another.",
            show_default=False,
            min=2,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Folder for numbered PNG files, or a file .png for all in one picture."),
    ] = Path("generated"),
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    as_json: JSONOption = False,
) -> None:
    """Make new images with a trained GAN or autoencoder.

    An image depends on the seed and on its own number, not on how many others there are. Beside
    the images, a page shows them all and how they spread, report.html.

    Example: sosie generate gan_dcgan -n 64 --seed 1 --out images/
    """
    from sosie.comparison.files import is_image_name
    from sosie.zoo.model import AdversarialPair, Autoencoder

    is_grid = out.suffix.lower() == ".png" and not out.is_dir()
    if not is_grid and is_image_name(out) and not out.is_dir():
        raise typer.BadParameter(f"expected --out to be a folder, or to end in .png, got {out}")
    names = _names(count, interpolate)
    folder = out.parent if is_grid else out
    targets = [out] if is_grid else [folder / f"{name}.png" for name in names]
    report = folder / "report.html"
    network = open_model(model, weights, (AdversarialPair, Autoencoder), device)
    if not overwrite:
        _refuse_existing([*targets, report])
    make_folder(folder)
    start = time.perf_counter()
    images = _images(network, count, interpolate, seed)
    seconds = time.perf_counter() - start
    contents = [_grid(images, interpolate)] if is_grid else _files(images)
    from sosie.report.generation import generation_html, generation_json

    html = generation_html(
        network, weights, images, names, steps=interpolate, seed=seed, seconds=seconds
    )
    failures = _write(zip(targets, contents, strict=True))
    failures += _write([(report, html.encode())])
    record = generation_json(network, weights, images, names)
    if as_json:
        results.out(json.dumps({**record, "seed": seed, "seconds": seconds}, indent=2))
    else:
        _print(record, seconds)
    say_failures(failures)
    if len(failures) > len(targets):
        fail("nothing was written")
    wrote(out)
    if failures:
        raise typer.Exit(1)


def _names(count: int, steps: int | None) -> list[str]:
    """Numbers from 1 on, of equal width; of a way and of a step along it."""
    wide = max(4, len(str(count)))
    numbers = [f"{number:0{wide}}" for number in range(1, count + 1)]
    if steps is None:
        return numbers
    return [f"{number}-{step:02}" for number in numbers for step in range(1, steps + 1)]


def _refuse_existing(paths: list[Path]) -> None:
    existing = [path for path in paths if path.exists()]
    if len(existing) == 1:
        fail(f"{printable(existing[0])} exists; --overwrite replaces it")
    if existing:
        more = len(existing) - 1
        fail(f"{printable(existing[0])} and {more} more exist; --overwrite replaces them")


def _images(model: Model, count: int, steps: int | None, seed: int) -> Any:
    """All images (N, H, W, C), along ways one way after the other."""
    from sosie.zoo import generate_images, interpolate_images

    with progress() as bars:
        task = bars.add_task("generating", total=count * (steps or 1), note="")

        def advance(more: int) -> None:
            bars.advance(task, more)

        if steps is None:
            return generate_images(model, count, seed=seed, on_images=advance)
        try:
            ways = interpolate_images(model, count, steps, seed=seed, on_images=advance)
        except ValueError as error:
            fail(str(error))
        return ways.reshape(-1, *ways.shape[2:])


def _grid(images: Any, steps: int | None) -> bytes:
    from sosie.report.generation import grid_file, in_rows

    grid = in_rows(images) if steps is None else images.reshape(-1, steps, *images.shape[1:])
    return grid_file(grid)


def _files(images: Any) -> Any:
    from sosie.zoo.training.records import picture

    return map(picture, images)


def _write(files: Any) -> list[tuple[str, str]]:
    """Write files; those that cannot be written, with the reason."""
    from sosie.zoo.files import write_bytes

    failures = []
    for path, content in files:
        try:
            write_bytes(path, content)
        except OSError as error:
            failures.append((printable(path), f"could not be written: {error.strerror or error}"))
    return failures


def _print(record: dict[str, Any], seconds: float) -> None:
    rows = record["images"]
    table = Table(header_style="bold")
    table.add_column(f"{len(rows)} images by {record['model']}")
    table.add_column("", justify="right")
    for name in ("brightness", "contrast"):
        values = [row[name] for row in rows]
        table.add_row(f"{name}, mean", f"{sum(values) / len(values):.3f}")
    distances = [row["distance"] for row in rows if row["distance"] is not None]
    if distances:
        table.add_row("RMS distance of the nearest pair", f"{min(distances):.4f}")
    table.add_row("seconds", f"{seconds:.2f}")
    print_table(table)
