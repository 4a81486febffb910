"""Where two dates differ more than unchanged ground does.

    import eofm

    found = eofm.detect_change(before, after, null=[earlier, other], rate=0.001)
    found.to_xarray()           # score (above 1: a change) and p
    found.polygons()

Vectors of unchanged ground differ too: season, sun and haze move them. So a distance alone says
nothing, and the threshold comes from ground that has not changed.

*With dates between which nothing has changed* (`null`): the distances between all pairs of them and
the first date are what no change looks like. A cell is a change if its distance is above their
(1 - rate) quantile, with the correction for a finite sample of conformal prediction (Vovk et al.
2005; Laxhammar and Falkman 2010, doi 10.1145/1833280.1833281): of unchanged cells whose distances
come from the same distribution, at most the share `rate` is reported. That holds for dates that are
as far apart in the season as the two compared.

*Without*: what is usual is the median of the logarithm of the distance among a cell's neighbours,
and the spread below it mirrored upwards is taken for that of unchanged ground. That rests on two
assumptions, that most of the neighbourhood has not changed and that logarithms spread alike to both
sides, so that the rate is nominal; and a change wider than half of the neighbourhood is not seen.

Shapes: N cells, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.errors import ConfigError, DataError
from eofm.geo.cells import (
    Cells,
    ChipCells,
    Embeddings,
    Floats,
    GridCells,
    cells_of,
    metric_centres,
    on_grid,
)
from eofm.geo.places import geo_frame
from eofm.geo.vectors.embeddings import ChipTable, require_same_vectors
from eofm.probes.neighbours import Neighbours
from eofm.raster.grid import crs_text

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import Dataset

_ACROSS: Final = 9  # neighbours at a side that the median is taken of: every few of the window
_NEAREST: Final = 24  # neighbouring chips
_LEAST: Final = 1e-12
_MOVED: Final = 0.05  # of a chip: those of a named grid are on one ground to half a pixel


class NullKind(StrEnum):
    """What says how far vectors move without a change."""

    DATES = "other dates between which nothing has changed"
    NEIGHBOURS = "the neighbours of each cell"


@dataclass(frozen=True, eq=False)
class ChangeResult:
    """How much each cell has changed.

    Args:
        cells: Of the first date.
        distance: Cosine distance of the two dates, float32 (N,), NaN without two vectors.
        score: Distance over the threshold, float32 (N,): above 1 is a change.
        p: Share of unchanged cells that differ as much or more, float32 (N,).
        null: What that was found from.
        samples: How many distances of unchanged ground there were.
        rate: Share of unchanged cells that are reported.
    """

    cells: Cells
    distance: Floats
    score: Floats
    p: Floats
    null: NullKind
    samples: int
    rate: float

    def __repr__(self) -> str:
        return (
            f"ChangeResult({int(self.changed.sum()):,} of {len(self.score):,} cells changed, at "
            f"most {self.rate:g} of the unchanged; by {self.null})"
        )

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Which cells are a change, (N,)."""
        return np.nan_to_num(self.score, nan=0.0) > 1

    def to_xarray(self) -> Dataset:
        """Return `score`, `p` and `distance` on the grid of the patches.

        Raises:
            DataError: If the cells are chips, which have no grid.
        """
        planes = {"score": self.score, "p": self.p, "distance": self.distance}
        return on_grid(self.cells, planes, "take the polygons: found.polygons()")

    def polygons(self, smallest: int = 1) -> GeoDataFrame:
        """Return changed cells that touch as one polygon each: cells, mean and highest score.

        Args:
            smallest: Number of cells of the smallest one.
        """
        import shapely

        which = np.flatnonzero(self.changed)
        shapes = self.cells.outlines(which)
        merged = np.asarray(shapely.get_parts(shapely.union_all(shapes)), object)
        tree = shapely.STRtree(merged)
        cell, part = tree.query(shapely.point_on_surface(shapes), predicate="intersects")
        count = np.bincount(part, minlength=len(merged))
        scores = self.score[which][cell].astype(np.float64)
        total = np.bincount(part, scores, len(merged))
        highest = np.zeros(len(merged))
        np.maximum.at(highest, part, scores)
        kept = np.flatnonzero(count >= smallest)
        order = kept[np.argsort(-highest[kept], kind="stable")]
        return geo_frame(
            merged[order],
            self.cells.crs,
            {
                "cells": count[order],
                "score": total[order] / np.maximum(count[order], 1),
                "highest": highest[order],
            },
        )


