"""What was scaled already is refused where it is read, on every way in; as stated it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
from affine import Affine

from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec
from eofm.contract.validity import check_scale
from eofm.errors import PixelError
from eofm.raster.cube import from_xarray
from eofm.raster.opening import read_scene
from eofm.raster.read import read_geotiff


def opened(file: Path) -> xr.DataArray:
    """A file as rioxarray opens it, without coordinates, of which affine warns."""
    found = rioxarray.open_rasterio(file, parse_coordinates=False)
    assert isinstance(found, xr.DataArray)
    return found


WAYS: dict[str, Callable[[Path, str], Imagery]] = {
    "read_geotiff": lambda file, unit: read_geotiff(file, sensor="s2-l2a", unit=unit),
    "read_scene": lambda file, unit: read_scene(file, sensor="s2-l2a", unit=unit),
    "from_xarray": lambda file, unit: from_xarray(opened(file), "s2-l2a", unit),
    "read_scene of an array": lambda file, unit: read_scene(
        opened(file), sensor="s2-l2a", unit=unit
    ),
}


def scene(file: Path, kind: str, high: float) -> Path:
    """Four bands of numbers up to `high`."""
    values = np.random.default_rng(0).uniform(high / 50, high, (4, 32, 32)).astype(kind)
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        height=32,
        width=32,
        count=4,
        dtype=kind,
        crs="EPSG:32632",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as target:
        target.write(values)
        target.descriptions = ("B02", "B03", "B04", "B08")
    return file


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "high", "unit"),
    [
        ("float32", 0.5, "dn"),
        ("float32", 0.5, "dn-offset1000"),
        ("float64", 1.2, "dn"),
        ("uint16", 4_000, "reflectance"),
    ],
)
def test_another_scale_is_refused_where_it_is_read(
    way: str, kind: str, high: float, unit: str, tmp_path: Path
) -> None:
    """It was found out when it was embedded; with the unit that the error names it is read."""
    file = scene(tmp_path / "scene.tif", kind, high)

    with pytest.raises(PixelError, match=f"size that unit {unit} has") as caught:
        WAYS[way](file, unit)

    named = str(caught.value.remedy).split('"')[1]
    assert WAYS[way](file, named).spec.unit == named


@pytest.mark.parametrize("way", WAYS)
def test_the_number_type_is_asked_on_every_way(way: str, tmp_path: Path) -> None:
    """Arrays of 8 bits were taken for digital numbers, files were not."""
    file = scene(tmp_path / "scene.tif", "uint8", 250)

    with pytest.raises(PixelError, match="8-bit"):
        WAYS[way](file, "dn")


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([2.0, 0.0, 1.0, 3.0], "dn"),  # a dark window
        ([31.5, 0.5, 1.0, 3.0], "dn"),  # resampled
        ([0.0, 0.0, 0.0, 0.0], "dn"),
        ([0.0, 1.0, 1.0, 0.0], "reflectance"),  # clipped
        ([0.2, 5.5, 1.0, 0.0], "reflectance"),  # a glint
        ([float("nan"), 700.0, 3.0, 4.0], "dn"),
        ([0.5, 0.2, 0.1, 0.2], "power"),
    ],
)
def test_what_may_be_so_is_read(values: list[float], unit: str) -> None:
    """Fractions among large numbers, and whole numbers that reflectance can be, tell nothing."""
    bands, sensor = (["VV"], "s1-grd") if unit == "power" else (["B02"], "s2-l2a")
    pixels = torch.tensor(values).view(1, 1, 2, 2)
    imagery = Imagery(pixels, ImageSpec(sensor, bands, unit, (2, 2), 10.0), pixels[:, 0].isfinite())

    assert check_scale(imagery) is imagery


def test_invalid_pixels_say_nothing() -> None:
    """What is masked is not looked at, and where all is there is nothing to look at."""
    pixels = torch.tensor([0.5, 700.0]).view(1, 1, 1, 2)
    spec = ImageSpec("s2-l2a", ["B02"], "dn", (1, 2), 10.0)

    for flags in ([False, True], [False, False]):
        imagery = Imagery(pixels, spec, torch.tensor(flags).view(1, 1, 2))
        assert check_scale(imagery) is imagery
