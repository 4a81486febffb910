"""The frozen teacher of a run: whose weights, what it sees, and what becomes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain_settings import with_groups
from torch import Tensor

from eofm.contract.preprocess import to_grid
from eofm.contract.recipe import Recipe
from eofm.contract.spec import Normalization, Sensor
from eofm.errors import ConfigError, SpecMismatch, TrainingError, WeightsError
from eofm.networks.build import default_pooling
from eofm.store.paired import match_ids, write_pairs
from eofm.store.reader import Store
from eofm.train.build import build_module, make_recipe, open_data
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.module import FrozenTeacher, PretrainModule, open_teacher
from eofm.train.run import pretrain
from eofm.weights.encoder import load_encoder, random_encoder, save_encoder
from eofm.weights.load import CHECKPOINT_KEY

Opened = tuple[PretrainModule, StoreDataModule]


def recipe_for(store: Path, architecture: str, size: int, **changes: object) -> Recipe:
    """What a network for the images of a store expects: z-scores of its own."""
    spec = Store(store).spec
    bands = len(spec.bands)
    recipe = Recipe(
        sensor=spec.sensor,
        bands=spec.bands,
        unit=spec.unit,
        size=(size, size),
        normalization=Normalization.zscore((900.0,) * bands, (700.0,) * bands, "made for a test"),
        pooling=default_pooling(architecture),
    )
    return replace(recipe, **changes)  # type: ignore[arg-type]


def write_teacher(folder: Path, recipe: Recipe, architecture: str = "vit-tiny-14-2blocks") -> str:
    """An export of untrained weights."""
    save_encoder(random_encoder(architecture, recipe, seed=5), folder)
    return str(folder)


def opened(config: PretrainConfig) -> Opened:
    """The module and the data of a run, before training."""
    store, second_store = open_data(config.data)
    data = StoreDataModule(
        store, config.data, config.optim.batch, 0, second_store=second_store, places=True
    )
    recipe = make_recipe(store, data.train_rows.tolist(), config.model)
    return build_module(config, data, recipe)[0], data


def shown(module: PretrainModule, native: object) -> tuple[FrozenTeacher, list[Tensor]]:
    """The teacher of distill, and what it is shown of both views of one step."""
    teacher = module.method.frozen_of("distill")
    seen: list[Tensor] = []
    teacher.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    _, first, second = module.two_views(native)  # type: ignore[arg-type]
    count = len(first.pixels)
    labels = Store(module.config.data.store).labels(list(range(count)))  # type: ignore[arg-type]
    double = (
        labels
        if not module.seasons
        else Store(
            module.config.data.store  # type: ignore[arg-type]
        ).labels(list(range(2 * count)))
    )
    module.outcome(native, first, second, double)  # type: ignore[arg-type]
    return teacher, seen


def distil(config: PretrainConfig, teacher: str, **changes: dict[str, object]) -> PretrainConfig:
    """The settings with distillation alone."""
    groups = {**{"monitor": {"every_epochs": 0}}, **changes}
    method = {"terms": {"distill": {"teacher": teacher, "queue": 0}}, **groups.pop("method", {})}
    return with_groups(config, method=method, **groups)


STILL: dict[str, object] = {"blur_probability": 0.0, "colour_probability": 0.0}


def test_a_teacher_of_the_same_recipe_sees_the_students_very_view(
    config: PretrainConfig, tmp_path: Path
) -> None:
    """Without blur and colour both see the same pixels; with them the teacher's stay clean."""
    store, _ = open_data(config.data)
    same = make_recipe(store, range(4), config.model)
    name = write_teacher(tmp_path / "same", same)
    module, data = opened(distil(config, name, augment=STILL))
    native = data.images([1, 5, 9, 12])
    torch.manual_seed(3)
    _, seen = shown(module, native)
    torch.manual_seed(3)
    _, first, second = module.two_views(native)

    assert 2 == len(seen)
    torch.testing.assert_close(seen[0], first.pixels, rtol=0, atol=1e-6)
    torch.testing.assert_close(seen[1], second.pixels, rtol=0, atol=1e-6)
    assert not torch.allclose(seen[0], seen[1])


