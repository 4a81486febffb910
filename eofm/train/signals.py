"""Being asked to stop: Ctrl-C, SIGTERM, or SLURM's warning that the time is nearly up.

A signal is only recorded. All processes exchange it when a step is done, save, and end;
nothing is ever saved from within a signal handler, in the middle of a step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Final


class Stopped(Exception):  # noqa: N818 (no error: it was asked for)
    """The run has been asked to stop; a checkpoint has been saved.

    Args:
        signum: The signal that asked.
        step: Optimizer steps done.
    """

    def __init__(self, signum: int, step: int) -> None:
        self.signum, self.step = signum, step
        super().__init__(signum, step)


# SLURM sends it where a job says `#SBATCH --signal=USR1@300`: 300 s before the end.
WARNING: Final = None if sys.platform == "win32" else signal.SIGUSR1


class StopRequests:
    """Records which signal has asked this process to stop.

    Args:
        environ: Says whether this is a job of SLURM, which alone may warn by SIGUSR1.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.asked = 0
        self._signals = [signal.SIGINT, signal.SIGTERM]
        if WARNING is not None and "SLURM_JOB_ID" in environ:
            self._signals.append(WARNING)
        self._before: dict[int, object] = {}

    def listen(self) -> None:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            for signum in self._signals:
                self._before[signum] = signal.signal(signum, self._record)

    def _record(self, signum: int, _: FrameType | None) -> None:
        self.asked = signum

    def forget(self) -> None:
        """Give the signals back."""
        while self._before:
            signum, before = self._before.popitem()
            signal.signal(signum, before)  # type: ignore[arg-type]


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back what this process did on each signal, however training ends.

    Lightning and `StopRequests` replace handlers one after the other and do not put them back in
    the reverse order: SIGTERM would be recorded, and ignored, by a Python process that has trained.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            # None is a handler that was not installed from Python
            if handler is not None and signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)


def requeue(environ: Mapping[str, str] = os.environ) -> str:
    """Put the job of SLURM back into the queue; return what happened, in words."""
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
