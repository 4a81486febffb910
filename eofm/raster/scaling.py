"""What scale and offset of a product say of its unit.

Products state `reflectance = scale * stored + offset` in many places (STAC `raster:bands`, CF
`scale_factor` and `add_offset`). Two pairs are Sentinel-2's own: 0.0001 and 0, and, since
processing baseline 04.00, 0.0001 and -0.1. Each is a unit of eofm, so the stored numbers are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.contract.spec import Sensor, Unit
from eofm.errors import SpecError

_OF_SENTINEL_2: Final[Mapping[tuple[float, float], Unit]] = {
    (1e-4, 0.0): Unit.DN,
    (1e-4, -0.1): Unit.DN_OFFSET1000,
    (1.0, 0.0): Unit.REFLECTANCE,
}


def unit_of_scaling(sensor: Sensor, scale: float, offset: float) -> Unit | None:
    """Return the unit of stored numbers of which `scale * x + offset` is the reflectance.

    Args:
        sensor: Sensor and product level.
        scale: Factor of the stored number.
        offset: Added after it.

    Returns:
        The unit; None where scale and offset say nothing (1 and 0 of other sensors).

    Raises:
        SpecError: If there is no such unit.
    """
    if (scale, offset) == (1.0, 0.0):
        return None  # what everything says that was not scaled
    rounded = (float(f"{scale:.6g}"), float(f"{offset:.6g}"))
    if sensor in {Sensor.S2_L1C, Sensor.S2_L2A} and rounded in _OF_SENTINEL_2:
        return _OF_SENTINEL_2[rounded]
    raise SpecError(
        "no unit has this scale and offset",
        found=f"scale {scale:g}, offset {offset:g} of {sensor}",
        expected="scale 0.0001 and offset 0 or -0.1, as Sentinel-2 has",
        remedy="convert the numbers to reflectance, write them without scale and offset, and "
        "state unit reflectance",
    )


def agree(what: str, stated: Unit | None, found: Unit | None, where: object) -> Unit:
    """Return the unit that is stated, or that the product says, which must not contradict.

    Args:
        what: Where the product says it, for the message of an error.
        stated: By the user; None where nothing is.
        found: In the product; None where it says nothing.
        where: File or name.

    Raises:
        SpecError: If neither says it, or they say different things.
    """
    unit = stated or found
    if unit is None:
        raise SpecError(
            "the unit of the values is not known",
            found="no unit stated, and none in the metadata",
            expected=" | ".join(sorted(u for u in Unit if u is not Unit.MODEL)),
            where=where,
            remedy='state it, as in unit="dn"; it is never inferred from values',
        )
    if found is not None and found is not unit:
        raise SpecError(
            "the product says itself what its unit is, and it is not the stated one",
            found=f"{found} by {what}",
            expected=f"{stated} as stated",
            where=where,
            remedy="leave the unit out",
        )
    return unit
