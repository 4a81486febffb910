"""Logs of a run: rows of values per step, and the reason of its end.

The JSON lines are the record: rows are appended, synced with every checkpoint, and truncated to the
checkpoint when a run is resumed. The CSV file next to them is a copy for spreadsheets, rewritten
from the record whenever its columns change. TensorBoard and Weights & Biases get the same values if
they are enabled.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import lightning as L

from eofm.errors import ConfigError, EofmError, TrainingError
from eofm.formats.foreign import CRC, advice, line_is_whole, sealed_line
from eofm.formats.text import parse_json, split_lines
from eofm.io import replacing
from eofm.terminal import notice
from eofm.train.distributed import Stopped

__all__ = [
    "EVALUATIONS",
    "FAILURE",
    "MONITOR_PREFIX",
    "NOT_A_VALUE",
    "STEPS",
    "THROUGHPUT",
    "Row",
    "RowFile",
    "RunLog",
    "StepLog",
    "TensorBoard",
    "WandB",
    "Writer",
    "check_installed",
    "make_writers",
    "read_rows",
]

# ----------------------------------------------------------------- TensorBoard and Weights & Biases

# Values by name, including `step`.
Row = Mapping[str, float]

NOT_A_VALUE: Final = frozenset({"step", "epoch"})


class Writer(Protocol):
    """Receiver of logged rows."""

    def begin(self, step: int) -> None:
        """Discard the rows after `step`; all rows if it is 0."""

    def write(self, row: Row) -> None:
        """Write one row."""

    def sync(self) -> None:
        """Flush the written rows to disk."""

    def close(self) -> None:
        """Close; no more rows follow."""


class TensorBoard:
    """Event files in a separate folder.

    Args:
        folder: Folder, created with the first row.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make = SummaryWriter
        self._folder = folder
        self._purge: int | None = None
        self._writer: SummaryWriter | None = None

    def begin(self, step: int) -> None:
        """Make the viewer hide steps that will be repeated."""
        self._purge = step + 1 if step else None

    def write(self, row: Row) -> None:
        """Write one row."""
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=self._purge)
        for name, value in row.items():
            if name not in NOT_A_VALUE:
                self._writer.add_scalar(name, value, int(row["step"]))

    def sync(self) -> None:
        """Flush the event file."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class WandB:
    """A run of Weights & Biases; `WANDB_MODE=offline` keeps it on this machine.

    Args:
        folder: Folder of the run. Its name is the name of the run, and its path identifies the run,
            so that a resumed run continues the same plot.
        settings: All settings, which become searchable.
    """

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        self._folder, self._settings = folder, settings
        self._run: _WandbRun | None = None
        self._step = 0

    def begin(self, step: int) -> None:
        """Start or resume the run; W&B accepts each step only once."""
        import wandb

        identity = hashlib.sha256(str(self._folder.resolve()).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project="eofm",
            name=self._folder.name,
            id=identity,
            resume="allow",
            dir=str(self._folder),
            config=self._settings,
        )
        self._step = step

    def write(self, row: Row) -> None:
        """Write one row."""
        if self._run is not None:
            self._run.log(dict(row), step=int(row["step"]))

    def sync(self) -> None:
        """Do nothing: W&B syncs automatically."""

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()


class _WandbRun(Protocol):
    def log(self, data: dict[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


def check_installed(names: tuple[str, ...]) -> None:
    """Refuse loggers whose library is not installed.

    Args:
        names: Names from `eofm.train.config.LOGGERS`.

    Raises:
        ConfigError: If so.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"{name} is not installed",
                found=f"monitor.loggers={','.join(names)}",
                where="monitor.loggers",
                remedy=f"pip install 'eofm[{name}]', or leave it out: metrics.csv is always there",
            )


def make_writers(names: tuple[str, ...], folder: Path, settings: dict[str, object]) -> list[Writer]:
    """Return the requested loggers.

    Args:
        names: Names from `eofm.train.config.LOGGERS`.
        folder: Folder of the run.
        settings: All settings.

    Raises:
        ConfigError: If the library of a logger is not installed.
    """
    check_installed(names)
    made: dict[str, Writer] = {}
    if "tensorboard" in names:
        made["tensorboard"] = TensorBoard(folder / "tensorboard")
    if "wandb" in names:
        made["wandb"] = WandB(folder, settings)
    return [made[name] for name in names]


# ----------------------------------------------------------------------------------- files of a run

STEPS: Final = "metrics.jsonl"
EVALUATIONS: Final = "monitor.jsonl"
THROUGHPUT: Final = "pace.jsonl"
FAILURE: Final = "failure.json"
# Prefix of the names of measurements on held-out scenes.
MONITOR_PREFIX: Final = "monitor/"


