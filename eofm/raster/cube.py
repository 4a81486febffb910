"""xarray in and out: named bands, a CRS, NaN where nothing was measured.

An image is a `DataArray` with the dimensions band, y and x, or a `Dataset` with one variable for
each band. What `to_xarray` writes, `from_xarray` reads without being told sensor or unit, and gives
the same numbers at the same place, in the same order of rows, rotated or not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import rioxarray  # noqa: F401 (gives DataArray its .rio)
import torch
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from eofm.contract.imagery import Imagery
from eofm.contract.prepare import undescribed
from eofm.contract.spec import (
    SENSOR_BANDS,
    UNITS,
    ImageSpec,
    Sensor,
    Unit,
    are_codes,
    band_candidates,
    canonical_bands,
    number_in,
)
from eofm.contract.validity import check_scale, doubt_of_type, measured, refusal
from eofm.errors import RasterError, SpecError
from eofm.raster.bands import alike_in, check_amplitude, described_unit, only_count
from eofm.raster.grid import Grid, Window
from eofm.raster.tags import (
    CloudMask,
    TagScaling,
    check_baseline_of_array,
    check_offset,
    check_unscaled,
    is_beside,
    mask_called,
    read_scaling,
    settle,
    use_of,
)
from eofm.terminal import notice

__all__ = [
    "ONE_AT_A_TIME",
    "Cube",
    "CubeClouds",
    "band_layers",
    "check_cube",
    "cloud_masks",
    "from_xarray",
    "grid_of_array",
    "gsd_of",
    "image_of",
    "imagery_of",
    "placed",
    "to_xarray",
    "with_plain_names",
]

Cube = xr.DataArray | xr.Dataset
_TEN_METRES: Final = ("B02", "B03", "B04", "B08")  # what a file of four bands holds most often

# HDF5 ends the process where a thread opens a file while another one reads: windows are read ahead
# by several, and xarray's own lock is around reading alone. So opening, reading pixels and closing
# are done by one thread at a time.
ONE_AT_A_TIME: Final = threading.Lock()

# Other names of the three dimensions: openEO, `Dataset.to_dataarray`, netCDF in degrees.
_NAMES: Final[Mapping[str, str]] = {
    "bands": "band",
    "variable": "band",
    "lat": "y",
    "latitude": "y",
    "lon": "x",
    "longitude": "x",
}
_NUMBERED: Final = re.compile(r"band_\d+")
# A rotated grid has no coordinates along its rows. So that a cut-out knows where it lies, rows and
# columns are numbered as the transform counts them.
_ROW, _COLUMN = "row", "column"


# ---------------------------------------------------------------------------------- place


def grid_of_array(array: Cube, gsd: float | None = None) -> Grid:
    """Return where the pixels of an array with `y` and `x` lie.

    A transform that is written in the array counts, to the last digit, where the coordinates are
    those of its pixels, as in a cut-out. Where they are not, the coordinates count.

    Args:
        array: With at least one pixel.
        gsd: Metres per pixel, which tells of a single row or column what its coordinate does not.

    Raises:
        RasterError: If it has no pixel, or the coordinates are not evenly spaced.
    """
    height, width = array.sizes["y"], array.sizes["x"]
    if not height or not width:
        raise RasterError(
            "the array has no pixel",
            found=f"{height} rows and {width} columns",
            expected="at least one of each",
            remedy="choose other limits: where y falls from north to south, a selection of it "
            "begins in the north, as in array.sel(y=slice(north, south))",
        )
    crs, written = _crs_of(array), _written(array)
    whole = Grid(crs, written or Affine.identity(), height, width)
    if written is not None and {_ROW, _COLUMN} <= set(array.coords):
        return whole.at(Window(_first(array, _ROW), _first(array, _COLUMN), height, width))
    if not {"x", "y"} <= set(array.coords):
        return whole
    counted = _counted(array, written, gsd)
    begins = None if written is None else Grid(crs, counted, height, width).offset_in(whole)
    if begins is not None:
        return whole.at(Window(*begins, height, width))
    return Grid(crs, counted, height, width)


def _crs_of(array: Cube) -> CRS | None:
    """Return the CRS as CF, rioxarray or, in an attribute of the bands, EOPF products state it."""
    if array.rio.crs is not None:
        return CRS.from_user_input(array.rio.crs)
    bands = array.data_vars.values() if isinstance(array, xr.Dataset) else [array]
    codes = {band.attrs.get("proj:epsg") for band in bands}
    code = next(iter(codes), None) if len(codes) == 1 else None
    return CRS.from_epsg(code) if isinstance(code, int) else None


def _written(array: Cube) -> Affine | None:
    """Return the transform that stands in the array, as GDAL and rioxarray write it."""
    name = array.rio.grid_mapping
    text = array.coords[name].attrs.get("GeoTransform") if name in array.coords else None
    if text is None:
        return None
    try:
        return Affine.from_gdal(*map(float, str(text).split()))
    except (ValueError, TypeError) as error:
        raise RasterError(
            "the transform of the array cannot be read",
            found=text,
            expected="GeoTransform: six numbers",
            remedy="array.rio.write_transform(transform)",
        ) from error


def _first(array: Cube, axis: str) -> int:
    numbers = array.coords[axis].to_numpy()
    if numbers.size > 1 and not (np.diff(numbers) == 1).all():
        raise RasterError(
            f"the {axis}s of the array are not neighbours",
            found="a selection that leaves some out",
            remedy="bring it to a regular grid first",
        )
    return int(numbers.flat[0])


def _counted(array: Cube, written: Affine | None, gsd: float | None) -> Affine:
    """Return the transform the coordinates state: those of the centres of evenly spaced pixels."""
    step = _stated_step(_crs_of(array), gsd)
    known = (step, step and -step) if written is None else (written.a, written.e)
    (x, wide), (y, high) = (
        _axis(array, axis, one) for axis, one in zip(("x", "y"), known, strict=True)
    )
    return Affine(wide, 0.0, x - wide / 2, 0.0, high, y - high / 2)


def _stated_step(crs: CRS | None, gsd: float | None) -> float | None:
    """Return what a ground sample distance is in units of the map, where these are lengths."""
    if gsd is None or crs is None:
        return gsd
    return gsd / float(crs.linear_units_factor[1]) if crs.is_projected else None


def _axis(array: Cube, axis: str, known: float | None) -> tuple[float, float]:
    """Return the first coordinate of an axis and the step from one pixel to the next."""
    centres = array.coords[axis].to_numpy().astype(np.float64)
    if len(centres) == 1:
        if not known:
            raise RasterError(
                "one row or column does not say how large its pixels are",
                found=f"a single {axis} coordinate, {centres[0]:.10g}, and no transform",
                expected="several pixels, or a transform",
                remedy="write the transform of its pixels, as in array.rio.write_transform("
                "affine.Affine(10, 0, west, 0, -10, north)), or state gsd where the CRS is in "
                "metres",
            )
        return float(centres[0]), known
    step = float(centres[-1] - centres[0]) / (len(centres) - 1)
    if not step or not np.allclose(np.diff(centres), step, rtol=1e-3, atol=0):
        steps = np.diff(centres)
        raise RasterError(
            f"the {axis} coordinates of the array are not evenly spaced",
            found=f"steps from {steps.min():g} to {steps.max():g}",
            remedy="bring it to a regular grid first",
        )
    return float(centres[0]), step


# ---------------------------------------------------------------------------------- in


def from_xarray(
    array: Cube,
    sensor: Sensor | str | None = None,
    unit: Unit | str | None = None,
    *,
    gsd: float | None = None,
) -> Imagery:
    """Return an array as one image (B = 1) that knows where it lies.

    Args:
        array: Dimensions band, y and x in any order; others, such as time, have the length 1. The
            coordinate `band` holds band names; where it holds numbers, as from
            `rioxarray.open_rasterio`, the attribute `long_name` does. Of a Dataset, the variables
            that are bands of the sensor, the others being left out.
        sensor: Sensor and product level. None takes what `to_xarray` wrote.
        unit: Unit of the values. None takes what `to_xarray` wrote, or what `scale_factor` and
            `add_offset` say that were not applied.
        gsd: Metres per pixel. None takes it from CRS and coordinates.

    Raises:
        RasterError: If dimensions or band names are missing, or there is no CRS and no `gsd`.
        SpecError: If a band is not one of the sensor's, or the array says otherwise than stated.
        PixelError: If the numbers cannot be in the unit: 8 bits or fractions of 1 for digital
            numbers, whole numbers for reflectance.
    """
    return check_scale(image_of(array, sensor, unit, gsd=gsd))


def image_of(
    array: Cube,
    sensor: Sensor | str | None = None,
    unit: Unit | str | None = None,
    *,
    gsd: float | None = None,
) -> Imagery:
    """Return an array as `from_xarray` does, its values unseen: who calls looks at them, or not.

    Args:
        array: See `from_xarray`.
        sensor: See `from_xarray`.
        unit: See `from_xarray`.
        gsd: See `from_xarray`.

    Raises:
        RasterError: See `from_xarray`.
        SpecError: See `from_xarray`.
        PixelError: If 8-bit numbers are stated to be digital numbers of Sentinel-2.
    """
    check_cube(array)
    given, array = array, with_plain_names(array)
    unit = None if unit is None else Unit.parse(unit)
    sensor = _sensor_of(array, None if sensor is None else Sensor.parse(sensor))
    layers = [(name, _flat(layer)) for name, layer in band_layers(array, sensor).items()]
    first = layers[0][1]
    scaling = _scaling_of(array, [layer for _, layer in layers], sensor, unit)
    for _, layer in layers:
        doubt = doubt_of_type(str(layer.dtype), scaling.unit)
        if doubt is not None:
            raise refusal([doubt], [_name(array)])
    grid = grid_of_array(first, gsd)
    names = tuple(name for name, _ in layers)
    size = (grid.height, grid.width)
    parts = [_numbers(layer, scaling, k) for k, (_, layer) in enumerate(layers)]
    values = torch.from_numpy(np.stack([physical for _, physical, _ in parts]))[None]
    numbers = np.stack([numbers for numbers, _, _ in parts])
    flags = np.stack([flags for _, _, flags in parts])
    bands, remedy = range(len(names)), _without_scale(given)
    check_unscaled(numbers, flags, scaling, bands, _name(array), remedy)
    check_offset(numbers, flags, scaling, _name(array), remedy)
    baseline = _baseline(array)
    if baseline is not None:
        dropped = f'array = array.drop_vars("{_BASELINE}")'
        check_baseline_of_array(baseline, numbers, flags, scaling, _name(array), dropped)
    stored, declared = torch.from_numpy(numbers)[None], torch.from_numpy(flags)[None]
    valid = measured(
        {0: values if scaling.stored is None else stored},
        {0: declared},
        {0: names},
        scaling.stored or scaling.unit,
        size,
    )
    if gsd is None:
        stated = array.attrs.get("gsd")
        gsd = float(stated) if grid.crs is None and stated is not None else gsd_of(grid)
    spec = ImageSpec(sensor, names, scaling.unit, size, gsd)
    return Imagery(torch.where(declared, 0, values), spec, valid, (grid.georeference,))


def gsd_of(grid: Grid) -> float:
    """Return the ground sample distance of an array's grid.

    Raises:
        RasterError: If it lies nowhere; the remedy is that of an array, not of a file.
    """
    try:
        return grid.gsd
    except RasterError as error:
        error.remedy = (
            "state the size of its pixels, as in gsd=10.0; or say where it lies, with coordinates "
            'x and y and array.rio.write_crs("EPSG:32632")'
        )
        raise


def imagery_of(array: Cube, spec: ImageSpec | None) -> Imagery:
    """Return an array as the imagery a spec says it is: what `Encoder.embed` asks for.

    Args:
        array: See `from_xarray`.
        spec: Sensor, unit, GSD and bands, in the order wanted. None takes what the array says.

    Raises:
        RasterError: See `from_xarray`.
        SpecError: If the array says otherwise, or lacks a band.
    """
    if spec is None:
        check_cube(array)
        if with_plain_names(array).attrs.get("sensor") not in set(Sensor):
            raise undescribed(f"{type(array).__name__} without the attributes of to_xarray")
        return image_of(array)
    found = image_of(array, spec.sensor, spec.unit, gsd=spec.gsd).select(spec.bands)
    if spec.size is not None and spec.size != found.spec.size:
        raise SpecError(
            "the array has another size than its spec", found=found.spec.size, expected=spec.size
        )
    return found


def check_cube(array: object) -> Cube:
    """Return something, which has to be an array of xarray.

    Raises:
        SpecError: If it is not.
    """
    if not isinstance(array, (xr.DataArray, xr.Dataset)):
        raise SpecError(
            "this is no image",
            found=f"an object of type {type(array).__name__}",
            expected="Imagery, an array of numpy or torch with its spec, or one of xarray; for "
            "open_scene also a path or an address",
            remedy='of a file: eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")'
            if isinstance(array, (str, Path))
            else None,
        )
    return array


def with_plain_names(array: Cube) -> Cube:
    """Return an array with dimensions called band, y and x, north up and west on the left.

    A Dataset of one variable that has its bands along a dimension, as a file of an array is, is
    that variable. Rows of a transform that runs from south to north stay as they are.
    """
    named = array.rename({old: new for old, new in _NAMES.items() if old in array.dims})
    if isinstance(named, xr.Dataset):
        named = _with_crs(named)
        stacks = [v for v in named.data_vars.values() if {"band", "y", "x"} <= set(v.dims)]
        named = stacks[0] if len(stacks) == 1 else named
    turned = [axis for axis, sign in (("y", -1), ("x", 1)) if _is_turned(named, axis, sign)]
    return named.isel({axis: slice(None, None, -1) for axis in turned})


def _with_crs(cube: xr.Dataset) -> xr.Dataset:
    """Keep the variable that holds the CRS with every band, as CF's `grid_mapping` means it."""
    # decode_coords="all" does it too, but stumbles over a numeric attribute called `bounds`
    named = {
        str(v.attrs.get("grid_mapping", v.encoding.get("grid_mapping")))
        for v in cube.data_vars.values()
    }
    kept: xr.Dataset = cube.set_coords(
        [name for name in named | {"spatial_ref"} if name in cube.data_vars]
    )
    return kept


