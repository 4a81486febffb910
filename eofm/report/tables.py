"""Tables, facts and names as text, Markdown and HTML: for a terminal, a page and a notebook.

A table declares which columns hold text. Facts describe an object in a few lines. Names come from
files and other people: what cannot be shown of them is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

__all__ = [
    "Cell",
    "Footnotes",
    "Table",
    "TableRow",
    "aligned",
    "bullets",
    "fact_rows",
    "facts_html",
    "facts_text",
    "markdown",
    "printable",
    "shorten",
    "tables_html",
]

# Control characters except line ends and tabs, line and paragraph separators, halves of surrogate
# pairs (from file names), and direction marks, which would reverse the text that follows a name.
_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object) -> str:
    r"""Return a text with every character that cannot be shown replaced by its escape.

    Line ends and tabs stay.

    >>> printable("a\x00b\udcffc"), printable("one\ntwo")
    ('a\\x00b\\udcffc', 'one\ntwo')
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def shorten(name: str, length: int = 36, *, keep_end: bool = False) -> str:
    """Return a name on one line, shortened with an ellipsis to leave space for the figure.

    Args:
        name: Of a class, a model or an image.
        length: Largest number of characters.
        keep_end: Whether the end distinguishes the name from others, as in an identifier.

    >>> shorten("land principally occupied by agriculture", 20)
    'land principally oc…'
    """
    line = " ".join(printable(name).split())
    if len(line) <= length:
        return line
    return f"…{line[1 - length :]}" if keep_end else f"{line[: length - 1].rstrip(' ,')}…"


# ------------------------------------------------------------------------------------- tables

_BORDER: Final = re.compile(r"(?<!\\)\|")
_RULE: Final = re.compile(r":?-+:?")
_STICKS_OUT: Final = 40  # characters of a cell; longer ones do not widen their column


@dataclass(frozen=True)
class Cell:
    """A cell of which the beginning is stressed.

    Args:
        strong: Shown in bold.
        text: Behind it.
    """

    strong: str
    text: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Args:
        cells: One per column.
        faint: Whether it is there for comparison only: a control, say. Its name is in italics.
    """

    cells: tuple[str | Cell, ...]
    faint: bool = False


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows.

    Args:
        heads: Of the columns.
        rows: With one cell per head.
        name: Title; empty for none.
        about: Behind the name.
        notes: Below it; words between backticks are code, between double asterisks bold.
        words: Columns of text, in addition to the first; all others are numbers.
    """

    heads: tuple[str, ...]
    rows: tuple[TableRow, ...]
    name: str = ""
    about: str = ""
    notes: tuple[str, ...] = ()
    words: frozenset[int] = frozenset()

    def is_number(self, column: int) -> bool:
        """Whether a column is set to the right."""
        return column > 0 and column not in self.words


class Footnotes:
    """Numbers footnotes in the order of their first use; equal ones share a number."""

    def __init__(self) -> None:
        self._notes: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """Return the mark of a note, as in `[1]`."""
        return f"[{self._notes.setdefault(text, len(self._notes) + 1)}]"

    def lines(self) -> tuple[str, ...]:
        """Return the notes that were marked, with their marks."""
        return tuple(f"[{number}] {text}" for text, number in self._notes.items())


def markdown(table: Table) -> str:
    """Return a table as Markdown: its name, the cells, and the notes as a list.

    Args:
        table: The table.
    """
    head = [f"**{_inline(table.name)}**{table.about and ' ' + table.about}", ""]
    rule = "|".join("---:" if table.is_number(i) else "---" for i in range(len(table.heads)))
    lines = [
        *(head if table.name else []),
        f"| {' | '.join(map(_inline, table.heads))} |",
        f"|{rule}|",
        *(_markdown_row(row) for row in table.rows),
    ]
    return "\n".join([*lines, *([""] if table.notes else []), *bullets(table.notes)])


def aligned(text: str) -> str:
    r"""Return a text whose Markdown tables have columns of equal width, for a terminal.

    It stays Markdown. Cells longer than 40 characters stick out.

    Args:
        text: With tables or without.

    >>> print(aligned("| a | b |\n|---|---:|\n| long name | 7.5 |"))
    | a         |   b |
    |-----------|----:|
    | long name | 7.5 |
    """
    lines = text.split("\n")
    made: list[str] = []
    for is_table, group in groupby(lines, lambda line: line.startswith("|")):
        rows = list(group)
        made += _aligned_rows(rows) if is_table else rows
    return "\n".join(made)


