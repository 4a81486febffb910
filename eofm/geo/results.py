"""The files that a verb writes: rasters as cloud-optimised GeoTIFFs, layers, records, settings.

Rasters open with names, nodata and colours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster

from eofm import __version__
from eofm.errors import DataError
from eofm.formats.foreign import foreign
from eofm.formats.text import settings_text
from eofm.geo.styles import Colour
from eofm.io import replacing
from eofm.raster.grid import Grid
from eofm.report.output import write_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from geopandas import GeoDataFrame


CONFIG: Final = "config.yaml"
NO_NUMBER: Final = -1.0  # of float rasters: NaN is not understood by all programs


@dataclass(frozen=True)
class ResultFiles:
    """The outcome of `eofm map`, `search` and `change`.

    Args:
        folder: Of the files.
        text: What was found: the accuracy, the best places, how much has changed.
        files: What was written.
    """

    folder: Path
    text: str
    files: tuple[Path, ...]

    def describe(self) -> str:
        """Return what was found, and the files."""
        names = " ".join(str(file.relative_to(self.folder)) for file in self.files)
        return f"{self.text}\n{self.folder}: {names}"


def write_record(file: Path, record: Mapping[str, Any]) -> Path:
    """Write all numbers of a result as JSON, with the version of eofm.

    Args:
        file: The file; the folder above it is made.
        record: What is written, in plain types.

    Raises:
        DataError: If it cannot be written.
    """
    content = json.dumps({"eofm": __version__, **record}, indent=1)
    return write_file(file, f"{content}\n".encode())


def write_settings(config: DataclassInstance, file: Path) -> Path:
    """Write the settings of a verb beside what it made: `--config FILE` makes it again.

    Args:
        config: The settings, as on the command line; files are named as they were there.
        file: The file; the folder above it is made.

    Raises:
        DataError: If it cannot be written.
    """
    return write_file(file, settings_text(config).encode())


def write_frame(frame: GeoDataFrame, file: Path) -> Path:
    """Write a GeoDataFrame as GeoPackage, or as GeoParquet by its suffix.

    Raises:
        DataError: If it cannot be written.
    """
    temporary = file.with_name(f"{file.stem}.tmp{file.suffix}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        if file.suffix == ".parquet":
            frame.to_parquet(temporary)
        else:
            frame.to_file(temporary, driver="GPKG", layer=file.stem, engine="pyogrio")
        temporary.replace(file)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            "the layer cannot be written", found=error, where=file, remedy="name another --out"
        ) from error
    return file


# ----------------------------------------------------------------------------------------- rasters


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
