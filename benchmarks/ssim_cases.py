# SPDX-License-Identifier: Apache-2.0
"""What the SSIM benchmark measures: images, measure, task, and the least time they can take.

The floor of a case is the longer of two times, with this machine's measured peaks:

- moving its bytes from memory: both images once for the forward pass; for forward and backward both
  images twice and the gradient once;
- issuing its arithmetic: per pixel, an 11-tap separable window over four filtered planes takes
  4 x 2 x 11 = 88 fused multiply-adds and the map about 34 more float operations, 122 slots; the
  backward pass, which computes the map's parts again, 225 more. A slot is one lane of one
  multiply-add instruction, so a core issues half as many slots per second as it does operations in
  its multiply-add peak.

For the multi-scale index, the pixels of all scales count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import Peaks

__all__ = ["CASES", "Case", "images"]

FORWARD_SLOTS = 88 + 34
BACKWARD_SLOTS = 225
SCALES = 5


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes
    ----------
    name : str
        What it is called on the command line.
    kind : {"gaussian", "uniform", "ms-ssim"}
        Window of the single-scale index, or the multi-scale index.
    shape : tuple of int
        ``(batch, channels, height, width)``.
    dtype : {"float32", "uint8"}
        float32 images are in [0, 1].
    gradient : bool
        Whether the gradient of one minus the similarity with respect to the first image is wanted.
    """

    name: str
    kind: str
    shape: tuple[int, int, int, int]
    dtype: str = "float32"
    gradient: bool = False

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Case:
        """The case whose `plain` this is."""
        return cls(**{**plain, "shape": tuple(plain["shape"])})

    @property
    def plain(self) -> dict[str, Any]:
        """The case as plain data."""
        return asdict(self)

    @property
    def title(self) -> str:
        """One line that says what is measured."""
        measure = {
            "gaussian": "SSIM, Gaussian 11 x 11",
            "uniform": "SSIM, uniform 7 x 7",
            "ms-ssim": f"MS-SSIM, {SCALES} scales",
        }[self.kind]
        task = "forward + backward" if self.gradient else "forward"
        return f"{measure}, {task}, {'x'.join(map(str, self.shape))} {self.dtype}"

    @property
    def data_range(self) -> float:
        """Difference between the largest and the smallest value a pixel can have."""
        return 255.0 if self.dtype == "uint8" else 1.0

    @property
    def pixels(self) -> int:
        """Pixels of all planes of one of the two images."""
        return int(np.prod(self.shape))

    @property
    def convention(self) -> dict[str, Any]:
        """What `sosie.ssim` or `sosie.ms_ssim` computes the case with by itself."""
        spec = {"gaussian": "wang2004", "uniform": "scikit-image", "ms-ssim": "wang2003"}
        return {"spec": spec[self.kind]}

    @property
    def has_floor(self) -> bool:
        """Whether `floor` says something.

        Uniform windows take fewer operations than are counted here; a small image takes as long as
        the call itself.
        """
        return self.kind != "uniform" and self.pixels > 1 << 16

    def floor(self, peaks: Peaks) -> float:
        """Least seconds the case can take, where it `has_floor`."""
        size = 1 if self.dtype == "uint8" else 4
        images = self.pixels * size
        moved = 4 * images + self.pixels * 4 if self.gradient else 2 * images
        scales = SCALES if self.kind == "ms-ssim" else 1
        filtered = sum(self.pixels / 4**scale for scale in range(scales))
        slots = filtered * (FORWARD_SLOTS + (BACKWARD_SLOTS if self.gradient else 0))
        return float(max(moved / peaks.bandwidth, slots / (peaks.flops / 2)))

    def smaller(self) -> Case:
        """The same with few pixels, to see whether everything runs."""
        batch, channels, height, width = self.shape
        least = self._least_side
        return replace(
            self,
            shape=(min(batch, 2), channels, max(height // 4, least), max(width // 4, least)),
        )

    @property
    def tiny(self) -> Case:
        """The same with hardly a pixel."""
        return replace(self, shape=(1, self.shape[1], self._least_side, self._least_side))

    @property
    def _least_side(self) -> int:
        return 11 << (SCALES - 1) if self.kind == "ms-ssim" else 32


_HD = (1, 1, 1080, 1920)
_BATCH = (16, 3, 256, 256)
_MULTI_SCALE = (8, 3, 256, 256)

CASES = {
    case.name: case
    for case in (
        Case("forward-1080p", "gaussian", _HD),
        Case("forward-batch", "gaussian", _BATCH),
        Case("forward-uint8", "gaussian", _HD, dtype="uint8"),
        Case("uniform-float32", "uniform", _HD),
        Case("uniform-uint8", "uniform", _HD, dtype="uint8"),
        Case("small", "gaussian", (1, 1, 32, 32)),
        Case("ms-forward", "ms-ssim", _MULTI_SCALE),
        Case("gradient-1080p", "gaussian", _HD, gradient=True),
        Case("gradient-batch", "gaussian", _BATCH, gradient=True),
        Case("ms-gradient", "ms-ssim", _MULTI_SCALE, gradient=True),
    )
}


def images(case: Case) -> tuple[NDArray[Any], NDArray[Any]]:
    """An image and a damaged copy, of the case's shape and dtype; the same in every process.

    Smooth shading, edges and grain, then noise: similarity differs from place to place, and none of
    its terms is degenerate.
    """
    generator = np.random.default_rng(0)
    x, y = np.empty((2, *case.shape), np.float32)
    for plane in np.ndindex(case.shape[:2]):
        height, width = case.shape[2:]
        rows = np.linspace(0.0, 9.0, height, dtype=np.float32)[:, None] + np.float32(plane[0])
        columns = np.linspace(0.0, 16.0, width, dtype=np.float32) + np.float32(plane[1])
        shading = 0.5 + 0.25 * np.sin(rows) * np.cos(columns)
        edges = 0.2 * ((np.floor(rows) + np.floor(columns)) % 2)
        grain, noise = _noise(generator, height, width)
        x[plane] = np.clip(shading + edges + 0.1 * grain, 0.0, 1.0)
        y[plane] = np.clip(x[plane] + 0.2 * noise, 0.0, 1.0)
    if case.dtype == "uint8":
        return np.rint(x * 255.0).astype(np.uint8), np.rint(y * 255.0).astype(np.uint8)
    return x, y


def _noise(generator: np.random.Generator, height: int, width: int) -> Iterator[NDArray[Any]]:
    for _ in range(2):
        yield generator.random((height, width), dtype=np.float32) - np.float32(0.5)
