"""Read a land-cover map: its codes, on its own grid or on that of an image.

Each pixel of an image takes the code under its centre (nearest neighbour). Where the pixels of map
and image coincide they are copied; elsewhere GDAL warps. A map in degrees is read on both
sides of the 180th meridian. On its own grid a map of any size is read piece by piece, as symbols.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from shlex import quote
from threading import Lock
from typing import Any, Final, TypeAlias

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as warp_points
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterioWindow

from eofm.errors import LabelError, RasterError
from eofm.landcover.multilabel import ClassMap, Legend, Symbols
from eofm.landcover.schemes import Scheme
from eofm.raster.cube_file import CubeFile, is_cube
from eofm.raster.geotiff import (
    bytes_of,
    copy_command,
    damaged,
    grid_of,
    header_of,
    open_geotiff,
    pages_of,
    without_place,
)
from eofm.raster.grid import EXAMPLE_TRANSFORM, Grid, Window, crs_text

__all__ = [
    "CACHE_BYTES",
    "PIECE_BYTES",
    "STRIP_BYTES",
    "Bounds",
    "MapReader",
    "Pieces",
    "SymbolReader",
    "box_in",
    "check_nodata",
    "columns_per_strip",
    "decode",
    "fill",
    "inside_of",
    "opened",
    "overlapping",
    "piece_shape",
    "to_degrees",
    "turns_of",
]

# In pixels of the map. GDAL's default, an eighth, moves borders; with 0 rasterio cannot open a VRT.
_TOLERANCE: Final = 1e-3
_OPEN_MAPS: Final = 16
# HDF5 gives an open file again for its path, even where another one has replaced it since.
_NOT_KEPT: Final = frozenset({"netCDF", "HDF5", "HDF5Image"})
_TURN: Final = 360.0

Bounds = tuple[float, float, float, float]


# --------------------------------------------------------------------------------- open maps


@contextmanager
def opened(file: Path) -> Iterator[DatasetReader]:
    """Open a map for one thread at a time: a GDAL dataset is not thread-safe.

    A process keeps the last few open, with the blocks that GDAL has cached. The one released last
    is reused first.

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


# Names of the band of classes among others: `label` is that of Dynamic World.
_CLASSES: Final = frozenset({"label", "labels", "class", "classes", "classification", "map", "lc"})

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
        if dataset.driver in _NOT_KEPT:
            dataset.close()
            return
        _idle.append((key, dataset))
        if len(_idle) > _OPEN_MAPS:
            _idle.popleft()[1].close()


def _open(file: Path) -> DatasetReader:
    if file.suffix.lower() in {".tif", ".tiff"}:
        dataset = open_geotiff(file)
    else:  # a VRT, or what else GDAL reads
        try:
            with without_place():  # which is refused below
                dataset = rasterio.open(file)
        except RasterioError as error:
            raise damaged(file, error) from error
    if not dataset.count:
        names = [name.rpartition(":")[2] for name in dataset.subdatasets]
        remedy = _as_geotiff(dataset, file) if is_cube(file) and names else None
        dataset.close()
        raise LabelError(
            "the file holds no map, or several",
            found=", ".join(names) or "no band",
            expected="one map in a file",
            where=file,
            remedy=remedy,
        )
    pages = pages_of(dataset)
    if pages:
        dataset.close()
        apart = copy_command(pages[0], file.with_name(f"{file.stem}_1.tif"))
        raise LabelError(
            "the file holds several maps, of which GDAL opens the first alone",
            found=f"{len(pages)} pages",
            expected="one map in a file",
            where=file,
            remedy=f"write the one that is meant into a file of its own, as the first: {apart}",
        )
    masked = header_of(dataset).alphas == (2,) and dataset.nodata is None  # GDAL heeds one of them
    placed = dataset.crs is not None and not dataset.transform.is_identity
    if not placed or dataset.count - masked != 1:
        place = (
            "no CRS" if dataset.crs is None else f"{dataset.crs}{', no transform' * (not placed)}"
        )
        found = f"{dataset.count} band(s), {place}"
        remedy = _as_map(dataset, file)
        dataset.close()
        raise LabelError(
            "this is not a georeferenced map of one band",
            found=found,
            where=file,
            remedy=remedy,
        )
    return dataset