class RunLog:
    """The log files of a run, and the loggers that get the same values.

    Args:
        folder: Folder of the run.
        writers: Loggers in addition to the files.

    Attributes:
        steps: A row per step with the values logged by the method.
        evaluations: A row per evaluation of the held-out scenes.
        throughput: A row every few seconds with the time spent by activity.
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
        """Discard the rows after `step`, and the record of an earlier failure."""
        for writer in self._all:
            writer.begin(step)
        (self.folder / FAILURE).unlink(missing_ok=True)

    def write(self, file: RowFile, row: Row) -> None:
        """Write a row to one of the files, and to the loggers."""
        for writer in (file, *self.writers):
            writer.write(row)

    def sync(self) -> None:
        """Flush all rows to disk."""
        for writer in self._all:
            writer.sync()

    def close(self) -> None:
        """Close; no more rows follow."""
        for writer in self._all:
            writer.close()

    def fail(self, error: BaseException, step: int) -> None:
        """Record why the run ended, for `eofm report`."""
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
        # if writing fails too, the user must see the original error
        with contextlib.suppress(OSError), replacing(self.folder / FAILURE) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


class StepLog(L.Callback):
    """Writes the method's logged values once per optimiser step, in the first process only.

    (Lightning's CSV logger deletes the file of the run it resumes.)

    Args:
        run_log: Log to write to.
    """

    def __init__(self, run_log: RunLog) -> None:
        self.run_log = run_log
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the rows of steps that will be repeated."""
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
        """Write a row if a step was taken, but not within an accumulated gradient."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if trainer.is_global_zero:
            values = {
                name: float(value)
                for name, value in trainer.callback_metrics.items()
                if not name.startswith(MONITOR_PREFIX)  # these have a separate file
            }
            row = {"step": trainer.global_step, "epoch": trainer.current_epoch, **values}
            self.run_log.write(self.run_log.steps, row)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Flush the rows to disk before the checkpoint is saved."""
        if trainer.is_global_zero:
            self.run_log.sync()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Record why the run failed."""
        if trainer.is_global_zero and not isinstance(exception, Stopped):
            self.run_log.fail(exception, trainer.global_step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the loggers."""
        if trainer.is_global_zero:
            self.run_log.close()


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows of a file.

    Damaged and repeated rows are left out with a warning that names their lines: rows have a
    checksum, which those of version 0.1 lack. The incomplete last line of a killed run is left out
    without a word.
    """
    rows: list[dict[str, float]] = []
    damaged: list[int] = []
    seen: set[bytes] = set()
    data = path.read_bytes() if path.is_file() else b""
    for number, line in split_lines(data):
        row = None if line in seen else _read_row(line)
        seen.add(line)
        if row is not None:
            rows.append(row)
        else:
            damaged.append(number)
    if damaged and not data.endswith(b"\n"):
        cut = data.count(b"\n") + 1
        damaged = [number for number in damaged if number != cut]
    if damaged:
        shown = ", ".join(map(str, damaged[:_SHOWN])) + ", ..." * (len(damaged) > _SHOWN)
        notice(f"{path}: damaged and left out: line{'s' * (len(damaged) > 1)} {shown}")
    return rows


_SHOWN: Final = 5  # damaged lines


def _read_row(line: bytes) -> dict[str, float] | None:
    if line_is_whole(line + b"\n") is False:
        return None
    try:
        row = parse_json(line, nan=True)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    row.pop(CRC, None)
    return row if _is_row(row) else None


def _is_row(row: dict[str, object]) -> bool:
    return "step" in row and all(type(value) in (int, float) for value in row.values())


@contextlib.contextmanager
def _on_disk(file: Path) -> Iterator[None]:
    """Convert an OSError (full disk) into an error that states how to continue."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            "the log of the run cannot be written",
            found=error.strerror or error,
            where=file,
            remedy=f"{advice(error, 'free some space')}, and resume the run from its last "
            "checkpoint: --run.resume true",
        ) from error


class RowFile:
    """A growing table.

    Args:
        path: The file of JSON lines; the CSV file is in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.csv = path, path.with_suffix(".csv")
        self._columns: list[str] = []

    def begin(self, step: int) -> None:
        """Drop the rows after `step`, which will be repeated; all rows if it is 0."""
        if not self.path.is_file():
            return
        kept = [row for row in read_rows(self.path) if step > 0 and row["step"] <= step]
        with _on_disk(self.path):
            with replacing(self.path) as temporary:
                temporary.write_bytes(b"".join(map(sealed_line, kept)))
            self._rebuild(kept)

    def write(self, row: Row) -> None:
        """Append a row, which must have `step`."""
        with _on_disk(self.path):
            self._write(row)

    def _write(self, row: Row) -> None:
        with self.path.open("ab") as file:
            file.write(sealed_line(row))
        if set(row) <= set(self._columns):
            with self.csv.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._rebuild(read_rows(self.path))

    def sync(self) -> None:
        """Flush the rows to disk: the file must not lack steps of a saved checkpoint."""
        if self.path.is_file():
            with _on_disk(self.path), self.path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Do nothing: no file is open between two rows."""

    def _rebuild(self, rows: list[dict[str, float]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        with self.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
