"""Count a map in many windows at once.

A map is counted as symbols, one byte per pixel. For each symbol a window is compared with it and
the equal pixels are counted, both by vector instructions; the window is done as soon as all of its
pixels are. Symbols are tried in the order of the window before, in which most are the same:
benchmarks/results/speed_labels.md has it beside `np.unique` per window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eofm.data.schemes import Scheme

Symbols = NDArray[np.uint8]

_PANEL_BYTES: Final = 1024**2
_UNKNOWN: Final = 255  # the symbol of what a scheme does not know, where symbols are not codes


@dataclass(frozen=True)
class Legend:
    """Which symbols a map is counted by, and what they mean.

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
            scheme: What they mean.
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
        """Return counts per symbol (N, S) as counts per column (N, K + 2)."""
        membership = self.columns[:, None] == np.arange(self.width)
        merged: NDArray[np.int64] = per_symbol @ membership.astype(np.int64)
        return merged


class WindowCounter:
    """Counts the windows that lie side by side in some lines of a map.

    It keeps its scratch memory from call to call.

    Args:
        window: Side of the windows.
        legend: Which symbols there are.
    """

    def __init__(self, window: int, legend: Legend) -> None:
        self.window, self.legend = window, legend
        self._symbols = [np.uint8(symbol) for symbol in legend.symbols]
        self._order = list(range(len(self._symbols)))
        self._square = np.empty((window, window), np.uint8)
        self._flat = self._square.reshape(-1)
        self._equal = np.empty(window * window, np.bool_)
        # walking down the columns of a large map is slow: a panel of it is copied to the cache
        self._panel = np.empty((window, max(window, _PANEL_BYTES // window)), np.uint8)

    def count(self, lines: Symbols, lefts: Sequence[int]) -> NDArray[np.int64]:
        """Return the pixels of each class, of nodata and of cloud, (N, K + 2).

        What is in none of them is of unknown codes.

        Args:
            lines: Symbols, (window, width).
            lefts: First columns of the windows, ascending.
        """
        counts = np.zeros((len(lefts), len(self._symbols)), np.int64)
        first = end = 0  # columns that the panel holds
        only: int | None = None
        for row, left in zip(counts, lefts, strict=True):
            if left + self.window > end:
                first, end = left, min(left + self._panel.shape[1], lines.shape[1])
                only = self._only_symbol(lines[:, first:end])
                if only is None:
                    np.copyto(self._panel[:, : end - first], lines[:, first:end])
            if only is not None:
                row[only] = self._flat.size
                continue
            here = left - first
            np.copyto(self._square, self._panel[:, here : here + self.window])
            self._count_square(row)
        return self.legend.merge(counts)

    def _only_symbol(self, lines: Symbols) -> int | None:
        """Return the symbol of all pixels, as of open sea, or None; mostly some pixels tell."""
        likely = self._order[0]
        symbol = self._symbols[likely]
        some = lines[:: max(self.window // 8, 1), :: max(self.window // 4, 1)]
        return likely if (some == symbol).all() and (lines == symbol).all() else None

    def _count_square(self, row: NDArray[np.int64]) -> None:
        remaining = int(self._flat.size)
        for symbol in self._order:
            np.equal(self._flat, self._symbols[symbol], self._equal)
            found = int(np.count_nonzero(self._equal))
            if found:
                row[symbol] = found
                remaining -= found
                if not remaining:
                    break
        self._order = row.argsort()[::-1].tolist()


def count_windows(symbols: Symbols, window: int, stride: int, legend: Legend) -> NDArray[np.int64]:
    """Count all windows of a map in memory, row by row of windows, (N, K + 2).

    Args:
        symbols: The map, (H, W).
        window: Side of the windows.
        stride: Step from window to window.
        legend: Which symbols there are.
    """
    height, width = symbols.shape
    counter = WindowCounter(window, legend)
    lefts = range(0, width - window + 1, stride)
    rows = [
        counter.count(symbols[top : top + window], lefts)
        for top in range(0, height - window + 1, stride)
    ]
    return np.concatenate(rows) if rows else np.zeros((0, legend.width), np.int64)
