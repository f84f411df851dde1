# SPDX-License-Identifier: Apache-2.0
"""Tables for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["Table"]


@dataclass
class Table:
    """Text in rows and columns.

    Attributes
    ----------
    title : str
        One line.
    columns : sequence of str
        Headings.
    rows : list of sequence of str
        As many texts as there are columns, each.
    notes : list of str
        Lines below the table.
    numbers : bool
        Whether all columns but the first hold numbers, which are aligned right.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: bool = True

    def rich(self) -> RichTable:
        """For a terminal, where rich is installed."""
        from rich import table as rich_table

        table = rich_table.Table(
            title=self.title,
            caption="\n".join(self.notes),
            title_justify="left",
            caption_justify="left",
        )
        for number, column in enumerate(self.columns):
            right = self.numbers and number > 0
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a file."""
        lines = [
            f"### {self.title}",
            "",
            _line(self.columns),
            _line(["---", *["---:" if self.numbers else "---"] * (len(self.columns) - 1)]),
            *map(_line, self.rows),
            "",
            *(f"- {note}" for note in self.notes),
        ]
        return "\n".join(lines).rstrip() + "\n"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
