"""CroCo: one image of a place completed from another one (arXiv 2210.10716).

Nine tenths of a view are hidden, and predicted from the rest and from the whole of a second view.
Where CroCo has two photographs of a scene, a satellite has two dates or two sensors of a place for
nothing: what of the one is to be learned from the other is what did not change between the dates,
or what both sensors see of the ground.

The network has learned to look at the second view where the loss with the true partner is below
that with another place's (`benchmarks/terms`); a loss below the floor alone does not tell, because
the visible patches explain a part too. Two trunks of sensors share everything but the input layer.

CroCo lays its schedule out for 800 epochs and stops at 400, so that the rate never reaches 0
(`docs/terms/croco.md` has the command), and its views differ in colour, drawn for each.

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
    """What the two views are: seasons of a place, or its optical and its radar image."""

    SEASONS = "seasons"
    SENSORS = "sensors"


class Completed(StrEnum):
    """Which view is predicted from the other: the first, the second, or each in turn."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


@dataclass(frozen=True)
class CroCoSettings(WithDecoder):
    """Settings of the term `croco`; the decoder is the paper's.

    Args:
        pair: The two views: `seasons` of a place, or the `sensors` of it.
        completed: The view that is predicted: the `first`, the `second`, or `both` in turn, which
            takes twice as long. Of two sensors the first is the optical one.
        ratio: Share of its patches that are hidden; two stay visible whatever it is.
        distance: Of pixels: `mse` or `l1`.
        decoder_width: Width of the decoder.
        decoder_depth: Number of its blocks.
        decoder_heads: Its attention heads.
        decoder_hidden: Hidden width of its MLPs.

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
        """The views that are predicted."""
        return {Completed.FIRST: (0,), Completed.SECOND: (1,), Completed.BOTH: (0, 1)}[
            self.completed
        ]


@final
class CroCo(Term[CroCoSettings]):
    """The pixels of one view of a place from the other.

    Args:
        settings: Of the term.
        facts: What there is to know of the trunk and the run.
        generator: Source of initial weights, on the CPU.

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
        """Return what has to be there: the two views of the setting."""
        views = ViewKind.SENSORS if settings.pair is ViewPair.SENSORS else ViewKind.SEASONS
        return Needs(views=views, tokens=Tokens.PATCHES)

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the error of the hidden pixels, a mean over the views that are predicted."""
        mask, chosen = RandomMask(self.chosen.ratio), self.chosen
        return completion(
            self.decoders, seen, chosen.predicted, mask, self.facts, chosen.distance, cross=True
        )


TERM = CroCo
