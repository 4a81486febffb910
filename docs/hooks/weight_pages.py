"""The page of published weights, from their cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eofm.weights.cards import WEIGHTS
from eofm.weights.cards.card import WeightCard

FACTS = Path(__file__).parent / "networks.json"


def page() -> str:
    """Return the Markdown of the page: a table that can be filtered, then a part per card."""
    facts = json.loads(FACTS.read_text("utf-8"))
    lines = [
        "---",
        "hide: [toc]",
        "---",
        "",
        "# Weight cards",
        "",
        f"The {len(WEIGHTS)} published weights that eofm knows by name. Nothing is shipped: a",
        "file is fetched from its publisher when it is first used, and its hash compared.",
        "Parameters and dimension are counted on the network that eofm builds; the size is that",
        "of these parameters in float32, in MB, and a published file may hold more (heads, a",
        "teacher) or less (float16).",
        "",
        '<input class="eofm-filter" placeholder="filter: s2-l1c, vit, apache …">',
        "",
        "| name | architecture | sensor | bands | parameters | dimension | MB | licence |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    lines += [_row(card, facts) for card in WEIGHTS.values()]
    lines += ["", *(line for card in WEIGHTS.values() for line in _card(card))]
    return "\n".join(lines)


def _row(card: WeightCard, facts: dict[str, Any]) -> str:
    known = facts.get(card.name)
    numbers = ("", "", "")
    if known:
        millions = known["parameters"] / 1e6
        numbers = (f"{millions:.1f} M", str(known["dimension"]), f"{millions * 4:.0f}")
    cells = [
        f"[`{card.name}`](#{card.name})",
        card.architecture,
        str(card.recipe.sensor),
        str(len(card.recipe.bands)),
        *numbers,
        card.licence,
    ]
    return f"| {' | '.join(cells)} |"


def _card(card: WeightCard) -> list[str]:
    recipe, norm = card.recipe, card.recipe.normalization
    rows = {
        "licence": card.licence,
        "trained on": card.training_data,
        "objective": card.objective,
        "paper": f"[arXiv {card.paper}](https://arxiv.org/abs/{card.paper})",
        "expects": f"`{recipe.sensor}` in unit `{recipe.unit}`, "
        f"{recipe.size[0]} x {recipe.size[1]} px, bands {' '.join(recipe.bands)}",
        "normalisation": norm.source + (f"; clipped to {list(norm.clip)}" if norm.clip else ""),
        "says who": card.recipe_source,
        "file": f"`{card.filename}`",
        "sha256": f"`{card.sha256}`" if card.sha256 else "none published: the first is recorded",
        "also": ", ".join(f"`{card.name}@{name}`" for name in card.alternatives),
        "note": card.note,
    }
    lines = [f"## `{card.name}` {{#{card.name}}}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_cell(text)} |" for key, text in rows.items() if text]
    if card.scores:
        scores = "; ".join(f"{s.task}, {s.probe}: {s.value:g}" for s in card.scores)
        lines.append(f"| as published | {_cell(scores)} |")
    return [*lines, ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
