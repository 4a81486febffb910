"""Masked image modelling: the pixels of hidden blocks are predicted from the rest.

The term has the parts of SiT (arXiv 2104.03602) and MMC (2308.11448) that SoftCon lacks. SiT is
SoftCon's hard term plus this term, so `method.terms: {softcon: 1, mim: 1}` is SiT with labels.
Masks are blocks of patches, because a single hidden patch can be interpolated from its neighbours.
SiT fills hidden pixels; here their tokens are dropped, as in the student of SoftCon, and a small
decoder predicts them (MAE, 2111.06377). With `mask method` both terms share a mask and so a pass.

MMC also teaches patches the semantics of their image, from the teacher's vector of the whole view.
Only the idea of this part is known. Distributions over prototypes, as in DINO (2104.14294),
collapsed to the same one for all images in short runs, whether centred or balanced; so here each
visible patch has to find the vector of its own image among those of the batch.

Shapes: B images, N of all ranks, P patches of which K are seen, D trunk width, d of the head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import require
from eofm.method.branches import projection_head
from eofm.method.config import HeadForm, HeadNorm
from eofm.method.distributed import gathered, own_columns
from eofm.method.masking import number_kept
from eofm.method.reconstruction import (
    PixelLoss,
    WithDecoder,
    completion,
    make_decoders,
)
from eofm.method.similarity import cosine_matrix
from eofm.method.terms.seam import (
    Needs,
    RandomMask,
    RunFacts,
    Seen,
    Side,
    TeacherKind,
    Term,
    TermOutput,
    Tokens,
)

__all__ = ["TERM", "BlockMask", "Mim", "MimMask", "MimSettings", "cls_to_patch_loss"]

_HEAD: Final = "mim_head"


class MimMask(StrEnum):
    """Mask of the term: separate blocks, or the mask of SoftCon's student."""

    BLOCKS = "blocks"
    METHOD = "method"


@dataclass(frozen=True)
class BlockMask:
    """Hides rectangles of patches one after the other until the share is reached (SiT).

    Args:
        ratio: Share of hidden patches, more than 0 and less than 1.
        side: Longest side of a rectangle, as a share of the grid's.
    """

    ratio: float
    side: float

    def draw(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator
    ) -> Int64[Tensor, "b k"]:
        """Return the kept patches (B, K); K is that of `keep_tokens`, equal for all images.

        The last rectangle is cut to fit. If rectangles do not suffice, adjacent patches are hidden
        one by one.

        Args:
            batch: Number of images, B.
            grid: Rows and columns of patches.
            generator: Random generator; the result is on its device.
        """
        device, patches = generator.device, math.prod(grid)
        hidden = patches - number_kept(patches, self.ratio)
        longest = [math.ceil(self.side * length) for length in grid]
        area = math.prod((most + 1) / 2 for most in longest)
        # twice the number that would hide the share if none were cut by a border
        count = math.ceil(-2 * math.log(1 - self.ratio) * patches / area)

        def covered(length: int, most: int) -> Bool[Tensor, "b lines rectangles"]:
            """Return the lines that each rectangle covers, bool (B, lines, rectangles)."""
            size, start = torch.rand(2, batch, 1, count, generator=generator, device=device)
            size = (size * most).long() + 1
            start = (start * (length - size + 1)).long()
            line = torch.arange(length, device=device)[:, None]
            inside: Tensor = (line >= start) & (line < start + size)
            return inside

        rows, columns = (covered(*each) for each in zip(grid, longest, strict=True))
        inside = (rows[:, :, None] & columns[:, None]).flatten(1, 2)
        # patches are hidden in the order of the first rectangle that covers them
        order = inside.to(torch.uint8).argmax(dim=2).double()
        left = torch.rand(batch, patches, generator=generator, device=device)
        within = torch.arange(patches, device=device) / patches
        order = torch.where(inside.any(dim=2), order + within, count + left)
        return order.argsort(dim=1)[:, hidden:]


def cls_to_patch_loss(
    patches: Float[Tensor, "b k d"],
    images: Float[Tensor, "n d"],
    own: Int64[Tensor, " b"],
    tau: float,
) -> Float[Tensor, ""]:
    """Return the cross entropy of matching patches to their image; ln N is chance.

    L = mean of logsumexp_j(s_j / τ) - s_own / τ over all patches, s being cosines.

    Args:
        patches: Patch vectors of the student, (B, K, d).
        images: The teacher's vectors of all ranks, (N, d).
        own: int64 (B,), index of each image's own vector.
        tau: Temperature τ.
    """
    cosines = cosine_matrix(patches.flatten(0, 1), images.detach())
    return functional.cross_entropy(cosines / tau, own.repeat_interleave(patches.shape[1]))


