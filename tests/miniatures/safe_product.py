"""A small Sentinel-2 product in the true layout, one constant per band on a gradient."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import numpy as np

from eofm.contract.spec import BANDS, SENSOR_BANDS, Sensor
from eofm.world.files import Product, write_safe
from eofm.world.places import WorldPlace

PLACE = WorldPlace(9.0, 48.75, 32632, 500_040.0, 5_400_000.0, "T32UNV")
TAKEN = datetime(2022, 3, 1, 10, 30, 21)
SIZE = 48  # pixels of 10 m


def digital_numbers(bands: Iterable[str]) -> dict[str, np.ndarray]:
    """Return band -> digital numbers without offset, at native resolution, never 0."""
    found = {}
    for number, band in enumerate(bands, 1):
        side = SIZE * 10 // int(BANDS[band].gsd)
        ramp = np.add.outer(np.arange(side) * 3, np.arange(side))
        found[band] = (200 * number + ramp).astype(np.uint16)
    return found


def write_product(
    folder: Path,
    sensor: Sensor = Sensor.S2_L1C,
    baseline: str = "05.11",
    pixels: dict[str, np.ndarray] | None = None,
    **masks: np.ndarray,
) -> Path:
    """Write a product and return its folder."""
    pixels = digital_numbers(SENSOR_BANDS[sensor]) if pixels is None else pixels
    return write_safe(folder, Product(sensor, baseline, PLACE, TAKEN), pixels, **masks)


def metadata(product: Path) -> Path:
    """Return the metadata file of a product."""
    (file,) = product.glob("MTD_MSI*.xml")
    return file


def edit(product: Path, change: Callable[[str], str]) -> Path:
    """Change the metadata of a product, which must make a difference."""
    file = metadata(product)
    text = file.read_text(encoding="utf-8")
    assert change(text) != text, "the change finds nothing to change"
    file.write_text(change(text), encoding="utf-8")
    return product


def without(name: str) -> Callable[[str], str]:
    """Return the change that takes all elements of a name out."""
    return lambda text: re.sub(rf"<{name}\b[^>]*>.*?</{name}>", "", text, flags=re.DOTALL)
