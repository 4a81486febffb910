"""The processes of a run: rank, launch, connection, collective operations, stop and exit.

The first process prepares the run: it creates the demo's world, opens the run folder, and checks
the settings. Only then do the others start (or stop waiting, if torchrun or srun started them);
they receive the settings from the first process. It alone writes files and prints.

A run is asked to stop by Ctrl-C, SIGTERM, or SLURM's warning before the time limit. The handler
only records the signal. All processes exchange it at the end of a step, save, and exit; nothing is
saved from within a signal handler, in the middle of a step.

Batch norms use the batch of all processes: on GPUs with torch's SyncBatchNorm, on CPUs, which it
does not support, with two sums over the processes. Some norms of timm also apply dropout and an
activation (`BatchNormAct2d`), as modules inside the norm, in that order. Their replacement keeps
these modules; torch's own conversion would lose the activation.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import FrameType
from typing import Any, Final

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from eofm.errors import ConfigError, EofmError, TrainingError
from eofm.train.config import TrainerConfig

__all__ = [
    "GRACE_S",
    "PATIENCE",
    "WARNING",
    "KnownEnvironment",
    "ProcessGroup",
    "ProcessPlace",
    "SharedBatchNorm",
    "SharedNorms",
    "StopRequests",
    "Stopped",
    "SyncedBatchNorm",
    "all_gather",
    "all_max",
    "all_mean",
    "broadcast",
    "find_place",
    "handlers_kept",
    "process_group",
    "requeue",
]

# ------------------------------------------------------------------------------------ stop requests


class Stopped(Exception):  # noqa: N818 (not an error: it was requested)
    """The run has been asked to stop; a checkpoint has been saved.

    Args:
        signum: The signal received.
        step: Number of optimizer steps done.
    """

    def __init__(self, signum: int, step: int) -> None:
        self.signum, self.step = signum, step
        super().__init__(signum, step)


# SLURM sends it to jobs with `#SBATCH --signal=USR1@300`, 300 s before the time limit.
WARNING: Final = None if sys.platform == "win32" else signal.SIGUSR1


class StopRequests:
    """Records the signal that asks this process to stop.

    Args:
        environ: Environment; SIGUSR1 is handled only in a SLURM job.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.asked = 0
        self._signals = [signal.SIGINT, signal.SIGTERM]
        if WARNING is not None and "SLURM_JOB_ID" in environ:
            self._signals.append(WARNING)
        self._before: dict[int, object] = {}

    def listen(self) -> None:
        """Install the signal handlers."""
        if threading.current_thread() is threading.main_thread():
            for signum in self._signals:
                self._before[signum] = signal.signal(signum, self._record)

    def _record(self, signum: int, _: FrameType | None) -> None:
        self.asked = signum

    def forget(self) -> None:
        """Restore the previous signal handlers."""
        while self._before:
            signum, before = self._before.popitem()
            signal.signal(signum, before)  # type: ignore[arg-type]


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore this process's signal handlers, however training ends.

    Lightning and `StopRequests` replace handlers one after the other and do not restore them in
    reverse order: after training, a Python process would record SIGTERM and ignore it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            # None stands for a handler that was not installed from Python
            if handler is not None and signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)


def requeue(environ: Mapping[str, str] = os.environ) -> str:
    """Requeue the SLURM job; return a message about the outcome."""
    job = environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environ:
        job = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"job {job} could not be put back into the queue: {error.strerror}"
    if done.returncode:
        return f"job {job} could not be put back into the queue: {done.stderr.strip()}"
    return f"job {job} is back in the queue"


# -------------------------------------------------------------------------------------- batch norms


