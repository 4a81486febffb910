"""Maps, search and the explore page on real scenes; see `geo_real.sh`.

Polygons are made of the land cover of half a site, the first and third of four strips of 560 m:
what a class has in each square of a lattice, 210 m of every 280 m. The other strips and the other
site are scored against their land cover, on the patches that one class covers by three fifths.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
import torch
from rasterio.features import shapes as raster_shapes

from eofm.bench.controls import image_statistics
from eofm.cli import main
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import (
    DEFAULT_STATISTICS,
    SENSOR_BANDS,
    STATISTICS,
    ImageSpec,
    Normalization,
    Sensor,
)
from eofm.errors import LabelError
from eofm.geo.cells import cells_of
from eofm.geo.class_map import LearntMap, map_classes
from eofm.geo.class_map_files import map_figure, percent, write_map
from eofm.geo.embedding_files import open_patches, write_tiff
from eofm.geo.embeddings import PatchGrid, Provenance, patch_grid
from eofm.geo.maps_config import MapMethod
from eofm.geo.places import classes_of, read_labels
from eofm.geo.results import class_colours, scene_picture
from eofm.geo.training import label_cells
from eofm.networks.state import InputInit, PositionRecipe
from eofm.raster.opening import open_scene
from eofm.report import output, sheets
from eofm.weights.encoder import Card, Encoder, library_versions, save_encoder
from eofm.weights.start import start_from

NAMES = {1: "water", 2: "trees", 3: "flooded", 4: "crops", 5: "built", 6: "bare", 7: "snow or ice"}
NAMES |= {9: "rangeland"}
SITES = {"38D_378R_2_3": "dn", "637U_59R_1_3": "dn"}
WEIGHTS = "natural_images_vits14.safetensors"
SIZE, WINDOW, DEPTH = 224, 112, 7
STRIP = 560.0
LATTICE, SQUARE = 280.0, 210.0
PURITY = 0.6
METHOD = MapMethod(purity=PURITY, block=560.0)


def natural_images(file: Path, recipe: Recipe) -> Encoder:
    """The first blocks of a transformer of natural images, its filters given to other bands."""
    trunk, _ = start_from(
        str(file),
        "vits14",
        recipe,
        torch.Generator().manual_seed(0),
        input_init=InputInit.RGB_NEAREST,
        positions=PositionRecipe.DINOV2,
    )
    # the last blocks were trained for something else: without their branches they do nothing
    for name, value in trunk.named_parameters():
        parts = name.split(".")
        if parts[0] == "blocks" and int(parts[1]) >= DEPTH and parts[2].startswith("ls"):
            value.data.zero_()
    card = Card(
        name="natural-images-7",
        architecture="vits14",
        recipe=recipe,
        objective="natural images, fine-tuned for saliency; blocks 0 to 6",
        source="a file of natural images; no satellite image was seen",
        training_data="natural images",
        counts={},
        synthetic=False,
        licence="MIT",
        versions=library_versions(),
    )
    return Encoder(trunk, card)


def encoder(weights: Path, folder: Path) -> str:
    """A folder with the transformer of natural images for thirteen bands."""
    file = weights / WEIGHTS
    if not file.is_file():
        print(f"no real weights at {weights}: an untrained network instead")
        return "random:vits14"
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    stats = STATISTICS[DEFAULT_STATISTICS[Sensor.S2_L1C]].select(bands)
    norm = Normalization.two_sigma(stats.mean, stats.std, stats.source, quantise=True)
    recipe = Recipe(Sensor.S2_L1C, bands, stats.unit, (SIZE, SIZE), norm, pooling=Pooling.MEAN)
    save_encoder(natural_images(file, recipe), folder)
    return str(folder)


def run_verb(words: list[str]) -> None:
    """Run a verb of eofm."""
    if main(words):
        raise SystemExit(f"eofm {words[0]} failed")


def embed(scene: Path, unit: str, model: str, out: Path) -> PatchGrid:
    """Patches of 70 m."""
    words = ["embed", str(scene), "--sensor", "s2-l1c", "--unit", unit, "--model", model]
    size = ["--size", str(SIZE)] if model.startswith("random") else []
    rest = ["--patches", "--window", str(WINDOW), *size, "--force", "scale", "--out", str(out)]
    shutil.rmtree(out, ignore_errors=True)
    run_verb([*words, *rest])
    return open_patches(out)


def statistics(scene: Path, unit: str, like: PatchGrid, out: Path) -> PatchGrid:
    """Mean, deviation, maximum and minimum of each band in the pixels of each patch."""
    imagery = open_scene(scene, sensor="s2-l1c", unit=unit).read()
    rows, columns = like.valid.shape
    side = imagery.pixels.shape[2] // rows
    parts = imagery.pixels[0].unfold(1, side, side).unfold(2, side, side)
    pixels = parts.permute(1, 2, 0, 3, 4).reshape(rows * columns, -1, side, side).contiguous()
    spec = ImageSpec(
        imagery.spec.sensor, imagery.spec.bands, imagery.spec.unit, (side, side), imagery.spec.gsd
    )
    valid = torch.ones(len(pixels), side, side, dtype=torch.bool)
    vectors = image_statistics(Imagery(pixels, spec, valid)).numpy()
    stored = np.moveaxis(vectors.reshape(rows, columns, -1), -1, 0)
    made = Provenance("imagestats", "", "", "imagestats of each patch", "s2-l1c", unit)
    found = patch_grid(np.ascontiguousarray(stored), like.grid, made)
    out.mkdir(parents=True, exist_ok=True)
    write_tiff(out / "patches.tif", found)
    return open_patches(out)


def land_cover(file: Path) -> geopandas.GeoDataFrame:
    """The land cover as polygons of classes."""
    with rasterio.open(file) as source:
        codes, transform, crs = source.read(1), source.transform, source.crs
    rows = [
        {"class": NAMES[int(code)], "geometry": shapely.geometry.shape(shape)}
        for shape, code in raster_shapes(codes, transform=transform)
        if int(code) in NAMES
    ]
    frame = geopandas.GeoDataFrame(rows, crs=crs.to_wkt())
    frame.geometry = frame.geometry.make_valid()
    return frame


def drawn(cover: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """What a class has in each square of a lattice over every second strip, as one polygon."""
    left, bottom, right, top = cover.total_bounds
    squares = [
        shapely.box(x, y, x + SQUARE, y + SQUARE)
        for x in np.arange(left, right, LATTICE)
        for y in np.arange(bottom, top, LATTICE)
        if int((x - left) / STRIP) % 2 == 0
    ]
    lattice = geopandas.GeoDataFrame(geometry=squares, crs=cover.crs)
    whole = cover.dissolve("class").reset_index()
    cut = whole.overlay(lattice, keep_geom_type=False).explode(ignore_index=True)
    return cut[(cut.geom_type == "Polygon") & (cut.area > 4900)][["class", "geometry"]]


def learnable(patches: PatchGrid, labels: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Leave out the rarest classes until each has a patch that is pure."""
    while True:
        try:
            pure(patches, labels, classes_of([read_labels(labels, "class")]))
        except LabelError as error:
            rarest = labels.dissolve("class").area.idxmin()
            print(f"{rarest} is left out: {error.found}")
            labels = labels[labels["class"] != rarest]
        else:
            return labels


