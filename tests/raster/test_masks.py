"""Cloud masks that come with a product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from remedies import run_rio

import eofm
from eofm.errors import RasterError, SpecError
from eofm.raster.tags import CloudMask, is_beside

WriteTif = Callable[..., Path]


@pytest.mark.parametrize(
    ("mask", "values", "masked"),
    [
        ("SCL", [*range(13), 255], {0, 1, 3, 8, 9, 10, 12, 255}),
        ("QA60", [0, 1, 512, 1024, 2048, 3072, 4096], {1024, 2048, 3072}),
        ("MSK_CLDPRB", [0, 39, 40, 41, 100], {40, 41, 100}),
        ("CLP", [0, 101, 102, 255], {102, 255}),
        ("CLM", [0, 1, 255], {1, 255}),
        ("Fmask", [0, 1, 2, 4, 8, 16, 32, 192, 255], {2, 4, 8, 255}),
    ],
)
def test_what_is_masked(mask: str, values: list[int], masked: set[int]) -> None:
    """The classes, bits and thresholds that the documentation of each product names."""
    found = CloudMask.parse(mask).clouded(np.array(values))

    assert masked == {v for v, cloud in zip(values, found, strict=True) if cloud}


def test_not_a_number_is_no_clear_sky() -> None:
    """A probability that is not there is masked."""
    found = CloudMask.MSK_CLDPRB.clouded(np.array([np.nan, 0.0, np.inf], np.float32))

    assert [True, False, True] == found.tolist()


@pytest.mark.parametrize(
    ("said", "mask"),
    [
        ("scl", "SCL"),
        ("SCL_20m", "SCL"),
        ("qa60", "QA60"),
        ("probability", "MSK_CLDPRB"),
        ("FMASK", "Fmask"),
    ],
)
def test_spellings(said: str, mask: str) -> None:
    """A mask is found under the names that products give it."""
    assert mask == CloudMask.parse(said)
    assert is_beside(said)


def test_an_unknown_mask_is_refused() -> None:
    """The nearest name is offered, and is one."""
    with pytest.raises(RasterError, match="there is no cloud mask") as caught:
        eofm.read_geotiff("a.tif", sensor="s2-l2a", unit="dn", cloud_mask="SLC")

    assert "did you mean 'SCL'?" == caught.value.remedy
    assert CloudMask.parse("SCL")


@pytest.mark.parametrize(("name", "cloud"), [("QA60", 1024), ("SCL", 9), ("MSK_CLDPRB", 80)])
def test_a_band_of_the_file(tmp_path: Path, write_tif: WriteTif, name: str, cloud: int) -> None:
    """A mask in the file is applied where it is asked for, also to a window, and not otherwise."""
    pixels = np.full((3, 8, 8), 700, np.uint16)
    pixels[2] = 4 if name == "SCL" else 0
    pixels[2, 5, 6] = cloud
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B02", "B03", name])
    stated = {"sensor": "s2-l2a", "unit": "dn"}

    assert bool(eofm.read_geotiff(path, **stated).valid.all())
    masked = eofm.read_geotiff(path, **stated, cloud_mask=name)
    assert [[0, 5, 6]] == (~masked.valid).nonzero().tolist()
    part = eofm.read_geotiff(path, **stated, cloud_mask=name, window=(4, 4, 4, 4))
    assert torch.equal(masked.valid[:, 4:, 4:], part.valid)


def test_a_file_beside_the_bands(tmp_path: Path, write_tif: WriteTif) -> None:
    """ESA's SCL of 20 m masks four pixels of 10 m each, whole and by windows that cut one."""
    for band in ("B02", "B03"):
        write_tif(tmp_path / f"T1_2020_{band}_10m.tif", np.full((8, 8), 700, np.uint16))
    classes = np.full((4, 4), 4, np.uint8)
    classes[1, 2] = classes[3, 1] = 8
    write_tif(tmp_path / "T1_2020_SCL_20m.tif", classes, gsd=20.0)
    stated = {"sensor": "s2-l2a", "unit": "dn", "bands": ["B02", "B03"], "cloud_mask": "SCL"}

    whole = eofm.read_geotiff(tmp_path, **stated).valid
    under = [[2, 4], [2, 5], [3, 4], [3, 5], [6, 2], [6, 3], [7, 2], [7, 3]]
    assert under == (~whole[0]).nonzero().tolist()
    for row, col in ((3, 5), (5, 1)):
        part = eofm.read_geotiff(tmp_path, **stated, window=(row, col, 3, 3)).valid
        assert torch.equal(whole[:, row : row + 3, col : col + 3], part)


