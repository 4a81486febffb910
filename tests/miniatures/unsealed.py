"""Files as eofm 0.1 wrote them, without checksums; and edited ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[dict[str, Any]], object]


def _nothing(plain: dict[str, Any]) -> None:
    """Change nothing."""


def unseal_store(store: Path, change: Change = _nothing) -> None:
    """Take the checksums out of a store's card, and change what it says."""
    file = store / "spec.json"
    plain = json.loads(file.read_text())
    for key in ("checksum", "index_sha256"):
        plain.pop(key, None)
    change(plain)
    file.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def edit_store(store: Path, change: Change) -> None:
    """Change what a store's card says, as somebody with a text editor does."""
    file = store / "spec.json"
    plain = json.loads(file.read_text())
    change(plain)
    file.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def unseal_journal(file: Path, change: Change = _nothing) -> None:
    """Take the checksums out of a journal and the card in it, and change what the card says."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line.pop("crc32", None)
    card = json.loads(lines[0]["card"])
    for key in ("checksum", "index_sha256"):
        card.pop(key, None)
    change(card)
    lines[0]["card"] = json.dumps(card)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def remedies(said: str) -> list[list[str]]:
    """Return the words of every `eofm` command that a text names as a remedy."""
    return [words.split() for words in re.findall(r"remedy: +eofm (.+)", said)]
