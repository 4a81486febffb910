"""The libraries of the extras `geo`, `clip` and `dask`, imported when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from eofm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from distributed import Client


def geo_library(name: str, problem: str, where: object = None) -> ModuleType:
    """Return a library of the extra `geo`: see `optional_library`."""
    return optional_library(name, "geo", problem, where)


def optional_library(name: str, extra: str, problem: str, where: object = None) -> ModuleType:
    """Return a library.

    Args:
        name: As it is imported.
        extra: Of eofm, which installs it.
        problem: What the error says, in one sentence: what needs it.
        where: What was to be read or written with it.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            problem, found=error, where=where, remedy=f'pip install "eofm[{extra}]"'
        ) from error


@contextmanager
def dask_client(scheduler: str) -> Iterator[Client]:
    """Connect to a Dask cluster that is there already.

    Args:
        scheduler: Its address, as in tcp://host:8786.

    Raises:
        ConfigError: If Dask is not installed, or the scheduler does not answer.
        DataError: If the cluster is lost, or a worker was killed again and again.
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
