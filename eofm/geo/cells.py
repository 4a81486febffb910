"""A common view of chips and patches: cells on the ground, each with or without a vector.

Cells are numbered row by row in a patch grid, and in table order for chips. Geometry is computed in
the coordinates in which cells are simplest: rows and columns of a patch grid, whatever its CRS and
rotation, and the CRS of the chips.

Shapes: N cells, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Protocol, final

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.features import shapes as raster_shapes
from rasterio.warp import transform as warp_points
from xarray import DataArray, Dataset

from eofm.errors import DataError, LabelError
from eofm.formats.foreign import foreign
from eofm.geo.embeddings import ChipTable, PatchGrid, Provenance, has_vector
from eofm.geo.places import LabelledPlaces, crs_of_frame
from eofm.landcover.polygons import AREAS, pixels_of
from eofm.landcover.warp import box_in
from eofm.probes.knn import Neighbours
from eofm.raster.cube import placed
from eofm.raster.grid import Grid, read_crs, to_wgs84, utm_of

__all__ = [
    "Cells",
    "ChipCells",
    "Doubles",
    "Embeddings",
    "Floats",
    "GridCells",
    "Index",
    "Lattice",
    "cells_of",
    "degrees",
    "lattice_of",
    "metric_centres",
    "on_grid",
    "zone_of",
]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Index = NDArray[np.int64]
Embeddings = ChipTable | PatchGrid

_BLOCK_CELLS: Final = 1 << 14  # chips read at once: 25 MB at 384 dimensions
_OUTLINES: Final = 1 << 15  # polygons of cells held at once: 20 MB
_STRIP: Final = 64  # rows of patches read at once: whole chunks of Zarr, part of a GeoTIFF tile
_PARTS: Final = 64  # straight edges in one CRS are curves in another: number of segments
_FAR: Final = 1e12


class Cells(Protocol):
    """Cells with vectors."""

    @property
    def made(self) -> Provenance:
        """Provenance of the vectors."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector, D."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which cells have a vector, (N,)."""

    def vectors(self, cells: Index) -> Floats:
        """Return the vectors of some cells, (n, D)."""

    @property
    def block_count(self) -> int:
        """Number of `blocks`."""

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield blocks of cells in order: slice and vectors, NaN for cells without a vector."""

    def own(self, places: LabelledPlaces) -> NDArray[np.object_]:
        """Return polygons and points in the coordinates of the cells."""

    def near(
        self,
        shape: Any,  # noqa: ANN401 (shapely's)
    ) -> Iterator[tuple[Index, NDArray[np.object_]]]:
        """Yield the cells with a vector that a shape may touch, and their outlines, in parts."""

    def outlines(self, cells: Index) -> NDArray[np.object_]:
        """Return the outlines of cells as polygons of `crs`."""

    def merged(self, cells: Index) -> tuple[NDArray[np.object_], Index]:
        """Merge adjacent cells into polygons of `crs`; return these and the polygon of each cell.

        Args:
            cells: Cell numbers, (n,), without duplicates.
        """

    @property
    def crs(self) -> CRS:
        """CRS of `outlines` and `centres`."""

    def centres(self, cells: Index) -> NDArray[np.float64]:
        """Return the centres of cells, (n, 2) in `crs`."""


def cells_of(embeddings: Embeddings) -> Cells:
    """Return the cells of chips or of a patch grid.

    Raises:
        DataError: If it is neither, or a table without chips.
    """
    if not isinstance(embeddings, (ChipTable, PatchGrid)):
        raise DataError(
            "these are not embeddings",
            found=f"an object of type {type(embeddings).__name__}",
            expected="what eofm.embed_patches, eofm.embed_chips or eofm.open_embeddings returns",
            remedy='open the files of embeddings: eofm.open_embeddings("DIR")',
        )
    if not embeddings.stored.size:
        raise DataError("the embeddings are empty", found="0 chips", expected="1 chip or more")
    return ChipCells(embeddings) if isinstance(embeddings, ChipTable) else GridCells(embeddings)


