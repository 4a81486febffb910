"""What a run wrote down, read back: also while it trains, after it died, or of another version.

Nothing is demanded but the settings: whatever else is missing is left out of the page.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from eofm.errors import DataError
from eofm.report.plots import StepCurve
from eofm.train.folder import RunFolder
from eofm.train.monitoring.journal import FAILURE, LOOKS, PACE
from eofm.train.monitoring.rows import read_rows

_NO_VALUE: Final = frozenset({"step", "epoch"})


@dataclass(frozen=True)
class RunRecord:
    """A run as it is written down.

    Args:
        folder: Of the run.
        config: Settings by group and key.
        environment: Versions, command, machine; empty if it did not get so far.
        steps: What the method logged, by name: steps and values.
        looks: What was measured on held-out scenes, likewise.
        pace: What the time was spent on, likewise.
        results: Of the end; empty before it.
        failure: Why it ended too soon; empty if it did not.
        finished: The run is complete.
        quiet: Seconds since the last step was written.
    """

    folder: RunFolder
    config: dict[str, dict[str, Any]]
    environment: dict[str, Any]
    steps: dict[str, StepCurve]
    looks: dict[str, StepCurve]
    pace: dict[str, StepCurve]
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
        return file.read_text(encoding="utf-8") if file.is_file() else ""


def read_record(path: Path) -> RunRecord:
    """Read the folder of a run.

    Raises:
        DataError: If it is none.
    """
    folder = RunFolder(path)
    try:
        config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(
            "this is not the folder of a run",
            found=f"no readable config.yaml in {path}",
            remedy="name what `eofm pretrain` wrote: runs/<name>",
        ) from error
    if not isinstance(config, dict) or not all(isinstance(v, dict) for v in config.values()):
        raise DataError("these are not the settings of a run", where=folder.config)
    quiet = 0.0
    if folder.metrics.is_file():
        quiet = max(time.time() - folder.metrics.stat().st_mtime, 0.0)
    return RunRecord(
        folder=folder,
        config=config,
        environment=_json(path / "environment.json"),
        steps=read_curves(folder.metrics),
        looks=read_curves(path / LOOKS),
        pace=read_curves(path / PACE),
        results=_json(path / "results.json"),
        failure=_json(path / FAILURE),
        finished=folder.done.is_file(),
        quiet=quiet,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
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
            if name not in _NO_VALUE:
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
