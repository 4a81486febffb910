"""Speed and waiting times of a run: a bar on a terminal, lines elsewhere, rows in a file.

Everything shown goes to stderr, so that stdout stays free for results.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

import lightning as L
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from eofm.terminal import LINE_EVERY_S
from eofm.train.datamodule import StoreDataModule
from eofm.train.monitor.run_log import RunLog

__all__ = [
    "WINDOW_S",
    "Bar",
    "Display",
    "Lines",
    "Throughput",
    "ThroughputReading",
    "clock",
    "remember",
]

_GIB: Final = 2**30
# Rate and time left are averaged over this many seconds, as the load of a machine changes.
WINDOW_S: Final = 60.0


@dataclass(frozen=True)
class ThroughputReading:
    """Progress of a run, and its speed in the last minute.

    Args:
        epoch: Counted from 1.
        epochs: Epochs of the whole run.
        step: Steps taken.
        steps: Steps of the whole run.
        loss: Latest loss.
        rate: Scenes per second over all processes.
        waiting: Share of the time spent waiting for batches.
        left: Seconds to the end at the present rate.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    rate: float
    waiting: float
    left: float

    def describe(self) -> str:
        """Return one line.

        >>> ThroughputReading(1, 8, 30, 360, 2.5, 48.0, 0.01, 220.0).describe()
        'epoch 1/8, step 30/360, loss 2.500, 48 scenes/s, 1% waiting for data, 3:40 left'
        """
        return (
            f"epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}, "
            f"loss {self.loss:.3f}, {self.rate:.0f} scenes/s, {self.waiting:.0%} waiting for data, "
            f"{clock(self.left)} left"
        )


def clock(seconds: float) -> str:
    """Return a duration as text.

    >>> clock(220), clock(7325)
    ('3:40', '2:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display(Protocol):
    """Display of readings."""

    def show(self, reading: ThroughputReading, *, due: bool) -> None:
        """Show the progress; a log shows only readings that are due."""

    def close(self) -> None:
        """Close; no more readings follow."""


class Lines:
    """Plain lines at intervals, for logs and pipes, in which a bar would be unreadable."""

    def show(self, reading: ThroughputReading, *, due: bool) -> None:
        """Write a line when one is due."""
        if due:
            print(reading.describe(), file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class Bar:
    """A bar with loss, scenes per second, waiting for data, and time left.

    Args:
        console: Console to draw on.
    """

    def __init__(self, console: Console | None = None) -> None:
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
        )
        self._progress = Progress(*columns, console=console or Console(stderr=True))
        self._task: TaskID | None = None

    def show(self, reading: ThroughputReading, *, due: bool) -> None:
        """Update the bar."""
        words = (
            f"loss {reading.loss:.3f}  {reading.rate:.0f} scenes/s  {reading.waiting:.0%} waiting "
            f"for data  {clock(reading.left)} left"
        )
        epoch = f"{reading.epoch}/{reading.epochs}"
        if self._task is None:
            self._task = self._progress.add_task("", total=reading.steps, epoch=epoch, words=words)
            self._progress.start()
        self._progress.update(self._task, completed=reading.step, epoch=epoch, words=words)

    def close(self) -> None:
        """Stop the bar in its present state."""
        self._progress.stop()


class Throughput(L.Callback):
    """Measures, shows, and logs how time is spent, in the first process only.

    Args:
        run_log: Log for a row every ten seconds and at the end.
        display: Shows every step; None makes a bar on a terminal and lines elsewhere.
    """

    def __init__(self, run_log: RunLog, display: Display | None = None) -> None:
        self.run_log = run_log
        self.display: Display = display or (Bar() if sys.stderr.isatty() else Lines())
        self.evaluating = 0.0  # seconds spent on held-out scenes, added by `online`
        self._begin = self._mark = _Mark(0.0, 0, 0, 0.0, 0.0)
        self._recent = deque([self._begin])
        self._batches = self._step = 0
        self._scenes = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._scenes = 0
        self._step = trainer.global_step
        self._begin = self._mark = self._now(trainer)
        self._recent = deque([self._begin])

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: tuple[object, ...],
        batch_idx: int,
    ) -> None:
        """Show the progress, and write a row when one is due."""
        self._scenes += len(batch[1]) * trainer.world_size  # type: ignore[arg-type]
        if trainer.global_step == self._step or not trainer.is_global_zero:
            return
        first = self._step == self._begin.step
        self._step = trainer.global_step
        now = self._now(trainer)
        total = int(trainer.estimated_stepping_batches)
        due = now.time - self._mark.time >= LINE_EVERY_S or now.step >= total
        self.display.show(self._reading(trainer, now, total), due=due or first)
        if due:
            self._write(trainer, now)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the display."""
        self._end(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close the display before the error is printed."""
        self._end(trainer)

    def _end(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            self.display.close()
            now = self._now(trainer)
            if now.step > self._mark.step:
                self._write(trainer, now)

    def _now(self, trainer: L.Trainer) -> _Mark:
        return _Mark(
            time.monotonic(), trainer.global_step, self._scenes, _waited(trainer), self.evaluating
        )

    def _reading(self, trainer: L.Trainer, now: _Mark, total: int) -> ThroughputReading:
        begin = remember(self._recent, now)
        seconds = max(now.time - begin.time, 1e-9)
        loss = trainer.callback_metrics.get("loss")
        return ThroughputReading(
            epoch=trainer.current_epoch + 1,
            epochs=trainer.max_epochs or 0,
            step=now.step,
            steps=total,
            loss=math.nan if loss is None else float(loss),
            rate=(now.scenes - begin.scenes) / seconds,
            waiting=(now.waited - begin.waited) / seconds,
            left=(total - now.step) * seconds / max(now.step - begin.step, 1),
        )

    def _write(self, trainer: L.Trainer, now: _Mark) -> None:
        mark, self._mark = self._mark, now
        seconds = now.time - mark.time
        row: dict[str, float] = {
            "step": now.step,
            "epoch": trainer.current_epoch,
            "pace/seconds": round(seconds, 3),
            "pace/scenes": now.scenes - mark.scenes,
            "pace/waited": round(now.waited - mark.waited, 3),
            "pace/watching": round(now.evaluating - mark.evaluating, 3),
        }
        if trainer.strategy.root_device.type == "cuda":
            row["pace/gpu_gib"] = round(torch.cuda.max_memory_allocated() / _GIB, 3)
        self.run_log.write(self.run_log.throughput, row)


@dataclass(frozen=True)
class _Mark:
    """Counters at one moment."""

    time: float
    step: int
    scenes: int
    waited: float
    evaluating: float


def remember(recent: deque[_Mark], now: _Mark) -> _Mark:
    """Append the current mark, and return the latest mark that is at least `WINDOW_S` old.

    Args:
        recent: Marks in time order, starting with the beginning of the window; modified.
        now: Current mark.
    """
    recent.append(now)
    while len(recent) > 2 and now.time - recent[1].time >= WINDOW_S:
        recent.popleft()
    return recent[0]


def _waited(trainer: L.Trainer) -> float:
    """Return the seconds that training has waited for batches."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data.waited if isinstance(data, StoreDataModule) else 0.0
