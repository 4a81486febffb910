"""`eofm bench aggregate`: one number per model over several tasks, with an interval.

Raw scores of different tasks are on no common scale: a point of accuracy on EuroSAT is not one of
average precision on BigEarthNet. Each score is therefore put between two stated references of its
task: 0 is what a named control reaches there, 1 is perfect, or what another named model reaches.
Over all tasks (and seeds) the interquartile mean is taken, and its interval by a bootstrap that
draws within every task: first seeds, then groups of test samples (arXiv 2108.13264, section 4.3;
there the strata are tasks and the draws are seeds, of which a deterministic probe has one).

Shapes: T tasks, S seeds of a task, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.bench.config import listed
from eofm.bench.predictions import predictions_of
from eofm.bench.records import Result, read_results
from eofm.bench.reports.export import is_nonstandard
from eofm.bench.reports.report_config import AggregateConfig
from eofm.bench.reports.resampled import resampled
from eofm.datasets.registry import task_filter
from eofm.errors import ConfigError, DataError
from eofm.probes.bootstrap import (
    Interval,
    bootstrap_values,
    interquartile_mean,
    percentile_interval,
)
from eofm.probes.metrics import Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TaskPlace:
    """What scores of one task are compared in.

    Args:
        task: Name and version of the task, split and metric, in words.
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
        control: Whether it is a yardstick.
        value: Interquartile mean of its normalised scores.
        interval: Of that.
        ranks: Of its rank among the models.
    """

    model: str
    control: bool
    value: float
    interval: Interval
    ranks: Interval


@dataclass(frozen=True)
class Aggregate:
    """Models over the same tasks.

    Args:
        probe: Kind of probe.
        rows: Best first.
        places: The tasks, with their references.
        low: Name of the reference that becomes 0.
        high: Name of the reference that becomes 1.
        runs: Number of scores behind each value, at least.
        notes: What a reader must know.
    """

    probe: str
    rows: tuple[Row, ...]
    places: tuple[TaskPlace, ...]
    low: str
    high: str
    runs: int
    notes: tuple[str, ...]

    def describe(self) -> str:
        """Return a table, the references of each task, and what the numbers mean."""
        lines = [
            f"**{self.probe}**, interquartile mean over {len(self.places)} tasks of scores "
            f"normalised to 0 = {self.low}, 1 = {self.high}",
            "",
            "| model | IQM | 95 % interval | rank, 95 % interval |",
            "|---|---:|---|---|",
        ]
        for row in self.rows:
            name = f"*{row.model}*" if row.control else row.model
            lines.append(
                f"| {name} | {row.value:.3f} | {row.interval.low:.3f} – {row.interval.high:.3f} | "
                f"{row.ranks.low:.0f} – {row.ranks.high:.0f} |"
            )
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

    Only models that have a score on every task take part; forced and nonstandard rows and shares
    of the labels never do.

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
    control = {r.model.name for r, _ in found if r.model.control}
    rows = [
        Row(
            model,
            model in control,
            interquartile_mean(np.concatenate([one.points for one in scores[model]])),
            percentile_interval(torch.from_numpy(draws[model])),
            percentile_interval(torch.from_numpy(ranks)),
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
        notes=_notes(config, runs, left, found),
    )


def _notes(
    config: AggregateConfig, runs: int, left: Sequence[str], found: Sequence[tuple[Result, Path]]
) -> tuple[str, ...]:
    units = dict.fromkeys(f"{r.task}: {resampled(r.sample)}." for r, _ in found)
    return (
        f"{runs} scores per model; the lowest and the highest quarter of them are cut "
        f"({runs // 4} each)." + (" Fewer than four: this is the plain mean." * (runs < 4)),
        f"Intervals: {config.bootstrap} resamples, drawn within each task: seeds, then groups of "
        "test samples. They hold for these tasks, not for others. References are not resampled.",
        *units,
        *([f"Left out, for want of a score on every task: {', '.join(left)}."] if left else []),
    )


# ------------------------------------------------------------------------------- records


def _records(config: AggregateConfig) -> list[tuple[Result, Path]]:
    found = []
    words = listed(config.tasks) or ("",)
    filters = [task_filter(word) for word in words]
    for word in listed(config.results):
        path = Path(word)
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
    """Group records by task, split and sample; of each only the first metric that was recorded."""
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
    """Return the interquartile mean of each resample, (R,): in each task seeds are drawn again.

    Args:
        tasks: Scores of one model, task by task.
        seed: Of the draw.
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
    """Return the rank of each model in each resample; equal values share the better rank."""
    table = np.stack(draws)
    return [1.0 + (table > row).sum(axis=0) for row in table]
