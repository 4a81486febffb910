"""Which checkpoints there are, what is in them, and what happens when the run is asked to stop."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
from pretrain_settings import with_groups
from torch import nn

from eofm.cli import main
from eofm.errors import ConfigError, DataError
from eofm.train import checkpoint
from eofm.train.checkpoint import AtomicCheckpointIO, Checkpoints, RandomStates, keep_as
from eofm.train.config import PretrainConfig, RunConfig
from eofm.train.distributed import StopRequests, requeue
from eofm.train.module import PretrainModule
from eofm.train.run import pretrain
from eofm.train.run_folder import RunFolder, open_folder


@pytest.fixture
def short(config: PretrainConfig) -> PretrainConfig:
    """Three epochs of four steps, looked at by nobody."""
    return with_groups(
        config,
        optim={"batch": 4, "epochs": 3},
        monitor={"every_epochs": 0},
        run={"checkpoint_minutes": 0.0},
    )


def saved_in(config: PretrainConfig) -> dict[str, int]:
    """The step of each checkpoint of a run."""
    folder = Path(str(config.run.out)) / "checkpoints"
    return {
        file.name: torch.load(file, weights_only=True)["global_step"] for file in folder.iterdir()
    }


def options(config: PretrainConfig) -> list[str]:
    """The command line of a run of these tests."""
    words = {
        "data.store": config.data.store, "data.holdout": 0.25, "model.size": 56,
        "method.hidden": 32, "method.dim": 16, "method.mask_ratio": 0.5, "optim.epochs": 2,
        "optim.batch": 4, "optim.lr": 0.01, "trainer.accelerator": "cpu", "run.figures": "false",
        "monitor.every_epochs": 0, "run.out": config.run.out,
    }  # fmt: skip
    return ["pretrain", *(word for k, v in words.items() for word in (f"--{k}", str(v)))]


# --------------------------------------------------------------------------------- which


@pytest.mark.slow
def test_the_last_the_best_and_the_one_before_the_anneal(
    short: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs are kept; the best is of the lowest mean loss; constant.ckpt is of its step."""
    inner = PretrainModule.log_dict

    def log(self: PretrainModule, values: dict[str, torch.Tensor], **rest: object) -> None:
        # the second epoch is the best, although its last step is the worst of all
        loss = {0: 3.0, 1: 1.0, 2: 2.0}[self.current_epoch] + 2 * (self.global_step % 4 == 3)
        inner(self, {**values, "loss": torch.tensor(loss)}, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PretrainModule, "log_dict", log)
    pretrain(
        with_groups(
            short,
            optim={"schedule": "wsd", "anneal": 0.5},
            run={"checkpoint_keep": 2},
        )
    )

    assert {
        "last.ckpt": 12, "best.ckpt": 8, "constant.ckpt": 6,
        "epoch-0002.ckpt": 8, "epoch-0003.ckpt": 12,
    } == saved_in(short)  # fmt: skip


