"""Identify the bands of a file by name.

Band names come from the band descriptions, the file names, or the user's statement. The table in
`docs/pixels.md` gives their precedence and lists the contradictions that are errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Final

from eofm.contract.spec import (
    BANDS,
    SENSOR_BANDS,
    Sensor,
    Unit,
    are_codes,
    are_numbers,
    band_candidates,
    counterparts,
    is_uncalibrated,
    stated_nanometres,
    without_image_number,
)
from eofm.errors import RasterError
from eofm.raster.geotiff import SENTINEL_1, Header, copy_command
from eofm.raster.tags import declares_measured, is_beside, mask_named

__all__ = [
    "BandLayout",
    "NamedBand",
    "alike_in",
    "check_amplitude",
    "check_band",
    "check_level",
    "check_product",
    "described_unit",
    "lay_out",
    "named_band",
    "only_count",
    "words_of_unit",
]

# Suffixes of a band in a file name: resolution, "(Raw)" of Copernicus Browser, level
_BEHIND: Final = re.compile(r"(?:[_\-. ]+(?:\d{1,3}m|\(?raw\)?|db|sr|toa|boa))+$", re.IGNORECASE)
_BEHIND_ENDS: Final = frozenset("mwbra)")  # its possible last letters: most names need no search
_RESOLUTION: Final = re.compile(r"[_\-. ](\d{1,3})m(?=[_\-. (]|$)", re.IGNORECASE)
_PART: Final = re.compile(r"[^_\-. ]+")
_MOST_WORDS: Final = 3  # in the name of a band
_WORDS: Final = re.compile(r"[A-Za-z]{3}")  # required in a band name of several parts
_LETTERS: Final = re.compile(r"..")  # a single letter is not a band name
_CODE: Final = re.compile(r"b(and)?[_ ]?\d{1,2}a?|v[vh]", re.IGNORECASE)
# Sensors by product name: S2A_MSIL1C_..., HLS.S30, S1A_IW_GRDH_... (RTC products keep the name of
# their GRD). Landsat numbers its bands differently from Sentinel-2.
_PRODUCTS: Final = (
    (re.compile(r"S2[ABC]_MSIL1C_"), "Sentinel-2 Level-1C", frozenset({Sensor.S2_L1C})),
    (re.compile(r"S2[ABC]_MSIL2A_"), "Sentinel-2 Level-2A", frozenset({Sensor.S2_L2A})),
    (re.compile(r"HLS\.S30\."), "HLS S30, surface reflectance", frozenset({Sensor.S2_L2A})),
    (re.compile(r"HLS\.L30\.|L[COET]0[4-9]_L[12]"), "Landsat", frozenset[Sensor]()),
    (re.compile(r"S1[ABC]_(IW|EW|SM)_"), "Sentinel-1", frozenset({Sensor.S1_GRD, Sensor.S1_RTC})),
)
# Band descriptions of Landsat Collection 2, and polarisations that no encoder here accepts.
_FOREIGN: Final = re.compile(r"S[RT]_B\d+|(?:.*[^A-Z])?(?:HH|HV)(?:[^A-Z].*)?", re.IGNORECASE)
_LINEAR: Final = re.compile(
    r"(?:^|[^a-z0-9])(linear|power|intensity)(?:[^a-z0-9]|$)", re.IGNORECASE
)
_AMPLITUDE: Final = re.compile(r"(?:^|[^a-z0-9])amplitudes?(?:[^a-z0-9]|$)", re.IGNORECASE)
# ASF HyP3 (RTC product guide): gamma0 or sigma0; power, amplitude or decibels; water mask, filter,
# extent, matching; the identifier
_HYP3: Final = re.compile(r"_RTC\d{2}_G_[gs]([pad])[uw][nf][ec][dm]_[0-9A-F]{4}(?![0-9A-Za-z])")
_OF_BROWSER: Final = re.compile(r"_-_(decibel|linear)_(?:gamma|sigma|beta)0", re.IGNORECASE)
_DECIBEL: Final = re.compile(r"(?:^|[^a-z0-9])(db|decibels?)(?:[^a-z0-9]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class NamedBand:
    """The band named at the end of a file name.

    Args:
        band: Canonical name.
        beginning: The part of the name before the band.
        sure: Whether it is a code such as `B04` or `VV`, or the whole name. A word after other
            words (`danube_blue`) need not be a band.
        gsd: The resolution stated after the band, in metres; 0 if none is.
    """

    band: str
    beginning: str
    sure: bool
    gsd: int


def named_band(stem: str, sensor: Sensor | None = None) -> NamedBand | None:
    """Return the band named at the end of a file name, or None.

    Supports names of ESA (`T32UPU_20200101T100319_B02_10m`), HLS (`HLS.S30.T32UPU.B02`),
    Copernicus Browser (`..._B02_(Raw)`), SNAP (`..._Sigma0_VV_db`) and bare ones (`B2`, `blue`).

    Args:
        stem: The file name without its suffix.
        sensor: Sensor whose bands are considered; None for all sensors.

    >>> named_band("T32UPU_B2_10m", Sensor.S2_L1C)
    NamedBand(band='B02', beginning='T32UPU', sure=True, gsd=10)
    """
    bare = _BEHIND.sub("", stem) if stem[-1:].lower() in _BEHIND_ENDS else stem
    starts = [part.start() for part in _PART.finditer(bare)]
    for start in starts[: -_MOST_WORDS - 1 : -1]:
        word = bare[start:]
        band = _one_band(word, sensor)
        if band is not None:
            beginning = bare[:start].rstrip("_-. ")
            size = _RESOLUTION.search(stem, len(bare))
            sure = not beginning or _CODE.fullmatch(word) is not None
            return NamedBand(band, beginning, sure, int(size[1]) if size else 0)
    return None


@lru_cache(4096)  # a data set has few band names, looked up for each file
def _one_band(word: str, sensor: Sensor | None) -> str | None:
    """Return the band that a word denotes, if no sensor makes it ambiguous, else None."""
    found = band_candidates(word, sensor)
    if not found or any(len(band_candidates(word, s)) > 1 for s in Sensor):
        return None
    return found[0]


@dataclass(frozen=True)
class BandLayout:
    """The role of each band of a file.

    Args:
        bands: Canonical names of the measured bands.
        indexes: Their numbers in the file, counted from 1.
        masks: Numbers of bands that are 0 where nothing was measured: alpha, `dataMask`.
        beside: Name -> number of the bands that are left out.
    """

    bands: tuple[str, ...]
    indexes: tuple[int, ...]
    masks: tuple[int, ...] = ()
    beside: dict[str, int] = field(default_factory=dict)


def lay_out(header: Header, sensor: Sensor, stated: tuple[str, ...] | None) -> BandLayout:
    """Assign the bands of a file.

    Args:
        header: Header of the file.
        sensor: Sensor and product level.
        stated: Canonical names stated by the user: all bands of the sensor in the file, in stored
            order, or a subset of those that the file describes.

    Raises:
        RasterError: If file and statement contradict each other, or a band is not named by either.
    """
    if header.pages:
        raise _paged(header)
    _check_colour_table(header, sensor)
    if header.count == 1:
        return _of_one(header, sensor, stated)
    header = _by_sources(_without_numbers(header, sensor, stated), sensor)
    if _is_silent(header.descriptions):
        return _of_order(header, sensor, stated)
    return _of_descriptions(header, sensor, stated)


def _by_sources(header: Header, sensor: Sensor) -> Header:
    """Describe the bands of a VRT by the names of its files, if all of them name a band.

    `gdalbuildvrt -separate` stores files in the order in which they were given, undescribed.
    """
    if any(header.descriptions) or len(set(header.sources)) != header.count:
        return header
    named = [named_band(stem, sensor) or named_band(stem) for stem in header.sources]
    bands = tuple(one.band for one in named if one is not None)
    return replace(header, descriptions=bands) if len(bands) == header.count else header


def check_product(file: Path, sensor: Sensor) -> None:
    """Check that a file is not named after a product of another sensor or level.

    Raises:
        RasterError: If it is.
    """
    name = file.name.upper()
    for pattern, product, sensors in _PRODUCTS:
        if pattern.match(name) and sensor not in sensors:
            right = f"state {' or '.join(sorted(sensors))}, or " if sensors else ""
            raise RasterError(
                "a file is named after a product of another sensor or level",
                found=product,
                expected=sensor,
                where=file,
                remedy=f"{right}rename the file, if it was converted to the stated product",
            )


_RADAR_BANDS: Final = frozenset(SENSOR_BANDS[Sensor.S1_GRD])  # also in Amplitude_VV
_LEVELS: Final = {Sensor.S2_L1C: "Level-1C", Sensor.S2_L2A: "Level-2A"}


def check_level(tags: Mapping[str, str], file: Path, sensor: Sensor) -> None:
    """Check that tags copied by GDAL from a Sentinel-2 product do not name another level.

    Raises:
        RasterError: If they do.
    """
    level_tag = tags.get("PROCESSING_LEVEL", "").strip()
    if level_tag not in _LEVELS.values() or level_tag == _LEVELS.get(sensor):
        return
    right = next(s for s, level in _LEVELS.items() if level == level_tag)
    raise RasterError(
        "the tags of the file name another sensor or level than stated",
        found=f"PROCESSING_LEVEL={level_tag}",
        expected=sensor,
        where=file,
        remedy=f"state {right}; or, if it was converted to the stated level: rio edit-info --tag "
        f"PROCESSING_LEVEL={_LEVELS.get(sensor, sensor.value)} {quote(str(file))}",
    )


def check_band(header: Header, sensor: Sensor, band: str) -> None:
    """Check that a single-band file is not named or described as another band.

    Raises:
        RasterError: If it does.
    """
    stem = header.file.stem
    if header.pages:
        raise _paged(header)
    if not header.descriptions[0] and stem.endswith(band) and band not in _RADAR_BANDS:
        return  # the usual case, tested up to thirteen times per image
    _check_calibrated(header, sensor)
    candidates = [
        ("its description", _described(header, sensor)),
        ("its name", _named_anywhere(stem, sensor)),
    ]
    for source, found in candidates:
        if found and band not in found:
            raise RasterError(
                "the file name or description names another band than stated",
                found=f"{' or '.join(found)}, by {source}",
                expected=band,
                where=header.file,
                remedy=f"{_instead(found, sensor)}, or correct {source}",
            )


def _instead(found: Sequence[str], sensor: Sensor) -> str:
    """Return the remedy for a file whose own metadata name the band, or candidates for it."""
    if not set(found) <= set(SENSOR_BANDS[sensor]):
        return f"leave it out: {sensor} has no such band"
    if len(found) > 1:
        return f"state which one it is, {' or '.join(found)}"
    return f"state {found[0]}, as in --bands {found[0]}"


def _check_calibrated(header: Header, sensor: Sensor) -> None:
    """Check that a single-band file is not uncalibrated, such as `Amplitude_VV`.

    Raises:
        RasterError: If its name or description says so.
    """
    uncalibrated = [
        name for name in (header.descriptions[0], header.file.stem) if is_uncalibrated(name)
    ]
    if uncalibrated and "VV" in SENSOR_BANDS[sensor]:
        raise _uncalibrated(header, uncalibrated[:1])


def _described(header: Header, sensor: Sensor) -> tuple[str, ...]:
    """Return the candidate bands of a single-band file by its description; none for a number."""
    text = header.descriptions[0]
    return () if are_numbers([text]) else band_candidates(text, sensor)


def _named_anywhere(stem: str, sensor: Sensor) -> tuple[str, ...]:
    """Return the candidate bands of a single-band file by any part of its name.

    Codes of any sensor count (`b04`, `B4`, `vh`); without one, words of this sensor do
    (`T32_red_clip`). Names with several different bands give none: `B8_B4_ratio`, `green_nir`.
    """
    named = named_band(stem, sensor) or named_band(stem)
    if named is not None and named.sure:
        return (named.band,)
    codes, words = _words_in(stem, sensor)
    candidates = codes or words
    return candidates[0] if len(candidates) == 1 else ()


def _words_in(stem: str, sensor: Sensor) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return the candidates of each code and of each word of a name, in order, without repeats."""
    parts = _PART.findall(stem)
    codes: dict[tuple[str, ...], None] = {}
    words: dict[tuple[str, ...], None] = {}
    k = 0
    while k < len(parts):
        for count in (3, 2, 1):  # the longest match wins: red_edge_1 is not red
            text = "_".join(parts[k : k + count])
            is_code = any(_CODE.fullmatch(part) for part in (text, *parts[k : k + count]))
            found = band_candidates(text, None if is_code else sensor)
            # single letters do not count (site_b_12); a first word may be a place (red_sea)
            begins = not is_code and k == 0 and count < len(parts)
            if found and (_WORDS if count > 1 else _LETTERS).search(text) and not begins:
                (codes if is_code else words)[found] = None
                break
        k += count
    return list(codes), list(words)


