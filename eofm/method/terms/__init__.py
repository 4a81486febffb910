"""Terms of the loss, one file each: see `eofm.method.terms.seam`.

Standard library only: settings refer to terms before the terms and torch are loaded.
"""

from __future__ import annotations

import pkgutil
from typing import Final

__all__ = ["term_names"]

# The file of this folder that is not a term but their common interface.
_SHARED: Final = frozenset({"seam"})


def term_names() -> tuple[str, ...]:
    """Return the names of all terms, from the file names in this folder, without loading them."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(sorted(found - _SHARED))