@pytest.mark.slow
def test_the_monitor_says_what_is_best(
    short: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where monitor/knn is of scenes that are not scored, its largest value counts."""
    inner = PretrainModule.log_dict

    def log(self: PretrainModule, values: dict[str, torch.Tensor], **rest: object) -> None:
        score = torch.tensor([0.6, 0.5, 0.4][self.current_epoch])
        inner(self, {**values, "monitor/knn": score}, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PretrainModule, "log_dict", log)
    four_places = with_groups(short, data={"holdout": 0.34})
    pretrain(four_places)

    last = saved_in(four_places)["last.ckpt"]
    assert {"last.ckpt": last, "best.ckpt": last // 3} == saved_in(four_places)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["constant.ckpt", "best.ckpt"])
def test_a_kill_between_a_checkpoint_and_its_name_loses_neither(
    short: PretrainConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """last.ckpt is written, its further name is not: the run that goes on gives it."""
    short = with_groups(
        short, optim={"schedule": "wsd", "anneal": 0.5, "epochs": 2}, run={"checkpoint_steps": 1}
    )

    def die(file: Path, given: str) -> None:
        if given == name:
            raise RuntimeError("the machine went away")
        keep_as(file, given)

    def die_again(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        raise RuntimeError("once more")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "keep_as", die)
        with pytest.raises(RuntimeError, match="went away"):
            pretrain(short)
    assert name not in saved_in(short)
    monkeypatch.setattr(PretrainModule, "training_step", die_again)
    with pytest.raises(RuntimeError, match="once more"):
        pretrain(with_groups(short, run={"resume": True}))

    assert {4} == set(saved_in(short).values())
    assert name in saved_in(short)


@pytest.mark.slow
def test_a_kill_after_the_last_save_loses_no_name(
    short: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is left to be resumed, so that Lightning starts no training; best.ckpt is named."""
    short = with_groups(short, optim={"epochs": 2}, run={"checkpoint_keep": 1})
    monkeypatch.setattr(Checkpoints, "_is_best", lambda *_: True)
    best = []

    def die(file: Path, given: str) -> None:
        best.append(given == "best.ckpt")
        if sum(best) == 2:
            raise RuntimeError("the machine went away")
        keep_as(file, given)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "keep_as", die)
        with pytest.raises(RuntimeError, match="went away"):
            pretrain(short)
    before = saved_in(short)
    pretrain(with_groups(short, run={"resume": True}))

    last = before["last.ckpt"]
    assert last // 2 == before["best.ckpt"]
    assert {"last.ckpt": last, "best.ckpt": last, "epoch-0002.ckpt": last} == saved_in(short)


def test_a_further_name_is_given_as_often_as_asked(tmp_path: Path) -> None:
    """A name that is there follows the file; a rename onto itself would leave a half name."""
    file = tmp_path / "last.ckpt"
    for content in ("first", "first", "second"):
        if not file.exists() or content != file.read_text():
            file.unlink(missing_ok=True)
            file.write_text(content)
        keep_as(file, "kept.ckpt")
        assert content == (tmp_path / "kept.ckpt").read_text()
        assert ["kept.ckpt", "last.ckpt"] == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.slow