def _as_map(dataset: DatasetReader, file: Path) -> str:
    """Return what makes a map of one band, with a CRS, of a file that is none."""
    name, steps = quote(str(file)), []
    if is_cube(file):  # `rio` writes no netCDF
        return _as_geotiff(dataset, file)
    words = [(text or "").casefold() for text in dataset.descriptions]
    several = dataset.count > 2 and _CLASSES.isdisjoint(words)
    if several and [colour.name for colour in dataset.colorinterp[:3]] == ["red", "green", "blue"]:
        return "use the map of class codes, not a picture of it"
    if several and all(kind.startswith("float") for kind in dataset.dtypes):
        out = quote(str(file.with_name(f"{file.stem}_classes.tif")))
        return (
            "if the bands are probabilities, write the number of the largest, from 0 on as in "
            'Dynamic World: python -c "import rasterio, sys; f = rasterio.open(sys.argv[1]); '
            "p = dict(f.profile, count=1, dtype='uint8', nodata=255); a = f.read(masked=True); "
            "c = a.argmax(0).astype('uint8'); c[a.mask.any(0)] = 255; "
            f"rasterio.open(sys.argv[2], 'w', **p).write(c, 1)\" {name} {out}"
        )
    if dataset.count != 1:
        band = next((i for i, word in enumerate(words, 1) if word in _CLASSES), 1)
        which = f", here {dataset.descriptions[band - 1]}" if words[band - 1] in _CLASSES else ""
        steps.append(
            f"write the band that holds the classes{which} into a file of its own, as in: "
            f"rio stack {name} --bidx {band} -o classes.tif"
        )
        name = "classes.tif"
    missing = "--crs EPSG:32632 " * (dataset.crs is None)
    missing += f"--transform '{EXAMPLE_TRANSFORM}' " * dataset.transform.is_identity
    if missing:
        what = "the CRS" if dataset.crs is None else "the transform of its pixels"
        both = "CRS and transform"
        what = both if dataset.crs is None and dataset.transform.is_identity else what
        steps.append(f"write {what} into it, as in: rio edit-info {missing}{name}")
    return "; then ".join(steps)


def _as_geotiff(dataset: DatasetReader, file: Path) -> str:
    """Return the command that writes a netCDF map, whose place GDAL does not see, as a GeoTIFF."""
    variable, crs, given = "map", "EPSG:4326", dataset.crs
    with suppress(RasterError), CubeFile(file).open_whole() as cube:
        if hasattr(cube, "data_vars"):
            images = [str(n) for n, v in cube.items() if {"y", "x"} <= set(v.dims)]
            variable = next((n for n in images if n.casefold() in _CLASSES), [*images, variable][0])
        else:
            variable = str(cube.name)
        given = given or cube.rio.crs
        if {"y", "x"} <= set(cube.coords) and abs(cube["x"]).max() > 360:
            crs = "EPSG:32632"
    first = "the first of its maps" if dataset.count > 1 else "it"
    what = f"write {first} as a GeoTIFF, with the CRS of its coordinates"
    return (
        f"{what if given else f'{what}, as in'}: "
        'python -c "import rioxarray, sys, xarray; '
        f"a = xarray.open_dataset(sys.argv[1], mask_and_scale=False)['{variable}']; "
        "a = a[(0,) * (a.ndim - 2)]; a = a.rename(dict(zip(a.dims, 'yx'))).rio.write_crs("
        f"'{crs_text(given) if given else crs}'); "
        f'a.rio.to_raster(sys.argv[2])" {quote(str(file))} {quote(str(file.with_suffix(".tif")))}'
    )


# ------------------------------------------------------------------------------------- codes


