"""Convert images from and to xarray: named bands, a CRS, NaN for invalid pixels.

An image is a `DataArray` with the dimensions band, y and x, or a `Dataset` with one variable per
band. `from_xarray` reads the output of `to_xarray` without a stated sensor or unit, and returns the
same values, georeference and order of rows, also for rotated grids.
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
    mask_named,
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
_TEN_METRES: Final = ("B02", "B03", "B04", "B08")  # the most frequent four bands

# HDF5 crashes the process if one thread opens a file while another one reads, and several threads
# prefetch windows. The lock of xarray covers only reading, so this one covers opening, reading and
# closing.
ONE_AT_A_TIME: Final = threading.Lock()

# Other names of the three dimensions: openEO, `Dataset.to_dataarray`, netCDF in degrees, and Earth
# Engine opened by xee.
_NAMES: Final[Mapping[str, str]] = {
    "bands": "band",
    "variable": "band",
    "lat": "y",
    "latitude": "y",
    "Y": "y",
    "lon": "x",
    "longitude": "x",
    "X": "x",
}
_NUMBERED: Final = re.compile(r"band_\d+")
# A rotated grid has no coordinates along its rows. Its rows and columns are numbered as in the
# transform, so that a subset keeps its georeference.
_ROW, _COLUMN = "row", "column"


# ---------------------------------------------------------------------------------- place


def grid_of_array(array: Cube, gsd: float | None = None) -> Grid:
    """Return the grid of an array with the dimensions `y` and `x`.

    A transform stored in the array is used, to the last digit, if the coordinates are those of its
    pixels, as in a subset. Otherwise the coordinates are used. They are of pixel centres, unless
    the attribute `transform` says that they are of upper left corners, the default of stackstac.

    Args:
        array: Array with at least one pixel.
        gsd: Metres per pixel, required for the step of a single row or column.

    Raises:
        RasterError: If it has no pixel, or the coordinates are not evenly spaced.
    """
    height, width = array.sizes["y"], array.sizes["x"]
    if not height or not width:
        raise RasterError(
            "the array has no pixel",
            found=f"{height} rows and {width} columns",
            expected="at least one of each",
            remedy="choose other limits: if y decreases from north to south, a selection "
            "starts in the north, as in array.sel(y=slice(north, south))",
        )
    crs, written = _crs_of(array), _written(array)
    whole = Grid(crs, written or Affine.identity(), height, width)
    if written is not None and {_ROW, _COLUMN} <= set(array.coords):
        return whole.at(Window(_first(array, _ROW), _first(array, _COLUMN), height, width))
    if not {"x", "y"} <= set(array.coords):
        return whole
    counted = _counted(array, written, _stated_step(crs, gsd))
    if written is None:
        counted = _of_corners(counted, array.attrs.get("transform"))
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
    """Return the transform stored in the array, as GDAL and rioxarray write it."""
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
            f"the {axis}s of the array are not adjacent",
            found="a selection that leaves some out",
            remedy="resample it to a regular grid first",
        )
    return int(numbers.flat[0])


def _counted(array: Cube, written: Affine | None, step: float | None) -> Affine:
    """Return the transform given by the coordinates, the centres of evenly spaced pixels."""
    known = (step, step and -step) if written is None else (written.a, written.e)
    (x, wide), (y, high) = (
        _axis(array, axis, one) for axis, one in zip(("x", "y"), known, strict=True)
    )
    return Affine(wide, 0.0, x - wide / 2, 0.0, high, y - high / 2)


def _of_corners(counted: Affine, kept: object) -> Affine:
    """Return the transform given by coordinates of pixels, whose place in the pixel is unknown.

    stackstac labels a pixel by its upper left corner, and keeps the transform as an attribute. Only
    one of the two places makes pixels, or means of blocks of pixels, begin where pixels of that
    transform do.

    Args:
        counted: The transform if the coordinates are those of centres.
        kept: The attribute: an affine transform, its six numbers, or something else.
    """
    try:
        numbers = np.asarray(kept, np.float64).ravel()[:6]
    except (TypeError, ValueError):
        return counted
    if len(numbers) < 6 or not np.isfinite(numbers).all():
        return counted
    t = Affine(*numbers.tolist())
    if t.b or t.d or not t.a * t.e:
        return counted
    moved = Affine(counted.a, 0.0, counted.c + t.a / 2, 0.0, counted.e, counted.f + t.e / 2)
    return moved if _begins_in(t, moved) and not _begins_in(t, counted) else counted


def _begins_in(whole: Affine, part: Affine) -> bool:
    """Return whether the corner of a grid is one of the corners of pixels of another."""
    places = ((part.c - whole.c) / whole.a, (part.f - whole.f) / whole.e)
    return all(abs(place - round(place)) < _CORNER for place in places)


_CORNER: Final = 1e-3  # of a pixel, as in Grid.offset_in


def _stated_step(crs: CRS | None, gsd: float | None) -> float | None:
    """Return a ground sample distance in units of the CRS; None if these are not lengths."""
    if gsd is None or crs is None:
        return gsd
    return gsd / float(crs.linear_units_factor[1]) if crs.is_projected else None


def _axis(array: Cube, axis: str, known: float | None) -> tuple[float, float]:
    """Return the first coordinate of an axis and the step from one pixel to the next."""
    centres = array.coords[axis].to_numpy().astype(np.float64)
    if len(centres) == 1:
        if not known:
            raise RasterError(
                "a single row or column does not determine the pixel size",
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
            remedy="resample it to a regular grid first",
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
    """Return an array as one georeferenced image (B = 1).

    Args:
        array: Dimensions band, y and x in any order; others, such as time, have length 1. The
            coordinate `band` holds the band names; if it holds numbers, as from
            `rioxarray.open_rasterio`, the attribute `long_name` does. Variables of a Dataset that
            are not bands of the sensor are left out.
        sensor: Sensor and product level. None uses that of `to_xarray`.
        unit: Unit of the values. None uses that of `to_xarray`, or the one that follows from an
            unapplied `scale_factor` and `add_offset`.
        gsd: Metres per pixel. None derives it from CRS and coordinates.

    Raises:
        RasterError: If dimensions or band names are missing, or there is no CRS and no `gsd`.
        SpecError: If a band does not belong to the sensor, or the array contradicts the statement.
        PixelError: If the values cannot be in the unit: 8 bits or fractions of 1 for digital
            numbers, integers for reflectance.
    """
    return check_scale(image_of(array, sensor, unit, gsd=gsd))


def image_of(
    array: Cube,
    sensor: Sensor | str | None = None,
    unit: Unit | str | None = None,
    *,
    gsd: float | None = None,
) -> Imagery:
    """Return an array like `from_xarray`, without the check of its values, left to the caller.

    Args:
        array: See `from_xarray`.
        sensor: See `from_xarray`.
        unit: See `from_xarray`.
        gsd: See `from_xarray`.

    Raises:
        RasterError: See `from_xarray`.
        SpecError: See `from_xarray`.
        PixelError: If 8-bit values are stated as digital numbers of Sentinel-2.
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
    """Return the ground sample distance of the grid of an array.

    Raises:
        RasterError: If it has no georeference; the remedy is for an array, not a file.
    """
    try:
        return grid.gsd
    except RasterError as error:
        crs = "EPSG:4326" if _are_degrees(grid) else "EPSG:32632"
        error.remedy = (
            "state the pixel size, as in gsd=10.0; or add a georeference: coordinates x and y of "
            f'pixel centres (in stackstac: xy_coords="center"), and array.rio.write_crs("{crs}")'
        )
        raise


