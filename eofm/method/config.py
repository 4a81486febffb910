"""All options of the method in one class, with their defaults. Standard library only.

Python, the command line (`--method.tau 0.1`) and YAML files read this class. Details that the
SoftCon paper (arXiv 2405.20462) leaves open are fields; the defaults are those of the same authors'
MoCo-v3 (arXiv 2211.07044, zhu-xlab/SSL4EO-S12). The small heads of the demo are settings of the
demo (`eofm/train/config.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from eofm.errors import ConfigError, require
from eofm.io import names_own
from eofm.method.terms import term_names
from eofm.settings import checked_settings

__all__ = [
    "Diagonal",
    "Exclude",
    "HeadForm",
    "HeadNorm",
    "LabelSimilarity",
    "MaskFill",
    "MaskForm",
    "Objective",
    "SoftBias",
    "SoftConConfig",
    "SoftForm",
    "SoftScale",
    "SoftUnit",
    "TermChoice",
]


class Objective(StrEnum):
    """Training objective: SoftCon, or a control that omits a part of it.

    SOFTCON: the hard and the soft term.
    MOCO: the hard term alone, as in MoCo-v3.
    SOFT: the soft term alone.
    SHUFFLED: SoftCon with the label sets exchanged between images at random.
    MULTILABEL: binary cross entropy of the classes, without contrast
        (`eofm.method.terms.multilabel`).
    """

    SOFTCON = "softcon"
    MOCO = "moco"
    SOFT = "soft"
    SHUFFLED = "shuffled"
    MULTILABEL = "multilabel"


class Exclude(StrEnum):
    """Images that the hard term does not use as negatives.

    None; those of one place (other seasons, overlapping windows); or those with the same classes,
    which are false negatives by their labels.
    """

    NONE = "none"
    SAME_LOCATION = "same-location"
    SAME_LABELS = "same-labels"


class SoftForm(StrEnum):
    """Loss that makes the embedding similarity s follow the label similarity S.

    Binary cross entropy of each pair, with a bias; cross entropy of each row against S as a
    distribution; mean squared error of s, or of (s + 1) / 2, which has the range of S.
    """

    BCE = "bce"
    CE = "ce"
    MSE = "mse"
    MSE_SHIFTED = "mse-shifted"


class SoftUnit(StrEnum):
    """The unit of λ: the soft term itself, or equal gradients of both terms at the start.

    The gradients of the forms differ by up to a factor of five, so the same λ is a different weight
    for two of them. In units of equal gradients λ is comparable.
    """

    PLAIN = "plain"
    GRADIENT = "gradient"


class SoftBias(StrEnum):
    """Bias of the bce form: learned, fixed at its start (logit of the mean S), or 0."""

    LEARNED = "learned"
    FIXED = "fixed"
    ZERO = "zero"


class SoftScale(StrEnum):
    """The scale of the bce form: fixed at 1 / soft_tau, or learned from there (SigLIP)."""

    FIXED = "fixed"
    LEARNED = "learned"


class Diagonal(StrEnum):
    """Label similarity of an image with itself if its views are of two seasons.

    The similarity of the labels of both seasons, or 1, as it is the same place.
    """

    LABELS = "labels"
    ONE = "one"


class LabelSimilarity(StrEnum):
    """Similarity of the label sets A and B of two images.

    Cosine of the multi-hot vectors, |A∩B| / sqrt(|A||B|); Jaccard, |A∩B| / |A∪B|; cosine with
    rare classes weighing more, by ln(1 / frequency); cosine of the shares of the two images that
    each class covers.
    """

    COSINE = "cosine"
    JACCARD = "jaccard"
    IDF = "idf"
    FRACTION = "fraction"


class MaskForm(StrEnum):
    """Method of hiding patches from the student.

    Their tokens are dropped (as in notes on the paper's code; only dropping saves memory), or their
    pixels are filled.
    """

    TOKENS = "tokens"
    PIXELS = "pixels"


class MaskFill(StrEnum):
    """Value of hidden pixels: the mean of each band, or 0 in normalised units."""

    MEAN = "mean"
    ZERO = "zero"


class HeadForm(StrEnum):
    """Projector and predictor; D is the trunk's width, h the hidden width, d the embedding's.

    AUTO: MOCO3 for a trunk that drops tokens, else MOCO3_RESNET.
    MOCO3: for transformers. Projector D-h-h-d, predictor d-h-d, both with a last norm.
    MOCO3_RESNET: for ResNets. Projector D-h-d with a last norm, predictor d-h-d without.
    MOCO2: projector D-h-d with biases, neither norms nor a predictor.
    """

    AUTO = "auto"
    MOCO3 = "moco3"
    MOCO3_RESNET = "moco3-resnet"
    MOCO2 = "moco2"


class HeadNorm(StrEnum):
    """Normalisation inside the heads: batch, layer, or none."""

    BN = "bn"
    LN = "ln"
    NONE = "none"


@dataclass(frozen=True)
class TermChoice:
    """A term of a run.

    Args:
        name: Name of the term, or `file.py:Class`.
        weight: Weight of its loss.
        settings: Non-default settings of the term, by field.
    """

    name: str
    weight: float = 1.0
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        """Prefix of the term's logged values and tensors: its name, or its class name."""
        return self.name.rpartition(":")[2]


# Objective -> name of its term, if different.
_PRESETS: Final[Mapping[str, str]] = {
    objective: Objective.SOFTCON.value
    for objective in (Objective.MOCO, Objective.SOFT, Objective.SHUFFLED)
}
_VARIANTS: Final = (Objective.SOFTCON, *_PRESETS)


def _choice(name: str, value: object) -> TermChoice:
    """Return the choice of a term from an entry of `method.terms`.

    Raises:
        ConfigError: If the term is unknown, or its weight is not a number of 0 or more.
    """
    where = f"method.terms.{name}"
    if name not in term_names() and not names_own(name):
        raise ConfigError(
            "there is no such term",
            found=name,
            expected=", ".join(term_names()) + ", or module:Class",
            where="method.terms",
        )
    settings: dict[Any, Any] = dict(value) if isinstance(value, Mapping) else {"weight": value}
    weight = settings.pop("weight", 1.0)
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    require(
        number and 0 <= float(weight) < float("inf"),
        where,
        weight,
        "a weight of 0 or more, or settings with one: {weight: 0.5}",
    )
    return TermChoice(name, float(weight), {str(key): each for key, each in settings.items()})


def _bad_terms(value: object) -> ConfigError:
    return ConfigError(
        "method.terms names no term with a weight",
        found=value,
        expected="names and weights, such as {softcon: 1}",
        where="method.terms",
    )


@dataclass(frozen=True)
@checked_settings
class SoftConConfig:
    """The SoftCon objective, loss = hard + λ · soft, and its controls.

    Args:
        objective: `softcon`, or one of its controls: `moco`, the hard term alone; `soft`, the soft
            term alone; `shuffled`, SoftCon with the label sets permuted among scenes once, at
            random; `multilabel`, which predicts the classes from the embedding by binary cross
            entropy, with the same views and masks but no contrastive loss. `module:Class` or
            `file.py:Class` is an objective of your own (`eofm.method.objectives`).
        terms: Terms of the loss with their weights, if the loss is more than the objective:
            `{softcon: 1, mim: 0.5}`, or with settings `{softcon: 1, mim: {weight: 0.5, mask_ratio:
            0.6}}`. The documentation has a page on each term and its settings. The settings of
            `softcon` are those of this group, and `objective` (`softcon`, `moco`, `soft` or
            `shuffled`) selects its parts. `file.py:Class` is a term of your own. Without it, the
            loss is the objective alone.
        tau: Temperature of the hard term.
        hard_exclude: Images that are not negatives in the hard term: `none`; `same-location`, other
            dates and windows of the same place; `same-labels`, images with the same classes.
        queue: Number of keys from earlier steps used as further negatives, as in MoCo-v2 (arXiv
            1911.05722); a multiple of the batch, 0 for none.
        soft_tau: Temperature of the soft term (bce, ce).
        soft_weight: Weight λ of the soft term; 0 is MoCo-v3.
        soft_unit: Unit of λ. `gradient`: at λ = 1 both terms have gradients of the same norm before
            the first step, so that λ is comparable between forms. `plain`: λ multiplies the soft
            loss itself. With nine classes λ = 1 of the first is 3 to 5 of the second (mse-shifted:
            20).
        soft_form: Binary cross entropy (`bce`), cross entropy (`ce`), or mean squared error of the
            cosine (`mse`) or of (cosine + 1) / 2 (`mse-shifted`).
        soft_bias: Bias of bce: `learned`, starting from the logit of the mean similarity; `fixed`
            at that value; or `zero`.
        soft_scale: Scale of bce: `fixed` at 1 / soft_tau, or `learned`, starting there and at most
            100 (SigLIP, arXiv 2303.15343).
        soft_neighbours: Number of most similar images per row used in the soft term, as in LOOK
            (arXiv 2110.06014); 0 uses all.
        soft_diagonal: Target similarity of two views of one image taken at different dates: that of
            their labels (`labels`), or `one`.
        similarity: Similarity of two label sets: `cosine`, `jaccard`, `idf` (cosine with higher
            weights for rare classes), or `fraction` (cosine of the covered area shares, for stores
            packed with land-cover maps).
        mask_ratio: Share of the student's patches that are masked.
        mask: `tokens` drops masked patches before the first block, which saves time and memory
            (ViTs only). `pixels` fills them with `mask_fill`: patches of a ViT, or blocks of 32
            pixels for a ResNet, whose batch-norm statistics are recomputed on whole images before
            the student is exported.
        mask_fill: Value of masked pixels: the `mean` of each band, or `zero`.
        symmetric: Use both directions: student on view 1 with teacher on view 2, and the reverse.
        momentum: Initial momentum of the teacher; it rises to 1 by a cosine schedule.
        head: Projector and predictor: `moco3` of MoCo-v3 for ViTs (3 + 2 layers), `moco3-resnet` of
            MoCo-v3 for ResNets (2 + 2), `moco2` of MoCo-v2 (2 layers without normalisation, no
            predictor). `auto` chooses between the first two.
        hidden: Hidden width of projector and predictor, h.
        dim: Width of the contrastive embedding, d.
        head_norm: Normalisation inside the heads: `bn`, `ln` or `none`.

    Raises:
        ConfigError: If a value is unknown or out of range.
    """

    objective: Objective | str = Objective.SOFTCON
    terms: dict[str, Any] | None = None
    tau: float = 0.2
    hard_exclude: Exclude = Exclude.NONE
    queue: int = 0
    soft_tau: float = 0.2
    soft_weight: float = 1.0
    soft_unit: SoftUnit = SoftUnit.GRADIENT
    soft_form: SoftForm = SoftForm.BCE
    soft_bias: SoftBias = SoftBias.LEARNED
    soft_scale: SoftScale = SoftScale.FIXED
    soft_neighbours: int = 0
    soft_diagonal: Diagonal = Diagonal.LABELS
    similarity: LabelSimilarity = LabelSimilarity.COSINE
    mask_ratio: float = 0.7
    mask: MaskForm = MaskForm.TOKENS
    mask_fill: MaskFill = MaskFill.MEAN
    symmetric: bool = True
    momentum: float = 0.99
    head: HeadForm = HeadForm.AUTO
    hidden: int = 4096
    dim: int = 256
    head_norm: HeadNorm = HeadNorm.BN

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, _member(kind, name, getattr(self, name)))
        for name, holds, expected in self._rules():
            require(holds, f"method.{name}", getattr(self, name), expected)
        _ = self.chosen  # refuses unknown terms and missing weights

    def _rules(self) -> tuple[tuple[str, bool, str], ...]:
        bce = self.soft_form is SoftForm.BCE
        about_labels = self.objective in (Objective.SOFT, Objective.SHUFFLED)
        return (
            ("tau", self.tau > 0, "more than 0"),
            ("queue", self.queue >= 0, "0 or more"),
            ("soft_tau", self.soft_tau > 0, "more than 0"),
            ("soft_weight", self.soft_weight >= 0, "0 or more"),
            (
                "soft_weight",
                self.soft_weight > 0 or not about_labels,
                f"more than 0: objective {self.objective} is about the soft term",
            ),
            ("soft_neighbours", self.soft_neighbours >= 0, "0 or more"),
            (
                "soft_bias",
                bce or self.soft_bias is SoftBias.LEARNED,
                "learned, the default: only the form bce has a bias",
            ),
            (
                "soft_scale",
                bce or self.soft_scale is SoftScale.FIXED,
                "fixed: only the form bce learns a scale",
            ),
            ("mask_ratio", 0 <= self.mask_ratio < 1, "0 to less than 1"),
            ("momentum", 0 <= self.momentum <= 1, "0 to 1"),
            ("hidden", self.hidden > 0, "more than 0"),
            ("dim", self.dim > 0, "more than 0"),
        )

    @property
    def chosen(self) -> tuple[TermChoice, ...]:
        """The terms of a run with weights and settings, in order of computation.

        The objective counts as one term with weight 1. A term with weight 0 is excluded: the run is
        bit-identical to a run without it.

        Raises:
            ConfigError: If a term is unknown, a weight is not a number of 0 or more, or no term is
                left.
        """
        if self.terms is None:
            return (TermChoice(_PRESETS.get(str(self.objective), str(self.objective))),)
        require(
            self.objective in _VARIANTS,
            "method.objective",
            self.objective,
            f"{', '.join(_VARIANTS)}, where method.terms says what is minimised",
        )
        if not isinstance(self.terms, Mapping):
            raise _bad_terms(self.terms)
        made = tuple(_choice(str(name), value) for name, value in self.terms.items())
        made = tuple(choice for choice in made if choice.weight > 0)
        if not made:
            raise _bad_terms(self.terms)
        require(
            self.objective in (Objective.SOFTCON, Objective.SHUFFLED)
            or any(choice.name == Objective.SOFTCON for choice in made),
            "method.objective",
            self.objective,
            f"{Objective.SOFTCON}, the default: without the term softcon there is none to change",
        )
        return made

    @property
    def contrasts(self) -> bool:
        """Whether `softcon` is among the terms, so that its settings take effect."""
        return any(choice.name == Objective.SOFTCON for choice in self.chosen)

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the hard and the soft term: (1, λ), except for the controls."""
        if self.objective is Objective.MOCO:
            return 1.0, 0.0
        return float(self.objective is not Objective.SOFT), self.soft_weight


_CHOICES: dict[str, type[StrEnum]] = {
    field.name: type(field.default)
    for field in dataclasses.fields(SoftConConfig)
    if isinstance(field.default, StrEnum)
}


def _member(kind: type[StrEnum], name: str, value: object) -> str:
    """Return the member of an enumeration that a settings file or Python gives by its value."""
    known = {member.value: member for member in kind}
    if isinstance(value, str) and value in known:
        return known[value]
    own = ", or module:Class" if kind is Objective else ""
    if own and isinstance(value, str) and names_own(value):
        return value
    raise ConfigError(
        f"method.{name} has no such choice",
        found=value,
        expected=", ".join(known) + own,
        where=f"method.{name}",
    )
