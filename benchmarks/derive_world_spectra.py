"""Print the numbers of the embedded world that come from real data.

The tables in `eofm/data/world_spectra.py` are rounded from this output. Run it again with

    EOFM_REAL_DATA=/path/to/data python benchmarks/derive_world_spectra.py

It reads EuroSAT MS (train), TerraMesh, BigEarthNet v1, S2-100K and one WorldCereal site.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr

ROOT = Path(os.environ.get("EOFM_REAL_DATA", "../shared/data"))
L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
L2A = tuple(b for b in L1C if b != "B10")
EUROSAT_FILE_ORDER = (*L1C[:8], *L1C[9:], "B8A")  # B8A is last in the file
# L2A is "over-corrected" in dark haze, so two sites with a bright ground give the transmittance
TANZANIA, SNOW, DENMARK = "38D_378R_2_3", "609U_541L_3_0", "637U_59R_1_3"
OFFSET = {SNOW: 1000.0}  # processing baseline 04.00


def read(path: Path) -> np.ndarray:
    """Return all bands of a tif as float64."""
    with rasterio.open(path) as file:
        return file.read().astype(np.float64)


def eurosat(name: str) -> np.ndarray:
    """Return the training tiles of a class, (images, 13, 64, 64), in `L1C` order."""
    index = [EUROSAT_FILE_ORDER.index(b) for b in L1C]
    files = sorted((ROOT / "eurosat_ms/train" / name).glob("*.tif"))
    return np.stack([read(f)[index] for f in files])


def row(name: str, values: np.ndarray, digits: int = 0) -> None:
    """Print one line of a table."""
    print(f"{name:34s}" + " ".join(f"{v:8.{digits}f}" for v in values))


def ndvi(x: np.ndarray) -> np.ndarray:
    """Return the normalised difference of B08 and B04 along the band axis -3, L1C order."""
    red, nir = x[..., L1C.index("B04"), :, :], x[..., L1C.index("B08"), :, :]
    return (nir - red) / (nir + red)


def atmosphere() -> tuple[np.ndarray, np.ndarray]:
    """Path radiance from dark objects, transmittance from L1C over L2A of a bright site."""
    dark = np.concatenate([eurosat("SeaLake"), eurosat("Forest")])
    path = np.percentile(np.percentile(dark, 1, axis=(2, 3)), 5, axis=0)
    clear = read(ROOT / f"terramesh/S2L1C/{TANZANIA}.tif").mean((1, 2))
    ground = np.insert(read(ROOT / f"terramesh/S2L2A/{TANZANIA}.tif").mean((1, 2)), 10, np.nan)
    transmittance = (clear - path) / ground
    hazy = read(ROOT / f"terramesh/S2L1C/{DENMARK}.tif")
    dark_haze = np.percentile(hazy, 1, axis=(1, 2))
    print("\n== atmosphere, digital numbers (reflectance x 10000)")
    row("", np.arange(13))
    row("path radiance, clear (EuroSAT)", path)
    row("transmittance (Tanzania)", transmittance, 3)
    row("1 % darkest, hazy (Denmark)", dark_haze)
    row("haze = difference", dark_haze - path)
    return path, transmittance


def materials(path: np.ndarray, transmittance: np.ndarray) -> None:
    """Surface reflectance x 10000 of pure pixels, from EuroSAT pixels chosen by NDVI."""
    print("\n== surface reflectance x 10000 of EuroSAT pixels: (L1C - path) / transmittance")
    row("", np.arange(13))
    transmittance = np.where(np.isnan(transmittance), 1.0, transmittance)
    for name in sorted(p.name for p in (ROOT / "eurosat_ms/train").iterdir()):
        x = eurosat(name)
        surface = (x - path[:, None, None]) / transmittance[:, None, None]
        green = ndvi(surface)
        flat = np.moveaxis(surface, 1, -1).reshape(-1, 13)
        g = green.reshape(-1)
        low, high = np.percentile(g, [10, 90])
        row(f"{name}: all", flat.mean(0))
        row(f"{name}: NDVI < {low:.2f}", flat[g <= low].mean(0))
        row(f"{name}: NDVI > {high:.2f}", flat[g >= high].mean(0))
        bright = flat[:, 3] >= np.percentile(flat[:, 3], 98)
        row(f"{name}: 2 % brightest red", flat[bright].mean(0))
        within = surface.std(axis=(2, 3)).mean(0)
        between = surface.mean(axis=(2, 3)).std(0)
        row(f"{name}: sd within / between", np.concatenate([within[[1, 3, 8, 11]], between[[1, 3, 8, 11]]]))
        row(f"{name}: spectral slope B02 B04 B08", np.array([slope(x[:, b]) for b in (1, 3, 7)]), 2)


def slope(images: np.ndarray) -> float:
    """Return beta of a 1/f^beta power spectrum, f from 1/32 to 1/4 cycles per pixel."""
    size = images.shape[-1]
    window = np.outer(np.hanning(size), np.hanning(size))
    centred = images - images.mean((1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(centred * window)) ** 2).mean(0)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    edges = np.geomspace(1 / 32, 1 / 4, 7)
    centres, means = [], []
    for lo, hi in zip(edges[:-1], edges[1:], strict=True):
        ring = (f >= lo) & (f < hi)
        centres.append(np.log(f[ring].mean()))
        means.append(np.log(power[ring].mean()))
    return float(-np.polyfit(centres, means, 1)[0])


def surface_products() -> None:
    """L2A means: bare ground and snow of S2-100K, snow and savanna of TerraMesh."""
    print("\n== L2A, reflectance x 10000 (12 bands, no B10)")
    for patch, what in {
        "patch_58000": "desert, 42N 66E",
        "patch_566084": "savanna, dry, 21S 28E",
        "patch_275979": "semi-arid scrub, 33S 145E",
        "patch_526850": "red desert, 30S 119E",
        "patch_502692": "woodland, 13S 25E",
        "patch_61808": "mountain forest, 38N 114E",
        "patch_25630": "ice sheet, 74N 51W",
        "patch_322265": "fields, 51N 108W",
    }.items():
        x = read(ROOT / f"s2_100k/images/{patch}.tif")
        row(what, x.mean((1, 2)))
        row("  sd", x.std((1, 2)))
    for key in (TANZANIA, DENMARK, SNOW):
        row(key, read(ROOT / f"terramesh/S2L2A/{key}.tif").mean((1, 2)) - OFFSET.get(key, 0.0))


def backscatter() -> None:
    """Mean and sd in dB per class: TerraMesh gamma0 (RTC) and BigEarthNet sigma0 (GRD)."""
    print("\n== backscatter, dB: VV mean, VH mean, VV sd, VH sd")
    names = {2: "trees", 4: "crops", 5: "built", 7: "snow", 9: "rangeland"}
    for key in (TANZANIA, SNOW, DENMARK):
        db = read(ROOT / f"terramesh/S1RTC/{key}.tif")
        lulc = read(ROOT / f"terramesh/LULC/{key}.tif")[0]
        for code, name in names.items():
            inside = lulc == code
            if inside.sum() > 200:
                row(f"{key} {name}", np.r_[db[:, inside].mean(1), db[:, inside].std(1)], 1)
    pairs = sorted((ROOT / "bigearthnet_v1/BigEarthNet-v1.0").iterdir())
    radar = sorted((ROOT / "bigearthnet_v1/BigEarthNet-S1-v1.0").iterdir())
    for folder in pairs:
        tile = folder.name.split("_")[-2:]
        match = next(r for r in radar if r.name.split("_")[-2:] == tile)
        b = {n: read(folder / f"{folder.name}_{n}.tif")[0] for n in ("B02", "B03", "B04", "B08")}
        db = np.stack([read(match / f"{match.name}_{p}.tif")[0] for p in ("VV", "VH")])
        green = (b["B08"] - b["B04"]) / (b["B08"] + b["B04"] + 1)
        wet = (b["B03"] - b["B08"]) / (b["B03"] + b["B08"] + 1)
        groups = {"water": wet > 0.2, "bare": (green < 0.3) & (wet < 0), "green": green > 0.7}
        for name, inside in groups.items():
            if inside.sum() > 150:
                row(f"{folder.name[-20:]} {name}", np.r_[db[:, inside].mean(1), db[:, inside].std(1)], 1)


def speckle() -> None:
    """Neighbour correlation and equivalent number of looks where the ground is homogeneous."""
    print("\n== speckle: ENL in 7 px windows (upper decile), lag-1 correlation of the intensity")
    for key in (TANZANIA, SNOW, DENMARK):
        power = 10 ** (read(ROOT / f"terramesh/S1RTC/{key}.tif") / 10)
        describe_speckle(key, power)
    for folder in sorted((ROOT / "bigearthnet_v1/BigEarthNet-S1-v1.0").iterdir()):
        power = np.stack([10 ** (read(folder / f"{folder.name}_{p}.tif")[0] / 10) for p in ("VV", "VH")])
        describe_speckle(folder.name[-20:], power)


def describe_speckle(name: str, power: np.ndarray) -> None:
    """Print ENL and lag correlations of VV and VH."""
    numbers = []
    for band in power:
        h, w = (s // 7 * 7 for s in band.shape)
        blocks = band[:h, :w].reshape(h // 7, 7, w // 7, 7)
        enl = blocks.mean((1, 3)) ** 2 / blocks.var((1, 3))
        detail = band / blur(band, 4) - 1
        lag = [(detail[:, k:] * detail[:, :-k]).mean() / detail.var() for k in (1, 2)]
        numbers += [np.percentile(enl, 90), *lag]
    row(name, np.array(numbers), 2)


def blur(x: np.ndarray, radius: int) -> np.ndarray:
    """Return a box mean by cumulative sums, edges replicated."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(x, pad, mode="edge"), axis=axis)
        n = 2 * radius + 1
        x = (np.take(total, range(n, total.shape[axis]), axis) - np.take(total, range(total.shape[axis] - n), axis)) / n
    return x


