"""Curves: from one command to records, tables and figures; nothing is embedded twice."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from eofm.bench.config import RecordsExportConfig, TableConfig
from eofm.bench.records import Result, append_results, read_results
from eofm.bench.reports.export import plot, print_table
from eofm.bench.reports.tables import label_curves, size_curves, spread
from eofm.bench.run import BenchReport, bench
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.errors import ConfigError


def settings(root: Path, folder: Path, **options: object) -> BenchEurosatConfig:
    """Settings whose files lie in `folder`, with few resamples and no controls."""
    files = {"out": str(folder / "results.jsonl"), "cache": str(folder / "cache")}
    plain = {"bootstrap": 30, "controls": False, "probe": "knn", "k": 1}
    return BenchEurosatConfig(str(root), **{**files, **plain, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shares(
    eurosat: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> BenchReport:
    """Two models with one, two and all labels of a class, in three draws."""
    folder, model = tmp_path_factory.mktemp("shares"), f"mine={encoder_folder},imagestats"
    return bench(settings(eurosat, folder, model=model, shares="1-shot,2-shot,100", draws=3))


@pytest.fixture(scope="module")
def sizes(
    eurosat: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> BenchReport:
    """One model at its own and two other sizes, with a control beside it."""
    folder, model = tmp_path_factory.mktemp("sizes"), f"mine={encoder_folder},imagestats"
    return bench(settings(eurosat, folder, model=model, size="14,28,44"))


def test_features_are_computed_once_for_all_shares(shares: BenchReport) -> None:
    """A folder per model and split; probes of subsets read rows of them."""
    entries = [path for path in (shares.out.parent / "cache").iterdir() if path.is_dir()]

    assert 2 * 3 == len(entries)
    assert 2 * 2 * (3 + 3 + 1) == len(shares.results)


def test_a_share_is_a_sample_of_its_own(shares: BenchReport) -> None:
    """Its own ids, its words and its draw; test and val stay."""
    samples = {r.sample for r in shares.results}

    assert 7 == len({s.ids_sha256 for s in samples}) == len(samples)
    assert {("1-shot", 10), ("2-shot", 20), ("", 40)} == {(s.labels, s.n_train) for s in samples}
    assert {(20, 20)} == {(s.n_val, s.n_test) for s in samples}
    assert 1 == len({s.test_sha256 for s in samples})


def test_all_labels_are_the_ordinary_record(
    shares: BenchReport, eurosat: Path, encoder_folder: Path
) -> None:
    """A run without shares finds its records there."""
    model = f"mine={encoder_folder},imagestats"

    plain = bench(settings(eurosat, shares.out.parent, model=model))

    assert 0 == plain.appended


def test_a_curve_is_mean_and_deviation_over_draws(shares: BenchReport) -> None:
    """By plain arithmetic on the records; x is the number of labelled images."""
    curve = next(c for c in label_curves(shares.results) if c.metric == "oa")

    assert [10, 20, 40] == [x for x, _ in curve.series["mine"]]
    values = [
        r.value
        for r in shares.results
        if (r.model.name, r.metric, r.sample.labels) == ("mine", "oa", "1-shot")
    ]
    _, point = curve.series["mine"][0]
    assert 3 == len(values)
    assert statistics.fmean(values) == point.value
    assert point.high - point.value == pytest.approx(statistics.stdev(values))
    assert curve.log


def test_the_table_holds_curves_apart(shares: BenchReport) -> None:
    """One ordinary table of all labels, and one row per model with a spread."""
    text = print_table(TableConfig(str(shares.out))).describe()

    assert 1 == text.count("| model | probe |")
    assert "| model | 1-shot (10) | 2-shot (20) | all (40) |" in text
    assert "3 draws" in text
    assert "all 20 validation images" in text


def test_one_value_has_no_spread() -> None:
    """And two have that of the sample."""
    assert spread([0.5]).low == spread([0.5]).high == 0.5
    assert spread([0.4, 0.6]).high == pytest.approx(0.5 + 0.02**0.5)


def test_sizes_are_rounded_planned_and_marked(sizes: BenchReport) -> None:
    """To whole patches of 14; each other size is a waiver and a flag, the own one is neither."""
    found = {(r.model.name, r.of, r.model.size) for r in sizes.results if not r.model.control}

    assert {("mine", "", 28), ("mine 14 px", "mine", 14), ("mine 42 px", "mine", 42)} == found
    for r in sizes.results:
        marked = any(flag.startswith("nonstandard: AcceptSize") for flag in r.flags)
        assert bool(r.of) == marked == any("AcceptSize" in w for w in r.model.waivers)
        assert r.of == "" or any(f"resize to {r.model.size} x" in line for line in r.model.plan)
    assert 3 == len({r.model.plan_sha256 for r in sizes.results if not r.model.control})


def test_other_sizes_stay_out_of_the_table_but_not_of_the_curve(
    sizes: BenchReport, tmp_path: Path
) -> None:
    """A line says how many; asked for, they stand beside the own size, which is bold."""
    without = print_table(TableConfig(str(sizes.out))).describe()
    shown = print_table(TableConfig(str(sizes.out), nonstandard=True)).describe()
    drawn = plot(RecordsExportConfig(str(sizes.out), out=str(tmp_path), bootstrap=5)).describe()

    assert "left out: 4 nonstandard" in without
    assert "42 px" not in without
    assert "| model | 14 px | 28 px | 42 px |" in shown
    assert "| mine | " in shown
    assert "left out" not in shown
    assert "-knn-oa-size.png" in drawn
    (curve, _) = size_curves(sizes.results)
    assert {"mine": 28} == curve.own
    assert {"imagestats"} == set(curve.levels)
    own = next(r.value for r in sizes.results if (r.model.name, r.metric) == ("mine", "oa"))
    assert f"**{100 * own:.1f}**" in shown


def test_forced_rows_are_left_out_of_everything(sizes: BenchReport, tmp_path: Path) -> None:
    """Tables, figures and pages; the line names them, and --nonstandard brings them back."""
    rows = [r for r in read_results(sizes.out) if not r.of]
    forced = [forcibly(r) for r in rows if not r.model.control]
    path = tmp_path / "r.jsonl"
    append_results(path, [*rows, *forced])

    without, shown = (
        print_table(TableConfig(str(path), nonstandard=also)).describe() for also in (False, True)
    )

    assert f"left out: {len(forced)} forced" in without
    assert "stranger" not in without
    assert "forced: FillBand" in shown


def forcibly(result: Result) -> Result:
    """The same under another name, as `--force` marks it."""
    model = replace(result.model, name="stranger", plan_sha256="f" * 64)
    assert result.predictions
    return replace(result, model=model, flags=("forced: FillBand",), predictions="")


def test_two_curves_at_once_are_refused() -> None:
    """A grid of both would be drawn by neither."""
    with pytest.raises(ConfigError, match="the labels or the input"):
        BenchEurosatConfig("x", shares="10", size="32")
