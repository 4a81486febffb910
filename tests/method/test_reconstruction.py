"""Targets, loss, floor and decoder of every term that predicts pixels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eofm.errors import ConfigError, SpecError
from eofm.method.reconstruction import (
    EPSILON,
    DecoderConfig,
    PixelDecoder,
    PixelLoss,
    PixelTargets,
    grid_positions,
    hidden_patches,
    patch_mean_floor,
    patchify,
    pixel_loss,
    pixel_targets,
)

SMALL = DecoderConfig(width=16, depth=2, heads=4, hidden=32)


def slow_targets(pixels: Tensor, valid: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return targets and valid pixels patch by patch and band by band, as the words say it."""
    batch, bands, height, width = pixels.shape
    columns = width // block
    patches = height // block * columns
    values = torch.zeros(batch, patches, bands, block * block, dtype=torch.float64)
    counts = torch.zeros(batch, patches, block * block, dtype=torch.bool)
    for image in range(batch):
        for patch in range(patches):
            top, left = patch // columns * block, patch % columns * block
            mask = valid[image, top : top + block, left : left + block].flatten()
            counts[image, patch] = mask
            for band in range(bands):
                cut = pixels[image, band, top : top + block, left : left + block].flatten().double()
                if mask.any():
                    mean, variance = cut[mask].mean(), cut[mask].var(correction=0)
                    here = (cut - mean) / (variance + EPSILON).sqrt()
                    values[image, patch, band] = torch.where(mask, here, 0.0)
    return values, counts


@given(
    st.integers(0, 10_000),
    st.sampled_from([(13, 8, 12, 4), (12, 6, 6, 3), (2, 4, 10, 2), (1, 5, 5, 5)]),
    st.sampled_from([0.0, 0.3, 0.9]),
)
@settings(max_examples=25, deadline=None)
def test_targets_and_losses_are_those_of_loops(
    seed: int, shape: tuple[int, int, int, int], invalid: float
) -> None:
    """Targets, both losses and the floor equal loops over images, patches, bands and pixels."""
    torch.manual_seed(seed)
    bands, height, width, block = shape
    pixels = torch.rand(3, bands, height, width)
    valid = torch.rand(3, height, width) >= invalid
    expected, counts = slow_targets(pixels, valid, block)
    hidden = torch.rand(3, expected.shape[1]).argsort(dim=1)[:, : expected.shape[1] // 2 + 1]
    predicted = torch.randn(3, hidden.shape[1], bands, block * block)

    targets = pixel_targets(pixels, valid, block)
    some = targets.of(hidden)

    assert counts.equal(targets.counts)
    torch.testing.assert_close(targets.values.double(), expected, atol=1e-4, rtol=1e-4)
    for form, power in ((PixelLoss.L1, 1), (PixelLoss.MSE, 2)):
        total = floor = many = 0.0
        for image in range(3):
            for row, patch in enumerate(hidden[image].tolist()):
                for pixel in range(block * block):
                    if counts[image, patch, pixel]:
                        truth = expected[image, patch, :, pixel]
                        apart = predicted[image, row, :, pixel].double() - truth
                        total += float((apart.abs() ** power).sum())
                        floor += float((truth.abs() ** power).sum())
                        many += bands
        found = float(pixel_loss(predicted, some, form))
        assert pytest.approx(total / max(many, 1), rel=1e-4, abs=1e-6) == found
        least = float(patch_mean_floor(some, form))
        assert pytest.approx(floor / max(many, 1), rel=1e-4, abs=1e-6) == least


def test_the_floor_is_that_of_the_patch_mean() -> None:
    """Squared, it is the mean of v / (v + ε): 1 for patches with contrast, 0 for flat ones."""
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 8, 8)
    pixels[:, :, :4, :4] = 0.5  # one flat patch of four
    targets = pixel_targets(pixels, torch.ones(2, 8, 8, dtype=torch.bool), 4)

    means = patchify(pixels, 4).mean(dim=3, keepdim=True)
    variance = patchify(pixels, 4).var(dim=3, correction=0, keepdim=True)
    predicted = (means - means) / (variance + EPSILON).sqrt()  # the mean, in normalised units

    floor = float(patch_mean_floor(targets, PixelLoss.MSE))
    assert pytest.approx(float((variance / (variance + EPSILON)).mean()), rel=1e-5) == floor
    assert pytest.approx(0.75, abs=1e-4) == floor
    assert floor == float(pixel_loss(predicted, targets, PixelLoss.MSE))


