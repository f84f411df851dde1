# SPDX-License-Identifier: Apache-2.0
"""Which file is compared with which."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sosie.comparison.files import is_image_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Pair", "Unmatched", "match"]


@dataclass(frozen=True)
class Pair:
    """Two files to compare.

    Attributes
    ----------
    name : str
        What the pair is called: its path relative to the folders.
    a, b : Path
        The two files.
    """

    name: str
    a: Path
    b: Path


@dataclass(frozen=True)
class Unmatched:
    """A file without a partner, and why."""

    name: str
    reason: str


def match(a: Path, b: Path) -> tuple[list[Pair], list[Unmatched]]:
    """Pairs of two files, or of the images below two folders, and the files left over.

    In folders, files of equal relative path are pairs. Files left over then pair up if their paths
    are equal but for the extension and each is the only one of that name on its side: a folder of
    PNG files can be compared with their JPEG versions. Files whose extension is of no image format,
    and files whose name starts with a dot, do not count.

    Raises
    ------
    ValueError
        One is a folder and the other a file, or one does not exist.
    """
    for path in (a, b):
        if not path.exists():
            raise ValueError(f"no such file or folder: {printable(path)}")
    if a.is_dir() != b.is_dir():
        folder, file = (a, b) if a.is_dir() else (b, a)
        raise ValueError(
            "expected two files or two folders, "
            f"got a folder {printable(folder)} and a file {printable(file)}"
        )
    if not a.is_dir():
        name = a.name if a.name == b.name else f"{a.name} | {b.name}"
        return [Pair(printable(name), a, b)], []
    return _match_folders(a, b)


def printable(path: str | os.PathLike[str]) -> str:
    """Path as valid text; bytes of a name that are none become replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")


def _match_folders(a: Path, b: Path) -> tuple[list[Pair], list[Unmatched]]:
    only_a, only_b = _images(a), _images(b)
    matched = [(path, path) for path in only_a & only_b]
    only_a, only_b = only_a - only_b, only_b - only_a
    stems_a, stems_b = _by_stem(only_a), _by_stem(only_b)
    unmatched = []
    for paths, others, folder in ((stems_a, stems_b, b), (stems_b, stems_a, a)):
        for stem, members in paths.items():
            partners = others.get(stem, [])
            if len(members) == len(partners) == 1:
                if folder is b:
                    matched.append((members[0], partners[0]))
                continue
            reason = f"no partner in {printable(folder)}"
            if partners:
                reason += f": {len(members)} and {len(partners)} files of this name"
            unmatched += [Unmatched(printable(path), reason) for path in members]
    pairs = [Pair(printable(path_a), a / path_a, b / path_b) for path_a, path_b in matched]
    return sorted(pairs, key=lambda pair: pair.name), sorted(unmatched, key=lambda file: file.name)


def _images(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if not path.name.startswith(".") and is_image_name(path) and path.is_file()
    }


def _by_stem(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    stems = defaultdict(list)
    for path in paths:
        stems[path.with_suffix("")].append(path)
    return stems
