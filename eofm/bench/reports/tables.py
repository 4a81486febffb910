"""Tables of records in plain words: one per task, split and subset; for curves and for slices.

Rows of fewer labels and of other input sizes are not part of the main table: several draws of a
tenth of the labels are one number with a spread, not several models. They are curves: a score over
the number of labels, or over the input size. Protocols and metrics have plain names; the exact
strings stay in the records, and are shown in the footnotes.

`eofm bench table --slice`: separate scores for the test samples of each season, year or country. A
model may be good in summer and poor under a low sun. Slices are scored from the predictions next to
the records, without a new fit; the training data cover all slices. A slice has its own groups,
often few, and its own classes: a class without a positive is excluded from a mean over classes, so
slices should be compared by column, model with model, rather than by row.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.records import Result, over, resampled_notes
from eofm.bench.samples import whole_split
from eofm.datasets.images.chips import taken_in
from eofm.errors import ConfigError, LabelError
from eofm.probes.bootstrap import FEW_GROUPS, FEWEST_GROUPS, enough_groups
from eofm.probes.metrics import METRIC_WORDS, Metric
from eofm.report.plots import Estimate
from eofm.report.tables import Cell, Footnotes, Table, TableRow, bullets, markdown

__all__ = [
    "Curve",
    "RecordTables",
    "Slice",
    "by_sample",
    "label_curves",
    "metric_name",
    "metric_note",
    "probe_words",
    "size_curves",
    "sliced",
    "slices_of",
    "spread",
    "table",
    "tables_of",
]

# ------------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class Curve:
    """One score of several models as a function of a number.

    Args:
        name: Part of the file name: `labels` or `size`.
        stem: Stem of the file name: task, hash of the sample, probe and metric.
        title: Task, version, split, and whether it is a subset.
        probe: Exact protocol of the first model.
        metric: Id of the metric.
        series: Model -> (place, value with its spread), by increasing place.
        heads: Place -> its name in a table.
        own: Model -> the place of its own input; empty without one.
        levels: Models without a place, such as controls without a size -> their score.
        log: Whether places are drawn on a logarithmic axis.
        x_label: Label of the places.
        spread: Description of the spread of a value.
        drawn: Places whose value is the mean over several draws.
        notes: Notes for the reader.
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
        """All places, in increasing order."""
        return sorted({place for points in self.series.values() for place, _ in points})

    def cell(self, model: str, place: float) -> str | Cell:
        """Return a value as text for a table; in bold for the model's own input."""
        point = dict(self.series[model]).get(place)
        if point is None:
            return ""
        value = f"{100 * point.value:.1f}"
        if place in self.drawn:
            return f"{value} ± {100 * (point.high - point.value):.1f}"
        if self.log:
            return value
        span = f"({100 * point.low:.1f} – {100 * point.high:.1f})" if point.has_interval else ""
        own = self.own.get(model) == place
        return Cell(value, span) if own else f"{value} {span}".rstrip()


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
    """Return the exact protocol of each model: models may differ in scaling."""
    probes: dict[str, dict[str, None]] = {}
    for result in group:
        probes.setdefault(result.probe, {}).setdefault(result.of or result.model.name)
    return tuple(f"exact protocol `{probe}`: {', '.join(names)}" for probe, names in probes.items())


def _series_of(result: Result) -> str:
    """Return the line of a curve that a record belongs to: its model and input."""
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
        results: Records; those of other input sizes are ignored.
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
            "labels; it does not include the variance of test samples.",
            f"Where a probe chooses, it does so on all {group[0].sample.n_val} validation images.",
        ),
    )


def spread(values: Sequence[float]) -> Estimate:
    """Return the mean of values, plus and minus one (sample) standard deviation."""
    mean = statistics.fmean(values)
    side = statistics.stdev(values) if len(values) > 1 else 0.0
    return Estimate(mean, mean - side, mean + side)


# ---------------------------------------------------------------------------------- size


