"""Checkpoints that a kill at any moment leaves whole: the last one, or the one before.

A checkpoint holds networks, optimiser, schedules, Lightning's counters, how far the order of the
images is, and every random source; a run that goes on from it takes the steps it would have taken.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from eofm.durable import replacing, unfinished
from eofm.errors import TrainingError


class WholeFiles(TorchCheckpointIO):
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
                remedy="make room and resume the run: the checkpoint before is still there",
            ) from error


class Checkpoints(Checkpoint):
    """Saves at the end of every epoch, now and then between, and when the run is asked to stop.

    It comes after the other callbacks, so that the metrics of a step are written before it.

    Args:
        path: The file, replaced every time.
        steps: Save whenever so many steps are done; 0 for never.
        minutes: Save when so many minutes have passed since the last time; 0 for never.
    """

    def __init__(self, path: Path, *, steps: int, minutes: float) -> None:
        self.path, self.steps, self.minutes = path, steps, minutes
        self._saved = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Save if it is time to; Lightning stops after this step if the process got SIGTERM."""
        if trainer.is_last_batch:
            return  # the end of the epoch is about to be saved
        elapsed = time.monotonic() - self._saved
        due = (
            trainer.received_sigterm
            or (self.steps > 0 and trainer.global_step % self.steps == 0)
            or (self.minutes > 0 and elapsed >= 60 * self.minutes)
        )
        if trainer.strategy.broadcast(due):  # clocks differ, and all processes must save together
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save."""
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()
