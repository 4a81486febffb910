"""Detect where two dates differ more than unchanged ground does.

    import eofm

    found = eofm.detect_change(before, after, null=[earlier, other], rate=0.001)
    found.to_xarray()           # score (above 1: a change) and p
    found.polygons()

Vectors of unchanged ground differ too: season, sun and haze move them, in the same way over a whole
scene. The score therefore uses the part of the difference that a linear rule, fitted on the scene,
cannot predict from one date to the other (`change_distance`). It compares that part with the
expected one (`change_null`): the median of the neighbouring cells and, given dates without a change
(`null`), the movement of the cell between these. The threshold is the spread below the expected
value, mirrored upwards and widened.

The rate is nominal, with and without null dates, however many cells there are: cells of one date
share its weather, so thousands of cells are few independent draws. Measured rates of false alarms
and of detection are in benchmarks/results/change_rate.md. Changes that the rule can fit are missed:
a change of most of a land-cover class, or one wider than half of the neighbourhood.

A distance counts if it is above the numerical resolution: above that of two vectors that differ by
one quantisation step in every dimension. Embeddings of the same scene are not two dates and are
rejected.

The files of `eofm change`:

    change.tif, change.qml   of a patch grid: score (above 1: a change), p, cosine distance
    change.gpkg              changed cells that touch, as polygons
    change.json              rate, null, counts, settings, provenance of all dates
    config.yaml              the settings; `eofm change --config config.yaml` repeats the run

Shapes: N cells, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from eofm.errors import DataError
from eofm.geo.cells import (
    Cells,
    ChipCells,
    Embeddings,
    Floats,
    GridCells,
    cells_of,
    degrees,
    on_grid,
)
from eofm.geo.change_distance import distances
from eofm.geo.change_null import LONGER, scores, tells, whole_window
from eofm.geo.embedding_files import open_embeddings
from eofm.geo.embeddings import (
    ChipTable,
    Provenance,
    require_same_vectors,
)
from eofm.geo.maps_config import ChangeConfig, ChangeRule
from eofm.geo.places import geo_frame
from eofm.geo.results import (
    CONFIG,
    NO_NUMBER,
    ResultFiles,
    check_folder,
    drop_earlier,
    exclusive,
    plane,
    score_qml,
    write_cog,
    write_frame,
    write_record,
    write_settings,
)
from eofm.io import write_file
from eofm.raster.grid import crs_text

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import Dataset

__all__ = ["ChangeResult", "NullKind", "detect_change", "run_change"]


_MOVED: Final = 0.05  # of a chip: chips of a named grid coincide to half a pixel


class NullKind(StrEnum):
    """Source of the movement of vectors without a change."""

    DATES = "the neighbours of each cell, and other dates between which nothing has changed"
    NEIGHBOURS = "the neighbours of each cell"


@dataclass(frozen=True, eq=False, repr=False)
class ChangeResult:
    """Amount of change of each cell.

    Args:
        cells: Cells of the first date.
        distance: Cosine distance between the two dates, float32 (N,), NaN if either is undefined.
        score: The part that season does not explain, divided by the threshold, float32 (N,);
            above 1 is a change.
        p: Nominal share of unchanged cells with an equal or larger difference, float32 (N,).
        null: Source of the null distribution.
        samples: Number of cells from which the spread of unchanged cells is estimated.
        rate: Nominal share of unchanged cells that are reported.
        alike: Number of cells whose difference is below the resolution of the stored numbers; these
        are never a change.
        wide: Number of cells in neighbourhoods that differ far more than the rest of the scene. A
            change wider than half of the window has this effect and is not reported.
        dates: Number of null dates used; the others have too little ground in common.
    """

    cells: Cells
    distance: Floats
    score: Floats
    p: Floats
    null: NullKind
    samples: int
    rate: float
    alike: int
    wide: int
    dates: int

    def __repr__(self) -> str:
        return (
            f"ChangeResult({int(self.changed.sum())} of {int(np.isfinite(self.score).sum())} cells "
            f"changed, nominal rate {self.rate:g} by {self.null}, {self.samples} cells)"
        )

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Mask of changed cells, (N,)."""
        return np.nan_to_num(self.score, nan=0.0) > 1

    def to_xarray(self) -> Dataset:
        """Return `score`, `p` and `distance` on the grid of the patches.

        Raises:
            DataError: If the cells are chips, which have no grid.
        """
        planes = {"score": self.score, "p": self.p, "distance": self.distance}
        return on_grid(self.cells, planes, "use the polygons: found.polygons()")

    def polygons(self, smallest: int = 1) -> GeoDataFrame:
        """Return adjacent changed cells as one polygon each: cells, mean and highest score.

        Args:
            smallest: Minimum number of cells of a polygon.
        """
        which = np.flatnonzero(self.changed)
        merged, part = self.cells.merged(which)
        count = np.bincount(part, minlength=len(merged))
        scores = self.score[which].astype(np.float64)
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
    """Score each cell by how much more two dates differ than unchanged ground does.

    Args:
        before: Embeddings of the first date.
        after: Embeddings of the second date, on the same grid, by the same model and plan. For two
            tables of chips, those with the same name (`id`) and ground are compared.
        null: Embeddings of further dates; nothing has changed between these and the first date.
        rate: Nominal share of unchanged cells that are reported, in (0, 0.5).
        window: Side of the neighbourhood in cells; an even number is increased by one. A change
            wider than half of it is not detected.

    Raises:
        DataError: If two are of one scene, are on different grids, or share no cell with a vector.
        SpecError: If vectors of two models, or of two preprocessing plans, are compared.
        ConfigError: If a setting is out of range, or there are too few cells for the rate, or the
            null dates do not differ.
    """
    _ = ChangeRule(rate, window)
    null = _listed(null)
    every = [cells_of(one) for one in _of_one_name([before, after, *null])]
    for other in every[1:]:
        require_same_vectors(every[0].made, other.made)
        _require_same_ground(every[0], other)
    _require_dates(every)
    found = distances(every[0], every[1])
    if not np.isfinite(found.cosine).any():
        raise DataError(
            "no cell has a vector at both dates",
            found=f"{int(every[0].valid.sum())} and {int(every[1].valid.sum())} cells with one",
            remedy="use dates on which the same ground is free of clouds",
        )
    calm = [every[0], *every[2:]]
    pairs = list(combinations(range(len(calm)), 2))
    quiet = [distances(calm[one], calm[other]) for one, other in pairs]
    telling = {n for pair, one in zip(pairs, quiet, strict=True) if tells(one) for n in pair} - {0}
    told = scores(every[0], found, quiet, rate, window)
    return ChangeResult(
        every[0],
        found.cosine,
        told.score.astype(np.float32),
        told.p.astype(np.float32),
        NullKind.DATES if null else NullKind.NEIGHBOURS,
        told.samples,
        rate,
        int(found.alike.sum()),
        told.wide,
        len(telling),
    )


