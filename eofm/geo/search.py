"""Find similar places: exact search over all cells, and the files of a search.

    import eofm

    found = eofm.search(embeddings, like="solar.gpkg", unlike="roofs.gpkg")
    found.ranked(100)           # GeoDataFrame: rank, score, longitude, latitude, geometry
    found.to_xarray()           # the score of every patch

With examples only, the score is the cosine with the mean of their unit vectors. With
counterexamples, a linear probe separates the two, and the score is its probability: with few
examples, the difference of mean vectors is a poor direction.

A score is one product with the vector of a cell. int8 codes are not decoded for it. With
value = code x scale + offset, for a direction w,

    w · value  = (w scale) · code + w · offset
    |value|²   = scale² · code² + 2 (scale offset) · code + |offset|²

so a block of codes is converted to float32 once, in the cache, and needs only two products.

The files of `eofm search`:

    ranked.gpkg, ranked.parquet   the best cells: rank, score, longitude, latitude
    score.tif, score.qml          of a patch grid: the score of every patch
    sheet.png                     with the scene: images of the examples and of the best cells
    search.json                   settings, provenance, definition of the score
    config.yaml                   the settings; `eofm search --config config.yaml` repeats the run

Shapes: N cells, D dimensions.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.errors import ConfigError, LabelError, require
from eofm.geo.cells import (
    Cells,
    ChipCells,
    Embeddings,
    Floats,
    GridCells,
    Index,
    cells_of,
    degrees,
    on_grid,
)
from eofm.geo.embedding_files import open_embeddings
from eofm.geo.embeddings import Codes
from eofm.geo.maps_config import SearchConfig, place_of
from eofm.geo.places import LabelledPlaces, as_layers, geo_frame, read_places
from eofm.geo.results import (
    CONFIG,
    ResultFiles,
    cell_pictures,
    check_folder,
    drop_earlier,
    exclusive,
    named_scene,
    plane,
    score_qml,
    write_cog,
    write_frame,
    write_record,
    write_settings,
)
from eofm.geo.training import NO_VECTORS, affine, covered
from eofm.io import write_file
from eofm.probes.features import Labelled, Scaling
from eofm.probes.linear import StrengthGrid, fit_linear
from eofm.probes.metrics import overall_accuracy
from eofm.raster.grid import read_crs
from eofm.report import output
from eofm.report.sheets import contact_sheet
from eofm.terminal import track

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import DataArray

    from eofm.geo.places import PlacesLike
    from eofm.raster.scene import Scene

__all__ = ["ScoreKind", "SearchResult", "best", "run_search", "scan", "scan_codes", "search"]


class ScoreKind(StrEnum):
    """Kind of score of a search."""

    COSINE = "cosine with the mean of the examples"
    PROBABILITY = "probability of the examples against the counterexamples"


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult:
    """The score of every cell.

    Args:
        cells: Chips or patches.
        scores: float32 (N,), NaN without a vector.
        kind: Kind of score.
        examples: Cells of the examples.
        counterexamples: Cells of the counterexamples.
    """

    cells: Cells
    scores: Floats
    kind: ScoreKind
    examples: Index
    counterexamples: Index

    def __repr__(self) -> str:
        known = self.scores[np.isfinite(self.scores)]
        best = f", best {known.max():.3f}" if len(known) else ""
        return (
            f"SearchResult({len(self.scores)} cells by {self.kind}, {len(self.examples)} examples, "
            f"{len(self.counterexamples)} counterexamples{best})"
        )

    def ranked(self, top: int = 100) -> GeoDataFrame:
        """Return the best cells besides the examples: rank, score, longitude, latitude, geometry.

        Chips also have `id`, which identifies their scene.

        Args:
            top: Maximum number of cells, 0 or more.

        Raises:
            ConfigError: If `top` is not such a number.
        """
        require(isinstance(top, Integral) and top >= 0, "top", top, "a whole number, 0 or more")
        which = best(self.scores, top, np.concatenate([self.examples, self.counterexamples]))
        lonlat = degrees(self.cells, which) if len(which) else np.zeros((0, 2))
        # coordinates of a scene across the antimeridian continue beyond 180 degrees
        beyond = np.abs(lonlat[:, 0]) > 180
        lonlat[beyond, 0] = (lonlat[beyond, 0] + 180) % 360 - 180
        return geo_frame(
            self.cells.outlines(which),
            self.cells.crs,
            {
                "rank": np.arange(1, len(which) + 1),
                "cell": which,
                **self._names(which),
                "score": self.scores[which],
                "longitude": lonlat[:, 0],
                "latitude": lonlat[:, 1],
            },
        )

    def _names(self, which: Index) -> dict[str, list[str]]:
        """Return the ids of chips; patches have none."""
        if not isinstance(self.cells, ChipCells) or "id" not in self.cells.chips.table:
            return {}
        return {"id": self.cells.chips.table["id"].iloc[which].astype(str).tolist()}

    def to_xarray(self) -> DataArray:
        """Return the score on the grid of the patches, (y, x).

        Raises:
            DataError: If the cells are chips, which have no grid.
        """
        remedy = "use the best: found.ranked(100)"
        return on_grid(self.cells, {"score": self.scores}, remedy)["score"]


def search(
    embeddings: Embeddings,
    *,
    at: tuple[float, float] | None = None,
    like: PlacesLike | Sequence[PlacesLike] | None = None,
    unlike: PlacesLike | Sequence[PlacesLike] | None = None,
) -> SearchResult:
    """Score every cell by its similarity to a place, or to cells under polygons and points.

    Args:
        embeddings: Chips or a patch grid.
        at: Longitude and latitude of a place.
        like: Polygons and points of examples, in any CRS: a file or a GeoDataFrame, or
            several. Cells that are at least half covered are examples.
        unlike: Polygons and points of counterexamples.

    Raises:
        ConfigError: If neither or both of `at` and `like` are given, or `at` is not a place.
        LabelError: If a place is outside of the embeddings, or polygons cannot be used.
    """
    cells = cells_of(embeddings)
    if (at is None) == (like is None):
        raise ConfigError(
            "a search needs one thing to look for",
            found="neither a place nor examples" if at is None else "a place and examples",
            remedy="name a place, at=(longitude, latitude), or polygons, like=FILE",
        )
    wanted = _at(cells, at) if at is not None else _under(cells, like)
    others = np.zeros(0, np.int64) if unlike is None else _under(cells, unlike)
    both = np.intersect1d(wanted, others)
    if len(both):
        raise LabelError(
            "cells are both examples and counterexamples",
            found=f"{len(both)} of {len(wanted)} cells under the examples",
            remedy="cut the polygons so that they do not overlap",
        )
    if not len(others):
        scores = scan(cells, _mean_direction(cells, wanted), cosine=True)
        return SearchResult(cells, scores, ScoreKind.COSINE, wanted, others)
    weight, bias = _separate(cells.vectors(wanted), cells.vectors(others))
    logits = scan(cells, weight, bias, cosine=False)
    scores = torch.from_numpy(logits).sigmoid().numpy()
    return SearchResult(cells, scores, ScoreKind.PROBABILITY, wanted, others)


def _at(cells: Cells, at: tuple[float, float]) -> Index:
    """Return the cell of a place."""
    place = place_of(at, at, "at=(11.35, 48.07)")
    try:
        return covered(cells, _point(place))
    except LabelError as error:
        if error.problem == NO_VECTORS:
            raise
        error.problem = "the place is outside of the embeddings"
        error.found = f"longitude {place[0]:g}, latitude {place[1]:g}"
        error.remedy = "the longitude comes first, in degrees; or embed a scene of that place"
        raise


def _point(at: tuple[float, float]) -> LabelledPlaces:
    import shapely

    return LabelledPlaces(
        np.array([shapely.Point(*at)], object),
        read_crs("EPSG:4326"),
        (),
        f"{at[0]:g}, {at[1]:g} (longitude, latitude)",
        np.zeros(1, np.int64),
    )


def _under(cells: Cells, given: PlacesLike | Sequence[PlacesLike]) -> Index:
    layers = as_layers(given)
    return np.unique(np.concatenate([covered(cells, read_places(one)) for one in layers]))


def _mean_direction(cells: Cells, which: Index) -> Floats:
    """Return the mean of the unit vectors of some cells, (D,), read a block at a time."""
    total = np.zeros(cells.dim)
    for first in range(0, len(which), _EXAMPLES):
        vectors = cells.vectors(which[first : first + _EXAMPLES])
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        total += (vectors / lengths).sum(axis=0, dtype=np.float64)
    mean = total / len(which)
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


# ------------------------------------------------------------------------------------------ scores


_EXAMPLES: Final = 1 << 16  # vectors of examples read at once: 100 MB at 384 dimensions
_ROWS: Final = 1024  # of codes at once: 1.5 MB at 384 dimensions as float32, to fit in a cache
_LEAST: Final = 1e-30  # of a squared length
_SHORT: Final = 1e-3  # of the offset's squared length: rows below it are decoded


def scan(cells: Cells, direction: Floats, bias: float = 0.0, *, cosine: bool) -> Floats:
    """Return the score of every cell, (N,): NaN without a vector.

    Args:
        cells: Chips or patches.
        direction: (D,).
        bias: Added to the product.
        cosine: Whether the product is divided by the lengths of both vectors first.
    """
    if cosine:
        direction = direction / np.linalg.norm(direction)
    scores = np.empty(len(cells.valid), np.float32)
    if isinstance(cells, ChipCells) and cells.chips.codes is not None:
        stored = np.asarray(cells.chips.stored)
        scores[:] = scan_codes(stored, cells.chips.codes, direction, cosine=cosine)
    else:
        for rows, vectors in track(cells.blocks(), "searching", cells.block_count):
            with np.errstate(invalid="ignore"):
                part = vectors @ direction
                if cosine:
                    squares = np.einsum("nd,nd->n", vectors, vectors)
                    part = part / np.sqrt(np.maximum(squares, _LEAST))
            scores[rows] = part
    scores += bias
    scores[~cells.valid] = np.nan
    return scores


def scan_codes(
    stored: NDArray[np.int8], codes: Codes, direction: Floats, *, cosine: bool
) -> Floats:
    """Return the product of a direction with each decoded row of int8 codes, (N,).

    Args:
        stored: (N, D), may be memory-mapped.
        codes: Scale and offset.
        direction: (D,).
        cosine: Whether the product is divided by the length of the row's vector.
    """
    scale, offset = codes.scale.astype(np.float64), codes.offset.astype(np.float64)
    pair = np.stack([direction * scale, 2 * scale * offset], axis=1).astype(np.float32)
    squares = (scale**2).astype(np.float32)
    constant, length = float(direction @ offset), float(offset @ offset)
    out = np.empty(len(stored), np.float32)

    def cosines(vectors: Floats) -> Floats:
        wide = vectors.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1)
        return np.asarray(wide @ direction / np.maximum(lengths, math.sqrt(_LEAST)), np.float32)

    def score(part: slice) -> None:
        buffer = np.empty((_ROWS, stored.shape[1]), np.float32)
        for first in range(part.start, part.stop, _ROWS):
            rows = slice(first, min(first + _ROWS, part.stop))
            block = buffer[: rows.stop - rows.start]
            np.copyto(block, stored[rows])
            products = block @ pair
            products[:, 0] += constant
            if cosine:
                np.multiply(block, block, out=block)
                found = block @ squares + products[:, 1] + length
                products[:, 0] /= np.sqrt(np.maximum(found, _LEAST))
                # what is left of terms as large as the offset has no digits in float32
                short = np.flatnonzero(found < _SHORT * length)
                products[short, 0] = cosines(codes.decode(stored[rows][short]))
            out[rows] = products[:, 0]

    threads = _threads()
    step = max(_ROWS, -(-len(stored) // threads))
    parts = [slice(a, min(a + step, len(stored))) for a in range(0, len(stored), step)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(score, parts))
    return out


def _threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 8)
    return min(os.cpu_count() or 1, 8)


def best(scores: Floats, top: int, without: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cells of the highest scores, best first; for ties, the first cell.

    Args:
        scores: (N,), NaN for cells without a vector.
        top: Maximum number of cells.
        without: Cells to exclude.
    """
    ranked = np.where(np.isfinite(scores), scores, -np.inf)
    ranked[without] = -np.inf
    count = min(top, int(np.isfinite(ranked).sum()))
    if not count:
        return np.zeros(0, np.int64)
    # all that tie with the last one, so that order does not depend on the partition
    least = np.partition(ranked, len(ranked) - count)[len(ranked) - count]
    found = np.flatnonzero(ranked >= least)
    order = np.lexsort((found, -ranked[found]))
    return np.asarray(found[order][:count], np.int64)


