"""Time of labelling a land-cover map: against np.unique per window, and against bare decoding.

    python benchmarks/speed/labels.py [--map MAP.tif --scheme worldcover] [--rounds 7]

Without a map, one of 10,032 x 10,032 pixels and 9 classes is made: fractal patches, tiled deflate,
1,444 windows of 264. All variants take turns in one run; the table holds medians and their ratios.

    in memory    the map is an array; every window is counted, by numpy and by the compiled loop
                 (extra `fast`; loaded before the clock starts)
    from file    the map is read with GDAL from the page cache. Bare decoding throws the pixels
                 away: by strips of one row of blocks over the whole width, as one reads a raster
                 in the first place; or by the pieces that `eofm labels` reads, about as large as a
                 core's second cache, in one thread or in two with a file handle each. `eofm labels`
                 is all of a run but finding the map and writing Parquet: pieces are decoded and
                 counted, and made into rows of the table
"""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window
from timing import report, speed_parser

from eofm.landcover import jobs
from eofm.landcover.maps import find_maps
from eofm.landcover.multilabel import GridCounter, Kernel, Legend, load_kernel
from eofm.landcover.schemes import SCHEMES, Scheme
from eofm.landcover.table import PresenceRule
from eofm.landcover.warp import CACHE_BYTES, Pieces, piece_shape
from eofm.raster import grid

WINDOW = 264
TEXT = """# Speed of `eofm labels`

    {command}

Medians of interleaved runs on {machine}; load {load} at the end. Ratios are to the first line of
the same kind: to np.unique in memory, to bare decoding by strips from file. `eofm labels` decodes
and counts in two threads of one process; that is compared with bare decoding in two threads, and
the same in one thread with one. Absolute figures say little.

{tables}
"""
DECODED = "from file: bare decoding, by strips, one thread"


def fractal_map(side: int, classes: int) -> np.ndarray:
    """Make patches of classes at all scales, equally frequent."""
    rng = np.random.default_rng(0)
    field = np.zeros((side, side), np.float32)
    step = 4
    while step <= side:
        cells = -(-side // step)
        coarse = rng.standard_normal((cells, cells)).astype(np.float32) * step**0.5
        field += np.kron(coarse, np.ones((step, step), np.float32))[:side, :side]
        step *= 4
    field += rng.standard_normal((side, side)).astype(np.float32)
    edges = np.quantile(field[::9, ::9], np.linspace(0, 1, classes + 1)[1:-1])
    return np.digitize(field, edges).astype(np.uint8)


def write_map(path: Path, codes: np.ndarray) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": 255, "crs": "EPSG:32632"}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    height, width = codes.shape
    transform = rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)
    with rasterio.open(
        path, "w", height=height, width=width, transform=transform, **profile, **layout
    ) as dataset:
        dataset.write(codes, 1)


def unique_loop(codes: np.ndarray) -> None:
    """Count window by window, as one writes it first."""
    for top in range(0, codes.shape[0] - WINDOW + 1, WINDOW):
        for left in range(0, codes.shape[1] - WINDOW + 1, WINDOW):
            np.unique(codes[top : top + WINDOW, left : left + WINDOW], return_counts=True)


def count(codes: np.ndarray, legend: Legend, kernel: Kernel | None) -> None:
    tops, lefts = (range(0, size - WINDOW + 1, WINDOW) for size in codes.shape)
    counter = GridCounter(tops, lefts, WINDOW, legend, kernel)
    counter.add(0, 0, codes)
    counter.counts()


