# SPDX-License-Identifier: Apache-2.0
"""What can be measured between two images: one row per measure.

All take two arrays of equal shape ``(H, W)`` or ``(H, W, C)`` and dtype, the data range and the
name of an SSIM convention, and return a number. Colour images: similarities are averaged over
channels, errors over all samples. Distances are those of images as vectors of all their samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sosie.paired import cosine_similarity, euclidean_distance
from sosie.spec import ssim_spec
from sosie.ssd import mse, psnr, weighted_ssd
from sosie.ssim import ms_ssim, ssim

__all__ = ["MEASURES", "Measure"]

Pixels = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Measure:
    """One way to compare two images.

    Attributes
    ----------
    name : str
        What it is called in commands and files.
    title : str
        What it is called on paper.
    unit : str
        Unit of its values; empty for a pure number.
    higher_is_better : bool
        Whether more similar images have higher values.
    digits : int
        Digits shown after the decimal point.
    compute : callable
        ``compute(x, y, data_range, spec)``, the value.
    default_spec : str
        The SSIM convention used unless another one is named; empty where there is none.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    digits: int
    compute: Callable[[Pixels, Pixels, float, str], float]
    default_spec: str = ""

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def spec(self, requested: str | None) -> str:
        """The convention to use where ``requested`` was asked for; empty where there is none.

        Raises
        ------
        ValueError
            No such convention, or it has no multi-scale index where one is needed.
        """
        if not self.default_spec or requested is None:
            return self.default_spec
        convention = ssim_spec(requested)
        if self.name == "ms-ssim" and convention.scale_weights is None:
            raise ValueError(f"spec {requested!r} has no multi-scale index, which ms-ssim needs")
        return requested

    def text(self, value: float) -> str:
        """A value as it is shown."""
        if math.isinf(value):
            return "∞" if value > 0 else "-∞"
        return f"{value:.{self.digits}f}"


def _ssim(x: Pixels, y: Pixels, data_range: float, spec: str) -> float:
    return float(ssim(x, y, data_range=data_range, spec=spec, channel_axis=_channel_axis(x)))


def _ms_ssim(x: Pixels, y: Pixels, data_range: float, spec: str) -> float:
    return float(ms_ssim(x, y, data_range=data_range, spec=spec, channel_axis=_channel_axis(x)))


def _channel_axis(x: Pixels) -> int | None:
    return -1 if x.ndim == 3 else None


def _mse(x: Pixels, y: Pixels, data_range: float, spec: str) -> float:  # noqa: ARG001
    return float(mse(x, y, channel_axis=_channel_axis(x)))


def _psnr(x: Pixels, y: Pixels, data_range: float, spec: str) -> float:  # noqa: ARG001
    return float(psnr(x, y, data_range=data_range, channel_axis=_channel_axis(x)))


def _euclidean_distance(x: Pixels, y: Pixels, data_range: float, spec: str) -> float:  # noqa: ARG001
    return float(euclidean_distance(x.reshape(-1), y.reshape(-1)))


def _cosine_similarity(x: Pixels, y: Pixels, data_range: float, spec: str) -> float:  # noqa: ARG001
    return float(cosine_similarity(x.reshape(-1), y.reshape(-1)))


def _sum_of_squared_differences(x: Pixels, y: Pixels, data_range: float, spec: str) -> float:  # noqa: ARG001
    return float(weighted_ssd(x, y))


#: Every measure by name.
MEASURES = {
    measure.name: measure
    for measure in (
        Measure("ssim", "SSIM", "", True, 4, _ssim, "wang2004"),
        Measure("ms-ssim", "MS-SSIM", "", True, 4, _ms_ssim, "wang2003"),
        Measure("psnr", "PSNR", "dB", True, 2, _psnr),
        Measure("mse", "MSE", "levels²", False, 2, _mse),
        Measure("euclidean", "Euclidean distance", "levels", False, 2, _euclidean_distance),
        Measure("cosine", "Cosine similarity", "", True, 6, _cosine_similarity),
        Measure("ssd", "SSD", "levels²", False, 2, _sum_of_squared_differences),
    )
}
