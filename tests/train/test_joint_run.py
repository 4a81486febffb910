"""Optical and radar images of one place as the two views of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_settings import with_groups

from eofm.contract.preprocess import to_grid
from eofm.contract.spec import Sensor
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import ConfigError, StoreError, WeightsError
from eofm.loading.feeder import Feeder, PairFeeder, SecondStore, open_pair
from eofm.store.paired import Pair, match_ids, write_pairs
from eofm.store.reader import Store
from eofm.train.build import build_module, make_recipe, open_data
from eofm.train.config import DataConfig, PretrainConfig
from eofm.train.datamodule import StoreDataModule
from eofm.train.run import pretrain
from eofm.weights.config import ExportConfig
from eofm.weights.encoder import load_encoder
from eofm.weights.export import export_source


@pytest.fixture
def both(make_store: Callable[..., Path], tmp_path: Path) -> Path:
    """A store of each sensor; of radar the first place is missing in the table."""
    folder = tmp_path / "both"
    make_store(folder / "s2-l1c", Sensor.S2_L1C)
    make_store(folder / "s1-grd", Sensor.S1_GRD, unlabelled=24)
    pairs = match_ids(folder, ["s2-l1c", "s1-grd"])
    pairs[:2] = [replace(p, images={"s2-l1c": p.images["s2-l1c"]}) for p in pairs[:2]]
    write_pairs(folder, pairs, ["s2-l1c", "s1-grd"])
    return folder


@pytest.fixture
def joint(config: PretrainConfig, both: Path) -> PretrainConfig:
    """One epoch on both."""
    return with_groups(
        config,
        data={"store": str(both), "views": "sensors"},
        optim={"epochs": 1},
        monitor={"every_epochs": 0},
    )


def module_of(config: PretrainConfig) -> tuple[object, StoreDataModule]:
    """The module and the data of a run, before training."""
    store, second_store = open_data(config.data)
    data = StoreDataModule(store, config.data, config.optim.batch, 0, second_store=second_store)
    recipe = make_recipe(store, data.train_rows.tolist(), config.model)
    return build_module(config, data, recipe)[0], data


def test_images_of_one_place_come_together(both: Path) -> None:
    """The oracle reads both stores by identifier; labels are those of the optical store."""
    first, second_store = open_pair(both)
    rows = [np.array([5, 3, 22]), np.array([7, 4, 2])]
    feeder = PairFeeder(Feeder(first, 3), Feeder(second_store.store, 3), second_store)
    for line, ((optical, radar), labels) in zip(rows, feeder.feed(rows), strict=True):
        ids = first.ids[line].tolist()
        there = [second_store.store.ids.tolist().index(name) for name in ids]
        expected = to_grid(second_store.store.images(there)).pixels
        assert torch.equal(expected, to_grid(radar).pixels)
        assert torch.equal(to_grid(first.images(line)).pixels, to_grid(optical).pixels)
        assert torch.equal(first.labels(line).multi_hot, labels.multi_hot)
    feeder.close()


def test_a_row_without_a_counterpart_is_not_made_up(both: Path) -> None:
    """It is not among the training rows, and to ask for it is an error."""
    first, second_store = open_pair(both)
    feeder = PairFeeder(Feeder(first, 1), Feeder(second_store.store, 1), second_store)
    data = StoreDataModule(first, DataConfig(holdout=0.25), 8, 0, second_store=second_store)

    assert [-1, -1] == second_store.row_of[:2].tolist()
    assert not {0, 1} & {*data.train_rows.tolist(), *data.test_rows.tolist()}
    with pytest.raises(IndexError, match="no image of the other sensor"):
        list(feeder.feed([np.array([1])]))
    feeder.close()


def test_two_stores_are_needed(make_store: Callable[..., Path], tmp_path: Path) -> None:
    """One of each kind, with a counterpart somewhere, of windows of one size."""
    folder = tmp_path / "odd"
    make_store(folder / "s2-l1c")
    make_store(folder / "s2-l2a", Sensor.S2_L2A)
    write_pairs(folder, match_ids(folder, ["s2-l1c", "s2-l2a"]))
    with pytest.raises(StoreError, match="one optical store and one radar store"):
        open_pair(folder)
    make_store(tmp_path / "lone" / "s2-l1c")
    make_store(tmp_path / "lone" / "s1-grd", Sensor.S1_GRD)
    write_pairs(
        tmp_path / "lone", [Pair("a", "000", "0", {"s2-l1c": "000-0"})], ["s1-grd", "s2-l1c"]
    )
    with pytest.raises(StoreError, match="no image has a counterpart"):
        open_pair(tmp_path / "lone")


@pytest.mark.parametrize("pair", ["same", "independent"])
def test_views_of_two_sensors(joint: PretrainConfig, pair: str) -> None:
    """Each has its bands and range; with one crop for both, equal images give equal views.

    The radar batch is replaced by a copy of one optical band to see the geometry of both.
    """
    module, data = module_of(with_groups(joint, augment={"pair": pair, "blur_probability": 0.0}))
    imagery, first, second = module.two_views(data.images([5, 6, 7, 8]))  # type: ignore[attr-defined]
    paired = module.paired_views  # type: ignore[attr-defined]
    draw = paired.first.draw(imagery.pixels.shape)
    other = paired.second.draw(imagery.pixels[:, :2].shape)
    boxes = [
        torch.equal(a.data["src"], b.data["src"])  # type: ignore[index]
        for a, b in zip(draw[:1], other[:1], strict=True)
    ]
    seen: list[list[torch.Tensor]] = [[], []]
    for which, views in enumerate((paired.first, paired.second)):
        make = views.make
        views.make = lambda pixels, draw, at=which, make=make: (
            seen[at].append(draw[0].data["src"]),
            make(pixels, draw),
        )[1]
    paired(imagery, data.images([5, 6, 7, 8])[1])

    assert (4, 13, 56, 56) == tuple(first.pixels.shape)
    assert (4, 2, 56, 56) == tuple(second.pixels.shape)
    assert [False] == boxes  # two draws are two boxes
    assert (pair == "same") == torch.equal(seen[0][0], seen[1][0])
    assert 0 <= float(second.pixels.min()) <= float(second.pixels.max()) <= 1


def test_radar_has_no_colours(joint: PretrainConfig) -> None:
    """Brightness and contrast are changes of the optical view alone."""
    module, _ = module_of(joint)
    first, second = (v.draws for v in (module.paired_views.first, module.paired_views.second))  # type: ignore[attr-defined]

    def jitter(draws: object) -> list[float]:
        names = ("RandomColour", "RandomBandMean")
        return [op.p for op in draws.children() if type(op).__name__ in names]  # type: ignore[attr-defined]

    assert [0.0, 0.0] == jitter(second)
    assert max(jitter(first)) > 0


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, make_store: Callable[..., Path]
) -> tuple[Path, tuple[str, ...]]:
    """The folder of a joint run with figures, and the names its report scores."""
    folder = tmp_path_factory.mktemp("finished")
    for sensor in (Sensor.S2_L1C, Sensor.S1_GRD):
        make_store(folder / "both" / sensor, sensor)
    write_pairs(folder / "both", match_ids(folder / "both", ["s2-l1c", "s1-grd"]))
    config = with_groups(
        PretrainConfig(),
        data={"store": str(folder / "both"), "views": "sensors", "holdout": 0.25},
        model={"architecture": "vit-tiny-14-2blocks", "size": 56},
        method={"hidden": 32, "dim": 16},
        optim={"epochs": 1, "batch": 8, "lr": 1e-2},
        trainer={"accelerator": "cpu"},
        run={"out": str(folder / "run")},
        monitor={"every_epochs": 0},
    )
    report = pretrain(config)
    return folder, tuple(score.name for score in report.scores)


def test_each_sensor_leaves_as_an_encoder_of_its_own(
    finished: tuple[Path, tuple[str, ...]],
) -> None:
    """Six encoders, each with its recipe; both share all tensors but those of the input layer."""
    folder, scored = finished
    first, second_store = open_pair(folder / "both")
    out = folder / "run" / "export"
    for name in ("init", "student", "teacher"):
        optical, radar = load_encoder(out / name), load_encoder(out / f"{name}-s1-grd")
        assert (Sensor.S2_L1C, Sensor.S1_GRD) == (optical.recipe.sensor, radar.recipe.sensor)
        mine, theirs = optical.trunk.state_dict(), radar.trunk.state_dict()
        unlike = {n for n, value in mine.items() if not torch.equal(value, theirs[n])}
        assert {"patch_embed.proj.weight", "patch_embed.proj.bias"} == unlike
        assert torch.isfinite(optical.embed(to_grid(first.images([3])))).all()
        assert torch.isfinite(radar.embed(to_grid(second_store.store.images([3])))).all()
        assert "s1-grd" in radar.card.training_data
    start, end = (load_encoder(out / f"{n}-s1-grd").trunk for n in ("init", "student"))
    moved = {n for n, p in start.named_parameters() if not torch.equal(p, end.get_parameter(n))}
    assert "patch_embed.proj.weight" in moved
    names = ["initialisation", "student", "teacher"]
    assert [*names, *(f"{n} s1-grd" for n in names)] == list(scored)


def test_a_joint_run_draws_its_figures(finished: tuple[Path, tuple[str, ...]]) -> None:
    """The sheet of views shows optical beside radar; the plan of both is written down."""
    run = finished[0] / "run"

    assert (run / "figures" / "views.png").stat().st_size > 10_000
    plan = (run / "plan.txt").read_text()
    assert "s2-l1c" in plan
    assert "s1-grd" in plan


def test_a_checkpoint_gives_either_sensor(
    finished: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    """`eofm export --sensor` writes what the run wrote; another sensor is refused."""
    run = finished[0] / "run"
    last = str(run / "checkpoints" / "last.ckpt")
    for sensor, folder in ((None, "student"), ("s1-grd", "student-s1-grd")):
        to = tmp_path / folder
        export_source(ExportConfig(last, str(to), sensor=sensor))
        mine = load_encoder(to).trunk.state_dict()
        theirs = load_encoder(run / "export" / folder).trunk.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    with pytest.raises(WeightsError, match="not trained on this sensor"):
        export_source(ExportConfig(last, str(tmp_path / "x"), sensor="s2-l2a"))


@pytest.mark.slow
def test_a_joint_run_resumes_to_the_same_end(
    joint: PretrainConfig, tmp_path: Path, pretrain_interrupted: Callable[[PretrainConfig], None]
) -> None:
    """Killed within an epoch and resumed: bit for bit, and still shared."""
    joint = with_groups(joint, optim={"epochs": 2, "batch": 4})
    whole = with_groups(joint, run={"out": str(tmp_path / "whole")})
    pretrain(whole)
    pretrain_interrupted(joint)
    pretrain(replace(PretrainConfig(), run=replace(joint.run, resume=True)))

    for name in ("student", "teacher-s1-grd"):
        one, other = (
            load_encoder(Path(str(c.run.out)) / "export" / name).trunk.state_dict()
            for c in (whole, joint)
        )
        assert all(torch.equal(value, other[key]) for key, value in one.items()), name


@pytest.mark.slow
def test_a_joint_resnet_has_norms_for_each_sensor(joint: PretrainConfig, tmp_path: Path) -> None:
    """Statistics are taken of each sensor's own images; the checkpoint's mixture is refused."""
    joint = with_groups(
        joint,
        model={"architecture": "resnet18", "size": 64},
        method={"mask_ratio": 0.0},
        optim={"lr": 1e-3},
    )
    pretrain(joint)
    out = Path(str(joint.run.out))
    one, other = (load_encoder(out / "export" / n).trunk for n in ("teacher", "teacher-s1-grd"))

    assert torch.equal(one.get_parameter("bn1.weight"), other.get_parameter("bn1.weight"))
    assert not torch.equal(one.get_buffer("bn1.running_mean"), other.get_buffer("bn1.running_mean"))
    with pytest.raises(WeightsError, match="are of other images"):
        export_source(ExportConfig(str(out / "checkpoints" / "last.ckpt"), str(tmp_path / "x")))


def test_layers_keep_their_pace(joint: PretrainConfig) -> None:
    """Both new input layers learn at full pace, shared blocks at that of their depth."""
    module, _ = module_of(
        with_groups(joint, model={"architecture": "vit-tiny-14"}, optim={"layer_decay": 0.5})
    )
    parameter_rates = module._parameter_rates()  # type: ignore[attr-defined]
    named = {n for n, _ in module.method.named_parameters() if n.startswith("student.trunk.")}  # type: ignore[attr-defined]

    assert named <= set(parameter_rates)
    for sensor in ("s2-l1c", "s1-grd"):
        assert (
            1.0 == parameter_rates[f"student.trunk.trunks.{sensor}.patch_embed.proj.weight"].factor
        )
    assert 0.5**6 == parameter_rates["student.trunk.trunks.s2-l1c.blocks.0.attn.qkv.weight"].factor


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": {"symmetric": False}}, "method.symmetric"),
        ({"data": {"replay": "x", "replay_share": 0.5}}, "data.replay"),
    ],
)
def test_what_does_not_go_with_two_sensors(
    joint: PretrainConfig, changed: dict[str, dict[str, object]], message: str
) -> None:
    """One direction would never train the radar's input layer; replay has one sensor."""
    with pytest.raises(ConfigError, match=message):
        with_groups(joint, **changed)


