"""DOFA, CROMA, Panopticon and Copernicus-FM of torchgeo with the interface of a `Trunk`.

The networks are torchgeo's modules; this module passes them the bands and returns their tokens.
Wavelengths, bandwidths and channel ids follow from the names of the bands: they are those each
network was trained with, not physical constants, and no user has to know them. Parts
of a published network that an embedding does not use (heads, decoders, hypernetworks for other
sensors) are not built, so the tensor names are those of the published files without those parts.

torchgeo is an extra: `pip install 'eofm[torchgeo]'`. It is imported when a network is built. DOFA
and Copernicus-FM generate their input layer in float32; for lower precision use autocast.

Shapes: B images, C bands, H by W pixels, P patches, N tokens, D width.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, final

import torch
from torch import Tensor, nn

from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.errors import MismatchKind, SpecError, SpecMismatch, WeightsError
from eofm.networks.state import PositionRecipe, resample_positions
from eofm.networks.trunk import Trunk, drawn_from
from eofm.networks.vit import LAYER_SCALE_INIT

__all__ = [
    "COPERNICUS_NANOMETRES",
    "DOFA_MICROMETRES",
    "FOUNDATION",
    "PANOPTICON_CHANNELS",
    "CROMATrunk",
    "CopernicusFMTrunk",
    "DOFATrunk",
    "FoundationTrunk",
    "PanopticonTrunk",
    "Size",
    "StandardisedMeanTrunk",
    "build_foundation",
]

# ------------------------------------------------------------------------------------- common parts


@dataclass(frozen=True)
class Size:
    """Size of a network.

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
    """Base class: torchgeo's modules, whole images, tokens of any block.

    Args:
        size: Size of the network.
        recipe: Input that it will expect.
        prefix: Tokens before the patches: a CLS token, or none.
        pooling: The only pooling its published weights are for.

    Raises:
        SpecError: If the recipe's pooling differs, or its size is not a square of whole patches.
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
        self.blocks: nn.ModuleList  # only for networks whose blocks map tokens to tokens

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
        """Return False: published networks are for comparison, and `keep` is refused."""
        return False

    @property
    def input_layer(self) -> str:
        """Name of the input layer, which is not a convolution adaptable to other bands."""
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
            keep: Must be None.

        Raises:
            SpecMismatch: If the channels are not C, or the network does not accept the size.
            SpecError: If `keep` is given.
        """
        self.refuse_keep(keep)
        (tokens,) = self._walk(pixels, [self.depth - 1])
        return self._pool(tokens)

    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens after the final norm, (B, prefix + P, D), patches row by row.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: Must be None.

        Raises:
            SpecMismatch: If the channels are not C, or the network does not accept the size.
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
            SpecError: If there is no such block, or a CLS token is requested and there is none.
            SpecMismatch: If the channels are not C, or the network does not accept the size.
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
        """Return the output tokens of the requested blocks, each (B, prefix + P, D)."""
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
        """Return the output tokens of block `index`."""
        out: Tensor = self.blocks[index](tokens)
        return out

    @abstractmethod
    def _normed(self, tokens: Tensor) -> Tensor:
        """Apply the final norm along the last axis."""

    @abstractmethod
    def _pool(self, tokens: Tensor) -> Tensor:
        """Return the vector (B, D) pooled from the last block's tokens."""


class StandardisedMeanTrunk(FoundationTrunk):
    """A foundation model whose final norm has no weights and comes after the mean."""

    def _normed(self, tokens: Tensor) -> Tensor:
        return nn.functional.layer_norm(tokens, (self.dim,), eps=1e-6)

    def _pool(self, tokens: Tensor) -> Tensor:
        return self._normed(tokens[:, 1:].mean(dim=1))


# ------------------------------------------------------------------ band parameters of the networks

# DOFA, in µm: zhu-xlab/DOFA, pretraining/datasets/waves.json, for its nine Sentinel-2 bands and the
# placeholder of its two Sentinel-1 channels; B01, B8A, B09 and B10, which it was not trained on,
# as in Copernicus-Bench (zhu-xlab/Copernicus-FM, cobench_eurosat_s2.yaml).
DOFA_MICROMETRES: Final[Mapping[str, float]] = {
    "B01": 0.44, "B02": 0.49, "B03": 0.56, "B04": 0.665, "B05": 0.705, "B06": 0.74, "B07": 0.783,
    "B08": 0.842, "B8A": 0.86, "B09": 0.94, "B10": 1.37, "B11": 1.61, "B12": 2.19,
    "VV": 3.75, "VH": 3.75,
}  # fmt: skip

