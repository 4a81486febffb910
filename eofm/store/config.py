"""Settings of `eofm data`: the tools for packed stores. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from eofm.errors import ConfigError
from eofm.settings import checked_settings

__all__ = [
    "POSITIONAL",
    "CardConfig",
    "MergeConfig",
    "RelabelConfig",
    "ShowConfig",
    "StatsConfig",
    "SubsetConfig",
    "UpgradeConfig",
    "VerifyConfig",
]

POSITIONAL: Final = {"positional": True}


@dataclass(frozen=True)
@checked_settings
class VerifyConfig:
    """Read every image of a store and compare its checksum.

    Args:
        store: Folder of the packed store.
        threads: How many threads read.
    """

    store: str = field(metadata=POSITIONAL)
    threads: int = 4

    def __post_init__(self) -> None:
        _check_positive("threads", self.threads)


@dataclass(frozen=True)
@checked_settings
class StatsConfig:
    """Count mean, spread and percentiles of every band over the valid pixels of a store.

    Args:
        store: Folder of the packed store.
        split: Which images: all, or the training or held-out ones of a run of `eofm pretrain`
            with the same holdout and seed.
        holdout: Share of the places held out, as in data.holdout.
        seed: Which places, as in data.seed.
        where: Conditions on the columns of the index, as in `eofm data subset`: ["split=train"] is
            the training split of the data set itself.
        ids: File with one image identifier per line: only these, of the split.
        sample: At most so many images, chosen by a hash of their identifiers.
        out: File to write; without it, stats.json in the store.
    """

    store: str = field(metadata=POSITIONAL)
    split: Literal["all", "train", "held-out"] = "all"
    holdout: float = 0.1
    seed: int = 0
    where: list[str] = field(default_factory=list)
    ids: str | None = None
    sample: int | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise ConfigError("holdout is a share", found=self.holdout, expected="0 to below 1")
        if self.sample is not None:
            _check_positive("sample", self.sample)


@dataclass(frozen=True)
@checked_settings
class RelabelConfig:
    """Give the images of a store other labels, without touching a pixel.

    Args:
        store: Folder of the packed store.
        labels: Table of labels, as `eofm labels` writes it: one row per image identifier.
        out: Folder of a new store, which shares the pixel files (hard links, or copies where the
            file system has none).
        in_place: Change the store itself. An interrupted run leaves the old or the new labels.
        missing: What to do with images that the table does not know: refuse, or make them
            unlabelled.
        ground: Which ground labels may have been counted on: seen, what the image measures, as
            `eofm labels --scenes STORE` counts; all takes a table of whole footprints too.
    """

    store: str = field(metadata=POSITIONAL)
    labels: str
    out: str | None = None
    in_place: bool = False
    missing: Literal["refuse", "unlabelled"] = "refuse"
    ground: Literal["seen", "all"] = "seen"

    def __post_init__(self) -> None:
        _check_where("the new labels go", self.out, in_place=self.in_place)


@dataclass(frozen=True)
@checked_settings
class UpgradeConfig:
    """Bring a store of eofm 0.1 to the present version: every row keeps its CRS and transform.

    Pixels, labels and identifiers stay as they are.

    Args:
        store: Folder of the packed store.
        images: Folder of the images that were packed: the grids are recovered from their headers,
            and compared with the centres that the store keeps. Without it, or of images that are
            gone, the grid stays unknown.
        out: Folder of a new store, which shares the pixel files (hard links, or copies where the
            file system has none).
        in_place: Change the store itself. An interrupted run leaves the old or the new index.
    """

    store: str = field(metadata=POSITIONAL)
    images: str | None = None
    out: str | None = None
    in_place: bool = False

    def __post_init__(self) -> None:
        _check_where("the new index goes", self.out, in_place=self.in_place)


@dataclass(frozen=True)
@checked_settings
class SubsetConfig:
    """Copy some images of a store into a new one.

    All conditions must hold; the order of the rows stays.

    Args:
        store: Folder of the packed store.
        out: Folder of the new store. An interrupted run resumes where it stopped.
        where: Conditions on the columns of the index, as in ["latitude>=40", "season=s1",
            "known=true"]; a class must be present or absent in ["class=water", "class!=crops"].
        ids: File with one image identifier per line. An unknown one is an error.
        sample: Maximum number of images, chosen by a hash of seed and identifier: a smaller
            sample is a subset of a larger one.
        seed: Of the sample.
    """

    store: str = field(metadata=POSITIONAL)
    out: str
    where: list[str] = field(default_factory=list)
    ids: str | None = None
    sample: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sample is not None:
            _check_positive("sample", self.sample)


@dataclass(frozen=True)
@checked_settings
class MergeConfig:
    """Copy several stores of the same kind of pixel and label into one.

    Args:
        stores: Folders of the packed stores, in the order of the rows.
        out: Folder of the new store. An interrupted run resumes where it stopped.
    """

    stores: list[str] = field(metadata={"positional": "+"})
    out: str

    def __post_init__(self) -> None:
        if len(self.stores) < 2:
            raise ConfigError("merging takes two stores or more", found=", ".join(self.stores))


@dataclass(frozen=True)
@checked_settings
class ShowConfig:
    """Draw the contents of a store: places, label frequencies, co-occurrence, sample images.

    Args:
        store: Folder of the packed store.
        out: PNG file to write; without it, store.png next to the index.
        samples: How many images the sheet shows.
        seed: Which images the sheet shows.
    """

    store: str = field(metadata=POSITIONAL)
    out: str | None = None
    samples: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        _check_positive("samples", self.samples)


def _check_where(what: str, out: str | None, *, in_place: bool) -> None:
    if in_place == (out is not None):
        raise ConfigError(
            f"it must be said where {what}, once",
            found=f"out={out}, in_place={in_place}",
            remedy="give --out FOLDER, or --in_place true",
        )


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} must be positive", found=value)


@dataclass(frozen=True)
@checked_settings
class CardConfig:
    """Write a data card of a packed store.

    Args:
        path: The store.
        out: The file to write; without it, the card is printed.
        name: Name of the data set; without it, the name of the folder.
        licence: Licence of the images, for the card. Without one, that of a known set's data card.
    """

    path: str = field(metadata={"positional": True})
    out: str | None = None
    name: str | None = None
    licence: str | None = None
