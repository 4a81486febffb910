"""The control without contrast: the labels themselves are predicted, by binary cross entropy.

Whatever SoftCon (`eofm.method`) gains from labels, a plain classifier might gain as well. This one
has the same trunk, views, masks and steps, and only a linear layer on the pooled vector. If it is
as good, the contrastive part does not pay.

Nothing is distilled, so there is no teacher to learn from. There is an average over time all the
same, for the export: SoftCon's teacher is one, and averaging alone can make a network better.

Shapes: B images, C bands, H by W pixels, D width, K classes, P patches of which M are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.method.config import SoftConConfig
from eofm.method.distributed import mean_over_ranks
from eofm.method.heads import linear_layer
from eofm.method.masking import MaskedTrunk, fill_of, keep_tokens, see_patches
from eofm.method.similarity import labelled
from eofm.method.teacher import in_chunks, make_teacher


class Classified(nn.Module):
    """A trunk and a linear layer: what is trained, and what is averaged.

    Args:
        trunk: The encoder.
        config: Mask.
        classes: Number of classes, K.
        generator: Source of the classifier's initial weights, on the CPU.
        fill: Value of hidden pixels in normalised units, where the mask fills pixels.

    Attributes:
        chunk: Number of images that run through the trunk at a time; 0 for all (`in_chunks`).
    """

    def __init__(
        self,
        trunk: MaskedTrunk,
        config: SoftConConfig,
        classes: int,
        generator: torch.Generator,
        *,
        fill: float = 0.0,
    ) -> None:
        super().__init__()
        self.trunk, self.mask, self.fill = trunk, config.mask, fill
        self.chunk = 0
        self.classifier = linear_layer(trunk.dim, classes, generator, bias=True)

    def forward(
        self, pixels: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b k"]:
        """Return logits (B, K), seeing the patches `keep` (B, M) only, or all."""
        encode = partial(see_patches, self.trunk, mask=self.mask, fill=self.fill)
        vectors = in_chunks(encode, pixels, keep, self.chunk)
        logits: Tensor = self.classifier(vectors)
        return logits


def bce_loss(logits: Float[Tensor, "b k"], labels: Labels) -> Float[Tensor, ""]:
    """Return the mean binary cross entropy over the classes of the labelled images.

    An image without labels, or with an empty set, does not count: nothing is known of it. Where
    none counts the loss is 0, still connected to the logits.

    Args:
        logits: (B, K).
        labels: Of the images.
    """
    counts = labelled(labels, labels.multi_hot)[:, None]
    target = torch.where(counts, labels.multi_hot.float(), 0)
    with torch.autocast(logits.device.type, enabled=False):
        each = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return mean_over_ranks((each * counts).sum(), counts.sum() * logits.shape[1])


@dataclass(frozen=True)
class MultiLabelOutput:
    """One step. Only `loss` carries a gradient.

    Args:
        loss: Binary cross entropy, summed over the views.
        accuracy: Share of the decisions, at probability one half, that are right.
        spread: Mean standard deviation of a class's logits: 0 when all images look alike.
        labelled: Share of the images that have labels.
        keep: What was seen of each view, int64 (B, M); None where everything. Empty as
            `MultiLabel.loss` returns it.
    """

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    spread: Float[Tensor, ""]
    labelled: Float[Tensor, ""]
    keep: tuple[Tensor | None, ...]

    def logged(self) -> dict[str, Float[Tensor, ""]]:
        """Return the numbers to log, by name."""
        return {
            "loss": self.loss.detach(),
            "accuracy": self.accuracy,
            "logit_std": self.spread,
            "labelled": self.labelled,
        }


@final
class MultiLabel(nn.Module):
    """A network that predicts labels, and its average over time, with the interface of `SoftCon`.

    The average is not updated here: call `update_teacher(self.teacher, self.student, m)`. It never
    sees an image, so the statistics of its batch norms have to be taken before it is used
    (`eofm.networks.norms.refresh_batch_norms`).

    Args:
        trunk: The encoder to pretrain: an `nn.Module` that is a `MaskedTrunk`.
        config: Mask, and whether both views are classified (`symmetric`); the terms of SoftCon are
            not read.
        classes: Number of classes, K.
        generator: Source of the classifier's initial weights, on the CPU.
        band_mean: Value of a band's mean in normalised units, with which hidden pixels are filled
            if `config.mask_fill` says so.

    Raises:
        ConfigError: If there is no class to predict.
    """

    def __init__(
        self,
        trunk: MaskedTrunk,
        config: SoftConConfig,
        classes: int,
        generator: torch.Generator,
        *,
        band_mean: float = 0.0,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise ConfigError(
                "there are no classes to predict",
                found=f"{classes} classes",
                expected="a store with labels",
                remedy="pack with a land-cover map, or choose method.objective=moco",
            )
        self.config = config
        fill = fill_of(config, band_mean)
        self.student = Classified(trunk, config, classes, generator, fill=fill)
        self.teacher = make_teacher(self.student)

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """Which view is classified; the second number, SoftCon's teacher, has no use."""
        return ((0, 1), (1, 0)) if self.config.symmetric else ((0, 1),)

    def forward(
        self,
        views: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b other h w"]],
        labels: Labels | tuple[Labels, Labels],
        generator: torch.Generator,
    ) -> MultiLabelOutput:
        """Return the loss of a batch and what there is to log.

        Args:
            views: Two views of the same B images, each (B, C, H, W), normalised.
            labels: Of the images, or of each view where the two are of different seasons.
            generator: Source of the masks.
        """
        seen = [self.student_embeddings(views[view], generator) for view, _ in self.directions]
        output = self.loss([logits for logits, _ in seen], (), labels)
        return replace(output, keep=tuple(keep for _, keep in seen))

    def student_embeddings(
        self, view: Float[Tensor, "b c h w"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b k"], Int64[Tensor, "b m"] | None]:
        """Return the logits (B, K) of part of a view, with a gradient, and which part (B, M).

        Args:
            view: (B, C, H, W), normalised.
            generator: Source of the mask.
        """
        ratio = self.config.mask_ratio
        keep = keep_tokens(len(view), self.student.trunk.tokens, ratio, generator)
        keep = None if keep is None else keep.to(view.device)
        logits: Tensor = self.student(view, keep)
        return logits, keep

    def teacher_embeddings(self, view: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 0"]:
        """Return (B, 0): this control has no teacher, and nothing is computed."""
        return view.new_zeros(len(view), 0)

    def loss(
        self,
        queries: Sequence[Float[Tensor, "b k"]],
        keys: Sequence[Float[Tensor, "b 0"]],
        labels: Labels | tuple[Labels, Labels],
    ) -> MultiLabelOutput:
        """Return the loss of logits.

        Args:
            queries: The logits, (B, K), one for each of `directions`.
            keys: Not used.
            labels: Of the images, or of each view where the two are of different seasons.
        """
        per_view = (labels, labels) if isinstance(labels, Labels) else labels
        steps = [
            _judge(logits, per_view[view])
            for logits, (view, _) in zip(queries, self.directions, strict=True)
        ]
        return MultiLabelOutput(
            loss=torch.stack([s.loss for s in steps]).sum(),
            accuracy=torch.stack([s.accuracy for s in steps]).mean(),
            spread=torch.stack([s.spread for s in steps]).mean(),
            labelled=torch.stack([s.labelled for s in steps]).mean(),
            keep=(),
        )


def _judge(logits: Float[Tensor, "b k"], labels: Labels) -> MultiLabelOutput:
    counts = labels.known & (labels.multi_hot.sum(1) > 0)
    right = ((logits.detach() > 0) == (labels.multi_hot > 0))[counts].float()
    return MultiLabelOutput(
        loss=bce_loss(logits, labels),
        accuracy=right.mean() if right.numel() else right.new_zeros(()),
        spread=logits.detach().float().std(dim=0, correction=0).mean(),
        labelled=counts.float().mean(),
        keep=(),
    )
