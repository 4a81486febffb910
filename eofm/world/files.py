"""Writing a world: GeoTIFFs, folders, resuming after an interruption, several processes.

    {out}/world.json                                  the settings; "synthetic": true
    {out}/s2c/{id:07d}/{season}/{B1..B12}.tif         uint16 digital numbers, native resolution
    {out}/s1/{id:07d}/{season}/{VV,VH}.tif            float32 dB
    {out}/dw/{id:07d}/{season}.tif                    uint8 Dynamic World codes, nodata 255
    {out}/safe/{id:07d}/{product}.SAFE                with `safe`: s2c as ESA delivers it
    {out}/safe/{id:07d}/{product}.geojson             polygons of known land cover next to it

A location is written under `.partial` and moved into place, `s2c` last: a location whose `s2c`
folder exists is complete. A folder of `dw` has no file for a season without labels.

`safe` is a Sentinel-2 product of the synthetic world, in the layout in which ESA delivers it:

    {product}.SAFE/MTD_MSIL1C.xml                                    or MTD_MSIL2A.xml
    {product}.SAFE/manifest.safe                                     every file with its checksum
    {product}.SAFE/DATASTRIP/DS_.../MTD_DS.xml
    {product}.SAFE/GRANULE/L1C_{tile}_.../MTD_TL.xml
    {product}.SAFE/GRANULE/L1C_{tile}_.../IMG_DATA/{tile}_{time}_B02.jp2
    {product}.SAFE/GRANULE/L2A_{tile}_.../IMG_DATA/R10m/{tile}_{time}_B02_10m.jp2
    {product}.SAFE/GRANULE/L2A_{tile}_.../QI_DATA/MSK_CLDPRB_20m.jp2

Elements and names are those of the Sentinel-2 Products Specification Document
(S2-PDGS-TAS-DI-PSD 14.9); written are the elements that readers use. What differs from a product of
ESA: the tile is as large as the scene, there is no true-colour image, and the pixels are synthetic,
which a comment in each document says. From processing baseline 04.00 on, 1000 is added to every
digital number but 0, and the metadata state the offset.

Polygons of known land cover are written next to a product, as an interpreter might draw them:
GeoJSON (RFC 7946) in longitude and latitude, pieces of one class each, taken from the Dynamic World
map of that day, which is the ground truth.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import shapes
from rasterio.warp import transform as warp_points
from rasterio.warp import transform_geom

from eofm.contract.spec import BANDS, SENSOR_BANDS, Sensor
from eofm.environment import end_with_parent
from eofm.errors import ConfigError, DataError
from eofm.io import replacing
from eofm.terminal import track
from eofm.world.config import WorldConfig
from eofm.world.landscape import PIXEL, Landscape, draw_landscape
from eofm.world.places import BIOMES, Biome, Visit, WorldPlace, draw_place, draw_visit
from eofm.world.season import WorldScene, draw_scene
from eofm.world.spectra import GroundCover

__all__ = [
    "LEAST",
    "SQUARE",
    "UNLABELLED",
    "VERSION",
    "Digital",
    "Product",
    "WorldReport",
    "draw_ground",
    "draw_location",
    "write_location",
    "write_polygons",
    "write_safe",
    "write_world",
]

# ------------------------------------------------------------------------------ Sentinel-2 products

Digital = npt.NDArray[np.uint16]

_OFFSET_SINCE: Final = "04.00"
_OFFSET: Final = 1000
_SYNTHETIC: Final = " synthetic: no pixel was ever seen by a satellite; written by eofm world "
_LEVELS: Final[Mapping[Sensor, str]] = {Sensor.S2_L1C: "1C", Sensor.S2_L2A: "2A"}
_PSD: Final = "https://psd-14.sentinel2.eo.esa.int/PSD/"
_ALL: Final = SENSOR_BANDS[Sensor.S2_L1C]  # band_id counts them, also in L2A


@dataclass(frozen=True)
class Product:
    """Properties of a product, without its pixels.

    Args:
        sensor: Level-1C or Level-2A.
        baseline: Processing baseline, as in 05.11.
        place: Where the upper left corner is.
        taken: When, UTC.
    """

    sensor: Sensor
    baseline: str
    place: WorldPlace
    taken: datetime

    @property
    def level(self) -> str:
        """1C or 2A."""
        return _LEVELS[self.sensor]

    @property
    def offset(self) -> int:
        """Offset that is added to every digital number except 0."""
        return _OFFSET if self.baseline >= _OFFSET_SINCE else 0

    @property
    def has_offsets(self) -> bool:
        """Whether the metadata state offsets: they do since baseline 04.00."""
        return self.baseline >= _OFFSET_SINCE

    @property
    def stamp(self) -> str:
        """When it was taken, as in names."""
        return self.taken.strftime("%Y%m%dT%H%M%S")

    @property
    def name(self) -> str:
        """Name of the product, without suffix."""
        orbit = self.taken.timetuple().tm_yday % 143 + 1
        made = (self.taken + timedelta(hours=2)).strftime("%Y%m%dT%H%M%S")
        number = self.baseline.replace(".", "")
        tile = self.place.tile
        return f"S2A_MSIL{self.level}_{self.stamp}_N{number}_R{orbit:03d}_{tile}_{made}"

    @property
    def granule(self) -> str:
        """Name of the granule's folder."""
        return f"L{self.level}_{self.place.tile}_A030000_{self.stamp}"

    def image(self, band: str) -> str:
        """Return the place of a band within the product, without suffix."""
        folder = f"GRANULE/{self.granule}/IMG_DATA"
        if self.sensor is Sensor.S2_L1C:
            return f"{folder}/{self.place.tile}_{self.stamp}_{band}"
        gsd = 20 if band == "SCL" else int(BANDS[band].gsd)
        return f"{folder}/R{gsd}m/{self.place.tile}_{self.stamp}_{band}_{gsd}m"


