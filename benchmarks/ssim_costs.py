# SPDX-License-Identifier: Apache-2.0
"""What the SSIM benchmark measures beside races: time per pixel at all sizes; sizes, imports."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.race import BLOCK_CALLS, BLOCK_SECONDS
from benchmarks.ssim_cases import CASES, Case
from benchmarks.ssim_peers import FAMILY
from benchmarks.workers import Worker

__all__ = ["FLATNESS_SIZES", "IMPORTS", "MEMORY_SIZES", "Flatness", "flatness", "gray"]

#: Heights and widths of gray float32 images.
FLATNESS_SIZES = ((256, 256), (512, 512), (1080, 1920), (2160, 3840), (4320, 7680))
MEMORY_SIZES = ((1080, 1920), (4320, 7680))

#: What is imported, after NumPy.
IMPORTS = (
    "import sosie",
    "import fast_ssim",
    "import cv2",
    "from skimage.metrics import structural_similarity",
    "import torch",
    "import pytorch_msssim",
    "import kornia.metrics",
    "import torchmetrics.functional.image",
    "import frame_analytics",
)


@dataclass
class Flatness:
    """Time per pixel at each size.

    Attributes
    ----------
    threads : int
        Threads used.
    seconds : dict of (int, int) to list of float
        Seconds per pixel in each round, by height and width.
    spread : float
        Largest over smallest time per pixel: median over rounds.
    """

    threads: int
    seconds: dict[tuple[int, int], list[float]]

    @property
    def spread(self) -> float:
        """See the class."""
        rounds = zip(*self.seconds.values(), strict=True)
        spreads: list[float] = [max(each) / min(each) for each in rounds]
        return statistics.median(spreads)


def gray(size: tuple[int, int]) -> Case:
    """One gray float32 image of a height and a width."""
    return replace(CASES["forward-1080p"], name="gray", shape=(1, 1, *size))


def flatness(
    sizes: Sequence[tuple[int, int]], threads: int, rounds: int, progress: Callable[[str], None]
) -> Flatness:
    """Time sosie's forward pass on NumPy arrays at all sizes, in turn."""
    cases = {size: gray(size) for size in sizes}
    found = Flatness(threads, {size: [] for size in sizes})
    worker = Worker(FAMILY.module, "sosie", threads, "no-fault")
    try:
        worker.wait_until_ready()
        for case in cases.values():
            worker.ask("first", case=case.plain, convention=case.convention)
        for number in range(rounds):
            for size, case in cases.items():
                progress(f"{size[1]} x {size[0]}, round {number + 1} of {rounds}")
                answer = worker.ask(
                    "sample",
                    case=case.plain,
                    convention=case.convention,
                    at_least=BLOCK_SECONDS,
                    most_calls=BLOCK_CALLS,
                )
                found.seconds[size].append(answer["median"] / case.pixels)
    finally:
        worker.close()
    return found
