"""xarray in and out."""

from __future__ import annotations

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
from eofm.contract.sensors import SENSOR_BANDS, STATISTICS
from eofm.contract.spec import ImageSpec, Normalization, Sensor, Unit
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

    with pytest.raises(RasterError, match="where it lies"):
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
    with pytest.raises(RasterError, match=r"evenly spaced|not neighbours"):
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
    array.attrs["add_offset"] = -0.1
    assert Unit.DN_OFFSET1000 is from_xarray(array, Sensor.S2_L1C).spec.unit
    scaled = from_xarray(array, Sensor.S2_L1C, Unit.REFLECTANCE)
    assert float(image().pixels[0, 0, 1, 1]) / 1e4 - 0.1 == pytest.approx(
        float(scaled.pixels[0, 0, 1, 1]), abs=1e-6
    )
    with pytest.raises(RasterError, match="another unit"):
        from_xarray(array, Sensor.S2_L1C, Unit.DN)
    array.attrs["scale_factor"] = "small"
    with pytest.raises(RasterError, match="no number"):
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
        with pytest.raises(SpecError, match="this is no image") as refused:
            call(wrong)
        assert type(wrong).__name__ in refused.value.found
    if not isinstance(wrong, str):
        with pytest.raises(SpecError, match="this is no image"):
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
    with pytest.raises(RasterError, match="those of other bands"):
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


def test_an_array_that_lies_nowhere_says_what_helps_an_array() -> None:
    """The remedy is not one for a file, and it works: a size of pixels, or a CRS."""
    array = to_xarray(image()).drop_vars(["spatial_ref"])
    del array.attrs["gsd"]
    with pytest.raises(RasterError, match="where it lies") as refused:
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


def test_an_array_without_words_says_how_they_are_stated() -> None:
    """`embed(array)` has no sensor: the remedy is a spec beside the array."""
    array = to_xarray(image())
    array.attrs = {}
    with pytest.raises(SpecError, match="does not say what it is") as refused:
        as_imagery(array)
    assert "spec=eofm.ImageSpec(" in str(refused.value.remedy)
    with pytest.raises(SpecError, match="this is no image") as path:
        as_imagery("a.tif")  # type: ignore[arg-type]
    assert "read_geotiff" in str(path.value.remedy)


def test_bands_beside_the_measurement_are_left_out_of_an_array(capsys) -> None:
    """SCL along the dimension of the bands is no band, as in a file, and is said once."""
    array = to_xarray(image())
    scl = array.isel(band=[0]).assign_coords(band=["SCL"]) * 0
    both = xr.concat([array, scl], "band", combine_attrs="override")

    found = from_xarray(both)

    assert image().spec == found.spec
    assert torch.equal(image().valid, found.valid)
    assert "SCL: left out" in capsys.readouterr().err
    with pytest.raises(SpecError, match="no band is called"):
        from_xarray(both.assign_coords(band=["B04", "B03", "haze"]))


def test_columns_from_east_to_west_are_turned() -> None:
    """An array whose x falls is no mirror image."""
    array = to_xarray(image()).drop_vars("spatial_ref").rio.write_crs("EPSG:32632")
    turned = array.isel(x=slice(None, None, -1))

    assert image().grid == from_xarray(turned).grid
    assert torch.equal(from_xarray(array).pixels, from_xarray(turned).pixels)
