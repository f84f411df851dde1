# SPDX-License-Identifier: Apache-2.0
"""Curves of the training that weights are from."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from sosie.report.plots import curve, loss_curve

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["training_curves"]

_VALIDATION = "validation_"
#: Numbers of a training that say nothing about how good it is.
_LEFT_OUT = ("gradient_", "learning_rate", "step")


def training_curves(weights: Path) -> list[Markup]:
    """Loss and validations of the training whose folder, or whose file in it, this is.

    Returns
    -------
    list of Markup
        ``<svg>`` elements; none if there is no ``log.jsonl``.
    """
    if not weights.exists():  # a name of weights that come with sosie
        return []
    folder = weights if weights.is_dir() else weights.parent
    log = next((path / "log.jsonl" for path in (folder, folder.parent) if _has_log(path)), None)
    if log is None:
        return []
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in log.read_text("utf-8").splitlines():
        try:
            numbers = json.loads(line)
            step = int(numbers["step"])
        except (ValueError, KeyError, TypeError):
            continue  # the line that was being written when the training was stopped
        for name, value in numbers.items():
            if not name.startswith(_LEFT_OUT) and math.isfinite(value):
                series[name].append((step, value))
    losses = [value for _, value in series.get("loss", [])]
    plots = [loss_curve(losses)] if len(losses) > 1 and min(losses) > 0 else []
    for name, points in series.items():
        if name.startswith(_VALIDATION):
            label = name.removeprefix(_VALIDATION).replace("_", " ") + ", validation"
            plots.append(curve(*zip(*points, strict=True), label=label))
    return plots


def _has_log(folder: Path) -> bool:
    return (folder / "log.jsonl").is_file()
