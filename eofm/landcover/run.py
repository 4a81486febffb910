"""`eofm labels`: find maps and scenes, count them in batches, put the batches together."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

import eofm
from eofm.errors import ConfigError, LabelError
from eofm.landcover.config import LabelsConfig
from eofm.landcover.dates import DatePattern
from eofm.landcover.figure import save_figure
from eofm.landcover.jobs import Job, Scene, scene_jobs, window_jobs
from eofm.landcover.maps import Catalogue, find_maps
from eofm.landcover.output import LabelOutput
from eofm.landcover.report import LabelReport, summarise
from eofm.landcover.scenes import SceneOptions, find_scenes
from eofm.landcover.scheme_file import find_scheme
from eofm.landcover.table import FORMAT, VERSION, Reason, Rule, schema
from eofm.landcover.workers import run_jobs
from eofm.progress import track

# Settings that change how the work is done, not what comes of it.
_HOW: Final = {"out", "workers", "dask", "batch", "resume"}


def write_labels(config: LabelsConfig) -> LabelReport:
    """Label windows of maps, or scenes, and write a table: see `eofm.landcover.table`.

    Args:
        config: What to label, from what, and how. In a script that sets `workers` above 1, call
            it below `if __name__ == "__main__":`, as for any process pool.

    Returns:
        What the table holds.

    Raises:
        ConfigError: If settings do not fit one another, or something is at `out` already.
        LabelError: If there are no maps or scenes, no map overlaps any scene, a map holds unknown
            codes, or the table cannot be written.
        RasterError: If a map or a scene cannot be read.
    """
    began = time.monotonic()
    scheme = find_scheme(config.scheme)
    rule = Rule(scheme, config.threshold, config.min_valid, config.empty == "keep")
    dates = DatePattern(config.dates) if config.dates else None
    maps = find_maps(config.maps, dates, config.asset)
    scenes = _scenes(config)
    jobs = _jobs(config, maps, scenes, rule)
    run = {
        "settings": _settings(config),
        "scheme": scheme.digest,
        "scenes": _digest([[s.id, s.grid.bounds, s.date] for s in scenes]),
    }
    about = {
        "format": FORMAT,
        "version": VERSION,
        "classes": list(scheme.names),
        "scheme": {**scheme.plain(), "digest": scheme.digest},
        "threshold": config.threshold,
        "min_valid": config.min_valid,
        "command": _command(config),
        "eofm": eofm.__version__,
        "run": run,
    }
    whole = {**run, "maps": _digest(maps.stamp), "batches": len(jobs), "eofm": eofm.__version__}
    done = 0
    with LabelOutput(
        Path(config.out), whole, about, schema(len(scheme.names)), len(jobs), resume=config.resume
    ) as output:
        if not output.complete:
            done = _work(config, jobs, output)
            if scenes:
                _require_overlap(output, maps, config)
            output.finish()
    report = summarise(config.out, done, time.monotonic() - began, _uncovered(config, maps))
    save_figure(report)
    return report


def _scenes(config: LabelsConfig) -> list[Scene]:
    if config.scenes is None:
        return []
    dates = DatePattern(config.scene_dates) if config.scene_dates else None
    return find_scenes(config.scenes, SceneOptions(config.gsd, config.scene_crs, dates))


def _jobs(
    config: LabelsConfig, maps: Catalogue, scenes: Sequence[Scene], rule: Rule
) -> Sequence[Job]:
    if config.window is None:
        _check_dates(config, maps, scenes)
        return scene_jobs(scenes, maps, rule, config.max_gap_days, config.batch)
    for entry in maps.maps:
        if config.window > min(entry.grid.height, entry.grid.width):
            raise ConfigError(
                "a map is smaller than the window",
                found=f"{entry.grid.height} x {entry.grid.width} pixels",
                expected=f"at least {config.window} x {config.window} (window)",
                where=entry.file,
                remedy="choose a smaller --window, or --scenes",
            )
    return window_jobs(maps, config.window, config.stride or config.window, rule, config.batch)


def _check_dates(config: LabelsConfig, maps: Catalogue, scenes: Sequence[Scene]) -> None:
    """Refuse dates that are needed and not there, or there and not heeded."""
    dated = {entry.date for entry in maps.maps if entry.period is not None}
    if config.max_gap_days is None:
        if len(dated) > 1:
            raise ConfigError(
                "the maps are of several dates; which one shall label a scene?",
                found=", ".join(sorted(dated)[:5]),
                remedy="--max_gap_days 30 takes the nearest; or give maps of one date",
            )
        return
    undated = [entry.file.name for entry in maps.maps if entry.period is None]
    if undated:
        raise LabelError(
            "a map has no date, and --max_gap_days needs one",
            found=f"{len(undated)} of {len(maps.maps)} without: {', '.join(undated[:5])}",
            remedy="--dates says where file names tell it, as in --dates _%Y%m%d; or give a list "
            "of STAC items",
        )
    if not any(scene.date for scene in scenes):
        raise LabelError(
            "no scene has a date, and --max_gap_days needs one",
            found=f"{len(scenes)} scenes, none with a date",
            where=config.scenes,
            remedy="add a column date, or say where file names tell it, as in "
            "--scene_dates _%Y%m%d",
        )


def _work(config: LabelsConfig, jobs: Sequence[Job], output: LabelOutput) -> int:
    """Run what is not finished; return how many windows or scenes that were."""
    left = output.left
    todo = [jobs[number] for number in left]
    batches = run_jobs(todo, config.workers, config.dask)
    for number, batch in zip(left, track(batches, "labelling batches", len(left)), strict=True):
        output.add(number, batch)
    return sum(job.size for job in todo)


def _require_overlap(output: LabelOutput, maps: Catalogue, config: LabelsConfig) -> None:
    for table in output.tables():
        reasons = table["reason"].to_pylist()
        if table.num_rows < 1 or any(reason != Reason.NO_MAP for reason in reasons):
            return
    output.discard()
    first = maps.maps[0]
    raise LabelError(
        "no land-cover map overlaps any scene",
        found=f"{len(maps.maps)} map(s); the first covers "
        f"({', '.join(f'{edge:.6g}' for edge in first.grid.bounds)}) {first.grid.crs}",
        expected="maps of the same place",
        where=config.scenes,
        remedy="check the CRS of maps and scenes, and the place of both",
    )


def _uncovered(config: LabelsConfig, maps: Catalogue) -> str:
    """Say what lies beyond the last whole windows of the maps."""
    if config.window is None:
        return ""
    stride = config.stride or config.window
    rests = [
        ((entry.grid.height - config.window) % stride, (entry.grid.width - config.window) % stride)
        for entry in maps.maps
    ]
    lines, columns = (max(edge) for edge in zip(*rests, strict=True))
    if not lines and not columns:
        return ""
    return f"the last {lines} lines and {columns} columns of a map hold no whole window"


# ------------------------------------------------------------------------------- what run it is


def _settings(config: LabelsConfig) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in _HOW}


def _command(config: LabelsConfig) -> str:
    """Return the command that gives the same rows."""
    words = ["eofm", "labels", *config.maps]
    for f in fields(config):
        value = getattr(config, f.name)
        default = None if f.default is MISSING else f.default
        if f.name not in _HOW | {"maps"} and value != default:
            words += [f"--{f.name}", str(value)]
    return shlex.join(words)


def _digest(plain: object) -> str:
    text = json.dumps(plain, default=_plain_number)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain_number(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else str(value)
