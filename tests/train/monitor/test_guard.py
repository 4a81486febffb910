"""A collapse of the encoder is seen from the first steps, said in words, and ends the run."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain_settings import with_groups

from eofm.cli import main
from eofm.errors import TrainingError
from eofm.store.reader import Store
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.monitor import online
from eofm.train.monitor.guard import WARNINGS, Geometry, Health, diagnosis, remedy
from eofm.train.monitor.online import EARLY_STEPS, held_out_of_run
from eofm.train.monitor.run_log import read_rows
from eofm.train.run import pretrain

START = Geometry(rank=20.0, spread=0.4, cosine=0.8, knn=0.70)
UNLABELLED = replace(START, knn=math.nan)


RANDOM, PRETRAINED = False, True


@pytest.mark.parametrize(
    ("start", "now", "pretrained", "expected"),
    [
        (START, replace(START, rank=10.1, spread=0.1, knn=0.3), PRETRAINED, Health.HEALTHY),
        (START, replace(START, rank=9.9), PRETRAINED, Health.SHRINKING),
        (START, replace(START, rank=9.9, knn=0.69), PRETRAINED, Health.SHRINKING),
        (START, replace(START, rank=9.9, knn=0.67), PRETRAINED, Health.COLLAPSED),
        (START, replace(START, rank=4.1, spread=0.17, knn=0.6), RANDOM, Health.HEALTHY),
        (START, replace(START, rank=3.9, spread=0.17, knn=0.6), RANDOM, Health.COLLAPSED),
        (START, replace(START, rank=4.1, spread=0.15), RANDOM, Health.SHRINKING),
        (UNLABELLED, replace(UNLABELLED, rank=3.0, spread=0.05), PRETRAINED, Health.SHRINKING),
        (UNLABELLED, replace(UNLABELLED, rank=3.0, spread=0.03), PRETRAINED, Health.COLLAPSED),
        (replace(START, rank=math.nan), replace(START, rank=1.0), PRETRAINED, Health.HEALTHY),
        (START, replace(START, rank=math.nan), PRETRAINED, Health.HEALTHY),
    ],
)
def test_what_counts_as_collapse(
    start: Geometry, now: Geometry, pretrained: bool, expected: Health
) -> None:
    """Fewer directions are a warning; it takes the probe, or a dead network, to stop a run."""
    assert expected is now.health(start, pretrained=pretrained)


def test_mean_cosine_is_that_of_all_pairs() -> None:
    """It equals the mean of a loop over pairs, and is 1 for one point."""
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    pairs = [
        float(torch.cosine_similarity(vectors[i], vectors[j], dim=0))
        for i in range(7)
        for j in range(i)
    ]

    assert pytest.approx(sum(pairs) / len(pairs), abs=1e-6) == online.mean_cosine(vectors)
    assert pytest.approx(1.0) == online.mean_cosine(torch.ones(4, 3) * torch.arange(1, 5)[:, None])


def measured(monkeypatch: pytest.MonkeyPatch, ranks: list[float], knn: list[float]) -> None:
    """Let the evaluations find these ranks and scores, the last one again and again."""

    def one_of(values: list[float]) -> object:
        left = list(values)
        return lambda *_: left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr("eofm.train.monitor.online.effective_rank", one_of(ranks))
    precision = one_of(knn)

    class Macro:
        """What stands for an average precision."""

        def __init__(self, *_: object) -> None:
            self.macro = precision()  # type: ignore[operator]

    monkeypatch.setattr("eofm.train.monitor.online.average_precision", Macro)


def early(config: PretrainConfig, **groups: dict[str, object]) -> PretrainConfig:
    """Return settings of which only the evaluations of the first steps are left."""
    return with_groups(config, monitor={"every_epochs": 1000, "scenes": 8}, **groups)


def test_the_first_steps_are_evaluated(config: PretrainConfig) -> None:
    """After 1, 2 and 4 steps there is a row, whatever `every_epochs` says, but no linear probe."""
    pretrain(early(config))

    rows = read_rows(Path(str(config.run.out)) / "monitor.jsonl")
    assert [0, 1, 2, 4] == [row["step"] for row in rows]
    assert EARLY_STEPS >= 32
    for row in rows:
        assert {"monitor/effective_rank", "monitor/mean_cosine", "monitor/knn"} <= set(row)
    assert ["monitor/linear" in row for row in rows] == [True, False, False, False]


@pytest.mark.slow
def test_a_collapse_is_warned_of_and_stops_the_run(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second evaluation that finds it stops; the command that is printed trains on.

    The name of the run has a space, as folders of users have.
    """
    config = with_groups(config, run={"out": f"{config.run.out} one"})
    measured(monkeypatch, [20.0, 18.0, 3.0, 2.0], [0.7, 0.7, 0.6, 0.5])

    with pytest.raises(TrainingError, match="encoder has collapsed") as caught:
        pretrain(early(config, optim={"epochs": 4}))

    text = str(caught.value)
    for words in ("effective rank 2.0 after 20.0", "kNN 50.0 after 70.0", "step 4, since step 2",
                  "7 negatives", "peak learning rate"):  # fmt: skip
        assert words in text, words
    warned = capsys.readouterr().err
    assert "losing directions at step 2" in warned
    assert 1 == warned.count("warning: the encoder")
    monkeypatch.undo()
    command = re.search(r"eofm (pretrain [^;]*);", text)
    assert command is not None
    assert 0 == main(shlex.split(command[1]))
    assert (Path(f"{config.run.out}-gentler") / "DONE").is_file()
    capsys.readouterr()


