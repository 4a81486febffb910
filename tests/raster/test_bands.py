"""Which bands a file holds: descriptions, names of files, statements, and their contradictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from remedies import named_bands, run_rio

import eofm
from eofm.cli import main
from eofm.contract.imagery import Imagery
from eofm.contract.sensors import SENSOR_BANDS
from eofm.contract.spec import Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.folder import list_sources
from eofm.raster.metadata.bands import NamedBand, named_band
from eofm.raster.source import RasterSource

WriteTif = Callable[..., Path]
L1C = SENSOR_BANDS[Sensor.S2_L1C]
L2A = SENSOR_BANDS[Sensor.S2_L2A]
COMMON = ["blue", "coastal", "green", "nir", "nir08", "nir09"]
COMMON += ["red", "rededge1", "rededge2", "rededge3", "swir16", "swir22"]
MEANT = ["B02", "B01", "B03", "B08", "B8A", "B09", "B04", "B05", "B06", "B07", "B11", "B12"]


def constants(count: int, dtype: str = "uint16") -> np.ndarray:
    """Return (count, 8, 8): band k holds 10 (k + 1)."""
    values = 10 * np.arange(1, count + 1, dtype=dtype)
    return np.broadcast_to(values[:, None, None], (count, 8, 8)).copy()


def read(path: Path, sensor: str = "s2-l2a", unit: str | None = "dn", **stated: object) -> Imagery:
    """Read a file, of Sentinel-2 Level-2A digital numbers if nothing else is stated."""
    return eofm.read_geotiff(path, sensor=sensor, unit=unit, **stated)  # type: ignore[arg-type]


def by_name(image: Imagery) -> dict[str, int]:
    """Return band -> number of its constant."""
    return {
        band: round(float(image.pixels[0, k].mean()) / 10)
        for k, band in enumerate(image.spec.bands)
    }


# ---------------------------------------------------------------------------- descriptions


def test_common_names(tmp_path: Path, write_tif: WriteTif) -> None:
    """STAC's common names are the bands they name, in whatever order they are stored."""
    path = write_tif(tmp_path / "a.tif", constants(12), descriptions=COMMON)

    assert {band: k for k, band in enumerate(MEANT, 1)} == by_name(read(path))


@pytest.mark.parametrize(
    ("words", "bands"),
    [
        ("b12 b8a B4", "B12 B8A B04"),
        ("Band 12|Band 8A|Band 4", "B12 B8A B04"),
        ("B04 (665 nm)|B03 (560 nm)", "B04 B03"),
        ("B4, central wavelength 665 nm|B8A, central wavelength 865 nm", "B04 B8A"),
        ("S2_B04 S2A_B8A", "B04 B8A"),
        ("B4_10m B8A_20m", "B04 B8A"),
        ("B04_median B8_median", "B04 B08"),
        ("0_B4 0_B3", "B04 B03"),
        ("NIR_Narrow NIR_Broad Coastal_Aerosol SWIR1", "B8A B08 B01 B11"),
        ("Red Edge 4|SWIR 2|Water vapor", "B8A B12 B09"),
        ("B04 - Red|B03 - Green", "B04 B03"),
        ("rededge071 rededge075 rededge078", "B05 B06 B07"),
    ],
)
def test_spellings(tmp_path: Path, write_tif: WriteTif, words: str, bands: str) -> None:
    """What ESA, Earth Engine, Sentinel Hub, HLS, SNAP and GDAL write is understood."""
    names = words.split("|") if "|" in words else words.split()
    path = write_tif(tmp_path / "a.tif", constants(len(names)), descriptions=names)

    assert tuple(bands.split()) == read(path).spec.bands


