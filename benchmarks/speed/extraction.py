"""How much of a first benchmark run is the model, and what a second probe of it costs.

    python benchmarks/speed/extraction.py --root EUROSAT_MS [--model random:vits14] [--rounds 3]

Extraction from files (reading, canaries aside, plan, network; nothing cached) takes turns with the
same network on the same images already decoded in memory. Then one whole `eofm bench` run with an
empty cache of features, and one of another probe with that cache: both inside this process, so
without the start of Python. Medians.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timing import command, report, speed_parser

from eofm.bench.candidates import resolve_models
from eofm.bench.features import FeatureCache, extract
from eofm.bench.run import bench, limited
from eofm.bench.samples import load
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.datasets.images.chips import read_batches


def extraction(config: BenchEurosatConfig, rounds: int) -> tuple[float, float, int]:
    """Return the median seconds from files and from memory, and the number of images."""
    loaded = load(config)
    chips, task = limited(loaded, config.limit), loaded.task
    train = chips.splits["train"]
    candidates = resolve_models(
        config, task, lambda sensor, index: train[index].pixels[sensor].read(), len(train)
    )
    source = candidates[0].parts[0]
    held = list(read_batches(train, config.batch, 0))
    times: dict[str, list[float]] = {"files": [], "memory": []}
    for turn in range(rounds + 1):
        began = time.perf_counter()
        extract(
            [source],
            task.spec,
            f"turn {turn}",
            len(train),
            lambda: read_batches(train, config.batch, 0),
            FeatureCache(None),
        )
        files = time.perf_counter() - began
        began = time.perf_counter()
        for imagery in held:
            source.embed(imagery)
        memory = time.perf_counter() - began
        if turn:  # the first turn warms up
            times["files"].append(files)
            times["memory"].append(memory)
    return float(np.median(times["files"])), float(np.median(times["memory"])), len(train)


def whole(config: BenchEurosatConfig) -> float:
    """Return the seconds of one benchmark run."""
    began = time.perf_counter()
    bench(config)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = speed_parser(__doc__, 3)  # 0 rounds: only the two runs
    parser.add_argument("--root", required=True)
    parser.add_argument("--model", default="random:vits14")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = BenchEurosatConfig(
            root=given.root,
            model=given.model,
            controls=False,
            probe="knn",
            out=str(Path(folder) / "results.jsonl"),
            cache=str(Path(folder) / "features"),
        )
        if given.rounds:
            files, memory, images = extraction(base, given.rounds)
        first = whole(base)
        second = whole(replace(base, probe="nmc"))
    rows, rate = [], ""
    if given.rounds:
        rows = [
            f"| features of {images} tiles, from files | {files:.2f} |",
            f"| features of {images} tiles, from images in memory | {memory:.2f} |",
        ]
        rate = f"From files at {memory / files:.2f} of the rate from memory. "
    text = "\n".join(
        [
            "# Speed of the benchmark",
            "",
            f"{given.model} on 270 EuroSAT tiles, torch {torch.__version__}, "
            f"{torch.get_num_threads()} thread(s).",
            "",
            "| | seconds |",
            "|---|---:|",
            *rows,
            f"| `eofm bench`, empty cache, kNN | {first:.2f} |",
            f"| `eofm bench`, cached features, nearest mean | {second:.2f} |",
            "",
            f"{rate}A second probe takes {second / first:.1%} of the first run.",
            "",
            command(),
            "",
        ]
    )
    report(text, given)


if __name__ == "__main__":
    main()