# ------------------------------------------------------------------- two dates of the same ground


def _listed(null: object) -> Sequence[Embeddings]:
    """Return the null dates; reject embeddings that are not in a list."""
    if isinstance(null, list | tuple):
        return null
    raise DataError(
        "null is not a list of dates",
        found=f"an object of type {type(null).__name__}",
        expected="a list of embeddings, empty without null dates",
        remedy="put it into a list: null=[earlier, other]",
    )


def _require_dates(every: Sequence[Cells]) -> None:
    """Reject two dates of the same scene: their distance does not show how vectors move."""
    names = ["the first date", "the second date", *["a date of the null"] * (len(every) - 2)]
    for (name, one), (other_name, other) in combinations(zip(names, every, strict=True), 2):
        scenes = _hashed(other.made)
        if scenes and scenes == _hashed(one.made):
            first = other.made.scenes[0]
            raise DataError(
                f"{other_name} is of the same scene as {name}",
                found=f"{first.id}, sha256 {first.sha256[:16]}",
                expected="a different scene for each date",
                remedy="name the embeddings of another date"
                if other_name == names[1]
                else "name another date after --null, or leave this one out",
            )


def _hashed(made: Provenance) -> frozenset[tuple[str, str]]:
    """Return hash and date of each scene (a file may hold several dates); empty without hashes."""
    known = all(scene.sha256 for scene in made.scenes)
    return frozenset((scene.sha256, scene.date) for scene in made.scenes if known)


