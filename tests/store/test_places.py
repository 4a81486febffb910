"""Merging joins places that are the same ground."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eofm.cli import main
from eofm.datasets.pack_config import PackTilesConfig
from eofm.datasets.tiles import pack_tiles
from eofm.store.places import join_places
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
