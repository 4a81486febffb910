"""Search by place, by examples, and by examples with counterexamples; scores, files and errors.

The product with int8 codes is that with the decoded vectors, and ranking is exact.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import shapely.affinity
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vector_world import NAMES, PLACES, chips_of, drawn, on_disk, world

from eofm.cli import main
from eofm.errors import ConfigError, DataError, EofmError, LabelError
from eofm.geo import cells
from eofm.geo import search as search_module
from eofm.geo.cells import cells_of, degrees
from eofm.geo.class_map import map_classes
from eofm.geo.embedding_files import write_tiff
from eofm.geo.embeddings import HIDDEN, Codes, patch_grid
from eofm.geo.maps_config import SearchConfig
from eofm.geo.search import ScoreKind, best, run_search, scan, scan_codes, search

SIZE = (32, 32)


def place_of(patches, row: int, col: int) -> tuple[float, float]:
    """Longitude and latitude of the middle of a patch."""
    lon, lat = degrees(cells_of(patches), np.array([row * patches.grid.width + col]))[0]
    return float(lon), float(lat)


@pytest.mark.parametrize("place", PLACES)
def test_a_place_finds_its_own_patch_and_the_most_alike(place: str) -> None:
    """The example is the patch under the place; scores are cosines, counted by hand."""
    patches, _ = world(place, SIZE)
    found = search(patches, at=place_of(patches, 7, 20))
    x = np.moveaxis(patches.array.to_numpy(), 0, -1).reshape(-1, 16)
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = units @ units[7 * 32 + 20]

    assert [7 * 32 + 20] == found.examples.tolist()
    assert np.allclose(expected, found.scores, atol=1e-5, equal_nan=True)
    ranked = found.ranked(5)
    order = np.argsort(-np.nan_to_num(expected, nan=-9))
    assert order[1:6].tolist() == ranked["cell"].tolist()
    assert [1, 2, 3, 4, 5] == ranked["rank"].tolist()
    middle = ranked.to_crs(4326).geometry.iloc[0].bounds
    assert middle[0] < ranked["longitude"].iloc[0] < middle[2]
    assert middle[1] < ranked["latitude"].iloc[0] < middle[3]


def test_examples_that_are_not_used_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the examples were left out in silence: one lies elsewhere, one covers a corner."""
    patches, _ = world(size=SIZE)
    points = [patches.grid.point(col, row) for col, row in ((4, 4), (9, 9))]
    side = 2 * patches.grid.transform.a
    there = [shapely.box(x, y - side, x + side, y) for x, y in points]
    corner = shapely.box(
        points[1][0], points[1][1] - side / 10, points[1][0] + side / 10, points[1][1]
    )
    two = shapely.MultiPolygon([there[0], shapely.affinity.translate(there[0], 1e6)])
    frame = geopandas.GeoDataFrame(geometry=[two, corner, shapely.affinity.translate(corner, 1e6)])
    found = search(patches, like=frame.set_crs("EPSG:32632"))

    assert len(found.examples) == 4
    assert "2 of 3 features are not used" in capsys.readouterr().err
    search(patches, like=frame[:1].set_crs("EPSG:32632"))
    assert not capsys.readouterr().err


