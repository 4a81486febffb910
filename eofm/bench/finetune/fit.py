"""Training of heads, and of networks with them, through Lightning. Imported lazily.

Pixels pass through the same plan as for frozen features; a random view is taken of the
normalised image. The same seed gives the same order, views and weights; on a GPU, sums of floats
may differ in their last bits.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eofm.bench.finetune.classifier import CHUNK, Classifier, precision_of
from eofm.bench.finetune.trainings import (
    Batch,
    Draw,
    Images,
    Optimiser,
    Training,
    draw_views,
    shuffled,
)
from eofm.errors import TrainingError
from eofm.probes.features import class_loss

__all__ = ["Epoch", "FitModule", "fit", "parameter_groups", "rate_at"]

# Parameters whose magnitude has a meaning; decaying them to zero would not regularise.
_TABLES: Final = ("cls_token", "pos_embed", "reg_token", "register_tokens", "gamma")


class Epoch:
    """The batches of one epoch, in order.

    Args:
        images: Images of the training split.
        rows: Indices of the images, batch by batch.
    """

    def __init__(self, images: Images, rows: list[list[int]]) -> None:
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Batch]:
        return self._images.batches(self._rows)


class FitModule(L.LightningModule):
    """One run: networks and heads at the rates of a training.

    Args:
        model: Model to train.
        training: Settings of the training.
        factor: Learning rate of the networks relative to that of the head.
        images: The training split.
        seed: Seed of order and views.
        after_epoch: Called with the number of epochs done.
    """

    def __init__(
        self,
        model: Classifier,
        training: Training,
        factor: float,
        images: Images,
        seed: int,
        after_epoch: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.model, self.training_, self.factor = model, training, factor
        self.images, self.seed, self.after_epoch = images, seed, after_epoch
        self.moves = factor > 0

    def train_dataloader(self) -> Epoch:
        """Return the next epoch; Lightning calls this before each."""
        size = self.training_.batch
        return Epoch(self.images, shuffled(len(self.images), size, self.seed, self.current_epoch))

    def on_train_epoch_start(self) -> None:
        """Set the mode of every part: a frozen network evaluates, unless a fault is repeated."""
        self.model.train()
        self.model.networks.train(self.moves or self.training_.faults.drift)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch: the sum over the heads, which are independent.

        Raises:
            TrainingError: If the loss of a trained network is not finite.
        """
        step = self.current_epoch * 1_000_003 + batch_idx
        generator = torch.Generator().manual_seed((self.seed + 1) * 2_000_003 + step)
        draw = draw_views(self.training_.augmentation, len(batch.target), generator)
        logits = self.model(self._vectors(batch, draw))
        loss = sum((class_loss(one, batch.target) for one in logits), logits.new_zeros(()))
        if self.moves and not torch.isfinite(loss):
            raise TrainingError(
                "the loss is not finite",
                found=float(loss),
                where=f"step {self.global_step} of {self.model.trainees[0].name}",
                remedy="try smaller --train.factors, or a smaller --train.rate",
            )
        return loss

    def _vectors(self, batch: Batch, draw: Draw) -> list[Tensor]:
        if self.moves:
            return self.model.vectors(batch.imagery, draw)
        parts = []
        with torch.no_grad():
            for start in range(0, len(batch.target), CHUNK):
                rows = slice(start, start + CHUNK)
                some = [imagery[rows] for imagery in batch.imagery]
                parts.append(self.model.vectors(some, draw.of(rows)))
        return [torch.cat(one) for one in zip(*parts, strict=True)]

    def on_train_epoch_end(self) -> None:
        """Call `after_epoch`."""
        self.after_epoch(self.current_epoch + 1)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's own type is a union of nine)
        """Return the optimiser, with a rate per group, and the schedule of all."""
        groups = parameter_groups(self.model, self.training_, self.factor)
        optimizer: Optimizer
        if self.training_.optimiser is Optimiser.SGD:
            optimizer = SGD(groups, momentum=0.9)
        else:
            optimizer = AdamW(groups)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, lambda step: rate_at(step, total, self.training_))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_at(step: int, total: int, training: Training) -> float:
    """Return the share of the full rate at a step: linear warm-up, then drops or half a cosine.

    Args:
        step: Steps done, from 0.
        total: Steps of the whole run.
        training: Its warm-up and its drops.
    """
    rise = round(training.warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    if training.drops:
        return float(0.1 ** sum(step >= share * total for share in training.drops))
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def parameter_groups(model: Classifier, training: Training, factor: float) -> list[dict[str, Any]]:
    """Return parameter groups by learning rate: each head, and each layer of the networks.

    Norms, biases and tables of tokens do not decay (arXiv 2304.07193). A parameter of layer i of d
    blocks has the rate of the head times factor times layer_decay^(d + 1 - i) (arXiv 2106.08254);
    a network that does not expose its layers has a single rate.

    Args:
        model: Networks and heads.
        training: Rates and decays.
        factor: Learning rate of the networks relative to that of the head; 0 excludes them.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for spec, head in zip(model.specs, model.heads, strict=True):
        for parameter in head.parameters():
            decay = training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((spec.rate, decay), []).append(parameter)
    for trainee, network in zip(model.trainees, model.networks, strict=True) if factor else ():
        for name, parameter in network.named_parameters():
            trunk, depth = trainee.trunk, 0
            if trunk is not None and training.layer_decay < 1:
                depth = trunk.depth + 1 - trunk.layer_of(name)
            rate = model.specs[0].rate * factor * training.layer_decay**depth
            table = any(part in _TABLES for part in name.split("."))
            decay = 0.0 if table or parameter.ndim <= 1 else training.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def fit(
    model: Classifier,
    training: Training,
    factor: float,
    images: Images,
    seed: int,
    after_epoch: Callable[[int], None],
) -> None:
    """Train heads, and networks if the factor is positive, on their device.

    The global random state is preserved.

    Args:
        model: Model to train, in place.
        training: Settings, with the batch that the split allows: see `Training.fitted`.
        factor: Learning rate of the networks relative to that of the head.
        images: The training split.
        seed: Seed of order, views and dropout.
        after_epoch: Called with the number of epochs done.

    Raises:
        TrainingError: If the loss of a trained network is not finite.
        PixelError: If a feature is not finite.
    """
    module = FitModule(model, training, factor, images, seed, after_epoch)
    device = model.device
    gpu = device.type == "cuda"
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.random.fork_rng([device] if gpu else []):
        # lightning 2.6 uses a deprecated call of torch 2.15
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        # on_train_epoch_start sets the mode of every part
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        torch.manual_seed(seed)
        trainer = L.Trainer(
            max_epochs=training.epochs,
            accelerator="gpu" if gpu else "cpu",
            devices=[device.index or 0] if gpu else 1,
            precision=precision_of(device, module.moves),  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
        )
        trainer.fit(module)
    model.to(device)  # Lightning moves it back to the CPU