def described_unit(descriptions: Sequence[str]) -> Unit | None:
    """Return the unit of backscatter that every description states, or None.

    Args:
        descriptions: Description and unit tag of each band: `VV_dB`, `Sigma0_VV_db`, `VV linear`.
    """
    if descriptions and all(_DECIBEL.search(text) for text in descriptions):
        return Unit.DB
    if descriptions and all(_LINEAR.search(text) for text in descriptions):
        return Unit.POWER
    return None


def check_amplitude(descriptions: Sequence[str], where: object, remedy: str) -> None:
    """Check that no band of radar is described as an amplitude, the root of backscatter power.

    Args:
        descriptions: As for `described_unit`.
        where: File or name, for the error message.
        remedy: How to square the values.

    Raises:
        RasterError: If one is.
    """
    found = [text.strip() for text in descriptions if _AMPLITUDE.search(text)]
    if found:
        raise RasterError(
            "the values are amplitudes, not backscatter",
            found=", ".join(dict.fromkeys(found)),
            expected="backscatter power, or decibels",
            where=where,
            remedy=remedy,
        )


def words_of_unit(stem: str) -> str:
    """Return the unit of backscatter that a file name states: dB, power, amplitude, or nothing.

    Args:
        stem: `Sigma0_VV_db`; of ASF HyP3 `S1A_IW_20230501T061010_DVP_RTC30_G_gpuned_6FB4_VV`; of
            Copernicus Browser `..._Sentinel-1_IW_VV+VH_VV_-_linear_gamma0`.
    """
    if _DECIBEL.search(stem[-3:]):
        return "dB"
    if _AMPLITUDE.search(stem):
        return "amplitude"
    found = _HYP3.search(stem)
    if found:
        return {"p": "power", "a": "amplitude", "d": "dB"}[found[1]]
    layer = _OF_BROWSER.search(stem)
    return layer[1] if layer else ""


