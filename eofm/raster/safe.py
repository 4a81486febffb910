"""Read Sentinel-2 SAFE products, in a folder or a zip, as their metadata describe them.

Sensor, unit, date, footprint, special values and the file of each band are read from
`MTD_MSIL1C.xml` or `MTD_MSIL2A.xml`, and time and grid of the tile from `MTD_TL.xml`
(Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, 14.9 and 15). The names before
December 2016 (`S2A_OPER_MTD_SAFL1C_...xml`) are read as well.

Reflectance is (stored + offset) / quantification value. The offset of each band is
`RADIO_ADD_OFFSET` in L1C and `BOA_ADD_OFFSET` in L2A, since processing baseline 04.00; before that
there is none.

The XML is not trusted: no DTD, no entities, bounded size. Entity expansion ("billion laughs") and
reading of external files need a document type declaration, which no Sentinel-2 product has.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from eofm.contract.spec import BANDS, SENSOR_BANDS, Sensor, Unit, canonical_bands
from eofm.errors import RasterError, as_argument
from eofm.raster.geotiff import as_delivered, delivered_kind
from eofm.raster.grid import Grid
from eofm.raster.scene import CloudLayer, Scene, scene_of
from eofm.raster.source import RasterSource
from eofm.raster.tags import CloudMask, settle, unit_of_baseline

__all__ = [
    "MAX_BYTES",
    "Facts",
    "first_text",
    "is_safe",
    "of_product",
    "open_safe",
    "parse_xml",
    "texts",
    "too_large",
]

# ---------------------------------------------------------------------------------------------- XML

MAX_BYTES: Final = 64 * 2**20  # MTD_TL.xml of a full tile has 0.6 MB, with its angle grids
_MAX_DEPTH: Final = 64


class _ForbiddenError(Exception):
    pass


def parse_xml(data: bytes, where: object) -> Element:
    """Parse an XML document and return its root, with namespaces removed from all names.

    Args:
        data: The document.
        where: File, for the message of an error.

    Raises:
        RasterError: If it is too large, declares a document type, or is not XML.
    """
    if len(data) > MAX_BYTES:
        raise too_large(len(data), where)
    builder, parser = TreeBuilder(), expat.ParserCreate(namespace_separator="}")
    depth = 0

    def forbid(*_: object) -> None:
        raise _ForbiddenError("a document type declaration")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise _ForbiddenError(f"elements nested more than {_MAX_DEPTH} deep")
        builder.start(tag.rpartition("}")[2], attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag.rpartition("}")[2])

    parser.StartDoctypeDeclHandler = forbid
    parser.EntityDeclHandler = forbid
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
        return builder.close()
    except (_ForbiddenError, expat.ExpatError, ValueError, LookupError, AssertionError) as error:
        raise RasterError(
            "the metadata of the product cannot be read",
            found=error,
            expected="XML as ESA writes it",
            where=where,
            remedy="copy or download the product again",
        ) from error


def too_large(size: int, where: object) -> RasterError:
    """Return the error for a document that is larger than metadata can be."""
    return RasterError(
        "the metadata file of the product is too large",
        found=f"{size:,} bytes",
        expected=f"at most {MAX_BYTES:,}",
        where=where,
        remedy="copy or download the product again",
    )


def texts(root: Element, name: str) -> Iterator[str]:
    """Yield the texts of all elements with a name."""
    for element in root.iter(name):
        if element.text and element.text.strip():
            yield element.text.strip()


def first_text(root: Element, *names: str) -> str | None:
    """Return the text of the first element that has one of the names, tried in order."""
    for name in names:
        for text in texts(root, name):
            return text
    return None


# -------------------------------------------------------------------------------------- the product

_PRODUCT: Final = re.compile(
    r"(MTD_MSIL(1C|2A)\.xml|S2[A-D]_(OPER|USER)_MTD_SAFL(1C|2A)_.+\.xml)", re.ASCII
)
_TILE: Final = re.compile(r"(MTD_TL\.xml|S2[A-D]_(OPER|USER)_MTD_L(1C|2A)_TL_.+\.xml)", re.ASCII)
_MANIFEST: Final = "manifest.safe"
_IMAGE: Final = re.compile(r"_(B(?:0[1-9]|1[0-2]|8A))(?:_(10|20|60)m)?$", re.ASCII)
_RADAR: Final = re.compile(r"S1[A-D]_", re.ASCII)
_TILE_NAME: Final = re.compile(r"_(T\d{2}[A-Z]{3})(?=_|$)", re.ASCII)
_SENSORS: Final[Mapping[str, Sensor]] = {
    "Level-1C": Sensor.S2_L1C,
    "Level-2A": Sensor.S2_L2A,
    "Level-2Ap": Sensor.S2_L2A,  # the pilot production of 2017
}
_UNITS: Final[Mapping[float, Unit]] = {0.0: Unit.DN, -1000.0: Unit.DN_OFFSET1000}
_QUANTIFICATION: Final = 10_000.0
_MAX_FILES: Final = 20_000  # in a product; a full one has about 150


class _Product:
    """The files of a product by their names within it, in a folder or in a zip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            found = [f.relative_to(path).as_posix() for f in _walk(path)]
        else:
            self._zip = _open_zip(path)
            found = [i.filename for i in self._zip.infolist() if not i.is_dir()]
        if len(found) > _MAX_FILES:
            raise RasterError(
                "there are too many files for one product",
                found=f"more than {_MAX_FILES:,}",
                where=path,
                remedy="open one product: a folder that ends in .SAFE",
            )
        names = [path.name, *(PurePosixPath(name).name for name in found)]
        radar = next((n for n in names if delivered_kind(n)), names[0])
        known = any(map(_PRODUCT.fullmatch, names))
        if not known and (delivered_kind(radar) or _RADAR.match(radar.upper())):
            raise as_delivered(path, radar)
        self.metadata = _one_metadata(found, path)
        root = str(PurePosixPath(self.metadata).parent)
        self._root = "" if root == "." else root + "/"
        cut = len(self._root)
        self.names = frozenset(n[cut:] for n in found if n.startswith(self._root))

    def read(self, name: str) -> bytes:
        """Return the content of a small file."""
        where = f"{self.path}/{self._root}{name}"
        try:
            if self._zip is None:
                file = self.path / self._root / name
                size = file.stat().st_size
                if size > MAX_BYTES:
                    raise too_large(size, where)
                return file.read_bytes()
            size = self._zip.getinfo(self._root + name).file_size
            if size > MAX_BYTES:
                raise too_large(size, where)
            with self._zip.open(self._root + name) as file_in_zip:
                return file_in_zip.read(MAX_BYTES + 1)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise RasterError(
                "a file of the product cannot be read",
                found=error,
                where=where,
                remedy="copy or download the product again",
            ) from error

    def path_of(self, name: str) -> Path:
        """Return the path of a file; in a zip, the path it would have if the zip were a folder."""
        return self.path / (self._root + name)

    def gdal_name(self, name: str) -> str:
        """Return the GDAL name of a file, or an empty string if its path will do."""
        if self._zip is None:
            return ""
        return f"/vsizip/{{{self.path.absolute()}}}/{self._root}{name}"

    def close(self) -> None:
        """Close the zip."""
        if self._zip is not None:
            self._zip.close()


