"""BigEarthNet v1 and v2: layouts, labels by name, official splits, Sentinel-1 unrounded."""

from __future__ import annotations

import bz2
import json
import shutil
from pathlib import Path

import ben_world
import numpy as np
import pytest
import rasterio
import torch

from eofm.contract.spec import Sensor, Unit
from eofm.datasets.bigearthnet import (
    CLASSES_19,
    CLASSES_43,
    COUNTS_V1,
    COUNTS_V2,
    EXCLUDED_V1,
    EXCLUDED_V2,
    MEMBERS,
    PackBigEarthNetConfig,
    Version,
    multi_hot,
    to_19,
)
from eofm.datasets.bigearthnet.patches import (
    BigEarthNet,
    Listing,
    open_bigearthnet,
    pack_bigearthnet,
    read_lists,
    read_tables,
)
from eofm.errors import ConfigError, DataError, LabelError, RasterError
from eofm.store.reader import Store

FIRST, SECOND, OPTICAL = ben_world.FIRST, ben_world.SECOND, ben_world.OPTICAL
FIELD, SNOW, ROCK = FIRST


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """BigEarthNet v1 in miniature."""
    return ben_world.first_version(tmp_path / "v1")


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """BigEarthNet v2 in miniature."""
    return ben_world.second_version(tmp_path / "v2")


@pytest.fixture(scope="module")
def tables(real_data: Path) -> Listing:
    """The published tables of version 2."""
    return read_tables(real_data / "bigearthnet_v2")


# ------------------------------------------------------------------------------ classes


def test_classes_are_those_of_torchgeo() -> None:
    """Names, order and mapping agree with an implementation that was corrected in public."""
    from torchgeo.datasets import BigEarthNet as Theirs

    assert Theirs.class_sets[43] == list(CLASSES_43)
    assert Theirs.class_sets[19] == list(CLASSES_19)
    for index, name in enumerate(CLASSES_43):
        theirs = Theirs.label_converter.get(index)
        expected = frozenset() if theirs is None else {CLASSES_19[theirs]}
        assert expected == to_19([name])


def test_dropped_classes() -> None:
    """Eleven of the 43 classes have no place among the 19."""
    members = {member for names in MEMBERS.values() for member in names}

    assert 32 == len(members)
    assert {
        "Road and rail networks and associated land",
        "Port areas",
        "Airports",
        "Mineral extraction sites",
        "Dump sites",
        "Construction sites",
        "Green urban areas",
        "Sport and leisure facilities",
        "Bare rock",
        "Burnt areas",
        "Intertidal flats",
    } == set(CLASSES_43) - members


def test_golden_patch() -> None:
    """The patch that exposed a faulty mapping: {8, 11, 13}; alphabetical numbers give {10, 17}."""
    names = ["Broad-leaved forest", "Natural grassland", "Transitional woodland/shrub"]
    right = {CLASSES_19.index(name) for name in to_19(names)}
    alphabetical = sorted(CLASSES_43)
    wrong = {
        CLASSES_19.index(label)
        for name in names
        for label in to_19([CLASSES_43[alphabetical.index(name)]])
    }

    assert {8, 11, 13} == right
    assert {10, 17} == wrong


@pytest.mark.slow
def test_golden_patch_in_the_table(tables: Listing) -> None:
    """The same patch of version 2 has the same three labels in the published table."""
    listing, name = tables, "S2B_MSIL2A_20180502T093039_N9999_R136_T34TEP_42_25"
    hot = multi_hot(listing.labels[name], CLASSES_19, name)

    assert {8, 11, 13} == {k for k, flag in enumerate(hot) if flag}
    assert ("test", "Serbia") == (listing.splits[name], listing.countries[name])
    assert "S2B_MSIL2A_20180502T093039_42_25" == listing.first_names[name]


