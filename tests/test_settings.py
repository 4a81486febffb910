"""Settings given in Python are refused where they are written, in the package's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from eofm.cli.program import load
from eofm.cli.verbs import VERBS
from eofm.datasets.folder import BenchFolderConfig
from eofm.errors import ConfigError
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.maps_config import MapMethod
from eofm.train.config import AugmentConfig, MonitorConfig, OptimConfig, PretrainConfig


def groups(kind: type[Any]) -> Iterator[type[Any]]:
    """A class of settings and those of its groups."""
    yield kind
    for hint in get_type_hints(kind).values():
        for one in get_args(hint) or (hint,):
            if isinstance(one, type) and dataclasses.is_dataclass(one):
                yield from groups(one)


EVERY = {one for verb in VERBS.values() for one in groups(load(verb.settings))}
NUMBERS = sorted(
    (
        (kind, one.name)
        for kind in EVERY
        for one in dataclasses.fields(kind)
        if {int, float, bool} & {*get_args(get_type_hints(kind)[one.name])}
        or get_type_hints(kind)[one.name] in {int, float, bool}
        if str not in get_args(get_type_hints(kind)[one.name])
        and one.name != "resume"  # it takes a word, too
    ),
    key=lambda pair: (pair[0].__name__, pair[1]),
)


@pytest.mark.parametrize(
    ("kind", "name"), NUMBERS, ids=[f"{kind.__name__}.{name}" for kind, name in NUMBERS]
)
def test_text_is_no_number(kind: type[Any], name: str) -> None:
    """Every number and switch of every verb and group names its field, what it holds and
    what it takes, before anything else is looked at.
    """
    needed = {
        one.name: "x"
        for one in dataclasses.fields(kind)
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    }
    lists = {field for field in needed if str(get_type_hints(kind)[field]).startswith("list")}
    needed = {field: ["x"] if field in lists else "x" for field in needed}

    with pytest.raises(ConfigError, match=f"^{name} is of another type") as caught:
        kind(**{**needed, name: "many"})

    assert "'many' (str)" in str(caught.value)
    assert str(caught.value.expected).startswith(
        ("a number", "a whole number", "True or False", "2 of")
    )
    assert caught.value.where == f"{kind.__name__}.{name}"


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda **given: OptimConfig(**{"lr": "1e-3"} | given), "lr=0.001"),
        (lambda **given: AugmentConfig(**{"flips": "False"} | given), "flips=False"),
        (lambda **given: EmbedConfig(["a"], "m", "o", **{"batch": "8"} | given), "batch=8"),
        (
            lambda **given: EmbedConfig(model="m", out="o", **{"scenes": "a.tif"} | given),
            "scenes=['a.tif']",
        ),
        (lambda **given: BenchFolderConfig("root", **{"batch": "16"} | given), "batch=16"),
        (lambda **given: MapMethod(**{"purity": "0.9"} | given), "purity=0.9"),
    ],
)
def test_the_remedy_is_what_the_field_takes(make: Any, remedy: str) -> None:
    """What is printed can be typed in place of what was given."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert caught.value.remedy == remedy
    name, _, value = remedy.partition("=")
    assert make(**{name: eval(value)})


@pytest.mark.parametrize("given", [{"scale": 0.5}, {"scale": (0.5,)}, {"scale": ("0.2", 1.0)}])
def test_pairs_of_numbers_are_pairs(given: dict[str, Any]) -> None:
    """One number, or a text among them, is no pair."""
    with pytest.raises(ConfigError, match="scale is of another type") as caught:
        AugmentConfig(**given)

    assert caught.value.expected == "2 of: a number"


def test_what_is_a_number_is_taken() -> None:
    """Whole numbers where numbers are asked for, those of numpy, and paths where texts are."""
    assert OptimConfig(lr=1, batch=np.int64(8)).batch == 8
    assert MonitorConfig(collapse_std=np.float32(0.5)).collapse_std == 0.5
    assert PretrainConfig(augment=AugmentConfig(scale=[0.5, 1])).augment.scale == [0.5, 1]
    assert EmbedConfig(["a"], "m", Path("o"), chips=None).chips == 32  # type: ignore[arg-type]


def test_a_switch_and_a_fraction_are_no_whole_numbers() -> None:
    """They would count as 1, or fail in the middle of a run."""
    for value in (True, 8.5):
        with pytest.raises(ConfigError, match="batch is of another type"):
            OptimConfig(batch=value)  # type: ignore[arg-type]
