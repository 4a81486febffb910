"""The training step: which weights move, when, how fast; and that the teacher only follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from pretrain_settings import with_groups
from torch import Tensor

from eofm.errors import ConfigError
from eofm.train.config import OptimConfig, PretrainConfig
from eofm.train.module import PretrainModule
from eofm.train.optimizer import cosine
from eofm.train.run import pretrain
from eofm.weights.encoder import load_encoder

INPUT = "patch_embed.proj."


class Recorder:
    """Keeps what the networks and the optimiser were after each epoch of a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.epochs: list[dict[str, Tensor]] = []
        self.rates: list[dict[str, float]] = []
        self.start: dict[str, Tensor] = {}
        recorder = self

        def begin(module: PretrainModule) -> None:
            recorder.start = recorder.tensors(module)

        def end(module: PretrainModule) -> None:
            recorder.epochs.append(recorder.tensors(module))

        def step(module: PretrainModule, *_: object) -> None:
            names = {id(p): name for name, p in module.method.named_parameters()}
            groups = module.trainer.optimizers[0].param_groups
            recorder.rates.append({names[id(p)]: g["lr"] for g in groups for p in g["params"]})

        monkeypatch.setattr(PretrainModule, "on_train_start", begin)
        monkeypatch.setattr(PretrainModule, "on_train_epoch_end", end)
        monkeypatch.setattr(PretrainModule, "on_before_optimizer_step", step)

    def tensors(self, module: PretrainModule) -> dict[str, Tensor]:
        """Copies of all parameters and buffers of student, teacher and heads."""
        return {name: value.clone() for name, value in module.method.state_dict().items()}

    def moved(self, epoch: int) -> set[str]:
        """Names of what is not as it was when the epoch before ended."""
        before = self.epochs[epoch - 1] if epoch else self.start
        return {n for n, value in self.epochs[epoch].items() if not torch.equal(value, before[n])}


@pytest.fixture
def config(config: PretrainConfig) -> PretrainConfig:
    """Two epochs, looked at by nobody."""
    return with_groups(config, monitor={"every_epochs": 0})


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Watches the run that the test makes."""
    return Recorder(monkeypatch)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_frozen_backbone_stands_still_and_then_moves(
    config: PretrainConfig, recorder: Recorder, optimizer: str
) -> None:
    """For an epoch only input layer and heads move, under decay and momentum; then everything."""
    config = with_groups(
        config,
        optim={"freeze_epochs": 1, "epochs": 2, "optimizer": optimizer, "weight_decay": 0.5},
    )
    pretrain(config)
    trunk = {n for n in recorder.start if n.startswith("student.trunk.")}
    inputs = {n for n in trunk if n.startswith(f"student.trunk.{INPUT}")}
    first, second = recorder.moved(0), recorder.moved(1)

    assert 2 == len(inputs)
    assert inputs == first & trunk
    assert {n for n in recorder.start if n.startswith("predictor.")} <= first
    assert {n for n in recorder.start if n.startswith("student.projector.")} <= first
    assert trunk <= second
    followers = {n.replace("student.", "teacher.") for n in trunk - inputs}
    assert not followers & first
    # scales near 1 move by less than the teacher's share of a float
    assert {n for n in followers if n.endswith("qkv.weight")} <= second


@pytest.mark.slow
def test_a_frozen_resnet_stands_still(config: PretrainConfig, recorder: Recorder) -> None:
    """Its parameters wait but for conv1; running statistics go on: they are no parameters."""
    config = with_groups(
        config,
        model={"architecture": "resnet18", "size": 64},
        method={"mask_ratio": 0.0},
        optim={"freeze_epochs": 1, "epochs": 2, "lr": 1e-3},
    )
    pretrain(config)
    moved = recorder.moved(0)

    trunk = {n for n in recorder.rates[0] if n.startswith("student.trunk.")}
    assert {"student.trunk.conv1.weight"} == moved & trunk
    assert "student.trunk.layer4.1.bn2.running_mean" in moved
    assert trunk <= recorder.moved(1)


@pytest.mark.slow
def test_a_frozen_run_resumes_to_the_same_end(
    config: PretrainConfig, tmp_path: Path, pretrain_interrupted: Callable[[PretrainConfig], None]
) -> None:
    """Killed while frozen and resumed: freezing ends where it would have, bit for bit."""
    config = with_groups(
        config, optim={"freeze_epochs": 2, "epochs": 3, "layer_decay": 0.7, "warmup": 0.5}
    )
    whole = with_groups(config, run={"out": str(tmp_path / "whole")})
    pretrain(whole)
    pretrain_interrupted(config)
    pretrain(replace(PretrainConfig(), run=replace(config.run, resume=True)))

    ends = [
        load_encoder(Path(str(each.run.out)) / "export" / "student").trunk.state_dict()
        for each in (whole, config)
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_each_layer_has_its_rate(config: PretrainConfig, recorder: Recorder) -> None:
    """6 blocks, 0.5: block k at 2^-(6-k) of the heads' rate; a new input layer at theirs."""
    config = with_groups(
        config,
        model={"architecture": "vit-tiny-14"},
        optim={"layer_decay": 0.5, "epochs": 1},
    )
    pretrain(config)

    for rates in recorder.rates:
        full = rates["predictor.0.weight"]
        assert pytest.approx(full) == rates[f"student.trunk.{INPUT}weight"]
        assert pytest.approx(full / 2**7) == rates["student.trunk.pos_embed"]
        assert pytest.approx(full) == rates["student.trunk.norm.weight"]
        for block in range(6):
            name = f"student.trunk.blocks.{block}.mlp.fc1.weight"
            assert pytest.approx(full / 2 ** (6 - block)) == rates[name]


