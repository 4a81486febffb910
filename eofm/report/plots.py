"""Figures of scores, curves, classes and places, from plain records.

One colour and one marker mean one series throughout a figure; a colour that comes again comes with
another marker and another dash. Legends are placed outside the data. matplotlib is imported when a
figure is drawn; torch is not needed.

Maps of places show coastlines. `coastline.npz` is Natural Earth's land at 1:50 million
(naturalearthdata.com, public domain), thinned to 0.05 degrees; `docs/images/coastline.py` makes it.
It shows where on Earth a place is, with an error of some kilometres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from eofm.formats.arrays import read_npz
from eofm.report.output import (
    INK,
    PALETTE,
    colour,
    label_of,
    legend,
    marker,
    new_figure,
    styled,
)
from eofm.report.tables import shorten

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COASTLINE_SOURCE",
    "ClassCounts",
    "Estimate",
    "Floats",
    "LinePanel",
    "StepCurve",
    "class_summary",
    "coastlines",
    "curves",
    "dots",
    "draw_coastlines",
    "draw_frequencies",
    "draw_matrix",
    "draw_places",
    "lines",
    "matrix",
    "scatter",
    "scattered",
    "smooth",
]


Floats = NDArray[np.float64]
StepCurve = tuple[Floats, Floats]

_DASHES: Final = ("-", "--", "-.", ":")
_TICKS: Final = 10
# More curves than this get one panel each: their intervals would hide one another.
_TOGETHER: Final = 3
# Classes in one column of a dot plot; columns side by side.
_ROWS, _COLUMNS = 40, 3
# A matrix with more classes than this has small cells: a colour scale replaces the numbers.
_NUMBERED: Final = 30
# Degrees: if all places are closer together, no coastline shows where on Earth they are.
_NEAR: Final = 12.0
# Places further apart than this are shown on a map of the whole world.
_WIDE: Final = 180.0
# Width of a wide letter of a label, in inches.
_LETTER: Final = 0.08
# Points below which a number in a cell cannot be read.
_SMALLEST: Final = 4.5
# LinePanel with more points than this are drawn faintly, with their moving average on top.
_NOISY: Final = 80
_POINTS: Final = 600


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Args:
        value: The measured value.
        low: Lower end; equal to the value without an interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether there is one: an interval of zero width would look like certainty."""
        return self.low < self.high


@dataclass(frozen=True)
class LinePanel:
    """One panel of curves over the steps of a run.

    Args:
        title: Above the panel.
        curves: Name -> (steps, values).
        marks: Name -> a value at which a dashed line is drawn.
        symlog: Steps on a logarithmic axis that has a 0.
        zero: Whether the value axis begins at 0.
    """

    title: str
    curves: Mapping[str, StepCurve]
    marks: Mapping[str, float] = field(default_factory=dict)
    symlog: bool = False
    zero: bool = False


@dataclass(frozen=True)
class ClassCounts:
    """How often classes occur in labelled samples, and which of them together.

    Args:
        classes: Names, K.
        together: In how many samples two classes are present, (K, K); on the diagonal, one class.
        known: Number of samples with labels.
        unknown: Number of samples without.
        cover: Mean share of the pixels of each class, (K,); None where it was not counted.
        samples: Name of the samples, in the plural.
    """

    classes: tuple[str, ...]
    together: NDArray[np.int64]
    known: int
    unknown: int = 0
    cover: Floats | None = None
    samples: str = "images"

    @property
    def share(self) -> Floats:
        """Share of the labelled samples in which each class is present, (K,)."""
        return np.asarray(np.diag(self.together) / max(self.known, 1), np.float64)

    @property
    def beside(self) -> Floats:
        """Of the samples with class i (row), the share with class j (column); NaN without any."""
        counts = self.together.astype(np.float64)
        own = np.diag(counts)[:, None]
        return np.divide(counts, own, out=np.full_like(counts, np.nan), where=own > 0)


