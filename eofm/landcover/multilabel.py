"""From land-cover codes to multi-labels: pixels of each class, their shares, labels.

Only *seen* ground is counted: where the image is invalid (nodata, margin), the class cannot be
seen in it, whatever the map says there. So of the seen pixels

    valid_share    is the share for which the map names a class (not nodata, not cloud),
    cloud_share    the share that the map calls cloud,
    fraction       of a class its share in the pixels for which the map names one,

and of a window of a map, which has no image, every pixel is seen. A code that the scheme does not
know is an error, never a separate class.

A map is counted in many windows at once as symbols, one byte per pixel. For each symbol a window is
compared with it and the equal pixels are counted, both by vector instructions; the window is done
as soon as all of its pixels are. Symbols are tried in the order of the window before, in which most
are the same: benchmarks/results/speed_labels.md compares it with `np.unique` per window. Large maps
are counted by a loop that numba compiles, where it is installed (`pip install eofm[fast]`); counts
are the same.

Shapes: h by w pixels, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.landcover.schemes import SCHEMES, Scheme

__all__ = [
    "ClassMap",
    "Cover",
    "GridCounter",
    "Kernel",
    "Legend",
    "Reason",
    "Seen",
    "Symbols",
    "WindowCounter",
    "add_windows",
    "choose_kernel",
    "class_fractions",
    "count_codes",
    "count_windows",
    "load_kernel",
    "multi_label",
    "multi_labels",
    "shares",
    "strange_codes",
    "unknown_codes",
]

ClassMap = NDArray[np.int32]
Seen = NDArray[np.bool_]


class Reason(StrEnum):
    """Why labels are unknown."""

    KNOWN = ""
    NO_MAP = "no map overlaps"
    NO_DATE = "the scene has no date"
    NOT_IN_TIME = "no map within the days allowed"
    UNSEEN = "the image has no measured pixel"
    TOO_LITTLE = "too few valid map pixels"
    NO_CLASS = "no class reaches the threshold"


@dataclass(frozen=True)
class Cover:
    """How much of the seen ground of a window each class covers.

    Args:
        fractions: Share of each class in the valid pixels, float32 (K,); zeros where none is.
        valid_share: Share of the seen pixels that are neither nodata nor cloud.
        cloud_share: Share of the seen pixels that are cloud.
    """

    fractions: NDArray[np.float32]
    valid_share: float
    cloud_share: float

    @classmethod
    def of(cls, counts: NDArray[np.int64], seen: int) -> Cover:
        """Return the cover of a window.

        Args:
            counts: Pixels of each class, of nodata and of cloud among the seen ones, (K + 2,).
            seen: Number of seen pixels.
        """
        fractions, valid, cloud = shares(counts[None], np.array([seen]))
        return cls(fractions[0], float(valid[0]), float(cloud[0]))


def shares(
    counts: NDArray[np.int64], seen: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of N windows.

    Args:
        counts: Pixels of each class, of nodata and of cloud among the seen ones, (N, K + 2).
        seen: Number of seen pixels, (N,).

    Returns:
        Share of each class in the valid pixels (N, K); of valid and of cloud pixels in the seen
        ones, (N,) each, 0 where none is seen.
    """
    covered, cloud = counts[:, :-2], counts[:, -1]
    valid, whole = covered.sum(axis=1), np.maximum(seen, 1)
    fractions = (covered / np.maximum(valid, 1)[:, None]).astype(np.float32)
    return fractions, valid / whole, cloud / whole


def class_fractions(
    class_map: NDArray[np.integer], scheme: Scheme, where: object = None, seen: Seen | None = None
) -> Cover:
    """Count a class map.

    Args:
        class_map: Codes of the scheme, (h, w).
        scheme: Meaning of the codes.
        where: Map and window, for the message of an error.
        seen: Pixels that the image measures, (h, w); None counts all.

    Raises:
        LabelError: If the map holds codes that the scheme does not know, or no pixel.
    """
    if class_map.size == 0:
        raise LabelError("a class map without pixels", found=class_map.shape, where=where)
    counts = count_codes(class_map, scheme, seen)
    pixels = class_map.size if seen is None else int(np.count_nonzero(seen))
    if not scheme.ignore_unknown and int(counts.sum()) != pixels:
        raise unknown_codes(strange_codes(class_map, scheme, seen), scheme, where)
    return Cover.of(counts, pixels)