def _walk(path: Path) -> list[Path]:
    # metadata and granules are at most four folders deep: an archive of products is not searched
    found: list[Path] = []
    level = [path]
    for _ in range(6):
        entries = [entry for folder in level for entry in sorted(folder.iterdir())]
        found += [entry for entry in entries if entry.is_file()]
        level = [entry for entry in entries if entry.is_dir()]
        if len(found) > _MAX_FILES:
            break
    return found


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise RasterError(
            "the zip cannot be opened",
            found=error,
            where=path,
            remedy="download it again: its end is missing, or it is not a zip",
        ) from error


def _one_metadata(names: Sequence[str], path: Path) -> str:
    tops = [name for name in names if _PRODUCT.fullmatch(PurePosixPath(name).name)]
    if tops:
        depth = min(name.count("/") for name in tops)
        tops = [name for name in tops if name.count("/") == depth]
    if len(tops) == 1:
        return tops[0]
    if not tops and any(name.lower().endswith(".zip") for name in names):
        raise RasterError(
            "the archive contains archives",
            found=", ".join(name for name in names if name.lower().endswith(".zip"))[:200],
            expected="a folder that ends in .SAFE, or a zip of it",
            where=path,
            remedy="unpack it, and open each zip in it",
        )
    if not tops:
        raise RasterError(
            "this is not a Sentinel-2 product: its metadata are missing",
            found="no MTD_MSIL1C.xml and no MTD_MSIL2A.xml",
            expected="the folder that ends in .SAFE, or a zip of it",
            where=path,
            remedy="download the whole product; read single bands as a folder of rasters, and a "
            'raster in a zip by eofm.read_scene("zip://FILE.zip!NAME.tif", sensor=..., unit=...)',
        )
    raise RasterError(
        "the path contains several products",
        found=", ".join(sorted(tops)[:5]),
        expected="one product",
        where=path,
        remedy="open one of them, by the path of its folder",
    )


