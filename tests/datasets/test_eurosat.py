"""EuroSAT on miniatures in its true format, and on real tiles: bands, splits, bad folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from eofm.contract.preprocess import Preprocess, plan
from eofm.contract.recipe import Recipe
from eofm.contract.spec import STATISTICS, Normalization, Sensor, Unit
from eofm.datasets.eurosat import CLASSES, FILE_ORDER, SPEC, open_eurosat
from eofm.datasets.images.chips import file_pixels, read_batches, source_of, targets_of
from eofm.datasets.images.class_folders import FolderSplit
from eofm.errors import ConfigError, DataError, EofmError, RasterError

NESTED = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"


def write_tile(
    path: Path, *, bands: int = 13, size: int = 64, east: int = 0, **profile: object
) -> Path:
    """A tile whose band number b holds 100 b + its column, uint16, in UTM like the originals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": bands,
        "height": size,
        "width": size,
        "crs": "EPSG:32631",
        "transform": Affine(10.007, 0, 300_000 + 641 * east, 0, -10.02, 5_400_000),
        "interleave": "pixel",
    } | profile
    pixels = 100 * np.arange(1, bands + 1)[:, None, None] + np.arange(size)
    with rasterio.open(path, "w", **options) as file:
        file.write(np.broadcast_to(pixels, (bands, size, size)).astype(options["dtype"]))
    return path


def write_published(root: Path, tiles: int = 5) -> Path:
    """The published layout: <Class>/<Class>_<n>.tif, each tile further east than the last."""
    for label, name in enumerate(CLASSES):
        for number in range(1, tiles + 1):
            write_tile(root / name / f"{name}_{number}.tif", east=10 * number + label)
    return root


def write_given(root: Path) -> Path:
    """The divided layout: train with five tiles of each class, test with two."""
    for split, numbers in (("train", range(5)), ("test", range(5, 7))):
        for name in CLASSES:
            for number in numbers:
                write_tile(root / split / name / f"{name}_{number}.tif")
    return root


# ------------------------------------------------------------------------------- pixels


def test_bands_are_found_by_name_where_the_file_has_them(tmp_path: Path) -> None:
    """Band 13 of the file is B8A; a recipe in the usual order gets it in ninth place."""
    path = write_tile(tmp_path / "a" / "Forest_1.tif")
    imagery = file_pixels(path, SPEC).read()
    statistics = STATISTICS["ssl4eo-s12-l1c"]
    identity = Normalization.divide(1, 13, "test")
    recipe = Recipe(Sensor.S2_L1C, statistics.bands, Unit.DN, (64, 64), identity)

    pixels = Preprocess(plan(imagery.spec, recipe))(imagery).pixels

    number = {band: FILE_ORDER.index(band) + 1 for band in recipe.bands}
    assert 13 == number["B8A"]
    assert [100.0 * number[band] for band in recipe.bands] == pixels[0, :, 0, 0].tolist()


def test_a_tile_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    """Sensor, level, unit, size and 10 m are declared; DN 0 is a measurement, not nodata."""
    root = write_published(tmp_path, 2)
    with rasterio.open(root / "River" / "River_1.tif", "r+") as file:
        file.write(np.zeros((64, 64), np.uint16), 2)
    data = open_eurosat(root)
    tile = next(t for split in data.splits.values() for t in split if t.id == "River_1")

    imagery = tile.pixels[0].read()

    assert SPEC == imagery.spec
    assert (Sensor.S2_L1C, Unit.DN, (64, 64), 10.0) == (
        imagery.spec.sensor,
        imagery.spec.unit,
        imagery.spec.size,
        imagery.spec.gsd,
    )
    assert bool(imagery.valid.all())
    assert 0.0 == float(imagery.pixels[0, 1].max())


