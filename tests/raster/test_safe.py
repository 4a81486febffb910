"""Sentinel-2 products: what the metadata say is what the pixels are."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from safe_product import (
    PLACE,
    SIZE,
    TAKEN,
    digital_numbers,
    edit,
    metadata,
    without,
    write_product,
)

import eofm
from eofm.contract.spec import BANDS, SENSOR_BANDS, Sensor, Unit
from eofm.datasets.check import CheckConfig
from eofm.datasets.check.run import check_data
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import RasterError, SpecError
from eofm.raster.folder import list_sources
from eofm.raster.safe import of_product
from eofm.raster.tags import unit_of_baseline
from eofm.world.files import Product, write_safe

LEVELS = (Sensor.S2_L1C, Sensor.S2_L2A)


def zipped(product: Path, name: str = "product.zip") -> Path:
    """Return a zip of a product, its folder within."""
    base = str(product.parent / name.removesuffix(".zip"))
    return Path(shutil.make_archive(base, "zip", product.parent, product.name))


@pytest.mark.parametrize("sensor", LEVELS)
@pytest.mark.parametrize(
    ("baseline", "unit", "offset"),
    [
        ("02.09", Unit.DN, 0),
        ("03.01", Unit.DN, 0),
        ("04.00", Unit.DN_OFFSET1000, 1000),
        ("05.11", Unit.DN_OFFSET1000, 1000),
    ],
)
def test_the_baseline_decides_the_unit(
    tmp_path: Path, sensor: Sensor, baseline: str, unit: Unit, offset: int
) -> None:
    """Sensor and unit are read, not stated, and every band arrives at its native resolution."""
    scene = eofm.open_scene(write_product(tmp_path, sensor, baseline))

    assert (sensor, unit, SENSOR_BANDS[sensor]) == (scene.sensor, scene.unit, scene.bands)
    assert ((SIZE, SIZE), 10.0, 6) == (scene.spec.size, scene.gsd, scene.step)
    for band, pixels in digital_numbers(SENSOR_BANDS[sensor]).items():
        read = scene.read(bands=[band])
        assert BANDS[band].gsd == read.spec.gsd
        assert np.array_equal(pixels + np.uint16(offset), read.pixels[0, 0].numpy())


@pytest.mark.parametrize("sensor", LEVELS)
def test_folder_zip_and_metadata_file_are_the_same_scene(tmp_path: Path, sensor: Sensor) -> None:
    """A zip is read in place; each way gives the same pixels, name, date and place."""
    product = write_product(tmp_path, sensor)
    inner = tmp_path / "flat.zip"
    with zipfile.ZipFile(inner, "w") as archive:  # without the folder that ends in .SAFE
        for file in product.rglob("*"):
            archive.write(file, file.relative_to(product))
    folder = eofm.open_scene(product)
    pixels = folder.read().pixels
    for source in (str(product), metadata(product), zipped(product), inner):
        scene = eofm.open_scene(source)
        assert (folder.name, folder.date, folder.spec) == (scene.name, scene.date, scene.spec)
        assert folder.grid == scene.grid
        assert np.array_equal(pixels, scene.read().pixels)


def test_a_relative_zip_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL gets the whole path, also where the user gives a part of it, and spaces in it."""
    folder = tmp_path / "my products"
    archive = zipped(write_product(folder))
    monkeypatch.chdir(tmp_path)

    assert Unit.DN_OFFSET1000 is eofm.open_scene(archive.relative_to(tmp_path)).unit


def test_pixels_are_those_of_gdals_own_reader(tmp_path: Path) -> None:
    """GDAL's SENTINEL2 driver opens the product and gives the same numbers at the same place."""
    product = write_product(tmp_path)
    for gsd, bands in (
        (10, "B02 B03 B04 B08"),
        (20, "B05 B06 B07 B8A B11 B12"),
        (60, "B01 B09 B10"),
    ):
        name = f"SENTINEL2_L1C:{metadata(product)}:{gsd}m:EPSG_{PLACE.epsg}"
        read = eofm.read_scene(product, bands=bands.split())
        with rasterio.open(name) as dataset:
            order = [
                f"B{int(t.split(',')[0][1:]):02d}" if t[1:3] != "8A" else "B8A"
                for t in dataset.descriptions
            ]
            assert set(bands.split()) == set(order)
            for number, band in enumerate(order, 1):
                place = read.spec.bands.index(band)
                assert np.array_equal(dataset.read(number), read.pixels[0, place].numpy())
            assert tuple(dataset.transform)[:6] == read.grid.transform