def is_safe(path: Path) -> bool:
    """Return whether a path is a product: a folder with its metadata, or a metadata file."""
    if path.is_dir():
        if path.suffix.upper() == ".SAFE":
            return True
        return any(_PRODUCT.fullmatch(entry.name) for entry in path.iterdir())
    return path.name == _MANIFEST or _PRODUCT.fullmatch(path.name) is not None


# ------------------------------------------------------------------------- metadata


@dataclass(frozen=True)
class Facts:
    """The metadata of a product.

    Args:
        root: `MTD_MSIL1C.xml` or `MTD_MSIL2A.xml`.
        where: Its path, for the messages of errors.
    """

    root: Element
    where: str

    @cached_property
    def sensor(self) -> Sensor:
        """The sensor and level."""
        level = first_text(self.root, "PROCESSING_LEVEL") or ""
        if level not in _SENSORS:
            raise self._wrong("the processing level", level, " | ".join(_SENSORS))
        return _SENSORS[level]

    @cached_property
    def baseline(self) -> str:
        """The processing baseline, as in 04.00."""
        text = first_text(self.root, "PROCESSING_BASELINE") or ""
        if not re.fullmatch(r"\d{1,2}\.\d{1,2}", text):
            raise self._wrong("the processing baseline", text, "as in 04.00")
        return text

    def unit(self, bands: Sequence[str]) -> Unit:
        """Return the unit of some bands: quantification value and the offset of each.

        Raises:
            RasterError: If eofm has no such unit, or the metadata contradict themselves.
        """
        level1 = self.sensor is Sensor.S2_L1C
        names = ["QUANTIFICATION_VALUE"]
        if not level1:
            names = ["BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"]
        text = first_text(self.root, *names) or ""
        if self._number(names[0], text) != _QUANTIFICATION:
            raise self._wrong("the quantification value", text, f"{_QUANTIFICATION:g}")
        offsets = self._offsets("RADIO_ADD_OFFSET" if level1 else "BOA_ADD_OFFSET")
        newer = unit_of_baseline(float(self.baseline)) is Unit.DN_OFFSET1000
        if not offsets:
            if newer:
                raise self._wrong(
                    f"the offsets of baseline {self.baseline}",
                    "none",
                    "one for each band, since baseline 04.00",
                )
            return Unit.DN
        missing = [band for band in bands if band not in offsets]
        if missing:
            raise self._wrong("the offsets", f"none of {', '.join(missing)}", "one for each band")
        values = sorted({offsets[band] for band in bands})
        if len(values) > 1 or values[0] not in _UNITS:
            raise self._wrong(
                "the offsets", ", ".join(f"{v:g}" for v in values), "0 or -1000 in every band"
            )
        return _UNITS[values[0]]

    def _offsets(self, name: str) -> dict[str, float]:
        found = {}
        for element in self.root.iter(name):
            number = element.get("band_id", "")
            if not number.isdecimal() or int(number) >= len(SENSOR_BANDS[Sensor.S2_L1C]):
                raise self._wrong(f"the band of {name}", number, "band_id 0 to 12")
            band = SENSOR_BANDS[Sensor.S2_L1C][int(number)]
            found[band] = self._number(name, element.text or "")
        return found

    @cached_property
    def saturated(self) -> int | None:
        """The special value of saturated pixels; that of nodata is 0, as everywhere in eofm."""
        found: dict[str, int] = {}
        for element in self.root.iter("Special_Values"):
            name = first_text(element, "SPECIAL_VALUE_TEXT") or ""
            text = first_text(element, "SPECIAL_VALUE_INDEX") or ""
            found[name] = int(self._number("SPECIAL_VALUE_INDEX", text))
        if found.get("NODATA", 0) != 0:
            raise self._wrong("the nodata value", str(found["NODATA"]), "0")
        return found.get("SATURATED")

    @cached_property
    def footprint(self) -> tuple[tuple[float, float], ...]:
        """Ring of (longitude, latitude); empty if the metadata have none."""
        text = first_text(self.root, "EXT_POS_LIST")
        if text is None:
            return ()
        numbers = [self._number("EXT_POS_LIST", part) for part in text.split()]
        if len(numbers) < 8 or len(numbers) % 2:
            return ()  # with heights, as in products of 2015
        return tuple(zip(numbers[1::2], numbers[0::2], strict=True))

    def granules(self) -> dict[str, list[str]]:
        """Return granule -> names of its images, without suffix."""
        found: dict[str, list[str]] = {}
        for element in self.root.iter():
            if element.tag in {"Granule", "Granules"}:
                images = [
                    text
                    for name in ("IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A")
                    for text in texts(element, name)
                ]
                found.setdefault(element.get("granuleIdentifier", ""), []).extend(images)
        if not found:
            raise self._wrong("the list of images", "no granule", "IMAGE_FILE of each band")
        return found

    def _number(self, name: str, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._wrong(name, text, "a number")
        return number

    def _wrong(self, what: str, found: str, expected: str) -> RasterError:
        return RasterError(
            f"{what} of the product cannot be used",
            found=found or "nothing",
            expected=expected,
            where=self.where,
            remedy="download the product again; if it is unchanged from ESA, read its bands as a "
            "folder of rasters and state the unit",
        )


# ----------------------------------------------------------- bands read without the product


_GRANULES: Final = "GRANULE"  # the folder of granules in a product


def of_product(source: RasterSource) -> RasterSource:
    """Complete an image from the metadata of the product that contains its files, if any.

    A product with unusable metadata can still be read as a folder of rasters. If no unit is stated,
    that of the product is used.

    Args:
        source: Files of an image.

    Raises:
        RasterError: If the metadata contradict the stated level or unit.
    """
    if source.sensor is Sensor.RGB:
        return source  # TCI, a picture made from the bands
    # a relative path may start inside the product, and depends on the working directory
    file = source.files[0].absolute()
    if ".SAFE" not in str(file).upper() and _GRANULES not in file.parts:
        return source  # the usual case in data sets
    parents = file.parents
    folder = next((p for p in parents if p.suffix.upper() == ".SAFE" and p.is_dir()), None)
    if folder is None:  # a product whose folder was renamed
        folder = next((p.parent for p in parents if p.name == _GRANULES and p.is_dir()), None)
    facts = None if folder is None else _facts_in(folder, folder.stat().st_mtime_ns)
    if facts is None:
        return source
    own: Sensor | Unit = facts.sensor
    stated: Sensor | Unit | None = source.sensor
    if own is stated:
        try:
            own, stated = facts.unit(source.bands or SENSOR_BANDS[source.sensor]), source.unit
        except RasterError:
            return source
    if stated is None and isinstance(own, Unit):
        return replace(source, unit=own, saturated=facts.saturated)
    if own is stated:
        return replace(source, saturated=facts.saturated)
    what = "sensor" if isinstance(own, Sensor) else "unit"
    raise RasterError(
        f"the product metadata give another {what} than stated",
        found=f"{own}, baseline {facts.baseline}",
        expected=stated,
        where=facts.where,
        remedy=f"state {as_argument(what, own)}; or let the product decide: "
        f"eofm.open_scene({str(folder)!r})",
    )


@lru_cache(maxsize=64)
def _facts_in(folder: Path, changed: int) -> Facts | None:
    """Return the metadata of a product; None if they cannot be used.

    Args:
        folder: Absolute path.
        changed: Its modification time, part of the cache key: a product may be downloaded again.
    """
    try:
        product = _Product(folder)
        where = str(product.path_of(PurePosixPath(product.metadata).name))
        facts = Facts(parse_xml(product.read(PurePosixPath(product.metadata).name), where), where)
        _ = facts.sensor, facts.baseline, facts.saturated
    except RasterError:
        return None
    return facts


# --------------------------------------------------------------------------- opening


def open_safe(
    path: Path,
    *,
    sensor: Sensor | None = None,
    unit: Unit | None = None,
    bands: Sequence[str] | None = None,
    item: str | None = None,
) -> Scene:
    """Open a product.

    Args:
        path: The folder, a zip of it, or its metadata file.
        sensor: Optional; it must agree with the metadata.
        unit: Optional; it must agree with the metadata.
        bands: Bands in the order wanted, each at its native resolution. None for all.
        item: Tile (`T32UPU`) or identifier of a granule; required if there are several.

    Raises:
        RasterError: If metadata or files are missing, broken, or of an unknown kind.
        SpecError: If a statement contradicts the metadata.
    """
    inside = path.suffix == ".xml" or path.name == _MANIFEST
    product = _Product(path.parent if inside else path)
    try:
        where = str(product.path_of(PurePosixPath(product.metadata).name))
        facts = Facts(parse_xml(product.read(PurePosixPath(product.metadata).name), where), where)
        sensor = settle("sensor", sensor, facts.sensor, "PROCESSING_LEVEL", where)
        wanted = SENSOR_BANDS[sensor] if bands is None else canonical_bands(bands, sensor)
        granule, images = _choose(facts.granules(), item, where)
        files = _files(product, images, wanted)
        found = facts.unit(wanted)
        unit = settle("unit", unit, found, f"its offsets (baseline {facts.baseline})", where)
        tile = _tile(product, files[0])
        date = (tile and first_text(tile, "SENSING_TIME")) or first_text(
            facts.root, "PRODUCT_START_TIME"
        )
        scene = scene_of(
            RasterSource(
                _name(facts, product, granule),
                tuple(product.path_of(name) for name in files),
                sensor,
                unit,
                wanted,
                names=tuple(filter(None, (product.gdal_name(name) for name in files))),
                saturated=facts.saturated,
            ),
            date=_moment(date),
            footprint=facts.footprint,
            origin=f"{where}: {first_text(facts.root, 'PROCESSING_LEVEL')}, processing baseline "
            f"{facts.baseline}",
            clouds=_clouds(product, files[0]),
        )
        if tile is not None:
            _check_place(tile, scene.grid, where)
        return scene
    finally:
        product.close()


def _choose(
    granules: Mapping[str, list[str]], item: str | None, where: str
) -> tuple[str, list[str]]:
    chosen = {
        name: images
        for name, images in granules.items()
        if item is None or item == name or item == _tile_name(name)
    }
    if len(chosen) == 1:
        return next(iter(chosen.items()))
    first = _tile_name(next(iter(granules))) or next(iter(granules))
    raise RasterError(
        f"the product has {len(granules)} granules"
        if chosen
        else "the product has no such granule",
        found=", ".join(_tile_name(name) or name for name in granules),
        expected="one of them" if chosen else item,
        where=where,
        remedy=f"choose one, as in {as_argument('item', first)}",
    )


def _tile_name(granule: str) -> str:
    found = _TILE_NAME.search(granule)
    return found[1] if found else ""


def _files(product: _Product, images: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the file of each band at its native resolution."""
    by_name = {PurePosixPath(name).stem: name for name in product.names if name.endswith(".jp2")}
    found: dict[str, str] = {}
    listed: dict[str, str] = {}
    for image in images:
        stem = PurePosixPath(image).name.removesuffix(".jp2")
        match = _IMAGE.search(stem)
        if match is None or (match[2] and int(match[2]) != BANDS[match[1]].gsd):
            continue  # TCI, AOT, WVP, SCL; or a band at another resolution than its native one
        listed[match[1]] = stem
        full = image.removesuffix(".jp2") + ".jp2"
        name = full if full in product.names else by_name.get(stem)
        if name is not None:
            found[match[1]] = name
    missing = [band for band in wanted if band not in found]
    if missing:
        there = [band for band in wanted if band in found]
        raise RasterError(
            f"the product lacks {'band' if len(missing) == 1 else 'bands'} {', '.join(missing)}",
            found=" ".join(there) or "no band",
            expected=", ".join(
                listed[band] + ".jp2" if band in listed else f"{band} in its list of images"
                for band in missing[:4]
            ),
            where=product.path,
            remedy="download them, or open only the others: "
            + (f"bands={there}" if there else "bands=[...]"),
        )
    return [found[band] for band in wanted]


def _tile(product: _Product, image: str) -> Element | None:
    """Return the metadata of the granule of an image; None if they are missing."""
    for folder in PurePosixPath(image).parents:
        for name in product.names:
            path = PurePosixPath(name)
            if path.parent == folder and _TILE.fullmatch(path.name):
                return parse_xml(product.read(name), product.path_of(name))
    return None


def _check_place(tile: Element, grid: Grid, where: str) -> None:
    """Check that the grid of the pixels is the one in the metadata of the tile."""
    code = first_text(tile, "HORIZONTAL_CS_CODE")
    here = grid.crs.to_epsg() if grid.crs is not None else None
    wrong = code is not None and here is not None and code.upper() != f"EPSG:{here}"
    for position in tile.iter("Geoposition"):
        if position.get("resolution") != f"{grid.transform.a:g}":
            continue
        t = grid.transform
        own = {"ULX": t.c, "ULY": t.f, "XDIM": t.a, "YDIM": t.e}
        stated = {name: first_text(position, name) for name in own}
        wrong |= any(text is not None and text != f"{own[n]:.10g}" for n, text in stated.items())
    if wrong:
        raise RasterError(
            "the images have another georeference than the metadata of their tile",
            found=f"{grid.crs}, upper left {grid.transform.c:.10g}, {grid.transform.f:.10g}",
            expected=f"{code} and the Geoposition of {grid.transform.a:g} m",
            where=where,
            remedy="download the product again: files of two products are mixed",
        )


def _clouds(product: _Product, image: str) -> tuple[CloudLayer, ...]:
    """Return the cloud masks of the granule of an image."""
    granule = next(
        (p for p in PurePosixPath(image).parents if p.parent.name == "GRANULE"), PurePosixPath()
    )
    found = []
    for mask, ending in (
        (CloudMask.SCL, "_SCL_20m.jp2"),
        (CloudMask.MSK_CLDPRB, "MSK_CLDPRB_20m.jp2"),
    ):
        for name in sorted(product.names):
            if name.endswith(ending) and granule in PurePosixPath(name).parents:
                file = product.gdal_name(name) or str(product.path_of(name))
                found.append(CloudLayer(mask, file))
                break
    return tuple(found)


def _name(facts: Facts, product: _Product, granule: str) -> str:
    uri = first_text(facts.root, "PRODUCT_URI", "PRODUCT_URI_1C", "PRODUCT_URI_2A")
    name = (uri or product.path.name).removesuffix(".zip").removesuffix(".SAFE")
    tile = _tile_name(granule)
    return name if not tile or tile in name else f"{name}_{tile}"


def _moment(text: str | None) -> str:
    """Return a time such as `2022-03-01T10:30:21.024Z` in the format of the package."""
    if text is None:
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="seconds")
