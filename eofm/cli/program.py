"""The program `eofm`: parse arguments into settings, call the verb, return an exit status.

Arguments become settings or one usage error: jsonargparse derives the options, the YAML reader and
the help from the dataclass of the settings. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

from eofm import __version__
from eofm.cli.verbs import GROUPS, VERBS, Outcome, Verb, Verdict
from eofm.datasets.registry import FAMILIES, family_of, options_of
from eofm.environment import wait_passively
from eofm.errors import EofmError
from eofm.formats.text import check_settings_files
from eofm.report.tables import aligned
from eofm.terminal import guarded

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["UsageError", "find_verb", "joined", "load", "main", "overview", "parse", "parser_of"]


# ----------------------------------------------------------------------- from arguments to settings


def load(reference: str) -> Any:  # noqa: ANN401 (a class or a function, by name)
    """Return what `module:name` names; its module is imported now."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


class UsageError(Exception):
    """A wrong option, key or type on the command line or in a YAML file.

    Args:
        problem: Message of the parser.
        known: All keys the verb knows, for a suggestion.
    """

    def __init__(self, problem: str, known: Sequence[str]) -> None:
        unknown = re.search(
            r"(?:Group '(\S+)' does not accept option '?|does not accept option '?|"
            r"unrecognized arguments: '?--)([\w.-]+)",
            problem,
        )
        problem = _plain(problem, known)
        if unknown:
            key = ".".join(part for part in unknown.groups() if part)
            near = _nearest(key, known)
            problem += f"\n  did you mean: --{near}" if near else ""
        super().__init__(problem)


def _nearest(key: str, known: Sequence[str]) -> str | None:
    """Return the option closest to a word, by its whole name or by its last part."""
    own = key.rpartition(".")[2]
    likeness = {
        name: max(
            difflib.SequenceMatcher(None, key, name).ratio(),
            difflib.SequenceMatcher(None, own, name.rpartition(".")[2]).ratio(),
        )
        for name in known
    }
    best = max(likeness, key=lambda name: likeness[name], default=None)
    return best if best is not None and likeness[best] >= 0.5 else None


_TYPES: Final = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "list[str]": "a list of words",
    "<class 'list'>": "a list of words",
}


def _plain(problem: str, known: Sequence[str]) -> str:
    """Return the message of jsonargparse about a value in plain English, where possible."""
    key = re.match(r'Parser key "([\w.]+)":', problem)
    if key is None:
        return problem
    if "Unable to load config" in problem:
        inside = [name for name in known if name.startswith(f"{key[1]}.")]
        if inside:
            return (
                f"--{key[1]} is a group of settings\n  name one of them, as in: --{inside[0]} VALUE"
            )
    value = re.search(r"(?:Given value|Got value): (.*)", problem)
    kinds = re.search(r"Subtypes: [\[(](.*)[\])]\n", problem) or re.search(
        r"Expected a (.*?)\. Got value", problem
    )
    if value is None or kinds is None:
        return problem
    parts = re.findall(r"typing\.Literal\[[^\]]*\]|<class '[\w.]+'>|list\[\w+\]", kinds[1])
    words = []
    for part in parts:
        if part.startswith("typing.Literal"):
            words.append("one of " + ", ".join(re.findall(r"'([^']*)'", part)))
        elif part != "<class 'NoneType'>":
            words.append(_TYPES.get(part, ""))
    if not words or not all(words):
        return problem
    return f"--{key[1]} takes {' or '.join(words)}, and not {value[1]!r}"


