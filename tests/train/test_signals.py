"""Being asked to stop: Ctrl-C and SIGTERM alike, in the steps and outside; and one owner."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain_settings import with_groups

from eofm.cli import main
from eofm.errors import ConfigError, TrainingError
from eofm.train.config import PretrainConfig
from eofm.train.module import PretrainModule
from eofm.train.monitor.run_log import FAILURE, RunLog
from eofm.train.run import pretrain
from eofm.train.run_folder import RunFolder, open_folder


@pytest.fixture
def short(config: PretrainConfig) -> PretrainConfig:
    """Two epochs of four steps, looked at by nobody."""
    return with_groups(config, optim={"batch": 4, "epochs": 2}, monitor={"every_epochs": 0})


def signal_in(step: int, signum: int) -> Callable[..., torch.Tensor]:
    """A training step that sends a signal to its process before a step."""
    inner = PretrainModule.training_step

    def stop(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == step - 1:
            os.kill(os.getpid(), signum)
        return inner(self, batch, batch_idx)  # type: ignore[arg-type]

    return stop


def steps_of(config: PretrainConfig) -> list[int]:
    """The steps that a run wrote down."""
    lines = (Path(str(config.run.out)) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.parametrize(
    "signum", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_signal_stops_a_run_that_the_printed_line_resumes(
    short: PretrainConfig, signum: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """A checkpoint, a status of 128 + N, and a command; carried out, every step is there once."""
    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "training_step", signal_in(3, signum))
        with pytest.raises(SystemExit) as ended:
            pretrain(short)
    said = capsys.readouterr().err

    assert 128 + signum == ended.value.code
    assert f"stopped by {signal.Signals(signum).name} after step 3; resume the run with" in said
    command = said.rpartition("eofm ")[2].split()
    assert 0 == main(command)
    assert list(range(1, 9)) == steps_of(short)
    assert "starts from the beginning" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step(
    short: PretrainConfig, signum: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Lightning alone would end with status 1 and no word. The line that is printed begins anew."""

    def setup(self: PretrainModule, stage: str) -> None:
        os.kill(os.getpid(), signum)
        time.sleep(5)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "setup", setup)
        with pytest.raises(SystemExit) as ended:
            pretrain(short)
    said = capsys.readouterr().err

    assert 128 + signum == ended.value.code
    assert f"stopped by {signal.Signals(signum).name} before there was a checkpoint" in said
    assert 0 == main(said.rpartition("eofm ")[2].split())
    assert "the run starts from the beginning" in capsys.readouterr().err
    assert list(range(1, 9)) == steps_of(short)


def test_a_folder_has_one_owner(short: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process that resumes a run is refused by name, and by who has it."""
    monkeypatch.setattr("eofm.train.run_folder.WAIT_S", 0.0)
    folder, opened = open_folder(short)
    resumed = replace(opened, run=replace(opened.run, resume=True))

    with folder.owned():
        folder.start(opened)
        with pytest.raises(ConfigError, match="another process is training") as caught:
            pretrain(resumed)

    assert f"process {os.getpid()} on" in str(caught.value.found)
    assert folder.path == caught.value.where
    assert not (folder.path / ".owner").exists()
    with folder.owned():
        pass


def test_a_second_owner_waits_for_the_first(short: PretrainConfig) -> None:
    """A job that is back in the queue begins while the one before writes its last checkpoint."""
    folder, _ = open_folder(short)
    ended = []

    def leave(owner) -> None:
        time.sleep(0.3)
        ended.append(1)
        owner.__exit__(None, None, None)

    owner = folder.owned()
    owner.__enter__()
    thread = threading.Thread(target=leave, args=(owner,))
    thread.start()
    with folder.owned():
        assert [1] == ended
    thread.join()


def test_an_owner_that_was_killed_leaves_the_folder_free(short: PretrainConfig) -> None:
    """A lock ends with its process; the file that is left is no run."""
    folder, _ = open_folder(short)
    folder.path.mkdir(parents=True)
    (folder.path / ".owner").write_text("process 1 on a machine that went away")

    assert folder.is_free()
    with folder.owned():
        folder.check_free()


def test_two_that_begin_one_run(short: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find the folder free; the one that comes second finds a run in it, and leaves it."""
    owned = RunFolder.owned

    def late(self: RunFolder):
        self.path.mkdir(parents=True)
        (self.path / "config.yaml").write_text("of the first")
        return owned(self)

    monkeypatch.setattr(RunFolder, "owned", late)

    with pytest.raises(ConfigError, match="the run folder is not empty"):
        pretrain(short)

    assert "of the first" == (Path(str(short.run.out)) / "config.yaml").read_text()


def test_a_full_disk_does_not_hide_why_a_run_ended(
    short: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that cannot be written are one TrainingError, though its own record cannot be either."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("eofm.train.monitor.run_log.RowFile._write", full)
    monkeypatch.setattr("eofm.train.monitor.run_log.replacing", full)

    with pytest.raises(TrainingError, match="cannot be written") as caught:
        pretrain(short)

    assert "No space left" in str(caught.value.found)


def test_what_ended_a_run_is_said_on_a_full_disk_too(tmp_path: Path, monkeypatch) -> None:
    """The record of a failure is worth less than the failure."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("eofm.train.monitor.run_log.replacing", full)

    RunLog(tmp_path).fail(TrainingError("the loss is not finite"), 3)  # as Lightning's hook does

    assert not (tmp_path / FAILURE).exists()
