"""Several processes are one run: the same steps, one folder, one message, one end."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from pretrain_settings import with_groups
from timm.layers import BatchNormAct2d
from torch import nn

from eofm.errors import ConfigError, TrainingError
from eofm.train import distributed
from eofm.train.config import PretrainConfig, TrainerConfig
from eofm.train.distributed import (
    ProcessPlace,
    SharedBatchNorm,
    SharedNorms,
    SyncedBatchNorm,
    all_gather,
    all_max,
    all_mean,
    broadcast,
    find_place,
)
from eofm.train.module import PretrainModule
from eofm.train.monitor.run_log import read_rows
from eofm.train.run import pretrain
from eofm.weights.encoder import load_encoder

pytestmark = pytest.mark.slow

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "1234567",
    "SLURM_JOB_NODELIST": "gpu[03-04]",
}


def rows_of(config: PretrainConfig) -> list[dict[str, float]]:
    """What a run logged, step by step."""
    return read_rows(Path(str(config.run.out)) / "metrics.jsonl")


def weights_of(config: PretrainConfig, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one export of a run."""
    return dict(load_encoder(Path(str(config.run.out)) / "export" / name).trunk.state_dict())


# ----------------------------------------------------------------------------------- place


def test_one_process_alone_is_the_first() -> None:
    """Without a launcher there is one process, or as many as asked for on this machine."""
    assert ProcessPlace() == find_place(TrainerConfig(), {})
    assert ProcessPlace(world=3, per_node=3) == find_place(TrainerConfig(devices=3), {})


def test_the_place_of_a_launcher_is_taken() -> None:
    """Torchrun and srun say the rank; a job of one task starts its own processes."""
    expected = ProcessPlace(5, 8, 1, 4, "node0", 29500, launched=True)

    assert expected == find_place(TrainerConfig(), TORCHRUN)
    assert 2 == expected.nodes
    assert ProcessPlace(5, 8, 1, 4, "gpu03", 19567, launched=True) == find_place(
        TrainerConfig(), SLURM
    )
    assert ProcessPlace(world=2, per_node=2) == find_place(
        TrainerConfig(devices=2), {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}
    )


@pytest.mark.parametrize(
    ("trainer", "environ", "words"),
    [
        (TrainerConfig(devices=2), TORCHRUN, "4 processes on each of 2 machines"),
        (TrainerConfig(num_nodes=3), SLURM, "4 processes on each of 2 machines"),
        (TrainerConfig(num_nodes=2), {}, "neither torchrun nor srun"),
        (TrainerConfig(), {**SLURM, "SLURM_STEP_NUM_TASKS": "7"}, "7 tasks on 2 machines"),
    ],
)
def test_settings_must_agree_with_the_launcher(
    trainer: TrainerConfig, environ: dict[str, str], words: str
) -> None:
    """Other processes than were started, machines without a launcher: errors, not a hang."""
    with pytest.raises(ConfigError) as caught:
        find_place(trainer, environ)
    assert words in str(caught.value)


BATCH = {name: value for name, value in SLURM.items() if "STEP" not in name}


@pytest.mark.parametrize(
    "environ", [{**BATCH, "SLURM_PROCID": "0"}, {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}]
)
def test_a_job_whose_tasks_srun_has_not_started(environ: dict[str, str]) -> None:
    """A batch script or a shell of a job: said at once, with remedies that lead to processes."""
    with pytest.raises(ConfigError, match="srun has not started this process") as caught:
        find_place(TrainerConfig(), environ)

    assert f"SLURM_NTASKS={environ['SLURM_NTASKS']}" in str(caught.value.found)
    assert "--trainer.devices 1" in str(caught.value.remedy)
    assert ProcessPlace() == find_place(TrainerConfig(devices=1), environ)
    assert ProcessPlace(world=4, per_node=4) == find_place(TrainerConfig(devices=4), environ)
    assert find_place(TrainerConfig(), {**environ, **SLURM}).launched  # srun ...