def _of_one_name(every: list[Embeddings]) -> list[Embeddings]:
    """Return the chips that all tables contain, in one order; other embeddings unchanged.

    Chips on a scene's own grid are named after the scene: without common names, those on the same
    ground are taken.
    """
    tables = [one for one in every if isinstance(one, ChipTable) and "id" in one.table]
    names = [one.table["id"].astype(str).tolist() for one in tables]
    if len(tables) < len(every) or any(len(set(own)) < len(own) for own in names):
        return every
    if all(own == names[0] for own in names):
        return every
    shared = set(names[0]).intersection(*names[1:])
    if not shared:
        return _of_one_place(tables)
    found: list[Embeddings] = []
    for table, own in zip(tables, names, strict=True):
        row = {name: number for number, name in enumerate(own)}
        found.append(table[np.array([row[name] for name in names[0] if name in shared])])
    return found


def _of_one_place(tables: Sequence[ChipTable]) -> list[Embeddings]:
    """Return the chips of all tables that are on the same ground, in the order of the first."""
    import shapely

    first = tables[0]
    centres = shapely.centroid(first.table.geometry.array)
    side = float(np.median(np.ptp(shapely.bounds(first.table.geometry.array)[:, ::2], axis=1)))
    rows = np.full((len(tables), len(first)), -1)
    rows[0] = np.arange(len(first))
    for row, table in zip(rows[1:], tables[1:], strict=True):
        if table.crs == first.crs:
            tree = shapely.STRtree(shapely.centroid(table.table.geometry.array))
            here, there = tree.query_nearest(centres, max_distance=_MOVED * side, all_matches=False)
            row[here] = there
    common = (rows >= 0).all(axis=0)
    if not common.any():
        one, other = (ChipCells(table) for table in tables[:2])
        words = (f"chips of {side:g} in {crs_text(cells.crs)[:40]}" for cells in (other, one))
        raise _elsewhere(other, one, *words)
    return [table[row[common]] for table, row in zip(tables, rows, strict=True)]


def _require_same_ground(first: Cells, second: Cells) -> None:
    if isinstance(first, GridCells) and isinstance(second, GridCells):
        one, other = first.patches.grid, second.patches.grid
        shape = (one.height, one.width) == (other.height, other.width)
        if not shape or other.offset_in(one) != (0, 0):
            raise _elsewhere(second, first, _grid_words(second), _grid_words(first))
        return
    if isinstance(first, ChipCells) and isinstance(second, ChipCells):
        apart = _chips_apart(first, second)
        if apart:
            raise _elsewhere(second, first, *apart)
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
    """Return how the chips of two tables differ, as found and expected; None if they do not."""
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
        return f"chip {number} at {there} ({int(off.sum())} chips are elsewhere)", here
    return None


def _elsewhere(second: Cells, first: Cells, found: str, expected: str) -> DataError:
    boxes = [degrees(cells, np.arange(len(cells.valid))) for cells in (second, first)]
    low, high = (np.stack([f(box, axis=0) for box in boxes]) for f in (np.min, np.max))
    if (low.max(axis=0) > high.min(axis=0)).any():
        there, here = (
            ", ".join(f"{edge:.4f}" for edge in (*west_south, *east_north))
            for west_south, east_north in zip(low, high, strict=True)
        )
        return DataError(
            "the two dates are of different places",
            found=f"{there} (west, south, east, north)",
            expected=here,
            remedy="name embeddings of the same place at another date",
        )
    return DataError(
        "the two dates are not on the same grid",
        found=found,
        expected=expected,
        remedy="embed both on the named grid, whose chips are the same for every scene of a place: "
        "eofm embed SCENE --model M --chips 32 --grid majortom --out DIR; or cut both scenes to "
        "the same pixels first: --where WEST,SOUTH,EAST,NORTH",
    )


# ---------------------------------------------------------------------------------------- the files

_WHITE: Final = 2.0  # lowest score that the style shows


def run_change(config: ChangeConfig) -> ResultFiles:
    """Compare two dates and write all files.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If embeddings cannot be used or are on different grids, or files cannot be
            written.
        SpecError: If vectors of two models are compared.
        ConfigError: If there are too few unchanged cells for the rate, or another process or
            verb writes there.
    """
    check_folder(config, Path(config.out))
    with exclusive(Path(config.out)):
        return _run(config)


