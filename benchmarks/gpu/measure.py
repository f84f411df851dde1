# SPDX-License-Identifier: Apache-2.0
"""Times of calls on a CUDA device, and what that device can do at best."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Device", "Peaks", "Timing", "copies_past_caches", "device_record", "peaks", "timing"]

#: Bytes beyond the largest second-level cache of a device (B200: 126 MiB).
_PAST_CACHES = 256 << 20


@dataclass(frozen=True)
class Device:
    """What was measured on."""

    name: str
    capability: str
    multiprocessors: int
    memory_bytes: int
    driver: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Peaks:
    """What the device did at best, in this run.

    Attributes
    ----------
    copy : float
        Bytes read and written per second by a copy of memory larger than the caches.
    fma : float
        Multiply-adds per second, float32.
    """

    copy: float
    fma: float


def device_record(driver: str) -> Device:
    """The device that torch uses, and the versions of what computes on it."""
    from importlib import metadata

    import torch

    found = torch.cuda.get_device_properties(0)
    names = ("sosie", "torch", "triton", "cupy-cuda12x", "cupy-cuda13x", "torchmetrics",
             "pytorch-msssim", "fused-ssim", "fussim", "frame-analytics", "cuvs-cu12", "cuvs-cu13",
             "faiss-gpu", "faiss-gpu-cu12")  # fmt: skip
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Device(
        found.name, f"{found.major}.{found.minor}", found.multi_processor_count,
        found.total_memory, driver, versions | {"CUDA of torch": str(torch.version.cuda)},
    )  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """Medians of one call, in seconds.

    Attributes
    ----------
    device : float
        Between events before and behind it, while the host is ahead of the device.
    host : float
        Until the host has queued all of it, or has waited for it.
    """

    device: float
    host: float


#: Cycles that a device does in a second at most, and the longest that it is kept waiting.
_CYCLES, _LONGEST_WAIT = 2.2e9, 5e-3


def timing(
    call: Callable[[Any], Any], inputs: Sequence[Any], *, at_least: float = 0.1, most: int = 200
) -> Timing:
    """Time of one call on the device, with events around it.

    Inputs take turns: those that are too large together for the caches come from memory every time.
    The first calls, which compile and choose, are not counted. The device is busy with nothing
    while the host queues a call, so that its time is not that of the host.
    """
    import torch

    def queue(turn: int) -> float:
        begin = time.perf_counter()
        call(inputs[turn % len(inputs)])
        return time.perf_counter() - begin

    for turn in range(max(3, len(inputs))):
        queue(turn)
    torch.cuda.synchronize()
    hosts = [queue(turn) for turn in range(3)]
    torch.cuda.synchronize()
    wait = int(_CYCLES * min(2.0 * statistics.median(hosts) + 5e-5, _LONGEST_WAIT))
    times: list[float] = []
    while len(times) < 10 or (sum(times) < at_least and len(times) < most):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(wait)
        begin.record()
        hosts.append(queue(len(times)))
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000.0)
    return Timing(statistics.median(times), statistics.median(hosts))


def copies_past_caches(bytes_of_one: int) -> int:
    """How many inputs must take turns so that none is in a cache when its turn comes."""
    return max(2, min(64, -(-_PAST_CACHES // max(bytes_of_one, 1))))


def peaks() -> Peaks:
    """Measure copy bandwidth and multiply-adds."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    size = min(1 << 30, free // 8)
    sources = [torch.empty(size // 4, device="cuda").fill_(i) for i in range(2)]
    target = torch.empty_like(sources[0])
    seconds = timing(target.copy_, sources).device
    return Peaks(2 * size / seconds, _fma_peak())


def _fma_peak() -> float:
    import torch

    from sosie.arrays import adapter
    from sosie.backends.cuda.launcher import launch, launcher

    class Call(ctypes.Structure):
        _fields_ = (("iterations", ctypes.c_int), ("results", ctypes.c_void_p))

    blocks, threads, iterations = 8 * launcher().multiprocessors(0), 256, 2000
    results = torch.full((blocks,), 2.0, device="cuda")
    call = Call(iterations, results.data_ptr())
    library = adapter(results)
    seconds = timing(
        lambda given: launch(library, given, "fma_peak<float>", blocks, threads, call), [results]
    ).device
    if not bool((results == 2.0).all()):
        raise RuntimeError("the kernel that measures multiply-adds computed something else")
    return blocks * threads * iterations * 64 / seconds
