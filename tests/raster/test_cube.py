"""xarray in and out."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
from affine import Affine
from rasterio.crs import CRS

import eofm
from eofm.contract.imagery import Georeference, Imagery, collate
from eofm.contract.prepare import as_imagery
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, ImageSpec, Normalization, Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.cube import from_xarray, grid_of_array, imagery_of, to_xarray
from eofm.raster.grid import Grid
from eofm.raster.source import RasterSource

GRID = Grid(CRS.from_epsg(32632), Affine(10, 0, 5e5, 0, -10, 5.4e6), 5, 7)
SPEC = ImageSpec(Sensor.S2_L1C, ("B04", "B03"), Unit.DN, (5, 7), 10.0)

# rioxarray multiplies affine matrices with `*`, which affine 3 deprecates
rio = pytest.mark.filterwarnings("ignore:Use `@`:PendingDeprecationWarning")


def image() -> Imagery:
    """Make an image with one invalid pixel."""
    pixels = torch.arange(70, dtype=torch.float32).reshape(1, 2, 5, 7)
    valid = torch.ones(1, 5, 7, dtype=torch.bool)
    valid[0, 2, 3] = False
    return Imagery(pixels, SPEC, valid, (GRID.georeference,))


def test_out_and_in_again() -> None:
    """An image survives the way to xarray and back: values, mask, bands, unit, place."""
    array = to_xarray(image())
    back = from_xarray(array, Sensor.S2_L1C, Unit.DN)

    assert image().spec == back.spec
    assert torch.equal(image().valid, back.valid)
    assert torch.equal(image().pixels[0][:, back.valid[0]], back.pixels[0][:, back.valid[0]])
    assert (0, 0) == grid_of_array(array).offset_in(GRID)


def test_array_says_what_it_is() -> None:
    """Bands are labels, coordinates are pixel centres, invalid is NaN, CRS and nodata are set."""
    array = to_xarray(image())

    assert ["B04", "B03"] == array.band.values.tolist()
    assert 5e5 + 15 == array.x.values[1]
    assert 5.4e6 - 5 == array.y.values[0]
    assert 2 == int(np.isnan(array).sum())
    assert 32632 == array.rio.crs.to_epsg()
    assert np.isnan(array.rio.nodata)


@rio
def test_written_by_rioxarray(tmp_path: Path) -> None:
    """A GeoTIFF that rioxarray writes from our array is read by us, names and mask included."""
    to_xarray(image()).rio.to_raster(tmp_path / "a.tif")
    back = RasterSource("a", (tmp_path / "a.tif",), Sensor.S2_L1C, Unit.DN).read()

    assert image().spec == back.spec
    assert torch.equal(image().valid, back.valid)


@rio
def test_opened_by_rioxarray(tmp_path: Path, write_tif) -> None:
    """The numbered bands of `open_rasterio` are named by `long_name`, and nodata counts."""
    pixels = np.full((2, 5, 7), 300, np.uint16)
    pixels[:, 0, 0] = 0
    pixels[1, 0, 1] = 0  # in one band: dark, not unmeasured
    path = write_tif(tmp_path / "a.tif", pixels, nodata=0, descriptions=["B04", "B03"])
    with rioxarray.open_rasterio(path) as array:
        found = from_xarray(array, Sensor.S2_L1C, Unit.DN)

    assert SPEC == found.spec
    assert [[0, 0, 0]] == torch.nonzero(~found.valid).tolist()


def test_dimensions_in_any_order() -> None:
    """(y, x, band) is the same image as (band, y, x)."""
    array = to_xarray(image()).transpose("y", "x", "band")

    assert torch.equal(image().valid, from_xarray(array, Sensor.S2_L1C, Unit.DN).valid)


def test_nameless_bands() -> None:
    """Bands 1 and 2 have no name, and the message shows how to give them one."""
    array = to_xarray(image()).assign_coords(band=[1, 2])
    del array.attrs["long_name"]

    with pytest.raises(RasterError, match="assign_coords"):
        from_xarray(array, Sensor.S2_L1C, Unit.DN)


def test_rows_from_south_to_north_are_turned() -> None:
    """CF's coordinates mostly grow: the image is north up, whole or by window, never mirrored."""
    array = to_xarray(image())
    turned = array.sortby("y")
    bare = turned.drop_vars("spatial_ref").rio.write_crs("EPSG:32632")

    for one in (turned, bare):
        found = from_xarray(one, Sensor.S2_L1C, Unit.DN)
        assert image().grid == found.grid
        assert torch.equal(image().valid, found.valid)
        assert torch.equal(from_xarray(array).pixels, found.pixels)
        scene = eofm.open_scene(one, sensor="s2-l1c", unit="dn")
        part = scene.read((1, 2, 3, 4))
        assert torch.equal(found.pixels[:, :, 1:4, 2:6], part.pixels)
        assert part.grid == image().grid.at(1, 2)


def test_uneven_coordinates() -> None:
    """Coordinates with a gap are no grid."""
    array = to_xarray(image()).isel(x=[0, 1, 2, 5, 6])

    with pytest.raises(RasterError, match="not evenly spaced"):
        from_xarray(array, Sensor.S2_L1C, Unit.DN)


def test_time_dimension() -> None:
    """A time series is not one image."""
    with pytest.raises(RasterError, match="isel"):
        from_xarray(to_xarray(image()).expand_dims(time=2), Sensor.S2_L1C, Unit.DN)


def test_without_crs() -> None:
    """Without CRS the GSD has to be stated."""
    array = xr.DataArray(
        np.ones((1, 4, 4), np.float32),
        dims=("band", "y", "x"),
        coords={"band": ["B04"], "y": [30.0, 20, 10, 0], "x": [0.0, 10, 20, 30]},
    )

    with pytest.raises(RasterError, match="no georeference"):
        from_xarray(array, Sensor.S2_L1C, Unit.DN)
    assert 20.0 == from_xarray(array, Sensor.S2_L1C, Unit.DN, gsd=20.0).spec.gsd


