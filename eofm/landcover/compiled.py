"""The counting loop, compiled by numba where that is installed (`pip install eofm[fast]`).

A symbol is compared with eight lines at a time, and what is equal is added up in one byte per
column: a processor does 16 to 64 columns at once. Measured beside it on patches of nine classes: a
sum per line is ten times slower (its result is wider than a byte), four histograms in turn half as
fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

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


def add_windows(
    piece: Symbols,
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    window: int,
    symbols: Symbols,
    order: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Add the pixels of each symbol in each window of a grid to `counts`.

    Args:
        piece: Symbols, (h, w); what windows have beyond it is left out.
        tops: First lines of the windows, (T,).
        lefts: First columns of the windows, (L,).
        window: Lines and columns of a window.
        symbols: Which symbols there are, (S,).
        order: In which order to try them, (S,); the most frequent come first afterwards.
        counts: What to add to, (T, L, S).
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
def load() -> Kernel | None:
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


def choose(pixels: int) -> Kernel | None:
    """Return the compiled loop if it is there and saves time on so many pixels.

    A process that has loaded it uses it for anything.
    """
    return load() if load.cache_info().currsize or pixels >= _WORTHWHILE else None
