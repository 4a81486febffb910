"""What a table of labels holds: in words for the terminal, and as the picture beside the table.

The picture shows how frequent classes are, and which occur together. It is drawn without torch,
which alone would need more memory than all of the counting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.formats.foreign import foreign
from eofm.landcover.table import open_table
from eofm.report import output, plots


@dataclass(frozen=True)
class LabelReport:
    """The outcome of `eofm labels`.

    Args:
        out: The table.
        scheme: Name of the scheme.
        rows: How many windows or scenes it holds.
        known: How many of them have labels.
        unknown: Why not -> how many.
        skipped: How many were left out for holding nothing but nodata.
        ignored: Codes that the scheme ignores -> pixels.
        classes: Class names.
        together: In how many rows two classes are present, (K, K); on the diagonal, one class.
        mean: Mean fraction of each class over the rows with labels, (K,).
        sources: How many maps gave pixels.
        done: How many windows or scenes were counted now.
        seconds: How long that took, with all reading and writing.
        notes: What else the user should know, in lines.
    """

    out: Path
    scheme: str
    rows: int
    known: int
    unknown: Mapping[str, int]
    skipped: int
    ignored: Mapping[str, int]
    classes: tuple[str, ...]
    together: NDArray[np.int64]
    mean: NDArray[np.float64]
    sources: int
    done: int
    seconds: float
    notes: tuple[str, ...]

    def describe(self) -> str:
        """Return some lines for the terminal."""
        if self.done:
            speed = f"{self.done} counted in {self.seconds:.1f} s, {self.done / self.seconds:.0f}/s"
        else:
            speed = "was complete already; nothing was counted"
        lines = [
            f"{self.out}: {self.rows} rows from {self.sources} map(s), scheme {self.scheme}",
            f"  {speed}",
            f"  {self.known} labelled, {self._share(self.rows - self.known)} unknown",
            *(f"    {count:8d}  {reason}" for reason, count in self.unknown.items()),
        ]
        if self.skipped:
            lines.append(f"  {self.skipped} with nothing but nodata left out")
        if self.ignored:
            codes = ", ".join(f"{code} ({n} pixels)" for code, n in self.ignored.items())
            lines.append(f"  codes that the scheme ignores: {codes}")
        lines += [f"  {note}" for note in self.notes]
        width = max(map(len, self.classes))
        lines.append(f"  {'class':{width}}      rows  share  mean cover")
        lines += [
            f"  {name:{width}}  {count:8d}  {count / max(self.known, 1):5.1%}  {mean:10.2%}"
            for name, count, mean in zip(
                self.classes, np.diag(self.together).tolist(), self.mean.tolist(), strict=True
            )
        ]
        return "\n".join(lines)

    def _share(self, part: int) -> str:
        return f"{part} ({part / max(self.rows, 1):.1%})"

    def __str__(self) -> str:
        return self.describe()


def summarise(
    out: str | Path, done: int, seconds: float, notes: tuple[str, ...] = ()
) -> LabelReport:
    """Read a table, one row group at a time.

    Args:
        out: The table.
        done: How many windows or scenes were counted now.
        seconds: How long that took.
        notes: What else the user should know, in lines.

    Raises:
        LabelError: If there is no such table.
    """
    table = open_table(out)
    k = len(table.classes)
    together, mean = np.zeros((k, k), np.int64), np.zeros(k)
    unknown: dict[str, int] = {}
    sources: set[str] = set()
    rows = known = 0
    with (
        foreign(LabelError, "the table of labels is damaged", where=table.path),
        pq.ParquetFile(table.path) as file,
    ):
        for group in range(file.num_row_groups):
            part = file.read_row_group(
                group, ["multi_hot", "fraction", "known", "reason", "source"]
            )
            sure = part["known"].to_numpy()
            hot = _matrix(part, "multi_hot", k)[sure].astype(np.int64)
            together += hot.T @ hot
            mean += _matrix(part, "fraction", k)[sure].sum(axis=0)
            for value in part["reason"].filter(part["reason"].to_numpy() != "").value_counts():
                reason = value["values"].as_py()
                unknown[reason] = unknown.get(reason, 0) + value["counts"].as_py()
            sources |= set(part["source"].combine_chunks().flatten().unique().to_pylist())
            rows += part.num_rows
            known += int(sure.sum())
    about = table.about
    return LabelReport(
        out=table.path,
        scheme=about["scheme"]["name"],
        rows=rows,
        known=known,
        unknown=dict(sorted(unknown.items())),
        skipped=about["skipped"],
        ignored=about["ignored"],
        classes=table.classes,
        together=together,
        mean=mean / max(known, 1),
        sources=len(sources),
        done=done,
        seconds=seconds,
        notes=notes,
    )


def _matrix(part: pa.Table, name: str, k: int) -> NDArray[np.float64]:
    flat: NDArray[np.float64] = part[name].combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, k)


# ------------------------------------------------------------------------------- the picture


def save_figure(report: LabelReport) -> Path:
    """Draw a table's classes beside it, as .png, and return the file.

    Args:
        report: What the table holds.

    Raises:
        DataError: If it cannot be written.
    """
    counts = plots.ClassCounts(
        report.classes,
        report.together,
        report.known,
        report.rows - report.known,
        report.mean,
        samples="rows",
    )
    figure = plots.class_summary(
        f"{report.out.name}: {report.known} of {report.rows} rows labelled, {report.scheme}", counts
    )
    remedy = "check free space and permissions; the table itself is complete"
    return output.save(figure, report.out.with_suffix(".png"), remedy)
