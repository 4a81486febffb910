"""The networks of both sides, and how the teacher follows the student.

A large batch fits the memory of a small one: the loss needs the embeddings of the whole batch at
once, but not the activations behind them. The trunk can run on one chunk of images at a time, whose
activations are discarded and computed again when its gradient is due (GradCache, arXiv 2101.06983,
in one backward pass): exact, for one more forward pass through the trunk.

Shapes: B images, C bands, H by W pixels, K kept patches, D trunk width, d embedding width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from eofm.errors import ConfigError
from eofm.method.config import SoftConConfig
from eofm.method.masking import MaskedTrunk, see_patches, see_tokens
from eofm.method.terms.seam import Tokens

M = TypeVar("M", bound=nn.Module)


class Branch(nn.Module):
    """A trunk and the heads that are averaged with it: what the student and the teacher are.

    Args:
        trunk: The encoder.
        config: Mask.
        heads: Layers on the trunk's vector, by name: `Term.heads`.
        fill: Value of hidden pixels in normalised units, where the mask fills pixels.

    Attributes:
        chunk: Number of images that run through the trunk at a time; 0 for all (`in_chunks`).
        sharded: The branch is cut into shards, whose hooks take no views of other tensors.
    """

    def __init__(
        self,
        trunk: MaskedTrunk,
        config: SoftConConfig,
        heads: Mapping[str, nn.Module],
        *,
        fill: float = 0.0,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.mask, self.fill = config.mask, fill
        self.chunk, self.sharded = 0, False
        self.heads = tuple(heads)
        for name, head in heads.items():
            self.add_module(name, head)

    def forward(
        self,
        pixels: Float[Tensor, "b c h w"],
        keep: Int64[Tensor, "b k"] | None = None,
        tokens: Tokens | None = None,
    ) -> Float[Tensor, "b ..."]:
        """Return what the branch makes of a view, seeing the patches `keep` (B, K) only, or all.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.
            tokens: The trunk's vector, (B, 1, D), or its patches as well, (B, 1 + K, D); without
                it, what the first head makes of the vector, (B, d).
        """
        see = see_tokens if tokens is Tokens.PATCHES else see_patches
        encode = partial(see, self.trunk, mask=self.mask, fill=self.fill)
        seen = in_chunks(encode, pixels, keep, self.chunk)
        if tokens is None:
            return self.project(seen, self.heads[0]) if self.heads else seen
        if tokens is Tokens.PATCHES:
            return seen
        vector = seen[:, None]
        return vector.clone() if self.sharded else vector

    def project(self, vectors: Float[Tensor, "b ... d"], head: str) -> Float[Tensor, "b ... e"]:
        """Return what one of the heads makes of the trunk's vectors, or of patches."""
        projection: Tensor = self.get_submodule(head)(vectors)
        return projection


def in_chunks(
    encode: Callable[[Tensor, Tensor | None], Tensor],
    pixels: Float[Tensor, "b c h w"],
    keep: Int64[Tensor, "b k"] | None,
    size: int,
) -> Float[Tensor, "b ..."]:
    """Return the trunk's output for a batch, (B, ...), computed `size` images at a time.

    Args:
        encode: The trunk, which treats every image on its own (`check_chunks`).
        pixels: (B, C, H, W).
        keep: Visible patches, (B, K), or None for all.
        size: Number of images at a time; 0 for all at once.
    """
    if size == 0 or size >= len(pixels):
        return encode(pixels, keep)
    parts = torch.split(pixels, size)
    keeps = [None] * len(parts) if keep is None else torch.split(keep, size)
    return torch.cat([_run(encode, *each) for each in zip(parts, keeps, strict=True)])


def _run(
    encode: Callable[[Tensor, Tensor | None], Tensor], pixels: Tensor, keep: Tensor | None
) -> Tensor:
    if not torch.is_grad_enabled():
        return encode(pixels, keep)
    made: Tensor = checkpoint(encode, pixels, keep, use_reentrant=False)
    return made


def check_chunks(trunk: nn.Module, size: int) -> None:
    """Refuse chunks where they would change the result.

    Raises:
        ConfigError: If the trunk has batch norms: they would see one chunk instead of the batch,
            and count it twice.
    """
    if size and any(isinstance(module, _BatchNorm) for module in trunk.modules()):
        raise ConfigError(
            "a network with batch norms cannot see a batch in chunks",
            found=f"trainer.chunk={size} and {type(trunk).__name__}",
            expected="trainer.chunk=0, or a vision transformer",
            where="trainer.chunk",
            remedy="use more devices, a smaller optim.batch, or trainer.accumulate",
        )


def make_teacher(student: M) -> M:
    """Return a copy of the student, equal bit for bit, that no gradient reaches."""
    return copy.deepcopy(student).requires_grad_(False)


def momentum_at(step: int, total: int, base: float) -> float:
    """Return the teacher's momentum: m(t) = 1 - (1 + cos(π t / T)) / 2 · (1 - m0), up to 1.

    Args:
        step: Optimiser steps done, t; beyond `total` it stays at 1.
        total: Optimiser steps of the run, T.
        base: Momentum at the start, m0.
    """
    progress = min(step / max(total, 1), 1.0)
    return 1 - (1 + math.cos(math.pi * progress)) / 2 * (1 - base)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """θ' ← m θ' + (1 - m) θ, in place, once per optimiser step.

    Parameters only: batch-norm statistics are the teacher's own, from the whole images it sees.

    Args:
        teacher: Its parameters are moved.
        student: Has the same parameters.
        momentum: m.
    """
    torch._foreach_lerp_(  # one kernel for all tensors
        list(teacher.parameters()), list(student.parameters()), 1 - momentum
    )