def test_no_mask_there(tmp_path: Path, write_tif: WriteTif) -> None:
    """A mask that neither file nor folder has is an error that says what there is."""
    pixels = np.full((3, 8, 8), 700, np.uint16)
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B02", "B03", "QA60"])
    write_tif(tmp_path / "x/B02.tif", pixels[0])
    stated = {"sensor": "s2-l2a", "unit": "dn", "cloud_mask": "SCL"}

    with pytest.raises(RasterError, match="no cloud mask SCL") as caught:
        eofm.read_geotiff(path, **stated)
    assert "auxiliary layers: QA60" == caught.value.found
    with pytest.raises(RasterError, match="no cloud mask SCL"):
        eofm.read_geotiff(tmp_path / "x", bands=["B02"], **stated)


def test_a_mask_of_other_ground(tmp_path: Path, write_tif: WriteTif) -> None:
    """A mask that was cut elsewhere is refused."""
    write_tif(tmp_path / "B02.tif", np.full((8, 8), 700, np.uint16))
    write_tif(tmp_path / "SCL.tif", np.full((4, 4), 4, np.uint8), gsd=20.0, origin=(0.0, 0.0))

    with pytest.raises(RasterError, match="a different area"):
        eofm.read_geotiff(tmp_path, sensor="s2-l2a", unit="dn", bands=["B02"], cloud_mask="SCL")


@pytest.mark.parametrize(
    ("mask", "values"),
    [
        ("MSK_CLDPRB", [0.0, 0.35, 1.0]),
        ("CLP", [0.0, 0.9]),
        ("QA60", [0.0, 0.1024]),
        ("SCL", [4.0, 8.5]),
    ],
)
def test_fractions_are_no_values_of_a_mask(
    mask: str, values: list[float], tmp_path: Path, write_tif: WriteTif
) -> None:
    """Cut off to 0, they said that nothing is clouded; the image is read without a mask."""
    pixels = np.full((2, 8, 8), 700, np.float32)
    pixels[1] = values[0]
    pixels[1, 0, : len(values)] = values
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B02", mask])
    stated = {"sensor": "s2-l2a", "unit": "dn"}
    with pytest.raises(RasterError, match="fractions") as caught:
        eofm.read_geotiff(path, **stated, cloud_mask=mask)

    assert str(path) == str(caught.value.where)
    assert str(caught.value.remedy).endswith("or read the image without a cloud mask")
    assert bool(eofm.read_geotiff(path, **stated).valid.all())


def test_a_resampled_probability_is_one() -> None:
    """Per cent that are fractions are compared as they are, 39.9 below 40."""
    values = np.array([39.9, 40.0, 0.4, 93.7], np.float32)

    assert [False, True, False, True] == CloudMask.MSK_CLDPRB.clouded(values).tolist()


def test_a_clear_window_of_a_resampled_probability(tmp_path: Path, write_tif: WriteTif) -> None:
    """What its numbers are is seen in the whole mask, not in a window of 0 to 0.8 per cent."""
    pixels = np.full((2, 8, 8), 700, np.float32)
    pixels[1, :4], pixels[1, 4:] = 0.8, 83.5
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B02", "probability"])
    stated = {"sensor": "s2-l2a", "unit": "dn", "cloud_mask": "MSK_CLDPRB"}

    assert bool(eofm.read_geotiff(path, **stated, window=(0, 0, 4, 8)).valid.all())
    assert not bool(eofm.read_geotiff(path, **stated, window=(4, 0, 4, 8)).valid.any())


