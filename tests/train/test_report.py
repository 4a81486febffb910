"""One HTML page about a run: whole, running, dead, or several beside one another."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from html_checker import Checker, checked
from pretrain_settings import with_groups

from eofm.cli import main
from eofm.contract.preprocess import to_grid
from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.errors import DataError, TrainingError
from eofm.formats.foreign import sealed
from eofm.report.pages import Paragraph, TableBlock
from eofm.store.reader import Store
from eofm.train.build import make_recipe
from eofm.train.config import ModelConfig, PretrainConfig, ReportConfig
from eofm.train.figures import (
    DAMAGED,
    Scenes,
    by_labels,
    nearest,
    patch_colours,
    read_record,
)
from eofm.train.module import PretrainModule
from eofm.train.report import _scores, report
from eofm.train.run import pretrain
from eofm.weights.encoder import random_encoder


def read(path: Path) -> tuple[str, Checker]:
    """The page and what was seen in it, after the checks that every page must pass."""
    text = path.read_text(encoding="utf-8")
    return text, checked(text)


@pytest.mark.slow
def test_a_whole_run_a_running_one_and_a_comparison(
    config: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Result, curves, looks, gap, pictures, settings; a run with no end yet shows what there is."""
    config = with_groups(config, monitor={"dense": 4, "scenes": 8})
    out = Path(str(config.run.out))
    pretrain(config)

    assert 0 == main(["report", str(out)])
    text, seen = read(out / "report.html")
    for title in (
        "Result", "Training", "Held-out scenes, while it trained", "Stability gap",
        "What it sees: patches", "Nearest neighbours", "Similarity of labels and of embeddings",
        "Throughput", "Settings",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in text, title
    assert "finished, 4 steps" in text
    assert "Synthetic scenes" in text
    assert "cannot tell a gain from chance" in text  # of so few places there is no interval
    assert seen.pictures > 6 * 4
    assert "method.hidden" in text  # a setting that is not the default

    # what a run that is still going on has: no exports, no results
    running = tmp_path / "running"
    running.mkdir()
    for name in ("config.yaml", "metrics.jsonl", "monitor.jsonl"):
        (running / name).write_bytes((out / name).read_bytes())
    (running / "checkpoints").mkdir()
    (running / "checkpoints" / "last.ckpt").hardlink_to(out / "checkpoints" / "last.ckpt")
    capsys.readouterr()
    assert 0 == main(["report", str(running), "--out", str(tmp_path / "r.html")])
    assert "running: not finished; step 4 was written" in capsys.readouterr().out
    text, seen = read(tmp_path / "r.html")
    assert "student, last checkpoint" in text
    assert "<h2>Result</h2>" not in text

    (running / "checkpoints" / "last.ckpt").unlink()
    page = report(ReportConfig([str(out), str(running)], store="nowhere"))
    text, seen = read(page.path)
    assert out / "comparison.html" == page.path
    assert "No setting differs." in text
    assert "kNN, average precision, macro" in text
    assert "monitor/knn" not in text  # numbers have titles, not the names of their columns
    assert 0 == seen.pictures


@pytest.mark.slow
def test_a_dead_run_says_why(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagnosis is on the page, with the curves as far as they go."""
    step = PretrainModule.training_step

    def die(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 3:
            raise TrainingError("<it> broke", found="this & that", remedy="another way")
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(PretrainModule, "training_step", die)
    with pytest.raises(TrainingError):
        pretrain(with_groups(config, monitor={"every_epochs": 0}))

    page = report(ReportConfig([str(config.run.out)], scenes=16))

    text, _ = read(page.path)
    assert "ended at step 3: &lt;it&gt; broke" in text
    assert "this &amp; that" in text
    assert "<h2>Training</h2>" in text


@pytest.mark.parametrize(("said", "measure"), [({"intervals_of": "ap_micro"}, 0.9), ({}, 0.6)])
def test_intervals_stand_beside_the_measure_they_are_of(
    said: dict[str, str], measure: float
) -> None:
    """Those of runs that do not say it, of earlier versions, are of the mean over classes."""
    names = ("initialisation", "student")
    score = {"ap_micro": 0.9, "ap_macro": 0.6, "knn_micro": 0.9, "knn_macro": 0.6}
    ends = {"low": measure - 0.1, "high": measure + 0.1}
    results = {
        "scores": [{"name": name, "per_class": [measure], **score} for name in names],
        "intervals": [{"linear": ends, "knn": ends}] * 2,
        "held_out_scenes": 9,
        "classes": ["water"],
        **said,
    }

    table = next(block for block in _scores(results) if isinstance(block, TableBlock)).table

    word = "micro" if said else "macro"
    where = [f"{word} AP [95 %]" in head for head in table.heads]
    row = [str(cell) for cell in table.rows[1].cells]
    ends_in_words = f"{100 * measure:.1f} [{100 * ends['low']:.1f}, {100 * ends['high']:.1f}]"
    assert [cell for cell, is_main in zip(row, where, strict=True) if is_main] == [
        ends_in_words,
        ends_in_words,
    ]


def test_an_old_run_with_one_held_out_place_has_no_verdict_any_more() -> None:
    """Its record says that the student is better by an interval without width: it is not shown."""
    score = {"ap_micro": 0.179, "ap_macro": 0.1, "knn_micro": 0.2, "knn_macro": 0.1}
    start, end = {"low": 0.179, "high": 0.179}, {"low": 0.001, "high": 0.001}
    whole = {"linear": start, "knn": start, "linear_gain": end, "knn_gain": end}
    results = {
        "scores": [{"name": n, "per_class": [0.2], **score} for n in ("initialisation", "student")],
        "intervals": [{**whole, "linear_gain": None, "knn_gain": None}, whole],
        "intervals_of": "ap_micro",
        "held_out_scenes": 9,
        "classes": ["water"],
        "verdict": "The student is better than its start: linear probe +0.1 [+0.1, +0.1]",
    }

    blocks = _scores(results)

    texts = [block.text for block in blocks if isinstance(block, Paragraph)]
    (table,) = (block.table for block in blocks if isinstance(block, TableBlock))
    assert "No verdict: the scored scenes are of one held-out location." == texts[0]
    assert "[" not in " ".join(
        [*texts, *table.heads, *(str(c) for r in table.rows for c in r.cells)]
    )
    assert "+0.0" in map(str, table.rows[1].cells)


def test_long_lines_of_code_wrap(config: PretrainConfig) -> None:
    """A command stays in its box: the text of an error breaks where the page ends."""
    folder = Path(str(config.run.out))
    folder.mkdir()
    (folder / "config.yaml").write_text("method: {}\n")
    (folder / "failure.json").write_text(json.dumps({"text": "eofm " + 80 * "--optim.lr 1 "}))

    text, _ = read(report(ReportConfig([str(folder)])).path)

    (rule,) = re.findall(r"(?m)^pre \{(.*)\}", text)
    assert "white-space: pre-wrap" in rule
    assert "overflow-wrap: anywhere" in rule


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """An empty folder, and settings that are none, say what was expected."""
    with pytest.raises(DataError, match="not the folder of a run"):
        report(ReportConfig([str(tmp_path)]))
    (tmp_path / "config.yaml").write_text("just words")
    with pytest.raises(DataError, match="not the settings of a run"):
        report(ReportConfig([str(tmp_path)]))


def test_a_store_that_has_moved_is_said(config: PretrainConfig, tmp_path: Path) -> None:
    """Without the store the page has everything but the pictures, and says how to give it."""
    folder = Path(str(config.run.out))
    folder.mkdir()
    (folder / "config.yaml").write_text(
        json.dumps({"data": {"store": str(tmp_path / "gone"), "holdout": 0.2, "seed": 0}})
    )

    text, seen = read(report(ReportConfig([str(folder)])).path)

    assert "--store says where it is" in text
    assert "has not taken a step yet" in text
    assert 0 == seen.pictures


def test_a_hostile_folder_and_records_of_another_version_have_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any name is text; whatever is missing is left out; what cannot be read is said."""
    folder = tmp_path / "<img src=x onerror=alert(1)> \u202e\u2028 \udcff"
    folder.mkdir()
    (folder / "config.yaml").write_text("method: {similarity: '<b>'}\n")
    (folder / "metrics.jsonl").write_text('{"step": 1, "own_probability": 0.5, "<b>x</b>": 1}\n')
    (folder / "results.json").write_text('{"scores": [{"name": "<script>"}], "synthetic": true}')
    (folder / "failure.json").write_text('{"text": "<script>alert(1)</script>"}')

    assert 0 == main(["report", str(folder)])

    text, seen = read(folder / "report.html")
    said = capsys.readouterr().out
    assert said.isprintable() or "\u202e" not in said
    assert "img" not in seen.seen
    assert "&lt;img src=x onerror=alert(1)&gt; \\u202e\\u2028 \\udcff" in text
    assert "cannot be read by this version" in text
    assert "&lt;b&gt;x&lt;/b&gt; 1" in text
    assert "the settings do not state where the store is" in text


def test_results_that_were_altered_are_not_shown(tmp_path: Path) -> None:
    """One digit of a score is enough; results without a checksum, as before, are shown."""
    (tmp_path / "config.yaml").write_text("optim: {batch: 8}\n")
    score = {"name": "student", "ap_micro": 0.5, "ap_macro": 0.5, "knn_micro": 0.5}
    results = {"classes": ["a"], "held_out_scenes": 9, "scores": [{**score, "knn_macro": 0.5,
               "per_class": [0.5]}]}  # fmt: skip
    file, page = tmp_path / "results.json", tmp_path / "report.html"
    for text, shown in (
        (json.dumps(results), True),
        (json.dumps(sealed(results)), True),
        (json.dumps(sealed(results)).replace("0.5", "0.7", 1), False),
        (json.dumps(sealed(results))[:-9], False),
    ):
        file.write_text(text)
        assert 0 == main(["report", str(tmp_path)])
        assert shown == ("results.json was edited or damaged" not in page.read_text())
        assert shown == (">50.0<" in page.read_text())


def test_a_record_reads_what_a_killed_run_left(tmp_path: Path) -> None:
    """Half a line is passed over; a metric that is missing in a line leaves a gap."""
    (tmp_path / "config.yaml").write_text("optim: {batch: 8}\n")
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "epoch": 0, "loss": 2.0}\n'
        '{"step": 2, "epoch": 0, "loss": 1.0, "lr": 0.1}\n{"step": 3, "lo'
    )
    (tmp_path / "results.json").write_text("{")

    record = read_record(tmp_path)

    assert {"loss", "lr"} == set(record.steps)
    assert ([1, 2], [2, 1]) == tuple(part.tolist() for part in record.steps["loss"])
    assert {DAMAGED: True} == record.results
    assert 8 == record.setting("optim", "batch")
    assert record.setting("monitor", "scenes") is None


