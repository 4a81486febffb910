"""Miniature BigEarthNets: true names, sizes and number types, a constant of its own per band."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from affine import Affine

from eofm.contract.spec import SENSOR_BANDS, Sensor, resolution_groups

OPTICAL = SENSOR_BANDS[Sensor.S2_L2A]
FIRST = {  # name -> Sentinel-1 name, labels; as in the published set
    "S2A_MSIL2A_20170613T101031_87_48": (
        "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48",
        ["Non-irrigated arable land", "Airports"],
    ),
    "S2B_MSIL2A_20180204T94161_57_38": (
        "S1A_IW_GRDH_1SDV_20180204T043253_35VPK_57_38",
        ["Coniferous forest", "Peatbogs", "Inland marshes"],
    ),
    "S2A_MSIL2A_20170617T113321_4_55": (
        "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_4_55",
        ["Bare rock"],
    ),
}
SECOND = {  # name -> Sentinel-1 name, labels, split, snow
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57": (
        "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57",
        ["Arable land", "Broad-leaved forest"],
        "test",
        False,
    ),
    "S2A_MSIL2A_20170617T113321_N9999_R080_T29UPU_04_55": (
        "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_4_55",
        ["Pastures"],
        "train",
        False,
    ),
    "S2B_MSIL2A_20180204T094159_N9999_R036_T35VPK_57_38": (
        "S1A_IW_GRDH_1SDV_20180204T043253_35VPK_57_38",
        ["Mixed forest"],
        "validation",
        True,
    ),
}


def level(band: str) -> float:
    """The constant of a band: dB with a fraction, or a digital number."""
    return {"VV": -10.59, "VH": -17.31}.get(band) or 400.0 + 100 * OPTICAL.index(band)


def write_patch(folder: Path, bands: tuple[str, ...], seed: int, crs: str | None = "EPSG:32633"):
    """Write the bands of one patch, at 120, 60 and 20 pixels."""
    folder.mkdir(parents=True)
    for band in bands:
        gsd = next(iter(resolution_groups([band])))
        side = 1200 // gsd
        ramp = np.add.outer(np.arange(side), np.arange(side)) % 7 + seed
        values = level(band) + (ramp / 8 if band in {"VV", "VH"} else ramp)
        with rasterio.open(
            folder / f"{folder.name}_{band}.tif",
            "w",
            driver="GTiff",
            count=1,
            height=side,
            width=side,
            dtype="float32" if band in {"VV", "VH"} else "uint16",
            crs=crs,
            transform=Affine(gsd, 0, 404_400 + 1200 * seed, 0, -gsd, 5_342_400),
        ) as dataset:
            dataset.write(values.astype(dataset.dtypes[0]), 1)


def first_version(root: Path) -> Path:
    """Write BigEarthNet v1: three pairs, of which one is under snow and one has none of the 19."""
    for seed, (name, (radar, labels)) in enumerate(FIRST.items()):
        tile = radar.split("_")[-3]
        optical = root / "BigEarthNet-v1.0" / name
        write_patch(optical, OPTICAL, seed)
        _card(
            optical,
            labels,
            tile_source=f"S2A_MSIL1C_20170613T101031_N0205_R022_T{tile}_20170613T101608.SAFE",
            acquisition_date="2017-06-13 10:10:31",
        )
        other = root / "BigEarthNet-S1-v1.0" / radar
        write_patch(other, ("VV", "VH"), seed)
        _card(other, labels, corresponding_s2_patch=name)
    names = list(FIRST)
    lists = root / "splits"
    lists.mkdir()
    (lists / "train.csv").write_text(f"{names[0]},{FIRST[names[0]][0]}\n")
    (lists / "val.csv").write_text("S2A_MSIL2A_20170717T113321_28_89\n")
    (lists / "test.csv").write_text("S2A_MSIL2A_20170717T113321_28_88\n")
    (lists / "patches_with_seasonal_snow.csv").write_text(f"{names[1]}\n")
    (lists / "patches_with_no_19_class_targets.csv").write_text(f"{names[2]}\n")
    return root


def _card(folder: Path, labels: list[str], **more: str) -> None:
    card = {"labels": labels, **more}
    (folder / f"{folder.name}_labels_metadata.json").write_text(json.dumps(card))


def second_version(root: Path) -> Path:
    """Write BigEarthNet v2: three pairs, of which one is under snow."""
    for seed, (name, (radar, *_)) in enumerate(SECOND.items()):
        write_patch(root / "BigEarthNet-S2" / name.rsplit("_", 2)[0] / name, OPTICAL, seed)
        folder = root / "BigEarthNet-S1" / radar.rsplit("_", 3)[0] / radar
        write_patch(folder, ("VV", "VH"), seed)
    write_tables(root, SECOND)
    return root


def write_tables(root: Path, patches: Mapping[str, tuple[str, list[str], str, bool]]) -> None:
    """Write the two tables of version 2."""
    for file, snow in (
        ("metadata.parquet", False),
        ("metadata_for_patches_with_snow_cloud_or_shadow.parquet", True),
    ):
        rows = [
            {
                "patch_id": name,
                "labels": labels,
                "split": split,
                "country": "Austria",
                "s1_name": radar,
                "s2v1_name": f"v1 of {name}",
                "contains_seasonal_snow": snowy,
                "contains_cloud_or_shadow": False,
            }
            for name, (radar, labels, split, snowy) in patches.items()
            if snowy == snow
        ]
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), root / file)
