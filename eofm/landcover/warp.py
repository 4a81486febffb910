"""Read a land-cover map: its codes, on its own grid or on that of an image.

Each pixel of an image takes the code under its centre (nearest neighbour). Where the pixels of map
and image coincide they are copied; elsewhere GDAL warps. A map in degrees is looked up on both
sides of the 180th meridian.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Final, TypeAlias

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterioWindow

from eofm.errors import LabelError, RasterError
from eofm.landcover.multilabel import ClassMap
from eofm.landcover.schemes import Scheme
from eofm.raster.geotiff import damaged, grid_of, open_geotiff
from eofm.raster.grid import Grid, Window

# In pixels of the map. GDAL's default, an eighth, moves borders; with 0 rasterio cannot open a VRT.
_TOLERANCE: Final = 1e-3
_OPEN_MAPS: Final = 16
_TURN: Final = 360.0

Bounds = tuple[float, float, float, float]


# --------------------------------------------------------------------------------- open maps


@contextmanager
def opened(file: Path) -> Iterator[DatasetReader]:
    """Lend an open map, to one thread at a time: GDAL's datasets are for no more.

    A process keeps the last few open, with the blocks that GDAL holds of them. What is lent again
    is what was given back last.

    Raises:
        LabelError: If it has several bands, or no CRS.
        RasterError: If it is missing or cannot be read.
    """
    try:
        state = file.stat()
    except OSError as error:
        raise RasterError("there is no such map", found=error.strerror, where=file) from error
    key = (file, state.st_mtime_ns, state.st_size)
    idle = _take(key)
    dataset = _open(file) if idle is None else idle
    try:
        yield dataset
    finally:
        _give_back(key, dataset)


_Key: TypeAlias = tuple[Path, int, int]
_idle: deque[tuple[_Key, DatasetReader]] = deque()
_idle_lock: Final = Lock()


def _take(key: _Key) -> DatasetReader | None:
    with _idle_lock:
        for entry in reversed(_idle):
            if entry[0] == key:
                _idle.remove(entry)
                return entry[1]
    return None


def _give_back(key: _Key, dataset: DatasetReader) -> None:
    with _idle_lock:
        _idle.append((key, dataset))
        if len(_idle) > _OPEN_MAPS:
            _idle.popleft()[1].close()


def _open(file: Path) -> DatasetReader:
    if file.suffix.lower() in {".tif", ".tiff"}:
        dataset = open_geotiff(file)
    else:  # a VRT, or what else GDAL reads
        try:
            dataset = rasterio.open(file)
        except RasterioError as error:
            raise damaged(file, error) from error
    if dataset.crs is None or dataset.count != 1:
        found = f"{dataset.count} band(s), {dataset.crs or 'no CRS'}"
        dataset.close()
        raise LabelError(
            "this is not a georeferenced map of one band",
            found=found,
            where=file,
            remedy="write the CRS into it, as in: rio edit-info --crs EPSG:32632 FILE; or choose "
            "the band that holds the classes",
        )
    return dataset


# ------------------------------------------------------------------------------------- codes


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
        scheme: Meaning of the codes.
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


def fill(codes: ClassMap, more: ClassMap, scheme: Scheme) -> bool:
    """Fill the nodata of a class map from another of the same grid; return whether any was.

    Args:
        codes: Codes of the map that has precedence; changed in place.
        more: Codes of the other map.
        scheme: Meaning of the codes.
    """
    fresh = np.zeros(codes.shape, np.bool_)
    for code in scheme.nodata:  # a few codes: np.isin takes ten times as long
        fresh |= codes == code
    for code in scheme.nodata:
        fresh &= more != code
    codes[fresh] = more[fresh]
    return bool(fresh.any())


# ---------------------------------------------------------------------------- on an image's grid


class MapReader:
    """A raster map on the grid of an image.

    Args:
        dataset: The open map.
        grid: The image.
        stack: Closes what is opened here.
    """

    def __init__(self, dataset: DatasetReader, grid: Grid, stack: ExitStack) -> None:
        own = grid_of(dataset)
        turns = turns_of(own, grid)
        self._sides = [_Side(dataset, own, grid, turn, stack) for turn in turns]

    def read(self, window: Window, scheme: Scheme) -> ClassMap:
        """Return the class codes of a window of the image, int32 (h, w).

        What the map declares nodata, and what lies outside it, has the scheme's first nodata code.

        Raises:
            LabelError: If the map declares a class nodata, or its values are not whole numbers.
            RasterError: If the map is damaged.
        """
        codes, *others = (side.read(window, scheme) for side in self._sides)
        for more in others:
            fill(codes, more, scheme)
        return codes


class _Side:
    """A map on the grid of an image, after a whole turn where they meet at the 180th meridian."""

    def __init__(
        self, dataset: DatasetReader, own: Grid, grid: Grid, turn: float, stack: ExitStack
    ) -> None:
        t = own.transform
        moved = Affine(t.a, t.b, t.c + turn, t.d, t.e, t.f)
        self._dataset, self._nodata = dataset, dataset.nodata
        self._offset = grid.offset_in(Grid(own.crs, moved, own.height, own.width))
        self._warped: WarpedVRT | None = None
        if self._offset is None:
            # alpha says where the map ends, so no code has to be given up for "outside"
            self._warped = stack.enter_context(
                WarpedVRT(
                    dataset,
                    src_crs=dataset.crs if turn else None,
                    src_transform=moved if turn else None,
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
        """Return the class codes of a window of the image."""
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
        assert self._warped is not None  # noqa: S101 (there is a VRT where there is no offset)
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


# ------------------------------------------------------------------------------------ boxes


@lru_cache(maxsize=64)  # maps are chosen by it, and then read
def box_in(image: Grid, crs: CRS) -> Bounds | None:
    """Return the bounding box of an image in the CRS of a map; None if it is nowhere in it.

    In degrees the right edge is never west of the left one: over the 180th meridian it lies
    beyond 180.
    """
    try:
        left, bottom, right, top = transform_bounds(image.require_crs(), crs, *image.bounds)
    except RasterioError:
        return None  # the image lies outside the projection of the map
    if not all(map(math.isfinite, (left, bottom, right, top))):
        return None
    if left > right and crs.is_geographic:
        right += _TURN
    return left, bottom, right, top


def turns_of(own: Grid, grid: Grid) -> Sequence[float]:
    """Return by how many degrees a map has to be moved east to lie under an image."""
    crs = own.require_crs()
    box = box_in(grid, crs)
    if not crs.is_geographic or box is None:
        return (0.0,)
    within = all(-180 <= edge <= 180 for edge in (*box[::2], *own.bounds[::2]))
    return (0.0,) if within else (0.0, _TURN, -_TURN)


def overlapping(box: Bounds, crs: CRS, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of N boxes share an area with a box, in degrees also after a whole turn.

    Args:
        box: As `box_in` gives it.
        crs: CRS of all boxes.
        boxes: Left, bottom, right, top, (N, 4).
    """
    left, bottom, right, top = box
    across = np.zeros(len(boxes), np.bool_)
    for turn in (0.0, _TURN, -_TURN) if crs.is_geographic else (0.0,):
        across |= (left < boxes[:, 2] + turn) & (boxes[:, 0] + turn < right)
    return across & (bottom < boxes[:, 3]) & (boxes[:, 1] < top)
