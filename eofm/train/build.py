"""Build the module to train from settings and data, for one sensor or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, Final, cast

import numpy as np
import torch

from eofm.contract.imagery import Labels
from eofm.contract.preprocess import convert_unit
from eofm.contract.recipe import Pooling, Recipe
from eofm.contract.spec import (
    DEFAULT_STATISTICS,
    STATISTICS,
    ImageSpec,
    Normalization,
    Sensor,
    Statistics,
)
from eofm.errors import ConfigError, StoreError, TrainingError
from eofm.loading.feeder import SecondSensor, SecondStore, open_pair
from eofm.loading.sampler import Seasons
from eofm.method import CombinedTerms, LabelFacts, label_facts
from eofm.method.branches import check_chunks
from eofm.method.config import MaskForm, Objective
from eofm.method.objectives import (
    check_views,
    describe_objective,
    is_whole,
    make_objective,
    needs_of,
)
from eofm.method.similarity import labelled
from eofm.method.terms.seam import ViewKind
from eofm.method.terms.self_distill import SelfDistill
from eofm.networks.build import default_pooling
from eofm.networks.joint import JointTrunk, share_trunk
from eofm.networks.state import InputInit, PositionRecipe, colour_bands
from eofm.networks.trunk import Trunk
from eofm.store.choice import held_out
from eofm.store.format import PAIRS, SPEC, common_licence
from eofm.store.paired import PairedStore
from eofm.store.reader import Store
from eofm.train.checkpoint import open_stage
from eofm.train.config import DataConfig, ModelConfig, PretrainConfig, demo_path, make_demo
from eofm.train.datamodule import StoreDataModule, check_share, iterate_rows, training_plan
from eofm.train.module import FrozenTeacher, PretrainModule, band_mean, no_teacher, open_teacher
from eofm.train.monitor.run_log import check_installed
from eofm.train.run_folder import config_hash
from eofm.train.trainer import ShardedModule
from eofm.weights.cards.card import UNSTATED
from eofm.weights.load import CHECKPOINT_KEY
from eofm.weights.start import Origin, start_from
from eofm.world.config import WorldConfig

__all__ = [
    "STATED_UNIT",
    "VIEW_KINDS",
    "build_module",
    "check_before_world",
    "make_recipe",
    "measure",
    "open_data",
]

_SOME: Final = 9  # classes, until the labels are known

# `data.views` -> the kind of views that a term may require.
VIEW_KINDS: Final[Mapping[str, ViewKind]] = {
    "crops": ViewKind.CROPS,
    "nested": ViewKind.NESTED,
    "sensors": ViewKind.SENSORS,
    **{str(kind): ViewKind.SEASONS for kind in Seasons},
}


def open_data(config: DataConfig, *, make: bool = True) -> tuple[Store, SecondStore | None]:
    """Return the store to train on, and the second store if the views are of two sensors.

    Args:
        config: The store to open; the synthetic world's if none is named.
        make: Write the synthetic world if it does not exist.

    Raises:
        ConfigError: If the world's folder holds another world.
        StoreError: If a store is incomplete or damaged, or one of two needed stores is missing.
    """
    if config.store is None and make:
        make_demo(config)
    path = config.store or demo_path(config)
    if config.views == "sensors":
        return open_pair(path)
    return _open_one(Path(path), config.sensor), None


def _open_one(path: Path, sensor: str) -> Store:
    """Return a store; if the folder holds several sensors, the store of the configured one."""
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
        remedy=f"--data.store {quote(str(path / next(iter(stores))))}",
    )


def build_module(
    config: PretrainConfig, data: StoreDataModule, recipe: Recipe
) -> tuple[PretrainModule, Origin]:
    """Return the module to train and the origin of its weights.

    Args:
        config: All settings.
        data: Training scenes, of one sensor or two.
        recipe: Input that the network expects; with two sensors, the first sensor's.

    Raises:
        ConfigError: If the network cannot be trained with the settings.
        WeightsError: If the weights to start from do not fit.
    """
    generator = torch.Generator().manual_seed(config.optim.seed)
    trunk, origin = _start(config, recipe, generator)
    _check_mask(config, trunk)
    _check_colours(config, recipe)
    facts = _label_facts(config, data)
    whole: Trunk | JointTrunk = trunk
    second_sensor = None
    if data.second_store is not None:
        whole, second_sensor, origin = _join(
            config, data, data.second_store, trunk, recipe, origin, generator
        )
    check_chunks(whole, config.trainer.chunk)
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
        second_sensor=second_sensor,
        frozen=partial(open_teacher, specs=[store.spec for store in _stores(data)]),
    )
    _note_teachers(made, origin)
    if config.monitor.branch not in made.branches:
        raise no_teacher()
    if config.model.continue_from is not None:
        stage = open_stage(Path(config.model.continue_from), CHECKPOINT_KEY)
        made.continue_from_stage(stage)
        origin = stage.origin
    return made, origin


def _stores(data: StoreDataModule) -> list[Store]:
    """Return the stores of a run's sensors, the first sensor's store first."""
    return [data.store] + ([] if data.second_store is None else [data.second_store.store])


def _note_teachers(module: PretrainModule, origin: Origin) -> None:
    """Record the frozen teachers on the card; refuse to start from the self-distillation teacher.

    Raises:
        ConfigError: If the student of `self_distill` starts from its teacher.
    """
    if not isinstance(module.method, CombinedTerms):
        return
    teachers = {name: cast("FrozenTeacher", t) for name, t in module.method.frozen.items()}
    for name, teacher in teachers.items():
        module.card["objective"] += f"; teacher of {name}: {teacher.describe()}"
        own = isinstance(module.method.terms[name], SelfDistill)
        if own and origin.sha256 and origin.sha256 == teacher.card.sha256:
            raise ConfigError(
                "the student starts from its own teacher: self-distillation would hold it there",
                found=f"{teacher.card.name} as start and as teacher",
                expected="the weights from which the teacher's own run started",
                where="model.weights",
                remedy="leave --model.weights as it was in the first run (arXiv 2210.02871)",
            )


def _label_facts(config: PretrainConfig, data: StoreDataModule) -> LabelFacts:
    """Return the facts about the training labels that the terms use.

    Raises:
        TrainingError: If a term needs labels and no scene has any.
        ConfigError: If a term needs a different kind of views.
    """
    labels, method = data.train_labels, config.method
    if is_whole(method):
        return label_facts(labels, method, config.columns)
    check_views(method, VIEW_KINDS[config.data.views])
    needed = needs_of(method)
    readers = [name for name, needs in needed.items() if needs.labels]
    for name in readers:
        if name != Objective.SOFTCON and not labelled(labels, labels.multi_hot).any():
            raise TrainingError(
                f"the term {name} reads labels, and no image is labelled",
                found=f"{len(labels)} images without labels",
                where="method.terms",
                remedy="pack the images with a land-cover map that covers them, or leave the term "
                "out",
            )
        if needed[name].places:
            _check_shared(name, labels)
    if readers:
        return label_facts(labels, method, config.columns)
    return LabelFacts(labels.multi_hot.shape[1])


def _check_shared(term: str, labels: Labels) -> None:
    """Refuse labels by which no image of another place is alike: the loss would be 0 throughout.

    Raises:
        TrainingError: If no class occurs at two places.
    """
    if labels.places is None:
        return
    rows, classes = (labels.multi_hot * labels.known[:, None]).nonzero().T
    pairs = torch.unique(torch.stack([classes, labels.places[rows]]), dim=1)
    if not bool((pairs[0].bincount() > 1).any()):
        raise TrainingError(
            f"the term {term} compares places that share a class, and no two places do",
            found=f"{len(pairs[0].unique())} classes at {len(pairs[1].unique())} labelled places, "
            "each at one of them",
            expected="a class that occurs at two places",
            where="method.terms",
            remedy="pack images of more places, or leave the term out",
        )


def _start(
    config: PretrainConfig, recipe: Recipe, generator: torch.Generator, *, second: bool = False
) -> tuple[Trunk, Origin]:
    """Return the network for the sensor of a recipe, and the origin of its tensors."""
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
    second_store: SecondStore,
    trunk: Trunk,
    recipe: Recipe,
    origin: Origin,
    generator: torch.Generator,
) -> tuple[JointTrunk, SecondSensor, Origin]:
    """Add a second input layer to the trunk, made from the same weights for the other sensor."""
    store = second_store.store
    second = make_recipe(store, data.seen_by(store.spec.sensor, data.train_rows)[1], config.model)
    other, own = _start(config, second, generator, second=True)
    joint = share_trunk({str(recipe.sensor): trunk, str(second.sensor): other})
    second_sensor = SecondSensor(
        str(second.sensor), training_plan(store.spec, second), second, own.new_input
    )
    words = f"{origin.input_layer} ({recipe.sensor}), {own.input_layer} ({second.sensor})"
    return joint, second_sensor, replace(origin, input_layer=words)


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


def _check_colours(config: PretrainConfig, recipe: Recipe) -> None:
    share = config.augment.rgb_probability
    if share > 0 and colour_bands(recipe.bands) is None:
        raise ConfigError(
            "images without red, green and blue cannot be seen in these alone",
            found=f"augment.rgb_probability {share:g}, and the bands {' '.join(recipe.bands)}",
            expected="B04, B03 and B02 among the bands, or 0",
            where="augment.rgb_probability",
            remedy="add --augment.rgb_probability 0",
        )


def _licence_of(data: StoreDataModule) -> str:
    """Return the licence shared by all data of a run; empty where there is none."""
    stores = _stores(data)
    stores += [] if data.replay is None else [data.replay]
    return common_licence(store.card.licence for store in stores)


def _card_facts(config: PretrainConfig, data: StoreDataModule) -> Mapping[str, Any]:
    store = data.store
    synthetic = store.synthetic or (data.replay is not None and data.replay.synthetic)
    made_up = " (synthetic, not observed)" if synthetic else ""
    again = ""
    if data.replay is not None:
        again = f"; {config.data.replay_share:.0%} of each batch from {data.replay.path.name}"
    if data.second_store is not None:
        second = data.second_store.store
        again = f"; paired with {second.path.name}, {second.spec.sensor}"
    return {
        "name": Path(config.run.out or "eofm").name,
        "architecture": config.model.architecture,
        "positions": config.model.position,
        "objective": describe_objective(config.method),
        "training_data": f"packed store {store.path.name}{made_up}, {store.spec.sensor}{again}",
        "counts": {
            "scenes": len(store),
            "train": len(data.train_rows),
            "held_out": len(np.union1d(data.val_rows, data.test_rows)),
        },
        "synthetic": synthetic,
        "licence": config.run.licence or _licence_of(data) or UNSTATED,
        "config_hash": config_hash(config),
    }


# Unit of a sensor's published statistics.
STATED_UNIT: Final = {s: STATISTICS[name].unit for s, name in DEFAULT_STATISTICS.items()}


def make_recipe(store: Store, rows: Sequence[int], config: ModelConfig) -> Recipe:
    """Return the recipe of the input that the network will expect.

    Args:
        store: The packed store to train on.
        rows: Its training rows, for statistics measured on the store.
        config: Size, normalisation, statistics and pooling.

    Raises:
        SpecError: If published statistics lack one of the store's bands.
        WeightsError: If `config` names an unknown architecture.
    """
    spec = store.spec
    if config.statistics == "published":
        stats = STATISTICS[DEFAULT_STATISTICS[spec.sensor]].select(spec.bands)
    else:
        stats = measure(store, rows)
    if config.normalization == "two-sigma":
        norm = Normalization.two_sigma(
            stats.mean, stats.std, stats.source, quantise=config.quantise
        )
    else:
        norm = Normalization.zscore(stats.mean, stats.std, stats.source)
    return Recipe(
        sensor=spec.sensor,
        bands=spec.bands,
        unit=stats.unit,
        size=(config.size, config.size),
        normalization=norm,
        pooling=_pooling(config),
    )


def _pooling(config: ModelConfig) -> Pooling:
    if config.pooling == "auto":
        return default_pooling(config.architecture)
    return Pooling(config.pooling)


def measure(store: Store, rows: Sequence[int]) -> Statistics:
    """Return mean and standard deviation of each band over the valid pixels of `rows`.

    Raises:
        ConfigError: If `rows` is empty.
    """
    if not len(rows):
        raise ConfigError("there are no training scenes to take statistics of", where=store.path)
    unit = STATED_UNIT[store.spec.sensor]
    bands = len(store.spec.bands)
    count, total, squares = 0, torch.zeros(bands).double(), torch.zeros(bands).double()
    for imagery in iterate_rows(store, rows):
        values = imagery.pixels.permute(1, 0, 2, 3)[:, imagery.valid].double()
        values = convert_unit(values, imagery.spec.unit, unit)
        count += values.shape[1]
        total += values.sum(dim=1)
        squares += (values**2).sum(dim=1)
    mean = total / count
    std = (squares / count - mean**2).clamp_min(0).sqrt()
    return Statistics(
        store.path.name,
        store.spec.sensor,
        unit,
        store.spec.bands,
        tuple(mean.tolist()),
        tuple(std.tolist()),
        f"store {store.path.name}: valid pixels of {len(rows)} training scenes, bilinear to 10 m",
    )


# ------------------------------------------------------------- checks before the data are written


@dataclass(frozen=True)
class _Promised:
    """Stand-in for the demo's store before it is written, with the attributes a recipe needs."""

    spec: ImageSpec


