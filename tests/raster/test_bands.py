"""Which bands a file holds: descriptions, names of files, statements, and their contradictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.enums import ColorInterp
from remedies import named_bands, run_python, run_rio

import eofm
from eofm.cli import main
from eofm.contract.imagery import Imagery
from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster.bands import NamedBand, lay_out, named_band
from eofm.raster.folder import list_sources
from eofm.raster.geotiff import Header
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
    with pytest.raises(RasterError, match="not recognised") as caught:
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
    with pytest.raises(RasterError, match="not recognised") as caught:
        read(path)

    assert "'rededge' (can mean B05, B06, B07)" == caught.value.found
    assert {"B06": 1, "B04": 2} == by_name(read(path, bands=["B06", "B04"]))
    with pytest.raises(RasterError, match="contradict the stated bands"):
        read(path, bands=["B08", "B04"])
    run_rio(caught.value)
    assert ("B05", "B04") == read(path).spec.bands


def test_a_missing_description_is_an_error(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file that names some bands and not others does not fall back to an order."""
    path = write_tif(tmp_path / "a.tif", constants(12), descriptions=[*L2A[:-1], ""])

    with pytest.raises(RasterError, match="a band without a description"):
        read(path)


@pytest.mark.parametrize("word", ["Band {}", "band_{}", "b{}", "{}", "Layer {}"])
def test_numbers_are_no_names(tmp_path: Path, write_tif: WriteTif, word: str) -> None:
    """Bands that are only counted are undescribed: the ninth of 13 is B8A, and a statement counts.

    GDAL's ENVI driver writes `Band 1`; four such bands were read as B01 B02 B03 B04.
    """

    def numbered(count: int) -> Path:
        names = [word.format(k) for k in range(1, count + 1)]
        return write_tif(tmp_path / f"{count}.tif", constants(count), descriptions=names)

    assert dict(zip(L1C, range(1, 14), strict=True)) == by_name(read(numbered(13), "s2-l1c"))
    assert 9 == by_name(read(numbered(12)))["B8A"]
    for count, sensor in ((4, "s2-l2a"), (12, "s2-l1c")):
        with pytest.raises(RasterError, match="number of bands in the file") as caught:
            read(numbered(count), sensor)
        assert "if they are these" in str(caught.value.remedy)
        bands = named_bands(caught.value)
        assert tuple(bands) == read(numbered(count), sensor, bands=bands).spec.bands
    pixels = np.stack([np.full((8, 8), value, "float32") for value in (-10.5, -17.5)])
    radar = write_tif(tmp_path / "s1.tif", pixels, descriptions=[word.format(1), word.format(2)])
    assert ("VV", "VH") == read(radar, "s1-grd", "db").spec.bands


def test_numbers_beside_a_mask_and_in_one_band(tmp_path: Path, write_tif: WriteTif) -> None:
    """What is counted stays uncounted beside QA60, and `Band 1` does not contradict a name."""
    names = [*(f"Band {k}" for k in range(1, 13)), "QA60"]
    path = write_tif(tmp_path / "a.tif", constants(13), descriptions=names)
    with pytest.raises(RasterError, match="not recognised"):
        read(path)
    assert 9 == by_name(read(path, bands=L2A))["B8A"]
    alone = write_tif(tmp_path / "x_B04.tif", constants(1), descriptions=["Band 1"])
    assert ("B04",) == read(alone).spec.bands == read(alone, bands=["B04"]).spec.bands


def test_numbers_that_can_be_names_need_a_statement(tmp_path: Path, write_tif: WriteTif) -> None:
    """`B1 B2 B3 B4` is of Earth Engine, or counts: either is stated, and neither is guessed."""
    names = ["B1", "B2", "B3", "B4"]
    path = write_tif(tmp_path / "a.tif", constants(4), descriptions=names)
    for stated in (None, ["B02"]):
        with pytest.raises(RasterError, match="can be Sentinel-2 band names") as caught:
            read(path, bands=stated)
        assert ["B01", "B02", "B03", "B04"] == named_bands(caught.value)

    for bands in (named_bands(caught.value), ["B02", "B03", "B04", "B08"]):
        assert tuple(bands) == read(path, bands=bands).spec.bands
    engine = write_tif(tmp_path / "b.tif", constants(5), descriptions=[*names, "QA60"])
    assert ("B01", "B02", "B03", "B04") == read(engine).spec.bands
    whole = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"]
    full = write_tif(tmp_path / "c.tif", constants(12), descriptions=whole)
    assert L2A == read(full).spec.bands


