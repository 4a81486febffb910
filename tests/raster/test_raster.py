"""Reading GeoTIFFs: bands by name, masks, resolutions, windows, damage."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

from eofm.contract.spec import SENSOR_BANDS, ImageSpec, Sensor, Unit
from eofm.contract.validity import fine_mask
from eofm.errors import RasterError, SpecError
from eofm.raster.grid import Window
from eofm.raster.source import RasterSource

L1C = SENSOR_BANDS[Sensor.S2_L1C]
SIDECAR = """<PAMDataset><PAMRasterBand band="{}"><NoDataValue>{}</NoDataValue></PAMRasterBand>
</PAMDataset>"""
MIXED = {"B02": 36, "B8A": 18, "B09": 6}  # 10, 20 and 60 m


def constants(bands: int, size: int = 12, dtype: str = "uint16") -> np.ndarray:
    """Return (bands, size, size): band k holds 100 (k + 1)."""
    return np.broadcast_to(
        (100 * np.arange(1, bands + 1, dtype=dtype))[:, None, None], (bands, size, size)
    ).copy()


def s2(path: Path, bands: tuple[str, ...] | None = None) -> RasterSource:
    """State a file of Sentinel-2 L1C digital numbers."""
    return RasterSource(path.stem, (path,), Sensor.S2_L1C, Unit.DN, bands)


def s1(path: Path) -> RasterSource:
    """State a file of Sentinel-1 decibels."""
    return RasterSource(path.stem, (path,), Sensor.S1_GRD, Unit.DB)


def per_band(folder: Path, slack: float = 0.01) -> RasterSource:
    """State a folder with the bands of `MIXED`."""
    files = tuple(folder / f"{band}.tif" for band in MIXED)
    return RasterSource(folder.name, files, Sensor.S2_L1C, Unit.DN, tuple(MIXED), slack=slack)


# ------------------------------------------------------------------------------- bands


def test_multi_band_file_is_read_as_stated(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """Thirteen bands without descriptions come in the sensor's order, in float32, with a spec."""
    image = s2(write_tif(tmp_path / "a.tif", constants(13))).read()

    assert ImageSpec(Sensor.S2_L1C, L1C, Unit.DN, (12, 12), 10.0) == image.spec
    assert [100.0 * k for k in range(1, 14)] == image.pixels.mean(dim=(0, 2, 3)).tolist()
    assert bool(image.valid.all())


