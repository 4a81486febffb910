"""A folder of GeoTIFFs of one's own, cut into windows: `eofm pack tiles`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from eofm.datasets.base import (
    Dataset,
    Packing,
    SensorName,
    UnitName,
    check_labels,
    check_share,
    check_unit,
    check_workers,
)
from eofm.datasets.images.places import check_place
from eofm.errors import ConfigError
from eofm.settings import checked_settings

__all__ = ["DATASET", "PackTilesConfig"]


@dataclass(frozen=True)
@checked_settings
class PackTilesConfig:
    """Cut a folder of GeoTIFFs into windows and pack them, with labels from a land-cover map.

    Args:
        images: Folder of GeoTIFFs: one multi-band file per image, or one file per band whose name
            is the band or ends in it, as in B02.tif or T32UPU_B02.tif. Subfolders are searched.
        sensor: Sensor and product level of the images.
        unit: Unit of the values in the files: dn is reflectance x 10000; dn-offset1000 is the
            same + 1000 (processing baseline 04.00 and later); Sentinel-1 is db or power. Without
            it, what scale and offset of the files say.
        out: Folder of the packed store. An interrupted run resumes where it stopped.
        landcover: Land-cover map: a GeoTIFF, a folder of them (the map with an image's own name,
            else all that overlap it), a STAC item list (.json), or polygons (.gpkg, .geojson,
            .shp, .fgb, .parquet). Without one the store is unlabelled.
        scheme: Class codes of the map: dynamic-world, worldcover, esri, terramesh, corine,
            corine-grid, or a .yaml file of your own. Needed with a map.
        window: Side of the windows, in pixels of the finest band.
        stride: Step from window to window; without it, the side of a window.
        bands: Bands of a multi-band file in stored order, as in [B02,B03,B04,B08]; of files per
            band, those to read. Without it, what the files say, else all bands of the sensor.
        unit_of: Unit of single files, by a pattern of their names, where it is not `unit`.
        place: Which part of an image's name is the place it shows, as in T32_{place}_*, where `*`
            stands for any text and `?` for one character. Without it, images whose footprints
            overlap are one place. Training and held-out images are divided by place.
        threshold: Share of the valid map pixels from which on a class counts as present. 0 means
            any pixel.
        min_valid: Share of the window's measured pixels for which the map must name a class; below
            it the window is unlabelled.
        dates: Where the maps' file names tell the date, as in _%Y%m%d. STAC items state it.
        scene_dates: The same for the names of the images; without it, their tags.
        max_gap_days: Take maps at most so many days from the image, the nearest first.
        asset: Which asset of a STAC item is the map; without it, the only GeoTIFF.
        field: Field of the polygons that holds their class: codes of the scheme, or names of its
            classes. Needs the extra: pip install "eofm[geo]".
        min_pixels: Share of a window's image pixels that must be valid; below it the window is
            left out.
        allow_unlabelled: Pack images that no map covers, unlabelled, rather than refuse them.
        workers: How many threads read and decode. Their number changes no byte of the store.
        verify: Read every image of the finished store again, and compare its crc32.
        stats: Count mean, spread and percentiles of every band of the finished store into
            stats.json: of the training split where the data set has one, else of all images.
    """

    images: str
    sensor: SensorName
    unit: UnitName | None
    out: str
    landcover: str | None = None
    scheme: str | None = None
    window: int = 264
    stride: int | None = None
    bands: list[str] | None = None
    unit_of: dict[str, UnitName] = dataclasses.field(default_factory=dict)
    place: str | None = None
    threshold: float = 0.0
    min_valid: float = 0.25
    dates: str | None = None
    scene_dates: str | None = None
    max_gap_days: float | None = None
    asset: str | None = None
    field: str | None = None
    min_pixels: float = 0.5
    allow_unlabelled: bool = False
    workers: int = 1
    verify: bool = dataclasses.field(default=False, metadata={"flag": True})
    stats: bool = dataclasses.field(default=False, metadata={"flag": True})

    def __post_init__(self) -> None:
        for unit in (self.unit, *self.unit_of.values()):
            if unit is not None:
                check_unit(self.sensor, unit)
        check_labels(self.landcover, self.scheme, self.threshold, self.min_valid)
        if self.window < 1 or (self.stride is not None and self.stride < 1):
            raise ConfigError(
                "window and stride must be positive",
                found=f"window={self.window}, stride={self.stride}",
            )
        check_share("min_pixels", self.min_pixels)
        check_place(self.place)
        _check_map_options(self)
        check_workers(self.workers)


def _check_map_options(config: PackTilesConfig) -> None:
    names = ("dates", "scene_dates", "max_gap_days", "asset", "field")
    given = [name for name in names if getattr(config, name) is not None]
    if given and config.landcover is None:
        raise ConfigError(
            "settings that mean nothing without a land-cover map",
            found=", ".join(f"{name}={getattr(config, name)}" for name in given),
            remedy="state --landcover and --scheme, or leave them out",
        )
    if config.max_gap_days is not None and not config.max_gap_days >= 0:
        raise ConfigError("max_gap_days must not be negative", found=config.max_gap_days)


DATASET: Final = Dataset(
    name="tiles",
    title="GeoTIFFs",
    packing=Packing(
        "cut your own GeoTIFFs into a packed store, with labels from a land-cover map",
        PackTilesConfig,
        "eofm.datasets.tiles.pack:pack_tiles",
        (
            "eofm pack tiles --images DIR --sensor s2-l1c --unit dn \\",
            "    --landcover DIR_OR_TIF --scheme terramesh --window 112 --stride 56 --out STORE",
            "eofm pack tiles --images DIR --sensor s2-l2a --unit dn \\",
            "    --landcover fields.gpkg --field crop --scheme my.yaml --out STORE",
            "eofm pack tiles --images DIR --sensor s1-rtc --unit db --out STORE",
            "eofm pack tiles --images DIR --sensor s2-l2a --unit dn --verify --stats --out STORE",
            'eofm pack tiles ... --unit dn --unit_of \'{"609U*": "dn-offset1000"}\'',
        ),
    ),
)
