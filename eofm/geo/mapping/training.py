"""From labelled polygons and points to training cells: which cell is pure enough for which class.

A cell belongs to a class if polygons of that class cover at least the share `purity` of it, and
those of all other classes together at most the rest. A point labels the cell it lies in. Where
polygons of two classes overlap no cell is pure, so that what contradicts itself trains nothing, and
the number of these cells is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.geo.cells import Cells, Index, degrees
from eofm.geo.places import LabelledPlaces

_TOUCH = 1e-9  # of a cell: less than that is a shared edge


@dataclass(frozen=True, eq=False)
class TrainingCells:
    """Cells with a class.

    Args:
        cells: Their numbers, (M,).
        labels: Class of each, (M,).
        shares: How much of each is covered by polygons of its class, (M,); 1 under a point.
        polygons: Which polygon or point each belongs to, (M,), from 0 on without a gap.
        features: Layer and feature of its source that each of these was, (P, 2).
        classes: Names, K.
        notes: What a reader of the map must be told.
    """

    cells: Index
    labels: Index
    shares: NDArray[np.float64]
    polygons: Index
    features: Index
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def polygon_labels(self) -> Index:
        """Class of each polygon, (P,)."""
        found = np.zeros(len(self.features), np.int64)
        found[self.polygons] = self.labels
        return found

    def some(self, kept: NDArray[np.bool_]) -> TrainingCells:
        """Return the cells of a mask; polygons without one are numbered away."""
        numbers, polygons = np.unique(self.polygons[kept], return_inverse=True)
        return TrainingCells(
            self.cells[kept],
            self.labels[kept],
            self.shares[kept],
            polygons.astype(np.int64),
            self.features[numbers],
            self.classes,
            self.notes,
        )


@dataclass(frozen=True, eq=False)
class _Covers:
    """What polygons cover of cells, an entry for each pair that touches."""

    cells: Index
    polygons: Index
    shares: NDArray[np.float64]


def label_cells(
    cells: Cells,
    layers: Sequence[LabelledPlaces],
    classes: Sequence[str],
    *,
    purity: float = 0.8,
    per_polygon: int = 100,
) -> TrainingCells:
    """Return the cells that polygons and points give a class.

    Args:
        cells: Chips or patches.
        layers: Labelled polygons and points.
        classes: Names of the classes.
        purity: Share of a cell that polygons of its class cover at least, in (0.5, 1].
        per_polygon: Largest number of cells that one polygon gives: neighbours tell little that is
            new. Of more, so many are taken evenly spread over the polygon.

    Raises:
        LabelError: If all polygons lie outside of the cells, or a class has no cell that is pure.
    """
    covers = _covers(cells, layers)
    if not len(covers.cells):
        raise _outside(cells, layers)
    origin = np.concatenate(
        [
            np.stack([np.full(len(layer), number), layer.features], axis=1)
            for number, layer in enumerate(layers)
        ]
    ).astype(np.int64)
    codes = {name: code for code, name in enumerate(classes)}
    own = np.array([codes[value] for layer in layers for value in layer.values], np.int64)
    labelled, contested = _pure(covers, own, len(classes), purity)
    found = TrainingCells(*labelled, origin, tuple(classes), ()).some(
        np.ones(len(labelled[0]), np.bool_)
    )
    _check_classes(found, covers, own, purity)
    spread = _spread(found, per_polygon)
    notes = _notes(found, covers, own, contested, int(spread.sum()), per_polygon)
    kept = found.some(spread)
    present = np.unique(kept.labels)
    return TrainingCells(
        kept.cells,
        np.searchsorted(present, kept.labels).astype(np.int64),
        kept.shares,
        kept.polygons,
        kept.features,
        tuple(classes[code] for code in present),
        notes,
    )


def covered(cells: Cells, places: LabelledPlaces, purity: float = 0.5) -> Index:
    """Return the cells under polygons and points, in order.

    Args:
        cells: Chips or patches.
        places: Polygons and points.
        purity: Share of a cell that is covered at least.

    Raises:
        LabelError: If there is none.
    """
    covers = _covers(cells, [places])
    if not len(covers.cells):
        raise _outside(cells, [places])
    numbers, place = np.unique(covers.cells, return_inverse=True)
    shares = np.bincount(place, covers.shares)
    under = numbers[shares >= purity]
    if not len(under):
        raise LabelError(
            "the polygons are smaller than the cells of the embeddings",
            found=f"the largest covers {shares.max():.0%} of a cell",
            expected=f"{purity:.0%} of one cell or more",
            where=places.source,
            remedy="give points instead, as in geopandas: "
            "layer.geometry = layer.geometry.representative_point()",
        )
    return np.asarray(under, np.int64)


def _covers(cells: Cells, layers: Sequence[LabelledPlaces]) -> _Covers:
    import shapely

    found: list[tuple[Index, Index, NDArray[np.float64]]] = []
    first = 0
    for layer in layers:
        shapes = cells.own(layer)
        for number, shape in enumerate(shapes, first):
            if shape.is_empty:
                continue
            index, boxes = cells.near(shape)
            if not len(index):
                continue
            shapely.prepare(shape)
            share = np.where(shapely.covers(shape, boxes), 1.0, 0.0)
            cut = (share == 0) & shapely.intersects(shape, boxes)
            if shape.geom_type == "Point":
                share[cut] = 1.0
            else:
                part = shapely.intersection(shape, boxes[cut])
                share[cut] = shapely.area(part) / shapely.area(boxes[cut])
            touched = share > _TOUCH
            there = index[touched]
            found.append((there, np.full(len(there), number, np.int64), share[touched]))
        first += len(shapes)
    if not found:
        nothing = np.zeros(0, np.int64)
        return _Covers(nothing, nothing, np.zeros(0))
    return _Covers(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _pure(
    covers: _Covers, own: Index, classes: int, purity: float
) -> tuple[tuple[Index, Index, NDArray[np.float64], Index], int]:
    """Return cells, classes, shares and polygons of pure cells, and how many are contested."""
    labels = own[covers.polygons]
    numbers, place = np.unique(covers.cells, return_inverse=True)
    table = np.bincount(place * classes + labels, covers.shares, len(numbers) * classes)
    shares = np.minimum(table.reshape(-1, classes), 1.0)
    best = shares.argmax(axis=1)
    top = shares[np.arange(len(numbers)), best]
    # rounding of areas: a cell that is covered whole must pass a purity of 1
    enough, clear = top >= purity - 1e-9, shares.sum(axis=1) - top <= 1 - purity + 1e-9
    # the polygon that covers most of the cell, among those of its class
    mine = labels == best[place]
    order = np.lexsort((covers.shares, mine, place))
    last = np.append(np.flatnonzero(np.diff(place[order])), len(order) - 1)
    polygon = covers.polygons[order[last]]
    pure = enough & clear
    picked = numbers[pure], best[pure].astype(np.int64), top[pure], polygon[pure]
    return picked, int((enough & ~clear).sum())


def _spread(found: TrainingCells, per_polygon: int) -> NDArray[np.bool_]:
    """Return which cells stay if a polygon gives at most so many."""
    order = np.argsort(found.polygons, kind="stable")
    count = np.bincount(found.polygons)
    rank = np.arange(len(found)) - np.repeat(np.cumsum(count) - count, count)
    size = np.repeat(count, count)
    # the cells nearest to evenly spaced ranks
    stays = (size <= per_polygon) | (
        (rank * per_polygon) // size != ((rank - 1) * per_polygon) // size
    )
    kept = np.zeros(len(found), np.bool_)
    kept[order] = stays
    return kept


def _outside(cells: Cells, layers: Sequence[LabelledPlaces]) -> LabelError:
    import shapely
    from rasterio.warp import transform_bounds

    there = np.flatnonzero(cells.valid)
    lonlat = degrees(cells, there) if len(there) else np.full((1, 2), np.nan)
    west, south = lonlat.min(axis=0)
    east, north = lonlat.max(axis=0)
    boxes = [
        transform_bounds(layer.crs, "EPSG:4326", *shapely.total_bounds(layer.shapes))
        for layer in layers
    ]
    found = "; ".join(", ".join(f"{edge:.4f}" for edge in box) for box in boxes)
    return LabelError(
        "the polygons lie outside of the embeddings",
        found=f"{found} (west, south, east, north)",
        expected=f"within {west:.4f}, {south:.4f}, {east:.4f}, {north:.4f}",
        where=", ".join(layer.source for layer in layers),
        remedy="give polygons of that place, or embed the scene that they were drawn on",
    )


def _check_classes(found: TrainingCells, covers: _Covers, own: Index, purity: float) -> None:
    """Refuse a class whose polygons lie here and give no cell."""
    labels = own[covers.polygons]
    lost = sorted(set(labels.tolist()) - set(found.labels.tolist()))
    if not lost and len(set(found.labels.tolist())) > 1:
        return
    if not lost:
        name = found.classes[int(found.labels[0])]
        raise LabelError(
            "polygons of one class alone lie on the embeddings",
            found=name,
            expected="two classes or more",
            remedy=f"draw polygons of what is not {name} there too",
        )
    most = {
        code: float(np.bincount(covers.cells[labels == code], covers.shares[labels == code]).max())
        for code in lost
    }
    least = min(*most.values(), 1.0)
    lower = np.floor(least * 100) / 100
    names = ", ".join(f"{found.classes[code]} ({share:.0%})" for code, share in most.items())
    raise LabelError(
        "no cell of the embeddings is pure enough for a class",
        found=f"most of a cell that is covered: {names}",
        expected=f"{purity:.0%} of a cell, and no more than the rest under another class",
        remedy=f"accept mixed cells: --purity {lower:g}"
        if 0.5 < lower < purity
        else "draw larger polygons, make vectors of smaller ground (eofm embed --patches), or give "
        "points, which label the cell they lie in",
    )


def _notes(
    found: TrainingCells, covers: _Covers, own: Index, contested: int, kept: int, per_polygon: int
) -> tuple[str, ...]:
    notes = []
    outside = len(own) - len(np.unique(covers.polygons))
    if outside:
        notes.append(f"{outside} of {len(own)} polygons and points lie outside of the embeddings")
    gone = set(own.tolist()) - set(found.labels.tolist())
    if gone:
        names = ", ".join(found.classes[code] for code in sorted(gone))
        notes.append(f"**no polygon of {names} lies on the embeddings**: it is not on the map")
    small = len(np.unique(covers.polygons)) - len(np.unique(found.polygons))
    if small:
        notes.append(f"{small} polygons cover no cell enough and train nothing")
    if contested:
        notes.append(
            f"{contested} cells lie under polygons of two classes and were left out of training"
        )
    if kept < len(found):
        notes.append(
            f"{kept} of {len(found)} labelled cells are used: at most {per_polygon} of a polygon"
        )
    return tuple(notes)
