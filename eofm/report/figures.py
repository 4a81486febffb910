"""Pictures of pixels that can be compared: one fixed stretch per sensor, never per image.

This module makes arrays; the rooms above draw them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import convert_unit
from eofm.contract.spec import Sensor, Unit
from eofm.errors import SpecError


@dataclass(frozen=True)
class Composite:
    """Three bands as red, green and blue, each stretched between two fixed values.

    Args:
        bands: Red, green, blue. For SAR the third may be `VV-VH`, the ratio in dB.
        low: Shown as black, in `unit`.
        high: Shown as white, in `unit`.
        unit: Of the bounds.
    """

    bands: tuple[str, str, str]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    unit: Unit

    @property
    def caption(self) -> str:
        """Bands and stretch in one line."""
        if len(set(self.high)) == 1:
            stretch = f"{self.low[0]:g}..{self.high[0]:g}"
        else:
            stretch = ", ".join(f"{a:g}..{b:g}" for a, b in zip(self.low, self.high, strict=True))
        return f"{' '.join(self.bands)}, {stretch} {self.unit}"


_SAR = Composite(("VV", "VH", "VV-VH"), (-22.0, -28.0, 0.0), (0.0, -6.0, 16.0), Unit.DB)

COMPOSITES: Final[Mapping[Sensor, Composite]] = {
    Sensor.S2_L1C: Composite(("B04", "B03", "B02"), (300, 300, 700), (2800, 2300, 2300), Unit.DN),
    Sensor.S2_L2A: Composite(("B04", "B03", "B02"), (0, 0, 0), (2500, 2500, 2500), Unit.DN),
    Sensor.S1_GRD: _SAR,
    Sensor.S1_RTC: _SAR,
    Sensor.RGB: Composite(("R", "G", "B"), (0, 0, 0), (255, 255, 255), Unit.UINT8),
    Sensor.NAIP: Composite(("R", "G", "B"), (0, 0, 0), (255, 255, 255), Unit.UINT8),
}


def composite_of(sensor: Sensor) -> Composite:
    """Return the sensor's composite."""
    return COMPOSITES[sensor]


def to_rgb(
    imagery: Imagery, unit: Unit | None = None, composite: Composite | None = None
) -> Tensor:
    """Return (B, H, W, 3) in [0, 1]; invalid pixels are mid gray.

    Args:
        imagery: In physical units, or normalised: then its normalisation is undone first.
        unit: The physical unit under a normalisation; needed with `unit=model` alone.
        composite: Other colours than the sensor's.

    Raises:
        SpecError: If a band of the composite is missing.
    """
    spec, pixels = imagery.spec, imagery.pixels
    composite = composite or COMPOSITES[spec.sensor]
    if spec.normalization is not None:
        shape = (1, -1, 1, 1)
        scale = pixels.new_tensor(spec.normalization.scale).view(shape)
        pixels = pixels * scale + pixels.new_tensor(spec.normalization.shift).view(shape)
        pixels = convert_unit(pixels, unit or composite.unit, composite.unit)
    else:
        pixels = convert_unit(pixels, spec.unit, composite.unit)
    channels = []
    for band, low, high in zip(composite.bands, composite.low, composite.high, strict=True):
        plane = _plane(pixels, spec.bands, band)
        channels.append(((plane - low) / (high - low)).clamp(0, 1))
    rgb = torch.stack(channels, dim=-1)
    return torch.where(imagery.valid[..., None], rgb, torch.full_like(rgb, 0.5))


def _plane(pixels: Tensor, bands: tuple[str, ...], name: str) -> Tensor:
    parts = name.split("-")
    missing = [part for part in parts if part not in bands]
    if missing:
        raise SpecError(
            "a band of the composite is missing",
            found=", ".join(bands),
            expected=name,
            remedy="figures of a band subset need another composite",
        )
    first = pixels[:, bands.index(parts[0])]
    return first - pixels[:, bands.index(parts[1])] if len(parts) == 2 else first
