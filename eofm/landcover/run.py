"""`eofm labels`: find maps and scenes, count them in batches, put the batches together.

Batches are counted here, in other processes, or on a Dask cluster: the same rows in the same order.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

import eofm
from eofm.errors import ConfigError, LabelError
from eofm.extras import dask_client
from eofm.landcover.config import LabelsConfig
from eofm.landcover.dates import DatePattern
from eofm.landcover.jobs import LabelJob, LabelScene, run_job, scene_jobs, window_jobs
from eofm.landcover.maps import Catalogue, LandCover, find_maps
from eofm.landcover.multilabel import Reason
from eofm.landcover.output import LabelOutput
from eofm.landcover.report import LabelReport, save_figure, summarise
from eofm.landcover.scenes import SceneOptions, find_scenes
from eofm.landcover.schemes import find_scheme
from eofm.landcover.table import FORMAT, VERSION, Ground, PresenceRule, TableBatch, schema
from eofm.progress import track
from eofm.workers import end_with_parent

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
    rule = PresenceRule(scheme, config.threshold, config.min_valid, config.empty == "keep")
    dates = DatePattern(config.dates) if config.dates else None
    maps = find_maps(config.maps, dates, config.asset, config.field)
    scenes = _scenes(config)
    jobs = _jobs(config, maps, scenes, rule)
    run = {
        "settings": _settings(config),
        "scheme": scheme.digest,
        "scenes": _digest([_identity(scene) for scene in scenes]),
    }
    about = {
        "format": FORMAT,
        "version": VERSION,
        "classes": list(scheme.names),
        "scheme": {**scheme.plain(), "digest": scheme.digest},
        "threshold": config.threshold,
        "min_valid": config.min_valid,
        "ground": _ground(scenes),
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
    notes = (*maps.said(), *_uncovered(config, maps))
    report = summarise(config.out, done, time.monotonic() - began, notes)
    save_figure(report)
    return report


def _scenes(config: LabelsConfig) -> list[LabelScene]:
    if config.scenes is None:
        return []
    dates = DatePattern(config.scene_dates) if config.scene_dates else None
    return find_scenes(config.scenes, SceneOptions(config.gsd, config.scene_crs, dates))


def _jobs(
    config: LabelsConfig, maps: Catalogue, scenes: Sequence[LabelScene], rule: PresenceRule
) -> Sequence[LabelJob]:
    if config.window is None:
        _check_dates(config, maps, scenes)
        cover = LandCover(maps, rule.scheme, config.max_gap_days)
        return scene_jobs(scenes, cover, rule, config.batch)
    for entry in maps.maps:
        grid = entry.require_grid()
        if config.window > min(grid.height, grid.width):
            raise ConfigError(
                "a map is smaller than the window",
                found=f"{grid.height} x {grid.width} pixels",
                expected=f"at least {config.window} x {config.window} (window)",
                where=entry.file,
                remedy="choose a smaller --window, or --scenes",
            )
    return window_jobs(maps, config.window, config.stride or config.window, rule, config.batch)


def _check_dates(config: LabelsConfig, maps: Catalogue, scenes: Sequence[LabelScene]) -> None:
    """Refuse dates that are needed and not there, or there and not heeded."""
    maps.check_dates(config.max_gap_days)
    if config.max_gap_days is not None and not any(scene.date for scene in scenes):
        raise LabelError(
            "no scene has a date, and --max_gap_days needs one",
            found=f"{len(scenes)} scenes, none with a date",
            where=config.scenes,
            remedy="add a column date, or say where file names tell it, as in "
            "--scene_dates _%Y%m%d",
        )


def _work(config: LabelsConfig, jobs: Sequence[LabelJob], output: LabelOutput) -> int:
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
        f"({', '.join(f'{edge:.6g}' for edge in first.bounds)}) {first.crs}",
        expected="maps of the same place",
        where=config.scenes,
        remedy="check the CRS of maps and scenes, and the place of both",
    )


def _ground(scenes: Sequence[LabelScene]) -> Ground:
    """Return what was counted: what the images measure, or all of the map."""
    return Ground.SEEN if scenes and all(scene.seen is not None for scene in scenes) else Ground.ALL


def _uncovered(config: LabelsConfig, maps: Catalogue) -> list[str]:
    """Say what lies beyond the last whole windows of the maps."""
    if config.window is None:
        return []
    window, stride = config.window, config.stride or config.window
    grids = [entry.require_grid() for entry in maps.maps]
    rests = [((g.height - window) % stride, (g.width - window) % stride) for g in grids]
    lines, columns = (max(edge) for edge in zip(*rests, strict=True))
    if not lines and not columns:
        return []
    return [f"the last {lines} lines and {columns} columns of a map hold no whole window"]


# ----------------------------------------------------------------------------------- processes


class _Future(Protocol):
    def result(self) -> TableBatch: ...


def run_jobs(
    jobs: Sequence[LabelJob], workers: int = 1, dask: str | None = None
) -> Iterator[TableBatch]:
    """Run jobs and yield their results in order.

    Args:
        jobs: What to do.
        workers: Processes on this machine; 1 runs them in this one.
        dask: Scheduler of a Dask cluster to run them on instead.

    Raises:
        ConfigError: If Dask is not installed, or its scheduler does not answer.
        LabelError: If a process was killed, or as `run_job`.
        RasterError: As `run_job`.
    """
    if dask is not None:
        yield from _on_dask(jobs, dask)
    elif workers > 1 and len(jobs) > 1:
        yield from _in_processes(jobs, workers)
    else:
        yield from map(run_job, jobs)


def _in_order(
    jobs: Sequence[LabelJob], submit: Callable[[LabelJob], _Future], ahead: int
) -> Iterator[TableBatch]:
    """Keep so many jobs under way, so that neither jobs nor results pile up."""
    waiting: deque[_Future] = deque()
    for job in jobs:
        waiting.append(submit(job))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _in_processes(jobs: Sequence[LabelJob], workers: int) -> Iterator[TableBatch]:
    # forked children would share GDAL's open files with us
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(jobs))
    with ProcessPoolExecutor(count, context, end_with_parent) as pool:
        try:
            yield from _in_order(jobs, lambda job: pool.submit(run_job, job), 2 * count)
        except BrokenProcessPool as error:
            raise LabelError(
                "a worker process was killed",
                found="perhaps the machine is out of memory",
                remedy="run again with fewer --workers and --resume: finished batches stay",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _on_dask(jobs: Sequence[LabelJob], scheduler: str) -> Iterator[TableBatch]:
    with dask_client(scheduler) as client:
        threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
        yield from _in_order(
            jobs, lambda job: client.submit(run_job, job, pure=False), 2 * max(threads, 1)
        )


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


def _identity(scene: LabelScene) -> list[object]:
    grid = scene.grid
    return [scene.id, grid.crs, grid.transform[:6], grid.height, grid.width, scene.date]


def _digest(plain: object) -> str:
    text = json.dumps(plain, default=_plain_number)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain_number(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else str(value)
