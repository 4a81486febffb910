"""Rows of numbers in a file: one JSON object per line, and the same as CSV beside it.

The JSON lines are the record: appended, synced with every checkpoint, and cut back to the
checkpoint when a run is resumed. The CSV is a view for spreadsheets, written again from the
record whenever its columns change.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

from eofm.io import replacing

Row = Mapping[str, float]


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows of a file; half a line, as a killed run leaves it, is passed over."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "step" in row:
                rows.append(row)
    return rows


class RowFile:
    """A growing table.

    Args:
        path: The file of JSON lines; the CSV lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.csv = path, path.with_suffix(".csv")
        self._columns: list[str] = []

    def begin(self, step: int) -> None:
        """Drop the rows of steps that will be taken again: all after `step`; all if it is 0."""
        if not self.path.is_file():
            return
        kept = [row for row in read_rows(self.path) if step > 0 and row["step"] <= step]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(_line(row) for row in kept), encoding="utf-8")
        self._rebuild(kept)

    def write(self, row: Row) -> None:
        """Append a row, which has `step`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        if set(row) <= set(self._columns):
            with self.csv.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._rebuild(read_rows(self.path))

    def sync(self) -> None:
        """Make the rows safe: a checkpoint must not know of steps that the file has lost."""
        if self.path.is_file():
            with self.path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing is open between two rows."""

    def _rebuild(self, rows: list[dict[str, float]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        with self.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
