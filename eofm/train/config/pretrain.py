"""All settings of `eofm pretrain`, and what they must fulfil together. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from eofm.errors import require
from eofm.loading.config import AugmentConfig
from eofm.method.config import SoftConConfig
from eofm.train.config.data import DataConfig
from eofm.train.config.model import ModelConfig
from eofm.train.config.monitor import MonitorConfig
from eofm.train.config.optim import OptimConfig
from eofm.train.config.run import RunConfig
from eofm.train.config.trainer import TrainerConfig

# What numpy takes.
_LARGEST_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
class PretrainConfig:
    """Continual pretraining by soft contrastive learning (SoftCon, arXiv 2405.20462)."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: SoftConConfig = field(default_factory=SoftConConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("data.holdout", self.data.holdout, 0.0, 0.9),
            ("data.replay_share", self.data.replay_share, 0.0, 0.99),
            ("optim.warmup", self.optim.warmup, 0.0, 1.0),
            ("optim.floor", self.optim.floor, 0.0, 1.0),
            ("optim.constant", self.optim.constant, 0.0, 1.0),
            ("optim.cooldown", self.optim.cooldown, 0.0, 1.0),
            ("optim.anneal", self.optim.anneal, 0.001, 1.0),
            ("optim.layer_decay", self.optim.layer_decay, 0.01, 1.0),
            ("augment.brightness", self.augment.brightness, 0.0, 1.0),
            ("augment.contrast", self.augment.contrast, 0.0, 1.0),
            ("augment.colour_probability", self.augment.colour_probability, 0.0, 1.0),
            ("augment.gray_probability", self.augment.gray_probability, 0.0, 1.0),
            ("augment.blur_probability", self.augment.blur_probability, 0.0, 1.0),
        ):
            require(low <= value <= high, name, value, f"{low:g} to {high:g}")
        for name, value in (
            ("optim.epochs", self.optim.epochs),
            ("optim.lr", self.optim.lr),
            ("data.scenes", self.data.scenes),
            ("data.size", self.data.size),
            ("model.size", self.model.size),
            ("run.readers", self.run.readers),
        ):
            require(value > 0, name, value, "a positive number")
        self._check_schedule()
        require(
            self.optim.input_lr is None or self.optim.input_lr > 0,
            "optim.input_lr",
            self.optim.input_lr,
            "more than 0, or nothing",
        )
        require(
            0 <= self.optim.freeze_epochs < self.optim.epochs,
            "optim.freeze_epochs",
            self.optim.freeze_epochs,
            f"0 to {self.optim.epochs - 1}: fewer than optim.epochs",
        )
        require(
            (self.data.replay is None) == (self.data.replay_share == 0),
            "data.replay_share",
            self.data.replay_share,
            "more than 0 with a store in data.replay, and 0 without one",
        )
        for name, value in (
            ("run.checkpoint_steps", self.run.checkpoint_steps),
            ("run.checkpoint_minutes", self.run.checkpoint_minutes),
            ("run.checkpoint_keep", self.run.checkpoint_keep),
            ("optim.clip", self.optim.clip),
            ("optim.weight_decay", self.optim.weight_decay),
            ("run.threads", self.run.threads),
        ):
            require(value >= 0, name, value, ">= 0")
        for name, value in (("data.seed", self.data.seed), ("optim.seed", self.optim.seed)):
            require(0 <= value <= _LARGEST_SEED, name, value, f"0 to {_LARGEST_SEED}")
        require(self.optim.batch > 1, "optim.batch", self.optim.batch, "2 or more: negatives")
        self._check_objective()
        low, high = self.augment.scale
        require(0 < low <= high <= 1, "augment.scale", self.augment.scale, "0 < low <= high <= 1")

    def _check_objective(self) -> None:
        method, sensors, batch = self.method, self.data.views == "sensors", self.optim.batch
        require(
            method.queue % batch == 0,
            "method.queue",
            method.queue,
            f"0, or a multiple of optim.batch ({batch})",
        )
        require(
            method.symmetric or not sensors,
            "method.symmetric",
            method.symmetric,
            "true with data.views=sensors: one direction would train one sensor's input layer only",
        )
        require(
            self.data.replay is None or not sensors,
            "data.replay",
            self.data.replay,
            "nothing with data.views=sensors",
        )

    def _check_schedule(self) -> None:
        optim = self.optim
        require(
            optim.schedule not in ("infinite", "wsd")
            or optim.floor > 0
            or optim.anneal_shape not in ("auto", "exponential")
            or (optim.schedule, optim.anneal_shape) == ("wsd", "auto"),
            "optim.floor",
            optim.floor,
            "more than 0: an exponential never gets to 0 (0.1 is usual)",
        )
        require(
            optim.schedule != "infinite"
            or optim.warmup < optim.cooldown <= 1 - optim.anneal + 1e-9,
            "optim.cooldown",
            optim.cooldown,
            f"after the warm-up ({optim.warmup:g}) and before the anneal ({1 - optim.anneal:g})",
        )
        require(
            optim.schedule != "wsd" or optim.warmup <= 1 - optim.anneal + 1e-9,
            "optim.warmup",
            optim.warmup,
            f"before the anneal ({1 - optim.anneal:g})",
        )
        require(
            self.model.continue_from is None or self.model.weights is None,
            "model.continue_from",
            self.model.continue_from,
            "nothing where model.weights is given: one or the other says where training starts",
        )
