"""Read land-cover maps on the grid of an image: nearest neighbour, one window at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterioWindow

from eofm.errors import LabelError
from eofm.landcover.classes import ClassMap, Scheme
from eofm.raster.geotiff import damaged, grid_of, open_geotiff
from eofm.raster.grid import Grid, Window

# In pixels of the map. GDAL's default, an eighth, moves borders; with 0 rasterio cannot open a VRT.
_TOLERANCE: Final = 1e-3

Bounds = tuple[float, float, float, float]


class LandCoverMap:
    """A land-cover map: one GeoTIFF, or a folder of them.

    Attributes:
        files: The maps, ordered by path.
        scheme: What their codes mean.

    Args:
        path: A GeoTIFF, or a folder with GeoTIFFs in it or in its subfolders.
        scheme: What the codes mean.

    Raises:
        LabelError: If there is no such file or folder, or no map in it.
    """

    def __init__(self, path: str | Path, scheme: Scheme) -> None:
        self.path, self.scheme = Path(path), scheme
        if not self.path.exists():
            raise LabelError("there is no such land-cover map", where=self.path)
        if self.path.is_file():
            self.files = [self.path]
        else:
            tifs = (f for f in self.path.rglob("*") if f.suffix.lower() in {".tif", ".tiff"})
            self.files = sorted(tifs)
        if not self.files:
            raise LabelError("the folder holds no land-cover maps", found="no .tif", where=path)
        self._extents: dict[CRS | None, list[tuple[Path, Bounds]]] | None = None

    @contextmanager
    def over(
        self, grid: Grid, name: str | None = None, *, required: bool = True
    ) -> Iterator[MapOnGrid]:
        """Open the maps that cover an image.

        In a folder it is the map with the image's own name, and where there is none, every map
        that overlaps the image: an earlier one has precedence, a later one fills its nodata.

        Args:
            grid: The image.
            name: The image's name.
            required: Whether it is an error if no map overlaps the image. Otherwise all of it is
                nodata.

        Raises:
            LabelError: If no map overlaps the image though one is required, or a map cannot be
                used.
            RasterError: If the image has no CRS, or a map cannot be read.
        """
        grid.require_crs()
        own = self._named(name)
        files = own or self._overlapping(grid)
        with ExitStack() as stack:
            readers = [MapReader(stack.enter_context(open_geotiff(f)), grid, stack) for f in files]
            readers = [reader for reader in readers if reader.overlaps]
            if required and not readers:
                raise LabelError(
                    "no land-cover map overlaps the image",
                    found=f"{len(own or self.files)} map(s)",
                    expected=f"a map over {_lonlat(grid)}",
                    where=f"{name or 'image'} and {own[0] if own else self.path}",
                    remedy="choose maps of the same place; check the CRS of both",
                )
            yield MapOnGrid(readers, self.scheme)

    def _named(self, name: str | None) -> list[Path]:
        """Return the one map that has an image's name, or nothing."""
        if name is None or self.path.is_file():
            return []
        same = [f for f in self.files if f.stem == PurePosixPath(name).name]
        exact = [f for f in same if f.relative_to(self.path).with_suffix("").as_posix() == name]
        if len(exact or same) > 1:
            raise LabelError(
                "several land-cover maps have the image's name",
                found=", ".join(str(f.relative_to(self.path)) for f in same),
                where=name,
                remedy="give maps and images the same folders and names",
            )
        return exact or same

    def _overlapping(self, grid: Grid) -> list[Path]:
        """Return the maps whose bounding boxes share an area with the image's."""
        if self._extents is None:  # their headers are read once for all images
            self._extents = {}
            for file in self.files:
                with open_geotiff(file) as dataset:
                    own = grid_of(dataset)
                self._extents.setdefault(own.crs, []).append((file, own.bounds))
        found = []
        for crs, maps in self._extents.items():
            box = box_in(grid, crs)
            found += [file for file, bounds in maps if overlap(box, bounds)]
        return sorted(found)


@dataclass(frozen=True)
class MapOnGrid:
    """Open maps, as seen on the grid of an image."""

    readers: Sequence[MapReader]
    scheme: Scheme

    def read(self, window: Window) -> ClassMap:
        """Return the class codes of a window of the image, int32 (h, w).

        What the map declares nodata, and what lies outside it, has the scheme's first nodata code.

        Raises:
            LabelError: If the map declares a class nodata, or its values are not whole numbers.
            RasterError: If a map is damaged.
        """
        codes = np.full((window.height, window.width), self.scheme.nodata[0], np.int32)
        for reader in self.readers:
            empty = np.isin(codes, self.scheme.nodata)
            if not empty.any():
                break
            codes = np.where(empty, reader.read(window, self.scheme), codes)
        return codes


