"""Concept frequency: scores of classes over their counts in train, from records to a table."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from eofm.bench.config import RecordsExportConfig, TableConfig
from eofm.bench.predictions import load_predictions
from eofm.bench.records import Result, append_results, read_results
from eofm.bench.reports.classes import FEWEST_CLASSES, trend_of, trend_rows
from eofm.bench.reports.export import plot, print_table
from eofm.bench.run import bench
from eofm.cli import main
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.errors import ConfigError

COUNTS = (5, 10, 20, 40, 80, 160, 320, 640)


def settings(root: Path, out: Path) -> BenchEurosatConfig:
    """Band statistics by two probes, with few resamples."""
    return BenchEurosatConfig(
        str(root),
        model="imagestats",
        probe="knn,nmc",
        controls=False,
        out=str(out / "results.jsonl"),
        cache=str(out / "cache"),
        bootstrap=50,
    )


@pytest.fixture(scope="module")
def records(eurosat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a run whose classes have 2 to 6 training images, some tests mislabelled."""
    folder = tmp_path_factory.mktemp("counted")
    root = folder / "set"
    names = sorted(path.name for path in (eurosat / "train").iterdir())
    for place, name in enumerate(names):
        for split in ("train", "test"):
            own = names[place - 1] if split == "test" and place % 4 in (1, 2) else name
            files = sorted((eurosat / split / own).glob("*.tif"))
            kept = files[: 2 + place % 5] if split == "train" else files
            (root / split / name).mkdir(parents=True)
            for number, file in enumerate(kept):
                (root / split / name / f"{name}_{split}{number}.tif").symlink_to(file)
    bench(settings(root, folder))
    return folder / "results.jsonl"


def test_a_record_counts_the_labels_it_was_fitted_on(records: Path) -> None:
    """In the order of the classes, as many as there are training images; it is read as written."""
    found = read_results(records)

    for one in found:
        assert one.sample.n_train == sum(one.train_counts)
        assert 10 == len(one.train_counts)
        assert one == Result.from_line(one.to_line())
    assert len(set(found[0].train_counts)) > 2


@pytest.mark.parametrize("kind", ["knn", "nmc"])
def test_the_trend_is_that_of_scikit_learn_and_scipy(records: Path, kind: str) -> None:
    """Average precision of each class against its count, in a table with the rank correlation."""
    text = print_table(TableConfig(str(records), probe=kind, classes=True)).describe()
    (result, *_) = [r for r in read_results(records) if r.kind == kind]
    kept = load_predictions(records.parent / result.predictions)
    said = kept.scores if kept.probability is None else kept.probability
    hot = np.eye(10)[kept.target.numpy()]
    scores = [average_precision_score(hot[:, k], said[:, k]) for k in range(10)]
    expected = spearmanr(result.train_counts, scores).statistic

    (row,) = [line for line in text.splitlines() if "rank correlation" in line]
    assert f"{expected:+.2f} (" in row
    (forest,) = [line for line in text.splitlines() if line.startswith("| Forest |")]
    place = kept.classes.index("Forest")
    assert f"| {result.train_counts[place]} | {100 * scores[place]:.1f} (" in forest


@pytest.mark.slow
def test_the_trend_is_drawn(records: Path, tmp_path: Path) -> None:
    """A figure for each probe, beside the others."""
    said = plot(RecordsExportConfig(str(records), out=str(tmp_path), bootstrap=20)).describe()

    assert 2 == said.count("-frequency.png")


def test_a_rising_score_has_a_rising_trend() -> None:
    """Two points per doubling are 6.64 per decade; the interval holds them."""
    plain = torch.tensor([0.3 + 0.02 * k for k in range(8)], dtype=torch.float64)
    drawn = plain + 0.001 * torch.randn(200, 8, generator=torch.Generator().manual_seed(0))

    trend = trend_of(plain, drawn, COUNTS)

    assert trend is not None
    assert 1 == pytest.approx(trend.correlation.value)
    assert trend.slope is not None
    assert 0.02 / math.log10(2) == pytest.approx(trend.slope.value)
    assert trend.slope.low < trend.slope.value < trend.slope.high


def test_counts_that_are_nearly_equal_have_ranks_and_no_slope() -> None:
    """From 12 to 19 images, ten times as many is no longer in sight."""
    plain = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)

    near = trend_of(plain, plain.repeat(5, 1), (12, 13, 14, 15, 16, 17, 18, 19))
    wide = trend_of(plain, plain.repeat(5, 1), (12, 13, 14, 15, 16, 17, 18, 36))

    assert near is not None
    assert wide is not None
    assert 1 == pytest.approx(near.correlation.value)
    assert near.slope is None
    assert wide.slope is not None
    assert 1 == len(trend_rows({"a": near}))
    assert 2 == len(trend_rows({"a": near, "b": wide, "c": None}))


@pytest.mark.parametrize(
    ("counts", "absent"),
    [(COUNTS[:7], 0), (COUNTS, 1), ((0, *COUNTS[1:]), 0), ((7,) * 8, 0), ((), 0)],
    ids=["seven classes", "one not in test", "one not in train", "equal", "not counted"],
)
def test_few_or_equal_counts_tell_no_trend(counts: tuple[int, ...], absent: int) -> None:
    """Eight classes with both, and counts that differ, or nothing at all."""
    assert 8 == FEWEST_CLASSES
    plain = torch.linspace(0.1, 0.9, len(counts) or 8, dtype=torch.float64)
    plain[:absent] = math.nan

    assert trend_of(plain, plain.repeat(5, 1), counts) is None


def test_records_without_counts_are_told_what_to_do(
    records: Path, eurosat: Path, tmp_path: Path
) -> None:
    """Older records hold none; another file of the same run does, as the remedy says."""
    old = tmp_path / "old.jsonl"
    append_results(old, [replace(r, train_counts=()) for r in read_results(records)])
    with pytest.raises(ConfigError, match="no record has class counts") as caught:
        print_table(TableConfig(str(old), classes=True))
    assert "another --out" in str(caught.value)

    bench(settings(eurosat, tmp_path / "anew"))
    text = print_table(TableConfig(str(tmp_path / "anew/results.jsonl"), classes=True)).describe()
    assert "No trend with the count" in text  # here every class has six


def test_classes_and_slices_are_two_tables(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both at once are refused; one of them alone, as the remedy says, is not."""
    words = ["bench", "table", str(records)]

    assert 1 == main([*words, "--classes", "true", "--slice", "year"])
    assert "of classes or of slices" in capsys.readouterr().err
    assert 0 == main([*words, "--classes", "true"])
