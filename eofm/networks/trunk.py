"""Interface of every network: pixels in, one vector per image out, tokens on request.

Shapes: B images, C bands, H by W pixels, P patches (of a ResNet: cells of its last map) of which K
are kept, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from eofm.contract.recipe import Pooling
from eofm.errors import MismatchKind, SpecError, SpecMismatch

__all__ = ["Trunk", "drawn_from"]


@contextmanager
def drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Let third-party constructors, which use the global random state, draw from `generator`.

    The global state on the CPU is restored afterwards.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Trunk(nn.Module, ABC):
    """A network for normalised pixels.

    Args:
        channels: Bands, C.
        size: Native height and width in pixels, as in its recipe.
        pooling: What `forward` returns: the CLS token, or the mean over the patches.
        multiple: Height and width of an image must be multiples of this many pixels.
        prefix: Tokens before the patches in `forward_features`: CLS, registers.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], pooling: Pooling, multiple: int, prefix: int
    ) -> None:
        super().__init__()
        self.channels, self.size, self.pooling = channels, size, pooling
        self.multiple, self.prefix = multiple, prefix

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the embedding, D."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the native size."""

    @property
    def tokens(self) -> int:
        """Number of patches at the native size, P."""
        return self.grid[0] * self.grid[1]

    @property
    def block(self) -> int:
        """Side of the image area of one patch or cell, in pixels."""
        return -(-self.size[0] // self.grid[0])

    @property
    def drops_tokens(self) -> bool:
        """Whether `keep` is supported: a network without tokens cannot drop any."""
        return True

    @property
    @abstractmethod
    def input_layer(self) -> str:
        """Name of the input layer: `{input_layer}.weight` is (O, C, k, k)."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of blocks (of a ResNet: stages) between the input layer and the output."""

    @abstractmethod
    def layer_of(self, parameter: str) -> int:
        """Return the depth of a parameter, for layer-wise learning rates (arXiv 2106.08254).

        Args:
            parameter: Its name in `named_parameters`.

        Returns:
            0 for the input layer and additions to its output (CLS, positions, registers), k + 1 for
            block or stage k, `depth` + 1 for layers after the last one.
        """

    @abstractmethod
    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return one vector per image, (B, D).

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Raises:
            SpecMismatch: If the channels are not C, or the size cannot be cut into patches.
        """

    @abstractmethod
    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens after the final norm, `prefix` of them before the patches.

        Args:
            pixels: (B, C, H, W), normalised.
            keep: int64 (B, K), the patches to see; all of them if None.

        Returns:
            (B, prefix + P, D), or (B, prefix + K, D); patches row by row.

        Raises:
            SpecMismatch: If the channels are not C, or the size cannot be cut into patches.
        """

    @abstractmethod
    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Return patch tokens of several layers, with DINOv2's signature.

        Args:
            x: (B, C, H, W), normalised.
            n: The last n layers, or the indices of the requested layers.
            reshape: Return maps, (B, D, rows, columns), instead of tokens, (B, P, D).
            return_class_token: Return pairs (patches, CLS token (B, D)) instead of patches.
            norm: Apply the network's final norm to each.

        Raises:
            SpecError: If there is no such layer, or a CLS token is requested and there is none.
            SpecMismatch: If the channels are not C, or the size cannot be cut into patches.
        """

    def refuse_keep(self, keep: Tensor | None) -> None:
        """Refuse `keep` in a network that cannot drop patches.

        Raises:
            SpecError: If `keep` is given.
        """
        if keep is not None:
            raise SpecError(
                "this network cannot leave patches out",
                found=f"keep of shape {tuple(keep.shape)}",
                expected="None",
                where=type(self).__name__,
                remedy="give it whole images, or take a vision transformer: see drops_tokens",
            )

    def check_layers(self, n: int | Sequence[int], depth: int) -> list[int]:
        """Return the indices of the requested layers in network order, as DINOv2 does.

        Args:
            n: The last n layers, or the indices of the requested layers.
            depth: Number of layers.

        Raises:
            SpecError: If there is no such layer, or a layer is named twice.
        """
        wanted = list(range(depth - n, depth)) if isinstance(n, int) else sorted(n)
        if not wanted or wanted[0] < 0 or wanted[-1] >= depth or len(set(wanted)) < len(wanted):
            raise SpecError(
                "the network has no such layers",
                found=f"n = {n}",
                expected=f"1 to {depth} layers, or different indices from 0 to {depth - 1}",
            )
        return wanted

    def check_pixels(self, pixels: Tensor) -> None:
        """Refuse invalid input of the network.

        Raises:
            SpecError: If it is not a floating-point tensor.
            SpecMismatch: If the channels are not C, or the size cannot be cut into patches.
        """
        if not (isinstance(pixels, Tensor) and pixels.is_floating_point()):
            kind = pixels.dtype if isinstance(pixels, Tensor) else type(pixels).__name__
            raise SpecError(
                "the network itself takes normalised pixels",
                found=kind,
                expected=f"a tensor (B, {self.channels}, H, W) of floating-point numbers",
                remedy="encoder.embed takes imagery in physical units; encoder.preprocess makes "
                "of it what the network takes",
            )
        if pixels.ndim != 4 or pixels.shape[1] != self.channels:
            raise SpecMismatch(
                MismatchKind.BANDS,
                "the network takes another number of bands",
                found=f"pixels of shape {tuple(pixels.shape)}",
                expected=f"(B, {self.channels}, H, W)",
            )
        if any(side % self.multiple for side in pixels.shape[2:]):
            raise SpecMismatch(
                MismatchKind.SIZE,
                "the image cannot be cut into whole patches",
                found=f"{pixels.shape[2]} x {pixels.shape[3]} pixels",
                expected=f"multiples of {self.multiple}",
                remedy=f"choose sides that {self.multiple} divides; encoder.preprocess makes the "
                "recipe's",
            )