def count_codes(
    class_map: NDArray[np.integer], scheme: Scheme, seen: Seen | None = None
) -> NDArray[np.int64]:
    """Return the seen pixels of each class, of nodata and of cloud, int64 (K + 2,).

    Pixels of codes that the scheme does not know are in none of them.

    Args:
        class_map: Codes, (h, w).
        scheme: Meaning of the codes.
        seen: Pixels to count, (h, w); None counts all.
    """
    flat = class_map.ravel() if seen is None or seen.all() else class_map[seen]
    counts = np.zeros(len(scheme.names) + 2, np.int64)
    if not flat.size:
        return counts
    top = max(scheme.codes)
    if int(flat.min()) < 0 or int(flat.max()) > top:
        flat = flat[(flat >= 0) & (flat <= top)]
    per_code = np.bincount(flat, minlength=top + 1)[list(scheme.codes)]
    np.add.at(counts, scheme.columns, per_code)
    return counts


def strange_codes(
    class_map: NDArray[np.integer], scheme: Scheme, seen: Seen | None = None
) -> dict[int, int]:
    """Return the codes of the seen pixels that the scheme does not know, with their pixels."""
    codes, pixels = np.unique(class_map if seen is None else class_map[seen], return_counts=True)
    known = set(scheme.codes)
    pairs = zip(codes.tolist(), pixels.tolist(), strict=True)
    return {code: count for code, count in pairs if code not in known}


def unknown_codes(strange: Mapping[int, int], scheme: Scheme, where: object) -> LabelError:
    """Return the error to raise for codes that a scheme does not know.

    Args:
        strange: Code -> pixels that have it.
        scheme: The scheme.
        where: Map and window.
    """
    shown = [f"{code} ({n} pixel{'s' * (n > 1)})" for code, n in strange.items()]
    return LabelError(
        f"the class map holds codes that the scheme {scheme.name} does not know",
        found=", ".join(shown[:10]) + (", ..." if shown[10:] else ""),
        expected=", ".join(map(str, sorted(scheme.codes))),
        where=where,
        remedy=f"choose the scheme of this map ({' | '.join(SCHEMES)}), or describe its codes in "
        "a YAML file of your own; there, `unknown: ignore` counts other codes as nodata",
    )


def multi_label(
    cover: Cover, threshold: float = 0.0, min_valid: float = 0.25
) -> tuple[NDArray[np.uint8], bool]:
    """Return which classes are present, and whether that is known: see `multi_labels`.

    Args:
        cover: Cover of a window.
        threshold: Share of the valid pixels.
        min_valid: Least share of valid pixels.

    Returns:
        uint8 (K,), zeros where unknown; and whether it is known.
    """
    valid = np.array([cover.valid_share])
    present, known = multi_labels(cover.fractions[None], valid, threshold, min_valid)
    return present[0], bool(known[0])


