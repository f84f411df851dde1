# SPDX-License-Identifier: Apache-2.0
"""Repairing files: which there are, where the results go, and one failure stopping no other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sosie.comparison.files import UnreadableImageError, is_image_name
from sosie.comparison.pairs import printable
from sosie.zoo.files import replacing
from sosie.zoo.inference.photo_files import Photo, find_mask, read_mask, read_photo
from sosie.zoo.inference.png import PNGWriter
from sosie.zoo.inference.reduction import Reduction
from sosie.zoo.inference.repair import Tiling, repair_bands
from sosie.zoo.model import RepairModel

__all__ = ["Failure", "Job", "Repaired", "plan", "repair_file", "repair_files"]

Pixels = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Job:
    """A file to repair: what it is called, its mask if it has one, the file that is to be."""

    name: str
    source: Path
    mask: Path | None
    target: Path


@dataclass(frozen=True)
class Failure:
    """A file that was not repaired, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Repaired:
    """A file that was.

    Attributes
    ----------
    job : Job
    width, height : int
    kind : str
        Depth and channels.
    notes : tuple of str
        What was converted, and how channels met the model's.
    missing : float or None
        Share of the pixels that the mask says are missing.
    change : float
        Root of the mean squared difference between before and after, over what repair may change,
        as a share of the range.
    tiles : int
    seconds : float
        Reading and writing included.
    before, after : ndarray of uint8
        Reduced pictures.
    """

    job: Job
    width: int
    height: int
    kind: str
    notes: tuple[str, ...]
    missing: float | None
    change: float
    tiles: int
    seconds: float
    before: Pixels
    after: Pixels


def plan(
    images: Sequence[Path], mask: Path | None, folder: Path, *, overwrite: bool
) -> tuple[list[Job], list[Failure]]:
    """What is to be done, and what cannot be.

    Parameters
    ----------
    images : sequence of Path
        Files, and folders that are searched to any depth for names of image files, but not below
        the folders of masks and of results.
    mask : Path, optional
        A file for all images, or a folder with a mask of the same name, but for the extension, for
        each.
    folder : Path
        Where results go: PNG files, below it where images come from below a folder.
    overwrite : bool
        Replace files that are there, but for the images themselves.
    """
    jobs = []
    # What earlier runs wrote is no image to be repaired, nor is a mask.
    aside = [each.resolve() for each in (folder, mask) if each is not None]
    found, failures = [], []
    for image in images:
        here = list(_found(image, aside))
        found += here
        if not here:
            failures.append(Failure(printable(image), "no image in this folder"))
    targets = Counter(name.with_suffix(".png") for name, _ in found)
    originals = {path.resolve() for _, path in found}
    for name, path in found:
        target = folder / name.with_suffix(".png")
        reason = ""
        own_mask = mask
        if mask is not None and mask.is_dir():
            own_mask, reason = find_mask(name, mask)
        if not path.exists():
            reason = "no such file or folder"
        elif targets[name.with_suffix(".png")] > 1:
            reason = f"several images would be written to {printable(target)}"
        elif target.resolve() in originals:
            reason = f"{printable(target)} is an image to be repaired, and would be replaced"
        elif target.exists() and not overwrite:
            reason = f"{printable(target)} exists; --overwrite replaces it"
        if reason:
            failures.append(Failure(printable(name), reason))
        else:
            jobs.append(Job(printable(name), path, own_mask, target))
    return jobs, failures


def _found(image: Path, aside: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Names relative to where they were looked for, and paths; without folders further in."""
    if not image.is_dir():
        yield Path(image.name), image
        return
    aside = [folder for folder in aside if folder != image.resolve()]
    for path in sorted(image.rglob("*")):
        is_aside = any(path.resolve().is_relative_to(folder) for folder in aside)
        if not is_aside and path.is_file() and path.name[0] != "." and is_image_name(path):
            yield path.relative_to(image), path


def repair_files(
    model: RepairModel,
    jobs: Sequence[Job],
    tiling: Tiling,
    *,
    most_pixels: int,
    longest_side: int,
    keep_known: bool = False,
    watch: Callable[[Job, int, int], None] = lambda *_: None,
) -> Iterator[Repaired | Failure]:
    """Repair files one after the other; what cannot be repaired is named, and the next one is.

    Parameters
    ----------
    model, tiling, keep_known
        See :func:`sosie.zoo.repair_image`.
    jobs : sequence of Job
        With masks, all of them, where known pixels are kept.
    most_pixels : int
        Larger images are refused.
    longest_side : int
        Of the pictures of before and after.
    watch : callable
        Told how many tiles of a file's have been repaired.
    """
    for job in jobs:
        try:
            yield repair_file(
                model,
                job,
                tiling,
                most_pixels=most_pixels,
                longest_side=longest_side,
                keep_known=keep_known,
                watch=watch,
            )
        except UnreadableImageError as error:
            yield Failure(job.name, str(error))
        except OSError as error:
            where = printable(job.target)  # not the partial file that the error names
            yield Failure(job.name, f"{where} could not be written: {error.strerror or error}")
        except MemoryError:
            yield Failure(job.name, "not enough memory")


def repair_file(
    model: RepairModel,
    job: Job,
    tiling: Tiling,
    *,
    most_pixels: int,
    longest_side: int,
    keep_known: bool,
    watch: Callable[[Job, int, int], None],
) -> Repaired:
    """Repair a file; see `repair_files`. The result is written row by row, and not kept.

    Raises
    ------
    UnreadableImageError
        The image or its mask cannot be read, or does not fit.
    OSError
        The result cannot be written.
    """
    start = time.perf_counter()
    photo = read_photo(job.source, most_pixels)
    pixels = photo.pixels
    mask = None if job.mask is None else read_mask(job.mask, pixels.shape[:2])
    height, width = pixels.shape[:2]
    total = len(tiling.along(height, model)) * len(tiling.along(width, model))
    before, after = (Reduction(pixels.shape, longest_side) for _ in range(2))
    tiles, squares, top = 0, 0.0, 0

    def count(more: int) -> None:
        nonlocal tiles
        tiles += more
        watch(job, tiles, total)

    watch(job, 0, total)
    with replacing(job.target) as file:
        writer = PNGWriter(file, pixels.shape, pixels.dtype, **photo.belongings)
        for band in repair_bands(model, pixels, mask, tiling, count, keep_known=keep_known):
            original = pixels[top : top + len(band)]
            top += len(band)
            writer.write(band)
            before.add(original)
            after.add(band)
            squares += float(np.square(band.astype(np.float32) - original).sum(dtype=np.float64))
        writer.close()
    samples = height * width * (1 if pixels.ndim == 2 or pixels.shape[2] < 3 else 3)
    return Repaired(
        job,
        width,
        height,
        photo.kind,
        (*photo.notes, *_meetings(model, photo)),
        None if mask is None else float(mask.mean()),
        (squares / samples) ** 0.5 / np.iinfo(pixels.dtype).max,
        tiles,
        time.perf_counter() - start,
        before.picture(),
        after.picture(),
    )


def _meetings(model: RepairModel, photo: Photo) -> list[str]:
    """How the photograph's channels met the model's, where these differ."""
    if model.channels == 1 and "RGB" in photo.kind:
        return ["repaired channel by channel, the model being one of gray images"]
    if model.channels == 3 and "gray" in photo.kind:
        return ["gray in all three channels of the model, and the mean of what it made of them"]
    return []
