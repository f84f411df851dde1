# SPDX-License-Identifier: Apache-2.0
"""The picture of the README: photographs not learned from, damaged, repaired, and as they were.

Run with `python -m benchmarks.pictures docs/images`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from sosie.zoo import create_model
from sosie.zoo.data import to_tensor
from sosie.zoo.degradations import parse_degradation
from sosie.zoo.photographs import halved, load_photograph

__all__ = ["main"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

#: Photographs, how often they are halved, the upper left corner of what is shown, its damage.
ROWS = (
    ("chelsea.png", 0, (20, 110), "rain_streaks:0.2,gaussian_noise:0.05"),
    ("coffee.png", 1, (4, 30), "missing_strokes:0.12"),
)
#: Side of what is shown, and pixels between pictures.
_SIDE, _GAP = 192, 6

app = typer.Typer(add_completion=False)


@app.command()
def main(folder: Annotated[Path, typer.Argument(help="Where the picture goes.")]) -> None:
    """Draw repair.jpg."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(*row) for row in ROWS]
    height, width = len(rows) * (_SIDE + _GAP) - _GAP, 3 * (_SIDE + _GAP) - _GAP
    sheet = np.full((height, width, 3), 255, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = row * (_SIDE + _GAP), column * (_SIDE + _GAP)
            sheet[top : top + _SIDE, left : left + _SIDE] = picture
    Image.fromarray(sheet).save(folder / "repair.jpg", quality=92, subsampling=0)


def _row(name: str, halvings: int, corner: tuple[int, int], damage: str) -> list[Pixels]:
    pixels = load_photograph(name)
    for _ in range(halvings):
        pixels = halved(pixels)
    top, left = corner
    original = to_tensor(pixels[top : top + _SIDE, left : left + _SIDE], 3)[None]
    generator = torch.Generator().manual_seed(1)
    damaged, known = parse_degradation(damage)(original, generator=generator)
    with torch.inference_mode():
        repaired = create_model("repair_rcnn", weights="default")(damaged, known)
    return [
        (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        for image in (damaged, repaired, original)
    ]


if __name__ == "__main__":
    app()
