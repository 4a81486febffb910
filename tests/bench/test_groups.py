"""Intervals over groups of test samples, from the names of images to the footnote of a table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from eofm.bench.config import (
    AggregateConfig,
    BenchConfig,
    CompareConfig,
    RecordsExportConfig,
    TableConfig,
    ValidateConfig,
)
from eofm.bench.predictions import load_predictions, predictions_of, write_predictions
from eofm.bench.probes import Scored, compare
from eofm.bench.records import Made, Result, Sample, append_results, over, read_results, resampled
from eofm.bench.reports.compare import aggregate, compare_models
from eofm.bench.reports.export import draw_figures, print_table, to_csv
from eofm.bench.reports.validate import validate
from eofm.bench.run import bench
from eofm.bench.samples import group_fields
from eofm.bench.sources import Identity
from eofm.cli import main
from eofm.datasets.bigearthnet.patches import read_tables
from eofm.datasets.folder import BenchFolderConfig
from eofm.datasets.images.chips import NO_GROUPS, PLACES, Grouping, groups_sha256, product_in
from eofm.errors import DataError
from eofm.probes.bootstrap import Interval, bootstrap_interval, group_numbers, resampled_accuracy
from eofm.probes.features import ProbeResult
from eofm.probes.metrics import Metric

SAMPLE = Sample("set", "official", "ids", "data", 3, 2, 100, True, 0)
MADE = Made("eofm", "2026", {"eofm": "1"}, "", "cpu", 0.0, 0.0, None)
RESULT = Result(
    task="set",
    version="1",
    sample=SAMPLE,
    model=Identity("m", False, "a vit", "w", "r", "p", (), ()),
    probe="knn[]",
    strength=None,
    gradient_norm=None,
    metric="oa",
    value=0.5,
    interval=Interval(0.4, 0.6, 0.95, 10),
    seed=0,
    flags=(),
    made=MADE,
    kind="knn",
)
FIELDS = ("groups", "grouping", "grouped_by", "grouped", "groups_sha256")


def scored(hits: list[int], groups: list[str] | None) -> Scored:
    """A probe that is right where a 1 stands."""
    target = torch.zeros(len(hits), dtype=torch.int64)
    said = 1 - torch.tensor(hits)
    return Scored(
        kind="knn",
        probe=ProbeResult("knn[]", torch.nn.functional.one_hot(said, 2).double()),
        metrics={Metric.OA: resampled_accuracy(said, target)},
        samples=len(hits),
        seconds=0.0,
        groups=None if groups is None else group_numbers(groups),
    )


def records(folder: Path, task: str, scores: Mapping[str, list[int]], groups: list[str]) -> Path:
    """Records of models with their hits, and predictions beside them."""
    ids = [f"{task}-{n:03}" for n in range(len(groups))]
    target, path = torch.zeros(len(ids), dtype=torch.int64), folder / f"{task}.jsonl"
    sample = replace(SAMPLE, ids_sha256=task, n_test=len(ids))
    sample = replace(sample, **group_fields(PLACES, ids, groups))
    rows = []
    for model, hits in scores.items():
        one, name = scored(hits, groups), f"{task}-{model}"
        sha = write_predictions(folder / "predictions", name, one, target, ids, "ab", groups)
        rows.append(
            replace(
                RESULT,
                task=task,
                sample=sample,
                model=replace(RESULT.model, name=model, weights_sha256=model),
                value=one.value(Metric.OA),
                interval=one.interval(Metric.OA, 200, 0),
                predictions=f"predictions/{name}.npz",
                predictions_sha256=sha,
            )
        )
    append_results(path, rows)
    return path


# ------------------------------------------------------------------------ flags and records


def test_one_group_tells_no_model_from_another() -> None:
    """A hundred patches of one product have no spread, however many they are."""
    worse, better = [0] * 60 + [1] * 40, [1] * 100

    def flags(groups: list[str] | None) -> tuple[str, ...]:
        return compare(scored(worse, groups), scored(better, groups), "rcf", Metric.OA, 50, 0)

    assert ("below rcf",) == flags(None)
    assert ("not above rcf",) == flags(["T33UUP"] * 100)
    assert ("not above rcf",) == flags([f"T33UU{n // 20}" for n in range(100)])  # five are too few
    assert ("below rcf",) == flags([str(n) for n in range(100)])


def test_a_flag_resamples_groups() -> None:
    """Worse in four of six places and by forty chips: certain by chip, not by place."""
    groups = [f"place-{n // 20}" for n in range(120)]
    model = [0] * 80 + [1] * 40
    control = [1] * 80 + [0] * 40

    def flags(names: list[str] | None) -> tuple[str, ...]:
        return compare(scored(model, names), scored(control, names), "rcf", Metric.OA, 500, 0)

    assert ("below rcf",) == flags(None)
    assert ("not above rcf",) == flags(groups)


def test_which_sample_is_in_which_group_is_hashed() -> None:
    """Whatever the order; nothing where every sample is a group, as in files of 0.1."""
    one = groups_sha256(["a", "b", "c"], ["x", "x", "y"])

    assert one == groups_sha256(["c", "b", "a"], ["y", "x", "x"])
    assert one != groups_sha256(["a", "b", "c"], ["x", "y", "y"])
    assert "" == groups_sha256(["a", "b"], ["a", "b"])


def test_predictions_of_other_groups_are_refused(tmp_path: Path) -> None:
    """The record says which groups its interval resampled; another file contradicts it."""
    path = records(tmp_path, "set", {"m": [0, 1, 1, 0]}, ["x", "x", "y", "z"])
    (result,) = read_results(path)

    assert (0, 0, 1, 2) == tuple(predictions_of(result, path).numbers.tolist())
    sample = replace(result.sample, groups_sha256=groups_sha256("abcd", "xyyz"))
    with pytest.raises(DataError, match="groups of the predictions are not those of the record"):
        predictions_of(replace(result, sample=sample), path)


# ------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("groups", "grouping", "words"),
    [
        (["p"] * 100, PLACES, "all test samples (100) are of one group, where places"),
        ([f"{n % 12}" for n in range(100)], PLACES, "**12 are few**: below 30"),
        ([f"{n % 50}" for n in range(100)], PLACES, "resample 50 places of 100 test samples"),
        ([f"{n}" for n in range(100)], NO_GROUPS, "resample 100 test images one by one: the data"),
    ],
    ids=["one", "few", "enough", "unknown"],
)
def test_a_footnote_says_what_was_resampled(
    groups: list[str], grouping: Grouping, words: str
) -> None:
    """In plain words; few groups are warned of, many are not."""
    ids = [f"{n}" for n in range(100)]
    sample = replace(SAMPLE, **group_fields(grouping, ids, groups))

    said = resampled(sample)

    assert words in said
    assert ("are few" in said) == (1 < len(set(groups)) < 30)
    assert ("there is no interval" in said) == (len(set(groups)) == 1)
    assert ("no interval" in over(sample, 0.95)) == (len(set(groups)) == 1)
    if len(set(groups)) > 1:
        assert f"95 % interval over {len(set(groups))} {grouping.what}" == over(sample, 0.95)


def test_old_records_are_named_as_such() -> None:
    """A record of 0.1 has no word of groups: it is read, and its footnote says so."""
    line = json.loads(RESULT.to_line())
    old = {k: v for k, v in line["sample"].items() if k not in FIELDS}
    plain = {**line, "sample": old}
    del plain["checksum"]

    found = Result.from_line(json.dumps(plain))
    between = {**plain, "sample": {**old, "clusters": 0, "cluster": ""}}

    assert RESULT == found == Result.from_line(json.dumps(between))
    assert "100 test samples one by one: the record was written without groups" in resampled(
        found.sample
    )
    assert "95 % interval over test samples" == over(found.sample, 0.95)


# ------------------------------------------------------------------- compare and aggregate


def test_a_comparison_resamples_groups(tmp_path: Path) -> None:
    """The paired interval is that of NumPy over groups, and far wider than over samples."""
    rng = np.random.default_rng(0)
    groups = [f"place-{n // 25:02}" for n in range(1000)]
    easy = np.repeat(rng.random(40), 25)
    hits = {"a": (rng.random(1000) < easy).astype(int), "b": (rng.random(1000) < 0.5).astype(int)}
    path = records(tmp_path, "set", {m: h.tolist() for m, h in hits.items()}, groups)

    outcome = compare_models(CompareConfig("a", "b", str(path), bootstrap=300, seed=4))

    generator = torch.Generator().manual_seed(4)
    gap = (hits["a"] - hits["b"]).reshape(40, 25)
    values = [gap[torch.randint(40, (40,), generator=generator).numpy()].mean() for _ in range(300)]
    found = outcome.differences[0].interval
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    single = bootstrap_interval(
        lambda counts: counts @ torch.from_numpy(gap.ravel()).double() / counts.sum(dim=1), 1000
    )
    assert found.high - found.low > 1.5 * (single.high - single.low)
    assert "set: intervals resample 40 places of 1,000 test samples" in outcome.describe()


def test_a_record_without_groups_is_compared_by_those_of_the_other(tmp_path: Path) -> None:
    """The same samples in the same order have the same groups; two without any have none."""
    groups = [name for name in "uvwxyz" for _ in range(5)]
    path = records(tmp_path, "set", {"a": [1, 0] * 15, "b": [1] * 25 + [0] * 5}, groups)
    both = compare_models(CompareConfig("a", "b", str(path), bootstrap=100))
    new = read_results(path)
    (tmp_path / "set.jsonl").unlink()
    append_results(path, [replace(new[0], sample=new[0].sample.ungrouped), new[1]])

    half = compare_models(CompareConfig("a", "b", str(path), bootstrap=100))
    (tmp_path / "set.jsonl").unlink()
    append_results(path, [replace(r, sample=r.sample.ungrouped) for r in new])
    none = compare_models(CompareConfig("a", "b", str(path), bootstrap=100))

    assert both.differences[0].interval == half.differences[0].interval
    assert half.differences[0].interval is not None
    assert none.differences[0].interval != half.differences[0].interval
    assert "written without groups" in none.describe()


def test_records_of_other_groups_are_not_compared(tmp_path: Path) -> None:
    """One scored with --place, the other without: the remedy, one run for both, works."""
    first = records(tmp_path, "set", {"a": [1, 0] * 5}, ["x"] * 5 + ["y"] * 5)
    other = records(tmp_path / "other", "set", {"b": [1] * 10}, ["x"] * 3 + ["y"] * 7)
    (theirs,) = read_results(other)
    for file in (other.parent / "predictions").iterdir():
        (first.parent / "predictions" / file.name).write_bytes(file.read_bytes())
    append_results(first, [theirs])

    with pytest.raises(DataError, match="resample different groups") as caught:
        compare_models(CompareConfig("a", "b", str(first)))

    assert "score both in one run" in str(caught.value)
    again = records(tmp_path / "x", "set", {"a": [1, 0] * 5, "b": [1] * 10}, ["x"] * 5 + ["y"] * 5)
    assert compare_models(CompareConfig("a", "b", str(again))).differences


def test_an_aggregate_resamples_groups(tmp_path: Path) -> None:
    """Its interval is wider with ten places than with as many samples; its notes say which."""
    hits = [int(n // 10 % 2) for n in range(100)]
    scores = {"imagestats": [0] * 100, "m": hits}

    def width(folder: str, groups: list[str]) -> tuple[float, str]:
        paths = [str(records(tmp_path / folder, task, scores, groups)) for task in ("one", "two")]
        found = aggregate(AggregateConfig(",".join(paths), bootstrap=300))
        row = next(row for row in found.rows if row.model == "m")
        return row.interval.high - row.interval.low, found.describe()

    by_place, said = width("a", [str(n // 10) for n in range(100)])
    by_chip, _ = width("b", [str(n) for n in range(100)])

    assert by_place > 2 * by_chip
    assert "one: intervals resample 10 places of 100 test samples" in said
    assert "two: intervals resample 10 places" in said


@pytest.mark.parametrize("places", [1, 2, 5, 6])
def test_so_few_groups_show_no_interval_and_no_verdict(
    places: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that is printed or written has an interval, least of all one without width."""
    groups = [f"place-{n % places}" for n in range(60)]
    scores = {"imagestats": [0] * 60, "a": [int(n % 7 > 2) for n in range(60)], "b": [1] * 60}
    paths = [records(tmp_path, task, scores, groups) for task in ("one", "two")]
    span, told = re.compile(r"\d [–t][ o]+[+-]?\d|\[.*, .*\]"), places >= 6

    said = {}
    for words in (
        ["table", str(paths[0])],
        ["compare", "a", "b", "--results", str(paths[0])],
        ["aggregate", ",".join(map(str, paths))],
        ["export", str(paths[0]), "--out", str(tmp_path / "page")],
    ):
        assert 0 == main(["bench", *words])
        said[words[0]] = capsys.readouterr().out
    html = (tmp_path / "page/index.html").read_text(encoding="utf-8")
    said["page"] = re.sub(r"(?s)<style.*?</style>|<svg.*?</svg>|<[^>]*>", " ", html)
    said["record"] = repr(read_results(paths[0])[1])
    dots = draw_figures(RecordsExportConfig(str(paths[0]))).figures
    said["figure"] = " ".join(f.axes[0].get_xlabel() for n, f in dots.items() if "classes" in n)

    assert ("no interval" in said.pop("figure")) == (not told)
    del said["export"]
    assert {name: bool(span.search(text)) for name, text in said.items()} == dict.fromkeys(
        said, told
    )
    assert ("too few places to tell" in said["compare"]) == (not told)
    assert ("is better" in said["compare"]) == told
    assert ("score test images of 6 places or more" in said["table"]) == (not told)
    rows = list(csv.DictReader(io.StringIO(to_csv(read_results(paths[0])))))
    assert {bool(row["low"]) for row in rows} == {told} == {bool(row["high"]) for row in rows}


