"""A toy task of images in memory, and toy networks: right ones and wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from eofm.bench.sources import Trainee
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import ImageSpec, Normalization, Sensor, Unit
from eofm.datasets.images.chips import Chip, StoredAt

BANDS: Final = ("B04", "B03", "B02")
SPEC: Final = ImageSpec(Sensor.S2_L1C, BANDS, Unit.DN, (8, 8), 10.0)
RECIPE: Final = Recipe(
    Sensor.S2_L1C,
    BANDS,
    Unit.DN,
    (8, 8),
    Normalization.zscore((1000.0,) * 3, (200.0,) * 3, "toy"),
    pooling=Pooling.MEAN,
)


@dataclass(frozen=True)
class Kept:
    """Pixels in memory."""

    imagery: Imagery
    place = StoredAt(())

    def read(self) -> Imagery:
        """The image."""
        return self.imagery

    def digest(self) -> str:
        """No file, no hash."""
        return ""


def toy_chips(count: int, seed: int, *, several: bool = False) -> tuple[Chip, ...]:
    """Images whose band means tell three classes apart, or which of three classes they hold."""
    generator = torch.Generator().manual_seed(seed)
    chips = []
    for number in range(count):
        hot = torch.randint(2, (3,), generator=generator)
        present = hot.bool() if several else torch.arange(3) == number % 3
        if several and not present.any():
            present[number % 3] = True
        level = 1000 + 150 * present.float()
        pixels = level[:, None, None] + 100 * torch.randn(3, 8, 8, generator=generator)
        valid = torch.ones(1, 8, 8, dtype=torch.bool)
        label = tuple(torch.nonzero(present).flatten().tolist())
        image = Kept(Imagery(pixels[None].contiguous(), SPEC, valid))
        chips.append(Chip(f"{seed}-{number:04d}", label if several else label[0], (image,)))
    return tuple(chips)


class Small(nn.Module):
    """A convolution, a batch norm, and the mean: 16 features."""

    def __init__(self, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """One vector per image."""
        vectors: Tensor = self.norm(self.conv(pixels)).relu().mean(dim=(2, 3))
        return vectors


class Broken(Small):
    """Its first feature is NaN."""

    def forward(self, pixels: Tensor) -> Tensor:
        """One vector per image, not finite."""
        vectors = super().forward(pixels)
        return torch.cat([vectors[:, :1] * torch.nan, vectors[:, 1:]], dim=1)


class Counting(Small):
    """Counts the images it has seen, in evaluation mode too."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, pixels: Tensor) -> Tensor:
        """One vector per image, and a buffer that moves."""
        self.seen += len(pixels)
        return super().forward(pixels)


class Stubborn(Small):
    """A part of it does not obey `eval()`."""

    def train(self, mode: bool = True) -> Stubborn:
        """Leave the batch norm in training mode, whatever is asked for."""
        super().train(mode)
        self.norm.training = True
        return self


class Collapsed(Small):
    """All features are the same one."""

    def forward(self, pixels: Tensor) -> Tensor:
        """One vector per image, of rank one."""
        return super().forward(pixels)[:, :1].expand(-1, 16)


def trainee(network: nn.Module, name: str = "toy") -> Trainee:
    """A network to be trained."""
    return Trainee(name, network.eval(), None, RECIPE, ())