def test_what_the_metadata_say_else(tmp_path: Path) -> None:
    """Date, footprint, name and provenance come from the product."""
    product = write_product(tmp_path)
    scene = eofm.open_scene(product)

    assert "2022-03-01T10:30:21" == scene.date
    assert product.name == f"{scene.name}.SAFE"
    longitude, latitude = scene.footprint[0]
    assert (9.0, 48.75) == (round(longitude, 2), round(latitude, 2))
    assert longitude < scene.footprint[1][0]
    assert "baseline 05.11" in scene.origin
    assert scene == pickle.loads(pickle.dumps(scene))
    assert "2022-03-01T10:30:21" in scene.describe()


def test_a_statement_that_agrees_is_accepted(tmp_path: Path) -> None:
    """Whoever states what is true is not refused."""
    product = write_product(tmp_path)

    assert eofm.open_scene(product, sensor="s2-l1c", unit="dn-offset1000") == eofm.open_scene(
        product
    )


def test_a_statement_that_contradicts_is_refused(tmp_path: Path) -> None:
    """The message says who says what, and the remedy it prints is right."""
    product = write_product(tmp_path)
    with pytest.raises(SpecError, match="another unit than stated") as unit:
        eofm.open_scene(product, unit="dn")
    assert "dn-offset1000" in str(unit.value)
    assert "05.11" in str(unit.value)
    assert "omit the unit" in unit.value.remedy
    with pytest.raises(SpecError, match="another sensor than stated"):
        eofm.open_scene(product, sensor="s2-l2a")


@pytest.mark.parametrize("sensor", LEVELS)
@pytest.mark.parametrize("offset", ["-500", "1000", "many", "nan"])
def test_other_offsets_are_an_error(tmp_path: Path, sensor: Sensor, offset: str) -> None:
    """An offset that no unit has is not rounded to one that has."""
    product = write_product(tmp_path, sensor)
    edit(product, lambda text: text.replace(">-1000<", f">{offset}<"))
    with pytest.raises(RasterError, match=r"OFFSET|offsets"):
        eofm.open_scene(product)


def test_bands_of_different_offsets_are_an_error(tmp_path: Path) -> None:
    """One band apart from the others would be wrong by 0.1 of reflectance; alone it is right."""
    product = write_product(tmp_path)
    edit(product, lambda text: text.replace('band_id="10">-1000<', 'band_id="10">0<'))
    with pytest.raises(RasterError, match="offsets"):
        eofm.open_scene(product)
    assert Unit.DN is eofm.open_scene(product, bands=["B10"]).unit
    assert Unit.DN_OFFSET1000 is eofm.open_scene(product, bands=["B11"]).unit


@pytest.mark.parametrize("sensor", LEVELS)
def test_a_new_baseline_without_offsets_is_an_error(tmp_path: Path, sensor: Sensor) -> None:
    """Since 04.00 the offset is stated; where it is not, nobody knows."""
    product = edit(write_product(tmp_path, sensor), without("(?:RADIO|BOA)_ADD_OFFSET"))
    with pytest.raises(RasterError, match=r"offsets of baseline 05\.11"):
        eofm.open_scene(product)
    assert (Unit.DN, Unit.DN_OFFSET1000) == (unit_of_baseline(3.99), unit_of_baseline(4.0))


