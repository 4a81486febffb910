"""Files of settings: written by runs, named by command lines, and looked at before they are read.

The parser of the command line follows aliases without end, reads devices, and speaks of what is
wrong in words of its own.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eofm.errors import ConfigError
from eofm.formats.foreign import foreign
from eofm.formats.text import read_yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_OPTION: Final = "--config"


def settings_text(config: DataclassInstance) -> str:
    """Return settings as YAML that `--config` reads.

    Args:
        config: Settings of a verb: plain values, enumerations, lists and groups of these.
    """
    import yaml

    plain = json.loads(json.dumps(asdict(config)))  # enumerations become their values
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return text


def settings_files(words: Sequence[str]) -> list[str]:
    """Return the files of settings that a command names.

    >>> settings_files(["--config", "a.yaml", "--out", "b", "--config=c.yaml"])
    ['c.yaml', 'a.yaml']
    """
    start = f"{_OPTION}="
    joined = [word.removeprefix(start) for word in words if word.startswith(start)]
    return joined + [words[i + 1] for i, word in enumerate(words[:-1]) if word == _OPTION]


def check_settings_files(words: Sequence[str]) -> None:
    """Refuse files of settings that no parser should be given.

    What a shell hands on as a pipe, `--config <(...)`, can be read once only, and passes.

    Raises:
        ConfigError: If one is a device, is not UTF-8 or no YAML, is too large, or has aliases
            without end.
    """
    for name in settings_files(words):
        file = Path(name)
        with foreign(ConfigError, "the settings cannot be read", where=name):
            if not file.exists() or stat.S_ISFIFO(file.stat().st_mode):
                continue  # the parser says so, with the options that there are
        read_yaml(file, ConfigError, "the settings cannot be read")