def detect_change(
    before: Embeddings,
    after: Embeddings,
    null: Sequence[Embeddings] = (),
    *,
    rate: float = 0.01,
    window: int = 33,
) -> ChangeResult:
    """Score every cell by how much more two dates differ than unchanged ground does.

    Args:
        before: Embeddings of the first date.
        after: Of the second, on the same grid, of the same model and plan. Of two tables of chips,
            those are compared that have the same name (`id`) and ground.
        null: Of dates between which, and the first, nothing has changed.
        rate: Share of unchanged cells that are reported, in (0, 0.5).
        window: Cells at a side of the neighbourhood, without `null`.

    Raises:
        DataError: If two do not lie on one grid, or share no cell with a vector.
        SpecError: If vectors of two models, or of two ways from pixel to network, are compared.
        ConfigError: If the null dates have too few cells for the rate.
    """
    every = [cells_of(one) for one in _of_one_name([before, after, *null])]
    for other in every[1:]:
        require_same_vectors(every[0].made, other.made)
        _require_same_ground(every[0], other)
    distance = cosine_distance(every[0], every[1])
    known = np.isfinite(distance)
    if not known.any():
        raise DataError(
            "no cell has a vector at both dates",
            found=f"{int(every[0].valid.sum())} and {int(every[1].valid.sum())} cells with one",
            remedy="take dates on which other ground is free of clouds",
        )
    if null:
        quiet = [cosine_distance(a, b) for a, b in combinations([every[0], *every[2:]], 2)]
        samples = np.concatenate([one[np.isfinite(one)] for one in quiet])
        threshold, p = _against_dates(distance, np.sort(samples), rate)
        score, kind, count = distance / threshold, NullKind.DATES, len(samples)
    else:
        score, p, count = _against_neighbours(every[0], distance, rate, window)
        kind = NullKind.NEIGHBOURS
    return ChangeResult(
        every[0], distance, score.astype(np.float32), p.astype(np.float32), kind, count, rate
    )


def cosine_distance(first: Cells, second: Cells) -> Floats:
    """Return 1 - cosine of the two vectors of each cell, float32 (N,), NaN without two.

    Args:
        first: Cells of one date.
        second: The same cells at another.
    """
    found = np.full(len(first.valid), np.nan, np.float32)
    for (rows, a), (_, b) in zip(first.blocks(), second.blocks(), strict=True):
        with np.errstate(invalid="ignore"):
            product = np.einsum("nd,nd->n", a, b)
            lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            found[rows] = 1 - product / np.maximum(lengths, _LEAST)
    found[~(first.valid & second.valid)] = np.nan
    # rounding may bring it below 0, of which there is no logarithm
    return np.maximum(found, 0, where=np.isfinite(found), out=found)


# ------------------------------------------------------------------------------- the same ground


def _of_one_name(every: list[Embeddings]) -> list[Embeddings]:
    """Return chips in one order, those alone that all tables name; anything else as it is."""
    tables = [one for one in every if isinstance(one, ChipTable) and "id" in one.table]
    names = [one.table["id"].astype(str).tolist() for one in tables]
    if len(tables) < len(every) or any(len(set(own)) < len(own) for own in names):
        return every
    if all(own == names[0] for own in names):
        return every
    shared = set(names[0]).intersection(*names[1:])
    if not shared:
        raise _elsewhere(f"chips {names[1][0]}, ...", f"chips {names[0][0]}, ...")
    found: list[Embeddings] = []
    for table, own in zip(tables, names, strict=True):
        row = {name: number for number, name in enumerate(own)}
        found.append(table[np.array([row[name] for name in names[0] if name in shared])])
    return found


def _require_same_ground(first: Cells, second: Cells) -> None:
    if isinstance(first, GridCells) and isinstance(second, GridCells):
        one, other = first.patches.grid, second.patches.grid
        shape = (one.height, one.width) == (other.height, other.width)
        if not shape or other.offset_in(one) != (0, 0):
            raise _elsewhere(_grid_words(second), _grid_words(first))
        return
    if isinstance(first, ChipCells) and isinstance(second, ChipCells):
        apart = _chips_apart(first, second)
        if apart:
            raise _elsewhere(*apart)
        return
    raise DataError(
        "chips and patches cannot be compared",
        remedy="embed both dates alike: eofm embed SCENE --model M --patches --out DIR",
    )


def _grid_words(cells: GridCells) -> str:
    grid = cells.patches.grid
    x, y = grid.point(0, 0)
    return (
        f"{grid.height} x {grid.width} patches of {grid.transform.a:g} from ({x:.10g}, {y:.10g}) "
        f"in {crs_text(grid.require_crs())[:40]}"
    )


