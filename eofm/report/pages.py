"""One HTML file from plain blocks: it needs no network, no script and no font from elsewhere.

Blocks are records, laid out by the templates in this folder. The template engine escapes every
text; characters that cannot be shown are replaced by their escapes first.

An `Explorer` is a separate page: a click on its picture shows similar places. The vectors are
in the page, as int8 of a few components; the browser multiplies them. Nothing is fetched: the
page's own policy forbids it.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from eofm.io import write_file
from eofm.report import output
from eofm.report.tables import Table, printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

__all__ = [
    "Block",
    "Drawings",
    "Explorer",
    "Gallery",
    "Notes",
    "Page",
    "Paragraph",
    "Picture",
    "Pixels",
    "Section",
    "Sheet",
    "TableBlock",
    "Tiles",
    "Tone",
    "Verbatim",
    "environment",
    "marked",
    "render",
    "render_explorer",
    "save",
]


Pixels = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.float64]


class Tone(StrEnum):
    """Meaning of a sentence for the reader, which sets its colour."""

    PLAIN = "plain"
    GOOD = "good"
    WARN = "warn"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph.

    Args:
        text: Words between backticks are code, between double asterisks bold.
        quiet: Whether it is a remark on what follows, and smaller.
    """

    kind: ClassVar[str] = "paragraph"
    text: str
    quiet: bool = True


@dataclass(frozen=True)
class Verbatim:
    """A text with its own line ends: an error, a file.

    Args:
        text: Shown letter by letter.
        title: Folded away under this title; always in sight without.
    """

    kind: ClassVar[str] = "verbatim"
    text: str
    title: str = ""


@dataclass(frozen=True)
class Tiles:
    """A few numbers, large, with their names.

    Args:
        values: Name and number.
    """

    kind: ClassVar[str] = "tiles"
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TableBlock:
    """A table as a block.

    Args:
        table: The table, with its notes.
    """

    kind: ClassVar[str] = "table"
    table: Table


@dataclass(frozen=True)
class Notes:
    """A list of remarks.

    Args:
        notes: Words between backticks are code, between double asterisks bold.
    """

    kind: ClassVar[str] = "notes"
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Drawings:
    """Figures of `eofm.report.plots`: several side by side, or one over the whole width.

    Args:
        figures: Description of each figure, and the figure.
        wide: Whether each figure takes the full width.
    """

    kind: ClassVar[str] = "drawings"
    figures: tuple[tuple[str, Figure], ...]
    wide: bool = False

    @property
    def inline(self) -> list[tuple[str, Markup, float]]:
        """Description, SVG and width in inches of each figure."""
        return [
            (words, Markup(output.svg(figure)), float(figure.get_size_inches()[0]))
            for words, figure in self.figures
        ]


@dataclass(frozen=True)
class Picture:
    """An image with its caption.

    Args:
        pixels: (H, W, 3), 0 to 1.
        words: Alternative text.
        caption: Below it.
        stressed: Whether it has a frame.
    """

    pixels: Pixels
    words: str
    caption: str = ""
    stressed: bool = False

    @property
    def address(self) -> str:
        """The image itself, as PNG inside an address."""
        from matplotlib import image

        values = np.asarray(self.pixels, dtype=np.float64).clip(0, 1)
        buffer = io.BytesIO()
        image.imsave(buffer, (values * 255).round().astype(np.uint8), format="png")
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows and columns.

    Args:
        heads: Of the columns.
        rows: Of pictures.
    """

    kind: ClassVar[str] = "sheet"
    heads: tuple[str, ...]
    rows: tuple[tuple[Picture, ...], ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, larger than those of a sheet.

    Args:
        pictures: With their captions.
    """

    kind: ClassVar[str] = "gallery"
    pictures: tuple[Picture, ...]


Block = Paragraph | Verbatim | Tiles | TableBlock | Notes | Drawings | Sheet | Gallery


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; a section without blocks is omitted from the page.

    Args:
        title: The heading.
        blocks: In order.
    """

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: Its name, in the window and above everything.
        sections: In order.
        lead: Blocks before the first heading.
        verdict: One sentence under the title; empty without.
        tone: Meaning of the verdict.
    """

    title: str
    sections: tuple[Section, ...]
    lead: tuple[Block, ...] = ()
    verdict: str = ""
    tone: Tone = Tone.PLAIN


def render(page: Page) -> str:
    """Return a page as one HTML document.

    Args:
        page: The page.
    """
    return environment().get_template("page.html.j2").render(page=page)


def save(page: Page, path: Path) -> Path:
    """Write a page and return its path.

    Args:
        page: The page.
        path: The HTML file.

    Raises:
        DataError: If it cannot be written.
    """
    return write_file(path, render(page).encode())


@functools.cache
def environment() -> Environment:
    """Return the templates of this package: every value is escaped, none may be missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("eofm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # runs on every value before it is escaped
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    made.filters["marked"] = marked
    return made


def marked(text: str) -> Markup:
    """Return an escaped text in which `code` and **bold** are elements.

    Args:
        text: With backticks and double asterisks; one without its second stays as it is.
    """
    safe = str(escape(printable(text)))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe))


# ---------------------------------------------------------------------------------------- explorer


@dataclass(frozen=True, eq=False)
class Explorer:
    """Content of the page.

    Args:
        title: Its name.
        codes: int8 (rows, columns, components); all 0 for cells without a vector.
        scale: Of each component, (components,).
        shifts: How far each row begins right of the picture's edge, in columns, (rows,), in [0, 1).
        picture: Under the cells, (H, W, 3) in [0, 1], H and W multiples of rows and columns; one
            column wider if a row is shifted.
        transform: From (column, row) of a cell's corner to coordinates: a, b, c, d, e, f.
        crs: Of the coordinates, by name; they are not shown if it is empty.
        lonlat: Longitude and latitude at evenly spaced rows and columns, ends included,
            (n, n, 2); the browser interpolates.
        notes: Below the picture; words between backticks are code, between double asterisks bold.
    """

    title: str
    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    shifts: NDArray[np.float64]
    picture: NDArray[np.float32]
    transform: tuple[float, float, float, float, float, float]
    crs: str
    lonlat: NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, object]:
        """Data for the script, in addition to the vectors."""
        rows, columns, components = self.codes.shape
        return {
            "rows": rows,
            "columns": columns,
            "components": components,
            "width": columns + bool(self.shifts.any()),
            "shifts": np.round(self.shifts, 4).tolist(),
            "scale": [float(value) for value in self.scale],
            "transform": list(self.transform),
            "crs": self.crs,
            "lonlat": np.round(self.lonlat, 6).tolist(),
        }

    @property
    def vectors(self) -> Markup:
        """All codes, row by row, in base64."""
        return Markup(base64.b64encode(np.ascontiguousarray(self.codes).tobytes()).decode())

    @property
    def background(self) -> Markup:
        """The picture, as PNG inside an address."""
        return Markup(Picture(self.picture, "").address)


def render_explorer(explorer: Explorer) -> str:
    """Return the page as one HTML document.

    Args:
        explorer: Content of the page.
    """
    return environment().get_template("explore.html.j2").render(page=explorer)
