"""Patch tokens of the models of a segmentation, the labels of patches, and what is scored on them.

Tokens of encoders are kept in the feature cache: of val and test whole, of train the patches that
the linear layer is fitted on. The control `pixels` has one token per pixel, cheaper to make again
than to keep. An image without one valid pixel has no tokens; it counts nowhere.

Shapes: B images, N images of a split, P patches of an image, Q of them picked, D features, K
classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import torch
from torch import Tensor

from eofm.bench import segmentation
from eofm.bench.cache import FeatureCache, content_sha256
from eofm.bench.config import SegmentationConfig
from eofm.bench.features import ahead, extract
from eofm.bench.models.controls import PixelValues
from eofm.bench.models.sources import Candidate, FeatureSource, TokenSource
from eofm.bench.predictions import Archive, request_sha256
from eofm.bench.probes import Scored
from eofm.bench.samples import unit_of
from eofm.bench.segmentation import (
    SEGMENTATION,
    Batches,
    class_shares,
    evaluate,
    fit_head,
    grouped,
    picked,
    resampled_segmentation,
)
from eofm.contract.imagery import Imagery, collate
from eofm.datasets.base import Task
from eofm.datasets.images.dense import VOID, DenseChip, DenseChips
from eofm.errors import DataError
from eofm.probes import linear, logistic
from eofm.probes.linear import Scaling
from eofm.progress import track

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
    """Return the parts of one sensor that have tokens to keep: all but single pixels."""
    parts = [candidate.parts[sensor] for candidate in candidates]
    return [part for part in parts if not isinstance(part, PixelValues)]


# --------------------------------------------------------------------------- train patches


@dataclass(frozen=True)
class Patches:
    """The training patches of one grid.

    Args:
        grid: Rows and columns.
        picks: Of each image, which patches.
        shares: Of the classes in them, one (q, K) per image.
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
            first: Which training image the first of them is.
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
        LabelError: If a mask does not fit its image or holds an unknown code.
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
    """Return which images have tokens: bool (N,). Those without a valid pixel have zeros."""
    return (tokens != _EMPTY).flatten(1).any(dim=1)


# ------------------------------------------------------------------------------- embedding


@final
@dataclass(frozen=True)
class PatchTokens:
    """A vector per patch, for `eofm.bench.features.extract`.

    Args:
        patches: Name of a model -> the training patches that are kept of it; else all are.
    """

    patches: Mapping[str, Patches]

    def key(self, name: str) -> Mapping[str, str]:
        """Return which patches are kept."""
        kept = self.patches.get(name)
        what = f"patches of train, {kept.most} per image" if kept else "all patches"
        return {"tokens": what}

    def read(self, name: str, source: FeatureSource, imagery: Imagery, first: int) -> Tensor:
        """Return the tokens of images, (B, P, D), or of picked patches, (B, Q, D)."""
        tokens = tokens_of(_tokens_part(source), imagery)
        return self.patches[name].of(tokens, first) if name in self.patches else tokens

    def check(self, name: str, features: Tensor) -> None:
        """Accept what there is: an image without a measurement has no tokens."""


def tokens_of(part: TokenSource, imagery: Imagery) -> Tensor:
    """Return the tokens of every image, (B, P, D); zeros for one without a valid pixel."""
    alive = imagery.valid.flatten(1).any(dim=1)
    if alive.all():
        return part.tokens(imagery)
    if not alive.any():  # what is embedded here only tells how wide tokens are
        blank = Imagery(torch.ones_like(imagery.pixels), imagery.spec, ~imagery.valid)
        return torch.zeros_like(part.tokens(blank))
    some = part.tokens(Imagery(imagery.pixels[alive], imagery.spec, imagery.valid[alive]))
    out = some.new_zeros(len(imagery), *some.shape[1:])
    out[alive] = some
    return out


def without_dead(tokens: Tensor, masks: Tensor) -> Tensor:
    """Return the masks with every image that has no tokens void, (B, H, W)."""
    return torch.where(_alive(tokens)[:, None, None], masks, VOID)


# ------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Segmenter:
    """Fits and scores on the images of one task.

    Args:
        config: The settings.
        task: What is scored.
        chips: The images.
        digests: sha256 of every image and its mask, by id.
        cache: Where tokens are kept.
    """

    config: SegmentationConfig
    task: Task
    chips: DenseChips
    digests: Mapping[str, str]
    cache: FeatureCache

    def score(
        self, candidates: Sequence[Candidate], archive: Archive
    ) -> tuple[dict[tuple[str, str], Scored], float]:
        """Return what a linear layer on each model says of the test images, and seconds of tokens.

        Args:
            candidates: What is scored.
            archive: Where it is kept; what lies there is neither embedded nor fitted again.

        Raises:
            RasterError: If an image or a mask is damaged.
            LabelError: If a mask does not fit its image or holds an unknown code.
            PixelError: If tokens are no numbers.
            WeightsError: If a network moves.
            DataError: If what is made cannot be kept.
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
        choices, code = (SEGMENTATION, self.config.patches), (segmentation, linear, logistic)
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
        """Return the tokens of encoders, (N, P, D) or (N, Q, D); single pixels have none here.

        Args:
            split: Which.
            candidates: Whose.
            patches: Of train, which patches, by their grid.
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
        """Yield tokens (B, P, D): those that were kept, or made again."""
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
