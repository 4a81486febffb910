"""The classes of BigEarthNet: 43 of CORINE Land Cover, and 19 made of them. Standard library only.

Labels are handled by name, because three orders of the 19 classes are about: the official one
below, the alphabetical one in the tables of version 2, and one in which alphabetical numbers had
been sent through the official mapping, so that every label was wrong (torchgeo#1127).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from eofm.errors import LabelError

CLASSES_43: Final = (
    "Continuous urban fabric",
    "Discontinuous urban fabric",
    "Industrial or commercial units",
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Non-irrigated arable land",
    "Permanently irrigated land",
    "Rice fields",
    "Vineyards",
    "Fruit trees and berry plantations",
    "Olive groves",
    "Pastures",
    "Annual crops associated with permanent crops",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland",
    "Moors and heathland",
    "Sclerophyllous vegetation",
    "Transitional woodland/shrub",
    "Beaches, dunes, sands",
    "Bare rock",
    "Sparsely vegetated areas",
    "Burnt areas",
    "Inland marshes",
    "Peatbogs",
    "Salt marshes",
    "Salines",
    "Intertidal flats",
    "Water courses",
    "Water bodies",
    "Coastal lagoons",
    "Estuaries",
    "Sea and ocean",
)

# Sumbul et al. 2021 (BigEarthNet-MM). A class of the 43 that stands in no row was dropped.
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Industrial or commercial units": ("Industrial or commercial units",),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Pastures": ("Pastures",),
    "Complex cultivation patterns": ("Complex cultivation patterns",),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
    ),
    "Agro-forestry areas": ("Agro-forestry areas",),
    "Broad-leaved forest": ("Broad-leaved forest",),
    "Coniferous forest": ("Coniferous forest",),
    "Mixed forest": ("Mixed forest",),
    "Natural grassland and sparsely vegetated areas": (
        "Natural grassland",
        "Sparsely vegetated areas",
    ),
    "Moors, heathland and sclerophyllous vegetation": (
        "Moors and heathland",
        "Sclerophyllous vegetation",
    ),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Beaches, dunes, sands": ("Beaches, dunes, sands",),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
CLASSES_19: Final = tuple(MEMBERS)

_TO_19: Final = {member: name for name, members in MEMBERS.items() for member in members}
_KNOWN_43: Final = frozenset(CLASSES_43)


def to_19(labels: Iterable[str], where: object = None) -> frozenset[str]:
    """Return the 19-class names of 43-class names. Classes that were dropped vanish.

    Raises:
        LabelError: If a name is not one of the 43.
    """
    names = frozenset(labels)
    _check(names, _KNOWN_43, where)
    return frozenset(_TO_19[name] for name in names if name in _TO_19)


def multi_hot(labels: Iterable[str], classes: tuple[str, ...], where: object) -> tuple[int, ...]:
    """Return 1 for every class that is among the labels, in the order of the classes.

    Raises:
        LabelError: If a label is not one of the classes.
    """
    names = frozenset(labels)
    _check(names, frozenset(classes), where)
    return tuple(int(name in names) for name in classes)


def _check(names: frozenset[str], known: frozenset[str], where: object) -> None:
    strange = sorted(names - known)
    if strange:
        raise LabelError(
            f"labels that are not among the {len(known)} classes",
            found="; ".join(strange),
            expected=f"the {len(known)}-class names of BigEarthNet",
            where=where,
        )
