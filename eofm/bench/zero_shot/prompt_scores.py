"""Zero-shot segmentation by a prompt patch: what the cosine to one patch of a class tells.

The idea is that of MMC (arXiv 2308.11448, sections on the prompting patch and on intra- and
inter-object similarity): a user points at one patch, and every patch that resembles it is taken for
the same object. Nothing is fitted. Details are ours, for the paper's objects are here classes of a
land-cover mask:

* A patch belongs to a class if at least half of it is labelled and three quarters of that are the
  class; mixed patches count nowhere.
* At most five patches per class and image are prompts, spread over the image. The other patches of
  the class are what is looked for, patches of other classes what must not be found; the prompt
  itself is neither.
* A prompt is held against the patches of its own image, and, apart from that, against those of up
  to eight images of other groups: there season, sun and place differ too.

Of each prompt: AUROC (does a patch of the class resemble it more than one of another class), the
intersection over union at one threshold for all images, chosen on val, and at the best threshold
of each prompt, which an oracle would choose. Of all: the overlap Σ min(h_same, h_other) of the two
histograms of similarities, in bins that hold equal masses on val: 1 where they cannot be told
apart, as of random features, 0 where they are disjoint. Histograms of few patches are ragged, and
overlap less than what they are drawn from: those of all classes are averaged before they are laid
over one another, and a score of few images is still too small.

Scores and histograms average over the prompts of a class in an image, then over images, then over
classes: a class of three large lakes counts as much as one of many fields. What an image adds is a
row of sums, so that groups of images can be resampled.

Shapes: B bins, G groups or M units of test images, K classes, P patches of an image, D features, Q
prompts, S patches of the class, O patches of other classes, T thresholds, R resamples, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from eofm.bench.segmentation import LABELLED, class_shares, picked
from eofm.probes.bootstrap import Resampled
from eofm.probes.metrics import Metric

# Key of the probe in records.
PROMPT: Final = "prompt"

PROMPT_METRICS: Final = (
    Metric.PROMPT_AUROC,
    Metric.PROMPT_IOU,
    Metric.PROMPT_BEST_IOU,
    Metric.PROMPT_OVERLAP,
    Metric.ACROSS_AUROC,
    Metric.ACROSS_OVERLAP,
)

PURE: Final = 0.75
PROMPTS: Final = 5
BINS: Final = 20
NO_CLASS: Final = -1
_THRESHOLDS: Final = 200

# Columns of a row of sums: pairs of class and image, then sums over them; of the own image, then
# across images.
_PAIRS, _AUROC, _IOU, _BEST, _HISTOGRAMS = 0, 1, 2, 3, 4
_ACROSS: Final = _HISTOGRAMS + 2 * BINS
WIDTH: Final = _ACROSS + 2 + 2 * BINS


def classes_of_patches(masks: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """Return the class that each patch belongs to, int64 (N, P); `NO_CLASS` for none.

    Args:
        masks: Class indices, (N, H, W), `VOID` where nothing is known.
        grid: Rows and columns of patches.
        classes: K.
    """
    shares, known = class_shares(masks, grid, classes)
    most, which = shares.max(dim=2)
    return torch.where((most >= PURE) & (known >= LABELLED), which, NO_CLASS)


def prompts_of(owner: Tensor, name: str, label: int) -> Tensor:
    """Return which patches of an image are prompts of a class: int64, ascending.

    Args:
        owner: Class of each patch, (P,).
        name: Of the image: it says where the spreading starts.
        label: The class.
    """
    return picked(f"{name} {label}", (owner == label).float(), PROMPTS)


@dataclass(frozen=True)
class Contrast:
    """Similarities to the prompts of one class of one image, each row ascending.

    Args:
        same: With patches of the class, (Q, S).
        other: With patches of other classes, (Q, O).
    """

    same: Tensor
    other: Tensor

    @classmethod
    def within(cls, tokens: Tensor, owner: Tensor, prompts: Tensor, label: int) -> Contrast | None:
        """Compare prompts with the patches of their image; None if there is nothing to compare.

        Args:
            tokens: Of unit length, (P, D).
            owner: Class of each patch, (P,).
            prompts: Which patches they are, (Q,).
            label: Their class.
        """
        cosine = tokens[prompts] @ tokens.T
        (members,) = torch.nonzero(owner == label, as_tuple=True)
        others = (owner != label) & (owner != NO_CLASS)
        if len(members) < 2 or not others.any():
            return None
        apart = members[None, :] != prompts[:, None]
        same = cosine[:, members][apart].view(len(prompts), -1)
        return cls(same.sort(dim=1).values, cosine[:, others].sort(dim=1).values)

    @classmethod
    def across(cls, prompts: Tensor, tokens: Tensor, owner: Tensor, label: int) -> Contrast | None:
        """Compare prompts with patches of other images; None if there is nothing to compare.

        Args:
            prompts: Their tokens, of unit length, (Q, D).
            tokens: Of the other images, of unit length, (P, D).
            owner: Class of each of their patches, (P,).
            label: Class of the prompts.
        """
        members = owner == label
        others = ~members & (owner != NO_CLASS)
        if not len(prompts) or not members.any() or not others.any():
            return None
        same, other = prompts @ tokens[members].T, prompts @ tokens[others].T
        return cls(same.sort(dim=1).values, other.sort(dim=1).values)

    def auroc(self) -> float:
        """Return the mean over prompts of P(same > other), equal ones by half."""
        below = torch.searchsorted(self.other, self.same)
        upto = torch.searchsorted(self.other, self.same, right=True)
        return float((below + upto).double().mean() / (2 * self.other.shape[1]))

    def iou(self, thresholds: Tensor) -> Tensor:
        """Return the mean over prompts of the intersection over union, float64 (T,).

        Args:
            thresholds: Patches at or above one are taken for the class, (T,).
        """
        at = thresholds.to(self.same).expand(len(self.same), -1).contiguous()
        hits = self.same.shape[1] - torch.searchsorted(self.same, at)
        wrong = self.other.shape[1] - torch.searchsorted(self.other, at)
        return (hits.double() / (self.same.shape[1] + wrong)).mean(dim=0)

    def best_iou(self) -> float:
        """Return the mean over prompts of what the best threshold of each reaches."""
        hits = self.same.shape[1] - torch.searchsorted(self.same, self.same)
        wrong = self.other.shape[1] - torch.searchsorted(self.other, self.same)
        return float((hits.double() / (self.same.shape[1] + wrong)).amax(dim=1).mean())

    def histograms(self, edges: Tensor) -> Tensor:
        """Return the shares of both sides in bins, float64 (2, B).

        Args:
            edges: Between the bins, (B - 1,).
        """
        counts = [
            torch.bincount(torch.bucketize(side.flatten(), edges.to(side)), minlength=BINS)
            for side in (self.same, self.other)
        ]
        return torch.stack([count.double() / count.sum() for count in counts])


# -------------------------------------------------------------------- chosen on validation


@dataclass(frozen=True)
class Calibration:
    """What is chosen on the validation split.

    Args:
        threshold: Of similarity, for all images.
        validation: Each threshold tried with its score; the first one takes every patch.
        within: Edges of the bins of similarities in one image, (B - 1,).
        across: The same across images.
    """

    threshold: float
    validation: tuple[tuple[float, float], ...]
    within: Tensor
    across: Tensor

    @property
    def takes_all(self) -> bool:
        """Whether no threshold on val is better than to take every patch for the class."""
        return self.threshold == self.validation[0][0]


def calibrate(
    within: Sequence[tuple[int, Contrast]], across: Sequence[tuple[int, Contrast]], classes: int
) -> Calibration:
    """Choose the threshold by the intersection over union, and bins of equal mass.

    Args:
        within: Class and similarities of the pairs of class and image, at least one.
        across: The same across images; without any, bins are those of one image.
        classes: K.
    """
    least = torch.stack([torch.minimum(one.same.min(), one.other.min()) for _, one in within]).min()
    tried = torch.cat([least[None], quantiles([one for _, one in within], _THRESHOLDS)])
    total = torch.zeros(classes, len(tried), dtype=torch.float64)
    count = torch.zeros(classes, 1, dtype=torch.float64)
    for label, one in within:
        total[label] += one.iou(tried)
        count[label] += 1
    there = count[:, 0] > 0
    scores = (total[there] / count[there]).mean(dim=0)
    best = int(scores.argmax())
    own = quantiles([one for _, one in within], BINS)
    return Calibration(
        float(tried[best]),
        tuple(zip(tried.tolist(), scores.tolist(), strict=True)),
        own,
        quantiles([one for _, one in across], BINS) if across else own,
    )


def quantiles(contrasts: Sequence[Contrast], count: int) -> Tensor:
    """Return what divides similarities into parts of equal mass, ascending, (count - 1,).

    Both sides of every pair weigh the same, however many patches they have: else the bins would
    follow the many dissimilar patches.

    Args:
        contrasts: At least one.
        count: Number of parts.
    """
    sides = [side.flatten() for one in contrasts for side in (one.same, one.other)]
    values, order = torch.cat(sides).sort()
    mass = torch.cat([side.new_full((len(side),), 1 / len(side)).double() for side in sides])
    share = mass[order].cumsum(dim=0) / len(sides)
    wanted = torch.arange(1, count, dtype=torch.float64) / count
    place = torch.searchsorted(share, wanted).clamp_max(len(values) - 1)
    return values[place]


# --------------------------------------------------------------------------------- scoring


def add_within(row: Tensor, label: int, one: Contrast, chosen: Calibration) -> None:
    """Add a pair of class and image to the sums of its unit.

    Args:
        row: float64 (K, W), changed in place.
        label: The class.
        one: Similarities in the image.
        chosen: On val.
    """
    row[label, _PAIRS] += 1
    row[label, _AUROC] += one.auroc()
    row[label, _IOU] += float(one.iou(torch.tensor([chosen.threshold], dtype=torch.float64)))
    row[label, _BEST] += one.best_iou()
    row[label, _HISTOGRAMS:_ACROSS] += one.histograms(chosen.within).flatten()


def add_across(row: Tensor, label: int, one: Contrast, chosen: Calibration) -> None:
    """The same of similarities across images."""
    row[label, _ACROSS] += 1
    row[label, _ACROSS + 1] += one.auroc()
    row[label, _ACROSS + 2 :] += one.histograms(chosen.across).flatten()


_MEANS: Final = {
    Metric.PROMPT_AUROC: (_PAIRS, _AUROC),
    Metric.PROMPT_IOU: (_PAIRS, _IOU),
    Metric.PROMPT_BEST_IOU: (_PAIRS, _BEST),
    Metric.ACROSS_AUROC: (_ACROSS, _ACROSS + 1),
}
_OVERLAPS: Final = {
    Metric.PROMPT_OVERLAP: (_PAIRS, _HISTOGRAMS),
    Metric.ACROSS_OVERLAP: (_ACROSS, _ACROSS + 2),
}


def resampled_prompt_classes(sums: Tensor, metric: Metric) -> Resampled:
    """Return a mean of each class as a function of counts: (R, M) -> (R, K); NaN without a pair.

    Args:
        sums: (M, K, W).
        metric: One of `PROMPT_METRICS` that is a mean over pairs, no overlap.
    """
    pairs, column = _MEANS[metric]

    def value(counts: Tensor) -> Tensor:
        there, total = (_drawn(sums, counts, slice(c, c + 1))[..., 0] for c in (pairs, column))
        return torch.where(there > 0, total / there, torch.nan)

    return value


def resampled_prompt(sums: Tensor, metric: Metric) -> Resampled:
    """Return a score as a function of counts: (R, M) -> (R,).

    Args:
        sums: (M, K, W).
        metric: One of `PROMPT_METRICS`.
    """
    if metric in _MEANS:
        classes = resampled_prompt_classes(sums, metric)
        return lambda counts: classes(counts).nanmean(dim=1)
    pairs, first = _OVERLAPS[metric]

    def overlap(counts: Tensor) -> Tensor:
        there = _drawn(sums, counts, slice(pairs, pairs + 1))
        both = _drawn(sums, counts, slice(first, first + 2 * BINS))
        shares = torch.where(there > 0, both / there, torch.nan).nanmean(dim=1)
        return shares.view(len(counts), 2, BINS).amin(dim=1).sum(dim=1)

    return overlap


def _drawn(sums: Tensor, counts: Tensor, columns: slice) -> Tensor:
    """Return the sums over the units drawn of some columns, float64 (R, K, ...)."""
    part = sums[:, :, columns].double()
    return (counts @ part.flatten(1)).view(len(counts), *part.shape[1:])


def prompt_metrics(sums: Tensor, wanted: Sequence[Metric]) -> dict[Metric, Resampled]:
    """Return metrics as functions of counts; those are left out of which there is no pair.

    Args:
        sums: (M, K, W).
        wanted: Of `PROMPT_METRICS`.
    """
    pairs = {metric: columns[0] for metric, columns in (_MEANS | _OVERLAPS).items()}
    there = {column: bool((sums[:, :, column] > 0).any()) for column in (_PAIRS, _ACROSS)}
    return {metric: resampled_prompt(sums, metric) for metric in wanted if there[pairs[metric]]}


def mean_auroc(sums: Tensor) -> Tensor:
    """Return the AUROC of each class in each unit, (M, K); 0 where there is no pair."""
    return sums[:, :, _AUROC] / sums[:, :, _PAIRS].clamp_min(1)
