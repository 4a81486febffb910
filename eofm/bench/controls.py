"""Controls: baselines that a pretrained encoder must beat before its score means anything.

Per-band statistics of the raw image reach 86-90 % on EuroSAT, above many published networks
(arXiv 2305.13456); random convolutions and an untrained network of the same architecture come
close. Without these rows, a reader could not see that. The control of the prompt probe is the
mean and deviation of the bands in each patch.

Shapes: B images, C bands, H by W pixels, F filters, P patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from eofm.bench.sources import EncoderSource, Identity, NetworkSource
from eofm.contract.imagery import Imagery
from eofm.contract.prepare import preprocess_for
from eofm.contract.recipe import Pooling, Recipe, Waiver, default_recipe
from eofm.contract.spec import ImageSpec
from eofm.errors import PixelError
from eofm.probes.features import Scaling
from eofm.weights.encoder import Encoder, random_encoder

__all__ = [
    "FILTERS",
    "IMAGESTATS",
    "KERNEL",
    "PATCH_SIDE",
    "PATCH_STATISTICS",
    "PIXELS",
    "RANDOM",
    "RCF",
    "RCF_ZCA",
    "ImageStatistics",
    "PatchStatistics",
    "PixelValues",
    "RandomConvolutions",
    "drawn_patches",
    "gaussian_control",
    "gaussian_filters",
    "image_statistics",
    "random_control",
    "rcf_control",
    "untrained_control",
    "zca_control",
    "zca_filters",
]

IMAGESTATS: Final = "imagestats"
PIXELS: Final = "pixels"
RANDOM: Final = "random"
RCF: Final = "rcf"
RCF_ZCA: Final = "rcf-zca"

FILTERS: Final = 256
KERNEL: Final = 3
_BIAS: Final = -1.0
_ZCA_BIAS: Final = 1e-3
_SMALLEST_NORM: Final = 1e-8


def image_statistics(imagery: Imagery) -> Tensor:
    """Return mean, standard deviation (unbiased), maximum and minimum of each band.

    They are computed in the declared unit of the image, at its own size, over its valid pixels.

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
    network = None

    def __init__(self, name: str = IMAGESTATS) -> None:
        self.name = name

    def identity(self, spec: ImageSpec) -> Identity:
        """Return an identity without weights and plan: images are used as they are."""
        about = f"mean, sd, maximum and minimum of {len(spec.bands)} bands in {spec.unit}"
        return Identity(self.name, True, about, "", "", "", (), ())

    def embed(self, imagery: Imagery) -> Tensor:
        """Return `image_statistics`."""
        return image_statistics(imagery)

    def check_frozen(self) -> None:
        """Do nothing: there is no state."""


@final
class PixelValues:
    """The control `pixels`: a token per pixel, its bands in the declared unit.

    Args:
        name: Name in tables.
        size: Height and width of the images.
    """

    scaling = Scaling.STANDARD
    network = None

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        self.name, self.grid = name, size

    def identity(self, spec: ImageSpec) -> Identity:
        """Return an identity without weights and plan: images are used as they are."""
        about = f"the {len(spec.bands)} bands of each pixel in {spec.unit}"
        return Identity(self.name, True, about, "", "", "", (), ())

    def tokens(self, imagery: Imagery) -> Tensor:
        """Return float32 (B, H W, C); invalid pixels are set to the band mean of the valid ones."""
        valid = imagery.valid.flatten(1)[:, None]
        pixels = imagery.pixels.flatten(2)
        kept = torch.where(valid, pixels, 0).double()
        mean = kept.sum(dim=2, keepdim=True) / valid.sum(dim=2, keepdim=True).clamp_min(1)
        return torch.where(valid, pixels, mean.float()).movedim(1, 2)

    def embed(self, imagery: Imagery) -> Tensor:
        """Return the mean of the tokens, (B, C)."""
        return self.tokens(imagery).mean(dim=1)

    def check_frozen(self) -> None:
        """Do nothing: there is no state."""


# ------------------------------------------------------------ random convolutional features


