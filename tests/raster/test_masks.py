"""Cloud masks that come with a product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import eofm
from eofm.errors import RasterError
from eofm.raster.metadata.masks import CloudMask, is_beside

WriteTif = Callable[..., Path]


@pytest.mark.parametrize(
    ("mask", "values", "masked"),
    [
        ("SCL", list(range(12)), {0, 1, 3, 8, 9, 10}),
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
    with pytest.raises(RasterError, match="no cloud mask is called") as caught:
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
    assert "beside the measurement: QA60" == caught.value.found
    with pytest.raises(RasterError, match="no cloud mask SCL"):
        eofm.read_geotiff(tmp_path / "x", bands=["B02"], **stated)


def test_a_mask_of_other_ground(tmp_path: Path, write_tif: WriteTif) -> None:
    """A mask that was cut elsewhere is refused."""
    write_tif(tmp_path / "B02.tif", np.full((8, 8), 700, np.uint16))
    write_tif(tmp_path / "SCL.tif", np.full((4, 4), 4, np.uint8), gsd=20.0, origin=(0.0, 0.0))

    with pytest.raises(RasterError, match="other ground"):
        eofm.read_geotiff(tmp_path, sensor="s2-l2a", unit="dn", bands=["B02"], cloud_mask="SCL")