def _is_silent(descriptions: Sequence[str]) -> bool:
    """Return whether descriptions distinguish no bands: those of TerraMesh are all "bands"."""
    return len(set(descriptions)) == 1 and not band_candidates(descriptions[0])


def _check_colour_table(header: Header, sensor: Sensor) -> None:
    """Refuse a single-band file whose values are indices of a colour table.

    Raises:
        RasterError: If it is one.
    """
    if header.colours != ("palette",):
        return
    remedy = "leave it out: it is a map or a picture"
    if sensor in {Sensor.RGB, Sensor.NAIP}:
        remedy = f"write the colours as three bands: {_expand_command(header.file)}"
    raise RasterError(
        "the values of the file are indices of a colour table, not measurements",
        found="one band with a colour table",
        expected=f"bands of {sensor}: {' '.join(SENSOR_BANDS[sensor])}",
        where=header.file,
        remedy=remedy,
    )


def _expand_command(file: Path) -> str:
    out = file.with_name(f"{file.stem}_rgb.tif")
    return (
        'python -c "import numpy as np, rasterio, sys; f = rasterio.open(sys.argv[1]); '
        "m = f.colormap(1); t = np.array([m.get(i, (0,) * 4)[:3] for i in range(256)], 'uint8'); "
        "p = dict(driver='GTiff', width=f.width, height=f.height, count=3, dtype='uint8', "
        "crs=f.crs, transform=f.transform, photometric='RGB'); "
        "rasterio.open(sys.argv[2], 'w', **p).write(t[f.read(1)].transpose(2, 0, 1))\" "
        f"{quote(str(file))} {quote(str(out))}"
    )


