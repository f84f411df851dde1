# SPDX-License-Identifier: Apache-2.0
"""``sosie compare``: two images, or two folders of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sosie.cli.terminal import DIRECTIONS, fail, heading, messages, print_table, progress
from sosie.comparison import MEASURES, Comparison, compare_pairs, match
from sosie.comparison.engines import ENGINES
from sosie.comparison.kept import compare_and_keep
from sosie.comparison.pairs import printable
from sosie.comparison.run import Options
from sosie.report.comparison import comparison_csv, comparison_html, comparison_json
from sosie.report.page import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    from sosie.comparison import Pair, Unmatched

__all__ = ["compare"]

_STANDARD_OUTPUT = Path("-")


def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="An image, or a folder.", show_default=False)
    ],
    b: Annotated[
        Path,
        typer.Argument(
            metavar="B", help="The image or folder to compare it with.", show_default=False
        ),
    ],
    measures: Annotated[
        str, typer.Option(help=f"Comma-separated, out of: {', '.join(MEASURES)}.")
    ] = "ssim,psnr,mse",
    spec: Annotated[
        str | None,
        typer.Option(
            help="Convention of SSIM and MS-SSIM, for example scikit-image.  "
            "[default: wang2004, wang2003]",
            show_default=False,
        ),
    ] = None,
    data_range: Annotated[
        float | None,
        typer.Option(
            help="Range of pixel values; needed for floating-point images.  "
            "[default: 255 or 65535, by the files' depth]",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write a CSV file, or - for standard output.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write a JSON file, or - for standard output.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a self-contained page with pictures and SSIM maps.")
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            help="Keep results in this folder of Parquet files as they come, and go on from those "
            "that are there."
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help=f"Who compares: {' or '.join(ENGINES)}. With ray, --parquet is needed."),
    ] = "threads",
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Pairs compared at a time.  [default: processors]", min=1, show_default=False
        ),
    ] = None,
) -> None:
    """Compare two images, or the images of two folders by name.

    Folders are searched to any depth. Files of equal relative path are pairs; files left over pair
    up if their paths differ in the extension alone. A file without a partner, a broken file and a
    pair that differs in size, depth or channels is named with its reason; the others are compared
    all the same, and the exit status is 1. If no pair could be compared, nothing is written.

    Colour: SSIM is averaged over the channels, errors over all samples. Alpha counts as a channel,
    unless it is opaque everywhere. Palette images are compared by their colours.

    Large collections: with --parquet, a run that was stopped goes on where it was, and the files of
    several such folders can be copied into one. The engine ray works on the cluster that
    RAY_ADDRESS names, whose machines have to see images and results under the same paths, or else
    on this machine.
    """
    outputs = {"--csv": csv, "--json": json, "--html": html}
    _check_outputs(outputs)
    options = _options(measures, spec, data_range)
    _check_engine(engine, parquet)
    try:
        pairs, unmatched = match(a, b)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with progress() as bar:
        task = bar.add_task("comparing", total=len(pairs), note="")
        if parquet is None:
            comparison = compare_pairs(
                pairs, unmatched, options, jobs=jobs, on_done=lambda: bar.advance(task)
            )
        else:
            comparison = _compare_and_keep(
                pairs, unmatched, options, parquet, engine, jobs, lambda n: bar.advance(task, n)
            )
    if comparison.results:
        name_a, name_b = printable(a), printable(b)
        if _STANDARD_OUTPUT not in outputs.values():
            _print_table(comparison)
        _write(
            (csv, lambda: comparison_csv(comparison)),
            (json, lambda: comparison_json(comparison, name_a, name_b)),
            (html, lambda: comparison_html(comparison, name_a, name_b)),
        )
    _report_failures(comparison)


def _check_outputs(outputs: dict[str, Path | None]) -> None:
    given = [path for path in outputs.values() if path is not None]
    if len({path.resolve() for path in given}) < len(given):
        raise typer.BadParameter("expected a different file for each output")
    for option, path in outputs.items():
        if path is not None and path.is_dir():
            raise typer.BadParameter(f"expected {option} to be a file, got the folder {path}")
    if outputs["--html"] == _STANDARD_OUTPUT:
        raise typer.BadParameter("expected --html to be a file, got -")


def _options(names: str, spec: str | None, data_range: float | None) -> Options:
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in MEASURES]
    if unknown or not wanted:
        raise typer.BadParameter(
            f"expected measures out of {', '.join(MEASURES)}, got {', '.join(unknown) or 'none'}"
        )
    if data_range is not None and not 0 < data_range < float("inf"):
        raise typer.BadParameter(f"expected a positive --data-range, got {data_range}")
    measures = tuple(MEASURES[name] for name in dict.fromkeys(wanted))
    try:
        for measure in measures:
            measure.spec(spec)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return Options(measures, spec, data_range)


def _check_engine(engine: str, parquet: Path | None) -> None:
    if engine not in ENGINES:
        raise typer.BadParameter(f"expected --engine out of {', '.join(ENGINES)}, got {engine}")
    if engine != "threads" and parquet is None:
        raise typer.BadParameter(f"--engine {engine} needs --parquet, where workers put results")


def _compare_and_keep(
    pairs: list[Pair],
    unmatched: list[Unmatched],
    options: Options,
    folder: Path,
    engine: str,
    jobs: int | None,
    on_done: Callable[[int], None],
) -> Comparison:
    try:
        return compare_and_keep(
            pairs, unmatched, options, folder, engine=engine, jobs=jobs, on_done=on_done
        )
    except (ValueError, OSError) as error:
        fail(str(error))


def _print_table(comparison: Comparison) -> None:
    options = comparison.options
    table = Table(header_style="bold", caption=DIRECTIONS, caption_justify="left")
    table.add_column("pair", overflow="fold", min_width=12)
    for measure in options.measures:
        spec = measure.spec(options.spec)
        # Many measures need narrow columns: a word a line, the arrow with the last.
        *words, arrow = heading(measure).split()
        lines = "\n".join([*words, spec] if spec else words)
        table.add_column(f"{lines} {arrow}", justify="right", no_wrap=True)
    for result in comparison.results:
        values = (measure.text(result.values[measure.name]) for measure in options.measures)
        table.add_row(Text(result.pair.name), *values)
    if len(comparison.results) > 1:
        table.add_section()
        summaries = [(measure, comparison.summary(measure)) for measure in options.measures]
        for name in ("mean", "median", "minimum", "maximum"):
            values = (measure.text(getattr(summary, name)) for measure, summary in summaries)
            table.add_row(f"{name} of {len(comparison.results)}", *values, style="bold")
    print_table(table)


def _write(*outputs: tuple[Path | None, Callable[[], str]]) -> None:
    """Make all texts first, so that a failure leaves no file behind."""
    texts = [(path, make()) for path, make in outputs if path is not None]
    for path, text in texts:
        if path == _STANDARD_OUTPUT:
            sys.stdout.write(text)
            continue
        try:
            write_atomically(path, text)
        except OSError as error:
            fail(f"{printable(path)} could not be written: {error.strerror or error}")
        messages.print(f"wrote {printable(path)}", markup=False, highlight=False, soft_wrap=True)


def _report_failures(comparison: Comparison) -> None:
    for failure in comparison.failures:
        messages.print(
            f"{failure.name}: {failure.reason}",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if not comparison.results:
        fail("no pair of images could be compared; nothing was written")
    if comparison.failures:
        raise typer.Exit(1)
