"""Writers killed at every event of the file system: what is resumed ends as if undisturbed.

    python tests/campaigns/kill_writers.py --kills 1000 --seed 0

A child of this process does the work and dies by SIGKILL at the k-th event (write, fsync, rename,
...), just before it or in the middle of a write; or, where libraries write below Python, at a
moment. A second child dies in the recovery, four times of ten; a third does the work to its end.
What lies there then is compared with an undisturbed run, byte for byte.
"""

from __future__ import annotations

import argparse
import builtins
import ctypes
import hashlib
import io
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "miniatures"))  # as in pyproject.toml

from geo_scenes import config as embed_config
from geo_scenes import small_encoder as scene_encoder
from geo_scenes import texture, write_scene
from miniature_files import Miniature
from old_stores import write_images
from vector_world import drawn, on_disk, world

from eofm.bench.records import read_results
from eofm.bench.run import bench
from eofm.contract.recipe import Normalization, Pooling, Recipe
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.folder import BenchFolderConfig
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.geo.change import run_change
from eofm.geo.class_map_files import run_map
from eofm.geo.embedding.embed import embed
from eofm.geo.embedding_files import write_tiff
from eofm.geo.explore import run_explore
from eofm.geo.maps_config import ChangeConfig, ExploreConfig, MapConfig, SearchConfig
from eofm.geo.search import run_search
from eofm.landcover.config import LabelsConfig
from eofm.landcover.run import write_labels
from eofm.store import writer
from eofm.store.config import MergeConfig, RelabelConfig, StatsConfig, SubsetConfig
from eofm.store.edit import merge_stores, relabel_store, subset_store
from eofm.store.format import LabelRule, StoreCard
from eofm.store.paired import match_stores, write_pairs
from eofm.store.stats import make_statistics
from eofm.store.writer import StoreWriter
from eofm.weights.config import MergeModelsConfig
from eofm.weights.encoder import Encoder, random_encoder, save_encoder
from eofm.weights.merge import merge_models

_CALLS: Final = (
    *("write", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "ftruncate", "link"),
)
# What is an event: the call by which a module does it. A file that is opened for writing is one,
# and so is one that torch writes.
EVENTS: Final[tuple[tuple[ModuleType, str], ...]] = (
    *((os, name) for name in _CALLS),
    *((io, "open"), (builtins, "open"), (torch, "save")),
)
TORN: Final = frozenset({"write", "open", "save"})  # events that leave something half done
_REAL: Final = {event: getattr(*event) for event in EVENTS}
AGAIN: Final = 0.4
LONGEST_S: Final = 300.0  # of a child: one that takes longer hangs
LINGER_S: Final = 40.0  # for which children of a dead process may live on


class _Count:
    """How many events there were, and at which the process dies."""

    seen = 0
    at: int | None = None
    torn = False
    names: list[str] = []


def _arm(at: int | None, *, torn: bool = False) -> None:
    """Let the process die at an event; without one, only count."""
    _Count.seen, _Count.at, _Count.torn, _Count.names = 0, at, torn, []

    def guarded(event: tuple[ModuleType, str]) -> Callable[..., Any]:
        name, real = event[1], _REAL[event]

        def call(*words: Any, **options: Any) -> Any:
            if name == "open" and not _writes(*words, **options):
                return real(*words, **options)
            _Count.seen += 1
            _Count.names.append(name)
            if _Count.seen == _Count.at:
                if _Count.torn:
                    _half(name, real, words, options)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*words, **options)

        return call

    for event in EVENTS:
        setattr(*event, guarded(event))


def _writes(file: object, mode: str = "r", *_: Any, **__: Any) -> bool:
    return any(letter in mode for letter in "wax+")


