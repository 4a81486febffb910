"""A run that is killed at any step and resumed is the run that was not killed, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_settings import with_groups

from eofm.errors import TrainingError
from eofm.io import unfinished
from eofm.train.checkpoint import AtomicCheckpointIO
from eofm.train.config import PretrainConfig
from eofm.train.module import PretrainModule
from eofm.train.run import pretrain
from eofm.weights.config import ExportConfig
from eofm.weights.encoder import load_encoder
from eofm.weights.export import export_source

STEPS = 8
LONG_S = 120


def path_of(config: PretrainConfig) -> Path:
    """The folder of a run."""
    return Path(str(config.run.out))


def lines_of(config: PretrainConfig) -> list[str]:
    """The lines of a run's metrics file, as far as it is written."""
    file = path_of(config) / "metrics.jsonl"
    return file.read_text().splitlines() if file.is_file() else []


def assert_same_run(one: PretrainConfig, other: PretrainConfig) -> None:
    """The same lines for the same steps, and the same weights of student and teacher."""
    rows = [json.loads(line) for line in lines_of(other)]
    assert list(range(1, len(rows) + 1)) == [row["step"] for row in rows]
    assert lines_of(one) == lines_of(other)
    for name in ("student", "teacher"):
        whole, resumed = (
            load_encoder(path_of(each) / "export" / name).trunk.state_dict()
            for each in (one, other)
        )
        assert all(tensor.equal(resumed[key]) for key, tensor in whole.items())


@pytest.fixture
def short(config: PretrainConfig, tmp_path: Path) -> PretrainConfig:
    """Two epochs of four steps, a checkpoint after every third, one thread."""
    return with_groups(
        config,
        optim={"batch": 4, "epochs": 2},
        run={"checkpoint_steps": 3, "checkpoint_minutes": 0.0, "threads": 1},
    )


def resumed(config: PretrainConfig) -> PretrainConfig:
    """How a run is taken up: by its folder, all settings from there."""
    return PretrainConfig(run=replace(config.run, resume=True))


# ----------------------------------------------------------------------------------- kill

# a clean server process from which every run is forked with its modules loaded
FORK = multiprocessing.get_context("forkserver") if os.name == "posix" else None


def begin(config: PretrainConfig) -> BaseProcess:
    """Train in a process of its own; a folder that has begun is resumed."""
    assert FORK is not None
    FORK.set_forkserver_preload(["eofm.train.run", "eofm.train.report"])
    process = FORK.Process(
        target=pretrain,
        args=(resumed(config) if (path_of(config) / "config.yaml").is_file() else config,),
    )
    process.start()
    return process


def finish(config: PretrainConfig) -> None:
    """Train to the end."""
    process = begin(config)
    process.join(LONG_S)
    assert 0 == process.exitcode


def kill_after(config: PretrainConfig, steps: int, seconds: float) -> bool:
    """Train; SIGKILL so long after the metrics file has so many lines. False if it had ended."""
    process = begin(config)
    until = time.monotonic() + LONG_S
    while len(lines_of(config)) < steps and process.is_alive() and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(FORK is None, reason="there is no SIGKILL")