def test_a_teacher_has_its_own_bands_size_and_normalisation(
    config: PretrainConfig, store_path: Path, tmp_path: Path
) -> None:
    """Three bands at 42 pixels, z-scored: the oracle prepares and crops by hand."""
    wide = recipe_for(store_path, "vit-tiny-14-2blocks", 42)
    three = replace(
        wide,
        bands=("B04", "B03", "B02"),
        normalization=Normalization.zscore((900.0,) * 3, (700.0,) * 3, "made for a test"),
    )
    name = write_teacher(tmp_path / "three", three)
    module, data = opened(distil(config, name))
    native = data.images([1, 5, 9, 12])
    torch.manual_seed(3)
    teacher, seen = shown(module, native)
    torch.manual_seed(3)
    _, *views = module.two_views(native)
    bands = [Store(store_path).spec.bands.index(band) for band in three.bands]
    image = (to_grid(native).pixels[:, bands].float() - 900) / 700

    assert 192 == teacher.dim == module.method.terms["distill"].adapter.out_features
    for pixels, view in zip(seen, views, strict=True):
        assert (4, 3, 42, 42) == tuple(pixels.shape)
        torch.testing.assert_close(pixels, view.crop(image, 42), rtol=0, atol=1e-4)


@pytest.fixture
def both(make_store: Callable[..., Path], tmp_path: Path) -> Path:
    """A store of each sensor."""
    folder = tmp_path / "both"
    make_store(folder / "s2-l1c", Sensor.S2_L1C)
    make_store(folder / "s1-grd", Sensor.S1_GRD, unlabelled=24)
    write_pairs(folder, match_ids(folder, ["s2-l1c", "s1-grd"]), ["s2-l1c", "s1-grd"])
    return folder


def test_an_optical_teacher_sees_the_optical_image_under_both_views(
    config: PretrainConfig, both: Path, tmp_path: Path
) -> None:
    """S2 to S1: the radar student learns what the teacher says of the same place."""
    name = write_teacher(tmp_path / "s2", recipe_for(both / "s2-l1c", "vit-tiny-14-2blocks", 56))
    config = distil(config, name, data={"store": str(both), "views": "sensors"})
    module, data = opened(config)
    native = data.images([1, 5, 9, 12])
    _, first, second = module.two_views(native)
    with_store = with_groups(module.config, data={"store": str(both / "s2-l1c")})
    module.config = with_store
    _, seen = shown(module, native)

    assert (13, 2) == (first.pixels.shape[1], second.pixels.shape[1])
    assert [13, 13] == [pixels.shape[1] for pixels in seen]
    torch.testing.assert_close(seen[0], seen[1])  # augment.pair same: one crop


def test_a_radar_student_is_trained_by_an_optical_teacher(
    config: PretrainConfig, both: Path, tmp_path: Path
) -> None:
    """A run from start to end: an export of each sensor, and nothing but the term was minimised."""
    name = write_teacher(tmp_path / "s2", recipe_for(both / "s2-l1c", "vit-tiny-14-2blocks", 56))
    config = distil(
        config, name, data={"store": str(both), "views": "sensors"}, optim={"epochs": 1}
    )
    pretrain(config)
    folder = Path(str(config.run.out))
    sensors = {
        str(load_encoder(card.parent).recipe.sensor)
        for card in (folder / "export").rglob("card.json")
    }

    assert {"s1-grd", "s2-l1c"} <= sensors
    assert not any("teacher" in str(path) for path in (folder / "export").rglob("*"))


def test_a_radar_teacher_sees_the_radar_image(
    config: PretrainConfig, both: Path, tmp_path: Path
) -> None:
    """The teacher's sensor decides which store it is shown."""
    name = write_teacher(tmp_path / "s1", recipe_for(both / "s1-grd", "vit-tiny-14-2blocks", 56))
    module, _ = opened(distil(config, name, data={"store": str(both), "views": "sensors"}))

    assert 1 == module.method.frozen_of("distill").store


def test_of_two_seasons_the_teacher_sees_that_of_the_view(
    config: PretrainConfig, store_path: Path, tmp_path: Path
) -> None:
    """The batch holds both seasons: the second view is of its second half."""
    name = write_teacher(tmp_path / "same", recipe_for(store_path, "vit-tiny-14-2blocks", 56))
    module, data = opened(distil(config, name, augment=STILL, data={"views": "seasons"}))
    native = data.images([4, 6, 5, 7])
    teacher, seen = shown(module, native)
    halves = teacher.prepare(native).chunk(2)

    for pixels, half in zip(seen, halves, strict=True):
        near = (pixels.mean(dim=(2, 3)) - half.mean(dim=(2, 3))).abs().mean()
        assert near < 0.1
    assert (seen[0].mean(dim=(2, 3)) - halves[1].mean(dim=(2, 3))).abs().sum() > 0


