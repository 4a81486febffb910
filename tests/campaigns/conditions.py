"""Every verb under every condition: it does its work, or says in words why not, and has a status.

    python tests/campaigns/conditions.py

A child of this process gets closed or full streams, a narrow terminal, a folder that cannot be
written, strange names, small limits or an odd environment, and runs the verb as the command line
does. A fault is a traceback, a death by a signal, a status other than 0, 1 and 2, or a failure
without a word.

With `--inputs`, one input of the verb is replaced by a folder, an empty file, a truncated file or a
file of another kind; a failure has to name it. With `--signals`, SIGINT or SIGTERM arrives while
the verb works; the status is then 130 or 143, and the same command has to finish afterwards, with
the output of an undisturbed run.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import multiprocessing
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
        "bench compare": ["bench", "compare", "imagestats", "rcf", "--results", records],
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


def _little_memory() -> None:
    """Leave 64 MB of addresses beyond those that are in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + (64 << 20))()


def _disk(*, read_only: bool) -> Callable[[], None]:
    """Mount a disk of 16 kB on the folder `disk`, seen by this process alone; else limit files."""

    def change() -> None:
        new_namespace, private, libc = 0x20000, 1 << 18 | 1 << 14, ctypes.CDLL(None)
        if (
            libc.unshare(new_namespace)
            or libc.mount(None, b"/", None, private, None)
            or libc.mount(b"tmpfs", b"disk", b"tmpfs", int(read_only), b"size=16k")
        ):
            _limit(resource.RLIMIT_FSIZE, 0 if read_only else 4096)()

    return change