# Copernicus-FM, wavelength and bandwidth in nm: zhu-xlab/Copernicus-FM, engine_pretrain.py.
COPERNICUS_NANOMETRES: Final[Mapping[str, tuple[float, float]]] = {
    "B01": (440, 20), "B02": (490, 65), "B03": (560, 35), "B04": (665, 30), "B05": (705, 15),
    "B06": (740, 15), "B07": (783, 20), "B08": (842, 115), "B8A": (860, 20), "B09": (940, 20),
    "B10": (1370, 30), "B11": (1610, 90), "B12": (2190, 180), "VV": (5e7, 1e9), "VH": (5e7, 1e9),
}  # fmt: skip

# Panopticon: the mean of the spectral response in nm, cut to int16 as its loaders do; -1 and -2 are
# VV and VH of either orbit: Panopticon-FM/panopticon, configs/data/satellites/sentinel2.yaml and
# sentinel1.yaml, dinov2/utils/data.py.
PANOPTICON_CHANNELS: Final[Mapping[str, int]] = {
    "B01": 442, "B02": 492, "B03": 559, "B04": 664, "B05": 704, "B06": 740, "B07": 782,
    "B08": 827, "B8A": 864, "B09": 945, "B10": 1373, "B11": 1613, "B12": 2203, "VV": -1, "VH": -2,
}  # fmt: skip


@final
class DOFATrunk(StandardisedMeanTrunk):
    """DOFA (arXiv 2403.15356): the input layer is generated from wavelengths.

    The vector is the standardised mean over the patches: torchgeo and the authors use a LayerNorm
    there, whose weights are in no published file. Only images of the recipe's size are accepted.

    Args:
        size: Size of the network.
        recipe: Input that it will expect.
    """

    def __init__(self, size: Size, recipe: Recipe) -> None:
        super().__init__(size, recipe, prefix=1, pooling=Pooling.MEAN)
        self.wavelengths = _of_bands(DOFA_MICROMETRES, recipe, "DOFA")
        net = _torchgeo().DOFA(
            img_size=recipe.size[0],
            patch_size=size.patch,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            num_classes=0,
        )
        self.patch_embed, self.cls_token, self.blocks = net.patch_embed, net.cls_token, net.blocks
        self.pos_embed = net.pos_embed

    def _embed(self, pixels: Tensor) -> Tensor:
        self.check_one_size(pixels)
        waves = torch.tensor(self.wavelengths, dtype=torch.float32, device=pixels.device)
        patches, _ = self.patch_embed(pixels, waves)
        return _with_cls(patches, self.cls_token, self.pos_embed)


