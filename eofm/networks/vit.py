"""The DINOv2 vision transformer on timm's blocks, which embeds only visible patches.

State-dict names are those of DINOv2 (arXiv 2304.07193, registers 2309.16588), so that published
weights load by name. `forward(pixels, keep)` drops tokens instead of replacing them, which saves
time and memory of the student (arXiv 2405.20462).

Shapes: B images, C bands, H by W pixels, P patches of which K are kept, R registers, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, final

import torch
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from eofm.contract.recipe import Pooling
from eofm.errors import SpecError, WeightsError
from eofm.networks.state import PositionRecipe, resample_positions
from eofm.networks.trunk import Trunk

__all__ = [
    "ARCHITECTURES",
    "EXPECTED",
    "LAYER_SCALE_INIT",
    "Architecture",
    "FeedForward",
    "PatchEmbed",
    "SwiGLU",
    "ViT",
    "architecture_of",
    "blank_vit",
    "block_of",
    "build_vit",
    "cut_state",
    "find_architecture",
    "initialise",
    "whole_name",
]


class FeedForward(StrEnum):
    """Second half of a block: two layers with GELU, or the gated layers of DINOv2's ViT-g."""

    MLP = "mlp"
    SWIGLU = "swiglu"


@dataclass(frozen=True)
class Architecture:
    """Architecture of a ViT.

    Args:
        width: D.
        depth: Number of blocks.
        heads: Attention heads.
        patch: Side of a patch in pixels.
        registers: Register tokens (neither CLS nor patches), R.
        feed_forward: Second half of a block.
        final_norm: Whether a layer norm follows the last block.
    """

    width: int
    depth: int
    heads: int
    patch: int
    registers: int = 0
    feed_forward: FeedForward = FeedForward.MLP
    final_norm: bool = True


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    # Half of ViT-Ti/16's depth: it pretrains on two CPU cores in minutes. It is for the demo and
    # the tests; there are no published weights.
    "vit-tiny-14": Architecture(192, 6, 3, 14),
    "vits14": Architecture(384, 12, 6, 14),
    "vitb14": Architecture(768, 12, 12, 14),
    "vitl14": Architecture(1024, 24, 16, 14),
    "vitg14": Architecture(1536, 40, 24, 14, feed_forward=FeedForward.SWIGLU),
    "vits14_reg4": Architecture(384, 12, 6, 14, registers=4),
    "vitb14_reg4": Architecture(768, 12, 12, 14, registers=4),
    "vitl14_reg4": Architecture(1024, 24, 16, 14, registers=4),
    "vitg14_reg4": Architecture(1536, 40, 24, 14, registers=4, feed_forward=FeedForward.SWIGLU),
}

EXPECTED: Final = f"{', '.join(ARCHITECTURES)}, or one with fewer blocks, as in vits14-7blocks"

_CUT: Final = re.compile(r"(?P<whole>.+)-(?P<blocks>[1-9][0-9]*)blocks")
_BLOCK: Final = re.compile(r"blocks\.([0-9]+)\.")


def find_architecture(name: str) -> Architecture | None:
    """Return the ViT of a name, or None if there is no ViT of that name.

    It is a row of `ARCHITECTURES`, or such a row truncated to its first blocks, as in
    `vits14-7blocks`, to omit blocks specialised for pretraining or to halve the cost. A truncated
    ViT has no final norm, because the full ViT's norm belongs to the output of its last block.

    Args:
        name: Name of the full ViT, optionally with the number of blocks.
    """
    cut = _CUT.fullmatch(name)
    if cut is None:
        return ARCHITECTURES.get(name)
    whole, blocks = ARCHITECTURES.get(cut["whole"]), int(cut["blocks"])
    if whole is None or blocks >= whole.depth:
        return None
    return replace(whole, depth=blocks, final_norm=False)


def architecture_of(state: Mapping[str, Tensor]) -> str | None:
    """Return the name in `ARCHITECTURES` of a state dict's ViT, or None if there is none.

    Args:
        state: Tensors under DINOv2's names.
    """
    weight, registers = state.get("patch_embed.proj.weight"), state.get("register_tokens")
    blocks = {int(found[1]) for key in state if (found := _BLOCK.match(key))}
    if weight is None or weight.ndim != 4:
        return None
    shape = (weight.shape[0], len(blocks), weight.shape[2])
    count = 0 if registers is None else registers.shape[1]
    for name, each in ARCHITECTURES.items():
        if shape == (each.width, each.depth, each.patch) and count == each.registers:
            return name
    return None


