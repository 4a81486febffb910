"""Patch tokens of the models of a segmentation, the labels of patches, and their probes.

Tokens of encoders are stored in the feature cache: all of val and test, and of train the patches
that the linear layer is fitted on. The control `pixels` has one token per pixel, which is cheaper
to compute again than to store. An image without a valid pixel has no tokens and is not counted.

The prompt probe uses the same tokens and yields sums per test image, without a fit;
`eofm.bench.segmentation` defines the sums. The threshold and the bins are chosen on val, and test
is evaluated once. Band statistics are first standardised by val: in physical units one bright band
would dominate the cosine. Tokens of networks are not standardised.

Shapes: B images, N images of a split, M units of test images, P patches of an image, Q of them
picked, D features, K classes, W columns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, final

import torch
from torch import Tensor

from eofm.bench import segmentation
from eofm.bench.config import SegmentationConfig
from eofm.bench.controls import PatchStatistics, PixelValues
from eofm.bench.features import FeatureCache, ahead, content_sha256, extract
from eofm.bench.predictions import Archive, request_sha256
from eofm.bench.probes import Scored
from eofm.bench.samples import unit_of, units_of
from eofm.bench.segmentation import (
    NO_CLASS,
    PROMPT,
    PROMPT_METRICS,
    PROMPTS,
    PURE,
    SEGMENTATION,
    WIDTH,
    Batches,
    Calibration,
    Contrast,
    add_across,
    add_within,
    calibrate,
    class_shares,
    classes_of_patches,
    evaluate,
    fit_head,
    grouped,
    mean_auroc,
    picked,
    prompt_metrics,
    prompts_of,
    resampled_segmentation,
)
from eofm.bench.sources import Candidate, FeatureSource, TokenSource, taken_by
from eofm.contract.imagery import Imagery, collate
from eofm.datasets.base import Task
from eofm.datasets.images.dense import VOID, DenseChip, DenseChips
from eofm.errors import DataError
from eofm.probes import features as probed
from eofm.probes import linear, logistic
from eofm.probes.features import ProbeResult, Scaler, Scaling
from eofm.store.splits import hash_order
from eofm.terminal import track

__all__ = [
    "PARTNERS",
    "Grid",
    "PatchTokens",
    "Patches",
    "Segmenter",
    "fitted",
    "grid_of",
    "partners_of",
    "pick_patches",
    "prompted",
    "score_prompts",
    "tokens_of",
    "without_dead",
]

_EMPTY: Final = 0.0

# Rows and columns of patches.
Grid = tuple[int, int]


def grid_of(candidate: Candidate) -> Grid:
    """Return rows and columns of a candidate's patches; all its parts have the same."""
    return _tokens_part(candidate.parts[0]).grid


def _tokens_part(part: FeatureSource) -> TokenSource:
    assert isinstance(part, TokenSource)  # noqa: S101 (checked where candidates are made)
    return part


def _kept_parts(candidates: Sequence[Candidate], sensor: int) -> list[FeatureSource]:
    """Return the parts of one sensor whose tokens are cached: all but single pixels."""
    parts = [candidate.parts[sensor] for candidate in candidates]
    return [part for part in parts if not isinstance(part, PixelValues)]


# --------------------------------------------------------------------------- train patches