def test_batches_keep_the_order_of_tiles(tmp_path: Path) -> None:
    """Labels and pixels stay together, and the last batch may be smaller."""
    train = open_eurosat(write_given(tmp_path)).splits["train"]

    batches = list(read_batches(train, 7))

    assert [7] * (len(train) // 7) + [len(train) % 7] == [len(b) for b in batches]
    one = train[8].pixels[0].read()
    assert torch.equal(one.pixels[0], batches[1].pixels[1])
    assert [t.label for t in train] == targets_of(train, 10).tolist()


# ------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("below", ["", "EuroSAT_MS", NESTED])
def test_the_published_layouts_are_found(tmp_path: Path, below: str) -> None:
    """Class folders may lie where the archives put them."""
    write_published(tmp_path / below, 5)

    data = open_eurosat(tmp_path)

    assert FolderSplit.SPATIAL == data.rule
    assert (30, 10, 10) == tuple(len(data.splits[s]) for s in ("train", "val", "test"))
    assert 50 == len(data.all)


def test_the_spatial_split_runs_from_west_to_east(tmp_path: Path) -> None:
    """No test tile lies west of a training tile, so neighbours are not in both."""
    data = open_eurosat(write_published(tmp_path, 5))

    numbers = {s: {int(t.id.rsplit("_", 1)[1]) for t in data.splits[s]} for s in data.splits}

    assert {"train": {1, 2, 3}, "val": {4}, "test": {5}} == numbers


def test_the_stratified_split_keeps_the_shares_of_classes(tmp_path: Path) -> None:
    """Three, one and one tile of each class, chosen by hash: the same on every machine."""
    data = open_eurosat(write_published(tmp_path, 5), FolderSplit.STRATIFIED)

    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        assert [count] * 10 == torch.bincount(targets_of(data.splits[split], 10)).tolist()
    assert "River_1" in {tile.id for tile in data.splits["test"]}


def test_given_folders_keep_their_test_split(tmp_path: Path) -> None:
    """Validation is a fifth of train by hash; test stays untouched."""
    data = open_eurosat(write_given(tmp_path))

    assert FolderSplit.GIVEN == data.rule
    assert (40, 10, 20) == tuple(len(data.splits[s]) for s in ("train", "val", "test"))
    assert {5, 6} == {int(t.id.rsplit("_", 1)[1]) for t in data.splits["test"]}
    assert not {t.id for t in data.splits["train"]} & {t.id for t in data.splits["val"]}


def test_a_given_validation_folder_is_used(tmp_path: Path) -> None:
    """With val there, train stays whole."""
    root = write_given(tmp_path)
    for name in CLASSES:
        write_tile(root / "val" / name / f"{name}_9.tif")

    data = open_eurosat(root)

    assert (50, 10, 20) == tuple(len(data.splits[s]) for s in ("train", "val", "test"))


def test_the_order_of_files_has_no_say(tmp_path: Path) -> None:
    """Files created in another order give the same splits."""
    one = open_eurosat(write_given(tmp_path / "one"))
    for path in sorted((tmp_path / "one").rglob("*.tif"), reverse=True):
        copy = tmp_path / "two" / path.relative_to(tmp_path / "one")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)

    two = open_eurosat(tmp_path / "two")

    for split in one.splits:
        assert [t.id for t in one.splits[split]] == [t.id for t in two.splits[split]]


# ----------------------------------------------------------------------------- bad input


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """The error lists what lies there and what should."""
    (tmp_path / "photos").mkdir()

    with pytest.raises(DataError, match="no EuroSAT folder") as caught:
        open_eurosat(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_eurosat(tmp_path / "nowhere")

    assert "photos" in str(caught.value)
    assert "AnnualCrop" in str(caught.value)


def test_droppings_of_other_systems_are_overlooked(tmp_path: Path) -> None:
    """Hidden files and folders are no tiles and no classes; an upper-case ending is a tile's."""
    root = write_published(tmp_path, 2)
    (root / "__MACOSX").mkdir()
    (root / "River" / "._River_1.tif").touch()
    (root / "River" / "River_1.tif").rename(root / "River" / "River_1.TIF")

    assert 20 == len(open_eurosat(root).all)


def test_missing_and_foreign_classes_are_named(tmp_path: Path) -> None:
    """A misspelt folder is both missing and foreign; nothing is scored on nine classes."""
    root = write_given(tmp_path)
    (root / "test" / "River").rename(root / "test" / "Rivers")

    with pytest.raises(DataError, match="ten class folders") as caught:
        open_eurosat(root)

    assert "missing: River; foreign: Rivers" in str(caught.value)


def test_the_rgb_set_is_not_the_multispectral_one(tmp_path: Path) -> None:
    """Folders of JPEGs have the right names and the wrong images."""
    for name in CLASSES:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_1.jpg").touch()

    with pytest.raises(DataError, match="no GeoTIFF") as caught:
        open_eurosat(tmp_path)

    assert ".jpg" in str(caught.value)


def test_the_same_tile_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    """A copy of a training tile in test is refused, naming both files."""
    root = write_given(tmp_path)
    shutil.copy(root / "train/River/River_0.tif", root / "test/River/River_0.tif")

    with pytest.raises(DataError, match="same published name") as caught:
        open_eurosat(root)

    assert "train" in str(caught.value)
    assert "test" in str(caught.value)


def test_numbers_of_ones_own_may_begin_anew(tmp_path: Path) -> None:
    """Folders divided by somebody else: names that repeat become paths, others stay."""
    root = write_given(tmp_path)
    for split in ("train", "test"):
        for name in ("River", "Forest"):
            write_tile(root / split / name / "0.tif")
    data = open_eurosat(root)
    ids = [tile.id for part in data.splits.values() for tile in part]

    assert 74 == len(ids) == len(set(ids))
    own = {"train/River/0.tif", "train/Forest/0.tif", "test/River/0.tif", "test/Forest/0.tif"}
    assert own == {i for i in ids if "/" in i}
    assert {"test/River/0.tif", "test/Forest/0.tif"} <= {t.id for t in data.splits["test"]}


def test_a_tile_in_the_wrong_class_is_refused(tmp_path: Path) -> None:
    """The name says Forest, the folder River: one of them is a wrong label."""
    root = write_given(tmp_path)
    shutil.move(root / "train/Forest/Forest_0.tif", root / "train/River/Forest_0.tif")

    with pytest.raises(DataError, match="another class"):
        open_eurosat(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": 12}, "number of bands in the file"),
        ({"bands": 3}, "number of bands in the file"),
        ({"size": 32}, "not of the kind"),
        ({"dtype": "float32"}, "not of the kind"),
    ],
)
def test_a_tile_of_another_kind_is_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    """Other bands, sizes and number types are other data; the file is named."""
    root = write_given(tmp_path)
    path = write_tile(root / "test" / "River" / "River_5.tif", **options)  # type: ignore[arg-type]
    tile = next(t for t in open_eurosat(root).splits["test"] if source_of(t).files[0] == path)

    with pytest.raises(RasterError, match=message) as caught:
        tile.pixels[0].read()

    assert "River_5.tif" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 200, 5000, 60_000])
