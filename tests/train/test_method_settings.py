"""The objective's settings reach the method, survive a resume, and bad ones are refused."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from softcon_small import batch, model

from eofm.cli import UsageError, parse
from eofm.contract.imagery import Imagery
from eofm.contract.spec import Sensor
from eofm.errors import ConfigError, PixelError, TrainingError
from eofm.method import LabelFacts
from eofm.store.format import HEADER_BYTES
from eofm.store.reader import Store
from eofm.train.checkpoint import Stage, load_networks
from eofm.train.config import (
    DEMO,
    DataConfig,
    ModelConfig,
    MonitorConfig,
    OptimConfig,
    PretrainConfig,
    RunConfig,
    SoftConConfig,
    TrainerConfig,
)
from eofm.train.evaluate import embed_rows
from eofm.train.run import pretrain

CHOICES = {
    name: list(kind)
    for name, kind in get_type_hints(SoftConConfig).items()
    if isinstance(kind, type) and issubclass(kind, StrEnum)
}


def quiet(config: PretrainConfig, method: SoftConConfig, **groups: object) -> PretrainConfig:
    """The settings with another method, and nothing looked at on the way."""
    return replace(config, method=method, monitor=MonitorConfig(every_epochs=0), **groups)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(CHOICES))
def test_every_choice_is_named_by_its_value(name: str) -> None:
    """From the command line, YAML and Python the same member comes out; another word is refused."""
    for member in CHOICES[name]:
        form = {"soft_form": "bce"} if name in ("soft_bias", "soft_scale") else {}
        words = [f"--method.{name}", member.value]
        parsed = parse("pretrain", words)
        assert isinstance(parsed, PretrainConfig)

        assert member is vars(SoftConConfig(**{**form, name: member.value}))[name]
        assert member is vars(parsed.method)[name]
    with pytest.raises(ConfigError, match=f"method.{name} has no such choice") as caught:
        SoftConConfig(**{name: "nonsense"})
    assert ", ".join(CHOICES[name]) in str(caught.value)
    with pytest.raises(UsageError, match=", ".join(CHOICES[name])):
        parse("pretrain", [f"--method.{name}", "nonsense"])


def test_the_help_shows_values() -> None:
    """What stands in the help can be typed: values of enumerations, not the names of members."""
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout), pytest.raises(SystemExit):
        parse("pretrain", ["--help-all"])

    assert "{none,same-location,same-labels}" in stdout.getvalue()
    assert "SAME_LOCATION" not in stdout.getvalue()


def test_one_set_of_defaults_and_the_demo_apart(store_path: Path, tmp_path: Path) -> None:
    """With a store, named by option or in a file, the command line has the defaults of Python.

    Without one it is the demo with its small heads, and an option still overrides it.
    """
    usual, demo = SoftConConfig(), DEMO.method
    file = tmp_path / "mine.yaml"
    file.write_text(f"data:\n  store: {store_path}\n")
    bare = tmp_path / "bare.yaml"
    bare.write_text("optim:\n  epochs: 3\n")

    def method(*words: str) -> SoftConConfig:
        parsed = parse("pretrain", list(words))
        assert isinstance(parsed, PretrainConfig)
        return parsed.method

    assert (4096, 256, 0.7, 1.0) == (usual.hidden, usual.dim, usual.mask_ratio, usual.soft_weight)
    assert usual == method("--data.store", str(store_path)) == PretrainConfig().method
    assert usual == method(f"--data.store={store_path}")
    assert usual == method("--config", str(file)) == method(f"--config={file}")
    assert demo == method() == method("--config", str(bare)) != usual
    assert replace(demo, hidden=64) == method("--method.hidden", "64")


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ({"queue": -32}, "method.queue"),
        ({"soft_neighbours": -1}, "method.soft_neighbours"),
        ({"soft_form": "ce", "soft_scale": "learned"}, "method.soft_scale"),
        ({"soft_form": "mse", "soft_bias": "zero"}, "method.soft_bias"),
        ({"objective": "shuffled", "soft_weight": 0.0}, "method.soft_weight"),
        ({"momentum": 1.5}, "method.momentum"),
        ({"mask_ratio": 1.0}, "method.mask_ratio"),
    ],
)
def test_settings_that_cannot_be_obeyed(method: dict[str, Any], name: str) -> None:
    """Each is refused by its name when the configuration is made."""
    with pytest.raises(ConfigError) as caught:
        SoftConConfig(**method)
    assert name in str(caught.value)


def test_a_queue_that_does_not_fit_the_batch() -> None:
    """Refused before anything is read: it depends on another group of settings."""
    with pytest.raises(ConfigError, match=r"method\.queue"):
        PretrainConfig(method=SoftConConfig(queue=33))


@pytest.mark.slow
def test_a_run_with_everything_on_resumes_exactly(
    config: PretrainConfig, tmp_path: Path, pretrain_interrupted: Callable[[PretrainConfig], None]
) -> None:
    """Queue, places, shares, independent seasons, inherited labels, colours: resumed bit for bit.

    The queue is in the checkpoint with its labels and places, and is full at the end.
    """
    method = replace(
        config.method,
        queue=8,
        hard_exclude="same-location",
        similarity="fraction",
        soft_unit="gradient",
        soft_weight=1.0,
        soft_scale="learned",
        soft_neighbours=5,
        soft_diagonal="one",
    )
    data = replace(config.data, views="independent-seasons", unlabelled="inherit", holdout=0.1)
    optim = replace(config.optim, batch=4)
    augment = replace(config.augment, rgb_probability=0.4)
    states = []
    for name in ("whole", "resumed"):
        run = replace(config.run, out=str(tmp_path / name), checkpoint_steps=1, threads=1)
        settings = quiet(config, method, data=data, augment=augment, optim=optim, run=run)
        if name == "resumed":
            pretrain_interrupted(settings)
            pretrain(PretrainConfig(run=RunConfig(out=run.out, resume=True)))
        else:
            pretrain(settings)
        saved = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        states.append({k: v for k, v in saved["state_dict"].items() if k.startswith("method.")})

    assert all(tensor.equal(states[1][key]) for key, tensor in states[0].items())
    assert states[0]["method.queue.filled"].all()
    assert len(states[0]["method.queue.places"].unique()) > 1
    assert states[0]["method.queue.vectors"].sum(1).allclose(torch.ones(8))
    assert "method.log_scale" in states[0]


def test_broken_pixels_are_named(
    config: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """A NaN under a valid pixel stops the run before a step is spoilt, and names its scene."""
    path = make_store(tmp_path / "s1", Sensor.S1_GRD)
    plane = np.memmap(next(path.glob("shard-*/10m.npy")), "<f4", "r+", HEADER_BYTES)
    plane[: 60 * 60] = np.nan  # the first band of row 0, a scene of 000
    del plane
    data = DataConfig(store=str(path), holdout=0.0, unlabelled="hard-only")
    settings = quiet(config, config.method, data=data, optim=OptimConfig(epochs=1, batch=24))
    with pytest.raises(PixelError, match="not finite") as caught:
        pretrain(settings)

    assert "000-0 (row 0)" in str(caught.value)
    assert str(path) in str(caught.value)


def test_broken_pixels_of_held_out_scenes_are_named(
    tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """What is only embedded for the probes is named as well, by its row in the store."""
    store = Store(make_store(tmp_path / "s1", Sensor.S1_GRD))

    class Strict:
        def embed(self, imagery: Imagery, waivers: object) -> torch.Tensor:
            raise PixelError("not finite", images=[1])

    with pytest.raises(PixelError, match=r"\(row 5\)"):
        embed_rows(Strict(), store, [3, 5, 7])  # type: ignore[arg-type]


def test_a_store_of_one_class_is_trained_on_with_a_warning(
    config: PretrainConfig,
    tmp_path: Path,
    make_store: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All similarities 1: the run says so and goes on; without the hard term it is refused."""
    store = str(make_store(tmp_path / "s", equal_labels=True))
    optim = OptimConfig(epochs=1, batch=8)
    data = DataConfig(store=store, holdout=0.25)
    pretrain(quiet(config, config.method, data=data, optim=optim))

    assert "all labelled training scenes have the same labels" in capsys.readouterr().err
    alone = replace(config.method, objective="soft")
    run = replace(config.run, out=str(tmp_path / "other"))
    with pytest.raises(TrainingError, match="nothing would keep them apart"):
        pretrain(quiet(config, alone, data=data, optim=optim, run=run))


