"""Stops a run whose encoder has collapsed or whose weights are not finite, and reports why.

The head's batch norms hide a collapse: its output stays spread out while the encoder embeds all
scenes alike. The rule therefore uses the encoder's embeddings of held-out scenes, relative to those
before the first step.

The bounds were measured (`benchmarks/results/collapse.md`). A pretrained network that collapsed
had at most 0.30 of its effective rank and 0.17 of its spread after 4 steps; at a learning rate
without collapse it kept 0.93 of both or more. A network with random weights loses most of its
directions within 8 steps even if it learns (to a fifth of the start, 6 directions, in the demo) but
keeps 0.45 of its spread. For such a network the rank counts only if fewer than 4 directions are
left, as in the collapse on 18 windows, or less of the spread.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Final

import lightning as L
from torch import Tensor

from eofm.errors import TrainingError
from eofm.train.checkpoint import keep_as
from eofm.train.config import PretrainConfig
from eofm.train.module import broken_tensors
from eofm.train.monitor.online import OnlineMonitor
from eofm.train.monitor.run_log import MONITOR_PREFIX
from eofm.train.run_folder import RunFolder

__all__ = [
    "DEAD_SHARE",
    "FEW_DIRECTIONS",
    "GENTLE_DECAY",
    "GENTLE_LR",
    "KEPT",
    "KEPT_RANK",
    "KEPT_SPREAD",
    "PROBE_LOST",
    "WARNINGS",
    "CollapseGuard",
    "Geometry",
    "Health",
    "diagnosis",
    "is_pretrained",
    "remedy",
]

# ------------------------------------------------------------------ criteria of a collapsed encoder

# A pretrained network with less than this share of its initial effective rank gets a warning; one
# with random weights only if few directions or too small a share of the spread are left as well.
KEPT_RANK: Final = 0.5
FEW_DIRECTIONS: Final = 4.0
KEPT_SPREAD: Final = 0.4
# If kNN average precision has also dropped by this much, the run is stopped. Smaller drops are
# within the noise of 128 scenes.
PROBE_LOST: Final = 0.02
# Without labels there is no probe; the spread must then be as small as that of a dead network.
DEAD_SHARE: Final = 0.1
# Learning rates at which a pretrained and a randomly initialised transformer did not collapse.
GENTLE_LR: Final = 5e-4
GENTLE_DECAY: Final = 0.75


class Health(StrEnum):
    """State of an encoder, judged by its embeddings of held-out scenes."""

    HEALTHY = "healthy"
    SHRINKING = "shrinking"
    COLLAPSED = "collapsed"


@dataclass(frozen=True)
class Geometry:
    """Geometry of an encoder's embeddings of held-out scenes at one step.

    Args:
        rank: Effective rank (arXiv 2210.02885).
        spread: 1 fills the sphere, 0 is one point.
        cosine: Mean cosine similarity over pairs of scenes.
        knn: Average precision of the kNN votes; NaN without labels.
    """

    rank: float
    spread: float
    cosine: float
    knn: float

    @classmethod
    def of(cls, measured: Mapping[str, float]) -> Geometry:
        """Return the geometry from an evaluation with names such as `monitor/effective_rank`."""
        names = ("effective_rank", "embedding_std", "mean_cosine", "knn")
        return cls(*(measured.get(f"monitor/{name}", math.nan) for name in names))

    def health(self, start: Geometry, *, pretrained: bool) -> Health:
        """Return whether directions are lost, and whether the probe has dropped too.

        Args:
            start: Geometry before the first step; values that were not measured are ignored.
            pretrained: The weights at the start were pretrained.
        """
        few = self.rank < FEW_DIRECTIONS or self.spread < KEPT_SPREAD * start.spread
        if not (self.rank < KEPT_RANK * start.rank and (pretrained or few)):
            return Health.HEALTHY
        worse = self.knn < start.knn - PROBE_LOST
        dead = math.isnan(start.knn) and self.spread < DEAD_SHARE * start.spread
        return Health.COLLAPSED if worse or dead else Health.SHRINKING

    def describe(self, start: Geometry) -> str:
        """Return the measurements with the values at the start."""
        words = [
            f"effective rank {self.rank:.1f} after {start.rank:.1f} at the start",
            f"spread {self.spread:.2f} after {start.spread:.2f}",
            f"mean cosine {self.cosine:.3f} after {start.cosine:.3f}",
        ]
        if not math.isnan(start.knn):
            words.append(f"kNN {100 * self.knn:.1f} after {100 * start.knn:.1f}")
        return ", ".join(words)


def diagnosis(config: PretrainConfig) -> str:
    """Return the settings that may have caused a collapse."""
    optim, method = config.optim, config.method
    peak = config.peak_lr
    words = [f"the peak learning rate is {peak:.2g} (optim.lr {optim.lr:g} x batch / 256)"]
    if is_pretrained(config) and optim.layer_decay == 1:
        words.append("every layer of the pretrained network learns at it (optim.layer_decay 1)")
    if not method.contrasts:
        return "; ".join(words)
    words.append(f"each scene has {config.negatives} negatives (optim.batch {optim.batch})")
    if method.soft_weight:
        words.append(f"method.soft_weight is {method.soft_weight:g} ({method.soft_unit})")
    return "; ".join(words)


def remedy(config: PretrainConfig) -> str:
    """Return a command that retries with gentler settings.

    A pretrained network gets a rate that was tested without collapse, lower rates for earlier
    layers, and an epoch in which only the input layer and the heads learn.
    """
    optim, run = config.optim, RunFolder(Path(str(config.run.out)))
    rate = min(optim.lr / 8, GENTLE_LR) if is_pretrained(config) else optim.lr / 8
    words = [f"--optim.lr {rate:.2g}"]
    if is_pretrained(config):
        words.append(f"--optim.layer_decay {min(optim.layer_decay, GENTLE_DECAY):g}")
        if optim.epochs > 1 and not optim.freeze_epochs:
            words.append("--optim.freeze_epochs 1")
    return (
        f"eofm pretrain --config {quote(str(run.config))} "
        f"--run.out {quote(f'{run.path}-gentler')} --run.resume false {' '.join(words)}; "
        "more scenes and a larger optim.batch help as well"
    )


def is_pretrained(config: PretrainConfig) -> bool:
    """Whether training starts from weights or from an earlier stage."""
    return config.model.weights is not None or config.model.continue_from is not None


# ----------------------------------------------------------------------------------- guard of a run

KEPT: Final = "before-collapse.ckpt"
WARNINGS: Final = "warnings.txt"
# Embeddings of a new network may be similar from the start; a collapse reduces the spread far more.
_LEFT: Final = 0.1


# Name of the spread of a term's embeddings, possibly prefixed with the term's name.
_SPREAD: Final = "embedding_std"


def _spread(values: Mapping[str, Tensor]) -> float:
    """Return the smallest spread that the terms logged; NaN if there is none."""
    found = [
        float(value)
        for name, value in values.items()
        if name.rpartition("/")[2] == _SPREAD and not name.startswith(MONITOR_PREFIX)
    ]
    return min(found, default=math.nan)


class CollapseGuard(L.Callback):
    """Monitors the embeddings of encoder and heads for a collapse, and refuses non-finite weights.

    From the first step on, at every evaluation, the encoder's embeddings of held-out scenes are
    compared with those before training (`Geometry.health`). It warns once, with a
    diagnosis and a command; if the next evaluation finds the encoder collapsed, it stops the run.

    After the warm-up, two spreads are checked as well: that of the contrastive embedding, at every
    step, and that of held-out scenes, at every evaluation. An evaluation counts if the spread is
    also a tenth or less of its value before the first step. The run is stopped if either stays too
    small for `monitor.collapse_steps` steps.

    While the spread is too small, the last checkpoint from before is kept under a separate name; it
    is removed if the spread recovers.

    Args:
        config: All settings.
        checkpoint: The newest checkpoint, which is replaced, never modified in place.
        monitor: Evaluations of held-out scenes, or None.
    """

    def __init__(
        self, config: PretrainConfig, checkpoint: Path, monitor: OnlineMonitor | None
    ) -> None:
        self.config, self.checkpoint, self.monitor = config, checkpoint, monitor
        self.floor = config.monitor.collapse_std
        self._since: int | None = None  # the step at which the spread fell below the floor
        self._seen: int | None = None  # the same for the spread of held-out scenes
        self._start = Geometry(math.nan, math.inf, math.nan, math.nan)  # before the first step
        self._warned = -1  # the step of the warning about the encoder
        self._step = 0

    @property
    def state_key(self) -> str:
        """Key of the callback's state in a checkpoint, independent of the class name."""
        return "Guard"

    @property
    def kept(self) -> Path:
        """The checkpoint from before the spread fell."""
        return self.checkpoint.with_name(KEPT)

    def state_dict(self) -> dict[str, float]:
        """Return the state for a resumed run: the geometry at the start."""
        start = self._start
        return {
            "start": start.spread,
            "rank": start.rank,
            "cosine": start.cosine,
            "knn": start.knn,
            "warned": self._warned,
        }

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the state; earlier versions saved only the spread."""
        rank, cosine, knn = (state_dict.get(n, math.nan) for n in ("rank", "cosine", "knn"))
        self._start = Geometry(rank, state_dict["start"], cosine, knn)
        self._warned = int(state_dict.get("warned", -1))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the geometry before the first step; no step is judged again after a resume."""
        self._step = trainer.global_step
        if self.monitor is not None and self.monitor.latest[0] == 0:
            self._start = Geometry.of(self.monitor.latest[1])

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stop if the encoder has collapsed, or the spread has been too small for too long.

        Raises:
            TrainingError: In all processes, if so.
        """
        step = trainer.global_step
        if self.floor == 0 or step == self._step:
            return
        self._step = step
        values = trainer.callback_metrics  # on the device: reading a value synchronises
        seen = self._seen_after(step)
        if seen is not None:
            self._check_encoder(trainer, step, seen)
        late = step > self.config.optim.warmup * trainer.estimated_stepping_batches
        # logged values are means over all processes, which evaluate the same scenes, so they agree
        if late and (self._steps_say(trainer, values) or self._evaluations_say(step, seen)):
            raise self._error(step, values)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Refuse to replace a good checkpoint by one with non-finite values.

        Raises:
            TrainingError: If a parameter or buffer is not finite.
        """
        broken = broken_tensors(pl_module)
        if broken:
            raise TrainingError(
                "the networks are not finite",
                found=f"{len(broken)} tensors with NaN or infinity, {broken[0]} among them",
                where=f"step {trainer.global_step}, about to save a checkpoint",
                remedy="lower optim.lr, lengthen optim.warmup, set optim.clip; the checkpoint "
                f"before is still there: {self.checkpoint}",
            )

    def _seen_after(self, step: int) -> Geometry | None:
        """Return the geometry of held-out scenes after a step, if it was evaluated then."""
        if self.monitor is None or self.monitor.latest[0] != step:
            return None
        return Geometry.of(self.monitor.latest[1])

    def _check_encoder(self, trainer: L.Trainer, step: int, now: Geometry) -> None:
        """Warn if the encoder loses directions; stop if its probe score has dropped as well.

        Raises:
            TrainingError: In all processes, if this and an earlier evaluation show a collapse.
        """
        health = now.health(self._start, pretrained=is_pretrained(self.config))
        if health is Health.HEALTHY:
            if self._warned >= 0 and self._since is None and trainer.is_global_zero:
                self.kept.unlink(missing_ok=True)
            self._warned = -1
            return
        seen = f"{now.describe(self._start)} (held-out scenes at step {step})"
        if self._warned < 0:  # one evaluation alone is not enough to stop a run
            self._warned = step
            if trainer.is_global_zero:
                self._keep()
                self._warn(step, seen)
        elif health is Health.COLLAPSED:
            raise TrainingError(
                "the encoder has collapsed: it has lost its directions, and what they told",
                found=f"{seen}; {diagnosis(self.config)}",
                expected="at least half of the effective rank at the start",
                where=f"step {step}, since step {self._warned}",
                remedy=remedy(self.config),
            )

    def _warn(self, step: int, seen: str) -> None:
        text = (
            f"warning: the encoder is losing directions at step {step}: it may collapse\n"
            f"  found:    {seen}\n"
            "  expected: at least half of the effective rank at the start\n"
            f"  likely:   {diagnosis(self.config)}\n"
            f"  remedy:   {remedy(self.config)}\n"
        )
        print(text, file=sys.stderr, flush=True, end="")  # noqa: T201
        folder = self.checkpoint.parent.parent
        with (folder / WARNINGS).open("a", encoding="utf-8") as file:
            file.write(text)

    def _steps_say(self, trainer: L.Trainer, values: Mapping[str, Tensor]) -> bool:
        """Whether the logged spread has been below the threshold for long enough."""
        value = _spread(values)
        if math.isnan(value) or value >= self.floor:
            if self._since is not None and trainer.is_global_zero:
                self.kept.unlink(missing_ok=True)
            self._since = None
            return False
        if self._since is None:
            self._since = trainer.global_step
            if trainer.is_global_zero:
                self._keep()
        return trainer.global_step - self._since + 1 >= self.config.monitor.collapse_steps

    def _evaluations_say(self, step: int, seen: Geometry | None) -> bool:
        """Whether all evaluations in the last steps found the embeddings collapsed to one point."""
        if seen is None:
            return False
        if not (seen.spread < self.floor and seen.spread <= _LEFT * self._start.spread):
            self._seen = None
            return False
        if self._seen is None:
            self._seen = step
            return False  # one evaluation alone is not enough
        return step - self._seen + 1 >= self.config.monitor.collapse_steps

    def _keep(self) -> None:
        if self.checkpoint.is_file():
            keep_as(self.checkpoint, KEPT)

    def _error(self, step: int, logged: Mapping[str, Tensor]) -> TrainingError:
        seen, values = [], {name: float(value) for name, value in logged.items()}
        spread = _spread(logged)
        if not math.isnan(spread):
            words = f", below {self.floor:g}" if spread < self.floor else ""
            seen.append(f"{_SPREAD} {spread:.4g}{words}")
        seen += self._loss_evidence(values)
        if self.monitor is not None and self.monitor.latest[1]:
            at, then = self.monitor.latest[0], Geometry.of(self.monitor.latest[1])
            seen.append(
                f"held-out scenes at step {at}: spread {then.spread:.4g} after "
                f"{self._start.spread:.4g} at the start, effective rank {then.rank:.3g}"
            )
        first = self._seen if self._since is None else self._since
        since = "" if first is None else f", since step {first}"
        kept = self.kept if self.kept.is_file() else self.checkpoint
        there = f"; the last checkpoint from before is {kept}" if kept.is_file() else ""
        return TrainingError(
            "the embedding has collapsed: all images are embedded as one",
            found="; ".join(seen),
            expected="a spread near 1, more than monitor.collapse_std",
            where=f"step {step}{since}",
            remedy="lower optim.lr, lengthen optim.warmup, raise method.momentum, use "
            f"method.head_norm bn, a larger optim.batch{there}",
        )

    def _loss_evidence(self, values: Mapping[str, float]) -> list[str]:
        """Compare the hard term with its value when all embeddings are equal (2τ ln N)."""
        if "hard" not in values:
            return []
        method, columns = self.config.method, self.config.columns
        equal = 2 * method.tau * math.log(columns) * (2 if method.symmetric else 1)
        words = f"hard {values['hard']:.4g}, where all embeddings being equal gives {equal:.4g}"
        if "own_probability" in values:
            words += f"; own_probability {values['own_probability']:.3g} of 1/N = "
            words += f"{1 / columns:.3g}"
        return [words]
