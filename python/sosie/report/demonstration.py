# SPDX-License-Identifier: Apache-2.0
"""The page of the demonstration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import sosie
from sosie.report.page import data_uri, render
from sosie.report.pictures import (
    COLOUR_SCALE_STOPS,
    encode_heat_map,
    encode_picture,
    scale_floor,
)
from sosie.report.plots import loss_curve
from sosie.zoo.demonstration import MEASURED
from sosie.zoo.photographs import CREDITS

if TYPE_CHECKING:
    from sosie.comparison.measures import Measure
    from sosie.zoo.demonstration import Demonstration, Repair

__all__ = ["demonstration_html"]


def demonstration_html(demonstration: Demonstration) -> str:
    """Self-contained page: pictures to compare, numbers, loss curve, times of a step."""
    maps = [_similarity_maps(repair) for repair in demonstration.repairs]
    floor = scale_floor([similarity for group in maps for similarity in group.values()])
    photographs = [
        _photograph(repair, group, floor)
        for repair, group in zip(demonstration.repairs, maps, strict=True)
    ]
    return render(
        "demonstration.html.j2",
        title="sosie: photographs repaired",
        version=sosie.__version__,
        shown=demonstration,
        measures=MEASURED,
        photographs=photographs,
        gain=_mean_gain(demonstration),
        curve=loss_curve(demonstration.losses),
        times=_bars(demonstration),
        floor=floor,
        stops=COLOUR_SCALE_STOPS,
    )


def _similarity_maps(repair: Repair) -> dict[str, Any]:
    """SSIM map of each version against the original, averaged over channels."""
    return {
        name: sosie.ssim(picture, repair.original, channel_axis=-1, return_map=True)[1].mean(-1)
        for name, picture in repair.versions.items()
    }


def _photograph(repair: Repair, maps: dict[str, Any], floor: float) -> dict[str, Any]:
    pictures = [
        {
            "name": name,
            "id": f"{repair.name.partition('.')[0]}-{number}",
            "source": data_uri(encode_picture(picture)),
            "map": data_uri(encode_heat_map(maps[name], floor)) if name in maps else None,
            "values": repair.values.get(name),
        }
        for number, (name, picture) in enumerate(
            {**repair.versions, "original": repair.original}.items()
        )
    ]
    best = {
        measure.name: (max if measure.higher_is_better else min)(
            values[measure.name] for values in repair.values.values()
        )
        for measure in MEASURED
    }
    height, width = repair.original.shape[:2]
    return {
        "id": repair.name.partition(".")[0],
        "credit": CREDITS[repair.name],
        "width": width,
        "height": height,
        "pictures": pictures,
        "best": best,
    }


def _mean_gain(demonstration: Demonstration) -> dict[str, tuple[str, str]]:
    """Mean over photographs of each measure, damaged and repaired, as text."""

    def mean(measure: Measure, version: str) -> str:
        values = [repair.values[version][measure.name] for repair in demonstration.repairs]
        return measure.text(float(np.mean(values)))

    return {
        measure.name: (mean(measure, "damaged"), mean(measure, "repaired")) for measure in MEASURED
    }


def _bars(demonstration: Demonstration) -> list[dict[str, Any]]:
    """Rows of the two bar charts: milliseconds, and the share of the longest."""
    times = demonstration.times
    charts = (
        ("One training step", times.step),
        ("The loss and its gradient alone", times.loss),
    )
    labels = {"sosie": "sosie", "composed": "plain torch operations"}
    return [
        {
            "title": title,
            "ratio": milliseconds["composed"] / milliseconds["sosie"],
            "rows": [
                {
                    "label": labels[name],
                    "ours": name == "sosie",
                    "milliseconds": value,
                    "share": 100 * value / max(milliseconds.values()),
                }
                for name, value in milliseconds.items()
            ],
        }
        for title, milliseconds in charts
    ]
