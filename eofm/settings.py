"""Type checks of settings that are given in Python. Standard library only.

The command line and its YAML files are checked by their parser. A dataclass accepts anything, and a
string in place of a number fails far from its origin, or not at all.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from functools import cache, wraps
from numbers import Integral, Real
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from eofm.errors import ConfigError

__all__ = ["SettingsT", "check_types", "checked_settings"]

SettingsT = TypeVar("SettingsT")


def checked_settings(settings: type[SettingsT]) -> type[SettingsT]:
    """Make a dataclass refuse values of the wrong type before any other check.

    Apply it below `@dataclass`. Subclasses whose `__post_init__` calls that of their base are
    checked with all their fields. Numbers, switches and lists are checked; strings are not, since
    paths are accepted in place of strings.

    Args:
        settings: The class, before `@dataclass` is applied.
    """
    own: Any = getattr(settings, "__post_init__", None)

    def check(self: Any) -> None:  # noqa: ANN401 (any settings)
        check_types(self)
        if own is not None:
            own(self)

    settings.__post_init__ = check if own is None else wraps(own)(check)  # type: ignore[attr-defined]
    return settings


def check_types(settings: Any) -> None:  # noqa: ANN401 (any dataclass)
    """Check that fields annotated as numbers, switches and lists have such values.

    Args:
        settings: A dataclass.

    Raises:
        ConfigError: With the field, its value and the expected type.
    """
    kind: Any = type(settings)
    hints = _hints(kind)
    for one in fields(settings):
        value = getattr(settings, one.name)
        if _holds(value, hints[one.name]):
            continue
        raise ConfigError(
            f"{one.name} is of another type",
            found=f"{value!r} ({type(value).__name__})",
            expected=_words(hints[one.name]),
            where=f"{kind.__name__}.{one.name}",
            remedy=_remedy(one.name, value, hints[one.name]),
        )


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


_NAMES: Final = {int: "a whole number", float: "a number", bool: "True or False"}


def _choices(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 (a type, as typing has it)
    """Return the permitted types of a value."""
    return get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)


def _holds(value: object, hint: Any) -> bool:  # noqa: ANN401
    return any(_is(value, one) for one in _choices(hint))


def _is(value: object, hint: Any) -> bool:  # noqa: ANN401
    """Return whether a value is of a type; true for types that are not checked."""
    if hint is bool:
        return isinstance(value, bool)
    if hint in {int, float}:
        number = Integral if hint is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    if hint is type(None):
        return value is None
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        words = any(isinstance(one, str) for one in inner)
        return words == isinstance(value, str) or value in inner
    if origin is list:
        return isinstance(value, list | tuple) and all(_holds(one, inner[0]) for one in value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if inner[-1:] == (Ellipsis,):  # any number of one type
            return all(_holds(one, inner[0]) for one in value)
        if len(value) != len(inner):
            return False
        return all(_holds(one, kind) for one, kind in zip(value, inner, strict=True))
    return value is not None or hint is Any


def _words(hint: Any) -> str:  # noqa: ANN401
    """Return a description of the values that a field accepts."""
    return " or ".join(_word(one) for one in _choices(hint))


def _word(hint: Any) -> str:  # noqa: ANN401
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(map(repr, inner))
    if origin is list:
        return "a list of " + {str: "texts"}.get(inner[0], "values")
    if origin is tuple:
        return f"{len(inner)} of: {_word(inner[0])}"
    if hint is type(None):
        return "None"
    return _NAMES.get(hint, "text" if hint is str else getattr(hint, "__name__", str(hint)))


def _remedy(name: str, value: object, hint: Any) -> str | None:  # noqa: ANN401
    """Return the value converted to the field's type as a remedy, if possible."""
    kinds = _choices(hint)
    if not isinstance(value, str):
        return None
    if any(get_origin(kind) is list for kind in kinds):
        return f"{name}={[value]!r}"
    for kind in (int, float):
        if kind in kinds:
            try:
                return f"{name}={kind(value)!r}"
            except ValueError:
                continue
    said = {"true": True, "false": False}.get(value.casefold())
    return f"{name}={said}" if bool in kinds and said is not None else None
