"""Tables as Markdown: cells stay in their columns, notes are said once."""

from __future__ import annotations

from eofm.report.tables import Cell, Footnotes, Table, TableRow, aligned, bullets, markdown


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
