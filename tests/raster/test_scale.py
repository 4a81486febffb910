"""What was scaled already is refused where it is read, on every way in; as stated it is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
from affine import Affine
from remedies import run_rio

from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec
from eofm.contract.validity import check_scale
from eofm.errors import PixelError, RasterError
from eofm.raster.cube import from_xarray
from eofm.raster.opening import read_geotiff, read_scene


def opened(file: Path) -> xr.DataArray:
    """A file as rioxarray opens it, without coordinates, of which affine warns."""
    found = rioxarray.open_rasterio(file, parse_coordinates=False)
    assert isinstance(found, xr.DataArray)
    return found


WAYS: dict[str, Callable[[Path, str], Imagery]] = {
    "read_geotiff": lambda file, unit: read_geotiff(file, sensor="s2-l2a", unit=unit),
    "read_scene": lambda file, unit: read_scene(file, sensor="s2-l2a", unit=unit),
    "from_xarray": lambda file, unit: from_xarray(opened(file), "s2-l2a", unit),
    "read_scene of an array": lambda file, unit: read_scene(
        opened(file), sensor="s2-l2a", unit=unit
    ),
}


def scene(file: Path, kind: str, high: float) -> Path:
    """Four bands of numbers up to `high`."""
    values = np.random.default_rng(0).uniform(high / 50, high, (4, 32, 32)).astype(kind)
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        height=32,
        width=32,
        count=4,
        dtype=kind,
        crs="EPSG:32632",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as target:
        target.write(values)
        target.descriptions = ("B02", "B03", "B04", "B08")
    return file


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "high", "unit"),
    [
        ("float32", 0.5, "dn"),
        ("float32", 0.5, "dn-offset1000"),
        ("float64", 1.2, "dn"),
        ("uint16", 4_000, "reflectance"),
    ],
)
def test_another_scale_is_refused_where_it_is_read(
    way: str, kind: str, high: float, unit: str, tmp_path: Path
) -> None:
    """It was found out when it was embedded; with the unit that the error names it is read."""
    file = scene(tmp_path / "scene.tif", kind, high)

    with pytest.raises(PixelError, match=f"not in the range of unit {unit}") as caught:
        WAYS[way](file, unit)

    named = str(caught.value.remedy).split('"')[1]
    assert WAYS[way](file, named).spec.unit == named


@pytest.mark.parametrize("way", WAYS)
def test_the_number_type_is_asked_on_every_way(way: str, tmp_path: Path) -> None:
    """Arrays of 8 bits were taken for digital numbers, files were not."""
    file = scene(tmp_path / "scene.tif", "uint8", 250)

    with pytest.raises(PixelError, match="8-bit"):
        WAYS[way](file, "dn")


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([2.0, 0.0, 1.0, 3.0], "dn"),  # a dark window
        ([31.5, 0.5, 1.0, 3.0], "dn"),  # resampled
        ([0.0, 0.0, 0.0, 0.0], "dn"),
        ([0.0, 1.0, 1.0, 0.0], "reflectance"),  # clipped
        ([0.2, 5.5, 1.0, 0.0], "reflectance"),  # a glint
        ([float("nan"), 700.0, 3.0, 4.0], "dn"),
        ([0.5, 0.2, 0.1, 0.2], "power"),
    ],
)
def test_what_may_be_so_is_read(values: list[float], unit: str) -> None:
    """Fractions among large numbers, and whole numbers that reflectance can be, tell nothing."""
    bands, sensor = (["VV"], "s1-grd") if unit == "power" else (["B02"], "s2-l2a")
    pixels = torch.tensor(values).view(1, 1, 2, 2)
    imagery = Imagery(pixels, ImageSpec(sensor, bands, unit, (2, 2), 10.0), pixels[:, 0].isfinite())

    assert check_scale(imagery) is imagery


def test_invalid_pixels_say_nothing() -> None:
    """What is masked is not looked at, and where all is there is nothing to look at."""
    pixels = torch.tensor([0.5, 700.0]).view(1, 1, 1, 2)
    spec = ImageSpec("s2-l2a", ["B02"], "dn", (1, 2), 10.0)

    for flags in ([False, True], [False, False]):
        imagery = Imagery(pixels, spec, torch.tensor(flags).view(1, 1, 2))
        assert check_scale(imagery) is imagery


def tagged(file: Path, values: np.ndarray, scale: float, offset: float, bands: str) -> Path:
    """A file that states scale and offset, as GDAL writes them."""
    count, height, width = values.shape
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=values.dtype,
        crs="EPSG:32632",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6),
        nodata=-32768 if values.dtype.kind != "u" else None,
    ) as target:
        target.write(values)
        target.descriptions = bands.split()
        target.scales, target.offsets = (scale,) * count, (offset,) * count
    return file


def numbers(high: int, kind: str, count: int) -> np.ndarray:
    """Whole numbers up to `high`, a corner of which is declared to be nodata."""
    values = np.random.default_rng(3).integers(high // 20, high, (count, 32, 32)).astype(kind)
    if kind != "uint16":
        values[:, :20] = -32768
    return values


S2 = ("s2-l2a", "B02 B03 B04 B08", 6000, 1e-4, -0.1)
S1 = ("s1-rtc", "VV VH", -2000, 0.01, 0.0)


@pytest.mark.parametrize("given", [S2, S1], ids=["reflectance", "decibels"])
@pytest.mark.parametrize("unit", [True, False], ids=["stated", "left out"])
def test_an_array_that_was_scaled_and_still_says_so(given, unit: bool, tmp_path: Path) -> None:
    """Arithmetic keeps `scale_factor`, which is then applied twice; the remedy leads to values."""
    sensor, bands, high, scale, offset = given
    physical = "db" if sensor == "s1-rtc" else "reflectance"
    stored = -numbers(2500, "int16", 2) if high < 0 else numbers(high, "uint16", 4)
    file = tagged(tmp_path / "a.tif", stored, scale, offset, bands)
    array = opened(file)
    array = (array.where(array != array.rio.nodata) * scale + offset).assign_attrs(array.attrs)
    assert "scale_factor" in array.attrs
    truth = read_geotiff(file, sensor=sensor, unit=physical)
    said = physical if unit or sensor == "s1-rtc" else None
    for read in (from_xarray, read_scene):
        with pytest.raises(RasterError, match="scaled already") as error:
            read(array, sensor=sensor, unit=said)
        remedy, _, state = error.value.remedy.partition("; and state the unit of the values, ")
        again = array.copy()
        exec(remedy.removeprefix("remove the scale: "), {"array": again})
        assert state == f'as in unit="{physical}"'
        found = read(again, sensor=sensor, unit=physical)
        keep = found.valid & truth.valid
        assert keep.any()
        torch.testing.assert_close(found.pixels[:, :, keep[0]], truth.pixels[:, :, keep[0]])


def test_a_dataset_that_was_scaled_and_still_says_so(tmp_path: Path) -> None:
    """The remedy of a Dataset works on what is opened from a file, too."""
    attrs = {"scale_factor": 1e-4, "add_offset": 0.0}
    values = np.random.default_rng(1).uniform(0.01, 0.4, (5, 6))
    bands = {b: xr.DataArray(values, dims=("y", "x"), attrs=attrs) for b in ("B04", "B08")}
    xr.Dataset(bands).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(RasterError, match="scaled already") as error:
        read_scene(tmp_path / "a.zarr", sensor="s2-l2a", unit="reflectance", gsd=10)
    remedy = error.value.remedy.partition("; and state")[0].partition("first): ")[2]
    assert "mask_and_scale=False" in error.value.remedy
    dataset = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False, chunks=None)
    exec(remedy, {"dataset": dataset})
    found = read_scene(dataset, sensor="s2-l2a", unit="reflectance", gsd=10)
    np.testing.assert_allclose(found.pixels[0, 0], values, rtol=1e-6)


@pytest.mark.parametrize("unit", ["reflectance", "dn", None])
def test_a_file_of_fractions_with_a_scale_that_was_left(unit: str | None, tmp_path: Path) -> None:
    """A float32 file whose tag remained is refused in any unit, and the command mends it."""
    values = np.random.default_rng(2).uniform(0.01, 0.4, (4, 32, 32)).astype(np.float32)
    values[:, :20] = -32768
    file = tagged(tmp_path / "a b.tif", values, 1e-4, 0.0, "B02 B03 B04 B08")
    with pytest.raises(RasterError, match="scaled already") as error:
        read_geotiff(file, sensor="s2-l2a", unit=unit)
    command = error.value.remedy.partition("as in: ")[2].partition("; and state")[0]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    found = read_geotiff(file, sensor="s2-l2a", unit="reflectance")
    np.testing.assert_array_equal(found.pixels[0, :, 20:], values[:, 20:])


@pytest.mark.parametrize("given", [S2, S1], ids=["reflectance", "decibels"])
@pytest.mark.parametrize("kind", ["stored as floats", "averages", "mask_and_scale"])
def test_numbers_that_wait_for_their_scale_are_read(given, kind: str, tmp_path: Path) -> None:
    """Whole numbers in floats, averages of stored numbers, and what rioxarray scaled are right."""
    sensor, bands, high, scale, offset = given
    physical = "db" if sensor == "s1-rtc" else "reflectance"
    stored = -numbers(2500, "int16", 2) if high < 0 else numbers(high, "uint16", 4)
    stored = stored.astype(np.float32)
    if kind == "averages":
        stored = (stored + np.roll(stored, 1, 2) * 0.37) / 1.37
    file = tagged(tmp_path / "a.tif", stored, scale, offset, bands)
    if kind == "mask_and_scale":
        array = rioxarray.open_rasterio(file, parse_coordinates=False, mask_and_scale=True)
        found = from_xarray(array, sensor, physical)
    else:
        found = read_geotiff(file, sensor=sensor, unit=physical)
    truth = stored * scale + offset
    keep = found.valid[0].numpy()
    assert keep.any()
    np.testing.assert_allclose(
        found.pixels[0].numpy()[:, keep], truth[:, keep], rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("largest", "preview"), [(200, True), (2000, False)])
def test_eight_bits_are_not_to_be_stated_as_digital_numbers(
    largest: int, preview: bool, tmp_path: Path, write_tif
) -> None:
    """A preview stated as reflectance was to be stated as dn, and then refused."""
    kind = np.uint8 if preview else np.uint16
    pixels = np.arange(2 * 64).reshape(2, 8, 8) * largest // 128 + 1
    path = write_tif(tmp_path / "a.tif", pixels.astype(kind), descriptions=["B02", "B03"])
    with pytest.raises(PixelError, match="not in the range") as caught:
        read_geotiff(path, sensor="s2-l2a", unit="reflectance")

    assert preview == str(caught.value.remedy).startswith(
        "if this is an 8-bit preview, use the original"
    )
    if not preview:
        assert read_geotiff(path, sensor="s2-l2a", unit="dn")


@pytest.mark.parametrize(
    ("unit", "scale", "offset"), [("reflectance", 1e-4, -0.1), ("db", 0.01, 0.0)]
)
def test_nodata_below_a_scale_is_declared_as_it_is_stored(
    unit: str, scale: float, offset: float, tmp_path: Path
) -> None:
    """-0.9999 was to be declared, which an integer file does not hold; its number is -9999."""
    radar = unit == "db"
    rng = np.random.default_rng(0)
    pixels = (
        rng.integers(-2500, -500, (2, 32, 32)) if radar else rng.integers(1100, 4000, (2, 32, 32))
    )
    pixels[:, :, :8] = -9999
    file, bands = tmp_path / "a.tif", ["VV", "VH"] if radar else ["B03", "B04"]
    at = Affine(10, 0, 500_000, 0, -10, 6_000_000)
    with rasterio.open(file, "w", "GTiff", 32, 32, 2, "EPSG:32632", at, "int16") as dataset:
        dataset.write(pixels.astype("int16"))
        dataset.scales, dataset.offsets = (scale,) * 2, (offset,) * 2
        dataset.descriptions = bands
    stated = {"sensor": "s1-grd" if radar else "s2-l2a", "unit": unit}
    refused = []
    for call in (read_geotiff, read_scene):
        with pytest.raises(PixelError, match="not declared") as caught:
            call(file, **stated)
        refused.append(caught.value)
    assert "--nodata -9999 " in str(refused[0].remedy)
    assert refused[0].remedy == refused[1].remedy

    run_rio(refused[0], {"FILE": file})

    found = read_geotiff(file, **stated)
    assert [False] * 8 + [True] * 24 == found.valid[0, 0].tolist()
    np.testing.assert_allclose(
        pixels[:, :, 8:] * scale + offset, found.pixels[0, :, :, 8:], atol=1e-5
    )
