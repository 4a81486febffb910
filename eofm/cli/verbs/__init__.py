"""The verbs, in the groups of `eofm --help`.

A verb is one entry in the table of its group: its settings, a dataclass in a module that needs the
standard library alone, and the function that takes them. A group is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.cli.verb import Verb
from eofm.cli.verbs import benchmark, data, embedding, maps, models, shell, training

__all__ = ["GROUPS", "VERBS"]

GROUPS: Final[Mapping[str, Mapping[str, Verb]]] = {
    "pretraining": training.VERBS,
    "data": data.VERBS,
    "benchmark": benchmark.VERBS,
    "scenes": embedding.VERBS,
    "maps": maps.VERBS,
    "models": models.VERBS,
    "shell": shell.VERBS,
}
VERBS: Final[Mapping[str, Verb]] = {
    name: verb for group in GROUPS.values() for name, verb in group.items()
}
