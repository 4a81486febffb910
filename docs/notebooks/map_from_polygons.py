# %% [markdown]
# # A map from polygons
#
# A scene, some polygons of known land cover, a map with its accuracy. The scene is **synthetic**, and the encoder is untrained: a network with
# random weights is a surprisingly good colour filter, and enough to see the steps. With `--model softcon_vits14_s2` the commands are the same.

# %%
import geopandas
import numpy as np
import rasterio
from affine import Affine
from shapely.geometry import box

BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
SPECTRA = {
    "water": (1300, 1000, 800, 600, 550, 520, 510, 450, 430, 250, 15, 300, 200),
    "trees": (1200, 900, 800, 550, 850, 1900, 2300, 2400, 2600, 800, 15, 1500, 700),
    "crops": (1350, 1150, 1150, 1000, 1500, 2600, 3000, 3100, 3300, 1000, 15, 2300, 1400),
    "built": (1600, 1500, 1500, 1600, 1750, 1900, 2000, 2050, 2150, 800, 20, 2300, 2000),
}
generator = np.random.default_rng(3)
parcels = generator.integers(0, 4, (8, 8))
ground = np.kron(parcels, np.ones((28, 28), int))
clean = np.array(list(SPECTRA.values()))[ground].transpose(2, 0, 1)
pixels = (clean * generator.normal(1, 0.08, clean.shape)).clip(1).astype("uint16")
transform = Affine(10, 0, 600_000, 0, -10, 5_302_240)
with rasterio.open(
    "scene.tif",
    "w",
    driver="GTiff",
    count=13,
    height=224,
    width=224,
    dtype="uint16",
    crs="EPSG:32632",
    transform=transform,
) as file:
    file.write(pixels)
    file.descriptions = BANDS

names = list(SPECTRA)
rows = [
    {
        "class": names[parcels[r, c]],
        "geometry": box(
            600_000 + 280 * c,
            5_302_240 - 280 * (r + 1),
            600_000 + 280 * (c + 1),
            5_302_240 - 280 * r,
        ),
    }
    for r in range(8)
    for c in range(8)
    if (r + c) % 2 == 0
]
geopandas.GeoDataFrame(rows, crs="EPSG:32632").to_file("fields.gpkg")
len(rows), "polygons"

# %% [markdown]
# ## Vectors

# %%
from eofm.cli import main

words = "embed scene.tif --sensor s2-l1c --unit dn --model random:vit-tiny-14 --size 56 --patches --out emb"
assert main(words.split()) == 0

# %%
with rasterio.open("emb/patches.tif") as file:
    print(file.crs, file.res, file.count, "numbers for each patch")

# %% [markdown]
# ## A map

# %%
assert main("map emb --labels fields.gpkg --field class --out fields".split()) == 0

# %%
import matplotlib.pyplot as plt

with rasterio.open("fields/map.tif") as file:
    classes = file.read(1)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained")
left.imshow(pixels[[3, 2, 1]].transpose(1, 2, 0) / 2500)
left.set_title("scene")
colours = plt.get_cmap("Set2")
right.imshow(colours(classes - 1), interpolation="nearest")
right.set_title("map")
handles = [plt.Rectangle((0, 0), 1, 1, color=colours(code)) for code in range(len(names))]
figure.legend(handles, sorted(names), loc="outside lower center", ncols=len(names))
for ax in (left, right):
    ax.axis("off")

# %% [markdown]
# The accuracy above is measured on squares of ground that were held out together, with intervals by resampling these squares.
# `fields/report.html` has it on one page, and `fields/map.tif` opens in QGIS with its colours.
