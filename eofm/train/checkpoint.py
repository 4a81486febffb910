"""Checkpoints that survive a kill at any moment, and two ways to continue training from one.

A run resumes from its last checkpoint, which holds networks, optimiser, schedules, Lightning's
counters, the sampler's position, and every random state of every process. The resumed run takes the
same steps as an uninterrupted one. A later stage continues from a checkpoint of an earlier stage,
with its networks and optimizer but other data and another schedule. It must continue from before
the anneal (`constant.ckpt`): raising the rate again after the anneal would lose its gain
(arXiv 2403.08763).
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.optim import Optimizer

from eofm.errors import TrainingError, WeightsError
from eofm.formats.arrays import read_torch
from eofm.formats.foreign import advice, foreign
from eofm.io import replacing, unfinished
from eofm.train.distributed import Stopped, StopRequests, all_gather, all_max
from eofm.weights.download import hash_file
from eofm.weights.start import Origin

__all__ = [
    "BEST",
    "CONSTANT",
    "PARAMETERS",
    "AtomicCheckpointIO",
    "Checkpoints",
    "RandomStates",
    "Stage",
    "keep_as",
    "load_moments",
    "load_networks",
    "open_stage",
    "stepped",
]

BEST: Final = "best.ckpt"
CONSTANT: Final = "constant.ckpt"
_EPOCH: Final = "epoch-{:04d}.ckpt"
_PATTERN: Final = r"epoch-\d{4,}\.ckpt"
# Criterion for the best checkpoint: the online monitor, or the loss without a monitor.
_MONITOR: Final = "monitor/knn"
_RANDOM: Final = "random_sources"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to the folder of the last checkpoint, on the same disk, syncs, and renames.

    Lightning itself writes to the temporary folder first, which may be on another disk; moving the
    file from there is not an atomic rename.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401 (Lightning's signature)
    ) -> None:
        """Replace the previous checkpoint.

        Raises:
            TrainingError: If it cannot be written (full disk); the previous one is kept.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(file) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer raises no specific error
            unfinished(file).unlink(missing_ok=True)
            raise TrainingError(
                "the checkpoint cannot be written",
                found=str(error).strip().splitlines()[0],
                where=file,
                remedy=f"{advice(error, 'free some space')}, and resume the run: the previous "
                "checkpoint is kept",
            ) from error


def keep_as(file: Path, name: str) -> None:
    """Add a hard link to a checkpoint, which is always replaced and never modified in place."""
    kept = file.with_name(name)
    if kept.is_file() and kept.samefile(file):
        return  # renaming one hard link to another link of the same file does nothing
    with replacing(kept) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(file)
        except OSError:  # some file systems do not support hard links
            shutil.copyfile(file, temporary)


