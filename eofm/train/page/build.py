"""The page, from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from eofm.errors import DataError
from eofm.io import replacing
from eofm.method import LabelSimilarity
from eofm.train.config.report import ReportConfig
from eofm.train.monitoring.pace import clock
from eofm.train.monitoring.stability import Gap, stability_gap
from eofm.train.page import charts, markup, pictures
from eofm.train.page.comparison import comparison_of, settings_table
from eofm.train.page.record import Curve, Record, read_record
from eofm.train.page.scenes import find_encoders, find_scenes

_TERMS: Final = ("hard", "soft", "soft_excess")
_FIRST: Final = frozenset({"loss", *_TERMS, "own_probability", "embedding_std", "lr", "momentum"})


@dataclass(frozen=True)
class Page:
    """What was written.

    Args:
        path: The HTML file.
        states: Name of each run and whether it is done.
    """

    path: Path
    states: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """Return the file, and a line for each run."""
        return "\n".join([*(f"{name}: {state}" for name, state in self.states), str(self.path)])


def report(config: ReportConfig) -> Page:
    """Write one page about one run, or one that compares several.

    Raises:
        DataError: If a folder is not that of a run, or the page cannot be written.
    """
    records = [read_record(Path(run)) for run in config.runs]
    if len(records) == 1:
        title, body, name = records[0].name, page_of(records[0], config), "report.html"
    else:
        title, body, name = "comparison", comparison_of(records), "comparison.html"
    path = Path(config.out) if config.out else records[0].folder.path / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(markup.document(title, body), encoding="utf-8")
    except OSError as error:
        raise DataError(
            "the page cannot be written", found=error, where=path, remedy="name another --out"
        ) from error
    return Page(path, tuple((record.name, record.state) for record in records))


# ------------------------------------------------------------------------------------ one run


def page_of(record: Record, config: ReportConfig) -> list[str]:
    """Return the parts of the page about one run."""
    return [
        _head(record),
        markup.section("Result", _result(record)),
        markup.section("Training", _training(record)),
        markup.section("Held-out scenes, while it trained", _looks(record)),
        markup.section("Stability gap", _stability(record)),
        *_seen(record, config),
        markup.section("Pace", _pace(record)),
        markup.section("Settings", settings_table([record]), _texts(record)),
    ]


def _head(record: Record) -> str:
    kind = "" if record.finished else " warn" if record.failure else ""
    kind = " good" if record.finished else kind
    parts = [
        f"<h1>{markup.escape(record.name)}</h1>",
        f'<p class="state{kind}">{markup.escape(record.state)}</p>',
    ]
    if record.failure and not record.finished:
        parts.append(f"<pre>{markup.escape(record.failure['text'])}</pre>")
    if record.results.get("synthetic"):
        parts.append("<p><b>Synthetic scenes</b>: invented ground, nothing was observed.</p>")
    started = record.environment.get("started", "")
    parts.append(
        markup.note(
            f"{record.setting('model', 'architecture')}, objective "
            f"{record.setting('method', 'objective', 'softcon')}, started {started}, on "
            f"{record.environment.get('device', 'an unknown device')}"
        )
    )
    parts.append(markup.tiles(_tiles(record)))
    return "".join(parts)


def _tiles(record: Record) -> list[tuple[str, str]]:
    made = [("steps", f"{record.last_step:,}")]
    pace = record.pace
    if "pace/seconds" in pace:
        seconds = float(pace["pace/seconds"][1].sum())
        made.append(("of training", clock(seconds)))
        made.append(("scenes per second", f"{pace['pace/scenes'][1].sum() / seconds:.0f}"))
        made.append(("waiting for data", f"{pace['pace/waited'][1].sum() / seconds:.1%}"))
        made.append(("looking at held-out scenes", _share(pace["pace/watching"][1], seconds)))
    if "pace/gpu_gib" in pace:
        made.append(("most GPU memory", f"{pace['pace/gpu_gib'][1].max():.1f} GiB"))
    for name, words in (("knn", "kNN now"), ("linear", "linear now")):
        curve = record.looks.get(f"monitor/{name}")
        if curve is not None:
            made.append((f"{words} (from {100 * curve[1][0]:.1f})", f"{100 * curve[1][-1]:.1f}"))
    return made


def _share(values: np.ndarray, seconds: float) -> str:
    return f"{values.sum() / seconds:.1%}"


def _result(record: Record) -> str:
    results = record.results
    if not results:
        return ""
    if results.get("probe_failed"):
        return f"<p>No linear probe: {markup.escape(results['probe_failed'])}.</p>"
    scores, sure = results["scores"], results.get("intervals") or []
    rows = []
    for i, score in enumerate(scores):
        extra = sure[i] if i < len(sure) else {}
        rows.append(
            [
                score["name"],
                _points(score["ap_macro"], extra.get("linear")),
                _gain(score["ap_macro"], scores[0]["ap_macro"], extra.get("linear_gain")),
                _points(score["knn_macro"], extra.get("knn")),
                _gain(score["knn_macro"], scores[0]["knn_macro"], extra.get("knn_gain")),
                f"{100 * score['ap_micro']:.1f}",
                f"{100 * score['knn_micro']:.1f}",
            ]
        )
    heads = [
        "encoder",
        "linear, macro",
        "gain",
        "kNN, macro",
        "gain",
        "linear, micro",
        "kNN, micro",
    ]
    words = (
        f"Average precision x 100 of frozen embeddings on {results['held_out_scenes']} held-out "
        "scenes. In brackets 95 % intervals over held-out locations (the seasons of a place are "
        "resampled together), of gains paired; they know nothing of other training seeds."
    )
    chart = charts.bars(
        "Linear probe by class, average precision x 100",
        results["classes"],
        {score["name"]: score["per_class"] for score in scores},
    )
    return markup.note(words) + markup.table(heads, rows) + f'<div class="wide">{chart}</div>'


def _points(value: float, interval: Mapping[str, float] | None) -> str:
    if not interval:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _gain(value: float, start: float, interval: Mapping[str, float] | None) -> str:
    if not interval:
        return ""
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * (value - start):+.1f} [{low:+.1f}, {high:+.1f}]"


def _training(record: Record) -> str:
    steps = record.steps
    if not steps:
        return ""
    made = [_panel("Loss", steps, ["loss"])]
    terms = [name for name in _TERMS if name in steps]
    if terms:
        made.append(_panel("Terms of the loss", steps, terms))
    if "own_probability" in steps:
        columns = int(record.setting("optim", "batch")) + int(record.setting("method", "queue", 0))
        chance = {"1 / N": 1 / columns}
        made.append(
            _panel("Probability of the own image", steps, ["own_probability"], marks=chance)
        )
    if "embedding_std" in steps:
        floor = {"collapse": float(record.setting("monitor", "collapse_std", 0.0))}
        made.append(
            _panel("Spread of the embedding (1 fills the sphere)", steps, ["embedding_std"],
                   marks=floor, zero=True)
        )  # fmt: skip
    made.append(_schedules(steps))
    rest = [name for name in steps if name not in _FIRST and np.ptp(steps[name][1]) > 0]
    made += [_panel(name, steps, [name]) for name in rest]
    constant = [f"{name} {steps[name][1][0]:.4g}" for name in steps
                if name not in _FIRST and np.ptp(steps[name][1]) == 0]  # fmt: skip
    words = f"Constant: {', '.join(constant)}." if constant else ""
    return f'<div class="charts">{"".join(made)}</div>' + (markup.note(words) if words else "")


def _panel(
    title: str,
    curves: Mapping[str, Curve],
    names: Sequence[str],
    *,
    marks: Mapping[str, float] | None = None,
    zero: bool = False,
) -> str:
    chosen = {name: curves[name] for name in names if name in curves}
    return f"<figure>{charts.chart(title, chosen, marks=marks, zero=zero)}</figure>"


def _schedules(steps: Mapping[str, Curve]) -> str:
    shown = {}
    if "lr" in steps:
        shown["learning rate"] = steps["lr"]
    if "momentum" in steps:
        shown["1 - momentum"] = (steps["momentum"][0], 1 - steps["momentum"][1])
    relative = {
        f"{name}, at most {np.abs(y).max():.3g}": (x, y / (np.abs(y).max() or 1))
        for name, (x, y) in shown.items()
    }
    if not relative:
        return ""
    return f"<figure>{charts.chart('Schedules, over their largest value', relative)}</figure>"


def _looks(record: Record) -> str:
    looks = {name.removeprefix("monitor/"): curve for name, curve in record.looks.items()}
    looks = {name: curve for name, curve in looks.items() if np.isfinite(curve[1]).any()}
    if not looks:
        return ""
    made = []
    scores = {n: (x, 100 * y) for n, (x, y) in looks.items() if n.split("/")[-1] in _SCORES}
    if scores:
        made.append(_panel("Average precision x 100, macro", scores, list(scores)))
    for name in _MEASURES:
        same = [n for n in (name, f"before/{name}") if n in looks]
        if same:
            made.append(_panel(charts.TITLES[name], looks, same))
    branch = record.setting("monitor", "branch", "student")
    words = (
        f"The {branch}'s embeddings of a few scenes of held-out places: of {2 * _scenes(record)} "
        "at most, so the scores are rougher than those of the result."
    )
    return markup.note(words) + f'<div class="charts">{"".join(made)}</div>'


_SCORES: Final = frozenset({"knn", "linear"})
_MEASURES: Final = (
    "effective_rank",
    "embedding_std",
    "alignment",
    "uniformity",
    "label_correlation",
)


def _scenes(record: Record) -> int:
    return int(record.setting("monitor", "scenes", 0))


def _stability(record: Record) -> str:
    """Say how deep a score fell at first; nothing where nobody looked closely."""
    if not record.setting("monitor", "dense", 0):
        return ""
    made, words = {}, []
    for name, label in (("knn", "held-out scenes"), ("before/knn", "scenes of the store before")):
        curve = record.looks.get(f"monitor/{name}")
        gap = None if curve is None else gap_of(curve)
        if curve is not None and gap is not None:
            made[label] = (curve[0], 100 * curve[1])
            words.append(f"{label}: {gap.describe()}")
    if not made:
        return ""
    first = next(iter(made.values()))[1][0]
    drawn = charts.chart(
        "kNN, average precision x 100", made, marks={"at the start": float(first)}, symlog=True
    )
    return f"<p>{markup.escape('; '.join(words))}.</p><div class='charts'>{drawn}</div>"


def gap_of(curve: Curve) -> Gap | None:
    """Return the stability gap of a curve."""
    return stability_gap([int(step) for step in curve[0]], curve[1].tolist())


def _seen(record: Record, config: ReportConfig) -> list[str]:
    """Return the sections with pictures, or why there are none."""
    encoders = find_encoders(record)
    scenes = find_scenes(record, config.store, config.scenes)
    if isinstance(scenes, str) or not encoders:
        why = scenes if isinstance(scenes, str) else "there is no encoder yet"
        return [markup.section("What it sees", markup.note(f"No pictures: {why}."))]
    kind = LabelSimilarity(record.setting("method", "similarity", "cosine"))
    name = next((n for n in encoders if n.startswith("student")), next(iter(encoders)))
    return [
        markup.section("What it sees: patches", pictures.patches(encoders, scenes)),
        markup.section("Nearest neighbours", pictures.neighbours(name, encoders[name], scenes)),
        markup.section("Similarity of labels and of embeddings",
                       pictures.matrices(encoders, scenes, kind)),
    ]  # fmt: skip


def _pace(record: Record) -> str:
    pace = record.pace
    if "pace/seconds" not in pace:
        return ""
    steps, seconds = pace["pace/seconds"]
    rate = (steps, pace["pace/scenes"][1] / seconds)
    shares = {
        "waiting for data": (steps, pace["pace/waited"][1] / seconds),
        "looking at held-out scenes": (steps, pace["pace/watching"][1] / seconds),
    }
    parts = (
        charts.chart("Scenes per second", {"rate": rate}, zero=True),
        charts.chart("Share of the time", shares, zero=True),
    )
    return f'<div class="charts">{"".join(f"<figure>{part}</figure>" for part in parts)}</div>'


def _texts(record: Record) -> str:
    return "".join(
        markup.folded(title, text)
        for title, text in (
            ("preprocessing, step by step", record.text("plan.txt")),
            ("where the weights come from", record.text("weights.txt")),
            ("environment", record.text("environment.json")),
            ("all settings (config.yaml)", record.text("config.yaml")),
        )
    )
