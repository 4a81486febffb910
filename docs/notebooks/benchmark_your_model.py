# %% [markdown]
# # Benchmark your model honestly
#
# Your model is a function that returns a network and what it expects. Here it is scored on chips of **synthetic** land cover: four classes
# with spectra of their own, and noise. On data this easy band statistics are hard to beat, which is the point of controls.

# %%
import numpy as np
import rasterio
from affine import Affine
from pathlib import Path

BANDS = ["B02", "B03", "B04", "B08"]
SPECTRA = {
    "water": (1000, 800, 600, 450),
    "trees": (900, 800, 550, 2400),
    "crops": (1150, 1150, 1000, 3100),
    "built": (1500, 1500, 1600, 2050),
}
generator = np.random.default_rng(0)
number = 0
for split, count in (("train", 24), ("test", 12)):
    for name, spectrum in SPECTRA.items():
        for _ in range(count):
            level = np.array(spectrum) * generator.normal(1, 0.25)
            pixels = (
                (level[:, None, None] * generator.normal(1, 0.1, (4, 32, 32)))
                .clip(1)
                .astype("uint16")
            )
            path = Path("chips") / split / name / f"{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=4,
                height=32,
                width=32,
                dtype="uint16",
                crs="EPSG:32632",
                transform=Affine(10, 0, 600_000 + 1000 * number, 0, -10, 5_300_000),
            ) as file:
                file.write(pixels)
                file.descriptions = BANDS
            number += 1

# %% [markdown]
# ## Your model
#
# The recipe says what the network was trained with. Bands, unit, size and scaling are then the harness's work, and a data set that does
# not fit is refused.

# %%
# write this to a file, so that the benchmark can record where the model comes from
Path("my_models.py").write_text("""
import torch
from eofm import Normalization, Recipe, Sensor, Unit


class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(4, 32, 5, stride=2)

    def forward(self, pixels):
        return self.conv(pixels).relu().mean(dim=(2, 3))


def encoder():
    norm = Normalization.divide(10_000, bands=4, source="my training code")
    return Pooled().eval(), Recipe(Sensor.S2_L1C, ("B02", "B03", "B04", "B08"), Unit.DN, (32, 32), norm)
""")

# %%
from eofm.cli import main

words = "bench folder --root chips --sensor s2-l1c --unit dn --model mine=my_models.py:encoder --probe knn,linear --bootstrap 500 --cache"
assert main([*words.split(), ""]) == 0

# %% [markdown]
# ## Is the difference more than chance?
#
# Both models saw the same test chips, so the bootstrap draws the same chips for both.

# %%
assert main("bench compare mine imagestats --results runs/bench/folder.jsonl".split()) == 0

# %% [markdown]
# The interval says how much other test chips would move the difference. It knows nothing of training seeds, and nothing of places: see
# *What the intervals mean* in the documentation.