def test_batch_is_refused() -> None:
    """Only one image has one place."""
    two = collate([image(), image()])

    with pytest.raises(SpecError, match="one image"):
        to_xarray(two)


def test_real_worldcereal(real_data: Path) -> None:
    """A netCDF time series of reflectance, one date of it, is an image of L2A at 10 m."""
    (path,) = (real_data / "worldcereal").glob("S2_L2A_10m*.nc")
    with xr.open_dataset(path) as cube:
        array = cube[["B02", "B03", "B04", "B08"]].isel(timestamp=5).to_dataarray("band").load()
    found = from_xarray(array, Sensor.S2_L2A, Unit.REFLECTANCE)

    spec = ImageSpec(Sensor.S2_L2A, ("B02", "B03", "B04", "B08"), Unit.REFLECTANCE, (64, 64), 10.0)
    assert spec == found.spec
    assert 0 < found.pixels[0, :, found.valid[0]].median() < 1


# --------------------------------------------------------------------- there and back

GRIDS = {
    "utm": Georeference("EPSG:32632", (10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6)),
    "thirds": Georeference("EPSG:32632", (10 / 3, 0.0, 1e5 / 3, 0.0, -10 / 3, 1e6 / 7)),
    "degrees": Georeference("EPSG:4326", (8.98e-5, 0.0, 9.1, 0.0, -8.98e-5, 48.3)),
    "south-up": Georeference("EPSG:32632", (10.0, 0.0, 5e5, 0.0, 10.0, 5.4e6)),
    "rotated": Georeference("EPSG:32632", (8.0, 6.0, 5e5, 6.0, -8.0, 5.4e6)),
}


def image_on(grid: Georeference | None) -> Imagery:
    """Make an image somewhere, with the GSD of its place."""
    gsd = 10.0 if grid is None else Grid.of(grid, 5, 7).gsd
    spec = ImageSpec(Sensor.S2_L2A, ("B04", "B08"), Unit.DN_OFFSET1000, (5, 7), gsd)
    return Imagery(image().pixels, spec, image().valid, None if grid is None else (grid,))


@pytest.mark.parametrize("kind", GRIDS)
def test_round_trip_is_exact(kind: str) -> None:
    """Nothing is stated, and all comes back: bands, unit, sensor, place, mask, to the bit."""
    there = image_on(GRIDS[kind])
    for array in (there.to_xarray(), there.to_xarray().expand_dims("time")):
        back = from_xarray(array)
        assert there.spec == back.spec
        assert there.grids == back.grids
        assert torch.equal(there.valid, back.valid)
        assert torch.equal(there.pixels[0][:, there.valid[0]], back.pixels[0][:, there.valid[0]])


@pytest.mark.parametrize("kind", GRIDS)
def test_a_cut_out_knows_where_it_lies(kind: str) -> None:
    """A selection of rows and columns has the place that the pixels had, to the bit."""
    there = image_on(GRIDS[kind])
    part = from_xarray(there.to_xarray().isel(y=slice(1, 4), x=slice(2, 7)))

    assert there.grid.at(1, 2) == part.grid
    assert torch.equal(there.pixels[:, :, 1, 2:7], part.pixels[:, :, 0])


@pytest.mark.parametrize("kind", ["utm", "rotated"])
def test_a_cut_out_with_holes_is_no_grid(kind: str) -> None:
    """Every second column would be stretched over the ground of all."""
    array = image_on(GRIDS[kind]).to_xarray().isel(x=[0, 1, 4])
    with pytest.raises(RasterError, match=r"evenly spaced|not adjacent"):
        from_xarray(array)


def test_a_coarser_array_has_a_coarser_grid() -> None:
    """After averaging, the old transform that still stands in the array is not believed."""
    coarse = image_on(GRIDS["utm"]).to_xarray().isel(x=slice(0, 6), y=slice(0, 4))
    coarse = coarse.coarsen(x=2, y=2).mean()
    found = from_xarray(coarse)

    assert (20.0, 0.0, 5e5, 0.0, -20.0, 5.4e6) == found.grid.transform
    assert 20.0 == found.spec.gsd


def test_an_image_without_place_comes_back_without() -> None:
    """It has no coordinates, and says its GSD itself."""
    array = image_on(None).to_xarray()

    assert {"band"} == set(array.coords) - {"spatial_ref"}
    assert (None, 10.0) == (from_xarray(array).grid, from_xarray(array).spec.gsd)


def test_what_the_array_says_is_not_overruled() -> None:
    """Another sensor or unit than `to_xarray` wrote is refused; without, they are asked for."""
    array = to_xarray(image())
    with pytest.raises(SpecError, match="another sensor"):
        from_xarray(array, Sensor.S2_L2A)
    with pytest.raises(SpecError, match="another unit"):
        from_xarray(array, None, Unit.REFLECTANCE)
    array.attrs.clear()
    with pytest.raises(SpecError, match="states the sensor"):
        from_xarray(array)
    with pytest.raises(RasterError, match="unit"):
        from_xarray(array, Sensor.S2_L1C)


def test_a_normalised_image_is_no_array_of_a_unit() -> None:
    """What a network takes has no physical unit that an array could state."""
    stats = STATISTICS["imagenet"]
    rule = Normalization.zscore(stats.mean, stats.std, "x")
    spec = ImageSpec(Sensor.RGB, stats.bands, Unit.MODEL, (2, 2), 10.0, rule)
    normal = Imagery(torch.zeros(1, 3, 2, 2), spec, torch.ones(1, 2, 2, dtype=torch.bool))
    with pytest.raises(SpecError, match="physical units"):
        to_xarray(normal)


# --------------------------------------------------------------------------- datasets


def test_a_dataset_has_a_variable_for_each_band() -> None:
    """Their order is that of the Dataset; what is no band is left out."""
    array = to_xarray(image())
    dataset = array.to_dataset("band").assign(SCL=array.isel(band=0, drop=True))
    found = from_xarray(dataset, Sensor.S2_L1C, Unit.DN)

    assert image().spec == found.spec
    assert GRID.georeference == found.grid
    assert ("B04",) == from_xarray(dataset["B04"], Sensor.S2_L1C, Unit.DN).spec.bands


