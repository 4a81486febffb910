"""Training cells from labelled polygons and points, and read-outs that predict millions of cells.

A cell belongs to a class if polygons of that class cover at least the share `purity` of it, and
those of all other classes together at most the rest. A point labels the cell that contains it. The
parts of one feature are one polygon, because they are not independent samples. Where polygons of
two classes overlap no cell is pure, so contradictory labels are not used for training; the number
of these cells is reported.

A probe gives a class to any vector, even one unlike all training vectors. The distance to the
nearest training vector shows where that happens. Its limit is the 99th percentile, over training
vectors, of the distance to the nearest vector of another polygon.

Shapes: M training cells, N cells, D dimensions, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.errors import LabelError
from eofm.geo.cells import Cells, Floats, GridCells, Index, degrees
from eofm.geo.maps_config import MapProbe
from eofm.geo.places import LabelledPlaces
from eofm.probes.features import Labelled, Scaler, Scaling
from eofm.probes.knn import knn_probe
from eofm.probes.linear import LinearFit, StrengthGrid, fit_linear
from eofm.probes.logistic import Eigenbasis
from eofm.terminal import notice

__all__ = [
    "EXPLODE",
    "NO_VECTORS",
    "FittedProbe",
    "Novelty",
    "TrainingCells",
    "affine",
    "covered",
    "fit_probe",
    "label_cells",
    "said",
]

# ----------------------------------------------------------------------------------- training cells

NO_VECTORS: Final = "the embeddings have no vectors there: nodata or clouds"
_TOUCH = 1e-9  # of a cell: a smaller overlap is a shared edge
EXPLODE: Final = (
    "parts of one feature count as one polygon: if they were drawn separately split them, as in "
    "geopandas: layer = layer.explode(ignore_index=True)"
)


@dataclass(frozen=True, eq=False)
class TrainingCells:
    """Cells with a class.

    Args:
        cells: Cell numbers, (M,).
        labels: Class of each, (M,).
        shares: Share of each that polygons of its class cover, (M,); 1 under a point.
        polygons: Polygon or point of each cell, (M,), numbered from 0 without gaps; all parts of
            a feature are one.
        parts: Part of the feature that contains each cell, (M,), numbered over all features, with
        gaps.
        features: Layer and feature in its source of each polygon or point, (P, 2).
        classes: Names, K.
        notes: Warnings for the report of the map.
        touching: Number of polygons and points that touch a cell.
    """

    cells: Index
    labels: Index
    shares: NDArray[np.float64]
    polygons: Index
    parts: Index
    features: Index
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    touching: int = 0

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def polygon_labels(self) -> Index:
        """Class of each polygon, (P,)."""
        found = np.zeros(len(self.features), np.int64)
        found[self.polygons] = self.labels
        return found

    def some(self, kept: NDArray[np.bool_]) -> TrainingCells:
        """Return the cells of a mask; polygons without cells are removed from the numbering."""
        numbers, polygons = np.unique(self.polygons[kept], return_inverse=True)
        return TrainingCells(
            self.cells[kept],
            self.labels[kept],
            self.shares[kept],
            polygons.astype(np.int64),
            self.parts[kept],
            self.features[numbers],
            self.classes,
            self.notes,
            self.touching,
        )


@dataclass(frozen=True, eq=False)
class _Drawn:
    """The parts of all features, Q: their classes and polygons."""

    labels: Index
    polygons: Index


@dataclass(frozen=True, eq=False)
class _Covers:
    """Overlap of parts of features with cells, one entry per touching pair.

    `pieces` are the ground in common, without coordinates where a cell is covered whole.
    """

    cells: Index
    parts: Index
    shares: NDArray[np.float64]
    pieces: NDArray[np.object_]

    def by_class(self, labels: Index, classes: int) -> tuple[Index, NDArray[np.float64]]:
        """Return the touched cells, and the share of each that each class covers, (n, classes).

        Ground that several polygons of a class cover counts once.

        Args:
            labels: Class of each entry.
            classes: Number of classes.
        """
        import shapely

        numbers, place = np.unique(self.cells, return_inverse=True)
        key = place * classes + labels
        table = np.bincount(key, self.shares, len(numbers) * classes).astype(np.float64)
        whole = np.bincount(key, self.shares >= 1, len(table)) > 0
        order = np.flatnonzero(~whole[key])
        order = order[np.argsort(key[order], kind="stable")]
        for entries in _overlapping(self.pieces, order, key[order]):
            first, pieces = entries[0], self.pieces[entries]
            once = shapely.area(shapely.union_all(pieces)) / shapely.area(pieces[0])
            once *= self.shares[first]
            if table[key[first]] - once > _TOUCH:
                table[key[first]] = once
        table[whole] = 1.0
        return numbers, table.reshape(-1, classes)


def _overlapping(pieces: NDArray[np.object_], order: Index, groups: Index) -> list[Index]:
    """Return the entries of each group in which the bounding boxes of two pieces overlap.

    Args:
        pieces: Ground of each entry.
        order: Entries, group by group, (n,).
        groups: Group of each, (n,), in ascending order.
    """
    import shapely

    _, start, size = np.unique(groups, return_index=True, return_counts=True)
    group = np.repeat(np.arange(len(size)), size)
    edges = shapely.bounds(pieces[order])
    found = np.zeros(len(size), np.bool_)
    for step in range(1, int(size.max(initial=1))):
        one, other = edges[:-step], edges[step:]
        low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
        meet = (high > low).all(axis=1) & (group[step:] == group[:-step])
        found[group[step:][meet]] = True
    return [order[start[n] : start[n] + size[n]] for n in np.flatnonzero(found).tolist()]


def label_cells(
    cells: Cells,
    layers: Sequence[LabelledPlaces],
    classes: Sequence[str],
    *,
    purity: float = 0.8,
    per_polygon: int = 100,
) -> TrainingCells:
    """Return the cells that polygons and points assign to a class.

    Args:
        cells: Chips or patches.
        layers: Labelled polygons and points.
        classes: Names of the classes.
        purity: Minimum share of a cell covered by polygons of its class, in (0.5, 1].
        per_polygon: Maximum number of cells of one polygon, with all its parts: neighbours carry
            little new information. If exceeded, cells are taken evenly spread over the polygon.

    Raises:
        LabelError: If all polygons are outside of the cells, or a class has no pure cell.
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
    # of each part of a feature: its class and polygon
    codes = {name: code for code, name in enumerate(classes)}
    own = np.array([codes[value] for layer in layers for value in layer.values], np.int64)
    features, polygon = np.unique(origin, axis=0, return_inverse=True)
    drawn = _Drawn(own, np.asarray(polygon.ravel(), np.int64))
    (cell, label, share, part), contested = _pure(covers, own, len(classes), purity)
    found = TrainingCells(
        cell, label, share, drawn.polygons[part], part, features, tuple(classes)
    ).some(np.ones(len(cell), np.bool_))
    _check_classes(found, covers, own, purity)
    spread = _spread(found, per_polygon)
    kept = found.some(spread)
    present = np.unique(kept.labels)
    names = tuple(classes[code] for code in present)
    notes = (
        *_notes(found, covers, drawn, contested),
        *_kept_notes(found, kept, per_polygon),
        *_alike(names),
        *_numbered(names),
    )
    labels = np.searchsorted(present, kept.labels).astype(np.int64)
    touching = len(np.unique(drawn.polygons[covers.parts]))
    return replace(kept, labels=labels, classes=names, notes=notes, touching=touching)