def _half(name: str, real: Callable[..., Any], words: Any, options: Any) -> None:
    """Leave what a process leaves that dies in the middle of an event."""
    if name == "write":
        real(words[0], words[1][: max(1, len(words[1]) // 2)])
    elif name == "open":  # emptied, or made, and nothing written
        real(*words, **options)
    elif name == "save":
        real(*words, **options)
        os.truncate(words[1], Path(words[1]).stat().st_size // 2)


def disarm() -> None:
    """Give all calls back."""
    for event, real in _REAL.items():
        setattr(*event, real)


# -------------------------------------------------------------------------------- the scenarios


@dataclass(frozen=True)
class Scenario:
    """A piece of work.

    Args:
        work: Does it, in a folder, or resumes it.
        setup: Puts there what it needs.
        outcome: What lies there, to be compared.
        by_clock: Share of the deaths that come at a moment, not at an event.
        victims: Who dies then: the process, one that it has started, or all together.
    """

    work: Callable[[Path], object]
    setup: Callable[[Path], object] = lambda folder: None
    outcome: Callable[[Path], object] = lambda folder: digests(folder / "out")
    by_clock: float = 0.0
    victims: tuple[str, ...] = ("process",)


@dataclass(frozen=True)
class Death:
    """When a process dies.

    Args:
        at: Number of the event; None: at a moment.
        torn: In the middle of it, not before.
        moment: Seconds after the start.
        victim: Who dies at that moment.
    """

    at: int | None = None
    torn: bool = False
    moment: float = 0.0
    victim: str = "process"


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
    _ground_sources(folder)
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


def _ground_sources(folder: Path) -> None:
    """Write a scene and encoders, and vectors on the ground with polygons on them."""
    write_scene(folder / "scene.tif", texture(64, 96))
    save_encoder(scene_encoder(), folder / "embedder")
    for seed in (0, 1):
        save_encoder(small_encoder(seed), folder / f"encoder{seed}")
    patches, truth = world(size=(32, 32))
    write_tiff(folder / "patches.tif", patches)
    write_tiff(folder / "later.tif", world(size=(32, 32), seed=3)[0])
    on_disk(drawn(patches, truth), folder / "fields.gpkg")


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
        **_on_the_ground(sources),
    }  # fmt: skip


def _on_the_ground(sources: Path) -> dict[str, Scenario]:
    """Verbs of scenes, vectors and encoders; GDAL and Arrow write below Python."""
    vectors, fields = str(sources / "patches.tif"), str(sources / "fields.gpkg")

    def vectorised(folder: Path, **layout: object) -> None:
        model, scene = str(sources / "embedder"), sources / "scene.tif"
        embed(embed_config(scene, model, folder / "out", batch=2, **layout))

    def scenario(work: Callable[[str], object], outcome: Callable[[Path], object]) -> Scenario:
        return Scenario(lambda folder: work(_beside(folder)), outcome=outcome, by_clock=0.3)

    def written(folder: Path) -> object:
        return contents(folder / "out")

    both = [str(sources / f"encoder{seed}") for seed in (0, 1)]
    return {
        "embed chips": scenario(lambda out: vectorised(Path(out).parent, chips=8), written),
        "embed patches": scenario(lambda out: vectorised(Path(out).parent, chips=None, patches=True, stride=7), written),
        "map": scenario(lambda out: run_map(MapConfig(vectors, [fields], "class", out, block=560.0)), written),
        "search": scenario(lambda out: run_search(SearchConfig(vectors, like=[fields], out=out)), written),
        "change": scenario(lambda out: run_change(ChangeConfig(vectors, str(sources / "later.tif"), rate=0.05, window=9, out=out)), written),
        "explore": scenario(lambda out: run_explore(ExploreConfig(vectors, dimensions=4, out=f"{out}/explore.html")), written),
        "models merge": scenario(lambda out: merge_models(MergeModelsConfig(*both, out=out)), written),
    }  # fmt: skip


def _beside(folder: Path) -> str:
    """Go to a folder; return its `out` as a user names it, alike in every folder."""
    os.chdir(folder)
    return "out"


def contents(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder; of GeoPackages, which hold a time, their rows."""
    import geopandas

    found = digests(folder)
    for name in found:
        if name.endswith(".gpkg"):
            frame = geopandas.read_file(folder / name)
            found[name] = hashlib.sha256(frame.to_json().encode()).hexdigest()
    return found


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


@contextmanager
def orphans_adopted() -> Iterator[None]:
    """Let children of dead children be this process's own, so that it sees whether they end."""
    adopt = 36  # PR_SET_CHILD_SUBREAPER, of Linux
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(adopt, 1, 0, 0, 0)
    try:
        yield
    finally:
        if prctl is not None:
            prctl(adopt, 0, 0, 0, 0)


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Args:
        status: As `os.waitpid` has it.
        struck: One that it had started was killed.
        hung: It had to be ended.
        left: Children of its own outlived it.
        said: Its last words.
    """

    status: int
    struck: bool
    hung: bool
    left: bool
    said: str

    @property
    def killed(self) -> bool:
        """By SIGKILL, as was asked for; it, or one that it had started."""
        return self.struck or (os.WIFSIGNALED(self.status) and not self.hung)

    @property
    def silent(self) -> bool:
        """It failed without a word."""
        return os.WIFEXITED(self.status) and self.status != 0 and not self.said


def _child(scenario: Scenario, folder: Path, errors: Path, death: Death | None) -> Ended:
    """Do the work in a child, in a group of processes of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            # a runner of tests may have put a stream of its own here, whose words nobody would read
            sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
            _arm(None if death is None else death.at, torn=death is not None and death.torn)
            scenario.work(folder)
            disarm()
            if death is None:
                errors.with_suffix(".events").write_text(json.dumps(_Count.names))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(7)
    struck = False
    if death is not None and death.at is None:
        time.sleep(death.moment)
        struck = _kill(pid, death.victim)
    status, hung = _wait(pid, LONGEST_S)
    left = not _gone(pid, LINGER_S)
    if left:
        os.killpg(pid, signal.SIGKILL)
        _gone(pid, LINGER_S)
    return Ended(status, struck, hung, left, errors.read_text(errors="replace").strip())


def _kill(pid: int, victim: str) -> bool:
    """Kill a child, one that it has started (itself, where it has none), or all together.

    Returns:
        Whether it was one that the child had started.
    """
    try:
        if victim == "all":
            os.killpg(pid, signal.SIGKILL)
            return False
        started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        other = victim == "other" and bool(started)
        os.kill(int(started[0]) if other else pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return False  # it had ended
    return other


def _wait(pid: int, seconds: float) -> tuple[int, bool]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status, False
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1], True


def _gone(group: int, seconds: float) -> bool:
    """Return whether all processes of a group, those of a dead child, end in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if not os.waitpid(-group, os.WNOHANG)[0]:
                time.sleep(0.02)
        except ChildProcessError:
            return True
    return False


def _deaths(
    scenario: Scenario, events: list[str], seconds: float, kills: int, rng: random.Random
) -> list[Death]:
    """Draw when to die: at every event before some come twice, and at moments."""
    by_clock = round(kills * scenario.by_clock)
    points = [
        Death(number, torn)
        for number, event in enumerate(events, 1)
        for torn in ((False, True) if event in TORN else (False,))
    ]
    by_event = kills - by_clock
    deaths = rng.sample(points, min(by_event, len(points)))
    deaths += rng.choices(points, k=by_event - len(deaths))
    deaths += [
        Death(moment=rng.uniform(0, 0.8 * seconds), victim=rng.choice(scenario.victims))
        for _ in range(by_clock)
    ]
    rng.shuffle(deaths)
    return deaths


def run_scenario(
    name: str, scenario: Scenario, kills: int, seed: int, work: Path, seconds: float = 1e9
) -> Counter[str]:
    """Kill a piece of work so many times, or for so long; return what became of it.

    Where there are fewer points than that, each is taken, and some again with another second death.

    Args:
        name: What it is called.
        scenario: The work.
        kills: How often.
        seed: Of the choice of points.
        work: Folder for it; what is there is removed.
        seconds: After which it ends.
    """
    until = time.monotonic() + seconds
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    errors = work / "errors"

    def fresh(label: str) -> Path:
        folder = work / label
        folder.mkdir()
        scenario.setup(folder)
        return folder

    began = time.monotonic()
    whole = _child(scenario, fresh("reference"), errors, None)
    lasted = time.monotonic() - began
    if whole.status:
        raise RuntimeError(f"{name} does not end undisturbed: {whole.said}")
    events = json.loads(errors.with_suffix(".events").read_text())
    want = scenario.outcome(work / "reference")
    rng = random.Random(f"{seed}|{name}")
    found: Counter[str] = Counter(events=len(events))
    for death in _deaths(scenario, events, lasted, kills, rng):
        if time.monotonic() > until:
            break
        folder = fresh("x")
        ends = [_child(scenario, folder, errors, death)]
        if rng.random() < AGAIN:
            again = rng.randint(1, max(2, len(events) // 2))
            ends.append(_child(scenario, folder, errors, Death(again, death.torn)))
        last = _child(scenario, folder, errors, None)
        found["points"] += 1
        found["killed"] += sum(one.killed for one in ends)
        found["hangs"] += sum(one.hung for one in [*ends, last])
        found["left behind"] += sum(one.left for one in [*ends, last])
        found["silent"] += sum(one.silent for one in [*ends, last])
        wrong = "CANNOT RESUME" if last.status else ""
        found["cannot resume"] += bool(last.status)
        if not last.status and scenario.outcome(folder) != want:
            found["different"] += 1
            wrong = "DIFFERENT"
        if wrong or any(one.hung or one.left or one.silent for one in [*ends, last]):
            event = "" if death.at is None else f" ({events[death.at - 1]})"
            said = " | ".join(last.said.splitlines()[-6:])
            print(f"    {name}, {death}{event}: {wrong} {said}", file=sys.stderr, flush=True)
            if wrong == "DIFFERENT":
                print(f"      {difference(want, scenario.outcome(folder))}", file=sys.stderr)
        shutil.rmtree(folder)
        if not found["points"] % 10:
            print(f"      {name}: {dict(found)}", file=sys.stderr, flush=True)
    return found


def difference(want: object, found: object) -> object:
    """Return what differs of two outcomes."""
    if isinstance(want, dict) and isinstance(found, dict):
        return sorted(key for key in {*want, *found} if want.get(key) != found.get(key))
    return "all of it"


def run(
    made: dict[str, Scenario], kills: int, seed: int, work: Path, seconds: float = 1e9
) -> dict[str, Counter[str]]:
    """Kill pieces of work, each at most `kills` divided by their number of times."""
    found = {}
    with orphans_adopted():
        for name, scenario in made.items():
            began = time.monotonic()
            each = -(-kills // len(made))
            found[name] = run_scenario(name, scenario, each, seed, work, seconds)
            lasted = time.monotonic() - began
            print(f"{name}: {dict(found[name])}, {lasted:.0f} s", file=sys.stderr, flush=True)
    return found


_FAULTS: Final = ("cannot resume", "different", "hangs", "left behind", "silent")


def table(found: dict[str, Counter[str]]) -> str:
    """The counts as Markdown."""
    heads = ("events", "points", "killed", *_FAULTS)
    lines = ["| writer | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 1)]
    total: Counter[str] = Counter()
    for name, counts in found.items():
        total += counts
        lines.append(f"| {name} | " + " | ".join(str(counts[head]) for head in heads) + " |")
    lines.append("| all | " + " | ".join(str(total[head]) for head in heads) + " |")
    return "\n".join(lines)


def command(summary: str, kills: int, make: Callable[[Path], dict[str, Scenario]]) -> int:
    """Run from the command line.

    Args:
        summary: What `--help` says.
        kills: Of a run that asks for no number.
        make: Writes what the work needs into a folder, and returns the pieces of work.
    """
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="for each of them at most")
    parser.add_argument("--only", action="append")
    words = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder))
        chosen = {name: made[name] for name in words.only or made}
        found = run(chosen, words.kills, words.seed, Path(folder) / "work", words.seconds)
    print(table(found))
    return int(any(faults(counts) for counts in found.values()))


def faults(counts: Counter[str]) -> dict[str, int]:
    """Return what must not happen, and did."""
    return {head: counts[head] for head in _FAULTS if counts[head]}


def make(folder: Path) -> dict[str, Scenario]:
    """Every writer, and what it reads."""
    _small_shards()
    make_sources(folder / "sources")
    _labels_of(folder / "sources")
    return scenarios(folder / "sources")


if __name__ == "__main__":
    sys.exit(command(__doc__.splitlines()[0], 240, make))
