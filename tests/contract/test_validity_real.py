"""No false alarm on real imagery, whole and in windows, and the faults that are in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from levels import surface

from eofm.contract.imagery import Imagery
from eofm.contract.prepare import as_imagery
from eofm.contract.preprocess import to_grid
from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.contract.validity import check_plausible, check_sentinels, find_doubts
from eofm.errors import PixelError
from eofm.raster.source import RasterSource, find_doubt

L1C = SENSOR_BANDS[Sensor.S2_L1C]
L2A = SENSOR_BANDS[Sensor.S2_L2A]
EUROSAT = (*(band for band in L1C if band != "B8A"), "B8A")
LIFTED = ("S2L1C/609U", "patch_252161", "patch_57755")  # with the offset of baseline 04.00


def sources(root: Path, kind: str) -> list[RasterSource]:
    """All real images of a kind, each with what is known of it."""
    pattern, sensor, bands = {
        "eurosat": ("eurosat_ms/*/*/*.tif", Sensor.S2_L1C, EUROSAT),
        "terramesh-l1c": ("terramesh/S2L1C/*.tif", Sensor.S2_L1C, None),
        "terramesh-l2a": ("terramesh/S2L2A/*.tif", Sensor.S2_L2A, None),
        "terramesh-rtc": ("terramesh/S1RTC/*.tif", Sensor.S1_RTC, None),
        "s2-100k": ("s2_100k/images/*.tif", Sensor.S2_L2A, None),
    }[kind]
    unit = Unit.DB if sensor is Sensor.S1_RTC else Unit.DN
    return [
        RasterSource(
            file.stem,
            (file,),
            sensor,
            Unit.DN_OFFSET1000 if any(name in str(file) for name in LIFTED) else unit,
            bands,
        )
        for file in sorted(root.glob(pattern))
    ]


def patches(root: Path) -> Iterator[RasterSource]:
    """The patches of BigEarthNet, one file per band at 10, 20 and 60 m; radar on one grid."""
    for folder in sorted((root / "bigearthnet_v1" / "BigEarthNet-v1.0").iterdir()):
        files = tuple(folder / f"{folder.name}_{band}.tif" for band in L2A)
        yield RasterSource(folder.name, files, Sensor.S2_L2A, Unit.DN, L2A)
    for folder in sorted((root / "bigearthnet_v1" / "BigEarthNet-S1-v1.0").iterdir()):
        files = tuple(folder / f"{folder.name}_{band}.tif" for band in ("VV", "VH"))
        yield RasterSource(folder.name, files, Sensor.S1_GRD, Unit.DB, ("VV", "VH"))


def whole(source: RasterSource) -> Imagery:
    """One image, of which every pixel was looked at."""
    with source.open() as raster:
        native = raster.read_native()
        assert find_doubt(raster) is None, source.name
    check_sentinels(native, source.name)
    return to_grid(native)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param("eurosat", 270, marks=pytest.mark.slow),
        ("terramesh-l1c", 3),
        ("terramesh-l2a", 3),
        ("terramesh-rtc", 3),
        ("s2-100k", 12),
    ],
)
def test_no_real_image_is_doubted(real_data: Path, kind: str, count: int) -> None:
    """Whole images of every kind at hand are what they are stated to be, and all measured."""
    found = sources(real_data, kind)

    assert count == len(found)
    for source in found:
        imagery = whole(source)
        assert bool(imagery.valid.all()), source.name
        check_plausible(imagery, [source.name])


def test_no_patch_of_bigearthnet_is_doubted(real_data: Path) -> None:
    """At 10, 20 and 60 m, one of them bright with snow or cloud, and their radar."""
    found = list(patches(real_data))

    assert 12 == len(found)
    for source in found:
        check_plausible(whole(source), [source.name])


@pytest.mark.slow
def test_a_batch_of_eurosat_has_the_ratios_of_level_1c(real_data: Path) -> None:
    """From 64 images on the means of bands are compared as well."""
    images = [source.read() for source in sources(real_data, "eurosat")]
    spec = images[0].spec
    batch = Imagery(
        torch.cat([image.pixels for image in images]),
        spec,
        torch.cat([image.valid for image in images]),
    )
    check_plausible(batch)
    with pytest.raises(PixelError, match="B10 is not the darkest"):
        check_plausible(replace(batch, spec=replace(spec, bands=L1C)))


@pytest.mark.parametrize(
    "side", [32, *(pytest.param(side, marks=pytest.mark.slow) for side in (48, 64, 96)), 128]
)
@pytest.mark.parametrize("kind", ["s2-100k", "terramesh-l2a", "terramesh-l1c", "terramesh-rtc"])
def test_no_window_is_doubted(real_data: Path, kind: str, side: int) -> None:
    """Windows of 32 to 128 pixels over snow, cloud, water, forest, crops and towns."""
    for source in sources(real_data, kind):
        image = source.read()
        height, width = image.pixels.shape[2:]
        spec = replace(image.spec, size=(side, side))
        windows = [
            image.pixels[:, :, row : row + side, col : col + side]
            for row in range(0, height - side + 1, side)
            for col in range(0, width - side + 1, side)
        ]
        pixels = torch.cat(windows)
        valid = torch.ones(len(pixels), side, side, dtype=torch.bool)
        assert [] == find_doubts(Imagery(pixels, spec, valid)), source.name


@pytest.mark.slow
def test_a_wrong_statement_of_every_real_image_is_found(real_data: Path) -> None:
    """The other offset, reflectance, and power for dB: no whole image passes as what it is not."""
    for kind in ("eurosat", "terramesh-l1c", "terramesh-l2a", "s2-100k", "terramesh-rtc"):
        for source in sources(real_data, kind)[::7]:
            image = source.read()
            for unit in {
                Unit.DB: [Unit.POWER],
                Unit.DN: [Unit.DN_OFFSET1000, Unit.REFLECTANCE],
                Unit.DN_OFFSET1000: [Unit.DN, Unit.REFLECTANCE],
            }[source.unit]:
                wrong = replace(image, spec=replace(image.spec, unit=unit))
                (doubt,) = find_doubts(wrong)
                assert doubt.instead in {source.unit, None}, source.name
                if unit is not Unit.REFLECTANCE:
                    assert source.unit is doubt.instead


# --------------------------------------------------------------------------------- remedies


def test_declaring_nodata_as_the_remedy_says(tmp_path: Path) -> None:
    """The printed command is run on the file, which then has a mask and no fault."""
    pixels = surface(L2A, (40, 40)).astype("int16")
    pixels[:, :, :10] = -9999
    file = tmp_path / "a.tif"
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 6_000_000)
    with rasterio.open(file, "w", "GTiff", 40, 40, 12, "EPSG:32632", transform, "int16") as dataset:
        dataset.write(pixels)
    source = RasterSource("a", (file,), Sensor.S2_L2A, Unit.DN)
    with pytest.raises(PixelError, match="marks pixels as nodata") as caught:
        check_plausible(source.read(), ["a"])
    with source.open() as raster, pytest.raises(PixelError) as packed:
        check_sentinels(raster.read_native(), "a")
    assert packed.value.remedy == caught.value.remedy

    command = str(caught.value.remedy).partition("as in: ")[2].partition(";")[0]
    assert "rio edit-info --nodata -9999 FILE" == command
    rio = Path(sys.executable).with_name("rio")
    program = str(rio) if rio.exists() else str(shutil.which("rio"))
    words = [program, *command.replace("FILE", str(file)).split()[1:]]
    subprocess.run(words, check=True, capture_output=True)

    image = source.read()
    check_plausible(image)
    assert np.array_equal(image.valid[0].numpy(), (pixels != -9999).all(axis=0))


def test_replacing_nodata_by_nan_as_the_remedy_says() -> None:
    """In an array the value becomes NaN, and is masked."""
    pixels = surface(L2A, (40, 40))
    pixels[:, :, :10] = -9999
    spec = ImageSpec(Sensor.S2_L2A, L2A, Unit.DN, None, 10.0)
    with pytest.raises(PixelError, match="replace it by NaN"):
        check_plausible(as_imagery(pixels, spec))

    image = as_imagery(np.where(pixels == -9999, np.nan, pixels), spec)

    check_plausible(image)
    assert 30 * 40 == int(image.valid.sum())


def test_leaving_out_a_dead_band_as_the_remedy_says() -> None:
    """Without the band that holds no measurement the image passes."""
    pixels = torch.from_numpy(surface(L2A, (40, 40)))[None].float()
    pixels[:, 3] = 0
    spec = ImageSpec(Sensor.S2_L2A, L2A, Unit.DN, (40, 40), 10.0)
    image = Imagery(pixels, spec, torch.ones(1, 40, 40, dtype=torch.bool))
    with pytest.raises(PixelError, match="or leave B04 out of the bands"):
        check_plausible(image)

    rest = [i for i, band in enumerate(L2A) if band != "B04"]
    fewer = replace(spec, bands=tuple(L2A[i] for i in rest))
    check_plausible(replace(image, pixels=pixels[:, rest], spec=fewer))