def write_safe(
    folder: Path,
    product: Product,
    pixels: Mapping[str, Digital],
    *,
    classes: npt.NDArray[np.uint8] | None = None,
    cloud: npt.NDArray[np.uint8] | None = None,
) -> Path:
    """Write a product and return its folder.

    Args:
        folder: Where to put it.
        product: Properties of the product.
        pixels: Band -> digital numbers without offset, 0 being nodata, (h, w) at native resolution;
            all bands of the sensor, or some.
        classes: Scene classification (SCL) of L2A, (h, w) at 20 m.
        cloud: Probability of cloud in per cent, (h, w) at 20 m.
    """
    root = folder / f"{product.name}.SAFE"
    for band, values in pixels.items():
        stored = np.where(values == 0, 0, values.astype(np.uint32) + product.offset)
        path = root / (product.image(band) + ".jp2")
        _write_jp2(path, stored.clip(0, 65_535).astype(np.uint16), product.place, BANDS[band].gsd)
    if classes is not None:
        _write_jp2(root / (product.image("SCL") + ".jp2"), classes, product.place, 20.0)
    quality = root / "GRANULE" / product.granule / "QI_DATA"
    quality.mkdir(parents=True, exist_ok=True)
    if cloud is not None:
        _write_jp2(quality / "MSK_CLDPRB_20m.jp2", cloud, product.place, 20.0)
    metres = max(values.shape[0] * int(BANDS[band].gsd) for band, values in pixels.items())
    _write_xml(root / f"MTD_MSIL{product.level}.xml", _product_xml(product, tuple(pixels), metres))
    _write_xml(root / "GRANULE" / product.granule / "MTD_TL.xml", _tile_xml(product, metres))
    strip = root / "DATASTRIP" / f"DS_SYNT_{product.stamp}_S{product.stamp}"
    _write_xml(strip / "MTD_DS.xml", ET.Element(f"{{{_PSD}}}Level-{product.level}_DataStrip_ID"))
    _write_xml(root / "manifest.safe", _manifest(root))
    return root


