"""Tables as Markdown, and what `repr` and a notebook show: short, useful, and safe on a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from html_checker import Checker
from hypothesis import given
from hypothesis import strategies as st
from toy_task import RECIPE, SPEC

from eofm.bench.records import Result, read_results
from eofm.bench.run import BenchReport
from eofm.contract.imagery import Imagery, Labels, NativeImagery
from eofm.contract.preprocess import Preprocess, plan
from eofm.datasets.registry import TASKS
from eofm.report.tables import (
    Cell,
    Footnotes,
    Table,
    TableRow,
    aligned,
    bullets,
    facts_html,
    facts_text,
    markdown,
    printable,
    shorten,
    tables_html,
)
from eofm.store.reader import Store
from eofm.weights.cards import WEIGHTS
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


def test_tables_of_a_terminal_have_straight_columns() -> None:
    """Numbers stand to the right, words to the left; all else and the cells stay as they are."""
    table = "| model | score, % |\n|---|---:|\n| a\\|b | 7.5 |\n| longer | 10.0 |"
    text = f"before\n\n{table}\n\n- note | x"

    shown = aligned(text)

    assert shown.splitlines() == [
        "before",
        "",
        "| model  | score, % |",
        "|--------|---------:|",
        r"| a\|b   |      7.5 |",
        "| longer |     10.0 |",
        "",
        "- note | x",
    ]
    assert shown == aligned(shown)


def test_a_long_cell_widens_nothing_and_what_is_no_table_is_left_alone() -> None:
    """One note of a hundred letters does not push the other rows apart."""
    long = "n" * 100
    shown = aligned(f"| a | b |\n|---|---|\n| x | {long} |\n| y | z |").splitlines()

    assert "| y   | z   |" == shown[3]
    assert long in shown[2]
    for text in ("", "| no | rule |", "|a|\n|-|-|\n|b|", "| a |\n| b |\n"):
        assert text == aligned(text)


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


def store() -> Store:
    """A store of version 0.1."""
    return Store(ROOT / "tests/stores_0_1/tiles")


def native() -> NativeImagery:
    """Two images in planes of two resolutions."""
    spec = replace(SPEC, bands=("B04", "B11"), size=(8, 8))
    planes = {10: torch.zeros(2, 1, 8, 8), 20: torch.zeros(2, 1, 4, 4)}
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    return NativeImagery(planes, {10: ("B04",), 20: ("B11",)}, spec, valid)


def labels() -> Labels:
    """Three images, one without labels."""
    return Labels(torch.ones(3, 4), torch.tensor([True, True, False]))


SHOWN = {
    "spec": (lambda: SPEC, ("ImageSpec(", "s2-l1c", "B04 B03 B02", "dn", "8 x 8 px at 10 m")),
    "normalisation": (lambda: RECIPE.normalization, ("3 bands", "toy")),
    "recipe": (lambda: RECIPE, ("s2-l1c", "B04 B03 B02", "8 x 8 px", "mean", "toy")),
    "plan": (lambda: plan(SPEC, RECIPE), ("Plan(s2-l1c", "-> ", "select bands", "normalise")),
    "preprocess": (lambda: Preprocess(plan(SPEC, RECIPE)), ("Preprocess(Plan(", "fill invalid")),
    "imagery": (imagery, ("images 2", "s2-l1c", "8 x 8", "10 m", "valid 100%")),
    "native imagery": (native, ("2 images", "10 m, 20 m", "B04 B11")),
    "labels": (labels, ("3 images", "2 of them labelled", "4 classes")),
    "encoder": (encoder, ("random-vit-tiny-14", "28 x 28", "192 numbers", "3 bands in dn")),
    "card": (lambda: encoder().card, ("random-vit-tiny-14", "s2-l1c")),
    "published weights": (
        lambda: WEIGHTS["softcon_vits14_s2"],
        ("softcon_vits14_s2", "vits14", "s2-l1c", "13 bands", "224 x 224"),
    ),
    "store": (store, ("places", "s2-l2a", "Store(", "tiles)")),
    "task": (
        lambda: TASKS["eurosat"],
        ("eurosat", "27,000 images", "s2-l1c", "10 classes", "oa"),
    ),
    "record": (lambda: records()[0], ("eurosat", "oa", "54 test samples", "–")),
    "report": (lambda: BenchReport(records(), 0, Path("r.jsonl")), ("24 records", "r.jsonl")),
}


@pytest.mark.parametrize("name", SHOWN)
def test_repr_is_one_line_and_useful(name: str) -> None:
    """One line of at most 240 characters, with what a reader looks for, and no pixels."""
    make, words = SHOWN[name]

    text = repr(make())

    assert "\n" not in text
    assert len(text) <= 240
    assert not [word for word in words if word not in text]
    assert "tensor(" not in text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (encoder, ("2.8 million", "28 x 28", "192 numbers", "B04")),
        (store, ("places", "s2-l2a", "pixels", "labels", "crs")),
        (lambda: plan(SPEC, RECIPE), ("from  s2-l1c", "1. select bands", "to    s2-l1c")),
    ],
)
def test_print_shows_the_facts(make: Callable[[], object], words: tuple[str, ...]) -> None:
    """At most 15 lines of 160 characters."""
    text = str(make())

    assert 3 < len(text.splitlines()) <= 15
    assert max(map(len, text.splitlines())) <= 160
    assert not [word for word in words if word not in text]


def test_a_notebook_shows_the_steps_of_a_plan() -> None:
    """A numbered list of all steps, each escaped."""
    made = plan(SPEC, RECIPE)

    page = Checker()
    page.feed(made._repr_html_())
    page.close()

    assert not page.faults
    assert not page.open
    assert len(made.steps) == made._repr_html_().count("<li>")
    assert "select bands B04 B03 B02" in page.text


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


@given(st.text(st.characters(exclude_categories=())))
def test_every_text_can_be_encoded_and_holds_nothing_unseen(text: str) -> None:
    """Halves of surrogate pairs, control characters and turned directions stand as escapes."""
    shown = printable(text)

    assert shown == shown.encode().decode()
    assert not set(shown) & set("\x00\x1b\u2028\u2029\u202e\u2066\x85")
    assert shown == printable(shown)


def test_what_can_be_shown_is_left_alone() -> None:
    """Letters of any script, signs and line ends."""
    text = "Möhre, 森林, غابة, µ ± × 95 %\n\tnext"

    assert text == printable(text)


@given(st.text(), st.integers(4, 40), st.booleans())
def test_a_short_name_is_short(name: str, length: int, keep_end: bool) -> None:
    """One line of at most the length; a cut one says so at the side that was cut."""
    made = shorten(name, length, keep_end=keep_end)

    assert len(made) <= length
    assert "\n" not in made
    if len(" ".join(printable(name).split())) > length:
        assert made.startswith("…") if keep_end else made.endswith("…")
