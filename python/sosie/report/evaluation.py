# SPDX-License-Identifier: Apache-2.0
"""An evaluation as an HTML page, as CSV and as plain data."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import sosie
from sosie.report.network import computed_on, network_facts
from sosie.report.page import data_uri, render
from sosie.report.pictures import COLOUR_SCALE_STOPS, encode_heat_map, encode_picture
from sosie.report.plots import distribution
from sosie.report.training import training_curves
from sosie.zoo.evaluation.generation import GENERATED
from sosie.zoo.evaluation.repair import versions_of
from sosie.zoo.training.records import joined, picture

if TYPE_CHECKING:
    from markupsafe import Markup

    from sosie.zoo.evaluation.generation import GenerationEvaluation
    from sosie.zoo.evaluation.likelihood import LikelihoodEvaluation
    from sosie.zoo.evaluation.repair import RepairEvaluation, Version
    from sosie.zoo.model import Model

__all__ = [
    "Subject",
    "generation_evaluation_html",
    "generation_evaluation_json",
    "image_grid",
    "repair_evaluation_csv",
    "repair_evaluation_html",
    "repair_evaluation_json",
]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

#: Images shown as pictures, their longest side, and lines of the table.
_SHOWN, _LONGEST_SIDE, _LINES = 4, 900, 1000
#: Rows and columns of the grids of generated images.
_ROWS, _COLUMNS = 4, 8


@dataclass(frozen=True)
class Subject:
    """What was evaluated, and how to do it again.

    Attributes
    ----------
    name : str
        Of the model.
    model : Model or None
    weights : str
        Where they are from.
    data : str
        What it was evaluated on.
    command : str
    seconds : float
        That it took.
    """

    name: str
    model: Model | None
    weights: str
    data: str
    command: str
    seconds: float

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and texts."""
        network = (
            [("computed on", computed_on())]
            if self.model is None
            else network_facts(self.model, self.weights)
        )
        return [
            ("images", self.data),
            *network,
            ("time", f"{self.seconds:.1f} s"),
            ("again", self.command),
        ]

    @property
    def curves(self) -> list[Markup]:
        """Of the training, if the weights are in its folder."""
        return training_curves(Path(self.weights)) if self.model is not None else []

    @property
    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "sosie": sosie.__version__,
            "torch": torch.__version__,
            "model": self.name,
            "weights": self.weights,
            "config": None if self.model is None else asdict(self.model.config),
            "data": self.data,
            "command": self.command,
            "seconds": self.seconds,
        }


# ------------------------------------------------------------------------------------------- repair


def repair_evaluation_json(subject: Subject, evaluation: RepairEvaluation) -> dict[str, Any]:
    """Every number, ready for ``json.dumps``; null where a measure is not finite or not defined."""
    names = [judge.name for judge in evaluation.protocol.judges]

    def values(method: str, value: Any) -> dict[str, float | None]:
        return {name: _finite(value(method, name)) for name in names}

    return {
        **subject.record,
        "protocol": asdict(evaluation.protocol),
        "conventions": {judge.name: judge.spec or None for judge in evaluation.protocol.judges},
        "means": {method: values(method, evaluation.mean) for method in evaluation.methods},
        "images": {
            row["name"]: {
                method: {name: _finite(row[f"{method}/{name}"]) for name in names}
                for method in evaluation.methods
            }
            for row in evaluation.rows
        },
        "failures": [{"name": name, "reason": reason} for name, reason in evaluation.failures],
    }


def repair_evaluation_csv(evaluation: RepairEvaluation) -> str:
    """A line for each image and method, with all digits; then the failures."""
    names = [judge.name for judge in evaluation.protocol.judges]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "method", *names, "error"])
    for row in evaluation.rows:
        for method in evaluation.methods:
            values = [repr(row[f"{method}/{name}"]) for name in names]
            writer.writerow([row["name"], method, *values, ""])
    for name, reason in evaluation.failures:
        writer.writerow([name, *[""] * (1 + len(names)), reason])
    return buffer.getvalue()


def repair_evaluation_html(subject: Subject, evaluation: RepairEvaluation) -> str:
    """A page with means, some images as pictures, distributions, curves and a table."""
    judges, methods = evaluation.protocol.judges, evaluation.methods
    return render(
        "repair_evaluation.html.j2",
        title=f"{subject.name}, evaluated",
        version=sosie.__version__,
        subject=subject,
        evaluation=evaluation,
        judges=judges,
        methods=methods,
        last=methods[-1],
        number=_sortable,
        photographs=[_photograph(row, evaluation) for row in _chosen(evaluation)],
        stops=COLOUR_SCALE_STOPS,
        plots=_distributions(evaluation) if len(evaluation.rows) > 1 else [],
        curves=subject.curves,
        rows=evaluation.rows[:_LINES],
        failures=[{"name": name, "reason": reason} for name, reason in evaluation.failures],
    )


def _chosen(evaluation: RepairEvaluation) -> list[dict[str, Any]]:
    """From the least well repaired image to the best, a few of them."""
    judge = evaluation.protocol.judges[0]
    key = f"{evaluation.methods[-1]}/{judge.name}"
    sign = 1.0 if judge.higher_is_better else -1.0
    ordered = sorted(evaluation.rows, key=lambda row: sign * row[key])
    count = min(_SHOWN, len(ordered))
    places = np.linspace(0, len(ordered) - 1, count).round().astype(int)
    return [ordered[place] for place in places]