@pytest.mark.parametrize(
    ("content", "damaged"),
    [
        ({"scores": []}, False),  # of version 0.1
        ({"scores": [], "verdict": "better", "checKsum": "0" * 64}, True),
        ({"": None}, True),
    ],
)
def test_results_without_a_checksum_are_those_of_version_0_1(
    content: dict[str, object], damaged: bool, tmp_path: Path
) -> None:
    """A damaged name of the checksum made the rest unprotected, and it was shown."""
    (tmp_path / "config.yaml").write_text("optim: {batch: 8}\n")
    (tmp_path / "results.json").write_text(json.dumps(content))

    assert damaged == (DAMAGED in read_record(tmp_path).results)


# ------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("architecture", "size", "grid"), [("vit-tiny-14", 112, 8), ("resnet18", 112, 7)]
)
def test_patches_become_colours(architecture: str, size: int, grid: int, store_path: Path) -> None:
    """Each patch has a colour within bounds; of a ResNet it is the stage before the last."""
    store = Store(store_path)
    recipe = make_recipe(store, [0], ModelConfig(architecture=architecture, size=size))
    encoder = random_encoder(architecture, recipe, 0)

    colours = patch_colours(encoder, to_grid(store.images([0, 5, 9])))

    assert (3, grid, grid, 3) == tuple(colours.shape)
    assert 0 <= float(colours.min()) < 0.1
    assert 0.9 < float(colours.max()) <= 1


def test_neighbours_and_order(store_path: Path) -> None:
    """The nearest of scenes that hold the query is the query; equal label sets stand together."""
    store = Store(store_path)
    recipe = make_recipe(store, [0], ModelConfig(size=56))
    encoder = random_encoder("vit-tiny-14", recipe, 0)
    scenes = Scenes(store, np.arange(2, 24), np.arange(2, 24))

    found = nearest(encoder, scenes, np.array([4, 9]), 3)

    assert [4, 9] == [row[0] for row in found]
    hot = store.labels(by_labels(scenes, 22).tolist()).multi_hot
    changes = int((hot[1:] != hot[:-1]).any(dim=1).sum())
    assert changes + 1 == len(torch.unique(hot, dim=0))
    rows = scenes.varied(3)
    assert 3 == len({str(store.locations[row]) for row in rows})
    assert SENSOR_BANDS[Sensor.S2_L1C] == store.spec.bands
