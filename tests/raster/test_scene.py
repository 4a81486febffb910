"""Scenes of rasters: pixels are those of rasterio, places are those of plain numbers."""

from __future__ import annotations

import http.server
import json
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from pyproj import Transformer

import eofm
from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.grid import Window

L2A = {"sensor": "s2-l2a", "unit": "dn"}
GRIDS = {
    "utm": ("EPSG:32632", Affine(10, 0, 5e5, 0, -10, 5.4e6)),
    "degrees": ("EPSG:4326", Affine(1e-4, 0, 9.0, 0, -1e-4, 48.75)),
    "south-up": ("EPSG:32632", Affine(10, 0, 5e5, 0, 10, 5.4e6)),
    "rotated": ("EPSG:32632", Affine(8, 6, 5e5, 6, -8, 5.4e6)),
}


def write(path: Path, pixels: np.ndarray, crs: str, transform: Affine, **profile: object) -> Path:
    """Write (c, h, w) pixels on any grid."""
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as dataset:
        dataset.write(pixels)
    return path


def brightest(image: eofm.Imagery) -> tuple[float, float]:
    """Return the coordinates of the centre of the brightest pixel, by the image's own grid."""
    flat = int(image.pixels[0, 0].argmax())
    row, col = divmod(flat, image.pixels.shape[3])
    return image.grid.point(col + 0.5, row + 0.5)


@pytest.mark.parametrize("kind", GRIDS)
def test_a_bright_pixel_lies_where_it_lies(tmp_path: Path, kind: str) -> None:
    """Whole, by window, and by area, the bright pixel keeps its coordinates: plain algebra."""
    crs, t = GRIDS[kind]
    pixels = np.full((1, 40, 60), 900, np.uint16)
    pixels[0, 23, 31] = 5000
    path = write(tmp_path / "a.tif", pixels, crs, t)
    x, y = t.a * 31.5 + t.b * 23.5 + t.c, t.d * 31.5 + t.e * 23.5 + t.f
    scene = eofm.open_scene(path, bands=["B04"], **L2A)
    reach = abs(t.a) * 3
    whole = scene.read()
    window = scene.read((20, 30, 10, 5))
    area = scene.read(where=(x - reach, y - reach, x + reach, y + reach), where_crs=crs)

    assert (t.a, t.b, t.c, t.d, t.e, t.f) == whole.grid.transform
    assert crs == whole.grid.crs == window.grid.crs == area.grid.crs
    for image in (whole, window, area):
        assert 5000 == image.pixels.max()
        assert (x, y) == pytest.approx(brightest(image), rel=1e-12)
    assert area.pixels.shape[2] < 12
    plain = eofm.read_geotiff(path, bands=["B04"], window=(20, 30, 10, 5), **L2A)
    assert window.grid == plain.grid


@pytest.mark.parametrize("kind", ["utm", "south-up", "rotated"])
def test_a_polygon_in_degrees_hides_what_lies_outside(tmp_path: Path, kind: str) -> None:
    """GeoJSON in longitude and latitude, as GIS programs write it, over an image in metres."""
    crs, t = GRIDS[kind]
    path = write(tmp_path / "a.tif", np.full((1, 40, 60), 900, np.uint16), crs, t)
    scene = eofm.open_scene(path, bands=["B04"], **L2A)
    there = Transformer.from_crs(4326, 32632, always_xy=True)
    ring = [scene.grid.point(*corner) for corner in ((10, 5), (40, 8), (20, 30), (10, 5))]
    degrees = [there.transform(*point, direction="INVERSE") for point in ring]
    image = scene.read(where={"type": "Polygon", "coordinates": [degrees]})

    area = 0.5 * abs(30 * 25 - 10 * 3)  # of the triangle, in pixels
    assert area - 15 < int(image.valid.sum()) < area + 15
    assert 0.3 < image.valid.float().mean() < 0.7


def test_pixels_are_those_of_rasterio(real_data: Path) -> None:
    """TerraMesh and S2-100K, whole and by window, band by band, byte by byte; so is the grid."""
    files = [
        (real_data / "terramesh/S2L1C/637U_59R_1_3.tif", "s2-l1c", "dn"),
        (real_data / "terramesh/S1RTC/637U_59R_1_3.tif", "s1-rtc", "db"),
        *[(f, "s2-l2a", "dn") for f in sorted((real_data / "s2_100k/images").glob("*.tif"))[:3]],
    ]
    for path, sensor, unit in files:
        scene = eofm.open_scene(path, sensor=sensor, unit=unit)
        whole, part = scene.read(), scene.read((17, 30, 64, 48))
        with rasterio.open(path) as dataset:
            expected = dataset.read().astype(np.float32)
            t = dataset.transform
        shown = np.where(np.isfinite(expected), expected, 0)
        assert np.array_equal(shown, whole.pixels[0].numpy())
        assert np.array_equal(shown[:, 17:81, 30:78], part.pixels[0].numpy())
        assert (t.a, t.b, t.c, t.d, t.e, t.f) == whole.grid.transform
        corner = (t.c + 30 * t.a, t.f + 17 * t.e)
        assert corner == pytest.approx(part.grid.point(0, 0), rel=1e-14)


