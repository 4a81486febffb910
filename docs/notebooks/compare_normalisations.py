# %% [markdown]
# # What a normalisation costs
#
# The same weights, the same chips, four ways to scale the pixels. Wrong normalisation is the commonest silent fault of the field
# ([arXiv 2305.13456](https://arxiv.org/abs/2305.13456)). Chips are **synthetic** and the network is untrained: the numbers below are about
# the input alone.

# %%
import numpy as np
import rasterio
from affine import Affine
from pathlib import Path

from eofm.cli import main

status = main("world --out world --scenes 10 --size 60 --seed 4".split())

# %% [markdown]
# Chips of the synthetic world, by the land cover that covers most of each:

# %%
import eofm
from collections import Counter

chips = []
for season in sorted(Path("world/s2c").glob("*/*")):
    map_file = Path("world/dw") / season.parent.name / f"{season.name}.tif"
    if map_file.is_file():
        with rasterio.open(map_file) as file:
            codes = file.read(1)
        values, counts = np.unique(codes[codes < 255], return_counts=True)
        if len(values):
            chips.append((season, int(values[counts.argmax()])))
common = [code for code, count in Counter(code for _, code in chips).most_common(3) if count >= 4]
for number, (season, code) in enumerate(chips):
    if code in common:
        image = eofm.open_scene(str(season), sensor="s2-l1c", unit="dn").read()
        split = "test" if int(season.parent.name) % 3 == 0 else "train"  # whole places are held out
        path = Path("chips") / split / f"class{code}" / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = image.pixels[0].numpy().round().astype("uint16")
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=13,
            height=60,
            width=60,
            dtype="uint16",
            crs="EPSG:32632",
            transform=Affine(10, 0, 600_000 + 1000 * number, 0, -10, 5_300_000),
        ) as file:
            file.write(pixels)
            file.descriptions = image.spec.bands
{name: len(list(Path("chips").glob(f"{name}/*/*.tif"))) for name in ("train", "test")}

# %% [markdown]
# One option compares: `--normalization`. `own` is what the weights' recipe says.

# %%
words = (
    "bench folder --root chips --sensor s2-l1c --unit dn --model random:vit-tiny-14 --probe knn --size 56"
    " --normalization own,zscore,minmax,divide10000 --controls false --bootstrap 200"
)
status = main([*words.split(), "--cache", ""])

# %% [markdown]
# Rows other than the recipe's own are marked nonstandard and stay out of tables unless asked for: they say what an input costs, not how good a
# model is.
