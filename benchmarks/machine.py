# SPDX-License-Identifier: Apache-2.0
"""The machine a benchmark runs on: what it is, what it can do at best, and who else uses it."""

from __future__ import annotations

import datetime as dt
import mmap
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "ALLOCATORS",
    "PeakMeter",
    "Peaks",
    "busy_seconds",
    "cores",
    "environment",
    "extra_memory",
    "machine_record",
    "pin",
    "process_seconds",
    "versions",
]

#: Settings of the C library's allocator, as environment variables. By default it returns every
#: large block to the system, so that each temporary costs page faults again. "no-fault" keeps all
#: memory, which stands for a caching allocator: after a first call nothing is faulted in.
ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    "no-fault": {
        "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    },
}

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "SOSIE_NUM_THREADS",
)

_TICKS = os.sysconf("SC_CLK_TCK")


def cores(threads: int) -> list[int]:
    """Cores to run ``threads`` threads on: the last ones, since the first serve most interrupts."""
    allowed = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(allowed):
        raise ValueError(
            f"expected between 1 and {len(allowed)} threads, the cores this process may use, "
            f"got {threads}"
        )
    return allowed[-threads:]


def pin(threads: int) -> None:
    """Keep this process, and what it starts from now on, on the cores for ``threads`` threads."""
    os.sched_setaffinity(0, cores(threads))


def environment(threads: int, allocator: str) -> dict[str, str]:
    """Environment of a process that is to use ``threads`` threads and one of :data:`ALLOCATORS`."""
    clean = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    limits = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return {**clean, **limits, **ALLOCATORS[allocator], "PYTHONWARNINGS": "ignore"}


# --- What it can do -------------------------------------------------------------------------------


class Peaks(NamedTuple):
    """The best this machine does with some number of threads.

    Attributes
    ----------
    flops : float
        float32 operations per second of fused multiply-adds on registers, two for each.
    bandwidth : float
        Bytes per second read from memory.
    copy_bandwidth : float
        Bytes per second, those read and those written, of the C library's copy of memory, which
        stores past the caches.
    """

    flops: float
    bandwidth: float
    copy_bandwidth: float

    def transfer(self, read: float, written: float) -> float:
        """Least seconds to read and to write so many bytes.

        Every byte written, and one that is read along with it, moves at the rate of a copy; what is
        left to be read moves at the rate of reading.
        """
        copied = written + min(read, written)
        return copied / self.copy_bandwidth + max(0.0, read - written) / self.bandwidth


class PeakMeter:
    """Measures :class:`Peaks` with the compiled kernels' own instruction set.

    Parameters
    ----------
    threads : int
        Threads that work at the same time, each on its part of the memory.
    megabytes : int
        Size of the memory that is read, well above any cache. It is backed by huge pages where the
        system gives them, as translation misses would cost more than the read.
    """

    def __init__(self, threads: int, megabytes: int = 256) -> None:
        from sosie import _core

        self._core = _core
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        buffer = mmap.mmap(-1, megabytes << 20)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            buffer.madvise(mmap.MADV_HUGEPAGE)
        self._data = np.frombuffer(buffer, np.float32)
        self._data[:] = 1.0
        self._parts = np.array_split(self._data, threads)
        # Blocks of about 3 ms: long beside waking a thread, short beside a neighbour's time slice.
        probe = 1 << 14
        start = time.perf_counter()
        _core.fma_peak(probe)
        self._iterations = max(1, int(probe * 0.003 / (time.perf_counter() - start)))

    def measure(self) -> Peaks:
        """The best of five blocks of each kind: what others take is not the machine's limit."""
        return Peaks(
            max(self._rate(self._multiply_add) for _ in range(5)),
            max(self._rate(self._read) for _ in range(5)),
            max(self._rate(self._copy) for _ in range(5)),
        )

    def _rate(self, work: Callable[[int], float]) -> float:
        start = time.perf_counter()
        done = sum(self._pool.map(work, range(self._threads)))
        return done / (time.perf_counter() - start)

    def _multiply_add(self, _: int) -> float:
        return float(self._core.fma_peak(self._iterations))

    def _read(self, part: int) -> float:
        data = self._parts[part]
        self._core.read_peak(data.ctypes.data, data.size)
        return float(data.nbytes)

    def _copy(self, part: int) -> float:
        source, target = np.split(self._parts[part], 2)
        np.copyto(target, source)
        return float(source.nbytes + target.nbytes)


# --- Who uses it ----------------------------------------------------------------------------------


def busy_seconds(on: Iterable[int]) -> float:
    """Seconds that some cores were busy or were taken by the host, since the machine started."""
    wanted = {f"cpu{core}" for core in on}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, fields)
            total += user + nice + system + irq + softirq + steal
    return total / _TICKS


def process_seconds(pids: Iterable[int]) -> float:
    """Processor time that some processes have used."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:  # it has ended
            continue
        fields = text.rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def extra_memory(call: Callable[[], Any]) -> tuple[Any, int | None]:
    """Result of a call and the bytes by which it raised this process's resident memory at its peak.

    None where the system does not let the peak be reset.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    except OSError:
        return call(), None
    before = _status("VmRSS")
    result = call()
    return result, max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no field {field}")


# --- What it is -----------------------------------------------------------------------------------


def machine_record() -> dict[str, Any]:
    """Processor, memory, system and Python, as plain data."""
    return {
        "date": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "cache": _first("/proc/cpuinfo", "cache size"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "c_library": " ".join(platform.libc_ver()),
        "huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "python": platform.python_version(),
    }


def versions(modules: Sequence[str]) -> dict[str, str]:
    """What is installed, and in which version, that these modules belong to."""
    owners = metadata.packages_distributions()
    names = {name for module in modules for name in owners.get(module.partition(".")[0], [])}
    return {name: metadata.version(name) for name in sorted(names)}


def _first(path: str, field: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), None)


def _chosen(path: str) -> str | None:
    """The option in brackets."""
    try:
        return Path(path).read_text().partition("[")[2].partition("]")[0]
    except OSError:
        return None
