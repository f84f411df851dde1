# SPDX-License-Identifier: Apache-2.0
"""Real photographs that come with scikit-image's wheel: no download, no network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["CREDITS", "HELD_OUT", "TRAINING", "halved", "load_photograph"]

#: Photographs to learn from.
TRAINING = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
#: Photographs to be judged on, and who took them. Both are in the public domain (CC0).
CREDITS = {
    "chelsea.png": "Chelsea the cat, by Stéfan van der Walt",
    "coffee.png": "A cup of coffee, by Rachel Michetti",
}
HELD_OUT = tuple(CREDITS)

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def load_photograph(name: str) -> Pixels:
    """Photograph of scikit-image's data folder, gray ones with three equal channels.

    Parameters
    ----------
    name : str
        One of `TRAINING` or `HELD_OUT`.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    FileNotFoundError
        This version of scikit-image does not hold it.

    Examples
    --------
    >>> load_photograph("chelsea.png").shape
    (300, 451, 3)
    """
    with Image.open(_folder() / name) as image:
        return np.asarray(image.convert("RGB"))


def halved(photograph: Pixels) -> Pixels:
    """Mean over boxes of 2 x 2 pixels."""
    height, width = (size // 2 for size in photograph.shape[:2])
    boxes = photograph[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    means: Pixels = np.rint(boxes.mean(axis=(1, 3))).astype(np.uint8)
    return means


def _folder() -> Path:
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'skimage'", name="skimage")
    return Path(spec.origin).parent / "data"
