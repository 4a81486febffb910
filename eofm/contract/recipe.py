"""The input that a network expects (`Recipe`), and named exceptions to it (`Waiver`).

All weights include a recipe, saved in every checkpoint and export; an untrained network has a
default one. `eofm.contract.preprocess.plan` finds the preprocessing from a data set's `ImageSpec`
to a recipe, or raises; `waivers_for` returns the exceptions that this requires.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any, Final

from eofm.contract.spec import (
    DEFAULT_STATISTICS,
    STATISTICS,
    UNITS,
    ImageSpec,
    Normalization,
    Sensor,
    Stated,
    Unit,
    canonical_band,
    stated_names,
    stated_size,
)
from eofm.errors import MismatchKind, SpecError

__all__ = [
    "CHECKED",
    "FORCEABLE",
    "FORCED_WHY",
    "AcceptPixels",
    "AcceptScale",
    "AcceptSensor",
    "AcceptSize",
    "FillBand",
    "Kernel",
    "Pooling",
    "Recipe",
    "ResizeOrder",
    "ResizeRule",
    "Waiver",
    "default_recipe",
    "waivers_for",
]


class Kernel(Stated):
    """Interpolation kernel, half-pixel centres (`align_corners=False`)."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class ResizeOrder(Stated):
    """Whether pixels are resized before or after normalisation: with clipping they differ."""

    BEFORE_NORMALIZATION = "before-normalization"
    AFTER_NORMALIZATION = "after-normalization"


@dataclass(frozen=True)
class ResizeRule:
    """How images are resized to the recipe's size. The kernel affects the results.

    Args:
        kernel: Interpolation kernel.
        antialias: Widen the kernel when shrinking.
        order: Before or after normalisation.
    """

    kernel: Kernel = Kernel.BILINEAR
    antialias: bool = True
    order: ResizeOrder = ResizeOrder.BEFORE_NORMALIZATION

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", Kernel.parse(self.kernel))
        object.__setattr__(self, "order", ResizeOrder.parse(self.order, "order of resizing"))
        if self.kernel is Kernel.NEAREST and self.antialias:
            raise SpecError(
                "nearest-neighbour resampling cannot be antialiased", remedy="antialias=False"
            )


class Pooling(Stated):
    """How tokens are pooled to one vector."""

    CLS = "cls"
    MEAN = "mean"


@dataclass(frozen=True)
class Recipe:
    """The input that a network expects, saved with its weights in every checkpoint.

    Args:
        sensor: Sensor and product level of the pretraining data.
        bands: Canonical names in input-channel order.
        unit: Unit in which the normalisation constants are stated.
        size: Height and width of the input in pixels.
        normalization: Constants with their source.
        resize: Kernel, antialiasing and order of resizing.
        pooling: How the tokens are pooled to the embedding.

    Raises:
        SpecError: If bands, unit, size or normalization contradict one another.
    """

    sensor: Sensor
    bands: tuple[str, ...]
    unit: Unit
    size: tuple[int, int]
    normalization: Normalization
    resize: ResizeRule = ResizeRule()
    pooling: Pooling = Pooling.CLS

    def __post_init__(self) -> None:
        object.__setattr__(self, "sensor", Sensor.parse(self.sensor))
        object.__setattr__(self, "unit", Unit.parse(self.unit))
        object.__setattr__(self, "bands", stated_names(self.bands))
        object.__setattr__(self, "size", stated_size(self.size))
        object.__setattr__(self, "pooling", Pooling.parse(self.pooling))
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise SpecError("a recipe needs named bands, each once", found=self.bands)
        if self.unit not in UNITS[self.sensor]:
            raise SpecError(
                f"{self.sensor} is never in unit {self.unit}",
                found=self.unit,
                expected=" | ".join(sorted(UNITS[self.sensor])),
            )
        if len(self.normalization.shift) != len(self.bands):
            raise SpecError(
                "the normalization has a different number of bands than the recipe",
                found=len(self.normalization.shift),
                expected=len(self.bands),
            )
        if min(self.size) < 1:
            raise SpecError("size must be positive", found=self.size)

    def __repr__(self) -> str:
        """Return the recipe without its constants; `to_dict` includes them."""
        height, width = self.size
        return (
            f"Recipe({self.sensor}, {' '.join(self.bands)}, {self.unit}, {height} x {width} px, "
            f"{self.pooling}; constants: {self.normalization.source})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON; `from_dict` is the inverse."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read what `to_dict` wrote.

        Raises:
            SpecError: If a key is missing or unknown, or a value has the wrong type.
        """
        expected = {f.name for f in fields(cls)}
        if set(data) != expected:
            raise SpecError(
                "this is not a recipe",
                found=", ".join(sorted(data)),
                expected=", ".join(sorted(expected)),
            )
        try:
            norm, rule = data["normalization"], data["resize"]
            clip = norm["clip"]
            return cls(
                sensor=Sensor(data["sensor"]),
                bands=tuple(data["bands"]),
                unit=Unit(data["unit"]),
                size=(int(data["size"][0]), int(data["size"][1])),
                normalization=Normalization(
                    shift=tuple(norm["shift"]),
                    scale=tuple(norm["scale"]),
                    source=norm["source"],
                    clip=None if clip is None else (float(clip[0]), float(clip[1])),
                    levels=norm["levels"],
                ),
                resize=ResizeRule(
                    Kernel(rule["kernel"]), bool(rule["antialias"]), ResizeOrder(rule["order"])
                ),
                pooling=Pooling(data["pooling"]),
            )
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise SpecError("a field of the recipe cannot be read", found=repr(error)) from error


# ---------------------------------------------------------------------------- waivers


@dataclass(frozen=True)
class FillBand:
    """Use a constant for a band missing from the data. `value` is in normalised units."""

    band: str
    value: float
    why: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "band", canonical_band(self.band))
        if not (isinstance(self.value, Real) and math.isfinite(self.value)):
            raise SpecError(
                "the fill value of a band must be a number",
                found=repr(self.value),
                remedy=f'FillBand("{self.band}", 0.0, "why")',
            )


@dataclass(frozen=True)
class AcceptSensor:
    """Accept imagery of another sensor or product level than the recipe's."""

    sensor: Sensor
    why: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "sensor", Sensor.parse(self.sensor))


