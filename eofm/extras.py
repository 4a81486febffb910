"""The libraries of the extra `geo`, imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from eofm.errors import ConfigError


def geo_library(name: str, problem: str, where: object = None) -> ModuleType:
    """Return a library.

    Args:
        name: As it is imported.
        problem: What the error says, in one sentence: what needs it.
        where: What was to be read or written with it.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            problem, found=error, where=where, remedy='pip install "eofm[geo]"'
        ) from error
