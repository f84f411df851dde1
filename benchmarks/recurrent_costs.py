# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of recurrent layers measures beside races: memory, and the gates alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import machine
from benchmarks.machine import PeakMeter
from benchmarks.recurrent_cases import CASES
from benchmarks.recurrent_peers import FAMILY
from benchmarks.workers import Missing, Worker

__all__ = ["MEMORY_CASES", "MEMORY_NAMES", "Gates", "gates", "memory"]

MEMORY_CASES = ("lstm-small-gradient", "lstm-large-gradient")
MEMORY_NAMES = ("sosie", "sosie recompute", "ConvLSTM_pytorch")

_ROUNDS = 15
_ELEMENT = 4  # bytes: everything is float32


@dataclass(frozen=True)
class Gates:
    """The gates of one LSTM step alone.

    Attributes
    ----------
    seconds, floor : float
        What they take, and what moving their bytes takes at the same time's peak bandwidth; the
        best of all rounds.
    """

    seconds: float
    floor: float


def memory(name: str, case_name: str, threads: int) -> int | None:
    """Bytes by which a step of training raises the resident memory of a fresh process at its peak.

    A step with hardly any data first loads what is loaded once. None if it cannot be measured.
    """
    case = CASES[case_name]
    worker = Worker(FAMILY.module, name, threads, "default")
    try:
        worker.wait_until_ready()
        for each in (case.tiny, case):
            answer = worker.ask("first", case=each.plain, convention={})
        extra: int | None = answer["extra_bytes"]
        return extra
    except Missing:
        return None
    finally:
        worker.close()


def gates(threads: int, progress: Callable[[str], None]) -> dict[str, Gates]:
    """Forward and backward, on the state of the larger case, channels last."""
    import torch

    from sosie.arrays import adapter
    from sosie.backends import executor

    before = os.sched_getaffinity(0)
    machine.pin(threads)
    torch.set_num_threads(threads)
    case = CASES["lstm-large"]
    shape = (case.batch, case.size, case.size, case.channels)

    library = adapter(torch.empty(0))

    def make(count: int) -> Any:
        # On large pages, as the memory is that the peaks are measured in.
        memory = library.empty(torch.empty(0), (*shape[:3], count * shape[3]), "float32")
        return memory.normal_().movedim(-1, 1)

    inputs, recurrent, kept, grad_gates = (make(4) for _ in range(4))
    cell, hidden, new_cell, grad_hidden, grad_recurrent, grad_cell = (make(1) for _ in range(6))
    run = executor(cell)
    bytes_of_state = cell.numel() * _ELEMENT
    meter = PeakMeter(threads)
    works: dict[str, tuple[Callable[[], None], int, int]] = {
        # Read: what both convolutions gave, and the cell; written: gates and both states.
        "forward": (
            lambda: run.lstm_forward(inputs, recurrent, cell, None, kept, hidden, new_cell), 9, 6
        ),
        # Read: gates, both cells, three gradients; written: those of the gates and of the cell.
        "backward": (
            lambda: run.lstm_backward(
                kept, cell, new_cell, grad_hidden, grad_recurrent, None, grad_cell, grad_gates
            ), 9, 5,
        ),
    }  # fmt: skip
    found = {}
    for name, (work, read, written) in works.items():
        progress(name)
        floors, times = [], []
        for _ in range(_ROUNDS):
            floors.append(meter.measure().transfer(read * bytes_of_state, written * bytes_of_state))
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        found[name] = Gates(min(times), min(floors))
    os.sched_setaffinity(0, before)
    return found
