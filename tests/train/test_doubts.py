"""What a run is warned of before its first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pretrain_settings import with_groups

from eofm.store.reader import Store
from eofm.train.before import dry_run as told
from eofm.train.build import build_module, make_recipe
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.run import pretrain


def doubts_of(config: PretrainConfig) -> str:
    """Return the doubts about a run, a line each."""
    store = Store(str(config.data.store))
    data = StoreDataModule(store, config.data, config.optim.batch, 0)
    module, _ = build_module(config, data, make_recipe(store, [0], config.model))
    return "\n".join(told.doubts(config, data, module))


def test_too_few_scenes_are_said_before_training(
    config: PretrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run says how many scenes and steps it has, and how many can learn, and then trains."""
    pretrain(config)

    text = capsys.readouterr().err
    assert "warning: 16 scenes, 4 steps: this cannot learn; what can: 200 scenes" in text
    assert "held-out scenes of 3 places: differences are noise" in text
    assert "each scene has 7 negatives" in text
    assert text.index("cannot learn") < text.index("step 1/4")


def test_enough_of_everything_raises_no_doubt(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each bound is one: at it nothing is said, one below it something."""
    bounds = {"FEWEST_SCENES": 16, "FEWEST_STEPS": 4, "FEWEST_PLACES": 3, "FEWEST_NEGATIVES": 7}
    for name, value in bounds.items():
        monkeypatch.setattr(told, name, value)
    assert not doubts_of(config)

    for name, words in (
        ("FEWEST_SCENES", "learned by heart"),
        ("FEWEST_STEPS", "too few steps"),
        ("FEWEST_PLACES", "are noise"),
        ("FEWEST_NEGATIVES", "has 7 negatives"),
    ):
        monkeypatch.setattr(told, name, bounds[name] + 1)
        assert words in doubts_of(config)
        monkeypatch.setattr(told, name, bounds[name])


def test_the_epochs_it_names_are_enough(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy for too few steps, obeyed, raises no such doubt."""
    monkeypatch.setattr(told, "FEWEST_SCENES", 1)
    text = doubts_of(config)
    assert "--optim.epochs 50 " in text

    assert "too few steps" not in doubts_of(with_groups(config, optim={"epochs": 50}))


def test_a_rate_that_a_pretrained_network_did_not_survive(
    config: PretrainConfig, tmp_path: Path
) -> None:
    """The default rate on weights to start from is named, with the settings that were survived."""
    pretrain(config)
    start = str(Path(str(config.run.out)) / "export" / "student")
    weights = with_groups(config, model={"weights": start}, optim={"lr": 4e-3})
    gentle = with_groups(weights, optim={"lr": 5e-4, "layer_decay": 0.75})

    assert "--optim.lr 0.0005 --optim.layer_decay 0.75 did" in doubts_of(weights)
    assert "survived" not in doubts_of(gentle)
    assert "survived" not in doubts_of(config)


def test_labels_that_tell_nothing(
    config: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """Scenes with one and the same label set leave the soft term nothing to do."""
    path = str(make_store(tmp_path / "equal", equal_labels=True))
    text = doubts_of(with_groups(config, data={"store": path}))

    assert "every similarity is 1" in text
    assert "nothing will tell whether it learns" in text
