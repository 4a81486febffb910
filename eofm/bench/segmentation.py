"""Segmentation: a linear layer from patch tokens to classes, and its scores of every pixel.

Fitting: the label of a patch is the share each class has of its labelled pixels, and the loss the
cross entropy against these shares. That is exactly the mean cross entropy of its pixels when they
all take the patch's logits, so nothing is lost by fitting patches instead of 196 times as many
pixels. Patches of which less than half is labelled are left out. The fit is converged L-BFGS over
a grid of strengths (`eofm.probes.logistic`), like the linear probe of whole images; no learning
rate or number of epochs is part of the score.

Scoring: logits are brought bilinearly to the mask's grid (half-pixel centres), and the largest
wins. The strength is chosen by the mean IoU of all labelled pixels of the validation split. Every
test image leaves a confusion matrix; they are summed before anything is divided. The mean of
per-image or per-batch scores is another number: an image without a class has no intersection over
union of it. Intervals resample images (or what belongs together: the windows of one scene), since
the pixels of one image are not independent of one another.

Training patches are a sample, spread evenly over images and places and the same for every model
with the same grid of patches: a hundred patches per weight are more than the fit can use.

Shapes: B images, N patches or images, G groups, P patches of an image, D features, K classes, F of
them fitted, R resamples, H by W pixels.
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
from eofm.probes.linear import C11, ProbeResult, Scaling, check_features, scale
from eofm.probes.logistic import Eigenbasis, LogisticProblem, Loss, Solution
from eofm.probes.metrics import Metric
from eofm.probes.spectrum import Spectrum, spectrum_of

# Key of the probe in records.
SEGMENTATION: Final = "dense-linear"


def confusions(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return how many pixels of each true class were called what: int64 (N, K, K).

    Args:
        predicted: Class indices, (N, H, W).
        target: Class indices, (N, H, W); `VOID` pixels count nowhere.
        classes: K.

    Raises:
        LabelError: If the shapes differ, or a class is out of range.
    """
    if predicted.shape != target.shape:
        raise LabelError(
            "a segmentation has not the size of its mask",
            found=tuple(predicted.shape),
            expected=tuple(target.shape),
        )
    true, said = target.long(), predicted.long()
    known, cells = true != VOID, classes**2
    strange = (true < VOID) | (true >= classes) | (said < 0) | (said >= classes)
    if bool((strange & known).any()):
        raise LabelError("a class is out of range", expected=f"0..{classes - 1}")
    image = torch.arange(len(target)).view(-1, 1, 1)
    # void pixels go to a bin behind all others: cheaper than to pick the rest out
    index = torch.where(known, (image * classes + true) * classes + said, len(target) * cells)
    count = torch.bincount(index.flatten(), minlength=len(target) * cells + 1)
    return count[:-1].view(-1, classes, classes)


def grouped(matrices: Tensor, groups: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Sum the matrices of each group: int64 (G, K, K), and the groups in order.

    Args:
        matrices: (N, K, K).
        groups: Of each image, N.
    """
    names = tuple(dict.fromkeys(groups))
    place = {name: index for index, name in enumerate(names)}
    out = matrices.new_zeros(len(names), *matrices.shape[1:])
    return out.index_add(0, torch.tensor([place[g] for g in groups]), matrices), names


def class_iou(matrices: Tensor) -> Tensor:
    """Return the intersection over union of each class, float64 (..., K).

    NaN for a class that occurs in no target, whether or not it was predicted: it stays out of the
    mean.

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
    """Return a score as a function of how often each group was drawn.

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
    """Return the sum over the groups drawn, (R, K, K)."""
    k = matrices.shape[-1]
    return (counts @ matrices.flatten(1).double()).view(-1, k, k)


# --------------------------------------------------------------------- training patches

LABELLED: Final = 0.5
_GRID_TOLERANCE: Final = 1e-5
_FINAL_TOLERANCE: Final = 1e-8
_FINAL_STEPS: Final = 4000
_WIDE: Final = 32  # bands of a pixel are few by nature
# Fibonacci hashing: multiples of it modulo 2^32 spread evenly whatever their number.
_SPREAD: Final = 2_654_435_769
# Cells of logits held at once while pixels are scored: about 130 MB.
_CELLS: Final = 32_000_000

# Yields the tokens (B, P, D) of consecutive images of a split with their masks (B, H, W).
Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def class_shares(masks: Tensor, grid: tuple[int, int], classes: int) -> tuple[Tensor, Tensor]:
    """Return each class's share of a patch's labelled pixels, and how much of it is labelled.

    Where patches do not end between pixels, a pixel counts for every patch that it touches.

    Args:
        masks: Class indices, (B, H, W), `VOID` where nothing is known.
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
    """Return which patches of an image are fitted on: at most `count`, spread over the image.

    Args:
        name: Of the image; it says where the spreading starts.
        known: Labelled part of each patch, (P,).
        count: How many.

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
        classes: int64, (F,): the classes it can say.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor


@dataclass(frozen=True)
class PatchFit:
    """A chosen head.

    Args:
        head: It.
        probe: Id with all choices.
        strength: C.
        on_edge: The chosen C is the end of the grid, also after extending it.
        gradient_norm: Of the final fit.
        validation: Each C tried with its mean IoU on the validation split.
        spectrum: Of the training patches.
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
        """Whether features are so few that their effective rank says nothing."""
        return self.head.weight.shape[0] < _WIDE

    def outcome(self, matrices: Tensor) -> ProbeResult:
        """Return what the head says of the test images, as pixels of each class.

        Args:
            matrices: (G, K, K), of its confusion.
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
        tokens: Of the training patches, (N, D).
        shares: Of the classes in each of them, (N, K); rows sum to 1.
        val: Opens tokens and masks of the validation split.
        grid: Rows and columns of patches.
        standard: Standardise tokens first, by mean and deviation of the training patches.

    Raises:
        LabelError: If the patches hold fewer than two classes.
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
        return max(sorted(tried), key=lambda c: tried[c][1])  # max keeps the first of equals

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
                remedy="take more images or more --patches",
            )
        # scaling is affine: two images of it tell the constants
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
        like: Of the size wanted, (B, H, W).
    """
    logits = (tokens @ head.weight + head.bias).movedim(2, 1)
    logits = logits.reshape(len(tokens), -1, *grid)
    size = (like.shape[1], like.shape[2])
    if grid != size:
        logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
    return head.classes[logits.argmax(dim=1)]
