"""Progress of a run: what a linear probe makes of the embeddings, and lines for a log.

The probe is fitted on labelled scenes of the training locations and scored on labelled scenes
of held-out locations, through the same `Encoder.embed` that users call.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor

from eofm.data.pack import Store
from eofm.durable import replacing
from eofm.models.encoder import Encoder
from eofm.progress import LINE_EVERY_S
from eofm.train.datamodule import StoreDataModule, walk


def embed_rows(encoder: Encoder, store: Store, rows: Sequence[int]) -> Tensor:
    """Return the embeddings of `rows`, float32 (N, D), on the CPU."""
    return torch.cat([encoder.embed(imagery).cpu() for imagery in walk(store, rows)])


@dataclass(frozen=True)
class ProbeScore:
    """What probes of frozen embeddings reach on held-out scenes.

    Args:
        name: Which encoder.
        ap_macro: Average precision of a linear probe, mean over the classes that occur.
        ap_micro: Average precision of the linear probe, all scene-class pairs together.
        knn_macro: Average precision of the nearest neighbours' votes, mean over classes.
        knn_micro: The same, all pairs together.
        per_class: Average precision of the linear probe by class, None where it does not occur.
        dim: Width of the embedding.
    """

    name: str
    ap_macro: float
    ap_micro: float
    knn_macro: float
    knn_micro: float
    per_class: tuple[float | None, ...]
    dim: int


class MetricsFile(L.Callback):
    """Appends what a step logged to a JSON-lines file; a resumed run goes on after its checkpoint.

    (Lightning's CSV logger deletes the file of the run it resumes.)

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the lines of steps that will be taken again."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:  # a killed run may have left half a line
                if json.loads(line)["step"] <= trainer.global_step:
                    kept.append(line + "\n")
            except ValueError:
                continue
        with replacing(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Make the lines safe: a checkpoint must not know of steps that the file has lost."""
        if self.path.is_file():
            with self.path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Write one line."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"step": trainer.global_step, "epoch": trainer.current_epoch, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class LogLines(L.Callback):
    """A plain line now and then, for logs and pipes, where a bar would be noise."""

    def __init__(self) -> None:
        self._start = self._due = 0.0
        self._first = 0
        self._waited = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._due = self._start
        self._first = trainer.global_step
        self._waited = _waited(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: tuple[object, ...],
        batch_idx: int,
    ) -> None:
        """Write a line when one is due, and at the end."""
        now = time.monotonic()
        done, total = trainer.global_step, int(trainer.estimated_stepping_batches)
        if now < self._due and done < total:
            return
        self._due = now + LINE_EVERY_S
        seconds = (now - self._start) / max(done - self._first, 1)
        idle = (_waited(trainer) - self._waited) / max(now - self._start, 1e-9)
        size = len(batch[1])  # type: ignore[arg-type]
        loss = float(trainer.callback_metrics.get("loss", torch.tensor(float("nan"))))
        line = (
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, step {done}/{total}, "
            f"loss {loss:.3f}, {size / seconds:.0f} scenes/s, {idle:.0%} waiting for data, "
            f"{(total - done) * seconds:.0f} s left"
        )
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def _waited(trainer: L.Trainer) -> float:
    """Return the seconds that training has waited for batches."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data.waited if isinstance(data, StoreDataModule) else 0.0


def dominant_class(fractions: np.ndarray) -> np.ndarray:
    """Return the index of the class that covers most of each scene: (N, K) -> (N,)."""
    dominant: np.ndarray = np.argmax(fractions, axis=1)
    return dominant
