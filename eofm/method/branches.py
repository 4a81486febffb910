"""The two branches: a student with heads on its trunk, and its moving average, the teacher.

Projector and predictor are those of MoCo-v3 (arXiv 2104.02057) and of MoCo-v2 (2003.04297).

A large batch can fit into the memory of a small one. The loss needs the embeddings of the whole
batch at once, but not the activations that produced them. The trunk can run on one chunk of images
at a time; its activations are discarded and recomputed for the gradient (GradCache, arXiv
2101.06983, in one backward pass). The result is exact, at the cost of one more forward pass.

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
from eofm.method.config import HeadForm, HeadNorm, SoftConConfig
from eofm.method.masking import MaskedTrunk, see_patches, see_tokens
from eofm.method.terms.seam import Tokens

__all__ = [
    "Branch",
    "M",
    "check_chunks",
    "head_of",
    "in_chunks",
    "linear_layer",
    "make_teacher",
    "momentum_at",
    "prediction_head",
    "projection_head",
    "projector_of",
    "update_teacher",
]

# -------------------------------------------------------------------------------------------- heads


def head_of(config: SoftConConfig, *, drops_tokens: bool) -> HeadForm:
    """Return the form of the heads: `auto` follows the trunk.

    Args:
        config: The objective.
        drops_tokens: Whether the trunk processes only the kept patches, as a transformer does.
    """
    if config.head is not HeadForm.AUTO:
        return config.head
    return HeadForm.MOCO3 if drops_tokens else HeadForm.MOCO3_RESNET


def projection_head(
    dim: int,
    hidden: int,
    out: int,
    norm: HeadNorm,
    generator: torch.Generator,
    form: HeadForm = HeadForm.MOCO3,
) -> nn.Sequential:
    """Return the layers from the trunk's vector to the embedding.

    Args:
        dim: Width of the trunk's vector, D.
        hidden: Width between the layers, h.
        out: Width of the embedding, d.
        norm: Norm between the layers and after the last; ignored for MoCo-v2, which has none.
        generator: Random generator of the weights, on the CPU.
        form: Form of the heads.
    """
    match form:
        case HeadForm.MOCO3 | HeadForm.AUTO:  # a transformer's, as no trunk is known here
            return _head((dim, hidden, hidden, out), norm, generator)
        case HeadForm.MOCO3_RESNET:
            return _head((dim, hidden, out), norm, generator)
        case HeadForm.MOCO2:
            first = linear_layer(dim, hidden, generator, bias=True)
            return nn.Sequential(first, nn.ReLU(), linear_layer(hidden, out, generator, bias=True))


def projector_of(
    config: SoftConConfig, width: int, generator: torch.Generator, *, drops_tokens: bool
) -> nn.Sequential:
    """Return the projector given by the settings of a method.

    Args:
        config: The objective.
        width: Width of the trunk's vector, D.
        generator: Random generator of the weights, on the CPU.
        drops_tokens: Whether the trunk processes only the kept patches, as a transformer does.
    """
    form = head_of(config, drops_tokens=drops_tokens)
    return projection_head(width, config.hidden, config.dim, config.head_norm, generator, form)


def prediction_head(
    out: int,
    hidden: int,
    norm: HeadNorm,
    generator: torch.Generator,
    form: HeadForm = HeadForm.MOCO3,
) -> nn.Sequential:
    """Return the two layers out - hidden - out on the student's side; none (identity) in MoCo-v2.

    Args:
        out: Width of the embedding, d.
        hidden: Width between the layers, h.
        norm: Norm between the layers, and after the last if the form has one there.
        generator: Random generator of the weights, on the CPU.
        form: Form of the heads.
    """
    if form is HeadForm.MOCO2:
        return nn.Sequential()
    return _head((out, hidden, out), norm, generator, last_norm=form is HeadForm.MOCO3)


def _head(
    widths: tuple[int, ...], norm: HeadNorm, generator: torch.Generator, *, last_norm: bool = True
) -> nn.Sequential:
    """Return layers without biases; norm and ReLU between them, a last norm without affine."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        last = i == len(widths) - 2
        layers.append(linear_layer(widths[i], widths[i + 1], generator))
        if last_norm or not last:
            layers.append(_norm(norm, widths[i + 1], affine=not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def linear_layer(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = False
) -> nn.Linear:
    """Return a linear layer with torch's default init, U(±1/sqrt(inputs)), from `generator`."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def _norm(norm: HeadNorm, width: int, *, affine: bool) -> nn.Module:
    match norm:
        case HeadNorm.BN:
            return nn.BatchNorm1d(width, affine=affine)
        case HeadNorm.LN:
            return nn.LayerNorm(width, elementwise_affine=affine)
        case HeadNorm.NONE:
            return nn.Identity()


# ------------------------------------------------------------------------------ student and teacher

M = TypeVar("M", bound=nn.Module)


class Branch(nn.Module):
    """A trunk and the heads that are averaged with it; student and teacher are branches.

    Args:
        trunk: The encoder.
        config: Settings of the mask.
        heads: Layers on the trunk's vector, by name (`Term.heads`).
        fill: Value of hidden pixels in normalised units, if the mask fills pixels.

    Attributes:
        chunk: Number of images per pass through the trunk; 0 for all (`in_chunks`).
        sharded: The branch is sharded, and its hooks accept no views of other tensors.
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
        """Return the output of the branch for a view, on the patches `keep` (B, K) or on all.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.
            tokens: Return the trunk's vector, (B, 1, D), or also its patches, (B, 1 + K, D); if
                None, the output of the first head for the vector, (B, d).
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
        """Return the output of a head for the trunk's vectors or patches."""
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
        encode: The trunk, which processes images independently (`check_chunks`).
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
    """Refuse chunks if they would change the result.

    Raises:
        ConfigError: If the trunk has batch norms, which would use one chunk instead of the batch
            and update their statistics twice.
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
    """Return a bit-identical copy of the student without gradients."""
    return copy.deepcopy(student).requires_grad_(False)


def momentum_at(step: int, total: int, base: float) -> float:
    """Return the teacher's momentum: m(t) = 1 - (1 + cos(π t / T)) / 2 · (1 - m0), up to 1.

    Args:
        step: Optimiser steps done, t; beyond `total` the momentum stays at 1.
        total: Optimiser steps of the run, T.
        base: Momentum at the start, m0.
    """
    progress = min(step / max(total, 1), 1.0)
    return 1 - (1 + math.cos(math.pi * progress)) / 2 * (1 - base)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Update the teacher in place: θ' ← m θ' + (1 - m) θ, once per optimiser step.

    Only parameters are averaged: the teacher computes its own batch-norm statistics, from whole
    images.

    Args:
        teacher: Network to update.
        student: Network with the same parameters.
        momentum: m.
    """
    torch._foreach_lerp_(  # one kernel for all tensors
        list(teacher.parameters()), list(student.parameters()), 1 - momentum
    )
