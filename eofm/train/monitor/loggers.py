"""TensorBoard and Weights & Biases, for those who have them: the same numbers as in the files."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from eofm.errors import ConfigError

# A row of numbers by name, with `step`.
Row = Mapping[str, float]

NOT_A_VALUE: Final = frozenset({"step", "epoch"})


class Writer(Protocol):
    """Something that takes rows of numbers."""

    def begin(self, step: int) -> None:
        """Forget the rows after `step`; all rows if it is 0."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def sync(self) -> None:
        """Make what was taken safe."""

    def close(self) -> None:
        """No row will come."""


class TensorBoard:
    """Event files in a folder of their own.

    Args:
        folder: Made with the first row.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make = SummaryWriter
        self._folder = folder
        self._purge: int | None = None
        self._writer: SummaryWriter | None = None

    def begin(self, step: int) -> None:
        """Let the viewer hide steps that will be taken again."""
        self._purge = step + 1 if step else None

    def write(self, row: Row) -> None:
        """Take one row."""
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
        folder: Of the run; its name is the run's name, and its path the run's identity, so that
            a resumed run continues the same plot.
        settings: All settings, to be searched for.
    """

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        self._folder, self._settings = folder, settings
        self._run: _WandbRun | None = None
        self._step = 0

    def begin(self, step: int) -> None:
        """Start or resume the run; it takes no step twice."""
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
        """Take one row."""
        if self._run is not None:
            self._run.log(dict(row), step=int(row["step"]))

    def sync(self) -> None:
        """It syncs by itself."""

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()


class _WandbRun(Protocol):
    def log(self, data: dict[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


def check_installed(names: tuple[str, ...]) -> None:
    """Refuse loggers whose library is not here.

    Args:
        names: Of `eofm.train.config.LOGGERS`.

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
    """Return the loggers asked for.

    Args:
        names: Of `eofm.train.config.LOGGERS`.
        folder: Of the run.
        settings: All settings.

    Raises:
        ConfigError: If the library of one is not installed.
    """
    check_installed(names)
    made: dict[str, Writer] = {}
    if "tensorboard" in names:
        made["tensorboard"] = TensorBoard(folder / "tensorboard")
    if "wandb" in names:
        made["wandb"] = WandB(folder, settings)
    return [made[name] for name in names]
