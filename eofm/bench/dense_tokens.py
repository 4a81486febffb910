"""Frozen patch tokens of the models of a dense task, and the labels of the patches.

Tokens of encoders are kept in the feature cache: of val and test whole, of train the patches that
the linear layer is fitted on. The control `pixels` has one token per pixel, cheaper to make anew
than to keep. An image without one valid pixel has no tokens; it counts nowhere.

Shapes: B images, N images of a split, P patches of an image, Q of them picked, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from eofm.bench.cache import FeatureCache, Key
from eofm.bench.dense_probe import class_shares, picked
from eofm.bench.features import EncoderSource, Identity, ahead, joined, key_of
from eofm.bench.task import Task
from eofm.contract.imagery import Imagery, collate
from eofm.contract.spec import ImageSpec
from eofm.datasets.dense_chips import VOID, DenseChip
from eofm.errors import ConfigError, DataError
from eofm.probes.linear import Scaling
from eofm.progress import track

PIXELS: Final = "pixels"
_EMPTY: Final = 0.0


@final
class PixelValues:
    """The control `pixels`: a token per pixel, its bands in the declared unit.

    Args:
        name: Name in tables.
        size: Height and width of the images.
    """

    scaling = Scaling.STANDARD

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        self.name, self.grid = name, size

    def identity(self, spec: ImageSpec) -> Identity:
        """Return that it has neither weights nor a plan: it takes images as they are."""
        about = f"the {len(spec.bands)} bands of each pixel in {spec.unit}"
        return Identity(self.name, True, about, "", "", "", (), ())

    def tokens(self, imagery: Imagery) -> Tensor:
        """Return float32 (B, H W, C); invalid pixels take the band mean of the valid ones."""
        valid = imagery.valid.flatten(1)[:, None]
        pixels = imagery.pixels.flatten(2)
        kept = torch.where(valid, pixels, 0).double()
        mean = kept.sum(dim=2, keepdim=True) / valid.sum(dim=2, keepdim=True).clamp_min(1)
        return torch.where(valid, pixels, mean.float()).movedim(1, 2)

    def check_frozen(self) -> None:
        """Have nothing to check: there is no state."""


Part = EncoderSource | PixelValues


@dataclass(frozen=True)
class DenseModel:
    """What is scored in one row.

    Args:
        name: Name in tables.
        parts: A source of tokens per sensor of the task; their tokens are put side by side.

    Raises:
        ConfigError: If the parts cut an image into different patches.
    """

    name: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        grids = {part.grid for part in self.parts}
        if len(grids) > 1:
            raise ConfigError(
                "two encoders cut an image into different patches",
                found=", ".join(f"{rows} x {columns}" for rows, columns in sorted(grids)),
                where=self.name,
                remedy="take two with the same size and patch",
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.parts[0].grid

    @property
    def standard(self) -> bool:
        """Whether the tokens are standardised before the fit."""
        return self.parts[0].scaling is Scaling.STANDARD

    def identity(self, task: Task) -> Identity:
        """Return what it is, for the images of a task.

        Raises:
            SpecMismatch: If it cannot take them.
        """
        found = [p.identity(spec) for p, spec in zip(self.parts, task.specs, strict=True)]
        return joined(self.name, found)


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

    grid: tuple[int, int]
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
    chips: Sequence[DenseChip], grids: Iterable[tuple[int, int]], classes: int, count: int
) -> dict[tuple[int, int], Patches]:
    """Return about `count` training patches for every grid; masks are read once for all.

    Raises:
        RasterError: If a mask is damaged.
        LabelError: If a mask does not fit its image or holds an unknown code.
    """
    share = -(-count // len(chips))
    found: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {grid: [] for grid in grids}
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


@dataclass(frozen=True)
class Embedder:
    """Embeds the images of one split, for all encoders at once.

    Args:
        task: What is scored.
        chips: The images.
        content: sha256 of ids, images and masks.
        batch: Images embedded at once.
        cache: Where tokens are kept.
    """

    task: Task
    chips: Sequence[DenseChip]
    content: str
    batch: int
    cache: FeatureCache

    def read(self, sensor: int) -> Iterable[Imagery]:
        """Yield the images in batches, in order."""
        for start in range(0, len(self.chips), self.batch):
            part = self.chips[start : start + self.batch]
            yield collate([chip.pixels[sensor].read() for chip in part])

    def embed(
        self, parts: Mapping[str, EncoderSource], sensor: int, patches: Mapping[str, Patches]
    ) -> dict[str, Tensor]:
        """Return the tokens of encoders: float32 (N, P, D), or (N, Q, D) of picked patches.

        Args:
            parts: Name -> encoder of one sensor.
            sensor: Which.
            patches: Name -> the training patches; empty for whole images.

        Raises:
            RasterError: If an image is damaged.
            SpecMismatch: If an encoder cannot take the images.
            WeightsError: If a network changes while it embeds.
            PixelError: If a token is not finite.
        """
        spec = self.task.specs[sensor]
        keys = {n: self._key(part, spec, patches.get(n)) for n, part in parts.items()}
        found: dict[str, Tensor] = {}
        for name, key in keys.items():
            known = self.cache.load(key, len(self.chips))
            if known is not None:
                found[name] = known.view(len(known), self._places(name, parts, patches), -1)
        missing = {name: part for name, part in parts.items() if name not in found}
        if not missing:
            return found
        fresh: dict[str, list[Tensor]] = {name: [] for name in missing}
        total, first = -(-len(self.chips) // self.batch), 0
        for imagery in track(ahead(self.read(sensor)), "embedding batches of images", total):
            for name, part in missing.items():
                tokens = tokens_of(part, imagery)
                fresh[name].append(patches[name].of(tokens, first) if name in patches else tokens)
            first += len(imagery)
        for name, part in missing.items():
            part.check_frozen()
            found[name] = torch.cat(fresh.pop(name))
            about = {"model": name, "about": part.identity(spec).about, "tokens": True}
            self.cache.store(keys[name], found[name].flatten(1), about)
            mapped = self.cache.load(keys[name], len(self.chips))
            if mapped is not None:  # the file takes the place of what fills the memory
                found[name] = mapped.view(found[name].shape)
        return found

    @staticmethod
    def _places(
        name: str, parts: Mapping[str, EncoderSource], patches: Mapping[str, Patches]
    ) -> int:
        grid = parts[name].grid
        return patches[name].most if name in patches else grid[0] * grid[1]

    def _key(self, part: EncoderSource, spec: ImageSpec, patches: Patches | None) -> Key:
        key = key_of(part, spec, self.content)
        what = f"patches of train, {patches.most} per image" if patches else "all patches"
        return Key({**key.content, "tokens": what})

    def pixels(self, model: DenseModel) -> Iterable[Tensor]:
        """Yield tokens (B, P, D) made anew, batch by batch."""
        readers = [ahead(self.read(sensor)) for sensor in range(len(model.parts))]
        for batch in zip(*readers, strict=True):
            parts = zip(model.parts, batch, strict=True)
            yield torch.cat([tokens_of(part, imagery) for part, imagery in parts], dim=2)


def encoder_parts(models: Sequence[DenseModel], sensor: int) -> dict[str, EncoderSource]:
    """Return the encoders of one sensor by the name of their model: what has tokens to keep."""
    parts = {model.name: model.parts[sensor] for model in models}
    return {name: part for name, part in parts.items() if isinstance(part, EncoderSource)}


def tokens_of(part: Part, imagery: Imagery) -> Tensor:
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
