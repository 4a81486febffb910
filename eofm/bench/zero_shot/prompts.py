"""The prompt probe of a segmentation: patch tokens in, sums per test image out, nothing fitted.

Tokens come from the feature cache, as those of the linear layer do; what is counted of them is said
in `eofm.bench.zero_shot.prompt_scores`. The threshold and the bins are chosen on val, test is
looked at once. Band statistics are standardised by val first: in physical units one bright band
would be all of a cosine. Tokens of networks are taken as they are.

Shapes: M units of test images, N images, P patches of an image, D features, K classes, W columns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from eofm.bench import segmentation
from eofm.bench.models.controls import PixelValues
from eofm.bench.models.patch_statistics import PatchStatistics
from eofm.bench.models.sources import Candidate, taken_by
from eofm.bench.patches import Grid, Segmenter, grid_of, without_dead
from eofm.bench.predictions import Archive, request_sha256
from eofm.bench.probes import Scored
from eofm.bench.samples import unit_of, units_of
from eofm.bench.zero_shot import prompt_scores
from eofm.bench.zero_shot.prompt_scores import (
    NO_CLASS,
    PROMPT,
    PROMPT_METRICS,
    PROMPTS,
    PURE,
    WIDTH,
    Calibration,
    Contrast,
    add_across,
    add_within,
    calibrate,
    classes_of_patches,
    mean_auroc,
    prompt_metrics,
    prompts_of,
)
from eofm.datasets.images.dense import VOID, DenseChip
from eofm.errors import DataError
from eofm.probes.linear import ProbeResult, Scaler, Scaling
from eofm.progress import track
from eofm.store.splits import hash_order

# Images of other groups that a prompt is held against.
PARTNERS: Final = 8
# Validation images by which threshold and bins are chosen, at most; evenly spread.
_CALIBRATING: Final = 256


def prompted(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that the prompt probe scores: all but single pixels.

    Raises:
        ConfigError: If nothing is left.
    """
    return taken_by(
        "--probe prompt",
        candidates,
        lambda one: not isinstance(one.parts[0], PixelValues),
        "the prompt probe compares patches, and no model here has any",
        "name an encoder with --model, or leave --controls on",
    )


