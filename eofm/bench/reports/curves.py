"""From records to curves: a score over the number of labels, or over the input size."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eofm.bench.records import Result
from eofm.bench.reports.resampled import over
from eofm.bench.samples import whole_split
from eofm.report.plots import Estimate
from eofm.report.tables import Cell


@dataclass(frozen=True)
class Curve:
    """One score of several models over a number.

    Args:
        name: For a file: `labels` or `size`.
        stem: Of the file: task, hash of the sample, probe and metric.
        title: Task, version, split, and whether it is a subset.
        probe: Exact protocol of the first model.
        metric: Id of the metric.
        series: Model -> (place, value with its spread), by rising place.
        heads: Place -> its name in a table.
        own: Model -> the place of its own input; empty where there is none.
        levels: Models that have no place, as controls without a size -> their score.
        log: Whether places are drawn on a logarithmic axis.
        x_label: Of the places.
        spread: What the spread of a value is.
        drawn: Places of which the value is the mean over several draws.
        notes: What a reader must know.
    """

    name: str
    stem: str
    title: str
    probe: str
    metric: str
    series: Mapping[str, tuple[tuple[float, Estimate], ...]]
    heads: Mapping[float, str]
    own: Mapping[str, float]
    levels: Mapping[str, float]
    log: bool
    x_label: str
    spread: str
    drawn: frozenset[float]
    notes: tuple[str, ...]

    @property
    def places(self) -> list[float]:
        """All places, rising."""
        return sorted({place for points in self.series.values() for place, _ in points})

    def cell(self, model: str, place: float) -> str | Cell:
        """Return a value as it stands in a table; in bold if it is the model's own input."""
        point = dict(self.series[model]).get(place)
        if point is None:
            return ""
        value = f"{100 * point.value:.1f}"
        if place in self.drawn:
            return f"{value} ± {100 * (point.high - point.value):.1f}"
        if self.log:
            return value
        span = f"({100 * point.low:.1f} – {100 * point.high:.1f})"
        return Cell(value, span) if self.own.get(model) == place else f"{value} {span}"


def _grouped(results: Iterable[tuple[tuple[str, ...], Result]]) -> list[list[Result]]:
    groups: dict[tuple[str, ...], list[Result]] = {}
    for key, result in results:
        groups.setdefault(key, []).append(result)
    return list(groups.values())


def _title(result: Result) -> str:
    sample = result.sample
    subset = "" if sample.complete else ", a subset of the images"
    return f"{result.task} version {result.version}, split {whole_split(sample)}{subset}"


def _stem(result: Result, sha256: str) -> str:
    return f"{result.task}-{sha256[:8]}-{result.kind}-{result.metric}"


def _probes(group: Sequence[Result]) -> tuple[str, ...]:
    """Return the exact protocol of each model: they may differ in scaling."""
    probes: dict[str, dict[str, None]] = {}
    for result in group:
        probes.setdefault(result.probe, {}).setdefault(result.of or result.model.name)
    return tuple(f"exact protocol `{probe}`: {', '.join(names)}" for probe, names in probes.items())


def _series_of(result: Result) -> str:
    """Return which line of a curve a record belongs to: its model, and what it is fed."""
    name = result.of or result.model.name
    return f"{name}, {result.normalization}" if result.normalization else name


def _by_model(group: Sequence[Result]) -> dict[str, list[Result]]:
    rows: dict[str, list[Result]] = {}
    for result in group:
        rows.setdefault(_series_of(result), []).append(result)
    return rows


# -------------------------------------------------------------------------------- labels


def label_curves(results: Sequence[Result]) -> list[Curve]:
    """Return the curves over the number of training labels.

    Args:
        results: Records; those of other input sizes are not looked at.
    """
    keyed = (
        ((r.task, r.version, whole_split(r.sample), r.sample.test_sha256, r.kind, r.metric), r)
        for r in results
        if not r.of and r.sample.test_sha256
    )
    return [_label_curve(group) for group in _grouped(keyed) if any(r.sample.labels for r in group)]


def _label_curve(group: Sequence[Result]) -> Curve:
    heads: dict[float, str] = {}
    drawn: set[float] = set()
    series = {}
    for name, rows in _by_model(group).items():
        shares: dict[str, list[Result]] = {}
        for result in rows:
            shares.setdefault(result.sample.labels, []).append(result)
        points = []
        for words, same in shares.items():
            place = statistics.fmean(r.sample.n_train for r in same)
            heads[place] = f"{words or 'all'} ({place:g})"
            points.append((place, spread([r.value for r in same])))
            drawn |= {place} if len(same) > 1 else set()
        series[name] = tuple(sorted(points, key=lambda pair: pair[0]))
    draws = len({r.sample.draw for r in group if r.sample.labels})
    return Curve(
        name="labels",
        stem=_stem(group[0], group[0].sample.test_sha256),
        title=_title(group[0]),
        probe=group[0].probe,
        metric=group[0].metric,
        series=series,
        heads=heads,
        own={},
        levels={},
        log=True,
        x_label="labelled training images",
        spread=f"± standard deviation over {draws} draws",
        drawn=frozenset(drawn),
        notes=(
            *_probes(group),
            f"In brackets: training images. ±: standard deviation over {draws} draws of the "
            "labels; it knows nothing of the test samples.",
            f"Where a probe chooses, it does so on all {group[0].sample.n_val} validation images.",
        ),
    )


def spread(values: Sequence[float]) -> Estimate:
    """Return the mean of values, with one standard deviation (of the sample) to both sides."""
    mean = statistics.fmean(values)
    side = statistics.stdev(values) if len(values) > 1 else 0.0
    return Estimate(mean, mean - side, mean + side)


# ---------------------------------------------------------------------------------- size


def size_curves(results: Sequence[Result]) -> list[Curve]:
    """Return the curves over the input size.

    Args:
        results: Records; those of fewer labels are not looked at.
    """
    keyed = (
        ((r.task, r.version, r.sample.split, r.sample.ids_sha256, r.kind, r.metric), r)
        for r in results
        if not r.sample.labels
    )
    return [_size_curve(group) for group in _grouped(keyed) if any(r.of for r in group)]


def _size_curve(group: Sequence[Result]) -> Curve:
    sized = {name for r in group if r.of for name in (r.of, _series_of(r))}
    rows = {name: rows for name, rows in _by_model(group).items() if name in sized}
    series = {
        name: tuple(
            sorted(
                ((r.model.size, Estimate(r.value, r.interval.low, r.interval.high)) for r in found),
                key=lambda pair: pair[0],
            )
        )
        for name, found in rows.items()
    }
    places = sorted({place for points in series.values() for place, _ in points})
    level = group[0].interval.level
    return Curve(
        name="size",
        stem=_stem(group[0], group[0].sample.ids_sha256),
        title=_title(group[0]),
        probe=group[0].probe,
        metric=group[0].metric,
        series=series,
        heads={place: f"{place} px" for place in places},
        own={r.model.name: r.model.size for r in group if r.model.name in sized},
        levels={r.model.name: r.value for r in group if r.model.control},
        log=False,
        x_label="input size, pixels",
        spread=f"{100 * level:g} % interval {over(group[0].sample)}",
        drawn=frozenset(),
        notes=(
            *_probes([r for r in group if (r.of or r.model.name) in sized]),
            "In bold: the model's own input. All others are nonstandard. In brackets: "
            f"{100 * level:g} % interval {over(group[0].sample)}.",
        ),
    )
