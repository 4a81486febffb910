"""The studies of distillation and of colour images: their lines can be trained, pages are right."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from eofm.method.objectives import check_views, needs_of
from eofm.train.build import VIEW_KINDS

STUDY = Path(__file__).parents[2] / "benchmarks" / "study"
HALF = (
    12.706 * math.sqrt(0.5) / math.sqrt(2)
)  # of the 95 % t interval of two values that are 1 apart


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The script, found as it finds the others."""
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module(request.param)


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of the lines of all tables, by the first one; of two alike, the first."""
    found: dict[str, list[str]] = {}
    for row in text.splitlines():
        if row.startswith("| "):
            name, *cells = (cell.strip() for cell in row.split("|")[1:-1])
            found.setdefault(name, cells)
    return found


@pytest.mark.parametrize("script", ["real_pixels_distill"], indirect=True)
def test_every_student_can_be_configured(script: ModuleType, tmp_path: Path) -> None:
    """A ResNet of random weights, with the queue a multiple of the batch and no mask."""
    for arm in script.arms(tmp_path):
        config = importlib.import_module("real_pixels").configure(arm, 0, tmp_path, 1e-3, 1)
        check_views(config.method, VIEW_KINDS[config.data.views])

        assert ("resnet18", None) == (config.model.architecture, config.model.weights)
        assert 0 == config.method.mask_ratio
        assert ("distill" in arm.name) == (str(tmp_path) in repr(config.method))
        assert ("distill" in arm.name) == (config.method.terms is not None)
        if config.method.terms is not None:
            assert {"distill"} == set(needs_of(config.method))


@pytest.mark.parametrize("script", ["real_pixels_distill"], indirect=True)
def test_the_page_of_students_says_what_the_records_say(script: ModuleType) -> None:
    """Means over folds, differences of the same fold, the best rate of the inner fold."""

    def record(arm: str, fold: int, value: float) -> dict[str, object]:
        names = ("retrieval", "two_shot", "within", "knn", "linear")
        scores = {name: [value, value] for name in names}
        return {"arm": arm, "seed": 0, "fold": fold, "scores": scores}

    moco, taught, *_ = (arm.name for arm in script.arms(Path("t")))
    records = [record(script.inner_name(moco, rate), 5, 0.1 + rate) for rate in script.RATES]
    records += [record(script.inner_name(taught, rate), 5, 0.9 - rate) for rate in script.RATES]
    for fold in (0, 1):
        records.append(record(script.START, fold, 0.3))
        records.append(record(moco, fold, 0.4 + 0.01 * fold))
        records.append(record(taught, fold, 0.6))
    page = script.page(records, [record("start", fold, 0.8) for fold in (0, 1)])

    lines = rows_of(page)
    assert ["2", "80.0", "", "", "80.0", "80.0", "80.0", "", ""] == lines["the teacher itself"]
    over = f"+10.5 ± {HALF:.1f}"
    assert ["2", "40.5", f"**{over}**", ""] == lines[moco][:4]
    assert ["2", "60.0", "**+30.0 ± 0.0**", f"**+19.5 ± {HALF:.1f}**"] == lines[taught][:4]
    assert f"| {script.RATES[-1]:g} |" in page.split("peak rate")[1].split(moco)[1].split("\n")[0]
    assert f"| {script.RATES[0]:g} |" in page.split("peak rate")[1].split(taught)[1].split("\n")[0]


@pytest.mark.parametrize("script", ["real_pixels_replay"], indirect=True)
def test_the_page_of_colour_images_says_what_the_curves_say(script: ModuleType) -> None:
    """Both domains, from the same fold's start and from the run without colour images."""
    end = script.STEPS
    records = [
        {"share": 0.0, "fold": f, "curve": [(0, 0.5, 0.4), (12, 0.45, 0.3), (end, 0.6, 0.35)]}
        for f in (0, 1)
    ]
    records += [
        {"share": 0.25, "fold": f, "curve": [(0, 0.5, 0.4), (end, 0.6, 0.41 + 0.01 * f)]}
        for f in (0, 1)
    ]

    lines = rows_of(script.page(records))

    plain = ["2", "60.0", "**+10.0 ± 0.0**", "-5.0", "", "35.0", "**-5.0 ± 0.0**", "-10.0", ""]
    assert plain == lines["0"]
    mixed = ["2", "60.0", "**+10.0 ± 0.0**", "+0.0", "+0.0 ± 0.0"]
    mixed += ["41.5", f"+1.5 ± {HALF:.1f}", "+0.0", f"**+6.5 ± {HALF:.1f}**"]
    assert mixed == lines["0.25"]
    assert script.figure(records).axes


