"""One image, in one line: what a notebook needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eofm.contract.imagery import Imagery
from eofm.contract.sensors import canonical_bands
from eofm.contract.spec import Sensor, Unit
from eofm.contract.validity import check_scale
from eofm.errors import RasterError, SpecError
from eofm.raster.folder import list_sources
from eofm.raster.geotiff import gdal_name, local_path
from eofm.raster.grid import Window
from eofm.raster.metadata.masks import CloudMask
from eofm.raster.products.safe import check_stated
from eofm.raster.source import RasterSource


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
        path: A multi-band GeoTIFF, JPEG 2000 image or VRT, a file of one band, or the folder of an
            image with one file per band.
        sensor: Sensor and product level, as in `s2-l1c`.
        unit: Unit of the values in the files, as in `dn`, or the physical one that their scale and
            offset lead to (`reflectance`). None takes what scale and offset say.
        bands: Band names in stored order, or a choice of those the file describes; without them,
            what the files say, else the sensor's.
        window: First row, first column, height and width in pixels of the finest band.
        cloud_mask: The band of the product, as in `SCL`, whose clouds are invalid in the result.

    Raises:
        SpecError: If there is no such sensor, unit or band.
        RasterError: If the image cannot be read, contradicts what is stated, or the folder holds
            several.
        PixelError: If the numbers cannot be in the unit: 8 bits or fractions of 1 for digital
            numbers, whole numbers for reflectance.
    """
    if not isinstance(path, (str, Path)):
        raise SpecError("this is no path", found=path, expected="a file or a folder")
    if gdal_name(str(path)):
        raise RasterError(
            "read_geotiff reads files of this machine",
            found="an address",
            expected="a path",
            where=str(path).partition("?")[0],
            remedy="eofm.read_scene(address, sensor=..., unit=...)",
        )
    path, sensor = local_path(str(path)), Sensor.parse(sensor)
    unit = None if unit is None else Unit.parse(unit)
    mask = None if cloud_mask is None else CloudMask.parse(cloud_mask)
    source = source_of(path, sensor, unit, bands, mask)
    check_stated(source)
    return check_scale(source.read(None if window is None else Window.of(window)))


def source_of(
    path: Path,
    sensor: Sensor,
    unit: Unit | None,
    bands: Sequence[str] | None,
    cloud_mask: CloudMask | None = None,
) -> RasterSource:
    """Return the one image that is a file, or that fills a folder.

    Args:
        path: See `read_geotiff`.
        sensor: Sensor and product level.
        unit: See `read_geotiff`.
        bands: See `read_geotiff`.
        cloud_mask: See `read_geotiff`.

    Raises:
        SpecError: If there is no such band.
        RasterError: If the folder holds several images, or none.
    """
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
            remedy="name one of them, or pack the folder: eofm pack tiles",
        )
    return sources[0]
