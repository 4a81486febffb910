"""The licence of exported weights is stated or that of the data; `not stated` where neither is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pretrain_settings import with_groups

from eofm.cli import main
from eofm.store.format import StoreCard
from eofm.train.config import PretrainConfig
from eofm.train.run import pretrain
from eofm.weights.encoder import load_encoder


@pytest.fixture
def config(config: PretrainConfig) -> PretrainConfig:
    """Nobody evaluates on the way: what is asked here is of the steps and of the end."""
    return with_groups(config, monitor={"every_epochs": 0})


@pytest.fixture
def own_images(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A store of images that nobody knows the licence of."""
    monkeypatch.setattr(StoreCard, "synthetic", property(lambda card: False))
    return make_store(tmp_path / "store")


def test_a_run_states_no_licence_until_it_is_asked_for(
    own_images: Path, config: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one the model card says how to state it, and that command is carried out."""
    once = replace(config.optim, epochs=1)
    pretrain(replace(config, data=replace(config.data, store=str(own_images)), optim=once))
    student = Path(str(config.run.out)) / "export" / "student"
    assert "not stated" == load_encoder(student).card.licence

    assert 0 == main(["models", "export", str(student), "--to", str(tmp_path / "plain")])
    text = (tmp_path / "plain" / "README.md").read_text()
    assert 'license: "other"\nlicense_name: "not-stated"' in text
    assert "eofm models export FOLDER --licence NAME --to FOLDER" in text

    words = ["--licence", "CC-BY-SA-4.0", "--to", str(tmp_path / "stated")]
    assert 0 == main(["models", "export", str(student), *words])
    assert "CC-BY-SA-4.0" == load_encoder(tmp_path / "stated").card.licence
    text = (tmp_path / "stated" / "README.md").read_text()
    assert 'license: "cc-by-sa-4.0"' in text
    assert "Not stated" not in text


def test_a_stated_licence_is_on_every_card(config: PretrainConfig) -> None:
    """`--run.licence` goes before that of the data."""
    run = replace(config.run, licence="CC-BY-4.0")
    pretrain(replace(config, run=run, optim=replace(config.optim, epochs=1)))

    cards = [load_encoder(path.parent).card for path in Path(str(run.out)).rglob("card.json")]
    assert {"CC-BY-4.0"} == {card.licence for card in cards}
