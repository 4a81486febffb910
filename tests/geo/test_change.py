"""Change: the false-alarm rate is the one stated, changes are found, and grids must be one."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from vector_world import MADE, PLACES, chips_of, made_on, other_model, world
from xarray import DataArray

from eofm.cli import main
from eofm.contract.recipe import Pooling, default_recipe
from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.errors import ConfigError, DataError, SpecError
from eofm.geo.change import NullKind, _wide, detect_change
from eofm.geo.change_null import whole_window
from eofm.geo.embedding.embed import embed_patches
from eofm.geo.embedding_files import open_embeddings, write_tiff
from eofm.geo.embeddings import ChipTable, Codes, PatchGrid, patch_grid
from eofm.geo.maps_config import ChangeConfig
from eofm.raster.cube import placed
from eofm.raster.grid import Grid
from eofm.raster.opening import open_scene
from eofm.raster.scene import Scene
from eofm.weights.encoder import random_encoder
from eofm.world.config import WorldConfig
from eofm.world.files import draw_ground
from eofm.world.places import draw_visit
from eofm.world.season import draw_scene

SIZE = (64, 64)
NO_SCENE = replace(MADE, scenes=())
BLOCK = (slice(20, 26), slice(30, 37))


def date(seed: int, *, spread: float = 0.3, changed: bool = False, place: str = "utm") -> PatchGrid:
    """The same ground at a date of its own: as much noise as at any other, or one block new."""
    patches, _ = world(place, SIZE)
    random = np.random.default_rng(1000 + seed)
    vectors = patches.stored.to_numpy()
    vectors = vectors + (spread * random.normal(size=vectors.shape)).astype(np.float32)
    if changed:
        block = (vectors.shape[0], 6, 7)
        vectors[:, BLOCK[0], BLOCK[1]] = random.normal(size=block)
    return patch_grid(vectors, patches.grid, made_on(1000 + seed))


@pytest.mark.slow
@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("rate", [0.2, 0.05, 0.01])
def test_the_nominal_rate_is_not_exceeded(rate: float, dated: bool) -> None:
    """Of ground that has not changed, less than `rate` is reported, and what p says."""
    alarms, cells = 0, 0
    for seed in range(0, 24, 4):
        null = [date(seed + 2), date(seed + 3)] if dated else []
        found = detect_change(date(seed), date(seed + 1), null, rate=rate)
        assert found.null is (NullKind.DATES if dated else NullKind.NEIGHBOURS)
        alarms += int(found.changed.sum())
        cells += int(np.isfinite(found.score).sum())
        assert np.array_equal(found.changed, np.nan_to_num(found.p, nan=1) <= rate)

    assert alarms / cells < rate


@pytest.mark.parametrize("dated", [False, True])
def test_what_moves_all_cells_alike_changes_nothing(dated: bool) -> None:
    """A second date that is turned as a whole, and lit unevenly, has the scores of before."""
    first, second, null = date(1), date(2, changed=True), [date(3)] if dated else []
    random = np.random.default_rng(0)
    turn, _ = np.linalg.qr(random.normal(size=(16, 16)))
    light = np.exp(random.normal(size=SIZE))
    turned = (np.einsum("dyx,de->eyx", second.stored.to_numpy(), turn) * light).astype(np.float32)
    one = detect_change(first, second, null)
    other = detect_change(first, patch_grid(turned, second.grid, second.provenance), null)

    assert np.allclose(one.score, other.score, rtol=2e-3, equal_nan=True)
    assert np.nanmedian(other.distance) > 2 * np.nanmedian(one.distance)  # which cosines report


def test_cells_that_always_move_are_told_by_null_dates() -> None:
    """Reported 39 % of unchanged ground; now null dates say which cells move, and lift others."""
    random = np.random.default_rng(0)
    restless = random.random(SIZE) < 0.4  # fields among forest: five times the noise, at each date

    def moving(seed: int, changed: bool = False) -> PatchGrid:
        quiet, wild = (date(seed, spread=spread) for spread in (0.1, 0.5))
        vectors = np.where(restless, wild.stored.to_numpy(), quiet.stored.to_numpy())
        if changed:  # a change of quiet ground that is less than what restless ground does
            block = vectors[:, BLOCK[0], BLOCK[1]]
            block += 0.4 * random.normal(size=block.shape).astype(np.float32)
        return patch_grid(vectors, quiet.grid, quiet.provenance)

    first, second, null = moving(1), moving(2, changed=True), [moving(3)]
    new = np.zeros(SIZE, bool)
    new[BLOCK] = ~restless[BLOCK]
    alone, dated = (
        detect_change(first, second, dates, rate=0.05).changed.reshape(SIZE) for dates in ([], null)
    )
    assert alone[new].mean() < 0.1
    assert dated[new].mean() > 0.5
    assert dated[~new].mean() < 0.05


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dated", [False, True])
def test_a_new_block_is_found(place: str, dated: bool) -> None:
    """Nearly all of the block that is new is reported, as a polygon where it lies."""
    null = [date(3, place=place)] if dated else []
    found = detect_change(
        date(1, place=place), date(2, changed=True, place=place), null, rate=0.005
    )
    changed = found.changed.reshape(SIZE)
    assert changed[BLOCK].mean() > 0.9
    rest = changed.copy()
    rest[BLOCK] = False
    assert rest.mean() < 0.02

    polygons = found.polygons(smallest=5)
    assert 1 == len(polygons)
    assert np.isclose(changed[BLOCK].sum(), polygons["cells"].iloc[0], atol=2)
    grid = date(1, place=place).grid
    middle = polygons.geometry.iloc[0].centroid
    inverse = ~grid.transform
    col = inverse.a * middle.x + inverse.b * middle.y + inverse.c
    row = inverse.d * middle.x + inverse.e * middle.y + inverse.f
    assert abs(row - 23) < 0.7
    assert abs(col - 33.5) < 0.7


def test_a_change_of_all_ground_is_the_season() -> None:
    """Without other dates, what moves everywhere alike is usual; the block stands out still."""
    second = date(2, changed=True)
    moved = second.stored.to_numpy() + 0.8
    found = detect_change(date(1), patch_grid(moved, second.grid, second.provenance), rate=0.01)

    assert found.changed.reshape(SIZE)[BLOCK].mean() > 0.6
    assert found.changed.mean() < 0.1


def swept(rows: int) -> PatchGrid:
    """A second date on which the first rows are new, one by one."""
    second = date(2)
    vectors = second.stored.to_numpy().copy()
    vectors[:, :rows] = np.random.default_rng(3).normal(size=(len(vectors), rows, SIZE[1]))
    return patch_grid(vectors, second.grid, second.provenance)


def test_a_change_wider_than_half_of_the_window_is_said(tmp_path: Path, capsys) -> None:
    """Answered `0 cells changed` and no more; now it is said, and the window that is named sees."""
    for name, one in {"a": date(1), "b": swept(20), "calm": date(2)}.items():
        write_tiff(tmp_path / f"{name}.tif", one)

    def said(name: str, *options: str) -> str:
        words = ["change", str(tmp_path / "a.tif"), str(tmp_path / f"{name}.tif"), *options]
        assert 0 == main([*words, "--out", str(tmp_path / "out")])
        return capsys.readouterr().out

    words = said("b")
    assert words.startswith("0 of 4032 cells changed")
    assert "1280 cells are in areas that differ more than the rest" in words
    assert 1280 == json.loads((tmp_path / "out/change.json").read_text())["wide"]
    window = words.partition("try ")[2].split()[:2]
    assert ["--window", "127"] == window
    again = said("b", *window)
    assert int(again.split()[0]) > 0.8 * 1280
    assert "areas that differ more" not in again
    assert "areas that differ more" not in said("calm")
    # of a window that is all of the scene already, none is named
    assert "no wider one would help" in _wide(detect_change(date(1), swept(20)), 127)


@pytest.mark.slow
def test_wide_changes_of_chips_are_said_too() -> None:
    """Of chips the window counts by their number: the one that is named is the whole table."""
    dates = [chips_of(date(1)), chips_of(swept(20))]
    found = detect_change(*dates)
    whole = whole_window(found.cells)
    wider = detect_change(*dates, window=whole)

    assert found.changed.sum() < 100 < found.wide
    assert whole == 64
    assert wider.changed.sum() > 0.8 * 1280
    assert wider.wide == 0


def cut(one: PatchGrid, height: int, width: int) -> PatchGrid:
    """A corner of a grid."""
    grid = replace(one.grid, height=height, width=width)
    return patch_grid(one.stored.to_numpy()[:, :height, :width].copy(), grid, one.provenance)


@pytest.mark.parametrize("window", [127, 128, 513, 10**12])
def test_a_window_beyond_the_grid_is_the_whole_grid(window: int) -> None:
    """One of 513 found nothing at all, one of 10**12 was a ValueError of numpy."""
    pair = date(1), date(2, changed=True)
    found = detect_change(*pair, window=window)

    assert found.changed.reshape(SIZE)[BLOCK].mean() > 0.9
    assert np.array_equal(found.score, detect_change(*pair, window=127).score, equal_nan=True)


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (1, 40), (40, 1), (2, 20)])
def test_small_grids_have_neighbours(shape: tuple[int, int]) -> None:
    """The window of 33 met the cell alone on 3 x 3 patches, and every score was one."""
    found = detect_change(cut(date(1), *shape), cut(date(2), *shape), rate=0.2)
    settled = np.unique(found.score)

    assert len(settled) > shape[0] * shape[1] / 2


def test_chips_and_patches_say_the_same() -> None:
    """The distances of chips are those of the patches, and so are nearly all cells reported."""
    dates = [date(1), date(2, changed=True), date(3)]
    chips = [chips_of(one) for one in dates]
    for null in ([], [2]):
        grid = detect_change(*dates[:2], [dates[n] for n in null], rate=0.01)
        table = detect_change(*chips[:2], [chips[n] for n in null], rate=0.01)
        known = np.isfinite(grid.score)

        assert np.allclose(grid.distance[known], table.distance, rtol=1e-4)
        # neighbours are evenly spread over a window, and over the chips that are nearest
        assert (grid.changed[known] != table.changed).mean() < 0.005
        assert table.changed.sum() > 30
    with pytest.raises(DataError, match="chips have no grid"):
        table.to_xarray()


def test_grids_that_differ_are_refused() -> None:
    """Another origin, another size, chips beside patches, other chips: one error each."""
    one = date(1)
    t = one.grid.transform
    moved = replace(one.grid, transform=Affine(t.a, 0, t.c + 70, 0, t.e, t.f))
    vectors = one.stored.to_numpy()
    chips = chips_of(one)
    away = replace(chips, table=chips.table.set_geometry(chips.table.geometry.translate(20, 0)))
    cases = [
        (one, patch_grid(vectors, moved, MADE)),
        (one, patch_grid(vectors[:, 1:], replace(one.grid, height=63), MADE)),
        (one, chips),
        (chips, away),
        (chips, replace(away, table=away.table.assign(id="x" + away.table["id"]))),
        (chips, replace(chips, table=chips.table.to_crs(4326))),
    ]
    for before, after in cases:
        with pytest.raises(DataError, match=r"the same grid|cannot be compared") as caught:
            detect_change(before, after)
        assert "eofm embed SCENE" in str(caught.value.remedy)


def test_chips_of_other_names_on_the_same_ground_are_compared() -> None:
    """Chips on a scene's own grid have its name: those of two files were on another grid."""
    dates = [chips_of(one) for one in (date(1), date(2, changed=True), date(3))]
    expected = detect_change(dates[0], dates[1], dates[2:])
    named = [
        replace(one, table=one.table.assign(id=f"scene{number}_" + one.table["id"]))[::step]
        for number, (one, step) in enumerate(zip(dates, (1, -1, 1), strict=True))
    ]
    found = detect_change(named[0], named[1], named[2:])

    assert np.allclose(expected.distance, found.distance, atol=1e-6)
    some = detect_change(named[0], named[1][100:])
    assert len(named[0]) - 100 == len(some.distance)
    assert named[0].table["id"].tolist()[: len(some.distance)] == (
        some.cells.chips.table["id"].tolist()
    )