def test_bands_follow_their_names(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """With B8A stored last, as EuroSAT does, the constants stay with their names."""
    stored = (*(b for b in L1C if b != "B8A"), "B8A")
    image = s2(write_tif(tmp_path / "a.tif", constants(13)), stored).read()

    assert stored == image.spec.bands
    assert 1300.0 == image.pixels[0, image.spec.bands.index("B8A")].mean()


def test_descriptions_are_believed(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """A file that names all its bands needs no statement, in any spelling."""
    path = write_tif(tmp_path / "a.tif", constants(3), descriptions=["B8", "B4", "B03"])

    assert ("B08", "B04", "B03") == s2(path).read().spec.bands


def test_descriptions_must_agree(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """A stated order that the file contradicts is refused."""
    path = write_tif(tmp_path / "a.tif", constants(2), descriptions=["B04", "B03"])

    with pytest.raises(RasterError, match=r"contradict the stated bands\n.*B04 B03\n.*B03 B04"):
        s2(path, ("B03", "B04")).read()


def test_other_descriptions_say_nothing(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """Descriptions that are no band names, as TerraMesh's "bands", are passed over."""
    path = write_tif(tmp_path / "a.tif", constants(2), descriptions=["bands", "bands"])

    assert ("B03", "B04") == s2(path, ("B03", "B04")).read().spec.bands


def test_band_count_must_match(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """Four bands are not thirteen, and the message shows how to state them."""
    with pytest.raises(RasterError, match="--bands") as caught:
        s2(write_tif(tmp_path / "a.tif", constants(4))).read()

    assert "4 bands" == caught.value.found
    assert tmp_path / "a.tif" == caught.value.where


def test_foreign_band_is_refused(tmp_path: Path) -> None:
    """VV is no band of Sentinel-2."""
    with pytest.raises(SpecError, match="not bands of s2-l1c"):
        s2(tmp_path / "a.tif", ("B02", "VV"))


def test_band_file_with_several_bands(tmp_path: Path, write_bands, write_tif) -> None:
    """A file named like one band that holds two is refused."""
    folder = write_bands(tmp_path / "a", MIXED)
    write_tif(folder / "B02.tif", constants(2, 36))

    with pytest.raises(RasterError, match="named after one band"):
        per_band(folder).read()


# ------------------------------------------------------------------------------- masks


def test_declared_nodata_is_invalid(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """A pixel that is nodata in all bands is invalid, its neighbour is left alone."""
    pixels = constants(13)
    pixels[:, 2, 3] = 7
    image = s2(write_tif(tmp_path / "a.tif", pixels, nodata=7)).read()

    assert [[0, 2, 3]] == torch.nonzero(~image.valid).tolist()
    assert [0.0] * 13 == image.pixels[0, :, 2, 3].tolist()


def test_nodata_of_0_in_one_band_is_a_measurement(tmp_path: Path, write_tif) -> None:
    """B10 is really 0 over dry air: the other twelve bands have seen that pixel."""
    pixels = constants(13)
    pixels[L1C.index("B10"), 2, 3] = 0
    image = s2(write_tif(tmp_path / "a.tif", pixels, nodata=0)).read()

    assert bool(image.valid.all())


def test_undeclared_zero(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """0 in one band is a digital number, 0 in all of them a margin, declared or not."""
    pixels = constants(13)
    pixels[4, 5, 6] = 0
    pixels[:, 2, 3] = 0
    image = s2(write_tif(tmp_path / "a.tif", pixels)).read()

    assert [[0, 2, 3]] == torch.nonzero(~image.valid).tolist()


@pytest.mark.parametrize(("nodata", "invalid"), [(-9999.0, 0), (65535.0, 1), (100.5, 0)])
def test_nodata_that_cannot_occur(tmp_path, write_tif, nodata: float, invalid: int) -> None:
    """-9999 declared for uint16 does not wrap around to 55537, nor 100.5 round to 100."""
    pixels = constants(13)
    pixels[0, 0, 0], pixels[0, 0, 1] = 65535, 55537
    path = write_tif(tmp_path / "a.tif", pixels)
    (tmp_path / "a.tif.aux.xml").write_text(SIDECAR.format(1, nodata))

    assert invalid == int((~s2(path).read().valid).sum())


def test_sidecar_is_honoured(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """Nodata declared in an .aux.xml counts, though GDAL is told to look for none otherwise."""
    path = write_tif(tmp_path / "a.tif", constants(13))
    before = s2(path).read().valid.all()
    (tmp_path / "a.tif.aux.xml").write_text(SIDECAR.format(3, 300))

    assert bool(before)
    assert not bool(s2(path).read().valid.any())


def test_internal_mask_is_honoured(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """Pixels masked inside the file are invalid."""
    path = write_tif(tmp_path / "a.tif", constants(13))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        mask = np.full((12, 12), 255, np.uint8)
        mask[5, 6] = 0
        dataset.write_mask(mask)

    assert [[0, 5, 6]] == torch.nonzero(~s2(path).read().valid).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_backscatter_is_invalid(tmp_path, write_tif, bad: float, dtype: str) -> None:
    """NaN and the -inf dB of no backscatter are invalid, and decibels keep their fractions."""
    pixels = np.full((2, 8, 8), -12.59, dtype)
    pixels[1] = -20.26
    pixels[1, 7, 0] = bad
    image = s1(write_tif(tmp_path / "a.tif", pixels)).read()

    assert [[0, 7, 0]] == torch.nonzero(~image.valid).tolist()
    assert [np.float32(-12.59), np.float32(-20.26)] == image.pixels[0, :, 0, 0].tolist()
    assert bool(torch.isfinite(image.pixels).all())


def test_beyond_float32_is_invalid(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """A float64 that float32 cannot hold is no measurement."""
    pixels = np.full((2, 4, 4), -10.0)
    pixels[0, 1, 1] = -1e300

    assert 1 == int((~s1(write_tif(tmp_path / "a.tif", pixels)).read().valid).sum())


def test_complex_pixels_are_refused(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """Single-look complex radar is not backscatter."""
    path = write_tif(tmp_path / "a.tif", np.ones((2, 4, 4), "complex64"))

    with pytest.raises(RasterError, match="real numbers"):
        s1(path).read()


# -------------------------------------------------------------------------- resolutions


def test_native_planes(tmp_path: Path, write_bands: Callable[..., Path]) -> None:
    """Bands at 10, 20 and 60 m stay apart, in uint16, exactly as stored."""
    folder = write_bands(tmp_path / "a", MIXED)
    with per_band(folder).open() as raster:
        native = raster.read_native()

    assert {10: ("B02",), 20: ("B8A",), 60: ("B09",)} == native.bands
    assert (36, 36) == native.spec.size
    for gsd, band in ((10, "B02"), (20, "B8A"), (60, "B09")):
        with rasterio.open(folder / f"{band}.tif") as dataset:
            assert torch.uint16 == native.planes[gsd].dtype
            assert np.array_equal(dataset.read(), native.planes[gsd][0].numpy())


def bilinear(plane: np.ndarray, size: int) -> np.ndarray:
    """Upsample a square plane bilinearly, half-pixel centres, one pixel at a time."""
    n = len(plane)
    out = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y, x = ((k + 0.5) * n / size - 0.5 for k in (i, j))
            for a, wa in ((int(np.floor(y)), 1 - y % 1), (int(np.floor(y)) + 1, y % 1)):
                for b, wb in ((int(np.floor(x)), 1 - x % 1), (int(np.floor(x)) + 1, x % 1)):
                    out[i, j] += wa * wb * plane[np.clip(a, 0, n - 1), np.clip(b, 0, n - 1)]
    return out


def test_coarse_bands_come_to_the_fine_grid(tmp_path: Path, write_bands) -> None:
    """20 and 60 m bands are upsampled bilinearly with half-pixel centres, as a slow loop does."""
    folder = write_bands(tmp_path / "a", MIXED)
    image = per_band(folder).read()

    for k, band in enumerate(MIXED):
        with rasterio.open(folder / f"{band}.tif") as dataset:
            expected = bilinear(dataset.read(1).astype(float), 36)
        np.testing.assert_allclose(image.pixels[0, k].numpy(), expected, rtol=1e-5)


def test_invalid_coarse_pixels_reach_nobody(tmp_path: Path, write_bands, write_tif) -> None:
    """What lies under a masked 60 m pixel cannot be seen in any valid fine pixel."""
    images = []
    for value in (1, 65535):
        folder = write_bands(tmp_path / str(value), MIXED)
        plane = np.full((6, 6), 900, np.uint16)
        plane[2, 3] = value
        write_tif(folder / "B09.tif", plane, gsd=60.0, nodata=value)
        images.append(per_band(folder).read())
    first, second = images

    assert torch.equal(first.valid, second.valid)
    for image in images:
        assert (image.pixels[:, 2][image.valid] - 900).abs().max() < 1e-3
    assert 36 < int((~first.valid).sum()) <= 144


@settings(deadline=None, max_examples=30)
@given(st.lists(st.booleans(), min_size=16, max_size=16), st.sampled_from([1, 2, 3, 6]))
def test_fine_mask_is_where_nothing_invalid_weighs(flags: list[bool], ratio: int) -> None:
    """A fine pixel is valid if and only if invalid coarse pixels have no bilinear weight in it.

    Weights that are 0 but for the rounding of float32 may count as either.
    """
    mask = np.array(flags).reshape(4, 4)
    weight = bilinear(~mask, 4 * ratio)

    found = fine_mask(torch.from_numpy(mask)[None], (4 * ratio, 4 * ratio))[0].numpy()

    assert not found[weight > 1e-6].any()
    assert found[bilinear(_grown(~mask), 4 * ratio) == 0].all()


def _grown(flags: np.ndarray) -> np.ndarray:
    """Return where a flag is set on a pixel or one of its eight neighbours."""
    padded = np.pad(flags, 1)
    n = len(flags)
    return np.any([padded[i : i + n, j : j + n] for i in range(3) for j in range(3)], axis=0)


def test_other_extent_is_refused(tmp_path: Path, write_bands, write_tif) -> None:
    """A band one pixel aside is refused, and so is one of a size that is no whole fraction."""
    folder = write_bands(tmp_path / "a", MIXED)
    aside = (500_020.0, 5_400_000.0)
    for plane, gsd, origin in (
        (np.ones((18, 18), np.uint16), 20.0, aside),
        (np.ones((17, 17), np.uint16), 360 / 17, (500_000.0, 5_400_000.0)),
        (np.ones((18, 17), np.uint16), 20.0, (500_000.0, 5_400_000.0)),
    ):
        write_tif(folder / "B8A.tif", plane, gsd=gsd, origin=origin)
        with pytest.raises(RasterError, match="a different area") as caught:
            per_band(folder).read()
        assert str(folder / "B8A.tif") == str(caught.value.where)


def test_slack_allows_a_stated_shift(tmp_path: Path, write_bands, write_tif) -> None:
    """Half a pixel aside is an error in general, and may be stated to be none."""
    folder = write_bands(tmp_path / "a", MIXED)
    plane = np.ones((6, 6), np.uint16)
    write_tif(folder / "B09.tif", plane, gsd=60.0, origin=(499_975.0, 5_400_025.0))

    with pytest.raises(RasterError, match="a different area"):
        per_band(folder).read()
    assert (36, 36) == per_band(folder, slack=0.51).read().spec.size


# ------------------------------------------------------------------------------ windows


def test_window_is_a_part_of_the_whole(tmp_path: Path, write_bands) -> None:
    """A window of native planes is the same rectangle of ground in every band."""
    with per_band(write_bands(tmp_path / "a", MIXED)).open() as raster:
        whole = raster.read_native()
        part = raster.read_native(Window(6, 12, 18, 24))

    assert (18, 24) == part.spec.size
    assert torch.equal(whole.planes[10][..., 6:24, 12:36], part.planes[10])
    assert torch.equal(whole.planes[20][..., 3:12, 6:18], part.planes[20])
    assert torch.equal(whole.planes[60][..., 1:4, 2:6], part.planes[60])


@pytest.mark.parametrize("window", [Window(0, 3, 6, 6), Window(0, 0, 10, 6)])
def test_window_between_coarse_pixels(tmp_path, write_bands, window: Window) -> None:
    """A window that would cut a 60 m pixel is refused, with the step that is possible."""
    source = per_band(write_bands(tmp_path / "a", MIXED))
    with source.open() as raster, pytest.raises(RasterError, match="coarsest band") as caught:
        raster.read(window)

    assert "multiples of 6" == caught.value.expected


@pytest.mark.parametrize(
    "window", [Window(30, 0, 12, 6), Window(-6, 0, 6, 6), Window(0, 36, 6, 6), Window(0, 0, 0, 6)]
)
def test_window_outside(tmp_path, write_bands, window: Window) -> None:
    """A window that leaves the image is refused rather than filled."""
    source = per_band(write_bands(tmp_path / "a", MIXED))
    with source.open() as raster, pytest.raises(RasterError, match="not inside"):
        raster.read(window)


# ------------------------------------------------------------------------- bad and odd files


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_truncated_file(tmp_path, write_tif, compress: str) -> None:
    """Wherever a file is cut off, it is an error that names it, and never other pixels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 9000, (2, 64, 64)).astype(np.float32) / 7
    whole = write_tif(tmp_path / "whole.tif", pixels, compress=compress)
    data = whole.read_bytes()
    cut = tmp_path / "cut.tif"
    for length in (0, 3, 8, 100, 300, 500, 700, len(data) // 2, len(data) - 500, len(data) - 1):
        cut.write_bytes(data[:length])
        with pytest.raises(RasterError, match="cannot be read as a GeoTIFF") as caught:
            s1(cut).read()
        assert str(cut) == str(caught.value.where)
    cut.write_bytes(data)
    assert np.array_equal(pixels, s1(cut).read().pixels[0].numpy())


def test_tags_at_a_lost_end(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """A file whose end held the declared nodata is damaged, though its pixels are complete."""
    pixels = np.full((2, 8, 8), -9.5, np.float32)
    path = write_tif(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = -9.5  # rewrites the directory, behind the pixels
        dataset.update_tags(note="x" * 2000)
    assert not bool(s1(path).read().valid.any())
    path.write_bytes(path.read_bytes()[:-1900])

    with pytest.raises(RasterError, match="cannot be read as a GeoTIFF"):
        s1(path).read()


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(RasterError, match="no such file"):
        s2(tmp_path / "a.tif").read()


def test_text_file(tmp_path: Path) -> None:
    """A web page saved as .tif is no GeoTIFF."""
    (tmp_path / "a.tif").write_text("<html>not found</html>")

    with pytest.raises(RasterError, match="cannot be read as a GeoTIFF"):
        s2(tmp_path / "a.tif").read()


def test_without_georeference(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """A bare tif can be read if its GSD is stated, and not otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        path = write_tif(tmp_path / "a.tif", constants(13), crs=None, bare=True)

    with pytest.raises(RasterError, match="no georeference"):
        s2(path).read()
    stated = RasterSource("a", (path,), Sensor.S2_L1C, Unit.DN, gsd=10.0)
    assert 10.0 == stated.read().spec.gsd


@pytest.mark.parametrize(
    ("tags", "date"),
    [
        ({"datetime": "2020-01-11T23:27:23.000000000"}, "2020-01-11T23:27:23"),
        ({"TIFFTAG_DATETIME": "2021:07:03 10:20:30"}, ""),
        ({"datetime": "yesterday"}, ""),
        ({}, ""),
    ],
)
def test_date_from_tags(tmp_path, write_tif, tags: dict[str, str], date: str) -> None:
    """The date is what a tag says; nonsense and silence are no date."""
    with s2(write_tif(tmp_path / "a.tif", constants(13), tags=tags)).open() as raster:
        assert date == raster.date


# ---------------------------------------------------------------------------- real imagery


def test_real_terramesh(real_data: Path) -> None:
    """int16 digital numbers of TerraMesh arrive exactly; B10 shows which site has the offset."""
    medians = {}
    for path in sorted((real_data / "terramesh/S2L1C").glob("*.tif")):
        image = s2(path).read()
        with rasterio.open(path) as dataset:
            assert np.array_equal(dataset.read().astype(np.float32), image.pixels[0].numpy())
        assert bool(image.valid.all())
        medians[path.stem[:4]] = image.pixels[0, L1C.index("B10")].median().item()

    assert {"609U": True, "38D_": False, "637U": False} == {k: v > 500 for k, v in medians.items()}


def test_real_radar(real_data: Path) -> None:
    """float64 decibels keep their fractions to float32 precision; VV is brighter than VH."""
    for path in sorted((real_data / "terramesh/S1RTC").glob("*.tif")):
        with RasterSource(path.stem, (path,), Sensor.S1_RTC, Unit.DB).open() as raster:
            image = raster.read()
            assert 19 == len(raster.date)
        with rasterio.open(path) as dataset:
            stored = dataset.read()
        valid = image.valid[0].numpy()
        assert np.array_equal(
            stored.astype(np.float32)[:, valid], image.pixels[0].numpy()[:, valid]
        )
        assert np.mean(stored % 1 != 0) > 0.9
        assert image.pixels[0, 0].mean() > image.pixels[0, 1].mean()


def test_real_eurosat(real_data: Path) -> None:
    """EuroSAT's oblong pixels are 10 m, and its last band is B8A."""
    path = min((real_data / "eurosat_ms/train/Forest").glob("*.tif"))
    stored = (*(b for b in L1C if b != "B8A"), "B8A")
    image = s2(path, stored).read()

    assert ((64, 64), 10.0) == (image.spec.size, image.spec.gsd)
    near_infrared = [image.pixels[0, stored.index(b)].mean() for b in ("B08", "B8A", "B09")]
    assert near_infrared[1] > 0.8 * near_infrared[0] > near_infrared[2]


def test_zeros_of_one_band_that_are_kept_are_said(
    tmp_path: Path, write_tif, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 is declared nodata, and one band holds it in a half of the pixels that others have seen."""
    monkeypatch.setattr("eofm.terminal._SAID", set())
    pixels = np.full((3, 8, 8), 700, np.uint16)
    pixels[:, 0] = 0
    path = write_tif(tmp_path / "a.tif", pixels, nodata=0, descriptions=["B02", "B03", "B04"])
    source = RasterSource("a", (path,), Sensor.S2_L2A, Unit.DN)
    source.read()
    assert "" == capsys.readouterr().err
    pixels[1, 4:] = 0
    write_tif(path, pixels, nodata=0, descriptions=["B02", "B03", "B04"])

    found = source.read()

    assert 56 == int(found.valid.sum())
    assert (
        "B03: 0 is the declared nodata, but other bands are valid there" in capsys.readouterr().err
    )