def test_the_number_of_an_image_is_no_part_of_a_band(tmp_path: Path, write_tif: WriteTif) -> None:
    """Earth Engine's `B1_1` is the B1 of a second image; it was read as B11."""
    names = ["B1", "B1_1", "B2", "B3"]
    path = write_tif(tmp_path / "a.tif", constants(4), descriptions=names)
    with pytest.raises(RasterError, match="not recognised") as caught:
        read(path)
    assert "'B1_1'" == caught.value.found
    assert "B11" not in str(caught.value.remedy)
    chosen = read(path, bands=named_bands(caught.value))
    assert {"B01": 1, "B02": 3, "B03": 4} == by_name(chosen)

    every = write_tif(tmp_path / "b.tif", constants(3), descriptions=["B1_1", "B2_1", "B8_1"])
    for _ in range(3):
        with pytest.raises(RasterError, match="not recognised") as caught:
            read(every)
        run_rio(caught.value)
    assert {"B01": 1, "B02": 2, "B08": 3} == by_name(read(every))
    assert named_band("x_B1_1", Sensor.S2_L1C) is None
    with pytest.raises(RasterError, match="another band than stated"):
        read(write_tif(tmp_path / "x_B1_1.tif", constants(1)), bands=["B11"])


def test_the_index_of_an_image_before_a_name_is_no_part_of_it(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """Earth Engine's `toBands()`: masks were unknown bands, and radar had no band at all."""
    index = "1_20220301T103021_20220301T103026_T32UPU_"
    names = [index + name for name in ("B2", "B3", "SCL", "QA60")]
    values = constants(4)
    values[2, :4], values[2, 4:] = 9, 4
    path = write_tif(tmp_path / "a.tif", values, descriptions=names)
    found = read(path, cloud_mask="SCL")
    assert {"B02": 1, "B03": 2} == by_name(found)
    assert not found.valid[0, :4].any()
    assert found.valid[0, 4:].all()

    index = "S1A_IW_GRDH_1SDV_20220301T103021_20220301T103026_042134_0504F0_A1B2_"
    names = [index + name for name in ("VV", "VH", "angle")]
    path = write_tif(tmp_path / "b.tif", constants(3), descriptions=names)
    assert {"VV": 1, "VH": 2} == by_name(read(path, "s1-grd", "db"))


@pytest.mark.parametrize("words", ["R G B NIR", "b g r nir"])
def test_letters_of_aerial_images(tmp_path: Path, write_tif: WriteTif, words: str) -> None:
    """R, G and B of Sentinel-2 were left out, and near infrared read alone."""
    path = write_tif(tmp_path / "a.tif", constants(4), descriptions=words.split())
    with pytest.raises(RasterError, match="as another sensor does") as caught:
        read(path)

    bands = named_bands(caught.value)
    assert words[0].upper() == {"B04": "R", "B02": "B"}[bands[0]]
    assert tuple(bands) == read(path, bands=bands).spec.bands
    assert ["B08"] == list(read(path, bands=["B08"]).spec.bands)
    with pytest.raises(RasterError, match="contradict the stated bands"):
        read(path, bands=["B08", "B03", "B05", "B01"])
    assert "state naip" in str(caught.value.remedy)
    pixels = constants(4, "uint8")
    as_naip = write_tif(tmp_path / "b.tif", pixels, descriptions=words.split())
    assert set(SENSOR_BANDS[Sensor.NAIP]) == set(read(as_naip, "naip", "uint8").spec.bands)


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
    with pytest.raises(RasterError, match="contradict the stated bands"):
        read(
            write_tif(tmp_path / "b.tif", constants(3), descriptions=["B02", "B03", "B04"]),
            bands=["B02", "B08"],
        )


# --------------------------------------------------------------------- nothing is described


@pytest.mark.parametrize(("count", "first"), [(12, "B01"), (10, "B02"), (4, "B02"), (3, "B04")])
def test_another_number_of_bands(tmp_path, write_tif, count: int, first: str) -> None:
    """Of a file that describes nothing, the bands have to be stated, and the example is right."""
    path = write_tif(tmp_path / "a.tif", constants(count))
    with pytest.raises(RasterError, match="number of bands in the file") as caught:
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
    mask = name in {"SCL", "QA60", "MSK_CLDPRB", "cloud_probability", "probability"}
    use = "a cloud mask, applied only" if mask else "left out, not a requested band of s2-l2a"
    (note,) = notes
    assert note.startswith(f"{name}: {use}")
    assert capsys.readouterr().err.count(note) <= 1
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
    assert ("B04, by its name", "B02") == (caught.value.found, caught.value.expected)
    assert ("B04",) == read(path, bands=named_bands(caught.value)).spec.bands


def test_a_band_of_another_sensor(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file called B04 is not VV."""
    path = write_tif(tmp_path / "x_B04.tif", constants(1, "float32"))

    with pytest.raises(RasterError, match="B04, by its name") as caught:
        read(path, "s1-grd", "power", bands=["VV"])
    assert "--bands" not in str(caught.value)


def test_name_and_description_of_one_band(tmp_path: Path, write_tif: WriteTif) -> None:
    """A description contradicts the name of its file, or says nothing that is understood."""
    good = write_tif(tmp_path / "x_B08.tif", constants(1), descriptions=["NIR_Broad"])
    vague = write_tif(tmp_path / "x_B05.tif", constants(1), descriptions=["rededge"])
    silent = write_tif(tmp_path / "x_B06.tif", constants(1), descriptions=["band_data"])
    bad = write_tif(tmp_path / "x_B04.tif", constants(1), descriptions=["B03"])

    assert [("B08",), ("B05",), ("B06",)] == [read(f).spec.bands for f in (good, vague, silent)]
    with pytest.raises(RasterError, match="B04, by its name"):
        read(bad)


def test_one_band_without_a_name(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file of one band that nobody names is no image of twelve."""
    path = write_tif(tmp_path / "a.tif", constants(1))
    with pytest.raises(RasterError, match="band of a single-band file is unknown") as caught:
        read(path)

    assert ["NAME"] == named_bands(caught.value)
    for band in ("B01", "B12"):
        assert band in str(caught.value.remedy)
        assert (band,) == read(path, bands=[band]).spec.bands


def test_bands_of_several_files_are_checked_too(tmp_path: Path, write_tif: WriteTif) -> None:
    """Two band files in the wrong order are refused."""
    files = tuple(write_tif(tmp_path / f"{b}.tif", constants(1)) for b in ("B03", "B02"))

    with pytest.raises(RasterError, match="B03, by its name"):
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
    for seed, band in enumerate(("B02", "B03", "B04", "B08")):
        pixels = np.random.default_rng(seed).integers(200, 3000, (32, 32)).astype(np.uint16)
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
    with pytest.raises(RasterError, match="contradict the stated bands") as caught:
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

    with pytest.raises(RasterError, match="number of bands in the file"):
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
    with pytest.raises(RasterError, match="four integers"):
        read(path, window=window)
    with pytest.raises(RasterError, match="four integers"):
        eofm.open_scene(path, sensor="s2-l2a", unit="dn").read(window)  # type: ignore[arg-type]
    assert (4, 4) == tuple(read(path, window=np.array([0, 0, 4, 4])).pixels.shape[2:])


@pytest.mark.parametrize(
    "stem",
    [
        *("T32UPU_B04_clip", "B04_T32UPU", "x_B04_v1", "s_B04_20m_cut"),
        *("T32_b04_clip", "T32_B4_clip", "T32_Band_4_clip", "T32_red_clip", "T32_RED", "x_red_v1"),
    ],
)
def test_a_band_inside_a_name_contradicts_too(
    tmp_path: Path, write_tif: WriteTif, stem: str
) -> None:
    """Cut and renamed, in every spelling, B04 is still no B02."""
    path = write_tif(tmp_path / f"{stem}.tif", constants(1))
    with pytest.raises(RasterError, match="another band than stated") as caught:
        read(path, bands=["B02"])

    assert ["B04"] == named_bands(caught.value)
    assert {"B04": 1} == by_name(read(path, bands=["B04"]))


@pytest.mark.parametrize(
    "stem",
    [
        "s1a-iw-grd-vh-20210704t053018-20210704t053043-038624-048ebd-002",
        "s1a-vh-g-lin",
        "S1A__IW___A_20210704_VH_gamma0-rtc",
    ],
)
def test_a_polarisation_inside_a_name(tmp_path: Path, write_tif: WriteTif, stem: str) -> None:
    """A file of VH was read as VV, and the remedy said to do so."""
    path = write_tif(tmp_path / f"{stem}.tiff", np.full((1, 8, 8), -17.5, "float32"))
    with pytest.raises(RasterError, match="another band than stated") as caught:
        read(path, "s1-grd", "db", bands=["VV"])
    assert ["VH"] == named_bands(caught.value)
    assert ("VH",) == read(path, "s1-grd", "db", bands=["VH"]).spec.bands
    if not stem.startswith("S1A"):  # of which the end is a band with what SNAP writes around it
        with pytest.raises(RasterError, match="band of a single-band file is unknown") as caught:
            read(path, "s1-grd", "db")
        assert ["VH"] == named_bands(caught.value)


@pytest.mark.parametrize(
    ("stem", "band"),
    [
        ("T32_red_edge_1_clip", "B05"),
        ("T32_nir_narrow_clip", "B8A"),
        ("B8_B4_ratio", "B08"),
        ("site_b_2020", "B08"),
        ("site_b_12_x", "B08"),
        ("red_sea", "B02"),
        ("plot_n_1", "B02"),
        ("T32UPU_20210704_x", "B03"),
    ],
)
def test_a_name_that_says_nothing_else(
    tmp_path: Path, write_tif: WriteTif, stem: str, band: str
) -> None:
    """The longest word is meant, several bands say nothing, and letters count."""
    path = write_tif(tmp_path / f"{stem}.tif", constants(1))

    assert (band,) == read(path, bands=[band]).spec.bands


def test_a_name_that_can_be_several_bands(tmp_path: Path, write_tif: WriteTif) -> None:
    """`rededge` is one of three: none is offered alone, and another one contradicts."""
    path = write_tif(tmp_path / "T32_rededge_clip.tif", constants(1))
    with pytest.raises(RasterError, match="another band than stated") as caught:
        read(path, bands=["B02"])
    assert "which one it is, B05 or B06 or B07" in str(caught.value.remedy)

    for band in ("B05", "B06", "B07"):
        assert (band,) == read(path, bands=[band]).spec.bands


def test_a_name_that_lists_bands_in_another_order(tmp_path: Path, write_tif: WriteTif) -> None:
    """`VH_VV` may say that VH is first: either order is read as it is stated."""
    pixels = np.stack([np.full((8, 8), value, "float32") for value in (-17.5, -10.5)])
    path = write_tif(tmp_path / "S1A_VH_VV.tif", pixels)
    with pytest.raises(RasterError, match="in an unusual order") as caught:
        read(path, "s1-grd", "db")

    assert ("VH", "VV") == read(path, "s1-grd", "db", bands=named_bands(caught.value)).spec.bands
    right = write_tif(tmp_path / "S1A_VV_VH.tif", pixels[::-1])
    assert ("VV", "VH") == read(right, "s1-grd", "db").spec.bands


def coloured(path: Path, colours: str, dtype: str = "uint16", **profile: object) -> Path:
    """Write bands that describe nothing and that GDAL takes for colours."""
    names = colours.split()
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000)}
    with rasterio.open(
        path, "w", "GTiff", 8, 8, len(names), dtype=dtype, **place, **profile
    ) as file:
        file.write(constants(len(names), dtype))
        file.colorinterp = [ColorInterp[name] for name in names]
    return path


