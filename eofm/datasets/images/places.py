"""Which place each image of a folder shows: a place is a piece of ground.

Images whose footprints overlap, directly or through others, show one place
(`eofm.raster.ground`), whatever their files are called; so do all acquisitions of one grid. A
pattern of names, `--place`, states the places instead: `T32_{place}_*` says that of
`T32_berlin_20200101` the place is `berlin`. `*` stands for any text, `?` for one character,
`{place}` for the name of the place, as short as the pattern allows. A pattern with `/` is compared
with the path of an image in its folder, any other with its last part; both without the ending of
the file. Training, validation and test, and what is held out of pretraining, are divided by place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar

from eofm.datasets.images.chips import Chip
from eofm.datasets.images.dense import DenseChip
from eofm.errors import ConfigError, RasterError
from eofm.progress import track
from eofm.store.splits import SPLITS

if TYPE_CHECKING:
    from eofm.raster.grid import Grid

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
