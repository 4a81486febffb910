"""From GeoTIFFs to pixels that know what they are.

An image is one multi-band file, or one file per band at 10, 20 and 60 m. Either way it is read
whole or by window, as `NativeImagery` (as stored) or `Imagery` (float32 on the finest grid), with
a mask of the pixels that hold a measurement. Nothing is guessed: sensor and unit are stated, and
bands have names: the file's own descriptions, the names of the files, or what the user states.
`eofm.raster.folder` finds the images of a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from eofm.contract.imagery import Imagery, NativeImagery
from eofm.contract.preprocess import to_grid
from eofm.contract.sensors import SENSOR_BANDS, canonical_band, canonical_bands
from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.contract.validity import fine_mask
from eofm.errors import RasterError, SpecError
from eofm.raster.geotiff import date_of, open_geotiffs, read_valid
from eofm.raster.grid import Grid, Window


@dataclass(frozen=True)
class RasterSource:
    """Where the pixels of one image are, and what they are stated to be.

    Args:
        name: What the image is called, in identifiers and messages.
        files: One multi-band file, or one file per band in the order of `bands`.
        sensor: Sensor and product level.
        unit: Unit of the values in the files.
        bands: Band names in stored order. None, for one multi-band file: as its band descriptions
            say, and where it has none, the order of `eofm.contract.sensors.SENSOR_BANDS`.
        gsd: Metres per pixel of the finest band. None takes it from the georeference.
        slack: By how many of its own pixels a band's corners may lie beside those of the others.

    Raises:
        SpecError: If a band is not one of the sensor's, or is there twice.
        RasterError: If there is neither one file nor one per band.
    """

    name: str
    files: tuple[Path, ...]
    sensor: Sensor
    unit: Unit
    bands: tuple[str, ...] | None = None
    gsd: float | None = None
    slack: float = 0.01

    def __post_init__(self) -> None:
        if self.bands is not None:
            object.__setattr__(self, "bands", canonical_bands(self.bands, self.sensor))
        if len(self.files) != 1 and len(self.files) != len(self.bands or ()):
            raise RasterError(
                "an image is one file, or one file per band",
                found=f"{len(self.files)} files, {len(self.bands or ())} bands",
                where=self.name,
            )

    def open(self) -> OpenRaster:
        """Open the files, to read many windows. Use it in a `with` statement.

        Raises:
            RasterError: If a file cannot be read, or the bands do not fit together.
        """
        return OpenRaster(self)

    def read(self, window: Window | None = None) -> Imagery:
        """Return the image, or one window of it: see `OpenRaster.read`."""
        with self.open() as raster:
            return raster.read(window)


@dataclass(frozen=True)
class _Layer:
    """Bands of one file that are read together. `ratio` finest pixels make one of theirs."""

    dataset: DatasetReader
    indexes: tuple[int, ...]
    bands: tuple[str, ...]
    ratio: int


class OpenRaster:
    """An image whose files are open.

    Attributes:
        source: Where it was opened from.
        bands: Band names, in stored order.
        grid: The grid of the finest band.
        date: When it was taken as the file says it, `YYYY-MM-DDTHH:MM:SS`, or empty.

    Args:
        source: What to open.
    """

    def __init__(self, source: RasterSource) -> None:
        self.source = source
        self._stack = ExitStack()
        try:
            opened = open_geotiffs(source.files)
            datasets = [dataset for dataset, _ in opened]
            for dataset in datasets:
                self._stack.callback(dataset.close)
            self.bands = _band_names(source, datasets)
            per_file = [self.bands] if len(datasets) == 1 else [(b,) for b in self.bands]
            finest, self.grid = max(opened, key=lambda file: file[1].height * file[1].width)
            self._layers = [
                _layer(dataset, grid, bands, self.grid, source.slack)
                for (dataset, grid), bands in zip(opened, per_file, strict=True)
            ]
            self._gsd = self.grid.gsd if source.gsd is None else source.gsd
            self.date = date_of(finest)
        except BaseException as error:
            self._stack.close()
            if isinstance(error, RasterError) and error.where is None:
                error.where = source.files[0]
            raise

    @property
    def coarsest(self) -> int:
        """How many finest pixels, in each direction, make a pixel of the coarsest band."""
        return max(layer.ratio for layer in self._layers)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The number type of every band, as stored."""
        return tuple(layer.dataset.dtypes[i - 1] for layer in self._layers for i in layer.indexes)

    def spec(self, window: Window | None = None) -> ImageSpec:
        """Return what `read` will say of its pixels."""
        size = (self.grid.height, self.grid.width)
        if window is not None:
            size = (window.height, window.width)
        return ImageSpec(self.source.sensor, self.bands, self.source.unit, size, self._gsd)

    def read(self, window: Window | None = None) -> Imagery:
        """Return one image (B = 1) in float32 on the grid of the finest band.

        Coarser bands are brought to that grid bilinearly (`eofm.contract.preprocess.to_grid`), each
        window by itself, exactly as windows from a packed store are.

        Args:
            window: On the grid of the finest band. None reads the image whole.

        Raises:
            RasterError: If a file is damaged, or the window does not fit the image.
        """
        return to_grid(self.read_native(window))

    def read_native(self, window: Window | None = None) -> NativeImagery:
        """Return one image (B = 1) with every band at its own resolution.

        Unsigned integers up to 16 bit stay what they are (uint16), all else becomes float32.
        Invalid is what is declared nodata or masked in the file, NaN and infinity (the dB of no
        backscatter); such values are 0 in the result. Where a coarser band is invalid, so is
        every fine pixel that its upsampling would draw from it.

        Args:
            window: On the grid of the finest band. It starts and ends between pixels of the
                coarsest band. None reads the image whole.

        Raises:
            RasterError: If a file is damaged, or the window does not fit the image.
        """
        window = window or Window(0, 0, self.grid.height, self.grid.width)
        self._check_window(window)
        groups: dict[int, list[tuple[tuple[str, ...], NDArray[Any]]]] = {}
        valid = torch.ones(window.height, window.width, dtype=torch.bool)
        for layer in self._layers:
            values, mask = _read_layer(layer, window)
            if not mask.all():
                size = (window.height, window.width)
                valid &= fine_mask(torch.from_numpy(mask)[None], size)[0]
            groups.setdefault(max(1, round(self._gsd)) * layer.ratio, []).append(
                (layer.bands, values)
            )
        planes = {g: _plane([values for _, values in groups[g]]) for g in sorted(groups)}
        bands = {g: sum((names for names, _ in groups[g]), ()) for g in sorted(groups)}
        return NativeImagery(planes, bands, self.spec(window), valid[None])

    def _check_window(self, window: Window) -> None:
        step = self.coarsest
        edges = (window.row, window.col, window.height, window.width)
        if any(edge % step for edge in edges):
            raise RasterError(
                "a window must start and end between pixels of the coarsest band",
                found=f"row {edges[0]}, column {edges[1]}, {edges[2]} x {edges[3]} pixels",
                expected=f"multiples of {step}",
                where=self.source.name,
                remedy=f"choose sizes and strides that {step} divides, or leave coarse bands out",
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# ---------------------------------------------------------------------------- opening


def _band_names(source: RasterSource, datasets: Sequence[DatasetReader]) -> tuple[str, ...]:
    if len(datasets) > 1:
        for file, dataset in zip(source.files, datasets, strict=True):
            if dataset.count != 1:
                raise RasterError(
                    "a file named like one band holds several",
                    found=f"{dataset.count} bands",
                    expected="1 band",
                    where=file,
                    remedy="rename multi-band files so that their names do not end in a band",
                )
        assert source.bands is not None  # noqa: S101 (RasterSource has checked it)
        return source.bands
    described = _described(datasets[0].descriptions)
    bands = source.bands or described or SENSOR_BANDS[source.sensor]
    if len(bands) != datasets[0].count:
        raise RasterError(
            "the file has another number of bands than stated",
            found=f"{datasets[0].count} bands",
            expected=f"{len(bands)}: {' '.join(bands)}",
            where=source.files[0],
            remedy="state the bands of the file in stored order, as in --bands [B02,B03,B04,B08]",
        )
    if described is not None and described != bands:
        raise RasterError(
            "the file describes its bands otherwise than stated",
            found=" ".join(described),
            expected=" ".join(bands),
            where=source.files[0],
            remedy="leave --bands out to trust the file, or correct its band descriptions",
        )
    return canonical_bands(bands, source.sensor)


def _described(descriptions: Sequence[str | None]) -> tuple[str, ...] | None:
    """Return the bands a file names in its descriptions, if every one of them is a band."""
    try:
        return tuple(canonical_band(text or "") for text in descriptions)
    except SpecError:
        return None


def _layer(
    dataset: DatasetReader, own: Grid, bands: tuple[str, ...], finest: Grid, slack: float
) -> _Layer:
    """Check that a file covers the same ground as the finest band, in whole multiples."""
    ratio, remainder = divmod(finest.height, own.height)
    fits = not remainder and own.width * ratio == finest.width and own.crs == finest.crs
    if not fits or _shift(own, finest) > slack:
        raise RasterError(
            "a band covers other ground than its neighbours",
            found=f"{own.height} x {own.width} pixels within {_ground(own)}",
            expected=f"a whole fraction of {finest.height} x {finest.width} pixels within "
            + _ground(finest),
            where=dataset.name,
            remedy="cut all bands to the same extent",
        )
    return _Layer(dataset, tuple(range(1, len(bands) + 1)), bands, ratio)


def _shift(own: Grid, finest: Grid) -> float:
    """Return how far the corners of two grids lie apart along x or y, in pixels of the first."""
    here, there, ratio = own.transform, finest.transform, finest.width // own.width
    if here[:6] == (there.a * ratio, 0, there.c, 0, there.e * ratio, there.f):
        return 0.0  # as in most sets, and found out thirteen times an image
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


def _read_layer(layer: _Layer, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    r = layer.ratio
    place = Window(window.row // r, window.col // r, window.height // r, window.width // r)
    return read_valid(layer.dataset, layer.indexes, place)


def _plane(layers: Sequence[NDArray[Any]]) -> torch.Tensor:
    """Return (1, c, h, w): uint16 where the files hold unsigned integers, else float32."""
    small = all(values.dtype == np.uint16 for values in layers)
    parts = [values.astype(np.uint16 if small else np.float32, copy=False) for values in layers]
    return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))[None]