def check_before_world(config: PretrainConfig, processes: int) -> None:
    """Refuse settings that cannot be trained on the demo's world, before it is written.

    The network is built with its weights and discarded. Faults that depend on the labels, such as
    too few labelled scenes, are found later.

    Args:
        config: All settings, without a store.
        processes: Number of processes that share a batch.

    Raises:
        ConfigError: If the network cannot be trained with the settings, a batch cannot be divided
            among the processes, or a logger is not installed.
        TrainingError: If the world will have fewer training scenes than a batch.
        WeightsError: If the network is unknown, or the weights to start from do not fit.
        SpecError: If the network does not support the input size.
        StoreError: If another store of the settings cannot be read.
    """
    check_share(config.optim.batch, processes)
    if not is_whole(config.method):
        check_views(config.method, VIEW_KINDS[config.data.views])
    _check_demo_scenes(config)
    for store in (config.data.replay, config.monitor.store, config.monitor.before):
        if store is not None:
            Store(store)
    check_installed(config.monitor.writers)
    if config.model.continue_from is not None:
        open_stage(Path(config.model.continue_from), CHECKPOINT_KEY)
    both = config.data.views == "sensors"
    trunks: dict[str, Trunk] = {}
    specs: list[ImageSpec] = []
    for sensor in (Sensor.S2_L1C, Sensor.S1_GRD) if both else (Sensor(config.data.sensor),):
        table = STATISTICS[DEFAULT_STATISTICS[sensor]]
        side = config.data.size
        spec = ImageSpec(sensor, table.bands, table.unit, (side, side), 10.0)
        specs.append(spec)
        recipe = make_recipe(  # the store's statistics are not known yet; any values will do
            cast("Store", _Promised(spec)), (), replace(config.model, statistics="published")
        )
        generator = torch.Generator().manual_seed(config.optim.seed)
        second = bool(trunks)
        trunks[str(sensor)], _ = _start(config, recipe, generator, second=second)
        _check_mask(config, trunks[str(sensor)])
        _check_colours(config, recipe)
        check_chunks(trunks[str(sensor)], config.trainer.chunk)
    trunk = share_trunk(trunks) if both else trunks[str(sensor)]
    make_objective(
        trunk,
        config.method,
        generator,
        LabelFacts(_SOME),
        band_mean=band_mean(config),
        frozen=partial(open_teacher, specs=specs),
    )


def _check_demo_scenes(config: PretrainConfig) -> None:
    """Refuse a batch that the world cannot fill even if all its scenes have labels."""
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
