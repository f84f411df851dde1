# SPDX-License-Identifier: Apache-2.0
"""What each kernel costs by count, and the time that an H100 needs for it at least.

Counted by hand from the sources: bytes of device memory where every input is read once and halos
come from the caches; words of shared memory; issue slots, and those of them that the special
function units take. The time is that of whichever is the bottleneck; as a share of it at best, what
memory alone would take. If nothing overlapped, times would add up. Nothing here was measured.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import Table

__all__ = ["COSTS", "H100", "Cost", "Limits", "prediction"]


@dataclass(frozen=True)
class Limits:
    """Rates of a device per second."""

    name: str
    bytes: float
    slots: float
    words: float
    special: float


#: SXM5: HBM3; 132 multiprocessors of 128 lanes, 32 banks and 16 lanes for special functions at
#: 1.755 GHz, which it sustains.
H100 = Limits("H100 SXM", 3.35e12, *(132 * lanes * 1.755e9 for lanes in (128, 32, 16)))


@dataclass(frozen=True)
class Cost:
    """Per element of one image, per pair, or per number of a recurrent layer's state.

    Attributes
    ----------
    kernel : str
        Its name.
    task : str
        What it is called for.
    bytes, slots, words, special : float
        Of device memory; issued instructions of one lane; words of shared memory; instructions for
        the special function units, a part of the slots.
    """

    kernel: str
    task: str
    bytes: float
    slots: float
    words: float = 0
    special: float = 0

    def picoseconds(self, limits: Limits) -> dict[str, float]:
        """Least time per element by each limit."""
        return {
            "memory": 1e12 * self.bytes / limits.bytes,
            "issue": 1e12 * self.slots / limits.slots,
            "shared memory": 1e12 * self.words / limits.words,
            "special functions": 1e12 * self.special / limits.special,
        }


COSTS = (
    # Two loads and 12 operations on addresses per pack of 4; difference, product and sum.
    Cost("ssd_forward<float, false>", "squared differences", 8, 6, 0),
    Cost("ssd_forward<float, true>", "the same, weights per pixel", 12, 15, 0),
    Cost("ssd_backward<float, false>", "one-call loss and gradient", 12, 9, 0),
    Cost("ssd_backward<float, true>", "the same, weights per pixel", 16, 20, 0),
    # 88 multiply-adds of four planes and 11 taps each way, 17 to read, square and move rows on, 35
    # for the formula, 8 loads and stores of shared memory, and addresses; 256 columns for 246
    # results. A row of four planes is stored once, and loaded as 4 words for each of 4 results.
    Cost("ssim_forward<float, 11>", "SSIM, 11 taps", 8, 157, 21),
    # The same again, 30 for the gradient of the formula, 66 multiply-adds of three coefficients, 29
    # to bring them to a pixel; 192 columns of a strip for 172 results, 10 rows above a tile.
    Cost("ssim_backward<float, 11, false>", "one-call loss and gradient, 11 taps", 12, 305, 43),
    # Tiles of 32 x 32 read 42 x 42 and filter 42 x 32; 14 loads and 14 rounds of a loop for four
    # results.
    Cost("ssim_general_forward<float, false>", "SSIM, any window, here 11 taps", 8, 258, 45),
    Cost("ssim_general_forward<float, true>", "the same under a mask", 9, 330, 56),
    # 30 slots for the formula's gradient and 32 to store three coefficients; then taps of each
    # pixel's own in shared memory, as mirrored borders want them. Without a streaming kernel a
    # gradient takes both.
    Cost("ssim_general_forward<float, false>", "the same, coefficients kept", 20, 320, 45),
    Cost("ssim_general_forward<float, true>", "under a mask, coefficients kept", 21, 392, 56),
    Cost("ssim_general_gradient<float, false>", "gradient from them", 24, 270, 110),
    # Each of 42 x 42 pixels is read in 11 slices, at 45 slots a time; coefficients at 28.
    Cost("ssim_general_forward<float, false>", "SSIM of volumes, 11 taps", 8, 1030, 45),
    Cost("ssim_general_gradient<float, false>", "gradient of volumes", 24, 750, 110),
    # A quarter of a box's mean for each pixel.
    Cost("downsample_forward<float>", "halved along two axes", 5, 30, 0),
    Cost("downsample_backward<float>", "its adjoint", 5, 60, 0),
    # Of a pack of four numbers: 55 slots find it, a load or store and 2 for its address per run,
    # conversions in half precision; then 25 for each activation, one of them special, and the
    # formula. As PTX has them without moves.
    Cost("lstm_forward<float, true>", "LSTM, gates kept", 60, 165, special=5),
    Cost("lstm_forward<float, true>", "the same, no gates kept", 44, 160, special=5),
    Cost("lstm_forward<half, true>", "LSTM, gates kept", 34, 180, special=5),
    Cost("lstm_backward<float, true>", "its gradient", 56, 86, special=1),
    Cost("lstm_backward<half, true>", "its gradient", 36, 96, special=1),
    Cost("lstm_peephole_backward<float>", "gradient of peepholes", 20, 19),
    Cost("gru_forward<float, true>", "GRU, map before the reset", 48, 102, special=3),
    Cost("gru_backward<float, true>", "its gradient", 60, 45),
    Cost("gru_reset_forward<float, true>", "GRU that resets first: r, z", 32, 73, special=2),
    Cost("gru_update_forward<float, true>", "n and the state", 24, 48, special=1),
    Cost("gru_update_backward<float, true>", "gradient of n and z", 36, 38),
    Cost("gru_reset_backward<float, true>", "gradient of r", 24, 28),
    # Of paired rows per pair of numbers: loads and addresses as above, difference, product, sum.
    Cost("paired_forward<float>", "distances of paired rows", 8, 9, 0),
    Cost("paired_backward<float>", "both gradients", 16, 15, 0),
    # Per pair of vectors. A difference and a square for each dimension, loads of 16 words for 64 of
    # them, filling shared memory; root, two comparisons, store.
    Cost("cdist_direct<float, false>", "all pairs, 16 dimensions", 4, 41, 2),
    # Sum of squares, less twice the product, two comparisons, root. The product is in the cache.
    Cost("cdist_finish<float, false>", "all pairs, after a product", 4, 12, 0),
    # For 128 dimensions: difference, product, sum, loads; factors read for each 64.
    Cost("cdist_backward<float>", "gradient of one set, 128 dimensions", 16, 300, 32),
    Cost("knn_search<float>", "neighbours, after a product", 0, 10, 0),
)


def prediction(limits: Limits = H100) -> Table:
    """Counts, registers where nvcc is installed, and predicted times."""
    registers = _registers()
    table = Table(
        f"Counted costs per element or pair, and times predicted for an {limits.name}",
        (
            "kernel",
            "task",
            "bytes",
            "slots",
            "special",
            "words",
            "registers",
            "ps",
            "limit",
            "of copy",
        ),
    )
    for cost in COSTS:
        times = cost.picoseconds(limits)
        limit = max(times, key=lambda name: times[name])
        used = registers.get(cost.kernel)
        table.rows.append((
            cost.kernel, cost.task, f"{cost.bytes:g}", f"{cost.slots:g}", f"{cost.special:g}",
            f"{cost.words:g}", "" if used is None else str(used), f"{times[limit]:.1f}", limit,
            f"{100 * times['memory'] / sum(times.values()):.0f} to "
            f"{100 * times['memory'] / times[limit]:.0f} %",
        ))  # fmt: skip
    table.notes.append(
        "No kernel spills registers; tests compile them all and read ptxas's report."
    )
    table.notes.append(
        "Not measured: counts over the limits of the device. The share of the copy bandwidth is "
        "that where nothing overlaps, and where everything does."
    )
    return table


def _registers() -> dict[str, int]:
    """Registers of a thread by ptxas for compute capability 9.0; empty without nvcc."""
    if shutil.which("nvcc") is None or shutil.which("c++filt") is None:
        return {}
    found = {}
    for path in sorted((Path(__file__).parents[2] / "csrc" / "cuda").glob("*-kernels.cu")):
        with tempfile.TemporaryDirectory() as folder:
            report = subprocess.run(
                ["nvcc", "-std=c++17", "-O3", "-arch=sm_90", "-ftz=true", "-cubin",
                 "--ptxas-options=-v", path, "-o", f"{folder}/kernels.cubin"],
                capture_output=True, text=True, check=True,
            ).stderr  # fmt: skip
        names = subprocess.run(
            ["c++filt"], input=report, capture_output=True, text=True, check=True
        )
        for name, used in re.findall(
            r"entry function 'void sosie::(.+?)\(.*?Used (\d+) registers", names.stdout, re.DOTALL
        ):
            found[name.replace("sosie::", "")] = int(used)
    return found