@pytest.mark.parametrize("of", [lambda one: one, chips_of], ids=["patches", "chips"])
def test_other_places_are_not_called_another_grid(of) -> None:
    """The remedy for grids, to cut both scenes alike, is none for scenes of two places."""
    one = date(1)
    t = one.grid.transform
    moved = replace(one.grid, transform=Affine(t.a, 0, t.c + 2e5, 0, t.e, t.f))
    with pytest.raises(DataError, match="of different places") as caught:
        detect_change(of(one), of(patch_grid(one.stored.to_numpy(), moved, made_on(7))))
    assert "9.0010" in str(caught.value.expected)


@pytest.mark.slow
def test_chips_of_one_name_are_compared() -> None:
    """Tables in another order, or with other chips beside, are compared where names agree."""
    dates = [chips_of(one) for one in (date(1), date(2, changed=True), date(3))]
    whole = detect_change(dates[0], dates[1], dates[2:])
    random = np.random.default_rng(0)
    kept = [random.permutation(len(one))[200:] for one in dates]
    part = detect_change(
        *(one[rows] for one, rows in zip(dates[:2], kept, strict=False)), [dates[2][kept[2]]]
    )

    found = part.cells.chips.table["id"].tolist()
    assert set(found) == set.intersection(
        *(set(one.table["id"].iloc[rows]) for one, rows in zip(dates, kept, strict=True))
    )
    row = {name: number for number, name in enumerate(dates[0].table["id"])}
    assert np.allclose(whole.distance[[row[name] for name in found]], part.distance, atol=1e-6)


