# SPDX-License-Identifier: Apache-2.0
"""Long work on the rows of a table: cut into parts, given to workers, every finished part kept.

The same function computes a part whoever calls it: a thread of this process, or a worker process of
Ray Data on any machine of a cluster. What it returns is written into a folder (`Parts`) by the
worker, before it counts as done. So a worker that is lost loses the part it was at, which Ray then
gives to another; and a run that is stopped is resumed by running it again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sosie.comparison.pairs import printable
from sosie.comparison.parts import FAILED, Parts, Row
from sosie.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ENGINES", "Task", "one_thread_each", "ray_cluster", "run_parts"]

Arrays = Mapping[str, np.ndarray[Any, np.dtype[Any]]]

#: Rows of a part, at most; less where workers would have nothing to do otherwise.
_ROWS_PER_PART = 64
#: Parts that each worker is given at least, so that none waits long for the last.
_PARTS_PER_WORKER = 4


@dataclass(frozen=True)
class Task:
    """What is computed of each part.

    Attributes
    ----------
    compute : callable
        ``compute(rows, arrays)`` gets a table of rows (`pyarrow.Table`) and the arrays below, both
        read-only and in place, and returns columns of results as long as the table, "reason" among
        them: null, or why that row has no result. It has to be picklable.
    schema : pyarrow.Schema
        Names and types of these columns.
    arrays : mapping of str to ndarray
        What every worker needs; kept once on each machine.
    """

    compute: Callable[[pa.Table, Arrays], Mapping[str, Sequence[Any]]]
    schema: pa.Schema
    arrays: Arrays = field(default_factory=dict)


def run_parts(
    task: Task,
    rows: pa.Table,
    parts: Parts,
    *,
    engine: str = "threads",
    workers: int | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Row]:
    """Compute what is asked by every row, unless its result is kept from an earlier run.

    Parameters
    ----------
    task : Task
        What is computed.
    rows : pyarrow.Table
        What is asked: the columns of ``parts.asked``, and others that the task needs.
    parts : Parts
        Where results are kept.
    engine : {"threads", "ray"}
        Who computes. Ray is the cluster that ``RAY_ADDRESS`` names or this process is connected to;
        else one is started on this machine, reachable from this machine alone, and stopped again.
    workers : int, optional
        Parts under work at a time. By default `sosie.get_num_threads`, or all processors of the
        Ray cluster that was there.
    on_done : callable
        Called with the number of rows finished since it was last called.

    Returns
    -------
    list of dict
        Questions and results, in the order of ``rows``. Rows that failed are tried again next time.

    Raises
    ------
    ValueError
        There is no such engine, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"expected an engine out of {', '.join(ENGINES)}, got {engine!r}")
    asked = rows.to_pylist()
    finished = [row is not None and row[FAILED] is None for row in parts.finished(asked)]
    left = rows.filter(np.logical_not(finished)) if any(finished) else rows
    on_done(len(rows) - len(left))
    if len(left):
        size = _rows_per_part(len(left), workers or get_num_threads())
        chunks = [left.slice(start, size) for start in range(0, len(left), size)]
        for done in ENGINES[engine](_Part(task, parts), chunks, task.arrays, workers):
            on_done(done)
    results = [row for row in parts.finished(asked) if row is not None]
    if len(results) < len(asked):
        missing = len(asked) - len(results)
        raise RuntimeError(f"{missing} results have disappeared from {printable(parts.folder)}")
    return results


def _rows_per_part(rows: int, workers: int) -> int:
    return max(1, min(_ROWS_PER_PART, rows // (_PARTS_PER_WORKER * workers)))


class _Part:
    """Computes a part and keeps it; what workers run."""

    def __init__(self, task: Task, parts: Parts) -> None:
        self._compute, self._schema, self._parts = task.compute, task.schema, parts

    def __call__(self, rows: pa.Table, arrays: Arrays) -> int:
        import pyarrow as pa

        results = pa.table(dict(self._compute(rows, arrays)), schema=self._schema)
        for column in rows.column_names[::-1]:
            results = results.add_column(0, rows.schema.field(column), rows[column])
        self._parts.keep(results)
        return len(results)


def _with_threads(
    part: _Part, chunks: Sequence[pa.Table], arrays: Arrays, workers: int | None
) -> Iterator[int]:
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    workers = min(workers or get_num_threads(), len(chunks))
    with one_thread_each(workers), ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(part, chunk, views) for chunk in chunks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def one_thread_each(workers: int) -> Iterator[None]:
    """Kernels on one thread each where several workers are at work at a time."""
    before = get_num_threads()
    set_num_threads(1 if workers > 1 else before)
    try:
        yield
    finally:
        set_num_threads(before)


def _with_ray(
    part: _Part, chunks: Sequence[pa.Table], arrays: Arrays, workers: int | None
) -> Iterator[int]:
    with ray_cluster(workers) as ray, _quietly("ray.data"):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # Parts are finished in any order; a slow one holds up none.
        context.execution_options.preserve_order = False
        dataset = ray.data.from_arrow(list(chunks)).map_batches(
            _on_ray,
            fn_args=[part, ray.put(dict(arrays))],
            batch_size=None,  # a chunk is a block, and stays one
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(size=workers and min(workers, len(chunks))),
        )
        for done in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield sum(done["rows"].to_pylist())


def _on_ray(rows: pa.Table, part: _Part, arrays: Any) -> pa.Table:
    import pyarrow as pa
    import ray

    set_num_threads(1)
    return pa.table({"rows": [part(rows, ray.get(arrays))]})


@contextmanager
def ray_cluster(workers: int | None) -> Iterator[Any]:
    """Ray, connected to the cluster there is, or to one that lasts as long as the block.

    One of ours is reachable from this machine alone, unless Ray was imported before.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        # Ray's servers then bind to the loopback interface; it reads this when it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("the engine ray needs Ray: pip install 'sosie[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if address is not None:
        ray.init(address, **quiet)
    else:
        ray.init("local", num_cpus=workers or get_num_threads(), include_dashboard=False, **quiet)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _quietly(logger: str) -> Iterator[None]:
    """Errors only: what Ray Data says of every run would go between our own lines."""
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(level)


#: Who computes, by name.
ENGINES: dict[str, Callable[[_Part, Sequence[Any], Arrays, int | None], Iterator[int]]] = {
    "threads": _with_threads,
    "ray": _with_ray,
}
