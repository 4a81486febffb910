"""How many files of eofm take part in three commands: this version, and another beside it.

    git worktree add ../other 7c2020e
    python benchmarks/routes.py [../other] [--table FILE.md] [--files]

A file takes part if one of its functions is called (`sys.setprofile`, all threads); files that are
only imported are counted apart. `bench eurosat` scores one untrained encoder by nearest neighbours,
`pretrain` runs to the first step of the optimizer on a packed store, `labels` counts the windows of
a map. The data are synthetic and small; a process for each command and version. A second table has
the files and lines of each folder, with those below it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import rasterio
from rasterio.transform import from_origin

ROUTES = ("bench eurosat", "pretrain", "labels")
HERE = Path(__file__).resolve().parents[1]
CLASSES = ("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture")
CLASSES += ("PermanentCrop", "Residential", "River", "SeaLake")
_OPTIMIZER, _SCHEDULE = "/torch/optim/", "lr_scheduler"
# Mean digital numbers of EuroSAT by band, in the order of its files.
LEVELS = (1361, 1129, 1061, 968, 1219, 2010, 2377, 2302, 729, 12, 1848, 1152, 2596)


class FirstStepError(BaseException):
    """The optimizer is about to take its first step."""


class Taken:
    """Which files of the package have had a function called.

    Args:
        package: Folder of the package.
        until_step: Stop at the first step of an optimizer.
    """

    def __init__(self, package: Path, *, until_step: bool) -> None:
        self.package, self.until_step = str(package) + os.sep, until_step
        self.called: set[str] = set()
        self.imported: set[str] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Take note of a call; `sys.setprofile` makes this one."""
        if event != "call":
            return
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith(self.package):
            # class bodies and comprehensions of a module run when it is imported
            module = frame.f_code.co_name == "<module>" or _is_import(frame)
            (self.imported if module else self.called).add(file[len(self.package) :])
        elif self.until_step and name == "step" and _OPTIMIZER in file and _SCHEDULE not in file:
            raise FirstStepError

    def start(self) -> None:
        """Begin to watch, in threads to come as well."""
        threading.setprofile(self)
        sys.setprofile(self)

    def stop(self) -> None:
        """Watch no more."""
        sys.setprofile(None)
        threading.setprofile(None)


def _is_import(frame: FrameType | None) -> bool:
    """Whether a call is made while a module of the package is imported."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and "importlib" in (
            frame.f_back.f_code.co_filename if frame.f_back else ""
        ):
            return True
        frame = frame.f_back
    return False


def write(path: Path, pixels: np.ndarray) -> None:
    """Write a GeoTIFF on a place of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = from_origin(500_000, 5_400_000, 10, 10)
    profile = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=pixels.dtype, crs="EPSG:32631", transform=origin, **profile
    ) as file:
        file.write(pixels)


def words_of(route: str, folder: Path) -> list[str]:
    """Write the data of a command, and return its words."""
    from eofm.cli import main

    rng = np.random.default_rng(0)
    if route == "bench eurosat":
        for name in CLASSES:
            for number in range(8):
                tile = np.array(LEVELS)[:, None, None] * rng.uniform(0.6, 1.4, (13, 64, 64))
                file = folder / "tiles" / ("train" if number < 6 else "test") / name
                write(file / f"{name}_{number}.tif", tile.astype("uint16"))
        words = ["bench", "eurosat", "--root", f"{folder}/tiles", "--model", "random:vit-tiny-14"]
        words += ["--probe", "knn", "--k", "1", "--bootstrap", "10", "--controls", "false"]
        return [*words, "--out", f"{folder}/r.jsonl", "--cache", f"{folder}/cache"]
    if route == "labels":
        write(folder / "map.tif", rng.choice(np.array([10, 30, 80], "uint8"), (1, 128, 128)))
        words = ["labels", f"{folder}/map.tif", "--scheme", "worldcover", "--window", "32"]
        return [*words, "--out", f"{folder}/labels.parquet"]
    world = ["--scenes", "6", "--size", "48", "--workers", "1"]
    main(["world", "--out", f"{folder}/world", *world])
    pack = ["pack", "ssl4eo", "--root", f"{folder}/world", "--sensor", "s2-l1c", "--landcover"]
    main([*pack, f"{folder}/world/dw", "--scheme", "dynamic-world", "--out", f"{folder}/store"])
    words = ["pretrain", "--data.store", f"{folder}/store", "--optim.batch", "4", "--run.out"]
    return [*words, f"{folder}/run", "--model.size", "28", "--trainer.accelerator", "cpu"]