class _Sum(torch.autograd.Function):
    """Sum over all processes; gradients are summed over them too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ANN401 (torch's signature)
        """Return the sum of a tensor over all processes."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        """Return the sum of the gradients over all processes."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batch of all processes, of any shape (B, C, ...)."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised batch; the running statistics follow as in torch."""
        if not (self.training and dist.is_initialized()):
            return _then(self, super().forward(input))
        x = input.float()
        axes = [0, *range(2, x.ndim)]
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        count = _sum(count)
        mean = _sum(x.sum(axes)) / count
        shape = (1, -1) + (1,) * (x.ndim - 2)
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count  # second pass: less cancellation
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return _then(self, out.to(input.dtype))

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        step = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)  # type: ignore[arg-type]
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(variance, step)


class SyncedBatchNorm(nn.SyncBatchNorm):
    """torch's synchronised batch norm, for GPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised batch."""
        return _then(self, super().forward(input))


def _then(norm: nn.Module, normalised: Tensor) -> Tensor:
    """Apply the modules inside a norm (dropout, activation) to its output; torch's have none."""
    for module in norm.children():
        normalised = module(normalised)
    return normalised


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)
    return total


class SharedNorms(LayerSync):
    """Lightning's hook that converts every batch norm, including the teacher's."""

    def __init__(self, *, gpu: bool) -> None:
        self.gpu = gpu

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the model with its batch norms replaced; names and tensors are kept."""
        for name, child in model.named_children():
            if isinstance(child, _BatchNorm):
                setattr(
                    model, name, _shared(child, SyncedBatchNorm if self.gpu else SharedBatchNorm)
                )
            else:
                self.apply(child)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model unchanged: in a single process the norms equal torch's."""
        return model


