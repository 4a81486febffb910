"""A dry run says what a run would be, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pretrain_settings import with_groups

from eofm.cli import main
from eofm.formats.text import settings_text
from eofm.train.config import PretrainConfig, RunConfig
from eofm.train.run import pretrain
from eofm.train.run_folder import from_dict

PLAIN = (
    "steps      2 an epoch x 2 epochs = 4, of 8 scenes each",
    "negatives  7 for each",
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
        ({"monitor": {"every_epochs": 0}}, ("evaluates nothing", "0 evaluations")),
        (
            {"monitor": {"every_epochs": 0, "every_steps": 2}},
            ("after every 2 steps", "3 evaluations"),
        ),
    ],
    ids=["plain", "accumulated", "blind", "by-steps"],
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
    small = "--data.scenes 14 --data.size 60 --model.size 56 --optim.batch 8"

    assert 0 == main(["pretrain", *small.split(), "--dry-run"])

    assert "SYNTHETIC scenes to train on" in capsys.readouterr().out
    assert [] == everything_in(tmp_path)


def test_settings_that_change_no_result_may_be_missing() -> None:
    """A run that began before an option of `run` or `monitor` existed resumes with its default."""
    settings = yaml.safe_load(settings_text(PretrainConfig()))
    del settings["run"]["dry_run"], settings["monitor"]["dense"]

    assert PretrainConfig(run=RunConfig()) == from_dict(settings, "config.yaml")
