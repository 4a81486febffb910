"""The script that compares terms: its runs can be made, and its table says what the records say."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from eofm.cli import main
from eofm.formats.text import parse_yaml
from eofm.method.combined import check_views, needs_of
from eofm.method.terms import term_names
from eofm.train.build import VIEW_KINDS
from eofm.train.run_folder import from_dict

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "terms" / "terms.py"


@pytest.fixture(scope="module")
def terms() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("terms_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    sys.modules["terms_table"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def size_of(terms: ModuleType, folder: Path) -> Any:
    """Runs of seconds."""
    return terms.Size(folder / "world", 12, 60, 56, 1, 4, folder / "runs")


def test_every_line_is_a_run_that_can_be_made(
    terms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command of each line is read by the program, and its views are those its terms need."""
    for arm in terms.ARMS:
        if not set(arm.terms) <= set(term_names()):
            continue
        words = terms.command(arm, 0, size_of(terms, tmp_path))
        with pytest.raises(SystemExit) as end:
            main([*words[1:], "--print_config"])
        config = from_dict(parse_yaml(capsys.readouterr().out), arm.name)
        check_views(config.method, VIEW_KINDS[config.data.views])

        assert end.value.code in (None, 0)
        assert set(arm.terms) == set(needs_of(config.method))
        assert not arm.pixels or arm.pixels in arm.terms


def record(arm: str, seed: int, score: float, **changes: Any) -> dict[str, Any]:
    """A record with a start of one half."""
    scores = [
        {"name": "initialisation", "ap_macro": 0.5, "knn_macro": 0.5},
        {"name": "student", "ap_macro": score, "knn_macro": score},
    ]
    pixels = {"before": 1.2, "after": 0.5, "other place": 0.9}
    made = {"arm": arm, "seed": seed, "scores": scores, "patch_iou": {}, "pixels": pixels}
    return {**made, "steps": 10, "step_seconds": 0.25, **changes}


def test_the_table_says_what_the_records_say(terms: ModuleType) -> None:
    """Means, gains on the own start and on SoftCon of the same seeds, and intervals over seeds."""
    records = [record("softcon", s, 0.6 + 0.1 * s, pixels={}) for s in (0, 1)]
    records += [record("mim", s, 0.55 + 0.1 * s) for s in (0, 1)]
    records.append(record("cropmae", 0, 0.5))

    lines = {row.split("|")[1].strip(): row for row in terms.table(records).splitlines()
             if row.startswith("| ")}  # fmt: skip

    half = 12.706 * 10 * math.sqrt(0.5) / math.sqrt(2)  # gains of 10 and 20
    assert f"65.0, start +15.0 ± {half:.1f} |" in lines["softcon"]
    assert "60.0, start +10.0" in lines["mim"]
    assert "softcon **-5.0 ± 0.0**" in lines["mim"]
    assert "| 1.200 | 0.500 | 0.900 | 0.25 |" in lines["mim"]
    assert "start +0.0 (one seed), softcon -10.0 (one seed)" in lines["cropmae"]
    assert "| – | – | – | 0.25 |" in lines["softcon"]
    assert "–" == lines["mim"].split("|")[4].strip()  # no patches were measured


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["mim", "croco, seasons"])
def test_a_tiny_run_is_trained_measured_and_written(
    terms: ModuleType, tmp_path: Path, arm: str
) -> None:
    """A world of 12 places and an epoch: a record with all that the table shows; none is redone."""
    size = "--scenes 12 --window 60 --image 56 --epochs 1 --batch 4 --seeds 0"
    where = f"--world {tmp_path}/w --work {tmp_path}/runs --out {tmp_path}"
    words = [*size.split(), *where.split(), "--arms", arm]

    terms.main(words)
    terms.main(words)

    (found,) = terms.read(tmp_path / "terms.jsonl")
    assert {"initialisation", "student"} == set(found["patch_iou"])
    assert all(0 <= each <= 1 for each in found["patch_iou"].values())
    pixels = found["pixels"]
    assert pixels["before"] > 1
    assert (arm != "mim") == ("other place" in pixels)
    assert f"| {arm} | " in (tmp_path / "terms.md").read_text()
