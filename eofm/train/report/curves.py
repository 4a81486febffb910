"""What a run wrote down, read back, and its numbers as panels of curves with titles.

A run can be read while it trains, after it died, or of another version: nothing is demanded but the
settings, and whatever else is missing is left out of the page.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from eofm.errors import DataError
from eofm.formats.text import read_json, read_yaml
from eofm.report.plots import LinePanel, StepCurve
from eofm.train.monitor.loggers import NOT_A_VALUE
from eofm.train.monitor.run_log import (
    EVALUATIONS,
    FAILURE,
    MONITOR_PREFIX,
    STEPS,
    THROUGHPUT,
    read_rows,
)
from eofm.train.run_folder import RunFolder


@dataclass(frozen=True)
class RunRecord:
    """A run as it is written down.

    Args:
        folder: Of the run.
        config: Settings by group and key.
        environment: Versions, command, machine; empty if it did not get so far.
        steps: What the method logged, by name: steps and values.
        evaluations: What was measured on held-out scenes, likewise.
        throughput: What the time was spent on, likewise.
        results: Of the end; empty before it.
        failure: Why it ended too soon; empty if it did not.
        finished: The run is complete.
        quiet: Seconds since the last step was written.
    """

    folder: RunFolder
    config: dict[str, dict[str, Any]]
    environment: dict[str, Any]
    steps: dict[str, StepCurve]
    evaluations: dict[str, StepCurve]
    throughput: dict[str, StepCurve]
    results: dict[str, Any]
    failure: dict[str, Any]
    finished: bool
    quiet: float

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.path.resolve().name

    @property
    def last_step(self) -> int:
        """Steps written down."""
        return int(self.steps["loss"][0][-1]) if "loss" in self.steps else 0

    @property
    def state(self) -> str:
        """Whether it is done, in words."""
        if self.finished:
            return f"finished, {self.last_step} steps"
        if self.failure:
            return f"ended at step {self.failure.get('step')}: {self.failure.get('problem')}"
        if not self.last_step:
            return "has not taken a step yet"
        return f"not finished; step {self.last_step} was written {_ago(self.quiet)} ago"

    def setting(self, group: str, key: str, default: object = None) -> Any:  # noqa: ANN401
        """Return a setting; a run of another version may not have it."""
        return self.config.get(group, {}).get(key, default)

    def text(self, name: str) -> str:
        """Return the content of a text file of the run, or nothing."""
        file = self.folder.path / name
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def read_record(path: Path) -> RunRecord:
    """Read the folder of a run.

    Raises:
        DataError: If it is none.
    """
    folder = RunFolder(path)
    config = read_yaml(
        folder.config,
        DataError,
        "this is not the folder of a run",
        remedy="name what `eofm pretrain` wrote: runs/<name>",
    )
    if not isinstance(config, dict) or not all(isinstance(v, dict) for v in config.values()):
        raise DataError("these are not the settings of a run", where=folder.config)
    steps, quiet = path / STEPS, 0.0
    if steps.is_file():
        quiet = max(time.time() - steps.stat().st_mtime, 0.0)
    return RunRecord(
        folder=folder,
        config=config,
        environment=_json(path / "environment.json"),
        steps=read_curves(steps),
        evaluations=read_curves(path / EVALUATIONS),
        throughput=read_curves(path / THROUGHPUT),
        results=_json(path / "results.json"),
        failure=_json(path / FAILURE),
        finished=folder.done.is_file(),
        quiet=quiet,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


def read_curves(path: Path) -> dict[str, StepCurve]:
    """Return each logged number of a file as steps and values; none if there is no such file.

    Args:
        path: metrics.jsonl, monitor.jsonl or pace.jsonl.
    """
    columns: dict[str, list[tuple[float, float]]] = {}
    for row in read_rows(path):
        for name, value in row.items():
            if name not in NOT_A_VALUE:
                columns.setdefault(name, []).append((float(row["step"]), float(value)))
    return {name: _curve(points) for name, points in columns.items()}


def _curve(points: list[tuple[float, float]]) -> StepCurve:
    steps, values = np.array(points, dtype=np.float64).T
    return steps, values


def _ago(seconds: float) -> str:
    for size, word in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} seconds"


Curves = Mapping[str, StepCurve]

# Of what a run logs, as titles; a measure is the same before and after training.
TITLES: Final[Mapping[str, str]] = {
    "loss": "Loss",
    "own_probability": "Probability of the own image",
    "lr": "Learning rate",
    "momentum": "Momentum of the teacher",
    "knn": "kNN, average precision, macro",
    "linear": "Linear probe, average precision, macro",
    "effective_rank": "Effective rank: directions in use (arXiv 2210.02885)",
    "within_class_rank": "Effective rank within a class, mean over classes",
    "embedding_std": "Spread (1 fills the sphere, 0 is one point)",
    "alignment": "Alignment: distance of two views (arXiv 2005.10242)",
    "uniformity": "Uniformity: lower is more even (arXiv 2005.10242)",
    "label_correlation": "Rank correlation of cosine and label similarity",
}
_TERMS: Final[Mapping[str, str]] = {
    "hard": "hard term",
    "soft": "soft term",
    "soft_excess": "soft term above its floor",
}
_FIRST: Final = frozenset({"loss", *_TERMS, "own_probability", "embedding_std", "lr", "momentum"})
_SCORES: Final[Mapping[str, str]] = {"knn": "kNN", "linear": "linear probe"}
_MEASURES: Final = (
    *("embedding_std", "effective_rank", "within_class_rank"),
    *("alignment", "uniformity", "label_correlation"),
)


def title_of(name: str) -> str:
    """Return the title of a logged number; its own name if it has none.

    Args:
        name: As in metrics.csv or monitor.csv: `loss`, `monitor/knn`, `monitor/before/knn`.
    """
    rest = name.removeprefix(MONITOR_PREFIX)
    plain = rest.removeprefix("before/")
    title = TITLES.get(plain, plain)
    return title if plain == rest else f"{title}: the data of the stage before"


def training_panels(steps: Curves, *, columns: int | None, collapse: float) -> list[LinePanel]:
    """Return panels of what the method logged at every step.

    Args:
        steps: By name.
        columns: Candidates among which the own image is found: batch and queue; None if unknown.
        collapse: Spread below which the run counts as collapsed.
    """
    made = [LinePanel("Loss", _chosen(steps, ["loss"]))]
    if any(name in steps for name in _TERMS):
        terms = {words: steps[name] for name, words in _TERMS.items() if name in steps}
        made.append(LinePanel("Terms of the loss", terms))
    if "own_probability" in steps:
        chance = {f"1 / {columns}, by chance": 1 / columns} if columns else {}
        own = _chosen(steps, ["own_probability"])
        made.append(LinePanel("Probability of the own image", own, marks=chance))
    if "embedding_std" in steps:
        spread = _chosen(steps, ["embedding_std"])
        title = "Spread of the projected embedding (1 fills the sphere)"
        made.append(LinePanel(title, spread, marks={"collapse": collapse}, zero=True))
    schedules = _schedules(steps)
    if schedules:
        made.append(LinePanel("Schedules, over their largest value", schedules))
    return made + [LinePanel(title_of(name), _chosen(steps, [name])) for name in _others(steps)]


def constants(steps: Curves) -> str:
    """Return the logged numbers that never changed, in words; nothing without any."""
    same = [n for n, (_, y) in steps.items() if n not in _FIRST and np.ptp(y) == 0]
    return ", ".join(f"{name} {steps[name][1][0]:.4g}" for name in same)


def _others(steps: Curves) -> list[str]:
    return [name for name, (_, y) in steps.items() if name not in _FIRST and np.ptp(y) > 0]


def _chosen(curves: Curves, names: Sequence[str]) -> dict[str, StepCurve]:
    return {name: curves[name] for name in names if name in curves}


def _schedules(steps: Curves) -> dict[str, StepCurve]:
    shown = {}
    if "lr" in steps:
        shown["learning rate"] = steps["lr"]
    if "momentum" in steps:
        shown["1 - momentum"] = (steps["momentum"][0], 1 - steps["momentum"][1])
    return {
        f"{name}, at most {np.abs(y).max():.3g}": (x, y / (np.abs(y).max() or 1))
        for name, (x, y) in shown.items()
    }


def evaluation_panels(evaluations: Curves) -> list[LinePanel]:
    """Return panels of what was measured on held-out scenes while a run trained.

    Args:
        evaluations: By name, as in monitor.csv.
    """
    known = {name.removeprefix(MONITOR_PREFIX): curve for name, curve in evaluations.items()}
    known = {name: curve for name, curve in known.items() if np.isfinite(curve[1]).any()}
    scores = {
        words + suffix: (known[prefix + name][0], 100 * known[prefix + name][1])
        for prefix, suffix in (("", ""), ("before/", ", the data before"))
        for name, words in _SCORES.items()
        if prefix + name in known
    }
    made = [LinePanel("Average precision x 100, macro", scores)] if scores else []
    for name in _MEASURES:
        same = _chosen(known, [name, f"before/{name}"])
        if same:
            made.append(
                LinePanel(TITLES[name], same, zero=name in {"effective_rank", "embedding_std"})
            )
    return made


def collapse_panels(evaluations: Curves) -> list[LinePanel]:
    """Return the panels in which a collapse shows: spread and effective rank of the encoder.

    Args:
        evaluations: By name, as in monitor.csv.
    """
    made = []
    for name, title in (
        ("embedding_std", "Spread of the encoder's embedding, held-out scenes (0 is collapse)"),
        ("effective_rank", "Effective rank of the encoder's embedding, held-out scenes"),
    ):
        curve = evaluations.get(f"{MONITOR_PREFIX}{name}")
        if curve is not None and np.isfinite(curve[1]).any():
            made.append(LinePanel(title, {name: curve}, zero=True))
    return made


def throughput_panels(throughput: Curves) -> list[LinePanel]:
    """Return panels of what the time was spent on.

    Args:
        throughput: By name, as in pace.csv.
    """
    if "pace/seconds" not in throughput:
        return []
    steps, seconds = throughput["pace/seconds"]
    rate = (steps, throughput["pace/scenes"][1] / seconds)
    shares = {
        "waiting for data": (steps, throughput["pace/waited"][1] / seconds),
        "evaluating held-out scenes": (steps, throughput["pace/watching"][1] / seconds),
    }
    return [
        LinePanel("Scenes per second", {"rate": rate}, zero=True),
        LinePanel("Share of the time", shares, zero=True),
    ]


def overlaid(names: Sequence[str], tables: Sequence[Curves]) -> list[LinePanel]:
    """Return a panel per logged number with the curves of several runs.

    Args:
        names: Of the runs, all different.
        tables: What each logged, by name.
    """
    columns = dict.fromkeys(name for table in tables for name in table)
    return [
        LinePanel(
            title_of(column),
            {n: table[column] for n, table in zip(names, tables, strict=True) if column in table},
        )
        for column in columns
    ]