@pytest.mark.slow
def test_the_named_grid_aligns_two_scenes(tmp_path: Path, write_tif) -> None:
    """Scenes that are cut differently have no patches in common; as the remedy says, chips do."""
    random = np.random.default_rng(0)
    for name, origin in {"a": (5e5, 5.4e6), "b": (5e5 + 250, 5.4e6 - 130)}.items():
        pixels = random.integers(300, 3000, (12, 128, 128)).astype(np.uint16)
        write_tif(tmp_path / f"{name}.tif", pixels, origin=origin)
    stated = ["--sensor", "s2-l2a", "--unit", "dn", "--model", "random:vits14", "--size", "28"]
    stated += ["--force", "scale"]

    def embed(way: list[str], folder: str) -> list[str]:
        for name in "ab":
            out = ["--out", str(tmp_path / folder / name)]
            assert 0 == main(["embed", str(tmp_path / f"{name}.tif"), *stated, *way, *out])
        return [str(tmp_path / folder / name) for name in "ab"]

    before, after = (open_embeddings(p) for p in embed(["--patches", "--window", "28"], "patches"))
    with pytest.raises(DataError, match="the same grid") as caught:
        detect_change(before, after)
    words = shlex.split(str(caught.value.remedy).partition("eofm embed ")[2].partition(";")[0])
    way = words[words.index("--chips") : words.index("--out")]
    assert ["--chips", "32", "--grid", "majortom"] == way
    folders = embed(way, "chips")
    assert 0 == main(["change", *folders, "--rate", "0.3", "--out", str(tmp_path / "out")])


