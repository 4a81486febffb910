"""From the words of a command to the settings of its verb, or one error of usage."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from eofm.cli.options import parser_of
from eofm.cli.verb import load
from eofm.cli.verbs import VERBS

__all__ = ["UsageError", "joined", "parse"]


class UsageError(Exception):
    """A wrong option, key or type on the command line or in a YAML file.

    Args:
        problem: The parser's words.
        known: All keys the verb knows, for a suggestion.
    """

    def __init__(self, problem: str, known: Sequence[str]) -> None:
        unknown = re.search(
            r"(?:Group '(\S+)' does not accept option|does not accept option|"
            r"unrecognized arguments:) '?(?:--)?([\w.]+)",
            problem,
        )
        if unknown:
            key = ".".join(part for part in unknown.groups() if part)
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            problem += f"\n  did you mean: --{near[0]}" if near else ""
        super().__init__(problem)


def parse(name: str, words: Sequence[str]) -> object:
    """Return the settings of verb `name` from its command-line words.

    Raises:
        UsageError: On a wrong option, key or type.
        SystemExit: On --help and --print_config, with status 0.
        ConfigError: If settings are well formed but out of range.
    """
    from jsonargparse import ArgumentError

    verb = VERBS[name]
    settings = load(verb.settings)
    defaults = load(verb.defaults)(words) if verb.defaults is not None else None
    # what is hidden is left out of --print_config as well
    parser = parser_of(name, verb, defaults, every=not {"-h", "--help"} & set(words))
    try:
        parsed = parser.instantiate(parser.parse_args(joined(words, settings)))
    except ArgumentError as error:
        known = [key for key, _ in parser.get_defaults().items()]
        raise UsageError(str(error.message), known) from error
    return settings(**{f.name: parsed[f.name] for f in fields(settings)})


_LISTS: Final = ("list[str]", "list[str] | None")


def joined(words: Sequence[str], settings: type) -> list[str]:
    """Return the words of a command with those of each list put into one.

    A list may be given as words, `--bands B02 B03`, with commas, `--bands B02,B03`, or as YAML,
    `--bands [B02,B03]`. Where the verb takes words of its own after its options, as many as it
    needs are left to it.

    Args:
        words: After the verb.
        settings: The verb's settings; fields of `list[str]` are lists, and so are those whose
            metadata say `list`, which hold words with commas.
    """
    lists = {f"--{f.name}" for f in fields(settings) if f.type in _LISTS}
    texts = {f"--{f.name}" for f in fields(settings) if f.metadata.get("list")}
    own = sum(1 for f in fields(settings) if f.metadata.get("positional"))
    out: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word not in lists | texts:
            out.append(word)
            own -= not word.startswith("-") and not (at > 1 and words[at - 2].startswith("--"))
            continue
        end = next((i for i in range(at, len(words)) if words[i].startswith("--")), len(words))
        given = list(words[at:end])
        rest = (
            given[len(given) - own :] if own > 0 and end == len(words) and own < len(given) else []
        )
        given = given[: len(given) - len(rest)]
        at = end
        text = ",".join(part.strip("[]") for part in given)
        out += [word, f"[{text}]" if word in lists else text, *rest]
    return out
