"""The BigEarthNet of Copernicus-Bench in miniature: its lists, folders, dtypes and sizes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from eofm.contract.spec import SENSOR_BANDS, Sensor
from eofm.datasets.bigearthnet import CLASSES_19, SPECS
from eofm.datasets.bigearthnet.chips import GOLDEN, GOLDEN_CLASSES, open_copernicus_bigearthnet
from eofm.datasets.images.chips import read_batches
from eofm.errors import DataError, LabelError

BOTH = (Sensor.S2_L2A, Sensor.S1_GRD)
S2 = "S2B_MSIL2A_20180421T114349_N9999_R123_T29UPU"
S1 = "S1A_IW_GRDH_1SDV_20180420T063852"
# digital numbers by band
LEVELS = np.array([340, 430, 610, 590, 950, 1790, 2070, 2210, 2260, 2240, 1590, 1000])


def write(path: Path, levels: np.ndarray, dtype: str, seed: int) -> None:
    """Write 120 x 120 pixels, a level per band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(0.8, 1.2, (len(levels), 120, 120))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=dtype,
        count=len(levels),
        height=120,
        width=120,
        crs="EPSG:32629",
        transform=Affine(10, 0, 692_400, 0, -10, 5_892_840),
    ) as file:
        file.write((levels[:, None, None] * noise).astype(dtype))


def write_set(root: Path, header: Sequence[str], counts: tuple[int, int, int] = (5, 2, 2)) -> Path:
    """Write patches and lists; patch n has classes n and 18, whatever the order of the columns."""
    top, number = root / "bigearthnet_s1s2", 0
    top.mkdir(parents=True)
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        with (top / f"multilabel-{split}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["s1_path", "s2_path", *header])
            for _ in range(count):
                names = [f"{S1}/{S1}_29UPU_77_{number}", f"{S2}/{S2}_77_{number:02d}"]
                paths = [f"{name}/{name.split('/')[1]}_allbands.tif" for name in names]
                write(top / "BigEarthNet-S1-5%" / paths[0], np.array([-11.3, -18.7]), "float32", 1)
                write(top / "BigEarthNet-S2-5%" / paths[1], LEVELS, "uint16", number)
                hot = {CLASSES_19[number], CLASSES_19[18]}
                official = header if set(header) == set(CLASSES_19) else CLASSES_19
                lines.writerow([*paths, *(int(name in hot) for name in official)])
                number += 1
    return root


@pytest.mark.parametrize(
    "header", [CLASSES_19, tuple(reversed(CLASSES_19)), tuple(map(str, range(19)))]
)
def test_columns_are_taken_by_name(tmp_path: Path, header: tuple[str, ...]) -> None:
    """In whatever order they stand; numbered columns are in the official order."""
    chips, count = open_copernicus_bigearthnet(write_set(tmp_path, header), BOTH)

    assert count == 11_894 + 6_117 + 5_991
    assert [(n, 18) for n in range(5)] == [c.label for c in chips.splits["train"]]
    assert f"{S2}_77_00" == chips.splits["train"][0].id
    assert not chips.remarks


def test_pixels_are_those_declared(tmp_path: Path) -> None:
    """Twelve bands without B10 in the order of the files; decibels unrounded, VV first."""
    chips, _ = open_copernicus_bigearthnet(write_set(tmp_path, CLASSES_19), BOTH)

    (optical,) = read_batches(chips.splits["val"], 4)
    (radar,) = read_batches(chips.splits["val"], 4, sensor=1)

    assert SPECS[Sensor.S2_L2A] == optical.spec
    assert SENSOR_BANDS[Sensor.S2_L2A] == optical.spec.bands
    assert LEVELS.tolist() == pytest.approx(optical.pixels.mean(dim=(0, 2, 3)).tolist(), rel=0.01)
    assert radar.pixels[:, 0].mean() > radar.pixels[:, 1].mean() + 5
    assert (radar.pixels != radar.pixels.round()).any()


def test_patches_that_are_not_there_are_counted(tmp_path: Path) -> None:
    """A part of the set is a subset that says so."""
    root = write_set(tmp_path, CLASSES_19)
    next(root.rglob("*_77_03_allbands.tif")).unlink()

    chips, _ = open_copernicus_bigearthnet(root, BOTH[:1])

    assert ("1 of 9 patches are not on disk",) == chips.remarks


def test_the_golden_patch_finds_mixed_up_columns(tmp_path: Path) -> None:
    """Numbered columns that are not in the official order give a known patch other labels."""
    root = write_set(tmp_path, tuple(map(str, range(19))))
    golden = GOLDEN[max(GOLDEN)]
    name = root / f"bigearthnet_s1s2/BigEarthNet-S2-5%/x/{golden}/{golden}_allbands.tif"
    write(name, LEVELS, "uint16", 0)
    lists = root / "bigearthnet_s1s2/multilabel-test.csv"
    hot = [int(k in {10, 17}) for k in range(19)]
    with lists.open("a", newline="") as file:
        csv.writer(file).writerow(["none.tif", f"x/{golden}/{golden}_allbands.tif", *hot])

    with pytest.raises(DataError, match="known labels") as caught:
        open_copernicus_bigearthnet(root, BOTH[:1])

    assert str(GOLDEN_CLASSES) in str(caught.value)


def test_what_is_not_that_set_is_named(tmp_path: Path) -> None:
    """Nothing, an archive, columns of other classes, a label that is none, a missing list."""
    with pytest.raises(DataError, match="no such folder"):
        open_copernicus_bigearthnet(tmp_path / "nowhere", BOTH)
    (tmp_path / "bigearthnetv2.zip").touch()
    with pytest.raises(DataError, match="not the BigEarthNet of") as caught:
        open_copernicus_bigearthnet(tmp_path, BOTH)
    assert "unpack bigearthnetv2.zip" in str(caught.value)
    odd = write_set(tmp_path / "odd", (*CLASSES_19[:18], "Sea"), (2, 1, 1))
    with pytest.raises(LabelError, match="not the 19 classes") as caught:
        open_copernicus_bigearthnet(odd, BOTH)
    assert "Sea" in str(caught.value)
    root = write_set(tmp_path / "set", CLASSES_19, (2, 1, 1))
    lists = root / "bigearthnet_s1s2/multilabel-val.csv"
    lists.write_text(lists.read_text().replace(",1", ",2"))
    with pytest.raises(LabelError, match="0 or 1"):
        open_copernicus_bigearthnet(root, BOTH)
    lists.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        open_copernicus_bigearthnet(root, BOTH)
