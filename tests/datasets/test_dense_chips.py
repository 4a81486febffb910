"""Images with masks: DFC2020, Sen1Floods11 and one's own, in true-format miniatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from dense_world import RADAR, write, write_contest, write_copernicus, write_floods

from eofm.contract.spec import Sensor, Unit
from eofm.datasets import dfc2020, sen1floods11
from eofm.datasets.dfc2020 import open_dfc2020
from eofm.datasets.images.dense import VOID, Coding, DenseChips, read_dense
from eofm.datasets.masks import open_mask_folder
from eofm.datasets.sen1floods11 import open_sen1floods11
from eofm.errors import DataError, LabelError, RasterError
from eofm.store.splits import hold_out

PLACE = {"crs": "EPSG:25832", "transform": Affine(10, 0, 5e5, 0, -10, 5.8e6)}
BOTH = (Sensor.S2_L1C, Sensor.S1_GRD)
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def sizes(chips: DenseChips) -> tuple[int, ...]:
    """Images of train, val and test."""
    return tuple(len(chips.splits[s]) for s in ("train", "val", "test"))


# ----------------------------------------------------------------------------- codings


def test_codes_become_classes() -> None:
    """Two codes may be one class; void codes say nothing."""
    coding = Coding({1: 0, 2: 1, 7: 1}, frozenset({0, 255}))

    found = coding.classes_of(np.array([[1, 2, 7], [0, 255, 1]], np.uint8), "here")

    assert [[0, 1, 1], [VOID, VOID, 0]] == found.tolist()


def test_an_unknown_code_is_refused() -> None:
    """It is how a map of another scheme gives itself away."""
    with pytest.raises(LabelError, match="no class") as caught:
        dfc2020.CODING.classes_of(np.array([[1, 12, 17]]), "a.tif")

    assert "12, 17" in str(caught.value)
    assert "IGBP" in str(caught.value)


def test_a_code_cannot_be_both() -> None:
    """A class that says nothing is none."""
    with pytest.raises(LabelError, match="a class and void"):
        Coding({1: 0, 2: 1}, frozenset({2}))


def test_the_simplified_classes_are_those_of_the_contest() -> None:
    """Codes 1..10 without savanna and snow, in their order."""
    names = {6: "Cropland", 7: "Urban/Built-up", 9: "Barren", 10: "Water", 1: "Forest"}

    assert {c: dfc2020.CLASSES[dfc2020.CODING.codes[c]] for c in names} == names
    assert set(range(11)) == set(dfc2020.CODING.codes) | dfc2020.CODING.void


# ----------------------------------------------------------------------------- DFC2020


def test_the_contest_divides_itself(tmp_path: Path) -> None:
    """Its test patches train, a tenth by hash is val, its validation patches test."""
    chips, count = open_dfc2020(write_contest(tmp_path, 11, 2), BOTH)

    assert (9, 2, 2) == sizes(chips)
    assert 6_114 == count
    assert all(chip.group for chip in chips.splits["test"])
    ((optical, masks),) = read_dense(chips.splits["test"], 4)
    assert dfc2020.SPECS[Sensor.S2_L1C] == optical.spec
    b10, b8a = (optical.spec.bands.index(b) for b in ("B10", "B8A"))
    means = optical.pixels.mean(dim=(0, 2, 3))
    assert means[b10] < 20
    assert means[b8a] > 1000
    assert {VOID, 4, 7} == set(masks.unique().tolist())
    assert (masks[:, :12] == VOID).all()  # background and savanna
    ((vv_vh, _),) = read_dense(chips.splits["test"], 4, sensor=1)
    assert ("VV", "VH") == vv_vh.spec.bands
    assert (vv_vh.pixels != vv_vh.pixels.round()).any()  # float64 decibels stay fractions


def test_lists_of_copernicus_bench_divide(tmp_path: Path) -> None:
    """Where they lie; what they name and is not there is counted."""
    root = write_copernicus(tmp_path / "dfc2020_s1s2", {"train": 3, "val": 1, "test": 1})
    (root / "dfc/ROIs0000_test_dfc_0_p0.tif").unlink()

    chips, count = open_dfc2020(tmp_path, BOTH[:1])

    assert (2, 1, 1) == sizes(chips)
    assert ("copernicus-bench", 5) == (chips.rule, count)
    assert ("1 of 5 masks of the lists are not on disk",) == chips.remarks


def test_modis_maps_are_no_target(tmp_path: Path) -> None:
    """A file of four bands, or codes above 10, in the place of the masks."""
    root = write_contest(tmp_path, 3, 1)
    chips, _ = open_dfc2020(root, BOTH[:1])
    mask = chips.splits["test"][0].mask
    write(mask.file, np.full((4, 256, 256), 12), "uint16")
    with pytest.raises(LabelError, match="does not fit its image") as caught:
        mask.read()
    assert "4 bands" in str(caught.value)
    write(mask.file, np.full((1, 256, 256), 12), "uint16")
    with pytest.raises(LabelError, match="no class"):
        mask.read()


def test_what_is_no_dfc2020_is_named(tmp_path: Path) -> None:
    """Nothing, an archive, half a layout, an image without its mask's sensor, a torn mask."""
    with pytest.raises(DataError, match="no such folder"):
        open_dfc2020(tmp_path / "nowhere", BOTH)
    (tmp_path / "DFC_Public_Dataset.zip.part").touch()
    with pytest.raises(DataError, match="no folder of DFC2020") as caught:
        open_dfc2020(tmp_path, BOTH)
    assert "has not ended" in str(caught.value)
    root = write_contest(tmp_path / "set", 2, 1)
    chips, _ = open_dfc2020(root, BOTH[:1])
    mask = chips.splits["test"][0].mask
    mask.file.write_bytes(mask.file.read_bytes()[:90])
    with pytest.raises(RasterError, match="mask cannot be read"):
        mask.read()
    next(root.glob("*/s1_0/*.tif")).unlink()
    with pytest.raises(DataError, match="missing beside its mask"):
        open_dfc2020(root, BOTH)