def _without_numbers(header: Header, sensor: Sensor, stated: Sequence[str] | None) -> Header:
    """Return a header without descriptions that are mere numbers, such as `Band 1`, `Band 2`.

    Raises:
        RasterError: If they may also be names of Earth Engine (`B1 B2 B3`), and no statement
            decides.
    """
    texts = [
        text or "alpha" * (number in header.alphas)
        for number, text in enumerate(header.descriptions, 1)
    ]
    if not only_count(texts):
        return header
    ambiguous = are_codes(header.descriptions) and SENSOR_BANDS[sensor][0] == "B01"
    if ambiguous and (stated is None or len(stated) != header.count):
        raise _numbered(header, sensor)
    kept = tuple(text if is_beside(text) else "" for text in header.descriptions)
    return replace(header, descriptions=kept)


def only_count(names: Sequence[str]) -> bool:
    """Return whether the bands of an image are only numbered: `Band 1`, `Band 2`, alpha.

    Args:
        names: Names of all its bands, in stored order.
    """
    bands = [name for name in names if not is_beside(name)]
    if are_codes(bands) and len(bands) < len(names):
        return False  # B1, B2 and QA60 come from Earth Engine
    return list(names[: len(bands)]) == bands and are_numbers(bands)


def alike_in(name: str, sensor: Sensor) -> tuple[str, ...]:
    """Return the counterparts in one sensor of a band name of another sensor, or none.

    Args:
        name: Band name as spelled in the file; names of masks and the like have no counterpart.
        sensor: Sensor whose bands are returned.
    """
    own = is_beside(name) or band_candidates(name, sensor)
    others = () if own else band_candidates(name)
    return counterparts(others[0], sensor) if others else ()


def _of_one(header: Header, sensor: Sensor, stated: tuple[str, ...] | None) -> BandLayout:
    _check_calibrated(header, sensor)
    if stated is not None and len(stated) == 1:
        check_band(header, sensor, stated[0])
        return BandLayout(stated, (1,))
    named = named_band(header.file.stem, sensor)
    described = _described(header, sensor)
    if stated is not None:
        raise _miscounted(header, sensor, stated)
    if not (named or described):
        raise _unnamed(header, sensor)
    if len(described) == 1:
        band = described[0]
    elif named is not None:
        band = named.band
    else:
        raise _not_understood(header, sensor, {1: described})
    check_band(header, sensor, band)
    return BandLayout((band,), (1,))


