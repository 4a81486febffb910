"""Writers killed at every event of the file system: what is resumed ends as if undisturbed.

    python tests/campaigns/kill_writers.py --kills 1000 --seed 0

A child of this process does the work and dies by SIGKILL at the k-th event (write, fsync, rename,
...), just before it or in the middle of a write. A second child dies in the recovery, four times of
ten; a third does the work to its end. What lies there then is compared with an undisturbed run, byte
for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "miniatures"))  # as in pyproject.toml

from miniature_files import Miniature
from old_stores import write_images

from eofm.bench.records import read_results
from eofm.bench.run import bench
from eofm.contract.recipe import Normalization, Pooling, Recipe
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.folder import BenchFolderConfig
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.landcover.config import LabelsConfig
from eofm.landcover.run import write_labels
from eofm.store import writer
from eofm.store.config import MergeConfig, RelabelConfig, StatsConfig, SubsetConfig
from eofm.store.describe.stats import make_statistics
from eofm.store.edit.copy import merge_stores, subset_store
from eofm.store.edit.relabel import relabel_store
from eofm.store.format import LabelRule, StoreCard
from eofm.store.paired import match_stores, write_pairs
from eofm.store.writer import StoreWriter
from eofm.weights.encoder import Encoder, random_encoder, save_encoder

EVENTS: Final = (
    *("write", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "ftruncate", "link"),
)
_REAL: Final = {name: getattr(os, name) for name in EVENTS}
AGAIN: Final = 0.4


class _Count:
    """How many events there were, and at which the process dies."""

    seen = 0
    at: int | None = None
    torn = False
    names: list[str] = []


def _arm(at: int | None, *, torn: bool = False) -> None:
    """Let the process die at an event; without one, only count."""
    _Count.seen, _Count.at, _Count.torn, _Count.names = 0, at, torn, []

    def guarded(name: str) -> Callable[..., Any]:
        real = _REAL[name]

        def call(*words: Any, **options: Any) -> Any:
            _Count.seen += 1
            _Count.names.append(name)
            if _Count.seen == _Count.at:
                if name == "write" and _Count.torn:
                    real(words[0], words[1][: max(1, len(words[1]) // 2)])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*words, **options)

        return call

    for name in EVENTS:
        setattr(os, name, guarded(name))


def _disarm() -> None:
    for name, real in _REAL.items():
        setattr(os, name, real)


# -------------------------------------------------------------------------------- the scenarios


@dataclass(frozen=True)
class Scenario:
    """A piece of work.

    Args:
        work: Does it, in a folder, or resumes it.
        setup: Puts there what it needs.
        outcome: What lies there, to be compared.
    """

    work: Callable[[Path], object]
    setup: Callable[[Path], object] = lambda folder: None
    outcome: Callable[[Path], object] = lambda folder: digests(folder / "out")


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


def _miniature(classes: tuple[str, ...] = ("water", "trees", "crops")) -> Miniature:
    spec = ImageSpec(Sensor.S2_L1C, ("B02", "B8A", "B09"), Unit.DN, (12, 18), 10.0)
    groups = {10: ("B02",), 20: ("B8A",), 60: ("B09",)}
    return Miniature(StoreCard(spec, groups, LabelRule("mine", classes, 0.0, 0.25), {"n": 1}))


def _small_shards() -> None:
    """Cut stores into shards of a few rows, so that there are seams to die at."""
    init = StoreWriter.__init__
    if getattr(writer, "_cut", False):
        return
    writer._cut = True  # type: ignore[attr-defined]

    def small(self: StoreWriter, path: Path, card: StoreCard, **options: Any) -> None:
        init(self, path, card, **{**options, "shard_bytes": 3 * card.row_bytes})

    StoreWriter.__init__ = small  # type: ignore[method-assign, assignment]


def make_sources(folder: Path) -> None:
    """Write what all scenarios read."""
    write_images(folder)
    miniature = _miniature()
    miniature.store(folder / "store", 6)
    for name, rows in (("m1", range(3)), ("m2", range(3, 6))):
        with StoreWriter(folder / name, miniature.card) as made:
            for i in rows:
                made.append(miniature.entry(i), miniature.imagery(i))
            made.finish()
    pack_tiles(_tiles(folder, folder / "packed"))
    for split in ("train", "test"):
        for kind, name in (("one", "a"), ("two", "c")):
            (folder / f"set/{split}/{kind}").mkdir(parents=True)
            shutil.copy(
                folder / f"optical/{name}.tif", folder / f"set/{split}/{kind}/{split}-{name}.tif"
            )


def _tiles(sources: Path, out: Path) -> PackTilesConfig:
    return PackTilesConfig(
        images=str(sources / "optical"), sensor="s2-l1c", unit="dn", out=str(out), window=12,
        bands=["B02", "B03", "B04"], landcover=str(sources / "maps"), scheme="terramesh",
    )  # fmt: skip


def scenarios(sources: Path) -> dict[str, Scenario]:
    """Every writer of the package, in small."""
    miniature = _miniature()

    def write(folder: Path) -> None:
        with StoreWriter(folder / "out", miniature.card) as made:
            if not made.complete:
                miniature.write(made, range(8))

    def labels(folder: Path) -> None:
        write_labels(
            LabelsConfig([str(sources / "maps")], scheme="terramesh", window=6, batch=4,
                         out=str(folder / "out.parquet"), resume=True)
        )  # fmt: skip

    def relabel(folder: Path, *, in_place: bool) -> None:
        relabel_store(
            RelabelConfig(
                str(folder / "out" if in_place else sources / "packed"),
                labels=str(_labels_of(sources)), in_place=in_place,
                out=None if in_place else str(folder / "out"), missing="unlabelled", ground="all",
            )
        )  # fmt: skip

    def score(folder: Path) -> None:
        bench(
            BenchFolderConfig(
                str(sources / "set"), sensor="s2-l1c", unit="dn", bands="B02,B03,B04",
                model="imagestats", probe="knn", k=1, controls=False, bootstrap=10,
                out=str(folder / "out.jsonl"), cache=str(folder / "cache"),
            )
        )  # fmt: skip

    def scored(folder: Path) -> object:
        found = read_results(folder / "out.jsonl")
        return sorted((one.key, one.value, one.interval.low, one.interval.high) for one in found)

    def pairs(folder: Path) -> None:
        write_pairs(folder / "out", match_stores(folder / "out", ["a", "b"]))

    return {
        "store": Scenario(write),
        "pack tiles": Scenario(lambda d: pack_tiles(_tiles(sources, d / "out"))),
        "data subset": Scenario(lambda d: subset_store(SubsetConfig(str(sources / "store"), str(d / "out"), sample=4))),
        "data merge": Scenario(lambda d: merge_stores(MergeConfig([str(sources / "m1"), str(sources / "m2")], str(d / "out")))),
        "data relabel": Scenario(lambda d: relabel(d, in_place=False)),
        "data relabel in place": Scenario(lambda d: relabel(d, in_place=True), lambda d: shutil.copytree(sources / "packed", d / "out")),
        "data stats": Scenario(lambda d: make_statistics(StatsConfig(str(sources / "store"), out=str(d / "out")))),
        "pairs": Scenario(pairs, lambda d: [shutil.copytree(sources / "store", d / "out" / n) for n in "ab"]),
        "labels": Scenario(labels, outcome=lambda d: digests(d / "out.parquet")),
        "export": Scenario(lambda d: save_encoder(small_encoder(0), d / "out")),
        "export over another": Scenario(lambda d: save_encoder(small_encoder(0), d / "out"), lambda d: save_encoder(small_encoder(1), d / "out")),
        "bench": Scenario(score, outcome=scored),
    }  # fmt: skip


def small_encoder(seed: int) -> Encoder:
    """An untrained network of one band."""
    norm = Normalization((0.0,), (1000.0,), "made up")
    recipe = Recipe(Sensor.S2_L1C, ("B02",), Unit.DN, (14, 14), norm, pooling=Pooling.MEAN)
    return random_encoder("vit-tiny-14", recipe, seed)


def _labels_of(sources: Path) -> Path:
    """Labels of the packed windows, counted on their ground."""
    file = sources / "of-store.parquet"
    if not file.exists():
        write_labels(
            LabelsConfig([str(sources / "maps")], scheme="terramesh", scenes=str(sources / "packed"),
                         threshold=0.2, out=str(file))
        )  # fmt: skip
    return file


# ------------------------------------------------------------------------------------ killing


def _child(scenario: Scenario, folder: Path, errors: Path, at: int | None, *, torn: bool) -> int:
    """Do the work in a child; return how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            _arm(at, torn=torn)
            scenario.work(folder)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(7)
    return os.waitpid(pid, 0)[1]


