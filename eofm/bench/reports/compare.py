"""`eofm bench compare|aggregate`: compare models on one task, and aggregate over several.

`compare A B` gives the difference of two models on the same test samples. Overlap of two intervals
is not informative, because both models are tested on the same hard samples. The paired bootstrap
resamples once for both and evaluates the difference. Differences other than the weights (plan,
waivers, C) are listed with it, since they may explain it entirely.

`aggregate` gives one number per model over several tasks, with an interval. Raw scores of different
tasks are not on a common scale: a point of accuracy on EuroSAT does not equal one of average
precision on BigEarthNet. Each score is therefore normalised by two stated references of its task:
0 is the score of a named control, and 1 is a perfect score, or that of another named model. The
aggregate over all tasks (and seeds) is the interquartile mean, with an interval by a bootstrap
within every task: first seeds, then groups of test samples (arXiv 2108.13264, section 4.3; there
the strata are tasks and the draws are seeds, of which a deterministic probe has one).

Shapes: T tasks, S seeds of a task, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.bench.config import AggregateConfig, CompareConfig, listed
from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.records import Result, Sample, read_results, records_file, resampled
from eofm.bench.reports.export import is_nonstandard
from eofm.datasets.registry import task_filter
from eofm.errors import ConfigError, DataError
from eofm.probes.bootstrap import (
    Interval,
    bootstrap_interval,
    bootstrap_values,
    enough_groups,
    interquartile_mean,
    percentile_interval,
    resampled_difference,
)
from eofm.probes.metrics import Metric

__all__ = [
    "Aggregate",
    "Comparison",
    "Difference",
    "Floats",
    "Row",
    "TaskPlace",
    "aggregate",
    "compare_models",
    "resampled_iqm",
]

# --------------------------------------------------------------------------------------- two models


@dataclass(frozen=True)
class Difference:
    """One score of two models.

    Args:
        one: Record of the first.
        other: Record of the second.
        interval: Paired interval of `one - other`; None if there are too few groups.
    """

    one: Result
    other: Result
    interval: Interval | None

    @property
    def sample(self) -> Sample:
        """The sample that the interval resamples: that of the record with groups."""
        return _grouped(self.one, self.other).sample

    @property
    def ends(self) -> str:
        """The interval as text for a cell of a table."""
        if self.interval is None:
            return "none"
        return f"{100 * self.interval.low:+.1f} to {100 * self.interval.high:+.1f}"

    @property
    def verdict(self) -> str:
        """The better model, or that neither can be called better."""
        if self.interval is None:
            return f"too few {self.sample.unit_name} to tell"
        low, high = self.interval.low, self.interval.high
        if low <= 0 <= high:
            return "no significant difference"
        first = (low > 0) != Metric(self.one.metric).smaller_is_better
        return f"{(self.one if first else self.other).model.name} is better"


@dataclass(frozen=True)
class Comparison:
    """All scores that two models share.

    Args:
        differences: One per task, sample, probe and metric.
        notes: Other differences.
    """

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    def describe(self) -> str:
        """Return a table and the list of other differences."""
        first = self.differences[0]
        a, b = first.one.model.name, first.other.model.name
        rows = [
            f"| {d.one.task} | `{d.one.probe}` | {d.one.metric} | {100 * d.one.value:.1f} | "
            f"{100 * d.other.value:.1f} | {100 * (d.one.value - d.other.value):+.1f} | "
            f"{d.ends} | {d.verdict} |"
            for d in self.differences
        ]
        spans = [d.interval for d in self.differences if d.interval is not None]
        note = [
            f"- {100 * one.level:g} % percentile interval of the difference on the same "
            f"{one.repeats} resamples of the test split; not corrected for the number of rows."
            for one in spans[:1]
        ]
        return "\n".join(
            [
                f"| task | probe | metric, % | {a} | {b} | difference | paired interval | |",
                "|---|---|---|---:|---:|---:|---|---|",
                *rows,
                "",
                *note,
                *(f"- {note}" for note in self.notes),
            ]
        )


def compare_models(config: CompareConfig) -> Comparison:
    """Compare two models on every task, probe and metric that both have records of.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If a model has no records, or the two share none.
        DataError: If records or predictions cannot be read, or do not match.
    """
    path, asked = records_file(config.results), task_filter(config.task)
    records = [r for r in read_results(path) if asked(r.task) and config.probe in {"", r.kind}]
    first, second = (_of(records, name, path) for name in (config.one, config.other))
    pairs = [(one, other) for one in first for other in second if _alike(one, other)]
    if not pairs:
        raise ConfigError(
            "the two models have no record of the same task, samples, probe and metric",
            found=f"{config.one}: {_short(first)}; {config.other}: {_short(second)}",
            where=path,
            remedy="score both in one run: --model A,B",
        )
    differences = tuple(
        Difference(one, other, _interval(one, other, path, config)) for one, other in pairs
    )
    return Comparison(differences, _notes(pairs))


def _of(records: Sequence[Result], name: str, path: Path) -> list[Result]:
    found = [r for r in records if r.model.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(r.model.name for r in records))
        raise ConfigError(
            "no record is of this model", found=name, expected=names or "any record", where=path
        )
    return found


def _alike(one: Result, other: Result) -> bool:
    return (one.task, one.version, one.metric, one.kind or one.probe, one.sample.ungrouped) == (
        *(other.task, other.version, other.metric, other.kind or other.probe),
        other.sample.ungrouped,  # records of 0.1 have no groups
    )


def _short(records: Sequence[Result]) -> str:
    return ", ".join(dict.fromkeys(f"{r.task} {r.kind} {r.metric}" for r in records))


def _grouped(one: Result, other: Result) -> Result:
    """Return the one of two records of the same samples that has groups (0.1 does not)."""
    return one if one.sample.groups else other


def _interval(one: Result, other: Result, path: Path, config: CompareConfig) -> Interval | None:
    first, second = predictions_of(one, path), predictions_of(other, path)
    _check_same_samples(first, second, path)
    if not enough_groups(_grouped(one, other).sample.units):
        return None
    metric = Metric(one.metric)
    difference = resampled_difference(
        first.scored([metric]).metrics[metric], second.scored([metric]).metrics[metric]
    )
    return bootstrap_interval(
        difference,
        len(first.ids),
        repeats=config.bootstrap,
        seed=config.seed,
        groups=(first if one.sample.groups else second).numbers,
    )


def _check_same_samples(one: Predictions, other: Predictions, path: Path) -> None:
    if one.ids != other.ids or not one.target.equal(other.target):
        raise DataError(
            "the two were not scored on the same samples in the same order",
            found=f"{len(one.ids)} and {len(other.ids)} samples",
            where=path,
        )
    if one.groups and other.groups and one.groups != other.groups:
        raise DataError(
            "the intervals of the two resample different groups of the same samples",
            found=f"{len(set(one.groups))} and {len(set(other.groups))} groups",
            where=path,
            remedy="score both in one run: --model A,B",
        )


def _notes(pairs: Sequence[tuple[Result, Result]]) -> tuple[str, ...]:
    notes: dict[str, None] = {}
    for one, other in pairs:
        notes[f"{one.task}: {resampled(_grouped(one, other).sample)}"] = None
        for mine, yours in ((one, other), (other, one)):
            for waiver in mine.model.waivers:
                if waiver not in yours.model.waivers:
                    notes[f"only {mine.model.name} has the waiver {waiver}"] = None
            steps = [step.strip() for step in mine.model.plan if step not in yours.model.plan]
            if steps:
                notes[f"only in the plan of {mine.model.name}: {'; '.join(steps)}"] = None
            for flag in mine.flags:
                notes[f"{mine.model.name}, `{mine.probe}`, {mine.metric}: {flag}"] = None
    return tuple(notes)


# ------------------------------------------------------------------------------------ several tasks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TaskPlace:
    """A task with the references that normalise its scores.

    Args:
        task: Description of task, version, split and metric.
        low: Score that becomes 0.
        high: Score that becomes 1.
    """

    task: str
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One model over all tasks.

    Args:
        model: Its name.
        control: Whether it is a control.
        value: Interquartile mean of its normalised scores.
        interval: Interval of the value; None if a task has too few groups.
        ranks: Interval of its rank among the models; None likewise.
    """

    model: str
    control: bool
    value: float
    interval: Interval | None
    ranks: Interval | None

    def describe(self) -> str:
        """Return the row of a Markdown table."""
        name = f"*{self.model}*" if self.control else self.model
        ends = ranks = "none"
        if self.interval is not None and self.ranks is not None:
            ends = f"{self.interval.low:.3f} – {self.interval.high:.3f}"
            ranks = f"{self.ranks.low:.0f} – {self.ranks.high:.0f}"
        return f"| {name} | {self.value:.3f} | {ends} | {ranks} |"


