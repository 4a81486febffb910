"""A place is a piece of ground, in packing and in what is held out of training."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from eofm.cli import main
from eofm.contract.imagery import NativeImagery
from eofm.datasets.images.places import Places, find_places, grid_of_file, units_of
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import ConfigError, RasterError, StoreError
from eofm.raster.grid import Grid
from eofm.store.choice import held_out
from eofm.store.format import Entry
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

Write = Callable[..., Path]
UTM = CRS.from_epsg(32632)


def grid(x: float, side: int = 32) -> Grid:
    """A grid at 10 m whose west edge is at x."""
    return Grid(UTM, Affine(10, 0, x, 0, -10, 6_000_000), side, side)


def image(seed: int, side: int = 32) -> np.ndarray:
    """Plausible digital numbers of 12 bands."""
    return np.random.default_rng(seed).integers(600, 2_400, (12, side, side)).astype(np.uint16)


@pytest.fixture
def two_dates(tmp_path: Path, write_tif: Write) -> PackTilesConfig:
    """Eight places ten kilometres apart, two dates of each, the second shifted by ten pixels."""
    for place in range(8):
        for number, day in enumerate(("20200101", "20200701")):
            x = 500_000.0 + 10_000 * place + 100 * number
            write_tif(
                tmp_path / f"images/T32_{place}_{day}.tif",
                image(2 * place + number),
                origin=(x, 6_000_000.0),
            )
    return PackTilesConfig(
        str(tmp_path / "images"), "s2-l2a", "dn", str(tmp_path / "store"), window=16
    )


def locations(config: PackTilesConfig) -> dict[str, set[str]]:
    """Location -> the images it has."""
    found: dict[str, set[str]] = {}
    for line in Store(config.out).table.to_pylist():
        found.setdefault(line["location"], set()).add(line["source"])
    return found


# ------------------------------------------------------------------------------ packing


def test_two_dates_are_one_place(two_dates: PackTilesConfig) -> None:
    """They share a location, `season` tells them apart, and both or none are held out."""
    pack_tiles(two_dates)
    rows = Store(two_dates.out).table.to_pylist()

    assert {f"T32_{p}_20200101": {f"T32_{p}_20200101", f"T32_{p}_20200701"} for p in range(8)} == (
        locations(two_dates)
    )
    assert all(row["season"] == row["source"] for row in rows)
    for seed in range(20):
        out = held_out([row["location"] for row in rows], 0.25, seed)
        assert {row["source"][4] for row in rows} - {
            row["source"][4] for row, held in zip(rows, out, strict=True) if held
        } == {row["source"][4] for row, held in zip(rows, out, strict=True) if not held}


def test_places_by_name(two_dates: PackTilesConfig) -> None:
    """`--place` states them whatever the ground; the command line takes it."""
    pattern = "T32_?_{place}"
    command = ["pack", "tiles", "--images", two_dates.images, "--sensor", "s2-l2a", "--unit", "dn"]
    out = two_dates.out + "2"
    assert 0 == main([*command, "--window", "16", "--out", out, "--place", pattern])
    assert {"20200101", "20200701"} == set(locations(replace(two_dates, out=out)))

    with pytest.raises(ConfigError, match="does not fit the names") as caught:
        pack_tiles(replace(two_dates, place="T31_{place}_*"))
    assert "T32_0_20200101" in str(caught.value.found)
    (remedy,) = shlex.split(str(caught.value.remedy).split(" fits")[0])[1:]
    pack_tiles(replace(two_dates, place=remedy))
    assert 16 == len(locations(two_dates))
    with pytest.raises(StoreError, match="place"):  # it decides what is in the store
        pack_tiles(replace(two_dates, place="T32_{place}_*"))


def test_one_large_place_is_said(
    tmp_path: Path, write_tif: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mosaic whose tiles overlap is one place; its remedy is run, and makes every tile one."""
    for k in range(4):
        write_tif(tmp_path / f"images/{k}.tif", image(k), origin=(500_000.0 + 160 * k, 6_000_000.0))
    command = ["pack", "tiles", "--images", str(tmp_path / "images"), "--sensor", "s2-l2a"]
    command += ["--unit", "dn", "--window", "16"]
    assert 0 == main([*command, "--out", str(tmp_path / "one")])
    said = capsys.readouterr().out

    assert 1 == said.count("4 of 4 images are one place (0)")
    remedy = shlex.split(said[said.index("--place '") :])[:2]
    assert 0 == main([*command, "--out", str(tmp_path / "four"), *remedy])
    assert "one place" not in capsys.readouterr().out
    assert {"0"} == set(Store(tmp_path / "one").locations)
    assert set("0123") == set(Store(tmp_path / "four").locations)


def test_lone_images_are_what_they_were(tmp_path: Path, write_tif: Write) -> None:
    """An image that overlaps no other keeps its name as location, and no season."""
    for k in range(2):
        write_tif(tmp_path / f"images/{k}.tif", image(k), origin=(500_000.0 + 320 * k, 6_000_000.0))
    config = PackTilesConfig(str(tmp_path / "images"), "s2-l2a", "dn", str(tmp_path / "s"))
    pack_tiles(replace(config, window=16))
    table = Store(tmp_path / "s").table

    assert table["source"].to_pylist() == table["location"].to_pylist()
    assert [""] * 8 == table["season"].to_pylist()


