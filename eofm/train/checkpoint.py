"""Checkpoints that a kill at any moment leaves whole, and the two ways to train on from one.

A run resumes from its last checkpoint, which holds networks, optimiser, schedules, Lightning's
counters, how far the sampler is, and every random state of every process: the resumed run takes the
steps it would have taken. A later stage continues from a checkpoint of an earlier one: its networks
and its optimizer, other data, another schedule. It must continue from before the anneal
(`constant.ckpt`): from the annealed end, raising the rate again would lose what the anneal gained
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
from eofm.formats.foreign import foreign
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
# What says which checkpoint is the best: the online monitor, or the loss where there is none.
_MONITOR: Final = "monitor/knn"
_RANDOM: Final = "random_sources"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the last checkpoint, on the same disk, syncs, and renames.

    Lightning's own way passes through the folder for temporary files, which may be another disk:
    moving from there is no rename.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401 (Lightning's signature)
    ) -> None:
        """Put the checkpoint in the place of the one before.

        Raises:
            TrainingError: If it cannot be written, as on a full disk; the one before stays.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(file) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer has no error of its own
            unfinished(file).unlink(missing_ok=True)
            raise TrainingError(
                "the checkpoint cannot be written",
                found=str(error).strip().splitlines()[0],
                where=file,
                remedy="free disk space and resume the run: the checkpoint before is still there",
            ) from error


def keep_as(file: Path, name: str) -> None:
    """Give a checkpoint a further name beside it: it is replaced whole, never written into."""
    kept = file.with_name(name)
    if kept.is_file() and kept.samefile(file):
        return  # to rename one name of a file to another of its names does nothing
    with replacing(kept) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(file)
        except OSError:  # some file systems know no second names
            shutil.copyfile(file, temporary)