STATED = {"sensor": "s2-l2a", "unit": "dn"}


def scl(size: int = 8) -> np.ndarray:
    """Vegetation with a cloud at row 2, column 3."""
    classes = np.full((size, size), 4, np.uint8)
    classes[2, 3] = 9
    return classes


def test_a_scene_finds_the_mask_beside_its_bands(tmp_path: Path, write_tif: WriteTif) -> None:
    """A folder is one thing for `read_geotiff` and `read_scene`, and its scene names the mask."""
    for band in ("B02", "B03"):
        write_tif(tmp_path / f"T32_{band}_10m.tif", np.full((16, 16), 700, np.uint16))
    write_tif(tmp_path / "T32_SCL_20m.tif", scl(), gsd=20)
    more = {**STATED, "bands": ["B02", "B03"]}
    truth = eofm.read_geotiff(tmp_path, **more, cloud_mask="SCL")
    scene = eofm.open_scene(tmp_path, **more)

    assert ["SCL"] == [layer.mask for layer in scene.clouds]
    assert 4 == int((~truth.valid).sum())
    assert torch.equal(truth.valid, scene.read(cloud_mask="SCL").valid)
    assert torch.equal(truth.valid, eofm.read_scene(tmp_path, **more, cloud_mask="SCL").valid)


def test_a_scene_names_the_mask_in_its_file(tmp_path: Path, write_tif: WriteTif, capfd) -> None:
    """`scene.clouds` was empty, and what was applied was said to be left out."""
    pixels = np.stack([np.full((8, 8), 700), scl()]).astype(np.uint16)
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B02", "SCL"])
    scene = eofm.open_scene(path, **STATED)

    assert ["SCL"] == [layer.mask for layer in scene.clouds]
    assert [[0, 2, 3]] == (~scene.read(cloud_mask="SCL").valid).nonzero().tolist()
    assert bool(scene.read().valid.all())
    assert "left out" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["Dataset", "DataArray", "path", "decoded"])
def test_an_array_has_its_mask(kind: str, tmp_path: Path) -> None:
    """A variable or band called SCL hides clouds, of an array and of its file."""
    bands = {"B02": np.full((8, 8), 700, np.int16), "SCL": scl().astype(np.int16)}
    fill = {"_FillValue": -1}
    dataset = xr.Dataset({k: (("y", "x"), v, fill) for k, v in bands.items()})
    source: object = dataset
    if kind == "DataArray":
        source = dataset.to_dataarray("band").assign_coords(band=list(bands))
    elif kind in {"path", "decoded"}:
        dataset.to_zarr(tmp_path / "a.zarr", zarr_format=2)
        source = tmp_path / "a.zarr"
        source = xr.open_zarr(source, chunks=None) if kind == "decoded" else source
    scene = eofm.open_scene(source, **STATED, gsd=10)

    assert ["SCL"] == [layer.mask for layer in scene.clouds]
    assert [[0, 2, 3]] == (~scene.read(cloud_mask="SCL").valid).nonzero().tolist()
    part = scene.read((2, 2, 3, 3), cloud_mask="SCL")
    assert [[0, 0, 1]] == (~part.valid).nonzero().tolist()


def test_a_clear_window_of_a_probability_in_an_array() -> None:
    """A window alone is read, and the whole mask where only that tells per cent from fractions."""
    percent = np.full((8, 8), 0.8, np.float32)
    percent[4:] = 83.5
    bands = {"B02": np.full((8, 8), 700, np.float32), "MSK_CLDPRB": percent}
    array = xr.Dataset({name: (("y", "x"), values) for name, values in bands.items()})
    scene = eofm.open_scene(array, **STATED, gsd=10)

    assert bool(scene.read((0, 0, 4, 8), cloud_mask="MSK_CLDPRB").valid.all())
    assert not bool(scene.read((4, 0, 4, 8), cloud_mask="MSK_CLDPRB").valid.any())


