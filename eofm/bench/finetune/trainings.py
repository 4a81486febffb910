"""Training on images: the images, random views of them, and protocols as declarations.

Images are read once if they fit into memory, else every time. Views are a crop, resized back,
and flips. They are made after `eofm.contract.preprocess`, so training pixels are prepared exactly
as those that are scored. Draws are relative to the image: the two sensors of a pair get the same
view.

Protocols are fine-tuning, and the SGD read-outs of papers. A protocol follows the paper as far as
it is published (`eofm.bench.config` lists descriptions and gaps). Its faults are switches: off, the
protocol is scored like everything here; on (`--train.faults true`), as in the paper, and the row is
marked. Splits that papers draw by a generator are reproduced draw for draw; they depend on the
order of the images and on a library's generator, and are used only with `--train.faults true`.
only.

Shapes: B images of a batch, N of a split, C bands, H by W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from eofm.bench.config import TrainingConfig
from eofm.bench.features import EMBEDDING, Readout
from eofm.contract.imagery import Imagery, collate
from eofm.datasets.images.chips import Chip, targets_of

__all__ = [
    "NO_FAULTS",
    "SEED",
    "TRAININGS",
    "Augmentation",
    "Batch",
    "Case",
    "Draw",
    "Faults",
    "Images",
    "Optimiser",
    "Training",
    "draw_views",
    "in_order",
    "make_views",
    "shuffled",
    "stratified",
    "training_of",
    "with_replacement",
]

# --------------------------------------------------------------------------------- images and views

_ASPECT: Final = (3 / 4, 4 / 3)

_TRIES: Final = 10


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation.

    Args:
        crop: Minimum share of an image's area that a crop keeps; 1 disables crops.
        flip_x: Mirror left and right, with probability one half.
        flip_y: Mirror top and bottom, with probability one half.
    """

    crop: float = 1.0
    flip_x: bool = False
    flip_y: bool = False


@dataclass(frozen=True)
class Draw:
    """The views of a batch, in shares of an image's sides.

    Args:
        centre: (B, 2), x and y, from 0 to 1.
        extent: (B, 2), width and height, at most 1.
        flip: bool (B, 2), in x and in y.
    """

    centre: Tensor
    extent: Tensor
    flip: Tensor

    def of(self, rows: slice) -> Draw:
        """Return the views of some images of the batch."""
        return Draw(self.centre[rows], self.extent[rows], self.flip[rows])


def draw_views(augmentation: Augmentation, count: int, generator: torch.Generator) -> Draw:
    """Draw the views of a batch like the usual random resized crops.

    Area uniform, aspect log-uniform from 3:4 to 4:3, ten tries for a crop that fits into the image;
    otherwise the whole image.

    Args:
        augmentation: Parameters of the draw.
        count: Number of images, B.
        generator: Random generator on the CPU.
    """
    area = torch.empty(count, _TRIES).uniform_(augmentation.crop, 1, generator=generator)
    low, high = (math.log(aspect) for aspect in _ASPECT)
    aspect = torch.empty(count, _TRIES).uniform_(low, high, generator=generator).exp()
    tries = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=2)
    fits = (tries <= 1).all(dim=2)
    first = fits.float().argmax(dim=1)
    extent = torch.where(fits.any(dim=1)[:, None], tries[torch.arange(count), first], 1.0)
    if augmentation.crop >= 1:
        extent = torch.ones(count, 2)
    corner = torch.rand(count, 2, generator=generator) * (1 - extent)
    mirrored = torch.tensor([augmentation.flip_x, augmentation.flip_y])
    flip = (torch.rand(count, 2, generator=generator) < 0.5) & mirrored
    return Draw(corner + extent / 2, extent, flip)


