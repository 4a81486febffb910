"""`eofm bench table|plot|export`: records as Markdown, CSV, figures and one HTML page.

Figures show scores per class, confusion or co-occurrence, and curves.

Shapes: K classes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.bench.config import RecordsExportConfig, TableConfig
from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.records import Result, read_results, records_file
from eofm.bench.reports.classes import ByClass, class_tables
from eofm.bench.reports.tables import (
    Curve,
    label_curves,
    metric_name,
    probe_words,
    size_curves,
    sliced,
    table,
    tables_of,
)
from eofm.bench.segmentation import PROMPT, SEGMENTATION
from eofm.bench.sources import FORCED_FLAG, NONSTANDARD
from eofm.datasets.registry import task_filter
from eofm.errors import ConfigError, DataError
from eofm.io import write_file
from eofm.probes.bootstrap import FEWEST_GROUPS, enough_groups, unit_count
from eofm.probes.metrics import confusion_matrix
from eofm.report import output, pages, plots
from eofm.report.plots import Estimate
from eofm.report.tables import markdown, shorten

if TYPE_CHECKING:
    from eofm.report.output import Figure

__all__ = [
    "Drawn",
    "Text",
    "chosen",
    "class_dots",
    "class_matrix",
    "curve_figures",
    "draw_figures",
    "export",
    "hidden",
    "is_nonstandard",
    "page_of",
    "plot",
    "print_table",
    "to_csv",
]


# ------------------------------------------------------------------------------------------ figures


def curve_figures(found: Sequence[Curve]) -> dict[str, Figure]:
    """Return a figure for each curve, by file name.

    Args:
        found: The curves.
    """
    figures = {}
    for curve in found:
        sizes = set(curve.own.values())
        sign = ("", ", dashed: the model's own", ", ringed: the model's own")[min(len(sizes), 2)]
        figures[re.sub(r"[^\w.-]+", "_", f"{curve.stem}-{curve.name}")] = plots.curves(
            f"{curve.title}: {probe_words(curve.probe, scaling=False)}",
            curve.series,
            curve.x_label + sign,
            f"{metric_name(curve.metric)}, {curve.spread}",
            log=curve.log,
            mark=sizes.pop() if len(sizes) == 1 else None,
            own=curve.own,
            levels=curve.levels,
        )
    return figures


def class_dots(
    title: str, first: Predictions, points: Mapping[str, Sequence[Estimate | None]]
) -> Figure:
    """Return a figure of a score per class with intervals, for several models.

    Args:
        title: Title of the figure.
        first: Predictions of one of the models.
        points: Model -> a score of each class, for the same samples.
    """
    told = enough_groups(unit_count(len(first.ids), first.numbers))
    interval = "95 % interval" if told else f"no interval: fewer than {FEWEST_GROUPS} groups"
    if first.matrices is not None:
        label = f"intersection over union, {interval}"
        return plots.dots(title, first.classes, points, label)
    hot = first.target if first.target.ndim == 2 else torch.nn.functional.one_hot(first.target)
    count = [*hot.sum(dim=0).tolist(), *[0] * len(first.classes)]
    labels = [f"{shorten(name, 28)} ({count[k]})" for k, name in enumerate(first.classes)]
    label = f"average precision against all others, {interval}\nin brackets: test positives"
    return plots.dots(title, labels, points, label)


def class_matrix(title: str, one: Predictions) -> Figure:
    """Return a figure of predictions per class: confusion, or co-occurrence for several labels.

    Args:
        title: Title of the figure.
        one: The predictions.
    """
    if one.matrices is not None:
        shares = _row_shares(one.matrices.sum(dim=0).double().numpy())
        return plots.matrix(
            title, one.classes, shares, "true class of a pixel", "predicted, % of the row"
        )
    if one.target.ndim == 1:
        counts = confusion_matrix(one.scores.argmax(dim=1), one.target, len(one.classes))
        shares = _row_shares(counts.double().numpy())
        return plots.matrix(title, one.classes, shares, "true class", "predicted, % of the row")
    said = one.scores > 0 if one.probability is None else one.probability > 0.5
    counts = one.target.double().T @ said.double()
    positives = one.target.double().sum(dim=0)[:, None]
    shares = np.where(positives > 0, counts / positives.clamp_min(1), torch.nan)
    return plots.matrix(title, one.classes, shares, "present", "predicted, % of those present")


def _row_shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


# ---------------------------------------------------------------------------------- verbs and files

# Prefixes of flags of rows whose input differs from that of the model's training.
_MARKS: Final = (FORCED_FLAG, NONSTANDARD)


@dataclass(frozen=True)
class Text:
    """A result that is printed.

    Args:
        text: Text to print.
    """

    text: str

    def describe(self) -> str:
        """Return the text."""
        return self.text


def is_nonstandard(result: Result) -> bool:
    """Whether a row is excluded from tables by default."""
    return any(flag.startswith(_MARKS) for flag in result.flags)


def _asked(config: TableConfig | RecordsExportConfig) -> list[Result]:
    """Return the records of the requested task and probe, with any input."""
    asked = task_filter(config.task)
    return [
        r
        for r in read_results(records_file(config.results))
        if asked(r.task) and config.probe in {"", r.kind}
    ]


def _has(result: Result, mark: str) -> bool:
    return any(flag.startswith(mark) for flag in result.flags)


def hidden(config: TableConfig | RecordsExportConfig) -> str:
    """Return a line on the records that are excluded, if there are any."""
    if config.nonstandard:
        return ""
    counts = {mark: sum(_has(r, mark) for r in _asked(config)) for mark in _MARKS}
    words = ", ".join(f"{count} {mark}" for mark, count in counts.items() if count)
    return f"left out: {words} (--nonstandard true shows them, marked)" if words else ""


def chosen(config: TableConfig | RecordsExportConfig) -> list[Result]:
    """Return the requested records.

    Raises:
        DataError: If the file does not exist, or is incomplete.
        ConfigError: If there are none.
    """
    path = records_file(config.results)
    if not path.is_file():
        raise DataError(
            "there is no file of records", where=path, remedy="`eofm bench TASK --out FILE` writes"
        )
    found = [r for r in _asked(config) if config.nonstandard or not is_nonstandard(r)]
    if not found:
        records = read_results(path)
        raise ConfigError(
            "no record matches the options",
            found=f"{len(records)} records, {sum(map(is_nonstandard, records))} of them forced or "
            "nonstandard",
            where=path,
            remedy="leave --task and --probe out, or add --nonstandard true",
        )
    return found


def print_table(config: TableConfig | RecordsExportConfig) -> Text:
    """Return the tables of a file of records.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If the file is missing or incomplete, or predictions for slices cannot be read.
        ConfigError: If no record matches, none can be sliced, or none has class counts.
    """
    found = chosen(config)
    path = records_file(config.results)
    by = config.slice if isinstance(config, TableConfig) else None
    if isinstance(config, TableConfig) and config.classes:
        shown = "\n\n".join(map(markdown, class_tables(found, path)))
    else:
        shown = table(found) if by is None else sliced(found, path, by)
    return Text("\n\n".join(part for part in (shown, hidden(config)) if part))


def to_csv(results: Sequence[Result]) -> str:
    """Return one line per record, for other programs."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            *("task", "version", "split", "subset", "model", "control", "probe", "metric"),
            *("value", "low", "high", "n_train", "n_val", "n_test", "strength", "rank", "flags"),
            *("groups", "grouping"),
            *("labels", "draw", "size", "of", "parameters", "trained_on"),
            *("lead", "alpha"),
            *("waivers", "weights_sha256", "plan_sha256", "ids_sha256", "utc", "git", "key"),
        ]
    )
    for r in results:
        writer.writerow(
            [
                *(r.task, r.version, r.sample.split, not r.sample.complete, r.model.name),
                *(r.model.control, r.probe, r.metric, r.value, *_ends(r)),
                *(r.sample.n_train, r.sample.n_val, r.sample.n_test, r.strength, r.rank),
                *("; ".join(r.flags), r.sample.groups, r.sample.grouping),
                *(r.sample.labels or "all", r.sample.draw, r.model.size, r.of, r.parameters),
                *(r.model.trained_on, r.lead, r.alpha),
                *("; ".join(r.model.waivers), r.model.weights_sha256),
                *(r.model.plan_sha256, r.sample.ids_sha256, r.made.utc, r.made.git, r.key),
            ]
        )
    return buffer.getvalue()


