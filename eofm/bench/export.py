"""`eofm bench table|plot|export`: what records say, as Markdown, CSV, figures and one HTML page."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eofm.bench.curves import label_curves, size_curves
from eofm.bench.figures import class_bars, class_matrix, curve_figures
from eofm.bench.predictions import Predictions, predictions_of
from eofm.bench.records import Result, read_results
from eofm.bench.report_config import ExportConfig, TableConfig
from eofm.bench.segmentation import SEGMENTATION
from eofm.bench.tables import by_sample, table
from eofm.bench.tasks import task_filter
from eofm.bench.waive import FORCED_FLAG, NONSTANDARD
from eofm.errors import ConfigError, DataError
from eofm.probes.metrics import METRIC_WORDS, Metric

# With one of these begins the flag of a row whose input is not what its model was trained on.
_MARKS: Final = (FORCED_FLAG, NONSTANDARD)


@dataclass(frozen=True)
class Text:
    """An outcome that is printed.

    Args:
        text: What is printed.
    """

    text: str

    def describe(self) -> str:
        """Return the text."""
        return self.text


def is_nonstandard(result: Result) -> bool:
    """Whether a row stays out of tables unless asked for."""
    return any(flag.startswith(_MARKS) for flag in result.flags)


def _asked(config: TableConfig | ExportConfig) -> list[Result]:
    """Return the records of the task and probe that settings name, forced ones only on demand."""
    forced, asked = config.nonstandard, task_filter(config.task)
    return [
        r
        for r in read_results(Path(config.results))
        if asked(r.task)
        and config.probe in {"", r.kind}
        and (forced or not any(flag.startswith(FORCED_FLAG) for flag in r.flags))
    ]


def hidden(config: TableConfig | ExportConfig) -> str:
    """Return a line on the records that are left out, if there are any."""
    if config.nonstandard:
        return ""
    wanted = task_filter(config.task)
    asked = [
        r
        for r in read_results(Path(config.results))
        if wanted(r.task) and config.probe in {"", r.kind}
    ]
    counts = {
        FORCED_FLAG: sum(any(f.startswith(FORCED_FLAG) for f in r.flags) for r in asked),
        NONSTANDARD: sum(any(f.startswith(NONSTANDARD) for f in r.flags) for r in asked),
    }
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"left out: {words} (--nonstandard true shows them, marked)" if words else ""


def chosen(config: TableConfig | ExportConfig) -> list[Result]:
    """Return the records that settings ask for.

    Raises:
        DataError: If the file is not there, or torn.
        ConfigError: If there are none.
    """
    path = Path(config.results)
    if not path.is_file():
        raise DataError(
            "there is no file of records", where=path, remedy="`eofm bench TASK --out FILE` writes"
        )
    records, asked = read_results(path), task_filter(config.task)
    found = [
        r
        for r in records
        if asked(r.task)
        and config.probe in {"", r.kind}
        and (config.nonstandard or not is_nonstandard(r))
    ]
    if not found:
        raise ConfigError(
            "no record is what was asked for",
            found=f"{len(records)} records, {sum(map(is_nonstandard, records))} of them forced or "
            "nonstandard",
            where=path,
            remedy="leave --task and --probe out, or add --nonstandard true",
        )
    return found


def print_table(config: TableConfig | ExportConfig) -> Text:
    """Return the tables of a file of records.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If the file is not there, or torn.
        ConfigError: If no record is what was asked for.
    """
    found = chosen(config)
    return Text("\n\n".join(part for part in (table(found), hidden(config)) if part))


def to_csv(results: Sequence[Result]) -> str:
    """Return one line per record, for other programs."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            *("task", "version", "split", "subset", "model", "control", "probe", "metric"),
            *("value", "low", "high", "n_train", "n_val", "n_test", "strength", "rank", "flags"),
            *("labels", "draw", "size", "of", "parameters", "trained_on"),
            *("waivers", "weights_sha256", "plan_sha256", "ids_sha256", "utc", "git", "key"),
        ]
    )
    for r in results:
        writer.writerow(
            [
                *(r.task, r.version, r.sample.split, not r.sample.complete, r.model.name),
                *(r.model.control, r.probe, r.metric, r.value, r.interval.low, r.interval.high),
                *(r.sample.n_train, r.sample.n_val, r.sample.n_test, r.strength, r.rank),
                "; ".join(r.flags),
                *(r.sample.labels or "all", r.sample.draw, r.model.size, r.of, r.parameters),
                r.model.trained_on,
                *("; ".join(r.model.waivers), r.model.weights_sha256),
                *(r.model.plan_sha256, r.sample.ids_sha256, r.made.utc, r.made.git, r.key),
            ]
        )
    return buffer.getvalue()


# -------------------------------------------------------------------------------- figures


