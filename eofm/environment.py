"""The runtime environment: libraries and their versions, devices, and processes that share them.

Libraries, including torch, are imported when they are used, because the wait policy of idle threads
must be set before torch is loaded.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import eofm
from eofm.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from distributed import Client

__all__ = [
    "WAIT_SETTINGS",
    "commit",
    "dask_client",
    "device_of",
    "end_with_parent",
    "end_with_starter",
    "geo_library",
    "optional_library",
    "versions_of",
    "wait_passively",
]


# ------------------------------------------------- libraries of the extras `geo`, `clip` and `dask`


def geo_library(name: str, problem: str, where: object = None) -> ModuleType:
    """Return a library of the extra `geo`: see `optional_library`."""
    return optional_library(name, "geo", problem, where)


def optional_library(name: str, extra: str, problem: str, where: object = None) -> ModuleType:
    """Return an optional library.

    Args:
        name: Import name.
        extra: Extra of eofm that installs it.
        problem: Message of the error, in one sentence, which states what needs the library.
        where: File to be read or written with it.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        install = f'pip install "eofm[{extra}]"'
        if not isinstance(error, ModuleNotFoundError):  # such as its C libraries
            problem = f"{name} is installed, but cannot be imported"
            install = (
                f"free memory; if that does not help, install it again: {install} --force-reinstall"
            )
        raise ConfigError(problem, found=error, where=where, remedy=install) from error


@contextmanager
def dask_client(scheduler: str) -> Iterator[Client]:
    """Connect to an existing Dask cluster.

    Args:
        scheduler: Address of its scheduler, as in tcp://host:8786.

    Raises:
        ConfigError: If Dask is not installed, or the scheduler does not answer.
        DataError: If the connection is lost, or workers were killed repeatedly.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise ConfigError(
            "Dask is not installed",
            found=error,
            remedy='pip install "eofm[dask]", or use --workers on this machine',
        ) from error
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the Dask scheduler does not answer",
            found=str(error) or type(error).__name__,
            expected="an address such as tcp://host:8786",
            where=scheduler,
        ) from error
    with client:
        try:
            yield client
        except KilledWorker as error:
            raise DataError(
                "workers of the Dask cluster were killed",
                found=error,
                where=scheduler,
                remedy="run again where workers have more memory: what is finished stays",
            ) from error


# ---------------------------------------------------------------------------------------- versions


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return versions by name; `unknown` of a library that is not installed.

    Args:
        names: Import names of libraries; `eofm` and `python` too.
    """
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    if name == "python":
        return sys.version.split()[0]
    # of eofm not the installed metadata: a plain clone on the path has none, or that of another
    # version; of torch's build (`+cu130`) they say nothing
    loaded = eofm if name == "eofm" else sys.modules.get(name)
    stated = getattr(loaded, "__version__", None)
    try:
        return str(stated or version(name))
    except PackageNotFoundError:
        return "unknown"


def commit() -> str:
    """Return the commit of eofm, `-dirty` if it has changes; empty outside a checkout.

    For a package installed inside another repository, that repository's commit is not reported.
    """
    package = Path(str(eofm.__file__)).parent
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


# ------------------------------------------------------------------------------------------ devices

_USE_THE_CPU: Final = 'use the CPU: --device cpu, or in Python device="cpu" and .to("cpu")'


def device_of(name: torch.device | str | int) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:1` on this machine.

    Args:
        name: Name of the device, a torch device, or the number of a GPU.

    Raises:
        ConfigError: If the name is invalid, or the device does not exist.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{name}" if isinstance(name, int) else name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            "this is not the name of a device",
            found=name,
            expected="auto, cpu, cuda, or one of several GPUs, as cuda:1",
            remedy=_USE_THE_CPU,
        ) from error
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("there is no GPU here", found=str(device), remedy=_USE_THE_CPU)
    if device.type != "cuda":
        return device
    if device.index is None and not torch.cuda.is_available():
        raise ConfigError("there is no GPU here", found=str(device), remedy=_USE_THE_CPU)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise ConfigError(
            "there is no such GPU here",
            found=str(device),
            expected=f"one of {torch.cuda.device_count()}, counted from 0",
            remedy=_USE_THE_CPU,
        )
    return device


# --------------------------- processes: workers end with their parent, and idle threads do not spin

# Variables by which a user sets the wait policy of OpenMP (GNU's, and Intel's and LLVM's).
WAIT_SETTINGS: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")

_LOOK_S: Final = 0.5


def wait_passively(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP threads sleep while they wait, unless the user has set a wait policy.

    By default they spin. If other processes use the cores, each parallel loop then waits for
    spinning threads that do no work. With two other processes on two cores, training ran at 2
    scenes/s, and at 30 with sleeping threads. It takes effect only before torch is loaded; child
    processes inherit it.

    Args:
        environ: The environment to set it in.
    """
    if not any(name in environ for name in WAIT_SETTINGS):
        environ["OMP_WAIT_POLICY"] = "PASSIVE"


def end_with_parent() -> None:
    """End a worker when its parent is killed; it would otherwise wait and keep its memory.

    Ctrl-C reaches all processes of a terminal; the parent handles it and ends its workers. Call it
    at the start of a pool worker; it has no effect in other processes.
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
    """End this process when the process that started it is killed, or has been killed before.

    Otherwise it may wait up to an hour for a connection that is never made. (Windows does not
    report the end of a parent; there it waits.)

    Args:
        pid: Process id of the starting process.
    """

    def watch() -> None:
        while os.getppid() == pid:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="eofm-starter").start()
