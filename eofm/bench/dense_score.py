"""From the models of a dense task to a confusion matrix per test image.

Shapes: B images, N images of a split, P patches of an image, Q of them picked, D features.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from eofm.bench.cache import FeatureCache
from eofm.bench.dense_archive import Segmented, kept_or_made, request_sha256
from eofm.bench.dense_config import DenseConfig
from eofm.bench.dense_metrics import grouped
from eofm.bench.dense_probe import Batches, evaluate, fit_head
from eofm.bench.dense_tokens import (
    DenseModel,
    Embedder,
    Patches,
    encoder_parts,
    pick_patches,
    without_dead,
)
from eofm.bench.digests import content_sha256
from eofm.bench.predictions import FOLDER
from eofm.bench.results import Sample
from eofm.bench.task import Task
from eofm.datasets.dense_chips import DenseChips
from eofm.progress import track


@dataclass(frozen=True)
class Scorer:
    """Fits and scores on the images of one task.

    Args:
        config: The settings.
        task: What is scored.
        chips: The images.
        digests: sha256 of every image and its mask, by id.
    """

    config: DenseConfig
    task: Task
    chips: DenseChips
    digests: Mapping[str, str]

    def score(self, models: Sequence[DenseModel], sample: Sample) -> dict[str, Segmented]:
        """Return what the linear layer on each model says of the test images.

        Args:
            models: What is scored.
            sample: On what.

        Raises:
            RasterError: If an image or a mask is damaged.
            LabelError: If a mask does not fit its image or holds an unknown code.
            PixelError: If tokens are no numbers.
            WeightsError: If a network moves.
            DataError: If what is made cannot be kept.
        """
        paths = {model.name: self._path(model, sample) for model in models}
        fresh = [model for model in models if not paths[model.name].is_file()]
        start = time.monotonic()
        patches = self._patches(fresh)
        tokens = {split: self._tokens(split, fresh, patches) for split in self.chips.splits}
        seconds = time.monotonic() - start

        def made(model: DenseModel) -> Segmented:
            if model not in fresh:  # what was kept of it cannot be read
                own = self._patches([model])
                again = {s: self._tokens(s, [model], own) for s in self.chips.splits}
                return self._segment(model, own[model.grid], again, seconds)
            return self._segment(model, patches[model.grid], tokens, seconds)

        return {
            model.name: kept_or_made(paths[model.name], lambda model=model: made(model))  # type: ignore[misc]
            for model in track(models, "probing models")
        }

    def _path(self, model: DenseModel, sample: Sample) -> Path:
        name = f"{self.task.name} {self.task.version}"
        request = request_sha256(name, sample, model.identity(self.task), self.config.patches)
        return Path(self.config.out).parent / FOLDER / f"{request}.npz"

    # ---------------------------------------------------------------------------- tokens

    def _patches(self, models: Sequence[DenseModel]) -> dict[tuple[int, int], Patches]:
        grids = dict.fromkeys(model.grid for model in models)
        if not grids:
            return {}
        train = self.chips.splits["train"]
        return pick_patches(train, grids, len(self.task.classes), self.config.patches)

    def _embedder(self, split: str) -> Embedder:
        part = self.chips.splits[split]
        cache = FeatureCache.at(self.config.cache)
        content = content_sha256(part, self.digests)
        return Embedder(self.task, part, content, self.config.batch, cache)

    def _tokens(
        self,
        split: str,
        models: Sequence[DenseModel],
        patches: Mapping[tuple[int, int], Patches],
    ) -> dict[str, Tensor]:
        """Return the tokens of encoders; a model that is remade each time has none here."""
        embedder = self._embedder(split)
        found: dict[str, list[Tensor]] = {}
        for sensor in range(len(self.task.specs)):
            parts = encoder_parts(models, sensor)
            picks = {m.name: patches[m.grid] for m in models} if split == "train" else {}
            for name, tokens in embedder.embed(parts, sensor, picks).items():
                found.setdefault(name, []).append(tokens)
        return {name: torch.cat(parts, dim=2) for name, parts in found.items()}

    @cached_property
    def _masks(self) -> dict[str, Tensor]:
        """Masks of val and test, int16 (N, H, W)."""
        return {
            split: torch.stack([chip.mask.read() for chip in self.chips.splits[split]])
            for split in ("val", "test")
        }

    def _batches(
        self, split: str, model: DenseModel, tokens: Mapping[str, Tensor]
    ) -> Iterator[Tensor]:
        if model.name in tokens:
            yield from torch.split(tokens[model.name], self.config.batch)
        else:
            yield from self._embedder(split).pixels(model)

    # ---------------------------------------------------------------------------- scoring

    def _segment(
        self,
        model: DenseModel,
        patches: Patches,
        tokens: Mapping[str, Mapping[str, Tensor]],
        feature_seconds: float,
    ) -> Segmented:
        start = time.monotonic()

        def opened(split: str) -> Batches:
            def batches() -> Iterator[tuple[Tensor, Tensor]]:
                masks = torch.split(self._masks[split], self.config.batch)
                for part, mask in zip(
                    self._batches(split, model, tokens[split]), masks, strict=True
                ):
                    yield part, without_dead(part, mask)

            return batches

        train = tokens["train"].get(model.name)
        if train is None:
            first, parts = 0, []
            for part in self._batches("train", model, {}):
                parts.append(patches.of(part, first))
                first += len(part)
            train = torch.cat(parts)
        x, shares = patches.rows(train)
        fit = fit_head(x, shares, opened("val"), model.grid, standard=model.standard)
        (found,) = evaluate([fit.head], opened("test"), model.grid, len(self.task.classes))
        test = self.chips.splits["test"]
        matrices, groups = grouped(found, [chip.group for chip in test])
        return Segmented(
            matrices=matrices,
            groups=groups,
            classes=self.task.classes,
            probe=fit.probe,
            strength=fit.strength,
            gradient_norm=fit.gradient_norm,
            faults=fit.faults(),
            rank=fit.rank,
            seconds=time.monotonic() - start,
            feature_seconds=feature_seconds,
        )
