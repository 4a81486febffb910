"""xarray in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rioxarray
import torch
import xarray as xr
from affine import Affine
from rasterio.crs import CRS

from eofm.contract.imagery import Imagery, collate
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.cube import from_xarray, grid_of_array, to_xarray
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
    pixels[1, 0, 0] = 0
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


def test_south_up_is_refused() -> None:
    """Rows from south to north are an error, not an image upside down."""
    array = to_xarray(image()).sortby("y")

    with pytest.raises(RasterError, match="south to north"):
        from_xarray(array, Sensor.S2_L1C, Unit.DN)


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