def test_bands_of_a_dataset_have_their_own_nodata() -> None:
    """-9999 in one band and 0 in the other are both nodata; unmeasured is what is so in all."""
    pixels = np.full((5, 7), 300.0, np.float32)
    red, blue = pixels.copy(), pixels.copy()
    red[0, 0], blue[0, 0] = -9999, 0
    red[0, 1], blue[0, 1] = 7, 0
    blue[0, 2] = -9999
    dataset = xr.Dataset(
        {"B04": (("y", "x"), red, {"_FillValue": -9999.0}), "B02": (("y", "x"), blue)},
        coords={"y": 5.4e6 - 5 - 10.0 * np.arange(5), "x": 5e5 + 5 + 10.0 * np.arange(7)},
    ).rio.write_crs("EPSG:32632")
    dataset["B02"].attrs["_FillValue"] = 0.0
    found = from_xarray(dataset, Sensor.S2_L1C, Unit.DN)

    assert [[0, 0, 0]] == torch.nonzero(~found.valid).tolist()
    assert -9999 == found.pixels[0, 1, 0, 2]  # nodata of the other band alone


def test_names_of_dimensions_elsewhere() -> None:
    """OpenEO's `bands` and netCDF's `lat` and `lon` are understood, others are said."""
    array = to_xarray(image_on(GRIDS["degrees"]))
    renamed = array.rename(band="bands", y="lat", x="lon")

    assert GRIDS["degrees"] == from_xarray(renamed).grid
    with pytest.raises(RasterError, match="dimensions band, y and x") as wrong:
        from_xarray(array.rename(y="rows", x="columns"))
    assert wrong.value.remedy.endswith('array.rename({"rows": "y", "columns": "x"})')
    back = array.rename(y="rows", x="columns").rename({"rows": "y", "columns": "x"})
    assert GRIDS["degrees"] == from_xarray(back).grid


def test_a_scale_that_was_not_applied_says_the_unit() -> None:
    """Stored numbers with 0.0001 are digital numbers; a statement against it is refused."""
    array = to_xarray(image())
    array.attrs = {"long_name": ("B04", "B03"), "scale_factor": 0.0001}

    assert Unit.DN is from_xarray(array, Sensor.S2_L1C).spec.unit
    array = (array + 1000).assign_attrs(array.attrs)
    array.attrs["add_offset"] = -0.1
    assert Unit.DN_OFFSET1000 is from_xarray(array, Sensor.S2_L1C).spec.unit
    scaled = from_xarray(array, Sensor.S2_L1C, Unit.REFLECTANCE)
    assert float(image().pixels[0, 0, 1, 1]) / 1e4 == pytest.approx(
        float(scaled.pixels[0, 0, 1, 1]), abs=1e-6
    )
    with pytest.raises(RasterError, match="another unit"):
        from_xarray(array, Sensor.S2_L1C, Unit.DN)
    array.attrs["scale_factor"] = "small"
    with pytest.raises(RasterError, match="not a number"):
        from_xarray(array, Sensor.S2_L1C, Unit.DN)


def test_an_array_is_the_imagery_a_spec_says() -> None:
    """In the band order of the spec; another size, a missing band and another unit are refused."""
    array = to_xarray(image())
    turned = ImageSpec(Sensor.S2_L1C, ("B03", "B04"), Unit.DN, None, 10.0)
    found = imagery_of(array, turned)

    assert ("B03", "B04") == found.spec.bands
    assert torch.equal(image().pixels[:, 1], found.pixels[:, 0].where(found.valid, 17 + 35.0))
    assert image().spec == imagery_of(array, None).spec
    with pytest.raises(SpecError, match="another size"):
        imagery_of(array, replace(turned, size=(7, 5)))
    with pytest.raises(SpecError, match="lacks B08"):
        imagery_of(array, replace(turned, bands=("B03", "B08")))
    with pytest.raises(SpecError, match="another unit"):
        imagery_of(array, replace(turned, unit=Unit.REFLECTANCE))


def test_a_broken_transform_is_said() -> None:
    """Five numbers are no transform."""
    array = to_xarray(image())
    array.spatial_ref.attrs["GeoTransform"] = "1 2 3 4 five"
    with pytest.raises(RasterError, match="transform of the array"):
        from_xarray(array)


@pytest.mark.parametrize("wrong", [[1, 2], "a.tif", None, 5, {"B04": 1}])
def test_what_is_no_image(wrong: object) -> None:
    """Lists, paths and nothing are said by their type, on the way into an encoder too."""
    for call in (from_xarray, as_imagery):
        with pytest.raises(SpecError, match="the object is not an image") as refused:
            call(wrong)
        assert type(wrong).__name__ in refused.value.found
    if not isinstance(wrong, str):
        with pytest.raises(SpecError, match="the object is not an image"):
            eofm.open_scene(wrong)


def test_an_array_goes_where_imagery_goes() -> None:
    """What `Encoder.embed` makes of an array is the imagery that it is, with spec and without."""
    array, expected = to_xarray(image()), image()
    for found in (as_imagery(array), as_imagery(array, expected.spec)):
        assert (expected.spec, expected.grids) == (found.spec, found.grids)
        assert torch.equal(expected.valid, found.valid)
    dataset = array.to_dataset("band")
    assert expected.spec == as_imagery(dataset, expected.spec).spec
    with pytest.raises(SpecError, match="another unit"):
        as_imagery(array, replace(expected.spec, unit=Unit.REFLECTANCE))