def test_foreign_label() -> None:
    """A name that is no class, such as the other scheme's spelling, is refused."""
    with pytest.raises(LabelError, match="not among the 43 classes"):
        to_19(["Transitional woodland, shrub"], "p")
    with pytest.raises(LabelError, match="not among the 19 classes"):
        multi_hot(["Peatbogs"], CLASSES_19, "p")


# -------------------------------------------------------------------------- official lists


@pytest.mark.slow
def test_lengths_of_the_lists(real_data: Path, tables: Listing) -> None:
    """The official lists of both versions have the published lengths and do not overlap."""
    first = read_lists(real_data / "bigearthnet_v1" / "splits")
    second = tables

    counts = {s: list(first.splits.values()).count(s) for s in COUNTS_V1}
    assert COUNTS_V1 == counts
    assert sum(EXCLUDED_V1.values()) - len(first.excluded) == 2
    assert 590_326 == len(first.known)
    assert EXCLUDED_V2 == len(second.excluded)
    assert COUNTS_V2 == {s: len(second.patches(s, excluded=False)) for s in COUNTS_V2}
    leaked = sum(
        first.splits.get(second.first_names[name]) == "train"
        for name in second.patches("test", excluded=False)
    )
    assert 60_886 == leaked


@pytest.mark.parametrize("pack", [bytes, bz2.compress])
def test_lists_in_their_forms(v1: Path, pack: object) -> None:
    """Lists are read plain or packed, with or without the Sentinel-1 name."""
    for file in list((v1 / "splits").glob("*.csv")):
        data = pack(file.read_bytes())
        file.unlink()
        file.with_suffix(".csv.bz2" if data[:2] == b"BZ" else ".csv").write_bytes(data)
    listing = read_lists(v1 / "splits")

    assert "train" == listing.splits[FIELD]
    assert {SNOW, ROCK} == listing.excluded
    assert {FIRST[FIELD][0]: FIELD} == dict(listing.optical_of)


def _twice(lists: Path) -> None:
    (lists / "val.csv").write_text(f"{FIELD}\n")


def _in_both(lists: Path) -> None:
    (lists / "patches_with_seasonal_snow.csv").write_text(f"{FIELD}\n")


def _no_names(lists: Path) -> None:
    (lists / "val.csv").write_text("patch\n17\n")


def _cut_off(lists: Path) -> None:
    data = bz2.compress(b"S2A_MSIL2A_20170717T113321_28_89\n" * 100)
    (lists / "val.csv").unlink()
    (lists / "val.csv.bz2").write_bytes(data[:-10])


def _gone(lists: Path) -> None:
    (lists / "val.csv").unlink()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_twice, "in two splits"),
        (_in_both, "in a list of those to leave out"),
        (_no_names, "no list of BigEarthNet patches"),
        (_cut_off, "cannot be read"),
        (_gone, "is missing"),
    ],
)
def test_damaged_lists(v1: Path, change: object, problem: str) -> None:
    """A list that is cut off, foreign or contradicts another is an error."""
    change(v1 / "splits")

    with pytest.raises(DataError, match=problem):
        read_lists(v1 / "splits")


def test_tables_with_a_foreign_label(v2: Path) -> None:
    """A label of version 2 outside the 19 is an error."""
    ben_world.write_tables(v2, {"S2A_x_1_2": ("S1A_x_1_2", ["Peatbogs"], "train", False)})

    with pytest.raises(LabelError, match="not among the 19"):
        open_bigearthnet(v2)


# ------------------------------------------------------------------------------- reading