@pytest.mark.parametrize(
    "words", ["Sigma0_VH Sigma0_VV", "vh vv", "Gamma0_VH_db Gamma0_VV_db", "VH_dB VV_dB"]
)
def test_radar_spellings(tmp_path: Path, write_tif: WriteTif, words: str) -> None:
    """Polarisations are found inside SNAP's names, and VH stays VH though it is stored first."""
    pixels = np.stack([np.full((8, 8), -17.5, "float32"), np.full((8, 8), -10.5, "float32")])
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=words.split())
    image = read(path, "s1-grd", "db")

    assert ("VH", "VV") == image.spec.bands
    assert [-17.5, -10.5] == image.pixels[0, :, 0, 0].tolist()


def test_words_belong_to_the_sensor(tmp_path: Path, write_tif: WriteTif) -> None:
    """Red, green, blue and nir of an aerial image are its own bands, not those of Sentinel-2."""
    names = ["nir", "red", "green", "blue"]
    path = write_tif(tmp_path / "a.tif", constants(4, "uint8"), descriptions=names)

    assert {"N": 1, "R": 2, "G": 3, "B": 4} == by_name(read(path, "naip", "uint8"))
    path = write_tif(tmp_path / "b.tif", constants(4), descriptions=names)
    assert ("B08", "B04", "B03", "B02") == read(path).spec.bands


@pytest.mark.parametrize("word", ["aerosol", "foo", "B13", "B8B", "B4_stdDev", "B8_B4"])
def test_an_unknown_word_is_an_error(tmp_path: Path, write_tif: WriteTif, word: str) -> None:
    """One word that is not understood is named, and each remedy that is offered helps."""
    names = [*reversed(L2A[1:]), word]
    path = write_tif(tmp_path / "a.tif", constants(12), descriptions=names)
    with pytest.raises(RasterError, match="not understood") as caught:
        read(path)
    assert repr(word) == caught.value.found

    chosen = read(path, bands=named_bands(caught.value))
    assert {band: k for k, band in enumerate(names[:-1], 1)} == by_name(chosen)
    in_full = read(path, bands=[*names[:-1], "B01"])
    assert 12 == by_name(in_full)["B01"]
    run_rio(caught.value)
    assert 12 == by_name(read(path))["B01"]


def test_an_ambiguous_word_is_an_error(tmp_path: Path, write_tif: WriteTif) -> None:
    """`rededge` can be three bands: they are named, and a statement decides."""
    path = write_tif(tmp_path / "a.tif", constants(2), descriptions=["rededge", "red"])
    with pytest.raises(RasterError, match="not understood") as caught:
        read(path)

    assert "'rededge' (can mean B05, B06, B07)" == caught.value.found
    assert {"B06": 1, "B04": 2} == by_name(read(path, bands=["B06", "B04"]))
    with pytest.raises(RasterError, match="otherwise than stated"):
        read(path, bands=["B08", "B04"])
    run_rio(caught.value)
    assert ("B05", "B04") == read(path).spec.bands