@dataclass(frozen=True)
class AcceptSize:
    """Use another input size (height and width in pixels) than the network was trained with."""

    size: tuple[int, int]
    why: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", stated_size(self.size))


@dataclass(frozen=True)
class AcceptScale:
    """Accept another pixel size than the sensor's, or downsampling beyond the limit."""

    why: str


@dataclass(frozen=True)
class AcceptPixels:
    """Accept pixels that contradict their stated spec: see `eofm.contract.validity`.

    A plan does not depend on pixel values, so this waiver may be given even if it is not needed.
    """

    why: str


Waiver = FillBand | AcceptSensor | AcceptSize | AcceptScale | AcceptPixels

# For images of a store or data set, where a single implausible image does not stop the others.
CHECKED = AcceptPixels("checked when they were packed, or as a set before they were scored")


# ----------------------------------------------------------------------------------------- default


def default_recipe(spec: ImageSpec, size: tuple[int, int], pooling: Pooling) -> Recipe:
    """Return a recipe for an untrained network: z-scores with published statistics.

    Args:
        spec: Specification of the images.
        size: Size of the network input.
        pooling: Pooling of the tokens.
    """
    statistics = STATISTICS[DEFAULT_STATISTICS[spec.sensor]].select(spec.bands)
    return Recipe(
        sensor=spec.sensor,
        bands=spec.bands,
        unit=statistics.unit,
        size=size,
        normalization=Normalization.zscore(statistics.mean, statistics.std, statistics.source),
        pooling=pooling,
    )


# Mismatches that `--force` can waive. A wrong unit, size or normalisation cannot be forced,
# because no meaningful result can be computed.
FORCEABLE: Final = (MismatchKind.SENSOR, MismatchKind.BANDS)
FORCED_WHY: Final = "forced on the command line"


def waivers_for(
    spec: ImageSpec,
    recipe: Recipe,
    granted: Sequence[Waiver] = (),
    forced: Sequence[MismatchKind] = (),
) -> tuple[Waiver, ...]:
    """Return those waivers that `plan(spec, recipe)` needs and that are available.

    Another sensor is only accepted if it has bands of the same names: no waiver lets Sentinel-2
    replace radar, or a photograph replace Sentinel-2.

    Args:
        spec: Specification of the images.
        recipe: Recipe of the network.
        granted: Waivers granted by the task.
        forced: Kinds of mismatch waived by the user.
    """
    missing = [band for band in recipe.bands if band not in spec.bands]
    if len(missing) == len(recipe.bands):
        return ()
    needed: list[Waiver] = []
    if spec.sensor is not recipe.sensor:
        forced_sensor = AcceptSensor(spec.sensor, FORCED_WHY)
        offers = [w for w in granted if isinstance(w, AcceptSensor) and w.sensor is spec.sensor]
        needed += offers[:1] or ([forced_sensor] if MismatchKind.SENSOR in forced else [])
    for band in missing:
        fills = [w for w in granted if isinstance(w, FillBand) and w.band == band]
        if not fills and MismatchKind.BANDS in forced:
            fills = [FillBand(band, 0.0, FORCED_WHY)]
        needed += fills[:1]
    return tuple(needed)
