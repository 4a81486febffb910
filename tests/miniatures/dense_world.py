"""DFC2020 and Sen1Floods11 in miniature: true names, dtypes, sizes, nodata and georeference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

S2_BANDS = (
    *("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8"),
    *("B8A", "B9", "B10", "B11", "B12"),
)
# digital numbers over land, and over water
LAND = np.array(
    [1480, 1270, 1270, 1260, 1440, 1780, 2060, 1890, 2130, 640, 11, 1470, 900], np.float64
)
WATER = np.array([1300, 1050, 900, 700, 620, 560, 540, 480, 500, 190, 10, 160, 90], np.float64)
RADAR = {"land": (-9.25, -16.75), "water": (-19.5, -27.25)}


def write(path: Path, values: np.ndarray, dtype: str, **profile: object) -> None:
    """Write bands (C, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = profile.pop("descriptions", None)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=dtype,
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        **profile,
    ) as file:
        file.write(values.astype(dtype))
        if names:
            file.descriptions = names


def optical(water: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Digital numbers (13, H, W): dark where water is."""
    level = np.where(water[None], WATER[:, None, None], LAND[:, None, None])
    return level * rng.uniform(0.75, 1.25, level.shape)


def radar(water: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """VV and VH in dB (2, H, W): low where water is."""
    wet, dry = (np.array(RADAR[name])[:, None, None] for name in ("water", "land"))
    return np.where(water[None], wet, dry) + rng.normal(0, 0.8, (2, *water.shape))


def half(side: int, share: float, turn: int) -> np.ndarray:
    """A mask whose left part is True, turned by quarters."""
    mask = np.zeros((side, side), bool)
    mask[:, : int(share * side)] = True
    return np.rot90(mask, turn).copy()


# ------------------------------------------------------------------------- Sen1Floods11


def write_floods(root: Path, names: dict[str, list[str]], seed: int = 0) -> Path:
    """Write chips of 512 pixels with the lists that name them; return the top folder.

    Args:
        root: Where v1.1 is made.
        names: Word of a list (train, valid, test, bolivia) -> chips.
        seed: Of the noise.
    """
    rng, top = np.random.default_rng(seed), root / "v1.1"
    hand, lists = top / "data/flood_events/HandLabeled", top / "splits/flood_handlabeled"
    place = {"crs": "EPSG:4326", "transform": Affine(8.983e-05, 0, -0.78, 0, -8.983e-05, 38.1)}
    lists.mkdir(parents=True)
    for number, (word, chips) in enumerate(names.items()):
        lines = [f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in chips]
        (lists / f"flood_{word}_data.csv").write_text("".join(lines))
        for turn, chip in enumerate(chips):
            water = half(512, 0.3 + 0.05 * number, turn)
            label = water.astype(np.int16)
            label[:7] = -1
            write(hand / f"LabelHand/{chip}_LabelHand.tif", label[None], "int16", **place)
            vv_vh = radar(water, rng)
            vv_vh[:, :3, :5] = np.nan
            names_1 = {"descriptions": ("VV", "VH"), "nodata": float("nan")}
            write(hand / f"S1Hand/{chip}_S1Hand.tif", vv_vh, "float32", **place, **names_1)
            names_2 = {"descriptions": S2_BANDS, "nodata": 0}
            write(
                hand / f"S2Hand/{chip}_S2Hand.tif", optical(water, rng), "int16", **place, **names_2
            )
    return top


# ------------------------------------------------------------------------------ DFC2020

CODES = {False: 6, True: 10}


def _patch(folder: Path, names: dict[str, str], turn: int, rng: np.random.Generator) -> None:
    """Write s1 (float64 dB), s2 (uint16) and dfc (int32) of one patch, without georeference."""
    water = half(256, 0.4, turn)
    codes = np.where(water, CODES[True], CODES[False])
    codes[:9] = 0
    codes[9:12] = 3
    write(folder / names["dfc"], codes[None], "int32")
    write(folder / names["s1"], radar(water, rng), "float64")
    write(folder / names["s2"], optical(water, rng), "uint16")


def write_contest(root: Path, train: int, test: int) -> Path:
    """Write patches in the layout of the contest."""
    rng = np.random.default_rng(3)
    for season, inner, count in (("test", "0", train), ("validation", "validation", test)):
        for n in range(count):
            names = {
                word: f"{word}_{inner}/ROIs0000_{season}_{word}_0_p{n}.tif"
                for word in ("s1", "s2", "dfc")
            }
            _patch(root / f"ROIs0000_{season}", names, n, rng)
    return root


def write_copernicus(root: Path, counts: dict[str, int]) -> Path:
    """Write patches in the layout of Copernicus-Bench, with its lists."""
    rng, n = np.random.default_rng(4), 0
    for split, count in counts.items():
        lines = []
        for _ in range(count):
            names = {
                word: f"{word}/ROIs0000_test_{word}_0_p{n}.tif" for word in ("s1", "s2", "dfc")
            }
            _patch(root, names, n, rng)
            lines.append(Path(names["dfc"]).name + "\n")
            n += 1
        (root / f"dfc-{split}-new.csv").write_text("".join(lines))
    return root
