# SPDX-License-Identifier: Apache-2.0
"""Results kept in a folder of Parquet files, part by part, so that work can be stopped and resumed.

A part holds rows: what was asked, column by column, and what came of it. Its name is made of what
was asked; so a part that is computed twice is kept once, and the parts of several folders can be
copied into one. It appears whole or not at all. Any reader of Parquet reads such a folder as one
table. How the results were computed is in each file's metadata: results that were computed
differently are not mixed.

Needs pyarrow, which is imported when a folder is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sosie.comparison.pairs import printable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FAILED", "Parts"]

#: The column that says why a row has no result; null where it has one.
FAILED = "reason"

_SETTINGS = b"sosie"

Row = dict[str, Any]


@dataclass(frozen=True)
class Parts:
    """A folder of results.

    Attributes
    ----------
    folder : Path
        Where the parts are. It is made when the first one is kept. Workers on several machines
        need to see the same folder.
    asked : tuple of str
        The columns that say what was asked. Two rows that agree in these are the same.
    settings : str
        How results are computed, as text: `Parts.open` makes it.

    Examples
    --------
    >>> import pyarrow, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> parts = Parts.open(Path(folder.name), ["name"], {"power": 2})
    >>> parts.keep(pyarrow.table({"name": ["a"], "value": [4.0], "reason": [None]}))
    >>> parts.finished([{"name": "a"}, {"name": "b"}])
    [{'name': 'a', 'value': 4.0, 'reason': None}, None]
    >>> folder.cleanup()
    """

    folder: Path
    asked: tuple[str, ...]
    settings: str

    @classmethod
    def open(cls, folder: Path, asked: Iterable[str], settings: Mapping[str, Any]) -> Parts:
        """A folder to keep results in, or to find those of an earlier run.

        Raises
        ------
        ValueError
            pyarrow is missing; the folder is a file, or has a Parquet file of other settings or
            from elsewhere. Nothing was changed.
        """
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ValueError(
                "results in Parquet files need pyarrow: pip install 'sosie[ray]'"
            ) from None
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"expected a folder for results, got the file {printable(folder)}")
        parts = cls(folder, tuple(asked), json.dumps(dict(settings), sort_keys=True))
        for _ in parts._tables():
            pass
        return parts

    def finished(self, rows: Iterable[Row]) -> list[Row | None]:
        """What is kept of each row: its result, if there is one the reason why there is none."""
        kept: dict[tuple[Any, ...], Row] = {}
        for table in self._tables():
            for row in table.to_pylist():
                known = kept.setdefault(self._key(row), row)
                if known[FAILED] is not None:
                    kept[self._key(row)] = row
        return [kept.get(self._key(row)) for row in rows]

    def keep(self, results: pa.Table) -> None:
        """Write a part, whole or not at all."""
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {**(results.schema.metadata or {}), _SETTINGS: self.settings.encode()}
        keys = [self._key(row) for row in results.select(list(self.asked)).to_pylist()]
        digest = hashlib.sha256(json.dumps([self.settings, keys]).encode()).hexdigest()[:16]
        path = self.folder / f"part-{digest}.parquet"
        # Readers of the folder pass over names that begin with a dot.
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            pq.write_table(results.replace_schema_metadata(metadata), partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[column] for column in self.asked)

    def _tables(self) -> Iterator[pa.Table]:
        """Every part, oldest first."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = (path for path in self.folder.glob("*.parquet") if not path.name.startswith("."))
        for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name)):
            try:
                table = pq.read_table(path)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{printable(path)} cannot be read: {error}") from error
            settings = (table.schema.metadata or {}).get(_SETTINGS, b"").decode()
            if settings != self.settings:
                raise ValueError(
                    f"expected results with {self.settings} in {printable(path)}, "
                    f"got {f'results with {settings}' if settings else 'a file of another origin'}"
                )
            yield table
