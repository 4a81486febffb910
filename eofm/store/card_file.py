"""`spec.json` and the index it belongs to, written together: neither is exchanged unnoticed.

The card holds the sha256 of the index, and a checksum of itself. Stores of eofm 0.1 have neither.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eofm.errors import StoreError
from eofm.formats.foreign import foreign, read_bounded
from eofm.formats.seal import file_sha256
from eofm.formats.text import JSON_BYTES
from eofm.io import replacing
from eofm.store.format import INDEX, SPEC, StoreCard


def read_card_file(file: Path) -> StoreCard:
    """Read the card of a store.

    Raises:
        StoreError: If it is of another version, damaged, or not a store's card.
    """
    with foreign(
        StoreError,
        "the card of a packed store cannot be read",
        where=file,
        remedy="copy the store again, or pack it again",
    ):
        text = read_bounded(file, JSON_BYTES)
    return StoreCard.from_json(text, file)


def write_card_file(folder: Path, card: StoreCard) -> StoreCard:
    """Write the card of the index that lies in a folder; return it as written.

    Raises:
        OSError: If it cannot be written.
    """
    card = replace(card, index_sha256=file_sha256(folder / INDEX))
    with replacing(folder / SPEC) as file:
        file.write_text(card.to_json(), "utf-8")
    return card
