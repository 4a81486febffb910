"""The table of tasks, and small runs of each kind of data set from folder to table."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from eofm.bench.config import BenchConfig
from eofm.bench.run import BenchReport, bench
from eofm.bench.samples import load
from eofm.cli import VERBS, main
from eofm.contract.recipe import Recipe
from eofm.contract.spec import SENSOR_BANDS, Normalization, Sensor, Unit
from eofm.datasets import dfc2020, sat6, treesatai
from eofm.datasets.base import Task, TaskKind
from eofm.datasets.bigearthnet import BenchBigEarthNetConfig
from eofm.datasets.folder import BenchFolderConfig
from eofm.datasets.registry import TASKS, find_task
from eofm.datasets.sat6 import BenchSat6Config
from eofm.datasets.so2sat import BenchSo2SatConfig
from eofm.datasets.treesatai import FILE_ORDER, BenchTreeSatAIConfig
from eofm.errors import ConfigError, DataError, PixelError
from eofm.store.splits import hold_out
from eofm.weights.encoder import random_encoder, save_encoder


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_declarations_do_not_contradict_themselves(task: Task) -> None:
    """Bands of the sensor, classes once each, counts that add up, a reason for each waiver."""
    for spec in task.specs:
        assert set(spec.bands) <= set(SENSOR_BANDS[spec.sensor])
        assert spec.size is not None
    assert len(task.classes) == len(set(task.classes)) > 1
    assert (task.kind is TaskKind.SEVERAL_CLASSES) == task.metrics[0].startswith("ap")
    assert all(waiver.why for waiver in task.waivers)
    for split in task.splits:
        assert {"train", "val", "test"} == set(split.counts)
        assert set(split.sha256) <= set(split.counts)
        assert all(len(digest) == 64 for digest in split.sha256.values())
    if task.splits and "bigearthnet" not in task.name:
        assert task.size == sum(task.splits[0].counts.values())


def test_an_unknown_task_is_named() -> None:
    """With those that are spelt alike."""
    with pytest.raises(ConfigError, match="no task") as caught:
        find_task("bigearthnet-v2")

    assert "bigearthnet-v2-s" in str(caught.value)


def test_settings_without_a_data_set_are_refused() -> None:
    """The base of all settings names none."""
    with pytest.raises(ConfigError, match="no data set"):
        load(BenchConfig("x"))


def test_every_task_has_a_verb() -> None:
    """From the command line each of them can be reached."""
    verbs = {name.split()[1] for name in VERBS if name.startswith("bench ")}

    assert {name.partition("-")[0] for name in TASKS} <= verbs


# ---------------------------------------------------------------------------- small runs


def write(path: Path, levels: np.ndarray, side: int, dtype: str, seed: int) -> None:
    """Write an image: a level per band, with noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    values = levels[:, None, None] * rng.uniform(0.8, 1.2, (len(levels), side, side))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=dtype,
        count=len(levels),
        height=side,
        width=side,
        crs="EPSG:25832",
        transform=Affine(10, 0, 500_000, 0, -10, 5_800_000),
    ) as file:
        file.write(values.astype(dtype))


def run(config_type: type[BenchConfig], root: Path, out: Path, **options: object) -> BenchReport:
    """One run with two controls and few resamples."""
    settings = {
        "model": "imagestats,rcf",
        "controls": False,
        "bootstrap": 20,
        "out": str(out / "results.jsonl"),
        "cache": str(out / "cache"),
        "k": 3,
        **options,
    }
    return bench(config_type(str(root), **settings))  # type: ignore[arg-type]