# ----------------------------------------------------------------------------- whole runs


def write_image(path: Path, label: int, east: float, seed: int) -> None:
    """An image of four bands at a place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    values = rng.normal(600 + 20 * label, 60, (4, 12, 12)).clip(1)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=4,
        height=12,
        width=12,
        crs="EPSG:32631",
        transform=Affine(10, 0, 400_000 + east, 0, -10, 5_000_000),
    ) as file:
        file.write(values.astype(np.uint16))


def settings(root: Path, out: Path, **options: object) -> BenchConfig:
    """Band statistics and convolutions on a folder of chips."""
    defaults = {
        "sensor": "s2-l2a",
        "bands": "B02,B03,B04,B08",
        "model": "imagestats,rcf",
        "controls": False,
        "probe": "knn",
        "k": 1,
        "bootstrap": 100,
        "out": str(out),
        "cache": "",
    }
    return BenchFolderConfig(str(root), **{**defaults, **options})  # type: ignore[arg-type]


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """Chips of two classes: of test, six places of two overlapping chips each."""
    for label, name in enumerate(("forest", "water")):
        for n in range(5):
            write_image(tmp_path / f"in/train/{name}/{n}.tif", label, 5000 * (2 * n + label), n)
        for n in range(6):
            east = 500_000 + 5000 * (n // 2) + 60 * (n % 2) + 50_000 * label
            write_image(tmp_path / f"in/test/{name}/{n}.tif", label, east, 100 + n)
    return tmp_path / "in"


def test_chips_that_overlap_are_drawn_together(chips: Path, tmp_path: Path) -> None:
    """From footprints to predictions, record, table, validation, and a changed --place."""
    out = tmp_path / "out" / "r.jsonl"

    report = bench(settings(chips, out))

    record = read_results(out)[0]
    assert (6, "places", True, 12) == (
        *(record.sample.groups, record.sample.grouping, record.sample.grouped),
        record.sample.n_test,
    )
    kept = load_predictions(out.parent / record.predictions)
    assert [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5] == kept.numbers.tolist()
    said = report.describe()
    assert "Intervals resample 6 places of 12 test samples: images whose footprints overlap" in said
    assert said.split("\n\n")[0] in print_table(TableConfig(str(out))).text
    assert 0 == validate(ValidateConfig(str(out))).status
    assert "6,places" in to_csv(read_results(out))
    stated = bench(settings(chips, tmp_path / "stated.jsonl", place="*/{place}"))
    assert 12 == stated.results[0].sample.groups
    assert "--place states them by the names" in stated.describe()


def test_chips_named_by_their_products_are_drawn_by_product(chips: Path, tmp_path: Path) -> None:
    """Every name holds one: two products, whatever the footprints say."""
    files = sorted(chips.rglob("*.tif"))
    for number, file in enumerate(files):
        day = 13 + number % 2
        product = f"S2A_MSIL2A_201706{day}T101031_N9999_R022_T33UUP_{file.stem}.tif"
        file.rename(file.with_name(product))

    report = bench(settings(chips, tmp_path / "r.jsonl"))

    assert (2, "products") == (report.results[0].sample.groups, report.results[0].sample.grouping)
    assert "The 12 test samples are of 2 products" in report.describe()
    assert "score test images of 6 products or more" in report.describe()
    files[0].with_name("odd.tif").write_bytes(next(chips.rglob("*.tif")).read_bytes())
    assert "places" == bench(settings(chips, tmp_path / "s.jsonl")).results[0].sample.grouping
    files[0].with_name("odd.tif").unlink()
    for number, file in enumerate(sorted(chips.rglob("*.tif"))):  # the remedy
        file.rename(file.with_name(file.name.replace("201706", f"2017{number % 6 + 1:02}")))
    more = bench(settings(chips, tmp_path / "t.jsonl"))
    assert more.results[0].sample.groups >= 6
    assert "there is no interval" not in more.describe()
    assert more.results[0].shown_interval is not None


def test_the_remedy_for_old_records(chips: Path, tmp_path: Path) -> None:
    """Old records and predictions are read, valid, and named; another --out resamples groups."""
    out = tmp_path / "a" / "r.jsonl"
    new = bench(settings(chips, out)).results
    old = []
    for result in new:
        file = out.parent / result.predictions
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored if name != "groups"}
        np.savez(file, **arrays)
        kept = load_predictions(file).scored([Metric(result.metric)])
        sample = {k: v for k, v in asdict(result.sample).items() if k not in FIELDS}
        interval = kept.interval(Metric(result.metric), result.interval.repeats, result.seed)
        sha = hashlib.sha256(file.read_bytes()).hexdigest()
        line = replace(
            result, interval=interval, sample=Sample(**sample), predictions_sha256=sha
        ).to_line()
        plain = json.loads(line)
        for name in FIELDS:
            del plain["sample"][name]
        del plain["checksum"]
        old.append(json.dumps(plain))
    out.write_text("\n".join(old) + "\n")

    said = print_table(TableConfig(str(out))).text

    assert "12 test samples one by one: the record was written without groups" in said
    assert "another --out" in said
    assert 0 == validate(ValidateConfig(str(out))).status
    again = bench(settings(chips, tmp_path / "b" / "r.jsonl"))
    assert "written without groups" not in again.describe()
    assert new[0].interval == again.results[0].interval
    assert old != [r.to_line() for r in again.results]


# ------------------------------------------------------------------------------- real data


@pytest.mark.slow
def test_intervals_by_product_of_the_real_test_split(real_data: Path) -> None:
    """Of 119,825 patches with simulated hits: equal to NumPy's, and far wider than by patch."""
    listing = read_tables(real_data / "bigearthnet_v2")
    test = {name for name, split in listing.splits.items() if split == "test"}
    ids = sorted(test - listing.excluded)
    assert 119_825 == len(ids)
    assert 480_038 == len(listing.known - listing.excluded)
    products = [name.rsplit("_", 2)[0] for name in ids]
    assert products == [product_in(name) for name in ids]
    names, number = np.unique(products, return_inverse=True)
    rng = np.random.default_rng(0)
    hits = rng.random(len(ids)) < rng.uniform(0.3, 1, len(names))[number]
    metric = resampled_accuracy(
        torch.from_numpy(~hits).long(), torch.zeros(len(ids), dtype=torch.int64)
    )

    groups = group_numbers(products)
    found = bootstrap_interval(metric, len(ids), repeats=400, seed=0, groups=groups)
    single = bootstrap_interval(metric, len(ids), repeats=20, seed=0)

    right, count = np.bincount(number, hits), np.bincount(number)
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(400):
        drawn = torch.randint(len(names), (len(names),), generator=generator).numpy()
        values.append(right[drawn].sum() / count[drawn].sum())
    low, high = np.quantile(values, [0.025, 0.975])
    assert (low, high) == pytest.approx((found.low, found.high), abs=1e-12)
    assert 80 < len(names) < 200
    assert found.high - found.low > 5 * (single.high - single.low)
