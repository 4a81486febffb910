"""Every settings file we ship runs: two steps of a small version, from weights of its own kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eofm.cli import parse
from eofm.contract.spec import Sensor
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit
from eofm.store.paired import match_ids, write_pairs
from eofm.train.config import PretrainConfig
from eofm.train.run import pretrain
from eofm.weights.encoder import load_encoder

FILES = sorted((Path(__file__).parents[2] / "configs" / "pretrain").glob("*.yaml"))


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
    both = config.data.views == "sensors"
    return replace(
        config,
        data=replace(
            config.data,
            store=str(stores if both else stores / config.data.sensor),
            holdout=0.25,
        ),
        model=replace(config.model, architecture=name, size=size, weights=weights),
        method=replace(config.method, hidden=32, dim=16),
        optim=replace(config.optim, epochs=1 + config.optim.freeze_epochs, batch=8),
        trainer=replace(config.trainer, accelerator="cpu", chunk=min(config.trainer.chunk, 4)),
        run=replace(config.run, out=str(out / "run"), figures=False),
        monitor=replace(config.monitor, every_epochs=0),
    )


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
