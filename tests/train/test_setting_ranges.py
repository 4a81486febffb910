"""Numbers out of range are refused by name, before anything is built from them."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass

import pytest
from pretrain_settings import with_groups

from eofm.errors import ConfigError
from eofm.train.config import PretrainConfig

NUMBERS = [
    (group.name, field.name)
    for group in fields(PretrainConfig)
    if is_dataclass(inner := getattr(PretrainConfig(), group.name))
    for field in fields(inner)
    if type(getattr(inner, field.name)) in (int, float)
]
FLOATS = [
    (group, name)
    for group, name in NUMBERS
    if isinstance(getattr(getattr(PretrainConfig(), group), name), float)
]


@pytest.mark.parametrize(("group", "name"), NUMBERS)
def test_no_number_below_zero_is_taken(group: str, name: str) -> None:
    """-1 is none of any setting's numbers."""
    with pytest.raises(ConfigError, match=name):
        with_groups(PretrainConfig(), **{group: {name: -1}})


@pytest.mark.parametrize(("group", "name"), FLOATS)
def test_what_is_no_number_is_not_taken(group: str, name: str) -> None:
    """NaN compares false with everything: a range must be asked for, not its opposite."""
    with pytest.raises(ConfigError, match=name):
        with_groups(PretrainConfig(), **{group: {name: math.nan}})


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("augment", "brightness", 1.5),  # kornia would stop with an error of its own
        ("augment", "contrast", 1.5),
        ("optim", "seed", 2**32),  # numpy takes no larger one
        ("data", "seed", 2**32),
        ("augment", "blur_sigma", (3.0, 1.0)),  # kornia has an error of its own here as well
        ("augment", "blur_sigma", (-1.0, 2.0)),
        ("augment", "blur_sigma", (math.nan, 2.0)),
    ],
)
def test_what_a_library_would_not_take_is_refused_first(
    group: str, name: str, value: float | tuple[float, float]
) -> None:
    """With the setting's name and its range, instead of a traceback from below."""
    with pytest.raises(ConfigError, match=rf"{group}\.{name} is out of range"):
        with_groups(PretrainConfig(), **{group: {name: value}})
