"""Encoders for torch.hub: one function per published network, and `eofm` for any other weights.

    import torch

    encoder = torch.hub.load("path/to/eofm", "softcon_vits14_s2", source="local")
    vectors = encoder(encoder.preprocess(array, spec))

`path/to/eofm` is a clone, which need not be installed: torch and timm suffice. No download happens
if the file exists, if `weights=` names a local file, or with `EOFM_OFFLINE=1`. The result is an
`eofm.Encoder`, a plain module.

hub runs this file before it checks `dependencies`, so torch and timm are imported only when a
function is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from eofm.errors import WeightsError
from eofm.weights.cards import WEIGHTS, find
from eofm.weights.resolve import resolve

if TYPE_CHECKING:
    from eofm.weights.encoder import Encoder

__all__ = [
    "ENTRIES",
    "HubEntry",
    "eofm",
    "softcon_rn50_s1",
    "softcon_rn50_s2",
    "softcon_vitb14_s1",
    "softcon_vitb14_s2",
    "softcon_vits14_s1",
    "softcon_vits14_s2",
]


class HubEntry(Protocol):
    """Function that torch.hub calls by name."""

    def __call__(
        self,
        *,
        pretrained: bool = True,
        weights: str | None = None,
        check_hash: bool = True,
        progress: bool = True,
    ) -> Encoder:
        """Return an encoder."""


_ARGUMENTS: Final = """Args:
    pretrained: Load the weights; otherwise they are random, with the same recipe.
    weights: A path, a URL, or a name of `eofm models list`. None downloads the published file,
        unless it exists.
    check_hash: Compare the file with its published hash.
    progress: Show the progress of a download.
"""


def _entry(name: str, what: str) -> HubEntry:
    """Return the function of a published network."""

    def entry(
        *,
        pretrained: bool = True,
        weights: str | None = None,
        check_hash: bool = True,
        progress: bool = True,
    ) -> Encoder:
        return _published(name, pretrained, weights, check_hash=check_hash, progress=progress)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{what}.\n\n{_ARGUMENTS}"
    return entry


# ------------------------------------------------------------------------------ SoftCon

_L1C: Final = "the 13 bands of Sentinel-2 L1C (arXiv 2405.20462)"
_GRD: Final = "Sentinel-1 GRD, VV and VH (arXiv 2405.20462)"

softcon_vits14_s2 = _entry("softcon_vits14_s2", f"SoftCon ViT-S/14 for {_L1C}")
softcon_vitb14_s2 = _entry("softcon_vitb14_s2", f"SoftCon ViT-B/14 for {_L1C}")
softcon_rn50_s2 = _entry("softcon_rn50_s2", f"SoftCon ResNet-50 for {_L1C}")
softcon_vits14_s1 = _entry("softcon_vits14_s1", f"SoftCon ViT-S/14 for {_GRD}")
softcon_vitb14_s1 = _entry("softcon_vitb14_s1", f"SoftCon ViT-B/14 for {_GRD}")
softcon_rn50_s1 = _entry("softcon_rn50_s1", f"SoftCon ResNet-50 for {_GRD}")


# ------------------------------------------------------------------- any other weights


def eofm(
    *,
    weights: str,
    card: str | None = None,
    pretrained: bool = True,
    check_hash: bool = True,
    progress: bool = True,
) -> Encoder:
    """Return an encoder from the folder of an export, a published name, a weights file or its URL.

    Args:
        weights: As in `eofm.load_weights`.
        card: Name of the card that describes an unrecognised file or URL.
        pretrained: Load the weights; else a published name gives random weights and its recipe.
        check_hash: Compare a file with its published hash.
        progress: Show the progress of a download.
    """
    if not pretrained:
        return _random(weights)
    return _load(weights, card, check_hash=check_hash, progress=progress)


def _published(
    name: str, pretrained: bool, weights: str | None, *, check_hash: bool, progress: bool
) -> Encoder:
    if not pretrained:
        if weights is not None:
            raise WeightsError(
                "random weights come from no file",
                found=f"pretrained=False, weights={weights!r}",
                expected="one of the two",
                where=name,
            )
        return _random(name)
    if weights is None:
        return _load(name, None, check_hash=check_hash, progress=progress)
    # a name and an export have a card; a file and a URL are described by this one
    card = name if resolve(weights).takes_card else None
    encoder = _load(weights, card, check_hash=check_hash, progress=progress)
    expected = WEIGHTS[name]
    has = encoder.card.architecture, encoder.recipe.sensor, encoder.recipe.bands
    wants = expected.architecture, expected.recipe.sensor, expected.recipe.bands
    if has != wants:
        raise WeightsError(
            "these weights are for another network",
            found=f"{has[0]}, {has[1]}, {' '.join(has[2])}",
            expected=f"{wants[0]}, {wants[1]}, {' '.join(wants[2])}",
            where=weights,
            remedy="ask for them by their own name, or by eofm(weights=...)",
        )
    return encoder


def _load(weights: str, card: str | None, *, check_hash: bool, progress: bool) -> Encoder:
    from eofm.weights.load import load_weights

    return load_weights(weights, card=card, check_hash=check_hash, progress=progress)


def _random(name: str) -> Encoder:
    """Return the network of a card with random weights, determined by torch.manual_seed."""
    import torch

    from eofm.weights.encoder import random_encoder

    card, recipe = find(name)
    return random_encoder(card.architecture, recipe, int(torch.randint(2**31, ())))


# Comparison weights that need torchgeo load by `eofm.load_weights` where it is installed.
ENTRIES: Final[Mapping[str, HubEntry]] = {
    name: _entry(
        name,
        f"{card.architecture} for {card.recipe.sensor}: {card.objective}.\n\n"
        f"Licence {card.licence}",
    )
    for name, card in WEIGHTS.items()
    if not card.layout.needs_torchgeo and name not in globals()
}
