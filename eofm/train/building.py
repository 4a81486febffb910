"""From settings and data to the module that is trained, with one sensor or with two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch

from eofm.contract.recipe import Recipe
from eofm.contract.sensors import DEFAULT_STATISTICS, STATISTICS
from eofm.contract.spec import ImageSpec, Sensor
from eofm.errors import ConfigError, StoreError, TrainingError
from eofm.loading.order import Seasons
from eofm.loading.pair_feed import Beside, open_pair
from eofm.method import LabelFacts, MaskForm, label_facts
from eofm.method.objectives import describe_objective, make_objective
from eofm.method.teacher import check_chunks
from eofm.networks.adapt import InputInit, PositionRecipe
from eofm.networks.joint import JointTrunk, share_trunk
from eofm.networks.trunk import Trunk
from eofm.store.choice import held_out
from eofm.store.format import PAIRS, SPEC
from eofm.store.paired import PairedStore
from eofm.store.reader import Store
from eofm.train.config import DataConfig, PretrainConfig
from eofm.train.datamodule import StoreDataModule, check_share
from eofm.train.demo import demo_path, make_demo
from eofm.train.folder import config_hash
from eofm.train.module import PretrainModule
from eofm.train.monitoring.loggers import check_installed
from eofm.train.objectives import band_mean
from eofm.train.partner import Partner
from eofm.train.recipe import make_recipe, training_plan
from eofm.train.sharding import ShardedModule
from eofm.train.stage import open_stage
from eofm.weights.checkpoint import CHECKPOINT_KEY
from eofm.weights.start import Origin, start_from
from eofm.world.config import WorldConfig

_SOME: Final = 9  # classes, until the labels are known
LICENCE: Final = "Apache-2.0"


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
    config: PretrainConfig, recipe: Recipe, generator: torch.Generator, *, second: bool = False
) -> tuple[Trunk, Origin]:
    """Return the network of the sensor of a recipe, and where its tensors come from."""
    weights = config.model.weights
    if weights is not None and config.data.views == "sensors" and weights.count("+") == 1:
        weights = weights.split("+")[second]
    return start_from(
        weights,
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
    other, own = _start(config, second, generator, second=True)
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
        "licence": LICENCE,
        "config_hash": config_hash(config),
    }


# ----------------------------------------------------------- before there is anything to train on


@dataclass(frozen=True)
class _Promised:
    """The store that the demo's world will become, as far as a recipe asks of it."""

    spec: ImageSpec


def check_before_world(config: PretrainConfig, processes: int) -> None:
    """Refuse what cannot be trained on the demo's world, before it is written.

    The network is built, with its weights, and thrown away again. What only the labels can tell,
    such as how many scenes have some, is seen later.

    Args:
        config: All settings, without a store.
        processes: How many share a batch.

    Raises:
        ConfigError: If the network cannot be trained as the settings say, a batch cannot be shared
            out, or a logger is not installed.
        TrainingError: If the world will have fewer training scenes than a batch.
        WeightsError: If there is no such network, or the weights to start from do not fit.
        SpecError: If the size does not suit the network.
        StoreError: If another store of the settings cannot be read.
    """
    check_share(config.optim.batch, processes)
    _check_demo_scenes(config)
    for store in (config.data.replay, config.monitor.store, config.monitor.before):
        if store is not None:
            Store(store)
    check_installed(config.monitor.writers)
    if config.model.continue_from is not None:
        open_stage(Path(config.model.continue_from), CHECKPOINT_KEY)
    both = config.data.views == "sensors"
    trunks: dict[str, Trunk] = {}
    for sensor in (Sensor.S2_L1C, Sensor.S1_GRD) if both else (Sensor(config.data.sensor),):
        table = STATISTICS[DEFAULT_STATISTICS[sensor]]
        side = config.data.size
        spec = ImageSpec(sensor, table.bands, table.unit, (side, side), 10.0)
        recipe = make_recipe(  # statistics of the store are not known yet: any will do
            cast("Store", _Promised(spec)), (), replace(config.model, statistics="published")
        )
        generator = torch.Generator().manual_seed(config.optim.seed)
        second = bool(trunks)
        trunks[str(sensor)], _ = _start(config, recipe, generator, second=second)
        _check_mask(config, trunks[str(sensor)])
        check_chunks(trunks[str(sensor)], config.trainer.chunk)
    trunk = share_trunk(trunks) if both else trunks[str(sensor)]
    make_objective(trunk, config.method, generator, LabelFacts(_SOME), band_mean=band_mean(config))


def _check_demo_scenes(config: PretrainConfig) -> None:
    """Refuse a batch that the world cannot fill even if all of its scenes have labels."""
    data = config.data
    names = [f"{i:07d}" for i in range(data.scenes)]
    places = data.scenes - int(held_out(names, data.holdout, data.seed).sum())
    one_of_each = data.views in tuple(Seasons)
    most = places if one_of_each else places * WorldConfig.seasons
    needed = config.optim.batch * config.trainer.accumulate
    if config.data.replay is None and most < needed:
        what = "places" if one_of_each else "scenes"
        raise TrainingError(
            f"the synthetic world has fewer training {what} than a batch",
            found=f"at most {most} {what}: data.scenes={data.scenes}, "
            f"data.holdout={data.holdout:g}",
            expected=f"at least {needed} (optim.batch x trainer.accumulate)",
            remedy=f"a smaller batch: --optim.batch {max(2, most // config.trainer.accumulate)}, "
            "or more --data.scenes",
        )
