"""The layout of SSL4EO-S12: thirteen files per scene at three resolutions, seasons, maps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit, resolution_groups
from eofm.datasets.ssl4eo import PackSsl4eoConfig
from eofm.datasets.ssl4eo.folders import (
    list_scenes,
    nearest_season,
    pair_scenes,
    read_ids,
    season_date,
)
from eofm.datasets.ssl4eo.pack import pack_ssl4eo
from eofm.errors import ConfigError, LabelError, PixelError, RasterError, StoreError
from eofm.store.grids import known_grids
from eofm.store.parts import _PartWriter
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

L1C = SENSOR_BANDS[Sensor.S2_L1C]
SIZE = 24
SUMMER = "20210717T104259_20210717T104300_T31TFJ"
SPRING = "20210402T104021_20210402T104258_T31TFJ"
AUTUMN = "20201011T103031_20201011T103339_T31TFJ"
WINTER = "20211220T104341_20211220T104343_T31TFJ"
NAMES = {"B01": "B1", "B02": "B2", "B03": "B3", "B04": "B4", "B05": "B5", "B06": "B6"}
NAMES |= {"B07": "B7", "B08": "B8", "B09": "B9"}


def write(path: Path, values: np.ndarray, *, half_a_pixel: bool = True) -> None:
    """Write one band as the published files are: in degrees, shifted by half of its own pixel."""
    degrees = 2.2e-3 / len(values)
    shift = degrees / 2 if half_a_pixel else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=len(values),
        width=len(values),
        dtype=values.dtype,
        crs="+proj=latlong",
        transform=Affine(degrees, 0, 5.1 - shift, 0, -degrees, 44.3 + shift),
    ) as dataset:
        dataset.write(values, 1)


def optical(root: Path, place: str, season: str, folder: str = "s2c", offset: int = 0) -> None:
    """Write a scene of Sentinel-2: each band its own constant, with a gradient."""
    for k, band in enumerate(L1C if folder == "s2c" else SENSOR_BANDS[Sensor.S2_L2A]):
        side = SIZE * 10 // {10: 10, 20: 20, 60: 60}[next(iter(resolution_groups([band])))]
        base = 12 if band == "B10" else 700 + 100 * k
        values = base + np.add.outer(np.arange(side), np.arange(side)) + offset
        write(
            root / folder / place / season / f"{NAMES.get(band, band)}.tif", values.astype("uint16")
        )


def radar(root: Path, place: str, season: str) -> None:
    """Write a scene of Sentinel-1 in decibels."""
    for band, level in (("VV", -10.25), ("VH", -17.5)):
        values = np.full((SIZE, SIZE), level, np.float32)
        write(root / "s1" / place / season / f"{band}.tif", values)


def land(root: Path, place: str, season: str, code: int) -> None:
    """Write a Dynamic World map: one class, and water in the first column."""
    codes = np.full((SIZE, SIZE), code, np.uint8)
    codes[:, 0] = 0
    write(root / "dw" / place / f"{season}.tif", codes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two places: one with two seasons of which one has no map, one with a single season."""
    root = tmp_path / "world"
    for place, season in (("0000000", SUMMER), ("0000000", WINTER), ("0000007", SUMMER)):
        optical(root, place, season)
    radar(root, "0000000", "S1B_IW_GRDH_1SDV_20210710T055033_20210710T055058_027731_034F1E_7C2B")
    radar(root, "0000000", "S1A_IW_GRDH_1SDV_20211001T055108_20211001T055133_039920_04B985_0A9C")
    land(root, "0000000", SUMMER, 4)
    land(root, "0000007", SUMMER, 1)
    return root


def settings(root: Path, sensor: str = "s2-l1c", **changes: object) -> PackSsl4eoConfig:
    """State the folders."""
    base = PackSsl4eoConfig(
        root=str(root),
        sensor=sensor,
        out=str(root.parent / sensor),
        landcover=str(root / "dw"),
        scheme="dynamic-world",
    )
    return replace(base, **changes)


# ------------------------------------------------------------------------------ seasons


@pytest.mark.parametrize(
    ("season", "date"),
    [
        (SUMMER, datetime(2021, 7, 17, 10, 42, 59)),
        (
            "S1A_IW_GRDH_1SDV_20210115T054321_20210115T054346_036146_043D0A_5B1C",
            datetime(2021, 1, 15, 5, 43, 21),
        ),
        ("20211340T104259_T31TFJ", None),
        ("spring", None),
    ],
)
def test_date_of_a_season(season: str, date: datetime | None) -> None:
    """The date is the first time in the product's name: when sensing began."""
    assert date == season_date(season)


