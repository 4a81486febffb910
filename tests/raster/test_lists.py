"""`read_scene` takes the files of one image, listed one by one, and no other list."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import eofm
from eofm.errors import EofmError, RasterError, SpecError

WriteTif = Callable[..., Path]
STATED = {"sensor": "s2-l2a", "unit": "dn"}


@pytest.fixture
def scene(tmp_path: Path, write_tif: WriteTif) -> list[Path]:
    """Two bands at 10 m and one at 20 m, each with a number of its own."""
    return [
        write_tif(
            tmp_path / f"scene/T32_20210704_{band}.tif",
            np.full((size, size), 100 * k + 500, np.uint16),
            gsd=80 / size,
        )
        for k, (band, size) in enumerate({"B03": 8, "B02": 8, "B05": 4}.items())
    ]


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_is_the_image_of_its_folder(scene: list[Path], kind: type) -> None:
    """In the order listed, or of the bands that are stated, it reads what the folder does."""
    found = eofm.read_scene(kind(map(str, scene)), **STATED)
    folder = eofm.read_geotiff(scene[0].parent, bands=["B03", "B02", "B05"], **STATED)
    assert ("B03", "B02", "B05") == found.spec.bands
    assert torch.equal(folder.pixels, found.pixels)
    assert folder.grid == found.grid

    one = eofm.open_scene(kind(scene), bands=["B02"], **STATED)
    assert ("B02",) == one.bands
    assert torch.equal(folder.pixels[:, 1:2], one.read().pixels)
    assert "T32_20210704" == one.name


def test_one_file_is_a_list_too(tmp_path: Path, write_tif: WriteTif) -> None:
    """A file of several bands alone is an image."""
    path = write_tif(
        tmp_path / "a.tif", np.full((2, 8, 8), 700, np.uint16), descriptions=["B02", "B03"]
    )

    found = eofm.read_scene([path], **STATED)
    assert torch.equal(eofm.read_geotiff(path, **STATED).pixels, found.pixels)


def test_a_mask_that_is_listed_is_that_of_the_image(scene: list[Path], write_tif: WriteTif) -> None:
    """As in a folder; one that is not listed is not there."""
    mask = write_tif(scene[0].with_name("T32_20210704_SCL.tif"), np.full((8, 8), 9, np.uint8))
    listed = eofm.open_scene([*scene, mask], **STATED)

    assert ["SCL"] == [layer.mask for layer in listed.clouds]
    assert 0 == int(listed.read(cloud_mask="SCL").valid.sum())
    assert () == eofm.open_scene(scene, **STATED).clouds


def test_lists_that_are_no_image(tmp_path: Path, scene: list[Path], write_tif: WriteTif) -> None:
    """Each kind of wrong list is one error that says which it is."""
    other = write_tif(tmp_path / "scene/T32_20210903_B04.tif", np.full((8, 8), 700, np.uint16))
    away = write_tif(tmp_path / "away/T32_20210704_B04.tif", np.full((8, 8), 700, np.uint16))
    again = write_tif(tmp_path / "scene/T32_20210704_B2.tif", np.full((8, 8), 700, np.uint16))
    beside = write_tif(
        tmp_path / "scene/T32_20210704_B04.tif", np.full((8, 8), 700, np.uint16), origin=(0, 0)
    )
    radar = write_tif(tmp_path / "scene/T32_20210704_VV.tif", np.full((8, 8), 700, np.uint16))
    mask = write_tif(tmp_path / "GRANULE/QI_DATA/MSK_CLDPRB_20m.tif", np.zeros((4, 4), np.uint8))
    for files, words in (
        ([], "no files are listed"),
        ([*scene, other], "not one image"),
        ([mask], r"not one image[^,]*\n.*MSK_CLDPRB_20m"),
        ([*scene, away], "not one image"),
        ([*scene, scene[0]], "listed twice"),
        ([*scene, again], "has band B02 twice"),
        ([*scene, scene[0].parent], "a folder is among the files"),
        ([*scene, beside], "a different area"),
        ([*scene, radar], "not a band of s2-l2a"),
        ([*scene, tmp_path / "none.tif"], "no such file"),
        ([None], "not an image"),
        ([3.5], "not an image"),
    ):
        for call in (eofm.open_scene, eofm.read_scene):
            with pytest.raises(EofmError, match=words):
                call(files, **STATED)


def test_remedies_of_wrong_lists(tmp_path: Path, scene: list[Path], write_tif: WriteTif) -> None:
    """What is printed reads the image."""
    with pytest.raises(RasterError) as caught:
        eofm.open_scene([*scene, scene[0]], **STATED)
    files = [*scene, scene[0]]
    once = eval(str(caught.value.remedy).partition(" has ")[0], {"files": files})
    assert ("B03", "B02", "B05") == eofm.open_scene(once, **STATED).bands
    with pytest.raises(RasterError) as caught:
        eofm.open_scene([scene[0].parent], **STATED)
    assert "name only the folder" in str(caught.value.remedy)
    assert eofm.open_scene(scene[0].parent, bands=["B02"], **STATED)
    with pytest.raises(SpecError) as refused:
        eofm.read_geotiff(scene, **STATED)  # type: ignore[arg-type]
    assert "eofm.read_scene(files, sensor=..., unit=...)" in str(refused.value.remedy)


def test_a_list_needs_its_sensor_and_has_no_time(scene: list[Path]) -> None:
    """As a raster does."""
    with pytest.raises(SpecError, match="states the sensor"):
        eofm.open_scene(scene)
    with pytest.raises(RasterError, match="time does not apply"):
        eofm.open_scene(scene, time="2021-07-04", **STATED)


def test_addresses_can_be_listed(tmp_path: Path, scene: list[Path]) -> None:
    """Names of GDAL are read as the files are, and files of two folders are no one image."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in scene:
            archive.write(file, f"1/{file.name}")
            archive.write(file, f"2/{file.name}")
    inside = [f"/vsizip/{tmp_path}/a.zip/1/{file.name}" for file in scene]

    found = eofm.read_scene(inside, **STATED)
    assert torch.equal(eofm.read_scene(scene, **STATED).pixels, found.pixels)
    for other in (inside[0].replace("/1/", "/2/"), scene[0]):
        with pytest.raises(RasterError, match="not one image"):
            eofm.open_scene([other, *inside[1:]], **STATED)
    with pytest.raises(RasterError, match="listed twice") as caught:
        eofm.open_scene(["https://a.org/B02.tif?k=SECRET", "https://a.org/B02.tif?k=1"], **STATED)
    assert "SECRET" not in str(caught.value)


def test_what_lies_beside_the_bands_may_be_listed(scene: list[Path], write_tif: WriteTif) -> None:
    """A pattern of ESA's folder lists aerosols, vapour and the picture as well."""
    for word in ("AOT", "WVP", "TCI"):
        name = scene[0].with_name(f"T32_20210704_{word}.tif")
        write_tif(name, np.full((8, 8), 700, np.uint16))

    found = eofm.open_scene(sorted(scene[0].parent.glob("*.tif")), **STATED)
    assert {"B02", "B03", "B05"} == set(found.bands)