@rio
def test_bands_that_were_chosen_keep_their_names(tmp_path: Path, write_tif) -> None:
    """Rioxarray numbers bands and keeps the names of all: turned, chosen, or one alone."""
    names = ["B02", "B03", "B04", "B08"]
    pixels = np.stack([np.full((5, 7), 100 * (k + 1), np.uint16) for k in range(4)])
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=names)
    with rioxarray.open_rasterio(path) as array:
        for chosen in (array[::-1], array[1:3], array.sel(band=[4, 2]), array.sel(band=3)):
            found = from_xarray(chosen, "s2-l2a", "dn")
            levels = [float(plane.mean()) for plane in found.pixels[0]]
            assert [names[int(level) // 100 - 1] for level in levels] == list(found.spec.bands)
        with pytest.raises(RasterError, match="no names"):
            from_xarray(array.assign_coords(band=[0, 1, 2, 3]), "s2-l2a", "dn")


@rio
def test_scales_that_differ_among_bands_are_read(tmp_path: Path, write_tif) -> None:
    """Rioxarray keeps them elsewhere: the array is refused or scaled as the file is."""
    pixels = np.full((2, 5, 7), 1500, np.uint16)
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B04", "B03"])
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4, 1e-4), (-0.1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rioxarray says where it puts them
        array = rioxarray.open_rasterio(path)
    file_says = eofm.read_geotiff(path, sensor="s2-l2a", unit="reflectance")

    assert torch.equal(file_says.pixels, from_xarray(array, "s2-l2a", "reflectance").pixels)
    with pytest.raises(RasterError, match="another unit"):
        from_xarray(array, "s2-l2a", "dn")
    other = array.assign_coords(band=["B04", "B03"])
    with pytest.raises(RasterError, match="belong to other bands"):
        from_xarray(other, "s2-l2a", "reflectance")


@rio
def test_numbered_variables_are_no_names_of_bands(tmp_path: Path, write_tif) -> None:
    """`band_9` of Level-2A is B8A: what the variable says of itself counts, a number does not."""
    names = SENSOR_BANDS[Sensor.S2_L2A]
    pixels = np.stack([np.full((5, 7), 100 * (k + 1), np.uint16) for k in range(12)])
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=names)
    with rioxarray.open_rasterio(path, band_as_variable=True) as cube:
        found = from_xarray(cube, "s2-l2a", "dn")
        assert names == found.spec.bands
        assert [100.0 * (k + 1) for k in range(12)] == found.pixels[0, :, 0, 0].tolist()
        bare = cube.copy()
        for variable in bare.data_vars.values():
            del variable.attrs["long_name"]
        with pytest.raises(RasterError, match="numbered") as refused:
            from_xarray(bare, "s2-l2a", "dn")
        assert 'rename({"band_1": "B04"})' in str(refused.value.remedy)


@rio
@pytest.mark.parametrize("word", ["Band {}", "b{}", "B{}"])
def test_numbers_name_no_band_of_an_array(tmp_path: Path, write_tif, word: str) -> None:
    """`Band 1` of GDAL's ENVI driver was B01, in arrays, in parts of them and in Datasets."""
    names = [word.format(k) for k in range(1, 5)]
    pixels = np.stack([np.full((5, 7), 100 * (k + 1), np.uint16) for k in range(4)])
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=names)
    with rioxarray.open_rasterio(path) as array:
        for some in (array, array.isel(band=[1, 2]), array.assign_coords(band=names)):
            with pytest.raises(RasterError, match="have no names") as refused:
                from_xarray(some, "s2-l2a", "dn")
        assert 'assign_coords(band=["B02", "B03", "B04", "B08"])' in str(refused.value.remedy)
        named = array.assign_coords(band=["B02", "B03", "B04", "B08"])
        assert ("B02", "B03", "B04", "B08") == from_xarray(named, "s2-l2a", "dn").spec.bands
    with rioxarray.open_rasterio(path, band_as_variable=True) as cube:
        with pytest.raises(RasterError, match="numbered") as refused:
            from_xarray(cube, "s2-l2a", "dn")
        assert 'rename({"band_1": "B04"})' in str(refused.value.remedy)
        renamed = cube[["band_1"]].rename({"band_1": "B04"})
        assert ("B04",) == from_xarray(renamed, "s2-l2a", "dn").spec.bands


def test_bands_of_further_images_and_other_sensors() -> None:
    """`B1_1` is no B11, and R, G and B are no less measured than NIR: each remedy is followed."""
    two = to_xarray(image())
    joined = two.assign_coords(band=["B1", "B1_1"])
    with pytest.raises(SpecError, match="one of several images") as refused:
        from_xarray(joined)
    assert "use 'B01'" in str(refused.value.remedy)
    wanted = joined.isel(band=[1]).assign_coords(band=["B01"])
    assert ("B01",) == from_xarray(wanted).spec.bands

    letters = two.assign_coords(band=["R", "NIR"])
    with pytest.raises(SpecError, match="not bands of s2-l1c") as refused:
        from_xarray(letters)
    names = str(refused.value.remedy).rpartition(": ")[2].split()
    assert ("B04", "B08") == tuple(names)
    assert ("B04", "B08") == from_xarray(letters.assign_coords(band=names)).spec.bands

    cube = letters.to_dataset("band").assign_attrs(two.attrs)
    with pytest.raises(SpecError, match="another sensor than s2-l1c") as refused:
        from_xarray(cube, "s2-l1c", "dn")
    assert 'rename({"R": "B04"})' in str(refused.value.remedy)
    assert 'drop_vars("R")' in str(refused.value.remedy)
    renamed = from_xarray(cube.rename({"R": "B04"}), "s2-l1c", "dn")
    assert ("B04", "B08") == renamed.spec.bands
    assert ("B08",) == from_xarray(cube.drop_vars("R"), "s2-l1c", "dn").spec.bands


def test_an_array_that_lies_nowhere_says_what_helps_an_array() -> None:
    """The remedy is not one for a file, and it works: a size of pixels, or a CRS."""
    array = to_xarray(image()).drop_vars(["spatial_ref"])
    del array.attrs["gsd"]
    with pytest.raises(RasterError, match="no georeference") as refused:
        from_xarray(array)

    assert "rio " not in str(refused.value.remedy)
    assert 10.0 == from_xarray(array, gsd=10.0).spec.gsd
    assert 10.0 == from_xarray(array.rio.write_crs("EPSG:32632")).spec.gsd
    with pytest.raises(RasterError, match="dimensions band, y and x") as flat:
        from_xarray(array.isel(band=0, drop=True))
    assert 'expand_dims(band=["B04"])' in str(flat.value.remedy)
    one = array.isel(band=0, drop=True).expand_dims(band=["B04"])
    assert ("B04",) == from_xarray(one, gsd=10.0).spec.bands
    with pytest.raises(RasterError, match="dimensions band, y and x"):
        eofm.open_scene(array.rename(y="height", x="width"), sensor="s2-l1c", unit="dn")