def _no_folder() -> None:
    """Remove the working folder."""
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()


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
    "a full disk": (_disk(read_only=False), "{work}/disk/out"),
    "a read-only disk": (_disk(read_only=True), "{work}/disk/out"),
    "little memory": (_little_memory, "{work}/out"),
    "no working folder": (_no_folder, "{work}/out"),
    "umask 077": (lambda: [os.umask(0o077), None][1], "{work}/out"),
    "umask 777": (lambda: [os.umask(0o777), None][1], "{work}/out"),
    "offline": (_environ(EOFM_OFFLINE="y"), "{work}/out"),
    "no home": (_environ(HOME=None, XDG_CACHE_HOME=None, EOFM_OFFLINE="1"), "{work}/out"),
    "no temporary folder": (_environ(TMPDIR="/nowhere"), "{work}/out"),
    "SLURM without srun": (_environ(SLURM_NTASKS="4", SLURM_JOB_ID="1"), "{work}/out"),
    "C locale": (_environ(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0"), "{work}/out"),
    "another time zone": (_environ(TZ="Pacific/Kiritimati", LC_ALL="C"), "{work}/out"),
}


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _file_instead(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"not a folder\n")


def _of_another_kind(path: Path) -> None:
    kinds = {".tif": b"{}\n", ".json": b"II*\x00", ".parquet": b"a,b\n1,2\n"}
    path.write_bytes(kinds.get(path.suffix, b"PAR1\x00\x00PAR1"))


# name -> what is done to a file
SPOILED: Final[Mapping[str, Callable[[Path], None]]] = {
    "a folder in place of a file": _folder_instead,
    "an empty file": lambda path: os.truncate(path, 0),
    "a truncated file": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a file of another kind": _of_another_kind,
    "no file": lambda path: path.unlink(),
}
# and to a folder
_SPOILED_FOLDERS: Final[Mapping[str, Callable[[Path], None]]] = {
    "a file in place of a folder": _file_instead,
    "an empty folder": lambda path: [shutil.rmtree(path), path.mkdir()][1],
}


def _inputs(words: Sequence[str], sources: Path) -> list[int]:
    """Places of the words that name what a verb reads."""
    return [
        i for i, word in enumerate(words)
        if word.startswith(f"{sources}/") and Path(word).exists()
    ]  # fmt: skip


def spoil_input(
    words: Sequence[str], sources: Path, work: Path, how: str, rng: random.Random
) -> tuple[list[str], Path]:
    """Copy one input of a verb, spoil it or a file in it; return the words and what was spoiled."""
    places = _inputs(words, sources)
    at = rng.choice([i for i in places if how in SPOILED or Path(words[i]).is_dir()])
    given = Path(words[at])
    copied = work / "in" / given.name
    copied.parent.mkdir()
    if given.is_dir():
        shutil.copytree(given, copied)
    else:
        shutil.copy(given, copied)
    spoiled = copied
    if how in SPOILED:
        if copied.is_dir():
            spoiled = rng.choice(sorted(path for path in copied.rglob("*") if path.is_file()))
        SPOILED[how](spoiled)
    else:
        _SPOILED_FOLDERS[how](copied)
    return [*words[:at], str(copied), *words[at + 1 :]], spoiled


def _run(
    words: Sequence[str],
    change: Callable[[], None],
    work: Path,
    stop: tuple[int, float] | None = None,
) -> tuple[int, str]:
    """Run a verb in a child under a condition; return how it ended, and its stderr and stdout.

    Args:
        words: Arguments.
        change: Makes the condition.
        work: Working folder.
        stop: Signal that it gets, and when: in seconds.
    """
    said = work.with_name("said.txt")
    begun, begins = os.pipe()
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
            os.chdir(work)
            os.close(begun)
            os.close(begins)
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
    os.close(begins)
    os.read(begun, 1)  # until the child has closed it
    os.close(begun)
    if stop is not None:
        time.sleep(stop[1])
        os.kill(pid, stop[0])  # it is not waited for yet: the number is still its own
    status = os.waitpid(pid, 0)[1]
    texts = [file.read_text(errors="replace") for file in (said, said.with_suffix(".out"))]
    return status, "".join(texts)


def judge(status: int, said: str, condition: str, stop: int | None = None) -> str:
    """What is wrong with how a verb ended; empty if nothing is."""
    if os.WIFSIGNALED(status):
        return f"died by {signal.Signals(os.WTERMSIG(status)).name}"
    code = os.WEXITSTATUS(status)
    if "Traceback" in said or code in {70, 71}:
        return "traceback: " + said.strip().splitlines()[-1][:120] if said.strip() else "traceback"
    if code not in {0, 1, 2} and (stop is None or code != 128 + stop):
        return f"status {code}"
    # what is said goes to a file, into which no byte can be written where files have none
    silent = condition.startswith(("stderr", "files of 0 bytes"))
    if code and not said.strip() and not silent:
        return f"status {code} without a word"
    return ""


@dataclass
class Trials:
    """The verbs, what they read, and what was found."""

    sources: Path
    work: Path
    show: bool = False
    found: Counter[str] = field(default_factory=Counter)

    def words(self, verb: str, out: str = "{work}/out") -> list[str]:
        """The words of a verb, in a fresh working folder."""
        shutil.rmtree(self.work, ignore_errors=True)
        (self.work / "there").mkdir(parents=True)
        (self.work / "there" / "something").touch()
        (self.work / "file").touch()
        (self.work / "disk").mkdir()
        place = out.format(work=self.work)
        return [word.replace("OUT", place) for word in verbs(self.sources)[verb]]

    def under(self, verb: str, condition: str) -> None:
        """Run a verb under a condition."""
        change, out = CONDITIONS[condition]
        status, said = _run(self.words(verb, out), change, self.work)
        self._count(verb, condition, status, said, judge(status, said, condition))

    def spoiled(self, verb: str, how: str, rng: random.Random) -> None:
        """Run a verb on a spoiled input: words that name it, or a status of 0."""
        words, spoiled = spoil_input(self.words(verb), self.sources, self.work, how, rng)
        status, said = _run(words, _nothing, self.work)
        fault = judge(status, said, how)
        given = self.work / "in" / spoiled.relative_to(self.work / "in").parts[0]
        if not fault and status and str(given) not in said:
            fault = f"the words do not name {spoiled.relative_to(self.work)}"
        where = f"{how}: {spoiled.relative_to(self.work / 'in')}"
        self._count(verb, where, status, said, fault)

    def stopped(self, verb: str, signum: int, rng: random.Random) -> None:
        """Stop a verb by a signal, and give the same command again: as if undisturbed."""
        words = self.words(verb)
        began = time.monotonic()
        undisturbed, _ = _run(words, _nothing, self.work)
        took = time.monotonic() - began
        want = kill_writers.contents(self.work)
        moment = 0.05 + rng.random() * took
        words = self.words(verb)
        status, said = _run(words, _nothing, self.work, (signum, moment))
        name = signal.Signals(signum).name
        fault = judge(status, said, name, signum)
        if not fault and status:  # without it, the work was done before
            again, last = _run(_printed(said) or words, _nothing, self.work)
            fault = judge(again, last, name)
            if not fault and again != undisturbed:
                fault = f"status {os.WEXITSTATUS(again)} after it: {last.strip()[:200]}"
            elif not fault and kill_writers.contents(self.work).keys() != want.keys():
                fault = "other files after it"
        self._count(verb, f"{name} after {moment:.2f} of {took:.2f} s", status, said, fault)

    def _count(self, verb: str, condition: str, status: int, said: str, fault: str) -> None:
        self.found["runs"] += 1
        self.found[f"condition {condition.partition(':')[0].partition(' after')[0]}"] += 1
        self.found["fault" if fault else f"status {os.WEXITSTATUS(status)}"] += 1
        if fault or self.show:
            print(f"    {verb} | {condition}: {fault or status >> 8}", file=sys.stderr, flush=True)
        if self.show:
            print("        " + said.strip().replace("\n", "\n        "), file=sys.stderr)


def _printed(said: str) -> list[str]:
    """The words of the command that resumes, as it was printed."""
    after = said.partition("stopped by SIG")[2].splitlines()
    return next((shlex.split(line)[1:] for line in after if line.startswith("    eofm ")), [])


def _drawn(pairs: list[tuple[str, str]], count: int | None, seed: int) -> list[tuple[str, str]]:
    return pairs if count is None else random.Random(seed).sample(pairs, min(count, len(pairs)))


@contextmanager
def _trials(sources: Path | None, *, show: bool) -> Iterator[Trials]:
    torch.set_num_threads(1)
    for verb in VERBS.values():  # or every child would import what its verb needs
        load(verb.action)
    os.environ["EOFM_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        if sources is None:
            sources = Path(folder) / "sources"
            # threads of this process would be missing in its forks, which then may wait for them
            context = multiprocessing.get_context("spawn")
            maker = context.Process(target=make_sources, args=(sources,))
            maker.start()
            maker.join()
            if maker.exitcode:
                raise RuntimeError("what the verbs read could not be made")
        yield Trials(sources, Path(folder) / "work", show)


def run(
    verb_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    pairs: int | None = None,
    seed: int = 0,
    *,
    kind: str = "conditions",
    sources: Path | None = None,
    show: bool = False,
) -> Counter[str]:
    """Run verbs under conditions, or so many drawn pairs; return how many ended in what way.

    Args:
        verb_names: Verbs; default all.
        names: Conditions, ways to spoil an input, or names of signals; default all.
        pairs: Number of pairs to draw; default all.
        seed: Of the draw, of what is spoiled and of moments.
        kind: A key of `KINDS`.
        sources: What the verbs read, if it exists.
        show: Print what every verb that failed said.
    """
    with _trials(sources, show=show) as trials:
        tried = verb_names or list(verbs(trials.sources))
        chosen = list(itertools.product(names or KINDS[kind], tried))
        for name, verb in _drawn(chosen, pairs, seed):
            rng = random.Random(f"{seed}|{verb}|{name}")
            if kind == "conditions":
                trials.under(verb, name)
            elif kind == "signals":
                trials.stopped(verb, signal.Signals[name], rng)
            elif _has_input(trials, verb, name):
                trials.spoiled(verb, name, rng)
        return trials.found


KINDS: Final[Mapping[str, Sequence[str]]] = {
    "conditions": list(CONDITIONS),
    "inputs": [*SPOILED, *_SPOILED_FOLDERS],
    "signals": ["SIGINT", "SIGTERM"],
}


def _has_input(trials: Trials, verb: str, how: str) -> bool:
    words = verbs(trials.sources)[verb]
    given = [Path(words[i]) for i in _inputs(words, trials.sources)]
    return any(path.is_dir() or how in SPOILED for path in given)


def make_sources(sources: Path) -> None:
    """What the verbs read."""
    kill_writers.make_sources(sources)
    kill_writers._labels_of(sources)
    places = {"OUT.jsonl": str(sources / "r.jsonl"), "OUT-cache": str(sources / "cache")}
    for model in ("imagestats", "rcf"):
        named = {**places, "imagestats": model}
        if eofm_main([named.get(word, word) for word in verbs(sources)["bench folder"]]):
            raise RuntimeError(f"the records of {model} could not be made")
    kill_training.train(
        kill_training.settings(kill_training.write_store(sources / "scenes")), sources
    )
    (sources / "out").rename(sources / "run")
    save_encoder(kill_writers.small_encoder(0), sources / "encoder")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verb", action="append")
    parser.add_argument("--condition", action="append", help="or way to spoil an input, or signal")
    parser.add_argument("--pairs", type=int, help="so many of them, drawn; default all")
    parser.add_argument("--seed", type=int, default=0)
    kind = parser.add_mutually_exclusive_group()
    for name in ("inputs", "signals"):
        kind.add_argument(f"--{name}", action="store_const", dest="kind", const=name)
    parser.add_argument("--sources", type=Path, help="what the verbs read, if it exists")
    parser.add_argument("--show", action="store_true", help="what every verb that failed said")
    words = parser.parse_args()
    found = run(
        words.verb, words.condition, words.pairs, words.seed,
        kind=words.kind or "conditions", sources=words.sources, show=words.show,
    )  # fmt: skip
    heads = ["runs", "status 0", "status 1", "status 2", "status 130", "status 143", "fault"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    print("| " + " | ".join(str(found[head]) for head in heads) + " |")
    print({name: count for name, count in found.items() if name.startswith("condition")})
    return int(found["fault"] > 0)


if __name__ == "__main__":
    sys.exit(main())
