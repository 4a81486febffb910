"""Which place each image of a folder shows, and a user's own images divided by place.

A place is a piece of ground. Images whose footprints overlap, directly or through others, show one
place (`eofm.raster.ground`), whatever their files are called; so do all acquisitions of one grid. A
pattern of names, `--place`, states the places instead: `T32_{place}_*` says that of
`T32_berlin_20200101` the place is `berlin`. `*` stands for any text, `?` for one character,
`{place}` for the name of the place, as short as the pattern allows. A pattern with `/` is compared
with the path of an image in its folder, any other with its last part; both without the ending of
the file. Training, validation and test, and what is held out of pretraining, are divided by place.

The splits of a user's own images are given by folders or a table. Where there is no val, 20 % of
the places of train become it, drawn by hash, so that no place is in both. Splits that were given
stay as they are; images of test that show the ground of train or val are reported.

`--unit_of` states the unit of single images by patterns of their names.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar

from eofm.datasets.images.chips import Chip
from eofm.datasets.images.dense import DenseChip
from eofm.errors import ConfigError, DataError, RasterError
from eofm.store.splits import SPLITS, hold_out
from eofm.terminal import track

if TYPE_CHECKING:
    from eofm.contract.spec import ImageSpec, Sensor, Unit
    from eofm.raster.grid import Grid
    from eofm.raster.source import RasterSource

__all__ = [
    "EVERY_IMAGE",
    "ChipT",
    "Divided",
    "OwnImage",
    "Places",
    "by_ground",
    "check_place",
    "divide",
    "find_places",
    "first_spec",
    "grid_of_file",
    "is_located",
    "known_unit",
    "names_of",
    "place_in",
    "split_folders",
    "split_of",
    "state_units",
    "units_of",
]


# ------------------------------------------------------------ places by the ground, or by a pattern

ChipT = TypeVar("ChipT", Chip, DenseChip)

_NAMED: Final = 5
_MARK: Final = "{place}"
EVERY_IMAGE: Final = f"--place '{_MARK}'"  # each image is a place of its own


@dataclass(frozen=True)
class Places:
    """The place of every image.

    Args:
        of: Image -> place, which is called like the first of its images or as stated.
        unlocated: How many images could not be located and count as a place each.
    """

    of: Mapping[str, str]
    unlocated: int = 0

    def season_of(self, name: str) -> str:
        """Return what tells the images of one place apart: its name, or nothing if it is alone."""
        return name if self._counts[self.of[name]] > 1 else ""

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(self.of.values())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know: images without a location, and one place with most images."""
        said = []
        if self.unlocated:
            said.append(
                f"{self.unlocated} of {len(self.of)} images do not say where they lie: each counts "
                "as a place of its own; --place PATTERN states places by names, as in "
                "--place 'T32_{place}_*'"
            )
        place, count = self._counts.most_common(1)[0] if self.of else ("", 0)
        if count > 1 and 2 * count > len(self.of):
            said.append(
                f"{count} of {len(self.of)} images are one place ({place}): "
                "their footprints overlap, directly or through others, or --place says so; "
                f"{EVERY_IMAGE} makes every image a place of its own"
            )
        return tuple(said)

    def leaks(self, splits: Mapping[str, str]) -> tuple[str, ...]:
        """Return remarks that name images of test (of val) on ground that train (or val) shows.

        Args:
            splits: Image -> `train`, `val` or `test`.
        """
        seen: dict[str, str] = {}
        said = []
        for number, split in enumerate(SPLITS):
            own = [name for name, its in splits.items() if its == split]
            found = [(name, seen[self.of[name]]) for name in own if self.of[name] in seen]
            if found:
                names = ", ".join(f"{one} with {other}" for one, other in found[:_NAMED])
                more = f" and {len(found) - _NAMED} more" if found[_NAMED:] else ""
                said.append(
                    f"Leak: {len(found)} of {len(own)} {split} images show ground of "
                    f"{' or '.join(SPLITS[:number])}: {names}{more}. Put all images of a place "
                    f"into one split; where footprints are wrong, {EVERY_IMAGE} makes every image "
                    "a place of its own."
                )
            for name in own:
                seen.setdefault(self.of[name], name)
        return tuple(said)


