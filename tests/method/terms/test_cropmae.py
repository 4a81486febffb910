"""A crop from the image around it: two patches at least, below the patch mean, and no magic."""

from __future__ import annotations

import pytest
import torch
from small_terms import DECODER, Two, combined, labels_of, passes, scored, train, unreached, waves
from torch.nn import functional

from eofm.errors import ConfigError
from eofm.method.objectives import check_views
from eofm.method.terms.cropmae import CropMae, CropMaeSettings
from eofm.method.terms.seam import RandomMask, RunFacts, TeacherKind, ViewKind
from eofm.networks.resnet import build_resnet
from eofm.networks.vit import build_vit

TERM = {"cropmae": dict(DECODER)}


def nested(generator: torch.Generator) -> Two:
    """Waves, and the middle of them at twice the scale."""
    images = waves(generator, many=2)
    return images, functional.interpolate(images[:, :, 4:12, 4:12], size=(16, 16), mode="bilinear")


@pytest.mark.parametrize(
    ("side", "kept"), [(2, 2), (4, 2), (7, 2), (8, 2), (14, 2), (16, 3), (37, 20)]
)
def test_two_patches_are_seen_on_every_grid(side, kept, generator):
    """The share of the paper leaves none on grids below 9 x 9; two stay, and some are hidden."""
    settings = CropMaeSettings(decoder_depth=1)
    CropMae(settings, RunFacts(32, (side, side), 2, (3, 3)), generator)

    keep = RandomMask(settings.ratio).draw(2, (side, side), generator)

    assert (2, kept) == tuple(keep.shape)
    assert kept < side * side


def test_a_grid_of_two_patches_is_refused(generator):
    """Two are seen and none is left: the loss would be 0 whatever the network does."""
    with pytest.raises(ConfigError, match=r"nothing to predict(.|\n)*model\.size"):
        CropMae(CropMaeSettings(), RunFacts(32, (1, 2), 2, (3, 3)), generator)


@pytest.mark.slow
def test_the_crop_is_predicted_from_the_image_around_it():
    """The error falls below that of the patch mean; with another image around it, far above."""
    terms = combined(TERM)
    fresh = torch.Generator().manual_seed(99)
    image, crop = nested(fresh)

    before = scored(terms, (image, crop))
    train(terms, nested, 130)
    after = scored(terms, (image, crop))
    stranger = scored(terms, (image.roll(1, 0), crop))

    assert before["cropmae/error"] > before["cropmae/floor"]
    assert after["cropmae/error"] < 0.9 * after["cropmae/floor"]
    assert stranger["cropmae/error"] > 1.1 * after["cropmae/error"]


@pytest.mark.parametrize(("bands", "size"), [(13, 56), (12, 42), (2, 28)])
def test_a_loss_for_every_sensor(bands, size, generator):
    """Transformers of 13, 12 and 2 bands have a loss that reaches every trained parameter."""
    terms = combined(TERM, build_vit("vit-tiny-14", bands, (size, size), generator))
    images = torch.rand(2, bands, size, size, generator=generator)

    assert not unreached(terms, (images, images))
    assert terms.teacher is None
    assert passes(terms, (images, images)) == 2


def test_the_image_is_not_predicted():
    """The crop's valid pixels are the targets: without any the loss is 0, whatever the image is."""
    terms = combined(TERM)
    views = nested(torch.Generator().manual_seed(0))

    def loss_of(*valid: bool) -> torch.Tensor:
        masks = [torch.full((16, 1, 16, 16), each) for each in valid]
        return terms(views, labels_of(views), torch.Generator(), masks.__getitem__).loss

    assert loss_of(True, False) == 0
    assert loss_of(False, True) > 0


def test_what_it_needs():
    """Nested views, which other views are refused for; the remedy fits; no teacher."""
    config = combined(TERM).config
    assert TeacherKind.NONE is CropMae.needs.teacher
    with pytest.raises(ConfigError, match=r"add --data\.views nested"):
        check_views(config, ViewKind.CROPS)
    check_views(config, ViewKind.NESTED)


def test_a_resnet_is_refused(generator):
    """It has no tokens to leave out."""
    with pytest.raises(ConfigError, match=r"the term cropmae predicts patches(.|\n)*ResNet"):
        combined(TERM, build_resnet("resnet18", 3, (64, 64), generator))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5])
def test_a_share_out_of_range_is_named(ratio):
    """One error that names the setting."""
    with pytest.raises(ConfigError, match=r"cropmae\.ratio is out of range"):
        CropMaeSettings(ratio=ratio)
