"""Every settings file we ship runs: two steps of a small version, from weights of its own kind."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eofm.cli import main, parse
from eofm.contract.spec import Sensor
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit
from eofm.store.paired import match_ids, write_pairs
from eofm.train.config import PretrainConfig
from eofm.train.run import pretrain
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import load_encoder
from eofm.world.config import WorldConfig
from eofm.world.files import write_world

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, make_store: Callable[..., Path]) -> Path:
    """A folder with a store of each sensor, and the table of what belongs together."""
    folder = tmp_path_factory.mktemp("both")
    make_store(folder / "s2-l1c", Sensor.S2_L1C)
    make_store(folder / "s1-grd", Sensor.S1_GRD)
    write_pairs(folder, match_ids(folder, ["s2-l1c", "s1-grd"]))
    return folder


def small(config: PretrainConfig, stores: Path, out: Path) -> PretrainConfig:
    """The same run with less of everything: network, image, batch, steps; nothing else changed."""
    resnet = config.model.architecture == "resnet50"
    name, size = ("resnet18", 64) if resnet else ("vit-tiny-14", 56)
    weights = None
    if config.model.weights is not None:
        generator = torch.Generator().manual_seed(1)
        build = build_resnet if resnet else build_vit
        weights = str(out / "rgb.pth")
        out.mkdir(parents=True)
        torch.save(build(name, 3, (size, size), generator).state_dict(), weights)
    return replace(
        config,
        data=replace(
            config.data,
            store=str(stores),
            holdout=0.25,
        ),
        model=replace(config.model, architecture=name, size=size, weights=weights),
        method=replace(config.method, hidden=32, dim=16),
        optim=replace(config.optim, epochs=1 + config.optim.freeze_epochs, batch=8),
        trainer=replace(config.trainer, accelerator="cpu", chunk=min(config.trainer.chunk, 4)),
        run=replace(config.run, out=str(out / "run"), figures=False),
        monitor=replace(config.monitor, every_epochs=0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_settings_file_runs(path: Path, stores: Path, tmp_path: Path) -> None:
    """One epoch after those that freeze the trunk ends in a student that is finite and moved."""
    made = parse("pretrain", ["--config", str(path)])
    assert isinstance(made, PretrainConfig)
    config = small(made, stores, tmp_path / "it")

    pretrain(config)

    out = Path(str(config.run.out))
    steps = len((out / "metrics.jsonl").read_text().splitlines())
    each = 1 if "seasons" in config.data.views else 2  # of 9 places or of 16 scenes
    assert steps == each * config.optim.epochs
    start, end = (load_encoder(out / "export" / n).trunk for n in ("init", "student"))
    tensors = dict(end.named_parameters())
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert any(not torch.equal(p, tensors[name]) for name, p in start.named_parameters())


@pytest.mark.parametrize("name", ["continue_dinov2_small_data", "continue_dinov2_full"])
def test_a_recipe_for_pretrained_weights_protects_them(name: str) -> None:
    """Continuing has all that keeps a start: layer decay, freezing, a small rate, and the guard."""
    made = parse("pretrain", ["--config", str(FILES[0].with_name(f"{name}.yaml"))])

    assert isinstance(made, PretrainConfig)
    assert made.model.weights is not None
    assert made.optim.lr <= 5e-4
    assert made.optim.layer_decay <= 0.75
    assert made.optim.freeze_epochs >= 1
    assert made.optim.schedule == "infinite"
    assert made.monitor.evaluates
    assert made.monitor.collapse_std > 0
    assert (made.method.soft_unit, made.method.soft_weight) == ("gradient", 1.0)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_weights_of_a_settings_file_are_published_ones_of_its_network(path: Path) -> None:
    """Nobody has to fetch a file by hand: the name is known, and so is the network it is for."""
    made = parse("pretrain", ["--config", str(path)])
    assert isinstance(made, PretrainConfig)

    assert made.model.weights is None or (
        made.model.architecture == WEIGHTS[made.model.weights].architecture
    )


# ------------------------------------------------------------- the lines of the documentation

README = "".join((ROOT / "docs/howto" / name).read_text() for name in ("data.md", "pretrain.md"))


def printed(start: str) -> list[str]:
    """The words after `eofm` of the line of the how-to pages that starts so."""
    found = re.search(rf"^eofm ({re.escape(start)}.*)$", README, re.MULTILINE)
    assert found, start
    return shlex.split(found[1], comments=True)


@pytest.fixture(scope="module")
def ssl4eo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in: SSL4EO/ in miniature, its label file, and weights for vits14."""
    folder = tmp_path_factory.mktemp("work")
    write_world(WorldConfig(out=str(folder / "SSL4EO"), scenes=5, seed=1, size=48, workers=1))
    labels = {
        place.name: {season.name: [str(number % 3)] for season in place.iterdir()}
        for number, place in enumerate(sorted((folder / "SSL4EO" / "s2c").iterdir()))
    }
    (folder / "ssl4eo_multilabel.json").write_text(json.dumps(labels))
    (folder / "configs").symlink_to(ROOT / "configs")
    network = build_vit("vits14", 3, (224, 224), torch.Generator().manual_seed(1))
    torch.save(network.state_dict(), folder / "dinov2_vits14.pth")
    return folder


@pytest.mark.slow
def test_both_sensors_are_packed_and_either_is_pretrained_as_printed(
    ssl4eo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pack ssl4eo --sensors s2c,s1`, then `pretrain` with the file of either, as printed.

    Only what makes it small is added; the shipped file names the store that the first line wrote.
    """
    monkeypatch.chdir(ssl4eo)
    small_run = shlex.split(
        "--model.weights ./dinov2_vits14.pth --model.size 28 --optim.batch 4 --optim.epochs 1 "
        "--method.hidden 32 --method.dim 16 --trainer.devices 1 --trainer.accelerator cpu "
        "--run.figures false --monitor.every_epochs 0"
    )

    assert 0 == main([*printed("pack ssl4eo"), "--workers", "1"])
    line = printed("pretrain --config configs/pretrain/softcon_vits14_s2.yaml")
    assert 0 == main([*line, *small_run])
    radar = ["pretrain", "--config", "configs/pretrain/softcon_vits14_s1.yaml"]
    assert 0 == main([*radar, *small_run])

    for name, sensor in (
        ("softcon-vits14-s2", Sensor.S2_L1C),
        ("softcon-vits14-s1", Sensor.S1_GRD),
    ):
        student = load_encoder(ssl4eo / "runs" / name / "export" / "student")
        assert sensor is student.recipe.sensor