def fitted(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that the linear layer scores: all but the control of prompts.

    Raises:
        ConfigError: If nothing is left.
    """
    return taken_by(
        "--probe linear",
        candidates,
        lambda one: not isinstance(one.parts[0], PatchStatistics),
        "statistics of patches are a control of the prompt probe, and no other model is here",
        "--probe prompt",
    )


def score_prompts(
    segmenter: Segmenter, candidates: Sequence[Candidate], archive: Archive
) -> tuple[dict[tuple[str, str], Scored], float]:
    """Return what prompt patches find in the test images, and seconds of tokens.

    Args:
        segmenter: Images and tokens.
        candidates: What is scored.
        archive: Where it is kept; what lies there is neither embedded nor compared again.

    Raises:
        RasterError: If an image or a mask is damaged.
        LabelError: If a mask does not fit its image or holds an unknown code.
        DataError: If no validation image has a class to prompt beside another, or what is made
            cannot be kept.
        PixelError: If tokens are no numbers.
        WeightsError: If a network moves.
    """
    kept = prompted(candidates)
    archive = replace(archive, metrics=PROMPT_METRICS)
    code = (prompt_scores, segmentation, sys.modules[__name__])
    requests = {
        one.name: request_sha256(
            archive.task, archive.sample, one.identity(segmenter.task), (PROMPT, PARTNERS), code
        )
        for one in kept
    }
    fresh = [one for one in kept if archive.known(requests[one.name]) is None]
    start = time.monotonic()
    tokens = {split: segmenter.tokens(split, fresh, {}) for split in ("val", "test")}
    seconds = time.monotonic() - start
    scored = {}
    for one in track(kept, "prompting models"):

        def compare(one: Candidate = one) -> Scored:
            val, test = (tokens[split][one.name] for split in ("val", "test"))
            return _score(segmenter, one, val, test)

        scored[one.name, PROMPT] = archive.kept(requests[one.name], compare)
    return scored, seconds


def partners_of(chips: Sequence[DenseChip], count: int = PARTNERS) -> list[list[int]]:
    """Return against which other images the prompts of each are held.

    All images stand in a ring by the hash of their ids; of each, the next ones of other groups.

    Args:
        chips: The images.
        count: How many, if there are as many.
    """
    places = {chip.id: place for place, chip in enumerate(chips)}
    ring = [places[name] for name in hash_order(places, PROMPT)]
    groups = [chip.group or unit_of(chip) for chip in chips]
    found: list[list[int]] = [[] for _ in chips]
    for at, place in enumerate(ring):
        for step in range(1, len(ring)):
            other = ring[(at + step) % len(ring)]
            if groups[other] != groups[place]:
                found[place].append(other)
            if len(found[place]) == count:
                break
    return found


@dataclass(frozen=True)
class _Split:
    """The images of a split, as patches of one model.

    Args:
        chips: The images, N.
        tokens: Of unit length once scaled, (N, P, D).
        owner: Class of each patch, (N, P).
        scaler: What is done to tokens first.
    """

    chips: Sequence[DenseChip]
    tokens: Tensor
    owner: Tensor
    scaler: Scaler

    @classmethod
    def of(
        cls,
        chips: Sequence[DenseChip],
        tokens: Tensor,
        masks: Tensor,
        grid: Grid,
        classes: int,
        scaler: Scaler,
    ) -> _Split:
        """Return a split; patches of images without a token belong to no class.

        Args:
            chips: The images.
            tokens: (N, P, D).
            masks: (N, H, W).
            grid: Rows and columns of patches.
            classes: K.
            scaler: What is done to tokens first.
        """
        parts = [
            classes_of_patches(without_dead(some, mask), grid, classes)
            for some, mask in zip(
                torch.split(tokens, _CHUNK), torch.split(masks, _CHUNK), strict=True
            )
        ]
        return cls(chips, tokens, torch.cat(parts), scaler)

    def unit(self, image: int) -> Tensor:
        """Return the tokens of an image, scaled and of unit length, float32 (P, D)."""
        tokens = self.tokens[image]
        if self.scaler.scaling is not Scaling.NONE:
            tokens = self.scaler(tokens).float()
        return torch.nn.functional.normalize(tokens, dim=1)

    def pairs(self, images: Sequence[int]) -> Iterator[tuple[int, int, Contrast, bool]]:
        """Yield image, class and similarities; last, whether they are of the image itself.

        Args:
            images: Which of them have prompts.
        """
        partners = partners_of(self.chips)
        for image in images:
            owner = self.owner[image]
            labels = [one for one in sorted(set(owner.tolist())) if one != NO_CLASS]
            if not labels:
                continue
            tokens = self.unit(image)
            others = partners[image]
            elsewhere = torch.cat([self.unit(other) for other in others]) if others else None
            for label in labels:
                prompts = prompts_of(owner, self.chips[image].id, label)
                own = Contrast.within(tokens, owner, prompts, label)
                if own is not None:
                    yield image, label, own, True
                if elsewhere is None:
                    continue
                there = self.owner[others].flatten()
                apart = Contrast.across(tokens[prompts], elsewhere, there, label)
                if apart is not None:
                    yield image, label, apart, False


_CHUNK: Final = 64


def _score(segmenter: Segmenter, candidate: Candidate, val: Tensor, test: Tensor) -> Scored:
    start = time.monotonic()
    grid, classes = grid_of(candidate), len(segmenter.task.classes)
    alive = (val != 0).any(dim=2)
    scaler = Scaler.of(val[alive], candidate.scaling)

    def split(name: str, tokens: Tensor) -> _Split:
        chips, masks = segmenter.chips.splits[name], segmenter.masks[name]
        return _Split.of(chips, tokens, masks, grid, classes, scaler)

    chosen = _calibrated(split("val", val), classes, candidate.name)
    sums, units = _sums(split("test", test), classes, chosen)
    metrics = prompt_metrics(sums, PROMPT_METRICS)
    return Scored(
        kind=PROMPT,
        probe=ProbeResult(
            probe=f"prompt[cosine,{PROMPTS} per class and image,pure={PURE:g},"
            f"{PARTNERS} others,threshold by val,{candidate.scaling}]",
            scores=mean_auroc(sums).double(),
            validation=chosen.validation,
            chosen=f"threshold {chosen.threshold:.3f}",
            notes=_notes(chosen, any_pair=bool(metrics)),
        ),
        metrics=metrics,
        samples=units,
        seconds=time.monotonic() - start,
        prompts=sums,
        target=_labelled(segmenter),
    )


def _notes(chosen: Calibration, *, any_pair: bool) -> tuple[str, ...]:
    said = {
        "no test image has a class to prompt": not any_pair,
        "no threshold is better on val than to take every patch": chosen.takes_all,
    }
    return tuple(words for words, holds in said.items() if holds)


def _calibrated(val: _Split, classes: int, name: str) -> Calibration:
    step = -(-len(val.chips) // _CALIBRATING)
    within: list[tuple[int, Contrast]] = []
    across: list[tuple[int, Contrast]] = []
    for _, label, one, own in val.pairs(range(0, len(val.chips), step)):
        (within if own else across).append((label, one))
    if not within:
        raise DataError(
            "no validation image has two patches of a class beside a patch of another one",
            found=f"{len(val.chips)} images, patches that are {PURE:.0%} of one class",
            where=f"--probe prompt of {name}",
            remedy="take more images, or score the linear layer alone: --probe linear",
        )
    return calibrate(within, across, classes)


def _sums(test: _Split, classes: int, chosen: Calibration) -> tuple[Tensor, int]:
    """Return the sums of every unit, float32 (M, K, W), and how many units there are."""
    place = {name: index for index, name in enumerate(units_of(test.chips))}
    sums = torch.zeros(len(place), classes, WIDTH, dtype=torch.float64)
    for image, label, one, own in test.pairs(range(len(test.chips))):
        add: Callable[[Tensor, int, Contrast, Calibration], None]
        add = add_within if own else add_across
        add(sums[place[unit_of(test.chips[image])]], label, one, chosen)
    return sums.float(), len(place)


def _labelled(segmenter: Segmenter) -> Tensor:
    """Return the labelled pixels of each class in every unit, int64 (M, K)."""
    chips, masks = segmenter.chips.splits["test"], segmenter.masks["test"]
    classes = len(segmenter.task.classes)
    place = {name: index for index, name in enumerate(units_of(chips))}
    found = torch.zeros(len(place), classes, dtype=torch.int64)
    for chip, mask in zip(chips, masks, strict=True):
        known = mask[mask != VOID].long()
        found[place[unit_of(chip)]] += torch.bincount(known, minlength=classes)
    return found