# ------------------------------------------------------------------------- Sen1Floods11


def test_chips_are_cut_into_windows(tmp_path: Path) -> None:
    """Windows put together are the chip; -1, NaN and the nodata 0 are no measurements."""
    write_floods(tmp_path, {"train": ["Ghana_1"], "valid": ["India_2"], "test": ["Spain_3"]})

    chips, count = open_sen1floods11(tmp_path, BOTH)

    assert (4, 4, 4) == sizes(chips)
    assert 252 + 89 + 90 == count
    assert {"Spain_3"} == {chip.scene for chip in chips.splits["test"]}
    assert {"Spain"} == {chip.group for chip in chips.splits["test"]}
    assert 3 == len({chip.scene for chip in chips.all})
    ((vv_vh, masks),) = read_dense(chips.splits["test"], 4, sensor=1)
    assert sen1floods11.SPECS[Sensor.S1_GRD] == vv_vh.spec
    assert not vv_vh.valid[0, :3, :5].any()
    assert vv_vh.valid.sum() == 4 * 256 * 256 - 15
    whole = torch.cat([torch.cat([masks[0], masks[1]], 1), torch.cat([masks[2], masks[3]], 1)])
    assert (whole[:7] == VOID).all()
    assert (whole[7:, : int(0.4 * 512)] == 1).all()
    assert (whole[7:, int(0.4 * 512) :] == 0).all()
    wet = vv_vh.pixels.movedim(1, -1)[(masks == 1) & vv_vh.valid].mean(dim=0)
    assert wet.tolist() == pytest.approx(RADAR["water"], abs=0.05)


def test_bolivia_is_a_test_split_of_its_own(tmp_path: Path) -> None:
    """An event of no other list; train and val stay."""
    names = {"train": ["A_1"], "valid": ["B_1"], "test": ["C_1"], "bolivia": ["Bolivia_1"]}
    write_floods(tmp_path, names)

    chips, count = open_sen1floods11(tmp_path / "v1.1", BOTH[1:], bolivia=True)

    assert {"Bolivia_1"} == {chip.scene for chip in chips.splits["test"]}
    assert ("official, Bolivia", 252 + 89 + 15) == (chips.rule, count)


def test_a_chip_in_two_lists_is_a_leak(tmp_path: Path) -> None:
    """It is refused by name."""
    write_floods(tmp_path, {"train": ["A_1"], "valid": ["B_1"], "test": ["A_1"]})

    with pytest.raises(DataError, match="two images have the same name"):
        open_sen1floods11(tmp_path, BOTH[1:])


def test_what_is_no_sen1floods11_is_named(tmp_path: Path) -> None:
    """Nothing, a list that is none, a file that is missing, a chip of another size or type."""
    with pytest.raises(DataError, match="no such folder"):
        open_sen1floods11(tmp_path / "nowhere", BOTH)
    with pytest.raises(DataError, match="no folder of Sen1Floods11"):
        open_sen1floods11(tmp_path, BOTH)
    top = write_floods(tmp_path, {"train": ["A_1"], "valid": ["B_1"], "test": ["C_1"]})
    hand = top / "data/flood_events/HandLabeled"
    file = hand / "S2Hand/C_1_S2Hand.tif"
    write(file, np.ones((13, 500, 500)), "int16")
    chips, _ = open_sen1floods11(tmp_path, BOTH)
    with pytest.raises(RasterError, match="not of the kind"):
        chips.splits["test"][0].pixels[0].read()
    write(file, np.ones((13, 512, 512)), "float32")
    with pytest.raises(RasterError, match="not of the kind"):
        chips.splits["test"][0].pixels[0].read()
    file.unlink()
    with pytest.raises(DataError, match="is not there") as caught:
        open_sen1floods11(tmp_path, BOTH)
    assert "C_1_S2Hand.tif" in str(caught.value)
    lists = top / "splits/flood_handlabeled"
    (lists / "flood_valid_data.csv").write_text("JRC/x.tif,y.tif\n")
    with pytest.raises(DataError, match="no list of hand-labelled"):
        open_sen1floods11(tmp_path, BOTH)


