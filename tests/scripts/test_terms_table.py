"""The script that compares terms: its runs can be made, and its table says what the records say."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from eofm.cli import parse
from eofm.method.objectives import check_views, needs_of
from eofm.method.terms import term_names
from eofm.train.build import VIEW_KINDS

FOLDER = Path(__file__).parents[2] / "benchmarks" / "terms"


@pytest.fixture
def terms(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("terms")


@pytest.fixture
def page(terms: ModuleType) -> ModuleType:
    """The module that makes its page."""
    return importlib.import_module("terms_page")


def size_of(terms: ModuleType, folder: Path) -> Any:
    """Runs of seconds."""
    return terms.Size(
        folder / "world", 12, 60, "vit-tiny-14-2blocks", 56, 1, 4, 4e-3, folder / "runs"
    )


@pytest.mark.slow
def test_every_line_is_a_run_that_can_be_made(terms: ModuleType, tmp_path: Path) -> None:
    """The command of each line is read by the program, and its views are those its terms need."""
    for arm in terms.ARMS:
        config = parse("pretrain", terms.command(arm, 0, size_of(terms, tmp_path))[2:])
        check_views(config.method, VIEW_KINDS[config.data.views])

        assert set(arm.terms) == set(needs_of(config.method))
        assert not arm.pixels or arm.pixels in arm.terms


def test_every_term_has_a_line_alone_and_beside_softcon(terms: ModuleType) -> None:
    """A new term without a line is told; every line is compared with one that there is."""
    lines = [set(arm.terms) for arm in terms.ARMS]
    names = {arm.name for arm in terms.ARMS}

    for name in set(term_names()) - {"softcon"}:
        assert {name} in lines, name
        assert {"softcon", name} in lines, name
    assert len(names) == len(terms.ARMS)
    assert {arm.against for arm in terms.ARMS} <= names


def record(arm: str, seed: int, score: float, **changes: Any) -> dict[str, Any]:
    """A record with a start of one half."""
    scores = [
        {"name": name, "ap_macro": each, "knn_macro": each}
        for name, each in (
            ("initialisation", 0.5),
            ("student", score),
            ("initialisation s1-grd", 0.4),
            ("student s1-grd", score - 0.2),
        )
    ]
    pixels = {"before": 1.2, "after": 0.5, "other place": 0.9}
    made = {"arm": arm, "seed": seed, "scores": scores, "patch_iou": {}, "pixels": pixels}
    more = {"steps": 10, "train_cpu_seconds": 2.0, "scenes": {"train": 8, "held_out": 4}}
    command = "eofm pretrain --model.architecture vit-tiny-14 --optim.batch 4 --optim.lr 0.1"
    return {**made, **more, "command": command, **changes}


def lines_of(text: str) -> dict[str, list[str]]:
    """The cells of the first table by the name of the line."""
    rows = [[c.strip() for c in row.split("|")[1:-1]] for row in text.splitlines() if "| " in row]
    return {row[0]: row for row in reversed(rows)}


def test_the_page_says_what_the_records_say(page: ModuleType) -> None:
    """Means, gains on the own start and on SoftCon of the same seeds, and intervals over seeds."""
    records = [record("softcon", s, 0.6 + 0.1 * s, pixels={}) for s in (0, 1)]
    records += [record("mim", s, 0.55 + 0.1 * s) for s in (0, 1)]
    records.append(record("look", 0, 0.5))
    records.append(record("moco-v3, dense", 0, 0.5, train_cpu_seconds=4.0))
    records.append(record("moco, both sensors", 0, 0.7))
    records.append(record("distill, both sensors", 0, 0.8))
    scores = [{"name": "student", "ap_macro": 0.3, "knn_macro": 0.3}]
    records.append({"arm": "52 image statistics", "seed": 0, "scores": scores})

    text = page.page(records)

    lines = lines_of(text)
    half = 12.706 * 10 * math.sqrt(0.5) / math.sqrt(2)  # gains of 10 and 20
    assert ["65.0", f"+15.0 ± {half:.1f}", ""] == lines["softcon"][3:6]
    assert ["60.0", f"+10.0 ± {half:.1f}", "**-5.0 ± 0.0**"] == lines["mim"][3:6]
    assert ["1", "50.0", "+0.0", "-10.0"] == lines["look"][2:6]
    assert ["–", "", ""] == lines["mim"][9:12]  # no patches were measured
    assert ["30.0", "", ""] == lines["52 image statistics"][3:6]
    assert "| mim | mim | 1.2000 ± 0.0000 | 0.5000 ± 0.0000 | 0.9000 ± 0.0000 |" in text
    radar = text[text.index("radar image alone") :]
    assert "| 1 | 60.0 | +20.0 | +10.0 |" in radar
    assert ("0.50", "1.00") == (lines["softcon"][-1], lines["moco-v3, dense"][-1])
    assert "SYNTHETIC" in text
    call = "    python benchmarks/terms/terms.py --architecture vit-tiny-14 --batch 4 --lr 0.1"
    assert call in text.splitlines()


def test_a_seed_that_one_side_lacks_does_not_count(page: ModuleType) -> None:
    """Differences are of the seeds that both lines have: here they are of one."""
    records = [record("softcon", 0, 0.6), record("mim", 0, 0.7), record("mim", 1, 0.2)]

    assert "+10.0" == lines_of(page.page(records))["mim"][5]


def test_some_lines_alone_have_a_page(page: ModuleType) -> None:
    """`--arms mim cropmae`, as the script's help has it: nothing to compare with, but a page."""
    lines = lines_of(page.page([record("mim", 0, 0.7), record("cropmae", 0, 0.4)]))

    assert ["1", "70.0", "+20.0", ""] == lines["mim"][2:6]


