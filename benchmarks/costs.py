# SPDX-License-Identifier: Apache-2.0
"""What sosie costs beside its time at one size: time per pixel at all sizes, memory, import."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.race import BLOCK_CALLS, BLOCK_SECONDS
from benchmarks.ssim_cases import CASES, Case
from benchmarks.workers import Worker

__all__ = ["FLATNESS_SIZES", "IMPORTS", "MEMORY_SIZES", "Flatness", "flatness", "imports", "memory"]

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

_MODULE = "benchmarks.ssim_peers"


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


def _gray(size: tuple[int, int]) -> Case:
    return replace(CASES["forward-1080p"], name="gray", shape=(1, 1, *size))


def flatness(
    sizes: Sequence[tuple[int, int]], threads: int, rounds: int, progress: Callable[[str], None]
) -> Flatness:
    """Time sosie's forward pass on NumPy arrays at all sizes, in turn."""
    cases = {size: _gray(size) for size in sizes}
    found = Flatness(threads, {size: [] for size in sizes})
    worker = Worker(_MODULE, "sosie", threads, "no-fault")
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


def memory(size: tuple[int, int], threads: int) -> int | None:
    """Bytes by which one forward pass raises the resident memory of a fresh process at its peak.

    A call with a small image first loads what a process loads once. None if it cannot be measured.
    """
    worker = Worker(_MODULE, "sosie", threads, "default")
    try:
        worker.wait_until_ready()
        for each in ((32, 32), size):
            case = _gray(each)
            answer = worker.ask("first", case=case.plain, convention=case.convention)
        extra: int | None = answer["extra_bytes"]
        return extra
    finally:
        worker.close()


def imports(
    statements: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds that each import takes in a fresh interpreter that has NumPy already.

    What is not installed is left out; sosie takes part in all rounds, the others in the first.
    """
    found: dict[str, list[float]] = {statement: [] for statement in statements}
    for number in range(rounds):
        for statement in statements if number == 0 else statements[:1]:
            progress(f"{statement}, round {number + 1} of {rounds}")
            seconds = _import_seconds(statement)
            if seconds is not None:
                found[statement].append(seconds)
    return {statement: seconds for statement, seconds in found.items() if seconds}


def _import_seconds(statement: str) -> float | None:
    code = (
        "import json, time, numpy\n"
        "start = time.perf_counter()\n"
        f"{statement}\n"
        "print(json.dumps(time.perf_counter() - start))"
    )
    with tempfile.TemporaryDirectory() as elsewhere:  # nothing but installed modules on the path
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=os.environ,
            check=False,
        )
    if result.returncode != 0:
        return None
    seconds: float = json.loads(result.stdout.splitlines()[-1])
    return seconds
