"""Flags of a row in tables: a forced plan, a changed input, training data that may hold the test.

What can be known of contamination is what a corpus is stated to hold. Its places are not
intersected with those of the test split, so no flag means "not known to overlap", never "does not
overlap".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from eofm.contract.recipe import FORCED_WHY

if TYPE_CHECKING:
    from eofm.bench.models.sources import Identity

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


# ----------------------------------------------------------------------------------- contamination


# Corpus, as cards name it -> first words of the names of the tasks whose images it holds.
CONTAINS: Final[Mapping[str, tuple[str, ...]]] = {
    "BigEarthNet": ("bigearthnet",),
    "RS5M": ("bigearthnet",),  # arXiv 2306.11300
    "GeoPile": ("resisc45",),  # arXiv 2302.04476
    "EuroSAT": ("eurosat",),
    "So2Sat": ("so2sat",),
    "TreeSatAI": ("treesatai",),
    "UC Merced": ("ucmerced",),
    "RESISC45": ("resisc45",),
    "SAT-6": ("sat6",),
}
CONTAMINATED: Final = "contaminated?"
UNDECLARED: Final = "training data not declared"


def contamination_flags(model: Identity, task: str) -> tuple[str, ...]:
    """Return the flags of a model's training data for a task.

    Args:
        model: The model. A control is trained on nothing.
        task: Name of the task.

    Returns:
        A flag for each corpus that holds images of the task's data set, whatever its split or
        version; or that the training data are not declared.
    """
    if model.control:
        return ()
    if not model.trained_on:
        return (UNDECLARED,)
    stated = model.trained_on.lower()
    return tuple(
        f"{CONTAMINATED} trained on {corpus}"
        for corpus, tasks in CONTAINS.items()
        if corpus.lower() in stated and task.startswith(tasks)
    )
