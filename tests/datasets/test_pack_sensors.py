"""Several sensors of the same places, packed by one command, and what a finished store is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ben_world
import numpy as np
import pytest

from eofm.cli import main
from eofm.datasets.bigearthnet import PackBigEarthNetConfig
from eofm.datasets.bigearthnet.patches import pack_bigearthnet
from eofm.datasets.check import CheckConfig
from eofm.datasets.check.run import check_data
from eofm.datasets.images.packing import SensorsReport
from eofm.datasets.ssl4eo import PackSsl4eoConfig
from eofm.datasets.ssl4eo.pack import pack_ssl4eo
from eofm.errors import ConfigError, RasterError, StoreError
from eofm.landcover.jobs import SceneOptions, find_scenes
from eofm.store.config import ShowConfig
from eofm.store.describe import PairsReport, show_store
from eofm.store.format import PAIRS, StoreCard
from eofm.store.packing import Item, pack_items
from eofm.store.paired import PairedStore
from eofm.store.reader import Store
from eofm.world.config import WorldConfig
from eofm.world.files import write_world

FIRST = ben_world.FIRST


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three places of the embedded world, both sensors."""
    out = tmp_path_factory.mktemp("world") / "scenes"
    write_world(WorldConfig(out=str(out), scenes=3, seed=1, size=48, workers=1))
    return out


@pytest.fixture
def both(world: Path, tmp_path: Path) -> Path:
    """A folder of two stores."""
    pack_ssl4eo(
        PackSsl4eoConfig(
            root=str(world),
            sensors="s2c,s1",
            out=str(tmp_path / "both"),
            landcover=str(world / "dw"),
            scheme="dynamic-world",
        )
    )
    return tmp_path / "both"


def test_scenes_of_two_sensors(both: Path, world: Path) -> None:
    """Every optical scene stands beside the radar scene of its place that is nearest in time."""
    pairs = PairedStore(both)
    optical, radar = pairs.stores["s2-l1c"], pairs.stores["s1-grd"]

    assert len(optical) == len(pairs)
    assert 0 < len(pairs.complete())
    for line, (here, there) in enumerate(
        zip(pairs.rows("s2-l1c"), pairs.rows("s1-grd"), strict=True)
    ):
        place, date = optical.locations[here], np.datetime64(optical.table["date"][here].as_py())
        gaps = {
            row: abs(np.datetime64(radar.table["date"][row].as_py()) - date)
            for row in np.flatnonzero(radar.locations == place)
        }
        near = {row: gap for row, gap in gaps.items() if gap <= np.timedelta64(30, "D")}
        assert (min(near, key=near.__getitem__) if near else -1) == there, line