def test_a_folder_of_bands_is_a_scene(real_data: Path) -> None:
    """BigEarthNet, 12 bands at three resolutions: the pixels of `read_geotiff`, and its windows."""
    folder = next((real_data / "bigearthnet_v1/BigEarthNet-v1.0").iterdir())
    scene = eofm.open_scene(folder, **L2A)
    plain = eofm.read_geotiff(folder, **L2A)

    assert 6 == scene.step
    assert torch.equal(plain.pixels, scene.read().pixels)
    assert plain.grid == scene.read().grid
    assert plain.grid.at(60, 6) == scene.read((60, 6, 6, 12)).grid
    with pytest.raises(RasterError, match="aligned to the pixels of the coarsest band"):
        scene.read((61, 6, 6, 12))
    assert (1, 1, 59, 60) == tuple(scene.read((61, 7, 59, 60), bands=["B03"]).pixels.shape)


def test_bands_are_chosen(tmp_path: Path, write_tif, write_bands) -> None:
    """Of one file and of several: in the order asked for, on the grid of the finest of them."""
    pixels = np.stack([np.full((12, 12), 100 * k, np.uint16) for k in (1, 2, 3)])
    one = eofm.open_scene(write_tif(tmp_path / "a.tif", pixels), bands=["B02", "B03", "B04"], **L2A)
    read = one.read((0, 0, 3, 3), bands=["B04", "B02"])
    folder = write_bands(tmp_path / "x", {"B02": 12, "B05": 6, "B01": 2})
    several = eofm.open_scene(folder, bands=["B01", "B05", "B02"], **L2A)

    assert (("B04", "B02"), [300.0, 100.0]) == (read.spec.bands, read.pixels[0, :, 1, 1].tolist())
    assert (("B01", "B05", "B02"), 6) == (several.bands, several.step)
    assert (20.0, 3, (6, 6)) == (
        several.select(["B05", "B01"]).gsd,
        several.select(["B05", "B01"]).step,
        several.read(bands=["B05", "B01"]).spec.size,
    )
    with pytest.raises(SpecError, match="no band B08"):
        one.read(bands=["B08"])
    with pytest.raises(SpecError, match="there is no band"):
        one.read(bands=["B99"])


def test_a_scene_is_read_by_windows_without_opening_it_anew(tmp_path: Path, write_tif) -> None:
    """Windows of an open scene put together are the scene; it is closed at the end."""
    pixels = np.arange(24 * 36, dtype=np.uint16).reshape(1, 24, 36) + 1
    scene = eofm.open_scene(write_tif(tmp_path / "a.tif", pixels), bands=["B04"], **L2A)
    whole = np.zeros((24, 36), np.float32)
    with scene.open() as opened:
        for row in range(0, 24, 8):
            for col in range(0, 36, 12):
                window = Window(row, col, 8, 12)
                whole[window.slices] = opened.read(window).pixels[0, 0].numpy()

    assert np.array_equal(pixels[0], whole)
    assert scene == pickle.loads(pickle.dumps(scene))


def test_window_and_area_exclude_each_other(tmp_path: Path, write_tif) -> None:
    """One of them is meant."""
    scene = eofm.open_scene(
        write_tif(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint16)), bands=["B04"], **L2A
    )
    with pytest.raises(SpecError, match="a window or an area, not both"):
        scene.read((0, 0, 4, 4), where=(9.0, 48.0, 9.1, 48.8))
    with pytest.raises(RasterError, match="not inside"):
        scene.read((0, 0, 4, 9))