@dataclass(frozen=True)
class Patches:
    """The training patches of one grid.

    Args:
        grid: Rows and columns.
        picks: Indices of the patches of each image.
        shares: Shares of the classes in them, one (q, K) per image.
        most: The largest number of patches of an image, Q.
    """

    grid: Grid
    picks: tuple[Tensor, ...]
    shares: tuple[Tensor, ...]
    most: int

    def of(self, tokens: Tensor, first: int) -> Tensor:
        """Return the picked tokens of consecutive images, (B, Q, D), padded with zeros.

        Args:
            tokens: (B, P, D).
            first: Index of the first of them in the training images.
        """
        out = tokens.new_zeros(len(tokens), self.most, tokens.shape[2])
        for row, one in enumerate(tokens):
            pick = self.picks[first + row]
            out[row, : len(pick)] = one[pick]
        return out

    def rows(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens (M, D) and shares (M, K) of all patches that were embedded.

        Args:
            tokens: (N, Q, D), as `of` returns them.
        """
        alive = _alive(tokens).tolist()
        kept = [i for i, there in enumerate(alive) if there and len(self.picks[i])]
        if not kept:
            raise DataError("no training image has a labelled patch", found=f"{len(alive)} images")
        x = torch.cat([tokens[i, : len(self.picks[i])] for i in kept])
        return x, torch.cat([self.shares[i] for i in kept])


def pick_patches(
    chips: Sequence[DenseChip], grids: Iterable[Grid], classes: int, count: int
) -> dict[Grid, Patches]:
    """Return about `count` training patches for every grid; masks are read once for all.

    Raises:
        RasterError: If a mask is damaged.
        LabelError: If a mask does not match its image or has an unknown code.
    """
    share = -(-count // len(chips))
    found: dict[Grid, list[tuple[Tensor, Tensor]]] = {grid: [] for grid in grids}
    for chip in track(chips, "reading masks"):
        mask = chip.mask.read()[None]
        for grid, pairs in found.items():
            areas, known = class_shares(mask, grid, classes)
            pick = picked(chip.id, known[0], share)
            pairs.append((pick, areas[0, pick]))
    return {
        grid: Patches(
            grid,
            tuple(pick for pick, _ in pairs),
            tuple(areas for _, areas in pairs),
            max(1, *(len(pick) for pick, _ in pairs), 1),
        )
        for grid, pairs in found.items()
    }


def _alive(tokens: Tensor) -> Tensor:
    """Return the mask of images with tokens, bool (N,); images without a valid pixel have zeros."""
    return (tokens != _EMPTY).flatten(1).any(dim=1)


# ------------------------------------------------------------------------------- embedding


@final
@dataclass(frozen=True)
class PatchTokens:
    """One vector per patch, for `eofm.bench.features.extract`.

    Args:
        patches: Name of a model -> its training patches; all patches for other models.
    """

    patches: Mapping[str, Patches]

    def key(self, name: str) -> Mapping[str, str]:
        """Return which patches are stored."""
        kept = self.patches.get(name)
        what = f"patches of train, {kept.most} per image" if kept else "all patches"
        return {"tokens": what}

    def read(self, name: str, source: FeatureSource, imagery: Imagery, first: int) -> Tensor:
        """Return the tokens of images, (B, P, D), or of picked patches, (B, Q, D)."""
        tokens = tokens_of(_tokens_part(source), imagery)
        return self.patches[name].of(tokens, first) if name in self.patches else tokens

    def check(self, name: str, features: Tensor) -> None:
        """Accept anything: an image without a valid pixel has no tokens."""


def tokens_of(part: TokenSource, imagery: Imagery) -> Tensor:
    """Return the tokens of every image, (B, P, D); zeros for one without a valid pixel."""
    alive = imagery.valid.flatten(1).any(dim=1)
    if alive.all():
        return part.tokens(imagery)
    if not alive.any():  # a substitute image, embedded only to get the width of tokens
        blank = Imagery(torch.ones_like(imagery.pixels), imagery.spec, ~imagery.valid)
        return torch.zeros_like(part.tokens(blank))
    some = part.tokens(Imagery(imagery.pixels[alive], imagery.spec, imagery.valid[alive]))
    out = some.new_zeros(len(imagery), *some.shape[1:])
    out[alive] = some
    return out


def without_dead(tokens: Tensor, masks: Tensor) -> Tensor:
    """Return the masks (B, H, W), set to void for every image without tokens."""
    return torch.where(_alive(tokens)[:, None, None], masks, VOID)


# ------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Segmenter:
    """Fits and scores probes on the images of one task.

    Args:
        config: The settings.
        task: Task to score.
        chips: The images.
        digests: sha256 of every image and its mask, by id.
        cache: Cache of tokens.
    """

    config: SegmentationConfig
    task: Task
    chips: DenseChips
    digests: Mapping[str, str]
    cache: FeatureCache

    def score(
        self, candidates: Sequence[Candidate], archive: Archive
    ) -> tuple[dict[tuple[str, str], Scored], float]:
        """Return scores of a linear layer on each model, and seconds spent on tokens.

        Args:
            candidates: Models to score.
            archive: Archive of predictions; those in it are neither embedded nor fitted again.

        Raises:
            RasterError: If an image or a mask is damaged.
            LabelError: If a mask does not match its image or has an unknown code.
            PixelError: If tokens are not finite.
            WeightsError: If a network changes.
            DataError: If predictions or tokens cannot be stored.
        """
        requests = {one.name: self._request(one, archive) for one in candidates}
        fresh = [one for one in candidates if archive.known(requests[one.name]) is None]
        start = time.monotonic()
        patches = self._patches(fresh)
        tokens = {split: self.tokens(split, fresh, patches) for split in self.chips.splits}
        seconds = time.monotonic() - start
        scored = {}
        for one in track(candidates, "probing models"):

            def fit(one: Candidate = one) -> Scored:
                return self._segment(one, patches[grid_of(one)], tokens)

            scored[one.name, SEGMENTATION] = archive.kept(requests[one.name], fit)
        return scored, seconds

    def _request(self, candidate: Candidate, archive: Archive) -> str:
        choices = SEGMENTATION, self.config.patches
        code = segmentation, probed, linear, logistic
        model = candidate.identity(self.task)
        return request_sha256(archive.task, archive.sample, model, choices, code)

    # ---------------------------------------------------------------------------- tokens

    def _patches(self, candidates: Sequence[Candidate]) -> dict[Grid, Patches]:
        grids = dict.fromkeys(map(grid_of, candidates))
        if not grids:
            return {}
        train = self.chips.splits["train"]
        return pick_patches(train, grids, len(self.task.classes), self.config.patches)

    def _read(self, split: str, sensor: int) -> Iterator[Imagery]:
        part, size = self.chips.splits[split], self.config.batch
        for start in range(0, len(part), size):
            yield collate([chip.pixels[sensor].read() for chip in part[start : start + size]])

    def tokens(
        self, split: str, candidates: Sequence[Candidate], patches: Mapping[Grid, Patches]
    ) -> dict[str, Tensor]:
        """Return the tokens of encoders, (N, P, D) or (N, Q, D); single pixels are excluded.

        Args:
            split: Name of the split.
            candidates: Models to read.
            patches: For train, the patches of each grid.
        """
        part = self.chips.splits[split]
        content = content_sha256(part, self.digests)
        picks = {c.name: patches[grid_of(c)] for c in candidates} if split == "train" else {}
        found: dict[str, list[Tensor]] = {}
        for sensor, spec in enumerate(self.task.specs):

            def batches(sensor: int = sensor) -> Iterable[Imagery]:
                total = -(-len(part) // self.config.batch)
                return track(self._read(split, sensor), "embedding batches of images", total)

            parts = _kept_parts(candidates, sensor)
            kept = extract(parts, spec, content, len(part), batches, self.cache, PatchTokens(picks))
            for source in parts:
                down, across = _tokens_part(source).grid
                places = picks[source.name].most if picks else down * across
                tokens = kept[source.name].view(len(part), places, -1)
                found.setdefault(source.name, []).append(tokens)
        return {name: torch.cat(parts, dim=2) for name, parts in found.items()}

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """Masks of val and test, int16 (N, H, W)."""
        return {
            split: torch.stack([chip.mask.read() for chip in self.chips.splits[split]])
            for split in ("val", "test")
        }

    def _batches(
        self, split: str, candidate: Candidate, tokens: Mapping[str, Tensor]
    ) -> Iterator[Tensor]:
        """Yield tokens (B, P, D) from the cache, or computed again."""
        if candidate.name in tokens:
            yield from torch.split(tokens[candidate.name], self.config.batch)
            return
        readers = [ahead(self._read(split, sensor)) for sensor in range(len(candidate.parts))]
        for batch in zip(*readers, strict=True):
            parts = zip(map(_tokens_part, candidate.parts), batch, strict=True)
            yield torch.cat([tokens_of(part, imagery) for part, imagery in parts], dim=2)

    # ------------------------------------------------------------------------------- fits

    def _segment(
        self, candidate: Candidate, patches: Patches, tokens: Mapping[str, Mapping[str, Tensor]]
    ) -> Scored:
        start = time.monotonic()

        def opened(split: str) -> Batches:
            def batches() -> Iterator[tuple[Tensor, Tensor]]:
                masks = torch.split(self.masks[split], self.config.batch)
                made = self._batches(split, candidate, tokens[split])
                for part, mask in zip(made, masks, strict=True):
                    yield part, without_dead(part, mask)

            return batches

        train = tokens["train"].get(candidate.name)
        if train is None:
            first, parts = 0, []
            for part in self._batches("train", candidate, {}):
                parts.append(patches.of(part, first))
                first += len(part)
            train = torch.cat(parts)
        x, shares = patches.rows(train)
        standard = candidate.scaling is Scaling.STANDARD
        fit = fit_head(x, shares, opened("val"), patches.grid, standard=standard)
        (found,) = evaluate([fit.head], opened("test"), patches.grid, len(self.task.classes))
        matrices, groups = grouped(found, [unit_of(chip) for chip in self.chips.splits["test"]])
        return Scored(
            kind=SEGMENTATION,
            probe=fit.outcome(matrices),
            metrics={m: resampled_segmentation(matrices, m) for m in self.task.metrics},
            samples=len(groups),
            seconds=time.monotonic() - start,
            spectrum=fit.spectrum,
            narrow=fit.narrow,
            matrices=matrices,
        )


# --------------------------------------------------------------------------------- the prompt probe

# Images of other groups that a prompt is compared with.
PARTNERS: Final = 8
# Maximum number of validation images for threshold and bins; evenly spread.
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
    """Return scores of prompt patches in the test images, and seconds spent on tokens.

    Args:
        segmenter: Images and tokens.
        candidates: Models to score.
        archive: Archive of predictions; those in it are neither embedded nor compared again.

    Raises:
        RasterError: If an image or a mask is damaged.
        LabelError: If a mask does not match its image or has an unknown code.
        DataError: If no validation image has a class to prompt and another one, or predictions or
            tokens cannot be stored.
        PixelError: If tokens are not finite.
        WeightsError: If a network changes.
    """
    kept = prompted(candidates)
    archive = replace(archive, metrics=PROMPT_METRICS)
    code = (segmentation, sys.modules[__name__])
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
    """Return for each image the other images that its prompts are compared with.

    All images form a ring, sorted by the hash of their ids; partners are the next ones of other
    groups.

    Args:
        chips: The images.
        count: Number of partners, if there are as many.
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
        tokens: Tokens, (N, P, D), of unit length after scaling.
        owner: Class of each patch, (N, P).
        scaler: Scaling applied to tokens first.
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
            scaler: Scaling applied to tokens first.
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
        """Yield image, class, similarities, and whether they are within the image itself.

        Args:
            images: Indices of images with prompts.
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
            "no validation image has two patches of a class and a patch of another class",
            found=f"{len(val.chips)} images, patches that are {PURE:.0%} of one class",
            where=f"--probe prompt of {name}",
            remedy="use more images, or score only the linear layer: --probe linear",
        )
    return calibrate(within, across, classes)


def _sums(test: _Split, classes: int, chosen: Calibration) -> tuple[Tensor, int]:
    """Return the sums of every unit, float32 (M, K, W), and the number of units."""
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