@pytest.mark.parametrize("sensor", ["rgb", "naip"])
def test_colours_that_contradict_an_order(tmp_path: Path, sensor: str) -> None:
    """Blue, green, red was read as red, green, blue."""
    colours = "blue green red" + " undefined" * (sensor == "naip")
    path = coloured(tmp_path / "a.tif", colours, "uint8")
    with pytest.raises(RasterError, match="colour interpretation") as caught:
        read(path, sensor, "uint8")
    image = read(path, sensor, "uint8", bands=named_bands(caught.value))
    assert {"B": 1, "G": 2, "R": 3} == {b: k for b, k in by_name(image).items() if b != "N"}
    run_python(caught.value)

    assert 1 == by_name(read(path, sensor, "uint8"))["R"]


def test_colours_of_too_many_bands(tmp_path: Path) -> None:
    """The stack that the remedy makes of blue, green, red and another has them in order."""
    path = coloured(tmp_path / "a.tif", "blue green red undefined", "uint8")
    with pytest.raises(RasterError, match="colour interpretation") as caught:
        read(path, "rgb", "uint8")
    run_rio(caught.value, {"OUT.tif": tmp_path / "out.tif"})

    assert {"R": 3, "G": 2, "B": 1} == by_name(read(tmp_path / "out.tif", "rgb", "uint8"))


