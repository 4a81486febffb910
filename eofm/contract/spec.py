"""What is this image? The vocabulary in which data sets and weights describe pixels.

Nothing here touches a pixel. A data set *states* an `ImageSpec`, a weight *states* a
`Recipe` (`eofm.contract.preprocess`), and `plan()` finds the legal path between the two. A unit is
stated and never inferred from a maximum; a band is named and never numbered.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from numbers import Real
from operator import index
from typing import Final, Self

from eofm.errors import SpecError


class Stated(StrEnum):
    """Words that a user states."""

    @classmethod
    def parse(cls, text: str, what: str | None = None) -> Self:
        """Return the member that a text names.

        Args:
            text: As a user writes it.
            what: What it is a word for; without it, the name of the class.

        Raises:
            SpecError: If there is none; the message offers the nearest.
        """
        try:
            return cls(text)
        except ValueError:
            pass
        plain = {_letters(member): member for member in cls}
        near = difflib.get_close_matches(_letters(str(text)), list(plain), n=1)
        raise SpecError(
            f"there is no {what or cls.__name__.lower()} {str(text)!r}",
            found=text,
            expected=" | ".join(cls),
            remedy=f"did you mean {plain[near[0]].value!r}?" if near else None,
        )


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


class Sensor(Stated):
    """Sensor and product level: L1C is not L2A, GRD is not RTC."""

    S1_GRD = "s1-grd"
    S1_RTC = "s1-rtc"
    S2_L1C = "s2-l1c"
    S2_L2A = "s2-l2a"
    RGB = "rgb"
    NAIP = "naip"  # aerial red, green, blue, near infrared at 1 m or less


class Unit(Stated):
    """The unit of a pixel value.

    `DN_OFFSET1000` is a unit of its own: Sentinel-2 processing baseline 04.00 (25 January
    2022) and later, and older scenes reprocessed with it, add 1000 to every digital number.
    """

    DN = "dn"  # reflectance x 10000
    DN_OFFSET1000 = "dn-offset1000"  # reflectance x 10000 + 1000
    REFLECTANCE = "reflectance"
    UINT8 = "uint8"
    DB = "db"  # 10 log10 of backscatter power
    POWER = "power"  # backscatter power, linear
    MODEL = "model"  # normalised: what a network expects; never an input of plan()


def stated_size(size: Sequence[int]) -> tuple[int, int]:
    """Return a size as a user states it: two whole numbers, of whatever type they are.

    Raises:
        SpecError: If it is not two whole numbers.
    """
    try:
        height, width = map(index, size)
    except (TypeError, ValueError):
        raise SpecError(
            "a size is height and width in pixels", found=size, remedy="state it, as in (64, 64)"
        ) from None
    return height, width


def stated_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as a user states them: one text is one name, and not its letters.

    Raises:
        SpecError: If they are no names, or have no order, as those of a set.
    """
    if isinstance(names, (set, frozenset)):
        raise SpecError(
            "bands have an order, and a set has none",
            found=", ".join(sorted(map(str, names))),
            remedy="state a list, in stored order",
        )
    try:
        found = (names,) if isinstance(names, str) else tuple(names)
    except TypeError:
        raise SpecError(
            "bands are stated by name", found=names, remedy='as in ("B02", "B03")'
        ) from None
    if not all(isinstance(name, str) for name in found):
        raise SpecError("bands are stated by name", found=names, remedy='as in ("B02", "B03")')
    return found


UNITS: Final[Mapping[Sensor, frozenset[Unit]]] = {
    Sensor.S1_GRD: frozenset({Unit.DB, Unit.POWER}),
    Sensor.S1_RTC: frozenset({Unit.DB, Unit.POWER}),
    Sensor.S2_L1C: frozenset({Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE}),
    Sensor.S2_L2A: frozenset({Unit.DN, Unit.DN_OFFSET1000, Unit.REFLECTANCE}),
    Sensor.RGB: frozenset({Unit.UINT8, Unit.REFLECTANCE}),
    Sensor.NAIP: frozenset({Unit.UINT8}),
}


