"""Several processes that start at one moment on the same files: none fails, nothing is lost.

python tests/campaigns/races.py --processes 20 --rounds 10
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import kill_writers
import torch

from eofm.bench.records import read_results
from eofm.bench.run import bench
from eofm.datasets.folder import BenchFolderConfig


def at_once(count: int, work: Callable[[int], object], errors: Path) -> int:
    """Do a piece of work in so many children that start together; return how many failed."""
    start = time.time() + 0.5
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(os.open(errors / str(number), os.O_WRONLY | os.O_CREAT), 2)
                time.sleep(max(0.0, start - time.time()))
                work(number)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(7)
        pids.append(pid)
    failed = 0
    for number, pid in enumerate(pids):
        if os.waitpid(pid, 0)[1]:
            failed += 1
            said = (errors / str(number)).read_text().strip().splitlines()[-4:]
            print(f"    process {number}: {' | '.join(said)}", file=sys.stderr)
    return failed


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

            found["processes"] += processes
            found["failed"] += at_once(processes, score, work / "errors")
            keys = [one.key for one in read_results(work / "r.jsonl")]
            alone = len({one.seed for one in read_results(work / "r.jsonl")})
            found["records lost"] += min(3, processes) - alone
            found["records twice"] += len(keys) - len(set(keys))
            found["left behind"] += sum(".tmp" in path.name for path in (work / "cache").iterdir())
    return found


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    words = parser.parse_args()
    found = run(words.processes, words.rounds)
    heads = ["processes", "failed", "records lost", "records twice", "left behind"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    print("| " + " | ".join(str(found[head]) for head in heads) + " |")
    return int(any(found[head] for head in heads[1:]))


if __name__ == "__main__":
    sys.exit(main())