# --------------------------------------------------------------------------- one's own


def write_own(root: Path, split: str, count: int, code: int = 2) -> None:
    """Write images of 16 pixels with masks of codes 1, 2 and 9."""
    for n in range(count):
        mask = np.full((1, 16, 16), 1)
        mask[0, :8] = code
        mask[0, 0] = 9
        write(root / split / "masks" / f"{n}.tif", mask, "uint8")
        values = np.where(mask == 1, 400, 900) * np.linspace(1, 2, 4)[:, None, None]
        write(root / split / "images" / f"{n}.tif", values, "uint16", **PLACE)


def test_images_with_masks_of_ones_own(tmp_path: Path) -> None:
    """Val is taken by hash; codes of one name are one class."""
    write_own(tmp_path, "train", 10)
    write_own(tmp_path, "test", 3)

    chips, spec = open_mask_folder(
        tmp_path,
        Sensor.S2_L2A,
        Unit.DN,
        {1: "field", 2: "water", 3: "water"},
        void=[9],
        bands=["B02", "B03", "B04", "B08"],
    )

    assert (8, 2, 3) == sizes(chips)
    assert ("field", "water") == chips.classes
    assert (16, 16) == spec.size
    ((imagery, masks),) = read_dense(chips.splits["test"], 3)
    assert spec == imagery.spec
    assert [VOID, 1, 0] == [int(masks[0, row, 0]) for row in (0, 1, 8)]


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """An image alone, a missing split, one class, a mask of another size or of fractions."""
    options = {"void": [9], "bands": ["B02", "B03", "B04", "B08"]}
    classes = {1: "field", 2: "water"}
    write_own(tmp_path, "train", 5)
    with pytest.raises(DataError, match="no images with masks"):
        open_mask_folder(tmp_path, Sensor.S2_L2A, Unit.DN, classes, **options)
    write_own(tmp_path, "test", 2)
    with pytest.raises(LabelError, match="two classes"):
        open_mask_folder(tmp_path, Sensor.S2_L2A, Unit.DN, {1: "a", 2: "a"}, **options)
    chips, _ = open_mask_folder(tmp_path, Sensor.S2_L2A, Unit.DN, classes, **options)
    mask = chips.splits["test"][0].mask
    write(mask.file, np.ones((1, 8, 16)), "uint8")
    with pytest.raises(LabelError, match="does not fit its image"):
        mask.read()
    write(mask.file, np.ones((1, 16, 16)), "float32")
    with pytest.raises(LabelError, match="whole numbers"):
        mask.read()
    mask.file.unlink()
    with pytest.raises(DataError, match="not the same"):
        open_mask_folder(tmp_path, Sensor.S2_L2A, Unit.DN, classes, **options)


def test_a_changed_mask_changes_the_hash(tmp_path: Path) -> None:
    """And so does another window of it: features and scores of two masks are never mixed up."""
    write_floods(tmp_path, {"train": ["A_1"], "valid": ["B_1"], "test": ["C_1"]})
    chips, _ = open_sen1floods11(tmp_path, BOTH[1:])

    digests = {chip.mask.digest() for chip in chips.splits["test"]}
    assert 4 == len(digests)
    assert 4 == len({chip.pixels[0].digest() for chip in chips.splits["test"]})
    write(chips.splits["test"][0].mask.file, np.zeros((1, 512, 512)), "int16")
    assert chips.splits["test"][0].mask.digest() not in digests


OWN_BANDS = ["B02", "B03", "B04", "B08"]


def own(root: Path, **options: object) -> DenseChips:
    """The images with masks of a folder."""
    arguments = {"void": [9], "bands": OWN_BANDS, **options}
    chips, _ = open_mask_folder(
        root,
        Sensor.S2_L2A,
        Unit.DN,
        {1: "field", 2: "water"},
        **arguments,  # type: ignore[arg-type]
    )
    return chips


def move(root: Path, names: dict[str, float]) -> None:
    """Give images other ground: name -> metres to the east."""
    for name, east in names.items():
        split, stem = name.split("/")
        with rasterio.open(root / split / "images" / f"{stem}.tif", "r+") as file:
            t = file.transform
            file.transform = Affine(t.a, 0, t.c + east, 0, t.e, t.f)


