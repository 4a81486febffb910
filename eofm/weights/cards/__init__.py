"""Published weights: one literal table of cards per family, merged here. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.weights.cards import foundation, softcon, ssl4eo, vision
from eofm.weights.cards.card import WeightCard
from eofm.weights.download import file_name

__all__ = ["WEIGHTS", "candidates", "find", "recognise"]


def _by_name(cards: Iterable[WeightCard]) -> Mapping[str, WeightCard]:
    table: dict[str, WeightCard] = {}
    for card in cards:
        if card.name in table:
            raise WeightsError("two cards have the same name", found=card.name)
        table[card.name] = card
    return table


WEIGHTS: Final[Mapping[str, WeightCard]] = _by_name(
    (*softcon.CARDS, *ssl4eo.CARDS, *foundation.CARDS, *vision.CARDS)
)


def find(name: str) -> tuple[WeightCard, Recipe]:
    """Return the card and the recipe of published weights.

    Args:
        name: As in `WEIGHTS`; `name@alternative` for another claim about their input.

    Raises:
        WeightsError: If there is no such name, or no such alternative.
    """
    own, _, alternative = name.partition("@")
    if own not in WEIGHTS:
        near = difflib.get_close_matches(own, list(WEIGHTS), n=3)
        raise WeightsError(
            f"there are no published weights {own!r}",
            found=own,
            expected="one of `eofm models list`",
            remedy=f"did you mean {' or '.join(near)}?" if near else None,
        )
    card = WEIGHTS[own]
    return card, card.recipe_called(alternative)


def candidates(filename: str, sha256: str = "") -> list[WeightCard]:
    """Return the cards that match a file: by its published hash, else by its name.

    One file can have several cards (a network for several sensors). File names shared by several
    files (`model.safetensors`) are ambiguous; the name under which a download is stored is not.

    Args:
        filename: Name of the file.
        sha256: Hash of its content, if known.
    """
    hashed = [c for c in WEIGHTS.values() if c.sha256 and sha256.startswith(c.sha256)]
    if hashed:
        return hashed
    named = [c for c in WEIGHTS.values() if filename in {c.filename, file_name(c.url)}]
    return named if len({c.url for c in named}) == 1 else []


def recognise(filename: str, sha256: str = "") -> WeightCard | None:
    """Return the only card that matches a file, None if there is none or more than one.

    Args:
        filename: Name of the file.
        sha256: Hash of its content, if known.
    """
    cards = candidates(filename, sha256)
    return cards[0] if len(cards) == 1 else None