def test_an_offset_of_zero_is_plain(tmp_path: Path) -> None:
    """The element decides, whatever the baseline is."""
    product = edit(write_product(tmp_path), lambda text: text.replace(">-1000<", ">0<"))

    assert Unit.DN is eofm.open_scene(product).unit


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.replace("</n1:General_Info>", ""), "metadata of the product cannot be read"),
        (lambda t: t[: len(t) // 2], "metadata of the product cannot be read"),
        (lambda t: t.replace("?>", "?><!DOCTYPE a [<!ENTITY b 'c'>]>", 1), "cannot be read"),
        (lambda t: t.replace("Level-1C<", "Level-3<"), "processing level"),
        (without("PROCESSING_LEVEL"), "processing level"),
        (without("PROCESSING_BASELINE"), "processing baseline"),
        (lambda t: t.replace(">05.11<", ">newest<"), "processing baseline"),
        (lambda t: t.replace(">10000<", ">1000<"), "quantification value"),
        (without("QUANTIFICATION_VALUE"), "QUANTIFICATION_VALUE"),
        (lambda t: t.replace('band_id="3"', 'band_id="33"'), "band of RADIO_ADD_OFFSET"),
        (without("Granule_List"), "list of images"),
        (without("IMAGE_FILE"), "lacks bands"),
        (lambda t: t.replace("<SPECIAL_VALUE_INDEX>0<", "<SPECIAL_VALUE_INDEX>-<"), "INDEX"),
        (lambda t: t.replace("<SPECIAL_VALUE_INDEX>0<", "<SPECIAL_VALUE_INDEX>7<"), "nodata value"),
    ],
)
def test_broken_metadata_are_said(tmp_path: Path, change, problem: str) -> None:
    """Each fault is one error that names the file, from a folder and from a zip."""
    product = edit(write_product(tmp_path), change)
    for source in (product, zipped(product)):
        with pytest.raises(RasterError, match=problem) as broken:
            eofm.open_scene(source)
        assert product.name in str(broken.value.where) or source == broken.value.where


def test_missing_bands_are_named(tmp_path: Path) -> None:
    """The remedy, to open the others alone, is printed as code and works."""
    product = write_product(tmp_path)
    for band in ("B03", "B10"):
        next(product.rglob(f"*_{band}.jp2")).unlink()
    with pytest.raises(RasterError, match="lacks bands B03, B10") as missing:
        eofm.open_scene(product)
    bands = eval(missing.value.remedy.partition("bands=")[2])

    assert tuple(bands) == eofm.open_scene(product, bands=bands).bands
    assert 11 == len(bands)


def test_bands_are_taken_at_their_native_resolution(tmp_path: Path) -> None:
    """Level-2A has every band at 20 and 60 m as well, and more beside: none of that is taken."""
    product = write_product(tmp_path, Sensor.S2_L2A)
    listed = []
    for file in sorted(product.rglob("*m.jp2")):
        for gsd in (20, 60):
            name = f"{file.stem.rpartition('_')[0]}_{gsd}m"
            other = file.parent.parent / f"R{gsd}m" / f"{name}.jp2"
            if not other.exists():
                other.write_bytes(b"not to be opened")
                listed.append(other.relative_to(product).with_suffix("").as_posix())
    listed += [listed[0].replace("_B01_", f"_{word}_") for word in ("AOT", "WVP", "TCI", "SCL")]
    more = "".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in listed)
    edit(product, lambda t: t.replace("</Granule>", f"{more}</Granule>"))
    scene = eofm.open_scene(product)

    assert 14 < len(listed)
    for band, pixels in digital_numbers(SENSOR_BANDS[Sensor.S2_L2A]).items():
        assert np.array_equal(pixels + np.uint16(1000), scene.read(bands=[band]).pixels[0, 0])


def test_a_damaged_band_is_said(tmp_path: Path) -> None:
    """Half of a JPEG 2000 is an error, when opened or when read."""
    product = write_product(tmp_path)
    file = next(product.rglob("*_B04.jp2"))
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(RasterError):
        eofm.read_scene(product)


def test_two_granules(tmp_path: Path) -> None:
    """Products before December 2016 hold several tiles; one is chosen as the message says."""
    product = write_product(tmp_path)
    text = metadata(product).read_text(encoding="utf-8")
    start, end = text.index("<Granule "), text.index("</Granule>") + len("</Granule>")
    other = text[start:end].replace("T32UNV", "T32UPV")
    edit(product, lambda t: t[:end] + other + t[end:])
    (granule,) = (product / "GRANULE").iterdir()
    copy = granule.with_name(granule.name.replace("T32UNV", "T32UPV"))
    shutil.copytree(granule, copy)
    for file in copy.rglob("T32UNV*"):
        file.rename(file.with_name(file.name.replace("T32UNV", "T32UPV")))
    with pytest.raises(RasterError, match="has 2 granules") as several:
        eofm.open_scene(product)

    assert 'item="T32UNV"' in several.value.remedy
    first, second = (eofm.open_scene(product, item=tile) for tile in ("T32UNV", "T32UPV"))
    assert first.pixels.files != second.pixels.files
    assert "T32UPV" in second.name
    with pytest.raises(RasterError, match="no such granule"):
        eofm.open_scene(product, item="T99XXX")


