"""Masked image modelling: blocks are hidden, and their pixels predicted from what is left.

The parts of SiT (arXiv 2104.03602) and MMC (2308.11448) that SoftCon lacks. SiT is SoftCon's hard
term and this one, so `method.terms: {softcon: 1, mim: 1}` is SiT with labels. Its masks are blocks
of patches: a single hidden patch is guessed from its neighbours by interpolation. SiT fills hidden
pixels; here their tokens are dropped, as the student of SoftCon drops them, and a small decoder
puts them back (MAE, 2111.06377). With `mask method` both terms share one mask, and so one pass.

MMC adds that patches take the semantics of the image: the teacher's vector of a whole view, as a
distribution over prototypes, is what each visible patch of the student is to predict. What is known
of this part is its idea; temperatures, centre and cosines with prototypes are DINO's (2104.14294).
One head serves both sides, without a gradient from the teacher's.

Shapes: B images, P patches of which K are seen, D trunk width, d of the head, Z prototypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from eofm.contract.imagery import Labels
from eofm.errors import require
from eofm.method.config import HeadForm, HeadNorm
from eofm.method.distributed import gathered
from eofm.method.heads import linear_layer, projection_head
from eofm.method.masking import number_kept
from eofm.method.reconstruction import (
    DecoderConfig,
    PixelLoss,
    completion,
    make_decoders,
)
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

_CENTRE_MOMENTUM: Final = 0.9  # DINO


class MimMask(StrEnum):
    """Which patches are hidden: blocks of the term's own, or those of SoftCon's student."""

    BLOCKS = "blocks"
    METHOD = "method"


@dataclass(frozen=True)
class BlockMask:
    """Rectangles of patches hidden one after the other, until the share is reached (SiT).

    Args:
        ratio: Share of hidden patches, more than 0 and less than 1.
        side: Longest side of a rectangle, as a share of the grid's.
    """

    ratio: float
    side: float

    def draw(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator
    ) -> Int64[Tensor, "b k"]:
        """Return the kept patches (B, K); K is that of `keep_tokens`, so that batches have a shape.

        The last rectangle is cut to fit. Where rectangles do not suffice, patches beside them are
        hidden one by one.

        Args:
            batch: Number of images, B.
            grid: Rows and columns of patches.
            generator: Source of randomness; the result is on its device.
        """
        device, patches = generator.device, math.prod(grid)
        hidden = patches - number_kept(patches, self.ratio)
        longest = [math.ceil(self.side * length) for length in grid]
        area = math.prod((most + 1) / 2 for most in longest)
        # so many would hide the share without borders, and as many again
        count = math.ceil(-2 * math.log(1 - self.ratio) * patches / area)

        def covered(length: int, most: int) -> Tensor:
            """Return which lines each rectangle covers, bool (B, lines, rectangles)."""
            size, start = torch.rand(2, batch, 1, count, generator=generator, device=device)
            size = (size * most).long() + 1
            start = (start * (length - size + 1)).long()
            line = torch.arange(length, device=device)[:, None]
            return (line >= start) & (line < start + size)

        rows, columns = (covered(*each) for each in zip(grid, longest, strict=True))
        inside = (rows[:, :, None] & columns[:, None]).flatten(1, 2)
        # the number of the first rectangle that covers a patch says when it is hidden
        order = inside.to(torch.uint8).argmax(dim=2).double()
        left = torch.rand(batch, patches, generator=generator, device=device)
        within = torch.arange(patches, device=device) / patches
        order = torch.where(inside.any(dim=2), order + within, count + left)
        return order.argsort(dim=1)[:, hidden:]


def cls_to_patch_loss(
    patches: Float[Tensor, "b k z"],
    images: Float[Tensor, "b z"],
    centre: Float[Tensor, " z"],
    tau: float,
    teacher_tau: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the cross entropy of each patch with its image's prototypes, and its least value.

    p = softmax((images - centre) / τ'), q = softmax(patches / τ), mean of -Σ p log q; the least
    value is the mean entropy of p, and both are ln Z where nothing is known.

    Args:
        patches: Logits of the student's patches, (B, K, Z).
        images: Logits of the teacher's vectors, (B, Z).
        centre: Mean of those over earlier batches, (Z,).
        tau: Temperature τ of the patches.
        teacher_tau: Temperature τ' of the images: lower, which keeps p from going flat.
    """
    with torch.autocast(patches.device.type, enabled=False):
        target = ((images.detach().float() - centre) / teacher_tau).log_softmax(dim=1)
        found = (patches.float() / tau).log_softmax(dim=2)
        entropy = -(target.exp() * target).sum(dim=1).mean()
        return -(target.exp()[:, None] * found).sum(dim=2).mean(), entropy