def phenology() -> None:
    """Monthly NDVI and backscatter of maize and grassland in Flanders, from WorldCereal."""
    folder = ROOT / "worldcereal"

    def cube(pattern: str) -> xr.Dataset:
        return xr.open_dataset(next(folder.glob(pattern)), mask_and_scale=False)

    ten, twenty, radar = cube("S2_L2A_10m*"), cube("S2_L2A_20m*"), cube("S1_*")
    labels = cube("OUTPUT*")["CT"].values
    red, nir = ten["B04"].values.astype(float), ten["B08"].values.astype(float)
    clear = np.kron(np.isin(twenty["SCL"].values, (4, 5)), np.ones((1, 2, 2), bool))
    index = np.where(clear & (red > 0), (nir - red) / np.maximum(nir + red, 1), np.nan)
    scale = float(radar["VV"].attrs["scale_factor"])
    print("\n== phenology, Flanders, August 2017 to November 2018: month, NDVI, VV dB, VH dB")
    for code, name in {1200: "maize", 9120: "grass", 7900: "fodder"}.items():
        inside = labels == code
        half = inside[::2, ::2]
        for month in np.unique(ten.timestamp.values.astype("datetime64[M]")):
            when = ten.timestamp.values.astype("datetime64[M]") == month
            seen = index[when][:, inside]
            radar_when = radar.timestamp.values.astype("datetime64[M]") == month
            sigma = [10 * np.log10((10 ** (radar[p].values[radar_when][:, half] * scale / 10)).mean()) for p in ("VV", "VH")]
            if np.isfinite(seen).any():
                row(f"{name} {month}", np.array([np.nanmedian(seen), *sigma]), 2)
    print("sun zenith, first of the series", ten.timestamp.values[0], float(twenty["sunZenithAngles"].values[0]))


if __name__ == "__main__":
    path, transmittance = atmosphere()
    materials(path, transmittance)
    surface_products()
    backscatter()
    speckle()
    phenology()