def test_jpeg_2000_and_vrt_are_rasters(tmp_path: Path, write_tif) -> None:
    """Lossless JPEG 2000 and a virtual raster give the pixels they were made of."""
    pixels = np.random.default_rng(0).integers(1, 9000, (3, 32, 40)).astype(np.uint16)
    tif = write_tif(tmp_path / "a.tif", pixels)
    crs, t = GRIDS["utm"]
    jp2 = tmp_path / "a.jp2"
    with rasterio.open(
        jp2,
        "w",
        driver="JP2OpenJPEG",
        count=3,
        height=32,
        width=40,
        dtype="uint16",
        crs=crs,
        transform=t,
        QUALITY="100",
        REVERSIBLE="YES",
    ) as dataset:
        dataset.write(pixels)
    vrt = tmp_path / "a.vrt"
    sources = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{k}"><SimpleSource><SourceFilename '
        f'relativeToVRT="1">a.tif</SourceFilename><SourceBand>{k}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for k in (1, 2, 3)
    )
    vrt.write_text(
        '<VRTDataset rasterXSize="40" rasterYSize="32"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>{', '.join(map(str, t.to_gdal()))}</GeoTransform>{sources}</VRTDataset>"
    )
    for path in (tif, jp2, vrt):
        image = eofm.read_scene(path, bands=["B04", "B03", "B02"], **L2A)
        assert np.array_equal(pixels, image.pixels[0].numpy())
        assert tuple(t)[:6] == image.grid.transform


# --------------------------------------------------------------------------- addresses


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, as object stores do."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Send a part of a file."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, asked = path.read_bytes(), self.headers.get("Range")
        first, last = 0, len(data) - 1
        if asked:
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first : last + 1])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve `tmp_path` on this machine, and return its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def handler(*arguments: object, **keywords: object) -> _Ranges:
        return _Ranges(*arguments, directory=str(tmp_path), **keywords)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_an_address_is_read_like_a_file(tmp_path: Path, write_tif, server: str) -> None:
    """A tiled GeoTIFF behind http, whole and by window, and no key is said."""
    pixels = np.random.default_rng(0).integers(1, 9000, (2, 300, 300)).astype(np.uint16)
    path = write_tif(
        tmp_path / "a.tif",
        pixels,
        tiled=True,
        blockxsize=128,
        blockysize=128,
        descriptions=["B04", "B08"],
    )
    plain = eofm.read_scene(path, **L2A)
    for address in (f"{server}/a.tif", f"/vsicurl/{server}/a.tif", f"{server}/a.tif?sig=SECRET"):
        scene = eofm.open_scene(address, **L2A)
        assert ("a", ("B04", "B08")) == (scene.name, scene.bands)
        assert torch.equal(plain.pixels, scene.read().pixels)
        assert np.array_equal(pixels[:, 40:90, 200:300], scene.read((40, 200, 50, 100)).pixels[0])
        assert plain.grid == scene.read().grid
        assert "SECRET" not in scene.describe() + repr(scene)


def test_an_address_that_does_not_answer_is_said_quickly(tmp_path: Path, server: str) -> None:
    """No such file, no such server, no raster: one error that names the address and no key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/a.tif?sig=SECRET"
    (tmp_path / "text.tif").write_text("no raster")
    inside = f"/vsizip//vsicurl/{server}/missing.zip/a.tif", f"GTIFF_DIR:1:/vsicurl/{closed}"
    for address in (f"{server}/missing.tif", closed, f"{server}/text.tif", *inside):
        with pytest.raises(RasterError, match="URL cannot be read") as refused:
            eofm.open_scene(address, **L2A)
        assert address.partition("?")[0] in str(refused.value.where)
        assert "SECRET" not in str(refused.value)


def test_an_address_of_a_mask_is_one_whatever_the_bands_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_tif
) -> None:
    """Beside bands on this machine a mask that no server sends was called a damaged GeoTIFF."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/scl.tif"
    write_tif(tmp_path / "red.tif", np.full((1, 8, 8), 900, np.uint16))
    hrefs = {"red": "red.tif", "scl": f"{closed}?sig=SECRET"}
    assets = {key: {"href": href} for key, href in hrefs.items()}
    item = {"type": "Feature", "id": "a", "properties": {}, "assets": assets}
    (tmp_path / "item.json").write_text(json.dumps(item), encoding="utf-8")
    scene = eofm.open_scene(tmp_path / "item.json", **L2A)

    assert (1, 1, 8, 8) == scene.read().pixels.shape
    with pytest.raises(RasterError, match="the URL cannot be read") as refused:
        scene.read(cloud_mask="SCL")
    assert closed in str(refused.value.where)
    assert "SECRET" not in str(refused.value)


