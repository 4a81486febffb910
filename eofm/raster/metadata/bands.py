"""Which bands a file holds: its descriptions, its name, and what the user states.

`docs/pixels.md` has the table of what decides, and of what contradicts what.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Final

from eofm.contract.sensors import SENSOR_BANDS, band_candidates
from eofm.contract.spec import Sensor, Unit
from eofm.errors import RasterError
from eofm.raster.geotiff import Header
from eofm.raster.metadata.masks import declares_measured, is_beside

# What stands behind a band in the name of a file: resolution, "(Raw)" of Copernicus Browser, level
_BEHIND: Final = re.compile(r"(?:[_\-. ]+(?:\d{1,3}m|\(?raw\)?|db|sr|toa|boa))+$", re.IGNORECASE)
_BEHIND_ENDS: Final = frozenset("mwbra)")  # all that it can end in: most names need no search
_RESOLUTION: Final = re.compile(r"[_\-. ](\d{1,3})m(?=[_\-. (]|$)", re.IGNORECASE)
_PART: Final = re.compile(r"[^_\-. ]+")
_CODE: Final = re.compile(r"b(and)?[_ ]?\d{1,2}a?|v[vh]", re.IGNORECASE)
_INSIDE: Final = re.compile(r"B(?:0[1-9]|1[0-2]|8A)")
# What the names of products say of their sensor: S2A_MSIL1C_..., HLS.S30, S1A_IW_GRDH_... of which
# RTC products are made and named after; Landsat numbers its bands otherwise than Sentinel-2.
_PRODUCTS: Final = (
    (re.compile(r"S2[ABC]_MSIL1C_"), "Sentinel-2 Level-1C", frozenset({Sensor.S2_L1C})),
    (re.compile(r"S2[ABC]_MSIL2A_"), "Sentinel-2 Level-2A", frozenset({Sensor.S2_L2A})),
    (re.compile(r"HLS\.S30\."), "HLS S30, surface reflectance", frozenset({Sensor.S2_L2A})),
    (re.compile(r"HLS\.L30\.|L[COET]0[4-9]_L[12]"), "Landsat", frozenset[Sensor]()),
    (re.compile(r"S1[ABC]_(IW|EW|SM)_"), "Sentinel-1", frozenset({Sensor.S1_GRD, Sensor.S1_RTC})),
)
# Descriptions of Landsat's collection 2, and of polarisations that no encoder here takes.
_FOREIGN: Final = re.compile(r"S[RT]_B\d+|(?:.*[^A-Z])?(?:HH|HV)(?:[^A-Z].*)?", re.IGNORECASE)
_DECIBEL: Final = re.compile(r"(?:^|[^a-z0-9])(db|decibels?)(?:[^a-z0-9]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class NamedBand:
    """The band that the name of a file ends in.

    Args:
        band: Canonical name.
        beginning: What comes before it.
        sure: Whether it is a code such as `B04` or `VV`, or all of the name. A word behind other
            words (`danube_blue`) need not be a band.
        gsd: The resolution stated behind it, in metres; 0 where none is.
    """

    band: str
    beginning: str
    sure: bool
    gsd: int


def named_band(stem: str, sensor: Sensor | None = None) -> NamedBand | None:
    """Return the band that the name of a file ends in, or None.

    Understood are the names of ESA (`T32UPU_20200101T100319_B02_10m`), HLS (`HLS.S30.T32UPU.B02`),
    Copernicus Browser (`..._B02_(Raw)`), SNAP (`..._Sigma0_VV_db`) and bare ones (`B2`, `blue`).

    Args:
        stem: The name without its suffix.
        sensor: Whose bands; None for those of any sensor.

    >>> named_band("T32UPU_B2_10m", Sensor.S2_L1C)
    NamedBand(band='B02', beginning='T32UPU', sure=True, gsd=10)
    """
    bare = _BEHIND.sub("", stem) if stem[-1:].lower() in _BEHIND_ENDS else stem
    parts = list(_PART.finditer(bare))
    for count in (1, 2, 3):
        if count > len(parts):
            return None
        start = parts[-count].start()
        word = bare[start:]
        band = _one_band(word, sensor)
        if band is not None:
            beginning = bare[:start].rstrip("_-. ")
            size = _RESOLUTION.search(stem, len(bare))
            sure = not beginning or _CODE.fullmatch(word) is not None
            return NamedBand(band, beginning, sure, int(size[1]) if size else 0)
    return None


@lru_cache(4096)  # a data set has few words for its bands, and asks for each file
def _one_band(word: str, sensor: Sensor | None) -> str | None:
    """Return the band that a word means for every sensor alike, or None."""
    found = band_candidates(word, sensor)
    if not found or any(len(band_candidates(word, s)) > 1 for s in Sensor):
        return None
    return found[0]


@dataclass(frozen=True)
class BandLayout:
    """Which bands of a file are read as what.

    Args:
        bands: Canonical names of those that hold the measurement.
        indexes: Their numbers in the file, counted from 1.
        masks: Numbers of bands that are 0 where nothing was measured: alpha, `dataMask`.
        beside: Name -> number of the bands that are left out.
    """

    bands: tuple[str, ...]
    indexes: tuple[int, ...]
    masks: tuple[int, ...] = ()
    beside: dict[str, int] = field(default_factory=dict)


def lay_out(header: Header, sensor: Sensor, stated: tuple[str, ...] | None) -> BandLayout:
    """Decide which band of a file is which.

    Args:
        header: What the file says.
        sensor: Sensor and product level.
        stated: What the user says, as canonical names: all bands of the file that the sensor has,
            in stored order, or a choice of those that the file describes.

    Raises:
        RasterError: If the file and the user contradict each other, or nobody names a band.
    """
    if header.count == 1:
        return _of_one(header, sensor, stated)
    if _is_silent(header.descriptions):
        return _of_order(header, sensor, stated)
    return _of_descriptions(header, sensor, stated)


def check_product(file: Path, sensor: Sensor) -> None:
    """Check that a file is not named after a product of another sensor or level.

    Raises:
        RasterError: If it is.
    """
    for pattern, product, sensors in _PRODUCTS:
        if pattern.match(file.name.upper()) and sensor not in sensors:
            right = f"state {' or '.join(sorted(sensors))}, or " if sensors else ""
            raise RasterError(
                "a file is named after a product of another sensor or level",
                found=product,
                expected=sensor,
                where=file,
                remedy=f"{right}rename the file, if it was made into what is stated",
            )


def check_band(header: Header, sensor: Sensor, band: str) -> None:
    """Check that a file of one band does not say that it is another.

    Raises:
        RasterError: If it does.
    """
    description = header.descriptions[0]
    if not description and header.file.stem.endswith(band):
        return  # as in most sets, and found out thirteen times an image
    said = [("its description", band_candidates(description, sensor))]
    named = named_band(header.file.stem, sensor) or named_band(header.file.stem)
    if named is not None and named.sure:
        said.append(("its name", (named.band,)))
    elif named is None:  # T32UPU_B04_clip: no file of a set, but not B02 either
        inside = {part for part in _PART.findall(header.file.stem) if _INSIDE.fullmatch(part)}
        said.append(("its name", tuple(inside) if len(inside) == 1 else ()))
    for who, found in said:
        if found and band not in found:
            raise RasterError(
                "a file says that it holds another band than stated",
                found=f"{' or '.join(found)} by {who}",
                expected=band,
                where=header.file,
                remedy=f"state {found[0]}, as in --bands {found[0]}, or correct {who}",
            )


def described_unit(descriptions: Sequence[str]) -> Unit | None:
    """Return decibels where every description says so (`VV_dB`, `Sigma0_VV_db`), else None."""
    if descriptions and all(_DECIBEL.search(text) for text in descriptions):
        return Unit.DB
    return None


def _is_silent(descriptions: Sequence[str]) -> bool:
    """Return whether descriptions tell no band from another: TerraMesh's are all "bands"."""
    return len(set(descriptions)) == 1 and not band_candidates(descriptions[0])