def read_all(data: BigEarthNet, sensor: Sensor) -> torch.Tensor:
    """Read the first patch, float32 on the 10 m grid."""
    (sample, *_) = data.samples("all", sensor=sensor, excluded=True)
    return sample.source.read().pixels[0]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_bands_by_name(version: str, request: pytest.FixtureRequest) -> None:
    """Every band carries its own constant, at its own size; both versions read alike."""
    data = open_bigearthnet(request.getfixturevalue(version))
    (sample, *_) = data.samples("all", excluded=True)
    with sample.source.open() as raster:
        native = raster.read_native()

    assert Version(version) is data.version
    assert (OPTICAL, Unit.DN, 10.0) == (raster.bands, native.spec.unit, native.spec.gsd)
    assert {10: 120, 20: 60, 60: 20} == {g: p.shape[-1] for g, p in native.planes.items()}
    for gsd, bands in native.bands.items():
        for k, band in enumerate(bands):
            assert ben_world.level(band) == int(native.planes[gsd][0, k].numpy().min()) // 10 * 10
    assert torch.uint16 == native.planes[10].dtype


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_radar_is_not_rounded(version: str, request: pytest.FixtureRequest) -> None:
    """Decibels keep their fraction, and VV comes before VH."""
    pixels = read_all(open_bigearthnet(request.getfixturevalue(version)), Sensor.S1_GRD)

    assert -10.59 == pytest.approx(float(pixels[0].min()), abs=1e-6)
    assert -17.31 == pytest.approx(float(pixels[1].min()), abs=1e-6)


def test_radar_of_the_published_pairs(real_data: Path) -> None:
    """The real pairs come unrounded and as the files hold them, and share the ground."""
    data = open_bigearthnet(real_data / "bigearthnet_v1")
    optical = data.samples(excluded=True)

    assert 6 == len(optical)
    for here, there in zip(optical, data.samples(sensor=Sensor.S1_GRD, excluded=True), strict=True):
        pixels = there.source.read().pixels[0].numpy()
        for k, file in enumerate(there.source.files):
            with rasterio.open(file) as dataset:
                assert np.array_equal(dataset.read(1), pixels[k])
        assert (pixels != pixels.round()).mean() > 0.9
        with here.source.open() as one, there.source.open() as other:
            assert one.grid == other.grid
        assert (here.id, here.place, here.labels) == (there.id, there.place, there.labels)


@pytest.mark.upstream
@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="torchgeo reads Sentinel-1 as int32: -12.59 becomes -13",
)
def test_torchgeo_reads_fractions(v1: Path) -> None:
    """Theirs, on the same files: decibels should keep their fraction."""
    from torchgeo.datasets import BigEarthNet as Theirs

    radar = FIRST[FIELD][0]
    for split in ("train", "val", "test"):
        (v1 / f"bigearthnet-{split}.csv").write_text(f"{FIELD},{radar}\n")
    image = Theirs(str(v1), split="train", bands="s1", num_classes=19)[0]["image"]

    assert (image != image.round()).any()


# ------------------------------------------------------------------------- splits, labels


def test_first_version(v1: Path) -> None:
    """Labels of version 1 go from 43 to 19 by name; excluded patches come when asked for."""
    data = open_bigearthnet(v1)
    fine = {s.id: s.labels for s in data.samples(classes=43, excluded=True)}
    coarse = {s.id: s.labels for s in data.samples(excluded=True)}

    assert [FIELD] == [s.id for s in data.samples("train")]
    assert [FIELD] == [s.id for s in data.samples("all")]
    assert [] == data.samples("test")
    assert {"Non-irrigated arable land", "Airports"} == fine[FIELD]
    assert {"Arable land"} == coarse[FIELD]
    assert {"Coniferous forest", "Inland wetlands"} == coarse[SNOW]
    assert coarse[ROCK] is None
    assert ["S2A_MSIL2A_20170717T113321_28_88"] == data.missing("test", Sensor.S2_L2A)


def test_second_version(v2: Path) -> None:
    """Splits and labels of version 2 are those of its table; snow is left out by default."""
    data = open_bigearthnet(v2)
    field, pasture, snow = SECOND

    assert [field, pasture] == [s.id for s in data.samples()]
    assert [] == data.samples("val")
    assert [snow] == [s.id for s in data.samples("val", excluded=True)]
    assert {"Pastures"} == data.samples("train")[0].labels
    assert ("29UPU_4_55", "train") == (
        data.samples("train")[0].place,
        data.samples("train")[0].split,
    )
    assert "2017-06-12T16:58:09" == data.samples("test", sensor=Sensor.S1_GRD)[0].date


