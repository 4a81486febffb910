"""`eofm completion`: a script that completes verbs, options and their choices in a shell.

shtab writes it from the options of all verbs. It is written once and then read by the shell alone:
pressing Tab starts no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from eofm.cli.program import parser_of
from eofm.cli.verbs import VERBS, Verb
from eofm.errors import require
from eofm.settings import checked_settings

__all__ = ["SHELLS", "CompletionConfig", "CompletionScript", "program_of", "write_completion"]

SHELLS: Final = ("bash", "zsh", "fish")


@dataclass(frozen=True)
@checked_settings
class CompletionConfig:
    """Settings of `eofm completion`.

    Args:
        shell: The shell: bash, zsh or fish.

    Raises:
        ConfigError: If it is another shell.
    """

    shell: str = field(metadata={"positional": True})

    def __post_init__(self) -> None:
        require(self.shell in SHELLS, "shell", self.shell, ", ".join(SHELLS))


@dataclass(frozen=True)
class CompletionScript:
    """A script for a shell.

    Args:
        text: The script.
    """

    text: str

    def describe(self) -> str:
        """Return the script."""
        return self.text


def write_completion(config: CompletionConfig) -> CompletionScript:
    """Return the completion script of `eofm` for a shell."""
    import shtab

    return CompletionScript(shtab.complete(program_of(VERBS), config.shell))


def program_of(verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """Return the whole program as one plain parser, which shtab can read.

    Args:
        verbs: Command of a verb -> the verb.
    """
    program = argparse.ArgumentParser("eofm", add_help=False)
    program.add_argument("-h", "--help", action="store_true", help="all verbs")
    program.add_argument("-V", "--version", action="store_true", help="the version")
    words = program.add_subparsers(dest="verb")
    families: dict[str, Any] = {}
    for name, verb in verbs.items():
        first, *second = name.split()
        if second and first not in families:
            inner = words.add_parser(first, add_help=False, help=f"verbs of {first}")
            families[first] = inner.add_subparsers(dest="verb")
        place = families[first] if second else words
        parser = place.add_parser(name.split()[-1], add_help=False, help=verb.summary)
        for action in parser_of(name, verb, every=True)._actions:
            _add(parser, action)
    return program


def _add(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
    """Add an option of jsonargparse to a plain parser, with its choices if it has any."""
    import shtab

    text = None if action.help is None else action.help.replace("%", "%%")
    if action.nargs == 0:
        parser.add_argument(
            *action.option_strings, dest=action.dest, action="store_true", help=text
        )
        return
    kind = getattr(action, "_typehint", None)
    choices = _choices(kind)
    names = action.option_strings or [action.dest]
    added = parser.add_argument(*names, nargs=action.nargs, choices=choices or None, help=text)
    if not choices and not _is_number(kind):  # free text may be the name of a file
        added.complete = shtab.FILE  # type: ignore[attr-defined]


def _choices(kind: object) -> list[str]:
    """Return the values of a type; none where they cannot be listed.

    >>> _choices(Literal["a", "b"] | None), _choices(bool), _choices(int)
    (['a', 'b'], ['true', 'false'], [])
    """
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if get_origin(kind) in {Union, UnionType}:
        return [word for part in get_args(kind) for word in _choices(part)]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    return []


def _is_number(kind: object) -> bool:
    if get_origin(kind) in {Union, UnionType}:
        return any(_is_number(part) for part in get_args(kind))
    return isinstance(kind, type) and issubclass(kind, int | float)