@dataclass(frozen=True)
class MimSettings(WithDecoder):
    """Settings of the term `mim`.

    Args:
        mask: `blocks`, which needs a further pass through the student next to SoftCon; or `method`,
            the mask of the method, whose pass both terms share.
        ratio: Share of hidden patches, if the mask is of blocks.
        side: Longest side of a block, as a share of the image's.
        distance: Distance of pixels: `l1` or `mse`.
        cls_weight: Weight of the part that matches patches to the teacher's vector; 0 disables it
            and the teacher.
        cls_hidden: Hidden width of that part's head.
        cls_dim: Output width of that head, d.
        tau: Temperature of that part.
        decoder_width: Width of the decoder.
        decoder_depth: Number of decoder blocks.
        decoder_heads: Attention heads of the decoder.
        decoder_hidden: Hidden width of the decoder's MLPs.

    Raises:
        ConfigError: If a value is out of range.
    """

    mask: MimMask = MimMask.BLOCKS
    ratio: float = 0.5
    side: float = 0.3
    distance: PixelLoss = PixelLoss.L1
    cls_weight: float = 0.1
    cls_hidden: int = 1024
    cls_dim: int = 256
    tau: float = 0.2
    decoder_width: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_hidden: int = 1024

    def __post_init__(self) -> None:
        require(0 < self.ratio < 1, "mim.ratio", self.ratio, "more than 0 and less than 1")
        require(0 < self.side <= 1, "mim.side", self.side, "more than 0, at most 1")
        require(self.cls_weight >= 0, "mim.cls_weight", self.cls_weight, "0 or more")
        for name in ("cls_hidden", "cls_dim", "tau"):
            value = getattr(self, name)
            require(value > 0, f"mim.{name}", value, "more than 0")


@final
class Mim(Term[MimSettings]):
    """Predicts the pixels of hidden blocks, and matches patches to their image.

    Args:
        settings: Settings of the term.
        facts: Facts about the trunk and the run.
        generator: Random generator of initial weights, on the CPU.

    Raises:
        ConfigError: If the trunk does not drop tokens, or the mask hides nothing.
    """

    about = "masked image modelling of blocks (parts of SiT, arXiv 2104.03602, and MMC, 2308.11448)"
    settings = MimSettings
    needs = Needs(teacher=TeacherKind.EMA, tokens=Tokens.PATCHES)

    def __init__(self, settings: MimSettings, facts: RunFacts, generator: torch.Generator) -> None:
        super().__init__(settings, facts, generator)
        self.views = (0, 1) if facts.method.symmetric else (0,)
        self.mask = _mask_of(settings, facts)
        bands = [facts.channels[view] for view in self.views]
        self.decoders = make_decoders(
            "mim", facts, bands, self.mask.ratio, settings.decoder, generator, cross=False
        )

    @classmethod
    def needs_of(cls, settings: MimSettings) -> Needs:
        """Return the requirements; a teacher only if its vector is used."""
        return cls.needs if settings.cls_weight else Needs(tokens=Tokens.PATCHES)

    @classmethod
    def heads(
        cls, settings: MimSettings, facts: RunFacts, generator: torch.Generator
    ) -> Mapping[str, nn.Module]:
        """Return the projector for comparing patches with images."""
        if not settings.cls_weight:
            return {}
        return {
            _HEAD: projection_head(
                facts.width,
                settings.cls_hidden,
                settings.cls_dim,
                HeadNorm.NONE,
                generator,
                HeadForm.MOCO2,
            )
        }

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the error of the hidden pixels, and the weighted cross entropy of the patches."""
        form, weight = self.chosen.distance, self.chosen.cls_weight
        pixels = completion(
            self.decoders, seen, self.views, self.mask, self.facts, form, cross=False
        )
        if not weight:
            return pixels
        found = torch.stack([self._found(seen, view) for view in self.views]).mean()
        return TermOutput(pixels.loss + weight * found, {**pixels.scalars, "cls": found.detach()})

    def _found(self, seen: Seen, view: int) -> Float[Tensor, ""]:
        """Return the cross entropy of matching the visible patches of a view to their image."""
        patches = seen.project(Side.STUDENT, view, _HEAD, self.mask, Tokens.PATCHES)
        images = seen.project(Side.TEACHER, view, _HEAD)
        return cls_to_patch_loss(patches, gathered(images), own_columns(images), self.chosen.tau)


def _mask_of(settings: MimSettings, facts: RunFacts) -> BlockMask | RandomMask:
    if settings.mask is MimMask.METHOD:
        return RandomMask(facts.method.mask_ratio)
    return BlockMask(settings.ratio, settings.side)


TERM = Mim
