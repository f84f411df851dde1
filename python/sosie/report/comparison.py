# SPDX-License-Identifier: Apache-2.0
"""A comparison of images as CSV, as JSON and as an HTML page."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

import sosie
from sosie.comparison.measures import MEASURES, Measure
from sosie.comparison.pairs import printable
from sosie.comparison.run import data_range_of, read_pair
from sosie.report.page import data_uri, render
from sosie.report.pictures import (
    COLOUR_SCALE_STOPS,
    encode_heat_map,
    encode_picture,
    scale_floor,
    to_8_bit,
)
from sosie.report.plots import distribution

if TYPE_CHECKING:
    from markupsafe import Markup

    from sosie.comparison.run import Comparison, Options, Result

__all__ = ["comparison_csv", "comparison_html", "comparison_json"]

Pixels = np.ndarray[Any, np.dtype[Any]]

#: Pairs shown as pictures on a page; a table lists the others.
_CARDS = 48
#: Up to this many pairs, pictures are shown pixel by pixel unless larger than `_FULL_SIDE`.
_FEW, _FULL_SIDE, _REDUCED_SIDE = 4, 1600, 480


def comparison_csv(comparison: Comparison) -> str:
    """One line per pair, then one per failure, with the reason in the last column.

    Numbers are written with all their digits; ``inf`` and ``nan`` as such.
    """
    names = [measure.name for measure in comparison.options.measures]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "a", "b", "width", "height", "kind", *names, "error"])
    for result in comparison.results:
        values = [repr(result.values[name]) for name in names]
        pair = result.pair
        facts = [pair.name, printable(pair.a), printable(pair.b), result.width, result.height]
        writer.writerow([*facts, result.kind, *values, ""])
    for failure in comparison.failures:
        writer.writerow([failure.name, *[""] * (5 + len(names)), failure.reason])
    return buffer.getvalue()


def comparison_json(comparison: Comparison, a: str, b: str) -> str:
    """Everything as one JSON object: measures, pairs, summary, failures.

    Values that JSON has no number for become null: PSNR of equal images is infinite.
    """
    options = comparison.options
    document = {
        "sosie": sosie.__version__,
        "a": a,
        "b": b,
        "data_range": options.data_range,
        "measures": [
            {
                "name": measure.name,
                "unit": measure.unit,
                "higher_is_better": measure.higher_is_better,
                "spec": measure.spec(options.spec) or None,
            }
            for measure in options.measures
        ],
        "pairs": [
            {
                "name": result.pair.name,
                "a": printable(result.pair.a),
                "b": printable(result.pair.b),
                "width": result.width,
                "height": result.height,
                "kind": result.kind,
                "values": result.values,
            }
            for result in comparison.results
        ],
        "summary": {
            measure.name: asdict(comparison.summary(measure)) for measure in options.measures
        },
        "failures": [asdict(failure) for failure in comparison.failures],
    }
    return json.dumps(_without_infinities(document), indent=2, ensure_ascii=False) + "\n"


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinities(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_without_infinities(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def comparison_html(comparison: Comparison, a: str, b: str) -> str:
    """A page with the summary, the least similar pairs as pictures, distributions and a table.

    Reads the files of the pairs it shows once more.
    """
    options = comparison.options
    shown = comparison.worst_first()[:_CARDS]
    longest_side = _FULL_SIDE if len(comparison.results) <= _FEW else _REDUCED_SIDE
    pictures = [_pictures(result, options, longest_side) for result in shown]
    maps = [picture.similarity for picture in pictures if picture.similarity is not None]
    floor = scale_floor(maps) if maps else 0.0
    return render(
        "comparison.html.j2",
        title=f"{a} and {b}, compared",
        heading=_heading(a, b),
        version=sosie.__version__,
        a=a,
        b=b,
        count=len(comparison.results),
        tiles=[_tile(comparison, measure) for measure in options.measures],
        failures=comparison.failures,
        cards=[_card(picture, floor, longest_side) for picture in pictures],
        has_maps=bool(maps),
        reduced=any(picture.reduced for picture in pictures),
        floor=floor,
        stops=COLOUR_SCALE_STOPS,
        plots=_plots(comparison, maps),
        results=comparison.results,
        number=lambda value: (
            value if math.isfinite(value) else ("1e999" if value > 0 else "-1e999")
        ),
    )


def _heading(a: str, b: str) -> str:
    names = [PurePath(path).name or path for path in (a, b)]
    return names[0] if names[0] == names[1] else " and ".join(names)


@dataclass(frozen=True)
class _Pictures:
    """Both images of a pair as files for a page, and their similarity map."""

    result: Result
    a: bytes
    b: bytes
    similarity: Pixels | None
    reduced: bool


def _pictures(result: Result, options: Options, longest_side: int) -> _Pictures:
    a, b = read_pair(result.pair)
    data_range = data_range_of(a, options)
    similarity = None
    if any(measure.name == "ssim" for measure in options.measures):
        similarity = _similarity_map(a.pixels, b.pixels, data_range, options)
    file_a, file_b = (
        encode_picture(to_8_bit(picture.pixels, data_range), longest_side) for picture in (a, b)
    )
    reduced = max(result.width, result.height) > longest_side
    return _Pictures(result, file_a, file_b, similarity, reduced)


def _similarity_map(a: Pixels, b: Pixels, data_range: float, options: Options) -> Pixels:
    """SSIM at each position, averaged over channels, ``(H', W')``."""
    colour = a.ndim == 3
    _, similarity = sosie.ssim(
        a,
        b,
        data_range=data_range,
        spec=MEASURES["ssim"].spec(options.spec),
        channel_axis=-1 if colour else None,
        return_map=True,
    )
    plane: Pixels = similarity.mean(axis=-1) if colour else similarity
    return plane


def _card(pictures: _Pictures, floor: float, longest_side: int) -> dict[str, Any]:
    return {
        "result": pictures.result,
        "width": pictures.result.width,
        "height": pictures.result.height,
        "a": data_uri(pictures.a),
        "b": data_uri(pictures.b),
        "map": None
        if pictures.similarity is None
        else data_uri(encode_heat_map(pictures.similarity, floor, longest_side)),
    }


def _tile(comparison: Comparison, measure: Measure) -> dict[str, Any]:
    summary = asdict(comparison.summary(measure))
    texts = {name: measure.text(value) for name, value in summary.items()}
    return {"measure": measure, "spec": measure.spec(comparison.options.spec), **texts}


def _plots(comparison: Comparison, maps: list[Pixels]) -> list[Markup]:
    """Distributions over the pairs; of a single pair, of its SSIM map."""
    if len(comparison.results) == 1:
        return [
            distribution(
                similarity,
                label="SSIM at each position",
                counted="positions",
                mark=float(similarity.mean()),
                mark_label=f"mean {similarity.mean():.3f}",
            )
            for similarity in maps
        ]
    plots = []
    for measure in comparison.options.measures:
        mean = comparison.summary(measure).mean
        unit = f"{measure.unit}, " if measure.unit else ""
        plots.append(
            distribution(
                [result.values[measure.name] for result in comparison.results],
                label=f"{measure.title} ({unit}{measure.direction})",
                counted="pairs",
                mark=mean,
                mark_label=f"mean {measure.text(mean)}",
            )
        )
    return plots