def whole_name(name: str) -> str:
    """Return the name of the full ViT of a truncated one; other names are unchanged."""
    cut = _CUT.fullmatch(name)
    return name if cut is None or find_architecture(name) is None else cut["whole"]


def cut_state(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of a truncated ViT from the state of a full one.

    Args:
        state: State of a `ViT`, full or truncated to the same depth.
        name: Name of the truncated ViT; for any other network the state is unchanged.
    """
    architecture = find_architecture(name)
    if architecture is None or architecture.final_norm:
        return dict(state)

    def stays(key: str) -> bool:
        block = _BLOCK.match(key)
        return int(block[1]) < architecture.depth if block else not key.startswith("norm.")

    return {key: tensor for key, tensor in state.items() if stays(key)}


# DINOv2 and timm initialise LayerScale at 1e-5. A random network with that value is nearly the
# identity: its CLS output does not depend on the image, so it is useless as a control, and a
# short run from scratch mostly learns to increase the scales. At 1 the layer has no effect until
# it is trained, as in the ordinary pre-norm ViT. Published weights overwrite it.
LAYER_SCALE_INIT: Final = 1.0


class PatchEmbed(nn.Module):
    """A linear map of each patch, computed only for the requested patches.

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
        """Return tokens, (B, P, D), or (B, K, D) for the patches in `keep` (B, K)."""
        if keep is None:
            tokens: Tensor = self.proj(pixels)
            return tokens.flatten(2).transpose(1, 2)
        batch, channels, height, width = pixels.shape
        rows, columns = height // self.patch, width // self.patch
        # a view by patch: indexing it copies only the pixels of the kept patches
        patches = pixels.reshape(batch, channels, rows, self.patch, columns, self.patch)
        patches = patches.permute(0, 2, 4, 1, 3, 5)
        image = torch.arange(batch, device=pixels.device)[:, None]
        kept = patches[image, keep // columns, keep % columns]
        return nn.functional.linear(kept.flatten(2), self.proj.weight.flatten(1), self.proj.bias)


class SwiGLU(nn.Module):
    """A gated feed-forward network, silu(a) * b, with DINOv2's names (arXiv 2002.05202).

    The hidden layer has 2/3 of the usual 4 D units, rounded to a multiple of 8, so that the number
    of weights equals that of an MLP.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map each token independently, (B, N, D) to (B, N, D)."""
        gate, value = self.w12(tokens).chunk(2, dim=-1)
        out: Tensor = self.w3(nn.functional.silu(gate) * value)
        return out


@final
class ViT(Trunk):
    """A vision transformer with CLS token, registers, LayerScale and learned positions.

    Args:
        architecture: A row of `ARCHITECTURES`, possibly truncated (`find_architecture`).
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
        prefix = 1 + architecture.registers
        super().__init__(channels, size, pooling, multiple=architecture.patch, prefix=prefix)
        if min(size) < architecture.patch or any(s % architecture.patch for s in size):
            raise SpecError(
                "the input size must be a multiple of the patch size",
                found=f"{size[0]} x {size[1]} pixels",
                expected=f"multiples of {architecture.patch}",
                remedy=f"for example {architecture.patch * 8} or {architecture.patch * 16}",
            )
        self.architecture, self.positions = architecture, positions
        width = architecture.width
        self.patch_embed = PatchEmbed(channels, width, architecture.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.tokens, width))
        if architecture.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, architecture.registers, width))
        self.blocks = nn.Sequential(*(block_of(architecture) for _ in range(architecture.depth)))
        self.norm = LayerNorm(width) if architecture.final_norm else nn.Identity()

    @property
    def dim(self) -> int:
        """Width of the embedding, D."""
        return self.architecture.width

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the native size."""
        return self.size[0] // self.architecture.patch, self.size[1] // self.architecture.patch

    @property
    def input_layer(self) -> str:
        """Name of the patch embedding."""
        return "patch_embed.proj"

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.architecture.depth

    def layer_of(self, parameter: str) -> int:
        """Return 0 for the embedding, k + 1 for block k, depth + 1 for the final norm."""
        module, _, rest = parameter.partition(".")
        if module == "blocks":
            return int(rest.partition(".")[0]) + 1
        return self.depth + 1 if module == "norm" else 0

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return one vector per image, (B, D).

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Raises:
            SpecMismatch: If the channels are not C, or the size is no multiple of the patch size.
        """
        tokens = self.forward_features(pixels, keep)
        return tokens[:, 0] if self.pooling is Pooling.CLS else tokens[:, self.prefix :].mean(dim=1)

    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens after the final norm: CLS, registers, patches.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Returns:
            (B, 1 + R + P, D), or (B, 1 + R + K, D).

        Raises:
            SpecMismatch: If the channels are not C, or the size is no multiple of the patch size.
        """
        normed: Tensor = self.norm(self.blocks(self._embed(pixels, keep)))
        return normed

    def _embed(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        """Return the tokens that enter the first block; registers have no position."""
        self.check_pixels(pixels)
        tokens = self.patch_embed(pixels, keep)
        position = self._position((pixels.shape[2], pixels.shape[3]))
        tokens = tokens + (position[:, 1:] if keep is None else position[0, 1:][keep])
        prefix = self.cls_token + position[:, :1]
        if self.architecture.registers:
            prefix = torch.cat([prefix, self.register_tokens], dim=1)
        return torch.cat([prefix.expand(pixels.shape[0], -1, -1), tokens], dim=1)

    def _position(self, size: tuple[int, int]) -> Tensor:
        """Return the position table for images of `size`, (1, 1 + P, D)."""
        patch = self.architecture.patch
        grid = size[0] // patch, size[1] // patch
        registers = self.architecture.registers > 0
        return resample_positions(
            self.pos_embed, self.grid, grid, self.positions, registers=registers
        )

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Return patch tokens of several blocks: see `Trunk.get_intermediate_layers`."""
        wanted = self.check_layers(n, self.architecture.depth)
        tokens = self._embed(x, None)
        outputs: list[Tensor] = []
        for index, block in enumerate(self.blocks[: wanted[-1] + 1]):
            tokens = block(tokens)
            if index in wanted:
                outputs.append(self.norm(tokens) if norm else tokens)
        patches = [out[:, self.prefix :] for out in outputs]
        if reshape:
            rows, columns = x.shape[2] // self.multiple, x.shape[3] // self.multiple
            maps = [p.reshape(len(x), rows, columns, self.dim) for p in patches]
            patches = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        if return_class_token:
            return tuple((p, out[:, 0]) for p, out in zip(patches, outputs, strict=True))
        return tuple(patches)


def block_of(architecture: Architecture) -> Block:
    """Return one block of a ViT, with weights drawn from the global random state."""
    block = Block(
        architecture.width,
        architecture.heads,
        qkv_bias=True,
        init_values=LAYER_SCALE_INIT,
        norm_layer=LayerNorm,  # timm's: epsilon 1e-6
    )
    if architecture.feed_forward is FeedForward.SWIGLU:
        block.mlp = SwiGLU(architecture.width)
    return block


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
        name: A key of `ARCHITECTURES`, possibly truncated (`find_architecture`).
        channels: Bands, C.
        size: Native height and width in pixels.
        generator: Random generator of the initial weights, on the CPU.
        pooling: Pooling of the vector that `forward` returns.
        positions: How positions are interpolated for another size.

    Raises:
        WeightsError: If no architecture has that name.
        SpecError: If the size is not a multiple of the patch size.
    """
    architecture = _architecture(name)
    with torch.random.fork_rng(devices=[]):  # layers draw on construction; restore the global state
        vit = ViT(architecture, channels, size, pooling, positions)
    initialise(vit, generator)
    return vit


@torch.no_grad()
def blank_vit(
    name: str,
    channels: int,
    size: tuple[int, int],
    *,
    pooling: Pooling = Pooling.CLS,
    positions: PositionRecipe = PositionRecipe.DINOV2,
) -> ViT:
    """Build a ViT whose weights must still be loaded: all are NaN, without drawing any.

    Drawing the weights of a ViT-g takes longer than reading them.

    Args:
        name: A key of `ARCHITECTURES`, possibly truncated (`find_architecture`).
        channels: Bands, C.
        size: Native height and width in pixels.
        pooling: Pooling of the vector that `forward` returns.
        positions: How positions are interpolated for another size.

    Raises:
        WeightsError: If no architecture has that name.
        SpecError: If the size is not a multiple of the patch size.
    """
    architecture = _architecture(name)
    with torch.device("meta"):
        vit = ViT(architecture, channels, size, pooling, positions)
    vit.to_empty(device="cpu")
    for parameter in vit.parameters():
        parameter.fill_(torch.nan)
    return vit


def _architecture(name: str) -> Architecture:
    found = find_architecture(name)
    if found is None:
        raise WeightsError(
            f"there is no architecture {name!r}",
            found=name,
            expected=EXPECTED,
        )
    return found


@torch.no_grad()
def initialise(vit: ViT, generator: torch.Generator) -> None:
    """Initialise all weights like DINOv2: normal (σ 0.02) linear maps, uniform input layer."""
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
    if vit.architecture.registers:
        nn.init.normal_(vit.register_tokens, std=1e-6, generator=generator)
