"""Labelled images of one size, divided into train, val and test: what every benchmark task reads.

A data set's own module finds its files and names its labels; what comes out is `Chips`. Pixels
are read when they are asked for, and the libraries that read them are loaded then: declarations
of data sets import this file.

Images cut from one product resemble one another: one sky, one season, one day. A hundred patches
of one product are far less than a hundred independent images, and a bootstrap that draws them one
by one is far too sure of itself. So intervals draw groups of test images, never the images alone.
A group is the first of these that the data says: the product (or event) that an image was cut from,
the place that it shows, the scene of which it is a window. Where the data says none of them, every
image is a group of its own, and tables say so.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from eofm.contract.spec import ImageSpec, Unit
from eofm.errors import DataError, LabelError, RasterError
from eofm.store.splits import SPLITS, hold_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray as NDArray  # noqa: PLC0414 (see Imagery)
    from torch import Tensor

    from eofm.contract.imagery import Imagery as Imagery  # noqa: PLC0414 (exported)
    from eofm.raster.grid import Grid, Window
    from eofm.raster.source import RasterSource as RasterSource  # noqa: PLC0414 (exported)

__all__ = [
    "NO_GROUPS",
    "PLACES",
    "PRODUCTS",
    "STATED_PLACES",
    "Chip",
    "Chips",
    "FilePixels",
    "Grouping",
    "KeptPixels",
    "Named",
    "NamedT",
    "Pixels",
    "Stored",
    "StoredAt",
    "check_unique",
    "class_counts",
    "file_pixels",
    "groups_sha256",
    "hold_out_val",
    "keeping_pixels",
    "product_in",
    "products_of",
    "read_batches",
    "source_of",
    "taken_in",
    "targets_of",
    "unpacking_remedy",
]


# --------------------------------------------------------------------- which images belong together

# Sentinel-2 and Sentinel-1 as their products are called; patches are called like them with
# something behind. Version 1 of BigEarthNet names no tile, and writes 09:30:20 as T93020.
_PRODUCTS: Final = (
    re.compile(r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{5,6}(?:_N\d{4}_R\d{3}_T\d{2}[A-Z]{3})?(?![^_./-])"),
    re.compile(
        r"S1[A-D]_(?:IW|EW|S\d|WV)_(?:GRD[FHM]|SLC_)_1S[DSHV][HV]_\d{8}T\d{6}(?:_\d{8}T\d{6})?"
        r"(?:_\d{6}_[0-9A-F]{6})?(?![^_./-])"
    ),
)


@dataclass(frozen=True)
class Grouping:
    """Which images of a task belong together, in words.

    Args:
        what: What a group is, in the plural: `Sentinel-2 products`, `places`. Where nothing is
            known, what the images are: `tiles`.
        why: How the group of an image is known, or why none is.
        known: Whether it is. Otherwise every image is a group of its own.
    """

    what: str
    why: str
    known: bool = True


NO_GROUPS: Final = Grouping(
    "test images", "the data set does not say which of them belong together", known=False
)
PRODUCTS: Final = Grouping("products", "the names of the images say which one")
PLACES: Final = Grouping(
    "places",
    "images whose footprints overlap show one place; an image that does not say where it lies is "
    "a place of its own",
)
STATED_PLACES: Final = Grouping("places", "--place states them by the names of the images")


def product_in(name: str) -> str | None:
    """Return the product of Sentinel-1 or Sentinel-2 that a name holds, None if it holds none.

    Args:
        name: Of an image, with or without folders and ending.

    >>> product_in("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57")
    'S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP'
    """
    found = (pattern.search(name) for pattern in _PRODUCTS)
    return next((one.group() for one in found if one), None)


def taken_in(name: str) -> date | None:
    """Return the day on which the product that a name holds was taken; None if it holds none.

    Args:
        name: As of `product_in`.

    >>> taken_in("S2A_MSIL2A_20170613T101031_0_45").isoformat()
    '2017-06-13'
    """
    product = product_in(name)
    day = None if product is None else re.search(r"_(\d{8})T", product)
    try:
        return None if day is None else datetime.strptime(day[1], "%Y%m%d").date()
    except ValueError:  # eight digits that are no day
        return None


def groups_sha256(ids: Sequence[str], groups: Sequence[str]) -> str:
    """Return the sha256 of which sample is in which group; empty where every one is a group.

    Args:
        ids: Of the samples.
        groups: The group of each of them.
    """
    if len(set(groups)) == len(groups):
        return ""
    content = sorted(zip(ids, groups, strict=True))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def products_of(names: Iterable[str]) -> dict[str, str]:
    """Return the product of every image; nothing if one of the names holds none.

    Args:
        names: Of all images that are to be grouped by one rule.
    """
    found = {name: product_in(name) for name in names}
    known = {name: product for name, product in found.items() if product is not None}
    return known if len(known) == len(found) else {}


# -------------------------------------------------------------------------- images and their splits

# What a browser or a downloader leaves beside a file until it is whole.
_UNFINISHED: Final = (".part", ".partial", ".crdownload", ".aria2", ".download", ".tmp")
_ARCHIVES: Final = (".zip", ".tar", ".gz", ".tgz", ".zst", ".gzst", ".bz2", ".xz", ".7z", ".rar")


class Named(Protocol):
    """Anything with a name."""

    @property
    def id(self) -> str:
        """The name."""
        ...


NamedT = TypeVar("NamedT", bound=Named)


@dataclass(frozen=True)
class StoredAt:
    """Where something is stored.

    Args:
        files: The files, which may hold more than this.
        part: Which part of them is meant, in words; empty for all.
    """

    files: tuple[Path, ...]
    part: str = ""


class Stored(Protocol):
    """Something in files."""

    @property
    def place(self) -> StoredAt:
        """Where it is: as long as that and the files stay, so does the digest."""
        ...

    def digest(self) -> str:
        """Return the sha256 of what is stored."""
        ...


_SAME_GSD: Final = 0.02  # relative; what a packed store allows among its images


class Pixels(Stored, Protocol):
    """Where the pixels of one image are."""

    def read(self) -> Imagery:
        """Return the image whole, (1, C, H, W)."""
        ...


@dataclass(frozen=True)
class FilePixels:
    """An image in one file, or in one file per band.

    Args:
        source: The files, and what they are stated to be.
        spec: What the image must be when it is read.
        dtypes: Number types the files may hold; empty leaves that open.
        own: Whether it is one of a user's own images, of which some may be of another sensor: where
            it says where it lies, its pixels have to be as large as those of the first.
    """

    source: RasterSource
    spec: ImageSpec
    dtypes: frozenset[str] = frozenset()
    own: bool = False

    def read(self, window: Window | None = None) -> Imagery:
        """Return the image, or a part of it.

        Args:
            window: The part; None is all of it.

        Raises:
            RasterError: If a file is damaged, or the image is not of the stated kind.
        """
        with self.source.open() as raster:
            size, kinds = (raster.grid.height, raster.grid.width), set(raster.dtypes)
            wrong_kind = self.dtypes and not kinds <= self.dtypes
            other = set(raster.bands) != set(self.spec.bands)
            if other or size != self.spec.size or wrong_kind:
                raise RasterError(
                    "an image is not of the kind that the others are",
                    found=_kind(size, raster.bands, kinds),
                    expected=_kind(self.spec.size, self.spec.bands, self.dtypes),
                    where=self.source.files[0],
                    remedy="make it like the others, of one size and with the same bands; of a "
                    "published set use the files as they were published",
                )
            if self.own and raster.grid.crs is not None and not raster.grid.transform.is_identity:
                self._check_gsd(_gsd_in(raster.grid, self.source.files[0]))
            found = raster.read(window)
        # a file that describes its bands may hold them in an order of its own
        return found if found.spec.bands == self.spec.bands else found.select(self.spec.bands)

    def _check_gsd(self, gsd: float) -> None:
        if not math.isclose(gsd, self.spec.gsd, rel_tol=_SAME_GSD):
            raise RasterError(
                "the pixels of an image are not as large as those of the others",
                found=f"{gsd:g} m",
                expected=f"{self.spec.gsd:g} m",
                where=self.source.files[0],
                remedy="keep images of another ground sample distance in a folder of their own, or "
                "bring them to one before",
            )

    @property
    def place(self) -> StoredAt:
        """The files of its bands."""
        return StoredAt(self.source.files)

    def digest(self) -> str:
        """Return the sha256 of the files, one after the other.

        Raises:
            RasterError: If one cannot be read.
        """
        digest = hashlib.sha256()
        for file in self.source.files:
            try:
                digest.update(file.read_bytes())
            except OSError as error:
                raise RasterError("an image cannot be read", found=error, where=file) from error
        return digest.hexdigest()


def _gsd_in(grid: Grid, file: Path) -> float:
    from eofm.raster.grid import name_file

    try:
        return grid.gsd
    except RasterError as error:
        name_file(error, file)
        raise


def file_pixels(
    file: Path, spec: ImageSpec, dtypes: frozenset[str] = frozenset(), name: str | None = None
) -> FilePixels:
    """Return where the pixels of an image in one file are.

    Args:
        file: The file.
        spec: What the image must be.
        dtypes: Number types the file may hold; empty leaves that open.
        name: Of the image; None takes that of the file.
    """
    from eofm.raster.source import RasterSource

    name = file.stem if name is None else name
    source = RasterSource(name, (file,), spec.sensor, spec.unit, spec.bands, spec.gsd)
    return FilePixels(source, spec, dtypes)


@dataclass(frozen=True)
class KeptPixels:
    """An image that is decoded once and kept in memory: whole numbers as such, without its mask
    where all of it is valid.

    Args:
        inner: Where its pixels are.
        kept: What has been read; empty before.
    """

    inner: Pixels
    kept: list[tuple[NDArray[np.generic], ImageSpec, Tensor | None]] = field(default_factory=list)

    def read(self) -> Imagery:
        """Return the image whole, (1, C, H, W).

        Raises:
            RasterError: If a file is damaged.
        """
        import numpy as np
        import torch

        from eofm.contract.imagery import Imagery

        if not self.kept:
            imagery = self.inner.read()
            values = imagery.pixels.numpy()
            small = values.astype(_COMPACT.get(imagery.spec.unit, "float32"))
            compact = small if np.array_equal(small, values) else values
            whole = None if bool(imagery.valid.all()) else imagery.valid
            self.kept.append((compact, imagery.spec, whole))
            return imagery
        values, spec, valid = self.kept[0]
        if valid is None:
            valid = torch.ones(1, *values.shape[2:], dtype=torch.bool)
        return Imagery(torch.from_numpy(values.astype(np.float32)), spec, valid)

    @property
    def place(self) -> StoredAt:
        """Where it is stored."""
        return self.inner.place

    def digest(self) -> str:
        """Return the sha256 of what is stored."""
        return self.inner.digest()


_COMPACT: Final = {Unit.DN: "uint16", Unit.DN_OFFSET1000: "uint16", Unit.UINT8: "uint8"}
_KEPT_BYTES: Final = 4 * 2**30


def keeping_pixels(chips: Chips, most: int = _KEPT_BYTES) -> Chips:
    """Return the same images, each decoded once and then kept, if all of them fit in memory.

    Args:
        chips: The images.
        most: Bytes; the first image tells how large they are.
    """
    first = [pixels.read() for pixels in chips.all[0].pixels]
    width = {Unit.UINT8: 1, Unit.DN: 2, Unit.DN_OFFSET1000: 2}
    each = sum(image.pixels.numel() * width.get(image.spec.unit, 4) for image in first)
    if each * len(chips.all) > most:
        return chips
    splits = {
        name: tuple(replace(c, pixels=tuple(KeptPixels(p) for p in c.pixels)) for c in part)
        for name, part in chips.splits.items()
    }
    return replace(chips, splits=splits)


def _kind(
    size: tuple[int, int] | None, bands: Sequence[str], kinds: set[str] | frozenset[str]
) -> str:
    pixels = f"{size[0]} x {size[1]} pixels" if size else "pixels"
    numbers = f" of {', '.join(sorted(kinds))}" if kinds else ""
    return f"{pixels}{numbers}, bands {' '.join(bands)}"


@dataclass(frozen=True)
class Chip:
    """One labelled image.

    Args:
        id: Its name, unique in the data set.
        label: Class index, or the indices of the classes that are present.
        pixels: One entry per sensor of the task.
        group: Name of what it was cut from or shows (`eofm.datasets.images.chips`): intervals
            draw groups of test images. Empty: it is a group of its own, as any image of train is,
            of which no interval is made.
        country: Where it lies, if the data set says so: scores can be told apart by it.
    """

    id: str
    label: int | tuple[int, ...]
    pixels: tuple[Pixels, ...]
    group: str = ""
    country: str = ""


@dataclass(frozen=True)
class Chips:
    """The images of a task, divided.

    Args:
        root: The folder as the user named it.
        rule: How they were divided.
        classes: Class names in the order of the indices.
        splits: `train`, `val` and `test`, each in the order of ids; val may be empty.
        remarks: What a reader of the scores should know of these images.

    Raises:
        DataError: If an id occurs twice, or train or test are empty.
        LabelError: If a label is none of the classes, or labels are of both kinds.
    """

    root: Path
    rule: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Chip, ...]]
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ordered = {n: tuple(sorted(self.splits[n], key=lambda c: c.id)) for n in SPLITS}
        object.__setattr__(self, "splits", ordered)
        check_unique(ordered, self.root)
        _check_labels(self.all, self.classes, self.root)
        empty = [name for name in ("train", "test") if not ordered[name]]
        if empty:
            raise DataError(
                "a split has no image",
                found=", ".join(f"{len(ordered[name])} {name}" for name in SPLITS),
                expected="images in train and in test",
                where=self.root,
                remedy=unpacking_remedy(self.root)
                or "the folder holds a part of the data set only: complete the download",
            )

    @property
    def all(self) -> tuple[Chip, ...]:
        """The images of train, val and test, in this order."""
        return tuple(chip for name in SPLITS for chip in self.splits[name])

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return isinstance(self.splits["train"][0].label, tuple)

    def keeping(self, kept: Mapping[str, frozenset[str]]) -> Chips:
        """Return the images whose ids are kept, split by split; other splits stay whole."""
        splits = {
            name: tuple(c for c in chips if name not in kept or c.id in kept[name])
            for name, chips in self.splits.items()
        }
        return replace(self, splits=splits)


def hold_out_val(
    train: Sequence[NamedT], dataset: str, group: Callable[[NamedT], object] | None = None
) -> dict[str, tuple[NamedT, ...]]:
    """Return train and val of a data set that has no val: a tenth of train, drawn by hash.

    Args:
        train: The images of train as published.
        dataset: Name that goes into the hash.
        group: The group of an image; a tenth of each is drawn. None draws of all together.
    """
    groups: dict[str, list[str]] = {}
    for one in train:
        groups.setdefault("" if group is None else str(group(one)), []).append(one.id)
    held = frozenset(hold_out(groups, dataset, Fraction(1, 10))[1])
    return {
        "train": tuple(one for one in train if one.id not in held),
        "val": tuple(one for one in train if one.id in held),
    }


def targets_of(chips: Sequence[Chip], classes: int) -> Tensor:
    """Return class indices (N,), or multi-hot (N, K) where images may have several; int64."""
    import torch

    if not chips or isinstance(chips[0].label, int):
        return torch.tensor([chip.label for chip in chips], dtype=torch.int64)
    hot = torch.zeros(len(chips), classes, dtype=torch.int64)
    for row, chip in enumerate(chips):
        if isinstance(chip.label, tuple):
            hot[row, list(chip.label)] = 1
    return hot


def source_of(chip: Chip) -> RasterSource:
    """Return the files of an image of one sensor.

    Raises:
        DataError: If it is no file of its own, but a part of one.
    """
    pixels = chip.pixels[0]
    if not isinstance(pixels, FilePixels):
        raise DataError(
            "an image is no file of its own",
            found=type(pixels).__name__,
            expected="one file per image",
            where=chip.id,
        )
    return pixels.source


def read_batches(chips: Sequence[Chip], size: int, sensor: int = 0) -> Iterator[Imagery]:
    """Yield images in batches of at most `size`, in order.

    Args:
        chips: The images.
        size: Of a batch.
        sensor: Which of the task's sensors.

    Raises:
        RasterError: If an image is damaged.
        DataError: If one is of another kind than its neighbours.
    """
    from eofm.contract.imagery import collate

    for start in range(0, len(chips), size):
        yield collate([chip.pixels[sensor].read() for chip in chips[start : start + size]])


# ----------------------------------------------------------------------------- checking


def check_unique(splits: Mapping[str, Sequence[Named]], root: Path) -> None:
    """Refuse a name that occurs twice, in one split or in two.

    Raises:
        DataError: If one does.
    """
    seen: dict[str, str] = {}
    for name, chips in splits.items():
        for chip in chips:
            if chip.id in seen:
                raise DataError(
                    "two images have the same name",
                    found=f"{chip.id} in {seen[chip.id]} and in {name}",
                    expected="every name once in all splits together",
                    where=root,
                    remedy="rename one of them, or remove it if it is a copy",
                )
            seen[chip.id] = name


def _check_labels(chips: Sequence[Chip], classes: Sequence[str], root: Path) -> None:
    kinds = {type(chip.label) for chip in chips}
    if len(kinds) > 1:
        raise LabelError("some images have one class and others a set of classes", where=root)
    for chip in chips:
        labels = (chip.label,) if isinstance(chip.label, int) else chip.label
        if any(not 0 <= label < len(classes) for label in labels):
            raise LabelError(
                "a label is none of the classes",
                found=chip.label,
                expected=f"0..{len(classes) - 1}",
                where=f"{root}: {chip.id}",
            )


def class_counts(chips: Sequence[Chip], classes: Sequence[str]) -> dict[str, int]:
    """Return how many images have each class."""
    count: Counter[int] = Counter()
    for chip in chips:
        count.update((chip.label,) if isinstance(chip.label, int) else chip.label)
    return {name: count[index] for index, name in enumerate(classes)}


def unpacking_remedy(root: Path) -> str | None:
    """Return what to do about archives or unfinished downloads that lie where images should be."""
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    torn = [name for name in names if name.lower().endswith(_UNFINISHED)]
    if torn:
        return f"{torn[0]} is a download that has not ended: complete it, then unpack it"
    packed = [name for name in names if name.lower().endswith(_ARCHIVES)]
    if packed:
        return f"unpack {', '.join(packed[:4])} first"
    return None
