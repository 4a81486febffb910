"""CPU time of reading, packing, feeding and labelling: this version against another one, in turns.

    git worktree add ../other 7c2020e
    python benchmarks/speed/versions.py ../other [--rounds 9] [--pairs 4] [--table FILE.md]

Real data (EOFM_REAL_DATA): EuroSAT tiles and BigEarthNet patches through `eofm.read_geotiff`,
TerraMesh sites through `eofm pack tiles`, that store through `eofm.Store`, a WorldCover tile
through `eofm labels`. Two processes, one per version, with one thread each, take turns task by
task, so that both meet the same machine; every task is done once before it is timed. Several pairs
of processes follow one another: where a process happens to lie in memory moves its times by more
than the rounds differ (a store that is only read: 0.87 to 1.03 between pairs). What counts is the
ratio of CPU times, round by round: its median over all pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REAL = Path(os.environ.get("EOFM_REAL_DATA", Path(__file__).parents[2].parent / "shared/data"))
EUROSAT = [*(f"B{i:02d}" for i in range(1, 13)), "B8A"]  # in the order of the files


def tasks(folder: Path) -> dict[str, Callable[[], object]]:
    """The work, by its name; only names that both versions have are used."""
    import eofm
    from eofm.cli import main

    tiles = sorted((REAL / "eurosat_ms").rglob("*.tif"))[:120]
    patches = sorted((REAL / "bigearthnet_v1/BigEarthNet-v1.0").iterdir()) * 4
    store = folder / "store"
    pack = ["pack", "tiles", "--images", str(REAL / "terramesh/S2L2A"), "--sensor", "s2-l2a"]
    pack += ["--unit", "dn", "--window", "56", "--stride", "7", "--landcover"]
    pack += [str(REAL / "terramesh/LULC"), "--scheme", "terramesh", "--allow_unlabelled", "true"]
    label = ["labels", str(REAL / "esa_worldcover"), "--scheme", "worldcover", "--window", "264"]
    count = itertools.count()

    def quietly(words: list[str]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            if main(words):
                raise SystemExit(f"failed: {' '.join(words)}")

    quietly([*pack, "--out", str(store)])
    kept = eofm.Store(store)
    rows = list(range(len(kept)))
    return {
        "read a multi-band tile (EuroSAT)": lambda: [
            eofm.read_geotiff(f, sensor="s2-l1c", unit="dn", bands=EUROSAT) for f in tiles
        ],
        "read a file per band (BigEarthNet)": lambda: [
            eofm.read_geotiff(f, sensor="s2-l2a", unit="dn") for f in patches
        ],
        "pack with labels (TerraMesh)": lambda: quietly(
            [*pack, "--out", str(folder / f"again{next(count)}")]
        ),
        "read a store": lambda: [kept.images(rows[i : i + 64]) for i in range(0, len(rows), 64)],
        "labels of windows (WorldCover)": lambda: quietly(
            [*label, "--out", str(folder / f"labels{next(count)}.parquet")]
        ),
    }


def serve() -> None:
    """Do the tasks that are asked for, line by line, and answer with their CPU seconds."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = tasks(Path(folder))
        for task in work.values():
            task()
        print(json.dumps(list(work)), flush=True)
        for line in sys.stdin:
            before = time.process_time()
            work[line.rstrip("\n")]()
            print(time.process_time() - before, flush=True)


class Version:
    """A process that has one version imported and does what it is asked."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
        env = {**os.environ, "PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tasks: list[str] = json.loads(self._answer())

    def seconds(self, task: str) -> float:
        """Do a task once and return the CPU time it took."""
        assert self._process.stdin is not None  # noqa: S101 (it is a pipe)
        print(task, file=self._process.stdin, flush=True)
        return float(self._answer())

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a version has died: see above")
        return line


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=4, help="pairs of processes, one by one")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    seconds: dict[str, list[tuple[float, float]]] = {}
    for _ in range(options.pairs):
        other, this = Version(options.other), Version(Path(__file__).parents[2])
        for name in other.tasks:
            for turn in range(options.rounds):
                pair = [(other, 0), (this, 1)][:: 1 if turn % 2 else -1]
                taken = {side: version.seconds(name) for version, side in pair}
                seconds.setdefault(name, []).append((taken[0], taken[1]))
        other.stop()
        this.stop()
    lines = [
        f"`python benchmarks/speed/versions.py OTHER --rounds {options.rounds} "
        f"--pairs {options.pairs}`",
        "",
        "CPU seconds, medians. A ratio above 1 means that this version takes less; behind it,",
        "where the middle half of the rounds lies.",
        "",
        "| task | other | this | other / this (quartiles) |",
        "|---|---:|---:|---:|",
    ]
    for name, rounds in seconds.items():
        low, middle, high = statistics.quantiles([a / b for a, b in rounds], n=4)
        medians = [statistics.median(side) for side in zip(*rounds, strict=True)]
        lines.append(
            f"| {name} | {medians[0]:.3f} | {medians[1]:.3f} | {middle:.2f} "
            f"({low:.2f} to {high:.2f}) |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