def test_a_teacher_for_other_images_is_one_clear_error(
    config: PretrainConfig, store_path: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    """A radar teacher on an optical store, or one for another level: sensor and card are named."""
    radar = make_store(tmp_path / "radar", Sensor.S1_GRD)
    name = write_teacher(tmp_path / "s1", recipe_for(radar, "vit-tiny-14-2blocks", 56))
    with pytest.raises(SpecMismatch, match="frozen teacher expects other images") as caught:
        opened(distil(config, name))
    assert "s1-grd" in str(caught.value)
    assert name in str(caught.value.where)
    level = recipe_for(
        store_path,
        "vit-tiny-14-2blocks",
        56,
        sensor=Sensor.S2_L2A,
        bands=tuple(b for b in Store(store_path).spec.bands if b != "B10"),
        normalization=Normalization.zscore((900.0,) * 12, (700.0,) * 12, "made for a test"),
    )
    with pytest.raises(SpecMismatch, match="frozen teacher expects other images"):
        opened(distil(config, write_teacher(tmp_path / "l2a", level)))
    fits = write_teacher(tmp_path / "s2", recipe_for(store_path, "vit-tiny-14-2blocks", 56))
    opened(distil(config, fits))  # the remedy


def test_weights_that_are_not_there_are_named_with_the_term(config: PretrainConfig) -> None:
    """What `eofm.weights.resolve` says, and that a teacher was meant."""
    with pytest.raises(WeightsError, match="no such weights") as caught:
        opened(distil(config, "runs/nowhere"))

    assert "teacher runs/nowhere" in str(caught.value.where)


@pytest.mark.slow
def test_a_frozen_resnet_stays_as_it_is_in_every_mode(
    config: PretrainConfig, store_path: Path, tmp_path: Path
) -> None:
    """Batch norms keep their statistics while the run trains, and no tensor is in a checkpoint."""
    recipe = recipe_for(store_path, "resnet18", 64)
    name = write_teacher(tmp_path / "resnet", recipe, "resnet18")
    module, _ = opened(distil(config, name))
    teacher = module.method.frozen_of("distill")
    module.train()

    assert not any(part.training for part in teacher.trunk.modules())
    assert [] == list(teacher.parameters())
    module.double()
    assert {torch.float64} == {p.dtype for p in teacher.trunk.parameters()}
    assert 512 == teacher.dim
    config = distil(config, name, run={"figures": False})
    pretrain(config)
    folder = Path(str(config.run.out))
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert not any("frozen" in key for key in saved["state_dict"])
    before, after = load_encoder(name), open_teacher(name, [Store(store_path).spec])
    for one, other in zip(before.trunk.parameters(), after.trunk.parameters(), strict=True):
        assert torch.equal(one, other)
    card = json.loads((folder / "export" / "student" / "card.json").read_text())
    assert "SSLD" in card["objective"]
    assert before.card.sha256[:16] in card["objective"]
    assert not (folder / "export" / "teacher").exists()


@pytest.mark.slow
def test_a_vit_teaches_a_resnet(config: PretrainConfig, store_path: Path, tmp_path: Path) -> None:
    """Another network than the student's: a run from start to end."""
    name = write_teacher(tmp_path / "vit", recipe_for(store_path, "vit-tiny-14-2blocks", 56))
    config = distil(
        config,
        name,
        model={"architecture": "resnet18", "size": 64},
        method={"mask_ratio": 0.0},
        optim={"epochs": 1},
    )
    report = pretrain(config)

    assert report is not None
    lines = (Path(str(config.run.out)) / "metrics.csv").read_text().splitlines()
    assert "distill/cosine" in lines[0]


@pytest.mark.parametrize("form", ["export", pytest.param("checkpoint", marks=pytest.mark.slow)])
def test_a_run_is_resumed_with_the_teacher_that_it_began_with(
    form: str, config: PretrainConfig, store_path: Path, tmp_path: Path
) -> None:
    """Other weights under the same name are refused; both remedies, the old files and a new run,
    are runs.
    """
    recipe = recipe_for(store_path, "vit-tiny-14-2blocks", 56)
    if form == "export":
        name = write_teacher(tmp_path / "teacher", recipe)
        kept = tmp_path / "teacher"
    else:  # whose card has no sha256
        first = with_groups(config, run={"out": str(tmp_path / "first")}, optim={"epochs": 1})
        pretrain(first)
        kept = tmp_path / "first" / "checkpoints"
        name = str(kept / "last.ckpt")
    config = distil(config, name, run={"figures": False}, optim={"epochs": 1})
    pretrain(config)
    resumed = PretrainConfig(run=replace(config.run, resume=True))
    shutil.copytree(kept, tmp_path / "kept")
    if form == "export":
        save_encoder(random_encoder("vit-tiny-14-2blocks", recipe, seed=6), kept)
    else:
        saved = torch.load(name, weights_only=True)
        saved["state_dict"]["method.teacher.trunk.cls_token"] += 1
        saved["state_dict"]["method.student.trunk.cls_token"] += 1
        torch.save(saved, name)

    with pytest.raises(ConfigError, match="frozen teacher of distill has other weights"):
        pretrain(resumed)
    pretrain(with_groups(config, run={"out": str(tmp_path / "new")}))
    shutil.copytree(tmp_path / "kept", kept, dirs_exist_ok=True)

    assert pretrain(resumed) is not None


def test_a_checkpoint_of_before_does_not_say_which_teacher_it_had(
    config: PretrainConfig, store_path: Path, tmp_path: Path
) -> None:
    """It is resumed as it always was."""
    name = write_teacher(tmp_path / "teacher", recipe_for(store_path, "vit-tiny-14-2blocks", 56))
    config = distil(config, name, run={"figures": False}, optim={"epochs": 1})
    pretrain(config)
    last = Path(str(config.run.out)) / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    del saved[CHECKPOINT_KEY]["teachers"]
    torch.save(saved, last)

    assert pretrain(PretrainConfig(run=replace(config.run, resume=True))) is not None


def test_self_distillation_of_weight_zero_is_the_plain_run_bit_for_bit(
    config: PretrainConfig, tmp_path: Path
) -> None:
    """Every tensor of the last checkpoint, and every number that was logged."""
    ends, logs = [], []
    for name, terms in (
        ("plain", None),
        ("zero", {"softcon": 1, "self_distill": {"weight": 0, "teacher": "runs/nowhere"}}),
    ):
        one = with_groups(
            config,
            method={"terms": terms},
            run={"out": str(tmp_path / name)},
            monitor={"every_epochs": 0},
        )
        pretrain(one)
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        ends.append(torch.load(last, weights_only=True)["state_dict"])
        logs.append((tmp_path / name / "metrics.csv").read_text())

    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[1][key], value) for key, value in ends[0].items())
    assert logs[0] == logs[1]