@final
class RandomConvolutions(nn.Module):
    """Random convolutional features (MOSAIKS, Rolf et al. 2021): ReLU of both signs, averaged.

    Args:
        filters: (F, C, k, k).
    """

    filters: Tensor

    def __init__(self, filters: Tensor) -> None:
        super().__init__()
        self.register_buffer("filters", filters)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (B, 2 F): means of relu(y), then of relu(-y), y the convolution less 1."""
        bias = self.filters.new_full((len(self.filters),), _BIAS)
        y: Tensor = nn.functional.conv2d(pixels, self.filters, bias)
        sides: tuple[Tensor, ...] = (y.clamp_min(0), y.clamp_max(0).neg())
        features: Tensor = torch.cat([side.mean(dim=(2, 3)) for side in sides], dim=1)
        return features


def gaussian_filters(
    channels: int, seed: int, count: int = FILTERS, kernel: int = KERNEL
) -> Tensor:
    """Return filters (F, C, k, k) drawn from a normal distribution.

    They equal those of torchgeo's `RCF` with the same seed, except that there 0 means no seed.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, kernel, kernel, generator=generator)


def drawn_patches(
    images: Callable[[int], Tensor],
    total: int,
    seed: int,
    count: int = FILTERS,
    kernel: int = KERNEL,
) -> Tensor:
    """Return patches (F, C, k, k) at random positions of random images.

    Positions are drawn as in torchgeo's `RCF`, so equal seeds (other than 0) give equal patches.

    Args:
        images: Index -> a normalised image (C, H, W).
        total: Number of images.
        seed: Seed of the draws.
        count: Number of patches, F.
        kernel: Side of the patches, k.
    """
    first = images(0)
    channels, height, width = first.shape
    generator = torch.Generator().manual_seed(seed)
    torch.randn(count, channels, kernel, kernel, generator=generator)  # as in torchgeo
    which = torch.randint(0, total, (count,), generator=generator).tolist()
    rows = torch.randint(0, height - kernel, (count,), generator=generator).tolist()
    cols = torch.randint(0, width - kernel, (count,), generator=generator).tolist()
    return torch.stack(
        [
            images(i)[:, y : y + kernel, x : x + kernel]
            for i, y, x in zip(which, rows, cols, strict=True)
        ]
    )


def zca_filters(patches: Tensor) -> Tensor:
    """Return whitened patches: each centred and of unit norm, then P W W' with W the ZCA.

    The solver is symmetric: a general one, as in the original, can return complex values.

    Args:
        patches: (F, C, k, k).
    """
    rows = patches.flatten(1).double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    rows = rows / torch.where(norms < _SMALLEST_NORM, 1, norms)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    whitening = vectors @ torch.diag((values + _ZCA_BIAS).rsqrt()) @ vectors.T
    filters: Tensor = (rows @ whitening @ whitening.T).view_as(patches).float()
    return filters


def rcf_control(
    name: str, spec: ImageSpec, seed: int, device: torch.device, *, about: str, filters: Tensor
) -> NetworkSource:
    """Return a control of random convolutions on z-scored images at their own size.

    Args:
        name: Name in tables.
        spec: Description of the images.
        seed: Seed of the filters, for the text in the record.
        device: Device of the network.
        about: Description of the filters.
        filters: (F, C, k, k).
    """
    assert spec.size is not None  # noqa: S101 (every task states a size)
    return NetworkSource(
        name,
        RandomConvolutions(filters).to(device),
        default_recipe(spec, spec.size, Pooling.MEAN),
        f"{len(filters)} convolutions {KERNEL} x {KERNEL}, {about}, seed {seed}",
        control=True,
        scaling=Scaling.STANDARD,
    )


def gaussian_control(name: str, spec: ImageSpec, seed: int, device: torch.device) -> NetworkSource:
    """Return the control `rcf`: Gaussian filters."""
    filters = gaussian_filters(len(spec.bands), seed)
    return rcf_control(name, spec, seed, device, about="Gaussian", filters=filters)