@final
@dataclass(frozen=True, eq=False)
class GridCells:
    """The patches of a grid; their own coordinates are column and row.

    Args:
        patches: The grid.
    """

    patches: PatchGrid

    @property
    def made(self) -> Provenance:
        """Provenance of the vectors."""
        return self.patches.provenance

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.patches.dim

    @property
    def crs(self) -> CRS:
        """CRS of the grid."""
        return self.patches.grid.require_crs()

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which patches have a vector, row by row."""
        return self.patches.valid.ravel()

    @property
    def block_count(self) -> int:
        """Number of strips of rows."""
        return -(-self.patches.grid.height // _STRIP)

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield strips of patch rows."""
        grid = self.patches.grid
        for row in range(0, grid.height, _STRIP):
            end = min(row + _STRIP, grid.height)
            vectors = self.patches.rows(slice(row, end))
            yield slice(row * grid.width, end * grid.width), vectors.reshape(-1, self.dim)

    def vectors(self, cells: Index) -> Floats:
        """Return the vectors of some patches, reading only the strips that contain them."""
        found = np.empty((len(cells), self.dim), np.float32)
        row, col = np.divmod(cells, self.patches.grid.width)
        strip = row // _STRIP
        for one in np.unique(strip):
            mine = strip == one
            first, last = int(row[mine].min()), int(row[mine].max())
            found[mine] = self.patches.rows(slice(first, last + 1))[row[mine] - first, col[mine]]
        return found

    def own(self, places: LabelledPlaces) -> NDArray[np.object_]:
        """Return shapes in columns and rows."""
        grid = self.patches.grid
        return _moved(places, lambda xy: pixels_of(xy, places.crs, grid), grid)

    def with_all(self) -> GridCells:
        """Return the same patches as if each had a vector, to tell nodata from other ground."""
        return GridCells(replace(self.patches, valid=np.ones_like(self.patches.valid)))

    def near(
        self,
        shape: Any,  # noqa: ANN401 (shapely's)
    ) -> Iterator[tuple[Index, NDArray[np.object_]]]:
        """Yield the patches in the bounding box of a shape, some rows at a time."""
        import shapely

        grid = self.patches.grid
        left, top, right, bottom = np.clip(shape.bounds, -_FAR, _FAR)
        cols = np.arange(max(0, int(np.floor(left))), min(grid.width, int(np.floor(right)) + 1))
        rows = np.arange(max(0, int(np.floor(top))), min(grid.height, int(np.floor(bottom)) + 1))
        step = max(1, _OUTLINES // max(len(cols), 1))
        for first in range(0, len(rows), step):
            some = np.meshgrid(rows[first : first + step], cols, indexing="ij")
            row, col = (axis.ravel() for axis in some)
            there = self.patches.valid[row, col]
            row, col = row[there], col[there]
            if len(row):
                index = np.asarray(row * grid.width + col, np.int64)
                yield index, np.asarray(shapely.box(col, row, col + 1, row + 1), object)

    def outlines(self, cells: Index) -> NDArray[np.object_]:
        """Return patches as polygons, rotated with the grid."""
        import shapely

        row, col = np.divmod(cells, self.patches.grid.width)
        boxes = np.asarray(shapely.box(col, row, col + 1, row + 1), object)
        return np.asarray(shapely.transform(boxes, self._placed), object)

    def merged(self, cells: Index) -> tuple[NDArray[np.object_], Index]:
        """Return patches with a common edge as one polygon each.

        They are traced in the raster, in linear time; merging outlines takes minutes for about
        100,000 patches.
        """
        import shapely

        grid = self.patches.grid
        mask = np.zeros((grid.height, grid.width), np.uint8)
        mask.flat[cells] = 1
        traced = raster_shapes(mask, mask=mask.astype(np.bool_), connectivity=4)
        shapes = [shapely.geometry.shape(outline) for outline, _ in traced]
        if not shapes:
            return np.zeros(0, object), np.zeros(0, np.int64)
        numbered = ((shape, number) for number, shape in enumerate(shapes, 1))
        numbers = rasterize(numbered, out_shape=mask.shape, dtype="int32")
        placed_shapes = shapely.transform(np.asarray(shapes, object), self._placed)
        return np.asarray(placed_shapes, object), numbers.ravel()[cells].astype(np.int64) - 1

    def centres(self, cells: Index) -> NDArray[np.float64]:
        """Return the centres of patches."""
        row, col = np.divmod(cells, self.patches.grid.width)
        return self._placed(np.stack([col + 0.5, row + 0.5], axis=1))

    def _placed(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        t = self.patches.grid.transform
        col, row = xy[:, 0], xy[:, 1]
        return np.stack([t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f], axis=1)


@final
@dataclass(frozen=True, eq=False)
class ChipCells:
    """The chips of a table; their own coordinates are those of its CRS.

    Args:
        chips: The table.
    """

    chips: ChipTable

    @property
    def made(self) -> Provenance:
        """Provenance of the vectors."""
        return self.chips.provenance

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.chips.dim

    @cached_property
    def crs(self) -> CRS:
        """CRS of the table."""
        return crs_of_frame(self.chips.table)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Which chips have a vector."""
        return has_vector(np.asarray(self.chips.stored[:, 0]))

    @cached_property
    def _shapes(self) -> NDArray[np.object_]:
        return np.asarray(self.chips.table.geometry.array, object)

    @cached_property
    def _tree(self) -> Any:  # noqa: ANN401 (shapely's)
        import shapely

        return shapely.STRtree(self._shapes)

    @property
    def block_count(self) -> int:
        """Number of parts of the table."""
        return -(-len(self.chips) // _BLOCK_CELLS)

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield parts of the table."""
        for first in range(0, len(self.chips), _BLOCK_CELLS):
            rows = slice(first, min(first + _BLOCK_CELLS, len(self.chips)))
            yield rows, self.chips.block(rows)

    def vectors(self, cells: Index) -> Floats:
        """Return the vectors of some chips."""
        return self.chips[cells].vectors

    def own(self, places: LabelledPlaces) -> NDArray[np.object_]:
        """Return shapes in the CRS of the table."""
        crs = self.crs
        left, bottom, right, top = map(float, self.chips.table.total_bounds)
        grid = Grid(crs, Affine(right - left, 0, left, 0, bottom - top, top), 1, 1)
        return _moved(places, lambda xy: _warped(xy, places.crs, crs), grid)

    def near(
        self,
        shape: Any,  # noqa: ANN401 (shapely's)
    ) -> Iterator[tuple[Index, NDArray[np.object_]]]:
        """Yield the chips whose bounding boxes intersect that of a shape, some at a time."""
        index = np.sort(self._tree.query(shape)).astype(np.int64)
        index = index[self.valid[index]]
        for first in range(0, len(index), _OUTLINES):
            some = index[first : first + _OUTLINES]
            yield some, self._shapes[some]

    def outlines(self, cells: Index) -> NDArray[np.object_]:
        """Return the polygons of the table."""
        return self._shapes[cells]

    def merged(self, cells: Index) -> tuple[NDArray[np.object_], Index]:
        """Merge chips that overlap or share an edge into one polygon each."""
        import shapely

        shapes = self._shapes[cells]
        found = np.asarray(shapely.get_parts(shapely.union_all(shapes)), object)
        tree = shapely.STRtree(found)
        cell, part = tree.query(shapely.point_on_surface(shapes), predicate="intersects")
        parts = np.zeros(len(cells), np.int64)
        parts[cell] = part
        return found, parts

    def centres(self, cells: Index) -> NDArray[np.float64]:
        """Return the centres of chips."""
        import shapely

        return np.asarray(shapely.get_coordinates(shapely.centroid(self._shapes[cells])))


def _warped(xy: NDArray[np.float64], source: CRS, target: CRS) -> NDArray[np.float64]:
    if source == target:
        return xy
    xs, ys = warp_points(source, target, xy[:, 0].tolist(), xy[:, 1].tolist())
    return np.stack([np.asarray(xs), np.asarray(ys)], axis=1)


def _moved(
    places: LabelledPlaces,
    move: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    extent: Grid,
) -> NDArray[np.object_]:
    """Return shapes in other coordinates; a shape without valid coordinates becomes empty.

    Args:
        places: The shapes.
        move: (n, 2) coordinates -> (n, 2).
        extent: The ground of all cells.
    """
    import shapely

    shapes = _near_ground(places, extent)
    bounds = shapely.bounds(shapes)
    longest = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]) / _PARTS
    with foreign(
        LabelError,
        "the polygons cannot be transformed to the CRS of the embeddings",
        where=places.source,
        remedy="check that their coordinates are in the CRS that they state",
    ):
        finer = shapely.segmentize(shapes, np.where(longest > 0, longest, 1.0))
        moved = np.asarray(shapely.transform(finer, move), object)
    ends = np.add.reduceat(
        ~np.isfinite(shapely.get_coordinates(moved)).all(axis=1),
        np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(moved))[:-1]]),
    )
    moved[ends > 0] = shapely.Point()
    return moved


