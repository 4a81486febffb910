"""Tables and facts: cells stay in their columns, `repr` and a notebook show few, useful lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from html_checker import Checker
from toy_task import RECIPE, SPEC

from eofm.bench.records import Result, read_results
from eofm.bench.run import BenchReport
from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import plan
from eofm.report.tables import (
    Cell,
    Footnotes,
    Table,
    TableRow,
    bullets,
    facts_html,
    facts_text,
    markdown,
    tables_html,
)
from eofm.store.reader import Store
from eofm.weights.encoder import Encoder, random_encoder


def test_a_table_is_its_cells_in_order() -> None:
    """Name, heads, alignment, rows, notes."""
    table = Table(
        ("model", "score, %", "notes"),
        (TableRow(("mine", "81.2", "good")), TableRow(("band means", "70.0", ""), faint=True)),
        name="eurosat",
        about="version 1",
        notes=("a subset",),
        words=frozenset({2}),
    )

    assert [
        "**eurosat** version 1",
        "",
        "| model | score, % | notes |",
        "|---|---:|---|",
        "| mine | 81.2 | good |",
        "| *band means* | 70.0 |  |",
        "",
        "- a subset",
    ] == markdown(table).splitlines()


def test_a_hostile_name_stays_in_its_cell() -> None:
    """Bars, line ends and separators break no row."""
    table = Table(("a|b", "c"), (TableRow(("x|y\nz\u2028w", "1")),))

    lines = markdown(table).splitlines()

    assert 3 == len(lines)
    assert r"| x\|y z\u2028w | 1 |" == lines[2]
    assert ["- one line"] == bullets(["one\nline"])


def test_part_of_a_cell_may_be_stressed() -> None:
    """As the own size of a model is among others."""
    table = Table(("a", "b"), (TableRow(("m", Cell("81.2", "(70 – 90)"))),))

    assert "| m | **81.2** (70 – 90) |" in markdown(table)


def test_a_footnote_has_one_number_however_often_it_is_used() -> None:
    """In the order of first use."""
    notes = Footnotes()

    assert ["[1]", "[2]", "[1]"] == [notes.mark(text) for text in ("a", "b", "a")]
    assert ("[1] a", "[2] b") == notes.lines()


# ------------------------------------------------------------------------------------------- facts


ROOT = Path(__file__).parents[2]


def encoder() -> Encoder:
    """An untrained encoder with twelve blocks, of another objective than can be printed whole."""
    made = random_encoder("vit-tiny-14", replace(RECIPE, size=(28, 28)), seed=0)
    return Encoder(made.trunk, replace(made.card, objective="all that was tried, " * 40))


def records() -> tuple[Result, ...]:
    """The committed records of a run of several models."""
    return tuple(read_results(ROOT / "benchmarks/results/eurosat_subset.jsonl"))


def imagery() -> Imagery:
    """A batch of two images."""
    return Imagery(torch.full((2, 3, 8, 8), 500.0), SPEC, torch.ones(2, 8, 8, dtype=torch.bool))


SHOWN = {
    "encoder": (encoder, ("random-vit-tiny-14", "2.8 million", "28 x 28", "192 numbers", "B04")),
    "imagery": (imagery, ("images 2", "s2-l1c", "8 x 8", "10 m", "valid 100%")),
    "store": (
        lambda: Store(ROOT / "tests/stores_0_1/tiles"),
        ("places", "s2-l2a", "pixels", "labels", "crs"),
    ),
    "plan": (lambda: plan(SPEC, RECIPE), ("from  s2-l1c", "1. select bands", "to    s2-l1c")),
    "record": (lambda: records()[0], ("eurosat", "oa", "54 test samples", "–")),
    "report": (lambda: BenchReport(records(), 0, Path("r.jsonl")), ("24 records", "r.jsonl")),
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_short_and_useful(name: str) -> None:
    """At most 15 lines of 160 characters, with what a reader looks for."""
    make, words = SHOWN[name]

    text = repr(make())

    assert len(text.splitlines()) <= 15
    assert max(map(len, text.splitlines())) <= 160
    assert not [word for word in words if word not in text]
    assert "tensor(" not in text


@pytest.mark.parametrize("name", ["encoder", "imagery", "store", "report"])
def test_a_notebook_gets_whole_html(name: str) -> None:
    """Closed elements, nothing from outside, and the same facts."""
    make, _ = SHOWN[name]
    shown = make()

    page = Checker()
    page.feed(shown._repr_html_())
    page.close()

    assert not page.faults
    assert not page.open
    assert not page.handlers
    assert not [source for source in page.sources if not source.startswith("data:")]
    assert "table" in page.seen


def test_the_modules_of_a_network_are_shown_by_the_network() -> None:
    """What `repr(encoder)` was before is one word away."""
    one = encoder()

    assert repr(one.trunk).startswith("ViT(")
    assert "PatchEmbed" not in repr(one)
    assert max(map(len, one.facts().values())) <= 90


def test_the_report_of_a_run_is_its_tables() -> None:
    """Each model has its row in the notebook, with what intervals resample below."""
    html = BenchReport(records(), 0, Path("r.jsonl"))._repr_html_()

    assert {one.model.name for one in records()} <= set(_cells(html))
    assert "Intervals resample 54 test samples one by one" in html


def _cells(html: str) -> list[str]:
    page = Checker()
    page.feed(html)
    return [text.strip() for text in page.text]


def test_names_cannot_break_a_page() -> None:
    """Facts, cells and notes are text, whatever is in them; empty facts are left out."""
    bad = "<script>&'"
    table = Table(("a", "b"), (TableRow((bad, Cell(bad, bad))),), name=bad, notes=(bad,))

    for html in (facts_html(bad, {bad: bad}), tables_html([table], [bad])):
        page = Checker()
        page.feed(html)
        assert "script" not in page.seen
        assert bad in page.text
    assert "x\n  one  1" == facts_text("x", {"one": "1", "two": ""})
