"""What a run minimises, one file for each term: see `eofm.method.terms.seam`.

Standard library only: settings name terms before any of them, and torch, is loaded.
"""

from __future__ import annotations

import pkgutil
from typing import Final

__all__ = ["term_names"]

# The file of this folder that is no term: what all of them share.
_SHARED: Final = frozenset({"seam"})


def term_names() -> tuple[str, ...]:
    """Return the names of all terms: those of the files in this folder. None is loaded."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(sorted(found - _SHARED))