def test_colours_behind_another_band(tmp_path: Path) -> None:
    """Red, green and blue behind near infrared are kept by the remedy, each where it is."""
    path = coloured(tmp_path / "a.tif", "undefined blue green red", "uint8")
    with pytest.raises(RasterError, match="colour interpretation") as caught:
        read(path, "rgb", "uint8")
    run_rio(caught.value, {"OUT.tif": tmp_path / "out.tif"})

    assert {"R": 4, "G": 3, "B": 2} == by_name(read(tmp_path / "out.tif", "rgb", "uint8"))
    with pytest.raises(RasterError, match="colour interpretation") as caught:
        read(path, "naip", "uint8")
    assert ["N", "B", "G", "R"] == named_bands(caught.value)
    found = by_name(read(path, "naip", "uint8", bands=named_bands(caught.value)))
    assert {"N": 1, "B": 2, "G": 3, "R": 4} == found


def test_colours_and_sentinel_2(tmp_path: Path) -> None:
    """A reversed order is refused; a composite, and what a format calls any bands, says nothing."""
    path = coloured(tmp_path / "a.tif", "blue green red undefined")
    with pytest.raises(RasterError, match="colour interpretation") as caught:
        read(path, bands=["B04", "B03", "B02", "B08"])
    with pytest.raises(RasterError, match="number of bands in the file") as counted:
        read(path)

    for error in (caught.value, counted.value):
        bands = named_bands(error)
        assert ["B02", "B03", "B04", "B08"] == bands
        assert tuple(bands) == read(path, bands=bands).spec.bands
    shown = coloured(tmp_path / "b.tif", "red green blue")
    assert 1 == by_name(read(shown, bands=["B08", "B04", "B03"]))["B08"]
    assert 1 == by_name(read(shown, bands=["B02", "B03", "B04"]))["B02"]


