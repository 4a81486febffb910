"""The unit of stored values: what a file or a product says of it, and what the user states.

One of the two is needed, and both must agree (`settle`, which decides the sensor too).

GDAL's convention is: physical value = stored value x scale + offset (GDAL raster data model). For
Sentinel-2 the physical value is reflectance, so the pair names the unit of the stored values: 1e-4
and 0 are digital numbers, 1e-4 and -0.1 those with the offset of processing baseline 04.00. For
radar the physical value is backscatter, in the unit that the user or the band's name states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from eofm.contract.spec import UNITS, Sensor, Unit
from eofm.errors import RasterError, SpecError

Word = TypeVar("Word", Sensor, Unit)


def settle(what: str, stated: Word | None, found: Word | None, by: str, where: object) -> Word:
    """Return a sensor or unit that is stated, or that the product says.

    Args:
        what: Which of the two, as an argument is called: `sensor` or `unit`.
        stated: By the user; None where nothing is.
        found: In the product; None where it says nothing.
        by: What says it in the product.
        where: File or name.

    Raises:
        SpecError: If neither says it, or they say different things.
    """
    if stated is not None and found is not None and stated is not found:
        raise SpecError(
            f"the product itself says another {what} than stated",
            found=f"{found}, by {by}",
            expected=f"{stated}, as stated",
            where=where,
            remedy=f"leave the {what} out: what the product says is taken",
        )
    settled = stated or found
    if settled is None:
        example = {"sensor": Sensor.S2_L2A, "unit": Unit.DN}[what]
        raise SpecError(
            f"neither the user nor the product states the {what}",
            expected=f"one of the {what}s of eofm",
            where=where,
            remedy=f'state it, as in {what}="{example}" in Python, --{what} {example} in a command',
        )
    return settled


_SILENT: Final = (1.0, 0.0)
_TO_DN: Final = (1.0, -1000.0)  # makes digital numbers, not reflectance, of those with the offset
_TOLERANCE: Final = 1e-3  # of the scale: writers round to float32
# (scale, offset) -> unit of the stored values
_STORED: Final[Mapping[Unit, tuple[tuple[float, float], ...]]] = {
    Unit.DN: ((1e-4, 0.0),),
    Unit.DN_OFFSET1000: ((1e-4, -0.1), _TO_DN),
    Unit.UINT8: ((1 / 255, 0.0),),
}
_RADAR: Final = frozenset({Unit.DB, Unit.POWER})
_PHYSICAL: Final = frozenset({Unit.REFLECTANCE, *_RADAR})


@dataclass(frozen=True)
class TagScaling:
    """What becomes of stored values.

    Args:
        unit: Of the values as they are read.
        stored: Of the values in the file; None where it has no name.
        factors: (scale, offset) of each band; empty where stored values are read as they are.
    """

    unit: Unit
    stored: Unit | None
    factors: tuple[tuple[float, float], ...] = ()

    def apply(self, values: NDArray[Any], bands: Sequence[int]) -> NDArray[Any]:
        """Return physical values (c, h, w) of some bands, float32, or the stored ones.

        Args:
            values: As stored.
            bands: Which of the bands of the image they are, counted from 0.
        """
        if not self.factors:
            return values
        scale, offset = np.array([self.factors[i] for i in bands])[:, :, None, None].swapaxes(0, 1)
        physical: NDArray[Any] = (values * scale + offset).astype(np.float32)
        return physical


def read_scaling(
    pairs: Sequence[tuple[float, float]],
    sensor: Sensor,
    stated: Unit | None,
    described: Unit | None,
    where: Path,
) -> TagScaling:
    """Decide the unit of an image by its tags and the user's statement.

    Args:
        pairs: Scale and offset of each band.
        sensor: Sensor and product level.
        stated: What the user says, if anything.
        described: What the descriptions or unit tags of the bands say, if anything.
        where: The file, for the message of an error.

    Raises:
        RasterError: If the two contradict each other, or neither says anything.
    """
    if described is not None and stated not in {None, described}:
        raise _contradiction(f"bands described as {described}", stated, described, where)
    stated = stated or described
    if any(scale == 0 or not math.isfinite(scale) for scale, _ in pairs):
        raise RasterError(
            "the scale of a file is no factor",
            found=f"scale and offset {_shown(pairs)}",
            expected="a scale other than 0",
            where=where,
            remedy="correct its tags, as in: "
            "python -c \"import rasterio, sys; f = rasterio.open(sys.argv[1], 'r+'); "
            'f.scales = (1,) * f.count; f.offsets = (0,) * f.count; f.close()" '
            f"{quote(str(where))}",
        )
    said = [pair for pair in pairs if not _near(pair, _SILENT)]
    if not said:
        if stated is None:
            raise _unstated(sensor, where)
        return TagScaling(stated, stated)
    if stated is not None and stated not in UNITS[sensor]:
        return TagScaling(stated, stated)  # refused with the other contradictions of a spec
    stored = _stored_unit(said, sensor)
    if stated in _PHYSICAL or (stated is None and stored is None):
        if len(said) != len(pairs):
            raise _partly(pairs, stored, where)
        if stated is None and Unit.REFLECTANCE not in UNITS[sensor]:
            raise _unstated(sensor, where)  # a scale alone does not tell decibels from power
        factors = tuple((1e-4, -0.1) if stored and _near(p, _TO_DN) else p for p in pairs)
        return TagScaling(stated or Unit.REFLECTANCE, stored, factors)
    if stated is Unit.DN and all(_near(pair, _TO_DN) for pair in pairs):
        return TagScaling(Unit.DN, stored, tuple(pairs))
    if stored is None or stated not in {None, stored}:
        right = stored or Unit.REFLECTANCE
        raise _contradiction(f"scale and offset {_shown(said)}", stated, right, where)
    return TagScaling(stored, stored)


def _near(pair: tuple[float, float], other: tuple[float, float]) -> bool:
    slack = _TOLERANCE * max(abs(other[0]), abs(other[1]))
    return abs(pair[0] - other[0]) <= _TOLERANCE * other[0] and abs(pair[1] - other[1]) <= slack


def _stored_unit(said: Sequence[tuple[float, float]], sensor: Sensor) -> Unit | None:
    """Return the unit that all pairs name, or None."""
    for unit, known in _STORED.items():
        if unit in UNITS[sensor] and all(any(_near(p, k) for k in known) for p in said):
            return unit
    return None


def _shown(pairs: Sequence[tuple[float, float]]) -> str:
    return "; ".join(dict.fromkeys(f"{scale:.6g}, {offset:.6g}" for scale, offset in pairs))


def _contradiction(found: str, stated: Unit | None, right: Unit, where: Path) -> RasterError:
    return RasterError(
        "the file states another unit than the user",
        found=found,
        expected=f"what unit {stated} has",
        where=where,
        remedy=f"state the unit that the file has: --unit {right}; or correct its tags",
    )


def _partly(pairs: Sequence[tuple[float, float]], stored: Unit | None, where: Path) -> RasterError:
    remedy = "write scale and offset of every band into the file"
    if stored is not None:
        remedy = f"state the unit of the stored values: --unit {stored}"
    return RasterError(
        "some bands of an image state a scale and others none",
        found=_shown(pairs),
        expected="a scale and offset for every band, or for none",
        where=where,
        remedy=remedy,
    )


def _unstated(sensor: Sensor, where: Path) -> RasterError:
    units = sorted(UNITS[sensor])
    return RasterError(
        "neither the user nor the file states the unit of the values",
        found="no scale and offset that name it",
        expected=" | ".join(units),
        where=where,
        remedy=f"state it, as in unit={units[0].value!r} in Python, --unit {units[0]} in a command",
    )
