"""Read GeoTIFFs as images with sensor, unit, band names and a validity mask.

An image is one multi-band file, or one file per band at 10, 20 and 60 m. Either way it is read
whole or by window, as `NativeImagery` (stored values) or `Imagery` (float32 on the finest grid),
with a mask of the pixels that hold a measurement. Nothing is guessed: the caller states the sensor;
the unit is stated, or follows from the scale and offset of the file; bands are identified by name
(`eofm.raster.bands`). `find_doubt` checks whether the pixel values are plausible for that unit.
`eofm.raster.folder` finds the images of a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.io import DatasetReader
from rasterio.rpc import RPC
from torch import Tensor

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.preprocess import to_grid
from eofm.contract.spec import ImageSpec, Sensor, Unit, canonical_bands
from eofm.contract.validity import (
    Doubt,
    check_sentinels,
    doubt_of,
    doubt_of_type,
    fine_mask,
    measured,
    measured_of,
    refusal,
)
from eofm.errors import PixelError, RasterError
from eofm.io import Closing
from eofm.raster.bands import (
    BandLayout,
    check_amplitude,
    check_band,
    check_level,
    check_product,
    described_unit,
    lay_out,
    words_of_unit,
)
from eofm.raster.geotiff import (
    Header,
    as_delivered,
    damaged,
    date_of,
    delivered_kind,
    header_of,
    open_geotiff,
    open_geotiffs,
    pages_of,
    read_stored,
)
from eofm.raster.grid import Grid, Window, name_file, utm_of, warp_command
from eofm.raster.tags import (
    CloudMask,
    Clouds,
    TagScaling,
    check_baseline,
    check_unscaled,
    clouds_of_file,
    mask_named,
    read_scaling,
    use_of,
    without_scale,
)
from eofm.terminal import notice

__all__ = ["OpenRaster", "RasterSource", "find_doubt"]

_RADAR: Final = frozenset({Sensor.S1_GRD, Sensor.S1_RTC})


@dataclass(frozen=True)
class RasterSource:
    """The files of one image, with its stated sensor, unit and bands.

    Args:
        name: Name of the image in identifiers and messages.
        files: One multi-band file, or one file per band in the order of `bands`.
        sensor: Sensor and product level.
        unit: Unit of the values. None derives it from the scale and offset tags of the files.
        bands: Band names in stored order, or a subset of those described in a multi-band file.
            None, for one file, uses its band descriptions, then (for a single band) its file name,
            then the order of `eofm.contract.spec.SENSOR_BANDS`.
        gsd: Metres per pixel of the finest band. None derives it from the georeference.
        slack: Largest distance between the corners of a band and those of the finest band, in
            pixels of the band.
        cloud_mask: The mask layer whose clouds become invalid.
        mask_files: Cloud masks in files of their own.
        saturated: Value that marks a saturated pixel, which is invalid in any band.
        nodata: Pairs of a band and its nodata value, from metadata outside the files.
        names: GDAL names opened in place of `files` that are not local, such as
            `/vsicurl/https://...` and `/vsizip/...`.

    Raises:
        SpecError: If a band does not belong to the sensor, or is repeated.
        RasterError: If the number of files is neither one nor that of the bands.
    """

    name: str
    files: tuple[Path, ...]
    sensor: Sensor
    unit: Unit | None
    bands: tuple[str, ...] | None = None
    gsd: float | None = None
    slack: float = 0.01
    cloud_mask: CloudMask | None = None
    mask_files: tuple[tuple[CloudMask, Path], ...] = ()
    names: tuple[str, ...] = ()
    saturated: int | None = None
    nodata: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.bands is not None:
            object.__setattr__(self, "bands", canonical_bands(self.bands, self.sensor))
        if len(self.files) != 1 and len(self.files) != len(self.bands or ()):
            raise RasterError(
                "an image is one file, or one file per band",
                found=f"{len(self.files)} files, {len(self.bands or ())} bands",
                where=self.name,
            )

    def with_file(self, remedy: str, band: str | None = None) -> str:
        """Return a remedy of the contract with `FILE` replaced by the name of a file.

        Args:
            remedy: Text with a command.
            band: The band concerned, whose file is named if each band has its own.
        """
        file = self.files[0]
        if len(self.files) > 1 and band in (self.bands or ()):
            file = self.files[(self.bands or ()).index(band or "")]
        return remedy.replace("FILE", quote(str(file)))

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Name a file in the remedies of errors about the pixels of the image: see `with_file`."""
        try:
            yield
        except PixelError as error:
            error.remedy = self.with_file(error.remedy or "", error.band) or None
            raise

    def open(self) -> OpenRaster:
        """Open the files for reading many windows; use the result in a `with` statement.

        Raises:
            RasterError: If a file cannot be read, or the bands cover different ground.
        """
        return OpenRaster(self)

    def read(self, window: Window | None = None) -> Imagery:
        """Return the image, or one window of it: see `OpenRaster.read`."""
        with self.open() as raster:
            return raster.read(window)