def multi_labels(
    fractions: NDArray[np.float32],
    valid_shares: NDArray[np.floating],
    threshold: float = 0.0,
    min_valid: float = 0.25,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return which classes are present in N windows, and of which windows that is known.

    A class is present where its fraction reaches the threshold; a threshold of 0 means any pixel.
    With too few valid pixels, or where no class reaches the threshold, nothing is known: that is
    not the same as "no class is present", with which soft labels would call an image unlike every
    other, itself included.

    Args:
        fractions: Share of each class in the valid pixels, (N, K).
        valid_shares: Share of the seen pixels that are valid, (N,).
        threshold: Share of the valid pixels.
        min_valid: Least share of valid pixels.

    Returns:
        uint8 (N, K), zeros where unknown; and bool (N,), whether it is known.
    """
    # the fractions are stored as float32: a threshold of 0.1 must mean the same one later
    least = np.float32(threshold)
    present = (fractions > 0) & (fractions >= least)
    known = (valid_shares >= min_valid) & present.any(axis=1)
    return (present & known[:, None]).astype(np.uint8), known


# ----------------------------------------------------------------------------- many windows at once

Symbols = NDArray[np.uint8]
Kernel: TypeAlias = Callable[
    [
        Symbols,
        NDArray[np.int64],
        NDArray[np.int64],
        int,
        Symbols,
        NDArray[np.int64],
        NDArray[np.int64],
    ],
    None,
]

_SIGNATURE: Final = (
    "void(uint8[:,::1], int64[::1], int64[::1], int64, uint8[::1], int64[::1], int64[:,:,:])"
)
# Importing numba and the cached kernel takes a second or half of one. The loop makes up for it over
# so many pixels: three tiles of WorldCover.
_WORTHWHILE: Final = 2**32
# Lines and columns that stay in the first cache; a byte counts at most 255 lines.
_LINES, _COLUMNS = 64, 512
_PANEL_BYTES: Final = 1024**2
# Windows that overlap share cells, as long as a window has at most so many by so many.
_CELLS: Final = 4
_UNKNOWN: Final = 255  # the symbol of what a scheme does not know, where symbols are not codes


@dataclass(frozen=True)
class Legend:
    """Symbols by which a map is counted, and their meaning.

    Args:
        symbols: Bytes that can occur.
        columns: For each symbol, the number of its class; K for nodata, K + 1 for cloud.
        width: K + 2.
        table: Code -> symbol, for maps whose symbols are not their codes.
    """

    symbols: tuple[int, ...]
    columns: NDArray[np.intp]
    width: int
    table: Symbols | None = None

    @classmethod
    def of(cls, scheme: Scheme, nodata: float | None = None) -> Legend:
        """Return the legend of a map of bytes: its symbols are its codes.

        Args:
            scheme: Meaning of the codes.
            nodata: The value that the map itself declares nodata.
        """
        codes, columns = scheme.codes, scheme.columns
        width = len(scheme.names) + 2
        if nodata is not None and nodata == int(nodata) and int(nodata) not in codes:
            codes, columns = (*codes, int(nodata)), np.append(columns, width - 2)
        fits = [0 <= code <= 255 for code in codes]
        symbols = tuple(code for code, fit in zip(codes, fits, strict=True) if fit)
        return cls(symbols, columns[np.array(fits)], width)

    @classmethod
    def by_table(cls, scheme: Scheme) -> Legend:
        """Return the legend of maps of other numbers: codes are looked up in a table."""
        codes = scheme.codes
        table = np.full(max(codes) + 2, _UNKNOWN, np.uint8)
        table[list(codes)] = np.arange(len(codes))
        return cls(tuple(range(len(codes))), scheme.columns, len(scheme.names) + 2, table)

    def encode(self, codes: NDArray[np.integer[Any]]) -> Symbols:
        """Return codes as symbols."""
        if self.table is None:
            return codes.astype(np.uint8)
        outside = len(self.table) - 1  # a place beyond the last code: unknown
        return self.table[np.where((codes < 0) | (codes > outside), outside, codes)]

    def merge(self, per_symbol: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return counts per symbol (..., S) as counts per column (..., K + 2)."""
        membership = self.columns[:, None] == np.arange(self.width)
        merged: NDArray[np.int64] = per_symbol @ membership.astype(np.int64)
        return merged


class WindowCounter:
    """Counts the windows of a grid that touch a piece of a map.

    It reuses its scratch memory between calls.

    Args:
        window: Side of the windows.
        legend: Which symbols there are.
        kernel: The compiled loop, if it is to be used.
    """

    def __init__(self, window: int, legend: Legend, kernel: Kernel | None = None) -> None:
        self.window, self.legend = window, legend
        self._symbols = np.array(legend.symbols, np.uint8)
        self._order = np.arange(len(self._symbols))
        self._kernel = kernel
        if kernel is None:
            self._flat = np.empty(window * window, np.uint8)
            self._equal = np.empty(window * window, np.bool_)
            # reading down the columns of a large map is slow: a panel of it is copied to the cache
            self._panel = np.empty((window, max(window, _PANEL_BYTES // window)), np.uint8)

    def count(self, lines: Symbols, lefts: Sequence[int]) -> NDArray[np.int64]:
        """Return the pixels of each class, of nodata and of cloud, (N, K + 2).

        What is in none of them is of unknown codes.

        Args:
            lines: Symbols, (window, width).
            lefts: First columns of the windows, ascending.
        """
        counts = np.zeros((1, len(lefts), len(self._symbols)), np.int64)
        self.add(counts, lines, [0], lefts)
        return self.legend.merge(counts[0])

    def add(
        self,
        counts: NDArray[np.int64],
        piece: Symbols,
        tops: Sequence[int],
        lefts: Sequence[int],
    ) -> None:
        """Add the pixels of each symbol in each window of a grid.

        Args:
            counts: Counts that are added to, (T, L, S).
            piece: Symbols, (h, w); what windows have beyond it is left out.
            tops: First lines of the windows, (T,).
            lefts: First columns of the windows, (L,), ascending.
        """
        if self._kernel is not None:
            whole = np.ascontiguousarray(piece)
            down, across = np.array(tops, np.int64), np.array(lefts, np.int64)
            self._kernel(whole, down, across, self.window, self._symbols, self._order, counts)
            return
        for line, top in zip(counts, tops, strict=True):
            self._add_line(line, piece[max(top, 0) : top + self.window], lefts)

    def _add_line(self, counts: NDArray[np.int64], lines: Symbols, lefts: Sequence[int]) -> None:
        """Add the pixels of windows side by side, (L, S), of which some lines are given."""
        height, width = lines.shape
        first = end = 0  # columns that the panel holds
        only: int | None = None
        for row, left in zip(counts, lefts, strict=True):
            begin, stop = max(left, 0), min(left + self.window, width)
            if stop > end:
                first, end = begin, min(begin + self._panel.shape[1], width)
                only = self._only_symbol(lines[:, first:end])
                if only is None:
                    np.copyto(self._panel[:height, : end - first], lines[:, first:end])
            if only is not None:
                row[only] += height * (stop - begin)
                continue
            self._count_part(self._panel[:height, begin - first : stop - first], row)

    def _only_symbol(self, lines: Symbols) -> int | None:
        """Return the common symbol of all pixels, as of open sea, or None; mostly found early."""
        likely = int(self._order[0])
        symbol = self._symbols[likely]
        some = lines[:: max(self.window // 8, 1), :: max(self.window // 4, 1)]
        return likely if (some == symbol).all() and (lines == symbol).all() else None

    def _count_part(self, part: Symbols, row: NDArray[np.int64]) -> None:
        """Add the symbols of a window, or of a part of one."""
        remaining = part.size
        flat, equal = self._flat[:remaining], self._equal[:remaining]
        np.copyto(flat.reshape(part.shape), part)
        for symbol in self._order.tolist():
            np.equal(flat, self._symbols[symbol], equal)
            found = int(np.count_nonzero(equal))
            if found:
                row[symbol] += found
                remaining -= found
                if not remaining:
                    break
        self._order = row.argsort()[::-1]


class GridCounter:
    """Counts the windows of a grid from pieces of the map, which may come in any order.

    Windows that overlap by a whole fraction of their side share cells: each pixel is counted once.

    Args:
        tops: First lines of the windows, one at least.
        lefts: First columns of the windows, one at least.
        window: Side of the windows.
        legend: Which symbols there are.
        kernel: The compiled loop, if it is to be used.
    """

    def __init__(
        self, tops: range, lefts: range, window: int, legend: Legend, kernel: Kernel | None
    ) -> None:
        step = tops.step
        shared = step == lefts.step and window % step == 0 and window // step <= _CELLS
        side = step if shared else window
        self._per_side = window // side
        self._tops, self._lefts = tops, lefts
        if side < window:
            self._tops = range(tops[0], tops[-1] + window, side)
            self._lefts = range(lefts[0], lefts[-1] + window, side)
        self._counter = WindowCounter(side, legend, kernel)
        self._cells = np.zeros((len(self._tops), len(self._lefts), len(legend.symbols)), np.int64)

    def add(self, top: int, left: int, symbols: Symbols) -> None:
        """Count a piece of the map.

        Args:
            top: Its first line.
            left: Its first column.
            symbols: Its symbols, (h, w).
        """
        side, (height, width) = self._counter.window, symbols.shape
        down = _touching(self._tops, side, top, top + height)
        across = _touching(self._lefts, side, left, left + width)
        self._counter.add(
            self._cells[down.start : down.stop, across.start : across.stop],
            symbols,
            [self._tops[n] - top for n in down],
            [self._lefts[n] - left for n in across],
        )

    def include(self, other: GridCounter) -> None:
        """Add the counts of another counter of the same windows."""
        self._cells += other._cells

    def counts(self) -> NDArray[np.int64]:
        """Return the pixels of each class, of nodata and of cloud, (T, L, K + 2)."""
        cells, n = self._cells, self._per_side
        for axis in (0, 1):
            length = cells.shape[axis] - n + 1
            shifted = [np.moveaxis(cells, axis, 0)[i : i + length] for i in range(n)]
            cells = np.moveaxis(np.sum(shifted, axis=0), 0, axis) if n > 1 else cells
        return self._counter.legend.merge(cells)


def _touching(starts: range, side: int, begin: int, end: int) -> range:
    """Return the numbers of the windows that have pixels from `begin` to before `end`."""
    first = max((begin - side - starts.start) // starts.step + 1, 0)
    return range(first, max(min(-((starts.start - end) // starts.step), len(starts)), first))


def count_windows(symbols: Symbols, window: int, stride: int, legend: Legend) -> NDArray[np.int64]:
    """Count all windows of a map in memory, row by row of windows, (N, K + 2).

    Args:
        symbols: The map, (H, W).
        window: Side of the windows.
        stride: Step from window to window.
        legend: Which symbols there are.
    """
    tops, lefts = (range(0, size - window + 1, stride) for size in symbols.shape)
    if not (tops and lefts):
        return np.zeros((0, legend.width), np.int64)
    counter = GridCounter(tops, lefts, window, legend, choose_kernel(symbols.size))
    counter.add(0, 0, symbols)
    return counter.counts().reshape(-1, legend.width)


# --------------------------------------------------------------------------- the compiled loop


def add_windows(
    piece: Symbols,
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    window: int,
    symbols: Symbols,
    order: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Add the pixels of each symbol in each window of a grid to `counts`: what numba compiles.

    A symbol is compared with eight lines at a time, and what is equal is added up in one byte per
    column: a processor does 16 to 64 columns at once. Measured beside it on patches of nine
    classes: a sum per line is ten times slower (its result is wider than a byte), four histograms
    in turn half as fast.

    Args:
        piece: Symbols, (h, w); what windows have beyond it is left out.
        tops: First lines of the windows, (T,).
        lefts: First columns of the windows, (L,).
        window: Lines and columns of a window.
        symbols: Which symbols there are, (S,).
        order: In which order to try them, (S,); the most frequent come first afterwards.
        counts: Counts that are added to, (T, L, S).
    """
    height, width = piece.shape
    equal = np.zeros(_COLUMNS, np.uint8)
    found = np.zeros(len(symbols), np.int64)
    for cell in range(len(tops) * len(lefts)):
        m, n = divmod(cell, len(lefts))
        bottom, end = min(tops[m] + window, height), min(lefts[n] + window, width)
        for left in range(max(lefts[n], 0), end, _COLUMNS):
            columns = min(_COLUMNS, end - left)
            for top in range(max(tops[m], 0), bottom, _LINES):
                part = piece[top : min(top + _LINES, bottom), left : left + columns]
                remaining = np.int64(part.size)
                found[:] = 0
                for place in range(len(order)):
                    symbol = symbols[order[place]]
                    equal[:columns] = 0
                    i = 0
                    while i + 8 <= len(part):
                        for j in range(columns):
                            equal[j] += (
                                np.uint8(part[i, j] == symbol)
                                + np.uint8(part[i + 1, j] == symbol)
                                + np.uint8(part[i + 2, j] == symbol)
                                + np.uint8(part[i + 3, j] == symbol)
                                + np.uint8(part[i + 4, j] == symbol)
                                + np.uint8(part[i + 5, j] == symbol)
                                + np.uint8(part[i + 6, j] == symbol)
                                + np.uint8(part[i + 7, j] == symbol)
                            )
                        i += 8
                    while i < len(part):
                        for j in range(columns):
                            equal[j] += np.uint8(part[i, j] == symbol)
                        i += 1
                    total = np.int64(0)
                    for j in range(columns):
                        total += np.int64(equal[j])
                    found[order[place]] = total
                    counts[m, n, order[place]] += total
                    remaining -= total
                    if remaining == 0:
                        break
                # insertion sort: mostly, nothing has to move
                for place in range(1, len(order)):
                    candidate = order[place]
                    i = place
                    while i > 0 and found[order[i - 1]] < found[candidate]:
                        order[i] = order[i - 1]
                        i -= 1
                    order[i] = candidate


@lru_cache(maxsize=1)
def load_kernel() -> Kernel | None:
    """Return the compiled loop, or None without numba; compiled once, and kept on the disk."""
    try:
        import numba
    except ImportError:
        return None
    try:
        kernel: Kernel = numba.njit(_SIGNATURE, nogil=True, cache=True)(add_windows)
    except RuntimeError:  # there is no place where it could be kept
        kernel = numba.njit(_SIGNATURE, nogil=True)(add_windows)
    return kernel


def choose_kernel(pixels: int) -> Kernel | None:
    """Return the compiled loop if it is there and saves time on so many pixels.

    A process that has loaded it uses it for anything.
    """
    return load_kernel() if load_kernel.cache_info().currsize or pixels >= _WORTHWHILE else None
