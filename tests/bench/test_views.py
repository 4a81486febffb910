"""Random views: what they move, what they keep, and that a pair of sensors sees the same one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from eofm.bench.finetune.trainings import Augmentation, Draw, draw_views, make_views


def drawn(crop: float, count: int = 400, **flips: bool) -> Draw:
    """Views of many images."""
    generator = torch.Generator().manual_seed(1)
    return draw_views(Augmentation(crop, **flips), count, generator)


def test_without_augmentation_images_stay_as_they_are() -> None:
    """The pixels of frozen features, bit by bit."""
    pixels = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))

    assert torch.equal(pixels, make_views(pixels, drawn(1.0, 3)))


def test_flips_move_pixels_and_change_none() -> None:
    """Each of the four cases is a mirror image of the original."""
    pixels = torch.arange(2 * 3 * 4.0).view(1, 2, 3, 4).expand(4, 2, 3, 4)
    flip = torch.tensor([[False, False], [True, False], [False, True], [True, True]])

    views = make_views(pixels, Draw(torch.full((4, 2), 0.5), torch.ones(4, 2), flip))

    one = pixels[0]
    expected = torch.stack([one, one.flip(2), one.flip(1), one.flip(1, 2)])
    assert torch.equal(expected, views)


def test_crops_lie_within_the_image_and_have_the_area_asked_for() -> None:
    """Area from the smallest share up to all, aspect from 3:4 to 4:3, corners inside."""
    draw = drawn(0.3)
    low, high = draw.centre - draw.extent / 2, draw.centre + draw.extent / 2
    area, aspect = draw.extent.prod(dim=1), draw.extent[:, 0] / draw.extent[:, 1]

    assert low.min() > -1e-6
    assert high.max() < 1 + 1e-6
    assert 0.3 - 1e-6 < area.min() < 0.33
    assert 0.95 < area.max() <= 1 + 1e-6
    assert 3 / 4 - 1e-6 < aspect.min() < aspect.max() < 4 / 3 + 1e-6
    assert not draw.flip.any()


def test_flips_are_drawn_for_half_of_the_images() -> None:
    """In the directions asked for, and in no other."""
    flip = drawn(0.8, flip_y=True).flip

    assert not flip[:, 0].any()
    assert 0.4 < flip[:, 1].float().mean() < 0.6


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_is_the_crop_resized(mirrored: bool) -> None:
    """Against cutting whole pixels and interpolating them; at the cut's rim neighbours count."""
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    draw = Draw(
        torch.tensor([[8 / 16, 6 / 16]]),
        torch.tensor([[8 / 16, 8 / 16]]),
        torch.tensor([[mirrored, False]]),
    )

    view = make_views(pixels, draw)

    cut = pixels[:, :, 2:10, 4:12]
    expected = functional.interpolate(cut, (16, 16), mode="bilinear", align_corners=False)
    expected = expected.flip(3) if mirrored else expected
    inner = slice(1, -1)
    assert torch.allclose(expected[..., inner, inner], view[..., inner, inner], atol=1e-5)


def test_both_sensors_of_a_pair_see_one_view() -> None:
    """Draws are shares of the sides: a ramp at two resolutions gives the same ramp."""
    draw = drawn(0.5, 6, flip_x=True, flip_y=True)
    coarse, fine = ((torch.arange(n) + 0.5) / n for n in (16, 64))
    views = [make_views(r.expand(6, 1, len(r), len(r)).contiguous(), draw) for r in (coarse, fine)]

    shrunk = functional.avg_pool2d(views[1], 4)
    assert torch.allclose(views[0][..., 1:-1], shrunk[..., 1:-1], atol=1e-3)


def test_the_same_seed_draws_the_same_views() -> None:
    """And a part of a batch has its part of the views."""
    one, other = drawn(0.8, 5, flip_x=True), drawn(0.8, 5, flip_x=True)

    assert torch.equal(one.centre, other.centre)
    assert torch.equal(one.extent[2:4], one.of(slice(2, 4)).extent)
    assert torch.equal(one.flip[2:4], one.of(slice(2, 4)).flip)
