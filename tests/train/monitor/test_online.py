"""Looking at a run changes nothing of it, and a run that is broken says so and stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_settings import with_groups
from torch import nn

from eofm.contract.preprocess import to_grid
from eofm.contract.spec import Sensor
from eofm.errors import ConfigError, TrainingError
from eofm.store.reader import Store
from eofm.train.build import make_recipe
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.module import PretrainModule, broken_rows, broken_tensors, not_finite
from eofm.train.monitor.guard import KEPT
from eofm.train.monitor.online import (
    PreparedScenes,
    held_out_of_run,
    held_out_of_store,
    preserving_state,
)
from eofm.train.monitor.run_log import read_rows
from eofm.train.run import pretrain
from eofm.weights.encoder import load_encoder, random_encoder


def out_of(config: PretrainConfig) -> Path:
    """The folder of a run."""
    return Path(str(config.run.out))


def same_weights(one: PretrainConfig, other: PretrainConfig) -> bool:
    """Whether two runs ended with the same tensors, buffers included."""
    states = [
        {
            name: load_encoder(out_of(each) / "export" / name).trunk.state_dict()
            for name in ("student", "teacher")
        }
        for each in (one, other)
    ]
    return all(
        tensor.equal(states[1][name][key])
        for name, state in states[0].items()
        for key, tensor in state.items()
    )


RESNET = {
    "model": {"architecture": "resnet18", "size": 64},
    "method": {"mask_ratio": 0.0},
    "optim": {"epochs": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sensor", "groups"),
    [(Sensor.S2_L1C, {}), (Sensor.S1_GRD, RESNET)],
    ids=["vit, Sentinel-2", "resnet, Sentinel-1"],
)
def test_looking_changes_nothing(
    sensor: Sensor,
    groups: dict[str, dict[str, object]],
    config: PretrainConfig,
    tmp_path: Path,
    make_store: Callable[..., Path],
) -> None:
    """With looks at every step and with none: the same losses, weights and batch-norm buffers."""
    store = make_store(tmp_path / "store", sensor)
    config = with_groups(config, **{"data": {"store": str(store)}, **groups})
    seen = with_groups(config, monitor={"every_steps": 1, "scenes": 8, "before": str(store)})
    blind = with_groups(
        config,
        monitor={"every_epochs": 0, "collapse_std": 0.0},
        run={"out": str(tmp_path / "blind")},
    )

    pretrain(seen)
    pretrain(blind)

    assert (out_of(seen) / "metrics.jsonl").read_text() == (
        out_of(blind) / "metrics.jsonl"
    ).read_text()
    assert same_weights(seen, blind)
    looks = read_rows(out_of(seen) / "monitor.jsonl")
    assert list(range(len(looks))) == [row["step"] for row in looks]
    assert {
        f"monitor/{name}"
        for name in ("knn", "linear", "embedding_std", "effective_rank", "alignment",
                     "uniformity", "label_correlation", "before/knn")
    } <= set(looks[0])  # fmt: skip
    assert not (out_of(blind) / "monitor.jsonl").exists()


def test_random_numbers_and_modes_are_put_back() -> None:
    """Whatever happens in between, the next random number and the modes are those of before."""
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    net[1].eval()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    def look() -> None:
        with preserving_state(net):
            net.eval()
            torch.manual_seed(99)
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        look()

    assert expected.equal(torch.rand(2))
    assert [True, True, False] == [net.training, net[0].training, net[1].training]


@pytest.mark.parametrize(
    ("batch", "accumulate"), [(8, 1), pytest.param(4, 2, marks=pytest.mark.slow)]
)
def test_dense_looks_and_a_run_that_is_taken_up(
    batch: int,
    accumulate: int,
    config: PretrainConfig,
    tmp_path: Path,
    pretrain_interrupted: Callable[[PretrainConfig], None],
) -> None:
    """Steps 0, 1, 2, 4; a killed and resumed run has the rows of an undisturbed one.

    Also where it resumes between two parts of an accumulated gradient.
    """
    config = with_groups(config, monitor={"dense": 4, "scenes": 8}, optim={"batch": batch})
    config = with_groups(config, trainer={"accumulate": accumulate})
    whole = with_groups(config, run={"out": str(tmp_path / "whole")})
    pretrain(whole)
    pretrain_interrupted(config)
    pretrain(PretrainConfig(run=replace(config.run, resume=True), trainer=config.trainer))

    rows = [read_rows(out_of(each) / "monitor.jsonl") for each in (whole, config)]
    assert [0, 1, 2, 4] == [row["step"] for row in rows[0]]
    assert rows[0] == rows[1]
    csv = [(out_of(each) / "metrics.csv").read_text() for each in (whole, config)]
    assert csv[0] == csv[1]
    pace = read_rows(out_of(whole) / "pace.jsonl")
    assert 4 * 8 == sum(row["pace/scenes"] for row in pace)


def test_prepared_scenes_embed_as_encoders_do(config: PretrainConfig) -> None:
    """Kept or made anew, pixels give `Encoder.embed`, bit for bit."""
    store = Store(str(config.data.store))
    encoder = random_encoder("vit-tiny-14-2blocks", make_recipe(store, [0], config.model), 0)
    expected = encoder.embed(to_grid(store.images([3, 1, 8])))

    kept = PreparedScenes(store, [3, 1, 8], encoder.preprocess)
    anew = PreparedScenes(store, [3, 1, 8], encoder.preprocess, limit=0)

    for each in (kept, kept, anew, anew):
        assert expected.equal(each.embed(encoder))
    assert kept.kept_bytes > 0
    assert 0 == anew.kept_bytes


def test_scenes_to_look_at_are_apart(config: PretrainConfig, store_path: Path) -> None:
    """Queries and reference share no place: of the run, and of a store of its own."""
    store = Store(store_path)
    data = StoreDataModule(store, config.data, 8, 0)
    for held in (held_out_of_run(data, 8, 0), held_out_of_store(str(store_path), "monitor", 8, 0)):
        assert held is not None
        places = [set(store.locations[rows].tolist()) for rows in (held.queries, held.reference)]
        assert not places[0] & places[1]
        assert 0 < len(held.queries) <= 8


def test_an_unlabelled_store_is_looked_at_without_scores(
    config: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """Spread and rank need no label; kNN is not pretended; as a store to look at it is refused."""
    path = str(make_store(tmp_path / "unlabelled", unlabelled=24))
    config = with_groups(
        config,
        data={"store": path, "unlabelled": "hard-only"},
        method={"soft_weight": 0.0},
        optim={"epochs": 1},
    )

    pretrain(config)

    last = read_rows(out_of(config) / "monitor.jsonl")[-1]
    assert last["monitor/embedding_std"] > 0
    assert "monitor/knn" not in last
    with pytest.raises(ConfigError, match="too few labelled scenes"):
        held_out_of_store(path, "monitor", 8, 0)


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_without_labels_the_scenes_held_out_are_evaluated(
    share: float,
    config: PretrainConfig,
    tmp_path: Path,
    make_store: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """None of them is trained on; where nothing is held out, the log does not say that it is."""
    path = str(make_store(tmp_path / "unlabelled", labels=False))
    config = with_groups(
        config,
        data={"store": path, "unlabelled": "hard-only", "holdout": share},
        method={"soft_weight": 0.0},
        optim={"epochs": 1},
    )
    data = StoreDataModule(Store(path), config.data, 8, 0)
    held = held_out_of_run(data, 128, 0)
    assert held is not None
    assert held.trained_on == (share == 0)
    trained = np.isin(held.queries, data.train_rows)
    assert trained.all() if share == 0 else not trained.any()

    pretrain(config)

    kind = "training scenes (none are held out)" if share == 0 else "held-out scenes"
    assert f"step 0: {kind}: effective rank" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["store", "before"])
@pytest.mark.parametrize("dry", [True, False])
def test_a_store_of_another_sensor_is_refused_before_anything_is_written(
    name: str, dry: bool, config: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """A dry run finds it as well, and so does it a store without labels."""
    radar = str(make_store(tmp_path / "radar", sensor=Sensor.S1_GRD))
    bare = str(make_store(tmp_path / "bare", labels=False))
    for store, words in ((radar, "other bands"), (bare, "too few labelled scenes")):
        with pytest.raises(ConfigError, match=words):
            pretrain(with_groups(config, monitor={name: store}, run={"dry_run": dry}))
    assert not out_of(config).exists()


# --------------------------------------------------------------------------------- collapse


def collapsing(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, from_step: int) -> None:
    """Let the teacher embed every image as the same point, from some step on."""
    step = PretrainModule.training_step

    def collapse(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        loss = step(self, batch, batch_idx)  # type: ignore[arg-type]
        if self.global_step + 1 >= from_step:
            self.log("embedding_std", torch.tensor(0.001))
            self.log("hard", torch.tensor(2 * 0.2 * 2 * 2.0794))
        return loss

    monkeypatch.setattr(PretrainModule, "training_step", collapse)


def test_a_collapse_stops_the_run_and_keeps_what_was_good(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what was seen since when, and the checkpoint from before is kept."""
    collapsing(config, monkeypatch, from_step=3)
    config = with_groups(
        config, optim={"batch": 8, "warmup": 0.0}, monitor={"collapse_steps": 2},
        run={"checkpoint_steps": 1},
    )  # fmt: skip

    with pytest.raises(TrainingError, match="collapsed") as caught:
        pretrain(config)

    text = str(caught.value)
    for words in ("embedding_std 0.001, below 0.02", "gives 1.664", "step 4, since step 3",
                  "optim.lr", KEPT, "held-out scenes at step"):  # fmt: skip
        assert words in text
    kept = torch.load(out_of(config) / "checkpoints" / KEPT, weights_only=True)
    assert 2 == kept["global_step"]
    failure = json.loads((out_of(config) / "failure.json").read_text())
    assert (4, "TrainingError") == (failure["step"], failure["error"])
    assert not (out_of(config) / "DONE").exists()


