"""From settings and data to the module that is trained, with one sensor or with two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eofm.contract.recipe import Recipe
from eofm.errors import ConfigError, StoreError
from eofm.loading.pair_feed import Beside, open_pair
from eofm.method import MaskForm, label_facts
from eofm.method.objectives import describe_objective
from eofm.networks.adapt import InputInit, PositionRecipe
from eofm.networks.joint import JointTrunk, share_trunk
from eofm.networks.trunk import Trunk
from eofm.store.format import PAIRS, SPEC
from eofm.store.licence import common_licence, licence_of
from eofm.store.paired import PairedStore
from eofm.store.reader import Store
from eofm.train.config import DataConfig, PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.demo import demo_path, make_demo
from eofm.train.folder import config_hash
from eofm.train.module import PretrainModule
from eofm.train.partner import Partner
from eofm.train.recipe import make_recipe, training_plan
from eofm.train.sharding import ShardedModule
from eofm.train.stage import open_stage
from eofm.weights.checkpoint import CHECKPOINT_KEY
from eofm.weights.start import Origin, start_from


def open_data(config: DataConfig, *, make: bool = True) -> tuple[Store, Beside | None]:
    """Return the store to train on, and the one beside it where the views are of two sensors.

    Args:
        config: Which store; without one it is the synthetic world's.
        make: Write the synthetic world if it is not there.

    Raises:
        ConfigError: If the world's folder holds another world.
        StoreError: If a store is half written or damaged, or there are not two of them.
    """
    if config.store is None and make:
        make_demo(config)
    path = config.store or demo_path(config)
    if config.views == "sensors":
        return open_pair(path)
    return _open_one(Path(path), config.sensor), None


def _open_one(path: Path, sensor: str) -> Store:
    """Return a store; of a folder of several sensors, that of the sensor of the settings."""
    if (path / SPEC).is_file() or not (path / PAIRS).is_file():
        return Store(path)
    stores = PairedStore(path).stores
    fitting = [store for store in stores.values() if store.spec.sensor == sensor]
    if len(fitting) == 1:
        return fitting[0]
    raise StoreError(
        "the folder holds the stores of several sensors, and not one of the sensor of the settings",
        found=", ".join(f"{name} ({store.spec.sensor})" for name, store in stores.items()),
        expected=sensor,
        where=path,
        remedy=f"--data.store {path / next(iter(stores))}",
    )


def build_module(
    config: PretrainConfig, data: StoreDataModule, recipe: Recipe
) -> tuple[PretrainModule, Origin]:
    """Return what is trained, and where its weights come from.

    Args:
        config: All settings.
        data: Training scenes, of one sensor or two.
        recipe: What the network expects; of two sensors, the one that leads.

    Raises:
        ConfigError: If the network cannot be trained as the settings say.
        WeightsError: If the weights to start from do not fit.
    """
    generator = torch.Generator().manual_seed(config.optim.seed)
    trunk, origin = _start(config, recipe, generator)
    _check_mask(config, trunk)
    columns = config.optim.batch + config.method.queue
    facts = label_facts(data.train_labels, config.method, columns)
    whole: Trunk | JointTrunk = trunk
    partner = None
    if data.beside is not None:
        whole, partner, origin = _join(config, data, data.beside, trunk, recipe, origin, generator)
    kind = ShardedModule if config.trainer.strategy == "fsdp" else PretrainModule
    made = kind(
        whole,
        config,
        training_plan(data.store.spec, recipe),
        recipe,
        facts,
        _card_facts(config, data),
        generator,
        new_input=origin.new_input,
        partner=partner,
    )
    if config.model.continue_from is not None:
        stage = open_stage(Path(config.model.continue_from), CHECKPOINT_KEY)
        made.continue_stage(stage)
        origin = stage.origin
    return made, origin


def _start(
    config: PretrainConfig, recipe: Recipe, generator: torch.Generator
) -> tuple[Trunk, Origin]:
    return start_from(
        config.model.weights,
        config.model.architecture,
        recipe,
        generator,
        input_init=InputInit(config.model.input_init),
        positions=PositionRecipe(config.model.position),
    )


def _join(
    config: PretrainConfig,
    data: StoreDataModule,
    beside: Beside,
    trunk: Trunk,
    recipe: Recipe,
    origin: Origin,
    generator: torch.Generator,
) -> tuple[JointTrunk, Partner, Origin]:
    """Give the trunk a second input layer, made from the same weights for the other sensor."""
    store = beside.store
    second = make_recipe(store, data.seen_by(store.spec.sensor, data.train_rows)[1], config.model)
    other, own = _start(config, second, generator)
    joint = share_trunk({str(recipe.sensor): trunk, str(second.sensor): other})
    partner = Partner(str(second.sensor), training_plan(store.spec, second), second, own.new_input)
    words = f"{origin.input_layer} ({recipe.sensor}), {own.input_layer} ({second.sensor})"
    return joint, partner, replace(origin, input_layer=words)


def _check_mask(config: PretrainConfig, trunk: Trunk) -> None:
    method = config.method
    if method.mask_ratio > 0 and method.mask is MaskForm.TOKENS and not trunk.drops_tokens:
        raise ConfigError(
            f"{config.model.architecture} has no tokens to drop",
            found=f"mask ratio {method.mask_ratio:g} of tokens",
            expected="0, or masks of pixels",
            where="method.mask_ratio",
            remedy="add --method.mask_ratio 0 (as usual), or --method.mask pixels",
        )


def _licence_of(data: StoreDataModule) -> str:
    """Return the licence that all data of a run have."""
    stores = [data.store]
    stores += [] if data.beside is None else [data.beside.store]
    stores += [] if data.replay is None else [data.replay]
    return common_licence(map(licence_of, stores))


def _card_facts(config: PretrainConfig, data: StoreDataModule) -> Mapping[str, Any]:
    store = data.store
    synthetic = store.synthetic or (data.replay is not None and data.replay.synthetic)
    made_up = " (synthetic, not observed)" if synthetic else ""
    again = ""
    if data.replay is not None:
        again = f"; {config.data.replay_share:.0%} of each batch from {data.replay.path.name}"
    if data.beside is not None:
        beside = data.beside.store
        again = f"; paired with {beside.path.name}, {beside.spec.sensor}"
    return {
        "name": Path(config.run.out or "eofm").name,
        "architecture": config.model.architecture,
        "positions": config.model.position,
        "objective": describe_objective(config.method.objective),
        "training_data": f"packed store {store.path.name}{made_up}, {store.spec.sensor}{again}",
        "counts": {
            "scenes": len(store),
            "train": len(data.train_rows),
            "held_out": len(data.test_rows),
        },
        "synthetic": synthetic,
        "licence": config.run.licence or _licence_of(data),
        "config_hash": config_hash(config),
    }