def test_a_student_may_not_start_from_its_own_teacher(
    config: PretrainConfig, store_path: Path, tmp_path: Path
) -> None:
    """Self-distillation restarts from the first weights; the remedy, without them, is a run."""
    store, _ = open_data(config.data)
    first = write_teacher(tmp_path / "first", make_recipe(store, range(4), config.model))
    terms = {"softcon": 1, "self_distill": {"teacher": first}}
    again = with_groups(config, method={"terms": terms}, model={"weights": first})
    with pytest.raises(ConfigError, match="starts from its own teacher"):
        opened(again)
    module, _ = opened(with_groups(again, model={"weights": None}))

    assert module.method.frozen_of("self_distill") is not None


def test_look_without_labels_is_refused_and_with_them_trains(
    config: PretrainConfig, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    """No row would count: said before the first step, also where the soft term has no weight."""
    bare = make_store(tmp_path / "bare", labels=False)
    terms = {"look": {"queue": 0, "neighbours": 4}}
    method = {"terms": terms, "soft_weight": 0.0}
    data = {"store": str(bare), "unlabelled": "hard-only"}
    with pytest.raises(TrainingError, match="the term look reads labels"):
        pretrain(with_groups(config, data=data, method=method))
    report = pretrain(
        with_groups(config, method=method, optim={"epochs": 1}, monitor={"every_epochs": 0})
    )

    assert report is not None
    lines = (Path(str(config.run.out)) / "metrics.csv").read_text().splitlines()
    assert "look/excess" in lines[0]


def test_look_refuses_labels_that_no_two_places_share(
    config: PretrainConfig, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    """Its loss was 0 in every step, without a word: one of 24 images is labelled."""
    store = make_store(tmp_path / "one", unlabelled=23)
    data = {"store": str(store), "unlabelled": "hard-only", "holdout": 0.0}
    method = {"terms": {"look": {"queue": 0, "neighbours": 4}}, "soft_weight": 0.0}
    with pytest.raises(TrainingError, match="no two places do") as caught:
        opened(with_groups(config, data=data, method=method))

    assert "1 labelled places" in str(caught.value.found)
