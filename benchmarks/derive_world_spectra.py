"""Print the numbers of the embedded world that come from real data.

The tables in `eofm/world/spectra.py` are this output, rounded to 5 digital numbers. Run

    EOFM_REAL_DATA=/path/to/data python benchmarks/derive_world_spectra.py

It reads EuroSAT MS (training half), TerraMesh, BigEarthNet v1, S2-100K and a WorldCereal site.
A test compares the tables with `materials()`, `path_radiance()` and `transmittance()`.
"""

from __future__ import annotations

import os
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr

L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
EUROSAT_FILE_ORDER = (*L1C[:8], *L1C[9:], "B8A")  # B8A is last in the file
TABLE = tuple(b for b in L1C if b not in ("B09", "B10"))  # the columns of `_MATERIALS`
TANZANIA, SNOW, DENMARK = "38D_378R_2_3", "609U_541L_3_0", "637U_59R_1_3"


def read(path: Path) -> np.ndarray:
    """Return all bands of a tif as float64."""
    with rasterio.open(path) as file:
        return file.read().astype(np.float64)


@cache
def eurosat(root: Path, name: str) -> np.ndarray:
    """Return the training tiles of a class, (images, 13, 64, 64), in L1C order."""
    index = [EUROSAT_FILE_ORDER.index(b) for b in L1C]
    files = sorted((root / "eurosat_ms/train" / name).glob("*.tif"))
    return np.stack([read(f)[index] for f in files])


@cache
def path_radiance(root: Path) -> np.ndarray:
    """Return what the air alone reflects, (13,) DN: dark pixels of the clearest EuroSAT tiles."""
    dark = np.concatenate([eurosat(root, "SeaLake"), eurosat(root, "Forest")])
    return np.percentile(np.percentile(dark, 1, axis=(2, 3)), 5, axis=0)


def transmittance(root: Path) -> np.ndarray:
    """Return (L1C - path) / L2A of a bright site, (13,); B10 has no L2A and is NaN."""
    above = read(root / f"terramesh/S2L1C/{TANZANIA}.tif").mean((1, 2))
    ground = read(root / f"terramesh/S2L2A/{TANZANIA}.tif").mean((1, 2))
    return (above - path_radiance(root)) / np.insert(ground, L1C.index("B10"), np.nan)


