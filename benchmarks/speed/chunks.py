"""Memory and time of a step in chunks, against the whole batch and against accumulated batches.

    python benchmarks/speed/chunks.py [--architecture vits14] [--size 112] [--batch 64] [--chunk 8]

Each variant runs in a process of its own, since a process never gives its peak back; all take the
same steps, and the processes take turns. Printed are, one JSON line each, the peak of the resident
memory above that before the first step (of the GPU's own memory where there is one), CPU seconds
and wall seconds of a step, and the number of negatives an image has. Imagery is random numbers:
this is about memory and speed, not learning. CPU seconds are what counts while other work is
going on.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from timing import DEVICE
from torch.optim import AdamW

from eofm import method as softcon
from eofm.contract.imagery import Labels
from eofm.networks.vit import build_vit

BANDS, CLASSES = 13, 9


def megabytes() -> float:
    """Peak memory so far."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Take some steps of one variant."""
    generator = torch.Generator().manual_seed(0)
    trunk = build_vit(args.architecture, BANDS, (args.size, args.size), generator)
    settings = softcon.SoftConConfig(hidden=512, dim=128, mask_ratio=args.mask_ratio)
    method = softcon.SoftCon(trunk, settings, generator).to(DEVICE)
    chunk = args.chunk if args.variant == "chunks" else 0
    for branch in (method.student, method.teacher):
        branch.chunk = chunk
    parts = args.batch // args.chunk if args.variant == "accumulated" else 1
    optimizer = AdamW([p for p in method.parameters() if p.requires_grad], fused=True)
    size = args.batch // parts
    views = torch.randn(2, size, BANDS, args.size, args.size, generator=generator).to(DEVICE)
    hot = (torch.rand(size, CLASSES, generator=generator) < 0.4).to(torch.uint8).to(DEVICE)
    labels = Labels(hot, torch.ones(size, dtype=torch.bool, device=DEVICE))
    before, cpu, wall = megabytes(), [], []
    for _ in range(args.steps):
        began, spent = time.perf_counter(), time.process_time()
        for _ in range(parts):
            output = method((views[0], views[1]), labels, generator)
            (output.loss / parts).backward()
        optimizer.step()
        optimizer.zero_grad()
        softcon.update_teacher(method.teacher, method.student, 0.99)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
    return {
        "variant": args.variant,
        "device": DEVICE,
        "batch": args.batch,
        "chunk": args.chunk if args.variant != "whole" else args.batch,
        "negatives": size - 1,
        "peak_mb": round(megabytes() - before),
        "cpu_s": round(statistics.median(cpu[1:]), 3),
        "wall_s": round(statistics.median(wall[1:]), 3),
    }


def main() -> None:
    """Run every variant in turn, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="vits14")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--mask_ratio", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--variant", choices=("whole", "chunks", "accumulated"))
    args = parser.parse_args()
    if args.variant is not None:
        print(json.dumps(measure(args)), flush=True)
        return
    for _ in range(args.rounds):
        for variant in ("whole", "chunks", "accumulated"):
            command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