def test_a_resumed_store_keeps_its_places(two_dates: PackTilesConfig) -> None:
    """Images that come in between join the place that is in the store, under its name."""
    folder, kept = Path(two_dates.images), Path(two_dates.images).parent / "kept"
    kept.mkdir()
    for file in sorted(folder.glob("*_20200101.tif")):
        shutil.move(file, kept / file.name)
    broken = folder / "T32_7_20200701.tif"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RasterError, match="cannot be read"):
        pack_tiles(two_dates)
    broken.write_bytes(whole)
    _interrupt(two_dates)
    for file in kept.iterdir():
        shutil.move(file, folder / file.name)
    pack_tiles(two_dates)

    found = locations(two_dates)
    assert 8 == len(found)
    assert all(len(images) == 2 for images in found.values())
    assert "T32_0_20200701" in found  # committed before its older neighbour came
    assert "T32_5_20200101" in found  # nothing was committed of this place


def _interrupt(config: PackTilesConfig) -> None:
    """Pack until the images of three places are in the store."""
    append, count = StoreWriter.append, [0]

    def limited(self: StoreWriter, entry: Entry, imagery: NativeImagery) -> None:
        count[0] += 1
        if count[0] > 12:
            raise KeyboardInterrupt
        append(self, entry, imagery)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreWriter, "append", limited)
        with pytest.raises(KeyboardInterrupt):
            pack_tiles(config)


def test_a_bridge_between_two_places_of_a_store_is_refused(
    tmp_path: Path, write_tif: Write
) -> None:
    """An image that is added and makes one place of two: the rows already written say otherwise."""
    for k in range(4):
        x = 500_000.0 + 480 * k
        write_tif(tmp_path / f"images/{k}.tif", image(k), origin=(x, 6_000_000.0))
    config = PackTilesConfig(str(tmp_path / "images"), "s2-l2a", "dn", str(tmp_path / "s"))
    config = replace(config, window=16)
    _interrupt(config)
    bridge = write_tif(tmp_path / "images/x.tif", image(9), origin=(500_240.0, 6_000_000.0))

    with pytest.raises(StoreError, match="two places of this unfinished store"):
        pack_tiles(config)
    bridge.unlink()  # one of its remedies
    pack_tiles(config)
    assert {"0", "1", "2", "3"} == set(locations(config))


# ------------------------------------------------------------------------------ the rule


def test_remarks() -> None:
    """What cannot be located is said; so is one place of most images; else nothing."""
    lone = find_places({"a": grid(0), "b": grid(1_000), "c": None})
    most = find_places({"a": grid(0), "b": grid(1_000), "c": grid(0)})
    half = find_places({"a": grid(0), "b": grid(1_000), "c": grid(0), "d": grid(2_000)})

    assert ["1 of 3 images do not say where they lie"] == [r.split(":")[0] for r in lone.remarks]
    assert ["2 of 3 images are one place (a)"] == [r.split(":")[0] for r in most.remarks]
    assert () == half.remarks
    assert () == find_places({}).remarks


def test_ground_of_test_images_in_train() -> None:
    """Test images are named with one of train or val that shows the same place."""
    places = Places({"train/a": "a", "val/b": "b", "test/a": "a", "test/b": "b", "test/c": "c"})
    (said,) = places.leaks({name: name.split("/")[0] for name in places.of})

    assert said.startswith("Leak: 2 of 3 test images show ground of train or val: ")
    assert "test/a with train/a, test/b with val/b." in said
    assert () == places.leaks({"train/a": "train", "test/c": "test"})
    (said,) = places.leaks({"train/a": "train", "test/a": "val"})
    assert said.startswith("Leak: 1 of 1 val images show ground of train: test/a with train/a.")


def test_units_are_called_like_their_first_image() -> None:
    """So that images which are a place each are divided as if there were no places."""
    places = Places({"a": "x", "b": "y", "c": "x"})

    assert {"a": ["a", "c"], "b": ["b"]} == units_of(["a", "b", "c"], places)


def test_a_file_that_cannot_be_read_lies_nowhere(tmp_path: Path) -> None:
    """Whoever reads its pixels will say what is wrong with it."""
    (tmp_path / "a.tif").write_bytes(b"no image")

    assert None is grid_of_file(tmp_path / "a.tif")


def test_real_places(real_data: Path) -> None:
    """Tiles of EuroSAT, sites of TerraMesh and patches of S2-100K are a place each."""
    for name, pattern, count in (
        ("eurosat_ms", "*/*/*.tif", 270),
        ("terramesh", "S2L1C/*.tif", 3),
        ("s2_100k", "images/*.tif", 12),
    ):
        files = sorted((real_data / name).glob(pattern))
        places = find_places({file.stem: grid_of_file(file) for file in files})
        assert count == len(set(places.of.values()))
        assert () == places.remarks