def _photograph(row: dict[str, Any], evaluation: RepairEvaluation) -> dict[str, Any]:
    truth, versions = versions_of(row, evaluation.protocol)
    stem = f"image-{evaluation.rows.index(row)}"
    return {
        "stem": stem,
        "title": row["name"],
        "width": truth.shape[1],
        "height": truth.shape[0],
        "versions": [
            _version(f"{stem}-{index}", version, truth) for index, version in enumerate(versions)
        ],
        "original": {
            "id": f"{stem}-original",
            "method": "original",
            "picture": _picture(truth),
        },
        "best": {
            judge.name: (max if judge.higher_is_better else min)(
                version.values[judge.name] for version in versions
            )
            for judge in evaluation.protocol.judges
        },
    }


def _version(name: str, version: Version, truth: Pixels) -> dict[str, Any]:
    try:
        _, similarity = sosie.ssim(version.pixels, truth, channel_axis=-1, return_map=True)
    except ValueError:  # smaller than the window
        picture_of_map = None
    else:
        picture_of_map = data_uri(encode_heat_map(similarity.mean(axis=-1), 0.0, _LONGEST_SIDE))
    return {
        "id": name,
        "method": version.method,
        "values": version.values,
        "picture": _picture(version.pixels),
        "map": picture_of_map,
    }


def _picture(pixels: Pixels) -> str:
    shown = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return data_uri(encode_picture(shown, _LONGEST_SIDE))


def _distributions(evaluation: RepairEvaluation) -> list[Markup]:
    method = evaluation.methods[-1]
    plots = []
    for judge in evaluation.protocol.judges:
        mean = evaluation.mean(method, judge.name)
        unit = f"{judge.unit}, " if judge.unit else ""
        plots.append(
            distribution(
                [row[f"{method}/{judge.name}"] for row in evaluation.rows],
                label=f"{judge.title} of {method} ({unit}{judge.direction})",
                counted="images",
                mark=mean,
                mark_label=f"mean {judge.text(mean)}",
            )
        )
    return plots


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sortable(value: float) -> str:
    """As JavaScript's ``Number`` reads it; what is not defined comes first."""
    if math.isnan(value):
        return "-1e999"
    return repr(value) if math.isfinite(value) else ("1e999" if value > 0 else "-1e999")


# --------------------------------------------------------------------------------------- generation


def generation_evaluation_json(
    subject: Subject,
    evaluation: GenerationEvaluation,
    likelihood: LikelihoodEvaluation | None = None,
) -> dict[str, Any]:
    """Every number, ready for ``json.dumps``."""
    record: dict[str, Any] = {
        **subject.record,
        "images": evaluation.count,
        "neighbours": evaluation.neighbours,
        "spaces": {},
        "refused": evaluation.refused,
        "parzen": {
            each.images: {
                "sigma": each.sigma,
                "log_likelihood": each.log_likelihood.mean,
                "standard_error": _finite(each.log_likelihood.error),
            }
            for each in evaluation.parzen
        },
        "likelihood": None,
    }
    for match in evaluation.matches:
        record["spaces"].setdefault(match.space, {})[match.images] = {
            **match.prdc._asdict(),
            "kernel_distance": match.kernel_distance,
            "frechet_distance": match.frechet_distance,
        }
    if likelihood is not None:
        record["likelihood"] = {
            "samples": likelihood.samples,
            "is_density": likelihood.is_density,
            "images": len(next(iter(likelihood.values.values()))),
            "negative_elbo": likelihood.negative_elbo.mean,
            "negative_elbo_error": _finite(likelihood.negative_elbo.error),
            "importance_weighted_nll": likelihood.nll.mean,
            "importance_weighted_nll_error": _finite(likelihood.nll.error),
            "failures": [{"name": name, "reason": text} for name, text in likelihood.failures],
        }
    return record


def generation_evaluation_html(
    subject: Subject,
    evaluation: GenerationEvaluation,
    likelihood: LikelihoodEvaluation | None = None,
) -> str:
    """A page with images, what they match, likelihoods and curves."""
    best_space = evaluation.matches[-2].space if evaluation.matches else None
    plots = []
    if likelihood is not None:
        nll = -likelihood.values["log_likelihood"]
        plots.append(
            distribution(
                nll,
                label="-log p(x) (nats, lower is better)",
                counted="images",
                mark=float(nll.mean()),
                mark_label=f"mean {nll.mean():.2f}",
            )
        )
    return render(
        "generation_evaluation.html.j2",
        title=f"{subject.name}, evaluated",
        version=sosie.__version__,
        subject=subject,
        evaluation=evaluation,
        likelihood=likelihood,
        generated=GENERATED,
        tile=next(
            (m for m in evaluation.matches if m.space == best_space and m.images == GENERATED), None
        ),
        grids=[
            (f"by {subject.name}", image_grid(evaluation.samples)),
            ("real, to judge by", image_grid(evaluation.real)),
        ],
        plots=plots,
        curves=subject.curves,
    )


def image_grid(images: Pixels) -> dict[str, Any]:
    """The first images in rows and columns, as an inline picture with its size."""
    rows = min(_ROWS, math.ceil(len(images) / _COLUMNS))
    shown = np.full((rows * _COLUMNS, *images.shape[1:]), 255, np.uint8)
    chosen = images[: len(shown)]
    shown[: len(chosen)] = chosen
    tensor = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255
    pixels = joined(tensor.reshape(rows, _COLUMNS, *tensor.shape[1:]))
    return {
        "picture": data_uri(picture(pixels)),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "count": len(chosen),
    }