def _is_turned(array: Cube, axis: str, sign: int) -> bool:
    """Return whether coordinates run the other way, as y does in CF, and no transform says it."""
    if axis not in array.coords or array.coords[axis].ndim != 1 or array.sizes[axis] < 2:
        return False
    places = array.coords[axis].to_numpy()
    written = _written(array)
    step = None if written is None else written.e if axis == "y" else written.a
    return bool(sign * (places[-1] - places[0]) < 0) and (step is None or sign * step > 0)


def band_layers(array: Cube, sensor: Sensor) -> dict[str, xr.DataArray]:
    """Return the bands of an array by their canonical names.

    Raises:
        RasterError: If there is no band, or bands have no names.
        SpecError: If the bands of a DataArray are not the sensor's, each once.
    """
    renamed = with_plain_names(array)
    if isinstance(renamed, xr.Dataset):
        return _variables(renamed, sensor)
    if "band" not in renamed.dims and "band" in renamed.coords:
        renamed = renamed.expand_dims("band")  # one band that was selected
    if "band" not in renamed.dims and renamed.name is not None:
        return _variables(renamed.to_dataset(), sensor)  # one variable of a Dataset
    if not {"band", "y", "x"} <= set(renamed.dims):
        others = [dim for dim in renamed.dims if dim not in {"y", "x"} and renamed.sizes[dim] > 1]
        remedy = 'rename them, as in array.rename({"rows": "y", "columns": "x"})'
        if {"y", "x"} <= set(renamed.dims):
            remedy = 'say which band it is, as in array.expand_dims(band=["B04"])'
            if others:
                remedy = (
                    f'if {others[0]} is that of the bands: array.rename({{"{others[0]}": "band"}})'
                )
        raise RasterError(
            "an image has the dimensions band, y and x",
            found=", ".join(map(str, array.dims)),
            remedy=remedy,
        )
    words = _band_names(renamed, sensor)
    beside = [word for word in words if is_beside(word)]
    for word in beside:
        notice(f"{word}: {use_of(word, sensor)}")
    kept = [k for k, word in enumerate(words) if word not in beside]
    names = canonical_bands([words[k] for k in kept], sensor)
    return {name: _scaled(renamed, k) for k, name in zip(kept, names, strict=True)}


