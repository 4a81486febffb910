"""Speed of embedding a whole scene, beside its network alone, in one run.

    python benchmarks/speed/embed.py [--side 1792] [--rounds 5] [--table FILE.md]

Variants take turns, over the same windows of a Level-1C scene of 13 bands:

- *network alone*: windows already prepared, as tensors in memory: the limit.
- *eofm embed*: from the file to the finished GeoTIFF: read ahead by threads, checked, prepared,
  blended, written block by block so that it can be killed.
- *plain loop*: what is usually written: a window is read, prepared and embedded, and added to an
  array in memory; nothing is checked or written, and the whole result must fit into memory.
- *terratorch tiled_inference*, where terratorch is installed: the prepared scene in memory, same
  windows and overlap, its default source and sink. It places what a window gives pixel by pixel, so
  that tokens are repeated over their patch, as its users do it: the result is 196 times as large.

What counts are ratios of medians: of time, and of processor time, which other work on the machine
changes less (that of threads which read is in it). Pixels are random numbers, read from the page
cache.

Version 0.1 embeds no scenes: there is nothing to compare it with.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window
from timing import DEVICE, command, machine, now, report, speed_parser
from torch import nn

from eofm.contract.imagery import Imagery
from eofm.contract.recipe import CHECKED, Pooling, default_recipe
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.embedding.embed import embed
from eofm.geo.embedding.windows import blending, patch_lattice
from eofm.weights.encoder import Encoder, random_encoder, save_encoder

SIZE, PATCH, OVERLAP, BATCH = 224, 14, 4, 8
BANDS = tuple(SENSOR_BANDS[Sensor.S2_L1C])


def write_scene(path: Path, side: int) -> None:
    """Write a scene as products have it: tiled, compressed, digital numbers."""
    draw = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": len(BANDS), "dtype": "uint16",
        "crs": "EPSG:32632", "transform": Affine(10, 0, 5e5, 0, -10, 5.4e6), "tiled": True,
        "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.descriptions = BANDS
        for number, band in enumerate(BANDS, 1):
            low, high = (5, 60) if band == "B10" else (400, 4_000)
            coarse = draw.integers(low, high, (side // 4 + 1, side // 4 + 1))
            target.write(np.kron(coarse, np.ones((4, 4)))[:side, :side].astype(np.uint16), number)


def spec() -> ImageSpec:
    """What its windows are."""
    return ImageSpec(Sensor.S2_L1C, BANDS, Unit.DN, (SIZE, SIZE), 10.0)


def alone(encoder: Encoder, windows: int) -> Callable[[], None]:
    """The network on tensors that are ready."""
    draw = torch.Generator().manual_seed(0)
    ready = torch.randn(BATCH, len(BANDS), SIZE, SIZE, generator=draw).to(DEVICE)

    @torch.inference_mode()
    def work() -> None:
        for start in range(0, windows, BATCH):
            encoder.forward_features(ready[: windows - start]).cpu()

    return work


def plain(encoder: Encoder, scene: Path, side: int) -> Callable[[], None]:
    """The loop that is usually written."""
    lattice = patch_lattice(side, side, PATCH, SIZE // PATCH, OVERLAP)
    taper = blending(lattice.tokens, OVERLAP)
    weights = np.outer(taper, taper)[..., None]

    def work() -> None:
        sums = np.zeros((lattice.rows, lattice.columns, encoder.dim), np.float32)
        total = np.zeros((lattice.rows, lattice.columns, 1), np.float32)
        with rasterio.open(scene) as source:
            for top in lattice.windows.tops:
                for left in lattice.windows.lefts:
                    pixels = source.read(window=Window(left, top, SIZE, SIZE))
                    found = encoder.features(pixels, [CHECKED], spec=spec()).cpu().numpy()
                    tokens = found.reshape(lattice.tokens, lattice.tokens, -1)
                    row, col = top // PATCH, left // PATCH
                    part = np.s_[row : row + lattice.tokens, col : col + lattice.tokens]
                    sums[part] += weights * tokens
                    total[part] += weights
        sums /= total

    return work


def tiled(encoder: Encoder, side: int) -> Callable[[], None] | None:
    """`terratorch.tasks.tiled_inference` on a scene that is ready; None where it is missing."""
    try:
        from terratorch.tasks.tiled_inference import tiled_inference
    except ImportError:
        return None
    scene = torch.randn(1, len(BANDS), side, side, generator=torch.Generator().manual_seed(0))
    across = SIZE // PATCH

    @torch.inference_mode()
    def forward(windows: torch.Tensor) -> torch.Tensor:
        tokens = encoder.forward_features(windows)[:, -(across**2) :].unflatten(1, (across, across))
        return nn.functional.interpolate(tokens.movedim(-1, 1), scale_factor=PATCH)

    def work() -> None:
        step = SIZE - OVERLAP * PATCH
        tiled_inference(
            forward, scene, crop=SIZE, stride=step, delta=0, batch_size=BATCH, padding=False
        )

    return work


def ours(model: str, scene: Path, folder: Path) -> Callable[[], None]:
    """`eofm embed`, each time into a folder of its own."""
    turns = iter(range(10**6))

    def work() -> None:
        embed(
            EmbedConfig(
                [str(scene)],
                model,
                str(folder / f"out{next(turns)}"),
                sensor="s2-l1c",
                unit="dn",
                patches=True,
                overlap=OVERLAP,
                batch=BATCH,
                formats=["tif"],
            )
        )

    return work


def main() -> None:
    """Run all variants in turn and print the report."""
    parser = speed_parser(__doc__, 5, append=True)
    parser.add_argument("--side", type=int, default=1792)
    parser.add_argument("--architecture", default="vits14")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = default_recipe(spec(), (SIZE, SIZE), Pooling.CLS)
    encoder = random_encoder(args.architecture, recipe, 0).to(DEVICE)
    windows = len(patch_lattice(args.side, args.side, PATCH, SIZE // PATCH, OVERLAP).windows)
    with tempfile.TemporaryDirectory(prefix="eofm-speed-") as name:
        folder = Path(name)
        write_scene(folder / "scene.tif", args.side)
        save_encoder(encoder, folder / "model")
        # a network that was used once answers faster
        encoder.embed(
            Imagery(torch.full((1, 13, SIZE, SIZE), 500.0), spec(), torch.ones(1, SIZE, SIZE) > 0),
            [CHECKED],
        )
        variants = {
            "network alone, tensors in memory": alone(encoder, windows),
            "eofm embed, file to file": ours(str(folder / "model"), folder / "scene.tif", folder),
            "plain loop, file to memory": plain(encoder, folder / "scene.tif", args.side),
        }
        beside = tiled(encoder, args.side)
        if beside is not None:
            variants["terratorch tiled_inference, memory to memory"] = beside
        times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in variants}
        for turn in range(args.rounds + 1):
            for variant, work in variants.items():
                began, busy = now(), time.process_time()
                work()
                if turn:
                    times[variant].append((now() - began, time.process_time() - busy))
    base = np.array(next(iter(times.values())))
    lines = ["| variant | windows per second | x of time | x of processor time |"]
    lines.append("|---|---:|---:|---:|")
    for variant, taken in times.items():
        own = np.array(taken)
        ratios = np.median(base / own, axis=0)
        speed = windows / np.median(own[:, 0])
        lines.append(f"| {variant} | {speed:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    report("\n".join([f"{command()} ({machine()}), {windows} windows", "", *lines, ""]), args)


if __name__ == "__main__":
    main()