def test_the_floor_of_gaussian_noise() -> None:
    """Absolute, it is sqrt(2 / π) where the pixels of a patch are normally distributed."""
    torch.manual_seed(0)
    everything = torch.ones(4, 64, 64, dtype=torch.bool)
    targets = pixel_targets(torch.randn(4, 2, 64, 64), everything, 32)

    floor = float(patch_mean_floor(targets, PixelLoss.L1))

    assert pytest.approx(math.sqrt(2 / math.pi), abs=0.01) == floor


@pytest.mark.parametrize("poison", [1e6, float("nan")])
def test_invalid_pixels_change_nothing(poison: float) -> None:
    """Whatever lies under an invalid pixel, targets, loss and gradient stay the same."""
    torch.manual_seed(0)
    pixels, valid = torch.rand(2, 2, 8, 8), torch.rand(2, 8, 8) > 0.3
    valid[0, :4, :4] = False  # a patch without a valid pixel
    predicted = torch.randn(2, 4, 2, 16, requires_grad=True)
    changed = torch.where(valid[:, None], pixels, poison)
    results = []
    for each in (pixels, changed):
        loss = pixel_loss(predicted, pixel_targets(each, valid, 4), PixelLoss.MSE)
        results.append((loss, *torch.autograd.grad(loss, predicted)))

    for one, other in zip(*results, strict=True):
        assert one.equal(other)
    gradient = results[0][1]
    assert gradient[0, 0].eq(0).all()
    seen = patchify(valid[:, None].float(), 4)[:, :, 0] > 0
    assert gradient.ne(0).any(dim=2).equal(seen)


def test_a_batch_without_valid_pixels_has_a_loss_of_nought() -> None:
    """The loss is 0 and every gradient is there and 0: other ranks can continue."""
    predicted = torch.randn(1, 4, 2, 16, requires_grad=True)
    none = torch.zeros(1, 8, 8, dtype=torch.bool)

    loss = pixel_loss(predicted, pixel_targets(torch.rand(1, 2, 8, 8), none, 4), PixelLoss.L1)
    loss.backward()

    assert loss.item() == 0
    assert predicted.grad is not None
    assert predicted.grad.eq(0).all()


def test_brightness_and_contrast_cancel_out() -> None:
    """A view in other colours has the same targets: these are shape, not level."""
    torch.manual_seed(0)
    pixels, everything = torch.rand(2, 13, 12, 12), torch.ones(2, 12, 12, dtype=torch.bool)
    scale, shift = 0.5 + torch.rand(2, 13, 1, 1), torch.randn(2, 13, 1, 1)

    plain = pixel_targets(pixels, everything, 6).values
    other = pixel_targets(pixels * scale + shift, everything, 6).values

    torch.testing.assert_close(plain, other, atol=1e-3, rtol=1e-3)


def test_a_faint_band_weighs_as_much_as_a_bright_one() -> None:
    """Each band has variance 1, where a patch normalised as a whole would lose the faint one."""
    torch.manual_seed(0)
    pixels = torch.rand(2, 2, 8, 8) * torch.tensor([1.0, 0.05]).view(1, 2, 1, 1)

    values = pixel_targets(pixels, torch.ones(2, 8, 8, dtype=torch.bool), 4).values

    assert (values.var(dim=3, correction=0) > 0.99).all()


def test_the_pixels_of_a_band_stay_in_it() -> None:
    """Patches are row by row, and within one the pixels are row by row, band after band."""
    pixels = torch.arange(2 * 4 * 6).float().view(1, 2, 4, 6)

    found = patchify(pixels, 2)

    assert (1, 6, 2, 4) == tuple(found.shape)
    assert [2.0, 3.0, 8.0, 9.0] == found[0, 1, 0].tolist()
    assert [24 + 16.0, 17 + 24.0, 24 + 22.0, 23 + 24.0] == found[0, 5, 1].tolist()
    with pytest.raises(SpecError, match="whole patches"):
        patchify(pixels, 4)


@given(st.integers(0, 10_000), st.integers(2, 40), st.data())
@settings(max_examples=30, deadline=None)
def test_hidden_and_seen_make_the_image(seed: int, patches: int, data: st.DataObject) -> None:
    """Together they are every patch once, and the hidden ones come in order."""
    kept = data.draw(st.integers(1, patches))
    torch.manual_seed(seed)
    keep = torch.rand(3, patches).argsort(dim=1)[:, :kept]

    hidden = hidden_patches(keep, patches)

    assert (3, patches - kept) == tuple(hidden.shape)
    for seen, rest in zip(keep.tolist(), hidden.tolist(), strict=True):
        assert sorted(rest) == rest
        assert list(range(patches)) == sorted(seen + rest)