def test_a_step_of_fewer_tasks_than_its_job() -> None:
    """`srun -n 4 -N 1` within a job of 8 tasks on two machines: the step counts."""
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "3"}
    found = find_place(TrainerConfig(), {**SLURM, **step, "SLURM_STEP_NODELIST": "gpu04"})

    assert (3, 4, 4, "gpu04") == (found.rank, found.world, found.per_node, found.address)


# -------------------------------------------------------------------------------- together


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = dist.FileStore(str(tmp_path / "notes"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3, 4)])
def test_the_shared_batch_norm_is_torchs(
    group: None, shape: tuple[int, ...], affine: bool, generator: torch.Generator
) -> None:
    """Output, gradients and running statistics are those of torch's batch norm, any shape."""
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    theirs = nn.Sequential(kind(5, affine=affine))
    ours = nn.Sequential(kind(5, affine=affine))
    SharedNorms(gpu=False).apply(ours)
    assert isinstance(ours[0], SharedBatchNorm)
    assert theirs.state_dict().keys() == ours.state_dict().keys()

    x = 3 + torch.randn(shape, generator=generator)
    weight = torch.randn(shape, generator=generator)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    for net, each in zip((theirs, ours), inputs, strict=True):
        (net(each) * weight).sum().backward()

    # float32 rounding (6e-8) of values up to 7, whose mean of 3 is taken off again: a few 1e-7 by
    # either order of summing, and another variance would be 1e-2
    assert torch.allclose(theirs(x), ours(x), atol=5e-6)
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-5)
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-4)  # type: ignore[arg-type]
    for key, value in theirs.state_dict().items():
        assert torch.allclose(value.float(), ours.state_dict()[key].float(), atol=5e-6), key
    assert torch.allclose(theirs.eval()(x), ours.eval()(x), atol=1e-5)


@pytest.mark.parametrize("gpu", [False, True])
def test_what_a_norm_does_besides_is_kept(
    group: None, gpu: bool, generator: torch.Generator
) -> None:
    """Timm has norms that activate as well: the shared norm does, and where they do not, neither.

    In training on CPUs; the kind for GPUs in evaluation, where it runs on CPUs too.
    """
    plain = nn.Sequential(
        nn.Conv2d(2, 5, 1), BatchNormAct2d(5, act_layer="silu"), BatchNormAct2d(5, apply_act=False)
    )
    shared = SharedNorms(gpu=gpu).apply(copy.deepcopy(plain))
    x = torch.randn(6, 2, 3, 4, generator=generator)

    assert plain.state_dict().keys() == shared.state_dict().keys()
    kind = SyncedBatchNorm if gpu else SharedBatchNorm
    assert [kind, kind] == [type(module) for module in shared.children()][1:]
    if not gpu:
        assert torch.allclose(plain(x), shared(x), atol=1e-5)
    assert torch.allclose(plain.eval()(x), shared.eval()(x), atol=1e-5)


def test_what_processes_tell_each_other(group: None) -> None:
    """Alone in a group, and without one, everybody agrees with himself."""
    told = {"loss": torch.tensor(2.0), "std": torch.tensor(0.5)}

    assert ("yes", (3, 0)) == (broadcast("yes"), all_max(3, 0))
    assert {"loss": 2.0, "std": 0.5} == {k: float(v) for k, v in all_mean(told).items()}
    assert [5] == [int(each) for each in all_gather(torch.tensor(5))]


# -------------------------------------------------------------------------------- end to end


@pytest.fixture
def two(config: PretrainConfig) -> PretrainConfig:
    """Two processes on this machine, a thread each."""
    return with_groups(
        config, trainer={"devices": 2}, run={"threads": 1}, monitor={"every_epochs": 0}
    )


