"""The picture beside a table of labels: how frequent classes are, and which occur together.

It is drawn without torch, which alone would need more memory than all of the counting.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.io import replacing
from eofm.landcover.report import LabelReport


def save_figure(report: LabelReport) -> Path:
    """Draw a table's classes beside it, as .png, and return the file.

    Raises:
        LabelError: If it cannot be written.
    """
    file = report.out.with_suffix(".png")
    try:
        with replacing(file) as temporary:
            label_figure(report).savefig(temporary, format="png", dpi=110)
    except OSError as error:
        raise LabelError(
            "the picture could not be written",
            found=error.strerror or error,
            where=file,
            remedy="see to space and permissions; the table itself is complete",
        ) from error
    return file


def label_figure(report: LabelReport) -> Figure:
    """Draw how frequent classes are, and which occur together."""
    k = len(report.classes)
    size = 2.4 + 0.26 * k
    figure = Figure(figsize=(2 * size + 2, size), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_frequencies(report, left)
    draw_cooccurrence(report.together, report.classes, right)
    figure.suptitle(
        f"{report.out.name}: {report.known} of {report.rows} rows labelled, {report.scheme}"
    )
    return figure


def draw_frequencies(report: LabelReport, ax: Axes) -> None:
    """Draw the share of rows that show each class, and its mean cover in them all."""
    places = np.arange(len(report.classes))
    share = np.diag(report.together) / max(report.known, 1)
    ax.barh(places, 100 * share, color="#9ecae1", label="rows that show it")
    ax.barh(places, 100 * report.mean, height=0.4, color="#08519c", label="mean cover")
    ax.set_yticks(places, report.classes)
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="% of the labelled rows; % of their valid pixels")
    ax.legend(loc="lower right", fontsize="small")


def draw_cooccurrence(together: NDArray[np.int64], classes: tuple[str, ...], ax: Axes) -> None:
    """Draw the share of the rows with one class that show another.

    Args:
        together: In how many rows two classes are present, (K, K).
        classes: Their names.
        ax: Where to draw.
    """
    share = 100 * together / np.maximum(np.diag(together), 1)[:, None]
    image = ax.imshow(share, vmin=0, vmax=100, cmap="Blues")
    places = np.arange(len(classes))
    ax.set_xticks(places, classes, rotation=90)
    ax.set_yticks(places, classes)
    ax.set(xlabel="also show", ylabel="rows that show")
    if len(classes) <= 12:
        for row, col in np.ndindex(*share.shape):
            ink = "white" if share[row, col] > 60 else "black"
            ax.text(
                col, row, f"{share[row, col]:.0f}", ha="center", va="center", color=ink, fontsize=7
            )
    ax.figure.colorbar(image, ax=ax, label="%", shrink=0.8)
