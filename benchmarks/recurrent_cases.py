# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of recurrent layers measures, and the least time it can take.

The floor of a sequence is issuing the multiply-adds of its convolutions, two operations each, at
this machine's measured peak: those of the inputs of all steps and of the state of all but the
first, three times as many where gradients are wanted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import Peaks

__all__ = ["CASES", "CHECKED", "Case", "inputs"]

#: Sequences of a batch whose results are compared with the definition; they do not mix.
CHECKED = 1
_KERNEL = 3


@dataclass(frozen=True)
class Case:
    """A convolutional LSTM, on float32, with a 3 x 3 kernel and no state to begin with.

    Attributes
    ----------
    name : str
        What it is called on the command line.
    batch, steps, in_channels, channels, size : int
        Sequences, steps, channels of the inputs and of the state, pixels along each axis.
    gradient : bool
        Whether gradients of inputs and weights are wanted, too.
    """

    name: str
    batch: int
    steps: int
    in_channels: int
    channels: int
    size: int = 64
    gradient: bool = False

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Case:
        """The case whose `plain` this is."""
        return cls(**plain)

    @property
    def plain(self) -> dict[str, Any]:
        """The case as plain data."""
        return asdict(self)

    @property
    def title(self) -> str:
        """One line that says what is measured."""
        task = ", forward + backward" if self.gradient else ""
        return (
            f"ConvLSTM{task}, {self.batch} sequences of {self.steps} steps, {self.in_channels} to "
            f"{self.channels} channels, {self.size}x{self.size} float32"
        )

    @property
    def has_floor(self) -> bool:
        """Whether `floor` says something."""
        return self.size >= 32

    def floor(self, peaks: Peaks) -> float:
        """Least seconds the case can take."""
        pixels = self.batch * self.size**2
        taps = _KERNEL**2 * 4 * self.channels
        multiplications = (
            pixels * taps * (self.steps * self.in_channels + (self.steps - 1) * self.channels)
        )
        return 2.0 * multiplications * (3 if self.gradient else 1) / peaks.flops

    def smaller(self) -> Case:
        """The same with little data, to see whether everything runs."""
        return replace(self, batch=1, steps=3, size=16)

    @property
    def tiny(self) -> Case:
        """The same with hardly any data."""
        return replace(self, batch=1, steps=2, size=8)


def _all_cases() -> list[Case]:
    cases = []
    for name, sizes in (("small", (4, 10, 16, 32)), ("large", (8, 10, 64, 64))):
        cases.append(Case(f"lstm-{name}", *sizes))
        cases.append(Case(f"lstm-{name}-gradient", *sizes, gradient=True))
    return cases


CASES = {case.name: case for case in _all_cases()}


def inputs(case: Case) -> tuple[NDArray[np.float32], ...]:
    """Arrays of a case, the same in every process.

    Images ``(T, N, C_in, H, W)``, weights of inputs and of the state, gates in the order i, f, g,
    o, and a bias.
    """
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape, dtype=np.float32)

    image = (case.size, case.size)
    x = normal(case.steps, case.batch, case.in_channels, *image)
    kernel = (_KERNEL, _KERNEL)
    scale = np.float32((_KERNEL**2 * (case.in_channels + case.channels)) ** -0.5)
    return (
        x,
        scale * normal(4 * case.channels, case.in_channels, *kernel),
        scale * normal(4 * case.channels, case.channels, *kernel),
        scale * normal(4 * case.channels),
    )