def _near_ground(places: LabelledPlaces, extent: Grid) -> NDArray[np.object_]:
    """Return shapes, cut to a box around the ground of the cells if they are larger.

    Edges of many degrees are curves in the CRS of the cells, and far ends of a continent have no
    coordinates in a UTM zone.
    """
    import shapely

    box = box_in(extent, places.crs)
    if box is None:
        return places.shapes
    left, bottom, right, top = box
    margin = max(right - left, top - bottom)
    # a scene on the antimeridian is also on the other side of a map in degrees
    turns = (0.0, -360.0, 360.0) if places.crs.is_geographic else (0.0,)
    frames = [
        shapely.box(left + by - margin, bottom - margin, right + by + margin, top + margin)
        for by in turns
    ]
    shapes = places.shapes.copy()
    meets = np.any([shapely.intersects(shapes, frame) for frame in frames], axis=0)
    for number in np.flatnonzero(meets & ~shapely.covered_by(shapes, frames[0])).tolist():
        parts = [
            shapely.transform(
                shapely.intersection(shapes[number], frame), lambda xy, by=by: xy - (by, 0.0)
            )
            for frame, by in zip(frames, turns, strict=True)
        ]
        whole = shapely.union_all([part for part in parts if part.geom_type in AREAS])
        if not whole.is_empty:
            shapes[number] = whole
    return shapes


