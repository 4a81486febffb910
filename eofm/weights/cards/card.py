"""The card of published weights: description, address and recipe. No torch.

A card is written by hand from the sources it cites. The cards themselves are literal tables in the
other modules of this folder; `eofm.weights.cards` merges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError

__all__ = ["UNSTATED", "Score", "StateLayout", "WeightCard"]

UNSTATED: Final = "not stated"  # unstated licences are never assumed


class StateLayout(StrEnum):
    """Naming scheme of the tensors in a weights file; each has its key map.

    `eofm.weights.keymaps` holds one pure, strict function per layout.
    """

    DINOV2 = "dinov2"  # Meta's names, with or without registers; also SoftCon's ViT files
    TIMM_DINOV2 = "timm-dinov2"  # timm's, no mask token; also torchgeo's `_enc` files of SoftCon
    TRANSFORMERS_DINOV2 = "transformers-dinov2"  # Hugging Face's Dinov2Model
    RESNET = "resnet"  # torchvision's and timm's, with or without fc
    TIMM = "timm"  # those of the timm model that the architecture names
    MOCO_V3_VIT = "moco-v3-vit"  # MoCo and DINO of zhu-xlab/SSL4EO-S12: a plain ViT in timm's names
    MAE_ENCODER = "mae-encoder"  # zhu-xlab/SSL4EO-S12 and FGMAE, encoder only
    DOFA = "dofa"
    COPERNICUS_FM = "copernicus-fm"
    PANOPTICON = "panopticon"
    CROMA_S2 = "croma-s2"  # one file, two encoders
    CROMA_S1 = "croma-s1"

    @property
    def needs_torchgeo(self) -> bool:
        """Whether the network is built from torchgeo's modules, an extra."""
        return self in {
            StateLayout.DOFA,
            StateLayout.COPERNICUS_FM,
            StateLayout.PANOPTICON,
            StateLayout.CROMA_S2,
            StateLayout.CROMA_S1,
        }


@dataclass(frozen=True)
class Score:
    """A published number. It was not measured here, and its protocol differs from ours.

    Args:
        task: `bigearthnet-10%`, `eurosat`, ...
        probe: `linear`, `fine-tune`, `knn`.
        metric: As the source names it.
        value: Times 100.
        source: arXiv id or repository, and what is known about split and metric.
    """

    task: str
    probe: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class WeightCard:
    """Published weights.

    Args:
        name: Name for `eofm.load_weights`, `eofm models` and torch.hub.
        architecture: Name for `eofm.networks.build.build`.
        url: Address of the file, at a pinned revision if the host has one.
        layout: Naming scheme of its tensors.
        recipe: Recipe of the network.
        recipe_source: Source of the recipe: repository and file, paper section.
        objective: Objective of its training, with the paper.
        training_data: Description of the training data.
        licence: SPDX identifier, or the licence's name.
        paper: arXiv id.
        sha256: Published hash, complete or as the leading digits in a file name. Empty if none is
            published: then the hash of the first download is recorded, and later ones are compared
            with it.
        alternatives: Other claims about the network's input, by name, for comparison: selected
            as `name@alternative`.
        scores: Published scores.
        note: Notes for users.
    """

    name: str
    architecture: str
    url: str
    layout: StateLayout
    recipe: Recipe
    recipe_source: str
    objective: str
    training_data: str
    licence: str
    paper: str
    sha256: str = ""
    alternatives: Mapping[str, Recipe] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    note: str = ""

    def __repr__(self) -> str:
        recipe = self.recipe
        return (
            f"WeightCard({self.name}: {self.architecture}, {recipe.sensor}, {len(recipe.bands)} "
            f"bands in {recipe.unit}, {recipe.size[0]} x {recipe.size[1]} px; {self.licence})"
        )

    @property
    def filename(self) -> str:
        """Name of the file as published."""
        return self.url.rsplit("/", 1)[-1].partition("?")[0]

    def recipe_called(self, alternative: str) -> Recipe:
        """Return the recipe, or the alternative of that name; "" is the recipe itself.

        Raises:
            WeightsError: If there is no such alternative.
        """
        if not alternative:
            return self.recipe
        if alternative not in self.alternatives:
            raise WeightsError(
                f"{self.name} has no recipe {alternative!r}",
                found=alternative,
                expected=", ".join(self.alternatives) or "no alternatives",
                remedy=f"leave out @{alternative} for the recipe it was trained with",
            )
        return self.alternatives[alternative]