def make_views(pixels: Tensor, draw: Draw) -> Tensor:
    """Return the views (B, C, H, W), at the size of the images: bilinear, half-pixel centres.

    Without a crop, flips move pixels but do not change their values.

    Args:
        pixels: (B, C, H, W), normalised.
        draw: Output of `draw_views` for as many images.
    """
    if bool((draw.extent == 1).all()):
        return _flipped(pixels, draw.flip.to(pixels.device))
    sign = 1 - 2 * draw.flip.float()
    scale, shift = draw.extent * sign, 2 * draw.centre - 1
    theta = torch.zeros(len(pixels), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale[:, 0], scale[:, 1], shift
    grid = functional.affine_grid(theta.to(pixels), list(pixels.shape), align_corners=False)
    return functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def _flipped(pixels: Tensor, flip: Tensor) -> Tensor:
    for axis, dim in ((0, 3), (1, 2)):
        chosen = flip[:, axis, None, None, None]
        pixels = torch.where(chosen, pixels.flip(dim), pixels)
    return pixels


# Memory limit of the pixels of a split.
_MEMORY: Final = 2**30

_READERS: Final = 4


@dataclass(frozen=True)
class Batch:
    """Some images with their labels.

    Args:
        imagery: One entry per sensor, B images each, in physical units.
        target: (B,) class indices, or (B, K) with 1 where a class is present.
    """

    imagery: tuple[Imagery, ...]
    target: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        moved = tuple(i.to(device, non_blocking=non_blocking) for i in self.imagery)
        return type(self)(moved, self.target.to(device, non_blocking=non_blocking))


class Images:
    """The images of a split.

    Args:
        chips: The images, N.
        classes: K.
        memory: Bytes of pixels it may cache.
    """

    def __init__(self, chips: Sequence[Chip], classes: int, memory: int = _MEMORY) -> None:
        self.chips = tuple(chips)
        self.target = targets_of(self.chips, classes)
        self._memory = memory
        self._kept: dict[int, tuple[Imagery, ...]] = {}

    def __len__(self) -> int:
        return len(self.chips)

    def batches(self, rows: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Yield batches, prefetching the next ones while one is being used.

        Args:
            rows: Indices of the images, batch by batch.

        Raises:
            RasterError: If an image is damaged.
        """
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as readers:
            waiting: list[tuple[Sequence[int], list[Future[tuple[Imagery, ...]]]]] = []
            try:
                for chosen in rows:
                    waiting.append((chosen, [readers.submit(self._image, row) for row in chosen]))
                    if len(waiting) > 1:
                        yield self._batch(*waiting.pop(0))
                while waiting:
                    yield self._batch(*waiting.pop(0))
            finally:
                for _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _batch(self, rows: Sequence[int], futures: list[Future[tuple[Imagery, ...]]]) -> Batch:
        images = [future.result() for future in futures]
        per_sensor = zip(*images, strict=True)
        return Batch(tuple(collate(list(one)) for one in per_sensor), self.target[list(rows)])

    def _image(self, row: int) -> tuple[Imagery, ...]:
        found = self._kept.get(row)
        if found is None:
            found = tuple(pixels.read() for pixels in self.chips[row].pixels)
            size = sum(imagery.pixels.nbytes + imagery.valid.nbytes for imagery in found)
            if size * len(self) <= self._memory:
                self._kept[row] = found
        return found


def in_order(count: int, size: int) -> list[list[int]]:
    """Return the rows 0 .. count - 1 in batches of at most `size`."""
    return [list(range(i, min(i + size, count))) for i in range(0, count, size)]


def shuffled(count: int, size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the rows in an order drawn again for every epoch, in batches of `size`.

    An incomplete last batch is dropped, as elsewhere, so that no batch norm sees a single image.
    The dropped images differ from epoch to epoch.

    Args:
        count: Number of images, at least `size`.
        size: Size of a batch.
        seed: Seed of the order.
        epoch: Number of the epoch; its order only depends on this and the seed.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator).tolist()
    return [order[i : i + size] for i in range(0, count - size + 1, size)]


# ---------------------------------------------------------------------------------------- protocols


class Optimiser(StrEnum):
    """Optimiser of a training."""

    ADAMW = "adamw"
    SGD = "sgd"  # momentum 0.9


@dataclass(frozen=True)
class Faults:
    """Faults of a paper that affect its numbers. `--train.faults true` repeats them.

    Args:
        drift: A frozen network is in training mode: the statistics of its batch norm drift.
        on_val: The best epoch of those evaluated on val is chosen, and reported on val. The
            number is the interval between them in epochs; 0 scores test.
        replacement: The subset is drawn with replacement.
    """

    drift: bool = False
    on_val: int = 0
    replacement: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """Description of each."""
        every = f"the best of every {self.on_val}th epoch on val, reported on val"
        said = {
            "the statistics of a frozen batch norm drift": self.drift,
            every: self.on_val > 0,
            "a subset drawn with replacement": self.replacement,
        }
        return tuple(text for text, holds in said.items() if holds)


NO_FAULTS: Final = Faults()


@dataclass(frozen=True)
class Training:
    """Training of a read-out, with or without the network.

    Args:
        optimiser: AdamW, or SGD with momentum 0.9.
        rates: Learning rates of the heads, one head each, all trained on the same passes.
        factors: Rates of the network relative to that of its head, one run each; (0,) freezes it.
        reference: Batch for which the rates are stated: scaled to the actual batch; 0 never.
        epochs: Passes over train.
        batch: Images of a step, at most all of train.
        augmentation: Augmentation of the training images.
        steps: Used instead of epochs, if positive.
        drops: Shares of the steps after which the rate is divided by ten; without any, the rate
        follows a cosine.
        warmup: Share of the steps in which the rate increases.
        weight_decay: Norms, biases and tables of tokens never decay.
        layer_decay: Factor on the rate from one layer to the one before it.
        readouts: Inputs of the heads; one head for each combination with a rate.
        normed: Standardise the input of a head by batch statistics, without parameters.
        deviation: Standard deviation of a head's normal initial weights; its bias starts at 0.
        fraction: Share of train that is used.
        faults: Faults of the paper.
        protocol: Key of `eofm.bench.config.RECIPES`; empty for our own.
    """

    optimiser: Optimiser
    rates: tuple[float, ...]
    factors: tuple[float, ...]
    reference: int
    epochs: int
    batch: int
    augmentation: Augmentation
    steps: int = 0
    drops: tuple[float, ...] = ()
    warmup: float = 0.0
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    readouts: tuple[Readout, ...] = (EMBEDDING,)
    normed: bool = False
    deviation: float = 0.01
    fraction: float = 1.0
    faults: Faults = NO_FAULTS
    protocol: str = ""

    def fitted(self, images: int) -> Training:
        """Return the training adapted to a training split: batch, epochs, and scaled rates.

        Args:
            images: Number of training images.
        """
        batch = min(self.batch, images)
        per_epoch = max(1, images // batch)
        factor = batch / self.reference if self.reference else 1.0
        return replace(
            self,
            batch=batch,
            rates=tuple(rate * factor for rate in self.rates),
            reference=0,
            epochs=math.ceil(self.steps / per_epoch) if self.steps else self.epochs,
            steps=0,
        )

    def spelled(self, kind: str, seed: int) -> str:
        """Return the id of the probe, with all choices.

        Args:
            kind: A key of `TRAININGS`.
            seed: Seed of weights, order and views.
        """
        falls = "drops=" + "/".join(f"{d:g}" for d in self.drops) if self.drops else "cosine"
        views = self.augmentation
        flips = "flips=" + "x" * views.flip_x + "y" * views.flip_y
        words = [
            self.optimiser,
            f"rate={_either(self.rates)}",
            f"network={_either(self.factors)}",
            f"epochs={self.epochs}",
            f"batch={self.batch}",
            falls,
            f"warmup={self.warmup:g}",
            f"decay={self.weight_decay:g}",
            f"layers={self.layer_decay:g}",
            f"crop={views.crop:g}",
            flips if views.flip_x or views.flip_y else "noflips",
            "reads=" + "/".join(readout.name for readout in self.readouts),
            *(["normed"] if self.normed else []),
            *([f"train={self.fraction:g}"] if self.fraction < 1 else []),
            *(["faults"] if self.faults != NO_FAULTS else []),
            f"seed={seed}",
        ]
        return f"{kind}[{','.join(words)}]"


def _either(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)  # a bar would end a cell of a table


@dataclass(frozen=True)
class Case:
    """Properties of model and task that a protocol depends on.

    Args:
        convolutional: The network has no CLS token.
        multi_label: An image may have several classes.
    """

    convolutional: bool
    multi_label: bool


# --------------------------------------------------------------------------- our own


def _finetune(settings: TrainingConfig, case: Case) -> Training:
    del case
    return Training(
        optimiser=Optimiser.ADAMW,
        rates=(settings.rate,),
        factors=settings.tried,
        reference=0,
        epochs=20,
        batch=32,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
        augmentation=Augmentation(settings.crop, settings.flips, settings.flips),
    )


# ------------------------------------------------------------------------- the papers'


def _sgd(protocol: str, rates: tuple[float, ...], batch: int, epochs: int, case: Case) -> Training:
    """SGD on a frozen network, with the crops and flips of SSL4EO-S12's scripts."""
    return Training(
        optimiser=Optimiser.SGD,
        rates=rates,
        factors=(0.0,),
        reference=batch,
        epochs=epochs,
        batch=batch,
        augmentation=Augmentation(0.8 if case.multi_label else 0.08, flip_x=True),
        fraction=0.1 if case.multi_label else 1.0,
        protocol=protocol,
    )


# The subset of BigEarthNet is drawn with replacement, and val is evaluated and reported.
_SSL4EO_FAULTS: Final = Faults(on_val=5, replacement=True)


def _faulty(training: Training, settings: TrainingConfig, case: Case, *, drift: bool) -> Training:
    if not settings.faults:
        return training
    return replace(
        training,
        faults=replace(_SSL4EO_FAULTS, drift=drift, replacement=case.multi_label),
    )


def _ssl4eo_moco(settings: TrainingConfig, case: Case) -> Training:
    if not case.convolutional:
        return _faulty(_sgd("ssl4eo", (0.1,), 256, 100, case), settings, case, drift=False)
    batch, epochs, drops = (1024, 50, (0.4, 0.8)) if case.multi_label else (256, 100, (0.6, 0.8))
    training = replace(_sgd("ssl4eo", (8.0,), batch, epochs, case), drops=drops)
    return _faulty(training, settings, case, drift=True)


def _ssl4eo_dino(settings: TrainingConfig, case: Case) -> Training:
    rate = 0.1 if case.multi_label else 0.01
    training = _sgd("ssl4eo", (rate,), 256, 100, case)
    if not case.convolutional:
        training = replace(training, readouts=(Readout(4),))
    return _faulty(training, settings, case, drift=False)


def _ssl4eo_mae(settings: TrainingConfig, case: Case) -> Training:
    training = replace(_sgd("ssl4eo", (1.0,), 256, 100, case), normed=True)
    return _faulty(training, settings, case, drift=False)


_SOFTCON_RATES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 8.0)


def _softcon(readout: Readout) -> Callable[[TrainingConfig, Case], Training]:
    def training(settings: TrainingConfig, case: Case) -> Training:
        made = _sgd("softcon", _SOFTCON_RATES, 256, 50, case)
        return _faulty(replace(made, readouts=(readout,)), settings, case, drift=False)

    return training


def _slca(settings: TrainingConfig, case: Case) -> Training:
    """The slow learner: a network at a hundredth of its head's rate keeps its pretraining."""
    del settings
    return Training(
        optimiser=Optimiser.SGD,
        rates=(0.01,),
        factors=(0.01,),
        reference=128,
        epochs=20,
        batch=128,
        drops=(0.9,),
        weight_decay=5e-4,
        augmentation=Augmentation(0.8 if case.multi_label else 0.08, flip_x=True),
        protocol="slca",
    )


_DINOV2_RATES: Final = (*(n * 10.0**e for e in (-5, -4, -3, -2) for n in (1, 2, 5)), 0.1)


def _dinov2(settings: TrainingConfig, case: Case) -> Training:
    del settings
    means = (False,) if case.convolutional else (False, True)
    return Training(
        optimiser=Optimiser.SGD,
        rates=_DINOV2_RATES,
        factors=(0.0,),
        reference=256,
        epochs=10,
        steps=12_500,
        batch=128,
        augmentation=Augmentation(0.8 if case.multi_label else 0.08, flip_x=True),
        readouts=tuple(Readout(layers, mean) for layers in (1, 4) for mean in means),
        protocol="dinov2",
    )


TRAININGS: Final[Mapping[str, Callable[[TrainingConfig, Case], Training]]] = {
    "finetune": _finetune,
    "slca": _slca,
    "dinov2-heads": _dinov2,
    "ssl4eo-moco": _ssl4eo_moco,
    "ssl4eo-dino": _ssl4eo_dino,
    "ssl4eo-mae": _ssl4eo_mae,
    "softcon-linear": _softcon(EMBEDDING),
    "softcon-dino4": _softcon(Readout(4)),
    "softcon-dino4-mean": _softcon(Readout(4, patch_mean=True)),
}


def training_of(kind: str, settings: TrainingConfig, case: Case) -> Training:
    """Return the training of a kind of probe, with the epochs and batch of the settings.

    Args:
        kind: A key of `TRAININGS`.
        settings: Settings of the user.
        case: Properties of model and task that the protocol depends on.
    """
    training = TRAININGS[kind](settings, case)
    if settings.epochs:
        training = replace(training, epochs=settings.epochs, steps=0)
    return replace(training, batch=settings.batch or training.batch)


SEED: Final = 42

_Ints = NDArray[np.int64]


def with_replacement(count: int, share: int) -> list[int]:
    """Return the positions that SSL4EO-S12 draws for a share of BigEarthNet, some of them twice.

    Args:
        count: Number of images, N.
        share: Percent.
    """
    drawn = np.random.default_rng(SEED).choice(count, count * share // 100)
    places: list[int] = drawn.tolist()
    return places


def stratified(labels: list[int], test_share: float = 0.2) -> tuple[list[int], list[int]]:
    """Return positions of train and test as in scikit-learn's stratified `train_test_split`.

    With `random_state=42`, for images in the order given: EuroSAT in the scripts of SSL4EO-S12.

    Args:
        labels: Class of each image.
        test_share: Share of test, rounded up to whole images.
    """
    y = np.unique(np.asarray(labels), return_inverse=True)[1]
    counts: _Ints = np.bincount(y)
    n_test = math.ceil(test_share * len(y))
    generator = np.random.RandomState(SEED)
    kept = _shared_out(counts, len(y) - n_test, generator)
    held = _shared_out(counts - kept, n_test, generator)
    parts: tuple[list[_Ints], list[_Ints]] = ([], [])
    for label, (train, test) in enumerate(zip(kept, held, strict=True)):
        order = np.flatnonzero(y == label)[generator.permutation(counts[label])]
        parts[0].append(order[:train])
        parts[1].append(order[train : train + test])
    train_places, test_places = (generator.permutation(np.concatenate(p)) for p in parts)
    return train_places.tolist(), test_places.tolist()


def _shared_out(counts: _Ints, total: int, generator: np.random.RandomState) -> _Ints:
    """Distribute `total` over the classes by their counts, remainders by largest fraction."""
    exact = counts / counts.sum() * total
    whole = np.floor(exact)
    left, rest = int(total - whole.sum()), exact - whole
    for value in np.unique(rest)[::-1]:
        if not left:
            break
        (equal,) = np.where(rest == value)
        chosen = generator.choice(equal, size=min(len(equal), left), replace=False)
        whole[chosen] += 1
        left -= len(chosen)
    shares: _Ints = whole.astype(np.int64)
    return shares