def test_coordinates_in_degrees_are_not_those_of_a_zone() -> None:
    """The CRS of the example would have made their pixels a tenth of a millimetre."""
    array = to_xarray(image()).drop_vars("spatial_ref")
    array = array.assign_coords(x=11 + 1e-4 * np.arange(7), y=48 - 1e-4 * np.arange(5))
    del array.attrs["gsd"]
    with pytest.raises(RasterError, match="no georeference") as refused:
        from_xarray(array)

    said = re.search(r'array\.rio\.write_crs\("[^"]+"\)', str(refused.value.remedy))
    assert said
    located = eval(said[0], {"array": array})
    assert 11 == from_xarray(located).spec.gsd


def test_an_array_without_words_says_how_they_are_stated() -> None:
    """`embed(array)` has no sensor: the remedy is a spec beside the array."""
    array = to_xarray(image())
    array.attrs = {}
    with pytest.raises(SpecError, match="needs a spec") as refused:
        as_imagery(array)
    assert "spec=eofm.ImageSpec(" in str(refused.value.remedy)
    with pytest.raises(SpecError, match="the object is not an image") as path:
        as_imagery("a.tif")  # type: ignore[arg-type]
    assert "read_geotiff" in str(path.value.remedy)


def test_bands_beside_the_measurement_are_left_out_of_an_array(capsys) -> None:
    """AOT along the dimension of the bands is no band, as in a file, and is said once."""
    array = to_xarray(image())
    aot = array.isel(band=[0]).assign_coords(band=["AOT"]) * 0
    both = xr.concat([array, aot], "band", combine_attrs="override")

    found = from_xarray(both)

    assert image().spec == found.spec
    assert torch.equal(image().valid, found.valid)
    assert "AOT: left out" in capsys.readouterr().err
    with pytest.raises(SpecError, match="there is no band"):
        from_xarray(both.assign_coords(band=["B04", "B03", "haze"]))


def test_columns_from_east_to_west_are_turned() -> None:
    """An array whose x falls is no mirror image."""
    array = to_xarray(image()).drop_vars("spatial_ref").rio.write_crs("EPSG:32632")
    turned = array.isel(x=slice(None, None, -1))

    assert image().grid == from_xarray(turned).grid
    assert torch.equal(from_xarray(array).pixels, from_xarray(turned).pixels)


def test_integers_whose_fill_was_decoded_are_read(tmp_path: Path, write_tif) -> None:
    """Rioxarray cannot say NaN of integers; their fill is the number that it was."""
    pixels = np.full((2, 4, 4), 300, np.int16)
    pixels[:, 0, 0] = -9999
    file = write_tif(tmp_path / "a.tif", pixels, descriptions=("B04", "B08"), nodata=-9999)
    masked = rioxarray.open_rasterio(file, masked=True, parse_coordinates=False)
    plain = rioxarray.open_rasterio(file, parse_coordinates=False)
    for array in (masked.copy(data=pixels), plain.rio.write_nodata(-9999, encoded=True)):
        for read in (from_xarray, eofm.read_scene):
            found = read(array, sensor="s2-l2a", unit="dn")
            assert not found.valid[0, 0, 0]
            assert 15 == int(found.valid.sum())


def named(pixels: np.ndarray) -> xr.DataArray:
    """B02 and B03, which lie nowhere."""
    return xr.DataArray(pixels, dims=("band", "y", "x"), coords={"band": ["B02", "B03"]})


def test_a_fill_that_the_type_does_not_hold_is_none() -> None:
    """As in files of uint16 that declare -9999."""
    array = xr.DataArray(np.full((1, 4, 4), 300, np.uint16), dims=("band", "y", "x"))
    array = array.assign_coords(band=["B04"]).assign_attrs(_FillValue=-9999)

    assert from_xarray(array, "s2-l2a", "dn", gsd=10).valid.all()


def test_one_pixel_lies_where_its_coordinates_are() -> None:
    """Its size is that of gsd, or of a transform as the remedy has it; without both it is said."""
    whole = to_xarray(image()).drop_vars("spatial_ref").rio.write_crs(32632)
    truth = from_xarray(whole)
    one = whole.isel(y=slice(1, 2), x=slice(2, 3))
    with pytest.raises(RasterError, match="does not determine the pixel size") as error:
        from_xarray(one)
    assert "array.rio.write_transform(affine.Affine(10, 0, west, 0, -10, north))" in str(
        error.value.remedy
    )
    west, north = 5e5 + 20, 5.4e6 - 10
    for found in (
        from_xarray(one, gsd=10),
        from_xarray(one.rio.write_transform(Affine(10, 0, west, 0, -10, north))),
    ):
        assert (10, 0, west, 0, -10, north) == found.grid.transform
        assert torch.equal(truth.pixels[:, :, 1:2, 2:3], found.pixels)
    degrees = one.drop_vars("spatial_ref").rio.write_crs(4326)
    with pytest.raises(RasterError, match="does not determine the pixel size"):
        from_xarray(degrees, gsd=10)


def test_a_selection_of_no_pixel_is_said() -> None:
    """Of a y that falls, limits from south to north select nothing; the other order does."""
    array = to_xarray(image())
    south, north = float(array.y.min()), float(array.y.max())
    with pytest.raises(RasterError, match="has no pixel") as error:
        from_xarray(array.sel(y=slice(south, north)))
    assert "array.sel(y=slice(north, south))" in str(error.value.remedy)
    assert (5, 7) == from_xarray(array.sel(y=slice(north, south))).spec.size