def test_a_dip_is_no_collapse(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps than it takes are forgiven."""
    collapsing(config, monkeypatch, from_step=3)

    pretrain(
        with_groups(config, optim={"warmup": 0.0}, monitor={"every_epochs": 0, "collapse_steps": 3})
    )

    assert (out_of(config) / "DONE").exists()


def spreads(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let the looks see these spreads, one after the other."""
    left = iter(values)
    monkeypatch.setattr("eofm.train.monitor.online.spread", lambda _: next(left))


def test_a_dead_trunk_is_seen_by_the_looks(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads with batch norm hide a collapsed trunk from the loss: held-out scenes do not."""
    spreads(monkeypatch, 0.3, 0.3, 0.001, 0.001)
    config = with_groups(
        config,
        optim={"warmup": 0.0},
        monitor={"every_steps": 1, "scenes": 8, "collapse_steps": 2},
    )

    with pytest.raises(TrainingError, match="collapsed") as caught:
        pretrain(config)
    text = str(caught.value)
    assert "held-out scenes at step 3: spread 0.001 after 0.3 at the start" in text
    assert "step 3, since step 2" in text
    assert "below" not in text.split("expected", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("seen", "monitor"),
    [
        # a new network whose vectors are close together, and become somewhat closer
        ((0.006, 0.002, 0.002, 0.002, 0.002), {"collapse_steps": 2}),
        # far less than at the start, but for fewer steps than count as staying
        ((0.3, 0.001, 0.001, 0.001, 0.001), {}),
        # it comes back
        pytest.param((0.3, 0.001, 0.3, 0.001, 0.3), {"collapse_steps": 2}, marks=pytest.mark.slow),
    ],
    ids=["close-from-the-start", "the-first-steps", "a-dip"],
)
def test_small_spreads_that_are_no_collapse(
    config: PretrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    seen: tuple[float, ...],
    monitor: dict[str, int],
) -> None:
    """The looks stop a run only for a spread that fell far and stayed."""
    spreads(monkeypatch, *seen)
    watched = {"every_steps": 1, "scenes": 8, **monitor}

    pretrain(with_groups(config, optim={"warmup": 0.0}, monitor=watched))

    assert (out_of(config) / "DONE").exists()


# -------------------------------------------------------------------------------------- NaN


def test_a_broken_parameter_is_named(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a NaN in a weight the error names the tensor and the first layer that shows it."""
    step = PretrainModule.training_step

    def break_it(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 1:
            with torch.no_grad():
                self.method.student.trunk.blocks[1].mlp.fc1.weight[0, 0] = torch.nan
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(PretrainModule, "training_step", break_it)

    with pytest.raises(TrainingError, match="not finite") as caught:
        pretrain(config)
    text = str(caught.value)
    assert "1 tensors of the networks are not finite: student.trunk.blocks.1.mlp.fc1.weight" in text
    assert "student.trunk.blocks.1.mlp.fc1 (Linear), rows" in text
    assert "step 1" in text


def test_broken_rows_are_named() -> None:
    """A NaN in the pixels is traced to its rows, and blamed on them."""
    net, views = nn.Sequential(nn.Linear(2, 2)), torch.zeros(6, 2)
    views[4, 1] = torch.nan

    error = not_finite(net, [views], lambda: net(views), "loss nan", 3)

    assert [4] == broken_rows(views)
    assert [] == broken_tensors(net)
    assert "pixels of rows 4 of the batch" in str(error)
    assert "0 (Linear), rows 4 of 6" in str(error)
    assert "data verify" in str(error.remedy)


def test_a_checkpoint_with_a_nan_does_not_replace_a_good_one(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step broke the weights with a finite loss: the checkpoint before stays."""
    step = PretrainModule.optimizer_step

    def break_it(self: PretrainModule, *words: object) -> None:
        step(self, *words)  # type: ignore[arg-type]
        if self.global_step == 3:  # it counts afterwards
            with torch.no_grad():
                next(self.method.teacher.parameters()).fill_(torch.inf)

    monkeypatch.setattr(PretrainModule, "optimizer_step", break_it)

    with pytest.raises(TrainingError, match="networks are not finite") as caught:
        pretrain(with_groups(config, monitor={"every_epochs": 0}))
    assert "teacher" in str(caught.value)
    last = torch.load(out_of(config) / "checkpoints" / "last.ckpt", weights_only=True)
    assert 2 == last["global_step"]
