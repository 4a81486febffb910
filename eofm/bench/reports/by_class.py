"""`eofm bench table --classes`: scores class by class, beside how often train holds each class.

Scored from the predictions beside the records, as slices are: average precision against all other
classes, of a segmentation the intersection over union.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.probes import class_draws
from eofm.bench.records import Result
from eofm.bench.reports.classes import estimates_of, iou_draws, table_of_classes
from eofm.bench.reports.frequency import FrequencyTrend, trend_of
from eofm.bench.reports.tables import probe_words
from eofm.bench.segmentation import SEGMENTATION
from eofm.bench.zero_shot.prompt_scores import PROMPT, PROMPT_METRICS, resampled_prompt_classes
from eofm.errors import ConfigError
from eofm.probes.bootstrap import bootstrap_values, once
from eofm.report import plots
from eofm.report.plots import Estimate
from eofm.report.tables import Table

if TYPE_CHECKING:
    from eofm.report.output import Figure

_PRECISION: Final = "average precision against all other classes"
_IOU: Final = "intersection over union"
_AUROC: Final = "AUROC of prompt patches in their image"


@dataclass(frozen=True)
class ByClass:
    """The classes of several models under one probe, on the same images.

    Args:
        first: A record of them: of which task, split and probe.
        classes: Names, K.
        counts: Of each in train, K.
        points: Model -> a score of each class; None for one that does not occur in test.
        trends: Model -> how its scores go with the counts.
    """

    first: Result
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    points: Mapping[str, tuple[Estimate | None, ...]]
    trends: Mapping[str, FrequencyTrend | None]

    @classmethod
    def of(
        cls, rows: Mapping[str, Result], kept: Mapping[str, Predictions], repeats: int, seed: int
    ) -> ByClass:
        """Return the classes of some models.

        Args:
            rows: Model -> a record of it.
            kept: Model -> its predictions.
            repeats: Resamples.
            seed: Of the resampling.

        Raises:
            LabelError: If no test sample has a label.
        """
        first = next(iter(rows.values()))
        draws = {name: _draws(one, repeats, seed) for name, one in kept.items()}
        return cls(
            first,
            next(iter(kept.values())).classes,
            first.train_counts,
            {name: estimates_of(*one) for name, one in draws.items()},
            {name: trend_of(*one, first.train_counts) for name, one in draws.items()},
        )

    @property
    def score(self) -> str:
        """What is scored of a class, in words."""
        return {SEGMENTATION: _IOU, PROMPT: _AUROC}.get(self.first.kind, _PRECISION)

    @property
    def _of_pixels(self) -> bool:
        return self.first.kind in {SEGMENTATION, PROMPT}

    def table(self) -> Table:
        """Return one row per class, one column per model, and the trend with the counts below."""
        made = table_of_classes(
            self.classes,
            self.counts,
            self.points,
            self.trends,
            counted="train pixels" if self._of_pixels else "train images",
            # a class in test may have no pure patch
            absent="no prompt" if self.first.kind == PROMPT else "not in test",
        )
        level = f"{100 * self.first.interval.level:g} % interval, which resamples test samples"
        return replace(
            made,
            name=self.first.task,
            about=f"by class, {self.score}, %, split `{self.first.sample.split}`, "
            f"{probe_words(self.first.probe, scaling=False)}",
            notes=(f"In brackets: {level}.", *made.notes),
        )

    def figure(self, title: str) -> Figure | None:
        """Return a figure of scores over counts; None where there is no trend to show.

        Args:
            title: Above it.
        """
        if not any(self.trends.values()):
            return None
        series = {
            self._named(name): [
                (float(count), point)
                for count, point in zip(self.counts, values, strict=True)
                if point is not None and count
            ]
            for name, values in self.points.items()
        }
        what = "pixels" if self._of_pixels else "images"
        return plots.scattered(title, series, f"training {what} of the class", f"{self.score}, %")

    def _named(self, name: str) -> str:
        trend = self.trends[name]
        return name if trend is None else f"{name}, rank {trend.correlation.value:+.2f}"


def _draws(one: Predictions, repeats: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the score of each class, and on every resample."""
    if one.prompts is not None:
        metric, samples = resampled_prompt_classes(one.prompts, PROMPT_METRICS[0]), len(one.prompts)
        drawn = bootstrap_values(metric, samples, repeats=repeats, seed=seed, groups=one.numbers)
        return metric(once(samples))[0], drawn
    if one.matrices is not None:
        return iou_draws(one.matrices, repeats, seed, one.numbers)
    return class_draws(one.comparable, one.target, repeats, seed, one.numbers)


def class_tables(results: Sequence[Result], path: Path) -> list[Table]:
    """Return the classes of records, one table per task, split, subset and probe.

    Args:
        results: Records; shares of the labels and other input sizes are left out.
        path: The file they stand in.

    Raises:
        ConfigError: If no record says how often train holds its classes.
        DataError: If predictions cannot be read, or are not those of their record.
    """
    groups: dict[tuple[str, ...], dict[str, Result]] = {}
    for r in results:
        if r.train_counts and r.predictions and not r.sample.labels and not r.of:
            words = probe_words(r.probe, scaling=False)
            place = (r.task, r.version, r.sample.split, r.sample.ids_sha256, words)
            groups.setdefault(place, {}).setdefault(r.model.name, r)
    if not groups:
        raise ConfigError(
            "no record says how often train holds its classes",
            found=f"{len(results)} records without counts or predictions",
            where=path,
            remedy="run the benchmark again with another --out, which writes them",
        )
    return [_table(rows, path) for rows in groups.values()]


def _table(rows: Mapping[str, Result], path: Path) -> Table:
    first = next(iter(rows.values()))
    kept = {name: predictions_of(one, path) for name, one in rows.items()}
    return ByClass.of(rows, kept, first.interval.repeats, first.seed).table()