def count(route: str) -> dict[str, list[str]]:
    """Run a command of the version that is imported, and return the files that took part."""
    with tempfile.TemporaryDirectory() as name:
        with contextlib.redirect_stdout(io.StringIO()):
            words = words_of(route, Path(name))
        # the data were made by code that must not count
        done = subprocess.run(
            [sys.executable, __file__, "--run", json.dumps(words)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(words: Sequence[str]) -> None:
    """Run one command under watch, and print the files that took part."""
    import eofm

    taken = Taken(Path(str(eofm.__file__)).parent, until_step=words[0] == "pretrain")
    taken.start()
    with contextlib.redirect_stdout(io.StringIO()):
        from eofm.cli import main

        try:
            status = main(list(words))
        except FirstStepError:
            status = 0
    taken.stop()
    print(json.dumps({"called": sorted(taken.called), "imported": sorted(taken.imported)}))
    sys.stdout.flush()
    os._exit(status)  # threads of an interrupted run


def version(root: Path, route: str) -> dict[str, list[str]]:
    """Count in a checkout."""
    done = subprocess.run(
        [sys.executable, __file__, "--count", route],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{root}: {route}\n{done.stderr}")
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(other: Path | None, *, files: bool) -> str:
    """Count every route in this checkout and the other, and return a table."""
    head = "| route | files called | files imported |"
    lines = ["|---|---:|---:|"]
    if other is not None:
        head = "| route | other: called | this: called | this / other | other: imported | this |"
        lines = ["|---|---:|---:|---:|---:|---:|"]
    for route in ROUTES:
        mine = version(HERE, route)
        called, imported = len(mine["called"]), len(mine["imported"])
        if files:
            print(route, *mine["called"], sep="\n  ")
        if other is None:
            lines.append(f"| {route} | {called} | {imported} |")
            continue
        theirs = version(other.resolve(), route)
        before = len(theirs["called"])
        lines.append(
            f"| {route} | {before} | {called} | {called / before:.2f} | {len(theirs['imported'])} "
            f"| {imported} |"
        )
    return "\n".join([head, *lines])


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Return folder of eofm -> files and lines, those of its subfolders included."""
    found: dict[str, tuple[int, int]] = {}
    for file in sorted((root / "eofm").rglob("*.py")):
        parts = file.relative_to(root / "eofm").parts
        folder = f"eofm/{parts[0]}" if len(parts) > 1 else "eofm itself"
        files, lines = found.get(folder, (0, 0))
        found[folder] = files + 1, lines + len(file.read_text("utf-8").splitlines())
    return found


def size_table(other: Path) -> str:
    """Return a table of the files and lines of each folder, in both checkouts."""
    theirs, mine = sizes(other.resolve()), sizes(HERE)
    lines = ["| folder | other: files | this: files | other: lines | this: lines |"]
    lines.append("|---|---:|---:|---:|---:|")
    rows = {name: (theirs.get(name, (0, 0)), mine.get(name, (0, 0))) for name in theirs | mine}
    total = [tuple(map(sum, zip(*each.values(), strict=True))) for each in (theirs, mine)]
    for name, (before, now) in [*sorted(rows.items()), ("all", total)]:
        cells = [f"{n:,}" if n else "" for pair in zip(before, now, strict=True) for n in pair]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", nargs="?", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--count")
    parser.add_argument("--run")
    options = parser.parse_args()
    if options.run:
        run(json.loads(options.run))
    elif options.count:
        print(json.dumps(count(options.count)))
    else:
        made = table(options.other, files=options.files)
        print(made)
        if options.table:
            command = "python benchmarks/routes.py" + (" OTHER" if options.other else "")
            title = "# Files that take part in three commands"
            note = "Other: commit 7c2020e (version 0.1)." if options.other else ""
            if options.other:
                note += f"\n\n## Files and lines of the folders\n\n{size_table(options.other)}"
            options.table.write_text(
                f"{title}\n\n`{command}`\n\n{made}\n\n{note}\n".rstrip() + "\n"
            )