@pytest.mark.parametrize("of", ["patches", "chips"])
def test_a_large_polygon_is_searched_in_parts(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million outlines and vectors at once took gigabytes; parts give the same examples."""
    patches, _ = world(size=SIZE)
    embeddings = patches if of == "patches" else chips_of(patches)
    x, y = patches.grid.point(16, 16)
    like = geopandas.GeoDataFrame(geometry=[shapely.Point(x, y).buffer(2000)], crs="EPSG:32632")
    whole = search(embeddings, like=like)
    largest = []
    covers = shapely.covers
    monkeypatch.setattr(cells, "_OUTLINES", 100)
    monkeypatch.setattr(search_module, "_EXAMPLES", 100)
    monkeypatch.setattr(
        shapely, "covers", lambda one, some: largest.append(len(some)) or covers(one, some)
    )
    parts = search(embeddings, like=like)

    assert len(whole.examples) > 500
    assert max(largest) <= 100
    assert np.array_equal(whole.examples, parts.examples)
    assert np.allclose(whole.scores, parts.scores, atol=1e-6, equal_nan=True)


def test_examples_find_their_class_and_counterexamples_help() -> None:
    """Polygons of water find water; where all scenes share a direction the probe finds more."""
    patches, truth = world(size=SIZE, noise=1.2)
    layer = drawn(patches, truth)
    like = layer[layer["class"] == "water"].iloc[:2]
    unlike = layer[layer["class"] != "water"].iloc[:4].to_crs(3035)
    one, both = search(patches, like=like), search(patches, like=like, unlike=unlike)

    water = (truth == NAMES.index("water")).ravel()
    assert ScoreKind.COSINE is one.kind
    assert ScoreKind.PROBABILITY is both.kind
    precision = [water[r.ranked(150)["cell"].to_numpy()].mean() for r in (one, both)]
    assert precision[1] > precision[0] > 0.6
    assert not set(both.examples) & set(both.ranked(2000)["cell"])
    assert 0 <= np.nanmin(both.scores) <= np.nanmax(both.scores) <= 1


def test_chips_are_searched_alike() -> None:
    """The same cells as chips have the same scores."""
    patches, _ = world(size=SIZE)
    at = place_of(patches, 3, 3)
    grid, chips = search(patches, at=at), search(chips_of(patches), at=at)

    assert np.allclose(grid.scores[np.isfinite(grid.scores)], chips.scores, atol=1e-5)
    with pytest.raises(DataError, match="chips have no grid"):
        chips.to_xarray()
    assert SIZE == grid.to_xarray().shape


def test_what_is_refused() -> None:
    """A place outside, polygons that are both, nothing or two things to look for."""
    patches, truth = world(size=SIZE)
    layer = drawn(patches, truth)
    with pytest.raises(LabelError, match="outside of the embeddings"):
        search(patches, at=(0.0, 0.0))
    with pytest.raises(LabelError, match="both examples and counterexamples"):
        search(patches, like=layer.iloc[:2], unlike=layer.iloc[1:3])
    with pytest.raises(ConfigError, match="one thing to look for"):
        search(patches)
    with pytest.raises(ConfigError, match="one thing to look for"):
        search(patches, at=(9, 48), like=layer)


def test_polygons_that_are_nowhere_on_the_earth_are_refused() -> None:
    """Metres said to be degrees: not PROJ's words, but the feature, and what mends it does."""
    patches, _ = world(size=SIZE)
    x, y = patches.grid.point(4.5, 4.5)
    layer = geopandas.GeoDataFrame(geometry=[shapely.Point(x, y)], crs=4326)
    with pytest.raises(LabelError, match="outside the earth") as caught:
        search(patches, like=layer)

    assert "feature 0: " in str(caught.value.found)
    names = {"layer": layer}
    exec(str(caught.value.remedy).partition("geopandas: ")[2], names)
    assert [4 * SIZE[1] + 4] == search(patches, like=names["layer"]).examples.tolist()


def test_the_verb_writes_its_files(tmp_path: Path, capsys) -> None:
    """Ranked places in two formats, the score as COG with a style, and a record."""
    patches, truth = world(size=SIZE)
    write_tiff(tmp_path / "patches.tif", patches)
    layer = drawn(patches, truth)
    path = on_disk(layer[layer["class"] == "water"], tmp_path / "water.gpkg", "EPSG:4326")
    out = tmp_path / "found"

    assert 0 == main(
        ["search", str(tmp_path), "--like", str(path), "--out", str(out), "--top", "20"]
    )
    assert "the best 10 of 1024 cells" in capsys.readouterr().out
    packed, parquet = (
        geopandas.read_file(out / "ranked.gpkg"),
        geopandas.read_parquet(out / "ranked.parquet"),
    )
    assert 20 == len(packed) == len(parquet)
    assert packed["score"].is_monotonic_decreasing
    with rasterio.open(out / "score.tif") as raster:
        assert "COG" == raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]
        plane = raster.read(1, masked=True)
        assert patches.grid.transform == raster.transform
        row, col = raster.index(*shapely.get_coordinates(packed.geometry.iloc[0].centroid)[0])
    assert plane.mask[-1].all()
    assert np.isclose(packed["score"].iloc[0], plane[row, col])
    assert "cosine" in json.loads((out / "search.json").read_text())["score"]


def test_the_sheet_shows_the_scene_under_the_cells(tmp_path: Path, write_tif) -> None:
    """With the scene the pictures of the best places are drawn."""
    patches, _ = world(size=SIZE)
    write_tiff(tmp_path / "patches.tif", patches)
    pixels = np.full((3, 32 * 14, 32 * 14), 900, np.uint16)
    write_tif(tmp_path / "scene.tif", pixels, descriptions=("B04", "B03", "B02"))
    lon, lat = place_of(patches, 4, 4)

    done = run_search(
        SearchConfig(
            str(tmp_path),
            at=f"{lon},{lat}",
            scene=str(tmp_path / "scene.tif"),
            sensor="s2-l2a",
            unit="dn",
            out=str(tmp_path / "out"),
        )
    )
    assert "sheet.png" in done.describe()
    assert (tmp_path / "out/sheet.png").stat().st_size > 10_000


