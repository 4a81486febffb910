"""The exceptions of eofm. Catch `EofmError` to catch them all.

    EofmError
    ├── SpecError       a spec, recipe or table that contradicts itself
    ├── SpecMismatch    imagery that does not fit a recipe (`.kind` says in what)
    ├── PixelError      pixels that contradict what was declared about them
    ├── DataError       a file or folder that cannot be read as what it should be
    │   ├── RasterError     a raster: missing, truncated, of another shape
    │   ├── LabelError      a land-cover map or label table
    │   └── StoreError      a packed store: half written, foreign, damaged
    ├── ConfigError     settings that cannot be obeyed
    ├── WeightsError    weights or a card that do not fit the architecture
    └── TrainingError   a run that cannot continue (NaN loss, collapse, too little data)

Every message says what was found, what was expected, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from shlex import quote

__all__ = [
    "ConfigError",
    "DataError",
    "EofmError",
    "LabelError",
    "MismatchKind",
    "PixelError",
    "RasterError",
    "SpecError",
    "SpecMismatch",
    "StoreError",
    "TrainingError",
    "WeightsError",
    "as_argument",
    "require",
]


class EofmError(Exception):
    """Base of all errors raised on purpose by eofm.

    Args:
        problem: What went wrong, in one sentence.
        found: The value or state that was found.
        expected: The value or state that was expected.
        where: File, window, key or card.
        remedy: What the user can do.
    """

    def __init__(
        self,
        problem: str,
        *,
        found: object = None,
        expected: object = None,
        where: object = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.found = found
        self.expected = expected
        self.where = where
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        parts = {
            "found": self.found,
            "expected": self.expected,
            "where": self.where,
            "remedy": self.remedy,
        }
        lines = [f"  {name + ':':9} {value}" for name, value in parts.items() if value is not None]
        return "\n".join([self.problem, *lines])


class SpecError(EofmError):
    """A spec, recipe or table contradicts itself."""


class MismatchKind(StrEnum):
    """Property in which an `ImageSpec` and a `Recipe` differ."""

    SENSOR = "sensor"
    BANDS = "missing-band"
    UNIT = "unit"
    SIZE = "size"
    SCALE = "scale"
    NORMALIZATION = "normalization"
    UNUSED_WAIVER = "unused-waiver"


class SpecMismatch(EofmError):  # noqa: N818 (the name is the sentence users read)
    """Imagery does not fit a recipe; `kind` names the property."""

    def __init__(
        self,
        kind: MismatchKind,
        problem: str,
        *,
        found: object = None,
        expected: object = None,
        where: object = None,
        remedy: str | None = None,
    ) -> None:
        self.kind = kind
        super().__init__(problem, found=found, expected=expected, where=where, remedy=remedy)


class PixelError(EofmError):
    """Pixels contradict what was declared about them.

    Args:
        problem: As for `EofmError`.
        found: The value or state that was found.
        expected: The value or state that was expected.
        where: File, window, key or card.
        remedy: What the user can do.
        images: Indices of the images in their batch, from which a caller can derive their names.
        band: The band concerned, if it is a single one.
    """

    def __init__(
        self,
        problem: str,
        *,
        found: object = None,
        expected: object = None,
        where: object = None,
        remedy: str | None = None,
        images: Sequence[int] = (),
        band: str | None = None,
    ) -> None:
        self.images = tuple(images)
        self.band = band
        super().__init__(problem, found=found, expected=expected, where=where, remedy=remedy)


class DataError(EofmError):
    """A file or folder cannot be read as what it should be."""


class RasterError(DataError):
    """A raster is missing, truncated, or of another shape than its neighbours."""


class LabelError(DataError):
    """A land-cover map or a label table does not match its scheme."""


class StoreError(DataError):
    """A packed store is incomplete, of another kind, or damaged."""


class ConfigError(EofmError):
    """Settings are invalid or contradict each other."""


class WeightsError(EofmError):
    """Weights or their card do not fit the architecture."""


class TrainingError(EofmError):
    """A run cannot continue."""


def as_argument(name: str, value: object) -> str:
    """Return an argument in Python and command-line syntax, for remedies.

    >>> as_argument("unit", "dn")
    'unit="dn" in Python, --unit dn in a command'
    """
    return f'{name}="{value}" in Python, --{name} {quote(str(value))} in a command'


def require(holds: bool, name: str, found: object, expected: str) -> None:
    """Raise a ConfigError that names a setting out of range, unless `holds` is true."""
    if not holds:
        raise ConfigError(f"{name} is out of range", found=found, expected=expected, where=name)