def test_positions_are_those_of_a_loop() -> None:
    """Each patch: sines and cosines of its column, then of its row; no two alike."""
    found = grid_positions(3, 5, 16)

    for patch in range(15):
        expected: list[float] = []
        for place in (patch % 5, patch // 5):
            angles = [place / 10000 ** (i / 4) for i in range(4)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert pytest.approx(expected, abs=1e-6) == found[patch].tolist()
    assert torch.cdist(found, found).fill_diagonal_(1).min() > 0.1


@pytest.mark.parametrize("bands", [13, 12, 2])
@pytest.mark.parametrize("cross", [False, True])
def test_a_decoder_predicts_each_hidden_patch(bands, cross, generator) -> None:
    """One patch of pixels per hidden patch and band; a gradient reaches every weight and token."""
    decoder = PixelDecoder(24, 2, bands, SMALL, generator, cross=cross)
    tokens = torch.randn(3, 5, 24, generator=generator, requires_grad=True)
    memory = torch.randn(3, 13, 24, generator=generator, requires_grad=True) if cross else None
    keep = torch.tensor([[0, 4, 7, 11], [3, 2, 1, 0], [8, 9, 10, 11]])

    predicted = decoder(tokens, keep, (3, 4), memory)
    predicted.square().mean().backward()

    assert (3, 8, bands, 4) == tuple(predicted.shape)
    reached = [*decoder.parameters(), tokens, *([] if memory is None else [memory])]
    assert all(p.grad is not None and p.grad.ne(0).any() for p in reached)


def test_a_decoder_knows_where_its_tokens_lie(generator) -> None:
    """The order of the tokens does not matter, their places do."""
    decoder = PixelDecoder(24, 2, 3, SMALL, generator, cross=False)
    tokens = torch.randn(1, 5, 24, generator=generator)
    keep, order = torch.tensor([[0, 4, 7, 11]]), torch.tensor([2, 0, 3, 1])
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], dim=1)

    plain = decoder(tokens, keep, (3, 4))

    torch.testing.assert_close(plain, decoder(shuffled, keep[:, order], (3, 4)))
    assert (plain - decoder(shuffled, keep, (3, 4))).abs().max() > 1e-3


def test_a_decoder_looks_at_the_other_view(generator) -> None:
    """Another partner changes the prediction, and so do its patches in another order."""
    decoder = PixelDecoder(24, 2, 3, SMALL, generator, cross=True)
    tokens, keep = torch.randn(2, 3, 24, generator=generator), torch.tensor([[0, 1], [0, 1]])
    memory = torch.randn(2, 13, 24, generator=generator)
    moved = torch.cat([memory[:, :1], memory[:, 1:].flip(1)], dim=1)

    plain = decoder(tokens, keep, (3, 4), memory)

    assert (plain - decoder(tokens, keep, (3, 4), memory.flip(0))).abs().max() > 1e-3
    assert (plain - decoder(tokens, keep, (3, 4), moved)).abs().max() > 1e-3


def test_the_generator_decides_the_weights_alone() -> None:
    """Equal seeds make equal decoders, and the global state is left as it was."""
    before = torch.get_rng_state()
    one, other, third = (
        PixelDecoder(24, 2, 3, SMALL, torch.Generator().manual_seed(s), cross=True).state_dict()
        for s in (0, 0, 1)
    )

    assert before.equal(torch.get_rng_state())
    assert all(one[name].equal(other[name]) for name in one)
    assert not all(one[name].equal(third[name]) for name in one)


def test_sizes_that_cannot_be_are_refused() -> None:
    """A width that heads or positions do not divide, and nothing of something, name the setting."""
    with pytest.raises(ConfigError, match=r"decoder\.width.*\n.*18(.|\n)*multiple of 12"):
        DecoderConfig(width=18, depth=1, heads=6, hidden=8)
    with pytest.raises(ConfigError, match=r"decoder\.depth"):
        DecoderConfig(width=16, depth=0, heads=4, hidden=8)


def test_predictions_in_half_precision_are_compared_in_single() -> None:
    """The loss of bfloat16 predictions is a float32 number, also under autocast."""
    targets = PixelTargets(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 4, dtype=torch.bool))
    with torch.autocast("cpu", torch.bfloat16):
        loss = pixel_loss(torch.zeros(1, 1, 1, 4, dtype=torch.bfloat16), targets, PixelLoss.MSE)

    assert torch.float32 is loss.dtype
    assert loss.item() == 1
