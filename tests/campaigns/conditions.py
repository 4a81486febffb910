"""Every verb under every condition: it does its work, or says in words why not, and has a status.

    python tests/campaigns/conditions.py

A child of this process gets closed or full streams, a narrow terminal, a folder that cannot be
written, strange names, small limits or an odd environment, and runs the verb as the command line
does. A fault is a traceback, a death by a signal, a status other than 0, 1 and 2, or a failure
without a word.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import kill_training
import kill_writers
import torch

from eofm.cli import main as eofm_main
from eofm.cli.program import load
from eofm.cli.verbs import VERBS
from eofm.datasets.registry import DATASETS
from eofm.weights.encoder import save_encoder

LONGEST_S: Final = 60  # of the processor; a loaded machine takes ten times as long by the clock


def verbs(sources: Path) -> dict[str, list[str]]:
    """The words of every verb; OUT stands for what it writes."""
    store, packed, records = (
        str(sources / "store"),
        str(sources / "packed"),
        str(sources / "r.jsonl"),
    )
    image = ["--sensor", "s2-l1c", "--unit", "dn"]
    scene, vectors = str(sources / "scene.tif"), str(sources / "patches.tif")
    fields = str(sources / "fields.gpkg")
    short = ["--optim.epochs", "1", "--optim.batch", "4", "--model.size", "28", "--run.figures", "false",
             "--trainer.accelerator", "cpu", "--method.hidden", "16", "--method.dim", "8", "--data.holdout", "0.25"]  # fmt: skip
    seen = ["--sensor", "s2-l2a", "--unit", "dn", "--model", str(sources / "embedder")]
    sets = [name for name in VERBS if name.startswith("bench ") and name.split()[1] in DATASETS]
    return {
        "--help": ["--help"],
        # of most data sets nothing is there: the verb says what it looked for
        **{name: [*name.split(), "--root", str(sources), "--model", "imagestats", "--out", "OUT.jsonl"] for name in sets},
        "pack tiles": ["pack", "tiles", "--images", str(sources / "optical"), *image, "--window", "12",
                       "--bands", "B02", "B03", "B04", "--out", "OUT"],
        "pack eurosat": ["pack", "eurosat", "--root", str(sources / "optical"), "--out", "OUT"],
        "pack ssl4eo": ["pack", "ssl4eo", "--root", str(sources), "--sensor", "s2-l1c", "--out", "OUT"],
        "pack bigearthnet": ["pack", "bigearthnet", "--root", str(sources), "--sensor", "s2-l2a", "--out", "OUT"],
        "data check": ["data", "check", packed],
        "card": ["card", store, "--out", "OUT.md"],
        "data show": ["data", "show", packed, "--samples", "2", "--out", "OUT.png"],
        "data verify": ["data", "verify", store],
        "data stats": ["data", "stats", store, "--out", "OUT.json"],
        "data relabel": ["data", "relabel", packed, "--labels", str(sources / "of-store.parquet"),
                         "--missing", "unlabelled", "--ground", "all", "--out", "OUT"],
        "data upgrade": ["data", "upgrade", store, "--out", "OUT"],
        "data subset": ["data", "subset", store, "--sample", "3", "--out", "OUT"],
        "data merge": ["data", "merge", str(sources / "m1"), str(sources / "m2"), "--out", "OUT"],
        "labels": ["labels", str(sources / "maps"), "--scheme", "terramesh", "--window", "12", "--out", "OUT.parquet"],
        "world": ["world", "--scenes", "1", "--out", "OUT"],
        "bench folder": ["bench", "folder", "--root", str(sources / "set"), *image, "--bands", "B02,B03,B04",
                         "--model", "imagestats", "--probe", "knn", "--k", "1", "--controls", "false",
                         "--bootstrap", "10", "--out", "OUT.jsonl", "--cache", "OUT-cache"],
        "bench table": ["bench", "table", records],
        "bench plot": ["bench", "plot", records, "--out", "OUT"],
        "bench compare": ["bench", "compare", "imagestats", "imagestats", "--results", records],
        "bench export": ["bench", "export", records, "--out", "OUT"],
        "bench aggregate": ["bench", "aggregate", records],
        "bench validate": ["bench", "validate", records],
        "bench plan": ["bench", "plan", "eurosat", "softcon_vits14_s2"],
        "models list": ["models", "list"],
        "models info": ["models", "info", "softcon_vits14_s2"],
        "models download": ["models", "download", "softcon_vits14_s2", "--to", "OUT"],
        "models verify": ["models", "verify", str(sources / "encoder")],
        "models merge": ["models", "merge", str(sources / "encoder0"), str(sources / "encoder1"), "--out", "OUT"],
        "models export": ["models", "export", str(sources / "encoder"), "--to", "OUT"],
        "pretrain": ["pretrain", "--data.store", str(sources / "scenes"), "--run.out", "OUT", *short],
        "pretrain --run.resume": ["pretrain", "--run.out", "OUT", "--run.resume", "true"],
        "pretrain --dry-run": ["pretrain", "--data.store", str(sources / "scenes"), "--dry-run", *short],
        "report": ["report", str(sources / "store"), "--out", "OUT.html"],
        "report of a run": ["report", str(sources / "run"), "--out", "OUT.html"],
        "embed chips": ["embed", scene, *seen, "--chips", "16", "--out", "OUT"],
        "embed patches": ["embed", scene, *seen, "--patches", "--out", "OUT"],
        "embed --explain": ["embed", scene, *seen, "--out", "OUT", "--explain"],
        "map": ["map", vectors, "--labels", fields, "--field", "class", "--block", "560", "--out", "OUT"],
        "search": ["search", vectors, "--like", fields, "--out", "OUT"],
        "change": ["change", vectors, str(sources / "later.tif"), "--rate", "0.05", "--window", "9", "--out", "OUT"],
        "explore": ["explore", vectors, "--dimensions", "4", "--out", "OUT.html"],
        "completion": ["completion", "bash"],
    }  # fmt: skip


def _stream(number: int, target: str | None) -> Callable[[], None]:
    def change() -> None:
        if target is None:
            os.close(number)
        else:
            os.dup2(os.open(target, os.O_WRONLY), number)

    return change


def _limit(what: int, size: int) -> Callable[[], None]:
    def change() -> None:
        if what == resource.RLIMIT_FSIZE:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(what, (size, resource.getrlimit(what)[1]))

    return change


def _environ(**words: str | None) -> Callable[[], None]:
    def change() -> None:
        for name, value in words.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return change


def _nothing() -> None:
    """Change nothing."""


def _ascii() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="ascii", errors="strict")  # type: ignore[union-attr]


# name -> (what is changed, the path that OUT stands for)
CONDITIONS: Final[Mapping[str, tuple[Callable[[], None], str]]] = {
    "plain": (_nothing, "{work}/out"),
    "stdout closed": (_stream(1, None), "{work}/out"),
    "stderr closed": (_stream(2, None), "{work}/out"),
    "stdin closed": (_stream(0, None), "{work}/out"),
    "stdout full": (_stream(1, "/dev/full"), "{work}/out"),
    "stderr full": (_stream(2, "/dev/full"), "{work}/out"),
    "ASCII terminal": (_ascii, "{work}/out"),
    "output below a file": (_nothing, "{work}/file/out"),
    "output on a read-only disk": (_nothing, "/proc/self/out"),
    "a name of 300 characters": (_nothing, "{work}/" + "x" * 300),
    "a name that is not UTF-8": (_nothing, "{work}/" + os.fsdecode(b"o\xffut")),
    "a name with U+2028": (_nothing, "{work}/o\u2028ut"),
    "output exists as a folder": (_nothing, "{work}/there"),
    "files of 4 kB at most": (_limit(resource.RLIMIT_FSIZE, 4096), "{work}/out"),
    "files of 0 bytes": (_limit(resource.RLIMIT_FSIZE, 0), "{work}/out"),
    "24 open files": (_limit(resource.RLIMIT_NOFILE, 24), "{work}/out"),
    "umask 777": (lambda: [os.umask(0o777), None][1], "{work}/out"),
    "offline": (_environ(EOFM_OFFLINE="y"), "{work}/out"),
    "no home": (_environ(HOME=None, XDG_CACHE_HOME=None, EOFM_OFFLINE="1"), "{work}/out"),
    "no temporary folder": (_environ(TMPDIR="/nowhere"), "{work}/out"),
    "SLURM without srun": (_environ(SLURM_NTASKS="4", SLURM_JOB_ID="1"), "{work}/out"),
    "another time zone": (_environ(TZ="Pacific/Kiritimati", LC_ALL="C"), "{work}/out"),
}


def _run(words: Sequence[str], change: Callable[[], None], said: Path) -> int:
    """Run a verb in a child under a condition; return how it ended."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            out = os.open(said.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(handle, 2)
            os.dup2(out, 1)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
            keep = os.dup(handle)
            signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
            signal.alarm(10 * LONGEST_S)
            change()
            try:
                code = eofm_main(words)
            except SystemExit as done:
                code = int(done.code or 0)
        except BaseException:
            os.write(keep, traceback.format_exc().encode(errors="replace"))
            code = 71
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def judge(status: int, said: str, condition: str) -> str:
    """What is wrong with how a verb ended; empty if nothing is."""
    if os.WIFSIGNALED(status):
        return f"died by {signal.Signals(os.WTERMSIG(status)).name}"
    code = os.WEXITSTATUS(status)
    if "Traceback" in said or code in {70, 71}:
        return "traceback: " + said.strip().splitlines()[-1][:120] if said.strip() else "traceback"
    if code not in {0, 1, 2}:
        return f"status {code}"
    # what is said goes to a file, into which no byte can be written where files have none
    silent = condition.startswith(("stderr", "files of 0 bytes"))
    if code and not said.strip() and not silent:
        return f"status {code} without a word"
    return ""


