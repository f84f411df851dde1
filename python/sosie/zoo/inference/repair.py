# SPDX-License-Identifier: Apache-2.0
"""Repairing images of any size, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from sosie.zoo.inference.tiling import Span, spans
from sosie.zoo.model import RepairModel

__all__ = ["Tiling", "repair_bands", "repair_image"]

Pixels = np.ndarray[Any, np.dtype[Any]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_RANGES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
#: Overlap where the model's reach is larger than half of it, or not known.
_MOST_OVERLAP = 64


@dataclass(frozen=True)
class Tiling:
    """Sides of tiles, pixels that neighbours share, and tiles that are repaired at a time.

    Memory is in proportion to ``batch * tile ** 2``. Without an ``overlap``, it is twice the
    model's reach, which makes tiles invisible, but at most 64 or a quarter of a tile; beyond, tiles
    are blended.

    Raises
    ------
    ValueError
        A number is out of range.
    """

    tile: int = 256
    overlap: int | None = None
    batch: int = 4

    def __post_init__(self) -> None:
        if self.tile < 8:
            raise ValueError(f"expected tiles of 8 pixels or more, got {self.tile}")
        if self.overlap is not None and not 0 <= self.overlap <= self.tile // 2:
            raise ValueError(
                f"expected an overlap from 0 to half a tile, {self.tile // 2}, got {self.overlap}"
            )
        if self.batch < 1:
            raise ValueError(f"expected a batch of 1 tile or more, got {self.batch}")

    def overlap_for(self, model: RepairModel) -> int:
        """The overlap that is used."""
        if self.overlap is not None:
            return self.overlap
        most = min(_MOST_OVERLAP, self.tile // 4)
        return most if model.reach is None else min(most, 2 * model.reach)

    def along(self, size: int, model: RepairModel) -> list[Span]:
        """Tiles along an axis of an image."""
        alignment = model.alignment
        tile = max(self.tile, 2 * model.least_side) // alignment * alignment
        return spans(size, tile, self.overlap_for(model), model.reach, alignment)


def repair_image(
    model: RepairModel,
    image: Pixels,
    mask: Mask | None = None,
    *,
    tile: int = 256,
    overlap: int | None = None,
    batch: int = 4,
    keep_known: bool = False,
) -> Pixels:
    """Repair an image of any size.

    Parameters
    ----------
    model : RepairModel
        For example ``create_model("repair_cnn", weights=...)``.
    image : ndarray, shape (H, W) or (H, W, C)
        uint8, uint16, or floating point in [0, 1]; C is 1 or 3, one more with alpha, which stays as
        it is. A model of one channel repairs colours channel by channel; one of three sees gray
        three times, and the mean of what it makes of that is the result.
    mask : ndarray of bool, shape (H, W), optional
        True where a pixel is missing; by default none is.
    tile, overlap, batch : int
        See :class:`sosie.zoo.inference.repair.Tiling`. Images no larger than a tile are repaired
        whole.
    keep_known : bool
        Leave pixels as they are that the mask does not call missing: right where nothing else is
        wrong with the image.

    Returns
    -------
    ndarray
        Shape and dtype of ``image``.

    Raises
    ------
    TypeError
        The image has another dtype, or the mask is not boolean.
    ValueError
        A shape does not fit, the tiling is out of range, or known pixels are to be kept and no mask
        says which these are.

    Examples
    --------
    >>> from sosie.zoo import create_model, repair_image
    >>> model = create_model("repair_cnn", depth=3, width=4)
    >>> photo = np.random.default_rng(0).integers(0, 256, (300, 451, 3), dtype=np.uint8)
    >>> whole, tiled = repair_image(model, photo, tile=512), repair_image(model, photo, tile=128)
    >>> int(abs(whole.astype(int) - tiled).max()) <= 1
    True
    """
    result = np.empty_like(image)
    top = 0
    tiling = Tiling(tile, overlap, batch)
    for band in repair_bands(model, image, mask, tiling, keep_known=keep_known):
        result[top : top + len(band)] = band
        top += len(band)
    return result


def repair_bands(
    model: RepairModel,
    image: Pixels,
    mask: Mask | None = None,
    tiling: Tiling | None = None,
    on_tiles: Callable[[int], None] = lambda _: None,
    *,
    keep_known: bool = False,
) -> Iterator[Pixels]:
    """Repair an image, and hand it out from top to bottom in bands of some rows.

    Besides the image itself, memory is needed for two rows of tiles and what the network makes of a
    batch of them.

    Parameters
    ----------
    model, image, mask, keep_known
        See :func:`repair_image`.
    tiling : Tiling, optional
    on_tiles : callable
        Told how many tiles have been repaired, time and again.
    """
    tiling = tiling or Tiling()
    _check(model, image, mask)
    if keep_known and mask is None:
        raise ValueError("expected a mask that says which pixels are known and kept, got none")
    rows = tiling.along(image.shape[0], model)
    columns = tiling.along(image.shape[1], model)
    was_training = model.training
    model.eval()
    try:
        # Rows before `first` are done. Those of `pending` are, but for what the next tiles say.
        pending: Pixels | None = None
        for row, below in zip(rows, [*rows[1:], None], strict=True):
            band = image[row.start : row.stop]
            known = None if mask is None else ~mask[row.start : row.stop]
            weighted = _repaired_row(model, band, known, columns, tiling.batch, on_tiles)
            weighted *= row.weights[:, None, None]
            if pending is not None:
                weighted[row.first - row.start :][: len(pending)] += pending
            done = row.stop if below is None else below.first
            original = image[row.first : done]
            repaired = _as_pixels(weighted[row.first - row.start : done - row.start], original)
            if keep_known and mask is not None:
                kept = ~mask[row.first : done]
                repaired[kept] = original[kept]
            yield repaired
            pending = weighted[done - row.start : row.last - row.start].copy()
    finally:
        model.train(was_training)


def _check(model: RepairModel, image: Pixels, mask: Mask | None) -> None:
    if image.dtype.name not in _RANGES:
        raise TypeError(f"expected an image of {', '.join(_RANGES)}, got {image.dtype}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and not 1 <= image.shape[2] <= 4):
        raise ValueError(
            f"expected an image (H, W), or (H, W, C) with C from 1 to 4, got shape {image.shape}"
        )
    if 0 in image.shape:
        raise ValueError(f"expected an image with at least one pixel, got shape {image.shape}")
    if model.channels not in (1, 3):
        raise ValueError(f"expected a model of 1 or 3 channels, got one of {model.channels}")
    if mask is None:
        return
    if mask.dtype != bool:
        raise TypeError(f"expected a boolean mask, got dtype {mask.dtype}")
    if mask.shape != image.shape[:2]:
        raise ValueError(f"expected a mask of shape {image.shape[:2]}, got {mask.shape}")


def _colours(image: Pixels) -> int:
    """Channels without alpha."""
    return 1 if image.ndim == 2 or image.shape[2] < 3 else 3


def _repaired_row(
    model: RepairModel,
    band: Pixels,
    known: Mask | None,
    columns: list[Span],
    batch: int,
    on_tiles: Callable[[int], None],
) -> Pixels:
    """Weighted sum of a row of tiles, float32, shape (h, W, colours)."""
    result = np.zeros((*band.shape[:2], _colours(band)), np.float32)
    for _, alike in groupby(columns, key=lambda column: column.stop - column.start):
        same_size = list(alike)
        for start in range(0, len(same_size), batch):
            chosen = same_size[start : start + batch]
            tiles = [slice(column.start, column.stop) for column in chosen]
            repaired = _repaired_tiles(
                model,
                np.stack([band[:, tile] for tile in tiles]),
                None if known is None else np.stack([known[:, tile] for tile in tiles]),
            )
            for column, tile, pixels in zip(chosen, tiles, repaired, strict=True):
                result[:, tile] += pixels * column.weights[:, None]
            on_tiles(len(chosen))
    return result


@torch.inference_mode()
def _repaired_tiles(model: RepairModel, tiles: Pixels, known: Mask | None) -> Pixels:
    """Tiles (N, h, w) or (N, h, w, C) as float32 in [0, 1] of shape (N, h, w, colours)."""
    count, height, width = tiles.shape[:3]
    colours = _colours(tiles[0])
    if tiles.ndim == 3:
        tiles = tiles[..., None]
    least = model.least_side
    border = ((0, 0), (0, max(0, least - height)), (0, max(0, least - width)))
    planes = np.pad(tiles[..., :colours], (*border, (0, 0)), mode="reflect")
    scale = np.float32(1 / _RANGES[tiles.dtype.name])
    images = torch.from_numpy(planes.astype(np.float32) * scale).permute(0, 3, 1, 2).contiguous()
    if model.channels == 1 and colours == 3:
        images = images.flatten(0, 1).unsqueeze(1)
    elif model.channels == 3 and colours == 1:
        images = images.repeat(1, 3, 1, 1)
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    images = images.to(device)
    if known is None:
        repaired = model(images)
    else:
        mask = torch.from_numpy(np.pad(known, border, mode="reflect").astype(np.float32))
        mask = mask.repeat_interleave(len(images) // count, 0).unsqueeze(1).to(device)
        repaired = model(images * mask, mask)
    repaired = repaired[..., :height, :width].clamp(0, 1).cpu()
    if model.channels == 1 and colours == 3:
        repaired = repaired.unflatten(0, (count, 3)).squeeze(2)
    elif model.channels == 3 and colours == 1:
        repaired = repaired.mean(1, keepdim=True)
    return np.asarray(repaired.permute(0, 2, 3, 1))


def _as_pixels(repaired: Pixels, original: Pixels) -> Pixels:
    """Float colours in [0, 1] in the original's shape and dtype, with its alpha."""
    data_range = _RANGES[original.dtype.name]
    if data_range > 1:
        repaired = np.rint(repaired * np.float32(data_range))
    if original.ndim == 2:
        return repaired[..., 0].astype(original.dtype)
    result = original.copy()
    result[..., : repaired.shape[2]] = repaired
    return result
