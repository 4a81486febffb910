"""`eofm data stats`: mean, spread and percentiles of every band, in one pass over a store.

Digital numbers are counted value by value, so mean, spread and percentiles are exact. Decibels
and reflectances fall into bins of a stated width, which bounds the error of a percentile; their
mean and spread are accumulated chunk by chunk in float64 (Chan, Golub, LeVeque 1983).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from eofm.contract.spec import ImageSpec, Sensor, Statistics, Unit
from eofm.errors import PixelError, StoreError
from eofm.formats.foreign import foreign, opened, read_bounded, sealed
from eofm.formats.text import JSON_BYTES, parse_json
from eofm.io import write_file
from eofm.store.choice import held_out, matching, read_ids, sampled, with_ids
from eofm.store.config import StatsConfig
from eofm.store.reader import Store
from eofm.store.splits import subset_hash
from eofm.terminal import track

__all__ = [
    "BINS",
    "PERCENTILES",
    "STATS",
    "Bins",
    "FloatHistogram",
    "Histogram",
    "IntegerHistogram",
    "StatsReport",
    "Summary",
    "count_bands",
    "make_statistics",
    "read_statistics",
]

# -------------------------------------------------------------------------------------- histograms


PERCENTILES: Final = (1.0, 2.0, 5.0, 25.0, 50.0, 75.0, 95.0, 98.0, 99.0)


@dataclass(frozen=True)
class Bins:
    """Bins of equal width; values outside are counted in the first and last bin.

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
    """Statistics of a histogram.

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
                "a valid pixel is not a number",
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
        raise PixelError("no pixel is valid: there are no statistics", found="0 pixels")
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


# -------------------------------------------------------------------------------------- statistics


STATS: Final = "stats.json"
_CHUNK: Final = 32  # images in memory at a time


@dataclass(frozen=True)
class StatsReport:
    """Statistics of a store and where they come from.

    Args:
        file: The file that was written.
        spec: Sensor, bands and unit.
        bands: Band -> its statistics.
        source: Store, split and number of images, as text.
        resolution: Width of the bins behind the percentiles; 0 where every value was counted.
    """

    file: Path
    spec: ImageSpec
    bands: dict[str, Summary]
    source: str
    resolution: float

    def describe(self) -> str:
        """Return a table for the terminal."""
        shown = (1, 4, 7)  # the percentiles 2, 50 and 98
        names = [f"{PERCENTILES[i]:g}%" for i in shown]
        head = ["band", "mean", "std", "min", *names, "max", "pixels"]
        lines = [self.source, "  " + " ".join(f"{name:>10}" for name in head)]
        for band, found in self.bands.items():
            numbers = [found.mean, found.std, found.minimum]
            numbers += [found.percentiles[i] for i in shown] + [found.maximum]
            cells = " ".join(f"{number:10.2f}" for number in numbers)
            lines.append(f"  {band:>10} {cells} {found.count:10d}")
        lines.append(f"  written to {self.file}")
        return "\n".join(lines)


def make_statistics(config: StatsConfig) -> StatsReport:
    """Count every valid pixel of some images of a store, band by band, and write statistics.

    A pixel of a coarse band is counted if all fine pixels within it are valid. Nothing is
    resampled: a band at 20 m has a quarter of the pixels of one at 10 m.

    Raises:
        StoreError: If no image is left, or an identifier is not in the store.
        PixelError: If a band has no valid pixel, or one that is not a number.
    """
    store = Store(config.store)
    rows, words = _choose(store, config)
    found = count_bands(store, rows)
    bins = BINS.get(store.spec.unit)
    file = Path(config.out) if config.out else store.path / STATS
    source = f"{store.path.name}, {words}: {len(rows)} of {len(store)} images"
    source = f"synthetic: {source}" if store.synthetic else source
    report = StatsReport(file, store.spec, found, source, 0.0 if bins is None else bins.width)
    ids = store.table["id"].take(rows).to_pylist()
    write_file(file, _to_json(report, config, subset_hash(ids)).encode())
    return report


def count_bands(store: Store, rows: NDArray[np.int64]) -> dict[str, Summary]:
    """Return the statistics of each band over the valid pixels of some rows.

    Raises:
        PixelError: If a band has no valid pixel, or one that is not a number.
    """
    bins = BINS.get(store.spec.unit)
    counts: dict[str, Histogram] = {
        band: IntegerHistogram() if bins is None else FloatHistogram(bins)
        for band in store.spec.bands
    }
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    for chunk in track(chunks, "counting pixels"):
        images = store.images(chunk)
        valid = images.valid.numpy()
        for gsd, plane in images.planes.items():
            mask = _coarse(valid, plane.shape[2], plane.shape[3])
            for i, band in enumerate(images.bands[gsd]):
                counts[band].add(plane[:, i].numpy()[mask])
    return {band: counts[band].summary() for band in store.spec.bands}


def read_statistics(file: str | Path) -> Statistics:
    """Return mean and standard deviation of a file that `eofm data stats` wrote.

    Raises:
        StoreError: If it is no such file.
    """
    with foreign(
        StoreError,
        "this is not a file of statistics",
        where=file,
        remedy="write one with `eofm data stats STORE`",
    ):
        plain, whole = opened(parse_json(read_bounded(Path(file), JSON_BYTES)))
        if whole is False:
            raise ValueError("its checksum is not that of its content")
        numbers = [float(one) for key in ("mean", "std") for one in plain[key]]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a mean or a spread that is no number")
        return Statistics(
            str(plain["name"]),
            Sensor(plain["sensor"]),
            Unit(plain["unit"]),
            tuple(plain["bands"]),
            tuple(map(float, plain["mean"])),
            tuple(map(float, plain["std"])),
            str(plain["source"]),
        )


def _choose(store: Store, config: StatsConfig) -> tuple[NDArray[np.int64], str]:
    """Return the rows to be counted, and a description of them."""
    among = np.ones(len(store), bool)
    words = ["all places"]
    if config.split != "all":
        outside = held_out(store.table["location"].to_pylist(), config.holdout, config.seed)
        among = outside if config.split == "held-out" else ~outside
        words = [f"{config.split} places (holdout {config.holdout:g}, seed {config.seed})"]
    for condition in config.where:
        among = among & matching(store, condition)
        words.append(condition)
    if config.ids is not None:
        among = among & with_ids(store, read_ids(config.ids))
        words.append(f"listed in {Path(config.ids).name}")
    if config.sample is not None:
        among = sampled(store, among, config.sample, config.seed)
        words.append(f"a sample of {config.sample}")
    if not among.any():
        raise StoreError("no image is left to count", found=", ".join(words), where=store.path)
    return np.flatnonzero(among), ", ".join(words)


def _coarse(valid: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Return (B, height, width): whether all fine pixels within a coarse one are valid."""
    down, across = valid.shape[1] // height, valid.shape[2] // width
    if down == across == 1:
        return valid
    blocks = valid[:, : height * down, : width * across]
    return np.asarray(blocks.reshape(-1, height, down, width, across).all(axis=(2, 4)))


def _to_json(report: StatsReport, config: StatsConfig, ids_sha256: str) -> str:
    found = list(report.bands.values())
    plain: dict[str, Any] = {
        "name": f"store-{ids_sha256[:8]}",
        "sensor": report.spec.sensor.value,
        "unit": report.spec.unit.value,
        "bands": list(report.bands),
        "mean": [band.mean for band in found],
        "std": [band.std for band in found],
        "min": [band.minimum for band in found],
        "max": [band.maximum for band in found],
        "percentiles": {
            f"{percent:g}": [band.percentiles[i] for band in found]
            for i, percent in enumerate(PERCENTILES)
        },
        "percentile_bin_width": report.resolution,
        "pixels": [band.count for band in found],
        "source": report.source,
        "split": {
            "name": config.split,
            "holdout": config.holdout,
            "seed": config.seed,
            "where": config.where,
        },
        "ids_sha256": ids_sha256,
    }
    return json.dumps(sealed(plain), indent=2, ensure_ascii=False) + "\n"
