"""Every data card's front matter against the code, and the card of a store of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from eofm.cli import main
from eofm.contract.spec import UNITS, Sensor, Unit, canonical_bands
from eofm.datasets import bigearthnet, dfc2020, eurosat, sat6, sen1floods11, ssl4eo, terramesh
from eofm.datasets.bigearthnet import CLASSES_19
from eofm.datasets.bigearthnet.patches import read_tables
from eofm.datasets.registry import DATASETS
from eofm.datasets.ssl4eo import folders
from eofm.errors import DataError
from eofm.landcover.schemes import SCHEMES
from eofm.store.config import CardConfig
from eofm.store.describe import write_card

FOLDER = Path(__file__).parents[2] / "data_cards"
CARDS = sorted(FOLDER.glob("*.md"))
DECLARED = {card: dataset for dataset in DATASETS.values() for card in dataset.cards}


def front(name: str) -> dict[str, Any]:
    """The front matter of a card."""
    return yaml.safe_load((FOLDER / f"{name}.md").read_text("utf-8").split("---\n")[1])


def bands(name: str, sensor: Sensor) -> tuple[str, ...]:
    """The bands a card states."""
    return tuple(front(name)["sensors"][sensor.value]["bands"])


def test_all_cards_are_there() -> None:
    """Data sets name the cards that there are; the others are of class maps and of the world."""
    there = {path.stem for path in CARDS}

    assert DECLARED.keys() <= there
    assert there - DECLARED.keys() <= {*SCHEMES, "embedded-world"}


@pytest.mark.parametrize("name", [n for n, one in DATASETS.items() if one.cards and one.benchmark])
def test_a_card_states_what_the_task_declares(name: str) -> None:
    """Sensors and bands of the family's own task are those of every card of its data set."""
    benchmark = DATASETS[name].benchmark
    assert benchmark is not None
    (task,) = (one for one in benchmark.tasks if one.name == benchmark.settings("").task)

    for card in DATASETS[name].cards:
        for spec in task.specs:
            assert set(spec.bands) == set(bands(card, spec.sensor)), card


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_front_matter(path: Path) -> None:
    """Every card names itself, its licence and layout; sensors, units and bands are known ones."""
    card = front(path.stem)
    needed = {
        "name",
        "pretty_name",
        "synthetic",
        "licence",
        "layout",
        "sensors",
        "splits",
        "classes",
    }

    assert path.stem == card["name"]
    assert set() == needed - card.keys()
    for sensor, stated in card["sensors"].items():
        units = [u for u in Unit if re.search(rf"\b{u.value}\b(?!-)", str(stated["unit"]))]
        assert units
        assert set(units) <= UNITS[Sensor(sensor)]
        assert tuple(stated["bands"]) == canonical_bands(stated["bands"], Sensor(sensor))


@pytest.mark.parametrize(
    "path", [p for p in CARDS if p.stem != "embedded-world"], ids=lambda p: p.stem
)
def test_body(path: Path) -> None:
    """Every card speaks of coverage, overlap and faults, and numbers its sources."""
    text = path.read_text("utf-8").split("---\n", 2)[2]
    sources = text.split("## Sources")[1]

    for heading in ("Coverage", "Overlap with benchmarks", "Known faults", "Sources"):
        assert f"\n## {heading}\n" in text
    assert "[1]" in text.split("## Sources")[0]
    for number in re.findall(r"\[(\d)\]", text.split("## Sources")[0]):
        assert f"[{number}]" in sources


def test_ssl4eo() -> None:
    """Bands, units, sizes and counts are those of the reader."""
    card = front("ssl4eo-s12")

    assert {s.value: u.value for s, u in ssl4eo.UNITS.items()} == {
        sensor: stated["unit"] for sensor, stated in card["sensors"].items()
    }
    assert (ssl4eo.PLACES, ssl4eo.SEASONS, ssl4eo.SIZE) == (
        card["places"],
        card["seasons"],
        tuple(card["size"]),
    )
    assert all(f"{folder}" in card["layout"] for folder in ssl4eo.FOLDERS.values())
    labels = front("ssl4eo-s12-ml")
    assert (folders.LABELLED_IMAGES, folders.LABELLED_SCENES) == (
        labels["images"],
        labels["scenes"],
    )
    assert folders.LABEL_CLASSES == tuple(labels["classes"])


@pytest.mark.parametrize("name", ["dynamic-world", "worldcover", "terramesh"])
def test_maps(name: str) -> None:
    """Codes, classes and nodata are those of the scheme."""
    card, scheme = front(name), SCHEMES[name]

    assert scheme.names == tuple(card["classes"])
    assert list(scheme.classes) == card["codes"]
    assert list(scheme.nodata) == card["nodata"]


def test_terramesh() -> None:
    """Sensors of the modalities are those that the check states."""
    assert {sensor.value for sensor, _ in terramesh.MODALITIES.values()} == set(
        front("terramesh")["sensors"]
    )


