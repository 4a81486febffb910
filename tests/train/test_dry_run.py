"""A dry run says what a run would be, and leaves nothing behind; doubts are told before a start."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from pretrain_settings import with_groups

from eofm.cli import main
from eofm.formats.text import settings_text
from eofm.store.reader import Store
from eofm.train import dry_run as told
from eofm.train.build import build_module, make_recipe
from eofm.train.config import PretrainConfig, RunConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.run import pretrain
from eofm.train.run_folder import from_dict
from eofm.world.config import WorldConfig

PLAIN = (
    "steps      2 an epoch x 2 epochs = 4, of 8 scenes each",
    "negatives  7 for each",
    "mask       8 of 16 patches hidden, 50%",
    "after every epoch, briefly after steps 1, 2, 4",
    "3 evaluations",
    "16 scenes, 4 steps: this cannot learn",
)


def everything_in(folder: Path) -> list[str]:
    """Return all paths below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, PLAIN),
        (
            {"optim": {"batch": 4}, "method": {"queue": 8}, "trainer": {"accumulate": 2}},
            ("= 4, of 8 scenes each", "negatives  11 for each"),
        ),
        ({"method": {"mask_ratio": 0.7}}, ("12 of 16 patches hidden, 75%",)),
        ({"monitor": {"every_epochs": 0}}, ("evaluates nothing", "0 evaluations")),
        (
            {"augment": {"rgb_probability": 0.05}},
            ("13 bands, 0.05 of the scenes seen in red, green and blue alone",),
        ),
        (
            {"monitor": {"every_epochs": 0, "every_steps": 2}},
            ("after every 2 steps", "3 evaluations"),
        ),
    ],
    ids=["plain", "accumulated", "masked", "blind", "colours", "by-steps"],
)
def test_it_says_what_would_be(
    config: PretrainConfig, tmp_path: Path, changes: dict[str, dict], words: tuple[str, ...]
) -> None:
    """Steps, negatives and evaluations are those of the settings; nothing is written."""
    before = everything_in(tmp_path)
    asked = with_groups(with_groups(config, run={"dry_run": True}), **changes)

    report = pretrain(asked)

    assert report.text.startswith("Dry run: nothing was written.")
    for each in words:
        assert each in report.text, report.text
    assert before == everything_in(tmp_path)
    assert not Path(str(config.run.out)).exists()
    took = re.search(r"a step     (\S+) s", report.text)
    assert took is not None
    assert float(took[1]) > 0


@pytest.mark.slow
def test_the_steps_are_those_that_the_run_takes(config: PretrainConfig) -> None:
    """The run that follows takes as many steps as the dry run said."""
    text = pretrain(with_groups(config, run={"dry_run": True})).text
    pretrain(config)

    said = re.search(r"epochs = (\d+),", text)
    assert said is not None
    rows = (Path(str(config.run.out)) / "metrics.jsonl").read_text().splitlines()
    assert int(said[1]) == len(rows)


def test_the_option_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`eofm pretrain --dry-run` without data makes no world, no store and no run."""
    monkeypatch.chdir(tmp_path)
    # the number of processes changes no byte of a world, and each imports all anew
    monkeypatch.setattr("eofm.world.config.WorldConfig", partial(WorldConfig, workers=1))
    small = "--data.scenes 14 --data.size 60 --model.size 56 --optim.batch 8"
    small += " --model.architecture vit-tiny-14-2blocks --monitor.every_epochs 0"

    assert 0 == main(["pretrain", *small.split(), "--dry-run"])

    assert "SYNTHETIC scenes to train on" in capsys.readouterr().out
    assert [] == everything_in(tmp_path)


def test_settings_that_change_no_result_may_be_missing() -> None:
    """A run that began before an option of `run` or `monitor` existed resumes with its default."""
    settings = yaml.safe_load(settings_text(PretrainConfig()))
    del settings["run"]["dry_run"], settings["monitor"]["dense"]

    assert PretrainConfig(run=RunConfig()) == from_dict(settings, "config.yaml")


# ------------------------------------------------------------------------------------------ doubts


def doubts_of(config: PretrainConfig) -> str:
    """Return the doubts about a run, a line each."""
    store = Store(str(config.data.store))
    data = StoreDataModule(store, config.data, config.optim.batch, 0)
    module, _ = build_module(config, data, make_recipe(store, [0], config.model))
    return "\n".join(told.doubts(config, data, module))


def test_too_few_scenes_are_said_before_training(
    config: PretrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run says how many scenes and steps it has, and how many can learn, and then trains."""
    pretrain(config)

    text = capsys.readouterr().err
    assert "warning: 16 scenes, 4 steps: this cannot learn; what can: 200 scenes" in text
    assert "no verdict: the scored scenes are of 3 held-out locations, and fewer than 6" in text
    assert "each scene has 7 negatives" in text
    assert text.index("cannot learn") < text.index("step 1/4")


