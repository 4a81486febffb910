"""Find the images of a folder: multi-band files, and sets of one file per band.

A file belongs to a set if its name is a band or ends in one (`B02.tif`, `T32UPU_B02.tif`); the
files of a folder with equal beginnings are one image. Every other file is an image of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eofm.contract.sensors import SENSOR_BANDS, canonical_band, canonical_bands
from eofm.contract.spec import Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.source import RasterSource


def list_sources(
    directory: str | Path, sensor: Sensor, unit: Unit, bands: Sequence[str] | None = None
) -> list[RasterSource]:
    """Return the images in a folder and its subfolders, ordered by name.

    An image is named after its path in the folder, without the suffix, and without the file name
    where its bands fill a folder of their own.

    Args:
        directory: The folder.
        sensor: Sensor and product level of the images.
        unit: Unit of the values.
        bands: Of a multi-band file, its bands in stored order; of files per band, those wanted.
            None takes what a multi-band file says, and all bands of the sensor.

    Raises:
        RasterError: If there is no folder, no GeoTIFF in it, or an image lacks a band.
        SpecError: If a band is not one of the sensor's.
    """
    root = Path(directory)
    if not root.is_dir():
        raise RasterError("there is no such folder of images", where=root)
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in {".tif", ".tiff"})
    if not files:
        raise RasterError(
            "the folder holds no images",
            found="no file that ends in .tif or .tiff",
            where=root,
            remedy="convert other formats first, as in: rio convert FILE.jp2 FILE.tif",
        )
    wanted = None if bands is None else canonical_bands(bands, sensor)
    sets: dict[tuple[Path, str], dict[str, Path]] = {}
    for file in files:
        band, beginning = band_of(file.stem, sensor)
        if band:
            _add(sets.setdefault((file.parent, beginning), {}), band, file)
    sources = []
    for (parent, beginning), found in sets.items():
        chosen = choose_bands(found, sensor, wanted, parent)
        name = _name(root, parent, beginning)
        sources.append(RasterSource(name, tuple(chosen.values()), sensor, unit, tuple(chosen)))
    for file in files:
        if not band_of(file.stem, sensor)[0] and not _accompanies(file, sets):
            name = file.relative_to(root).with_suffix("").as_posix()
            sources.append(RasterSource(name, (file,), sensor, unit, wanted))
    return sorted(sources, key=lambda source: source.name)


def band_of(stem: str, sensor: Sensor) -> tuple[str, str]:
    """Return the band a file name ends in, and what comes before; empty texts if none.

    >>> band_of("T32UPU_B2", Sensor.S2_L1C)
    ('B02', 'T32UPU')
    """
    beginning, _, end = stem.rpartition("_")
    try:
        band = canonical_band(end)
    except SpecError:
        return "", ""
    return (band, beginning) if band in SENSOR_BANDS[sensor] else ("", "")


def _add(found: dict[str, Path], band: str, file: Path) -> None:
    if band in found:
        raise RasterError(
            f"an image has band {band} twice", found=f"{found[band].name}, {file.name}", where=file
        )
    found[band] = file


def _name(root: Path, parent: Path, beginning: str) -> str:
    folder = parent.relative_to(root).as_posix()
    if folder == ".":
        return beginning or root.name
    return folder if beginning in {"", parent.name} else f"{folder}/{beginning}"


def _accompanies(file: Path, sets: dict[tuple[Path, str], dict[str, Path]]) -> bool:
    """Return whether a file is a cloud mask or preview beside the bands of an image."""
    stem = file.stem
    return any(
        parent == file.parent
        and (not beginning or stem == beginning or stem.startswith(beginning + "_"))
        for parent, beginning in sets
    )


def choose_bands(
    found: Mapping[str, Path], sensor: Sensor, wanted: Sequence[str] | None, where: Path
) -> dict[str, Path]:
    """Return the files of the bands that are wanted, in that order.

    Args:
        found: Band -> file.
        sensor: Sensor and product level.
        wanted: Which; None for all of the sensor, in its order.
        where: The folder, for the message of an error.

    Raises:
        RasterError: If a band is missing.
    """
    bands = wanted or SENSOR_BANDS[sensor]
    missing = [band for band in bands if band not in found]
    if missing:
        there = [band for band in SENSOR_BANDS[sensor] if band in found]
        raise RasterError(
            f"an image lacks {'band' if len(missing) == 1 else 'bands'} {', '.join(missing)}",
            found=", ".join(found[band].name for band in there) or "no band",
            expected=", ".join(bands),
            where=where,
            remedy="copy the image again, or leave those bands out of --bands",
        )
    return {band: found[band] for band in bands}