def test_a_truncated_tile_is_refused(tmp_path: Path, keep: int) -> None:
    """Wherever it breaks off, the file is named and no pixel is made up."""
    root = write_given(tmp_path)
    path = root / "test" / "River" / "River_5.tif"
    path.write_bytes(path.read_bytes()[:keep])
    tile = next(t for t in open_eurosat(root).splits["test"] if source_of(t).files[0] == path)

    with pytest.raises(RasterError) as caught:
        tile.pixels[0].read()

    assert "River_5.tif" in str(caught.value)


def test_without_georeference_there_is_no_longitude(tmp_path: Path) -> None:
    """The spatial split needs it, the stratified one does not; the error says so."""
    root = write_published(tmp_path, 5)
    write_tile(root / "River" / "River_1.tif", crs=None)

    with pytest.raises(RasterError, match="longitude") as caught:
        open_eurosat(root)

    assert "stratified" in str(caught.value)
    assert 50 == len(open_eurosat(root, FolderSplit.STRATIFIED).all)


def test_a_rule_must_suit_the_layout(tmp_path: Path) -> None:
    """Given splits are not divided anew, and undivided sets are not given."""
    write_published(tmp_path / "published", 2)
    write_given(tmp_path / "given")

    for root, rule in (("published", FolderSplit.GIVEN), ("given", FolderSplit.SPATIAL)):
        with pytest.raises(ConfigError, match="does not suit"):
            open_eurosat(tmp_path / root, rule)


# ----------------------------------------------------------------------------- real data


def test_real_tiles_carry_their_bands(real_data: Path) -> None:
    """On real tiles B10 is nearly black and B8A as bright as B08, which tells the order."""
    data = open_eurosat(real_data / "eurosat_ms")
    assert (171, 45, 54) == tuple(len(data.splits[s]) for s in ("train", "val", "test"))

    imagery = next(iter(read_batches(data.splits["train"], 171)))

    mean = dict(zip(imagery.spec.bands, imagery.pixels.mean(dim=(0, 2, 3)).tolist(), strict=True))
    assert mean["B10"] < 0.05 * mean["B8A"]
    assert 0.8 < mean["B08"] / mean["B8A"] < 1.1
    assert bool(imagery.valid.all())


def test_a_real_tile_cut_short_is_refused(real_data: Path, tmp_path: Path) -> None:
    """A half-downloaded tile ends in an eofm error that names it."""
    source = next((real_data / "eurosat_ms" / "test" / "River").glob("*.tif"))
    write_given(tmp_path)
    broken = tmp_path / "test" / "River" / source.name
    broken.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    tile = next(t for t in open_eurosat(tmp_path).splits["test"] if source_of(t).files[0] == broken)

    with pytest.raises(EofmError, match=source.name):
        tile.pixels[0].read()
