"""Find the images of a folder: multi-band files, and sets of one file per band.

A file belongs to a set if its name is a band or ends in one (`B02.tif`, `T32UPU_B02_10m.jp2`,
`HLS.S30.T32UPU.v2.0.B02.tif`); the files of a folder with equal beginnings are one image, and so
are those of ESA's folders R10m, R20m and R60m. Every other file is an image of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from eofm.contract.sensors import SENSOR_BANDS, canonical_bands
from eofm.contract.spec import Sensor, Unit
from eofm.errors import RasterError
from eofm.raster.metadata.bands import NamedBand, named_band
from eofm.raster.metadata.masks import CloudMask
from eofm.raster.source import RasterSource

# A .vrt in a folder is a view of files that are listed themselves; by its own path it can be read.
SUFFIXES: Final = frozenset({".tif", ".tiff", ".jp2"})
PICTURES: Final = frozenset({".png", ".jpg", ".jpeg"})  # rasters that lie nowhere
_RESOLUTIONS: Final = re.compile(r"R(10|20|60)m")
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

    An image is named after its path in the folder, without the suffix, and without the file name
    where its bands fill a folder of their own.

    Args:
        directory: The folder.
        sensor: Sensor and product level of the images.
        unit: Unit of the values; None takes what the files say.
        bands: Of a multi-band file, its bands in stored order; of files per band, those wanted.
            None takes what a multi-band file says, and all bands of the sensor.
        cloud_mask: The band that says where clouds are: in the file, or in one beside the bands.

    Raises:
        RasterError: If there is no folder, no image in it, two images have one name, a link leads
            in a circle, or an image lacks a band.
        SpecError: If a band is not one of the sensor's.
    """
    root = Path(directory)
    wanted = None if bands is None else canonical_bands(bands, sensor)
    sets, single = group_files(find_files(root), sensor)
    sources = []
    for image in sets:
        chosen = choose_bands(image.files, sensor, wanted, image.folder)
        name = image_name(root, image.folder, image.beginning)
        mask = None if cloud_mask is None else _mask_file(image, cloud_mask)
        files = tuple(chosen.values())
        sources.append(
            RasterSource(
                name, files, sensor, unit, tuple(chosen), cloud_mask=cloud_mask, mask_file=mask
            )
        )
    for file in single:
        name = file.relative_to(root).with_suffix("").as_posix()
        sources.append(RasterSource(name, (file,), sensor, unit, wanted, cloud_mask=cloud_mask))
    _check_names(sources, root)
    return sorted(sources, key=lambda source: source.name)


# ---------------------------------------------------------------------------------- files


def find_files(root: Path) -> list[Path]:
    """Return the raster files of a folder and its subfolders, in order: see `walk_files`.

    Raises:
        RasterError: If there is no such folder or no file in it, or a link leads nowhere, in a
            circle, or to a folder that is listed already.
    """
    if root.is_file():
        raise RasterError(
            "this is no folder of images",
            found="a file",
            where=root,
            remedy=f"name the folder it lies in, {root.parent}",
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
            remedy=_instead(there),
        )
    return files


def _instead(names: Sequence[str]) -> str:
    """Return what to do about a folder of such files, of which none is an image."""
    packed = [name for name in names if name.lower().endswith(_ARCHIVES)]
    if packed:
        return f"unpack {', '.join(packed[:4])} first"
    cubes = [name for name in names if name.lower().endswith(_CUBES)]
    if cubes:
        return f"open one alone, as in: eofm.read_scene({cubes[0]!r}, sensor=..., unit=...)"
    return "convert other formats first, as in: rio convert FILE.img FILE.tif"