def decode(path: Path) -> None:
    """Decode a map strip by strip."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(path) as dataset:
        lines = int(dataset.block_shapes[0][0])
        strip = np.empty((lines, dataset.width), np.uint8)
        for top in range(0, dataset.height, lines):
            height = min(lines, dataset.height - top)
            dataset.read(1, window=Window(0, top, dataset.width, height), out=strip[:height])


def decode_pieces(path: Path, threads: int) -> None:
    """Decode a map piece by piece, as `eofm labels` does."""

    def work(thread: int) -> None:
        with rasterio.open(path) as dataset:
            scratch = np.empty(lines * columns, np.uint8)
            for piece in pieces.of(thread):
                out = scratch[: piece.height * piece.width].reshape(piece.height, piece.width)
                window = Window(piece.col, piece.row, piece.width, piece.height)
                dataset.read(1, window=window, out=out)

    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        with rasterio.open(path) as dataset:
            lines, columns = piece_shape(dataset)
            whole = grid.Window(0, 0, dataset.height, dataset.width)
            pieces = Pieces(whole, lines, columns, threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))


def label(path: Path, scheme: Scheme, threads: int) -> None:
    """Label all windows of a map."""
    usual, jobs.THREADS = jobs.THREADS, threads
    rule = PresenceRule(scheme, 0, 0.25, True)
    for job in jobs.window_jobs(find_maps([str(path)]), WINDOW, WINDOW, rule, 2048):
        jobs.run_job(job)
    jobs.THREADS = usual


def take_turns(
    variants: Mapping[str, Callable[[], None]], rounds: int
) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each variant, on the wall and of the processor.

    One round does not count.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            begin = time.perf_counter(), time.process_time()
            run()
            if number:
                end = time.perf_counter(), time.process_time()
                times[name].append((end[0] - begin[0], end[1] - begin[1]))
    return {
        name: (statistics.median(w for w, _ in pairs), statistics.median(c for _, c in pairs))
        for name, pairs in times.items()
    }


def table(name: str, codes: np.ndarray, path: Path, scheme: Scheme, rounds: int) -> str:
    """Measure one map; return lines of markdown."""
    legend = Legend.of(scheme)
    seconds = take_turns(
        {
            "in memory: np.unique per window": lambda: unique_loop(codes),
            "in memory: eofm, numpy alone": lambda: count(codes, legend, None),
            "in memory: eofm, compiled": lambda: count(codes, legend, load_kernel()),
            DECODED: lambda: decode(path),
            "from file: bare decoding, one thread": lambda: decode_pieces(path, 1),
            "from file: eofm labels, one thread": lambda: label(path, scheme, 1),
            "from file: bare decoding, two threads": lambda: decode_pieces(path, 2),
            "from file: eofm labels, two threads": lambda: label(path, scheme, 2),
        },
        rounds,
    )
    windows = (codes.shape[0] // WINDOW) * (codes.shape[1] // WINDOW)
    naive, bare = next(iter(seconds.values())), seconds[DECODED]
    lines = [
        f"{name}: {codes.shape[0]:,} x {codes.shape[1]:,} pixels, {windows:,} windows of {WINDOW}, "
        f"{len(np.unique(codes))} codes",
        "",
        "| | windows/s | ratio | ratio of processor time |",
        "|---|---|---|---|",
    ]
    for what, (wall, cpu) in seconds.items():
        peer, peer_cpu = bare if what.startswith("from file") else naive
        ratios = f"{peer / wall:.2f} | {peer_cpu / cpu:.2f}"
        lines.append(f"| {what} | {windows / wall:,.0f} | {ratios} |")
    for threads in ("one thread", "two threads"):
        (wall, cpu), (peer, peer_cpu) = (
            seconds[f"from file: {what}, {threads}"] for what in ("eofm labels", "bare decoding")
        )
        lines += [
            "",
            f"Labels at {peer / wall:.2f} of the rate of bare decoding of the same pieces in "
            f"{threads}, {peer_cpu / cpu:.2f} by processor time.",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = speed_parser(__doc__, 7)
    parser.set_defaults(out=Path("benchmarks/results/speed_labels.md"))
    parser.add_argument("--map", type=Path)
    parser.add_argument("--scheme", default="worldcover", choices=list(SCHEMES))
    options = parser.parse_args()
    if load_kernel() is None:
        sys.exit("the compiled loop is measured too: pip install eofm[fast]")
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.tif"
        codes = fractal_map(38 * WINDOW, 9)
        write_map(path, codes)
        tables.append(table("Made", codes, path, SCHEMES["dynamic-world"], options.rounds))
    if options.map is not None:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(options.map) as dataset:
            codes = dataset.read(1)
        name = f"Real ({options.scheme})"
        tables.append(table(name, codes, options.map, SCHEMES[options.scheme], options.rounds))
    words = ["python", "benchmarks/speed/labels.py", *sys.argv[1:]]
    text = TEXT.format(
        command=shlex.join(Path(w).name if w == str(options.map) else w for w in words),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, numpy {np.__version__}, "
        f"GDAL {rasterio.__gdal_version__}",
        load=f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        tables="\n\n".join(tables),
    )
    report(text, options)


if __name__ == "__main__":
    main()
