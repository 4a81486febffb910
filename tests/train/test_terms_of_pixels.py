"""Runs whose objective predicts pixels: from a store to an encoder, with the views they need."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain_settings import with_groups

from eofm.errors import ConfigError
from eofm.loading.views import Views
from eofm.train.config import PretrainConfig
from eofm.train.run import pretrain
from eofm.weights.encoder import load_encoder

DECODER = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4, "decoder_hidden": 32}
CASES: dict[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
    "mim": ({"softcon": 1, "mim": {"cls_hidden": 16, "cls_dim": 8, **DECODER}}, {}),
    "cropmae": ({"cropmae": DECODER}, {"views": "nested"}),
    "croco": ({"croco": DECODER}, {"views": "seasons"}),
}


@pytest.fixture
def config(config: PretrainConfig) -> PretrainConfig:
    """Nobody evaluates on the way: what is asked here is of the steps and of the end."""
    return with_groups(config, monitor={"every_epochs": 0})


def settings(config: PretrainConfig, name: str) -> PretrainConfig:
    """An epoch of a term."""
    terms, data = CASES[name]
    quick = with_groups(
        config,
        method={"terms": dict(terms)},
        optim={"epochs": 1},
        monitor={"every_epochs": 0},
        run={"threads": 1},
    )
    return replace(quick, data=replace(quick.data, **data))


@pytest.mark.parametrize("name", list(CASES))
def test_a_run_ends_in_an_encoder(name: str, config: PretrainConfig) -> None:
    """Error and floor are logged in every step; the card says what the encoder was trained for."""
    config = settings(config, name)
    pretrain(config)

    out = Path(str(config.run.out))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        assert row[f"{name}/error"] > 0
        assert 0.5 < row[f"{name}/floor"] < 1.01
    card = load_encoder(out / "export" / "student").card
    assert "arXiv" in card.objective
    assert (name == "mim") == (out / "export" / "teacher").is_dir()


@pytest.mark.slow
def test_a_killed_run_is_resumed_exactly(
    config: PretrainConfig, tmp_path: Path,
    pretrain_interrupted: Callable[[PretrainConfig], None],
) -> None:  # fmt: skip
    """Decoder, head and masks go on where they were: the same encoder, tensor by tensor."""
    twice = {"optim": {"epochs": 2}, "run": {"checkpoint_minutes": 0.0}}
    config = with_groups(settings(config, "mim"), **twice)
    killed = with_groups(config, run={"out": str(tmp_path / "killed")})

    pretrain(config)
    pretrain_interrupted(killed)
    pretrain(with_groups(killed, run={"resume": "true"}))

    one, other = (
        load_encoder(Path(str(each.run.out)) / "export" / "student").trunk.state_dict()
        for each in (config, killed)
    )
    assert all(one[key].equal(other[key]) for key in one)


@pytest.mark.parametrize("pair", ["same", "independent"])
def test_two_dates_of_a_place_show_one_crop(
    pair: str, config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`augment.season_pair same` gives both views one box and equal flips, never equal colours."""
    drawn = []
    make = Views.make

    def spy(self: Views, pixels: torch.Tensor, draw: list) -> torch.Tensor:
        drawn.append({item.name.rsplit("_", 1)[0]: item.data for item in draw})
        return make(self, pixels, draw)

    monkeypatch.setattr(Views, "make", spy)
    pretrain(with_groups(settings(config, "croco"), augment={"season_pair": pair}))

    one, other = drawn[:2]
    for name, key in (("RandomResizedCrop", "src"), ("RandomVerticalFlip", "batch_prob")):
        same = one[name][key].equal(other[name][key])
        assert same if pair == "same" else name != "RandomResizedCrop" or not same
    assert not one["RandomColour"]["brightness"].equal(other["RandomColour"]["brightness"])


def test_views_that_do_not_fit_are_refused(config: PretrainConfig) -> None:
    """Before training, with the option that mends it."""
    config = settings(config, "cropmae")
    with pytest.raises(ConfigError, match=r"add --data\.views nested"):
        pretrain(with_groups(config, data={"views": "crops"}))