def _write_jp2(path: Path, pixels: npt.NDArray[np.generic], place: WorldPlace, gsd: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype.name,
        crs=CRS.from_epsg(place.epsg),
        transform=Affine(gsd, 0, place.left, 0, -gsd, place.top),
        QUALITY="100",
        REVERSIBLE="YES",  # without it the wavelets round
    ) as file:
        file.write(pixels, 1)


# -------------------------------------------------------------------------------- XML


def _write_xml(path: Path, root: ET.Element) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    root.insert(0, ET.Comment(_SYNTHETIC))
    ET.indent(root)
    ET.register_namespace("n1", root.tag.partition("}")[0].removeprefix("{") or _PSD)
    path.write_bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n")


def _add(parent: ET.Element, name: str, text: object = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, name, attributes)
    element.text = None if text is None else str(text)
    return element


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.024Z")


def _product_xml(product: Product, bands: tuple[str, ...], metres: int) -> ET.Element:
    space = f"{_PSD}User_Product_Level-{product.level}.xsd"
    root = ET.Element(f"{{{space}}}Level-{product.level}_User_Product")
    general = _add(root, f"{{{space}}}General_Info")
    _add_info(_add(general, "Product_Info"), product, bands)
    _add_characteristics(_add(general, "Product_Image_Characteristics"), product)
    geometric = _add(root, f"{{{space}}}Geometric_Info")
    footprint = _add(_add(geometric, "Product_Footprint"), "Product_Footprint")
    ring = _add(footprint, "Global_Footprint")
    _add(ring, "EXT_POS_LIST", _ring(product.place, metres))
    return root


def _add_info(info: ET.Element, product: Product, bands: tuple[str, ...]) -> None:
    _add(info, "PRODUCT_START_TIME", _time(product.taken))
    _add(info, "PRODUCT_STOP_TIME", _time(product.taken))
    _add(info, "PRODUCT_URI", f"{product.name}.SAFE")
    _add(info, "PROCESSING_LEVEL", f"Level-{product.level}")
    _add(info, "PRODUCT_TYPE", f"S2MSI{product.level}")
    _add(info, "PROCESSING_BASELINE", product.baseline)
    _add(info, "GENERATION_TIME", _time(product.taken + timedelta(hours=2)))
    take = _add(info, "Datatake", datatakeIdentifier=f"GS2A_{product.stamp}_030000_SYNTHETIC")
    _add(take, "SPACECRAFT_NAME", "Sentinel-2A")
    _add(take, "DATATAKE_TYPE", "INS-NOBS")
    _add(take, "DATATAKE_SENSING_START", _time(product.taken))
    _add(take, "SENSING_ORBIT_DIRECTION", "DESCENDING")
    query = _add(info, "Query_Options", completeSingleTile="true")
    _add(query, "PRODUCT_FORMAT", "SAFE_COMPACT")
    organisation = _add(info, "Product_Organisation")
    granule = _add(
        _add(organisation, "Granule_List"),
        "Granule",
        granuleIdentifier=f"S2A_OPER_MSI_L{product.level}_TL_SYNT_{product.stamp}_A030000_"
        f"{product.place.tile}_N{product.baseline}",
        imageFormat="JPEG2000",
    )
    for band in (band for band in _ALL if band in bands):
        _add(granule, "IMAGE_FILE", product.image(band))