def inside_of(dataset: DatasetReader, place: RasterioWindow) -> NDArray[np.bool_]:
    """Return the valid pixels of a window of a map by its mask; all if it has none."""
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
            f"nodata in it: rio edit-info --unset-nodata {quote(str(where))}",
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
    if values.dtype.kind in "fc":
        inside = inside & ~np.isnan(values)
        if values.dtype.kind == "c" or not np.array_equal(values[inside], np.rint(values[inside])):
            raise LabelError(
                "the values of the map are not class codes",
                found="numbers that are not whole",
                where=where,
                remedy="choose a map of classes, one code per pixel",
            )
    if nodata is not None and not math.isnan(nodata):
        inside = inside & (values != nodata)
    if values.dtype.kind == "f":
        values = np.where(inside, values, 0)  # NaN is no integer
    # widened before: a byte cannot hold the nodata code 300, and NumPy makes 44 of it
    return np.where(inside, values.astype(np.int32), np.int32(scheme.nodata[0]))


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

        Pixels outside the map, or declared nodata, have the first nodata code of the scheme.

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
            # alpha says where the map ends, so no code has to be given up for "outside"; that of
            # the map itself is warped with it
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
                    add_alpha=self._nodata is None and dataset.count == 1,
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


def to_degrees(
    crs: CRS, xs: Sequence[float], ys: Sequence[float], where: object
) -> tuple[Sequence[float], Sequence[float]]:
    """Return longitudes and latitudes of some points.

    Args:
        crs: CRS of the points.
        xs: Their first coordinates.
        ys: Their second coordinates.
        where: Name of the object, for the message of an error.

    Raises:
        RasterError: If the CRS is one of a plan or a building site, without a place on the earth.
    """
    try:
        longitudes, latitudes = warp_points(crs, CRS.from_epsg(4326), xs, ys)
    except (RasterioError, CPLE_BaseError) as error:
        raise RasterError(
            "the coordinate reference system has no place on the earth",
            found=crs.to_string(),
            expected="a geographic or projected one",
            where=where,
            remedy="write the CRS of the ground into the file, as in: "
            "rio edit-info --crs EPSG:32632 FILE",
        ) from error
    return longitudes, latitudes


@lru_cache(maxsize=64)  # maps are chosen by it, and then read
def box_in(image: Grid, crs: CRS) -> Bounds | None:
    """Return the bounding box of an image in the CRS of a map; None if it has no position in it.

    In degrees the right edge is never west of the left one: across the 180th meridian it exceeds
    180.
    """
    try:
        left, bottom, right, top = transform_bounds(image.require_crs(), crs, *image.bounds)
    except (RasterioError, CPLE_BaseError):
        return None  # the image lies outside the projection of the map
    if not all(map(math.isfinite, (left, bottom, right, top))):
        return None
    if left > right and crs.is_geographic:
        right += _TURN
    return left, bottom, right, top


def turns_of(own: Grid, grid: Grid) -> Sequence[float]:
    """Return by how many degrees a map has to be moved east to cover an image."""
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


# ----------------------------------------------------------------------------------- piece by piece

# GDAL keeps decoded blocks, by default in a twentieth of the machine's memory: for one map of
# 36,000 x 36,000 that is all of it. Strips need a block row at most twice.
CACHE_BYTES: Final = 64 * 1024**2
# A strip, stored and as symbols, is at most about this large, unless one column of blocks is.
STRIP_BYTES: Final = 48 * 1024**2
# A piece is at most about this large, unless one block is: it is counted while the second cache of
# a core still holds it, at four times the speed of memory.
PIECE_BYTES: Final = 1024**2
_LEAST_LINES: Final = 256


