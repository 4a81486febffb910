"""The libraries of the extra `geo`, imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from eofm.errors import ConfigError


def library(name: str, purpose: str) -> ModuleType:
    """Return a library.

    Args:
        name: As it is imported.
        purpose: What needs it, in words: the beginning of the message.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{purpose} need a library that is not installed",
            found=error,
            remedy='pip install "eofm[geo]"',
        ) from error
