"""Merge two encoders by linear interpolation of weights, θ = θ_A + α (θ_B - θ_A).

Between the initial weights of a training and its result there are encoders that have forgotten
less of the former and learned less of the latter (WiSE-FT, arXiv 2109.01903); the trade-off needs
no training. The interpolation is a straight line in weight space, and is meaningful only between
networks that came from the same start.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.networks.state import has_batch_norm, load_strict
from eofm.weights.cards.card import UNSTATED
from eofm.weights.config import MergeModelsConfig
from eofm.weights.encoder import Card, Encoder, build_trunk, library_versions
from eofm.weights.export import Exported, export_encoder
from eofm.weights.load import load_weights
from eofm.weights.resolve import resolve

__all__ = ["merge_encoders", "merge_models"]


def merge_encoders(first: Encoder, second: Encoder, alpha: float, name: str) -> Encoder:
    """Return the interpolated encoder; 0 is the first one, 1 the second, bit for bit.

    Batch-norm statistics are interpolated too, as stated on the card; they differ from those of the
    merged network's own activations. Integers are copied from the nearer encoder.

    Args:
        first: A.
        second: B, of the same architecture, positions and recipe.
        alpha: Share of the second, 0 to 1.
        name: Of the merged encoder.

    Raises:
        WeightsError: If the two do not match.
    """
    _check(first.card, second.card)
    trunk, theirs = build_trunk(first.card), second.trunk.state_dict()
    state = {
        key: _between(tensor, theirs[key], alpha)
        for key, tensor in first.trunk.state_dict().items()
    }
    load_strict(trunk, state, where=name)
    card = _card(first.card, second.card, alpha, name)
    if has_batch_norm(trunk):
        card = replace(
            card, source=f"{card.source}; statistics of batch norms interpolated as well"
        )
    return Encoder(trunk, card)


def _between(one: Tensor, other: Tensor, alpha: float) -> Tensor:
    if not one.is_floating_point():
        return one if alpha < 0.5 else other
    return torch.lerp(one.detach().cpu(), other.detach().cpu(), alpha)


def _check(first: Card, second: Card) -> None:
    """Raise an error for encoders that cannot be interpolated.

    Raises:
        WeightsError: If architecture, positions or recipe differ; the message names the difference.
    """
    one, other = (_compared(card) for card in (first, second))
    unlike = [
        f"{key}: {_short(value)} and {_short(other[key])}"
        for key, value in one.items()
        if value != other[key]
    ]
    if unlike:
        raise WeightsError(
            "only encoders of one architecture and one recipe can be merged",
            found="; ".join(unlike),
            expected="the same of both, as of the start and the student of one run",
            where=f"{first.name} and {second.name}",
        )


def _short(value: object) -> str:
    """Return a differing value if it fits into a line; constants of all bands do not."""
    text = str(value)
    if isinstance(value, (tuple, list)) and all(isinstance(one, str) for one in value):
        text = " ".join(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _compared(card: Card) -> dict[str, object]:
    recipe = asdict(_without_source(card.recipe))
    return {"architecture": card.architecture, "positions": str(card.positions), **recipe}


def _without_source(recipe: Recipe) -> Recipe:
    """Return the recipe without the description of the source of its constants."""
    return replace(recipe, normalization=replace(recipe.normalization, source="any"))


def _card(first: Card, second: Card, alpha: float, name: str) -> Card:
    """Return the card of the merged encoder: both are named, with the hashes of their weights."""
    both = (first, second)
    words = " and ".join(f"{card.name} ({card.source}; sha256 {card.sha256[:12]})" for card in both)
    licences = list(dict.fromkeys(card.licence for card in both))
    counts = {
        f"{which} {key}": count
        for which, card in zip(("first", "second"), both, strict=True)
        for key, count in card.counts.items()
    }
    return replace(
        first,
        name=name,
        objective=_joined(first.objective, second.objective),
        source=f"merged, alpha {alpha:g} of the second: {words}",
        training_data=_joined(first.training_data, second.training_data),
        counts=counts,
        synthetic=first.synthetic or second.synthetic,
        licence=UNSTATED if UNSTATED in licences else " AND ".join(licences),
        url="",
        paper=_joined(*(card.paper for card in both if card.paper)),
        config_hash="",
        versions=library_versions(),
        sha256="",
    )


def _joined(*words: str) -> str:
    return "; ".join(dict.fromkeys(words))


def merge_models(config: MergeModelsConfig) -> Exported:
    """Merge two encoders and write the result.

    Raises:
        WeightsError: If one cannot be read, the two do not match, the result would replace one of
            them, or it cannot be written.
    """
    out = Path(config.out)
    for words in (config.first, config.second):
        place = resolve(words).path
        if place is not None and place.resolve() == out.resolve():
            raise WeightsError(
                "the merged encoder would replace one of the two",
                found=config.out,
                where="out",
                remedy="name another folder",
            )
    first, second = (load_weights(words) for words in (config.first, config.second))
    return export_encoder(merge_encoders(first, second, config.alpha, out.name), out)
