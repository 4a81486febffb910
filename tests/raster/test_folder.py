"""Finding images in folders."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from remedies import named_bands

import eofm
from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit
from eofm.errors import RasterError, SpecError
from eofm.raster import folder
from eofm.raster.folder import band_of, group_files, list_sources

L2A = SENSOR_BANDS[Sensor.S2_L2A]


def touch(root: Path, *names: str) -> Path:
    """Create empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find(root: Path, bands: list[str] | None = None) -> dict[str, list[str]]:
    """Return image name -> file names, for Sentinel-2 L1C."""
    sources = list_sources(root, Sensor.S2_L1C, Unit.DN, bands)
    return {s.name: [f.name for f in s.files] for s in sources}


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("B8A", ("B8A", "")),
        ("T32UPU_20200101_B02", ("B02", "T32UPU_20200101")),
        ("S2A_x_B2", ("B02", "S2A_x")),
        ("S1A_x_VV", ("", "")),  # not a band of Sentinel-2
        ("tile_17", ("", "")),
        ("B99", ("", "")),
    ],
)
def test_band_of_a_name(stem: str, expected: tuple[str, str]) -> None:
    """A band is recognised at the end of a name, in any spelling, if the sensor has it."""
    assert expected == band_of(stem, Sensor.S2_L1C)


def test_multi_band_files(tmp_path: Path) -> None:
    """Every other tif is an image, in subfolders too, named by its path and in order."""
    touch(tmp_path, "b.tif", "a.TIF", "sub/c.tiff", "readme.txt", "a.tif.aux.xml")

    assert {"a": ["a.TIF"], "b": ["b.tif"], "sub/c": ["c.tiff"]} == find(tmp_path)


def test_one_folder_per_image(tmp_path: Path) -> None:
    """Band files of a folder are one image; its mask and preview are not images."""
    for scene in ("x", "y"):
        touch(tmp_path / scene, "B2.tif", "B11.tif", "B8A.tif", "SCL.tif")

    found = find(tmp_path, ["B8A", "B02"])

    assert {"x": ["B8A.tif", "B2.tif"], "y": ["B8A.tif", "B2.tif"]} == found


def test_bigearthnet_names(tmp_path: Path) -> None:
    """Files that repeat their folder's name are one image of that name."""
    names = [f"S2A_1_2/S2A_1_2_{band}.tif" for band in L2A]
    touch(tmp_path, *names)
    (only,) = list_sources(tmp_path, Sensor.S2_L2A, Unit.DN)

    assert "S2A_1_2" == only.name
    assert L2A == only.bands


def test_sets_in_one_folder(tmp_path: Path) -> None:
    """Band files with different beginnings are different images; others stay on their own."""
    touch(
        tmp_path, *(f"{t}_B0{k}.tif" for t in ("t1", "t2") for k in (2, 3)), "t1_SCL.tif", "z.tif"
    )

    found = find(tmp_path, ["B02", "B03"])

    assert {
        "t1": ["t1_B02.tif", "t1_B03.tif"],
        "t2": ["t2_B02.tif", "t2_B03.tif"],
        "z": ["z.tif"],
    } == found


def test_the_folder_is_an_image(tmp_path: Path) -> None:
    """A folder of bare band files is one image with the folder's name."""
    touch(tmp_path / "scene", "B02.tif", "B03.tif")

    assert {"scene": ["B02.tif", "B03.tif"]} == find(tmp_path / "scene", ["B02", "B03"])


def test_missing_band(tmp_path: Path) -> None:
    """An image without one of the sensor's bands is named, and so is the band."""
    touch(tmp_path, *(f"x/{b}.tif" for b in L2A if b != "B05"))

    with pytest.raises(RasterError, match="lacks band B05") as caught:
        list_sources(tmp_path, Sensor.S2_L2A, Unit.DN)

    assert tmp_path / "x" == caught.value.where


