"""From land-cover maps to multi-labels: class codes, covered fractions, labels.

A scheme is a table of codes. Which pixels of a map say nothing (nodata, cloud) is part of it, and
a code that it does not know is an error, never a class of its own.

Shapes: h by w map pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eofm.errors import LabelError

ClassMap = NDArray[np.int32]


@dataclass(frozen=True)
class Scheme:
    """The class codes of one family of land-cover maps.

    Args:
        name: As in `SCHEMES`.
        classes: Code -> class name, in the order of the label vector.
        nodata: Codes of pixels about which the map says nothing. The first one fills what lies
            outside a map.
        cloud: Codes of pixels hidden by clouds.
        source: Who makes these maps.
    """

    name: str
    classes: Mapping[int, str]
    nodata: tuple[int, ...]
    cloud: tuple[int, ...]
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the label vector."""
        return tuple(self.classes.values())


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
    ),
    Scheme(
        "corine",
        _CORINE,
        nodata=(999, 0, 990, 995),
        cloud=(),
        source="CORINE Land Cover, level-3 codes; 990 and 995 are unclassified land and water",
    ),
    Scheme(
        "corine-grid",
        dict(enumerate(_CORINE.values(), 1)),
        nodata=(48, 0),
        cloud=(),
        source="CORINE Land Cover, values of the 100 m raster; its attribute table lists the codes",
    ),
)

SCHEMES: Final[Mapping[str, Scheme]] = {scheme.name: scheme for scheme in _SCHEMES}


@dataclass(frozen=True)
class Cover:
    """How much of a window each class covers.

    Args:
        fractions: float32 (K,), share of each class in the valid pixels; zeros where none is.
        valid_share: Share of the pixels that are neither nodata nor cloud.
        cloud_share: Share of the pixels that are cloud.
    """

    fractions: NDArray[np.float32]
    valid_share: float
    cloud_share: float


def class_fractions(class_map: NDArray[np.integer], scheme: Scheme, where: object = None) -> Cover:
    """Count a class map.

    Args:
        class_map: Codes of the scheme, (h, w).
        scheme: What they mean.
        where: Which map and window it is, for the message of an error.

    Raises:
        LabelError: If the map holds codes that the scheme does not know, or no pixel.
    """
    if class_map.size == 0:
        raise LabelError("a class map without pixels", found=class_map.shape, where=where)
    known = np.array([*scheme.classes, *scheme.nodata, *scheme.cloud])
    low, high = int(class_map.min()), int(class_map.max())
    if low < 0 or high > known.max():
        raise _unknown_codes(np.unique(class_map), scheme, where)
    counts = np.bincount(class_map.ravel(), minlength=int(known.max()) + 1)
    if counts[known].sum() != class_map.size:
        raise _unknown_codes(np.flatnonzero(counts), scheme, where)
    covered = counts[list(scheme.classes)]
    valid = int(covered.sum())
    cloud = int(counts[list(scheme.cloud)].sum()) if scheme.cloud else 0
    return Cover(
        (covered / max(valid, 1)).astype(np.float32),
        valid / class_map.size,
        cloud / class_map.size,
    )


def _unknown_codes(codes: NDArray[np.integer], scheme: Scheme, where: object) -> LabelError:
    known = {*scheme.classes, *scheme.nodata, *scheme.cloud}
    unknown = [code for code in codes.tolist() if code not in known]
    shown = ", ".join(map(str, unknown[:10])) + (", ..." if unknown[10:] else "")
    return LabelError(
        f"the class map holds codes that the scheme {scheme.name} does not know",
        found=shown,
        expected=", ".join(map(str, sorted(known))),
        where=where,
        remedy=f"choose the scheme of this map ({' | '.join(SCHEMES)}), or remap its codes",
    )


def multi_label(
    cover: Cover, threshold: float = 0.0, min_valid: float = 0.25
) -> tuple[NDArray[np.uint8], bool]:
    """Return which classes are present, and whether that is known.

    A class is present where its fraction reaches the threshold; a threshold of 0 means any pixel.
    With too few valid pixels, or where no class reaches the threshold, nothing is known: that is
    not the same as "no class is present", with which soft labels would call an image unlike every
    other, itself included.

    Args:
        cover: The count.
        threshold: Share of the valid pixels.
        min_valid: Least share of valid pixels.

    Returns:
        uint8 (K,), zeros where unknown; and whether it is known.
    """
    # the fractions are stored as float32: a threshold of 0.1 must mean the same one later
    least = np.float32(threshold)
    present = (cover.fractions > 0) & (cover.fractions >= least)
    known = cover.valid_share >= min_valid and bool(present.any())
    return (present & known).astype(np.uint8), known