def zone_of(cells: Cells, which: Index) -> CRS:
    """Return the UTM zone of the common centre of cells.

    Args:
        cells: The cells.
        which: Their numbers.

    Raises:
        RasterError: If the CRS is not terrestrial.
    """
    xy = cells.centres(which)
    lon, lat = to_wgs84(cells.crs, [float(np.median(xy[:, 0]))], [float(np.median(xy[:, 1]))])
    return read_crs(utm_of(lon[0], lat[0]))


def metric_centres(cells: Cells, which: Index) -> NDArray[np.float64]:
    """Return the centres of cells in metres of the UTM zone of their common centre, (n, 2).

    Args:
        cells: The cells.
        which: Their numbers.

    Raises:
        RasterError: If the CRS is not terrestrial.
    """
    return _warped(cells.centres(which), cells.crs, zone_of(cells, which))


def degrees(cells: Cells, which: Index) -> NDArray[np.float64]:
    """Return longitude and latitude of the centres of cells, (n, 2)."""
    return _warped(cells.centres(which), cells.crs, read_crs("EPSG:4326"))


def on_grid(cells: Cells, values: Mapping[str, NDArray[Any]], remedy: str) -> Dataset:
    """Return values of patches as rasters, (y, x), with CRS and transform for `.rio`.

    Args:
        cells: The cells.
        values: Name -> (N,).
        remedy: What to use for chips instead of a raster.

    Raises:
        DataError: If the cells are chips, which have no grid.
    """
    if not isinstance(cells, GridCells):
        raise DataError("chips have no grid", remedy=remedy)
    grid = cells.patches.grid
    return Dataset(
        {
            name: placed(DataArray(one.reshape(grid.height, grid.width), dims=("y", "x")), grid)
            for name, one in values.items()
        }
    )