def stepped(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether the batch ended an optimizer step: gradients in between are in no file."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch


class Checkpoints(Checkpoint):
    """Saves at the end of every epoch, now and then between, and when the run is asked to stop.

    It comes after the other callbacks, so that the metrics of a step are written before it.

    Args:
        path: The file, replaced every time. The others, beside it, are further names of it.
        steps: Save whenever so many steps are done; 0 for never.
        minutes: Save when so many minutes have passed since the last time; 0 for never.
        keep: Keep the last so many that were saved at the end of an epoch.
        constant: From how many steps there are to the step at which constant.ckpt is kept, where
            a later stage is to continue this one.
        by_monitor: best.ckpt is the best by the online monitor, which needs scenes that are not
            scored at the end; else, and without a monitor, by the mean loss.
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
        self._sum, self._count = torch.zeros((), dtype=torch.float64), 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and listen for signals: Lightning's own handlers are there by now.

        A run killed between a checkpoint and its further names gets them when it resumes.
        """
        self._saved = time.monotonic()
        self.requests.listen()
        if trainer.global_step and self.path.is_file():
            if self._best.get("step") == trainer.global_step:
                self._name(trainer, BEST)
            if self._is_constant(trainer):
                self._name(trainer, CONSTANT)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Save if it is time to.

        Raises:
            Stopped: If a process was asked to stop; it has been saved.
        """
        if "loss" in trainer.callback_metrics:  # added up on the device without a synchronisation
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
            self._save(trainer)
        if constant:
            self._name(trainer, CONSTANT)
        if signum:
            raise Stopped(signum, step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, and keep the checkpoint by its epoch, and as the best if it is.

        Raises:
            Stopped: If a process was asked to stop.
        """
        best = self._is_best(trainer)
        self._save(trainer)
        if best:
            self._name(trainer, BEST)
        if self._is_constant(trainer):
            self._name(trainer, CONSTANT)
        if self.keep:
            self._name(trainer, _EPOCH.format(trainer.current_epoch + 1))
            self._tidy(trainer)
        (signum,) = all_max(self._asked(trainer))
        if signum:
            raise Stopped(signum, trainer.global_step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self.requests.forget()

    def state_dict(self) -> dict[str, Any]:
        """Return what the best one had: a resumed run must know."""
        return {"best": dict(self._best), "sum": float(self._sum), "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there."""
        self._best = dict(state_dict["best"])
        self._sum = torch.tensor(state_dict["sum"], dtype=torch.float64)
        self._count = state_dict["count"]

    def _asked(self, trainer: L.Trainer) -> int:
        """Return the signal that has asked this process to stop, or 0."""
        early = 15 if trainer.received_sigterm else 0  # before `on_train_start`
        return self.requests.asked or early

    def _is_constant(self, trainer: L.Trainer) -> bool:
        if self.constant is None:
            return False
        return trainer.global_step == self.constant(int(trainer.estimated_stepping_batches))

    def _is_best(self, trainer: L.Trainer) -> bool:
        """Return whether no epoch was better, by the monitor or by the mean loss."""
        mean = float(self._sum) / max(self._count, 1)
        self._sum, self._count = torch.zeros((), dtype=torch.float64), 0
        monitor = trainer.callback_metrics.get(_MONITOR) if self.by_monitor else None
        by, score = ("loss", -mean) if monitor is None else (_MONITOR, float(monitor))
        if self._best.get("by") == by and not score > self._best["score"]:
            return False
        self._best = {"by": by, "score": score, "step": trainer.global_step}
        return True

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()

    def _name(self, trainer: L.Trainer, name: str) -> None:
        """Give the file just saved a further name: it stays when the next one replaces it."""
        if trainer.is_global_zero:
            keep_as(self.path, name)

    def _tidy(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            kept = sorted(
                file for file in self.path.parent.iterdir() if re.fullmatch(_PATTERN, file.name)
            )
            for file in kept[: -self.keep]:
                file.unlink()


# --------------------------------------------------------------------------------- random


class RandomStates(L.Callback):
    """Every random state of every process goes into the checkpoint, and comes out of it.

    Those are torch's on the CPU and the GPU, and every `torch.Generator` that a module holds.

    Args:
        rank: Of this process.
        seed: Of the run.
    """

    def __init__(self, rank: int, seed: int) -> None:
        self.rank, self.seed = rank, seed

    def scatter(self, module: L.LightningModule) -> None:
        """Let each process draw other numbers; those of the first are those of one alone."""
        if self.rank:
            # a prime stride: seed + rank would give run 1 the numbers of process 1 of run 0
            torch.manual_seed(self.seed + 1_000_003 * self.rank)
            for i, (_, generator) in enumerate(sorted(dict(_generators(module)).items())):
                generator.manual_seed(self.seed + 1_000_003 * self.rank + 7 * (i + 1))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Collect them from all processes."""
        states = {f"module {name}": g.get_state() for name, g in _generators(pl_module)}
        states["cpu"] = torch.get_rng_state()
        if pl_module.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(pl_module.device)
        checkpoint[_RANDOM] = {name: all_gather(state) for name, state in states.items()}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue the random states of the checkpoint.

        A process that the saved run did not have keeps the numbers it has.
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


# What a checkpoint calls the names of the optimizer's parameters, in the order it counts them.
PARAMETERS: Final = "parameters"
_METHOD: Final = "method."
_SHARDED: Final = "terms.softcon."  # before SoftCon's own tensors, in checkpoints of shards
_QUEUE: Final = "queue"


@dataclass(frozen=True)
class Stage:
    """What a checkpoint of an earlier stage has for a later one.

    Args:
        path: The checkpoint.
        progress: How far that stage was, in words.
        tensors: Of student, teacher and heads, by name.
        moments: The optimizer's state of each parameter, by name.
        optimizer: Name of the optimizer's settings of that stage, `adamw` or `sgd`.
    """

    path: Path
    progress: str
    tensors: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Any]]
    optimizer: str

    @property
    def origin(self) -> Origin:
        """What the export and the run's folder say of where training started."""
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
        key: Where eofm keeps its own things in a checkpoint.

    Raises:
        WeightsError: If there is none, or it is not that of a run.
    """
    if not path.is_file():
        raise WeightsError("there is no checkpoint", found="no such file", where=path)
    with foreign(
        WeightsError,
        "this is no checkpoint of a run to continue from",
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
    """Give networks and heads the values they had at the end of the earlier stage.

    A queue of keys starts empty: its images, their places and classes are those of other data.

    Raises:
        WeightsError: If they are not alike, tensor by tensor.
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
    """Give the optimizer the moments of the earlier stage; its rates and groups stay its own.

    Args:
        optimizer: New, without a state.
        names: Of its parameters, in its order.
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
