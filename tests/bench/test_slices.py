"""Scores by season, year and country, from predictions that were kept."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eofm.bench.predictions import load_predictions, write_predictions
from eofm.bench.probes import Scored
from eofm.bench.records import Made, Result, Sample, append_results
from eofm.bench.reports.tables import slices_of
from eofm.bench.samples import group_fields
from eofm.bench.sources import Identity
from eofm.cli import main
from eofm.datasets.images.chips import PRODUCTS, product_in
from eofm.probes.bootstrap import bootstrap_interval, group_numbers, resampled_accuracy
from eofm.probes.features import ProbeResult
from eofm.probes.metrics import Metric

DAYS = ("20170415", "20170720", "20171101", "20171224", "20180110", "20180602")
COUNTRIES = ("Austria", "Portugal")


def write(
    folder: Path, task: str, ids: list[str], countries: list[str], model: str = "mine"
) -> tuple[Path, np.ndarray]:
    """A record of kNN with its predictions; returns the file and which samples were right."""
    hits = np.random.default_rng(len(model)).random(len(ids)) < 0.7
    said, target = torch.from_numpy(~hits).long(), torch.zeros(len(ids), dtype=torch.int64)
    groups = [product_in(name) or name for name in ids]
    scores = torch.nn.functional.one_hot(said, 2).double()
    metric = resampled_accuracy(said, target)
    numbers = group_numbers(groups)
    scored = Scored(
        "knn", ProbeResult("knn[k=5,l2,uniform,none]", scores), {}, len(ids), 0.0, groups=numbers
    )
    name = f"{task}-{model}"
    sha = write_predictions(
        folder / "predictions", name, scored, target, ids, "ab", groups, countries
    )
    sample = Sample("set", "official", task, "data", 3, 2, len(ids), True, 0)
    result = Result(
        task=task,
        version="1",
        sample=replace(sample, **group_fields(PRODUCTS, ids, groups)),
        model=Identity(model, False, "a vit", model, "r", "p", (), ()),
        probe=scored.probe.probe,
        strength=None,
        gradient_norm=None,
        metric=Metric.OA,
        value=float(hits.mean()),
        interval=bootstrap_interval(metric, len(ids), repeats=200, groups=numbers),
        seed=0,
        flags=(),
        made=Made("eofm", "2026", {"eofm": "1"}, "", "cpu", 0.0, 0.0, None),
        kind="knn",
        predictions=f"predictions/{name}.npz",
        predictions_sha256=sha,
    )
    append_results(folder / "r.jsonl", [result])
    return folder / "r.jsonl", hits


@pytest.fixture
def patches() -> tuple[list[str], list[str]]:
    """Ten patches of each of four products a day, with their countries."""
    ids = [
        f"S2A_MSIL2A_{day}T101031_N9999_R022_T3{tile}UUP_{n}_7"
        for day in DAYS
        for tile in range(4)
        for n in range(10)
    ]
    return ids, [COUNTRIES[n // 10 % 2] for n in range(len(ids))]


def test_a_day_has_a_season_and_a_year(
    patches: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    """December and January are one season, of two years; every sample is in one slice."""
    path, _ = write(tmp_path, "set", *patches)
    kept = load_predictions(path.parent / "predictions/set-mine.npz")

    counts = {
        by: {word: len(rows) for word, rows in slices_of(kept, by).items()}  # type: ignore[arg-type]
        for by in ("season", "year", "country")
    }

    assert counts == {
        "season": {
            "March to May": 40,
            "June to August": 80,
            "September to November": 40,
            "December to February": 80,
        },
        "year": {"2017": 160, "2018": 80},
        "country": {"Austria": 120, "Portugal": 120},
    }
    assert sorted(r for rows in slices_of(kept, "season").values() for r in rows) == list(
        range(240)
    )


def test_a_slice_is_scored_by_itself(
    patches: tuple[list[str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores and intervals are those of its samples alone, which are drawn by their products."""
    path, hits = write(tmp_path, "set", *patches)
    write(tmp_path, "set", *patches, model="other")
    summer = np.array([name[11:19] in {"20170720", "20180602"} for name in patches[0]])

    assert 0 == main(["bench", "table", str(path), "--slice", "season"])

    text = re.sub(" +", " ", capsys.readouterr().out)
    part = [name for name, inside in zip(patches[0], summer, strict=True) if inside]
    metric = resampled_accuracy(
        torch.from_numpy(~hits[summer]).long(), torch.zeros(80, dtype=torch.int64)
    )
    groups = group_numbers([product_in(name) or "" for name in part])
    found = bootstrap_interval(metric, 80, repeats=200, groups=groups)
    score = f"{100 * hits[summer].mean():.1f} ({100 * found.low:.1f} – {100 * found.high:.1f})"
    (mine,) = [line for line in text.splitlines() if line.startswith("| mine ")]
    assert score == mine.split(" | ")[3]
    assert "| June to August (80 of 8 products) |" in text
    assert "**Fewer than 30 products**, too narrow: June to August, December to February." in text
    few = "**Fewer than 6 products**, so that there is no interval: March to May, September to"
    assert few in text
    assert re.fullmatch(r"[\d.]+", mine.split(" | ")[2])
    assert "| other |" in text


def test_what_cannot_be_sliced_is_said(
    patches: tuple[list[str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tiles without a day stay out of the table; alone they are an error whose remedy works."""
    write(tmp_path / "a", "tiles", [f"Forest_{n}" for n in range(20)], [])
    path, _ = write(tmp_path / "b", "set", *patches)
    write(tmp_path / "b", "tiles", [f"Forest_{n}" for n in range(20)], [])

    assert 0 == main(["bench", "table", str(path), "--slice", "year"])
    assert "Left out, for its samples do not say their year: tiles." in capsys.readouterr().out
    alone = ["bench", "table", str(tmp_path / "a/r.jsonl")]
    assert 1 == main([*alone, "--slice", "country"])
    said = capsys.readouterr().err
    assert "the test samples do not say their country" in said
    assert "leave --slice out" in said
    assert 0 == main(alone)


def test_a_slice_of_one_product_has_no_interval(tmp_path: Path) -> None:
    """A score alone: one product tells nothing of others."""
    from eofm.bench.config import TableConfig
    from eofm.bench.reports.export import print_table

    ids = [f"S2A_MSIL2A_{DAYS[n // 10]}T101031_0_{n}" for n in range(20)]
    path, hits = write(tmp_path, "set", ids, [])

    text = print_table(TableConfig(str(path), slice="season")).text

    assert f"| {100 * hits[:10].mean():.1f} | {100 * hits[10:].mean():.1f} |" in text
