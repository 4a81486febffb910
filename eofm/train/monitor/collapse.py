"""When an encoder collapses: a rule over what held-out scenes keep of the start, and what to do.

The head's batch norms hide a collapse: its output stays spread out while the encoder embeds all
scenes alike. So the rule is about the encoder's own embeddings of held-out scenes, relative to
those before the first step.

The bounds were measured (`benchmarks/results/collapse.md`). A pretrained network that collapsed
had at most 0.30 of its effective rank and 0.17 of its spread after 4 steps; at a rate that it
survived it kept 0.93 of both or more. A network with random weights loses most of its directions
within 8 steps even where it learns (to a fifth of the start, 6 directions, in the demo) but keeps
0.45 of its spread: there the rank counts only where fewer than 4 directions are left, as in the
collapse on 18 windows, or less of the spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from eofm.train.config import PretrainConfig

# Less than this share of the effective rank at the start is a warning, of a pretrained network;
# of one with random weights together with few directions, or too small a share of the spread.
KEPT_RANK: Final = 0.5
FEW_DIRECTIONS: Final = 4.0
KEPT_SPREAD: Final = 0.4
# With this much less kNN average precision as well, the run is stopped. Less is within the noise of
# 128 scenes.
PROBE_LOST: Final = 0.02
# Without labels there is no probe: then as little of the spread must be left as a dead network has.
DEAD_SHARE: Final = 0.1
# Rates that a pretrained transformer survived, and that a random one did.
GENTLE_LR: Final = 5e-4
GENTLE_DECAY: Final = 0.75


class Health(StrEnum):
    """What the embeddings of held-out scenes say of an encoder."""

    HEALTHY = "healthy"
    SHRINKING = "shrinking"
    COLLAPSED = "collapsed"


@dataclass(frozen=True)
class Geometry:
    """How an encoder spreads held-out scenes at one step.

    Args:
        rank: Effective rank (arXiv 2210.02885).
        spread: 1 fills the sphere, 0 is one point.
        cosine: Mean over pairs of scenes.
        knn: Average precision of the nearest neighbours' votes; NaN without labels.
    """

    rank: float
    spread: float
    cosine: float
    knn: float

    @classmethod
    def of(cls, measured: Mapping[str, float]) -> Geometry:
        """Return it from an evaluation, by names such as `monitor/effective_rank`."""
        names = ("effective_rank", "embedding_std", "mean_cosine", "knn")
        return cls(*(measured.get(f"monitor/{name}", math.nan) for name in names))

    def health(self, start: Geometry, *, pretrained: bool) -> Health:
        """Return whether directions are lost, and whether the probe has lost with them.

        Args:
            start: Before the first step; a value that was not measured is not judged.
            pretrained: The start had learned something.
        """
        few = self.rank < FEW_DIRECTIONS or self.spread < KEPT_SPREAD * start.spread
        if not (self.rank < KEPT_RANK * start.rank and (pretrained or few)):
            return Health.HEALTHY
        worse = self.knn < start.knn - PROBE_LOST
        dead = math.isnan(start.knn) and self.spread < DEAD_SHARE * start.spread
        return Health.COLLAPSED if worse or dead else Health.SHRINKING

    def describe(self, start: Geometry) -> str:
        """Return what was measured, with the values at the start."""
        words = [
            f"effective rank {self.rank:.1f} after {start.rank:.1f} at the start",
            f"spread {self.spread:.2f} after {start.spread:.2f}",
            f"mean cosine {self.cosine:.3f} after {start.cosine:.3f}",
        ]
        if not math.isnan(start.knn):
            words.append(f"kNN {100 * self.knn:.1f} after {100 * start.knn:.1f}")
        return ", ".join(words)


def diagnosis(config: PretrainConfig) -> str:
    """Return what in the settings may have made an encoder collapse."""
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
    """Return the command that tries again with gentler settings.

    A pretrained network gets the rate that one survived, layers that are the slower the earlier
    they are, and an epoch in which only the input layer and the heads learn.
    """
    optim, run = config.optim, config.run.out
    rate = min(optim.lr / 8, GENTLE_LR) if is_pretrained(config) else optim.lr / 8
    words = [f"--optim.lr {rate:.2g}"]
    if is_pretrained(config):
        words.append(f"--optim.layer_decay {min(optim.layer_decay, GENTLE_DECAY):g}")
        if optim.epochs > 1 and not optim.freeze_epochs:
            words.append("--optim.freeze_epochs 1")
    return (
        f"eofm pretrain --config {run}/config.yaml --run.out {run}-gentler --run.resume false "
        f"{' '.join(words)}; more scenes and a larger optim.batch help as well"
    )


def is_pretrained(config: PretrainConfig) -> bool:
    """Whether there is something to lose: weights to start from, or an earlier stage."""
    return config.model.weights is not None or config.model.continue_from is not None
