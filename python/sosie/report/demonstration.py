# SPDX-License-Identifier: Apache-2.0
"""The demonstration's outcome as an HTML page and as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

import sosie
from sosie.report.evaluation import image_grid
from sosie.report.page import data_uri, render
from sosie.report.pictures import COLOUR_SCALE_STOPS, encode_heat_map, encode_picture
from sosie.report.plots import loss_curve
from sosie.zoo.demonstration import DAMAGED, JUDGES, METHODS, NETWORK, NON_LOCAL, PLAIN, SOSIE
from sosie.zoo.evaluation.generation import GENERATED

if TYPE_CHECKING:
    from sosie.zoo.demonstration import Outcome, Photograph
    from sosie.zoo.demonstration_generator import Generator

__all__ = ["demonstration_html", "demonstration_json"]


def demonstration_json(outcome: Outcome) -> dict[str, Any]:
    """Every number of the outcome, ready for ``json.dumps``."""
    return {
        "sosie": sosie.__version__,
        "torch": torch.__version__,
        "threads": outcome.threads,
        "settings": asdict(outcome.settings),
        "steps": outcome.steps,
        "parameters": outcome.parameters,
        "training_seconds": outcome.training_seconds,
        "losses": outcome.losses,
        "photographs": {
            photograph.name: {repair.method: repair.values for repair in photograph.repairs}
            for photograph in outcome.photographs
        },
        "step_seconds": {name: asdict(times) for name, times in outcome.times.items()},
        "generator": _generator_record(outcome.generator),
    }


def _generator_record(generator: Generator) -> dict[str, Any]:
    matches = generator.evaluation.matches
    return {
        "model": generator.model,
        "parameters": generator.parameters,
        "steps": generator.steps,
        "training_seconds": generator.seconds,
        "losses": generator.losses,
        "images": generator.evaluation.count,
        "matches": [{**asdict(match), "prdc": match.prdc._asdict()} for match in matches],
    }


def demonstration_html(outcome: Outcome) -> str:
    """A page: the photographs with a slider, tables, the loss curve, the step times."""
    ours, plain = outcome.times[SOSIE], outcome.times[PLAIN]
    return render(
        "demonstration.html.j2",
        title="Two photographs, repaired",
        version=sosie.__version__,
        torch_version=torch.__version__,
        outcome=outcome,
        settings=outcome.settings,
        judges=JUDGES,
        damaged=DAMAGED,
        baseline=NON_LOCAL,
        network=NETWORK,
        photographs=[_photograph(photograph) for photograph in outcome.photographs],
        summary=[
            (method, {judge.name: outcome.mean(method, judge.name) for judge in JUDGES})
            for method in METHODS
        ],
        stops=COLOUR_SCALE_STOPS,
        curve=loss_curve(outcome.losses),
        generator=outcome.generator,
        generator_curve=loss_curve(outcome.generator.losses),
        generated=GENERATED,
        grids=[
            ("made up", image_grid(outcome.generator.evaluation.samples)),
            ("real, never seen", image_grid(outcome.generator.evaluation.real)),
        ],
        ours=ours,
        plain=plain,
        longest_step=max(ours.step, plain.step),
    )


def _photograph(photograph: Photograph) -> dict[str, Any]:
    height, width = photograph.original.shape[:2]
    stem = photograph.name.partition(".")[0]
    versions = [
        {
            "id": f"{stem}-{index}",
            "method": repair.method,
            "values": repair.values,
            "picture": data_uri(encode_picture(repair.pixels)),
            "map": data_uri(encode_heat_map(_similarity_map(repair.pixels, photograph.original))),
        }
        for index, repair in enumerate(photograph.repairs)
    ]
    return {
        "stem": stem,
        "title": stem,
        "credit": photograph.credit,
        "width": width,
        "height": height,
        "versions": versions,
        "original": {
            "id": f"{stem}-original",
            "method": "original",
            "picture": data_uri(encode_picture(photograph.original)),
        },
        "best": {judge.name: _best(photograph, judge) for judge in JUDGES},
    }


def _best(photograph: Photograph, judge: Any) -> float:
    values = [repair.values[judge.name] for repair in photograph.repairs]
    return max(values) if judge.higher_is_better else min(values)


def _similarity_map(pixels: Any, original: Any) -> Any:
    _, similarity = sosie.ssim(pixels, original, channel_axis=-1, return_map=True)
    return similarity.mean(axis=-1)
