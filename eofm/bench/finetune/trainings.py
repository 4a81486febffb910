"""What is trained on images: fine-tuning, and the SGD read-outs of papers, each as a declaration.

A protocol is the paper's as far as it is published (`eofm.bench.protocols` has the words and the
gaps). Its faults are switches: off, the protocol is scored as everything here is; on
(`--train.faults true`), as its numbers were made, and the row is marked. The divisions that papers
draw by a generator are made again draw for draw; they depend on the order of the images and on a
library's generator, and serve `--train.faults true` only.

Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eofm.bench.config import TrainingConfig
from eofm.bench.features import EMBEDDING, Readout
from eofm.bench.finetune.views import Augmentation


class Optimiser(StrEnum):
    """How steps are made."""

    ADAMW = "adamw"
    SGD = "sgd"  # momentum 0.9


@dataclass(frozen=True)
class Faults:
    """What a paper does that is part of its numbers. `--train.faults true` repeats it.

    Args:
        drift: A frozen network is in training mode: the statistics of its batch norm drift.
        on_val: The best epoch of those looked at on val is chosen, and reported on val. The
            number is how many epochs apart they are; 0 scores test.
        replacement: The subset is drawn with replacement.
    """

    drift: bool = False
    on_val: int = 0
    replacement: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """Each in words."""
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
    """How a read-out is trained, and the network with it or not.

    Args:
        optimiser: AdamW, or SGD with momentum 0.9.
        rates: Of the heads, one head each, all trained on the same passes.
        factors: Rates of the network over that of its head, one run each; (0,) keeps it frozen.
        reference: Batch for which the rates are stated: they are scaled to that in use; 0 never.
        epochs: Passes over train.
        batch: Images of a step, at most all of train.
        augmentation: Of the training images.
        steps: Instead of epochs, if positive.
        drops: Shares of the steps after which the rate is a tenth; none lets it fall by a cosine.
        warmup: Share of the steps in which the rate rises.
        weight_decay: Norms, biases and tables of tokens never decay.
        layer_decay: Factor on the rate from one layer to the one before it.
        readouts: What heads read; one head for each and every rate.
        normed: Standardise what a head reads by batch statistics, without parameters.
        deviation: Of a head's initial weights, normal; its bias starts at 0.
        fraction: Share of train that is used.
        faults: Of the paper.
        protocol: Key of `eofm.bench.protocols.RECIPES`; empty for our own.
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
        """Return the same for a training split: its batch, its epochs, and the rates they make.

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
        """Return the id of the probe, with every choice.

        Args:
            kind: A key of `TRAININGS`.
            seed: Of weights, order and views.
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
    """What a protocol makes depend on the model and the task.

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


# The subset of BigEarthNet is drawn with replacement, and val is watched and reported.
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
    """The slow learner: a network at a hundredth of its head's rate keeps what it was taught."""
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
    """Return how a kind of probe is trained, with the epochs and batch of the settings.

    Args:
        kind: A key of `TRAININGS`.
        settings: Of the user.
        case: What the protocol makes depend on the model and the task.
    """
    training = TRAININGS[kind](settings, case)
    if settings.epochs:
        training = replace(training, epochs=settings.epochs, steps=0)
    return replace(training, batch=settings.batch or training.batch)


SEED: Final = 42

_Ints = NDArray[np.int64]


def with_replacement(count: int, share: int) -> list[int]:
    """Return the places that SSL4EO-S12 draws for a share of BigEarthNet: some of them twice.

    Args:
        count: Number of images, N.
        share: Percent.
    """
    drawn = np.random.default_rng(SEED).choice(count, count * share // 100)
    places: list[int] = drawn.tolist()
    return places


def stratified(labels: list[int], test_share: float = 0.2) -> tuple[list[int], list[int]]:
    """Return the places of train and test as scikit-learn's stratified `train_test_split` does.

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
    """Share `total` out over the classes by their counts; what is left goes by the remainders."""
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