def test_nearest_season() -> None:
    """Seasons are paired by time, never by their rank in a listing, and not over a gap."""
    seasons = [WINTER, "no date", SUMMER]

    assert SUMMER == nearest_season(datetime(2021, 8, 1), seasons, 30)
    assert WINTER == nearest_season(datetime(2022, 1, 10), seasons, 30)
    assert nearest_season(datetime(2021, 10, 1), seasons, 30) is None
    assert SUMMER == nearest_season(datetime(2021, 10, 1), seasons, 100)
    assert nearest_season(datetime(2021, 10, 1), [], 30) is None


def test_scenes_are_listed(root: Path) -> None:
    """Scenes come ordered by place, with their season and bands by name."""
    scenes = list_scenes(root, Sensor.S2_L1C)

    assert [("0000000", SUMMER), ("0000000", WINTER), ("0000007", SUMMER)] == [
        (scene.location, scene.season) for scene in scenes
    ]
    assert L1C == scenes[0].source().bands


# ------------------------------------------------------------------------------ packing


def test_optical_scenes(root: Path) -> None:
    """Planes are stored as they are, at native resolution; half a pixel aside is no error."""
    report = pack_ssl4eo(settings(root))
    store = Store(root.parent / "s2-l1c")
    found = store.images([0])

    assert (3, 3, 2) == (report.store.images, report.store.windows, report.store.labelled)
    assert ((SIZE, SIZE), 10.0, Unit.DN) == (store.spec.size, store.spec.gsd, store.spec.unit)
    assert resolution_groups(L1C) == found.bands
    assert {10: 24, 20: 12, 60: 4} == {gsd: p.shape[-1] for gsd, p in found.planes.items()}
    folder = root / "s2c/0000000" / SUMMER
    for gsd, bands in found.bands.items():
        for k, band in enumerate(bands):
            with rasterio.open(folder / f"{NAMES.get(band, band)}.tif") as dataset:
                assert np.array_equal(dataset.read(1), found.planes[gsd][0, k].numpy())


def test_index(root: Path) -> None:
    """The index knows place, season, date and position of every scene."""
    pack_ssl4eo(settings(root))
    lines = Store(root.parent / "s2-l1c").table.to_pylist()

    assert ["0000000", "0000000", "0000007"] == [line["location"] for line in lines]
    assert [SUMMER, WINTER, SUMMER] == [line["season"] for line in lines]
    assert "2021-07-17T10:42:59" == lines[0]["date"]
    assert f"0000000/{WINTER}" == lines[1]["id"]
    assert abs(lines[0]["longitude"] - 5.1011) < 1e-4
    assert abs(lines[0]["latitude"] - 44.2989) < 1e-4


def test_labels(root: Path) -> None:
    """A season has the labels of its own map; without one it is unlabelled, not empty."""
    pack_ssl4eo(settings(root))
    store = Store(root.parent / "s2-l1c")
    labels = store.labels(range(3))

    assert [True, False, True] == labels.known.tolist()
    assert {"water", "crops"} == {
        name for name, flag in zip(store.classes, labels.multi_hot[0], strict=True) if flag
    }
    assert 0.0 == labels.multi_hot[1].sum()
    assert 23 / 24 == pytest.approx(float(store.fractions([2])[0, 1]))