def test_a_warning_stays_in_the_folder_of_the_run(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer directions with a probe that holds do not stop a run: it says so in a file."""
    measured(monkeypatch, [20.0, 3.0, 2.0], [0.7])

    pretrain(early(config))

    folder = Path(str(config.run.out))
    assert "effective rank 3.0 after 20.0" in (folder / WARNINGS).read_text()
    assert (folder / "DONE").is_file()


def test_a_run_that_recovers_is_not_stopped(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two evaluations in a row must find the collapse, not two at any time."""
    measured(monkeypatch, [20.0, 3.0, 15.0, 3.0], [0.7, 0.5])

    pretrain(early(config))

    assert (Path(str(config.run.out)) / "DONE").is_file()


def test_the_remedy_depends_on_what_there_is_to_lose() -> None:
    """Slower early layers and a frozen trunk spare pretrained weights; random ones have none."""
    config = with_groups(PretrainConfig(), run={"out": "runs/a"})
    pretrained = with_groups(config, model={"weights": "a.pth"})

    assert "layer_decay" not in remedy(config)
    assert "--optim.layer_decay 0.75 --optim.freeze_epochs 1" in remedy(pretrained)
    assert "every layer of the pretrained network" in diagnosis(pretrained)
    assert "31 negatives" in diagnosis(config)


def test_embeddings_that_are_no_numbers_are_not_measured(config: PretrainConfig) -> None:
    """An evaluation after the weights broke says nothing, and raises nothing of torch's."""
    store = Store(str(config.data.store))
    held = held_out_of_run(StoreDataModule(store, config.data, 8, 0), 8, 0)
    assert held is not None
    good, broken = torch.rand(len(held.reference), 4), torch.full((len(held.queries), 4), torch.nan)

    assert {} == held.measure(broken, good, config.method.similarity)
    assert {} == held.measure(broken, good, config.method.similarity, brief=True)


@pytest.mark.slow
def test_eighteen_real_windows_are_caught_within_twenty_steps(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows of three TerraMesh sites: the collapse that went unnoticed is told in 20 steps."""
    sites = real_data / "terramesh"
    store = tmp_path / "windows"
    words = ("--sensor s2-l1c --unit dn --unit_of '{\"609U*\": \"dn-offset1000\"}' --scheme "
             "terramesh --window 96 --stride 64")  # fmt: skip
    pack = ["pack", "tiles", "--images", str(sites / "S2L1C"), "--landcover", str(sites / "LULC")]
    assert 0 == main([*pack, *shlex.split(words), "--out", str(store)])

    settings = ("--data.holdout 0.34 --model.size 56 --optim.batch 9 --optim.epochs 10 "
                "--run.threads 1 --run.figures false")  # fmt: skip
    main(["pretrain", "--data.store", str(store), *shlex.split(settings), "--run.out",
          str(tmp_path / "run")])  # fmt: skip

    text = capsys.readouterr().err
    step = re.search(r"losing directions at step (\d+)", text)
    assert step is not None
    assert int(step[1]) <= 20
