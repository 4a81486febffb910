"""A later stage goes on with the networks and the optimizer of an earlier one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pretrain_settings import with_groups

from eofm.errors import ConfigError, WeightsError
from eofm.train.checkpoint import open_stage
from eofm.train.config import PretrainConfig
from eofm.train.module import PretrainModule, schedule_of
from eofm.train.optimizer import DecayShape, rate_over_steps
from eofm.train.run import pretrain
from eofm.weights.encoder import load_encoder
from eofm.weights.load import CHECKPOINT_KEY


@pytest.fixture(scope="module")
def first(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    """A finished stage of four steps with an open-ended course: the last one anneals."""
    config = with_groups(
        PretrainConfig(),
        data={"store": str(store_path), "holdout": 0.25},
        model={"architecture": "vit-tiny-14-2blocks", "size": 28},
        method={"hidden": 32, "dim": 16},
        optim={"schedule": "infinite", "floor": 0.1, "epochs": 2, "batch": 8, "lr": 1e-2},
        trainer={"accelerator": "cpu"},
        run={"out": str(tmp_path_factory.mktemp("stages") / "first"), "figures": False},
        monitor={"every_epochs": 0},
    )
    pretrain(config)
    return config


def later(
    config: PretrainConfig, out: Path, start: str = "last.ckpt", **groups: dict[str, object]
) -> PretrainConfig:
    """Settings of a stage that goes on from a checkpoint of `config`."""
    checkpoint = Path(str(config.run.out)) / "checkpoints" / start
    return with_groups(
        config,
        model={"continue_from": str(checkpoint), **groups.pop("model", {})},
        run={"out": str(out)},
        **groups,
    )


def test_the_constant_phase_is_kept_from_before_the_anneal(first: PretrainConfig) -> None:
    """constant.ckpt has taken every step but those of the anneal, and none of them."""
    folder = Path(str(first.run.out)) / "checkpoints"
    constant, last = (
        torch.load(folder / name, weights_only=True) for name in ("constant.ckpt", "last.ckpt")
    )

    assert (3, 4) == (constant["global_step"], last["global_step"])
    name = "method.student.trunk.patch_embed.proj.weight"
    assert not constant["state_dict"][name].equal(last["state_dict"][name])


@pytest.mark.slow
@pytest.mark.parametrize("start", ["constant.ckpt", "last.ckpt"])
def test_a_later_stage_goes_on(
    first: PretrainConfig, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Student, teacher, heads and moments are the earlier ones bit for bit; steps start anew.

    The rate begins where the constant phase of the earlier stage was, without a warm-up.
    """
    config = later(first, tmp_path / "second", start)
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
    begins = load_encoder(tmp_path / "second" / "export" / "init").trunk.state_dict()
    prefix = "student.trunk."
    assert all(tensor.equal(stage.tensors[prefix + name]) for name, tensor in begins.items())
    optim = config.optim
    constant = optim.constant * optim.lr * optim.batch / 256
    rows = (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()
    assert constant == pytest.approx(json.loads(rows[0])["lr"])


def test_another_network_is_refused(first: PretrainConfig, tmp_path: Path) -> None:
    """Heads of another width: the tensors that differ are named, and nothing is written."""
    config = later(first, tmp_path / "second", method={"dim": 24})

    with pytest.raises(WeightsError, match="another network"):
        pretrain(config)

    assert not Path(str(config.run.out)).exists()


def test_another_optimizer_is_refused(first: PretrainConfig, tmp_path: Path) -> None:
    """Moments of AdamW are none for SGD."""
    with pytest.raises(WeightsError, match="another optimizer"):
        pretrain(later(first, tmp_path / "second", optim={"optimizer": "sgd"}))


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
    """Its anneal is linear by default: the last rate is 0, and half way to it is half the peak."""
    config = with_groups(PretrainConfig(), optim={"schedule": "wsd", "floor": 0.0})

    schedule = schedule_of(config)
    rate = rate_over_steps(1000, 100, 0, schedule)

    assert schedule.anneal_shape is DecayShape.LINEAR
    assert [1.0, 1.0] == [rate(step) for step in (200, 799)]
    assert pytest.approx(0.5, abs=0.01) == rate(900)
    assert pytest.approx(0.0, abs=0.01) == rate(999)
