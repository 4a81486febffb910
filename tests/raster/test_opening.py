"""`open_scene` takes what users have, and says what is missing."""

from __future__ import annotations

import shlex
import subprocess
import warnings
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
import xarray as xr
from affine import Affine
from rasterio.crs import CRS
from remedies import run_rio

import eofm
from eofm.cli import main
from eofm.contract.spec import Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.opening import open_scenes

S2 = "worldcereal/S2_L2A_10m*.nc"


@pytest.fixture
def cube() -> xr.Dataset:
    """Two times of three bands, one of them no band, and a CRS."""
    values = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6) / 100
    dims = ("time", "y", "x")
    dataset = xr.Dataset(
        {"B02": (dims, values), "red": (dims, values + 1), "SCL": (dims, values * 0)},
        coords={
            "time": np.array(["2021-07-04T10:00:00", "2021-07-14T10:00:00"], "datetime64[ns]"),
            "y": 5.4e6 - 5 - 10 * np.arange(4),
            "x": 5e5 + 5 + 10 * np.arange(6),
        },
    )
    return dataset.rio.write_crs("EPSG:32632")


def test_sensor_and_unit_are_needed_where_nothing_says_them(tmp_path: Path, write_tif) -> None:
    """The remedy is printed as code, and a misspelt word gets the nearest one."""
    path = write_tif(tmp_path / "a.tif", np.ones((12, 6, 6), np.uint16))
    with pytest.raises(SpecError, match="states the sensor") as sensor:
        eofm.open_scene(path)
    with pytest.raises(RasterError, match="states the unit") as unit:
        eofm.open_scene(path, sensor="s2-l2a")
    with pytest.raises(SpecError, match="no sensor 's2l2a'") as near:
        eofm.open_scene(path, sensor="s2l2a", unit="dn")
    with pytest.raises(SpecError, match="no unit"):
        eofm.open_scene(path, sensor="s2-l2a", unit="DNs")

    assert 'sensor="s2-l2a"' in sensor.value.remedy
    assert 'unit="dn"' in unit.value.remedy
    assert "s2-l2a" in near.value.remedy
    assert Unit.DN is eofm.open_scene(path, sensor="s2-l2a", unit="dn").unit


def test_what_is_not_there() -> None:
    """A path that does not exist is said as such, whatever its suffix is."""
    for name in ("a.tif", "a.zip", "a.SAFE", "a.json", "a.nc", "folder", "a.zarr"):
        with pytest.raises(RasterError, match="no such file or folder"):
            eofm.open_scene(f"nowhere/{name}", sensor="s2-l2a", unit="dn")


def test_a_choice_that_means_nothing_is_refused(tmp_path: Path, write_tif, cube) -> None:
    """An item of a GeoTIFF and a time of a STAC file would be passed over in silence."""
    path = write_tif(tmp_path / "a.tif", np.ones((12, 6, 6), np.uint16))
    with pytest.raises(RasterError, match="item does not apply"):
        eofm.open_scene(path, sensor="s2-l2a", unit="dn", item="T32UNV")
    with pytest.raises(RasterError, match="time does not apply"):
        eofm.open_scene(path, sensor="s2-l2a", unit="dn", time="2021-07-04")
    with pytest.raises(RasterError, match="item does not apply"):
        eofm.open_scene(cube, sensor="s2-l2a", unit="reflectance", item="a")


