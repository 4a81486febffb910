"""Read STAC items from a file: the assets of the bands, and the unit of their values.

An Item or ItemCollection (STAC 1.0 and 1.1) is read as plain JSON. Bands are named by `eo:bands` or
`bands`, otherwise by the key of the asset. The unit of Sentinel-2 is decided in this order:

1. `earthsearch:boa_offset_applied: true`, or `sentinel:boa_offset_applied` in items of version 0:
   the offset was subtracted from the pixels, whatever `raster:bands` still states
   (Element84/earth-search, issue 66).
2. `raster:scale` and `raster:offset`, or those of `raster:bands`. An offset of baseline 04.00 in an
   item of an older baseline, or no offset in one of a newer baseline, is a contradiction.
3. `s2:processing_baseline` or `processing:version`: since 04.00 the pixels include the offset.

`earthsearch:boa_offset_applied: false` is known to be wrong in many items (issues 66 and 71): a
stated unit takes precedence over it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from eofm.contract.spec import (
    SENSOR_BANDS,
    UNITS,
    Sensor,
    Unit,
    band_candidates,
    canonical_bands,
)
from eofm.errors import RasterError, SpecError, as_argument
from eofm.formats.foreign import foreign, read_bounded
from eofm.formats.text import parse_json
from eofm.raster.bands import check_amplitude, described_unit, named_band
from eofm.raster.geotiff import gdal_name, local_path, open_geotiff
from eofm.raster.scene import CloudLayer, Scene, reached, scene_of, shown
from eofm.raster.source import RasterSource
from eofm.raster.tags import (
    NO_UNIT,
    OTHER_UNIT,
    CloudMask,
    mask_named,
    read_scaling,
    settle,
    unit_of_baseline,
    with_scale,
    without_scale,
)

__all__ = ["Json", "open_stac", "read_items", "roles_of"]

_MAX_BYTES: Final = 256 * 2**20
_OF_DIGITAL_NUMBERS: Final = frozenset({Unit.DN, Unit.DN_OFFSET1000})
_APPLIED: Final = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_NO_BAND: Final = frozenset({"thumbnail", "overview", "visual", "metadata"})  # roles of assets
_RASTER: Final = (".tif", ".tiff", ".jp2", ".vrt")
_CLOUD: Final = "cloud"  # the key of the probability in items of Earth Search
Json = Mapping[str, Any]


@dataclass(frozen=True)
class _Asset:
    """An asset with bands: its key and URL, and scale, offset and nodata of each band.

    `gsd` is its pixel size in metres; None if unknown. `units` are the names of its bands with
    their units, if declared.
    """

    key: str
    href: str
    bands: tuple[str, ...]
    pairs: tuple[tuple[float, float], ...]
    nodata: tuple[float | None, ...]
    gsd: float | None
    units: tuple[str, ...] = ()


def read_items(path: Path) -> list[Json]:
    """Return the items of a file, at least one.

    Raises:
        RasterError: If it is not a STAC Item or ItemCollection.
    """
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise RasterError(
            "the file is too large for a list of items",
            found=f"{path.stat().st_size:,} bytes",
            expected=f"at most {_MAX_BYTES:,}",
            where=path,
            remedy="write the wanted items to a separate file",
        )
    with foreign(RasterError, "the file cannot be read as JSON", where=path):
        content = parse_json(read_bounded(path, _MAX_BYTES))
    items = content
    if isinstance(content, dict):
        items = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    good = isinstance(items, list) and all(
        isinstance(item, dict)
        and item.get("type") == "Feature"
        and isinstance(item.get("assets"), dict)
        and isinstance(item.get("id"), str)
        for item in items
    )
    if not good or not items:
        kind = content.get("type") if isinstance(content, dict) else type(content).__name__
        raise RasterError(
            "the file holds no STAC items",
            found=f"type {kind!r}",
            expected="an Item (type Feature, with assets) or an ItemCollection",
            where=path,
            remedy="save the result of a search, as with pystac's ItemCollection.save_object",
        )
    return list(items)


def open_stac(
    path: Path,
    *,
    sensor: Sensor | None = None,
    unit: Unit | None = None,
    bands: Sequence[str] | None = None,
    item: str | None = None,
) -> Scene:
    """Open one item of a file as a scene.

    Args:
        path: The file.
        sensor: Required if the item does not state it.
        unit: Required if the item does not state it.
        bands: Bands in the order wanted. None for all bands of the sensor in the item.
        item: Identifier of the item; required if there are several.

    Raises:
        RasterError: If the file holds no such item, or an asset cannot be read.
        SpecError: If the item contradicts the stated sensor or unit.
    """
    items = read_items(path)
    chosen = [one for one in items if item is None or one["id"] == item]
    if len(chosen) != 1:
        ids = [str(one["id"]) for one in items]
        raise RasterError(
            f"the file holds {len(items)} items" if chosen else "the file holds no such item",
            found=", ".join(ids[:5]) + (", ..." if len(ids) > 5 else ""),
            expected="one of them" if chosen else item,
            where=path,
            remedy=f"choose one, as in {as_argument('item', ids[0])}",
        )
    return _scene(chosen[0], path, sensor, unit, bands)


def _scene(
    item: Json, path: Path, sensor: Sensor | None, unit: Unit | None, bands: Sequence[str] | None
) -> Scene:
    where = f"{path}: {item['id']}"
    with foreign(RasterError, "the STAC item cannot be read", where=where, passing=(SpecError,)):
        sensor = settle("sensor", sensor, _sensor(item), "the properties of the item", where)
        _check_family(item, sensor, where)
        assets = _assets(item, sensor)
        wanted = canonical_bands(bands, sensor) if bands is not None else None
        names, source = _source(item, path, assets, sensor, wanted, where)
        pairs = [
            pair
            for asset in assets
            for b, pair in zip(asset.bands, asset.pairs, strict=True)
            if b in names
        ]
        nodata = {
            band: number
            for asset in reversed(assets)  # the first asset of a band is the one that is read
            for band, number in zip(asset.bands, asset.nodata, strict=True)
            if band in names and number is not None
        }
        unit = _unit(item, sensor, unit, pairs, where)
        if Unit.DB in UNITS[sensor]:
            read = {band: one for one in reversed(assets) for band in one.bands}
            unit = _radar_unit(dict.fromkeys(read[band] for band in names), unit, where)
        pixels = RasterSource(
            *(str(item["id"]), source[0], sensor, unit, names),
            names=source[1],
            nodata=tuple(nodata.items()),
        )
        if unit not in _OF_DIGITAL_NUMBERS:
            _check_tags(pixels, pairs, where)
        try:
            scene = scene_of(
                pixels,
                date=_moment(_properties(item)),
                footprint=_footprint(item),
                origin=f"{where}, STAC",
                clouds=_clouds(item, path),
            )
        except RasterError as error:
            if error.problem == OTHER_UNIT and unit in _OF_DIGITAL_NUMBERS:
                error.remedy = _reconcile(item, pixels)
            if error.problem == NO_UNIT:  # the item does not state it either
                settle("unit", unit, None, "", where, sorted(UNITS[sensor]))
            raise
        return scene if wanted is None or scene.bands == wanted else scene.select(wanted)


def _check_tags(pixels: RasterSource, pairs: Sequence[tuple[float, float]], where: str) -> None:
    """Check that the files have the scale and offset of their item, since those are applied.

    Raises:
        RasterError: If they do not.
    """
    declared = dict.fromkeys(pair for pair in pairs if pair != (1.0, 0.0))
    if not declared:
        return
    scale, offset = next(iter(declared))
    for file in pixels.names or pixels.files:
        with reached(str(file)), open_geotiff(file) as opened:
            own = list(zip(opened.scales, opened.offsets, strict=True))
        if not all(any(np.allclose(one, pair, rtol=1e-3) for pair in declared) for one in own):
            raise RasterError(
                "an item states a scale and offset that its files do not have",
                found=f"{own[0][0]:g}, {own[0][1]:g} in the file",
                expected=f"{scale:g}, {offset:g}, as in the item",
                where=f"{where}, {shown(str(file))}",
                remedy="write them into the files, as in: "
                + with_scale(shown(str(file)), scale, offset),
            )


def _reconcile(item: Json, pixels: RasterSource) -> str:
    """Return the remedy if the tags of the files state another unit than their item."""
    flag, applied = _applied(_properties(item))
    remedy = "if the item is right, remove the scale from the files, as in: "
    remedy += without_scale(shown(str((pixels.names or pixels.files)[0])))
    if not applied:
        return f"{remedy}; if the files are, open them by their own paths, without the item"
    return (
        f'{remedy}; if the files are, write "{flag}": false into the item, and state the unit: '
        f'unit="{Unit.DN_OFFSET1000}"'
    )


def _properties(item: Json) -> Json:
    found = item.get("properties")
    return found if isinstance(found, dict) else {}


# ----------------------------------------------------------------------- sensor, unit


def _sensor(item: Json) -> Sensor | None:
    """Return the sensor that an item names by product type, level or collection.

    The Planetary Computer's `sentinel-1-rtc` keeps the type of its source product, GRD.
    """
    properties = _properties(item)
    kind = properties.get("s2:product_type") or properties.get("sar:product_type")
    kind = str(kind or "").upper()
    if str(properties.get("product:type")).startswith("S2MSI"):  # of the Copernicus Data Space
        kind = str(properties["product:type"])
    level = str(properties.get("processing:level") or "").upper()
    platform = f"{properties.get('constellation', '')} {properties.get('platform', '')}".lower()
    collection = str(item.get("collection") or "").lower()
    for sensor, types, levels, words in (
        (Sensor.S2_L1C, {"S2MSI1C"}, {"L1C"}, ("l1c",)),
        (Sensor.S2_L2A, {"S2MSI2A"}, {"L2A", "L2"}, ("l2a",)),
        (Sensor.S1_RTC, {"RTC"}, set(), ("rtc",)),
        (Sensor.S1_GRD, {"GRD"}, set(), ("grd",)),
    ):
        family = "sentinel-2" if sensor in {Sensor.S2_L1C, Sensor.S2_L2A} else "sentinel-1"
        ours = family in f"{platform} {collection}".replace("_", "-")
        if ours and sensor is Sensor.S1_RTC and "rtc" in collection:
            return sensor
        if kind in types or (ours and level in levels):
            return sensor
        if not kind and not level and ours and any(word in collection for word in words):
            return sensor
    return None


# Words in platform and collection names -> sensors. HLS L30 is Landsat.
_FAMILIES: Final[Mapping[str, frozenset[Sensor]]] = {
    "sentinel-1": frozenset({Sensor.S1_GRD, Sensor.S1_RTC}),
    "sentinel-2": frozenset({Sensor.S2_L1C, Sensor.S2_L2A}),
    "hlss30": frozenset({Sensor.S2_L2A}),
    **dict.fromkeys(("sentinel-3", "landsat", "hlsl30", "modis", "naip"), frozenset()),
}


def _check_family(item: Json, sensor: Sensor, where: str) -> None:
    """Check that an item is not of another satellite than stated.

    Common names such as `red` are bands of all satellites.

    Raises:
        SpecError: If it is.
    """
    if sensor in {Sensor.RGB, Sensor.NAIP}:
        return  # pictures of any satellite
    properties = _properties(item)
    words = (properties.get("platform"), properties.get("constellation"), item.get("collection"))
    text = " ".join(str(word) for word in words if word).lower().replace("_", "-")
    families = [name for name in _FAMILIES if name in text.replace("sentinel ", "sentinel-")]
    if families and not any(sensor in _FAMILIES[name] for name in families):
        raise SpecError(
            "the item is from another satellite than stated",
            found=text,
            expected=sensor,
            where=where,
            remedy="open items of the stated sensor; if the item was made from its pixels, correct "
            "its platform, constellation and collection",
        )


def _unit(
    item: Json,
    sensor: Sensor,
    stated: Unit | None,
    pairs: Sequence[tuple[float, float]],
    where: str,
) -> Unit | None:
    """Return the stated unit of some bands or that of the item; None leaves it to the files."""
    properties = _properties(item)
    silent = all(pair == (1.0, 0.0) for pair in pairs)
    if sensor not in {Sensor.S2_L1C, Sensor.S2_L2A}:
        if silent:
            return stated
        return read_scaling(pairs, sensor, stated, None, Path(where)).unit
    flag, applied = _applied(properties)
    if applied is True:
        return settle("unit", stated, Unit.DN, f"{flag}: true", where)
    if applied is False and stated is not None and stated in _OF_DIGITAL_NUMBERS:
        return stated
    baseline = _baseline(properties)
    by_baseline = None
    if baseline is not None:
        by_baseline = unit_of_baseline(baseline)
    if silent and by_baseline is None:
        return stated
    if silent:
        by = f"s2:processing_baseline {baseline}"
        return settle("unit", stated, by_baseline, by, where)
    found = read_scaling(pairs, sensor, None, None, Path(where)).stored
    if by_baseline is not None and by_baseline is not found:
        if stated is not None and stated in {found, by_baseline}:
            return stated
        raise SpecError(
            "the item contradicts itself about the offset of its pixels",
            found=f"{found or 'no unit'} by raster:scale and raster:offset "
            f"{', '.join(map(str, dict.fromkeys(pairs)))}; {by_baseline} by processing baseline "
            f"{baseline:05.2f}",
            where=where,
            remedy='inspect the darkest pixels, and state the unit: unit="dn" or '
            'unit="dn-offset1000"',
        )
    return settle("unit", stated, found, "raster:scale and raster:offset", where)


def _radar_unit(assets: Iterable[_Asset], stated: Unit | None, where: str) -> Unit | None:
    """Return the unit of backscatter: stated, or declared by the assets that are read."""
    words = [word for asset in assets for word in asset.units]
    check_amplitude(words, where, "use a product of backscatter, or square its values first")
    declared = described_unit(words)
    if declared is None:
        return stated  # None leaves it to the files
    return settle("unit", stated, declared, "the units of its assets", where)


def _applied(properties: Json) -> tuple[str, bool | None]:
    """Return the property on the offset and its value: true if the offset was subtracted."""
    flag = next((name for name in _APPLIED if isinstance(properties.get(name), bool)), _APPLIED[0])
    value = properties.get(flag)
    return flag, value if isinstance(value, bool) else None


def _baseline(properties: Json) -> float | None:
    for name in ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline"):
        text = str(properties.get(name, ""))
        if re.fullmatch(r"\d{1,2}\.\d{1,2}", text):
            return float(text)
    return None


# ----------------------------------------------------------------------------- assets


def _assets(item: Json, sensor: Sensor) -> list[_Asset]:
    """Return the assets that hold bands: the finest first, JPEG 2000 after other formats."""
    found = []
    for key, asset in item["assets"].items():
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            continue
        if roles_of(asset) & _NO_BAND or str(key).lower() in _NO_BAND:
            continue
        if not str(asset["href"]).partition("?")[0].lower().endswith(_RASTER):
            continue
        bands = _bands(str(key), asset, sensor)
        if bands:
            pairs, nodata = _pairs(asset, len(bands)), _nodata(asset, len(bands))
            gsd, units = _gsd(str(key), asset), _units(asset, bands)
            found.append(_Asset(str(key), asset["href"], bands, pairs, nodata, gsd, units))
    # an asset that does not state it is assumed to be as fine as the finest of its bands
    finest: dict[tuple[str, ...], float] = {}
    for one in found:
        if one.gsd is not None:
            finest[one.bands] = min(one.gsd, finest.get(one.bands, one.gsd))

    def order(one: _Asset) -> tuple[float, bool]:
        gsd = finest.get(one.bands, 0.0) if one.gsd is None else one.gsd
        return gsd, one.href.partition("?")[0].lower().endswith(".jp2")

    return sorted(found, key=order)


def roles_of(asset: Json) -> frozenset[str]:
    """Return the roles of an asset in lower case; one that is no list counts as none."""
    roles = asset.get("roles")
    return (
        frozenset(str(role).lower() for role in roles) if isinstance(roles, list) else frozenset()
    )


def _gsd(key: str, asset: Json) -> float | None:
    """Return the pixel size of an asset in metres: `B02_60m` holds a 10 m band at 60 m."""
    listed = asset.get("raster:bands") or asset.get("bands")
    first = listed[0] if isinstance(listed, list) and listed else {}
    first = first if isinstance(first, dict) else {}
    named = named_band(key)
    stem = str(asset["href"]).partition("?")[0].rpartition("/")[2].rpartition(".")[0]
    of_file = named_band(stem)
    candidates = (
        asset.get("raster:spatial_resolution"),
        first.get("raster:spatial_resolution", first.get("spatial_resolution")),
        named.gsd if named else None,
        of_file.gsd if of_file else None,
        asset.get("gsd"),
    )
    return next(
        (float(one) for one in candidates if isinstance(one, (int, float)) and one > 0), None
    )


def _bands(key: str, asset: Json, sensor: Sensor) -> tuple[str, ...]:
    """Return the bands of an asset; none if one of them is unknown."""
    listed = asset.get("eo:bands") or asset.get("bands") or ()
    if not isinstance(listed, list) or not listed:
        return band_candidates(key, sensor) if len(band_candidates(key, sensor)) == 1 else ()
    bands = []
    for band in listed:
        fields = band if isinstance(band, dict) else {}
        words = [fields.get("name"), key if len(listed) == 1 else None]
        words += [fields.get("common_name"), fields.get("eo:common_name")]
        candidates = [band_candidates(str(word), sensor) for word in words if word]
        one = next((c[0] for c in candidates if len(c) == 1), None)
        if one is None:
            return ()
        bands.append(one)
    return tuple(bands) if len(set(bands)) == len(bands) else ()


def _pairs(asset: Json, count: int) -> tuple[tuple[float, float], ...]:
    """Return scale and offset of each band: of the asset, of `raster:bands`, or of `bands`."""
    pairs = []
    for own in _of_bands(asset, count):
        scale, offset = (
            own.get(name, own.get(f"raster:{name}", asset.get(f"raster:{name}")))
            for name in ("scale", "offset")
        )
        try:
            pairs.append((float(1 if scale is None else scale), float(offset or 0)))
        except (TypeError, ValueError) as error:
            raise RasterError(
                "the scale or offset of an asset is not a number", found=(scale, offset)
            ) from error
    return tuple(pairs)


def _of_bands(asset: Json, count: int) -> list[Json]:
    """Return the `raster:bands` entry, or `bands` of STAC 1.1, of each band of an asset."""
    listed = asset.get("raster:bands") or asset.get("bands") or ()
    every = list(listed)[:count] if isinstance(listed, list) else []
    every += [{}] * (count - len(every))
    return [own if isinstance(own, dict) else {} for own in every]


def _units(asset: Json, bands: Sequence[str]) -> tuple[str, ...]:
    """Return name and unit of each band that declares one: `raster:bands`, or STAC 1.1."""
    units = [own.get("unit", asset.get("unit")) for own in _of_bands(asset, len(bands))]
    return tuple(f"{b} {unit}" for b, unit in zip(bands, units, strict=True) if unit)


def _nodata(asset: Json, count: int) -> tuple[float | None, ...]:
    """Return the declared nodata of each band; 0 in all bands is unmeasured in any case."""
    values = [own.get("nodata", asset.get("nodata")) for own in _of_bands(asset, count)]
    numbers = (isinstance(one, (int, float)) and not isinstance(one, bool) for one in values)
    return tuple(
        float(one) or None if is_one else None for one, is_one in zip(values, numbers, strict=True)
    )


def _source(
    item: Json,
    path: Path,
    assets: Sequence[_Asset],
    sensor: Sensor,
    wanted: tuple[str, ...] | None,
    where: str,
) -> tuple[tuple[str, ...], tuple[tuple[Path, ...], tuple[str, ...]]]:
    """Return the bands to open, and the files and GDAL names of one file, or of one per band."""
    single = {asset.bands[0]: asset for asset in reversed(assets) if len(asset.bands) == 1}
    bands = wanted or tuple(band for band in SENSOR_BANDS[sensor] if band in single)
    if bands and all(band in single for band in bands):
        chosen = [single[band] for band in bands]
    else:
        whole = [a for a in assets if len(a.bands) > 1 and set(wanted or ()) <= set(a.bands)]
        if not whole:
            raise RasterError(
                f"the item has no assets with the bands of {sensor}",
                found=", ".join(map(str, item["assets"])) or "no asset",
                expected=", ".join(wanted or SENSOR_BANDS[sensor]),
                where=where,
                remedy='name the bands of each asset in "eo:bands", or request other bands',
            )
        chosen, bands = whole[:1], whole[0].bands
    files = tuple(local_path(asset.href, path.parent) for asset in chosen)
    names = tuple(gdal_name(asset.href) for asset in chosen)
    if not any(names):
        return bands, (files, ())
    return bands, (files, tuple(n or str(f) for n, f in zip(names, files, strict=True)))


def _clouds(item: Json, path: Path) -> tuple[CloudLayer, ...]:
    found: dict[CloudMask, CloudLayer] = {}
    for key, asset in item["assets"].items():
        mask = CloudMask.MSK_CLDPRB if str(key).lower() == _CLOUD else mask_named(str(key))
        href = asset.get("href") if isinstance(asset, dict) else None
        if mask is not None and mask not in found and isinstance(href, str):
            name = gdal_name(href) or str(local_path(href, path.parent))
            found[mask] = CloudLayer(mask, name)
    return tuple(found.values())


# ---------------------------------------------------------------------- place and time


def _footprint(item: Json) -> tuple[tuple[float, float], ...]:
    geometry = item.get("geometry")
    for ring in _rings(geometry if isinstance(geometry, dict) else {}):
        try:
            return tuple((float(x), float(y)) for x, y, *_ in ring)
        except (TypeError, ValueError):
            return ()
    return ()


def _rings(geometry: Json) -> Iterator[Any]:
    """Yield the outer rings of a polygon or multipolygon."""
    parts = geometry.get("coordinates") or []
    polygons = parts if geometry.get("type") == "MultiPolygon" else [parts]
    for polygon in polygons if geometry.get("type") in {"Polygon", "MultiPolygon"} else []:
        if isinstance(polygon, list) and polygon:
            yield polygon[0]


def _moment(properties: Json) -> str:
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="seconds")
