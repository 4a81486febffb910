"""From labelled polygons and points to a map of classes, with what is known of its accuracy.

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

from eofm.errors import LabelError
from eofm.geo.cells import (
    Cells,
    Embeddings,
    Floats,
    Index,
    cells_of,
    metric_centres,
    on_grid,
)
from eofm.geo.mapping.accuracy import (
    Assessment,
    CrossValidation,
    LearningPoint,
    assess,
    cross_validate,
    learning_curve,
)
from eofm.geo.mapping.areas import AreaEstimate, estimate_areas
from eofm.geo.mapping.blocks import Folds, Variogram, make_folds, variogram
from eofm.geo.mapping.cell_areas import cell_areas
from eofm.geo.mapping.fitting import FittedProbe, fit_probe, said
from eofm.geo.mapping.novelty import Novelty
from eofm.geo.mapping.training import TrainingCells, label_cells
from eofm.geo.maps_config import MapMethod, SampleDesign
from eofm.geo.places import LabelledPlaces, classes_of, geo_frame, read_labels
from eofm.geo.vectors.embeddings import require_same_vectors

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import Dataset

    from eofm.geo.places import PlacesLike

NO_CLASS: Final = 0
_FAR_SHARE: Final = 0.1  # of a class's cells beyond the training vectors, from which on it is said
_FEW: Final = 5  # polygons of a class below which its interval means little


@dataclass(frozen=True, eq=False)
class MappedCells:
    """The classes of cells.

    Args:
        cells: Chips or patches.
        classes: Names, K; code 1 is the first.
        codes: Class of each cell, uint8 (N,), `NO_CLASS` without a vector.
        probability: Of that class, float32 (N,), NaN without a vector.
        novelty: Distance from the training vectors, float32 (N,): above 1 is beyond them.
    """

    cells: Cells
    classes: tuple[str, ...]
    codes: NDArray[np.uint8]
    probability: Floats
    novelty: Floats

    def __repr__(self) -> str:
        mapped = int((self.codes != NO_CLASS).sum())
        return f"MappedCells({mapped:,} of {len(self.codes):,} cells: {', '.join(self.classes)})"

    @cached_property
    def mapped(self) -> NDArray[np.float64]:
        """Ground of each class in square metres, (K,)."""
        area = np.bincount(self.codes, cell_areas(self.cells), len(self.classes) + 1)
        return np.asarray(area[1:], np.float64)

    @cached_property
    def beyond(self) -> NDArray[np.float64]:
        """Share of each class's cells that lie beyond the training vectors, (K,)."""
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
        found = on_grid(self.cells, planes, "take them as a GeoDataFrame: to_frame()")
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


@dataclass(frozen=True, eq=False)
class LearntMap:
    """A map of classes, and what it was learnt from.

    Args:
        map: Classes of the cells it was learnt on.
        training: The training cells.
        folds: Which polygons were held out together.
        variogram: From which the side of the squares comes; None if it was stated.
        validation: What was said of held-out cells.
        assessment: Accuracies, with intervals over polygons.
        curve: Accuracy with fewer polygons.
        areas: Estimated areas of a probability sample; None of any other.
        method: The settings.
        probe: The read-out.
        distance: From the training vectors.
        notes: What a reader must be told.
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
        overall = self.assessment.overall
        return (
            f"LearntMap({', '.join(self.classes)}: {100 * overall.value:.0f} % right "
            f"({100 * overall.low:.0f} – {100 * overall.high:.0f}) on held-out squares; "
            f"{sum(self.assessment.polygons)} polygons)"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.map.classes

    def on(self, embeddings: Embeddings) -> MappedCells:
        """Return the classes of other cells, of another scene or date, by the same read-out.

        How accurate it is there, nothing says: the accuracy is that of the ground of the polygons.

        Args:
            embeddings: Vectors of the same model and plan.

        Raises:
            SpecError: If they are not.
        """
        require_same_vectors(self.map.cells.made, embeddings.provenance)
        return _predict(cells_of(embeddings), self.classes, self.probe, self.distance)

    def training_frame(self) -> GeoDataFrame:
        """Return the training cells: class, polygon, square, fold, and what was said held out."""
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
        ConfigError: If no field is stated, or all polygons lie in one square of the stated side.
        LabelError: If the labels cannot be used: outside of the embeddings, not valid, of one class
            alone, smaller than the cells; or the areas of a sample that is none.
        RasterError: If the embeddings do not lie on the earth.
    """
    method = method or MapMethod()
    given = [labels] if not isinstance(labels, list | tuple) else list(labels)
    layers = [read_labels(one, field) for one in given]
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
    drawn = sum(int((~layer.points).sum()) for layer in layers)
    if design is SampleDesign.RANDOM and drawn:
        raise LabelError(
            "areas are estimated from the points of a probability sample",
            found=f"{drawn} polygons, whose places and sizes somebody chose",
            expected="points alone, each drawn with the same chance",
            remedy="give the sample points, or leave the areas out: --design purposive",
        )


def _learn(cells: Cells, training: TrainingCells, method: MapMethod) -> LearntMap:
    x = cells.vectors(training.cells)
    xy = metric_centres(cells, training.cells)
    weights = np.bincount(training.polygons)
    centres = np.stack([np.bincount(training.polygons, axis) / weights for axis in xy.T], axis=1)
    found = variogram(xy, x) if method.block is None else None
    side = method.block if found is None else max(found.range, 1e-3)
    assert side is not None  # noqa: S101 (stated, or from the variogram)
    folds = make_folds(
        centres,
        training.polygon_labels,
        weights,
        side,
        method.folds,
        stated=method.block is not None,
    )
    fit = partial(_fit, method, len(training.classes))
    validation = cross_validate(x, training, folds, fit)
    if not validation.scored.any():
        raise LabelError(
            "no class can be tested: each has one polygon alone, or all in one square",
            found=f"{len(training.features)} polygons",
            expected="two polygons or more of a class, apart from each other",
            remedy="draw a second polygon of each class",
        )
    assessment = assess(training, validation, method.seed)
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
        learning_curve(x, training, folds, fit, validation, method.seed),
        None,
        method,
        probe,
        distance,
    )
    if method.design is SampleDesign.RANDOM:
        learnt = replace(learnt, areas=_areas(learnt))
    return replace(learnt, notes=_notes(learnt))


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
    for rows, vectors in cells.blocks():
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
    """Estimate areas: rows are what was said of each point while its square was held out."""
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


def _notes(learnt: LearntMap) -> tuple[str, ...]:
    notes = [*learnt.training.notes, *learnt.folds.notes]
    unscored = [n for n, s in zip(learnt.classes, learnt.assessment.scored, strict=True) if not s]
    if unscored:
        notes.append(
            f"**{', '.join(unscored)}: not scored**, for all polygons lie in one square, so that "
            "none is left to learn from when they are tested; the map shows it all the same"
        )
    counts = zip(learnt.classes, learnt.assessment.polygons, strict=True)
    few = [f"{name} ({count})" for name, count in counts if count < _FEW]
    if few:
        notes.append(
            f"few polygons: {', '.join(few)}; an interval over fewer than {_FEW} says little, and "
            "is too narrow"
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