def _of_one(header: Header, sensor: Sensor, stated: tuple[str, ...] | None) -> BandLayout:
    if stated is not None and len(stated) == 1:
        check_band(header, sensor, stated[0])
        return BandLayout(stated, (1,))
    named = named_band(header.file.stem, sensor)
    described = band_candidates(header.descriptions[0], sensor)
    if stated is not None or not (named or described):
        raise _miscounted(header, sensor, stated or SENSOR_BANDS[sensor])
    if len(described) == 1:
        band = described[0]
    elif named is not None:
        band = named.band
    else:
        raise _not_understood(header, sensor, {1: described})
    check_band(header, sensor, band)
    return BandLayout((band,), (1,))


def _of_order(header: Header, sensor: Sensor, stated: tuple[str, ...] | None) -> BandLayout:
    """Take the stated order, or the sensor's, for a file that describes no band."""
    bands = stated or SENSOR_BANDS[sensor]
    every = tuple(range(1, header.count + 1))
    if len(bands) == header.count:
        # also where GDAL takes the last for alpha: it is read as data
        return BandLayout(bands, every)
    kept = tuple(i for i in every if i not in header.alphas)
    if len(bands) == len(kept) and kept == every[: len(kept)]:  # an alpha band comes last
        return BandLayout(bands, kept, header.alphas, {"alpha": header.alphas[0]})
    raise _miscounted(header, sensor, bands)