# -------------------------------------------------------------------------------- rows and columns


_OFF: Final = 0.35  # of a step: largest offset of a chip from its lattice position
_EXACT: Final = 0.1  # of a step: offsets that pixels and map projections explain
_SPARSE: Final = 50  # lattice positions for each chip: with more of them, chips are far apart


@dataclass(frozen=True, eq=False)
class Lattice:
    """Arrangement of cells in rows and columns.

    Args:
        grid: Geometry of the rows and columns; one column wider than `cells` if rows are shifted.
        cells: Cell number, (rows, columns); -1 where there is none.
        shifts: How far each row begins east of the grid's edge, in columns, (rows,), in [0, 1).
    """

    grid: Grid
    cells: Index
    shifts: Doubles


def lattice_of(cells: Cells) -> Lattice:
    """Return the arrangement of cells in rows and columns.

    Args:
        cells: Patches, or chips at equal steps in the UTM zone of their common centre or, as on the
            Major TOM grid, along parallels, each row from a longitude of its own.

    Raises:
        DataError: If chips are not at equal steps, or are too far apart.
    """
    if isinstance(cells, GridCells):
        grid = cells.patches.grid
        numbers = np.arange(grid.height * grid.width).reshape(grid.height, grid.width)
        return Lattice(grid, np.where(cells.patches.valid, numbers, -1), np.zeros(grid.height))
    which = np.flatnonzero(cells.valid)
    xy = metric_centres(cells, which)
    step, zone = _step(xy), zone_of(cells, which)
    found = (
        _square(xy, which, zone, step, _EXACT)
        or _parallels(cells, which, step)
        or _square(xy, which, zone, step, _OFF)
    )
    if found is not None:
        return found
    remedy = "name the embeddings of one scene: eofm explore DIR/SCENE"
    if len(which) > len(np.unique(np.rint(xy), axis=0)):
        raise DataError(
            "several chips are at one place",
            found=f"{len(which)} chips at {len(np.unique(np.rint(xy), axis=0))} places",
            expected="one chip at each place, of one date",
            remedy=remedy,
        )
    extent = np.ptp(xy, axis=0)
    if not np.isfinite(xy).all() or (extent / step).prod() > _SPARSE * len(which):
        raise DataError(
            "the chips are too far apart for one picture",
            found=f"{len(which)} chips on {extent[0] / 1000:.0f} x {extent[1] / 1000:.0f} km, "
            f"usually {step:.0f} m from the nearest other one",
            remedy=remedy,
        )
    raise DataError(
        "the chips are not arranged in rows and columns",
        found=f"steps of about {step:.0f} m, and chips off the lattice",
        expected="one size and one step",
        remedy="embed the scene by patches: eofm embed SCENE --model M --patches --out DIR",
    )


def _square(xy: Doubles, which: Index, crs: CRS, step: float, off: float) -> Lattice | None:
    """Return the lattice of chips at a step in both directions; None if they are off by more."""
    low = xy.min(axis=0)
    place = (xy - low) / step
    if not np.isfinite(place).all() or np.abs(place - np.rint(place)).max() > off:
        return None
    col, up = np.rint(place).astype(np.int64).T
    table = _table(up.max() - up, col, which)
    if table is None:
        return None
    top, left = low[1] + up.max() * step + step / 2, low[0] - step / 2
    grid = Grid(crs, Affine(step, 0, left, 0, -step, top), *table.shape)
    return Lattice(grid, table, np.zeros(len(table)))


