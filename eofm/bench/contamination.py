"""Whether a model may have met a task's test images while it was trained.

What can be known is what a corpus is stated to hold. Its places are not intersected with those of
the test split, so no flag means "not known to overlap", never "does not overlap".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.bench.models.sources import Identity

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
    """Return what is to be said of a model's training data, given the task.

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