def test_gradients_in_between_are_in_no_checkpoint(
    short: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With accumulated batches: saved after whole steps only, resumed to the same bits.

    The machine goes away in the second batch of a step; the teacher moves once per step.
    """
    short = with_groups(
        short, trainer={"accumulate": 2}, optim={"epochs": 2}, run={"checkpoint_steps": 1}
    )
    whole = with_groups(short, run={"out": str(tmp_path / "whole")})
    pretrain(whole)
    inner = PretrainModule.training_step

    def die(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1 and batch_idx == 1:
            raise RuntimeError("the machine went away")
        return inner(self, batch, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "training_step", die)
        with pytest.raises(RuntimeError, match="went away"):
            pretrain(short)
    assert {2} == set(saved_in(short).values())
    pretrain(with_groups(short, run={"resume": True}))

    assert 4 == saved_in(whole)["last.ckpt"]
    for name in ("metrics.jsonl", "export/student/weights.safetensors",
                 "export/teacher/weights.safetensors"):  # fmt: skip
        one, other = (Path(str(each.run.out)) / name for each in (whole, short))
        assert one.read_bytes() == other.read_bytes(), name
    assert 4 == len((Path(str(whole.run.out)) / "metrics.jsonl").read_text().splitlines())


def test_a_full_disk_ends_the_run_with_one_message(
    short: PretrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real limit on the size of files, from the command line: status 1, the last one stays."""
    resource = pytest.importorskip("resource")
    inner, limits = AtomicCheckpointIO.save_checkpoint, resource.getrlimit(resource.RLIMIT_FSIZE)
    calls = []

    def save(
        self: AtomicCheckpointIO, saved: dict[str, object], path: Path, storage_options: None = None
    ) -> None:
        calls.append(path)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
        try:
            inner(self, saved, path, storage_options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save)
    status = main(options(short))

    assert 1 == status
    said = capsys.readouterr().err
    assert "eofm pretrain: error: the checkpoint cannot be written" in said
    assert "free some space, and resume the run" in said
    assert {"last.ckpt": 4, "best.ckpt": 4} == saved_in(short)


# ---------------------------------------------------------------------------------- stop


@pytest.mark.slow
def test_slurm_warns_and_the_job_is_put_back(
    short: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """SIGUSR1 in a job: saved, `scontrol requeue` of the job, and the same command goes on."""
    fake = tmp_path / "bin" / "scontrol"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    words = [*options(short), "--run.resume", "auto"]
    inner = PretrainModule.training_step

    def warn(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        return inner(self, batch, batch_idx)  # type: ignore[arg-type]

    before = signal.getsignal(signal.SIGUSR1)
    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "training_step", warn)
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert 128 + signal.SIGUSR1 == ended.value.code
    assert before == signal.getsignal(signal.SIGUSR1)
    assert "requeue 77\n" == (tmp_path / "asked").read_text()
    said = capsys.readouterr().err
    assert "stopped by SIGUSR1 after step 6" in said
    assert "job 77 is back in the queue" in said
    assert not (Path(str(short.run.out)) / "failure.json").exists()

    assert 0 == main(words)
    assert 8 == saved_in(short)["last.ckpt"]


def test_a_job_that_cannot_be_put_back_says_so(tmp_path: Path) -> None:
    """No scontrol, or one that refuses: words instead of a traceback; arrays have their number."""
    environ = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}

    said = requeue(environ)

    assert said.startswith("job 5_2 could not be put back into the queue: ")


def test_only_a_job_of_slurm_is_warned_by_sigusr1() -> None:
    """Elsewhere the signal keeps its meaning; both handlers are given back."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    wishes = StopRequests({})
    wishes.listen()
    assert before[1] == signal.getsignal(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.SIGTERM == wishes.asked
    wishes.forget()
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1))


def test_auto_starts_what_has_not_begun(short: PretrainConfig) -> None:
    """Without a run it starts one, also where a kill left half a first file; it needs a folder."""
    auto = with_groups(short, run={"resume": "auto"})
    folder = RunFolder(Path(str(short.run.out)))
    folder.path.mkdir()
    (folder.path / "config.yaml.tmp").write_text("half")

    _, opened = open_folder(auto)
    assert opened.run.resume is False
    folder.start(opened)
    assert open_folder(auto)[1].run.resume is True
    with pytest.raises(ConfigError, match="found again by its folder"):
        open_folder(with_groups(auto, run={"out": None}))


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A full disk ended it in words that named no file."""
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="cannot be written") as caught:
        RunFolder(tmp_path / "file").write("plan.txt", "x")

    assert tmp_path / "file" / "plan.txt" == caught.value.where
    assert "name another --run.out" == caught.value.remedy


def test_a_run_goes_on_with_other_machines_but_the_same_objective(short: PretrainConfig) -> None:
    """Resumed with two devices it keeps the rest; another number of batches per step is refused."""
    folder, opened = open_folder(with_groups(short, trainer={"accumulate": 2, "chunk": 2}))
    folder.start(opened)
    bare = PretrainConfig(run=replace(short.run, resume=True))

    assert opened.trainer == open_folder(bare)[1].trainer
    moved = open_folder(with_groups(bare, trainer={"devices": 2}))[1].trainer
    assert replace(opened.trainer, devices=2) == moved
    with pytest.raises(ConfigError, match=r"trainer\.accumulate"):
        open_folder(with_groups(bare, trainer={"accumulate": 3}))


