# SPDX-License-Identifier: Apache-2.0
"""Images to evaluate on, by rows of plain data that any worker can open."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sosie.comparison.files import UnreadableImageError, is_image_name
from sosie.comparison.pairs import match, printable
from sosie.comparison.parts import Row
from sosie.zoo.data import ImageCollection, open_collection
from sosie.zoo.data.collections import read_8_bit
from sosie.zoo.inference.photo_files import find_mask

__all__ = [
    "ASKED",
    "Cases",
    "find_cases",
    "open_truth",
    "read_named",
    "reference_images",
]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

#: Columns that say which image a row is about; if a file is written anew, it is another.
ASKED = ("name", "index", "truth_stamp", "damaged_stamp", "mask_stamp")


@dataclass(frozen=True)
class Cases:
    """What was found: rows, and names with the reason why they were left out."""

    rows: list[Row]
    failures: list[tuple[str, str]]


def find_cases(
    data: str = "", *, truth: Path | None = None, damaged: Path | None = None,
    masks: Path | None = None,
) -> Cases:  # fmt: skip
    """Images of a collection, or pairs of a damaged image and the truth.

    Parameters
    ----------
    data : str
        An image, a folder, or a pattern such as ``set5/*_HR.png``: all its images. Else a name or a
        file of :func:`sosie.zoo.data.open_collection`: its images to judge by.
    truth, damaged : Path, optional
        Two folders whose files pair up as those of ``sosie compare`` do, or two patterns, whose
        files pair up where what the stars stand for is the same.
    masks : Path, optional
        A mask for all images, or a folder with one for each, under the same name up to the
        extension: white where a pixel is missing.

    Raises
    ------
    ValueError
        There are no images, or what was given does not go together.
    OSError
        There is no such folder, file or collection.
    """
    if truth is None or damaged is None:
        if truth is not damaged:
            raise ValueError("expected both a folder of damaged images and one with the truth")
        rows, failures = _collected(data)
    else:
        pairs, failures = _pairs(truth, damaged)
        rows = [_row(name, original, damaged=other) for name, original, other in pairs]
    if masks is not None:
        if not masks.exists():
            raise FileNotFoundError(f"no mask, and no folder of masks, {printable(masks)}")
        rows = [_masked(row, masks, failures) for row in rows]
        rows = [row for row in rows if row["mask"]]
    if not rows:
        reason = f", {failures[0][0]}: {failures[0][1]}" if failures else ""
        raise ValueError(f"found no images in {data or truth}{reason}")
    return Cases(rows, failures)


def open_truth(row: Row) -> Pixels:
    """Image of a row, shape (H, W, C) with C = 1 or 3.

    Raises
    ------
    UnreadableImageError
        The file is broken, or of a kind that is not read.
    """
    if row["damaged"]:  # one of two files
        return read_named(row["truth"])
    if row["index"] < 0:
        return read_8_bit(Path(row["truth"]))
    return reference_images(row["truth"]).validation[row["index"]]


def read_named(path: str) -> Pixels:
    """8-bit image of a file, shape (H, W, C); what is wrong with it is said with its name."""
    try:
        return read_8_bit(Path(path))
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{printable(path)}: {error}") from error


@lru_cache(maxsize=1)
def reference_images(name: str) -> ImageCollection:
    """A collection, opened once in a process."""
    return open_collection(name)


def _collected(data: str) -> tuple[list[Row], list[tuple[str, str]]]:
    path = Path(data)
    if path.is_dir():
        files = [(file.relative_to(path), file) for file in path.rglob("*") if _is_image(file)]
        return [_row(printable(name), file) for name, file in sorted(files)], []
    if _is_image(path):
        return [_row(printable(path.name), path)], []
    if "*" in path.name:
        files = [(Path(name), file) for name, file in _matching(path).items()]
        return [_row(printable(name), file) for name, file in sorted(files)], []
    images = reference_images(data)
    width = len(str(len(images.validation) - 1))
    rows = [
        {**_row(f"{index:0{width}d}", path), "truth": data, "index": index}
        for index in range(len(images.validation))
    ]
    return rows, [(each.name, each.reason) for each in images.skipped]


def _pairs(
    truth: Path, damaged: Path
) -> tuple[list[tuple[str, Path, Path]], list[tuple[str, str]]]:
    if "*" not in truth.name + damaged.name:
        pairs, unmatched = match(truth, damaged)
        return (
            [(pair.name, pair.a, pair.b) for pair in pairs],
            [(file.name, file.reason) for file in unmatched],
        )
    originals, others = _matching(truth), _matching(damaged)
    names = sorted(originals.keys() & others.keys())
    return [(printable(name), originals[name], others[name]) for name in names], [
        (printable(name), "no partner") for name in sorted(originals.keys() ^ others.keys())
    ]


def _matching(pattern: Path) -> dict[str, Path]:
    """Files of a pattern by what its star stands for."""
    if pattern.name.count("*") != 1:
        raise ValueError(f"expected one * in the last part of {printable(pattern)}")
    before, after = pattern.name.split("*")
    return {
        file.name.removeprefix(before).removesuffix(after): file
        for file in pattern.parent.glob(pattern.name)
        if _is_image(file)
    }


def _is_image(path: Path) -> bool:
    return not path.name.startswith(".") and is_image_name(path) and path.is_file()


def _row(name: str, truth: Path, *, damaged: Path | None = None) -> Row:
    return {
        "name": name,
        "truth": os.fspath(truth.absolute()),
        "damaged": "" if damaged is None else os.fspath(damaged.absolute()),
        "mask": "",
        "index": -1,
        "truth_stamp": _stamp(truth),
        "damaged_stamp": _stamp(damaged),
        "mask_stamp": "",
    }


def _masked(row: Row, masks: Path, failures: list[tuple[str, str]]) -> Row:
    mask, reason = find_mask(Path(row["name"]), masks) if masks.is_dir() else (masks, "")
    if mask is None:
        failures.append((row["name"], reason))
        return row
    return {**row, "mask": os.fspath(mask.absolute()), "mask_stamp": _stamp(mask)}


def _stamp(path: Path | None) -> str:
    """Size and time of a file, as text; empty for what is no file."""
    if path is None or not path.is_file():
        return ""
    file = path.stat()
    return f"{file.st_size} {file.st_mtime_ns}"