def test_bigearthnet() -> None:
    """Lengths of lists, sizes and classes are those of the code."""
    first, second = front("bigearthnet-v1"), front("bigearthnet-v2")

    assert (bigearthnet.COUNTS_V1, bigearthnet.EXCLUDED_V1) == (
        first["splits"],
        first["excluded"],
    )
    assert bigearthnet.COUNTS_V2 == second["splits"]
    assert bigearthnet.EXCLUDED_V2 == sum(second["excluded"].values())
    assert second["images"] == sum(second["splits"].values()) + bigearthnet.EXCLUDED_V2
    for card in (first, second):
        assert bigearthnet.SIZE == tuple(card["size"])
        assert {s.value for s in bigearthnet.UNITS} == set(card["sensors"])
    assert CLASSES_19 == tuple(second["classes"])


@pytest.mark.slow
def test_classes_of_bigearthnet(real_data: Path) -> None:
    """Patches with each of the rarer classes are as many as in the published tables."""
    second = front("bigearthnet-v2")
    listing = read_tables(real_data / "bigearthnet_v2")
    kept = listing.patches("all", excluded=False)
    for name in CLASSES_19[14:]:
        assert second["classes"][name] == sum(name in listing.labels[patch] for patch in kept)


def test_eurosat() -> None:
    """File order, classes and number of tiles are those of the reader."""
    card = front("eurosat")

    assert eurosat.FILE_ORDER == bands("eurosat", Sensor.S2_L1C)
    assert eurosat.SPEC.unit.value == card["sensors"]["s2-l1c"]["unit"]
    assert (eurosat.CLASSES, eurosat.TILES) == (tuple(card["classes"]), card["images"])
    assert eurosat.TILES == sum(card["classes"].values())


def test_sat6() -> None:
    """Bands, size, classes and lengths are those of the reader."""
    card = front("sat6")

    assert sat6.SPEC.bands == bands("sat6", Sensor.NAIP)
    assert sat6.SPEC.unit.value == card["sensors"]["naip"]["unit"]
    assert (sat6.SPEC.size, sat6.CLASSES) == (tuple(card["size"]), tuple(card["classes"]))
    assert sat6.COUNTS == card["splits"]
    assert card["images"] == sum(card["splits"].values())


def test_dfc2020() -> None:
    """Codes, classes, void codes and lengths are those of the reader."""
    card = front("dfc2020")

    assert dfc2020.CLASSES == tuple(card["classes"])
    assert dfc2020.CODING.codes == {code: k for k, code in enumerate(card["codes"])}
    assert dfc2020.CODING.void == set(card["nodata"])
    assert dfc2020.COUNTS == card["splits"]["contest"]
    assert dfc2020.COUNTS_LISTS == card["splits"]["copernicus-bench"]
    assert card["images"] == sum(dfc2020.COUNTS.values())
    for sensor, spec in dfc2020.SPECS.items():
        assert spec.bands == bands("dfc2020", sensor)
        assert spec.size == tuple(card["size"])


def test_sen1floods11() -> None:
    """Codes, classes, windows and lengths are those of the reader."""
    card = front("sen1floods11")

    assert sen1floods11.CLASSES == tuple(card["classes"])
    assert sen1floods11.CODING.codes == {code: k for k, code in enumerate(card["codes"])}
    assert sen1floods11.CODING.void == set(card["nodata"])
    assert {**sen1floods11.COUNTS, "bolivia": sen1floods11.BOLIVIA} == card["splits"]
    assert card["images"] == sum(card["splits"].values())
    for sensor, spec in sen1floods11.SPECS.items():
        assert spec.bands == bands("sen1floods11", sensor)
        assert spec.size == tuple(card["window"])


def test_the_subset_of_copernicus_bench() -> None:
    """The card of the set it was taken from states how Copernicus-Bench divides it."""
    stated = front("bigearthnet-v2")["subsets"]["copernicus-bench"]

    assert bigearthnet.COUNTS_COPERNICUS == stated


# ----------------------------------------------------------------------- a store's own card


def test_card_of_a_store(miniature: Any, tmp_path: Path) -> None:
    """The card of a store has the keys of the others, its bands and counts."""
    miniature.store(tmp_path / "mine", 7)
    config = CardConfig(str(tmp_path / "mine"), out=str(tmp_path / "cards/mine.md"), licence="MIT")
    card = write_card(config)
    stated = yaml.safe_load((tmp_path / "cards/mine.md").read_text("utf-8").split("---\n")[1])

    assert (tmp_path / "cards/mine.md").read_text("utf-8") == card.text
    assert ("mine", "MIT", 7, 4) == tuple(
        stated[k] for k in ("name", "licence", "images", "places")
    )
    assert {"unit": "dn", "bands": ["B02", "B8A", "B09"]} == stated["sensors"]["s2-l1c"]
    assert {"water": 5, "trees": 2, "crops": 0} == stated["classes"]
    assert "2021-06-01 to 2021-06-01" in card.text
    with pytest.raises(DataError, match="exists already"):
        write_card(config)


def test_card_command(
    radar_miniature: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --out the card is printed."""
    radar_miniature.store(tmp_path / "radar", 3)

    assert 0 == main(["card", str(tmp_path / "radar"), "--name", "Mine"])
    printed = capsys.readouterr().out
    assert "# Mine" in printed
    assert "bands:\n    - VV\n    - VH" in printed
