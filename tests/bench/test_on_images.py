"""Probes trained on images within the harness: rows, archives, protocols and their faults."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_task import BANDS, RECIPE, SPEC, Small, toy_chips

from eofm.bench.config import BenchConfig, TrainingConfig
from eofm.bench.controls import ImageStatistics
from eofm.bench.finetune import runs as on_images
from eofm.bench.finetune.runs import score_on_images, trainees_of
from eofm.bench.predictions import Archive, Group
from eofm.bench.records import Sample
from eofm.bench.run import BenchReport, bench
from eofm.bench.sources import Candidate, NetworkSource
from eofm.cli import main
from eofm.datasets.base import Task, TaskKind
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.datasets.images.chips import Chips, targets_of
from eofm.errors import ConfigError
from eofm.probes.metrics import Metric, batched_average_precision
from eofm.store.splits import hash_order, subset_hash

TASK = Task("toy", "toy", (SPEC,), ("a", "b", "c"), 0, TaskKind.SEVERAL_CLASSES)


def settings(root: Path, folder: Path, **options: object) -> BenchEurosatConfig:
    """Settings whose files lie in `folder`, with few resamples."""
    files = {"out": str(folder / "results.jsonl"), "cache": str(folder / "cache")}
    return BenchEurosatConfig(str(root), **{**files, "bootstrap": 20, "limit": 16, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(
    eurosat: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> BenchReport:
    """Fine-tuning beside kNN, with all controls."""
    folder = tmp_path_factory.mktemp("trained")
    train = TrainingConfig(epochs=1, factors="0.01,0.1")
    config = settings(eurosat, folder, model=str(encoder_folder), probe="knn,finetune", train=train)
    return bench(config)


def test_what_has_a_network_is_fine_tuned(report: BenchReport) -> None:
    """The encoder and its untrained twin; statistics and random filters have nothing to train."""
    rows = {(r.model.name, r.kind) for r in report.results}

    assert {"mine", "random"} == {name for name, kind in rows if kind == "finetune"}
    assert {"mine", "random", "imagestats", "rcf", "rcf-zca"} == {
        name for name, kind in rows if kind == "knn"
    }


def test_a_trained_row_tells_all(report: BenchReport) -> None:
    """Every hyperparameter, what was tried, what was chosen, predictions and rank."""
    result = next(r for r in report.results if (r.model.name, r.kind) == ("mine", "finetune"))

    assert "network=0.01/0.1,epochs=1" in result.probe
    assert result.chosen in {"network 0.01", "network 0.1"}
    assert {"optimiser", "weight_decay", "augmentation", "precision", "tried on val"} <= set(
        result.details
    )
    assert 2 == result.details["tried on val"].count("network")
    assert result.rank is not None
    assert (report.out.parent / result.predictions).is_file()
    assert any("random" in r.flags[0] for r in report.results if r.flags and r.kind == "finetune")


def test_nothing_is_trained_twice(
    report: BenchReport, eurosat: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions are found again, and no journal is left behind."""
    monkeypatch.setattr(on_images, "run_job", None)
    train = TrainingConfig(epochs=1, factors="0.01,0.1")
    folder = report.out.parent

    again = bench(
        settings(eurosat, folder, model=str(encoder_folder), probe="finetune", train=train)
    )

    assert 0 == again.appended
    assert not list((folder / "training").glob("*"))


def test_something_must_be_there_to_train(eurosat: Path, tmp_path: Path) -> None:
    """Band statistics alone cannot be fine-tuned: an error, not an empty table."""
    with pytest.raises(ConfigError, match="needs a network"):
        bench(settings(eurosat, tmp_path, probe="finetune", controls=False))


def test_a_protocol_is_no_recipe() -> None:
    """`--recipe` is the file of a timm network; who names a protocol there is told where."""
    with pytest.raises(ConfigError, match="a protocol is a probe") as caught:
        BenchEurosatConfig("x", recipe="softcon")

    assert "--probe softcon" in str(caught.value)


def test_a_protocol_stands_for_its_probes() -> None:
    """On features and on images."""
    config = BenchEurosatConfig("x", probe="dinov2,softcon,knn")

    assert (
        *("knn20", "linear-c45-refit", "dinov2-heads"),
        *("softcon-linear", "softcon-dino4", "softcon-dino4-mean", "knn"),
    ) == config.probes


def test_a_record_says_for_which_protocol_it_was_made(eurosat: Path, tmp_path: Path) -> None:
    """What of it is not reproduced, and which faults the paper's own numbers have."""
    report = bench(settings(eurosat, tmp_path, probe="corley2023,nmc", controls=False))

    said = {r.kind: r.details for r in report.results}
    assert "interpolation" in said["knn"]["corley2023: not reproduced"]
    assert "picked on test" in said["linear-c1"]["corley2023: faults of the paper"]
    assert not said["nmc"]
    with pytest.raises(ConfigError, match="five neighbours"):
        settings(eurosat, tmp_path, probe="corley2023", k=3)


@pytest.mark.slow
def test_the_command_line_trains(eurosat: Path, whole_folder: Path, tmp_path: Path) -> None:
    """DINOv2's 52 heads on the miniature: one is chosen, and the command repeats the settings."""
    words = ["bench", "eurosat", "--root", str(eurosat), "--model", str(whole_folder)]
    words += ["--probe", "dinov2-heads", "--train.epochs", "1", "--controls", "false"]
    words += [
        "--bootstrap",
        "20",
        "--limit",
        "16",
        "--out",
        str(tmp_path / "r.jsonl"),
        "--cache",
        "",
    ]

    assert 0 == main(words)

    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {"dinov2-heads"} == {row["kind"] for row in rows}
    assert 52 == rows[0]["details"]["tried on val"].count("rate")
    assert "layer" in rows[0]["chosen"]
    assert "dinov2 in part" in rows[0]["flags"]
    assert "--train.epochs 1" in rows[0]["made"]["command"]