def pure(patches: PatchGrid, cover: geopandas.GeoDataFrame, classes: tuple[str, ...]):
    """The patches that one of some classes covers, and their class."""
    known = cover[cover["class"].isin(classes)]
    made = label_cells(
        cells_of(patches), [read_labels(known, "class")], classes, purity=PURITY, per_polygon=10**6
    )
    return made.cells, np.array(made.classes)[made.labels]


def scores(learnt: LearntMap, patches: PatchGrid, cover, *, own_site: bool = False) -> str:
    """Overall accuracy on pure patches of another place, with the share of the larger class."""
    found = learnt.on(patches)
    cells, names = pure(patches, cover, learnt.classes)
    if own_site:
        strip = (cells % patches.grid.width) * 4 // patches.grid.width
        cells, names = cells[strip % 2 == 1], names[strip % 2 == 1]
    said = np.array(["", *learnt.classes])[found.codes[cells]]
    _, count = np.unique(names, return_counts=True)
    own = " / ".join(
        f"{name} {np.mean(said[names == name] == name):.0%} of {np.sum(names == name)}"
        for name in learnt.classes
        if (names == name).any()
    )
    larger = count.max() / count.sum()
    return (
        f"{np.mean(said == names):.1%} | {larger:.1%} | {own} | {np.nanmean(found.novelty > 1):.0%}"
    )


