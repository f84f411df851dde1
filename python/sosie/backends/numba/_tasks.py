# SPDX-License-Identifier: Apache-2.0
"""How kernels are compiled and run, whatever they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba as nb

from sosie.arrays import Adapter

__all__ = ["compiled", "run_tasks"]

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


def compiled(function: Function) -> Function:
    """Compiled on first use and kept on disk where possible; releases the GIL.

    Contraction of multiply and add is the only freedom with the order of operations; so bits depend
    on the machine, but neither on the number of threads nor on the run.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    dispatcher: Function
    try:
        dispatcher = nb.njit(function, cache=True, **options)
    except RuntimeError:  # no folder to keep it in, as in a read-only container
        dispatcher = nb.njit(function, **options)
    return dispatcher


def run_tasks(
    compute: Callable[[Any], Result], tasks: Sequence[Any], library: Adapter, threads: int | None
) -> list[Result]:
    """What ``compute`` returns for each task, in order."""
    workers = min(library.threads() if threads is None else threads, len(tasks))
    if workers <= 1:
        return [compute(task) for task in tasks]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(compute, tasks))
