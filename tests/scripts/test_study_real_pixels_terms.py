"""The first steps of each term on real pixels: its lines can be trained, and its page is right."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from eofm.method.objectives import check_views, needs_of
from eofm.train.build import VIEW_KINDS

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "benchmarks" / "study"


@pytest.fixture
def terms(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, found as it finds the others."""
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module("real_pixels_terms")


def test_every_line_can_be_configured(terms: ModuleType, tmp_path: Path) -> None:
    """Its views are those its terms need, and a frozen teacher is named by its folder."""
    for arm in terms.TERMS:
        made = terms.with_teacher(arm, tmp_path) if terms.taught(arm) else arm
        config = importlib.import_module("real_pixels").configure(made, 0, tmp_path, 1e-3, 1)
        check_views(config.method, VIEW_KINDS[config.data.views])

        assert set(arm.options["method.terms"]) == set(needs_of(config.method))
        assert terms.FIRST_RUN not in repr(config)
        assert terms.taught(arm) == (str(tmp_path) in repr(config.method))


def record(arm: str, fold: int, scores: dict[int, float]) -> dict[str, object]:
    """A record whose curve has these scores, and rank 3."""
    curve = [(step, score, 3.0) for step, score in scores.items()]
    return {"arm": arm, "seed": 0, "fold": fold, "curve": curve}


def test_the_page_says_what_the_curves_say(terms: ModuleType) -> None:
    """Differences are of the same fold, from the start and from SoftCon after as many steps."""
    records = []
    for fold in (0, 1):
        records += [
            record("start", fold, {0: 0.5}),
            record("softcon, λ = 1", fold, {12: 0.5, 24: 0.6 + 0.1 * fold, 48: 0.9}),
            record("mim", fold, {12: 0.5, 24: 0.5 + 0.1 * fold}),
        ]
    records.append(record("look", 0, {12: 0.4, 24: 0.4}))
    records.append(record("cropmae", 0, {12: 0.4}))
    records.append(record("softcon, λ = 1", 2, {12: 0.1, 24: 0.1}))  # a fold without the others

    text = terms.page(records, 24)

    lines = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]]
        for row in text.splitlines()
        if row.startswith("| ")
    }
    half = 12.706 * 10 * math.sqrt(0.5) / math.sqrt(2)
    assert ["2", "50.0", "", "", "", "", "3.0"] == lines["start"]
    softcon = ["2", "65.0", "+0.0 ± 0.0", f"+15.0 ± {half:.1f}", "", "", "3.0"]
    assert softcon == lines["softcon, λ = 1 *"]
    assert ["+0.0 ± 0.0", f"+5.0 ± {half:.1f}", "**-10.0 ± 0.0**"] == lines["mim"][2:5]
    gaps = ["-10.0", "-10.0", "-20.0", ""]  # of one fold: no interval
    assert ["1", "40.0", *gaps, "3.0"] == lines["look"]
    assert "cropmae" not in lines  # it has not come so far


def test_the_figure_has_a_row_for_each_line(terms: ModuleType) -> None:
    """Of those that have come to the step."""
    records = [record("start", f, {0: 0.5}) for f in (0, 1)]
    records += [record(name, f, {24: 0.5}) for name in ("hard only", "mim") for f in (0, 1)]
    records += [record("look", f, {12: 0.5}) for f in (0, 1)]

    drawn = terms.figure(records, 24)

    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert ["hard only *", "mim"] == labels


@pytest.mark.slow
def test_a_line_is_trained_to_its_step_and_no_further(
    real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    """One fold, four steps: the start and the line are recorded, and a second call trains none."""
    words = [sys.executable, str(STUDY / "real_pixels_terms.py"), "--last", "4", "--folds", "0"]
    words += ["--arms", "mim", "--out", str(tmp_path), "--stores", str(tmp_path / "stores")]
    place = {"EOFM_REAL_DATA": str(real_data), "EOFM_REAL_WEIGHTS": str(real_weights.parent)}
    environment = {**os.environ, **place, "PYTHONPATH": str(ROOT)}

    for _ in range(2):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    file = tmp_path / "study_real_pixels_terms.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [("start", [0]), ("mim", [4])] == [
        (row["arm"], [point[0] for point in row["curve"]]) for row in rows
    ]
    assert "| mim | 1 |" in (tmp_path / "study_real_pixels_terms.md").read_text()
