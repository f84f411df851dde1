# SPDX-License-Identifier: Apache-2.0
"""A comparison of many pairs, whose results are kept as they come."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sosie.comparison.engines import Arrays, Task, run_parts
from sosie.comparison.pairs import Pair, Unmatched, printable
from sosie.comparison.parts import FAILED, Parts, Row
from sosie.comparison.run import Comparison, Failure, Options, Result, compare_pair

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["compare_and_keep"]

#: A pair is the same as in an earlier run while its name is, and its files have not been written.
#: Where the files lie may change: parts of a comparison can be made on different machines.
_ASKED = ("name", "a_bytes", "a_modified", "b_bytes", "b_modified")


def compare_and_keep(
    pairs: Sequence[Pair],
    unmatched: Sequence[Unmatched],
    options: Options,
    folder: Path,
    *,
    engine: str = "threads",
    jobs: int | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Measure every pair whose result is not in a folder yet, and keep it there.

    Parameters
    ----------
    pairs, unmatched, options
        As for `sosie.comparison.compare_pairs`.
    folder : Path
        Of Parquet files, see `sosie.comparison.parts`. With the engine "ray" every worker has to
        see it, and the images, under the same path.
    engine : {"threads", "ray"}
        Who measures, see `sosie.comparison.engines.run_parts`.
    jobs : int, optional
        Workers. By default as many as `sosie.get_num_threads`, or as a Ray cluster has processors.
    on_done : callable
        Called with a number of pairs, compared or not, as they are done.

    Returns
    -------
    Comparison
        Of all pairs, those of earlier runs too. Pairs that failed are tried again next time.

    Raises
    ------
    ValueError
        The folder holds results of other measures, conventions or data ranges, or other files; or
        what the engine needs is not installed.
    """
    parts = Parts.open(folder, _ASKED, _settings(options))
    nameable = [pair for pair in pairs if _is_text(pair)]
    rows = run_parts(
        Task(functools.partial(_compare_rows, options=options), _schema(options)),
        _questions(nameable),
        parts,
        engine=engine,
        workers=jobs,
        on_done=on_done,
    )
    failures = [Failure(file.name, file.reason) for file in unmatched]
    failures += [
        Failure(pair.name, "expected a path in UTF-8, which Parquet needs")
        for pair in pairs
        if not _is_text(pair)
    ]
    results = []
    for pair, row in zip(nameable, rows, strict=True):
        if row[FAILED] is None:
            values = {measure.name: row[measure.name] for measure in options.measures}
            results.append(Result(pair, row["width"], row["height"], row["kind"], values))
        else:
            failures.append(Failure(pair.name, row[FAILED]))
    return Comparison(options, results, sorted(failures, key=lambda failure: failure.name))


def _settings(options: Options) -> dict[str, Any]:
    return {
        "measures": {measure.name: measure.spec(options.spec) for measure in options.measures},
        "data_range": options.data_range,
    }


def _schema(options: Options) -> pa.Schema:
    import pyarrow as pa

    facts = {"width": pa.int32(), "height": pa.int32(), "kind": pa.string()}
    values = {measure.name: pa.float64() for measure in options.measures}
    return pa.schema({**facts, **values, FAILED: pa.string()})


def _questions(pairs: Iterable[Pair]) -> pa.Table:
    import pyarrow as pa

    files = {"bytes": pa.int64(), "modified": pa.int64()}
    stamps = {f"{side}_{name}": kind for side in "ab" for name, kind in files.items()}
    schema = pa.schema({"name": pa.string(), "a": pa.string(), "b": pa.string(), **stamps})
    return pa.Table.from_pylist([_question(pair) for pair in pairs], schema=schema)


def _question(pair: Pair) -> Row:
    row: Row = {"name": pair.name}
    for side, path in (("a", pair.a), ("b", pair.b)):
        file = path.stat()
        row[side] = str(path.absolute())  # workers may have another current folder
        row[f"{side}_bytes"], row[f"{side}_modified"] = file.st_size, file.st_mtime_ns
    return row


def _is_text(pair: Pair) -> bool:
    return all(printable(path) == os.fspath(path) for path in (pair.a, pair.b))


def _compare_rows(rows: pa.Table, arrays: Arrays, options: Options) -> dict[str, list[Any]]:  # noqa: ARG001
    names = _schema(options).names
    outcomes = [
        compare_pair(Pair(row["name"], Path(row["a"]), Path(row["b"])), options)
        for row in rows.to_pylist()
    ]
    columns = [_answer(outcome) for outcome in outcomes]
    return {name: [column.get(name) for column in columns] for name in names}


def _answer(outcome: Result | Failure) -> Row:
    if isinstance(outcome, Failure):
        return {FAILED: outcome.reason}
    facts = {"width": outcome.width, "height": outcome.height, "kind": outcome.kind}
    return {**facts, **outcome.values}