def test_a_folder_of_several_images_is_not_one(tmp_path: Path, write_tif) -> None:
    """The message names them, and each of them opens by its name."""
    for name in ("a", "b"):
        write_tif(tmp_path / f"{name}.tif", np.ones((12, 6, 6), np.uint16))
    with pytest.raises(RasterError, match="several images") as several:
        eofm.open_scene(tmp_path, sensor="s2-l2a", unit="dn")

    assert "a, b" == several.value.found
    (one,) = open_scenes(tmp_path / "a.tif", sensor="s2-l2a", unit="dn")
    assert "a" == one.name


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        (("one.tif", "two.tif"), "/*.tif"),
        (("x/one.tif", "y/two.tif"), "/*/*.tif"),
        (("one/B02.tif", "one/B04.tif", "two/B02.tif", "two/B04.tif"), "/*"),
        (("one.tif", "x/two.tif"), "LIST.txt"),
    ],
)
def test_the_images_of_a_folder_are_embedded_as_the_remedy_says(
    files: tuple[str, ...], shown: str, tmp_path: Path, write_tif
) -> None:
    """The one that is named opens, and the words of the command are all of them, to a shell too."""
    folder = tmp_path / "my scenes"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_tif(folder / name, np.full((1, 28, 28), 900, np.uint16), descriptions=["B04"])
    stated = {"sensor": "s2-l2a", "unit": "dn", "bands": ["B04"]}
    with pytest.raises(RasterError, match="several images") as several:
        eofm.open_scene(folder, **stated)
    remedy = str(several.value.remedy)
    first = shlex.split(remedy.partition("as in ")[2].partition(";")[0])
    assert eofm.open_scene(*first, **stated).read().pixels.shape[-2:] == (28, 28)

    words = remedy.partition("eofm embed ")[2].partition(" --model")[0]
    assert words.endswith(shown)
    (tmp_path / "LIST.txt").write_text("".join(f"{folder / name}\n" for name in files))
    found = subprocess.run(
        ["sh", "-c", f'printf "%s\\n" {words}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    paths = [tmp_path / word for word in found]
    config = [*map(str, paths), "--model", "random:vit-tiny-14", "--size", "28", "--patches"]
    config += ["--sensor", "s2-l2a", "--unit", "dn", "--bands", "B04", "--force", "scale"]
    assert 0 == main(["embed", *config, "--out", str(tmp_path / "out")])
    assert 2 == len(list((tmp_path / "out").rglob("patches.tif")))


def test_images_that_share_a_folder_are_named_by_it(tmp_path: Path, write_tif) -> None:
    """Bands of two images in one folder: each is opened by the folder and its name."""
    stated = {"sensor": "s2-l2a", "unit": "dn", "bands": ["B02", "B04"]}
    for name in [f"{image}_{band}.tif" for image in ("one", "two") for band in ("B02", "B04")]:
        write_tif(tmp_path / name, np.full((1, 6, 6), 900, np.uint16))
    with pytest.raises(RasterError, match="several images") as several:
        eofm.open_scene(tmp_path, **stated)
    (named,) = shlex.split(str(several.value.remedy).partition("as in ")[2])

    assert ("B02", "B04") == eofm.open_scene(named, **stated).bands


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_images_that_lie_nowhere_need_a_gsd(tmp_path: Path, write_tif) -> None:
    """With it they are scenes without place, and cannot be cut by one."""
    path = write_tif(tmp_path / "a.tif", np.ones((12, 6, 6), np.uint16), crs=None, bare=True)
    with pytest.raises(RasterError, match="no georeference"):
        eofm.open_scene(path, sensor="s2-l2a", unit="dn")
    scene = eofm.open_scene(path, sensor="s2-l2a", unit="dn", gsd=10.0)

    assert (None, (), 10.0) == (scene.read().grid, scene.footprint, scene.gsd)
    with pytest.raises(RasterError, match="no georeference"):
        scene.read(where=(9.0, 48.0, 9.1, 48.1))


# ------------------------------------------------------------------------------ arrays


def test_a_dataset_is_a_scene(cube: xr.Dataset) -> None:
    """Variables that are bands are taken under any of their names, at the time that is chosen."""
    scene = eofm.open_scene(cube, sensor="s2-l2a", unit="reflectance", time="2021-07-14")

    assert (("B02", "B04"), "2021-07-14T10:00:00") == (scene.bands, scene.date)
    assert np.array_equal(cube.B02.values[1], scene.read().pixels[0, 0])
    part = scene.read((1, 2, 3, 4), bands=["B04"])
    assert np.array_equal(cube.red.values[1, 1:4, 2:6], part.pixels[0, 0])
    assert (5e5 + 20, 5.4e6 - 10) == part.grid.point(0, 0)
    with pytest.raises(RasterError, match="not inside"):
        scene.read((0, 0, 5, 6))


def test_several_times_need_a_choice(cube: xr.Dataset) -> None:
    """The message lists them, and its remedy is one that works; a single time needs none."""
    with pytest.raises(RasterError, match="holds 2 times") as several:
        eofm.open_scene(cube, sensor="s2-l2a", unit="reflectance")
    time = several.value.remedy.partition('time="')[2].partition('"')[0]
    assert several.value.remedy.endswith(f"--time {time} in a command")
    with pytest.raises(RasterError, match="no image of that time") as missing:
        eofm.open_scene(cube, sensor="s2-l2a", unit="reflectance", time="2021-07-13")
    near = missing.value.remedy.partition('time="')[2].partition('"')[0]
    with pytest.raises(RasterError, match="2 images of that time"):
        eofm.open_scene(cube, sensor="s2-l2a", unit="reflectance", time="2021")
    with pytest.raises(SpecError, match="a time must be a date"):
        eofm.open_scene(cube, sensor="s2-l2a", unit="reflectance", time="in July")

    stated = {"sensor": "s2-l2a", "unit": "reflectance"}
    assert "2021-07-04T10:00:00" == eofm.open_scene(cube, time=time, **stated).date
    assert "2021-07-14T10:00:00" == eofm.open_scene(cube, time=near, **stated).date
    for one in (cube.isel(time=[1]), cube.isel(time=1)):
        assert "2021-07-14T10:00:00" == eofm.open_scene(one, **stated).date


@pytest.mark.parametrize(
    "times",
    [
        ["2021-07-04", "2021-07-14T10:00:00Z"],
        [b"20210704T101031", b"20210714T101031"],
        [20210704, 20210714],
    ],
)
def test_texts_and_numbers_are_times(cube: xr.Dataset, tmp_path: Path, times: list) -> None:
    """There were "no times to choose from", and without one an image along time was expected."""
    cube.assign_coords(time=np.array(times)).to_netcdf(tmp_path / "a.nc")
    stated = {"sensor": "s2-l2a", "unit": "reflectance"}
    for source in (cube.assign_coords(time=np.array(times)), tmp_path / "a.nc"):
        found = eofm.open_scene(source, time="2021-07-14", **stated)
        assert found.date.startswith("2021-07-14T10" if times[0] != 20210704 else "2021-07-14T00")
        assert float(found.read().pixels[0, 0, 0, 0]) == pytest.approx(0.24)
        with pytest.raises(RasterError, match="holds 2 times"):
            eofm.open_scene(source, **stated)
    for wrong in (["2021-02-30", "2021-07-14"], ["a", "b"], [1, 2]):
        with pytest.raises(RasterError, match="no times to choose from"):
            eofm.open_scene(cube.assign_coords(time=np.array(wrong)), time="2021-07-14", **stated)


def test_bands_that_are_bytes_have_names(cube: xr.Dataset) -> None:
    """Texts of HDF5 and Zarr come so: they were "no names"."""
    array = cube.isel(time=0)[["B02", "red"]].to_dataarray("band")
    named = array.assign_coords(band=np.array([b"B02", b"B04"]))
    found = eofm.from_xarray(named, "s2-l2a", "reflectance")
    assert ("B02", "B04") == found.spec.bands


def test_what_we_wrote_needs_no_statement(tmp_path: Path, write_tif) -> None:
    """`to_xarray` says sensor, unit and place, also through a netCDF file."""
    pixels = np.arange(2 * 30, dtype=np.uint16).reshape(2, 5, 6) + 1
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B04", "B08"])
    image = eofm.read_scene(path, sensor="s2-l2a", unit="dn-offset1000")
    array = image.to_xarray()
    array.rename("pixels").to_netcdf(tmp_path / "a.nc")
    for source in (array, array.to_dataset("band").assign_attrs(array.attrs)):
        back = eofm.read_scene(source)
        assert (image.spec, image.grid) == (back.spec, back.grid)
        assert torch.equal(image.pixels, back.pixels)
    with pytest.raises(SpecError, match="another unit than stated"):
        eofm.open_scene(array, unit="dn")


def test_real_time_series(real_data: Path) -> None:
    """WorldCereal's netCDF at one date: digital numbers as stored, as netCDF4 reads them."""
    netcdf4 = pytest.importorskip("netCDF4")
    (path,) = real_data.glob(S2)
    scene = eofm.open_scene(path, sensor="s2-l2a", time="2017-08-14")
    image = scene.read((8, 16, 32, 24))
    with netcdf4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        stored = np.stack([file[b][1, 8:40, 16:40] for b in ("B02", "B03", "B04", "B08")])
        assert 0.0001 == file["B02"].scale_factor

    assert (Unit.DN, "2017-08-14T10:55:17") == (scene.unit, scene.date)
    assert np.array_equal(stored, image.pixels[0].numpy())
    assert (CRS.from_epsg(32631), Affine(10, 0, 501360, 0, -10, 5629680)) == (
        scene.grid.crs,
        scene.grid.transform,
    )
    with pytest.raises(RasterError, match="118 times"):
        eofm.open_scene(path, sensor="s2-l2a")
    with pytest.raises(RasterError, match="another unit"):
        eofm.open_scene(path, sensor="s2-l2a", unit="dn-offset1000", time="2017-08-14")


def test_real_radar_series_needs_its_unit(real_data: Path) -> None:
    """Scale and offset give numbers, but dB or power is for the user to say."""
    (path,) = real_data.glob("worldcereal/S1_GRD*.nc")
    with pytest.raises(RasterError, match="unit"):
        eofm.open_scene(path, sensor="s1-grd", time="2017-08-06")
    image = eofm.read_scene(path, sensor="s1-grd", unit="db", time="2017-08-06")
    with xr.open_dataset(path) as scaled:
        expected = scaled.VV.isel(timestamp=1).values

    assert Sensor.S1_GRD is image.spec.sensor
    assert np.allclose(expected, image.select(["VV"]).pixels[0, 0], atol=1e-5)


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    """Broken netCDF, Zarr that is none or that nothing reads, and one without bands are said."""
    (tmp_path / "a.nc").write_bytes(b"CDF but not really")
    (tmp_path / "a.zarr").mkdir()
    for name in ("a.nc", "a.zarr"):
        with pytest.raises(RasterError):
            eofm.open_scene(tmp_path / name, sensor="s2-l2a", unit="dn")
    xr.Dataset({"t2m": (("y", "x"), np.ones((3, 3)))}).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(RasterError, match="no variable of the Dataset is a band"):
        eofm.open_scene(tmp_path / "b.nc", sensor="s2-l2a", unit="dn")


@pytest.mark.parametrize("kind", ["nc", "zarr", "group"])
def test_an_array_in_a_file_is_the_array(kind: str, tmp_path: Path, write_tif) -> None:
    """What `to_xarray` wrote is read from a file without a word, whatever the file is called."""
    pixels = np.full((2, 5, 7), 300, np.uint16)
    pixels[:, 0, 0] = 0
    path = write_tif(tmp_path / "a.tif", pixels, nodata=0, descriptions=["B04", "B03"])
    image = eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")
    array = image.to_xarray()
    out = tmp_path / {"nc": "a.nc", "zarr": "a.zarr", "group": "cube"}[kind]
    if kind == "nc":
        array.rename("reflectance").to_netcdf(out)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of zarr, of what its format does not settle
            array.to_dataset(name="s2").to_zarr(out, mode="w")

    found = eofm.read_scene(out)

    assert (image.spec, image.grid) == (found.spec, found.grid)
    assert torch.equal(image.valid, found.valid)
    assert torch.equal(image.pixels, found.pixels)


def test_a_time_in_utc_is_a_time(cube: xr.Dataset) -> None:
    """`...Z`, as STAC writes it, chooses without a complaint of numpy."""
    scene = eofm.open_scene(cube, sensor="s2-l2a", unit="dn", time="2021-07-14T10:00:00Z")

    assert "2021-07-14T10:00:00" == scene.date
    assert repr(scene).startswith("Scene(array: s2-l2a, B02 B04, dn, 4 x 6 px at 10 m, EPSG:32632")


def test_rasters_in_a_zip(tmp_path: Path, write_tif) -> None:
    """Rasterio's `zip://` is understood; a zip of other things is told from a product."""
    path = write_tif(tmp_path / "x_B04.tif", np.full((5, 7), 300, np.uint16))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "x_B04.tif")

    image = eofm.read_scene(f"zip://{tmp_path}/a.zip!x_B04.tif", sensor="s2-l2a", unit="dn")

    assert 300.0 == float(image.pixels.mean())
    with pytest.raises(RasterError, match="not a Sentinel-2 product") as refused:
        eofm.open_scene(tmp_path / "a.zip")
    assert "zip://FILE.zip!NAME.tif" in str(refused.value.remedy)


# ----------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "mit leer zeichen.tif",
        "Übung_ä.tif",
        "100%25.tif",
        "a%20b.tif",
        "a?b.tif",
        "a#b.tif",
        "UP.TIF",
        "noext",
        "[1].tif",
        "it's.tif",
        "a&b=c.tif",
        "weird.dat",
    ],
)
def test_names_of_files_are_taken_as_they_are(tmp_path: Path, write_tif, name: str) -> None:
    """Spaces, umlauts, per cent and question marks, as a path, from `~` on, and as `file:`."""
    path = write_tif(
        tmp_path / name, np.full((2, 8, 8), 700, np.uint16), descriptions=["B02", "B03"]
    )
    stated = {"sensor": "s2-l2a", "unit": "dn"}
    for text in (str(path), f"file://{quote(str(path))}", f"file:{quote(str(path))}"):
        for call in (eofm.read_geotiff, eofm.read_scene):
            assert 700 == float(call(text, **stated).pixels.mean())