@final
class CopernicusFMTrunk(StandardisedMeanTrunk):
    """Copernicus-FM (arXiv 2503.11849): the input layer comes from wavelengths and bandwidths.

    Longitude, latitude, date and patch area are passed as unknown, for which the network has a
    learned token each. The norms have the authors' epsilon, 1e-6; torchgeo 0.8.1 builds them with
    1e-5. The vector is the standardised mean over the patches, as in DOFA.

    Args:
        size: Size of the network.
        recipe: Input that it will expect.
    """

    def __init__(self, size: Size, recipe: Recipe) -> None:
        super().__init__(size, recipe, prefix=1, pooling=Pooling.MEAN)
        pairs = _of_bands(COPERNICUS_NANOMETRES, recipe, "Copernicus-FM")
        self.wavelengths = [wavelength for wavelength, _ in pairs]
        self.bandwidths = [bandwidth for _, bandwidth in pairs]
        net = _torchgeo().CopernicusFM(
            img_size=size.positions * size.patch,
            patch_size=size.patch,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            num_classes=0,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.patch_embed_spectral, self.blocks = net.patch_embed_spectral, net.blocks
        self.cls_token, self.pos_embed = net.cls_token, net.pos_embed
        self.coord_token, self.coord_fc = net.coord_token, net.coord_fc
        self.scale_token, self.scale_fc = net.scale_token, net.scale_fc
        self.time_token, self.time_fc = net.time_token, net.time_fc

    def _embed(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed_spectral(
            pixels,
            wavelengths=torch.tensor(self.wavelengths, device=pixels.device).float(),
            bandwidths=torch.tensor(self.bandwidths, device=pixels.device).float(),
            kernel_size=self.multiple,
        )
        # the authors interpolate as flexivit does: bicubic, antialiased
        table = _positions(self.pos_embed, self.architecture, pixels, PositionRecipe.TIMM)
        unknown = self.coord_fc(self.coord_token) + self.scale_fc(self.scale_token)
        return _with_cls(patches, self.cls_token, table + (unknown + self.time_fc(self.time_token)))


@final
class PanopticonTrunk(FoundationTrunk):
    """Panopticon (arXiv 2503.10845): attention over channels, then DINOv2's ViT-B/14.

    Positions are those of DINOv2 at 518 pixels, interpolated at run time as DINOv2 and the authors
    do (no antialiasing, offset 0.1); torchgeo antialiases. The vector is the CLS token.

    Args:
        size: Size of the network.
        recipe: Input that it will expect.
    """

    def __init__(self, size: Size, recipe: Recipe) -> None:
        super().__init__(size, recipe, prefix=1, pooling=Pooling.CLS)
        self.channel_ids = _of_bands(PANOPTICON_CHANNELS, recipe, "Panopticon")
        net = _torchgeo().Panopticon(
            attn_dim=size.channel_width,
            embed_dim=size.width,
            img_size=size.positions * size.patch,
        )
        self.patch_embed, self.blocks = net.model.patch_embed, net.model.blocks
        self.cls_token, self.pos_embed = net.model.cls_token, net.model.pos_embed
        self.norm = net.model.norm

    def _embed(self, pixels: Tensor) -> Tensor:
        # torchgeo floors the ids in place, so they are created anew each time
        ids = torch.tensor(self.channel_ids, device=pixels.device).repeat(len(pixels), 1)
        patches = self.patch_embed({"imgs": pixels, "chn_ids": ids})
        table = _positions(self.pos_embed, self.architecture, pixels, PositionRecipe.DINOV2)
        return _with_cls(patches, self.cls_token, table)

    def _normed(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.norm(tokens)
        return out

    def _pool(self, tokens: Tensor) -> Tensor:
        return self._normed(tokens[:, 0])


@final
class CROMATrunk(FoundationTrunk):
    """The optical or the radar encoder of CROMA (arXiv 2311.00566), without CLS and positions.

    Attention is biased by distance (2D-ALiBi) at the recipe's size, the only one accepted. The
    vector is the mean over the patches, without the feed-forward head that was used for the
    contrastive loss.

    Args:
        size: Size of the network; the depth is that of this encoder.
        recipe: Expected input: the 12 bands of Sentinel-2 L2A, or VV and VH, in that order.

    Raises:
        SpecError: If the bands differ.
    """

    def __init__(self, size: Size, recipe: Recipe) -> None:
        super().__init__(size, recipe, prefix=0, pooling=Pooling.MEAN)
        optical = recipe.bands == SENSOR_BANDS[Sensor.S2_L2A]
        if not optical and recipe.bands != SENSOR_BANDS[Sensor.S1_GRD]:
            raise SpecError(
                "CROMA has one encoder for 12 bands and one for two",
                found=" ".join(recipe.bands),
                expected=f"{' '.join(SENSOR_BANDS[Sensor.S2_L2A])}, or VV VH",
            )
        net = _torchgeo().CROMA(
            modalities=["optical" if optical else "sar"],
            encoder_dim=size.width,
            encoder_depth=size.depth if optical else 2 * size.depth,
            num_heads=size.heads,
            patch_size=size.patch,
            image_size=recipe.size[0],
        )
        encoder = net.s2_encoder if optical else net.s1_encoder
        self.linear_input, self.transformer = encoder.linear_input, encoder.transformer
        self.attn_bias: Tensor
        self.register_buffer("attn_bias", net.attn_bias, persistent=False)

    @property
    def input_layer(self) -> str:
        """A linear map of patches: `linear_input.weight` is (D, C k k)."""
        return "linear_input"

    def _embed(self, pixels: Tensor) -> Tensor:
        self.check_one_size(pixels)
        patch = self.multiple
        cut = pixels.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, C, rows, columns, k, k)
        out: Tensor = self.linear_input(cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))
        return out

    def _step(self, index: int, tokens: Tensor) -> Tensor:
        attention, feed_forward = self.transformer.layers[index]
        tokens = attention(tokens, self.attn_bias) + tokens
        out: Tensor = feed_forward(tokens) + tokens
        return out

    def _normed(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.transformer.norm_out(tokens)
        return out

    def _pool(self, tokens: Tensor) -> Tensor:
        return self._normed(tokens).mean(dim=1)


# ------------------------------------------------------------------------------------- by name

_T = TypeVar("_T")
_Make = Callable[[Size, Recipe], FoundationTrunk]

FOUNDATION: Final[Mapping[str, tuple[_Make, Size]]] = {
    "dofa-base": (DOFATrunk, Size(768, 12, 12, patch=16)),
    "dofa-large": (DOFATrunk, Size(1024, 24, 16, patch=16)),
    "croma-base-s2": (CROMATrunk, Size(768, 12, 16, patch=8, positions=0)),
    "croma-base-s1": (CROMATrunk, Size(768, 6, 16, patch=8, positions=0)),
    "croma-large-s2": (CROMATrunk, Size(1024, 24, 16, patch=8, positions=0)),
    "croma-large-s1": (CROMATrunk, Size(1024, 12, 16, patch=8, positions=0)),
    "panopticon-base": (
        PanopticonTrunk,
        Size(768, 12, 12, patch=14, positions=37, channel_width=2304),
    ),
    "copernicus-fm-base": (CopernicusFMTrunk, Size(768, 12, 12, patch=16)),
}


def build_foundation(
    architecture: str, recipe: Recipe, generator: torch.Generator
) -> FoundationTrunk:
    """Build a foundation model by name, with weights drawn from `generator` as torchgeo draws them.

    Only LayerScale, which Panopticon has, starts at 1, as in `eofm.networks.vit`.

    Args:
        architecture: A key of `FOUNDATION`.
        recipe: Input that it will expect.
        generator: Random generator of the initial weights, on the CPU.

    Raises:
        WeightsError: If no foundation model has that name, or torchgeo is not installed.
        SpecError: If the recipe's bands, size or pooling do not fit the architecture.
    """
    if architecture not in FOUNDATION:
        raise WeightsError(
            f"there is no foundation model {architecture!r}",
            found=architecture,
            expected=", ".join(FOUNDATION),
        )
    make, size = FOUNDATION[architecture]
    with drawn_from(generator):
        trunk = make(size, recipe)
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            if name.endswith(".gamma"):
                parameter.fill_(LAYER_SCALE_INIT)
    return trunk


def _torchgeo() -> Any:  # noqa: ANN401 (torchgeo has no types)
    try:
        from torchgeo import models
    except ImportError as error:
        raise WeightsError(
            "DOFA, CROMA, Panopticon and Copernicus-FM are built from torchgeo's modules",
            found=error,
            expected="torchgeo 0.8.1 or later",
            remedy="pip install 'eofm[torchgeo]'",
        ) from error
    return models


def _of_bands(table: Mapping[str, _T], recipe: Recipe, network: str) -> list[_T]:
    unknown = [band for band in recipe.bands if band not in table]
    if unknown:
        raise SpecError(
            f"{network} has never seen bands of these names",
            found=", ".join(unknown),
            expected=", ".join(table),
        )
    return [table[band] for band in recipe.bands]


def _positions(table: Tensor, size: Size, pixels: Tensor, recipe: PositionRecipe) -> Tensor:
    rows, columns = (side // size.patch for side in pixels.shape[2:])
    return resample_positions(table, (size.positions, size.positions), (rows, columns), recipe)


def _with_cls(patches: Tensor, cls_token: Tensor, positions: Tensor) -> Tensor:
    """Add positions, (1, 1 + P, D), and put the CLS token before the patches, (B, P, D)."""
    cls = (cls_token + positions[:, :1]).expand(len(patches), -1, -1)
    return torch.cat([cls, patches + positions[:, 1:]], dim=1)