def test_a_missing_description_is_an_error(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file that names some bands and not others does not fall back to an order."""
    path = write_tif(tmp_path / "a.tif", constants(12), descriptions=[*L2A[:-1], ""])

    with pytest.raises(RasterError, match="a band without description"):
        read(path)


def test_numbers_are_no_names(tmp_path: Path, write_tif: WriteTif) -> None:
    """Bands numbered 1 to 13 are refused, as band 9 of the stored order is not B09."""
    names = [f"Band {k}" for k in range(1, 14)]
    path = write_tif(tmp_path / "a.tif", constants(13), descriptions=names)

    with pytest.raises(RasterError, match="'Band 13'"):
        read(path, "s2-l1c")


def test_a_band_of_another_level(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file with B10 is not Level-2A, unless the bands are chosen."""
    path = write_tif(tmp_path / "a.tif", constants(13), descriptions=L1C)
    with pytest.raises(RasterError, match="that s2-l2a does not have") as caught:
        read(path)

    assert 13 == len(read(path, "s2-l1c").spec.bands)
    assert 12 == by_name(read(path, bands=named_bands(caught.value)))["B11"]


def test_a_band_twice(tmp_path: Path, write_tif: WriteTif) -> None:
    """Two dates in one file are not one image."""
    path = write_tif(
        tmp_path / "a.tif", constants(4), descriptions=["0_B2", "0_B3", "1_B2", "1_B3"]
    )

    with pytest.raises(RasterError, match="describes a band twice"):
        read(path)


def test_a_choice_by_name(tmp_path: Path, write_tif: WriteTif) -> None:
    """Fewer bands than described are chosen by their names, in the order that is stated."""
    path = write_tif(tmp_path / "a.tif", constants(12), descriptions=COMMON)

    assert {"B04": 7, "B8A": 5} == by_name(read(path, bands=["B04", "nir08"]))
    with pytest.raises(RasterError, match="otherwise than stated"):
        read(
            write_tif(tmp_path / "b.tif", constants(3), descriptions=["B02", "B03", "B04"]),
            bands=["B02", "B08"],
        )


# --------------------------------------------------------------------- nothing is described


@pytest.mark.parametrize(("count", "first"), [(12, "B01"), (10, "B02"), (4, "B02"), (3, "B04")])
def test_another_number_of_bands(tmp_path, write_tif, count: int, first: str) -> None:
    """Of a file that describes nothing, the bands have to be stated, and the example is right."""
    path = write_tif(tmp_path / "a.tif", constants(count))
    with pytest.raises(RasterError, match="another number of bands") as caught:
        read(path, "s2-l1c")
    bands = named_bands(caught.value)

    assert (first, count) == (bands[0], len(bands))
    assert tuple(bands) == read(path, "s2-l1c", bands=bands).spec.bands


def test_too_many_bands(tmp_path: Path, write_tif: WriteTif) -> None:
    """Thirteen bands are Level-1C, or have to be cut to twelve: both are named, and both help."""
    path = write_tif(tmp_path / "a (1).tif", constants(13))
    out = tmp_path / "out.tif"
    with pytest.raises(RasterError, match="state s2-l1c") as caught:
        read(path)
    run_rio(caught.value, {"OUT.tif": out})

    assert 13 == len(read(path, "s2-l1c").spec.bands)
    assert 12 == by_name(read(out))["B12"]


# --------------------------------------------------------------------- bands beside the image


@pytest.mark.parametrize(
    "name",
    [
        "QA60",
        "SCL",
        "MSK_CLDPRB",
        "cloud_probability",
        "probability",
        "AOT",
        "WVP",
        "sunAzimuthAngles",
    ],
)
def test_other_bands_are_left_out_and_said(tmp_path, write_tif, capsys, name: str) -> None:
    """A mask among the bands is passed over by its name, whatever its place, and said once."""
    names = [*L2A[:5], name, *L2A[5:]]
    path = write_tif(tmp_path / "a.tif", constants(13), descriptions=names)
    source = RasterSource("a", (path,), Sensor.S2_L2A, Unit.DN)
    with source.open() as raster:
        notes, image = raster.notes, raster.read()
    with source.open():
        pass

    assert {b: names.index(b) + 1 for b in L2A} == by_name(image)
    assert (f"{name}: left out, no band of s2-l2a that was asked for",) == notes
    assert capsys.readouterr().err.count(f"{name}: left out") <= 1
    assert image.spec.bands == read(path, bands=L2A).spec.bands


def test_a_stack_of_two_sensors(tmp_path: Path, write_tif: WriteTif) -> None:
    """VV and VH beside optical bands are left out of the optical image."""
    names = ["B02", "VV", "B03", "VH"]
    path = write_tif(tmp_path / "a.tif", constants(4), descriptions=names)

    assert {"B02": 1, "B03": 3} == by_name(read(path))


def test_only_other_bands(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file of masks holds no image."""
    path = write_tif(tmp_path / "a.tif", constants(2), descriptions=["QA60", "SCL"])

    with pytest.raises(RasterError, match="no band of s2-l2a"):
        read(path)


def test_a_band_that_is_read_is_no_mask(tmp_path: Path, write_tif: WriteTif) -> None:
    """GDAL calls the fourth of four 8-bit bands alpha; near infrared of 0 is a value."""
    pixels = constants(4, "uint8")
    pixels[3] = 0
    path = write_tif(tmp_path / "a.tif", pixels)

    assert bool(read(path, "naip", "uint8").valid.all())


def test_alpha_that_is_not_read_is_a_mask(tmp_path: Path, write_tif: WriteTif) -> None:
    """The same file read as RGB has a mask: alpha is 0 where there is no picture."""
    pixels = constants(4, "uint8")
    pixels[3] = 255
    pixels[3, 2, 3] = 0
    path = write_tif(tmp_path / "a.tif", pixels)
    image = read(path, "rgb", "uint8")

    assert ("R", "G", "B") == image.spec.bands
    assert [[0, 2, 3]] == (~image.valid).nonzero().tolist()


def test_data_mask_is_a_mask(tmp_path: Path, write_tif: WriteTif) -> None:
    """Sentinel Hub's dataMask is 0 where there are no data."""
    pixels = constants(3)
    pixels[2, 4, 5] = 0
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B02", "B03", "dataMask"])
    image = read(path)

    assert ("B02", "B03") == image.spec.bands
    assert [[0, 4, 5]] == (~image.valid).nonzero().tolist()


# -------------------------------------------------------------------------- names of files


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("B8A", NamedBand("B8A", "", True, 0)),
        ("blue", NamedBand("B02", "", True, 0)),
        ("T36KVU_20210513T073609_B02_10m", NamedBand("B02", "T36KVU_20210513T073609", True, 10)),
        ("T36KVU_20210513T073609_B8A_20m", NamedBand("B8A", "T36KVU_20210513T073609", True, 20)),
        (
            "2024-05-01_Sentinel-2_L2A_B02_(Raw)",
            NamedBand("B02", "2024-05-01_Sentinel-2_L2A", True, 0),
        ),
        (
            "HLS.S30.T36KVU.2021133T073609.v2.0.B02",
            NamedBand("B02", "HLS.S30.T36KVU.2021133T073609.v2.0", True, 0),
        ),
        (
            "S2A_36KVU_20210513_0_L2A_rededge1",
            NamedBand("B05", "S2A_36KVU_20210513_0_L2A", False, 0),
        ),
        ("x_red_edge_2", NamedBand("B06", "x", False, 0)),
        ("x_Band_4", NamedBand("B04", "x", True, 0)),
        ("x_VV", None),
        ("x_rededge", None),
        ("tile_17", None),
        ("B99", None),
        ("T36KVU_20210513T073609_TCI_10m", None),
    ],
)
def test_the_band_in_a_name(stem: str, expected: NamedBand | None) -> None:
    """Names of ESA, HLS, Copernicus Browser, Earth Search and bare ones say their band."""
    assert expected == named_band(stem, Sensor.S2_L2A)


