"""Speed of reading a packed store, beside its limits and its peers, in one run.

    pip install torchgeo litdata webdataset
    python benchmarks/speed/store.py [--patches 1024] [--rounds 7] [--table FILE.md]
    python benchmarks/speed/store.py --scenes 20000 --size 132 [--keep STORE]  # the whole way, once

All variants take turns, so that a machine whose speed drifts treats them alike; what counts are
ratios of medians. Patches are 13 bands of random numbers at native resolution, with the mean and
spread of SSL4EO-S12: this is about speed. Everything is read from the page cache, where a cold read
of each file has put it: what has just been written lies there in pages of whatever size its writer
chose, and is slower to copy. Reading is given per second of processor time, which is what one core
can do; loaders per second of the clock too.
LitData and WebDataset are given our native planes, uncompressed; LitData also the usual cube.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timing import DEVICE, command, machine, report, speed_parser
from torch.utils.data import DataLoader, Dataset

from eofm.contract.imagery import NativeImagery
from eofm.contract.preprocess import to_grid
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, ImageSpec, Sensor, Unit, resolution_groups
from eofm.loading.feeder import Feeder
from eofm.loading.sampler import epoch_rows
from eofm.store.config import SubsetConfig, VerifyConfig
from eofm.store.describe import verify_store
from eofm.store.edit import subset_store
from eofm.store.format import HEADER_BYTES, LabelRule, StoreCard
from eofm.store.reader import Store
from eofm.store.writer import Entry, StoreWriter

BANDS = SENSOR_BANDS[Sensor.S2_L1C]
GROUPS = resolution_groups(BANDS)
THREE = ("B04", "B03", "B02")
BATCH = 64
CLASSES = tuple(f"class-{i}" for i in range(9))
Box = tuple[float, float, float, float]  # west, south, east, north
WORLD: Box = (-170.0, -60.0, 170.0, 70.0)


# ------------------------------------------------------------------------------- patches


def patches(count: int, size: int) -> Iterator[dict[int, np.ndarray]]:
    """Yield native-resolution planes; a few dozen different ones, again and again."""
    stats = STATISTICS["ssl4eo-s12-l1c"]
    rng = np.random.default_rng(0)
    pool = []
    for _ in range(min(count, 32)):
        planes = {}
        for gsd, names in GROUPS.items():
            index = [BANDS.index(name) for name in names]
            mean = np.array(stats.mean)[index].reshape(-1, 1, 1)
            std = np.array(stats.std)[index].reshape(-1, 1, 1)
            side = size * 10 // gsd
            noise = rng.standard_normal((len(names), side, side))
            planes[gsd] = (mean + std * noise).clip(1).astype(np.uint16)
        pool.append(planes)
    for i in range(count):
        yield pool[i % len(pool)]


def write_store(path: Path, count: int, size: int, box: Box = WORLD) -> Store:
    """Pack patches with random labels, at random places of a box."""
    spec = ImageSpec(Sensor.S2_L1C, BANDS, Unit.DN, (size, size), 10.0)
    rule = LabelRule("dynamic-world", CLASSES, 0.0, 0.25)
    valid = torch.ones(1, size, size, dtype=torch.bool)
    rng = np.random.default_rng(1)
    card = StoreCard(spec, GROUPS, rule, {}, {"synthetic": True})
    with StoreWriter(path, card) as writer:
        for i, planes in enumerate(patches(count, size)):
            hot = (1, *(int(x) for x in rng.random(8) < 0.3))
            place = f"{i:07d}"
            share = tuple(h / sum(hot) for h in hot)
            where = (float(rng.uniform(*box[::2])), float(rng.uniform(*box[1::2])))
            entry = Entry(place, place, "", *where, "", place, "dn", share, hot, True, 1.0)
            tensors = {gsd: torch.from_numpy(plane[None]) for gsd, plane in planes.items()}
            writer.append(entry, NativeImagery(tensors, GROUPS, spec, valid))
            writer.source_done(place, 0)
        writer.finish()
    return Store(path)


def write_tifs(root: Path, count: int, size: int) -> None:
    """Write patches in the layout of SSL4EO-S12, one uncompressed tif per band."""
    import rasterio
    from rasterio.transform import from_origin

    for i, planes in enumerate(patches(count, size)):
        folder = root / "s2c" / f"{i:07d}" / "20210117T104259_20210117T104300_T31TFJ"
        folder.mkdir(parents=True)
        for gsd, names in GROUPS.items():
            for name, plane in zip(names, planes[gsd], strict=True):
                with rasterio.open(
                    folder / f"{name.replace('B0', 'B')}.tif",
                    "w",
                    driver="GTiff",
                    count=1,
                    height=plane.shape[0],
                    width=plane.shape[1],
                    dtype="uint16",
                    crs="EPSG:32631",
                    transform=from_origin(600_000, 5_000_000, gsd, gsd),
                ) as file:
                    file.write(plane, 1)


def cube_of(planes: dict[int, np.ndarray]) -> np.ndarray:
    """Return all bands on the finest grid, by repeating pixels: the form that peers are given."""
    size = planes[10].shape[1]
    cube = np.empty((len(BANDS), size, size), np.uint16)
    for gsd, names in GROUPS.items():
        for name, plane in zip(names, planes[gsd], strict=True):
            cube[BANDS.index(name)] = plane.repeat(gsd // 10, 0).repeat(gsd // 10, 1)
    return cube


def write_webdataset(folder: Path, count: int, size: int) -> str:
    """Write patches into tar files of 256 samples."""
    import webdataset as wds

    folder.mkdir()
    with wds.ShardWriter(f"{folder}/%05d.tar", maxcount=256, verbose=0) as sink:
        for i, planes in enumerate(patches(count, size)):
            arrays = {f"p{gsd}.npy": plane for gsd, plane in planes.items()}
            sink.write({"__key__": f"{i:07d}", **arrays})
    return f"{folder}/{{00000..{(count - 1) // 256:05d}}}.tar"


def write_litdata(folder: Path, count: int, size: int, *, cubes: bool) -> str:
    """Write patches into chunks of 256 samples."""
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_size=256)
    for i, planes in enumerate(patches(count, size)):
        arrays = {"cube": cube_of(planes)} if cubes else {f"p{g}": p for g, p in planes.items()}
        writer[i] = {name: torch.from_numpy(array) for name, array in arrays.items()}
    writer.done()
    writer.merge()
    return str(folder)


def settle(folder: Path) -> None:
    """Drop all files from the page cache, and read each once from the disk."""
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        with file.open("rb", buffering=0) as raw:
            if hasattr(os, "posix_fadvise"):
                os.fsync(raw.fileno())
                os.posix_fadvise(raw.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while raw.read(4 * 1024**2):
                pass


# ------------------------------------------------------------------------------ variants


@dataclass
class Timed:
    """One variant: what it does, and how long it took per patch, round by round."""

    name: str
    work: Callable[[], int]
    wall: list[float]
    processor: list[float]

    def run(self, keep: bool) -> None:
        """Do it once; the first time only warms up."""
        wall, processor = time.perf_counter(), time.process_time()
        count = self.work()
        if keep:
            self.processor.append((time.process_time() - processor) / count)
            self.wall.append((time.perf_counter() - wall) / count)


class Cubes(Dataset[torch.Tensor]):
    """The usual loader: one float32 cube on one grid per sample."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> torch.Tensor:
        return to_grid(self.store.images([row])).pixels[0]


