"""Which terms there are: the files of this folder that have a `TERM`, and classes of your own.

Only the terms that a run names are loaded.
"""

from __future__ import annotations

import difflib
from dataclasses import fields
from enum import StrEnum
from importlib import import_module
from typing import Any, get_type_hints

from eofm.errors import ConfigError
from eofm.io import load_own, names_own
from eofm.method.config import SoftConConfig, TermChoice
from eofm.method.terms import term_names
from eofm.method.terms.seam import Term


def find_term(name: str) -> type[Term[Any]]:
    """Return the class of a term.

    Args:
        name: Of a file of this folder; or `module:Class`, `file.py:Class`.

    Raises:
        ConfigError: If there is none, or it is no term.
    """
    if names_own(name):
        try:
            found = load_own(name)
        except Exception as error:
            raise _no_term(name, f"{type(error).__name__}: {error}") from error
    elif name in term_names():
        found = getattr(import_module(f"eofm.method.terms.{name}"), "TERM", None)
    else:
        raise _no_term(name, "no such file")
    if not (isinstance(found, type) and issubclass(found, Term)):
        raise _no_term(name, repr(found))
    return found


def _no_term(name: str, found: str) -> ConfigError:
    return ConfigError(
        f"{name!r} is no term of an objective",
        found=found,
        expected=", ".join(term_names()) + "; or a class derived from eofm.method.terms.seam.Term",
        where="method.terms",
        remedy="the part before : is a module that can be imported, or a .py file; the part after "
        "it the class",
    )


def settings_of(kind: type[Term[Any]], choice: TermChoice, method: SoftConConfig) -> Any:  # noqa: ANN401
    """Return the settings of a term: its defaults, but for what the run says.

    Args:
        kind: The term.
        choice: What the run says of it.
        method: Of the run: the settings themselves of a term that has no others.

    Raises:
        ConfigError: If there is no such setting, or a value does not fit.
    """
    where = f"method.terms.{choice.name}"
    if kind.settings is SoftConConfig:
        if choice.settings:
            raise ConfigError(
                "the settings of this term are those of the group `method`",
                found=", ".join(choice.settings),
                expected="a weight alone",
                where=where,
                remedy="set them as method.NAME",
            )
        return method
    known = get_type_hints(kind.settings)
    names = [field.name for field in fields(kind.settings)]
    for name in choice.settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ConfigError(
                f"the term {choice.name} has no such setting",
                found=name,
                expected=", ".join(["weight", *names]),
                where=where,
                remedy=f"did you mean {near[0]}?" if near else None,
            )
    values = {name: _fit(known[name], v, f"{where}.{name}") for name, v in choice.settings.items()}
    return kind.settings(**values)


def _fit(kind: object, value: object, where: str) -> object:
    """Return a value of YAML as a setting has it: whole numbers may be meant as floats.

    Members of enumerations are made from their values, which name them in settings files. Unions,
    tuples and literals are left to the term's own checks.
    """
    if not isinstance(kind, type):
        return tuple(value) if isinstance(value, list) else value
    if issubclass(kind, StrEnum):
        if value in list(kind):
            return kind(str(value))
        expected = ", ".join(kind)
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    else:
        expected = kind.__name__
    raise ConfigError(
        "a setting of a term has another kind of value",
        found=value,
        expected=expected,
        where=where,
    )
