"""Pages stand alone: escaped, closed, and with nothing from outside."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from html_checker import checked
from PIL import Image

from eofm.errors import DataError
from eofm.report import pages, plots
from eofm.report.pages import (
    Drawings,
    Gallery,
    Notes,
    Page,
    Paragraph,
    Picture,
    Section,
    Sheet,
    TableBlock,
    Tiles,
    Tone,
    Verbatim,
    marked,
    render,
)
from eofm.report.plots import LinePanel
from eofm.report.tables import Cell, Table, TableRow

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=http://x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "`code` <b>**bold**</b>",
    "a\u2028b\u2029c\x00d\x1be",
    "\u202egnp.exe",
    "\udcff.tif",
    "غابة ‎(12)",
    "long" * 2000,
)
PIXELS = np.random.default_rng(0).random((4, 6, 3))


def full(name: str) -> Page:
    """A page with every kind of block, and a name wherever one may stand."""
    steps = np.arange(5.0)
    figure = plots.lines([LinePanel(name[:200], {name[:200]: (steps, steps)})])
    picture = Picture(PIXELS, name, name, stressed=True)
    table = Table(
        (name, "score"), (TableRow((name, Cell(name, name)), faint=True),), name, name, (name,)
    )
    return Page(
        name,
        (
            Section(name, (Paragraph(name), Verbatim(name), Verbatim(name, name), Notes((name,)))),
            Section("b", (TableBlock(table), Tiles(((name, name),)))),
            Section("c", (Drawings(((name, figure),)), Drawings(((name, figure),), wide=True))),
            Section("d", (Sheet((name,), ((picture, picture),)), Gallery((picture,)))),
            Section("empty and left out", ()),
        ),
        lead=(Paragraph(name, quiet=False),),
        verdict=name,
        tone=Tone.WARN,
    )


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: name[:12].encode("unicode_escape"))
def test_any_name_is_text_wherever_it_stands(name: str) -> None:
    """No element, no template, no address comes out of a name, and the page can be encoded."""
    text = render(full(name))

    seen = checked(text)
    assert text.encode().decode() == text
    shown = "".join(seen.text)
    assert "empty and left out" not in shown
    assert not set("\x00\x1b\u2028\u202e") & set(text)
    if "`" not in name:
        assert shown.count(pages.printable(name)) >= 14


def test_every_kind_of_block_is_laid_out() -> None:
    """A block that no template knows would vanish without a word."""
    text = render(full("name"))

    seen = checked(text)
    for tag in ("p", "pre", "details", "dl", "table", "caption", "ul", "svg", "img", "figcaption"):
        assert tag in seen.seen, tag
    assert 3 == text.count('class="stressed"')
    assert 'class="verdict warn"' in text
    assert '<tr class="faint">' in text


def test_a_picture_is_its_pixels() -> None:
    """What is drawn comes back from the page, to 8 bits."""
    text = render(Page("t", (Section("s", (Gallery((Picture(PIXELS, "a"),)),)),)))

    data = re.search(r"base64,([^\"]+)", text)

    assert data is not None
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))[..., :3]
    assert np.abs(image / 255 - PIXELS).max() <= 0.5 / 255 + 1e-6


def test_marked_words_are_elements_and_nothing_else_is() -> None:
    """Backticks are code, double asterisks bold; a lone one stays; elements are escaped."""
    assert "<code>a&lt;b</code> <strong>c</strong> ` *d*" == marked("`a<b` **c** ` *d*")


def test_a_page_is_the_same_twice() -> None:
    """Nothing of the time or the machine is in it."""
    assert render(full("name")) == render(full("name"))


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """A folder in the place of the file ends in one clear error."""
    with pytest.raises(DataError, match="cannot be written"):
        pages.save(Page("t", ()), tmp_path)