def bare_reads(store: Store, order: np.ndarray, buffers: int) -> Callable[[], int]:
    """Read as many bytes as a patch has at random places of a file, into buffers in turn."""
    handle = os.open(store.piece(0, "10m"), os.O_RDONLY)
    size = store.card.row_bytes
    places = (os.fstat(handle).st_size - HEADER_BYTES) // size
    ring = memory(buffers, size)

    def work() -> int:
        for i, row in enumerate(order.tolist()):
            os.preadv(handle, [ring[i % buffers].data], HEADER_BYTES + row % places * size)
        return len(order)

    return work


def bare_copies(store: Store, order: np.ndarray, buffers: int) -> Callable[[], int]:
    """Copy as many bytes from a memory map of that file."""
    mapped = np.memmap(store.piece(0, "10m"), np.uint8, "r", HEADER_BYTES).view(np.ndarray)
    size = store.card.row_bytes
    ring = memory(buffers, size)

    def work() -> int:
        for i, row in enumerate(order.tolist()):
            begin = row % (len(mapped) // size) * size
            ring[i % buffers] = mapped[begin : begin + size]
        return len(order)

    return work


def memory(buffers: int, size: int) -> np.ndarray:
    """Return memory that has been touched, aligned as torch aligns it."""
    return torch.zeros(buffers, size, dtype=torch.uint8).numpy()


def on_device(planes: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Bring all of them to the device."""
    return [plane.to(DEVICE) for plane in planes]


def consume(batches: Iterator[NativeImagery], *, grid: bool = False) -> int:
    """Bring batches to the device, and to one grid where that is wanted."""
    count = 0
    for images in batches:
        moved = images.to(DEVICE)
        if grid:
            to_grid(moved)
        count += len(moved)
    return count


def readers(store: Store, tifs: Path, tif_count: int) -> list[Timed]:
    """Return what reads patches on one core."""
    from torchgeo.datasets import SSL4EOS12

    order = np.random.default_rng(0).permutation(len(store))
    batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    geo = SSL4EOS12(tifs, "s2c")

    def torchgeo() -> int:
        for i in range(tif_count):
            geo[i]
        return tif_count

    def one_by_one() -> int:
        for row in order.tolist():
            store.images([row])
        return len(order)

    def by_batch(bands: tuple[str, ...] | None) -> Callable[[], int]:
        return lambda: sum(len(store.images(rows, bands)) for rows in batches)

    def fed(bands: tuple[str, ...] | None) -> Callable[[], int]:
        feeder = Feeder(store, BATCH, ahead=1, threads=1, bands=bands)
        return lambda: sum(len(images) for images, _ in feeder.feed(batches))

    variants = {
        "torchgeo SSL4EOS12": torchgeo,
        "bare pread of as many bytes": bare_reads(store, order, 1),
        "bare pread into the memory of a batch": bare_reads(store, order, BATCH),
        "bare copy from a memory map into the same": bare_copies(store, order, BATCH),
        "Store.images, one by one": one_by_one,
        "Store.images, batches of 64": by_batch(None),
        "Store.images, 3 of 13 bands": by_batch(THREE),
        "Feeder": fed(None),
        "Feeder, 3 of 13 bands": fed(THREE),
    }
    return [Timed(name, work, [], []) for name, work in variants.items()]


def loaders(store: Store, tar: str, chunks: dict[str, str]) -> list[Timed]:
    """Return what makes batches that are ready for the device."""
    import litdata
    import webdataset as wds

    order = np.random.default_rng(1).permutation(len(store))
    batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    feeder = Feeder(store, BATCH, ahead=2, threads=2)
    keys = [f"p{gsd}" for gsd in GROUPS]

    def cubes(workers: int) -> Callable[[], int]:
        def work() -> int:
            some = torch.utils.data.Subset(Cubes(store), order[: 4 * BATCH].tolist())
            loader = DataLoader(some, batch_size=BATCH, num_workers=workers)
            return sum(len(batch.to(DEVICE)) for batch in loader)

        return work

    def lit(folder: str, workers: int) -> Callable[[], int]:
        def work() -> int:
            dataset = litdata.StreamingDataset(folder, shuffle=False)
            loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)
            return sum(len(next(iter(on_device(b.values())))) for b in loader)

        return work

    def web() -> int:
        names = [f"{key}.npy" for key in keys]
        dataset = wds.WebDataset(tar, shardshuffle=False).decode().to_tuple(*names).batched(BATCH)
        count = 0
        for batch in dataset:
            count += len(on_device(torch.as_tensor(plane) for plane in batch)[0])
        return count

    variants = {
        "float32 cube per sample, no worker": cubes(0),
        "float32 cube per sample, 2 workers": cubes(2),
        "LitData, our native planes": lit(chunks["native"], 0),
        "LitData, our native planes, 2 workers": lit(chunks["native"], 2),
        "LitData, uint16 cubes": lit(chunks["cubes"], 0),
        "WebDataset, our native planes": web,
        "Feeder, native": lambda: consume(i for i, _ in feeder.feed(batches)),
        "Feeder, on one grid in float32": lambda: consume(
            (i for i, _ in feeder.feed(batches[:4])), grid=True
        ),
    }
    return [Timed(name, work, [], []) for name, work in variants.items()]


def table(rows: list[Timed], base: str) -> list[str]:
    """Return a table of medians and of ratios to one variant."""
    medians = {t.name: (float(np.median(t.wall)), float(np.median(t.processor))) for t in rows}
    lines = [
        f"| | patches per processor second | x {base} | patches per second | x {base} |",
        "|---|---|---|---|---|",
    ]
    for name, (wall, processor) in medians.items():
        there = medians[base]
        core = f"{1 / processor:,.0f} | {there[1] / processor:.1f}"
        if "workers" in name:  # other processes have clocks of their own
            core = "- | -"
        lines.append(f"| {name} | {core} | {1 / wall:,.0f} | {there[0] / wall:.1f} |")
    return lines


def compare(patches_: int, rounds: int, tif_count: int) -> list[str]:
    """Run all variants in turn and return the report."""
    folder = Path(tempfile.mkdtemp(prefix="eofm-speed-"))
    try:
        store = write_store(folder / "store", patches_, 264)
        write_tifs(folder / "tifs", tif_count, 264)
        tar = write_webdataset(folder / "tar", patches_, 264)
        chunks = {
            form: write_litdata(folder / form, patches_, 264, cubes=form == "cubes")
            for form in ("native", "cubes")
        }
        settle(folder)
        one_core = readers(store, folder / "tifs", tif_count)
        ends = loaders(store, tar, chunks)
        for turn in range(rounds + 1):
            for variant in (*one_core, *ends):
                variant.run(keep=turn > 0)
    finally:
        shutil.rmtree(folder)
    three = (3 * 264 * 264 * 2 + 264 * 264 // 8) / store.card.row_bytes
    return [
        *table(one_core, "torchgeo SSL4EOS12"),
        "",
        f"Three of 13 bands, with the mask, are {three:.2f} of the bytes: {1 / three:.2f} times as "
        "fast would be in proportion.",
        "",
        *table(ends, "float32 cube per sample, no worker"),
    ]


def whole_way(scenes: int, size: int, box: Box, keep: Path | None) -> list[str]:
    """Pack, verify, subset and read a large store, once, and return a line for each."""
    folder = Path(tempfile.mkdtemp(prefix="eofm-speed-"))
    path = keep or folder / "s"
    lines = [f"| {scenes:,} scenes, 13 bands at {size} | scenes per second |", "|---|---|"]

    def timed(name: str, work: Callable[[], object], count: int = scenes) -> object:
        begun = time.perf_counter()
        done = work()
        lines.append(f"| {name} | {count / (time.perf_counter() - begun):,.0f} |")
        return done

    try:
        store = timed("pack and label (one process)", lambda: write_store(path, scenes, size, box))
        assert isinstance(store, Store)  # noqa: S101
        timed("open", lambda: Store(store.path))
        timed("verify (2 threads)", lambda: verify_store(VerifyConfig(str(store.path), 2)))
        some = SubsetConfig(str(store.path), str(folder / "t"), sample=scenes // 10)
        timed("subset, a tenth", lambda: subset_store(some), scenes // 10)
        rows = epoch_rows(scenes, 0, 0, batch=BATCH)
        feeder = Feeder(store, BATCH)
        timed("feed, shuffled", lambda: consume(i for i, _ in feeder.feed(rows)), rows.size)
        timed("feed again", lambda: consume(i for i, _ in feeder.feed(rows)), rows.size)
        size_gb = scenes * store.card.row_bytes / 1e9
    finally:
        shutil.rmtree(folder)
    return [*lines, "", f"{size_gb:.1f} GB of pixels."]


def main() -> None:
    parser = speed_parser(__doc__, 7, append=True)
    parser.add_argument("--patches", type=int, default=1024)
    parser.add_argument("--tifs", type=int, default=24)
    parser.add_argument("--scenes", type=int, default=0, help="go the whole way once instead")
    parser.add_argument("--size", type=int, default=132, help="of those scenes")
    parser.add_argument("--keep", type=Path, help="write that store here, and leave it")
    parser.add_argument(
        "--box", type=float, nargs=4, default=WORLD, help="where its places are: W S E N"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.scenes:
        lines = whole_way(args.scenes, args.size, tuple(args.box), args.keep)
    else:
        lines = compare(args.patches, args.rounds, args.tifs)
    report("\n".join([f"{command()} ({machine()})", "", *lines, ""]), args)


if __name__ == "__main__":
    main()
