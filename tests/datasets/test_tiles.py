"""`eofm pack tiles`: a folder of GeoTIFFs and a land-cover map into a store."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import rasterio
import torch

from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit
from eofm.datasets.base import SensorName, UnitName
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import ConfigError, LabelError, PixelError, RasterError, StoreError
from eofm.store.format import JOURNAL
from eofm.store.reader import Store

L1C = SENSOR_BANDS[Sensor.S2_L1C]
SIZE, WINDOW, STRIDE = 48, 24, 12


def optical(seed: int, offset: int = 0) -> np.ndarray:
    """Make 13 bands of plausible digital numbers, B10 dark."""
    rng = np.random.default_rng(seed)
    means = np.where(np.array(L1C) == "B10", 15, 1500)[:, None, None]
    return (means * rng.uniform(0.5, 1.5, (13, SIZE, SIZE)) + offset).astype(np.uint16)


def land(seed: int) -> np.ndarray:
    """Make a TerraMesh class map: water in the west, crops in the east, clouds in a corner."""
    codes = np.full((SIZE, SIZE), 1, np.uint8)
    codes[:, SIZE // 2 + seed :] = 4
    codes[:12, :12] = 8
    return codes


@pytest.fixture
def config(tmp_path: Path, write_tif: Callable[..., Path]) -> PackTilesConfig:
    """Three images and their maps, each on a UTM grid of its own."""
    for k, name in enumerate(("a", "b", "c")):
        place = (500_000.0 + 10_000 * k, 5_400_000.0)
        write_tif(
            tmp_path / f"images/{name}.tif",
            optical(k),
            origin=place,
            tags={"datetime": f"2021-0{k + 1}-01T10:00:00"},
        )
        write_tif(tmp_path / f"maps/{name}.tif", land(k), origin=place)
    return PackTilesConfig(
        images=str(tmp_path / "images"),
        sensor="s2-l1c",
        unit="dn",
        out=str(tmp_path / "store"),
        landcover=str(tmp_path / "maps"),
        scheme="terramesh",
        window=WINDOW,
        stride=STRIDE,
    )


def test_rows_are_windows(config: PackTilesConfig) -> None:
    """Every row is the window its identifier says, with the labels counted in the same window."""
    report = pack_tiles(config)
    store = Store(config.out)
    store.verify()

    assert (3, 27, 0) == (report.images, report.windows, report.skipped)
    assert ["a_0_0", "a_0_12", "a_0_24", "a_12_0"] == store.ids[:4].tolist()
    assert ((WINDOW, WINDOW), Unit.DN, L1C) == (
        store.spec.size,
        store.spec.unit,
        store.spec.bands,
    )
    for i, line in enumerate(store.table.to_pylist()):
        name, row, col = line["id"].split("_")
        k, part = (
            "abc".index(name),
            np.s_[int(row) : int(row) + WINDOW, int(col) : int(col) + WINDOW],
        )
        assert np.array_equal(optical(k)[:, *part], store.images([i]).planes[10][0].numpy())
        codes = land(k)[part]
        valid = (codes != 8).sum()
        fractions = [(codes == code).sum() / valid for code in (1, 2, 3, 4, 5, 6, 7, 9)]
        np.testing.assert_allclose(store.fractions([i])[0].numpy(), fractions, rtol=1e-6)
        assert [float(f > 0) for f in fractions] == store.labels([i]).multi_hot[0].tolist()
        assert valid / codes.size == pytest.approx(line["valid_share"])
        assert (name, "", "dn") == (line["location"], line["season"], line["source_unit"])
        assert f"2021-0{k + 1}-01T10:00:00" == line["date"]
        # UTM zone 32 begins its columns at 9 degrees east with 500 km
        assert 9 < line["longitude"] < 9.3
        assert 48.7 < line["latitude"] < 48.8


def test_report(config: PackTilesConfig) -> None:
    """The report counts windows and, per class, the labelled ones in which it is present."""
    report = pack_tiles(config)
    windows = [
        land(k)[row : row + WINDOW, col : col + WINDOW]
        for k in range(3)
        for row in (0, 12, 24)
        for col in (0, 12, 24)
    ]

    assert 27 == report.labelled
    assert sum((w == 1).any() for w in windows) == report.classes["water"]
    assert sum((w == 4).any() for w in windows) == report.classes["crops"]
    assert 0 == report.classes["trees"]
    assert "3 images, 27 windows" in report.describe()
    assert "27 of 27 labelled" in str(report)


def test_again_does_nothing(config: PackTilesConfig, tree) -> None:
    """The same command on a complete store says so and changes no byte."""
    pack_tiles(config)
    before = tree(Path(config.out))
    report = pack_tiles(config)

    assert report.already
    assert "nothing was written" in report.describe()
    assert before == tree(Path(config.out))


def test_threshold_and_validity(config: PackTilesConfig) -> None:
    """A class below the threshold is not present; a clouded window is unlabelled."""
    pack_tiles(replace(config, threshold=0.3, min_valid=0.8))
    store = Store(config.out)
    labels = store.labels(range(len(store)))
    fractions, shares = (
        store.fractions(range(len(store))).numpy(),
        store.table["valid_share"].to_numpy(),
    )

    known = (shares >= 0.8) & (fractions.max(axis=1) >= 0.3)
    assert known.tolist() == labels.known.tolist()
    assert 0 < known.sum() < 27
    expected = (fractions >= np.float32(0.3)) & known[:, None]
    assert np.array_equal(expected.astype(np.float32), labels.multi_hot.numpy())


def test_unlabelled(config: PackTilesConfig) -> None:
    """Without a map there are images and no labels."""
    report = pack_tiles(replace(config, landcover=None, scheme=None))

    assert (27, 0, {}) == (report.windows, report.labelled, report.classes)
    assert "unlabelled" in report.describe()


def test_threads_change_no_byte(config: PackTilesConfig, tree, write_tif) -> None:
    """Read by several threads, in small pieces, the store is the same; so is where it stops."""
    codes = land(2)
    codes[40, 40] = 77
    place = (520_000.0, 5_400_000.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eofm.datasets.tiles.pack._CHUNK_BYTES", 1)
        pack_tiles(config)
        threaded = replace(config, out=config.out + "3", workers=3)
        write_tif(Path(config.landcover or "") / "c.tif", codes, origin=place)
        with pytest.raises(LabelError, match="26 windows are kept"):
            pack_tiles(threaded)
        write_tif(Path(config.landcover or "") / "c.tif", land(2), origin=place)
        pack_tiles(threaded)

    assert tree(Path(config.out)) == tree(Path(config.out + "3"))


def test_verified_with_statistics(config: PackTilesConfig) -> None:
    """A finished store is read again and its statistics are written, also when asked later."""
    pack_tiles(config)
    report = pack_tiles(replace(config, verify=True, stats=True))

    assert report.already
    assert "is sound: 27 images" in report.describe()
    assert "all places: 27 of 27 images" in report.describe()
    assert (Path(config.out) / "stats.json").is_file()


def test_bands_at_their_own_resolution(tmp_path: Path, write_bands) -> None:
    """One file per band goes into one group per resolution, windows cut alike."""
    sizes = {b: {"B02": 36, "B8A": 18, "B09": 6}[b] for b in ("B02", "B8A", "B09")}
    write_bands(tmp_path / "images/x", sizes)
    pack_tiles(
        PackTilesConfig(
            str(tmp_path / "images"),
            "s2-l2a",
            "dn",
            str(tmp_path / "store"),
            window=12,
            stride=6,
            bands=["B02", "B8A", "B09"],
        )
    )
    store = Store(tmp_path / "store")
    found = store.images([store.ids.tolist().index("x_12_18")])

    assert {10: ("B02",), 20: ("B8A",), 60: ("B09",)} == found.bands
    for gsd, band in ((10, "B02"), (20, "B8A"), (60, "B09")):
        with rasterio.open(tmp_path / f"images/x/{band}.tif") as dataset:
            whole = dataset.read(1)
        r = gsd // 10
        part = whole[12 // r : 24 // r, 18 // r : 30 // r]
        assert np.array_equal(part, found.planes[gsd][0, 0].numpy())


def test_colour_images(tmp_path: Path, write_tif) -> None:
    """Plain RGB is packed too, in the 8-bit values it has."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 20)).astype(np.uint8)
    write_tif(tmp_path / "images/a.tif", pixels)
    out = str(tmp_path / "store")
    pack_tiles(PackTilesConfig(str(tmp_path / "images"), "rgb", "uint8", out, window=20))
    found = Store(out).images([0])

    assert (Unit.UINT8, ("R", "G", "B")) == (found.spec.unit, found.spec.bands)
    assert np.array_equal(pixels, found.planes[10][0].numpy())


