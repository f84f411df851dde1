# SPDX-License-Identifier: Apache-2.0
"""How many threads NumPy callers use.

torch callers use ``torch.get_num_threads()`` instead. Results do not depend on the number.
"""

from __future__ import annotations

import math
import os

__all__ = ["get_num_threads", "set_num_threads"]

_threads: int | None = None


def get_num_threads() -> int:
    """Threads used for NumPy arrays.

    Unless :func:`set_num_threads` was called: ``SOSIE_NUM_THREADS``, else ``OMP_NUM_THREADS``, else
    the processors this process may run on, within its control group's quota.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        An environment variable holds no positive whole number.

    Examples
    --------
    >>> import sosie
    >>> sosie.get_num_threads() >= 1
    True
    """
    global _threads  # noqa: PLW0603
    if _threads is None:
        _threads = _from_environment()
    return _threads


def set_num_threads(threads: int) -> None:
    """Use this many threads for NumPy arrays from now on.

    Parameters
    ----------
    threads : int
        At least 1.

    Raises
    ------
    ValueError
        ``threads`` is below 1.

    Examples
    --------
    >>> import sosie
    >>> before = sosie.get_num_threads()
    >>> sosie.set_num_threads(1)
    >>> sosie.get_num_threads()
    1
    >>> sosie.set_num_threads(before)
    """
    global _threads  # noqa: PLW0603
    if int(threads) != threads or threads < 1:
        raise ValueError(f"expected a number of threads of at least 1, got {threads!r}")
    _threads = int(threads)


def _from_environment() -> int:
    available = _available_processors()
    for variable in ("SOSIE_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "").split(",")[0].strip()
        if text:
            if not text.isdecimal() or int(text) < 1:
                raise ValueError(f"expected {variable} to be a positive whole number, got {text!r}")
            return int(text) if variable == "SOSIE_NUM_THREADS" else min(int(text), available)
    return available


def _available_processors() -> int:
    from pathlib import Path  # not at import time: it takes a tenth of the package's

    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return processors
    if quota == "max":
        return processors
    return max(1, min(processors, math.ceil(int(quota) / int(period))))