@dataclass(frozen=True)
class Aggregate:
    """Models over the same tasks.

    Args:
        probe: Kind of probe.
        rows: Best first.
        places: The tasks, with their references.
        low: Name of the reference for 0.
        high: Name of the reference for 1.
        runs: Minimum number of scores behind each value.
        notes: Notes for the reader.
    """

    probe: str
    rows: tuple[Row, ...]
    places: tuple[TaskPlace, ...]
    low: str
    high: str
    runs: int
    notes: tuple[str, ...]

    def describe(self) -> str:
        """Return a table, the references of each task, and the notes."""
        lines = [
            f"**{self.probe}**, interquartile mean over {len(self.places)} tasks of scores "
            f"normalised to 0 = {self.low}, 1 = {self.high}",
            "",
            "| model | IQM | 95 % interval | rank, 95 % interval |",
            "|---|---:|---|---|",
        ]
        lines += [row.describe() for row in self.rows]
        lines += ["", "| task | 0 is, % | 1 is, % |", "|---|---:|---:|"]
        lines += [f"| {p.task} | {100 * p.low:.1f} | {100 * p.high:.1f} |" for p in self.places]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])


@dataclass(frozen=True)
class _Scores:
    """Scores of one model on one task: points (S,), resampled (S, R)."""

    points: Floats
    resampled: Floats