def test_tags_of_a_sentinel_2_product(tmp_path: Path, write_tif: WriteTif) -> None:
    """GDAL copies the level and the names of bands from a product into the tags of a file."""
    path = write_tif(tmp_path / "a.tif", constants(2), tags={"PROCESSING_LEVEL": "Level-1C"})
    with rasterio.open(path, "r+") as file:
        file.update_tags(1, BANDNAME="B4")
        file.update_tags(2, BANDNAME="B8A")

    assert {"B04": 1, "B8A": 2} == by_name(read(path, "s2-l1c"))
    with pytest.raises(RasterError, match="tags of the file") as caught:
        read(path)
    run_rio(caught.value)
    assert ("B04", "B8A") == read(path).spec.bands


def test_a_colour_table_is_no_measurement(tmp_path: Path) -> None:
    """Numbers of colours were read as red; the command that is printed writes the colours."""
    path = tmp_path / "a b.tif"
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000)}
    with rasterio.open(path, "w", "GTiff", 8, 8, 1, dtype="uint8", **place) as file:
        file.write(np.full((1, 8, 8), 7, "uint8"))
        file.write_colormap(1, {7: (10, 20, 30, 255)})
    for sensor, unit, bands in (("rgb", "uint8", ["R"]), ("s2-l2a", "dn", None)):
        with pytest.raises(RasterError, match="indices of a colour table"):
            read(path, sensor, unit, bands=bands)
    with pytest.raises(RasterError, match="indices of a colour table") as caught:
        read(path, "rgb", "uint8")
    out = Path(run_python(caught.value)[1])

    assert {"R": 1, "G": 2, "B": 3} == by_name(read(out, "rgb", "uint8"))


def test_a_grey_picture_is_not_red(tmp_path: Path, write_tif: WriteTif) -> None:
    """The remedy of a file of one band was to call it R."""
    path = write_tif(tmp_path / "a.tif", constants(1, "uint8"))
    with pytest.raises(RasterError, match="band of a single-band file is unknown") as caught:
        read(path, "rgb", "uint8")

    assert str(caught.value.remedy).startswith("leave it out")
    assert ["NAME"] == named_bands(caught.value)


