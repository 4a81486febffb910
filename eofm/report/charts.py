"""Figures of scores: bars with intervals, matrices, curves. Imports matplotlib when drawing.

One colour means one model everywhere; the palette is told apart with any colour vision (Okabe and
Ito). Zero is in the picture wherever bars are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE: Final = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000"),
)
_DPI: Final = 130
_LONGEST: Final = 36
_BANDS: Final = 3
_TICKS: Final = 10
# Between the intervals of two models at one place, as a share of the axis.
_DODGE: Final = 0.007
_DASHES: Final = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Point:
    """A value with its interval.

    Args:
        value: What was measured.
        low: Lower end; equal to the value without an interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def colour(number: int) -> str:
    """Return the colour of the n-th model."""
    return PALETTE[number % len(PALETTE)]


def short(name: str) -> str:
    """Return a name that leaves room for the figure: long ones are cut, and say so."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 2].rstrip()} …"


def bars(
    title: str, classes: Sequence[str], series: Mapping[str, Sequence[Point | None]], label: str
) -> Figure:
    """Draw per-class values of several models, with intervals.

    Args:
        title: Above the figure.
        classes: One group of bars each.
        series: Model -> one value per class; None leaves a gap.
        label: Of the value axis.
    """
    from matplotlib.figure import Figure

    height = 1.6 + len(classes) * (0.12 + 0.14 * len(series))
    figure = Figure(figsize=(7.5, height), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    thick = 0.8 / len(series)
    for number, (name, points) in enumerate(series.items()):
        place = [row + thick * number for row, point in enumerate(points) if point]
        known = [point for point in points if point]
        error = np.array([[p.value - p.low for p in known], [p.high - p.value for p in known]])
        axes.barh(
            place,
            [point.value for point in known],
            thick,
            xerr=error.clip(0),
            color=colour(number),
            label=name,
            error_kw={"lw": 0.8},
        )
    axes.set_yticks([row + 0.4 - thick / 2 for row in range(len(classes))], labels=list(classes))
    axes.set_ylim(len(classes) - 0.1, -0.5 * thick - 0.1)
    axes.set_xlim(0, 1)
    axes.set_xlabel(label, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def matrix(
    title: str, classes: Sequence[str], shares: NDArray[np.float64], rows: str, columns: str
) -> Figure:
    """Draw shares (K, K) in [0, 1] with their numbers: a confusion or co-occurrence matrix.

    Args:
        title: Above the figure.
        classes: Names of rows and columns.
        shares: NaN where there is nothing to share.
        rows: What rows are.
        columns: What columns are.
    """
    from matplotlib.figure import Figure

    side = 2.8 + 0.32 * len(classes)
    figure = Figure(figsize=(side + 1, side), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    places = range(len(classes))
    names = [short(name) for name in classes]
    axes.set_xticks(places, labels=names, rotation=90, fontsize=6)
    axes.set_yticks(places, labels=names, fontsize=6)
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        tone = "white" if share > 0.5 else "black"
        text = f"{100 * share:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=5, color=tone)
    axes.set_ylabel(rows, fontsize=8)
    axes.set_xlabel(columns, fontsize=8)
    axes.set_title(title, fontsize=9)
    return figure


def curves(
    title: str,
    series: Mapping[str, Sequence[tuple[float, Point]]],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    mark: float | None = None,
    own: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Draw values with intervals over a number: image size, or share of the labels.

    Args:
        title: Above the figure.
        series: Name -> (x, value), in any order.
        x_label: Of the number.
        y_label: Of the value.
        log: Logarithmic x axis.
        mark: Where to draw a vertical line: the size a model was trained at, say.
        own: Name -> the x at which its value gets a ring: its own size, where these differ.
        levels: Name -> a value that does not depend on x: a grey line, for a control.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(series.items()):
        ordered = sorted(points, key=lambda pair: pair[0])
        x = [place for place, _ in ordered]
        again = _DASHES[number // len(PALETTE) % len(_DASHES)]  # a colour that comes a second time
        y = [p.value for _, p in ordered]
        axes.plot(x, y, f"o{again}", ms=3, lw=1.2, color=colour(number), label=name)
        low, high = [p.low for _, p in ordered], [p.high for _, p in ordered]
        if len(series) <= _BANDS:
            axes.fill_between(x, low, high, color=colour(number), alpha=0.15, lw=0)
        else:  # bands of many models hide one another, and so would lines at one place
            aside = _DODGE * (number - (len(series) - 1) / 2)
            span = (max(x) / min(x)) ** aside if log else aside * (max(x) - min(x))
            beside = [place * span if log else place + span for place in x]
            axes.vlines(beside, low, high, color=colour(number), lw=0.8, alpha=0.7)
        ring = [(place, p.value) for place, p in ordered if place == (own or {}).get(name)]
        for place, value in ring:
            axes.plot(place, value, "o", ms=8, mfc="none", color=colour(number))
    for number, (name, value) in enumerate((levels or {}).items()):
        axes.axhline(value, color="0.55", lw=0.9, ls=_DASHES[number % len(_DASHES)], label=name)
    if mark is not None:
        axes.axvline(mark, color="0.5", lw=0.8, ls="--")
    if log:
        axes.set_xscale("log")
    places = sorted({place for points in series.values() for place, _ in points})
    if len(places) <= _TICKS:
        axes.set_xticks(places, labels=[f"{place:g}" for place in places])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, without the time of its making."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
