"""What files say of themselves and where they lie: each situation on the routes that meet it.

The situations are those of `tests/test_routes.py` that need a file of their own: names and scales
of bands, masks beside them, coordinates, several dates of a place, names that collide.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from levels import surface
from rasterio.crs import CRS
from rasterio.transform import Affine
from remedies import run_rio

from eofm import read_geotiff
from eofm.bench.run import bench
from eofm.contract.preprocess import to_grid
from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit
from eofm.datasets.check import CheckConfig
from eofm.datasets.check.run import check_data
from eofm.datasets.folder import BenchFolderConfig
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import EofmError, PixelError, RasterError
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.embedding.embed import embed
from eofm.landcover.config import LabelsConfig
from eofm.landcover.run import write_labels
from eofm.raster.folder import list_sources
from eofm.store.reader import Store

L2A = SENSOR_BANDS[Sensor.S2_L2A]
TEN = ("B02", "B03", "B04", "B08")


def from_origin(west: float, north: float, width: float, height: float) -> Affine:
    """Pixels of a size from the north-western corner on."""
    return Affine(width, 0, west, 0, -height, north)


UTM = from_origin(500_000, 6_000_000, 10, 10)


def write(
    path: Path,
    pixels: np.ndarray,
    at: Affine = UTM,
    crs: object = "EPSG:32632",
    bands: tuple[str, ...] = (),
    nodata: float | None = None,
    scale: tuple[float, float] | None = None,
) -> Path:
    """Write a GeoTIFF with what it says of itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", "GTiff", width, height, count, crs, at, pixels.dtype, nodata=nodata
    ) as file:
        file.write(pixels)
        if bands:
            file.descriptions = bands
        if scale:
            file.scales, file.offsets = (scale[0],) * count, (scale[1],) * count
    return path


def image(seed: int = 0, bands: tuple[str, ...] = L2A, size: int = 64) -> np.ndarray:
    """Level-2A as digital numbers."""
    return surface(bands, (size, size), seed).astype("uint16")


def packed(folder: Path, out: Path, unit: str = "dn", **options: object) -> Store:
    """The images of a folder as a store of windows of 64 pixels."""
    settings = {"window": 64, "min_pixels": 0.1, **options}
    pack_tiles(PackTilesConfig(str(folder), "s2-l2a", unit, str(out), **settings))  # type: ignore[arg-type]
    return Store(out)


def checked(folder: Path, unit: str = "dn") -> list[str]:
    """What `data check` finds."""
    report = check_data(CheckConfig(str(folder), sensor="s2-l2a", unit=unit))  # type: ignore[arg-type]
    return list(report.by_problem)


# --------------------------------------------------------------- what a file says of itself


def test_c01_common_names_are_bands_on_every_route(tmp_path: Path) -> None:
    """`blue`, `nir08`, `swir16` in an order of their own are read by name, and packed by name."""
    names = "blue coastal green nir nir08 nir09 red rededge1 rededge2 rededge3 swir16 swir22"
    bands = ("B02", "B01", "B03", "B08", "B8A", "B09", "B04", "B05", "B06", "B07", "B11", "B12")
    pixels = image()[[L2A.index(band) for band in bands]]
    write(tmp_path / "in" / "a.tif", pixels, bands=tuple(names.split()))

    found = read_geotiff(tmp_path / "in" / "a.tif", sensor="s2-l2a", unit="dn")
    store = packed(tmp_path / "in", tmp_path / "out")

    assert bands == found.spec.bands
    assert L2A == store.spec.bands
    assert np.array_equal(image(), to_grid(store.images([0])).pixels[0].numpy())
    assert [] == checked(tmp_path / "in")


def test_c01_unknown_names_are_refused_on_every_route(tmp_path: Path) -> None:
    """One word that no band has is named; nothing is assumed of the others."""
    write(tmp_path / "in" / "a.tif", image(), bands=(*L2A[:-1], "aerosol"))

    with pytest.raises(RasterError, match="not recognised") as caught:
        read_geotiff(tmp_path / "in" / "a.tif", sensor="s2-l2a", unit="dn")
    assert "aerosol" in str(caught.value.found)
    with pytest.raises(RasterError, match="not recognised"):
        packed(tmp_path / "in", tmp_path / "out")
    assert any("not recognised" in problem for problem in checked(tmp_path / "in"))


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("Band 1|Band 2|Band 3|Band 4", "number of bands in the file"),
        ("b1|b2|b3|b4", "number of bands in the file"),
        ("B1|B2|B3|B4", "can be Sentinel-2 band names"),
        ("B1|B1_1|B2|B3", "not recognised"),
        ("R|G|B|NIR", "as another sensor does"),
    ],
)
def test_what_names_no_band_is_refused_on_every_route(
    tmp_path: Path, names: str, problem: str
) -> None:
    """They were read as B01 B02 B03 B04, as B11, or near infrared alone; nothing was wrong."""
    pixels = image(bands=("B02", "B03", "B04", "B08"))
    file = write(tmp_path / "in" / "a.tif", pixels, bands=tuple(names.split("|")))

    with pytest.raises(RasterError, match=problem):
        read_geotiff(file, sensor="s2-l2a", unit="dn")
    with pytest.raises(RasterError, match=problem):
        packed(tmp_path / "in", tmp_path / "out")
    assert any(problem in found for found in checked(tmp_path / "in"))