def covered(cells: Cells, places: LabelledPlaces, purity: float = 0.5) -> Index:
    """Return the cells under polygons and points, in order; features without one are reported.

    Args:
        cells: Chips or patches.
        places: Polygons and points.
        purity: Minimum covered share of a cell.

    Raises:
        LabelError: If there is none.
    """
    covers = _covers(cells, [places])
    if not len(covers.cells):
        raise _outside(cells, [places])
    numbers, table = covers.by_class(np.zeros_like(covers.cells), 1)
    shares = table[:, 0]
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
    used = np.unique(places.features[covers.parts[np.isin(covers.cells, under)]])
    count = len(np.unique(places.features))
    if len(used) < count:
        notice(
            f"{places.source}: {count - len(used)} of {count} features are not used: they are "
            f"outside of the embeddings, or in cells of which less than {purity:.0%} is covered"
        )
    return np.asarray(under, np.int64)


def _covers(cells: Cells, layers: Sequence[LabelledPlaces]) -> _Covers:
    import shapely

    found: list[tuple[Index, Index, NDArray[np.float64], NDArray[np.object_]]] = []
    first = 0
    for layer in layers:
        shapes = cells.own(layer)
        for number, shape in enumerate(shapes, first):
            if shape.is_empty:
                continue
            shapely.prepare(shape)
            for index, boxes in cells.near(shape):
                share = np.where(shapely.covers(shape, boxes), 1.0, 0.0)
                cut = (share == 0) & shapely.intersects(shape, boxes)
                pieces = np.full(len(index), None, object)
                if shape.geom_type == "Point":
                    share[cut] = 1.0
                else:
                    part = shapely.intersection(shape, boxes[cut])
                    share[cut] = shapely.area(part) / shapely.area(boxes[cut])
                    pieces[cut] = part
                touched = share > _TOUCH
                there = index[touched]
                part_of = np.full(len(there), number, np.int64)
                found.append((there, part_of, share[touched], pieces[touched]))
        first += len(shapes)
    if not found:
        nothing = np.zeros(0, np.int64)
        return _Covers(nothing, nothing, np.zeros(0), np.zeros(0, object))
    return _Covers(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _pure(
    covers: _Covers, own: Index, classes: int, purity: float
) -> tuple[tuple[Index, Index, NDArray[np.float64], Index], int]:
    """Return cells, classes, shares and parts of pure cells, and the number of contested cells."""
    labels = own[covers.parts]
    numbers, table = covers.by_class(labels, classes)
    place = np.searchsorted(numbers, covers.cells)
    shares = np.minimum(table, 1.0)
    best = shares.argmax(axis=1)
    top = shares[np.arange(len(numbers)), best]
    # rounding of areas: a fully covered cell must pass a purity of 1
    enough, clear = top >= purity - 1e-9, shares.sum(axis=1) - top <= 1 - purity + 1e-9
    # the part with the largest overlap, among those of the cell's class
    mine = labels == best[place]
    order = np.lexsort((covers.shares, mine, place))
    last = np.append(np.flatnonzero(np.diff(place[order])), len(order) - 1)
    part = covers.parts[order[last]]
    pure = enough & clear
    picked = numbers[pure], best[pure].astype(np.int64), top[pure], part[pure]
    return picked, int((enough & ~clear).sum())


def _spread(found: TrainingCells, per_polygon: int) -> NDArray[np.bool_]:
    """Return the mask of cells that stay if a polygon has at most `per_polygon`."""
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
    if isinstance(cells, GridCells) and len(_covers(cells.with_all(), layers).cells):
        return LabelError(
            NO_VECTORS,
            found=f"{found} (west, south, east, north)",
            expected=f"cells with a vector, which {np.mean(cells.valid):.0%} of them have",
            where=", ".join(layer.source for layer in layers),
            remedy="choose other places; or embed the scene with a lower --min_valid",
        )
    return LabelError(
        "the polygons are outside of the embeddings",
        found=f"{found} (west, south, east, north)",
        expected=f"within {west:.4f}, {south:.4f}, {east:.4f}, {north:.4f}",
        where=", ".join(layer.source for layer in layers),
        remedy="give polygons of that place, or embed the scene that they were drawn on",
    )


def _check_classes(found: TrainingCells, covers: _Covers, own: Index, purity: float) -> None:
    """Raise an error for a class whose polygons touch cells but label none."""
    labels = own[covers.parts]
    lost = sorted(set(labels.tolist()) - set(found.labels.tolist()))
    if not lost and len(set(found.labels.tolist())) > 1:
        return
    if not lost:
        name = found.classes[int(found.labels[0])]
        raise LabelError(
            "the embeddings contain polygons of only one class",
            found=name,
            expected="two classes or more",
            remedy=f"draw polygons of what is not {name} there too",
        )
    _, table = covers.by_class(labels, len(found.classes))
    most = {code: float(table[:, code].max()) for code in lost}
    covered_twice = [code for code, share in most.items() if share >= purity - 1e-9]
    if covered_twice:
        names = ", ".join(found.classes[code] for code in covered_twice)
        raise LabelError(
            "polygons or points of different classes are in the same cells",
            found=f"no cell for {names} alone",
            expected="cells with one class",
            remedy="cut the polygons so that they do not overlap, or leave one class out",
        )
    least = min(*most.values(), 1.0)
    lower = np.floor(least * 100) / 100
    names = ", ".join(f"{found.classes[code]} ({share:.0%})" for code, share in most.items())
    raise LabelError(
        "no cell of the embeddings is pure enough for a class",
        found=f"largest covered share of a cell: {names}",
        expected=f"{purity:.0%} of a cell, and no more than the rest under another class",
        remedy=f"accept mixed cells: --purity {lower:g}"
        if 0.5 < lower < purity
        else "draw larger polygons, embed smaller cells (eofm embed --patches), or give "
        "points, which label the cell that contains them",
    )


def _notes(found: TrainingCells, covers: _Covers, drawn: _Drawn, contested: int) -> tuple[str, ...]:
    notes = []
    number, touching = (
        len(np.unique(one)) for one in (drawn.polygons, drawn.polygons[covers.parts])
    )
    if touching < number:
        notes.append(
            f"{number - touching} of {number} polygons and points are outside of the embeddings, "
            "or where these have no vectors"
        )
    gone = set(drawn.labels.tolist()) - set(found.labels.tolist())
    if gone:
        names = ", ".join(found.classes[code] for code in sorted(gone))
        notes.append(f"**no polygon of {names} is on the embeddings**: it is not on the map")
    small = touching - len(found.features)
    if small:
        notes.append(
            f"{small} polygons are not used: they cover too little of a cell, or only cells that "
            "another polygon or point of the same class covers too"
        )
    if contested:
        notes.append(
            f"{contested} cells are under polygons of two classes and were left out of training"
        )
    return tuple(notes)


def _kept_notes(found: TrainingCells, kept: TrainingCells, per_polygon: int) -> tuple[str, ...]:
    notes = []
    pairs = np.unique(np.stack([found.polygons, found.parts], axis=1), axis=0)
    several = int((np.bincount(pairs[:, 0]) > 1).sum())
    if several:
        notes.append(
            f"{several} of {len(found.features)} polygons have several parts, {len(pairs)} parts "
            f"in total; {EXPLODE}"
        )
    if len(kept) < len(found):
        notes.append(
            f"{len(kept)} of {len(found)} labelled cells are used: at most {per_polygon} of a "
            "polygon"
        )
    return tuple(notes)


def _alike(names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes whose names differ only in case or blanks."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(" ".join(name.casefold().split()), []).append(name)
    same = [" and ".join(f"`{name}`" for name in group) for group in groups.values() if group[1:]]
    if not same:
        return ()
    return (
        f"**{'; '.join(same)} differ only in case or blanks, and are separate classes**; "
        "if they are the same class, use one name, as in geopandas: "
        'layer[field] = layer[field].str.casefold().str.split().str.join(" ")',
    )


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Return the values of a class map where classes are other numbers than these."""
    said = {str(value): name for value, name in enumerate(names, 1)}
    if not all(name.removeprefix("-").isdecimal() for name in names) or [*said] == [*names]:
        return ()
    pairs = ", ".join(f"{value} is class {name}" for value, name in said.items() if value != name)
    return (f"**the classes are numbers, and the values of a map of classes are others**: {pairs}",)


# -------------------------------------------------------- the probe, and the distance from its data

_ROWS: Final = 1 << 12  # cells predicted at once
_LEAST_LIKELY: Final = math.log(1e-3)
_TOLERANCE: Final = 1e-5  # of the gradient: errors of probabilities are below 0.001
# For separable classes the likelihood increases with C without limit, and fits become
# ever slower for nothing: the grid ends where that begins.
_STRENGTHS: Final = StrengthGrid.log10(-6, 0, 7)


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A fitted read-out.

    Args:
        name: Id of the probe, with all its choices.
        classes: K.
        strength: C of a linear probe; None for kNN.
        _ask: Vectors (n, D) -> probabilities (n, K).
    """

    name: str
    classes: int
    strength: float | None
    _ask: Callable[[Tensor], Tensor]

    def probability(self, vectors: Floats) -> Floats:
        """Return the probability of each class, float32 (N, K).

        Args:
            vectors: Finite, (N, D).
        """
        out = np.empty((len(vectors), self.classes), np.float32)
        for first in range(0, len(vectors), _ROWS):
            part = torch.from_numpy(np.ascontiguousarray(vectors[first : first + _ROWS]))
            out[first : first + _ROWS] = self._ask(part).numpy()
        return out


def fit_probe(
    kind: MapProbe,
    x: Floats,
    labels: Index,
    folds: Index,
    classes: int,
    *,
    neighbours: int = 5,
    strength: float | None = None,
) -> FittedProbe:
    """Fit a read-out on training cells.

    The linear layer is that of `eofm.probes.linear`, on standardised vectors, refitted on all
    cells once its strength is chosen: by likelihood, on the fold for which the other folds miss
    the fewest classes.

    Args:
        kind: Kind of read-out.
        x: (M, D).
        labels: (M,).
        folds: Fold of each cell, (M,): whole polygons of a square on the ground.
        classes: K.
        neighbours: Number for kNN, at most M.
        strength: C to use without a choice.

    Raises:
        ConfigError: If there are more neighbours than cells.
        LabelError: If all cells have the same class.
        PixelError: If a vector is not finite or all zero.
    """
    if kind is MapProbe.KNN:
        train = _labelled(x, labels, classes)
        found = knn_probe(train, train.x[:1], k=neighbours, scaling=Scaling.STANDARD)

        def ask(part: Tensor) -> Tensor:
            voted = knn_probe(train, part, k=neighbours, scaling=Scaling.STANDARD).probability
            assert voted is not None  # noqa: S101 (kNN always has one)
            return voted.float()

        return FittedProbe(found.probe, classes, None, ask)
    fit = _fit_linear(x, labels, folds, classes, strength)
    weight, bias = affine(fit)
    return FittedProbe(
        fit.probe, classes, fit.strength, lambda part: torch.softmax(part @ weight + bias, dim=1)
    )


def affine(fit: LinearFit) -> tuple[Tensor, Tensor]:
    """Return weights float32 (D, K) and biases (K,) of a linear fit for unscaled vectors.

    Args:
        fit: Fit on features that were standardised, or not scaled at all.
    """
    weight, bias = fit.weight, fit.bias
    if fit.scaler.mean is not None and fit.scaler.std is not None:
        weight = weight / fit.scaler.std[:, None]
        bias = bias - fit.scaler.mean @ weight
    return weight.float(), bias.float()


def _fit_linear(
    x: Floats, labels: Index, folds: Index, classes: int, strength: float | None
) -> LinearFit:
    held = None if strength is not None else _validation(labels, folds)
    if held is None:
        grid = StrengthGrid.single(strength or 1.0)
        train = _labelled(x, labels, classes)
        return fit_linear(
            train,
            None,
            choice=_choice,
            grid=grid,
            scaling=Scaling.STANDARD,
            tolerance=_TOLERANCE,
        )
    inside = folds == held
    return fit_linear(
        _labelled(x[~inside], labels[~inside], classes),
        _labelled(x[inside], labels[inside], classes),
        choice=_choice,
        grid=_STRENGTHS,
        scaling=Scaling.STANDARD,
        refit=True,
        tolerance=_TOLERANCE,
    )


def _validation(labels: Index, folds: Index) -> int | None:
    """Return the fold to choose on: the others have at least two classes and miss the fewest."""
    numbers = np.unique(folds)
    if len(numbers) < 2:
        return None
    left = [len(np.unique(labels[folds != one])) for one in numbers]
    best = int(np.argmax(left))
    return int(numbers[best]) if left[best] > 1 else None


def _choice(scores: Tensor, labels: Tensor) -> float:
    """Return the mean log-likelihood; a class missing in training costs a fixed amount.

    Accuracy is a worse criterion: if several strengths are all right it takes the strongest
    penalty, under which a class with few cells is never predicted.
    """
    own = torch.log_softmax(scores, dim=1).gather(1, labels[:, None])
    return float(own.clamp_min(_LEAST_LIKELY).mean())


def _labelled(x: Floats, labels: Index, classes: int) -> Labelled:
    return Labelled(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(labels), classes)


def said(probability: NDArray[np.float32]) -> Index:
    """Return the class of the largest probability, (N,); for ties, the first."""
    return np.asarray(probability.argmax(axis=1), np.int64)


# ----------------------------------------------------------------------------------------- novelty


_REFERENCES: Final = 512  # training vectors to compare with
_DIMENSIONS: Final = 32
_QUANTILE: Final = 0.99


@dataclass(frozen=True, eq=False)
class Novelty:
    """Training vectors in their principal components.

    Args:
        references: float32 (R, d).
        shift: float32 (D,), subtracted first.
        rotation: float32 (D, d): projects standardised vectors on their first components.
        limit: Distance that counts as 1.
    """

    references: Tensor
    shift: Tensor
    rotation: Tensor
    limit: float

    @classmethod
    def of(cls, x: Floats, polygons: Index) -> Novelty:
        """Return the training vectors with their distance limit.

        Args:
            x: (M, D).
            polygons: Polygon of each, (M,); at least two.
        """
        step = max(1, -(-len(x) // _REFERENCES))
        part = torch.from_numpy(np.ascontiguousarray(x[::step]))
        own = torch.from_numpy(np.ascontiguousarray(polygons[::step]))
        scaler = Scaler.of(part, Scaling.STANDARD)
        assert scaler.mean is not None  # noqa: S101 (of STANDARD it is there)
        assert scaler.std is not None  # noqa: S101
        basis = Eigenbasis.of(scaler(part))
        order = basis.energy[:-1].argsort(descending=True)[:_DIMENSIONS]
        rotation = basis.directions[:, order] / scaler.std[:, None]
        references = (part.double() - scaler.mean) @ rotation
        distance = torch.cdist(references, references)
        distance[own[:, None] == own] = torch.inf
        nearest = distance.min(dim=1).values
        nearest = nearest[nearest.isfinite()]
        limit = float(torch.quantile(nearest, _QUANTILE)) if len(nearest) else 0.0
        return cls(references.float(), scaler.mean.float(), rotation.float(), max(limit, 1e-12))

    def __call__(self, vectors: Floats) -> Floats:
        """Return the distance to the nearest training vector divided by the limit, (N,)."""
        out: NDArray[np.float32] = np.empty(len(vectors), np.float32)
        squares = self.references.square().sum(dim=1)
        for first in range(0, len(vectors), _ROWS):
            part = torch.from_numpy(np.ascontiguousarray(vectors[first : first + _ROWS]))
            z = (part - self.shift) @ self.rotation
            found = torch.addmm(squares, z, self.references.T, alpha=-2).min(dim=1).values
            nearest = (found + z.square().sum(dim=1)).clamp_min(0).sqrt()
            out[first : first + _ROWS] = (nearest / self.limit).numpy()
        return out
