"""Curves as SVG that stands in the page and takes its colours: ink is the page's own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eofm.report.charts import PALETTE
from eofm.train.figures import smooth
from eofm.train.page.record import Curve

# Stands for the page's text colour until the SVG is done; no palette has it.
_INK: Final = "#010203"
_POINTS: Final = 600
# Lines with more points than this are drawn faintly, with their moving average on top.
_NOISY: Final = 80
# Of what a run logs, as titles; a measure of a look is the same before and after training.
TITLES: Final[Mapping[str, str]] = {
    "loss": "Loss",
    "own_probability": "Probability of the own image",
    "lr": "Learning rate",
    "momentum": "Momentum of the teacher",
    "knn": "kNN, average precision, macro",
    "linear": "Linear probe, average precision, macro",
    "effective_rank": "Effective rank: directions in use (arXiv 2210.02885)",
    "embedding_std": "Spread (1 fills the sphere, 0 is one point)",
    "alignment": "Alignment: distance of two views (arXiv 2005.10242)",
    "uniformity": "Uniformity: lower is more even (arXiv 2005.10242)",
    "label_correlation": "Rank correlation of cosine and label similarity",
}


@contextmanager
def _inked() -> Iterator[None]:
    """Draw in the ink, and keep letters as text."""
    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        **{f"{part}.color": _INK for part in ("text", "xtick", "ytick")},
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "legend.labelcolor": _INK,
    }
    with mpl.rc_context(settings):  # type: ignore[arg-type]  # its keys are spelled out in its type
        yield


@_inked()
def chart(
    title: str,
    curves: Mapping[str, Curve],
    *,
    y_label: str = "",
    marks: Mapping[str, float] | None = None,
    symlog: bool = False,
    zero: bool = False,
) -> str:
    """Draw curves over the steps.

    Args:
        title: Above.
        curves: Name -> (steps, values).
        y_label: Of the values.
        marks: Name -> a value at which a dashed line is drawn.
        symlog: Steps on a logarithmic axis that has a 0.
        zero: The value axis begins at 0.
    """
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        _line(axes, name, curve, PALETTE[number % (len(PALETTE) - 1)])
    for name, value in (marks or {}).items():
        axes.axhline(value, color=_INK, lw=0.8, ls=(0, (4, 3)), alpha=0.6)
        place = (0.995, value)
        axes.annotate(
            name, place, xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7.5
        )
    if symlog:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
    if zero:
        axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#808080", lw=0.4, alpha=0.35)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _to_svg(figure, title)


def title_of(name: str) -> str:
    """Return the title of a logged number; its own name if it has none.

    Args:
        name: As in metrics.csv or monitor.csv: `loss`, `monitor/knn`, `monitor/before/knn`.
    """
    rest = name.removeprefix("monitor/")
    plain = rest.removeprefix("before/")
    title = TITLES.get(plain, plain)
    return title if plain == rest else f"{title}: the data of the stage before"


def _line(axes: Axes, name: str, curve: Curve, colour: str) -> None:
    steps, values = curve
    if len(values) <= _NOISY:
        axes.plot(steps, values, "o-", ms=2.6, lw=1.4, color=colour, label=name)
        return
    axes.plot(*_thin(steps, values), lw=0.6, alpha=0.3, color=colour)
    axes.plot(*_thin(*smooth(steps, values)), lw=1.5, color=colour, label=name)


def _thin(steps: np.ndarray, values: np.ndarray) -> Curve:
    """Return at most so many points: a page is not a data base."""
    every = max(1, len(steps) // _POINTS)
    return steps[::every], values[::every]


@_inked()
def bars(title: str, names: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
    """Draw a value per class for each of a few encoders.

    Args:
        title: Above.
        names: Of the classes.
        series: Encoder -> a value per class; None leaves a gap.
    """
    figure = Figure(figsize=(7.2, 1.1 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    thick = 0.8 / len(series)
    for number, (label, values) in enumerate(series.items()):
        place = np.arange(len(names)) + thick * number
        lengths = [np.nan if value is None else 100 * value for value in values]
        axes.barh(place, lengths, thick, color=PALETTE[number], label=label)
    middle = np.arange(len(names)) + 0.4 - thick / 2
    axes.set_yticks(middle, labels=list(names), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_title(title, loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return _to_svg(figure, title)


def _to_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element, without a background, in the colour of the text.

    Args:
        figure: Drawn in the ink.
        name: Keeps its inner names apart from those of other figures on the page.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # fixed sizes would not shrink on a narrow screen: the view box is enough
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