# -------------------------------------------------------------------------------- units


def test_unstated_offset_is_refused(config: PackTilesConfig, write_tif) -> None:
    """An image with the offset is named before anything is written, with what to type."""
    write_tif(Path(config.images) / "b's.tif", optical(1, 1000), origin=(510_000.0, 5_400_000.0))

    with pytest.raises(PixelError, match=r"baseline 04\.00") as caught:
        pack_tiles(config)

    assert "b's: median of B10 1015" == caught.value.found
    assert not Path(config.out).exists()
    words = shlex.split(str(caught.value.remedy).partition(": ")[2])
    assert ["--unit_of", '{"b\'s": "dn-offset1000"}'] == words  # the name has a quote of its own
    pack_tiles(replace(config, unit_of=json.loads(words[1])))


def test_unit_of_one_file(config: PackTilesConfig, write_tif, tree) -> None:
    """The offset, stated for one file, is subtracted: the store is that of the older product."""
    pack_tiles(replace(config, out=config.out + "0"))
    write_tif(Path(config.images) / "b.tif", optical(1, 1000), origin=(510_000.0, 5_400_000.0))
    pack_tiles(replace(config, unit_of={"b*": "dn-offset1000"}))

    one, other = Store(config.out + "0"), Store(config.out)
    assert torch.equal(
        one.images(range(27)).planes[10].int(), other.images(range(27)).planes[10].int()
    )
    assert {"dn-offset1000"} == set(other.table["source_unit"].to_pylist()[9:18])


