"""Speed of feeding the trainer from a packed store, beside the usual loader, in one run.

    python benchmarks/speed/feeding.py [--patches 512] [--rounds 5] [--table FILE.md]

End to end: from the store to a batch on the device, in the dtype in which it is handed over. The
peer is what is usually written: a data set that makes a float32 cube of 13 bands at 10 m of every
sample, and torch's DataLoader with workers. Ours hands over native planes; making them one float32
grid is work of the device, which on a CPU costs the same wherever it is done: it has a line of its
own. Then, how long real training steps wait for batches. All variants take turns; what counts are
ratios of medians. Patches are random numbers at 264 px, read from the page cache.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pretrain_step import Stepper, write_store
from timing import DEVICE, command, machine, now, report, speed_parser
from torch.utils.data import DataLoader, Dataset

from eofm.contract.imagery import Labels
from eofm.contract.preprocess import to_grid
from eofm.store.reader import Store
from eofm.train.config import DataConfig, ModelConfig, OptimConfig, PretrainConfig, SoftConConfig
from eofm.train.datamodule import Batch, StoreDataModule

BATCH = 64
WORKERS = 2


class Cubes(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """The usual data set: every sample a float32 cube with its labels."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        labels = self.store.labels([row])
        return to_grid(self.store.images([row])).pixels[0], labels.multi_hot[0], labels.known[0]


def usual(store: Store, batches: int, workers: int) -> Callable[[], int]:
    """Read some batches with torch's DataLoader, its workers kept alive."""
    rows = np.random.default_rng(0).permutation(len(store))[: batches * BATCH].tolist()
    loader = DataLoader(
        torch.utils.data.Subset(Cubes(store), rows),
        batch_size=BATCH,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=DEVICE == "cuda",
    )

    def work() -> int:
        count = 0
        for cubes, hot, known in loader:
            count += len(cubes.to(DEVICE, non_blocking=True))
            Labels(hot, known).to(DEVICE, non_blocking=True)
        return count

    return work


def ours(data: StoreDataModule, batches: int, *, grid: bool) -> Callable[[], int]:
    """Read some batches with the loader of `eofm pretrain`."""
    loader = data.train_dataloader()
    device = torch.device(DEVICE)

    def endless() -> Iterator[Batch]:
        while True:
            loader.sampler.set_epoch(loader.sampler.epoch + 1)
            yield from loader

    stream = endless()

    def work() -> int:
        count = 0
        for _ in range(batches):
            imagery, _labels = data.transfer_batch_to_device(next(stream), device, 0)
            count += len(to_grid(imagery).pixels if grid else imagery)
        return count

    return work


def seconds_each(work: Callable[[], int]) -> float:
    """Return the seconds per patch of one turn."""
    began = now()
    count = work()
    return (now() - began) / count


def compare(store: Store, rounds: int) -> list[str]:
    """Time all loaders in turn and return a table."""
    whole = len(store) // BATCH
    config = DataConfig(holdout=0.0)
    made = [StoreDataModule(store, config, BATCH, 0) for _ in range(2)]
    variants = {
        f"DataLoader, float32 cube per sample, {WORKERS} workers": usual(store, 4, WORKERS),
        "DataLoader, float32 cube per sample, no worker": usual(store, 2, 0),
        "eofm, native planes": ours(made[0], whole, grid=False),
        "eofm, and one float32 grid made of them": ours(made[1], 2, grid=True),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, work in variants.items():
            taken = seconds_each(work)
            if turn:  # the first turn warms up
                times[name].append(taken)
    for data in made:
        data.close()
    medians = {name: float(np.median(values)) for name, values in times.items()}
    base = next(iter(medians.values()))
    lines = ["| loader | patches per second | x |", "|---|---:|---:|"]
    for name, median in medians.items():
        lines.append(f"| {name} | {1 / median:,.0f} | {base / median:.1f} |")
    return lines


def waiting(store: Store, base: PretrainConfig, rounds: int) -> list[str]:
    """Take real steps from the loader; return the share of the time spent waiting for batches."""
    lines = ["| network | batch | mask | waiting for batches |", "|---|---:|---:|---:|"]
    for name, size, batch, ratio in (("vit-tiny-14", 112, 32, 0.5), ("vits14", 224, 16, 0.75)):
        config = replace(
            base,
            model=ModelConfig(architecture=name, size=size),
            method=SoftConConfig(hidden=512, dim=128, mask_ratio=ratio),
            optim=OptimConfig(batch=batch),
        )
        stepper = Stepper(store, config)
        shares = []
        for turn in range(rounds + 1):
            waited, began = stepper.data.waited, now()
            for _ in range(2):
                stepper.step(stepper.load())
            if turn:
                shares.append((stepper.data.waited - waited) / (now() - began))
        stepper.data.close()
        lines.append(f"| {name} at {size} px | {batch} | {ratio:g} | {np.median(shares):.2%} |")
    return lines


def main() -> None:
    """Run all comparisons and print the report."""
    parser = speed_parser(__doc__, 5, append=True)
    parser.add_argument("--patches", type=int, default=512)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="eofm-speed-") as folder:
        store = write_store(Path(folder) / "store", args.patches, 264)
        base = PretrainConfig(data=DataConfig(store=str(store.path), holdout=0.0))
        lines = [*compare(store, args.rounds), "", *waiting(store, base, args.rounds)]
    report("\n".join([f"{command()} ({machine()})", "", *lines, ""]), args)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
