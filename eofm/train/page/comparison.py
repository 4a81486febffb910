"""Several runs beside one another: their ends, the settings that differ, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from eofm.train.config import PretrainConfig
from eofm.train.page import charts, markup
from eofm.train.page.record import Curve, Record


def settings_table(records: Sequence[Record]) -> str:
    """Return the settings that are not the defaults, or in which runs differ."""
    default: dict[str, dict[str, Any]] = {
        group: dict(values) for group, values in asdict(PretrainConfig()).items()
    }
    keys = {(g, k): None for r in records for g, values in r.config.items() for k in values}
    rows = []
    for group, key in keys:
        if (group, key) == ("run", "out"):
            continue
        values = [r.setting(group, key) for r in records]
        usual = _plain(default.get(group, {}).get(key))
        differ = any(value != values[0] for value in values)
        if differ or (len(records) == 1 and _plain(values[0]) != usual):
            rows.append([f"{group}.{key}", *map(str, values), "" if usual is None else str(usual)])
    if not rows:
        return "<p>All settings are the defaults.</p>"
    heads = ["setting", *(r.name if len(records) > 1 else "this run" for r in records), "default"]
    return markup.table(heads, rows)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def comparison_of(records: Sequence[Record]) -> list[str]:
    """Return the parts of a page that compares runs."""
    rows = []
    for record in records:
        scores = {score["name"]: score for score in record.results.get("scores", [])}
        student = scores.get("student", {})
        looks = [record.looks.get(f"monitor/{name}") for name in ("knn", "linear")]
        rows.append(
            [
                record.name,
                record.state,
                *(f"{100 * student[k]:.1f}" if k in student else "" for k in _FINAL),
                *("" if curve is None else f"{100 * curve[1][-1]:.1f}" for curve in looks),
            ]
        )
    heads = ["run", "state", "linear, macro", "kNN, macro", "kNN, last look", "linear, last look"]
    names = _unique([record.name for record in records])
    step_names = dict.fromkeys(n for r in records for n in r.steps)
    look_names = dict.fromkeys(n for r in records for n in r.looks)
    return [
        "<h1>Comparison</h1>",
        markup.section(
            "Runs", markup.table(heads, rows),
            markup.note("Average precision x 100 of the student on held-out scenes."),
        ),
        markup.section("Settings in which they differ", settings_table(records)),
        markup.section("Held-out scenes, while they trained", _overlaid(
            names, [r.looks for r in records], list(look_names))),
        markup.section("Training", _overlaid(names, [r.steps for r in records], list(step_names))),
    ]  # fmt: skip


_FINAL: Final = ("ap_macro", "knn_macro")


def _unique(names: Sequence[str]) -> list[str]:
    """Return names that tell the runs apart even where their folders are called the same."""
    return [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]


def _overlaid(
    names: Sequence[str], tables: Sequence[Mapping[str, Curve]], columns: Sequence[str]
) -> str:
    made = [
        f"<figure>{charts.chart(charts.title_of(column), curves)}</figure>"
        for column in columns
        if (curves := {n: t[column] for n, t in zip(names, tables, strict=True) if column in t})
    ]
    return f'<div class="charts">{"".join(made)}</div>' if made else ""
