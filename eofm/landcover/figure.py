"""The figure beside a table of labels: how frequent classes are, and which occur together.

It is drawn without torch, which alone would need more memory than all of the counting.
"""

from __future__ import annotations

from pathlib import Path

from eofm.landcover.report import LabelReport
from eofm.report import output, plots


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