def _shared(norm: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.train(norm.training)
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(made, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(made, name, buffer)
    for name, module in norm.named_children():
        setattr(made, name, module)
    return made


# ---------------------------------------------------------------------------------------- processes

# Limit on the time that processes wait for the first one, which may be packing a world.
PATIENCE: Final = timedelta(hours=1)
# Time that processes have to notice the failure of another one before they are killed.
GRACE_S: Final = 20.0
_FAILED: Final = "eofm/failed"
# Identifies the run to the processes it starts: a port may be reassigned while a process of a
# killed run still tries to connect to it, and must not join this run.
_RUN: Final = "EOFM_RUN"
_LOCALHOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class ProcessPlace:
    """Rank and address of this process among those of a run.

    Args:
        rank: Rank among all processes.
        world: Number of processes.
        local: Rank among the processes of this machine.
        per_node: Number of processes on each machine.
        address: Host of the first process.
        port: Port of the first process; 0 if it has not chosen one yet.
        launched: All processes have been started, by torchrun, srun, or the first process.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    per_node: int = 1
    address: str = _LOCALHOST
    port: int = 0
    launched: bool = False

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.world // self.per_node


def find_place(config: TrainerConfig, environ: Mapping[str, str] = os.environ) -> ProcessPlace:
    """Return the rank given by torchrun or srun; without a launcher, that of the first process.

    Raises:
        ConfigError: If the number of processes differs from the settings.
    """
    place = _of_torchrun(environ) or _of_slurm(environ, config.devices)
    if place is None:
        if config.num_nodes > 1:
            raise ConfigError(
                "several machines need a launcher",
                found=f"trainer.num_nodes={config.num_nodes}, and neither torchrun nor srun",
                remedy="srun eofm pretrain ..., or torchrun --nnodes=... -m eofm.cli pretrain ...",
            )
        count = config.devices or 1
        return ProcessPlace(world=count, per_node=count)
    asked = (config.devices or place.per_node, config.num_nodes or place.nodes)
    if asked != (place.per_node, place.nodes):
        raise ConfigError(
            "the number of processes differs from the settings",
            found=f"{place.per_node} processes on each of {place.nodes} machines",
            expected=f"trainer.devices={asked[0]}, trainer.num_nodes={asked[1]}",
            remedy="leave both options out, or start as many",
        )
    return place


def _of_torchrun(environ: Mapping[str, str]) -> ProcessPlace | None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if any(name not in environ for name in names):
        return None
    rank, world, local, per_node, address, port = (environ[name] for name in names)
    return ProcessPlace(int(rank), int(world), int(local), int(per_node), address, int(port), True)


def _of_slurm(environ: Mapping[str, str], devices: int) -> ProcessPlace | None:
    """Return the rank of a task of srun; a job with one task starts its processes itself.

    Only srun sets the variables of a step. A batch script and a shell of salloc have those of the
    job, whose other tasks have not been started.

    Raises:
        ConfigError: If the job has several tasks and this process was not started by srun, unless
            the settings say how many processes are to be started.
    """
    world = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    tasks = environ.get("SLURM_NTASKS", "1")
    if "SLURM_STEP_NUM_TASKS" not in environ and int(tasks) > 1 and not devices:
        raise ConfigError(
            "this job of SLURM has several tasks, but srun has not started this process: the "
            "others do not exist",
            found=f"SLURM_NTASKS={tasks}, and no SLURM_STEP_NUM_TASKS",
            expected="one process per task, started by srun",
            remedy="srun eofm pretrain ...; or --trainer.devices 1, or as many as this machine "
            "has GPUs, to start the processes from this one",
        )
    if world == 1 or "SLURM_PROCID" not in environ:
        return None
    nodes = int(environ.get("SLURM_STEP_NUM_NODES", environ.get("SLURM_NNODES", "1")))
    if world % nodes:
        raise ConfigError(
            "the tasks are not spread evenly over the machines",
            found=f"{world} tasks on {nodes} machines",
            remedy="#SBATCH --ntasks-per-node=<GPUs per machine>",
        )
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    listed = next((environ[name] for name in names if name in environ), _LOCALHOST)
    return ProcessPlace(
        rank=int(environ["SLURM_PROCID"]),
        world=world,
        local=int(environ["SLURM_LOCALID"]),
        per_node=world // nodes,
        address=environ.get("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(listed)),
        # a port that all processes know and other jobs of the machine do not use
        port=int(environ.get("MASTER_PORT", 15000 + int(environ.get("SLURM_JOB_ID", "0")) % 10000)),
        launched=True,
    )


class KnownEnvironment(ClusterEnvironment):
    """Passes the known ranks to Lightning, which then neither detects them nor starts processes.

    Lightning's own SLURM support saves from within a signal handler, in the middle of a step.
    """

    def __init__(self, place: ProcessPlace) -> None:
        super().__init__()
        self.place = place

    @property
    def creates_processes_externally(self) -> bool:
        """Return True: the processes exist already."""
        return True

    @property
    def main_address(self) -> str:
        """Host of the first process."""
        return self.place.address

    @property
    def main_port(self) -> int:
        """Port of the first process."""
        return self.place.port

    @staticmethod
    def detect() -> bool:
        """Return False: this environment is only passed explicitly."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self.place.world

    def set_world_size(self, size: int) -> None:
        """Do nothing: the value is known already."""

    def global_rank(self) -> int:
        """Return the rank of this process."""
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the value is known already."""

    def local_rank(self) -> int:
        """Return the rank of this process on its machine."""
        return self.place.local

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return self.place.rank // self.place.per_node


# -------------------------------------------------------------------------------- connect


@dataclass
class ProcessGroup:
    """All connected processes of a run; there may be just one.

    Args:
        place: Of this process.
        store: Shared key-value store; None for a single process.
        children: Processes that this process has started.
        over: Set when the processes need no more monitoring.
    """

    place: ProcessPlace = field(default_factory=ProcessPlace)
    store: Store | None = None
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def first_to_fail(self) -> bool:
        """Return whether this process is the first to fail, which reports the error."""
        if self.store is None:
            return True
        own = str(self.place.rank).encode()
        try:
            return bool(self.store.compare_set(_FAILED, "", own.decode()) == own)
        except RuntimeError:  # the first process, which hosts the store, has ended
            return self.place.rank == 0


@contextmanager
def process_group(place: ProcessPlace, accelerator: str) -> Iterator[ProcessGroup]:
    """Start the other processes unless a launcher has, and connect to them.

    If the body fails, the first process to fail raises the error; the others exit with status 1 and
    print nothing.

    Args:
        place: Rank of this process.
        accelerator: `cpu` or `gpu`.
    """
    if place.world == 1:
        yield ProcessGroup()
        return
    if not place.launched:
        keeper = dist.TCPStore(  # type: ignore[attr-defined]
            place.address, 0, is_master=True, timeout=PATIENCE
        )
        place, run = replace(place, port=keeper.port), secrets.token_hex(8)
        others = _start_others(place, accelerator, run)
        group = ProcessGroup(place, PrefixStore(run, keeper), others)
        _watch(group)
    else:
        os.environ.update({"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port)})
        group = ProcessGroup(place)
    try:
        with _one_voice(group):
            _meet(group, accelerator)
            yield group
    finally:
        group.over.set()
        if dist.is_initialized():
            dist.destroy_process_group()
        for child in group.children:
            _end(child)


def _meet(group: ProcessGroup, accelerator: str) -> None:
    gpu = accelerator == "gpu"
    if gpu:
        torch.cuda.set_device(group.place.local)
    place = group.place
    keeper = group.store
    if keeper is None:  # hosted by torchrun's agent or the first process
        keeper, _, _ = next(
            rendezvous("env://", rank=place.rank, world_size=place.world, timeout=PATIENCE)
        )
        run = os.environ.get(_RUN)  # not set by torchrun and srun
        keeper = PrefixStore(run, keeper) if run else keeper
        group.store = keeper
    # small values, such as stop requests, go from CPU to CPU and do not delay the GPU
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo",
        store=keeper,
        rank=place.rank,
        world_size=place.world,
        timeout=PATIENCE,
    )


def _start_others(place: ProcessPlace, accelerator: str, run: str) -> list[subprocess.Popen[bytes]]:
    """Start the other processes of this machine, which wait for the settings or for its end."""
    shared = {
        _RUN: run,
        "WORLD_SIZE": str(place.world),
        "LOCAL_WORLD_SIZE": str(place.per_node),
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the first process already hosts the store
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "eofm.train.run", accelerator, str(os.getpid())],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(1, place.world)
    ]


def _watch(group: ProcessGroup) -> None:
    """End this process if another has died and no collective operation reported it."""

    def poll() -> None:
        while not group.over.wait(0.5):
            ended = [code for code in (child.poll() for child in group.children) if code]
            if ended:
                if not group.over.wait(GRACE_S):
                    if min(ended) < 0:  # killed by a signal: it has printed no reason
                        error = _gone(f"ended by signal {-min(ended)}", "another process")
                        print(f"eofm pretrain: error: {error}", file=sys.stderr, flush=True)  # noqa: T201
                    os._exit(1)
                return

    threading.Thread(target=poll, daemon=True, name="eofm-watch").start()


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def _one_voice(group: ProcessGroup) -> Iterator[None]:
    """Let the first process that fails report the error, and the others exit silently."""
    try:
        yield
    except (SystemExit, Stopped):  # in all processes
        raise
    except BaseException as error:
        if not group.first_to_fail():
            raise SystemExit(1) from error
        for child in group.children:  # they would wait for this process otherwise
            child.kill()
        if isinstance(error, RuntimeError) and not isinstance(error, EofmError) and _is_loss(error):
            found = str(error).strip().splitlines()[0]
            where = f"process {group.place.rank} of {group.place.world}"
            raise _gone(found, where) from error
        raise


def _gone(found: str, where: str) -> TrainingError:
    return TrainingError(
        "a process of this run has ended unexpectedly",
        found=found,
        where=where,
        remedy="check whether it ran out of memory, and resume the run",
    )


def _is_loss(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection", "peer"))


# ------------------------------------------------------------------- collective operations


def broadcast(value: str) -> str:
    """Return the first process's value in all processes."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_max(*values: int) -> tuple[int, ...]:
    """Return the maximum of each value over all processes."""
    if not dist.is_initialized():
        return values
    box = torch.tensor(values)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return tuple(box.tolist())


def all_gather(value: Tensor) -> list[Tensor]:
    """Return every process's tensor in rank order; all have the same shape and are on the CPU."""
    if not dist.is_initialized():
        return [value]
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value)
    return parts


def all_mean(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of each value over all processes, with one collective operation."""
    if not dist.is_initialized():
        return dict(values)
    means = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(means)
    return dict(zip(values, (means / dist.get_world_size()).unbind(), strict=True))