@pytest.mark.parametrize(
    "name",
    ["T36KVU_20210513T073609_B04_10m.tif", "x_B04_(Raw).tif", "x.B04.tif", "red.tif", "b4.tif"],
)
def test_one_band_knows_itself(tmp_path: Path, write_tif: WriteTif, name: str) -> None:
    """A file of one band is that band, and a statement of another one is refused."""
    path = write_tif(tmp_path / name, constants(1))

    assert ("B04",) == read(path).spec.bands == read(path, bands=["B4"]).spec.bands
    with pytest.raises(RasterError, match="another band than stated") as caught:
        read(path, bands=["B02"])
    assert ("B04 by its name", "B02") == (caught.value.found, caught.value.expected)
    assert ("B04",) == read(path, bands=named_bands(caught.value)).spec.bands


def test_a_band_of_another_sensor(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file called B04 is not VV."""
    path = write_tif(tmp_path / "x_B04.tif", constants(1, "float32"))

    with pytest.raises(RasterError, match="B04 by its name"):
        read(path, "s1-grd", "power", bands=["VV"])


def test_name_and_description_of_one_band(tmp_path: Path, write_tif: WriteTif) -> None:
    """A description contradicts the name of its file, or says nothing that is understood."""
    good = write_tif(tmp_path / "x_B08.tif", constants(1), descriptions=["NIR_Broad"])
    vague = write_tif(tmp_path / "x_B05.tif", constants(1), descriptions=["rededge"])
    silent = write_tif(tmp_path / "x_B06.tif", constants(1), descriptions=["band_data"])
    bad = write_tif(tmp_path / "x_B04.tif", constants(1), descriptions=["B03"])

    assert [("B08",), ("B05",), ("B06",)] == [read(f).spec.bands for f in (good, vague, silent)]
    with pytest.raises(RasterError, match="B04 by its name"):
        read(bad)


def test_one_band_without_a_name(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file of one band that nobody names is no image of twelve."""
    path = write_tif(tmp_path / "a.tif", constants(1))
    with pytest.raises(RasterError, match="another number of bands") as caught:
        read(path)

    assert named_bands(caught.value) == list(read(path, bands=named_bands(caught.value)).spec.bands)


def test_bands_of_several_files_are_checked_too(tmp_path: Path, write_tif: WriteTif) -> None:
    """Two band files in the wrong order are refused."""
    files = tuple(write_tif(tmp_path / f"{b}.tif", constants(1)) for b in ("B03", "B02"))

    with pytest.raises(RasterError, match="B03 by its name"):
        RasterSource("x", files, Sensor.S2_L2A, Unit.DN, ("B02", "B03")).read()


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("S2A_MSIL1C_20210513T073611_T36KVU_B04.tif", "s2-l2a", "s2-l1c"),
        ("S2B_MSIL2A_20210513T073611_T36KVU_B04.tif", "s2-l1c", "s2-l2a"),
        ("HLS.S30.T36KVU.2021133T073609.v2.0.B04.tif", "s2-l1c", "s2-l2a"),
    ],
)
def test_the_product_in_a_name(tmp_path, write_tif, name: str, wrong: str, right: str) -> None:
    """A file named after a Level-1C product is not Level-2A, nor the other way round."""
    path = write_tif(tmp_path / name, constants(1))
    with pytest.raises(RasterError, match="another sensor or level") as caught:
        read(path, wrong)

    assert str(caught.value.remedy).startswith(f"state {right}, or rename the file")
    assert ("B04",) == read(path, right).spec.bands
    assert ("B04",) == read(path.rename(tmp_path / "x_B04.tif"), wrong).spec.bands


