"""BigEarthNet as a task: real v1 pairs, a v2 miniature joined with the real tables, its lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import ben_world
import pytest

from eofm.bench.predictions import load_predictions
from eofm.bench.run import BenchReport, bench
from eofm.bench.samples import load
from eofm.datasets.bigearthnet import CLASSES_19, CLASSES_43, BenchBigEarthNetConfig, Version
from eofm.datasets.bigearthnet.chips import GOLDEN, GOLDEN_CLASSES, first_share
from eofm.datasets.bigearthnet.patches import Listing, read_lists, read_tables
from eofm.datasets.images.chips import class_counts
from eofm.datasets.registry import TASKS, find_task
from eofm.errors import ConfigError, DataError, LabelError, RasterError, SpecMismatch
from eofm.store.splits import subset_hash

# arXiv 2407.03653: patches of train, val and test with each class, in the official order
V2_COUNTS = {
    "train": (
        *(33626, 6398, 88236, 15190, 42968, 51034, 60127, 15082, 64164, 76344, 78791),
        *(6984, 6329, 64198, 738, 11344, 670, 30466, 35914),
    ),
    "val": (
        *(17308, 2726, 49737, 8688, 25915, 26486, 32736, 8157, 35387, 39554, 42705),
        *(2687, 3806, 36429, 426, 5056, 610, 15900, 14064),
    ),
    "test": (
        *(12824, 2018, 50052, 5710, 26722, 22078, 29846, 9942, 36377, 39043, 44284),
        *(2211, 3759, 40523, 152, 4519, 117, 16846, 11854),
    ),
}


@pytest.fixture(scope="module")
def tables(real_data: Path) -> Listing:
    """The published tables of version 2."""
    return read_tables(real_data / "bigearthnet_v2")


def settings(root: Path, folder: Path, **options: object) -> BenchBigEarthNetConfig:
    """Settings whose files lie in `folder`, with few resamples and no controls."""
    files = {"out": str(folder / "results.jsonl"), "cache": str(folder / "cache")}
    defaults = {"bootstrap": 50, "controls": False, "probe": "knn", "k": 3}
    return BenchBigEarthNetConfig(str(root), **{**files, **defaults, **options})  # type: ignore[arg-type]


# ------------------------------------------------------------------------ lists and labels


@pytest.mark.slow
def test_class_counts_are_the_published_ones(tables: Listing) -> None:
    """The 480,038 recommended patches have, class by class, the labels the paper counts."""
    counts = {split: Counter[str]() for split in V2_COUNTS}
    for name, split in tables.splits.items():
        if name not in tables.excluded:
            counts[split].update(tables.labels[name])

    found = {split: tuple(counts[split][c] for c in CLASSES_19) for split in counts}

    assert found == V2_COUNTS


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_lists_are_those_the_task_declares(
    version: str, real_data: Path, request: pytest.FixtureRequest
) -> None:
    """Counts and hashes of every official split, and of its 1 % and 10 %, stand in the table."""
    listing = (
        read_lists(real_data / "bigearthnet_v1" / "splits")
        if version == "v1"
        else request.getfixturevalue("tables")
    )
    for declared in TASKS[f"bigearthnet-{version}-s2"].splits:
        ids = {
            split: listing.patches(split, excluded="snow" in declared.rule)
            for split in declared.counts
        }
        percent = next((p for p in (1, 10) if f"{p} % of train" in declared.rule), 100)
        ids["train"] = first_share(ids["train"], f"bigearthnet-{version}", percent)

        assert declared.counts == {split: len(found) for split, found in ids.items()}
        for split, expected in declared.sha256.items():
            assert expected == subset_hash(ids[split])


def test_fractions_are_nested_and_do_not_depend_on_order() -> None:
    """The first 1 % lie within the first 10 %, rounded up, whatever the order of the file."""
    ids = [f"patch_{i}" for i in range(250)]

    one, ten = first_share(ids, "x", 1), first_share(ids[::-1], "x", 10)

    assert (3, 25) == (len(one), len(ten))
    assert set(one) < set(ten)


# ------------------------------------------------------------------------------ miniatures


@pytest.fixture(scope="module")
def v2(tables: Listing, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2 in its true layout: real names, some of every split, and the golden patch."""
    root = tmp_path_factory.mktemp("v2")
    partners = {name: radar for radar, name in tables.optical_of.items()}
    golden = GOLDEN[Version.V2]
    chosen = [golden]
    for split, count in (("train", 10), ("val", 4), ("test", 3)):
        names = [n for n in tables.patches(split, excluded=False) if n != golden]
        chosen += names[:: len(names) // count][:count]
    for seed, name in enumerate(chosen):
        folder = root / "BigEarthNet-S2" / name.rsplit("_", 2)[0] / name
        ben_world.write_patch(folder, ben_world.OPTICAL, seed)
        radar = partners[name]
        folder = root / "BigEarthNet-S1" / radar.rsplit("_", 3)[0] / radar
        ben_world.write_patch(folder, ("VV", "VH"), seed)
    return root


@pytest.mark.slow
def test_a_miniature_joined_with_the_real_tables(
    v2: Path, real_data: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    """Both sensors, real splits and labels, every probe; the table says how much is missing."""
    metadata = str(real_data / "bigearthnet_v2")
    model = f"imagestats,rcf,random:resnet18,mine={encoder_folder}"

    report = bench(settings(v2, tmp_path, metadata=metadata, model=model, probe="knn,linear"))

    sample = report.results[0].sample
    assert (10, 4, 4) == (sample.n_train, sample.n_val, sample.n_test)
    assert not sample.complete
    assert {"ap_micro", "ap_macro"} == {r.metric for r in report.results}
    text = report.describe()
    assert "480020 of 480038 patches are not on disk" in text
    assert "waiver: AcceptSensor" in text
    assert "waiver: FillBand(band='B10'" in text
    assert "**bigearthnet-v2-s2** version 1, split `official`" in text


@pytest.mark.slow
def test_the_golden_patch_has_its_labels(v2: Path, real_data: Path, tmp_path: Path) -> None:
    """{8, 11, 13} in the official order; a faulty mapping once gave {10, 17}."""
    config = settings(v2, tmp_path, metadata=str(real_data / "bigearthnet_v2"))

    chips = load(config).chips

    golden = next(chip for chip in chips.splits["test"] if chip.id == GOLDEN[Version.V2])
    assert GOLDEN_CLASSES == golden.label
    assert 1 == class_counts([golden], CLASSES_19)["Broad-leaved forest"]


# ------------------------------------------------------------------------- six real pairs


@pytest.fixture(scope="module")
def v1(real_data: Path) -> Path:
    """The six real pairs: four of train, one of test, one under snow."""
    return real_data / "bigearthnet_v1"


def run_v1(root: Path, folder: Path, **options: object) -> BenchReport:
    """A run on version 1."""
    return bench(settings(root, folder, version="v1", **options))


@pytest.mark.slow
def test_real_pairs_of_every_sensor(v1: Path, tmp_path: Path) -> None:
    """Sentinel-2, Sentinel-1 and both: four train patches, one test patch, the snow left out."""
    for sensor, bands in (("s2", 12), ("s1", 2), ("both", 14)):
        report = run_v1(v1, tmp_path, sensor=sensor, model="imagestats,rcf,rcf-zca")

        sample = report.results[0].sample
        assert (4, 0, 1) == (sample.n_train, sample.n_val, sample.n_test)
        assert f"bigearthnet-v1-{sensor}" == report.results[0].task
        stats = next(r.model for r in report.results if r.model.name == "imagestats")
        assert sum(int(w) for w in stats.about.split() if w.isdigit()) == bands


@pytest.mark.slow
def test_both_sensors_take_two_encoders(
    v1: Path, encoder_folder: Path, radar_folder: Path, tmp_path: Path
) -> None:
    """Features stand side by side; one encoder alone, or the wrong way round, is refused."""
    pair = f"{encoder_folder}+{radar_folder}"

    report = run_v1(v1, tmp_path, sensor="both", model=f"pair={pair}", controls=True)

    names = {r.model.name for r in report.results}
    assert {"pair", "imagestats", "rcf", "rcf-zca", "random"} == names
    (model,) = {r.model for r in report.results if r.model.name == "pair"}
    assert any("VV" in line for line in model.plan)
    assert any("B8A" in line for line in model.plan)
    with pytest.raises(ConfigError, match="an encoder for each"):
        run_v1(v1, tmp_path, sensor="both", model=str(encoder_folder))
    with pytest.raises(SpecMismatch, match="another sensor"):
        run_v1(v1, tmp_path, sensor="both", model=f"x={radar_folder}+{encoder_folder}")


def test_a_linear_probe_needs_a_val_split(v1: Path, tmp_path: Path) -> None:
    """The six pairs have none: C is not chosen on test instead."""
    with pytest.raises(ConfigError, match="validation"):
        run_v1(v1, tmp_path, probe="linear")


def test_43_classes_are_those_of_version_1(v1: Path, tmp_path: Path) -> None:
    """By name, in the official order; version 2 has none."""
    loaded = load(settings(v1, tmp_path, version="v1", classes=43))

    assert CLASSES_43 == loaded.chips.classes
    assert find_task("bigearthnet-v1-s2-43") is loaded.task
    with pytest.raises(ConfigError, match="19 classes"):
        settings(v1, tmp_path, classes=43)


# ------------------------------------------------------------------------------ bad input


def test_the_other_version_is_refused(v1: Path, tmp_path: Path) -> None:
    """Half of the test patches of v2 were training patches of v1."""
    with pytest.raises(DataError, match="another version") as caught:
        bench(settings(v1, tmp_path))

    assert "--version v1" in str(caught.value)
    with pytest.raises(ConfigError, match="no patch under snow"):
        run_v1(v1, tmp_path, excluded=True)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("BigEarthNet-S2.tar.zst", "unpack BigEarthNet-S2.tar.zst first"),
        ("BigEarthNet-S2.tar.zst.part", "a download that has not ended"),
    ],
)
def test_archives_in_the_wrong_place_are_named(tmp_path: Path, file: str, says: str) -> None:
    """A folder with an archive, whole or half, says what to do with it."""
    (tmp_path / file).touch()

    with pytest.raises(DataError, match="no BigEarthNet folder") as caught:
        bench(settings(tmp_path, tmp_path))

    assert says in str(caught.value)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A v2 miniature with tables of its own: two patches of train, one each of val and test."""
    patches = {}
    for seed, split in enumerate(("train", "train", "validation", "test")):
        name = f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_{seed + 10}"
        radar = f"S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_{seed + 10}"
        patches[name] = (radar, ["Pastures"] if seed % 2 else ["Mixed forest"], split, False)
        folder = tmp_path / "ben" / "BigEarthNet-S2" / name.rsplit("_", 2)[0] / name
        ben_world.write_patch(folder, ben_world.OPTICAL, seed)
    ben_world.write_tables(tmp_path / "ben", patches)
    return tmp_path / "ben"


def test_a_missing_band_is_named(small: Path, tmp_path: Path) -> None:
    """A patch that lost a file in unpacking stops the run."""
    lost = next(iter(small.rglob("*_B8A.tif")))
    lost.unlink()

    with pytest.raises(RasterError, match=r"cannot be read|no such file|lacks") as caught:
        bench(settings(small, tmp_path, k=1))

    assert "B8A" in str(caught.value)


def test_foreign_label_names_are_refused(small: Path, tmp_path: Path) -> None:
    """A table whose labels are not the 19 is another data set."""
    name = next(iter((small / "BigEarthNet-S2").rglob("*_26_10"))).name
    ben_world.write_tables(small, {name: ("S1", ["Pasture lands"], "train", False)})

    with pytest.raises(LabelError, match="not among the 19"):
        bench(settings(small, tmp_path, k=1))


def test_a_whole_data_set_is_complete(small: Path, tmp_path: Path) -> None:
    """All patches that the tables name are there: no subset."""
    report = bench(settings(small, tmp_path, k=1))

    record = report.results[0]
    assert record.sample.complete
    assert "subset" not in report.describe()
    assert (1, "Sentinel-2 products") == (record.sample.groups, record.sample.grouping)
    kept = load_predictions(tmp_path / record.predictions)
    assert ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP",) == kept.groups
    assert ("Austria",) == kept.countries


def test_missing_radar_is_named(small: Path, tmp_path: Path) -> None:
    """Sentinel-1 was not downloaded."""
    with pytest.raises(DataError, match="a split has no image"):
        bench(settings(small, tmp_path, sensor="s1"))
