"""Segmentation: a linear layer from patch tokens to classes, prompt patches, and their scores.

Fitting: the label of a patch is the share of each class in its labelled pixels, and the loss is the
cross entropy against these shares. This equals the mean cross entropy of its pixels if all of them
have the logits of the patch, so nothing is lost by fitting patches instead of 196 times as many
pixels. Patches of which less than half is labelled are excluded. The fit is converged L-BFGS over
a grid of strengths (`eofm.probes.logistic`), as for the linear probe of whole images; the score
does not depend on a learning rate or number of epochs.

Scoring: logits are interpolated bilinearly to the mask's grid (half-pixel centres), followed by
argmax. The strength is chosen by the mean IoU of all labelled pixels of the validation split. Every
test image yields a confusion matrix; they are summed before any division. The mean of per-image or
per-batch scores is a different number: the IoU of a class is undefined in an image without it.
Intervals resample images (or larger units, such as all windows of one scene), since the pixels of
one image are not independent.

Training patches are a sample, spread evenly over images and places and the same for every model
with the same grid of patches: a hundred patches per weight are more than the fit can use.

Zero-shot segmentation by a prompt patch measures how well the cosine to one patch of a class
identifies the class. The idea is that of MMC (arXiv 2308.11448, sections on the prompting patch and
on intra- and inter-object similarity): a user points at one patch, and every similar patch is taken
for the same object. Nothing is fitted. Details are ours, because the paper's objects are here the
classes of a land-cover mask:

* A patch belongs to a class if at least half of it is labelled and three quarters of that are the
  class; mixed patches are not counted.
* At most five patches per class and image are prompts, spread over the image. The other patches of
  the class are positives, patches of other classes negatives; the prompt itself is neither.
* A prompt is compared with the patches of its own image and, separately, with those of up to eight
  images of other groups, where season, sun and place differ too.

Per prompt: AUROC (probability that a patch of the class is more similar than one of another class),
IoU at one threshold for all images, chosen on val, and IoU at the best threshold of each prompt (an
oracle). Overall: the overlap Σ min(h_same, h_other) of the two histograms of similarities, in bins
of equal mass on val: 1 if they are indistinguishable, as for random features, 0 if they are
disjoint. Histograms of few patches are noisy and overlap less than the distributions they are drawn
from; so those of all classes are averaged before the overlap is computed, and a score of few images
is still too small.

Scores and histograms are averaged over the prompts of a class in an image, then over images, then
over classes: a class of three large lakes counts as much as one of many fields. Each image yields a
row of sums, so that groups of images can be resampled.

Shapes: B images (of histograms: bins), N patches or images, G groups or M units of test images, P
patches of an image, D features, K classes, F of them fitted, Q prompts, S patches of the class, O
patches of other classes, T thresholds, R resamples, W columns, H by W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from eofm.datasets.images.dense import VOID
from eofm.errors import LabelError
from eofm.probes.bootstrap import Resampled
from eofm.probes.features import (
    ProbeResult,
    Scaling,
    Spectrum,
    check_features,
    scale,
    spectrum_of,
)
from eofm.probes.linear import C11
from eofm.probes.logistic import Eigenbasis, LogisticProblem, Loss, Solution
from eofm.probes.metrics import Metric

__all__ = [
    "BINS",
    "LABELLED",
    "NO_CLASS",
    "PROMPT",
    "PROMPTS",
    "PROMPT_METRICS",
    "PURE",
    "SEGMENTATION",
    "WIDTH",
    "Batches",
    "Calibration",
    "Contrast",
    "PatchFit",
    "PatchHead",
    "add_across",
    "add_within",
    "calibrate",
    "class_iou",
    "class_shares",
    "classes_of_patches",
    "confusions",
    "evaluate",
    "fit_head",
    "grouped",
    "mean_auroc",
    "mean_iou",
    "picked",
    "pixel_accuracy",
    "prompt_metrics",
    "prompts_of",
    "quantiles",
    "resampled_iou",
    "resampled_prompt",
    "resampled_prompt_classes",
    "resampled_segmentation",
    "segment",
]

# Key of the probe in records.
SEGMENTATION: Final = "dense-linear"


def confusions(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return the confusion matrices of images: int64 (N, K, K), true classes in rows.

    Args:
        predicted: Class indices, (N, H, W).
        target: Class indices, (N, H, W); `VOID` pixels are ignored.
        classes: K.

    Raises:
        LabelError: If the shapes differ, or a class is out of range.
    """
    if predicted.shape != target.shape:
        raise LabelError(
            "a segmentation differs in size from its mask",
            found=tuple(predicted.shape),
            expected=tuple(target.shape),
        )
    true, said = target.long(), predicted.long()
    known, cells = true != VOID, classes**2
    strange = (true < VOID) | (true >= classes) | (said < 0) | (said >= classes)
    if bool((strange & known).any()):
        raise LabelError("a class is out of range", expected=f"0..{classes - 1}")
    image = torch.arange(len(target)).view(-1, 1, 1)
    # void pixels go to an extra bin: cheaper than selecting the others
    index = torch.where(known, (image * classes + true) * classes + said, len(target) * cells)
    count = torch.bincount(index.flatten(), minlength=len(target) * cells + 1)
    return count[:-1].view(-1, classes, classes)