def _of_order(header: Header, sensor: Sensor, stated: tuple[str, ...] | None) -> BandLayout:
    """Use the stated order, or that of the sensor, for a file without band descriptions."""
    bands = stated or SENSOR_BANDS[sensor]
    every = tuple(range(1, header.count + 1))
    _check_colours(header, sensor, stated)
    if stated is None:
        _check_order(header, sensor)
    if len(bands) == header.count:
        # even if GDAL reports the last as alpha: it is read as data
        return BandLayout(bands, every)
    kept = tuple(i for i in every if i not in header.alphas)
    if len(bands) == len(kept) and kept == every[: len(kept)]:  # an alpha band comes last
        return BandLayout(bands, kept, header.alphas, {"alpha": header.alphas[0]})
    raise _miscounted(header, sensor, bands)


def _check_order(header: Header, sensor: Sensor) -> None:
    """Check that the file name does not list its bands in an order other than the usual one.

    Raises:
        RasterError: If it does, as in `S1A_VH_VV.tif`.
    """
    bands = SENSOR_BANDS[sensor]
    listed = [found[0] for found in _words_in(header.file.stem, sensor)[0]]
    if sorted(listed) == sorted(bands) and tuple(listed) != bands:
        raise RasterError(
            "the file name lists the bands in an unusual order",
            found=" ".join(listed),
            expected=" ".join(bands),
            where=header.file,
            remedy=f"state the stored order: --bands {' '.join(listed)}; or --bands "
            + " ".join(bands),
        )


_COLOURS: Final = ("red", "green", "blue")


def _check_colours(header: Header, sensor: Sensor, stated: Sequence[str] | None) -> None:
    """Check that a band order does not contradict the colour interpretation of the file.

    A stated order that shows near infrared in red is a false colour composite and allowed, as are
    Sentinel-2 files of which only some bands have a colour. PNG, and GDAL for 8-bit files, call
    the first three bands red, green and blue whatever they hold, so a statement overrules that.

    Raises:
        RasterError: If it does.
    """
    bands = stated or SENSOR_BANDS[sensor]
    taken = {k: c for k, c in enumerate(header.colours[: len(bands)]) if c in _COLOURS}
    read = {k: _colour_of(bands[k]) for k in taken}
    if stated is not None and taken == dict(enumerate(_COLOURS)):
        return
    composite = stated is not None or "B02" in SENSOR_BANDS[sensor]
    if taken == read or (composite and not all(read.values())):
        return
    raise RasterError(
        "the colour interpretation of the file contradicts the order of its bands",
        found=" ".join(header.colours),
        expected=" ".join(bands),
        where=header.file,
        remedy=f"{_in_order(header, sensor)}; or, if the order is right, clear the colours: "
        + _plain_colours(header),
    )


def _colour_of(band: str) -> str:
    """Return the colour of a band (red, green or blue), or an empty string."""
    return next((word for word in BANDS[band].words if word in _COLOURS), "")


def _plain_colours(header: Header) -> str:
    return (
        'python -c "import rasterio, sys; from rasterio.enums import ColorInterp as C; '
        "f = rasterio.open(sys.argv[1], 'r+'); f.colorinterp = [C.gray] + [C.undefined] * "
        f'(f.count - 1); f.close()" {quote(str(header.file))}'
    )


_BROAD: Final = frozenset({"broadnir", "bnr"})


def _narrow(found: list[tuple[str, ...]], header: Header) -> list[tuple[str, ...]]:
    """Return the candidates of each band, with B8A for the `NIR` that follows `BROADNIR`.

    FORCE names B08 and B8A so (the table of domains where it reads the metadata of Sentinel-2). In
    the other order the two are not told apart, and are refused as B08 twice.
    """
    words = [text.strip().casefold() for text in header.descriptions]
    for number in range(1, len(words)):
        broad = words[number - 1] in _BROAD and found[number - 1] == ("B08",)
        if broad and words[number] == "nir" and words.count("nir") == 1:
            found[number] = ("B8A",)
    return found


def _of_descriptions(header: Header, sensor: Sensor, stated: tuple[str, ...] | None) -> BandLayout:
    beside: dict[str, int] = {}
    meant: dict[int, tuple[str, ...]] = {}
    foreign: dict[str, str] = {}
    if header.count > _MOST and sum(map(_states_wavelength, header.descriptions)) > _MOST:
        raise _of_spectrum(header, sensor)
    every = _narrow([band_candidates(text, sensor) for text in header.descriptions], header)
    there = {found[0] for found in every if len(found) == 1}
    for number, text in enumerate(header.descriptions, 1):
        meant[number] = every[number - 1]
        others = () if meant[number] else band_candidates(text)
        alike = alike_in(text, sensor)
        if alike and not there & set(alike) and (there or stated is not None):
            if stated is None:
                raise _of_another(header, sensor)
            meant[number] = alike
            continue
        if is_beside(text) or (not text and number in header.alphas):
            beside[text or "alpha"] = number
        elif others:
            beside[text] = number
            foreign[text] = others[0]
        else:
            continue
        del meant[number]
    if stated is None:
        chosen = _named_by_file(header, sensor, meant, foreign)
    else:
        chosen = _as_stated(header, sensor, meant, stated)
    names = {text: number for text, number in beside.items() if number not in chosen.values()}
    masks = (number for text, number in names.items() if declares_measured(text))
    return BandLayout(tuple(chosen), tuple(chosen.values()), tuple(masks), names)


