"""Markdown tables of records: one per task, split and subset; and of curves.

Rows of fewer labels and of other input sizes are no rows of the main table: several draws of a
tenth of the labels are one number with a spread, not several models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from eofm.bench.curves import Curve, label_curves, size_curves
from eofm.bench.records import Result

# Test samples below which an interval over them means nothing.
_FEWEST: Final = 2


def table(results: Sequence[Result]) -> str:
    """Return Markdown tables of records, one per task, split and subset.

    One row per model and probe. Below each table stand what the reader must know: subsets,
    waivers, flags, where weights come from, and the commands. Then the curves, if there are any.
    """
    plain = [r for r in results if not r.sample.labels and not r.of]
    tables = [_one_table(group) for group in by_sample(plain)]
    curves = [*label_curves(results), *size_curves(results)]
    return "\n\n".join([*tables, *_curve_tables(curves)])


def by_sample(results: Sequence[Result]) -> list[list[Result]]:
    """Return records grouped by task, version, split and subset: what may stand in one table."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        group = (result.task, result.version, result.sample.split, result.sample.ids_sha256)
        groups.setdefault(group, []).append(result)
    return list(groups.values())


def _one_table(results: Sequence[Result]) -> str:
    first, sample = results[0], results[0].sample
    rows: dict[tuple[str, str, str], dict[str, Result]] = {}
    for result in results:
        row = rows.setdefault((result.model.name, result.model.weights_sha256, result.probe), {})
        row[result.metric] = result
    metrics = list(dict.fromkeys(result.metric for result in results))
    heads = [f"{metric.upper()} % | 95 % interval" for metric in metrics]
    notes = _Footnotes()
    lines = [
        f"**{first.task}** version {first.version}, split `{sample.split}`: "
        f"{sample.n_train} train, {sample.n_val} val, {sample.n_test} test",
        "",
        f"| model | probe | {' | '.join(heads)} | C | notes |",
        f"|---|---|{'---:|---|' * len(metrics)}---:|---|",
        *(_row(row, metrics, notes) for row in rows.values()),
        "",
    ]
    return "\n".join([*lines, *notes.lines(), *_remarks(results)])


def _curve_tables(curves: Sequence[Curve]) -> list[str]:
    """Return a table per curve; what several in a row have to say is said below the last."""
    last = [curve.notes != after.notes for curve, after in pairwise(curves)] + [True]
    return [
        _curve_table(curve, curve.notes if said else ())
        for curve, said in zip(curves, last, strict=False)
    ]


def _curve_table(curve: Curve, notes: Sequence[str]) -> str:
    """Return one row per series, one column per place."""
    places = curve.places
    heads = " | ".join(curve.heads[place] for place in places)
    lines = [
        f"**{curve.title}**: {curve.probe}, {curve.metric} %",
        "",
        f"| model | {heads} |",
        f"|---|{'---|' * len(places)}",
    ]
    for name in curve.series:
        cells = " | ".join(curve.cell(name, place) for place in places)
        lines.append(f"| {name} | {cells} |")
    return "\n".join([*lines, *([""] if notes else []), *(f"- {note}" for note in notes)])


def _row(row: Mapping[str, Result], metrics: Sequence[str], notes: _Footnotes) -> str:
    one = next(iter(row.values()))
    cells = [f"*{one.model.name}*" if one.model.control else one.model.name, f"`{one.probe}`"]
    for metric in metrics:
        result = row.get(metric)
        cells += [_percent(result.value), _span(result)] if result else ["", ""]
    cells.append("" if one.strength is None else f"{one.strength:.3g}")
    flags = [f"{flag} ({r.metric.upper()})" for r in row.values() for flag in r.flags]
    waivers = [notes.mark(f"waiver: {waiver}") for waiver in one.model.waivers]
    said = [f"chose {one.chosen}"] if one.chosen else []
    cells.append(", ".join([*said, *_merged(flags, metrics), *waivers]))
    return f"| {' | '.join(cells)} |"


def _merged(flags: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Say a flag that holds for every metric once, without naming them."""
    merged = []
    for flag in dict.fromkeys(flag.rpartition(" (")[0] for flag in flags):
        named = [f"{flag} ({metric.upper()})" for metric in metrics]
        merged += [flag] if set(named) <= set(flags) else [name for name in named if name in flags]
    return merged


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _span(result: Result) -> str:
    if (result.sample.clusters or result.sample.n_test) < _FEWEST:
        return "none"
    interval = result.interval
    return f"{_percent(interval.low)} – {_percent(interval.high)}"


class _Footnotes:
    """Numbers footnotes in the order of their first use."""

    def __init__(self) -> None:
        self._notes: dict[str, int] = {}

    def mark(self, text: str) -> str:
        return f"[{self._notes.setdefault(text, len(self._notes) + 1)}]"

    def lines(self) -> list[str]:
        return [f"- [{number}] {text}" for text, number in self._notes.items()]


def _remarks(results: Sequence[Result]) -> list[str]:
    sample, interval = results[0].sample, results[0].interval
    lines = []
    if not sample.complete:
        count = sample.n_train + sample.n_val + sample.n_test
        lines.append(
            f"- A **subset** of {count} images of {sample.dataset}: compare the rows with one "
            "another, not with published scores."
        )
    if sample.copies:
        lines.append(f"- **{sample.copies} test samples are copies** of samples of train or val.")
    if sample.n_test < _FEWEST:
        lines.append("- **One test sample**: it has no interval, and tells no model from another.")
    units = f"{sample.clusters} clusters of test samples ({sample.cluster})"
    units = units if sample.clusters else "the test samples"
    lines.append(
        f"- Intervals: {100 * interval.level:g} % percentile bootstrap over {units}, "
        f"{interval.repeats} resamples. In italics: controls."
    )
    flags = {flag.split()[0] for result in results for flag in result.flags}
    if flags & {"below", "not"}:
        lines.append(
            '- "below" a control: the paired interval of the difference lies below 0; "not above": '
            "the score does not exceed the control's, the interval holds 0."
        )
    models = dict.fromkeys((r.model.name, r.model.about, r.model.weights_sha256) for r in results)
    lines += [
        f"- {name}: {about}" + (f"; weights sha256 {sha[:12]}" if sha else "")
        for name, about, sha in models
    ]
    return lines + [f"- `{command}`" for command in dict.fromkeys(r.made.command for r in results)]