def stop_in(step: int) -> Callable[..., torch.Tensor]:
    """A training step that sends SIGTERM to its process before a step."""
    inner = PretrainModule.training_step

    def stop(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(self, batch, batch_idx)  # type: ignore[arg-type]

    return stop


def test_two_processes_take_the_steps_of_one(
    two: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With views that do not change the images: equal losses, equal weights, to rounding.

    That needs every part: the scenes shared out, batch norms and negatives of the whole batch,
    gradients averaged, the rate of the whole batch, one teacher. The same with networks in shards,
    stopped and resumed within an epoch.
    """
    still = {
        "scale": (1.0, 1.0), "flips": False, "brightness": 0.0, "contrast": 0.0,
        "colour_probability": 0.0, "blur_probability": 0.0,
    }  # fmt: skip
    two = with_groups(
        two,
        augment=still,
        method={"mask_ratio": 0.0},
        # not by AdamW: it makes a whole step of a gradient that is 0 but for rounding
        optim={"optimizer": "sgd", "lr": 3.0, "clip": 1.0},
    )
    one = with_groups(two, trainer={"devices": 1}, run={"out": str(tmp_path / "one")})
    shards = with_groups(
        two, trainer={"strategy": "fsdp"}, run={"out": str(tmp_path / "shards"), "resume": "auto"}
    )

    pretrain(two)
    pretrain(one)
    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "training_step", stop_in(3))
        with pytest.raises(SystemExit):
            pretrain(shards)
    pretrain(shards)

    for run in (two, shards):
        for a, b in zip(rows_of(one), rows_of(run), strict=True):
            assert a.keys() == b.keys()
            assert b == {k: pytest.approx(value, rel=1e-3, abs=1e-4) for k, value in a.items()}
        for name in ("student", "teacher"):
            start, whole = weights_of(one, "init"), weights_of(one, name)
            other = weights_of(run, name)
            moved = max(float((whole[key] - start[key]).abs().max()) for key in whole)
            apart = max(float((whole[key] - other[key]).abs().max()) for key in whole)
            assert apart < 0.01 * moved, name
    assert not dist.is_initialized()


def test_two_processes_stop_and_go_on_as_one_run(
    two: PretrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """SIGTERM to one, resumed by its folder alone: the undisturbed run, bit for bit.

    Views and masks are random here: the sources of both processes must go on where they were.
    """
    two = with_groups(two, run={"resume": "auto"})
    whole = with_groups(two, run={"out": str(tmp_path / "whole")})
    pretrain(whole)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "training_step", stop_in(3))
        with pytest.raises(SystemExit) as ended:
            pretrain(two)
    assert 143 == ended.value.code
    said = capfd.readouterr().err
    assert 1 == said.count("stopped by SIGTERM after step 3;")
    # as the line that is printed resumes it: the number of processes is the run's own
    assert f"eofm pretrain --run.out {two.run.out} --run.resume true" in said
    pretrain(PretrainConfig(run=replace(two.run, resume=True)))

    assert rows_of(whole) == rows_of(two)
    for name in ("student", "teacher"):
        a, b = weights_of(whole, name), weights_of(two, name)
        assert all(tensor.equal(b[key]) for key, tensor in a.items())


def test_a_process_that_dies_ends_the_run_with_one_message(
    two: PretrainConfig, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A killed process, as by the system short of memory: the first says so; nobody is left."""
    started: list[subprocess.Popen[bytes]] = []
    start = distributed._start_others

    def note(place: ProcessPlace, accelerator: str, run: str) -> list[subprocess.Popen[bytes]]:
        started.extend(start(place, accelerator, run))
        return started

    inner = PretrainModule.training_step

    def kill(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 1:
            started[0].kill()
            started[0].wait()
        return inner(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(distributed, "_start_others", note)
    monkeypatch.setattr(PretrainModule, "training_step", kill)
    with pytest.raises(TrainingError, match="a process of this run has ended unexpectedly"):
        pretrain(two)

    assert "Traceback" not in capfd.readouterr().err
    assert [-signal.SIGKILL] == [child.returncode for child in started]


def test_a_process_that_dies_before_they_meet_is_spoken_of(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first process waits for nobody then: it ends, in words, where the other could not."""
    ended: list[int] = []
    over = threading.Event()

    def end(status: int) -> None:
        ended.append(status)
        over.set()

    monkeypatch.setattr(distributed, "GRACE_S", 0.0)
    monkeypatch.setattr(os, "_exit", end)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    distributed._watch(distributed.ProcessGroup(children=[child]))
    child.kill()

    assert over.wait(30)
    assert [1] == ended
    said = capfd.readouterr().err
    assert "error: a process of this run has ended unexpectedly" in said
    assert "signal 9" in said


def test_an_error_of_one_process_ends_the_others(
    two: PretrainConfig, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error is raised as it is, once; the other process ends without a word."""
    started: list[subprocess.Popen[bytes]] = []
    start = distributed._start_others

    def note(place: ProcessPlace, accelerator: str, run: str) -> list[subprocess.Popen[bytes]]:
        started.extend(start(place, accelerator, run))
        return started

    def fail(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        raise TrainingError("the machine is tired")

    monkeypatch.setattr(distributed, "_start_others", note)
    monkeypatch.setattr(PretrainModule, "training_step", fail)
    with pytest.raises(TrainingError, match="the machine is tired"):
        pretrain(two)

    assert "error" not in capfd.readouterr().err.lower()
    assert [-signal.SIGKILL] == [child.returncode for child in started]


def test_a_batch_that_cannot_be_shared_out_is_refused(two: PretrainConfig) -> None:
    """Seven scenes for two processes: an error before anything is started or written."""
    with pytest.raises(ConfigError, match="divided evenly"):
        pretrain(with_groups(two, optim={"batch": 7}))
    assert not Path(str(two.run.out)).exists()


# --------------------------------------------------------------------------------- shards


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"trainer": {"devices": 1}}, "found:    one process"),
        ({"trainer": {"devices": 2, "chunk": 2}}, "trainer.chunk=2"),
        ({"trainer": {"devices": 2}, "monitor": {"every_epochs": 1}}, "monitor.every_epochs=0"),
    ],
)
def test_what_does_not_go_with_shards_is_refused(
    groups: dict[str, dict[str, object]], words: str, two: PretrainConfig
) -> None:
    """An error that names the setting, before anything is started or written."""
    two = with_groups(with_groups(two, trainer={"strategy": "fsdp"}), **groups)

    with pytest.raises(ConfigError, match="sharding does not go with") as caught:
        pretrain(two)
    assert words in str(caught.value)
    assert not Path(str(two.run.out)).exists()


_STRANGER = """
import os, sys
from datetime import timedelta
import torch.distributed as dist
store = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), 2, False, timedelta(seconds=60))
store = dist.PrefixStore("of a run that was killed", store)
print("connected", flush=True)
dist.init_process_group("gloo", store=store, rank=1, world_size=2, timeout=timedelta(seconds=60))
print("met", flush=True)
"""


def test_a_process_of_a_killed_run_is_not_taken_for_one_of_this(
    two: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the port that was its run's, which the system has given again, and nobody there."""
    strangers: list[subprocess.Popen[str]] = []
    start = distributed._start_others

    def late(place: ProcessPlace, accelerator: str, run: str) -> list[subprocess.Popen[bytes]]:
        stranger = subprocess.Popen(
            [sys.executable, "-c", _STRANGER],
            env={**os.environ, "MASTER_PORT": str(place.port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        strangers.append(stranger)
        assert stranger.stdout is not None
        assert "connected" in stranger.stdout.readline()  # before the run's own are there
        return start(place, accelerator, run)

    monkeypatch.setattr(distributed, "_start_others", late)
    try:
        pretrain(two)
    finally:
        for stranger in strangers:
            stranger.kill()
            said, _ = stranger.communicate()

    assert (Path(str(two.run.out)) / "DONE").is_file()
    assert "met" not in said
