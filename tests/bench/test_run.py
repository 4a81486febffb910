"""The whole benchmark: in miniature, on real tiles, and with everything that can be wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from eofm.bench.records import Result, read_results
from eofm.bench.run import BenchReport, bench
from eofm.cli import main
from eofm.contract.imagery import Imagery
from eofm.datasets.eurosat import CLASSES, BenchEurosatConfig, open_eurosat
from eofm.datasets.images.chips import FilePixels, source_of
from eofm.errors import DataError, PixelError, RasterError, SpecMismatch


def settings(root: Path, folder: Path, **options: object) -> BenchEurosatConfig:
    """Settings whose files lie in `folder`, with few resamples."""
    files = {"out": str(folder / "results.jsonl"), "cache": str(folder / "cache")}
    return BenchEurosatConfig(str(root), **{**files, "bootstrap": 50, "controls": False, **options})  # type: ignore[arg-type]


def one(report: BenchReport, model: str, kind: str, metric: str = "oa") -> Result:
    """The record of one model, probe and metric."""
    return next(
        r
        for r in report.results
        if (r.model.name, r.metric) == (model, metric) and r.probe.startswith(kind)
    )


@pytest.fixture(scope="module")
def report(
    eurosat: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> BenchReport:
    """One run with an encoder and all controls."""
    folder = tmp_path_factory.mktemp("run")
    config = settings(eurosat, folder, model=str(encoder_folder), controls=True)
    return bench(config)


def test_every_model_gets_every_probe_and_metric(report: BenchReport) -> None:
    """Five models, two probes, two metrics, all on the same samples."""
    found = [(r.model.name, r.probe.partition("[")[0], r.metric) for r in report.results]

    models = ("mine", "imagestats", "rcf", "rcf-zca", "random")
    probes, metrics = ("knn", "linear"), ("oa", "aa")
    assert [(m, p, k) for m in models for p in probes for k in metrics] == found
    assert {(40, 20, 20)} == {
        (r.sample.n_train, r.sample.n_val, r.sample.n_test) for r in report.results
    }
    assert 1 == len({r.sample for r in report.results})


def test_scores_are_plausible(report: BenchReport) -> None:
    """Ten tinted classes are told apart by their statistics, far above the chance of 0.1."""
    for kind in ("knn", "linear"):
        result = one(report, "imagestats", kind)
        assert 0.5 < result.value <= 1
        assert result.interval.low <= result.value <= result.interval.high


def test_a_record_tells_how_it_was_made(report: BenchReport) -> None:
    """Plan in words and as a hash, recipe, weights, probe, versions, command."""
    result = one(report, "mine", "linear")

    assert any("B8A" in line for line in result.model.plan)
    assert {64} == {
        len(value)
        for value in (
            result.model.plan_sha256,
            result.model.recipe_sha256,
            result.model.weights_sha256,
            result.sample.ids_sha256,
            result.sample.data_sha256,
        )
    }
    assert "linear[lbfgs,C40,val,norefit,none]" == result.probe
    assert "linear[lbfgs,C40,val,norefit,standard]" == one(report, "imagestats", "linear").probe
    assert result.gradient_norm is not None
    assert result.gradient_norm < 1e-6
    assert result.made.command.startswith("eofm bench eurosat --root")
    assert not result.sample.complete


def test_controls_carry_no_flags_of_their_own(report: BenchReport) -> None:
    """A yardstick is not measured by another."""
    assert all(not r.flags for r in report.results if r.model.control and "knn" in r.probe)


def test_the_table_and_the_file_hold_the_same(report: BenchReport) -> None:
    """All records were new, are in the file, and the table names each model."""
    assert list(report.results) == read_results(report.out)
    assert len(report.results) == report.appended
    text = report.describe()
    for name in ("mine", "*imagestats*", "*random*", "*rcf-zca*", "20 new records"):
        assert name in text


def test_a_second_run_finds_the_same(
    report: BenchReport, eurosat: Path, encoder_folder: Path
) -> None:
    """From the cache: equal values, nothing appended."""
    config = settings(eurosat, report.out.parent, model=str(encoder_folder), controls=True)

    again = bench(config)

    assert [r.value for r in report.results] == [r.value for r in again.results]
    assert 0 == again.appended
    assert "20 known" in again.describe()


def test_without_cache_the_numbers_are_the_same(
    report: BenchReport, eurosat: Path, tmp_path: Path
) -> None:
    """Batch size and cache are no part of a score."""
    config = settings(eurosat, tmp_path, cache="", batch=7, probe="knn")

    fresh = bench(config)

    assert one(report, "imagestats", "knn").value == one(fresh, "imagestats", "knn").value
    assert not (tmp_path / "cache").exists()


def test_the_published_layout_is_scored_by_its_splits(eurosat: Path, tmp_path: Path) -> None:
    """Undivided tiles are divided by hash or by longitude; the record says which."""
    for path in eurosat.rglob("*.tif"):
        (tmp_path / "all" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "all" / path.parent.name)

    reports = [
        bench(settings(tmp_path / "all", tmp_path, split=split, probe="knn"))
        for split in ("auto", "stratified")
    ]

    assert ["spatial", "stratified"] == [r.results[0].sample.split for r in reports]
    samples = [r.results[0].sample for r in reports]
    assert (48, 16, 16) == (samples[0].n_train, samples[0].n_val, samples[0].n_test)
    assert samples[0].ids_sha256 != samples[1].ids_sha256


def test_a_limit_is_marked(eurosat: Path, tmp_path: Path) -> None:
    """Fewer tiles are another sample, and the table calls it a subset."""
    report = bench(settings(eurosat, tmp_path, limit=12, probe="knn", k=3))

    sample = report.results[0].sample
    assert (12, 12, 12) == (sample.n_train, sample.n_val, sample.n_test)
    assert "subset" in report.describe()
    assert "--limit 12" in report.describe()


def test_copies_of_training_tiles_are_counted(eurosat: Path, tmp_path: Path) -> None:
    """A test tile that is a training tile under another name is reported."""
    shutil.copytree(eurosat, tmp_path / "set")
    shutil.copy(tmp_path / "set/train/River/River_0.tif", tmp_path / "set/test/River/River_99.tif")

    report = bench(settings(tmp_path / "set", tmp_path, probe="knn"))

    assert 1 == report.results[0].sample.copies
    assert "1 test samples are copies" in report.describe()


# ----------------------------------------------------------------------------- bad input


def test_an_encoder_of_another_sensor_is_refused(
    eurosat: Path, radar_folder: Path, tmp_path: Path
) -> None:
    """A Sentinel-1 network does not see Sentinel-2, and nothing is written."""
    with pytest.raises(SpecMismatch, match="another sensor"):
        bench(settings(eurosat, tmp_path, model=str(radar_folder)))

    assert not list(tmp_path.iterdir())


def rewrite(root: Path, change: object) -> None:
    """Put every tile's pixels through `change`."""
    for path in root.rglob("*.tif"):
        with rasterio.open(path, "r+") as file:
            file.write(change(file.read()).astype(np.uint16))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x + 1000, "seem to carry it"),
        (lambda x: x[[0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11]], "stated order"),
        (lambda x: x // 10 + 1, "never this dark"),
    ],
    ids=["offset", "band order", "unit"],
)
def test_pixels_that_contradict_the_data_set_are_refused(
    eurosat: Path, tmp_path: Path, change: object, message: str
) -> None:
    """Re-exported tiles with an offset, in the usual band order or as bytes score nothing."""
    shutil.copytree(eurosat, tmp_path / "set")
    rewrite(tmp_path / "set", change)

    with pytest.raises(PixelError, match=message) as caught:
        bench(settings(tmp_path / "set", tmp_path))

    assert str(tmp_path / "set") in str(caught.value)


