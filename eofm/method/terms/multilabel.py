"""The control without contrast: labels are predicted with binary cross entropy.

What SoftCon (`eofm.method`) gains from labels, a plain classifier might gain as well. This control
has the same trunk, views, masks and steps, and only a linear layer on the pooled vector. If it is
as good, the contrastive part brings no benefit.

There is no teacher to learn from. A moving average is still computed for the export, because
SoftCon's teacher is a moving average, and averaging alone can improve a network.

Shapes: B images, C bands, H by W pixels, D width, K classes, P patches of which M are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.method.branches import linear_layer
from eofm.method.config import SoftConConfig
from eofm.method.distributed import mean_over_ranks
from eofm.method.similarity import labelled
from eofm.method.terms.seam import (
    Needs,
    RandomMask,
    RunFacts,
    Seen,
    Side,
    TeacherKind,
    Term,
    TermOutput,
)

__all__ = ["CLASSIFIER", "TERM", "MultiLabel", "bce_loss"]

# The head that is averaged, and its name in checkpoints.
CLASSIFIER: Final = "classifier"


def bce_loss(logits: Float[Tensor, "b k"], labels: Labels) -> Float[Tensor, ""]:
    """Return the mean binary cross entropy over the classes of the labelled images.

    Images without labels or with an empty set are excluded, as their classes are unknown. If no
    image is left the loss is 0, still connected to the logits.

    Args:
        logits: (B, K).
        labels: Of the images.
    """
    counts = labelled(labels, labels.multi_hot)[:, None]
    target = torch.where(counts, labels.multi_hot.float(), 0)
    with torch.autocast(logits.device.type, enabled=False):
        each = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return mean_over_ranks((each * counts).sum(), counts.sum() * logits.shape[1])


@final
class MultiLabel(Term[SoftConConfig]):
    """A linear layer that predicts labels from SoftCon's views, and its moving average.

    The moving average never processes an image, so its batch norm statistics must be computed
    before it is used (`eofm.networks.state.refresh_batch_norms`).

    Args:
        settings: Mask, and whether both views are classified (`symmetric`); other settings of
            SoftCon are ignored.
        facts: Facts about the trunk and the training labels.
        generator: Random generator of the classifier's initial weights, on the CPU.
    """

    about = "control: multi-label classification by binary cross entropy, no contrast"
    settings = SoftConConfig
    needs = Needs(labels=True, teacher=TeacherKind.EMA)
    prefix = ""

    @classmethod
    def heads(
        cls, settings: SoftConConfig, facts: RunFacts, generator: torch.Generator
    ) -> Mapping[str, nn.Module]:
        """Return the classifier.

        Raises:
            ConfigError: If there is no class to predict.
        """
        if facts.labels.classes < 1:
            raise ConfigError(
                "there are no classes to predict",
                found=f"{facts.labels.classes} classes",
                expected="a store with labels",
                remedy="pack with a land-cover map, or choose method.objective=moco",
            )
        return {CLASSIFIER: linear_layer(facts.width, facts.labels.classes, generator, bias=True)}

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the binary cross entropy, summed over the views, and the values to log."""
        per_view = (labels, labels) if isinstance(labels, Labels) else labels
        mask = RandomMask(self.chosen.mask_ratio)
        steps = [
            _judge(seen.project(Side.STUDENT, view, CLASSIFIER, mask), per_view[view])
            for view in ((0, 1) if self.chosen.symmetric else (0,))
        ]
        names = steps[0].scalars
        return TermOutput(
            torch.stack([step.loss for step in steps]).sum(),
            {n: torch.stack([step.scalars[n] for step in steps]).mean() for n in names},
        )


def _judge(logits: Float[Tensor, "b k"], labels: Labels) -> TermOutput:
    """Return the loss of one view.

    Logged values: the share of correct decisions at probability one half; the mean standard
    deviation of a class's logits, 0 if the logits of all images are equal; the share of labelled
    images.
    """
    counts = labels.known & (labels.multi_hot.sum(1) > 0)
    right = ((logits.detach() > 0) == (labels.multi_hot > 0))[counts].float()
    return TermOutput(
        bce_loss(logits, labels),
        {
            "accuracy": right.mean() if right.numel() else right.new_zeros(()),
            "logit_std": logits.detach().float().std(dim=0, correction=0).mean(),
            "labelled": counts.float().mean(),
        },
    )


TERM: Final = MultiLabel
