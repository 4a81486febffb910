"""Which images belong together: products in names, ground in files, and what each set declares."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio

from eofm.contract.spec import ImageSpec, Sensor, Unit
from eofm.datasets.bigearthnet import Version
from eofm.datasets.bigearthnet.chips import GOLDEN
from eofm.datasets.images.chips import NO_GROUPS, Chip, file_pixels, product_in, products_of
from eofm.datasets.images.places import by_ground
from eofm.datasets.registry import TASKS, family_of

PRODUCTS = {
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57": (
        "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"
    ),
    "S2A_MSIL2A_20170613T101031_0_45": "S2A_MSIL2A_20170613T101031",
    "S2B_MSIL2A_20170924T93020_41_73": "S2B_MSIL2A_20170924T93020",
    "test/Forest/S2C_MSIL1C_20250101T101031_N0511_R022_T33UUP_20250101T104000.tif": (
        "S2C_MSIL1C_20250101T101031_N0511_R022_T33UUP"
    ),
    "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_57": "S1A_IW_GRDH_1SDV_20170613T165043",
    "S1B_IW_GRDH_1SDV_20170613T165043_20170613T165108_005000_008BE1_1A2B/4.tif": (
        "S1B_IW_GRDH_1SDV_20170613T165043_20170613T165108_005000_008BE1"
    ),
    "Forest_12": None,
    "T32UQD_20170613T101031_B04": None,
    "S2A_MSIL2A_20170613T1010317_4": None,
}


@pytest.mark.parametrize(("name", "product"), PRODUCTS.items())
def test_a_product_is_read_from_a_name(name: str, product: str | None) -> None:
    """Tile and time are part of it; the row and column of a patch, and folders, are not."""
    assert product == product_in(name)


def test_one_image_without_a_product_leaves_all_without() -> None:
    """Two rules side by side would call one place two groups."""
    names = [name for name, product in PRODUCTS.items() if product]

    assert len(names) == len(products_of(names))
    assert {} == products_of([*names, "Forest_12"])


@pytest.mark.slow
def test_every_patch_of_the_official_lists_names_its_product(real_data: Path) -> None:
    """All of version 1 and 2: nothing is left but row and column."""
    from eofm.datasets.bigearthnet.patches import read_lists, read_tables

    for listing in (
        read_lists(real_data / "bigearthnet_v1/splits"),
        read_tables(real_data / "bigearthnet_v2"),
    ):
        odd = [n for n in listing.known if product_in(n) != n.rsplit("_", 2)[0]]
        assert [] == odd
    assert all(product_in(GOLDEN[version]) for version in Version)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_declares_its_groups(name: str) -> None:
    """What belongs together and how that is known, or why it is not; none leaves it open."""
    grouping, family = TASKS[name].grouping, family_of(name)

    assert NO_GROUPS != grouping
    assert grouping.what
    assert grouping.why
    assert grouping.known == (family in {"bigearthnet", "sen1floods11", "treesatai", "dfc2020"})


def test_images_that_overlap_are_one_group(tmp_path: Path) -> None:
    """By the footprints of the files; one that does not say where it lies is alone."""
    spec = ImageSpec(Sensor.S2_L2A, ("B02",), Unit.DN, (8, 8), 10.0)
    chips = []
    for number, east in enumerate((0, 40, 200, None)):
        file = tmp_path / f"{number}.tif"
        place = rasterio.Affine(10, 0, 5e5 + (east or 0), 0, -10, 5e6)
        crs = None if east is None else "EPSG:32632"
        kind = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint16"}
        with rasterio.open(file, "w", **kind, crs=crs, transform=place):
            chips.append(Chip(file.stem, 0, (file_pixels(file, spec),)))

    assert ["0", "0", "2", "3"] == [chip.group for chip in by_ground(chips)]
