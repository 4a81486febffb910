"""An extension of griffe: examples in docstrings, `>>> ...`, are code and not text."""

from __future__ import annotations

import re

from griffe import Extension, Object

_EXAMPLE = re.compile(r"(?:^|(?<=\n))(>>> .*(?:\n(?!\s*$).+)*)", re.MULTILINE)


class Doctests(Extension):
    """Put each paragraph that begins with `>>>` into a block of code."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rewrite the docstring of an object that has examples."""
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Return a docstring with its examples in fences."""
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found[1].rstrip()}\n```", text)
