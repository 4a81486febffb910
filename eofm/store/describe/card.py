"""`eofm card STORE`: a data card of a packed store, as far as the store can tell; its licence.

The front matter has the keys of the cards in `data_cards/`. What no file knows (coverage in words,
overlap with benchmarks, faults) is left to be written by hand, under its heading. The licence of
the images is that of a known data set, or not stated; it is never assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import yaml

from eofm.errors import DataError
from eofm.io import replacing
from eofm.store.config import CardConfig
from eofm.store.describe.report import class_rows
from eofm.store.reader import Store
from eofm.weights.cards.card import UNSTATED

_ASK = "*To be written by whoever knows.*"


@dataclass(frozen=True)
class DataCard:
    """A data card.

    Args:
        text: Markdown with YAML front matter.
        out: Where it was written; None where it was not.
    """

    text: str
    out: Path | None

    def describe(self) -> str:
        """Return the card, or where it is."""
        return self.text.rstrip() if self.out is None else f"wrote {self.out}"


def write_card(config: CardConfig) -> DataCard:
    """Describe a store; write the card if a file is named.

    Args:
        config: Which store, and where the card goes.

    Raises:
        StoreError: If it is no finished store.
        DataError: If the file exists already or cannot be written.
    """
    store = Store(config.path)
    name = config.name or Path(config.path).resolve().name
    front = yaml.safe_dump(
        _front(store, name, config.licence), sort_keys=False, allow_unicode=True, width=100
    )
    text = f"---\n{front}---\n\n# {name}\n\n{_body(store)}"
    out = None if config.out is None else Path(config.out)
    if out is not None:
        if out.exists():
            raise DataError(
                "the card exists already", where=out, remedy="choose another --out, or delete it"
            )
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with replacing(out) as file:
                file.write_text(text, "utf-8")
        except OSError as error:
            raise DataError("the card cannot be written", found=error, where=out) from error
    return DataCard(text, out)


def _front(store: Store, name: str, licence: str | None) -> dict[str, object]:
    card = store.card
    splits = [split for split in store.table["split"].to_pylist() if split]
    counts = {split: splits.count(split) for split in sorted(set(splits))}
    return {
        "name": name,
        "synthetic": store.synthetic,
        "licence": licence or licence_of(store),
        "revision": f"packed by eofm {card.provenance.get('eofm', 'of unknown version')}",
        "layout": "packed store (eofm.store.format)",
        "sensors": {
            card.spec.sensor.value: {
                "unit": card.spec.unit.value,
                "bands": list(card.spec.bands),
            }
        },
        "size": list(card.size),
        "gsd": card.spec.gsd,
        "images": len(store),
        "places": len(set(store.locations.tolist())),
        "splits": counts or "none",
        "classes": class_rows(store),
    }


def _body(store: Store) -> str:
    return "\n".join(
        [
            "## Coverage",
            "",
            _coverage(store),
            "",
            "## Labels",
            "",
            _labels(store),
            "",
            "## Overlap with benchmarks",
            "",
            _ASK,
            "",
            "## Known faults",
            "",
            _faults(store),
            "",
            "## Sources",
            "",
            *(f"* {key}: {value}" for key, value in store.card.settings.items()),
            "",
        ]
    )


def _coverage(store: Store) -> str:
    longitude = np.asarray(store.table["longitude"].to_numpy())
    latitude = np.asarray(store.table["latitude"].to_numpy())
    dates = sorted(date[:10] for date in store.table["date"].to_pylist() if date)
    when = f"{dates[0]} to {dates[-1]}" if dates else "at unknown times"
    return (
        f"{len(store)} images between {longitude.min():.2f} and {longitude.max():.2f} degrees "
        f"east, {latitude.min():.2f} and {latitude.max():.2f} degrees north, {when}; "
        f"{store.crs_words()}."
    )


def _labels(store: Store) -> str:
    rule = store.card.labels
    if rule is None:
        return "None."
    known = int(store.labels(range(len(store))).known.sum())
    return (
        f"{known} of {len(store)} images are labelled by scheme {rule.scheme}: a class is present "
        f"from a share of {rule.threshold:g} of the valid pixels on (0: any pixel), and an image "
        f"is unlabelled of whose measured pixels less than {rule.min_valid:g} is mapped."
    )


def _faults(store: Store) -> str:
    card = store.card
    lines = [f"* {card.skipped} windows were left out for want of valid pixels."]
    lines += [f"* {name} could not be read: {why}." for name, why in card.quarantined.items()]
    return "\n".join([*lines, f"* {_ASK}"])


# ----------------------------------------------------------------------------------------- licence


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