def test_c02_scale_and_offset_are_a_statement_on_every_route(tmp_path: Path) -> None:
    """1e-4 and -0.1 are digital numbers with offset: stated so or as reflectance, never as dn."""
    file = write(tmp_path / "in" / "a.tif", image() + np.uint16(1000), scale=(1e-4, -0.1))

    with pytest.raises(RasterError, match="another unit than the user"):
        read_geotiff(file, sensor="s2-l2a", unit="dn")
    with pytest.raises(RasterError, match="another unit than the user"):
        packed(tmp_path / "in", tmp_path / "no")
    assert any("another unit than the user" in problem for problem in checked(tmp_path / "in"))
    store = packed(tmp_path / "in", tmp_path / "out", "dn-offset1000")
    assert np.array_equal(image(), to_grid(store.images([0])).pixels[0].numpy())
    physical = read_geotiff(file, sensor="s2-l2a", unit="reflectance").pixels[0].numpy()
    np.testing.assert_allclose(image() / 1e4, physical, atol=1e-6)
    assert [] == checked(tmp_path / "in", "dn-offset1000")


def test_c03_the_band_in_a_name_counts(tmp_path: Path) -> None:
    """ESA's names are bands, and a name that contradicts what is stated is refused."""
    for band in TEN:
        name = f"T36KVU_20210513T073609_{band}_10m.tif"
        write(tmp_path / name, image()[[L2A.index(band)]])

    found = read_geotiff(tmp_path, sensor="s2-l2a", unit="dn", bands=TEN)
    assert np.array_equal(image()[[L2A.index(b) for b in TEN]], found.pixels[0].numpy())
    single = tmp_path / "T36KVU_20210513T073609_B04_10m.tif"
    assert ("B04",) == read_geotiff(single, sensor="s2-l2a", unit="dn").spec.bands
    with pytest.raises(RasterError, match="another band than stated"):
        read_geotiff(single, sensor="s2-l2a", unit="dn", bands=["B02"])


def test_c04_bands_beside_the_measurement_are_left_out_on_every_route(tmp_path: Path) -> None:
    """QA60 is no thirteenth band; asked for, it is the cloud mask."""
    quality = np.zeros((1, 64, 64), "uint16")
    quality[0, :, :16] = 1 << 10
    names = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12", "QA60")
    file = write(tmp_path / "in" / "a.tif", np.concatenate([image(), quality]), bands=names)

    plain = read_geotiff(file, sensor="s2-l2a", unit="dn")
    masked = read_geotiff(file, sensor="s2-l2a", unit="dn", cloud_mask="QA60")

    assert (L2A, True) == (plain.spec.bands, bool(plain.valid.all()))
    assert torch.equal(torch.from_numpy(quality[0] == 0), masked.valid[0])
    assert L2A == packed(tmp_path / "in", tmp_path / "out").spec.bands
    assert [] == checked(tmp_path / "in")


def test_c05_a_band_that_is_read_as_data_is_no_mask(tmp_path: Path) -> None:
    """GDAL calls the fourth of four 8-bit bands alpha; near infrared of 0 is a measurement."""
    pixels = np.full((4, 64, 64), 90, "uint8")
    pixels[3, :, :32] = 0

    found = read_geotiff(write(tmp_path / "a.tif", pixels), sensor="naip", unit="uint8")

    assert bool(found.valid.all())


# ------------------------------------------------------------------------- where it lies


def test_c15_only_seen_ground_is_labelled(tmp_path: Path) -> None:
    """Water under the nodata of an image is in none of its labels, from the folder or the store."""
    pixels = image()
    pixels[:, :, :28] = 0
    classes = np.full((1, 64, 64), 10, "uint8")
    classes[:, :, :28] = 80
    write(tmp_path / "images" / "a.tif", pixels, nodata=0)
    write(tmp_path / "map" / "m.tif", classes, nodata=0)

    store = packed(
        tmp_path / "images", tmp_path / "out", landcover=str(tmp_path / "map"), scheme="worldcover"
    )

    water = store.classes.index("water") if "water" in store.classes else -1
    present = store.labels([0]).multi_hot[0]
    assert 1 == int(present.sum())
    assert water < 0 or 0 == int(present[water])


