"""The few pieces of HTML the page is made of."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib import image
from numpy.typing import NDArray
from torch import Tensor

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c1c1e;--paper:#fff;--faint:#6b6b70;--line:#d9d9de;
--box:#f5f5f7;--warn:#b3261e;--good:#1b7f3b}
@media(prefers-color-scheme:dark){:root{--ink:#e6e6ea;--paper:#17171a;--faint:#9a9aa2;
--line:#38383e;--box:#222226;--warn:#ff8a80;--good:#7bd88f}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:76rem;margin:2rem auto;padding:0 1.2rem}
h1{margin:0;font-size:1.7rem}h2{margin:2.6rem 0 .4rem;font-size:1.25rem;
border-top:1px solid var(--line);padding-top:1.2rem}
p,figcaption,.note{max-width:52rem}.note,figcaption{color:var(--faint);font-size:.86rem}
.state{font-weight:600}.warn{color:var(--warn)}.good{color:var(--good)}
table{border-collapse:collapse;margin:.8rem 0;font-size:.9rem}
td,th{padding:.18rem .8rem .18rem 0;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
tr.mark td{font-weight:600}
.tiles{display:flex;flex-wrap:wrap;gap:.7rem;margin:1.1rem 0}
.tile{background:var(--box);border-radius:.5rem;padding:.55rem .9rem}
.tile b{display:block;font-size:1.2rem;font-variant-numeric:tabular-nums}
.tile span{color:var(--faint);font-size:.8rem}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(23rem,1fr));gap:.6rem 1.4rem}
.charts svg,.wide svg{width:100%;height:auto;color:var(--ink);font-family:system-ui,sans-serif}
.wide svg{max-width:46rem}
.sheet{border-collapse:separate;border-spacing:.35rem;margin:0}
.sheet td,.sheet th{border:0;padding:0;font-weight:400;font-size:.78rem;color:var(--faint);
max-width:9.2rem}.sheet img,.matrix img{width:9rem;height:9rem;display:block;
image-rendering:pixelated;border-radius:.2rem}.sheet .hit img{outline:2px solid var(--good)}
.matrices{display:flex;flex-wrap:wrap;gap:1.4rem}.matrix img{width:17rem;height:17rem}
figure{margin:0}.scroll{overflow-x:auto}
pre{background:var(--box);padding:.8rem;border-radius:.5rem;overflow-x:auto;font-size:.8rem}
details{margin:.6rem 0}summary{cursor:pointer}
"""


def escape(text: object) -> str:
    """Return text as HTML shows it."""
    return html.escape(str(text))


def document(title: str, body: Sequence[str]) -> str:
    """Return a page that needs nothing from outside."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a section, or nothing if it would be empty."""
    body = "".join(parts)
    return f"<h2>{escape(title)}</h2>{body}" if body else ""


def note(text: str) -> str:
    """Return a remark."""
    return f'<p class="note">{escape(text)}</p>'


def table(
    heads: Sequence[str], rows: Sequence[Sequence[object]], *, mark: int | None = None
) -> str:
    """Return a table; all columns but the first are numbers.

    Args:
        heads: Of the columns.
        rows: Of cells.
        mark: The row to stress.
    """
    head = "".join(f"<th{_number(i)}>{escape(name)}</th>" for i, name in enumerate(heads))
    lines = "".join(
        f"<tr{' class=mark' if i == mark else ''}>"
        + "".join(f"<td{_number(j)}>{escape(cell)}</td>" for j, cell in enumerate(row))
        + "</tr>"
        for i, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'


def _number(column: int) -> str:
    return ' class="n"' if column else ""


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Return a row of numbers with their names."""
    made = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in values
    )
    return f'<div class="tiles">{made}</div>'


def folded(title: str, text: str) -> str:
    """Return a text that is shown on demand, or nothing if there is none."""
    if not text.strip():
        return ""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def picture(pixels: Tensor | NDArray[np.float64], words: str) -> str:
    """Return an image element.

    Args:
        pixels: (H, W, 3), 0 to 1.
        words: What it shows, for those who cannot see it.
    """
    values = np.asarray(pixels, dtype=np.float64).clip(0, 1)
    buffer = io.BytesIO()
    image.imsave(buffer, (values * 255).round().astype(np.uint8), format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{data}">'


def sheet(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return pictures in rows and columns; a cell is HTML."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    lines = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="sheet"><tr>{head}</tr>{lines}</table></div>'


def cell(content: str, caption: str = "", *, hit: bool = False) -> str:
    """Return a cell of a sheet."""
    return f"<td{' class=hit' if hit else ''}>{content}{escape(caption)}</td>"
