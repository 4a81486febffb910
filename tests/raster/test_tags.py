"""When an image was taken.

The georeference from tags alone: what GDAL says, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from eofm.raster.geotiff import acquisition_date, open_geotiffs, read_geo_tags

WHEN = "2021-05-13T07:36:09"


@pytest.mark.parametrize(
    ("tags", "date"),
    [
        ({"datetime": "2021-05-13T07:36:09.024000000"}, WHEN),
        ({"datetime": "2021-05-13T07:36:09Z"}, WHEN),
        ({"datetime": "2021-05-13T09:36:09+02:00"}, WHEN),
        ({"SENSING_TIME": "2021-05-13T07:36:09.024Z; 2021-05-13T07:36:24.1Z"}, WHEN),
        ({"ACQUISITION_DATE": "20210513T073609"}, WHEN),
        ({"ACQUISITION_DATE": "2021-05-13"}, "2021-05-13T00:00:00"),
        ({"first_line_time": "13-MAY-2021 07:36:09.024000"}, WHEN),
        ({"system:time_start": "1620891369024"}, WHEN),
        ({"system:time_start": "1620891369024.0"}, WHEN),
        ({"DATATAKE_1_DATATAKE_SENSING_START": "2021-05-13T07:36:09.024Z"}, WHEN),
        ({"datetime": "yesterday", "SENSING_TIME": "2021-05-13T07:36:09Z"}, WHEN),
        ({"TIFFTAG_DATETIME": "2021:07:03 10:20:30"}, ""),
        ({"PROCESSING_DATE": "2021-07-03", "HLS_PROCESSING_TIME": "2021-07-03T10:20:30Z"}, ""),
        ({"datetime": ""}, ""),
        ({}, ""),
    ],
)
def test_acquisition_date(tags: dict[str, str], date: str) -> None:
    """Acquisition dates of products are read, in UTC; dates of writing and processing are not."""
    assert date == acquisition_date(tags)


# ------------------------------------------------------------------------------------ georeference


WriteTif = Callable[..., Path]
PIXELS = np.arange(24, dtype=np.uint16).reshape(4, 6)


@pytest.mark.parametrize("folder", ["bigearthnet_v1", "eurosat_ms/test/River", "terramesh/S2L1C"])
def test_real_files(real_data: Path, folder: str) -> None:
    """Tags of published files give GDAL's transform to the last digit, and equal keys one CRS."""
    seen = {}
    for file in sorted((real_data / folder).rglob("*.tif"))[:40]:
        tags = read_geo_tags(file)
        with rasterio.open(file) as dataset:
            assert tags is not None
            assert dataset.transform == tags.transform
            assert seen.setdefault(tags.keys, dataset.crs) == dataset.crs


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "+proj=latlong", "EPSG:3035"])
def test_written_files(tmp_path: Path, write_tif: WriteTif, crs: str) -> None:
    """Files of many CRSs read as GDAL reads them."""
    file = write_tif(tmp_path / "a.tif", PIXELS, crs=crs, gsd=(0.25, 0.125), origin=(10.5, 50.25))
    tags = read_geo_tags(file)

    assert tags is not None
    with rasterio.open(file) as dataset:
        assert dataset.transform == tags.transform


def test_unusual_files(tmp_path: Path, write_tif: WriteTif) -> None:
    """BigTIFF, big-endian, rotated, point and bare files are left to GDAL."""
    rotated = write_tif(tmp_path / "rotated.tif", PIXELS)
    with rasterio.open(rotated, "r+") as dataset:
        dataset.transform = rasterio.Affine(10, 2, 500_000, -2, -10, 5_400_000)
    files = [
        rotated,
        write_tif(tmp_path / "big.tif", PIXELS, BIGTIFF="YES"),
        write_tif(tmp_path / "motorola.tif", PIXELS, ENDIANNESS="BIG"),
        write_tif(tmp_path / "point.tif", PIXELS, tags={"AREA_OR_POINT": "Point"}),
        write_tif(tmp_path / "no-crs.tif", PIXELS, crs=None),
        tmp_path / "nowhere.tif",
    ]
    (tmp_path / "text.tif").write_bytes(b"II*\0")
    (tmp_path / "odd.tif").write_bytes(b"II*\0" + b"\xff" * 60)

    for file in [*files, tmp_path / "text.tif", tmp_path / "odd.tif"]:
        assert read_geo_tags(file) is None, file.name


def test_bands_of_one_image(tmp_path: Path, write_tif: WriteTif) -> None:
    """Every band has its own grid and the CRS of the image; one of another CRS keeps its own."""
    files = [
        write_tif(tmp_path / "a.tif", PIXELS),
        write_tif(tmp_path / "b.tif", PIXELS[:2, :3], gsd=20.0),
    ]
    other = write_tif(tmp_path / "c.tif", PIXELS, crs="EPSG:32633")
    for these in (files, [*files, other]):
        opened = open_geotiffs(these)
        for file, (dataset, grid) in zip(these, opened, strict=True):
            with rasterio.open(file) as theirs:
                assert (theirs.crs, theirs.transform, theirs.shape) == (
                    grid.crs,
                    grid.transform,
                    (grid.height, grid.width),
                )
                assert (theirs.read() == dataset.read()).all()
            dataset.close()
