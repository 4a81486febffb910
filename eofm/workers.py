"""Processes that share a machine: workers end with their parent, and idle threads do not spin.

Standard library only: the second has to happen before torch is loaded.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import MutableMapping
from multiprocessing.connection import wait
from typing import Final

# What a user sets who has chosen how threads of OpenMP wait (GNU's, and Intel's and LLVM's).
WAIT_SETTINGS: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")

_LOOK_S: Final = 0.5


def wait_passively(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of OpenMP sleep while they wait, unless the user has said how they wait.

    By default they spin: where other processes have the cores, each parallel loop then waits for
    spinning threads that do no work. With two other processes on two cores, training ran at 2
    scenes/s, and at 30 with sleeping threads. Takes effect if it comes before torch is loaded;
    child processes inherit it.

    Args:
        environ: The environment to set it in.
    """
    if not any(name in environ for name in WAIT_SETTINGS):
        environ["OMP_WAIT_POLICY"] = "PASSIVE"


def end_with_parent() -> None:
    """Let a worker end when its parent is killed: it would wait for work, and keep its memory.

    Ctrl-C reaches all processes of a terminal; the parent hears it, and ends its workers. For the
    start of a worker of a pool; does nothing in a process that is no worker.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_with_starter(pid: int) -> None:
    """Let a process end when the one that started it is killed, also if that was long ago.

    It may wait for a meeting that nobody comes to, for an hour. (Windows does not tell: there it
    waits.)

    Args:
        pid: Of the process that started it.
    """

    def watch() -> None:
        while os.getppid() == pid:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="eofm-starter").start()