def test_old_names(tmp_path: Path) -> None:
    """Products of 2015 and 2016 name the same files otherwise, and list images by identifier."""
    new = write_product(tmp_path / "new", baseline="02.01")
    stem = "S2A_OPER_MSI_L1C_TL_EPA__20150818T101237_A000734_T32UNV"
    old = tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_20150818T101237_R022_V20150813T102406.SAFE"
    folder = old / "GRANULE" / f"{stem}_N02.01"
    (folder / "IMG_DATA").mkdir(parents=True)
    for file in new.rglob("*.jp2"):
        shutil.copy(file, folder / "IMG_DATA" / f"{stem}_{file.stem[-3:]}.jp2")
    shutil.copy(next(new.rglob("MTD_TL.xml")), folder / "S2A_OPER_MTD_L1C_TL_EPA__2015.xml")
    text = metadata(new).read_text(encoding="utf-8")
    start, end = text.index("<Granule "), text.index("</Granule>") + len("</Granule>")
    images = "".join(f"<IMAGE_ID>{stem}_{b}</IMAGE_ID>" for b in SENSOR_BANDS[Sensor.S2_L1C])
    listed = f'<Granules granuleIdentifier="{stem}_N02.01">{images}</Granules>'
    text = text[:start] + listed + text[end:]
    (old / "S2A_OPER_MTD_SAFL1C_PDMC_20150818T101237.xml").write_text(text, encoding="utf-8")
    scene = eofm.open_scene(old)

    assert Unit.DN is scene.unit
    assert "2022-03-01T10:30:21" == scene.date
    assert np.array_equal(eofm.read_scene(new).pixels, scene.read().pixels)