def run(
    verb_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    pairs: int | None = None,
    seed: int = 0,
) -> Counter[str]:
    """Run verbs under conditions, or so many drawn pairs; return how many ended in what way."""
    torch.set_num_threads(1)
    for verb in VERBS.values():  # or every child would import what its verb needs
        load(verb.action)
    found: Counter[str] = Counter()
    os.environ["EOFM_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "sources"
        # threads of this process would be missing in its forks, which then may wait for them
        maker = multiprocessing.get_context("spawn").Process(target=make_sources, args=(sources,))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise RuntimeError("what the verbs read could not be made")
        kinds = verbs(sources)
        chosen = list(itertools.product(names or CONDITIONS, verb_names or kinds))
        if pairs is not None:
            chosen = random.Random(seed).sample(chosen, min(pairs, len(chosen)))
        for condition, verb in chosen:
            change, out = CONDITIONS[condition]
            work = Path(folder) / "work"
            shutil.rmtree(work, ignore_errors=True)
            (work / "there").mkdir(parents=True)
            (work / "there" / "something").touch()
            (work / "file").touch()
            place = out.format(work=work)
            words = [word.replace("OUT", place) for word in kinds[verb]]
            said = Path(folder) / "said.txt"
            status = _run(words, change, said)
            text = said.read_text(errors="replace")
            fault = judge(status, text, condition)
            found["runs"] += 1
            found[f"condition {condition}"] += 1
            found["fault" if fault else f"status {os.WEXITSTATUS(status)}"] += 1
            if fault:
                print(f"    {verb} | {condition}: {fault}", file=sys.stderr, flush=True)
    return found


def make_sources(sources: Path) -> None:
    """What the verbs read."""
    kill_writers.make_sources(sources)
    kill_writers._labels_of(sources)
    scenario = kill_writers.scenarios(sources)["bench"]
    scenario.work(sources)
    (sources / "out.jsonl").rename(sources / "r.jsonl")
    kill_training.train(
        kill_training.settings(kill_training.write_store(sources / "scenes")), sources
    )
    (sources / "out").rename(sources / "run")
    save_encoder(kill_writers.small_encoder(0), sources / "encoder")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verb", action="append")
    parser.add_argument("--condition", action="append", choices=list(CONDITIONS))
    parser.add_argument("--pairs", type=int, help="so many of them, drawn; default all")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    found = run(words.verb, words.condition, words.pairs, words.seed)
    heads = ["runs", "status 0", "status 1", "status 2", "fault"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    print("| " + " | ".join(str(found[head]) for head in heads) + " |")
    print({name: count for name, count in found.items() if name.startswith("condition")})
    return int(found["fault"] > 0)


if __name__ == "__main__":
    sys.exit(main())