# ------------------------------------------------------------------------------------------- files


_LISTED: Final = 10
_SHOWN: Final = 7  # images of the best on a sheet, next to an example
_NO_SCORE: Final = -2.0  # below any cosine and any probability


def run_search(config: SearchConfig) -> ResultFiles:
    """Search and write all files.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If another process writes there, or the folder is that of another verb.
        DataError: If embeddings or polygons cannot be used, or files cannot be written.
        SpecError: If sensor or unit of the scene are neither stated nor known.
    """
    check_folder(config, Path(config.out))
    with exclusive(Path(config.out)):
        return _run(config)


def _run(config: SearchConfig) -> ResultFiles:
    scene = named_scene(config)
    found = search(
        open_embeddings(config.embeddings),
        at=config.place,
        like=config.like,
        unlike=config.unlike,
    )
    folder, ranked = Path(config.out), found.ranked(config.top)
    sheet = _sheet(found, ranked, scene) if scene is not None and len(ranked) else None
    files = [write_frame(ranked, folder / f"ranked.{end}") for end in ("gpkg", "parquet")]
    files += _raster(found, folder)
    if sheet is not None:
        files.append(sheet(folder / "sheet.png"))
    record = {
        "settings": asdict(config),
        "provenance": json.loads(found.cells.made.to_json()),
        "score": found.kind,
        "examples": len(found.examples),
        "counterexamples": len(found.counterexamples),
    }
    files.append(write_record(folder / "search.json", record))
    files.append(write_settings(config, folder / CONFIG))
    drop_earlier(folder, ("score.tif", "score.qml", "sheet.png"), files)
    return ResultFiles(folder, _listing(found, ranked), tuple(files))


