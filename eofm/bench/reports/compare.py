"""`eofm bench compare A B`: the difference of two models on the same test samples.

Two intervals that overlap say little: both models meet the same hard samples. The paired bootstrap
draws samples once for both and looks at the difference. What else differs than the weights (plan,
waivers, C) stands beside it, for it may be the whole reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.records import Result, read_results
from eofm.bench.reports.report_config import CompareConfig
from eofm.bench.reports.resampled import resampled
from eofm.datasets.registry import task_filter
from eofm.errors import ConfigError, DataError
from eofm.probes.bootstrap import Interval, bootstrap_interval, resampled_difference
from eofm.probes.metrics import Metric


@dataclass(frozen=True)
class Difference:
    """One score of two models.

    Args:
        one: Record of the first.
        other: Record of the second.
        interval: Of `one - other`, paired.
    """

    one: Result
    other: Result
    interval: Interval

    @property
    def verdict(self) -> str:
        """Which model is better, or that neither can be called better."""
        low, high = self.interval.low, self.interval.high
        if low <= 0 <= high:
            return "no difference can be told"
        first = (low > 0) != Metric(self.one.metric).smaller_is_better
        return f"{(self.one if first else self.other).model.name} is better"


@dataclass(frozen=True)
class Comparison:
    """All scores that two models share.

    Args:
        differences: One per task, sample, probe and metric.
        notes: What else differs.
    """

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    def describe(self) -> str:
        """Return a table and what else differs."""
        first = self.differences[0]
        a, b = first.one.model.name, first.other.model.name
        rows = [
            f"| {d.one.task} | `{d.one.probe}` | {d.one.metric} | {100 * d.one.value:.1f} | "
            f"{100 * d.other.value:.1f} | {100 * (d.one.value - d.other.value):+.1f} | "
            f"{100 * d.interval.low:+.1f} to {100 * d.interval.high:+.1f} | {d.verdict} |"
            for d in self.differences
        ]
        interval = first.interval
        return "\n".join(
            [
                f"| task | probe | metric, % | {a} | {b} | difference | paired interval | |",
                "|---|---|---|---:|---:|---:|---|---|",
                *rows,
                "",
                f"- {100 * interval.level:g} % percentile interval of the difference on the same "
                f"{interval.repeats} resamples of the test split; not corrected for the number of "
                "rows.",
                *(f"- {note}" for note in self.notes),
            ]
        )


def compare_models(config: CompareConfig) -> Comparison:
    """Compare two models on every task, probe and metric that both have records of.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If a model has no records, or the two share none.
        DataError: If records or predictions cannot be read, or do not fit one another.
    """
    path, asked = Path(config.results), task_filter(config.task)
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
        other.sample.ungrouped,  # records of 0.1 say nothing of groups
    )


def _short(records: Sequence[Result]) -> str:
    return ", ".join(dict.fromkeys(f"{r.task} {r.kind} {r.metric}" for r in records))


def _interval(one: Result, other: Result, path: Path, config: CompareConfig) -> Interval:
    first, second = predictions_of(one, path), predictions_of(other, path)
    _check_same_samples(first, second, path)
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
            "the intervals of the two resample other groups of the same samples",
            found=f"{len(set(one.groups))} and {len(set(other.groups))} groups",
            where=path,
            remedy="score both in one run: --model A,B",
        )


def _notes(pairs: Sequence[tuple[Result, Result]]) -> tuple[str, ...]:
    notes: dict[str, None] = {}
    for one, other in pairs:
        sample = one.sample if one.sample.groups else other.sample
        notes[f"{one.task}: {resampled(sample)}"] = None
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
