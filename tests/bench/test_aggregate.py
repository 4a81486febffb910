"""One number over several tasks: by the paper's definition, with stated references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import trim_mean

from eofm.bench.config import AggregateConfig
from eofm.bench.predictions import write_predictions
from eofm.bench.probes import Scored
from eofm.bench.records import Made, Result, Sample, append_results
from eofm.bench.reports.compare import Aggregate, _Scores, aggregate, resampled_iqm
from eofm.bench.sources import Identity
from eofm.cli import main
from eofm.errors import ConfigError, DataError
from eofm.probes.bootstrap import Interval, interquartile_mean
from eofm.probes.features import ProbeResult

MADE = Made("eofm", "2026", {"eofm": "1"}, "", "cpu", 0.0, 0.0, None)
TEST = 40


def write(folder: Path, task: str, scores: dict[str, list[int]]) -> Path:
    """Records of kNN on one task: model -> number of right answers of 40, one per seed."""
    path = folder / f"{task}.jsonl"
    ids = [f"{task}-{n}" for n in range(TEST)]
    target = torch.zeros(TEST, dtype=torch.long)
    rows = []
    for model, counts in scores.items():
        for seed, right in enumerate(counts):
            said = torch.nn.functional.one_hot((torch.arange(TEST) >= right).long(), 2).double()
            fit = Scored("knn", ProbeResult("knn[]", said), {}, TEST, 0.0)
            name = f"{task}-{model}-{seed}"
            sha = write_predictions(folder / "predictions", name, fit, target, ids, "ab")
            rows.append(
                Result(
                    task=task,
                    version="1",
                    sample=Sample("set", "official", task, "data", 3, 2, TEST, True, 0),
                    model=Identity(model, model == "imagestats", "", "w", "", "", (), ()),
                    probe="knn[]",
                    strength=None,
                    gradient_norm=None,
                    metric="oa",
                    value=right / TEST,
                    interval=Interval(0, 1, 0.95, 10),
                    seed=seed,
                    flags=(),
                    made=MADE,
                    kind="knn",
                    predictions=f"predictions/{name}.npz",
                    predictions_sha256=sha,
                )
            )
    append_results(path, rows)
    return path


SCORES = {
    "one": {"imagestats": [10], "good": [30], "bad": [12]},
    "two": {"imagestats": [20], "good": [35], "bad": [16]},
    "three": {"imagestats": [4], "good": [22], "bad": [5]},
    "four": {"imagestats": [8], "good": [40], "bad": [20]},
    "five": {"imagestats": [30], "good": [31], "bad": [30]},
}


@pytest.fixture
def files(tmp_path: Path) -> str:
    """Records of five tasks."""
    return ",".join(str(write(tmp_path, task, scores)) for task, scores in SCORES.items())


def run(files: str, **options: object) -> Aggregate:
    """With few resamples."""
    return aggregate(AggregateConfig(files, **{"bootstrap": 200, **options}))  # type: ignore[arg-type]


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-5, 5)))
def test_the_interquartile_mean_is_scipys_trimmed_mean(values: np.ndarray) -> None:
    """A quarter cut at either end, for any number of scores."""
    expected = float(trim_mean(values, proportiontocut=0.25, axis=None))

    assert interquartile_mean(values) == pytest.approx(expected, abs=1e-12)


def test_scores_lie_between_stated_references(files: str) -> None:
    """By hand: each task's score from its control to 1, then the middle half of five."""
    report = run(files)

    by_hand = {}
    for model in ("good", "bad", "imagestats"):
        normal = sorted(
            (s[model][0] - s["imagestats"][0]) / (TEST - s["imagestats"][0])
            for s in SCORES.values()
        )
        by_hand[model] = sum(normal[1:4]) / 3
    found = {row.model: row.value for row in report.rows}
    assert by_hand == pytest.approx(found)
    assert ["good", "bad", "imagestats"] == [row.model for row in report.rows]
    text = report.describe()
    assert "0 = imagestats, 1 = perfect" in text
    assert "| one version 1, official, one, oa | 25.0 | 100.0 |" in text
    assert "(1 each)" in text