def _of_descriptions(header: Header, sensor: Sensor, stated: tuple[str, ...] | None) -> BandLayout:
    beside: dict[str, int] = {}
    meant: dict[int, tuple[str, ...]] = {}
    foreign: dict[str, str] = {}
    for number, text in enumerate(header.descriptions, 1):
        meant[number] = band_candidates(text, sensor)
        others = () if meant[number] else band_candidates(text)
        if is_beside(text) or (not text and number in header.alphas):
            beside[text or "alpha"] = number
        elif others:
            beside[text] = number
            foreign[text] = others[0]
        else:
            continue
        del meant[number]
    chosen = _named_by_file(header, sensor, meant, foreign) if stated is None else None
    if chosen is None:
        assert stated is not None  # noqa: S101 (the line above)
        chosen = _as_stated(header, sensor, meant, stated)
    names = {text: number for text, number in beside.items() if number not in chosen.values()}
    masks = (number for text, number in names.items() if declares_measured(text))
    return BandLayout(tuple(chosen), tuple(chosen.values()), tuple(masks), names)


def _named_by_file(
    header: Header, sensor: Sensor, meant: dict[int, tuple[str, ...]], foreign: dict[str, str]
) -> dict[str, int]:
    """Return band -> number where the descriptions alone decide."""
    if any(len(found) != 1 for found in meant.values()):
        raise _not_understood(header, sensor, meant)
    optical = {Sensor.S2_L1C, Sensor.S2_L2A}
    level = [t for t, b in foreign.items() if b in SENSOR_BANDS[Sensor.S2_L1C]]
    if level and sensor in optical:
        raise RasterError(
            f"the file describes a band that {sensor} does not have",
            found=", ".join(level),
            expected=" ".join(SENSOR_BANDS[sensor]),
            where=header.file,
            remedy=f"state the product level that the file has, {Sensor.S2_L1C}, or "
            + _choose(meant),
        )
    chosen = {found[0]: number for number, found in meant.items()}
    if not chosen:
        of = [s for s in Sensor if set(foreign.values()) <= set(SENSOR_BANDS[s])]
        raise RasterError(
            f"no band of {sensor} is in the file",
            found=" ".join(header.descriptions),
            expected=f"bands of {sensor}, each once",
            where=header.file,
            remedy="keep images of different sensors in different folders"
            + (f", and state {' or '.join(of)} for this one" if foreign and of else ""),
        )
    if len(chosen) != len(meant):
        bands = [found[0] for found in meant.values()]
        again = next(n for n, (b, *_) in meant.items() if chosen[b] != n)
        last = chosen[meant[again][0]]
        left = next((b for b in SENSOR_BANDS[sensor] if b not in bands), "NAME")
        raise RasterError(
            "the file describes a band twice",
            found=" ".join(header.descriptions),
            expected=f"bands of {sensor}, each once",
            where=header.file,
            remedy=f"bands {again} and {last} of the file cannot both be {meant[again][0]}: "
            f"correct the wrong one, as in: rio edit-info --bidx {last} --description {left} "
            f"{quote(str(header.file))}",
        )
    return chosen


