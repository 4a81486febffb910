"""The controls of SoftCon: each is a run of its own, changed by one setting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_settings import with_groups

from eofm.contract.imagery import Labels
from eofm.contract.preprocess import to_grid
from eofm.errors import ConfigError, TrainingError, WeightsError
from eofm.method.objectives import OBJECTIVES
from eofm.store.reader import Store, exchanged
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.result import Report
from eofm.train.run import pretrain
from eofm.weights.config import ExportConfig
from eofm.weights.encoder import load_encoder
from eofm.weights.export import export_source

Finished = tuple[PretrainConfig, Report]


def metrics(config: PretrainConfig) -> list[dict[str, float]]:
    """The lines of a run's metrics file."""
    lines = (Path(str(config.run.out)) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(config: PretrainConfig, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one export of a run."""
    return dict(load_encoder(Path(str(config.run.out)) / "export" / name).trunk.state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors are equal bit for bit."""
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def runs(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """A run of one epoch for each objective, on the same scenes, views and masks."""
    finished = {}
    for name in OBJECTIVES:
        config = with_groups(
            PretrainConfig(),
            data={"store": str(store_path), "holdout": 0.25},
            model={"architecture": "vit-tiny-14-2blocks", "size": 28},
            method={
                "hidden": 32,
                "dim": 16,
                "objective": name,
                "soft_weight": 3.0,
                "soft_unit": "plain",
            },
            optim={"epochs": 1, "batch": 8, "lr": 1e-2},
            trainer={"accelerator": "cpu"},
            run={"out": str(tmp_path_factory.mktemp("runs") / name), "figures": False},
            monitor={"every_epochs": int(name == "multilabel")},
        )
        finished[name] = config, pretrain(config)
    return finished


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_every_objective_leaves_whole_encoders(runs: dict[str, Finished], objective: str) -> None:
    """Start, student and teacher embed the store's imagery, and their cards name the objective."""
    config, report = runs[objective]
    assert config.data.store is not None
    store = Store(config.data.store)
    folder = Path(str(config.run.out)) / "export"
    for name in ("init", "student", "teacher"):
        encoder = load_encoder(folder / name)
        assert OBJECTIVES[objective] == encoder.card.objective
        assert torch.isfinite(encoder.embed(to_grid(store.images([0, 1])))).all()
    assert not same(weights(config, "init"), weights(config, "student"))
    assert not same(weights(config, "student"), weights(config, "teacher"))
    assert same(weights(config, "init"), weights(runs["softcon"][0], "init"))
    assert ["initialisation", "student", "teacher"] == [score.name for score in report.scores]
    assert all(np.isfinite(row["loss"]) for row in metrics(config))


def test_the_terms_enter_the_loss_as_named(runs: dict[str, Finished]) -> None:
    """In the first step all see the same images: moco's loss is the hard term, soft's λ · soft."""
    first = {name: metrics(config)[0] for name, (config, _) in runs.items()}
    hard, soft = first["softcon"]["hard"], first["softcon"]["soft"]

    assert hard == pytest.approx(first["moco"]["loss"], rel=1e-5)
    assert 3 * soft == pytest.approx(first["soft"]["loss"], rel=1e-5)
    assert hard + 3 * soft == pytest.approx(first["softcon"]["loss"], rel=1e-5)


def test_moco_is_softcon_without_weight(runs: dict[str, Finished], tmp_path: Path) -> None:
    """The control and λ = 0 are one run, bit for bit."""
    config = runs["moco"][0]
    other = with_groups(
        config,
        method={"objective": "softcon", "soft_weight": 0.0},
        run={"out": str(tmp_path / "b")},
    )
    pretrain(other)

    assert same(weights(config, "student"), weights(other, "student"))


def test_a_shuffled_run_goes_another_way(runs: dict[str, Finished]) -> None:
    """Only the labels differ: the first hard term is that of SoftCon, the soft one is not."""
    first = {name: metrics(runs[name][0])[0] for name in ("softcon", "shuffled")}

    assert first["softcon"]["hard"] == first["shuffled"]["hard"]
    assert first["softcon"]["soft"] != first["shuffled"]["soft"]


@pytest.mark.slow
def test_a_transformer_is_masked_by_pixels(runs: dict[str, Finished], tmp_path: Path) -> None:
    """Dense masking runs, and is another estimator than dropping: the losses differ."""
    dropped = runs["softcon"][0]
    dense = with_groups(dropped, method={"mask": "pixels"}, run={"out": str(tmp_path / "dense")})
    pretrain(dense)

    assert metrics(dense)[0]["loss"] != metrics(dropped)[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["moco2", "moco3-resnet"])
def test_other_heads_train(runs: dict[str, Finished], tmp_path: Path, head: str) -> None:
    """A run with each, to a finite loss."""
    config = with_groups(
        runs["softcon"][0], method={"head": head}, run={"out": str(tmp_path / head)}
    )
    pretrain(config)

    assert all(np.isfinite(row["loss"]) for row in metrics(config))


def test_labels_are_dealt_out_anew() -> None:
    """The same sets as often as before; places, unlabelled and held-out scenes as they were."""
    generator = torch.Generator().manual_seed(0)
    hot = (torch.rand(40, 3, generator=generator) < 0.5).float()
    known = torch.rand(40, generator=generator) < 0.9
    hot[~known] = 0
    labels = Labels(hot, known, shares=hot / 2, places=torch.arange(40))
    rows = np.arange(0, 30)

    told = exchanged(labels, rows, seed=1)

    def sets(of: Labels) -> list[tuple[float, ...]]:
        return sorted(tuple(line) for line in of.multi_hot[:30].tolist())

    assert sets(labels) == sets(told)
    assert not torch.equal(labels.multi_hot, told.multi_hot)
    assert torch.equal(labels.multi_hot[30:], told.multi_hot[30:])
    assert torch.equal(labels.known, told.known)
    assert torch.equal(labels.places, told.places)  # type: ignore[arg-type]
    assert torch.equal(told.multi_hot / 2, told.shares)  # type: ignore[arg-type]
    again, other = exchanged(labels, rows, seed=1), exchanged(labels, rows, seed=2)
    assert torch.equal(told.multi_hot, again.multi_hot)
    assert not torch.equal(told.multi_hot, other.multi_hot)


def test_a_scene_keeps_its_label_through_the_run(config: PretrainConfig) -> None:
    """In every epoch a scene comes with one and the same exchanged set; the probe's stay true."""
    assert config.data.store is not None
    store = Store(config.data.store)
    data = StoreDataModule(store, config.data, 8, 0, exchange=True)
    seen: dict[int, set[tuple[float, ...]]] = {}
    for epoch in range(3):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for rows, (_, labels) in zip(loader.sampler.rows(epoch), loader, strict=True):
            for row, hot in zip(rows.tolist(), labels.multi_hot.tolist(), strict=True):
                seen.setdefault(row, set()).add(tuple(hot))
    data.close()
    true = {row: tuple(store.labels([row]).multi_hot[0].tolist()) for row in seen}

    assert {1} == {len(sets) for sets in seen.values()}
    assert true != {row: next(iter(sets)) for row, sets in seen.items()}
    assert sorted(map(tuple, data.train_labels.multi_hot.tolist())) == sorted(
        map(tuple, store.labels(data.train_rows).multi_hot.tolist())
    )


@pytest.mark.parametrize("objective", ["soft", "shuffled"])
def test_a_control_of_the_soft_term_needs_one(config: PretrainConfig, objective: str) -> None:
    """Without a weight the run would be another control under this one's name."""
    with pytest.raises(ConfigError, match="soft_weight"):
        with_groups(config, method={"objective": objective, "soft_weight": 0.0})


def test_predicting_labels_that_are_not_there_is_refused(
    config: PretrainConfig, make_store: object, tmp_path: Path
) -> None:
    """A store without classes cannot be classified."""
    path = make_store(tmp_path / "bare", labels=False)  # type: ignore[operator]
    config = with_groups(
        config,
        data={"store": str(path), "unlabelled": "hard-only"},
        method={"objective": "multilabel", "soft_weight": 0.0},
    )
    with pytest.raises(TrainingError, match="no image is labelled"):
        pretrain(config)


@pytest.mark.slow
def test_a_resnet_is_masked_by_pixels_and_its_norms_refreshed(
    config: PretrainConfig, tmp_path: Path
) -> None:
    """The exported statistics are those of whole images, not those that training left behind."""
    config = with_groups(
        config,
        model={"architecture": "resnet18", "size": 64},
        method={"mask": "pixels", "mask_ratio": 0.5},
        optim={"epochs": 1, "lr": 1e-3},
        monitor={"every_epochs": 0},
    )
    pretrain(config)
    assert config.data.store is not None
    store = Store(config.data.store)
    encoder = load_encoder(Path(str(config.run.out)) / "export" / "student")
    data = StoreDataModule(store, config.data, 8, 0)
    pixels = encoder.preprocess(to_grid(store.images(data.train_rows)))
    out = encoder.trunk.get_submodule("conv1")(pixels)

    mean = encoder.trunk.get_submodule("bn1").get_buffer("running_mean")
    assert torch.allclose(out.mean(dim=(0, 2, 3)), mean, atol=1e-5)
    assert "refreshed" in encoder.card.source
    teacher = load_encoder(Path(str(config.run.out)) / "export" / "teacher")
    assert "refreshed" not in teacher.card.source
    last = str(Path(str(config.run.out)) / "checkpoints" / "last.ckpt")
    with pytest.raises(WeightsError, match="statistics of the student are of other images"):
        export_source(ExportConfig(last, str(tmp_path / "x")))
    export_source(ExportConfig(last, str(tmp_path / "y"), branch="teacher"))