def class_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder itself, in order; hidden ones are left out, as by `walk_files`.

    Args:
        folder: The folder of a class.
        suffixes: Of the files, in lower case.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not is_hidden(path.name) and path.is_file()
    )


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is left out, as the `._a.tif` of macOS is."""
    return name.startswith(".")


def walk_files(root: Path, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """Return the files of a folder and its subfolders, in order; there may be none.

    Links to folders are followed. Hidden files and folders are left out, among them the `._a.tif`
    that macOS writes beside `a.tif`; a folder called `a.tif` is a folder.

    Args:
        root: The folder.
        suffixes: Of the files, in lower case; rasters if not said.

    Raises:
        RasterError: If a link leads nowhere, in a circle, or to a folder that is listed already.
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
    """Append the files below a folder that was reached through a link, or through none."""
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
        path = folder / entry.name
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            _walk(path, suffixes, files, seen, link)
        elif path.suffix.lower() in suffixes:
            if not entry.is_file():
                raise RasterError(
                    "a link leads to a file that is not there",
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
        beginning: What the names of the files begin with.
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
    """Return the images of one file per band, and the files that are images of their own.

    Args:
        files: As `find_files` returns them.
        sensor: Whose bands count; None for those of any sensor.

    Raises:
        RasterError: If an image has a band twice.
    """
    found: dict[tuple[Path, str], list[tuple[Path, NamedBand]]] = {}
    others: list[Path] = []
    for file in files:
        named = named_band(file.stem, sensor)
        if named is None:
            others.append(file)
        else:
            found.setdefault((_home(file), named.beginning), []).append((file, named))
    # "b" beside "a" is no blue band, nor is "n" beside "e", "s" and "w"; nor a "b" alone
    counted = {(_home(f), begin) for f in others if (begin := _before_letter(f.stem)) is not None}
    sets: dict[tuple[Path, str], BandFiles] = {}
    for (folder, beginning), every in found.items():
        members = every
        if (folder, beginning) in counted or len({named.band for _, named in every}) == 1:
            members = [m for m in every if _before_letter(m[0].stem) is None]
            others += [file for file, _ in every if _before_letter(file.stem) is not None]
        if not members:
            continue
        # "danube_blue" alone is a picture of a river; with "danube_red" beside it, it is a band
        if not any(named.sure for _, named in members) and len({n.band for _, n in members}) == 1:
            others += [file for file, _ in members]
        else:
            sets[folder, beginning] = BandFiles(folder, beginning, _by_band(members))
    single: list[Path] = []
    for file in others:
        owner = _owner(file, sets)
        (single if owner is None else owner.companions).append(file)
    return list(sets.values()), single


def _before_letter(stem: str) -> str | None:
    """Return what comes before the single letter that a name ends in; None if it does not."""
    if not stem[-1:].isalpha() or stem[-2:-1] not in {"", *_SEPARATORS}:
        return None
    return stem[:-1].rstrip(_SEPARATORS)


def band_of(stem: str, sensor: Sensor) -> tuple[str, str]:
    """Return the band a file name ends in, and what comes before; empty texts if none.

    >>> band_of("T32UPU_B2", Sensor.S2_L1C)
    ('B02', 'T32UPU')
    """
    named = named_band(stem, sensor)
    return ("", "") if named is None else (named.band, named.beginning)


def image_name(root: Path, folder: Path, beginning: str) -> str:
    """Return the name of an image of one file per band: its folder, or what its files begin with.

    Args:
        root: The folder that is listed.
        folder: That of the files.
        beginning: What their names begin with.
    """
    inside = folder.relative_to(root).as_posix() if folder != root.parent else "."
    if inside == ".":
        return beginning or root.resolve().name
    return inside if beginning in {"", folder.name} else f"{inside}/{beginning}"


def _home(file: Path) -> Path:
    """Return the folder of an image: ESA puts its bands into one folder per resolution."""
    folder = file.parent
    return folder.parent if _RESOLUTIONS.fullmatch(folder.name) else folder


def _by_band(members: Sequence[tuple[Path, NamedBand]]) -> dict[str, Path]:
    """Return band -> file. Of a band at several stated resolutions, the finest is taken."""
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
    """Return the image of which a file is a cloud mask or preview."""
    home, stem = _home(file), file.stem
    ends = [0, *(i for i, letter in enumerate(stem) if letter in _SEPARATORS), len(stem)]
    for end in reversed(ends):
        owner = sets.get((home, stem[:end]))
        if owner is not None:
            return owner
    return None


def _mask_file(image: BandFiles, mask: CloudMask) -> Path:
    for file in image.companions:
        if mask.is_called(file.stem[len(image.beginning) :].lstrip(_SEPARATORS)):
            return file
    raise RasterError(
        f"an image has no cloud mask {mask}",
        found=", ".join(file.name for file in image.companions) or "no file beside the bands",
        expected=f"{image.beginning}_{mask}.tif" if image.beginning else f"{mask}.tif",
        where=image.folder,
        remedy="name one that is there, or read the image without a cloud mask",
    )


def _check_names(sources: Sequence[RasterSource], root: Path) -> None:
    named: dict[str, RasterSource] = {}
    for source in sources:
        other = named.setdefault(source.name, source)
        if other is not source:
            raise RasterError(
                "two images of the folder have one name",
                found=f"{other.files[0].relative_to(root)}, {source.files[0].relative_to(root)}",
                expected="names that differ in more than their suffix",
                where=root,
                remedy="rename one of them, or move it out of the folder",
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
        remedy = "copy the image again"
        if there:
            remedy += f", or name the bands that are there: --bands {' '.join(there)}"
        raise RasterError(
            f"an image lacks {'band' if len(missing) == 1 else 'bands'} {', '.join(missing)}",
            found=", ".join(found[band].name for band in there) or "no band",
            expected=", ".join(bands),
            where=where,
            remedy=remedy,
        )
    return {band: found[band] for band in bands}
