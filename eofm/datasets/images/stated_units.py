"""`--unit_of`: the unit of single images of a folder, stated by patterns of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import PurePosixPath

from eofm.contract.spec import Unit
from eofm.errors import ConfigError
from eofm.raster.source import RasterSource


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
