"""What every probe reads and returns: features with their labels, scaled, and the result.

Probes are pure functions of feature tensors. The id of one states every choice that affects a
score: `knn[k=5,l2,uniform,none]`, `linear[lbfgs,C40,val,norefit,standard]`, where the last word is
the scaling of the features. Nothing is drawn at random and nothing depends on the order of files.

The singular values of the features of a split, summarised in three numbers, are part of every
result. They are computed without labels. A spectrum concentrated in a few directions indicates a
collapsed encoder, a flat one features without structure. arXiv 2309.17002 measures the damage of
noisy pretraining labels with the same values.

Shapes: N training samples, M test samples, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from eofm.errors import LabelError, PixelError

__all__ = [
    "Labelled",
    "ProbeResult",
    "Scaler",
    "Scaling",
    "Spectrum",
    "check_features",
    "class_loss",
    "decay_exponent",
    "effective_rank",
    "scale",
    "singular_values",
    "spectrum_of",
    "unit_length",
    "within_class_rank",
]


@dataclass(frozen=True)
class Labelled:
    """Features of one split with their labels.

    Args:
        x: (N, D), float.
        y: (N,) int64 class indices, or (N, K) with 1 where a class is present.
        classes: K, including classes that no sample has.

    Raises:
        LabelError: If the labels do not match the features or the classes.
        PixelError: If a feature is not finite or a sample's features are all zero.
    """

    x: Float[Tensor, " ..."]
    y: Shaped[Tensor, " ..."]
    classes: int

    def __post_init__(self) -> None:
        check_features(self.x)
        wanted = self.x.shape[:1] if self.y.ndim == 1 else (len(self.x), self.classes)
        if tuple(self.y.shape) != tuple(wanted) or self.y.ndim > 2:
            raise LabelError(
                "labels do not fit the features",
                found=f"features {tuple(self.x.shape)}, labels {tuple(self.y.shape)}",
                expected=f"({len(self.x)},) or ({len(self.x)}, {self.classes})",
            )
        top = self.classes - 1 if self.y.ndim == 1 else 1
        if int(self.y.min()) < 0 or int(self.y.max()) > top:
            raise LabelError(
                "a label is out of range",
                found=f"{int(self.y.min())}..{int(self.y.max())}",
                expected=f"0..{top}",
            )

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have several classes."""
        return self.y.ndim == 2

    def multi_hot(self) -> Float64[Tensor, "n k"]:
        """Return the labels as (N, K), float64."""
        if self.multi_label:
            return self.y.double()
        return nn.functional.one_hot(self.y, self.classes).double()


def check_features(x: Shaped[Tensor, " ..."]) -> None:
    """Refuse features that cannot be probed.

    Raises:
        PixelError: If the shape is not (N, D), a value is NaN or infinite, or a row is all zero.
    """
    if x.ndim != 2 or not x.is_floating_point() or 0 in x.shape:
        raise PixelError(
            "features must be (samples, dimensions) of float, neither zero",
            found=f"{tuple(x.shape)} {x.dtype}",
        )
    broken = ~torch.isfinite(x).all(dim=1)
    dead = (x == 0).all(dim=1)
    for rows, problem in ((broken, "not finite"), (dead, "all zero")):
        if rows.any():
            raise PixelError(
                f"features of {int(rows.sum())} samples are {problem}",
                found=f"rows {torch.nonzero(rows).flatten()[:5].tolist()} of {len(x)}",
                remedy="inspect the images of these samples and the encoder of the features",
            )


def class_loss(logits: Float[Tensor, "b k"], y: Shaped[Tensor, " ..."]) -> Float[Tensor, ""]:
    """Return the cross entropy, or the mean of binary cross entropies for several classes.

    Args:
        logits: (B, K).
        y: Labels, as in `Labelled`.
    """
    if y.ndim == 1:
        return nn.functional.cross_entropy(logits, y)
    return nn.functional.binary_cross_entropy_with_logits(logits, y.to(logits))


@dataclass(frozen=True)
class ProbeResult:
    """Outputs of a probe for the test samples, and how its settings were chosen.

    Args:
        probe: Id of the probe, with all its choices.
        scores: float64, (M, K): shares of votes, similarities or logits.
        probability: float64, (M, K), within [0, 1]; None if the probe has no probabilities.
        strength: Chosen C of a linear probe.
        on_edge: The chosen C is at the end of the grid, even after extending it.
        gradient_norm: Gradient norm of the final fit; well below 1e-4 means converged.
        validation: Each C tried with its score on the validation split.
        chosen: Other choices made on the validation split, as text.
        notes: Caveats for readers of the score.
        details: Settings and sources, by name.
    """

    probe: str
    scores: Float[Tensor, " ..."]
    probability: Float[Tensor, " ..."] | None = None
    strength: float | None = None
    on_edge: bool = False
    gradient_norm: float | None = None
    validation: tuple[tuple[float, float], ...] = ()
    chosen: str = ""
    notes: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------------------------ scaling


class Scaling(StrEnum):
    """Scaling of features before a probe, with constants from the training split."""

    NONE = "none"
    STANDARD = "standard"  # (x - mean) / standard deviation, per feature
    UNIT = "unit"  # each sample's vector to length 1