class MapReader:
    """One map on the grid of an image.

    Where the pixels of the two coincide they are read as they are. Elsewhere GDAL warps.

    Attributes:
        overlaps: Whether the bounding boxes of map and image share an area.

    Args:
        dataset: The open map.
        grid: The image.
        stack: Closes what is opened here.

    Raises:
        LabelError: If the map has no CRS, or several bands.
    """

    def __init__(self, dataset: DatasetReader, grid: Grid, stack: ExitStack) -> None:
        if dataset.crs is None or dataset.count != 1:
            raise LabelError(
                "this is not a georeferenced map of one band",
                found=f"{dataset.count} band(s), {dataset.crs or 'no CRS'}",
                where=dataset.name,
                remedy="write the CRS into it, or choose the band that holds the classes",
            )
        own = grid_of(dataset)
        self.overlaps = overlap(box_in(grid, own.crs), own.bounds)
        self._dataset = dataset
        self._nodata: float | None = dataset.nodata
        self._offset = grid.offset_in(own)
        self._warped: WarpedVRT | None = None
        if self._offset is None and self.overlaps:
            # alpha says where the map ends, so no code has to be given up for "outside"
            self._warped = stack.enter_context(
                WarpedVRT(
                    dataset,
                    crs=grid.crs,
                    transform=grid.transform,
                    height=grid.height,
                    width=grid.width,
                    resampling=Resampling.nearest,
                    tolerance=_TOLERANCE,
                    add_alpha=self._nodata is None,
                )
            )

    def read(self, window: Window, scheme: Scheme) -> ClassMap:
        """Return the class codes of a window of the image: see `MapOnGrid.read`."""
        try:
            if self._offset is not None:
                return self._read_direct(window, self._offset, scheme)
            return self._read_warped(window, scheme)
        except RasterioError as error:
            raise damaged(self._dataset.name, error) from error

    def _read_direct(self, window: Window, offset: tuple[int, int], scheme: Scheme) -> ClassMap:
        """Copy the part of the window that lies inside the map."""
        codes = np.full((window.height, window.width), scheme.nodata[0], np.int32)
        top, left = window.row + offset[0], window.col + offset[1]
        first_row, first_col = max(top, 0), max(left, 0)
        last_row = min(top + window.height, self._dataset.height)
        last_col = min(left + window.width, self._dataset.width)
        if first_row < last_row and first_col < last_col:
            place = RasterioWindow(first_col, first_row, last_col - first_col, last_row - first_row)
            values = self._dataset.read(1, window=place)
            inside = np.s_[first_row - top : last_row - top, first_col - left : last_col - left]
            codes[inside] = self._decode(values, inside_of(self._dataset, place), scheme)
        return codes

    def _read_warped(self, window: Window, scheme: Scheme) -> ClassMap:
        assert self._warped is not None  # noqa: S101 (readers without overlap are left out)
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        values = self._warped.read(1, window=place)
        inside = np.ones(values.shape, np.bool_)
        if self._nodata is None:
            inside = self._warped.read(2, window=place) > 0
        return self._decode(values, inside, scheme)

    def _decode(
        self, values: NDArray[np.generic], inside: NDArray[np.bool_], scheme: Scheme
    ) -> ClassMap:
        return decode(values, inside, scheme, self._nodata, self._dataset.name)


def inside_of(dataset: DatasetReader, place: RasterioWindow) -> NDArray[np.bool_]:
    """Return which pixels of a window of a map its mask lets through, all where it has none."""
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        return np.asarray(dataset.dataset_mask(window=place) > 0)
    return np.ones((place.height, place.width), np.bool_)


def check_nodata(nodata: float | None, scheme: Scheme, where: object) -> None:
    """Check the value that a map declares nodata.

    Raises:
        LabelError: If the scheme knows it as a class.
    """
    if nodata is not None and nodata in scheme.classes:
        raise LabelError(
            "the map declares nodata what the scheme knows as a class",
            found=f"nodata {nodata:g}: {scheme.classes[int(nodata)]}",
            expected=f"another nodata value, as {scheme.nodata[0]}",
            where=where,
            remedy="export the map with that value, or remove the declaration if there is no "
            "nodata in it: rio edit-info --unset-nodata FILE",
        )


def decode(
    values: NDArray[np.generic],
    inside: NDArray[np.bool_],
    scheme: Scheme,
    nodata: float | None,
    where: object,
) -> ClassMap:
    """Return the values of a map as codes, with the scheme's nodata where the map has its own.

    Args:
        values: As stored.
        inside: Which of them hold a value at all.
        scheme: What the codes mean.
        nodata: The value that the map declares nodata.
        where: The map, for the message of an error.

    Raises:
        LabelError: If the map declares a class nodata, or its values are not whole numbers.
    """
    check_nodata(nodata, scheme, where)
    if values.dtype.kind == "f":
        inside = inside & ~np.isnan(values)
        if not np.array_equal(values[inside], np.rint(values[inside])):
            raise LabelError(
                "the values of the map are not class codes",
                found="numbers that are not whole",
                where=where,
                remedy="choose a map of classes, one code per pixel",
            )
    if nodata is not None and not math.isnan(nodata):
        inside = inside & (values != nodata)
    return np.where(inside, values, scheme.nodata[0]).astype(np.int32)


@lru_cache(maxsize=64)  # maps are chosen by it, and then read
def box_in(image: Grid, crs: CRS | None) -> Bounds | None:
    """Return the bounding box of an image in the CRS of a map; None if it is nowhere in it."""
    if crs is None:
        return image.bounds  # an error later on, which names the map
    try:
        box: Bounds = transform_bounds(image.crs, crs, *image.bounds)
    except RasterioError:
        return None  # the image lies outside the projection of the map
    return box


def overlap(box: Bounds | None, other: Bounds) -> bool:
    """Return whether two bounding boxes share an area; None lies nowhere.

    Args:
        box: As `box_in` gives it: over the 180th meridian its left edge is right of its right one.
        other: The box of a map.
    """
    if box is None:
        return False
    left, bottom, right, top = box
    if left <= right:
        across = left < other[2] and other[0] < right
    else:
        across = left < other[2] or other[0] < right
    return across and bottom < other[3] and other[1] < top


def _lonlat(grid: Grid) -> str:
    longitude, latitude = grid.centre()
    return f"longitude {longitude:.4f}, latitude {latitude:.4f}"
