"""What of a candidate can be trained, and how a read-out looks into it.

The harness prepares pixels by the recipe, exactly as for frozen features; here are the network
behind it, and the vectors of its last layers that DINOv2's linear evaluation reads (arXiv
2304.07193, appendix B.3).

Shapes: B images, C bands, H by W pixels, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from eofm.contract.imagery import Imagery
from eofm.contract.prepare import preprocess_for
from eofm.contract.recipe import Recipe, Waiver
from eofm.errors import PixelError, WeightsError
from eofm.networks.trunk import Trunk

# How many of the last layers are looked at: 1 or 4 in DINOv2's grid.
LAST: Final = 4


@dataclass(frozen=True)
class Trainee:
    """A network with what it eats.

    Args:
        name: Name of the candidate.
        network: From normalised pixels (B, C, H, W) to vectors (B, D).
        trunk: The same where it shows its layers, or None.
        recipe: What it eats.
        waivers: Exceptions it is granted.
    """

    name: str
    network: nn.Module
    trunk: Trunk | None
    recipe: Recipe
    waivers: tuple[Waiver, ...]

    def pixels(self, imagery: Imagery) -> Tensor:
        """Return normalised pixels (B, C, H, W) of imagery in physical units, on its device.

        Raises:
            SpecMismatch: If the imagery does not fit the recipe.
            PixelError: If a valid pixel is not finite, or an image has no valid pixel.
        """
        prepared: Imagery = preprocess_for(imagery.spec, self.recipe, self.waivers)(imagery)
        return prepared.pixels

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(iter(self.network.state_dict().values()), torch.empty(0)).device


def check_vectors(found: object, count: int, name: str) -> Tensor:
    """Return what a network made of `count` images, if it is one finite vector per image.

    Raises:
        WeightsError: If it is something else.
        PixelError: If a feature is not finite.
    """
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != count:
        raise WeightsError(
            "an encoder must return one vector per image",
            found=tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__,
            expected=f"a tensor of shape ({count}, D)",
            where=name,
            remedy="pool tokens or maps in its forward",
        )
    if not torch.isfinite(found).all():
        raise PixelError(
            "an encoder returned features that are not finite",
            found=f"{int((~torch.isfinite(found)).any(dim=1).sum())} of {len(found)} images",
            where=name,
            remedy="half precision overflows, and a division by a deviation of 0 is infinite",
        )
    return found


def check_evaluating(network: nn.Module, name: str, remedy: str) -> None:
    """Refuse a network of which a part is in training mode.

    Raises:
        WeightsError: If one is.
    """
    training = [part or "itself" for part, m in network.named_modules() if m.training]
    if training:
        raise WeightsError(
            "the network is in training mode: dropout and batch statistics would be features",
            found=", ".join(training[:5]),
            where=name,
            remedy=remedy,
        )


# ---------------------------------------------------------------------------- read-outs


@dataclass(frozen=True)
class Readout:
    """What a linear layer reads.

    Args:
        layers: The vectors of so many last layers, side by side; 0 is the model's own embedding.
        patch_mean: The mean of the last layer's patch tokens beside them.
    """

    layers: int = 0
    patch_mean: bool = False

    @property
    def name(self) -> str:
        """As in records: `embedding`, `1 layer`, `4 layers + patch mean`."""
        if not self.layers:
            return "embedding"
        words = f"{self.layers} layer" + ("s" if self.layers > 1 else "")
        return words + (" + patch mean" if self.patch_mean else "")


EMBEDDING: Final = Readout()


def last_layers(trunk: Trunk, pixels: Tensor) -> Tensor:
    """Return the vectors of the last four layers and the mean of the last one's patches.

    Of a transformer each layer's vector is its CLS token after the final norm, and the mean comes
    last. A network without a CLS token has the means of its layers, and no further one.

    Args:
        trunk: The network; with fewer than four layers, all of them are read.
        pixels: (B, C, H, W), normalised.

    Returns:
        (B, (L + 1) D), or (B, sum of the widths of L layers).
    """
    count = min(LAST, trunk.depth)
    if not trunk.prefix:
        maps = trunk.get_intermediate_layers(pixels, count)
        return torch.cat([m.mean(dim=1) for m in maps if isinstance(m, Tensor)], dim=1)
    pairs = trunk.get_intermediate_layers(pixels, count, return_class_token=True)
    both = [pair for pair in pairs if isinstance(pair, tuple)]
    return torch.cat([*(cls for _, cls in both), both[-1][0].mean(dim=1)], dim=1)


def readouts_of(trunk: Trunk) -> tuple[Readout, ...]:
    """Return what `last_layers` holds of a network: 1 or 4 layers, without or with the mean."""
    counts = dict.fromkeys((1, min(LAST, trunk.depth)))
    means = (False, True) if trunk.prefix else (False,)
    return tuple(Readout(layers, mean) for layers in counts for mean in means)


def columns_of(trunk: Trunk, width: int) -> Mapping[Readout, slice]:
    """Return which columns of `last_layers` each read-out takes.

    Args:
        trunk: The network.
        width: Number of columns.
    """
    end = width - trunk.dim if trunk.prefix else width
    return {
        readout: slice(
            end - trunk.dim if readout.layers == 1 else 0, width if readout.patch_mean else end
        )
        for readout in readouts_of(trunk)
    }


def take(vectors: Sequence[Tensor], columns: Sequence[slice]) -> Tensor:
    """Return the columns of one read-out, of all sensors side by side."""
    return torch.cat([v[:, c] for v, c in zip(vectors, columns, strict=True)], dim=1)
