"""What a verb of the command line is: text alone, so that `eofm --help` answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

__all__ = ["Outcome", "Verb", "Verdict"]


class Outcome(Protocol):
    """What a verb returns to its caller, from the command line or from Python."""

    def describe(self) -> str:
        """Return what the command prints on stdout."""


@runtime_checkable
class Verdict(Protocol):
    """An outcome that can be a refusal: what was looked at is not in order."""

    @property
    def status(self) -> int:
        """Exit status: 0 in order, 1 not."""


@dataclass(frozen=True)
class Verb:
    """One command.

    Args:
        summary: One line for `eofm --help`.
        settings: `module:Dataclass` of its options.
        action: `module:function` that takes the dataclass and returns an `Outcome`.
        examples: Lines for the verb's own help.
        common: Options that `--help` shows, where there are many; `--help-all` shows the rest.
        defaults: `module:function` that takes the words of the command line and returns defaults,
            by option, other than those of the dataclass.
        spelled: Word of the command line, as other programs spell it -> the option it stands for.
    """

    summary: str
    settings: str
    action: str
    examples: tuple[str, ...]
    common: tuple[str, ...] = ()
    defaults: str | None = None
    spelled: Mapping[str, str] = field(default_factory=dict)
