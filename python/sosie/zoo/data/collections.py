# SPDX-License-Identifier: Apache-2.0
"""Collections of images by name or path, divided into some to train on and some to judge by.

=======================  ========================================================================
``photographs``          the photographs inside scikit-image, two of them to judge by
``free-photographs``     the free ones of these and of Debian's ``lomiri-wallpapers-16.04``; the
                         same two to judge by
``fashion-mnist``        all of Fashion-MNIST, where Debian's ``dataset-fashion-mnist`` puts it
``fashion-mnist-2000``   its first 2,000 test images, which come with sosie
``digits``               the 1,797 digits of 8 x 8 pixels inside scikit-learn
a folder                 its images, at any depth
a file                   ``.npz`` or ``.npy`` with an array (N, H, W) or (N, H, W, C) of 8 bits;
                         idx, as MNIST has it, compressed or not
=======================  ========================================================================

Where nothing says otherwise, every tenth image is to judge by. Arrays of a ``.npz`` file that are
named after "train" and "test" say so; one of integers (N,) has the classes of the images.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, overload

import numpy as np

from sosie.comparison.files import UnreadableImageError, is_image_name, read_picture
from sosie.zoo import photographs
from sosie.zoo.data import free_photographs

__all__ = ["ImageCollection", "Skipped", "list_collections", "open_collection"]

#: 8-bit image, shape (H, W, C).
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
#: Class of each image, counted from 0.
Labels = np.ndarray[Any, np.dtype[np.int64]]

#: Where Debian's package has the files.
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_IDX_NAMES = ("images-idx3", "labels-idx1")
#: Every so many images, one is to judge by.
_HELD_OUT = 10
#: Decoded images of a folder are kept in memory up to this many bytes.
_MEMORY = 2 << 30


@dataclass(frozen=True)
class Skipped:
    """An image that could not be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ImageCollection:
    """Images to train on, and images to judge by.

    Attributes
    ----------
    training, validation : sequence of ndarray of uint8, shape (H, W, C)
        C is 1 or 3.
    weights : ndarray or None
        Probability of each training image to be drawn; by default all take turns.
    skipped : list of Skipped
        What was left out.
    training_labels, validation_labels : ndarray of int64 or None
        Classes of the images, if they are known.
    """

    training: Sequence[Pixels]
    validation: Sequence[Pixels]
    weights: np.ndarray[Any, np.dtype[np.float64]] | None = None
    skipped: list[Skipped] = field(default_factory=list)
    training_labels: Labels | None = None
    validation_labels: Labels | None = None

    def common_shape(self) -> tuple[int, int, int] | None:
        """Shape (C, H, W) of all images, if they have one in common."""
        shapes = {image.shape for part in (self.training, self.validation) for image in part}
        if len(shapes) != 1:
            return None
        height, width, channels = shapes.pop()
        return channels, height, width

    def __len__(self) -> int:
        """How many different images there are."""
        shared = self.validation is self.training
        return len(self.training) + (0 if shared else len(self.validation))

    def at_least(self, crop: tuple[int, int]) -> ImageCollection:
        """Those images that are no smaller than a crop, the others among the skipped ones.

        Raises
        ------
        ValueError
            There is no such image to train on.
        """
        skipped = list(self.skipped)
        training, fits = _fitting(self.training, crop, skipped)
        if self.validation is self.training:
            validation, validation_fits = training, fits
        else:
            validation, validation_fits = _fitting(self.validation, crop, skipped)
        if not len(training):
            raise ValueError(
                f"expected images of at least {crop[1]} x {crop[0]} pixels, "
                f"all {len(fits)} are smaller, {skipped[-1].name}: {skipped[-1].reason}"
            )
        weights = self.weights
        if weights is not None:
            weights = weights[np.array(fits)]
            weights = weights / weights.sum()
        training_labels = _chosen(self.training_labels, fits)
        validation_labels = _chosen(self.validation_labels, validation_fits)
        if not len(validation):
            validation, validation_labels = training, training_labels
        return ImageCollection(
            training, validation, weights, skipped, training_labels, validation_labels
        )


def _chosen(labels: Labels | None, fits: list[bool]) -> Labels | None:
    return None if labels is None else labels[np.array(fits, bool)]


def _fitting(
    images: Sequence[Pixels], crop: tuple[int, int], skipped: list[Skipped]
) -> tuple[Sequence[Pixels], list[bool]]:
    """Images no smaller than a crop, and which those are; the others are added to ``skipped``."""
    fits = []
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        fits.append(height >= crop[0] and width >= crop[1])
        if not fits[-1]:
            name = images.name(i) if isinstance(images, _Files) else f"image {i + 1}"
            reason = f"{width} x {height}, smaller than the crop of {crop[1]} x {crop[0]}"
            skipped.append(Skipped(name, reason))
    if all(fits):
        return images, fits
    chosen = [i for i, fit in enumerate(fits) if fit]
    if isinstance(images, _Files):
        return images.chosen(chosen), fits
    return [images[i] for i in chosen], fits