def test_the_alpha_of_a_picture_has_no_name(tmp_path: Path, write_tif) -> None:
    """It was taken for a band called None; what the remedy chooses is read."""
    pixels = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    file = write_tif(tmp_path / "a.tif", pixels, descriptions=("R", "G", "B", None))
    array = rioxarray.open_rasterio(file, parse_coordinates=False)
    with pytest.raises(RasterError, match="have no name") as error:
        from_xarray(array, "rgb", "uint8")
    chosen = eval(error.value.remedy.partition(": ")[2], {"array": array})
    assert ("R", "G", "B") == from_xarray(chosen, "rgb", "uint8").spec.bands


def test_a_dataset_opened_by_xarray_lies_where_its_file_does(tmp_path: Path) -> None:
    """The variable of CF that holds the CRS is kept with the bands, as of the path itself."""
    place = xr.DataArray(0, attrs={"crs_wkt": GRID.crs.to_wkt(), "spatial_ref": GRID.crs.to_wkt()})
    array = to_xarray(image()).drop_vars("spatial_ref")
    bands = {
        name: array.sel(band=name, drop=True)
        .fillna(0)
        .astype(np.uint16)
        .drop_attrs()
        .assign_attrs(grid_mapping="crs")
        for name in ("B04", "B03")
    }
    path = tmp_path / "a.zarr"
    xr.Dataset(bands | {"crs": place}).to_zarr(path, zarr_format=2)

    of_path = eofm.read_scene(path, sensor="s2-l1c", unit="dn")
    for decode in ({}, {"decode_coords": "all"}, {"mask_and_scale": False}):
        opened = xr.open_zarr(path, chunks=None, **decode)
        for read in (from_xarray, eofm.read_scene):
            found = read(opened, sensor="s2-l1c", unit="dn")
            assert of_path.grid == found.grid
            assert torch.equal(of_path.pixels, found.pixels)


def test_a_zarr_of_many_chunks_is_refused_before_they_are_sought(tmp_path: Path) -> None:
    """Xarray reads coordinates when it opens a group: a million of them in chunks of eight."""
    bands = {band: (("y", "x"), np.full((8, 8), 900, np.uint16)) for band in ("B04", "B08")}
    path = tmp_path / "a.zarr"
    xr.Dataset(bands, {"x": np.arange(8.0), "y": np.arange(8.0)}).to_zarr(
        path, zarr_format=3, consolidated=False
    )
    file = path / "x" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "shape": [10**6]}))

    with pytest.raises(RasterError, match="cannot be read") as refused:
        eofm.read_scene(path, sensor="s2-l2a", unit="dn")
    assert "chunks are asked for, too many for" in str(refused.value.found)


HAMMER = """
import re
import sys, threading
import re
import eofm

def read():
    for row in range(0, 40, 5):
        window = (row, 0, 16, 64)
        eofm.read_scene(sys.argv[1], sensor="s2-l2a", unit="dn", window=window)

threads = [threading.Thread(target=read) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("whole")
"""


@pytest.mark.slow
def test_threads_read_one_file(tmp_path: Path) -> None:
    """HDF5 ended the process where one of them opened the file while another one read."""
    x, y = 500_005 + 10.0 * np.arange(64), 5_399_995 - 10.0 * np.arange(56)
    bands = {
        band: (("y", "x"), np.random.default_rng(0).integers(400, 2_000, (56, 64)).astype("uint16"))
        for band in ("B02", "B03", "B04", "B08")
    }
    cube = xr.Dataset(bands, coords={"y": y, "x": x}).rio.write_crs("EPSG:32632")
    cube.to_netcdf(tmp_path / "a.nc")
    done = subprocess.run(
        [sys.executable, "-c", HAMMER, str(tmp_path / "a.nc")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "whole") == (done.returncode, done.stdout.strip()), done.stderr


@rio
def test_an_offset_that_was_taken_away_is_not_taken_away_again(tmp_path: Path, write_tif) -> None:
    """Arithmetic keeps the attributes: reflectance was 0.1 too low, and what was embedded."""
    stored = np.random.default_rng(0).integers(1_300, 1_900, (2, 24, 24)).astype(np.uint16)
    path = write_tif(tmp_path / "a.tif", stored, descriptions=["B04", "B08"])
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4, 1e-4), (-0.1, -0.1)
    with rioxarray.open_rasterio(path) as array:
        plain = array.astype("int32") - 1000
        for unit in ("reflectance", "dn-offset1000", None):
            with pytest.raises(RasterError, match="subtracted already") as refused:
                from_xarray(plain, "s2-l2a", unit)
            whole = from_xarray(array, "s2-l2a", unit)
            assert 0.02 < whole.pixels.mean() / (1 if unit == "reflectance" else 10_000) < 0.2
        taken = str(refused.value.remedy)
        for band in [plain]:
            for name in ("scale_factor", "add_offset", "scales", "offsets"):
                band.attrs.pop(name, None)
                band.encoding.pop(name, None)
    assert "scale" in taken
    read = from_xarray(plain, "s2-l2a", "dn")
    assert np.array_equal(read.pixels[0].numpy(), stored.astype(np.float32) - 1000)


@rio
def test_a_picture_is_named_as_the_remedy_says(tmp_path: Path, write_tif) -> None:
    """The bands of the sensor that is stated are offered, without those that it has not."""
    pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    with rioxarray.open_rasterio(write_tif(tmp_path / "a.tif", pixels)) as array:
        with pytest.raises(RasterError, match="have no names") as refused:
            from_xarray(array, "rgb", "uint8")
        said = str(refused.value.remedy).partition("these: ")[2]
        named = eval(said, {"array": array, "slice": slice})

    assert ("R", "G", "B") == from_xarray(named, "rgb", "uint8").spec.bands


def test_an_attribute_of_what_was_changed_is_taken_out_as_the_remedy_says() -> None:
    """Digital numbers made into reflectance still say `units = dn`: the remedy led in a circle."""
    array = to_xarray(image()) / 10_000
    array.attrs |= to_xarray(image()).attrs
    with pytest.raises(SpecError, match="another unit") as refused:
        from_xarray(array, None, "reflectance")
    assert 'array.attrs.pop("units")' in str(refused.value.remedy)
    array.attrs.pop("units")

    assert Unit.REFLECTANCE is from_xarray(array, None, "reflectance").spec.unit


