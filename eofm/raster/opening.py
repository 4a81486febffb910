"""`open_scene`: one call for whatever a scene comes as.

`docs/scenes.md` says what opens how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from eofm.contract.imagery import Imagery
from eofm.contract.spec import Sensor, Unit
from eofm.contract.validity import check_scale
from eofm.errors import RasterError
from eofm.raster.cube import Cube, check_cube
from eofm.raster.geotiff import gdal_name, local_path
from eofm.raster.grid import Window
from eofm.raster.metadata.masks import CloudMask
from eofm.raster.metadata.units import settle
from eofm.raster.products.cube_file import CubeFile, date_at, is_cube
from eofm.raster.products.safe import is_safe, open_safe
from eofm.raster.products.stac import open_stac, read_items
from eofm.raster.read import source_of
from eofm.raster.scene import Scene, scene_of, scene_of_cube
from eofm.raster.where import LONGITUDE_LATITUDE, Area

_STAC: Final = frozenset({".json", ".geojson"})

Source = str | Path | Cube


def open_scene(
    source: Source,
    *,
    sensor: Sensor | str | None = None,
    unit: Unit | str | None = None,
    bands: Sequence[str] | None = None,
    item: str | None = None,
    time: str | None = None,
    gsd: float | None = None,
) -> Scene:
    """Open a scene: read what it says of itself, and no pixel.

    Args:
        source: A raster (GeoTIFF, COG, JPEG 2000, VRT), as a path, an address (`https://`, `s3://`)
            or a `/vsi` path of GDAL; a folder with a file for each band; a Sentinel-2 SAFE product
            (folder, zip, or its `MTD_MSIL*.xml`); a file of STAC items; an `xarray.DataArray` or
            `Dataset`, or a netCDF or Zarr file.
        sensor: Sensor and product level, as in `s2-l2a`. Needs no statement where the product says
            it (SAFE, STAC, what `to_xarray` wrote); one that contradicts is refused.
        unit: Unit of the values, as in `dn`; likewise.
        bands: Of one raster, its bands in stored order; else those wanted, in the order wanted.
        item: Which of several: identifier of a STAC item, tile of a SAFE product.
        time: Which time of an array, as in `2021-07-04`.
        gsd: Metres per pixel of one raster or array that lies nowhere.

    Raises:
        RasterError: If it cannot be opened.
        SpecError: If sensor or unit are neither stated nor known, or contradict the product.
    """
    sensor = None if sensor is None else Sensor.parse(sensor)
    unit = None if unit is None else Unit.parse(unit)
    if not isinstance(source, (str, Path)):
        check_cube(source)
        _only("time", item=item)
        return _open_cube(source, sensor, unit, bands, time, gsd)
    name = str(source)
    remote = gdal_name(name)
    path = local_path(name)
    if not remote and not path.exists():
        raise RasterError("there is no such file or folder", where=path)
    suffix = path.suffix.lower()
    if not remote and (is_safe(path) or suffix == ".zip"):
        _only("item", time=time, gsd=gsd)
        return open_safe(path, sensor=sensor, unit=unit, bands=bands, item=item)
    if not remote and suffix in _STAC:
        _only("item", time=time, gsd=gsd)
        return open_stac(path, sensor=sensor, unit=unit, bands=bands, item=item)
    if not remote and is_cube(path):
        _only("time", item=item)
        return _open_cube(path, sensor, unit, bands, time, gsd)
    _only("gsd", item=item, time=time)
    sensor = settle("sensor", sensor, None, "", name)
    files = source_of(path, sensor, unit, bands)
    return scene_of(replace(files, gsd=gsd, names=(remote,) if remote else ()))


def open_scenes(
    path: str | Path,
    *,
    sensor: Sensor | str | None = None,
    unit: Unit | str | None = None,
    bands: Sequence[str] | None = None,
) -> tuple[Scene, ...]:
    """Open every item of a file of STAC items; what else there is, as one scene.

    Args:
        path: See `open_scene`.
        sensor: See `open_scene`.
        unit: See `open_scene`.
        bands: See `open_scene`.

    Raises:
        RasterError: If one cannot be opened.
        SpecError: If sensor or unit are neither stated nor known, or contradict the product.
    """
    items: list[str | None] = [None]
    local = local_path(str(path))
    if local.suffix.lower() in _STAC and not gdal_name(str(path)):
        items = [str(item["id"]) for item in read_items(local)]
    return tuple(
        open_scene(path, sensor=sensor, unit=unit, bands=bands, item=item) for item in items
    )


def read_scene(
    source: Source,
    *,
    sensor: Sensor | str | None = None,
    unit: Unit | str | None = None,
    bands: Sequence[str] | None = None,
    item: str | None = None,
    time: str | None = None,
    gsd: float | None = None,
    window: Window | tuple[int, int, int, int] | None = None,
    where: Area | None = None,
    where_crs: str = LONGITUDE_LATITUDE,
    cloud_mask: CloudMask | str | None = None,
) -> Imagery:
    """Open a scene and read it, or a part of it: `open_scene(...).read(...)`.

    Args:
        source: See `open_scene`.
        sensor: See `open_scene`.
        unit: See `open_scene`.
        bands: See `open_scene`.
        item: See `open_scene`.
        time: See `open_scene`.
        gsd: See `open_scene`.
        window: See `Scene.read`.
        where: See `Scene.read`.
        where_crs: See `Scene.read`.
        cloud_mask: See `Scene.read`.

    Raises:
        RasterError: If it cannot be opened or read.
        SpecError: If a statement is missing, or contradicts the product.
        PixelError: If the numbers cannot be in the unit: see `read_geotiff`.
    """
    scene = open_scene(source, sensor=sensor, unit=unit, bands=bands, item=item, time=time, gsd=gsd)
    return check_scale(scene.read(window, where=where, where_crs=where_crs, cloud_mask=cloud_mask))


def _only(allowed: str, **others: object) -> None:
    """Refuse a choice that means nothing for this kind of scene."""
    foreign = [name for name, value in others.items() if value is not None]
    if foreign:
        raise RasterError(
            f"there is nothing to choose by {foreign[0]} here",
            found=f"{foreign[0]}={others[foreign[0]]!r}",
            remedy=f"leave {foreign[0]} out; {allowed} is what can be stated of such a scene",
        )


def _open_cube(
    source: Cube | Path,
    sensor: Sensor | None,
    unit: Unit | None,
    bands: Sequence[str] | None,
    time: str | None,
    gsd: float | None,
) -> Scene:
    cube = CubeFile(source, time, gsd)
    with cube.open_whole() as array:
        cube = replace(cube, date=date_at(array, time))
        stated = array.attrs.get("sensor")
        found = Sensor(stated) if stated in set(Sensor) else None
    name = source.stem if isinstance(source, Path) else "array"
    sensor = settle("sensor", sensor, found, "its attribute sensor", name)
    scene = scene_of_cube(cube, name, sensor, unit)
    return scene if bands is None else scene.select(bands)