def _named_by_file(
    header: Header, sensor: Sensor, meant: dict[int, tuple[str, ...]], foreign: dict[str, str]
) -> dict[str, int]:
    """Return band -> number as decided by the descriptions alone."""
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
            remedy=f"state the product level of the file, {Sensor.S2_L1C}, or " + _choose(meant),
        )
    chosen = {found[0]: number for number, found in meant.items()}
    if not chosen:
        of = [s for s in Sensor if set(foreign.values()) <= set(SENSOR_BANDS[s])]
        raise RasterError(
            f"the file has no band of {sensor}",
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
        near = BANDS[meant[again][0]].wavelength_nm  # for example of narrow and broad near infrared
        rest = [b for b in SENSOR_BANDS[sensor] if b not in bands]
        left = min(rest, key=lambda b: abs(BANDS[b].wavelength_nm - near), default="")
        remedy = (
            f"bands {again} and {last} of the file cannot both be {meant[again][0]}: "
            f"correct the wrong one; if band {last} is {left}, with: rio edit-info --bidx {last} "
            f"--description {left} {quote(str(header.file))}"
        )
        if len(meant) >= 2 * len(chosen) or not left:
            remedy = _one_of_dates(header, meant)
        raise RasterError(
            "the file describes a band twice",
            found=" ".join(header.descriptions),
            expected=f"bands of {sensor}, each once",
            where=header.file,
            remedy=remedy,
        )
    return chosen


def _one_of_dates(header: Header, meant: Mapping[int, tuple[str, ...]]) -> str:
    """Return the remedy that keeps one date of a stack of dates with the same bands."""
    first: dict[str, int] = {}
    for number, (band, *_) in meant.items():
        first.setdefault(band, number)
    numbers = ",".join(map(str, first.values()))
    out = header.file.with_name(f"{header.file.stem}_1.tif")
    return (
        f"keep one date, for example the first: rio stack {quote(str(header.file))} --bidx "
        f"{numbers} -o {quote(str(out))}; this drops the band descriptions, so also state --bands "
        f"{' '.join(first)}"
    )


def _as_stated(
    header: Header,
    sensor: Sensor,
    meant: dict[int, tuple[str, ...]],
    stated: tuple[str, ...],
) -> dict[str, int]:
    """Return band -> number for a stated order, or a stated subset of the descriptions."""
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
        "the band descriptions of the file contradict the stated bands",
        found=found,
        expected=" ".join(stated),
        where=header.file,
        remedy="leave --bands out to trust the file, or correct its band descriptions, as in: "
        f"rio edit-info --bidx {number} --description {band or stated[0]} "
        f"{quote(str(header.file))}",
    )


# Usual contents of Sentinel-2 stacks by number of bands, for the examples in remedies.
_USUAL: Final[Mapping[int, str]] = {
    3: "B04 B03 B02",
    4: "B02 B03 B04 B08",
    6: "B02 B03 B04 B8A B11 B12",
    10: "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12",
    12: "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12",
}


def _in_order(header: Header, sensor: Sensor) -> str:
    """Return the remedy for a file that does not describe its bands.

    The example in it is conditional ("if they are these"). Its order follows the colour
    interpretation of the file; if the likely bands are unknown, no example is given.
    """
    every, count = SENSOR_BANDS[sensor], header.count
    if count == 1:
        return _which(header, sensor)
    if count > len(every):
        return _cut_to(header, sensor)
    usual = _USUAL.get(count, "").split() if "B02" in every else every[:count]
    by_colour = {word: band for band in usual if (word := _colour_of(band))}
    placed = {k: by_colour.get(c, "") for k, c in enumerate(header.colours) if c in _COLOURS}
    if len(usual) == count and len(set(placed.values()) - {""}) == len(placed):
        rest = [band for band in usual if band not in placed.values()]
        usual = [placed[k] if k in placed else rest.pop(0) for k in range(len(usual))]
    if len(usual) != count:
        return (
            "state all bands of the file in stored order: --bands NAME NAME ..., "
            f"each one of {', '.join(every)}"
        )
    names = " ".join(usual)
    return f"state the bands of the file in stored order; if they are these, --bands {names}"


