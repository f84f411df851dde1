# SPDX-License-Identifier: Apache-2.0
"""A convention in the numbers that kernels compute with, for those that are driven from Python."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sosie.spec import SSIMParameters

__all__ = ["Constants", "SSIMPlan", "ssim_plan"]


class Constants(NamedTuple):
    """Constants of the formula, of images multiplied by ``scale``."""

    scale: float
    twice_center: float
    c1: float
    c2: float
    epsilon: float
    covariance: float
    deficit: float  # 1 - sum of the window
    least_variance: float  # 0 where variances are clamped, else -inf
    lowest: float  # of the map
    highest: float


class SSIMPlan:
    """Parameters as the kernels take them: of one dtype, with three spatial axes.

    Attributes
    ----------
    windows : tuple of tuple of float
        One per axis (depth, height, width), scaled to sum to 1. That of an image's depth is (1.0,).
    taps : tuple of ndarray
        The same in the computing dtype.
    before, after : tuple of int
        How far each window reaches from its position.
    crop, stride, border
        As in :class:`sosie.SSIMParameters`.
    constants : Constants
    """

    def __init__(self, parameters: SSIMParameters, dtype: str, masked: bool) -> None:
        missing = 3 - len(parameters.taps)
        self.dtype = np.dtype(dtype)
        sums = [math.fsum(window) for window in parameters.taps]
        self.windows = ((1.0,),) * missing + tuple(
            tuple(tap / total for tap in window)
            for window, total in zip(parameters.taps, sums, strict=True)
        )
        self.taps: Any = tuple(_rounded(window, dtype) for window in self.windows)
        self.before = tuple((len(window) - 1) // 2 for window in self.windows)
        self.after = tuple(len(window) // 2 for window in self.windows)
        self.crop = ((0, 0),) * missing + parameters.crop
        self.stride = parameters.stride
        self.border = parameters.border
        # Under a mask every mean is over weights that sum to 1, whatever the window does.
        self.constants = self._constants(parameters, 1.0 if masked else math.prod(sums))

    def _constants(self, p: SSIMParameters, window_sum: float) -> Constants:
        # A power of two brings the range to at most 1, so that no product of four pixels leaves
        # float32; it rounds nothing.
        scale = 1.0 if p.data_range == 1.0 else 0.5 ** math.frexp(p.data_range)[1]
        lowest, highest = (-math.inf, math.inf) if p.clamp_value is None else p.clamp_value
        return Constants(
            scale=scale,
            twice_center=p.data_range * scale,
            c1=p.c1 * (scale / window_sum) ** 2,
            c2=p.c2 * scale**2,
            epsilon=p.epsilon * scale**4 / window_sum**2,
            covariance=p.covariance_scale * window_sum,
            deficit=1.0 - window_sum,
            least_variance=0.0 if p.clamp_variance else -math.inf,
            lowest=lowest,
            highest=highest,
        )

    def positions(self, box: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> list[range]:
        """Which indices of the map have their position inside a box of pixels, per axis."""
        ranges = []
        for (begin, end), (low, high), size in zip(box, self.crop, shape, strict=True):
            first = -(-max(begin - low, 0) // self.stride)
            last = -(-(min(end, size - high) - low) // self.stride)
            ranges.append(range(first, max(first, last)))
        return ranges

    def places(self, indices: Sequence[range], origin: Sequence[int]) -> tuple[slice, ...]:
        """The pixels of these indices of the map, counted from ``origin``."""
        return tuple(
            slice(
                low + index.start * self.stride - start,
                low + index.stop * self.stride - start,
                self.stride,
            )
            for index, (low, _), start in zip(indices, self.crop, origin, strict=True)
        )


@lru_cache(maxsize=256)
def ssim_plan(parameters: SSIMParameters, dtype: str, masked: bool) -> SSIMPlan:
    """The plan of a convention, made once."""
    return SSIMPlan(parameters, dtype, masked)


def _rounded(window: tuple[float, ...], dtype: str) -> NDArray[Any]:
    """Taps in the computing dtype that still sum to 1, as well as the largest can.

    A window that sums to ``1 + e`` would cost every variance ``e`` times the squared mean.
    """
    taps = np.array(window, dtype)
    largest = int(np.argmax(taps))
    taps[largest] = float(taps[largest]) + (1.0 - math.fsum(taps))
    return taps
