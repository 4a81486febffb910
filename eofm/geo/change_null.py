"""What is usual for a cell, and how far from it unchanged cells are.

Everything is counted in the natural logarithm of what the season leaves unexplained.

1. Usual is the median among the neighbours of a cell. With null dates, cells that moved more than
   their neighbours between these are expected to do so again: that excess, times the slope that
   fits the two dates compared, is taken off as well.
2. The spread of unchanged cells is taken from the two dates themselves, since each pair of dates
   has a haze and a season of its own: the half below the usual, to which a change adds nothing,
   mirrored upwards (the idea of the empirical null, Efron 2004, doi 10.1198/016214504000000089).
3. The upper half of unchanged cells reaches further than the lower one. A cell is a change if its
   excess is above `LONGER` times the mirrored spread. That factor was chosen by measurement, on
   other ground than that of benchmarks/results/change_rate.md: it is no theory.

A change that is wider than half of the window is usual there, and no cell of it stands out. Where
whole neighbourhoods differ far more than others, by `_WIDE` times the median distance of cells from
their usual, that is counted and said (`Scores.wide`). Between dates without a change, of the
synthetic world and of WorldCereal (26 x 26 patches at most), it was at most a third of that. It
tells nothing of a change that the linear rule has learnt.

Shapes: N cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.errors import ConfigError
from eofm.geo.cells import Cells, Doubles, GridCells, metric_centres
from eofm.geo.change_distance import Distances
from eofm.geo.maps_config import HIGHEST_RATE
from eofm.probes.knn import Neighbours
from eofm.terminal import track

__all__ = ["LONGER", "Scores", "scores", "tells", "whole_window"]

LONGER: Final = 1.5  # times the spread below the usual: of the spread above, without a change
_FEWEST: Final = 9  # cells that tell what is usual: of the smallest window
_ACROSS: Final = 9  # neighbours at a side that the median is taken of: every few of the window
_NEAREST: Final = _ACROSS**2  # neighbouring chips, of the evenly thinned ones
_ROUNDS: Final = 5  # of weighting of the slope
_MORE: Final = "compare more ground: embed whole scenes, without --where"
_WIDE: Final = 5.0  # medians below the usual: of normal logarithms, 3.4 standard deviations
_CALM: Final = 0.25  # quantile of the usual of cells that stands for ground that did not change


@dataclass(frozen=True, eq=False)
class Scores:
    """How much more each cell differs than is usual.

    Args:
        score: Over the threshold, (N,): above 1 is a change.
        p: Nominal share of unchanged cells that differ as much or more, (N,).
        samples: How many cells tell the spread of unchanged ones.
        wide: How many cells lie where what is usual is itself far above that of calm ground: where
            a change may be too wide to be seen.
    """

    score: Doubles
    p: Doubles
    samples: int
    wide: int


def scores(
    cells: Cells, found: Distances, null: Sequence[Distances], rate: float, window: int
) -> Scores:
    """Return by how much cells differ more than is usual.

    Args:
        cells: Of the first date.
        found: Between the two dates.
        null: Between pairs of dates between which nothing has changed.
        rate: Share of unchanged cells that are reported.
        window: Cells at a side of the neighbourhood.

    Raises:
        ConfigError: If there are too few cells, of the two dates or of the null ones.
    """
    if not (~found.alike & np.isfinite(found.cosine)).any():  # there is no spread to tell
        none = np.where(np.isfinite(found.cosine), 0.0, np.nan)
        return Scores(none, none + 1.0, 0, 0)
    count = _differing(found)
    if count < _FEWEST:
        raise ConfigError(
            "so few cells do not tell what is usual among neighbours",
            found=f"{count} cells that differ",
            expected=f"{_FEWEST} or more",
            remedy=_MORE,
        )
    excess = _excess(cells, found, window)
    usual = found.log - excess
    if null:
        told = _telling(null)
        excess = _without_usual(excess, [_excess(cells, one, window) for one in told])
    below = np.sort(-excess[excess <= 0])
    half = len(below)
    place = _place(half, 2 * rate)
    if place > half:
        raise _too_low(rate, count, half)
    score = np.exp(excess - LONGER * below[place - 1])
    with np.errstate(invalid="ignore"):
        raised = usual - np.nanquantile(usual, _CALM) > _WIDE * np.median(below)
    as_much = half - np.searchsorted(below, np.where(excess > 0, excess / LONGER, -excess), "left")
    upper = (as_much + 1) / (2 * (half + 1))
    p = np.where(excess > 0, upper, 1 - upper)
    p[np.isnan(excess)] = np.nan
    never = found.alike | (found.unexplained <= found.least)
    score[never], p[never] = 0.0, 1.0
    return Scores(score, p, count, int(raised.sum()))


def whole_window(cells: Cells) -> int:
    """Return the window from which on the neighbourhood of every cell is the whole scene."""
    if isinstance(cells, GridCells):
        return 2 * max(cells.patches.grid.height, cells.patches.grid.width) - 1
    return int(np.ceil(np.sqrt(len(cells.valid))))


def _differing(found: Distances) -> int:
    return int(np.isfinite(found.log).sum())


def tells(found: Distances) -> bool:
    """Return whether two dates have enough cells in common that differ to say what is usual."""
    return _differing(found) >= _FEWEST


def _telling(null: Sequence[Distances]) -> list[Distances]:
    """Return pairs of null dates that say how far cells move: others do not share enough ground."""
    told = [one for one in null if tells(one)]
    if not told:
        raise ConfigError(
            "the null dates do not tell how far cells move",
            found=f"{max(map(_differing, null))} cells that differ between two of them",
            expected=f"{_FEWEST} or more",
            remedy="name another date after --null, or leave --null out",
        )
    return told


def _excess(cells: Cells, found: Distances, window: int) -> Doubles:
    """Return by how much the logarithm of each cell is above that of its neighbours, (N,)."""
    log = found.log
    if isinstance(cells, GridCells):
        return log - _grid_medians(cells, log, window)
    return log - _chip_medians(cells, log, window)


def _without_usual(excess: Doubles, moved: list[Doubles]) -> Doubles:
    """Return the excess without what each cell's movement between the null dates explains.

    The slope is that of least squares with Cauchy weights, which changes hardly bend, and none
    where cells that moved more then move less now. A cell that no null date shows has its
    neighbours' usual alone.
    """
    known = [np.isfinite(one) for one in moved]
    seen = np.sum(known, axis=0)
    total = np.sum([np.where(there, one, 0.0) for there, one in zip(known, moved, strict=True)], 0)
    usual: Doubles = total / np.maximum(seen, 1)
    there = np.isfinite(excess)
    x, y = usual[there], excess[there]
    weights, slope = np.ones_like(x), 0.0
    for _ in range(_ROUNDS):
        squares = float((weights * x) @ x)
        slope = max(float((weights * x) @ y) / squares, 0.0) if squares > 0 else 0.0
        off = y - slope * x
        spread = max(1.4826 * float(np.median(np.abs(off))), np.finfo(np.float64).tiny)
        with np.errstate(over="ignore"):
            weights = 1 / (1 + np.square(off / spread))
    left = excess - slope * usual
    return np.asarray(left - np.median(left[there]))


_ROUNDING: Final = 1e-9  # of a count times a share: 100 x (1 - 0.01) is not above 99


def _place(count: int, share: float) -> int:
    """Return which of sorted distances at most that share of further ones is above, from 1 on."""
    return int(np.ceil((count + 1) * (1 - share) - _ROUNDING))


def _too_low(rate: float, count: int, half: int) -> ConfigError:
    """Return the refusal of a rate, with the least that is taken where that is a rate."""
    needed = int(np.ceil(1 / (2 * rate) - _ROUNDING)) - 1
    least = float(np.ceil(1e4 / (2 * (half + 1)) - _ROUNDING) / 1e4)
    return ConfigError(
        "so low a rate cannot be told from so few unchanged cells",
        found=f"{count} cells, {half} of them not above the usual, rate {rate:g}",
        expected=f"{needed} of these or more",
        remedy=(f"state a higher rate: --rate {least:g}; or " if least < HIGHEST_RATE else "")
        + _MORE,
    )


def _grid_medians(cells: GridCells, log: Doubles, window: int) -> Doubles:
    """Return the median among neighbours, evenly spread over a window around each patch."""
    grid = cells.patches.grid
    plane = log.reshape(grid.height, grid.width)
    # beyond the grid there are no neighbours: offsets that reach further would all fall there
    high, wide = (min(window // 2, side - 1) for side in plane.shape)
    padded = np.pad(plane, ((high, high), (wide, wide)), constant_values=np.nan)
    found = np.empty_like(plane)
    for row in track(range(grid.height), "comparing cells with their neighbours"):
        near = [
            padded[row + high + down, wide + right : wide + right + grid.width]
            for down in _offsets(high, grid.height)
            for right in _offsets(wide, grid.width)
        ]
        found[row] = _median(np.stack(near, axis=1))
    return found.ravel()


def _offsets(reach: int, side: int) -> NDArray[np.int64]:
    """Return whole numbers evenly spread from -reach to reach: `_ACROSS`, or twice as many.

    Of a window about twice as wide as the grid, half of the neighbours would lie beside it.
    """
    window = 2 * reach + 1
    count = min(window, _ACROSS * max(1, round(window / side)))
    return np.unique(np.linspace(-reach, reach, count).round().astype(np.int64))


def _chip_medians(cells: Cells, log: Doubles, window: int) -> Doubles:
    """Return the median among neighbours of each chip, of as much ground as a window of patches.

    Of the chips, so many are left out by chance that the nearest ones of the rest reach as far.
    """
    known = np.flatnonzero(np.isfinite(log))
    kept = max(min(_NEAREST, len(known)), round(len(known) * _NEAREST / window**2))
    some = np.random.default_rng(0).permutation(len(known))[: min(kept, len(known))]
    places = torch.from_numpy(metric_centres(cells, known))
    nearest = Neighbours(places[some]).nearest(places, min(_NEAREST, len(some))).numpy()
    found = np.full(len(log), np.nan)
    found[known] = _median(log[known[some]][nearest])
    return found


def _median(values: Doubles) -> Doubles:
    """Return the median of each row without NaN; NaN for a row of nothing else."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    rows = np.arange(len(values))
    middle = (
        ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2 % values.shape[1]]
    ) / 2
    return np.where(count > 0, middle, np.nan)