@pytest.mark.parametrize("options", ["plain", "all"])
def test_killed_at_random_steps(
    options: str, short: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """SIGKILL again and again, at any step or while something is written: nothing changes."""
    rng = np.random.default_rng(0 if options == "plain" else 1)
    if options == "all":
        old = make_store(tmp_path / "old", labels=False)
        short = with_groups(
            short,
            data={
                "views": "seasons", "balance": "rarity", "replay": str(old), "replay_share": 0.5
            },
        )  # fmt: skip
    whole = with_groups(short, run={"out": str(tmp_path / "whole")})
    finish(whole)
    total = len(lines_of(whole))
    assert total == STEPS

    killed = 0
    for steps in sorted(rng.choice(np.arange(1, total + 1), 3, replace=False).tolist()):
        killed += kill_after(short, steps, float(rng.uniform(0, 0.15)))
        # as if it had been writing one
        checkpoint = path_of(short) / "checkpoints" / "last.ckpt"
        if checkpoint.parent.is_dir():
            unfinished(checkpoint).write_bytes(b"half a checkpoint")
    finish(short)

    assert killed >= 2
    assert_same_run(whole, short)


@pytest.mark.slow
def test_a_failure_after_the_last_step_is_forgotten(short: PretrainConfig) -> None:
    """No step is taken that would forget it, and a finished run has not failed."""
    pretrain(short)
    (path_of(short) / "DONE").unlink()
    (path_of(short) / "failure.json").write_text("{}")

    pretrain(resumed(short))

    assert (path_of(short) / "DONE").is_file()
    assert not (path_of(short) / "failure.json").exists()


@pytest.mark.slow
def test_the_time_of_a_run_is_that_of_all_its_processes(short: PretrainConfig) -> None:
    """Resumed at its end a run has not trained for 0 seconds."""
    pretrain(short)
    pretrain(resumed(short))

    took = json.loads((path_of(short) / "results.json").read_text())["train_seconds"]
    rows = (path_of(short) / "pace.jsonl").read_text().splitlines()
    assert round(sum(json.loads(row)["pace/seconds"] for row in rows), 1) == took > 0


# -------------------------------------------------------------------------------- SIGTERM


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGTERM")
@pytest.mark.parametrize("step", [2, 4, STEPS])
def test_sigterm_saves_and_says_how_to_go_on(
    step: int,
    short: PretrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Within an epoch, at its end and at the very end: status 143, no step lost, the same run."""
    short = with_groups(short, run={"checkpoint_steps": 0})
    whole = with_groups(short, run={"out": str(tmp_path / "whole")})
    pretrain(whole)
    inner = PretrainModule.training_step

    def stop(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(PretrainModule, "training_step", stop)
    with pytest.raises(SystemExit) as ended:
        pretrain(short)
    monkeypatch.undo()

    assert 143 == ended.value.code
    said = capsys.readouterr().err
    assert f"stopped by SIGTERM after step {step};" in said
    assert f"eofm pretrain --run.out {short.run.out} --run.resume true" in said
    saved = torch.load(path_of(short) / "checkpoints" / "last.ckpt", weights_only=True)
    assert step == saved["global_step"] == len(lines_of(short))
    assert not (path_of(short) / "DONE").is_file()
    pretrain(resumed(short))
    assert_same_run(whole, short)


# ---------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills while a checkpoint is written leaves the one before, and no rubbish."""
    file = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, file)

    def fill(checkpoint: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(TrainingError, match="cannot be written") as caught:
        AtomicCheckpointIO().save_checkpoint({"step": 2}, file)
    monkeypatch.undo()

    assert "No space left" in str(caught.value)
    assert ["last.ckpt"] == [path.name for path in file.parent.iterdir()]
    assert {"step": 1} == torch.load(file, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"checkpoint_steps": 0, "checkpoint_minutes": 0.0}, [4, 8]),
        ({"checkpoint_steps": 3, "checkpoint_minutes": 0.0}, [3, 4, 6, 8]),
        ({"checkpoint_steps": 0, "checkpoint_minutes": 1e-9}, list(range(1, 9))),
    ],
)
def test_checkpoints_come_when_they_should(
    chosen: dict[str, object],
    expected: list[int],
    short: PretrainConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the end of epochs, after so many steps, after so many minutes; once for each step."""
    steps = []
    monkeypatch.setattr(
        AtomicCheckpointIO,
        "save_checkpoint",
        lambda _, saved, path, storage_options=None: (
            steps.append(saved),
            path.parent.mkdir(exist_ok=True),
            path.touch(),
        ),
    )
    pretrain(with_groups(short, run=chosen))

    assert expected == [saved["global_step"] for saved in steps]


@pytest.mark.slow
def test_a_checkpoint_within_an_epoch_says_so(
    short: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder made of it does not claim whole epochs."""
    inner = PretrainModule.training_step

    def fail(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 7:
            raise RuntimeError("the machine went away")
        return inner(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(PretrainModule, "training_step", fail)
    with pytest.raises(RuntimeError, match="went away"):
        pretrain(short)

    checkpoint = path_of(short) / "checkpoints" / "last.ckpt"
    made = export_source(ExportConfig(str(checkpoint), str(tmp_path / "made")))
    assert "student after 1 epochs and 2 of 4 steps of the next" in made.describe()
