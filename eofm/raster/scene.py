"""A scene: one georeferenced acquisition, described before any pixel is read.

`eofm.raster.opening.open_scene` makes it from files, URLs or arrays. A scene is a description: it
holds no open file, can be sent to other processes, and is read whole, by window or by area.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, Sensor, Unit, canonical_bands
from eofm.errors import RasterError, SpecError
from eofm.io import Closing
from eofm.raster.cube import (
    Cube,
    CubeClouds,
    band_layers,
    cloud_masks,
    grid_of_array,
    gsd_of,
    image_of,
)
from eofm.raster.cube_file import CubeFile
from eofm.raster.geotiff import open_geotiff
from eofm.raster.grid import Grid, Window, corners, crs_text
from eofm.raster.ground import LONGITUDE_LATITUDE, Area, cut_out
from eofm.raster.source import OpenRaster, RasterSource
from eofm.raster.tags import CloudMask, Clouds, clouds_of_file

__all__ = [
    "CloudLayer",
    "OpenScene",
    "Scene",
    "reached",
    "scene_of",
    "scene_of_cube",
    "shown",
]

# A server that does not answer is an error after seconds; a busy one is asked again.
_REMOTE: Final[Mapping[str, str]] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "VSI_CACHE": "TRUE",
}
_KEY: Final = re.compile(r"\?[^\s'\"]*")
_ON_THE_NET: Final = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift")


@dataclass(frozen=True)
class CloudLayer:
    """A cloud mask that covers the area of its scene.

    Args:
        mask: Kind of mask.
        name: Path or GDAL name of its file; empty for a band or variable of the scene itself.
    """

    mask: CloudMask
    name: str = ""


@dataclass(frozen=True, repr=False)
class Scene:
    """One acquisition: the meaning, georeference and date of its pixels.

    Args:
        name: Name of the product, item or file.
        sensor: Sensor and product level.
        unit: Unit of the values.
        bands: Canonical names, in the order of the pixels.
        grid: Grid of the finest band.
        gsd: Ground sample distance of the finest band in metres.
        step: Pixel size of the coarsest band in finest pixels. Windows start and end at multiples
            of it.
        pixels: Source of the pixels.
        date: Acquisition time, `YYYY-MM-DDTHH:MM:SS` in UTC; empty if unknown.
        footprint: Ring of (longitude, latitude). Without metadata, the corners of the grid; empty
            without a georeference.
        origin: The file or object that was opened, and the origin of unit and sensor.
        clouds: Cloud masks, in separate files or in bands of the scene.
    """

    name: str
    sensor: Sensor
    unit: Unit
    bands: tuple[str, ...]
    grid: Grid
    gsd: float
    step: int
    pixels: RasterSource | CubeFile = field(repr=False)
    date: str = ""
    footprint: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    origin: str = ""
    clouds: tuple[CloudLayer, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        taken = f", taken {self.date}" if self.date else ""
        crs = "no CRS" if self.grid.crs is None else crs_text(self.grid.crs)
        named = crs.split('"')[1] if '"' in crs else crs
        return f"Scene({self.name}: {self.spec}, {named}{taken})"

    @property
    def spec(self) -> ImageSpec:
        """The spec of the imagery that `read` returns for the whole scene."""
        size = (self.grid.height, self.grid.width)
        return ImageSpec(self.sensor, self.bands, self.unit, size, self.gsd)

    def describe(self) -> str:
        """Return the metadata of the scene, one item per line."""
        left, bottom, right, top = self.grid.bounds
        lines = {
            "scene": self.name,
            "pixels": str(self.spec),
            "taken": self.date or "unknown",
            "place": f"{left:.10g}, {bottom:.10g}, {right:.10g}, {top:.10g} in "
            f"{self.grid.crs or 'no CRS'}",
            "windows": f"multiples of {self.step} pixels",
            "clouds": ", ".join(layer.mask for layer in self.clouds) or "no mask",
            "origin": self.origin,
        }
        return "\n".join(f"{name:8} {text}" for name, text in lines.items())

    def select(self, bands: Sequence[str]) -> Scene:
        """Return the scene with some of its bands; its grid is that of the finest of them.

        Args:
            bands: Band names in the order wanted.

        Raises:
            SpecError: If the scene lacks a band.
            RasterError: If a file cannot be read.
        """
        wanted = canonical_bands(bands, self.sensor)
        missing = [band for band in wanted if band not in self.bands]
        if missing:
            raise SpecError(
                f"the scene has no band {', '.join(missing)}",
                found=" ".join(self.bands),
                expected=" ".join(wanted),
                where=self.name,
            )
        source = self.pixels
        if not isinstance(source, RasterSource) or len(source.files) == 1:
            return replace(self, bands=wanted)
        assert source.bands is not None  # noqa: S101 (there is one file for each)
        index = [source.bands.index(band) for band in wanted]
        names = tuple(source.names[i] for i in index) if source.names else ()
        files = tuple(source.files[i] for i in index)
        return scene_of(
            replace(source, files=files, names=names, bands=wanted, gsd=None),
            date=self.date,
            footprint=self.footprint,
            origin=self.origin,
            clouds=self.clouds,
        )

    def open(self) -> OpenScene:
        """Open the files, to read many windows. Use it in a `with` statement.

        Raises:
            RasterError: If a file cannot be read.
        """
        return OpenScene(self)

    def read(
        self,
        window: Window | tuple[int, int, int, int] | None = None,
        *,
        bands: Sequence[str] | None = None,
        where: Area | None = None,
        where_crs: str = LONGITUDE_LATITUDE,
        cloud_mask: CloudMask | str | None = None,
    ) -> Imagery:
        """Return the scene, or a part of it, as one image (B = 1) on the grid of its finest band.

        Args:
            window: First row, first column, height and width on that grid, multiples of `step`.
            bands: Band names; the window is then on the grid of the finest of them.
            where: An area: west, south, east, north; or GeoJSON, outside of which pixels are
                invalid. Pixels that the edge of a box touches are included.
            where_crs: CRS of the area.
            cloud_mask: One of `scene.clouds`, whose cloudy pixels become invalid.

        Raises:
            RasterError: If a file is damaged, or window or area are outside the scene.
            SpecError: If there is no such band or cloud mask, or both a window and an area.
        """
        if bands is not None:
            chosen = self.select(bands)
            return chosen.read(window, where=where, where_crs=where_crs, cloud_mask=cloud_mask)
        if window is not None and where is not None:
            raise SpecError("give a window or an area, not both", found=f"{window} and {where}")
        inside = None
        if where is not None:
            cut = cut_out(self.grid, self.step, where, where_crs)
            window, inside = cut.window, cut.inside
        elif window is not None and not isinstance(window, Window):
            window = Window.of(window)
        mask = None if cloud_mask is None else CloudMask.parse(cloud_mask)
        with self.open() as opened:
            imagery = opened.read(window, mask)
        if inside is None:
            return imagery
        return replace(imagery, valid=imagery.valid & torch.from_numpy(inside)[None])


def scene_of(
    source: RasterSource,
    *,
    date: str = "",
    footprint: tuple[tuple[float, float], ...] = (),
    origin: str = "",
    clouds: tuple[CloudLayer, ...] = (),
) -> Scene:
    """Return the scene of raster files, after reading their headers.

    Args:
        source: The files.
        date: See `Scene`; by default that of the file.
        footprint: See `Scene`; by default the corners of the grid.
        origin: See `Scene`.
        clouds: See `Scene`.

    Raises:
        RasterError: If a file cannot be read, or the bands do not fit together.
    """
    with _opened(source) as raster:
        return Scene(
            source.name,
            source.sensor,
            raster.unit,
            raster.bands,
            raster.grid,
            raster.spec().gsd,
            raster.coarsest,
            source,
            date or raster.date,
            footprint or corners(raster.grid),
            origin or shown(source.names[0] if source.names else str(source.files[0])),
            clouds or _masks_of(raster),
        )


def _masks_of(raster: OpenRaster) -> tuple[CloudLayer, ...]:
    """Return the cloud masks beside the bands of an image, and in its file."""
    files = dict(raster.source.mask_files)
    return tuple(CloudLayer(m, str(files[m]) if m in files else "") for m in raster.masks)


def scene_of_cube(cube: CubeFile, name: str, sensor: Sensor, unit: Unit | None) -> Scene:
    """Return the scene of an array.

    Args:
        cube: The array, or its file.
        name: Name of the scene.
        sensor: Sensor and product level.
        unit: Unit of the values; None derives it from scale and offset of the array.

    Raises:
        RasterError: If the array cannot be opened, or is not an image.
        SpecError: If it contradicts the statement.
    """
    with cube.open() as array:
        layers = band_layers(array, sensor)  # refuses other dimensions
        one = array.isel(y=slice(0, 2), x=slice(0, 2))
        first = image_of(one, sensor, unit, gsd=cube.gsd)
        grid = grid_of_array(next(iter(layers.values())), cube.gsd)
        gsd = first.spec.gsd if cube.gsd is not None or grid.crs is None else gsd_of(grid)
        masks = tuple(map(CloudLayer, cloud_masks(array)))
    return Scene(
        name,
        sensor,
        first.spec.unit,
        first.spec.bands,
        grid,
        gsd,
        1,
        cube,
        cube.date,
        corners(grid),
        cube.origin,
        clouds=masks,
    )


def shown(name: str) -> str:
    """Return a name without the query, in which signed URLs carry a key."""
    return name.partition("?")[0]


# ---------------------------------------------------------------------------- reading


class OpenScene(Closing):
    """A scene whose files are open.

    Args:
        scene: The scene to open.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._stack = ExitStack()
        self._masks: dict[CloudMask, Clouds | CubeClouds] = {}
        try:
            self._pixels: OpenRaster | Cube = self._stack.enter_context(
                _opened(scene.pixels)
                if isinstance(scene.pixels, RasterSource)
                else scene.pixels.open()
            )
        except BaseException:
            self._stack.close()
            raise

    def read(self, window: Window | None = None, clouds: CloudMask | None = None) -> Imagery:
        """Return a window as one image (B = 1); see `Scene.read`.

        Raises:
            RasterError: If a file is damaged, or the window is outside the scene.
            SpecError: If the scene has no such cloud mask.
        """
        scene = self.scene
        whole = window or Window(0, 0, scene.grid.height, scene.grid.width)
        if isinstance(self._pixels, OpenRaster):
            with reached(*_names(scene.pixels)):
                native = self._pixels.read_native(whole)
            imagery = self._pixels.on_grid(native, whole)
        else:
            imagery = _read_cube(self._pixels, scene, whole)
        if imagery.spec.bands != scene.bands:
            imagery = imagery.select(scene.bands)
        if clouds is None:
            return imagery
        hidden_here = torch.from_numpy(self.clouded(clouds, whole))
        return replace(imagery, valid=imagery.valid & ~hidden_here[None])

    def clouded(self, clouds: CloudMask, window: Window) -> NDArray[np.bool_]:
        """Return where a window of the finest grid is cloudy, (h, w).

        Args:
            clouds: One of `scene.clouds`.
            window: Window on the grid of the finest band.

        Raises:
            RasterError: If the mask is damaged, or the single file has no such band.
            SpecError: If the scene has no such cloud mask.
        """
        layer = next((layer for layer in self.scene.clouds if layer.mask is clouds), None)
        apart = layer.name if layer is not None else ""
        with reached(*((apart,) if apart else _names(self.scene.pixels))):
            if clouds not in self._masks:
                self._masks[clouds] = self._open_mask(clouds, layer)
            return self._masks[clouds].read(window)

    def _open_mask(self, clouds: CloudMask, layer: CloudLayer | None) -> Clouds | CubeClouds:
        pixels = self._pixels
        if isinstance(pixels, OpenRaster) and len(pixels.source.files) == 1 and not layer:
            return pixels.clouds(clouds)  # raises an error that lists the layers of the file
        if layer is None:
            there = [str(layer.mask) for layer in self.scene.clouds]
            other = f'name an available mask, as in cloud_mask="{there[0]}", or ' if there else ""
            raise SpecError(
                f"the scene has no cloud mask {clouds}",
                found=", ".join(there) or "none",
                expected=f"a band named {clouds}, or a file {clouds} beside one file per band",
                where=self.scene.name,
                remedy=f"{other}read the scene without a cloud mask",
            )
        if layer.name:
            file = open_geotiff(layer.name if layer.name.startswith("/vsi") else Path(layer.name))
            self._stack.callback(file.close)
            return clouds_of_file(clouds, file, self.scene.grid)
        if isinstance(pixels, OpenRaster):
            return pixels.clouds(clouds)
        return CubeClouds(clouds, pixels)

    def close(self) -> None:
        """Close the files."""
        self._stack.close()