def size_curves(results: Sequence[Result]) -> list[Curve]:
    """Return the curves over the input size.

    Args:
        results: Records; those of fewer labels are ignored.
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
                ((r.model.size, _estimate(r)) for r in found),
                key=lambda pair: pair[0],
            )
        )
        for name, found in rows.items()
    }
    places = sorted({place for points in series.values() for place, _ in points})
    interval = over(group[0].sample, group[0].interval.level)
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
        spread=interval,
        drawn=frozenset(),
        notes=(
            *_probes([r for r in group if (r.of or r.model.name) in sized]),
            "In bold: the model's own input. All others are nonstandard. "
            + (f"In brackets: {interval}." if group[0].shown_interval else f"There is {interval}."),
        ),
    )


def _estimate(result: Result) -> Estimate:
    shown = result.shown_interval
    ends = (result.value, result.value) if shown is None else (shown.low, shown.high)
    return Estimate(result.value, *ends)


# ------------------------------------------------------------------------------------------- tables

# Prefixes of flags that name a control; their order in a cell.
_COMPARED: Final = ("below ", "not above ")


@dataclass(frozen=True)
class RecordTables:
    """Tables of records, with their common notes.

    Args:
        tables: One per task, version, split and subset, then one per curve.
        notes: Notes after the last: protocols, intervals, metrics, models, commands.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def table(results: Sequence[Result]) -> str:
    """Return Markdown tables of records, one per task, split and subset.

    One row per model and probe. Each table is followed by its own notes, for example on subsets;
    the last by the common ones: protocols, waivers, models, and the commands.

    Args:
        results: Records.
    """
    made = tables_of(results)
    parts = [*map(markdown, made.tables), "\n".join(bullets(made.notes))]
    return "\n\n".join(part for part in parts if part)


def tables_of(results: Sequence[Result]) -> RecordTables:
    """Return tables of records, of their curves, and the notes on all of them.

    Args:
        results: Records.
    """
    plain = [r for r in results if not r.sample.labels and not r.of]
    notes = Footnotes()
    groups = [part for group in by_sample(plain) for part in _by_metrics(group)]
    tables = [_one_table(group, notes) for group in groups]
    curves = _curve_tables([*label_curves(results), *size_curves(results)])
    common = (*notes.lines(), *_remarks(plain)) if plain else ()
    return RecordTables((*tables, *curves), common)


def by_sample(results: Sequence[Result]) -> list[list[Result]]:
    """Return records grouped by task, version, split and subset: one table each."""
    return _grouped(((r.task, r.version, r.sample.split, r.sample.ids_sha256), r) for r in results)


def _by_metrics(results: Sequence[Result]) -> list[list[Result]]:
    """Return records of one sample in parts without common metrics, so that no table has gaps."""
    parts: list[set[str]] = []
    for kind in dict.fromkeys(result.kind for result in results):
        own = {result.metric for result in results if result.kind == kind}
        like = [part for part in parts if part & own]
        parts = [*(part for part in parts if not part & own), own.union(*like)]
    return [[result for result in results if result.metric in part] for part in parts]


def _one_table(results: Sequence[Result], notes: Footnotes) -> Table:
    first, sample = results[0], results[0].sample
    rows: dict[tuple[str, str, str], dict[str, Result]] = {}
    for result in results:
        row = rows.setdefault((result.model.name, result.model.weights_sha256, result.probe), {})
        row[result.metric] = result
    metrics = list(dict.fromkeys(result.metric for result in results))
    level = f"{100 * first.interval.level:g} % interval"
    strength = any(result.strength is not None for result in results)
    heads = ["model", "probe"]
    for metric in metrics:
        heads += [f"{metric_name(metric)}, %", level]
    heads += [*(["strength C"] if strength else []), "notes"]
    intervals = {3 + 2 * i for i in range(len(metrics))}
    return Table(
        tuple(heads),
        tuple(_row(row, metrics, notes, strength=strength) for row in rows.values()),
        name=first.task,
        about=f"version {first.version}, split `{sample.split}`: {sample.n_train} train, "
        f"{sample.n_val} val, {sample.n_test} test",
        notes=tuple(_remarks_on(results)),
        words=frozenset({1, *intervals, len(heads) - 1}),
    )


def _row(
    row: Mapping[str, Result], metrics: Sequence[str], notes: Footnotes, *, strength: bool
) -> TableRow:
    one = next(iter(row.values()))
    probe = f"{probe_words(one.probe)} {notes.mark(f'exact protocol: `{one.probe}`')}"
    cells = [one.model.name, probe]
    for metric in metrics:
        result = row.get(metric)
        cells += [_percent(result.value), _span(result)] if result else ["", ""]
    if strength:
        cells.append("" if one.strength is None else f"{one.strength:.3g}")
    flags = {flag: [m for m, r in row.items() if flag in r.flags] for r in row.values()
             for flag in r.flags}  # fmt: skip
    said = [f"chose {one.chosen}"] if one.chosen else []
    waivers = [notes.mark(f"waiver: {waiver}") for waiver in one.model.waivers]
    cells.append("; ".join([*said, *_merged(flags, len(row)), *waivers]))
    return TableRow(tuple(cells), faint=one.model.control)


