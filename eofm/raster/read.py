"""One image, in one line: what a notebook needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eofm.contract.imagery import Imagery
from eofm.contract.spec import Sensor, Unit
from eofm.errors import RasterError
from eofm.raster.folder import list_sources
from eofm.raster.grid import Window
from eofm.raster.source import RasterSource


def read_geotiff(
    path: Path | str,
    *,
    sensor: Sensor | str,
    unit: Unit | str,
    bands: Sequence[str] | None = None,
    window: tuple[int, int, int, int] | None = None,
) -> Imagery:
    """Read one image as a batch of one: float32 on the grid of its finest band, with a valid mask.

    Args:
        path: A multi-band GeoTIFF, or the folder of an image with one file per band.
        sensor: Sensor and product level, as in `s2-l1c`.
        unit: Unit of the values in the files, as in `dn`.
        bands: Band names in stored order; without them, what the files say, else the sensor's.
        window: First row, first column, height and width in pixels of the finest band.

    Raises:
        ValueError: If there is no such sensor or unit.
        RasterError: If the image cannot be read, or the folder holds several.
    """
    path, sensor, unit = Path(path), Sensor(sensor), Unit(unit)
    if path.is_dir():
        sources = list_sources(path, sensor, unit, bands)
        if len(sources) != 1:
            raise RasterError(
                "the folder holds several images",
                found=", ".join(source.name for source in sources[:5]),
                expected="one image",
                where=path,
                remedy="name one of them, or pack the folder: eofm pack tiles",
            )
        source = sources[0]
    else:
        source = RasterSource(path.stem, (path,), sensor, unit, tuple(bands) if bands else None)
    return source.read(None if window is None else Window(*window))