@pytest.mark.slow
def test_an_input_layer_that_is_kept_has_the_slowest_rate(
    config: PretrainConfig, recorder: Recorder, tmp_path: Path
) -> None:
    """Continued from an export it is no new layer: layer-wise decay holds for it as well."""
    first = with_groups(config, model={"architecture": "vit-tiny-14"}, optim={"epochs": 1})
    pretrain(first)
    export = Path(str(config.run.out)) / "export" / "student"
    second = with_groups(
        first,
        model={"weights": str(export)},
        optim={"layer_decay": 0.5},
        run={"out": str(tmp_path / "second")},
    )
    pretrain(second)

    rates = recorder.rates[-1]
    slowest = rates["predictor.0.weight"] / 2**7
    assert pytest.approx(slowest) == rates[f"student.trunk.{INPUT}weight"]


def test_the_logged_rate_is_that_of_the_heads(config: PretrainConfig) -> None:
    """Whatever is frozen or slowed down, `lr` in the metrics is the schedule's."""
    config = with_groups(config, optim={"layer_decay": 0.5, "freeze_epochs": 1, "warmup": 0.0})
    pretrain(config)
    lines = (Path(str(config.run.out)) / "metrics.jsonl").read_text().splitlines()

    peak = config.optim.lr * config.optim.batch / 256
    rates = [json.loads(line)["lr"] for line in lines]
    assert [pytest.approx(peak * cosine(step, 5, 0, 1.0)) for step in (1, 2, 3, 4)] == rates


def test_the_teachers_statistics_are_its_own(config: PretrainConfig, recorder: Recorder) -> None:
    """A ResNet's teacher follows in its parameters; its batch norms count what it saw itself."""
    config = with_groups(
        config,
        model={"architecture": "resnet18", "size": 64},
        method={"mask_ratio": 0.0, "symmetric": False},
        optim={"epochs": 1, "lr": 1e-3},
    )
    pretrain(config)
    end, start = recorder.epochs[0], recorder.start
    steps = len(recorder.rates)

    key = "trunk.layer1.0.bn1."
    for branch in ("student", "teacher"):
        assert steps == end[f"{branch}.{key}num_batches_tracked"].item()
        assert not torch.equal(
            start[f"{branch}.{key}running_mean"], end[f"{branch}.{key}running_mean"]
        )
    assert not torch.allclose(end[f"student.{key}running_mean"], end[f"teacher.{key}running_mean"])
    weight = "trunk.layer1.0.conv1.weight"
    far = (end[f"student.{weight}"] - start[f"student.{weight}"]).norm()
    near = (end[f"teacher.{weight}"] - start[f"student.{weight}"]).norm()
    assert 0 < near < 0.2 * far


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"freeze_epochs": 8}, "optim.freeze_epochs"),
        ({"freeze_epochs": -1}, "optim.freeze_epochs"),
        ({"layer_decay": 1.1}, "optim.layer_decay"),
        ({"layer_decay": 0.0}, "optim.layer_decay"),
        ({"clip": -1.0}, "optim.clip"),
    ],
)
def test_impossible_settings_are_refused(keys: dict[str, float], words: str) -> None:
    """A freeze as long as the run, a decay above 1 or of nothing, a negative clip: named errors."""
    with pytest.raises(ConfigError, match=words):
        PretrainConfig(optim=OptimConfig(**keys))  # type: ignore[arg-type]


def test_checkpoints_of_the_module_are_plain(config: PretrainConfig) -> None:
    """What the groups carry (pace, waiting) loads without running code from the file."""
    pretrain(with_groups(config, optim={"freeze_epochs": 1, "layer_decay": 0.9}))
    path = Path(str(config.run.out)) / "checkpoints" / f"last{ModelCheckpoint.FILE_EXTENSION}"

    groups = torch.load(path, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert {True, False} == {group["frozen"] for group in groups}
