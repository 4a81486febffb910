"""A user's own images: divided into training, validation and test by place, in the units stated.

Splits are given by folders or a table. Where there is no val, 20 % of the places of train become
it, drawn by hash, so that no place is in both. Splits that were given stay as they are; images of
test that show the ground of train or val are reported.

`--unit_of` states the unit of single images by patterns of their names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from eofm.datasets.images.places import (
    Places,
    find_places,
    grid_of_file,
    is_located,
    units_of,
)
from eofm.errors import ConfigError, DataError, RasterError
from eofm.progress import track
from eofm.store.splits import SPLITS, hold_out

if TYPE_CHECKING:
    from eofm.contract.spec import ImageSpec, Sensor, Unit
    from eofm.raster.source import RasterSource


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
    from eofm.raster.source import RasterSource

    grid = grid_of_file(path)
    own = grid.gsd if grid is not None and is_located(grid) else None
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
