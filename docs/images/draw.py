"""Draw the pictures of the README from real data and from runs.

    python docs/images/draw.py scene --data ../shared/data --weights natural_vits14.safetensors
    python docs/images/draw.py qgis --data ../shared/data --weights natural_vits14.safetensors
    python docs/images/draw.py table --data ../shared/data --weights natural_vits14.safetensors
    python docs/images/draw.py page report.html docs/images/report_run.png --height 672

`scene` makes `scene_and_map.png`: a real scene of S2-100K (microsoft/satclip, MIT; modified
Copernicus Sentinel data), polygons drawn by hand, and the map that `eofm map` makes of them. The
network is a ViT-S/14 in DINOv2's layout that saw natural images only; the filters of its colours
are shared among the bands nearest in wavelength, and of its twelve blocks the first seven take
part. `qgis` has the QGIS of the distribution lay out the same map: `qgis_map.png`. `page` takes a
picture of a page with headless Chromium.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import rasterio
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from shapely.geometry import box

from eofm.cli import main as eofm
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import (
    DEFAULT_STATISTICS,
    SENSOR_BANDS,
    STATISTICS,
    Normalization,
    Sensor,
    Unit,
)
from eofm.networks.state import InputInit, PositionRecipe
from eofm.weights.encoder import Card, Encoder, library_versions, save_encoder
from eofm.weights.start import start_from

HERE = Path(__file__).parent
SCENE = "s2_100k/images/patch_57755.tif"
BLOCKS = 7
# column, row, column, row of rectangles that one person drew on the true-colour picture
DRAWN = {
    "water": ((118, 4, 138, 14), (140, 4, 154, 16), (120, 16, 134, 26), (184, 2, 204, 8)),
    "forest": (
        (136, 52, 152, 80), (131, 84, 142, 112), (96, 158, 116, 174), (210, 208, 224, 236),
        (104, 216, 114, 240), (208, 50, 226, 62),
    ),
    "ploughed or young": (
        (62, 84, 80, 116), (4, 164, 40, 180), (52, 124, 68, 148), (4, 212, 40, 250),
        (46, 212, 80, 250), (114, 84, 124, 116), (20, 94, 50, 116), (4, 124, 44, 152),
        (76, 126, 112, 152), (88, 84, 108, 118),
    ),
    "dense crops": (
        (172, 172, 200, 200), (170, 216, 194, 246), (144, 128, 160, 140), (128, 216, 152, 236),
        (140, 180, 158, 196), (176, 116, 186, 140),
    ),
    "pasture": (
        (4, 52, 44, 78), (60, 52, 110, 78), (160, 84, 176, 100), (172, 24, 200, 38),
        (4, 25, 50, 34), (234, 226, 250, 246),
    ),
}  # fmt: skip
COLOURS = ("#3b7dd8", "#1b5e20", "#d9825b", "#8bc34a", "#e6d36a")  # as DRAWN


def natural_encoder(weights: Path, sensor: Sensor, out: Path) -> None:
    """Write an encoder of Sentinel-2 from weights for natural images, cut to some blocks."""
    statistics = STATISTICS[DEFAULT_STATISTICS[sensor]]
    norm = Normalization.two_sigma(statistics.mean, statistics.std, statistics.source)
    bands = SENSOR_BANDS[sensor]
    recipe = Recipe(sensor, bands, Unit.DN, (112, 112), norm, pooling=Pooling.MEAN)
    trunk, origin = start_from(
        weights,
        "vits14",
        recipe,
        torch.Generator().manual_seed(0),
        input_init=InputInit.RGB_NEAREST,
        positions=PositionRecipe.DINOV2,
    )
    for name, value in trunk.named_parameters():
        # with a scale of 0 a block hands on what it is given
        if name.endswith("gamma") and int(name.split(".")[1]) >= BLOCKS:
            value.data.zero_()
    card = Card(
        name="natural images",
        architecture="vits14",
        recipe=recipe,
        objective="none",
        source=f"{origin.line}; blocks from {BLOCKS} on do nothing",
        training_data="natural images, no satellite imagery",
        counts={},
        synthetic=False,
        licence="MIT",
        versions=library_versions(),
    )
    save_encoder(Encoder(trunk, card), out)


def polygons(scene: Path, out: Path) -> None:
    """Write what was drawn as a GeoPackage in the CRS of the scene."""
    with rasterio.open(scene) as file:
        transform, crs = file.transform, file.crs
    rows = []
    for name, rectangles in DRAWN.items():
        for left, top, right, bottom in rectangles:
            (west, north), (east, south) = transform @ (left, top), transform @ (right, bottom)
            rows.append({"class": name, "geometry": box(west, south, east, north)})
    geopandas.GeoDataFrame(rows, crs=crs).to_file(out, driver="GPKG")


def learn(scene: Path, weights: Path, folder: Path) -> None:
    """Embed a scene and map it from polygons, into `folder`/map."""
    natural_encoder(weights, Sensor.S2_L2A, folder / "encoder")
    polygons(scene, folder / "drawn.gpkg")
    bands = " ".join(SENSOR_BANDS[Sensor.S2_L2A])
    words = f"embed {scene} --sensor s2-l2a --unit dn-offset1000 --bands {bands}"
    words += f" --model {folder}/encoder --patches --window 32 --formats tif"
    assert eofm([*words.split(), "--out", f"{folder}/emb"]) == 0
    words = f"map {folder}/emb --labels {folder}/drawn.gpkg --field class --out {folder}/map"
    assert eofm(words.split()) == 0


def qgis_map(data: Path, weights: Path, out: Path) -> None:
    """Have QGIS lay out the layers of a map, without a screen."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        learn(data / SCENE, weights, folder)
        words = [data / SCENE, folder / "map", out]
        variables = {"QT_QPA_PLATFORM": "offscreen", "PATH": "/usr/bin:/bin", "HOME": scratch}
        script = HERE / "qgis_layout.py"
        subprocess.run(["/usr/bin/python3", script, *words], check=True, env=variables)
    with Image.open(out) as picture:
        fewer = picture.convert("RGB").quantize(96)
    fewer.save(out, optimize=True)