def test_a_mask_beside_an_image_of_all_bands_is_no_band(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """The remedy of `a_SCL.tif` beside `a.tif` was to state which band it is."""
    folder = tmp_path / "images"
    write_tif(folder / "a.tif", constants(12))
    mask = write_tif(folder / "a_SCL_20m.tif", constants(1, "uint8"))
    with pytest.raises(RasterError, match="band of a single-band file is unknown") as caught:
        read(mask, "s2-l2a", "dn")
    assert str(caught.value.remedy).startswith(
        "if it is the cloud mask SCL, move it out of the folder"
    )
    mask.rename(tmp_path / mask.name)
    (source,) = list_sources(folder, Sensor.S2_L2A, Unit.DN)
    assert "a" == source.name


def test_pages_are_stacked(tmp_path: Path, write_tif: WriteTif) -> None:
    """The first of two pages was offered as B01."""
    path = tmp_path / "a.tif"
    write_tif(path, constants(1))
    write_tif(path, 3 * constants(1), APPEND_SUBDATASET="YES")
    for bands in (None, ["B02"]):
        with pytest.raises(RasterError, match="only the first") as caught:
            read(path, bands=bands)
    out = tmp_path / "out.tif"
    run_rio(caught.value, {"OUT.tif": out})

    assert {"B02": 1, "B03": 3} == by_name(read(out, bands=["B02", "B03"]))


def test_many_pages_are_stacked_in_order(tmp_path: Path, write_tif: WriteTif) -> None:
    """GDAL lists page 10 before page 2: stacked so, its B02 was B10 of the product."""
    path = write_tif(tmp_path / "a.tif", constants(1))
    for k in range(2, 13):
        write_tif(path, k * constants(1), APPEND_SUBDATASET="YES")
    with pytest.raises(RasterError, match="only the first") as caught:
        read(path)
    out = tmp_path / "out.tif"
    run_rio(caught.value, {"OUT.tif": out})

    bands = SENSOR_BANDS[Sensor.S2_L2A]
    assert dict(zip(bands, range(1, 13), strict=True)) == by_name(read(out))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("named", ["a.tif", "T32_B02.tif"])
def test_one_of_several_pages_is_named(
    tmp_path: Path, write_tif: WriteTif, named: str, bare: bool
) -> None:
    """Of two images in a file the first was read without a word, or none lay anywhere."""
    bands = ["B02"] if "B02" in named else ["B02", "B03"]
    path = tmp_path / named
    for k in (1, 2):
        pixels = k * constants(len(bands))
        extra = {"crs": None, "bare": True} if bare else {}
        write_tif(path, pixels, APPEND_SUBDATASET="NO" if k == 1 else "YES", **extra)
    stated = {"sensor": "s2-l2a", "unit": "dn", "bands": bands}
    for call in (eofm.read_geotiff, eofm.open_scene, eofm.read_scene):
        for place in (path, path.parent):
            with pytest.raises(RasterError, match="several images, and") as caught:
                call(place, **stated)
    remedy = str(caught.value.remedy)
    first = remedy.partition("eofm.read_scene('")[2].partition("'")[0]

    more = {**stated, "gsd": 10} if bare else stated
    second = first.replace(":1:", ":2:")
    for name, k in ((first, 1), (second, 2)):
        found = eofm.read_scene(name, **more)
        assert {b: k * v for v, b in enumerate(bands, 1)} == by_name(found)
        if not bare:
            assert torch.equal(found.pixels, eofm.read_geotiff(name, **stated).pixels)
    if len(bands) > 1:
        run_python(caught.value)
        apart = eofm.read_scene(path.with_name("a_1.tif"), **more)
        assert {"B02": 1, "B03": 2} == by_name(apart)


def test_pages_of_an_address_are_named_without_its_key(tmp_path: Path) -> None:
    """GDAL's name of a page is the whole address."""
    address = "/vsicurl/https://a.org/a.tif?sig=SECRET"
    header = Header(
        Path("a.tif"), ("", ""), pages=(f"GTIFF_DIR:1:{address}", f"GTIFF_DIR:2:{address}")
    )
    with pytest.raises(RasterError, match="several images") as caught:
        lay_out(header, Sensor.S2_L2A, None)

    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("word", ["Amplitude_{}", "i_{}", "Intensity_{}", "Beta0_{}", "q_{}_mst"])
def test_what_is_not_calibrated_is_not_renamed(
    tmp_path: Path, write_tif: WriteTif, word: str
) -> None:
    """The remedy renamed amplitudes VV."""
    names = [word.format("VV"), word.format("VH")]
    path = write_tif(tmp_path / "a.tif", constants(2, "float32"), descriptions=names)
    with pytest.raises(RasterError, match="not calibrated backscatter") as caught:
        read(path, "s1-grd", "power")
    assert "--description" not in str(caught.value)
    both = write_tif(
        tmp_path / "b.tif", constants(2, "float32"), descriptions=[names[0], "Sigma0_VV"]
    )
    with pytest.raises(RasterError, match="not calibrated backscatter") as caught:
        read(both, "s1-grd", "power")

    assert {"VV": 2} == by_name(read(both, "s1-grd", "power", bands=named_bands(caught.value)))
    for name in (word.format("VV"), f"x_{word.format('VV')}_cut"):
        alone = write_tif(tmp_path / f"{name}.tif", constants(1, "float32"))
        for bands in (None, ["VV"]):
            with pytest.raises(RasterError, match="not calibrated backscatter"):
                read(alone, "s1-grd", "power", bands=bands)


@pytest.mark.parametrize(
    ("count", "sensor", "stated", "words"),
    [
        (1, "naip", ["R", "G"], "leave it out"),
        (1, "s2-l2a", ["B02", "B03"], "state its band"),
        (2, "rgb", None, "--bands R G"),
        (5, "s2-l2a", None, "--bands NAME NAME"),
        (5, "rgb", None, "if the first 3 are those of rgb"),
    ],
)
def test_no_band_is_offered_without_a_condition(
    tmp_path: Path, write_tif: WriteTif, count: int, sensor: str, stated: list[str], words: str
) -> None:
    """An example of bands that nobody knows of is one only if they are these."""
    path = write_tif(tmp_path / "a.tif", constants(count))
    with pytest.raises(RasterError, match="number of bands in the file") as caught:
        read(path, sensor, "dn" if sensor == "s2-l2a" else "uint8", bands=stated)

    remedy = str(caught.value.remedy)
    assert words in remedy
    assert "if " in remedy or "NAME" in remedy


def test_products_in_lower_case(tmp_path: Path, write_tif: WriteTif) -> None:
    """A product that was renamed in lower case is the same product."""
    path = write_tif(tmp_path / "s2a_msil1c_20200101.tif", constants(12))
    with pytest.raises(RasterError, match="product of another sensor or level"):
        read(path)


@pytest.mark.parametrize("address", ["https://127.0.0.1:1/x.tif?key=secret", "s3://b/x.tif"])
def test_an_address_is_no_path(address: str) -> None:
    """`https://a` was "no such file https:/a"; the remedy names what reads it."""
    with pytest.raises(RasterError, match="local files only") as caught:
        read(address)  # type: ignore[arg-type]

    assert "read_scene" in caught.value.remedy
    assert "secret" not in str(caught.value)


def test_none_is_no_path() -> None:
    """It was a TypeError."""
    with pytest.raises(SpecError, match="not a path"):
        read(None)  # type: ignore[arg-type]


def test_a_list_of_files_is_no_path(tmp_path: Path, write_bands: WriteTif) -> None:
    """The remedy names their folder, which is read."""
    write_bands(tmp_path / "in", {"B02": 12, "B03": 12})
    files = sorted((tmp_path / "in").iterdir())
    with pytest.raises(SpecError, match="not a path") as caught:
        read(files, bands=["B02", "B03"])  # type: ignore[arg-type]
    folder = str(caught.value.remedy).split("'")[1]
    assert ("B02", "B03") == read(Path(folder), bands=["B02", "B03"]).spec.bands
    with pytest.raises(SpecError, match="not a path") as caught:
        read([*files, tmp_path / "B04.tif"])  # type: ignore[arg-type]
    for file in files:
        file.rename(tmp_path / file.name)
    assert "move them into one" in str(caught.value.remedy)
    assert ("B02", "B03") == read(tmp_path, bands=["B02", "B03"]).spec.bands


def test_numbers_as_names_are_stated_as_the_remedy_says(tmp_path: Path, write_tif) -> None:
    """Twelve numbers of Level-2A cannot be names, for it has no B10: the usual order is offered."""
    pixels = np.full((12, 6, 6), 900, np.uint16)
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=[f"B{k}" for k in range(1, 13)])
    stated = {"sensor": "s2-l2a", "unit": "dn"}
    with pytest.raises(RasterError, match="described by numbers") as refused:
        eofm.read_geotiff(path, **stated)
    offered = str(refused.value.remedy).split("--bands ")[1:]

    assert 1 == len(offered)
    for words in offered:
        bands = words.partition(";")[0].split()
        assert tuple(bands) == eofm.read_geotiff(path, bands=bands, **stated).spec.bands