@pytest.mark.parametrize(
    "name", ["HLS.L30.T36KVU.2021133T073609.v2.0.B05.tif", "LC08_L2SP_170072_20210513_SR_B5.TIF"]
)
def test_landsat_is_not_sentinel_2(tmp_path: Path, write_tif: WriteTif, name: str) -> None:
    """Landsat's B05 is near infrared, Sentinel-2's the first red edge."""
    with pytest.raises(RasterError, match="another sensor") as caught:
        read(write_tif(tmp_path / name, constants(1)))

    assert "Landsat" == caught.value.found


def test_one_text_is_one_band(tmp_path: Path, write_tif: WriteTif) -> None:
    """`bands="B04"` is not the three bands B, 0 and 4."""
    path = write_tif(tmp_path / "a.tif", constants(3), descriptions=["B02", "B03", "B04"])

    assert {"B04": 3} == by_name(read(path, bands="B04"))


def test_what_a_message_says_to_type(tmp_path: Path, write_tif: WriteTif) -> None:
    """The option of a remedy is one of the command line, in the words that are printed."""
    for band in ("B02", "B03", "B04", "B08"):
        pixels = np.random.default_rng(0).integers(200, 3000, (32, 32)).astype(np.uint16)
        write_tif(tmp_path / f"in/T36KVU_20210513T073609_{band}_10m.tif", pixels)
    command = ["pack", "tiles", "--images", str(tmp_path / "in"), "--sensor", "s2-l2a"]
    command += ["--unit", "dn", "--window", "32", "--out", str(tmp_path / "store")]
    with pytest.raises(RasterError, match="lacks bands") as caught:
        list_sources(tmp_path / "in", Sensor.S2_L2A, Unit.DN)

    assert main(command) != 0
    assert 0 == main([*command, "--bands", *named_bands(caught.value)])