def test_pixels_that_passed_are_not_read_again_and_others_are(
    eurosat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second probe opens no image; a set that changes under the same cache is looked at anew,
    and what was refused once is refused again.
    """
    shutil.copytree(eurosat, tmp_path / "set")
    config = settings(tmp_path / "set", tmp_path, probe="knn")
    first = bench(config)

    def read(self: FilePixels) -> Imagery:
        raise AssertionError("a pixel was read")

    with monkeypatch.context() as patch:
        patch.setattr(FilePixels, "read", read)
        second = bench(replace(config, probe="nmc"))
    rewrite(tmp_path / "set", lambda x: x + 1000)

    parameters = {r.model.name: r.parameters for r in first.results}
    assert parameters == {r.model.name: r.parameters for r in second.results}
    for _ in range(2):
        with pytest.raises(PixelError, match="seem to carry it"):
            bench(replace(config, probe="nmc"))


def test_a_broken_tile_stops_the_run(eurosat: Path, tmp_path: Path) -> None:
    """No score is computed on what is left; earlier records stay."""
    shutil.copytree(eurosat, tmp_path / "set")
    bench(settings(tmp_path / "set", tmp_path, probe="knn"))
    before = (tmp_path / "results.jsonl").read_bytes()
    broken = tmp_path / "set" / "test" / "River" / "River_7.tif"
    broken.write_bytes(broken.read_bytes()[:4000])

    with pytest.raises(RasterError, match=r"River_7\.tif"):
        bench(settings(tmp_path / "set", tmp_path, probe="knn"))

    assert before == (tmp_path / "results.jsonl").read_bytes()


def test_a_torn_results_file_is_noticed_before_the_work(eurosat: Path, tmp_path: Path) -> None:
    """Not after minutes of embedding."""
    (tmp_path / "results.jsonl").write_text('{"key": "x')

    with pytest.raises(DataError, match="no result"):
        bench(settings(eurosat, tmp_path))

    assert not (tmp_path / "cache").exists()


def test_the_command_line_does_the_same(
    eurosat: Path, tmp_path: Path, report: BenchReport, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the table and ends with 0; a wrong folder ends with 1 and one message."""
    words = ["bench", "eurosat", "--cache", str(tmp_path / "c"), "--bootstrap", "50"]
    words += ["--out", str(tmp_path / "cli.jsonl"), "--probe", "knn", "--controls", "false"]

    assert 0 == main([*words, "--root", str(eurosat)])
    assert "*imagestats*" in capsys.readouterr().out
    assert 1 == main([*words, "--root", str(tmp_path)])
    assert "no EuroSAT folder" in capsys.readouterr().err
    assert 2 == main([*words, "--root", str(eurosat), "--prob", "knn"])
    (written, _) = read_results(tmp_path / "cli.jsonl")
    expected = one(report, "imagestats", "knn")
    assert expected.value == written.value
    assert expected.key == replace(written, sample=expected.sample).key


# ----------------------------------------------------------------------------- real data


def plain_statistics(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean, sd, maximum, minimum of every band, by numpy from the files; labels from folders."""
    found = {}
    for split, tiles in open_eurosat(root).splits.items():
        rows, paths = [], [source_of(tile).files[0] for tile in tiles]
        for path in paths:
            with rasterio.open(path) as file:
                x = file.read().reshape(13, -1).astype(np.float64)
            rows.append(np.concatenate([x.mean(1), x.std(1, ddof=1), x.max(1), x.min(1)]))
        labels = np.array([CLASSES.index(path.parent.name) for path in paths])
        found[split] = np.array(rows), labels
    return found


@pytest.mark.slow
def test_real_tiles_score_as_in_a_plain_script(real_data: Path, tmp_path: Path) -> None:
    """numpy, scikit-learn's scaler and its kNN give exactly our accuracy; the linear one too."""
    root = real_data / "eurosat_ms"

    report = bench(settings(root, tmp_path, bootstrap=1000))

    splits = plain_statistics(root)
    scaler = StandardScaler().fit(splits["train"][0])
    (train, train_y), (test, test_y) = (
        (scaler.transform(splits[s][0]), splits[s][1]) for s in ("train", "test")
    )
    knn = KNeighborsClassifier(5, algorithm="brute").fit(train, train_y)
    ours = one(report, "imagestats", "knn")
    assert knn.score(test, test_y) == pytest.approx(ours.value, abs=1e-12)
    linear = one(report, "imagestats", "linear")
    assert linear.strength is not None
    logistic = LogisticRegression(C=linear.strength, solver="newton-cg", tol=1e-8, max_iter=500)
    assert logistic.fit(train, train_y).score(test, test_y) == pytest.approx(linear.value)
    for result in (ours, linear):
        assert result.value > 0.5
        assert result.interval.low < result.value < result.interval.high
    assert "subset" in report.describe()


@pytest.mark.slow
def test_a_real_run_compares_an_encoder_with_its_controls(
    real_data: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    """An untrained encoder on real tiles is above chance and flagged where it does not win."""
    model = f"{encoder_folder},imagestats"
    config = settings(real_data / "eurosat_ms", tmp_path, model=model, probe="knn")

    report = bench(config)

    mine, stats = one(report, "mine", "knn"), one(report, "imagestats", "knn")
    assert mine.value > 0.15
    flagged = any("imagestats" in flag for flag in mine.flags)
    assert flagged == (mine.value <= stats.value)
    assert torch.get_num_threads() >= 1


@pytest.mark.slow
def test_runs_side_by_side_share_a_cold_cache(
    eurosat: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    """Six at once, of one cache and one file of records: none fails, and all agree."""
    words = [sys.executable, "-m", "eofm.cli", "bench", "eurosat", "--root", str(eurosat)]
    words += ["--model", f"mine={encoder_folder},imagestats", "--probe", "knn", "--bootstrap", "9"]
    words += ["--controls", "false", "--limit", "20"]
    words += ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "r.jsonl")]

    runs = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    said = [run.communicate()[1] for run in runs]

    assert [0] * 6 == [run.returncode for run in runs], said
    assert 4 == len(read_results(tmp_path / "r.jsonl"))
    left = [*tmp_path.glob("cache/.*.tmp"), *tmp_path.glob("predictions/.*.tmp")]
    assert [] == left
