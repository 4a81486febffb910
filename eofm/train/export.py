"""The encoders of a run: its start, its student and its teacher, each written as one of its own.

Of two sensors each is written twice: for the sensor that leads under the plain name, and for the
second sensor with its name behind, as in `student-s1-grd`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor

from eofm.contract.prepare import preprocess_for
from eofm.contract.recipe import Recipe
from eofm.networks.state import has_batch_norm, load_strict, refresh_batch_norms
from eofm.networks.trunk import Trunk
from eofm.store.reader import Store
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import ROWS_AT_ONCE, StoreDataModule, iterate_rows
from eofm.train.evaluate import INIT
from eofm.train.module import PretrainModule, fresh_norms_needed
from eofm.train.run_folder import RunFolder
from eofm.weights.checkpoint import make_card
from eofm.weights.encoder import Encoder, build_trunk, load_encoder, save_encoder
from eofm.weights.encoder_card import Card

# Images from which the statistics of batch norms are measured again: more change little.
NORM_IMAGES: Final = 1024


def export_init(module: PretrainModule, folder: RunFolder, line: str) -> None:
    """Write the network as it starts.

    Args:
        module: Before its first step.
        folder: Of the run.
        line: Where its weights come from.
    """
    for suffix, recipe in _sensors(module):
        card = make_card(module.card, recipe, f"{INIT}: {line}")
        export_trunk(module.trunk("student", recipe.sensor), card, folder.export / f"init{suffix}")


def export_branches(
    module: PretrainModule, data: StoreDataModule, folder: RunFolder, config: PretrainConfig
) -> dict[str, Encoder]:
    """Write student and teacher; return them with the initialisation, by name.

    Where the batch norms of a branch remember other images than it will be given, their statistics
    are first measured again, of whole training scenes.

    Args:
        module: After training.
        data: Has the scenes.
        folder: Of the run, with the initialisation in it.
        config: All settings.
    """
    encoders = {}
    for suffix, recipe in _sensors(module):
        mark = suffix.replace("-", " ", 1)
        encoders[f"{INIT}{mark}"] = load_encoder(folder.export / f"init{suffix}")
        for branch in module.branches:
            trunk = module.trunk(branch, recipe.sensor)
            source = f"{branch} after {config.optim.epochs} epochs"
            if fresh_norms_needed(config, branch) and has_batch_norm(trunk):
                store, rows = data.seen_by(recipe.sensor, data.train_rows)
                count = refresh_batch_norms(trunk, whole_images(store, rows, recipe))
                source += f"; batch norms refreshed on {count} batches of whole images"
            card = make_card(module.card, recipe, source)
            encoders[f"{branch}{mark}"] = export_trunk(
                trunk, card, folder.export / f"{branch}{suffix}"
            )
    return encoders


def whole_images(store: Store, rows: Sequence[int], recipe: Recipe) -> Iterator[Tensor]:
    """Yield scenes as an encoder gets them, (B, C, H, W), normalised, in batches of one size.

    Args:
        store: Has them.
        rows: Which; some of them, evenly spread, where they are many.
        recipe: What the encoder expects.
    """
    count = min(len(rows), NORM_IMAGES)
    count = count // ROWS_AT_ONCE * ROWS_AT_ONCE or count
    chosen = np.asarray(rows)[np.linspace(0, len(rows) - 1, count).astype(int)]
    for imagery in iterate_rows(store, chosen.tolist()):
        yield preprocess_for(imagery.spec, recipe)(imagery).pixels


def _sensors(module: PretrainModule) -> list[tuple[str, Recipe]]:
    """Return the end of the names of a sensor's exports, and its recipe."""
    made = [("", module.recipe)]
    if module.second_sensor is not None:
        made.append((f"-{module.second_sensor.name}", module.second_sensor.recipe))
    return made


def export_trunk(trunk: Trunk, card: Card, directory: Path) -> Encoder:
    """Write a trunk with its card, and return it as an encoder of its own (a copy)."""
    copy = build_trunk(card)
    load_strict(
        copy, {k: v.detach().cpu().clone() for k, v in trunk.state_dict().items()}, card.name
    )
    encoder = Encoder(copy, card)
    save_encoder(encoder, directory)
    return encoder