def test_places_and_dates(v1: Path) -> None:
    """The place is tile, row and column; the time is the card's, where the name holds none."""
    samples = open_bigearthnet(v1).samples(excluded=True)

    assert ["29UPU_4_55", "33UUP_87_48", "35VPK_57_38"] == sorted(s.place for s in samples)
    assert "2017-06-13T10:10:31" == {s.id: s.date for s in samples}[SNOW]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("dev",), "no such split"),
        (("all", 20), "no labels of 20 classes"),
        (("all", 19, Sensor.S2_L1C), "no such sensor"),
    ],
)
def test_what_is_not_there(v1: Path, arguments: tuple, problem: str) -> None:
    """Splits, class schemes and sensors that do not exist are named."""
    with pytest.raises(ConfigError, match=problem):
        open_bigearthnet(v1).samples(*arguments)


def test_43_classes_of_the_second_version(v2: Path) -> None:
    """Version 2 has 19 classes only."""
    with pytest.raises(ConfigError, match="no labels of 43 classes"):
        open_bigearthnet(v2).samples(classes=43)


def test_without_lists(v1: Path, v2: Path) -> None:
    """Without the lists there are no splits; version 1 has labels nevertheless."""
    shutil.rmtree(v1 / "splits")
    for file in v2.glob("*.parquet"):
        file.unlink()

    assert 3 == len(open_bigearthnet(v1).samples())
    with pytest.raises(DataError, match="official lists"):
        open_bigearthnet(v1).samples("train")
    with pytest.raises(DataError, match="official lists"):
        open_bigearthnet(v2).samples()


def test_patches_in_no_list(v2: Path) -> None:
    """A patch on disk that no list names is reported, and has neither split nor labels."""
    name = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_99_99"
    ben_world.write_patch(v2 / "BigEarthNet-S2" / name.rsplit("_", 2)[0] / name, OPTICAL, 9)
    data = open_bigearthnet(v2)

    assert [name] == data.unknown(Sensor.S2_L2A)
    assert name not in {s.id for s in data.samples(excluded=True)}


def test_no_bigearthnet(tmp_path: Path) -> None:
    """Another folder is named as such."""
    with pytest.raises(DataError, match="no BigEarthNet folder"):
        open_bigearthnet(tmp_path)


def test_misplaced_patch(v2: Path) -> None:
    """A patch in the folder of another acquisition is an error."""
    name = next(iter(SECOND))
    folder = v2 / "BigEarthNet-S2" / name.rsplit("_", 2)[0]
    (folder / name).rename(folder / name.replace("T33UUP", "T33UUQ"))

    with pytest.raises(DataError, match="another acquisition"):
        open_bigearthnet(v2).samples()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"labels": "Pastures"}'])
def test_damaged_card(v1: Path, text: str) -> None:
    """A patch whose metadata is damaged is named."""
    (v1 / "BigEarthNet-v1.0" / FIELD / f"{FIELD}_labels_metadata.json").write_text(text)

    with pytest.raises(LabelError) as caught:
        open_bigearthnet(v1).samples()
    assert FIELD in str(caught.value.where)


# ------------------------------------------------------------------------------- packing


def settings(root: Path, **changes: object) -> PackBigEarthNetConfig:
    """State the folders."""
    return PackBigEarthNetConfig(root=str(root), out=str(root.parent / "store"), **changes)