def test_c20_labels_of_a_store_are_those_of_its_folder(tmp_path: Path) -> None:
    """In EPSG:4326 at 60 degrees north a window is no square of UTM, and all of it is class 1."""
    pixels = image(bands=TEN, size=128)
    here = from_origin(10, 60, 1e-4, 1e-4)
    write(tmp_path / "image" / "a.tif", pixels, here, "EPSG:4326", bands=TEN)
    near = np.full((1, 800, 800), 2, "uint8")
    near[0, 336:464, 336:464] = 1
    there = from_origin(10 - 336e-4, 60 + 336e-4, 1e-4, 1e-4)
    write(tmp_path / "map" / "m.tif", near, there, "EPSG:4326")
    scheme = tmp_path / "scheme.yaml"
    scheme.write_text("name: s\nclasses: {1: a, 2: b}\nnodata: [0]\n")
    packed(tmp_path / "image", tmp_path / "store", window=128, bands=list(TEN))

    shares = []
    for name in ("image", "store"):
        out = tmp_path / f"{name}.parquet"
        write_labels(
            LabelsConfig(
                [str(tmp_path / "map")], str(scheme), str(out), scenes=str(tmp_path / name)
            )
        )
        shares.append(pq.read_table(out).column("fraction").to_pylist())

    assert [[[1.0, 0.0]]] * 2 == shares


@pytest.mark.parametrize(
    ("crs", "at"),
    [
        (
            CRS.from_wkt(
                'LOCAL_CS["plan",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
            ),
            UTM,
        ),
        ("EPSG:4326", Affine(0, 9e-5, 10, 9e-5, 0, 50)),
    ],
    ids=["engineering", "swapped axes"],
)
def test_c21_ground_that_cannot_be_found_is_refused(
    crs: object, at: Affine, tmp_path: Path
) -> None:
    """The error is eofm's, names the file, and says what to do; on no route a foreign one."""
    file = write(tmp_path / "in" / "a.tif", image(), at, crs)

    with pytest.raises(EofmError) as read:
        read_geotiff(file, sensor="s2-l2a", unit="dn")
    with pytest.raises(EofmError) as stored:
        packed(tmp_path / "in", tmp_path / "out")

    assert read.value.problem == stored.value.problem
    assert f" {file}" in str(read.value.remedy)
    assert str(file) in str(read.value.where)
    assert read.value.problem in checked(tmp_path / "in")


def test_c22_metres_are_those_of_the_ground(tmp_path: Path) -> None:
    """10 m of Web Mercator at 60 degrees north are 5 m."""
    there = from_origin(1_113_194, 8_399_737, 10, 10)
    write(tmp_path / "in" / "a.tif", image(), there, "EPSG:3857")

    found = read_geotiff(tmp_path / "in" / "a.tif", sensor="s2-l2a", unit="dn")

    assert 5.0 == pytest.approx(found.spec.gsd, rel=0.01)
    assert found.spec.gsd == packed(tmp_path / "in", tmp_path / "out").spec.gsd


def test_c23_companions_of_a_map_are_left_out(tmp_path: Path) -> None:
    """`_InputQuality.tif` lies beside `_Map.tif` as it is delivered."""
    here = from_origin(10, 60, 1e-4, 1e-4)
    classes = np.full((1, 64, 64), 10, "uint8")
    write(tmp_path / "map" / "m_Map.tif", classes, here, "EPSG:4326", nodata=0)
    quality = np.full((3, 64, 64), 10, "int16")
    write(tmp_path / "map" / "m_InputQuality.tif", quality, here, "EPSG:4326")
    write(tmp_path / "in" / "a.tif", image(), here, "EPSG:4326")

    store = packed(
        tmp_path / "in", tmp_path / "out", landcover=str(tmp_path / "map"), scheme="worldcover"
    )

    assert 1 == int(store.labels([0]).multi_hot.sum())


# --------------------------------------------------------------------------- who is who


def test_c30_two_dates_of_a_place_are_one_place(tmp_path: Path) -> None:
    """Images of the same ground share their location, so that no split divides them."""
    for place in range(4):
        for k, day in enumerate(("20200101", "20200701")):
            there = from_origin(500_000 + 10_000 * place, 6_000_000, 10, 10)
            write(tmp_path / "in" / f"T32_{place}_{day}.tif", image(2 * place + k), there)

    store = packed(tmp_path / "in", tmp_path / "out")

    places: dict[str, set[str]] = {}
    for name, location in zip(store.ids, store.locations, strict=True):
        places.setdefault(str(location), set()).add(str(name)[:5])
    assert 8 == len(store)
    assert 4 == len(places)
    assert all(1 == len(names) for names in places.values())