def _add_characteristics(parent: ET.Element, product: Product) -> None:
    for text, number in (("NODATA", 0), ("SATURATED", 65_535)):
        special = _add(parent, "Special_Values")
        _add(special, "SPECIAL_VALUE_TEXT", text)
        _add(special, "SPECIAL_VALUE_INDEX", number)
    if product.sensor is Sensor.S2_L1C:
        _add(parent, "QUANTIFICATION_VALUE", 10_000, unit="none")
        offsets, name = "Radiometric_Offset_List", "RADIO_ADD_OFFSET"
    else:
        values = _add(parent, "QUANTIFICATION_VALUES_LIST")
        _add(values, "BOA_QUANTIFICATION_VALUE", 10_000, unit="none")
        _add(values, "AOT_QUANTIFICATION_VALUE", 1000.0, unit="none")
        _add(values, "WVP_QUANTIFICATION_VALUE", 1000.0, unit="cm")
        offsets, name = "BOA_ADD_OFFSET_VALUES_LIST", "BOA_ADD_OFFSET"
    if product.has_offsets:
        listed = _add(parent, offsets)
        for number in range(len(_ALL)):
            _add(listed, name, -product.offset, band_id=str(number))
    spectral = _add(parent, "Spectral_Information_List")
    for number, band in enumerate(_ALL):
        short = "B" + band[1:].lstrip("0")
        one = _add(spectral, "Spectral_Information", bandId=str(number), physicalBand=short)
        _add(one, "RESOLUTION", f"{BANDS[band].gsd:g}")
        _add(_add(one, "Wavelength"), "CENTRAL", BANDS[band].wavelength_nm, unit="nm")


def _ring(place: WorldPlace, metres: int) -> str:
    """Return latitudes and longitudes of the corners, by turns."""
    east = [place.left + dx for dx in (0, metres, metres, 0, 0)]
    north = [place.top - dy for dy in (0, 0, metres, metres, 0)]
    longitude, latitude = warp_points(CRS.from_epsg(place.epsg), CRS.from_epsg(4326), east, north)[
        :2
    ]
    return " ".join(f"{y:.9f} {x:.9f}" for x, y in zip(longitude, latitude, strict=True)) + " "