def _scaled(array: xr.DataArray, number: int) -> xr.DataArray:
    """Return one band; where scales and offsets differ, with those that rioxarray keeps for it."""
    layer = array.isel(band=number)
    for several, one in (("scales", "scale_factor"), ("offsets", "add_offset")):
        of_file = array.attrs.get(several)
        if isinstance(of_file, (tuple, list, np.ndarray)) and one not in array.attrs:
            place = _in_file(array, len(of_file))
            if place is None:
                raise RasterError(
                    f"the {several} of the array are those of other bands",
                    found=f"{len(of_file)} of them, and band = {_labels(array)}",
                    expected="one for each band",
                    remedy="open the file anew with eofm.read_scene, or scale the array: "
                    "rioxarray.open_rasterio(file, mask_and_scale=True)",
                )
            layer = layer.assign_attrs({one: of_file[place[number]]})
    return layer


def _variables(cube: xr.Dataset, sensor: Sensor) -> dict[str, xr.DataArray]:
    found: dict[str, xr.DataArray] = {}
    images = {str(n): v for n, v in cube.data_vars.items() if {"y", "x"} <= set(v.dims)}
    words = {name: _described(name, variable) for name, variable in images.items()}
    if only_count(list(words.values())):
        raise _numbered(", ".join(words))
    for name, variable in images.items():
        bands = band_candidates(words[name], sensor)
        if len(bands) == 1:
            if bands[0] in found:
                raise RasterError(f"the Dataset has band {bands[0]} twice", found=name)
            found[bands[0]] = variable
        else:
            notice(f"{name}: {use_of(words[name], sensor)}")
    if not found:
        raise RasterError(
            f"no variable of the Dataset is a band of {sensor} with the dimensions y and x",
            found=", ".join(map(str, cube.data_vars)) or "no variable",
            expected=", ".join(SENSOR_BANDS[sensor]),
            remedy='rename them, as in dataset.rename({"red": "B04"})',
        )
    _check_others(words, found, sensor)
    return found