@dataclass(frozen=True)
class Normalization:
    """`y = (x - shift) / scale`, then optional clipping, then optional 8-bit rounding.

    Args:
        shift: Per band, in the unit of the recipe that carries it.
        scale: Per band, positive.
        source: Where the constants come from. Mandatory: constants of unknown origin are how
            published scores became incomparable.
        clip: Lower and upper bound after scaling.
        levels: Number of steps of a quantisation of [0, 1] that truncates, as a cast to an
            integer type does: 255 stands for `uint8(255 y) / 255`. Needs `clip=(0, 1)`.

    Raises:
        SpecError: If lengths differ, a scale is not positive, the source is empty, or `levels`
            comes without `clip=(0, 1)`.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    source: str
    clip: tuple[float, float] | None = None
    levels: int | None = None

    def __post_init__(self) -> None:
        # constants that were given as lists; a plan is kept by what it is made of
        object.__setattr__(self, "shift", tuple(self.shift))
        object.__setattr__(self, "scale", tuple(self.scale))
        if len(self.shift) != len(self.scale) or not self.shift:
            raise SpecError(
                "a normalization needs one shift and one scale per band",
                found=f"{len(self.shift)} shifts, {len(self.scale)} scales",
            )
        if not all(math.isfinite(s) and s > 0 for s in self.scale):
            raise SpecError("scales must be positive", found=self.scale)
        if not all(math.isfinite(s) for s in self.shift):
            raise SpecError("shifts must be finite", found=self.shift)
        if not (isinstance(self.source, str) and self.source.strip()):
            raise SpecError(
                "a normalization must state the source of its constants",
                remedy="name the paper, repository or data split they were computed on",
            )
        if self.levels is not None and (self.clip != (0.0, 1.0) or self.levels < 1):
            raise SpecError(
                "8-bit rounding is defined on [0, 1]",
                found=f"levels={self.levels}, clip={self.clip}",
                expected="levels >= 1 and clip=(0, 1)",
            )

    @classmethod
    def zscore(cls, mean: Sequence[float], std: Sequence[float], source: str) -> Self:
        """`(x - mean) / std`, unbounded."""
        return cls(tuple(map(float, mean)), tuple(map(float, std)), source)

    @classmethod
    def two_sigma(
        cls, mean: Sequence[float], std: Sequence[float], source: str, *, quantise: bool = True
    ) -> Self:
        """Map mean - 2 std .. mean + 2 std to [0, 1], clip, and round to 8 bits.

        This is what the README of the SoftCon weights prescribes (arXiv 2405.20462,
        zhu-xlab/softcon): scale to 0..255, clip, cast to `uint8`, divide by 255.

        Args:
            mean: Per band.
            std: Per band.
            source: Where the statistics come from.
            quantise: Keep the 8-bit cast of the original. False leaves it out.
        """
        if len(mean) != len(std):
            raise SpecError(
                "one mean and one std per band are needed",
                found=f"{len(mean)} means, {len(std)} stds",
            )
        shift = tuple(float(m) - 2 * float(s) for m, s in zip(mean, std, strict=True))
        scale = tuple(4 * float(s) for s in std)
        return cls(shift, scale, source, clip=(0.0, 1.0), levels=255 if quantise else None)

    @classmethod
    def divide(
        cls, by: float, bands: int, source: str, *, clip: tuple[float, float] | None = None
    ) -> Self:
        """`x / by` for every band."""
        return cls((0.0,) * bands, (float(by),) * bands, source, clip=clip)

    def __repr__(self) -> str:
        """Return the rule without its constants; `spec_key` of a spec has all of them."""
        clip = "" if self.clip is None else f", clipped to {self.clip[0]:g}..{self.clip[1]:g}"
        levels = f", {self.levels} levels" if self.levels else ""
        return (
            f"Normalization((x - shift) / scale of {len(self.shift)} bands{clip}{levels}; "
            f"constants: {self.source})"
        )

    def select(self, indices: Sequence[int]) -> Self:
        """Return the same rule for the bands at `indices`, in that order."""
        return type(self)(
            tuple(self.shift[i] for i in indices),
            tuple(self.scale[i] for i in indices),
            self.source,
            self.clip,
            self.levels,
        )


@dataclass(frozen=True)
class ImageSpec:
    """What a data set says of its images. Equal specs mean: the same kind of pixel.

    Sensor and unit may be given as words, `ImageSpec("s2-l2a", bands, "dn", None, 10.0)`, and bands
    and size as lists: what the spec holds is of one type all the same.

    Args:
        sensor: Sensor and product level.
        bands: Canonical band names in stored order (`eofm.contract.sensors` lists them).
        unit: Unit of the values.
        size: Height and width in pixels, or None where images differ.
        gsd: Ground sample distance of the grid in metres.
        normalization: The rule already applied to the pixels; only with `unit=model`.

    Raises:
        SpecError: If there is no such sensor or unit, the bands are empty or repeated, the unit is
            not one of the sensor's, a size or GSD is not positive, or a normalization contradicts
            the unit.
    """

    sensor: Sensor
    bands: tuple[str, ...]
    unit: Unit
    size: tuple[int, int] | None
    gsd: float
    normalization: Normalization | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sensor", Sensor.parse(self.sensor))
        object.__setattr__(self, "unit", Unit.parse(self.unit))
        object.__setattr__(self, "bands", stated_names(self.bands))
        if self.size is not None:
            object.__setattr__(self, "size", stated_size(self.size))
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise SpecError("bands must be named, each once", found=self.bands)
        if self.unit is not Unit.MODEL and self.unit not in UNITS[self.sensor]:
            raise SpecError(
                f"{self.sensor} is never in unit {self.unit}",
                found=self.unit,
                expected=" | ".join(sorted(UNITS[self.sensor])),
                remedy="state the unit the files are in; convert them if it is another",
            )
        if (self.unit is Unit.MODEL) != (self.normalization is not None):
            raise SpecError(
                "unit 'model' and a normalization belong together",
                found=f"unit={self.unit}, normalization={self.normalization}",
            )
        if self.normalization and len(self.normalization.shift) != len(self.bands):
            raise SpecError("the normalization has another number of bands", found=self.bands)
        if self.size is not None and min(self.size) < 1:
            raise SpecError("size must be positive", found=self.size)
        if not (isinstance(self.gsd, Real) and 0 < self.gsd < math.inf):
            raise SpecError(
                "gsd must be positive",
                found=repr(self.gsd),
                expected="metres per pixel",
                remedy="state it, as in gsd=10.0",
            )

    def __repr__(self) -> str:
        return f"ImageSpec({self})"

    def __str__(self) -> str:
        size = f"{self.size[0]} x {self.size[1]} px" if self.size else "any size"
        return f"{self.sensor}, {' '.join(self.bands)}, {self.unit}, {size} at {self.gsd:g} m"


def spec_key(spec: ImageSpec) -> str:
    """Return every field of a spec, letter by letter: what caches are keyed by.

    Specs that differ in one constant of their normalisation have different keys. The text is the
    one that `repr` returned in version 0.1, so that caches of that version are still found.

    Args:
        spec: Of any kind.
    """
    return _fields(spec)


def _fields(value: ImageSpec | Normalization) -> str:
    parts = (
        f"{name}={_fields(part) if isinstance(part, Normalization) else repr(part)}"
        for name, part in vars(value).items()
    )
    return f"{type(value).__name__}({', '.join(parts)})"
