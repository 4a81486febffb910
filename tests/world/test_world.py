"""The files of the embedded world: layout, determinism, resuming, refusals, statistics."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from eofm.contract.spec import SENSOR_BANDS, STATISTICS, UNITS, Sensor, Unit
from eofm.errors import ConfigError, DataError
from eofm.landcover.schemes import SCHEMES
from eofm.world import files
from eofm.world.config import WorldConfig
from eofm.world.files import write_world
from eofm.world.spectra import NO_COVER, GroundCover

BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
GSD = dict.fromkeys(BANDS, 20) | dict.fromkeys(("B2", "B3", "B4", "B8"), 10)
GSD |= dict.fromkeys(("B1", "B9", "B10"), 60)
SIZE, SCENES = 48, 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of small locations."""
    out = tmp_path_factory.mktemp("world") / "world"
    write_world(WorldConfig(str(out), scenes=SCENES, size=SIZE, workers=1))
    return out


def read(path: Path) -> np.ndarray:
    """Return the one band of a file."""
    with rasterio.open(path) as file:
        return file.read(1)


def scenes_of(world: Path, modality: str) -> Iterator[Path]:
    """Yield the season folders of a modality."""
    return iter(sorted((world / modality).glob("*/*")))


def content(world: Path) -> dict[str, bytes]:
    """Return every tif by its place in the world."""
    return {str(p.relative_to(world)): p.read_bytes() for p in sorted(world.rglob("*.tif"))}