def test_a_scene_without_such_a_mask_says_what_there_is(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """Both ways of the remedy lead to pixels."""
    write_tif(tmp_path / "B02.tif", np.full((8, 8), 700, np.uint16))
    write_tif(tmp_path / "B03.tif", np.full((8, 8), 700, np.uint16))
    write_tif(tmp_path / "SCL.tif", scl())
    more = {**STATED, "bands": ["B02", "B03"]}
    with pytest.raises(SpecError, match="no cloud mask QA60") as caught:
        eofm.read_scene(tmp_path, **more, cloud_mask="QA60")

    assert 'cloud_mask="SCL", or read the scene without a cloud mask' in str(caught.value.remedy)
    assert 63 == int(eofm.read_scene(tmp_path, **more, cloud_mask="SCL").valid.sum())
    assert 64 == int(eofm.read_scene(tmp_path, **more).valid.sum())


@pytest.mark.parametrize("mask", ["MSK_CLDPRB", "CLP", "QA60", "Fmask", "probability"])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_mask_of_0_and_1_hides_no_cloud_silently(
    mask: str, kind: type, tmp_path: Path, write_tif: WriteTif
) -> None:
    """A mask of cloud and no cloud under the name of a probability hid nothing."""
    pixels = np.full((2, 8, 8), 700, kind)
    pixels[1] = 0
    pixels[1, 2, 3] = 1
    path = write_tif(tmp_path / "a.tif", pixels, descriptions=["B02", mask])
    stated = {"sensor": "s2-l2a", "unit": "dn"}
    for call in (eofm.read_geotiff, eofm.read_scene):
        with pytest.raises(RasterError, match="only 0 and 1") as caught:
            call(path, **stated, cloud_mask=mask)
    assert str(path) == str(caught.value.where)
    remedy = str(caught.value.remedy)

    assert "name it CLM" in remedy
    assert "read the image without a cloud mask" in remedy
    assert bool(eofm.read_geotiff(path, **stated).valid.all())
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("B02", "CLM")
    read = eofm.read_geotiff(path, **stated, cloud_mask="CLM")
    assert [[0, 2, 3]] == (~read.valid).nonzero().tolist()


def test_a_mask_of_0_and_1_in_an_array() -> None:
    """An array says the same, and a mask of truth values is one of 0 and 1."""
    bands = {"B02": np.full((8, 8), 700, np.int16), "MSK_CLDPRB": np.eye(8, dtype=bool)}
    array = xr.Dataset({name: (("y", "x"), values) for name, values in bands.items()})
    stated = {"sensor": "s2-l2a", "unit": "dn", "gsd": 10}
    with pytest.raises(RasterError, match="only 0 and 1"):
        eofm.read_scene(array, **stated, cloud_mask="MSK_CLDPRB")

    renamed = array.rename(MSK_CLDPRB="CLM")
    assert 56 == int(eofm.read_scene(renamed, **stated, cloud_mask="CLM").valid.sum())


@pytest.mark.parametrize("far", [0, 83])
def test_one_per_cent_is_clear_where_more_is_known(
    far: int, tmp_path: Path, write_tif: WriteTif
) -> None:
    """One per cent in a window of a mask that knows more, or that states its unit, is no cloud."""
    side = 1100  # of more than the pixels that are looked at first
    percent = np.zeros((side, side), np.uint8)
    percent[0, 0] = 1
    percent[1, 1] = far
    write_tif(tmp_path / "T1_B02.tif", np.full((side, side), 700, np.uint16))
    mask = write_tif(tmp_path / "T1_MSK_CLDPRB.tif", percent)
    if not far:
        with rasterio.open(mask, "r+") as file:
            file.units = ("%",)
    read = eofm.read_geotiff(
        tmp_path, sensor="s2-l2a", unit="dn", bands=["B02"], cloud_mask="MSK_CLDPRB"
    )

    assert ([[0, 1, 1]] if far else []) == (~read.valid).nonzero().tolist()


@pytest.mark.parametrize(("mask", "clear"), [("SCL", 4), ("MSK_CLDPRB", 2), ("CLM", 0)])
@pytest.mark.parametrize("nodata", [255, -99])
def test_nodata_of_a_mask_is_no_clear_sky(
    mask: str, clear: int, nodata: int, tmp_path: Path, write_tif: WriteTif
) -> None:
    """Where a mask declares to know nothing, 255 of SCL and -99 of per cent were clear sky."""
    known = np.full((8, 8), clear, np.int16)
    known[2, 3] = nodata
    for band in ("B02", "B03"):
        write_tif(tmp_path / f"T1_{band}.tif", np.full((8, 8), 700, np.uint16))
    write_tif(tmp_path / f"T1_{mask}.tif", known, nodata=nodata)
    read = eofm.read_geotiff(
        tmp_path, sensor="s2-l2a", unit="dn", bands=["B02", "B03"], cloud_mask=mask
    )

    assert [[0, 2, 3]] == (~read.valid).nonzero().tolist()


def test_nodata_does_not_hide_that_a_mask_knows_0_and_1(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """255 beside 0 and 1 is nodata, and no larger value of a probability."""
    cloud = np.eye(8, dtype=np.uint8)
    cloud[0, 1] = 255
    write_tif(tmp_path / "T1_B02.tif", np.full((8, 8), 700, np.uint16))
    write_tif(tmp_path / "T1_CLP.tif", cloud, nodata=255)

    with pytest.raises(RasterError, match="only 0 and 1"):
        eofm.read_geotiff(tmp_path, sensor="s2-l2a", unit="dn", bands=["B02"], cloud_mask="CLP")


@pytest.mark.parametrize("bands", [["B02"], ["B02", "B03"]])
def test_folder_and_name_have_one_set_of_masks(
    bands: list[str], tmp_path: Path, write_tif: WriteTif
) -> None:
    """A scene opened by the beginning of its names had no mask, nor had one band of a folder."""
    for name, cloud in (("T1", 9), ("T2", 4)):
        folders = (tmp_path / "both", tmp_path / name)
        for folder in folders:
            for band in bands:
                write_tif(folder / f"{name}_{band}.tif", np.full((8, 8), 700, np.uint16))
            write_tif(folder / f"{name}_SCL.tif", np.full((8, 8), cloud, np.uint8))
    stated = {**STATED, "bands": bands}

    for name, share in (("T1", 0), ("T2", 64)):
        for path in (tmp_path / "both" / name, tmp_path / name, tmp_path / name / name):
            scene = eofm.open_scene(path, **stated)
            assert ["SCL"] == [layer.mask for layer in scene.clouds]
            for read in (
                scene.read(cloud_mask="SCL"),
                scene.read(bands=bands[-1:], cloud_mask="SCL"),
                eofm.read_scene(path, **stated, cloud_mask="SCL"),
                eofm.read_geotiff(path, **stated, cloud_mask="SCL"),
            ):
                assert share == int(read.valid.sum())
            assert 64 == int(scene.read().valid.sum())


@pytest.mark.parametrize(
    ("mask", "clear", "strange"),
    [
        ("SCL", 4, 255),
        ("SCL", 4, -9999),
        ("SCL", 4, 12),
        ("MSK_CLDPRB", 2, -9999),
        ("CLP", 2, -1),
        ("QA60", 0, -9999),
        ("Fmask", 64, -9999),
        ("CLM", 0, 255),
    ],
)
def test_a_value_that_no_product_has_is_no_clear_sky(
    mask: str, clear: int, strange: int, tmp_path: Path, write_tif: WriteTif
) -> None:
    """255 in a scene classification, and -9999 in per cent, were clear sky, in files and arrays."""
    known = np.full((8, 8), clear, np.int16)
    known[2, 3] = strange
    write_tif(tmp_path / "T1_B02.tif", np.full((8, 8), 700, np.uint16))
    write_tif(tmp_path / f"T1_{mask}.tif", known)
    stated = {**STATED, "cloud_mask": mask}
    bands = {"B02": np.full((8, 8), 700, np.int16), mask: known}
    array = xr.Dataset({name: (("y", "x"), values) for name, values in bands.items()})

    for read in (
        eofm.read_geotiff(tmp_path, **stated, bands=["B02"]),
        eofm.read_scene(array, **stated, gsd=10),
    ):
        assert [[0, 2, 3]] == (~read.valid).nonzero().tolist()


def test_a_mask_within_a_mask(tmp_path: Path, write_tif: WriteTif) -> None:
    """Where the file of a cloud mask has a mask that hides it, nothing is known."""
    write_tif(tmp_path / "T1_B02.tif", np.full((8, 8), 700, np.uint16))
    inside = np.full((8, 8), 255, np.uint8)
    inside[2, 3] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tif(tmp_path / "T1_SCL.tif", np.full((8, 8), 4, np.uint8))
        with rasterio.open(path, "r+") as file:
            file.write_mask(inside)
    stated = {**STATED, "bands": ["B02"], "cloud_mask": "SCL"}

    read = eofm.read_geotiff(tmp_path, **stated)
    assert [[0, 2, 3]] == (~read.valid).nonzero().tolist()
    part = eofm.read_scene(tmp_path, **stated, window=(2, 2, 3, 3))
    assert [[0, 0, 1]] == (~part.valid).nonzero().tolist()


def test_a_mask_of_several_bands_is_none(tmp_path: Path, write_tif: WriteTif) -> None:
    """Its first band was taken; the remedy keeps it."""
    write_tif(tmp_path / "T1_B02.tif", np.full((8, 8), 700, np.uint16))
    path = write_tif(tmp_path / "T1_SCL.tif", np.stack([scl(), scl() + 1]))
    stated = {**STATED, "bands": ["B02"], "cloud_mask": "SCL"}
    for call in (eofm.read_geotiff, eofm.read_scene):
        with pytest.raises(RasterError, match="holds several bands") as caught:
            call(tmp_path, **stated)
    out = tmp_path / "other.tif"
    run_rio(caught.value, {"OUT.tif": out})
    out.replace(path)

    assert 63 == int(eofm.read_geotiff(tmp_path, **stated).valid.sum())


@pytest.mark.parametrize("mask", ["MSK_CLDPRB", "QA60", "Fmask"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_fill_does_not_hide_that_a_mask_knows_0_and_1(
    mask: str, declared: bool, tmp_path: Path, write_tif: WriteTif
) -> None:
    """255 beside 0 and 1 made 1 clear sky: in arrays though declared, and in files if not."""
    cloud = np.eye(8, dtype=np.uint8)
    cloud[0, 1] = 255
    image = np.full((8, 8), 700, np.uint16)
    array = xr.Dataset({"B02": (("y", "x"), image.astype("int16")), mask: (("y", "x"), cloud)})
    if declared:
        array[mask].attrs["_FillValue"] = np.uint8(255)
    write_tif(tmp_path / "T1_B02.tif", image)
    write_tif(tmp_path / f"T1_{mask}.tif", cloud, nodata=255 if declared else None)
    for source, more in ((array, {"gsd": 10}), (tmp_path, {"bands": ["B02"]})):
        with pytest.raises(RasterError, match="only 0 and 1") as caught:
            eofm.read_scene(source, **STATED, **more, cloud_mask=mask)
        assert "name it CLM" in str(caught.value.remedy)

    found = eofm.read_scene(array.rename({mask: "CLM"}), **STATED, gsd=10, cloud_mask="CLM")
    assert np.array_equal(cloud == 0, found.valid[0].numpy())


@pytest.mark.parametrize(("fill", "clear"), [(255, 2), (-99, 2)])
def test_what_a_mask_of_an_array_declares_is_unknown(fill: int, clear: int) -> None:
    """As in files: a probability of 255 is none, and its largest value is what others are."""
    cloud = np.full((8, 8), clear, np.int16)
    cloud[2, 3], cloud[5, 5] = fill, 90
    bands = {"B02": np.full((8, 8), 700, np.int16), "MSK_CLDPRB": cloud}
    array = xr.Dataset({name: (("y", "x"), values) for name, values in bands.items()})
    array["MSK_CLDPRB"].attrs["_FillValue"] = np.int16(fill)

    found = eofm.read_scene(array, **STATED, gsd=10, cloud_mask="MSK_CLDPRB")

    assert [[0, 2, 3], [0, 5, 5]] == (~found.valid).nonzero().tolist()


def test_more_than_all_per_cent_is_refused(tmp_path: Path, write_tif: WriteTif) -> None:
    """Stored in hundredths, with a scale of 0.01 or none, 5 % was 500 and cloud everywhere."""
    cloud = np.full((8, 8), 500, np.uint16)
    cloud[2, 3] = 6000
    write_tif(tmp_path / "T1_B02.tif", np.full((8, 8), 700, np.uint16))
    path = write_tif(tmp_path / "T1_MSK_CLDPRB.tif", cloud)
    stated = {**STATED, "bands": ["B02"], "cloud_mask": "MSK_CLDPRB"}
    with pytest.raises(RasterError, match="above its maximum") as caught:
        eofm.read_geotiff(tmp_path, **stated)
    assert str(path) == str(caught.value.where)
    out = tmp_path / "out.tif"

    run_rio(caught.value, {"OUT.tif": out})

    out.replace(path)
    assert [[0, 2, 3]] == (~eofm.read_geotiff(tmp_path, **stated).valid).nonzero().tolist()


def test_a_probability_of_255_steps_is_not_one_of_per_cent(
    tmp_path: Path, write_tif: WriteTif
) -> None:
    """Sentinel Hub's 60 of 255 is below its threshold, and was above that of per cent."""
    cloud = np.full((8, 8), 60, np.uint8)
    cloud[2, 3] = 200
    write_tif(tmp_path / "T1_B02.tif", np.full((8, 8), 700, np.uint16))
    path = write_tif(tmp_path / "T1_MSK_CLDPRB.tif", cloud)
    stated = {**STATED, "bands": ["B02"]}
    with pytest.raises(RasterError, match="above its maximum") as caught:
        eofm.read_geotiff(tmp_path, **stated, cloud_mask="MSK_CLDPRB")

    assert "name it CLP" in str(caught.value.remedy)
    path.rename(tmp_path / "T1_CLP.tif")
    found = eofm.read_geotiff(tmp_path, **stated, cloud_mask="CLP")
    assert [[0, 2, 3]] == (~found.valid).nonzero().tolist()


@pytest.mark.parametrize(("mask", "scale"), [("SCL", 1e-4), ("CLP", 1 / 255), ("MSK_CLDPRB", 0.01)])
def test_a_scale_of_a_mask_is_not_applied(
    mask: str, scale: float, tmp_path: Path, write_tif: WriteTif
) -> None:
    """Those who scale a stack write its scale into every band; classes stay classes."""
    values = {"SCL": (4, 9), "CLP": (20, 200), "MSK_CLDPRB": (5, 80)}[mask]
    cloud = np.full((8, 8), values[0], np.uint8)
    cloud[2, 3] = values[1]
    write_tif(tmp_path / "T1_B02.tif", np.full((8, 8), 700, np.uint16))
    path = write_tif(tmp_path / f"T1_{mask}.tif", cloud)
    with rasterio.open(path, "r+") as file:
        file.scales = (scale,)

    found = eofm.read_geotiff(tmp_path, **STATED, bands=["B02"], cloud_mask=mask)

    assert [[0, 2, 3]] == (~found.valid).nonzero().tolist()
