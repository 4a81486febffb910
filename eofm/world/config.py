"""Settings of `eofm world`. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eofm.errors import ConfigError
from eofm.settings import checked_settings

__all__ = ["MAX_SCENES", "WorldConfig"]

MAX_SCENES = 10_000_000  # location folders have seven digits


@dataclass(frozen=True)
@checked_settings
class WorldConfig:
    """A synthetic world to write, in the file layout of SSL4EO-S12 v1.

    Location i of a world is the same whatever `scenes`, `seasons` and `workers` are.

    Args:
        out: Folder to write to. An interrupted world is completed, a larger one grows out of it.
        scenes: Number of locations.
        seed: Seed of the world.
        size: Width and height at 10 m in pixels, a multiple of 6 (60 m bands); SSL4EO-S12 has 264.
        seasons: Acquisitions per location, 1 to 4.
        workers: Processes that write at the same time; it changes no byte.
        safe: Processing baseline, as in 05.11, of Sentinel-2 L1C products that are written next to
            the GeoTIFFs, in the layout of ESA's SAFE, each with polygons of known ground as
            GeoJSON. Since 04.00 their digital numbers carry an offset of 1000. None writes none.

    Raises:
        ConfigError: If a number is out of range.
    """

    out: str
    scenes: int = 200
    seed: int = 0
    size: int = 264
    seasons: int = 4
    workers: int = 2
    safe: str | None = None

    def __post_init__(self) -> None:
        if not self.out.strip():
            raise ConfigError("a world needs a folder", remedy="--out worlds/mine")
        _within("scenes", self.scenes, 1, MAX_SCENES)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("seasons", self.seasons, 1, 4)
        _within("workers", self.workers, 1, 1024)
        _within("size", self.size, 48, 2640)
        if self.safe is not None and not re.fullmatch(r"[0-9]{2}\.[0-9]{2}", self.safe):
            raise ConfigError(
                "a processing baseline has two digits, a point, and two digits",
                found=self.safe,
                expected="as in 05.11",
                remedy="--safe 05.11",
            )
        if self.size % 6:
            raise ConfigError(
                "size must be a multiple of 6: one 60 m pixel covers six 10 m pixels",
                found=self.size,
                remedy=f"use {self.size // 6 * 6} or {(self.size // 6 + 1) * 6}",
            )


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is out of range", found=value, expected=f"{low} to {high}")
