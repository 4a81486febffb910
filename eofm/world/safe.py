"""Sentinel-2 products of the synthetic world, in the layout in which ESA delivers them.

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

Polygons of known ground lie beside a product, as somebody might draw them: GeoJSON (RFC 7946) in
longitude and latitude, pieces of one land cover, taken from the Dynamic World map of that day,
which knows the truth of the world.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
from rasterio.features import shapes
from rasterio.warp import transform as warp_points
from rasterio.warp import transform_geom

from eofm.contract.sensors import BANDS, SENSOR_BANDS
from eofm.contract.spec import Sensor
from eofm.io import replacing
from eofm.world.landscape import PIXEL
from eofm.world.places import WorldPlace
from eofm.world.spectra import GroundCover

Digital = npt.NDArray[np.uint16]

_OFFSET_SINCE: Final = "04.00"
_OFFSET: Final = 1000
_SYNTHETIC: Final = " synthetic: no pixel was ever seen by a satellite; written by eofm world "
_LEVELS: Final[Mapping[Sensor, str]] = {Sensor.S2_L1C: "1C", Sensor.S2_L2A: "2A"}
_PSD: Final = "https://psd-14.sentinel2.eo.esa.int/PSD/"
_ALL: Final = SENSOR_BANDS[Sensor.S2_L1C]  # band_id counts them, also in L2A


@dataclass(frozen=True)
class Product:
    """What a product is, but for its pixels.

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
        """What is added to every digital number but 0."""
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
        product: What it is.
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
