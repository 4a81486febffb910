"""Views are drawn per sample; the fused engine does exactly what kornia would."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eofm.loading.views import Views, blur_matrix, crop_matrix, translate, with_crop_within
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


@pytest.mark.parametrize("engine", ["fused", "kornia"])
@pytest.mark.parametrize("clip", [UNIT, None])
def test_colour_changes_are_those_of_a_loop(engine: str, clip: tuple[float, float] | None) -> None:
    """Per image one s and one c: x · s, then (x - mean of the band) · c + mean, clamped to bounds.

    Both change or neither does, about as often as asked, and all bands of an image alike.
    """
    torch.manual_seed(0)
    settings = AugmentConfig(
        scale=(1.0, 1.0), flips=False, gray_probability=0, blur_probability=0, brightness=0.4,
        contrast=0.4, colour_probability=0.8, engine=engine,  # type: ignore[arg-type]
    )  # fmt: skip
    views = Views(16, settings, clip=clip, colour=True)
    pixels = torch.rand(200, 3, 16, 16) if clip else torch.randn(200, 3, 16, 16)
    draw = views.draw(pixels.shape)
    found, seen = views.make(pixels, draw), translate(draw, pixels.device)

    for i in range(200):
        s, c = float(seen.brightness[i]), float(seen.contrast[i])
        for band in range(3):
            expected = pixels[i, band] * s
            expected = expected.clamp(*clip) if clip else expected
            expected = (expected - expected.mean()) * c + expected.mean()
            expected = expected.clamp(*clip) if clip else expected
            assert torch.allclose(expected, found[i, band], atol=1e-5)
    changed = seen.brightness != 1
    assert changed.equal(seen.contrast != 1)
    assert 0.7 < changed.float().mean() < 0.9
    assert 0.6 <= seen.brightness.min() < 0.65
    assert 1.35 < seen.brightness.max() <= 1.4
    assert 0.6 <= seen.contrast.min() < 0.65
    assert 1.35 < seen.contrast.max() <= 1.4


def test_colour_changes_leave_bands_alive_and_tiles_apart() -> None:
    """At the lab's strength, dark bands stay textured and images keep their order of brightness.

    Version 0.1 added up to ±0.4 in [0, 1]: bands of dark water became 0 throughout, and the mean
    moved by twice the spread between tiles.
    """
    torch.manual_seed(0)
    level = torch.linspace(0.05, 0.6, 100).view(-1, 1, 1, 1)
    pixels = (level + 0.02 * torch.randn(100, 13, 24, 24)).clamp(0, 1)
    lab = AugmentConfig(
        scale=(1.0, 1.0), blur_probability=0, brightness=0.4, contrast=0.4, colour_probability=1.0
    )
    views = Views(24, lab, clip=UNIT, colour=True)(pixels)
    means = views.mean(dim=(1, 2, 3))

    assert (views.std(dim=(2, 3)) > 0).all()
    assert ((views == 0) | (views == 1)).float().mean() < 0.02
    assert (means - level.flatten()).abs().mean() < level.std()
    assert torch.corrcoef(torch.stack([means, level.flatten()]))[0, 1] > 0.8


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


@given(
    st.integers(0, 10_000), st.sampled_from([(0.3, 0.6), (1.0, 1.0), (0.01, 0.02)]), st.booleans()
)
@settings(max_examples=25, deadline=None)
def test_a_nested_crop_lies_in_its_outer_one(
    seed: int, share: tuple[float, float], elongated: bool
) -> None:
    """Inside it on all sides, of a share of its area and a shape that were asked for."""
    torch.manual_seed(seed)
    views = Views(28, ALWAYS, clip=UNIT, colour=True)
    shape = torch.Size((16, 3, 60, 200 if elongated else 60))
    outer, inner = views.draw(shape), views.draw(shape)

    nested = with_crop_within(outer, inner, share)

    box, whole = translate(nested, torch.device("cpu")), translate(outer, torch.device("cpu"))
    assert (box.top >= whole.top).all()
    assert (box.left >= whole.left).all()
    assert (box.top + box.height <= whole.top + whole.height).all()
    assert (box.left + box.width <= whole.left + whole.width).all()
    assert (box.height >= 1).all()
    assert (box.width >= 1).all()
    for i in range(16):
        height, width, area = box.height[i], box.width[i], whole.height[i] * whole.width[i]
        rounded = (height + width) / 2 + 1  # half a pixel on each side
        assert height * width <= share[1] * area + rounded
        if height < whole.height[i] and width < whole.width[i]:  # not cut at a border
            assert height * width >= share[0] * area - rounded
            assert (width + 0.5) / (height - 0.5) >= 3 / 4
            assert (width - 0.5) / (height + 0.5) <= 4 / 3


def test_a_nested_draw_keeps_its_flips_and_differs_between_images() -> None:
    """All but the crop is the inner draw's own; crops are spread evenly over the outer one."""
    torch.manual_seed(0)
    views = Views(28, ALWAYS, clip=UNIT, colour=True)
    shape = torch.Size((400, 3, 60, 60))
    outer, inner = views.draw(shape), views.draw(shape)

    nested = translate(with_crop_within(outer, inner, (0.3, 0.6)), torch.device("cpu"))

    own, whole = translate(inner, torch.device("cpu")), translate(outer, torch.device("cpu"))
    for name in ("flip_x", "flip_y", "sigma", "brightness", "contrast", "gray"):
        assert getattr(own, name).equal(getattr(nested, name))
    after = whole.left + whole.width - nested.left - nested.width
    assert (nested.left == whole.left).any()
    assert (after == 0).any()
    assert abs(float((nested.left - whole.left).float().mean() - after.float().mean())) < 1
    share = nested.height * nested.width / (whole.height * whole.width)
    assert 0.42 < share.mean() < 0.48