def find_places(images: Mapping[str, Grid | None], pattern: str | None = None) -> Places:
    """Return the place of every image.

    Args:
        images: Name -> its grid, None where it has none. Of the images of a place, the first one
            here gives it its name.
        pattern: States the places by the names of the images; grids do not count then.

    Raises:
        ConfigError: If the pattern does not fit a name.
    """
    if pattern is not None:
        return Places(_stated(images, pattern))
    from eofm.raster.ground import same_ground

    names = list(images)
    groups = same_ground(list(images.values()))
    lost = sum(not is_located(grid) for grid in images.values())
    return Places({n: names[group] for n, group in zip(names, groups, strict=True)}, lost)


def is_located(grid: Grid | None) -> bool:
    """Return whether an image says where it lies."""
    return grid is not None and grid.crs is not None and not grid.transform.is_identity


def _stated(names: Iterable[str], pattern: str) -> dict[str, str]:
    found = {name: place_in(name, pattern) for name in names}
    strange = [name for name, place in found.items() if place is None]
    if strange:
        raise ConfigError(
            "the pattern of places does not fit the names of all images",
            found=f"{len(strange)}: {', '.join(strange[:_NAMED])}"
            + (", ..." if strange[_NAMED:] else ""),
            expected=pattern,
            where="--place",
            remedy=f"{EVERY_IMAGE} fits every name: each image is a place of its own",
        )
    return {name: place for name, place in found.items() if place is not None}


def grid_of_file(file: Path) -> Grid | None:
    """Return where an image lies, None where the file cannot be opened: reading it will say so."""
    from eofm.raster.geotiff import grid_of, open_geotiff

    try:
        with open_geotiff(file) as dataset:
            return grid_of(dataset)
    except RasterError:
        return None


def by_ground(chips: Sequence[ChipT]) -> tuple[ChipT, ...]:
    """Return images with their place as their group. Each file is opened, no pixel is read.

    Args:
        chips: Images of one split; of each the first sensor says where it lies.
    """
    opened = track(chips, "locating images")
    grids = {chip.id: grid_of_file(chip.pixels[0].place.files[0]) for chip in opened}
    places = find_places(grids)
    return tuple(replace(chip, group=places.of[chip.id]) for chip in chips)


def units_of(names: Sequence[str], places: Places) -> dict[str, list[str]]:
    """Return the images by place, each place under the name of its first image."""
    first: dict[str, str] = {}
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(first.setdefault(places.of[name], name), []).append(name)
    return units


# ----------------------------------------------------------------------- stated by names


def check_place(pattern: str | None) -> None:
    """Refuse a pattern that does not say which part of a name is the place.

    Raises:
        ConfigError: If `{place}` is not in it exactly once.
    """
    if pattern is not None and pattern.count(_MARK) != 1:
        raise ConfigError(
            "a pattern of places says once which part of a name is the place",
            found=pattern,
            expected=f"{_MARK} once, as in T32_{_MARK}_*",
            where="--place",
            remedy=f"{EVERY_IMAGE} makes every image a place of its own",
        )


def place_in(name: str, pattern: str) -> str | None:
    """Return the place that a name states, or None if the pattern does not fit.

    Args:
        name: Path of an image in its folder, without the ending.
        pattern: With `{place}` in it once.

    >>> place_in("2020/T32_berlin_20200101", "T32_{place}_*")
    'berlin'
    """
    words = {"*": ".*?", "?": "."}
    before, after = (
        "".join(words.get(sign, re.escape(sign)) for sign in part) for part in pattern.split(_MARK)
    )
    whole = name if "/" in pattern else PurePosixPath(name).name
    found = re.fullmatch(f"{before}(.+?){after}", whole, re.DOTALL)
    return None if found is None else found.group(1)


# ------------------------------------------------------------------------------ a user's own images


@dataclass(frozen=True)
class OwnImage:
    """One image of a user.

    Args:
        id: Its name, unique.
        path: The file.
        split: `train`, `val` or `test`, as given.
        key: What val is drawn by.
        labels: Its classes; none where they are in a mask.
        by_class: Whether a share of each class is drawn, by the class of a place's first image.
    """

    id: str
    path: Path
    split: str
    key: str
    labels: tuple[str, ...] = ()
    by_class: bool = False


