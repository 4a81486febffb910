"""Opening files: other formats, places stated by points, PROJ's tables elsewhere."""

from __future__ import annotations

import gzip
import math
import os
import re
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.rpc import RPC
from rasterio.shutil import copy
from rasterio.warp import transform as warp_points
from remedies import run_python

import eofm
from eofm.contract.imagery import Georeference
from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.errors import RasterError
from eofm.raster.geotiff import (
    open_geotiff,
    open_geotiffs,
    read_stored,
    read_valid,
    without_place,
)
from eofm.raster.grid import Grid, Window

WriteTif = Callable[..., Path]
PIXELS = np.random.default_rng(0).integers(200, 3000, (1, 120, 120)).astype(np.uint16)


def as_jp2(source: Path, target: Path) -> Path:
    """Write a file as JPEG 2000 without loss."""
    copy(source, target, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    return target


def test_jpeg_2000(tmp_path: Path, write_tif: WriteTif) -> None:
    """A .jp2 is read like the .tif it was made of: values, place and band of its name."""
    tif = write_tif(tmp_path / "T32_B02_10m.tif", PIXELS)
    jp2 = as_jp2(tif, tmp_path / "T32_B02_10m.jp2")
    first, second = (eofm.read_geotiff(f, sensor="s2-l2a", unit="dn") for f in (tif, jp2))

    assert first.spec == second.spec
    assert first.pixels.equal(second.pixels)
    assert ("B02",) == second.spec.bands


def test_a_folder_of_jpeg_2000(tmp_path: Path, write_tif: WriteTif) -> None:
    """ESA's folders R10m and R20m are one image; of a band in both, the finer is taken."""
    fine = write_tif(tmp_path / "fine.tif", PIXELS)
    coarse = write_tif(tmp_path / "coarse.tif", PIXELS[:, ::2, ::2], gsd=20.0)
    root = tmp_path / "IMG_DATA"
    for name, bands, source in (
        ("R10m", ("B02", "B03"), fine),
        ("R20m", ("B02", "B05", "SCL"), coarse),
    ):
        (root / name).mkdir(parents=True)
        for band in bands:
            as_jp2(source, root / name / f"T32_2020_{band}_{name[1:]}.jp2")
    image = eofm.read_geotiff(root, sensor="s2-l2a", unit="dn", bands=["B02", "B03", "B05"])

    assert (("B02", "B03", "B05"), (120, 120)) == (image.spec.bands, image.spec.size)
    assert np.array_equal(PIXELS[0].astype(np.float32), image.pixels[0, 0].numpy())


def test_a_damaged_jpeg_2000(tmp_path: Path) -> None:
    """The message does not call it a GeoTIFF."""
    (tmp_path / "a.jp2").write_bytes(b"no image")

    with pytest.raises(RasterError, match="cannot be read as a JPEG 2000 image"):
        eofm.read_geotiff(tmp_path / "a.jp2", sensor="s2-l2a", unit="dn")


def test_what_macos_writes_beside_a_file(tmp_path: Path, write_tif: WriteTif) -> None:
    """`._a.tif` is not a damaged image to be downloaded again: the file to be read is named."""
    write_tif(tmp_path / "x_B02.tif", PIXELS)
    (tmp_path / "._x_B02.tif").write_bytes(b"\0\5\x16\7")
    with pytest.raises(RasterError, match="macOS") as caught:
        eofm.read_geotiff(tmp_path / "._x_B02.tif", sensor="s2-l2a", unit="dn")
    name = str(caught.value.remedy).removeprefix("read ").partition(":")[0]

    assert eofm.read_geotiff(tmp_path / name, sensor="s2-l2a", unit="dn")


@pytest.mark.parametrize("stated", [None, ("B02", "B03", "B04", "B08")])
def test_a_vrt_of_separate_files_has_their_bands(
    stated: tuple[str, ...] | None, tmp_path: Path, write_tif: WriteTif
) -> None:
    """`gdalbuildvrt -separate` describes nothing: the order of the sensor was taken for its own."""
    order = ("B04", "B03", "B02", "B08")
    band = """<VRTRasterBand dataType="UInt16" band="{0}"><SimpleSource><SourceFilename
    relativeToVRT="1">{1}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
    </VRTRasterBand>"""
    parts = []
    for number, name in enumerate(order, 1):
        file = f"T32TQM_20210601T103021_{name}_10m.tif"
        write_tif(tmp_path / file, np.full((8, 8), 100 * number, np.uint16))
        parts.append(band.format(number, file))
    vrt = tmp_path / "stack.vrt"
    vrt.write_text(
        f"""<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32631</SRS>
        <GeoTransform>500000, 10, 0, 5400000, 0, -10</GeoTransform>{"".join(parts)}</VRTDataset>"""
    )
    if stated is not None:
        with pytest.raises(RasterError, match="contradict the stated bands") as caught:
            eofm.read_geotiff(vrt, sensor="s2-l2a", unit="dn", bands=stated)
        assert "B04 B03 B02 B08" == caught.value.found
    image = eofm.read_geotiff(vrt, sensor="s2-l2a", unit="dn")

    assert order == image.spec.bands
    assert [100.0, 200.0, 300.0, 400.0] == image.pixels[0, :, 0, 0].tolist()
    (tmp_path / "T32TQM_20210601T103021_B08_10m.tif").rename(tmp_path / "infrared_2.tif")
    vrt.write_text(vrt.read_text().replace("T32TQM_20210601T103021_B08_10m", "infrared_2"))
    unnamed = eofm.read_geotiff(vrt, sensor="s2-l2a", unit="dn", bands=order)
    assert order == unnamed.spec.bands


def test_the_header_of_an_envi_image_names_its_image(tmp_path: Path) -> None:
    """It was to be copied or downloaded again; the remedy converts the image."""
    profile = {"width": 8, "height": 8, "count": 1, "dtype": "uint16", "crs": "EPSG:32631"}
    place = Affine(10, 0, 500_000, 0, -10, 5_400_000)
    with rasterio.open(tmp_path / "B04.bsq", "w", "ENVI", transform=place, **profile) as dataset:
        dataset.write(np.full((1, 8, 8), 700, np.uint16))
    with pytest.raises(RasterError, match="cannot be read") as caught:
        eofm.read_geotiff(tmp_path / "B04.hdr", sensor="s2-l2a", unit="dn")
    assert "the header of an ENVI image" == caught.value.found
    run_python(caught.value)

    image = eofm.read_geotiff(tmp_path / "B04.tif", sensor="s2-l2a", unit="dn")
    assert 700 == float(image.pixels.max())


def test_vrt(tmp_path: Path, write_tif: WriteTif) -> None:
    """A VRT is read by its own path, with a mask for each band."""
    tif = write_tif(tmp_path / "a_B02.tif", PIXELS)
    vrt = tmp_path / "b_B02.vrt"
    copy(tif, vrt, driver="VRT")
    image = eofm.read_geotiff(vrt, sensor="s2-l2a", unit="dn")

    assert np.array_equal(PIXELS[0].astype(np.float32), image.pixels[0, 0].numpy())


def test_pixel_is_point(tmp_path: Path, write_tif: WriteTif) -> None:
    """Of a file whose coordinates are those of pixel centres, the corner lies half a pixel out."""
    path = write_tif(tmp_path / "a_B02.tif", PIXELS, tags={"AREA_OR_POINT": "Point"})
    plain = write_tif(tmp_path / "b_B02.tif", PIXELS)
    with open_geotiff(path) as dataset, open_geotiff(plain) as other:
        assert other.transform == dataset.transform
    with rasterio.Env(GTIFF_POINT_GEO_IGNORE=True), rasterio.open(path) as ignored:
        assert (ignored.transform.c - other.transform.c, ignored.transform.f) == (
            5.0,
            other.transform.f - 5.0,
        )


@pytest.mark.parametrize("names", [("VH", "VV"), None])
def test_ground_control_points(
    tmp_path: Path, write_tif: WriteTif, monkeypatch: pytest.MonkeyPatch, names
) -> None:
    """Sentinel-1 in radar geometry is refused with the command that brings it to a grid."""
    rng = np.random.default_rng(0)
    pixels = rng.gamma(4, [[[0.005]], [[0.02]]], (2, 60, 90)).astype(np.float32)
    metre = 1 / 111_320
    points = [
        GroundControlPoint(r, c, 10 + (9.8 * c - 2 * r) * 10 * metre / 6.4, 50 - r * 10 * metre)
        for r in (0, 30, 60)
        for c in (0, 45, 90)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        path = write_tif(tmp_path / "a.tif", pixels, crs=None, bare=True, descriptions=names)
        with rasterio.open(path, "r+") as dataset:
            dataset.gcps = (points, CRS.from_epsg(4326))
    with pytest.raises(RasterError, match="ground control points") as caught:
        eofm.read_geotiff(path, sensor="s1-grd", unit="power")
    monkeypatch.chdir(tmp_path)
    run_python(caught.value, warned="ignore")
    out = tmp_path / "OUT.tif"

    image = eofm.read_geotiff(out, sensor="s1-grd", unit="power")
    assert 9 <= image.spec.gsd <= 16
    assert (names or ("VV", "VH")) == image.spec.bands
    with rasterio.open(out) as dataset:
        assert 32632 == dataset.crs.to_epsg()
        assert 10 < dataset.lnglat()[0] < 10.1


@pytest.mark.parametrize(
    ("degrees", "mirrored", "crs"),
    [
        (180, True, "EPSG:32632"),
        (90, False, "EPSG:32632"),
        (270, True, "EPSG:3035"),
        (180, False, "EPSG:4326"),
        (120, False, "EPSG:32632"),
        (90, False, "+proj=laea +lat_0=48 +lon_0=9 +x_0=5e5 +y_0=5e6 +ellps=bessel"),
    ],
)
def test_rows_that_do_not_run_from_west_to_east(
    tmp_path: Path,
    write_tif: WriteTif,
    monkeypatch: pytest.MonkeyPatch,
    degrees: float,
    mirrored: bool,
    crs: str,
) -> None:
    """The command left a mirrored image as it was, cut a turned one, and lost the names of bands.

    Without them the stored order is taken for that of the sensor.
    """
    bands = SENSOR_BANDS[Sensor.S2_L2A][::-1]
    said = [*(f"{band} - reflectance" for band in bands), "QA60"]
    stored = np.random.default_rng(0).integers(300, 900, (13, 20, 30)).astype("uint16")
    west, north, side = {"EPSG:4326": (9, 48, 1e-4), "EPSG:3035": (4.3e6, 2.8e6, 10)}.get(
        crs, (5e5, 5e6, 10)
    )
    cos, sin = (side * f(math.radians(degrees)) for f in (math.cos, math.sin))
    down = -1 if mirrored else 1
    transform = Affine(cos, down * sin, west, sin, -down * cos, north)
    path = write_tif(tmp_path / "a.tif", stored, crs=crs, descriptions=said)
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = transform
    with pytest.raises(RasterError, match="do not run from west to east") as caught:
        eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")
    monkeypatch.chdir(tmp_path)
    run_python(caught.value, warned="ignore")

    found = eofm.read_geotiff(tmp_path / "OUT.tif", sensor="s2-l2a", unit="dn")
    assert bands == found.spec.bands
    assert 9.9 < found.spec.gsd < 11.2
    with rasterio.open(tmp_path / "OUT.tif") as warped:
        rows, columns = np.nonzero(warped.read(1))
        values = warped.read()[:, rows, columns]
        places = zip(*warped.xy(rows, columns), strict=True)
        same = Grid.of(Georeference(crs, tuple(transform)[:6]), 20, 30)
        xs, ys = warp_points(warped.crs, same.crs, *zip(*places, strict=True))
    back = Grid(None, ~transform, 20, 30)
    ends = np.array([back.point(*place) for place in zip(xs, ys, strict=True)])
    column, row = np.clip(np.floor(ends).astype(int).T, 0, [[29], [19]])
    assert len(rows) > 0.95 * 600
    assert (stored[:, row, column] == values).mean() > 0.97
    if degrees != 120 and crs.startswith("EPSG"):
        assert sorted(stored[0].ravel()) == sorted(values[0])


ELSEWHERE = """
import sys, eofm
try: eofm.read_geotiff(sys.argv[1], sensor="s2-l2a", unit="dn")
except eofm.EofmError as error: print(error)
else: print("read")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PROJ_DATA", "PROJ_LIB"])
def test_proj_data_elsewhere(tmp_path: Path, write_tif: WriteTif, name: str) -> None:
    """A variable that another program has set is named, and without it the file is read."""
    path = write_tif(tmp_path / "a_B02.tif", PIXELS)
    command = [sys.executable, "-c", ELSEWHERE, str(path)]
    bare = {k: v for k, v in os.environ.items() if k not in {"PROJ_DATA", "PROJ_LIB"}}
    said = subprocess.run(
        command, env={**bare, name: str(tmp_path)}, capture_output=True, text=True, check=True
    ).stdout

    assert f"{name}={tmp_path}" in said
    assert f"env -u {name}" in said
    helped = subprocess.run(
        ["env", "-u", name, *command],
        env={**bare, name: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "read\n" == helped.stdout


# ------------------------------------------------------------------------------- declared


def test_what_a_file_declares_band_by_band(tmp_path: Path, write_tif: WriteTif) -> None:
    """Nodata, NaN and infinity are flagged in the band that has them, and values stay as stored."""
    pixels = np.full((3, 4, 4), 5.0, np.float32)
    pixels[0, 0, 0], pixels[1, 1, 1], pixels[2, 2, 2] = -9999, np.nan, np.inf
    with open_geotiff(write_tif(tmp_path / "a.tif", pixels, nodata=-9999)) as dataset:
        values, declared = read_stored(dataset, (1, 2, 3), Window(0, 0, 4, 4))
        zeroed, valid = read_valid(dataset, (1, 2, 3), Window(0, 0, 4, 4))

    assert declared is not None
    assert [[0, 0, 0], [1, 1, 1], [2, 2, 2]] == np.argwhere(declared).tolist()
    assert -9999 == values[0, 0, 0]
    assert [[0, 0], [1, 1], [2, 2]] == np.argwhere(~valid).tolist()
    assert 0 == zeroed[0, 0, 0] == zeroed[1, 1, 1]


def test_nothing_declared(tmp_path: Path, write_tif: WriteTif) -> None:
    """A plain file of integers has no flags at all, which costs nothing."""
    with open_geotiff(write_tif(tmp_path / "a.tif", PIXELS)) as dataset:
        values, declared = read_stored(dataset, (1,), Window(10, 20, 30, 40))

    assert declared is None
    assert np.array_equal(PIXELS[:, 10:40, 20:60], values)


def test_masks_of_each_band(tmp_path: Path, write_tif: WriteTif) -> None:
    """A VRT can give every band a mask of its own."""
    write_tif(tmp_path / "a.tif", np.full((2, 4, 4), 5, np.uint16))
    mask = np.full((4, 4), 255, np.uint8)
    mask[1, 2] = 0
    write_tif(tmp_path / "m.tif", mask)
    band = """<VRTRasterBand dataType="UInt16" band="{0}"><SimpleSource><SourceFilename
    relativeToVRT="1">a.tif</SourceFilename><SourceBand>{0}</SourceBand></SimpleSource>{1}
    </VRTRasterBand>"""
    own = """<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename
    relativeToVRT="1">m.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
    </VRTRasterBand></MaskBand>"""
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>500000, 10, 0, 5400000, 0, -10</GeoTransform>"
        + band.format(1, own)
        + band.format(2, "")
        + "</VRTDataset>"
    )
    with open_geotiff(tmp_path / "a.vrt") as dataset:
        assert isinstance(dataset, DatasetReader)
        _, declared = read_stored(dataset, (1, 2), Window(0, 0, 4, 4))

    assert declared is not None
    assert [[0, 1, 2]] == np.argwhere(declared).tolist()


def test_a_bomb_is_refused_unread(tmp_path: Path) -> None:
    """A header of one kilobyte that states 40,000 x 40,000 pixels in 13 bands; windows are read."""
    file = tmp_path / "x.tif"
    with rasterio.open(
        file, "w", driver="GTiff", width=40_000, height=40_000, count=13, dtype="uint16",
        crs="EPSG:32632", transform=Affine(10, 0, 5e5, 0, -10, 5e6), tiled=True,
        blockxsize=4096, blockysize=4096, sparse_ok=True,
    ):  # fmt: skip
        pass
    assert file.stat().st_size < 30_000

    with pytest.raises(RasterError, match="implausibly large") as caught:
        eofm.read_geotiff(file, sensor="s2-l1c", unit="dn")
    assert "38.7 GiB" in str(caught.value.found)
    assert (64, 64) == eofm.read_geotiff(
        file, sensor="s2-l1c", unit="dn", window=(0, 0, 64, 64)
    ).spec.size


def test_files_of_other_kinds_are_told_by_their_first_bytes(tmp_path: Path, write_tif) -> None:
    """What is damaged is to be downloaded again; what is something else is named."""
    (tmp_path / "page.tif").write_bytes(b"<!DOCTYPE html><html>login</html>")
    (tmp_path / "pointer.tif").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x")
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "cube.tif").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "packed.tif").write_bytes(b"PK\3\4 and more")
    (tmp_path / "item.tif").write_bytes(b' {"type": "Feature"}')
    found = {}
    for file in sorted(tmp_path.glob("*.tif")):
        with pytest.raises(RasterError, match="cannot be read as a GeoTIFF") as refused:
            eofm.read_geotiff(file, sensor="s2-l2a", unit="dn")
        found[file.stem] = (refused.value.found, str(refused.value.remedy))

    assert "a web page" == found["page"][0]
    assert "git lfs pull" in found["pointer"][1]
    assert "an empty file" == found["empty"][0]
    assert "read_scene" in found["cube"][1]
    assert "a zip archive" == found["packed"][0]
    assert "JSON" == found["item"][0]


def test_another_format_of_gdal_is_converted_by_the_remedy(tmp_path: Path, write_tif) -> None:
    """An ENVI file is named as one; the command that is printed makes what can be read."""
    source = write_tif(tmp_path / "x B04.tif", PIXELS)
    copy(source, tmp_path / "y B04.img", driver="ENVI")
    with pytest.raises(RasterError, match="cannot be read as a GeoTIFF") as refused:
        eofm.read_geotiff(tmp_path / "y B04.img", sensor="s2-l2a", unit="dn")

    assert "a raster in the format ENVI" == refused.value.found
    run_python(refused.value)
    image = eofm.read_geotiff(tmp_path / "y B04.tif", sensor="s2-l2a", unit="dn", bands=["B04"])
    assert np.array_equal(PIXELS[0], image.pixels[0, 0].numpy())


def test_another_format_keeps_its_band_names(tmp_path: Path, write_tif: WriteTif) -> None:
    """`rio convert` lost them, and what was offered next were bands that are usual."""
    pixels = np.stack([PIXELS[0], PIXELS[0] + 1])
    source = write_tif(tmp_path / "x.tif", pixels, descriptions=["B11", "B8A"])
    copy(source, tmp_path / "y.img", driver="ENVI")
    with pytest.raises(RasterError, match="cannot be read") as refused:
        eofm.read_geotiff(tmp_path / "y.img", sensor="s2-l2a", unit="dn")
    run_python(refused.value)

    image = eofm.read_geotiff(tmp_path / "y.tif", sensor="s2-l2a", unit="dn")
    assert ("B11", "B8A") == image.spec.bands


@pytest.mark.parametrize(
    ("name", "text", "found", "words"),
    [
        ("a.dim", '<?xml version="1.0"?><Dimap_Document name="a">', "BEAM-DIMAP", "GeoTIFF"),
        ("a.gti", "<GDALTileIndexDataset>", "tile index", "rasters that it lists"),
        ("manifest.safe", "<xfdu:XFDU><id>sentinel-1</id>", "Sentinel-1 product", "calibrate"),
        ("a.xml", '<?xml version="1.0"?><a/>', "holds no pixels", "name the raster"),
        ("a.html", "<?xml version='1.0'?><!DOCTYPE html><html>", "a web page", "login"),
    ],
)
def test_xml_is_no_web_page(tmp_path: Path, name: str, text: str, found: str, words: str) -> None:
    """A product's metadata were called a page that asks for a login."""
    (tmp_path / name).write_text(text)
    with pytest.raises(RasterError, match="cannot be read") as refused:
        eofm.read_geotiff(tmp_path / name, sensor="s2-l2a", unit="dn")

    assert found in str(refused.value.found)
    assert words in str(refused.value.remedy)


def test_a_file_address_is_a_path(tmp_path: Path, write_tif: WriteTif) -> None:
    """`file://` is no address elsewhere; GDAL's own paths are, and what reads them is named."""
    path = write_tif(tmp_path / "x_B04.tif", PIXELS)

    assert eofm.read_geotiff(f"file://{path}", sensor="s2-l2a", unit="dn").grid is not None
    with pytest.raises(RasterError, match="local files only"):
        eofm.read_geotiff(f"/vsizip/{tmp_path}/a.zip/x.tif", sensor="s2-l2a", unit="dn")


def test_a_model_of_the_camera_is_no_grid(tmp_path: Path) -> None:
    """Rational polynomials are named, and the remedy brings the image to where they say."""
    path, out = tmp_path / "a.tif", tmp_path / "OUT.tif"
    line, sample, one = ([0.0] * 20 for _ in range(3))
    line[2], sample[1], one[0] = -1.0, 1.0, 1.0
    model = RPC(
        height_off=0, height_scale=500, lat_off=48, lat_scale=0.01, long_off=10, long_scale=0.01,
        line_off=32, line_scale=32, samp_off=32, samp_scale=32, line_num_coeff=line,
        line_den_coeff=one, samp_num_coeff=sample, samp_den_coeff=one,
    )  # fmt: skip
    with (
        warnings.catch_warnings(),
        rasterio.open(
            path, "w", driver="GTiff", height=64, width=64, count=2, dtype="uint16", rpcs=model
        ) as target,
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        target.write(np.full((2, 64, 64), 500, np.uint16))
        target.descriptions = ("B04", "B08")
    with pytest.raises(RasterError, match="rational polynomial") as caught:
        eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")
    command = str(caught.value.remedy).partition("on the ellipsoid: ")[2]
    subprocess.run(
        command.replace("python", sys.executable, 1).replace("OUT.tif", str(out)),
        shell=True,
        check=True,
    )

    image = eofm.read_geotiff(out, sensor="s2-l2a", unit="dn")
    with rasterio.open(out) as dataset:
        np.testing.assert_allclose((10, 48), dataset.lnglat(), atol=1e-3)
    assert ("B04", "B08") == image.spec.bands
    assert image.valid.any()


@pytest.mark.parametrize("kind", ["complex_int16", "complex64"])
def test_complex_numbers_are_no_pixels(kind: str, tmp_path: Path) -> None:
    """Numpy has no complex integers, which are the type of Sentinel-1 SLC."""
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=8,
        width=8,
        count=1,
        dtype=kind,
        crs="EPSG:32632",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as target:
        target.write(np.full((1, 8, 8), 3 + 4j, np.complex64))
    for read in (eofm.read_geotiff, eofm.read_scene):
        with pytest.raises(RasterError, match="must be real numbers") as caught:
            read(path, sensor="s1-grd", unit="power", bands=["VV"])
        assert "calibrate the product first" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("driver", "right", "wrong"),
    [
        ("GTiff", ".tif", ".jp2"),
        ("GTiff", ".tif", ".png"),
        ("PNG", ".png", ".tif"),
        ("JPEG", ".jpg", ".tif"),
        ("JP2OpenJPEG", ".jp2", ".tif"),
    ],
)
def test_a_file_of_another_suffix_is_named_as_what_it_is(
    tmp_path: Path, write_tif: WriteTif, driver: str, right: str, wrong: str
) -> None:
    """A GeoTIFF called .jp2 was to be downloaded again, a PNG called .tif copied to itself."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 32, 32)).astype(np.uint8)
    source = write_tif(tmp_path / "source.tif", pixels, photometric="RGB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        copy(source, tmp_path / f"made{right}", driver=driver)
    path = (tmp_path / f"made{right}").rename(tmp_path / f"a b{wrong}")
    stated = {"sensor": "rgb", "unit": "uint8"}
    with pytest.raises(RasterError, match="cannot be read as a") as caught:
        eofm.read_scene(path, gsd=10, **stated)
    assert f"a raster in the format {driver}" == caught.value.found
    command = str(caught.value.remedy).partition(": ")[2]
    subprocess.run(command, shell=True, check=True)

    assert (3, 32, 32) == eofm.read_scene(path.with_suffix(right), gsd=10, **stated).pixels[0].shape


@pytest.mark.parametrize("name", ["a.tif.gz", "a.tif"])
def test_a_packed_raster_is_read_as_the_remedy_says(
    tmp_path: Path, write_tif: WriteTif, name: str
) -> None:
    """It was to be downloaded again."""
    source = write_tif(tmp_path / "x.tif", np.full((2, 8, 8), 700, np.uint16))
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_bytes(gzip.compress(source.read_bytes()))
    stated = {"sensor": "s2-l2a", "unit": "dn"}
    with pytest.raises(RasterError, match="cannot be read") as caught:
        eofm.read_geotiff(path, **stated)
    named = re.search(r"eofm.read_scene\('([^']+)'", str(caught.value.remedy))

    assert "gzip" == caught.value.found
    assert named
    assert 700 == float(eofm.read_scene(named[1], bands=["B02", "B03"], **stated).pixels.mean())


@pytest.mark.parametrize("head", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a", b"BZh9", b"\xfd7zXZ\0"])
def test_an_archive_is_one(tmp_path: Path, head: bytes) -> None:
    """And to be unpacked."""
    (tmp_path / "a.tif").write_bytes(head + bytes(100))
    with pytest.raises(RasterError, match="cannot be read") as caught:
        eofm.read_geotiff(tmp_path / "a.tif", sensor="s2-l2a", unit="dn")

    assert ("an archive", "unpack it") == (caught.value.found, caught.value.remedy)


def test_a_tape_archive_is_one(tmp_path: Path) -> None:
    """It begins with the name of a file; the remedy was to download it again."""
    (tmp_path / "B02.tif").write_bytes(b"pixels")
    with tarfile.open(tmp_path / "product.tar", "w") as packed:
        packed.add(tmp_path / "B02.tif", "product/B02.tif")
    with pytest.raises(RasterError, match="cannot be read") as caught:
        eofm.read_geotiff(tmp_path / "product.tar", sensor="s2-l2a", unit="dn")

    assert ("an archive", "unpack it") == (caught.value.found, caught.value.remedy)


def test_the_metadata_of_a_tile_name_their_product(tmp_path: Path) -> None:
    """The remedy for `MTD_TL.xml` was the raster that it describes: there are thirteen."""
    path = tmp_path / "MTD_TL.xml"
    space = "https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd"
    path.write_text(f'<?xml version="1.0"?>\n<n1:Level-2A_Tile_ID xmlns:n1="{space}"/>')
    with pytest.raises(RasterError, match="cannot be read") as caught:
        eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")

    assert "a tile of a Sentinel-2 product" in str(caught.value.found)
    assert "name its .SAFE folder" == caught.value.remedy


@pytest.mark.parametrize("name", ["a.tif", "a.nc"])
def test_an_array_that_is_called_a_raster_is_read_as_the_remedy_says(
    tmp_path: Path, name: str
) -> None:
    """The remedy for a netCDF called .tif was the call that had failed."""
    bands = {b: (("y", "x"), np.full((8, 8), 700, np.int16)) for b in ("B02", "B03")}
    xr.Dataset(bands).to_netcdf(tmp_path / "made.nc")
    path = (tmp_path / "made.nc").rename(tmp_path / name)
    with pytest.raises(RasterError, match="cannot be read as a GeoTIFF") as caught:
        eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")
    remedy = str(caught.value.remedy)
    moved = re.search(r"mv (\S+ \S+), and", remedy)
    assert (name == "a.tif") == bool(moved)
    if moved:
        subprocess.run(["mv", *moved[1].split()], check=True)
    named = re.search(r"eofm.read_scene\('([^']+)'", remedy)

    assert named
    read = eofm.read_scene(named[1], sensor="s2-l2a", unit="dn", gsd=10)
    assert 700 == float(read.pixels.mean())


def test_an_empty_netcdf_is_one(tmp_path: Path) -> None:
    """It was said that xarray lacks what reads netCDF."""
    (tmp_path / "a.nc").touch()
    with pytest.raises(RasterError, match="the file is empty"):
        eofm.open_scene(tmp_path / "a.nc", sensor="s2-l2a", unit="dn")


def test_bands_of_several_zones_in_turn(tmp_path: Path) -> None:
    """A CRS that is remembered by its bytes is that of the file, whatever was read before."""
    sets = {}
    for code in (32632, 32633, 3035, 32632):
        folder = tmp_path / str(code)
        folder.mkdir(exist_ok=True)
        sets[code] = [folder / f"{band}.tif" for band in ("B02", "B03")]
        for file in sets[code]:
            with rasterio.open(
                file,
                "w",
                driver="GTiff",
                width=8,
                height=8,
                count=1,
                dtype="uint16",
                crs=f"EPSG:{code}",
                transform=Affine(10, 0, 400_000 + code, 0, -10, 5_000_000),
            ) as out:
                out.write(PIXELS[:, :8, :8])
    for files in [*sets.values(), *sets.values()]:
        for file, (dataset, grid) in zip(files, open_geotiffs(files), strict=True):
            with dataset, rasterio.open(file) as plain:
                assert grid.crs == plain.crs
                assert grid.transform == plain.transform
                assert np.array_equal(dataset.read(), plain.read())


def test_no_thread_ends_the_silence_of_another(tmp_path: Path) -> None:
    """Of two threads that opened files, the first to finish let the other warn at the terminal."""
    path = tmp_path / "a.tif"
    with without_place():
        profile = {"driver": "GTiff", "count": 1, "height": 2, "width": 2, "dtype": "uint8"}
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.ones((1, 2, 2), np.uint8))
    before = list(warnings.filters)
    first, second = without_place(), without_place()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    rasterio.open(path).close()  # warnings are errors here
    second.__exit__(None, None, None)

    assert before == list(warnings.filters)
    with pytest.warns(NotGeoreferencedWarning):
        rasterio.open(path).close()
