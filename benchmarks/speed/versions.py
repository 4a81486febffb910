"""CPU time of reading, packing, feeding and labelling: this version against another one, in turns.

    git worktree add ../other 7c2020e
    python benchmarks/speed/versions.py ../other [--rounds 5] [--table FILE.md]

Real data (EOFM_REAL_DATA): EuroSAT tiles and BigEarthNet patches through `eofm.read_geotiff`,
TerraMesh sites through `eofm pack tiles`, that store through `eofm.Store`, a WorldCover tile
through `eofm labels`. A process per version and round, one thread, the versions in turns; every
task is done once before it is timed, and the least of three times is taken. What counts is the
ratio of CPU times, round by round: its median.
"""

from __future__ import annotations

import argparse
import contextlib
import io
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
    count = iter(range(99))

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


def measure() -> dict[str, float]:
    """CPU seconds of each task of the version that is imported."""
    import torch

    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, task in tasks(Path(folder)).items():
            task()
            found[name] = min(_cpu(task) for _ in range(3))
    return found


def _cpu(task: Callable[[], object]) -> float:
    before = time.process_time()
    task()
    return time.process_time() - before


def one(root: Path) -> dict[str, float]:
    """Measure a version in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure"]
    env = {**os.environ, "PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return
    here = Path(__file__).parents[2]
    rounds = [(one(options.other), one(here)) for _ in range(options.rounds)]
    lines = [
        f"`python benchmarks/speed/versions.py OTHER --rounds {options.rounds}`",
        "",
        "CPU seconds, medians. A ratio above 1 means that this version takes less.",
        "",
        "| task | other | this | other / this (least to most) |",
        "|---|---:|---:|---:|",
    ]
    for name in rounds[0][0]:
        ratios = sorted(other[name] / this[name] for other, this in rounds)
        medians = [statistics.median(r[i][name] for r in rounds) for i in (0, 1)]
        lines.append(
            f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