def test_own_windows_of_one_scene_stay_together(tmp_path: Path) -> None:
    """In val or in train, one sample for the bootstrap; lone images are drawn as in 0.1."""
    write_own(tmp_path, "train", 20)
    write_own(tmp_path, "test", 2)
    move(tmp_path, {f"train/{n}": 10_000 * (n // 4) + 80 * (n % 4) for n in range(20)})
    move(tmp_path, {f"test/{n}": -1_000 * (1 + n) for n in range(2)})
    chips = own(tmp_path)

    scenes = [{int(c.id[6:]) // 4 for c in chips.splits[s]} for s in ("train", "val")]
    assert not scenes[0] & scenes[1]
    assert (16, 4) == (len(chips.splits["train"]), len(chips.splits["val"]))
    assert 4 == len({chip.scene for chip in chips.splits["train"]})
    assert () == chips.remarks
    alone = own(tmp_path, place="{place}")
    _, taken = hold_out({"": [f"train/{n}" for n in range(20)]}, "masks")
    assert set(taken) == {c.id for c in alone.splits["val"]}
    assert [c.id for c in alone.all] == [c.scene for c in alone.all]


def test_own_test_images_on_training_ground_are_said(tmp_path: Path) -> None:
    """With names, and a remedy that was run: both images in one split."""
    write_own(tmp_path, "train", 5)
    write_own(tmp_path, "test", 2)
    move(tmp_path, {f"train/{n}": 1_000 * n for n in range(5)})
    move(tmp_path, {"test/0": 4_080, "test/1": -1_000})
    (remark,) = own(tmp_path).remarks

    assert remark.startswith("Leak: 1 of 2 test images show ground of train or val: test/0 with ")
    for kind in ("images", "masks"):
        (tmp_path / "test" / kind / "0.tif").rename(tmp_path / "train" / kind / "x.tif")
    assert () == own(tmp_path).remarks


def test_own_folders_with_links_hidden_files_and_two_endings(tmp_path: Path) -> None:
    """Links are followed, what a Mac leaves is left out, `a.tif` beside `a.tiff` is refused."""
    write_own(tmp_path, "train", 5)
    write_own(tmp_path, "test", 2)
    for kind in ("images", "masks"):
        folder = tmp_path / "train" / kind
        (folder / "._0.tif").write_bytes(b"resource fork")
        (tmp_path / "disk" / kind).mkdir(parents=True)
        (folder / "4.tif").rename(tmp_path / "disk" / kind / "4.tif")
        (folder / "more").symlink_to(tmp_path / "disk" / kind)
    ids = {chip.id for chip in own(tmp_path).all}
    assert 7 == len(ids)
    assert "train/more/4" in ids

    twin = tmp_path / "train" / "images" / "0.tiff"
    twin.write_bytes((tmp_path / "train" / "images" / "0.tif").read_bytes())
    with pytest.raises(DataError, match="ending only") as caught:
        own(tmp_path)
    assert "0.tif and 0.tiff" in str(caught.value.found)
    twin.rename(twin.with_name("x.tif"))  # its remedy
    mask = tmp_path / "train" / "masks" / "0.tif"
    (mask.parent / "x.tif").write_bytes(mask.read_bytes())
    assert "train/x" in {chip.id for chip in own(tmp_path).all}


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_images_that_lie_nowhere_need_a_stated_gsd(ending: str, tmp_path: Path) -> None:
    """Pictures with masks of PNG are read as rasters are, once their GSD is stated."""
    random = np.random.default_rng(0)
    for split, number in (("train", 0), ("train", 1), ("val", 2), ("test", 3)):
        for part, bands, high in (("images", 3, 200), ("masks", 1, 2)):
            file = tmp_path / split / part / f"{number}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            shape = {"count": bands, "height": 16, "width": 16}
            driver = "PNG" if ending == ".png" else "GTiff"
            with rasterio.open(file, "w", driver=driver, dtype="uint8", **shape) as target:
                target.write(random.integers(0, high, (bands, 16, 16)).astype("uint8"))
    classes = {0: "field", 1: "wood"}

    with pytest.raises(RasterError, match="how large their pixels are") as caught:
        open_mask_folder(tmp_path, Sensor.RGB, Unit.UINT8, classes)
    gsd = float(str(caught.value.remedy).rpartition(" ")[2])
    chips, spec = open_mask_folder(tmp_path, Sensor.RGB, Unit.UINT8, classes, gsd=gsd)

    assert (gsd, (16, 16)) == (spec.gsd, spec.size)
    assert {0, 1} == set(chips.splits["test"][0].mask.read().unique().tolist())