# ----------------------------------------------------------------------------------- scores


def _dash(number: int) -> str:
    return _DASHES[number // len(PALETTE) % len(_DASHES)]


@styled
def dots(
    title: str, classes: Sequence[str], series: Mapping[str, Sequence[Estimate | None]], label: str
) -> Figure:
    """Draw a value per class of several models: a dot with its interval, one row per class.

    Many classes are drawn in up to three columns.

    Args:
        title: Above the figure.
        classes: Names, K.
        series: Model -> one value in [0, 1] per class; None where a class has none.
        label: Of the value axis.
    """
    columns = min(-(-len(classes) // _ROWS), _COLUMNS)
    rows = -(-len(classes) // columns)
    height = 1.1 + rows * max(0.24, 0.06 + 0.085 * len(series))
    beside = 0.6 + _LETTER * max((min(len(name), 36) for name in series), default=0)
    names = 0.3 + _LETTER * max((min(len(name), 36) for name in classes), default=0)
    figure = new_figure(beside + columns * (names + 3.6), max(height, 1.8))
    axes = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    handles: dict[str, Artist] = {}
    for column, part in enumerate(axes):
        chosen = slice(column * rows, (column + 1) * rows)
        shown = {name: points[chosen] for name, points in series.items()}
        handles.update(_dot_rows(part, classes[chosen], shown))
        part.set_ylim(rows - 0.5, -0.5)
        part.set_xlabel(label)
    axes[0].set_xlim(-0.015, 1.015)
    axes[0].set_title(label_of(title, 110))
    legend(figure, handles)
    return figure


def _dot_rows(
    axes: Axes, classes: Sequence[str], series: Mapping[str, Sequence[Estimate | None]]
) -> dict[str, Artist]:
    from matplotlib.ticker import PercentFormatter

    handles: dict[str, Artist] = {}
    for row in range(0, len(classes), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#8080801f", lw=0)
    lane = 0.84 / max(len(series), 1)
    for number, (name, points) in enumerate(series.items()):
        aside = lane * (number - (len(series) - 1) / 2)
        known = [(row + aside, point) for row, point in enumerate(points) if point is not None]
        place, value = [row for row, _ in known], [point.value for _, point in known]
        low, high = [point.low for _, point in known], [point.high for _, point in known]
        axes.hlines(place, low, high, color=colour(number), lw=1.1)
        (handles[name],) = axes.plot(
            value, place, marker(number), ms=4.2, color=colour(number), clip_on=False
        )
        handles[name].set_in_layout(False)  # one without a point would have an infinite box
    for row in range(len(classes)):
        if all(points[row] is None for points in series.values()):
            axes.text(0.01, row, "does not occur", va="center", fontsize=7, alpha=0.7)
    axes.set_yticks(range(len(classes)), labels=[label_of(name) for name in classes])
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return handles


@styled
def matrix(title: str, classes: Sequence[str], shares: Floats, rows: str, columns: str) -> Figure:
    """Draw shares (K, K) in [0, 1]: a confusion or co-occurrence matrix.

    Args:
        title: Above the figure.
        classes: Names of rows and columns.
        shares: NaN for a row without samples.
        rows: Name of the rows.
        columns: Name of the columns.
    """
    cell = 0.32 if len(classes) <= _NUMBERED else 0.16
    names = 0.4 + 0.9 * _LETTER * max((min(len(name), 30) for name in classes), default=0)
    side = max(names + cell * len(classes) + 0.6, 2.6)
    figure = new_figure(side + 0.3, side)
    axes = figure.subplots()
    draw_matrix(axes, classes, shares, cell)
    axes.set_ylabel(rows)
    axes.set_xlabel(columns)
    axes.set_title(label_of(title, int(11 * side)))
    return figure


def draw_matrix(axes: Axes, classes: Sequence[str], shares: Floats, cell: float) -> None:
    """Draw shares with their numbers in per cent; gray for a row without samples.

    Args:
        axes: Where to.
        classes: Names of rows and columns, K.
        shares: (K, K).
        cell: Side of a cell in inches; smaller ones have smaller numbers, then a scale instead.
    """
    import matplotlib as mpl

    blues = mpl.colormaps["Blues"].with_extremes(bad="#d4d4d4")
    shown = axes.imshow(np.ma.masked_invalid(shares), vmin=0, vmax=1, cmap=blues)
    names = [label_of(name, 30) for name in classes]
    size = min(7.0, 45 * cell)
    axes.set_xticks(range(len(names)), labels=names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), labels=names, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    digits = min(6.5, 27 * cell)
    if digits < _SMALLEST:
        bar = axes.figure.colorbar(shown, ax=axes, shrink=0.6, fraction=0.03)
        bar.ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        return
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        tone = "white" if share > 0.55 else "black"
        text = f"{100 * share:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=digits, color=tone)


@styled
def curves(
    title: str,
    series: Mapping[str, Sequence[tuple[float, Estimate]]],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    mark: float | None = None,
    own: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Draw values with intervals over a number: image size, or number of labels.

    The band of the intervals has a gap where a value has none; one between two such is a bar.
    Up to three series share a panel. More get a panel each, with the others in gray behind it.

    Args:
        title: Above the figure.
        series: Name -> (x, share in [0, 1]), in any order.
        x_label: Of the number.
        y_label: Of the value.
        log: Whether the x axis is logarithmic.
        mark: Where to draw a vertical line: the size a model was trained at, say.
        own: Name -> the x at which its value gets a ring: its own size, where these differ.
        levels: Name -> a value that does not depend on x: a gray line, for a control.
    """
    from matplotlib.ticker import PercentFormatter

    ordered = {n: sorted(points, key=lambda pair: pair[0]) for n, points in series.items()}
    one = len(ordered) <= _TOGETHER
    columns = 1 if one else min(3, len(ordered))
    rows = 1 if one else -(-len(ordered) // columns)
    figure = new_figure(8.2 if one else 1.6 + 3.0 * columns, 4.2 if one else 0.8 + 2.3 * rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    handles: dict[str, Artist] = {}
    for place, panel in enumerate(axes.flat):
        chosen = list(enumerate(ordered)) if one else list(enumerate(ordered))[place : place + 1]
        if not chosen:
            panel.set_axis_off()
            continue
        for name in () if one else ordered:
            panel.plot(*_values(ordered[name]), lw=0.8, color="#8a8a8a", alpha=0.45)
        for number, name in chosen:
            handles[name] = _draw_curve(panel, number, ordered[name], (own or {}).get(name))
        for number, (name, value) in enumerate((levels or {}).items()):
            dash = _DASHES[(number + 1) % len(_DASHES)]
            handles[name] = panel.axhline(value, color="#6f6f6f", lw=0.9, ls=dash)
        if mark is not None:
            panel.axvline(mark, color="#8a8a8a", lw=0.8, ls="--")
        if not one:
            panel.set_title(label_of(chosen[0][1]), fontsize=8.5)
            panel.tick_params(labelbottom=place + columns >= len(ordered))
        panel.grid()
    _x_axis(axes.flat[0], {x for points in ordered.values() for x, _ in points}, log=log)
    axes.flat[0].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    figure.supxlabel(x_label if one else f"{x_label}; gray: the other curves", fontsize=8.5)
    figure.supylabel(y_label, fontsize=8.5)
    figure.suptitle(label_of(title, 120), fontsize=9.5, x=0.01, ha="left")
    if one or levels:
        legend(figure, {n: h for n, h in handles.items() if one or n in (levels or {})})
    return figure


@styled
def scattered(
    title: str,
    series: Mapping[str, Sequence[tuple[float, Estimate]]],
    x_label: str,
    y_label: str,
) -> Figure:
    """Draw values with intervals over a number on a logarithmic axis, without a line between.

    Args:
        title: Above the figure.
        series: Name -> (x above 0, share in [0, 1]), in any order.
        x_label: Of the number.
        y_label: Of the value.
    """
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(7.4, 4.2)
    axes = figure.subplots()
    handles: dict[str, Artist] = {}
    for number, (name, points) in enumerate(series.items()):
        x, y = _values(points)
        low, high = [point.low for _, point in points], [point.high for _, point in points]
        axes.vlines(x, low, high, color=colour(number), lw=0.8, alpha=0.5)
        (handles[name],) = axes.plot(x, y, marker(number), ms=4.5, color=colour(number))
    axes.set_xscale("log")
    axes.grid()
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(label_of(title, 110))
    legend(figure, handles)
    return figure


def _values(points: Sequence[tuple[float, Estimate]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [point.value for _, point in points]


def _draw_curve(
    axes: Axes, number: int, points: Sequence[tuple[float, Estimate]], ring: float | None
) -> Artist:
    x, y = _values(points)
    low, high = [point.low for _, point in points], [point.high for _, point in points]
    style: dict[str, Any] = {"color": colour(number), "marker": marker(number)}
    (line,) = axes.plot(x, y, ms=3.5, lw=1.3, ls=_dash(number), **style)
    # a band that narrows to a point without an interval would look like certainty
    known = np.array([point.has_interval for _, point in points], np.bool_)
    axes.fill_between(x, low, high, where=known, color=colour(number), alpha=0.15, lw=0)
    beside = np.pad(known, 1)
    alone = np.flatnonzero(known & ~beside[:-2] & ~beside[2:])
    if len(alone):
        axes.vlines(
            [x[i] for i in alone], [low[i] for i in alone], [high[i] for i in alone],
            color=colour(number), lw=0.8, alpha=0.5,
        )  # fmt: skip
    for place, value in zip(x, y, strict=True):
        if place == ring:
            axes.plot(place, value, "o", ms=9, mfc="none", color=colour(number))
    return line


def _x_axis(axes: Axes, places: set[float], *, log: bool) -> None:
    """Put a tick at every place, if these are few."""
    if log:
        axes.set_xscale("log")
    if len(places) <= _TICKS:
        axes.set_xticks(sorted(places), labels=[f"{place:g}" for place in sorted(places)])
        axes.set_xticks([], minor=True)


# -------------------------------------------------------------------------- curves of a run


@styled
def lines(panels: Sequence[LinePanel], title: str = "") -> Figure:
    """Draw panels of curves over the steps of a run, two side by side.

    Args:
        panels: One or more.
        title: Above all of them; none without.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(5.2 * columns, 2.9 * rows + (0.3 if title else 0))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, part in zip(panels, axes, strict=False):
        _draw_lines(part, panel)
    for empty in axes[len(panels) :]:
        empty.set_axis_off()
    if title:
        figure.suptitle(label_of(title, 120), fontsize=11)
    return figure


def _draw_lines(axes: Axes, panel: LinePanel) -> None:
    handles: dict[str, Artist] = {}
    for number, (name, (steps, values)) in enumerate(panel.curves.items()):
        # dashes differ from one to the next: of two curves that coincide both are seen
        style: dict[str, Any] = {"color": colour(number), "ls": _DASHES[number % len(_DASHES)]}
        if len(values) <= _NOISY:
            (handles[name],) = axes.plot(steps, values, "o", ms=2.4, lw=1.3, **style)
            continue
        axes.plot(*_thin(steps, values), lw=0.6, alpha=0.3, color=colour(number))
        (handles[name],) = axes.plot(*_thin(*smooth(steps, values)), lw=1.5, **style)
    for name, value in panel.marks.items():
        axes.axhline(value, color=INK, lw=0.8, ls=(0, (4, 3)), alpha=0.6)
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        axes.annotate(label_of(name), (0.995, value), fontsize=7.5, **place)  # type: ignore[arg-type]
    if panel.symlog:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
    if panel.zero:
        axes.set_ylim(bottom=0)
    axes.set_title(label_of(panel.title, 70))
    axes.set_xlabel("step")
    axes.grid()
    if len(handles) > 1:
        columns = 2 if max(map(len, handles)) > 20 else 3
        drawn = axes.legend(
            list(handles.values()), ["name"] * len(handles), loc="upper center",
            bbox_to_anchor=(0.5, -0.2), ncols=min(columns, len(handles)), fontsize=8,
        )  # fmt: skip
        for text, name in zip(drawn.get_texts(), handles, strict=True):
            text.set_text(label_of(name, 40))


def smooth(steps: Floats, values: Floats) -> StepCurve:
    """Return a moving average over a fortieth of the run, centred on its window."""
    window = max(1, len(values) // 40)
    kernel = np.full(window, 1 / window)
    return np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid")


def _thin(steps: Floats, values: Floats) -> StepCurve:
    """Return at most so many points that a page stays small."""
    every = max(1, len(steps) // _POINTS)
    return steps[::every], values[::every]


@styled
def scatter(
    panels: Mapping[str, Floats],
    groups: Sequence[int],
    names: Sequence[str],
    colours: Mapping[str, str],
    *,
    title: str,
    legend_title: str,
    axis_labels: tuple[str, str],
) -> Figure:
    """Draw the same samples in several planes side by side, coloured by group.

    Args:
        panels: Title of a panel -> coordinates, (N, 2).
        groups: Group of each sample, an index of `names`.
        names: Of the groups.
        colours: Group -> its customary colour; others take the palette's. Markers differ too.
        title: Above the figure.
        legend_title: Meaning of the groups.
        axis_labels: Of the two coordinates.
    """
    figure = new_figure(4.4 * len(panels) + 1.6, 4.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    owner = np.asarray(groups)
    handles: dict[str, Artist] = {}
    for part, (name, points) in zip(axes, panels.items(), strict=True):
        for index, group in enumerate(names):
            mine = points[owner == index]
            if not len(mine):
                continue
            # names that are shortened to the same text stay distinct: trailing spaces are not drawn
            label = f"{shorten(group, 28)} ({len(mine)})" + " " * index
            handles[label] = part.scatter(
                mine[:, 0], mine[:, 1], s=24, alpha=0.85, lw=0.4, edgecolor=INK,
                color=colours.get(group, colour(index)), marker=marker(index),
            )  # fmt: skip
        part.set_title(label_of(name))
        part.set_xlabel(axis_labels[0])
        part.set_ylabel(axis_labels[1])
    legend(figure, handles, legend_title)
    figure.suptitle(label_of(title, 120), fontsize=11)
    return figure


# ------------------------------------------------------------------------ classes and places


@styled
def class_summary(title: str, counts: ClassCounts) -> Figure:
    """Draw how often classes occur, and which of them occur together.

    Args:
        title: Above the figure.
        counts: The counts.
    """
    size, bars = 2.4 + 0.26 * len(counts.classes), 5.2
    figure = new_figure(bars + size + 3.4, size)
    left, right = figure.subplots(1, 2, width_ratios=[bars, size])
    handles = draw_frequencies(left, counts)
    draw_matrix(right, counts.classes, counts.beside, 0.26)
    right.set_title(
        f"of the {counts.samples} with the row's class, % with the column's (gray: none)"
    )
    if len(handles) > 1:
        legend(figure, handles)
    figure.suptitle(label_of(title, 120), fontsize=10, x=0.01, ha="left")
    return figure


def draw_frequencies(axes: Axes, counts: ClassCounts) -> dict[str, Artist]:
    """Draw the share of the labelled samples that show each class, and its mean cover.

    Classes are sorted by falling share; returns the handles of a legend.
    """
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    share = counts.share
    order = np.argsort(-share, kind="stable")
    places = np.arange(len(order))
    axes.barh(places, share[order], color=PALETTE[5])
    handles: dict[str, Artist] = {f"{counts.samples} that show it": Patch(color=PALETTE[5])}
    if counts.cover is not None:
        axes.barh(places, counts.cover[order], 0.4, color=PALETTE[0])
        handles["mean cover of their pixels"] = Patch(color=PALETTE[0])
    size = 8 if len(order) <= _NUMBERED else 7
    for place, index in enumerate(order):
        axes.text(share[index], place, f" {share[index]:.1%}", va="center", fontsize=size - 1)
    names = [label_of(counts.classes[index]) for index in order]
    axes.set_yticks(places, labels=names, fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1e-3, float(share.max(initial=0))) * 1.2)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlabel(f"share of the labelled {counts.samples}")
    unknown = f", {counts.unknown} not" if counts.unknown else ""
    axes.set_title(f"{counts.known} labelled{unknown}")
    return handles


def draw_places(axes: Axes, longitude: Floats, latitude: Floats, title: str) -> None:
    """Draw a dot for every image on plain degrees, true to scale at the middle latitude.

    Coastlines are drawn behind them. If the places are close together, a map of the world below the
    data shows them as well.
    """
    size = max(4.0, 90 / max(len(longitude), 1) ** 0.5)
    axes.scatter(longitude, latitude, s=size, c=PALETTE[0], alpha=0.6, lw=0)
    axes.set_title(title)
    axes.set_xlabel(f"longitude, °    ({COASTLINE_SOURCE})")
    axes.set_ylabel("latitude, °")
    axes.grid()
    axes.margins(0.08)
    middle = np.radians(np.clip(np.mean(latitude), -80, 80))
    world = len(longitude) > 0 and bool(np.ptp(longitude) > _WIDE)
    axes.set_aspect(float(1 / np.cos(middle)), adjustable="box" if world else "datalim")
    if world:  # nothing lies beyond its ends
        axes.set(xlim=(-180, 180), anchor="N")
    draw_coastlines(axes)
    if len(longitude) and max(np.ptp(longitude), np.ptp(latitude)) < _NEAR:
        _draw_world(axes, float(np.mean(longitude)), float(np.mean(latitude)))


def _draw_world(axes: Axes, longitude: float, latitude: float) -> None:
    """Draw where on Earth a place is, in the lower half that is freed for it."""
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.6 * max(high - low, 1e-3), high)
    world = axes.inset_axes((0.0, 0.0, 0.62, 0.3))
    draw_coastlines(world, 0.3)
    world.plot(longitude, latitude, "o", ms=7, mfc="none", mew=1.6, color=PALETTE[4])
    world.set(xlim=(-180, 180), ylim=(-60, 85), xticks=[], yticks=[], aspect="equal", anchor="SW")
    world.patch.set_alpha(0.85)


# --------------------------------------------------------------------------------------- coastlines

COASTLINE_SOURCE: Final = "coastlines: Natural Earth"
_COAST_UNIT: Final = 0.01  # degrees: coordinates are whole numbers of it
_COAST_COLOUR: Final = "#8a8a8a"


@lru_cache(maxsize=1)
def coastlines() -> tuple[NDArray[np.float64], ...]:
    """Return the lines of all coasts, each (N, 2): longitude and latitude in degrees."""
    stored = read_npz(files("eofm.report").joinpath("coastline.npz").read_bytes())
    points = stored["points"].astype(np.float64) * _COAST_UNIT
    return tuple(np.split(points, stored["starts"][1:]))


def draw_coastlines(axes: Axes, width: float = 0.6) -> None:
    """Draw all coastlines below the other artists, without changing the limits.

    Args:
        axes: Of longitude and latitude in degrees.
        width: Of the lines, in points.
    """
    from matplotlib.collections import LineCollection

    lines = LineCollection([*coastlines()], colors=_COAST_COLOUR, linewidths=width, zorder=0.5)
    axes.add_collection(lines, autolim=False)
