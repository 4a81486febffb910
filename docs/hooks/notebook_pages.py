"""The notebooks as pages, with the outputs that are stored in them."""

from __future__ import annotations

import base64
import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

FOLDER = "notebooks"


def pages(root: Path) -> dict[str, str]:
    """Return path -> Markdown of every notebook."""
    return {
        f"{FOLDER}/{path.stem}.md": _page(path)
        for path in sorted((root / "docs" / FOLDER).glob("*.ipynb"))
    }


def pictures(root: Path) -> dict[str, bytes]:
    """Return path -> PNG of every figure that a notebook has drawn."""
    made = {}
    for path in sorted((root / "docs" / FOLDER).glob("*.ipynb")):
        for number, cell in enumerate(_cells(path)):
            for place, output in enumerate(cell.get("outputs", [])):
                data = output.get("data", {}).get("image/png")
                if data:
                    name = f"{FOLDER}/{_picture(path, number, place)}"
                    made[name] = base64.b64decode(_text(data))
    return made


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["cells"]
    return cells


def _picture(path: Path, cell: int, place: int) -> str:
    return f"{path.stem}-{cell}-{place}.png"


def _page(path: Path) -> str:
    parts = []
    for number, cell in enumerate(_cells(path)):
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(_fenced(source, "python"))
        outputs = enumerate(cell.get("outputs", []))
        for printed, group in groupby(outputs, lambda pair: pair[1]["output_type"] == "stream"):
            if printed:
                parts.append(_printed("".join(_text(output["text"]) for _, output in group)))
            else:
                parts += [_output(output, _picture(path, number, place)) for place, output in group]
    note = f"*A notebook with its stored outputs: [download it]({path.name}).*"
    title, _, rest = "\n\n".join(parts).partition("\n\n")
    return f"{title}\n\n{note}\n\n{rest}\n"


def _output(output: dict[str, Any], picture: str) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="eofm-output">{_one_block(_text(data["text/html"]))}</div>'
    if "image/png" in data:
        return f"![A figure drawn by the cell above]({picture})"
    return _printed(_text(data.get("text/plain", "")))


def _printed(text: str) -> str:
    return _fenced(text.rstrip(), "{.text .eofm-printed}") if text.strip() else ""


def _fenced(text: str, language: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _one_block(html: str) -> str:
    # a blank line would end the block of HTML
    return re.sub(r"\n\s*\n", "\n", html)


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)
