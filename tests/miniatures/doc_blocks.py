"""Run the blocks of a page of Markdown as a reader would: in order, in one folder.

`eofm` lines of shell blocks are run by the program itself, in this process, with the names that a
`*` stands for; Python blocks share one
namespace. What makes a test small stands in a table of stand-ins, and what cannot be run in a test
in a table of reasons: both are written beside the test, never in the page.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eofm.cli import main

_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        language: As the fence says.
        code: Its text.
        line: Of the page, where it begins.
    """

    language: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page of Markdown that name a language."""
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(text)
    ]


def commands(code: str) -> list[str]:
    """Return the commands of a shell block; a backslash joins lines, comments are left out."""
    whole = re.sub(r"\\\n\s*", "", code)
    lines = (line.strip() for line in whole.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@dataclass(frozen=True)
class Reader:
    """Somebody who types what a page says.

    Args:
        stand_ins: (start of a command, what is put for it or appended to it): where the second
            begins with `+`, the words after it are appended, else they take the place of the start.
        words: Word -> word that stands for it in every command and every block of Python.
        not_run: Start of a command -> why it is not run.
        status: Start of a command -> exit status, where it is not 0.
    """

    stand_ins: Sequence[tuple[str, str]] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, int] = field(default_factory=dict)

    def read(self, page: Path) -> list[str]:
        """Run every block of a page; return what was run, and what was not with the reason."""
        done: list[str] = []
        names: dict[str, object] = {"__name__": "__page__"}
        for block in blocks(page.read_text("utf-8")):
            if block.language in {"bash", "sh", "console"}:
                done += [self._command(line, block, page) for line in commands(block.code)]
            elif block.language == "python":
                # lines of padding: a traceback then names the line of the page
                code = "\n" * block.line + self._worded(block.code)
                exec(compile(code, str(page), "exec"), names)
                done.append(f"{page.name}:{block.line}: python")
        return done

    def _command(self, line: str, block: Block, page: Path) -> str:
        for start, reason in self.not_run.items():
            if line.startswith(start):
                return f"{page.name}:{block.line}: not run ({reason}): {line}"
        typed = line
        for start, put in self.stand_ins:
            if typed.startswith(start):
                more = put.startswith("+")
                typed = f"{typed} {put[1:]}" if more else put + typed[len(start) :]
                break
        words = [
            one
            for word in shlex.split(self._worded(typed), comments=True)
            for one in (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]
        ]
        assert words[0] == "eofm", f"{page}:{block.line}: who runs {line!r}?"
        expected = next((s for start, s in self.status.items() if line.startswith(start)), 0)
        found = main(words[1:])
        assert expected == found, f"{page}:{block.line}: exit status {found} of {line}"
        return f"{page.name}:{block.line}: {typed}"

    def _worded(self, text: str) -> str:
        for word, put in self.words.items():
            text = text.replace(word, put)
        return text