def _aligned_rows(lines: Sequence[str]) -> list[str]:
    rows = [[cell.strip() for cell in _BORDER.split(line)[1:-1]] for line in lines]
    if len(rows) < 2 or len(set(map(len, rows))) > 1 or not all(map(_RULE.fullmatch, rows[1])):
        return list(lines)
    numbers = [rule.endswith(":") for rule in rows[1]]
    content = [rows[0], *rows[2:]]
    widths = [
        max((len(cell) for cell in column if len(cell) <= _STICKS_OUT), default=3)
        for column in zip(*content, strict=True)
    ]
    rule = "".join(
        f"|{'-' * (max(width, 3) + 1)}{':' if number else '-'}"
        for width, number in zip(widths, numbers, strict=True)
    )
    padded = [
        "".join(
            f"| {cell.rjust(max(width, 3)) if number else cell.ljust(max(width, 3))} "
            for cell, width, number in zip(row, widths, numbers, strict=True)
        )
        for row in content
    ]
    return [f"{padded[0]}|", f"{rule}|", *(f"{line}|" for line in padded[1:])]


def bullets(notes: Sequence[str]) -> list[str]:
    """Return notes as the lines of a Markdown list."""
    return [f"- {' '.join(printable(note).split())}" for note in notes]


def _markdown_row(row: TableRow) -> str:
    cells = [_inline(c) if isinstance(c, str) else _stressed(c) for c in row.cells]
    if row.faint:
        cells[0] = f"*{cells[0]}*"
    return f"| {' | '.join(cells)} |"


def _stressed(cell: Cell) -> str:
    return f"**{_inline(cell.strong)}** {_inline(cell.text)}".rstrip()


def _inline(text: str) -> str:
    """Return a text that stays in its cell."""
    return " ".join(printable(text).split()).replace("|", r"\|")


# ------------------------------------------------------------------------------------------- facts


def facts_text(title: str, facts: Mapping[str, str]) -> str:
    """Return the facts of an object, one per line, for a terminal.

    Args:
        title: Its class and name.
        facts: Short texts by short names; empty ones are omitted.
    """
    width = max(map(len, facts), default=0)
    lines = [f"  {name:<{width}}  {value}" for name, value in facts.items() if value]
    return "\n".join([title, *lines])


def facts_html(title: str, facts: Mapping[str, str]) -> str:
    """Return the same as `facts_text` for Jupyter.

    Args:
        title: Its class and name.
        facts: Short texts by short names; empty ones are omitted.
    """
    return f"<div><strong>{html.escape(title)}</strong>{fact_rows(facts)}</div>"


def fact_rows(facts: Mapping[str, str]) -> str:
    """Return facts as a table of two columns.

    Args:
        facts: Short texts by short names; empty ones are omitted.
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
        if value
    )
    return f"<table>{rows}</table>"


def tables_html(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return tables with their notes, for Jupyter.

    Args:
        tables: Each with a name.
        notes: Below the last.
    """
    parts = [_table_html(table) for table in tables]
    return f"<div>{''.join(parts)}{_notes_html(notes)}</div>"


def _table_html(table: Table) -> str:
    def row(cells: Sequence[str | Cell], tag: str) -> str:
        words = [cell if isinstance(cell, str) else f"{cell.strong} {cell.text}" for cell in cells]
        sides = ["right" if table.is_number(column) else "left" for column in range(len(words))]
        inner = "".join(
            f"<{tag} style='text-align:{side}'>{html.escape(word)}</{tag}>"
            for side, word in zip(sides, words, strict=True)
        )
        return f"<tr>{inner}</tr>"

    rows = "".join(row(one.cells, "td") for one in table.rows)
    head = f"<p><strong>{html.escape(table.name)}</strong> {html.escape(table.about)}</p>"
    return f"{head}<table>{row(table.heads, 'th')}{rows}</table>{_notes_html(table.notes)}"


def _notes_html(notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{html.escape(note.replace('**', ''))}</li>" for note in notes)
    return f"<ul>{lines}</ul>" if lines else ""