def _sheet(found: SearchResult, ranked: GeoDataFrame, scene: Scene) -> Callable[[Path], Path]:
    """Draw images of an example and of the best cells, and return what saves them."""
    shown = np.concatenate([found.examples[:1], ranked["cell"].to_numpy()[:_SHOWN]])
    pictures, stretch = cell_pictures(scene, found.cells, np.asarray(shown, np.int64))
    numbered = enumerate(ranked["score"].tolist()[:_SHOWN], 1)
    heads = ["an example", *(f"{number}: {score:.3f}" for number, score in numbered)]
    columns = {head: [one] for head, one in zip(heads, pictures, strict=True)}
    caption = f"{found.kind}; images show three sides of a cell" + f"; {stretch}" * bool(stretch)
    return partial(output.save, contact_sheet(columns, [caption], f"the best of {scene.name}"))


def _raster(found: SearchResult, folder: Path) -> list[Path]:
    if not isinstance(found.cells, GridCells):
        return []
    grid = found.cells.patches.grid
    known = found.scores[np.isfinite(found.scores)]
    low, high = (float(np.quantile(known, q)) for q in (0.02, 0.999))
    return [
        write_cog(
            folder / "score.tif",
            np.nan_to_num(plane(found.scores, grid), nan=_NO_SCORE)[None],
            grid,
            ["score"],
            nodata=_NO_SCORE,
            tags={"EOFM_SCORE": found.kind, "EOFM_PROVENANCE": found.cells.made.to_json()},
        ),
        write_file(folder / "score.qml", score_qml(low, max(high, low + 1e-6), "")),
    ]


def _listing(found: SearchResult, ranked: GeoDataFrame) -> str:
    lines = [f"{found.kind}: the best {min(_LISTED, len(ranked))} of {len(found.scores)} cells"]
    rows = zip(
        ranked["rank"], ranked["score"], ranked["longitude"], ranked["latitude"], strict=True
    )
    lines += [
        f"  {rank:4d}  {score:7.4f}  {lon:11.6f} {lat:11.6f}"
        for rank, score, lon, lat in list(rows)[:_LISTED]
    ]
    return "\n".join(lines)
