"""A later stage goes on with the networks and the optimizer of an earlier one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eofm.errors import ConfigError, WeightsError
from eofm.models.encoder import load_encoder
from eofm.train.config import PretrainConfig
from eofm.train.module import CHECKPOINT_KEY, PretrainModule
from eofm.train.run import pretrain
from eofm.train.stage import open_stage


def with_groups(config: PretrainConfig, **groups: dict[str, object]) -> PretrainConfig:
    """Return the settings with some keys of some groups changed."""
    return replace(
        config,
        **{name: replace(getattr(config, name), **keys) for name, keys in groups.items()},  # type: ignore[arg-type]
    )


@pytest.fixture
def first(config: PretrainConfig, tmp_path: Path) -> PretrainConfig:
    """A finished stage with an open-ended course."""
    config = with_groups(
        config,
        optim={"schedule": "infinite", "floor": 0.1, "epochs": 2},
        run={"out": str(tmp_path / "first"), "figures": False},
    )
    pretrain(config)
    return config


def later(config: PretrainConfig, name: str, **groups: dict[str, object]) -> PretrainConfig:
    """Settings of a stage that goes on from the end of `config`."""
    out = Path(str(config.run.out))
    return with_groups(
        config,
        model={"continue_from": str(out / "checkpoints" / "last.ckpt"), **groups.pop("model", {})},
        run={"out": str(out.parent / name)},
        **groups,
    )


def test_a_later_stage_goes_on(first: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Student, teacher, heads and moments are the earlier ones bit for bit; steps start anew."""
    config = later(first, "second")
    stage = open_stage(Path(str(config.model.continue_from)), CHECKPOINT_KEY)
    seen = {}
    begin = PretrainModule.on_train_start

    def look(self: PretrainModule) -> None:
        begin(self)
        optimizer = self.trainer.optimizers[0]
        seen["names"] = names = self._optimized(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        seen["moments"] = {
            name: {key: value.clone() for key, value in optimizer.state[p].items()}
            for name, p in zip(names, parameters, strict=True)
        }
        seen["tensors"] = {k: v.clone() for k, v in self.method.state_dict().items()}
        seen["step"] = self.global_step

    monkeypatch.setattr(PretrainModule, "on_train_start", look)
    pretrain(config)

    assert 0 == seen["step"]
    assert set(stage.tensors) == set(seen["tensors"])
    assert all(tensor.equal(seen["tensors"][name]) for name, tensor in stage.tensors.items())
    assert set(stage.moments) == set(seen["names"])
    for name, moments in stage.moments.items():
        for key, value in moments.items():
            assert torch.as_tensor(value).equal(seen["moments"][name][key]), (name, key)
    ends, begins = (
        load_encoder(Path(str(run.run.out)) / "export" / which).trunk.state_dict()
        for run, which in ((first, "student"), (config, "init"))
    )
    assert all(tensor.equal(begins[name]) for name, tensor in ends.items())


def test_another_network_is_refused(first: PretrainConfig) -> None:
    """Heads of another width: the tensors that differ are named, and nothing is written."""
    config = later(first, "second", method={"dim": 24})

    with pytest.raises(WeightsError, match="another network"):
        pretrain(config)

    assert not Path(str(config.run.out)).exists()


def test_another_optimizer_is_refused(first: PretrainConfig) -> None:
    """Moments of AdamW are none for SGD."""
    with pytest.raises(WeightsError, match="another optimizer"):
        pretrain(later(first, "second", optim={"optimizer": "sgd"}))


@pytest.mark.parametrize("content", [None, b"PK\x03\x04 no checkpoint", b""])
def test_what_is_no_checkpoint_is_named(
    config: PretrainConfig, tmp_path: Path, content: bytes | None
) -> None:
    """A missing, a broken and an empty file."""
    path = tmp_path / "constant.ckpt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(WeightsError, match="checkpoint"):
        pretrain(with_groups(config, model={"continue_from": str(path)}))


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ({"optim": {"schedule": "infinite"}}, "optim.floor"),
        ({"optim": {"schedule": "wsd", "anneal_shape": "exponential"}}, "optim.floor"),
        ({"optim": {"schedule": "infinite", "floor": 0.1, "cooldown": 0.05}}, "optim.cooldown"),
        ({"optim": {"schedule": "infinite", "floor": 0.1, "cooldown": 0.9}}, "optim.cooldown"),
        ({"optim": {"schedule": "wsd", "floor": 0.1, "warmup": 0.9}}, "optim.warmup"),
        ({"optim": {"floor": 1.5}}, "optim.floor"),
        ({"model": {"continue_from": "a.ckpt", "weights": "b.pth"}}, "model.continue_from"),
    ],
)
def test_phases_that_overlap_are_refused(groups: dict, match: str) -> None:
    """Phases in order, exponentials with a floor, one place to start from."""
    with pytest.raises(ConfigError, match=match):
        with_groups(PretrainConfig(), **groups)


def test_wsd_may_fall_to_zero() -> None:
    """Its anneal is linear by default."""
    with_groups(PretrainConfig(), optim={"schedule": "wsd"})