def _merged(flags: Mapping[str, Sequence[str]], metrics: int) -> list[str]:
    """Shorten flags: merge those that name controls, and list metrics only if they differ.

    Args:
        flags: Flag -> the metrics that it holds for.
        metrics: Number of metrics.
    """
    groups: dict[str, list[str]] = {}
    for flag, its in flags.items():
        suffix = "" if len(its) == metrics else f" ({', '.join(map(metric_name, its))})"
        start = next((word for word in _COMPARED if flag.startswith(word)), "")
        key = start or f"{flag}{suffix}"
        groups.setdefault(key, []).append(flag.removeprefix(start) + suffix if start else "")
    named = [(start, groups.pop(start)) for start in _COMPARED if start in groups]
    return [*groups, *(f"{start}{', '.join(names)}" for start, names in named)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _span(result: Result) -> str:
    shown = result.shown_interval
    return "none" if shown is None else f"{_percent(shown.low)} – {_percent(shown.high)}"


def _remarks_on(results: Sequence[Result]) -> list[str]:
    """Return the notes of a single table."""
    sample = results[0].sample
    lines = []
    if not sample.complete:
        count = sample.n_train + sample.n_val + sample.n_test
        lines.append(
            f"A **subset** of {count} images of {sample.dataset}: compare the rows with one "
            "another, not with published scores."
        )
    if sample.copies:
        lines.append(f"**{sample.copies} test samples are copies** of samples of train or val.")
    return [*lines, *resampled_notes(results)]


def _remarks(results: Sequence[Result]) -> list[str]:
    """Return the common notes of all tables."""
    intervals = dict.fromkeys((r.interval.level, r.interval.repeats) for r in results)
    lines = [
        f"Intervals: {100 * level:g} % percentile bootstrap, {repeats} resamples. In italics: "
        "controls."
        for level, repeats in intervals
    ]
    if any(flag.startswith(_COMPARED) for result in results for flag in result.flags):
        lines.append(
            '"below" a control: the paired interval of the difference lies below 0; "not above": '
            "the score does not exceed the control's, the interval holds 0."
        )
    lines += [metric_note(metric) for metric in dict.fromkeys(r.metric for r in results)]
    if any(result.strength is not None for result in results):
        lines.append("**strength C**: the smaller, the stronger the penalty; as scikit-learn's `C`")
    models = dict.fromkeys((r.model.name, r.model.about, r.model.weights_sha256) for r in results)
    lines += [
        f"{name}: {about}" + (f"; weights sha256 {sha[:12]}" if sha else "")
        for name, about, sha in models
    ]
    return lines + [f"`{command}`" for command in dict.fromkeys(r.made.command for r in results)]


# --------------------------------------------------------------------------------- tables of curves


def _curve_tables(curves: Sequence[Curve]) -> list[Table]:
    """Return a table per curve; common notes of consecutive tables come after the last."""
    made = list(map(_curve_table, curves))
    for number, (curve, after) in enumerate(pairwise(curves)):
        if curve.notes == after.notes:
            made[number] = replace(made[number], notes=())
    return made


def _curve_table(curve: Curve) -> Table:
    """Return one row per series, one column per place."""
    places = curve.places
    return Table(
        ("model", *(curve.heads[place] for place in places)),
        tuple(
            TableRow((name, *(curve.cell(name, place) for place in places)))
            for name in curve.series
        ),
        name=curve.title,
        about=f"{probe_words(curve.probe, scaling=False)}, {metric_name(curve.metric)}, %",
        notes=curve.notes,
        words=frozenset(range(1, len(places) + 1)),
    )


# ---------------------------------------------------------------------------------- words

_METRICS: Final[Mapping[str, str]] = {
    Metric.AP_MICRO: "micro AP",
    Metric.AP_MACRO: "macro AP",
    Metric.AP_WEIGHTED: "weighted AP",
    Metric.AP_MICRO_BATCHES: "micro AP by batches",
    Metric.F1_MICRO: "micro F1",
    Metric.F1_MACRO: "macro F1",
    Metric.OA: "overall accuracy",
    Metric.AA: "average accuracy",
    Metric.ECE: "calibration error",
    Metric.MIOU: "mean IoU",
    Metric.PIXEL_OA: "pixel accuracy",
    Metric.PROMPT_AUROC: "prompt AUROC",
    Metric.PROMPT_IOU: "prompt IoU",
    Metric.PROMPT_BEST_IOU: "best prompt IoU",
    Metric.PROMPT_OVERLAP: "prompt overlap",
    Metric.ACROSS_AUROC: "AUROC across images",
    Metric.ACROSS_OVERLAP: "overlap across images",
}
_CHOSEN: Final = {
    "norefit": "strength chosen on validation",
    "refit": "strength chosen on validation, refitted on both splits",
    "fixed": "strength fixed",
}
_PROBES: Final[Mapping[str, str]] = {
    "nmc": "nearest class mean",
    "linear": "linear probe",
    "linear-grid": "linear probe; layers, pooling and strength chosen on validation",
    "nmtune": "perceptron on features with NMTune's terms, their strength chosen on validation",
    "text": "zero-shot by the texts of class names",
    "text-unit": "zero-shot by the texts of class names, each of unit length",
    "dense-linear": "linear layer on patches",
    "prompt": "patches like a prompt patch",
    "finetune": "fine-tuned network, its rate chosen on validation",
    "slca": "network fine-tuned at a hundredth of its head's rate (SLCA)",
    "dinov2-heads": "DINOv2's grid of linear heads, chosen on validation",
    "ssl4eo-moco": "linear head of SSL4EO-S12's MoCo protocol",
    "ssl4eo-dino": "linear head of SSL4EO-S12's DINO protocol",
    "ssl4eo-mae": "linear head of SSL4EO-S12's MAE protocol",
    "softcon-linear": "linear head of SoftCon's protocol",
    "softcon-dino4": "linear head of SoftCon's protocol, four layers",
    "softcon-dino4-mean": "linear head of SoftCon's protocol, four layers and patch mean",
}
_SCALED: Final = {"standard": "features standardised", "unit": "features of unit length"}
# Kinds whose string repeats the words above; several of them look alike.
_WITH_CHOICE: Final = frozenset({"linear", "dense-linear"})


def metric_name(metric: str) -> str:
    """Return the name of a metric for the head of a column.

    Args:
        metric: Its id; an unknown id is its own name.
    """
    return _METRICS.get(metric, metric)


def metric_note(metric: str) -> str:
    """Return the description of a metric, with its id, as a footnote.

    Args:
        metric: Its id.
    """
    name = metric_name(metric)
    words = METRIC_WORDS[Metric(metric)] if metric in set(Metric) else "no metric of this version"
    return f"**{name}** (`{metric}`): {words.removeprefix(f'{name}: ')}"


def probe_words(probe: str, *, scaling: bool = True) -> str:
    """Return a protocol in plain words: shorter than its exact string, which stays in the record.

    Args:
        probe: As in a record.
        scaling: Whether the words include the scaling of the features.

    >>> probe_words("linear[lbfgs,C40,val,norefit,standard]")
    'linear probe, strength chosen on validation, features standardised'
    >>> probe_words("knn[k=20,cosine,T=0.07,none]")
    'kNN (k = 20, cosine, weighted)'
    """
    kind, _, inner = probe.removesuffix("]").partition("[")
    choices = inner.split(",")
    words = [_neighbours(choices) if kind == "knn" else _PROBES.get(kind, kind)]
    if kind in _WITH_CHOICE:
        words += [text for key, text in _CHOSEN.items() if key in choices]
    if scaling:
        words += [text for key, text in _SCALED.items() if key in choices]
    return ", ".join(words)


def _neighbours(choices: list[str]) -> str:
    number = next((re.sub("=", " = ", c) for c in choices if c.startswith("k=")), "")
    distance = "cosine" if "cosine" in choices else "Euclidean" if "l2" in choices else ""
    weighted = "weighted" if any(c.startswith("T=") for c in choices) else ""
    inside = ", ".join(part for part in (number, distance, weighted) if part)
    return f"kNN ({inside})" if inside else "kNN"


# ------------------------------------------------------------------------------------------- slices

Slice = Literal["season", "year", "country"]

# By months, because summer is another season on the other side of the equator.
_SEASONS: Final = (
    "March to May",
    "June to August",
    "September to November",
    "December to February",
)
_NO_SLICES: Final[Mapping[Slice, str]] = {
    "season": "names that hold a product of Sentinel-2 or Sentinel-1, whose day is its season",
    "year": "names that hold a product of Sentinel-2 or Sentinel-1, whose day is its year",
    "country": "predictions of BigEarthNet v2, whose tables name the country of every patch",
}


def slices_of(kept: Predictions, by: Slice) -> dict[str, list[int]]:
    """Return the samples of each slice, in chronological or alphabetical order.

    Args:
        kept: The predictions.
        by: Criterion of the slices.

    Returns:
        Slice -> rows; empty if the slice of a sample is unknown.
    """
    words = list(kept.countries)
    if by != "country":
        days = [taken_in(name) for name in kept.ids]
        words = [
            str(day.year) if by == "year" else _SEASONS[(day.month - 3) % 12 // 3]
            for day in days
            if day is not None
        ]
    if len(words) != len(kept.ids) or not all(words):
        return {}
    order = _SEASONS if by == "season" else sorted(set(words))
    rows = {word: [row for row, own in enumerate(words) if own == word] for word in order}
    return {word: found for word, found in rows.items() if found}


def sliced(results: Sequence[Result], path: Path, by: Slice) -> str:
    """Return Markdown tables of records by slice: one per task, sample and metric.

    Args:
        results: Records; label subsets and other input sizes are excluded.
        path: The file that contains them.
        by: Criterion of the slices.

    Raises:
        ConfigError: If the slices of the test samples are unknown for all records.
        DataError: If predictions cannot be read, or do not belong to their record.
    """
    tables, left = [], []
    for group in by_sample([r for r in results if not r.sample.labels and not r.of]):
        kept = predictions_of(group[0], path)
        slices = slices_of(kept, by)
        if not slices:
            left.append(group[0].task)
            continue
        metrics = dict.fromkeys(result.metric for result in group)
        tables += [
            _slice_table([r for r in group if r.metric == metric], path, slices, by)
            for metric in metrics
        ]
    if not tables:
        raise ConfigError(
            f"the test samples do not say their {by}",
            found=", ".join(dict.fromkeys(left)) or "records of shares of the labels alone",
            expected=_NO_SLICES[by],
            where=path,
            remedy="leave --slice out",
        )
    notes = [f"Left out, for its samples do not say their {by}: {task}." for task in set(left)]
    return "\n\n".join([*map(markdown, tables), *(["\n".join(bullets(notes))] if notes else [])])


def _slice_table(
    results: Sequence[Result], path: Path, slices: Mapping[str, Sequence[int]], by: Slice
) -> Table:
    first = results[0]
    kept = {result.key: predictions_of(result, path) for result in results}
    groups = {w: len(set(kept[first.key].at(rows).groups)) for w, rows in slices.items()}
    what = first.sample.unit_name
    units = {word: groups[word] or len(rows) for word, rows in slices.items()}
    none = [word for word, count in units.items() if not enough_groups(count)]
    few = [word for word, count in groups.items() if enough_groups(count) and count < FEW_GROUPS]
    notes = [
        f"In brackets: {100 * first.interval.level:g} % interval, which resamples {what} of the "
        "slice. Nothing was fitted again; classes that a slice lacks stay out of its mean."
    ]
    if few:
        notes.append(f"**Fewer than {FEW_GROUPS} {what}**, too narrow: {', '.join(few)}.")
    if none:
        words = f"**Fewer than {FEWEST_GROUPS} {what}**, so that there is no interval"
        notes.append(f"{words}: {', '.join(none)}.")
    return Table(
        ("model", "probe", *(_slice_head(w, rows, groups[w], what) for w, rows in slices.items())),
        tuple(_slice_row(result, kept[result.key], slices) for result in results),
        name=first.task,
        about=f"by {by}, {metric_name(first.metric)}, %, split `{first.sample.split}`",
        notes=tuple(notes),
        words=frozenset(range(1, len(slices) + 2)),
    )


def _slice_head(word: str, rows: Sequence[int], groups: int, what: str) -> str:
    apart = f" of {groups:,} {what}" if 0 < groups < len(rows) else ""
    return f"{word} ({len(rows):,}{apart})"


def _slice_row(result: Result, kept: Predictions, slices: Mapping[str, Sequence[int]]) -> TableRow:
    cells = (_slice_cell(result, kept.at(rows)) for rows in slices.values())
    return TableRow(
        (result.model.name, probe_words(result.probe), *cells), faint=result.model.control
    )


def _slice_cell(result: Result, part: Predictions) -> str:
    metric = Metric(result.metric)
    try:
        scored = part.scored([metric])
        if metric not in scored.metrics:  # a mean over batches, for a slice without a full batch
            return "none"
        value = f"{100 * scored.value(metric):.1f}"
        if not enough_groups(scored.units):
            return value
        found = scored.interval(metric, result.interval.repeats, result.seed)
    except LabelError:  # no class, or no labelled pixel, in the slice
        return "none"
    return f"{value} ({100 * found.low:.1f} – {100 * found.high:.1f})"
