"""Read a map of any size as symbols, piece by piece, the next ones while this one is counted."""

from __future__ import annotations

from collections import deque
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
from eofm.data.labels.compiled import Symbols
from eofm.data.labels.count import Legend
from eofm.data.landcover import ClassMap
from eofm.data.landcover_map import check_nodata, decode, inside_of
from eofm.data.schemes import Scheme
from eofm.errors import LabelError, RasterError

# GDAL keeps decoded blocks, by default in a twentieth of the machine's memory: for one map of
# 36,000 x 36,000 that is all of it. Strips need a block row at most twice.
CACHE_BYTES: Final = 64 * 1024**2
# A strip, stored and as symbols, is at most about this large, unless one column of blocks is.
STRIP_BYTES: Final = 48 * 1024**2
# A piece of a strip is at most about this large, unless one block is: caches hold it.
PIECE_BYTES: Final = 4 * 1024**2
_AHEAD: Final = 4  # pieces that are read while one is in use: they make up for pauses of either
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
    """Return how many columns a strip has, to be within `STRIP_BYTES`."""
    return _columns(dataset, STRIP_BYTES)


def columns_per_piece(dataset: DatasetReader) -> int:
    """Return how many columns to read at a time, for a piece to be within `PIECE_BYTES`."""
    return _columns(dataset, PIECE_BYTES)


def _columns(dataset: DatasetReader, most_bytes: int) -> int:
    block = int(dataset.block_shapes[0][1])
    per_pixel = np.dtype(dataset.dtypes[0]).itemsize
    columns: int = most_bytes // (lines_per_strip(dataset) * per_pixel)
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


def pieces(
    read: Callable[[Window, Symbols], None], area: Window, lines: int, columns: int
) -> Iterator[tuple[Window, Symbols]]:
    """Yield an area piece by piece: strip after strip, each from left to right.

    While one piece is in use, the next ones are read in another thread: decoding and counting both
    let others run.

    Args:
        read: Reads a window into an array.
        area: What to read.
        lines: Lines of a strip; strips start at multiples of it.
        columns: Columns of a piece; pieces start at multiples of it.

    Yields:
        Where the piece lies, and its symbols (h, w), valid until the next is asked for.
    """
    rows = list(_cuts(area.row, area.row + area.height, lines))
    across = list(_cuts(area.col, area.col + area.width, columns))
    windows = [Window(top, left, b - top, r - left) for top, b in rows for left, r in across]
    largest = max(window.height * window.width for window in windows)
    buffers = [np.empty(largest, np.uint8) for _ in range(min(_AHEAD + 1, len(windows)))]

    def load(number: int) -> Symbols:
        window = windows[number]
        flat = buffers[number % len(buffers)][: window.height * window.width]
        symbols = flat.reshape(window.height, window.width)
        read(window, symbols)
        return symbols

    reader = ThreadPoolExecutor(1)
    try:
        coming = deque(reader.submit(load, number) for number in range(len(buffers)))
        for number, window in enumerate(windows):
            yield window, coming.popleft().result()
            if number + len(buffers) < len(windows):
                coming.append(reader.submit(load, number + len(buffers)))
    finally:
        reader.shutdown(cancel_futures=True)


def _cuts(begin: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut a span at the multiples of a step."""
    starts = [begin, *range((begin // step + 1) * step, end, step)]
    return zip(starts, [*starts[1:], end], strict=True)