def envi(path: Path, waves: list[float], unit: str, names: list[str] | None = None) -> Path:
    """Write constants as a raw ENVI image, with wavelengths and perhaps names in its header."""
    values = constants(len(waves))
    values.tofile(path)
    head = ["ENVI", "samples = 8", "lines = 8", f"bands = {len(values)}", "header offset = 0"]
    head += ["file type = ENVI Standard", "data type = 12", "interleave = bsq", "byte order = 0"]
    head += ["map info = {UTM, 1, 1, 500000, 5400000, 10, 10, 32, North, WGS-84}"]
    head += [f"wavelength units = {unit}"] if unit else []
    head += [f"wavelength = {{{', '.join(map(str, waves))}}}"] if unit else []
    head += [f"band names = {{{', '.join(names)}}}"] if names else []
    path.with_suffix(".hdr").write_text("\n".join(head) + "\n")
    return path


ENVI = [
    ([664.6, 559.8, 492.4, 832.8], "Nanometers", None, "B04 B03 B02 B08"),
    ([0.665, 0.56, 0.49, 0.842], "Micrometers", None, "B04 B03 B02 B08"),
    ([664.9, 2185.7], "Nanometers", ["B4", "B12"], "B04 B12"),
    ([664.9, 2185.7], "Nanometers", ["Band 1", "Band 2"], "B04 B12"),
    ([1.0, 2.0], "", ["red", "swir22"], "B04 B12"),
]


@pytest.mark.parametrize(("waves", "unit", "names", "meant"), ENVI)
def test_wavelengths_of_envi_are_its_bands(
    tmp_path: Path, waves: list[float], unit: str, names: list[str] | None, meant: str
) -> None:
    """The remedy converts it, which was "copy it again"; `Band 1 (665 nm)` was B01."""
    path = envi(tmp_path / "a.img", waves, unit, names)
    for call in (eofm.read_geotiff, eofm.open_scene):
        with pytest.raises(RasterError, match="cannot be read as a GeoTIFF") as caught:
            call(path, sensor="s2-l2a", unit="dn")
    assert "a raster in the format ENVI" == caught.value.found
    run_python(caught.value)

    assert {b: k for k, b in enumerate(meant.split(), 1)} == by_name(read(path.with_suffix(".tif")))


def test_envi_that_names_nothing_is_stated(tmp_path: Path) -> None:
    """Two bands without names and wavelengths need `--bands`, as the remedy says."""
    path = envi(tmp_path / "a.img", [1, 2], "")
    with pytest.raises(RasterError) as caught:
        read(path)
    run_python(caught.value)
    with pytest.raises(RasterError) as unnamed:
        read(path.with_suffix(".tif"))

    assert "--bands NAME NAME" in str(unnamed.value.remedy)
    assert {"B04": 1, "B08": 2} == by_name(read(path.with_suffix(".tif"), bands=["B04", "B08"]))


@pytest.mark.parametrize("waves", [[443, 482, 561.4, 654.6], [431.0, 443.0, 565.0, 610.0]])
def test_wavelengths_of_another_sensor_are_no_bands(
    tmp_path: Path, write_tif: WriteTif, waves: list[float]
) -> None:
    """Landsat's and Planet's, of which some fit, are not understood; those that fit can be had."""
    names = [f"{wave} Nanometers" for wave in waves]
    path = write_tif(tmp_path / "a.tif", constants(4), descriptions=names)
    with pytest.raises(RasterError, match="not recognised") as caught:
        read(path)

    assert named_bands(caught.value) == list(read(path, bands=named_bands(caught.value)).spec.bands)


