"""The processes of a run: which one this is, how they start, meet, agree and end.

The first process prepares everything: it makes the demo's world, opens the run folder, and finds
the faults of the settings. Only then do the others start (or, started by torchrun or srun, stop
waiting); they receive the settings from it. It alone writes files and says anything.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from eofm.errors import ConfigError, EofmError, TrainingError
from eofm.train.config import TrainerConfig
from eofm.train.signals import Stopped

# The others wait while the first one packs a world, but not for ever.
PATIENCE: Final = timedelta(hours=1)
# How long processes may take to notice that one of them has failed, before they are ended.
GRACE_S: Final = 20.0
_FAILED: Final = "eofm/failed"
# Names the run to the processes it starts: a port may be given again while one of a run that was
# killed still looks for its own, and it must not be taken for one of this run.
_RUN: Final = "EOFM_RUN"
_LOCALHOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class ProcessPlace:
    """Which of the processes of a run this is.

    Args:
        rank: Number among all.
        world: How many there are.
        local: Number among those of this machine.
        per_node: How many there are on each machine.
        address: Machine of the first process.
        port: Where it listens; 0 where it has yet to choose.
        launched: All processes were started from outside: torchrun, srun, or the first process.
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
        """How many machines there are."""
        return self.world // self.per_node


def find_place(config: TrainerConfig, environ: Mapping[str, str] = os.environ) -> ProcessPlace:
    """Return the place that torchrun or srun has given to this process; without them, its own.

    Raises:
        ConfigError: If the settings ask for other processes than have been started.
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
            "other processes have been started than the settings ask for",
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
    """Return the place of a task of srun; a job of one task starts its own processes.

    srun alone sets the variables of a step. A batch script and a shell of salloc see those of the
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
    """Tells Lightning the place, so that it neither detects one nor starts processes.

    Lightning's own SLURM support would save from within a signal handler, in the middle of a step.
    """

    def __init__(self, place: ProcessPlace) -> None:
        super().__init__()
        self.place = place

    @property
    def creates_processes_externally(self) -> bool:
        """They are there."""
        return True

    @property
    def main_address(self) -> str:
        """Machine of the first process."""
        return self.place.address

    @property
    def main_port(self) -> int:
        """Where it listens."""
        return self.place.port

    @staticmethod
    def detect() -> bool:
        """It is never found, only given."""
        return False

    def world_size(self) -> int:
        """How many processes there are."""
        return self.place.world

    def set_world_size(self, size: int) -> None:
        """Do nothing: it is known."""

    def global_rank(self) -> int:
        """Return the number of this process."""
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: it is known."""

    def local_rank(self) -> int:
        """Return the number of this process on its machine."""
        return self.place.local

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return self.place.rank // self.place.per_node


# ------------------------------------------------------------------------------------ meet


@dataclass
class ProcessGroup:
    """All processes of a run, once they have met. One process alone needs no other.

    Args:
        place: Of this process.
        store: Key-value store they share; None for one alone.
        children: Processes that this one has started.
        over: They need no longer be monitored.
    """

    place: ProcessPlace = field(default_factory=ProcessPlace)
    store: Store | None = None
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def first_to_fail(self) -> bool:
        """Return whether no other process has failed before: the first one says why."""
        if self.store is None:
            return True
        own = str(self.place.rank).encode()
        try:
            return bool(self.store.compare_set(_FAILED, "", own.decode()) == own)
        except RuntimeError:  # the first process, which keeps the store, has gone
            return self.place.rank == 0


@contextmanager
def process_group(place: ProcessPlace, accelerator: str) -> Iterator[ProcessGroup]:
    """Start the other processes where no launcher has, and connect to them.

    When the body fails, the first process to fail raises the error; the others end with status 1
    and without a word.

    Args:
        place: Of this process.
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
    if keeper is None:  # of torchrun's agent, or of the first process
        keeper, _, _ = next(
            rendezvous("env://", rank=place.rank, world_size=place.world, timeout=PATIENCE)
        )
        run = os.environ.get(_RUN)  # none of torchrun and srun
        keeper = PrefixStore(run, keeper) if run else keeper
        group.store = keeper
    # small things, such as whether to stop, go from CPU to CPU and do not hold up the GPU
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo",
        store=keeper,
        rank=place.rank,
        world_size=place.world,
        timeout=PATIENCE,
    )


def _start_others(place: ProcessPlace, accelerator: str, run: str) -> list[subprocess.Popen[bytes]]:
    """Start the other processes of this machine; they wait for the settings, or for its end."""
    shared = {
        _RUN: run,
        "WORLD_SIZE": str(place.world),
        "LOCAL_WORLD_SIZE": str(place.per_node),
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the first process keeps the store already
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
    """End this process when another has died and no exchange has told it so."""

    def poll() -> None:
        while not group.over.wait(0.5):
            ended = [code for code in (child.poll() for child in group.children) if code]
            if ended:
                if not group.over.wait(GRACE_S):
                    if min(ended) < 0:  # by a signal: it has not said why
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
    """Let the first process that fails say why, and the others end without a word."""
    try:
        yield
    except (SystemExit, Stopped):  # in all processes
        raise
    except BaseException as error:
        if not group.first_to_fail():
            raise SystemExit(1) from error
        for child in group.children:  # they would wait for this process
            child.kill()
        if isinstance(error, RuntimeError) and not isinstance(error, EofmError) and _is_loss(error):
            found = str(error).strip().splitlines()[0]
            where = f"process {group.place.rank} of {group.place.world}"
            raise _gone(found, where) from error
        raise


def _gone(found: str, where: str) -> TrainingError:
    return TrainingError(
        "a process of this run has gone",
        found=found,
        where=where,
        remedy="see whether it ran out of memory, and resume the run",
    )


def _is_loss(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection", "peer"))


# ----------------------------------------------------------------------------------- agree


def broadcast(value: str) -> str:
    """Return the first process's value in all processes."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_max(*values: int) -> tuple[int, ...]:
    """Return the largest of all processes' values, for each place."""
    if not dist.is_initialized():
        return values
    box = torch.tensor(values)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return tuple(box.tolist())


def all_gather(value: Tensor) -> list[Tensor]:
    """Return every process's tensor, in order of their ranks; all have one shape, on the CPU."""
    if not dist.is_initialized():
        return [value]
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value)
    return parts


def all_mean(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of each value over all processes, in one exchange."""
    if not dist.is_initialized():
        return dict(values)
    means = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(means)
    return dict(zip(values, (means / dist.get_world_size()).unbind(), strict=True))