def _as_stated(
    header: Header,
    sensor: Sensor,
    meant: dict[int, tuple[str, ...]],
    stated: tuple[str, ...],
) -> dict[str, int]:
    """Return band -> number where the user states an order, or chooses among the descriptions."""
    if len(stated) == header.count and len(meant) < header.count:
        missing = [t for i, t in enumerate(header.descriptions, 1) if i not in meant]
        raise _contradicted(header, stated, f"{', '.join(missing)}: no band of {sensor}")
    if len(stated) == len(meant):
        pairs = list(zip(stated, meant.items(), strict=True))
        if all(not found or band in found for band, (_, found) in pairs):
            return {band: number for band, (number, _) in pairs}
        wrong = next((n, b) for b, (n, found) in pairs if found and b not in found)
        raise _contradicted(header, stated, " ".join(header.descriptions), *wrong)
    chosen = {}
    for band in stated:
        places = [number for number, found in meant.items() if found == (band,)]
        if len(places) != 1:
            raise _contradicted(header, stated, " ".join(header.descriptions))
        chosen[band] = places[0]
    return chosen


# ---------------------------------------------------------------------------------- errors


def _contradicted(
    header: Header, stated: Sequence[str], found: str, number: int = 1, band: str = ""
) -> RasterError:
    return RasterError(
        "the file describes its bands otherwise than stated",
        found=found,
        expected=" ".join(stated),
        where=header.file,
        remedy="leave --bands out to trust the file, or correct its band descriptions, as in: "
        f"rio edit-info --bidx {number} --description {band or stated[0]} "
        f"{quote(str(header.file))}",
    )


# What stacks of so many Sentinel-2 bands mostly hold, for the examples in remedies.
_USUAL: Final[Mapping[int, str]] = {
    3: "B04 B03 B02",
    4: "B02 B03 B04 B08",
    6: "B02 B03 B04 B8A B11 B12",
    10: "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12",
    12: "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12",
}


def _miscounted(header: Header, sensor: Sensor, bands: Sequence[str]) -> RasterError:
    every, count = SENSOR_BANDS[sensor], header.count
    if count > len(every):
        remedy = f"keep those of {sensor}, as in: rio stack {quote(str(header.file))} "
        remedy += f"--bidx 1..{len(every)} -o OUT.tif"
        others = [
            s for s in Sensor if len(SENSOR_BANDS[s]) == count and every[0] in SENSOR_BANDS[s]
        ]
        if others:
            remedy = f"state {others[0]}, if the file is that; or {remedy}"
    else:
        usual = _USUAL.get(count, "") if "B02" in every else ""
        example = usual or " ".join(every[:count])
        remedy = f"state the bands of the file in stored order, as in --bands {example}"
    return RasterError(
        "the file has another number of bands than stated",
        found=f"{count} band{'s' if count > 1 else ''}",
        expected=f"{len(bands)}: {' '.join(bands)}",
        where=header.file,
        remedy=remedy,
    )


def _not_understood(
    header: Header, sensor: Sensor, meant: dict[int, tuple[str, ...]]
) -> RasterError:
    unclear = {i: found for i, found in meant.items() if len(found) != 1}
    strange = [t for i in unclear if _FOREIGN.fullmatch(t := header.descriptions[i - 1])]
    if strange:
        raise RasterError(
            f"the file describes bands that no {sensor} image has",
            found=", ".join(strange),
            expected=" ".join(SENSOR_BANDS[sensor]),
            where=header.file,
            remedy=_choose(meant)
            if len(unclear) < len(meant)
            else "leave the file out: it is of another sensor, or of another polarisation",
        )
    words = [_quoted(header.descriptions[i - 1], found) for i, found in unclear.items()]
    first = next(iter(unclear))
    left = [b for b in SENSOR_BANDS[sensor] if (b,) not in meant.values()]
    candidates = unclear[first] or tuple(left) or SENSOR_BANDS[sensor]
    choice = f"{_choose(meant)}, or " if len(unclear) < len(meant) else ""
    return RasterError(
        "the file describes bands in words that are not understood",
        found=", ".join(words),
        expected=" ".join(SENSOR_BANDS[sensor]),
        where=header.file,
        remedy=f"{choice}write into the file what they are, as in: rio edit-info --bidx {first} "
        f"--description {candidates[0]} {quote(str(header.file))}",
    )


def _quoted(text: str, found: Sequence[str]) -> str:
    if not text:
        return "a band without description"
    return repr(text) + (f" (can mean {', '.join(found)})" if found else "")


def _choose(meant: dict[int, tuple[str, ...]]) -> str:
    known = dict.fromkeys(found[0] for found in meant.values() if len(found) == 1)
    return f"choose the bands that are wanted: --bands {' '.join(known)}"