def test_labels_are_of_seen_ground(root: Path) -> None:
    """Water under a margin that the scene does not measure is in nobody's label."""
    for file in (root / "s2c/0000007" / SUMMER).glob("*.tif"):
        with rasterio.open(file, "r+") as dataset:
            pixels = dataset.read(1)
            pixels[:, : len(pixels) // 4] = 0
            dataset.write(pixels, 1)
    pack_ssl4eo(settings(root))

    store = Store(root.parent / "s2-l1c")
    row = store.ids.tolist().index(f"0000007/{SUMMER}")
    assert [1.0] == [share for share in store.fractions([row])[0].tolist() if share]
    assert 1.0 == store.fractions([row])[0, 1]
    assert 1.0 == store.table["valid_share"].to_pylist()[row]


def test_scenes_keep_their_grids(root: Path) -> None:
    """CRS and transform of the index are those of the finest band, and labels use them."""
    pack_ssl4eo(settings(root))
    store = Store(root.parent / "s2-l1c")

    for name, grid in zip(store.ids, known_grids(store), strict=True):
        with rasterio.open(root / "s2c" / name / "B2.tif") as dataset:
            assert (dataset.crs, dataset.transform) == (grid.crs, grid.transform)
            assert dataset.shape == (grid.height, grid.width)


def test_a_scheme_of_ones_own(root: Path) -> None:
    """Maps are read by the codes of a YAML file; another file of that name is another store."""
    file = root / "my.yaml"
    file.write_text("name: mine\nclasses: {4: wood, 1: wood, 0: sea}\nnodata: [255]\n")
    pack_ssl4eo(settings(root, scheme=str(file)))

    store = Store(root.parent / "s2-l1c")
    assert ("mine", ("wood", "sea")) == (store.scheme, store.classes)
    assert [23 / 24, 1 / 24] == pytest.approx(store.fractions([0])[0].tolist())
    file.write_text("name: mine\nclasses: {4: wood, 1: field, 0: sea}\nnodata: [255]\n")
    with pytest.raises(StoreError, match="other settings"):
        pack_ssl4eo(settings(root, scheme=str(file)))


def test_a_map_of_another_place(root: Path) -> None:
    """A scene's own map that does not overlap it is refused by name."""
    file = root / "dw/0000007" / f"{SUMMER}.tif"
    with rasterio.open(file, "r+") as dataset:
        dataset.transform = Affine(1e-4, 0, 50, 0, -1e-4, 10)

    with pytest.raises(LabelError, match="does not overlap it") as caught:
        pack_ssl4eo(settings(root))
    assert str(file) in str(caught.value.where)

    file.unlink()  # as the remedy says: the scene is unlabelled
    pack_ssl4eo(settings(root))
    store = Store(root.parent / "s2-l1c")
    known = dict(zip(store.ids.tolist(), store.labels(range(3)).known.tolist(), strict=True))
    assert {f"0000000/{SUMMER}": True, f"0000000/{WINTER}": False, f"0000007/{SUMMER}": False} == (
        known
    )


def test_radar_takes_the_nearest_map(root: Path) -> None:
    """A Sentinel-1 scene has the labels of the season a week away; 77 days are too far."""
    report = pack_ssl4eo(settings(root, "s1-grd"))
    store = Store(root.parent / "s1-grd")
    dates = store.table["date"].to_pylist()
    known = dict(zip(dates, store.labels(range(2)).known.tolist(), strict=True))

    assert {"2021-07-10T05:50:33": True, "2021-10-01T05:51:08": False} == known
    assert torch.float32 == store.images([0]).planes[10].dtype
    assert -10.25 == store.images([0]).planes[10][0, 0, 0, 0]
    assert 1 == report.store.labelled


def test_wider_gap(root: Path) -> None:
    """With a wider gap the autumn scene is labelled by the summer's map."""
    assert 2 == pack_ssl4eo(settings(root, "s1-grd", max_gap_days=90)).store.labelled


def test_without_maps(root: Path) -> None:
    """No maps, no labels, no classes."""
    report = pack_ssl4eo(settings(root, landcover=None, scheme=None))

    assert (3, 0, {}) == (report.store.windows, report.store.labelled, report.store.classes)


def test_level_2a(root: Path) -> None:
    """L2A scenes have twelve bands and no B10."""
    optical(root, "0000000", SUMMER, "s2a")
    pack_ssl4eo(settings(root, "s2-l2a"))

    assert SENSOR_BANDS[Sensor.S2_L2A] == Store(root.parent / "s2-l2a").spec.bands


def test_void_scene_is_left_out(root: Path) -> None:
    """A scene of zeros holds no measurement: it is counted, not packed."""
    folder = root / "s2c/0000000" / WINTER
    for file in folder.glob("*.tif"):
        with rasterio.open(file, "r+") as dataset:
            dataset.write(dataset.read() * 0)
    report = pack_ssl4eo(settings(root))

    assert (3, 2, 1) == (report.store.images, report.store.windows, report.store.skipped)


def four_seasons(root: Path) -> PackSsl4eoConfig:
    """Make the two places whole, and require them to be."""
    for place in ("0000000", "0000007"):
        for season in (SUMMER, WINTER, SPRING, AUTUMN):
            optical(root, place, season)
    return settings(root, require="all")


def test_again_and_resumed(root: Path, tree: Callable[[Path], dict[str, bytes]]) -> None:
    """Where all are required, a damaged scene stops the run; repaired, it ends the same."""
    config = four_seasons(root)
    pack_ssl4eo(replace(config, out=str(root.parent / "whole")))
    file = root / "s2c/0000007" / SUMMER / "B11.tif"
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    with pytest.raises(RasterError, match="cannot be read") as caught:
        pack_ssl4eo(config)
    assert str(file) == str(caught.value.where)

    file.write_bytes(data)
    assert not pack_ssl4eo(config).store.already
    assert pack_ssl4eo(config).store.already
    assert tree(root.parent / "whole") == tree(root.parent / "s2-l1c")


def test_stopped_before_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped when all scenes were in has nothing to read, and finishes."""
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            pack_ssl4eo(settings(root))

    assert 3 == pack_ssl4eo(settings(root)).store.windows


def _interrupt(_: StoreWriter) -> None:
    raise KeyboardInterrupt


# ---------------------------------------------------------------------------- bad input


def _without_band(root: Path) -> None:
    (root / "s2c/0000007" / SUMMER / "B8A.tif").unlink()


def _half_copied(root: Path) -> None:
    file = root / "s2c/0000007" / SUMMER / "B11.tif"
    file.write_bytes(file.read_bytes()[:-100])


def _other_ground(root: Path) -> None:
    path = root / "s2c/0000007" / SUMMER / "B5.tif"
    write(path, np.full((SIZE // 2, SIZE // 2), 1000, np.uint16))
    with rasterio.open(path, "r+") as dataset:
        t = dataset.transform
        dataset.transform = Affine(t.a, 0, t.c - t.a, 0, t.e, t.f)


def _other_size(root: Path) -> None:
    shutil.rmtree(root / "s2c/0000007")
    for k, band in enumerate(L1C):
        side = 12 * 10 // next(iter(resolution_groups([band])))
        values = np.full((side, side), 12 if band == "B10" else 1000 + k, np.uint16)
        write(root / "s2c/0000007" / SUMMER / f"{NAMES.get(band, band)}.tif", values)


def _without_crs(root: Path) -> None:
    for file in (root / "s2c/0000007" / SUMMER).glob("*.tif"):
        with rasterio.open(file) as dataset:
            values = dataset.read()
        with rasterio.open(
            file,
            "w",
            driver="GTiff",
            count=1,
            height=values.shape[1],
            width=values.shape[2],
            dtype=values.dtype,
            transform=Affine(2.2e-3 / len(values[0]), 0, 5, 0, -2.2e-3 / len(values[0]), 44),
        ) as dataset:
            dataset.write(values)


BROKEN = {
    "lacks band B8A": _without_band,
    "cannot be read": _half_copied,
    "a different area": _other_ground,
    "another size": _other_size,
    "no georeference": _without_crs,
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("problem", BROKEN)
def test_broken_scene_is_quarantined(root: Path, problem: str) -> None:
    """A scene that cannot be read is written down with its reason; the others are packed."""
    BROKEN[problem](root)
    report = pack_ssl4eo(settings(root))
    again = pack_ssl4eo(settings(root))
    store = Store(root.parent / "s2-l1c")

    assert [f"0000007/{SUMMER}"] == list(report.store.quarantined)
    assert problem in report.store.quarantined[f"0000007/{SUMMER}"]
    assert (2, 0) == (len(store), report.store.skipped)
    assert "repair those images" in report.describe()
    assert again.store.already
    assert report.store.quarantined == again.store.quarantined
    store.verify()


def test_broken_first_scene(root: Path) -> None:
    """A scene that is broken before the first row is written is noted all the same."""
    (root / "s2c/0000000" / SUMMER / "B8A.tif").unlink()

    assert [f"0000000/{SUMMER}"] == list(pack_ssl4eo(settings(root)).store.quarantined)


def test_nothing_but_broken_scenes(root: Path) -> None:
    """Where no scene can be read there is an error, and no store."""
    for file in root.glob("s2c/*/*/B2.tif"):
        file.unlink()

    with pytest.raises(RasterError, match="lacks band B02"):
        pack_ssl4eo(settings(root))
    assert not (root.parent / "s2-l1c").exists()


def test_killed_with_a_broken_scene(
    root: Path, tree: Callable[[Path], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies after every row, with a broken scene among them, ends in the same bytes."""
    config = replace(four_seasons(root), require="readable")
    (root / "s2c/0000000" / SPRING / "B8A.tif").unlink()
    whole = pack_ssl4eo(replace(config, out=str(root.parent / "whole")))

    append = _PartWriter.append
    for _ in range(10):
        left = [1]

        def dying(self: StoreWriter, *args: object, left: list[int] = left) -> None:
            if not left:
                raise KeyboardInterrupt
            left.pop()
            append(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(_PartWriter, "append", dying)
            try:
                report = pack_ssl4eo(config)
                break
            except KeyboardInterrupt:
                continue

    assert (8, 7) == (report.store.images, report.store.windows)
    assert whole.store.quarantined == report.store.quarantined
    assert tree(root.parent / "whole") == tree(root.parent / "s2-l1c")


# ----------------------------------------------------------------------------- choosing


def test_void_places_and_lists(root: Path, tmp_path: Path) -> None:
    """Void places are left out, listed ones alone are packed, and what is not there is counted."""
    (root / "void_ids.csv").write_text("5\n7\n")
    (tmp_path / "ids.csv").write_text("0\n5\n0000007\n9\n0\n")
    report = pack_ssl4eo(settings(root, ids=str(tmp_path / "ids.csv")))

    assert {"0000000"} == set(Store(root.parent / "s2-l1c").locations)
    assert "1 of 4 listed places are not there: 0000009" in report.notes
    assert "1 scenes of places that are listed as void, left out" in report.notes
    assert any("1 of 1 places have fewer than 4 seasons" in note for note in report.notes)


@pytest.mark.parametrize("text", ["", "7\nplace\n", "123456789\n"])
def test_list_that_is_none(tmp_path: Path, text: str) -> None:
    """A list of places holds numbers of at most seven digits, and at least one."""
    (tmp_path / "ids.csv").write_text(text)

    with pytest.raises(RasterError, match="no list of places"):
        read_ids(tmp_path / "ids.csv")


def test_all_required(root: Path) -> None:
    """With --require all, a place of fewer than four seasons is an error that names it."""
    with pytest.raises(RasterError, match="all are required") as caught:
        pack_ssl4eo(settings(root, require="all"))

    assert "fewer than 4 seasons: 0000000" in str(caught.value.found)


def test_newer_version(tmp_path: Path) -> None:
    """The Zarr archives of version 1.1 are recognised, and not taken for an empty folder."""
    (tmp_path / "S2L1C").mkdir()

    with pytest.raises(RasterError, match=r"v1\.1, which eofm does not read"):
        list_scenes(tmp_path, Sensor.S2_L1C)


def test_pairs_of_scenes(root: Path) -> None:
    """Sentinel-1 is paired by time: the names sort the other way round, A before B."""
    for season in (SUMMER, AUTUMN):
        optical(root, "0000000", season)
    radar(root, "0000000", "S1A_IW_GRDH_1SDV_20201001T055108_20201001T055133_039920_04B985_0A9C")
    pairs = pair_scenes(list_scenes(root, Sensor.S1_GRD), list_scenes(root, Sensor.S2_L1C))

    found = {name[25:33]: pair and pair.season for name, pair in pairs.items()}
    assert {"20210710": SUMMER, "20201001": AUTUMN, "20211001": None} == found


def test_offset_in_this_layout(root: Path) -> None:
    """Newer downloads in the same layout carry the offset, which SSL4EO-S12 does not: refused."""
    optical(root, "0000000", SUMMER, offset=1000)

    with pytest.raises(PixelError, match="seem to carry it"):
        pack_ssl4eo(settings(root))


@pytest.mark.parametrize("folder", ["nowhere", "s2c"])
def test_no_scenes(root: Path, folder: str) -> None:
    """A folder without the layout says what is expected."""
    with pytest.raises(RasterError, match="layout of SSL4EO-S12"):
        pack_ssl4eo(settings(root / folder))


def test_maps_elsewhere(root: Path) -> None:
    """A wrong folder of maps is an error, not an unlabelled store."""
    with pytest.raises(LabelError, match="no scene has a land-cover map") as caught:
        pack_ssl4eo(settings(root, landcover=str(root / "s2c")))

    assert f"maps such as 0000000/{SUMMER}.tif" == caught.value.expected


def test_radar_without_a_date(root: Path) -> None:
    """A Sentinel-1 scene whose name holds no time cannot be paired."""
    radar(root, "0000000", "spring")

    with pytest.raises(LabelError, match="holds none"):
        pack_ssl4eo(settings(root, "s1-grd"))


def test_scenes_that_are_gone(root: Path) -> None:
    """A complete store notices that its scenes are not what they were."""
    pack_ssl4eo(settings(root))
    shutil.rmtree(root / "s2c/0000000" / WINTER)

    with pytest.raises(StoreError, match="other settings"):
        pack_ssl4eo(settings(root))


@pytest.mark.parametrize("change", [{"scheme": None}, {"max_gap_days": -1}, {"threshold": 2}])
def test_settings_that_cannot_be(root: Path, change: dict[str, object]) -> None:
    """Settings out of range are refused when they are made."""
    with pytest.raises(ConfigError):
        settings(root, **change)
