"""The verbs that each data set declares: `eofm bench NAME` and `eofm pack NAME`."""

from __future__ import annotations

from eofm.cli.verb import Verb
from eofm.datasets.base import Packing
from eofm.datasets.registry import DATASETS

__all__ = ["data_set_verbs"]


def data_set_verbs(word: str) -> dict[str, Verb]:
    """Return the verbs of every data set that has them.

    Args:
        word: `bench` or `pack`.
    """
    verbs = {}
    for dataset in DATASETS.values():
        entry = dataset.benchmark if word == "bench" else dataset.packing
        if entry is not None:
            settings = f"{entry.settings.__module__}:{entry.settings.__qualname__}"
            run = entry.run if isinstance(entry, Packing) else "eofm.bench.run:bench"
            verbs[f"{word} {dataset.name}"] = Verb(entry.summary, settings, run, entry.examples)
    return verbs