def test_real_files_say_nothing_wrong(real_data: Path) -> None:
    """The names of all published files at hand say the band that they hold."""
    for path in sorted((real_data / "bigearthnet_v1/BigEarthNet-v1.0").rglob("*.tif")):
        with RasterSource(path.stem, (path,), Sensor.S2_L2A, Unit.DN).open() as raster:
            assert path.stem.rpartition("_")[2] == raster.bands[0]
    for folder in (real_data / "bigearthnet_v1/BigEarthNet-S1-v1.0").iterdir():
        image = read(folder, "s1-grd", "db")
        assert ("VV", "VH") == image.spec.bands


# ------------------------------------------------------------------- what strangers brought


@pytest.mark.parametrize(
    ("sensor", "unit", "words"),
    [
        ("s2-l2a", "dn", [f"SR_B{i}" for i in range(1, 8)]),
        ("s2-l1c", "dn", ["sr_b2", "sr_b3"]),
        ("s1-grd", "db", ["HH", "HV"]),
        ("s1-rtc", "db", ["Sigma0_HH", "Sigma0_HV"]),
    ],
)
def test_bands_of_others_are_not_renamed(
    tmp_path: Path, write_tif: WriteTif, sensor: str, unit: str, words: list[str]
) -> None:
    """Landsat's SR_B5 is near infrared and no B05, HH is no VV; no remedy writes so into a file."""
    path = write_tif(tmp_path / "a.tif", constants(len(words)), descriptions=words)
    with pytest.raises(RasterError, match=f"bands that no {sensor} image has") as caught:
        read(path, sensor, unit)

    assert "--description" not in str(caught.value)


def test_landsat_beside_sentinel_is_left_to_choose(tmp_path: Path, write_tif: WriteTif) -> None:
    """The remedy names the bands that are understood, and stating them helps."""
    path = write_tif(tmp_path / "a.tif", constants(3), descriptions=["B02", "SR_B5", "B04"])
    with pytest.raises(RasterError, match="no s2-l2a image has") as caught:
        read(path)

    assert {"B02": 1, "B04": 3} == by_name(read(path, bands=named_bands(caught.value)))