# ------------------------------------------------------------------------- papers' protocols


def world(*, several: bool = True) -> Chips:
    """100 images of train, 70 of val, 66 of test."""
    names = {"train": 100, "val": 70, "test": 66}
    splits = {n: toy_chips(count, count, several=several) for n, count in names.items()}
    return Chips(Path("toy"), "given", TASK.classes, splits)


def groups(folder: Path, kind: str, task: Task = TASK, **train: object) -> list[Group]:
    """Scores of one protocol on the toy task."""
    chips = world(several=task.kind is TaskKind.SEVERAL_CLASSES)
    sample = Sample("toy", "given", "", "", 100, 70, 66, complete=True, copies=0)
    test = chips.splits["test"]
    archive = Archive(
        records=folder / "r.jsonl",
        task="toy 1",
        sample=sample,
        ids=tuple(chip.id for chip in test),
        classes=TASK.classes,
        target=targets_of(test, 3),
        metrics=task.metrics,
    )
    options = TrainingConfig(**{"epochs": 2, **train})  # type: ignore[arg-type]
    config = BenchConfig("x", probe=kind, train=options)
    candidates = [
        Candidate("mine", (NetworkSource("mine", Small().eval(), RECIPE, "toy"),)),
        Candidate("imagestats", (ImageStatistics(),)),
    ]
    return score_on_images(config, [kind], task, candidates, chips, archive)


def test_a_protocol_takes_its_subset_by_hash(tmp_path: Path) -> None:
    """The 10 % that `--shares 10` would take; test is scored, by the whole set and by batches."""
    (group,) = groups(tmp_path, "ssl4eo-moco")
    ((name, kind),) = group.scored
    scored = group.scored[name, kind]

    assert ("mine", "ssl4eo-moco") == (name, kind)
    assert ("given, 10 % of train", 10, 66) == (
        *(group.sample.split, group.sample.n_train, group.sample.n_test),
    )
    assert {*TASK.metrics, Metric.AP_MICRO_BATCHES} == set(scored.metrics)
    target = targets_of(world().splits["test"], 3)
    expected = batched_average_precision(scored.probe.scores, target)
    assert expected == pytest.approx(scored.value(Metric.AP_MICRO_BATCHES))
    assert not any("faults" in note for note in scored.faults())


def test_faults_are_repeated_and_marked(tmp_path: Path) -> None:
    """Drawn with replacement, scored on val: another sample, and a nonstandard row."""
    (group,) = groups(tmp_path, "ssl4eo-moco", faults=True)
    (scored,) = group.scored.values()

    assert "10 % of train drawn with replacement" in group.sample.split
    assert "val watched and scored" in group.sample.split
    assert (10, 70) == (group.sample.n_train, group.sample.n_test)
    assert 70 == len(scored.probe.scores)
    assert any(note.startswith("nonstandard: faults of ssl4eo") for note in scored.faults())


def test_eurosat_is_divided_again_where_that_is_the_fault(tmp_path: Path) -> None:
    """80/20 of all images, the fifth both watched and reported."""
    task = replace(TASK, name="eurosat-toy", kind=TaskKind.ONE_CLASS)

    (group,) = groups(tmp_path, "ssl4eo-moco", task, faults=True)

    sample = group.sample
    assert (188, 0, 48) == (sample.n_train, sample.n_val, sample.n_test)
    assert "80/20" in sample.split
    assert sample.test_sha256 != subset_hash(chip.id for chip in world(several=False).splits["val"])


def test_subsets_nest_or_repeat_as_stated() -> None:
    """By hash each image once, the first in hash order; as drawn elsewhere, some twice."""
    train = toy_chips(500, 3, several=True)

    plain, _ = on_images._cut(train, TASK, replacement=False)
    drawn, words = on_images._cut(train, TASK, replacement=True)

    first = set(hash_order((chip.id for chip in train), TASK.name)[:50])
    assert first == {chip.id for chip in plain}
    counts = Counter(chip.id for chip in drawn)
    assert 50 == counts.total()
    assert len(counts) < 50
    assert words.endswith(f"{len(counts)} images")


def test_softcon_tries_rates_on_val(tmp_path: Path) -> None:
    """Its rates are not published: seven are tried, and their curve stands in the record."""
    (group,) = groups(tmp_path, "softcon-linear")
    (scored,) = group.scored.values()

    assert 7 == scored.probe.details["tried on val"].count("rate")
    assert "not published" in scored.probe.details["softcon: faults of the paper"]


def test_layers_are_read_of_encoders_only(tmp_path: Path) -> None:
    """A network of the user's own shows its embedding; the refusal names it."""
    with pytest.raises(ConfigError, match="only its embedding"):
        groups(tmp_path, "softcon-dino4")


def test_controls_without_parameters_have_nothing_to_train() -> None:
    """Random filters are buffers."""

    class Filters(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("filters", torch.ones(4, len(BANDS)))

    source = NetworkSource("rcf", Filters().eval(), RECIPE, "toy")

    assert () == trainees_of(Candidate("rcf", (source,)))
    assert () == trainees_of(Candidate("imagestats", (ImageStatistics(),)))