def aggregate(config: AggregateConfig) -> Aggregate:
    """Aggregate the records of files over their tasks.

    Only models with a score on every task are included; forced and nonstandard rows and label
    subsets never are.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If a reference or the models have no record on a task, or there are fewer than
            two tasks.
        DataError: If records or predictions cannot be read.
    """
    found = _records(config)
    tasks = _by_task(found, config)
    models = _common(tasks)
    places = [_place(task, rows, config) for task, rows in tasks.items()]
    scores = {
        model: [
            _normalised(_scores(rows[model], config, config.seed + number), place)
            for number, (rows, place) in enumerate(zip(tasks.values(), places, strict=True))
        ]
        for model in models
    }
    draws = {model: resampled_iqm(rows, config.seed) for model, rows in scores.items()}
    told = all(enough_groups(r.sample.units) for r, _ in found)
    control = {r.model.name for r, _ in found if r.model.control}
    rows = [
        Row(
            model,
            model in control,
            interquartile_mean(np.concatenate([one.points for one in scores[model]])),
            percentile_interval(torch.from_numpy(draws[model])) if told else None,
            percentile_interval(torch.from_numpy(ranks)) if told else None,
        )
        for model, ranks in zip(models, _ranks(list(draws.values())), strict=True)
    ]
    runs = min(sum(len(one.points) for one in scores[model]) for model in models)
    left = sorted({r.model.name for r, _ in found} - set(models))
    return Aggregate(
        probe=config.probe,
        rows=tuple(sorted(rows, key=lambda row: -row.value)),
        places=tuple(places),
        low=config.low,
        high="perfect" if config.high == "1" else config.high,
        runs=runs,
        notes=_notes_on_tasks(config, runs, left, found),
    )


def _notes_on_tasks(
    config: AggregateConfig, runs: int, left: Sequence[str], found: Sequence[tuple[Result, Path]]
) -> tuple[str, ...]:
    units = dict.fromkeys(f"{r.task}: {resampled(r.sample)}." for r, _ in found)
    return (
        f"{runs} scores per model; the lowest and the highest quarter of them are cut "
        f"({runs // 4} each)." + (" Fewer than four: this is the plain mean." * (runs < 4)),
        f"Intervals: {config.bootstrap} resamples, drawn within each task: seeds, then groups of "
        "test samples. They hold for these tasks, not for others. References are not resampled.",
        *units,
        *([f"Left out, without a score on every task: {', '.join(left)}."] if left else []),
    )


# ------------------------------------------------------------------------------- records


def _records(config: AggregateConfig) -> list[tuple[Result, Path]]:
    found = []
    words = listed(config.tasks) or ("",)
    filters = [task_filter(word) for word in words]
    for word in listed(config.results):
        path = records_file(word)
        if not path.is_file():
            raise DataError("there is no file of records", where=path)
        found += [
            (r, path)
            for r in read_results(path)
            if (r.kind or r.probe) == config.probe
            and any(asked(r.task) for asked in filters)
            and not is_nonstandard(r)
            and not r.sample.labels
            and not r.of
        ]
    if not found:
        raise ConfigError("no record is of this probe", found=config.probe, where=config.results)
    return found


