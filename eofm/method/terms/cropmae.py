"""CropMAE: a nearly fully masked crop is predicted from the whole image (arXiv 2403.17823).

View 0 is not masked; view 1 is a crop of it (`data.views nested`), of which a few patches stay
visible to locate it. To predict the rest, the network must find the crop in the whole image and
resample it. It thus learns correspondence from single images, without a teacher and without colour
augmentation.

The paper's share, 98.5 % of 196 patches, leaves two visible. On small grids the same share leaves
none, and the loss would still fall by predicting the mean image; therefore two are always kept.

Shapes: see `eofm.method.reconstruction`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from eofm.contract.imagery import Labels
from eofm.errors import require
from eofm.method.reconstruction import PixelLoss, WithDecoder, completion, make_decoders
from eofm.method.terms.seam import (
    Needs,
    RandomMask,
    RunFacts,
    Seen,
    Term,
    TermOutput,
    Tokens,
    ViewKind,
)

__all__ = ["TERM", "CropMae", "CropMaeSettings"]


@dataclass(frozen=True)
class CropMaeSettings(WithDecoder):
    """Settings of the term `cropmae`, as in the paper except for its image size.

    Args:
        ratio: Share of the crop's patches that are hidden; at least two stay visible.
        distance: Distance of pixels: `mse` or `l1`.
        decoder_width: Width of the decoder.
        decoder_depth: Number of decoder blocks.
        decoder_heads: Attention heads of the decoder.
        decoder_hidden: Hidden width of the decoder's MLPs.

    Raises:
        ConfigError: If a value is out of range.
    """

    ratio: float = 0.985
    distance: PixelLoss = PixelLoss.MSE
    decoder_width: int = 256
    decoder_depth: int = 4
    decoder_heads: int = 8
    decoder_hidden: int = 2048

    def __post_init__(self) -> None:
        require(0 < self.ratio < 1, "cropmae.ratio", self.ratio, "more than 0 and less than 1")


@final
class CropMae(Term[CropMaeSettings]):
    """Predicts the pixels of a crop from the image around it.

    Args:
        settings: Settings of the term.
        facts: Facts about the trunk and the run.
        generator: Random generator of initial weights, on the CPU.

    Raises:
        ConfigError: If the trunk does not drop tokens, or the grid is too small to hide a patch.
    """

    about = "CropMAE: a crop predicted from the image around it (arXiv 2403.17823)"
    settings = CropMaeSettings
    needs = Needs(views=ViewKind.NESTED, tokens=Tokens.PATCHES)

    def __init__(
        self, settings: CropMaeSettings, facts: RunFacts, generator: torch.Generator
    ) -> None:
        super().__init__(settings, facts, generator)
        self.decoders = make_decoders(
            "cropmae",
            facts,
            facts.channels[1:],
            settings.ratio,
            settings.decoder,
            generator,
            cross=True,
        )

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the error of the crop's hidden pixels."""
        mask, form = RandomMask(self.chosen.ratio), self.chosen.distance
        return completion(self.decoders, seen, (1,), mask, self.facts, form, cross=True)


TERM = CropMae