def test_offset_of_every_file(config: PackTilesConfig) -> None:
    """If all images contradict the unit, the remedy is the unit, not a pattern per file."""
    with pytest.raises(PixelError, match=r"--unit dn$"):
        pack_tiles(replace(config, unit="dn-offset1000"))


def test_pattern_without_image(config: PackTilesConfig) -> None:
    """A misspelt pattern is an error, and names there are are shown."""
    with pytest.raises(ConfigError, match="fits no image") as caught:
        pack_tiles(replace(config, unit_of={"d*": "dn-offset1000"}))

    assert "names such as a, b, c" == caught.value.expected


def test_contradicting_patterns(config: PackTilesConfig) -> None:
    """Two patterns may not state two units of one image."""
    with pytest.raises(ConfigError, match="several units"):
        pack_tiles(replace(config, unit_of={"b*": "dn-offset1000", "*": "dn"}))


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "db"},
        {"unit_of": {"a": "uint8"}},
        {"scheme": None},
        {"landcover": None},
        {"threshold": 1.5},
        {"min_valid": -0.1},
        {"min_pixels": 2.0},
        {"window": 0},
        {"stride": 0},
    ],
)
def test_settings_that_cannot_be(config: PackTilesConfig, change: dict[str, object]) -> None:
    """Settings out of range, or that contradict one another, are refused when they are made."""
    with pytest.raises(ConfigError):
        replace(config, **change)


def test_settings_offer_every_choice() -> None:
    """The choices of sensor and unit are those of the contract."""
    assert {s.value for s in Sensor} == set(get_args(SensorName))
    assert {u.value for u in Unit} - {"model"} == set(get_args(UnitName))


# ------------------------------------------------------------------------------ windows


def test_windows_without_data_are_left_out(config: PackTilesConfig, write_tif) -> None:
    """Windows with too few valid pixels are skipped and counted; an empty image is no error."""
    pixels = optical(0)
    pixels[:, :, 20:] = 0
    write_tif(Path(config.images) / "a.tif", pixels)
    write_tif(Path(config.images) / "b.tif", pixels * 0, origin=(510_000.0, 5_400_000.0))
    report = pack_tiles(config)
    ids = Store(config.out).ids.tolist()

    assert ["a_0_0", "a_12_0", "a_24_0"] == ids[:3]
    assert (12, 15) == (report.windows, report.skipped)
    assert "15 left out" in report.describe()