def test_a_run_keeps_what_changes_no_result(short: PretrainConfig) -> None:
    """The line that resumes a run says nothing of its licence, checkpoints and evaluations."""
    begun = with_groups(
        short,
        run={"licence": "CC-BY-4.0", "checkpoint_steps": 3, "figures": False},
        monitor={"every_epochs": 2, "scenes": 64},
    )
    folder, opened = open_folder(begun)
    folder.start(opened)
    bare = PretrainConfig(run=RunConfig(out=begun.run.out, resume=True))

    again = open_folder(bare)[1]
    assert replace(opened.run, resume=True) == again.run
    assert opened.monitor == again.monitor
    other = open_folder(with_groups(bare, run={"threads": 1}, monitor={"dense": 4}))[1]
    assert replace(again.run, threads=1) == other.run
    assert replace(again.monitor, dense=4) == other.monitor


# ---------------------------------------------------------------------------- bad input


@pytest.mark.slow
def test_bad_input_from_the_command_line(
    short: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Status 1 and one clear message each, and no folder but that of the run that was whole."""
    words = options(short)
    assert 1 == main([*words, "--optim.batch", "64"])
    assert "16 scenes to train on" in capsys.readouterr().err
    assert 1 == main([*words, "--trainer.accumulate", "5"])
    assert "at least 20 (optim.batch x 5, trainer.accumulate)" in capsys.readouterr().err
    assert 1 == main([*words, "--trainer.precision", "16-mixed"])
    assert "float16 needs a GPU" in capsys.readouterr().err
    assert 1 == main([*words, "--model.size", "57"])
    assert "57" in capsys.readouterr().err
    assert not Path(str(short.run.out)).exists()

    other = with_groups(short, optim={"epochs": 1}, model={"size": 28})
    pretrain(with_groups(short, optim={"epochs": 1}))
    pretrain(with_groups(other, run={"out": str(tmp_path / "other")}))
    last = Path("checkpoints") / "last.ckpt"
    wrong = tmp_path / "other" / last
    (Path(str(short.run.out)) / last).write_bytes(wrong.read_bytes())
    again = ["pretrain", "--run.out", str(short.run.out), "--run.resume", "true"]
    assert 1 == main(again)
    said = capsys.readouterr().err
    assert "the checkpoint is of another configuration" in said
    assert "found:    model.size=28\n" in said
    assert "expected: model.size=56\n" in said
    (Path(str(short.run.out)) / last).write_bytes(wrong.read_bytes()[:1000])
    assert 1 == main(again)
    assert "the checkpoint cannot be read" in capsys.readouterr().err


# -------------------------------------------------------------------------------- random


class Drawing(L.LightningModule):
    """Holds random sources at two depths."""

    def __init__(self) -> None:
        super().__init__()
        self.masks = torch.Generator().manual_seed(0)
        self.inner = nn.Identity()
        self.inner.queue = torch.Generator().manual_seed(0)  # type: ignore[assignment]

    def draw(self) -> list[float]:
        """A number of each source."""
        return [
            float(torch.rand((), generator=g))
            for g in (self.masks, self.inner.queue, torch.default_generator)  # type: ignore[list-item]
        ]


def test_every_random_source_goes_on(tmp_path: Path) -> None:
    """All generators of a module, however deep, and torch's own; each process has its own."""
    module, sources = Drawing(), RandomStates(0, seed=3)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path,
                        accelerator="cpu", barebones=True)  # fmt: skip
    torch.manual_seed(3)
    sources.scatter(module)
    first = module.draw()
    saved: dict[str, object] = {}
    sources.on_save_checkpoint(trainer, module, saved)
    expected = module.draw()

    sources.on_load_checkpoint(trainer, module, saved)
    assert expected == module.draw()
    # a process that the saved run did not have keeps its own
    second = Drawing()
    other = RandomStates(1, seed=3)
    other.scatter(second)
    other.on_load_checkpoint(trainer, second, saved)
    drawn = second.draw()
    assert not set(drawn) & {*first, *expected}
    assert len({*drawn}) == 3