def test_pack(v1: Path) -> None:
    """Planes are stored at native size, with labels, split, place and date."""
    report = pack_bigearthnet(settings(v1, excluded=True))
    store = Store(v1.parent / "store")
    lines = {line["id"]: line for line in store.table.to_pylist()}
    labels = store.labels(range(3))

    assert (3, 3, 2) == (report.store.images, report.store.windows, report.store.labelled)
    assert ("bigearthnet-19", CLASSES_19) == (store.scheme, store.classes)
    assert {10: (4, 120), 20: (6, 60), 60: (2, 20)} == {
        g: (p.shape[1], p.shape[-1]) for g, p in store.images([0]).planes.items()
    }
    assert ["train", "", ""] == [lines[name]["split"] for name in FIRST]
    assert "35VPK_57_38" == lines[SNOW]["location"]
    for i, name in enumerate(store.ids):
        expected = to_19(FIRST[name][1])
        assert set(expected) == {CLASSES_19[k] for k in labels.multi_hot[i].nonzero().flatten()}
        assert bool(expected) == bool(labels.known[i])
    store.verify()


def test_pack_radar(v2: Path) -> None:
    """Sentinel-1 is stored in float32 dB under the name of its Sentinel-2 patch."""
    pack_bigearthnet(settings(v2, sensor="s1-grd", split="train"))
    store = Store(v2.parent / "store")

    assert [list(SECOND)[1]] == store.ids.tolist()
    assert torch.float32 == store.images([0]).planes[10].dtype
    assert -10.59 + 1 / 8 == pytest.approx(
        float(store.images([0]).planes[10][0, 0].min()), abs=1e-6
    )


def test_pack_with_a_broken_patch(v1: Path) -> None:
    """A half-copied patch is passed over and listed, or stops the run where all are required."""
    file = v1 / "BigEarthNet-v1.0" / SNOW / f"{SNOW}_B11.tif"
    file.write_bytes(file.read_bytes()[:-200])
    report = pack_bigearthnet(settings(v1, excluded=True))

    assert [SNOW] == list(report.store.quarantined)
    assert 2 == report.store.windows


def test_all_required(v1: Path) -> None:
    """With --require all, patches that the lists name must be there."""
    with pytest.raises(DataError, match="patches are missing") as caught:
        pack_bigearthnet(settings(v1, require="all"))
    assert "2 that the lists name" in caught.value.found


def test_missing_band_where_all_are_required(v1: Path) -> None:
    """With --require all, a patch without a band stops the run."""
    for split, name in (("val", SNOW), ("test", ROCK)):
        (v1 / "splits" / f"{split}.csv").write_text(f"{name}\n")
    for file in (v1 / "splits").glob("patches_with*"):
        file.unlink()
    (v1 / "BigEarthNet-v1.0" / SNOW / f"{SNOW}_B11.tif").unlink()

    with pytest.raises(RasterError, match="no such file"):
        pack_bigearthnet(settings(v1, require="all"))


def test_no_patch_of_a_split(v1: Path) -> None:
    """A split of which nothing is on disk is an error."""
    with pytest.raises(DataError, match="no patch of this split"):
        pack_bigearthnet(settings(v1, split="test"))


def test_pack_the_published_pairs(real_data: Path, tmp_path: Path) -> None:
    """The six real pairs pack with the 43-class labels of their own cards."""
    for folder in ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"):
        (tmp_path / folder).symlink_to(real_data / "bigearthnet_v1" / folder)
    config = PackBigEarthNetConfig(
        root=str(tmp_path), out=str(tmp_path / "store"), sensor="s1-grd", classes=43
    )

    assert 6 == pack_bigearthnet(config).store.labelled
    store = Store(tmp_path / "store")
    for i, name in enumerate(store.ids):
        card = tmp_path / "BigEarthNet-v1.0" / str(name) / f"{name}_labels_metadata.json"
        hot = store.labels([i]).multi_hot[0]
        labels = {CLASSES_43[k] for k in hot.nonzero().flatten()}
        assert set(json.loads(card.read_text())["labels"]) == labels