def columns_per_strip(dataset: DatasetReader) -> int:
    """Return how many columns a strip has, to be within `STRIP_BYTES`."""
    block = int(dataset.block_shapes[0][0])
    return _columns(dataset, block * -(-_LEAST_LINES // block), STRIP_BYTES)


def piece_shape(dataset: DatasetReader) -> tuple[int, int]:
    """Return how many lines and columns to read at a time: whole blocks, within `PIECE_BYTES`."""
    height, width = dataset.block_shapes[0]
    fit = PIECE_BYTES // (height * width * _pixel_bytes(dataset))
    lines = height * max(min(-(-_LEAST_LINES // height), fit), 1)
    return lines, _columns(dataset, lines, PIECE_BYTES)


def _columns(dataset: DatasetReader, lines: int, most_bytes: int) -> int:
    block = int(dataset.block_shapes[0][1])
    columns = most_bytes // (lines * _pixel_bytes(dataset))
    return max(columns // block, 1) * block


def _pixel_bytes(dataset: DatasetReader) -> int:
    return bytes_of(dataset.dtypes[0])


class SymbolReader:
    """A map, read as symbols.

    Attributes:
        dataset: The open map.
        legend: Which symbols there are.

    Args:
        dataset: The open map.
        scheme: Meaning of its codes.

    Raises:
        LabelError: If the map declares a class nodata.
    """

    def __init__(self, dataset: DatasetReader, scheme: Scheme) -> None:
        self.dataset, self._scheme = dataset, scheme
        check_nodata(dataset.nodata, scheme, dataset.name)
        plain = dataset.dtypes[0] == "uint8" and "per_dataset" not in {
            flag.name for flag in dataset.mask_flag_enums[0]
        }
        self.legend = Legend.of(scheme, dataset.nodata) if plain else Legend.by_table(scheme)

    def read(self, window: Window, out: Symbols) -> None:
        """Read a window of the map into `out`.

        Raises:
            RasterError: If the map is damaged.
            LabelError: If its values are not whole numbers.
        """
        if self.legend.table is None:
            self._stored(window, out)
        else:
            out[...] = self.legend.encode(self.codes(window))

    def codes(self, window: Window) -> ClassMap:
        """Return the codes of a window, int32 (h, w)."""
        values = self._stored(window)
        inside = inside_of(self.dataset, _place(window))
        return decode(values, inside, self._scheme, self.dataset.nodata, self.dataset.name)

    def _stored(self, window: Window, out: NDArray[Any] | None = None) -> NDArray[Any]:
        try:
            values: NDArray[Any] = self.dataset.read(1, window=_place(window), out=out)
        except RasterioError as error:
            problem = damaged(self.dataset.name, error)
            last = window.row + window.height - 1
            problem.where = f"{self.dataset.name}, lines {window.row} to {last}"
            raise problem from error
        return values


def _place(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)


class Pieces:
    """The pieces of an area, distributed among threads: each piece is read by one of them.

    A thread takes the pieces of its own columns, strip after strip, so that it finds the blocks
    shared with the area above in the cache; when it has done them, it helps the others.

    Args:
        area: The area to be divided.
        lines: Lines of a strip; strips start at multiples of it.
        columns: Columns of a piece; pieces start at multiples of it.
        threads: How many threads there are.
    """

    def __init__(self, area: Window, lines: int, columns: int, threads: int) -> None:
        rows = list(_cuts(area.row, area.row + area.height, lines))
        across = list(_cuts(area.col, area.col + area.width, columns))
        ends = [len(across) * n // threads for n in range(threads + 1)]
        self._queues = [
            deque(Window(top, left, b - top, r - left) for top, b in rows for left, r in own)
            for own in (across[first:end] for first, end in pairwise(ends))
        ]

    def of(self, thread: int) -> Iterator[Window]:
        """Yield the pieces of a thread, then those left by the others."""
        own, others = self._queues[thread], [*self._queues[:thread], *self._queues[thread + 1 :]]
        while True:
            piece = _pop(own.popleft)
            for other in others:
                piece = piece or _pop(other.pop)
            if piece is None:
                return
            yield piece

    def drop(self) -> None:
        """Discard the remaining pieces."""
        for queue in self._queues:
            queue.clear()


def _pop(take: Callable[[], Window]) -> Window | None:
    try:
        return take()
    except IndexError:
        return None


def _cuts(begin: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut a span at the multiples of a step."""
    starts = [begin, *range((begin // step + 1) * step, end, step)]
    return zip(starts, [*starts[1:], end], strict=True)