def test_vectors_of_another_model_are_refused() -> None:
    """Two models, two ways from pixel to network: never compared, also as a null."""
    one = date(1)
    settings = {"layout": "patches", "job": "7" * 64}  # a hash of the job says nothing to a user
    way = replace(one, provenance=replace(MADE, way_hash="9" * 64, settings=settings))
    with pytest.raises(SpecError, match="different ways") as caught:
        detect_change(one, way)
    assert f"way {'9' * 16} (layout patches)" == caught.value.found
    for other in (other_model(one), way):
        with pytest.raises(SpecError, match="cannot be compared"):
            detect_change(one, other)
        with pytest.raises(SpecError, match="cannot be compared"):
            detect_change(one, date(2), [other])


def test_a_rate_below_what_can_be_told() -> None:
    """Too low a rate for the null is refused; the rate that is named works."""
    for null in ([date(3)], []):
        with pytest.raises(ConfigError, match="rate is too low") as caught:
            detect_change(date(1), date(2), null, rate=1e-6)
        rate = float(str(caught.value.remedy).partition("--rate ")[2].partition(";")[0])
        assert 0 < rate < 0.01
        detect_change(date(1), date(2), null, rate=rate)


@cache
def chips_on(day: int) -> ChipTable:
    """The vectors of a day as chips; nobody changes them."""
    return chips_of(date(day))