def _ends(result: Result) -> tuple[float | str, float | str]:
    shown = result.shown_interval
    return ("", "") if shown is None else (shown.low, shown.high)


# -------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class Drawn:
    """Figures of records.

    Args:
        figures: Figures by file name without suffix.
        missing: Number of models and probes without predictions next to the records.
    """

    figures: Mapping[str, Figure]
    missing: int

    @property
    def remark(self) -> str:
        """Note on what was not drawn and why; empty if everything was."""
        if not self.missing:
            return ""
        return (
            f"not drawn by class: {self.missing} models and probes, whose predictions are not "
            "beside the records"
        )


def draw_figures(config: RecordsExportConfig) -> Drawn:
    """Draw dots per class and a matrix for each task, split and probe; and curves.

    Curves over the input size are drawn whether or not nonstandard rows are requested: they consist
    mostly of such rows, and mark the model's own size.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If records or predictions cannot be read, or do not match.
        ConfigError: If no record matches the options.
    """
    groups: dict[tuple[str, str, str], dict[str, Result]] = {}
    found, missing = chosen(config), set()
    records = records_file(config.results)
    for result in found:
        plain = result.predictions and not result.sample.labels and not result.of
        if plain and result.kind not in {SEGMENTATION, PROMPT}:
            if not (records.parent / result.predictions).is_file():
                missing.add(result.predictions)
                continue
            place = result.task, result.sample.ids_sha256, result.kind
            groups.setdefault(place, {}).setdefault(result.model.name, result)
    figures = {}
    for (task, ids, kind), rows in groups.items():
        stem = re.sub(r"[^\w.-]+", "_", f"{task}-{ids[:8]}-{kind}")
        kept = {n: predictions_of(r, records) for n, r in rows.items()}
        first = next(iter(rows.values()))
        words = probe_words(first.probe, scaling=False)
        title = f"{task}, split {first.sample.split}: {words}"
        by_class = ByClass.of(rows, kept, config.bootstrap, config.seed)
        figures[f"{stem}-classes"] = class_dots(title, next(iter(kept.values())), by_class.points)
        if all(row.train_counts for row in rows.values()):
            counted = by_class.figure(title)
            figures |= {} if counted is None else {f"{stem}-frequency": counted}
        name, best = _best(rows, kept)
        figures[f"{stem}-matrix"] = class_matrix(f"{title}: {name}", best)
    sized = [r for r in _asked(config) if config.nonstandard or not _has(r, FORCED_FLAG)]
    figures |= curve_figures(label_curves(found)) | curve_figures(size_curves(sized))
    return Drawn(figures, len(missing))


