"""Stores of several sensors with one table of rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eofm.errors import StoreError
from eofm.store.paired import ROWS, Pair, PairedStore, match_stores, write_pairs
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

DATES = ("2021-01-01T00:00:00", "2021-04-01T00:00:00", "2021-07-01T00:00:00")


@pytest.fixture
def folder(tmp_path: Path, miniature, radar_miniature) -> Path:
    """Three optical images of place p; radar near the first two dates, and one far away."""
    optical = [("p", date) for date in DATES]
    radar = [("p", "2021-04-09T00:00:00"), ("q", DATES[2]), ("p", "2021-01-03T00:00:00")]
    for name, small, scenes in (
        ("s2-l1c", miniature, optical),
        ("s1-grd", radar_miniature, radar),
    ):
        with StoreWriter(tmp_path / name, small.card) as writer:
            for i, (place, date) in enumerate(scenes):
                entry = replace(small.entry(i), id=f"{name}{i}", location=place, date=date)
                writer.append(entry, small.imagery(i))
            writer.finish()
    return tmp_path


def test_nearest_in_time(folder: Path) -> None:
    """Each optical image gets the radar image of its own place within the gap, or none."""
    pairs = match_stores(folder, ["s2-l1c", "s1-grd"], max_gap_days=30)
    assert ["s1-grd2", "s1-grd0", None] == [pair.images.get("s1-grd") for pair in pairs]

    near = match_stores(folder, ["s2-l1c", "s1-grd"], max_gap_days=3)
    assert ["s1-grd2", None, None] == [pair.images.get("s1-grd") for pair in near]


def test_images_belong_together(folder: Path) -> None:
    """Lines of the table give the right image of each store; incomplete ones are told apart."""
    write_pairs(folder, match_stores(folder, ["s2-l1c", "s1-grd"]))
    both = PairedStore(folder)
    images = both.images([1, 0])

    assert [0, 1] == both.complete().tolist()
    assert [0, 1, 2] == both.complete(["s2-l1c"]).tolist()
    assert [2, 0, -1] == both.rows("s1-grd").tolist()
    assert [1100, 100] == images["s2-l1c"].planes[10][:, 0, 0, 0].tolist()
    assert [100.25, 2100.25] == images["s1-grd"].planes[10][:, 0, 0, 0].tolist()
    assert 3 == len(both)
    part = both.images([0], ["s1-grd"], bands={"s1-grd": ["VH"]})
    assert ("VH",) == part["s1-grd"].spec.bands
    with pytest.raises(StoreError, match="no image in s1-grd") as caught:
        both.images([0, 2])
    assert "s2-l1c2" == caught.value.found
    with pytest.raises(StoreError, match="no store has this name"):
        both.rows("s2-l2a")


def test_nothing_half_paired(folder: Path) -> None:
    """Unknown images, repeated lines and half-written stores leave no table."""
    good = Pair("a", "p", "", {"s2-l1c": "s2-l1c0"})
    for pairs, problem in (
        ([Pair("a", "p", "", {"s2-l1c": "nobody"})], "not in their store"),
        ([good, good], "same id"),
        ([], "nothing to pair"),
        ([Pair("a", "p", "", {"s3": "x"})], "no packed store"),
    ):
        with pytest.raises(StoreError, match=problem):
            write_pairs(folder, pairs)
    assert not (folder / ROWS).exists()
    with pytest.raises(StoreError, match="no paired stores"):
        PairedStore(folder)


def test_store_packed_anew(folder: Path, radar_miniature) -> None:
    """A table does not speak of the rows of another store."""
    write_pairs(folder, match_stores(folder, ["s2-l1c", "s1-grd"]))
    for file in sorted((folder / "s1-grd").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    radar_miniature.store(folder / "s1-grd", 3)

    assert 3 == len(Store(folder / "s1-grd"))
    with pytest.raises(StoreError, match="not the one whose rows"):
        PairedStore(folder)


def test_interrupted_while_writing(folder: Path, kill) -> None:
    """The table is there whole or not at all."""
    pairs = match_stores(folder, ["s2-l1c", "s1-grd"])
    killed = 0
    for call in range(1, 20):
        with kill.at(call) as calls:
            try:
                write_pairs(folder, pairs)
            except kill.Error:
                killed += 1
            done = calls() < call
        if (folder / ROWS).exists():
            assert 3 == len(PairedStore(folder))
            (folder / ROWS).unlink()
        if done:
            break
    assert killed
    write_pairs(folder, pairs)
    assert np.array_equal([0, 1], PairedStore(folder).complete())