def _run(config: ChangeConfig) -> ResultFiles:
    before, after = open_embeddings(config.before), open_embeddings(config.after)
    null = [open_embeddings(one) for one in config.null or ()]
    found = detect_change(before, after, null, rate=config.rate, window=config.window)
    folder, polygons = Path(config.out), found.polygons(config.smallest)
    record: dict[str, Any] = {
        "settings": asdict(config),
        "null": found.null,
        "cells_that_tell_the_spread": found.samples,
        "rate": found.rate,
        "rate_is": "nominal: most neighbours unchanged, and the upper half of unchanged cells "
        f"spread at most {LONGER:g} times as far as the lower one",
        "cells": int(np.isfinite(found.score).sum()),
        "changed": int(found.changed.sum()),
        "alike": found.alike,
        "wide": found.wide,
        "null_dates_that_tell": found.dates,
        "polygons": len(polygons),
        "before": json.loads(before.provenance.to_json()),
        "after": json.loads(after.provenance.to_json()),
        "null_dates": [json.loads(one.provenance.to_json()) for one in null],
    }
    files = [
        *_raster(found, folder),
        write_frame(polygons, folder / "change.gpkg"),
        write_record(folder / "change.json", record),
        write_settings(config, folder / CONFIG),
    ]
    drop_earlier(folder, ("change.tif", "change.qml"), files)
    return ResultFiles(folder, _words(found, len(polygons), config), tuple(files))


_ONE_DATE: Final = (
    "\n  with one null date, more than the nominal rate was reported where it was measured: "
    "name two or more, --null EMB_C EMB_D"
)


def _words(found: ChangeResult, polygons: int, config: ChangeConfig) -> str:
    cells, changed = int(np.isfinite(found.score).sum()), int(found.changed.sum())
    count = f"about {found.rate * cells:.0f} cells if nothing had changed"
    return (
        f"{changed} of {cells} cells changed, in {polygons} polygons of {config.smallest} or more "
        f"cells\n  false alarms: nominal rate {found.rate:g}, {count}; not guaranteed, see "
        f"docs/maps.md\n  null: {found.null}, {found.samples} cells"
        + _mute(len(config.null or ()) - found.dates)
        + (_ONE_DATE if found.dates == 1 else "")
        + _alike(found, cells)
        + _wide(found, config.window)
    )


def _mute(dates: int) -> str:
    """Return a line on null dates that could not be used; empty if there are none."""
    if not dates:
        return ""
    return f"\n  null dates not used, because they show too little of this ground: {dates}"


def _alike(found: ChangeResult, cells: int) -> str:
    """Return a line on cells with differences below the resolution; empty if there are none."""
    if not found.alike:
        return ""
    asked = "; are these two dates?" if found.alike == cells else ""
    return (
        f"\n  {found.alike} cells differ by less than the resolution of their numbers, and are not "
        f"counted as changed{asked}"
    )


def _wide(found: ChangeResult, window: int) -> str:
    """Return a line on a change that may be too wide to be detected; empty without one."""
    if not found.wide:
        return ""
    whole = whole_window(found.cells)
    more = "no wider one would help" if window >= whole else f"try --window {whole}"
    return (
        f"\n  {found.wide} cells are in areas that differ more than the rest: a change wider "
        f"than half of\n  --window {window} has this effect and is not counted; {more}"
    )


def _raster(found: ChangeResult, folder: Path) -> list[Path]:
    if not isinstance(found.cells, GridCells):
        return []
    grid = found.cells.patches.grid
    planes = np.stack([plane(v, grid) for v in (found.score, found.p, found.distance)])
    return [
        write_cog(
            folder / "change.tif",
            np.nan_to_num(planes, nan=NO_NUMBER),
            grid,
            ["score", "p", "cosine distance"],
            nodata=NO_NUMBER,
            tags={
                "EOFM_NULL": found.null,
                "EOFM_FALSE_ALARM_RATE": repr(found.rate),
                "EOFM_PROVENANCE": found.cells.made.to_json(),
            },
        ),
        write_file(folder / "change.qml", score_qml(0.0, _WHITE, "")),
    ]