def test_band_twice(tmp_path: Path) -> None:
    """B2 and B02 cannot both be the blue band of one image, nor can a word beside a code."""
    touch(tmp_path, "x/B2.tif", "x/B02.tif", "y/t_B02.tif", "y/t_blue.tif")

    for name in ("x", "y"):
        with pytest.raises(RasterError, match="B02 twice"):
            find(tmp_path / name)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_images(tmp_path: Path, name: str) -> None:
    """A missing folder and a folder without tifs are errors that name it."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(RasterError, match="folder") as caught:
        find(tmp_path / name)

    assert tmp_path / name == caught.value.where


def test_unknown_band(tmp_path: Path) -> None:
    """A misspelt band gets a suggestion."""
    touch(tmp_path, "a.tif")

    with pytest.raises(SpecError, match="did you mean"):
        find(tmp_path, ["B8B"])


def test_names_of_products(tmp_path: Path) -> None:
    """ESA's, HLS's and Copernicus Browser's files per band are sets, without companions."""
    touch(
        tmp_path,
        *(f"T36KVU_20210513T073609_{b}_10m.jp2" for b in ("B02", "B03", "SCL", "TCI")),
        *(f"HLS.S30.T36KVU.2021133T073609.v2.0.{b}.tif" for b in ("B02", "B03", "Fmask")),
        *(f"2021-05-13_Sentinel-2_L1C_{b}_(Raw).tiff" for b in ("B02", "B03")),
        *(f"stac/{b}.tif" for b in ("blue", "green", "scl", "visual")),
    )

    assert {
        "2021-05-13_Sentinel-2_L1C",
        "HLS.S30.T36KVU.2021133T073609.v2.0",
        "T36KVU_20210513T073609",
        "stac",
    } == set(find(tmp_path, ["B02", "B03"]))


def test_words_are_bands_where_there_are_several(tmp_path: Path) -> None:
    """`danube_blue` alone is an image; beside `danube_red` it is a band."""
    touch(tmp_path, "one/danube_blue.tif", "two/danube_blue.tif", "two/danube_red.tif")

    found = find(tmp_path, ["B02", "B04"])

    assert {
        "one/danube_blue": ["danube_blue.tif"],
        "two/danube": ["danube_blue.tif", "danube_red.tif"],
    } == found


def test_a_band_at_two_resolutions(tmp_path: Path) -> None:
    """Of B02 at 10 and 20 m the finer is taken."""
    touch(tmp_path, *(f"T1_2021_B02_{size}m.tif" for size in (60, 10, 20)))

    assert {"T1_2021": ["T1_2021_B02_10m.tif"]} == find(tmp_path, ["B02"])
    (image,), _ = folder.group_files(sorted(tmp_path.iterdir(), reverse=True), Sensor.S2_L1C)
    assert {"B02": tmp_path / "T1_2021_B02_10m.tif"} == image.files


def test_missing_bands_can_be_left_out(tmp_path: Path, write_bands) -> None:
    """The remedy for an image of four bands names those four, and they are then read."""
    write_bands(tmp_path, {"x_B02_10m": 12, "x_B03_10m": 12, "x_B04_10m": 12, "x_B08_10m": 12})
    with pytest.raises(RasterError, match="lacks bands") as caught:
        list_sources(tmp_path, Sensor.S2_L2A, Unit.DN)
    bands = named_bands(caught.value)

    (source,) = list_sources(tmp_path, Sensor.S2_L2A, Unit.DN, bands)
    assert ("B02", "B03", "B04", "B08") == source.read().spec.bands


def test_a_name_that_lists_its_bands(tmp_path: Path, write_tif: Callable[..., Path]) -> None:
    """`S1A_VV_VH.tif` was the VH of an image that lacks VV; two of them are two images."""
    pixels = np.stack([np.full((8, 8), value, "float32") for value in (-10.5, -17.5)])
    write_tif(tmp_path / "S1A_20210704_VV_VH.tif", pixels)
    write_tif(tmp_path / "S1A_20210716_VV_VH.tif", pixels)

    sources = list_sources(tmp_path, Sensor.S1_GRD, Unit.DB)

    assert [("VV", "VH")] * 2 == [source.read().spec.bands for source in sources]
    assert ["S1A_20210704_VV_VH", "S1A_20210716_VV_VH"] == [source.name for source in sources]


def test_a_block_called_like_a_band_is_no_list(tmp_path: Path) -> None:
    """`plot_b1_B02` and `plot_b1_B03` are bands of a plot."""
    touch(tmp_path, "plot_b1_B02.tif", "plot_b1_B03.tif")

    assert {"plot_b1": ["plot_b1_B02.tif", "plot_b1_B03.tif"]} == find(tmp_path, ["B02", "B03"])