def bright(kind: int, bands: int = 4) -> np.ndarray:
    """Levels of a class: 0 is dark, 1 is bright."""
    return (400.0 + 300 * kind) * np.linspace(1, 2, bands)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A labelled folder of two classes that differ in brightness."""
    root = tmp_path / "mine"
    for kind, name in enumerate(("dark", "bright")):
        for number in range(12):
            split = "train" if number < 8 else "test"
            path = root / split / name / f"{number}.tif"
            write(path, bright(kind), 16, "uint16", 100 * kind + number)
    return root


FOUR = {"sensor": "s2-l2a", "unit": "dn", "bands": "B02,B03,B04,B08"}


def test_an_own_folder_of_one_label(folder: Path, tmp_path: Path) -> None:
    """Two classes that differ are told apart by every probe; the set is complete as it is."""
    report = run(BenchFolderConfig, folder, tmp_path, **FOUR)

    assert {"folder-mine"} == {r.task for r in report.results}
    assert all(r.value == 1 for r in report.results if r.metric == "oa")
    assert report.results[0].sample.complete


def test_an_own_folder_of_several_labels(folder: Path, tmp_path: Path) -> None:
    """The same images by a table; scored by average precision."""
    lines = ["file,split,labels"]
    for path in sorted(folder.rglob("*.tif")):
        split, name = path.parts[-3:-1]
        number = int(path.stem)
        split = "val" if number in {6, 7} else split
        both = ";ground" if number % 2 else ""
        lines.append(f"{path.relative_to(folder)},{split},{name}{both}")
    (folder / "labels.csv").write_text("\n".join(lines))

    report = run(BenchFolderConfig, folder, tmp_path, **FOUR)

    assert {"ap_micro", "ap_macro"} == {r.metric for r in report.results}
    assert all(r.value > 0.5 for r in report.results)


def test_a_wrong_unit_is_noticed_before_any_feature(folder: Path, tmp_path: Path) -> None:
    """Digital numbers declared as reflectance: refused, nothing cached."""
    with pytest.raises(PixelError, match="not in the range of unit"):
        run(BenchFolderConfig, folder, tmp_path, **{**FOUR, "unit": "reflectance"})

    assert not (tmp_path / "cache").exists()


def test_a_wrong_root_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb ends with status 1 and one message that names the folder."""
    verbs = ("eurosat", "bigearthnet", "folder", "so2sat", "treesatai", "ucmerced", "resisc45")
    for verb in (*verbs, "sat6"):
        assert 1 == main(["bench", verb, "--root", str(tmp_path / "nowhere")])
        message = capsys.readouterr().err
        assert f"eofm bench {verb}: error: " in message
        assert "nowhere" in message


def test_treesatai_runs(tmp_path: Path) -> None:
    """From lists, shares and tiny images to average precision."""
    root, shares = tmp_path / "trees", {}
    for number in range(30):
        kind = number % 2
        name = f"Tree_{number}_WEFL_NLF.tif"
        shares[name] = [["Fagus" if kind else "Picea", 0.9], ["Larix", 0.05 + 0.05 * (number % 3)]]
        levels = bright(kind, len(FILE_ORDER))
        write(root / "s2" / "60m" / name, levels, 6, "int16", number)
    (root / "labels").mkdir()
    (root / "labels" / "TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(shares))
    (root / "train_filenames.lst").write_text("\n".join(list(shares)[:24]))
    (root / "test_filenames.lst").write_text("\n".join(list(shares)[24:]))

    report = run(BenchTreeSatAIConfig, root, tmp_path, probe="knn")

    assert "treesatai-60m-over7" == report.results[0].task
    assert all(r.value > 0.5 for r in report.results)
    assert "above 7 %" in report.describe()


def test_so2sat_runs_on_both_sensors(tmp_path: Path) -> None:
    """Reflectance and power as declared; the radar network would get decibels."""
    h5py = pytest.importorskip("h5py", reason="h5py is an extra")
    rng = np.random.default_rng(0)
    for split, count in (("training", 34), ("validation", 17), ("testing", 17)):
        root = tmp_path / "so2sat"
        root.mkdir(exist_ok=True)
        labels = np.arange(count) % 17
        noise = rng.uniform(0.9, 1.1, (count, 32, 32, 1)) * (1 + labels[:, None, None, None] / 8)
        with h5py.File(root / f"{split}.h5", "w") as file:
            file["sen1"] = np.array([-0.02, 0.03, -0.05, 0.06, 0.012, 0.055, 0.004, -0.003]) * noise
            file["sen2"] = np.linspace(0.1, 0.2, 10) * noise
            file["label"] = np.eye(17)[labels]

    for sensor in ("s2", "s1"):
        report = run(
            BenchSo2SatConfig, root, tmp_path, version="v2", sensor=sensor, probe="nmc,knn", k=1
        )

        assert f"so2sat-v2-{sensor}" == report.results[0].task
        assert max(r.value for r in report.results) > 0.3
        assert not report.results[0].sample.copies


def test_sat6_runs(tmp_path: Path, picture_folder: Path) -> None:
    """Aerial images: controls see four bands, a network for pictures takes three of them by name.

    The exception for another sensor is granted by the task, and stands in the record.
    """
    scipy_io = pytest.importorskip("scipy.io", reason="SciPy is an extra")
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 60), ("test", 12)):
        labels = np.arange(count) % 6
        noise = rng.integers(0, 20, (28, 28, 4, count), dtype=np.uint8)
        arrays[f"{split}_x"] = noise + (30 * labels).astype(np.uint8)
        arrays[f"{split}_y"] = np.eye(6)[labels].T
    scipy_io.savemat(tmp_path / "sat-6-full.mat", arrays)

    report = run(
        BenchSat6Config,
        tmp_path,
        tmp_path / "out",
        model=f"imagestats,net={picture_folder}",
        probe="knn",
    )

    values = {r.model.name: r.value for r in report.results if r.metric == "oa"}
    assert 1 == values["imagestats"]
    by_name = {r.model.name: r.model for r in report.results}
    assert "4 bands in uint8" in by_name["imagestats"].about
    assert ["AcceptSensor"] == [w.partition("(")[0] for w in by_name["net"].waivers]
    assert any("select bands R G B" in step for step in by_name["net"].plan)


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """An untrained encoder of pictures, on disk."""
    norm = Normalization.divide(255, 3, "8 bits to [0, 1]")
    recipe = Recipe(Sensor.RGB, ("R", "G", "B"), Unit.UINT8, (28, 28), norm)
    save_encoder(random_encoder("vit-tiny-14-2blocks", recipe, seed=5), tmp_path / "net")
    return tmp_path / "net"


