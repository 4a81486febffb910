"""Controls: what every pretrained encoder must beat before its score means anything.

Per-band statistics of the raw image reach 86-90 % on EuroSAT, above many published networks
(arXiv 2305.13456), and an untrained network of the same architecture reaches nearly as much.
Without these rows nobody would know.

Shapes: B images, C bands, H by W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor

from eofm.bench.features import EncoderSource, Identity
from eofm.errors import PixelError
from eofm.imagery import Imagery
from eofm.models.encoder import Encoder, random_encoder
from eofm.probe import Scaling
from eofm.recipe import Waiver
from eofm.spec import ImageSpec

IMAGESTATS: Final = "imagestats"
RANDOM: Final = "random"


def image_statistics(imagery: Imagery) -> Tensor:
    """Return mean, standard deviation (unbiased), maximum and minimum of each band.

    Of the image in its declared unit, at its own size, over its valid pixels.

    Returns:
        float32 (B, 4 C): all means, all deviations, all maxima, all minima.

    Raises:
        PixelError: If an image has fewer than two valid pixels.
    """
    valid = imagery.valid.flatten(1)[:, None]
    count = valid.sum(dim=2)
    if (count < 2).any():
        raise PixelError("an image has fewer than two valid pixels", found=int(count.min()))
    pixels = imagery.pixels.flatten(2).double()
    mean = torch.where(valid, pixels, 0).sum(dim=2) / count
    deviation = torch.where(valid, pixels - mean[..., None], 0)
    std = (deviation.square().sum(dim=2) / (count - 1)).sqrt()
    high = torch.where(valid, pixels, -torch.inf).amax(dim=2)
    low = torch.where(valid, pixels, torch.inf).amin(dim=2)
    return torch.cat([mean, std, high, low], dim=1).float()


@final
class ImageStatistics:
    """The control `imagestats`: four numbers per band, standardised in the probe.

    Args:
        name: Name in tables.
    """

    scaling = Scaling.STANDARD

    def __init__(self, name: str = IMAGESTATS) -> None:
        self.name = name

    def identity(self, spec: ImageSpec) -> Identity:
        """Return that it has neither weights nor a plan: it takes images as they are."""
        about = f"mean, sd, maximum and minimum of {len(spec.bands)} bands in {spec.unit}"
        return Identity(self.name, True, about, "", "", "", (), ())

    def embed(self, imagery: Imagery) -> Tensor:
        """Return `image_statistics`."""
        return image_statistics(imagery)

    def check_frozen(self) -> None:
        """Have nothing to check: there is no state."""


def random_control(
    encoder: Encoder, seed: int, name: str = RANDOM, waivers: Sequence[Waiver] = ()
) -> EncoderSource:
    """Return the control `random`: the same architecture and recipe, untrained.

    Args:
        encoder: What it is the yardstick for.
        seed: Of its weights.
        name: Name in tables.
        waivers: Exceptions it is granted.
    """
    untrained = random_encoder(encoder.card.architecture, encoder.recipe, seed)
    weight = next(encoder.parameters())
    return EncoderSource(name, untrained.to(weight.device), control=True, waivers=waivers)