# model -> its records on one task, one per seed
_Rows = Mapping[str, Sequence[tuple[Result, Path]]]


def _by_task(found: Sequence[tuple[Result, Path]], config: AggregateConfig) -> dict[str, _Rows]:
    """Group records by task, split and sample; only the first recorded metric of each is used."""
    tasks: dict[str, dict[str, list[tuple[Result, Path]]]] = {}
    metric: dict[str, str] = {}
    for result, path in {r.key: (r, path) for r, path in found}.values():
        sample = result.sample
        name = f"{result.task} version {result.version}, {sample.split}, {sample.ids_sha256[:8]}"
        if metric.setdefault(name, result.metric) == result.metric:
            tasks.setdefault(name, {}).setdefault(result.model.name, []).append((result, path))
    if len(tasks) < 2:
        raise ConfigError(
            "an aggregate is over several tasks",
            found=", ".join(tasks),
            where=config.results,
            remedy="name the files of several tasks: eofm bench aggregate a.jsonl,b.jsonl",
        )
    if any(Metric(one).smaller_is_better for one in metric.values()):
        raise ConfigError("the first metric of a task counts errors", found=", ".join(metric))
    return {f"{name}, {metric[name]}": rows for name, rows in tasks.items()}


def _common(tasks: Mapping[str, _Rows]) -> list[str]:
    first, *others = tasks.values()
    models = [name for name in first if all(name in rows for rows in others)]
    if not models:
        raise ConfigError(
            "no model has a score on every task",
            found="; ".join(f"{task}: {', '.join(rows)}" for task, rows in tasks.items()),
            remedy="score the same models, under the same names, on each task",
        )
    return models


# -------------------------------------------------------------------------------- scores


def _place(task: str, rows: _Rows, config: AggregateConfig) -> TaskPlace:
    low, high = (_reference(task, rows, word) for word in (config.low, config.high))
    if not high > low:
        raise ConfigError(
            "the upper reference is not above the lower one",
            found=f"{config.low} {low:.4f}, {config.high} {high:.4f}",
            where=task,
            remedy="name others with --low and --high",
        )
    return TaskPlace(task, low, high)


def _reference(task: str, rows: _Rows, word: str) -> float:
    if word in {"0", "1"}:
        return float(word)
    if word not in rows:
        raise ConfigError(
            "a reference has no score on a task",
            found=word,
            expected=f"0, 1, or one of {', '.join(rows)}",
            where=task,
        )
    return float(np.mean([result.value for result, _ in rows[word]]))


def _scores(rows: Sequence[tuple[Result, Path]], config: AggregateConfig, seed: int) -> _Scores:
    """Return scores of one model on one task. Models with the same seed see the same resamples."""
    resampled = []
    for result, path in rows:
        kept, metric = predictions_of(result, path), Metric(result.metric)
        values = bootstrap_values(
            kept.scored([metric]).metrics[metric],
            len(kept.ids),
            repeats=config.bootstrap,
            seed=seed,
            groups=kept.numbers,
        )
        resampled.append(values.numpy())
    return _Scores(np.array([result.value for result, _ in rows]), np.stack(resampled))


def _normalised(scores: _Scores, place: TaskPlace) -> _Scores:
    width = place.high - place.low
    return _Scores((scores.points - place.low) / width, (scores.resampled - place.low) / width)


def resampled_iqm(tasks: Sequence[_Scores], seed: int) -> Floats:
    """Return the interquartile mean of each resample, (R,), with seeds resampled in each task.

    Args:
        tasks: Scores of one model, task by task.
        seed: Seed of the resampling.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for one in tasks:
        seeds, repeats = one.resampled.shape
        which = generator.integers(seeds, size=(seeds, repeats))
        drawn.append(np.take_along_axis(one.resampled, which, axis=0))
    table = np.concatenate(drawn)
    return np.array([interquartile_mean(column) for column in table.T])


def _ranks(draws: Sequence[Floats]) -> list[Floats]:
    """Return the rank of each model in each resample; ties share the better rank."""
    table = np.stack(draws)
    return [1.0 + (table > row).sum(axis=0) for row in table]
