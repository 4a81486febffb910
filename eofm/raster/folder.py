"""Find the images of a folder: multi-band files, and sets of one file per band.

A file belongs to a set if its name is a band or ends in one (`B02.tif`, `T32UPU_B02_10m.jp2`,
`HLS.S30.T32UPU.v2.0.B02.tif`); the files of a folder with equal beginnings are one image, and so
are those in ESA's folders R10m, R20m and R60m. Every other file is a separate image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Final

from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit, canonical_bands
from eofm.errors import RasterError
from eofm.raster.bands import NamedBand, check_product, named_band
from eofm.raster.geotiff import as_delivered, copy_command, delivered_kind, local_path
from eofm.raster.source import RasterSource
from eofm.raster.tags import CloudMask, is_beside, mask_named

__all__ = [
    "PICTURES",
    "SUFFIXES",
    "BandFiles",
    "band_of",
    "choose_bands",
    "class_files",
    "find_files",
    "group_files",
    "image_name",
    "is_hidden",
    "list_sources",
    "listed_source",
    "named_source",
    "walk_files",
]

# A .vrt in a folder usually combines files that are listed too; it is read by its own path only.
SUFFIXES: Final = frozenset({".tif", ".tiff", ".jp2"})
PICTURES: Final = frozenset({".png", ".jpg", ".jpeg"})  # rasters without georeference
_RESOLUTIONS: Final = re.compile(r"R(10|20|60)m")
# In a Sentinel-2 product: MSK_DETFOO_B02.jp2 is a detector footprint, not a blue band.
_QUALITY: Final = "QI_DATA"
_MEASUREMENT: Final = "measurement"  # of a Sentinel-1 product
_ARCHIVES: Final = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".zst")
_CUBES: Final = (".nc", ".nc4", ".zarr")
_SEPARATORS: Final = "_-. "


def list_sources(
    directory: str | Path,
    sensor: Sensor,
    unit: Unit | None,
    bands: Sequence[str] | None = None,
    cloud_mask: CloudMask | None = None,
) -> list[RasterSource]:
    """Return the images in a folder and its subfolders, ordered by name.

    The name of an image is its path in the folder without suffix; that of one file per band is its
    subfolder, followed by the common prefix of the files unless they are the only image there.

    Args:
        directory: The folder.
        sensor: Sensor and product level of the images.
        unit: Unit of the values; None reads it from the metadata of the files.
        bands: For a multi-band file, its bands in stored order; for files per band, the bands to
            read. None uses the descriptions of a multi-band file, or all bands of the sensor.
        cloud_mask: Mask layer of clouds, in the file or in one beside the bands.

    Raises:
        RasterError: If the folder is missing or has no image, two images have the same name, links
            form a loop, or an image lacks a band.
        SpecError: If a band does not belong to the sensor.
    """
    root = local_path(str(directory))
    wanted = None if bands is None else canonical_bands(bands, sensor)
    files = find_files(root)
    delivered = (file for file in files if delivered_kind(file.name))
    radar = next((file for file in delivered if file.parent.name == _MEASUREMENT), None)
    if radar is not None:
        raise as_delivered(radar.parent.parent, radar.name)
    sets, single = group_files(files, sensor)
    if not sets and not single:
        raise RasterError(
            "the folder holds no images",
            found=f"masks of a product: {', '.join(file.name for file in files[:3])}",
            where=root,
            remedy="name the product, or the folder IMG_DATA in it",
        )
    sources = []
    for image in sets:
        name = image_name(root, image.folder, image.beginning)
        sources.append(_source(name, image, sensor, unit, wanted, cloud_mask))
    for file in single:
        name = file.relative_to(root).with_suffix("").as_posix()
        sources.append(RasterSource(name, (file,), sensor, unit, wanted, cloud_mask=cloud_mask))
    _check_names(sources, root)
    return sorted(sources, key=lambda source: source.name)


def named_source(
    path: Path,
    sensor: Sensor,
    unit: Unit | None,
    bands: Sequence[str] | None = None,
    cloud_mask: CloudMask | None = None,
) -> RasterSource | None:
    """Return the image of one file per band whose file names begin with a path.

    A folder can hold several images, as in MAJA products: `SENTINEL2B_..._FRE` and `..._SRE`.

    Args:
        path: An existing folder and the common prefix of the file names.
        sensor: See `list_sources`.
        unit: See `list_sources`.
        bands: See `list_sources`.
        cloud_mask: See `list_sources`.

    Raises:
        RasterError: If the image lacks a band.
        SpecError: If a band is not one of the sensor's.
    """
    wanted = None if bands is None else canonical_bands(bands, sensor)
    begun = (file for file in class_files(path.parent, SUFFIXES) if file.name.startswith(path.name))
    sets, _ = group_files(begun, sensor)
    images = [image for image in sets if image.beginning == path.name]
    if len(images) != 1:
        return None
    return _source(path.name, images[0], sensor, unit, wanted, cloud_mask)


def listed_source(
    files: Sequence[Path],
    sensor: Sensor,
    unit: Unit | None,
    bands: Sequence[str] | None = None,
) -> RasterSource:
    """Return the image made of listed files: one file per band, or a single file.

    Args:
        files: Files of one image, and masks beside its bands; their folders are ignored.
        sensor: See `list_sources`.
        unit: See `list_sources`.
        bands: See `list_sources`; None uses the listed bands, in their order.

    Raises:
        RasterError: If the list is empty, mixes images, or repeats a file.
        SpecError: If a band does not belong to the sensor.
    """
    twice = [file for k, file in enumerate(files) if file in files[:k]]
    if twice:
        raise RasterError(
            "a file of an image is listed twice",
            found=twice[0],
            expected="each file once",
            remedy="list(dict.fromkeys(files)) has each once",
        )
    wanted = None if bands is None else canonical_bands(bands, sensor)
    sets, single = group_files(files, sensor)
    if len(sets) + len(single) != 1:
        raise _no_one_image(files, sets, single)
    if single:
        return RasterSource(single[0].stem, (single[0],), sensor, unit, wanted)
    image = sets[0]
    listed = tuple(band for band in image.files if band in SENSOR_BANDS[sensor])
    name = image.beginning or image.folder.resolve().name
    source = _source(name, image, sensor, unit, wanted or listed or None, None)
    _check_used(image, source)
    return source


def _no_one_image(
    files: Sequence[Path], sets: Sequence[BandFiles], single: Sequence[Path]
) -> RasterError:
    """Return the error for a list of files that is empty or mixes images."""
    of_sets = (", ".join(file.name for file in image.files.values()) for image in sets)
    return RasterError(
        "the listed files are not one image" if files else "no files are listed",
        found="; ".join(([*of_sets, *(f.name for f in single)] or [f.name for f in files])[:5])
        or "an empty list",
        expected="the bands of one image, in one folder, with names that share a prefix and end in "
        "the band: T32_B02.tif, T32_B03.tif",
        remedy="list the files of one image, and read other images separately"
        if files
        else "name the files of one image, or their folder",
    )


def _check_used(image: BandFiles, source: RasterSource) -> None:
    """Check that every listed file is a band, a mask or a known auxiliary layer.

    Raises:
        RasterError: If one is not.
    """
    masks = dict(source.mask_files).values()
    for file in image.companions:
        suffix = file.stem.removeprefix(image.beginning).lstrip(_SEPARATORS)
        if file not in masks and file.parent.name != _QUALITY and not is_beside(suffix):
            raise RasterError(
                f"a listed file is not a band of {source.sensor}",
                found=suffix or file.name,
                expected=" ".join(SENSOR_BANDS[source.sensor]),
                where=file,
                remedy="remove it from the list",
            )


def _source(
    name: str,
    image: BandFiles,
    sensor: Sensor,
    unit: Unit | None,
    wanted: tuple[str, ...] | None,
    cloud_mask: CloudMask | None,
) -> RasterSource:
    chosen = choose_bands(image.files, sensor, wanted, image.folder)
    masks = _mask_files(image)
    if cloud_mask is not None and cloud_mask not in masks:
        raise _unmasked(image, cloud_mask)
    files, beside = tuple(chosen.values()), tuple(masks.items())
    return RasterSource(
        name, files, sensor, unit, tuple(chosen), cloud_mask=cloud_mask, mask_files=beside
    )


# ---------------------------------------------------------------------------------- files


def find_files(root: Path) -> list[Path]:
    """Return the raster files of a folder and its subfolders, in order: see `walk_files`.

    Raises:
        RasterError: If the folder is missing or has no raster, or a link is broken, forms a loop or
            points to a folder that is listed already.
    """
    if root.is_file():
        raise RasterError(
            "this is not a folder of images",
            found="a file",
            where=root,
            remedy=f"name its folder, {root.parent}",
        )
    if not root.is_dir():
        raise RasterError("there is no such folder of images", where=root)
    files = walk_files(root)
    if not files:
        there = sorted(path.name for path in root.iterdir() if not is_hidden(path.name))
        raise RasterError(
            "the folder holds no images",
            found="no file that ends in .tif, .tiff or .jp2"
            + (f", but {', '.join(there[:4])}{', ...' * (len(there) > 4)}" if there else ""),
            where=root,
            remedy=_instead(root, there),
        )
    return files


def _instead(root: Path, names: Sequence[str]) -> str:
    """Return the remedy for a folder whose files are not images."""
    packed = [name for name in names if name.lower().endswith(_ARCHIVES)]
    if packed:
        return f"unpack {', '.join(packed[:4])} first"
    cubes = [name for name in names if name.lower().endswith(_CUBES)]
    if cubes:
        return f"name one of them, as in {quote(str(root / cubes[0]))}"
    return f"convert other formats first, as in: {copy_command(Path('FILE.img'))}"


def class_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files directly in a folder, in order, without hidden ones (see `walk_files`).

    Args:
        folder: The folder of a class.
        suffixes: Suffixes of the files, in lower case.
    """
    with os.scandir(folder) as entries:  # returns file types without further system calls
        files = [folder / entry.name for entry in entries if entry.is_file()]
    return sorted(f for f in files if f.suffix.lower() in suffixes and not is_hidden(f.name))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, like `._a.tif` of macOS."""
    return name.startswith(".")


def walk_files(root: Path, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """Return the files of a folder and its subfolders, in order; there may be none.

    Links to folders are followed. Hidden files and folders are left out, among them the `._a.tif`
    that macOS writes beside `a.tif`. A folder named `a.tif` is treated as a folder.

    Args:
        root: The folder.
        suffixes: Suffixes of the files, in lower case; by default those of rasters.

    Raises:
        RasterError: If a link is broken, forms a loop, or points to a folder listed already.
    """
    files: list[Path] = []
    _walk(root, suffixes, files, {}, None)
    return sorted(files)


def _walk(
    folder: Path,
    suffixes: frozenset[str],
    files: list[Path],
    seen: dict[str, tuple[Path, Path | None]],
    link: Path | None,
) -> None:
    """Append the files below a folder; `link` is the symbolic link that led to it, if any."""
    if folder.is_symlink() and seen:
        link = folder
    real = os.path.realpath(folder)
    if real in seen:
        other, other_link = seen[real]
        raise RasterError(
            "a folder is reached by two paths, so its images would be listed twice",
            found=f"{folder} and {other}",
            expected="links to other folders",
            where=folder,
            remedy=f"remove the link: {link or other_link}",
        )
    seen[real] = folder, link
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        raise RasterError("a folder cannot be listed", found=error, where=folder) from error
    for entry in entries:
        if is_hidden(entry.name):
            continue
        path = folder / entry.name
        if entry.is_dir():
            _walk(path, suffixes, files, seen, link)
        elif path.suffix.lower() in suffixes:
            if not entry.is_file():
                raise RasterError(
                    "a link points to a missing file",
                    found=entry.name,
                    where=path,
                    remedy="copy the file, or remove the link",
                )
            files.append(path)


# --------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class BandFiles:
    """An image of one file per band.

    Args:
        folder: The folder of its files.
        beginning: Common prefix of the file names.
        files: Band -> file.
        companions: Files beside those of the bands: cloud masks, previews.
    """

    folder: Path
    beginning: str
    files: dict[str, Path] = field(default_factory=dict)
    companions: list[Path] = field(default_factory=list)


def group_files(
    files: Iterable[Path], sensor: Sensor | None = None
) -> tuple[list[BandFiles], list[Path]]:
    """Return the images of one file per band, and the files that are separate images.

    Args:
        files: Files from `find_files`.
        sensor: Sensor whose bands are considered; None for all sensors.

    The masks in `QI_DATA` of a Sentinel-2 product are companions of its bands, not images.

    Raises:
        RasterError: If an image has a band twice.
    """
    found: dict[tuple[Path, str], list[tuple[Path, NamedBand]]] = {}
    others: list[Path] = []
    quality: list[Path] = []
    for file in files:
        folder = file.parent
        if folder.name == _QUALITY:
            quality.append(file)
            continue
        named = named_band(file.stem, sensor)
        if named is None:
            others.append(file)
        else:
            found.setdefault((_home(folder), named.beginning), []).append((file, named))
    # "b" beside "a" is not a blue band, nor is "n" beside "e", "s" and "w", nor a lone "b"
    begun = ((file, _before_letter(file.stem)) for file in others)
    counted = {(_home(file.parent), begin) for file, begin in begun if begin is not None}
    sets: dict[tuple[Path, str], BandFiles] = {}
    for (folder, beginning), every in found.items():
        members = every
        if (folder, beginning) in counted or len({named.band for _, named in every}) == 1:
            members = [m for m in every if _before_letter(m[0].stem) is None]
            others += [file for file, _ in every if _before_letter(file.stem) is not None]
        if not members:
            continue
        # "danube_blue" alone is a picture of a river, and a band only beside "danube_red"; likewise
        # "S1A_VV_VH" alone holds both bands
        alone = len({named.band for _, named in members}) == 1
        if alone and (not any(n.sure for _, n in members) or _ends_in_code(beginning, sensor)):
            others += [file for file, _ in members]
        else:
            sets[folder, beginning] = BandFiles(folder, beginning, _by_band(members))
    single: list[Path] = []
    for file in others:
        owner = _owner(file, sets)
        (single if owner is None else owner.companions).append(file)
    granules: dict[Path, list[BandFiles]] = {}
    for image in sets.values() if quality else ():
        granules.setdefault(image.folder.parent, []).append(image)
    for file in quality:
        for image in granules.get(file.parent.parent, ()):
            image.companions.append(file)
    return list(sets.values()), single


def _ends_in_code(beginning: str, sensor: Sensor | None) -> bool:
    named = named_band(beginning, sensor)
    return named is not None and named.sure


def _before_letter(stem: str) -> str | None:
    """Return the part of a name before a final single letter; None if there is none."""
    if not stem[-1:].isalpha() or stem[-2:-1] not in {"", *_SEPARATORS}:
        return None
    return stem[:-1].rstrip(_SEPARATORS)


def band_of(stem: str, sensor: Sensor) -> tuple[str, str]:
    """Return the band at the end of a file name and the part before it; empty strings if none.

    >>> band_of("T32UPU_B2", Sensor.S2_L1C)
    ('B02', 'T32UPU')
    """
    named = named_band(stem, sensor)
    return ("", "") if named is None else (named.band, named.beginning)


def image_name(root: Path, folder: Path, beginning: str) -> str:
    """Return the name of an image of one file per band: its folder, or the prefix of its files.

    Args:
        root: The listed folder.
        folder: Folder of the files.
        beginning: Common prefix of the file names.
    """
    inside = folder.relative_to(root).as_posix() if folder != root.parent else "."
    if inside == ".":
        return beginning or root.resolve().name
    return inside if beginning in {"", folder.name} else f"{inside}/{beginning}"


def _home(folder: Path) -> Path:
    """Return the folder of an image; ESA uses a subfolder for each resolution."""
    return folder.parent if _RESOLUTIONS.fullmatch(folder.name) else folder


def _by_band(members: Sequence[tuple[Path, NamedBand]]) -> dict[str, Path]:
    """Return band -> file; of several stated resolutions of a band, the finest is used."""
    chosen: dict[str, tuple[Path, NamedBand]] = {}
    for file, named in members:
        other = chosen.get(named.band)
        if other is not None and (named.gsd == other[1].gsd or not named.gsd or not other[1].gsd):
            raise RasterError(
                f"an image has band {named.band} twice",
                found=f"{other[0].name}, {file.name}",
                where=file,
                remedy="remove one of them, or move it to another folder",
            )
        if other is None or named.gsd < other[1].gsd:
            chosen[named.band] = (file, named)
    return {band: file for band, (file, _) in chosen.items()}


def _owner(file: Path, sets: Mapping[tuple[Path, str], BandFiles]) -> BandFiles | None:
    """Return the image that a cloud mask or preview belongs to, if any."""
    home, stem = _home(file.parent), file.stem
    ends = [0, *(i for i, letter in enumerate(stem) if letter in _SEPARATORS), len(stem)]
    for end in reversed(ends):
        owner = sets.get((home, stem[:end]))
        if owner is not None:
            return owner
    return None


def _mask_files(image: BandFiles) -> dict[CloudMask, Path]:
    """Return the cloud masks beside the bands of an image."""
    found: dict[CloudMask, Path] = {}
    for file in image.companions:
        mask = mask_named(file.stem.removeprefix(image.beginning).lstrip(_SEPARATORS))
        if mask is not None:
            found.setdefault(mask, file)
    return found


def _unmasked(image: BandFiles, mask: CloudMask) -> RasterError:
    return RasterError(
        f"an image has no cloud mask {mask}",
        found=", ".join(file.name for file in image.companions) or "no file beside the bands",
        expected=f"{image.beginning}_{mask}.tif" if image.beginning else f"{mask}.tif",
        where=image.folder,
        remedy="name an available mask, or read the image without a cloud mask",
    )


def _check_names(sources: Sequence[RasterSource], root: Path) -> None:
    named: dict[str, RasterSource] = {}
    for source in sources:
        other = named.setdefault(source.name, source)
        if other is not source:
            raise RasterError(
                "two images in the folder have the same name",
                found=f"{other.files[0].relative_to(root)}, {source.files[0].relative_to(root)}",
                expected="names that differ in more than their suffix",
                where=root,
                remedy="rename one of them, or move it out of the folder",
            )


def choose_bands(
    found: Mapping[str, Path], sensor: Sensor, wanted: Sequence[str] | None, where: Path
) -> dict[str, Path]:
    """Return the files of the requested bands, in that order.

    Args:
        found: Band -> file.
        sensor: Sensor and product level.
        wanted: Requested bands; None for all of the sensor, in its order.
        where: The folder, for the error message.

    Raises:
        RasterError: If a band is missing, or the files are named after a product of another sensor.
    """
    bands = wanted or SENSOR_BANDS[sensor]
    missing = [band for band in bands if band not in found]
    if missing:
        if found:
            check_product(next(iter(found.values())), sensor)
        there = [band for band in SENSOR_BANDS[sensor] if band in found]
        remedy = "copy the image again"
        if there:
            remedy += f", or state the available bands: --bands {' '.join(there)}"
        raise RasterError(
            f"an image lacks {'band' if len(missing) == 1 else 'bands'} {', '.join(missing)}",
            found=", ".join(found[band].name for band in there) or "no band",
            expected=", ".join(bands),
            where=where,
            remedy=remedy,
        )
    return {band: found[band] for band in bands}