def _check_others(
    words: Mapping[str, str], found: Mapping[str, xr.DataArray], sensor: Sensor
) -> None:
    """Refuse to leave out what has the name that another sensor gives a band of this one.

    Raises:
        SpecError: If there is such a variable.
    """
    for name, word in words.items():
        alike = alike_in(word, sensor)
        if alike and not set(alike) & set(found):
            raise SpecError(
                f"a variable of the Dataset has the name of a band of another sensor than {sensor}",
                found=name,
                expected=", ".join(SENSOR_BANDS[sensor]),
                remedy=f'rename it, as in dataset.rename({{"{name}": "{alike[0]}"}}), or leave it '
                f'out: dataset.drop_vars("{name}")',
            )


def _described(name: str, variable: xr.DataArray) -> str:
    """Return the name of a variable, or what it says of itself where the name is but a number.

    `rioxarray.open_rasterio(..., band_as_variable=True)` calls the ninth band of a file `band_9`,
    which of Sentinel-2 is B8A.

    Raises:
        RasterError: If it is a number and says nothing.
    """
    if not _NUMBERED.fullmatch(name):
        return name
    said = variable.attrs.get("long_name")
    counts = isinstance(said, str) and not are_codes([said]) and number_in(said) == number_in(name)
    if not isinstance(said, str) or counts:
        raise _numbered(name)
    return said