def test_intervals_are_those_of_a_plain_stratified_bootstrap(tmp_path: Path) -> None:
    """Slowly: in every task seeds are drawn, then test samples; the trimmed mean of all."""
    scores = {f"t{n}": {"imagestats": [4], "m": [10 + 5 * n, 14 + 5 * n]} for n in range(4)}
    files = ",".join(str(write(tmp_path, task, rows)) for task, rows in scores.items())

    (row,) = [r for r in run(files, low="0", bootstrap=1000).rows if r.model == "m"]

    rng = np.random.default_rng(0)
    values = []
    for _ in range(600):
        drawn = []
        for rows in scores.values():
            index = rng.integers(TEST, size=TEST)
            for seed in rng.integers(2, size=2):
                drawn.append(np.mean(index < rows["m"][seed]))
        values.append(trim_mean(drawn, 0.25))
    low, high = np.quantile(values, [0.025, 0.975])
    assert (low, high) == pytest.approx((row.interval.low, row.interval.high), abs=0.02)


def test_seeds_are_drawn_within_their_task() -> None:
    """Never from another: with one seed each, every resample holds each task's own value."""
    tasks = [_Scores(np.array([v]), np.full((1, 50), v)) for v in (0.0, 0.4, 0.6, 5.0)]
    assert [0.5] == pytest.approx(sorted(set(resampled_iqm(tasks, 0))))

    two = [_Scores(np.array([0.0, 1.0]), np.array([[0.0] * 400, [1.0] * 400]))]
    assert {0.0, 0.5, 1.0} == set(resampled_iqm(two, 0))


def test_ranks_have_intervals(files: str) -> None:
    """The best is first in every resample; ranks are not bare numbers."""
    rows = {row.model: row for row in run(files).rows}

    assert (1, 1) == (rows["good"].ranks.low, rows["good"].ranks.high)
    assert 2 <= rows["bad"].ranks.low <= rows["bad"].ranks.high <= 3


def test_only_models_with_a_score_everywhere_take_part(files: str, tmp_path: Path) -> None:
    """The others are named; forced rows and shares of labels count nowhere."""
    write(tmp_path, "one", {"guest": [39]})

    report = run(files)

    assert "guest" not in {row.model for row in report.rows}
    assert "Left out, without a score on every task: guest" in report.describe()


def test_marked_rows_and_shares_do_not_count(tmp_path: Path, files: str) -> None:
    """A forced record of a sixth task does not make it a task."""
    path = write(tmp_path, "six", {"imagestats": [4], "good": [9]})
    from eofm.bench.records import read_results

    rows = read_results(path)
    path.unlink()
    append_results(
        path,
        [
            replace(rows[0], flags=("forced: FillBand",)),
            replace(rows[1], sample=replace(rows[1].sample, labels="10 %")),
        ],
    )

    assert 5 == len(run(f"{files},{path}").places)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": "nobody"}, "a reference has no score"),
        ({"low": "good", "high": "bad"}, "not above the lower"),
        ({"probe": "linear"}, "no record is of this probe"),
    ],
)
def test_settings_that_do_not_fit_are_errors(
    files: str, options: dict[str, str], message: str
) -> None:
    """Each says what there is."""
    with pytest.raises(ConfigError, match=message):
        run(files, **options)


def test_one_task_is_no_aggregate(tmp_path: Path) -> None:
    """And a file that is not there is no file; through the command line too."""
    path = write(tmp_path, "one", SCORES["one"])

    with pytest.raises(ConfigError, match="several tasks"):
        run(str(path))
    with pytest.raises(DataError, match="no file of records"):
        run(f"{path}x")
    assert 1 == main(["bench", "aggregate", str(path)])


def test_the_command_line(files: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the table."""
    assert 0 == main(["bench", "aggregate", files, "--bootstrap", "20"])

    assert "| good " in capsys.readouterr().out
