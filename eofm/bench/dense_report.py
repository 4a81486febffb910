"""What a run of a dense task gives back: its table, the classes one by one, a figure of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eofm.bench.dense_archive import Segmented
from eofm.bench.dense_metrics import class_iou, resampled_iou
from eofm.bench.results import Result
from eofm.bench.tables import probe_words, table
from eofm.bench.waive import FORCED_FLAG
from eofm.probes.bootstrap import bootstrap_values, percentile_interval
from eofm.report import output, plots
from eofm.report.plots import Estimate
from eofm.report.tables import Table, TableRow, markdown


@dataclass(frozen=True)
class DenseReport:
    """What a run gives back.

    Args:
        results: One record per model and metric.
        segmented: Model -> what its linear layer says of the test images.
        appended: How many of the records the file did not have yet.
        out: The file.
        remarks: What a reader of the scores should know of the task and its images.
        figure: Where the classes are drawn; empty without.
    """

    results: tuple[Result, ...]
    segmented: Mapping[str, Segmented]
    appended: int
    out: Path
    remarks: tuple[str, ...] = ()
    figure: str = ""

    def describe(self) -> str:
        """Return the tables, and where the records are. Forced rows stand outside of them."""
        forced = [r for r in self.results if any(f.startswith(FORCED_FLAG) for f in r.flags)]
        kept = [result for result in self.results if result not in forced]
        known = len(self.results) - self.appended
        lines = [
            table(kept),
            "",
            self._classes(),
            "",
            *(f"- {remark}" for remark in self.remarks),
            *(
                f"- left out of the table, {r.flags[0]}: {r.model.name}, {r.metric} "
                f"{100 * r.value:.1f} %"
                for r in forced
            ),
            *([f"- classes: {self.figure}"] if self.figure else []),
            "",
            f"{self.appended} new records in {self.out}" + f", {known} known" * bool(known),
        ]
        return "\n".join(lines)

    def points(self) -> dict[str, list[Estimate | None]]:
        """Return each model's intersection over union of each class, with its interval.

        None for a class that occurs in no test mask.
        """
        repeats, seed = self.results[0].interval.repeats, self.results[0].seed
        found: dict[str, list[Estimate | None]] = {}
        for name, one in self.segmented.items():
            values = class_iou(one.matrices.sum(dim=0)).tolist()
            drawn = bootstrap_values(
                resampled_iou(one.matrices), len(one.groups), repeats=repeats, seed=seed
            )
            spans = [percentile_interval(drawn[:, k]) for k in range(len(values))]
            found[name] = [
                Estimate(value, span.low, span.high) if value == value else None  # noqa: PLR0124 (NaN)
                for value, span in zip(values, spans, strict=True)
            ]
        return found

    def _classes(self) -> str:
        classes = next(iter(self.segmented.values())).classes
        points = self.points()
        rows = (
            TableRow((label, *(_cell(values[index]) for values in points.values())))
            for index, label in enumerate(classes)
        )
        made = Table(("class", *points), tuple(rows), words=frozenset(range(1, len(points) + 1)))
        head = "Intersection over union % of each class, with its 95 % interval:"
        return f"{head}\n\n{markdown(made)}"

    def draw(self, path: Path) -> None:
        """Draw the classes as dots with intervals, and write the figure.

        Raises:
            DataError: If it cannot be written.
        """
        first = self.results[0]
        subset = "" if first.sample.complete else ", a subset"
        figure = plots.dots(
            f"{first.task}{subset}: {probe_words(first.probe)}",
            next(iter(self.segmented.values())).classes,
            self.points(),
            "intersection over union, 95 % interval",
        )
        output.save(figure, path, "name another file")


def _cell(point: Estimate | None) -> str:
    if point is None:
        return "not in test"
    return f"{100 * point.value:.1f} ({100 * point.low:.1f} – {100 * point.high:.1f})"