def _are_degrees(grid: Grid) -> bool:
    """Return whether coordinates without a CRS look like longitudes and latitudes."""
    left, bottom, right, top = grid.bounds
    within = max(abs(left), abs(right)) <= 360 and max(abs(bottom), abs(top)) <= 90
    return within and abs(grid.transform.a) < 1


def imagery_of(array: Cube, spec: ImageSpec | None) -> Imagery:
    """Return an array as imagery with a stated spec, for `Encoder.embed`.

    Args:
        array: See `from_xarray`.
        spec: Sensor, unit, GSD and bands in the order wanted. None uses those of the array.

    Raises:
        RasterError: See `from_xarray`.
        SpecError: If the array contradicts the spec, or lacks a band.
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
    """Return an object that must be an xarray array.

    Raises:
        SpecError: If it is not.
    """
    if not isinstance(array, (xr.DataArray, xr.Dataset)):
        raise SpecError(
            "the object is not an image",
            found=f"an object of type {type(array).__name__}",
            expected="Imagery, a numpy or torch array with its spec, or an xarray object; for "
            "open_scene also a path or a URL",
            remedy='for a file: eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")'
            if isinstance(array, (str, Path))
            else None,
        )
    return array


def with_plain_names(array: Cube) -> Cube:
    """Return an array with the dimensions band, y and x, north up and west on the left.

    Of a Dataset whose only variable has the bands along a dimension, that variable is returned.
    Rows keep their order if the stored transform runs from south to north.
    """
    named = _with_plain_dimensions(array)
    if isinstance(named, xr.Dataset):
        named = _with_crs(named)
        stacks = [v for v in named.data_vars.values() if {"band", "y", "x"} <= set(v.dims)]
        named = stacks[0] if len(stacks) == 1 else named
    turned = [axis for axis, sign in (("y", -1), ("x", 1)) if _is_turned(named, axis, sign)]
    return named.isel({axis: slice(None, None, -1) for axis in turned})


def _with_plain_dimensions(array: Cube) -> Cube:
    """Return an array whose dimensions have their usual names.

    A coordinate or variable that has such a name without being the dimension is dropped, such as
    the `band` that single bands of rioxarray keep when they are joined along `variable`.
    """
    names = {new: old for old, new in _NAMES.items() if old in array.dims}
    names = {new: old for new, old in names.items() if new not in array.dims}
    there = array.variables if isinstance(array, xr.Dataset) else array.coords
    taken = [name for name in names if name in there]
    return array.drop_vars(taken).rename({old: new for new, old in names.items()})


def _with_crs(cube: xr.Dataset) -> xr.Dataset:
    """Make the variable that holds the CRS (`grid_mapping` in CF) a coordinate of every band."""
    # decode_coords="all" does it too, but fails on a numeric attribute `bounds`
    named = {
        str(v.attrs.get("grid_mapping", v.encoding.get("grid_mapping")))
        for v in cube.data_vars.values()
    }
    kept: xr.Dataset = cube.set_coords(
        [name for name in named | {"spatial_ref"} if name in cube.data_vars]
    )
    return kept


def _is_turned(array: Cube, axis: str, sign: int) -> bool:
    """Return whether coordinates run backwards, as y in CF, without a transform that says so."""
    if axis not in array.coords or array.coords[axis].ndim != 1 or array.sizes[axis] < 2:
        return False
    places = array.coords[axis].to_numpy()
    written = _written(array)
    step = None if written is None else written.e if axis == "y" else written.a
    return bool(sign * (places[-1] - places[0]) < 0) and (step is None or sign * step > 0)


def band_layers(array: Cube, sensor: Sensor) -> dict[str, xr.DataArray]:
    """Return canonical band name -> band of an array.

    Raises:
        RasterError: If there is no band, or bands have no names.
        SpecError: If the bands of a DataArray do not belong to the sensor, or are repeated.
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
            remedy = 'state which band it is, as in array.expand_dims(band=["B04"])'
            if others:
                one = others[0]
                remedy = (
                    f'if {one} is the dimension of the bands: array.rename({{"{one}": "band"}})'
                )
        raise RasterError(
            "an image must have the dimensions band, y and x",
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
    """Return one band, with its own scale and offset if rioxarray keeps them per band."""
    layer = array.isel(band=number)
    for several, one in (("scales", "scale_factor"), ("offsets", "add_offset")):
        of_file = array.attrs.get(several)
        if isinstance(of_file, (tuple, list, np.ndarray)) and one not in array.attrs:
            place = _in_file(array, len(of_file))
            if place is None:
                raise RasterError(
                    f"the {several} of the array belong to other bands",
                    found=f"{len(of_file)} of them, and band = {_labels(array)}",
                    expected="one for each band",
                    remedy="open the file again with eofm.read_scene, or scale the array: "
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
    """Refuse to leave out a variable named like a counterpart band of another sensor.

    Raises:
        SpecError: If there is such a variable.
    """
    for name, word in words.items():
        alike = alike_in(word, sensor)
        if alike and not set(alike) & set(found):
            raise SpecError(
                f"a variable of the Dataset is named after a band of another sensor than {sensor}",
                found=name,
                expected=", ".join(SENSOR_BANDS[sensor]),
                remedy=f'rename it, as in dataset.rename({{"{name}": "{alike[0]}"}}), or leave it '
                f'out: dataset.drop_vars("{name}")',
            )


def _described(name: str, variable: xr.DataArray) -> str:
    """Return the name of a variable, or its `long_name` if the name is only a number.

    `rioxarray.open_rasterio(..., band_as_variable=True)` names the ninth band of a file `band_9`,
    which is B8A of Sentinel-2.

    Raises:
        RasterError: If it is numbered and has no `long_name`.
    """
    if not _NUMBERED.fullmatch(name):
        return name
    long_name = variable.attrs.get("long_name")
    counts = (
        isinstance(long_name, str)
        and not are_codes([long_name])
        and number_in(long_name) == number_in(name)
    )
    if not isinstance(long_name, str) or counts:
        raise _numbered(name)
    return long_name


def _numbered(found: str) -> RasterError:
    first = found.split(",", maxsplit=1)[0]
    return RasterError(
        "numbered variables do not name their bands",
        found=found,
        expected="names of bands, or the attribute long_name",
        remedy=f'rename them; if the first is B04: dataset.rename({{"{first}": "B04"}})',
    )


def _labels(array: xr.DataArray) -> list[Any]:
    labels = array.coords["band"].to_numpy().tolist() if "band" in array.coords else []
    # texts of netCDF and Zarr may come as bytes
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in labels]


def _in_file(array: xr.DataArray, count: int) -> list[int] | None:
    """Return the file bands that an array holds, counted from 0; None if unknown.

    rioxarray numbers bands from 1. An array with selected or reordered bands keeps their numbers,
    while its attributes still describe all bands of the file.

    Args:
        array: Array with a dimension band.
        count: Number of bands in the file.
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
    """Check that all bands have a name or none has; the alpha of a picture often lacks one."""
    named = [k for k, number in enumerate(place) if described[number]]
    if 0 < len(named) < len(place):
        nameless = [str(k) for k in range(len(place)) if k not in named]
        raise RasterError(
            "some bands of the array have no name",
            found=f"no name for band {', '.join(nameless)}, counted from 0",
            expected="a name for each band",
            remedy=f"select the bands with a name: array.isel(band={named})",
        )


def _flat(layer: xr.DataArray) -> xr.DataArray:
    """Return one band as (y, x); several times are an error."""
    others = [dim for dim in layer.dims if dim not in {"y", "x"}]
    for dim in others:
        if layer.sizes[dim] != 1:
            raise RasterError(
                f"an image is expected, but the array holds {layer.sizes[dim]} along {dim}",
                found=", ".join(f"{d} {layer.sizes[d]}" for d in layer.dims),
                remedy=f"select one, as in array.isel({dim}=0)",
            )
    return layer.isel(dict.fromkeys(others, 0)).transpose("y", "x")


def _numbers(
    layer: xr.DataArray, scaling: TagScaling, number: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return values as stored, values in the unit of the image, and where nodata is declared."""
    stored = _stored(layer)
    if stored.dtype.kind not in "iuf":
        raise RasterError("pixels must be real numbers", found=stored.dtype)
    nodata = _nodata(layer)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and so invalid
        numbers = stored.astype(np.float32)
        values = scaling.apply(stored[None], [number])[0].astype(np.float32)
    declared = ~np.isfinite(values)
    if nodata is not None:
        declared |= stored == nodata
    return numbers, values, declared


def _stored(layer: xr.DataArray) -> NDArray[Any]:
    """Return the values of a band or mask, which may still have to be read from a file."""
    with ONE_AT_A_TIME:
        values: NDArray[Any] = layer.to_numpy()
    return values


_NUMBER: Final = (int, float, np.integer, np.floating)
# the order in which rioxarray reads them
_NODATA_ATTRIBUTES: Final = (
    "_FillValue",
    "missing_value",
    "fill_value",
    "nodata",
)


def _nodata(layer: xr.DataArray) -> float | None:
    """Return the nodata value; None if there is none.

    rioxarray reports NaN for an array with a decoded fill value. It fails for integers, which still
    contain the fill value, and for a fill value outside the range of a converted data type.
    """
    encoded = layer.encoding.get("_FillValue")
    if layer.dtype.kind in "iu" and isinstance(encoded, _NUMBER):
        limits = np.iinfo(layer.dtype)
        if limits.min <= encoded <= limits.max:
            return float(encoded)
    try:
        found = layer.rio.nodata
    except (ValueError, OverflowError):
        values = (layer.attrs.get(name) for name in _NODATA_ATTRIBUTES)
        found = next((one for one in values if isinstance(one, _NUMBER)), None)
    return None if found is None else float(found)


def _sensor_of(array: Cube, stated: Sensor | None) -> Sensor:
    text = array.attrs.get("sensor")
    found = Sensor(text) if text in set(Sensor) else None
    return settle("sensor", stated, found, "its attribute sensor", _name(array))


def _scaling_of(
    array: Cube, layers: Sequence[xr.DataArray], sensor: Sensor, stated: Unit | None
) -> TagScaling:
    """Return the scaling of an array, by `to_xarray`, an unapplied scale, or the statement."""
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
        raise RasterError("a scale or offset is not a number", found=error) from error
    described = None
    if Unit.DB in UNITS[sensor]:  # like the descriptions and unit tags of a file
        words = [f"{_label_of(x)} {x.attrs.get('units', '')}" for x in layers]
        check_amplitude(words, _name(array), _squared(array))
        described = described_unit(words)
    return read_scaling(pairs, sensor, stated, described, Path(_name(array)))


def _squared(array: Cube) -> str:
    """Return the remedy for amplitudes; arithmetic can keep the attributes of an array."""
    code = 'array = (array**2).assign_attrs(array.attrs, units="power")'
    if isinstance(array, xr.Dataset):
        power = '(band**2).assign_attrs(band.attrs, units="power")'
        code = f"dataset = dataset.assign({{name: {power} for name, band in dataset.items()}})"
    return f"square them to get backscatter power, and state that unit: {code}"


def _label_of(layer: xr.DataArray) -> object:
    """Return the label of a band, or the name of a variable."""
    return layer.coords["band"].item() if "band" in layer.coords else layer.name


# Coordinates that stackstac makes from the properties of STAC items. The second states whether the
# offset was subtracted, and takes precedence.
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
        mask: Kind of mask.
        array: Array with the dimensions y and x, at one time.
    """

    mask: CloudMask
    array: Cube = field(repr=False)

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Return where a window of the array is cloudy, (h, w).

        Raises:
            RasterError: If the values are not those of the mask.
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
    """Return a mask with its nodata set to 0, and where that was; a nodata of 0 is clear sky."""
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
    masks = ((mask_named(word), layer) for word, layer in layers.items())
    return {mask: layer for mask, layer in masks if mask is not None}


# ---------------------------------------------------------------------------------- out


def to_xarray(imagery: Imagery) -> xr.DataArray:
    """Return one image as an array (band, y, x) with band names, CRS, and NaN where invalid.

    Args:
        imagery: One image (B = 1). Without a grid, the array has coordinates for the bands only.

    Raises:
        SpecError: If it is not one image, or is normalised.
    """
    if len(imagery) != 1 or imagery.spec.unit is Unit.MODEL:
        raise SpecError(
            "one image in physical units is required",
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
    """Return an array with CRS, transform, and coordinates of its pixel centres.

    Args:
        array: Array (..., y, x).
        grid: Grid of y and x.
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
