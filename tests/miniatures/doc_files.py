"""What a reader of the documentation has at hand, in miniature: scenes, maps, polygons, chips.

Everything is synthetic. Scenes are true GeoTIFFs: 13 bands of Level-1C with their names, digital
numbers, UTM, each land cover with a spectrum of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from ben_world import second_version
from numpy.typing import NDArray

from eofm.datasets.eurosat import CLASSES
from eofm.world.config import WorldConfig
from eofm.world.files import write_world

BANDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
SPECTRA = {  # code of TerraMesh's land-cover map -> digital numbers of the bands
    1: (1300, 1000, 800, 600, 550, 520, 510, 450, 430, 250, 15, 300, 200),  # water
    2: (1200, 900, 800, 550, 850, 1900, 2300, 2400, 2600, 800, 15, 1500, 700),  # trees
    4: (1350, 1150, 1150, 1000, 1500, 2600, 3000, 3100, 3300, 1000, 15, 2300, 1400),  # crops
    5: (1600, 1500, 1500, 1600, 1750, 1900, 2000, 2050, 2150, 800, 20, 2300, 2000),  # built
}
NAMES = {1: "water", 2: "trees", 4: "crops", 5: "built"}


def ground(seed: int, size: int, parcel: int) -> NDArray[np.uint8]:
    """Return a map of square parcels (h, w), each of one land cover."""
    generator = np.random.default_rng(seed)
    parcels = generator.choice(list(SPECTRA), size=(-(-size // parcel),) * 2)
    return np.kron(parcels, np.ones((parcel, parcel)))[:size, :size].astype(np.uint8)


def pixels(classes: NDArray[np.uint8], seed: int) -> NDArray[np.uint16]:
    """Return digital numbers (c, h, w): the spectrum of the ground, and five percent of noise."""
    generator = np.random.default_rng(seed)
    table = np.zeros((max(SPECTRA) + 1, len(BANDS)))
    for code, spectrum in SPECTRA.items():
        table[code] = spectrum
    clean = table[classes].transpose(2, 0, 1)
    return np.clip(clean * generator.normal(1, 0.05, clean.shape), 1, None).astype(np.uint16)


def write(
    path: Path, values: NDArray[np.generic], west: float, south: float, *, describe: bool = True
) -> None:
    """Write (c, h, w) or (h, w) as a GeoTIFF at 10 m in UTM zone 32."""
    bands = values if values.ndim == 3 else values[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "crs": "EPSG:32632",
        "transform": Affine(10, 0, west, 0, -10, south + 10 * bands.shape[1]),
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        if describe and len(bands) == len(BANDS):
            file.descriptions = BANDS


def write_scene(folder: Path, name: str = "scene.tif", size: int = 224, seed: int = 0) -> None:
    """Write a scene, `chip.tif`, and `fields.gpkg` with polygons of some parcels of the scene."""
    import geopandas
    from shapely.geometry import box

    parcel, west, south = 28, 600_000.0, 5_300_000.0
    classes = ground(seed, size, parcel)
    write(folder / name, pixels(classes, seed), west, south)
    write(folder / "chip.tif", pixels(classes, seed)[:, :56, :56], west, south)
    north = south + 10 * size
    rows = []
    for row in range(0, size - parcel + 1, parcel):
        for col in range(0, size - parcel + 1, parcel):
            shape = box(
                west + 10 * col,
                north - 10 * (row + parcel),
                west + 10 * (col + parcel),
                north - 10 * row,
            )
            rows.append({"class": NAMES[int(classes[row, col])], "geometry": shape})
    table = geopandas.GeoDataFrame(rows, crs="EPSG:32632").iloc[::2]
    table.to_file(folder / "fields.gpkg", driver="GPKG")


def write_tiles(folder: Path, count: int = 6, size: int = 168) -> None:
    """Write `S2/` and `LULC/`: images of several places, and a land-cover map of each."""
    for number in range(count):
        classes = ground(number, size, 56)
        west = 600_000.0 + 20_000 * number
        name = f"site{number}.tif"
        write(folder / "S2" / name, pixels(classes, number), west, 5_300_000.0)
        write(folder / "LULC" / name, classes, west, 5_300_000.0)


def write_chips(folder: Path, each: int = 6, size: int = 64) -> None:
    """Write `train/<class>/` and `test/<class>/`: chips of one land cover each."""
    number = 0
    for split, count in (("train", each), ("test", max(2, each // 2))):
        for code, name in NAMES.items():
            for chip in range(count):
                classes = np.full((size, size), code, np.uint8)
                path = folder / split / name / f"{name}_{split}_{chip}.tif"
                west = 600_000.0 + 1_000 * number
                write(path, pixels(classes, 100 + number), west, 5_300_000.0)
                number += 1


def write_eurosat(root: Path, each: int = 6) -> None:
    """Write `train/<class>/` and `test/<class>/` of EuroSAT MS: its bands in its order, 64 px."""
    order = [*BANDS[:8], *BANDS[9:], "B8A"]
    index = [BANDS.index(band) for band in order]
    number = 0
    for split, count in (("train", each), ("test", max(2, each // 2))):
        for place, name in enumerate(CLASSES):
            for _ in range(count):
                code = list(SPECTRA)[place % len(SPECTRA)]
                classes = np.full((64, 64), code, np.uint8)
                values = pixels(classes, 500 + number)[index]
                values = (values * (1 + 0.05 * (place // len(SPECTRA)))).astype(np.uint16)
                path = root / split / name / f"{name}_{number}.tif"
                write(path, values, 600_000.0 + 1_000 * number, 5_300_000.0, describe=False)
                number += 1


def write_ssl4eo(folder: Path) -> None:
    """Write `SSL4EO/`, both sensors of five synthetic places, and `ssl4eo_multilabel.json`."""
    write_world(WorldConfig(out=str(folder / "SSL4EO"), scenes=5, seed=1, size=48, workers=1))
    labels = {
        place.name: {season.name: [str(number % 3)] for season in place.iterdir()}
        for number, place in enumerate(sorted((folder / "SSL4EO" / "s2c").iterdir()))
    }
    (folder / "ssl4eo_multilabel.json").write_text(json.dumps(labels))


def write_sets(folder: Path) -> None:
    """Write known sets in their layouts, a WorldCover map of one site, and a site with an offset.

    `S2/609U.tif` is of processing baseline 04.00: its digital numbers carry 1000.
    """
    write_eurosat(folder / "EuroSAT_MS", each=2)
    write_ssl4eo(folder)
    second_version(folder / "BigEarthNet")
    codes = np.select([ground(0, 280, 56) == code for code in SPECTRA], (80, 10, 40, 50))
    write(folder / "WorldCover" / "map.tif", codes.astype(np.uint8), 600_000.0, 5_300_000.0)
    late = pixels(ground(9, 168, 56), 9) + np.uint16(1000)
    write(folder / "S2" / "609U.tif", late, 900_000.0, 5_300_000.0)
