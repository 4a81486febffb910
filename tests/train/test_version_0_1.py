"""Files that version 0.1 wrote: settings are read, a run to resume is refused with the way on.

`run-0.1` is what 0.1 left of a small run on the synthetic world (its checkpoints are 60 MB).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from pretrain_settings import with_groups

from eofm.cli import main, parse
from eofm.errors import ConfigError
from eofm.formats.text import settings_text
from eofm.method import SoftConConfig, SoftForm, SoftUnit
from eofm.train.config import DEMO, PretrainConfig, RunConfig
from eofm.train.module import CHECKPOINT_KEY
from eofm.train.run import pretrain
from eofm.train.run_folder import from_dict

OLD = Path(__file__).parent / "run-0.1"


def test_settings_of_0_1_are_read() -> None:
    """Every key means what it meant; what is new has its default."""
    made = parse("pretrain", ["--config", str(OLD / "config.yaml")])
    old = yaml.safe_load((OLD / "config.yaml").read_text())

    assert isinstance(made, PretrainConfig)
    now = yaml.safe_load(settings_text(made))
    for group, values in old.items():
        assert values == {key: now[group][key] for key in values}, group
    assert made.method == replace(DEMO.method, soft_weight=10.0, soft_unit=SoftUnit.PLAIN)


@pytest.mark.slow
def test_a_run_of_0_1_is_not_resumed_and_its_networks_go_on(
    config: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Views and rates are drawn in another way now: one error, whose command trains on."""
    folder = tmp_path / "run one"
    config = with_groups(config, run={"out": str(folder)})
    pretrain(with_groups(config, optim={"epochs": 1}, monitor={"every_epochs": 0}))
    (folder / "DONE").unlink()
    made_old(folder)
    with pytest.raises(ConfigError, match="another version") as caught:
        pretrain(PretrainConfig(run=RunConfig(out=str(folder), resume=True)))

    text = str(caught.value)
    assert "no optim.input_lr" in text
    command = re.search(r"eofm (pretrain --config .*last\.ckpt\S*)", text)
    assert command is not None
    assert 0 == main(shlex.split(command[1]))
    assert (tmp_path / "run one-continued" / "export" / "student" / "card.json").is_file()
    assert "last.ckpt" in (tmp_path / "run one-continued" / "weights.txt").read_text()
    capsys.readouterr()


def made_old(run: Path) -> None:
    """Take from a run what 0.1 did not know."""
    settings = yaml.safe_load((run / "config.yaml").read_text())
    del settings["optim"]["input_lr"]
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    file = run / "checkpoints" / "last.ckpt"  # best.ckpt is another name of it
    saved = torch.load(file, weights_only=True)
    del saved[CHECKPOINT_KEY]["config"]["optim"]["input_lr"]
    torch.save(saved, file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["method"].update(colour=1), r"method\.colour \(unknown here\)"),
        (lambda s: s["optim"].pop("lr"), r"no optim\.lr"),
        (lambda s: s.update(method=None), "not the settings of a run"),
        (lambda s: s["method"].update(soft_form="l1"), r"method\.soft_form has no such choice"),
    ],
)
def test_other_keys_are_named(change: Callable[[dict], object], words: str) -> None:
    """What is missing or unknown is named, whatever version wrote it."""
    settings = yaml.safe_load(settings_text(PretrainConfig()))
    change(settings)

    with pytest.raises(ConfigError, match=words):
        from_dict(settings, Path("runs/old/config.yaml"))


def test_settings_that_are_no_yaml(tmp_path: Path) -> None:
    """A damaged config.yaml is an error of eofm that names the file."""
    (tmp_path / "config.yaml").write_bytes(b"data: \xff\xfe")

    with pytest.raises(ConfigError, match="cannot be read") as caught:
        pretrain(PretrainConfig(run=RunConfig(out=str(tmp_path), resume=True)))
    assert "config.yaml" in str(caught.value)


def test_settings_come_back_from_yaml() -> None:
    """What is written is read as the same settings, enumerations and all."""
    method = SoftConConfig(soft_form=SoftForm.CE, hidden=64)
    made = replace(PretrainConfig(), method=method)

    assert made == from_dict(yaml.safe_load(settings_text(made)), Path("config.yaml"))
    assert asdict(made)["method"]["soft_form"] is SoftForm.CE
