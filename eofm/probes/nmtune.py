"""NMTune: a small network on frozen features that reduces the effect of noisy pretraining.

arXiv 2309.17002 finds that networks pretrained on noisy labels have features with a flatter or more
peaked spectrum, and transforms the features without changing the network: a perceptron f -> t with
one hidden layer and a linear head on t are trained on the classes with three more terms, which keep
t close to f in direction, decorrelate its dimensions, and strengthen its leading directions:

    class loss + s (1 MSE(t/|t|, f/|f|) + 0.04 Σ_{i≠j} Cov(t)²_ij / D - 0.001 mean(σ_1..σ_5 / Σσ))

with the paper's weights at s = 1; s is chosen on the validation split, and s = 0 is the perceptron
alone. Optimiser, epochs and sizes are as in the paper, but without its two augmented views, because
features are computed once.

Shapes: N training samples, M test samples, B samples of a batch, D features, K classes.
"""

from __future__ import annotations

import math
from typing import Final, final

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional

from eofm.errors import ConfigError, LabelError
from eofm.probes.features import (
    Labelled,
    ProbeResult,
    Scaling,
    check_features,
    class_loss,
    effective_rank,
    scale,
)
from eofm.probes.linear import Choice

__all__ = ["STRENGTHS", "Tuner", "fit_tuner", "nmtune_probe", "regulariser"]

# Strengths s to choose from, ascending.
STRENGTHS: Final = (0.0, 0.1, 1.0, 10.0)
_CONSISTENCY, _COVARIANCE, _LEADING = 1.0, 0.04, 0.001
_DIRECTIONS: Final = 5
_HIDDEN: Final = 4
_RATE, _DECAY = 1e-3, 1e-4
_EPOCHS, _BATCH = 30, 64
_SEED: Final = 0


def regulariser(tuned: Float[Tensor, "b d"], frozen: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the three terms of a batch, weighted as in the paper.

    Args:
        tuned: Output of the perceptron, (B, D), with B of 2 or more.
        frozen: The features, (B, D).
    """
    close = functional.mse_loss(functional.normalize(tuned), functional.normalize(frozen))
    centred = tuned - tuned.mean(dim=0)
    covariance = centred.T @ centred / (len(tuned) - 1)
    apart = covariance.square().sum() - covariance.diagonal().square().sum()
    singular = torch.linalg.svdvals(tuned)
    leading = (singular[:_DIRECTIONS] / singular.sum()).mean()
    found: Tensor = _CONSISTENCY * close + _COVARIANCE * apart / tuned.shape[1] - _LEADING * leading
    return found


@final
class Tuner(nn.Module):
    """The perceptron and its head.

    Args:
        width: D.
        classes: K.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        hidden = _HIDDEN * width
        self.tune = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]:
        """Return tuned features (B, D) and logits (B, K)."""
        tuned = self.tune(x)
        return tuned, self.head(tuned)


def fit_tuner(train: Labelled, x: Float[Tensor, "n d"], strength: float) -> Tuner:
    """Train the perceptron and its head; the global random state is preserved.

    AdamW with rate 1e-3, half a cosine, weight decay 1e-4, and 30 epochs of batches of 64. A last
    batch of one sample has no batch statistics and is dropped.

    Args:
        train: Training split with the labels.
        x: Its scaled features, float32 (N, D).
        strength: s.

    Raises:
        LabelError: If there are fewer than two samples.
    """
    if len(x) < 2:
        raise LabelError("batch statistics need two training samples", found=len(x))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = Tuner(x.shape[1], train.classes)
    optimizer = torch.optim.AdamW(model.parameters(), _RATE, weight_decay=_DECAY)
    generator = torch.Generator().manual_seed(_SEED)
    per_epoch = len(_order(len(x), torch.Generator()))
    for step in range(_EPOCHS * per_epoch):
        if step % per_epoch == 0:
            batches = _order(len(x), generator)
        rate = 0.5 * _RATE * (1 + math.cos(math.pi * step / (_EPOCHS * per_epoch)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = batches[step % per_epoch]
        tuned, logits = model(x[rows])
        loss = class_loss(logits, train.y[rows])
        if strength:
            loss = loss + strength * regulariser(tuned, x[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def _order(count: int, generator: torch.Generator) -> list[Int64[Tensor, " b"]]:
    """Return the rows of the batches of an epoch."""
    every = torch.split(torch.randperm(count, generator=generator), _BATCH)
    return [rows for rows in every if len(rows) > 1]


def nmtune_probe(
    train: Labelled,
    val: Labelled | None,
    test_x: Float[Tensor, "m d"],
    *,
    choice: Choice,
    scaling: Scaling = Scaling.NONE,
) -> ProbeResult:
    """Tune features for every strength, choose one on val, and score the test samples.

    Of equal validation scores the smaller strength wins.

    Args:
        train: Training split.
        val: Validation split.
        test_x: (M, D).
        choice: Score for choosing the strength: the metric of the task.
        scaling: Scaling of the features; its constants are always those of the training split.

    Raises:
        ConfigError: If there is no validation split.
        LabelError: If there are fewer than two training samples.
        PixelError: If a test feature is not finite or a row is all zero.
    """
    if val is None:
        raise ConfigError(
            "the strength of NMTune is chosen on a validation split",
            found="no validation split",
            remedy="take a task with one, or another probe: --probe linear-c1",
        )
    check_features(test_x)
    x, val_x, test = (one.float() for one in scale(train.x, scaling, val.x, test_x))
    fits = {strength: fit_tuner(train, x, strength) for strength in STRENGTHS}
    reached = {s: choice(_logits(fit, val_x), val.y) for s, fit in fits.items()}
    best = max(reached, key=lambda s: reached[s])  # of equals the first, which is the smallest
    logits = _logits(fits[best], test)
    with torch.no_grad():
        tuned = fits[best].tune(x)
    words = "/".join(f"{s:g}" for s in STRENGTHS)
    return ProbeResult(
        probe=f"nmtune[adamw,rate={_RATE:g},epochs={_EPOCHS},batch={_BATCH},hidden={_HIDDEN}x,"
        f"regularisation={words},val,norefit,seed={_SEED},{scaling}]",
        scores=logits,
        probability=logits.sigmoid() if train.multi_label else logits.softmax(dim=1),
        validation=tuple(reached.items()),
        chosen=f"regularisation {best:g}",
        notes=("regularisation at the edge of those tried",) if best == STRENGTHS[-1] else (),
        details={
            **{f"val, regularisation {s:g}": f"{score:.4f}" for s, score in reached.items()},
            "effective rank of tuned features": f"{effective_rank(tuned):.2f}",
            "nmtune: source": "arXiv 2309.17002, equations 4 to 7",
            "nmtune: not reproduced": "two augmented views of each image; rates tried per data set",
        },
    )


@torch.no_grad()
def _logits(model: Tuner, x: Float[Tensor, "m d"]) -> Float64[Tensor, "m k"]:
    logits: Tensor = model(x)[1]
    return logits.double()
