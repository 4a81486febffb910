"""Data sets of one class per image that lie in class folders: EuroSAT, UC Merced, RESISC45.

Class folders alone say nothing of train and test. The lists of Neumann et al. (arXiv 1911.06721),
which torchgeo distributes beside the archives, are read where they lie in the folder, and their
md5 is compared. They are not part of this package; without them a split by hash can be asked for.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.base import Loaded, Task
from eofm.datasets.images.chips import Chip, Chips, Pixels, StoredAt, file_pixels, unpacking_remedy
from eofm.errors import ConfigError, DataError, RasterError
from eofm.store.splits import SPLITS, by_hash

if TYPE_CHECKING:
    from eofm.contract.imagery import Imagery

__all__ = [
    "RGB",
    "ClassFolders",
    "FolderSplit",
    "PicturePixels",
    "list_files",
    "load_class_folders",
    "open_class_folders",
]

RGB: Final = ("R", "G", "B")


class FolderSplit(StrEnum):
    """How images are divided."""

    LISTS = "lists"  # the published random lists, which must lie in the folder
    SPATIAL_LISTS = "spatial-lists"  # EuroSAT: torchgeo's lists by longitude, likewise
    STRATIFIED = "stratified"  # 60/20/20 of each class, by hash of the name
    SPATIAL = "spatial"  # EuroSAT MS: 60/20/20 by longitude of the tile
    GIVEN = "given"  # EuroSAT MS: folders train and test


@dataclass(frozen=True)
class ClassFolders:
    """One data set.

    Args:
        name: Goes into the hash of a stratified split.
        classes: Class names as in tables; `folders` where the folders are called otherwise.
        nested: Where the class folders may lie below the root.
        endings: Of the image files.
        spec: What the images are.
        size: Number of images.
        lists: Rule -> split -> file name and md5 of the published list.
        divide: How images are divided where no published list divides them; None divides none.
        varying: Some images differ by some pixels from the size, and are brought to it.
    """

    name: str
    classes: tuple[str, ...]
    nested: tuple[str, ...]
    endings: tuple[str, ...]
    spec: ImageSpec
    size: int
    lists: Mapping[FolderSplit, Mapping[str, tuple[str, str]]]
    divide: Callable[[Path, FolderSplit | None], Chips] | None = None
    varying: bool = False


def list_files(pattern: str, train: str, val: str, test: str) -> Mapping[str, tuple[str, str]]:
    """Return the published lists by split: file name and md5.

    Args:
        pattern: Of the file names, with `{}` for the split.
        train: Md5 of the list of train.
        val: Of val.
        test: Of test.
    """
    md5s = zip(SPLITS, (train, val, test), strict=True)
    return {split: (pattern.format(split), md5) for split, md5 in md5s}


def open_class_folders(
    folders: ClassFolders, root: Path | str, rule: FolderSplit | None = None
) -> Chips:
    """Find the images below `root` and divide them. Pixels are not read yet.

    Args:
        folders: Which data set.
        root: Folder of the class folders, or above them.
        rule: None takes the published lists where they lie in the folder. Without them, a data
            set that has a division of its own takes it, others are refused.

    Raises:
        DataError: If class folders are missing, foreign or empty, an id occurs twice, or the
            lists are not the published ones.
        ConfigError: If there is no such way of dividing.
        RasterError: If a tile has to be opened for its longitude and cannot be.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, remedy="name it with --root")
    if rule is None and _has_lists(folders, root, FolderSplit.LISTS):
        rule = FolderSplit.LISTS
    if folders.divide is not None and rule not in folders.lists:
        return folders.divide(root, rule)
    found = _find(folders, root)
    if rule is None:
        raise ConfigError(
            "these images are not divided into train and test",
            found="no published lists in the folder",
            expected=", ".join(name for name, _ in folders.lists[FolderSplit.LISTS].values()),
            where=root,
            remedy="put the lists there, or say --split stratified (by hash; not comparable with "
            "published scores)",
        )
    if rule is FolderSplit.STRATIFIED:
        groups = {
            n: [c.id for c in found if folders.classes[_index(c)] == n] for n in folders.classes
        }
        parts = by_hash(groups, folders.name)
    elif rule in folders.lists:
        parts = _read_lists(folders, root, rule)
    else:
        raise ConfigError(
            f"{folders.name} cannot be divided like this",
            found=rule,
            expected=" | ".join([*folders.lists, FolderSplit.STRATIFIED]),
        )
    return _divided(folders, root, rule, found, parts)


def load_class_folders(task: Task, folders: ClassFolders, root: str, split: str) -> Loaded:
    """Open a task whose images lie in class folders.

    Args:
        task: The task.
        folders: Its data set.
        root: As for `open_class_folders`, which says what it raises.
        split: A `FolderSplit`, or `auto` for none.
    """
    rule = None if split == "auto" else FolderSplit(split)
    return Loaded(task, open_class_folders(folders, root, rule), task.size)


