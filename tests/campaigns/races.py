"""Several processes that start at one moment on the same files: none fails, nothing is lost.

    python tests/campaigns/races.py --processes 20 --rounds 10

Benchmarks share a cold cache and a file of results. Runs of training resume one folder: one owns
it, the others wait and find the run complete, or are refused by name where they do not wait.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import kill_training
import kill_writers
import lightning as L
import torch

from eofm.bench.records import read_results
from eofm.bench.run import bench
from eofm.datasets.folder import BenchFolderConfig
from eofm.errors import ConfigError
from eofm.train import run_folder
from eofm.train.config import PretrainConfig
from eofm.train.monitor.run_log import StepLog

REFUSED: Final = 3  # what a child returns, and its status, if it was refused in words


def at_once(count: int, work: Callable[[int], object], errors: Path) -> Counter[str]:
    """Do a piece of work in so many children that start together; return what became of them."""
    start = time.time() + 0.5
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(os.open(errors / str(number), os.O_WRONLY | os.O_CREAT), 2)
                time.sleep(max(0.0, start - time.time()))
                os._exit(REFUSED if work(number) == REFUSED else 0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(7)
        pids.append(pid)
    found: Counter[str] = Counter(processes=count)
    for number, pid in enumerate(pids):
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        found["refused"] += code == REFUSED
        if code not in {0, REFUSED}:
            found["failed"] += 1
            said = (errors / str(number)).read_text().strip().splitlines()[-4:]
            print(f"    process {number}: {' | '.join(said)}", file=sys.stderr)
    return found


def run(processes: int, rounds: int) -> Counter[str]:
    """Let processes benchmark on one cold cache and one file of results, round after round."""
    torch.set_num_threads(1)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "sources"
        kill_writers.make_sources(sources)
        config = BenchFolderConfig(
            str(sources / "set"), sensor="s2-l1c", unit="dn", bands="B02,B03,B04",
            model="imagestats", probe="knn", k=1, controls=False, bootstrap=10,
        )  # fmt: skip
        for _ in range(rounds):
            work = Path(folder) / "work"
            shutil.rmtree(work, ignore_errors=True)
            (work / "errors").mkdir(parents=True)
            out, cache = str(work / "r.jsonl"), str(work / "cache")

            def score(number: int, out: str = out, cache: str = cache) -> object:
                return bench(replace(config, out=out, cache=cache, seed=number % 3))

            found += at_once(processes, score, work / "errors")
            keys = [one.key for one in read_results(work / "r.jsonl")]
            alone = len({one.seed for one in read_results(work / "r.jsonl")})
            found["records lost"] += min(3, processes) - alone
            found["records twice"] += len(keys) - len(set(keys))
            found["left behind"] += sum(".tmp" in path.name for path in (work / "cache").iterdir())
    return found


def resume(processes: int, rounds: int) -> Counter[str]:
    """Let processes resume one run that was killed; every second round they do not wait."""
    torch.set_num_threads(1)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = kill_training.settings(kill_training.write_store(folder / "store"))
        errors = folder / "errors"
        for part in ("whole", "killed", "errors"):
            (folder / part).mkdir()
        at_once(1, lambda _: kill_training.train(config, folder / "whole"), errors)
        at_once(1, lambda _: _killed(config, folder / "killed"), errors)
        want = kill_training.finished(folder / "whole")
        for number in range(rounds):
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(folder / "killed", work)
            wait = 0.0 if number % 2 else 300.0

            def go_on(_: int, work: Path = work, wait: float = wait) -> int:
                run_folder.WAIT_S = wait
                try:
                    kill_training.train(config, work)
                except ConfigError as error:
                    if "another process is training" in error.problem:
                        return REFUSED
                    raise
                return 0

            found += at_once(processes, go_on, errors)
            found["records lost"] += kill_training.finished(work) != want
    return found


def _killed(config: PretrainConfig, folder: Path) -> None:
    """Train until the fifth step, and die."""
    write = StepLog.on_train_batch_end

    def die(self: StepLog, trainer: L.Trainer, *rest: Any) -> None:
        write(self, trainer, *rest)
        if trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    StepLog.on_train_batch_end = die  # type: ignore[method-assign, assignment]
    kill_training.train(config, folder)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    words = parser.parse_args()
    found = {
        "bench": run(words.processes, words.rounds),
        "pretrain --run.resume": resume(min(words.processes, 4), words.rounds),
    }
    heads = ["processes", "refused", "failed", "records lost", "records twice", "left behind"]
    print("| race | " + " | ".join(heads) + " |\n" + "|---" * (1 + len(heads)) + "|")
    for name, counts in found.items():
        print(f"| {name} | " + " | ".join(str(counts[head]) for head in heads) + " |")
    return int(any(counts[head] for counts in found.values() for head in heads[2:]))


if __name__ == "__main__":
    sys.exit(main())
