"""Stores of eofm 0.1: read as they were, and brought to the present version by one command."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from old_stores import PLACES, WINDOW, read_back, write_images
from rasterio.crs import CRS

from eofm.cli import main
from eofm.errors import ConfigError, StoreError
from eofm.raster.grid import Window
from eofm.store.config import MergeConfig, RelabelConfig, SubsetConfig, UpgradeConfig
from eofm.store.edit import merge_stores, subset_store
from eofm.store.format import VERSION
from eofm.store.grids import known_grids, upgrade_store
from eofm.store.paired import PairedStore
from eofm.store.reader import Store

OLD = Path(__file__).parents[1] / "stores_0_1"
KINDS = ("tiles", "radar", "both/s2-l2a", "both/s1-rtc")
EXPECTED = json.loads((OLD / "expected.json").read_text())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The images that the old stores were packed from."""
    write_images(tmp_path / "images")
    return tmp_path / "images"


def upgraded(name: str, images: Path | None, out: Path) -> Store:
    """Upgrade an old store into a new folder."""
    folder = None if images is None else str(images)
    upgrade_store(UpgradeConfig(str(OLD / name), folder, str(out)))
    return Store(out)


@pytest.mark.parametrize("kind", KINDS)
def test_read_as_before(kind: str) -> None:
    """Identifiers, places, dates, pixels, masks and labels are those that 0.1 itself read."""
    store = Store(OLD / kind)

    assert EXPECTED[kind] == read_back(store)
    assert 2 == store.card.version
    assert [None] * len(store) == known_grids(store)
    assert {""} == set(store.table["crs"].to_pylist())


def test_paired_stores_are_read_as_before() -> None:
    """The table of rows of 0.1 fits its stores."""
    both = PairedStore(OLD / "both")

    assert 12 == len(both.complete())
    images = both.images(both.complete()[:2])
    assert {"s1-rtc": (1, 2), "s2-l2a": (1, 2)} == {
        name: (len(native.planes), len(native.valid)) for name, native in images.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_upgraded_from_the_images(kind: str, images: Path, tmp_path: Path) -> None:
    """Every row gets the grid of its window in its image; all else is read as before."""
    folder = images / ("radar" if kind.endswith(("radar", "rtc")) else "optical")

    store = upgraded(kind, folder, tmp_path / "new")

    assert EXPECTED[kind] == read_back(store)
    assert VERSION == store.card.version
    for name, source, grid in zip(
        store.ids, store.table["source"].to_pylist(), known_grids(store), strict=True
    ):
        row, col = map(int, name.rsplit("_", 2)[1:])
        crs, transform = PLACES[source]
        expected = rasterio.transform.AffineTransformer(transform).xy(row, col, offset="ul")
        assert CRS.from_user_input(crs) == grid.crs
        assert expected == pytest.approx((grid.transform.c, grid.transform.f), abs=1e-9)
        assert (transform.a, transform.e) == (grid.transform.a, grid.transform.e)
        assert (WINDOW, WINDOW) == (grid.height, grid.width)
    assert (OLD / kind / "shard-00000/10m.npy").read_bytes() == store.piece(0, "10m").read_bytes()


def test_upgraded_without_images(tmp_path: Path) -> None:
    """Where the images are gone, what is known is written, and the report says what is not."""
    report = upgrade_store(UpgradeConfig(str(OLD / "tiles"), None, str(tmp_path / "new")))

    store = Store(tmp_path / "new")
    assert EXPECTED["tiles"] == read_back(store)
    assert VERSION == store.card.version
    assert [None] * 12 == known_grids(store)
    assert "0 of 12 images" in report.describe()
    assert "3 images that were packed were not found by name: a, b, c" in report.describe()


def test_upgraded_in_part_and_again(images: Path, tmp_path: Path) -> None:
    """A missing image leaves its rows unknown; a later call with all images fills them in."""
    (images / "optical/b.tif").rename(tmp_path / "b.tif")
    first = upgraded("tiles", images / "optical", tmp_path / "new")
    assert [g is None for g in known_grids(first)] == [n.startswith("b") for n in first.ids]

    (tmp_path / "b.tif").rename(images / "optical/b.tif")
    report = upgrade_store(
        UpgradeConfig(str(tmp_path / "new"), str(images / "optical"), in_place=True)
    )

    assert (12, 12) == (report.rows, report.known)
    assert None not in known_grids(Store(tmp_path / "new"))


def test_images_of_another_place(images: Path, tmp_path: Path) -> None:
    """A folder of other images is refused by their centres, and nothing is written."""
    shutil.copy(images / "optical/a.tif", images / "optical/c.tif")

    with pytest.raises(StoreError, match="not the one that was packed") as caught:
        upgraded("tiles", images / "optical", tmp_path / "new")

    assert "c_0_0" in str(caught.value.where)
    assert not (tmp_path / "new").exists()


def test_the_command_of_a_store_without_a_checksum(tmp_path: Path, capsys) -> None:
    """What `eofm data verify` prints of an old store works, whatever its folder is called."""
    store = tmp_path / "old one"
    shutil.copytree(OLD / "tiles", store)
    assert 0 == main(["data", "verify", str(store)])
    said = capsys.readouterr().out

    assert 0 == main(shlex.split(said[said.index("eofm data upgrade") :])[1:])

    assert VERSION == Store(store).card.version
    capsys.readouterr()
    assert 0 == main(["data", "verify", str(store)])
    assert "card and index" in capsys.readouterr().out


def test_the_command_of_the_error(images: Path, tmp_path: Path, capsys) -> None:
    """What needs the georeference of an old store names the command that recovers it; it works."""
    store = tmp_path / "old one"
    shutil.copytree(OLD / "tiles", store)
    labels = ["labels", str(images / "maps"), "--scheme", "terramesh", "--out"]
    assert 1 == main([*labels, str(tmp_path / "l.parquet"), "--scenes", str(store)])
    said = capsys.readouterr().err
    assert "was written by eofm 0.1" in said

    command = said[said.index("eofm data upgrade") : said.index("; or state")]
    words = shlex.split(command.replace("DIR", str(images / "optical")))[1:]
    assert 0 == main([w.replace("NEW", str(tmp_path / "new")) for w in words])
    assert 0 == main([*labels, str(tmp_path / "l.parquet"), "--scenes", str(tmp_path / "new")])

    rows = pq.read_table(tmp_path / "l.parquet").to_pylist()
    new = Store(tmp_path / "new")
    # image b has a margin that 0.1 counted; all else it had counted alike
    same = [row for row in range(12) if not new.ids[row].startswith("b_")]
    for row in same:
        assert EXPECTED["tiles"]["fractions"][row] == pytest.approx(rows[row]["fraction"], abs=1e-6)
        assert EXPECTED["tiles"]["multi_hot"][row] == rows[row]["multi_hot"]


def test_the_statement_of_the_error(images: Path, tmp_path: Path) -> None:
    """An old store whose images are gone is labelled where its CRS is stated, as the error says."""
    words = ["labels", str(images / "maps"), "--scheme", "terramesh", "--scenes"]
    for crs in ("utm", "EPSG:4326"):
        out = str(tmp_path / f"{crs.replace(':', '')}.parquet")
        assert 0 == main([*words, str(OLD / "tiles"), "--out", out, "--scene_crs", crs])


@pytest.mark.parametrize("in_place", [True, False])
def test_killed_anywhere(tmp_path: Path, images: Path, tree, kill, in_place: bool) -> None:
    """Interrupted at any call, a store has the old index or the new; a second call ends it."""
    whole = tmp_path / "whole"
    shutil.copytree(OLD / "tiles", whole)
    optical = str(images / "optical")
    upgrade_store(UpgradeConfig(str(whole), optical, in_place=True))
    expected, kills = tree(whole), 0
    for call in range(1, 100):
        path, out = tmp_path / f"s{call}", tmp_path / f"out{call}"
        shutil.copytree(OLD / "tiles", path)
        config = UpgradeConfig(
            str(path), optical, None if in_place else str(out), in_place=in_place
        )
        with kill.at(call) as calls:
            try:
                upgrade_store(config)
            except kill.Error:
                kills += 1
        done = calls() < call
        if in_place:
            assert EXPECTED["tiles"] == read_back(Store(path))
        if in_place or not done:
            upgrade_store(config)
        assert expected == tree(path if in_place else out)
        if done:
            break
    assert kills > 5


def test_old_and_new_together(images: Path, tmp_path: Path) -> None:
    """Copies keep the grids that are known and leave the others unknown; conditions find them."""
    new = upgraded("tiles", images / "optical", tmp_path / "new")
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(n for n in new.ids if n.startswith("a_")))
    subset_store(SubsetConfig(str(new.path), str(tmp_path / "a"), ids=str(ids)))
    ids.write_text("\n".join(n for n in new.ids if n.startswith("c_")))
    subset_store(SubsetConfig(str(OLD / "tiles"), str(tmp_path / "c"), ids=str(ids)))

    merge_stores(MergeConfig([str(tmp_path / "a"), str(tmp_path / "c")], str(tmp_path / "both")))

    both = Store(tmp_path / "both")
    assert VERSION == both.card.version
    assert known_grids(new)[:4] == known_grids(both)[:4]
    assert [None] * 4 == known_grids(both)[4:]
    found = subset_store(
        SubsetConfig(str(both.path), str(tmp_path / "utm"), where=["crs=EPSG:32632"])
    )
    assert 4 == found.windows


