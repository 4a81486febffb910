"""Settings of `eofm labels`. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from eofm.errors import ConfigError
from eofm.settings import checked_settings

__all__ = ["LabelsConfig"]


@dataclass(frozen=True)
@checked_settings
class LabelsConfig:
    """Count land-cover maps and write multi-labels as Parquet.

    Without scenes, every window of each map's own grid is labelled. With scenes, each scene is
    labelled from the maps that cover it, resampled to its grid by nearest neighbour.

    Args:
        maps: GeoTIFFs, folders of them, VRTs, STAC item lists (.json), or polygons (.gpkg,
            .geojson, .shp, .fgb, .parquet), in any CRS. Over a scene, an earlier map has
            precedence and a later one fills its nodata; a folder is ordered by path, and a map in
            it that has the name of the scene takes the place of the folder.
        scheme: Class codes of the maps: dynamic-world, worldcover, esri, terramesh, corine,
            corine-grid, or your own .yaml file.
        out: Parquet file to write. A figure of the classes is written next to it, as .png.
        scenes: What to label: a packed store, a folder of GeoTIFFs, or a .parquet of footprints
            with the columns id, minx, miny, maxx, maxy, crs and, optionally, date.
        window: Side of the windows in pixels of the map. Without scenes.
        stride: Step from window to window; without it, the side of a window.
        gsd: Metres per pixel of the grid laid over a footprint of a .parquet.
        scene_crs: CRS of images of a packed store that holds only their centres, as in EPSG:4326
            for SSL4EO-S12: they are taken as squares with north up. `utm` is the UTM zone of each
            centre.
        threshold: Minimum share of the valid map pixels for a class to be present. 0 means
            any pixel.
        min_valid: Share of the counted pixels for which the map must name a class; below it labels
            are unknown. For a store and a folder of images, only the valid pixels of an image
            are counted.
        empty: What to do with windows that are all nodata: keep writes them as unknown, skip
            leaves them out and counts them.
        dates: Position of the date in file names of the maps, as in _%Y%m%d, or _%Y_ for a map of a
            year. STAC items state their date.
        scene_dates: The same for the files of a folder of scenes; without it, their tags.
        max_gap_days: Use only maps at most this many days from the scene, the nearest first.
        asset: Which asset of a STAC item is the map; without it, the only GeoTIFF.
        field: Field of the polygons that holds their class: codes of the scheme, or names of its
            classes. Needs the extra: pip install "eofm[geo]".
        workers: Processes on this machine.
        dask: Scheduler of a Dask cluster to work on instead, as in tcp://host:8786. Its workers
            must see the maps under the same paths. Needs the extra: pip install "eofm[dask]".
        batch: Approximate number of windows written at a time: what an interrupted run can lose.
        resume: Resume an interrupted run of the same settings.
    """

    maps: list[str] = dataclasses.field(metadata={"positional": "+"})
    scheme: str
    out: str
    scenes: str | None = None
    window: int | None = None
    stride: int | None = None
    gsd: float = 10.0
    scene_crs: str | None = None
    threshold: float = 0.0
    min_valid: float = 0.25
    empty: Literal["keep", "skip"] = "keep"
    dates: str | None = None
    scene_dates: str | None = None
    max_gap_days: float | None = None
    asset: str | None = None
    field: str | None = None
    workers: int = 1
    dask: str | None = None
    batch: int = 2048
    resume: bool = dataclasses.field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        if (self.scenes is None) == (self.window is None):
            raise ConfigError(
                "label either the windows of the maps, or scenes",
                found=f"window={self.window}, scenes={self.scenes}",
                remedy="--window 264, or --scenes STORE|FOLDER|FOOTPRINTS.parquet",
            )
        if self.scenes is None:
            self._refuse("scene_crs", "scene_dates", "max_gap_days", without="scenes")
        if self.window is None:
            self._refuse("stride", without="window")
        for name in ("window", "stride", "gsd", "workers", "batch"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be positive", found=value)
        for name in ("threshold", "min_valid"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} is a share", found=getattr(self, name), expected="0 to 1"
                )
        if self.max_gap_days is not None and not self.max_gap_days >= 0:
            raise ConfigError("max_gap_days must not be negative", found=self.max_gap_days)
        if self.dask is not None and self.workers > 1:
            raise ConfigError(
                "work on this machine or on a cluster",
                found=f"workers={self.workers}, dask={self.dask}",
                remedy="leave one of them out",
            )
        if not self.out.endswith(".parquet"):
            raise ConfigError(
                "the labels are a Parquet file", found=self.out, expected="a name in .parquet"
            )

    def _refuse(self, *names: str, without: str) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if given:
            raise ConfigError(
                f"settings that mean nothing without {without}",
                found=", ".join(f"{name}={getattr(self, name)}" for name in given),
                remedy=f"state --{without}, or leave them out",
            )
