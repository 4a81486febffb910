"""What checks the shapes and types in signatures while tests run: an int is a float too.

A check takes longer than many of the functions: a solver that calls one ten thousand times in a
test is checked in its first calls. Property tests, whose examples differ, check every call.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from beartype import BeartypeConf, beartype

Function = Callable[..., Any]

# Calls of a function that are checked in a test.
FIRST_CALLS = 20

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_calls: Counter[Function] = Counter()
_unchecked: list[Any] = []
_every_call = False


def check(function: Function) -> Function:
    """Return the function that jaxtyping calls with the arguments of another, to check them."""
    checked = _beartype(function)

    @wraps(function)
    def counted(*args: object, **keywords: object) -> object:
        _calls[function] += 1
        if not _every_call and _calls[function] >= FIRST_CALLS:
            _stop(function)
        return checked(*args, **keywords)

    return counted


def start_test(*, every_call: bool) -> None:
    """Count anew, and check again what was called often in the test before."""
    global _every_call  # noqa: PLW0603
    _every_call = every_call
    _calls.clear()
    while _unchecked:
        _unchecked.pop().__no_type_check__ = False


def _stop(of: Function) -> None:
    """Let jaxtyping pass a function by; one made within another cannot be found, and is checked."""
    found: Any = sys.modules.get(of.__module__)
    for part in of.__qualname__.split("."):
        found = inspect.getattr_static(found, part, None)
    for function in _layers(found):
        function.__no_type_check__ = True
        _unchecked.append(function)


def _layers(found: Any) -> Iterator[Any]:
    """A function beneath its decorators, and these."""
    found = getattr(found, "__func__", None) or getattr(found, "fget", None) or found
    while inspect.isfunction(found):
        yield found
        found = getattr(found, "__wrapped__", None)
