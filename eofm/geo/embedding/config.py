"""Settings of `eofm embed`. Standard library only."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Final, Literal

from eofm.errors import ConfigError, require
from eofm.settings import checked_settings

__all__ = ["FORCE", "SIDE", "EmbedConfig"]

SIDE: Final = (
    32  # pixels of a chip where none is stated: 320 m of Sentinel-2, as Earth Index has it
)
_DEVICE: Final = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
FORCE: Final = ("sensor", "missing-band", "scale", "pixels")


@dataclass(frozen=True)
@checked_settings
class EmbedConfig:
    """Turn scenes into vectors: one for each chip, one for each patch, or both.

    Without --chips and --patches: chips of 32 pixels.

    Args:
        scenes: Scenes to embed: GeoTIFFs, folders with a file per band, SAFE products, STAC items,
            netCDF or Zarr, URLs; or a .txt file with one of these per line.
        model: Weights, as in `eofm bench`: an export, a run, a published name, a file, random:ARCH.
        out: Output folder. With several scenes, each gets a subfolder.
        sensor: Sensor and product level, such as s2-l1c, if the product does not state them.
        unit: Unit of the values, such as dn, if the product does not state it.
        bands: Bands in stored order, if the file does not name them.
        time: Time step of a netCDF or Zarr series, such as 2021-07-04.
        item: One of several images: identifier of a STAC item, tile of a SAFE product.
        size: Side of the network's input in pixels, for weights that do not state it (random:,
            timm:); 224 by default.
        chips: Side of a chip in pixels of the scene.
        stride: Step between chips, or between patches, in pixels; by default their side. A smaller
            step gives a finer patch grid by shifted passes: --patches --stride 7 runs four passes
            with patches of 14 pixels.
        grid: Grid of the chips: scene starts at the first pixel of the scene; majortom uses the
            cells of the Major TOM grid, which are the same for every scene of a place.
        patches: Write the vector of every patch token, as a raster.
        window: Side of the windows of the patch grid, in pixels of the scene; by default the side
            of the network's input, so that nothing is resized.
        overlap: Patches shared and blended between neighbouring windows; by default a quarter of a
            window. 0 turns blending off, and seams become visible.
        where: Part of the scenes to embed: west,south,east,north, or a file of polygons.
        where_crs: CRS of west,south,east,north.
        cloud_mask: Mask layer used to leave out clouds, such as SCL or QA60.
        min_valid: Share of a chip or patch that must be measured and free of clouds.
        quantization: int8 stores each dimension in 256 steps; auto does so from 100,000 vectors on.
        formats: Formats of the patch grid: tif, zarr, or both.
        licence: Licence of the vectors (SPDX identifier).
        batch: Windows per forward pass.
        readers: Threads that prefetch windows.
        device: auto, cpu, cuda, or one of several: cuda:1.
        devices: Devices among which the scenes are divided, one process each: cuda:0 cuda:1.
        workers: Processes on this machine among which the scenes are divided.
        dask: Scheduler of a Dask cluster to use instead, such as tcp://host:8786. Its workers must
            find scenes, weights and the output folder under the same paths. Needs the extra:
            pip install "eofm[dask]".
        force: Mismatches to accept that are refused otherwise: sensor, missing-band, scale, pixels.
            They are recorded beside the vectors.
        explain: Print what would be read and computed, and an estimate of the time; write nothing.
    """

    scenes: list[str] = dataclasses.field(metadata={"positional": "+"})
    model: str
    out: str
    sensor: str | None = None
    unit: str | None = None
    bands: list[str] | None = None
    time: str | None = None
    item: str | None = None
    size: int | None = None
    chips: int | None = None
    stride: int | None = None
    grid: Literal["scene", "majortom"] = "scene"
    patches: bool = dataclasses.field(default=False, metadata={"flag": True})
    window: int | None = None
    overlap: int | None = None
    where: str | None = dataclasses.field(default=None, metadata={"numbers": True})
    where_crs: str = "EPSG:4326"
    cloud_mask: str | None = None
    min_valid: float = 0.5
    quantization: Literal["auto", "none", "int8"] = "auto"
    formats: list[str] = dataclasses.field(default_factory=lambda: ["tif", "zarr"])
    licence: str = "other"
    batch: int = 8
    readers: int = 2
    device: str = "auto"
    devices: list[str] | None = None
    workers: int = 1
    dask: str | None = None
    force: list[str] = dataclasses.field(default_factory=list)
    explain: bool = dataclasses.field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        if self.chips is None and not self.patches:
            object.__setattr__(self, "chips", SIDE)
        if not self.scenes:
            raise ConfigError("there is no scene to embed", where="SCENE")
        for name in ("chips", "stride", "window", "size", "batch", "readers", "workers"):
            value = vars(self)[name]
            require(value is None or value >= 1, name, value, "at least 1")
        overlap = self.overlap
        require(overlap is None or overlap >= 0, "overlap", overlap, "0 or more patches")
        require(0 < self.min_valid <= 1, "min_valid", self.min_valid, "above 0 and up to 1")
        self._check_words("force", self.force, FORCE)
        self._check_words("formats", self.formats, ("tif", "zarr"))
        self._check_place()
        if self.stride is not None and self.chips is not None and self.patches:
            raise ConfigError(
                "a stride is one of chips or one of patches",
                found=f"--stride {self.stride} with --chips and --patches",
                remedy="embed them one after the other: leave out --chips, and then --patches",
            )
        if self.stride is not None and self.grid != "scene":
            raise ConfigError(
                "chips of a named grid lie where the grid says",
                found=f"--stride {self.stride} with --grid {self.grid}",
                remedy="leave out --stride",
            )
        alone = {"window": self.window, "overlap": self.overlap}
        given = [name for name, value in alone.items() if value is not None]
        if given and not self.patches:
            raise ConfigError(
                f"--{given[0]} is one of the patch grid",
                found=f"--{given[0]} {alone[given[0]]} without --patches",
                remedy="--patches",
            )

    def _check_place(self) -> None:
        for device in [self.device, *(self.devices or ())]:
            expected = "auto, cpu, cuda, or cuda:0, cuda:1, ..."
            require(bool(_DEVICE.fullmatch(device)), "device", device, expected)
        given = {
            "workers": self.workers if self.workers > 1 else None,
            "devices": self.devices,
            "dask": self.dask,
        }
        chosen = [f"--{name} {value}" for name, value in given.items() if value is not None]
        if len(chosen) > 1:
            raise ConfigError(
                "scenes are divided among processes, devices or a cluster: one of these",
                found=", ".join(chosen),
                remedy="leave out all but one",
            )

    @staticmethod
    def _check_words(name: str, words: list[str], known: tuple[str, ...]) -> None:
        unknown = [word for word in words if word not in known]
        if unknown:
            raise ConfigError(
                f"--{name} knows no such word",
                found=", ".join(unknown),
                expected=", ".join(known),
                where=f"--{name}",
            )