@pytest.mark.parametrize("script", ["real_pixels_scenes"], indirect=True)
def test_the_page_of_scenes_says_what_the_records_say(script: ModuleType) -> None:
    """The start, an arm ten points above it, and one of no difference; what is missing is left."""
    records = []
    for name, gain in ((script.START, 0.0), (script.ARMS[0].name, 0.1), (script.ARMS[1].name, 0.1)):
        for fold in range(5):
            tiles = list(range(fold, 40, 5))
            scores = {m: [0.5 + gain + 0.001 * t for t in tiles] for m in script.MEASURES}
            line = {"arm": name, "seed": 0, "fold": fold, "tiles": tiles, "places": tiles}
            more = {"steps": 128, "windows": 915} if gain and fold == 0 else {}
            records.append(line | {"scores": scores, "rank": 9.0} | more)

    page = script.page(records)

    lines = rows_of(page)
    assert ["1", "52.0", ""] == lines[script.START][:3]
    assert ["1", "62.0", "**+10.0 [+10.0, +10.0]**"] == lines[script.ARMS[0].name][:3]
    added = lines[f"{script.ARMS[1].name} over {script.ARMS[0].name}"]
    assert all("0.0 [" in cell and "**" not in cell for cell in added)
    assert script.ARMS[2].name not in lines
    assert "128 optimiser steps" in page
    assert "40 places" in page
    assert "over 6 comparisons" in page


@pytest.mark.parametrize("script", ["real_pixels_small"], indirect=True)
def test_the_second_run_differs_by_its_teacher_alone(script: ModuleType, tmp_path: Path) -> None:
    """Rate, steps and seed are those of the first run, of the same start."""
    first, second = (script.settings_of(3, tmp_path, 1, teacher) for teacher in (None, tmp_path))

    check_views(second.method, VIEW_KINDS[second.data.views])
    assert {"softcon", "self_distill"} == set(needs_of(second.method))
    assert first == replace(second, method=first.method)
    assert script.STEPS == first.optim.epochs * script.SMALL // first.optim.batch


@pytest.mark.parametrize("script", ["real_pixels_small"], indirect=True)
def test_the_page_of_small_sets_says_what_the_records_say(script: ModuleType) -> None:
    """Gains on the fold's own start, and of the second run on the first."""

    def record(arm: str, fold: int, last: float) -> dict[str, object]:
        curve = [[step, 0.5, 0.7] for step in (0, *script.CURVE[:-1])]
        return {"arm": arm, "fold": fold, "curve": [*curve, [script.STEPS, last, 0.7]]}

    records = [record(script.FIRST, fold, 0.4) for fold in (0, 1)]
    records += [record(script.SECOND, fold, 0.5 + 0.1 * fold) for fold in (0, 1)]
    lines = [line for line in script.page(records).splitlines() if "mAP |" in line]
    first, second = ([c.strip() for c in line.split("|")[2:-1]] for line in lines)

    assert [script.FIRST, "50.0", "50.0", "50.0", "50.0", "40.0"] == first[:6]
    assert ["**-10.0 ± 0.0**", ""] == first[-2:]
    assert f"+15.0 ± {10 * HALF:.1f}" == second[-1]
    assert 2 == len(script.figure(records).axes)