def test_a_fill_of_the_file_that_the_type_does_not_hold_is_none() -> None:
    """`astype` keeps the encoding of a file: the nodata of int16 ended in an error of rioxarray."""
    array = named(np.full((2, 4, 4), 700, "uint16"))
    array.encoding["_FillValue"] = -9999
    array.attrs["_FillValue"] = 5
    array.values[:, 0] = 5

    found = from_xarray(array, "s2-l2a", "dn", gsd=10)

    assert [False, True, True, True] == found.valid[0, :, 0].tolist()


@pytest.mark.parametrize("dim", ["channel", "wavelength"])
def test_another_name_of_the_dimension_of_bands(dim: str) -> None:
    """It was to be given one more dimension, and was refused again."""
    array = named(np.full((2, 4, 4), 700, "uint16")).rename(band=dim)
    with pytest.raises(RasterError, match="band, y and x") as caught:
        from_xarray(array, "s2-l2a", "dn", gsd=10)

    renamed = eval(str(caught.value.remedy).partition(": ")[2])

    assert ("B02", "B03") == from_xarray(renamed, "s2-l2a", "dn", gsd=10).spec.bands


def test_variables_that_are_left_out_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A band whose name is not understood was missing without a word."""
    monkeypatch.setattr("eofm.terminal._SAID", set())
    bands = {name: (("y", "x"), np.full((4, 4), 700, "uint16")) for name in ("red", "nir08_x")}

    found = from_xarray(xr.Dataset(bands), "s2-l2a", "dn", gsd=10)

    assert ("B04",) == found.spec.bands
    assert "nir08_x: left out" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["variables", "array", "names"])
def test_decibels_are_stated_by_units_and_names_of_an_array(kind: str) -> None:
    """As in files: `units` of dB was not read, and power could be stated."""
    rng = np.random.default_rng(0)
    values = {name: rng.normal(mean, 2, (4, 4)) for name, mean in (("VV", -11), ("VH", -18))}
    data = xr.Dataset({name: (("y", "x"), v.astype("float32")) for name, v in values.items()})
    if kind == "variables":
        for variable in data.values():
            variable.attrs["units"] = "dB"
    array = data if kind == "variables" else data.to_dataarray("band")
    if kind == "array":
        array.attrs["units"] = "dB"
    if kind == "names":
        array = array.assign_coords(band=["VV_dB", "VH_dB"])

    assert Unit.DB is from_xarray(array, "s1-grd", gsd=10).spec.unit
    with pytest.raises(RasterError, match="another unit than the user"):
        from_xarray(array, "s1-grd", "power", gsd=10)


@pytest.mark.parametrize("kind", ["array", "variables"])
def test_amplitudes_of_an_array_are_squared_as_the_remedy_says(kind: str) -> None:
    """`units` of amplitude was not read, and power could be stated."""
    values = {band: np.full((4, 4), 10 ** (mean / 20)) for band, mean in (("VV", -11), ("VH", -18))}
    dataset = xr.Dataset({n: (("y", "x"), v, {"units": "amplitude"}) for n, v in values.items()})
    array = dataset.to_dataarray("band").assign_attrs(units="amplitude")
    given = {"array": array} if kind == "array" else {"dataset": dataset}
    with pytest.raises(RasterError, match="amplitudes, not backscatter") as caught:
        from_xarray(*given.values(), "s1-grd", "power", gsd=10)

    exec(str(caught.value.remedy).partition("that unit: ")[2], given)

    found = from_xarray(given["array" if kind == "array" else "dataset"], "s1-grd", gsd=10)
    expected = [10 ** (mean / 10) for mean in (-11, -18)]
    np.testing.assert_allclose(expected, found.pixels.mean(dim=(0, 2, 3)), rtol=1e-5)


def stack(values: np.ndarray, **coords: object) -> xr.DataArray:
    """An array of stackstac: properties of the item are coordinates along time."""
    times = {name: ("time", [value]) for name, value in coords.items()}
    bands = {"band": ["B02", "B03", "B04", "B08"]}
    return xr.DataArray(values[None], dims=("time", "band", "y", "x"), coords=bands).assign_coords(
        times
    )


def labelled(place: float, step: float = 10.0, **attrs: object) -> xr.DataArray:
    """Return an array of stackstac with coordinates at a place in each pixel; 0.5 is its centre."""
    values = np.random.default_rng(0).integers(200, 3000, (4, 12, 16)).astype("uint16")
    x, y = (np.arange(16) + place) * step, (np.arange(12) + place) * step
    array = stack(values).assign_coords(x=600_000 + x, y=5_400_000 - y, epsg=32632)
    transform = Affine(10, 0, 600_000, 0, -10, 5_400_000)
    return array.assign_attrs(crs="epsg:32632", transform=transform, resolution=10.0, **attrs)


@pytest.mark.parametrize("kind", ["bands", "places"])
def test_a_name_that_a_dimension_should_have_is_taken(kind: str) -> None:
    """Bands that were opened one by one keep the number 1: "the new name 'band' conflicts"."""
    array = to_xarray(image())
    if kind == "bands":
        apart = {b: array.sel(band=b).assign_coords(band=1) for b in array["band"].to_numpy()}
        made = xr.Dataset(apart).to_dataarray()
    else:
        made = array.drop_vars("spatial_ref").rename(y="lat", x="lon")
        made = made.rio.write_crs(32632).assign_coords(x=("lon", np.arange(7)), y=3)

    found, same = from_xarray(made, "s2-l1c", "dn"), image()
    assert same.spec.bands == found.spec.bands
    assert torch.equal(same.valid, found.valid)
    assert torch.equal(same.pixels[0][:, same.valid[0]], found.pixels[0][:, same.valid[0]])


def test_dimensions_of_earth_engine() -> None:
    """In xee they are X and Y, X first: there was "no variable of the Dataset"."""
    values = np.random.default_rng(0).integers(200, 3000, (5, 7)).astype("uint16")
    bands = {
        name: (("time", "X", "Y"), values.T[None, :, ::-1] + k)
        for k, name in enumerate(["B2", "B3"])
    }
    places = {"X": 600_005 + 10 * np.arange(7), "Y": 5_399_955 + 10 * np.arange(5), "time": [0]}
    found = from_xarray(xr.Dataset(bands, coords=places).rio.write_crs(32632), "s2-l2a", "dn")

    assert ("B02", "B03") == found.spec.bands
    np.testing.assert_array_equal(values, found.pixels[0, 0])
    assert (10, 0, 600_000, 0, -10, 5_400_000) == found.grid.transform


@pytest.mark.parametrize("place", [0.0, 0.5])
def test_coordinates_of_corners_are_no_centres(place: float) -> None:
    """Stackstac's are of corners by default: images lay half a pixel up and to the left."""
    array = labelled(place)

    found = from_xarray(array, "s2-l2a", "dn").grid
    assert (10, 0, 600_000, 0, -10, 5_400_000) == found.transform
    part = from_xarray(array[:, :, 3:, 2:], "s2-l2a", "dn").grid
    assert (10, 0, 600_020, 0, -10, 5_399_970) == part.transform
    once = from_xarray(array[:, :, 5:6, 7:8], "s2-l2a", "dn", gsd=10).grid
    assert (10, 0, 600_070, 0, -10, 5_399_950) == once.transform
    south_up = from_xarray(array[:, :, ::-1], "s2-l2a", "dn").grid
    assert found.transform == south_up.transform


