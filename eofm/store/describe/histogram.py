"""Statistics in one pass over any number of pixels, from histograms.

Digital numbers are counted value by value, so that mean, spread and percentiles are exact. Decibels
and reflectances fall into bins of a stated width, which bounds the error of a percentile; their
mean and spread are accumulated chunk by chunk in float64 (Chan, Golub, LeVeque 1983).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from eofm.contract.spec import Unit
from eofm.errors import PixelError

PERCENTILES: Final = (1.0, 2.0, 5.0, 25.0, 50.0, 75.0, 95.0, 98.0, 99.0)


@dataclass(frozen=True)
class Bins:
    """Bins of equal width; what lies outside is counted at the ends.

    Args:
        low: Lower end of the first bin.
        width: Of a bin: twice the greatest error of a percentile.
        count: How many there are.
    """

    low: float
    width: float
    count: int


BINS: Final = {
    Unit.DB: Bins(-100.0, 0.01, 16_000),
    Unit.REFLECTANCE: Bins(-0.5, 0.0001, 30_000),
}


@dataclass(frozen=True)
class Summary:
    """What a histogram knows.

    Args:
        count: Number of values.
        mean: Their mean.
        std: Their standard deviation, of the population.
        minimum: The smallest.
        maximum: The largest.
        percentiles: One per entry of `PERCENTILES`, linear between neighbours as in numpy.
    """

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float
    percentiles: tuple[float, ...]


class Histogram(Protocol):
    """Takes values in, chunk by chunk."""

    def add(self, values: NDArray[Any]) -> None:
        """Take in a chunk of values, one-dimensional."""

    def summary(self) -> Summary:
        """Return the statistics of all values.

        Raises:
            PixelError: If there are none.
        """


class IntegerHistogram:
    """Counts each of the 65,536 values of uint16: everything it says is exact."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 16, np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Take in a chunk of values, one-dimensional, uint16."""
        self._counts += np.bincount(values, minlength=1 << 16)

    def summary(self) -> Summary:
        """Return the statistics of all values.

        Raises:
            PixelError: If there are none.
        """
        values = np.flatnonzero(self._counts)
        counts = self._counts[values]
        total = _total(counts)
        # integers of any length: 2**16 squared times 10**12 pixels does not fit into 64 bits
        pairs = list(zip(values.tolist(), counts.tolist(), strict=True))
        first = sum(v * n for v, n in pairs)
        second = sum(v * v * n for v, n in pairs)
        variance = (total * second - first * first) / (total * total)
        return Summary(
            total,
            first / total,
            math.sqrt(variance),
            float(values[0]),
            float(values[-1]),
            _percentiles(values.astype(np.float64), counts),
        )


class FloatHistogram:
    """Counts floats in bins; mean, spread and ends do not come from the bins.

    Args:
        bins: Their place and width.
    """

    def __init__(self, bins: Bins) -> None:
        self._bins = bins
        self._counts = np.zeros(bins.count, np.int64)
        self._total, self._mean, self._squares = 0, 0.0, 0.0
        self._ends = (math.inf, -math.inf)

    def add(self, values: NDArray[Any]) -> None:
        """Take in a chunk of values, one-dimensional, finite.

        Raises:
            PixelError: If a value is not finite.
        """
        if not len(values):
            return
        exact = values.astype(np.float64)
        mean = float(exact.mean())
        if not math.isfinite(mean):
            raise PixelError(
                "a pixel that counts as valid is not a number",
                found=f"{int((~np.isfinite(exact)).sum())} of {len(exact)} values",
            )
        squares = float(((exact - mean) ** 2).sum())
        total = self._total + len(exact)
        gap = mean - self._mean
        self._squares += squares + gap * gap * self._total * len(exact) / total
        self._mean += gap * len(exact) / total
        self._total = total
        self._ends = (
            min(self._ends[0], float(exact.min())),
            max(self._ends[1], float(exact.max())),
        )
        place = np.floor((exact - self._bins.low) / self._bins.width)
        index = np.clip(place, 0, self._bins.count - 1).astype(np.int64)
        self._counts += np.bincount(index, minlength=self._bins.count)

    def summary(self) -> Summary:
        """Return the statistics of all values; percentiles to half the width of a bin.

        Raises:
            PixelError: If there are none.
        """
        filled = np.flatnonzero(self._counts)
        centres = self._bins.low + (filled + 0.5) * self._bins.width
        counts = self._counts[filled]
        _total(counts)
        inside = np.clip(centres, *self._ends)
        return Summary(
            self._total,
            self._mean,
            math.sqrt(self._squares / self._total),
            *self._ends,
            _percentiles(inside, counts),
        )


def _total(counts: NDArray[np.int64]) -> int:
    total = int(counts.sum())
    if not total:
        raise PixelError("there is no valid pixel to take statistics of", found="0 pixels")
    return total


def _percentiles(
    values: NDArray[np.float64], counts: NDArray[np.int64], at: Sequence[float] = PERCENTILES
) -> tuple[float, ...]:
    """Return percentiles of values that occur so many times, as `numpy.percentile` does."""
    ends = np.cumsum(counts)
    found = []
    for percent in at:
        place = percent / 100 * (int(ends[-1]) - 1)
        below = math.floor(place)
        low, high = (
            float(values[np.searchsorted(ends, rank, side="right")])
            for rank in (below, min(below + 1, int(ends[-1]) - 1))
        )
        found.append(low + (high - low) * (place - below))
    return tuple(found)
