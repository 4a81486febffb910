"""A linear layer from patch tokens to classes: fitted on shares of classes, scored on pixels.

Fitting: the label of a patch is the share each class has of its labelled pixels, and the loss the
cross entropy against these shares. That is exactly the mean cross entropy of its pixels when they
all take the patch's logits, so nothing is lost by fitting patches instead of 196 times as many
pixels. Patches of which less than half is labelled are left out. The fit is converged L-BFGS over
a grid of strengths (`eofm.probes.logistic`), like the linear probe of whole images; no learning
rate or number of epochs is part of the score.

Scoring: logits are brought bilinearly to the mask's grid (half-pixel centres), and the largest
wins. The strength is chosen by the mean IoU of all labelled pixels of the validation split.

Training patches are a sample, spread evenly over images and places and the same for every model
with the same grid of patches: a hundred patches per weight are more than the fit can use.

Shapes: B images, N patches or images, P patches of an image, D features, K classes, F of them
fitted, H by W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from eofm.bench.dense_metrics import confusions, mean_iou
from eofm.errors import LabelError
from eofm.probes.linear import C11, Scaling, check_features, effective_rank, scale
from eofm.probes.logistic import Eigenbasis, Loss, Solution, fit_logistic

_LABELLED: Final = 0.5
_GRID_TOLERANCE: Final = 1e-5
_FINAL_TOLERANCE: Final = 1e-8
_FINAL_STEPS: Final = 4000
_CONVERGED: Final = 1e-4
_LEAST_RANK: Final = 5.0
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
    (usable,) = torch.nonzero(known >= _LABELLED, as_tuple=True)
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    order = (usable * _SPREAD + start) % 2**32
    return usable[order.argsort(stable=True)[:count]].sort().values


# ------------------------------------------------------------------------------ fitting


@dataclass(frozen=True)
class Head:
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
class Fit:
    """A chosen head.

    Args:
        head: It.
        probe: Id with all choices.
        strength: C.
        on_edge: The chosen C is the end of the grid, also after extending it.
        gradient_norm: Of the final fit.
        validation: Each C tried with its mean IoU on the validation split.
        rank: Effective rank of the training patches.
    """

    head: Head
    probe: str
    strength: float
    on_edge: bool
    gradient_norm: float
    validation: tuple[tuple[float, float], ...]
    rank: float

    def faults(self) -> tuple[str, ...]:
        """Return what is to be said against it."""
        width = self.head.weight.shape[0]
        faults = {
            "C at the edge of the grid": self.on_edge,
            "not converged": self.gradient_norm > _CONVERGED,
            f"effective rank {self.rank:.1f}": self.rank < _LEAST_RANK and width >= _WIDE,
        }
        return tuple(text for text, holds in faults.items() if holds)


def fit_head(
    tokens: Tensor,
    shares: Tensor,
    val: Batches,
    grid: tuple[int, int],
    *,
    standard: bool,
) -> Fit:
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
    problem = _Problem.of(tokens, shares, scaling)
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
    return Fit(
        head=problem.head(final),
        probe=f"dense-linear[lbfgs,{C11.name},val,norefit,{scaling},{len(tokens)} patches]",
        strength=strength,
        on_edge=at_end and strength in (min(tried), max(tried)),
        gradient_norm=final.gradient_norm,
        validation=tuple((c, tried[c][1]) for c in sorted(tried)),
        rank=effective_rank(problem.scaled),
    )


@dataclass(frozen=True)
class _Problem:
    """The training patches in their eigenbasis, with the classes that occur among them."""

    scaled: Tensor  # (N, D)
    basis: Eigenbasis
    targets: Tensor  # (N, F)
    classes: Tensor  # (F,)
    shift: Tensor  # (D,): scaled = tokens * factor + shift
    factor: Tensor  # (D,)

    @classmethod
    def of(cls, tokens: Tensor, shares: Tensor, scaling: Scaling) -> _Problem:
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
        return cls(scaled, Eigenbasis.of(scaled), shares[:, there].double(), there, shift, factor)

    def fit(
        self, strength: float, start: Tensor | None, tolerance: float, steps: int = 2000
    ) -> Solution:
        return fit_logistic(
            self.basis,
            self.targets,
            Loss.SOFTMAX,
            strength,
            start=start,
            tolerance=tolerance,
            steps=steps,
        )

    def head(self, solution: Solution) -> Head:
        weight = solution.weight * self.factor[:, None]
        bias = solution.bias + self.shift @ solution.weight
        return Head(weight.float(), bias.float(), self.classes)


# ------------------------------------------------------------------------------ scoring


def evaluate(
    heads: Sequence[Head], batches: Batches, grid: tuple[int, int], classes: int
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


def segment(head: Head, tokens: Tensor, grid: tuple[int, int], like: Tensor) -> Tensor:
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
