"""How the exceptions of a row are marked in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eofm.contract.recipe import FORCED_WHY

FORCED_FLAG: Final = "forced"
# Inputs changed on purpose, to see what it costs: `--size` and `--normalization`.
CHANGED_WHY: Final = "changed to see what it costs"
NONSTANDARD: Final = "nonstandard"


def nonstandard_flags(waivers: Sequence[str]) -> tuple[str, ...]:
    """Return the mark of a row of which the input, as printed in a record, was changed on purpose.

    Args:
        waivers: As in `Identity.waivers`: a waiver written out, or words, a colon and the reason.
    """
    changed = []
    for text in waivers:
        head, reason, _ = text.partition(", why=")
        if CHANGED_WHY in text:
            changed.append(f"{head})" if reason else text.partition(":")[0])
    return (f"{NONSTANDARD}: {', '.join(changed)}",) if changed else ()


def forced_flags(waivers: Sequence[str]) -> tuple[str, ...]:
    """Return the mark of a row whose exceptions, as printed in a record, were forced."""
    forced = [text.partition("(")[0] for text in waivers if FORCED_WHY in text]
    return (f"{FORCED_FLAG}: {', '.join(dict.fromkeys(forced))}",) if forced else ()