@dataclass(frozen=True)
class Scaler:
    """A scaling with its constants.

    Args:
        scaling: Kind of scaling.
        mean: float64, (D,), of the training split; None except for `STANDARD`.
        std: float64, (D,), likewise; 1 for features that are constant in training.
    """

    scaling: Scaling
    mean: Tensor | None = None
    std: Tensor | None = None

    @classmethod
    def of(cls, train: Float[Tensor, "n d"], scaling: Scaling) -> Scaler:
        """Return the scaling with the constants of training features (N, D)."""
        if scaling is not Scaling.STANDARD:
            return cls(scaling)
        x = train.double()
        mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
        constant = (x == x[0]).all(dim=0)  # rounding leaves such a feature a tiny deviation
        return cls(scaling, mean, torch.where(constant, 1, std))

    def __call__(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """Return scaled features, float64 (N, D)."""
        if self.mean is not None and self.std is not None:
            return (x.double() - self.mean) / self.std
        return unit_length(x) if self.scaling is Scaling.UNIT else x.double()


def scale(
    train: Float[Tensor, "n d"], scaling: Scaling, *others: Float[Tensor, "_ d"]
) -> tuple[Float64[Tensor, "_ d"], ...]:
    """Scale features by constants of the training split, in float64.

    Returns:
        The training features and the others with the same scaling. A feature that is constant
        in training is only centred.
    """
    scaler = Scaler.of(train, scaling)
    return tuple(scaler(x) for x in (train, *others))


def unit_length(x: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """Return each row divided by its Euclidean length, float64."""
    return nn.functional.normalize(x.double(), eps=1e-300)


# ----------------------------------------------------------------------------------- spectrum

# The first directions follow no power law, and the last ones are noise of the finite sample.
_FIRST: Final = 11
_LAST: Final = 500
_FEWEST: Final = 10


@dataclass(frozen=True)
class Spectrum:
    """Singular values σ of centred features, largest first, in three numbers.

    Args:
        rank: exp of the entropy of σ / Σσ: number of directions used (RankMe, arXiv 2210.02885).
        lead: σ_1 / Σσ, the share of the first direction; 1 if it is the only one.
        alpha: Exponent of the decay of the eigenvalues, σ_j² ~ j^-α; near 1 in networks that
            generalise (arXiv 2202.05808). None if there are too few directions for the fit.
    """

    rank: float
    lead: float | None = None
    alpha: float | None = None


def spectrum_of(x: Float[Tensor, "n d"]) -> Spectrum:
    """Return the spectrum of features.

    Args:
        x: (N, D).
    """
    singular = singular_values(x)
    total = float(singular.sum())
    if total == 0:
        return Spectrum(0.0, 0.0)
    return Spectrum(_rank(singular), float(singular[-1]) / total, decay_exponent(singular))


def effective_rank(x: Float[Tensor, "n d"]) -> float:
    """Return exp(entropy) of the centred features' singular values: the directions in use.

    Degenerate features (RankMe, arXiv 2210.02885) use only a few, whatever their width.

    Args:
        x: (N, D).
    """
    return _rank(singular_values(x))


def singular_values(x: Float[Tensor, "n d"]) -> Float[Tensor, " r"]:
    """Return the singular values of the centred features, float64, ascending.

    Args:
        x: (N, D).
    """
    centred = x.double() - x.double().mean(dim=0)
    small = centred.T @ centred if len(x) >= x.shape[1] else centred @ centred.T
    values: Tensor = torch.linalg.eigvalsh(small).clamp_min(0).sqrt()
    return values


def _rank(singular: Float[Tensor, " r"]) -> float:
    if float(singular.sum()) == 0:
        return 0.0
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


def decay_exponent(singular: Float[Tensor, " r"]) -> float | None:
    """Return α of σ_j² ~ j^-α, or None if there are fewer than ten directions to fit.

    The fit is that of Stringer et al. 2019 (doi 10.1038/s41586-019-1346-5), as in arXiv 2202.05808:
    a line through (ln j, ln σ_j²) by least squares with weights 1 / j, from the eleventh direction
    to half of the directions, at most the 500th.

    Args:
        singular: Singular values, ascending.
    """
    eigen = singular.double().square().flip(0)
    there = int((eigen > eigen[0] * torch.finfo(torch.float64).eps * len(eigen)).sum())
    last = min(_LAST, there // 2)
    if last - _FIRST + 1 < _FEWEST:
        return None
    place = torch.arange(_FIRST, last + 1, dtype=torch.float64)
    x, y, weight = place.log(), eigen[_FIRST - 1 : last].log(), 1 / place
    x = x - (weight * x).sum() / weight.sum()
    return -float((weight * x * y).sum() / (weight * x * x).sum())


def within_class_rank(x: Float[Tensor, "n d"], y: Shaped[Tensor, " ..."]) -> float:
    """Return the effective rank of the features within a class, averaged over classes.

    Supervised contrastive learning pulls a class to one point; another task can use only the
    remaining differences within classes (LOOK, arXiv 2110.06014).

    Args:
        x: (N, D).
        y: (N,) class indices, or (N, K) with 1 where a class is present; a sample of several
            classes counts in each of them.

    Returns:
        NaN if no class has two samples.
    """
    if y.ndim == 1:
        y = torch.nn.functional.one_hot(y)
    ranks = [effective_rank(x[members]) for members in (y > 0).T if int(members.sum()) > 1]
    return sum(ranks) / len(ranks) if ranks else math.nan