def test_a_run_on_one_sensor_finds_its_store(both: Path, joint: PretrainConfig) -> None:
    """What `pack ssl4eo --sensors s2c,s1` wrote is named as a whole: the sensor chooses."""
    for sensor in ("s2-l1c", "s1-grd"):
        one = replace(joint.data, views="crops", sensor=sensor)
        assert sensor == open_data(one)[0].spec.sensor


def test_no_store_of_the_sensor(both: Path, joint: PretrainConfig) -> None:
    """A folder without the sensor of the settings is refused, and the remedy names a store."""
    (both / "s1-grd").rename(both / "gone")
    write_pairs(both, match_ids(both, ["s2-l1c"]), ["s2-l1c"])
    both = both.rename(both.with_name("both of them"))
    one = replace(joint.data, views="crops", sensor="s1-grd", store=str(both))

    with pytest.raises(StoreError, match="not one of the sensor") as caught:
        open_data(one)

    (_, store) = shlex.split(str(caught.value.remedy))
    assert "s2-l1c" == open_data(replace(one, store=store))[0].spec.sensor


@pytest.mark.slow
def test_the_embedded_world_has_both_sensors(joint: PretrainConfig, tmp_path: Path) -> None:
    """Without a store the synthetic world is packed twice and paired, and a run goes through."""
    config = with_groups(
        joint,
        data={"store": None, "world": str(tmp_path / "world"), "scenes": 6, "size": 60},
        run={"out": str(tmp_path / "run")},
        optim={"batch": 8},
    )

    pretrain(config)

    assert {"s1-grd", "s2-l1c"} <= {p.name for p in (tmp_path / "world" / "stores").iterdir()}
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(np.isfinite(json.loads(row)["loss"]) for row in rows)