def test_a_spectrum_is_no_image_of_sentinel_2(tmp_path: Path, write_tif: WriteTif) -> None:
    """Of the 220 narrow bands of a spectrometer, those that fit are not Sentinel-2's."""
    names = [f"{400 + 9.5 * k:.1f} Nanometers" for k in range(220)]
    path = write_tif(tmp_path / "a.tif", np.full((220, 4, 4), 700, np.uint16), descriptions=names)

    for bands in (None, ["B04"]):
        with pytest.raises(RasterError, match="spectrum of narrow bands") as caught:
            read(path, bands=bands)
    assert len(str(caught.value)) < 600


def test_the_narrow_band_beside_the_broad_one_is_offered(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """The remedy called the second of two near infrared bands B01."""
    names = ["BLUE", "GREEN", "RED", "NIR", "near infrared", "SWIR1", "SWIR2"]
    path = write_tif(tmp_path / "a.tif", constants(7), descriptions=names)
    with pytest.raises(RasterError, match="describes a band twice") as caught:
        read(path)
    run_rio(caught.value)

    meant = ["B02", "B03", "B04", "B08", "B8A", "B11", "B12"]
    assert {band: k for k, band in enumerate(meant, 1)} == by_name(read(path))


@pytest.mark.parametrize("names", [("0_B02", "0_B03", "1_B02", "1_B03"), ("B02", "B03") * 2])
def test_one_date_of_a_stack_is_kept(
    tmp_path: Path, write_tif: WriteTif, names: tuple[str, ...]
) -> None:
    """The remedy was to describe a band by NAME."""
    path = write_tif(tmp_path / "a.tif", constants(4), descriptions=names)
    with pytest.raises(RasterError, match="a band twice") as caught:
        read(path)
    bands = named_bands(caught.value)

    out = run_rio(caught.value)[-1]

    assert {"B02": 1, "B03": 2} == by_name(read(Path(out), bands=bands))


def test_what_is_no_band_is_left_out_where_all_others_are_there(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """`VV/VH` was to be described as VV, which would be there twice."""
    pixels = np.full((3, 8, 8), -11.5, np.float32)
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["VV", "VH", "VV/VH"])
    with pytest.raises(RasterError, match="not recognised") as caught:
        eofm.read_geotiff(path, sensor="s1-grd", unit="db")
    assert "edit-info" not in str(caught.value.remedy)

    bands = named_bands(caught.value)

    assert ("VV", "VH") == eofm.read_geotiff(
        path, sensor="s1-grd", unit="db", bands=bands
    ).spec.bands


@pytest.mark.parametrize(
    "name", ["S1A__IW___A_20230501T170536_{}_grd_ML_gamma0-rtc", "site_{}_clip"]
)
def test_polarisations_inside_names_are_stacked_as_the_remedy_says(
    name: str, tmp_path: Path, write_tif: WriteTif
) -> None:
    """`--bands VH` led to the file of VV, which is none: pyroSAR and Copernicus Browser."""
    pixels = {"VV": np.full((8, 8), -11.5, np.float32), "VH": np.full((8, 8), -18.5, np.float32)}
    words = {band: band.lower() if "site" in name else band for band in pixels}
    files = [write_tif(tmp_path / f"in/{name.format(words[b])}.tif", pixels[b]) for b in pixels]
    with pytest.raises(RasterError, match="band of a single-band file is unknown") as caught:
        read(files[1], "s1-rtc", "db")

    run_rio(caught.value, {"OUT.tif": tmp_path / "out.tif"})

    found = read(tmp_path / "out.tif", "s1-rtc", "db", bands=named_bands(caught.value))
    assert ("VV", "VH") == found.spec.bands
    np.testing.assert_array_equal(np.stack(list(pixels.values())), found.pixels[0].numpy())
    files[0].unlink()
    with pytest.raises(RasterError) as alone:
        read(files[1], "s1-rtc", "db")
    assert ["VH"] == named_bands(alone.value)


@pytest.mark.parametrize(
    "names",
    [
        "BLUE GREEN RED REDEDGE1 REDEDGE2 REDEDGE3 BROADNIR NIR SWIR1 SWIR2",
        "BLU GRN RED RE1 RE2 RE3 BNR NIR SW1 SW2",
    ],
)
def test_the_bands_of_force(names: str, tmp_path: Path, write_tif) -> None:
    """Its NIR is B8A, behind BROADNIR; in the other order nobody knows, and that is refused."""
    words = tuple(names.split())
    pixels = np.arange(10, dtype=np.uint16)[:, None, None].repeat(4, 1).repeat(4, 2)
    path = write_tif(tmp_path / "boa.tif", 500 + pixels, descriptions=words)
    image = eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")

    bands = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    assert bands == image.spec.bands
    assert [500.0 + k for k in range(10)] == image.pixels[0, :, 0, 0].tolist()
    exchanged = (*words[:6], words[7], words[6], *words[8:])
    path = write_tif(tmp_path / "other.tif", 500 + pixels, descriptions=exchanged)
    with pytest.raises(RasterError, match="twice"):
        eofm.read_geotiff(path, sensor="s2-l2a", unit="dn")
