# SPDX-License-Identifier: Apache-2.0
"""How near repaired images come to the truth: a network, what is usual without one, and nothing.

Every version of an image is rounded to 8 bits before it is measured, as it would be in a file. For
super-resolution all is done on the luminance, and a border as wide as the scale does not count.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sosie.comparison.measures import MEASURES, Measure
from sosie.comparison.parts import FAILED, Row
from sosie.zoo.baselines import classical_repair
from sosie.zoo.degradations import Degradation, Downsample, parse_degradation
from sosie.zoo.evaluation.cases import ASKED, Cases, open_truth, read_named
from sosie.zoo.evaluation.work import Engine, Work, do_work, identity
from sosie.zoo.inference.photo_files import read_mask
from sosie.zoo.inference.repair import repair_image
from sosie.zoo.model import RepairModel
from sosie.zoo.noise import derived_seed
from sosie.zoo.registry import create_model
from sosie.zoo.resize import resize_bicubic

__all__ = [
    "BICUBIC",
    "DAMAGED",
    "Judge",
    "RepairEvaluation",
    "RepairProtocol",
    "Version",
    "common_scale",
    "evaluate_repair",
    "parse_measures",
    "versions_of",
]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Image = np.ndarray[Any, np.dtype[np.float32]]

#: Doing nothing; what that is called where images were reduced, and enlarged to be comparable.
DAMAGED, BICUBIC = "damaged", "bicubic"
#: Images up to this side go through the network whole.
_TILE = 512
#: Luminance of red, green and blue from 0 to 1, in levels; ITU-R BT.601 as MATLAB's rgb2ycbcr.
_LUMINANCE, _BLACK = np.array([65.481, 128.553, 24.966]), 16.0


@dataclass(frozen=True)
class Judge:
    """A measure by one convention.

    Attributes
    ----------
    name : str
        Of the measure, with the convention after a colon if it is not the measure's own.
    measure : Measure
    spec : str
        The convention; empty where there is none.
    """

    name: str
    measure: Measure
    spec: str

    @property
    def title(self) -> str:
        """For people."""
        suffix = f" ({self.spec})" if ":" in self.name else ""
        return self.measure.title + suffix

    @property
    def unit(self) -> str:
        """See :class:`Measure`."""
        return self.measure.unit

    @property
    def direction(self) -> str:
        """See :class:`Measure`."""
        return self.measure.direction

    @property
    def higher_is_better(self) -> bool:
        """See :class:`Measure`."""
        return self.measure.higher_is_better

    def text(self, value: float) -> str:
        """A value as it is shown; a dash where the measure is not defined."""
        return "–" if np.isnan(value) else self.measure.text(value)


def parse_measures(text: str) -> tuple[Judge, ...]:
    """Measures with commas between them, each with a convention after a colon if need be.

    Raises
    ------
    ValueError
        There is no such measure or convention.

    Examples
    --------
    >>> [judge.title for judge in parse_measures("psnr,ssim:scikit-image")]
    ['PSNR', 'SSIM (scikit-image)']
    """
    judges = {}
    for part in filter(None, (part.strip().lower() for part in text.split(","))):
        name, _, spec = part.partition(":")
        if name not in MEASURES:
            raise ValueError(f"expected measures out of {', '.join(MEASURES)}, got {name!r}")
        judges[part] = Judge(part, MEASURES[name], MEASURES[name].spec(spec or None))
    if not judges:
        raise ValueError(f"expected measures out of {', '.join(MEASURES)}, got none")
    return tuple(judges.values())


@dataclass(frozen=True)
class RepairProtocol:
    """What is measured, and how.

    Attributes
    ----------
    model : str
        Of the zoo; empty: none.
    weights : str or None
        As :func:`sosie.zoo.create_model` takes them.
    config : dict
        Fields of the model's configuration.
    degradation : str
        What is done to the images; empty where damaged files are given.
    masked : bool
        Whether there are masks of missing pixels.
    scale : int
        Of super-resolution; 1 where there is none.
    luminance : bool
        Repair and measure the luminance alone.
    border : int
        Pixels at each side that are not measured.
    measures : str
        See :func:`parse_measures`.
    seed : int
        Of the damage.
    """

    model: str = ""
    weights: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    degradation: str = ""
    masked: bool = False
    scale: int = 1
    luminance: bool = False
    border: int = 0
    measures: str = "psnr,ssim,ms-ssim,mse"
    seed: int = 0

    @property
    def judges(self) -> tuple[Judge, ...]:
        """What is measured of each version."""
        return parse_measures(self.measures)

    @property
    def damage(self) -> Degradation | None:
        """What is done to images."""
        return parse_degradation(self.degradation) if self.degradation else None

    @property
    def methods(self) -> dict[str, Callable[[Image, Any], Image]]:
        """Ways to repair an image by name, from doing nothing to the network."""
        found: dict[str, Callable[[Image, Any], Image]] = {}
        found[BICUBIC if self.scale > 1 else DAMAGED] = _unchanged
        damage = Downsample(self.scale) if self.scale > 1 else self.damage
        classical = classical_repair(damage, masked=self.masked)
        if classical is not None:
            found[classical.name] = classical.repair
        if self.model:
            found[self.model] = partial(_by_network, self)
        return found


@dataclass(frozen=True)
class Version:
    """An image as one method left it, and what was measured of it."""

    method: str
    pixels: Pixels
    values: dict[str, float]


@dataclass(frozen=True)
class RepairEvaluation:
    """Everything that came out.

    Attributes
    ----------
    protocol : RepairProtocol
    methods : tuple of str
    rows : list of dict
        One for each image that was measured; "method/measure" to value.
    failures : list of tuple of str
        Names of the others, each with a reason.
    """

    protocol: RepairProtocol
    methods: tuple[str, ...]
    rows: list[Row]
    failures: list[tuple[str, str]]

    def mean(self, method: str, judge: str) -> float:
        """Mean over the images on which the measure is defined; NaN if there is none."""
        values = np.array([row[f"{method}/{judge}"] for row in self.rows], np.float64)
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")


def evaluate_repair(
    cases: Cases,
    protocol: RepairProtocol,
    engine: Engine | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> RepairEvaluation:
    """Repair images and measure how near they come to the truth.

    Parameters
    ----------
    cases : Cases
        Of :func:`sosie.zoo.evaluation.cases.find_cases`.
    protocol : RepairProtocol
    engine : Engine, optional
    on_done : callable
        Called with a number of images as they are done.

    Raises
    ------
    ValueError
        The protocol, or the engine's folder, does not fit.
    """
    methods = tuple(protocol.methods)
    names = [f"{method}/{judge.name}" for method in methods for judge in protocol.judges]
    work = Work(partial(_measured, protocol=protocol), names, ASKED, _settings(protocol))
    rows = do_work(work, cases.rows, engine or Engine(), on_done)
    failures = [(row["name"], row[FAILED]) for row in rows if row[FAILED] is not None]
    measured = [row for row in rows if row[FAILED] is None]
    return RepairEvaluation(protocol, methods, measured, [*cases.failures, *failures])


def versions_of(row: Row, protocol: RepairProtocol) -> tuple[Pixels, list[Version]]:
    """The truth, and every method's version of an image.

    Raises
    ------
    ValueError
        A file cannot be read, or files of a case do not fit.
    """
    truth, damaged, known = _case(row, protocol)
    versions = []
    for method, repair in protocol.methods.items():
        pixels = _rounded(repair(damaged, known))
        values = {judge.name: _value(judge, pixels, truth, protocol) for judge in protocol.judges}
        versions.append(Version(method, pixels, values))
    return truth, versions


def common_scale(rows: Sequence[Row]) -> int:
    """By how much damaged files are smaller than the truth; 1 if they are of one size.

    The first files decide of which one size is a multiple of the other.
    """
    for row in rows:
        if not row["damaged"]:
            continue
        try:
            truth, damaged = open_truth(row), read_named(row["damaged"])
            scale = max(1, int(truth.shape[0] // damaged.shape[0]))
            _check_sizes(truth, damaged, scale)
        except ValueError:  # it is named when its turn comes
            continue
        return scale
    return 1


def _measured(row: Row, protocol: RepairProtocol) -> dict[str, float]:
    _, versions = versions_of(row, protocol)
    return {
        f"{version.method}/{name}": value
        for version in versions
        for name, value in version.values.items()
    }


def _settings(protocol: RepairProtocol) -> dict[str, Any]:
    settings = {**asdict(protocol), "conventions": [judge.spec for judge in protocol.judges]}
    if protocol.model:
        model = _network(protocol)
        settings |= identity(model)
    return settings


def _case(row: Row, protocol: RepairProtocol) -> tuple[Pixels, Image, Any]:
    """Truth (H, W, C), damaged image in [0, 1] of its size, which pixels are known (H, W)."""
    truth = open_truth(row)
    scale, damage = protocol.scale, protocol.damage
    if row["damaged"]:
        shown = read_named(row["damaged"])
        _check_sizes(truth, shown, scale)
        known = np.ones(truth.shape[:2], bool)
        if protocol.luminance:
            truth, damaged = _rounded(_luminance(truth)), _luminance(shown)
        else:
            _check_channels(truth, shown)
            damaged = _to_unit(shown)
        if scale > 1:
            damaged = _enlarged(damaged, truth.shape[:2])
    else:
        height, width = (side // scale * scale for side in truth.shape[:2])
        truth = truth[:height, :width]
        if protocol.luminance:
            truth = _rounded(_luminance(truth))
        if damage is None:
            damaged, known = _to_unit(truth), np.ones(truth.shape[:2], bool)
        else:
            seed = derived_seed(protocol.seed, zlib.crc32(row["name"].encode()))
            damaged, known = _damaged(truth, damage, seed)
    if row["mask"]:
        known = known & ~read_mask(Path(row["mask"]), truth.shape[:2])
        damaged = damaged * known[..., None]
    return truth, damaged, known


def _check_sizes(truth: Pixels, damaged: Pixels, scale: int) -> None:
    if tuple(scale * side for side in damaged.shape[:2]) != truth.shape[:2]:
        raise ValueError(
            f"sizes differ: the truth has {truth.shape[1]} x {truth.shape[0]} pixels, the damaged "
            f"image {damaged.shape[1]} x {damaged.shape[0]}"
            + (f", not 1/{scale} of that" if scale > 1 else "")
        )


def _check_channels(truth: Pixels, damaged: Pixels) -> None:
    if truth.shape[2] != damaged.shape[2]:
        raise ValueError(f"kinds of image differ: {truth.shape[2]} and {damaged.shape[2]} channels")


def _damaged(truth: Pixels, damage: Degradation, seed: int) -> tuple[Image, Any]:
    images = torch.from_numpy(np.ascontiguousarray(_to_unit(truth).transpose(2, 0, 1)))[None]
    damaged, known = damage(images, generator=torch.Generator().manual_seed(seed))
    return np.ascontiguousarray(damaged[0].permute(1, 2, 0).numpy()), known[0, 0].numpy() > 0


def _enlarged(image: Image, size: Sequence[int]) -> Image:
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    enlarged = resize_bicubic(planes, (size[0], size[1])).clamp(0, 1)
    return np.ascontiguousarray(enlarged.permute(1, 2, 0).numpy())


def _luminance(pixels: Pixels) -> Image:
    """In [0, 1], shape (H, W, 1); gray images are taken as they are."""
    if pixels.shape[2] == 1:
        return _to_unit(pixels)
    levels = _BLACK + pixels / 255.0 @ _LUMINANCE
    image: Image = (levels / 255.0).astype(np.float32)[..., None]
    return image


def _to_unit(pixels: Pixels) -> Image:
    image: Image = pixels.astype(np.float32) / np.float32(255)
    return image


def _rounded(image: Image) -> Pixels:
    pixels: Pixels = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    return pixels


def _value(judge: Judge, pixels: Pixels, truth: Pixels, protocol: RepairProtocol) -> float:
    border = protocol.border
    inside = np.s_[border : -border or None, border : -border or None]
    images = [np.ascontiguousarray(each[inside]) for each in (pixels, truth)]
    if 0 in images[0].shape:
        raise ValueError(f"smaller than its border of {border} pixels")
    a, b = (each[..., 0] if each.shape[2] == 1 else each for each in images)
    try:
        return judge.measure.compute(a, b, 255.0, judge.spec)
    except ValueError:  # smaller than the window, or than that of the coarsest scale
        return float("nan")


def _unchanged(damaged: Image, known: Any) -> Image:
    del known
    return damaged


def _by_network(protocol: RepairProtocol, damaged: Image, known: Any) -> Image:
    model = _network(protocol)
    mask = None if known.all() else ~known
    repaired: Image = repair_image(model, damaged, mask, tile=_TILE)
    return repaired


def _network(protocol: RepairProtocol) -> RepairModel:
    return _opened(protocol.model, protocol.weights, json.dumps(protocol.config))


@lru_cache(maxsize=2)
def _opened(name: str, weights: str | None, config: str) -> RepairModel:
    """A network, made once in a process; its configuration is text, which can be looked up."""
    model: Any = create_model(name, weights=weights, **json.loads(config))
    if not isinstance(model, RepairModel):
        raise ValueError(f"expected a model that repairs images, got {name}")
    return model.eval()
