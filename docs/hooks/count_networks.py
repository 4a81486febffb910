"""Write `networks.json`: parameters and embedding dimension of every published network.

    python docs/hooks/count_networks.py

The networks are built without memory for their weights (torch's meta device). Those of torchgeo
need it installed.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from eofm.networks.build import build_blank
from eofm.networks.state import PositionRecipe
from eofm.weights.cards import WEIGHTS
from eofm.weights.cards.card import WeightCard


def count(card: WeightCard) -> dict[str, int]:
    """Return how many parameters the network of a card has, and the length of its vectors."""
    with torch.device("meta"):
        trunk = build_blank(card.architecture, card.recipe, PositionRecipe.DINOV2)
    return {
        "parameters": sum(value.numel() for value in trunk.parameters()),
        "dimension": trunk.dim,
    }


if __name__ == "__main__":
    facts = {name: count(card) for name, card in WEIGHTS.items()}
    text = json.dumps(facts, indent=1) + "\n"
    (Path(__file__).parent / "networks.json").write_text(text, "utf-8")