def scene_and_map(data: Path, weights: Path, out: Path) -> None:
    """Embed a scene, map it from polygons, and draw both side by side."""
    scene = data / SCENE
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        learn(scene, weights, folder)
        record = json.loads((folder / "map" / "map.json").read_text("utf-8"))
        with rasterio.open(folder / "map" / "map.tif") as file:
            classes = file.read(1)
    with rasterio.open(scene) as file:
        pixels = file.read((4, 3, 2)).astype(float)
    _draw(pixels, classes, record["overall_accuracy"], out)


def _draw(pixels: np.ndarray, classes: np.ndarray, accuracy: dict[str, float], out: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 6), layout="constrained")
    side = pixels.shape[1]
    left.imshow(np.clip(pixels / np.percentile(pixels, 99.5), 0, 1).transpose(1, 2, 0))
    colours = dict(zip(DRAWN, COLOURS, strict=True))
    for name, rectangles in DRAWN.items():
        for a, b, c, d in rectangles:
            left.add_patch(Rectangle((a, b), c - a, d - b, fill=False, ec="white", lw=2.6))
            left.add_patch(Rectangle((a, b), c - a, d - b, fill=False, ec=colours[name], lw=1.6))
    count = sum(map(len, DRAWN.values()))
    left.set_title(f"Sentinel-2 scene of S2-100K\nand {count} polygons drawn by hand", fontsize=10)
    order = [colours[name] for name in sorted(DRAWN)]
    shown = np.ma.masked_equal(classes, 0)
    right.imshow(
        shown, cmap=ListedColormap(order), vmin=0.5, vmax=len(order) + 0.5,
        extent=(0, side, side, 0), interpolation="nearest",
    )  # fmt: skip
    score = "{value:.0%} ({low:.0%} to {high:.0%})".format(**accuracy)
    right.set_title(f"eofm embed, eofm map\n{score} right on held-out squares", fontsize=10)
    for ax in (left, right):
        _bare(ax)
    handles = [Patch(color=colours[name], label=name) for name in DRAWN]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(DRAWN), frameon=False)
    figure.savefig(out, dpi=90)


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def bench_table(data: Path, weights: Path, out: Path) -> None:
    """Score the same network on the tiles of EuroSAT that there are, and draw the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        natural_encoder(weights, Sensor.S2_L1C, folder / "encoder")
        records = folder / "eurosat.jsonl"
        words = f"bench eurosat --root {data / 'eurosat_ms'} --model natural={folder}/encoder"
        assert eofm([*words.split(), "--out", str(records), "--cache", ""]) == 0
        assert eofm(["bench", "export", str(records), "--out", str(folder / "page")]) == 0
        (source,) = (folder / "page").glob("*.html")
        page(source, out, 1000, 640)


def page(source: Path, out: Path, width: int, height: int) -> None:
    """Take a picture of the top of an HTML page."""
    subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--window-size={width},{height}", f"--screenshot={out.resolve()}",
            source.resolve().as_uri(),
        ],
        check=True,
    )  # fmt: skip


def main() -> None:
    """Draw one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("scene", "qgis", "table"):
        verb = verbs.add_parser(name)
        verb.add_argument("--data", type=Path, required=True)
        verb.add_argument("--weights", type=Path, required=True)
    shot = verbs.add_parser("page")
    shot.add_argument("source", type=Path)
    shot.add_argument("out", type=Path)
    shot.add_argument("--width", type=int, default=1100)
    shot.add_argument("--height", type=int, default=800)
    chosen = parser.parse_args()
    if chosen.verb == "scene":
        scene_and_map(chosen.data, chosen.weights, HERE / "scene_and_map.png")
    elif chosen.verb == "qgis":
        qgis_map(chosen.data, chosen.weights, HERE / "qgis_map.png")
    elif chosen.verb == "table":
        bench_table(chosen.data, chosen.weights, HERE / "bench_table.png")
    else:
        page(chosen.source, chosen.out, chosen.width, chosen.height)


if __name__ == "__main__":
    main()