def test_images_of_another_sensor_are_not_described_anew(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """VV and VH in a folder of Sentinel-2: the remedy keeps them apart."""
    path = write_tif(tmp_path / "a.tif", constants(2), descriptions=["VV", "VH"])
    with pytest.raises(RasterError, match="no band of s2-l2a") as caught:
        read(path)

    assert "--description" not in str(caught.value)
    assert "s1-grd or s1-rtc" in str(caught.value.remedy)
    assert ("VV", "VH") == read(path, "s1-grd", "power").spec.bands


def test_a_band_twice_is_corrected_by_the_remedy(tmp_path: Path, write_tif: WriteTif) -> None:
    """The remedy renames one of the two, and not a third one."""
    path = write_tif(tmp_path / "a.tif", constants(12), descriptions=[*L2A[:11], "B01"])
    with pytest.raises(RasterError, match="twice") as caught:
        read(path)
    run_rio(caught.value)

    assert L2A == read(path).spec.bands


def test_a_contradicted_description_is_the_one_in_the_remedy(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """Band 3 contradicts, and band 3 is corrected."""
    path = write_tif(tmp_path / "a.tif", constants(3), descriptions=["B02", "B03", "B05"])
    with pytest.raises(RasterError, match="otherwise than stated") as caught:
        read(path, bands=["B02", "B03", "B04"])
    run_rio(caught.value)

    assert ("B02", "B03", "B04") == read(path, bands=["B02", "B03", "B04"]).spec.bands


def test_alpha_among_the_bands_takes_none_away(tmp_path: Path) -> None:
    """GDAL may take the second of 13 bands for alpha: dropping it would move all others."""
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 13, "height": 8, "width": 8, "dtype": "uint16"}
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000)}
    with rasterio.open(path, "w", ALPHA="YES", **profile, **place) as file:
        file.write(constants(13))
        assert ColorInterp.alpha is file.colorinterp[1]

    with pytest.raises(RasterError, match="another number of bands"):
        read(path)
    assert dict(zip(L1C, range(1, 14), strict=True)) == by_name(read(path, "s2-l1c"))


@pytest.mark.parametrize("bands", [[], [2], [None, "B02"]])
def test_bands_are_names(tmp_path: Path, write_tif: WriteTif, bands: list[object]) -> None:
    """No band, and numbers, are refused as what they are, file or folder."""
    write_tif(tmp_path / "a.tif", constants(12))
    for source in (tmp_path / "a.tif", tmp_path):
        with pytest.raises(SpecError, match="bands are stated by name"):
            read(source, bands=bands)


@pytest.mark.parametrize("window", [(0, 0, 4), (0, 0, 4, 4, 4), "abcd", (0.5, 0, 4, 4), 5])
def test_a_window_is_four_numbers(tmp_path: Path, write_tif: WriteTif, window: object) -> None:
    """What is none is refused, by both readers."""
    path = write_tif(tmp_path / "a.tif", constants(12))
    with pytest.raises(RasterError, match="four whole numbers"):
        read(path, window=window)
    with pytest.raises(RasterError, match="four whole numbers"):
        eofm.open_scene(path, sensor="s2-l2a", unit="dn").read(window)  # type: ignore[arg-type]
    assert (4, 4) == tuple(read(path, window=np.array([0, 0, 4, 4])).pixels.shape[2:])


@pytest.mark.parametrize("stem", ["T32UPU_B04_clip", "B04_T32UPU", "x_B04_v1", "s_B04_20m_cut"])
def test_a_band_inside_a_name_contradicts_too(
    tmp_path: Path, write_tif: WriteTif, stem: str
) -> None:
    """Cut and renamed, B04 is still no B02."""
    path = write_tif(tmp_path / f"{stem}.tif", constants(1))
    with pytest.raises(RasterError, match="another band than stated"):
        read(path, bands=["B02"])

    assert {"B04": 1} == by_name(read(path, bands=["B04"]))


def test_products_in_lower_case(tmp_path: Path, write_tif: WriteTif) -> None:
    """A product that was renamed in lower case is the same product."""
    path = write_tif(tmp_path / "s2a_msil1c_20200101.tif", constants(12))
    with pytest.raises(RasterError, match="product of another sensor or level"):
        read(path)


@pytest.mark.parametrize("address", ["https://127.0.0.1:1/x.tif?key=secret", "s3://b/x.tif"])
def test_an_address_is_no_path(address: str) -> None:
    """`https://a` was "no such file https:/a"; the remedy names what reads it."""
    with pytest.raises(RasterError, match="files of this machine") as caught:
        read(address)  # type: ignore[arg-type]

    assert "read_scene" in caught.value.remedy
    assert "secret" not in str(caught.value)


def test_none_is_no_path() -> None:
    """It was a TypeError."""
    with pytest.raises(SpecError, match="no path"):
        read(None)  # type: ignore[arg-type]