def parse(name: str, words: Sequence[str]) -> object:
    """Return the settings of verb `name` from its command-line arguments.

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
    # hidden options do not appear in --print_config either
    parser = parser_of(name, verb, defaults, every=not {"-h", "--help"} & set(words))
    try:
        read = parser.parse_args(joined(words, settings))
        empty = _without_value(settings, read)
        if empty:
            raise UsageError(f"no value is given for {', '.join(empty)}", _known(parser))
        parsed = parser.instantiate(read)
    except ArgumentError as error:
        positional = {f.name for f in fields(settings) if f.metadata.get("positional")}
        raise UsageError(_required(str(error.message), positional), _known(parser)) from error
    return settings(**{f.name: parsed[f.name] for f in fields(settings)})


def _known(parser: ArgumentParser) -> list[str]:
    return [key for key, _ in parser.get_defaults().items()]


def _required(problem: str, positional: set[str]) -> str:
    """Return missing arguments as they are typed: options with dashes, others in capitals."""
    head, found, names = problem.partition("the following arguments are required: ")
    if not found:
        return problem
    typed = [n.upper() if n in positional else f"--{n}" for n in names.split(", ")]
    return f"{head}{found}{', '.join(typed)}"


def _without_value(settings: type[Any], read: Any, group: str = "") -> list[str]:  # noqa: ANN401
    """Return the keys without a value (`folds:` in a YAML file) that need one.

    The parser accepts an empty value for any type.
    """
    found, kinds = [], get_type_hints(settings)
    for name in (field.name for field in fields(settings) if field.init):
        kind, value = kinds[name], read[name]
        if is_dataclass(kind) and isinstance(kind, type) and value is not None:
            found += _without_value(kind, value, f"{group}{name}.")
        elif value is None and type(None) not in get_args(kind):
            found.append(f"{group}{name}")
    return found


_LISTS: Final = ("list[str]", "list[str] | None")


_NUMBERS: Final = re.compile(r"[-+.\d][-+.,\deE]*")


def joined(words: Sequence[str], settings: type) -> list[str]:
    """Return the arguments of a command, with those of each list joined into one.

    A list may be given as separate arguments (`--bands B02 B03`), with commas (`--bands B02,B03`)
    or as YAML (`--bands [B02,B03]`), also after a `=`. If the verb has positional arguments, the
    words that it needs at the end are left to it. Coordinates are lists of numbers and may begin
    with a minus: words after such an option are its values as long as they are numbers.

    Args:
        words: Arguments after the verb.
        settings: The verb's settings; fields of `list[str]` are lists, and so are those whose
            metadata say `list`, which hold words with commas, or `numbers`.
    """
    lists = {f"--{f.name}" for f in fields(settings) if f.type in _LISTS}
    texts = {f"--{f.name}" for f in fields(settings) if f.metadata.get("list")}
    places = {f"--{f.name}" for f in fields(settings) if f.metadata.get("numbers")}
    own = sum(1 for f in fields(settings) if f.metadata.get("positional"))
    out: list[str] = []
    at = 0
    while at < len(words):
        word, sign, behind = words[at].partition("=")
        at += 1
        if sign and word in lists:
            out += [word, f"[{behind.strip('[]')}]"]
            continue
        word = words[at - 1]
        if word in places and at < len(words) and not words[at].startswith("--"):
            end = at + 1
            if _NUMBERS.fullmatch(words[at]):
                others = (i for i in range(at, len(words)) if not _NUMBERS.fullmatch(words[i]))
                end = next(others, len(words))
            value = ",".join(part.strip(",") for part in words[at:end])
            out.append(f"{word}={value}")
            at = end
            continue
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
        name: Name of the verb, as typed after `eofm`.
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
        kinds = get_args(hint) or (hint,)  # an enumeration, or an enumeration and free text
        more = ",TEXT" if str in kinds else ""
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, StrEnum):
                action.metavar = "{" + ",".join(kind) + more + "}"
                action.default = kind.__members__.get(action.default, action.default).value


def _help(settings: type, name: str) -> str:
    """Return the description of a field in the docstring of its settings class."""
    from docstring_parser import parse as parse_docstring

    documented = {p.arg_name: p.description for p in parse_docstring(settings.__doc__ or "").params}
    return (documented.get(name) or "").replace("\n", " ")


# ----------------------------------------------------------------------------------- running a verb


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
        "`eofm VERB --help` lists its options with examples. Every option can also be set in a",
        "YAML file: `--config FILE`. Options and files take effect in the order they are given.",
        "Separate list values by spaces or commas: `--bands B02 B03` or `--bands B02,B03`.",
        "`eofm VERB ... --print_config` prints the settings without running.",
    ]
    return "\n".join(lines)


# Names of these verbs in other programs, and likely guesses.
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
    """Return the verb of a command and the remaining arguments; None if it is an error.

    The error has been printed then.
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