def stepped(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether the batch ended an optimizer step; checkpoints hold no partial gradients."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch


class Checkpoints(Checkpoint):
    """Saves at the end of every epoch, at intervals within it, and on a request to stop.

    It runs after the other callbacks, so that the metrics of a step are written first.

    Args:
        path: The file, replaced every time. The other checkpoints are hard links next to it.
        steps: Steps between two checkpoints; 0 for none.
        minutes: Minutes between two checkpoints; 0 for none.
        keep: Number of end-of-epoch checkpoints to keep, the newest ones.
        constant: Function from the total number of steps to the step at which constant.ckpt is
            kept, if a later stage is to continue this one.
        by_monitor: Choose best.ckpt by the online monitor, which needs scenes that are not scored
            at the end; otherwise, and without a monitor, by the mean loss.
    """

    def __init__(
        self,
        path: Path,
        *,
        steps: int,
        minutes: float,
        keep: int = 0,
        constant: Callable[[int], int] | None = None,
        by_monitor: bool = True,
    ) -> None:
        self.path, self.steps, self.minutes, self.keep = path, steps, minutes, keep
        self.constant, self.by_monitor = constant, by_monitor
        self.requests = StopRequests()
        self._saved = 0.0
        self._best: dict[str, Any] = {}
        self._names: tuple[str, ...] = ()  # hard links of the file saved last
        self._sum, self._count = torch.zeros((), dtype=torch.float64), 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and install signal handlers: Lightning has installed its own by now.

        If a run was killed before a checkpoint got its hard links, they are created on resume.
        """
        self._saved = time.monotonic()
        self.requests.listen()
        self._link(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Create missing hard links of a run resumed after its last step.

        Lightning does not call `on_train_start` where no step is left.
        """
        self._link(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Save if a checkpoint is due.

        Raises:
            Stopped: If a process was asked to stop; a checkpoint has been saved.
        """
        if "loss" in trainer.callback_metrics:  # summed on the device, without synchronisation
            self._sum = self._sum + trainer.callback_metrics["loss"].detach().double()
            self._count += 1
        if not stepped(trainer, batch_idx) or trainer.is_last_batch:
            return  # the end of the epoch is about to be saved
        step = trainer.global_step
        constant = self._is_constant(trainer)
        elapsed = time.monotonic() - self._saved
        signum, due = all_max(  # clocks differ, and all processes must save together
            self._asked(trainer),
            constant
            or (self.steps > 0 and step % self.steps == 0)
            or (self.minutes > 0 and elapsed >= 60 * self.minutes),
        )
        if signum or due:
            self._save(trainer, *[CONSTANT] * constant)
        if signum:
            raise Stopped(signum, step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, keep the checkpoint under its epoch, and as the best if it is the best.

        Raises:
            Stopped: If a process was asked to stop.
        """
        names = [BEST] * self._is_best(trainer) + [CONSTANT] * self._is_constant(trainer)
        if self.keep:
            names.append(_EPOCH.format(trainer.current_epoch + 1))
        self._save(trainer, *names)
        (signum,) = all_max(self._asked(trainer))
        if signum:
            raise Stopped(signum, trainer.global_step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the previous signal handlers."""
        self.requests.forget()

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far and the links of this file, which a resumed run needs."""
        return {
            "best": dict(self._best),
            "sum": float(self._sum),
            "count": self._count,
            "names": list(self._names),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score and the links; files of earlier versions do not list theirs."""
        self._best = dict(state_dict["best"])
        self._names = tuple(state_dict.get("names", ()))
        self._sum = torch.tensor(state_dict["sum"], dtype=torch.float64)
        self._count = state_dict["count"]

    def _asked(self, trainer: L.Trainer) -> int:
        """Return the signal that asked this process to stop, or 0."""
        early = 15 if trainer.received_sigterm else 0  # before `on_train_start`
        return self.requests.asked or early

    def _is_constant(self, trainer: L.Trainer) -> bool:
        if self.constant is None:
            return False
        return trainer.global_step == self.constant(int(trainer.estimated_stepping_batches))

    def _is_best(self, trainer: L.Trainer) -> bool:
        """Return whether this epoch is the best so far, by the monitor or by the mean loss."""
        mean = float(self._sum) / max(self._count, 1)
        self._sum, self._count = torch.zeros((), dtype=torch.float64), 0
        monitor = trainer.callback_metrics.get(_MONITOR) if self.by_monitor else None
        by, score = ("loss", -mean) if monitor is None else (_MONITOR, float(monitor))
        if self._best.get("by") == by and not score > self._best["score"]:
            return False
        self._best = {"by": by, "score": score, "step": trainer.global_step}
        return True

    def _save(self, trainer: L.Trainer, *names: str) -> None:
        """Save, and keep the file under further names, so that it survives the next save."""
        self._names = names  # saved with it: a run killed before it is linked does so on resume
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()
        self._link(trainer)

    def _link(self, trainer: L.Trainer) -> None:
        """Create the hard links of the file saved last, and remove those of old epochs."""
        if not trainer.is_global_zero:
            return
        for name in self._names:
            keep_as(self.path, name)
        if self.keep and self._names:
            kept = sorted(
                file for file in self.path.parent.iterdir() if re.fullmatch(_PATTERN, file.name)
            )
            for file in kept[: -self.keep]:
                file.unlink()


# --------------------------------------------------------------------------------- random


class RandomStates(L.Callback):
    """Saves and restores every random state of every process with the checkpoint.

    These are torch's states on the CPU and the GPU, and every `torch.Generator` of a module.

    Args:
        rank: Rank of this process.
        seed: Seed of the run.
    """

    def __init__(self, rank: int, seed: int) -> None:
        self.rank, self.seed = rank, seed

    def scatter(self, module: L.LightningModule) -> None:
        """Seed each process differently; the first draws the numbers of a single-process run."""
        if self.rank:
            # a prime stride: seed + rank would give run 1 the numbers of process 1 of run 0
            torch.manual_seed(self.seed + 1_000_003 * self.rank)
            for i, (_, generator) in enumerate(sorted(dict(_generators(module)).items())):
                generator.manual_seed(self.seed + 1_000_003 * self.rank + 7 * (i + 1))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Collect the random states of all processes."""
        states = {f"module {name}": g.get_state() for name, g in _generators(pl_module)}
        states["cpu"] = torch.get_rng_state()
        if pl_module.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(pl_module.device)
        checkpoint[_RANDOM] = {name: all_gather(state) for name, state in states.items()}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the random states of the checkpoint.

        A process that the saved run did not have keeps its current state.
        """
        saved = checkpoint[_RANDOM]
        if self.rank >= len(saved["cpu"]):
            return
        for name, generator in _generators(pl_module):
            generator.set_state(saved[f"module {name}"][self.rank])
        torch.set_rng_state(saved["cpu"][self.rank])
        if "cuda" in saved and torch.cuda.is_available():
            torch.cuda.set_rng_state(saved["cuda"][self.rank], pl_module.device)


def _generators(module: L.LightningModule) -> Iterator[tuple[str, torch.Generator]]:
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if isinstance(value, torch.Generator):
                yield f"{name}.{attribute}", value


# Checkpoint key of the names of the optimizer's parameters, in the optimizer's order.
PARAMETERS: Final = "parameters"
_METHOD: Final = "method."
_SHARDED: Final = "terms.softcon."  # prefix of SoftCon's tensors in sharded checkpoints
_QUEUE: Final = "queue"


@dataclass(frozen=True)
class Stage:
    """Contents of an earlier stage's checkpoint that a later stage continues with.

    Args:
        path: The checkpoint.
        progress: Progress of that stage, as text.
        tensors: Tensors of student, teacher and heads, by name.
        moments: The optimizer's state of each parameter, by name.
        optimizer: Optimizer of that stage, `adamw` or `sgd`.
    """

    path: Path
    progress: str
    tensors: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Any]]
    optimizer: str

    @property
    def origin(self) -> Origin:
        """Origin of the weights, for the export and the run folder."""
        return Origin(
            weights=f"stage {self.path} ({self.progress}), with the optimizer's moments",
            input_layer="as it was",
            loaded=tuple(sorted(self.tensors)),
            new_input=False,
            sha256=hash_file(self.path),
        )


def open_stage(path: Path, key: str) -> Stage:
    """Read the checkpoint of a run.

    Args:
        path: The file.
        key: Checkpoint key of eofm's own entries.

    Raises:
        WeightsError: If the file does not exist, or is not the checkpoint of a run.
    """
    if not path.is_file():
        raise WeightsError("there is no checkpoint", found="no such file", where=path)
    with foreign(
        WeightsError,
        "this is not a checkpoint from which a run can continue",
        expected="checkpoints/constant.ckpt or last.ckpt of `eofm pretrain`",
        where=path,
    ):
        saved = read_torch(path)
        own = saved[key]
        states = saved["optimizer_states"][0]["state"]
        return Stage(
            path=path,
            progress=own["progress"],
            tensors={
                name.removeprefix(_METHOD).removeprefix(_SHARDED): tensor
                for name, tensor in saved["state_dict"].items()
                if name.startswith(_METHOD)
            },
            moments={name: states[i] for i, name in enumerate(own[PARAMETERS]) if i in states},
            optimizer=own["config"]["optim"]["optimizer"],
        )


def load_networks(stage: Stage, method: nn.Module) -> None:
    """Load the networks and heads of the earlier stage.

    The queue of keys starts empty, as its keys are of images of other data.

    Raises:
        WeightsError: If names or shapes of the tensors differ.
    """
    mine, theirs = _without_queue(method.state_dict()), _without_queue(stage.tensors)
    wrong = [
        f"{name}: {_shape(theirs, name)} there, {_shape(mine, name)} here"
        for name in sorted({*mine, *theirs})
        if _shape(theirs, name) != _shape(mine, name)
    ]
    if wrong:
        raise WeightsError(
            "the earlier stage trained another network",
            found=f"{len(wrong)} tensors differ, such as {wrong[0]}",
            expected="the same architecture, bands, size and heads",
            where=stage.path,
            remedy="continue with the settings of that run, or start from its export by "
            "model.weights, which takes another size and draws new heads (same sensor)",
        )
    method.load_state_dict(theirs, strict=False)


def _without_queue(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if _QUEUE not in name.split(".")}


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "none"


def load_moments(optimizer: Optimizer, names: Sequence[str], stage: Stage, kind: str) -> None:
    """Load the moments of the earlier stage into the optimizer; rates and groups are kept.

    Args:
        optimizer: New optimizer, without a state.
        names: Names of its parameters, in the optimizer's order.
        stage: The earlier stage.
        kind: `adamw` or `sgd`.

    Raises:
        WeightsError: If the earlier stage had another optimizer.
    """
    if kind != stage.optimizer:
        raise WeightsError(
            "the earlier stage had another optimizer",
            found=stage.optimizer,
            expected=kind,
            where=stage.path,
            remedy=f"add --optim.optimizer {stage.optimizer}",
        )
    fresh = optimizer.state_dict()
    states = {i: dict(stage.moments[name]) for i, name in enumerate(names) if name in stage.moments}
    optimizer.load_state_dict({"state": states, "param_groups": fresh["param_groups"]})
