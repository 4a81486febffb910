"""What the user states against what a product says: one of the two is needed, both must agree."""

from __future__ import annotations

from typing import TypeVar

from eofm.contract.spec import Sensor, Unit
from eofm.errors import SpecError

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
