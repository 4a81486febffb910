"""From the words of a command to the settings of its verb, or one error of usage.

jsonargparse makes the options, the YAML reader and the help from the dataclass of the settings.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

from eofm.cli.verb import Verb
from eofm.cli.verbs import VERBS
from eofm.formats.settings import check_settings_files

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["UsageError", "joined", "load", "parse", "parser_of"]


def load(reference: str) -> Any:  # noqa: ANN401 (a class or a function, by name)
    """Return what `module:name` names; its module is imported now."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


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
    check_settings_files(words)
    words = [verb.spelled.get(word, word) for word in words]
    settings = load(verb.settings)
    defaults = load(verb.defaults)(words) if verb.defaults is not None else None
    # what is hidden is left out of --print_config as well
    parser = parser_of(name, verb, defaults, every=not {"-h", "--help"} & set(words))
    known = [key for key, _ in parser.get_defaults().items()]
    try:
        read = parser.parse_args(joined(words, settings))
        empty = _without_value(settings, read)
        if empty:
            raise UsageError(f"no value is given for {', '.join(empty)}", known)
        parsed = parser.instantiate(read)
    except ArgumentError as error:
        raise UsageError(str(error.message), known) from error
    return settings(**{f.name: parsed[f.name] for f in fields(settings)})


def _without_value(settings: type[Any], read: Any, group: str = "") -> list[str]:  # noqa: ANN401
    """Return the keys that hold nothing (`folds:` in a YAML file) and have to hold something.

    The parser takes nothing for a value of any type.
    """
    found, hints = [], get_type_hints(settings)
    for name in (each.name for each in fields(settings)):
        kind, value = hints[name], read[name]
        if is_dataclass(kind) and isinstance(kind, type) and value is not None:
            found += _without_value(kind, value, f"{group}{name}.")
        elif value is None and type(None) not in get_args(kind):
            found.append(f"{group}{name}")
    return found


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


def parser_of(
    name: str,
    verb: Verb,
    defaults: Mapping[str, object] | None = None,
    every: bool = False,
) -> ArgumentParser:
    """Return the parser of a verb's options.

    Args:
        name: Words that call the verb, after `eofm`.
        verb: The verb.
        defaults: Option -> default, where it is not that of the dataclass.
        every: Whether help and YAML show all options, not only the common ones.
    """
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):
        """Keep the line breaks of the examples."""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "\n".join(indent + line for line in text.splitlines())

    settings = load(verb.settings)
    positional = [f.name for f in fields(settings) if f.metadata.get("positional")]
    examples = "\n".join(f"  {line}" for line in verb.examples)
    parser = ArgumentParser(
        prog=f"eofm {name}",
        usage=" ".join([f"eofm {name}", *(f.upper() for f in positional), "[options]"]),
        description=f"{verb.summary}\n\nexamples:\n{examples}",
        formatter_class=Formatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of settings; later options override it."
    )
    if verb.common:
        parser.add_argument(
            "--help-all", action="help", help="Show all options, not only the common ones."
        )
    _add_options(parser, settings, positional)
    parser.set_defaults(dict(defaults or {}))
    if verb.common and not every:
        _hide(parser, verb.common)
    return parser


def _add_options(parser: ArgumentParser, settings: type[Any], positional: Sequence[str]) -> None:
    several = [f.name for f in fields(settings) if f.metadata.get("positional") == "+"]
    flags = [f.name for f in fields(settings) if f.metadata.get("flag")]
    _register_enums(settings)
    parser.add_class_arguments(settings, skip={*positional, *flags})
    _show_values(parser)
    for field_name in positional:
        many = field_name in several
        parser.add_argument(
            field_name,
            type=str,
            nargs="+" if many else None,
            help=_help(settings, field_name),
        )
    for field_name in flags:
        parser.add_argument(
            f"--{field_name}", action="store_true", help=_help(settings, field_name)
        )


def _hide(parser: ArgumentParser, common: Sequence[str]) -> None:
    """Leave all options out of the help but the common ones and those of the parser itself."""
    from jsonargparse import SUPPRESS

    shown = {"help", "help_all", "config", "print_config", *common}
    for action in parser._actions:
        if action.dest not in shown:
            action.help = SUPPRESS


def _register_enums(settings: type) -> None:
    """Let members of enumerations be named by their value, as YAML and Python have them."""
    from jsonargparse.typing import register_type

    for hint in get_type_hints(settings).values():
        for kind in get_args(hint) or (hint,):
            if not isinstance(kind, type):
                continue
            if is_dataclass(kind):
                _register_enums(kind)
            elif issubclass(kind, StrEnum):
                register_type(kind, str, partial(_choose, kind), fail_already_registered=False)


def _choose(kind: type[StrEnum], value: object) -> StrEnum:
    known = {member.value: member for member in kind}
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return known[str(value)]


def _show_values(parser: Any) -> None:  # noqa: ANN401 (jsonargparse is loaded when it is used)
    """Put the values of enumerations where jsonargparse has the names of their members."""
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        kinds = get_args(hint) or (hint,)  # an enumeration, or one and a text of one's own
        more = ",TEXT" if str in kinds else ""
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, StrEnum):
                action.metavar = "{" + ",".join(kind) + more + "}"
                action.default = kind.__members__.get(action.default, action.default).value


def _help(settings: type, name: str) -> str:
    """Return what the docstring of a settings class says of a field."""
    from docstring_parser import parse as parse_docstring

    documented = {p.arg_name: p.description for p in parse_docstring(settings.__doc__ or "").params}
    return (documented.get(name) or "").replace("\n", " ")
