"""Places that look like others: exact search over all cells.

    import eofm

    found = eofm.search(embeddings, like="solar.gpkg", unlike="roofs.gpkg")
    found.ranked(100)           # GeoDataFrame: rank, score, longitude, latitude, geometry
    found.to_xarray()           # the score of every patch

With examples alone the score is the cosine with the mean of their unit vectors. With
counterexamples a linear probe tells the two apart, and the score is its probability: differences of
mean vectors are a poor guide with few examples.

Shapes: N cells, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import torch

from eofm.errors import ConfigError, LabelError
from eofm.geo.cells import Cells, Embeddings, Floats, Index, cells_of, degrees, on_grid
from eofm.geo.mapping.fitting import affine
from eofm.geo.mapping.training import covered
from eofm.geo.places import LabelledPlaces, geo_frame, read_places
from eofm.geo.scan import best, scan
from eofm.probes.linear import Labelled, Scaling, StrengthGrid, fit_linear
from eofm.probes.metrics import overall_accuracy
from eofm.raster.grid import read_crs

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import DataArray

    from eofm.geo.places import PlacesLike


class ScoreKind(StrEnum):
    """What the score of a search is."""

    COSINE = "cosine with the mean of the examples"
    PROBABILITY = "probability of the examples against the counterexamples"


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The score of every cell.

    Args:
        cells: Chips or patches.
        scores: float32 (N,), NaN without a vector.
        kind: What a score is.
        examples: Cells that were looked for.
        counterexamples: Cells that were not meant.
    """

    cells: Cells
    scores: Floats
    kind: ScoreKind
    examples: Index
    counterexamples: Index

    def __repr__(self) -> str:
        return (
            f"SearchResult({len(self.scores):,} cells by {self.kind}; {len(self.examples)} "
            f"examples, {len(self.counterexamples)} counterexamples)"
        )

    def ranked(self, top: int = 100) -> GeoDataFrame:
        """Return the best cells that were no examples: rank, score, longitude, latitude, geometry.

        Args:
            top: How many, at most.
        """
        which = best(self.scores, top, np.concatenate([self.examples, self.counterexamples]))
        lonlat = degrees(self.cells, which) if len(which) else np.zeros((0, 2))
        return geo_frame(
            self.cells.outlines(which),
            self.cells.crs,
            {
                "rank": np.arange(1, len(which) + 1),
                "cell": which,
                "score": self.scores[which],
                "longitude": lonlat[:, 0],
                "latitude": lonlat[:, 1],
            },
        )

    def to_xarray(self) -> DataArray:
        """Return the score on the grid of the patches, (y, x).

        Raises:
            DataError: If the cells are chips, which have no grid.
        """
        remedy = "take the best: found.ranked(100)"
        return on_grid(self.cells, {"score": self.scores}, remedy)["score"]


def search(
    embeddings: Embeddings,
    *,
    at: tuple[float, float] | None = None,
    like: PlacesLike | Sequence[PlacesLike] | None = None,
    unlike: PlacesLike | Sequence[PlacesLike] | None = None,
) -> SearchResult:
    """Score every cell by how alike it is to a place, or to what lies under polygons and points.

    Args:
        embeddings: Chips or a patch grid.
        at: Longitude and latitude of a place.
        like: Polygons and points of what is looked for, in any CRS: a file or a GeoDataFrame, or
            several. Cells of which half is covered are examples.
        unlike: Polygons and points of what is not meant.

    Raises:
        ConfigError: If neither or both of `at` and `like` are given.
        LabelError: If a place lies outside of the embeddings, or polygons cannot be used.
    """
    cells = cells_of(embeddings)
    if (at is None) == (like is None):
        raise ConfigError(
            "a search needs one thing to look for",
            found="neither a place nor examples" if at is None else "a place and examples",
            remedy="name a place, at=(longitude, latitude), or polygons, like=FILE",
        )
    wanted = covered(cells, _point(at)) if at is not None else _under(cells, like)
    others = np.zeros(0, np.int64) if unlike is None else _under(cells, unlike)
    both = np.intersect1d(wanted, others)
    if len(both):
        raise LabelError(
            "cells are examples and counterexamples at once",
            found=f"{len(both)} of {len(wanted)} cells under the examples",
            remedy="cut the polygons so that they do not overlap",
        )
    positive = cells.vectors(wanted)
    if not len(others):
        scores = scan(cells, _mean_direction(positive), cosine=True)
        return SearchResult(cells, scores, ScoreKind.COSINE, wanted, others)
    weight, bias = _separate(positive, cells.vectors(others))
    logits = scan(cells, weight, bias, cosine=False)
    scores = torch.from_numpy(logits).sigmoid().numpy()
    return SearchResult(cells, scores, ScoreKind.PROBABILITY, wanted, others)


def _point(at: tuple[float, float]) -> LabelledPlaces:
    import shapely

    return LabelledPlaces(
        np.array([shapely.Point(*at)], object),
        read_crs("EPSG:4326"),
        (),
        f"{at[0]:g}, {at[1]:g} (longitude, latitude)",
        np.zeros(1, np.int64),
    )


def _under(cells: Cells, given: PlacesLike | Sequence[PlacesLike] | None) -> Index:
    several = given if isinstance(given, list | tuple) else [given]
    return np.unique(np.concatenate([covered(cells, read_places(one)) for one in several]))


def _mean_direction(vectors: Floats) -> Floats:
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    mean = units.mean(axis=0)
    if float(np.linalg.norm(mean)) < 1e-6:
        raise LabelError(
            "the examples have nothing in common",
            found="unit vectors whose mean is zero",
            remedy="search with some of them at a time",
        )
    return np.asarray(mean, np.float32)


def _separate(positive: Floats, negative: Floats) -> tuple[Floats, float]:
    """Return direction and bias of a linear probe whose logit is that of the positives."""
    x = torch.from_numpy(np.concatenate([negative, positive]))
    y = torch.cat([torch.zeros(len(negative)), torch.ones(len(positive))]).long()
    fit = fit_linear(
        Labelled(x, y, 2),
        None,
        choice=lambda scores, labels: overall_accuracy(scores.argmax(dim=1), labels),
        grid=StrengthGrid.single(1.0),
        scaling=Scaling.STANDARD,
    )
    weight, bias = affine(fit)
    return (weight[:, 1] - weight[:, 0]).numpy(), float(bias[1] - bias[0])
