"""The explore page: what it holds, and what it does in a real browser after a click."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from vector_world import MADE, PLACES, chips_of, outline, world

from eofm.cli import main
from eofm.errors import ConfigError, DataError
from eofm.geo.cells import cells_of, degrees, lattice_of
from eofm.geo.embedding.outputs import cell_places
from eofm.geo.embedding_files import write_tiff
from eofm.geo.embeddings import ChipTable, PatchGrid, patch_grid
from eofm.geo.explore import explore
from eofm.geo.maps_config import ExploreConfig
from eofm.geo.results import scene_picture
from eofm.raster.grid import Grid
from eofm.raster.opening import open_scene

SIZE = (20, 28)


def content(page: Path, name: str) -> str:
    """The text of a script element of the page."""
    found = re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', page.read_text(), re.S)
    assert found
    return found[1]


def held(page: Path) -> tuple[dict, np.ndarray]:
    """Facts and vectors of a page, as the browser decodes them."""
    facts = json.loads(content(page, "facts"))
    codes = np.frombuffer(base64.b64decode(content(page, "vectors")), np.int8)
    shape = facts["rows"], facts["columns"], facts["components"]
    return facts, codes.reshape(shape) * np.array(facts["scale"])


def similarity(vectors: np.ndarray, row: int, col: int) -> np.ndarray:
    """Cosines with one cell, -inf where there is no vector."""
    length = np.linalg.norm(vectors, axis=-1)
    cosine = (vectors @ vectors[row, col]) / np.where(length > 0, length, 1) / length[row, col]
    return np.where(length > 0, cosine, -np.inf)


@pytest.mark.parametrize("place", PLACES)
def test_the_page_holds_what_the_vectors_say(place: str, tmp_path: Path) -> None:
    """Cosines of the page are those of the vectors, north is up, and coordinates are right."""
    patches, _ = world(place, SIZE)
    done = explore(patches, tmp_path / "p.html")
    facts, vectors = held(done.file)
    x = np.moveaxis(patches.array.to_numpy(), 0, -1)
    unit = np.nan_to_num(x / np.linalg.norm(x, axis=-1, keepdims=True))
    if place == "south-up":
        unit = unit[::-1]
    row, col = (5, 9)
    exact = np.where(np.abs(unit).sum(-1) > 0, unit @ unit[row, col], -np.inf)

    assert done.recall > 0.9
    assert np.allclose(exact, similarity(vectors, row, col), atol=0.03)
    a, b, c, d, e, f = facts["transform"]
    assert e < 0
    flipped = SIZE[0] - 1 - row if place == "south-up" else row
    expected = patches.grid.point(col + 0.5, flipped + 0.5)
    assert np.allclose(expected, (a * 9.5 + b * 5.5 + c, d * 9.5 + e * 5.5 + f))
    mesh = np.array(facts["lonlat"])
    lonlat = degrees(cells_of(patches), np.array([flipped * SIZE[1] + col]))[0]
    y, x_ = 5.5 / SIZE[0] * 8, 9.5 / SIZE[1] * 8
    i, j = int(y), int(x_)
    low = mesh[i, j] + (mesh[i, j + 1] - mesh[i, j]) * (x_ - j)
    high = mesh[i + 1, j] + (mesh[i + 1, j + 1] - mesh[i + 1, j]) * (x_ - j)
    assert np.allclose(lonlat, low + (high - low) * (y - i), atol=1e-5)


class Fetched(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(v) for k, v in attrs if k in {"src", "href", "xlink:href"}]


def test_the_page_needs_no_network_and_no_trust(tmp_path: Path) -> None:
    """Nothing is fetched, the policy forbids it, and a hostile name stays text."""
    patches, _ = world(size=SIZE)
    evil = "</script><script>document.title='owned'</script>"
    patches = replace(patches, provenance=replace(patches.provenance, model=evil))
    text = explore(patches, tmp_path / "p.html").file.read_text()
    parser = Fetched()
    parser.feed(text)

    assert all(source.startswith("data:image/png;base64,") for source in parser.sources)
    assert "default-src 'none'" in text
    assert evil not in text
    assert "&lt;/script&gt;" in text
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_large_grids_are_thinned_and_say_so(tmp_path: Path) -> None:
    """No more cells than asked for, at the coordinates of the wider cells."""
    patches, _ = world(size=(40, 60))
    done = explore(patches, tmp_path / "p.html", most=700)
    facts, vectors = held(done.file)
    x = np.moveaxis(patches.array.to_numpy(), 0, -1)[::2, ::2]

    assert (20, 30) == vectors.shape[:2]
    assert 280 == facts["transform"][0]
    assert "one cell of 2 x 2 is shown" in " ".join(done.notes)
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    found = similarity(vectors, 3, 3)
    assert np.allclose((unit @ unit[3, 3])[:-1], found[:-1], atol=0.03)


def test_few_dimensions_lose_and_the_page_says_how_much(tmp_path: Path) -> None:
    """The recall that is printed falls with the directions that are kept."""
    patches, _ = world(size=SIZE, dim=48, noise=2)
    full = explore(patches, tmp_path / "a.html", dimensions=48)
    few = explore(patches, tmp_path / "b.html", dimensions=4)

    assert few.recall < 0.6
    assert full.recall > 0.9
    assert few.energy < full.energy <= 1.001
    assert f"finds {few.recall:.0%} of the ten" in (tmp_path / "b.html").read_text()


def test_chips_on_a_lattice(tmp_path: Path) -> None:
    """Chips stand where the patches they are stood, in any CRS; others are refused."""
    patches, _ = world(size=SIZE)
    chips = chips_of(patches)
    table = lattice_of(cells_of(chips)).cells
    expected = np.where(patches.valid, np.cumsum(patches.valid).reshape(SIZE) - 1, -1)

    assert np.array_equal(expected[:-1], table)
    moved = replace(chips, table=chips.table.to_crs(4326))
    assert np.array_equal(expected[:-1], lattice_of(cells_of(moved)).cells)
    assert explore(moved, tmp_path / "p.html").cells == patches.valid.sum()

    random = np.random.default_rng(0)
    corner = random.uniform([5e5, 5.3e6], [5.05e5, 5.305e6], (len(chips), 2))
    boxes = [shapely.box(x, y, x + 140, y + 140) for x, y in corner]
    loose = replace(chips, table=geopandas.GeoDataFrame(geometry=boxes, crs="EPSG:32632"))
    with pytest.raises(DataError, match="rows and columns") as caught:
        explore(loose, tmp_path / "q.html")
    assert "--patches" in str(caught.value.remedy)


def major_tom(side: int, *, zone: int = 32638, at: tuple[float, float] = (353635, 6142415)):
    """Chips of 320 m on the Major TOM grid of a scene of some pixels of 10 m, a part without."""
    grid = Grid(CRS.from_epsg(zone), Affine(10, 0, at[0], 0, -10, at[1]), side, side)
    places = cell_places(grid, 32, 10)
    corners = zip(places.tops.tolist(), places.lefts.tolist(), strict=True)
    boxes = [outline(grid, row, col, 32, 32) for row, col in corners]
    table = geopandas.GeoDataFrame(geometry=boxes, crs=grid.require_crs().to_wkt())
    away = shapely.get_coordinates(table.centroid) - grid.point(side / 2, side / 2)
    table = table[np.linalg.norm(away, axis=1) > 1.25 * side].reset_index(drop=True)
    vectors = np.random.default_rng(0).normal(size=(len(table), 16)).astype(np.float32)
    return ChipTable(table, vectors, MADE)


def test_chips_on_parallels(tmp_path: Path) -> None:
    """Each row of the Major TOM grid begins at a longitude of its own; the page shows it there."""
    chips = major_tom(1200)
    cells = cells_of(chips)
    page = explore(chips, tmp_path / "p.html")
    facts, vectors = held(page.file)
    lattice = lattice_of(cells)
    rows, columns = np.nonzero(lattice.cells >= 0)
    mesh = np.array(facts["lonlat"])
    x = (columns + 0.5 + np.array(facts["shifts"])[rows]) / facts["width"] * (len(mesh) - 1)
    y = (rows + 0.5) / facts["rows"] * (len(mesh) - 1)
    j, i = x.astype(int), y.astype(int)
    x, y = (x - j)[:, None], (y - i)[:, None]
    low = mesh[i, j] + (mesh[i, j + 1] - mesh[i, j]) * x
    high = mesh[i + 1, j] + (mesh[i + 1, j + 1] - mesh[i + 1, j]) * x
    off = low + (high - low) * y - degrees(cells, lattice.cells[rows, columns])

    assert len(chips) == len(rows) == page.cells
    assert np.ptp(lattice.shifts) > 0.5
    assert np.abs(off * [63_000, 111_000]).max() < 10  # metres: half a pixel in each direction
    assert facts["columns"] + 1 == facts["width"]
    assert "" == facts["crs"]
    assert np.array_equal(lattice.cells >= 0, np.abs(vectors).sum(-1) > 0)


def test_thinned_chips_on_parallels(tmp_path: Path) -> None:
    """Those that are left are where they were."""
    chips = major_tom(1200)
    full, _ = held(explore(chips, tmp_path / "a.html").file)
    facts, _ = held(explore(chips, tmp_path / "b.html", most=400).file)

    assert np.allclose(np.array(full["shifts"])[::2] / 2, facts["shifts"], atol=1e-4)
    assert (full["columns"] + 1) // 2 + 1 == facts["width"]
    assert 2 * full["transform"][0] == facts["transform"][0]


@pytest.mark.parametrize(
    ("second", "words"),
    [((6.6e5, 5e6), "too far apart"), ((353635, 6142415), "several chips are at one place")],
)
def test_chips_of_several_scenes(second: tuple[float, float], words: str, tmp_path: Path) -> None:
    """Far apart they would be a picture of nothing, and two dates of a place share theirs."""
    tables = [major_tom(400).table, major_tom(400, at=second).table]
    table = pd.concat(tables, ignore_index=True)
    both = ChipTable(table, np.ones((len(table), 4), np.float32), MADE)
    with pytest.raises(DataError) as caught:
        explore(both, tmp_path / "p.html")
    assert words in str(caught.value)
    assert "one scene" in str(caught.value.remedy)


def test_longitudes_continue_across_the_antimeridian(tmp_path: Path) -> None:
    """The browser interpolates them: halfway between 179 and -179 is not Greenwich."""
    patches, _ = world(size=SIZE)
    for left in (340_000, 347_000):
        transform = Affine(140, 0, left, 0, -140, 7e6)
        one = replace(patches.grid, crs=CRS.from_epsg(32601), transform=transform)
        moved = patch_grid(patches.stored.to_numpy(), one, patches.provenance)
        mesh = np.array(held(explore(moved, tmp_path / "p.html").file)[0]["lonlat"])
        assert np.abs(np.diff(mesh[..., 0], axis=1)).max() < 0.02


def test_the_picture_is_the_scene(write_tif, tmp_path: Path) -> None:
    """The picture shows the scene's pixel under each point, also on another grid; gray outside."""
    pixels = np.full((3, 60, 80), 300, np.uint16)
    pixels[0, 20:30, 40:60] = 2500
    write_tif(tmp_path / "s.tif", pixels, descriptions=("B04", "B03", "B02"))
    scene = open_scene(tmp_path / "s.tif", sensor="s2-l2a", unit="dn")
    own = scene_picture(scene, scene.grid).pixels
    turned = Grid(scene.grid.crs, Affine(0, 10, 5e5, -10, 0, 5.4e6), 80, 60)
    wide = Grid(scene.grid.crs, Affine(20, 0, 5e5 - 200, 0, -20, 5.4e6), 30, 50)

    red = np.zeros((60, 80), bool)
    red[20:30, 40:60] = True
    assert np.array_equal(red, own[..., 0] > 0.9)
    beside = scene_picture(scene, wide).pixels
    assert np.array_equal(red.T, scene_picture(scene, turned).pixels[..., 0] > 0.9)
    assert np.array_equal(red[1::2, 1::2], beside[:, 10:, 0] > 0.9)
    assert (beside[:, :10] == 0.5).all()
    assert "" == scene_picture(scene, wide).stretch