def _tile_xml(product: Product, metres: int) -> ET.Element:
    space = f"{_PSD}S2_PDI_Level-{product.level}_Tile_Metadata.xsd"
    root = ET.Element(f"{{{space}}}Level-{product.level}_Tile_ID")
    general = _add(root, f"{{{space}}}General_Info")
    _add(general, "TILE_ID", f"S2A_OPER_MSI_L{product.level}_TL_SYNT_{product.place.tile}")
    _add(general, "SENSING_TIME", _time(product.taken))
    geometric = _add(root, f"{{{space}}}Geometric_Info")
    geocoding = _add(geometric, "Tile_Geocoding", metadataLevel="Brief")
    zone, side = product.place.epsg % 100, "N" if product.place.epsg < 32_700 else "S"
    _add(geocoding, "HORIZONTAL_CS_NAME", f"WGS84 / UTM zone {zone}{side}")
    _add(geocoding, "HORIZONTAL_CS_CODE", f"EPSG:{product.place.epsg}")
    for gsd in (10, 20, 60):
        size = _add(geocoding, "Size", resolution=str(gsd))
        _add(size, "NROWS", metres // gsd)
        _add(size, "NCOLS", metres // gsd)
    for gsd in (10, 20, 60):
        position = _add(geocoding, "Geoposition", resolution=str(gsd))
        _add(position, "ULX", f"{product.place.left:.0f}")
        _add(position, "ULY", f"{product.place.top:.0f}")
        _add(position, "XDIM", gsd)
        _add(position, "YDIM", -gsd)
    return root


def _manifest(root: Path) -> ET.Element:
    """List every file with its checksum, as XFDU 1 does."""
    space = "urn:ccsds:schema:xfdu:1"
    manifest = ET.Element(f"{{{space}}}XFDU", {"version": "esa/safe/sentinel/sentinel-2/synthetic"})
    objects = _add(manifest, "dataObjectSection")
    for number, file in enumerate(sorted(f for f in root.rglob("*") if f.is_file())):
        data = file.read_bytes()
        one = _add(
            _add(objects, "dataObject", ID=f"file{number}"), "byteStream", size=str(len(data))
        )
        _add(one, "fileLocation", locatorType="URL", href=f"./{file.relative_to(root).as_posix()}")
        _add(one, "checksum", hashlib.sha3_256(data).hexdigest(), checksumName="SHA3-256")
    return manifest


# ---------------------------------------------------------------------------------------- polygons


SQUARE: Final = 48  # pixels at a side of the squares that polygons are cut at
LEAST: Final = 100  # pixels of a polygon: a hectare
_EACH: Final = 40  # polygons of a class, at most
_CODES: Final = 256


def write_polygons(
    path: Path, cover: npt.NDArray[np.uint8], place: WorldPlace, rng: np.random.Generator
) -> None:
    """Write some pieces of a land-cover map, each with its `class`.

    The map is cut into squares of 480 m; of the pieces of one class in a square that have a hectare
    or more, up to forty of each class are drawn.

    Args:
        path: GeoJSON.
        cover: Codes of `GroundCover`, (H, W); others have no polygons.
        place: Where the upper left corner is.
        rng: Draws which pieces.
    """
    rows, columns = (np.arange(length) // SQUARE for length in cover.shape)
    squares = rows[:, None] * (columns[-1] + 1) + columns
    transform = Affine(PIXEL, 0, place.left, 0, -PIXEL, place.top)
    pieces: dict[GroundCover, list[dict[str, object]]] = {code: [] for code in GroundCover}
    names = squares * _CODES + cover
    for shape, name in shapes(names.astype(np.int32), cover < len(GroundCover), 4, transform):
        if _area(shape["coordinates"]) >= LEAST * PIXEL**2:
            pieces[GroundCover(int(name) % _CODES)].append(shape)
    features = []
    for code, found in pieces.items():
        kept = np.sort(rng.permutation(len(found))[:_EACH])
        features += [_feature(code, found[number], place) for number in kept]
    content = {"type": "FeatureCollection", "synthetic": True, "features": features}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _area(rings: list[list[tuple[float, float]]]) -> float:
    """Return the area of an outline less that of its holes, by the shoelace formula."""
    sizes = []
    for ring in rings:
        x, y = np.array(ring).T
        sizes.append(abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2)
    return sizes[0] - sum(sizes[1:])


def _feature(code: GroundCover, shape: dict[str, object], place: WorldPlace) -> dict[str, object]:
    degrees = transform_geom(CRS.from_epsg(place.epsg), CRS.from_epsg(4326), shape, precision=7)
    name = code.name.lower().replace("_", " ")
    return {"type": "Feature", "properties": {"class": name}, "geometry": degrees}


# ---------------------------------------------------------------------------- the folder of a world

VERSION: Final = 1  # of the recipe: the same numbers give the same bytes within a version
UNLABELLED: Final = 0.1  # share of seasons without a map
_MODALITIES = ("dw", "s1", "safe", "s2c")  # the order in which folders move into place
_CARD = "world.json"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class WorldReport:
    """Result of `write_world`.

    Args:
        out: The world's folder.
        scenes: Locations in it.
        seasons: Seasons per location.
        written: Locations written by this call; the others were there already.
        labelled: Seasons with a map, among those.
        presence: Class name -> share of those maps that show it.
    """

    out: Path
    scenes: int
    seasons: int
    written: int
    labelled: int
    presence: Mapping[str, float]

    def describe(self) -> str:
        """Return the report as text."""
        head = (
            f"synthetic world at {self.out}: {self.scenes} locations, {self.seasons} seasons each "
            f"({self.written} locations written now)"
        )
        if not self.labelled:
            return head
        classes = ", ".join(f"{name} {share:.0%}" for name, share in self.presence.items())
        return f"{head}\n{self.labelled} maps, of which show: {classes}"


def write_world(config: WorldConfig) -> WorldReport:
    """Write a synthetic world, or complete one.

    Args:
        config: What to write. In a script that sets `workers` above 1, call it below
            `if __name__ == "__main__":`, as for any process pool.

    Returns:
        Numbers and paths of what was written.

    Raises:
        ConfigError: If the folder holds a world of other settings, or more locations.
        DataError: If the folder holds something else, or cannot be written to.
    """
    try:
        return _write(config)
    except (OSError, RasterioError, BrokenProcessPool) as error:
        raise DataError(
            "the world could not be written",
            found=error,
            where=config.out,
            remedy="check disk space and permissions, then run again; finished locations are kept",
        ) from error


def _write(config: WorldConfig) -> WorldReport:
    out = Path(config.out)
    _claim(out, config)
    todo = [i for i in range(config.scenes) if not (out / "s2c" / f"{i:07d}").is_dir()]
    presence: Counter[str] = Counter()
    labelled = 0
    for classes in track(_written(config, todo), "writing the synthetic world", len(todo)):
        labelled += len(classes)
        presence.update(name for season in classes for name in season)
    shutil.rmtree(out / _PARTIAL, ignore_errors=True)
    shares = {
        c.name.lower().replace("_", " "): presence[c.name] / max(labelled, 1) for c in GroundCover
    }
    return WorldReport(out, config.scenes, config.seasons, len(todo), labelled, shares)


# --- the folder ---------------------------------------------------------------------------------


def _claim(out: Path, config: WorldConfig) -> None:
    """Write `world.json`, or check that the existing one describes the same world.

    Raises:
        ConfigError: If it describes another world or more locations.
        DataError: If the folder is not empty and not a world.
    """
    identity = _identity(config)
    card = out / _CARD
    if card.is_file():
        there = _read_card(card)
        scenes = there.pop("scenes")
        if there != identity:
            keys = {*identity, *there}
            differing = sorted(k for k in keys if there.get(k) != identity.get(k))
            raise ConfigError(
                "another world is in this folder",
                found=", ".join(f"{k}={there.get(k)}" for k in differing),
                expected=", ".join(f"{k}={identity.get(k)}" for k in differing),
                where=card,
                remedy="choose another --out, or repeat the settings of the world that is there",
            )
        if isinstance(scenes, int) and scenes > config.scenes:
            raise ConfigError(
                "the world in this folder is larger than requested",
                found=f"scenes={scenes}",
                expected=f"scenes={config.scenes}",
                where=card,
                remedy=f"give --scenes {scenes} or more, or choose another --out",
            )
    elif out.is_dir() and any(out.iterdir()):
        raise DataError(
            "the folder is not empty and holds no world",
            found=", ".join(sorted(p.name for p in out.iterdir())[:5]),
            expected=_CARD,
            where=out,
            remedy="choose a new folder for --out",
        )
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(identity | {"scenes": config.scenes}, indent=2) + "\n"
    with replacing(card) as file:
        file.write_text(text, encoding="utf-8")


def _identity(config: WorldConfig) -> dict[str, object]:
    """Return the settings that define a world, apart from the number of locations."""
    identity: dict[str, object] = {
        "what": "synthetic world of eofm, in the file layout of SSL4EO-S12 v1",
        "synthetic": True,
        "version": VERSION,
        "seed": config.seed,
        "size": config.size,
        "seasons": config.seasons,
    }
    return identity if config.safe is None else identity | {"safe": config.safe}


def _read_card(card: Path) -> dict[str, object]:
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "the card of the world cannot be read",
            where=card,
            remedy="delete the world's folder and write it again",
        ) from error
    if not isinstance(content, dict) or "scenes" not in content:
        raise DataError("this is not the card of a world", found=content, where=card)
    return content


# --- locations ----------------------------------------------------------------------------------

_Classes = list[list[str]]  # per labelled season: the classes its map shows


def _written(config: WorldConfig, todo: list[int]) -> Iterator[_Classes]:
    """Write locations, in this process or in several, and yield the classes of their maps."""
    if min(config.workers, len(todo)) < 2:
        for location in todo:
            yield write_location(config, location)
        return
    # spawned, not forked: the caller may hold threads, and a fork would copy their locks
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(config.workers, len(todo)), context, end_with_parent) as pool:
        try:
            yield from pool.map(write_location, [config] * len(todo), todo, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_location(config: WorldConfig, location: int) -> _Classes:
    """Write one location with all its seasons.

    Returns:
        For each season that has a map, the names of the classes in it.
    """
    out, folder = Path(config.out), f"{location:07d}"
    partial = out / _PARTIAL / f"{folder}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    modalities = [name for name in _MODALITIES if name != "safe" or config.safe]
    for modality in modalities:
        (partial / modality).mkdir(parents=True)
    classes = []
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"):
        for visit, place, scene, labelled in draw_location(config, location):
            _write_season(partial, place, visit, scene, labelled=labelled)
            if config.safe:
                product = Product(Sensor.S2_L1C, config.safe, place, visit.optical)
                write_safe(partial / "safe", product, scene.optical)
                drawn = np.random.default_rng([config.seed, location, visit.optical.toordinal()])
                polygons = partial / "safe" / f"{product.name}.geojson"
                write_polygons(polygons, scene.cover, place, drawn)
            if labelled:
                classes.append(
                    [GroundCover(c).name for c in np.unique(scene.cover) if c < len(GroundCover)]
                )
    for modality in modalities:
        target = out / modality / folder
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # of an interrupted run: s2c is not there yet
        (partial / modality).replace(target)
    partial.rmdir()
    return classes


def draw_location(
    config: WorldConfig, location: int
) -> Iterator[tuple[Visit, WorldPlace, WorldScene, bool]]:
    """Draw the seasons of a location, without writing.

    Yields:
        The visit, the place, the scene, and whether there is a map of it.
    """
    biome, place, shift_days, land = draw_ground(config, location)
    for season in range(config.seasons):
        # a separate random stream: a season does not depend on the number of seasons
        own = np.random.default_rng(np.random.SeedSequence([config.seed, location, 1 + season]))
        visit = draw_visit(own, place, season, shift_days)
        labelled = bool(own.random() >= UNLABELLED)
        yield visit, place, draw_scene(own, land, biome, place, visit), labelled


def draw_ground(config: WorldConfig, location: int) -> tuple[Biome, WorldPlace, int, Landscape]:
    """Draw the properties that all seasons of a location share.

    Returns:
        The biome, the place, the shift of its seasons in days, and the landscape.
    """
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, location]))
    weights = np.array([b.weight for b in BIOMES.values()])
    biome = list(BIOMES.values())[int(rng.choice(len(weights), p=weights / weights.sum()))]
    place = draw_place(rng, biome.boxes)
    shift_days = int(rng.integers(365))
    return biome, place, shift_days, draw_landscape(rng, biome, config.size)


def _write_season(
    root: Path, place: WorldPlace, visit: Visit, scene: WorldScene, *, labelled: bool
) -> None:
    optical, radar = root / "s2c" / visit.optical_id, root / "s1" / visit.radar_id
    optical.mkdir()
    radar.mkdir()
    crs = CRS.from_epsg(place.epsg)
    for band, pixels in scene.optical.items():
        short = band[0] + band[1:].lstrip("0")  # SSL4EO-S12 says B1
        _write_tif(optical / f"{short}.tif", pixels, crs, place, BANDS[band].gsd)
    for polarisation, decibel in scene.radar.items():
        _write_tif(radar / f"{polarisation}.tif", decibel, crs, place, PIXEL)
    if labelled:
        path = root / "dw" / f"{visit.optical_id}.tif"
        _write_tif(path, scene.cover, crs, place, PIXEL, nodata=255)


def _write_tif(
    path: Path,
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    crs: CRS,
    place: WorldPlace,
    gsd: float,
    nodata: int | None = None,
) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype.name,
        crs=crs,
        transform=Affine(gsd, 0, place.left, 0, -gsd, place.top),
        nodata=nodata,
    ) as file:
        file.write(pixels, 1)
