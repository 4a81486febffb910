"""CroCo: an image of a place completed from another image of it (arXiv 2210.10716).

Nine tenths of a view are hidden, and predicted from the rest and from a whole second view. CroCo
uses two photographs of a scene; satellites provide two dates or two sensors of a place at no cost.
The second view helps to predict what did not change between the dates, or what both sensors see.

The network uses the second view if the loss with the true partner is below the loss with another
place's view (`benchmarks/terms`). A loss below the floor does not prove it, because the visible
patches explain a part too. The trunks of two sensors share everything but the input layer.

CroCo's schedule is for 800 epochs and stops at 400, so that the rate never reaches 0
(`docs/terms/croco.md` has the command). Colour jitter is drawn separately for each view.

Shapes: see `eofm.method.reconstruction`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
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

__all__ = ["TERM", "Completed", "CroCo", "CroCoSettings", "ViewPair"]


class ViewPair(StrEnum):
    """Kind of view pair: two seasons of a place, or its optical and radar images."""

    SEASONS = "seasons"
    SENSORS = "sensors"


class Completed(StrEnum):
    """View to predict from the other: the first, the second, or each in turn."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


@dataclass(frozen=True)
class CroCoSettings(WithDecoder):
    """Settings of the term `croco`; the decoder is as in the paper.

    Args:
        pair: The two views: `seasons` of a place, or its `sensors`.
        completed: The view that is predicted: the `first`, the `second`, or `both` in turn, which
            takes twice as long. With two sensors the first is the optical one.
        ratio: Share of its patches that are hidden; at least two stay visible.
        distance: Distance of pixels: `mse` or `l1`.
        decoder_width: Width of the decoder.
        decoder_depth: Number of decoder blocks.
        decoder_heads: Attention heads of the decoder.
        decoder_hidden: Hidden width of the decoder's MLPs.

    Raises:
        ConfigError: If a value is out of range.
    """

    pair: ViewPair = ViewPair.SEASONS
    completed: Completed = Completed.FIRST
    ratio: float = 0.9
    distance: PixelLoss = PixelLoss.MSE
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_hidden: int = 2048

    def __post_init__(self) -> None:
        require(0 < self.ratio < 1, "croco.ratio", self.ratio, "more than 0 and less than 1")

    @property
    def predicted(self) -> tuple[int, ...]:
        """Predicted views."""
        return {Completed.FIRST: (0,), Completed.SECOND: (1,), Completed.BOTH: (0, 1)}[
            self.completed
        ]


@final
class CroCo(Term[CroCoSettings]):
    """Predicts the pixels of one view of a place from the other.

    Args:
        settings: Settings of the term.
        facts: Facts about the trunk and the run.
        generator: Random generator of initial weights, on the CPU.

    Raises:
        ConfigError: If the trunk does not drop tokens, or the grid is too small to hide a patch.
    """

    about = "CroCo: one image of a place completed from another one (arXiv 2210.10716)"
    settings = CroCoSettings
    needs = Needs(views=ViewKind.SEASONS, tokens=Tokens.PATCHES)

    def __init__(
        self, settings: CroCoSettings, facts: RunFacts, generator: torch.Generator
    ) -> None:
        super().__init__(settings, facts, generator)
        bands = [facts.channels[view] for view in settings.predicted]
        self.decoders = make_decoders(
            "croco", facts, bands, settings.ratio, settings.decoder, generator, cross=True
        )

    @classmethod
    def needs_of(cls, settings: CroCoSettings) -> Needs:
        """Return the requirements: the view pair of the settings."""
        views = ViewKind.SENSORS if settings.pair is ViewPair.SENSORS else ViewKind.SEASONS
        return Needs(views=views, tokens=Tokens.PATCHES)

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the error of the hidden pixels, a mean over the predicted views."""
        mask, chosen = RandomMask(self.chosen.ratio), self.chosen
        return completion(
            self.decoders, seen, chosen.predicted, mask, self.facts, chosen.distance, cross=True
        )


TERM = CroCo
