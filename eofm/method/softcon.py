"""SoftCon on its own: the run's only term, with the parts that it has as attributes.

What a run trains is `eofm.method.combined.CombinedTerms`; this is the same for a user in Python,
and for an objective of one's own that changes what embeddings are compared by.

Shapes: B student images (rows), C bands, H by W pixels, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.method.combined import CombinedTerms, FrozenInput, Valid
from eofm.method.config import Objective, SoftConConfig
from eofm.method.distributed import KeyQueue
from eofm.method.masking import MaskedTrunk
from eofm.method.similarity import LabelFacts
from eofm.method.teacher import Branch
from eofm.method.terms.seam import RandomMask
from eofm.method.terms.softcon import SoftConOutput, SoftContrast


class SoftCon(CombinedTerms):
    """Student, predictor and teacher, and one step of the objective.

    A subclass is an objective of its own (`eofm.method.objectives`).

    Args:
        trunk: The encoder to pretrain: an `nn.Module` that is a `MaskedTrunk`.
        config: The objective.
        generator: Source of the heads' initial weights, on the CPU.
        facts: Properties of the training labels: `label_facts`.
        band_mean: Value of a band's mean in normalised units, with which hidden pixels are filled
            if `config.mask_fill` says so.

    Raises:
        ConfigError: If the trunk is no `nn.Module`, or the objective is that of `multilabel`.
    """

    teacher: Branch

    def __init__(
        self,
        trunk: MaskedTrunk,
        config: SoftConConfig,
        generator: torch.Generator,
        facts: LabelFacts = LabelFacts(),  # noqa: B008 (frozen)
        *,
        band_mean: float = 0.0,
    ) -> None:
        if config.objective is Objective.MULTILABEL or config.terms is not None:
            raise ConfigError(
                "SoftCon is one term, and does not predict labels",
                found=f"objective {config.objective}, terms {config.terms}",
                remedy="use eofm.method.combined.CombinedTerms for other terms",
            )
        plain = config
        if not isinstance(config.objective, Objective):  # one of one's own, which this is
            plain = replace(config, objective=Objective.SOFTCON)
        super().__init__(trunk, plain, generator, facts, band_mean=band_mean)

    @property
    def term(self) -> SoftContrast:
        """The term."""
        return cast("SoftContrast", self.terms[Objective.SOFTCON])

    @property
    def predictor(self) -> nn.Sequential:
        """The layers of the student's side alone."""
        return self.term.predictor

    @property
    def bias(self) -> Float[Tensor, ""] | None:
        """Of the bce form."""
        return self.term.bias

    @property
    def log_scale(self) -> nn.Parameter | None:
        """Of the bce form, where it is learned."""
        return self.term.log_scale

    @property
    def queue(self) -> KeyQueue | None:
        """Keys of earlier steps."""
        return self.term.queue

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """Which view the student sees and which the teacher, once or twice."""
        return self.term.directions

    def forward(
        self,
        views: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b other h w"]],
        labels: Labels | tuple[Labels, Labels],
        generator: torch.Generator,
        valid: Valid | None = None,
        frozen_input: FrozenInput | None = None,
    ) -> SoftConOutput:
        """Return the loss of a batch and what there is to log.

        Args:
            views: Two views of the same B images, each (B, C, H, W), normalised.
            labels: Of the images, or of each view where the two are of different seasons.
            generator: Source of the masks.
            valid: Not read: vectors alone are compared.
            frozen_input: Not read: there is no frozen teacher.

        Raises:
            TrainingError: If the batch has fewer than two images: there is nothing to contrast.
        """
        seen = self.see(views, generator)
        output = self.loss(*self.term.embed(seen), labels)
        mask = RandomMask(self.config.mask_ratio)
        keep = tuple(seen.keep(student, mask) for student, _ in self.directions)
        return replace(output, keep=keep)

    def loss(
        self,
        queries: Sequence[Float[Tensor, "b d"]],
        keys: Sequence[Float[Tensor, "b d"]],
        labels: Labels | tuple[Labels, Labels],
    ) -> SoftConOutput:
        """Return the loss of embeddings: see `SoftContrast.contrast`."""
        return self.term.contrast(queries, keys, labels)