def test_a_path_from_the_home_on(
    tmp_path: Path, write_tif, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell expands `~`, and Python does not: it was no such file."""
    write_tif(tmp_path / "a.tif", np.full((2, 8, 8), 700, np.uint16), descriptions=["B02", "B03"])
    monkeypatch.setenv("HOME", str(tmp_path))
    stated = {"sensor": "s2-l2a", "unit": "dn"}
    for call in (eofm.read_geotiff, eofm.read_scene):
        assert 700 == float(call("~/a.tif", **stated).pixels.mean())
    assert 700 == float(eofm.read_scene(["~/a.tif"], **stated).pixels.mean())


@pytest.mark.parametrize("text", ["", "a\0b.tif"])
def test_a_text_that_is_no_path(text: str, tmp_path: Path, write_tif, monkeypatch) -> None:
    """A setting that is not set read the folder one stands in; a null byte was a ValueError."""
    write_tif(tmp_path / "a.tif", np.full((2, 8, 8), 700, np.uint16), descriptions=["B02", "B03"])
    monkeypatch.chdir(tmp_path)
    for call in (eofm.read_geotiff, eofm.open_scene, eofm.read_scene):
        for given in (text, [text]) if call is not eofm.read_geotiff else (text,):
            with pytest.raises(SpecError, match="this is not a path"):
                call(given, sensor="s2-l2a", unit="dn")  # type: ignore[operator]


def test_a_path_that_the_system_refuses() -> None:
    """A name of 5000 letters ended in an OSError."""
    for call in (eofm.read_geotiff, eofm.open_scene):
        with pytest.raises(RasterError, match="cannot be followed") as caught:
            call("x" * 5000, sensor="s2-l2a", unit="dn")
        assert "too long" in str(caught.value.found)


def test_a_page_that_is_not_there(tmp_path: Path, write_tif) -> None:
    """The remedy lists those that are."""
    path = write_tif(tmp_path / "a b.tif", np.full((1, 8, 8), 700, np.uint16))
    write_tif(path, np.full((1, 8, 8), 800, np.uint16), APPEND_SUBDATASET="YES")
    for call in (eofm.read_geotiff, eofm.open_scene):
        with pytest.raises(RasterError, match="cannot be read") as caught:
            call(f"GTIFF_DIR:9:{path}", sensor="s2-l2a", unit="dn", bands=["B02"])
    words = run_rio(caught.value)

    assert str(path) == words[-1]
    page = eofm.read_geotiff(f"GTIFF_DIR:2:{path}", sensor="s2-l2a", unit="dn", bands=["B02"])
    assert 800 == float(page.pixels.mean())


@pytest.mark.parametrize("local", ["far.tif", "far/a.tif", "far/B02.tif", "far_B02.tif"])
def test_an_address_is_no_file_of_this_machine(
    local: str, tmp_path: Path, write_tif, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lay in the working folder under the last word of an address was looked at instead."""
    pixels = np.stack([np.full((6, 6), value, np.uint16) for value in (100, 200)])
    write_tif(tmp_path / "there" / "far.tif", pixels, descriptions=["B02", "B03"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "there" / "far.tif", "far")
    write_tif(tmp_path / "here" / local, 7 * np.ones((1, 6, 6), np.uint16))
    if local == "far/a.tif":
        write_tif(tmp_path / "here" / "far/b.tif", 7 * np.ones((1, 6, 6), np.uint16))
    monkeypatch.chdir(tmp_path / "here")

    found = eofm.read_scene(f"/vsizip/{tmp_path}/a.zip/far", sensor="s2-l2a", unit="dn")

    assert (("B02", "B03"), [100, 200]) == (found.spec.bands, found.pixels[0, :, 0, 0].tolist())
