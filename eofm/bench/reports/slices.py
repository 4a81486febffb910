"""`eofm bench table --slice`: scores of the test samples of one season, year or country each.

A model may be good in summer and poor under a low sun. Slices are scored from the predictions
beside the records: nothing is fitted again, and what was trained saw all slices. A slice has its
own groups, often few, and its classes: one without a positive in it stays out of a mean over
classes, so slices are compared within a column, model with model, rather than along a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.records import Result
from eofm.bench.reports.tables import by_sample, metric_name, probe_words
from eofm.datasets.images.groups import taken_in
from eofm.errors import ConfigError, LabelError
from eofm.probes.bootstrap import FEW_GROUPS
from eofm.probes.metrics import Metric
from eofm.report.tables import Table, TableRow, bullets, markdown

Slice = Literal["season", "year", "country"]

# By the months, for a name as summer is another one on either side of the equator.
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
    """Return the samples of each slice, in the order of time or of the alphabet.

    Args:
        kept: The predictions.
        by: What samples are told apart by.

    Returns:
        Slice -> rows; nothing if a sample does not say to which it belongs.
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
        results: Records; shares of the labels and other input sizes are left out.
        path: The file they stand in.
        by: What test samples are told apart by.

    Raises:
        ConfigError: If the test samples of no record say to which slice they belong.
        DataError: If predictions cannot be read, or are not those of their record.
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
            _table([r for r in group if r.metric == metric], path, slices, by) for metric in metrics
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


def _table(
    results: Sequence[Result], path: Path, slices: Mapping[str, Sequence[int]], by: Slice
) -> Table:
    first = results[0]
    kept = {result.key: predictions_of(result, path) for result in results}
    groups = {w: len(set(kept[first.key].at(rows).groups)) for w, rows in slices.items()}
    what = first.sample.grouping or "test samples"
    few = [word for word, count in groups.items() if count and count < FEW_GROUPS]
    notes = [
        f"In brackets: {100 * first.interval.level:g} % interval, which resamples {what} of the "
        "slice. Nothing was fitted again; classes that a slice lacks stay out of its mean."
    ]
    if few:
        notes.append(f"**Fewer than {FEW_GROUPS} {what}**, too narrow: {', '.join(few)}.")
    return Table(
        ("model", "probe", *(_head(w, rows, groups[w], what) for w, rows in slices.items())),
        tuple(_row(result, kept[result.key], slices) for result in results),
        name=first.task,
        about=f"by {by}, {metric_name(first.metric)}, %, split `{first.sample.split}`",
        notes=tuple(notes),
        words=frozenset(range(1, len(slices) + 2)),
    )


def _head(word: str, rows: Sequence[int], groups: int, what: str) -> str:
    apart = f" of {groups:,} {what}" if 0 < groups < len(rows) else ""
    return f"{word} ({len(rows):,}{apart})"


def _row(result: Result, kept: Predictions, slices: Mapping[str, Sequence[int]]) -> TableRow:
    cells = (_cell(result, kept.at(rows)) for rows in slices.values())
    return TableRow(
        (result.model.name, probe_words(result.probe), *cells), faint=result.model.control
    )


def _cell(result: Result, part: Predictions) -> str:
    metric = Metric(result.metric)
    try:
        scored = part.scored([metric])
        if metric not in scored.metrics:  # a mean over batches, of a slice that fills none
            return "none"
        value = f"{100 * scored.value(metric):.1f}"
        if scored.units < 2:
            return value
        found = scored.interval(metric, result.interval.repeats, result.seed)
    except LabelError:  # no class, or no labelled pixel, in the slice
        return "none"
    return f"{value} ({100 * found.low:.1f} – {100 * found.high:.1f})"