def figure(path: Path, scene: Path, unit: str, learnt: LearntMap, cover) -> None:
    """The scene, its land cover on the patches, and the map."""
    patches = learnt.map.cells.patches
    opened = open_scene(scene, sensor="s2-l1c", unit=unit)
    colours = class_colours(learnt.classes)
    output.save(
        sheets.raster(scene.stem, scene_picture(opened, opened.grid).pixels.astype(np.float64)),
        path.with_name(f"{path.stem}-scene.png"),
    )
    output.save(map_figure(learnt, colours), path.with_name(f"{path.stem}-map.png"))
    cells, names = pure(patches, cover, learnt.classes)
    picture = np.full((patches.valid.size, 3), 0.75)
    for code, name in enumerate(learnt.classes, 1):
        picture[cells[names == name]] = np.array(colours[code][:3]) / 255
    shape = (*patches.valid.shape, 3)
    output.save(
        sheets.raster("Land cover (gray: mixed)", picture.reshape(shape)),
        path.with_name(f"{path.stem}-truth.png"),
    )


def photograph(page: Path, click: str, out: Path) -> bool:
    """A page in headless Chromium, a cell clicked; False without a browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return False
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    shot = ["--window-size=1050,800", f"--screenshot={out.resolve()}"]
    address = f"file://{page.resolve()}#click={click}"
    subprocess.run([browser, *options, *shot, address], check=True, capture_output=True)
    return True


def run(data: Path, weights: Path, work: Path, out: Path) -> None:
    """Make everything and write the page."""
    pictures = out.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    models = {
        "natural-images-7": encoder(weights, work / "encoder"),
        "random:vits14": "random:vits14",
    }
    cover = {site: land_cover(data / "terramesh/LULC" / f"{site}.tif") for site in SITES}
    grids: dict[tuple[str, str], PatchGrid] = {}
    for site, unit in SITES.items():
        scene = data / "terramesh/S2L1C" / f"{site}.tif"
        for name, model in models.items():
            grids[name, site] = embed(scene, unit, model, work / site / name.replace(":", "-"))
        like = grids[next(iter(models)), site]
        grids["imagestats", site] = statistics(scene, unit, like, work / site / "imagestats")
    rows, held, first = [], [], {}
    for site, unit in SITES.items():
        labels = learnable(grids["imagestats", site], drawn(cover[site]))
        labels.to_file(work / f"{site}.gpkg")
        (other,) = (s for s in SITES if s != site)
        for name in [*models, "imagestats"]:
            learnt = map_classes(grids[name, site], labels, "class", METHOD)
            write_map(learnt, work / site / f"map-{name.replace(':', '-')}")
            held.append(
                f"| {site} | {name} | {percent(learnt.assessment.overall)} | "
                f"{np.bincount(learnt.training.labels).max() / len(learnt.training):.1%} | "
                f"{len(learnt.training)} cells, {len(learnt.training.features)} polygons |"
            )
            rest = scores(learnt, grids[name, site], cover[site], own_site=True)
            there = scores(learnt, grids[name, other], cover[other])
            rows.append(f"| {site} | its other half | {name} | {rest} |")
            rows.append(f"| {site} | {other} | {name} | {there} |")
            if name == next(iter(models)):
                first[site] = learnt
                scene = data / "terramesh/S2L1C" / f"{site}.tif"
                figure(pictures / f"{site}.png", scene, unit, learnt, cover[site])
    site = next(iter(SITES))
    scene = data / "terramesh/S2L1C" / f"{site}.tif"
    stated = ["--scene", str(scene), "--sensor", "s2-l1c", "--unit", SITES[site]]
    emb = str(work / site / next(iter(models)).replace(":", "-"))
    run_verb(["explore", emb, *stated, "--out", str(work / "explore.html")])
    seen = photograph(work / "explore.html", "8,20", pictures / "explore.png")
    chips = s2_100k(data, work, pictures)
    out.write_text(page(held, rows, chips, seen, pictures.name, list(models)))
    print(f"wrote {out}")
    print(json.dumps({s: m.notes for s, m in first.items()}, indent=1))


def contrast(file: Path) -> float:
    """How much the red of a scene varies, over its mean."""
    with rasterio.open(file) as source:
        red = source.read(4).astype(np.float64)
    return float(red.std() / red.mean())


def s2_100k(data: Path, work: Path, pictures: Path) -> str:
    """One scene of S2-100K searched for what is like its middle; the sheet as a picture."""
    scene = max(sorted((data / "s2_100k/images").glob("*.tif")), key=contrast)
    words = ["embed", str(scene), "--sensor", "s2-l2a", "--unit", "dn", "--model", "random:vits14"]
    found = work / "s2_100k"
    shutil.rmtree(found, ignore_errors=True)
    rest = ["--size", "112", "--chips", "32", "--stride", "16", "--force", "scale"]
    run_verb([*words, *rest, "--out", str(found)])
    grid = open_scene(scene, sensor="s2-l2a", unit="dn").grid
    lon, lat = grid.centre()
    options = ["--at", f"{lon:.6f},{lat:.6f}", "--scene", str(scene), "--out", str(work / "found")]
    run_verb(["search", str(found), *options, "--sensor", "s2-l2a", "--unit", "dn"])
    shutil.copy(work / "found/sheet.png", pictures / "sheet.png")
    return scene.stem


def page(held, rows, chip: str, seen: bool, folder: str, models: list[str]) -> str:
    """The committed page."""
    head = (
        "| trained on | scored on | vectors | right | larger class | by class | beyond training |"
    )
    real = models[0] == "natural-images-7"
    lines = [
        "# Real scenes: embed, map, search, explore",
        "",
        "Made by `bash benchmarks/geo_real.sh`. Two TerraMesh sites (CC-BY-SA-4.0) of 2.24 km, "
        "Sentinel-2 L1C, with the land cover that comes with them: enough to show that the path "
        "works, far too little to say how good a map of the world would be. The third site is snow "
        "alone and has no second class.",
        "",
        "Vectors are patches of 70 m (`eofm embed --patches --window 112`, resized to 224 pixels). "
        + (
            "`natural-images-7` is a transformer of natural images, cut after seven blocks, that "
            "has seen no satellite image; "
            if real
            else "No pretrained transformer was at hand; "
        )
        + "`random:vits14` is untrained; `imagestats` is mean, deviation, maximum and minimum of "
        "each band in the 7 x 7 pixels of the patch. Polygons are the land cover of half "
        "the site (two of four strips of 560 m), in squares of 210 m; the read-out is linear.",
        "",
        "## What the map says of itself",
        "",
        "Held-out squares of 560 m in the half that it is learnt on, interval over squares.",
        "",
        "| site | vectors | overall accuracy | larger class | training |",
        "|---|---|---|---:|---|",
        *held,
        "",
        "## What it is elsewhere",
        "",
        "Patches of which one class covers three fifths, of the classes that the map "
        "knows. Beyond: share of all patches that are further from the training vectors than "
        "99 % of these from one another.",
        "",
        head,
        "|---|---|---|---:|---:|---|---:|",
        *rows,
        "",
        "How to read this:",
        "",
        "- The other half lies in strips between those that were trained on, so most of its "
        "patches have a neighbour in training; a held-out square has not. That is why the map's "
        "own number is the lower one, and it is the one for ground elsewhere.",
        "- An untrained network does as well as the trained one, or better, where neighbours are "
        "in training: its vectors smooth over their surroundings and hold where in its window a "
        "patch lies. Nothing here says that pretraining on natural images helps.",
        "- `imagestats` of 7 x 7 pixels are no better than calling everything the larger class.",
        "- The other site is another country, another season and another mixture of classes. No "
        "row there is above the share of its larger class: the maps know nothing there. For two "
        "of the three kinds of vectors the last column warns of it, for the third it does not.",
        "- The land cover itself is coarse: fields that look alike are crops in one part of the "
        "first site and rangeland in another.",
        "",
        *(
            f"![{site}: {part}]({folder}/{site}-{part}.png)"
            for site in SITES
            for part in ("scene", "truth", "map")
        ),
        "",
        "## Search",
        "",
        f"`eofm search --at` for the middle of {chip} (S2-100K, MIT), by chips of 320 m of an "
        "untrained network: colour and texture alone.",
        "",
        f"![The chips most alike]({folder}/sheet.png)",
        "",
        *(
            [
                "## Explore",
                "",
                "The page of `eofm explore` in headless Chromium after a click, with no network.",
                "",
                f"![The page after a click]({folder}/explore.png)",
                "",
            ]
            if seen
            else []
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "weights", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    chosen = parser.parse_args()
    run(chosen.data, chosen.weights, chosen.work, chosen.out)