def list_collections() -> list[str]:
    """Names that :func:`open_collection` knows besides paths."""
    return sorted(_NAMED)


def open_collection(name: str | Path) -> ImageCollection:
    """Open a collection; see the module for names and kinds of files.

    Raises
    ------
    FileNotFoundError
        There is no such file, or the package that has the collection is not installed.
    ValueError
        The file holds no images, or all of them are unreadable.

    Examples
    --------
    >>> images = open_collection("fashion-mnist-2000")
    >>> len(images.training), len(images.validation), images.common_shape()
    (1800, 200, (1, 28, 28))
    """
    if isinstance(name, str) and name in _NAMED:
        return _NAMED[name]()
    path = Path(name)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no collection or path {str(name)!r}; collections are {', '.join(list_collections())}"
        )
    return _open_file(path)


# -------------------------------------------------------------------------------------------- named


def _photographs() -> ImageCollection:
    """Photographs and copies of half their size: few images, more scales."""
    whole = [photographs.load_photograph(name) for name in photographs.TRAINING]
    return _weighted([*whole, *(photographs.halved(photograph) for photograph in whole)])


def _free_photographs() -> ImageCollection:
    return _weighted(
        [image for name in free_photographs.CREDITS for image in free_photographs.load_scaled(name)]
    )


def _weighted(training: list[Pixels]) -> ImageCollection:
    weights = np.array([_weight(photograph) for photograph in training])
    held_out = [photographs.load_photograph(name) for name in photographs.HELD_OUT]
    return ImageCollection(training, held_out, weights / weights.sum())


def _weight(photograph: Pixels) -> float:
    """In proportion to the root of the area; gray photographs count for a third."""
    is_gray = np.ptp(photograph, axis=2).max() == 0
    return float(np.sqrt(photograph[..., 0].size)) * (1 / 3 if is_gray else 1.0)


def _fashion_mnist() -> ImageCollection:
    arrays = []
    for name in (f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in _IDX_NAMES):
        path = FASHION_MNIST / name
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}: Debian's package dataset-fashion-mnist puts it there; "
                "fashion-mnist-2000 comes with sosie"
            )
        arrays.append(_read_idx(path))
    training, validation = (_as_images(images, FASHION_MNIST) for images in arrays[::2])
    training_labels, validation_labels = (labels.astype(np.int64) for labels in arrays[1::2])
    return ImageCollection(
        training,
        validation,
        training_labels=training_labels,
        validation_labels=validation_labels,
    )


def _fashion_mnist_2000() -> ImageCollection:
    path = Path(str(files("sosie.zoo.data"))) / "fashion_mnist_2000.npz"
    return _open_file(path)


def _digits() -> ImageCollection:
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8) from 0 to 16
    return _divided(_as_images(levels, Path("digits")), digits.target.astype(np.int64))


_NAMED: dict[str, Callable[[], ImageCollection]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "fashion-mnist-2000": _fashion_mnist_2000,
    "free-photographs": _free_photographs,
    "photographs": _photographs,
}


# ------------------------------------------------------------------------------------------ folders


class _Files(Sequence[Pixels]):
    """Images in files, read when they are first needed and kept while there is room."""

    def __init__(self, folder: Path, paths: list[Path], kept: dict[Path, Pixels]) -> None:
        self._folder, self._paths, self._kept = folder, paths, kept

    def name(self, index: int) -> str:
        """Of the file, as seen from the folder."""
        return str(self._paths[index].relative_to(self._folder))

    def chosen(self, indices: list[int]) -> _Files:
        """Some of them."""
        return _Files(self._folder, [self._paths[i] for i in indices], self._kept)

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pixels]: ...
    def __getitem__(self, index: int | slice) -> Pixels | Sequence[Pixels]:
        if isinstance(index, slice):
            return self.chosen(list(range(len(self)))[index])
        path = self._paths[index]
        return self._kept[path] if path in self._kept else read_8_bit(path)