def _chips_apart(first: ChipCells, second: ChipCells) -> tuple[str, str] | None:
    """Return in what the chips of two tables differ: found and expected; None if they do not."""
    if len(first.chips) != len(second.chips):
        return f"{len(second.chips)} chips", f"{len(first.chips)}"
    if first.crs != second.crs:
        return crs_text(second.crs)[:60], crs_text(first.crs)[:60]
    import shapely

    every = np.arange(len(first.chips))
    one, other = (shapely.bounds(cells.outlines(every)) for cells in (first, second))
    off = np.abs(one - other).max(axis=1) > _MOVED * (one[:, 2] - one[:, 0])
    if off.any():
        number = int(np.flatnonzero(off)[0])
        words = (", ".join(f"{v:.8g}" for v in box[number]) for box in (other, one))
        there, here = words
        return f"chip {number} at {there} ({int(off.sum())} chips lie elsewhere)", here
    return None


def _elsewhere(found: str, expected: str) -> DataError:
    return DataError(
        "the two dates do not lie on one grid",
        found=found,
        expected=expected,
        remedy="embed both on the named grid, whose chips are the same for every scene of a place: "
        "eofm embed SCENE --model M --chips 32 --grid majortom --out DIR; or cut both scenes to "
        "the same pixels first: --where WEST,SOUTH,EAST,NORTH",
    )


# ------------------------------------------------------------------------------------- the null


def _against_dates(
    distance: Floats, samples: NDArray[np.float32], rate: float
) -> tuple[float, NDArray[np.float64]]:
    """Return the threshold and p of each cell, for sorted distances of unchanged ground."""
    count = len(samples)
    place = int(np.ceil((count + 1) * (1 - rate)))
    if place > count:
        least = 1 / (count + 1)
        raise ConfigError(
            "so low a rate cannot be told from so few unchanged cells",
            found=f"{count} distances between the null dates, rate {rate:g}",
            expected=f"more than {1 / rate:.0f} distances",
            remedy=f"state a higher rate: --rate {np.ceil(least * 1e4) / 1e4:g}; "
            "or name more dates: --null",
        )
    threshold = max(float(samples[place - 1]), _LEAST)
    as_much = count - np.searchsorted(samples, distance, side="left")
    p = np.where(np.isfinite(distance), (as_much + 1) / (count + 1), np.nan)
    return threshold, p


def _against_neighbours(
    cells: Cells, distance: Floats, rate: float, window: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return score, p of each cell, and how many cells tell the spread."""
    log = np.log(np.maximum(distance.astype(np.float64), _LEAST))
    usual = _grid_medians(cells, log, window) if isinstance(cells, GridCells) else None
    if usual is None:
        usual = _chip_medians(cells, log)
    excess = log - usual
    known = excess[np.isfinite(excess)]
    # below the median a change adds nothing: mirrored, the lower half is all of unchanged ground
    below = np.sort(-known[known <= 0])
    half = len(below)
    place = int(np.ceil((half + 1) * (1 - 2 * rate)))
    if place > half:
        raise ConfigError(
            "so low a rate cannot be told from so few cells",
            found=f"{len(known)} cells, rate {rate:g}",
            expected=f"more than {1 / rate:.0f} cells",
            remedy=f"state a higher rate: --rate {np.ceil(1e4 / (2 * half)) / 1e4:g}; or name "
            "dates between which nothing has changed: --null",
        )
    threshold = below[place - 1]
    score = np.exp(excess - threshold)
    as_much = half - np.searchsorted(below, np.abs(excess), side="left")
    upper = (as_much + 1) / (2 * (half + 1))
    p = np.where(excess >= 0, upper, 1 - upper)
    return score, np.where(np.isfinite(excess), p, np.nan), len(known)


def _grid_medians(cells: GridCells, log: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the median among neighbours, evenly spread over a window around each patch."""
    grid = cells.patches.grid
    plane = log.reshape(grid.height, grid.width)
    reach = window // 2
    offsets = np.unique(np.linspace(-reach, reach, min(_ACROSS, 2 * reach + 1)).round().astype(int))
    padded = np.pad(plane, reach, constant_values=np.nan)
    found = np.empty_like(plane)
    for row in range(grid.height):
        near = [
            padded[row + reach + down, reach + right : reach + right + grid.width]
            for down in offsets
            for right in offsets
        ]
        found[row] = _median(np.stack(near, axis=1))
    return found.ravel()


def _chip_medians(cells: Cells, log: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median among the nearest chips of each chip."""
    known = np.flatnonzero(np.isfinite(log))
    places = torch.from_numpy(metric_centres(cells, known))
    count = min(_NEAREST + 1, len(known))
    nearest = Neighbours(places).nearest(places, count).numpy()
    found = np.full(len(log), np.nan)
    found[known] = _median(log[known][nearest])
    return found


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of each row without NaN; NaN for a row of nothing else."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    rows = np.arange(len(values))
    middle = (
        ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2 % values.shape[1]]
    ) / 2
    return np.where(count > 0, middle, np.nan)