def test_every_location_has_four_seasons_of_all_bands_at_native_size(world: Path):
    """The layout is that of SSL4EO-S12 v1: names, dtypes and sizes."""
    assert [f"{i:07d}" for i in range(SCENES)] == sorted(p.name for p in (world / "s2c").iterdir())
    assert {4} == {len(list(p.iterdir())) for p in (world / "s2c").iterdir()}
    for folder in scenes_of(world, "s2c"):
        assert {f"{b}.tif" for b in BANDS} == {p.name for p in folder.iterdir()}
    for folder in scenes_of(world, "s1"):
        assert ["VH.tif", "VV.tif"] == sorted(p.name for p in folder.iterdir())
    folder = next(scenes_of(world, "s2c"))
    for band in BANDS:
        pixels = read(folder / f"{band}.tif")
        assert (SIZE * 10 // GSD[band],) * 2 == pixels.shape
        assert np.uint16 == pixels.dtype
    assert np.float32 == read(next(scenes_of(world, "s1")) / "VV.tif").dtype


def test_all_files_of_a_location_cover_the_same_ground(world: Path):
    """Bands, radar and map share bounds and a UTM zone, on the 60 m grid of the tile."""
    for place in sorted((world / "s2c").iterdir())[:12]:
        corners = set()
        for path in sorted(world.glob(f"*/{place.name}/**/*.tif")):
            with rasterio.open(path) as file:
                corners.add((file.crs.to_epsg(), *file.bounds))
        assert 1 == len(corners)
        epsg, left, bottom, right, top = corners.pop()
        assert epsg // 100 in (326, 327)
        assert (0, 0) == (left % 60, top % 60)
        assert (SIZE * 10, SIZE * 10) == (right - left, top - bottom)


def test_names_are_product_names_and_dates_follow_the_original(world: Path):
    """Season folders parse as in SSL4EO-S12; windows and gaps are those of its paper."""
    for place in sorted((world / "s2c").iterdir()):
        optical = sorted(p.name for p in place.iterdir())
        radar = sorted(p.name for p in (world / "s1" / place.name).iterdir())
        assert all(re.fullmatch(r"\d{8}T\d{6}_\d{8}T\d{6}_T\d\d[C-X][A-Z]{2}", n) for n in optical)
        pattern = r"S1[AB]_IW_GRDH_1SDV_(\d{8}T\d{6})_\d{8}T\d{6}_\d{6}_[0-9A-F]{6}_[0-9A-F]{4}"
        seen = [datetime.strptime(n[:15], "%Y%m%dT%H%M%S") for n in optical]
        heard = sorted(re.fullmatch(pattern, n).group(1) for n in radar)
        gaps = np.diff(seen)
        assert all(50 <= gap.days <= 130 for gap in gaps)
        assert datetime(2019, 12, 1) < seen[0] < seen[-1] < datetime(2021, 10, 15)
        for one, other in zip(seen, heard, strict=True):
            assert abs(one - datetime.strptime(other, "%Y%m%dT%H%M%S")).days <= 30


def test_maps_hold_dynamic_world_codes_and_some_are_missing(world: Path):
    """Codes are 0..8 or 255; about a tenth of the seasons has no map; all nine classes occur."""
    maps = list(world.glob("dw/*/*.tif"))
    codes = [set(np.unique(read(p))) for p in maps]
    seasons = {f"{p.parent.name}/{p.name}" for p in scenes_of(world, "s2c")}

    assert {f"{p.parent.name}/{p.stem}" for p in maps} < seasons
    assert 0.03 < 1 - len(maps) / (4 * SCENES) < 0.2
    assert {int(c) for c in GroundCover} | {NO_COVER} == set().union(*codes)
    assert any(NO_COVER in c for c in codes)
    with rasterio.open(maps[0]) as file:
        assert ("uint8", NO_COVER) == (file.dtypes[0], file.nodata)


@pytest.mark.slow
def test_band_means_resemble_the_published_ones(world: Path):
    """Per band within 40 % of SSL4EO-S12, and the canaries of a true L1C product hold."""
    sums = {b: [] for b in BANDS}
    for folder in scenes_of(world, "s2c"):
        for band in BANDS:
            sums[band].append(read(folder / f"{band}.tif").mean())
    mean = {b: float(np.mean(v)) for b, v in sums.items()}
    published = dict(zip(BANDS, STATISTICS["ssl4eo-s12-l1c"].mean, strict=True))

    for band in set(BANDS) - {"B10"}:
        assert mean[band] == pytest.approx(published[band], rel=0.4), band
    assert 5 < mean["B10"] < 100
    assert mean["B10"] / mean["B8A"] < 0.05
    assert mean["B9"] / mean["B8A"] < 0.6
    assert 0.8 < mean["B8"] / mean["B8A"] < 1.1


def test_radar_is_decibel_with_fractions(world: Path):
    """VV is 3 to 12 dB above VH, near the published means, finite and never rounded."""
    bands = {p: [read(f / f"{p}.tif") for f in scenes_of(world, "s1")] for p in ("VV", "VH")}
    vv, vh = (float(np.mean(bands[p])) for p in ("VV", "VH"))

    assert 3 < vv - vh < 12
    assert vv == pytest.approx(-12.6, abs=3)
    assert vh == pytest.approx(-20.3, abs=3.5)
    assert all(np.isfinite(x).all() and x.min() > -40 for p in bands for x in bands[p])
    assert np.mean(bands["VV"][0] == np.rint(bands["VV"][0])) < 0.01


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_location_is_the_same_in_any_world(world: Path, tmp_path: Path, workers: int):
    """Bytes depend on seed and location alone: not on scenes, seasons or workers."""
    write_world(WorldConfig(str(tmp_path / "w"), scenes=3, size=SIZE, seasons=2, workers=workers))
    few, many = content(tmp_path / "w"), content(world)

    assert len({k.split("/")[1] for k in few}) == 3
    assert few == {k: many[k] for k in few}


def test_another_seed_is_another_world(world: Path, tmp_path: Path):
    """No file of seed 1 equals one of seed 0."""
    write_world(WorldConfig(str(tmp_path / "w"), scenes=1, seed=1, size=SIZE, workers=1))

    assert not set(content(tmp_path / "w").values()) & set(content(world).values())


def test_an_interrupted_world_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A crash in the second location keeps the first, leaves no half one, and a re-run ends it."""
    config = WorldConfig(str(tmp_path / "w"), scenes=3, size=SIZE, workers=1)
    true_write = files._write_season
    calls = []

    def crash(*args: object, **kwargs: bool) -> None:
        calls.append(args)
        if len(calls) > 6:
            raise OSError("disk full")
        true_write(*args, **kwargs)

    monkeypatch.setattr(files, "_write_season", crash)
    with pytest.raises(DataError, match=r"(?s)disk full.*finished locations are kept"):
        write_world(config)
    monkeypatch.undo()
    kept = content(tmp_path / "w")
    report = write_world(config)
    again = write_world(config)
    write_world(WorldConfig(str(tmp_path / "whole"), scenes=3, size=SIZE, workers=1))

    assert {"0000000"} == {k.split("/")[1] for k in kept if not k.startswith(".partial")}
    assert (2, 0) == (report.written, again.written)
    assert content(tmp_path / "w") == content(tmp_path / "whole")


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_location_moved_only_in_part_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
):
    """A crash between the moves of a location's three folders is made good by a re-run."""
    config = WorldConfig(str(tmp_path / "w"), scenes=1, size=SIZE, seasons=1, workers=1)
    true_replace = Path.replace
    calls = []

    def crash(path: Path, target: Path) -> Path:
        if target.parent.name in ("dw", "s1", "s2c"):
            calls.append(target)
            if len(calls) > moved:
                raise OSError("power cut")
        return true_replace(path, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(DataError, match="power cut"):
        write_world(config)
    monkeypatch.undo()
    report = write_world(config)
    write_world(WorldConfig(str(tmp_path / "whole"), scenes=1, size=SIZE, seasons=1, workers=1))

    assert 1 == report.written
    assert content(tmp_path / "whole") == content(tmp_path / "w")


def test_a_world_grows_and_says_that_it_is_synthetic(tmp_path: Path):
    """More scenes extend a world; its card names it synthetic and counts them."""
    write_world(WorldConfig(str(tmp_path), scenes=1, size=SIZE, seasons=1, workers=1))
    report = write_world(WorldConfig(str(tmp_path), scenes=2, size=SIZE, seasons=1, workers=1))
    card = json.loads((tmp_path / "world.json").read_text())

    assert (2, 1) == (report.scenes, report.written)
    assert (True, 2, 0) == (card["synthetic"], card["scenes"], card["seed"])
    assert "synthetic" in report.describe()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, "seed=0.*seed=1"),
        ({"size": 54}, "size=48.*size=54"),
        ({"seasons": 2}, "seasons=1.*seasons=2"),
        ({"scenes": 1}, "scenes=2.*scenes=1"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, changed: dict[str, int], words: str):
    """A folder holds one world: the message says which setting differs, and nothing is lost."""
    settings = {"scenes": 2, "size": SIZE, "seasons": 1, "workers": 1}
    write_world(WorldConfig(str(tmp_path), **settings))
    before = content(tmp_path)

    with pytest.raises(ConfigError, match=f"(?s){words}"):
        write_world(WorldConfig(str(tmp_path), **(settings | changed)))
    assert before == content(tmp_path)


def test_a_foreign_folder_is_refused(tmp_path: Path):
    """A folder with other things in it, a file, or a damaged card are named, not overwritten."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/holiday.jpg").touch()
    (tmp_path / "file").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/world.json").write_text('{"seed": ')

    for name, words in (
        ("folder", "holds no world"),
        ("file", "could not be written"),
        ("damaged", "cannot be read"),
    ):
        with pytest.raises(DataError, match=words):
            write_world(WorldConfig(str(tmp_path / name), scenes=1, workers=1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"out": " "}, "folder"),
        ({"scenes": 0}, "scenes"),
        ({"seasons": 5}, "seasons"),
        ({"seed": -1}, "seed"),
        ({"workers": 0}, "workers"),
        ({"size": 12}, "48 to 2640"),
        ({"size": 100}, "use 96 or 102"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], words: str):
    """Each bad number ends in a message that names it and says what would do."""
    with pytest.raises(ConfigError, match=words):
        WorldConfig(**({"out": "world"} | settings))


def test_torchgeo_reads_it_as_ssl4eo_s12(tmp_path: Path):
    """The reader of SSL4EO-S12 in torchgeo finds both modalities, their bands and dates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchgeo.datasets import SSL4EOS12
    write_world(WorldConfig(str(tmp_path), scenes=1, workers=1))

    optical = SSL4EOS12(str(tmp_path), split="s2c", seasons=1)[0]
    radar = SSL4EOS12(str(tmp_path), split="s1", seasons=4)[0]

    assert (13, 264, 264) == tuple(optical["image"].shape)
    assert (8, 264, 264) == tuple(radar["image"].shape)
    folder = next(
        f
        for f in scenes_of(tmp_path, "s2c")
        if np.array_equal(read(f / "B4.tif"), optical["image"][3].numpy())
    )
    b11 = np.kron(read(folder / "B11.tif"), np.ones((2, 2)))
    assert np.array_equal(b11, optical["image"][11].numpy())
    stamp = datetime.strptime(folder.name[:15] + "+0000", "%Y%m%dT%H%M%S%z").timestamp()
    assert optical["t"].item() == pytest.approx(stamp, abs=86_400)


def test_the_data_card_agrees_with_the_code():
    """Version, bands, size, seasons, classes and nodata of the card are those of the code."""
    text = (Path(__file__).parents[2] / "data_cards/embedded-world.md").read_text(encoding="utf-8")
    card = yaml.safe_load(text.split("---")[1])
    default = WorldConfig("anywhere")

    assert (True, files.VERSION) == (card["synthetic"], card["version"])
    assert (default.size, default.seasons, NO_COVER) == (
        card["size"],
        card["seasons"],
        card["nodata"],
    )
    for sensor, said in card["sensors"].items():
        assert SENSOR_BANDS[Sensor(sensor)] == tuple(said["bands"])
        assert Unit(said["unit"]) in UNITS[Sensor(sensor)]
    names = tuple(cover.name.lower().replace("_", " ") for cover in GroundCover)
    assert SCHEMES["dynamic-world"].names == tuple(card["classes"]) == names