def test_whole_images_and_bands_in_files(tmp_path: Path, miniature, write_bands) -> None:
    """Rows that are whole images, one file per band, get the grid of the finest band."""
    from eofm.store.writer import StoreWriter

    folder = write_bands(tmp_path / "images/p0", {"B02": 18, "B8A": 9, "B09": 3})
    with rasterio.open(folder / "B02.tif") as dataset:
        x, y = dataset.xy(8.5, 8.5)
        crs, transform = dataset.crs, dataset.transform
    from rasterio.warp import transform as warp_points

    (longitude,), (latitude,) = warp_points(crs, "EPSG:4326", [x], [y])
    card = miniature.card
    square = type(miniature)(
        type(card)(
            type(card.spec)(card.spec.sensor, card.spec.bands, card.spec.unit, (18, 18), 10.0),
            card.groups, card.labels, card.settings,
        )
    )  # fmt: skip
    with StoreWriter(tmp_path / "store", square.card) as writer:
        entry = square.entry(0)
        entry = type(entry)(**{**vars(entry), "longitude": longitude, "latitude": latitude})
        writer.append(entry, square.imagery(0))
        writer.finish()

    upgrade_store(UpgradeConfig(str(tmp_path / "store"), str(tmp_path / "images"), in_place=True))

    (grid,) = known_grids(Store(tmp_path / "store"))
    assert (crs, transform) == (grid.crs, grid.transform)
    assert transform == grid.at(Window(0, 0, 18, 18)).transform


def test_where_to() -> None:
    """It must be said, once, where the new index goes."""
    for wrong in ({}, {"out": "x", "in_place": True}):
        with pytest.raises(ConfigError, match="must be said"):
            UpgradeConfig("s", **wrong)
    assert RelabelConfig("s", "l", out="x").ground == "seen"
    assert np.isfinite(VERSION)