def _numbered(found: str) -> RasterError:
    first = found.split(",", maxsplit=1)[0]
    return RasterError(
        "variables that are numbered say nothing of their bands",
        found=found,
        expected="names of bands, or the attribute long_name",
        remedy=f'rename them; if the first is B04: dataset.rename({{"{first}": "B04"}})',
    )


def _labels(array: xr.DataArray) -> list[Any]:
    return array.coords["band"].to_numpy().tolist() if "band" in array.coords else []


def _in_file(array: xr.DataArray, count: int) -> list[int] | None:
    """Return which bands of its file an array holds, counted from 0; None if nothing tells.

    rioxarray numbers bands from 1 on, and an array whose bands were chosen or turned keeps their
    numbers, while what it says of all bands of the file stays as it was.

    Args:
        array: With a dimension band.
        count: How many bands the file has.
    """
    labels = _labels(array)
    if not labels and array.sizes["band"] == count:
        return list(range(count))
    numbers = [label for label in labels if isinstance(label, int) and 1 <= label <= count]
    return [number - 1 for number in numbers] if numbers and numbers == labels else None


def _band_names(array: xr.DataArray, sensor: Sensor | None = None) -> list[str]:
    labels = _labels(array)
    if labels and all(isinstance(label, str) for label in labels) and not only_count(labels):
        return labels
    described = array.attrs.get("long_name")
    described = (described,) if isinstance(described, str) else described
    if isinstance(described, (tuple, list)):
        place = _in_file(array, len(described))
        if place is not None:
            _check_described(place, described)
        if place is not None and not only_count([str(name) for name in described]):
            return [str(described[number]) for number in place]
    usual, count = SENSOR_BANDS[sensor or Sensor.S2_L2A], array.sizes.get("band", 1)
    first = f".isel(band=slice({len(usual)}))" if count > len(usual) else ""
    if count == 4 and {*_TEN_METRES} <= {*usual}:
        usual = _TEN_METRES
    names = ", ".join(f'"{name}"' for name in usual[:count])
    raise RasterError(
        "the bands of the array have no names",
        found=f"{count} bands, band = {labels or 'no coordinate'}",
        expected="band names",
        remedy="name them in stored order; if they are these: "
        f"array{first}.assign_coords(band=[{names}])",
    )


