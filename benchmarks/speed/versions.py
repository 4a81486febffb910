"""CPU time of everything that is timed here: this version against another one, in turns.

    git worktree add ../other 7c2020e
    python benchmarks/speed/versions.py ../other [--rounds 9] [--pairs 4] [--table FILE.md]
    python benchmarks/speed/versions.py ../other --only labels

The main verbs, on real data (EOFM_REAL_DATA): EuroSAT tiles and BigEarthNet patches through
`eofm.read_geotiff`, TerraMesh sites through `eofm pack tiles`, that store through `eofm.Store`, a
WorldCover tile through `eofm labels`, that store through `eofm pretrain` (a tiny ViT at 56 px, so
that feeding, views, masks and losses weigh as much as the network), the tiles through `eofm bench
eurosat`: first with an empty cache of features, then with a filled one and a probe. The short run
is taken twice: without evaluations, where both versions do the same; and with them, where this one
also looks for a collapse after 1, 2, 4, ... 64 steps and writes a verdict.

Then what the other scripts of this folder time, by their own functions in either version:
`feeding.py` (batches from a store, as they are stored and on one grid), `chunks.py` (steps of
training from memory, whole as in `step.py` and in chunks), `linear_probe.py`. Of `geotiff.py`,
`store.py`, `labels.py`, `extraction.py` and `pretrain_step.py` the verbs above are the
counterparts; `embed.py`, `search.py`, `terms.py` and `busy.py` time what 0.1 does not have.

Two processes, one per version, with one thread each, take turns task by task, so that both meet the
same machine; a task is prepared and done once before it is timed. Several pairs of processes follow
one another: where a process happens to lie in memory moves its times by more than the rounds differ
(a store that is only read: 0.87 to 1.03 between pairs). What counts is the ratio of CPU times,
round by round: its median over all pairs. With `--rounds 3 --pairs 2` all tasks take some minutes.
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
from functools import cached_property
from pathlib import Path

REAL = Path(os.environ.get("EOFM_REAL_DATA", Path(__file__).parents[2].parent / "shared/data"))
EUROSAT = [*(f"B{i:02d}" for i in range(1, 13)), "B8A"]  # in the order of the files
BATCHES = 4  # of 64 patches, of which feeding takes so many


def quietly(*words: str) -> None:
    """Run a command without its output."""
    from eofm.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        failed = main(list(words))
    if failed:
        raise SystemExit(f"failed: {' '.join(words)}\n{said.getvalue()}")


class Tasks:
    """The work; a task is prepared when it is asked for. Only names of both versions are used.

    Args:
        folder: What is written lies there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, itertools.count()
        self.known: dict[str, Callable[[], Callable[[], object]]] = {
            "read a multi-band tile (EuroSAT)": self.read_tiles,
            "read a file per band (BigEarthNet)": self.read_patches,
            "pack with labels (TerraMesh)": self.pack,
            "read a store": self.read_store,
            "labels of windows (WorldCover)": self.label,
            "train a small run (TerraMesh)": lambda: self.train(0),
            "the same, with evaluations": lambda: self.train(4),
            "features and neighbours (EuroSAT)": self.embed,
            "linear probe of kept features (EuroSAT)": self.probe,
            "linear probe, ten strengths of a large one": self.large_probe,
            "feed batches of native planes": lambda: self.feed(grid=False),
            "feed batches, made one float32 grid": lambda: self.feed(grid=True),
            "a step from memory, batch whole": lambda: self.chunks("whole"),
            "a step from memory, in chunks": lambda: self.chunks("chunks"),
        }

    def new(self, name: str) -> str:
        """Return a path that nothing lies at."""
        return str(self.folder / f"{name}{next(self._count)}")

    # ------------------------------------------------------------------------------------- verbs

    def pack_words(self, out: str, stride: int) -> list[str]:
        """Return the command that packs TerraMesh sites with labels."""
        words = ["pack", "tiles", "--images", str(REAL / "terramesh/S2L2A"), "--sensor", "s2-l2a"]
        words += ["--unit", "dn", "--window", "56", "--stride", str(stride), "--landcover"]
        words += [str(REAL / "terramesh/LULC"), "--scheme", "terramesh"]
        return [*words, "--allow_unlabelled", "true", "--out", out]

    @cached_property
    def store(self) -> str:
        """The path of a store of 120 windows, in which a run's end weighs little."""
        quietly(*self.pack_words(out := self.new("few"), 28))
        return out

    def read_tiles(self) -> Callable[[], object]:
        """Read EuroSAT tiles."""
        import eofm

        tiles = sorted((REAL / "eurosat_ms").rglob("*.tif"))[:120]
        return lambda: [
            eofm.read_geotiff(f, sensor="s2-l1c", unit="dn", bands=EUROSAT) for f in tiles
        ]

    def read_patches(self) -> Callable[[], object]:
        """Read BigEarthNet patches."""
        import eofm

        patches = sorted((REAL / "bigearthnet_v1/BigEarthNet-v1.0").iterdir()) * 4
        return lambda: [eofm.read_geotiff(f, sensor="s2-l2a", unit="dn") for f in patches]

    def pack(self) -> Callable[[], object]:
        """Pack a store of many windows."""
        return lambda: quietly(*self.pack_words(self.new("store"), 7))

    def read_store(self) -> Callable[[], object]:
        """Read a store of many windows ten times, in order: once takes too little to be timed."""
        import eofm

        quietly(*self.pack_words(path := self.new("store"), 7))
        kept = eofm.Store(path)
        rows = list(range(len(kept)))
        starts = [*range(0, len(rows), 64)] * 10
        return lambda: [kept.images(rows[i : i + 64]) for i in starts]

    def label(self) -> Callable[[], object]:
        """Label a map."""
        words = ["labels", str(REAL / "esa_worldcover"), "--scheme", "worldcover"]
        return lambda: quietly(*words, "--window", "264", "--out", self.new("labels") + ".parquet")

    def train(self, every: int) -> Callable[[], object]:
        """Train a run of 24 steps, which is evaluated after so many epochs; 0 for never."""
        words = ["pretrain", "--data.store", self.store, "--model.architecture", "vit-tiny-14"]
        words += ["--model.size", "56", "--optim.batch", "32", "--optim.epochs", "8"]
        words += ["--method.symmetric", "true", "--method.mask_ratio", "0.5"]
        words += ["--method.head", "moco3", "--method.hidden", "512", "--method.dim", "128"]
        words += ["--augment.engine", "fused", "--trainer.accelerator", "cpu"]
        words += ["--trainer.precision", "32-true", "--run.figures", "false", "--run.readers", "1"]
        words += ["--monitor.every_epochs", str(every), "--optim.lr", "1e-3"]
        return lambda: quietly(*words, "--run.out", self.new("run"))

    def bench_words(self, *more: str) -> list[str]:
        """Return the command that scores random weights on EuroSAT."""
        words = ["bench", "eurosat", "--root", str(REAL / "eurosat_ms"), "--controls", "false"]
        words += ["--model", "random:vit-tiny-14", "--bootstrap", "100", "--device", "cpu"]
        return [*words, *more, "--out", self.new("records") + ".jsonl"]

    def embed(self) -> Callable[[], object]:
        """Embed some tiles, and ask their neighbours."""
        words = ("--limit", "40", "--probe", "knn", "--k", "5")
        return lambda: quietly(*self.bench_words(*words, "--cache", self.new("cache")))

    def probe(self) -> Callable[[], object]:
        """Fit a linear probe to features that are kept."""
        words = ("--probe", "linear", "--cache", self.new("cache"))
        return lambda: quietly(*self.bench_words(*words))

    # ------------------------------------------------------------ by the scripts of either version

    def large_probe(self) -> Callable[[], object]:
        """Fit ten strengths to many synthetic features."""
        import linear_probe
        import torch

        generator = torch.Generator().manual_seed(0)
        x = linear_probe.features(6_000, 192, generator)
        y = linear_probe.labels(x, 10, generator)
        return lambda: linear_probe.sweep(x, y)

    @cached_property
    def patches(self) -> object:
        """A store of random patches at 132 px."""
        import pretrain_step

        return pretrain_step.write_store(Path(self.new("patches")), BATCHES * 64, 132)

    def feed(self, *, grid: bool) -> Callable[[], object]:
        """Hand over batches."""
        import feeding

        from eofm.train.config import DataConfig
        from eofm.train.datamodule import StoreDataModule

        data = StoreDataModule(self.patches, DataConfig(holdout=0.0), feeding.BATCH, 0)
        return feeding.ours(data, BATCHES, grid=grid)

    def chunks(self, variant: str) -> Callable[[], object]:
        """Take steps of a batch in memory."""
        import chunks

        given = argparse.Namespace(
            architecture="vit-tiny-14", size=56, batch=32, chunk=8, mask_ratio=0.5, steps=4
        )
        given.variant = variant
        return lambda: chunks.measure(given)


def serve(root: Path) -> None:
    """Do the tasks that are asked for, line by line, and answer with their CPU seconds.

    Args:
        root: Of the version, whose own scripts are used.
    """
    sys.path.insert(0, str(root / "benchmarks/speed"))
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tasks, ready = Tasks(Path(folder)), dict[str, Callable[[], object]]()
        print(json.dumps(list(tasks.known)), flush=True)
        for name in map(str.rstrip, sys.stdin):
            if name not in ready:
                ready[name] = tasks.known[name]()
                ready[name]()
            before = time.process_time()
            ready[name]()
            print(time.process_time() - before, flush=True)


class Version:
    """A process that has one version imported and does what it is asked."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(root.resolve())]
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
    parser.add_argument("--only", default="", help="tasks with these letters in their names")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    seconds: dict[str, list[tuple[float, float]]] = {}
    for _ in range(options.pairs):
        other, this = Version(options.other), Version(Path(__file__).parents[2])
        for name in (task for task in other.tasks if options.only in task):
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
