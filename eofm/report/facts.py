"""What an object is, in few lines: for a terminal, and for a notebook without a picture."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from eofm.report.tables import Cell, Table


def facts_text(title: str, facts: Mapping[str, str]) -> str:
    """Return what an object is, one line for each fact, for a terminal.

    Args:
        title: Its class and name.
        facts: Short texts by short names; empty ones are left out.
    """
    width = max(map(len, facts), default=0)
    lines = [f"  {name:<{width}}  {value}" for name, value in facts.items() if value]
    return "\n".join([title, *lines])


def facts_html(title: str, facts: Mapping[str, str]) -> str:
    """Return the same as `facts_text` for Jupyter.

    Args:
        title: Its class and name.
        facts: Short texts by short names; empty ones are left out.
    """
    return f"<div><strong>{html.escape(title)}</strong>{fact_rows(facts)}</div>"


def fact_rows(facts: Mapping[str, str]) -> str:
    """Return facts as a table of two columns.

    Args:
        facts: Short texts by short names; empty ones are left out.
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
        if value
    )
    return f"<table>{rows}</table>"


def tables_html(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return tables with what is said below them, for Jupyter.

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