def _parallels(cells: Cells, which: Index, near: float) -> Lattice | None:
    """Return the lattice of chips at equal steps along parallels; None if they have none.

    In the sinusoidal projection parallels are straight, and true to scale.

    Args:
        cells: The cells.
        which: Their numbers.
        near: Usual distance to the nearest other chip.
    """
    xy = cells.centres(which)
    lon, _ = to_wgs84(cells.crs, [float(np.median(xy[:, 0]))], [float(np.median(xy[:, 1]))])
    crs = read_crs(f"+proj=sinu +lon_0={lon[0]!r} +datum=WGS84 +units=m")
    x, y = _warped(xy, cells.crs, crs).T
    if not (np.isfinite(x) & np.isfinite(y)).all():
        return None
    rows = _evenly(y, np.zeros(len(y), np.int64), near)
    if rows is None:
        return None
    columns = _evenly(x, rows.places, near)
    if columns is None:
        return None
    # the place of each row's first chip, in columns from the westernmost one
    starts = (columns.starts - columns.starts.min()) / columns.step
    whole = np.floor(starts + 1e-9)
    first = dict(zip(np.unique(rows.places).tolist(), whole.astype(np.int64).tolist(), strict=True))
    col = columns.places + np.array([first[row] for row in rows.places.tolist()])
    table = _table(rows.places.max() - rows.places, col, which)
    if table is None:
        return None
    shifts = np.zeros(len(table))
    shifts[rows.places.max() - np.unique(rows.places)] = np.maximum(starts - whole, 0)
    top = float(rows.starts[0]) + (len(table) - 0.5) * rows.step
    left = float(columns.starts.min()) - columns.step / 2
    transform = Affine(columns.step, 0, left, 0, -rows.step, top)
    return Lattice(Grid(crs, transform, len(table), table.shape[1] + 1), table, shifts)


def _table(rows: Index, columns: Index, which: Index) -> Index | None:
    """Return cell numbers by row and column; None if two share a place, or most are empty."""
    shape = int(rows.max()) + 1, int(columns.max()) + 1
    if shape[0] * shape[1] > _SPARSE * len(which):
        return None
    table = np.full(shape, -1, np.int64)
    table[rows, columns] = which
    return table if int((table >= 0).sum()) == len(which) else None


@dataclass(frozen=True, eq=False)
class _Even:
    """Values at equal steps.

    Args:
        places: Number of steps from the first value of the group, (n,).
        starts: First value of each group, in order of the groups.
        step: The step.
    """

    places: Index
    starts: Doubles
    step: float


def _evenly(values: Doubles, groups: Index, near: float) -> _Even | None:
    """Return values of groups as numbers of steps; None if the steps are not equal.

    The step is fitted to all values, because that of two neighbours is only known to a pixel.

    Args:
        values: (n,).
        groups: Group of each value, (n,); all have one step, each has its own start.
        near: Approximate step; values that differ by less than half of it are one.
    """
    order = np.lexsort((values, groups))
    sorted_values, sorted_groups = values[order], groups[order]
    gaps = np.diff(sorted_values)
    within = sorted_groups[1:] == sorted_groups[:-1]
    apart = gaps[within & (gaps > near / 2)]
    if not len(apart):
        return None
    step = float(np.median(apart))
    jumps = np.where(within, np.rint(gaps / step), 0)
    cumulated = np.concatenate([[0], np.cumsum(jumps)])
    heads = np.flatnonzero(np.concatenate([[True], ~within]))
    group = np.cumsum(np.concatenate([[0], ~within]))
    places = cumulated - cumulated[heads][group]
    means = [np.bincount(group, one) / np.bincount(group) for one in (places, sorted_values)]
    from_mean = places - means[0][group]
    step = float((from_mean * (sorted_values - means[1][group])).sum() / (from_mean**2).sum())
    starts = means[1] - means[0] * step
    if np.abs(sorted_values - starts[group] - places * step).max() > _OFF * step:
        return None
    found = np.empty(len(values), np.int64)
    found[order] = places.astype(np.int64)
    return _Even(found, starts, step)


def _step(xy: NDArray[np.float64]) -> float:
    """Return the usual distance to the nearest other chip."""
    if len(xy) < 2:
        return 1.0
    places = torch.from_numpy(xy)
    nearest = Neighbours(places).nearest(places, 2)[:, 1].numpy()
    return max(float(np.median(np.hypot(*(xy - xy[nearest]).T))), 1e-6)