def test_a_scene_of_other_ground_is_no_sheet(tmp_path: Path, write_tif) -> None:
    """The sheet was blank, without a word; nothing is written instead."""
    patches, _ = world(size=SIZE)
    write_tiff(tmp_path / "patches.tif", patches)
    pixels = np.full((3, 28, 28), 900, np.uint16)
    write_tif(tmp_path / "s.tif", pixels, descriptions=("B04", "B03", "B02"), origin=(7e5, 5.4e6))
    lon, lat = place_of(patches, 4, 4)
    scene = ["--scene", str(tmp_path / "s.tif"), "--sensor", "s2-l2a", "--unit", "dn"]
    emb, out = str(tmp_path / "patches.tif"), tmp_path / "out"
    assert 1 == main(["search", emb, "--at", f"{lon},{lat}", *scene, "--out", str(out)])
    assert 1 == main(["explore", emb, *scene, "--out", str(out / "page.html")])

    assert not [file for file in out.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "one thing to look for"),
        ({"at": "48"}, "longitude and a latitude"),
        ({"at": "48;11"}, "longitude and a latitude"),
        ({"at": "5e5,5.4e6"}, "longitude and a latitude"),
        ({"at": "9,48", "top": 0}, "top is out of range"),
        ({"like": []}, "names no file"),
    ],
)
def test_settings_that_cannot_be_obeyed(options, words: str) -> None:
    """Each is refused before anything is opened; the place that a remedy shows is one."""
    with pytest.raises(ConfigError, match=words) as caught:
        SearchConfig("emb", **options)
    if "longitude and a latitude" == words:
        _, value = shlex.split(str(caught.value.remedy))
        assert (11.35, 48.07) == SearchConfig("emb", at=value).place


def test_a_search_of_no_embeddings(tmp_path: Path) -> None:
    """A folder without embeddings is an error of eofm."""
    with pytest.raises(EofmError):
        run_search(SearchConfig(str(tmp_path), at="9,48"))


# ------------------------------------------------------------------------------------------ scores