def grouped(matrices: Tensor, groups: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Sum the matrices of each group: int64 (G, K, K), and the groups in order.

    Args:
        matrices: (N, K, K).
        groups: Group of each image, N.
    """
    names = tuple(dict.fromkeys(groups))
    place = {name: index for index, name in enumerate(names)}
    out = matrices.new_zeros(len(names), *matrices.shape[1:])
    return out.index_add(0, torch.tensor([place[g] for g in groups]), matrices), names


def class_iou(matrices: Tensor) -> Tensor:
    """Return the intersection over union of each class, float64 (..., K).

    NaN for a class that occurs in no target, whether or not it was predicted; it is excluded from
    the mean.

    Args:
        matrices: (..., K, K), true classes in rows.
    """
    counts = matrices.double()
    right = counts.diagonal(dim1=-2, dim2=-1)
    true, said = counts.sum(dim=-1), counts.sum(dim=-2)
    return torch.where(true > 0, right / (true + said - right), torch.nan)


def mean_iou(matrices: Tensor) -> Tensor:
    """Return the mean over the classes that occur in the targets, float64 (...)."""
    return class_iou(matrices).nanmean(dim=-1)


def pixel_accuracy(matrices: Tensor) -> Tensor:
    """Return the share of labelled pixels whose class is right, float64 (...)."""
    counts = matrices.double()
    return counts.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / counts.sum(dim=(-2, -1))


def resampled_segmentation(matrices: Tensor, metric: Metric) -> Resampled:
    """Return a score as a function of the number of draws of each group.

    Args:
        matrices: (G, K, K).
        metric: `Metric.MIOU` or `Metric.PIXEL_OA`.

    Raises:
        LabelError: If no pixel is labelled.
    """
    _check(matrices)
    score = mean_iou if metric is Metric.MIOU else pixel_accuracy
    return lambda counts: score(_drawn(matrices, counts))


def resampled_iou(matrices: Tensor) -> Resampled:
    """Return each class's intersection over union as a function of counts: (R, G) -> (R, K).

    Raises:
        LabelError: If no pixel is labelled.
    """
    _check(matrices)
    return lambda counts: class_iou(_drawn(matrices, counts))


def _check(matrices: Tensor) -> None:
    if int(matrices.sum()) == 0:
        raise LabelError("no pixel of the test images is labelled")


def _drawn(matrices: Tensor, counts: Tensor) -> Tensor:
    """Return the sum over the drawn groups, (R, K, K)."""
    k = matrices.shape[-1]
    return (counts @ matrices.flatten(1).double()).view(-1, k, k)


# --------------------------------------------------------------------- training patches

LABELLED: Final = 0.5
_GRID_TOLERANCE: Final = 1e-5
_FINAL_TOLERANCE: Final = 1e-8
_FINAL_STEPS: Final = 4000
_WIDE: Final = 32  # the bands of a pixel are always few
# Fibonacci hashing: multiples of it modulo 2^32 spread evenly whatever their number.
_SPREAD: Final = 2_654_435_769
# Logits held at once while pixels are scored: about 130 MB.
_CELLS: Final = 32_000_000

# Yields the tokens (B, P, D) of consecutive images of a split with their masks (B, H, W).
Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def class_shares(masks: Tensor, grid: tuple[int, int], classes: int) -> tuple[Tensor, Tensor]:
    """Return the class shares of a patch's labelled pixels, and its labelled share.

    If patches do not end between pixels, a pixel counts for every patch that it touches.

    Args:
        masks: Class indices, (B, H, W), `VOID` where unlabelled.
        grid: Rows and columns of patches.
        classes: K.

    Returns:
        Shares float32 (B, P, K), zero where nothing is labelled; labelled part float32 (B, P).
    """
    planes = torch.stack([masks == k for k in range(classes)], dim=1).float()
    if grid != tuple(masks.shape[1:]):
        planes = nn.functional.adaptive_avg_pool2d(planes, grid)
    areas = planes.flatten(2).movedim(1, 2)
    known = areas.sum(dim=2)
    return areas / known.clamp_min(1e-12)[..., None], known


def picked(name: str, known: Tensor, count: int) -> Tensor:
    """Return the patches of an image to fit on: at most `count`, spread over the image.

    Args:
        name: Name of the image, which determines the start of the spread.
        known: Labelled share of each patch, (P,).
        count: Maximum number.

    Returns:
        int64, ascending.
    """
    (usable,) = torch.nonzero(known >= LABELLED, as_tuple=True)
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    order = (usable * _SPREAD + start) % 2**32
    return usable[order.argsort(stable=True)[:count]].sort().values


# ------------------------------------------------------------------------------ fitting


@dataclass(frozen=True)
class PatchHead:
    """A linear layer on unscaled tokens.

    Args:
        weight: float32, (D, F).
        bias: float32, (F,).
        classes: int64, (F,): the classes it can predict.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor


@dataclass(frozen=True)
class PatchFit:
    """A chosen head.

    Args:
        head: The head.
        probe: Id with all choices.
        strength: C.
        on_edge: The chosen C is the end of the grid, also after extending it.
        gradient_norm: Gradient norm of the final fit.
        validation: Each C tried with its mean IoU on the validation split.
        spectrum: Spectrum of the training patches.
    """

    head: PatchHead
    probe: str
    strength: float
    on_edge: bool
    gradient_norm: float
    validation: tuple[tuple[float, float], ...]
    spectrum: Spectrum

    @property
    def narrow(self) -> bool:
        """Whether there are too few features for a meaningful effective rank."""
        return self.head.weight.shape[0] < _WIDE

    def outcome(self, matrices: Tensor) -> ProbeResult:
        """Return the result of the head on the test images, as pixels of each class.

        Args:
            matrices: (G, K, K), its confusion matrices.
        """
        return ProbeResult(
            probe=self.probe,
            scores=matrices.sum(dim=1).double(),
            probability=None,
            strength=self.strength,
            on_edge=self.on_edge,
            gradient_norm=self.gradient_norm,
            validation=self.validation,
        )


def fit_head(
    tokens: Tensor,
    shares: Tensor,
    val: Batches,
    grid: tuple[int, int],
    *,
    standard: bool,
) -> PatchFit:
    """Fit a linear layer for a grid of strengths, and choose one by the validation split.

    Args:
        tokens: Tokens of the training patches, (N, D).
        shares: Shares of the classes in each, (N, K); rows sum to 1.
        val: Opens tokens and masks of the validation split.
        grid: Rows and columns of patches.
        standard: Whether to standardise tokens by mean and deviation of the training patches.

    Raises:
        LabelError: If the patches contain fewer than two classes.
        PixelError: If a token is not finite, or all zero.
    """
    check_features(tokens)
    scaling = Scaling.STANDARD if standard else Scaling.NONE
    problem = _PatchProblem.of(tokens, shares, scaling)
    tried: dict[float, tuple[Solution, float]] = {}

    def attempt(strengths: Sequence[float], start: Tensor | None) -> None:
        solutions: list[Solution] = []
        for strength in strengths:
            solutions.append(problem.fit(strength, start, _GRID_TOLERANCE))
            start = solutions[-1].theta
        heads = [problem.head(solution) for solution in solutions]
        matrices = evaluate(heads, val, grid, shares.shape[1])
        scores = [float(mean_iou(one.sum(dim=0))) for one in matrices]
        tried.update(dict(zip(strengths, zip(solutions, scores, strict=True), strict=True)))

    def best() -> float:
        return max(sorted(tried), key=lambda c: tried[c][1])  # max keeps the first of ties

    attempt(C11.values, None)
    at_end = best() in (C11.values[0], C11.values[-1])
    if at_end:
        attempt(C11.extended(upwards=best() == C11.values[-1]), tried[best()][0].theta)
    strength = best()
    final = problem.fit(strength, tried[strength][0].theta, _FINAL_TOLERANCE, _FINAL_STEPS)
    return PatchFit(
        head=problem.head(final),
        probe=f"dense-linear[lbfgs,{C11.name},val,norefit,{scaling},{len(tokens)} patches]",
        strength=strength,
        on_edge=at_end and strength in (min(tried), max(tried)),
        gradient_norm=final.gradient_norm,
        validation=tuple((c, tried[c][1]) for c in sorted(tried)),
        spectrum=spectrum_of(problem.scaled),
    )


@dataclass(frozen=True)
class _PatchProblem(LogisticProblem):
    """The training patches in their eigenbasis, with the classes that occur among them."""

    scaled: Tensor  # (N, D)
    classes: Tensor  # (F,)
    shift: Tensor  # (D,): scaled = tokens * factor + shift
    factor: Tensor  # (D,)

    @classmethod
    def of(cls, tokens: Tensor, shares: Tensor, scaling: Scaling) -> _PatchProblem:
        """Return the problem of patch tokens (N, D) and the shares of their classes (N, K).

        Raises:
            LabelError: If fewer than two classes occur.
        """
        (there,) = torch.nonzero(shares.sum(dim=0) > 0, as_tuple=True)
        if len(there) < 2:
            raise LabelError(
                "the training patches hold fewer than two classes",
                found=f"{len(there)} of {shares.shape[1]}, in {len(tokens)} patches",
                remedy="use more images or more --patches",
            )
        # scaling is affine: two evaluations give the constants
        ends = tokens.new_zeros(2, tokens.shape[1])
        ends[1] = 1
        scaled, marks = scale(tokens, scaling, ends)
        shift, factor = marks[0], marks[1] - marks[0]
        targets = shares[:, there].double()
        basis = Eigenbasis.of(scaled)
        return cls(basis, targets, Loss.SOFTMAX, scaled, there, shift, factor)

    def head(self, solution: Solution) -> PatchHead:
        """Return the solution as a layer on unscaled tokens."""
        weight = solution.weight * self.factor[:, None]
        bias = solution.bias + self.shift @ solution.weight
        return PatchHead(weight.float(), bias.float(), self.classes)


# ------------------------------------------------------------------------------ scoring


def evaluate(
    heads: Sequence[PatchHead], batches: Batches, grid: tuple[int, int], classes: int
) -> list[Tensor]:
    """Return the confusion matrices of every head on the images of a split, in one pass.

    Args:
        heads: Linear layers.
        batches: Opens tokens and masks.
        grid: Rows and columns of patches.
        classes: K.

    Returns:
        One int64 (N, K, K) per head.
    """
    found: list[list[Tensor]] = [[] for _ in heads]
    for tokens, masks in batches():
        cells = len(heads[0].classes) * masks[0].numel()
        step = max(1, _CELLS // cells)
        for start in range(0, len(tokens), step):
            part, truth = tokens[start : start + step], masks[start : start + step]
            for head, matrices in zip(heads, found, strict=True):
                matrices.append(confusions(segment(head, part, grid, truth), truth, classes))
    return [torch.cat(matrices) for matrices in found]


def segment(head: PatchHead, tokens: Tensor, grid: tuple[int, int], like: Tensor) -> Tensor:
    """Return the class of every pixel: int64 (B, H, W).

    Args:
        head: A linear layer.
        tokens: (B, P, D).
        grid: Rows and columns of patches.
        like: Tensor of the output size, (B, H, W).
    """
    logits = (tokens @ head.weight + head.bias).movedim(2, 1)
    logits = logits.reshape(len(tokens), -1, *grid)
    size = (like.shape[1], like.shape[2])
    if grid != size:
        logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
    return head.classes[logits.argmax(dim=1)]


# ----------------------------------------------------------------------------------- prompt patches

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

# Columns of a row of sums: number of pairs of class and image, then sums over them; within the
# image, then across images.
_PAIRS, _AUROC, _IOU, _BEST, _HISTOGRAMS = 0, 1, 2, 3, 4
_ACROSS: Final = _HISTOGRAMS + 2 * BINS
WIDTH: Final = _ACROSS + 2 + 2 * BINS


def classes_of_patches(masks: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """Return the class that each patch belongs to, int64 (N, P); `NO_CLASS` for none.

    Args:
        masks: Class indices, (N, H, W), `VOID` where unlabelled.
        grid: Rows and columns of patches.
        classes: K.
    """
    shares, known = class_shares(masks, grid, classes)
    most, which = shares.max(dim=2)
    return torch.where((most >= PURE) & (known >= LABELLED), which, NO_CLASS)


def prompts_of(owner: Tensor, name: str, label: int) -> Tensor:
    """Return the patches of an image that are prompts of a class: int64, ascending.

    Args:
        owner: Class of each patch, (P,).
        name: Name of the image, which determines the start of the spread.
        label: The class.
    """
    return picked(f"{name} {label}", (owner == label).float(), PROMPTS)


@dataclass(frozen=True)
class Contrast:
    """Similarities to the prompts of one class of one image, each row ascending.

    Args:
        same: Similarities to patches of the class, (Q, S).
        other: Similarities to patches of other classes, (Q, O).
    """

    same: Tensor
    other: Tensor

    @classmethod
    def within(cls, tokens: Tensor, owner: Tensor, prompts: Tensor, label: int) -> Contrast | None:
        """Compare prompts with the patches of their image; None without positives or negatives.

        Args:
            tokens: Tokens of unit length, (P, D).
            owner: Class of each patch, (P,).
            prompts: Indices of the prompts, (Q,).
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
        """Compare prompts with patches of other images; None without positives or negatives.

        Args:
            prompts: Their tokens, of unit length, (Q, D).
            tokens: Tokens of the other images, of unit length, (P, D).
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
        """Return the mean over prompts of P(same > other), counting ties as one half."""
        below = torch.searchsorted(self.other, self.same)
        upto = torch.searchsorted(self.other, self.same, right=True)
        return float((below + upto).double().mean() / (2 * self.other.shape[1]))

    def iou(self, thresholds: Tensor) -> Tensor:
        """Return the mean over prompts of the intersection over union, float64 (T,).

        Args:
            thresholds: Patches at or above a threshold are assigned to the class, (T,).
        """
        at = thresholds.to(self.same).expand(len(self.same), -1).contiguous()
        hits = self.same.shape[1] - torch.searchsorted(self.same, at)
        wrong = self.other.shape[1] - torch.searchsorted(self.other, at)
        return (hits.double() / (self.same.shape[1] + wrong)).mean(dim=0)

    def best_iou(self) -> float:
        """Return the mean over prompts of the IoU at the best threshold of each."""
        hits = self.same.shape[1] - torch.searchsorted(self.same, self.same)
        wrong = self.other.shape[1] - torch.searchsorted(self.other, self.same)
        return float((hits.double() / (self.same.shape[1] + wrong)).amax(dim=1).mean())

    def histograms(self, edges: Tensor) -> Tensor:
        """Return the shares of both sides in bins, float64 (2, B).

        Args:
            edges: Edges between the bins, (B - 1,).
        """
        counts = [
            torch.bincount(torch.bucketize(side.flatten(), edges.to(side)), minlength=BINS)
            for side in (self.same, self.other)
        ]
        return torch.stack([count.double() / count.sum() for count in counts])


# -------------------------------------------------------------------- chosen on validation


@dataclass(frozen=True)
class Calibration:
    """Choices made on the validation split.

    Args:
        threshold: Threshold of similarity, for all images.
        validation: Each threshold tried with its score; the first one selects every patch.
        within: Edges of the bins of similarities in one image, (B - 1,).
        across: The same across images.
    """

    threshold: float
    validation: tuple[tuple[float, float], ...]
    within: Tensor
    across: Tensor

    @property
    def takes_all(self) -> bool:
        """Whether no threshold on val beats assigning every patch to the class."""
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
    """Return the quantiles that divide similarities into equal mass, ascending, (count - 1,).

    Both sides of every pair have the same weight, whatever their number of patches; otherwise the
    bins would be dominated by the many dissimilar patches.

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


# -------------------------------------------------------------------------------- scores of prompts


def add_within(row: Tensor, label: int, one: Contrast, chosen: Calibration) -> None:
    """Add a pair of class and image to the sums of its unit.

    Args:
        row: float64 (K, W), changed in place.
        label: The class.
        one: Similarities in the image.
        chosen: Choices made on val.
    """
    row[label, _PAIRS] += 1
    row[label, _AUROC] += one.auroc()
    row[label, _IOU] += float(one.iou(torch.tensor([chosen.threshold], dtype=torch.float64)))
    row[label, _BEST] += one.best_iou()
    row[label, _HISTOGRAMS:_ACROSS] += one.histograms(chosen.within).flatten()


def add_across(row: Tensor, label: int, one: Contrast, chosen: Calibration) -> None:
    """Add similarities across images likewise."""
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
        metric: One of `PROMPT_METRICS` that is a mean over pairs, not an overlap.
    """
    pairs, column = _MEANS[metric]

    def value(counts: Tensor) -> Tensor:
        there, total = (
            _drawn_prompts(sums, counts, slice(c, c + 1))[..., 0] for c in (pairs, column)
        )
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
        there = _drawn_prompts(sums, counts, slice(pairs, pairs + 1))
        both = _drawn_prompts(sums, counts, slice(first, first + 2 * BINS))
        shares = torch.where(there > 0, both / there, torch.nan).nanmean(dim=1)
        return shares.view(len(counts), 2, BINS).amin(dim=1).sum(dim=1)

    return overlap


def _drawn_prompts(sums: Tensor, counts: Tensor, columns: slice) -> Tensor:
    """Return the sums over the units drawn of some columns, float64 (R, K, ...)."""
    part = sums[:, :, columns].double()
    return (counts @ part.flatten(1)).view(len(counts), *part.shape[1:])


def prompt_metrics(sums: Tensor, wanted: Sequence[Metric]) -> dict[Metric, Resampled]:
    """Return metrics as functions of counts, without those for which there is no pair.

    Args:
        sums: (M, K, W).
        wanted: Some of `PROMPT_METRICS`.
    """
    pairs = {metric: columns[0] for metric, columns in (_MEANS | _OVERLAPS).items()}
    there = {column: bool((sums[:, :, column] > 0).any()) for column in (_PAIRS, _ACROSS)}
    return {metric: resampled_prompt(sums, metric) for metric in wanted if there[pairs[metric]]}


def mean_auroc(sums: Tensor) -> Tensor:
    """Return the AUROC of each class in each unit, (M, K); 0 where there is no pair."""
    return sums[:, :, _AUROC] / sums[:, :, _PAIRS].clamp_min(1)