def test_nothing_valid(config: PackTilesConfig, write_tif) -> None:
    """If no window is left there is an error and no store."""
    for k, name in enumerate("abc"):
        place = (500_000.0 + 10_000 * k, 5_400_000.0)
        write_tif(Path(config.images) / f"{name}.tif", optical(0) * 0, origin=place)

    with pytest.raises(PixelError, match="no window has enough"):
        pack_tiles(config)
    assert not Path(config.out).exists()


def test_window_larger_than_an_image(config: PackTilesConfig, write_tif) -> None:
    """The first image that is too small is named, before anything is written."""
    write_tif(Path(config.images) / "b.tif", optical(1)[:, :20])

    with pytest.raises(ConfigError, match="smaller than the window") as caught:
        pack_tiles(config)

    assert ("b", "20 x 48 pixels") == (caught.value.where, caught.value.found)
    assert not Path(config.out).exists()


def test_window_that_cuts_coarse_pixels(tmp_path: Path, write_bands) -> None:
    """With 60 m bands windows are multiples of 6 pixels, and the message offers one."""
    write_bands(tmp_path / "images/x", {"B02": 36, "B09": 6})
    settings = PackTilesConfig(
        str(tmp_path / "images"), "s2-l1c", "dn", "out", window=20, bands=["B02", "B09"]
    )

    with pytest.raises(ConfigError, match="--window 18 --stride 18"):
        pack_tiles(settings)


# ---------------------------------------------------------------------------- bad input


def test_truncated_among_many(config: PackTilesConfig, tree) -> None:
    """A truncated file is named; what was packed before stays; without it the rest goes on."""
    pack_tiles(replace(config, out=config.out + "0"))
    broken = Path(config.images) / "b.tif"
    whole = broken.read_bytes()
    _interrupt(config, after=12)  # rows of `a` and some of `b` are there
    broken.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(RasterError, match="cannot be read") as caught:
        pack_tiles(config)
    assert str(broken) == str(caught.value.where)
    with pytest.raises(StoreError, match="half written"):
        Store(config.out)

    broken.write_bytes(whole)
    pack_tiles(config)
    assert tree(Path(config.out + "0")) == tree(Path(config.out))


def _interrupt(config: PackTilesConfig, after: int) -> None:
    """Pack, and stop after some windows as Ctrl-C does."""
    patch = pytest.MonkeyPatch()
    count = 0

    def stop_after(iterable, description, total=None):
        nonlocal count
        for item in iterable:
            yield item
            count += description == "packing windows"
            if count >= after:
                raise KeyboardInterrupt

    patch.setattr("eofm.datasets.tiles.pack.track", stop_after)
    try:
        with pytest.raises(KeyboardInterrupt):
            pack_tiles(config)
    finally:
        patch.undo()


def test_stopped_before_the_end(config: PackTilesConfig, tree) -> None:
    """A run that was stopped when all windows were in finishes, to the same bytes."""
    pack_tiles(replace(config, out=config.out + "0"))
    _interrupt(config, after=27)
    pack_tiles(config)

    assert tree(Path(config.out + "0")) == tree(Path(config.out))


def test_uncommitted_image_may_go(config: PackTilesConfig) -> None:
    """An image of which nothing is packed yet may be removed between two runs."""
    _interrupt(config, after=9)  # all of `a`
    (Path(config.images) / "b.tif").unlink()
    report = pack_tiles(config)

    assert {"a", "c"} == set(Store(config.out).locations.tolist())
    assert (2, 18) == (report.images, report.windows)


def test_committed_image_may_not_go(config: PackTilesConfig) -> None:
    """An image of which windows are packed must stay, in its unit."""
    _interrupt(config, after=12)
    with pytest.raises(StoreError, match="b was in dn, now in dn-offset1000"):
        pack_tiles(replace(config, unit_of={"b": "dn-offset1000"}))
    (Path(config.images) / "b.tif").unlink()
    with pytest.raises(StoreError, match="b is gone"):
        pack_tiles(config)


def test_other_images_after_completion(config: PackTilesConfig) -> None:
    """A complete store is not silently short of images that came later."""
    pack_tiles(config)
    shutil.copy(Path(config.images) / "a.tif", Path(config.images) / "d.tif")

    with pytest.raises(StoreError, match="other images now"):
        pack_tiles(config)


