# %% [markdown]
# # A first encoder
#
# A small encoder is trained on a **synthetic** world, in about a minute, and used. Everything below runs offline.

# %%
import eofm
from eofm.cli import main

# %% [markdown]
# ## Train
#
# The same command as in a terminal, `eofm pretrain`, with less of everything: 12 places instead of 500, two epochs instead of many. So
# little training shows how it works and no gain.

# %%
words = (
    "pretrain --data.scenes 12 --data.size 60 --model.size 56 --method.hidden 64 --method.dim 32"
    " --optim.epochs 2 --optim.batch 8 --run.threads 1 --trainer.accelerator cpu"
    " --monitor.every_epochs 0 --run.figures false --run.out runs/first"
)
assert main(words.split()) == 0

# %% [markdown]
# ## Look at an image
#
# Bands have names, the unit is stated, and the image knows where it lies.

# %%
from pathlib import Path

places = sorted(Path("worlds/demo/scenes").glob("s2c/*/*"))
image = eofm.open_scene(str(places[0]), sensor="s2-l1c", unit="dn").read()
image

# %%
axes = image.plot()

# %% [markdown]
# ## Embed it

# %%
encoder = eofm.load_weights("runs/first")
encoder

# %%
vector = encoder.embed(image)
vector.shape

# %% [markdown]
# What was done to the pixels on the way is a plan, step by step:

# %%
encoder.plan_for(image.spec)

# %% [markdown]
# ## What does not fit is refused
#
# The same pixels, stated to be reflectance. No pixel is looked at before there is a network to feed, and then the statement is found wrong:

# %%
wrong = eofm.open_scene(str(places[0]), sensor="s2-l1c", unit="reflectance").read()
try:
    encoder.embed(wrong)
except eofm.EofmError as error:
    print(error)
