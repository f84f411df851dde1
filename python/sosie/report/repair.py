# SPDX-License-Identifier: Apache-2.0
"""Repaired files as an HTML page and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sosie
from sosie.comparison.pairs import printable
from sosie.report.network import network_facts
from sosie.report.page import data_uri, render
from sosie.report.pictures import encode_picture

if TYPE_CHECKING:
    from sosie.zoo.inference.repair import Tiling
    from sosie.zoo.inference.repair_files import Failure, Repaired
    from sosie.zoo.model import RepairModel

__all__ = ["RepairPage", "picture_side", "repair_json"]

#: Images shown as pictures on a page; a table lists all.
_CARDS = 24
#: Up to this many images, pictures may be larger.
_FEW, _LARGE_SIDE, _SMALL_SIDE = 4, 1200, 600


def picture_side(count: int) -> int:
    """Longest side of the pictures on a page about so many images."""
    return _LARGE_SIDE if count <= _FEW else _SMALL_SIDE


@dataclass(frozen=True)
class _Card:
    """What a page says of an image."""

    repaired: dict[str, Any]
    before: str
    after: str


class RepairPage:
    """A page that grows by an image at a time, and keeps no more of it than it shows.

    Parameters
    ----------
    model : RepairModel
    weights : str
        Where they are from.
    tiling : Tiling
    count : int
        Images to come, at most.
    """

    def __init__(self, model: RepairModel, weights: str, tiling: Tiling, count: int) -> None:
        self._model, self._weights, self._tiling = model, weights, tiling
        self._side = picture_side(count)
        self._cards: list[_Card] = []
        self._rows: list[dict[str, Any]] = []

    def add(self, repaired: Repaired) -> None:
        """Show an image."""
        row = _row(repaired)
        self._rows.append(row)
        if len(self._cards) < _CARDS:
            before, after = (
                data_uri(encode_picture(pixels, self._side))
                for pixels in (repaired.before, repaired.after)
            )
            self._cards.append(_Card(row, before, after))

    def html(self, failures: Sequence[Failure]) -> str:
        """The page."""
        rows = self._rows
        megapixels = sum(row["width"] * row["height"] for row in rows) / 1e6
        seconds = sum(row["seconds"] for row in rows)
        return render(
            "repair.html.j2",
            title=f"{len(rows)} images, repaired" if len(rows) != 1 else "An image, repaired",
            version=sosie.__version__,
            model=self._model.name,
            rows=rows,
            cards=self._cards,
            failures=failures,
            reduced=any(max(row["width"], row["height"]) > self._side for row in rows),
            has_masks=any(row["missing"] is not None for row in rows),
            megapixels=megapixels,
            seconds=seconds,
            mean_change=sum(row["change"] for row in rows) / len(rows),
            tiling=self._tiling,
            overlap=self._tiling.overlap_for(self._model),
            facts=network_facts(self._model, self._weights),
        )


def repair_json(
    model: RepairModel, weights: str, rows: Sequence[Repaired], failures: Sequence[Failure]
) -> dict[str, Any]:
    """Every number, ready for ``json.dumps``."""
    return {
        "sosie": sosie.__version__,
        "model": model.name,
        "weights": weights,
        "images": [_row(repaired) for repaired in rows],
        "failures": [{"name": each.name, "reason": each.reason} for each in failures],
    }


def _row(repaired: Repaired) -> dict[str, Any]:
    return {
        "name": repaired.job.name,
        "output": printable(repaired.job.target),
        "width": repaired.width,
        "height": repaired.height,
        "kind": repaired.kind,
        "missing": repaired.missing,
        "change": repaired.change,
        "tiles": repaired.tiles,
        "seconds": repaired.seconds,
        "notes": list(repaired.notes),
    }
