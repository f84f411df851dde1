# SPDX-License-Identifier: Apache-2.0
"""Generated images as a grid, as an HTML page and as plain data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import sosie
from sosie.report.network import network_facts
from sosie.report.page import data_uri, render
from sosie.report.plots import distribution
from sosie.zoo.training.records import joined, picture

if TYPE_CHECKING:
    from sosie.zoo.model import Model

__all__ = ["generation_html", "generation_json", "grid_file", "in_rows"]

#: (rows, columns, H, W, C) of 8 bits.
Grid = np.ndarray[Any, np.dtype[np.uint8]]

#: Images on a page; the others are in files alone.
_SHOWN = 400
#: Lines of its table.
_LINES = 200


def grid_file(grid: Grid) -> bytes:
    """PNG file of images in rows and columns, lines between them."""
    return picture(joined(torch.from_numpy(grid).permute(0, 1, 4, 2, 3) / 255))


def in_rows(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Grid:
    """Images (N, H, W, C) in about as many rows as columns, the last filled up with white.

    Examples
    --------
    >>> in_rows(np.zeros((5, 4, 4, 1), np.uint8)).shape
    (2, 3, 4, 4, 1)
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    grid = np.full((rows * columns, *images.shape[1:]), 255, np.uint8)
    grid[: len(images)] = images
    return grid.reshape(rows, columns, *images.shape[1:])


def generation_json(
    model: Model, weights: str, images: np.ndarray[Any, np.dtype[np.uint8]], names: list[str]
) -> dict[str, Any]:
    """Brightness, contrast and nearest other image of every image, ready for ``json.dumps``."""
    return {
        "sosie": sosie.__version__,
        "model": model.name,
        "weights": weights,
        "images": _rows(images, names),
    }


def generation_html(
    model: Model,
    weights: str,
    images: np.ndarray[Any, np.dtype[np.uint8]],
    names: list[str],
    *,
    steps: int | None,
    seed: int,
    seconds: float,
) -> str:
    """A page with the images, how they spread, and a table.

    Parameters
    ----------
    model, weights
        What made the images, and where its weights are from.
    images : ndarray of uint8, shape (N, H, W, C)
    names : list of str
        Of the files, or numbers in a grid.
    steps : int or None
        Images in each way from one code to another, if that is what they are.
    seed : int
    seconds : float
        That they took.
    """
    rows = _rows(images, names)
    shown = images[: _SHOWN if steps is None else max(1, _SHOWN // steps) * steps]
    grid = in_rows(shown) if steps is None else shown.reshape(-1, steps, *shown.shape[1:])
    nearest = [row["distance"] for row in rows if row["distance"] is not None]
    plots = [
        distribution(
            [row["brightness"] for row in rows], label="mean brightness, 0 to 1", counted="images"
        )
    ]
    if nearest:
        plots.append(
            distribution(nearest, label="RMS distance to the nearest other", counted="images")
        )
    return render(
        "generation.html.j2",
        title=f"{len(images)} images by {model.name}",
        version=sosie.__version__,
        model=model.name,
        count=len(images),
        shown=len(shown),
        steps=steps,
        seed=seed,
        seconds=seconds,
        grid=data_uri(grid_file(grid)),
        columns=grid.shape[1],
        lines=grid.shape[0],
        size=f"{images.shape[2]} × {images.shape[1]}",
        equal=sum(distance == 0 for distance in nearest),
        nearest=min(nearest) if nearest else None,
        plots=plots,
        rows=rows[:_LINES],
        facts=network_facts(model, weights),
    )


def _rows(images: np.ndarray[Any, np.dtype[np.uint8]], names: list[str]) -> list[dict[str, Any]]:
    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    if len(images) > 1:
        found = sosie.knn(flat, flat, 1, exclude_self=True)
        distances = found.distances[:, 0] / math.sqrt(flat.shape[1])
        nearest = found.indices[:, 0]
    return [
        {
            "name": name,
            "brightness": float(flat[index].mean()),
            "contrast": float(flat[index].std()),
            "nearest": names[nearest[index]] if len(images) > 1 else None,
            "distance": float(distances[index]) if len(images) > 1 else None,
        }
        for index, name in enumerate(names)
    ]