@settings(max_examples=30, deadline=None)
@example(rows=1122, dim=1, cosine=True, seed=48)  # a vector as short as a step of its code
@given(st.integers(1, 3000), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_codes_need_no_decoding(rows: int, dim: int, cosine: bool, seed: int) -> None:
    """For any scale and offset, also in several threads and blocks."""
    random = np.random.default_rng(seed)
    stored = random.integers(-127, 128, (rows, dim), dtype=np.int8)
    codes = Codes(
        random.uniform(0.001, 0.1, dim).astype(np.float32),
        random.normal(size=dim).astype(np.float32),
    )
    direction = random.normal(size=dim).astype(np.float32)
    decoded = codes.decode(stored).astype(np.float64)
    expected = decoded @ direction
    if cosine:
        expected = expected / np.maximum(np.linalg.norm(decoded, axis=1), 1e-15)
    size = np.linalg.norm(direction) if cosine else np.abs(decoded).max() * np.abs(direction).sum()

    found = scan_codes(stored, codes, direction, cosine=cosine)
    assert (np.abs(found - expected) <= 1e-4 * max(size, 1)).all()


@pytest.mark.parametrize("cosine", [False, True])
def test_grids_and_chips_of_all_numbers_agree(cosine: bool) -> None:
    """A grid, the same cells as chips, and these as int8 score alike; NaN without a vector."""
    patches, _ = world(size=(24, 24))
    chips = chips_of(patches)
    codes = Codes.between(chips.vectors.min(axis=0), chips.vectors.max(axis=0))
    stored = codes.encode(chips.vectors)
    stored[5] = HIDDEN
    whole = replace(chips, stored=stored, codes=codes)
    direction = np.random.default_rng(0).normal(size=16).astype(np.float32)

    grid, table, coded = (
        scan(cells_of(one), direction, 0.5, cosine=cosine) for one in (patches, chips, whole)
    )
    assert np.isnan(grid.reshape(24, 24)[-1]).all()
    assert np.allclose(grid[np.isfinite(grid)], table, atol=1e-6)
    assert np.isnan(coded[5])
    assert np.allclose(np.delete(table, 5), np.delete(coded, 5), atol=0.1)
    unit = chips.vectors[0] @ direction
    if cosine:
        unit /= np.linalg.norm(direction) * np.linalg.norm(chips.vectors[0])
    assert np.isclose(unit + 0.5, table[0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 50))
def test_ranking_is_that_of_a_stable_sort(values: list[int], top: int) -> None:
    """The best are those of a sort of everything; of equals the first cell."""
    scores = np.array(values, np.float32)
    scores[::7] = np.nan
    without = np.array([3], np.int64)[: len(values) > 3]
    kept = [i for i in range(len(values)) if np.isfinite(scores[i]) and i not in without]

    assert sorted(kept, key=lambda i: (-scores[i], i))[:top] == best(scores, top, without).tolist()


def test_a_place_that_is_none_is_said_as_a_place() -> None:
    """Latitude first, text, embeddings of no kind: the message speaks of what was given."""
    patches, _ = world(size=SIZE)
    lon, lat = place_of(patches, 3, 3)
    with pytest.raises(LabelError, match="the place is outside") as turned:
        search(patches, at=(lat, lon))
    assert "longitude comes first" in str(turned.value.remedy)
    with pytest.raises(ConfigError, match="a place is a longitude"):
        search(patches, at=f"{lon},{lat}")  # type: ignore[arg-type]
    # PROJ's own words reached the user of the first two and of the last
    for at in ((200, 100), (float("nan"), 0.0), (float("inf"), 0), (9, -90.5), (1, 2, 3)):
        with pytest.raises(ConfigError, match="a place is a longitude") as refused:
            search(patches, at=at)  # type: ignore[arg-type]
        assert at == refused.value.found
        shown = eval(str(refused.value.remedy).removeprefix("at="))
        with pytest.raises(LabelError, match="outside"):
            search(patches, at=shown)
    for far in ((99, 0), (189, 48), (0, 90), (-360, -90), (9, -48)):
        with pytest.raises(LabelError, match="the place is outside") as away:
            search(patches, at=far)
        assert f"longitude {far[0]:g}, latitude {far[1]:g}" == away.value.found
    for wrong in (patches.array, "emb/scene"):
        with pytest.raises(DataError, match="not embeddings") as refused:
            search(wrong, at=(lon, lat))  # type: ignore[arg-type]
        assert "open_embeddings" in str(refused.value.remedy)


def test_a_result_shows_itself_in_a_line() -> None:
    """Not as the arrays that it holds."""
    patches, _ = world(size=SIZE)
    shown = repr(search(patches, at=place_of(patches, 3, 3)))

    assert shown.startswith("SearchResult(1024 cells by cosine")
    assert "array(" not in shown


def test_longitudes_beyond_180_degrees_are_those_of_the_other_side() -> None:
    """A scene in degrees that crosses the antimeridian counts on: 180.5 is -179.5 on any map."""
    patches, _ = world("degrees", (24, 24))
    grid = patches.grid
    t = grid.transform
    moved = replace(grid, transform=Affine(t.a, t.b, 179.98, t.d, t.e, t.f))
    found = search(
        patch_grid(patches.stored.to_numpy(), moved, patches.provenance), at=(-179.99, 47.99)
    ).ranked(500)

    assert found["longitude"].between(-180, 180).all()
    assert (found["longitude"] < 0).any()
    off = np.abs(found["longitude"] - shapely.get_x(shapely.centroid(found.geometry.array)))
    assert np.isclose(off, np.where(found["longitude"] < 0, 360, 0), atol=1e-6).all()


def test_a_place_without_a_vector_is_not_called_outside() -> None:
    """The last row has none: longitude and latitude are right."""
    patches, _ = world("utm", SIZE)
    with pytest.raises(LabelError, match="have no vectors there") as caught:
        search(patches, at=place_of(patches, 31, 5))
    assert "longitude comes first" not in str(caught.value.remedy)


def test_no_layer_and_no_such_number_are_errors() -> None:
    """They were a ValueError of numpy."""
    patches, truth = world("utm", SIZE)
    layer = drawn(patches, truth)[:1]
    for like, unlike in (([], None), (layer, [])):
        with pytest.raises(LabelError, match="no polygons or points"):
            search(patches, like=like, unlike=unlike)
    with pytest.raises(LabelError, match="no polygons or points"):
        map_classes(patches, [], "class")
    found = search(patches, like=layer)
    for top in (-1, 2.5):
        with pytest.raises(ConfigError, match="top is out of range"):
            found.ranked(top)
