"""Learn a class map from labelled polygons and points, and estimate its accuracy.

    import eofm

    learnt = eofm.map_classes(eofm.open_embeddings("emb"), "fields.gpkg", field="crop")
    learnt.map.to_xarray()      # class, probability and novelty on the grid of the patches
    learnt.on(eofm.open_embeddings("next year"))
    print(learnt.assessment.overall)

Shapes: N cells, M training cells, D dimensions, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from eofm.errors import ConfigError, LabelError
from eofm.geo.accuracy import (
    AreaEstimate,
    Assessment,
    BlockFrom,
    CrossValidation,
    Folds,
    LearningPoint,
    Variogram,
    assess,
    cell_areas,
    cell_side,
    cross_validate,
    estimate_areas,
    fewest_trained,
    learning_curve,
    make_folds,
    variogram,
)
from eofm.geo.cells import Cells, Embeddings, Floats, Index, cells_of, metric_centres, on_grid
from eofm.geo.embeddings import require_same_vectors
from eofm.geo.maps_config import MapMethod, MapProbe, SampleDesign
from eofm.geo.places import LabelledPlaces, as_layers, classes_of, geo_frame, read_labels
from eofm.geo.training import (
    EXPLODE,
    FittedProbe,
    Novelty,
    TrainingCells,
    fit_probe,
    label_cells,
    said,
)
from eofm.probes.bootstrap import FEWEST_GROUPS, enough_groups
from eofm.terminal import track

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import Dataset

    from eofm.geo.places import PlacesLike

__all__ = ["NO_CLASS", "LearntMap", "MappedCells", "map_classes"]


NO_CLASS: Final = 0
_FAR_SHARE: Final = 0.1  # of a class's cells beyond the training vectors, from which it is reported


@dataclass(frozen=True, eq=False, repr=False)
class MappedCells:
    """The classes of cells.

    Args:
        cells: Chips or patches.
        classes: Names, K; code 1 is the first.
        codes: Class code of each cell, uint8 (N,), `NO_CLASS` without a vector.
        probability: Probability of that class, float32 (N,), NaN without a vector.
        novelty: Distance from the training vectors, float32 (N,), in units of its limit: above 1 is
        beyond them.
    """

    cells: Cells
    classes: tuple[str, ...]
    codes: NDArray[np.uint8]
    probability: Floats
    novelty: Floats

    def __repr__(self) -> str:
        count = np.bincount(self.codes, minlength=len(self.classes) + 1)[1:].tolist()
        found = ", ".join(f"{name} {n}" for name, n in zip(self.classes, count, strict=True))
        return f"MappedCells({len(self.codes)} cells: {found})"

    @cached_property
    def mapped(self) -> NDArray[np.float64]:
        """Area of each class in square metres, (K,)."""
        area = np.bincount(self.codes, cell_areas(self.cells), len(self.classes) + 1)
        return np.asarray(area[1:], np.float64)

    @cached_property
    def beyond(self) -> NDArray[np.float64]:
        """Share of the cells of each class beyond the training vectors, (K,)."""
        count = np.bincount(self.codes, minlength=len(self.classes) + 1)
        far = np.bincount(self.codes[self.novelty > 1], minlength=len(self.classes) + 1)
        return np.asarray((far / np.maximum(count, 1))[1:], np.float64)

    def to_xarray(self) -> Dataset:
        """Return `class` (uint8, 0 none), `probability` and `novelty` on the grid of the patches.

        Raises:
            DataError: If the map is of chips, which have no grid.
        """
        planes: dict[str, NDArray[np.generic]] = {
            "class": self.codes,
            "probability": self.probability,
            "novelty": self.novelty,
        }
        found = on_grid(self.cells, planes, "use a GeoDataFrame: to_frame()")
        found["class"].attrs.update(
            flag_values=np.arange(1, len(self.classes) + 1, dtype=np.uint8),
            flag_meanings=" ".join(name.replace(" ", "_") for name in self.classes),
            _FillValue=np.uint8(NO_CLASS),
        )
        return found

    def to_frame(self) -> GeoDataFrame:
        """Return the cells with a class: `class`, `code`, `probability`, `novelty`, geometry."""
        which = np.flatnonzero(self.codes != NO_CLASS)
        names = np.array(["", *self.classes], object)
        return geo_frame(
            self.cells.outlines(which),
            self.cells.crs,
            {
                "class": names[self.codes[which]],
                "code": self.codes[which].astype(np.int64),
                "probability": self.probability[which],
                "novelty": self.novelty[which],
            },
        )


@dataclass(frozen=True, eq=False, repr=False)
class LearntMap:
    """A map of classes, and the data and results of its training.

    Args:
        map: Classes of the cells that it was trained on.
        training: The training cells.
        folds: Folds of polygons for cross-validation.
        variogram: Variogram of the vectors; None if the user set the side of the squares.
        validation: Predictions for held-out cells.
        assessment: Accuracies, with intervals over squares of ground.
        curve: Accuracy with fewer polygons.
        areas: Estimated areas from a probability sample; None for other samples.
        method: The settings.
        probe: The read-out.
        distance: Distance from the training vectors.
        notes: Warnings for the report.
    """

    map: MappedCells
    training: TrainingCells
    folds: Folds
    variogram: Variogram | None
    validation: CrossValidation
    assessment: Assessment
    curve: tuple[LearningPoint, ...]
    areas: AreaEstimate | None
    method: MapMethod
    probe: FittedProbe
    distance: Novelty
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"LearntMap({self.map!r}, learnt from {len(self.training)} cells of "
            f"{len(self.training.features)} polygons and points)"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.map.classes

    @property
    def unscored(self) -> tuple[str, ...]:
        """Names of the classes that are not scored."""
        scored = zip(self.classes, self.assessment.scored, strict=True)
        return tuple(name for name, one in scored if not one)

    def on(self, embeddings: Embeddings) -> MappedCells:
        """Return the classes of other cells, of another scene or date, by the same read-out.

        The accuracy there is unknown: the estimate holds for the ground of the polygons.

        Args:
            embeddings: Vectors of the same model and plan.

        Raises:
            SpecError: If model or plan differ.
        """
        require_same_vectors(self.map.cells.made, embeddings.provenance)
        return _predict(cells_of(embeddings), self.classes, self.probe, self.distance)

    def training_frame(self) -> GeoDataFrame:
        """Return the training cells: class, polygon, square, fold, and held-out prediction.

        A cell that is not `tested` was predicted by a read-out that was not trained on its class,
        or on that class alone; it does not count towards the accuracy.
        """
        training, names = self.training, np.array(self.classes, object)
        return geo_frame(
            self.map.cells.outlines(training.cells),
            self.map.cells.crs,
            {
                "class": names[training.labels],
                "purity": training.shares,
                "layer": training.features[training.polygons, 0],
                "feature": training.features[training.polygons, 1],
                "polygon": training.polygons,
                "square": self.folds.of_block[training.polygons],
                "fold": self.folds.of_polygon[training.polygons],
                "tested": self.validation.tested,
                "held_out": names[self.validation.said],
                "right": self.validation.said == training.labels,
            },
        )


def map_classes(
    embeddings: Embeddings,
    labels: PlacesLike | Sequence[PlacesLike],
    field: str | None = None,
    method: MapMethod | None = None,
) -> LearntMap:
    """Learn a map of classes from polygons or points.

    Args:
        embeddings: Chips or a patch grid.
        labels: A file or GeoDataFrame of polygons and points, in any CRS; or several.
        field: The field that holds their class.
        method: The settings.

    Raises:
        ConfigError: If no field is stated, all polygons are in one square of the given side, or
            there are fewer training cells than neighbours.
        LabelError: If the labels cannot be used: outside of the embeddings, invalid, of a single
            class, smaller than the cells; or if areas are requested without a probability sample.
        RasterError: If the CRS of the embeddings is not terrestrial.
    """
    method = method or MapMethod()
    layers = [read_labels(one, field) for one in as_layers(labels)]
    cells = cells_of(embeddings)
    _check_design(layers, method.design)
    training = label_cells(
        cells,
        layers,
        classes_of(layers),
        purity=method.purity,
        per_polygon=method.per_polygon,
    )
    return _learn(cells, training, method)


def _check_design(layers: Sequence[LabelledPlaces], design: SampleDesign) -> None:
    drawn = sum(len(np.unique(layer.features[~layer.points])) for layer in layers)
    if design is SampleDesign.RANDOM and drawn:
        raise LabelError(
            "areas are estimated from the points of a probability sample",
            found=f"{drawn} polygons, whose places and sizes somebody chose",
            expected="only points, each drawn with the same probability",
            remedy="give the sample points, or leave the areas out: --design purposive",
        )


def _learn(cells: Cells, training: TrainingCells, method: MapMethod) -> LearntMap:
    x = cells.vectors(training.cells)
    xy = metric_centres(cells, training.cells)
    _, first, part = np.unique(training.parts, return_index=True, return_inverse=True)
    size = np.bincount(part)
    centres = np.stack([np.bincount(part, axis) / size for axis in xy.T], axis=1)
    cell = cell_side(cells, training.cells)
    found = variogram(xy, x, cell) if method.block is None else None
    side = method.block if found is None else found.range
    assert side is not None  # noqa: S101 (stated, or from the variogram)
    source = BlockFrom.STATED
    if found is not None:
        source = BlockFrom.VARIOGRAM if found.known else BlockFrom.EXTENT
    folds = make_folds(
        centres,
        training.polygon_labels,
        np.bincount(training.polygons),
        side,
        method.folds,
        source=source,
        cell=cell,
        polygons=training.polygons[first],
    )
    least = _require_neighbours(method, training, folds)
    fit = partial(_fit, method, len(training.classes))
    validation = cross_validate(x, training, folds, fit)
    if not validation.scored.any():
        raise LabelError(
            "no class can be tested: each has a single polygon, or all in one square",
            found=f"{len(training.features)} polygons",
            expected="two polygons or more of a class, apart from each other",
            remedy=f"draw a second polygon of each class; {EXPLODE}",
        )
    assessment = assess(training, validation, folds.of_block, method.seed)
    fold = folds.of_polygon[training.polygons]
    probe = fit(x, training.labels, fold, None)
    distance = Novelty.of(x, training.polygons)
    learnt = LearntMap(
        _predict(cells, training.classes, probe, distance),
        training,
        folds,
        found,
        validation,
        assessment,
        learning_curve(x, training, folds, fit, validation, method.seed, least=least),
        None,
        method,
        probe,
        distance,
    )
    if method.design is SampleDesign.RANDOM:
        learnt = replace(learnt, areas=_areas(learnt))
    return replace(learnt, notes=_notes(learnt))


def _require_neighbours(method: MapMethod, training: TrainingCells, folds: Folds) -> int:
    """Return the minimum number of cells of a read-out: kNN needs as many as neighbours.

    Raises:
        ConfigError: If the read-out of a fold has fewer.
    """
    if method.probe is not MapProbe.KNN:
        return 1
    fewest = fewest_trained(training, folds)
    if method.neighbours > fewest:
        raise ConfigError(
            "there are fewer training cells than neighbours",
            found=f"{method.neighbours} neighbours; {fewest} training cells are left when the "
            "largest fold is held out",
            expected=f"1 to {fewest}",
            remedy=f"use fewer: --neighbours {min(MapMethod.neighbours, fewest)}",
        )
    return method.neighbours


def _fit(
    method: MapMethod, classes: int, x: Floats, labels: Index, folds: Index, strength: float | None
) -> FittedProbe:
    return fit_probe(
        method.probe, x, labels, folds, classes, neighbours=method.neighbours, strength=strength
    )


def _predict(
    cells: Cells, classes: tuple[str, ...], probe: FittedProbe, distance: Novelty
) -> MappedCells:
    count = len(cells.valid)
    codes = np.zeros(count, np.uint8)
    probability, novelty = (np.full(count, np.nan, np.float32) for _ in range(2))
    for rows, vectors in track(cells.blocks(), "mapping", cells.block_count):
        there = cells.valid[rows]
        if not there.any():
            continue
        whole = vectors if there.all() else vectors[there]
        scores = probe.probability(whole)
        codes[rows][there] = said(scores) + 1
        probability[rows][there] = scores.max(axis=1)
        novelty[rows][there] = distance(whole)
    return MappedCells(cells, classes, codes, probability, novelty)


def _areas(learnt: LearntMap) -> AreaEstimate:
    """Estimate areas from the prediction of each point when its square was held out."""
    if learnt.unscored:
        raise LabelError(
            "an area estimate of a class needs points that were tested",
            found=f"{', '.join(learnt.unscored)}: all points held out together",
            expected="points of each class apart from each other",
            remedy="draw more sample points there, or leave the areas out: --design purposive",
        )
    classes = len(learnt.classes)
    key = learnt.validation.said * classes + learnt.training.labels
    counts = np.bincount(key, minlength=classes * classes).reshape(classes, classes)
    try:
        return estimate_areas(counts, learnt.map.mapped)
    except LabelError as error:
        few = counts.sum(axis=1) < 2
        names = [name for name, one in zip(learnt.classes, few, strict=True) if one]
        raise LabelError(
            error.problem,
            found=f"fewer in {', '.join(names)}",
            expected=error.expected,
            remedy=error.remedy,
        ) from error


def _outvoted(learnt: LearntMap) -> list[str]:
    """Return the classes with too few cells to win a vote among so many neighbours."""
    if learnt.method.probe is not MapProbe.KNN:
        return []
    # with all its n cells among k neighbours, one of the others has (k - n) / (classes - 1) or more
    most = np.bincount(learnt.training.labels) * len(learnt.classes)
    few = [n for n, one in zip(learnt.classes, most, strict=True) if one < learnt.method.neighbours]
    if not few:
        return []
    return [
        f"**{', '.join(few)}: nowhere on the map**, because even all training cells of the class "
        f"are outvoted among {learnt.method.neighbours} neighbours; use fewer: --neighbours "
        f"{min(MapMethod.neighbours, int(most.min()))}"
    ]


_LOST: Final = 0.02  # of the points of a sample: if more are lost, the rest is a different sample


def _lost_points(learnt: LearntMap) -> list[str]:
    """Return a note if cells hold several points of a sample, of which at most one is counted."""
    lost = learnt.training.touching - len(learnt.training)
    if learnt.areas is None or lost <= _LOST * learnt.training.touching:
        return []
    return [
        f"**{lost} of {learnt.training.touching} sample points are not counted**: they share a "
        "cell with others, and a cell with points of two classes is dropped: the estimated areas "
        "are those of purer ground; embed smaller cells: eofm embed --patches --stride 7"
    ]


def _notes(learnt: LearntMap) -> tuple[str, ...]:
    notes = [*learnt.training.notes, *learnt.folds.notes]
    unscored = ", ".join(learnt.unscored)
    if unscored:
        notes.append(
            f"**{unscored}: not scored**, because all polygons were held out together, so "
            "that none was left for training when they were tested; the map still shows the "
            "class, and confusions with it do not lower any accuracy"
        )
    if learnt.assessment.overall is None:
        notes.append(
            "**only one class could be scored: there is no overall and no user's accuracy**, for "
            "no cell of another class was tested that could be confused with it; draw polygons "
            f"of {unscored} in other squares"
        )
    notes += _outvoted(learnt) + _lost_points(learnt)
    counts = zip(learnt.classes, learnt.assessment.squares, strict=True)
    few = [f"{name} ({count})" for name, count in counts if count and not enough_groups(count)]
    if few:
        notes.append(
            f"few squares tested: {', '.join(few)}; fewer than {FEWEST_GROUPS} do not "
            "allow an interval of the accuracy; draw polygons in "
            "other places"
        )
    far = [
        f"{name} ({share:.0%})"
        for name, share in zip(learnt.classes, learnt.map.beyond, strict=True)
        if share > _FAR_SHARE
    ]
    if far:
        notes.append(
            f"**the map extrapolates: {', '.join(far)} of a class's cells are further from all "
            "training vectors than 99 % of these are from another polygon**; draw polygons there"
        )
    return tuple(notes)
