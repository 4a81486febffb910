"""What the networks of `eofm.networks.foundation` have in common.

Shapes: B images, C bands, H by W pixels, P patches, D width.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from eofm.contract.recipe import Pooling, Recipe
from eofm.errors import MismatchKind, SpecError, SpecMismatch
from eofm.networks.trunk import Trunk


@dataclass(frozen=True)
class Size:
    """How large a network is.

    Args:
        width: D.
        depth: Blocks.
        heads: Attention heads of a block; Panopticon and CROMA have no choice.
        patch: Side of a patch in pixels.
        positions: Side of the published table of positions, in patches; 0 if there is none.
        channel_width: Width of Panopticon's attention over channels.
    """

    width: int
    depth: int
    heads: int
    patch: int
    positions: int = 14
    channel_width: int = 0


class FoundationTrunk(Trunk):
    """What the four have in common: torchgeo's modules, whole images, tokens of any block.

    Args:
        size: How large the network is.
        recipe: What it will expect.
        prefix: Tokens before the patches: a CLS token, or none.
        pooling: The only pooling its published weights are for.

    Raises:
        SpecError: If the recipe's pooling is another, or its size is not a square of whole patches.
    """

    def __init__(self, size: Size, recipe: Recipe, prefix: int, pooling: Pooling) -> None:
        height, width = recipe.size
        if height != width or height % size.patch:
            raise SpecError(
                "the network takes squares of whole patches",
                found=f"{height} x {width} pixels",
                expected=f"a multiple of {size.patch} pixels squared",
            )
        if recipe.pooling is not pooling:
            raise SpecError(
                "the published weights are for another pooling",
                found=recipe.pooling,
                expected=pooling,
                where=type(self).__name__,
            )
        super().__init__(len(recipe.bands), recipe.size, pooling, size.patch, prefix)
        self.architecture = size
        self.blocks: nn.ModuleList  # of those whose blocks map tokens to tokens

    @property
    def dim(self) -> int:
        """Width of the embedding, D."""
        return self.architecture.width

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the native size."""
        patch = self.architecture.patch
        return self.size[0] // patch, self.size[1] // patch

    @property
    def drops_tokens(self) -> bool:
        """Published networks are for comparison: `keep` is refused."""
        return False

    @property
    def input_layer(self) -> str:
        """What takes the bands. It is not a convolution that could be adapted to other bands."""
        return "patch_embed"

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.architecture.depth

    def layer_of(self, parameter: str) -> int:
        """Return 0 for the input and the positions, k + 1 for block k, depth + 1 for the norm."""
        if block := re.match(r"(?:blocks|transformer\.layers)\.(\d+)\.", parameter):
            return int(block[1]) + 1
        return self.depth + 1 if parameter.startswith(("norm.", "transformer.norm_out.")) else 0

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return one vector per image, (B, D).

        Args:
            pixels: (B, C, H, W), normalised.
            keep: None; anything else is refused.

        Raises:
            SpecMismatch: If the channels are not C, or the network does not take the size.
            SpecError: If `keep` is given.
        """
        self.refuse_keep(keep)
        (tokens,) = self._walk(pixels, [self.depth - 1])
        return self._pool(tokens)

    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens after the final norm, (B, prefix + P, D), patches row by row.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: None; anything else is refused.

        Raises:
            SpecMismatch: If the channels are not C, or the network does not take the size.
            SpecError: If `keep` is given.
        """
        self.refuse_keep(keep)
        (tokens,) = self._walk(pixels, [self.depth - 1])
        return self._normed(tokens)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Return patch tokens of several blocks: see `Trunk.get_intermediate_layers`.

        Raises:
            SpecError: If there is no such block, or no CLS token where one is wanted.
            SpecMismatch: If the channels are not C, or the network does not take the size.
        """
        if return_class_token and not self.prefix:
            raise SpecError("CROMA has no CLS token", remedy="leave return_class_token out")
        outputs = self._walk(x, self.check_layers(n, self.depth))
        if norm:
            outputs = [self._normed(tokens) for tokens in outputs]
        patches = [tokens[:, self.prefix :] for tokens in outputs]
        if reshape:
            rows, columns = (side // self.multiple for side in x.shape[2:])
            patches = [p.transpose(1, 2).reshape(len(p), -1, rows, columns) for p in patches]
        if return_class_token:
            return tuple((p, tokens[:, 0]) for p, tokens in zip(patches, outputs, strict=True))
        return tuple(patches)

    def _walk(self, pixels: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """Return the tokens behind the blocks wanted, each (B, prefix + P, D)."""
        self.check_pixels(pixels)
        tokens = self._embed(pixels)
        outputs: list[Tensor] = []
        for index in range(self.depth):
            tokens = self._step(index, tokens)
            if index in wanted:
                outputs.append(tokens)
        return outputs

    def check_one_size(self, pixels: Tensor) -> None:
        """Refuse any size but the recipe's.

        Raises:
            SpecMismatch: If the images are of another size.
        """
        if tuple(pixels.shape[2:]) != self.size:
            raise SpecMismatch(
                MismatchKind.SIZE,
                "the network takes images of one size",
                found=f"{pixels.shape[2]} x {pixels.shape[3]} pixels",
                expected=f"{self.size[0]} x {self.size[1]}",
                where=type(self).__name__,
                remedy="resize to the recipe's size: eofm.contract.preprocess does",
            )

    @abstractmethod
    def _embed(self, pixels: Tensor) -> Tensor:
        """Return the tokens that enter the first block, (B, prefix + P, D)."""

    def _step(self, index: int, tokens: Tensor) -> Tensor:
        """Return the tokens behind block `index`."""
        out: Tensor = self.blocks[index](tokens)
        return out

    @abstractmethod
    def _normed(self, tokens: Tensor) -> Tensor:
        """Apply the final norm along the last axis."""

    @abstractmethod
    def _pool(self, tokens: Tensor) -> Tensor:
        """Return the vector (B, D) that the last block's tokens make."""


class StandardisedMeanTrunk(FoundationTrunk):
    """A foundation model whose final norm has no weights and comes after the mean."""

    def _normed(self, tokens: Tensor) -> Tensor:
        return nn.functional.layer_norm(tokens, (self.dim,), eps=1e-6)

    def _pool(self, tokens: Tensor) -> Tensor:
        return self._normed(tokens[:, 1:].mean(dim=1))