def _cut_to(header: Header, sensor: Sensor) -> str:
    """Return the remedy that keeps the bands of a sensor, by colour interpretation if possible."""
    every, count = SENSOR_BANDS[sensor], header.count
    file = quote(str(header.file))
    colours = [_colour_of(band) for band in every]
    if all(header.colours.count(colour) == 1 for colour in colours):
        order = ",".join(str(header.colours.index(colour) + 1) for colour in colours)
        return f"keep those of {sensor}: rio stack {file} --bidx {order} -o OUT.tif"
    remedy = f"if the first {len(every)} are those of {sensor}, keep them: rio stack {file} "
    remedy += f"--bidx 1..{len(every)} -o OUT.tif"
    others = [s for s in Sensor if len(SENSOR_BANDS[s]) == count and every[0] in SENSOR_BANDS[s]]
    return f"state {others[0]}, if the file is from that sensor; or {remedy}" if others else remedy


def _which(header: Header, sensor: Sensor) -> str:
    """Return the remedy for a single-band file."""
    every = SENSOR_BANDS[sensor]
    inside = [band for band in _named_anywhere(header.file.stem, sensor) if band in every]
    others = _siblings(header.file, inside[0], every) if len(inside) == 1 else {}
    if others:
        files = {inside[0]: header.file, **others}
        there = [band for band in every if band in files]
        stacked = " ".join(quote(str(files[band])) for band in there)
        return (
            "stack the bands of each image, and move the single-band files away: rio stack "
            f"{stacked} -o OUT.tif; then state them: --bands {' '.join(there)}"
        )
    if len(inside) == 1:
        return f"state the band in its name: --bands {inside[0]}"
    remedy = f"state its band, one of {', '.join(every)}, as in --bands NAME"
    mask = next(filter(None, map(mask_named, _ends(header.file.stem))), None)
    if mask is not None:
        return (
            f"if it is the cloud mask {mask}, move it out of the folder: a mask in its own file is "
            f"read only if each band has one too, otherwise as a band of the image; or {remedy}"
        )
    if sensor in {Sensor.RGB, Sensor.NAIP}:
        return f"leave it out, if it is a greyscale picture; otherwise {remedy}"
    return f"{remedy}; or move it out of the folder, if it is none of these"


def _siblings(file: Path, band: str, every: Sequence[str]) -> dict[str, Path]:
    """Return the files whose names differ only in the band, which is inside the name."""
    places = [part for part in _PART.finditer(file.name) if band_candidates(part[0]) == (band,)]
    if not places:
        return {}
    word, begin, end = places[-1][0], *places[-1].span()
    found = {}
    for other in every:
        text = other.lower() if word.islower() else other
        path = file.with_name(f"{file.name[:begin]}{text}{file.name[end:]}")
        if other != band and path.is_file():
            found[other] = path
    return found


def _ends(stem: str) -> list[str]:
    """Return the parts of a name after each of its separators, longest first."""
    return [stem[found.end() :] for found in re.finditer(r"[-_. ]", stem)]


def _unnamed(header: Header, sensor: Sensor) -> RasterError:
    return RasterError(
        "the band of a single-band file is unknown",
        found="1 band" + (f", described {header.descriptions[0]!r}" * bool(header.descriptions[0])),
        expected=f"a description or file name that ends in a band of {sensor}, or a stated band",
        where=header.file,
        remedy=_which(header, sensor),
    )


def _paged(header: Header) -> RasterError:
    every = [page.partition("?")[0] for page in header.pages]  # a URL may carry an access key
    first, file = every[0], header.file
    bands = "1 band" if header.count == 1 else f"{header.count} bands"
    apart = copy_command(first, file.with_name(f"{file.stem}_1.tif"))
    remedy = (
        f"name one of them: eofm.read_scene({first!r}, sensor=..., unit=...); or move this file "
        f"away, and write each image to a file of its own: {apart}"
    )
    if header.count == 1 and len(every) <= _MOST:
        pages = " ".join(map(quote, every))
        remedy = f"if they are the bands of one image, stack them: rio stack {pages} -o OUT.tif; "
        remedy += f"otherwise name one: eofm.read_scene({first!r}, sensor=..., unit=...)"
    return RasterError(
        "the file holds several images, and GDAL opens only the first",
        found=f"{len(every)} pages, {bands} in the first",
        expected="one image with all bands",
        where=file,
        remedy=remedy,
    )


_MOST: Final = max(map(len, SENSOR_BANDS.values()))


def _states_wavelength(text: str) -> bool:
    return stated_nanometres(text) is not None


def _of_spectrum(header: Header, sensor: Sensor) -> RasterError:
    return RasterError(
        "the file holds a spectrum of narrow bands",
        found=f"{header.count} bands, {header.descriptions[0]} to {header.descriptions[-1]}",
        expected=" ".join(SENSOR_BANDS[sensor]),
        where=header.file,
        remedy=f"average them to the bands of {sensor} by its spectral response functions, and "
        "write those bands as a GeoTIFF",
    )


