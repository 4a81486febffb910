"""A whole run: what it writes, what it refuses, and that it can be taken up again."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from pretrain_settings import with_groups
from safetensors.torch import load_file

from eofm.cli import main
from eofm.contract.preprocess import to_grid
from eofm.contract.recipe import Pooling
from eofm.contract.spec import SENSOR_BANDS, Sensor, Unit
from eofm.errors import ConfigError, SpecError, TrainingError, WeightsError
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit
from eofm.store.reader import Store
from eofm.train.build import make_recipe
from eofm.train.config import ModelConfig, PretrainConfig
from eofm.train.module import PretrainModule
from eofm.train.run import pretrain
from eofm.train.trainer import choose_device
from eofm.weights.config import ExportConfig
from eofm.weights.encoder import load_encoder
from eofm.weights.export import export_source


def metrics(config: PretrainConfig) -> list[dict[str, float]]:
    """The lines of a run's metrics file."""
    return [
        json.loads(line)
        for line in (Path(str(config.run.out)) / "metrics.jsonl").read_text().splitlines()
    ]


def weights(config: PretrainConfig, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one export of a run."""
    return dict(load_encoder(Path(str(config.run.out)) / "export" / name).trunk.state_dict())


def test_a_run_leaves_a_whole_folder(config: PretrainConfig, capsys) -> None:
    """Settings, environment, plan, metrics, checkpoint, encoders, report, figures; what is next."""
    config = with_groups(config, run={"figures": True})
    out = Path(str(config.run.out))

    report = pretrain(config)

    (following,) = [line for line in capsys.readouterr().err.splitlines() if "next:" in line]
    assert 0 == main(shlex.split(following.partition(" by: eofm ")[2]))
    assert (out / "report.html").is_file()

    for name in (
        "config.yaml",
        "environment.json",
        "plan.txt",
        "report.md",
        "results.json",
        "DONE",
    ):
        assert (out / name).is_file(), name
    for figure in ("loss", "embedding", "views"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 10_000
    assert ["initialisation", "student", "teacher"] == [score.name for score in report.scores]
    assert "synthetic" in report.describe()
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert config.data.store == saved["data"]["store"]
    assert [1, 2, 3, 4] == [row["step"] for row in metrics(config)]
    assert {"loss", "hard", "soft", "soft_excess", "embedding_std", "lr", "momentum"} <= set(
        metrics(config)[0]
    )


@pytest.mark.slow
def test_exports_embed_what_fits_and_state_their_data(config: PretrainConfig) -> None:
    """The exported encoder takes the store's imagery by its own recipe; its card says synthetic."""
    pretrain(config)
    store = Store(str(config.data.store))

    encoder = load_encoder(Path(str(config.run.out)) / "export" / "teacher")

    imagery = to_grid(store.images([0, 5]))
    assert (2, encoder.dim) == tuple(encoder.embed(imagery).shape)
    assert (SENSOR_BANDS[Sensor.S2_L1C], Unit.DN) == (encoder.recipe.bands, encoder.recipe.unit)
    assert encoder.card.synthetic
    assert "teacher after 2 epochs" == encoder.card.source
    assert 64 == len(encoder.card.config_hash)


@pytest.mark.slow
def test_student_teacher_and_start_differ_as_they_should(config: PretrainConfig) -> None:
    """The student has moved; the teacher has followed part of the way (momentum 0.99)."""
    pretrain(config)
    start, student, teacher = (weights(config, n) for n in ("init", "student", "teacher"))

    key = "blocks.0.attn.qkv.weight"
    far = (student[key] - start[key]).norm()
    near = (teacher[key] - start[key]).norm()
    assert 0 < near < 0.2 * far


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(config: PretrainConfig, tmp_path: Path) -> None:
    """Two runs with one seed are equal; another seed is not."""
    again = with_groups(config, run={"out": str(tmp_path / "again")})
    other = with_groups(config, run={"out": str(tmp_path / "other")}, optim={"seed": 1})
    for each in (config, again, other):
        pretrain(each)

    losses = [[row["loss"] for row in metrics(each)] for each in (config, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert all(
        a.equal(b)
        for a, b in zip(
            weights(config, "student").values(), weights(again, "student").values(), strict=True
        )
    )


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_end(
    config: PretrainConfig, tmp_path: Path, pretrain_interrupted: Callable[[PretrainConfig], None]
) -> None:
    """A run killed in its second epoch and resumed ends as an unbroken one, bit for bit."""
    config = with_groups(config, monitor={"every_epochs": 0})
    whole = with_groups(config, run={"out": str(tmp_path / "whole")})
    pretrain(whole)
    pretrain_interrupted(config)
    pretrain(replace(PretrainConfig(), run=replace(config.run, resume=True)))

    assert [row["loss"] for row in metrics(whole)] == [row["loss"] for row in metrics(config)]
    assert all(
        a.equal(b)
        for a, b in zip(
            weights(whole, "teacher").values(), weights(config, "teacher").values(), strict=True
        )
    )


def test_a_run_does_not_overwrite_another(config: PretrainConfig) -> None:
    """A folder that holds something is refused, and what it holds stays."""
    out = Path(str(config.run.out))
    out.mkdir()
    (out / "precious.txt").write_text("mine")

    with pytest.raises(ConfigError, match="the run folder is not empty"):
        pretrain(config)
    assert ["precious.txt"] == [path.name for path in out.iterdir()]


@pytest.mark.slow
def test_resuming_needs_a_run_with_the_same_settings(config: PretrainConfig) -> None:
    """Nothing to resume, and settings that changed meanwhile, are errors that name them."""
    with pytest.raises(ConfigError, match="no run to resume"):
        pretrain(with_groups(config, run={"resume": True}))
    pretrain(config)
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        pretrain(with_groups(config, run={"resume": True}, optim={"lr": 0.5}))


def test_too_few_scenes_are_named(config: PretrainConfig) -> None:
    """A batch larger than the training split says how many scenes there are, and why."""
    with pytest.raises(TrainingError, match=r"16 scenes to train on: 24 scenes in the store"):
        pretrain(with_groups(config, optim={"batch": 64}))


@pytest.mark.slow
def test_a_refused_run_leaves_no_folder(config: PretrainConfig) -> None:
    """After a refusal the same --run.out is free for the corrected command."""
    with pytest.raises(TrainingError):
        pretrain(with_groups(config, optim={"batch": 64}))

    assert not Path(str(config.run.out)).exists()
    pretrain(config)


@pytest.mark.slow
def test_a_run_that_died_before_its_start_was_written_resumes(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed while it wrote its initialisation is resumed to a whole report."""

    def die(*_: object) -> None:
        raise RuntimeError("the machine went away")

    monkeypatch.setattr("eofm.train.evaluate.export_trunk", die)
    with pytest.raises(RuntimeError, match="went away"):
        pretrain(config)
    monkeypatch.undo()

    report = pretrain(replace(PretrainConfig(), run=replace(config.run, resume=True)))
    assert ["initialisation", "student", "teacher"] == [score.name for score in report.scores]


def test_a_diverging_run_stops(config: PretrainConfig) -> None:
    """A loss that is not finite ends the run with the step and the remedy."""
    with pytest.raises(TrainingError, match="not finite") as caught:
        pretrain(with_groups(config, optim={"lr": 1e30, "warmup": 0.0, "clip": 1e30}))
    assert "optim.lr" in str(caught.value.remedy)


@pytest.mark.slow
def test_an_unlabelled_store_trains_the_hard_term(
    tmp_path: Path, config: PretrainConfig, make_store: Callable[..., Path]
) -> None:
    """Without labels nothing is dropped under hard-only with λ = 0, and no probe is pretended."""
    store = make_store(tmp_path / "unlabelled", unlabelled=24)
    config = with_groups(
        config,
        data={"store": str(store), "unlabelled": "hard-only"},
        method={"soft_weight": 0.0},
    )

    report = pretrain(config)

    assert () == report.scores
    assert "No linear probe" in report.describe()


@pytest.mark.slow
def test_labels_that_tell_nothing_are_not_probed(
    tmp_path: Path, config: PretrainConfig, make_store: Callable[..., Path]
) -> None:
    """Where every labelled scene has the same labels, any score would be the class frequency."""
    store = make_store(tmp_path / "equal", equal_labels=True)

    report = pretrain(with_groups(config, data={"store": str(store)}))

    assert () == report.scores
    assert "no class that is both present and absent among" in report.describe()


def test_all_unlabelled_with_a_soft_term_is_refused(
    tmp_path: Path, config: PretrainConfig, make_store: Callable[..., Path]
) -> None:
    """The soft term cannot be had without any label: an error, not a silent MoCo."""
    store = make_store(tmp_path / "unlabelled", unlabelled=24)
    config = with_groups(config, data={"store": str(store), "unlabelled": "hard-only"})

    with pytest.raises(TrainingError, match="no image is labelled"):
        pretrain(config)


@pytest.mark.slow
def test_sentinel_1_trains_with_its_own_recipe(
    tmp_path: Path, config: PretrainConfig, make_store: Callable[..., Path]
) -> None:
    """A store of decibels gives a two-band recipe with the published GRD statistics."""
    store = make_store(tmp_path / "s1", Sensor.S1_GRD)
    config = with_groups(config, data={"store": str(store)})

    pretrain(config)

    recipe = load_encoder(Path(str(config.run.out)) / "export" / "teacher").recipe
    assert (Sensor.S1_GRD, ("VV", "VH"), Unit.DB) == (recipe.sensor, recipe.bands, recipe.unit)
    assert pytest.approx(-12.59 - 2 * 5.26) == recipe.normalization.shift[0]


@pytest.mark.slow
def test_statistics_of_the_store_are_measured_on_its_training_split(config: PretrainConfig) -> None:
    """`statistics: store` agrees with numpy over the training rows and says where it is from."""
    config = with_groups(
        config, model={"statistics": "store", "normalization": "zscore"}, optim={"epochs": 1}
    )
    pretrain(config)
    recipe = load_encoder(Path(str(config.run.out)) / "export" / "init").recipe
    from eofm.train.datamodule import StoreDataModule

    store = Store(str(config.data.store))
    rows = StoreDataModule(store, config.data, 8, 0).train_rows
    pixels = to_grid(store.images(rows.tolist())).pixels.double()

    assert torch.allclose(
        pixels.mean(dim=(0, 2, 3)), torch.tensor(recipe.normalization.shift).double(), rtol=1e-5
    )
    assert torch.allclose(
        pixels.transpose(0, 1).flatten(1).std(dim=1, correction=0),
        torch.tensor(recipe.normalization.scale).double(),
        rtol=1e-5,
    )
    assert f"{len(rows)} training scenes" in recipe.normalization.source


@pytest.mark.slow
def test_training_continues_from_an_export(config: PretrainConfig, tmp_path: Path) -> None:
    """A second run starts with the weights of the first one's export, bit for bit."""
    pretrain(config)
    export = Path(str(config.run.out)) / "export" / "student"
    second = with_groups(
        config, model={"weights": str(export)}, run={"out": str(tmp_path / "second")}
    )

    pretrain(second)

    assert all(
        a.equal(b)
        for a, b in zip(
            weights(config, "student").values(), weights(second, "init").values(), strict=True
        )
    )


@pytest.mark.slow
def test_a_checkpoint_becomes_the_same_encoder(config: PretrainConfig, tmp_path: Path) -> None:
    """`eofm models export` of the last checkpoint equals what the run exported itself."""
    pretrain(config)
    checkpoint = str(Path(str(config.run.out)) / "checkpoints" / "last.ckpt")

    default = export_source(ExportConfig(checkpoint, str(tmp_path / "student")))
    export_source(ExportConfig(checkpoint, str(tmp_path / "teacher"), "teacher"))

    assert "student after 2 epochs" in default.describe()
    for branch in ("student", "teacher"):
        made = load_encoder(tmp_path / branch).trunk.state_dict()
        assert all(made[name].equal(tensor) for name, tensor in weights(config, branch).items())


def test_foreign_and_broken_checkpoints_are_refused(tmp_path: Path) -> None:
    """A missing file, half a file, and somebody else's checkpoint each say what they are."""
    broken, foreign = tmp_path / "broken.ckpt", tmp_path / "foreign.ckpt"
    broken.write_bytes(b"PK\x03\x04 half a file")
    torch.save({"state_dict": {}}, foreign)

    for path, words in (
        (tmp_path / "none.ckpt", "no such checkpoint"),
        (broken, "cannot be read"),
        (foreign, "not written by eofm"),
    ):
        with pytest.raises(WeightsError, match=words):
            export_source(ExportConfig(str(path), str(tmp_path / "x")))


def test_bfloat16_is_refused_where_the_cpu_emulates_it(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 autocast on a CPU without the instructions runs at a thirtieth of the speed."""
    monkeypatch.setattr("eofm.train.trainer.cpu_has_bf16", lambda: False)

    with pytest.raises(ConfigError, match="no bfloat16"):
        choose_device(with_groups(config, trainer={"precision": "bf16-mixed"}))
    assert ("32-true", "cpu") == choose_device(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "options"),
    [
        ("method", {}),
        ("method", {"objective": "multilabel"}),
        ("method", {"queue": 8}),
        ("optim", {"optimizer": "sgd"}),
        ("trainer", {"chunk": 2}),
    ],
    ids=["softcon", "multilabel", "queue", "sgd", "chunks"],
)
def test_bfloat16_trains_and_clips(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, group: str, options: dict[str, object]
) -> None:
    """What is the default on a GPU: a fused optimizer in mixed precision, with clipping.

    Lightning's own clipping refuses that pair. Weights stay float32. Losses are those of float32
    to a fifth: batch norms over four images of an untrained network magnify the rounding.
    """
    monkeypatch.setattr("eofm.train.trainer.cpu_has_bf16", lambda: True)
    assert config.optim.clip > 0
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        out = f"{config.run.out}-{precision}"
        one = with_groups(
            config,
            optim={"batch": 4, "epochs": 1},
            trainer={"precision": precision},
            monitor={"every_epochs": 0},
            run={"out": out},
        )
        pretrain(with_groups(one, **{group: options}))
        lines = (Path(out) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
        weights = load_file(Path(out) / "export" / "student" / "weights.safetensors")
        assert {torch.float32} == {tensor.dtype for tensor in weights.values()}

    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.2)
    assert losses[0] != losses[1]


# ----------------------------------------------------------------------- where it starts


@pytest.mark.slow
def test_a_resnet_is_pretrained_end_to_end(config: PretrainConfig, tmp_path: Path) -> None:
    """From a file, without masks, by SGD: figures, table, weights.txt, an encoder that embeds."""
    net = build_resnet("resnet18", 3, (64, 64), torch.Generator().manual_seed(0))
    torch.save(net.state_dict(), tmp_path / "dino_resnet18.pth")
    config = with_groups(
        config,
        model={
            "architecture": "resnet18", "size": 64, "weights": str(tmp_path / "dino_resnet18.pth"),
            "input_init": "random",
        },
        method={"mask_ratio": 0.0},
        optim={"optimizer": "sgd", "lr": 0.03, "clip": 0.0, "epochs": 1},
        run={"figures": True},
    )  # fmt: skip

    report = pretrain(config)

    out = Path(str(config.run.out))
    for figure in ("loss", "embedding", "views"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 10_000
    assert ["initialisation", "student", "teacher"] == [score.name for score in report.scores]
    text = (out / "weights.txt").read_text()
    assert text.startswith("dino_resnet18.pth (resnet): 119 tensors loaded, 0 adapted")
    assert "drawn afresh (1)\n  conv1.weight\n" in text
    start, end = weights(config, "init"), weights(config, "student")
    key = "layer1.0.conv1.weight"
    assert torch.equal(net.state_dict()[key], start[key])
    assert not torch.equal(start[key], end[key])
    encoder = load_encoder(out / "export" / "student")
    assert Pooling.MEAN is encoder.recipe.pooling
    embedded = encoder.embed(to_grid(Store(str(config.data.store)).images([0, 5])))
    assert (2, 512) == tuple(embedded.shape)
    assert torch.isfinite(embedded).all()
    assert not torch.equal(embedded[0], embedded[1])


def test_masking_a_resnet_is_refused(config: PretrainConfig) -> None:
    """A mask ratio that cannot be obeyed is an error that says what to set, and leaves nothing."""
    config = with_groups(config, model={"architecture": "resnet18", "size": 64})

    with pytest.raises(ConfigError, match="resnet18 has no tokens to drop") as caught:
        pretrain(config)
    assert "--method.mask_ratio 0" in str(caught.value)
    assert not Path(str(config.run.out)).exists()


def test_a_cls_token_is_not_made_up(config: PretrainConfig) -> None:
    """Pooling by a CLS token that the network does not have is an error."""
    config = with_groups(
        config,
        model={"architecture": "resnet18", "size": 64, "pooling": "cls"},
        method={"mask_ratio": 0.0},
    )

    with pytest.raises(SpecError, match="no CLS token"):
        pretrain(config)


@pytest.mark.parametrize(
    ("architecture", "pooling", "expected"),
    [
        ("vits14", "auto", Pooling.CLS),
        ("vits14", "mean", Pooling.MEAN),
        ("resnet50", "auto", Pooling.MEAN),
        ("timm:vit_tiny_patch16_224", "auto", Pooling.CLS),
        ("timm:resnet18", "auto", Pooling.MEAN),
    ],
)
def test_the_pooling_suits_the_network(
    architecture: str, pooling: str, expected: Pooling, config: PretrainConfig
) -> None:
    """`auto` is the CLS token where there is one; what is said is obeyed."""
    store = Store(str(config.data.store))
    model = ModelConfig(architecture=architecture, pooling=pooling)  # type: ignore[arg-type]

    assert expected is make_recipe(store, [0], model).pooling


@pytest.mark.slow
def test_the_start_is_printed_in_one_line(
    config: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The opening names the file and counts tensors; so do weights.txt and the first export."""
    vit = build_vit("vit-tiny-14", 3, (518, 518), torch.Generator().manual_seed(0))
    torch.save(vit.state_dict(), tmp_path / "tiny.pth")
    config = with_groups(
        config,
        model={"weights": str(tmp_path / "tiny.pth"), "input_init": "rgb-nearest"},
        optim={"epochs": 1},
    )

    pretrain(config)

    out = Path(str(config.run.out))
    line = (out / "weights.txt").read_text().splitlines()[0]
    assert "tiny.pth" in line
    assert "input layer rgb-nearest" in line
    assert f"from {line}\n" in capsys.readouterr().err
    assert line in load_encoder(out / "export" / "init").card.source


@pytest.mark.slow
def test_a_network_of_timm_is_pretrained(config: PretrainConfig) -> None:
    """By its name: masks drop its tokens, and its export embeds."""
    config = with_groups(
        config,
        model={"architecture": "timm:vit_tiny_patch16_224", "size": 64},
        optim={"epochs": 1, "layer_decay": 0.8},
    )

    pretrain(config)

    encoder = load_encoder(Path(str(config.run.out)) / "export" / "student")
    assert (2, 192) == tuple(
        encoder.embed(to_grid(Store(str(config.data.store)).images([0, 5]))).shape
    )


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_signals_are_given_back(
    config: PretrainConfig, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `pretrain` in Python SIGTERM does what it did before, also where training failed.

    Version 0.1 left a handler behind that noted the signal and did nothing: the process could not
    be ended but by SIGKILL.
    """

    def broken(*_: object) -> None:
        raise RuntimeError("the machine went away")

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        if fails:
            monkeypatch.setattr(PretrainModule, "training_step", broken)
            with pytest.raises(RuntimeError, match="went away"):
                pretrain(config)
        else:
            pretrain(config)

        assert signal.SIG_DFL is signal.getsignal(signal.SIGTERM)
        assert before[signal.SIGINT] is signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
