"""`eofm embed --explain`: what would be read and done, without doing it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from eofm.geo.embedding.chips_job import ChipPlaces
from eofm.geo.embedding.ground import GroundReader
from eofm.geo.embedding.job import Job, disk_bytes, read_checked
from eofm.geo.embedding.windows import PatchPasses
from eofm.geo.vectors.embeddings import Layout
from eofm.geo.vectors.quantize import QUANTIZE_FROM, wants_codes


@dataclass(frozen=True)
class Explanation:
    """What jobs would do.

    Args:
        parts: A text for each.
    """

    parts: tuple[str, ...]

    def describe(self) -> str:
        """Return the texts."""
        return "\n\n".join(self.parts)


def explain_job(job: Job, places: ChipPlaces | None, passes: PatchPasses | None) -> str:
    """Return what a job would read and do, and how long it would take by a probe of one batch.

    Args:
        job: The job.
        places: Of chips; None for patches.
        passes: Of patches; None for chips.

    Raises:
        PixelError: If the pixels of the probe contradict what is stated of them.
        RasterError: If a file is damaged.
    """
    settings, dim = job.made.settings, job.network.dim
    side, gsd = settings["window"], settings["gsd"]
    if passes is not None:
        lattice = passes.passes[0].lattice
        count, windows = passes.rows * passes.columns, passes.windows
        finer = f", every {passes.stride} px by {len(passes.passes)} passes"
        lines = {
            "patches": f"{passes.rows} x {passes.columns} of {lattice.patch} px, "
            f"{settings['patch_metres']:g} m on the ground{finer if passes.turns > 1 else ''}",
            "windows": f"{windows} of {side} px ({side * gsd:g} m), {lattice.overlap} patches "
            "shared with each neighbour and blended",
        }
        reach = lattice.windows.lefts[: job.config.batch]
        corner, width = lattice.windows.corner(0), reach[-1] + side - reach[0]
    else:
        assert places is not None  # noqa: S101 (a job is one or the other)
        count = windows = len(places)
        lines = {
            "chips": f"{count} of {side} px, {side * gsd:g} m on the ground, "
            + (f"every {settings['stride']} px" if "stride" in settings else "one for each cell")
            + f", grid {settings['grid']}",
        }
        group = places.groups(job.config.batch)[0]
        corner = places.corner(group.start)
        width = int(places.lefts[group.stop - 1]) + side - corner[1]
    codes = wants_codes(job.config.quantization, count)
    number = 1 if codes else 4 if passes is None else 2
    kind = {1: "int8", 2: "float16", 4: "float32"}[number]
    seconds = _probe(job, corner, width)
    rule = f" (from {QUANTIZE_FROM} vectors on)" if codes else ""
    lines |= {
        "vectors": f"{count} x {dim} {kind}{rule}, {_size(count * dim * number)}",
        "disk": f"{_size(disk_bytes(job, count))} while it runs, in {job.out}",
        "time": f"about {_duration(seconds * windows)} on {job.network.device.type}, by one batch "
        f"of {job.config.batch}: {1 / seconds:.1f} windows/s",
    }
    text = "\n".join(f"{name:8} {line}" for name, line in lines.items())
    return f"{job.ground.scene.describe()}\n{text}\n{job.network.plan.describe()}"


def _probe(job: Job, corner: tuple[int, int], width: int) -> float:
    """Return the seconds of one window: the first batch is read, and a batch is embedded twice."""
    side, batch = job.made.settings["window"], job.config.batch
    run = job.network.chips if job.layout is Layout.CHIPS else job.network.patches
    with GroundReader(job.ground) as reader:
        start = time.monotonic()
        pixels = read_checked(reader, job, *corner, side, width)
        reading = (time.monotonic() - start) / batch
    valid = pixels.valid[:, :side].clone()
    valid[0, 0] = True  # of a corner without measurement the time is the same
    windows = job.batch([pixels.values[:, :, :side]] * batch, [valid] * batch, side)
    run(windows)
    start = time.monotonic()
    run(windows)
    # threads read ahead: whichever is slower counts
    return max(reading / job.config.readers, (time.monotonic() - start) / batch)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError  # pragma: no cover


def _duration(seconds: float) -> str:
    """Return a time in words.

    >>> _duration(42), _duration(600), _duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
