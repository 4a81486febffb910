"""Open any source of imagery: `read_geotiff` reads an image, `open_scene` opens a scene.

`docs/scenes.md` lists the supported sources.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Final

from eofm.contract.imagery import Imagery
from eofm.contract.spec import Sensor, Unit, canonical_bands
from eofm.contract.validity import check_scale
from eofm.errors import RasterError, SpecError
from eofm.raster.cube import Cube, check_cube
from eofm.raster.cube_file import CubeFile, date_at, is_cube
from eofm.raster.folder import is_hidden, list_sources, listed_source, named_source
from eofm.raster.geotiff import PAGE, gdal_name, local_path
from eofm.raster.grid import Window
from eofm.raster.ground import LONGITUDE_LATITUDE, Area
from eofm.raster.safe import is_safe, of_product, open_safe
from eofm.raster.scene import CloudLayer, Scene, scene_of, scene_of_cube, shown
from eofm.raster.source import RasterSource
from eofm.raster.stac import open_stac, read_items
from eofm.raster.tags import CloudMask, settle

__all__ = ["Source", "open_scene", "open_scenes", "read_geotiff", "read_scene", "source_of"]

# ----------------------------------------------------------------------------------------- an image


def read_geotiff(
    path: Path | str,
    *,
    sensor: Sensor | str,
    unit: Unit | str | None,
    bands: Sequence[str] | None = None,
    window: tuple[int, int, int, int] | None = None,
    cloud_mask: CloudMask | str | None = None,
) -> Imagery:
    """Read one image as a batch of one: float32 on the grid of its finest band, with a valid mask.

    Args:
        path: A multi-band GeoTIFF, JPEG 2000 image or VRT, a single-band file, or the folder of an
            image with one file per band.
        sensor: Sensor and product level, as in `s2-l1c`.
        unit: Unit of the stored values, as in `dn`, or the physical one after scale and offset
            (`reflectance`). None derives it from scale and offset.
        bands: Band names in stored order, or a selection of those that the file describes. None
            uses the descriptions of the file, otherwise the bands of the sensor.
        window: First row, first column, height and width in pixels of the finest band.
        cloud_mask: The cloud mask of the product, as in `SCL`, whose cloudy pixels become invalid.

    Raises:
        SpecError: If there is no such sensor, unit or band.
        RasterError: If the image cannot be read, contradicts the statement, or the folder holds
            several images.
        PixelError: If the values cannot be in the unit: 8 bits or fractions of 1 for digital
            numbers, integers for reflectance.
    """
    if not isinstance(path, (str, Path)):
        raise _no_path(path)
    if gdal_name(str(path)) and not str(path).startswith(PAGE):
        raise RasterError(
            "read_geotiff reads local files only",
            found="a URL",
            expected="a path",
            where=str(path).partition("?")[0],
            remedy="eofm.read_scene(url, sensor=..., unit=...)",
        )
    path, sensor = _found(str(path)), Sensor.parse(sensor)
    unit = None if unit is None else Unit.parse(unit)
    mask = None if cloud_mask is None else CloudMask.parse(cloud_mask)
    source = of_product(source_of(path, sensor, unit, bands, mask))
    return check_scale(source.read(None if window is None else Window.of(window)))


def _no_path(given: object) -> SpecError:
    remedy = 'give a path, as in eofm.read_geotiff("a.tif", sensor="s2-l2a", unit="dn")'
    if (
        isinstance(given, (list, tuple))
        and given
        and all(isinstance(one, (str, Path)) for one in given)
    ):
        folders = {str(Path(one).parent) for one in given}
        remedy = "to read one file per band, name their folder: move them into one"
        if len(folders) == 1:
            remedy = f"to read one file per band, name their folder: {folders.pop()!r}"
        remedy += "; or list them: eofm.read_scene(files, sensor=..., unit=...)"
    return SpecError(
        "this is not a path", found=repr(given), expected="a file or a folder", remedy=remedy
    )


def _found(text: str) -> Path:
    """Return the path given as text, whether or not it exists.

    Raises:
        SpecError: If it cannot be a path.
        RasterError: If the system cannot look it up.
    """
    if not text or "\0" in text:
        raise _no_path(text)
    path = local_path(text)
    try:
        path.exists()
    except OSError as error:  # a name that is too long, a folder without permission
        raise RasterError("a path cannot be followed", found=error.strerror, where=path) from error
    return path


def source_of(
    path: Path,
    sensor: Sensor,
    unit: Unit | None,
    bands: Sequence[str] | None,
    cloud_mask: CloudMask | None = None,
) -> RasterSource:
    """Return the image in a file, the only one in a folder, or one named by its file prefix.

    Args:
        path: See `read_geotiff`; or a folder and the common prefix of the files of one image.
        sensor: Sensor and product level.
        unit: See `read_geotiff`.
        bands: See `read_geotiff`.
        cloud_mask: See `read_geotiff`.

    Raises:
        SpecError: If there is no such band.
        RasterError: If the folder holds several images, or none.
    """
    if not path.exists() and path.parent.is_dir():
        inside = named_source(path, sensor, unit, bands, cloud_mask)
        if inside is not None:
            return inside
    if not path.is_dir():
        named = None if bands is None else canonical_bands(bands, sensor)
        return RasterSource(path.stem, (path,), sensor, unit, named, cloud_mask=cloud_mask)
    sources = list_sources(path, sensor, unit, bands, cloud_mask)
    if len(sources) != 1:
        raise RasterError(
            "the folder holds several images",
            found=", ".join(source.name for source in sources[:5]),
            expected="one image",
            where=path,
            remedy=_one_of(path, sources),
        )
    return sources[0]


def _home(folder: Path, source: RasterSource) -> Path:
    """Return the file of an image, or the folder of its files."""
    if (folder / source.name).is_dir():
        return folder / source.name
    one = len(source.files) == 1
    return source.files[0] if one else Path(os.path.commonpath([f.parent for f in source.files]))


def _one_of(folder: Path, sources: Sequence[RasterSource]) -> str:
    """Return the remedy that opens the images of a folder.

    Args:
        folder: The folder.
        sources: Its images.
    """
    homes = [_home(folder, source) for source in sources]
    known = set(homes)
    if len(known) < len(homes) or any(not known.isdisjoint(home.parents) for home in homes):
        whole = max(sources, key=lambda source: len(source.files))  # masks are beside the bands
        return f"name one of them, as in {quote(str(folder / whole.name))}"
    first = homes[0]
    pattern = "/".join("*" for _ in first.relative_to(folder).parts) + first.suffix
    shown = [path for path in folder.glob(pattern) if not is_hidden(path.name)]
    several = f"{quote(str(folder))}/{pattern}" if sorted(shown) == sorted(homes) else "LIST.txt"
    words = ", a text file with a path on each line" if several == "LIST.txt" else ""
    return (
        f"name one of them, as in {quote(str(first))}; to embed all: eofm embed {several} "
        f"--model M --out DIR{words}"
    )


# ------------------------------------------------------------------------------------------ a scene

_STAC: Final = frozenset({".json", ".geojson"})

Source = str | Path | Cube


def open_scene(
    source: Source | Sequence[str | Path],
    *,
    sensor: Sensor | str | None = None,
    unit: Unit | str | None = None,
    bands: Sequence[str] | None = None,
    item: str | None = None,
    time: str | None = None,
    gsd: float | None = None,
) -> Scene:
    """Open a scene: read its metadata, but no pixels.

    Args:
        source: A raster (GeoTIFF, COG, JPEG 2000, VRT), as a path, a URL (`https://`, `s3://`) or a
            `/vsi` path of GDAL; a folder with one file per band; a Sentinel-2 SAFE product (folder,
            zip, or its `MTD_MSIL*.xml`); a file of STAC items; an `xarray.DataArray` or `Dataset`,
            or a netCDF or Zarr file; a list of the rasters of one image, one per band.
        sensor: Sensor and product level, as in `s2-l2a`. Optional if the product states it (SAFE,
            STAC, output of `to_xarray`); it must then agree.
        unit: Unit of the values, as in `dn`; likewise.
        bands: Bands of a single raster in stored order; otherwise bands in the order wanted.
        item: Identifier of a STAC item, or tile of a SAFE product, if there are several.
        time: Time of an array, as in `2021-07-04`.
        gsd: Metres per pixel of a raster or array without a georeference.

    Raises:
        RasterError: If it cannot be opened.
        SpecError: If sensor or unit are neither stated nor known, or contradict the product.
    """
    sensor = None if sensor is None else Sensor.parse(sensor)
    unit = None if unit is None else Unit.parse(unit)
    if isinstance(source, (list, tuple)) and all(isinstance(one, (str, Path)) for one in source):
        _only("gsd", item=item, time=time)
        return _open_list(source, settle("sensor", sensor, None, "", "a list"), unit, bands, gsd)
    if not isinstance(source, (str, Path)):
        cube = check_cube(source)
        _only("time", item=item)
        return _open_cube(cube, sensor, unit, bands, time, gsd)
    name = str(source)
    remote = gdal_name(name)
    path = _found(name)
    if not remote and not path.exists():
        named = None
        if sensor is not None and path.parent.is_dir():
            named = named_source(path, sensor, unit, bands)
        if named is None:
            raise RasterError("there is no such file or folder", where=path)
        _only("gsd", item=item, time=time)
        return scene_of(replace(named, gsd=gsd))
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
    if remote:  # even if a local file has the name that stands for the URL in messages
        own = None if bands is None else canonical_bands(bands, sensor)
        return scene_of(RasterSource(path.stem, (path,), sensor, unit, own, gsd, names=(remote,)))
    files = of_product(source_of(path, sensor, unit, bands))
    return scene_of(replace(files, gsd=gsd))


def _open_list(
    files: Sequence[str | Path],
    sensor: Sensor,
    unit: Unit | None,
    bands: Sequence[str] | None,
    gsd: float | None,
) -> Scene:
    """Open the listed files of one image, local or remote."""
    names: dict[Path, str] = {}
    paths = []
    for file in files:
        path, name = _found(str(file)), gdal_name(str(file))
        if not name and not path.is_file():
            raise RasterError(
                "a folder is among the files of an image"
                if path.is_dir()
                else "there is no such file",
                where=path,
                remedy="name only the folder, or each of its files" if path.is_dir() else None,
            )
        paths.append(Path(shown(name)) if name else path)  # with its folder, and without a key
        names[paths[-1]] = name or str(path)
    image = listed_source(paths, sensor, unit, bands)
    if any(gdal_name(names[file]) for file in image.files):
        image = replace(image, names=tuple(names[file] for file in image.files))
    image = of_product(image)
    masks = tuple(CloudLayer(mask, names[file]) for mask, file in image.mask_files)
    return scene_of(replace(image, gsd=gsd), clouds=masks)


def open_scenes(
    path: str | Path,
    *,
    sensor: Sensor | str | None = None,
    unit: Unit | str | None = None,
    bands: Sequence[str] | None = None,
    item: str | None = None,
    time: str | None = None,
) -> tuple[Scene, ...]:
    """Open every item of a file of STAC items; any other source as one scene.

    Args:
        path: See `open_scene`.
        sensor: See `open_scene`.
        unit: See `open_scene`.
        bands: See `open_scene`.
        item: See `open_scene`; opens only this item of a file of STAC items.
        time: See `open_scene`.

    Raises:
        RasterError: If one cannot be opened.
        SpecError: If sensor or unit are neither stated nor known, or contradict the product.
    """
    items = [item]
    local = local_path(str(path))
    if item is None and local.suffix.lower() in _STAC and not gdal_name(str(path)):
        items = [str(one["id"]) for one in read_items(local)]
    return tuple(
        open_scene(path, sensor=sensor, unit=unit, bands=bands, item=one, time=time)
        for one in items
    )


def read_scene(
    source: Source | Sequence[str | Path],
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
    """Open a scene and read it or a part of it: `open_scene(...).read(...)`.

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
        PixelError: If the values cannot be in the unit: see `read_geotiff`.
    """
    scene = open_scene(source, sensor=sensor, unit=unit, bands=bands, item=item, time=time, gsd=gsd)
    return check_scale(scene.read(window, where=where, where_crs=where_crs, cloud_mask=cloud_mask))


def _only(allowed: str, **others: object) -> None:
    """Refuse an argument that does not apply to this kind of scene."""
    foreign = [name for name, value in others.items() if value is not None]
    if foreign:
        raise RasterError(
            f"{foreign[0]} does not apply to this kind of scene",
            found=f"{foreign[0]}={others[foreign[0]]!r}",
            remedy=f"omit {foreign[0]}; {allowed} can be stated for such a scene",
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