def _best(rows: Mapping[str, Result], kept: Mapping[str, Predictions]) -> tuple[str, Predictions]:
    """Return the model with the highest score that is not a control, if there is one."""
    name = max(rows, key=lambda n: (not rows[n].model.control, rows[n].value))
    return name, kept[name]


def plot(config: RecordsExportConfig) -> Text:
    """Write the figures of a file of records.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If there is nothing to draw, or predictions cannot be read, or figures cannot be
            written.
        ConfigError: If no record matches the options.
    """
    drawn = draw_figures(config)
    if not drawn.figures:
        raise DataError(
            "these records cannot be drawn",
            found=drawn.remark or "records without predictions, and no curve",
            where=config.results,
            remedy="run the benchmark again with another --out, which writes them; "
            "`eofm bench table` needs the records alone",
        )
    files = {f"{name}.png": output.png(figure) for name, figure in drawn.figures.items()}
    return _write(config, files, drawn.remark)


# --------------------------------------------------------------------------------- export


def export(config: RecordsExportConfig) -> Text:
    """Write records as `results.md`, `results.csv` and `index.html`, which includes its figures.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If records or predictions cannot be read, or files cannot be written.
        ConfigError: If no record matches the options.
    """
    found = chosen(config)
    drawn = draw_figures(config)
    files = {
        "results.md": print_table(config).text.encode() + b"\n",
        "results.csv": to_csv(found).encode(),
        "index.html": pages.render(page_of(found, drawn, hidden(config))).encode(),
    }
    return _write(config, files, drawn.remark)


def _write(config: RecordsExportConfig, files: Mapping[str, bytes], remark: str) -> Text:
    folder = _folder_of(config)
    lines = [str(write_file(folder / name, content)) for name, content in files.items()]
    return Text("\n".join(line for line in [*lines, hidden(config), remark] if line))


def _folder_of(config: RecordsExportConfig) -> Path:
    """Return the output folder: next to the records, with their name without suffix."""
    records = records_file(config.results)
    folder = Path(config.out) if config.out else records.with_suffix("")
    if not config.out and folder == records:  # a file without a suffix, of an earlier version
        folder = records.with_name(f"{records.name}-report")
    if folder.is_file():
        raise DataError(
            "tables and figures go into a folder, and this is a file",
            where=folder,
            remedy=f"name a folder: --out {quote(f'{folder}-report')}",
        )
    return folder


def page_of(results: Sequence[Result], drawn: Drawn, left_out: str) -> pages.Page:
    """Return the page of records: tables, their notes, and figures.

    Args:
        results: Records to show.
        drawn: Their figures.
        left_out: Note on excluded records.
    """
    made = tables_of(results)
    remarks = tuple(pages.Paragraph(words) for words in (left_out, drawn.remark) if words)
    figures = tuple(drawn.figures.items())
    return pages.Page(
        "Benchmark",
        (
            pages.Section("Scores", (*map(pages.TableBlock, made.tables), *remarks)),
            pages.Section("Notes", (pages.Notes(made.notes),) if made.notes else ()),
            pages.Section("Figures", (pages.Drawings(figures, wide=True),) if figures else ()),
        ),
    )
