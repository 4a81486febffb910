"""Settings: what is listed, what is refused, and the command that repeats a run."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from eofm.bench.config import PROBES, BenchConfig, TrainingConfig
from eofm.bench.finetune.trainings import TRAININGS
from eofm.bench.probes import KINDS
from eofm.bench.texts import TEXT_KINDS
from eofm.cli import parse
from eofm.datasets.bigearthnet import BenchBigEarthNetConfig
from eofm.datasets.eurosat import BenchEurosatConfig
from eofm.datasets.folder import BenchFolderConfig
from eofm.datasets.resisc45 import BenchResisc45Config
from eofm.datasets.so2sat import BenchSo2SatConfig
from eofm.datasets.treesatai import BenchTreeSatAIConfig
from eofm.datasets.ucmerced import BenchUCMercedConfig
from eofm.errors import ConfigError


def test_lists_are_comma_separated() -> None:
    """Spaces and repetitions do not matter, the order does."""
    config = BenchEurosatConfig("x", model="b, a,b", probe="linear , knn")

    assert ("b", "a") == config.models
    assert ("linear", "knn") == config.probes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": "kmeans"}, "no such probe"),
        ({"probe": ""}, "no such probe"),
        ({"model": " ,"}, "nothing to score"),
        ({"k": 0}, "k must be positive"),
        ({"bootstrap": 0}, "bootstrap must be positive"),
        ({"batch": 0}, "batch must be positive"),
        ({"limit": 0}, "limit must be positive"),
        ({"seed": -1}, "seed is out of range"),
        ({"seed": 2**32}, "seed is out of range"),
        ({"out": " "}, "need a file"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    """They end at once, not after the images are read."""
    with pytest.raises(ConfigError, match=message):
        BenchEurosatConfig("x", **options)  # type: ignore[arg-type]


def test_the_command_repeats_the_settings() -> None:
    """What a record gives as its command parses back to the same settings."""
    config = BenchEurosatConfig(
        "data set/eurosat", model="one=runs/a b,imagestats", controls=False, k=3, limit=7, cache=""
    )

    words = shlex.split(config.command())

    assert ["eofm", "bench", "eurosat"] == words[:3]
    assert config == parse("bench eurosat", words[3:])


def test_defaults_are_left_out_of_the_command() -> None:
    """The command is as short as it can be."""
    assert "eofm bench eurosat --root x" == BenchEurosatConfig("x").command()


def test_what_is_stated_of_own_images_is_never_left_out() -> None:
    """Sensor and unit decide what every pixel means: they stand in a record even as defaults."""
    words = BenchFolderConfig("x").command().split()

    assert {"--sensor", "s2-l1c", "--unit", "dn"} <= set(words)


def test_settings_load_without_torch() -> None:
    """The help of the verb must answer at once."""
    code = "import sys, eofm.bench.config; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False False" == done.stdout.strip()


@pytest.mark.parametrize(
    "config",
    [
        BenchBigEarthNetConfig("x", version="v1", classes=43, percent=10, sensor="both"),
        BenchFolderConfig("x", sensor="s1-grd", unit="db", bands="VV,VH"),
        BenchSo2SatConfig("x", version="v3-block"),
        BenchTreeSatAIConfig("x", metres=200, percent=0),
        BenchUCMercedConfig("x", split="stratified"),
        BenchResisc45Config("x", force="sensor"),
        BenchUCMercedConfig("x", probe="ssl4eo", train=TrainingConfig(epochs=3, faults=True)),
    ],
    ids=lambda c: c.verb,
)
def test_every_command_repeats_its_settings(config: BenchConfig) -> None:
    """Also with the options that only one task has."""
    words = shlex.split(config.command())

    assert ["eofm", "bench", config.verb] == words[:3]
    assert config == parse(f"bench {config.verb}", words[3:])


def test_probes_are_those_that_there_are() -> None:
    """The settings name them without importing them."""
    assert {*KINDS, *TEXT_KINDS, *TRAININGS} == set(PROBES)