def test_other_settings(config: PackTilesConfig) -> None:
    """An interrupted store is gone on with only under its own settings."""
    _interrupt(config, after=5)
    with pytest.raises(StoreError, match=r"settings.stride 24 instead of 12"):
        pack_tiles(replace(config, stride=24))
    with pytest.raises(StoreError, match=r"labels.threshold 0.5 instead of 0.0"):
        pack_tiles(replace(config, threshold=0.5))


def test_map_of_another_place(config: PackTilesConfig, write_tif) -> None:
    """A map that does not overlap is refused before anything is written, unless allowed."""
    write_tif(Path(config.landcover or "") / "b.tif", land(1), origin=(9e5, 5.4e6))
    with pytest.raises(LabelError, match="no land-cover map overlaps"):
        pack_tiles(config)
    assert not Path(config.out).exists()

    report = pack_tiles(replace(config, allow_unlabelled=True))
    assert (27, 18) == (report.windows, report.labelled)


def test_unknown_code(config: PackTilesConfig, write_tif) -> None:
    """A code the scheme does not know ends the run, naming window and code; a fix goes on."""
    codes = land(1)
    codes[40, 40] = 77
    path = Path(config.landcover or "") / "b.tif"
    write_tif(path, codes, origin=(510_000.0, 5_400_000.0))
    with pytest.raises(LabelError, match="17 windows are kept") as caught:
        pack_tiles(config)
    assert ("77 (1 pixel)", "b_24_24") == (caught.value.found, caught.value.where)

    write_tif(path, land(1), origin=(510_000.0, 5_400_000.0))
    assert 27 == pack_tiles(config).windows


def test_images_of_two_kinds(config: PackTilesConfig, write_tif) -> None:
    """An image at 20 m does not go into a store of 10 m."""
    write_tif(Path(config.images) / "b.tif", optical(1), origin=(510_000.0, 5_400_000.0), gsd=20.0)

    with pytest.raises(RasterError, match="differs from the first"):
        pack_tiles(replace(config, landcover=None, scheme=None))