def _check_described(place: Sequence[int], described: Sequence[object]) -> None:
    """Check that no band lacks a name where others have one, as the alpha of a picture does."""
    named = [k for k, number in enumerate(place) if described[number]]
    if 0 < len(named) < len(place):
        nameless = [str(k) for k in range(len(place)) if k not in named]
        raise RasterError(
            "a band of the array has no name, and others have",
            found=f"nothing for band {', '.join(nameless)}, counted from 0",
            expected="a name for each band",
            remedy=f"choose those that have one: array.isel(band={named})",
        )


def _flat(layer: xr.DataArray) -> xr.DataArray:
    """Return one band as (y, x): a single time is taken, several are an error."""
    others = [dim for dim in layer.dims if dim not in {"y", "x"}]
    for dim in others:
        if layer.sizes[dim] != 1:
            raise RasterError(
                f"one image is wanted, and the array holds {layer.sizes[dim]} along {dim}",
                found=", ".join(f"{d} {layer.sizes[d]}" for d in layer.dims),
                remedy=f"select one, as in array.isel({dim}=0)",
            )
    return layer.isel(dict.fromkeys(others, 0)).transpose("y", "x")


def _numbers(
    layer: xr.DataArray, scaling: TagScaling, number: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return numbers as stored, in the unit of the image, and where they are declared no number."""
    stored = _stored(layer)
    if stored.dtype.kind not in "iuf":
        raise RasterError("pixels must be real numbers", found=stored.dtype)
    nodata = _nodata(layer)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and so invalid
        numbers = stored.astype(np.float32)
        values = scaling.apply(stored[None], [number])[0].astype(np.float32)
    declared = ~np.isfinite(values)
    if nodata is not None:
        declared |= stored == nodata
    return numbers, values, declared


def _stored(layer: xr.DataArray) -> NDArray[Any]:
    """Return the values of a band or mask, which may be in a file still."""
    with ONE_AT_A_TIME:
        values: NDArray[Any] = layer.to_numpy()
    return values


_NUMBER: Final = (int, float, np.integer, np.floating)
_SAYS_NODATA: Final = ("_FillValue", "missing_value", "fill_value", "nodata")  # as rioxarray asks


def _nodata(layer: xr.DataArray) -> float | None:
    """Return the value that stands for no measurement; None where none does.

    rioxarray says NaN of an array whose fill was decoded, and cannot say it of integers, among
    which the fill is still the number it was; nor a number that their type does not hold, as that
    of the file whose values were converted to another one.
    """
    encoded = layer.encoding.get("_FillValue")
    if layer.dtype.kind in "iu" and isinstance(encoded, _NUMBER):
        limits = np.iinfo(layer.dtype)
        if limits.min <= encoded <= limits.max:
            return float(encoded)
    try:
        found = layer.rio.nodata
    except (ValueError, OverflowError):
        said = (layer.attrs.get(name) for name in _SAYS_NODATA)
        found = next((one for one in said if isinstance(one, _NUMBER)), None)
    return None if found is None else float(found)


def _sensor_of(array: Cube, stated: Sensor | None) -> Sensor:
    text = array.attrs.get("sensor")
    found = Sensor(text) if text in set(Sensor) else None
    return settle("sensor", stated, found, "its attribute sensor", _name(array))


def _scaling_of(
    array: Cube, layers: Sequence[xr.DataArray], sensor: Sensor, stated: Unit | None
) -> TagScaling:
    """Return the unit of an array: that of `to_xarray`, of a scale not applied, or stated."""
    text = array.attrs.get("units")
    if "sensor" in array.attrs and text in set(Unit):  # `to_xarray` wrote them
        try:
            stated = settle("unit", stated, Unit(text), "its attribute units", _name(array))
        except SpecError as error:  # arithmetic keeps the attributes
            error.remedy = f'{error.remedy}; if the values were changed: array.attrs.pop("units")'
            raise
    try:
        pairs = [
            (float(x.attrs.get("scale_factor", 1)), float(x.attrs.get("add_offset", 0)))
            for x in layers
        ]
    except (TypeError, ValueError) as error:
        raise RasterError("a scale or offset is no number", found=error) from error
    described = None
    if Unit.DB in UNITS[sensor]:  # as the descriptions and unit tags of a file say it
        words = [f"{_called(x)} {x.attrs.get('units', '')}" for x in layers]
        check_amplitude(words, _name(array), _squared(array))
        described = described_unit(words)
    return read_scaling(pairs, sensor, stated, described, Path(_name(array)))


def _squared(array: Cube) -> str:
    """Return the remedy for amplitudes; arithmetic can keep the attributes of an array."""
    code = 'array = (array**2).assign_attrs(array.attrs, units="power")'
    if isinstance(array, xr.Dataset):
        power = '(band**2).assign_attrs(band.attrs, units="power")'
        code = f"dataset = dataset.assign({{name: {power} for name, band in dataset.items()}})"
    return f"square them to backscatter power, and state that unit: {code}"


def _called(layer: xr.DataArray) -> object:
    """Return what an array calls one of its bands, or the name of a variable."""
    return layer.coords["band"].item() if "band" in layer.coords else layer.name


# Coordinates that stackstac makes of the properties of STAC items. The second says whether the
# offset was subtracted, and decides without the first.
_BASELINE: Final = "s2:processing_baseline"
_APPLIED: Final = "earthsearch:boa_offset_applied"


def _baseline(array: Cube) -> str | None:
    """Return the processing baseline that a coordinate states for the whole array, if any."""
    if _BASELINE not in array.coords or _APPLIED in array.coords:
        return None
    stated = {str(one) for one in array.coords[_BASELINE].to_numpy().flat}
    return stated.pop() if len(stated) == 1 else None


def _without_scale(array: Cube) -> str:
    """Return the remedy that removes scale and offset from an array and keeps its values."""
    if isinstance(array, xr.DataArray):
        names = '("scale_factor", "add_offset", "scales", "offsets")'
        return f"remove the scale: for name in {names}: array.attrs.pop(name, None)"
    opened = "dataset = xarray.open_dataset(FILE, mask_and_scale=False)"
    names = '("scale_factor", "add_offset")'
    return (
        f"remove the scale (for a file, {opened} first): for band in dataset.values(): "
        f"[band.attrs.pop(name, None) for name in {names}]"
    )


def _name(array: Cube) -> str:
    name = array.name if isinstance(array, xr.DataArray) else array.attrs.get("name")
    return str(name or type(array).__name__)


# ------------------------------------------------------------------------------- clouds


@dataclass(frozen=True, eq=False)
class CubeClouds:
    """A cloud mask among the bands or variables of an array.

    Args:
        mask: How its values are read.
        array: Dimensions called y and x, at one time.
    """

    mask: CloudMask
    array: Cube = field(repr=False)

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Return where a window of the array is under clouds, (h, w).

        Raises:
            RasterError: If the values are none of the mask.
        """
        rows, columns = window.slices
        layer = _flat(_mask_layers(self.array)[self.mask])
        nodata = _nodata(layer)
        values, unknown = _without_nodata(_stored(layer.isel(y=rows, x=columns)), nodata)

        def largest() -> float:
            return self.mask.largest(_without_nodata(_stored(layer), nodata)[0])

        return unknown | self.mask.clouded(values, largest)


def _without_nodata(
    values: NDArray[Any], nodata: float | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return a mask with 0 where it declares to know nothing, and where; 0 itself is clear sky."""
    if not nodata:
        return values, np.zeros(values.shape, np.bool_)
    unknown = values == nodata
    return np.where(unknown, 0, values), unknown


def cloud_masks(array: Cube) -> tuple[CloudMask, ...]:
    """Return the cloud masks among the bands or variables of an array."""
    return tuple(_mask_layers(array))


def _mask_layers(array: Cube) -> dict[CloudMask, xr.DataArray]:
    if isinstance(array, xr.Dataset):
        layers = {str(k): v for k, v in array.data_vars.items() if {"y", "x"} <= set(v.dims)}
    elif "band" in array.dims:
        layers = {word: array.isel(band=k) for k, word in enumerate(_band_names(array))}
    else:
        layers = {}
    called = ((mask_called(word), layer) for word, layer in layers.items())
    return {mask: layer for mask, layer in called if mask is not None}


# ---------------------------------------------------------------------------------- out


def to_xarray(imagery: Imagery) -> xr.DataArray:
    """Return one image as an array (band, y, x) with band names, CRS, and NaN where invalid.

    Args:
        imagery: B = 1. Without a grid the array has no coordinates but the bands.

    Raises:
        SpecError: If it is not one image, or it is normalised.
    """
    if len(imagery) != 1 or imagery.spec.unit is Unit.MODEL:
        raise SpecError(
            "one image in physical units is needed",
            found=f"{len(imagery)} images, unit {imagery.spec.unit}",
            remedy="imagery[0] is the first image of a batch",
        )
    pixels = torch.where(imagery.valid[:, None], imagery.pixels, torch.nan)[0].cpu().numpy()
    attrs = {
        "sensor": imagery.spec.sensor.value,
        "units": imagery.spec.unit.value,
        "long_name": imagery.spec.bands,
        "gsd": imagery.spec.gsd,
    }
    height, width = pixels.shape[1:]
    coords = {"band": list(imagery.spec.bands)}
    place = imagery.grid
    array = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords, attrs=attrs)
    if place is not None:
        array = placed(array, Grid.of(place, height, width))
    return _georeferenced(array)


def placed(array: xr.DataArray, grid: Grid) -> xr.DataArray:
    """Return an array that knows where it lies: CRS, transform, and the centres of its pixels.

    Args:
        array: (..., y, x).
        grid: Of y and x.
    """
    t = grid.transform
    if t.b == t.d == 0:
        y = t.f + t.e * (np.arange(grid.height) + 0.5)
        array = array.assign_coords(y=y, x=t.c + t.a * (np.arange(grid.width) + 0.5))
    else:
        rows, columns = np.arange(grid.height), np.arange(grid.width)
        array = array.assign_coords({_ROW: ("y", rows), _COLUMN: ("x", columns)})
    if grid.crs is not None:
        array = array.rio.write_crs(grid.crs)
    finished: xr.DataArray = array.rio.write_transform(t)
    return finished


def _georeferenced(array: xr.DataArray) -> xr.DataArray:
    finished: xr.DataArray = array.rio.write_nodata(np.nan)
    return finished