def test_a_local_file_beside_addresses_is_no_address(
    tmp_path: Path, write_tif, server: str
) -> None:
    """A damaged mask on this machine is one, also where the bands come from a server."""
    write_tif(tmp_path / "red.tif", np.full((1, 8, 8), 900, np.uint16))
    (tmp_path / "scl.tif").write_text("no raster")
    assets = {"red": {"href": f"{server}/red.tif"}, "scl": {"href": "scl.tif"}}
    item = {"type": "Feature", "id": "a", "properties": {}, "assets": assets}
    (tmp_path / "item.json").write_text(json.dumps(item), encoding="utf-8")

    with pytest.raises(RasterError, match="cannot be read as a GeoTIFF"):
        eofm.open_scene(tmp_path / "item.json", **L2A).read(cloud_mask="SCL")


def test_a_cloud_mask_that_is_not_there_is_said_without_its_key(
    tmp_path: Path, write_tif, server: str
) -> None:
    """The mask of an item is an address as its bands are, and carries a key as they do."""
    write_tif(tmp_path / "red.tif", np.full((1, 8, 8), 900, np.uint16))
    hrefs = {key: f"{server}/{key}.tif?sig=SECRET" for key in ("red", "scl")}
    item = {"type": "Feature", "id": "a", "properties": {}}
    assets = {key: {"href": href} for key, href in hrefs.items()}
    (tmp_path / "item.json").write_text(json.dumps({**item, "assets": assets}), encoding="utf-8")
    scene = eofm.open_scene(tmp_path / "item.json", **L2A)

    assert (1, 1, 8, 8) == scene.read().pixels.shape
    with pytest.raises(RasterError, match="URL cannot be read") as refused:
        scene.read(cloud_mask="SCL")
    assert f"{server}/scl.tif" in str(refused.value.where)
    assert "SECRET" not in str(refused.value)


def test_addresses_that_nothing_opens() -> None:
    """A scheme that GDAL has no way for is said before anything is tried."""
    with pytest.raises(RasterError, match="URLs of this kind"):
        eofm.open_scene("gopher://example.org/a.tif", **L2A)


def test_object_stores_are_gdals(tmp_path: Path) -> None:
    """`s3://`, `gs://` and `file://` become what GDAL and the system call them."""
    from eofm.raster.geotiff import gdal_name, local_path

    assert "/vsis3/bucket/a%20b.tif" == gdal_name("s3://bucket/a%20b.tif")
    assert "/vsigs/bucket/a.tif" == gdal_name("gs://bucket/a.tif")
    assert "/vsicurl/https://h/a.tif?x=1" == gdal_name("https://h/a.tif?x=1")
    assert "" == gdal_name("file:///a/b%20c.tif") == gdal_name("a/b.tif")
    assert Path("/a/b c.tif") == local_path("file:///a/b%20c.tif")
    assert tmp_path / "b.tif" == local_path("b.tif", tmp_path)
    assert Path("/b.tif") == local_path("/b.tif", tmp_path)


def test_repr_of_every_sensor_fits_a_line(tmp_path: Path, write_tif) -> None:
    """A scene says what it is, and where it is read from only on demand."""
    pixels = np.ones((13, 8, 8), np.uint16)
    scene = eofm.open_scene(write_tif(tmp_path / "a.tif", pixels), sensor="s2-l1c", unit="dn")

    assert SENSOR_BANDS[Sensor.S2_L1C] == scene.bands
    assert Unit.DN is scene.unit
    assert "RasterSource" not in repr(scene)
    assert "8 x 8 px at 10 m" in scene.describe()


def test_a_cloud_band_of_the_file_itself(tmp_path: Path, write_tif) -> None:
    """QA60 beside the bands is left out, and hides clouds where it is asked for."""
    pixels = np.full((3, 8, 8), 1500, np.uint16)
    pixels[2] = 0
    pixels[2, 2, 3] = 1 << 10
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B4", "B3", "QA60"])
    scene = eofm.open_scene(path, **L2A)

    assert ("B04", "B03") == scene.bands
    assert scene.read().valid.all()
    assert [[0, 2, 3]] == torch.nonzero(~scene.read(cloud_mask="QA60").valid).tolist()
    with pytest.raises(RasterError, match="no cloud mask SCL"):
        scene.read(cloud_mask="SCL")


def test_tags_state_the_unit_of_a_scene(tmp_path: Path, write_tif) -> None:
    """Where scale and offset of the file name the unit, it needs no statement."""
    path = write_tif(tmp_path / "a.tif", np.full((1, 8, 8), 1500, np.uint16), descriptions=["B4"])
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4,), (-0.1,)
    scene = eofm.open_scene(path, sensor="s2-l2a")

    assert Unit.DN_OFFSET1000 is scene.unit is scene.read().spec.unit
    assert 1500 == scene.read().pixels.max()
