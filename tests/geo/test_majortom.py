"""Chips of a named grid: as its authors define it, and the same for two scenes of a place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from geo_scenes import config, export, small_encoder, texture, write_scene
from rasterio.crs import CRS
from rasterio.warp import transform

from eofm.errors import DataError
from eofm.geo.embedding.embed import embed
from eofm.geo.embedding.outputs import MajorTom, cell_places
from eofm.geo.embedding_files import open_chips
from eofm.raster.grid import Grid

WGS84 = CRS.from_epsg(4326)


def published(metres: float) -> dict[str, float]:
    """Rows of the published program, written out: name of each -> its latitude."""
    count = math.ceil(math.pi * 6378.137 / (metres / 1000))
    latitudes = np.sort(np.mod(np.linspace(-90, 90, count + 1)[:-1], 180) - 90)
    zero = np.searchsorted(latitudes, -1e-9)
    return {
        f"{i - zero}U" if i >= zero else f"{zero - i}D": latitude
        for i, latitude in enumerate(latitudes)
    }


@pytest.mark.parametrize("metres", [10_000, 5_120, 320])
def test_rows_are_those_of_the_authors(metres: float) -> None:
    """The name of a row means the latitude that it means in the published program."""
    cells, rows = MajorTom(metres), published(metres)

    for name in list(rows)[:: max(1, len(rows) // 50)]:
        number = int(name[:-1]) * (1 if name[-1] == "U" else -1)
        assert cells.label(number, 0).startswith(f"{name}_")
        assert number * cells.height == pytest.approx(rows[name], abs=1e-9)


def test_a_cell_of_terramesh_has_its_name() -> None:
    """Site 38D_378R of TerraMesh lies in that cell of 10 km."""
    cells = MajorTom(10_000)
    grid = Grid(CRS.from_epsg(32736), Affine(10, 0, 617_301.8, 0, -10, 9_625_098.2), 224, 224)
    longitude, latitude = grid.centre()

    row = math.floor(latitude / cells.height)
    column = math.floor(longitude / cells.width(row))

    assert cells.label(row, column) == "38D_378R"


@pytest.mark.parametrize(
    ("place", "code"),
    [((9.0, 48.7), 32632), ((9.0, 48.7), 4326), ((-60.0, -33.0), 32721), ((179.99, -16.5), 32760)],
)
def test_chips_cover_their_cells(place: tuple[float, float], code: int) -> None:
    """The middle of each chip lies within a pixel of the middle of the cell of its name."""
    crs = CRS.from_epsg(code)
    (x,), (y,) = transform(WGS84, crs, [place[0]], [place[1]])
    size = 10 if code != 4326 else 9e-5
    grid = Grid(crs, Affine(size, 0, x, 0, -size, y), 400, 500)

    places = cell_places(grid, 32, 10.0)

    cells = MajorTom(320)
    assert 120 < len(places) < 300
    assert len(set(places.ids)) == len(places)
    for name, top, left in zip(places.ids, places.tops, places.lefts, strict=True):
        up, right = name.split("_")
        row = int(up[:-1]) * (1 if up[-1] == "U" else -1)
        column = int(right[:-1]) * (1 if right[-1] == "R" else -1)
        (x,), (y,) = transform(
            WGS84, crs, [(column + 0.5) * cells.width(row)], [(row + 0.5) * cells.height]
        )
        back = ~grid.transform
        if code == 4326 or abs(place[0]) < 170:
            assert back.a * x + back.c == pytest.approx(left + 16, abs=0.51)
            assert back.e * y + back.f == pytest.approx(top + 16, abs=0.51)


def test_two_scenes_of_a_place_share_chips(tmp_path: Path) -> None:
    """Another date on another grid has chips of the same names on the same ground."""
    model = export(tmp_path / "model", small_encoder())
    (x,), (y,) = transform(WGS84, CRS.from_epsg(32631), [6.0], [48.0])
    (u,), (v,) = transform(WGS84, CRS.from_epsg(32632), [6.0], [48.0])
    first = write_scene(
        tmp_path / "a.tif", texture(160, 160), crs="EPSG:32631",
        transform=Affine(10, 0, x, 0, -10, y),
    )  # fmt: skip
    second = write_scene(
        tmp_path / "b.tif", texture(160, 160, 1), crs="EPSG:32632",
        transform=Affine(10, 0, u + 33, 0, -10, v - 47),
    )  # fmt: skip

    for scene in (first, second):
        embed(config(scene, model, tmp_path / scene.stem, chips=32, grid="majortom"))
    a, b = (open_chips(tmp_path / name).table.set_index("id") for name in "ab")

    shared = sorted(set(a.index) & set(b.index))
    assert len(shared) >= 12
    here = a.loc[shared].geometry.values
    there = b.to_crs(a.crs).loc[shared].geometry.values
    # grids of two zones are turned against each other by some degrees
    union = shapely.area(shapely.union(here, there))
    overlap = shapely.area(shapely.intersection(here, there)) / union
    assert overlap.min() > 0.85
    assert open_chips(tmp_path / "a").provenance.settings["grid"] == "majortom-0.32km"


def test_a_scene_without_a_cell_is_one_error() -> None:
    """Of chips larger than the scene no middle may lie in it."""
    grid = Grid(CRS.from_epsg(32632), Affine(10, 0, 5e5, 0, -10, 5.4e6), 8, 8)

    with pytest.raises(DataError, match="no cell"):
        cell_places(grid, 512, 10.0)
