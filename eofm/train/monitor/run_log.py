"""Everything a run writes down about itself: rows of numbers per step, and why it ended.

The JSON lines are the record: appended, synced with every checkpoint, and cut back to the
checkpoint when a run is resumed. The CSV beside them is a view for spreadsheets, written again from
the record whenever its columns change.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import lightning as L

from eofm.errors import EofmError, TrainingError
from eofm.formats.text import parse_json, split_lines
from eofm.io import replacing
from eofm.train.monitor.loggers import Row, Writer
from eofm.train.signals import Stopped

STEPS: Final = "metrics.jsonl"
EVALUATIONS: Final = "monitor.jsonl"
THROUGHPUT: Final = "pace.jsonl"
FAILURE: Final = "failure.json"
# What names of numbers seen of held-out scenes begin with.
MONITOR_PREFIX: Final = "monitor/"


class RunLog:
    """The files of a run, and the loggers that get the same numbers.

    Args:
        folder: Of the run.
        writers: Besides the files.

    Attributes:
        steps: A row per step: what the method logged.
        evaluations: A row per evaluation of the held-out scenes.
        throughput: A row every few seconds: what they were spent on.
    """

    def __init__(self, folder: Path, writers: Sequence[Writer] = ()) -> None:
        self.folder = folder
        self.steps, self.evaluations = RowFile(folder / STEPS), RowFile(folder / EVALUATIONS)
        self.throughput = RowFile(folder / THROUGHPUT)
        self.writers = tuple(writers)

    @property
    def _all(self) -> tuple[Writer, ...]:
        return (self.steps, self.evaluations, self.throughput, *self.writers)

    def begin(self, step: int) -> None:
        """Forget what came after `step`, and an earlier failure."""
        for writer in self._all:
            writer.begin(step)
        (self.folder / FAILURE).unlink(missing_ok=True)

    def write(self, file: RowFile, row: Row) -> None:
        """Write a row to one of the files, and to the loggers."""
        for writer in (file, *self.writers):
            writer.write(row)

    def sync(self) -> None:
        """Make all rows safe."""
        for writer in self._all:
            writer.sync()

    def close(self) -> None:
        """No row will come."""
        for writer in self._all:
            writer.close()

    def fail(self, error: BaseException, step: int) -> None:
        """Write down why the run ended: `eofm report` shows it."""
        problem = error.problem if isinstance(error, EofmError) else str(error)
        text = str(error)
        if isinstance(error, Stopped):
            problem = text = f"stopped by {signal.Signals(error.signum).name}: it can be resumed"
        record = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "step": step,
            "error": type(error).__name__,
            "problem": problem,
            "text": text,
        }
        # where nothing can be written any more, the error itself is what the user must see
        with contextlib.suppress(OSError), replacing(self.folder / FAILURE) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


class StepLog(L.Callback):
    """Writes what the method logged, once per optimiser step; only the first process writes.

    (Lightning's CSV logger deletes the file of the run it resumes.)

    Args:
        run_log: Where to.
    """

    def __init__(self, run_log: RunLog) -> None:
        self.run_log = run_log
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the rows of steps that will be taken again."""
        self._step = trainer.global_step
        if trainer.is_global_zero:
            self.run_log.begin(trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Write a row if a step was taken: not after every part of an accumulated gradient."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if trainer.is_global_zero:
            values = {
                name: float(value)
                for name, value in trainer.callback_metrics.items()
                if not name.startswith(MONITOR_PREFIX)  # these have a file of their own
            }
            row = {"step": trainer.global_step, "epoch": trainer.current_epoch, **values}
            self.run_log.write(self.run_log.steps, row)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Make the rows safe first."""
        if trainer.is_global_zero:
            self.run_log.sync()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write down why the run ended, unless it was asked to."""
        if trainer.is_global_zero and not isinstance(exception, Stopped):
            self.run_log.fail(exception, trainer.global_step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the loggers."""
        if trainer.is_global_zero:
            self.run_log.close()


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows of a file; half a line, as a killed run leaves it, is passed over."""
    rows = []
    if path.is_file():
        for _, line in split_lines(path.read_bytes()):
            try:
                row = parse_json(line, nan=True)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and _is_row(row):
                rows.append(row)
    return rows


def _is_row(row: dict[str, object]) -> bool:
    return "step" in row and all(type(value) in (int, float) for value in row.values())


@contextlib.contextmanager
def _on_disk(file: Path) -> Iterator[None]:
    """Turn an OSError (a full disk) into an error that says how to continue."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            "what the run says of itself cannot be written",
            found=error.strerror or error,
            where=file,
            remedy="free space and resume the run from its last checkpoint: --run.resume true",
        ) from error


class RowFile:
    """A growing table.

    Args:
        path: The file of JSON lines; the CSV lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.csv = path, path.with_suffix(".csv")
        self._columns: list[str] = []

    def begin(self, step: int) -> None:
        """Drop the rows of steps that will be taken again: all after `step`; all if it is 0."""
        if not self.path.is_file():
            return
        kept = [row for row in read_rows(self.path) if step > 0 and row["step"] <= step]
        with _on_disk(self.path):
            with replacing(self.path) as temporary:
                temporary.write_text("".join(_line(row) for row in kept), encoding="utf-8")
            self._rebuild(kept)

    def write(self, row: Row) -> None:
        """Append a row, which has `step`."""
        with _on_disk(self.path):
            self._write(row)

    def _write(self, row: Row) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        if set(row) <= set(self._columns):
            with self.csv.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._rebuild(read_rows(self.path))

    def sync(self) -> None:
        """Make the rows safe: a checkpoint must not know of steps that the file has lost."""
        if self.path.is_file():
            with _on_disk(self.path), self.path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing is open between two rows."""

    def _rebuild(self, rows: list[dict[str, float]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        with self.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
