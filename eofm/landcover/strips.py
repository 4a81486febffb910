"""Read a map of any size as symbols, piece by piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from eofm.landcover.count import Legend, Symbols
from eofm.landcover.multilabel import ClassMap
from eofm.landcover.schemes import Scheme
from eofm.landcover.warp import check_nodata, decode, inside_of
from eofm.raster.geotiff import damaged
from eofm.raster.grid import Window

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
    return int(np.dtype(dataset.dtypes[0]).itemsize)


class SymbolReader:
    """A map, read as symbols.

    Attributes:
        dataset: The open map.
        legend: Which symbols there are.

    Args:
        dataset: The open map.
        scheme: What its codes mean.

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
    """The pieces of an area, shared out among threads: each piece goes to one of them.

    A thread takes the pieces of its own columns, strip after strip, so that it finds the blocks
    that it has in common with the area above; when it has done them, it helps the others.

    Args:
        area: What to share out.
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
        """Yield the pieces of a thread, until none is left of anybody's."""
        own, others = self._queues[thread], [*self._queues[:thread], *self._queues[thread + 1 :]]
        while True:
            piece = _pop(own.popleft)
            for other in others:
                piece = piece or _pop(other.pop)
            if piece is None:
                return
            yield piece

    def drop(self) -> None:
        """Leave what is left undone."""
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
