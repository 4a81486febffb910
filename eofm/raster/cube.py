"""xarray in and out: named bands, a CRS, NaN where nothing was measured."""

from __future__ import annotations

import numpy as np
import rioxarray  # noqa: F401 (gives DataArray its .rio)
import torch
import xarray as xr
from affine import Affine

from eofm.contract.imagery import Imagery
from eofm.contract.sensors import canonical_bands
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.grid import Grid


def grid_of_array(array: xr.DataArray) -> Grid:
    """Return where the pixels of an array with `y` and `x` lie.

    Raises:
        RasterError: If the coordinates are not evenly spaced, or rows do not run from north to
            south.
    """
    grid = Grid(array.rio.crs, _transform(array), array.sizes["y"], array.sizes["x"])
    if grid.transform.e > 0:
        raise RasterError(
            "the rows of the array run from south to north",
            expected="y that decreases",
            remedy='array.sortby("y", ascending=False)',
        )
    return grid


def _transform(array: xr.DataArray) -> Affine:
    """Return the transform the coordinates state: those of the centres of evenly spaced pixels."""
    if not {"x", "y"} <= set(array.coords) or min(array.sizes["x"], array.sizes["y"]) < 2:
        stated: Affine = array.rio.transform()
        return stated
    first, step = [], []
    for axis in ("x", "y"):
        centres = array.coords[axis].to_numpy().astype(np.float64)
        gap = (centres[-1] - centres[0]) / (len(centres) - 1)
        if not np.allclose(np.diff(centres), gap, rtol=1e-3, atol=0):
            raise RasterError(
                f"the {axis} coordinates of the array are not evenly spaced",
                found=f"steps from {np.diff(centres).min():g} to {np.diff(centres).max():g}",
                remedy="bring it to a regular grid first",
            )
        first.append(centres[0] - gap / 2)
        step.append(gap)
    return Affine(step[0], 0.0, first[0], 0.0, step[1], first[1])


def from_xarray(
    array: xr.DataArray, sensor: Sensor, unit: Unit, *, gsd: float | None = None
) -> Imagery:
    """Return an array as one image (B = 1).

    Args:
        array: Dimensions band, y and x in any order. The coordinate `band` holds band names; where
            it holds numbers, as from `rioxarray.open_rasterio`, the attribute `long_name` does.
        sensor: Sensor and product level.
        unit: Unit of the values.
        gsd: Metres per pixel. None takes it from CRS and coordinates.

    Raises:
        RasterError: If dimensions or band names are missing, or there is no CRS and no `gsd`.
        SpecError: If a band is not one of the sensor's.
    """
    if set(array.dims) != {"band", "y", "x"}:
        raise RasterError(
            "an image has the dimensions band, y and x",
            found=", ".join(map(str, array.dims)),
            remedy="select one time with .isel(time=0); turn a Dataset into one array with "
            '.to_dataarray("band")',
        )
    ordered = array.transpose("band", "y", "x")
    bands = canonical_bands(_band_names(ordered), sensor)
    grid = grid_of_array(ordered)
    stored = ordered.to_numpy()
    nodata = ordered.rio.nodata
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and so invalid
        values = stored.astype(np.float32)
    invalid = ~np.isfinite(values)
    if nodata is not None:
        invalid |= stored == nodata
    values[invalid] = 0
    spec = ImageSpec(
        sensor, bands, unit, (grid.height, grid.width), grid.gsd if gsd is None else gsd
    )
    valid = torch.from_numpy(~invalid.any(axis=0))
    return Imagery(torch.from_numpy(values)[None], spec, valid[None])


def _band_names(array: xr.DataArray) -> list[str]:
    labels = array.coords["band"].to_numpy().tolist() if "band" in array.coords else []
    if labels and all(isinstance(label, str) for label in labels):
        return labels
    described = array.attrs.get("long_name")
    if isinstance(described, (tuple, list)) and len(described) == array.sizes["band"]:
        return [str(name) for name in described]
    raise RasterError(
        "the bands of the array have no names",
        found=f"band = {labels or 'no coordinate'}",
        expected="band names",
        remedy='array.assign_coords(band=["B02", "B03", "B04", "B08"]), in stored order',
    )


def to_xarray(imagery: Imagery, grid: Grid) -> xr.DataArray:
    """Return one image as an array (band, y, x) with band names, CRS, and NaN where invalid.

    Args:
        imagery: B = 1.
        grid: Where it lies.

    Raises:
        SpecError: If it is not one image, or the grid has another size.
    """
    expected = (1, len(imagery.spec.bands), grid.height, grid.width)
    if tuple(imagery.pixels.shape) != expected:
        raise SpecError(
            "one image and its grid are needed",
            found=tuple(imagery.pixels.shape),
            expected=expected,
        )
    pixels = torch.where(imagery.valid[:, None], imagery.pixels, torch.nan)[0].cpu().numpy()
    t = grid.transform
    coords: dict[str, object] = {"band": list(imagery.spec.bands)}
    if t.b == t.d == 0:  # a rotated grid has no one-dimensional coordinates
        coords["y"] = t.f + t.e * (np.arange(grid.height) + 0.5)
        coords["x"] = t.c + t.a * (np.arange(grid.width) + 0.5)
    array = xr.DataArray(
        pixels,
        dims=("band", "y", "x"),
        coords=coords,
        attrs={
            "sensor": imagery.spec.sensor.value,
            "units": imagery.spec.unit.value,
            "long_name": imagery.spec.bands,
        },
    )
    if grid.crs is not None:
        array = array.rio.write_crs(grid.crs)
    georeferenced: xr.DataArray = array.rio.write_transform(t).rio.write_nodata(np.nan)
    return georeferenced