def _numbered(header: Header, sensor: Sensor) -> RasterError:
    named = [band_candidates(f"B{k}")[0] for k in range(1, header.count + 1)]
    usual = SENSOR_BANDS[sensor]
    ways = []
    if set(named) <= set(usual):
        ways.append(f"if the numbers are band names, --bands {' '.join(named)}")
    if header.count == len(usual):
        ways.append(f"if they are positions, --bands {' '.join(usual)}")
    return RasterError(
        "bands are described by numbers, which can be Sentinel-2 band names or positions",
        found=" ".join(header.descriptions),
        expected=f"the names of all bands in stored order; bands of {sensor}",
        where=header.file,
        remedy=f"state it: {'; '.join(ways)}" if ways else "state them all: --bands NAME NAME ...",
    )


def _uncalibrated(header: Header, names: Sequence[str], remedy: str = "") -> RasterError:
    return RasterError(
        "the file holds bands that are not calibrated backscatter",
        found=", ".join(names),
        expected="sigma0 or gamma0 of VV and VH",
        where=header.file,
        remedy=remedy or SENTINEL_1,
    )


def _of_another(header: Header, sensor: Sensor) -> RasterError:
    texts = [text for text in header.descriptions if not is_beside(text)]
    others = [s for s in Sensor if all(len(band_candidates(t, s)) == 1 for t in texts)]
    own = [b for text in texts for b in band_candidates(text, sensor) or alike_in(text, sensor)]
    remedies = [f"state {' or '.join(others)}, if it is from that sensor"] if others else []
    if len(own) == len(texts):
        remedies.append(f"if they are those of {sensor}, state --bands {' '.join(own)}")
    return RasterError(
        f"the file names some bands as {sensor} does, and others as another sensor does",
        found=" ".join(header.descriptions),
        expected=f"bands of {sensor}: {' '.join(SENSOR_BANDS[sensor])}",
        where=header.file,
        remedy="; or ".join(remedies) or "describe all bands by names of one sensor",
    )


def _miscounted(header: Header, sensor: Sensor, bands: Sequence[str]) -> RasterError:
    count = header.count
    return RasterError(
        "the number of bands in the file differs from the expected one",
        found=f"{count} band{'s' if count > 1 else ''}",
        expected=f"{len(bands)}: {' '.join(bands)}",
        where=header.file,
        remedy=_in_order(header, sensor),
    )


def _not_understood(
    header: Header, sensor: Sensor, meant: dict[int, tuple[str, ...]]
) -> RasterError:
    unclear = {i: found for i, found in meant.items() if len(found) != 1}
    choice = _choose(meant) if len(unclear) < len(meant) else ""
    strange = [t for i in unclear if _FOREIGN.fullmatch(t := header.descriptions[i - 1])]
    if strange:
        radar = ", or has another polarisation" if "VV" in SENSOR_BANDS[sensor] else ""
        raise RasterError(
            f"the file describes bands that no {sensor} image has",
            found=", ".join(strange),
            expected=" ".join(SENSOR_BANDS[sensor]),
            where=header.file,
            remedy=choice or f"leave the file out: it is from another sensor{radar}",
        )
    raw = [t for i in unclear if is_uncalibrated(t := header.descriptions[i - 1])]
    if raw and "VV" in SENSOR_BANDS[sensor]:
        raise _uncalibrated(header, raw, choice)
    words = [_quoted(header.descriptions[i - 1], found) for i, found in unclear.items()]
    return RasterError(
        "the file has band descriptions that are not recognised",
        found=", ".join(words[:_MOST]) + f" and {len(words) - _MOST} more" * (len(words) > _MOST),
        expected=" ".join(SENSOR_BANDS[sensor]),
        where=header.file,
        remedy=_to_understand(header, sensor, meant, unclear, choice),
    )


def _to_understand(
    header: Header,
    sensor: Sensor,
    meant: dict[int, tuple[str, ...]],
    unclear: dict[int, tuple[str, ...]],
    choice: str,
) -> str:
    """Return the remedy for unrecognised descriptions, with the known bands if any."""
    first, found = next(iter(unclear.items()))
    left = [b for b in SENSOR_BANDS[sensor] if (b,) not in meant.values()]
    base = without_image_number(header.descriptions[first - 1], sensor)
    if choice and base not in left and (base is not None or not left):
        return choice  # not a band, or one of a second image whose counterpart is present already
    name = base or (found or tuple(left) or SENSOR_BANDS[sensor])[0]
    return (choice and f"{choice}, or ") + (
        f"correct the band descriptions in the file; if band {first} is {name}, with: "
        f"rio edit-info --bidx {first} --description {name} {quote(str(header.file))}"
    )


def _quoted(text: str, found: Sequence[str]) -> str:
    if not text:
        return "a band without a description"
    return repr(text) + (f" (can mean {', '.join(found)})" if found else "")


def _choose(meant: dict[int, tuple[str, ...]]) -> str:
    known = dict.fromkeys(found[0] for found in meant.values() if len(found) == 1)
    return f"select the wanted bands: --bands {' '.join(known)}"