def run_scenario(
    name: str, kills: int, seed: int, work: Path, sources: Path, seconds: float = 1e9
) -> Counter[str]:
    """Kill a piece of work so many times, or for so long; return what became of it.

    Where there are fewer points than that, each is taken, and some again with another second death.
    """
    until = time.monotonic() + seconds
    scenario = scenarios(sources)[name]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    def fresh(label: str) -> Path:
        folder = work / label
        folder.mkdir()
        scenario.setup(folder)
        return folder

    reference = fresh("reference")
    _arm(None)
    try:
        scenario.work(reference)
    finally:
        events = list(_Count.names)
        _disarm()
    want = scenario.outcome(reference)
    rng = random.Random(f"{seed}|{name}")
    points = [
        (number, torn)
        for number, event in enumerate(events, 1)
        for torn in ((False, True) if event == "write" else (False,))
    ]
    rounds = rng.choices(points, k=kills - len(points)) if kills > len(points) else []
    points = sorted(rng.sample(points, min(kills, len(points)))) + rounds
    found: Counter[str] = Counter(events=len(events))
    rng.shuffle(points)
    for number, torn in points:
        if time.monotonic() > until:
            break
        folder = fresh("x")
        errors = work / "errors"
        status = _child(scenario, folder, errors, number, torn=torn)
        found["killed"] += os.WIFSIGNALED(status)
        if rng.random() < AGAIN:
            again = rng.randint(1, max(2, len(events) // 2))
            found["killed"] += os.WIFSIGNALED(_child(scenario, folder, errors, again, torn=torn))
        found["points"] += 1
        if _child(scenario, folder, errors, None, torn=False):
            found["cannot resume"] += 1
            said = errors.read_text().strip().splitlines()[-6:]
            print(
                f"    {name} at {number} ({events[number - 1]}): {' | '.join(said)}",
                file=sys.stderr,
            )
        elif scenario.outcome(folder) != want:
            found["different"] += 1
            print(f"    {name} at {number} ({events[number - 1]}): DIFFERENT", file=sys.stderr)
        shutil.rmtree(folder)
    return found


def run(
    kills: int, seed: int, names: list[str] | None = None, seconds: float = 1e9
) -> dict[str, Counter[str]]:
    """Kill writers, each at most `kills` divided by their number of times."""
    torch.set_num_threads(1)
    _small_shards()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "sources"
        make_sources(sources)
        _labels_of(sources)
        names = names or list(scenarios(sources))
        for name in names:
            began = time.monotonic()
            found[name] = run_scenario(
                name, -(-kills // len(names)), seed, Path(folder) / "w", sources, seconds
            )
            print(f"{name}: {dict(found[name])}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found


def table(found: dict[str, Counter[str]]) -> str:
    """The counts as Markdown."""
    heads = ("events", "points", "killed", "cannot resume", "different")
    lines = ["| writer | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 1)]
    total: Counter[str] = Counter()
    for name, counts in found.items():
        total += counts
        lines.append(f"| {name} | " + " | ".join(str(counts[head]) for head in heads) + " |")
    lines.append("| all | " + " | ".join(str(total[head]) for head in heads) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="for each writer at most")
    parser.add_argument("--only", action="append")
    words = parser.parse_args()
    found = run(words.kills, words.seed, words.only, words.seconds)
    print(table(found))
    print(json.dumps({name: dict(counts) for name, counts in found.items()}), file=sys.stderr)
    return int(any(c["cannot resume"] + c["different"] for c in found.values()))


if __name__ == "__main__":
    sys.exit(main())
