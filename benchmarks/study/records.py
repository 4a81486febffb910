"""What all studies share: their options, records that are resumed, t intervals and tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parent.parent / "results"

Record = Mapping[str, Any]

# Two-sided 95 % quantile of Student's t by degrees of freedom.
T95: Final = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def study_parser(about: str | None) -> argparse.ArgumentParser:
    """Return the options that every study has.

    Args:
        about: Docstring of the script.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="page and figures from the records")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of records and page")
    return parser


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return what has been recorded."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def append_record(path: Path, record: Record) -> None:
    """Append a record to its file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def recorded(path: Path, *keys: str) -> set[tuple[Any, ...]]:
    """Return the runs that need not be made again, by the fields that identify a run."""
    return {tuple(row[key] for key in keys) for row in read_records(path)}


# ------------------------------------------------------------------------ intervals and tables


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and half-width of the 95 % t interval over seeds or folds; NaN for one value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, float("nan")
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return mean, T95[len(values) - 1] * spread / len(values) ** 0.5


def signed(found: Sequence[float]) -> str:
    """Return a mean difference with its interval, bold where it excludes 0; one value has none."""
    if not found:
        return ""
    mean, half = interval(found)
    if len(found) == 1:
        return f"{mean:+.1f}"
    text = f"{mean:+.1f} ± {half:.1f}"
    return f"**{text}**" if abs(mean) > half else text


def intervals_in(rows: Sequence[Sequence[str]]) -> int:
    """Return how many cells of a table hold an interval: some of them exclude 0 by chance."""
    return sum("±" in cell for row in rows for cell in row)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        head: Of the columns.
        rows: Cells.
        names: How many columns at the left hold words; the others are numbers.
    """
    rule = "|" + "---|" * names + "---:|" * (len(head) - names)
    return [_line(head), rule, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