def draw_figures(config: ExportConfig) -> dict[str, bytes]:
    """Return PNG files by name: per-class bars and a matrix for each task, split and probe; curves.

    Curves over the input size are drawn whether or not nonstandard rows are asked for: they are
    made of little else, and mark the model's own size.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If records or predictions cannot be read, or do not fit one another.
        ConfigError: If no record is what was asked for.
    """
    groups: dict[tuple[str, str, str], dict[str, Result]] = {}
    found = chosen(config)
    for result in found:
        plain = result.predictions and not result.sample.labels and not result.of
        if plain and result.kind != SEGMENTATION:
            place = result.task, result.sample.ids_sha256, result.kind
            groups.setdefault(place, {}).setdefault(result.model.name, result)
    figures = {}
    for (task, ids, kind), rows in groups.items():
        stem = re.sub(r"[^\w.-]+", "_", f"{task}-{ids[:8]}-{kind}")
        kept = {n: predictions_of(r, Path(config.results)) for n, r in rows.items()}
        title = f"{task}, split {next(iter(rows.values())).sample.split}, {kind}"
        figures[f"{stem}-classes"] = class_bars(title, kept, config)
        name, best = _best(rows, kept)
        figures[f"{stem}-matrix"] = class_matrix(f"{title}: {name}", best)
    return {
        **figures,
        **curve_figures(label_curves(found)),
        **curve_figures(size_curves(_asked(config))),
    }


def _best(rows: Mapping[str, Result], kept: Mapping[str, Predictions]) -> tuple[str, Predictions]:
    """Return the model with the highest score that is no control, if there is one."""
    name = max(rows, key=lambda n: (not rows[n].model.control, rows[n].value))
    return name, kept[name]


def plot(config: ExportConfig) -> Text:
    """Write the figures of a file of records.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If records or predictions cannot be read, or figures cannot be written.
        ConfigError: If no record is what was asked for.
    """
    figures = draw_figures(config)
    files = {f"{name}.png": content for name, content in figures.items()}
    return _write(config, files)


# --------------------------------------------------------------------------------- export


def export(config: ExportConfig) -> Text:
    """Write records as `results.md`, `results.csv` and `index.html`, which holds its figures.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If records or predictions cannot be read, or files cannot be written.
        ConfigError: If no record is what was asked for.
    """
    found = chosen(config)
    figures = draw_figures(config)
    files = {
        "results.md": print_table(config).text.encode() + b"\n",
        "results.csv": to_csv(found).encode(),
        "index.html": _page(found, figures, hidden(config)).encode(),
    }
    return _write(config, files)


def _write(config: ExportConfig, files: Mapping[str, bytes]) -> Text:
    folder = Path(config.out) if config.out else Path(config.results).with_suffix("")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise DataError(
            "these files cannot be written", found=error, where=folder, remedy="name another --out"
        ) from error
    lines = [str(folder / name) for name in files]
    return Text("\n".join([*lines, *([hidden(config)] if hidden(config) else [])]))


_STYLE: Final = (
    "body{font:14px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .6rem;border-bottom:"
    "1px solid #ddd;text-align:left}tr.control{color:#777}.flag{color:#b00}img{max-width:100%}"
)


def _page(results: Sequence[Result], figures: Mapping[str, bytes], left_out: str) -> str:
    metrics = dict.fromkeys(result.metric for result in results)
    words = "".join(
        f"<li><code>{m}</code>: {html.escape(METRIC_WORDS[Metric(m)])}</li>" for m in metrics
    )
    pictures = "".join(
        f'<h3>{html.escape(name)}</h3><img alt="{html.escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        for name, content in figures.items()
    )
    plain = [r for r in results if not r.sample.labels and not r.of]
    note = f"<p>{html.escape(left_out)}</p>" if left_out else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>eofm bench</title>'
        f"<style>{_STYLE}</style><h1>Benchmark</h1>"
        f"{''.join(map(_html_table, by_sample(plain)))}{note}<h2>Metrics</h2><ul>{words}</ul>"
        f"{pictures}"
        "</html>\n"
    )


def _html_table(results: Sequence[Result]) -> str:
    sample = results[0].sample
    title = (
        f"{results[0].task} version {results[0].version}, split {sample.split}: {sample.n_train} "
        f"train, {sample.n_val} val, {sample.n_test} test"
    )
    remark = "" if sample.complete else "<p><b>A subset:</b> not comparable with published scores."
    rows = "".join(
        f"<tr{' class=control' if r.model.control else ''}><td>{html.escape(r.model.name)}</td>"
        f"<td><code>{html.escape(r.probe)}</code></td><td>{r.metric}</td>"
        f"<td>{100 * r.value:.1f}</td>"
        f"<td>{100 * r.interval.low:.1f} – {100 * r.interval.high:.1f}</td>"
        f'<td class="flag">{html.escape("; ".join([*r.flags, *r.model.waivers]))}</td></tr>'
        for r in results
    )
    return (
        f"<h2>{html.escape(title)}</h2>{remark}<table><tr><th>model<th>probe<th>metric<th>%"
        f"<th>95 % interval<th>flags and waivers</tr>{rows}</table>"
    )
