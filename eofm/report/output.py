"""Shared by all figures: their style, and what becomes of them: PNG, SVG, a file.

The palette is safe for colour-blind readers (Okabe and Ito, with gray for black and a darker
yellow, visible on light and dark backgrounds). matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from eofm.io import write_file
from eofm.report.tables import shorten

if TYPE_CHECKING:
    from matplotlib.artist import Artist

    # the folders above have the type from here
    from matplotlib.figure import Figure as Figure  # noqa: PLC0414
    from matplotlib.figure import SubFigure

__all__ = [
    "INK",
    "PALETTE",
    "colour",
    "label_of",
    "legend",
    "marker",
    "new_figure",
    "png",
    "save",
    "styled",
    "svg",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

PALETTE: Final = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#606060", "#A8A03C"),
)
# Near black, and in no palette: in an SVG it becomes the colour of the page's text.
INK: Final = "#1d1e21"
_GRID: Final = "#8080805a"
_MARKERS: Final = ("o", "s", "^", "D", "v", "p", "X", "*")
_DPI: Final = 130


@contextmanager
def _style() -> Iterator[None]:
    """Draw in ink, keep letters as text, and let fonts lack a script without a warning."""
    import matplotlib as mpl

    colours = ("text.color", "xtick.color", "ytick.color", "axes.labelcolor", "axes.edgecolor")
    settings: dict[str, Any] = {
        **dict.fromkeys((*colours, "legend.labelcolor"), INK),
        **{"svg.fonttype": "none", "svg.hashsalt": "eofm", "font.family": "sans-serif"},
        **{"font.size": 8, "axes.titlesize": 9.5, "axes.titlelocation": "left"},
        **{"axes.grid": False, "axes.axisbelow": True, "grid.color": _GRID, "grid.linewidth": 0.5},
        **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False},
    }
    # mypy has the type of its keys spelled out one by one
    with mpl.rc_context(settings), warnings.catch_warnings():  # type: ignore[arg-type]
        # a browser has the letters that matplotlib's font lacks; a PNG shows boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function draw in the style of all figures."""

    @functools.wraps(draw)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _style():
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sides in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def colour(number: int) -> str:
    """Return the colour of the n-th series."""
    return PALETTE[number % len(PALETTE)]


def marker(number: int) -> str:
    """Return the marker of the n-th series: the first 64 differ in colour or marker."""
    return _MARKERS[(number + number // len(PALETTE)) % len(_MARKERS)]


def label_of(name: str, length: int = 36) -> str:
    """Return a name as matplotlib shows it letter by letter: `$` begins no formula."""
    return shorten(name, length).replace("$", r"\$")


def legend(figure: Figure | SubFigure, handles: Mapping[str, Artist], title: str = "") -> None:
    """Draw a legend to the right of the data, also of names that begin with an underscore."""
    drawn = figure.legend(
        list(handles.values()),
        ["name"] * len(handles),
        loc="outside right upper",
        title=title or None,
        fontsize=8,
        title_fontsize=8,
    )
    for text, name in zip(drawn.get_texts(), handles, strict=True):
        text.set_text(label_of(name))


@styled
def png(figure: Figure) -> bytes:
    """Return a figure as PNG on white, without the time of its making."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path, remedy: str = "name another --out") -> Path:
    """Write a figure as PNG and return its path.

    Raises:
        DataError: If it cannot be written.
    """
    return write_file(path, png(figure), remedy)


@styled
def svg(figure: Figure) -> str:
    """Return a figure as an SVG element of a page: no background, ink in the page's colour.

    Letters stay text. Ids inside it are derived from its content, so that several figures on
    one page do not conflict. It has no fixed size and fills the available width.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z]+[A-Za-z0-9]*_[0-9]+"', "", text)  # `axes_1`: never referenced
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