@pytest.mark.slow
@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("count", [1, 8, 9, 51])
def test_every_rate_that_is_named_is_taken(count: int, dated: bool) -> None:
    """However few cells there are, a remedy is no rate that is then refused; more ground helps."""
    whole = [chips_on(n) for n in range(1, 4)]
    dates = [one[:count] for one in whole]
    null = [2] if dated else []
    with pytest.raises(ConfigError, match=r"too (low for so few unchanged|few) cells") as caught:
        detect_change(*dates[:2], [dates[n] for n in null], rate=2e-3)
    remedy = str(caught.value.remedy)
    if "--rate" in remedy:
        rate = float(remedy.partition("--rate ")[2].partition(";")[0])
        detect_change(*dates[:2], [dates[n] for n in null], rate=rate)
        with pytest.raises(ConfigError, match="rate is too low"):
            detect_change(*dates[:2], [dates[n] for n in null], rate=rate - 2e-4)

    assert (count < 9) == ("--rate" not in remedy)
    assert remedy.endswith("compare more ground: embed whole scenes, without --where")
    detect_change(*whole[:2], [whole[n] for n in null], rate=2e-3)


def test_null_dates_that_tell_nothing() -> None:
    """Equal vectors, or no ground in common: refused, and both remedies work."""
    first, second = stored_as(date(1), "float32"), date(2)
    clouded = date(3).valid.copy()
    clouded[:, 1:] = False
    clouded[6:] = False
    for null in (stored_as(date(1), "float32"), replace(date(3), valid=clouded)):
        with pytest.raises(ConfigError, match="null dates do not show") as caught:
            detect_change(first, second, [null])
        assert "name another date after --null, or leave --null out" == caught.value.remedy
        # one that tells is enough: the other is left out
        one = detect_change(first, second, [date(4)])
        both = detect_change(first, second, [date(4), replace(date(3), valid=clouded)])
        assert np.array_equal(one.changed, both.changed)
    detect_change(first, second)


def test_one_scene_is_no_two_dates() -> None:
    """Reported 80 of 961 cells as changed. Refused by the scene's hash; another date is taken."""
    one, other, third = date(1), date(2), date(3)
    again = patch_grid(one.stored.to_numpy() + 1e-7, one.grid, one.provenance)
    cases = [
        ([one, again], "the second date is of the same scene as the first", [one, other]),
        ([one, other, one], "null is of the same scene as the first", [one, other, third]),
        ([one, other, other], "null is of the same scene as the second", [one, other]),
        ([one, other, third, third], "null is of the same scene as a date", [one, other, third]),
    ]
    for (before, after, *null), words, (first, second, *others) in cases:
        with pytest.raises(DataError, match=words) as caught:
            detect_change(before, after, null)
        assert ("name the embeddings of another date" == caught.value.remedy) == (not null)
        detect_change(first, second, others)

    # several dates of one file have its hash
    (scene,) = one.provenance.scenes
    later = replace(one.provenance, scenes=(replace(scene, date="2021-08-04T10:30:00"),))
    detect_change(one, patch_grid(other.stored.to_numpy(), one.grid, later))


def stored_as(one: PatchGrid, kind: str) -> PatchGrid:
    """The same vectors as they may be stored, of a scene that was not hashed."""
    vectors, codes = one.stored.to_numpy(), None
    made = replace(one.provenance, scenes=())
    if kind == "int8":
        known = np.moveaxis(vectors, 0, -1)[one.valid]
        codes = Codes.between(known.min(axis=0), known.max(axis=0))
        vectors = np.moveaxis(codes.encode(np.moveaxis(vectors, 0, -1)), -1, 0)
    else:
        vectors = vectors.astype(kind)
    return patch_grid(vectors, one.grid, made, codes, one.valid)


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize("dated", [False, True])
def test_what_numbers_do_not_tell_is_no_change(kind: str, dated: bool) -> None:
    """Vectors that differ by rounding alone: no cell is a change, whatever the null is."""
    one = date(1)
    random = np.random.default_rng(0)
    step = {"float32": 2e-7, "float16": 4e-4, "int8": 0.004}[kind]

    def rounded() -> PatchGrid:
        vectors = one.stored.to_numpy()
        moved = vectors * (1 + step * random.uniform(-1, 1, vectors.shape).astype(np.float32))
        return stored_as(patch_grid(moved, one.grid, one.provenance), kind)

    null = [rounded()] if dated else []
    found = detect_change(stored_as(one, kind), rounded(), null)

    assert 0 < np.nanmax(found.distance)
    assert 0 == found.changed.sum()
    assert found.alike == np.isfinite(found.score).sum() > 4000
    assert (found.p[np.isfinite(found.p)] == 1).all()
    # a block that is new is one, though nothing else differs
    second = rounded().array.to_numpy().copy()
    second[:, BLOCK[0], BLOCK[1]] = date(2, changed=True).stored.to_numpy()[:, BLOCK[0], BLOCK[1]]
    new = detect_change(
        stored_as(one, kind),
        stored_as(patch_grid(second, one.grid, one.provenance), kind),
        null,
    )
    assert new.changed.reshape(SIZE)[BLOCK].mean() > 0.9
    assert new.changed.sum() == new.changed.reshape(SIZE)[BLOCK].sum()


