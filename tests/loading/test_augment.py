"""Views are drawn per sample; the fused engine does exactly what kornia would."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eofm.loading.augment import Views, blur_matrix, crop_matrix, translate
from eofm.train.config import AugmentConfig

UNIT = (0.0, 1.0)
ALWAYS = AugmentConfig(
    colour_probability=1.0, gray_probability=0.5, blur_probability=1.0, scale=(0.1, 1.0)
)


@given(
    st.integers(0, 10_000),
    st.sampled_from([(13, 40, 40), (2, 37, 53), (3, 24, 96)]),
    st.sampled_from([24, 30, 56]),
    st.sampled_from([UNIT, None]),
)
@settings(max_examples=25, deadline=None)
def test_fused_agrees_with_kornia(
    seed: int, shape: tuple[int, int, int], size: int, clip: tuple[float, float] | None
) -> None:
    """On the same draw, crop, resize, flip, blur, colour and gray agree to 1e-4."""
    torch.manual_seed(seed)
    fused = Views(size, ALWAYS, clip=clip, colour=True)
    kornia = Views(size, replace(ALWAYS, engine="kornia"), clip=clip, colour=True)
    pixels = torch.rand(4, *shape) if clip else torch.randn(4, *shape) * 3
    draw = fused.draw(pixels.shape)

    assert torch.allclose(kornia.make(pixels, draw), fused.make(pixels, draw), atol=1e-4)


def test_equal_images_become_distinct_views() -> None:
    """Eight equal images give eight different views: nothing is drawn once per batch."""
    torch.manual_seed(0)
    one = torch.rand(1, 13, 32, 32)

    views = Views(28, AugmentConfig(), clip=UNIT, colour=True)(one.expand(8, -1, -1, -1))

    different = [(views[i] - views[j]).abs().max() > 1e-3 for i in range(8) for j in range(i)]
    assert all(different)


def test_the_input_is_left_unchanged() -> None:
    """Two views of one batch start from the same pixels."""
    torch.manual_seed(0)
    pixels = torch.rand(4, 13, 32, 32)
    before = pixels.clone()

    Views(28, ALWAYS, clip=UNIT, colour=True)(pixels)

    assert before.equal(pixels)


def test_sar_keeps_its_decibels() -> None:
    """Without colour, every value of a view lies within the range of its own image and band."""
    torch.manual_seed(0)
    pixels = torch.randn(6, 2, 40, 40)

    views = Views(28, AugmentConfig(), clip=None, colour=False)(pixels)

    assert (views.amax(dim=(2, 3)) <= pixels.amax(dim=(2, 3)) + 1e-5).all()
    assert (views.amin(dim=(2, 3)) >= pixels.amin(dim=(2, 3)) - 1e-5).all()


def test_unbounded_pixels_are_not_clamped() -> None:
    """A z-scored image keeps values beyond [0, 1]; clamping it would destroy a third of them."""
    torch.manual_seed(0)
    pixels = torch.randn(4, 13, 40, 40) * 2

    views = Views(28, AugmentConfig(), clip=None, colour=True)(pixels)

    at_bounds = ((views == 0) | (views == 1)).float().mean()
    assert at_bounds < 0.01
    assert views.min() < -0.5


def test_no_randomness_left_is_the_identity() -> None:
    """With every probability at zero and the whole image as crop, the view is the image."""
    still = AugmentConfig(
        scale=(1.0, 1.0), flips=False, colour_probability=0, gray_probability=0, blur_probability=0
    )
    pixels = torch.rand(2, 5, 32, 32)
    torch.manual_seed(0)
    views = Views(32, still, clip=UNIT, colour=True)
    draw = views.draw(pixels.shape)
    box = translate(draw, pixels.device)

    full = (box.height == 32) & (box.width == 32)
    assert torch.allclose(pixels[full], views.make(pixels, draw)[full], atol=1e-6)


def test_crop_matrix_is_torch_interpolation() -> None:
    """Each row block of the matrix resamples its interval as torch's bilinear does."""
    line = torch.rand(1, 1, 1, 40)
    start, length = torch.tensor([3, 10]), torch.tensor([20, 30])
    flip = torch.tensor([False, True])

    matrix = crop_matrix(start, length, flip, 40, 24)

    for i in range(2):
        cut = line[..., start[i] : start[i] + length[i]]
        expected = torch.nn.functional.interpolate(cut, size=(1, 24), mode="bilinear").flatten()
        expected = expected.flip(0) if flip[i] else expected
        assert torch.allclose(expected, matrix[i] @ line.flatten(), atol=1e-5)
        assert pytest.approx(1.0, abs=1e-5) == matrix[i].sum(dim=1).min().item()


def test_blur_matrix_keeps_constants_and_no_blur_is_identity() -> None:
    """Rows sum to one, and sigma 0 changes nothing."""
    matrix = blur_matrix(torch.tensor([0.0, 1.5]), 20, 5)

    assert torch.equal(torch.eye(20), matrix[0])
    assert torch.allclose(torch.ones(20), matrix[1].sum(dim=1), atol=1e-6)