@dataclass(frozen=True)
class MimSettings:
    """Settings of the term `mim`.

    Args:
        mask: `blocks` of its own, a pass more through the student beside SoftCon; or that of the
            `method`, whose pass both terms share.
        ratio: Share of hidden patches, where the mask is of blocks.
        side: Longest side of a block, as a share of the image's.
        distance: Of pixels: `l1` or `mse`.
        cls_weight: Weight of the part in which patches predict the teacher's vector; 0 leaves it
            out, and with it the teacher.
        prototypes: Number of prototypes of this part, Z.
        prototype_hidden: Hidden width of its head.
        prototype_dim: Width behind its head, d.
        tau: Temperature of the patches.
        teacher_tau: Temperature of the teacher's vectors.
        decoder_width: Width of the decoder.
        decoder_depth: Number of its blocks.
        decoder_heads: Its attention heads.
        decoder_hidden: Hidden width of its MLPs.

    Raises:
        ConfigError: If a value is out of range.
    """

    mask: MimMask = MimMask.BLOCKS
    ratio: float = 0.5
    side: float = 0.3
    distance: PixelLoss = PixelLoss.L1
    cls_weight: float = 0.1
    prototypes: int = 1024
    prototype_hidden: int = 1024
    prototype_dim: int = 256
    tau: float = 0.1
    teacher_tau: float = 0.04
    decoder_width: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_hidden: int = 1024

    def __post_init__(self) -> None:
        require(0 < self.ratio < 1, "mim.ratio", self.ratio, "more than 0 and less than 1")
        require(0 < self.side <= 1, "mim.side", self.side, "more than 0, at most 1")
        require(self.cls_weight >= 0, "mim.cls_weight", self.cls_weight, "0 or more")
        for name in ("prototypes", "prototype_hidden", "prototype_dim", "tau", "teacher_tau"):
            value = getattr(self, name)
            require(value > 0, f"mim.{name}", value, "more than 0")

    @property
    def decoder(self) -> DecoderConfig:
        """Size of the decoder."""
        return DecoderConfig(
            self.decoder_width, self.decoder_depth, self.decoder_heads, self.decoder_hidden
        )


@final
class Prototypes(nn.Module):
    """What patches and images are compared by: cosines with Z directions behind a head.

    The images' mean logits are subtracted before they become a distribution, or all images would
    agree on one prototype (the centring of DINO). The mean is a moving one without a bias at its
    beginning: the first batch is centred by itself.

    Args:
        width: Of the trunk's tokens, D.
        settings: Of the term.
        generator: Source of initial weights, on the CPU.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, width: int, settings: MimSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.tau, self.teacher_tau = settings.tau, settings.teacher_tau
        hidden, out = settings.prototype_hidden, settings.prototype_dim
        self.head = projection_head(width, hidden, out, HeadNorm.NONE, generator, HeadForm.MOCO2)
        self.directions = linear_layer(out, settings.prototypes, generator).weight
        self.register_buffer("total", torch.zeros(settings.prototypes))
        self.register_buffer("weight", torch.zeros(()))

    def forward(
        self, patches: Float[Tensor, "b k D"], images: Float[Tensor, "b D"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return `cls_to_patch_loss`, and move the centre.

        Args:
            patches: Of the student, (B, K, D).
            images: The teacher's vectors, (B, D).
        """
        # not under no_grad: autocast would keep the cast weights of that pass, without a gradient
        logits = self._cosines(images.detach()).detach()
        if self.training:
            mean = gathered(logits.mean(dim=0, keepdim=True)).mean(dim=0)
            self.total.lerp_(mean, 1 - _CENTRE_MOMENTUM)
            self.weight.lerp_(torch.ones_like(self.weight), 1 - _CENTRE_MOMENTUM)
        centre = self.total / self.weight.clamp(min=1 - _CENTRE_MOMENTUM)
        return cls_to_patch_loss(self._cosines(patches), logits, centre, self.tau, self.teacher_tau)

    def _cosines(self, tokens: Float[Tensor, "*b D"]) -> Float[Tensor, "*b z"]:
        behind = self.head(tokens)
        with torch.autocast(behind.device.type, enabled=False):
            unit = functional.normalize(behind.float(), dim=-1)
            return unit @ functional.normalize(self.directions, dim=1).mT


@final
class Mim(Term[MimSettings]):
    """Pixels of hidden blocks, and the image's prototypes in each patch.

    Args:
        settings: Of the term.
        facts: What there is to know of the trunk and the run.
        generator: Source of initial weights, on the CPU.

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
        self.prototypes: Prototypes | None = None
        if settings.cls_weight:
            self.prototypes = Prototypes(facts.width, settings, generator)

    @classmethod
    def needs_of(cls, settings: MimSettings) -> Needs:
        """Return what has to be there: without the part of the prototypes no teacher."""
        return cls.needs if settings.cls_weight else Needs(tokens=Tokens.PATCHES)

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the error of the hidden pixels, and λ times the cross entropy of the patches."""
        parts = [
            completion(self.decoders, seen, view, self.mask, self.facts, self.chosen.distance)
            for view in self.views
        ]
        error, floor = (torch.stack(each).mean() for each in zip(*parts, strict=True))
        scalars = {"error": error.detach(), "floor": floor}
        if self.prototypes is None:
            return TermOutput(error, scalars)
        cross, entropy = self.prototypes(
            torch.cat([seen.forward(Side.STUDENT, v, self.mask)[:, 1:] for v in self.views]),
            torch.cat([seen.forward(Side.TEACHER, v)[:, 0] for v in self.views]),
        )
        scalars |= {"cls": cross.detach(), "cls_excess": cross.detach() - entropy}
        return TermOutput(error + self.chosen.cls_weight * cross, scalars)


def _mask_of(settings: MimSettings, facts: RunFacts) -> BlockMask | RandomMask:
    if settings.mask is MimMask.METHOD:
        return RandomMask(facts.method.mask_ratio)
    return BlockMask(settings.ratio, settings.side)


TERM = Mim
