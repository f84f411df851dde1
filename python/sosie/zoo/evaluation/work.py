# SPDX-License-Identifier: Apache-2.0
"""Work on many images, one row of a table each: here, or by the engines that keep what is finished.

A row says which image; a function of it returns numbers. It depends on nothing but the row, so that
the same comes out in any order, on any machine, and of a run that goes on where another was
stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sosie.comparison.engines import Arrays, Task, run_parts
from sosie.comparison.parts import FAILED, Parts, Row
from sosie.zoo.files import digest, encoded
from sosie.zoo.model import Model
from sosie.zoo.registry import description

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Engine", "Work", "do_work", "identity"]


@dataclass(frozen=True)
class Engine:
    """Who works, and where results are kept.

    Attributes
    ----------
    name : {"local", "ray"}
        This process, or Ray: see :func:`sosie.comparison.engines.run_parts`.
    folder : Path or None
        Of Parquet files; Ray needs one. Without, results are in memory alone.
    jobs : int or None
        Rows under work at a time. By default one here, whose kernels use all threads, and as many
        on Ray as there are processors.
    """

    name: str = "local"
    folder: Path | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.name not in ("local", "ray"):
            raise ValueError(f"expected the engine local or ray, got {self.name!r}")
        if self.name == "ray" and self.folder is None:
            raise ValueError(
                "the engine ray needs a folder of Parquet files, where workers put results"
            )


@dataclass(frozen=True)
class Work:
    """What is done with each row.

    Attributes
    ----------
    compute : callable
        From a row to numbers by name. Picklable. A ValueError is why that row has none.
    numbers : sequence of str
        Their names.
    asked : tuple of str
        Columns that say which image it is; others say where it is found.
    settings : mapping
        What the numbers depend on besides, as plain data: results of other settings are refused.
    """

    compute: Callable[[Row], Mapping[str, float]]
    numbers: Sequence[str]
    asked: tuple[str, ...]
    settings: Mapping[str, Any]


def identity(model: Model) -> dict[str, Any]:
    """Which model this is, as plain data; weights by their content, which a path does not tell."""
    return {**description(model), "weights": digest(encoded(model.state_dict()))}


def do_work(
    work: Work,
    rows: Sequence[Row],
    engine: Engine,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Row]:
    """Numbers of every row, or under "reason" why there are none.

    Raises
    ------
    ValueError
        The folder holds results of other settings, or what the engine needs is not installed.
    """
    if engine.folder is None:
        results = []
        for row in rows:
            results.append({**row, **_numbers(work, row)})
            on_done(1)
        return results
    parts = Parts.open(engine.folder, work.asked, work.settings)
    import pyarrow as pa  # the folder says so where it is missing

    schema = {name: pa.float64() for name in work.numbers}
    return run_parts(
        Task(partial(_compute, work=work), pa.schema({**schema, FAILED: pa.string()})),
        pa.Table.from_pylist(list(rows)),
        parts,
        engine={"local": "threads", "ray": "ray"}[engine.name],
        workers=engine.jobs or (1 if engine.name == "local" else None),
        on_done=on_done,
    )


def _numbers(work: Work, row: Row) -> Row:
    try:
        return {**work.compute(row), FAILED: None}
    except ValueError as error:  # unreadable files are among them
        return {**dict.fromkeys(work.numbers), FAILED: str(error)}


def _compute(rows: pa.Table, arrays: Arrays, work: Work) -> dict[str, list[Any]]:  # noqa: ARG001
    results = [_numbers(work, row) for row in rows.to_pylist()]
    return {name: [result[name] for result in results] for name in (*work.numbers, FAILED)}
