"""The options of a verb: jsonargparse makes them, the YAML reader and the help from a dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from eofm.cli.verb import Verb, load

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["parser_of"]


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

    for kind in get_type_hints(settings).values():
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
        kind = getattr(action, "_typehint", None)
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            action.metavar = "{" + ",".join(kind) + "}"
            action.default = kind[action.default].value


def _help(settings: type, name: str) -> str:
    """Return what the docstring of a settings class says of a field."""
    from docstring_parser import parse as parse_docstring

    documented = {p.arg_name: p.description for p in parse_docstring(settings.__doc__ or "").params}
    return (documented.get(name) or "").replace("\n", " ")
