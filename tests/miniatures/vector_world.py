"""A patch grid and chips whose vectors are known: fields of classes, each with its own vector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from eofm.geo.embeddings import ChipTable, PatchGrid, Provenance, SceneRecord, patch_grid
from eofm.raster.grid import Grid

NAMES = ("water", "trees", "crops", "built")
MADE = Provenance(
    "toy",
    "a" * 64,
    "b" * 64,
    "c" * 64,
    "s2-l2a",
    "dn",
    (SceneRecord("T32UME", "d" * 64, "2021-07-04T10:30:00"),),
)


def made_on(day: int) -> Provenance:
    """The same way, from the scene of another day; `MADE` is of day 0."""
    (scene,) = MADE.scenes
    digest = scene.sha256 if day == 0 else f"{day:064x}"
    return replace(MADE, scenes=(replace(scene, sha256=digest),))


UTM = (32632, Affine(140, 0, 5e5, 0, -140, 5.4e6))
PLACES = {
    "utm": UTM,
    "degrees": (4326, Affine(0.0015, 0, 9, 0, -0.001, 48)),
    "south-up": (32632, Affine(140, 0, 5e5, 0, 140, 5.3e6)),
    "rotated": (32632, Affine(130, 52, 5e5, 52, -130, 5.4e6)),
}
FIELD = 8  # patches at a side of a square of one class


def fields(rows: int, columns: int, classes: int = 4, seed: int = 0) -> np.ndarray:
    """Class of each patch: squares of `FIELD` patches, every class about as often."""
    random = np.random.default_rng(seed)
    down, across = -(-rows // FIELD), -(-columns // FIELD)
    numbers = random.permutation(np.arange(down * across) % classes).reshape(down, across)
    return np.kron(numbers, np.ones((FIELD, FIELD), int))[:rows, :columns]


def world(
    place: str = "utm",
    size: tuple[int, int] = (64, 64),
    *,
    dim: int = 16,
    noise: float = 0.6,
    seed: int = 0,
) -> tuple[PatchGrid, np.ndarray]:
    """A grid of vectors and the true class of each patch; the last row has no vectors."""
    code, transform = PLACES[place]
    truth = fields(*size, seed=seed)
    random = np.random.default_rng(seed + 1)
    means = np.random.default_rng(99).normal(size=(4, dim))
    vectors = means[truth] + noise * random.normal(size=(*size, dim))
    stored = np.moveaxis(vectors, -1, 0).astype(np.float32)
    stored[:, -1] = np.nan
    grid = Grid(CRS.from_epsg(code), transform, *size)
    return patch_grid(stored, grid, made_on(seed)), truth


def outline(grid: Grid, row: float, col: float, height: float, width: float) -> shapely.Polygon:
    """The ground of some rows and columns."""
    ends = [(col, row), (col + width, row), (col + width, row + height), (col, row + height)]
    return shapely.Polygon([grid.point(*end) for end in ends])


def drawn(
    patches: PatchGrid, truth: np.ndarray, *, every: int = 1, inset: float = 1.0
) -> geopandas.GeoDataFrame:
    """A polygon in every n-th field, with the name of its class, in the CRS of the grid."""
    grid = patches.grid
    rows: list[dict[str, object]] = []
    number = 0
    for row in range(0, grid.height - FIELD + 1, FIELD):
        for col in range(0, grid.width - FIELD + 1, FIELD):
            number += 1
            if number % every:
                continue
            side = FIELD - 2 * inset
            shape = outline(grid, row + inset, col + inset, side, side)
            rows.append({"class": NAMES[truth[row, col]], "geometry": shape})
    return geopandas.GeoDataFrame(rows, crs=grid.require_crs().to_wkt())


def chips_of(patches: PatchGrid) -> ChipTable:
    """The same cells as chips: those that have a vector."""
    rows, columns = np.nonzero(patches.valid)
    grid = patches.grid
    shapes = [outline(grid, r, c, 1, 1) for r, c in zip(rows, columns, strict=True)]
    table = geopandas.GeoDataFrame(
        {"id": [f"{r}_{c}" for r, c in zip(rows, columns, strict=True)]},
        geometry=shapes,
        crs=grid.require_crs().to_wkt(),
    )
    vectors = np.moveaxis(patches.array.to_numpy(), 0, -1)[rows, columns]
    return ChipTable(table, vectors, patches.provenance)


def other_model(patches: PatchGrid) -> PatchGrid:
    """The same vectors, said to be of another model."""
    return replace(patches, provenance=replace(MADE, model="other", weights_sha256="f" * 64))


def on_disk(table: geopandas.GeoDataFrame, path: Path, crs: str | None = None) -> Path:
    """Write polygons, in another CRS if one is named."""
    (table if crs is None else table.to_crs(crs)).to_file(path)
    return path