def test_what_is_no_product(tmp_path: Path) -> None:
    """A zip that is none, one without metadata, and an empty folder are said."""
    (tmp_path / "a.zip").write_bytes(b"PK no")
    with pytest.raises(RasterError, match="zip cannot be opened"):
        eofm.open_scene(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(RasterError, match="metadata are missing"):
        eofm.open_scene(tmp_path / "b.zip")
    (tmp_path / "c.SAFE").mkdir()
    with pytest.raises(RasterError, match="metadata are missing"):
        eofm.open_scene(tmp_path / "c.SAFE")
    zip_of_two = tmp_path / "d.zip"
    one, two = write_product(tmp_path), write_product(tmp_path, Sensor.S2_L2A)
    with zipfile.ZipFile(zip_of_two, "w") as archive:
        for product in (one, two):
            archive.write(metadata(product), f"{product.name}/{metadata(product).name}")
    with pytest.raises(RasterError, match="several products"):
        eofm.open_scene(zip_of_two)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that the zip says are huge are refused before they are read."""
    monkeypatch.setattr("eofm.raster.safe.MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.SAFE/MTD_MSIL1C.xml", b" " * 100_000)
    with pytest.raises(RasterError, match="too large"):
        eofm.open_scene(tmp_path / "a.zip")


def test_tile_and_images_at_different_places(tmp_path: Path) -> None:
    """Files of two products that were mixed are found out by the place."""
    product = write_product(tmp_path)
    file = next(product.rglob("MTD_TL.xml"))
    text = file.read_text(encoding="utf-8")
    for old, new in (("EPSG:32632", "EPSG:32633"), ("<ULX>500040<", "<ULX>600000<")):
        file.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(RasterError, match="another georeference"):
            eofm.open_scene(product)
    file.unlink()
    assert "2022-03-01T10:30:21" == eofm.open_scene(product).date  # of the whole product


# ------------------------------------------------------------------------ special values


def test_nodata_and_saturation_of_the_metadata(tmp_path: Path) -> None:
    """0 in every band of a resolution is unmeasured, 65535 in one is no value, 0 in one band is."""
    pixels = digital_numbers(SENSOR_BANDS[Sensor.S2_L1C])
    for band in ("B02", "B03", "B04", "B08"):
        pixels[band][:6, :6] = 0
    pixels["B02"][30, 40] = 0  # dark in one band
    pixels["B08"][20, 10] = 65_535
    product = write_product(tmp_path, baseline="02.09", pixels=pixels)
    valid = eofm.read_scene(product).valid[0].numpy()
    expected = np.ones((SIZE, SIZE), bool)
    expected[:6, :6] = False
    expected[20, 10] = False

    assert np.array_equal(expected, valid)
    edit(product, without("Special_Values"))
    expected[20, 10] = True  # nothing says so any more; a margin of 0 needs no saying
    assert np.array_equal(expected, eofm.read_scene(product).valid[0].numpy())


def test_nodata_stays_nodata_with_the_offset(tmp_path: Path) -> None:
    """0 is not shifted by 1000, neither in the product nor when it is read."""
    pixels = digital_numbers(["B02"])
    pixels["B02"][0, 0] = 0
    image = eofm.read_scene(write_product(tmp_path, pixels=pixels), bands=["B02"])

    assert (0.0, False) == (image.pixels[0, 0, 0, 0].item(), image.valid[0, 0, 0].item())
    assert 1200 + 1 == image.pixels[0, 0, 0, 1].item()


def test_clouds_of_the_product_hide_pixels(tmp_path: Path) -> None:
    """SCL and cloud probability at 20 m hide the 10 m pixels below them, where asked for."""
    half = SIZE // 2
    classes = np.full((half, half), 4, np.uint8)
    classes[2, 3], classes[5, 5] = 9, 3
    cloud = np.zeros((half, half), np.uint8)
    cloud[10:, :4] = 90
    product = write_product(tmp_path, Sensor.S2_L2A, classes=classes, cloud=cloud)
    scene = eofm.open_scene(product)
    by_class = np.ones((SIZE, SIZE), bool)
    by_class[4:6, 6:8] = by_class[10:12, 10:12] = False
    by_share = np.ones((SIZE, SIZE), bool)
    by_share[20:, :8] = False

    assert scene.read().valid.all()
    assert np.array_equal(by_class, scene.read(cloud_mask="SCL").valid[0])
    assert np.array_equal(by_share, scene.read(cloud_mask="MSK_CLDPRB").valid[0])
    part = scene.read((18, 6, 12, 6), cloud_mask="MSK_CLDPRB").valid[0]
    assert np.array_equal(by_share[18:30, 6:12], part)
    coarse = scene.read(bands=["B01"], cloud_mask="SCL").valid[0]  # 60 m: any cloud below hides it
    assert np.array_equal(by_class.reshape(8, 6, 8, 6).all(axis=(1, 3)), coarse)
    assert np.array_equal(by_class, eofm.read_scene(zipped(product), cloud_mask="scl").valid[0])
    with pytest.raises(SpecError, match="no cloud mask QA60"):
        scene.read(cloud_mask="QA60")


def test_bands_of_a_product_are_not_what_its_metadata_deny(tmp_path: Path) -> None:
    """Read as a folder of rasters, a product still says its level and its offset."""
    product = write_product(tmp_path, Sensor.S2_L1C, "05.11")
    image = eofm.read_geotiff(product, sensor="s2-l1c", unit="dn-offset1000")
    assert torch.equal(eofm.read_scene(product).pixels, image.pixels)
    with pytest.raises(RasterError, match="another unit than stated") as unit:
        eofm.read_geotiff(product, sensor="s2-l1c", unit="dn")
    assert 'unit="dn-offset1000"' in str(unit.value.remedy)
    with pytest.raises(RasterError, match="another sensor than stated") as level:
        eofm.read_geotiff(product, sensor="s2-l2a", unit="dn")
    assert 'sensor="s2-l1c"' in str(level.value.remedy)
    with pytest.raises(RasterError, match="another unit than stated"):
        pack_tiles(PackTilesConfig(str(tmp_path), "s2-l1c", "dn", str(tmp_path / "out"), window=48))
    report = check_data(CheckConfig(str(tmp_path), sensor="s2-l1c", unit="dn"))
    assert any("another unit than stated" in problem for problem in report.by_problem)


def test_a_scene_of_the_bands_of_a_product_is_what_the_product_says(tmp_path: Path) -> None:
    """Opened by their folder, by one of them or as a list, they were what was stated: 1000 off."""
    product = write_product(tmp_path, Sensor.S2_L1C, "05.11")
    bands = sorted(product.rglob("*_B0[234].jp2"))
    stated = {"sensor": "s2-l1c", "bands": ["B02", "B03", "B04"]}
    for source in (bands[0].parent, bands, [str(band) for band in bands]):
        for call in (eofm.open_scene, eofm.read_scene):
            with pytest.raises(RasterError, match="another unit than stated") as caught:
                call(source, unit="dn", **stated)
        assert 'unit="dn-offset1000"' in str(caught.value.remedy)
        found = eofm.read_scene(source, unit="dn-offset1000", **stated)
        assert torch.equal(eofm.read_scene(product, bands=stated["bands"]).pixels, found.pixels)
    with pytest.raises(RasterError, match="another unit than stated"):
        eofm.open_scene(bands[0], sensor="s2-l1c", unit="dn", bands=["B02"])


def test_a_relative_path_means_the_product_it_lies_in_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From inside of a product too, and another one after a change of folder."""
    old = write_product(tmp_path / "old", Sensor.S2_L1C, "02.06")
    new = write_product(tmp_path / "new", Sensor.S2_L1C, "05.11")
    band = next(new.rglob("*_B02.jp2"))
    monkeypatch.chdir(band.parent)
    with pytest.raises(RasterError, match="another unit than stated"):
        eofm.read_geotiff(band.name, sensor="s2-l1c", unit="dn")
    for product, unit, wrong in ((old, "dn", "dn-offset1000"), (new, "dn-offset1000", "dn")):
        product.rename(product.parent / "same.SAFE")
        monkeypatch.chdir(product.parent)
        assert unit == str(eofm.read_geotiff("same.SAFE", sensor="s2-l1c", unit=unit).spec.unit)
        with pytest.raises(RasterError, match="another unit than stated"):
            eofm.read_geotiff("same.SAFE", sensor="s2-l1c", unit=wrong)


def test_a_sentinel_1_product_is_not_an_incomplete_one(tmp_path: Path) -> None:
    """It was to be downloaded whole; what it needs is calibration and a grid."""
    product = tmp_path / "S1A_IW_GRDH_1SDV_20210704T053018_20210704T053043_038624_048EBD_1.SAFE"
    product.mkdir()
    (product / "manifest.safe").write_text("<xfdu:XFDU/>")

    with pytest.raises(RasterError, match="must be calibrated and geocoded") as refused:
        eofm.read_scene(product, sensor="s1-grd", unit="power")
    assert "calibrate it" in str(refused.value.remedy)


RADAR = "S1A_IW_{}_1SDV_20210704T053018_20210704T053043_038624_048EBD_1.SAFE"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("kind", "dtype"), [("GRDH", "uint16"), ("SLC_", "complex64")])
def test_a_sentinel_1_product_is_one_on_every_route(
    tmp_path: Path, write_tif, kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`read_geotiff` said "several images", `data check` "nothing says which band", ..."""
    product = tmp_path / "in" / RADAR.format(kind)
    for k, band in enumerate(("vv", "vh"), 1):
        name = f"s1a-iw-{kind[:3].lower()}-{band}-20210704t053018-20210704t053043-038624-00{k}.tiff"
        file = product / "measurement" / name
        write_tif(file, np.full((8, 8), 90).astype(dtype), crs=None, bare=True)
    (product / "manifest.safe").write_text("<xfdu:XFDU>sentinel-1</xfdu:XFDU>")
    packed, renamed = (
        zipped(product, RADAR.format(kind).replace(".SAFE", ".zip")),
        tmp_path / "renamed",
    )
    shutil.copytree(product, renamed)
    said = "complex numbers" if "SLC" in kind else "digital numbers"
    stated = {"sensor": "s1-grd", "unit": "db"}

    def errors() -> Iterator[RasterError]:
        for path in (product, product / "measurement", file, renamed, renamed / "manifest.safe"):
            for call in (eofm.open_scene, eofm.read_scene):
                with pytest.raises(RasterError) as caught:
                    call(path, **stated)
                yield caught.value
        for path in (product, product.parent, product / "measurement", file, renamed):
            with pytest.raises(RasterError) as caught:
                eofm.read_geotiff(path, **stated)
            yield caught.value
        with pytest.raises(RasterError) as caught:
            eofm.open_scene(packed)
        yield caught.value
        with pytest.raises(RasterError) as caught:
            check_data(CheckConfig(str(product), **stated))
        yield caught.value
        with pytest.raises(RasterError) as caught:
            pack_tiles(PackTilesConfig(str(product), *stated.values(), str(tmp_path / "o")))
        yield caught.value

    for error in errors():
        assert (
            "a Sentinel-1 product must be calibrated and geocoded before it is read"
            == error.problem
        )
        assert said in str(error.found)
        assert "sigma0 or gamma0 on a grid" in str(error.expected)
    call = str(error.remedy).partition("as in ")[2]
    write_tif(tmp_path / "VV_VH.tif", np.full((2, 8, 8), 0.05, np.float32))
    monkeypatch.chdir(tmp_path)
    assert ("VV", "VH") == eval(call, {"eofm": eofm}).spec.bands
    with pytest.raises(RasterError, match="cannot be read") as caught:
        eofm.read_geotiff(packed, **stated)
    assert "calibrate it" in str(caught.value.remedy)


def test_backscatter_under_the_name_of_a_product_is_read(tmp_path: Path, write_tif) -> None:
    """What was calibrated, and brought to a grid, and kept its name is real numbers with a CRS."""
    name = "s1a-iw-grd-vv-20210704t053018-20210704t053043-038624-048ebd-001.tiff"
    path = write_tif(tmp_path / name, np.full((8, 8), -12.5, np.float32))

    read = eofm.read_geotiff(path, sensor="s1-grd", unit="db", bands=["VV"])
    assert -12.5 == float(read.pixels.mean())


def test_the_manifest_of_a_product_is_the_product(tmp_path: Path) -> None:
    """It was XML without pixels."""
    product = write_product(tmp_path)
    (product / "manifest.safe").write_text("<xfdu:XFDU/>")

    found = eofm.read_scene(product / "manifest.safe")
    assert torch.equal(eofm.read_scene(product).pixels, found.pixels)


def test_a_band_of_a_product_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A wrong path into a product ended in an error of the system, for its state was asked for."""
    missing = tmp_path / "S2A_MSIL1C.SAFE" / "GRANULE" / "T31UDQ_B02.jp2"

    with pytest.raises(RasterError, match="no such file"):
        eofm.read_geotiff(missing, sensor="s2-l1c", unit="dn")


def test_what_is_saturated_is_so_on_every_route(tmp_path: Path) -> None:
    """65535, which the product calls saturated, was a measurement but for `open_scene`."""
    pixels = digital_numbers(SENSOR_BANDS[Sensor.S2_L1C])
    pixels["B04"][:6, :6] = 65535 - 1000
    product = write_product(tmp_path / "in", Sensor.S2_L1C, "05.11", pixels)
    stated = {"sensor": "s2-l1c", "unit": "dn-offset1000"}
    scene = eofm.read_scene(product)
    assert 36 == int((~scene.valid[:, :6, :6]).sum())
    assert torch.equal(scene.valid, eofm.read_geotiff(product, **stated).valid)

    bands = ["B02", "B03", "B04"]
    files = [next(product.rglob(f"*_{band}.jp2")) for band in bands]
    store = str(tmp_path / "out")
    config = PackTilesConfig(str(tmp_path / "in"), *stated.values(), store, window=48, bands=bands)
    pack_tiles(config)
    few = eofm.read_scene(product, bands=bands)
    assert 36 == int((~few.valid).sum())
    for read in (
        eofm.read_scene(files, **stated),
        eofm.read_geotiff(product, **stated, bands=bands),
        eofm.Store(store).images([0]),
    ):
        assert torch.equal(few.valid, read.valid)


def test_masks_of_a_product_are_no_images(tmp_path: Path) -> None:
    """Its detector footprints were thirteen bands, and its cloud mask an image beside the bands."""
    scl, cloud = np.full((24, 24), 4, np.uint8), np.zeros((24, 24), np.uint8)
    scl[:4], cloud[-4:] = 9, 90
    folder = tmp_path / "in"
    product = write_safe(
        folder,
        Product(Sensor.S2_L2A, "05.11", PLACE, TAKEN),
        digital_numbers(SENSOR_BANDS[Sensor.S2_L2A]),
        classes=scl,
        cloud=cloud,
    )
    (mask,) = product.rglob("MSK_CLDPRB_20m.jp2")
    for band in SENSOR_BANDS[Sensor.S2_L2A]:
        shutil.copy(mask, mask.with_name(f"MSK_DETFOO_{band}.jp2"))
    stated = {"sensor": "s2-l2a", "unit": "dn-offset1000"}

    assert 1 == len(list_sources(folder, Sensor.S2_L2A, None))
    for name, hidden in (("SCL", slice(0, 8)), ("MSK_CLDPRB", slice(40, 48))):
        read = eofm.read_geotiff(product, **stated, cloud_mask=name)
        assert torch.equal(eofm.read_scene(product, cloud_mask=name).valid, read.valid)
        assert not bool(read.valid[:, hidden].any())
        assert 40 * 48 == int(read.valid.sum())
    with pytest.raises(RasterError, match="holds no images") as caught:
        eofm.read_geotiff(mask.parent, **stated)
    assert "IMG_DATA" in str(caught.value.remedy)
    images = mask.parent.with_name("IMG_DATA")
    assert torch.equal(eofm.read_scene(product).pixels, eofm.read_scene(images, **stated).pixels)


def test_the_picture_of_a_product_is_a_picture(tmp_path: Path, write_tif) -> None:
    """TCI, as red, green and blue of 8 bits, contradicts no level."""
    product = write_product(tmp_path)
    (image,) = product.rglob("*_B02.jp2")
    name = image.with_name(image.name.replace("B02", "TCI")).with_suffix(".tif")
    path = write_tif(name, np.full((3, 8, 8), 90, np.uint8), photometric="RGB")

    for call in (eofm.read_geotiff, eofm.read_scene):
        assert 90 == float(call(path, sensor="rgb", unit="uint8").pixels.mean())


def test_a_folder_of_products_needs_no_unit(tmp_path: Path) -> None:
    """Of two baselines, each is in its own unit; it was asked for, and one of them refused."""
    pixels = digital_numbers(SENSOR_BANDS[Sensor.S2_L1C])
    for baseline in ("02.09", "05.11"):
        write_product(tmp_path / "in" / baseline, baseline=baseline, pixels=pixels)

    units = {}
    for source in list_sources(tmp_path / "in", Sensor.S2_L1C, None):
        with of_product(source).open() as raster:
            units[source.name[:5]] = raster.unit

    assert {"02.09": Unit.DN, "05.11": Unit.DN_OFFSET1000} == units


def test_a_renamed_product_says_its_unit_on_every_route(tmp_path: Path) -> None:
    """Without `.SAFE` at the end of its folder, `pack tiles` took `dn` for what carries 1000."""
    product = write_product(tmp_path, Sensor.S2_L2A, "05.11")
    images = product.rename(tmp_path / "in")
    problem = "the product metadata give another unit than stated"

    for call in (eofm.read_geotiff, eofm.open_scene):
        with pytest.raises(RasterError, match=problem):
            call(next(images.rglob("*_B04_10m.jp2")), sensor="s2-l2a", unit="dn")
    with pytest.raises(RasterError, match=problem):
        pack_tiles(PackTilesConfig(str(images), "s2-l2a", "dn", str(tmp_path / "no"), window=24))
    report = check_data(CheckConfig(str(images), sensor="s2-l2a", unit="dn"))

    assert {problem} == set(report.by_problem)
    pack_tiles(PackTilesConfig(str(images), "s2-l2a", None, str(tmp_path / "out"), window=24))
    assert (tmp_path / "out").is_dir()