def test_a_folder_of_landsat_is_named_as_one(tmp_path: Path) -> None:
    """HLS L30 lacks bands of Sentinel-2; stating the others led to the next refusal."""
    touch(tmp_path, *(f"HLS.L30.T32UPU.2021185T101031.v2.0.B0{k}.tif" for k in (1, 2, 3)))

    with pytest.raises(RasterError, match="product of another sensor") as caught:
        list_sources(tmp_path, Sensor.S2_L2A, Unit.DN)
    assert "--bands" not in str(caught.value)


def test_hidden_files_and_folders(tmp_path: Path) -> None:
    """What macOS and others hide is no image; a folder called x.tif is a folder."""
    touch(tmp_path, "a.tif", "._a.tif", ".cache/b.tif", "__MACOSX/._a.tif", "x.tif/c.tif")

    assert {"a": ["a.tif"], "x.tif/c": ["c.tif"]} == find(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("a.tif", "a.tiff"),
        ("a.tif", "a.jp2"),
        ("a.TIF", "a.tif"),
        ("x.tif", "x/B02.tif"),
        ("sub/a.tif", "sub/a.tiff"),
    ],
)
def test_two_images_of_one_name(tmp_path: Path, names: tuple[str, str]) -> None:
    """Ids are unique, or both files are named."""
    touch(tmp_path, *names)

    with pytest.raises(RasterError, match="have the same name") as caught:
        find(tmp_path, ["B02"])
    assert all(name in str(caught.value.found) for name in names)


def test_links_are_followed(tmp_path: Path) -> None:
    """A folder on another disk belongs to the folder that links to it."""
    touch(tmp_path / "other_disk", "b.tif", "deep/c.tif")
    touch(tmp_path / "in", "a.tif")
    (tmp_path / "in/more").symlink_to(tmp_path / "other_disk")

    assert ["a", "more/b", "more/deep/c"] == list(find(tmp_path / "in"))


@pytest.mark.parametrize("target", [".", "..", "sub", "../in/z"])
def test_circles_are_refused(tmp_path: Path, target: str) -> None:
    """A link to a folder that is listed anyway would list its images twice, or for ever."""
    touch(tmp_path / "in", "a.tif", "sub/b.tif", "z/z.tif")
    (tmp_path / "in/link").symlink_to(tmp_path / "in" / target)

    with pytest.raises(RasterError, match="reached by two paths") as caught:
        find(tmp_path / "in")
    Path(str(caught.value.remedy).removeprefix("remove the link: ")).unlink()
    assert ["a", "sub/b", "z/z"] == list(find(tmp_path / "in"))


def test_a_link_to_nothing(tmp_path: Path) -> None:
    """An image whose disk is not there is named, not left out."""
    touch(tmp_path, "a.tif")
    (tmp_path / "b.tif").symlink_to(tmp_path / "gone.tif")

    with pytest.raises(RasterError, match="missing file") as caught:
        find(tmp_path)
    assert tmp_path / "b.tif" == caught.value.where


