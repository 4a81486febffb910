"""Expected difference of a cell without a change, and the spread around it.

All values are natural logarithms of the difference that the season leaves unexplained.

1. The expected value is the median of the neighbours of a cell. With null dates, cells that moved
   more than their neighbours between these are expected to do so again: that excess, times the
   slope that fits the two compared dates, is subtracted too.
2. The spread of unchanged cells is estimated from the two dates themselves, since each pair of
   dates differs in haze and season: the half below the expected value, which changes do not affect,
   mirrored upwards (the idea of the empirical null, Efron 2004, doi 10.1198/016214504000000089).
3. The upper half of unchanged cells has a longer tail than the lower one. A cell is a change if its
   excess is above `LONGER` times the mirrored spread. That factor was chosen by measurement, on
   ground other than that of benchmarks/results/change_rate.md; it has no theoretical basis.

A change wider than half of the window raises the expected value there, and no cell of it stands
out. Whole neighbourhoods that differ far more than others, by `_WIDE` times the median distance of
cells from their expected value, are counted and reported (`Scores.wide`). Between dates without a
change, of the synthetic world and of WorldCereal (at most 26 x 26 patches), the excess was at most
a third of that. A change that the linear rule has fitted is not detected this way.

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

LONGER: Final = 1.5  # ratio of the spread above the expected value to that below, without a change
_FEWEST: Final = 9  # cells needed for the expected value: those of the smallest window
_ACROSS: Final = 9  # neighbours per side used for the median, evenly spaced in the window
_NEAREST: Final = _ACROSS**2  # neighbouring chips, after even thinning
_ROUNDS: Final = 5  # of reweighting of the slope
_MORE: Final = "compare more ground: embed whole scenes, without --where"
_WIDE: Final = 5.0  # medians below the usual: of normal logarithms, 3.4 standard deviations
_CALM: Final = 0.25  # quantile of the expected values that stands for unchanged ground


@dataclass(frozen=True, eq=False)
class Scores:
    """How much more each cell differs than expected.

    Args:
        score: Excess divided by the threshold, (N,): above 1 is a change.
        p: Nominal share of unchanged cells with an equal or larger difference.
        samples: Number of cells from which the spread of unchanged cells is estimated.
        wide: Number of cells whose expected value is far above that of unchanged ground, so that a
            change there may be too wide to be detected.
    """

    score: Doubles
    p: Doubles
    samples: int
    wide: int


def scores(
    cells: Cells, found: Distances, null: Sequence[Distances], rate: float, window: int
) -> Scores:
    """Return how much more cells differ than expected.

    Args:
        cells: Cells of the first date.
        found: Distances between the two dates.
        null: Distances between pairs of dates without a change.
        rate: Nominal share of unchanged cells that are reported.
        window: Side of the neighbourhood in cells.

    Raises:
        ConfigError: If there are too few cells, in the two dates or in the null dates.
    """
    if not (~found.alike & np.isfinite(found.cosine)).any():  # without a spread
        none = np.where(np.isfinite(found.cosine), 0.0, np.nan)
        return Scores(none, none + 1.0, 0, 0)
    count = _differing(found)
    if count < _FEWEST:
        raise ConfigError(
            "there are too few cells to estimate the usual difference among neighbours",
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
    """Return the smallest window for which every neighbourhood is the whole scene."""
    if isinstance(cells, GridCells):
        return 2 * max(cells.patches.grid.height, cells.patches.grid.width) - 1
    return int(np.ceil(np.sqrt(len(cells.valid))))


def _differing(found: Distances) -> int:
    return int(np.isfinite(found.log).sum())


def tells(found: Distances) -> bool:
    """Return whether two dates share enough differing cells to estimate the usual difference."""
    return _differing(found) >= _FEWEST


def _telling(null: Sequence[Distances]) -> list[Distances]:
    """Return pairs of null dates that share enough ground to show how cells move."""
    told = [one for one in null if tells(one)]
    if not told:
        raise ConfigError(
            "the null dates do not show how far cells move",
            found=f"{max(map(_differing, null))} cells that differ between two of them",
            expected=f"{_FEWEST} or more",
            remedy="name another date after --null, or leave --null out",
        )
    return told


def _excess(cells: Cells, found: Distances, window: int) -> Doubles:
    """Return the logarithm of each cell minus the median of its neighbours, (N,)."""
    log = found.log
    if isinstance(cells, GridCells):
        return log - _grid_medians(cells, log, window)
    return log - _chip_medians(cells, log, window)


def _without_usual(excess: Doubles, moved: list[Doubles]) -> Doubles:
    """Return the excess without the part explained by the movement between the null dates.

    The slope is fitted by least squares with Cauchy weights, which are robust to changes, and is
    zero where cells that moved more then move less now. For a cell without a valid null date, only
    the median of its neighbours is subtracted.
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
    """Return the rank (from 1) of a sorted distance that at most that share of others exceeds."""
    return int(np.ceil((count + 1) * (1 - share) - _ROUNDING))


def _too_low(rate: float, count: int, half: int) -> ConfigError:
    """Return the error for a rate, with the lowest possible rate if there is one."""
    needed = int(np.ceil(1 / (2 * rate) - _ROUNDING)) - 1
    least = float(np.ceil(1e4 / (2 * (half + 1)) - _ROUNDING) / 1e4)
    return ConfigError(
        "the rate is too low for so few unchanged cells",
        found=f"{count} cells, {half} of them at or below the expected difference, rate {rate:g}",
        expected=f"{needed} of these or more",
        remedy=(f"state a higher rate: --rate {least:g}; or " if least < HIGHEST_RATE else "")
        + _MORE,
    )


def _grid_medians(cells: GridCells, log: Doubles, window: int) -> Doubles:
    """Return the median of neighbours that are evenly spaced in a window around each patch."""
    grid = cells.patches.grid
    plane = log.reshape(grid.height, grid.width)
    # offsets that reach beyond the grid would all fall outside it
    high, wide = (min(window // 2, side - 1) for side in plane.shape)
    padded = np.pad(plane, ((high, high), (wide, wide)), constant_values=np.nan)
    downs, rights = _offsets(high, grid.height), _offsets(wide, grid.width)
    found = np.empty_like(plane)
    for row in track(range(grid.height), "comparing cells with their neighbours"):
        near = [
            padded[row + high + down, wide + right : wide + right + grid.width]
            for down in downs
            for right in rights
        ]
        found[row] = _median(np.stack(near, axis=1))
    return found.ravel()


def _offsets(reach: int, side: int) -> NDArray[np.int64]:
    """Return `_ACROSS` integers evenly spaced from -reach to reach, or twice as many.

    For a window about twice as wide as the grid, half of the neighbours would be outside it.
    """
    window = 2 * reach + 1
    count = min(window, _ACROSS * max(1, round(window / side)))
    return np.unique(np.linspace(-reach, reach, count).round().astype(np.int64))


def _chip_medians(cells: Cells, log: Doubles, window: int) -> Doubles:
    """Return the median of the neighbours of each chip, over the area of a window of patches.

    Chips are thinned at random so that the nearest remaining ones cover the same area.
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
    """Return the median of each row without NaN; NaN for a row of NaN."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    rows = np.arange(len(values))
    middle = (
        ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2 % values.shape[1]]
    ) / 2
    return np.where(count > 0, middle, np.nan)
