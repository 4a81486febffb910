"""The study on real pixels: its miniature runs from tile to page, and its statistics are right."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "benchmarks" / "study"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that makes the page, found as the script finds it."""
    monkeypatch.syspath_prepend(str(STUDY))
    spec = importlib.util.spec_from_file_location("page", STUDY / "real_pixels_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "page", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that scores features."""
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module("real_pixels_scores")


def records(
    page: ModuleType, gains: dict[str, float], together: int = 1
) -> list[dict[str, object]]:
    """Records of arms that are better than their start by so much, on 40 tiles and two seeds.

    Args:
        page: The module.
        gains: Of each arm.
        together: Tiles of a place.
    """
    places = np.arange(40) // together
    random = np.random.default_rng(0)
    base = random.normal(0.6, 0.2, 40)
    made: list[dict[str, object]] = []

    def add(arm: str, seed: int, values: NDArray[np.float64]) -> None:
        for fold in range(5):
            tiles = np.arange(fold, 40, 5)
            scored = dict.fromkeys(page.MEASURES, values[tiles].tolist())
            made.append(
                {"arm": arm, "seed": seed, "fold": fold, "tiles": tiles.tolist(), "rank": 9.0}
                | {"scores": scored, "places": places[tiles].tolist()}
            )

    add("start", 0, base)
    for arm, gain in gains.items():
        for seed in range(2):
            add(arm, seed, base + gain + random.normal(0, 0.05, 40))
    return made


def test_a_gain_is_found_and_corrected_for(page: ModuleType) -> None:
    """A gain of ten points holds, none does not; an interval agrees with the t interval of tiles,
    and Holm's rule with its definition.
    """
    made = page.Scores(records(page, {"hard only": 0.1, "soft only": 0.0}))
    found = page.family(made)

    hard = found["hard only", "start", "retrieval"]
    assert 40 == made.tiles
    assert hard.holds
    assert (2, True) == (hard.seeds, hard.low < 10 < hard.high)
    assert not found["soft only", "start", "retrieval"].holds
    ordered = sorted(found.values(), key=lambda one: one.p)
    for number, one in enumerate(ordered):
        earlier = all(each.holds for each in ordered[:number])
        assert one.holds == (earlier and one.p * (len(ordered) - number) < page.LEVEL)
    one_seed = page.Scores([r for r in records(page, {"hard only": 0.1}) if r["seed"] == 0])
    only = one_seed.difference("hard only", "start", "retrieval")
    pairs = one_seed.pairs("hard only", "start", "retrieval")
    half = 1.96 * pairs.std() / 40**0.5
    assert pytest.approx(2 * half, rel=0.1) == only.high - only.low


def test_tiles_of_a_place_are_drawn_together(page: ModuleType) -> None:
    """Where four tiles gain alike, the interval of places is twice as wide as that of tiles."""
    widths = []
    for together in (1, 4):
        rows = records(page, {"hard only": 0.0}, together)
        for row in rows:
            if row["arm"] == "hard only":
                alike = np.random.default_rng(1).normal(0, 0.2, 40)[np.asarray(row["tiles"]) // 4]
                row["scores"] = {name: (0.6 + alike).tolist() for name in page.MEASURES}
            else:
                row["scores"] = {name: [0.6] * 8 for name in page.MEASURES}
        one = page.Scores(rows).difference("hard only", "start", "retrieval")
        widths.append(one.high - one.low)

    assert pytest.approx(2, rel=0.1) == widths[1] / widths[0]


def test_an_unfinished_seed_does_not_count(page: ModuleType) -> None:
    """A study that was stopped is a valid page of what was finished."""
    rows = records(page, {"hard only": 0.1})
    part = [r for r in rows if (r["arm"], r["seed"], r["fold"]) != ("hard only", 1, 4)]

    assert [0] == page.Scores(part).seeds("hard only")


def test_the_labels_name_no_tested_class(page: ModuleType) -> None:
    """Every set of labels is that of several classes."""
    sets = list(page.GROUPS.values())

    assert all(sets.count(each) > 1 for each in sets)


def test_retrieval_is_scikit_learns(scores: ModuleType) -> None:
    """Each tile's search is `average_precision_score` of its cosines, with and without groups."""
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(30, 5, generator=generator).double(), torch.arange(30) % 5
    group = torch.tensor([0, 0, 1, 1, 1])[y]
    unit = torch.nn.functional.normalize(z, dim=1)
    for only in (None, group):
        found = scores.average_precision(z, y, only)
        for row in range(30):
            rest = torch.arange(30) != row
            rest &= True if only is None else only == only[row]
            near = (unit @ unit[row])[rest].numpy()
            expected = average_precision_score((y == y[row])[rest].numpy(), near)
            assert pytest.approx(expected) == float(found[row])


@pytest.mark.slow
def test_the_miniature_runs_from_tiles_to_page(
    real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    """`--quick` trains two arms on real tiles, and the page has their rows and those of controls;
    a second call trains nothing.
    """
    words = [sys.executable, str(STUDY / "real_pixels.py"), "--quick", "--out", str(tmp_path)]
    words += ["--stores", str(tmp_path / "stores")]
    place = {"EOFM_REAL_DATA": str(real_data), "EOFM_REAL_WEIGHTS": str(real_weights.parent)}
    environment = {**os.environ, **place, "PYTHONPATH": str(ROOT)}

    for _ in range(2):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    rows = [json.loads(x) for x in (tmp_path / "study_real_pixels.jsonl").read_text().splitlines()]
    assert len({(row["arm"], row["seed"], row["fold"]) for row in rows}) == len(rows)
    text = (tmp_path / "study_real_pixels.md").read_text()
    for name in ("start", "random weights", "52 image statistics", "hard only", "softcon, λ = 1"):
        assert f"\n| {name} | 1 |" in text
    assert {"study_real_pixels_gains.png", "study_real_pixels_curves.png"} <= {
        path.name for path in tmp_path.iterdir()
    }