@cache
def surface_pixels(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return surface reflectance x 10000 of all pixels of a class, (n, 11), and their NDVI."""
    tiles = eurosat(root, name)
    ground = (tiles - path_radiance(root)[:, None, None]) / transmittance(root)[:, None, None]
    red, nir = ground[:, L1C.index("B04")], ground[:, L1C.index("B08")]
    greenness = (nir - red) / (nir + red)
    pixels = np.moveaxis(ground[:, [L1C.index(b) for b in TABLE]], 1, -1)
    return pixels.reshape(-1, len(TABLE)), greenness.reshape(-1)


def l2a(path: Path) -> np.ndarray:
    """Return the mean of an L2A patch of 12 bands, (11,)."""
    bands = [b for b in L1C if b != "B10"]
    return read(path).mean((1, 2))[[bands.index(b) for b in TABLE]]


def materials(root: Path) -> dict[str, np.ndarray]:
    """Return the derived rows of the table of materials, (11,) each."""
    found = {}

    def take(name: str, source: str, *, ndvi: str = "all", red: str = "all") -> None:
        pixels, greenness = surface_pixels(root, source)
        brightness = pixels[:, TABLE.index("B04")]
        chosen = np.ones(len(pixels), bool)
        if ndvi != "all":
            low, high = np.percentile(greenness, [10, 90])
            chosen = greenness <= low if ndvi == "lowest tenth" else greenness >= high
        if red == "brightest 2 %":
            chosen = brightness >= np.percentile(brightness, 98)
        if red == "darkest tenth":
            chosen = brightness <= np.percentile(brightness, 10)
        found[name] = pixels[chosen].mean(0)

    take("deep water", "SeaLake", red="darkest tenth")
    take("clear water", "SeaLake")
    found["deep water"] = (found["deep water"] + found["clear water"]) / 2
    take("turbid water", "River", ndvi="lowest tenth")
    take("conifer", "Forest", ndvi="lowest tenth")
    take("leafy", "Forest")
    take("lush grass", "Pasture", ndvi="highest tenth")
    take("short grass", "Pasture")
    take("straw", "HerbaceousVegetation", ndvi="lowest tenth")
    take("green crop", "AnnualCrop", ndvi="highest tenth")
    take("ploughed", "AnnualCrop", ndvi="lowest tenth")
    take("ripe crop", "AnnualCrop", red="brightest 2 %")
    take("orchard", "PermanentCrop", ndvi="highest tenth")
    take("dry orchard", "PermanentCrop")
    take("scrub", "HerbaceousVegetation", ndvi="highest tenth")
    take("asphalt", "Residential", ndvi="lowest tenth")
    take("suburb", "Residential")
    take("garden", "Residential", ndvi="highest tenth")
    take("halls", "Industrial", ndvi="lowest tenth")
    take("bright roofs", "Residential", red="brightest 2 %")
    found["roofs"] = (found["asphalt"] + found.pop("bright roofs")) / 2
    found["leafless"] = (found["leafy"] + found["straw"]) / 2
    patches = root / "s2_100k/images"
    found["woodland"] = l2a(patches / "patch_502692.tif")  # 13S 25E
    found["dry scrub"] = l2a(patches / "patch_275979.tif")  # 33S 145E
    found["pale sand"] = l2a(patches / "patch_58000.tif")  # 42N 67E
    found["red sand"] = l2a(patches / "patch_526850.tif")  # 30S 119E
    found["dunes"] = 1.7 * found["pale sand"]
    found["rock"] = (found["asphalt"] + found["pale sand"]) / 2 * 0.85
    found["ice sheet"] = l2a(patches / "patch_25630.tif")  # 74N 51W
    found["old snow"] = l2a(root / f"terramesh/S2L2A/{SNOW}.tif")  # 55N 84W, no offset in its L2A
    return found


# --- printing -----------------------------------------------------------------------------------


def row(name: str, values: np.ndarray, digits: int = 0) -> None:
    """Print one line of a table."""
    print(f"{name:34s}" + " ".join(f"{v:8.{digits}f}" for v in values))


def print_optical(root: Path) -> None:
    """Print air and materials, and texture within and between tiles."""
    print("== air: path radiance (DN), transmittance")
    row("", np.arange(13))
    row("path radiance", path_radiance(root))
    row("transmittance", transmittance(root), 3)
    print(f"\n== surface reflectance x 10000: {' '.join(TABLE)}")
    for name, values in materials(root).items():
        print(f"{name!r}: {tuple(int(5 * round(v / 5)) for v in values)}")
    print("\n== sd within and between tiles over the mean, B04 and B8A; slope beta of B02 B04 B08")
    for folder in sorted((root / "eurosat_ms/train").iterdir()):
        tiles = eurosat(root, folder.name)
        pair = tiles[:, [L1C.index("B04"), L1C.index("B8A")]]
        mean = pair.mean((0, 2, 3))
        spread = [pair.std(axis=(2, 3)).mean(0) / mean, pair.mean((2, 3)).std(0) / mean]
        row(folder.name, np.r_[np.concatenate(spread), [slope(tiles[:, b]) for b in (1, 3, 7)]], 2)


def slope(images: np.ndarray) -> float:
    """Return beta of a 1/f^beta power spectrum, f from 1/32 to 1/4 cycles per pixel."""
    size = images.shape[-1]
    window = np.outer(np.hanning(size), np.hanning(size))
    centred = images - images.mean((1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(centred * window)) ** 2).mean(0)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    rings = [(f >= lo) & (f < hi) for lo, hi in pairwise(np.geomspace(1 / 32, 1 / 4, 7))]
    centres = [np.log(f[ring].mean()) for ring in rings]
    return float(-np.polyfit(centres, [np.log(power[ring].mean()) for ring in rings], 1)[0])


def print_backscatter(root: Path) -> None:
    """Print dB per class: TerraMesh gamma0 (RTC), BigEarthNet sigma0 (GRD) by NDVI."""
    print("\n== backscatter, dB: VV mean, VH mean, VV sd, VH sd")
    names = {2: "trees", 4: "crops", 5: "built", 7: "snow", 9: "rangeland"}
    for key in (TANZANIA, SNOW, DENMARK):
        db = read(root / f"terramesh/S1RTC/{key}.tif")
        lulc = read(root / f"terramesh/LULC/{key}.tif")[0]
        for code, name in names.items():
            print_group(f"{key} {name}", db, lulc == code)
    for folder, db in bigearthnet_pairs(root):
        red, nir = (read(folder / f"{folder.name}_{b}.tif")[0] for b in ("B04", "B08"))
        greenness = (nir - red) / (nir + red + 1)
        print_group(f"{folder.name[-20:]} NDVI < 0.3", db, greenness < 0.3)
        print_group(f"{folder.name[-20:]} NDVI > 0.7", db, greenness > 0.7)


def bigearthnet_pairs(root: Path) -> list[tuple[Path, np.ndarray]]:
    """Return the Sentinel-2 folder and the dB of VV and VH, (2, 120, 120), of each pair."""
    pairs = []
    radar = sorted((root / "bigearthnet_v1/BigEarthNet-S1-v1.0").iterdir())
    for folder in sorted((root / "bigearthnet_v1/BigEarthNet-v1.0").iterdir()):
        tile = folder.name.split("_")[-2:]
        match = next(r for r in radar if r.name.split("_")[-2:] == tile)
        bands = [read(match / f"{match.name}_{p}.tif")[0] for p in ("VV", "VH")]
        pairs.append((folder, np.stack(bands)))
    return pairs


def print_group(name: str, db: np.ndarray, inside: np.ndarray) -> None:
    """Print the statistics of a group of pixels, if it is large enough."""
    if inside.sum() > 150:
        row(name, np.r_[db[:, inside].mean(1), db[:, inside].std(1)], 1)


def print_speckle(root: Path) -> None:
    """Print the correlation of neighbours of the intensity along rows, VV then VH."""
    print("\n== speckle: correlation of the intensity at 1 and 2 pixels, VV and VH")
    for key in (TANZANIA, SNOW, DENMARK):
        describe_speckle(key, read(root / f"terramesh/S1RTC/{key}.tif"))
    for folder, db in bigearthnet_pairs(root):
        describe_speckle(folder.name[-20:], db)


def describe_speckle(name: str, db: np.ndarray) -> None:
    """Print the correlations after division by the mean of 9 x 9 pixels."""
    numbers = []
    for band in 10 ** (db / 10):
        windows = np.lib.stride_tricks.sliding_window_view(band, (9, 9))
        detail = band[4:-4, 4:-4] / windows.mean((-1, -2)) - 1
        numbers += [(detail[:, k:] * detail[:, :-k]).mean() / detail.var() for k in (1, 2)]
    row(name, np.array(numbers), 2)


def print_phenology(root: Path) -> None:
    """Print monthly NDVI and dB of maize and grassland in Flanders, from WorldCereal."""
    folder = root / "worldcereal"

    def cube(pattern: str) -> xr.Dataset:
        return xr.open_dataset(next(folder.glob(pattern)), mask_and_scale=False)

    ten, twenty, radar = cube("S2_L2A_10m*"), cube("S2_L2A_20m*"), cube("S1_*")
    labels = cube("OUTPUT*")["CT"].values
    red, nir = ten["B04"].values.astype(float), ten["B08"].values.astype(float)
    clear = np.kron(np.isin(twenty["SCL"].values, (4, 5)), np.ones((1, 2, 2), bool))
    greenness = np.where(clear & (red > 0), (nir - red) / np.maximum(nir + red, 1), np.nan)
    scale = float(radar["VV"].attrs["scale_factor"])
    months = ten.timestamp.values.astype("datetime64[M]")
    radar_months = radar.timestamp.values.astype("datetime64[M]")
    print("\n== Flanders, August 2017 to November 2018: NDVI, VV dB, VH dB")
    for code, name in {1200: "maize", 9120: "grass"}.items():
        inside = labels == code
        for month in np.unique(months):
            seen = greenness[months == month][:, inside]
            if np.isfinite(seen).any():
                db = [
                    radar[p].values[radar_months == month][:, inside[::2, ::2]] * scale
                    for p in ("VV", "VH")
                ]
                mean = [10 * np.log10((10 ** (d / 10)).mean()) for d in db]
                row(f"{name} {month}", np.array([np.nanmedian(seen), *mean]), 2)


def main() -> None:
    """Print everything."""
    root = Path(os.environ.get("EOFM_REAL_DATA", "../shared/data"))
    print_optical(root)
    print_backscatter(root)
    print_speckle(root)
    print_phenology(root)


if __name__ == "__main__":
    main()
