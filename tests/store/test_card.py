"""The licence of a store's images is that of its data card, or empty."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.store.format import LICENCES, SYNTHETIC_LICENCE, Plain, StoreCard

CARDS = Path(__file__).parents[2] / "data_cards"


def licence_of(settings: dict[str, Plain], **provenance: Plain) -> str:
    """The licence of a store of these settings and this provenance."""
    spec = ImageSpec(Sensor.S1_GRD, ("VV",), Unit.DB, (8, 8), 10.0)
    return StoreCard(spec, {10: ("VV",)}, None, settings, provenance).licence


def stated(card: str) -> str:
    """The licence on a data card of the repository."""
    return yaml.safe_load((CARDS / f"{card}.md").read_text("utf-8").split("---\n")[1])["licence"]


@pytest.mark.parametrize(
    ("verb", "cards"),
    [
        ("pack ssl4eo", ["ssl4eo-s12"]),
        ("pack bigearthnet", ["bigearthnet-v1", "bigearthnet-v2"]),
        ("pack eurosat", ["eurosat"]),
    ],
)
def test_a_known_set_has_the_licence_of_its_card(verb: str, cards: list[str]) -> None:
    """The table in the package and the data cards cannot disagree."""
    assert {licence_of({"verb": verb})} == {stated(card) for card in cards}
    assert verb in LICENCES


def test_the_synthetic_world_has_that_of_its_generator() -> None:
    """It is packed as SSL4EO-S12 is, and is not SSL4EO-S12."""
    assert SYNTHETIC_LICENCE == licence_of({"verb": "pack ssl4eo"}, synthetic=True)
    assert stated("embedded-world").startswith(SYNTHETIC_LICENCE)


def test_images_of_ones_own_have_none_until_it_is_stated() -> None:
    """Nothing is assumed."""
    assert not licence_of({"verb": "pack tiles"})


def test_a_copy_keeps_the_licence_that_all_its_sources_have() -> None:
    """Two sets of different licences have none in common."""
    one, other = {"verb": "pack ssl4eo"}, {"verb": "pack eurosat"}

    def copied(*sources: dict[str, str]) -> str:
        return licence_of({"verb": "data merge"}, **{"from": list(sources)})

    assert ["CC-BY-4.0", ""] == [copied(one, one), copied(one, other)]
    assert not copied({"verb": "data subset"})