def test_cells_of_the_same_pixels_do_not_tell_what_is_usual() -> None:
    """Half of a mosaic that was not renewed differs by nothing; the rate of the rest stays."""
    first, second = date(1), date(2)
    vectors = second.stored.to_numpy()
    vectors[:, ::2] = first.stored.to_numpy()[:, ::2]
    found = detect_change(first, patch_grid(vectors, first.grid, second.provenance), rate=0.02)
    whole = detect_change(first, second, rate=0.02)

    changed = found.changed.reshape(SIZE)
    assert 0 == changed[::2].sum()
    assert abs(changed[1::2].mean() - whole.changed.reshape(SIZE)[1::2].mean()) < 0.01
    assert found.alike == 32 * 64


def test_a_vector_without_direction_is_none() -> None:
    """Zeros have no cosine: the cell is left out, and is no change."""
    first, second = date(1), date(2)
    vectors = second.stored.to_numpy()
    vectors[:, 5, 5] = 0
    found = detect_change(first, patch_grid(vectors, first.grid, second.provenance))

    assert np.isnan(found.score.reshape(SIZE)[5, 5])
    assert not found.changed.reshape(SIZE)[5, 5]


def test_no_ground_seen_twice() -> None:
    """Dates without a cell in common are refused."""
    halves = [date(1).valid.copy(), date(1).valid.copy()]
    halves[0][:40], halves[1][40:] = False, False
    with pytest.raises(DataError, match="no cell has a vector at both dates"):
        detect_change(
            *(replace(date(n), valid=half) for n, half in zip((1, 2), halves, strict=True))
        )


def embedded(scene: Scene, stride: int) -> PatchGrid:
    """Overlapping patches of a random network."""
    recipe = default_recipe(scene.spec, (56, 56), Pooling.MEAN)
    return embed_patches(scene, random_encoder("vit-tiny-14", recipe, 0), window=56, stride=stride)


