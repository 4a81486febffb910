"""One image of a place completed from another one: the partner must be the true one."""

from __future__ import annotations

import pytest
import torch
from small_terms import (
    DECODER,
    Two,
    combined,
    labels_of,
    passes,
    scored,
    small_vit,
    train,
    unreached,
    waves,
)

from eofm.errors import ConfigError
from eofm.method.objectives import check_views
from eofm.method.terms.croco import CroCo, CroCoSettings
from eofm.method.terms.seam import RandomMask, ViewKind
from eofm.networks.joint import JointTrunk, share_trunk
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit


def term(**changes: object) -> dict[str, object]:
    """The term with a small decoder."""
    return {"croco": {**DECODER, **changes}}


def seasons(generator: torch.Generator) -> Two:
    """The same waves in other colours, with some noise: what is hidden follows from the partner."""
    images = waves(generator, many=3)
    return images, 0.7 * images + 0.1 + 0.1 * torch.randn(images.shape, generator=generator)


def sensors(generator: torch.Generator) -> Two:
    """Three bands, and two that are mixtures of them."""
    images = waves(generator, many=3)
    return images, torch.stack([images.mean(dim=1), images[:, 0] - images[:, 2]], dim=1)


def joint() -> JointTrunk:
    """One transformer with an input layer for three bands and one for two."""
    return share_trunk({"s2-l1c": small_vit(3), "s1-grd": small_vit(2)})


@pytest.mark.slow
def test_the_true_partner_is_better_than_another():
    """After a short run another place's second view makes the error larger; before, it does not."""
    terms = combined(term())
    fresh = torch.Generator().manual_seed(99)
    image, partner = seasons(fresh)

    before = [scored(terms, (image, each)) for each in (partner, partner.roll(1, 0))]
    train(terms, seasons, 180)
    true, shuffled = (scored(terms, (image, each)) for each in (partner, partner.roll(1, 0)))

    assert abs(before[0]["croco/error"] - before[1]["croco/error"]) < 0.02
    assert true["croco/error"] < 0.8 * true["croco/floor"]
    assert shuffled["croco/error"] > 1.2 * true["croco/error"]


@pytest.mark.parametrize(
    ("completed", "decoders", "count"),
    [("first", {"3"}, 2), ("second", {"2"}, 2), ("both", {"2", "3"}, 4)],
)
def test_each_sensor_can_be_completed_from_the_other(completed, decoders, count):
    """What is predicted has a decoder for its bands; a gradient reaches every parameter."""
    terms = combined(term(pair="sensors", completed=completed), joint())
    views = sensors(torch.Generator().manual_seed(0))

    assert decoders == set(terms.terms["croco"].decoders)
    assert passes(terms, views) == count
    assert not unreached(terms, views)
    assert terms.teacher is None


def test_both_directions_are_a_mean_of_each():
    """The error of both is the mean of that of the first and that of the second view."""
    views = sensors(torch.Generator().manual_seed(0))
    both = combined(term(pair="sensors", completed="both"), joint())
    found = scored(both, views)
    alone = []
    for number, completed in enumerate(("first", "second")):
        one = combined(term(pair="sensors", completed=completed), joint())
        state = {n: v for n, v in both.state_dict().items() if n in one.state_dict()}
        one.load_state_dict(state)
        generator = torch.Generator().manual_seed(0)
        if number:  # the second view's mask is drawn after the first one's
            both.see(views, generator).keep(0, RandomMask(0.9))
        output = one(views, labels_of(views), generator)
        alone.append(float(output.scalars["croco/error"]))

    assert pytest.approx(sum(alone) / 2, rel=1e-5) == found["croco/error"]


@pytest.mark.parametrize(("bands", "size"), [(13, 56), (12, 42), (2, 28)])
def test_a_loss_for_every_sensor(bands, size, generator):
    """Transformers of 13, 12 and 2 bands have a loss that reaches every trained parameter."""
    terms = combined(term(), build_vit("vit-tiny-14", bands, (size, size), generator))
    images = torch.rand(2, bands, size, size, generator=generator)

    assert not unreached(terms, (images, images))


@pytest.mark.parametrize("pair", [ViewKind.SEASONS, ViewKind.SENSORS])
def test_what_it_needs(pair):
    """The views of its setting; others are refused with the option that gives them."""
    config = combined(term(pair=pair.value), joint()).config

    check_views(config, pair)
    with pytest.raises(ConfigError, match=rf"add --data\.views {pair}"):
        check_views(config, ViewKind.CROPS)


def test_a_resnet_is_refused(generator):
    """It has no tokens to leave out."""
    with pytest.raises(ConfigError, match=r"the term croco predicts patches(.|\n)*ResNet"):
        combined(term(), build_resnet("resnet18", 3, (64, 64), generator))


def test_a_share_out_of_range_is_named():
    """One error that names the setting; so is a decoder whose heads do not divide its width."""
    with pytest.raises(ConfigError, match=r"croco\.ratio is out of range"):
        CroCoSettings(ratio=1.0)
    with pytest.raises(ConfigError, match=r"decoder\.width"):
        combined(term(decoder_width=30))
    assert CroCo.settings is CroCoSettings