def zca_control(
    name: str,
    spec: ImageSpec,
    seed: int,
    device: torch.device,
    images: Callable[[int], Imagery],
    total: int,
) -> NetworkSource:
    """Return the control `rcf-zca`: whitened patches of training images.

    Args:
        name: Name in tables.
        spec: Description of the images.
        seed: Seed of the draw of patches.
        device: Device of the network.
        images: Index -> a training image.
        total: Number of training images.
    """
    assert spec.size is not None  # noqa: S101 (every task states a size)
    step = preprocess_for(spec, default_recipe(spec, spec.size, Pooling.MEAN), ())

    def normalised(index: int) -> Tensor:
        prepared: Imagery = step(images(index))
        return prepared.pixels[0]

    filters = zca_filters(drawn_patches(normalised, total, seed))
    about = "whitened patches of the training images"
    return rcf_control(name, spec, seed, device, about=about, filters=filters)


# ----------------------------------------------------------------------------- untrained


def random_control(
    encoder: Encoder, seed: int, name: str = RANDOM, waivers: Sequence[Waiver] = ()
) -> EncoderSource:
    """Return the control `random`: the same architecture and recipe, untrained.

    Args:
        encoder: Encoder to compare with.
        seed: Seed of its weights.
        name: Name in tables.
        waivers: Waivers granted.
    """
    weight = next(encoder.parameters())
    return untrained_control(
        encoder.card.architecture, encoder.recipe, seed, weight.device, name, waivers
    )


def untrained_control(
    architecture: str,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    name: str = RANDOM,
    waivers: Sequence[Waiver] = (),
) -> EncoderSource:
    """Return an untrained encoder of any architecture as a control.

    Args:
        architecture: A name that `eofm.networks.build.build` knows.
        recipe: Its recipe.
        seed: Seed of its weights.
        device: Device of the network.
        name: Name in tables.
        waivers: Waivers granted.

    Raises:
        WeightsError: If no architecture has that name.
    """
    untrained = random_encoder(architecture, recipe, seed)
    return EncoderSource(name, untrained.to(device), control=True, waivers=waivers)


# ---------------------------------------------------------------------------- statistics of patches

PATCH_STATISTICS: Final = "patchstats"
# Side of a patch in pixels if no encoder defines it.
PATCH_SIDE: Final = 16


@final
class PatchStatistics:
    """Band statistics per patch, in the declared unit, over valid pixels.

    Args:
        name: Name in tables.
        grid: Rows and columns of patches.
    """

    scaling = Scaling.STANDARD
    network = None

    def __init__(self, name: str, grid: tuple[int, int]) -> None:
        self.name, self.grid = name, grid

    def identity(self, spec: ImageSpec) -> Identity:
        """Return an identity without weights and plan: images are used as they are."""
        rows, columns = self.grid
        about = (
            f"mean and sd of the {len(spec.bands)} bands in {spec.unit}, in {rows} x {columns} "
            "patches"
        )
        return Identity(self.name, True, about, "", "", "", (), ())

    def tokens(self, imagery: Imagery) -> Tensor:
        """Return float32 (B, P, 2 C): means, then deviations.

        A patch without a valid pixel gets the mean of the other patches, and a deviation of zero.
        Patches that do not end between pixels share the pixels that they touch, as for masks.
        """
        valid = imagery.valid[:, None].double()
        kept = torch.where(imagery.valid[:, None], imagery.pixels, 0).double()
        share = adaptive_avg_pool2d(valid, self.grid)
        mean = adaptive_avg_pool2d(kept, self.grid) / share.clamp_min(1e-12)
        square = adaptive_avg_pool2d(kept.square(), self.grid) / share.clamp_min(1e-12)
        there = share > 0
        count = there.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        fill = torch.where(there, mean, 0).sum(dim=(2, 3), keepdim=True) / count
        mean = torch.where(there, mean, fill)
        deviation = torch.where(there, square - mean.square(), 0).clamp_min(0).sqrt()
        return torch.cat([mean, deviation], dim=1).flatten(2).movedim(1, 2).float()

    def embed(self, imagery: Imagery) -> Tensor:
        """Return the mean of the tokens, (B, 2 C)."""
        return self.tokens(imagery).mean(dim=1)

    def check_frozen(self) -> None:
        """Do nothing: there is no state."""