@pytest.mark.parametrize("place", [0.0, 0.5])
@pytest.mark.parametrize("count", [2, 3])
def test_means_of_blocks_lie_where_their_pixels_do(place: float, count: int) -> None:
    """The mean of coordinates of corners is no coordinate of a centre."""
    array = labelled(place)
    coarse = array.coarsen(x=count, y=count, boundary="trim").mean().assign_attrs(array.attrs)

    found = from_xarray(coarse, "s2-l2a", "dn").grid
    assert (10 * count, 0, 600_000, 0, -10 * count, 5_400_000) == found.transform


def test_an_attribute_that_is_no_transform_says_nothing() -> None:
    """Nor does one of another grid: coordinates are of centres then."""
    for stated in (
        "10 0 0",
        None,
        3,
        (1, 2),
        Affine(10, 1, 0, 0, -10, 0),
        Affine(7, 0, 1, 0, -7, 2),
    ):
        array = labelled(0.5).assign_attrs(transform=stated)
        found = from_xarray(array, "s2-l2a", "dn").grid
        assert (10, 0, 600_000, 0, -10, 5_400_000) == found.transform


def test_a_coordinate_states_the_baseline() -> None:
    """Of four bands no pixel tells the offset: +1000 was embedded as `dn` in silence."""
    values = np.random.default_rng(0).integers(200, 3000, (4, 16, 16)).astype("uint16")
    array = stack(values + 1000, **{"s2:processing_baseline": "05.09"})

    with pytest.raises(RasterError, match="another unit than stated") as caught:
        from_xarray(array, "s2-l2a", "dn", gsd=10)

    assert "dn-offset1000" in str(caught.value.remedy)
    assert Unit.DN_OFFSET1000 is from_xarray(array, "s2-l2a", "dn-offset1000", gsd=10).spec.unit
    scope = {"array": array}
    exec(str(caught.value.remedy).rpartition("the values: ")[2], scope)
    from_xarray(scope["array"], "s2-l2a", "dn", gsd=10)


def test_the_baseline_of_harmonized_values_says_nothing() -> None:
    """Arithmetic keeps coordinates: dark pixels say that 1000 was subtracted."""
    values = np.random.default_rng(0).integers(200, 3000, (4, 16, 16)).astype("uint16")
    harmonized = stack(values, **{"s2:processing_baseline": "05.09"})
    applied = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}

    assert Unit.DN is from_xarray(harmonized, "s2-l2a", "dn", gsd=10).spec.unit
    assert Unit.DN is from_xarray(stack(values + 1000, **applied), "s2-l2a", "dn", gsd=10).spec.unit
    old = stack(values + 1000, **{"s2:processing_baseline": "02.14"})
    with pytest.raises(RasterError, match="another unit than stated"):
        from_xarray(old, "s2-l2a", "dn-offset1000", gsd=10)


def test_a_group_of_an_eopf_product_is_read(tmp_path: Path) -> None:
    """Its bands state EPSG code, scale and offset; the whole product was "no variable"."""
    path = tmp_path / "S2B_MSIL2A_20250101T103021_N0511_R108_T32TQM.zarr"
    for gsd, bands in ((10, ("b02", "b03", "b04", "b08")), (20, ("b8a", "b05", "b11"))):
        side = 160 // gsd
        ends = (np.arange(side) + 0.5) * gsd
        place = {"x": 500_000 + ends, "y": 5_400_000 - ends}
        stated = {"proj:epsg": 32631, "scale_factor": 1e-4, "add_offset": -0.1}
        values = {
            band: (("y", "x"), np.full((side, side), 1200 + k, np.uint16), stated)
            for k, band in enumerate(bands)
        }
        group = f"measurements/reflectance/r{gsd}m"
        xr.Dataset(values, place).to_zarr(path, group=group, mode="a", zarr_format=2)
    with pytest.raises(RasterError, match="holds groups") as caught:
        eofm.read_scene(path, sensor="s2-l2a")
    named = shlex.split(str(caught.value.remedy).partition("as in ")[2])[0]

    image = eofm.read_scene(named, sensor="s2-l2a")
    assert ("B02", "B03", "B04", "B08") == image.spec.bands
    assert (Unit.DN_OFFSET1000, 10.0) == (image.spec.unit, image.spec.gsd)
    assert [1200.0, 1201.0, 1202.0, 1203.0] == image.pixels[0, :, 0, 0].tolist()
    assert "EPSG:32631" == str(image.grid.crs)
    assert ("B05", "B8A", "B11") == eofm.read_scene(f"{named[:-4]}r20m", sensor="s2-l2a").spec.bands