@dataclass(frozen=True)
class _Layer:
    """Bands of one file, read together; `ratio` is their pixel size in finest pixels.

    `nodata` holds the nodata value of each band from metadata outside the file; empty if none.
    """

    dataset: DatasetReader
    layout: BandLayout
    ratio: int
    nodata: tuple[float | None, ...] = ()


class OpenRaster(Closing):
    """An image with open files.

    Attributes:
        source: The image that was opened.
        bands: Band names, in stored order.
        unit: Unit of the values that `read` returns: stated, or from the tags of the files.
        grid: The grid of the finest band.
        date: Acquisition time from the product metadata, `YYYY-MM-DDTHH:MM:SS`, or empty.
        notes: Notes for the user, such as bands that were left out.

    Args:
        source: The image to open.
    """

    def __init__(self, source: RasterSource) -> None:
        self.source = source
        self._stack = ExitStack()
        try:
            opened = open_geotiffs(source.names or source.files)
            datasets = [dataset for dataset, _ in opened]
            for dataset in datasets:
                self._stack.callback(dataset.close)
            layouts = _layouts(source, datasets)
            self.bands = tuple(band for layout in layouts for band in layout.bands)
            finest, self.grid = max(opened, key=lambda file: file[1].height * file[1].width)
            self._layers = [
                _layer(dataset, grid, layout, self.grid, source)
                for (dataset, grid), layout in zip(opened, layouts, strict=True)
            ]
            self._scaling = _scaling(source, self._layers)
            self.unit = self._scaling.unit
            check_baseline(datasets[0].tags(), self._scaling, source.files[0])
            self._gsd = _gsd(finest, self.grid) if source.gsd is None else source.gsd
            self.date = date_of(finest)
            mask = source.cloud_mask
            self._clouds = None if mask is None else self.clouds(mask)
        except CPLE_BaseError as error:  # rasterio does not convert every error of GDAL
            self._stack.close()
            raise damaged(source.files[0], error) from error
        except BaseException as error:
            self._stack.close()
            if isinstance(error, RasterError) and error.where is None:
                name_file(error, source.files[0])
            raise
        self.notes = _notes(source, layouts)
        for note in self.notes:
            notice(note)

    @property
    def coarsest(self) -> int:
        """Pixel size of the coarsest band, in finest pixels."""
        return max(layer.ratio for layer in self._layers)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The stored number type of every band."""
        return tuple(
            dtypes[i - 1]
            for layer in self._layers
            for dtypes in (layer.dataset.dtypes,)
            for i in layer.layout.indexes
        )

    def spec(self, window: Window | None = None) -> ImageSpec:
        """Return the specification of the imagery that `read` returns."""
        size = (self.grid.height, self.grid.width)
        if window is not None:
            size = (window.height, window.width)
        return ImageSpec(self.source.sensor, self.bands, self.unit, size, self._gsd)

    def read(self, window: Window | None = None) -> Imagery:
        """Return one image (B = 1) in float32 on the grid of the finest band.

        Coarser bands are resampled bilinearly (`eofm.contract.preprocess.to_grid`), each window
        by itself, exactly like windows of a packed store.

        Args:
            window: On the grid of the finest band. None reads the whole image.

        Raises:
            RasterError: If a file is damaged, or the window does not fit the image.
        """
        return self.on_grid(self.read_native(window), window)

    def on_grid(self, native: NativeImagery, window: Window | None = None) -> Imagery:
        """Resample the result of `read_native` to the finest grid, and attach that grid."""
        grid = self.grid if window is None else self.grid.at(window)
        place, name = grid.georeference, self.source.name
        return replace(to_grid(native), grids=(place,), names=(name,))

    def read_native(self, window: Window | None = None) -> NativeImagery:
        """Return one image (B = 1) with every band at its own resolution.

        Unsigned integers of up to 16 bits are returned as uint16; other types, and values scaled to
        physical units by the tags of the file, as float32. `eofm.contract.validity.measured`
        decides which pixels are valid. Nodata, masked pixels, NaN and infinities become 0. A fine
        pixel is also invalid if a coarser band is invalid where it would be interpolated from.

        Args:
            window: On the grid of the finest band. It is aligned to the pixels of the
                coarsest band. None reads the whole image.

        Raises:
            RasterError: If a file is damaged, or the window does not fit the image.
            PixelError: If the number type cannot hold the unit (digital numbers in 8 bits), or
                scaled values contain an undeclared nodata value.
        """
        window = window or Window(0, 0, self.grid.height, self.grid.width)
        self._check_window(window)
        for dtype in dict.fromkeys(self.dtypes):
            doubt = doubt_of_type(dtype, self.unit)
            if doubt is not None:
                raise refusal([doubt], [self.source.name])
        groups: dict[int, list[_Read]] = {}
        for layer in self._layers:
            gsd = max(1, round(self._gsd)) * layer.ratio
            groups.setdefault(gsd, []).append(_read_layer(layer, window))
        merged = {gsd: _merged(groups[gsd]) for gsd in sorted(groups)}
        physical = {gsd: self._physical(read) for gsd, read in merged.items()}
        valid = self._valid(merged, physical, (window.height, window.width))
        if self.source.saturated is not None:
            valid &= ~_without_value(merged, self.source.saturated, valid)
        if self._clouds is not None:
            valid &= ~torch.from_numpy(self._clouds.read(window))[None]
        for gsd, read in merged.items():
            if read.declared is not None:
                _warn_of_zeros(read)
                physical[gsd][read.declared] = 0
        planes = {gsd: torch.from_numpy(values)[None] for gsd, values in physical.items()}
        bands = {gsd: read.bands for gsd, read in merged.items()}
        native = NativeImagery(planes, bands, self.spec(window), valid)
        if self._scaling.factors:  # the stored values are known only here
            factors = dict(zip(self.bands, self._scaling.factors, strict=True))
            with self.source.naming():
                check_sentinels(native, self.source.name, factors)
        return native

    def _valid(
        self,
        merged: Mapping[int, _Read],
        physical: Mapping[int, NDArray[Any]],
        size: tuple[int, int],
    ) -> torch.Tensor:
        """Return which fine pixels (1, H, W) hold a measurement, judged by the stored values.

        An unmeasured margin is stored as 0, which scale and offset may turn into -0.1. Backscatter
        stored as integers has no unit before scaling, so its physical values are judged instead.
        """
        unit = self._scaling.stored
        planes = {
            gsd: torch.from_numpy(physical[gsd] if unit is None else read.values)[None]
            for gsd, read in merged.items()
        }
        declared = {
            gsd: torch.from_numpy(read.declared)[None]
            for gsd, read in merged.items()
            if read.declared is not None
        }
        bands = {gsd: read.bands for gsd, read in merged.items()}
        return measured(planes, declared, bands, unit or self.unit, size)

    def _physical(self, read: _Read) -> NDArray[Any]:
        """Return the physical values: stored values with scale and offset of the file applied.

        Raises:
            RasterError: If they have been applied already.
        """
        files, scaling = self.source.files, self._scaling
        numbers = [self.bands.index(band) for band in read.bands]
        remedy = f"remove the scale, as in: {without_scale(files[0])}"
        if len(files) > 1:
            remedy += f", and likewise from the other {len(files) - 1} files"
        check_unscaled(read.values, read.declared, scaling, numbers, files[0], remedy)
        return scaling.apply(read.values, numbers)

    @property
    def masks(self) -> tuple[CloudMask, ...]:
        """The available cloud masks: separate files, or bands of the one file."""
        bands = [mask_named(name) for name in self._layers[0].layout.beside]
        found = [*dict(self.source.mask_files), *bands]
        return tuple(dict.fromkeys(mask for mask in found if mask is not None))

    def clouds(self, mask: CloudMask) -> Clouds:
        """Return a cloud mask of the image, readable while the files are open.

        Args:
            mask: A band of the one file, or one of `source.mask_files`.

        Raises:
            RasterError: If there is no such mask, or it does not cover the image.
        """
        file = dict(self.source.mask_files).get(mask)
        if file is not None:
            dataset = open_geotiff(file)
            self._stack.callback(dataset.close)
            return clouds_of_file(mask, dataset, self.grid)
        beside = self._layers[0].layout.beside
        for name, index in beside.items():
            if mask.matches_name(name):
                return Clouds(mask, self._layers[0].dataset, index, self.grid)
        raise RasterError(
            f"the image has no cloud mask {mask}",
            found=f"auxiliary layers: {', '.join(beside) or 'none'}",
            expected=f"a band described as {mask}, or a file named {mask} beside one file per band",
            where=self.source.files[0],
            remedy="name an available mask, or read the image without a cloud mask",
        )

    def _check_window(self, window: Window) -> None:
        step = self.coarsest
        edges = (window.row, window.col, window.height, window.width)
        if any(edge % step for edge in edges):
            raise RasterError(
                "a window must be aligned to the pixels of the coarsest band",
                found=f"row {edges[0]}, column {edges[1]}, {edges[2]} x {edges[3]} pixels",
                expected=f"multiples of {step}",
                where=self.source.name,
                remedy=f"choose sizes and strides divisible by {step}, or leave out coarse bands",
            )
        inside = window.row + window.height <= self.grid.height and window.row >= 0
        inside &= window.col + window.width <= self.grid.width and window.col >= 0
        if not inside or window.height < 1 or window.width < 1:
            raise RasterError(
                "the window is not inside the image",
                found=window,
                expected=f"within {self.grid.height} rows and {self.grid.width} columns",
                where=self.source.name,
            )

    def close(self) -> None:
        """Close the files."""
        self._stack.close()


# ---------------------------------------------------------------------------- opening


def _layouts(source: RasterSource, datasets: Sequence[DatasetReader]) -> list[BandLayout]:
    """Return the band layout of each file, checked against its own metadata."""
    for file, dataset in zip(source.files, datasets, strict=True):
        if delivered_kind(file.name) and "float" not in dataset.dtypes[0]:
            raise as_delivered(file)
    check_product(source.files[0], source.sensor)
    check_level(datasets[0].tags(), source.files[0], source.sensor)
    if len(datasets) == 1:
        return [lay_out(header_of(datasets[0]), source.sensor, source.bands)]
    assert source.bands is not None  # noqa: S101 (RasterSource has checked it)
    for file, dataset, band in zip(source.files, datasets, source.bands, strict=True):
        if dataset.count != 1:
            raise RasterError(
                "a file that is named after one band holds several",
                found=f"{dataset.count} bands",
                expected="1 band",
                where=file,
                remedy="rename multi-band files so that their names do not end in a band",
            )
        header = Header(file, (dataset.descriptions[0] or "",), pages=pages_of(dataset))
        check_band(header, source.sensor, band)
    return [BandLayout((band,), (1,)) for band in source.bands]


def _scaling(source: RasterSource, layers: Sequence[_Layer]) -> TagScaling:
    """Return how the tags of the files scale stored values."""
    pairs, words = [], []
    for file, layer in zip(source.files, layers, strict=True):
        dataset, indexes = layer.dataset, layer.layout.indexes
        of_bands = list(zip(dataset.scales, dataset.offsets, strict=True))
        pairs += [of_bands[i - 1] for i in indexes]
        if source.sensor in _RADAR:
            texts_of_bands = zip(dataset.descriptions, dataset.units, strict=True)
            of_file = words_of_unit(file.stem)
            texts = [f"{name or ''} {unit or ''} {of_file}" for name, unit in texts_of_bands]
            words += [texts[i - 1] for i in indexes]
            check_amplitude(words, file, _squared(file, layer))
    described = described_unit(words) if words else None
    return read_scaling(pairs, source.sensor, source.unit, described, source.files[0])


def _squared(file: Path, layer: _Layer) -> str:
    """Return the remedy for a file of amplitudes."""
    bands, masked = layer.layout.bands, "" if layer.dataset.nodata else " --not-masked"
    lost = f"; this drops the band descriptions, so also state --bands {' '.join(bands)}"
    return (
        f"square them to get backscatter power, and state that unit: rio calc{masked} --dtype "
        f'float32 "(* (read 1) (read 1))" {quote(str(file))} OUT.tif' + lost * (len(bands) > 1)
    )


def _gsd(dataset: DatasetReader, grid: Grid) -> float:
    """Return the ground sampling distance; images in sensor geometry are refused with a remedy."""
    points, _ = dataset.gcps if grid.crs is None else ((), None)
    if not points:
        if grid.crs is None and grid.transform.is_identity and dataset.rpcs is not None:
            raise _unrectified(dataset, dataset.rpcs)
        return grid.gsd
    longitude = sum(point.x for point in points) / len(points)
    latitude = sum(point.y for point in points) / len(points)
    raise RasterError(
        "the image is located by ground control points, not by a grid",
        found=f"{len(points)} ground control points",
        expected="a CRS and a transform",
        remedy="resample it to a grid: "
        + warp_command(quote(dataset.name), utm_of(longitude, latitude), ", resampling=1"),
    )


def _unrectified(dataset: DatasetReader, model: RPC) -> RasterError:
    """Return the error for an image in sensor geometry, located by a camera model only."""
    crs = utm_of(model.long_off, model.lat_off)
    return RasterError(
        "the image is located by rational polynomial coefficients (RPC), not by a grid",
        found="a camera model",
        expected="a CRS and a transform",
        remedy="orthorectify it with an elevation model; or, if pixels may be displaced by the "
        "terrain, on the ellipsoid: "
        + warp_command(quote(dataset.name), crs, ", src_crs='EPSG:4326', resampling=1"),
    )


def _notes(source: RasterSource, layouts: Sequence[BandLayout]) -> tuple[str, ...]:
    """Return one line per band that is left out."""
    clouds = source.cloud_mask
    notes = []
    for layout in layouts:
        for name, index in layout.beside.items():
            if clouds is not None and clouds.matches_name(name):
                use = "read as the cloud mask"
            elif index in layout.masks:
                use = "read as the validity mask"
            else:
                use = use_of(name, source.sensor)
            notes.append(f"{name}: {use}")
    return tuple(notes)


def _layer(
    dataset: DatasetReader, own: Grid, layout: BandLayout, finest: Grid, source: RasterSource
) -> _Layer:
    """Check that a file covers the same ground as the finest band, in whole multiples."""
    ratio, remainder = divmod(finest.height, own.height)
    fits = not remainder and own.width * ratio == finest.width
    fits &= own.crs is finest.crs or own.crs == finest.crs  # usually one object
    if not fits or _shift(own, finest) > source.slack:
        raise RasterError(
            "a band covers a different area than the other bands",
            found=f"{own.height} x {own.width} pixels within {_ground(own)}",
            expected=f"an integer fraction of {finest.height} x {finest.width} pixels within "
            + _ground(finest),
            where=dataset.name,
            remedy="crop all bands to the same extent",
        )
    declared = dict(source.nodata)
    beside = tuple(declared.get(band) for band in layout.bands) if declared else ()
    return _Layer(dataset, layout, ratio, beside)


def _shift(own: Grid, finest: Grid) -> float:
    """Return the largest distance between corners of two grids, in pixels of the first."""
    here, there, ratio = own.transform, finest.transform, finest.width // own.width
    scaled = here.a == there.a * ratio and here.e == there.e * ratio
    if scaled and here.b == here.d == 0 and here.c == there.c and here.f == there.f:
        return 0.0  # the usual case, tested up to thirteen times per image
    inverse = ~own.transform
    furthest = 0.0
    for down in (0, 1):
        for right in (0, 1):
            x, y = finest.point(right * finest.width, down * finest.height)
            col = inverse.a * x + inverse.b * y + inverse.c
            row = inverse.d * x + inverse.e * y + inverse.f
            apart = abs(col - right * own.width), abs(row - down * own.height)
            furthest = max(furthest, *apart)
    return furthest


def _ground(grid: Grid) -> str:
    return f"({', '.join(f'{edge:.10g}' for edge in grid.bounds)}) {grid.crs or 'without CRS'}"


# ---------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _Read:
    """Stored values (c, h, w) of some bands, and where the file declares nodata."""

    bands: tuple[str, ...]
    values: NDArray[Any]
    declared: NDArray[np.bool_] | None


def _read_layer(layer: _Layer, window: Window) -> _Read:
    r, layout = layer.ratio, layer.layout
    place = Window(window.row // r, window.col // r, window.height // r, window.width // r)
    stored = read_stored(layer.dataset, layout.indexes, place, layout.masks, layer.nodata)
    return _Read(layout.bands, *stored)


_FEW: Final = 0.01  # of the pixels: bands end at different places along the edge of a swath


def _warn_of_zeros(read: _Read) -> None:
    """Warn about bands that are nodata (0) where other bands are valid: these zeros are kept."""
    if read.declared is None or len(read.bands) == 1:
        return
    others = ~read.declared.all(axis=0)
    share = (read.declared & (read.values == 0) & others).mean(axis=(1, 2))
    for band in np.array(read.bands)[share > _FEW]:
        notice(
            f"{band}: 0 is the declared nodata, but other bands are valid there; it is read as 0"
        )


def _without_value(merged: Mapping[int, _Read], number: int, like: Tensor) -> Tensor:
    """Return where any band holds a number that is not a measurement, (B, H, W)."""
    hidden = torch.zeros_like(like)
    size = (int(like.shape[1]), int(like.shape[2]))
    for read in merged.values():
        wrong = (read.values == number).any(axis=0)
        if wrong.any():
            hidden |= ~fine_mask(torch.from_numpy(~wrong)[None], size)
    return hidden


def _merged(parts: Sequence[_Read]) -> _Read:
    """Merge bands of one resolution: uint16 if all files are, else float32."""
    bands = tuple(band for part in parts for band in part.bands)
    if len(parts) == 1:
        return parts[0]
    small = all(part.values.dtype == np.uint16 for part in parts)
    kind = np.uint16 if small else np.float32
    values = np.concatenate([part.values.astype(kind, copy=False) for part in parts])
    declared = None
    if any(part.declared is not None for part in parts):
        declared = np.concatenate(
            [
                np.zeros(part.values.shape, np.bool_) if part.declared is None else part.declared
                for part in parts
            ]
        )
    return _Read(bands, values, declared)


# ----------------------------------------------------------------------- plausibility of the pixels

_SAMPLE: Final = 64  # side of the nine sampled windows, in pixels


def find_doubt(raster: OpenRaster, whole: NativeImagery | None = None) -> Doubt | None:
    """Sample nine small windows, and return why the values contradict the stated unit, if so.

    Args:
        raster: The image.
        whole: Result of `raster.read_native()`, if there is one; nothing is read again then.

    Raises:
        RasterError: If a file is damaged.
    """
    unit = raster.unit
    for dtype in raster.dtypes:
        doubt = doubt_of_type(dtype, unit)
        if doubt is not None:
            return doubt
    return doubt_of(_sample(raster, whole), raster.spec())


def _sample(raster: OpenRaster, whole: NativeImagery | None) -> dict[str, Tensor]:
    """Return the measured values of each band in the sampled windows, at its own resolution."""
    step, grid = raster.coarsest, raster.grid
    side = max(step, _SAMPLE // step * step)
    found: dict[str, list[Tensor]] = {band: [] for band in raster.bands}
    for row in _starts(grid.height, side, step):
        for col in _starts(grid.width, side, step):
            window = Window(row, col, min(side, grid.height), min(side, grid.width))
            native = raster.read_native(window) if whole is None else _cut(whole, window)
            for gsd, plane in native.planes.items():
                values = plane[0].float()[:, measured_of(native, gsd)[0]]
                for band, some in zip(native.bands[gsd], values, strict=True):
                    found[band].append(some)
    return {band: torch.cat(parts) for band, parts in found.items()}


def _cut(native: NativeImagery, window: Window) -> NativeImagery:
    """Return a window of an image, aligned to pixels of its coarsest band."""
    rows, cols = (
        slice(start, start + length)
        for start, length in ((window.row, window.height), (window.col, window.width))
    )
    planes = {}
    for gsd, plane in native.planes.items():
        step = native.valid.shape[1] // plane.shape[2]
        coarse = (slice(one.start // step, one.stop // step) for one in (rows, cols))
        planes[gsd] = plane[:, :, *coarse]
    spec = replace(native.spec, size=(window.height, window.width))
    return NativeImagery(planes, native.bands, spec, native.valid[:, rows, cols])


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return sorted({start // step * step for start in (0, last // 2, last)})