@pytest.mark.slow
def test_real_scenes_of_two_sensors(real_data: Path, joint: PretrainConfig, tmp_path: Path) -> None:
    """TerraMesh: Sentinel-1 RTC beside Sentinel-2 L2A of the same windows."""
    folder = tmp_path / "real"
    for sensor, unit, name in (("s2-l2a", "dn", "S2L2A"), ("s1-rtc", "db", "S1RTC")):
        pack_tiles(
            PackTilesConfig(
                str(real_data / "terramesh" / name),
                sensor,  # type: ignore[arg-type]
                unit,  # type: ignore[arg-type]
                str(folder / sensor),
                landcover=str(real_data / "terramesh" / "LULC"),
                scheme="terramesh",
                window=56,
            )
        )
    write_pairs(folder, match_ids(folder, ["s2-l2a", "s1-rtc"]))
    config = with_groups(
        joint, data={"store": str(folder), "unlabelled": "hard-only"}, optim={"batch": 16}
    )

    pretrain(config)

    radar = load_encoder(Path(str(config.run.out)) / "export" / "student-s1-rtc")
    vectors = radar.embed(to_grid(Store(folder / "s1-rtc").images(range(8))))
    assert torch.isfinite(vectors).all()
    assert vectors.std(dim=0).max() > 0


def test_the_second_store_is_what_it_says(both: Path) -> None:
    """Rows of the optical store, each with the radar row of the same identifier."""
    first, second_store = open_pair(both)

    assert isinstance(second_store, SecondStore)
    for row in range(2, len(first)):
        assert first.ids[row] == second_store.store.ids[second_store.row_of[row]]


def test_weights_of_each_sensor_start_their_input_layer(
    finished: tuple[Path, tuple[str, ...]], joint: PretrainConfig
) -> None:
    """Joined by `+`, the first give network and input layer, the second their input layer."""
    export = finished[0] / "run" / "export"
    names = (export / "student", export / "student-s1-grd")
    config = with_groups(joint, model={"size": 56, "weights": "+".join(map(str, names))})

    module, _ = module_of(config)

    optical, radar = (load_encoder(name).trunk for name in names)
    trunk = module.method.student.trunk
    for sensor, expected in (("s2-l1c", optical), ("s1-grd", radar)):
        found = trunk.of(sensor).state_dict()
        assert all(torch.equal(found[key], v) for key, v in expected.state_dict().items())
    with pytest.raises(WeightsError):  # the optical weights alone say nothing of radar
        module_of(with_groups(joint, model={"size": 56, "weights": str(names[0])}))
