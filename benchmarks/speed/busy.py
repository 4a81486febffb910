"""Training beside other processes: threads that spin while they wait against threads that sleep.

    python benchmarks/speed/busy.py            # a few minutes; on a machine with nothing else to do

A loop like a training step (matrix products on all cores with a little Python between them) in
fresh processes, in turns: with the default of OpenMP, with a short spin, and with
OMP_WAIT_POLICY=PASSIVE, which the command line sets; each alone and beside one busy process for
every core. What is printed are steps per second, the median and the range of the rounds.

It times torch under either setting, and is the same for every version.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Final

POLICIES: Final[dict[str, dict[str, str]]] = {
    "default": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
UNSET: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
STEP: Final = """
import sys, time, torch
a = torch.randn(512, 384); w = torch.randn(384, 384)
def step():
    global a
    for _ in range(40):
        a = torch.nn.functional.layer_norm(a @ w, (384,))
    sum(range(20000))
step()  # the first one starts the threads
start, steps = time.monotonic(), 0
while time.monotonic() < start + float(sys.argv[1]):
    step()
    steps += 1
print(steps / (time.monotonic() - start))
"""
SPIN: Final = "while True: pass"


def rate(settings: dict[str, str], seconds: float, busy: int) -> float:
    """Return the steps per second of one process beside some busy ones, which are ended.

    Args:
        settings: Variables of its environment; those of `UNSET` are not inherited.
        seconds: How long it computes, beside the time to start.
        busy: How many processes spin beside it.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in UNSET}
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
    try:
        time.sleep(0.5 if busy else 0)
        done = subprocess.run(
            [sys.executable, "-c", STEP, str(seconds)],
            env={**inherited, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout)


def main(words: list[str] | None = None) -> None:
    """Measure in turns, and print a table.

    Args:
        words: As on the command line; None takes those of this process.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(words)
    cores = os.cpu_count() or 1
    if os.getloadavg()[0] > 0.3 * cores:
        sys.stderr.write(f"load average {os.getloadavg()[0]:.1f} on {cores} cores: not idle\n")
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(asked.rounds):
        for name, settings in POLICIES.items():
            for busy in (0, cores):
                found.setdefault((name, busy), []).append(rate(settings, asked.seconds, busy))
    print(f"| how threads wait | alone | beside {cores} busy processes |\n|---|---:|---:|")
    for name in POLICIES:
        cells = [found[name, busy] for busy in (0, cores)]
        words = [f"{statistics.median(c):.1f} ({min(c):.1f} to {max(c):.1f})" for c in cells]
        print(f"| {name} | {' | '.join(words)} |")


if __name__ == "__main__":
    main()
