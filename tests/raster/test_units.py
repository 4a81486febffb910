"""Scale and offset of a file: what they say of its unit, and what becomes of the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import torch
from remedies import named_unit, run_python, run_rio

import eofm
from eofm.contract.imagery import Imagery
from eofm.contract.spec import Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.cube import from_xarray
from eofm.raster.tags import read_scaling

WriteTif = Callable[..., Path]
RAW = np.full((12, 8, 8), 1500, np.uint16)
NEW = (1e-4, -0.1)
OLD = (1e-4, 0.0)


def tagged(path: Path, pairs: Sequence[tuple[float, float]], units: Sequence[str] = ()) -> Path:
    """Write scale and offset of each band into a file."""
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = zip(*pairs, strict=True)
        if units:
            dataset.units = units
    return path


def read(path: Path, unit: str | None, sensor: str = "s2-l2a") -> Imagery:
    """Read a file in a stated unit, or in none."""
    return eofm.read_geotiff(path, sensor=sensor, unit=unit)


@pytest.mark.parametrize(
    ("pair", "unit"), [(NEW, "dn-offset1000"), (OLD, "dn"), ((1.0, -1000.0), "dn-offset1000")]
)
def test_tags_state_the_unit(tmp_path, write_tif, pair: tuple[float, float], unit: str) -> None:
    """Scale and offset name the unit of stored values, and nobody has to."""
    path = tagged(write_tif(tmp_path / "a.tif", RAW), [pair] * 12)

    for stated in (None, unit):
        image = read(path, stated)
        assert unit == image.spec.unit
        assert 1500.0 == image.pixels.unique().item()


@pytest.mark.parametrize(("pair", "value"), [(NEW, 0.05), (OLD, 0.15), ((2.75e-5, -0.2), -0.15875)])
def test_tags_are_applied(tmp_path, write_tif, pair: tuple[float, float], value: float) -> None:
    """Stated in the physical unit, values are stored value x scale + offset."""
    path = tagged(write_tif(tmp_path / "a.tif", RAW), [pair] * 12)
    image = read(path, "reflectance")

    assert image.pixels.unique().item() == pytest.approx(value, abs=1e-7)
    assert "reflectance" == image.spec.unit


def test_an_offset_in_digital_numbers(tmp_path: Path, write_tif: WriteTif) -> None:
    """1 and -1000 make digital numbers of stored values, and 1e-4 of them reflectance."""
    path = tagged(write_tif(tmp_path / "a.tif", RAW), [(1.0, -1000.0)] * 12)

    values = {unit: read(path, unit).pixels.unique().item() for unit in ("dn", "reflectance")}
    assert values == pytest.approx({"dn": 500, "reflectance": 0.05}, abs=1e-6)


def test_tags_of_another_kind_lead_to_reflectance(tmp_path: Path, write_tif: WriteTif) -> None:
    """A scale that no Sentinel-2 product has is applied, and cannot be called digital numbers."""
    path = tagged(write_tif(tmp_path / "a.tif", RAW), [(2e-5, 0.0)] * 12)

    assert read(path, None).pixels.unique().item() == pytest.approx(0.03)
    with pytest.raises(RasterError, match="another unit") as caught:
        read(path, "dn")
    assert "reflectance" == read(path, named_unit(caught.value)).spec.unit


@pytest.mark.parametrize(
    ("pair", "stated", "right"), [(NEW, "dn", "dn-offset1000"), (OLD, "dn-offset1000", "dn")]
)
def test_a_contradiction_is_refused(tmp_path, write_tif, pair, stated: str, right: str) -> None:
    """1500 stated as dn, of which the tags make 0.05, is neither 1500 nor 500 in silence."""
    path = tagged(write_tif(tmp_path / "a.tif", RAW), [pair] * 12)
    with pytest.raises(RasterError, match="another unit than the user") as caught:
        read(path, stated)

    assert path == caught.value.where
    assert right == named_unit(caught.value) == read(path, right).spec.unit


def test_nobody_states_the_unit(tmp_path: Path, write_tif: WriteTif) -> None:
    """Without tags and statement it is an error whose example is right."""
    path = write_tif(tmp_path / "a.tif", RAW)
    with pytest.raises(RasterError, match="neither the user nor the file") as caught:
        read(path, None)

    assert "dn" == named_unit(caught.value) == read(path, "dn").spec.unit


def test_decibels_in_integers(tmp_path: Path, write_tif: WriteTif) -> None:
    """int16 hundredths of a decibel are decibels, with nodata taken out before they are scaled."""
    stored = np.stack([np.full((8, 8), -1259), np.full((8, 8), -2026)]).astype(np.int16)
    stored[:, 2, 3] = -32768
    path = write_tif(tmp_path / "a.tif", stored, nodata=-32768)
    image = read(tagged(path, [(0.01, 0.0)] * 2), "db", "s1-grd")

    assert image.pixels[0, :, 0, 0].tolist() == pytest.approx([-12.59, -20.26])
    assert [[0, 2, 3]] == (~image.valid).nonzero().tolist()
    assert [0.0, 0.0] == image.pixels[0, :, 2, 3].tolist()
    with pytest.raises(RasterError, match="neither the user nor the file"):
        read(path, None, "s1-grd")


def test_power_in_integers(tmp_path: Path, write_tif: WriteTif) -> None:
    """The scale of linear backscatter is applied as well; its 0 is no measurement."""
    stored = np.full((2, 8, 8), 520, np.uint16)
    stored[:, 1, 1] = 0
    path = tagged(write_tif(tmp_path / "a.tif", stored), [(1e-4, 0.0)] * 2)
    image = read(path, "power", "s1-rtc")

    assert image.pixels[0, 0, 0, 0].item() == pytest.approx(0.052)
    assert [[0, 1, 1]] == (~image.valid).nonzero().tolist()


@pytest.mark.parametrize("words", [{"descriptions": ["VV_dB", "VH_dB"]}, {"units": ["dB", "dB"]}])
def test_names_state_decibels(tmp_path: Path, write_tif: WriteTif, words: dict) -> None:
    """`VV_dB`, or the unit tag of a band, says decibels: no statement is needed, power refused."""
    pixels = np.full((2, 8, 8), -12.5, np.float32)
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=words.get("descriptions"))
    tagged(path, [(1.0, 0.0)] * 2, words.get("units", ()))

    assert "db" == read(path, None, "s1-grd").spec.unit
    with pytest.raises(RasterError, match="another unit") as caught:
        read(path, "power", "s1-grd")
    assert "db" == named_unit(caught.value)


def test_some_bands_state_a_scale(tmp_path: Path, write_tif: WriteTif) -> None:
    """Half of the tags make no reflectance; as digital numbers the file is consistent."""
    path = tagged(write_tif(tmp_path / "a.tif", RAW), [OLD] * 6 + [(1.0, 0.0)] * 6)
    with pytest.raises(RasterError, match="others have none") as caught:
        read(path, "reflectance")

    assert "dn" == named_unit(caught.value) == read(path, "dn").spec.unit


def test_a_mask_beside_has_no_unit(tmp_path: Path, write_tif: WriteTif) -> None:
    """QA60 without scale, among bands with one, changes nothing."""
    names = ["B02", "B03", "QA60"]
    path = write_tif(tmp_path / "a.tif", RAW[:3], descriptions=names)

    assert "dn" == read(tagged(path, [OLD, OLD, (1.0, 0.0)]), None).spec.unit


def test_a_margin_stays_a_margin(tmp_path: Path, write_tif: WriteTif) -> None:
    """0 in all bands is no measurement, though scale and offset make -0.1 of it."""
    stored = RAW.copy()
    stored[:, :, :3] = 0
    path = tagged(write_tif(tmp_path / "a.tif", stored), [NEW] * 12)
    masks = [read(path, unit).valid for unit in ("reflectance", "dn-offset1000")]

    assert torch.equal(masks[0], masks[1])
    assert 24 == int((~masks[0]).sum())


def test_one_file_per_band(tmp_path: Path, write_bands, write_tif) -> None:
    """The tags of band files count together; one with another offset is a contradiction."""
    folder = write_bands(tmp_path / "x", {"B02": 12, "B8A": 6})
    for name in ("B02", "B8A"):
        tagged(folder / f"{name}.tif", [NEW])
    image = eofm.read_geotiff(folder, sensor="s2-l2a", unit=None, bands=["B02", "B8A"])

    assert "dn-offset1000" == image.spec.unit
    tagged(folder / "B8A.tif", [OLD])
    with pytest.raises(RasterError, match="another unit"):
        eofm.read_geotiff(folder, sensor="s2-l2a", unit="dn", bands=["B02", "B8A"])


def test_a_unit_that_the_sensor_never_has(tmp_path: Path, write_tif: WriteTif) -> None:
    """Tags do not make decibels of Sentinel-2."""
    path = tagged(write_tif(tmp_path / "a.tif", RAW), [OLD] * 12)

    with pytest.raises(SpecError, match="never in unit db"):
        read(path, "db")


def test_eight_bits(tmp_path: Path, write_tif: WriteTif) -> None:
    """1/255 says 8-bit values of a picture; as reflectance they are divided."""
    pixels = np.full((3, 8, 8), 51, np.uint8)
    path = tagged(write_tif(tmp_path / "a.tif", pixels), [(1 / 255, 0.0)] * 3)

    assert ("uint8", 51.0) == (
        read(path, None, "rgb").spec.unit,
        read(path, None, "rgb").pixels.max(),
    )
    assert read(path, "reflectance", "rgb").pixels.max().item() == pytest.approx(0.2)


@pytest.mark.parametrize("scale", [0.0, float("nan")])
@pytest.mark.parametrize("stated", [Unit.DN, Unit.REFLECTANCE])
def test_a_scale_that_is_no_factor(scale: float, stated: Unit) -> None:
    """Stating reflectance, as the remedy said, made every pixel 0."""
    with pytest.raises(RasterError, match="the scale of a file is not a valid factor"):
        read_scaling([(scale, 0.0)], Sensor.S2_L2A, stated, None, Path("a.tif"))


def test_a_scale_of_one_band_says_nothing_of_the_others(tmp_path: Path, write_tif) -> None:
    """Without a statement the offset of one file was that of all; the remedy states it."""
    for band in ("B02", "B03"):
        path = write_tif(tmp_path / f"T1_{band}.tif", np.full((8, 8), 1700, np.uint16))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
    stated = {"sensor": "s2-l2a", "bands": ["B02", "B03"]}
    for call in (eofm.read_geotiff, eofm.open_scene):
        with pytest.raises(RasterError, match="some bands of an image have a scale") as caught:
            call(tmp_path, unit=None, **stated)

    assert "dn-offset1000" == named_unit(caught.value)
    read = eofm.read_geotiff(tmp_path, unit=named_unit(caught.value), **stated)
    assert 1700 == float(read.pixels.mean())


@pytest.mark.parametrize(
    ("baseline", "stated", "right"),
    [
        ("05.09", "dn", "dn-offset1000"),
        ("04.00", "dn", "dn-offset1000"),
        ("03.01", "dn-offset1000", "dn"),
    ],
)
def test_the_baseline_in_the_tags_is_that_of_the_unit(
    baseline: str, stated: str, right: str, tmp_path: Path, write_tif
) -> None:
    """GDAL copies it from the product; of four bands no pixel tells that 1000 was added."""
    path = write_tif(
        tmp_path / "a.tif", np.full((2, 8, 8), 1500, np.uint16), descriptions=["B02", "B03"]
    )
    with rasterio.open(path, "r+") as file:
        file.update_tags(PROCESSING_BASELINE=baseline)
    for call in (eofm.read_geotiff, eofm.read_scene):
        with pytest.raises(RasterError, match="another unit than stated") as caught:
            call(path, sensor="s2-l2a", unit=stated)
    assert f"--unit {right}" in str(caught.value.remedy)
    assert right == eofm.read_geotiff(path, sensor="s2-l2a", unit=right).spec.unit

    run_rio(caught.value)

    assert stated == eofm.read_geotiff(path, sensor="s2-l2a", unit=stated).spec.unit


@pytest.mark.parametrize("baseline", ["99.99", "new", ""])
def test_a_baseline_of_nobody_says_nothing(baseline: str, tmp_path: Path, write_tif) -> None:
    """99.99 is that of products made by oneself, as those of BigEarthNet are."""
    path = write_tif(
        tmp_path / "a.tif", np.full((2, 8, 8), 1500, np.uint16), descriptions=["B02", "B03"]
    )
    with rasterio.open(path, "r+") as file:
        file.update_tags(PROCESSING_BASELINE=baseline)

    assert "dn" == eofm.read_geotiff(path, sensor="s2-l2a", unit="dn").spec.unit


@pytest.mark.parametrize(
    ("written", "right", "unit"),
    [
        ((1e-4, -1000.0), (1e-4, -0.1), "dn-offset1000"),
        ((1e4, -1000.0), (1e-4, -0.1), "dn-offset1000"),
        ((1e4, 0.0), (1e-4, 0.0), "dn"),
    ],
)
@pytest.mark.parametrize("stated", [None, "dn", "reflectance"])
def test_what_was_copied_from_a_product_is_no_scale(
    written: tuple[float, float],
    right: tuple[float, float],
    unit: str,
    stated: str | None,
    tmp_path: Path,
    write_tif,
) -> None:
    """-1000 x 10,000 made -999.9 of everything, and 10,000 had two remedies, each for the other."""
    pixels = np.full((2, 8, 8), 2500, np.uint16)
    path = tagged(write_tif(tmp_path / "a.tif", pixels, descriptions=["B02", "B03"]), [written] * 2)
    with pytest.raises(RasterError, match="do not convert the stored values") as caught:
        read(path, stated)
    array = rioxarray.open_rasterio(path, parse_coordinates=False)
    with pytest.raises(RasterError, match="do not convert the stored values") as in_array:
        from_xarray(array, "s2-l2a", stated)

    run_python(caught.value)
    exec(str(in_array.value.remedy).partition(": ")[2])

    with rasterio.open(path) as file:
        assert ((right[0],) * 2, (right[1],) * 2) == (file.scales, file.offsets)
    assert unit == read(path, None).spec.unit
    assert unit == from_xarray(array, "s2-l2a").spec.unit


@pytest.mark.parametrize("name", ["Sigma0_{}_db", "S1A_{}_gamma0-rtc_dB"])
@pytest.mark.parametrize("separate", [True, False])
def test_decibels_in_the_names_of_files(
    name: str, separate: bool, tmp_path: Path, write_tif
) -> None:
    """As SNAP and pyroSAR call them: they could be stated as power, and had to be stated."""
    pixels = np.stack([np.full((8, 8), mean, np.float32) for mean in (-11.5, -18.5)])
    path = tmp_path / "in"
    if separate:
        for band, plane in zip(("VV", "VH"), pixels, strict=True):
            write_tif(path / f"{name.format(band)}.tif", plane)
    else:
        path = write_tif(path / f"{name.format('VV_VH')}.tif", pixels)

    assert Unit.DB is read(path, None, "s1-grd").spec.unit
    with pytest.raises(RasterError, match="another unit than the user"):
        read(path, "power", "s1-grd")


def test_a_name_that_begins_with_db_is_no_unit(tmp_path: Path, write_tif) -> None:
    """`db_VV.tif` can be of a data base."""
    for band, value in (("VV", 0.1), ("VH", 0.02)):
        write_tif(tmp_path / f"db_{band}.tif", np.full((8, 8), value, np.float32))

    assert Unit.POWER is read(tmp_path, "power", "s1-grd").spec.unit


_HYP3 = "S1A_IW_20230501T061010_DVP_RTC10_G_g{}uned_6FB4_{}.tif"


def hyp3(folder: Path, kind: str, write_tif: WriteTif, change) -> Path:
    """Write VV and VH of a product of ASF HyP3; values of -11.5 and -18.5 dB, changed."""
    for band, mean in (("VV", -11.5), ("VH", -18.5)):
        pixels = change(np.full((8, 8), mean, np.float32)).astype(np.float32)
        write_tif(folder / _HYP3.format(kind, band), pixels)
    return folder


@pytest.mark.parametrize(("kind", "unit", "wrong"), [("p", "power", "db"), ("d", "db", "power")])
def test_the_name_of_a_hyp3_product_states_its_unit(
    kind: str, unit: str, wrong: str, tmp_path: Path, write_tif
) -> None:
    """Its letters say power or decibels; either had to be stated, and could be stated wrongly."""
    change = (lambda db: db) if kind == "d" else (lambda db: 10 ** (db / 10))
    folder = hyp3(tmp_path, kind, write_tif, change)

    assert unit == read(folder, None, "s1-rtc").spec.unit
    assert unit == read(folder, unit, "s1-rtc").spec.unit
    with pytest.raises(RasterError, match="another unit than the user") as caught:
        read(folder, wrong, "s1-rtc")
    assert unit == named_unit(caught.value)


def test_amplitudes_are_no_power(tmp_path: Path, write_tif) -> None:
    """Amplitudes of HyP3 were taken for power: the double of the decibels."""
    folder = hyp3(tmp_path / "in", "a", write_tif, lambda db: 10 ** (db / 20))
    for unit in ("power", "db", None):
        with pytest.raises(RasterError, match="amplitudes, not backscatter"):
            read(folder, unit, "s1-rtc")

    for band in ("VV", "VH"):
        with pytest.raises(RasterError, match="amplitudes") as caught:
            read(folder / _HYP3.format("a", band), "power", "s1-rtc")
        run_rio(caught.value, {"OUT.tif": tmp_path / f"out_{band}.tif"})

    found = [read(tmp_path / f"out_{b}.tif", "power", "s1-rtc") for b in ("VV", "VH")]
    levels = [10 * np.log10(float(image.pixels.mean())) for image in found]
    np.testing.assert_allclose([-11.5, -18.5], levels, atol=1e-4)


def test_a_unit_tag_of_amplitude_is_refused(tmp_path: Path, write_tif) -> None:
    """The remedy squares all bands of the file."""
    pixels = np.stack([np.full((8, 8), 10 ** (mean / 20), np.float32) for mean in (-11.5, -18.5)])
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["VV", "VH"])
    tagged(path, [(1.0, 0.0)] * 2, ["amplitude"] * 2)

    with pytest.raises(RasterError, match="amplitudes") as caught:
        read(path, "power", "s1-grd")
    run_rio(caught.value, {"OUT.tif": tmp_path / "out.tif"})

    squared = read(tmp_path / "out.tif", "power", "s1-grd")
    np.testing.assert_allclose(pixels**2, squared.pixels[0].numpy(), rtol=1e-5)


@pytest.mark.parametrize("word", ["linear", "intensity", "power"])
def test_a_unit_tag_of_power_contradicts_decibels(word: str, tmp_path: Path, write_tif) -> None:
    """SNAP's unit of linear backscatter is `intensity`."""
    pixels = np.stack([np.full((8, 8), 10 ** (mean / 10), np.float32) for mean in (-11.5, -18.5)])
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["VV", "VH"])
    tagged(path, [(1.0, 0.0)] * 2, [word] * 2)

    assert Unit.POWER is read(path, None, "s1-grd").spec.unit
    with pytest.raises(RasterError, match="another unit than the user"):
        read(path, "db", "s1-grd")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("2023-05-01_Sentinel-1_IW_VV+VH_VV_-_decibel_gamma0", "db"),
        ("2023-05-01_Sentinel-1_IW_VV+VH_VV_-_linear_gamma0_-_rtc", "power"),
    ],
)
def test_the_layer_of_copernicus_browser_states_its_unit(
    name: str, unit: str, tmp_path: Path, write_tif
) -> None:
    """As the browser names files of Sentinel-1."""
    value = -11.5 if unit == "db" else 10**-1.15
    path = write_tif(tmp_path / f"{name}.tif", np.full((8, 8), value, np.float32))

    found = eofm.read_geotiff(path, sensor="s1-rtc", unit=None, bands=["VV"])

    assert unit == found.spec.unit
    wrong = "power" if unit == "db" else "db"
    with pytest.raises(RasterError, match="another unit than the user"):
        eofm.read_geotiff(path, sensor="s1-rtc", unit=wrong, bands=["VV"])


def test_a_name_of_amplitude_is_refused(tmp_path: Path, write_tif) -> None:
    """Wherever the word stands in it."""
    path = write_tif(tmp_path / "S1A_IW_VV_amplitude_clip.tif", np.full((8, 8), 0.3, np.float32))

    with pytest.raises(RasterError, match="amplitudes, not backscatter"):
        eofm.read_geotiff(path, sensor="s1-grd", unit="power", bands=["VV"])
