"""Time of reading BigEarthNet pairs from GeoTIFFs: eofm against torchgeo and plain rasterio.

    python benchmarks/speed/geotiff.py [--copies 10] [--rounds 7] [--out benchmarks/results/...]

The six published pairs (EOFM_REAL_DATA) are copied, so that as many files lie in the layout of the
full set; all come from the page cache, so what counts is CPU time, and that is what is taken: wall
time would measure the neighbours on a shared machine. A pair is 12 bands of Sentinel-2 and 2 of
Sentinel-1: 14 files. The variants take turns in one run; medians and ratios are printed. One
thread.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import rasterio
import torch
from timing import command, report, speed_parser

from eofm.contract.preprocess import to_grid
from eofm.contract.spec import Sensor
from eofm.datasets.bigearthnet import Version
from eofm.datasets.bigearthnet.patches import BigEarthNet

REAL = Path(os.environ.get("EOFM_REAL_DATA", Path(__file__).parents[2].parent / "shared/data"))
FAST = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}


def replicate(real: Path, root: Path, copies: int) -> list[tuple[str, str]]:
    """Copy the six pairs under names that differ in their position; return (S2, S1) names."""
    here = BigEarthNet(real, Version.V1, None)
    pairs = []
    for name, radar in sorted(here.radar.items()):
        for copy in range(copies):
            new = []
            for folder in (here.optical[name], radar):
                stem = folder.name.rsplit("_", 2)[0] + f"_{copy}_{len(pairs)}"
                target = root / folder.parent.name / stem
                target.mkdir(parents=True)
                for file in folder.iterdir():
                    shutil.copyfile(file, target / file.name.replace(folder.name, stem))
                card = target / f"{stem}_labels_metadata.json"
                if new:
                    card.write_text(card.read_text().replace(name, new[0]))
                new.append(stem)
            pairs.append((new[0], new[1]))
    return pairs


def peer(root: Path, pairs: list[tuple[str, str]]) -> Callable[[int], torch.Tensor]:
    """Return torchgeo's way to read a pair: bands resampled to 120 pixels, (14, 120, 120)."""
    from torchgeo.datasets import BigEarthNet as Theirs

    for split in ("train", "val", "test"):
        name = Theirs.splits_metadata[split]["filename"]
        (root / name).write_text("\n".join(",".join(pair) for pair in pairs) + "\n")
    theirs = Theirs(str(root), split="train", bands="all", num_classes=19)
    return theirs._load_image  # the pixels alone, without reading labels


def plain(files: list[list[str]], options: Mapping[str, str]) -> Callable[[int], object]:
    """Return a loop of rasterio over the 14 files of a pair, at native size."""

    def read(i: int) -> object:
        with rasterio.Env(**options):
            bands = []
            for file in files[i]:
                with rasterio.open(file, driver="GTiff") as dataset:
                    bands.append(dataset.read(1))
        return bands

    return read


def main() -> None:
    """Print the table."""
    parser = speed_parser(__doc__, 7)
    parser.add_argument("--copies", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pairs = replicate(REAL / "bigearthnet_v1", root, options.copies)
        lines = measure(root, pairs, options.rounds)
        lines += fractions(root, pairs)
    head = ["# BigEarthNet pairs from GeoTIFFs", "", command(), ""]
    report("\n".join([*head, *lines]) + "\n", options)


def measure(root: Path, pairs: list[tuple[str, str]], rounds: int) -> list[str]:
    """Return the table of times."""
    data = BigEarthNet(root, Version.V1, None)
    both = [
        [data.source(name, sensor) for sensor in (Sensor.S2_L2A, Sensor.S1_GRD)]
        for name, _ in pairs
    ]

    def native(i: int) -> object:
        images = []
        for source in both[i]:
            with source.open() as raster:
                images.append(raster.read_native())
        return images

    files = [[str(file) for source in sources for file in source.files] for sources in both]
    variants: dict[str, Callable[[int], object]] = {
        "torchgeo `BigEarthNet`: bilinear to 120 pixels, int32": peer(root, pairs),
        "rasterio, GDAL's defaults: native size, no checks": plain(files, {}),
        "rasterio, folder listing and PAM off": plain(files, FAST),
        "rasterio, and the CRS from the keys": plain(
            files, {**FAST, "GTIFF_SRS_SOURCE": "GEOKEYS"}
        ),
        "**eofm: native size, mask, same ground checked, CRS once**": native,
        "eofm: bilinear to 120 pixels, float32": lambda i: [to_grid(x) for x in native(i)],
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):  # the first fills the page cache
        for name, read in variants.items():
            start = time.process_time()
            for i in range(len(pairs)):
                read(i)
            if number:
                times[name].append((time.process_time() - start) / len(pairs))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = next(iter(medians.values()))
    rows = [
        f"| {name} | {1 / median:.0f} | {base / median:.1f} |" for name, median in medians.items()
    ]
    head = ["| a pair of 14 files | pairs per CPU second | x torchgeo |", "|---|---|---|"]
    return [
        *head,
        *rows,
        "",
        f"{len(pairs)} pairs, {rounds} rounds in turns, medians, warm cache.",
        "",
    ]


def fractions(root: Path, pairs: list[tuple[str, str]]) -> list[str]:
    """Say what becomes of Sentinel-1 values."""
    data = BigEarthNet(root, Version.V1, None)
    theirs = torch.stack([peer(root, pairs)(i)[:2] for i in range(len(pairs))]).numpy()
    ours = np.stack(
        [data.source(name, Sensor.S1_GRD).read().pixels[0].numpy() for name, _ in pairs]
    )
    error = np.abs(theirs[:, ::-1] - ours)  # theirs is VH, VV
    return [
        f"Sentinel-1: {np.mean(theirs != theirs.round()):.0%} of torchgeo's values have a fraction "
        f"of a decibel, {np.mean(ours != ours.round()):.0%} of eofm's. torchgeo's are off by "
        f"{error.mean():.2f} dB in the mean and {error.max():.2f} dB at most, and its first "
        "channel is VH.",
    ]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
