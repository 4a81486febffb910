"""`eofm labels`: find maps and scenes, count them in batches, and summarise the table.

Batches are counted here, in other processes, or on a Dask cluster, and then put together: the same
rows in the same order.

The table is summarised in text for the terminal, and in a figure next to the table: frequencies of
the classes, and which occur together. The figure is drawn without torch, which alone would need
more memory than all of the counting.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import eofm
from eofm.environment import dask_client, end_with_parent
from eofm.errors import ConfigError, LabelError
from eofm.formats.foreign import foreign
from eofm.io import Pending, prefetched
from eofm.landcover.config import LabelsConfig
from eofm.landcover.jobs import (
    LabelJob,
    LabelScene,
    SceneOptions,
    find_scenes,
    run_job,
    scene_jobs,
    window_jobs,
)
from eofm.landcover.maps import Catalogue, DatePattern, LandCover, find_maps
from eofm.landcover.multilabel import Reason
from eofm.landcover.schemes import find_scheme
from eofm.landcover.table import (
    FORMAT,
    VERSION,
    Ground,
    LabelOutput,
    PresenceRule,
    TableBatch,
    open_table,
    schema,
)
from eofm.report import output, plots
from eofm.terminal import track

__all__ = ["LabelReport", "run_jobs", "save_figure", "summarise", "write_labels"]

# ------------------------------------------------------------------------------- summary of a table


@dataclass(frozen=True)
class LabelReport:
    """The outcome of `eofm labels`.

    Args:
        out: The table.
        scheme: Name of the scheme.
        rows: How many windows or scenes it holds.
        known: How many of them have labels.
        unknown: Why not -> how many.
        skipped: Number left out because they are all nodata.
        ignored: Codes that the scheme ignores -> pixels.
        classes: Class names.
        together: In how many rows two classes are present, (K, K); on the diagonal, one class.
        mean: Mean fraction of each class over the rows with labels, (K,).
        sources: How many maps gave pixels.
        done: How many windows or scenes were counted now.
        seconds: How long that took, with all reading and writing.
        notes: Further lines for the user.
    """

    out: Path
    scheme: str
    rows: int
    known: int
    unknown: Mapping[str, int]
    skipped: int
    ignored: Mapping[str, int]
    classes: tuple[str, ...]
    together: NDArray[np.int64]
    mean: NDArray[np.float64]
    sources: int
    done: int
    seconds: float
    notes: tuple[str, ...]

    def describe(self) -> str:
        """Return some lines for the terminal."""
        if self.done:
            speed = f"{self.done} counted in {self.seconds:.1f} s, {self.done / self.seconds:.0f}/s"
        else:
            speed = "was complete already; nothing was counted"
        lines = [
            f"{self.out}: {self.rows} rows from {self.sources} map(s), scheme {self.scheme}",
            f"  {speed}",
            f"  {self.known} labelled, {self._share(self.rows - self.known)} unknown",
            *(f"    {count:8d}  {reason}" for reason, count in self.unknown.items()),
        ]
        if self.skipped:
            lines.append(f"  {self.skipped} with nothing but nodata left out")
        if self.ignored:
            codes = ", ".join(f"{code} ({n} pixels)" for code, n in self.ignored.items())
            lines.append(f"  codes that the scheme ignores: {codes}")
        lines += [f"  {note}" for note in self.notes]
        width = max(map(len, self.classes))
        lines.append(f"  {'class':{width}}      rows  share  mean cover")
        lines += [
            f"  {name:{width}}  {count:8d}  {count / max(self.known, 1):5.1%}  {mean:10.2%}"
            for name, count, mean in zip(
                self.classes, np.diag(self.together).tolist(), self.mean.tolist(), strict=True
            )
        ]
        return "\n".join(lines)

    def _share(self, part: int) -> str:
        return f"{part} ({part / max(self.rows, 1):.1%})"

    def __str__(self) -> str:
        return self.describe()


def summarise(
    out: str | Path, done: int, seconds: float, notes: tuple[str, ...] = ()
) -> LabelReport:
    """Read a table, one row group at a time.

    Args:
        out: The table.
        done: How many windows or scenes were counted now.
        seconds: How long that took.
        notes: Further lines for the user.

    Raises:
        LabelError: If the table does not exist.
    """
    table = open_table(out)
    k = len(table.classes)
    together, mean = np.zeros((k, k), np.int64), np.zeros(k)
    unknown: dict[str, int] = {}
    sources: set[str] = set()
    rows = known = 0
    with (
        foreign(LabelError, "the table of labels is damaged", where=table.path),
        pq.ParquetFile(table.path) as file,
    ):
        for group in range(file.num_row_groups):
            part = file.read_row_group(
                group, ["multi_hot", "fraction", "known", "reason", "source"]
            )
            sure = part["known"].to_numpy()
            hot = _matrix(part, "multi_hot", k)[sure].astype(np.int64)
            together += hot.T @ hot
            mean += _matrix(part, "fraction", k)[sure].sum(axis=0)
            for value in part["reason"].filter(part["reason"].to_numpy() != "").value_counts():
                reason = value["values"].as_py()
                unknown[reason] = unknown.get(reason, 0) + value["counts"].as_py()
            sources |= set(part["source"].combine_chunks().flatten().unique().to_pylist())
            rows += part.num_rows
            known += int(sure.sum())
    about = table.about
    return LabelReport(
        out=table.path,
        scheme=about["scheme"]["name"],
        rows=rows,
        known=known,
        unknown=dict(sorted(unknown.items())),
        skipped=about["skipped"],
        ignored=about["ignored"],
        classes=table.classes,
        together=together,
        mean=mean / max(known, 1),
        sources=len(sources),
        done=done,
        seconds=seconds,
        notes=notes,
    )


def _matrix(part: pa.Table, name: str, k: int) -> NDArray[np.float64]:
    flat: NDArray[np.float64] = part[name].combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, k)


# ------------------------------------------------------------------------------- the picture


def save_figure(report: LabelReport) -> Path:
    """Draw the classes of a table next to it, as .png, and return the file.

    Args:
        report: Summary of the table.

    Raises:
        DataError: If it cannot be written.
    """
    counts = plots.ClassCounts(
        report.classes,
        report.together,
        report.known,
        report.rows - report.known,
        report.mean,
        samples="rows",
    )
    figure = plots.class_summary(
        f"{report.out.name}: {report.known} of {report.rows} rows labelled, {report.scheme}", counts
    )
    remedy = "check free space and permissions; the table itself is complete"
    return output.save(figure, report.out.with_suffix(".png"), remedy)


# ------------------------------------------------------------------------------------------ the run

# Settings that change how the work is done, not its result.
_HOW: Final = {"out", "workers", "dask", "batch", "resume"}


def write_labels(config: LabelsConfig) -> LabelReport:
    """Label windows of maps, or scenes, and write a table: see `eofm.landcover.table`.

    Args:
        config: Settings of the command. In a script that sets `workers` above 1, call
            it below `if __name__ == "__main__":`, as for any process pool.

    Returns:
        The summary of the table.

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
    notes = (*maps.notes(), *_uncovered(config, maps))
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
    """Refuse dates that are needed but missing, or present but not used."""
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
    """Run the unfinished jobs; return the number of their windows or scenes."""
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
    """Return which ground was counted: valid pixels of the images, or all of the map."""
    return Ground.SEEN if scenes and all(scene.seen is not None for scene in scenes) else Ground.ALL


def _uncovered(config: LabelsConfig, maps: Catalogue) -> list[str]:
    """Return a note on the area beyond the last whole windows of the maps."""
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


def run_jobs(
    jobs: Sequence[LabelJob], workers: int = 1, dask: str | None = None
) -> Iterator[TableBatch]:
    """Run jobs and yield their results in order.

    Args:
        jobs: The jobs.
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


def _in_processes(jobs: Sequence[LabelJob], workers: int) -> Iterator[TableBatch]:
    # forked children would share GDAL's open files with us
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(jobs))
    with ProcessPoolExecutor(count, context, end_with_parent) as pool:
        try:
            yield from _made(jobs, lambda job: pool.submit(run_job, job), 2 * count)
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
        yield from _made(
            jobs, lambda job: client.submit(run_job, job, pure=False), 2 * max(threads, 1)
        )


def _made(
    jobs: Sequence[LabelJob], submit: Callable[[LabelJob], Pending[TableBatch]], running: int
) -> Iterator[TableBatch]:
    for _, batch in prefetched(jobs, submit, running - 1):
        yield batch


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
