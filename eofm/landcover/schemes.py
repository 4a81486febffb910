"""Schemes: the meaning of the codes of a family of land-cover maps.

`SCHEMES` holds the published ones. Users write their own as YAML files:

    name: my-map
    version: "2024"
    source: who made it
    classes: {1: water, 2: forest, 3: forest, 7: fields}   # codes with one name are one class
    nodata: [0]
    cloud: [10]
    unknown: error                                         # or ignore: treated as nodata
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.formats.text import read_yaml

__all__ = ["MAX_CODE", "SCHEMES", "Scheme", "find_scheme", "read_scheme"]

# A code is looked up in a table of this length, and a symbol is one byte.
MAX_CODE: Final = 65_535
_MAX_CODES: Final = 250


@dataclass(frozen=True)
class Scheme:
    """The class codes of one family of land-cover maps.

    Args:
        name: Name in `SCHEMES`, or of the user's own.
        classes: Code -> class name, in the order of the label vector. Codes with one name are one
            class.
        nodata: Codes of pixels without data. The first one fills the area outside a map.
        cloud: Codes of pixels hidden by clouds.
        source: Who makes these maps.
        version: Of the maps or of their legend.
        ignore_unknown: Whether codes that are in none of these are treated as nodata, or are an
            error.

    Raises:
        LabelError: If a code means two things, is not in 0..65535, or there is no class or nodata.
    """

    name: str
    classes: Mapping[int, str]
    nodata: tuple[int, ...]
    cloud: tuple[int, ...]
    source: str
    version: str = ""
    ignore_unknown: bool = False

    def __post_init__(self) -> None:
        codes = self.codes
        twice = sorted({code for code in codes if codes.count(code) > 1})
        if twice:
            raise self._error("a code of the scheme means two things", twice, "one meaning each")
        outside = [code for code in codes if not 0 <= code <= MAX_CODE]
        if outside:
            raise self._error("a code of the scheme is out of range", outside, f"0 to {MAX_CODE}")
        if not self.classes or not self.nodata:
            raise self._error(
                "a scheme has at least one class and one nodata code",
                f"{len(self.classes)} classes, {len(self.nodata)} nodata codes",
                "a code for what lies outside a map, even if no map contains it",
            )
        if len(codes) > _MAX_CODES:
            raise self._error("a scheme of too many codes", len(codes), f"at most {_MAX_CODES}")

    def _error(self, problem: str, found: object, expected: str) -> LabelError:
        return LabelError(problem, found=found, expected=expected, where=f"scheme {self.name}")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the label vector."""
        return tuple(dict.fromkeys(self.classes.values()))

    @property
    def codes(self) -> tuple[int, ...]:
        """All codes the scheme knows: of classes, then nodata, then cloud."""
        return (*self.classes, *self.nodata, *self.cloud)

    @property
    def columns(self) -> NDArray[np.intp]:
        """For each of `codes`: number of its class; K for nodata, K + 1 for cloud."""
        names = self.names
        places = {name: k for k, name in enumerate(names)}
        of_classes = [places[name] for name in self.classes.values()]
        rest = [len(names)] * len(self.nodata) + [len(names) + 1] * len(self.cloud)
        return np.array(of_classes + rest, np.intp)

    def plain(self) -> dict[str, Any]:
        """Return all that decides labels, as JSON can hold it."""
        return {
            "name": self.name,
            "version": self.version,
            "source": self.source,
            "classes": {str(code): name for code, name in self.classes.items()},
            "nodata": list(self.nodata),
            "cloud": list(self.cloud),
            "unknown": "ignore" if self.ignore_unknown else "error",
        }

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with any code or name."""
        text = json.dumps({**self.plain(), "source": ""}, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


# CORINE Land Cover, level 3, in the order of the raster values 1 to 44.
_CORINE: Final[Mapping[int, str]] = {
    111: "continuous urban fabric",
    112: "discontinuous urban fabric",
    121: "industrial or commercial units",
    122: "road and rail networks and associated land",
    123: "port areas",
    124: "airports",
    131: "mineral extraction sites",
    132: "dump sites",
    133: "construction sites",
    141: "green urban areas",
    142: "sport and leisure facilities",
    211: "non-irrigated arable land",
    212: "permanently irrigated land",
    213: "rice fields",
    221: "vineyards",
    222: "fruit trees and berry plantations",
    223: "olive groves",
    231: "pastures",
    241: "annual crops associated with permanent crops",
    242: "complex cultivation patterns",
    243: "land principally occupied by agriculture with natural vegetation",
    244: "agro-forestry areas",
    311: "broad-leaved forest",
    312: "coniferous forest",
    313: "mixed forest",
    321: "natural grassland",
    322: "moors and heathland",
    323: "sclerophyllous vegetation",
    324: "transitional woodland-shrub",
    331: "beaches, dunes, sands",
    332: "bare rock",
    333: "sparsely vegetated areas",
    334: "burnt areas",
    335: "glaciers and perpetual snow",
    411: "inland marshes",
    412: "peat bogs",
    421: "salt marshes",
    422: "salines",
    423: "intertidal flats",
    511: "water courses",
    512: "water bodies",
    521: "coastal lagoons",
    522: "estuaries",
    523: "sea and ocean",
}

_SCHEMES: Final = (
    Scheme(
        "dynamic-world",
        {
            0: "water",
            1: "trees",
            2: "grass",
            3: "flooded vegetation",
            4: "crops",
            5: "shrub and scrub",
            6: "built",
            7: "bare",
            8: "snow and ice",
        },
        nodata=(255,),
        cloud=(),  # clouds and their shadows are nodata
        source="Dynamic World, band `label` (doi 10.1038/s41597-022-01307-4)",
        version="V1",
    ),
    Scheme(
        "worldcover",
        {
            10: "tree cover",
            20: "shrubland",
            30: "grassland",
            40: "cropland",
            50: "built-up",
            60: "bare or sparse vegetation",
            70: "snow and ice",
            80: "permanent water bodies",
            90: "herbaceous wetland",
            95: "mangroves",
            100: "moss and lichen",
        },
        nodata=(0,),
        cloud=(),
        source="ESA WorldCover 10 m 2020 v100 and 2021 v200, product user manual",
        version="v100, v200",
    ),
    Scheme(
        "esri",
        {
            1: "water",
            2: "trees",
            4: "flooded vegetation",
            5: "crops",
            7: "built area",
            8: "bare ground",
            9: "snow and ice",
            11: "rangeland",
        },
        nodata=(0,),
        cloud=(10,),
        source="Esri / Impact Observatory Sentinel-2 10 m land use/land cover, nine-class legend",
        version="nine classes",
    ),
    Scheme(
        "terramesh",
        {
            1: "water",
            2: "trees",
            3: "flooded vegetation",
            4: "crops",
            5: "built",
            6: "bare",
            7: "snow and ice",
            9: "rangeland",
        },
        nodata=(0,),
        cloud=(8,),
        source="TerraMesh LULC (arXiv 2504.11172): the Esri legend, renumbered",
        version="1",
    ),
    Scheme(
        "corine",
        _CORINE,
        nodata=(999, 0, 990, 995),
        cloud=(),
        source="CORINE Land Cover, level-3 codes; 990 and 995 are unclassified land and water",
        version="level 3",
    ),
    Scheme(
        "corine-grid",
        dict(enumerate(_CORINE.values(), 1)),
        nodata=(48, 0),
        cloud=(),
        source="CORINE Land Cover, values of the 100 m raster; its attribute table lists the codes",
        version="level 3",
    ),
)

SCHEMES: Final[Mapping[str, Scheme]] = {scheme.name: scheme for scheme in _SCHEMES}


# ------------------------------------------------------------------------- schemes of users


def find_scheme(text: str) -> Scheme:
    """Return a built-in scheme by its name, or a user's own by the path of its YAML file.

    Raises:
        LabelError: If there is neither, or the file is no scheme.
    """
    if text in SCHEMES:
        return SCHEMES[text]
    file = Path(text)
    if file.suffix.lower() in {".yaml", ".yml"}:
        return read_scheme(file)
    near = difflib.get_close_matches(text, SCHEMES, n=1)
    raise LabelError(
        "there is no such scheme",
        found=text,
        expected=f"{' | '.join(SCHEMES)}, or the path of a .yaml file",
        remedy=f"--scheme {near[0]}" if near else "`eofm labels --help` shows a scheme file",
    )


def read_scheme(file: Path) -> Scheme:
    """Read a user's own scheme; see the top of this module.

    Raises:
        LabelError: If it is missing, no YAML, or not a scheme: an unknown key, a code twice, a
            code that is no whole number.
    """
    plain = _read_yaml(file)
    _check_keys(plain, file)
    unknown = plain.get("unknown", "error")
    if unknown not in {"error", "ignore"}:
        raise _not_a_scheme(file, f"unknown: {unknown}", "unknown: error | ignore")
    classes = plain["classes"]
    if not isinstance(classes, dict) or not all(isinstance(n, str) for n in classes.values()):
        raise _not_a_scheme(file, f"classes: {classes}", "classes: {1: water, 2: trees}")
    return Scheme(
        name=str(plain["name"]),
        classes={_code(code, file): name for code, name in classes.items()},
        nodata=_codes(plain, "nodata", file),
        cloud=_codes(plain, "cloud", file),
        source=str(plain.get("source", file.name)),
        version=str(plain.get("version", "")),
        ignore_unknown=unknown == "ignore",
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise LabelError("there is no such scheme file", where=file)
    plain = read_yaml(file, LabelError, _NO_SCHEME, remedy=_COMPARE, unique=True)
    if not isinstance(plain, dict):
        raise _not_a_scheme(file, type(plain).__name__, "keys: name, classes, nodata")
    return plain


_NO_SCHEME: Final = "the file is not a scheme of land-cover codes"
_COMPARE: Final = "compare it with the example in `eofm labels --help`"
_NEEDED: Final = {"name", "classes", "nodata"}
_KEYS: Final = _NEEDED | {"version", "source", "cloud", "unknown"}


def _check_keys(plain: Mapping[str, Any], file: Path) -> None:
    strange, missing = set(map(str, plain)) - _KEYS, _NEEDED - set(plain)
    if strange or missing:
        found = [*(f"{key} (unknown)" for key in sorted(strange))]
        found += [f"no {key}" for key in sorted(missing)]
        raise _not_a_scheme(file, ", ".join(found), f"keys {', '.join(sorted(_KEYS))}")


def _codes(plain: Mapping[str, Any], key: str, file: Path) -> tuple[int, ...]:
    value = plain.get(key, [])
    listed = value if isinstance(value, list) else [value]
    return tuple(_code(code, file) for code in listed)


def _code(code: object, file: Path) -> int:
    if not isinstance(code, int) or isinstance(code, bool):
        raise _not_a_scheme(file, f"code {code!r}", "whole numbers as codes")
    return code


def _not_a_scheme(file: Path, found: object, expected: str) -> LabelError:
    return LabelError(_NO_SCHEME, found=found, expected=expected, where=file, remedy=_COMPARE)
