"""The DINOv2 vision transformer on timm's blocks, which embeds only the patches it is to see.

State-dict names are those of DINOv2 and timm (arXiv 2304.07193, `vit_*_patch14_dinov2`), so
their published weights load by name. `forward(pixels, keep)` drops tokens instead of replacing
them: that is what saves the student's time and memory (arXiv 2405.20462).

Shapes: B images, C bands, H by W pixels, P patches of which K are kept, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from eofm.errors import MismatchKind, SpecError, SpecMismatch, WeightsError
from eofm.models.adapt import PositionRecipe, resample_positions
from eofm.recipe import Pooling


@dataclass(frozen=True)
class Architecture:
    """Width, depth, attention heads and patch size of a ViT."""

    width: int
    depth: int
    heads: int
    patch: int


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    # Half of ViT-Ti/16's depth: it pretrains on two CPU cores in minutes. Nobody publishes
    # weights for it; it serves the demo and the tests.
    "vit-tiny-14": Architecture(192, 6, 3, 14),
    "vits14": Architecture(384, 12, 6, 14),
    "vitb14": Architecture(768, 12, 12, 14),
}

# DINOv2 and timm build LayerScale at 1e-5. A network at random with that value is nearly the
# identity: its CLS output does not depend on the image, so it is a worthless control, and a
# short run from scratch spends itself on growing the scales. At 1 the layer does nothing until
# it is trained, which is the ordinary pre-norm ViT. Published weights overwrite it.
LAYER_SCALE_INIT: Final = 1.0


class PatchEmbed(nn.Module):
    """A linear map of each patch, computed only where asked for.

    Args:
        channels: Bands, C.
        width: D.
        patch: Side of a patch in pixels.
    """

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens, (B, P, D), or (B, K, D) for the patches that `keep` (B, K) names."""
        if keep is None:
            tokens: Tensor = self.proj(pixels)
            return tokens.flatten(2).transpose(1, 2)
        batch, channels, height, width = pixels.shape
        rows, columns = height // self.patch, width // self.patch
        # a view by patch: indexing it copies the pixels of the kept patches and no others
        patches = pixels.reshape(batch, channels, rows, self.patch, columns, self.patch)
        patches = patches.permute(0, 2, 4, 1, 3, 5)
        image = torch.arange(batch, device=pixels.device)[:, None]
        kept = patches[image, keep // columns, keep % columns]
        return nn.functional.linear(kept.flatten(2), self.proj.weight.flatten(1), self.proj.bias)


@final
class ViT(nn.Module):
    """A vision transformer with a CLS token, LayerScale and learned positions.

    Args:
        architecture: A row of `ARCHITECTURES`.
        channels: Bands, C.
        size: Native height and width in pixels, multiples of the patch size.
        pooling: What `forward` returns: the CLS token or the mean of the patch tokens.
        positions: How the position table is interpolated for images of another size.

    Raises:
        SpecError: If the size is not a multiple of the patch size.
    """

    def __init__(
        self,
        architecture: Architecture,
        channels: int,
        size: tuple[int, int],
        pooling: Pooling = Pooling.CLS,
        positions: PositionRecipe = PositionRecipe.DINOV2,
    ) -> None:
        super().__init__()
        if min(size) < architecture.patch or any(s % architecture.patch for s in size):
            raise SpecError(
                "the input size must be a multiple of the patch size",
                found=f"{size[0]} x {size[1]} pixels",
                expected=f"multiples of {architecture.patch}",
                remedy=f"for example {architecture.patch * 8} or {architecture.patch * 16}",
            )
        self.architecture, self.channels, self.size = architecture, channels, size
        self.pooling, self.positions = pooling, positions
        width = architecture.width
        self.patch_embed = PatchEmbed(channels, width, architecture.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.tokens, width))
        self.blocks = nn.Sequential(
            *(
                Block(
                    width,
                    architecture.heads,
                    qkv_bias=True,
                    init_values=LAYER_SCALE_INIT,
                    norm_layer=LayerNorm,  # timm's: epsilon 1e-6
                )
                for _ in range(architecture.depth)
            )
        )
        self.norm = LayerNorm(width)

    @property
    def dim(self) -> int:
        """Width of the embedding, D."""
        return self.architecture.width

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the native size."""
        return self.size[0] // self.architecture.patch, self.size[1] // self.architecture.patch

    @property
    def tokens(self) -> int:
        """Number of patches at the native size, P."""
        return self.grid[0] * self.grid[1]

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return one vector per image, (B, D).

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Raises:
            SpecMismatch: If the channels are not C, or the size is no multiple of the patch's.
        """
        tokens = self.forward_features(pixels, keep)
        return tokens[:, 0] if self.pooling is Pooling.CLS else tokens[:, 1:].mean(dim=1)

    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens after the final norm, CLS first: (B, 1 + P, D) or (B, 1 + K, D).

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Raises:
            SpecMismatch: If the channels are not C, or the size is no multiple of the patch's.
        """
        self._check(pixels)
        tokens = self.patch_embed(pixels, keep)
        position = self._position((pixels.shape[2], pixels.shape[3]))
        tokens = tokens + (position[:, 1:] if keep is None else position[0, 1:][keep])
        cls = (self.cls_token + position[:, :1]).expand(len(pixels), -1, -1)
        tokens = self.blocks(torch.cat([cls, tokens], dim=1))
        normed: Tensor = self.norm(tokens)
        return normed

    def _position(self, size: tuple[int, int]) -> Tensor:
        """Return the position table for images of `size`, (1, 1 + P, D)."""
        patch = self.architecture.patch
        grid = size[0] // patch, size[1] // patch
        return resample_positions(self.pos_embed, self.grid, grid, self.positions)

    def _check(self, pixels: Tensor) -> None:
        if pixels.shape[1] != self.channels:
            raise SpecMismatch(
                MismatchKind.BANDS,
                "the network takes another number of bands",
                found=pixels.shape[1],
                expected=self.channels,
            )
        if any(side % self.architecture.patch for side in pixels.shape[2:]):
            raise SpecMismatch(
                MismatchKind.SIZE,
                "the image cannot be cut into whole patches",
                found=f"{pixels.shape[2]} x {pixels.shape[3]} pixels",
                expected=f"multiples of {self.architecture.patch}",
                remedy="resize to the recipe's size: eofm.preprocess does",
            )


def build_vit(
    name: str,
    channels: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    pooling: Pooling = Pooling.CLS,
    positions: PositionRecipe = PositionRecipe.DINOV2,
) -> ViT:
    """Build a ViT by name, with weights drawn from `generator`.

    Args:
        name: A key of `ARCHITECTURES`.
        channels: Bands, C.
        size: Native height and width in pixels.
        generator: Source of the initial weights, on the CPU.
        pooling: What `forward` returns.
        positions: How positions are interpolated for another size.

    Raises:
        WeightsError: If no architecture has that name.
        SpecError: If the size is not a multiple of the patch size.
    """
    if name not in ARCHITECTURES:
        raise WeightsError(
            f"no architecture is called {name!r}",
            found=name,
            expected=", ".join(ARCHITECTURES),
        )
    with torch.random.fork_rng(devices=[]):  # layers draw on construction; leave no trace of it
        vit = ViT(ARCHITECTURES[name], channels, size, pooling, positions)
    initialise(vit, generator)
    return vit


@torch.no_grad()
def initialise(vit: ViT, generator: torch.Generator) -> None:
    """Draw all weights afresh, as DINOv2 does: normal (σ 0.02) linear maps, uniform input layer."""
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
            nn.init.zeros_(module.bias)
    conv = vit.patch_embed.proj
    bound = conv.weight[0].numel() ** -0.5  # torch's default for a convolution
    for parameter in conv.parameters():
        parameter.uniform_(-bound, bound, generator=generator)
    nn.init.trunc_normal_(vit.pos_embed, std=0.02, generator=generator)
    nn.init.normal_(vit.cls_token, std=1e-6, generator=generator)