def test_prompts_find_patches_of_their_class(terms: ModuleType) -> None:
    """Tokens that are their class find all, exchanged ones none, equal ones half (ties)."""
    maps = torch.zeros(1, 4, 4, dtype=torch.long)
    maps[:, :, 2:] = 1  # a grid of 2 x 2 patches: class 0, 1, 0, 1
    apart = torch.tensor([[[1.0, 0], [0, 1], [1, 0], [0, 1]]])
    mixed = torch.tensor([[[1.0, 0], [1, 0], [0, 1], [0, 1]]])

    def found(tokens: torch.Tensor) -> float:
        return terms.prompt_auroc(tokens, (2, 2), maps, ["a"])

    assert [1.0, 0.25, 0.5] == [found(each) for each in (apart, mixed, torch.ones(1, 4, 2))]


def test_the_figure_has_a_row_for_each_comparison(page: ModuleType) -> None:
    """A line without the one beside it has none; the base itself has none."""
    records = [record(name, s, 0.6) for name in ("softcon", "mim", "cropmae") for s in (0, 1)]

    drawn = page.figure(records)

    assert ["mim"] == [text.get_text() for text in drawn.axes[0].get_yticklabels()]


PIXELS = {
    "mim": {"before", "after"},
    "croco, seasons": {"before", "after", "other place"},
    "self_distill": set(),
}


@pytest.mark.slow
@pytest.mark.parametrize("arm", PIXELS)
def test_a_tiny_run_is_trained_measured_and_written(
    terms: ModuleType, page: ModuleType, tmp_path: Path, arm: str
) -> None:
    """A world of 12 places and an epoch: a record with all that the page shows; none is redone."""
    size = "--scenes 12 --window 60 --image 56 --epochs 1 --batch 4 --seeds 0"
    size += " --architecture vit-tiny-14-2blocks"
    where = f"--world {tmp_path}/w --work {tmp_path}/runs --out {tmp_path}"
    words = [*size.split(), *where.split(), "--arms", "softcon", arm]

    terms.main(words)
    before = terms.read_records(tmp_path / "terms.jsonl")
    terms.main(words)

    assert before == terms.read_records(tmp_path / "terms.jsonl")
    first, found, control = before
    assert ["softcon", arm, "52 image statistics"] == [row["arm"] for row in before]
    assert first["synthetic"]
    assert {"initialisation", "student"} == set(found["patch_iou"]) == set(found["within_rank"])
    assert all(0 <= each <= 1 for each in found["patch_iou"].values())
    assert {"student"} == {score["name"] for score in control["scores"]}
    assert found["pixels"].keys() == PIXELS[arm]
    assert all(each > 0 for each in found["pixels"].values())
    if arm == "self_distill":
        assert "runs/softcon-0" in found["command"]
        assert first["scores"][0] == found["scores"][0]  # both begin at the same weights
    assert arm in lines_of((tmp_path / "terms.md").read_text())
    assert (tmp_path / "terms.png").is_file()