def test_table_comes_last(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted at the second sensor there is no table; the same command finishes it."""
    config = PackSsl4eoConfig(root=str(world), sensors="s2c,s1", out=str(tmp_path / "both"))

    whole = pack_items

    def second_fails(items: list[Item], card: StoreCard, out: str, **options: Any) -> object:
        if out.endswith("s1-grd"):
            raise KeyboardInterrupt
        return whole(items, card, out, **options)

    with monkeypatch.context() as patch:
        patch.setattr("eofm.datasets.ssl4eo.pack.pack_items", second_fails)
        with pytest.raises(KeyboardInterrupt):
            pack_ssl4eo(config)
    assert not (tmp_path / "both" / PAIRS).exists()

    report = pack_ssl4eo(config)
    assert isinstance(report, SensorsReport)
    assert report.stores["s2-l1c"].store.already
    assert not report.stores["s1-grd"].store.already
    assert f"{report.complete} of them have s1-grd beside them" in report.describe()


def test_patches_of_both_sensors(tmp_path: Path) -> None:
    """Patches are joined by name, whatever the dates; one without radar has -1 there."""
    root = ben_world.first_version(tmp_path / "v1")
    shutil.rmtree(root / "BigEarthNet-S1-v1.0" / next(iter(FIRST.values()))[0])
    out = tmp_path / "both"
    pack_bigearthnet(
        PackBigEarthNetConfig(str(root), str(out), sensors="s2-l2a,s1-grd", excluded=True)
    )
    pairs = PairedStore(out)
    names = pairs.table["id"].to_pylist()

    assert 3 == len(pairs)
    assert sorted(FIRST) == names
    assert [name != next(iter(FIRST)) for name in names] == (pairs.rows("s1-grd") >= 0).tolist()


@pytest.mark.slow
def test_show_and_check(both: Path) -> None:
    """A folder of stores is drawn store by store, and checked with its table."""
    drawn = show_store(ShowConfig(str(both), samples=2))
    checked = check_data(CheckConfig(str(both)))

    assert isinstance(drawn, PairsReport)
    assert {both / "s1-grd/store.png", both / "s2-l1c/store.png"} == {s.file for s in drawn.sheets}
    assert all(sheet.file.is_file() for sheet in drawn.sheets)
    assert f"{len(PairedStore(both))} lines" in drawn.describe()
    assert "packed stores of 2 sensors" == checked.kind
    assert len(PairedStore(both)) == checked.counts[f"lines of {PAIRS}"]
    show_store(ShowConfig(str(both), str(both / "sheet.png"), samples=2))
    assert (both / "sheet-s1-grd.png").is_file()


def test_check_of_a_table_of_other_stores(both: Path, world: Path) -> None:
    """A store that was packed anew since, or is gone, is found."""
    shutil.rmtree(both / "s1-grd")
    assert 1 == check_data(CheckConfig(str(both))).status
    ids = both / "ids.csv"
    ids.write_text("0000000\n")
    pack_ssl4eo(
        PackSsl4eoConfig(root=str(world), sensor="s1-grd", ids=str(ids), out=str(both / "s1-grd"))
    )
    found = check_data(CheckConfig(str(both))).by_problem
    assert any("not the one whose rows" in problem for problem in found)


def test_one_store_is_asked_for(both: Path) -> None:
    """Tools for one store say which stores there are, rather than that there is none."""
    with pytest.raises(StoreError, match="several sensors") as caught:
        Store(both)
    assert "s1-grd, s2-l1c" == caught.value.found
    assert str(both / "s1-grd") in str(caught.value.remedy)


def test_several_sensors_into_a_store(world: Path, tmp_path: Path) -> None:
    """A folder that holds the store of one sensor is left alone."""
    one = PackSsl4eoConfig(root=str(world), sensor="s2-l1c", out=str(tmp_path / "one"))
    pack_ssl4eo(one)
    with pytest.raises(StoreError, match="a store of one sensor"):
        pack_ssl4eo(PackSsl4eoConfig(root=str(world), sensors="s1", out=str(tmp_path / "one")))


def test_a_sensor_that_is_not_there(world: Path, tmp_path: Path) -> None:
    """It is said before the first store is written, not hours later."""
    config = PackSsl4eoConfig(root=str(world), sensors="s2c,s2a", out=str(tmp_path / "both"))
    with pytest.raises(RasterError, match="no s2-l2a scenes"):
        pack_ssl4eo(config)
    assert not (tmp_path / "both").exists()


def test_out_is_a_file(world: Path, tmp_path: Path) -> None:
    """The remedy is another name: no room can be made."""
    (tmp_path / "file").write_text("")
    for out in ("file", "file/store"):
        with pytest.raises(StoreError, match="a file") as caught:
            pack_ssl4eo(PackSsl4eoConfig(root=str(world), sensor="s1-grd", out=str(tmp_path / out)))
        assert caught.value.where is not None


def test_labels_of_several_stores(both: Path, world: Path, tmp_path: Path) -> None:
    """`eofm labels --scenes` of a folder of stores asks for one of them."""
    words = ["labels", str(world / "dw"), "--scheme", "dynamic-world", "--scenes", str(both)]
    assert 1 == main([*words, "--out", str(tmp_path / "labels.parquet")])
    with pytest.raises(StoreError, match="several sensors"):
        find_scenes(both, SceneOptions())


@pytest.mark.parametrize(
    "said",
    [{}, {"sensor": "s1-grd", "sensors": "s1"}, {"sensors": "s1,s1-grd"}, {"sensors": "s3"}],
)
def test_sensors_that_cannot_be(said: dict[str, str]) -> None:
    """None, one and several at once, one twice, and unknown ones are refused."""
    with pytest.raises(ConfigError, match="sensor"):
        PackSsl4eoConfig(root="r", out="o", **said)


def test_verify_and_stats(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line: what was written is read again, and the statistics stand beside it."""
    words = ["pack", "ssl4eo", "--root", str(world), "--sensor", "s1-grd", "--verify", "--stats"]
    assert 0 == main([*words, "--out", str(tmp_path / "s1")])
    plain = json.loads((tmp_path / "s1/stats.json").read_text())

    assert "is sound" in capsys.readouterr().out
    assert [] == plain["split"]["where"]
    assert ["VV", "VH"] == plain["bands"]

    shard = tmp_path / "s1/shard-00000/10m.npy"
    raw = bytearray(shard.read_bytes())
    raw[400] ^= 1
    shard.write_bytes(raw)
    assert 1 == main([*words, "--out", str(tmp_path / "s1")])
    assert "changed since they were written" in capsys.readouterr().err


def test_statistics_are_of_the_training_split(tmp_path: Path) -> None:
    """Where the data set has a split, its training images alone are counted."""
    root = ben_world.first_version(tmp_path / "v1")
    out = tmp_path / "store"
    pack_bigearthnet(
        PackBigEarthNetConfig(str(root), str(out), excluded=True, stats=True, verify=True)
    )
    plain = json.loads((out / "stats.json").read_text())
    train = np.flatnonzero([split == "train" for split in Store(out).table["split"].to_pylist()])
    expected = Store(out).images(train).planes[10][:, 0].double().mean()

    assert ["split=train"] == plain["split"]["where"]
    assert "1 of 3 images" in plain["source"]
    assert float(expected) == pytest.approx(plain["mean"][plain["bands"].index("B02")])


@pytest.mark.slow
def test_real_pairs(real_data: Path, tmp_path: Path, tree: Callable[[Path], dict]) -> None:
    """The six published pairs stand line by line beside one another; workers change no byte."""
    for workers in (1, 2):
        pack_bigearthnet(
            PackBigEarthNetConfig(
                str(real_data / "bigearthnet_v1"),
                str(tmp_path / str(workers)),
                sensors="s2-l2a,s1-grd",
                excluded=True,
                workers=workers,
            )
        )
    pairs = PairedStore(tmp_path / "1")

    assert (6, 6) == (len(pairs), len(pairs.complete()))
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
