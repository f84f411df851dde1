# SPDX-License-Identifier: Apache-2.0
"""What a training leaves to look at: every number, and pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from sosie.zoo.files import write_bytes

__all__ = ["Records", "joined", "picture"]

#: Lines between the images of a grid, in pixels.
_GAP = 2
#: Small images are enlarged until a grid has about this many pixels along its longer side.
_GRID_SIDE = 480


class Records:
    """``log.jsonl``, ``samples/*.png`` and, if asked for, files for TensorBoard.

    A line of ``log.jsonl`` is a JSON object with a step and its numbers; those of validations have
    names that begin with "validation_".

    Parameters
    ----------
    folder : Path
    step : int
        Of a training that goes on: what was recorded of later steps is dropped.
    tensorboard : bool
        Write for TensorBoard, too.

    Raises
    ------
    ModuleNotFoundError
        TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._folder = folder
        path = folder / "log.jsonl"
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        write_bytes(path, "".join(line for line in lines if _is_until(line, step)).encode())
        self._log = path.open("a", encoding="utf-8", buffering=1)
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Record the numbers of a step."""
        self._log.write(json.dumps({"step": step, **numbers}) + "\n")
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)

    def show(self, step: int, grid: Tensor) -> None:
        """Record a grid of images, shape (rows, columns, C, H, W) in [0, 1]."""
        pixels = joined(grid)
        write_bytes(self._folder / "samples" / f"step-{step:08d}.png", picture(pixels))
        if self._board is not None:
            self._board.add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Let go of the files."""
        self._log.close()
        if self._board is not None:
            self._board.close()


def _is_until(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):  # the process was killed while it wrote the line
        return False


def joined(grid: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images side by side with lines between them, shape (H, W, C)."""
    levels = (grid.float().clamp(0, 1) * 255).round().byte().cpu()
    rows, columns, channels, height, width = levels.shape
    joined = np.full(
        (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels), 255, np.uint8
    )
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + _GAP) + _GAP, column * (width + _GAP) + _GAP
            image = levels[row, column].permute(1, 2, 0).numpy()
            joined[top : top + height, left : left + width] = image
    scale = max(1, _GRID_SIDE // max(joined.shape[:2]))
    return joined.repeat(scale, axis=0).repeat(scale, axis=1)


def picture(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """PNG file of an image (H, W, C)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