def _read_cube(array: Cube, scene: Scene, window: Window) -> Imagery:
    grid = scene.grid
    if (
        window.row < 0
        or window.col < 0
        or window.row + window.height > grid.height
        or window.col + window.width > grid.width
        or min(window.height, window.width) < 1
    ):
        raise RasterError(
            "the window is not inside the image",
            found=window,
            expected=f"within {grid.height} rows and {grid.width} columns",
            where=scene.name,
        )
    rows, columns = window.slices
    part = array.isel(y=rows, x=columns)
    imagery = image_of(part, scene.sensor, scene.unit, gsd=scene.gsd)
    return replace(imagery, grids=(grid.at(window).georeference,), names=(scene.name,))


@contextmanager
def _opened(source: RasterSource) -> Iterator[OpenRaster]:
    with ExitStack() as stack:
        with reached(*_names(source)):
            raster = stack.enter_context(source.open())
        yield raster


def _names(source: RasterSource | CubeFile) -> tuple[str, ...]:
    return source.names if isinstance(source, RasterSource) else ()


@contextmanager
def reached(*names: str) -> Iterator[None]:
    """Configure GDAL to open or read files, any of which may be remote.

    GDAL options for servers are set if a file is remote, unless the user has set them.

    Args:
        names: GDAL names of the files.

    Raises:
        RasterError: If a URL cannot be read. The message omits a key in the URL.
    """
    # also in a zip, /vsizip//vsicurl/..., and as one of several images, GTIFF_DIR:1:/vsicurl/...
    if not any(system in name for name in names for system in _ON_THE_NET):
        yield
        return
    asked = {key: text for key, text in _REMOTE.items() if key not in os.environ}
    with rasterio.Env(**asked), _readable():
        yield


@contextmanager
def _readable() -> Iterator[None]:
    """Turn errors about damaged files into errors about unreadable URLs."""
    try:
        yield
    except RasterError as error:
        error.where = shown(str(error.where))
        if isinstance(error.found, str):
            error.found = _KEY.sub("", error.found)  # messages of GDAL may contain the name
        if not isinstance(error.__cause__, (RasterioError, EOFError)):
            raise
        raise RasterError(
            "the URL cannot be read",
            found=error.found,
            expected="a raster on a server that supports range requests",
            where=error.where,
            remedy="check the URL, the network, and whether the server requires credentials "
            "(which GDAL takes from the environment)",
        ) from error
