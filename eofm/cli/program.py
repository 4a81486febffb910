"""The program `eofm`. Exit status: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from eofm import __version__
from eofm.cli.parsing import UsageError, load, parse
from eofm.cli.verb import Outcome, Verb, Verdict
from eofm.cli.verbs import GROUPS, VERBS
from eofm.datasets.registry import FAMILIES, family_of, options_of
from eofm.errors import EofmError
from eofm.report.tables import aligned
from eofm.terminal import guarded
from eofm.workers import wait_passively

__all__ = ["find_verb", "main", "overview"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    wait_passively()  # before a verb loads torch
    return guarded(words, lambda: _main(words))


def _main(words: Sequence[str]) -> int:
    if words[:1] == ["help"] and len(words) > 1:
        words = [*words[1:], "--help"]
    if not words or words[0] in {"-h", "--help", "help"}:
        print(overview())
        return 0
    if words[0] in {"-V", "--version", "version"}:
        print(f"eofm {__version__}")
        return 0
    name, rest = find_verb(words)
    if name is None:
        asked = len(words) == 2 and words[1] in {"-h", "--help"}
        return 0 if asked and words[0] in {verb.split()[0] for verb in VERBS} else 2
    try:
        return _run(name, VERBS[name], rest)
    except UsageError as error:
        print(f"eofm {name}: error: {error}\n  remedy:   eofm {name} --help", file=sys.stderr)
        return 2
    except EofmError as error:
        print(f"eofm {name}: error: {error}", file=sys.stderr)
        return 1


def _run(name: str, verb: Verb, words: Sequence[str]) -> int:
    settings = parse(name, words)
    action: Callable[[Any], Outcome] = load(verb.action)
    outcome = action(settings)
    print(aligned(outcome.describe()))
    return outcome.status if isinstance(outcome, Verdict) else 0


def overview() -> str:
    """Return the text of `eofm --help`."""
    width = max(map(len, VERBS))
    lines = [
        f"eofm {__version__}: pretrain, benchmark and use satellite encoders",
        "",
        "usage: eofm VERB [options]",
    ]
    for title, verbs in GROUPS.items():
        lines += ["", title, *(f"  {name:{width}}  {verb.summary}" for name, verb in verbs.items())]
    lines += [
        "",
        "`eofm VERB --help` lists a verb's options with examples. Every option can also stand in a",
        "YAML file: `--config FILE`. Options and files take effect in the order they are given.",
        "Lists are words: `--bands B02 B03`, or with commas between them: `--bands B02,B03`.",
        "`eofm VERB ... --print_config` prints the settings without running.",
    ]
    return "\n".join(lines)


# What other programs, and people who guess, call our verbs.
_ELSEWHERE: Final = {
    "models show": "models info",
    "models get": "models download",
    "train": "pretrain",
    "fit": "pretrain",
    "predict": "embed",
    "classify": "map",
    "test": "bench folder",
    "evaluate": "bench folder",
    "data info": "data show",
    "pack folder": "pack tiles",
}


def find_verb(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the verb that a command names and the words after it; None if it is an error.

    What is wrong has been printed then.
    """
    if len(words) > 1 and words[0] == "bench":
        words = _full_words(words)
        if not words:
            return None, []
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in VERBS:
            return name, list(words[length:])
    siblings = [name for name in VERBS if name.split()[0] == words[0]]
    if siblings and (len(words) == 1 or words[1] in {"-h", "--help"}):
        width = max(map(len, siblings))
        print("\n".join(f"eofm {name:{width}}  {VERBS[name].summary}" for name in siblings))
        return None, []
    typed = " ".join(word for word in words[:2] if not word.startswith("-")) or words[0]
    near = [_ELSEWHERE[typed]] if typed in _ELSEWHERE else []
    near = near or difflib.get_close_matches(typed, list(VERBS), n=1, cutoff=0.4)
    print(
        f"eofm: error: there is no verb {typed!r}"
        + (f"; did you mean 'eofm {near[0]}'?" if near else "")
        + f"\n  verbs: {', '.join(VERBS)}",
        file=sys.stderr,
    )
    return None, []


def _full_words(words: Sequence[str]) -> Sequence[str]:
    """Return the words, the full name of a task as family and options; none if it is an error."""
    task, rest = words[1], words[2:]
    if task == "ablate":
        family = rest[0] if rest and rest[0] in FAMILIES else "eurosat"
        print(
            "eofm: error: `eofm bench ablate` is now two options of every task of whole images\n"
            f"  remedy:   eofm bench {family} --root DIR --model MODEL --probe knn "
            "--size 32,64,128 --normalization auto\n"
            f"  remedy:   of its YAML file without `figure`: eofm bench {family} --config FILE; "
            "the figure: eofm bench plot RESULTS --nonstandard true",
            file=sys.stderr,
        )
        return []
    options = None if task in FAMILIES else options_of(task)
    if options is None:
        return words
    named = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["bench", family_of(task), *named, *rest]
