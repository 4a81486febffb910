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

from eofm.data.config import PackSsl4eoConfig
from eofm.data.pack import Store
from eofm.data.pack_writer import StoreWriter
from eofm.data.ssl4eo import list_scenes, nearest_season, pack_ssl4eo, season_date
from eofm.errors import ConfigError, LabelError, PixelError, RasterError, StoreError
from eofm.sensors import SENSOR_BANDS, resolution_groups
from eofm.spec import Sensor, Unit

L1C = SENSOR_BANDS[Sensor.S2_L1C]
SIZE = 24
SUMMER = "20210717T104259_20210717T104300_T31TFJ"
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
        base = 12 if band == "B10" else 1000 + 100 * k
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

    assert (3, 3, 2) == (report.images, report.windows, report.labelled)
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


def test_radar_takes_the_nearest_map(root: Path) -> None:
    """A Sentinel-1 scene has the labels of the season a week away; 77 days are too far."""
    report = pack_ssl4eo(settings(root, "s1-grd"))
    store = Store(root.parent / "s1-grd")
    dates = store.table["date"].to_pylist()
    known = dict(zip(dates, store.labels(range(2)).known.tolist(), strict=True))

    assert {"2021-07-10T05:50:33": True, "2021-10-01T05:51:08": False} == known
    assert torch.float32 == store.images([0]).planes[10].dtype
    assert -10.25 == store.images([0]).planes[10][0, 0, 0, 0]
    assert 1 == report.labelled


def test_wider_gap(root: Path) -> None:
    """With a wider gap the autumn scene is labelled by the summer's map."""
    assert 2 == pack_ssl4eo(settings(root, "s1-grd", max_gap_days=90)).labelled


def test_without_maps(root: Path) -> None:
    """No maps, no labels, no classes."""
    report = pack_ssl4eo(settings(root, landcover=None, scheme=None))

    assert (3, 0, {}) == (report.windows, report.labelled, report.classes)


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

    assert (3, 2, 1) == (report.images, report.windows, report.skipped)


def test_again_and_resumed(root: Path, tree: Callable[[Path], dict[str, bytes]]) -> None:
    """A run stopped by a damaged scene goes on when it is repaired, to the same bytes."""
    pack_ssl4eo(settings(root, out=str(root.parent / "whole")))
    file = root / "s2c/0000007" / SUMMER / "B11.tif"
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    with pytest.raises(RasterError, match="cannot be read") as caught:
        pack_ssl4eo(settings(root))
    assert str(file) == str(caught.value.where)

    file.write_bytes(data)
    assert not pack_ssl4eo(settings(root)).already
    assert pack_ssl4eo(settings(root)).already
    assert tree(root.parent / "whole") == tree(root.parent / "s2-l1c")


def test_stopped_before_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped when all scenes were in has nothing to read, and finishes."""
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            pack_ssl4eo(settings(root))

    assert 3 == pack_ssl4eo(settings(root)).windows


def _interrupt(_: StoreWriter) -> None:
    raise KeyboardInterrupt


# ---------------------------------------------------------------------------- bad input


def test_missing_band(root: Path) -> None:
    """A scene without one of its thirteen files is named."""
    (root / "s2c/0000007" / SUMMER / "B8A.tif").unlink()

    with pytest.raises(RasterError, match="lacks band B8A") as caught:
        pack_ssl4eo(settings(root))

    assert root / "s2c/0000007" / SUMMER == caught.value.where


def test_other_ground(root: Path) -> None:
    """A band a whole pixel aside is not the half pixel of the published files."""
    values = np.full((SIZE // 2, SIZE // 2), 1000, np.uint16)
    path = root / "s2c/0000000" / SUMMER / "B5.tif"
    write(path, values)
    with rasterio.open(path, "r+") as dataset:
        t = dataset.transform
        dataset.transform = Affine(t.a, 0, t.c - t.a, 0, t.e, t.f)

    with pytest.raises(RasterError, match="other ground"):
        pack_ssl4eo(settings(root))


def test_other_size(root: Path) -> None:
    """Scenes of two sizes do not share a store."""
    shutil.rmtree(root / "s2c/0000007")
    for k, band in enumerate(L1C):
        side = 12 * 10 // next(iter(resolution_groups([band])))
        values = np.full((side, side), 12 if band == "B10" else 1000 + k, np.uint16)
        write(root / "s2c/0000007" / SUMMER / f"{NAMES.get(band, band)}.tif", values)

    with pytest.raises(RasterError, match="another size"):
        pack_ssl4eo(settings(root))


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

    with pytest.raises(LabelError, match="holds no time"):
        pack_ssl4eo(settings(root, "s1-grd"))


def test_scenes_that_are_gone(root: Path) -> None:
    """A complete store notices that its scenes are not what they were."""
    pack_ssl4eo(settings(root))
    shutil.rmtree(root / "s2c/0000000" / WINTER)

    with pytest.raises(StoreError, match="is gone"):
        pack_ssl4eo(settings(root))


@pytest.mark.parametrize("change", [{"scheme": None}, {"max_gap_days": -1}, {"threshold": 2}])
def test_settings_that_cannot_be(root: Path, change: dict[str, object]) -> None:
    """Settings out of range are refused when they are made."""
    with pytest.raises(ConfigError):
        settings(root, **change)