@cache
def seasons(location: int, *, exchanged: bool = False) -> list[PatchGrid]:
    """Three clear seasons of a place of the synthetic world; or with two squares exchanged."""
    config = WorldConfig("-", seed=1, size=168)
    biome, place, shift, land = draw_ground(config, location)
    if exchanged:
        unit = land.unit.copy()
        unit[CORNER], unit[MIDDLE] = land.unit[MIDDLE], land.unit[CORNER]
        land = replace(land, unit=unit)
    transform = Affine(10, 0, place.left, 0, -10, place.top)
    grid = Grid(CRS.from_epsg(place.epsg), transform, config.size, config.size)
    names = SENSOR_BANDS[Sensor.S2_L1C]
    found = []
    for season in range(3):
        random = np.random.default_rng([config.seed, location, 1 + season])
        visit = draw_visit(random, place, season, shift)
        seen = draw_scene(random, land, replace(biome, cloudy=0.0), place, visit).optical
        fine = [np.kron(seen[n], np.ones([config.size // len(seen[n])] * 2)) for n in names]
        array = DataArray(
            np.stack(fine).astype(np.uint16), dims=("band", "y", "x"), coords={"band": list(names)}
        )
        scene = open_scene(placed(array, grid), sensor="s2-l1c", unit="dn")
        found.append(embedded(scene, 7))
    return found


CORNER, MIDDLE = (slice(14, 70), slice(14, 70)), (slice(84, 140), slice(91, 147))


@pytest.mark.slow
def test_seasons_of_the_synthetic_world_are_no_change() -> None:
    """Of unchanged ground a null date had 17 % reported, on average, at a nominal 1 %."""
    alarms = {True: [], False: []}
    for location in range(2):
        dates = seasons(location)
        for first, second, other in permutations(dates):
            for dated, shares in alarms.items():
                found = detect_change(first, second, [other] if dated else [])
                shares.append(found.changed.sum() / np.isfinite(found.score).sum())

    for shares in alarms.values():
        assert np.mean(shares) < 0.01
        assert max(shares) < 0.05


@pytest.mark.slow
def test_land_that_is_exchanged_is_found_across_seasons() -> None:
    """Two squares of the synthetic world: with a null date much of them, and without it some."""
    before, after = seasons(0), seasons(0, exchanged=True)
    new = np.zeros(before[0].valid.shape, bool)
    for rows, columns in (CORNER, MIDDLE):
        new[rows.start // 7 : rows.stop // 7 - 1, columns.start // 7 : columns.stop // 7 - 1] = True
    alone, dated = (
        detect_change(before[0], after[1], null).changed.reshape(new.shape)
        for null in ([], [before[2]])
    )
    assert dated[new].mean() > 0.15  # some of it has the surface of before
    assert dated[new].mean() > alone[new].mean()
    assert dated[new].mean() > 5 * dated[~new].mean()  # among them patches that are new in part


@pytest.mark.slow
def test_two_dates_of_real_fields(real_data: Path) -> None:
    """WorldCereal, two days apart: little is a change, and two squares that are exchanged are."""
    (path,) = real_data.glob("worldcereal/S2_L2A_10m_*.nc")
    days = ("2018-05-04", "2018-05-06", "2018-05-09")
    first, second, other = (
        embedded(open_scene(path, sensor="s2-l2a", time=day), 2) for day in days
    )
    own = second.stored.to_numpy()
    side = own.shape[1] // 5
    one = slice(side // 2, side // 2 + side), slice(side // 2, side // 2 + side)
    far = slice(3 * side, 4 * side), slice(3 * side, 4 * side)
    vectors = own.copy()
    vectors[:, *one], vectors[:, *far] = own[:, *far], own[:, *one]
    moved = patch_grid(vectors, second.grid, second.provenance)
    for null in ([], [other]):
        calm = detect_change(first, second, null, rate=0.05)
        new = detect_change(first, moved, null, rate=0.05).changed.reshape(second.valid.shape)

        assert calm.changed.mean() < 0.05
        assert new[one].mean() > 0.7
        assert new[far].mean() > 0.7


def test_the_verb_writes_its_files(tmp_path: Path, capsys) -> None:
    """Raster, polygons and record say the same, with the rate and what it rests on."""
    for name, one in {"a": date(1), "b": date(2, changed=True), "c": date(3)}.items():
        write_tiff(tmp_path / f"{name}.tif", one)
    words = ["change", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), "--smallest", "5"]
    null = ["--null", str(tmp_path / "c.tif"), "--out", str(tmp_path / "out")]

    assert 0 == main([*words, *null])
    said = capsys.readouterr().out
    assert "false alarms: nominal rate 0.01" in said
    assert "name two or more, --null EMB_C EMB_D" in said
    record = json.loads((tmp_path / "out/change.json").read_text())
    with rasterio.open(tmp_path / "out/change.tif") as raster:
        score = raster.read(1, masked=True)
        assert "0.01" == raster.tags()["EOFM_FALSE_ALARM_RATE"]
    assert record["changed"] == (score > 1).sum()
    assert 0.01 == record["rate"]
    assert [json.loads(date(3).provenance.to_json())] == record["null_dates"]
    assert score.mask[-1].all()
    assert record["polygons"] == len(geopandas.read_file(tmp_path / "out/change.gpkg"))

    # as it says
    write_tiff(tmp_path / "d.tif", date(4))
    two = ["--null", str(tmp_path / "c.tif"), str(tmp_path / "d.tif")]
    assert 0 == main([*words, *two, "--out", str(tmp_path / "two")])
    said = capsys.readouterr().out
    assert "name two or more" not in said
    assert "null dates not used" not in said

    # a date under clouds was left out without a word
    write_tiff(tmp_path / "cloud.tif", replace(date(5), valid=np.zeros(SIZE, bool)))
    hidden = ["--null", str(tmp_path / "c.tif"), str(tmp_path / "cloud.tif")]
    assert 0 == main([*words, *hidden, "--out", str(tmp_path / "hidden")])
    said = capsys.readouterr().out
    assert "null dates not used, because they show too little of this ground: 1" in said
    assert "name two or more" in said
    assert 1 == json.loads((tmp_path / "hidden/change.json").read_text())["null_dates_that_tell"]

    # a file with itself: no change, and no result that says so
    assert 0 != main([*words[:2], words[1], "--out", str(tmp_path / "same")])
    said = capsys.readouterr().err
    assert "same scene" in said
    assert "name the embeddings of another date" in said
    assert not (tmp_path / "same").exists()

    # nothing changed at all: an empty layer, and no error
    calm = ["--rate", "0.001", "--smallest", "60", "--out", str(tmp_path / "calm")]
    assert 0 == main(["change", str(tmp_path / "a.tif"), str(tmp_path / "c.tif"), *calm])
    assert 0 == len(geopandas.read_file(tmp_path / "calm/change.gpkg"))


def test_the_summary_says_what_a_rate_is_and_what_is_not_told(tmp_path: Path, capsys) -> None:
    """Without other dates the rate is nominal, and not a promise; equal vectors are asked about."""
    unknown = [patch_grid(date(n).stored.to_numpy(), date(n).grid, NO_SCENE) for n in (1, 1, 2)]
    for name, one in zip("abc", unknown, strict=True):
        write_tiff(tmp_path / f"{name}.tif", one)
    words = ["change", str(tmp_path / "a.tif"), "--out", str(tmp_path / "out")]

    assert 0 == main([*words[:2], str(tmp_path / "b.tif"), *words[2:]])
    said = capsys.readouterr().out
    assert said.startswith("0 of 4032 cells changed")
    assert "4032 cells differ by less" in said
    assert "are these two dates?" in said
    assert 4032 == json.loads((tmp_path / "out/change.json").read_text())["alike"]
    assert 0 == main([*words[:2], str(tmp_path / "c.tif"), *words[2:]])
    said = capsys.readouterr().out
    assert "nominal rate 0.01" in said
    assert "differ by less" not in said


@pytest.mark.parametrize(
    "options", [{"rate": 0.0}, {"rate": 0.5}, {"window": 2}, {"smallest": 0}, {"null": []}]
)
def test_settings_that_cannot_be_obeyed(options) -> None:
    """Each is refused before anything is opened."""
    with pytest.raises(ConfigError):
        ChangeConfig("a", "b", **options)


def test_settings_of_the_function_are_those_of_the_verb() -> None:
    """A rate of 1 was an IndexError; a result shows itself in a line."""
    first, second = date(0), date(1)
    for settings_of in ({"rate": 1}, {"rate": 0.0}, {"window": 1}):
        with pytest.raises(ConfigError, match="out of range"):
            detect_change(first, second, **settings_of)  # type: ignore[arg-type]
    for wrong in ({"rate": "0.1"}, {"rate": None}, {"window": 33.5}, {"window": "33"}):
        with pytest.raises(ConfigError, match="of another type"):
            detect_change(first, second, **wrong)
    for one in (None, date(3), chips_on(3), "emb_c"):
        with pytest.raises(DataError, match="null is not a list") as caught:
            detect_change(first, second, one)  # type: ignore[arg-type]
    assert "put it into a list: null=[earlier, other]" == caught.value.remedy
    detect_change(first, second, [date(3), date(4)])
    with pytest.raises(ConfigError, match="--null names no file") as named:
        ChangeConfig("a", "b", null=[""])
    assert "name one: --null EMB_C EMB_D" == named.value.remedy
    ChangeConfig("a", "b", null=["EMB_C", "EMB_D"])
    shown = repr(detect_change(first, second))

    assert shown.startswith("ChangeResult(")
    assert "array(" not in shown