def test_copernicus_bench_is_a_version_of_bigearthnet(tmp_path: Path) -> None:
    """Its own task: records never mix with those of v2; other options of v2 are refused."""
    config = BenchBigEarthNetConfig("x", version="copernicus-bench", sensor="s1")
    with pytest.raises(DataError, match="no such folder"):
        load(config)
    for options in ({"percent": 10}, {"excluded": True}, {"metadata": "y"}):
        with pytest.raises(ConfigError, match="taken as they are"):
            BenchBigEarthNetConfig("x", version="copernicus-bench", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="19 classes"):
        BenchBigEarthNetConfig("x", version="copernicus-bench", classes=43)
    assert TASKS["bigearthnet-copernicus-bench-s2"].dataset != TASKS["bigearthnet-v2-s2"].dataset


@pytest.mark.parametrize(
    ("task", "rule", "published"),
    [
        ("treesatai-60m-over7", "official, val held out", treesatai.COUNTS),
        ("sat6", "official, val held out", sat6.COUNTS),
        ("dfc2020-s2", "contest, val held out", dfc2020.COUNTS),
    ],
)
def test_declared_counts_are_those_of_the_rule(
    task: str, rule: str, published: dict[str, int]
) -> None:
    """A tenth of the published train is held out, rounded up."""
    (split,) = (s for s in TASKS[task].splits if s.rule == rule)
    ids = [str(n) for n in range(published["train"])]

    stay, taken = hold_out({"": ids}, "any", Fraction(1, 10))

    expected = {"train": len(stay), "val": len(taken), "test": published["test"]}
    assert expected == split.counts


def test_spatial_lists_name_every_tile_of_eurosat() -> None:
    """Counts and hashes of torchgeo's lists are part of the task; no two splits are alike."""
    (lists,) = (s for s in TASKS["eurosat"].splits if s.rule == "spatial-lists")

    assert 27_000 == sum(lists.counts.values())
    assert 3 == len(set(lists.sha256.values()))


def test_images_that_are_both_train_and_test_are_named(folder: Path, tmp_path: Path) -> None:
    """A table that lists one file in two splits is a leak."""
    lines = ["file,split,label"]
    for path in sorted(folder.rglob("*.tif")):
        split, name = path.parts[-3:-1]
        lines.append(f"{path.relative_to(folder)},{split},{name}")
    lines.append(lines[1].replace("test", "train", 1) if "test" in lines[1] else lines[1])
    (folder / "labels.csv").write_text("\n".join([*lines, lines[-1]]))

    with pytest.raises(DataError):
        run(BenchFolderConfig, folder, tmp_path, **FOUR)


def test_radar_bands_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    """VH declared as VV: 7 dB the wrong way round."""
    root = tmp_path / "radar"
    for number in range(10):
        split = "train" if number < 7 else "test"
        path = root / split / ("a" if number % 2 else "b") / f"{number}.tif"
        write(path, np.array([-18.7, -11.3]), 16, "float32", number)

    with pytest.raises(PixelError, match="VH is brighter than VV"):
        run(BenchFolderConfig, root, tmp_path, sensor=Sensor.S1_GRD.value, unit="db")
    report = run(
        BenchFolderConfig, root, tmp_path, sensor="s1-grd", unit="db", bands="VH,VV", probe="knn"
    )
    assert ["a", "b"] == list(
        load(BenchFolderConfig(str(root), sensor="s1-grd", unit="db", bands="VH,VV")).chips.classes
    )
    assert report.results