def test_enough_of_everything_raises_no_doubt(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each bound is one: at it nothing is said, one below it something."""
    bounds = {"FEWEST_SCENES": 16, "FEWEST_STEPS": 4, "FEWEST_NEGATIVES": 7}
    monkeypatch.setattr("eofm.probes.bootstrap.FEWEST_GROUPS", 3)  # places are held out
    for name, value in bounds.items():
        monkeypatch.setattr(told, name, value)
    assert not doubts_of(config)

    for name, words in (
        ("FEWEST_SCENES", "learned by heart"),
        ("FEWEST_STEPS", "too few steps"),
        ("FEWEST_NEGATIVES", "has 7 negatives"),
    ):
        monkeypatch.setattr(told, name, bounds[name] + 1)
        assert words in doubts_of(config)
        monkeypatch.setattr(told, name, bounds[name])
    monkeypatch.setattr("eofm.probes.bootstrap.FEWEST_GROUPS", 4)
    assert "cannot tell a gain from chance" in doubts_of(config)


def test_the_epochs_it_names_are_enough(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy for too few steps, obeyed, raises no such doubt."""
    monkeypatch.setattr(told, "FEWEST_SCENES", 1)
    text = doubts_of(config)
    assert "--optim.epochs 50 " in text

    assert "too few steps" not in doubts_of(with_groups(config, optim={"epochs": 50}))


def test_a_rate_that_a_pretrained_network_did_not_survive(
    config: PretrainConfig, tmp_path: Path
) -> None:
    """The default rate on weights to start from is named, with the settings that were survived."""
    pretrain(config)
    start = str(Path(str(config.run.out)) / "export" / "student")
    weights = with_groups(config, model={"weights": start}, optim={"lr": 4e-3})
    gentle = with_groups(weights, optim={"lr": 5e-4, "layer_decay": 0.75})

    assert "--optim.lr 0.0005 --optim.layer_decay 0.75 did" in doubts_of(weights)
    assert "survived" not in doubts_of(gentle)
    assert "survived" not in doubts_of(config)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_queue_that_holds_a_scene_s_own_keys(config: PretrainConfig, symmetric: bool) -> None:
    """A scene among its own negatives is said; either remedy, obeyed, raises no such doubt."""
    keys = 32 if symmetric else 16  # of the 16 scenes
    asked = with_groups(config, method={"symmetric": symmetric, "queue": keys})
    text = doubts_of(asked)
    assert f"the queue of {keys} keys holds those of 1 epochs" in text
    remedy = re.search(r"--method.queue (\d+), or --method.hard_exclude (\S+)", text)
    assert remedy is not None

    for obeyed in ({"queue": int(remedy[1])}, {"hard_exclude": remedy[2]}):
        assert "own negatives" not in doubts_of(with_groups(asked, method=obeyed))
    assert "own negatives" not in doubts_of(with_groups(asked, method={"queue": keys - 8}))


def test_labels_that_tell_nothing(
    config: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """Scenes with one and the same label set leave the soft term nothing to do."""
    path = str(make_store(tmp_path / "equal", equal_labels=True))
    text = doubts_of(with_groups(config, data={"store": path}))

    assert "every similarity is 1" in text
    assert "nothing will tell whether it learns" in text
