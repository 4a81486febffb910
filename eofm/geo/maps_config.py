"""Settings of `eofm map`, `search`, `change` and `explore`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import nan
from typing import Final

from eofm.errors import ConfigError, require
from eofm.settings import checked_settings

__all__ = [
    "HIGHEST_LATITUDE",
    "HIGHEST_LONGITUDE",
    "HIGHEST_RATE",
    "POSITIONAL",
    "ChangeConfig",
    "ChangeRule",
    "ExploreConfig",
    "MapConfig",
    "MapMethod",
    "MapProbe",
    "SampleDesign",
    "SearchConfig",
    "place_of",
]

HIGHEST_LONGITUDE: Final = 360.0  # some count from 0 on to the east
HIGHEST_LATITUDE: Final = 90.0
POSITIONAL: Final = {"positional": True}


class MapProbe(StrEnum):
    """How classes are read from vectors."""

    LINEAR = "linear"
    KNN = "knn"


class SampleDesign(StrEnum):
    """How the places of the labels were chosen."""

    PURPOSIVE = "purposive"  # where somebody knew the class, or could draw it
    RANDOM = "random"  # by a probability design with equal chances: random, or systematic


@dataclass(frozen=True)
@checked_settings
class MapMethod:
    """How a map is learnt.

    Args:
        probe: Classifier of the vectors.
        neighbours: Neighbours of kNN; at most the number of training cells in any fold.
        purity: Smallest share of a training cell covered by polygons of its class, above 0.5.
        per_polygon: Largest number of training cells per polygon (all parts of a feature count as
            one).
        block: Side of the spatial blocks of cross-validation in metres. None: the range of the
            variogram of the vectors, or half of the extent if there is none.
        folds: Largest number of folds.
        design: Sampling design of the labels. `random` (points only) gives area estimates with
            intervals.
        seed: Seed of resampling and of the subsets of the learning curve.

    Raises:
        ConfigError: If a setting is out of range.
    """

    probe: MapProbe = MapProbe.LINEAR
    neighbours: int = 5
    purity: float = 0.8
    per_polygon: int = 100
    block: float | None = None
    folds: int = 5
    design: SampleDesign = SampleDesign.PURPOSIVE
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.neighbours >= 1, "neighbours", self.neighbours, "1 or more")
        require(0.5 < self.purity <= 1, "purity", self.purity, "above 0.5, up to 1")
        require(self.per_polygon >= 1, "per_polygon", self.per_polygon, "1 or more")
        require(self.block is None or self.block > 0, "block", self.block, "metres above 0")
        require(self.folds >= 2, "folds", self.folds, "2 or more")


@dataclass(frozen=True)
@checked_settings
class MapConfig:
    """Learn a map of classes from polygons or points.

    Args:
        embeddings: A file of embeddings, or the folder that `eofm embed` wrote.
        labels: Polygons or points with their classes, in any CRS: GeoPackage, GeoJSON, Shapefile,
            FlatGeobuf, GeoParquet; several files together.
        field: Field with the class.
        out: Folder of the map, its report and its training data.
        also: Further embeddings to map with the same classifier, each into its own folder; the
            reported accuracy does not apply to them.
        probe: Classifier of the vectors.
        neighbours: Neighbours of kNN; at most the number of training cells in any fold.
        purity: Smallest share of a training cell covered by polygons of its class, above 0.5.
        per_polygon: Largest number of training cells per polygon (all parts of a feature count as
            one).
        block: Side of the spatial blocks of cross-validation in metres; by default the range of the
            variogram of the vectors, or half of the extent if there is none.
        folds: Largest number of folds.
        design: Sampling design of the labels. `random` (points only) gives area estimates with
            intervals.
        seed: Seed of resampling and of the subsets of the learning curve.
    """

    embeddings: str = field(metadata=POSITIONAL)
    labels: list[str]
    field: str | None = None
    out: str = "map"
    also: list[str] | None = None
    probe: MapProbe = MapProbe.LINEAR
    neighbours: int = 5
    purity: float = 0.8
    per_polygon: int = 100
    block: float | None = None
    folds: int = 5
    design: SampleDesign = SampleDesign.PURPOSIVE
    seed: int = 0

    def __post_init__(self) -> None:
        _check_some("labels", self.labels)
        _check_some("also", self.also, "EMB_C")
        _ = self.method

    @property
    def method(self) -> MapMethod:
        """How the map is learnt.

        Raises:
            ConfigError: If a setting is out of range.
        """
        return MapMethod(
            self.probe,
            self.neighbours,
            self.purity,
            self.per_polygon,
            self.block,
            self.folds,
            self.design,
            self.seed,
        )


def _check_some(name: str, files: list[str] | None, as_in: str = "polygons.gpkg") -> None:
    if files is not None and not all(files or [""]):
        raise ConfigError(f"--{name} names no file", remedy=f"name one: --{name} {as_in}")


@dataclass(frozen=True)
@checked_settings
class SearchConfig:
    """Find places that look like others.

    Args:
        embeddings: A file of embeddings, or the folder that `eofm embed` wrote.
        at: Longitude and latitude of a place, such as `11.35,48.07`.
        like: Polygons or points of what to search for.
        unlike: Polygons or points of counterexamples; a linear probe then separates the two.
        top: Number of places to list.
        scene: Scene of the embeddings, for a sheet with pictures of the best places.
        sensor: Sensor of the scene, if the product does not state it.
        unit: Unit of the scene, if the product does not state it.
        bands: Bands of the scene in stored order, if the file does not name them.
        time: Time step of a scene that is a netCDF or Zarr series, such as 2021-07-04.
        item: One of several images: identifier of a STAC item, tile of a SAFE product.
        out: Output folder.
    """

    embeddings: str = field(metadata=POSITIONAL)
    at: str | None = field(default=None, metadata={"numbers": True})
    like: list[str] | None = None
    unlike: list[str] | None = None
    top: int = 100
    scene: str | None = None
    sensor: str | None = None
    unit: str | None = None
    bands: list[str] | None = None
    time: str | None = None
    item: str | None = None
    out: str = "search"

    def __post_init__(self) -> None:
        require(self.top >= 1, "top", self.top, "1 or more")
        _check_some("like", self.like)
        _check_some("unlike", self.unlike)
        if (self.at is None) == (self.like is None):
            raise ConfigError(
                "a search needs one thing to look for",
                found="neither --at nor --like" if self.at is None else "--at and --like",
                remedy="name a place, --at LONGITUDE,LATITUDE, or polygons, --like FILE",
            )
        _ = self.place

    @property
    def place(self) -> tuple[float, float] | None:
        """Longitude and latitude of `at`.

        Raises:
            ConfigError: If it is not two numbers of degrees.
        """
        if self.at is None:
            return None
        return place_of(self.at.split(","), self.at, "--at 11.35,48.07")


def place_of(numbers: object, given: object, remedy: str) -> tuple[float, float]:
    """Return a longitude and a latitude.

    Args:
        numbers: Two numbers, or texts of them.
        given: What the user gave, for the message.
        remedy: How a place is given.

    Raises:
        ConfigError: If they are not two numbers of degrees on the earth.
    """
    try:
        longitude, latitude = (float(number) for number in numbers)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        longitude = latitude = nan
    if not (abs(longitude) <= HIGHEST_LONGITUDE and abs(latitude) <= HIGHEST_LATITUDE):
        raise ConfigError(
            "a place is a longitude and a latitude in degrees",
            found=given,
            expected=f"-{HIGHEST_LONGITUDE:g} to {HIGHEST_LONGITUDE:g} and "
            f"-{HIGHEST_LATITUDE:g} to {HIGHEST_LATITUDE:g}",
            remedy=remedy,
        )
    return longitude, latitude


HIGHEST_RATE: Final = 0.5  # from here on more than half of the cells would be a mistake


@dataclass(frozen=True)
@checked_settings
class ChangeRule:
    """What counts as a change.

    Args:
        rate: Nominal false-alarm rate: share of the unchanged cells that are reported.
        window: Side, in cells, of the neighbourhood with which a cell is compared; an even number
            is raised by one.

    Raises:
        ConfigError: If a setting is out of range.
    """

    rate: float = 0.01
    window: int = 33

    def __post_init__(self) -> None:
        require(0 < self.rate < HIGHEST_RATE, "rate", self.rate, f"above 0, below {HIGHEST_RATE:g}")
        require(self.window >= 3, "window", self.window, "3 or more")


@dataclass(frozen=True)
@checked_settings
class ChangeConfig:
    """Find where two dates differ more than unchanged ground does.

    Args:
        before: Embeddings of the first date.
        after: Embeddings of the second, on the same grid, by the same model.
        null: Embeddings of two or more other dates on the same grid, without change since the
            first date: they show which cells vary most without a change. A change that is already
            visible in one of them is not detected.
        rate: Nominal false-alarm rate: share of the unchanged cells that are reported.
        window: Side, in cells, of the neighbourhood with which a cell is compared (an even number
            is raised by one). Changes wider than half of it are not detected.
        smallest: Smallest change to draw as a polygon, in cells.
        out: Output folder.
    """

    before: str = field(metadata=POSITIONAL)
    after: str = field(metadata=POSITIONAL)
    null: list[str] | None = None
    rate: float = 0.01
    window: int = 33
    smallest: int = 1
    out: str = "change"

    def __post_init__(self) -> None:
        _ = self.rule
        require(self.smallest >= 1, "smallest", self.smallest, "1 or more")
        _check_some("null", self.null, "EMB_C EMB_D")

    @property
    def rule(self) -> ChangeRule:
        """What counts as a change.

        Raises:
            ConfigError: If a setting is out of range.
        """
        return ChangeRule(self.rate, self.window)


@dataclass(frozen=True)
@checked_settings
class ExploreConfig:
    """Write one HTML file in which a click shows where it looks alike.

    Args:
        embeddings: A file of embeddings, or the folder that `eofm embed` wrote.
        scene: Scene of the embeddings, for the background picture; without it the first three
            principal components are shown.
        sensor: Sensor of the scene, if the product does not state it.
        unit: Unit of the scene, if the product does not state it.
        bands: Bands of the scene in stored order, if the file does not name them.
        time: Time step of a scene that is a netCDF or Zarr series, such as 2021-07-04.
        item: One of several images: identifier of a STAC item, tile of a SAFE product.
        dimensions: Number of principal components kept in the page.
        cells: Largest number of cells in the page; a larger grid is thinned to every second, third,
            ... row and column, which the page states.
        out: HTML file to write.
    """

    embeddings: str = field(metadata=POSITIONAL)
    scene: str | None = None
    sensor: str | None = None
    unit: str | None = None
    bands: list[str] | None = None
    time: str | None = None
    item: str | None = None
    dimensions: int = 32
    cells: int = 250_000
    out: str = "explore.html"

    def __post_init__(self) -> None:
        require(3 <= self.dimensions <= 64, "dimensions", self.dimensions, "3..64")
        require(self.cells >= 4, "cells", self.cells, "4 or more")