def test_c31_no_image_is_dropped_for_its_name(tmp_path: Path) -> None:
    """`a.tif` and `a.tiff` are two images or an error, on every route."""
    write(tmp_path / "in" / "a.tif", image(0))
    write(tmp_path / "in" / "a.tiff", image(1), from_origin(600_000, 6_000_000, 10, 10))

    with pytest.raises(EofmError, match="the same name"):
        packed(tmp_path / "in", tmp_path / "out")
    with pytest.raises(EofmError, match="the same name"):
        checked(tmp_path / "in")


def test_c32_links_are_followed(tmp_path: Path) -> None:
    """A linked folder on another disk is part of the data set, on every route."""
    write(tmp_path / "in" / "a.tif", image(0))
    write(tmp_path / "disk" / "b.tif", image(1), from_origin(600_000, 6_000_000, 10, 10))
    (tmp_path / "in" / "more").symlink_to(tmp_path / "disk")

    listed = list_sources(tmp_path / "in", Sensor.S2_L2A, Unit.DN, None)

    assert ["a", "more/b"] == [source.name for source in listed]
    assert 2 == len(packed(tmp_path / "in", tmp_path / "out"))
    assert [] == checked(tmp_path / "in")


def test_c33_numbers_as_names_are_no_leak(tmp_path: Path) -> None:
    """Files numbered from 0 in each class and split are different images: copies go by content."""
    seed = 0
    for split in ("train", "test"):
        for name in ("crop", "forest"):
            for number in range(5):
                seed += 1
                there = from_origin(500_000 + 10_000 * seed, 6_000_000, 10, 10)
                write(tmp_path / "in" / split / name / f"{number}.tif", image(seed, size=32), there)
    settings = {"model": "imagestats", "controls": False, "probe": "knn", "k": 1, "bootstrap": 10}
    config = BenchFolderConfig(
        str(tmp_path / "in"),
        sensor="s2-l2a",
        out=str(tmp_path / "r.jsonl"),
        cache=str(tmp_path / "cache"),
        **settings,  # type: ignore[arg-type]
    )
    assert {0} == {result.sample.copies for result in bench(config).results}
    copied = tmp_path / "in" / "test" / "crop" / "9.tif"
    copied.write_bytes((tmp_path / "in" / "train" / "crop" / "0.tif").read_bytes())

    assert {1} == {result.sample.copies for result in bench(config).results}


# ------------------------------------------------------------------------------- remedies


def test_a_command_names_the_file_that_it_is_for(tmp_path: Path) -> None:
    """`pack tiles` and `embed` printed `FILE`, though they know it: typed, it found no file."""
    pixels = image().astype("int16")
    pixels[:, :, :20] = -9999
    write(tmp_path / "in" / "b.tif", image(1), from_origin(600_000, 6_000_000, 10, 10))
    file = write(tmp_path / "in" / "a.tif", pixels)
    with pytest.raises(PixelError, match="is not declared") as packing:
        packed(tmp_path / "in", tmp_path / "no")
    settings = {"sensor": "s2-l2a", "unit": "dn", "chips": 32, "size": 28}
    model, out = "random:vit-tiny-14-2blocks", str(tmp_path / "vectors")
    with pytest.raises(PixelError, match="is not declared") as embedding:
        embed(EmbedConfig([str(file)], model, out, **settings))  # type: ignore[arg-type]

    for error in (packing.value, embedding.value):
        assert f"rio edit-info --nodata -9999 {file}; in an array" in str(error.remedy)
    run_rio(packing.value)

    assert 2 == len(packed(tmp_path / "in", tmp_path / "out"))
    embed(EmbedConfig([str(file)], model, out, **settings))  # type: ignore[arg-type]


def test_of_one_file_per_band_the_file_of_the_band_is_named(tmp_path: Path) -> None:
    """What the band has wrong is written into its own file."""
    for band in L2A:
        pixels = image()[[L2A.index(band)]].astype("int16")
        if band == "B05":
            pixels[:, :, :20] = -9999
        write(tmp_path / "in" / f"x_{band}.tif", pixels)

    with pytest.raises(PixelError, match="is not declared") as caught:
        packed(tmp_path / "in", tmp_path / "no")

    run_rio(caught.value)
    with rasterio.open(tmp_path / "in" / "x_B05.tif") as file:
        assert -9999 == file.nodata
    assert 1 == len(packed(tmp_path / "in", tmp_path / "out"))