def _divided(
    folders: ClassFolders,
    root: Path,
    rule: FolderSplit,
    found: Sequence[Chip],
    parts: Mapping[str, Sequence[str]],
) -> Chips:
    by_id = {chip.id: chip for chip in found}
    missing = [i for ids in parts.values() for i in ids if i not in by_id]
    splits = {n: tuple(by_id[i] for i in parts[n] if i in by_id) for n in SPLITS}
    remarks = (f"{len(missing)} images of the lists are not there",) if missing else ()
    return Chips(root, rule, folders.classes, splits, remarks)


def _index(chip: Chip) -> int:
    assert isinstance(chip.label, int)  # noqa: S101 (`_find` makes no other)
    return chip.label


# ----------------------------------------------------------------------------- finding


def _find(folders: ClassFolders, root: Path) -> list[Chip]:
    folder = next(
        (root / n for n in folders.nested if any((root / n / c).is_dir() for c in folders.classes)),
        None,
    )
    there = sorted(path.name for path in (folder or root).iterdir() if path.is_dir())
    missing = [name for name in folders.classes if name not in there]
    if folder is None or missing:
        raise DataError(
            f"these are not the {len(folders.classes)} class folders of {folders.name}",
            found=", ".join(there) or "no folder",
            expected=", ".join(folders.classes),
            where=folder or root,
            remedy=unpacking_remedy(root) or f"missing: {', '.join(missing)}",
        )
    from eofm.raster.folder import class_files

    chips = []
    for label, name in enumerate(folders.classes):
        files = class_files(folder / name, folders.endings)
        if not files:
            raise DataError(
                "a class folder has no image in it",
                found=", ".join(sorted({p.suffix for p in (folder / name).iterdir()})) or "nothing",
                expected=f"*{folders.endings[0]}",
                where=folder / name,
            )
        chips += [Chip(path.stem, label, (_pixels(folders, path),)) for path in files]
    return chips


def _pixels(folders: ClassFolders, path: Path) -> Pixels:
    spec = folders.spec
    if spec.sensor is Sensor.RGB:
        return PicturePixels(path, spec, varying=folders.varying)
    kinds = frozenset({"uint16"}) if spec.unit is Unit.DN else frozenset({"float32", "float64"})
    return file_pixels(path, spec, kinds)


_DRIVERS: Final = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "GTiff", ".tiff": "GTiff"}


@dataclass(frozen=True)
class PicturePixels:
    """A picture of three 8-bit bands, red, green and blue.

    Args:
        path: JPEG or TIFF, as its ending says.
        spec: What it is.
        varying: Bring it to the size of the spec, bilinearly, if it has another.
    """

    path: Path
    spec: ImageSpec
    varying: bool = False

    def read(self) -> Imagery:
        """Return the picture.

        Raises:
            RasterError: If it is damaged, or is not of the stated kind.
        """
        import rasterio
        import torch
        from rasterio.errors import NotGeoreferencedWarning, RasterioError

        from eofm.contract.imagery import Imagery
        from eofm.contract.preprocess import resize
        from eofm.contract.recipe import Kernel

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(self.path, driver=_DRIVERS[self.path.suffix.lower()]) as file:
                    values, kinds = file.read(), set(file.dtypes)
        except (OSError, RasterioError) as error:
            raise RasterError(
                "a picture is damaged or no picture",
                found=error,
                where=self.path,
                remedy="unpack the archive again",
            ) from error
        fits = self.varying or values.shape[1:] == self.spec.size
        if values.shape[0] != 3 or kinds != {"uint8"} or not fits:
            raise RasterError(
                "this is not a picture of the data set",
                found=f"{values.shape} of {', '.join(sorted(kinds))}",
                expected=f"(3, {self.spec.size}) of uint8",
                where=self.path,
            )
        assert self.spec.size is not None  # noqa: S101 (every such data set states one)
        pixels = torch.from_numpy(values).float()[None]
        pixels = resize(pixels, self.spec.size, Kernel.BILINEAR, antialias=True).round()
        return Imagery(pixels, self.spec, torch.ones(1, *self.spec.size, dtype=torch.bool))

    @property
    def place(self) -> StoredAt:
        """The picture."""
        return StoredAt((self.path,))

    def digest(self) -> str:
        """Return the sha256 of the file.

        Raises:
            RasterError: If it cannot be read.
        """
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise RasterError("a picture cannot be read", found=error, where=self.path) from error


# ------------------------------------------------------------------------------- lists


def _has_lists(folders: ClassFolders, root: Path, rule: FolderSplit) -> bool:
    return all((root / name).is_file() for name, _ in folders.lists[rule].values())


def _read_lists(folders: ClassFolders, root: Path, rule: FolderSplit) -> dict[str, tuple[str, ...]]:
    """Return the ids of every split; the lists name files of any ending."""
    parts = {}
    for split, (name, md5) in folders.lists[rule].items():
        try:
            data = (root / name).read_bytes()
        except OSError as error:
            raise DataError(
                "a published list is not there",
                found=error,
                expected=name,
                where=root,
                remedy="torchgeo distributes it beside the archive; or say --split stratified",
            ) from error
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != md5:
            raise DataError(
                "this is not the published list",
                found=f"md5 {found}",
                expected=f"md5 {md5}",
                where=root / name,
                remedy="download it again",
            )
        parts[split] = tuple(Path(line).stem for line in data.decode().split())
    return parts