def test_a_scene_of_snow_is_not_white(write_tif, tmp_path: Path) -> None:
    """Where the sensor's stretch would leave it blank, the picture has contrast, and says so."""
    pixels = np.tile(np.linspace(6000, 9000, 80).astype(np.uint16), (3, 60, 1))
    write_tif(tmp_path / "s.tif", pixels, descriptions=("B04", "B03", "B02"))
    scene = open_scene(tmp_path / "s.tif", sensor="s2-l2a", unit="dn")

    shown = scene_picture(scene, scene.grid)

    assert shown.pixels.std() > 0.2
    assert shown.stretch.startswith("own stretch: B04 6")


def test_no_vector_at_all(tmp_path: Path) -> None:
    """A grid without a vector has no page."""
    patches, _ = world(size=SIZE)
    empty = replace(patches, valid=np.zeros(SIZE, bool))
    with pytest.raises(DataError, match="no cell has a vector"):
        explore(empty, tmp_path / "p.html")
    with pytest.raises(DataError, match="the embeddings are empty"):
        explore(chips_of(patches)[:0], tmp_path / "p.html")
    for folder in (tmp_path, "."):
        with pytest.raises(DataError, match="the page is one file"):
            explore(patches, folder)


@pytest.mark.parametrize("options", [{"dimensions": 2}, {"dimensions": 65}, {"cells": 0}])
def test_settings_that_cannot_be_obeyed(options) -> None:
    """Each is refused before anything is opened."""
    with pytest.raises(ConfigError, match="out of range"):
        ExploreConfig("emb", **options)


