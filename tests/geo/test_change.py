"""Change: the false-alarm rate is the one stated, changes are found, and grids must be one."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_world import MADE, PLACES, chips_of, other_model, world

from eofm.cli import main
from eofm.errors import ConfigError, DataError, SpecError
from eofm.geo.cells import cells_of
from eofm.geo.change import NullKind, cosine_distance, detect_change
from eofm.geo.maps_config import ChangeConfig
from eofm.geo.vectors.embeddings import PatchGrid, patch_grid
from eofm.geo.vectors.files import open_embeddings
from eofm.geo.vectors.grid_file import write_tiff

SIZE = (64, 64)
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
    return patch_grid(vectors, patches.grid, MADE)


@pytest.mark.parametrize("rate", [0.2, 0.05, 0.01])
def test_the_false_alarm_rate_is_the_one_stated(rate: float) -> None:
    """Of ground that has not changed, the share reported is `rate`, over many pairs of dates."""
    alarms, cells = 0, 0
    for seed in range(0, 24, 4):
        found = detect_change(
            date(seed), date(seed + 1), [date(seed + 2), date(seed + 3)], rate=rate
        )
        assert NullKind.DATES is found.null
        alarms += int(found.changed.sum())
        cells += int(np.isfinite(found.score).sum())
        assert np.array_equal(found.changed, np.nan_to_num(found.p, nan=1) <= rate)

    # distances within one date are alike, so that more than the binomial spread is allowed
    assert 0.7 * rate < alarms / cells < 1.3 * rate


def test_without_dates_the_neighbours_tell_what_is_usual() -> None:
    """Where logarithms spread alike to both sides, the nominal rate is met about."""
    random = np.random.default_rng(0)
    first, _ = world(size=SIZE, noise=0.0)
    base = first.stored.to_numpy()
    side = random.normal(size=base.shape)
    side -= (side * base).sum(0) * base / np.maximum((base**2).sum(0), 1e-9)
    side /= np.linalg.norm(side, axis=0)
    # an angle whose square has a normal logarithm: so has the distance
    angle = np.exp(0.4 * random.normal(size=SIZE) - 2)
    moved = np.cos(angle) * base / np.linalg.norm(base, axis=0) + np.sin(angle) * side
    second = patch_grid(moved.astype(np.float32), first.grid, MADE)
    for rate in (0.1, 0.02):
        found = detect_change(first, second, rate=rate)
        share = found.changed.sum() / np.isfinite(found.score).sum()

        assert NullKind.NEIGHBOURS is found.null
        assert 0.6 * rate < share < 1.6 * rate


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
    found = detect_change(date(1), patch_grid(moved, second.grid, MADE), rate=0.01)

    assert found.changed.reshape(SIZE)[BLOCK].mean() > 0.6
    assert found.changed.mean() < 0.1


def test_chips_and_patches_say_the_same() -> None:
    """With null dates the scores of chips are those of the patches."""
    dates = [date(1), date(2, changed=True), date(3)]
    grid = detect_change(dates[0], dates[1], dates[2:], rate=0.01)
    chips = [chips_of(one) for one in dates]
    table = detect_change(chips[0], chips[1], chips[2:], rate=0.01)

    assert np.allclose(grid.score[np.isfinite(grid.score)], table.score, rtol=1e-4)
    assert len(grid.polygons()) == len(table.polygons())
    assert detect_change(chips[0], chips[1], rate=0.01).changed.sum() > 30
    with pytest.raises(DataError, match="chips have no grid"):
        table.to_xarray()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_the_distance_is_that_of_the_definition(seed: int) -> None:
    """1 - cosine, counted in float64; never below 0, NaN where one date has no vector."""
    one, other = date(seed), date(seed + 1)
    found = cosine_distance(cells_of(one), cells_of(other))
    a, b = (
        np.moveaxis(d.array.to_numpy(), 0, -1).reshape(-1, 16).astype(float) for d in (one, other)
    )
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)

    assert np.allclose(1 - (a * b).sum(1) / lengths, found, atol=1e-5, equal_nan=True)
    assert (found[np.isfinite(found)] >= 0).all()
    assert 0 == np.nanmax(cosine_distance(cells_of(one), cells_of(one)) > 1e-5)


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
        (chips, replace(chips, table=chips.table.assign(id="x" + chips.table["id"]))),
        (chips, away),
        (chips, replace(chips, table=chips.table.to_crs(4326))),
    ]
    for before, after in cases:
        with pytest.raises(DataError, match=r"one grid|cannot be compared") as caught:
            detect_change(before, after)
        assert "eofm embed SCENE" in str(caught.value.remedy)


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
    with pytest.raises(DataError, match="one grid") as caught:
        detect_change(before, after)
    words = shlex.split(str(caught.value.remedy).partition("eofm embed ")[2].partition(";")[0])
    way = words[words.index("--chips") : words.index("--out")]
    assert ["--chips", "32", "--grid", "majortom"] == way
    folders = embed(way, "chips")
    assert 0 == main(["change", *folders, "--rate", "0.3", "--out", str(tmp_path / "out")])


def test_vectors_of_another_model_are_refused() -> None:
    """Two models, two ways from pixel to network: never compared, also as a null."""
    one = date(1)
    way = replace(one, provenance=replace(MADE, way_hash="9" * 64))
    for other in (other_model(one), way):
        with pytest.raises(SpecError, match="cannot be compared"):
            detect_change(one, other)
        with pytest.raises(SpecError, match="cannot be compared"):
            detect_change(one, date(2), [other])


def test_a_rate_below_what_can_be_told() -> None:
    """Too low a rate for the null is refused; the rate that is named works."""
    for null in ([date(3)], []):
        with pytest.raises(ConfigError, match="so low a rate") as caught:
            detect_change(date(1), date(2), null, rate=1e-6)
        rate = float(str(caught.value.remedy).partition("--rate ")[2].partition(";")[0])
        assert 0 < rate < 0.01
        detect_change(date(1), date(2), null, rate=rate)


def test_no_ground_seen_twice() -> None:
    """Dates without a cell in common are refused."""
    one = date(1)
    halves = [one.valid.copy(), one.valid.copy()]
    halves[0][:40], halves[1][40:] = False, False
    with pytest.raises(DataError, match="no cell has a vector at both dates"):
        detect_change(*(replace(one, valid=half) for half in halves))


def test_the_verb_writes_its_files(tmp_path: Path, capsys) -> None:
    """Raster, polygons and record say the same, with the rate and what it rests on."""
    for name, one in {"a": date(1), "b": date(2, changed=True), "c": date(3)}.items():
        write_tiff(tmp_path / f"{name}.tif", one)
    words = ["change", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), "--smallest", "5"]
    null = ["--null", str(tmp_path / "c.tif"), "--out", str(tmp_path / "out")]

    assert 0 == main([*words, *null])
    said = capsys.readouterr().out
    assert "false alarms: rate 0.01" in said
    record = json.loads((tmp_path / "out/change.json").read_text())
    with rasterio.open(tmp_path / "out/change.tif") as raster:
        score = raster.read(1, masked=True)
        assert "0.01" == raster.tags()["EOFM_FALSE_ALARM_RATE"]
    assert record["changed"] == (score > 1).sum()
    assert 0.01 == record["rate"]
    assert score.mask[-1].all()
    assert record["polygons"] == len(geopandas.read_file(tmp_path / "out/change.gpkg"))

    # nothing changed at all: an empty layer, and no error
    calm = ["--rate", "0.001", "--smallest", "60", "--out", str(tmp_path / "calm")]
    assert 0 == main(["change", str(tmp_path / "a.tif"), str(tmp_path / "c.tif"), *calm])
    assert 0 == len(geopandas.read_file(tmp_path / "calm/change.gpkg"))


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
    shown = repr(detect_change(first, second))

    assert shown.startswith("ChangeResult(")
    assert "array(" not in shown