def test_listing_is_linear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Twice as many sets with a mask each ask twice as many questions, not four times."""
    asked = []
    original = folder._owner
    names = Counter[int]()

    class Counted(dict):  # type: ignore[type-arg]
        def get(self, *key):
            names[len(asked)] += 1
            return super().get(*key)

    monkeypatch.setattr(folder, "_owner", lambda file, sets: original(file, Counted(sets)))
    for count in (20, 40):
        files = [tmp_path / f"t{k}_{end}.tif" for k in range(count) for end in ("B02", "mask")]
        sets, single = folder.group_files(files, Sensor.S2_L1C)
        assert (count, []) == (len(sets), single)
        asked.append(count)

    assert names[1] == 2 * names[0] <= 4 * 20


def test_found_images_can_be_read(tmp_path: Path, write_bands: Callable[..., Path]) -> None:
    """What is listed can be opened, in the order wanted, VV being the constant of VV."""
    write_bands(tmp_path / "pair", {"VH": 12, "VV": 12}, "float32")
    (source,) = list_sources(tmp_path, Sensor.S1_GRD, Unit.DB)

    image = source.read()

    assert ("VV", "VH") == image.spec.bands
    assert [-10.0, -5.0] == image.pixels[0, :, 0, 0].tolist()


def test_real_bigearthnet(real_data: Path) -> None:
    """Six pairs in the layout of BigEarthNet: 12 bands at 120, 60 and 20 px, and S1 in dB."""
    root = real_data / "bigearthnet_v1"
    optical = list_sources(root / "BigEarthNet-v1.0", Sensor.S2_L2A, Unit.DN)
    radar = list_sources(root / "BigEarthNet-S1-v1.0", Sensor.S1_GRD, Unit.DB)

    assert (6, 6) == (len(optical), len(radar))
    for source in optical:
        with source.open() as raster:
            shapes = {g: tuple(p.shape) for g, p in raster.read_native().planes.items()}
            assert {10: (1, 4, 120, 120), 20: (1, 6, 60, 60), 60: (1, 2, 20, 20)} == shapes
            assert (1, 12, 120, 120) == tuple(raster.read().pixels.shape)
    for source in radar:
        image = source.read()
        assert bool(image.valid.all())
        assert image.pixels[0, 0].mean() > image.pixels[0, 1].mean()
        assert bool((image.pixels != image.pixels.round()).float().mean() > 0.9)


def test_real_s2_100k(real_data: Path) -> None:
    """Twelve L2A patches with useless band descriptions are 256 x 256 at 10 m."""
    sources = list_sources(real_data / "s2_100k/images", Sensor.S2_L2A, Unit.DN)
    images = [source.read() for source in sources]

    assert 12 == len(images)
    assert {images[0].spec} == {image.spec for image in images}
    assert torch.cat([image.pixels for image in images]).amax() < 30_000
    assert np.isfinite([image.pixels.mean() for image in images]).all()


@pytest.mark.parametrize(
    ("stems", "sets", "single"),
    [
        ("a b c", 0, "a b c"),
        ("n s e w", 0, "e n s w"),
        ("b", 0, "b"),
        ("b scene", 0, "b scene"),
        ("site_a site_b site_g", 0, "site_a site_b site_g"),
        ("R G B", 1, ""),
        ("site_r site_g site_b", 1, ""),
        ("B G R preview", 1, ""),
    ],
)
def test_letters_that_count_are_no_bands(stems: str, sets: int, single: str) -> None:
    """Images called a, b and c: b was a blue band, and the others its companions, unread."""
    files = [Path("images") / f"{stem}.tif" for stem in stems.split()]
    found, others = group_files(files)

    assert sets == len(found)
    assert single.split() == sorted(file.stem for file in others)


def test_a_folder_without_images_says_what_is_there(tmp_path: Path) -> None:
    """Archives are to be unpacked, cubes opened, a file is no folder."""
    for name, words in (
        ("a.zip", "unpack a.zip first"),
        ("b.nc", str(Path("b") / "b.nc")),
        ("c.img", "rasterio.shutil.copy"),
    ):
        root = touch(tmp_path / name[0], name)
        with pytest.raises(RasterError, match="holds no images") as refused:
            find(root)
        assert name in str(refused.value.found)
        assert words in str(refused.value.remedy)
    with pytest.raises(RasterError, match="not a folder of images") as file:
        find(tmp_path / "a" / "a.zip")
    assert str(tmp_path / "a") in str(file.value.remedy)


def test_one_of_several_images_is_read_by_its_name(tmp_path: Path, write_tif) -> None:
    """A product of MAJA is FRE, SRE and masks in one folder; the remedy names one that is read."""
    name = "SENTINEL2B_20210704-103031_L2A_T32UPU_C_V2-2"
    for number, kind in enumerate(("FRE", "SRE"), 1):
        for band in ("B2", "B3"):
            pixels = np.full((8, 8), 1000 * number, np.int16)
            write_tif(tmp_path / f"{name}_{kind}_{band}.tif", pixels)
    (tmp_path / "MASKS").mkdir()
    write_tif(tmp_path / "MASKS" / f"{name}_CLM_R1.tif", np.zeros((8, 8), np.uint8))
    stated = {"sensor": "s2-l2a", "unit": "dn", "bands": ["B02", "B03"]}
    with pytest.raises(RasterError, match="several images") as caught:
        eofm.read_geotiff(tmp_path, **stated)
    (said,) = shlex.split(str(caught.value.remedy).partition("as in ")[2].partition(";")[0])

    assert f"{tmp_path / name}_FRE" == said
    for path, value in ((said, 1000), (said.replace("FRE", "SRE"), 2000)):
        for read in (eofm.read_geotiff, eofm.read_scene):
            assert value == read(path, **stated).pixels.unique().item()
    for wrong in (tmp_path / f"{name}_XYZ", tmp_path / name):
        for read in (eofm.read_geotiff, eofm.read_scene):
            with pytest.raises(RasterError, match="no such file"):
                read(wrong, **stated)
