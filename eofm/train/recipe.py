"""The recipe of the network that is about to be trained, from its settings and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from eofm.contract.preprocess import Plan, convert_unit, plan
from eofm.contract.recipe import AcceptSize, Pooling, Recipe
from eofm.contract.sensors import DEFAULT_STATISTICS, STATISTICS, Statistics
from eofm.contract.spec import ImageSpec, Normalization, Sensor
from eofm.errors import ConfigError
from eofm.networks.build import default_pooling
from eofm.store.reader import Store
from eofm.train.config import ModelConfig
from eofm.train.datamodule import walk

# The unit in which published statistics of a sensor are stated.
STATED_UNIT: Final = {s: STATISTICS[name].unit for s, name in DEFAULT_STATISTICS.items()}

_WHY = "a random resized crop follows and brings each view to the recipe's size"


def make_recipe(store: Store, rows: Sequence[int], config: ModelConfig) -> Recipe:
    """Return what the network will expect.

    Args:
        store: The packed store to train on.
        rows: Its training rows, for statistics of its own.
        config: Size, normalisation, statistics and pooling.

    Raises:
        SpecError: If published statistics lack one of the store's bands.
        WeightsError: If no architecture has the name in `config`.
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
        ConfigError: If there is no row to measure.
    """
    if not len(rows):
        raise ConfigError("there are no training scenes to take statistics of", where=store.path)
    unit = STATED_UNIT[store.spec.sensor]
    bands = len(store.spec.bands)
    count, total, squares = 0, torch.zeros(bands).double(), torch.zeros(bands).double()
    for imagery in walk(store, rows):
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


def training_plan(spec: ImageSpec, recipe: Recipe) -> Plan:
    """Return the plan for a training batch: everything but the resize, which the crop does.

    Raises:
        SpecMismatch: If the store's imagery does not fit the recipe.
    """
    if spec.size is None or spec.size == recipe.size:
        return plan(spec, recipe)
    return plan(spec, recipe, (AcceptSize(spec.size, _WHY),))


def shows_colour(sensor: Sensor) -> bool:
    """Whether brightness, contrast and gray are changes a scene could show: not in SAR."""
    return sensor not in {Sensor.S1_GRD, Sensor.S1_RTC}