# ------------------------------------------------------------------------------- the browser


def browser() -> str:
    """A headless Chromium, or a skip that says there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium or google-chrome on the path")
    return found


def dom(page: Path, click: str, profile: Path) -> str:
    """The page as the browser has made it, opened from the disk with a cell chosen."""
    done = subprocess.run(
        [
            *(browser(), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"),
            f"file://{page}{click}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def toy() -> PatchGrid:
    """A grid of which every cell has a direction of its own."""
    patches, _ = world(size=SIZE, noise=1.0)
    return patch_grid(patches.stored.to_numpy(), patches.grid, patches.provenance)


def test_a_click_lists_the_most_alike(tmp_path: Path) -> None:
    """In a real browser, from file:// and without network, the ten best are the exact ones."""
    page = explore(toy(), tmp_path / "p.html").file
    _, vectors = held(page)
    cosine = similarity(vectors, 7, 12)
    cosine[7, 12] = -np.inf
    order = np.argsort(-cosine.ravel(), kind="stable")[:10]
    text = dom(page, "#click=12,7", tmp_path / "profile")

    assert 'data-chosen="12,7"' in text
    rows = re.findall(r'<tr data-cell="(\d+),(\d+)"><td class="n">([\d.-]+)', text)
    assert [(i % SIZE[1], i // SIZE[1]) for i in order] == [(int(c), int(r)) for c, r, _ in rows]
    assert np.allclose(cosine.ravel()[order], [float(s) for _, _, s in rows], atol=6e-4)
    assert 11 == text.count("<ellipse")


@pytest.mark.slow
def test_a_click_on_shifted_rows(tmp_path: Path) -> None:
    """The places that the browser lists are those of the chips."""
    chips = major_tom(400)
    text = dom(explore(chips, tmp_path / "p.html").file, "#click=5,1", tmp_path / "profile")
    listed = re.findall(r'<td class="n">[\d.-]+</td><td>([\d.-]+), ([\d.-]+)', text)
    cells = cells_of(chips)
    known = degrees(cells, np.flatnonzero(cells.valid))

    assert 10 == len(listed)
    for lon, lat in np.array(listed, float):
        assert (np.abs((known - [lon, lat]) * [63_000, 111_000]).max(axis=1) < 15).any()


@pytest.mark.slow
def test_without_a_click_nothing_is_chosen(tmp_path: Path) -> None:
    """The page opens quietly; a cell without a vector, or outside, chooses nothing."""
    page = explore(toy(), tmp_path / "p.html").file
    for click in ("", "#click=3,19", "#click=99,3"):
        text = dom(page, click, tmp_path / "profile")
        assert "data-chosen" not in text.partition("<script")[0]
        assert "<tr data-cell" not in text


@pytest.mark.slow
def test_the_heat_map_changes_with_the_place(tmp_path: Path) -> None:
    """Two screenshots after two clicks differ, and the place chosen is the lightest."""
    from matplotlib.image import imread

    page = explore(toy(), tmp_path / "p.html").file
    shots = []
    for click in ("#click=2,2", "#click=22,14"):
        out = tmp_path / f"{len(shots)}.png"
        subprocess.run(
            [
                *(browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--window-size=1000,700", f"--user-data-dir={tmp_path / 'profile'}"),
                *(f"--screenshot={out}", f"file://{page}{click}"),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        shots.append(imread(out)[..., :3])

    assert np.abs(shots[0] - shots[1]).mean() > 0.01
    assert all(shot.std() > 0.1 for shot in shots)


def test_the_verb_writes_the_page(tmp_path: Path, capsys, write_tif) -> None:
    """`eofm explore` with the scene says what the page keeps; its picture is the scene's."""
    patches, _ = world(size=SIZE)
    write_tiff(tmp_path / "patches.tif", patches)
    pixels = np.full((3, SIZE[0] * 14, SIZE[1] * 14), 900, np.uint16)
    write_tif(tmp_path / "scene.tif", pixels, descriptions=("B04", "B03", "B02"))
    out = tmp_path / "p.html"
    words = ["explore", str(tmp_path), "--scene", str(tmp_path / "scene.tif"), "--out", str(out)]

    assert 0 == main([*words, "--sensor", "s2-l2a", "--unit", "dn"])
    said = capsys.readouterr().out
    assert "532 cells" in said
    assert "no scene was given" not in said
    assert "Similar cells in scene" in out.read_text()