def _open_folder(folder: Path) -> ImageCollection:
    paths, kept, skipped, used = [], {}, [], 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not is_image_name(path):
            continue
        name = str(path.relative_to(folder))
        try:
            pixels = read_8_bit(path)
        except UnreadableImageError as error:
            skipped.append(Skipped(name, str(error)))
            continue
        paths.append(path)
        if used + pixels.nbytes <= _MEMORY:
            kept[path] = pixels
            used += pixels.nbytes
    if not paths:
        found = f"{len(skipped)} unreadable ones" if skipped else "none"
        first = f", {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise ValueError(f"expected images in {folder}, found {found}{first}")
    files = _Files(folder, paths, kept)
    if len(paths) < _HELD_OUT:  # all are trained on and judged by
        return ImageCollection(files, files, skipped=skipped)
    held_out = [i for i in range(len(paths)) if _is_held_out(i)]
    others = [i for i in range(len(paths)) if not _is_held_out(i)]
    return ImageCollection(files.chosen(others), files.chosen(held_out), skipped=skipped)


def read_8_bit(path: Path) -> Pixels:
    """(H, W, C) with C = 1 or 3: 16-bit samples rounded to 8, alpha left out."""
    picture = read_picture(path)
    pixels = picture.pixels
    if pixels.dtype == np.float32:
        raise UnreadableImageError("expected 8 or 16 bits, found floating point")
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if picture.channels.endswith(" with alpha"):
        pixels = pixels[..., :-1]
    return np.ascontiguousarray(pixels)


# -------------------------------------------------------------------------------------------- files


def _open_file(path: Path) -> ImageCollection:
    name = path.name.removesuffix(".gz")
    if name.endswith((".npz", ".npy")):
        return _open_numpy(path)
    if "idx" in name:
        return _divided(_as_images(_read_idx(path), path))
    raise ValueError(f"expected a folder, or a file .npz, .npy or idx, got {path}")


def _open_numpy(path: Path) -> ImageCollection:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _divided(_as_images(loaded, path))
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is truncated or no NumPy file: {error}") from error
    names = [name for name, array in arrays.items() if array.ndim >= 3]
    if not names:
        shapes = ", ".join(str(array.shape) for array in arrays.values()) or "none"
        raise ValueError(f"expected an array (N, H, W) in {path}, found shapes {shapes}")
    parts = [next((name for name in names if part in name), None) for part in ("train", "test")]
    if None in parts or parts[0] == parts[1]:
        return _divided(_as_images(arrays[names[0]], path), _labels(arrays, names[0]))
    training, validation = (str(name) for name in parts)
    return ImageCollection(
        _as_images(arrays[training], path),
        _as_images(arrays[validation], path),
        training_labels=_labels(arrays, training),
        validation_labels=_labels(arrays, validation),
    )


def _labels(arrays: dict[str, np.ndarray[Any, np.dtype[Any]]], images: str) -> Labels | None:
    """Of the images under a name, if there are integers as many as those.

    Of several, the one that is of the same part; "train_labels" and "train_images", for example.
    """
    found = [
        name
        for name, array in arrays.items()
        if array.ndim == 1 and array.dtype.kind in "iu" and len(array) == len(arrays[images])
    ]
    parts = [part for part in ("train", "test") if part in images]
    of_part = [name for name in found if any(part in name for part in parts)]
    names = of_part or found
    return arrays[names[0]].astype(np.int64) if names else None


def _read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Array of an idx file: two zero bytes, the type (8: uint8), the number of axes, the sizes."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        axes = content[3]
        sizes = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    except (OSError, EOFError, IndexError, struct.error) as error:
        raise ValueError(f"{path} is truncated or no idx file: {error}") from error
    samples = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if content[:3] != b"\0\0\x08" or samples.size != np.prod(sizes):
        raise ValueError(
            f"{path} is truncated or no idx file of bytes: {samples.size} samples for sizes {sizes}"
        )
    return samples.reshape(sizes)


def _as_images(array: np.ndarray[Any, np.dtype[Any]], path: Path) -> list[Pixels]:
    if array.ndim == 3:
        array = array[..., None]
    if (
        array.ndim != 4
        or array.shape[-1] not in (1, 3)
        or array.dtype != np.uint8
        or not len(array)
    ):
        raise ValueError(
            f"expected 8-bit images (N, H, W), or (N, H, W, C) with C = 1 or 3, in {path}, "
            f"got {array.dtype} {array.shape}"
        )
    return list(array)


def _divided(images: list[Pixels], labels: Labels | None = None) -> ImageCollection:
    held_out = [i for i in range(len(images)) if _is_held_out(i)]
    others = [i for i in range(len(images)) if not _is_held_out(i)]
    if not held_out:
        return ImageCollection(images, images, training_labels=labels, validation_labels=labels)
    return ImageCollection(
        [images[i] for i in others],
        [images[i] for i in held_out],
        training_labels=None if labels is None else labels[others],
        validation_labels=None if labels is None else labels[held_out],
    )


def _is_held_out(index: int) -> bool:
    return index % _HELD_OUT == _HELD_OUT - 1