_KILLED = """
import os, signal, sys
import eofm.store.writer as journal
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles

settings = PackTilesConfig(**eval(sys.argv[1]))
append, lines = journal.Journal.append, 0
for kill in (2, 7, 8):  # lines of this run; the process that forks stays alive
    child = os.fork()
    if not child:
        def last(self, line):
            global lines
            append(self, line)
            lines += 1
            if lines == kill:
                os.kill(os.getpid(), signal.SIGKILL)
        journal.Journal.append = last
        pack_tiles(settings)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_sigkill(config: PackTilesConfig, tree) -> None:
    """Killed three times by SIGKILL and finished, the store has the bytes of an undisturbed one."""
    pack_tiles(replace(config, out=config.out + "0"))
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, repr(vars(config))],
        capture_output=True,
        text=True,
        check=True,
    )
    journal = Path(config.out) / JOURNAL
    committed = journal.read_text().count('{"row"')
    pack_tiles(config)

    assert ["-9", "-9", "-9"] == run.stdout.split()
    assert 10 < committed < 20
    assert tree(Path(config.out + "0")) == tree(Path(config.out))


# --------------------------------------------------------------------------- real imagery


def real(root: Path, out: Path, **changes: object) -> PackTilesConfig:
    """State the TerraMesh sites as the README of the package does."""
    base = PackTilesConfig(
        images=str(root / "terramesh/S2L1C"),
        sensor="s2-l1c",
        unit="dn",
        out=str(out),
        landcover=str(root / "terramesh/LULC"),
        scheme="terramesh",
        window=112,
        stride=56,
    )
    return replace(base, **changes)


def test_real_offset_is_refused(real_data: Path, tmp_path: Path) -> None:
    """The one TerraMesh site of baseline 04.00 is found, and named in what to type."""
    with pytest.raises(PixelError, match=r'"609U_541L_3_0": "dn-offset1000"') as caught:
        pack_tiles(real(real_data, tmp_path / "store"))

    assert "609U_541L_3_0: median of B10 1071" == caught.value.found
    assert not (tmp_path / "store").exists()


def test_real_optical(real_data: Path, tmp_path: Path) -> None:
    """With the offset stated, B10 is dark at every site, and labels equal a count of the maps."""
    report = pack_tiles(real(real_data, tmp_path / "store", unit_of={"609U*": "dn-offset1000"}))
    store = Store(tmp_path / "store")
    b10 = store.images(range(27)).planes[10][:, L1C.index("B10")].float().mean(dim=(1, 2))

    assert (3, 27, 27) == (report.images, report.windows, report.labelled)
    assert b10.max() < 150
    for i, line in enumerate(store.table.to_pylist()):
        site, row, col = line["id"].rsplit("_", 2)
        with rasterio.open(real_data / f"terramesh/LULC/{site}.tif") as dataset:
            codes = dataset.read(1)[int(row) : int(row) + 112, int(col) : int(col) + 112]
        expected = [float((codes == code).any()) for code in (1, 2, 3, 4, 5, 6, 7, 9)]
        assert expected == store.labels([i]).multi_hot[0].tolist()


@pytest.mark.slow
def test_real_without_labels(real_data: Path, tmp_path: Path) -> None:
    """The twelve S2-100K patches, which have no map, become an unlabelled store; the two with the
    offset of baseline 04.00 are refused by name until it is stated as the message says.
    """
    config = PackTilesConfig(
        images=str(real_data / "s2_100k/images"),
        sensor="s2-l2a",
        unit="dn",
        out=str(tmp_path / "store"),
        window=256,
        workers=2,
        verify=True,
    )
    with pytest.raises(PixelError, match="seem to carry it") as caught:
        pack_tiles(config)
    assert caught.value.remedy is not None
    printed = caught.value.remedy.split("--unit_of ")[1].strip("'")
    report = pack_tiles(replace(config, unit_of=json.loads(printed)))
    store = Store(config.out)

    assert {"patch_252161", "patch_57755"} == set(json.loads(printed))
    assert (12, 12, 0, {}) == (report.images, report.windows, report.labelled, report.classes)
    assert ((), False) == (store.classes, bool(store.labels(range(12)).known.any()))
    assert SENSOR_BANDS[Sensor.S2_L2A] == store.spec.bands
    with rasterio.open(real_data / "s2_100k/images/patch_25630.tif") as dataset:
        row = store.ids.tolist().index("patch_25630_0_0")
        assert np.array_equal(dataset.read(4), store.images([row], ["B04"]).planes[10][0, 0])


@pytest.mark.slow
def test_real_radar(real_data: Path, tmp_path: Path) -> None:
    """Sentinel-1 of the same sites has the same labels, dates, and decibels with fractions."""
    pack_tiles(
        real(
            real_data,
            tmp_path / "s1",
            images=str(real_data / "terramesh/S1RTC"),
            sensor="s1-rtc",
            unit="db",
        )
    )
    pack_tiles(real(real_data, tmp_path / "s2", unit_of={"609U*": "dn-offset1000"}))
    s1, s2 = Store(tmp_path / "s1"), Store(tmp_path / "s2")
    pixels = s1.images(range(27)).planes[10]

    assert s1.ids.tolist() == s2.ids.tolist()
    assert torch.equal(s1.labels(range(27)).multi_hot, s2.labels(range(27)).multi_hot)
    assert "2023-06-10T16:04:18" == s1.table["date"][0].as_py()
    assert torch.float32 == pixels.dtype
    assert float((pixels != pixels.round()).float().mean()) > 0.9


def test_a_unit_that_the_files_say_is_packed(config: PackTilesConfig, tmp_path: Path) -> None:
    """Without a statement every image is in the unit of its scale; the store is the same."""
    pack_tiles(config)
    with pytest.raises(RasterError, match="states the unit"):
        pack_tiles(replace(config, unit=None, out=str(tmp_path / "none")))
    for file in (tmp_path / "images").glob("*.tif"):
        with rasterio.open(file, "r+") as target:
            count = target.count
            target.scales, target.offsets = (1e-4,) * count, (0.0,) * count
    pack_tiles(replace(config, unit=None, out=str(tmp_path / "said")))

    stated, said = Store(config.out), Store(str(tmp_path / "said"))
    assert stated.spec == said.spec
    assert stated.table.equals(said.table)
    assert "dn" == said.card.provenance["unit"]
