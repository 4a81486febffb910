"""Declarations of what is trained on images: rates, epochs, faults, and their ids."""

from __future__ import annotations

import math

import pytest

from eofm.bench.config import PROBE_KINDS, RECIPES, TrainingConfig
from eofm.bench.features import Readout
from eofm.bench.finetune.fit import rate_at
from eofm.bench.finetune.trainings import NO_FAULTS, TRAININGS, Case, Training, training_of
from eofm.bench.probes import KINDS
from eofm.bench.texts import TEXT_KINDS
from eofm.errors import ConfigError

CASES = [
    Case(convolutional, several) for convolutional in (False, True) for several in (False, True)
]
PLAIN = TrainingConfig()


def made(kind: str, case: Case = CASES[0], **options: object) -> Training:
    """A training with settings."""
    return training_of(kind, TrainingConfig(**options), case)  # type: ignore[arg-type]


def test_every_kind_is_declared_once() -> None:
    """What the settings name is what can be run, on features or on images."""
    assert set(PROBE_KINDS) == set(KINDS) | set(TRAININGS) | set(TEXT_KINDS)
    assert not set(KINDS) & set(TRAININGS)


def test_dinov2_tries_52_heads() -> None:
    """13 rates, 1 or 4 layers, with and without the patch mean (arXiv 2304.07193, B.3)."""
    training = made("dinov2-heads")

    assert 52 == len(training.rates) * len(training.readouts)
    assert {(1, False), (1, True), (4, False), (4, True)} == {
        (r.layers, r.patch_mean) for r in training.readouts
    }
    assert (1e-5, 0.1) == pytest.approx((min(training.rates), max(training.rates)))


def test_slca_is_slow_below_its_head() -> None:
    """SGD at 0.01 for the head and 0.0001 for the network, a tenth after 18 of 20 epochs."""
    training = made("slca")

    assert "sgd" == training.optimiser
    assert (0.0001,) == pytest.approx([training.rates[0] * f for f in training.factors])
    assert [1, 1, 0.1] == pytest.approx([rate_at(s, 20, training) for s in (0, 17, 18)])
    assert (20, 128, 5e-4, 1.0) == (
        training.epochs,
        training.batch,
        training.weight_decay,
        training.layer_decay,
    )


def test_rates_follow_the_batch_they_are_stated_for() -> None:
    """DINOv2 states rates per 256 images: at 128 they are half; a small split has small steps."""
    whole, small = made("dinov2-heads").fitted(10_000), made("dinov2-heads").fitted(32)

    assert [rate / 2 for rate in made("dinov2-heads").rates] == pytest.approx(whole.rates)
    assert 32 == small.batch
    assert [rate / 8 for rate in made("dinov2-heads").rates] == pytest.approx(small.rates)


def test_steps_become_epochs() -> None:
    """12,500 steps of 128 images are 10 epochs of 160,000 images, whatever the split."""
    assert 10 == made("dinov2-heads").fitted(160_000).epochs
    assert 125 == made("dinov2-heads").fitted(12_800).epochs
    assert 3 == made("dinov2-heads", epochs=3).fitted(12_800).epochs


def test_ssl4eo_depends_on_the_network() -> None:
    """Rate 8 at batch 1024 with two drops for a ResNet, 0.1 at 256 by a cosine for a ViT."""
    several = True
    resnet, vit = (made("ssl4eo-moco", Case(c, several)) for c in (True, False))

    assert ((8.0,), 1024, 50, (0.4, 0.8)) == (
        *(resnet.rates, resnet.batch, resnet.epochs, resnet.drops),
    )
    assert ((0.1,), 256, 100, ()) == (vit.rates, vit.batch, vit.epochs, vit.drops)
    assert (0.8, 0.1) == (vit.augmentation.crop, vit.fraction)
    one_class = made("ssl4eo-moco", Case(convolutional=False, multi_label=False))
    assert (0.08, 1.0) == (one_class.augmentation.crop, one_class.fraction)


@pytest.mark.parametrize("kind", [k for k in TRAININGS if k.startswith(("ssl4eo", "softcon"))])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_faults_are_repeated_on_demand_only(kind: str, case: Case) -> None:
    """Off by default; on, they are in words and in the id."""
    off, on = made(kind, case), made(kind, case, faults=True)

    assert off.faults == NO_FAULTS
    assert not off.faults.words
    assert on.faults.words
    assert ("a subset drawn with replacement" in on.faults.words) == case.multi_label
    drifts = "the statistics of a frozen batch norm drift" in on.faults.words
    assert drifts == (kind == "ssl4eo-moco" and case.convolutional)
    assert off.spelled(kind, 0) != on.spelled(kind, 0)
    assert off.protocol in RECIPES


def test_our_own_training_has_no_faults_to_repeat() -> None:
    """The switch is for papers."""
    assert made("finetune") == made("finetune", faults=True)


def test_the_id_spells_every_choice() -> None:
    """Another value of any setting is another probe."""
    options: list[dict[str, object]] = [
        {},
        {"epochs": 3},
        {"batch": 8},
        {"rate": 0.01},
        {"factors": "0.1"},
        {"weight_decay": 0.0},
        {"layer_decay": 1.0},
        {"warmup": 0.0},
        {"crop": 1.0},
        {"flips": False},
    ]
    ids = [made("finetune", **one).spelled("finetune", 0) for one in options]

    assert len(options) == len(set(ids))
    assert ids[0] != made("finetune").spelled("finetune", 1)
    assert "network=0.01/0.1/1" in ids[0]
    assert "reads=4 layers + patch mean" in made("softcon-dino4-mean").spelled("x", 0)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"epochs": -1}, "epochs"),
        ({"batch": -1}, "batch"),
        ({"rate": 0.0}, "rate"),
        ({"factors": ""}, "factors"),
        ({"factors": "0.1,high"}, "factors"),
        ({"factors": "-1"}, "factors"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"layer_decay": 1.1}, "layer_decay"),
        ({"warmup": 1.0}, "warmup"),
        ({"crop": 0.0}, "crop"),
        ({"rate": math.nan}, "rate"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], name: str) -> None:
    """At once, by name."""
    with pytest.raises(ConfigError, match="out of range") as caught:
        TrainingConfig(**options)  # type: ignore[arg-type]

    assert f"--train.{name}" in str(caught.value)


def test_readouts_are_named() -> None:
    """As records and tables show them."""
    names = [Readout().name, Readout(1).name, Readout(4, patch_mean=True).name]

    assert ["embedding", "1 layer", "4 layers + patch mean"] == names