@pytest.mark.parametrize("engine", ["fused", "kornia"])
def test_a_nested_view_shows_a_part_of_the_outer_one(engine: str) -> None:
    """On a map of coordinates, both engines resample the very pixels of the inner box."""
    torch.manual_seed(0)
    still = AugmentConfig(
        scale=(0.5, 1.0), flips=False, colour_probability=0, blur_probability=0,
        engine=engine,  # type: ignore[arg-type]
    )  # fmt: skip
    views = Views(28, still, clip=None, colour=True)
    row, column = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    pixels = torch.stack([row, column]).expand(6, -1, -1, -1)
    outer = views.draw(pixels.shape)
    draw = with_crop_within(outer, views.draw(pixels.shape), (0.3, 0.6))

    made, box = views.make(pixels, draw), translate(draw, pixels.device)

    lowest, highest = made.amin(dim=(2, 3)), made.amax(dim=(2, 3))
    assert ((lowest[:, 0] - box.top).abs() < 1).all()
    assert ((lowest[:, 1] - box.left).abs() < 1).all()
    assert ((highest[:, 0] - (box.top + box.height - 1)).abs() < 1).all()
    assert ((highest[:, 1] - (box.left + box.width - 1)).abs() < 1).all()


@pytest.mark.parametrize("engine", ["fused", "kornia"])
def test_what_was_not_measured_moves_with_its_image(engine: str) -> None:
    """A view's pixel counts where no part of it was missing: seen by a view of what is missing."""
    torch.manual_seed(0)
    still = AugmentConfig(
        scale=(0.3, 1.0), blur_probability=0.5, colour_probability=0,
        engine=engine,  # type: ignore[arg-type]
    )  # fmt: skip
    views = Views(28, still, clip=None, colour=False)
    valid = torch.ones(8, 60, 60, dtype=torch.bool)
    valid[:4, 20:33, 41:] = False
    draw = views.draw(torch.Size((8, 1, 60, 60)))

    found = views.measured(valid, draw)

    missing = views.make((~valid)[:, None].float(), draw)
    sure = (missing - 1e-3).abs() > 2e-4  # engines agree to 1e-4
    assert (8, 1, 28, 28) == tuple(found.shape)
    assert torch.equal((missing < 1e-3)[sure], found[sure])
    assert found[4:].all()
    assert 0.05 < float((~found[:4]).float().mean()) < 0.5
