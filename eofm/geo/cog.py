"""Results as cloud-optimised GeoTIFFs that open with names, nodata and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster

from eofm.errors import DataError
from eofm.formats.foreign import foreign
from eofm.geo.styles import Colour
from eofm.io import replacing
from eofm.raster.grid import Grid
from eofm.report.output import write_file

_TILE: Final = 256


def write_cog(
    file: Path,
    planes: NDArray[Any],
    grid: Grid,
    names: Sequence[str],
    *,
    nodata: float,
    tags: Mapping[str, str],
    colours: Mapping[int, Colour] | None = None,
) -> Path:
    """Write a raster as COG, whole or not at all.

    Args:
        file: The file; the folder above it is made.
        planes: (B, Y, X).
        grid: Where it lies.
        names: Of the bands.
        nodata: What stands where there is nothing.
        tags: What else the file says of itself.
        colours: Of a raster of codes: their colours, shown by every program.

    Raises:
        DataError: If it cannot be written.
    """
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(planes),
        "dtype": str(planes.dtype),
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": nodata,
    }
    options = {
        "compress": "deflate",
        "blocksize": _TILE,
        "overview_resampling": "nearest" if colours is None else "mode",
    }
    with foreign(
        DataError, "the raster cannot be written", where=file, remedy="name another --out"
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        with MemoryFile() as memory:
            with memory.open(**profile) as target:
                target.write(planes)
                target.descriptions = tuple(names)
                target.update_tags(**tags)
                if colours is not None:
                    target.write_colormap(1, {0: (0, 0, 0, 0), **colours})
            with memory.open() as source, replacing(file) as temporary:
                copy_raster(source, temporary, driver="COG", **options)
    return file


def write_categories(file: Path, names: Mapping[int, str]) -> Path:
    """Write the names of codes beside a raster, where GDAL and what is built on it look for them.

    A GeoTIFF itself has no place for them; GDAL's own file `.aux.xml` does.

    Args:
        file: The raster.
        names: Of the codes; those between have none.

    Raises:
        DataError: If it cannot be written.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    listing = ElementTree.SubElement(band, "CategoryNames")
    for code in range(max(names) + 1):
        ElementTree.SubElement(listing, "Category").text = names.get(code, "")
    content = ElementTree.tostring(root, encoding="utf-8")
    return write_file(file.with_name(file.name + ".aux.xml"), content)


def plane(values: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Return values of cells, (N,), as rows and columns of their grid."""
    return np.ascontiguousarray(values).reshape(grid.height, grid.width)
