"""Tables of records in plain words: one per task, split and subset; and of curves.

Rows of fewer labels and of other input sizes are no rows of the main table: several draws of a
tenth of the labels are one number with a spread, not several models. Protocols and metrics have
plain names; the exact strings stay in the records, and stand in the footnotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from eofm.bench.records import Result
from eofm.bench.reports.curves import Curve, label_curves, size_curves
from eofm.bench.reports.resampled import resampled_notes
from eofm.probes.metrics import METRIC_WORDS, Metric
from eofm.report.tables import Footnotes, Table, TableRow, bullets, markdown

# Groups of test samples below which there is no interval over them.
_FEWEST: Final = 2
# How the flags begin that name a control; their order in a cell.
_COMPARED: Final = ("below ", "not above ")


@dataclass(frozen=True)
class RecordTables:
    """Tables of records, and what is said once for all of them.

    Args:
        tables: One per task, version, split and subset, then one per curve.
        notes: Below the last: protocols, intervals, metrics, models, commands.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def table(results: Sequence[Result]) -> str:
    """Return Markdown tables of records, one per task, split and subset.

    One row per model and probe. Below each table stands what holds for it alone, as that it is of a
    subset; below the last what holds for all: protocols, waivers, models, and the commands.

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
    """Return records grouped by task, version, split and subset: what may stand in one table."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        group = (result.task, result.version, result.sample.split, result.sample.ids_sha256)
        groups.setdefault(group, []).append(result)
    return list(groups.values())


def _by_metrics(results: Sequence[Result]) -> list[list[Result]]:
    """Return records of one sample in parts that share no metric: a table of each has no holes."""
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
    """Say flags in few words: those that name controls together, metrics only where they differ.

    Args:
        flags: Flag -> the metrics that it holds for.
        metrics: How many there are.
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
    if (result.sample.groups or result.sample.n_test) < _FEWEST:
        return "none"
    interval = result.interval
    return f"{_percent(interval.low)} – {_percent(interval.high)}"


def _remarks_on(results: Sequence[Result]) -> list[str]:
    """Return what holds for one table alone."""
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
    """Return what holds for all tables, once."""
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


# --------------------------------------------------------------------------------- curves


def _curve_tables(curves: Sequence[Curve]) -> list[Table]:
    """Return a table per curve; what several in a row have to say is said below the last."""
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
# Kinds whose string says all that the words above leave out: several of them look alike.
_WITH_CHOICE: Final = frozenset({"linear", "dense-linear"})


def metric_name(metric: str) -> str:
    """Return what a metric is called at the head of a column.

    Args:
        metric: Its id; one that is not known is its own name.
    """
    return _METRICS.get(metric, metric)


def metric_note(metric: str) -> str:
    """Return what a metric is, with its id, as a footnote.

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
        scaling: Whether the words say what was done to the features first.

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
