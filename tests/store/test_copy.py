"""Merging joins places that are the same ground."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from eofm.cli import main
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.store.edit import join_places
from eofm.store.reader import Store

Write = Callable[..., Path]


@pytest.fixture
def pack(tmp_path: Path, write_tif: Write) -> Callable[..., Store]:
    """Pack images of 32 pixels: name -> metres to the east of the first."""

    def packed(store: str, images: dict[str, float], **options: str) -> Store:
        for seed, (name, east) in enumerate(images.items()):
            values = np.random.default_rng(seed).integers(600, 2_400, (12, 32, 32))
            write_tif(
                tmp_path / store / f"{name}.tif",
                values.astype(np.uint16),
                origin=(500_000.0 + east, 6_000_000.0),
            )
        out = str(tmp_path / f"store-{store}")
        pack_tiles(
            PackTilesConfig(
                str(tmp_path / store), "s2-l2a", "dn", out, window=16, place=options.get("place")
            )
        )
        return Store(out)

    return packed


def test_overlapping_places_become_one(tmp_path: Path, pack: Callable[..., Store]) -> None:
    """Under the name of the first store; `season` tells the images apart; others stay."""
    one = pack("one", {"a": 0.0, "b": 10_000.0})
    two = pack("two", {"c": 100.0, "d": 10_320.0, "e": 30_000.0})
    out = tmp_path / "merged"
    assert 0 == main(["data", "merge", str(one.path), str(two.path), "--out", str(out)])
    rows = Store(out).table.to_pylist()

    assert {"a": "a", "b": "b", "c": "a", "d": "d", "e": "e"} == {
        row["source"]: row["location"] for row in rows
    }
    assert {"a": "a", "b": "", "c": "c", "d": "", "e": ""} == {
        row["source"]: row["season"] for row in rows
    }


def test_places_of_one_store_are_as_stated(pack: Callable[..., Store]) -> None:
    """Overlapping images that were stated to be places of their own stay so, unless joined."""
    stated = pack("stated", {"a": 0.0, "b": 100.0, "c": 200.0}, place="{place}")
    far = pack("far", {"x": 50_000.0})
    near = pack("near", {"y": 50.0})

    assert {} == join_places([stated, far])
    joined = join_places([near, stated])
    assert {"y"} == set(joined.values())
    assert {(0, "y"), (1, "a"), (1, "b"), (1, "c")} == set(joined)


def test_parts_of_one_image_are_one_image(tmp_path: Path, pack: Callable[..., Store]) -> None:
    """A store that was divided and is merged again is what it was."""
    whole = pack("whole", {"a": 0.0, "b": 10_000.0})
    parts = []
    for name, condition in (("north", "latitude>54.146"), ("south", "latitude<=54.146")):
        parts.append(str(tmp_path / name))
        command = ["data", "subset", str(whole.path), "--where", f'["{condition}"]']
        assert 0 == main([*command, "--out", parts[-1]])
    out = tmp_path / "again"
    assert 0 == main(["data", "merge", *parts, "--out", str(out)])
    columns = ["id", "location", "season", "source"]
    before, after = (
        sorted(map(tuple, (row.values() for row in s.table.select(columns).to_pylist())))
        for s in (whole, Store(out))
    )

    assert before == after
    assert 4 == len(Store(parts[0]))


def test_one_name_in_two_stores_is_one_place(pack: Callable[..., Store]) -> None:
    """Stores of several sensors call one place alike; nothing is renamed by that."""
    one, two = pack("one", {"a": 0.0}), pack("two", {"a": 90_000.0})

    assert {} == join_places([one, two])


def test_grids_decide_where_a_store_keeps_them(tmp_path: Path) -> None:
    """Neighbours in degrees at 60 degrees north: squares as wide as high would overlap."""
    stores = []
    for number, east in enumerate((10.0, 10.0032, 10.0016)):
        folder = tmp_path / f"images{number}"
        folder.mkdir()
        values = np.random.default_rng(number).integers(600, 2_400, (12, 32, 32))
        profile = {"count": 12, "height": 32, "width": 32, "dtype": "uint16", "crs": "EPSG:4326"}
        at = Affine(1e-4, 0, east, 0, -1e-4, 60)
        file = folder / f"{number}.tif"
        with rasterio.open(file, "w", driver="GTiff", transform=at, **profile) as dataset:
            dataset.write(values.astype(np.uint16))
        out = str(tmp_path / f"store{number}")
        pack_tiles(PackTilesConfig(str(folder), "s2-l2a", "dn", out, window=32))
        stores.append(Store(out))

    assert {} == join_places(stores[:2])
    assert {(0, "0"): "0", (1, "2"): "0"} == join_places([stores[0], stores[2]])


def test_stores_of_0_1_are_joined_by_their_centres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[..., Store]
) -> None:
    """They kept no grids: the ground is a square around the centre."""
    one, two = pack("one", {"a": 0.0}), pack("two", {"b": 100.0, "c": 320.0})
    monkeypatch.setattr("eofm.store.edit.known_grids", lambda store: [None] * len(store))

    assert {(0, "a"): "a", (1, "b"): "a"} == join_places([one, two])
    old = Store(Path(__file__).parents[1] / "stores_0_1" / "tiles")
    assert 2 == old.card.version
    assert isinstance(join_places([old, one]), dict)