def test_the_hard_term_alone_needs_no_labels(
    config: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """A store without labels trains with soft_weight 0; with a soft term it says what to do."""
    store = str(make_store(tmp_path / "s", labels=False))
    data = DataConfig(store=store, holdout=0.0, unlabelled="hard-only")
    optim = OptimConfig(epochs=1, batch=8)
    with pytest.raises(TrainingError, match="no image is labelled"):
        pretrain(quiet(config, config.method, data=data, optim=optim))
    alone = replace(config.method, soft_weight=0.0, queue=16)
    run = replace(config.run, out=str(tmp_path / "hard"))
    pretrain(quiet(config, alone, data=data, optim=optim, run=run))

    assert (tmp_path / "hard" / "export" / "student" / "card.json").is_file()


def test_chunks_are_refused_for_batch_norms_before_anything_is_written(
    config: PretrainConfig,
) -> None:
    """A ResNet in chunks is an error, and the run's folder is not made."""
    config = replace(
        config,
        model=ModelConfig(architecture="resnet18", size=64),
        method=replace(config.method, mask_ratio=0.0),
        trainer=TrainerConfig(accelerator="cpu", chunk=4),
    )
    with pytest.raises(ConfigError, match="batch norms"):
        pretrain(config)

    assert not Path(str(config.run.out)).exists()


def test_a_later_stage_starts_with_an_empty_queue(generator: torch.Generator) -> None:
    """Networks are handed on; keys, labels and places of another stage's images are not."""
    views, labels = batch(generator)
    first, second = (model(seed, LabelFacts(9), queue=size) for seed, size in ((0, 12), (1, 24)))
    first(views, labels, generator)
    load_networks(Stage(Path("a.ckpt"), "2 epochs", first.state_dict(), {}, "adamw"), second)

    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.equal(other)
    assert second.queue is not None
    assert not second.queue.filled.any()