@dataclass(frozen=True)
class Divided:
    """How the images are divided.

    Args:
        rule: In words.
        split: Image -> `train`, `val` or `test`.
        place: Image -> first image of its place in its split.
        remarks: What a reader of scores should know.
    """

    rule: str
    split: Mapping[str, str]
    place: Mapping[str, str]
    remarks: tuple[str, ...]


_NAMES: Final = {name: name for name in SPLITS} | dict.fromkeys(("valid", "validation"), "val")


def split_of(name: str) -> str | None:
    """Return the split that a folder or a table calls so; None if it is none.

    >>> split_of("Valid"), split_of("dev")
    ('val', None)
    """
    return _NAMES.get(name.casefold())


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of a root that are splits: `train`, `val` and `test` -> folder.

    Raises:
        DataError: If two are the same split, or one that is none is laid out like them: nothing
            that a user meant to be used is left out without a word.
    """
    folders = _folders(root)
    splits: dict[str, Path] = {}
    for path in folders:
        name = split_of(path.name)
        if name is not None and splits.setdefault(name, path) != path:
            raise DataError(
                "two folders are the same split",
                found=f"{splits[name].name} and {path.name}",
                where=root,
                remedy=f"move what is in {path.name} into one of them",
            )
    names = {below.name for top in splits.values() for below in _folders(top)}
    others = [path for path in folders if split_of(path.name) is None]
    strange = [path for path in others if _is_unused(path, names, splits.values())]
    if strange:
        raise DataError(
            "a folder is laid out like the splits and is none of them",
            found=", ".join(path.name for path in strange),
            expected="train, val and test",
            where=root,
            remedy=f"give {strange[0].name} the name of its split, or move it out of the folder",
        )
    return splits


def _folders(root: Path) -> list[Path]:
    from eofm.raster.folder import is_hidden

    return [p for p in sorted(root.iterdir()) if p.is_dir() and not is_hidden(p.name)]


def _is_unused(path: Path, names: Collection[str], splits: Iterable[Path]) -> bool:
    """Return whether a folder holds images, in folders of those names, to which no split links."""
    from eofm.raster.folder import PICTURES, SUFFIXES, walk_files

    kinds = SUFFIXES | PICTURES
    belows = [below for below in _folders(path) if below.name in names]
    held = [file for below in belows for file in walk_files(below, kinds)]
    if not held:
        return False
    used = {folder.resolve() for top in splits for folder in _parents(walk_files(top, kinds))}
    return any(folder.resolve() not in used for folder in _parents(held))


def _parents(files: Iterable[Path]) -> set[Path]:
    return {file.parent for file in files}


def divide(images: Sequence[OwnImage], dataset: str, pattern: str | None) -> Divided:
    """Hold out a val of train where none is given, and compare the ground of the splits.

    Args:
        images: All of them.
        dataset: Name that goes into the hash.
        pattern: States the places by names; None takes images that overlap as one place.

    Raises:
        ConfigError: If the pattern does not fit a name.
    """
    opened = track(images, "locating images") if pattern is None else images
    grids = {one.id: grid_of_file(one.path) if pattern is None else None for one in opened}
    places = find_places(grids, pattern)
    split = {one.id: one.split for one in images}
    remarks = [*places.remarks, *places.leaks(split)]
    rule = "given"
    if "val" not in split.values():
        rule = "given, val held out"
        train = [one for one in images if one.split == "train"]
        taken = _held_out(train, places, dataset)
        if not taken and len(train) > 1:
            every = Places({one.id: one.id for one in train})
            taken = _held_out(train, every, dataset)
            remarks += [_NO_PLACE_TO_SPARE] if taken else []
        split |= dict.fromkeys(taken, "val")
    first: dict[tuple[str, str], str] = {}
    place = {n: first.setdefault((split[n], places.of[n]), n) for n in split}
    return Divided(rule, split, place, tuple(remarks))


def names_of(files: Iterable[Path], folder: Path) -> dict[Path, str]:
    """Return a name for each file, no two alike: its path in the folder, without its ending.

    Files that differ in their ending only, such as `a.tif` and `a.tiff`, keep it.
    """
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    return {
        file: name if len(same) == 1 else file.relative_to(folder).as_posix()
        for name, same in by_name.items()
        for file in same
    }


_NO_PLACE_TO_SPARE: Final = (
    "Val shows ground that train shows, too, and its scores say little: the training images of "
    "each class are one place, so val is drawn by image. Test images are untouched by this. Put "
    "other places into val/, or state places with --place."
)


def _held_out(train: Sequence[OwnImage], places: Places, dataset: str) -> set[str]:
    """Return the images of the places that are drawn; every class stays in train."""
    by_id = {one.id: one for one in train}
    units = {by_id[n].key: ids for n, ids in units_of(list(by_id), places).items()}
    groups: dict[str, list[str]] = {}
    for key, ids in units.items():
        one = by_id[ids[0]]
        groups.setdefault(one.labels[0] if one.by_class else "", []).append(key)
    left = Counter(label for one in train for label in one.labels)
    taken: set[str] = set()
    for key in hold_out(groups, dataset)[1]:
        lost = Counter(label for name in units[key] for label in by_id[name].labels)
        # a place of several classes may hold all images of one of them
        if all(left[label] > count for label, count in lost.items()):
            left -= lost
            taken.update(units[key])
    return taken


def first_spec(
    path: Path, sensor: Sensor, unit: Unit, bands: tuple[str, ...] | None, gsd: float | None
) -> ImageSpec:
    """Return what the first image is, and so all: its pixels are as large as it says, or is stated.

    Args:
        path: The image.
        sensor: What it is.
        unit: Unit of its values.
        bands: In stored order; None takes what it says, else the order of the sensor.
        gsd: Metres per pixel of an image that does not say where it lies.

    Raises:
        RasterError: If it cannot be read, or says nothing of its pixels and nobody states them, or
            another size than stated.
    """
    from eofm.raster.grid import name_file
    from eofm.raster.source import RasterSource

    grid = grid_of_file(path)
    try:
        own = grid.gsd if grid is not None and is_located(grid) else None
    except RasterError as error:
        name_file(error, path)
        raise
    if grid is not None and own is None and gsd is None:
        raise RasterError(
            "the images do not say where they lie, nor how large their pixels are",
            found="no coordinate reference system, or no transform to it",
            expected="georeferenced files, or a stated ground sample distance",
            where=path,
            remedy="state the metres per pixel, as in: --gsd 10",
        )
    if own is not None and gsd is not None and not math.isclose(own, gsd, rel_tol=0.02):
        raise RasterError(
            "the images say themselves how large their pixels are",
            found=f"--gsd {gsd:g}",
            expected=f"{own:g} m",
            where=path,
            remedy=f"leave it out, or state what they say: --gsd {own:g}",
        )
    stated = gsd if own is None else None
    with RasterSource(path.stem, (path,), sensor, unit, bands, stated).open() as raster:
        return raster.spec()


# ------------------------------------------------------------------------------------ stated units


def known_unit(source: RasterSource) -> RasterSource:
    """Return an image with the unit that its files say, where none is stated.

    Raises:
        DataError: If they cannot be read, or say none.
    """
    if source.unit is not None:
        return source
    with source.open() as raster:
        return replace(source, unit=raster.unit)


def state_units(sources: Sequence[RasterSource], unit_of: Mapping[str, Unit]) -> list[RasterSource]:
    """Return the images with the units that patterns of their names state.

    Args:
        sources: The images, in the unit of most.
        unit_of: Pattern of a name, of a path in the folder or of a file name -> unit.

    Raises:
        ConfigError: If a pattern fits no image, or two of different units fit one.
    """
    unused = set(unit_of)
    stated = []
    for source in sources:
        names = {source.name, PurePosixPath(source.name).name, *(f.name for f in source.files)}
        units = {}
        for pattern, unit in unit_of.items():
            if any(fnmatch(name, pattern) for name in names):
                unused.discard(pattern)
                units[pattern] = unit
        if len(set(units.values())) > 1:
            raise ConfigError(
                "an image is stated to be in several units",
                found=", ".join(f"{pattern}: {unit}" for pattern, unit in units.items()),
                where=source.name,
                remedy="make the patterns of unit_of exclude one another",
            )
        stated.append(replace(source, unit=next(iter(units.values()), source.unit)))
    if unused:
        raise ConfigError(
            "a pattern of unit_of fits no image",
            found=", ".join(sorted(unused)),
            expected=f"names such as {', '.join(source.name for source in sources[:3])}",
            remedy="correct the pattern, or leave it out",
        )
    return stated
