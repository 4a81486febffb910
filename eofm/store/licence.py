"""The licence of what a store holds: as its data card says, or not stated; never assumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from eofm.store.reader import Store
from eofm.weights.cards.card import UNSTATED

SYNTHETIC: Final = "Apache-2.0"  # data_cards/embedded-world.md
PACKED: Final[Mapping[str, str]] = {  # verb that packs a known set -> licence on its data card
    "pack ssl4eo": "CC-BY-4.0",
    "pack bigearthnet": "CDLA-Permissive-1.0",
    "pack eurosat": "MIT",
}


def licence_of(store: Store) -> str:
    """Return the licence of the images of a store.

    Of a copy (`eofm data subset`, `merge`) it is that of the stores it was made from, where they
    have the same one.
    """
    if store.synthetic:
        return SYNTHETIC
    sources = store.card.provenance.get("from")
    origins = sources if isinstance(sources, list) else [dict(store.card.settings)]
    return common_licence(
        PACKED.get(str(each.get("verb")), UNSTATED) if isinstance(each, Mapping) else UNSTATED
        for each in origins
    )


def common_licence(licences: Iterable[str]) -> str:
    """Return the licence that all have, `not stated` where they differ or there is none."""
    distinct = set(licences)
    return distinct.pop() if len(distinct) == 1 else UNSTATED
