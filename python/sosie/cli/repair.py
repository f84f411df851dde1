# SPDX-License-Identifier: Apache-2.0
"""``sosie repair``: whole photographs, by a trained network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sosie.cli.models import (
    REPAIRERS,
    DeviceOption,
    JSONOption,
    OverwriteOption,
    WeightsOption,
    open_model,
    say_failures,
    wrote,
)
from sosie.cli.terminal import fail, make_folder, messages, print_table, progress, results
from sosie.comparison.pairs import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from sosie.report.repair import RepairPage
    from sosie.zoo.inference.repair import Tiling
    from sosie.zoo.inference.repair_files import Failure, Job, Repaired
    from sosie.zoo.model import RepairModel

__all__ = ["repair"]

_REPORT = "report.html"


def repair(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{REPAIRERS}.")],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", help="Files, and folders that are searched to any depth."),
    ],
    *,
    weights: WeightsOption = "default",
    mask: Annotated[
        Path | None,
        typer.Option(
            help="What is missing, in white: a file for all images, or a folder with a mask of the "
            "same name for each.",
            show_default=False,
            exists=True,
        ),
    ] = None,
    keep_known: Annotated[
        bool,
        typer.Option(
            "--keep-known", help="Leave pixels as they are that are not missing by the mask."
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Folder for the repaired images and a report.", file_okay=False)
    ] = Path("repaired"),
    tile: Annotated[int, typer.Option(metavar="N", help="Side of the tiles.", min=8)] = 256,
    overlap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Pixels that neighbouring tiles share.  "
            "[default: twice the network's reach, but at most 64 or a quarter of a tile]",
            show_default=False,
            min=0,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Tiles repaired at a time.", min=1)] = 4,
    most_megapixels: Annotated[
        float,
        typer.Option(
            metavar="N", help="Larger images are refused; memory is about 8 bytes a pixel."
        ),
    ] = 500.0,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "cpu",
    as_json: JSONOption = False,
) -> None:
    """Repair photographs of any size with a trained network.

    Noise, blur, rain, missing pixels: sosie weights MODEL says what it has learned.
    Results are PNG files of the same name, upright, as deep as the image (8 or 16 bits), with its
    alpha, colour profile, EXIF data and resolution. Palettes, CMYK and the like are converted, and
    a note says so. The folder gets a page with all images before and after, report.html.

    An image that is broken, animated, too large, has a mask of another size, or whose result exists
    already, is named with its reason; the others are repaired all the same, and the exit status is
    1.

    Example: sosie repair repair_cnn photos/ --out repaired/
    """
    if not 0 < most_megapixels < float("inf"):
        raise typer.BadParameter(f"expected positive --most-megapixels, got {most_megapixels}")
    if keep_known and mask is None:
        raise typer.BadParameter("expected --mask, which says what is known, with --keep-known")
    # torch takes a second or two to import: not before the arguments are known to be good.
    from sosie.zoo.inference.repair import Tiling
    from sosie.zoo.inference.repair_files import plan
    from sosie.zoo.model import RepairModel

    try:
        tiling = Tiling(tile, overlap, batch)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    network = open_model(model, weights, (RepairModel,), device)
    jobs, failures = plan(images, mask, out, overwrite=overwrite)
    is_new = make_folder(out)
    repaired = _run(
        network, weights, jobs, failures, tiling, keep_known, most_megapixels, out, overwrite
    )
    if repaired or as_json:
        _print(network, weights, repaired, failures, as_json)
    say_failures([(failure.name, failure.reason) for failure in failures])
    if not repaired:
        if is_new:
            out.rmdir()
        fail("no image could be repaired; nothing was written")
    wrote(out)
    if failures:
        raise typer.Exit(1)


def _run(
    model: RepairModel,
    weights: str,
    jobs: list[Job],
    failures: list[Failure],
    tiling: Tiling,
    keep_known: bool,
    most_megapixels: float,
    out: Path,
    overwrite: bool,
) -> list[Repaired]:
    """What was repaired; what was not is added to the failures. Ends in a report."""
    import numpy as np

    from sosie.report.repair import RepairPage, picture_side
    from sosie.zoo.inference.repair_files import Repaired, repair_files

    page, repaired = RepairPage(model, weights, tiling, len(jobs)), []
    nothing = np.empty(0, np.uint8)
    tasks: dict[str, TaskID] = {}
    with progress() as bars:
        every = bars.add_task("images", total=len(jobs), note="")

        def watch(job: Job, done: int, total: int) -> None:
            if job.name not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
                tasks[job.name] = bars.add_task("tiles", total=total, note=job.name)
            bars.update(tasks[job.name], completed=done)

        for outcome in repair_files(
            model,
            jobs,
            tiling,
            most_pixels=round(1e6 * most_megapixels),
            longest_side=2 * picture_side(len(jobs)),
            keep_known=keep_known,
            watch=watch,
        ):
            bars.advance(every)
            if isinstance(outcome, Repaired):
                page.add(outcome)
                repaired.append(replace(outcome, before=nothing, after=nothing))
            else:
                failures.append(outcome)
    if repaired:
        _write_report(page, out / _REPORT, failures, overwrite)
    return repaired


def _write_report(page: RepairPage, path: Path, failures: list[Failure], overwrite: bool) -> None:
    from sosie.report.page import write_atomically
    from sosie.zoo.inference.repair_files import Failure

    if path.exists() and not overwrite:
        reason = f"{printable(path)} exists; --overwrite replaces it"
        failures.append(Failure(_REPORT, reason))
        return
    try:
        write_atomically(path, page.html(failures))
    except OSError as error:
        reason = f"{printable(path)} could not be written: {error.strerror or error}"
        failures.append(Failure(_REPORT, reason))


def _print(
    model: RepairModel,
    weights: str,
    repaired: list[Repaired],
    failures: list[Failure],
    as_json: bool,
) -> None:
    if as_json:
        from sosie.report.repair import repair_json

        record = repair_json(model, weights, repaired, failures)
        results.out(json.dumps(record, indent=2, ensure_ascii=False), highlight=False)
        return
    table = Table(header_style="bold")
    table.add_column("image", overflow="fold", min_width=12)
    has_masks = any(each.missing is not None for each in repaired)
    for title in ("pixels", "kind", *(["missing"] if has_masks else []), "change", "seconds"):
        table.add_column(title, justify="right", no_wrap=title != "kind")
    for each in repaired:
        missing = "" if each.missing is None else f"{each.missing:.1%}"
        table.add_row(
            Text(each.job.name),
            f"{each.width} x {each.height}",
            each.kind,
            *([missing] if has_masks else []),
            f"{each.change:.2%}",
            f"{each.seconds:.2f}",
        )
    print_table(table)
    for each in repaired:
        for note in each.notes:
            messages.print(
                f"{each.job.name}: {note}", markup=False, highlight=False, soft_wrap=True
            )
