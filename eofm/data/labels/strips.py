"""Read a map of any size as symbols, strip by strip, the next one while this one is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from eofm.data.geotiff import damaged, open_geotiff
from eofm.data.grid import Window
from eofm.data.labels.count import Legend, Symbols
from eofm.data.landcover import ClassMap
from eofm.data.landcover_map import check_nodata, decode, inside_of
from eofm.data.schemes import Scheme
from eofm.errors import LabelError, RasterError

# GDAL keeps decoded blocks, by default in a twentieth of the machine's memory: for one map of
# 36,000 x 36,000 that is all of it. Strips need a block row at most twice.
CACHE_BYTES: Final = 64 * 1024**2
# A strip, stored and as symbols, is at most about this large, unless one column of blocks is.
STRIP_BYTES: Final = 48 * 1024**2
_LEAST_LINES: Final = 256
_OPEN_MAPS: Final = 16


def open_map(file: Path) -> DatasetReader:
    """Open a map, or return it open: a process keeps the last few.

    Raises:
        LabelError: If it has several bands, or lies nowhere.
        RasterError: If it is missing or cannot be read.
    """
    try:
        state = file.stat()
    except OSError as error:
        raise RasterError("there is no such map", found=error.strerror, where=file) from error
    return _open(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=_OPEN_MAPS)
def _open(file: Path, _changed: int, _size: int) -> DatasetReader:
    if file.suffix.lower() in {".tif", ".tiff"}:
        dataset = open_geotiff(file)
    else:  # a VRT, or what else GDAL reads
        try:
            dataset = rasterio.open(file)
        except RasterioError as error:
            raise damaged(file, error) from error
    if dataset.crs is None or dataset.count != 1:
        raise LabelError(
            "this is not a georeferenced map of one band",
            found=f"{dataset.count} band(s), {dataset.crs or 'no CRS'}",
            where=file,
            remedy="write the CRS into it, as in: rio edit-info --crs EPSG:32632 FILE; or choose "
            "the band that holds the classes",
        )
    return dataset


def lines_per_strip(dataset: DatasetReader) -> int:
    """Return how many lines to read at a time: whole blocks."""
    block = int(dataset.block_shapes[0][0])
    return block * -(-_LEAST_LINES // block)


def columns_per_strip(dataset: DatasetReader) -> int:
    """Return how many columns to read at a time, for a strip to be within `STRIP_BYTES`."""
    block = int(dataset.block_shapes[0][1])
    per_pixel = np.dtype(dataset.dtypes[0]).itemsize
    columns: int = STRIP_BYTES // (lines_per_strip(dataset) * per_pixel)
    return max(columns // block, 1) * block


class SymbolReader:
    """A map, read as symbols.

    Attributes:
        legend: Which symbols there are.

    Args:
        dataset: The open map.
        scheme: What its codes mean.

    Raises:
        LabelError: If the map declares a class nodata.
    """

    def __init__(self, dataset: DatasetReader, scheme: Scheme) -> None:
        self._dataset, self._scheme = dataset, scheme
        check_nodata(dataset.nodata, scheme, dataset.name)
        plain = dataset.dtypes[0] == "uint8" and "per_dataset" not in {
            flag.name for flag in dataset.mask_flag_enums[0]
        }
        self.legend = Legend.of(scheme, dataset.nodata) if plain else Legend.by_table(scheme)
        self._reading = Lock()  # GDAL's datasets are for one thread at a time

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
        with self._reading:
            inside = inside_of(self._dataset, _place(window))
        return decode(values, inside, self._scheme, self._dataset.nodata, self._dataset.name)

    def _stored(self, window: Window, out: NDArray[Any] | None = None) -> NDArray[Any]:
        try:
            with self._reading:
                values: NDArray[Any] = self._dataset.read(1, window=_place(window), out=out)
        except RasterioError as error:
            problem = damaged(self._dataset.name, error)
            last = window.row + window.height - 1
            problem.where = f"{self._dataset.name}, lines {window.row} to {last}"
            raise problem from error
        return values


def _place(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)


def strips(
    read: Callable[[Window, Symbols], None], area: Window, lines: int, keep: int
) -> Iterator[tuple[int, Symbols]]:
    """Yield an area strip by strip, each with the last lines of those before.

    While one strip is in use, the next is read in another thread: decoding and counting both let
    others run.

    Args:
        read: Reads a window into an array.
        area: What to read.
        lines: Lines of a strip; strips start at multiples of it.
        keep: How many of the lines before a strip come with it, where there are as many.

    Yields:
        Number of the first line, and lines (h, width), valid until the next are asked for.
    """
    bottom = area.row + area.height
    tops = [area.row, *range((area.row // lines + 1) * lines, bottom, lines)]
    spans = list(zip(tops, [*tops[1:], bottom], strict=True))
    buffers = [np.empty((keep + lines, area.width), np.uint8) for _ in range(min(2, len(spans)))]

    def load(number: int) -> None:
        top, end = spans[number]
        fresh = buffers[number % 2][keep : keep + end - top]
        read(Window(top, area.col, end - top, area.width), fresh)

    kept = 0
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(load, 0)
        for number, (top, end) in enumerate(spans):
            coming.result()
            here = buffers[number % 2]
            if number + 1 < len(spans):
                coming = reader.submit(load, number + 1)
            yield top - kept, here[keep - kept : keep + end - top]
            if number + 1 < len(spans):
                left = min(keep, kept + end - top)
                tail = here[keep + end - top - left : keep + end - top]
                buffers[(number + 1) % 2][keep - left : keep] = tail
                kept = left
