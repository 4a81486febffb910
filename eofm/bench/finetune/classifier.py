"""Networks with linear heads, their training state and predictions.

Shapes: B images, N of a split, W columns that a head reads, K classes, M heads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

from eofm.bench.features import EMBEDDING, Readout, columns_of, last_layers, take
from eofm.bench.finetune.trainings import Draw, Images, Training, in_order, make_views
from eofm.bench.sources import Trainee, check_evaluating, check_vectors
from eofm.contract.imagery import Imagery
from eofm.errors import ConfigError, WeightsError
from eofm.networks.state import state_sha256
from eofm.networks.trunk import Trunk

__all__ = ["CHUNK", "Classifier", "Head", "features", "precision_of", "predict"]

# Images per forward pass without gradients.
CHUNK: Final = 64


@dataclass(frozen=True)
class Head:
    """Input and learning rate of one head.

    Args:
        readout: Features that it reads.
        rate: Learning rate.
    """

    readout: Readout
    rate: float

    @property
    def name(self) -> str:
        """Description of the head."""
        return f"{self.readout.name}, rate {self.rate:g}"

    @classmethod
    def of(cls, training: Training) -> list[Head]:
        """Return the heads of a training: every read-out at every rate."""
        return [cls(readout, rate) for readout in training.readouts for rate in training.rates]


class Classifier(nn.Module):
    """Copies of a candidate's networks, one per sensor, with independent heads.

    Args:
        trainees: One per sensor.
        training: Read-outs and initialisation of the heads.
        classes: K.
        seed: Seed of the heads' weights.
        sample: One image per sensor, from which the widths are determined.

    Raises:
        ConfigError: If a head reads layers that a network does not have or expose.
        WeightsError: If a network does not return one vector per image.
        PixelError: If a feature is not finite.
    """

    def __init__(
        self,
        trainees: Sequence[Trainee],
        training: Training,
        classes: int,
        seed: int,
        sample: Sequence[Imagery],
    ) -> None:
        super().__init__()
        self.trainees = tuple(trainees)
        self.frozen = training.factors == (0.0,)
        self._layered = any(readout != EMBEDDING for readout in training.readouts)
        self.networks = nn.ModuleList(copy.deepcopy(t.network) for t in trainees)
        self.networks.eval().requires_grad_(not self.frozen)
        self.specs = Head.of(training)
        with torch.no_grad():
            vectors = self.vectors(sample)
        self._columns = {r: self._columns_of(r, vectors) for r in training.readouts}
        self.heads = nn.ModuleList(
            _head(self.read(vectors, spec.readout).shape[1], classes, training, seed)
            for spec in self.specs
        ).to(self.device)

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.trainees[0].device

    def vectors(self, imagery: Sequence[Imagery], draw: Draw | None = None) -> list[Tensor]:
        """Return the output of the networks for images, one tensor (B, ...) per sensor.

        Pixels are prepared as for frozen features, in float32; views are cropped from the result.

        Args:
            imagery: One entry per sensor, in physical units.
            draw: Views to use; None for the whole images.

        Raises:
            SpecMismatch: If the imagery does not match the recipe.
            WeightsError: If a network does not return one vector per image.
            PixelError: If a pixel or a feature is not finite.
        """
        found = []
        for trainee, network, images in zip(self.trainees, self.networks, imagery, strict=True):
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                pixels = trainee.pixels(images.to(self.device))
                pixels = pixels if draw is None else make_views(pixels, draw)
            made = last_layers(cast(Trunk, network), pixels) if self._layered else network(pixels)
            found.append(check_vectors(made, len(images), trainee.name))
        return found

    def read(self, vectors: Sequence[Tensor], readout: Readout) -> Tensor:
        """Return the input of one kind of head, (B, W)."""
        return take(vectors, self._columns[readout])

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return the logits of all heads, (M, B, K)."""
        read = {readout: self.read(vectors, readout) for readout in self._columns}
        heads = zip(self.heads, self.specs, strict=True)
        return torch.stack([head(read[spec.readout]) for head, spec in heads])

    def _columns_of(self, readout: Readout, vectors: Sequence[Tensor]) -> list[slice]:
        if not self._layered:
            return [slice(None)] * len(vectors)
        found = []
        for trainee, network, one in zip(self.trainees, self.networks, vectors, strict=True):
            columns = columns_of(cast(Trunk, network), one.shape[1])
            if readout not in columns:
                raise ConfigError(
                    "the network does not have the layers that this probe reads",
                    found=", ".join(known.name for known in columns),
                    expected=readout.name,
                    where=trainee.name,
                )
            found.append(columns[readout])
        return found


class _Standardise(nn.BatchNorm1d):
    """Batch statistics without parameters, as MAE's linear probe has before its head."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6, affine=False)


def _head(width: int, classes: int, training: Training, seed: int) -> nn.Module:
    """Return a head; heads of equal width start with equal weights, so only their rates differ."""
    # created without values: torch would draw them from the global random state
    linear = nn.Linear(width, classes, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        linear.weight.normal_(0, training.deviation, generator=generator)
        linear.bias.zero_()
    return nn.Sequential(_Standardise(width), linear) if training.normed else linear


@torch.no_grad()
def predict(model: Classifier, images: Images) -> Tensor:
    """Return the logits of all images by all heads, in evaluation mode: float32 (M, N, K).

    Raises:
        WeightsError: If a network changes while it predicts, or a part of it is in training mode.
        PixelError: If a feature is not finite.
    """
    logits = [model(vectors).float().cpu() for vectors in _batches(model, images, len(images))]
    return torch.cat(logits, dim=1)


@torch.no_grad()
def features(model: Classifier, images: Images, count: int) -> Tensor:
    """Return the input of the first kind of head for at most `count` images: float32 (N, W).

    Raises:
        WeightsError: If a network changes while it embeds, or a part of it is in training mode.
        PixelError: If a feature is not finite.
    """
    first = model.specs[0].readout
    batches = _batches(model, images, count)
    return torch.cat([model.read(vectors, first).float().cpu() for vectors in batches])


def _batches(model: Classifier, images: Images, count: int) -> Iterator[list[Tensor]]:
    name = model.trainees[0].name
    model.eval()
    check_evaluating(model, name, "let eval() reach every part of the network")
    before = state_sha256(model)
    step = -(-len(images) // count)
    rows = [row[::step] for row in in_order(len(images), CHUNK * step)]
    for batch in images.batches(rows):
        yield model.vectors(batch.imagery)
    if state_sha256(model) != before:
        raise WeightsError(
            "the network changed while its features were computed",
            where=name,
            remedy="features of a moving network are not comparable: parameters and buffers "
            "must stay as they are in evaluation mode",
        )


def precision_of(device: torch.device, moves: bool) -> str:
    """Return Lightning's name for the precision of a run: bf16 only if hardware supports it.

    Args:
        device: Device of the run.
        moves: Whether a network is trained; frozen ones compute as for frozen features, in float32.
    """
    half = moves and device.type == "cuda" and torch.cuda.is_bf16_supported(False)
    return "bf16-mixed" if half else "32-true"
